//! Results of one call over parts of its keys, joined on the GPU.

use std::fmt;

use crate::device::{self, Readback, Wait};
use crate::engine::apart::{Extent, check_apart};
use crate::engine::dispatch::{Dispatch, Draft, bind, show};
use crate::engine::{BufferView, Engine};
use crate::error::{Error, Result};
use crate::kernel::{Binding, Element, KernelSpec, PARTS_LSE_BASE, Params, SPLIT_N, Width, Work};
use crate::reference::merge_states;
use crate::tensor::{DType, Shape};

/// Which partial results are joined.
///
/// lse = ln Σ exp(lse_p), o = Σ exp(lse_p − lse) o_p ([`reference::merge_states`](crate::reference::merge_states)), in
/// the order of the parts: what an application needs that splits keys over devices or over time. A part whose lse
/// is −∞ saw nothing and changes nothing. A sink belongs into one part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MergeStates {
    /// Parts, each of all rows.
    pub parts: u32,
    /// Rows: batch · heads_q · seq_q of the calls.
    pub rows: u32,
    /// Channels of o.
    pub dim_v: u32,
    /// Element type of o, of the parts and of the whole.
    pub dtype: DType,
}

/// A merge tied to buffers, ready to be recorded any number of times.
#[derive(Debug)]
pub struct Merge(Vec<Dispatch>);

impl Merge {
    /// Records the merge into the caller's encoder: one compute pass, no submit, no wait.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("merge states"),
            timestamp_writes: None,
        });
        self.encode_pass(&mut pass);
    }

    /// Records the merge into a compute pass of the caller's, whose pipeline and bind group 0 it sets.
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.0.iter().for_each(|dispatch| dispatch.record(pass));
    }
}

/// What is recorded, a line for each dispatch: its kernel, its workgroups, and the bytes of each buffer that it
/// binds.
impl fmt::Display for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl Engine {
    /// Ties a merge to buffers: `parts_o` `[parts, rows, dim_v]` and `parts_lse` `[parts, rows]` (f32) become `o`
    /// `[rows, dim_v]` and `lse` `[rows]` (f32), all without gaps. What is written shares no byte
    /// with anything else; all may lie in one buffer. Blocks the thread while the kernel is tried the first time.
    ///
    /// # Errors
    /// Invalid argument naming the size or tensor; unsupported where the kernel is wrong on this device; out of
    /// memory; internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind_merge(
        &self,
        merge: &MergeStates,
        parts: [BufferView<'_>; 2],
        whole: [BufferView<'_>; 2],
    ) -> Result<Merge> {
        pollster::block_on(self.bind_merge_in(merge, parts, whole, Wait::Blocking))
    }

    /// `bind_merge` without blocking the thread.
    ///
    /// # Errors
    /// As `bind_merge`.
    pub async fn bind_merge_async(
        &self,
        merge: &MergeStates,
        parts: [BufferView<'_>; 2],
        whole: [BufferView<'_>; 2],
    ) -> Result<Merge> {
        self.bind_merge_in(merge, parts, whole, Wait::Awaiting).await
    }

    async fn bind_merge_in(
        &self,
        merge: &MergeStates,
        parts: [BufferView<'_>; 2],
        whole: [BufferView<'_>; 2],
        wait: Wait,
    ) -> Result<Merge> {
        self.check_queue()?;
        for wide in [false, true] {
            self.proves_merge(merge.dtype, wide, wait).await?;
        }
        device::settled(|| self.bind_unproved_merge(merge, parts, whole)).await
    }

    fn bind_unproved_merge(
        &self,
        merge: &MergeStates,
        [parts_o, parts_lse]: [BufferView<'_>; 2],
        [o, lse]: [BufferView<'_>; 2],
    ) -> Result<Merge> {
        let MergeStates { parts, rows, dim_v, dtype } = *merge;
        if parts == 0 || parts > 1 << 16 {
            return Err(Error::invalid("parts", parts, "1..=2^16"));
        }
        if dim_v == 0 || dim_v > Shape::MAX_DIM {
            return Err(Error::invalid("dim_v", dim_v, format!("1..={}", Shape::MAX_DIM)));
        }
        if rows == 0 {
            return Ok(Merge(Vec::new()));
        }
        let [all, columns] = [u64::from(parts) * u64::from(rows), u64::from(dim_v)];
        let (source, q_base) = self.bound_view("parts_o", parts_o, all * columns, dtype.bytes())?;
        let (states, lse_from) = self.bound_view("parts_lse", parts_lse, all, 4)?;
        let elements = u64::from(rows) * columns;
        let (target, o_base) = self.bound_view("o", o, elements, dtype.bytes())?;
        let (totals, lse_base) = self.bound_view("lse", lse, rows.into(), 4)?;
        check_apart(&[
            Extent::read("parts_o", parts_o, all * columns * dtype.bytes()),
            Extent::read("parts_lse", parts_lse, all * 4),
            Extent::written("o", o, elements * dtype.bytes()),
            Extent::written("lse", lse, u64::from(rows) * 4),
        ])?;
        let wide = [dim_v, q_base, o_base].iter().all(|n| n.is_multiple_of(4));
        let spec = self.merge_spec(dtype, wide);
        let params = Params {
            row_n: rows,
            dim_v,
            q_base,
            o_base,
            lse_base,
            minus_infinity: f32::NEG_INFINITY.to_bits(),
            ..Params::default()
        };
        let params = params.with([SPLIT_N.is(parts), PARTS_LSE_BASE.is(lse_from)]);
        let ranges = vec![
            (Binding::Q, source),
            (Binding::PartsLse, states),
            (Binding::O, target),
            (Binding::Lse, totals),
        ];
        let work = Work { rows, ..Work::default() };
        let buffers = [("parts_o", parts_o), ("parts_lse", parts_lse), ("o", o), ("lse", lse)];
        let buffers = buffers.map(|(name, view)| (name, view.buffer));
        let draft = Draft::new(spec, work, params, ranges);
        Ok(Merge(device::named(bind(self, [draft]), &self.device, &buffers)?))
    }

    fn merge_spec(&self, dtype: DType, wide: bool) -> KernelSpec {
        let element = Element {
            storage: dtype.into(),
            native_f16: dtype == DType::F16 && self.capabilities.shader_f16,
            width: if wide { Width::Vec4 } else { Width::Single },
        };
        KernelSpec::merge_states(element, element)
    }

    /// Tries the kernel the first time it is bound.
    async fn proves_merge(&self, dtype: DType, wide: bool, wait: Wait) -> Result<()> {
        let spec = self.merge_spec(dtype, wide);
        let trial = self.known_merge(dtype, if wide { 8 } else { 7 }, wait);
        match self.tried(&spec, trial).await? {
            None => Ok(()),
            Some(rejection) => Err(Error::unsupported("merging partial results", vec![rejection])),
        }
    }

    /// Joins three known parts of two rows, one of which saw nothing; says what is wrong with the result.
    async fn known_merge(&self, dtype: DType, dim_v: u32, wait: Wait) -> Result<Option<String>> {
        let n = 6 * dim_v;
        let parts_o: Vec<f64> = (0..n).map(|i| f64::from(i * 37 % 64) / 32.0 - 1.0).collect();
        let parts_lse = [0.5, -3.0, f64::NEG_INFINITY, 2.0, 1.5, f64::NEG_INFINITY];
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let upload = |dtype: DType, values: &[f64]| {
            let bytes = dtype.encode(values.iter().copied());
            device::upload(&self.device, "self-test", &bytes, usage)
        };
        let work = || {
            let (from, states) = (upload(dtype, &parts_o)?, upload(DType::F32, &parts_lse)?);
            let o = upload(dtype, &vec![0.0; 2 * dim_v as usize])?;
            let lse = upload(DType::F32, &[0.0; 2])?;
            let merge = MergeStates { parts: 3, rows: 2, dim_v, dtype };
            let inputs = [(&from).into(), (&states).into()];
            let bound = self.bind_unproved_merge(&merge, inputs, [(&o).into(), (&lse).into()])?;
            let mut encoder = self.device.create_command_encoder(&Default::default());
            bound.encode(&mut encoder);
            let o = Readback::record(&self.device, &mut encoder, &o, 0, o.size())?;
            let lse = Readback::record(&self.device, &mut encoder, &lse, 0, lse.size())?;
            device::scoped(&self.device, "submitting a self-test", 0, || {
                self.queue.submit([encoder.finish()])
            })?;
            Ok([o, lse])
        };
        let [o, lse] = device::settled(work).await?;
        let mut found = dtype.decode(&o.get(wait).await?);
        found.truncate(2 * dim_v as usize);
        found.extend(&DType::F32.decode(&lse.get(wait).await?)[..2]);
        let (mut wanted, wanted_lse) = merge_states(&parts_o, &parts_lse, 3, dim_v as usize);
        wanted.extend(wanted_lse);
        // Far above the rounding of bf16, far below what a wrong index does.
        let off = found.iter().zip(&wanted).position(|(x, e)| (x - e).abs() > 0.02 || x.is_nan());
        Ok(off.map(|i| format!("wrong in the self-test: {:e}, want {:e}", found[i], wanted[i])))
    }
}
