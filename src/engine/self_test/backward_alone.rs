//! Kernels of gradients judged by what they leave in scratch, and by what they find there.

use super::known::allowed;
use super::known_gradients::{KnownGradients, difference};
use crate::device::{self, Readback, Wait};
use crate::engine::backward_host::UploadedBackward;
use crate::engine::{BufferView, Engine, gapless};
use crate::error::Result;
use crate::feature::{Entry, Position};
use crate::kernel::Binding;
use crate::plan::{BackwardStep, Block, BlockSize, Makes, Phase};
use crate::problem::Operand;
use crate::reference::{Gradients, Outputs};
use crate::tensor::DType;

/// The bits of scratch that nothing has written: a NaN.
const UNTOUCHED: u32 = 0xffff_fffe;

/// What the dispatches of a known-answer call left in scratch.
pub(super) struct Scratch {
    /// Each block with its scratch after both products, and after the rows.
    blocks: Vec<(Block, [Vec<f64>; 2])>,
    /// Scratch after all.
    last: Vec<f64>,
    gradients: Gradients,
}

/// What is added to the gradients of a row's weights: d_lse - <d_o, o>.
fn mean_of(call: &KnownGradients, outputs: &Outputs, row: usize) -> f64 {
    let (dim, incoming) =
        (call.plan.problem().problem().attention().shape.dim_v as usize, call.incoming());
    let own = row * dim..(row + 1) * dim;
    let mean: f64 = incoming.o[own.clone()].iter().zip(&outputs.o[own]).map(|(d, o)| d * o).sum();
    incoming.lse.get(row).copied().unwrap_or(0.0) - mean
}

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
        let (mut seen, gradients) = engine.watched(call, &ends, wait).await?;
        let last = seen.pop().unwrap_or_default();
        let mut seen = seen.into_iter();
        let mut next = || seen.next().unwrap_or_default();
        let blocks = blocks.into_iter().map(|block| (block, [next(), next()])).collect();
        Ok(Self { blocks, last, gradients })
    }

    /// What is wrong with the gradients of this run.
    pub(super) fn differs(&self, call: &KnownGradients, wanted: &Gradients) -> Option<String> {
        let problem = call.plan.problem();
        wanted.iter().find_map(|(of, _)| difference(problem, of, &self.gradients, wanted))
    }

    /// What the rows' kernel makes of hidden pairs that is not -0, by which the sums leave them out.
    pub(super) fn hidden(&self, call: &KnownGradients) -> Option<String> {
        let problem = call.plan.problem().problem();
        let inputs = call.tensors.inputs();
        for (block, [before, after]) in &self.blocks {
            for binding in [Binding::Scores, Binding::Grads] {
                let [before, after] =
                    [before, after].map(|scratch| Plane::of(call, block, binding, scratch));
                let wrong = |at: &Position| {
                    let (was, is) = (before.get(at), after.get(at));
                    let same = was.to_bits() == is.to_bits() || was.is_nan() && is.is_nan();
                    !same && is.to_bits() != (-0.0_f64).to_bits()
                };
                let hidden = |at: &Position| !problem.sees(at, &inputs.operands);
                if let Some(at) = pairs(call, block).into_iter().find(|at| hidden(at) && wrong(at))
                {
                    let Position { batch, head, row, key, .. } = at;
                    let found = after.get(&at);
                    return Some(format!(
                        "wrong in the self-test: hidden pair {batch},{head},{row},{key} is {found:e}, want -0"
                    ));
                }
            }
        }
        None
    }

    /// What is wrong with products of q and k, or of d_o and v; `None` where nobody knows them.
    pub(super) fn products(&self, call: &KnownGradients, makes: Makes) -> Option<Option<String>> {
        let problem = call.plan.problem().problem();
        let of_scores = makes == Makes::Products;
        if of_scores && (problem.prepares(Operand::Q) || problem.prepares(Operand::K)) {
            return None;
        }
        let binding = if of_scores { Binding::Scores } else { Binding::Grads };
        for (block, [products, _]) in &self.blocks {
            let plane = Plane::of(call, block, binding, products);
            for at in visible(call, block) {
                let wanted = call.product(&at, of_scores);
                let found = plane.get(&at);
                let near = (found - wanted).abs() <= allowed(DType::F16) * wanted.abs().max(1.0);
                if !near {
                    let Position { batch, head, row, key, .. } = at;
                    return Some(Some(format!(
                        "wrong in the self-test: product {batch},{head},{row},{key} is {found:e}, want {wanted:e}"
                    )));
                }
            }
        }
        Some(None)
    }

    /// What is wrong with a gradient as the sum of what is in scratch; `None` where nobody knows it.
    pub(super) fn sums(&self, call: &KnownGradients, operand: Operand) -> Option<Option<String>> {
        let problem = call.plan.problem();
        let call_of = problem.problem();
        // q and k as they meet lie in copies.
        let copied = call_of.prepares(Operand::Q) || call_of.prepares(Operand::K);
        let sums = match operand {
            Operand::Q | Operand::K if copied || call_of.attention().inner.is_sum() => return None,
            Operand::HeadScale | Operand::ScoreMatrix | Operand::ScoreV | Operand::Centers => {
                return None;
            }
            Operand::Q | Operand::K | Operand::V => self.of_rows(call, operand),
            Operand::Sinks => self.of_sinks(call),
            _ => self.of_entries(call, operand),
        };
        let mut wanted = Gradients::default();
        wanted.insert(operand, sums);
        Some(difference(problem, operand, &self.gradients, &wanted))
    }

    /// What is wrong with what is kept of rows that see a key: their lse and its gradient, and their gradients' mean.
    pub(super) fn kept(&self, call: &KnownGradients) -> Option<String> {
        let problem = call.plan.problem().problem();
        let outputs = call.outputs().ok().flatten()?;
        let start = call.plan.scratch(Binding::States, None).map_or(0, |part| part.start / 4);
        let (_, [_, kept]) = self.blocks.first()?;
        for (row, [batch, head, at]) in problem.attention().shape.row_positions().enumerate() {
            let lse = outputs.lse[row];
            if !lse.is_finite() || !problem.stores(batch, at, &call.tensors.inputs().operands) {
                continue;
            }
            let kept = &kept[start as usize + 4 * row..];
            let d_lse = call.incoming().lse.get(row).copied().unwrap_or(0.0);
            let wanted = [lse, mean_of(call, &outputs, row), d_lse];
            for (found, wanted) in [kept[0], kept[1], kept[3]].into_iter().zip(wanted) {
                let near = (found - wanted).abs() <= allowed(DType::F32) * wanted.abs().max(1.0);
                // What nothing has written is a NaN.
                if !near {
                    return Some(format!(
                        "wrong in the self-test: kept of row {batch},{head},{at} is {found:e}, want {wanted:e}"
                    ));
                }
            }
        }
        None
    }

    /// Whether what rows leave to keys is wrong for one that sees a key: what weights are to be multiplied with, 1 / l,
    /// which is 1 but for rounding, or what is added to their gradients.
    pub(super) fn left_by_rows_is_wrong(&self, call: &KnownGradients) -> bool {
        let problem = call.plan.problem().problem();
        // The mean that they leave is corrected, so o is taken before it is rounded.
        let Some(outputs) = call.attended().ok().flatten() else { return false };
        let (inputs, keys) = (call.tensors.inputs(), problem.attention().shape.seq_kv);
        let start = call.plan.scratch(Binding::States, None).map_or(0, |part| part.start / 4);
        let mut rows = problem.attention().shape.row_positions().enumerate();
        rows.any(|(row, [batch, head, at])| {
            let place = problem.position(batch, head, at, &inputs.operands);
            let seen = |key| problem.sees(&Position { key, ..place }, &inputs.operands);
            let stored = problem.stores(batch, at, &inputs.operands);
            let sums = stored && outputs.lse[row].is_finite() && (0..keys).any(seen);
            let kept = &self.last[start as usize + 4 * row..];
            let near = (kept[2] - 1.0).abs() <= allowed(DType::F32);
            let shift = mean_of(call, &outputs, row);
            let near =
                near && (kept[1] - shift).abs() <= allowed(DType::F32) * shift.abs().max(1.0);
            sums && !near
        })
    }

    /// What is wrong with gradients that a kernel sums in one pass; `None` where another makes what it reads.
    pub(super) fn in_one_pass(
        &self,
        call: &KnownGradients,
        step: &BackwardStep,
    ) -> Option<Option<String>> {
        let problem = call.plan.problem();
        if [Operand::Q, Operand::K].iter().any(|x| problem.problem().prepares(*x)) {
            return None;
        }
        let wanted = call.wanted().ok()?;
        let wrong = |of: Operand| {
            problem.wants(of).then(|| difference(problem, of, &self.gradients, &wanted))?
        };
        let of_o = if step.makes == Makes::OfKeys { Operand::K } else { Operand::Q };
        let mut made = [(Binding::O, of_o), (Binding::DV, Operand::V)]
            .into_iter()
            .filter(|(binding, _)| step.kernel.has_element(*binding));
        Some(made.find_map(|(_, of)| wrong(of)))
    }

    fn len(&self, operand: Operand) -> usize {
        self.gradients.get(operand).map_or(0, <[f64]>::len)
    }

    /// Of q, k or v: weights and d_o, or gradients of products and k or q.
    fn of_rows(&self, call: &KnownGradients, operand: Operand) -> Vec<f64> {
        let s = call.plan.problem().problem().attention().shape;
        let mut sums = vec![0.0; self.len(operand)];
        let of_values = operand == Operand::V;
        let binding = if of_values { Binding::Scores } else { Binding::Grads };
        for (block, [_, after]) in &self.blocks {
            let plane = Plane::of(call, block, binding, after);
            for at in visible(call, block) {
                let head_kv = at.head / s.group();
                let q_row = (at.batch * s.heads_q + at.head) * s.seq_q + at.row;
                let kv_row = (at.batch * s.heads_kv + head_kv) * s.seq_kv + at.key;
                let (to, from) = match operand {
                    Operand::Q => (q_row, call.row(Operand::K, &at)),
                    Operand::K => (kv_row, call.row(Operand::Q, &at)),
                    _ => (kv_row, call.d_o(&at)),
                };
                let sum = &mut sums[to as usize * from.len()..][..from.len()];
                let factor = plane.get(&at);
                sum.iter_mut().zip(from).for_each(|(sum, x)| *sum += factor * x);
            }
        }
        sums
    }

    /// Of a tensor that a modifier reads: gradients of scores.
    fn of_entries(&self, call: &KnownGradients, operand: Operand) -> Vec<f64> {
        let problem = call.plan.problem().problem();
        let inputs = call.tensors.inputs();
        let mut sums = vec![0.0; self.len(operand)];
        let scores = problem.scores();
        for (block, [_, after]) in &self.blocks {
            let plane = Plane::of(call, block, Binding::Entries, after);
            for at in visible(call, block) {
                let mut entries = scores.iter().filter_map(|x| x.entry(&at, &inputs.operands));
                if let Some(Entry { index, factor, .. }) = entries.find(|x| x.operand == operand) {
                    sums[index] += factor * plane.get(&at);
                }
            }
        }
        sums
    }

    fn of_sinks(&self, call: &KnownGradients) -> Vec<f64> {
        let problem = call.plan.problem().problem();
        let inputs = call.tensors.inputs();
        let mut sums = vec![0.0; self.len(Operand::Sinks)];
        let part = call.plan.scratch(Binding::RowSums, Some(Operand::Sinks));
        let start = part.map_or(0, |part| part.start / 4);
        for (row, [batch, head, at]) in problem.attention().shape.row_positions().enumerate() {
            if problem.stores(batch, at, &inputs.operands) {
                sums[head as usize] += self.last[start as usize + row];
            }
        }
        sums
    }
}

impl KnownGradients {
    /// A row of q, or of k or v at the pair's key.
    fn row(&self, operand: Operand, at: &Position) -> &[f64] {
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

    /// What a pair's score is made of, or the product of d_o and v.
    fn product(&self, at: &Position, of_scores: bool) -> f64 {
        let a = self.plan.problem().problem().attention();
        if of_scores {
            let (q, k) = (self.row(Operand::Q, at), self.row(Operand::K, at));
            return a.inner.score(at.head, q, k, &self.tensors.inputs().operands);
        }
        self.d_o(at).iter().zip(self.row(Operand::V, at)).map(|(d, v)| d * v).sum()
    }

    /// The gradient of a row of o.
    fn d_o(&self, at: &Position) -> &[f64] {
        let s = self.plan.problem().problem().attention().shape;
        let row = ((at.batch * s.heads_q + at.head) * s.seq_q + at.row) as usize;
        let dim = s.dim_v as usize;
        &self.incoming().o[row * dim..(row + 1) * dim]
    }
}

/// The pairs of a block that are visible.
fn visible(call: &KnownGradients, block: &Block) -> Vec<Position> {
    let problem = call.plan.problem().problem();
    let inputs = call.tensors.inputs();
    let mut all = pairs(call, block);
    all.retain(|at| problem.sees(at, &inputs.operands));
    all
}

/// The pairs of a block.
fn pairs(call: &KnownGradients, block: &Block) -> Vec<Position> {
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
struct Plane<'a> {
    values: &'a [f64],
    block: &'a Block,
    stride: usize,
}

impl<'a> Plane<'a> {
    fn of(call: &KnownGradients, block: &'a Block, binding: Binding, scratch: &'a [f64]) -> Self {
        let start = call.plan.scratch(binding, None).map_or(0, |part| part.start / 4);
        let stride = BlockSize::score_stride(call.plan.problem().problem()) as usize;
        Self { values: &scratch[start as usize..], block, stride }
    }

    fn get(&self, at: &Position) -> f64 {
        let Block { batch, heads, rows } = self.block;
        let pair =
            (at.batch - batch.start) as usize * heads.len() + (at.head - heads.start) as usize;
        let row = pair * rows.len() + (at.row - rows.start) as usize;
        self.values[row * self.stride + at.key as usize]
    }
}

impl Engine {
    /// Scratch, which was untouched, as it is when so many dispatches of a call are done, and the gradients in the end.
    async fn watched(
        &self,
        call: &KnownGradients,
        ends: &[usize],
        wait: Wait,
    ) -> Result<(Vec<Vec<f64>>, Gradients)> {
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
            device::scoped(&self.device, "submitting a self-test", 0, || {
                self.queue.submit([encoder.finish()])
            })?;
            Ok((seen, gradients))
        };
        let (seen, pending) = device::settled(work).await?;
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
        Ok((scratch, gradients))
    }
}
