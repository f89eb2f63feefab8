//! q and k as they meet: the rotated, projected or normalised rows by themselves.

use crate::device::{self, Wait};
use crate::engine::bound::Recorded;
use crate::engine::{Engine, Tensors};
use crate::error::Result;
use crate::plan::Plan;
use crate::problem::{Attention, Operand};

/// Writes what a call would make of q and k before they meet, in f32 `[batch, heads, seq, dim_qk]`; of packed
/// sequences `[heads, total, dim_qk]`.
#[derive(Debug)]
pub struct PreparedRows {
    recorded: Recorded,
}

impl PreparedRows {
    /// Records the dispatches into the caller's encoder: one compute pass, no submit, no wait.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.recorded.encode(encoder, None);
    }

    /// Records the dispatches into a compute pass of the caller's, whose pipeline and bind group 0 they set.
    ///
    /// # Errors
    /// As [`Bound::encode_pass`](crate::Bound::encode_pass).
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.recorded.encode_pass(pass)
    }

    /// The rows of [`Operand::Q`] or [`Operand::K`]; `None` where the call reads them as they are.
    pub fn rows(&self, operand: Operand) -> Option<&wgpu::Buffer> {
        let found = self.recorded.prepared.iter().find(|(of, _)| *of == operand);
        found.map(|(_, buffer)| buffer)
    }
}

impl Engine {
    /// Ties q and k of a call to what is done to them first: rotary positions for a key cache, for
    /// example. Other tensors are not touched. Blocks the thread while the kernels are tried the first time.
    ///
    /// # Errors
    /// Invalid argument naming the tensor, unsupported where q or k is too large for one binding, out of
    /// memory, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind_rows(&self, attention: &Attention, tensors: &Tensors<'_>) -> Result<PreparedRows> {
        pollster::block_on(self.bind_rows_in(attention, tensors, Wait::Blocking))
    }

    /// `bind_rows` without blocking the thread.
    ///
    /// # Errors
    /// As `bind_rows`.
    pub async fn bind_rows_async(
        &self,
        attention: &Attention,
        tensors: &Tensors<'_>,
    ) -> Result<PreparedRows> {
        self.bind_rows_in(attention, tensors, Wait::Awaiting).await
    }

    async fn bind_rows_in(
        &self,
        attention: &Attention,
        tensors: &Tensors<'_>,
        wait: Wait,
    ) -> Result<PreparedRows> {
        let plan = Plan::for_rows(&attention.validate()?, &self.capabilities)?;
        self.proves_each(&plan, wait).await?;
        let recorded = device::settled(|| Recorded::new(self, &plan, tensors)).await?;
        Ok(PreparedRows { recorded })
    }
}
