//! Block tables built on the GPU.

use crate::device::{self, Wait};
use crate::engine::bound::Recorded;
use crate::engine::{BufferView, Engine, Table, Tensors};
use crate::error::Result;
use crate::feature::mask::{Blocks, Mask, Masks};
use crate::plan::Plan;
use crate::problem::Attention;

/// Builds the block table of a call from masks that live on the GPU.
///
/// The table stays on the GPU, in a buffer of its own; build it once and hand it to any number of
/// calls with the same masks.
#[derive(Debug)]
pub struct BlockBuilder {
    recorded: Recorded,
}

impl BlockBuilder {
    /// Records the build into the caller's encoder: one compute pass, no submit, no wait.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.recorded.encode(encoder, None);
    }

    /// Records the build into a compute pass of the caller's, whose pipeline and bind group 0 it sets.
    ///
    /// # Errors
    /// As [`Bound::encode_pass`](crate::Bound::encode_pass).
    pub fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.recorded.encode_pass(pass)
    }

    /// The table, for [`Tensors::blocks`] of calls that are recorded after the build.
    pub fn table(&self) -> Table<'_> {
        let offset = self.recorded.block_offset;
        Table::Buffer(BufferView { buffer: &self.recorded.aux, offset })
    }
}

impl Engine {
    /// Prepares to build a block table for `attention` from its boolean mask, its bias (where −∞ masks),
    /// its segments and its own mask functions, as far as it has them. Lengths, causality and windows
    /// are left out, since kernels skip what they rule out anyway. One table serves all sequences, or
    /// all heads, where `blocks` says so; it is then built from the masks of the first.
    ///
    /// `tensors` are those of the call; its table of blocks, if any, is not looked at. Blocks the thread
    /// while the kernel is tried the first time.
    ///
    /// # Errors
    /// Invalid argument naming the tensor or the blocks, unsupported where the masks must be bound in
    /// parts that no multiple of the blocks' rows fits, out of memory, internal.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind_blocks(
        &self,
        attention: &Attention,
        blocks: Blocks,
        tensors: &Tensors<'_>,
    ) -> Result<BlockBuilder> {
        pollster::block_on(self.bind_blocks_in(attention, blocks, tensors, Wait::Blocking))
    }

    /// `bind_blocks` without blocking the thread.
    ///
    /// # Errors
    /// As `bind_blocks`.
    pub async fn bind_blocks_async(
        &self,
        attention: &Attention,
        blocks: Blocks,
        tensors: &Tensors<'_>,
    ) -> Result<BlockBuilder> {
        self.bind_blocks_in(attention, blocks, tensors, Wait::Awaiting).await
    }

    async fn bind_blocks_in(
        &self,
        attention: &Attention,
        blocks: Blocks,
        tensors: &Tensors<'_>,
        wait: Wait,
    ) -> Result<BlockBuilder> {
        let masks = Masks { blocks: None, ..attention.masks };
        let problem = Attention { masks, ..attention.clone() }.validate()?;
        blocks.validate(&attention.shape)?;
        let plan = Plan::for_blocks(&problem, &self.capabilities, blocks)?;
        self.proves_each(&plan, wait).await?;
        let tensors = Tensors { blocks: None, ..*tensors };
        let recorded = device::settled(|| Recorded::new(self, &plan, &tensors)).await?;
        Ok(BlockBuilder { recorded })
    }
}
