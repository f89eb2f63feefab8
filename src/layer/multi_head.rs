//! `MultiHeadAttention`: what a layer is made of, and how it will run.

use crate::device::Wait;
use crate::engine::{BufferView, Engine};
use crate::error::{Error, Rejection, Result};
use crate::kernel::MatrixTile;
use crate::plan::{Plan, Policy, SelfTest, tuning};
use crate::problem::{Attention, WeightsAt};
use crate::tensor::{DType, Layout, Storage};

/// A multi-head attention layer: q = x_q W_qᵀ + b_q and likewise k and v, attention per head, and
/// the heads' outputs, one after another, times W_oᵀ, plus b_o (Vaswani et al., 2017).
///
/// Inputs are f32, `[batch, rows, width]` without gaps. Heads need not divide any width.
///
/// ```
/// use heedful::layer::MultiHeadAttention;
/// use heedful::{Attention, Shape};
/// // 12 heads of 32 channels on vectors of 384.
/// let attention = Attention::new(Shape::self_attention(2, 12, 28, 32));
/// let layer = MultiHeadAttention::new(attention, 384);
/// layer.validate()?;
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MultiHeadAttention {
    /// What happens between the projections: shape (seq_kv with the extra keys), masks, modifiers, normaliser.
    /// Storage is f32, and layouts are the layer's own.
    pub attention: Attention,
    /// Channels of x_q.
    pub width_q: u32,
    /// Channels of x_k.
    pub width_k: u32,
    /// Channels of x_v.
    pub width_v: u32,
    /// Channels of the output; `None` leaves W_o out.
    pub width_out: Option<u32>,
    /// Whether the layer adds a learned key and value behind those of its input, `bias_k` and `bias_v` among the
    /// weights (PyTorch's `add_bias_kv`).
    pub learned_key: bool,
    /// Whether it then adds a key and value of zeros (PyTorch's `add_zero_attn`).
    pub zero_key: bool,
    /// Whether weights are returned as their mean over the heads, `[batch, seq_q, seq_kv]`.
    pub average_weights: bool,
}

impl MultiHeadAttention {
    /// A layer whose inputs and output all have `width` channels.
    pub fn new(attention: Attention, width: u32) -> Self {
        Self {
            attention,
            width_q: width,
            width_k: width,
            width_v: width,
            width_out: Some(width),
            learned_key: false,
            zero_key: false,
            average_weights: false,
        }
    }

    /// Vectors of position `[rows, width]` to be added to inputs: sin(p / 10000^(2m / width)) in channel 2m and
    /// cos in channel 2m + 1 (Vaswani et al., 2017).
    ///
    /// ```
    /// let positions = heedful::layer::MultiHeadAttention::sinusoidal(2, 4);
    /// assert_eq!(positions[..4], [0.0, 1.0, 0.0, 1.0]);
    /// assert_eq!(positions[4], 1.0_f64.sin() as f32);
    /// ```
    pub fn sinusoidal(rows: u32, width: u32) -> Vec<f32> {
        let value = |p: u32, c: u32| {
            let frequency = 10_000.0_f64.powf(-f64::from(c / 2 * 2) / f64::from(width));
            let angle = f64::from(p) * frequency;
            (if c.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
        };
        (0..rows).flat_map(|p| (0..width).map(move |c| value(p, c))).collect()
    }

    /// Keys of the input, without the extra ones.
    pub fn input_keys(&self) -> u32 {
        self.attention.shape.seq_kv.saturating_sub(self.added_keys())
    }

    fn added_keys(&self) -> u32 {
        u32::from(self.learned_key) + u32::from(self.zero_key)
    }

    /// The call between the projections: a row of a sequence holding its heads one after another.
    pub fn inner(&self) -> Attention {
        self.attention.clone().layout(Layout::Bshd)
    }

    /// Channels of q, of k, of v and of the heads' outputs together.
    pub(crate) fn inner_widths(&self) -> [u32; 4] {
        let s = self.attention.shape;
        let dim_q = self.attention.general.unwrap_or(s.dim_qk);
        [s.heads_q * dim_q, s.heads_kv * s.dim_qk, s.heads_kv * s.dim_v, s.heads_q * s.dim_v]
    }

    /// Checks sizes and the call between the projections.
    ///
    /// # Errors
    /// Invalid argument naming the first field that cannot be.
    pub fn validate(&self) -> Result<()> {
        let a = &self.attention;
        if a.masks.bits.is_some() {
            return Err(Error::invalid("attention.masks", "bits", "bytes, as a layer takes them"));
        }
        if a.bias_dtype != DType::F32 {
            let wanted = "f32, as a layer takes it";
            return Err(Error::invalid("attention.bias_dtype", a.bias_dtype, wanted));
        }
        // The projections write f32.
        let dtype = self.attention.dtype;
        if dtype != DType::F32 {
            return Err(Error::invalid("attention.dtype", dtype, "f32, as a layer computes"));
        }
        if let Some(storage) = self.attention.kv_storage.filter(|x| *x != Storage::F32) {
            return Err(Error::invalid(
                "attention.kv_storage",
                storage,
                "f32, as a layer computes",
            ));
        }
        if self.attention.paged.is_some() {
            return Err(Error::invalid("attention.paged", "keys in pages", "a layer's own keys"));
        }
        self.inner().validate()?;
        let extra = self.added_keys();
        if self.attention.packed.is_some() {
            return Err(Error::invalid("attention", "packed sequences", "padded ones in a layer"));
        }
        if self.attention.shape.seq_kv < extra {
            let wanted = format!("at least the {extra} extra keys");
            return Err(Error::invalid("seq_kv", self.attention.shape.seq_kv, wanted));
        }
        let widths = [
            ("width_q", self.width_q),
            ("width_k", self.width_k),
            ("width_v", self.width_v),
            ("width_out", self.width_out.unwrap_or(1)),
        ];
        for (name, width) in widths {
            if width == 0 || width > 1 << 20 {
                return Err(Error::invalid(name, width, "1..=2^20"));
            }
        }
        let shown = self.attention.weights == Some(WeightsAt::Probabilities);
        if self.average_weights && !shown {
            let found = format!("weights {:?}", self.attention.weights);
            return Err(Error::invalid("average_weights", found, "probabilities asked for"));
        }
        Ok(())
    }
}

/// The layer's learned tensors, f32; matrices are `[out, in]`, as PyTorch and safetensors have them.
///
/// A packed matrix serves as three views into it.
#[derive(Debug, Clone, Copy)]
pub struct LayerWeights<'a> {
    /// `[heads_q · dim_qk, width_q]`.
    pub w_q: BufferView<'a>,
    /// `[heads_kv · dim_qk, width_k]`.
    pub w_k: BufferView<'a>,
    /// `[heads_kv · dim_v, width_v]`.
    pub w_v: BufferView<'a>,
    /// `[width_out, heads_q · dim_v]`.
    pub w_o: Option<BufferView<'a>>,
    /// `[heads_q · dim_qk]`.
    pub b_q: Option<BufferView<'a>>,
    /// `[heads_kv · dim_qk]`.
    pub b_k: Option<BufferView<'a>>,
    /// `[heads_kv · dim_v]`.
    pub b_v: Option<BufferView<'a>>,
    /// `[width_out]`.
    pub b_o: Option<BufferView<'a>>,
    /// The learned extra key, `[heads_kv · dim_qk]`; usage `COPY_SRC`.
    pub bias_k: Option<BufferView<'a>>,
    /// The learned extra value, `[heads_kv · dim_v]`; usage `COPY_SRC`.
    pub bias_v: Option<BufferView<'a>>,
}

impl<'a> LayerWeights<'a> {
    /// The matrices of the three projections, no biases, no output matrix.
    pub fn new(
        w_q: impl Into<BufferView<'a>>,
        w_k: impl Into<BufferView<'a>>,
        w_v: impl Into<BufferView<'a>>,
    ) -> Self {
        Self {
            w_q: w_q.into(),
            w_k: w_k.into(),
            w_v: w_v.into(),
            w_o: None,
            b_q: None,
            b_k: None,
            b_v: None,
            b_o: None,
            bias_k: None,
            bias_v: None,
        }
    }
}

/// How a layer will run: its attention's plan.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPlan {
    /// The layer.
    pub layer: MultiHeadAttention,
    /// The plan between its projections.
    pub attention: Plan,
    /// The tile of projections on matrix units, where [`Policy::matrix_units`] asked for them and they proved right: x
    /// and W are rounded to f16, sums are f32.
    pub projections: Option<MatrixTile>,
    /// What was wrong with projections on matrix units on this device.
    pub rejection: Option<Rejection>,
}

impl Engine {
    /// Plans a layer, blocking the thread while kernels are compiled and tried.
    ///
    /// # Errors
    /// As [`plan_with`](Self::plan_with), and invalid argument for the layer's own sizes.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn plan_layer(&self, layer: &MultiHeadAttention, policy: &Policy) -> Result<LayerPlan> {
        pollster::block_on(self.plan_layer_in(layer, policy, Wait::Blocking))
    }

    /// `plan_layer` without blocking the thread.
    ///
    /// # Errors
    /// As `plan_layer`.
    pub async fn plan_layer_async(
        &self,
        layer: &MultiHeadAttention,
        policy: &Policy,
    ) -> Result<LayerPlan> {
        self.plan_layer_in(layer, policy, Wait::Awaiting).await
    }

    async fn plan_layer_in(
        &self,
        layer: &MultiHeadAttention,
        policy: &Policy,
        wait: Wait,
    ) -> Result<LayerPlan> {
        layer.validate()?;
        self.check_queue()?;
        let tries = policy.self_test == SelfTest::OnFirstUse;
        let wanted =
            if policy.matrix_units { tuning::square_tile(&self.capabilities) } else { None };
        let mut rejection = None;
        if let (Some(tile), true) = (wanted, tries) {
            rejection = self.linear_is_wrong(Some(tile), wait).await?;
        }
        let projections = wanted.filter(|_| rejection.is_none());
        if tries
            && projections.is_none()
            && let Some(rejection) = self.linear_is_wrong(None, wait).await?
        {
            return Err(Error::unsupported("the layer's projections", vec![rejection]));
        }
        if layer.average_weights
            && tries
            && let Some(rejection) = self.average_is_wrong(wait).await?
        {
            return Err(Error::unsupported("the average over heads", vec![rejection]));
        }
        let attention = self.plan_in(&layer.inner(), policy, wait).await?;
        Ok(LayerPlan { layer: layer.clone(), attention, projections, rejection })
    }
}
