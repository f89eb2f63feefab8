//! Bound calls in the caller's own compute pass, and with one tensor bound elsewhere.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::device::Readback;
use heedful::layer::{LayerWeights, MultiHeadAttention};
use heedful::{
    Align, Attention, Blocks, Bound, BufferView, DType, Engine, MergeStates, Operand, Path, Policy,
    Rotary, RotaryScaling, Shape, Table, Tensors, WeightsAt, wgpu,
};

fn buffer(engine: &Engine, words: &[f32]) -> wgpu::Buffer {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = 4 * words.len().max(4) as u64;
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    engine.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(words));
    buffer
}

fn noise(salt: u32, n: usize) -> Vec<f32> {
    let hash = |i: u32| (i ^ salt.wrapping_mul(0x9e37)).wrapping_mul(0x9e37_79b9) >> 8;
    (0..n as u32).map(|i| hash(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Submits what `record` records and reads a buffer.
fn read(
    engine: &Engine,
    from: &wgpu::Buffer,
    record: impl FnOnce(&mut wgpu::CommandEncoder),
) -> Vec<u8> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    if from.usage().contains(wgpu::BufferUsages::COPY_DST) {
        encoder.clear_buffer(from, 0, None);
    }
    record(&mut encoder);
    let back = Readback::record(engine.device(), &mut encoder, from, 0, from.size()).unwrap();
    engine.queue().submit([encoder.finish()]);
    back.read_blocking().unwrap()
}

fn in_pass(encoder: &mut wgpu::CommandEncoder, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) {
    record(&mut encoder.begin_compute_pass(&Default::default()));
}

fn policy(path: Path) -> Policy {
    Policy { path, ..Policy::default() }
}

/// Calls of every path, with copies of q and k, with masks that are classified first.
fn calls() -> Vec<(Attention, Path)> {
    let square = || Attention::new(Shape::self_attention(1, 4, 70, 16));
    let few = Attention::new(Shape { seq_q: 4, ..square().shape });
    vec![
        (square().causal(Align::TopLeft), Path::Fused),
        (square().rotary(Rotary::new(16, 70)), Path::Fused),
        (few, Path::Split),
        (square().with_weights(WeightsAt::Probabilities), Path::Staged),
    ]
}

struct Call {
    q: Vec<wgpu::Buffer>,
    k: wgpu::Buffer,
    v: wgpu::Buffer,
    o: Vec<wgpu::Buffer>,
    weights: wgpu::Buffer,
    angles: [Vec<f32>; 2],
}

impl Call {
    /// Two of q and of o, each with room for another place.
    fn new(engine: &Engine, a: &Attention) -> Self {
        let [q, k, v, o] = a.shape.elements().map(|n| n as usize);
        let rows = a.shape.rows() as usize * a.shape.seq_kv as usize;
        let (cos, sin) = RotaryScaling::None.tables(16, 1e4, 70).expect("tables");
        Self {
            q: (0..2).map(|i| buffer(engine, &noise(i, q + 256))).collect(),
            k: buffer(engine, &noise(3, k)),
            v: buffer(engine, &noise(4, v)),
            o: (0..2).map(|_| buffer(engine, &vec![0.0; o + 256])).collect(),
            weights: buffer(engine, &vec![0.0; rows]),
            angles: [cos, sin],
        }
    }

    fn tensors<'a>(&'a self, a: &Attention, q: BufferView<'a>, o: BufferView<'a>) -> Tensors<'a> {
        let mut tensors = Tensors::new(q, &self.k, &self.v, o);
        tensors.weights = a.weights.map(|_| (&self.weights).into());
        let [cos, sin] = &self.angles;
        tensors.rotary_cos = a.rotary.map(|_| Table::F32(cos));
        tensors.rotary_sin = a.rotary.map(|_| Table::F32(sin));
        tensors
    }
}

#[test]
fn calls_record_into_a_pass_that_is_open() {
    let Some(engine) = common::gpu::engine("calls_record_into_a_pass") else { return };
    for (a, path) in calls() {
        let call = Call::new(&engine, &a);
        let plan = engine.plan_with(&a, &policy(path)).unwrap();
        let bind = |q: usize, o: usize| {
            let tensors = call.tensors(&a, (&call.q[q]).into(), (&call.o[o]).into());
            engine.bind(&plan, &tensors).unwrap()
        };
        // The second behind the first, which leaves its own pipeline and groups.
        let (first, second) = (bind(0, 0), bind(1, 1));
        let alone = read(&engine, &call.o[1], |encoder| second.encode(encoder));
        let beside = read(&engine, &call.o[1], |encoder| {
            in_pass(encoder, |pass| {
                first.encode_pass(pass).unwrap();
                second.encode_pass(pass).unwrap();
            });
        });
        assert!(alone.iter().any(|byte| *byte != 0));
        assert_eq!(alone, beside, "{plan}");
    }
}

#[test]
fn what_must_be_copied_first_is_named() {
    let Some(engine) = common::gpu::engine("what_must_be_copied") else { return };
    let a = Attention::new(Shape::self_attention(2, 2, 40, 16)).kv_lengths().q_lengths();
    let call = Call::new(&engine, &a);
    let plan = engine.plan(&a).unwrap();
    let lengths = buffer(&engine, &[0.0; 4]);
    let mut tensors = call.tensors(&a, (&call.q[0]).into(), (&call.o[0]).into());
    tensors.kv_lengths = Some(Table::Buffer((&lengths).into()));
    tensors.q_lengths = Some(Table::U32(&[40, 7]));
    let refused = |bound: &Bound| {
        let mut error = None;
        let o = read(&engine, &call.o[0], |encoder| {
            in_pass(encoder, |pass| error = bound.encode_pass(pass).err());
        });
        assert!(o.iter().all(|byte| *byte == 0), "something was recorded");
        error.unwrap()
    };
    let error = refused(&engine.bind(&plan, &tensors).unwrap());
    assert!(error.is_invalid() && error.argument() == Some("kv_lengths"), "{error}");
    tensors.q_lengths = Some(Table::Buffer((&lengths).into()));
    let error = refused(&engine.bind(&plan, &tensors).unwrap());
    assert_eq!(error.argument(), Some("kv_lengths, q_lengths"), "{error}");
}

#[test]
fn merges_block_tables_prepared_rows_and_layers_record_into_a_pass() {
    let Some(engine) = common::gpu::engine("merges_and_layers") else { return };
    let same = |what: &str,
                from: &wgpu::Buffer,
                encode: &dyn Fn(&mut wgpu::CommandEncoder),
                encode_pass: &dyn Fn(&mut wgpu::ComputePass<'_>)| {
        // First, because copies of q and k cannot be cleared between.
        let beside = read(&engine, from, |encoder| in_pass(encoder, encode_pass));
        let alone = read(&engine, from, encode);
        assert!(beside.iter().any(|byte| *byte != 0), "{what}");
        assert_eq!(alone, beside, "{what}");
    };
    let merge = MergeStates { parts: 2, rows: 5, dim_v: 8, dtype: DType::F32 };
    let parts = [buffer(&engine, &noise(1, 80)), buffer(&engine, &noise(2, 10))];
    let whole = [buffer(&engine, &[0.0; 40]), buffer(&engine, &[0.0; 5])];
    let bound = engine
        .bind_merge(
            &merge,
            [(&parts[0]).into(), (&parts[1]).into()],
            [(&whole[0]).into(), (&whole[1]).into()],
        )
        .unwrap();
    same("merge", &whole[0], &|e| bound.encode(e), &|p| bound.encode_pass(p));

    let a = Attention::new(Shape::self_attention(1, 2, 64, 16)).mask([1, 1, 64, 64]);
    let call = Call::new(&engine, &a);
    let mask = buffer(&engine, &noise(5, 64 * 64 / 4));
    let mut tensors = call.tensors(&a, (&call.q[0]).into(), (&call.o[0]).into());
    tensors.mask = Some((&mask).into());
    let builder = engine.bind_blocks(&a, Blocks::new(16, 16), &tensors).unwrap();
    let Table::Buffer(table) = builder.table() else { panic!("on the GPU") };
    same("blocks", table.buffer, &|e| builder.encode(e), &|p| builder.encode_pass(p).unwrap());

    let a = Attention::new(Shape::self_attention(1, 2, 64, 16)).rotary(Rotary::new(16, 70));
    let tensors = call.tensors(&a, (&call.q[0]).into(), (&call.o[0]).into());
    let rows = engine.bind_rows(&a, &tensors).unwrap();
    let copy = rows.rows(Operand::Q).unwrap();
    same("rows", copy, &|e| rows.encode(e), &|p| rows.encode_pass(p).unwrap());

    let layer = MultiHeadAttention::new(Attention::new(Shape::self_attention(1, 2, 20, 8)), 16);
    let x = buffer(&engine, &noise(6, 20 * 16));
    let w = buffer(&engine, &noise(7, 16 * 16));
    let out = buffer(&engine, &[0.0; 20 * 16]);
    let row = buffer(&engine, &noise(8, 16));
    let weights = LayerWeights { w_o: Some((&w).into()), ..LayerWeights::new(&w, &w, &w) };
    let plan = engine.plan_layer(&layer, &Policy::default()).unwrap();
    let tensors = Tensors::new(&x, &x, &x, &out);
    let bound = engine.bind_layer(&plan, &tensors, &weights).unwrap();
    same("layer", &out, &|e| bound.encode(e), &|p| bound.encode_pass(p).unwrap());

    let layer = MultiHeadAttention {
        attention: Attention::new(Shape { seq_kv: 21, ..layer.attention.shape }),
        learned_key: true,
        ..layer
    };
    let (bias_k, bias_v) = (Some((&row).into()), Some((&row).into()));
    let weights = LayerWeights { bias_k, bias_v, ..weights };
    let plan = engine.plan_layer(&layer, &Policy::default()).unwrap();
    let bound = engine.bind_layer(&plan, &tensors, &weights).unwrap();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    let error = bound.encode_pass(&mut pass).unwrap_err();
    assert_eq!(error.argument(), Some("bias_k, bias_v"), "{error}");
}

#[test]
fn a_tensor_that_is_bound_elsewhere_gives_the_bits_of_a_new_binding() {
    let Some(engine) = common::gpu::engine("bound_elsewhere") else { return };
    for (a, path) in calls() {
        let call = Call::new(&engine, &a);
        let plan = engine.plan_with(&a, &policy(path)).unwrap();
        let view = |buffer, offset| BufferView { buffer, offset };
        let (q, o) = (&call.q, &call.o);
        let tensors = call.tensors(&a, view(&q[0], 256), view(&o[0], 0));
        let mut bound = engine.bind(&plan, &tensors).unwrap();
        let before = read(&engine, &o[0], |encoder| bound.encode(encoder));
        bound.rebind(&engine, Operand::Q, view(&q[1], 512)).unwrap();
        let o_elsewhere = bound.rebind_async(&engine, Operand::O, view(&o[1], 256));
        pollster::block_on(o_elsewhere).unwrap();
        let moved = read(&engine, &o[1], |encoder| bound.encode(encoder));
        let tensors = call.tensors(&a, view(&q[1], 512), view(&o[1], 256));
        let anew = engine.bind(&plan, &tensors).unwrap();
        let wanted = read(&engine, &o[1], |encoder| anew.encode(encoder));
        assert!(wanted != before && wanted.iter().any(|byte| *byte != 0), "{plan}");
        assert_eq!(moved, wanted, "{plan}");
        // And back; what is recorded before the last step reads where q was then.
        let mut earlier = engine.device().create_command_encoder(&Default::default());
        bound.rebind(&engine, Operand::O, &o[0]).unwrap();
        bound.rebind(&engine, Operand::Q, view(&q[0], 256)).unwrap();
        bound.encode(&mut earlier);
        bound.rebind(&engine, Operand::Q, view(&q[1], 0)).unwrap();
        let old = Readback::record(engine.device(), &mut earlier, &o[0], 0, o[0].size()).unwrap();
        engine.queue().submit([earlier.finish()]);
        assert_eq!(old.read_blocking().unwrap(), before, "{plan}");
    }
}

/// q and o in one buffer need a variant of their own, which a tensor that moves in or out takes or leaves.
#[test]
fn a_tensor_moves_into_the_buffer_of_an_output_and_out_of_it() {
    let Some(engine) = common::gpu::engine("moves_into") else { return };
    for (a, path) in calls() {
        let call = Call::new(&engine, &a);
        let plan = engine.plan_with(&a, &policy(path)).unwrap();
        let n = call.q[0].size().next_multiple_of(256);
        let arena = buffer(&engine, &noise(0, 3 * n as usize / 4));
        let view = |buffer, offset| BufferView { buffer, offset };
        let tensors = call.tensors(&a, (&call.q[0]).into(), view(&arena, 2 * n));
        let mut bound = engine.bind(&plan, &tensors).unwrap();
        let run = |bound: &Bound| {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            bound.encode(&mut encoder);
            let bytes = arena.size() - 2 * n;
            let back = Readback::record(engine.device(), &mut encoder, &arena, 2 * n, bytes);
            engine.queue().submit([encoder.finish()]);
            back.unwrap().read_blocking().unwrap()
        };
        let apart = run(&bound);
        // The arena begins with the same numbers.
        bound.rebind(&engine, Operand::Q, &arena).unwrap();
        assert_eq!(run(&bound), apart, "{plan}");
        bound.rebind(&engine, Operand::Q, &call.q[0]).unwrap();
        assert_eq!(run(&bound), apart, "{plan}");
        let before = 2 * n - engine.capabilities().storage_alignment;
        let error = bound.rebind(&engine, Operand::Q, view(&arena, before)).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("bytes"), "{error}");
        assert_eq!(run(&bound), apart, "a refused tensor stays where it is");
    }
}

#[test]
fn a_place_that_cannot_be_is_refused_by_name() {
    let Some(adapter) = common::gpu::adapter("a_place_that_cannot_be") else { return };
    let [engine, other] = [0; 2].map(|_| Engine::with_adapter_blocking(&adapter).unwrap());
    let a = Attention::new(Shape::self_attention(1, 4, 70, 16)).kv_lengths();
    let call = Call::new(&engine, &a);
    let plan = engine.plan(&a).unwrap();
    let mut tensors = call.tensors(&a, (&call.q[0]).into(), (&call.o[0]).into());
    tensors.kv_lengths = Some(Table::U32(&[33]));
    let mut bound = engine.bind(&plan, &tensors).unwrap();
    let copied = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: call.q[0].size(),
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let small = buffer(&engine, &[0.0; 64]);
    let view = |buffer, offset| BufferView { buffer, offset };
    let alignment = engine.capabilities().storage_alignment;
    for (operand, view, argument) in [
        (Operand::Q, view(&call.q[1], 4), "q offset"),
        (Operand::Q, view(&call.q[1], alignment / 2), "q offset"),
        (Operand::Q, view(&small, 0), "q buffer size"),
        (Operand::Q, view(&call.q[1], u64::MAX - alignment + 1), "q buffer size"),
        (Operand::Q, view(&copied, 0), "q buffer usage"),
        (Operand::O, view(&call.k, 0), "o"),
        (Operand::Mask, view(&small, 0), "mask"),
        (Operand::KvLengths, view(&small, 0), "kv_lengths"),
    ] {
        let error = bound.rebind(&engine, operand, view).unwrap_err();
        assert_eq!(error.argument(), Some(argument), "{error}");
    }
    let error = bound.rebind(&engine, Operand::O, &call.k).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("where k is"), "{error}");
    // Over q, and back.
    bound.rebind(&engine, Operand::O, &call.q[0]).unwrap();
    bound.rebind(&engine, Operand::O, &call.o[0]).unwrap();
    let error = bound.rebind(&other, Operand::Q, &call.q[1]).unwrap_err();
    assert_eq!(error.argument(), Some("engine"), "{error}");
    let foreign = buffer(&other, &noise(1, call.q[0].size() as usize / 4));
    let error = bound.rebind(&engine, Operand::Q, &foreign).unwrap_err();
    assert!(error.is_invalid() && error.argument() == Some("q"), "{error}");
    bound.rebind(&engine, Operand::Q, &call.q[1]).unwrap();
}
