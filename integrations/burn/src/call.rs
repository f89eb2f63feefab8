//! A call: tensors and what is asked of them.

use burn::backend::DispatchTensor;
use burn::tensor::{Bool, DType, Int, Tensor};
use heedful::{Align, Attention, Broadcast, Operand, Shape, WeightsAt};

use crate::error::{Error, Result};
use crate::track;

/// Attention over Burn tensors, in place, on Burn's own device and queue.
///
/// q is `[batch, heads_q, seq_q, dim_qk]`, k `[batch, heads_kv, seq_kv, dim_qk]`, v `[batch, heads_kv, seq_kv, dim_v]`,
/// where heads_q is a multiple of heads_kv; o is `[batch, heads_q, seq_q, dim_v]` and lies in memory as q does, so that
/// heads which were swapped out of a projection's channels are swapped back at no cost. f32, f16 or bf16; sums are f32.
///
/// ```no_run
/// use burn::tensor::{Device, Distribution::Default, Tensor};
/// use heedful_burn::{Attend, heedful::Align};
///
/// # fn main() -> heedful_burn::Result<()> {
/// let device = heedful_burn::open(Device::wgpu_options())?.autodiff();
/// let q = Tensor::<4>::random([1, 8, 128, 64], Default, &device).require_grad();
/// let [k, v] = [0; 2].map(|_| Tensor::<4>::random([1, 2, 128, 64], Default, &device));
/// let o = Attend::new(q.clone(), k, v).causal(Align::TopLeft).softcap(30.0).run()?.o;
/// let d_q = q.grad(&o.sum().backward());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is computed until it is run"]
pub struct Attend<const D: usize = 4> {
    pub(crate) qkv: [DispatchTensor; 3],
    dim_q: usize,
    pub(crate) attention: Attention,
    /// Float tensors beside them, flat.
    pub(crate) floats: Vec<(Operand, DispatchTensor)>,
    /// Tensors of numbers that are counted, flat.
    pub(crate) ints: Vec<(Operand, DispatchTensor)>,
    /// Tables of the host.
    pub(crate) words: Vec<(Operand, Vec<u32>)>,
    /// The first argument that does not fit.
    wrong: Option<(String, String, String)>,
}

/// What a call gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attended<const D: usize = 4> {
    /// The output, `[batch, heads_q, seq_q, dim_v]`, packed `[total_q, heads_q, dim_v]`.
    pub o: Tensor<D>,
    /// The log-sum-exp of each row, `[batch, heads_q, seq_q]`, packed `[1, total_q, heads_q]`, f32, without gradients;
    /// by [`Attend::with_lse`].
    pub lse: Option<Tensor<3>>,
    /// Weights, `[batch, heads_q, seq_q, seq_kv]`, f32, without gradients; by [`Attend::with_weights`].
    pub weights: Option<Tensor<4>>,
}

impl Attend<4> {
    /// Softmax of scaled dot products, every key for every row. One sequence of q, k or v serves a batch of the others:
    /// a query that is learned, say.
    pub fn new(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Self {
        let batch = [&q, &k, &v].map(|x| x.dims()[0]).into_iter().max().unwrap_or(1);
        let [q, k, v] = [q, k, v].map(|x| match x.dims() {
            [1, heads, seq, dim] if batch > 1 => x.expand([batch, heads, seq, dim]),
            _ => x,
        });
        let [_, heads_q, seq_q, dim_q] = q.dims();
        let ([_, heads_kv, seq_kv, dim_qk], [_, _, _, dim_v]) = (k.dims(), v.dims());
        let sizes = [batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk, dim_v];
        let [q_dims, k_dims, v_dims] = [q.dims(), k.dims(), v.dims()];
        let mut call =
            Self::of([q.into_dispatch(), k.into_dispatch(), v.into_dispatch()], sizes, dim_q);
        call.check("q", q_dims, [batch, heads_q, seq_q, dim_q]);
        call.check("k", k_dims, [batch, heads_kv, seq_kv, dim_qk]);
        call.check("v", v_dims, [batch, heads_kv, seq_kv, dim_v]);
        call
    }

    /// Does not attend where `blocked` is true, as everywhere in Burn; `[batch, heads_q, seq_q, seq_kv]`, each of them
    /// there or 1. A row that may attend to nothing gives 0. Packed to bits on the device.
    pub fn blocked(mut self, blocked: Tensor<4, Bool>) -> Self {
        let dims = blocked.dims();
        self.check_broadcast("blocked", dims);
        self.attention = self.attention.mask_bits(broadcast(dims).0);
        self.int(Operand::Mask, bits(blocked))
    }

    /// Adds a bias to the scores: `[batch, heads_q, seq_q, seq_kv]`, each of them there or 1; −∞ masks.
    pub fn bias(mut self, bias: Tensor<4>) -> Self {
        let dims = bias.dims();
        self.check_broadcast("bias", dims);
        self.attention.bias = Some(broadcast(dims));
        self.float(Operand::Bias, bias.reshape([-1]))
    }

    fn check_broadcast(&mut self, argument: &str, found: [usize; 4]) {
        let whole = self.attention.shape.scores().map(|n| n as usize);
        let wanted = [0, 1, 2, 3].map(|axis| if found[axis] == 1 { 1 } else { whole[axis] });
        self.check(argument, found, wanted);
    }
}

impl Attend<3> {
    /// Sequences of different lengths, packed one after another: q is `[total_q, heads_q, dim_qk]`, k and v are
    /// `[total_kv, heads_kv, dim]`; rows `starts_q[b]..starts_q[b + 1]` are those of sequence b, its keys likewise.
    pub fn packed(
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        starts_q: &[u32],
        starts_kv: &[u32],
    ) -> Self {
        let ([total_q, heads_q, dim_q], [total_kv, heads_kv, dim_qk]) = (q.dims(), k.dims());
        let longest = |starts: &[u32]| {
            starts.windows(2).map(|ends| ends[1].saturating_sub(ends[0])).max().unwrap_or(0)
                as usize
        };
        let dim_v = v.dims()[2];
        let batch = starts_q.len().saturating_sub(1);
        let sizes =
            [batch, heads_q, heads_kv, longest(starts_q), longest(starts_kv), dim_qk, dim_v];
        let [k_dims, v_dims] = [k.dims(), v.dims()];
        let mut call =
            Self::of([q.into_dispatch(), k.into_dispatch(), v.into_dispatch()], sizes, dim_q);
        call.check("k", k_dims, [total_kv, heads_kv, dim_qk]);
        call.check("v", v_dims, [total_kv, heads_kv, dim_v]);
        for (name, starts, total, others) in [
            ("starts_q", starts_q, total_q, starts_q),
            ("starts_kv", starts_kv, total_kv, starts_q),
        ] {
            let ends = (starts.first(), starts.last());
            let fits = ends == (Some(&0), Some(&(total as u32))) && starts.is_sorted();
            if !fits || starts.len() != others.len() {
                let wanted = format!("{} numbers, 0 rising to {total}", others.len());
                call.wrong(name, format!("{starts:?}"), wanted);
            }
        }
        call.attention = call.attention.packed(total_q as u32, total_kv as u32);
        call.words.push((Operand::CuSeqlensQ, starts_q.to_vec()));
        call.words.push((Operand::CuSeqlensKv, starts_kv.to_vec()));
        call
    }
}

impl<const D: usize> Attend<D> {
    fn of(qkv: [DispatchTensor; 3], sizes: [usize; 7], dim_q: usize) -> Self {
        let [batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk, dim_v] =
            sizes.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let shape = Shape { batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk, dim_v };
        let (floats, ints, words) = (Vec::new(), Vec::new(), Vec::new());
        let attention = Attention::new(shape);
        Self { qkv, dim_q, attention, floats, ints, words, wrong: None }
    }

    /// Whatever else the engine can be asked: masks by place, other scores and normalisers, rotary positions … What
    /// they need beside q, k and v comes by [`operand`](Self::operand). Shape, storage and layouts are the tensors'.
    ///
    /// ```no_run
    /// # use burn::tensor::{Int, Tensor};
    /// # use heedful_burn::{Attend, Result, heedful::{Normalizer, Operand}};
    /// # fn f(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, ids: Tensor<2, Int>) -> Result<Tensor<4>> {
    /// let call = Attend::new(q, k, v).with(|call| call.segments().normalizer(Normalizer::Sparsemax));
    /// let call = call.operand(Operand::SegmentsQ, ids.clone()).operand(Operand::SegmentsKv, ids);
    /// # Ok(call.run()?.o) }
    /// ```
    pub fn with(mut self, ask: impl FnOnce(Attention) -> Attention) -> Self {
        let (shape, packed) = (self.attention.shape, self.attention.packed);
        self.attention = Attention { shape, packed, ..ask(self.attention) };
        if self.attention.paged.is_some() || self.attention.kv_storage.is_some() {
            self.wrong("k", "pages or another storage".into(), "keys in a tensor, stored as q");
        }
        self
    }

    /// A tensor beside q, k and v: float tensors are read as f32 and have gradients where the engine knows one, others
    /// are read as 32-bit numbers.
    pub fn operand<const N: usize>(
        mut self,
        operand: Operand,
        tensor: impl Into<Given<N>>,
    ) -> Self {
        use Operand::{K, Mask, Q, V};
        if operand.is_output() || matches!(operand, Q | K | V | Mask) {
            self.wrong("operand", operand.to_string(), "a table; masks are given by `blocked`");
        }
        match tensor.into() {
            Given::Float(tensor) => self.float(operand, tensor.reshape([-1])),
            Given::Int(tensor) => self.int(operand, tensor.reshape([-1])),
        }
    }

    /// A row sees the keys up to its own.
    pub fn causal(self, align: Align) -> Self {
        self.with(|call| call.causal(align))
    }

    /// The factor on q·k, 1/√dim_qk if it is not said.
    pub fn scale(self, scale: f32) -> Self {
        self.with(|call| call.scale(scale))
    }

    /// Scores s become cap · tanh(s / cap).
    pub fn softcap(self, cap: f32) -> Self {
        self.with(|call| call.softcap(cap))
    }

    /// One more logit per head in the denominator, `[heads_q]`: what a head may look at when it looks at nothing.
    pub fn sinks(mut self, sinks: Tensor<1>) -> Self {
        self.attention.sinks = true;
        self.float(Operand::Sinks, sinks)
    }

    /// Biases that fall with distance, by slopes `[heads_q]`.
    pub fn alibi(mut self, slopes: Tensor<1>, align: Align) -> Self {
        self.attention = self.attention.alibi(align);
        self.float(Operand::AlibiSlopes, slopes)
    }

    /// Leaves weights out at a rate, and makes up for it in those that stay. Which, follows from the seed alone: give
    /// each step of training another. The backward pass leaves out the same.
    pub fn dropout(self, rate: f32, seed: u64) -> Self {
        self.with(|call| call.dropout(rate, seed))
    }

    /// Keys from `lengths[b]` on are padding, `[batch]`.
    pub fn lengths(mut self, lengths: Tensor<1, Int>) -> Self {
        self.attention.kv_lengths = true;
        self.int(Operand::KvLengths, lengths)
    }

    /// Also gives the log-sum-exp of each row.
    pub fn with_lse(mut self) -> Self {
        self.attention.lse = true;
        self
    }

    /// Also gives the weights. They are as large as the scores, so this takes the path that writes these.
    pub fn with_weights(self) -> Self {
        self.with(|call| call.with_weights(WeightsAt::Probabilities))
    }

    /// What is asked, as the engine knows it.
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// Records the call; nothing waits. What Burn does next with its output follows it on the same queue.
    ///
    /// # Errors
    /// Tensors that do not fit each other, are on another device than q or on one that was not [opened](crate::open)
    /// here; a call that the engine refuses, gradients of it too where a tensor is tracked. Nothing is recorded then.
    ///
    /// # Panics
    /// The backward pass panics where the device fails under it, as Burn's own do: it has no errors to return.
    pub fn run(mut self) -> Result<Attended<D>> {
        // Only a general score takes queries of another width than keys.
        let dim_q = self.attention.general.unwrap_or(self.attention.shape.dim_qk);
        self.check("q: dim", [self.dim_q], [dim_q as usize]);
        if let Some((argument, found, wanted)) = self.wrong {
            return Err(Error::Invalid { argument, found, wanted });
        }
        track::run(self)
    }

    fn float(mut self, operand: Operand, tensor: Tensor<1>) -> Self {
        // The engine's tables are f32, and so are their gradients; a cast has its own derivative.
        let tensor = if tensor.dtype() == DType::F32 { tensor } else { tensor.cast(DType::F32) };
        self.check_once(operand);
        self.floats.push((operand, tensor.into_dispatch()));
        self
    }

    fn int(mut self, operand: Operand, tensor: Tensor<1, Int>) -> Self {
        if !matches!(tensor.dtype(), DType::I32 | DType::U32) {
            self.wrong(operand.name(), format!("{:?}", tensor.dtype()), "i32 or u32");
        }
        self.check_once(operand);
        self.ints.push((operand, tensor.into_dispatch()));
        self
    }

    fn check_once(&mut self, operand: Operand) {
        let mut given = self.floats.iter().chain(&self.ints).map(|(of, _)| *of);
        if given.any(|of| of == operand) {
            self.wrong(operand.name(), "two tensors".into(), "one");
        }
    }

    fn check<const N: usize>(&mut self, argument: &str, found: [usize; N], wanted: [usize; N]) {
        if found != wanted || found.iter().any(|n| u32::try_from(*n).is_err()) {
            self.wrong(argument, format!("{found:?}"), format!("{wanted:?}"));
        }
    }

    fn wrong(&mut self, argument: &str, found: String, wanted: impl Into<String>) {
        self.wrong.get_or_insert((argument.into(), found, wanted.into()));
    }
}

/// A tensor that is given beside q, k and v.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Given<const N: usize> {
    /// Real numbers.
    Float(Tensor<N>),
    /// Lengths, indices, identities.
    Int(Tensor<N, Int>),
}

impl<const N: usize> From<Tensor<N>> for Given<N> {
    fn from(tensor: Tensor<N>) -> Self {
        Self::Float(tensor)
    }
}

impl<const N: usize> From<Tensor<N, Int>> for Given<N> {
    fn from(tensor: Tensor<N, Int>) -> Self {
        Self::Int(tensor)
    }
}

fn broadcast(dims: [usize; 4]) -> Broadcast {
    Broadcast(dims.map(|n| u32::try_from(n).unwrap_or(u32::MAX)))
}

/// What may be attended to, 32 to a word from the lowest bit on.
fn bits(blocked: Tensor<4, Bool>) -> Tensor<1, Int> {
    let (device, n) = (blocked.device(), blocked.shape().num_elements());
    let words = n.div_ceil(32);
    let kept = blocked.bool_not().int().cast(DType::I32).reshape([n]);
    let kept = match words * 32 - n {
        0 => kept,
        rest => Tensor::cat(vec![kept, Tensor::zeros([rest], (&device, DType::I32))], 0),
    };
    let places: Vec<i32> = (0..32).map(|bit| 1_i32 << bit).collect();
    let places = Tensor::<1, Int>::from_data(places.as_slice(), (&device, DType::I32));
    // Each bit once: the sum is their union, also of the sign.
    (kept.reshape([words, 32]) * places.reshape([1, 32])).sum_dim(1).reshape([words])
}
