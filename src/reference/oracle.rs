//! The oracle: attention as it is defined, in float64, one row at a time.
//!
//! ```text
//! for each (batch, head, row):
//!     s[j]  = bias(cap(scale · inner(q, k[j])))   for the keys j that the row sees
//!     p     = normaliser(s), the sink in the sum
//!     o     = Σ p[j] · v[j]                  over the same keys
//!     lse   = max s + ln Σ exp(s − max s)
//! ```
//! k and v of a key that a row does not see are never read for its o and lse, so what lies there cannot
//! matter. Visible keys follow plain IEEE arithmetic, whatever their weight: 0 times NaN or ∞ in v is NaN.
//! Only what one key takes (hard attention) leaves the others' v out.
//!
//! Two things are those of float32, since no kernel can tell otherwise: a score past its range is ±∞, and a
//! weight below its smallest normal number is 0 where it meets ∞.

use crate::error::Result;
use crate::feature::Position;
use crate::feature::score::Stage;
use crate::problem::Problem;
use crate::reference::call::{Call, Row};
use crate::reference::{Inputs, Outputs, over_rows};

impl Problem {
    /// Computes o, lse and the weights that are returned in float64, on the CPU, in the shapes of [`Outputs`].
    ///
    /// ```
    /// use heedful::reference::Inputs;
    /// use heedful::{Attention, Shape};
    /// let problem = Attention::new(Shape::self_attention(1, 1, 2, 1)).validate()?;
    /// let (q, k, v) = ([0.0, 0.0], [1.0, 2.0], [3.0, 5.0]);
    /// let outputs = problem.reference(&Inputs { q: &q, k: &k, v: &v, operands: Default::default() })?;
    /// assert_eq!(outputs.o, [4.0, 4.0]);
    /// # Ok::<(), heedful::Error>(())
    /// ```
    ///
    /// # Errors
    /// An invalid-argument error that names the tensor whose length does not fit the problem.
    pub fn reference(&self, inputs: &Inputs<'_>) -> Result<Outputs> {
        over_rows(self, inputs, in_range, |call, batch, head, row| {
            attend_row(call, self.position(batch, head, row, call.operands))
        })
    }
}

fn attend_row(call: &Call<'_>, mut at: Position) -> Row {
    let shape = call.problem.attention().shape;
    let a = call.problem.attention();
    let q = call.q(&at);
    let inner = |at: &Position| in_range(a.inner.score(at.head, q, call.k(at), call.operands));
    let mut score = |key| {
        at.key = key;
        call.sees(&at).then(|| call.score(inner(&at), &at, Stage::Biased, in_range))
    };
    let mut scores: Vec<Option<f64>> = (0..shape.seq_kv).map(&mut score).collect();
    call.forward_only(at, &mut scores, in_range);
    let drawn = call.drawn(at, &scores);

    let mut weights = vec![0.0; scores.len()];
    let lse = a.normalizer.weights(&scores, &drawn, call.sink(&at), &mut weights);
    call.place(at, &mut weights);
    let taken = a.normalizer.takes_one();

    let mut o = vec![0.0; shape.dim_v as usize];
    for (key, weight) in (0..shape.seq_kv).zip(&weights) {
        // What is not taken at all is not read: an infinity there is no part of the sum.
        if scores[key as usize].is_some() && (!taken || *weight != 0.0) {
            at.key = key;
            for (sum, v) in o.iter_mut().zip(call.v(&at)) {
                let gone = v.is_infinite() && weight.abs() < f64::from(f32::MIN_POSITIVE);
                *sum += if gone { f64::NAN } else { weight * v };
            }
        }
    }
    let scale = call.value_scale(&at);
    o.iter_mut().for_each(|x| *x *= scale);
    let weights = call.shown(at, weights, inner, in_range);
    Row { o, lse, weights }
}

/// A number, or ±∞ where it is past the range of float32.
fn in_range(x: f64) -> f64 {
    if (x as f32).is_infinite() { f64::from(x as f32) } else { x }
}
