//! w · keep / (1 − rate), where keep is 0 with probability `rate` and else 1 (Srivastava et al., 2014);
//! [`Attention::dropout`](crate::Attention::dropout) says which weights go.

use crate::error::{Error, Result};
use crate::feature::philox::philox;
use crate::feature::{Parameter, Position, Setting, Slot, slot};
use crate::tensor::Scalar;

/// The seed's words, the least lot that stays, and 1 / (1 − rate).
const LOW: Parameter = Parameter::u32("dropout_seed_low");
const HIGH: Parameter = Parameter::u32("dropout_seed_high");
const BELOW: Parameter = Parameter::u32("dropout_below");
const SCALE: Parameter = Parameter::f32("dropout_scale");

pub(crate) const SLOT: Slot = slot!("weight", "dropout", LOW, HIGH, BELOW, SCALE);

/// Lots there are.
const LOTS: f32 = 16_777_216.0;

/// Weights left out at random while a model learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Dropout {
    /// The share of weights that are left out, at least 0 and below 1; counted in steps of 2⁻²⁴.
    pub rate: Scalar,
    /// Equal seeds leave out equal weights, on every device.
    pub seed: u64,
}

impl Dropout {
    pub(crate) fn validate(&self) -> Result<()> {
        let rate = self.rate.get();
        if (0.0..1.0).contains(&rate) {
            return Ok(());
        }
        Err(Error::invalid("dropout rate", rate, "at least 0 and below 1"))
    }

    /// A word for names of cases, plans and messages.
    pub(crate) fn text(&self) -> String {
        format!("dropout({:?},{})", self.rate.get(), self.seed)
    }

    fn below(&self) -> u32 {
        (self.rate.get() * LOTS) as u32
    }

    fn scale(&self) -> f32 {
        1.0 / (1.0 - self.rate.get())
    }

    pub(crate) fn parameters(&self) -> Vec<Setting> {
        let [low, high] = [self.seed as u32, (self.seed >> 32) as u32];
        vec![LOW.is(low), HIGH.is(high), BELOW.is(self.below()), SCALE.is(self.scale())]
    }

    /// What a weight is multiplied with, in a call of so many query heads.
    pub(crate) fn factor(&self, at: &Position, heads_q: u32) -> f64 {
        let counter = [at.row, at.key >> 2, at.batch * heads_q + at.head, 1];
        let lot = philox(counter, self.seed)[at.key as usize % 4] >> 8;
        if lot < self.below() { 0.0 } else { f64::from(self.scale()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Dropout;
    use crate::feature::Position;
    use crate::tensor::Scalar;

    #[test]
    fn as_many_are_left_out_as_the_rate_says_and_the_mean_stays() {
        let at = |i: u32| Position {
            batch: 0,
            head: i / 4096,
            row: i / 64 % 64,
            key: i % 64,
            q_len: 64,
            kv_len: 64,
            diagonal: 0,
        };
        for rate in [0.0, 0.1, 0.5, 0.9] {
            let dropout = Dropout { rate: Scalar(rate), seed: 11 };
            let factors: Vec<f64> = (0..32_768).map(|i| dropout.factor(&at(i), 8)).collect();
            let dropped = factors.iter().filter(|x| **x == 0.0).count() as f64 / 32_768.0;
            assert!((dropped - f64::from(rate)).abs() < 0.01, "{rate}: {dropped}");
            let mean = factors.iter().sum::<f64>() / 32_768.0;
            assert!((mean - 1.0).abs() < 0.1, "{rate}: {mean}");
        }
        let other = |seed| Dropout { rate: Scalar(0.5), seed }.factor(&at(3), 8);
        assert!((0..32).any(|seed| other(seed) != other(0)));
        assert!(Dropout { rate: Scalar(1.0), seed: 0 }.validate().is_err());
        assert!(Dropout { rate: Scalar(f32::NAN), seed: 0 }.validate().is_err());
    }
}
