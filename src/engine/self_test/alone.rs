//! Kernels of a plan tried by themselves: each has a known answer of its own, so that it is blamed on its own evidence.
//!
//! What is left without one (a weighted sum, a fused kernel, the two halves of the split path) is told by
//! what remains when the others are right.

use super::known::{Known, KnownCall, allowed};
use super::truth;
use crate::device::{self, Readback, Wait};
use crate::engine::bound::Recorded;
use crate::engine::host::Uploaded;
use crate::engine::{BufferView, Engine};
use crate::error::Result;
use crate::feature::Position;
use crate::feature::score::Stage;
use crate::kernel::{Binding, Kernel, KernelSpec};
use crate::plan::{BlockSize, Over, Plan};
use crate::problem::{Attention, Operand, Problem, WeightsAt};
use crate::reference::{Inputs, prepare};
use crate::tensor::DType;

/// The bits of scratch that nothing has written: a NaN.
const UNTOUCHED: u32 = 0xffff_fffe;

/// What a kernel that is tried by itself shows.
pub(super) enum Alone {
    /// It has no answer of its own.
    NoAnswer,
    /// It is right.
    Right,
    /// It is wrong, and how.
    Wrong(String),
}

impl Engine {
    /// Tries one kernel of a plan by itself.
    pub(super) async fn tried_alone(
        &self,
        call: &KnownCall,
        spec: &KernelSpec,
        wait: Wait,
    ) -> Result<Alone> {
        if !call.plan.is_one_block() {
            return Ok(Alone::NoAnswer);
        }
        let tried = match spec.kernel {
            Kernel::Prepare => self.prepared_alone(call, spec, wait).await,
            Kernel::Classify => self.classified_alone(call, wait).await,
            Kernel::StagedScore => self.scored_alone(call, wait).await,
            Kernel::StagedNormalize | Kernel::StagedThreshold | Kernel::StagedMonotonic => {
                self.normalized_alone(call, wait).await
            }
            _ => return Ok(Alone::NoAnswer),
        };
        match tried {
            Ok(None) => Ok(Alone::Right),
            Ok(Some(reason)) => Ok(Alone::Wrong(reason)),
            // The device refuses it.
            Err(error) if error.is_internal() => Ok(Alone::Wrong(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// The copy of q or k that a `prepare` kernel writes.
    async fn prepared_alone(
        &self,
        call: &KnownCall,
        spec: &KernelSpec,
        wait: Wait,
    ) -> Result<Option<String>> {
        let problem = call.plan.problem();
        let plan = call.plan.only_rows();
        let step = plan.copies().iter().find(|step| step.kernel == *spec);
        let Some(Over::Copy { operand, .. }) = step.map(|step| step.over) else {
            return Ok(None);
        };
        let run = Run { part: 0..plan.copies().len(), scratch: None };
        let read = |recorded: &Recorded, _: Option<&wgpu::Buffer>| {
            let copy = recorded.prepared.iter().find(|(of, _)| *of == operand);
            copy.map(|(_, buffer)| (buffer.clone(), 0, buffer.size()))
        };
        let found = DType::F32.decode(&self.run_part(&plan, &call.tensors, run, read, wait).await?);
        let inputs = call.tensors.inputs();
        let wanted = prepare(problem, &inputs, operand, |x| x).unwrap_or_default();
        let (found, held) = rows_of_copy(problem, operand, &inputs, &found);
        Ok(first_far(&found, &wanted, |i| held[i]).map(|text| wrong(&format!("{operand} {text}"))))
    }

    /// The table that a `classify` kernel builds.
    async fn classified_alone(&self, call: &KnownCall, wait: Wait) -> Result<Option<String>> {
        let problem = call.plan.problem();
        let (Some(plan), Some((blocks, _))) = (call.plan.only_blocks(), call.plan.blocks()) else {
            return Ok(None);
        };
        let bytes = 4 * blocks.words(&problem.attention().shape);
        let run = Run { part: 0..1, scratch: None };
        let read = |recorded: &Recorded, _: Option<&wgpu::Buffer>| {
            Some((recorded.aux.clone(), recorded.block_offset, bytes))
        };
        let back = self.run_part(&plan, &call.tensors, run, read, wait).await?;
        let found: Vec<u32> = bytemuck::pod_collect_to_vec(&back);
        let inputs = call.tensors.inputs();
        let masks = problem.masks();
        let data: Vec<_> = masks
            .iter()
            .filter(|mask| plan.kernels().iter().any(|spec| spec.masks.contains(&mask.slot())))
            .collect();
        let keep = |batch, head, row, key| {
            let at = Position { key, ..problem.position(batch, head, row, &inputs.operands) };
            let bias = problem.attention().bias.is_none_or(|shape| {
                inputs.operands.bias[shape.index([batch, head, row, key])] != f64::NEG_INFINITY
            });
            bias && data
                .iter()
                .all(|mask| mask.keeps(&at, &inputs.operands, &problem.attention().shape))
        };
        let wanted = blocks.table(&problem.attention().shape, keep);
        let off = found.iter().zip(&wanted).position(|(x, e)| x != e);
        Ok(off.map(|i| wrong(&format!("word {i} is {:#x}, want {:#x}", found[i], wanted[i]))))
    }

    /// The scores that the first stage leaves in scratch.
    async fn scored_alone(&self, call: &KnownCall, wait: Wait) -> Result<Option<String>> {
        let (scratch, bytes) = (Scratch::of(call), call.plan.workspace_bytes());
        let words = vec![UNTOUCHED; (bytes / 4) as usize];
        let before = call.plan.copies().len();
        let run = Run { part: 0..before + 1, scratch: Some(words) };
        let found = self.run_scratch(call, run, bytes, wait).await?;
        let scores = scratch.scores(call)?;
        let visible = scratch.visible(&scores);
        let found = scratch.rows(&found);
        // Of what is hidden, tiles that no row sees are left out.
        let hidden = |x: f64| x == f64::NEG_INFINITY || x.is_nan();
        let shown = (0..found.len()).find(|&i| !visible[i] && !hidden(found[i]));
        if let Some(i) = shown {
            return Ok(Some(wrong(&format!("hidden score {i} is {:e}", found[i]))));
        }
        Ok(first_far(&found, &scores, |i| visible[i]).map(|text| wrong(&format!("score {text}"))))
    }

    /// The weights that the second stage makes of known scores.
    async fn normalized_alone(&self, call: &KnownCall, wait: Wait) -> Result<Option<String>> {
        let (scratch, bytes) = (Scratch::of(call), call.plan.workspace_bytes());
        let scores = scratch.scores(call)?;
        let mut words = vec![f32::NEG_INFINITY.to_bits(); (bytes / 4) as usize];
        scratch.write(&mut words, &scores);
        let before = call.plan.copies().len();
        let run = Run { part: before + 1..before + 2, scratch: Some(words) };
        let found = self.run_scratch(call, run, bytes, wait).await?;
        let factors = scratch.factors(&found);
        let keys = scratch.keys as usize;
        let weights: Vec<f64> =
            scratch.rows(&found).iter().enumerate().map(|(i, x)| x * factors[i / keys]).collect();
        let visible = scratch.visible(&scores);
        let wanted = scratch.weights(call)?;
        Ok(first_far(&weights, &wanted, |i| visible[i])
            .map(|text| wrong(&format!("weight {text}"))))
    }

    /// Runs a part of the staged path and reads scratch back.
    async fn run_scratch(
        &self,
        call: &KnownCall,
        run: Run,
        bytes: u64,
        wait: Wait,
    ) -> Result<Vec<f64>> {
        let read =
            |_: &Recorded, scratch: Option<&wgpu::Buffer>| Some((scratch?.clone(), 0, bytes));
        let back = self.run_part(&call.plan, &call.tensors, run, read, wait).await?;
        Ok(DType::F32.decode(&back))
    }

    /// Runs some dispatches of a plan and reads a buffer of it back.
    async fn run_part(
        &self,
        plan: &Plan,
        tensors: &Known,
        run: Run,
        read: impl Fn(&Recorded, Option<&wgpu::Buffer>) -> Option<(wgpu::Buffer, u64, u64)>,
        wait: Wait,
    ) -> Result<Vec<u8>> {
        let inputs = tensors.inputs();
        let work = || {
            let uploaded = Uploaded::new(self, plan, &inputs)?;
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            let scratch = run.scratch.as_deref().map(|words| {
                device::upload(&self.device, "self-test", bytemuck::cast_slice(words), usage)
            });
            let scratch = scratch.transpose()?;
            let workspace = scratch.as_ref().map(BufferView::from);
            let recorded = uploaded.record(self, plan, &inputs, workspace)?;
            let mut encoder = self.device.create_command_encoder(&Default::default());
            recorded.encode_part(&mut encoder, run.part.clone());
            let part = read(&recorded, scratch.as_ref());
            let Some((buffer, offset, bytes)) = part else { return Ok(None) };
            let back = Readback::record(&self.device, &mut encoder, &buffer, offset, bytes)?;
            device::scoped(&self.device, "submitting a self-test", 0, || {
                self.queue.submit([encoder.finish()])
            })?;
            Ok(Some(back))
        };
        match device::settled(work).await? {
            Some(back) => back.get(wait).await,
            None => Ok(Vec::new()),
        }
    }
}

/// Some dispatches of a plan, over scratch that holds these words.
struct Run {
    part: std::ops::Range<usize>,
    scratch: Option<Vec<u32>>,
}

/// Where the rows of a call lie in the staged path's scratch, all in one block.
struct Scratch<'a> {
    problem: &'a Problem,
    scores: usize,
    inverse_sums: usize,
    stride: usize,
    rows: u64,
    keys: u32,
}

impl<'a> Scratch<'a> {
    fn of(call: &'a KnownCall) -> Self {
        let problem = call.plan.problem();
        let s = problem.attention().shape;
        let word = |binding| {
            let part = call.plan.scratch(binding);
            part.map_or(0, |part| (part.start / 4) as usize)
        };
        Self {
            problem,
            scores: word(Binding::Scores),
            inverse_sums: word(Binding::InverseSums),
            stride: BlockSize::score_stride(problem) as usize,
            rows: s.rows(),
            keys: s.seq_kv,
        }
    }

    /// Scores of every pair, −∞ where it is hidden, with the noise of a draw.
    fn scores(&self, call: &KnownCall) -> Result<Vec<f64>> {
        let mut scores = self.shown(call, WeightsAt::AfterBias)?;
        let inputs = call.tensors.inputs();
        let drawn = self.problem.scores();
        let drawn: Vec<_> = drawn.iter().filter(|x| x.stage() == Stage::Drawn).collect();
        let keys = self.keys as usize;
        for (n, [batch, head, row]) in self.problem.attention().shape.row_positions().enumerate() {
            let at = self.problem.position(batch, head, row, &inputs.operands);
            for (key, score) in (0..).zip(&mut scores[n * keys..][..keys]) {
                let at = Position { key, ..at };
                *score =
                    drawn.iter().fold(*score, |s, noise| noise.apply(s, &at, &inputs.operands));
            }
        }
        Ok(scores)
    }

    fn weights(&self, call: &KnownCall) -> Result<Vec<f64>> {
        self.shown(call, WeightsAt::Probabilities)
    }

    fn shown(&self, call: &KnownCall, at: WeightsAt) -> Result<Vec<f64>> {
        let attention = Attention { weights: Some(at), ..self.problem.attention().clone() };
        let outputs = truth(&attention.validate()?, &call.tensors.inputs())?;
        Ok(outputs.weights.unwrap_or_default())
    }

    /// Which pairs are visible.
    fn visible(&self, scores: &[f64]) -> Vec<bool> {
        scores.iter().map(|score| *score != f64::NEG_INFINITY).collect()
    }

    /// The rows without what pads them.
    fn rows(&self, scratch: &[f64]) -> Vec<f64> {
        let row = |n: u64| &scratch[self.scores + n as usize * self.stride..][..self.keys as usize];
        (0..self.rows).flat_map(row).copied().collect()
    }

    fn write(&self, words: &mut [u32], scores: &[f64]) {
        for (n, row) in scores.chunks(self.keys as usize).enumerate() {
            let to = &mut words[self.scores + n * self.stride..];
            to.iter_mut().zip(row).for_each(|(to, x)| *to = (*x as f32).to_bits());
        }
    }

    /// What the weighted sum of each row is multiplied with.
    fn factors(&self, scratch: &[f64]) -> Vec<f64> {
        scratch[self.inverse_sums..][..self.rows as usize].to_vec()
    }
}

/// The elements of a copy of q or k as `[batch, heads, seq, dim_qk]`, and which of them there are: packed sequences
/// hold fewer rows than the longest.
fn rows_of_copy(
    problem: &Problem,
    operand: Operand,
    inputs: &Inputs<'_>,
    copy: &[f64],
) -> (Vec<f64>, Vec<bool>) {
    let s = problem.attention().shape;
    let strides = problem.copy_strides(operand, s.dim_qk);
    let (mut found, mut held) = (Vec::new(), Vec::new());
    for batch in 0..s.batch {
        let rows = problem.rows_held(operand, batch, &inputs.operands);
        for (head, row) in
            (0..problem.heads(operand)).flat_map(|h| (0..problem.seq(operand)).map(move |r| (h, r)))
        {
            let at = [batch, head, row];
            let start = problem.index_in(strides, operand, at, &inputs.operands);
            let element = |c: u32| copy.get((start + u64::from(c)) as usize);
            found.extend((0..s.dim_qk).map(|c| element(c).copied().unwrap_or(f64::NAN)));
            held.resize(found.len(), row < rows);
        }
    }
    (found, held)
}

/// The first of some values that is off by more than a correct kernel's can be; operands may have been rounded to bf16.
fn first_far(found: &[f64], wanted: &[f64], asked: impl Fn(usize) -> bool) -> Option<String> {
    let near = |x: f64, e: f64| {
        x == e || e.is_finite() && (x - e).abs() <= allowed(DType::F16) * e.abs().max(1.0)
    };
    let off =
        (0..wanted.len()).find(|&i| asked(i) && !found.get(i).is_some_and(|x| near(*x, wanted[i])));
    off.map(|i| format!("{i} is {:e}, want {:e}", found.get(i).unwrap_or(&f64::NAN), wanted[i]))
}

fn wrong(what: &str) -> String {
    format!("wrong in the self-test: {what}")
}
