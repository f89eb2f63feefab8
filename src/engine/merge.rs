//! Results of one call over parts of its keys, joined on the GPU.

use crate::engine::bound::Dispatch;
use crate::engine::linear::one_compiled;
use crate::engine::{BufferView, Engine};
use crate::error::{Error, Result};
use crate::kernel::{Binding, Element, KernelSpec, Params, Width};
use crate::tensor::{DType, MAX_DIM};

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
pub struct Merge(Option<Dispatch>);

impl Merge {
    /// Records the merge into the caller's encoder: one compute pass, no submit, no wait.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let Some(dispatch) = &self.0 else { return };
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("merge states"),
            timestamp_writes: None,
        });
        dispatch.record(&mut pass);
    }
}

impl Engine {
    /// Ties a merge to buffers: `parts_o` `[parts, rows, dim_v]` and `parts_lse` `[parts, rows]` (f32) become `o`
    /// `[rows, dim_v]` and `lse` `[rows]` (f32), all without gaps. What is written lies in buffers of its own.
    ///
    /// # Errors
    /// Invalid argument naming the size or tensor; out of memory; internal.
    pub fn bind_merge(
        &self,
        merge: &MergeStates,
        [parts_o, parts_lse]: [BufferView<'_>; 2],
        [o, lse]: [BufferView<'_>; 2],
    ) -> Result<Merge> {
        let MergeStates { parts, rows, dim_v, dtype } = *merge;
        if parts == 0 || parts > 1 << 16 {
            return Err(Error::invalid("parts", parts, "1..=2^16"));
        }
        if dim_v == 0 || dim_v > MAX_DIM {
            return Err(Error::invalid("dim_v", dim_v, format!("1..={MAX_DIM}")));
        }
        if rows == 0 {
            return Ok(Merge(None));
        }
        for (name, output, others) in
            [("o", o, [lse, parts_o, parts_lse]), ("lse", lse, [o, parts_o, parts_lse])]
        {
            if others.iter().any(|other| other.buffer == output.buffer) {
                return Err(Error::invalid(
                    name,
                    "the buffer of another tensor",
                    "a buffer of its own",
                ));
            }
        }
        let [all, columns] = [u64::from(parts) * u64::from(rows), u64::from(dim_v)];
        let (source, q_base) = self.bound_view("parts_o", parts_o, all * columns, dtype.bytes())?;
        let (states, bias_base) = self.bound_view("parts_lse", parts_lse, all, 4)?;
        let elements = u64::from(rows) * columns;
        let (target, o_base) = self.bound_view("o", o, elements, dtype.bytes())?;
        let (totals, lse_base) = self.bound_view("lse", lse, rows.into(), 4)?;
        let element = |base: u32| Element {
            storage: dtype.into(),
            native_f16: dtype == DType::F16 && self.capabilities.shader_f16,
            width: if dim_v.is_multiple_of(4) && base.is_multiple_of(4) {
                Width::Vec4
            } else {
                Width::Single
            },
        };
        let spec = KernelSpec::merge_states(element(q_base), element(o_base));
        let pipeline = self.pipelines.get(&self.device, &spec)?;
        let params = Params {
            split_n: parts,
            row_n: rows,
            dim_v,
            q_base,
            bias_base,
            o_base,
            lse_base,
            minus_infinity: f32::NEG_INFINITY.to_bits(),
            ..Params::default()
        };
        let entries = [
            (Binding::Q, source.binding()),
            (Binding::Bias, states.binding()),
            (Binding::O, target.binding()),
            (Binding::Lse, totals.binding()),
        ];
        let grid = [rows.min(65_535), rows.div_ceil(65_535), 1];
        one_compiled(&self.device, pipeline, &params, &entries, grid).map(|x| Merge(Some(x)))
    }
}
