//! Kernels of gradients judged by what they leave in scratch, and by what they find there.

use super::backward_scratch::{Plane, Scratch, pairs, visible};
use super::known::allowed;
use super::known_gradients::{KnownGradients, difference};
use crate::feature::{Entry, Position};
use crate::kernel::Binding;
use crate::plan::{BackwardStep, Makes};
use crate::problem::Operand;
use crate::reference::{Gradients, Outputs};
use crate::tensor::DType;

/// What is added to the gradients of a row's weights: d_lse - <d_o, o>.
fn mean_of(call: &KnownGradients, outputs: &Outputs, row: usize) -> f64 {
    let (dim, incoming) =
        (call.plan.problem().problem().attention().shape.dim_v as usize, call.incoming());
    let own = row * dim..(row + 1) * dim;
    let mean: f64 = incoming.o[own.clone()].iter().zip(&outputs.o[own]).map(|(d, o)| d * o).sum();
    incoming.lse.get(row).copied().unwrap_or(0.0) - mean
}

impl Scratch {
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

    /// What is wrong with products of q and k, or of d_o and v.
    pub(super) fn products(&self, call: &KnownGradients, makes: Makes) -> Option<String> {
        let of_scores = makes == Makes::Products;
        let binding = if of_scores { Binding::Scores } else { Binding::Grads };
        for (block, [products, _]) in &self.blocks {
            let plane = Plane::of(call, block, binding, products);
            for at in visible(call, block) {
                let wanted = self.product(call, &at, of_scores);
                let found = plane.get(&at);
                let near = (found - wanted).abs() <= allowed(DType::F16) * wanted.abs().max(1.0);
                if !near {
                    let Position { batch, head, row, key, .. } = at;
                    return Some(format!(
                        "wrong in the self-test: product {batch},{head},{row},{key} is {found:e}, want {wanted:e}"
                    ));
                }
            }
        }
        None
    }

    /// What is wrong with a gradient as the sum of what is in scratch, or of what other steps left.
    pub(super) fn sums(&self, call: &KnownGradients, operand: Operand) -> Option<String> {
        let problem = call.plan.problem();
        let sums = match operand {
            Operand::Q | Operand::K => return self.met_sums(call, operand),
            Operand::V => self.of_values(call),
            Operand::Sinks => self.of_rows(call, operand),
            Operand::HeadScale => self.of_rows(call, operand),
            Operand::Centers => self.of_centers(call),
            Operand::ScoreV => self.held.columns(call)?,
            Operand::ScoreMatrix => self.of_matrix(call),
            _ => self.of_entries(call, operand),
        };
        let mut wanted = Gradients::default();
        wanted.insert(operand, sums);
        difference(problem, operand, &self.gradients, &wanted)
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

    /// What is wrong with gradients that a kernel sums in one pass, of q and k as they meet.
    pub(super) fn in_one_pass(
        &self,
        call: &KnownGradients,
        step: &BackwardStep,
    ) -> Option<Option<String>> {
        let problem = call.plan.problem();
        let wanted = self.wanted_as_they_meet(call)?;
        let of_o = if step.makes == Makes::OfKeys { Operand::K } else { Operand::Q };
        let mut made = [(Binding::O, of_o), (Binding::DV, Operand::V)]
            .into_iter()
            .filter(|(binding, _)| step.kernel.has_element(*binding));
        Some(made.find_map(|(_, of)| {
            let found = self.held.met(call, step.makes, of);
            match found {
                Some(found) => difference(problem, of, &found, &wanted),
                None if problem.wants(of) => difference(problem, of, &self.gradients, &wanted),
                None => None,
            }
        }))
    }

    /// Of v: weights and d_o.
    fn of_values(&self, call: &KnownGradients) -> Vec<f64> {
        let s = call.plan.problem().problem().attention().shape;
        let mut sums = vec![0.0; self.len(Operand::V)];
        self.each_pair(call, Binding::Scores, |at, weight| {
            let from = call.d_o(at);
            let row = (at.batch * s.heads_kv + at.head / s.group()) * s.seq_kv + at.key;
            let sum = &mut sums[row as usize * from.len()..][..from.len()];
            sum.iter_mut().zip(from).for_each(|(sum, x)| *sum += weight * x);
        });
        sums
    }

    /// Of a tensor that a modifier reads: gradients of scores.
    fn of_entries(&self, call: &KnownGradients, operand: Operand) -> Vec<f64> {
        let problem = call.plan.problem().problem();
        let inputs = call.tensors.inputs();
        let mut sums = vec![0.0; self.len(operand)];
        let scores = problem.scores();
        self.each_pair(call, Binding::Entries, |at, d_score| {
            let mut entries = scores.iter().filter_map(|x| x.entry(at, &inputs.operands));
            if let Some(Entry { index, factor, .. }) = entries.find(|x| x.operand == operand) {
                sums[index] += factor * d_score;
            }
        });
        sums
    }

    /// Of what each head has one number of: the parts of its rows.
    pub(super) fn of_rows(&self, call: &KnownGradients, operand: Operand) -> Vec<f64> {
        let problem = call.plan.problem().problem();
        let inputs = call.tensors.inputs();
        let mut sums = vec![0.0; self.len(operand)];
        let part = call.plan.scratch(Binding::RowSums, Some(operand));
        let start = part.map_or(0, |part| part.start / 4);
        for (row, [batch, head, at]) in problem.attention().shape.row_positions().enumerate() {
            if problem.stores(batch, at, &inputs.operands) {
                sums[head as usize] += self.last[start as usize + row];
            }
        }
        sums
    }

    /// Of centers: what 16 invocations have seen of each row of each head.
    fn of_centers(&self, call: &KnownGradients) -> Vec<f64> {
        let s = call.plan.problem().problem().attention().shape;
        let mut sums = vec![0.0; self.len(Operand::Centers)];
        let part = call.plan.scratch(Binding::CenterSums, None);
        let start = part.map_or(0, |part| part.start / 4) as usize;
        for (row, [batch, _, at]) in s.row_positions().enumerate() {
            let parts = &self.last[start + 16 * row..][..16];
            sums[(batch * s.seq_q + at) as usize] += parts.iter().sum::<f64>();
        }
        sums
    }
}
