//! One pixel's attention and its picture, in one encoder.

use std::borrow::Cow;

use heedful::{
    Attention, Bound, Engine, Normalizer, Operand, Result, Shape, Tensors, WeightsAt, wgpu,
};
use wgpu::BufferUsages as Usage;

use crate::scene::{self, CHANNELS, HEIGHT, PIXELS, WIDTH};

/// Bytes of a pixel's features.
const ROW: u64 = 4 * CHANNELS as u64;

/// What is asked of a frame's attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask {
    /// The factor on the likeness of two pixels: the larger, the fewer are looked at.
    pub scale: f32,
    /// How likeness becomes weights.
    pub normalizer: Normalizer,
}

impl Ask {
    /// The call: one row against every pixel, weights returned.
    pub fn attention(&self) -> Attention {
        let shape = Shape {
            batch: 1,
            heads_q: 1,
            heads_kv: 1,
            seq_q: 1,
            seq_kv: PIXELS,
            dim_qk: CHANNELS,
            dim_v: 4,
        };
        let call = Attention::new(shape).scale(self.scale).normalizer(self.normalizer);
        call.with_weights(WeightsAt::Probabilities)
    }
}

/// The buffers, the bound call and the pipeline that draws.
pub struct Gaze {
    engine: Engine,
    features: wgpu::Buffer,
    /// Features of the pixel that looks.
    looking: wgpu::Buffer,
    picture: wgpu::Buffer,
    weights: wgpu::Buffer,
    gathered: wgpu::Buffer,
    view: wgpu::Buffer,
    bound: Bound,
    pipeline: wgpu::RenderPipeline,
    group: wgpu::BindGroup,
    query: [u32; 2],
}

impl Gaze {
    /// On the application's device, for targets of a format.
    ///
    /// # Errors
    /// The engine's.
    pub fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        format: wgpu::TextureFormat,
        ask: Ask,
    ) -> Result<Self> {
        let engine = Engine::from_wgpu(device.clone(), queue.clone());
        let picture = scene::picture();
        let buffer = |label, size, usage| {
            let label = Some(label);
            device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let filled = |label, values: &[f32]| {
            let bytes: &[u8] = bytemuck::cast_slice(values);
            let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
            let buffer = buffer(label, bytes.len() as u64, usage);
            queue.write_buffer(&buffer, 0, bytes);
            buffer
        };
        let features = filled("features", &scene::features(&picture));
        let picture = filled("picture", &picture);
        let looking = buffer("looking", ROW, Usage::STORAGE | Usage::COPY_DST);
        let weights = buffer("weights", u64::from(4 * PIXELS), Usage::STORAGE);
        let gathered = buffer("gathered", 16, Usage::STORAGE);
        let view = buffer("view", 16, Usage::UNIFORM | Usage::COPY_DST);
        let bound = bind(&engine, ask, [&looking, &features, &picture, &gathered, &weights])?;
        let pipeline = pipeline(device, format);
        let parts = [&view, &picture, &weights, &gathered];
        let entries = [0, 1, 2, 3].map(|binding| wgpu::BindGroupEntry {
            binding,
            resource: parts[binding as usize].as_entire_binding(),
        });
        let layout = &pipeline.get_bind_group_layout(0);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout,
            entries: &entries,
        });
        let query = [0, 0];
        Ok(Self {
            engine,
            features,
            looking,
            picture,
            weights,
            gathered,
            view,
            bound,
            pipeline,
            group,
            query,
        })
    }

    /// Asks something else; its kernels are compiled and proved the first time.
    ///
    /// # Errors
    /// The engine's; what was asked before goes on then.
    pub fn ask(&mut self, ask: Ask) -> Result<()> {
        let Self { looking, features, picture, gathered, weights, .. } = self;
        self.bound = bind(&self.engine, ask, [looking, features, picture, gathered, weights])?;
        Ok(())
    }

    /// Another pixel looks, the nearest of the picture: from the next frame on.
    pub fn look_from(&mut self, [x, y]: [u32; 2]) {
        self.query = [x.min(WIDTH - 1), y.min(HEIGHT - 1)];
    }

    /// The pixel that looks.
    pub fn query(&self) -> [u32; 2] {
        self.query
    }

    /// Records attention, and a draw of what it wrote into a target of `size` pixels.
    pub fn record(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        target: &wgpu::TextureView,
        size: [u32; 2],
    ) {
        let [x, y] = self.query;
        let view = [size[0], size[1], x, y].map(|n| n as f32);
        self.engine.queue().write_buffer(&self.view, 0, bytemuck::cast_slice(&view));
        let row = u64::from(y * WIDTH + x) * ROW;
        encoder.copy_buffer_to_buffer(&self.features, row, &self.looking, 0, ROW);
        self.bound.encode(encoder);
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("picture"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: target,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations::default(),
            })],
            ..Default::default()
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.draw(0..3, 0..1);
    }
}

fn bind(
    engine: &Engine,
    ask: Ask,
    [looking, features, picture, gathered, weights]: [&wgpu::Buffer; 5],
) -> Result<Bound> {
    let plan = engine.plan(&ask.attention())?;
    let tensors = Tensors::new(looking, features, picture, gathered);
    engine.bind(&plan, &tensors.with(Operand::Weights, weights))
}

fn pipeline(device: &wgpu::Device, format: wgpu::TextureFormat) -> wgpu::RenderPipeline {
    let sizes = format!("const WIDTH = {WIDTH}.0;\nconst HEIGHT = {HEIGHT}.0;\n");
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("draw.wgsl"),
        source: wgpu::ShaderSource::Wgsl(Cow::from(sizes + include_str!("draw.wgsl"))),
    });
    device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("picture"),
        layout: None,
        vertex: wgpu::VertexState {
            module: &module,
            entry_point: Some("cover"),
            compilation_options: Default::default(),
            buffers: &[],
        },
        primitive: Default::default(),
        depth_stencil: None,
        multisample: Default::default(),
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: Some("lit"),
            compilation_options: Default::default(),
            targets: &[Some(format.into())],
        }),
        multiview_mask: None,
        cache: None,
    })
}
