//! `heedful run`: every option on arrays as numpy writes them, and every kind of bad input.

mod common;

use common::{Bench, stderr, stdout, wave};

/// The arrays of one grouped call: 2 sequences, 4 and 2 heads, 5 queries, 7 keys, dimensions 8 and 6.
fn arrays(name: &str) -> Bench {
    let bench = Bench::new(name);
    bench.f32s("q.npy", &[2, 4, 5, 8], 1);
    bench.f32s("k.npy", &[2, 2, 7, 8], 2);
    bench.f32s("v.npy", &[2, 2, 7, 6], 3);
    bench.f32s("past_k.npy", &[2, 2, 3, 8], 4);
    bench.f32s("past_v.npy", &[2, 2, 3, 6], 5);
    bench.f32s("bias.npy", &[4, 5, 7], 6);
    bench.f32s("four.npy", &[4], 7);
    bench.bools("mask.npy", &[2, 1, 1, 7]);
    bench.bools("square.npy", &[5, 7]);
    bench.integers("kv_lengths.npy", &[3, 7]);
    bench.integers("q_lengths.npy", &[5, 2]);
    bench
}

const CALL: [&str; 8] = ["run", "--q", "q.npy", "--k", "k.npy", "--v", "v.npy", "--check"];

fn runs(bench: &Bench, options: &str) -> String {
    let mut args = CALL.to_vec();
    args.extend(options.split_whitespace());
    let output = bench.heedful(&args);
    let (out, err) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{options}: {out}{err}");
    assert!(out.contains("ok: largest error"), "{options}: {out}");
    out
}

#[test]
fn every_option_gives_a_checked_result() {
    let bench = arrays("every_option");
    for options in [
        "--out o.npy",
        "--path auto",
        "--path fused",
        "--path staged",
        "--path reference",
        "--dtype f16",
        "--dtype bf16",
        "--mask mask.npy",
        "--mask square.npy",
        "--bias bias.npy",
        "--sinks four.npy",
        "--alibi four.npy",
        "--alibi four.npy --alibi-offset -2",
        "--alibi four.npy --alibi-offset bottom-right",
        "--kv-lengths kv_lengths.npy",
        "--q-lengths q_lengths.npy --lse lse.npy",
        "--past-k past_k.npy --past-v past_v.npy --causal 3",
        "--causal top-left",
        "--causal bottom-right",
        "--causal -1",
        "--window 1,2 --window-align top-left",
        "--window -,2 --window-align bottom-right",
        "--window 3,- --causal top-left",
        "--softcap 2.5",
        "--scale -0.3",
        "--mask mask.npy --bias bias.npy --sinks four.npy --causal bottom-right --softcap 4",
    ] {
        // Without an adapter the reference serves, and must be right too.
        runs(&bench, options);
    }
    assert_eq!(bench.shape("o.npy"), [2, 4, 5, 6]);
    assert_eq!(bench.shape("lse.npy"), [2, 4, 5]);
    assert!(runs(&bench, "--explain").contains("plan for 2x4/2x5/7x8/6"));
}

#[test]
fn weights_are_written_from_every_point() {
    let bench = arrays("weights");
    for at in ["raw-scores", "after-softcap", "after-bias", "probabilities"] {
        let options = format!("--weights w.npy --weights-at {at} --softcap 3 --mask square.npy");
        runs(&bench, &options);
        assert_eq!(bench.shape("w.npy"), [2, 4, 5, 7]);
    }
}

#[test]
fn other_types_orders_and_containers_are_read() {
    let bench = arrays("containers");
    let values = wave(2 * 4 * 5 * 8, 1);
    let doubles: Vec<u8> = values.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    bench.npy("q.npy", "<f8", false, &[2, 4, 5, 8], &doubles);
    runs(&bench, "--out c.npy");
    let halves: Vec<u8> =
        values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    bench.npy("q.npy", "<f2", false, &[2, 4, 5, 8], &halves);
    runs(&bench, "");
    // Column-major: the first axis is fastest.
    let mut columns = Vec::new();
    for d in 0..8 {
        for t in 0..5 {
            for h in 0..4 {
                for b in 0..2 {
                    columns.extend(values[((b * 4 + h) * 5 + t) * 8 + d].to_le_bytes());
                }
            }
        }
    }
    bench.npy("q.npy", "<f4", true, &[2, 4, 5, 8], &columns);
    runs(&bench, "--out f.npy");
    let read = |name: &str| std::fs::read(bench.path(name)).expect("an output");
    assert_eq!(read("c.npy"), read("f.npy"));

    let tensor = |shape: &[usize], seed| -> Vec<u8> {
        wave(shape.iter().product(), seed).iter().flat_map(|x| x.to_le_bytes()).collect()
    };
    let (q, k, v) = (tensor(&[3, 5, 8], 1), tensor(&[3, 7, 8], 2), tensor(&[3, 7, 8], 3));
    let view = |shape: Vec<usize>, data| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, data)
            .expect("a tensor")
    };
    let tensors = [
        ("layer.q", view(vec![3, 5, 8], &q)),
        ("k", view(vec![3, 7, 8], &k)),
        ("v", view(vec![3, 7, 8], &v)),
    ];
    let bytes = safetensors::serialize(tensors, None).expect("a file");
    std::fs::write(bench.path("all.safetensors"), bytes).expect("written");
    let args = "run --safetensors all.safetensors --q layer.q --check --out three.npy";
    let output = bench.heedful(&args.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(bench.shape("three.npy"), [3, 5, 8]);
}

#[test]
fn packed_sequences_are_read_and_written_packed() {
    let bench = Bench::new("packed");
    bench.f32s("q.npy", &[10, 4, 8], 1);
    bench.f32s("k.npy", &[14, 2, 8], 2);
    bench.f32s("v.npy", &[14, 2, 6], 3);
    bench.integers("cu_q.npy", &[0, 4, 4, 10]);
    bench.integers("cu_k.npy", &[0, 9, 10, 14]);
    runs(
        &bench,
        "--cu-seqlens-q cu_q.npy --cu-seqlens-k cu_k.npy --causal bottom-right --out o.npy --lse l.npy",
    );
    assert_eq!(bench.shape("o.npy"), [10, 4, 6]);
    assert_eq!(bench.shape("l.npy"), [10, 4]);
}

#[test]
fn bad_input_is_one_line_and_status_two() {
    let bench = arrays("bad_input");
    bench.f32s("line.npy", &[3], 1);
    bench.f32s("three_heads.npy", &[2, 3, 5, 8], 1);
    bench.bools("odd_mask.npy", &[3, 5]);
    let whole = std::fs::read(bench.path("q.npy")).expect("an array");
    std::fs::write(bench.path("cut.npy"), &whole[..200]).expect("written");
    std::fs::write(bench.path("text.npy"), "hello").expect("written");
    for (options, named) in [
        ("--q missing.npy", "missing.npy"),
        ("--q cut.npy", "cut.npy"),
        ("--q text.npy", "text.npy"),
        ("--q line.npy", "--q"),
        ("--k v.npy", "--k, axis dim"),
        ("--q three_heads.npy", "heads_q"),
        ("--mask bias.npy", "--mask"),
        ("--mask odd_mask.npy", "mask shape"),
        ("--scale nan", "scale"),
        ("--softcap 0", "softcap"),
        ("--window 1,1", "--window"),
        ("--window 1", "--window"),
        ("--causal sideways", "--causal"),
        ("--adapter nonsense", "--adapter"),
        ("--no-such-option", "--no-such-option"),
        ("--dtype f8", "--dtype"),
        ("--past-k past_k.npy", "--past-v"),
        ("--kv-lengths four.npy", "--kv-lengths"),
        ("--sinks kv_lengths.npy", "sinks"),
        ("--out nowhere/o.npy", "nowhere/o.npy"),
    ] {
        let mut args = usual_but(options);
        args.extend(options.split_whitespace().map(str::to_owned));
        let output = bench.heedful(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let text = stderr(&output);
        let lost = options == "--adapter nonsense" && !common::has_adapter("unknown adapter");
        assert!(lost || output.status.code() == Some(2), "{options}: {text}");
        assert_eq!(text.lines().count(), 1, "{options}: {text}");
        assert!(text.starts_with("heedful: ") && text.contains(named), "{options}: {text}");
        assert!(!bench.path("o.npy").exists(), "{options} left an output");
    }
}

/// The usual arguments without the option that `options` gives anew.
fn usual_but(options: &str) -> Vec<String> {
    let usual = [("--q", "q.npy"), ("--k", "k.npy"), ("--v", "v.npy"), ("--out", "o.npy")];
    let mut args = vec!["run".to_owned()];
    for (option, value) in usual {
        if !options.starts_with(&format!("{option} ")) {
            args.extend([option.to_owned(), value.to_owned()]);
        }
    }
    args
}
