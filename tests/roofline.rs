//! What devices are measured by: the kernel for matrix units goes through the compiler on any machine, which panics on
//! some forms of a store, and the matrix product is one.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use heedful::bench::{MATRIX_FORMS, matrix_text};
use heedful::engine::Matmul;
use heedful::kernel::MatrixTile;
use heedful::wgpu;
use naga::back::{msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

fn tile(edge: u32) -> MatrixTile {
    MatrixTile {
        edge,
        team: 32,
        teams: 4,
        blocks: 1,
        keys: 16,
        dim_qk: 64,
        dim_v: 64,
        vectors: true,
        unrolled: true,
    }
}

#[test]
fn every_form_compiles_for_vulkan_and_metal() {
    for (edge, form) in [8, 16].into_iter().flat_map(|edge| MATRIX_FORMS.map(|form| (edge, form))) {
        let text = matrix_text(&tile(edge), form);
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        let allowed = Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX;
        let info = Validator::new(ValidationFlags::all(), allowed)
            .validate(&module)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        let options = spv::Options { lang_version: (1, 3), ..Default::default() };
        let words = spv::write_vec(&module, &info, &options, None);
        assert!(words.is_ok_and(|words| words.len() > 100), "{text}");
        let options = msl::Options { lang_version: (2, 4), ..Default::default() };
        let written = msl::write_string(&module, &info, &options, &Default::default());
        assert!(written.is_ok_and(|(metal, _)| metal.contains("simdgroup")), "{text}");
    }
}

/// The product that attention is measured against is one: every element of it, tails and batches too.
#[test]
fn the_matrix_product_is_right() {
    let Some(engine) = common::gpu::engine("the_matrix_product") else { return };
    for [batch, m, n, k] in [[2, 67, 70, 33], [1, 64, 64, 64], [3, 5, 4, 8]] {
        let value = |i: u32| f32::from((i.wrapping_mul(0x9e37_79b9) >> 24) as u8) / 128.0 - 1.0;
        let a: Vec<f32> = (0..batch * m * k).map(value).collect();
        let b: Vec<f32> = (0..batch * k * n).map(|i| value(i + 7)).collect();
        let buffer = |values: &[f32], usage| {
            let size = 4 * values.len() as u64;
            let descriptor =
                wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            let buffer = engine.device().create_buffer(&descriptor);
            engine.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(values));
            buffer
        };
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC;
        let c = vec![0.0; (batch * m * n) as usize];
        let [of_a, of_b, of_c] = [&a, &b, &c].map(|values| buffer(values, usage));
        let product = Matmul::new(&engine, [batch, m, n, k], &of_a, &of_b, &of_c).unwrap();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        product.encode(&mut encoder, None);
        let map = buffer(&c, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        encoder.copy_buffer_to_buffer(&of_c, 0, &map, 0, map.size());
        engine.queue().submit([encoder.finish()]);
        map.slice(..).map_async(wgpu::MapMode::Read, |mapped| mapped.unwrap());
        engine.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let bytes = map.slice(..).get_mapped_range().unwrap().to_vec();
        let found: &[f32] = bytemuck::cast_slice(&bytes);
        for (i, found) in found.iter().enumerate() {
            let (column, row) = (i as u32 % n, i as u32 / n);
            let (row, z) = (row % m, row / m);
            let term = |l: u32| {
                let (x, y) =
                    (a[((z * m + row) * k + l) as usize], b[((z * k + l) * n + column) as usize]);
                f64::from(x) * f64::from(y)
            };
            let wanted: f64 = (0..k).map(term).sum();
            assert!((f64::from(*found) - wanted).abs() < 1e-4, "{i}: {found}, want {wanted}");
        }
    }
}
