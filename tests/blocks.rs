//! Block-sparse attention: tables from the host and from the GPU agree, and skipping blocks changes no bit.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use heedful::device::Readback;
use heedful::verify::data::{CaseData, DataOptions};
use heedful::{
    Align, Attention, Blocks, BufferView, Checks, CustomMask, Path, Policy, Shape, Table, Tensors,
    wgpu,
};

/// Rows see their own 64 keys, the first 16, and whole stripes.
fn pattern(row: u32, key: u32) -> bool {
    row / 64 == key / 64 || key < 16 || (key / 32) % 5 == 4
}

const PATTERN: &str = "fn mask_pattern(p: Position) -> bool {
  return p.row / 64u == p.key / 64u || p.key < 16u || (p.key / 32u) % 5u == 4u;
}";

fn shape() -> Shape {
    Shape { heads_kv: 2, ..Shape::self_attention(2, 4, 300, 24) }
}

fn upload(engine: &heedful::Engine, bytes: &[u8]) -> wgpu::Buffer {
    let size = (bytes.len() as u64).next_multiple_of(4).max(16);
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let buffer = engine.device().create_buffer(&descriptor);
    let mut padded = bytes.to_vec();
    padded.resize(size as usize, 0);
    engine.queue().write_buffer(&buffer, 0, &padded);
    buffer
}

fn read(engine: &heedful::Engine, view: BufferView<'_>, bytes: u64) -> Vec<u32> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let back =
        Readback::record(engine.device(), &mut encoder, view.buffer, view.offset, bytes).unwrap();
    engine.queue().submit([encoder.finish()]);
    let bytes = back.read_blocking().unwrap();
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// The words of the block table that the GPU builds for a call.
fn built(attention: &Attention, data: &CaseData, blocks: Blocks) -> Option<Vec<u32>> {
    let engine = common::gpu::engine("built")?;
    Some(built_on(&engine, attention, data, blocks))
}

fn built_on(
    engine: &heedful::Engine,
    attention: &Attention,
    data: &CaseData,
    blocks: Blocks,
) -> Vec<u32> {
    let dummy = upload(engine, &vec![0; 4 * 2 * 4 * 300 * 24]);
    let out = upload(engine, &vec![0; 4 * 2 * 4 * 300 * 24]);
    let mask: Vec<u8> = data.mask.iter().map(|&keep| keep.into()).collect();
    let mask = upload(engine, &mask);
    let bias: Vec<f32> = data.bias.iter().map(|&x| x as f32).collect();
    let bias = upload(engine, &bias.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let mut tensors = Tensors::new(&dummy, &dummy, &dummy, &out);
    tensors.mask = attention.masks.dense.map(|_| (&mask).into());
    tensors.bias = attention.bias.map(|_| (&bias).into());
    tensors.segments_q = attention.masks.segments.map(|_| Table::U32(&data.segments_q));
    tensors.segments_kv = attention.masks.segments.map(|_| Table::U32(&data.segments_kv));
    let builder = engine.bind_blocks(attention, blocks, &tensors).unwrap();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    builder.encode(&mut encoder);
    engine.queue().submit([encoder.finish()]);
    let Table::Buffer(view) = builder.table() else { panic!("the table is on the GPU") };
    read(engine, view, 4 * blocks.words(&attention.shape))
}

#[test]
fn the_gpu_builds_the_table_of_the_host() {
    let shape = shape();
    let own = Blocks { batch: 2, heads: 4, ..Blocks::new(48, 20) };
    let calls = [
        (Attention::new(shape).mask([2, 4, 300, 300]), own),
        (Attention::new(shape).mask([1, 1, 300, 300]), Blocks::new(64, 64)),
        (Attention::new(shape).bias([2, 1, 300, 300]), Blocks { heads: 1, ..own }),
        (Attention::new(shape).segments(), Blocks { heads: 1, ..own }),
        (Attention::new(shape).segments().mask([1, 4, 1, 300]).bias([2, 1, 300, 1]), own),
        (
            Attention::new(shape)
                .keep(CustomMask::new("pattern", PATTERN, |p| pattern(p.row, p.key))),
            Blocks::new(32, 32),
        ),
    ];
    for (attention, blocks) in calls {
        let problem = attention.validate().unwrap();
        let data = CaseData::generate(&problem, 3, &DataOptions::default());
        let operands = data.operands();
        let masks = problem.masks();
        let host = blocks.table(&shape, |batch, head, row, key| {
            let mut at = problem.position(batch, head, row, &operands);
            at.key = key;
            let bias = attention.bias.map_or(0.0, |b| data.bias[b.index([batch, head, row, key])]);
            masks.iter().all(|mask| mask.keeps(&at, &operands, &shape)) && bias != f64::NEG_INFINITY
        });
        let Some(found) = built(&attention, &data, blocks) else { return };
        assert_eq!(found, host, "{problem}");
    }
}

/// A table beside the mask it was built from only saves work: no bit of the result changes.
#[test]
fn skipping_blocks_changes_no_bit() {
    let Some(engine) = common::gpu::engine("skipping_blocks") else { return };
    let mask = || CustomMask::new("pattern", PATTERN, |p| pattern(p.row, p.key));
    let full = Attention::new(shape()).keep(mask()).causal(Align::TopLeft).with_lse();
    for blocks in [Blocks::new(64, 64), Blocks::new(32, 16), Blocks::new(100, 7)] {
        let sparse = full.clone().blocks(blocks);
        let problem = sparse.validate().unwrap();
        let mut data = CaseData::generate(&problem, 3, &DataOptions::default());
        data.blocks = blocks.table(&shape(), |_, _, row, key| pattern(row, key));
        let dense = CaseData { blocks: Vec::new(), ..data.clone() };
        for path in [Path::Fused, Path::Staged] {
            let policy = Policy { path, ..Policy::default() };
            let run = |attention: &Attention, data: &CaseData| {
                let plan = engine.plan_with(attention, &policy).unwrap();
                engine.run_host(&plan, &data.inputs()).unwrap()
            };
            let (with, without) = (run(&sparse, &data), run(&full, &dense));
            assert_eq!(with.o, without.o, "{path} {blocks:?}");
            assert_eq!(with.lse, without.lse, "{path} {blocks:?}");
        }
    }
}

#[test]
fn blocks_that_cannot_be_are_refused_by_name() {
    let wrong = [
        (Blocks::new(0, 64), "blocks rows"),
        (Blocks::new(64, 0), "blocks keys"),
        (Blocks { batch: 3, ..Blocks::new(64, 64) }, "blocks batch"),
        (Blocks { heads: 2, ..Blocks::new(64, 64) }, "blocks heads"),
    ];
    for (blocks, argument) in wrong {
        let error = Attention::new(shape()).blocks(blocks).validate().unwrap_err();
        assert_eq!(error.argument(), Some(argument), "{error}");
    }
    let long = Attention::new(Shape::self_attention(1, 1, 1 << 20, 8));
    let error = long.blocks(Blocks::new(1, 1)).validate().unwrap_err();
    assert_eq!(error.argument(), Some("blocks"), "{error}");
}

/// Leaving run-time checks out changes no bit either.
#[test]
fn unchecked_kernels_give_the_same_bits() {
    let Some(engine) = common::gpu::engine("unchecked") else { return };
    let attention = Attention::new(shape()).segments().causal(Align::TopLeft).with_lse();
    let data = CaseData::generate(&attention.validate().unwrap(), 3, &DataOptions::default());
    #[allow(unsafe_code, reason = "the tables are in range and no function is the caller's")]
    // SAFETY: as the reason says.
    let off = unsafe { Checks::off() };
    for path in [Path::Fused, Path::Staged] {
        let run = |checks| {
            let policy = Policy { path, checks, ..Policy::default() };
            let plan = engine.plan_with(&attention, &policy).unwrap();
            let unchecked = plan.kernels().iter().all(|spec| spec.build.unchecked);
            assert_eq!(unchecked, checks.are_off());
            engine.run_host(&plan, &data.inputs()).unwrap()
        };
        let (with, without) = (run(Checks::ON), run(off));
        assert_eq!((with.o, with.lse), (without.o, without.lse), "{path}");
    }
}

/// A device with small bindings takes the call in parts; one table for all sequences and heads is built from the
/// masks of the first, whatever part comes last.
#[test]
fn a_shared_table_is_that_of_the_first_whatever_the_parts() {
    let Some(adapter) = common::gpu::adapter("a_shared_table") else { return };
    // One sequence's mask of 4 x 300 x 300 bytes fits a binding, two do not.
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 400 << 10,
        ..wgpu::Limits::downlevel_defaults()
    };
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    let engine = heedful::Engine::from_wgpu(device, queue);
    let attention = Attention::new(shape()).mask([2, 4, 300, 300]);
    let problem = attention.validate().unwrap();
    let mut data = CaseData::generate(&problem, 9, &DataOptions::default());
    // The second sequence hides everything, which would show in the table.
    data.mask[4 * 300 * 300..].fill(false);
    let blocks = Blocks { heads: 4, ..Blocks::new(60, 32) };
    let first = &data.mask[..4 * 300 * 300];
    let host = blocks
        .table(&shape(), |_, head, row, key| first[((head * 300 + row) * 300 + key) as usize]);
    assert_eq!(built_on(&engine, &attention, &data, blocks), host);
}
