//! `heedful run --call`: any call as JSON, and its tensors by name.

mod common;

use common::{Order, QKV, adapter, arrays, npy, numbers};
use heedful::verify::npy as reader;

/// JSON without blanks: arguments are separated by them.
fn packed(json: &str) -> String {
    json.split_whitespace().collect()
}

#[test]
fn run_takes_any_call() {
    if !adapter("run_takes_any_call") {
        return;
    }
    let place = arrays();
    let array = |name: &str, dtype: &str, shape: &[usize], values: Vec<f64>| {
        place.write(name, npy(dtype, Order::C, shape, &values));
    };
    array("ids_q.npy", "<i8", &[2, 9], (0..18).map(|i| f64::from(i / 5)).collect());
    array("ids_kv.npy", "<i8", &[2, 13], (0..26).map(|i| f64::from(i / 7)).collect());
    array("offsets.npy", "<i8", &[2], vec![-2.0, 5.0]);
    array("centers.npy", "<f4", &[2, 9], (0..18).map(|i| f64::from(i % 11)).collect());
    array("pages.npy", "<i8", &[2, 4], vec![1.0, 0.0, 3.0, 7.0, 2.0, 5.0, 4.0, 6.0]);
    array("page_k.npy", "<f4", &[8, 2, 4, 8], numbers(512, 11));
    array("page_v.npy", "<f4", &[8, 2, 4, 6], numbers(384, 12));
    for (call, operands) in [
        (r#"{"masks": {"chunked": {"size": 4, "align": "bottom_right"}}, "softcap": 3}"#, ""),
        (
            r#"{"masks": {"causal": {"align": {"offset": -2}}, "window": {"left": 3, "align": {"offset": -2}}}}"#,
            "",
        ),
        (
            r#"{"masks": {"segments": {}}}"#,
            "--operand segments_q=ids_q.npy --operand segments_kv=ids_kv.npy",
        ),
        (r#"{"masks": {"causal": {"align": "per_batch"}}}"#, "--operand offsets=offsets.npy"),
        (
            r#"{"masks": {"local": {"reach": 2.5, "gaussian": true}}}"#,
            "--operand centers=centers.npy",
        ),
        (r#"{"kv_storage": "int8", "dtype": "f16", "layout_q": "bshd", "layout_o": "bshd"}"#, ""),
        (r#"{"layout_v": {"strided": {"batch": 200, "head": 100, "row": 7}}}"#, ""),
        (r#"{"rotary": {"dim": 8, "table_rows": 13}, "sinks": true}"#, "--operand sinks=sinks.npy"),
        (
            r#"{"alibi": {"align": "bottom_right"}, "normalizer": {"sigmoid": {"bias": -2}}}"#,
            "--alibi slopes.npy",
        ),
        (
            r#"{"shape": "2x4/2x9/13x8/6", "paged": {"pages": 8, "page_size": 4, "row": 4}, "kv_lengths": true}"#,
            "--k page_k.npy --v page_v.npy --kv-lengths kv_lengths.npy --operand page_table=pages.npy",
        ),
    ] {
        place.write("call.json", call);
        let given = if operands.contains("--k ") { "run --q q.npy" } else { QKV };
        let done = place.heedful(&format!("{given} --call call.json --check {operands}"));
        let said = done.succeeded().stdout();
        assert!(said.contains("o        ok") && !said.contains("WRONG"), "{call}: {said}");
    }
}

#[test]
fn options_replace_and_extend_a_call() {
    let place = arrays();
    let o = |options: &str| {
        let run = format!("{QKV} --path reference --out o.npy {options}");
        place.heedful(&run).succeeded();
        reader::read(&place.path("o.npy")).expect("the output").values
    };
    let call =
        packed(r#"{"masks": {"causal": {"align": "bottom_right"}}, "scale": 2, "softcap": 4}"#);
    let alike = |options: &str, others: &str| {
        assert!(o(options) == o(others), "{options}: not what {others} gives");
    };
    let short = "--causal bottom-right --scale 2 --softcap 4";
    alike(&format!("--call {call}"), short);
    place.write("call.json", call.replace(':', ": "));
    alike("--call call.json", short);
    alike(
        "--call call.json --scale 1 --causal top-left",
        "--causal top-left --scale 1 --softcap 4",
    );
    let window = "--window 2,1 --kv-lengths kv_lengths.npy";
    alike(&format!("--call call.json {window}"), &format!("{short} {window}"));
    let hard = packed(r#"{"normalizer": "hard"}"#);
    alike(&format!("--call {hard} --normalizer softmax"), "");
    alike("--call {} --operand sinks=sinks.npy --sinks sinks.npy", "--sinks sinks.npy");
}

#[test]
fn a_call_that_cannot_be_is_refused_by_name() {
    let place = arrays();
    place.write("list.json", "[1, 2]");
    for (options, words) in [
        (r#"--call {"colour":1}"#, &["--call", "colour"][..]),
        (r#"--call {"masks":{"round":{}}}"#, &["--call", "round", "causal"]),
        (r#"--call {"masks":{"chunked":{"size":4}}}"#, &["--call", "align"]),
        (
            r#"--call {"masks":{"chunked":{"size":0,"align":"top_left"}}}"#,
            &["chunked", "0", "1..=2^28"],
        ),
        (r#"--call {"custom_masks":[]}"#, &["--call", "functions of the caller's own"]),
        (r#"--call {"shape":"2x4/2x9/12x8/6"}"#, &["--k, axis seq", "13", "12"]),
        (r#"--call {"shape":"2x4"}"#, &["shape", "batch x heads"]),
        (r#"--call {"paged":{"pages":8,"page_size":4,"row":4}}"#, &["--call", "pages and a shape"]),
        (r#"--call {"packed":{"total_q":8,"total_kv":4}}"#, &["--cu-seqlens-q", "none"]),
        (r#"--call {"sinks":true}"#, &["sinks", "no array", "--operand sinks=ARRAY, 4 elements"]),
        (
            r#"--call {"masks":{"causal":{"align":"top_left"}}} --window 1,1 --window-align 2"#,
            &["window alignment"],
        ),
        ("--call {", &["--call", "JSON"]),
        ("--call list.json", &["--call list.json", "JSON object"]),
        ("--call none.json", &["--call none.json", "readable"]),
        ("--operand sinks=sinks.npy", &["--operand sinks", "a call without it"]),
        ("--operand lse=sinks.npy", &["lse", "none of", "segments_q"]),
        ("--operand sinks", &["NAME=ARRAY"]),
        (
            "--sinks sinks.npy --operand sinks=slopes.npy --operand sinks=key_mask.npy",
            &["--operand sinks", "booleans"],
        ),
    ] {
        place.heedful(&format!("{QKV} --path reference {options}")).refused(2, words);
    }
}
