//! The truth on the CPU: attention in float64, and the same computation in float32.
//!
//! `o[i] = Σ_j p_ij v_j`, `p_ij = exp(s_ij − lse_i)`, `s = bias(cap(scale · q_i·k_j))` over the keys
//! that row i sees. [`Problem::reference`] is the oracle that every kernel is compared with; `emulate` is an
//! honest float32 computation whose error says what a kernel may be blamed for. They share the
//! feature descriptors with the GPU side and nothing else, and neither is meant to be fast.

mod arithmetic;
mod backward;
mod call;
mod each;
mod emulate;
mod inputs;
mod matrix;
mod merge;
mod oracle;
mod prepare;

pub use backward::{Gradients, Incoming};
pub use inputs::Inputs;
// What results are judged by, in `verify` and in the tests of this repository.
#[doc(hidden)]
pub use backward::{backward_magnitudes, emulate_backward};
#[doc(hidden)]
pub use emulate::{Order, emulate};
#[doc(hidden)]
pub use inputs::OwnedInputs;
#[doc(hidden)]
pub use merge::merge_states;
#[doc(hidden)]
pub use prepare::prepare;
pub(crate) use prepare::{places, rotated, unprepare};

use crate::error::{Error, Result};
use crate::problem::{Operand, Problem};
use call::{Call, Row};
use each::each;

/// What a call computes, always without gaps.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// Output, `[batch, heads_q, seq_q, dim_v]`; 0 in rows that see no key.
    pub o: Vec<f64>,
    /// Log-sum-exp, `[batch, heads_q, seq_q]`, computed whether or not the problem asks for it; −∞
    /// (with a sink: the sink) in rows that see no key, −∞ in rows past their query length.
    pub lse: Vec<f64>,
    /// Scores or weights, `[batch, heads_q, seq_q, seq_kv]`, from the point the problem asks for.
    pub weights: Option<Vec<f64>>,
}

fn length(n: u64) -> String {
    format!("{n} element{}", if n == 1 { "" } else { "s" })
}

/// Computes every row with `row`, in parallel, into gapless outputs.
fn over_rows<F>(
    problem: &Problem,
    inputs: &Inputs<'_>,
    round: impl Fn(f64) -> f64,
    row: F,
) -> Result<Outputs>
where
    F: Fn(&Call<'_>, u32, u32, u32) -> Row + Sync,
{
    inputs.validate(problem)?;
    let prepared = [Operand::Q, Operand::K].map(|x| prepare(problem, inputs, x, &round));
    let s = problem.attention().shape;
    let rows = s.rows();
    let mut o = reserve("o", rows * u64::from(s.dim_v))?;
    let mut lse = reserve("lse", rows)?;
    let mut weights = match problem.attention().weights {
        Some(_) => Some(reserve("weights", rows * u64::from(s.seq_kv))?),
        None => None,
    };
    let (heads, seq_q) = (u64::from(s.heads_q), u64::from(s.seq_q));
    // In slices, so that finished rows do not all wait in memory beside the outputs.
    for first in (0..rows).step_by(1 << 14) {
        let slice = first..rows.min(first + (1 << 14));
        let call = || Call::new(problem, inputs, &prepared);
        let done = each(slice, call, |call, r| {
            let (batch, head) = (r / (heads * seq_q), r / seq_q % heads);
            row(call, batch as u32, head as u32, (r % seq_q) as u32)
        });
        for row in done {
            o.extend(row.o);
            lse.push(row.lse);
            if let Some(weights) = &mut weights {
                weights.extend(row.weights);
            }
        }
    }
    Ok(Outputs { o, lse, weights })
}

fn reserve(name: &str, elements: u64) -> Result<Vec<f64>> {
    let mut values = Vec::new();
    let reserved = usize::try_from(elements).map(|n| values.try_reserve_exact(n));
    match reserved {
        Ok(Ok(())) => Ok(values),
        _ => Err(Error::invalid(name, length(elements), "what this machine's memory holds")),
    }
}
