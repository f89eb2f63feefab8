//! `Attention`: one attention call as plain data.

use crate::error::Result;
use crate::feature::align::Align;
#[cfg(feature = "serde")]
use crate::feature::custom::serial;
use crate::feature::custom::{CustomMask, CustomScore};
use crate::feature::inner::{Activation, Inner};
use crate::feature::mask::Masks;
use crate::feature::normalize::Normalizer;
use crate::feature::prepare::{Cosine, Rotary};
use crate::feature::score::{
    Alibi, Bias, EdgeBias, Gumbel, KeyScale, KvScales, Relative, Scale, Score, Softcap,
};
use crate::feature::weight::Dropout;
use crate::problem::{Packed, Paged, Problem};
use crate::tensor::{Broadcast, DType, Layout, Scalar, Shape, Storage};

/// The point of the computation at which scores are returned beside o.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum WeightsAt {
    /// scale · (q·k), masked or not; −∞ at keys that are in no page, or in pages past their sequence's length.
    RawScores,
    /// After the softcap, masked or not; −∞ as before.
    AfterSoftcap,
    /// After softcap, bias and ALiBi; −∞ where any mask hides the key.
    AfterBias,
    /// The weights themselves, after dropout where there is one; 0 where a mask hides the key, and in rows that see
    /// nothing.
    Probabilities,
}

impl WeightsAt {
    /// A word for names of cases, plans and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RawScores => "raw-scores",
            Self::AfterSoftcap => "after-softcap",
            Self::AfterBias => "after-bias",
            Self::Probabilities => "probabilities",
        }
    }
}

/// One attention call: `o = softmax(mask(bias + cap(scale · q kᵀ))) v`, as plain data.
///
/// Nothing is computed or checked until [`validate`](Self::validate); equal descriptors are equal
/// and hash alike, so they can be keys. Masks, and other parts whose builder method takes all that they hold, are
/// not listed among the fields.
///
/// ```
/// use heedful::{Align, Attention, DType, Shape};
/// let shape = Shape { heads_kv: 2, ..Shape::self_attention(1, 8, 128, 64) };
/// let attention = Attention::new(shape).dtype(DType::F16).causal(Align::TopLeft).softcap(30.0);
/// let problem = attention.validate()?;
/// assert_eq!(problem.attention().shape.group(), 4);
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Attention {
    /// The seven sizes.
    pub shape: Shape,
    /// Storage type of q, k, v and o.
    #[cfg_attr(feature = "serde", serde(default))]
    pub dtype: DType,
    /// Storage of k and v where it is another; quantised rows are [`Storage::row_units`] long.
    #[cfg_attr(feature = "serde", serde(default))]
    pub kv_storage: Option<Storage>,
    /// What k and v are stored divided by, where that is not for their rows to say; for storages of 8 bits and fewer.
    #[cfg_attr(feature = "serde", serde(default))]
    pub kv_scales: Option<KvScales>,
    /// Factor on q·k; `None` is 1/√dim_qk for dot products and 1 for other scores.
    #[cfg_attr(feature = "serde", serde(default))]
    pub scale: Option<Scalar>,
    /// Which keys a row sees, where it is not all; of two masks that look at a diagonal both must look at the
    /// same. Functions of the caller's own are [`custom_masks`](Self::custom_masks).
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub masks: Masks,
    /// How q and k make a score.
    #[cfg_attr(feature = "serde", serde(default))]
    pub inner: Inner,
    /// Rotation of q and k by position, before anything else.
    #[cfg_attr(feature = "serde", serde(default))]
    pub rotary: Option<Rotary>,
    /// Cosine similarity in place of the dot product.
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub cosine: Option<Cosine>,
    /// The general score qᵀ W k: channels of q, where W `[dim_q, dim_qk]` comes with the tensors as
    /// `score_matrix`. q is then `[batch, heads_q, seq_q, dim_q]`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub general: Option<u32>,
    /// A bias by relative position; its table comes with the tensors as `relative`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub relative: Option<Relative>,
    /// How scores become weights.
    #[cfg_attr(feature = "serde", serde(default))]
    pub normalizer: Normalizer,
    /// Cap on scaled scores, > 0.
    #[cfg_attr(feature = "serde", serde(default))]
    pub softcap: Option<Scalar>,
    /// Shape of an additive bias that comes with the tensors; −∞ masks.
    #[cfg_attr(feature = "serde", serde(default))]
    pub bias: Option<Broadcast>,
    /// Storage type of the bias.
    #[cfg_attr(feature = "serde", serde(default))]
    pub bias_dtype: DType,
    /// Linear biases; slopes `[heads_q]` come with the tensors.
    #[cfg_attr(feature = "serde", serde(default))]
    pub alibi: Option<Alibi>,
    /// Weights left out at random; see [`dropout`](Self::dropout).
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub dropout: Option<Dropout>,
    /// Whether sinks `[heads_q]` come with the tensors.
    #[cfg_attr(feature = "serde", serde(default))]
    pub sinks: bool,
    /// Whether key lengths `[batch]` come with the tensors; keys past them are masked.
    #[cfg_attr(feature = "serde", serde(default))]
    pub kv_lengths: bool,
    /// Whether query lengths `[batch]` come with the tensors; rows past them give 0 and −∞.
    #[cfg_attr(feature = "serde", serde(default))]
    pub q_lengths: bool,
    /// Sequences of different lengths packed one after another; see [`packed`](Self::packed).
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub packed: Option<Packed>,
    /// Keys and values in pages; see [`paged`](Self::paged).
    #[cfg_attr(feature = "serde", serde(default))]
    #[doc(hidden)]
    pub paged: Option<Paged>,
    /// Score modifiers of the caller's own, after the built-in ones, in order.
    #[cfg_attr(
        feature = "serde",
        serde(default, with = "serial", skip_serializing_if = "Vec::is_empty")
    )]
    pub custom_scores: Vec<CustomScore>,
    /// Masks of the caller's own.
    #[cfg_attr(
        feature = "serde",
        serde(default, with = "serial", skip_serializing_if = "Vec::is_empty")
    )]
    pub custom_masks: Vec<CustomMask>,
    /// Words of a table for the caller's own functions that comes with the tensors.
    #[cfg_attr(feature = "serde", serde(default))]
    pub table: Option<u32>,
    /// Layout of q, `[batch, heads_q, seq_q, dim_qk]`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub layout_q: Layout,
    /// Layout of k, `[batch, heads_kv, seq_kv, dim_qk]`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub layout_k: Layout,
    /// Layout of v, `[batch, heads_kv, seq_kv, dim_v]`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub layout_v: Layout,
    /// Layout of o, `[batch, heads_q, seq_q, dim_v]`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub layout_o: Layout,
    /// Whether the log-sum-exp `[batch, heads_q, seq_q]` is written (f32, natural log).
    #[cfg_attr(feature = "serde", serde(default))]
    pub lse: bool,
    /// Whether scores `[batch, heads_q, seq_q, seq_kv]` are written (f32), and from which point.
    #[cfg_attr(feature = "serde", serde(default))]
    pub weights: Option<WeightsAt>,
}

impl Attention {
    /// Plain scaled dot-product attention in f32: no mask, scale 1/√dim_qk, o only.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            dtype: DType::F32,
            kv_storage: None,
            kv_scales: None,
            scale: None,
            masks: Masks::default(),
            inner: Inner::Product,
            rotary: None,
            cosine: None,
            general: None,
            relative: None,
            normalizer: Normalizer::Softmax,
            softcap: None,
            bias: None,
            bias_dtype: DType::F32,
            alibi: None,
            dropout: None,
            sinks: false,
            kv_lengths: false,
            q_lengths: false,
            packed: None,
            paged: None,
            custom_scores: Vec::new(),
            custom_masks: Vec::new(),
            table: None,
            layout_q: Layout::Bhsd,
            layout_k: Layout::Bhsd,
            layout_v: Layout::Bhsd,
            layout_o: Layout::Bhsd,
            lse: false,
            weights: None,
        }
    }

    /// Storage type of q, k, v and o.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Another storage for k and v than for q and o.
    pub fn kv_storage(mut self, storage: Storage) -> Self {
        self.kv_storage = Some(storage);
        self
    }

    /// Announces scales of k and v, `k_scales` and `v_scales` among the tensors, f32, `[1]` or `[heads_kv]`: what is
    /// stored times them is meant. For storages of 8 bits and fewer.
    pub fn kv_scales(mut self, scales: KvScales) -> Self {
        self.kv_scales = Some(scales);
        self
    }

    /// Factor on q·k instead of 1/√dim_qk; any finite value.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(Scalar(scale));
        self
    }

    /// Makes scores additive: Σ_c w_c tanh(a (q_c + k_c)), times the scale, which is then 1 unless it is
    /// given; w `[dim_qk]` comes with the tensors as `score_v`.
    pub fn additive(mut self, inner_scale: f32) -> Self {
        let inner_scale = Scalar(inner_scale);
        self.inner = Inner::Sum { activation: Activation::Tanh, inner_scale, per_head: false };
        self
    }

    /// Makes scores those of graph attention: Σ_c w_hc leaky(q_c + k_c), times the scale, which is then 1 unless
    /// it is given; w `[heads_q, dim_qk]` comes with the tensors as `score_v`.
    pub fn additive_leaky(mut self, slope: f32) -> Self {
        let activation = Activation::LeakyRelu { slope: Scalar(slope) };
        self.inner = Inner::Sum { activation, inner_scale: Scalar(1.0), per_head: true };
        self
    }

    /// Rotates q and k by position; tables of angles come with the tensors.
    pub fn rotary(mut self, rotary: Rotary) -> Self {
        self.rotary = Some(rotary);
        self
    }

    /// Scores by cosine similarity: both rows are brought to length 1 (or divided by `eps` where they are
    /// shorter) first. The scale is then 1 unless it is given.
    pub fn cosine(mut self, eps: f32) -> Self {
        self.cosine = Some(Cosine { eps: Scalar(eps), head_scale: false });
        self
    }

    /// [`cosine`](Self::cosine) times a factor per head (SwinV2: Liu et al., 2022), `head_scale` `[heads_q]` among the
    /// tensors.
    pub fn cosine_scaled(mut self, eps: f32) -> Self {
        self.cosine = Some(Cosine { eps: Scalar(eps), head_scale: true });
        self
    }

    /// Scores by qᵀ W k (Luong et al., 2015); q has `dim_q` channels, W `[dim_q, dim_qk]` comes with the
    /// tensors. The scale is then 1 unless it is given.
    ///
    /// Location-based scores (W q)_j, which look at the query's own state only, are the same with the unit
    /// vectors as keys, dim_qk = seq_kv:
    ///
    /// ```
    /// use heedful::feature::Operands;
    /// use heedful::reference::Inputs;
    /// use heedful::{Attention, Shape};
    /// let shape = Shape { seq_q: 1, dim_v: 1, ..Shape::self_attention(1, 1, 3, 3) };
    /// let problem = Attention::new(shape).general(2).validate()?;
    /// let (q, unit) = ([1.0, 2.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    /// // Scores 0, 30, 0: the second key, whatever the keys hold elsewhere.
    /// let matrix = [0.0, 10.0, 0.0, 0.0, 10.0, 0.0];
    /// let operands = Operands { score_matrix: &matrix, ..Operands::default() };
    /// let inputs = Inputs { q: &q, k: &unit, v: &[5.0, 6.0, 7.0], operands };
    /// assert!((problem.reference(&inputs)?.o[0] - 6.0).abs() < 1e-9);
    /// # Ok::<(), heedful::Error>(())
    /// ```
    pub fn general(mut self, dim_q: u32) -> Self {
        self.general = Some(dim_q);
        self
    }

    /// Adds a bias by relative position from a table `[heads_q, left + 1 + right]`.
    pub fn relative(mut self, relative: Relative) -> Self {
        self.relative = Some(relative);
        self
    }

    /// Another normaliser than softmax.
    pub fn normalizer(mut self, normalizer: Normalizer) -> Self {
        self.normalizer = normalizer;
        self
    }

    /// Bounds scaled scores to (−cap, cap) by cap · tanh(s / cap).
    pub fn softcap(mut self, cap: f32) -> Self {
        self.softcap = Some(Scalar(cap));
        self
    }

    /// Announces an additive bias of shape `[batch|1, heads_q|1, seq_q|1, seq_kv|1]`.
    pub fn bias(mut self, shape: [u32; 4]) -> Self {
        self.bias = Some(Broadcast(shape));
        self
    }

    /// Another storage type than f32 for the bias, which must be there.
    pub fn bias_dtype(mut self, dtype: DType) -> Self {
        self.bias_dtype = dtype;
        self
    }

    /// Announces ALiBi slopes `[heads_q]`; distance 0 is on the diagonal of `align`.
    pub fn alibi(mut self, align: Align) -> Self {
        self.alibi = Some(Alibi { align });
        self
    }

    /// Leaves out weights at random after they are normalised, a share `rate` of them (at least 0 and below 1),
    /// and multiplies the others with 1 / (1 − rate). Which ones follows from the seed and the pair's place
    /// alone, on every device, so gradients leave out the same. Returned weights are those after it. Another seed
    /// is another plan and another binding, of the same kernels. Not for normalisers that take one key.
    ///
    /// The lot of (batch, head, row, key) is word key mod 4 of Philox4x32-10 (Salmon et al., 2011) with the counter
    /// (row, key / 4, batch · heads_q + head, 1) and the seed as key. A weight is left out where the word's upper 24
    /// bits are below rate · 2²⁴.
    pub fn dropout(mut self, rate: f32, seed: u64) -> Self {
        self.dropout = Some(Dropout { rate: Scalar(rate), seed });
        self
    }

    /// Announces sinks `[heads_q]`: one extra logit per head, in the denominator only.
    pub fn sinks(mut self) -> Self {
        self.sinks = true;
        self
    }

    /// Announces key lengths `[batch]`.
    pub fn kv_lengths(mut self) -> Self {
        self.kv_lengths = true;
        self
    }

    /// Announces query lengths `[batch]`.
    pub fn q_lengths(mut self) -> Self {
        self.q_lengths = true;
        self
    }

    /// Packs sequences of different lengths one after another: q and o are `[total_q, heads_q, dim]`,
    /// k and v `[total_kv, heads_kv, dim]`, lse `[total_q, heads_q]`. Sequence b has the query rows
    /// `cu_seqlens_q[b]..cu_seqlens_q[b + 1]` and likewise its keys; both tables, `[batch + 1]`, rise
    /// and come with the tensors. The shape's seq_q and seq_kv are the longest lengths; rows beyond are neither
    /// read nor written. Layouts become [`Layout::Bshd`], those of k and v only where total_kv is not 0.
    ///
    /// With [lengths](Self::kv_lengths) a sequence's keys are the first so many of its own, as where each has room to
    /// grow. Where total_kv is 0 beside lengths, only rows are packed: there is no `cu_seqlens_kv`, and k and v are
    /// padded or in [pages](Self::paged), also where no sequence has a key. One call then serves sequences that bring a
    /// prompt and such that bring a token.
    ///
    /// Positions of [`rotary`](Self::rotary) count from each sequence's own first row, and position ids are `[batch,
    /// seq]` as elsewhere.
    pub fn packed(self, total_q: u32, total_kv: u32) -> Self {
        let bshd = Layout::Bshd;
        let [k, v] = [self.layout_k, self.layout_v].map(|of| if total_kv == 0 { of } else { bshd });
        let packed = Some(Packed { total_q, total_kv });
        Self { packed, layout_q: bshd, layout_k: k, layout_v: v, layout_o: bshd, ..self }
    }

    /// Whether keys lie one after another, as rows do.
    pub(crate) fn packs_keys(&self) -> bool {
        self.packed.is_some_and(|packed| packed.total_kv > 0 || !self.kv_lengths)
    }

    /// Puts keys and values in pages: k and v are `[pages, page_size, heads_kv, dim]`, and a page table
    /// `[batch, row]` comes with the tensors, as do key lengths. The shape's seq_kv is the longest length, at most
    /// `row * page_size`. Table entries past a sequence's length and slots past it may hold anything; the keys of a
    /// page that does not exist are masked. Within a page another layout of k and v may be set, in which a page
    /// stands for a sequence and seq_kv for its size.
    pub fn paged(self, pages: u32, page_size: u32, row: u32) -> Self {
        let paged = Some(Paged { pages, page_size, row });
        let bshd = Layout::Bshd;
        Self { paged, kv_lengths: true, layout_k: bshd, layout_v: bshd, ..self }
    }

    /// Adds a score modifier of the caller's own, fused into every kernel.
    ///
    /// ```
    /// use heedful::{Attention, CustomScore, Shape};
    /// let wgsl = "fn score_late(s: f32, p: Position) -> f32 { return s + 0.1 * f32(p.key); }";
    /// let late = CustomScore::new("late", wgsl, |s, at| s + 0.1 * f64::from(at.key));
    /// let attention = Attention::new(Shape::self_attention(1, 2, 16, 8)).score(late);
    /// attention.validate()?;
    /// # Ok::<(), heedful::Error>(())
    /// ```
    pub fn score(mut self, score: CustomScore) -> Self {
        self.custom_scores.push(score);
        self
    }

    /// Announces a table of `words` 32-bit words, which the caller's own functions read by
    /// `table_word(i)`.
    pub fn table(mut self, words: u32) -> Self {
        self.table = Some(words);
        self
    }

    /// The same layout for q, k, v and o.
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout_q: layout, layout_k: layout, layout_v: layout, layout_o: layout, ..self }
    }

    /// Another layout of q, `[batch, heads_q, seq_q, dim_qk]`, than [`Layout::Bhsd`].
    pub fn layout_q(mut self, layout: Layout) -> Self {
        self.layout_q = layout;
        self
    }

    /// Another layout of k, `[batch, heads_kv, seq_kv, dim_qk]`, than [`Layout::Bhsd`].
    pub fn layout_k(mut self, layout: Layout) -> Self {
        self.layout_k = layout;
        self
    }

    /// Another layout of v, `[batch, heads_kv, seq_kv, dim_v]`, than [`Layout::Bhsd`].
    pub fn layout_v(mut self, layout: Layout) -> Self {
        self.layout_v = layout;
        self
    }

    /// Another layout of o, `[batch, heads_q, seq_q, dim_v]`, than [`Layout::Bhsd`].
    pub fn layout_o(mut self, layout: Layout) -> Self {
        self.layout_o = layout;
        self
    }

    /// Also writes the log-sum-exp of every row.
    pub fn with_lse(mut self) -> Self {
        self.lse = true;
        self
    }

    /// Also writes scores or weights, taken at the given point, `[batch, heads_q, seq_q, seq_kv]`. Of packed sequences
    /// that is for the longest; what another does not hold is 0 among weights and −∞ among scores.
    pub fn with_weights(mut self, at: WeightsAt) -> Self {
        self.weights = Some(at);
        self
    }

    /// The library's score modifiers, in order; the caller's own follow, then the noise of a draw.
    pub(super) fn own_modifiers(&self, scale: Scalar) -> [Option<Box<dyn Score>>; 7] {
        fn some<S: Score + 'static>(score: Option<S>) -> Option<Box<dyn Score>> {
            score.map(|score| Box::new(score) as Box<dyn Score>)
        }
        let bias = |shape| Bias { shape, dtype: self.bias_dtype };
        let learned_edges = self.masks.edges.filter(|edges| edges.bias);
        [
            some(Some(Scale(scale))),
            some(self.kv_scales.map(|scales| KeyScale { scales, shape: self.shape })),
            some(self.softcap.map(Softcap)),
            some(self.bias.map(bias)),
            some(self.relative),
            some(self.alibi),
            some(learned_edges.map(|_| EdgeBias)),
        ]
    }

    /// The whole chain of score modifiers, in order.
    pub(super) fn modifiers(&self, scale: Scalar) -> Vec<Box<dyn Score>> {
        let mut chain: Vec<Box<dyn Score>> =
            self.own_modifiers(scale).into_iter().flatten().collect();
        for score in &self.custom_scores {
            chain.push(Box::new(score.clone()));
        }
        if let Normalizer::Sample { seed } = self.normalizer {
            chain.push(Box::new(Gumbel { seed, heads_q: self.shape.heads_q }));
        }
        chain
    }

    /// Checks every size, stride and combination.
    ///
    /// # Errors
    /// An invalid-argument error that names the first field that cannot be, what it holds and what
    /// it may hold.
    pub fn validate(&self) -> Result<Problem> {
        Problem::new(self)
    }
}
