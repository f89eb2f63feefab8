//! The engine on a device: small limits, borrowed devices, the caller's encoder and buffers, bad tensors.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::execute::{Placement, execute};
use heedful::verify::truth::Truth;
use heedful::{
    Align, Attention, BufferView, DType, Engine, Error, Layout, Path, Plan, Policy, Shape, Strides,
    Table, Tensors, WeightsAt, wgpu,
};

/// Checks a call on the staged path and, where that can serve it, on the fused one.
fn check(engine: &Engine, attention: &Attention, placement: Placement) -> Plan {
    if attention.weights.is_none() {
        check_path(engine, attention, Path::Fused, placement);
    }
    check_path(engine, attention, Path::Staged, placement)
}

/// Runs a call guarded and poisoned, and checks everything it gives.
fn check_path(engine: &Engine, attention: &Attention, path: Path, placement: Placement) -> Plan {
    let policy = Policy { path, ..Default::default() };
    let plan = engine.plan_with(attention, &policy).unwrap();
    let problem = plan.problem();
    let data = CaseData::generate(problem, 7, &DataOptions::default());
    let run = execute(engine, &plan, &data.inputs(), placement).unwrap();
    let truth = Truth::measure(problem, &data.inputs()).unwrap();
    for (operand, comparison) in truth.check(problem, &run.outputs) {
        assert!(comparison.pass, "{problem} {operand}: {}\n{plan}", comparison.message());
    }
    assert_eq!(run.stray_write, None, "{problem}");
    assert!(run.repeatable, "{problem}: two runs differ");
    plan
}

fn everything(shape: Shape) -> Attention {
    Attention::new(shape)
        .causal(Align::BottomRight)
        .window(Some(70), None, Align::BottomRight)
        .softcap(3.0)
        .bias([1, shape.heads_q, 1, shape.seq_kv])
        .mask([shape.batch, 1, shape.seq_q, shape.seq_kv])
        .alibi(Align::BottomRight)
        .sinks()
        .kv_lengths()
        .q_lengths()
        .with_lse()
}

/// A device of the best adapter with given limits, as an application would open it.
fn device_with(
    test: &str,
    limits: impl Fn(&mut wgpu::Limits),
) -> Option<(wgpu::Device, wgpu::Queue)> {
    let adapter = common::gpu::adapter(test)?;
    let mut required = wgpu::Limits::default();
    limits(&mut required);
    let descriptor = wgpu::DeviceDescriptor { required_limits: required, ..Default::default() };
    Some(pollster::block_on(adapter.request_device(&descriptor)).unwrap())
}

#[test]
fn every_feature_at_once_matches_the_reference() {
    let Some(engine) = common::gpu::engine("every_feature_at_once") else { return };
    let shape = Shape { seq_q: 75, dim_v: 40, ..Shape::self_attention(2, 6, 131, 65) };
    let shape = Shape { heads_kv: 2, ..shape };
    for dtype in DType::ALL {
        for at in [
            WeightsAt::RawScores,
            WeightsAt::AfterSoftcap,
            WeightsAt::AfterBias,
            WeightsAt::Probabilities,
        ] {
            let attention = everything(shape).dtype(dtype).with_weights(at);
            check(&engine, &attention, Placement::Aligned);
            check(&engine, &attention, Placement::Odd);
        }
        for placement in [Placement::Aligned, Placement::Odd] {
            check(&engine, &everything(shape).dtype(dtype), placement);
        }
    }
}

#[test]
fn small_binding_limits_split_blocks_and_keys() {
    let limit = 32 << 10;
    let Some((device, queue)) =
        device_with("blocks", |limits| limits.max_storage_buffer_binding_size = limit)
    else {
        return;
    };
    let engine = Engine::from_wgpu(device, queue);
    assert_eq!(engine.capabilities().max_binding_bytes, limit);
    for (seq_q, seq_kv, dim) in [(70, 300, 64), (300, 130, 33), (5, 700, 40)] {
        let shape = Shape { seq_q, heads_kv: 2, ..Shape::self_attention(2, 4, seq_kv, dim) };
        let attention = everything(shape).with_weights(WeightsAt::Probabilities);
        let plan = check(&engine, &attention, Placement::Aligned);
        let splits = plan.block().splits_keys(plan.problem());
        assert_eq!(splits, u64::from(dim * seq_kv * 4) > limit, "{plan}");
        let attention = attention.dtype(DType::F16).with_weights(WeightsAt::AfterBias);
        check(&engine, &attention, Placement::Odd);
    }
    let long = Attention::new(Shape { seq_q: 1, ..Shape::self_attention(1, 1, 20_000, 8) });
    let error = engine.plan(&long).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    let staged = error.rejections().last().unwrap();
    assert!(staged.reason.contains("80000"), "{error}");
}

#[test]
fn small_workspaces_give_the_same_bits() {
    let Some(engine) = common::gpu::engine("small_workspaces") else { return };
    let attention = everything(Shape::self_attention(2, 4, 200, 64));
    let run = |bytes: u64| {
        let policy =
            Policy { path: Path::Staged, max_workspace_bytes: bytes, ..Default::default() };
        let plan = engine.plan_with(&attention, &policy).unwrap();
        assert!(plan.workspace_bytes() <= bytes);
        let data = CaseData::generate(plan.problem(), 3, &DataOptions::default());
        execute(&engine, &plan, &data.inputs(), Placement::Aligned).unwrap().outputs
    };
    assert_eq!(run(64 << 20), run(80 << 10));
}

#[test]
fn layouts_are_read_and_written_in_place() {
    let Some(engine) = common::gpu::engine("layouts") else { return };
    let shape = Shape { heads_kv: 1, ..Shape::self_attention(2, 3, 66, 20) };
    let packed = Layout::Strided(Strides { batch: 66 * 180, head: 20, row: 180 });
    let padded = Layout::Strided(Strides { batch: 4300, head: 1400, row: 21 });
    let broadcast = Layout::Strided(Strides { batch: 0, head: 0, row: 20 });
    for layout in [Layout::Bhsd, Layout::Bshd, packed, padded] {
        let mut attention = Attention::new(shape).layout(layout).causal(Align::TopLeft);
        check(&engine, &attention, Placement::Aligned);
        attention.layout_k = broadcast;
        attention.dtype = DType::F16;
        check(&engine, &attention, Placement::Odd);
    }
}

#[test]
fn empty_dimensions_have_defined_results() {
    let Some(engine) = common::gpu::engine("empty_dimensions") else { return };
    let base = Shape::self_attention(2, 2, 5, 8);
    let no_keys = everything(Shape { seq_kv: 0, ..base }).with_weights(WeightsAt::Probabilities);
    check(&engine, &no_keys, Placement::Aligned);
    let no_rows = everything(Shape { seq_q: 0, ..base });
    check(&engine, &no_rows, Placement::Aligned);
    let no_batch = everything(Shape { batch: 0, ..base });
    check(&engine, &no_batch, Placement::Aligned);
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch() {
    let Some(engine) = common::gpu::engine("batch_invariance") else { return };
    let shape = Shape { heads_kv: 2, ..Shape::self_attention(3, 4, 90, 40) };
    let window = |a: Attention, offset| {
        a.causal(Align::Offset(offset)).window(Some(33), None, Align::Offset(offset)).with_lse()
    };
    for path in [Path::Fused, Path::Staged] {
        let policy = Policy { path, ..Default::default() };
        let all = window(Attention::new(shape), 0);
        let plan = engine.plan_with(&all, &policy).unwrap();
        let data = CaseData::generate(plan.problem(), 9, &DataOptions::default());
        let together = engine.run_host(&plan, &data.inputs()).unwrap();
        let (keys, values) = (2 * 90 * 40, 40);
        for (batch, head, row) in [(0, 0, 0_usize), (1, 3, 17), (2, 1, 64), (2, 2, 89)] {
            let one = Shape { batch: 1, heads_q: 2, heads_kv: 2, seq_q: 1, ..shape };
            let plan = engine.plan_with(&window(Attention::new(one), row as i32), &policy).unwrap();
            // The row as both query heads: the one of its own key head is compared.
            let at = ((batch * 4 + head) * 90 + row) * values;
            let q = [&data.q[at..at + 40], &data.q[at..at + 40]].concat();
            let (k, v) = (&data.k[batch * keys..][..keys], &data.v[batch * keys..][..keys]);
            let operands = Default::default();
            let inputs = heedful::reference::Inputs { q: &q, k, v, operands };
            let alone = engine.run_host(&plan, &inputs).unwrap();
            let own = head / 2;
            let (o, lse) = (&alone.o[own * 40..][..40], alone.lse[own]);
            assert_eq!(o, &together.o[at..at + 40], "{path} {batch} {head} {row}");
            assert_eq!(lse, together.lse[(batch * 4 + head) * 90 + row], "{path}");
        }
    }
}

/// Buffers of a small f32 call on the caller's own device.
struct Call {
    attention: Attention,
    data: CaseData,
    buffers: Vec<wgpu::Buffer>,
}

impl Call {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue, attention: Attention) -> Self {
        let problem = attention.validate().unwrap();
        let data = CaseData::generate(&problem, 5, &DataOptions::default());
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let buffer = |values: &[f64]| {
            let bytes = DType::F32.encode(values.iter().copied());
            let size = bytes.len().max(4) as u64;
            let descriptor =
                wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            let buffer = device.create_buffer(&descriptor);
            queue.write_buffer(&buffer, 0, &bytes);
            buffer
        };
        let n = problem.attention().shape.elements()[3] as usize;
        let buffers =
            vec![buffer(&data.q), buffer(&data.k), buffer(&data.v), buffer(&vec![0.0; n])];
        Self { attention, data, buffers }
    }

    fn tensors(&self) -> Tensors<'_> {
        let [q, k, v, o] = [0, 1, 2, 3].map(|i| BufferView::from(&self.buffers[i]));
        Tensors::new(q, k, v, o)
    }

    fn read(&self, engine: &Engine) -> Vec<f64> {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let o = &self.buffers[3];
        let size = o.size();
        let device = engine.device();
        let readback = heedful::device::Readback::record(device, &mut encoder, o, 0, size).unwrap();
        engine.queue().submit([encoder.finish()]);
        DType::F32.decode(&pollster::block_on(readback.read()).unwrap())
    }
}

#[test]
fn a_borrowed_device_records_into_the_callers_encoder() {
    let Some((device, queue)) = device_with("a_borrowed_device", |_| {}) else { return };
    let engine = Engine::from_wgpu(device.clone(), queue.clone());
    let attention = Attention::new(Shape::self_attention(1, 2, 70, 32)).kv_lengths();
    let call = Call::new(&device, &queue, attention);
    // Lengths live on the GPU and change between two runs of one binding.
    let lengths = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 8,
        usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut tensors = call.tensors();
    tensors.kv_lengths = Some(Table::Buffer(BufferView { buffer: &lengths, offset: 4 }));
    let plan = engine.plan(&call.attention).unwrap();
    let bound = engine.bind(&plan, &tensors).unwrap();
    for length in [70_u32, 13, 0, 4_000_000_000] {
        queue.write_buffer(&lengths, 4, &length.to_le_bytes());
        let mut encoder = device.create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        queue.submit([encoder.finish()]);
        let mut inputs = call.data.inputs();
        let known = [length];
        inputs.operands.kv_lengths = &known;
        let truth = Truth::measure(plan.problem(), &inputs).unwrap();
        let comparison = truth.check_o(&call.read(&engine));
        assert!(comparison.pass, "length {length}: {}", comparison.message());
    }
}

fn argument(result: Result<impl Sized, Error>) -> String {
    let Err(error) = result else { panic!("accepted") };
    assert!(error.is_invalid(), "{error}");
    error.argument().unwrap_or_default().to_owned()
}

#[test]
fn bad_tensors_are_named() {
    let Some(engine) = common::gpu::engine("bad_tensors") else { return };
    let (device, queue) = (engine.device(), engine.queue());
    let call = Call::new(device, queue, Attention::new(Shape::self_attention(1, 2, 10, 8)));
    let staged = Policy { path: Path::Staged, ..Default::default() };
    let plan = engine.plan_with(&call.attention, &staged).unwrap();
    let good = call.tensors();
    assert!(engine.bind(&plan, &good).is_ok());
    let descriptor = |size, usage| wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    };
    let small = device.create_buffer(&descriptor(64, wgpu::BufferUsages::STORAGE));
    let wrong_usage = device.create_buffer(&descriptor(4096, wgpu::BufferUsages::COPY_DST));
    let view = |buffer| BufferView { buffer, offset: 0 };

    let with = |change: &dyn Fn(&mut Tensors<'_>)| {
        let mut tensors = good;
        change(&mut tensors);
        argument(engine.bind(&plan, &tensors))
    };
    assert_eq!(argument(engine.bind(&plan, &Tensors { k: view(&small), ..good })), "k buffer size");
    let tensors = Tensors { v: view(&wrong_usage), ..good };
    assert_eq!(argument(engine.bind(&plan, &tensors)), "v buffer usage");
    assert_eq!(with(&|t| t.q.offset = 2), "q offset");
    assert_eq!(with(&|t| t.q.offset = 4), "q buffer size");
    assert_eq!(with(&|t| t.q.offset = u64::MAX - 3), "q buffer size");
    assert_eq!(with(&|t| t.o = t.k), "o");
    assert_eq!(with(&|t| t.lse = Some(t.o)), "lse");
    assert_eq!(with(&|t| t.sinks = Some(Table::F32(&[0.0; 2]))), "sinks");
    let tensors = Tensors { workspace: Some(view(&small)), ..good };
    assert_eq!(argument(engine.bind(&plan, &tensors)), "workspace buffer size");

    let sinks = engine.plan(&call.attention.clone().sinks()).unwrap();
    let bind = |table| argument(engine.bind(&sinks, &Tensors { sinks: Some(table), ..good }));
    assert_eq!(argument(engine.bind(&sinks, &good)), "sinks");
    assert_eq!(bind(Table::F32(&[0.0; 3])), "sinks length");
    assert_eq!(bind(Table::U32(&[0; 2])), "sinks type");
}

#[test]
fn a_destroyed_device_is_an_error() {
    let Some((device, queue)) = device_with("a_destroyed_device", |_| {}) else { return };
    let engine = Engine::from_wgpu(device.clone(), queue);
    let plan = engine.plan(&Attention::new(Shape::self_attention(1, 1, 4, 4))).unwrap();
    let data = CaseData::generate(plan.problem(), 1, &DataOptions::default());
    assert!(engine.run_host(&plan, &data.inputs()).is_ok());
    device.destroy();
    let error = engine.run_host(&plan, &data.inputs()).unwrap_err();
    assert!(error.is_device_lost(), "{error}");
}

#[test]
fn oversized_requests_are_refused_before_anything_is_allocated() {
    let Some(engine) = common::gpu::engine("oversized") else { return };
    let attention = Attention::new(Shape::self_attention(1 << 24, 1 << 16, 1 << 28, 512));
    assert!(engine.plan(&attention).unwrap_err().is_invalid());
    let attention = Attention::new(Shape::self_attention(1, 1, 1 << 28, 1));
    assert!(engine.plan(&attention).is_err());
}
