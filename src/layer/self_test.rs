//! The linear layer proves itself on the adapter before it serves, as attention's kernels do.

use crate::device::{self, Wait};
use crate::engine::{Engine, Linear, Rows, average, bind};
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
    pub(super) async fn linear_is_wrong(
        &self,
        matrix: Option<MatrixTile>,
        wait: Wait,
    ) -> Result<Option<Rejection>> {
        for sizes in SIZES {
            let four = sizes[1].is_multiple_of(4);
            let width = if four { Width::Vec4 } else { Width::Single };
            let element = Element { width, ..Element::F32X4 };
            let spec = KernelSpec::project([element; 3], true, matrix);
            let wrong = self.tried(&spec, self.known_product(sizes, matrix, wait)).await?;
            if wrong.is_some() {
                return Ok(wrong);
            }
        }
        Ok(None)
    }

    /// Tries the average over heads the first time a layer that needs it is planned: what is wrong with it,
    /// if anything.
    ///
    /// # Errors
    /// Device lost; out of memory.
    pub(super) async fn average_is_wrong(&self, wait: Wait) -> Result<Option<Rejection>> {
        self.tried(&KernelSpec::average(), self.known_average(wait)).await
    }

    /// What is wrong with a small average, if anything: two sequences of three heads of more elements than a
    /// workgroup has.
    async fn known_average(&self, wait: Wait) -> Result<Option<String>> {
        let (batch, heads, elements) = (2, 3, 67_usize);
        let x: Vec<f64> =
            (0..batch * heads * elements).map(|i| f64::from((i * 37 % 64) as u32) * 3.0).collect();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let bytes = 4 * (batch * elements) as u64;
        let work = || {
            let from = DType::F32.encode(x.iter().copied());
            let from = device::upload(&self.device, "self-test", &from, usage)?;
            let to = device::create_buffer(&self.device, "self-test", bytes, usage)?;
            let sizes = [batch as u32, heads as u32];
            let draft = average(self, sizes, elements as u64, &from, (&to).into())?;
            self.tried_once(&bind(self, draft)?, &to, 0..bytes)
        };
        let back = device::settled(work).await?;
        let found = DType::F32.decode(&back.get(wait).await?);
        // Means of three multiples of 3: whole numbers up to the division's last bit.
        let wanted = |i: usize| {
            let (sequence, at) = (i / elements, i % elements);
            (0..heads).map(|h| x[(sequence * heads + h) * elements + at]).sum::<f64>() / 3.0
        };
        let near = |i: usize| found.get(i).is_some_and(|x| (x - wanted(i)).abs() <= 1e-4);
        let off = (0..batch * elements).find(|&i| !near(i));
        Ok(off.map(|i| format!("wrong in the self-test: element {i}, want {}", wanted(i))))
    }

    /// What is wrong with a small product, if anything.
    async fn known_product(
        &self,
        [rows, outputs, inputs]: [u32; 3],
        matrix: Option<MatrixTile>,
        wait: Wait,
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
        let bytes = 4 * u64::from(rows) * u64::from(outputs);
        let work = || {
            let (x, w, b) = (upload(&x)?, upload(&w)?, upload(&b)?);
            let size = bytes.next_multiple_of(16);
            let y = device::create_buffer(&self.device, "self-test", size, usage)?;
            let linear = Linear {
                name: "self-test",
                batch: 1,
                rows,
                inputs,
                outputs,
                x: Rows { view: (&x).into(), batch_stride: 0 },
                w: (&w).into(),
                b: Some((&b).into()),
                y: Rows { view: (&y).into(), batch_stride: 0 },
                matrix,
            };
            self.tried_once(&bind(self, linear.draft(self)?)?, &y, 0..bytes)
        };
        let back = device::settled(work).await?;
        let found = DType::F32.decode(&back.get(wait).await?);
        let (inputs, outputs) = (inputs as usize, outputs as usize);
        // Sums of at most 72 products of values of magnitude 1, exact in f16 as multiples of 2^-5, in f32 as multiples
        // of 2^-10.
        let wrong = found.iter().enumerate().position(|(i, y)| {
            let (row, n) = (i / outputs, i % outputs);
            let terms = x[row * inputs..].iter().zip(&w[n * inputs..]).take(inputs);
            *y != terms.map(|(x, w)| x * w).sum::<f64>() + b[n]
        });
        Ok(wrong.map(|i| format!("wrong in the self-test: element {i} is {}", found[i])))
    }
}
