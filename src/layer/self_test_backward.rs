//! The kernels of a layer's gradients prove themselves on the adapter before they serve, as those of the layer do.

use crate::device::{self, Wait};
use crate::engine::{Engine, LinearBackward, Rows, bind};
use crate::error::{Error, Rejection, Result};
use crate::kernel::{Element, KernelSpec, Width};
use crate::tensor::DType;

/// Sequences, rows, outputs and inputs of the known-answer layers: more than a tile and no multiple of it, with and
/// without groups of four.
const SIZES: [[u32; 4]; 2] = [[2, 67, 68, 72], [2, 65, 67, 71]];

/// What a kernel makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Input,
    Matrix,
    Vector,
}

/// What a known-answer layer is given: gradients of its outputs, its inputs, its matrix, and what was there before.
struct Numbers<'a> {
    sizes: [u32; 4],
    d: &'a [f64],
    x: &'a [f64],
    w: &'a [f64],
    before: &'a [f64],
}

impl Numbers<'_> {
    /// Element i of a gradient: sums of at most 134 products of multiples of 2^-5 below 1, which are exact in f32.
    fn wanted(&self, of: Of, i: u32) -> f64 {
        let [batch, rows, outputs, inputs] = self.sizes;
        let all_rows = (0..batch).flat_map(|z| (0..rows).map(move |row| [z, row]));
        let of_row = |values: &[f64], width: u32, [z, row]: [u32; 2], n: u32| {
            values[(z * stride(rows, width) + row * width + n) as usize]
        };
        let d_at = |at, n| of_row(self.d, outputs, at, n);
        let x_at = |at, c| of_row(self.x, inputs, at, c);
        let (row, c) = (i / inputs, i % inputs);
        match of {
            Of::Input => {
                let at = [row / rows, row % rows];
                let term = |n: u32| d_at(at, n) * self.w[(n * inputs + c) as usize];
                self.before[i as usize] + (0..outputs).map(term).sum::<f64>()
            }
            Of::Matrix => all_rows.map(|at| d_at(at, row) * x_at(at, c)).sum(),
            Of::Vector => all_rows.map(|at| d_at(at, i)).sum(),
        }
    }
}

/// Elements between sequences, which lie apart so that none is joined to the next.
fn stride(rows: u32, width: u32) -> u32 {
    rows * width + 8
}

impl Engine {
    /// Tries the kernels of a layer's gradients the first time some are planned: what is wrong with them on this
    /// device, if anything.
    ///
    /// # Errors
    /// Device lost; out of memory.
    pub(super) async fn linear_backward_is_wrong(&self, wait: Wait) -> Result<Option<Rejection>> {
        for sizes in SIZES {
            let four = sizes[2].is_multiple_of(4);
            let width = if four { Width::Vec4 } else { Width::Single };
            let element = Element { width, ..Element::F32X4 };
            for (of, spec) in [
                (Of::Input, KernelSpec::backward_project([element; 3])),
                (Of::Matrix, KernelSpec::backward_matrix(element, element)),
                (Of::Vector, KernelSpec::backward_columns()),
            ] {
                let wrong = self.tried(&spec, self.known_gradient(sizes, of, wait)).await?;
                if wrong.is_some() {
                    return Ok(wrong);
                }
            }
        }
        Ok(None)
    }

    /// What is wrong with a small gradient, if anything.
    async fn known_gradient(&self, sizes: [u32; 4], of: Of, wait: Wait) -> Result<Option<String>> {
        let [batch, rows, outputs, inputs] = sizes;
        let values = |salt: u32, n: u32| -> Vec<f64> {
            let value = |i: u32| f64::from((i * 37 + salt * 101) % 64) / 32.0 - 1.0;
            (0..n).map(value).collect()
        };
        let n = batch * rows;
        let [d_stride, x_stride] = [outputs, inputs].map(|width| stride(rows, width));
        let (d, x) = (values(1, batch * d_stride), values(2, batch * x_stride));
        let w = values(3, outputs * inputs);
        let before = values(4, n * inputs);
        let elements = match of {
            Of::Input => n * inputs,
            Of::Matrix => outputs * inputs,
            Of::Vector => outputs,
        };
        let work = || {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            let upload = |values: &[f64]| {
                let bytes = DType::F32.encode(values.iter().copied());
                device::upload(&self.device, "self-test", &bytes, usage)
            };
            let (d, x, w) = (upload(&d)?, upload(&x)?, upload(&w)?);
            let to = upload(&before)?;
            let linear = LinearBackward {
                name: "self-test",
                batch,
                rows,
                inputs,
                outputs,
                d_y: Rows { view: (&d).into(), batch_stride: d_stride.into() },
                x: Rows { view: (&x).into(), batch_stride: x_stride.into() },
                w: (&w).into(),
                d_x: (of == Of::Input).then_some(((&to).into(), true)),
                d_w: (of == Of::Matrix).then_some((&to).into()),
                d_b: (of == Of::Vector).then_some((&to).into()),
            };
            let bytes = 4 * u64::from(elements);
            self.tried_once(&bind(self, linear.drafts(self)?)?, &to, 0..bytes)
        };
        let back = device::settled(work).await?;
        let found = DType::F32.decode(&back.get(wait).await?);
        let numbers = Numbers { sizes, d: &d, x: &x, w: &w, before: &before };
        if found.len() < elements as usize {
            return Err(Error::internal("the self-test", "fewer elements than were asked for"));
        }
        let wrong = (0..elements).find(|i| found[*i as usize] != numbers.wanted(of, *i));
        let told = |i: u32| format!("wrong in the self-test: element {i} is {}", found[i as usize]);
        Ok(wrong.map(told))
    }
}
