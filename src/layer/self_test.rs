//! The linear layer proves itself on the adapter before it serves, as attention's kernels do.

use crate::device::{self, Readback};
use crate::engine::{Engine, Linear, Rows};
use crate::error::{Rejection, Result};
use crate::kernel::{Element, KernelSpec, MatrixTile, Width};
use crate::tensor::DType;

/// Sizes of the known-answer products: more than a tile and no multiple of it, with and without
/// groups of four.
const SIZES: [[u32; 3]; 2] = [[67, 68, 72], [65, 67, 71]];

impl Engine {
    /// Tries the linear layer the first time a layer is planned: what is wrong with it on this device, if anything.
    ///
    /// # Errors
    /// Device lost; out of memory.
    pub(super) fn linear_is_wrong(&self, matrix: Option<MatrixTile>) -> Result<Option<Rejection>> {
        for sizes in SIZES {
            let four = sizes[1].is_multiple_of(4);
            let width = if four { Width::Vec4 } else { Width::Single };
            let element = Element { width, ..Element::F32X4 };
            let spec = KernelSpec::project([element; 3], true, matrix);
            let verdict = match self.verdicts.of(&spec) {
                Some(verdict) => verdict,
                None => {
                    let verdict = self.known_product(sizes, matrix)?;
                    self.verdicts.set(&spec, verdict.clone());
                    verdict
                }
            };
            if let Some(reason) = verdict {
                return Ok(Some(Rejection { candidate: spec.to_string(), reason }));
            }
        }
        Ok(None)
    }

    /// What is wrong with a small product, if anything.
    fn known_product(
        &self,
        [rows, outputs, inputs]: [u32; 3],
        matrix: Option<MatrixTile>,
    ) -> Result<Option<String>> {
        let values = |salt: u32, n: u32| -> Vec<f64> {
            let value = |i: u32| f64::from((i * 37 + salt * 101) % 64) / 32.0 - 1.0;
            (0..n).map(value).collect()
        };
        let (x, w, b) = (values(1, rows * inputs), values(2, outputs * inputs), values(3, outputs));
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let upload = |values: &[f64]| {
            let bytes = DType::F32.encode(values.iter().copied());
            device::upload(&self.device, "self-test", &bytes, usage)
        };
        let (x_buffer, w_buffer, b_buffer) = (upload(&x)?, upload(&w)?, upload(&b)?);
        let bytes = 4 * u64::from(rows) * u64::from(outputs);
        let y =
            device::create_buffer(&self.device, "self-test", bytes.next_multiple_of(16), usage)?;
        let linear = Linear {
            name: "self-test",
            batch: 1,
            rows,
            inputs,
            outputs,
            x: Rows { view: (&x_buffer).into(), batch_stride: 0 },
            w: (&w_buffer).into(),
            b: Some((&b_buffer).into()),
            y: Rows { view: (&y).into(), batch_stride: 0 },
            matrix,
        };
        let dispatch = match linear.dispatch(self) {
            Ok(dispatch) => dispatch,
            Err(error) if error.is_internal() => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let mut encoder = self.device.create_command_encoder(&Default::default());
        if let Some(dispatch) = &dispatch {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            dispatch.record(&mut pass);
        }
        let back = Readback::record(&self.device, &mut encoder, &y, 0, bytes)?;
        device::scoped(&self.device, "submitting a self-test", 0, || {
            self.queue.submit([encoder.finish()])
        })?;
        let found = DType::F32.decode(&back.read_blocking()?);
        let (inputs, outputs) = (inputs as usize, outputs as usize);
        // Sums of at most 72 products of values of magnitude 1, exact in f16 as multiples of 2^-5, in f32 as multiples of 2^-10.
        let wrong = found.iter().enumerate().position(|(i, y)| {
            let (row, n) = (i / outputs, i % outputs);
            let terms = x[row * inputs..].iter().zip(&w[n * inputs..]).take(inputs);
            *y != terms.map(|(x, w)| x * w).sum::<f64>() + b[n]
        });
        Ok(wrong.map(|i| format!("wrong in the self-test: element {i} is {}", found[i])))
    }
}
