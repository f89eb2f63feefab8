//! The multi-head layer: forms of it against the float64 reference, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use heedful::kernel::Kernel;
use heedful::layer::{HostWeights, LayerInputs, MultiHeadAttention};
use heedful::{Align, Attention, DType, Path, Policy, Shape, Storage, WeightsAt};

fn values(salt: u64, n: usize) -> Vec<f64> {
    let hash = |i: u64| (i + 1 + (salt << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..n as u64).map(|i| f64::from((hash(i) as f64 / f64::from(1 << 23) - 1.0) as f32)).collect()
}

/// Learned tensors of a layer, of a size that keeps sums near 1.
fn weights(layer: &MultiHeadAttention) -> HostWeights {
    let s = layer.attention.shape;
    let [q, k, v, o] =
        [s.heads_q * s.dim_qk, s.heads_kv * s.dim_qk, s.heads_kv * s.dim_v, s.heads_q * s.dim_v]
            .map(|n| n as usize);
    let matrix = |salt: u64, rows: usize, columns: u32| -> Vec<f64> {
        let scale = 1.0 / f64::from(columns).sqrt();
        values(salt, rows * columns as usize)
            .iter()
            .map(|x| f64::from((x * scale) as f32))
            .collect()
    };
    let learned = |salt, n: usize| if layer.learned_key { values(salt, n) } else { Vec::new() };
    HostWeights {
        w_q: matrix(1, q, layer.width_q),
        w_k: matrix(2, k, layer.width_k),
        w_v: matrix(3, v, layer.width_v),
        w_o: layer.width_out.map_or_else(Vec::new, |n| matrix(4, n as usize, o as u32)),
        b_q: values(5, q),
        b_v: values(6, v),
        bias_k: learned(7, k),
        bias_v: learned(8, v),
        ..HostWeights::default()
    }
}

#[test]
fn forms_of_the_layer_match_the_reference() {
    let Some(engine) = common::gpu::engine("forms_of_the_layer") else { return };
    let square = Attention::new(Shape::self_attention(2, 3, 33, 8));
    // Heads of 7 channels on a width of 20; two key heads for four query heads.
    let odd =
        Shape { batch: 2, heads_q: 4, heads_kv: 2, seq_q: 9, seq_kv: 70, dim_qk: 7, dim_v: 5 };
    let odd = Attention::new(odd);
    let pooled = Shape { seq_q: 1, ..Shape::self_attention(3, 2, 41, 12) };
    let shown = |a: &Attention| a.clone().with_weights(WeightsAt::Probabilities);
    let plain = |a: &Attention, width| MultiHeadAttention::new(a.clone(), width);
    let layers = [
        plain(&square, 24),
        plain(&square.clone().causal(Align::TopLeft).softcap(3.0), 24),
        MultiHeadAttention { width_k: 13, width_v: 31, width_out: Some(6), ..plain(&odd, 20) },
        MultiHeadAttention { width_out: None, ..plain(&odd, 20) },
        MultiHeadAttention {
            learned_key: true,
            zero_key: true,
            average_weights: true,
            ..plain(&shown(&odd), 20)
        },
        plain(&Attention::new(pooled), 16),
        plain(&shown(&square), 70),
    ];
    for layer in layers {
        let s = layer.attention.shape;
        let size = |rows: u32, width: u32| (s.batch * rows * width) as usize;
        let weights = weights(&layer);
        let x_q = values(10, size(s.seq_q, layer.width_q));
        let x_k = values(11, size(layer.input_keys(), layer.width_k));
        let x_v = values(12, size(layer.input_keys(), layer.width_v));
        let operands = Default::default();
        let inputs = LayerInputs { x_q: &x_q, x_k: &x_k, x_v: &x_v, operands, weights: &weights };
        let wanted = layer.reference(&inputs).unwrap();
        for path in [Path::Auto, Path::Staged] {
            let policy = Policy { path, ..Policy::default() };
            let plan = engine.plan_layer(&layer, &policy).unwrap();
            let found = engine.run_layer_host(&plan, &inputs).unwrap();
            assert_eq!(found.out.len(), wanted.out.len());
            // Inputs and weights are of magnitude 1: f32 rounding leaves far less than 1e-5.
            for (i, (x, e)) in found.out.iter().zip(&wanted.out).enumerate() {
                assert!((x - e).abs() < 1e-5, "{layer:?} {path}: out[{i}] is {x}, want {e}");
            }
            let pair =
                (found.weights.unwrap_or_default(), wanted.weights.clone().unwrap_or_default());
            assert_eq!(pair.0.len(), pair.1.len());
            assert!(pair.0.iter().zip(&pair.1).all(|(x, e)| (x - e).abs() < 1e-5), "{layer:?}");
        }
    }
}

#[test]
fn a_wrong_projection_is_refused_by_name() {
    let Some(engine) = common::gpu::engine("a_wrong_projection") else { return };
    engine.plant(Kernel::Project, |text| {
        let planted = text.replace("v[c] += added(column + c);", "v[c] += added(column);");
        assert_ne!(planted, text, "the fault is planted");
        planted
    });
    let layer = MultiHeadAttention::new(Attention::new(Shape::self_attention(1, 2, 5, 4)), 8);
    let error = engine.plan_layer(&layer, &Policy::default()).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert!(error.rejections()[0].candidate.starts_with("project"), "{error}");
}

#[test]
fn layers_that_cannot_be_are_refused_by_name() {
    let attention = || Attention::new(Shape::self_attention(1, 2, 5, 4));
    let layer = || MultiHeadAttention::new(attention(), 8);
    let short = Attention::new(Shape { seq_kv: 1, ..attention().shape });
    for (layer, argument) in [
        (MultiHeadAttention { width_q: 0, ..layer() }, "width_q"),
        (MultiHeadAttention { width_out: Some(0), ..layer() }, "width_out"),
        (MultiHeadAttention { average_weights: true, ..layer() }, "average_weights"),
        (
            MultiHeadAttention {
                learned_key: true,
                zero_key: true,
                ..MultiHeadAttention::new(short, 8)
            },
            "seq_kv",
        ),
        (MultiHeadAttention::new(attention().packed(5, 5), 8), "attention"),
        (MultiHeadAttention::new(attention().dtype(DType::F16), 8), "attention.dtype"),
        (MultiHeadAttention::new(attention().kv_storage(Storage::F16), 8), "attention.kv_storage"),
        (MultiHeadAttention::new(attention().paged(2, 4, 2), 8), "attention.paged"),
    ] {
        let error = layer.validate().unwrap_err();
        assert_eq!(error.argument(), Some(argument), "{error}");
    }
    let weights = HostWeights { w_q: vec![0.0; 3], ..HostWeights::default() };
    let x = vec![0.0; 40];
    let operands = Default::default();
    let inputs = LayerInputs { x_q: &x, x_k: &x, x_v: &x, operands, weights: &weights };
    let error = layer().reference(&inputs).unwrap_err();
    assert_eq!(error.argument(), Some("w_q"), "{error}");
}
