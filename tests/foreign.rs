//! Objects that are not the engine's: buffers and queues of other devices, plans for devices that can do more.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::layer::{LayerWeights, MultiHeadAttention};
use heedful::reference::Inputs;
use heedful::{
    Attention, BufferView, Capabilities, DType, Engine, Error, MergeStates, Path, Plan, Policy,
    SelfTest, Shape, Table, Tensors, WeightsAt, wgpu,
};

/// Two devices of one adapter, with the limits of an application that asks for little.
fn devices(test: &str, limits: &wgpu::Limits) -> Option<[(wgpu::Device, wgpu::Queue); 2]> {
    common::gpu::engine(test)?;
    let adapters = pollster::block_on(Engine::adapters());
    let adapter = adapters.first()?;
    Some([1, 2].map(|_| {
        let descriptor =
            wgpu::DeviceDescriptor { required_limits: limits.clone(), ..Default::default() };
        pollster::block_on(adapter.request_device(&descriptor)).unwrap()
    }))
}

fn buffer(device: &wgpu::Device) -> wgpu::Buffer {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1 << 14,
        usage,
        mapped_at_creation: false,
    })
}

fn argument(result: Result<impl Sized, Error>) -> String {
    let Err(error) = result else { panic!("accepted") };
    assert!(error.is_invalid(), "{error}");
    error.argument().unwrap_or_default().to_owned()
}

#[test]
fn a_buffer_of_another_device_is_named() {
    let Some([own, other]) = devices("foreign_buffers", &wgpu::Limits::default()) else { return };
    let engine = Engine::from_wgpu(own.0.clone(), own.1);
    let [a, b, c, d] = [1, 2, 3, 4].map(|_| buffer(&own.0));
    let foreign = buffer(&other.0);
    let view = BufferView::from(&foreign);

    let attention = Attention::new(Shape::self_attention(1, 2, 8, 8)).kv_lengths().with_lse();
    let plan = engine.plan(&attention).unwrap();
    let mut good = Tensors::new(&a, &b, &c, &d);
    good.lse = Some(BufferView { buffer: &d, offset: 4096 });
    good.kv_lengths = Some(Table::Buffer((&a).into()));
    assert!(engine.bind(&plan, &good).is_ok());
    let bind = |tensors: Tensors<'_>| argument(engine.bind(&plan, &tensors));
    assert_eq!(bind(Tensors { q: view, ..good }), "q");
    assert_eq!(bind(Tensors { k: view, ..good }), "k");
    assert_eq!(bind(Tensors { o: view, ..good }), "o");
    assert_eq!(bind(Tensors { lse: Some(view), ..good }), "lse");
    assert_eq!(bind(Tensors { kv_lengths: Some(Table::Buffer(view)), ..good }), "kv_lengths");
    let staged = Policy { path: Path::Staged, ..Default::default() };
    let plan = engine.plan_with(&attention, &staged).unwrap();
    assert_eq!(
        argument(engine.bind(&plan, &Tensors { workspace: Some(view), ..good })),
        "workspace"
    );

    let merge = MergeStates { parts: 2, rows: 2, dim_v: 8, dtype: DType::F32 };
    let bind = |lse| engine.bind_merge(&merge, [(&a).into(), (&b).into()], [(&c).into(), lse]);
    assert!(bind((&d).into()).is_ok());
    assert_eq!(argument(bind(view)), "lse");

    let cache = KvCache::new(&engine, &KvCacheDescriptor::new(1, 1, 8, 16)).unwrap();
    let rows = NewRows { k: (&a).into(), v: view, rotary: None };
    assert_eq!(argument(cache.bind_append(&engine, &AppendDescriptor::new(1), &rows)), "v");
    let elsewhere = Engine::from_wgpu(other.0.clone(), other.1);
    let rows = NewRows { k: view, v: view, rotary: None };
    assert_eq!(argument(cache.bind_append(&elsewhere, &AppendDescriptor::new(1), &rows)), "engine");

    let layer = MultiHeadAttention {
        learned_key: true,
        ..MultiHeadAttention::new(Attention::new(Shape::self_attention(1, 1, 8, 8)), 8)
    };
    let plan = engine.plan_layer(&layer, &Policy::default()).unwrap();
    let mut weights = LayerWeights::new(&a, &a, &a);
    weights.w_o = Some((&a).into());
    (weights.bias_k, weights.bias_v) = (Some((&a).into()), Some((&a).into()));
    let tensors = Tensors::new(&b, &b, &b, &c);
    let bind = |tensors: &Tensors<'_>, weights: LayerWeights<'_>| {
        argument(engine.bind_layer(&plan, tensors, &weights))
    };
    assert!(engine.bind_layer(&plan, &tensors, &weights).is_ok());
    assert_eq!(bind(&Tensors { v: view, ..tensors }, weights), "v");
    assert_eq!(bind(&tensors, LayerWeights { w_k: view, ..weights }), "w_k");
    assert_eq!(bind(&tensors, LayerWeights { bias_v: Some(view), ..weights }), "bias_v");
}

#[test]
fn a_queue_of_another_device_is_an_argument() {
    let Some([own, other]) = devices("foreign_queue", &wgpu::Limits::default()) else { return };
    let engine = Engine::from_wgpu(own.0.clone(), other.1.clone());
    let attention = Attention::new(Shape::self_attention(1, 1, 4, 4));
    assert_eq!(argument(engine.plan(&attention)), "queue");
    let untested = Policy { self_test: SelfTest::Off, ..Default::default() };
    let plan = engine.plan_with(&attention, &untested).unwrap();
    let [q, k, v, o] = [1, 2, 3, 4].map(|_| buffer(&own.0));
    assert_eq!(argument(engine.run(&plan, &Tensors::new(&q, &k, &v, &o))), "queue");
    let zeros = [0.0; 16];
    let inputs = Inputs { q: &zeros, k: &zeros, v: &zeros, operands: Default::default() };
    assert_eq!(argument(engine.run_host(&plan, &inputs)), "queue");
    let merge = MergeStates { parts: 1, rows: 1, dim_v: 4, dtype: DType::F32 };
    let views = [&q, &k, &v, &o].map(BufferView::from);
    assert_eq!(
        argument(engine.bind_merge(&merge, [views[0], views[1]], [views[2], views[3]])),
        "queue"
    );
    let layer = MultiHeadAttention::new(attention.clone(), 4);
    assert_eq!(argument(engine.plan_layer(&layer, &Policy::default())), "queue");
    // Recording needs no queue: the application submits to its own.
    assert!(engine.bind(&plan, &Tensors::new(&q, &k, &v, &o)).is_ok());
}

#[test]
fn an_own_queue_is_accepted_while_it_works_and_while_others_poll() {
    let Some([own, _]) = devices("busy_queue", &wgpu::Limits::default()) else { return };
    let (device, queue) = own;
    let attention = Attention::new(Shape::self_attention(1, 8, 256, 64));
    let untested = Policy { self_test: SelfTest::Off, ..Default::default() };
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = device.poll(wgpu::PollType::Poll);
            }
        });
        let data = vec![0.5; 8 * 256 * 64];
        let inputs = Inputs { q: &data, k: &data, v: &data, operands: Default::default() };
        for _ in 0..4 {
            let engine = Engine::from_wgpu(device.clone(), queue.clone());
            let plan = engine.plan_with(&attention, &untested);
            assert!(plan.is_ok());
            // Each asks anew, the first of them while the queue is idle, the second while it works.
            let busy = Engine::from_wgpu(device.clone(), queue.clone());
            let plan = plan.unwrap();
            let pending = pollster::block_on(engine.run_host_async(&plan, &inputs));
            assert!(pending.is_ok(), "{pending:?}");
            assert!(busy.plan(&Attention::new(Shape::self_attention(1, 1, 4, 4))).is_ok());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_plan_for_a_stronger_device_is_an_argument() {
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 64 << 10,
        max_storage_buffers_per_shader_stage: 5,
        ..Default::default()
    };
    let Some([own, _]) = devices("stronger_plan", &limits) else { return };
    let engine = Engine::from_wgpu(own.0.clone(), own.1);
    let caps = engine.capabilities().clone();
    let buffers = [1, 2, 3, 4].map(|_| buffer(&own.0));
    let [q, k, v, o] = buffers.each_ref();
    let bind = |attention: &Attention, caps: &Capabilities, path: Path| {
        let policy = Policy { path, native_f16: Some(true), ..Default::default() };
        let plan = Plan::new(&attention.validate().unwrap(), caps, &policy).unwrap();
        let mut tensors = Tensors::new(q, k, v, o);
        if attention.lse {
            tensors.lse = Some(BufferView { buffer: o, offset: 8192 });
        }
        tensors.weights = attention.weights.map(|_| BufferView { buffer: k, offset: 8192 });
        tensors.sinks = attention.sinks.then_some(Table::F32(&[0.0; 2]));
        engine.bind(&plan, &tensors).map(|_| plan)
    };
    let plain = Attention::new(Shape::self_attention(1, 2, 8, 8));
    assert!(bind(&plain, &caps, Path::Fused).is_ok());
    let stronger = [
        // Six storage buffers.
        (plain.clone().sinks().with_lse(), Capabilities { max_storage_buffers: 8, ..caps.clone() }),
        (plain.clone().dtype(DType::F16), Capabilities { shader_f16: true, ..caps.clone() }),
    ];
    for (attention, caps) in stronger {
        let error = bind(&attention, &caps, Path::Fused).unwrap_err();
        assert_eq!(error.argument(), Some("plan"), "{error}");
    }
    let subgroups = Capabilities { subgroups: true, subgroup_size: [32, 32], ..caps.clone() };
    let wide = Attention::new(Shape::self_attention(1, 1, 8, 64));
    let error = bind(&wide, &subgroups, Path::Fused).unwrap_err();
    assert_eq!(error.argument(), Some("plan"), "{error}");
    // A binding of 128 KiB, scratch at multiples of 4.
    let engine_buffers = buffer_of(&own.0, 1 << 18);
    let long = Attention::new(Shape { seq_q: 1, ..Shape::self_attention(1, 1, 1 << 12, 8) });
    let large = Capabilities { max_binding_bytes: 1 << 20, ..caps.clone() };
    let plan = Plan::new(
        &long.validate().unwrap(),
        &large,
        &Policy { path: Path::Fused, ..Default::default() },
    )
    .unwrap();
    let tensors = Tensors::new(q, &engine_buffers, &engine_buffers, o);
    assert_eq!(argument(engine.bind(&plan, &tensors)), "plan");
    if caps.storage_alignment > 16 {
        let fine = Capabilities { storage_alignment: 4, ..caps };
        let attention = plain.with_weights(WeightsAt::Probabilities);
        let shape = Shape { seq_q: 3, ..attention.shape };
        let attention = Attention { shape, ..attention };
        let error = bind(&attention, &fine, Path::Staged).unwrap_err();
        assert_eq!(error.argument(), Some("plan"), "{error}");
    }
}

fn buffer_of(device: &wgpu::Device, size: u64) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE;
    device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    })
}
