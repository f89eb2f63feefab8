//! What the examples share: the device, numbers that are the same in every run, a bar of progress, pictures in text.
#![allow(dead_code, reason = "each example takes what it needs")]

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};
use indicatif::{ProgressBar, ProgressStyle};

/// The one device of the process, with gradients; `None` where there is no adapter, after saying how to get one.
pub(crate) fn device() -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let open = || match heedful_burn::open(Device::wgpu_options()) {
        Ok(device) => Some(device.autodiff()),
        Err(error) => {
            eprintln!("{error}");
            eprintln!(
                "A GPU's driver is needed, or a processor's: on Debian and Ubuntu, mesa-vulkan-drivers."
            );
            None
        }
    };
    DEVICE.get_or_init(open).clone()
}

/// The same numbers in every run (splitmix64).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From −1 to 1.
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// From 0 to n − 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.next() + 1.0) / 2.0 * n as f32) as usize % n
    }

    /// Normally distributed.
    pub(crate) fn normal(&mut self) -> f32 {
        let (u, angle) = ((self.next() + 1.0) / 2.0, self.next() * std::f32::consts::PI);
        (-2.0 * u.max(1e-7).ln()).sqrt() * angle.cos()
    }

    /// A tensor of the device, from −1 to 1.
    pub(crate) fn tensor_on<const D: usize>(
        &mut self,
        shape: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| self.next()).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

/// A bar that shows how far training is, with a message: the loss, as a rule. Silent where nobody looks.
pub(crate) fn bar(name: &str, steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:<24} {bar:30} {pos:>4}/{len} {msg}");
    let bar = ProgressBar::new(steps as u64).with_prefix(name.to_string());
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

/// Numbers from 0 to `most` as a picture: rows down, columns across, each with its name.
pub(crate) fn map(rows: &[String], columns: &[String], values: &[f32], most: f32) {
    let shades = [' ', '·', '░', '▒', '▓', '█'];
    let widest = rows.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let wide: Vec<usize> = columns.iter().map(|name| name.chars().count().max(2) + 1).collect();
    print!("{:widest$} ", "");
    columns.iter().zip(&wide).for_each(|(name, wide)| print!("{name:<wide$}"));
    println!();
    for (name, row) in rows.iter().zip(values.chunks(columns.len())) {
        print!("{name:>widest$} ");
        for (value, wide) in row.iter().zip(&wide) {
            let shade = (value / most * 5.0).round().clamp(0.0, 5.0) as usize;
            print!("{:<wide$}", String::from_iter([shades[shade]; 2]));
        }
        println!();
    }
}
