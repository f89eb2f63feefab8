//! The block table that a fused kernel gets from masks given as data.

use crate::feature::mask::{Blocks, Mask};
use crate::kernel::{KernelSpec, TILE};
use crate::plan::BlockSize;
use crate::problem::Problem;
use crate::tensor::Broadcast;

/// Fewest pairs per head for which a table is built: below, one more dispatch costs more than it saves.
const MIN_PAIRS: u64 = 64 * 64;

/// Keys of a block: half a tile, so that thin bands of hidden keys are found too.
const KEYS: u32 = 32;

/// A dispatch that looks at the masks once and says where the fused kernel must look, and where it
/// need not test.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Classify {
    /// The kernel.
    pub(crate) kernel: KernelSpec,
    /// Its blocks.
    pub(crate) blocks: Blocks,
    /// Rows of a block that are looked at: 1 where all rows have the same masks.
    pub(crate) scan: u32,
}

impl Classify {
    /// The dispatch of a problem, where one pays: masks are data, large, and no table is given.
    pub(crate) fn new(problem: &Problem, group_rows: u32, block: &BlockSize) -> Option<Self> {
        let a = problem.attention();
        let s = a.shape;
        let masks: Vec<Broadcast> =
            [a.masks.boolean_shape(), a.bias].into_iter().flatten().collect();
        let is_data = !masks.is_empty() || a.masks.segments.is_some();
        if a.masks.blocks.is_some()
            || a.paged.is_some()
            || a.masks.edges.is_some()
            || !is_data
            || u64::from(s.seq_q) * u64::from(s.seq_kv) < MIN_PAIRS
        {
            return None;
        }
        let varies = |axis: usize| masks.iter().any(|mask| mask.0[axis] > 1);
        let by_row = a.masks.segments.is_some() || varies(2);
        let blocks = Blocks {
            rows: if by_row { group_rows.min(TILE) } else { s.seq_q.min(1 << 20) },
            keys: KEYS,
            batch: if a.masks.segments.is_some() || varies(0) { s.batch } else { 1 },
            heads: if varies(1) { s.heads_q } else { 1 },
        };
        // A block of rows that two dispatches share would be written by the later one alone.
        let shared = by_row && block.rows < s.seq_q && !block.rows.is_multiple_of(blocks.rows);
        if shared || blocks.validate(&s).is_err() {
            return None;
        }
        let scan = if by_row { blocks.rows } else { 1 };
        Some(Self { kernel: KernelSpec::classify(problem, false), blocks, scan })
    }
}
