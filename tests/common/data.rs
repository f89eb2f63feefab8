//! Reproducible tensors for engine tests: uniform values from a small counter-based generator.

use heedful::feature::Operands;
use heedful::reference::Inputs;
use heedful::{Operand, Problem};

/// The tensors of one problem.
#[derive(Debug, Default)]
pub struct Data {
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub mask: Vec<bool>,
    pub bias: Vec<f64>,
    pub alibi_slopes: Vec<f64>,
    pub sinks: Vec<f64>,
    pub kv_lengths: Vec<u32>,
    pub q_lengths: Vec<u32>,
    pub offsets: Vec<i32>,
}

/// SplitMix64: uniform in [0, 1) from a seed and an index.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut z = seed
        .wrapping_mul(0xd134_2543_de82_ef95)
        .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Data {
    /// Tensors for every operand of `problem`, rounded to its storage type.
    pub fn new(problem: &Problem, seed: u64) -> Self {
        let a = problem.attention();
        let mut data = Self::default();
        for (i, (operand, n)) in problem.operands().into_iter().enumerate() {
            let at = |j: u64| uniform(seed * 31 + i as u64, j);
            let values = |low: f64, high: f64| -> Vec<f64> {
                (0..n).map(|j| f64::from((low + (high - low) * at(j)) as f32)).collect()
            };
            let stored = || values(-2.0, 2.0).iter().map(|x| a.dtype.round(*x)).collect();
            match operand {
                Operand::Q => data.q = stored(),
                Operand::K => data.k = stored(),
                Operand::V => data.v = stored(),
                Operand::Mask => data.mask = (0..n).map(|j| at(j) < 0.7).collect(),
                Operand::Bias => data.bias = values(-3.0, 3.0),
                Operand::AlibiSlopes => data.alibi_slopes = values(0.0, 0.5),
                Operand::Sinks => data.sinks = values(-4.0, 4.0),
                Operand::KvLengths => data.kv_lengths = below(n, at, a.shape.seq_kv),
                Operand::QLengths => data.q_lengths = below(n, at, a.shape.seq_q),
                Operand::Offsets => {
                    data.offsets = (0..n).map(|j| (at(j) * 20.0) as i32 - 10).collect();
                }
                Operand::O | Operand::Lse | Operand::Weights => {}
            }
        }
        data
    }

    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            operands: Operands {
                mask: &self.mask,
                bias: &self.bias,
                alibi_slopes: &self.alibi_slopes,
                sinks: &self.sinks,
                kv_lengths: &self.kv_lengths,
                q_lengths: &self.q_lengths,
                offsets: &self.offsets,
            },
        }
    }
}

fn below(n: u64, at: impl Fn(u64) -> f64, limit: u32) -> Vec<u32> {
    (0..n).map(|j| (at(j) * f64::from(limit + 1)) as u32).collect()
}
