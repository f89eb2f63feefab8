//! Blocks: the part of a problem that one set of dispatches serves.
//!
//! A block is a range of sequences, query heads and query rows; the staged path visits the keys in
//! steps. Its size is the largest for which no binding passes the device's limit and the score
//! scratch stays within the policy, whatever the sequence length.

use std::ops::Range;

use crate::error::{Rejection, Result};
use crate::feature::normalize::Normalizer;
use crate::kernel::TILE;
use crate::plan::{Capabilities, Path, Policy};
use crate::problem::{Operand, Problem};

/// Largest extents of a block; keys are a step within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    /// Sequences.
    pub batch: u32,
    /// Query heads.
    pub heads: u32,
    /// Query rows; a multiple of the tile unless it is less than one tile or all rows.
    pub rows: u32,
    /// Keys per dispatch; a multiple of the tile unless it is all keys.
    pub keys: u32,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Sequences.
    pub batch: Range<u32>,
    /// Query heads.
    pub heads: Range<u32>,
    /// Query rows.
    pub rows: Range<u32>,
}

/// What a size must respect: a binding's bytes against its limit, and how to shrink it.
struct Bound {
    what: &'static str,
    bytes: Option<u64>,
    limit: u64,
    by_keys: bool,
}

impl BlockSize {
    /// The largest block that fits, or why even the smallest does not.
    pub fn choose(
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
        path: Path,
    ) -> Result<Self, Rejection> {
        let s = problem.attention().shape;
        // The weighted sum's loops: 17 for 16 keys, and those that load them.
        let most = (caps.max_loop_iterations / 5 * 4 / TILE).max(1) * TILE;
        let splits =
            path == Path::Staged && problem.attention().normalizer != Normalizer::Monotonic;
        let all_keys = s.seq_kv.clamp(1, if splits { most } else { u32::MAX });
        let mut size =
            Self { batch: s.batch.max(1), heads: s.heads_q, rows: s.seq_q.max(1), keys: all_keys };
        loop {
            let Some(bound) = size.violated(problem, caps, policy, path) else { return Ok(size) };
            if size.batch > 1 {
                size.batch = size.batch.div_ceil(2);
            } else if size.heads > 1 {
                size.heads = size.heads.div_ceil(2);
            } else if bound.by_keys && size.keys > TILE && path == Path::Staged {
                size.keys = (size.keys.div_ceil(TILE) / 2).max(1) * TILE;
            } else if !bound.by_keys && size.rows > TILE {
                size.rows = (size.rows / 2 / TILE * TILE).max(TILE);
            } else if !bound.by_keys && size.rows > 1 {
                size.rows /= 2;
            } else {
                return Err(bound.rejection(path));
            }
        }
    }

    /// Elements between rows of the score scratch.
    pub fn score_stride(problem: &Problem) -> u64 {
        u64::from(problem.attention().shape.seq_kv).next_multiple_of(4).max(4)
    }

    /// Query rows of a full block.
    pub fn block_rows(&self) -> u64 {
        let pairs = u64::from(self.batch) * u64::from(self.heads);
        pairs.saturating_mul(self.rows.into())
    }

    /// Whether keys are split over dispatches.
    pub fn splits_keys(&self, problem: &Problem) -> bool {
        self.keys < problem.attention().shape.seq_kv
    }

    /// Every block of the problem, in the order they are dispatched.
    pub fn blocks(&self, problem: &Problem) -> impl Iterator<Item = Block> + use<> {
        let s = problem.attention().shape;
        let size = *self;
        let cut = |all: u32, step: u32| {
            (0..all).step_by(step.max(1) as usize).map(move |i| i..all.min(i.saturating_add(step)))
        };
        cut(s.batch, size.batch).flat_map(move |batch| {
            cut(s.heads_q, size.heads).flat_map(move |heads| {
                let batch = batch.clone();
                cut(s.seq_q, size.rows).map(move |rows| Block {
                    batch: batch.clone(),
                    heads: heads.clone(),
                    rows,
                })
            })
        })
    }

    /// The key ranges of one block's dispatches; one, perhaps empty, unless keys are split.
    pub fn key_steps(&self, problem: &Problem) -> Vec<Range<u32>> {
        let all = problem.attention().shape.seq_kv;
        if self.keys >= all {
            return std::iter::once(0..all).collect();
        }
        (0..all).step_by(self.keys as usize).map(|i| i..all.min(i + self.keys)).collect()
    }

    /// Key/value heads that a block's query heads read, at most.
    fn kv_heads(&self, group: u32, heads_kv: u32) -> u32 {
        let whole_groups = self.heads.is_multiple_of(group);
        let within_one = group.is_multiple_of(self.heads);
        let straddled = u32::from(!whole_groups && !within_one);
        (self.heads.div_ceil(group) + straddled).min(heads_kv)
    }

    /// The first bound that this size breaks.
    fn violated(
        &self,
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
        path: Path,
    ) -> Option<Bound> {
        let mut bounds = self.operand_bounds(problem, caps);
        if path == Path::Staged {
            bounds.extend(self.scratch_bounds(problem, caps, policy));
            let forward = problem.attention().normalizer == Normalizer::Monotonic;
            bounds.extend(forward.then(|| self.loop_bound(caps)));
        }
        let grid = |what, workgroups: u64, by_keys| Bound {
            what,
            bytes: Some(workgroups),
            limit: caps.max_workgroups.into(),
            by_keys,
        };
        bounds.push(grid(
            "(sequence, head) pairs",
            u64::from(self.batch) * u64::from(self.heads),
            false,
        ));
        bounds.push(grid("groups of 4 rows", u64::from(self.rows.div_ceil(4)), false));
        bounds.push(grid("key tiles", u64::from(self.keys.div_ceil(TILE)), true));
        bounds.into_iter().find(|bound| bound.bytes.is_none_or(|bytes| bytes > bound.limit))
    }

    /// Iterations of the loops of one invocation that finds rows' keys one row after the other.
    fn loop_bound(&self, caps: &Capabilities) -> Bound {
        let of_row = u64::from(self.keys) / 64 * 2 + u64::from(self.keys) / 256 + 4;
        let iterations = of_row * u64::from(self.rows);
        let limit = caps.max_loop_iterations.into();
        Bound { what: "loop iterations", bytes: Some(iterations), limit, by_keys: false }
    }

    fn operand_bounds(&self, problem: &Problem, caps: &Capabilities) -> Vec<Bound> {
        let a = problem.attention();
        let s = a.shape;
        // Bindings start at aligned offsets, so up to one alignment is bound in vain.
        let limit = caps.max_binding_bytes.saturating_sub(caps.storage_alignment + 4);
        let kv_heads = self.kv_heads(s.group(), s.heads_kv);
        // Where packed sequences and pages lie is known on the GPU only: all rows are bound.
        let by_table = |operand| match operand {
            Operand::K | Operand::V => a.packs_keys() || a.paged.is_some(),
            _ => a.packed.is_some(),
        };
        let span = |what: &'static str, operand, heads: u32, seq: u32, by_keys| Bound {
            what,
            bytes: problem
                .read_strides(operand)
                .span(
                    if by_table(operand) { problem.extent(operand).0 } else { self.batch }.into(),
                    heads.into(),
                    if by_table(operand) { problem.extent(operand).1 } else { seq }.max(1).into(),
                    problem.read_units(operand).into(),
                )
                .map(|n| problem.read_storage(operand).bytes(n)),
            limit,
            by_keys,
        };
        let mut bounds = vec![
            span("q", Operand::Q, self.heads, self.rows, false),
            span("k", Operand::K, kv_heads, self.keys, true),
            span("v", Operand::V, kv_heads, self.keys, true),
            span("o", Operand::O, self.heads, self.rows, false),
        ];
        let extents = [self.batch, self.heads, self.rows, s.seq_kv].map(u64::from);
        let broadcast = |what, strides: [u64; 4], bits: u64| Bound {
            what,
            bytes: strides
                .iter()
                .zip(extents)
                .try_fold(1_u64, |sum, (stride, n)| {
                    sum.checked_add(stride.checked_mul(n.max(1) - 1)?)
                })
                .and_then(|n| n.checked_mul(bits))
                .map(|bits| bits.div_ceil(8)),
            limit,
            by_keys: false,
        };
        for operand in Operand::ALL {
            let strides = problem.dense_strides(*operand);
            let bits = problem.element_bits(*operand);
            bounds.extend(strides.map(|strides| broadcast(operand.name(), strides, bits)));
        }
        bounds
    }

    fn scratch_bounds(
        &self,
        problem: &Problem,
        caps: &Capabilities,
        policy: &Policy,
    ) -> Vec<Bound> {
        let rows = self.block_rows();
        let of = |per_row: u64| rows.checked_mul(per_row);
        let score_bytes = Self::score_stride(problem) * 4;
        let limit = caps.max_binding_bytes.min(caps.max_buffer_bytes);
        let dim_v = u64::from(problem.attention().shape.dim_v).next_multiple_of(4);
        // All scratch lies in one buffer, three parts at aligned offsets.
        let total = of(score_bytes + 4 + if self.splits_keys(problem) { dim_v * 4 } else { 0 })
            .and_then(|n| n.checked_add(3 * caps.storage_alignment));
        let bound = |what, bytes, limit| Bound { what, bytes, limit, by_keys: false };
        vec![
            bound("score scratch", of(score_bytes), limit),
            bound("scratch buffer", total, caps.max_buffer_bytes.min(policy.max_workspace_bytes)),
        ]
    }
}

impl Bound {
    fn rejection(&self, path: Path) -> Rejection {
        let needed = self.bytes.map_or("more than 2^64".into(), |n| n.to_string());
        Rejection {
            candidate: path.to_string(),
            reason: format!(
                "{} needs {needed} for the smallest block, the device or policy allows {}",
                self.what, self.limit
            ),
        }
    }
}
