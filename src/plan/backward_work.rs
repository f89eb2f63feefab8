//! What the products of a backward plan multiply, whole tiles as they are.

use std::ops::Range;

use crate::feature::{Operands, Position};
use crate::kernel::{Binding, TILE};
use crate::plan::{BackwardPlan, BackwardStep, Makes};
use crate::problem::Operand;

/// Channels, keys or rows that products take at a time.
const STEP: u32 = 16;

impl BackwardPlan {
    /// FLOPs of one pass as its products make them, those that are asked for. Staged: five products, over tiles of 64
    /// rows by 64 keys in which any pair is visible; additive scores are no products. Fused: seven, or eight where the
    /// gradient of q is corrected, over the keys that any of 64 rows sees. Tables that `operands` lack are taken as
    /// full lengths and offsets of 0.
    pub fn flops(&self, operands: &Operands<'_>) -> u64 {
        let problem = self.problem().problem();
        let s = problem.attention().shape;
        let summed = problem.attention().inner.is_sum();
        let mut total = 0_u64;
        for batch in 0..s.batch {
            for row in (0..s.seq_q).step_by(TILE as usize) {
                let (length, _) = problem.lengths(batch, operands);
                let last = (row + TILE).min(length).max(row + 1) - 1;
                let range = |row| {
                    let at = problem.position(batch, 0, row, operands);
                    problem.key_range(&Position { row, ..at })
                };
                let (first, last) = (range(row), range(last));
                let keys = first.start.min(last.start)..first.end.max(last.end);
                let rows = (s.seq_q - row).min(TILE);
                let one = self
                    .steps
                    .iter()
                    .filter(|step| !(summed && of_scores(step.makes)))
                    .map(|step| products(step, &keys, rows, [s.dim_qk, s.dim_v]));
                total = total.saturating_add(one.sum());
            }
        }
        total.saturating_mul(u64::from(s.heads_q)).saturating_mul(2)
    }
}

/// Whether it is a product only where scores are.
fn of_scores(makes: Makes) -> bool {
    matches!(makes, Makes::Products | Makes::Gradient(Operand::Q | Operand::K))
}

/// Multiply-adds of a step for a tile of rows of one head that sees these keys.
fn products(step: &BackwardStep, keys: &Range<u32>, rows: u32, [dim_qk, dim_v]: [u32; 2]) -> u64 {
    if keys.is_empty() {
        return 0;
    }
    let up = |n: u32, to: u32| u64::from(n.next_multiple_of(to));
    let within = |to: u32| up(keys.end, to) - u64::from(keys.start / to * to);
    let (tiles, steps) = (within(TILE), within(STEP));
    let (tile, pairs) = (u64::from(TILE), u64::from(rows) * within(1));
    let made = |binding| u64::from(step.kernel.has_element(binding));
    match step.makes {
        Makes::Products => tile * tiles * up(dim_qk, STEP),
        Makes::Incoming => tile * tiles * up(dim_v, STEP),
        Makes::Gradient(Operand::V) => tiles * up(rows, STEP) * up(dim_v, TILE),
        Makes::Gradient(Operand::K) => tiles * up(rows, STEP) * up(dim_qk, TILE),
        Makes::Gradient(Operand::Q) => tile * steps * up(dim_qk, TILE),
        Makes::OfRows => {
            let corrects = u64::from(step.kernel.corrects_means());
            pairs * ((1 + made(Binding::O) + corrects) * u64::from(dim_qk) + u64::from(dim_v))
        }
        Makes::OfQueries => pairs * (2 * u64::from(dim_qk) + u64::from(dim_v)),
        // Weights take the first product, gradients of scores the second as well.
        Makes::OfKeys => {
            let [d_k, d_v] = [Binding::O, Binding::DV].map(made);
            pairs * ((1 + d_k) * u64::from(dim_qk) + (d_k + d_v) * u64::from(dim_v))
        }
        Makes::Delta
        | Makes::Copy(_)
        | Makes::Turned
        | Makes::Rows
        | Makes::Gradient(_)
        | Makes::Unprepared(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use crate::feature::align::Align;
    use crate::plan::{BackwardPlan, Capabilities, Policy};
    use crate::problem::{Attention, Backward, Operand};
    use crate::tensor::Shape;

    #[test]
    fn whole_tiles_are_the_convention_and_others_more() -> crate::Result<()> {
        let none = Default::default();
        let of = |backward: Backward| {
            let problem = backward.validate()?;
            let plan = BackwardPlan::new(&problem, &Capabilities::default(), &Policy::default())?;
            Ok::<_, crate::Error>((plan.flops(&none), problem.flops(&none)))
        };
        let call = Attention::new(Shape::self_attention(1, 8, 256, 64));
        let (done, convention) = of(Backward::of(call.clone()))?;
        assert_eq!((done, convention), (5 * 2 * 8 * 256 * 256 * 64, done));
        // Four of ten tiles are half empty.
        let (causal, convention) = of(Backward::of(call.clone().causal(Align::TopLeft)))?;
        assert_eq!(causal, done * 10 / 16);
        assert!(convention < causal && 2 * convention > causal);
        let (some, _) = of(Backward::of(call).only(&[Operand::V]))?;
        assert_eq!(some, done * 3 / 5);
        Ok(())
    }
}
