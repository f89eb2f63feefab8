//! What the kernels of gradients leave in scratch and beside it, by which each is judged.

use super::known_gradients::KnownGradients;
use crate::device::{self, Readback, Wait};
use crate::engine::backward_host::UploadedBackward;
use crate::engine::{BufferView, Engine, gapless};
use crate::error::Result;
use crate::feature::Position;
use crate::kernel::Binding;
use crate::plan::{BackwardPlan, Block, BlockSize, Makes, Phase};
use crate::problem::Operand;
use crate::reference::Gradients;
use crate::tensor::DType;

/// The bits of scratch that nothing has written: a NaN.
const UNTOUCHED: u32 = 0xffff_fffe;

/// Whether a step leaves f32 to others: not where its gradient is as the caller's, and nobody asked for that.
fn is_f32(plan: &BackwardPlan, makes: Makes) -> bool {
    match makes {
        Makes::Unprepared(_) => false,
        Makes::Gradient(of @ (Operand::Q | Operand::K)) => plan.problem().problem().prepares(of),
        _ => true,
    }
}

/// What the dispatches of a known-answer call left in scratch.
pub(super) struct Scratch {
    /// Each block with its scratch after both products, and after the rows.
    pub(super) blocks: Vec<(Block, [Vec<f64>; 2])>,
    /// Scratch after all.
    pub(super) last: Vec<f64>,
    pub(super) gradients: Gradients,
    /// What steps left to others beside the scratch.
    pub(super) held: HeldRows,
}

/// What steps leave to others beside the scratch, f32: rows of q and k as they meet without gaps, head by head, and
/// each row's parts in the gradient of an additive score's weights.
pub(super) struct HeldRows(pub(super) Vec<(Makes, Vec<f64>)>);

impl Scratch {
    /// Runs the call once more and looks at scratch after both products and after the rows of each block: all in one
    /// run, since what is wrong may differ between two.
    pub(super) async fn of(engine: &Engine, call: &KnownGradients, wait: Wait) -> Result<Self> {
        let of = |phase: Phase| call.plan.steps.iter().filter(move |x| x.makes.phase() == phase);
        let rows = of(Phase::Blocks).position(|step| step.makes == Makes::Rows).unwrap_or(0);
        let (before, by_block) = (of(Phase::Before).count(), of(Phase::Blocks).count());
        let blocks: Vec<Block> = call.plan.blocks().collect();
        let products = (0..blocks.len()).map(|n| before + n * by_block + rows);
        let ends = products.flat_map(|end| [end, end + 1]);
        let ends: Vec<usize> = ends.chain([usize::MAX]).collect();
        let (mut seen, gradients, held) = engine.watched(call, &ends, wait).await?;
        let last = seen.pop().unwrap_or_default();
        let mut seen = seen.into_iter();
        let mut next = || seen.next().unwrap_or_default();
        let blocks = blocks.into_iter().map(|block| (block, [next(), next()])).collect();
        Ok(Self { blocks, last, gradients, held })
    }

    /// Each visible pair with what is in a plane of its block's scratch after the rows.
    pub(super) fn each_pair(
        &self,
        call: &KnownGradients,
        binding: Binding,
        mut take: impl FnMut(&Position, f64),
    ) {
        for (block, [_, after]) in &self.blocks {
            let plane = Plane::of(call, block, binding, after);
            visible(call, block).iter().for_each(|at| take(at, plane.get(at)));
        }
    }

    pub(super) fn len(&self, operand: Operand) -> usize {
        self.gradients.get(operand).map_or(0, <[f64]>::len)
    }
}

impl KnownGradients {
    /// A row of q, or of k or v at the pair's key, as it is given.
    pub(super) fn row(&self, operand: Operand, at: &Position) -> &[f64] {
        let problem = self.plan.problem().problem();
        let inputs = self.tensors.inputs();
        let head_kv = at.head / problem.attention().shape.group();
        let (values, place) = match operand {
            Operand::Q => (inputs.q, [at.batch, at.head, at.row]),
            Operand::K => (inputs.k, [at.batch, head_kv, at.key]),
            _ => (inputs.v, [at.batch, head_kv, at.key]),
        };
        let start = problem.index(operand, place, &inputs.operands) as usize;
        &values[start..start + problem.dim(operand) as usize]
    }

    /// The gradient of a row of o.
    pub(super) fn d_o(&self, at: &Position) -> &[f64] {
        let s = self.plan.problem().problem().attention().shape;
        let row = ((at.batch * s.heads_q + at.head) * s.seq_q + at.row) as usize;
        let dim = s.dim_v as usize;
        &self.incoming().o[row * dim..(row + 1) * dim]
    }
}

/// The pairs of a block that are visible.
pub(super) fn visible(call: &KnownGradients, block: &Block) -> Vec<Position> {
    let problem = call.plan.problem().problem();
    let inputs = call.tensors.inputs();
    let mut all = pairs(call, block);
    all.retain(|at| problem.sees(at, &inputs.operands));
    all
}

/// The pairs of a block.
pub(super) fn pairs(call: &KnownGradients, block: &Block) -> Vec<Position> {
    let problem = call.plan.problem().problem();
    let inputs = call.tensors.inputs();
    let seq_kv = problem.attention().shape.seq_kv;
    let mut pairs = Vec::new();
    for batch in block.batch.clone() {
        for head in block.heads.clone() {
            for row in block.rows.clone() {
                let at = problem.position(batch, head, row, &inputs.operands);
                pairs.extend((0..seq_kv).map(|key| Position { key, ..at }));
            }
        }
    }
    pairs
}

/// A plane of a block's scratch.
pub(super) struct Plane<'a> {
    values: &'a [f64],
    block: &'a Block,
    stride: usize,
}

impl<'a> Plane<'a> {
    pub(super) fn of(
        call: &KnownGradients,
        block: &'a Block,
        binding: Binding,
        scratch: &'a [f64],
    ) -> Self {
        let start = call.plan.scratch(binding, None).map_or(0, |part| part.start / 4);
        let stride = BlockSize::score_stride(call.plan.problem().problem()) as usize;
        Self { values: &scratch[start as usize..], block, stride }
    }

    pub(super) fn get(&self, at: &Position) -> f64 {
        let Block { batch, heads, rows } = self.block;
        let pair =
            (at.batch - batch.start) as usize * heads.len() + (at.head - heads.start) as usize;
        let row = pair * rows.len() + (at.row - rows.start) as usize;
        self.values[row * self.stride + at.key as usize]
    }
}

impl Engine {
    /// Scratch, which was untouched, as it is when so many dispatches of a call are done; the gradients in the end, and
    /// what steps left to others.
    async fn watched(
        &self,
        call: &KnownGradients,
        ends: &[usize],
        wait: Wait,
    ) -> Result<(Vec<Vec<f64>>, Gradients, HeldRows)> {
        let (plan, inputs, incoming) = (&call.plan, call.tensors.inputs(), call.incoming());
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let outputs = call.outputs()?;
        let words = vec![UNTOUCHED; plan.workspace_bytes().div_ceil(4) as usize];
        let work = || {
            let uploaded = UploadedBackward::new(self, plan, &inputs, &incoming, outputs.as_ref())?;
            let bytes = bytemuck::cast_slice(&words);
            let scratch = device::upload(&self.device, "self-test", bytes, usage)?;
            let bound = uploaded.bind(self, plan, &inputs, Some(BufferView::from(&scratch)))?;
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let read = |encoder: &mut wgpu::CommandEncoder, buffer: &wgpu::Buffer| {
                Readback::record(&self.device, encoder, buffer, 0, buffer.size())
            };
            let (mut seen, mut begin) = (Vec::new(), 0);
            for end in ends {
                bound.encode_part(&mut encoder, begin..*end);
                seen.push(read(&mut encoder, &scratch)?);
                begin = *end;
            }
            let mut gradients = Vec::new();
            for (operand, buffer) in &uploaded.gradients {
                gradients.push((*operand, read(&mut encoder, buffer)?));
            }
            let mut held = Vec::new();
            for (makes, buffer) in bound.held.iter().filter(|(makes, _)| is_f32(plan, *makes)) {
                held.push((*makes, read(&mut encoder, buffer)?));
            }
            device::scoped(&self.device, "submitting a self-test", 0, || {
                self.queue.submit([encoder.finish()])
            })?;
            Ok((seen, gradients, held))
        };
        let (seen, pending, pending_rows) = device::settled(work).await?;
        let mut scratch = Vec::new();
        for back in seen {
            scratch.push(DType::F32.decode(&back.get(wait).await?));
        }
        let mut gradients = Gradients::default();
        for (operand, back) in pending {
            let bytes = back.get(wait).await?;
            let found = gapless(plan.problem(), &inputs.operands, operand, &bytes);
            gradients.insert(operand, found);
        }
        let mut held = Vec::new();
        for (makes, back) in pending_rows {
            held.push((makes, DType::F32.decode(&back.get(wait).await?)));
        }
        Ok((scratch, gradients, HeldRows(held)))
    }
}
