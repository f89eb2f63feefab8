//! Host costs: planning, composing, binding, recording. CPU time only; nothing here waits for a GPU.

use criterion::{Criterion, criterion_group, criterion_main};
use heedful::kernel::compose;
use heedful::{
    Align, Attention, Capabilities, Engine, Plan, Policy, SelfTest, Shape, Tensors, wgpu,
};

fn call() -> Attention {
    Attention::new(Shape::self_attention(1, 8, 512, 64)).causal(Align::TopLeft)
}

fn planning(criterion: &mut Criterion) {
    let caps = Capabilities::default();
    let plan = || {
        let problem = call().validate().expect("a valid call");
        Plan::new(&problem, &caps, &Policy::default()).expect("a plan")
    };
    criterion.bench_function("validate and plan", |b| b.iter(plan));
    let planned = plan();
    criterion
        .bench_function("compose a fused kernel", |b| b.iter(|| compose(planned.kernels()[0])));
}

fn recording(criterion: &mut Criterion) {
    let Ok(engine) = Engine::new_blocking() else {
        println!("no adapter: binding and recording are not measured");
        return;
    };
    let policy = Policy { self_test: SelfTest::Off, ..Policy::default() };
    let plan = engine.plan_with(&call(), &policy).expect("a plan");
    let buffer = |n: u64| {
        engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * n,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    };
    let [q, k, v, o] = call().shape.elements().map(buffer);
    let tensors = Tensors::new(&q, &k, &v, &o);
    criterion.bench_function("bind", |b| b.iter(|| engine.bind(&plan, &tensors).expect("bound")));
    let bound = engine.bind(&plan, &tensors).expect("bound");
    criterion.bench_function("record a bound call and finish its encoder", |b| {
        b.iter(|| {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            bound.encode(&mut encoder);
            encoder.finish()
        });
    });
}

criterion_group!(benches, planning, recording);
criterion_main!(benches);
