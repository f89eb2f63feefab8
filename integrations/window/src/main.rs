//! The window: the pointer chooses who looks, the wheel how sharply, space how likeness becomes weights.
//!
//! `cargo run --release` in this folder.

use std::error::Error;
use std::sync::Arc;

use heedful::{Normalizer, wgpu};
use heedful_window::gaze::{Ask, Gaze};
use heedful_window::scene::{HEIGHT, WIDTH};
use winit::application::ApplicationHandler;
use winit::dpi::LogicalSize;
use winit::event::{ElementState, MouseScrollDelta, WindowEvent};
use winit::event_loop::{ActiveEventLoop, EventLoop};
use winit::keyboard::{Key, NamedKey};
use winit::window::{Window, WindowId};

/// What space goes through.
const NORMALIZERS: [Normalizer; 3] =
    [Normalizer::Softmax, Normalizer::Sparsemax, Normalizer::Entmax15];

fn main() -> Result<(), Box<dyn Error>> {
    let events = EventLoop::new()?;
    let mut app = App { view: None, ask: Ask { scale: 60.0, normalizer: NORMALIZERS[0] } };
    events.run_app(&mut app)?;
    Ok(())
}

struct App {
    view: Option<View>,
    ask: Ask,
}

/// A window, and what draws into it.
struct View {
    window: Arc<Window>,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    device: wgpu::Device,
    queue: wgpu::Queue,
    gaze: Gaze,
}

impl ApplicationHandler for App {
    fn resumed(&mut self, events: &ActiveEventLoop) {
        if self.view.is_some() {
            return;
        }
        match pollster::block_on(View::open(events, self.ask)) {
            Ok(view) => self.view = Some(view),
            Err(error) => {
                eprintln!("{error}");
                events.exit();
            }
        }
    }

    fn window_event(&mut self, events: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        let Some(view) = &mut self.view else { return };
        let done = match event {
            WindowEvent::CloseRequested => {
                events.exit();
                Ok(())
            }
            WindowEvent::Resized(size) => {
                (view.config.width, view.config.height) = (size.width.max(1), size.height.max(1));
                view.surface.configure(&view.device, &view.config);
                Ok(())
            }
            WindowEvent::CursorMoved { position, .. } => {
                let place = |at: f64, screen: u32, pixels: u32| {
                    (at.max(0.0) / f64::from(screen) * f64::from(pixels)) as u32
                };
                let x = place(position.x, view.config.width, WIDTH);
                let y = place(position.y, view.config.height, HEIGHT);
                view.gaze.look_from([x, y]);
                Ok(())
            }
            WindowEvent::MouseWheel { delta, .. } => {
                let turns = match delta {
                    MouseScrollDelta::LineDelta(_, lines) => lines,
                    MouseScrollDelta::PixelDelta(pixels) => pixels.y as f32 / 40.0,
                };
                self.ask.scale = (self.ask.scale * 1.2_f32.powf(turns)).clamp(1.0, 1000.0);
                view.gaze.ask(self.ask)
            }
            WindowEvent::KeyboardInput { event, .. } if event.state == ElementState::Pressed => {
                match event.logical_key {
                    Key::Named(NamedKey::Space) => {
                        let now = NORMALIZERS.iter().position(|n| *n == self.ask.normalizer);
                        let next = now.map_or(0, |now| (now + 1) % NORMALIZERS.len());
                        self.ask.normalizer = NORMALIZERS[next];
                        view.gaze.ask(self.ask)
                    }
                    Key::Named(NamedKey::Escape) => {
                        events.exit();
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            WindowEvent::RedrawRequested => {
                view.draw();
                return;
            }
            _ => return,
        };
        if let Err(error) = done {
            eprintln!("{error}");
        }
        view.name(&self.ask);
        view.window.request_redraw();
    }
}

impl View {
    async fn open(events: &ActiveEventLoop, ask: Ask) -> Result<Self, Box<dyn Error>> {
        let size = LogicalSize::new(6 * WIDTH, 6 * HEIGHT);
        let window = Window::default_attributes().with_inner_size(size);
        let window = Arc::new(events.create_window(window)?);
        let display = Box::new(events.owned_display_handle());
        let instance = wgpu::InstanceDescriptor::new_with_display_handle_from_env(display);
        let instance = wgpu::Instance::new(instance);
        let surface = instance.create_surface(window.clone())?;
        let options = wgpu::RequestAdapterOptions {
            compatible_surface: Some(&surface),
            ..Default::default()
        };
        let adapter = instance.request_adapter(&options).await?;
        // Default limits and no features: what any application has.
        let (device, queue) = adapter.request_device(&wgpu::DeviceDescriptor::default()).await?;
        let size = window.inner_size();
        let config = surface.get_default_config(&adapter, size.width.max(1), size.height.max(1));
        let mut config = config.ok_or("this adapter cannot draw into this window")?;
        // The picture's numbers are what is shown.
        config.format = config.format.remove_srgb_suffix();
        surface.configure(&device, &config);
        let gaze = Gaze::new(&device, &queue, config.format, ask)?;
        let view = Self { window, surface, config, device, queue, gaze };
        view.name(&ask);
        Ok(view)
    }

    fn name(&self, ask: &Ask) {
        let [x, y] = self.gaze.query();
        let (weights, scale) = (ask.normalizer.name(), ask.scale);
        self.window.set_title(&format!("heedful: pixel {x}, {y} looks by {weights} × {scale:.0}"));
    }

    fn draw(&self) {
        use wgpu::CurrentSurfaceTexture as Current;
        let texture = match self.surface.get_current_texture() {
            Current::Success(texture) => texture,
            // Of another size, or lost: once more after it is configured anew.
            Current::Suboptimal(_) | Current::Outdated | Current::Lost => {
                self.surface.configure(&self.device, &self.config);
                self.window.request_redraw();
                return;
            }
            _ => return,
        };
        let target = texture.texture.create_view(&Default::default());
        let mut encoder = self.device.create_command_encoder(&Default::default());
        self.gaze.record(&mut encoder, &target, [self.config.width, self.config.height]);
        self.queue.submit([encoder.finish()]);
        self.queue.present(texture);
    }
}
