//! Everything in one buffer, as a sub-allocator places it: the same bits as in buffers of their own, on every
//! path; and what lies wrong is named.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::device::Readback;
use heedful::layer::{LayerWeights, MultiHeadAttention};
use heedful::plan::MAX_ROWS;
use heedful::verify::cases::{Grid, grid};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::{Placement, execute};
use heedful::verify::run::policy;
use heedful::{
    Align, Attention, Backward, BackwardTensors, Blocks, BufferView, DType, Engine, Error, Layout,
    MergeStates, Operand, Path, Policy, Rotary, Shape, Strides, Tensors, WeightsAt, wgpu,
};

const USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

/// Runs a call with everything in one buffer, at aligned and at odd offsets, and in buffers of their own.
fn agrees(engine: &Engine, attention: &Attention, data: &CaseData, path: Path) -> usize {
    let mut ran = 0;
    for [apart, together] in
        [[Placement::Aligned, Placement::Together], [Placement::Odd, Placement::TogetherOdd]]
    {
        let plan = match engine.plan_with(attention, &policy(path, apart)) {
            Err(error) if error.is_unsupported() => continue,
            plan => plan.unwrap(),
        };
        let run = |placement| {
            execute(engine, &plan, &data.inputs(), placement)
                .unwrap_or_else(|e| panic!("{path} {attention:?} {placement:?}: {e}"))
        };
        let (apart, one) = (run(apart), run(together));
        let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let what = format!("{path} {together:?}\n{plan}");
        assert_eq!(bits(&apart.outputs.o), bits(&one.outputs.o), "{what}");
        assert_eq!(bits(&apart.outputs.lse), bits(&one.outputs.lse), "{what}");
        let weights = |x: &heedful::reference::Outputs| x.weights.as_deref().map(bits);
        assert_eq!(weights(&apart.outputs), weights(&one.outputs), "{what}");
        assert_eq!(one.stray_write, None, "{what}");
        assert!(one.repeatable, "two runs differ: {what}");
        ran += 1;
    }
    ran
}

#[test]
fn one_buffer_gives_the_same_bits_on_every_path() {
    let Some(engine) = common::gpu::engine("one_buffer") else { return };
    let mut ran = 0;
    for case in grid(Grid::Quick).unwrap().iter().step_by(45) {
        let (problem, data) = case.generate().unwrap();
        let few = problem.attention().shape.seq_q <= MAX_ROWS;
        let paths = [Path::Split, Path::Fused, Path::Staged].into_iter();
        for path in paths.filter(|path| few || *path != Path::Split) {
            ran += agrees(&engine, &case.attention, &data, path);
        }
    }
    assert!(ran > 15, "only {ran} runs");
}

/// Calls whose kernels differ: all operands at once, copies of q and k, tables built on the way, partial sums.
fn calls() -> Vec<Attention> {
    let shape = Shape { heads_kv: 2, dim_v: 12, ..Shape::self_attention(2, 4, 75, 20) };
    let everything = Attention::new(shape)
        .causal(Align::BottomRight)
        .softcap(3.0)
        .bias([1, 4, 1, 75])
        .mask([2, 1, 75, 75])
        .alibi(Align::BottomRight)
        .sinks()
        .kv_lengths()
        .q_lengths()
        .with_lse();
    let odd = Shape { dim_v: 5, dim_qk: 7, ..shape };
    let few = Shape { seq_q: 3, ..shape };
    vec![
        everything.clone(),
        everything.clone().dtype(DType::F16),
        everything.clone().dtype(DType::Bf16).with_weights(WeightsAt::Probabilities),
        everything.clone().with_weights(WeightsAt::RawScores),
        Attention::new(odd).dtype(DType::F16).with_lse(),
        Attention::new(shape).dtype(DType::F16).rotary(Rotary::new(20, 80)),
        Attention::new(shape).cosine_scaled(1e-6),
        Attention::new(shape).general(9),
        Attention::new(few).kv_lengths().with_lse(),
    ]
}

#[test]
fn every_kind_of_kernel_serves_one_buffer() {
    let Some(engine) = common::gpu::engine("kinds_of_kernels") else { return };
    for attention in calls() {
        let data = CaseData::generate(&attention.validate().unwrap(), 3, &DataOptions::default());
        let ran: usize = [Path::Split, Path::Fused, Path::Staged]
            .map(|path| agrees(&engine, &attention, &data, path))
            .iter()
            .sum();
        assert!(ran >= 2, "{attention:?}");
    }
}

#[test]
fn keys_in_steps_serve_one_buffer() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 32 << 10, ..Default::default() };
    let Some(engine) = common::gpu::engine_with("keys_in_steps", limits) else { return };
    let shape = Shape { seq_q: 70, ..Shape::self_attention(2, 2, 300, 64) };
    let attention = Attention::new(shape).with_weights(WeightsAt::Probabilities).with_lse();
    let data = CaseData::generate(&attention.validate().unwrap(), 3, &DataOptions::default());
    assert_eq!(agrees(&engine, &attention, &data, Path::Staged), 2);
}

#[test]
fn matrix_units_serve_one_buffer() {
    let Some(engine) = common::gpu::matrix_engine("matrix_one_buffer") else { return };
    let shape = Shape { heads_kv: 2, ..Shape::self_attention(1, 4, 150, 64) };
    let attention = Attention::new(shape).dtype(DType::F16).causal(Align::TopLeft).with_lse();
    let data = CaseData::generate(&attention.validate().unwrap(), 3, &DataOptions::default());
    for path in [Path::FusedMatrix, Path::StagedMatrix] {
        assert_eq!(agrees(&engine, &attention, &data, path), 2);
    }
}

/// One buffer that pieces are put into, one after another.
struct Arena {
    bytes: Vec<u8>,
}

impl Arena {
    fn put(&mut self, values: &[f64], align: usize) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0xaa);
        let offset = self.bytes.len() as u64;
        self.bytes.extend(DType::F32.encode(values.iter().copied()));
        offset
    }

    fn buffer(&self, engine: &Engine) -> wgpu::Buffer {
        upload(engine, &self.bytes)
    }
}

fn upload(engine: &Engine, bytes: &[u8]) -> wgpu::Buffer {
    let size = (bytes.len() as u64).next_multiple_of(4).max(16);
    let descriptor =
        wgpu::BufferDescriptor { label: None, size, usage: USAGE, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    engine.queue().write_buffer(&buffer, 0, bytes);
    buffer
}

fn read(engine: &Engine, buffer: &wgpu::Buffer) -> Vec<u8> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let back = Readback::record(engine.device(), &mut encoder, buffer, 0, buffer.size()).unwrap();
    engine.queue().submit([encoder.finish()]);
    back.read_blocking().unwrap()
}

fn submit(engine: &Engine, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    engine.queue().submit([encoder.finish()]);
}

fn values(salt: u64, n: u32) -> Vec<f64> {
    let hash = |i: u64| (i + 1 + (salt << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..u64::from(n)).map(|i| f64::from((hash(i) as f64 / 8_388_608.0 - 1.0) as f32)).collect()
}

fn at(buffer: &wgpu::Buffer, offset: u64) -> BufferView<'_> {
    BufferView { buffer, offset }
}

/// Runs with every piece in a buffer of its own and in one, and compares the pieces from `outputs` on.
fn same_bytes(
    engine: &Engine,
    pieces: &[Vec<f64>],
    outputs: usize,
    run: impl Fn(&[BufferView<'_>]),
) {
    let buffers: Vec<wgpu::Buffer> =
        pieces.iter().map(|x| upload(engine, &DType::F32.encode(x.iter().copied()))).collect();
    run(&buffers.iter().map(BufferView::from).collect::<Vec<_>>());
    let apart: Vec<Vec<u8>> = buffers.iter().map(|buffer| read(engine, buffer)).collect();
    assert!(apart[outputs..].iter().any(|bytes| bytes.iter().any(|byte| *byte != 0)));
    for align in [256, 4] {
        let mut arena = Arena { bytes: vec![0xaa; 4] };
        let offsets: Vec<u64> = pieces.iter().map(|x| arena.put(x, align)).collect();
        arena.put(&[1.0], 4);
        let buffer = arena.buffer(engine);
        run(&offsets.iter().map(|offset| at(&buffer, *offset)).collect::<Vec<_>>());
        let mut wanted = arena.bytes.clone();
        for ((apart, offset), piece) in apart.iter().zip(&offsets).zip(pieces) {
            let bytes = 4 * piece.len();
            wanted[*offset as usize..][..bytes].copy_from_slice(&apart[..bytes]);
        }
        let found = read(engine, &buffer);
        let wrong = wanted.iter().zip(&found).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "offsets {offsets:?}, multiples of {align}");
    }
}

#[test]
fn a_merge_in_one_buffer_gives_the_same_bits() {
    let Some(engine) = common::gpu::engine("merge_one_buffer") else { return };
    for dim_v in [12, 7] {
        let merge = MergeStates { parts: 3, rows: 5, dim_v, dtype: DType::F32 };
        let pieces =
            [values(1, 15 * dim_v), values(2, 15), vec![0.0; 5 * dim_v as usize], vec![0.0; 5]];
        same_bytes(&engine, &pieces, 2, |x| {
            let bound = engine.bind_merge(&merge, [x[0], x[1]], [x[2], x[3]]).unwrap();
            submit(&engine, |encoder| bound.encode(encoder));
        });
    }
}

#[test]
fn a_layer_in_one_buffer_gives_the_same_bits() {
    let Some(engine) = common::gpu::engine("layer_one_buffer") else { return };
    let shape =
        Shape { batch: 2, heads_q: 4, heads_kv: 2, seq_q: 9, seq_kv: 21, dim_qk: 7, dim_v: 8 };
    let attention = Attention::new(shape).with_weights(WeightsAt::Probabilities).kv_lengths();
    let width = 20;
    for (width_out, average_weights) in [(Some(width), true), (None, false)] {
        let layer = MultiHeadAttention {
            width_out,
            average_weights,
            ..MultiHeadAttention::new(attention.clone(), width)
        };
        let plan = engine.plan_layer(&layer, &Policy::default()).unwrap();
        let lengths = vec![f64::from(f32::from_bits(21)), f64::from(f32::from_bits(13))];
        let weights = 2 * 9 * 21 * if average_weights { 1 } else { 4 };
        let pieces = [
            values(1, 2 * 9 * width),
            values(2, 2 * 21 * width),
            values(3, 28 * width),
            values(4, 14 * width),
            values(5, 16 * width),
            values(6, 32 * width),
            values(7, 28),
            values(8, 20),
            lengths,
            vec![0.0; 2 * 9 * width_out.unwrap_or(32) as usize],
            vec![0.0; weights],
        ];
        same_bytes(&engine, &pieces, 9, |x| {
            let mut tensors = Tensors::new(x[0], x[1], x[1], x[9]);
            tensors.weights = Some(x[10]);
            tensors.kv_lengths = Some(heedful::Table::Buffer(x[8]));
            let mut weights = LayerWeights::new(x[2], x[3], x[4]);
            weights.b_q = Some(x[6]);
            if width_out.is_some() {
                (weights.w_o, weights.b_o) = (Some(x[5]), Some(x[7]));
            }
            let bound = engine.bind_layer(&plan, &tensors, &weights).unwrap();
            submit(&engine, |encoder| bound.encode(encoder));
        });
    }
}

#[test]
fn appends_and_reads_of_a_cache_from_one_buffer_give_the_same_bits() {
    let Some(engine) = common::gpu::engine("cache_one_buffer") else { return };
    for pages in [None, Some([9, 4])] {
        let descriptor = KvCacheDescriptor { pages, ..KvCacheDescriptor::new(2, 2, 12, 16) };
        let pieces = [
            values(1, 2 * 2 * 3 * 12),
            values(2, 2 * 2 * 3 * 12),
            values(3, 2 * 4 * 12),
            vec![0.0; 2 * 4 * 12],
        ];
        same_bytes(&engine, &pieces, 3, |x| {
            let mut cache = KvCache::new(&engine, &descriptor).unwrap();
            let rows = NewRows { k: x[0], v: x[1], rotary: None };
            let append = cache.bind_append(&engine, &AppendDescriptor::new(3), &rows).unwrap();
            let plan = engine.plan(&cache.attention(4, 1).unwrap()).unwrap();
            submit(&engine, |encoder| {
                cache.append(encoder, &append, &[3, 2]).unwrap();
                cache.append(encoder, &append, &[1, 3]).unwrap();
            });
            let bound = engine.bind(&plan, &cache.tensors(x[2], x[3])).unwrap();
            submit(&engine, |encoder| bound.encode(encoder));
        });
    }
}

#[test]
fn prepared_rows_and_block_tables_from_one_buffer() {
    let Some(engine) = common::gpu::engine("rows_one_buffer") else { return };
    let attention = Attention::new(Shape::self_attention(1, 2, 70, 8)).mask([1, 1, 70, 70]);
    let plan = engine.plan(&attention).unwrap();
    let blocks = Blocks::new(16, 16);
    let with = engine.plan(&attention.clone().blocks(blocks)).unwrap();
    let mask = vec![f64::from(f32::from_bits(0x0100_0101)); 70 * 70 / 4];
    let n = 2 * 70 * 8;
    let pieces = [values(1, n), values(2, n), values(3, n), mask, vec![0.0; n as usize]];
    same_bytes(&engine, &pieces, 4, |x| {
        let mut tensors = Tensors::new(x[0], x[1], x[2], x[4]);
        tensors.mask = Some(x[3]);
        let builder = engine.bind_blocks(&attention, blocks, &tensors).unwrap();
        let blocked = Tensors { blocks: Some(builder.table()), ..tensors };
        let bound = engine.bind(&with, &blocked).unwrap();
        submit(&engine, |encoder| {
            engine.encode(&plan, encoder, &tensors).unwrap();
            builder.encode(encoder);
            bound.encode(encoder);
        });
    });
}

fn refusal(result: Result<impl Sized, Error>) -> (String, String) {
    let Err(error) = result else { panic!("accepted") };
    assert!(error.is_invalid(), "{error}");
    (error.argument().unwrap_or_default().to_owned(), error.to_string())
}

#[test]
fn overlaps_are_named_with_both_ranges() {
    let Some(engine) = common::gpu::engine("overlaps") else { return };
    let attention = Attention::new(Shape::self_attention(1, 2, 10, 8)).kv_lengths().with_lse();
    let plan =
        engine.plan_with(&attention, &Policy { path: Path::Staged, ..Default::default() }).unwrap();
    // 640 bytes each, lse 80.
    let buffer = upload(&engine, &vec![0; 65_536]);
    let mut good =
        Tensors::new(at(&buffer, 0), at(&buffer, 640), at(&buffer, 1280), at(&buffer, 1920));
    good.lse = Some(at(&buffer, 2560));
    good.kv_lengths = Some(heedful::Table::Buffer(at(&buffer, 2640)));
    good.workspace = Some(at(&buffer, 2816));
    let bound = engine.bind(&plan, &good).unwrap();
    submit(&engine, |encoder| bound.encode(encoder));
    let workspace = plan.workspace_bytes();
    let bad = |tensors: Tensors<'_>| refusal(engine.bind(&plan, &tensors));
    let view = |offset| at(&buffer, offset);
    let (name, message) = bad(Tensors { o: view(1916), ..good });
    assert_eq!(name, "o");
    assert!(message.contains("1916..2556") && message.contains("v is at 1280..1920"), "{message}");
    let (name, message) = bad(Tensors { lse: Some(view(2484)), ..good });
    assert_eq!(name, "lse");
    assert!(message.contains("o is at 1920..2560"), "{message}");
    let (name, message) = bad(Tensors { lse: Some(view(2564)), ..good });
    assert_eq!(name, "lse");
    assert!(message.contains("kv_lengths is at 2640..2644"), "{message}");
    assert_eq!(bad(Tensors { workspace: Some(view(2560)), ..good }).0, "workspace");
    assert_eq!(bad(Tensors { q: view(2816 + workspace - 4), ..good }).0, "workspace");
}

#[test]
fn an_output_in_the_gaps_of_another_tensor_is_refused_and_packed_inputs_are_not() {
    let Some(engine) = common::gpu::engine("interleaved") else { return };
    // [row][q, k, v, o][head][channel]
    let shape = Shape::self_attention(1, 2, 10, 8);
    let packed = Layout::Strided(Strides { batch: 640, head: 8, row: 64 });
    let attention = Attention::new(shape).layout(packed);
    let plan = engine.plan(&attention).unwrap();
    let buffer = upload(&engine, &vec![0; 4 * 1280]);
    let [q, k, v, o] = [0, 64, 128, 192].map(|offset| at(&buffer, offset));
    let (name, message) = refusal(engine.bind(&plan, &Tensors::new(q, k, v, o)));
    assert_eq!(name, "o");
    assert!(message.contains("192..2560") && message.contains("q is at 0..2368"), "{message}");
    let bound = engine.bind(&plan, &Tensors::new(q, k, v, at(&buffer, 2560))).unwrap();
    submit(&engine, |encoder| bound.encode(encoder));
}

/// Runs a call with an o of its own, and with o over q: whether the path serves it, and both results are the same.
fn same_in_place(engine: &Engine, attention: &Attention, path: Path) -> bool {
    let plan = match engine.plan_with(attention, &Policy { path, ..Default::default() }) {
        Err(error) if error.is_unsupported() => return false,
        plan => plan.unwrap(),
    };
    let problem = attention.validate().unwrap();
    let elements = |operand| problem.elements(operand).unwrap() as u32;
    let tensor = |salt, operand| {
        let values = values(salt, elements(operand));
        upload(engine, &attention.dtype.encode(values))
    };
    let [q, k, v, o] = [(1, Operand::Q), (2, Operand::K), (3, Operand::V), (4, Operand::O)]
        .map(|(i, x)| tensor(i, x));
    let lse = upload(engine, &[0; 4096]);
    let (starts, angles) = ([0, 33, 75], [0.6; 800]);
    let run = |o: &wgpu::Buffer| {
        let mut tensors = Tensors::new(&q, &k, &v, o);
        tensors.lse = attention.lse.then_some((&lse).into());
        if attention.rotary.is_some() {
            tensors.rotary_cos = Some(heedful::Table::F32(&angles));
            tensors.rotary_sin = Some(heedful::Table::F32(&angles));
        }
        tensors.head_scale = attention.cosine.map(|_| heedful::Table::F32(&angles[..4]));
        if attention.packed.is_some() {
            tensors.cu_seqlens_q = Some(heedful::Table::U32(&starts));
            tensors.cu_seqlens_kv = Some(heedful::Table::U32(&starts));
        }
        let bound =
            engine.bind(&plan, &tensors).unwrap_or_else(|e| panic!("{path} {attention:?}: {e}"));
        submit(engine, |encoder| bound.encode(encoder));
        [read(engine, o), read(engine, &lse)]
    };
    let (before, apart) = (read(engine, &q), run(&o));
    assert!(apart == run(&q), "{path}\n{plan}");
    assert!(before != apart[0]);
    true
}

#[test]
fn o_over_q_has_the_same_bits_on_every_path() {
    let Some(engine) = common::gpu::engine("o_over_q") else { return };
    let shape = Shape { heads_kv: 2, ..Shape::self_attention(2, 4, 75, 20) };
    let plain = Attention::new(shape).with_lse();
    let packed = Shape { heads_kv: 2, ..Shape::self_attention(2, 4, 42, 20) };
    let calls = [
        plain.clone().causal(Align::TopLeft),
        plain.clone().dtype(DType::F16),
        plain.clone().dtype(DType::Bf16).layout(Layout::Bshd),
        plain.clone().rotary(Rotary::new(20, 80)),
        plain.clone().cosine_scaled(1e-6),
        Attention::new(packed).packed(75, 75),
        Attention::new(Shape { seq_kv: 300, ..Shape::self_attention(2, 2, 150, 128) }).with_lse(),
        Attention::new(Shape { seq_q: 3, dim_qk: 7, dim_v: 7, ..shape }).with_lse(),
        Attention::new(Shape { seq_q: 1, seq_kv: 900, ..Shape::self_attention(1, 8, 1, 64) })
            .with_lse(),
    ];
    for attention in &calls {
        let paths = [Path::Split, Path::Fused, Path::FusedTile, Path::Staged];
        let ran = paths.into_iter().filter(|path| same_in_place(&engine, attention, *path)).count();
        assert!(ran >= 3, "{ran} paths of {attention:?}");
    }
}

#[test]
fn o_over_q_has_the_same_bits_with_keys_in_steps_and_on_matrix_units() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 32 << 10, ..Default::default() };
    if let Some(engine) = common::gpu::engine_with("o_over_q_in_steps", limits) {
        let shape = Shape { seq_q: 70, ..Shape::self_attention(2, 2, 300, 64) };
        assert!(same_in_place(&engine, &Attention::new(shape).with_lse(), Path::Staged));
    }
    if let Some(engine) = common::gpu::matrix_engine("o_over_q_on_matrix_units") {
        let call =
            Attention::new(Shape::self_attention(1, 4, 150, 64)).dtype(DType::F16).with_lse();
        for path in [Path::FusedMatrix, Path::StagedMatrix] {
            assert!(same_in_place(&engine, &call, path));
        }
    }
}

#[test]
fn o_over_q_is_refused_where_rows_of_both_do_not_lie_alike() {
    let Some(engine) = common::gpu::engine("o_over_q_refused") else { return };
    let shape = Shape::self_attention(1, 2, 10, 8);
    let place = upload(&engine, &[0; 4096]);
    let other = upload(&engine, &[0; 4096]);
    let bind = |attention: &Attention, q, o| {
        let plan = engine.plan(attention).unwrap();
        engine.bind(&plan, &Tensors::new(q, &other, &other, o))
    };
    let whole = at(&place, 0);
    let plain = Attention::new(shape);
    bind(&plain, whole, whole).unwrap();
    // Rows of others, one row further.
    assert_eq!(refusal(bind(&plain, whole, at(&place, 32))).0, "o");
    let turned = plain.clone().layout_o(Layout::Bshd);
    assert_eq!(refusal(bind(&turned, whole, whole)).0, "o");
    let narrow = Attention::new(Shape { dim_v: 6, ..shape });
    assert_eq!(refusal(bind(&narrow, whole, whole)).0, "o");
    // Two rows in a word.
    let odd = Attention::new(Shape { dim_qk: 7, dim_v: 7, ..shape }).dtype(DType::F16);
    assert_eq!(refusal(bind(&odd, whole, whole)).0, "o");
    let half = plain.clone().dtype(DType::F16);
    assert_eq!(refusal(bind(&half, at(&place, 2), at(&place, 2))).0, "o");
    // Gradients are made of q and o.
    let training = plain.with_lse();
    let plan = engine.plan_backward(&Backward::of(training)).unwrap();
    let mut tensors = Tensors::new(whole, &other, &other, whole);
    tensors.lse = Some(at(&place, 2048));
    let gradients = upload(&engine, &[0; 4096]);
    let mut tensors = BackwardTensors::new(tensors, at(&gradients, 3072));
    for (operand, offset) in [(Operand::Q, 0), (Operand::K, 1024), (Operand::V, 2048)] {
        tensors = tensors.with(operand, at(&gradients, offset));
    }
    assert_eq!(refusal(engine.bind_backward(&plan, &tensors)).0, "o");
}

#[test]
fn what_wgpu_would_reject_at_submit_is_refused_when_bound() {
    let Some(engine) = common::gpu::engine("aliases") else { return };
    let cache = KvCache::new(&engine, &KvCacheDescriptor::new(1, 1, 8, 16)).unwrap();
    let other = upload(&engine, &[0; 1024]);
    let (k, v) = (cache.k(), cache.v());
    for (name, rows) in [
        ("k", NewRows { k: k.into(), v: (&other).into(), rotary: None }),
        ("v", NewRows { k: (&other).into(), v: k.into(), rotary: None }),
        ("v", NewRows { k: (&other).into(), v: v.into(), rotary: None }),
    ] {
        let bound = cache.bind_append(&engine, &AppendDescriptor::new(1), &rows);
        assert_eq!(refusal(bound).0, name);
    }
    let plan = engine.plan(&cache.attention(1, 1).unwrap()).unwrap();
    assert_eq!(refusal(engine.bind(&plan, &cache.tensors(&other, k))).0, "o");

    let layer = MultiHeadAttention::new(Attention::new(Shape::self_attention(1, 1, 4, 8)), 8);
    let plan = engine.plan_layer(&layer, &Policy::default()).unwrap();
    let x = upload(&engine, &vec![0; 4096]);
    let matrices = upload(&engine, &vec![0; 4 * 256]);
    let mut weights = LayerWeights::new(&matrices, &matrices, at(&matrices, 256));
    weights.w_o = Some(at(&matrices, 512));
    let bind = |o| engine.bind_layer(&plan, &Tensors::new(&x, &x, &x, o), &weights);
    let (name, message) = refusal(bind(at(&matrices, 640)));
    assert_eq!(name, "o");
    assert!(message.contains("w_o is at 512..768"), "{message}");
    assert_eq!(refusal(bind(at(&matrices, 0))).0, "o");
    // Apart in one buffer, and over the inputs, which have been read by then.
    for o in [at(&matrices, 768), at(&x, 0)] {
        let bound = bind(o).unwrap();
        submit(&engine, |encoder| bound.encode(encoder));
    }

    let merge = MergeStates { parts: 2, rows: 2, dim_v: 8, dtype: DType::F32 };
    let bind = |o, lse| engine.bind_merge(&merge, [at(&x, 0), at(&x, 256)], [o, lse]);
    assert_eq!(refusal(bind(at(&x, 124), at(&x, 512))).0, "o");
    assert_eq!(refusal(bind(at(&x, 512), at(&x, 572))).0, "lse");
    assert!(bind(at(&x, 128), at(&x, 512)).is_ok());
    let product = |a, b, c| heedful::engine::Matmul::new(&engine, [1, 8, 8, 8], a, b, c);
    assert_eq!(refusal(product(&x, &other, &x)).0, "c");
    assert!(product(&x, &x, &other).is_ok());
}

#[test]
fn a_layers_output_may_lie_over_its_input() {
    let Some(engine) = common::gpu::engine("layer_in_place") else { return };
    let layer = MultiHeadAttention::new(Attention::new(Shape::self_attention(2, 2, 9, 8)), 16);
    let plan = engine.plan_layer(&layer, &Policy::default()).unwrap();
    let bytes = |values: Vec<f64>| DType::F32.encode(values);
    let matrices = upload(&engine, &bytes(values(2, 4 * 256)));
    let weight = |i: u64| at(&matrices, 1024 * i);
    let mut weights = LayerWeights::new(weight(0), weight(1), weight(2));
    weights.w_o = Some(weight(3));
    let run = |x: &wgpu::Buffer, o: &wgpu::Buffer| {
        let bound = engine.bind_layer(&plan, &Tensors::new(x, x, x, o), &weights).unwrap();
        submit(&engine, |encoder| bound.encode(encoder));
        read(&engine, o)
    };
    let x = bytes(values(1, 2 * 9 * 16));
    let apart = run(&upload(&engine, &x), &upload(&engine, &vec![0; x.len()]));
    let one = upload(&engine, &x);
    assert_eq!(run(&one, &one), apart);
}

#[test]
fn in_a_browser_bound_ranges_are_apart() {
    let Some(engine) = common::gpu::engine("browser_ranges") else { return };
    let capabilities =
        heedful::Capabilities { backend: "webgpu".into(), ..engine.capabilities().clone() };
    let alignment = capabilities.storage_alignment;
    let engine = engine.with_capabilities(capabilities);
    let attention = Attention::new(Shape::self_attention(1, 1, 3, 4));
    let plan = engine.plan(&attention).unwrap();
    let buffer = upload(&engine, &vec![0; 4096]);
    let tensors = |step: u64| {
        let [q, k, v, o] = [0, 1, 2, 3].map(|i| at(&buffer, i * step));
        Tensors::new(q, k, v, o)
    };
    assert!(engine.bind(&plan, &tensors(256)).is_ok());
    if alignment > 4 {
        let (_, message) = refusal(engine.bind(&plan, &tensors(52)));
        assert!(message.contains(&format!("multiples of {alignment}")), "{message}");
    }
}
