//! `Backward`: which gradients of a call are wanted, as plain data, and what makes them impossible.

use std::fmt;

use crate::error::{Error, Result};
use crate::feature::normalize::Normalizer;
use crate::problem::{Attention, Operand, Problem, WeightsAt};
use crate::tensor::DType;

/// The gradients of one attention call, as plain data: of ⟨d_o, o⟩, and of ⟨d_lse, lse⟩ and
/// ⟨d_weights, weights⟩ where those come with the tensors too.
///
/// Each gradient has the shape and the layout of the tensor it belongs to; that of a tensor which is broadcast is
/// summed over what it serves. Masked pairs pass nothing on, and rows that see no key have gradients 0.
///
/// ```
/// use heedful::{Align, Attention, Backward, Operand, Shape};
/// let attention = Attention::new(Shape::self_attention(1, 8, 128, 64)).causal(Align::TopLeft);
/// let backward = Backward::of(attention.sinks()).with(Operand::Sinks);
/// let problem = backward.validate()?;
/// assert_eq!(problem.wanted(), [Operand::Q, Operand::K, Operand::V, Operand::Sinks]);
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Backward {
    /// The call whose gradients they are.
    pub attention: Attention,
    /// The tensors whose gradients are wanted, in the order of [`Operand`]; what is not wanted is not computed.
    pub wanted: Vec<Operand>,
    /// Whether a gradient of lse comes with the tensors, `[batch, heads_q, seq_q]` as lse itself.
    pub from_lse: bool,
    /// Whether a gradient of the returned weights comes with the tensors, `[batch, heads_q, seq_q, seq_kv]`.
    pub from_weights: bool,
    /// Whether gradients of q, k and v are f32 even where these are stored in 16 bits.
    #[cfg_attr(feature = "serde", serde(default))]
    pub in_f32: bool,
    /// Whether gradients are added to what is there rather than written over it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub accumulate: bool,
}

impl Backward {
    /// The gradients of q, k and v.
    pub fn of(attention: Attention) -> Self {
        let wanted = vec![Operand::Q, Operand::K, Operand::V];
        let (from_lse, from_weights, in_f32, accumulate) = (false, false, false, false);
        Self { attention, wanted, from_lse, from_weights, in_f32, accumulate }
    }

    /// The gradients of every tensor of the call that has one.
    ///
    /// # Errors
    /// As [`Attention::validate`].
    pub fn all(attention: Attention) -> Result<Self> {
        let problem = attention.validate()?;
        let has =
            |operand: &Operand| operand.has_gradient() && problem.elements(*operand).is_some();
        let wanted: Vec<Operand> = Operand::ALL.iter().copied().filter(has).collect();
        Ok(Self::of(attention).only(&wanted))
    }

    /// Other gradients than those of q, k and v.
    pub fn only(mut self, wanted: &[Operand]) -> Self {
        self.wanted = wanted.to_vec();
        self.in_order()
    }

    /// One more gradient.
    pub fn with(mut self, operand: Operand) -> Self {
        self.wanted.push(operand);
        self.in_order()
    }

    /// Takes a gradient of lse as well.
    pub fn from_lse(mut self) -> Self {
        self.from_lse = true;
        self
    }

    /// Takes a gradient of the returned weights ([`WeightsAt::Probabilities`]) as well.
    pub fn from_weights(mut self) -> Self {
        self.from_weights = true;
        self
    }

    /// Gradients of q, k and v in f32, whatever these are stored in: with the elements' strides of the tensors they
    /// belong to. Those of other tensors always are.
    pub fn in_f32(mut self) -> Self {
        self.in_f32 = true;
        self
    }

    /// Adds gradients to what is there, as sums over micro-batches need: an element g becomes g + gradient, rounded to
    /// f32 once. All gradients must be f32 ([`in_f32`](Self::in_f32)). Gradients are still the same bits in every run.
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }

    fn in_order(mut self) -> Self {
        self.wanted.sort_unstable();
        self.wanted.dedup();
        self
    }

    /// Resolves the call and refuses gradients that it cannot have.
    ///
    /// # Errors
    /// Invalid argument naming the tensor or the feature, and why there is no gradient.
    pub fn validate(&self) -> Result<BackwardProblem> {
        let problem = self.attention.validate()?;
        let a = &self.attention;
        self.check_call(&problem)?;
        for &operand in &self.wanted {
            let argument = || operand.gradient_name();
            if !operand.has_gradient() {
                return Err(Error::invalid(argument(), operand, "a tensor with a gradient"));
            }
            if problem.elements(operand).is_none() {
                return Err(Error::invalid(
                    argument(),
                    "a call without it",
                    "a tensor of the call",
                ));
            }
        }
        if self.wanted.is_empty() {
            return Err(Error::invalid("gradients wanted", "none", "at least one"));
        }
        if self.from_lse && !a.lse {
            return Err(Error::invalid("gradient of lse", "a call without lse", "a call with it"));
        }
        if self.from_weights && a.weights != Some(WeightsAt::Probabilities) {
            let found = a.weights.map_or("no weights".into(), |at| format!("{at:?}"));
            return Err(Error::invalid("gradient of weights", found, "returned probabilities"));
        }
        let mut backward = self.clone().in_order();
        backward.attention = a.clone();
        let backward = BackwardProblem { backward, problem };
        let coarse = |of: &&Operand| backward.gradient_dtype(**of) != DType::F32;
        if let Some(&of) = backward.wanted().iter().find(coarse).filter(|_| self.accumulate) {
            let found = format!("gradients in {}", backward.gradient_dtype(of));
            let wanted = "f32 to add to (Backward::in_f32)";
            return Err(Error::invalid(
                format!("accumulate: {}", of.gradient_name()),
                found,
                wanted,
            ));
        }
        Ok(backward)
    }

    /// What of the call has no derivative.
    fn check_call(&self, problem: &Problem) -> Result<()> {
        let a = &self.attention;
        let refuse = |argument: &str, found: &str, wanted: &str| {
            Err(Error::invalid(format!("gradients: {argument}"), found, wanted))
        };
        match a.normalizer {
            Normalizer::Hard | Normalizer::Sample { .. } | Normalizer::Monotonic => {
                let wanted = "a normaliser with a derivative: the choice of a key has none (docs/guide.md, \
                    \"How do choices learn?\")";
                return refuse("normalizer", a.normalizer.name(), wanted);
            }
            Normalizer::Softmax
            | Normalizer::Relu { .. }
            | Normalizer::Sigmoid { .. }
            | Normalizer::Sparsemax
            | Normalizer::Entmax15
            | Normalizer::Raw => {}
        }
        if a.packed.is_some() && self.wanted.contains(&Operand::ScoreMatrix) {
            let wanted = "sequences of one length beside a gradient of score_matrix";
            return refuse("packed", "packed sequences", wanted);
        }
        if a.paged.is_some() {
            return refuse("paged", "keys in pages", "keys of their own, since pages are shared");
        }
        if let Some(storage) = a.kv_storage.filter(|storage| storage.dtype().is_none()) {
            return refuse("kv_storage", &storage.to_string(), "f32, f16 or bf16");
        }
        for score in problem.scores() {
            if !score.has_derivative() {
                let wanted = "a derivative (CustomScore::with_derivative)";
                return refuse(&format!("score {:?}", score.slot().name), "none", wanted);
            }
        }
        let outputs = [("k", Operand::K, a.shape.heads_kv), ("q", Operand::Q, a.shape.heads_q)];
        for (name, operand, heads) in
            outputs.into_iter().chain([("v", Operand::V, a.shape.heads_kv)])
        {
            let (batch, rows) = problem.extent(operand);
            let sizes = [batch, heads, rows, problem.row_units(operand)];
            if self.wanted.contains(&operand) && !sizes.contains(&0) {
                let strides = problem.strides(operand);
                strides.check_disjoint(&format!("strides of the gradient of {name}"), sizes)?;
            }
        }
        Ok(())
    }
}

/// Validated gradients of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackwardProblem {
    backward: Backward,
    problem: Problem,
}

impl BackwardProblem {
    /// What was asked.
    pub fn backward(&self) -> &Backward {
        &self.backward
    }

    /// The call.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// What a tensor's gradient is stored in: those of q, k and v as they are unless f32 is asked for, others in f32.
    pub fn gradient_dtype(&self, operand: Operand) -> DType {
        let stored = operand.rows().filter(|_| !self.backward.in_f32 || operand == Operand::O);
        stored.and_then(|_| self.problem.storage(operand).dtype()).unwrap_or(DType::F32)
    }

    /// Bits of one element of a tensor's gradient.
    pub(crate) fn gradient_bits(&self, operand: Operand) -> u64 {
        8 * self.gradient_dtype(operand).bytes()
    }

    /// The tensors whose gradients are wanted, in the order of [`Operand`].
    pub fn wanted(&self) -> &[Operand] {
        &self.backward.wanted
    }

    /// Whether the gradient of a tensor is wanted.
    pub fn wants(&self, operand: Operand) -> bool {
        self.backward.wanted.contains(&operand)
    }
}

impl fmt::Display for BackwardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.wanted().iter().map(|operand| operand.name()).collect();
        write!(f, "gradients({}) {}", names.join(","), self.problem)?;
        if self.backward.from_lse {
            f.write_str(" d_lse")?;
        }
        for (on, word) in [
            (self.backward.from_weights, " d_weights"),
            (self.backward.in_f32, " in-f32"),
            (self.backward.accumulate, " accumulate"),
        ] {
            f.write_str(if on { word } else { "" })?;
        }
        Ok(())
    }
}
