//! Functions of the caller's own against their closures: where the two differ, the call is wrong and no kernel is.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::extent;
use super::known::{Known, allowed, small};
use crate::device::{self, Wait};
use crate::engine::bound::Tables;
use crate::engine::parameters::base_params;
use crate::engine::range::BoundRange;
use crate::engine::{Draft, Engine, HostTables, Tensors, bind};
use crate::error::{Error, Result};
use crate::feature::mask::Mask;
use crate::feature::score::Score;
use crate::feature::{Operands, Position};
use crate::kernel::{Binding, KernelSpec, SPLIT_N, Work};
use crate::plan::Plan;
use crate::problem::{Attention, Problem};
use crate::tensor::DType;

/// Rows and keys for which functions are asked, at most.
const ROWS: u32 = 67;
const KEYS: u32 = 135;

/// Closures remembered, at most.
const MOST: usize = 4096;

/// What is known of the caller's own functions.
#[derive(Debug, Default)]
pub(in crate::engine) struct Functions {
    /// Closures that agree with their WGSL, each with how large a call it was.
    agreed: Mutex<HashSet<(u64, [u32; 2])>>,
    /// What the device says, by the call that asked it; closures of the same WGSL are compared with it.
    answers: Mutex<HashMap<Attention, Arc<Vec<f64>>>>,
}

impl Engine {
    /// Compares the caller's own functions with their closures, as the device computes them.
    ///
    /// # Errors
    /// Invalid argument that names the function, the place and both values.
    pub(super) async fn functions_agree(&self, attention: &Attention, wait: Wait) -> Result<()> {
        let own = Own(attention);
        let size = extent(attention);
        // What a table means is known to the caller only.
        if own.len() == 0 || attention.table.is_some() || self.functions.agree(&own, size) {
            return Ok(());
        }
        let Some(small) = small(attention, ROWS, KEYS) else { return Ok(()) };
        let plan = Plan::for_functions(&small.validate()?);
        let known = Known::new(plan.problem(), false);
        let answers = match self.functions.answers(&small) {
            Some(answers) => answers,
            None => match self.own_functions(&plan, &known, wait).await? {
                Some(answers) => self.functions.keep(small.clone(), answers),
                None => return Ok(()),
            },
        };
        own.compare(plan.problem(), &known.inputs().operands, &answers)?;
        self.functions.add(&own, size);
        Ok(())
    }

    /// What the functions say on the device, `[functions, batch, heads_q, seq_q, seq_kv]`; `None` where their
    /// kernel does not serve here: then the call's own kernels are compared as a whole.
    async fn own_functions(
        &self,
        plan: &Plan,
        known: &Known,
        wait: Wait,
    ) -> Result<Option<Vec<f64>>> {
        let problem = plan.problem();
        let spec = KernelSpec::own_functions(problem);
        match self.compile(&[&spec], wait).await.remove(0) {
            Err(error) if error.is_internal() => return Ok(None),
            other => other?,
        }
        let s = problem.attention().shape;
        let count = Own(problem.attention()).len() as u32;
        let elements = u64::from(count) * s.rows() * u64::from(s.seq_kv);
        let inputs = known.inputs();
        let host = HostTables::new(problem, &inputs.operands);
        let work = || {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            let out = device::create_buffer(&self.device, "self-test", 4 * elements, usage)?;
            let mut tensors = Tensors::new(&out, &out, &out, &out);
            host.set(&mut tensors);
            let tables = Tables::new(problem, &tensors, 0);
            let aux = device::upload(&self.device, "self-test", &tables.bytes, usage)?;
            let params = base_params(plan, &tables.base).with([SPLIT_N.is(s.batch)]);
            let mut ranges = vec![(Binding::Weights, BoundRange::whole(&out))];
            if spec.needs_aux() {
                ranges.push((Binding::Aux, BoundRange::whole(&aux)));
            }
            let work = Work {
                batch: s.batch,
                heads: s.heads_q,
                rows: s.seq_q,
                keys: s.seq_kv,
                shares: count,
                ..Work::default()
            };
            let draft = Draft::new(spec, work, params, ranges);
            self.tried_once(&bind(self, [draft])?, &out, 0..out.size())
        };
        let back = device::settled(work).await?;
        let mut found = DType::F32.decode(&back.get(wait).await?);
        found.truncate(elements as usize);
        Ok(Some(found))
    }
}

impl Functions {
    fn agree(&self, own: &Own<'_>, size: [u32; 2]) -> bool {
        let agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        own.ids().all(|id| agreed.contains(&(id, size)))
    }

    fn add(&self, own: &Own<'_>, size: [u32; 2]) {
        let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        if agreed.len() > MOST {
            agreed.clear();
        }
        agreed.extend(own.ids().map(|id| (id, size)));
    }

    fn answers(&self, call: &Attention) -> Option<Arc<Vec<f64>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(call).cloned()
    }

    fn keep(&self, call: Attention, answers: Vec<f64>) -> Arc<Vec<f64>> {
        let answers = Arc::new(answers);
        let mut kept = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() > 64 {
            kept.clear();
        }
        kept.insert(call, Arc::clone(&answers));
        answers
    }
}

/// The functions of a call, score modifiers first.
struct Own<'a>(&'a Attention);

impl Own<'_> {
    fn len(&self) -> usize {
        self.0.custom_scores.len() + self.0.custom_masks.len()
    }

    fn ids(&self) -> impl Iterator<Item = u64> {
        let scores = self.0.custom_scores.iter().map(|score| score.id());
        scores.chain(self.0.custom_masks.iter().map(|mask| mask.id()))
    }

    /// The i-th function by name, and what its closure says; 1 or 0 for a mask.
    fn ask(&self, i: usize, s: f64, at: &Position) -> (String, Result<f64, String>) {
        let none = Operands::default();
        let quiet = |closure: &dyn Fn() -> f64| {
            catch_unwind(AssertUnwindSafe(closure)).map_err(|panic| message(&*panic))
        };
        match self.0.custom_scores.get(i) {
            Some(score) => {
                let name = format!("custom score {:?}", score.name());
                (name, quiet(&|| score.apply(s, at, &none)))
            }
            None => {
                let mask = &self.0.custom_masks[i - self.0.custom_scores.len()];
                let name = format!("custom mask {:?}", mask.name());
                (name, quiet(&|| f64::from(u8::from(mask.keeps(at, &none, &self.0.shape)))))
            }
        }
    }

    /// Asks every closure for every pair within the lengths, and compares it with the device.
    fn compare(&self, problem: &Problem, operands: &Operands<'_>, answers: &[f64]) -> Result<()> {
        let s = problem.attention().shape;
        let mask = |i: usize| i >= self.0.custom_scores.len();
        for i in 0..self.len() {
            let first = i * (s.rows() * u64::from(s.seq_kv)) as usize;
            for (n, [batch, head, row]) in s.row_positions().enumerate() {
                let start = problem.position(batch, head, row, operands);
                let keys = if row < start.q_len { start.kv_len } else { 0 };
                for key in 0..keys {
                    let at = Position { key, ..start };
                    let score = f64::from((row * 7 + key * 13) % 33) * 0.125 - 2.0;
                    let (name, said) = self.ask(i, score, &at);
                    let found = answers[first + n * s.seq_kv as usize + key as usize];
                    let place = format!("batch {batch}, head {head}, row {row}, key {key}");
                    let said = said.map_err(|panic| {
                        let found = format!("a panic at {place}: {panic}");
                        Error::invalid(&name, found, "a closure that returns for every pair")
                    })?;
                    let near = said.is_finite()
                        && (found - said).abs() <= allowed(DType::F32) * said.abs().max(1.0);
                    if near || found == said || found.is_nan() && said.is_nan() {
                        continue;
                    }
                    let text = |x: f64| match mask(i) {
                        true => format!("{}", x != 0.0),
                        false => format!("{x:e} of the score {score}"),
                    };
                    let found = format!("{} from its WGSL at {place}", text(found));
                    let wanted = format!("{}, as its closure says", text(said));
                    return Err(Error::invalid(name, found, wanted));
                }
            }
        }
        Ok(())
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
