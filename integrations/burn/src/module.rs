//! Modules: Burn's own multi-head attention on these kernels, and one with what Burn's has no words for.

use std::sync::atomic::{AtomicU64, Ordering};

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::nn::attention::MultiHeadAttention as BurnAttention;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor};
use heedful::Align;

use crate::call::{Attend, Attended};

/// What a module attends to, `[batch, seq, d_model]` each, as Burn's own `MhaInput`.
#[derive(Debug, Clone)]
pub struct MhaInput {
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    mask_pad: Option<Tensor<2, Bool>>,
    mask_attn: Option<Tensor<3, Bool>>,
    lengths: Option<Tensor<1, Int>>,
    seed: Option<u64>,
    weights: bool,
}

impl MhaInput {
    /// A sequence that attends to itself.
    pub fn self_attn(tensor: Tensor<3>) -> Self {
        Self::new(tensor.clone(), tensor.clone(), tensor)
    }

    /// Queries of one sequence, keys and values of another.
    pub fn new(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Self {
        let (mask_pad, mask_attn, lengths, seed) = (None, None, None, None);
        Self { query, key, value, mask_pad, mask_attn, lengths, seed, weights: false }
    }

    /// Keys that are padding where true, `[batch, seq_kv]`.
    pub fn mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.mask_pad = Some(mask_pad);
        self
    }

    /// Pairs that do not attend where true, `[batch, seq_q, seq_kv]` or `[1, seq_q, seq_kv]`.
    pub fn mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.mask_attn = Some(mask_attn);
        self
    }

    /// How many keys of each sequence are no padding, `[batch]`: cheaper than a mask where padding is at the end.
    pub fn lengths(mut self, lengths: Tensor<1, Int>) -> Self {
        self.lengths = Some(lengths);
        self
    }

    /// Which weights dropout leaves out. Without it each call of the process takes the next seed, so that what one
    /// leaves out depends on how many there were before.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Asks for the weights too. They are as large as the scores; without them nothing of that size is written.
    pub fn with_weights(mut self) -> Self {
        self.weights = true;
        self
    }

    /// Both masks as one.
    fn blocked(&self) -> Option<Tensor<4, Bool>> {
        let pad = self.mask_pad.clone().map(|mask| {
            let [batch, keys] = mask.dims();
            mask.reshape([batch, 1, 1, keys])
        });
        let pairs = self.mask_attn.clone().map(|mask| {
            let [batch, rows, keys] = mask.dims();
            mask.reshape([batch, 1, rows, keys])
        });
        match (pad, pairs) {
            (Some(pad), Some(pairs)) => Some(pad.bool_or(pairs)),
            (pad, pairs) => pad.or(pairs),
        }
    }
}

/// What a module gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MhaOutput {
    /// `[batch, seq_q, d_model]`.
    pub context: Tensor<3>,
    /// `[batch, heads, seq_q, seq_kv]`, f32, without gradients; where [asked for](MhaInput::with_weights).
    pub weights: Option<Tensor<4>>,
}

/// Burn's `MultiHeadAttention` on these kernels: the same fields and names, so that it loads the same records.
///
/// It differs in this: a row that may attend to nothing gives 0 before the output layer, where Burn's gives the mean of
/// all values; and weights are returned only where they are asked for.
///
/// ```no_run
/// use burn::nn::attention::MultiHeadAttentionConfig;
/// use heedful_burn::{MhaInput, MultiHeadAttention};
/// # fn f(device: burn::tensor::Device, x: burn::tensor::Tensor<3>) -> heedful_burn::Result<()> {
/// let burns = MultiHeadAttentionConfig::new(64, 4).init(&device);
/// let ours = MultiHeadAttention::from(burns);
/// let context = ours.forward(MhaInput::self_attn(x))?.context;
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
#[non_exhaustive]
pub struct MultiHeadAttention {
    /// From the input to the queries of all heads.
    pub query: Linear,
    /// From the input to the keys of all heads.
    pub key: Linear,
    /// From the input to the values of all heads.
    pub value: Linear,
    /// From the heads to the output.
    pub output: Linear,
    /// Weights left out in training.
    pub dropout: Dropout,
    /// Channels of input and output.
    pub d_model: usize,
    /// Heads.
    pub n_heads: usize,
    /// Channels of a head.
    pub d_k: usize,
    /// Whether a head may look at nothing: a sink with a logit of 0.
    pub quiet_softmax: bool,
}

impl From<BurnAttention> for MultiHeadAttention {
    fn from(burns: BurnAttention) -> Self {
        let BurnAttention { query, key, value, output, dropout, .. } = burns;
        let (d_model, n_heads, d_k) = (burns.d_model, burns.n_heads, burns.d_k);
        let quiet_softmax = burns.quiet_softmax;
        Self { query, key, value, output, dropout, d_model, n_heads, d_k, quiet_softmax }
    }
}

impl ModuleDisplay for MultiHeadAttention {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content.add("d_model", &self.d_model).add("n_heads", &self.n_heads);
        content.add("d_k", &self.d_k).add("dropout", &self.dropout.prob).optional()
    }
}

impl MultiHeadAttention {
    /// Attends: `[batch, seq, d_model]` to `[batch, seq_q, d_model]`.
    ///
    /// # Errors
    /// As [`Attend::run`].
    pub fn forward(&self, input: MhaInput) -> crate::Result<MhaOutput> {
        self.forward_with(input, |call| call)
    }

    /// The same with whatever else is [asked](Attend) of the call: a causal mask that costs no tensor, a window …
    ///
    /// # Errors
    /// As [`Attend::run`].
    pub fn forward_with(
        &self,
        input: MhaInput,
        ask: impl FnOnce(Attend) -> Attend,
    ) -> crate::Result<MhaOutput> {
        let quiet = self.quiet_softmax;
        let heads = [self.n_heads, self.n_heads];
        let layers = [&self.query, &self.key, &self.value, &self.output];
        forward(layers, heads, &self.dropout, input, |call| {
            let device = self.query.weight.val().device();
            let call = match quiet {
                true => call.sinks(Tensor::zeros([self.n_heads], &device)),
                false => call,
            };
            ask(call)
        })
    }
}

/// What a [`GroupedAttention`] is made of.
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct GroupedAttentionConfig {
    /// Channels of input and output.
    pub d_model: usize,
    /// Heads of queries.
    pub heads_q: usize,
    /// Heads of keys and values, a divisor of those of queries; fewer make a smaller cache.
    pub heads_kv: usize,
    /// Channels of a head; d_model / heads_q if it is not said.
    #[config(default = "None")]
    pub dim: Option<usize>,
    /// Whether a row sees the keys up to its own only, counted from the end where there are more keys than rows.
    #[config(default = false)]
    pub causal: bool,
    /// How many keys before its own a row sees.
    #[config(default = "None")]
    pub window: Option<u32>,
    /// Scores s become cap · tanh(s / cap).
    #[config(default = "None")]
    pub softcap: Option<f32>,
    /// Whether each head learns a sink: one more logit in the denominator.
    #[config(default = false)]
    pub sinks: bool,
    /// Whether the four layers add a bias.
    #[config(default = false)]
    pub bias: bool,
    /// Rate at which weights are left out in training.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// How weights start.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/f64::sqrt(3.0), fan_out_only:false}")]
    pub initializer: Initializer,
}

/// Attention as current models have it: grouped heads, causal, windowed, capped, with learned sinks.
#[derive(Module, Debug)]
#[non_exhaustive]
pub struct GroupedAttention {
    /// From the input to the queries of all heads.
    pub query: Linear,
    /// From the input to the keys of their heads.
    pub key: Linear,
    /// From the input to the values of their heads.
    pub value: Linear,
    /// From the heads to the output.
    pub output: Linear,
    /// Learned sinks `[heads_q]`.
    pub sinks: Option<Param<Tensor<1>>>,
    /// Weights left out in training.
    pub dropout: Dropout,
    heads: [usize; 2],
    causal: bool,
    window: Option<u32>,
    softcap: Option<f32>,
}

impl GroupedAttentionConfig {
    /// The module with new weights.
    pub fn init(&self, device: &Device) -> GroupedAttention {
        let dim = self.dim.unwrap_or(self.d_model / self.heads_q);
        let linear = |from: usize, to: usize| {
            let layer = LinearConfig::new(from, to).with_bias(self.bias);
            layer.with_initializer(self.initializer.clone()).init(device)
        };
        let sinks = || Initializer::Zeros.init([self.heads_q], device);
        GroupedAttention {
            query: linear(self.d_model, self.heads_q * dim),
            key: linear(self.d_model, self.heads_kv * dim),
            value: linear(self.d_model, self.heads_kv * dim),
            output: linear(self.heads_q * dim, self.d_model),
            sinks: self.sinks.then(sinks),
            dropout: DropoutConfig::new(self.dropout).init(),
            heads: [self.heads_q, self.heads_kv],
            causal: self.causal,
            window: self.window,
            softcap: self.softcap,
        }
    }
}

impl GroupedAttention {
    /// Attends: `[batch, seq, d_model]` to `[batch, seq_q, d_model]`.
    ///
    /// # Errors
    /// As [`Attend::run`].
    pub fn forward(&self, input: MhaInput) -> crate::Result<MhaOutput> {
        self.forward_with(input, |call| call)
    }

    /// The same with whatever else is [asked](Attend) of the call.
    ///
    /// # Errors
    /// As [`Attend::run`].
    pub fn forward_with(
        &self,
        input: MhaInput,
        ask: impl FnOnce(Attend) -> Attend,
    ) -> crate::Result<MhaOutput> {
        let layers = [&self.query, &self.key, &self.value, &self.output];
        forward(layers, self.heads, &self.dropout, input, |mut call| {
            if let Some(sinks) = &self.sinks {
                call = call.sinks(sinks.val());
            }
            if let Some(cap) = self.softcap {
                call = call.softcap(cap);
            }
            let right = self.causal.then_some(0);
            if self.window.is_some() || self.causal {
                call = call.with(|call| call.window(self.window, right, Align::BottomRight));
            }
            ask(call)
        })
    }
}

/// Projects, attends and projects back. Heads are swapped out of the channels and back by strides: nothing is copied.
fn forward(
    [query, key, value, output]: [&Linear; 4],
    [heads_q, heads_kv]: [usize; 2],
    dropout: &Dropout,
    input: MhaInput,
    ask: impl FnOnce(Attend) -> Attend,
) -> crate::Result<MhaOutput> {
    let split = |x: Tensor<3>, layer: &Linear, heads: usize| {
        let [batch, seq, _] = x.dims();
        let x = layer.forward(x);
        let dim = x.dims()[2] / heads;
        x.reshape([batch, seq, heads, dim]).swap_dims(1, 2)
    };
    let blocked = input.blocked();
    let trains = dropout.training.is_enabled() && input.query.device().is_autodiff();
    let [q, k, v] = [
        split(input.query, query, heads_q),
        split(input.key, key, heads_kv),
        split(input.value, value, heads_kv),
    ];
    let mut call = Attend::new(q, k, v);
    if let Some(blocked) = blocked {
        call = call.blocked(blocked);
    }
    if let Some(lengths) = input.lengths {
        call = call.lengths(lengths);
    }
    if trains && dropout.prob > 0.0 {
        call = call.dropout(dropout.prob as f32, input.seed.unwrap_or_else(next_seed));
    }
    if input.weights {
        call = call.with_weights();
    }
    let Attended { o, weights, .. } = ask(call).run()?;
    let [batch, heads, seq, dim] = o.dims();
    let context = output.forward(o.swap_dims(1, 2).reshape([batch, seq, heads * dim]));
    Ok(MhaOutput { context, weights })
}

/// Another seed for each call of a process, the same in each process.
fn next_seed() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed)
}
