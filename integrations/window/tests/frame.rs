//! A frame without a window: every pixel is what the float64 reference says it is.

use heedful::device::Readback;
use heedful::reference::Inputs;
use heedful::{Engine, Normalizer, wgpu};
use heedful_window::gaze::{Ask, Gaze};
use heedful_window::scene::{self, HEIGHT, PIXELS, WIDTH};

const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

fn device() -> (wgpu::Device, wgpu::Queue) {
    let found = pollster::block_on(Engine::adapters());
    let adapter = found.first().expect("an adapter");
    let opened = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()));
    opened.expect("default limits")
}

/// The bytes of a frame, `[HEIGHT, WIDTH, 4]`.
fn frame(device: &wgpu::Device, queue: &wgpu::Queue, gaze: &Gaze) -> Vec<u8> {
    let size = wgpu::Extent3d { width: WIDTH, height: HEIGHT, depth_or_array_layers: 1 };
    let target = device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size,
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: FORMAT,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
        view_formats: &[],
    });
    let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let bytes = u64::from(4 * PIXELS);
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
    let copy = device.create_buffer(&descriptor);
    let mut encoder = device.create_command_encoder(&Default::default());
    gaze.record(&mut encoder, &target.create_view(&Default::default()), [WIDTH, HEIGHT]);
    let layout = wgpu::TexelCopyBufferLayout {
        offset: 0,
        bytes_per_row: Some(4 * WIDTH),
        rows_per_image: None,
    };
    let to = wgpu::TexelCopyBufferInfo { buffer: &copy, layout };
    encoder.copy_texture_to_buffer(target.as_image_copy(), to, size);
    let read = Readback::record(device, &mut encoder, &copy, 0, bytes).expect("a readback");
    queue.submit([encoder.finish()]);
    read.read_blocking().expect("the frame")
}

/// The same by the reference: what draw.wgsl says, in float64.
fn wanted(ask: Ask, [x, y]: [u32; 2]) -> Vec<f64> {
    let picture: Vec<f64> = scene::picture().into_iter().map(f64::from).collect();
    let features: Vec<f64> =
        scene::features(&scene::picture()).into_iter().map(f64::from).collect();
    let row = (scene::CHANNELS * (y * WIDTH + x)) as usize;
    let q = &features[row..row + scene::CHANNELS as usize];
    let inputs = Inputs { q, k: &features, v: &picture, operands: Default::default() };
    let problem = ask.attention().validate().expect("a call");
    let outputs = problem.reference(&inputs).expect("attention");
    let weights = outputs.weights.expect("weights");
    let pixel = |i: u32| {
        let (column, line) = (i % WIDTH, i / WIDTH);
        let off = column.abs_diff(x).max(line.abs_diff(y));
        if off == 2 {
            return [1.0; 3];
        }
        if column < 10 && line < 10 {
            return [outputs.o[0], outputs.o[1], outputs.o[2]];
        }
        let look = weights[i as usize] * f64::from(PIXELS);
        let light = look / (1.0 + look);
        [0, 1, 2].map(|channel| {
            picture[4 * i as usize + channel] * (0.15 + 0.85 * light)
                + [0.2, 0.1, 0.0][channel] * light
        })
    };
    (0..PIXELS).flat_map(pixel).collect()
}

#[test]
fn every_pixel_is_lit_as_the_reference_looks() {
    let (device, queue) = device();
    let soft = Ask { scale: 60.0, normalizer: Normalizer::Softmax };
    let mut gaze = Gaze::new(&device, &queue, FORMAT, soft).expect("a gaze");
    let sharp = Ask { scale: 20.0, normalizer: Normalizer::Sparsemax };
    let mut frames = Vec::new();
    for (ask, query) in [(soft, [92, 19]), (soft, [30, 88]), (sharp, [30, 88]), (soft, [92, 19])] {
        gaze.ask(ask).expect("a call");
        gaze.look_from(query);
        let found = frame(&device, &queue, &gaze);
        for (i, (found, wanted)) in found.chunks(4).zip(wanted(ask, query).chunks(3)).enumerate() {
            for (found, wanted) in found.iter().zip(wanted) {
                let wanted = (wanted.clamp(0.0, 1.0) * 255.0).round();
                assert!((f64::from(*found) - wanted).abs() <= 1.0, "{i}: {found}, not {wanted}");
            }
        }
        frames.push(found);
    }
    assert!(frames[0] != frames[1] && frames[1] != frames[2], "what is asked shows");
    assert_eq!(frames[0], frames[3], "the same question, the same frame");
}

#[test]
fn pointers_beyond_the_picture_are_at_its_edge() {
    let (device, queue) = device();
    let ask = Ask { scale: 60.0, normalizer: Normalizer::Softmax };
    let mut gaze = Gaze::new(&device, &queue, FORMAT, ask).expect("a gaze");
    gaze.look_from([5000, 5000]);
    assert_eq!(gaze.query(), [WIDTH - 1, HEIGHT - 1]);
    let refused = gaze.ask(Ask { scale: f32::NAN, ..ask }).expect_err("an error").to_string();
    assert!(refused.contains("scale"), "{refused}");
}
