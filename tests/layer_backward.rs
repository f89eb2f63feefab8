//! Gradients of the multi-head layer: the float64 reference against recorded ones and central differences, the GPU
//! against recorded ones and the reference.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use std::path::PathBuf;

use heedful::Operands;
use heedful::device::Readback;
use heedful::kernel::Kernel;
use heedful::layer::{
    HostWeights, LayerBackward, LayerBackwardTensors, LayerGradients, LayerInputs, LayerTensor,
    LayerWeights, MultiHeadAttention,
};
use heedful::verify::golden::{GoldenSuite, LayerGradientCase, Precision};
use heedful::{
    Align, Attention, BufferView, DType, Engine, Normalizer, Operand, Path, Policy, Rotary,
    RotaryScaling, Shape, Tensors, WeightsAt, wgpu,
};

fn values(salt: u64, n: usize) -> Vec<f64> {
    let hash = |i: u64| (i + 1 + (salt << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..n as u64).map(|i| f64::from((hash(i) as f64 / f64::from(1 << 23) - 1.0) as f32)).collect()
}

/// A layer with all its tensors, and the gradient that comes in.
struct Trial {
    backward: LayerBackward,
    x: [Vec<f64>; 3],
    weights: HostWeights,
    tables: [Vec<f64>; 3],
    d_out: Vec<f64>,
}

impl Trial {
    /// Gradients of everything; tensors of sizes that keep sums near 1.
    fn new(layer: MultiHeadAttention) -> Self {
        let all = LayerTensor::ALL.iter().copied();
        let all: Vec<LayerTensor> = all.filter(|x| x.elements(&layer).is_some()).collect();
        let mut backward = LayerBackward::of(layer.clone()).only(&all);
        if layer.attention.sinks {
            backward = backward.with_between(Operand::Sinks);
        }
        let drawn = |tensor: LayerTensor, size: f64| -> Vec<f64> {
            let n = tensor.elements(&layer).unwrap_or(0) as usize;
            values(tensor as u64, n).iter().map(|x| f64::from((x * size) as f32)).collect()
        };
        let s = layer.attention.shape;
        let context = s.heads_q * s.dim_v;
        let matrix = |tensor, inputs: u32| drawn(tensor, 1.0 / f64::from(inputs).sqrt());
        use LayerTensor::{BK, BO, BQ, BV, BiasK, BiasV, WK, WO, WQ, WV, XK, XQ, XV};
        let weights = HostWeights {
            w_q: matrix(WQ, layer.width_q),
            w_k: matrix(WK, layer.width_k),
            w_v: matrix(WV, layer.width_v),
            w_o: matrix(WO, context),
            b_q: drawn(BQ, 1.0),
            b_k: drawn(BK, 1.0),
            b_v: drawn(BV, 1.0),
            b_o: drawn(BO, 1.0),
            bias_k: drawn(BiasK, 1.0),
            bias_v: drawn(BiasV, 1.0),
        };
        let mut tables = [Vec::new(), Vec::new(), values(80, s.heads_q as usize)];
        if let Some(rotary) = layer.attention.rotary {
            let (cos, sin) =
                RotaryScaling::None.tables(rotary.dim, 100.0, rotary.table_rows).unwrap();
            tables[0] = cos.into_iter().map(f64::from).collect();
            tables[1] = sin.into_iter().map(f64::from).collect();
        }
        let out = (s.batch * s.seq_q * layer.width_out.unwrap_or(context)) as usize;
        let x = [XQ, XK, XV].map(|x| drawn(x, 1.0));
        Self { backward, x, weights, tables, d_out: values(90, out) }
    }

    fn inputs(&self) -> LayerInputs<'_> {
        let [rotary_cos, rotary_sin, sinks] = &self.tables;
        let sinks: &[f64] = if self.backward.layer.attention.sinks { sinks } else { &[] };
        let operands = Operands { rotary_cos, rotary_sin, sinks, ..Operands::default() };
        let [x_q, x_k, x_v] = &self.x;
        LayerInputs { x_q, x_k, x_v, operands, weights: &self.weights }
    }

    fn tensor_mut(&mut self, tensor: LayerTensor) -> &mut Vec<f64> {
        use LayerTensor::{BK, BO, BQ, BV, BiasK, BiasV, WK, WO, WQ, WV, XK, XQ, XV};
        let w = &mut self.weights;
        match tensor {
            XQ => &mut self.x[0],
            XK => &mut self.x[1],
            XV => &mut self.x[2],
            WQ => &mut w.w_q,
            WK => &mut w.w_k,
            WV => &mut w.w_v,
            WO => &mut w.w_o,
            BQ => &mut w.b_q,
            BK => &mut w.b_k,
            BV => &mut w.b_v,
            BO => &mut w.b_o,
            BiasK => &mut w.bias_k,
            BiasV => &mut w.bias_v,
            other => panic!("{other:?} has no place here"),
        }
    }

    /// <d_out, out>.
    fn loss(&self) -> f64 {
        let out = self.backward.layer.reference(&self.inputs()).unwrap().out;
        out.iter().zip(&self.d_out).map(|(x, d)| x * d).sum()
    }

    fn gradients(&self) -> LayerGradients {
        self.backward.reference(&self.inputs(), &self.d_out).unwrap()
    }
}

/// Layers of every form.
fn layers() -> Vec<MultiHeadAttention> {
    let square = Attention::new(Shape::self_attention(2, 3, 33, 8));
    // Heads of 7 channels on a width of 20; two key heads for four query heads; more than a tile of keys.
    let odd =
        Shape { batch: 2, heads_q: 4, heads_kv: 2, seq_q: 9, seq_kv: 70, dim_qk: 7, dim_v: 5 };
    let odd = Attention::new(odd);
    let pooled = Shape { seq_q: 1, ..Shape::self_attention(3, 2, 41, 12) };
    let plain = |a: &Attention, width| MultiHeadAttention::new(a.clone(), width);
    let shown = odd.clone().with_weights(WeightsAt::Probabilities);
    let turned = square.clone().rotary(Rotary { interleaved: true, ..Rotary::new(6, 40) });
    vec![
        plain(&square, 24),
        plain(&square.clone().causal(Align::TopLeft).softcap(3.0).sinks(), 24),
        MultiHeadAttention { width_k: 13, width_v: 31, width_out: Some(6), ..plain(&odd, 20) },
        MultiHeadAttention { width_out: None, ..plain(&odd, 20) },
        MultiHeadAttention {
            learned_key: true,
            zero_key: true,
            average_weights: true,
            ..plain(&shown, 20)
        },
        plain(&Attention::new(pooled), 16),
        plain(&turned, 70),
        plain(&square.cosine(1e-6).normalizer(Normalizer::Sparsemax), 24),
    ]
}

#[test]
fn reference_gradients_are_central_differences() {
    for layer in layers() {
        // By differences only where nothing has a corner.
        if layer.attention.normalizer != Normalizer::Softmax {
            continue;
        }
        let mut trial = Trial::new(layer);
        let found = trial.gradients();
        let step = 1e-5;
        for (tensor, gradient) in found.iter() {
            let direction = values(7, gradient.len());
            let mut at = |sign: f64| {
                let kept = trial.tensor_mut(tensor).clone();
                let moved = trial.tensor_mut(tensor).iter_mut().zip(&direction);
                moved.for_each(|(x, d)| *x += sign * step * d);
                let loss = trial.loss();
                *trial.tensor_mut(tensor) = kept;
                loss
            };
            let difference = (at(1.0) - at(-1.0)) / (2.0 * step);
            let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let size: f64 = gradient.iter().zip(&direction).map(|(g, d)| (g * d).abs()).sum();
            let near = (along - difference).abs() <= 1e-6 * size + 1e-7;
            assert!(near, "{:?} d_{tensor}: {along}, {difference}", trial.backward.layer);
        }
    }
}

/// The recorded layers with gradients.
fn recorded() -> Vec<(String, LayerGradientCase)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forms");
    let cases = GoldenSuite::open(&folder).unwrap().cases.into_iter();
    let case = |case: heedful::verify::golden::GoldenCase| {
        Some((case.name.clone(), case.layer_gradients(Precision::Stored).unwrap()?))
    };
    cases.filter_map(case).collect()
}

#[test]
fn reference_gradients_match_recorded_ones() {
    let (mut compared, mut wrong) = (0, Vec::new());
    let cases = recorded();
    for (name, case) in &cases {
        let found = case.backward.reference(&case.inputs(), &case.d_out).unwrap();
        for (tensor, comparison) in case.check(&found) {
            compared += 1;
            if !comparison.pass {
                wrong.push(format!("{name} d_{tensor}: {}", comparison.message()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((cases.len(), compared), (12, 87));
}

#[test]
fn gpu_gradients_match_recorded_ones() {
    let Some(engine) = common::gpu::engine("layer_gpu_gradients_match_recorded_ones") else {
        return;
    };
    let (mut compared, mut wrong) = (0, Vec::new());
    for (name, case) in recorded() {
        let forward = engine.plan_layer(&case.backward.layer, &Policy::default()).unwrap();
        let plan = engine.plan_layer_backward(&case.backward, &Policy::default()).unwrap();
        let found =
            engine.run_layer_backward_host(&forward, &plan, &case.inputs(), &case.d_out).unwrap();
        for (tensor, comparison) in case.check(&found) {
            compared += 1;
            if !comparison.pass {
                wrong.push(format!("{name} d_{tensor}: {}", comparison.message()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(compared, 87);
}

#[test]
fn gpu_gradients_are_those_of_the_reference() {
    let Some(engine) = common::gpu::engine("layer_gpu_gradients_are_those_of_the_reference") else {
        return;
    };
    // What lse serves is fused where it is there; gradients of sinks are staged.
    let with_lse = |layer: &MultiHeadAttention| {
        let a = &layer.attention;
        let fused = a.normalizer == Normalizer::Softmax && !a.sinks;
        fused.then(|| MultiHeadAttention { attention: a.clone().with_lse(), ..layer.clone() })
    };
    let all: Vec<_> = layers().iter().filter_map(with_lse).chain(layers()).collect();
    for layer in all {
        let trial = Trial::new(layer);
        let wanted = trial.gradients();
        let plan = engine.plan_layer_backward(&trial.backward, &Policy::default()).unwrap();
        let fused = plan.attention.is_some_and(|plan| plan.path() != Path::Staged);
        // Hardware may have a path that is faster than both.
        let lse = trial.backward.layer.attention.lse;
        let software = engine.capabilities().device_type == "cpu";
        assert!(if software { fused == lse } else { lse || !fused });
        let found = run(&engine, &trial);
        let again = run(&engine, &trial);
        assert_eq!(found, again, "two runs differ");
        let size = |values: &[f64]| values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        for (tensor, values) in wanted.iter() {
            // Sums of rows alone cancel, all but wholly for k, since weights do not change with all scores.
            let terms = match tensor {
                LayerTensor::BQ => wanted.get(LayerTensor::WQ).unwrap(),
                LayerTensor::BK => wanted.get(LayerTensor::WK).unwrap(),
                _ => values,
            };
            let allowed = 2e-5 * size(terms).max(size(values));
            let x = found.get(tensor).unwrap();
            assert_eq!(x.len(), values.len(), "d_{tensor}");
            for (i, (x, e)) in x.iter().zip(values).enumerate() {
                let near = (x - e).abs() <= allowed;
                let layer = &trial.backward.layer;
                assert!(near, "{layer:?} d_{tensor}[{i}]: {x:e}, want {e:e} within {allowed:e}");
            }
        }
        for (operand, values) in wanted.between.iter() {
            let x = found.between.get(operand).unwrap();
            let near = |(x, e): (&f64, &f64)| (x - e).abs() <= 2e-5 * size(values);
            assert!(x.iter().zip(values).all(near), "d_{operand}");
        }
        // One that is wanted alone has the same bits.
        for alone in [LayerTensor::XV, LayerTensor::WO, LayerTensor::BK, LayerTensor::BiasK] {
            let Some(all) = found.get(alone) else { continue };
            let one = LayerBackward::of(trial.backward.layer.clone()).only(&[alone]);
            let found =
                run(&engine, &Trial { backward: one, ..Trial::new(trial.backward.layer.clone()) });
            assert_eq!(found.get(alone).unwrap(), all, "d_{alone} alone");
            assert_eq!(found.iter().count(), 1);
        }
    }
}

fn run(engine: &Engine, trial: &Trial) -> LayerGradients {
    let forward = engine.plan_layer(&trial.backward.layer, &Policy::default()).unwrap();
    let plan = engine.plan_layer_backward(&trial.backward, &Policy::default()).unwrap();
    engine.run_layer_backward_host(&forward, &plan, &trial.inputs(), &trial.d_out).unwrap()
}

fn buffer(engine: &Engine, values: &[f64]) -> wgpu::Buffer {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let bytes = DType::F32.encode(values.iter().copied());
    let size = (bytes.len() as u64).max(16);
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    engine.queue().write_buffer(&buffer, 0, &bytes);
    buffer
}

#[test]
fn one_input_has_one_gradient_and_binding_refuses_by_name() {
    let Some(engine) = common::gpu::engine("one_input_has_one_gradient") else { return };
    use LayerTensor::{WQ, XK, XQ, XV};
    let layer = MultiHeadAttention::new(Attention::new(Shape::self_attention(2, 3, 11, 4)), 10);
    let mut trial = Trial::new(layer.clone());
    trial.x = [0, 0, 0].map(|_| trial.x[0].clone());
    trial.backward = LayerBackward::of(layer.clone()).only(&[XQ, XK, XV, WQ]);
    let apart = run(&engine, &trial);
    let sum = |[a, b, c]: [f64; 3]| f64::from((a as f32 + b as f32) + c as f32);
    let of = |x| apart.get(x).unwrap();
    let wanted: Vec<f64> =
        (0..of(XQ).len()).map(|i| sum([of(XQ)[i], of(XK)[i], of(XV)[i]])).collect();

    let forward = engine.plan_layer(&layer, &Policy::default()).unwrap();
    let plan = engine.plan_layer_backward(&trial.backward, &Policy::default()).unwrap();
    let w = &trial.weights;
    let held =
        [&w.w_q, &w.w_k, &w.w_v, &w.w_o, &w.b_q, &w.b_k, &w.b_v, &w.b_o, &trial.x[0], &trial.d_out]
            .map(|values| buffer(&engine, values));
    let [w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o, x, d_out] = &held;
    let [out, d_x, d_w] =
        [&trial.d_out, &trial.x[0], &w.w_q].map(|x| buffer(&engine, &vec![f64::NAN; x.len()]));
    let weights = LayerWeights {
        w_o: Some(w_o.into()),
        b_q: Some(b_q.into()),
        b_k: Some(b_k.into()),
        b_v: Some(b_v.into()),
        b_o: Some(b_o.into()),
        ..LayerWeights::new(w_q, w_k, w_v)
    };
    let tensors = Tensors::new(x, x, x, &out);
    let bound = engine.bind_layer(&forward, &tensors, &weights).unwrap();
    let at = || LayerBackwardTensors::new(d_out);
    let all = at().with(XQ, &d_x).with(XK, &d_x).with(XV, &d_x).with(WQ, &d_w);
    let back = engine.bind_layer_backward(&plan, &bound, &tensors, &weights, &all).unwrap();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        bound.encode_pass(&mut pass).unwrap();
        back.encode_pass(&mut pass).unwrap();
    }
    let read = Readback::record(engine.device(), &mut encoder, &d_x, 0, 4 * wanted.len() as u64);
    engine.queue().submit([encoder.finish()]);
    assert_eq!(DType::F32.decode(&read.unwrap().read_blocking().unwrap()), wanted);

    let refused = |tensors: &Tensors<'_>, places: LayerBackwardTensors<'_>, words: &[&str]| {
        let bound = engine.bind_layer_backward(&plan, &bound, tensors, &weights, &places);
        let error = bound.unwrap_err();
        assert!(error.is_invalid(), "{error}");
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
    };
    let some = || at().with(XQ, &d_x).with(XK, &d_x).with(XV, &d_x);
    refused(&tensors, some(), &["gradient of w_q", "none", "one"]);
    refused(&tensors, all.clone().with(WQ, &d_w), &["gradient of w_q", "2 tensors"]);
    refused(&tensors, all.clone().with(LayerTensor::BO, &out), &["gradient of b_o", "none"]);
    refused(&tensors, all.clone().with_between(Operand::Bias, &out), &["gradient of bias"]);
    refused(&tensors, some().with(WQ, w_q), &["gradient of w_q", "bytes"]);
    refused(&tensors, some().with(WQ, &d_x), &["gradient of w_q", "bytes", "gradient of x_q"]);
    let few = buffer(&engine, &[0.0; 4]);
    let unlike = at().with(XQ, &few).with(XK, &d_x).with(XV, &d_x).with(WQ, &d_w);
    refused(&tensors, unlike, &["q projection input gradient", "B"]);
    let beyond = BufferView { buffer: &d_w, offset: 16 };
    refused(&tensors, some().with(WQ, beyond), &["q projection weight gradient", "B"]);
    // An output over the inputs has ended them.
    let over = Tensors::new(x, x, x, x);
    refused(&over, some().with(WQ, &d_w), &["bytes", "x_q"]);
    // Inputs of different widths have no sum.
    let unlike = MultiHeadAttention { width_k: 5, ..layer.clone() };
    let forward = engine.plan_layer(&unlike, &Policy::default()).unwrap();
    let of_unlike = engine.bind_layer(&forward, &tensors, &weights).unwrap();
    let two = LayerBackward::of(unlike).only(&[XQ, XK]);
    let two = engine.plan_layer_backward(&two, &Policy::default()).unwrap();
    let both = at().with(XQ, &d_x).with(XK, &d_x);
    let error =
        engine.bind_layer_backward(&two, &of_unlike, &tensors, &weights, &both).unwrap_err();
    assert_eq!(error.argument(), Some("gradient of x_q"), "{error}");
    let other = MultiHeadAttention { width_q: 12, ..layer };
    let other = LayerBackward::of(other).only(&[WQ]);
    let plan = engine.plan_layer_backward(&other, &Policy::default()).unwrap();
    let error = engine
        .bind_layer_backward(&plan, &bound, &tensors, &weights, &at().with(WQ, &d_w))
        .unwrap_err();
    assert_eq!(error.argument(), Some("forward"), "{error}");
}

fn planted(text: &str, [right, wrong]: [&str; 2]) -> String {
    let planted = text.replace(right, wrong);
    assert_ne!(planted, text, "the fault is planted");
    planted
}

/// A kernel, and a fault in its text.
type Plant = (Kernel, fn(&str) -> String);

#[test]
fn a_wrong_kernel_is_refused_by_name() {
    let plants: [Plant; 3] = [
        (Kernel::BackwardProject, |text| planted(text, ["v += o_load4(at, n);", ""])),
        (Kernel::BackwardMatrix, |text| {
            planted(text, ["row < params.row_n;", "row + 1u < params.row_n;"])
        }),
        (Kernel::BackwardColumns, |text| planted(text, ["z < params.bias_batch_n", "z < 1u"])),
    ];
    for (kernel, plant) in plants {
        let Some(engine) = common::gpu::engine("a_wrong_kernel_is_refused_by_name") else { return };
        engine.plant(kernel, plant);
        let layer = MultiHeadAttention::new(Attention::new(Shape::self_attention(1, 2, 5, 4)), 8);
        let error =
            engine.plan_layer_backward(&LayerBackward::of(layer), &Policy::default()).unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        assert!(error.rejections()[0].candidate.starts_with(kernel.name()), "{error}");
    }
}

#[test]
fn gradients_that_a_layer_cannot_have_are_refused_by_name() {
    let attention = Attention::new(Shape::self_attention(1, 2, 5, 4));
    let layer = || MultiHeadAttention::new(attention.clone(), 8);
    let refused = |backward: LayerBackward, argument: &str| {
        let error = backward.validate().unwrap_err();
        assert_eq!(error.argument(), Some(argument), "{error}");
    };
    let of = LayerBackward::of;
    refused(of(layer()).only(&[]), "gradients wanted");
    refused(of(layer()).with(LayerTensor::BiasK), "gradient of bias_k");
    let bare = MultiHeadAttention { width_out: None, ..layer() };
    refused(of(bare.clone()).with(LayerTensor::WO), "gradient of w_o");
    refused(of(bare).with(LayerTensor::BO), "gradient of b_o");
    refused(of(layer()).with_between(Operand::Q), "gradient of q");
    refused(of(layer()).with_between(Operand::Bias), "gradient of bias");
    let hard = MultiHeadAttention::new(attention.clone().normalizer(Normalizer::Hard), 8);
    refused(of(hard), "gradients: normalizer");
    refused(of(MultiHeadAttention { width_v: 0, ..layer() }), "width_v");
}
