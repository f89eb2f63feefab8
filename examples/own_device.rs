//! An application with a device of its own, at wgpu's default limits and without features, that keeps everything in one
//! buffer: its shader makes q, k and v, attention runs, its shader adds q to o. First as three passes of one encoder,
//! then as one pass with the output at another place of the buffer.
//!
//! `cargo run --example own_device`

use heedful::device::Readback;
use heedful::reference::Inputs;
use heedful::{Align, Attention, BufferView, DType, Engine, Operand, Result, Shape, Tensors, wgpu};

/// The parts of the buffer: first byte of each. Multiples of 256, as a sub-allocator gives them.
struct Arena {
    buffer: wgpu::Buffer,
    q: u64,
    k: u64,
    v: u64,
    /// Two places for o, used in turn.
    o: [u64; 2],
    workspace: u64,
}

impl Arena {
    fn new(device: &wgpu::Device, shape: &Shape, workspace_bytes: u64) -> Self {
        let mut end = 0;
        let mut part = |bytes: u64| {
            let start = end;
            end += bytes.next_multiple_of(256);
            start
        };
        let [q, k, v, o] = shape.elements().map(|n| 4 * n);
        let [q, k, v] = [part(q), part(k), part(v)];
        let o = [part(o), part(o)];
        let workspace = part(workspace_bytes);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor {
            label: Some("arena"),
            size: end,
            usage,
            mapped_at_creation: false,
        };
        Self { buffer: device.create_buffer(&descriptor), q, k, v, o, workspace }
    }

    fn at(&self, offset: u64) -> BufferView<'_> {
        BufferView { buffer: &self.buffer, offset }
    }
}

/// What the application computes itself: on the GPU as WGSL, and here.
fn filled(i: u32) -> f64 {
    let hash = (i ^ (i >> 7)).wrapping_mul(0x9e37_79b9);
    f64::from(hash >> 8) / f64::from(1 << 23) - 1.0
}

const FILL: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    let i = at.x;
    if (i < FIRST_O) { words[i] = f32(((i ^ (i >> 7u)) * 0x9e3779b9u) >> 8u) / 8388608.0 - 1.0; }
}";

const ADD_Q: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    let i = at.x;
    if (i < COUNT) { words[O + i] += words[Q + i]; }
}";

/// A shader of the application's over the whole buffer, with numbers in place of names.
struct Own {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: u32,
}

impl Own {
    fn new(
        device: &wgpu::Device,
        arena: &Arena,
        wgsl: &str,
        names: &[(&str, u64)],
        n: u64,
    ) -> Self {
        let mut text = String::new();
        for (name, value) in names {
            text += &format!("const {name} = {value}u;\n");
        }
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl((text + wgsl).into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let entries =
            [wgpu::BindGroupEntry { binding: 0, resource: arena.buffer.as_entire_binding() }];
        let layout = &pipeline.get_bind_group_layout(0);
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
        let group = device.create_bind_group(&descriptor);
        Self { pipeline, group, groups: n.div_ceil(64) as u32 }
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.groups, 1, 1);
    }
}

/// q + attention of what [`FILL`] writes, in float64.
fn wanted(attention: &Attention, arena: &Arena) -> Result<Vec<f64>> {
    let values = |offset: u64, n: u64| -> Vec<f64> {
        (offset / 4..offset / 4 + n).map(|i| filled(i as u32)).collect()
    };
    let [q, k, v, _] = attention.shape.elements();
    let [q, k, v] = [values(arena.q, q), values(arena.k, k), values(arena.v, v)];
    let inputs = Inputs { q: &q, k: &k, v: &v, operands: Default::default() };
    let o = attention.validate()?.reference(&inputs)?.o;
    Ok(o.iter().zip(&q).map(|(o, q)| o + q).collect())
}

fn main() -> Result<()> {
    let found = pollster::block_on(Engine::adapters());
    let Some(adapter) = found.first() else {
        println!("no adapter: nothing to own");
        return Ok(());
    };
    // The default descriptor: default limits, no features.
    let opened = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()));
    let (device, queue) = opened.expect("any adapter serves the default limits");
    let engine = Engine::from_wgpu(device.clone(), queue.clone());

    let shape = Shape { heads_kv: 2, ..Shape::self_attention(1, 8, 200, 64) };
    let attention = Attention::new(shape).causal(Align::TopLeft);
    let plan = engine.plan(&attention)?;
    let arena = Arena::new(&device, &shape, plan.workspace_bytes());
    let mut tensors =
        Tensors::new(arena.at(arena.q), arena.at(arena.k), arena.at(arena.v), arena.at(arena.o[0]));
    tensors.workspace = (plan.workspace_bytes() > 0).then(|| arena.at(arena.workspace));
    let mut bound = engine.bind(&plan, &tensors)?;

    let words = arena.o[0] / 4;
    let fill = Own::new(&device, &arena, FILL, &[("FIRST_O", words)], words);
    let n = shape.elements()[3];
    let add = arena.o.map(|o| {
        let names = [("COUNT", n), ("O", o / 4), ("Q", arena.q / 4)];
        Own::new(&device, &arena, ADD_Q, &names, n)
    });

    let mut encoder = device.create_command_encoder(&Default::default());
    fill.record(&mut encoder.begin_compute_pass(&Default::default()));
    bound.encode(&mut encoder);
    add[0].record(&mut encoder.begin_compute_pass(&Default::default()));
    let passes = Readback::record(&device, &mut encoder, &arena.buffer, arena.o[0], 4 * n)?;

    bound.rebind(&engine, Operand::O, arena.at(arena.o[1]))?;
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        fill.record(&mut pass);
        bound.encode_pass(&mut pass)?;
        add[1].record(&mut pass);
    }
    let pass = Readback::record(&device, &mut encoder, &arena.buffer, arena.o[1], 4 * n)?;
    queue.submit([encoder.finish()]);

    let [passes, pass] = [passes.read_blocking()?, pass.read_blocking()?];
    let wanted = wanted(&attention, &arena)?;
    let found = DType::F32.decode(&passes);
    let error = found.iter().zip(&wanted).map(|(x, e)| (x - e).abs()).fold(0.0, f64::max);
    println!("{} B in one buffer of {}", arena.buffer.size(), engine.capabilities().name);
    println!("{} path, three passes: differs by at most {error:.1e}", plan.path());
    println!("the same bits in one pass: {}", passes == pass);
    assert!(error < 1e-5 && found.len() == wanted.len(), "attention between the passes is wrong");
    assert_eq!(passes, pass, "one pass must compute what three do");
    Ok(())
}
