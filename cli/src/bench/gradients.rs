//! Rows of gradients: checked with the reference, timed beside the forward pass, held against the same limits.

use std::cell::OnceCell;
use std::time::Instant;

use heedful::bench::{Buffers, Workload, measure_backward_host};
use heedful::plan::tuning::tile_is_slower;
use heedful::reference::{Gradients, Incoming};
use heedful::verify::cases::draw_incoming;
use heedful::verify::compare::Comparison;
use heedful::verify::data::CaseData;
use heedful::verify::gradients::GradientTruth;
use heedful::{Attention, Backward, BackwardProblem, Normalizer, Operand, Path, Policy, Shape};

use super::check::is_plain;
use super::rows::{Row, Verdict};
use super::timing::{Session, shares};
use crate::Outcome;
use crate::table::Progress;

/// Above this much work by convention the reference checks the last sequence's last head of k and v only.
const CHECKED_FLOP: u64 = 400_000_000;

/// A workload's gradients of q, k and v, with their data, and the reference's once they are needed.
struct Call<'a> {
    problem: BackwardProblem,
    data: &'a CaseData,
    d_o: Vec<f64>,
    truth: OnceCell<GradientTruth>,
}

impl Session<'_> {
    /// Checks, then times, the gradients of a workload whose forward rows are `forward`, on each path that serves them;
    /// without the row that Ctrl-C broke off. lse is there for them, as it is in training.
    pub(super) fn gradients(
        &mut self,
        workload: &Workload,
        data: &CaseData,
        forward: &[Row],
        bar: &Progress,
    ) -> Outcome<Vec<Row>> {
        let mut attention = workload.attention.clone();
        attention.lse |= attention.normalizer == Normalizer::Softmax;
        let problem = Backward::of(attention).validate()?;
        let d_o = draw_incoming(&problem, 1).o;
        let call = Call { problem, data, d_o, truth: OnceCell::new() };
        let mut rows = Vec::new();
        // As with the tile of the forward pass.
        let slow = |path: &Path| {
            let slower = tile_is_slower(self.engine.capabilities()).is_some();
            *path == Path::FusedTile && self.args.path.is_none() && slower
        };
        let paths: Vec<Path> =
            self.args.gradient_paths().into_iter().filter(|p| !slow(p)).collect();
        for path in paths {
            if self.stopped() {
                break;
            }
            rows.extend(self.on_path(path, workload, &call, forward, bar)?);
        }
        Ok(rows)
    }

    fn on_path(
        &mut self,
        path: Path,
        workload: &Workload,
        call: &Call<'_>,
        forward: &[Row],
        bar: &Progress,
    ) -> Outcome<Option<Row>> {
        let a = call.problem.problem();
        let name = format!("gradients {}", workload.name);
        let (shape, features) = (workload.attention.shape.to_string(), a.feature_text());
        let mut row = Row::new(&name, shape, features, path.to_string());
        let operands = call.data.operands();
        row.gflop = call.problem.flops(&operands) as f64 / 1e9;
        row.megabytes = call.problem.min_bytes(&operands) as f64 / 1e6;
        if row.gflop > self.most_gflop() {
            let most = self.most_gflop();
            row.reason = format!("{:.0} GFLOP, more than --max-gflop {most:.0}", row.gflop);
            return Ok(Some(row));
        }
        let filled = self.fill_gradients(&mut row, path, call, bar);
        let row = self.ended(filled, row)?;
        let rates = forward.iter().filter_map(|row| row.gflops);
        let best = rates.max_by(f64::total_cmp);
        Ok(row.map(|row| {
            let of_forward = row.gflops.zip(best).map(|(rate, best)| rate / best);
            Row { of_forward, ..row }
        }))
    }

    /// Whether the row is whole.
    fn fill_gradients(
        &self,
        row: &mut Row,
        path: Path,
        call: &Call<'_>,
        bar: &Progress,
    ) -> heedful::Result<bool> {
        let engine = &self.engine;
        let begins = |what: &str| bar.within(&format!("{}: {what}", row.name));
        begins("compiling");
        let compiled = engine.compiled_kernels();
        let start = Instant::now();
        let policy = Policy { path, ..Policy::default() };
        let plan = engine.plan_backward_with(call.problem.backward(), &policy)?;
        engine.prepare_backward(&plan)?;
        let first_use = start.elapsed().as_secs_f64() * 1e3;
        row.first_use_ms = (engine.compiled_kernels() > compiled).then_some(first_use);
        let kernels: Vec<String> = plan.kernels().iter().map(ToString::to_string).collect();
        row.kernel = kernels.join(" ");
        row.workspace_bytes = plan.workspace_bytes();
        row.done_gflop = Some(plan.flops(&call.data.operands()) as f64 / 1e9);
        begins("first run");
        let (inputs, incoming) = (call.data.inputs(), call.incoming());
        let found = engine.run_backward_host(&plan, &inputs, &incoming)?;
        begins("checking with the float64 reference");
        let checked = call.check(&found)?;
        let worst = checked.iter().max_by(|a, b| a.tolerance_ratio.total_cmp(&b.tolerance_ratio));
        row.max_abs = checked.iter().map(|x| x.max_abs).max_by(f64::total_cmp);
        row.tolerance_ratio = worst.map(|x| x.tolerance_ratio).filter(|ratio| ratio.is_finite());
        if let Some(wrong) = checked.iter().find(|x| !x.pass) {
            // A wrong result has no time.
            row.verdict = Verdict::Wrong;
            row.reason = wrong.message();
            return Ok(true);
        }
        if self.stopped() {
            return Ok(false);
        }
        begins("timing");
        let buffers = self.args.buffers();
        let budget = self.args.budget();
        let (time, dispatches) =
            measure_backward_host(engine, &plan, &inputs, &incoming, buffers, budget)?;
        row.timed(&time);
        row.buffers = Some(buffers);
        row.dispatches = Some(dispatches);
        shares(row, &self.roofline, self.matmul_gflops, path, buffers == Buffers::Same);
        Ok(true)
    }
}

impl Call<'_> {
    fn incoming(&self) -> Incoming<'_> {
        Incoming { o: &self.d_o, ..Incoming::default() }
    }

    /// The reference's gradients, computed once.
    fn known(
        &self,
        measure: impl FnOnce() -> heedful::Result<GradientTruth>,
    ) -> heedful::Result<&GradientTruth> {
        if self.truth.get().is_none() {
            let _ = self.truth.set(measure()?);
        }
        let missing = || heedful::Error::internal("checking", "no gradients of the reference");
        self.truth.get().ok_or_else(missing)
    }

    /// Compares gradients with the reference's: all of them, or those of the last head of k and v with its group.
    fn check(&self, found: &Gradients) -> heedful::Result<Vec<Comparison>> {
        let call = self.problem.problem();
        let s = call.attention().shape;
        let large = self.problem.flops(&self.data.operands()) > CHECKED_FLOP;
        if !(large && is_plain(call)) {
            let truth =
                || GradientTruth::measure(&self.problem, &self.data.inputs(), &self.incoming());
            let checked = self.known(truth)?.check(found);
            return Ok(checked.into_iter().map(|(_, comparison)| comparison).collect());
        }
        let shape = Shape { batch: 1, heads_q: s.group(), heads_kv: 1, ..s };
        let part = Attention { shape, ..call.attention().clone() };
        let problem = Backward::of(part).validate()?;
        let tail = |values: &[f64], heads: u32, rows: u32, dim: u32| {
            let n = heads as usize * rows as usize * dim as usize;
            values[values.len() - n..].to_vec()
        };
        let data = CaseData {
            q: tail(&self.data.q, s.group(), s.seq_q, s.dim_qk),
            k: tail(&self.data.k, 1, s.seq_kv, s.dim_qk),
            v: tail(&self.data.v, 1, s.seq_kv, s.dim_v),
            ..CaseData::default()
        };
        let d_o = tail(&self.d_o, s.group(), s.seq_q, s.dim_v);
        let incoming = Incoming { o: &d_o, ..Incoming::default() };
        let truth = self.known(|| GradientTruth::measure(&problem, &data.inputs(), &incoming))?;
        let sizes = [
            (Operand::Q, s.group(), s.seq_q, s.dim_qk),
            (Operand::K, 1, s.seq_kv, s.dim_qk),
            (Operand::V, 1, s.seq_kv, s.dim_v),
        ];
        let mut own = Gradients::default();
        for (operand, heads, rows, dim) in sizes {
            own.insert(operand, tail(found.get(operand).unwrap_or_default(), heads, rows, dim));
        }
        Ok(truth.check(&own).into_iter().map(|(_, comparison)| comparison).collect())
    }
}
