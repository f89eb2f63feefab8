//! What a newcomer types: `--help`, completions, and a file's name alone.

mod common;

use common::{NO_ADAPTER, Order, Place, arrays, heedful_with, npy, numbers};

/// Runs without any adapter.
fn heedful(place: &Place, arguments: &str) -> common::Finished {
    heedful_with(&place.path(""), arguments, &[NO_ADAPTER])
}

#[test]
fn help_lists_commands_by_what_one_wants_to_do() {
    let place = Place::new();
    let help = heedful(&place, "--help").succeeded().stdout();
    let at = |word: &str| help.find(word).unwrap_or_else(|| panic!("{help} lacks {word:?}"));
    let order = [
        "Compute:",
        "  run ",
        "  map ",
        "Measure:",
        "  bench ",
        "Check:",
        "  verify ",
        "Look inside:",
        "  shader ",
    ];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{help}");
    assert!(at("heedful FILE") < at("--version"), "{help}");
    let run = heedful(&place, "run --help").succeeded().stdout();
    let groups = [
        "Tensors:",
        "Masks and lengths:",
        "Scores, weights and positions:",
        "Results:",
        "Gradients:",
        "How and where:",
    ];
    for group in groups {
        assert_eq!(run.matches(&format!("\n{group}\n")).count(), 1, "{group}: {run}");
    }
    // Every option is in a group; what is left is --help.
    let (_, rest) = run.split_once("\nOptions:\n").expect("options");
    let rest = rest.split("\n\n").next().unwrap_or_default();
    assert!(!rest.contains("--path") && !rest.contains("--mask"), "{rest}");
}

#[test]
fn every_shell_gets_completions() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = heedful(&place, &format!("completions {shell}")).succeeded().stdout();
        for word in ["heedful", "shader", "rotary-interleaved"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    heedful(&place, "completions tcsh").refused(2, &["tcsh", "bash"]);
}

/// bash itself completes by the script, where there is a bash.
#[test]
fn bash_completes_by_its_script() {
    let place = Place::new();
    place.write("complete.sh", heedful(&place, "completions bash").succeeded().stdout());
    let script = "source ./complete.sh; COMP_WORDS=(heedful ver); COMP_CWORD=1; \
        _heedful heedful ver heedful; echo \"${COMPREPLY[@]}\"";
    let bash = std::process::Command::new("bash")
        .args(["-c", script])
        .current_dir(place.path(""))
        .output();
    let Ok(done) = bash else {
        return common::skip::skipped("bash_completes_by_its_script", "no bash");
    };
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(said.trim(), "verify", "{}", String::from_utf8_lossy(&done.stderr));
}

/// What the run says it does, and that it did it.
fn does(place: &Place, arguments: &str, command: &str) -> common::Finished {
    let done = heedful(place, arguments);
    assert_eq!(done.status(), Some(0), "{arguments}: {}", done.stderr());
    let said = done.stderr();
    assert_eq!(said.lines().next(), Some(&*format!("heedful {command}")), "{arguments}: {said}");
    assert!(said.contains("\n  also: "), "{arguments}: {said}");
    done
}

#[test]
fn weights_become_a_picture() {
    let place = Place::new();
    let weights: Vec<f64> = numbers(4 * 6, 1).into_iter().map(f64::abs).collect();
    place.write("seen.npy", npy("<f4", Order::C, &[4, 6], &weights));
    does(&place, "seen.npy", "map --weights seen.npy --out seen.png");
    assert!(std::fs::read(place.path("seen.png")).expect("a picture").starts_with(b"\x89PNG"));
    // A picture that is there is not replaced by accident, only when it is named.
    heedful(&place, "seen.npy").refused(2, &["seen.png", "--out"]);
    does(
        &place,
        "seen.npy --out other.png --length 3",
        "map --weights seen.npy --out other.png --length 3",
    );
    let recorded = common::repository().join("tests/golden/real/minilm_layer5_unpadded.npz");
    let recorded = recorded.display();
    let map = format!("map --npz {recorded} --weights expected_weights --out x.png");
    does(&place, &format!("{recorded} --out x.png"), &map);
}

/// With every tensor beside q, k and v that the file has.
#[test]
fn q_k_and_v_are_computed_and_checked() {
    let place = Place::new();
    let golden = common::repository().join("tests/golden");
    for (file, tensors) in [
        ("onnx/attention_4d_attn_mask_bool.npz", " --mask mask"),
        ("jax/grid000.npz", " --bias bias --sinks sinks"),
        (
            "varlen/varlen_09.npz",
            " --alibi alibi_slopes --cu-seqlens-q cu_seqlens_q --cu-seqlens-k cu_seqlens_k",
        ),
    ] {
        let file = golden.join(file);
        let file = file.display();
        let run = format!("run --npz {file} --explain --check{tensors}");
        let said = does(&place, &file.to_string(), &run).stdout();
        assert!(said.contains("o        ok") && said.contains("plan for"), "{said}");
        let run = format!("run --npz {file} --explain{tensors} --check --out o.npy");
        does(&place, &format!("{file} --check --out o.npy"), &run);
    }
    let other = golden.join("onnx/rotary_embedding.npz").display().to_string();
    let words = ["cos_cache", "one called weights", "heedful map --npz", "heedful run --npz"];
    heedful(&place, &other).refused(2, &words);
}

#[test]
fn calls_reports_and_tiles_go_to_their_commands() {
    let place = Place::new();
    place.write("call.json", r#"{"shape": "1x2x64x16"}"#);
    let done = does(&place, "call.json --device nvidia", "shader --call call.json --device nvidia");
    assert!(done.stdout().contains("@compute"), "{}", done.stdout());
    let report = common::repository().join("tests/reports/nvidia-h200.json");
    let report = report.display();
    let done = does(&place, &report.to_string(), &format!("report {report}"));
    assert!(done.stdout().contains("NVIDIA H200"), "{}", done.stdout());
    // Its own help; none of these needs an adapter.
    place.write("tiles.json", r#"{"tile": []}"#);
    place.write("work.toml", "");
    let folder = common::repository().join("tests/golden/onnx");
    for (file, command) in [
        ("call.json".to_owned(), "heedful shader"),
        (report.to_string(), "heedful report"),
        ("tiles.json".into(), "heedful bench"),
        ("work.toml".into(), "heedful bench"),
        (folder.display().to_string(), "heedful verify"),
    ] {
        let help = heedful(&place, &format!("{file} --help")).succeeded().stdout();
        assert!(help.contains(&format!("Usage: {command}")), "{file}: {help}");
    }
}

#[test]
fn what_a_file_is_for_is_said_where_it_is_not_obvious() {
    let place = arrays();
    place.write("other.json", r#"{"colour": 1}"#);
    place.write("list.json", "[1]");
    place.write("empty.json", "{}");
    place.write("notes.txt", "hello");
    std::fs::create_dir(place.path("folder")).expect("a folder");
    for (arguments, words) in [
        ("benhc", &["benhc", "neither a command nor a file", "--help"][..]),
        ("none.npz", &["none.npz", "neither"]),
        ("other.json", &["colour", "report of", "report --bench"]),
        ("list.json", &["list.json", "JSON object"]),
        ("empty.json", &["empty.json", "tile shapes"]),
        ("notes.txt", &["notes.txt", ".npz", "report"]),
        ("folder", &["folder", "cases.json"]),
        ("mask.npy --colour 1", &["mask.npy", "--colour", "heedful map"]),
    ] {
        heedful(&place, arguments).refused(2, words);
    }
}
