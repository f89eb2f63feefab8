//! The plain f32 matrix product on the attention kernels' tile: what the bench measures them against.

use crate::engine::Engine;
use crate::engine::dispatch::{Dispatch, Draft, bind};
use crate::engine::range::BoundRange;
use crate::error::{Error, Result};
use crate::kernel::{Binding, Element, KernelSpec, Params, Width, Work};

/// c = a · b for `batch` independent row-major f32 products, ready to be recorded.
#[derive(Debug)]
pub struct Matmul {
    dispatches: Vec<Dispatch>,
    flops: u64,
}

impl Matmul {
    /// Binds `a` `[batch, m, k]`, `b` `[batch, k, n]` and `c` `[batch, m, n]`.
    ///
    /// # Errors
    /// Invalid argument when a size is 0 or a buffer too small; internal when the driver refuses.
    pub fn new(
        engine: &Engine,
        [batch, m, n, k]: [u32; 4],
        a: &wgpu::Buffer,
        b: &wgpu::Buffer,
        c: &wgpu::Buffer,
    ) -> Result<Self> {
        for (name, size) in [("batch", batch), ("m", m), ("n", n), ("k", k)] {
            if size == 0 || size > 1 << 15 {
                return Err(Error::invalid(name, size, "1..=32768"));
            }
        }
        for (name, buffer, rows, columns) in [("a", a, m, k), ("b", b, k, n), ("c", c, m, n)] {
            let wanted = 4 * u64::from(batch) * u64::from(rows) * u64::from(columns);
            let limit = engine.capabilities.max_binding_bytes;
            if buffer.size() < wanted || buffer.size() > limit {
                let wanted = format!("{wanted}..={limit} B");
                return Err(Error::invalid(format!("{name} buffer size"), buffer.size(), wanted));
            }
        }
        for (name, input) in [("a", a), ("b", b)] {
            if input == c {
                return Err(Error::invalid("c", format!("the buffer of {name}"), "one of its own"));
            }
        }
        let element = |columns: u32| Element {
            width: if columns.is_multiple_of(4) { Width::Vec4 } else { Width::Single },
            ..Element::F32X4
        };
        let spec = KernelSpec::matmul(element(k), element(n), element(n));
        let work = Work { batch, rows: m, columns: n, ..Work::default() };
        let params = Params {
            seq_q: m,
            seq_kv: k,
            dim_v: n,
            q_stride_batch: m * k,
            q_stride_row: k,
            v_stride_batch: k * n,
            v_stride_row: n,
            o_stride_batch: m * n,
            o_stride_row: n,
            ..Params::default()
        };
        let ranges = [(Binding::Q, a), (Binding::V, b), (Binding::O, c)];
        let ranges = ranges.map(|(binding, buffer)| (binding, BoundRange::whole(buffer))).into();
        let draft = Draft::new(spec, work, params, ranges);
        let dispatches = bind(engine, [draft])?;
        let flops = 2 * u64::from(batch) * u64::from(m) * u64::from(n) * u64::from(k);
        Ok(Self { dispatches, flops })
    }

    /// 2 · batch · m · n · k.
    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// Records the product as one compute pass.
    pub fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamps: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("matmul"),
            timestamp_writes: timestamps,
        });
        self.dispatches.iter().for_each(|dispatch| dispatch.record(&mut pass));
    }
}
