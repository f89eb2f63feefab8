//! The rules of the house: layers import downwards only, and every WGSL slot has its Rust twin.

#[path = "common/skip.rs"]
mod skip;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use heedful::feature::slots;
use heedful::kernel::Kernel;

/// Lowest first; a module may import those before it, never one beside it in the same row.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["tensor"],
    &["feature"],
    &["problem"],
    &["reference", "kernel"],
    &["plan"],
    &["device"],
    &["engine"],
    &["cache", "layer"],
    &["verify"],
    &["bench"],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the project").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Modules named after `crate::` in code (not in comments).
fn imports(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn imports_only_go_down() {
    let src = root().join("src");
    let mut checked = 0;
    for file in files(&src, "rs") {
        let relative = file.strip_prefix(&src).expect("below src");
        let first = relative.components().next().expect("a component").as_os_str();
        let module = first.to_string_lossy().trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let own = layer_of(&module).unwrap_or_else(|| panic!("{module} is in no layer"));
        let text = fs::read_to_string(&file).expect("a readable file");
        for import in imports(&text) {
            let Some(other) = layer_of(&import) else { continue };
            let allowed = other < own || import == module;
            assert!(allowed, "{} imports {import}, which is not below it", relative.display());
        }
        let names_wgpu =
            text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("wgpu::"));
        let device = layer_of("device").expect("a layer");
        assert!(own >= device || !names_wgpu, "{} names wgpu", relative.display());
        assert!(!text.contains("naga::"), "{} names naga", relative.display());
        checked += 1;
    }
    assert!(checked > 30, "only {checked} files seen");
}

#[test]
fn every_slot_file_has_its_twin_and_is_registered() {
    let stems = |folder: PathBuf, extension: &str| -> BTreeSet<String> {
        files(&folder, extension)
            .iter()
            .filter(|path| path.parent() != Some(folder.as_path()))
            .filter(|path| path.file_stem().is_some_and(|stem| stem != "mod"))
            .map(|path| {
                let relative = path.strip_prefix(&folder).expect("below the folder");
                relative.with_extension("").to_string_lossy().into_owned()
            })
            .collect()
    };
    let wgsl = stems(root().join("shaders/slot"), "wgsl");
    let rust = stems(root().join("src/feature"), "rs");
    assert_eq!(wgsl, rust, "shaders/slot and src/feature differ");
    let registered: BTreeSet<String> =
        slots().map(|slot| format!("{}/{}", slot.kind, slot.name)).collect();
    assert_eq!(wgsl, registered, "shaders/slot and the registry differ");
    assert_eq!(registered.len(), slots().count(), "a slot is registered twice");
}

#[test]
fn every_kernel_file_has_its_twin() {
    let listed: BTreeSet<String> = Kernel::ALL.iter().map(|x| x.name().to_owned()).collect();
    assert_eq!(listed.len(), Kernel::ALL.len(), "two kernels have one name");
    let stem = |path: &PathBuf| path.file_stem().expect("a stem").to_string_lossy().into_owned();
    let wgsl: BTreeSet<String> =
        files(&root().join("shaders/kernel"), "wgsl").iter().map(stem).collect();
    assert_eq!(wgsl, listed, "shaders/kernel and the list in src/kernel/kernels.rs differ");
    for name in listed {
        let twin = fs::read_to_string(root().join(format!("src/kernel/{name}.rs")));
        let twin = twin.unwrap_or_else(|e| panic!("shaders/kernel/{name}.wgsl has no twin: {e}"));
        assert!(twin.contains(&format!("kernel_file!(\"{name}\")")), "{name} is not its twin's");
    }
}

/// What is not run is said by `tests/common/skip.rs`, past the harness and into the list that `./test` shows.
#[test]
fn what_is_skipped_is_seen() {
    let list = std::env::temp_dir().join(format!("heedful-skipped-{}", std::process::id()));
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_test_that_is_skipped", "--ignored"])
        .env(skip::LIST, &list)
        .output()
        .expect("this test once more");
    let lines = "SKIPPED a_test: it has no device\nUNSUPPORTED a_test: 3 of 7 runs\n";
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && errors.contains(lines), "{errors}");
    assert_eq!(fs::read_to_string(&list).expect("the list"), lines);
    let _ = fs::remove_file(&list);
    for folder in ["tests", "cli/tests", "cli/src", "src"] {
        for file in files(&root().join(folder), "rs") {
            let ours = file.ends_with("tests/house.rs") || file.ends_with("tests/common/skip.rs");
            let text = fs::read_to_string(&file).expect("a readable file");
            let printed = ["\"SKIPPED ", "\"UNSUPPORTED ", "\"skipped: "];
            let silent = printed.iter().any(|print| text.contains(print));
            assert!(ours || !silent, "{} prints what nobody sees", file.display());
        }
    }
}

#[test]
#[ignore = "what_is_skipped_is_seen runs it"]
fn a_test_that_is_skipped() {
    skip::skipped("a_test", "it has no device");
    skip::unsupported("a_test", "3 of 7 runs");
}

#[test]
fn shader_files_keep_their_contract() {
    for slot in slots() {
        assert!(slot.source.starts_with("//"), "{} has no header", slot.path());
        assert!(!slot.source.contains("@group"), "{} declares a binding", slot.path());
        if matches!(slot.kind, "mask" | "score" | "align") {
            let name = format!("fn {}(", slot.function());
            assert!(slot.source.contains(&name), "{} lacks {name}", slot.path());
        }
        for end in ["_range(", "_whole("] {
            let there = slot.source.contains(&format!("fn {}{end}", slot.function()));
            assert!(there || !slot.narrows, "{} lacks {}{end}", slot.path(), slot.function());
        }
    }
    for file in files(&root().join("shaders"), "wgsl") {
        let text = fs::read_to_string(&file).expect("a readable file");
        for word in ["todo", "fixme", "nvidia", "intel", "qualcomm"] {
            assert!(!text.to_lowercase().contains(word), "{} says {word}", file.display());
        }
        assert!(text.lines().count() <= 400, "{} is too long", file.display());
    }
}
