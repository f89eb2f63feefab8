//! `heedful run`: every option gives checked outputs of the right shape, and every bad request one line.

mod common;

use common::skip::skipped;
use common::{NO_ADAPTER, Order, Place, QKV, adapter, arrays, heedful_with, npy, numbers};
use heedful::verify::npy as reader;

/// Runs with `--check` and reads the output back.
fn checked(place: &Place, options: &str, shape: &[u64]) {
    let done = place.heedful(&format!("{QKV} --out o.npy --check {options}")).succeeded();
    let said = done.stdout();
    assert!(said.contains("o        ok"), "{options}: {said}");
    assert!(!said.contains("WRONG"), "{options}: {said}");
    let o = reader::read(&place.path("o.npy")).expect("the output");
    assert_eq!(o.shape, shape, "{options}");
    assert!(o.is_float && o.values.iter().all(|x| x.is_finite()), "{options}");
    std::fs::remove_file(place.path("o.npy")).expect("the output");
}

#[test]
fn run_every_feature_matches_the_reference() {
    if !adapter("run_every_feature") {
        return;
    }
    let place = arrays();
    for options in [
        "",
        "--mask mask.npy",
        "--mask key_mask.npy",
        "--mask mask.npy --mask-bits --bias bias.npy --bias-dtype f16",
        "--bias bias.npy",
        "--bias bias.npy --bias-dtype bf16",
        "--sinks sinks.npy",
        "--alibi slopes.npy",
        "--alibi slopes.npy --alibi-offset bottom-right",
        "--alibi slopes.npy --alibi-offset -3",
        "--kv-lengths kv_lengths.npy",
        "--q-lengths q_lengths.npy",
        "--past-k past_k.npy --past-v past_v.npy --causal bottom-right",
        "--causal top-left",
        "--causal bottom-right",
        "--causal 4",
        "--causal -2",
        "--window 3,2 --window-align top-left",
        "--window 3,- --causal bottom-right",
        "--window -,1 --window-align 2",
        "--window -,- --window-align -1",
        "--softcap 1.5",
        "--scale 0.2",
        "--scale -1",
        "--scale 0",
        "--mask mask.npy --bias bias.npy --sinks sinks.npy --alibi slopes.npy --softcap 2 \
         --kv-lengths kv_lengths.npy --q-lengths q_lengths.npy --causal bottom-right --window 6,-",
    ] {
        checked(&place, options, &[2, 4, 9, 6]);
    }
}

#[test]
fn run_every_path_and_dtype_matches_the_reference() {
    if !adapter("run_every_path_and_dtype") {
        return;
    }
    let place = arrays();
    for path in ["auto", "fused", "staged", "reference"] {
        for dtype in ["f32", "f16", "bf16"] {
            let options = format!("--path {path} --dtype {dtype} --causal top-left");
            checked(&place, &options, &[2, 4, 9, 6]);
        }
    }
}

#[test]
fn run_writes_lse_and_weights_from_every_point() {
    if !adapter("run_writes_lse_and_weights") {
        return;
    }
    let place = arrays();
    for point in ["raw-scores", "after-softcap", "after-bias", "probabilities"] {
        for path in ["auto", "staged", "reference"] {
            let options = format!(
                "--softcap 2 --bias bias.npy --lse lse.npy --weights w.npy --weights-at {point} --path {path}"
            );
            checked(&place, &options, &[2, 4, 9, 6]);
            let lse = reader::read(&place.path("lse.npy")).expect("the log-sum-exp");
            assert_eq!(lse.shape, [2, 4, 9]);
            let weights = reader::read(&place.path("w.npy")).expect("the weights");
            assert_eq!(weights.shape, [2, 4, 9, 13]);
            if point == "probabilities" {
                for row in weights.values.chunks(13) {
                    assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{path}: {row:?}");
                }
            }
        }
    }
}

#[test]
fn run_explain_prints_the_plan() {
    if !adapter("run_explain") {
        return;
    }
    let place = arrays();
    let said = place.heedful(&format!("{QKV} --explain")).succeeded().stdout();
    for word in ["plan for 2x4/2x9/13x8/6", "path", "kernel", "blocks", "scratch"] {
        assert!(said.contains(word), "{said}");
    }
    let said = place.heedful(&format!("{QKV} --explain --path reference")).succeeded().stdout();
    assert!(said.contains("reference"), "{said}");
}

#[test]
fn run_reads_every_dtype_and_order_alike() {
    // On the reference: what is read is the same on any machine.
    let place = arrays();
    let shape = [2, 4, 9, 8];
    let values = numbers(shape.iter().product(), 1);
    let run = |q: &str| {
        let arguments = format!("run --q {q} --k k.npy --v v.npy --out o.npy --path reference");
        place.heedful(&arguments).succeeded();
        reader::read(&place.path("o.npy")).expect("the output").values
    };
    let expected = run("q.npy");
    for dtype in ["<f4", "<f8", "<f2"] {
        for order in [Order::C, Order::Fortran] {
            place.write("other.npy", npy(dtype, order, &shape, &values));
            assert_eq!(run("other.npy"), expected, "{dtype} {order:?}");
        }
    }
}

#[test]
fn run_outputs_have_as_many_axes_as_q() {
    let place = Place::new();
    for (axes, o_shape) in
        [(&[][..], &[5_u64, 3][..]), (&[2], &[2, 5, 3]), (&[1, 2], &[1, 2, 5, 3])]
    {
        let array = |name: &str, last: [usize; 2], seed| {
            let shape = [axes, &last[..]].concat();
            let values = numbers(shape.iter().product(), seed);
            place.write(name, npy("<f4", Order::C, &shape, &values));
        };
        array("q.npy", [5, 4], 1);
        array("k.npy", [7, 4], 2);
        array("v.npy", [7, 3], 3);
        let outputs = "--out o.npy --lse lse.npy --weights w.npy --path reference";
        place.heedful(&format!("{QKV} {outputs}")).succeeded();
        let read = |name: &str| reader::read(&place.path(name)).expect("an output").shape;
        assert_eq!(read("o.npy"), o_shape);
        assert_eq!(read("lse.npy"), o_shape[..o_shape.len() - 1]);
        assert_eq!(read("w.npy"), [&o_shape[..o_shape.len() - 1], &[7]].concat());
    }
}

/// The bytes of a safetensors file of f32 tensors.
fn safetensors(tensors: &[(&str, &[usize], Vec<f64>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| (*x as f32).to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data[..]].concat()
}

#[test]
fn run_reads_safetensors_by_name() {
    let place = Place::new();
    let tensor = |shape: &[usize], seed| numbers(shape.iter().product(), seed);
    let (q, kv) = ([1, 2, 5, 4], [1, 2, 7, 4]);
    let bytes = safetensors(&[
        ("q", &q, tensor(&q, 1)),
        ("k", &kv, tensor(&kv, 2)),
        ("values", &kv, tensor(&kv, 3)),
    ]);
    place.write("all.safetensors", &bytes);
    place
        .heedful("run --safetensors all.safetensors --v values --check --path reference")
        .succeeded();
    let missing = place.heedful("run --safetensors all.safetensors --path reference");
    missing.refused(2, &["--v", "all.safetensors", "\"v\""]);
    place.write("cut.safetensors", &bytes[..bytes.len() - 5]);
    place.heedful("run --safetensors cut.safetensors --v values").refused(2, &["cut.safetensors"]);
}

#[test]
fn run_agrees_with_numpy() {
    let place = Place::new();
    place.write("write.py", include_str!("numpy_write.py"));
    place.write("read.py", include_str!("numpy_read.py"));
    let python = |script: &str| {
        let mut command = std::process::Command::new("python3");
        command.arg(script).current_dir(place.folder.path()).output()
    };
    match python("write.py") {
        Err(error) => return skipped("run_agrees_with_numpy", format!("python3: {error}")),
        Ok(output) if output.status.code() == Some(3) => {
            return skipped("run_agrees_with_numpy", "python3 has no numpy");
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let options = "--mask mask --causal bottom-right --kv-lengths lengths --path reference";
    let outputs = "--out o.npy --lse lse.npy --weights w.npy";
    place.heedful(&format!("run --npz all.npz {options} {outputs}")).succeeded();
    place.heedful("run --npz all.npz --q nothing").refused(2, &["all.npz", "nothing"]);
    let output = python("read.py").expect("python3 once more");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn run_bad_files_are_named() {
    let place = arrays();
    let whole = std::fs::read(place.path("q.npy")).expect("q");
    place.write("cut.npy", &whole[..whole.len() - 3]);
    place.write("header.npy", &whole[..40]);
    place.write("empty.npy", []);
    place.write("text.npy", "not an array");
    place.write("vector.npy", npy("<f4", Order::C, &[8], &numbers(8, 1)));
    place.write("five.npy", npy("<f4", Order::C, &[1, 1, 1, 2, 4], &numbers(8, 1)));
    for (name, words) in [
        ("missing.npy", &["missing.npy"][..]),
        (".", &[]),
        ("cut.npy", &["cut.npy"]),
        ("header.npy", &["header.npy", "cut short"]),
        ("empty.npy", &["empty.npy", "signature"]),
        ("text.npy", &["text.npy", "signature"]),
        ("vector.npy", &["--q", "[8]", "2, 3 or 4 axes"]),
        ("five.npy", &["--q", "2, 3 or 4 axes"]),
    ] {
        let arguments = format!("run --q {name} --k k.npy --v v.npy");
        place.heedful(&arguments).refused(2, words);
    }
    place.heedful("run --npz text.npy").refused(2, &["text.npy"]);
    place.heedful("run --npz missing.npz").refused(2, &["missing.npz"]);
    place.heedful("run --safetensors missing.st").refused(2, &["missing.st"]);
    place.heedful("run --safetensors text.npy").refused(2, &["text.npy"]);
}

#[test]
fn run_bad_requests_are_one_line() {
    let place = arrays();
    let array = |name: &str, dtype: &str, shape: &[usize]| {
        let values = numbers(shape.iter().product(), 9);
        place.write(name, npy(dtype, Order::C, shape, &values));
    };
    array("wide.npy", "<f4", &[2, 2, 13, 10]);
    array("three.npy", "<f4", &[2, 3, 13, 8]);
    array("three_v.npy", "<f4", &[2, 3, 13, 6]);
    array("short_v.npy", "<f4", &[2, 2, 12, 6]);
    array("odd_mask.npy", "|b1", &[2, 1, 9, 12]);
    array("float_mask.npy", "<f4", &[2, 1, 9, 13]);
    array("five.npy", "<f4", &[1, 2, 1, 9, 13]);
    array("three_sinks.npy", "<f4", &[3]);
    array("fractions.npy", "<f4", &[2]);
    array("bool_bias.npy", "|b1", &[4, 9, 13]);
    array("bool_q.npy", "|b1", &[2, 4, 9, 8]);
    array("int_k.npy", "<i8", &[2, 2, 13, 8]);
    array("bool_sinks.npy", "|b1", &[4]);
    array("square_sinks.npy", "<f4", &[2, 2]);
    array("bool_lengths.npy", "|b1", &[2]);
    array("tall_lengths.npy", "<i8", &[2, 1]);
    array("three_lengths.npy", "<i8", &[3]);
    array("int_slopes.npy", "<i8", &[4]);
    array("flat_positions.npy", "<i8", &[18]);
    array("turned_positions.npy", "<i8", &[9, 2]);
    array("float_positions.npy", "<f4", &[2, 9]);
    array("negative_positions.npy", "<i8", &[2, 9]);
    place.write("negative_positions.npy", npy("<i8", Order::C, &[2, 9], &[-1.0; 18]));
    array("column_score_v.npy", "<f4", &[8, 1]);
    array("turned_matrix.npy", "<f4", &[4, 16]);
    for (options, words) in [
        ("--k wide.npy", &["--k, axis dim", "10", "8"][..]),
        ("--k three.npy --v three_v.npy", &["heads_q", "4", "3"]),
        ("--v short_v.npy", &["--v, axis seq", "12", "13"]),
        ("--v three_v.npy", &["--v, axis heads"]),
        ("--mask odd_mask.npy", &["mask shape, axis seq_kv", "12", "1 or 13"]),
        ("--mask float_mask.npy", &["--mask", "floating-point", "booleans"]),
        ("--bias five.npy", &["--bias", "at most 4 axes"]),
        ("--sinks three_sinks.npy", &["sinks", "3", "4"]),
        ("--alibi three_sinks.npy", &["alibi", "3", "4"]),
        ("--kv-lengths fractions.npy", &["--kv-lengths", "floating-point", "integers"]),
        ("--kv-lengths bool_lengths.npy", &["--kv-lengths", "booleans", "integers"]),
        ("--q-lengths tall_lengths.npy", &["--q-lengths", "[2, 1]", "[batch]"]),
        ("--kv-lengths three_lengths.npy", &["--kv-lengths, axis batch", "3", "2"]),
        (
            "--cu-seqlens-q tall_lengths.npy --cu-seqlens-k tall_lengths.npy",
            &["--cu-seqlens-q", "[2, 1]"],
        ),
        ("--bias bool_bias.npy", &["--bias", "booleans", "floating-point numbers"]),
        ("--q bool_q.npy", &["--q", "booleans", "floating-point numbers"]),
        ("--k int_k.npy", &["--k", "integers", "floating-point numbers"]),
        ("--v int_k.npy", &["--v", "integers", "floating-point numbers"]),
        ("--past-k int_k.npy --past-v past_v.npy", &["--past-k", "integers"]),
        ("--sinks bool_sinks.npy", &["--sinks", "booleans", "floating-point numbers"]),
        ("--sinks square_sinks.npy", &["--sinks", "[2, 2]", "[heads_q]"]),
        ("--alibi int_slopes.npy", &["--alibi", "integers", "floating-point numbers"]),
        ("--alibi square_sinks.npy", &["--alibi", "[2, 2]", "[heads_q]"]),
        ("--rotary 8 --positions flat_positions.npy", &["--positions", "[18]", "[batch, seq_q]"]),
        ("--rotary 8 --positions turned_positions.npy", &["--positions, axis batch", "9", "2"]),
        ("--rotary 8 --positions float_positions.npy", &["--positions", "integers"]),
        (
            "--rotary 8 --positions negative_positions.npy",
            &["--positions", "-1", "integers from 0"],
        ),
        ("--score cosine --head-scale square_sinks.npy", &["--head-scale", "[2, 2]", "[heads_q]"]),
        ("--score cosine --head-scale bool_sinks.npy", &["--head-scale", "booleans"]),
        ("--score additive --score-v column_score_v.npy", &["--score-v", "[8, 1]", "[dim]"]),
        (
            "--score general --score-matrix turned_matrix.npy",
            &["--score-matrix, axis dim_q", "4", "8"],
        ),
        ("--kv-lengths slopes.npy", &["kv-lengths"]),
        ("--q-lengths sinks.npy", &["--q-lengths"]),
        ("--past-k past_k.npy", &["--past-v"]),
        ("--past-k past_v.npy --past-v past_v.npy", &["--past-k"]),
        ("--scale nan", &["scale", "NaN"]),
        ("--scale inf", &["scale", "inf"]),
        ("--scale much", &["--scale", "much"]),
        ("--softcap 0", &["softcap", "> 0"]),
        ("--softcap -1", &["softcap", "> 0"]),
        ("--window 3,2", &["--window", "no alignment", "--window-align"]),
        ("--window 3 --causal 0", &["--window", "LEFT,RIGHT"]),
        ("--window -4,2 --causal 0", &["--window", "LEFT,RIGHT"]),
        ("--window 3,2 --causal 0 --window-align 1", &["window alignment"]),
        ("--causal left", &["--causal", "top-left, bottom-right or an integer"]),
        ("--causal 2000000000", &["alignment offset"]),
        ("--dtype f8", &["--dtype", "f8"]),
        ("--path quick", &["--path", "quick"]),
        ("--no-such-option", &["--no-such-option"]),
        ("--npz a.npz --safetensors b", &["--npz", "--safetensors"]),
    ] {
        // An option that is there twice is refused for that reason.
        let given = ["--q q.npy", "--k k.npy", "--v v.npy", "--path reference"];
        let given = given.iter().filter(|x| !options.contains(&x[..x.find(' ').unwrap_or(0) + 1]));
        let arguments = given.fold(format!("run {options}"), |all, x| format!("{all} {x}"));
        place.heedful(&arguments).refused(2, words);
    }
    place.heedful("no-such-command").refused(2, &["no-such-command"]);
}

#[test]
fn run_requests_the_device_cannot_serve_are_one_line() {
    if !adapter("run_requests_the_device_cannot_serve") {
        return;
    }
    let place = arrays();
    let fused = format!("{QKV} --path fused --weights w.npy");
    place.heedful(&fused).refused(2, &["fused_forward", "staged path only"]);
    let nowhere = format!("{QKV} --adapter no-such-adapter");
    place.heedful(&nowhere).refused(2, &["--adapter", "no-such-adapter", "part of one of"]);
    assert!(!place.files().contains(&"w.npy".to_owned()));
}

#[test]
fn run_without_an_adapter_says_so_and_uses_the_reference() {
    let place = arrays();
    let run = |options: &str| {
        let arguments = format!("{QKV} --out o.npy {options}");
        heedful_with(place.folder.path(), &arguments, &[NO_ADAPTER])
    };
    run("--require-adapter").refused(3, &["no GPU adapter"]);
    assert!(!place.files().contains(&"o.npy".to_owned()));
    // Not a failure, but never silent.
    run("--check").refused(0, &["no GPU adapter", "float64 reference"]);
    let o = reader::read(&place.path("o.npy")).expect("the output");
    assert_eq!(o.shape, [2, 4, 9, 6]);
}

#[test]
fn run_leaves_nothing_half_written() {
    let place = arrays();
    let before = place.files();
    for options in [
        "--out nowhere/o.npy",
        "--lse nowhere/lse.npy",
        "--weights nowhere/w.npy",
        "--out o.npy --lse nowhere/lse.npy",
        "--out o.npy --weights .",
    ] {
        place.heedful(&format!("{QKV} --path reference {options}")).refused(2, &[]);
        assert_eq!(place.files(), before, "{options}");
    }
}

#[test]
fn run_packed_sequences_stay_packed() {
    if !adapter("run_packed_sequences") {
        return;
    }
    let place = Place::new();
    for (name, shape) in [("q.npy", [10, 4, 8]), ("k.npy", [14, 2, 8]), ("v.npy", [14, 2, 6])] {
        let values = numbers(shape.iter().product(), shape[0]);
        place.write(name, npy("<f4", Order::C, &shape, &values));
    }
    place.write("starts_q.npy", npy("<i8", Order::C, &[4], &[0.0, 4.0, 4.0, 10.0]));
    place.write("starts_k.npy", npy("<i8", Order::C, &[4], &[0.0, 9.0, 10.0, 14.0]));
    let packed = "--cu-seqlens-q starts_q.npy --cu-seqlens-k starts_k.npy";
    for path in ["fused", "staged", "reference"] {
        let options = format!("{packed} --path {path} --causal bottom-right --lse lse.npy");
        checked(&place, &options, &[10, 4, 6]);
        let lse = reader::read(&place.path("lse.npy")).expect("the log-sum-exp");
        assert_eq!(lse.shape, [10, 4]);
    }
    place.write("starts_k.npy", npy("<i8", Order::C, &[4], &[0.0, 9.0, 10.0, 13.0]));
    place.heedful(&format!("{QKV} {packed}")).refused(2, &["--cu-seqlens-k", "14"]);
}

#[test]
fn other_scores_and_normalizers_are_right() {
    let place = arrays();
    if !adapter("other_scores_and_normalizers") {
        return;
    }
    for normalizer in
        ["relu", "relu-squared", "sigmoid", "hard", "sample", "sparsemax", "entmax15", "raw"]
    {
        checked(&place, &format!("--normalizer {normalizer}"), &[2, 4, 9, 6]);
    }
    place.write("score_v.npy", npy("<f4", Order::C, &[8], &numbers(8, 8)));
    place.write("matrix.npy", npy("<f4", Order::C, &[8, 8], &numbers(64, 9)));
    let yarn = r#"{"hidden_size": 32, "num_attention_heads": 4, "model_type": "any", "max_position_embeddings": 64,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}"#;
    place.write("config.json", yarn);
    let long = r#"{"head_dim": 8, "partial_rotary_factor": 0.5, "max_position_embeddings": 64, "rope_scaling":
        {"rope_type": "longrope", "short_factor": [1, 1], "long_factor": [1, 3], "factor": 8}}"#;
    place.write("longrope.json", long);
    let integers = |name: &str, shape: &[usize], of: fn(usize) -> f64| {
        let n = shape.iter().product();
        place.write(name, npy("<i8", Order::C, shape, &(0..n).map(of).collect::<Vec<_>>()));
    };
    integers("row_positions.npy", &[2, 9], |i| (i * 7 % 20) as f64);
    integers("key_positions.npy", &[2, 13], |i| (i * 5 % 30) as f64);
    integers("one_positions.npy", &[1, 9], |i| (3 * i) as f64);
    integers("one_key_positions.npy", &[1, 13], |i| (40 - i) as f64);
    integers("parents.npy", &[2, 9], |i| [-1, 0, 0, 1, 1, 2, -1, 6, 5][i % 9].into());
    integers("one_parents.npy", &[1, 9], |i| [-1, 0, 1, 1, 3, 0, 5, 5, 7][i % 9].into());
    for score in [
        "--score additive --score-v score_v.npy --inner-scale 0.5",
        "--score general --score-matrix matrix.npy",
        "--score cosine --head-scale sinks.npy",
        "--rotary 8 --rotary-interleaved",
        "--rotary 4 --past-k past_k.npy --past-v past_v.npy",
        "--rope-config config.json --past-k past_k.npy --past-v past_v.npy",
        "--rope-config longrope.json --rotary-interleaved",
        "--rotary 8 --positions row_positions.npy --key-positions key_positions.npy",
        "--rotary 8 --key-positions key_positions.npy",
        "--rotary 4 --positions one_positions.npy --key-positions one_key_positions.npy",
        "--tree parents.npy",
        "--tree one_parents.npy --kv-lengths kv_lengths.npy --mask key_mask.npy",
    ] {
        checked(&place, score, &[2, 4, 9, 6]);
    }
}

#[test]
fn options_of_another_score_or_normalizer_are_refused_by_name() {
    let place = arrays();
    for (options, words) in [
        ("--score additive", ["--score-v", "provided"]),
        ("--score dot --head-scale sinks.npy", ["--head-scale", "cosine"]),
        ("--normalizer hard --sinks sinks.npy", ["sinks", "softmax"]),
        ("--normalizer relu --divisor 0", ["divisor", "> 0"]),
        ("--rotary 7", ["rotary dim", "even"]),
        ("--key-positions mask.npy", ["--key-positions", "--rope-config"]),
        ("--tree sinks.npy", ["--tree", "integers"]),
        ("--tree kv_lengths.npy", ["--tree", "[2]"]),
        ("--rotary-interleaved", ["--rotary-interleaved", "--rope-config"]),
        ("--rope-config missing.json", ["--rope-config missing.json", "readable"]),
        ("--rope-config {}", ["--rope-config", "head_dim"]),
        (r#"--rope-config {"head_dim":16}"#, ["rotary dim", "16"]),
    ] {
        place.heedful(&format!("{QKV} --out o.npy {options}")).refused(2, &words);
    }
}
