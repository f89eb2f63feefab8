//! Host costs: planning, composing, binding, recording. CPU time only; nothing here waits for a GPU.

use criterion::{Criterion, criterion_group, criterion_main};
use heedful::cache::{AppendDescriptor, KvCache, KvCacheDescriptor, NewRows};
use heedful::kernel::compose;
use heedful::{
    Align, Attention, Capabilities, Engine, Operand, Plan, Policy, SelfTest, Shape, Tensors, wgpu,
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
    let other = buffer(call().shape.elements()[0]);
    let tensors = Tensors::new(&q, &k, &v, &o);
    criterion.bench_function("bind", |b| b.iter(|| engine.bind(&plan, &tensors).expect("bound")));
    let mut bound = engine.bind(&plan, &tensors).expect("bound");
    let mut turn = 0;
    criterion.bench_function("bind q elsewhere", |b| {
        b.iter(|| {
            turn ^= 1;
            bound.rebind(&engine, Operand::Q, [&q, &other][turn]).expect("bound");
        });
    });
    criterion.bench_function("record a bound call and finish its encoder", |b| {
        b.iter(|| {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            bound.encode(&mut encoder);
            encoder.finish()
        });
    });
}

/// One step of a text generator, everything bound: append a token to each sequence, attend, finish the encoder.
fn decoding(criterion: &mut Criterion) {
    let Ok(engine) = Engine::new_blocking() else { return };
    for (name, pages) in [("contiguous", None), ("pages of 16", Some([512, 16]))] {
        let descriptor = KvCacheDescriptor { pages, ..KvCacheDescriptor::new(4, 8, 128, 2048) };
        let mut cache = KvCache::new(&engine, &descriptor).expect("a cache");
        let buffer = |n: u64| {
            engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * n,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        let [k, v, q, o] = [8, 8, 32, 32].map(|heads| buffer(4 * heads * 128));
        let rows = NewRows { k: (&k).into(), v: (&v).into(), rotary: None };
        let append = cache.bind_append(&engine, &AppendDescriptor::new(1), &rows).expect("bound");
        let plan = engine.plan(&cache.attention(32, 1).expect("a call")).expect("a plan");
        let bound = engine.bind(&plan, &cache.tensors(&q, &o)).expect("bound");
        criterion.bench_function(&format!("record a decode step, {name}"), |b| {
            b.iter(|| {
                let mut encoder = engine.device().create_command_encoder(&Default::default());
                if cache.lengths()[0] == 2048 {
                    (0..4).for_each(|i| cache.reset(&mut encoder, i).expect("reset"));
                }
                cache.append(&mut encoder, &append, &[1; 4]).expect("room");
                bound.encode(&mut encoder);
                encoder.finish()
            });
        });
    }
}

criterion_group!(benches, planning, recording, decoding);
criterion_main!(benches);
