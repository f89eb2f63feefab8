//! Multi-head latent attention: 128 query heads on one key head, dim_qk 576 and dim_v 512, where v is a view of k's
//! first channels: one buffer.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::Operands;
use heedful::device::Readback;
use heedful::reference::Inputs;
use heedful::verify::truth::Truth;
use heedful::{
    Align, Attention, DType, Engine, KvScales, Layout, Path, Policy, Shape, Storage, Strides,
    Table, Tensors, wgpu,
};

const DIM: u32 = 576;
const LATENT: u32 = 512;

/// What absorbed DeepSeek-V3 asks for: the scale is that of the 192 channels of a head as it was trained.
fn call(seq_q: u32, seq_kv: u32) -> Attention {
    let shape =
        Shape { batch: 1, heads_q: 128, heads_kv: 1, seq_q, seq_kv, dim_qk: DIM, dim_v: LATENT };
    let row = u64::from(DIM);
    let view = Layout::Strided(Strides { batch: row * u64::from(seq_kv), head: row, row });
    let call = Attention::new(shape).scale(192.0_f32.powf(-0.5)).causal(Align::BottomRight);
    call.layout_v(view)
}

fn wave(n: usize, step: f64) -> Vec<f64> {
    (0..n).map(|i| f64::from((i as f64 * step).sin() as f32)).collect()
}

/// q, and keys whose first channels are the values.
fn rows(call: &Attention) -> [Vec<f64>; 2] {
    let s = call.shape;
    let q = s.heads_q * s.seq_q * s.dim_qk;
    [wave(q as usize, 0.37), wave((s.seq_kv * s.dim_qk) as usize, 0.11)]
}

fn buffer(engine: &Engine, bytes: &[u8]) -> wgpu::Buffer {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = bytes.len() as u64;
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    engine.queue().write_buffer(&buffer, 0, bytes);
    buffer
}

/// o[head, row, channel] of one row against 20 keys, evaluated apart in float64 with numpy.
#[test]
fn the_reference_is_what_was_computed_apart() {
    let call = call(1, 20);
    let problem = call.validate().unwrap();
    let [q, k] = rows(&call);
    let v = &k[..k.len() - (DIM - LATENT) as usize];
    let o =
        problem.reference(&Inputs { q: &q, k: &k, v, operands: Operands::default() }).unwrap().o;
    for (head, channel, wanted) in RECORDED {
        let found = o[head * LATENT as usize + channel];
        assert!((found - wanted).abs() < 1e-12, "head {head}, channel {channel}: {found}");
    }
}

const RECORDED: [(usize, usize, f64); 6] = [
    (0, 0, 0.18603129525799547),
    (1, 511, 0.2191333140399706),
    (37, 100, 0.10726405664706241),
    (64, 256, -0.21473746229680618),
    (90, 3, 0.18888439470032833),
    (127, 511, 0.18435256586433277),
];

#[test]
fn one_buffer_serves_keys_and_values_on_every_path() {
    let Some(engine) = common::gpu::engine("one_buffer_serves_keys_and_values") else { return };
    for (seq, dtype, paths) in [
        ([1, 150], DType::F32, &[Path::Split, Path::Staged, Path::FusedTile][..]),
        ([2, 70], DType::F16, &[Path::Split]),
        ([9, 70], DType::Bf16, &[Path::FusedTile, Path::Staged]),
    ] {
        let call = call(seq[0], seq[1]).dtype(dtype);
        let problem = call.validate().unwrap();
        let [q, k] = rows(&call).map(|x| dtype.decode(&dtype.encode(x.iter().copied())));
        let v = &k[..k.len() - (DIM - LATENT) as usize];
        let inputs = Inputs { q: &q, k: &k, v, operands: Operands::default() };
        let truth = Truth::measure(&problem, &inputs).unwrap();
        let [q, k] = [&q, &k].map(|x| buffer(&engine, &dtype.encode(x.iter().copied())));
        let n = problem.elements(heedful::Operand::O).unwrap() as usize;
        let o = buffer(&engine, &vec![0xff; n * dtype.bytes() as usize]);
        for path in paths {
            let policy = Policy { path: *path, ..Policy::default() };
            let plan = engine.plan_with(&call, &policy).unwrap();
            let bound = engine.bind(&plan, &Tensors::new(&q, &k, &k, &o)).unwrap();
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            bound.encode(&mut encoder);
            let back = Readback::record(engine.device(), &mut encoder, &o, 0, o.size()).unwrap();
            engine.queue().submit([encoder.finish()]);
            let found = dtype.decode(&back.read_blocking().unwrap());
            let comparison = truth.check_o(&found);
            assert!(comparison.pass, "{problem} {path}: {}", comparison.message());
        }
    }
}

/// The same in bytes with one scale: rows without scales of their own can be each other's view.
#[test]
fn eight_bits_serve_keys_and_values_as_well() {
    let Some(engine) = common::gpu::engine("eight_bits_serve_keys_and_values") else { return };
    let scale = [0.25_f32];
    let storage = Storage::E4m3;
    let call = call(1, 150).kv_storage(storage).kv_scales(KvScales::Tensor);
    let problem = call.validate().unwrap();
    let [q, k] = rows(&call);
    let bytes = storage.encode(&k.iter().map(|x| x / f64::from(scale[0])).collect::<Vec<_>>());
    let k = storage.decode(&bytes, k.len());
    let v = &k[..k.len() - (DIM - LATENT) as usize];
    let scales = scale.map(f64::from);
    let operands = Operands { k_scales: &scales, v_scales: &scales, ..Operands::default() };
    let truth = Truth::measure(&problem, &Inputs { q: &q, k: &k, v, operands }).unwrap();
    let [q, k] = [DType::F32.encode(q), bytes].map(|bytes| buffer(&engine, &bytes));
    for path in [Path::Split, Path::FusedTile] {
        let policy = Policy { path, ..Policy::default() };
        let plan = engine.plan_with(&call, &policy).unwrap();
        let o = buffer(&engine, &vec![0xff; 4 * (128 * LATENT) as usize]);
        let mut tensors = Tensors::new(&q, &k, &k, &o);
        (tensors.k_scales, tensors.v_scales) = (Some(Table::F32(&scale)), Some(Table::F32(&scale)));
        let bound = engine.bind(&plan, &tensors).unwrap();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        let back = Readback::record(engine.device(), &mut encoder, &o, 0, o.size()).unwrap();
        engine.queue().submit([encoder.finish()]);
        let comparison = truth.check_o(&DType::F32.decode(&back.read_blocking().unwrap()));
        assert!(comparison.pass, "{path}: {}", comparison.message());
    }
}
