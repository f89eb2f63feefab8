//! Kernels of gradients judged by q and k as they meet: the copies that prepare them, their gradients, and what the
//! steps after these make of both.

use super::backward_scratch::{HeldRows, Scratch};
use super::known::allowed;
use super::known_gradients::{KnownGradients, difference};
use super::quietly;
use crate::feature::{Operands, Position};
use crate::kernel::Binding;
use crate::plan::Makes;
use crate::problem::{Attention, Backward, Operand, Problem};
use crate::reference::{Gradients, OwnedInputs, places, prepare, rotated, unprepare};
use crate::tensor::{DType, Layout, Scalar};

impl HeldRows {
    fn get(&self, makes: Makes) -> Option<&[f64]> {
        self.0.iter().find(|(of, _)| *of == makes).map(|(_, values)| values.as_slice())
    }

    /// A row that lies as a copy of q or k does.
    fn row<'a>(
        &'a self,
        (problem, operands): (&Problem, &Operands<'_>),
        (makes, of): (Makes, Operand),
        at: [u32; 3],
        dim: u32,
    ) -> Option<&'a [f64]> {
        let values = self.get(makes)?;
        let start = problem.index_in(problem.copy_strides(of, dim), of, at, operands) as usize;
        values.get(start..start + dim as usize)
    }

    /// Such rows of all sequences and heads, `[batch, heads, seq, dim]`; 0 where packed tensors hold none.
    fn rows(&self, call: &KnownGradients, makes: Makes, of: Operand, dim: u32) -> Option<Vec<f64>> {
        self.get(makes)?;
        let problem = call.plan.problem().problem();
        let inputs = call.tensors.inputs();
        let place = (problem, &inputs.operands);
        let none = vec![0.0; dim as usize];
        let row = |at: [u32; 3]| {
            let held = at[2] < problem.rows_held(of, at[0], &inputs.operands);
            self.row(place, (makes, of), at, dim).filter(|_| held).unwrap_or(&none)
        };
        Some(places(problem, of).flat_map(|at| row(at).to_vec()).collect())
    }

    /// The gradient of q or k as they meet, where a step left it to another.
    pub(super) fn met(
        &self,
        call: &KnownGradients,
        makes: Makes,
        of: Operand,
    ) -> Option<Gradients> {
        let problem = call.plan.problem().problem();
        if !problem.prepares(of) {
            return None;
        }
        let rows = self.rows(call, makes, of, problem.attention().shape.dim_qk)?;
        let mut found = Gradients::default();
        found.insert(of, rows);
        Some(found)
    }

    /// Sums of each row's parts in the gradient of an additive score's weights; `None` where nobody asks for it.
    pub(super) fn columns(&self, call: &KnownGradients) -> Option<Vec<f64>> {
        let parts = self.get(Makes::Gradient(Operand::ScoreV))?;
        let problem = call.plan.problem().problem();
        let columns = problem.elements(Operand::ScoreV)? as usize;
        let rows = problem.attention().shape.rows() as usize * problem.dim(Operand::K) as usize;
        let mut sums = vec![0.0; columns];
        parts.iter().take(rows).enumerate().for_each(|(i, part)| sums[i % columns] += part);
        Some(sums)
    }
}

impl Scratch {
    /// A row of q, or of k at the pair's key, as they meet: of the copy that was found, where there is one.
    fn met<'a>(&'a self, call: &'a KnownGradients, of: Operand, at: &Position) -> &'a [f64] {
        let problem = call.plan.problem().problem();
        let s = problem.attention().shape;
        let place = match of {
            Operand::Q => [at.batch, at.head, at.row],
            _ => [at.batch, at.head / s.group(), at.key],
        };
        let operands = call.tensors.inputs().operands;
        let copy = self.held.row((problem, &operands), (Makes::Copy(of), of), place, s.dim_qk);
        copy.unwrap_or_else(|| call.row(of, at))
    }

    /// What a pair's score is made of, or the product of d_o and v.
    pub(super) fn product(&self, call: &KnownGradients, at: &Position, of_scores: bool) -> f64 {
        let a = call.plan.problem().problem().attention();
        if of_scores {
            let [q, k] = [Operand::Q, Operand::K].map(|of| self.met(call, of, at));
            return a.inner.score(at.head, q, k, &call.tensors.inputs().operands);
        }
        call.d_o(at).iter().zip(call.row(Operand::V, at)).map(|(d, v)| d * v).sum()
    }

    /// What is wrong with a copy of q or k; `None` where it cannot be looked at.
    pub(super) fn copy(&self, call: &KnownGradients, of: Operand) -> Option<Option<String>> {
        let problem = call.plan.problem().problem();
        let wanted = prepare(problem, &call.tensors.inputs(), of, |x| x)?;
        self.copied(call, (Makes::Copy(of), of), problem.attention().shape.dim_qk, &wanted)
    }

    /// What is wrong with q as it is multiplied with a general score's matrix, rotated.
    pub(super) fn turned(&self, call: &KnownGradients) -> Option<Option<String>> {
        let problem = call.plan.problem().problem();
        let wanted = rotated(problem, &call.tensors.inputs(), Operand::Q)?;
        self.copied(call, (Makes::Turned, Operand::Q), problem.dim(Operand::Q), &wanted)
    }

    fn copied(
        &self,
        call: &KnownGradients,
        (makes, of): (Makes, Operand),
        dim: u32,
        wanted: &[f64],
    ) -> Option<Option<String>> {
        let problem = call.plan.problem().problem();
        let inputs = call.tensors.inputs();
        for (at, wanted) in places(problem, of).zip(wanted.chunks(dim as usize)) {
            if at[2] >= problem.rows_held(of, at[0], &inputs.operands) {
                continue;
            }
            let found = self.held.row((problem, &inputs.operands), (makes, of), at, dim)?;
            let near = |c: &usize| {
                let (x, e) = (found[*c], wanted[*c]);
                (x - e).abs() <= allowed(DType::F32) * e.abs().max(1.0)
            };
            if let Some(c) = (0..wanted.len()).find(|c| !near(c)) {
                let ([batch, head, row], x, e) = (at, found[c], wanted[c]);
                return Some(Some(format!(
                    "wrong in the self-test: copy of {of}, {batch},{head},{row},{c}, is {x:e}, want {e:e}"
                )));
            }
        }
        Some(None)
    }

    /// What is wrong with the gradient of q or k as they meet, as the sum of what is in scratch and the rows that were
    /// found; of q also with its rows' parts in the gradient of an additive score's weights.
    pub(super) fn met_sums(&self, call: &KnownGradients, of: Operand) -> Option<String> {
        let backward = call.plan.problem();
        let problem = backward.problem();
        let (a, inputs) = (problem.attention(), call.tensors.inputs());
        let s = a.shape;
        let dim = s.dim_qk as usize;
        let mut d_q = vec![0.0; s.rows() as usize * dim];
        let mut d_k = vec![0.0; (s.batch * s.heads_kv * s.seq_kv) as usize * dim];
        let mut d_w = vec![0.0; problem.elements(Operand::ScoreV).unwrap_or(dim as u64) as usize];
        self.each_pair(call, Binding::Grads, |at, d| {
            let [q, k] = [Operand::Q, Operand::K].map(|of| self.met(call, of, at));
            let w = a.inner.weights(at.head, dim, &inputs.operands);
            let q_row = ((at.batch * s.heads_q + at.head) * s.seq_q + at.row) as usize;
            let k_row =
                ((at.batch * s.heads_kv + at.head / s.group()) * s.seq_kv + at.key) as usize;
            let own = if d_w.len() > dim { at.head as usize * dim } else { 0 };
            let into = [
                &mut d_q[q_row * dim..][..dim],
                &mut d_k[k_row * dim..][..dim],
                &mut d_w[own..][..dim],
            ];
            a.inner.backward(d, [q, k, w], into, |sum, a, b| *sum += a * b);
        });
        let mut wanted = Gradients::default();
        wanted.insert(of, if of == Operand::Q { d_q } else { d_k });
        wanted.insert(Operand::ScoreV, d_w);
        let left = self.held.met(call, Makes::Gradient(of), of);
        let rows = match &left {
            Some(found) => difference(backward, of, found, &wanted),
            None if backward.wants(of) => difference(backward, of, &self.gradients, &wanted),
            None => None,
        };
        let parts = || {
            let mut found = Gradients::default();
            found.insert(Operand::ScoreV, self.held.columns(call).filter(|_| of == Operand::Q)?);
            difference(backward, Operand::ScoreV, &found, &wanted)
        };
        rows.or_else(parts)
    }

    /// The gradient of q or k as they meet that was found.
    fn found_as_they_meet(&self, call: &KnownGradients, of: Operand) -> Option<Vec<f64>> {
        let makers = match of {
            Operand::Q => [Makes::Gradient(Operand::Q), Makes::OfQueries, Makes::OfRows],
            _ => [Makes::Gradient(Operand::K), Makes::OfKeys, Makes::OfKeys],
        };
        let found = makers.iter().find_map(|makes| self.held.met(call, *makes, of))?;
        found.get(of).map(<[f64]>::to_vec)
    }

    /// What is wrong with the gradient of q or k before they were prepared, made of that of the copy which was found,
    /// and with each head's sum of its rows' parts in the gradient of its factor; `None` where nobody knows.
    pub(super) fn unprepared(&self, call: &KnownGradients, of: Operand) -> Option<Option<String>> {
        let backward = call.plan.problem();
        let problem = backward.problem();
        let inputs = call.tensors.inputs();
        let (rows, entries) = unprepare(problem, &inputs, of, self.found_as_they_meet(call, of)?);
        let mut wanted = Gradients::default();
        wanted.insert(of, rows);
        let found = || difference(backward, of, &self.gradients, &wanted);
        let wrong = backward.wants(of).then(found).flatten();
        if wrong.is_some() || of != Operand::Q || !backward.wants(Operand::HeadScale) {
            return Some(wrong);
        }
        let mut factors = vec![0.0; problem.attention().shape.heads_q as usize];
        for entry in entries.iter().filter(|entry| entry.operand == Operand::HeadScale) {
            factors[entry.index] += entry.factor;
        }
        let mut found = Gradients::default();
        found.insert(Operand::HeadScale, self.of_rows(call, Operand::HeadScale));
        wanted.insert(Operand::HeadScale, factors);
        Some(difference(backward, Operand::HeadScale, &found, &wanted))
    }

    /// Of a general score's matrix: rows of q as they are multiplied with it, and the gradient of what they became.
    pub(super) fn of_matrix(&self, call: &KnownGradients) -> Vec<f64> {
        let problem = call.plan.problem().problem();
        let inputs = call.tensors.inputs();
        let [dim_q, dim] = [problem.dim(Operand::Q), problem.attention().shape.dim_qk];
        let mut sums = vec![0.0; self.len(Operand::ScoreMatrix)];
        let Some(d) = self.found_as_they_meet(call, Operand::Q) else { return sums };
        let place = (problem, &inputs.operands);
        for (at, d) in places(problem, Operand::Q).zip(d.chunks(dim as usize)) {
            if at[2] >= problem.rows_held(Operand::Q, at[0], &inputs.operands) {
                continue;
            }
            let given = problem.index(Operand::Q, at, &inputs.operands) as usize;
            let turned = self.held.row(place, (Makes::Turned, Operand::Q), at, dim_q);
            let x = turned.unwrap_or_else(|| &inputs.q[given..given + dim_q as usize]);
            for (e, x) in x.iter().enumerate() {
                let row = &mut sums[e * dim as usize..][..dim as usize];
                row.iter_mut().zip(d).for_each(|(sum, d)| *sum += x * d);
            }
        }
        sums
    }

    /// The reference's gradients of q and k as they meet, and of v, of the copies that were found.
    pub(super) fn wanted_as_they_meet(&self, call: &KnownGradients) -> Option<Gradients> {
        let asked = call.plan.problem().backward();
        let problem = call.plan.problem().problem();
        if ![Operand::Q, Operand::K].iter().any(|of| problem.prepares(*of)) {
            return call.wanted().ok();
        }
        let mut inputs: OwnedInputs = call.tensors.owned().clone();
        let mut met = Attention {
            scale: Some(Scalar(problem.scale())),
            dtype: DType::F32,
            kv_storage: None,
            rotary: None,
            cosine: None,
            general: None,
            ..problem.attention().clone()
        };
        let dim = met.shape.dim_qk;
        for of in [Operand::Q, Operand::K].into_iter().filter(|of| problem.prepares(*of)) {
            let layout = Layout::Strided(problem.copy_strides(of, dim));
            let place = if of == Operand::Q { &mut met.layout_q } else { &mut met.layout_k };
            *place = layout;
            let mut rows = self.held.get(Makes::Copy(of))?.to_vec();
            rows.truncate(problem.copy_rows(of) as usize * dim as usize);
            inputs.set(of, rows);
        }
        let mut backward_of = Backward { attention: met, accumulate: false, ..asked.clone() };
        backward_of = backward_of.only(&[Operand::Q, Operand::K, Operand::V]);
        let of_met = backward_of.validate().ok()?;
        for operand in [
            Operand::RotaryCos,
            Operand::RotarySin,
            Operand::Positions,
            Operand::KeyPositions,
            Operand::HeadScale,
            Operand::ScoreMatrix,
        ] {
            inputs.set(operand, Vec::new());
        }
        quietly(|| of_met.reference(&inputs.inputs(), &call.incoming())).ok()
    }
}
