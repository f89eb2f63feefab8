//! `LayerBackward`: which gradients of a layer are wanted, and how they will be computed.

use std::collections::BTreeMap;
use std::fmt;

use crate::device::Wait;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layer::MultiHeadAttention;
use crate::plan::{BackwardPlan, Policy, SelfTest};
use crate::problem::{Attention, Backward, Operand};
use crate::reference::Gradients;

macro_rules! layer_tensors {
    ($($(#[$doc:meta])* $Tensor:ident: $name:literal,)*) => {
        /// A tensor of a layer that has a gradient: an input, or a learned one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum LayerTensor {
            $($(#[$doc])* $Tensor,)*
        }

        impl LayerTensor {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$Tensor,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$Tensor => $name,)*
                }
            }

            /// What its gradient is called.
            pub(super) fn gradient_name(self) -> &'static str {
                match self {
                    $(Self::$Tensor => concat!("gradient of ", $name),)*
                }
            }
        }
    };
}

layer_tensors! {
    /// The input of queries, `[batch, seq_q, width_q]`.
    XQ: "x_q",
    /// The input of keys, `[batch, keys of the input, width_k]`.
    XK: "x_k",
    /// The input of values, `[batch, keys of the input, width_v]`.
    XV: "x_v",
    /// `[heads_q · dim_qk, width_q]`.
    WQ: "w_q",
    /// `[heads_kv · dim_qk, width_k]`.
    WK: "w_k",
    /// `[heads_kv · dim_v, width_v]`.
    WV: "w_v",
    /// `[width_out, heads_q · dim_v]`.
    WO: "w_o",
    /// `[heads_q · dim_qk]`.
    BQ: "b_q",
    /// `[heads_kv · dim_qk]`.
    BK: "b_k",
    /// `[heads_kv · dim_v]`.
    BV: "b_v",
    /// `[width_out]`.
    BO: "b_o",
    /// The learned extra key, `[heads_kv · dim_qk]`.
    BiasK: "bias_k",
    /// The learned extra value, `[heads_kv · dim_v]`.
    BiasV: "bias_v",
}

impl fmt::Display for LayerTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl LayerTensor {
    /// Its elements; `None` where the layer has no such tensor.
    pub fn elements(self, layer: &MultiHeadAttention) -> Option<u64> {
        let s = layer.attention.shape;
        let [inner_q, inner_k, inner_v, inner_o] = layer.inner_widths().map(u64::from);
        let [width_q, width_k, width_v] =
            [layer.width_q, layer.width_k, layer.width_v].map(u64::from);
        let out = layer.width_out.map(u64::from);
        let rows = |rows: u32| u64::from(s.batch) * u64::from(rows);
        let learned = |n: u64| layer.learned_key.then_some(n);
        match self {
            Self::XQ => Some(rows(s.seq_q) * width_q),
            Self::XK => Some(rows(layer.input_keys()) * width_k),
            Self::XV => Some(rows(layer.input_keys()) * width_v),
            Self::WQ => Some(inner_q * width_q),
            Self::WK => Some(inner_k * width_k),
            Self::WV => Some(inner_v * width_v),
            Self::WO => out.map(|out| out * inner_o),
            Self::BQ => Some(inner_q),
            Self::BK => Some(inner_k),
            Self::BV => Some(inner_v),
            Self::BO => out,
            Self::BiasK => learned(inner_k),
            Self::BiasV => learned(inner_v),
        }
    }
}

/// The gradients of a layer, as plain data: of ⟨d_out, out⟩.
///
/// A layer whose attention writes lse ([`Attention::with_lse`]) keeps what gradients of its call need; without it they
/// take planes of scores under softmax.
///
/// ```
/// use heedful::layer::{LayerBackward, LayerTensor, MultiHeadAttention};
/// use heedful::{Attention, Shape};
/// let layer = MultiHeadAttention::new(Attention::new(Shape::self_attention(2, 12, 28, 32)), 384);
/// let backward = LayerBackward::of(layer).with(LayerTensor::BO);
/// backward.validate()?;
/// assert_eq!(backward.wanted.len(), 8);
/// # Ok::<(), heedful::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LayerBackward {
    /// The layer.
    pub layer: MultiHeadAttention,
    /// The tensors whose gradients are wanted, in the order of [`LayerTensor`]; what is not wanted is not computed.
    pub wanted: Vec<LayerTensor>,
    /// The same of the call between the projections: bias, sinks and whatever else it learns.
    pub between: Vec<Operand>,
}

impl LayerBackward {
    /// The gradients of the inputs, of every matrix and of the learned extra key and value; those of vectors that may
    /// be left out (b_q and its like) are asked for by [`with`](Self::with).
    pub fn of(layer: MultiHeadAttention) -> Self {
        use LayerTensor::{BiasK, BiasV, WK, WO, WQ, WV, XK, XQ, XV};
        let all = [XQ, XK, XV, WQ, WK, WV, WO, BiasK, BiasV];
        let wanted = all.into_iter().filter(|x| x.elements(&layer).is_some()).collect();
        Self { layer, wanted, between: Vec::new() }
    }

    /// Other gradients than those.
    pub fn only(mut self, wanted: &[LayerTensor]) -> Self {
        self.wanted = wanted.to_vec();
        self.in_order()
    }

    /// One more gradient.
    pub fn with(mut self, tensor: LayerTensor) -> Self {
        self.wanted.push(tensor);
        self.in_order()
    }

    /// One more gradient, of a tensor of the call between the projections.
    pub fn with_between(mut self, operand: Operand) -> Self {
        self.between.push(operand);
        self.in_order()
    }

    fn in_order(mut self) -> Self {
        self.wanted.sort_unstable();
        self.wanted.dedup();
        self.between.sort_unstable();
        self.between.dedup();
        self
    }

    /// Whether the gradient of a tensor is wanted.
    pub fn wants(&self, tensor: LayerTensor) -> bool {
        self.wanted.contains(&tensor)
    }

    /// The gradients of the call between the projections that these need; `None` where they need none.
    pub fn attention(&self) -> Option<Backward> {
        use LayerTensor::{BK, BQ, BV, BiasK, BiasV, WK, WQ, WV, XK, XQ, XV};
        let needs = |tensors: &[LayerTensor]| tensors.iter().any(|x| self.wants(*x));
        let rows = [
            (Operand::Q, needs(&[XQ, WQ, BQ])),
            (Operand::K, needs(&[XK, WK, BK, BiasK])),
            (Operand::V, needs(&[XV, WV, BV, BiasV])),
        ];
        let rows = rows.into_iter().filter_map(|(operand, on)| on.then_some(operand));
        let wanted: Vec<Operand> = rows.chain(self.between.iter().copied()).collect();
        // Nothing comes back through weights that are shown.
        let call = Attention { weights: None, ..self.layer.inner() };
        (!wanted.is_empty()).then(|| Backward::of(call).only(&wanted))
    }

    /// Checks the layer, and that it has what is wanted.
    ///
    /// # Errors
    /// Invalid argument naming the tensor or the feature, and why there is no gradient.
    pub fn validate(&self) -> Result<()> {
        self.layer.validate()?;
        if self.wanted.is_empty() && self.between.is_empty() {
            return Err(Error::invalid("gradients wanted", "none", "at least one"));
        }
        for tensor in &self.wanted {
            if tensor.elements(&self.layer).is_none() {
                let (found, wanted) = ("a layer without it", "a tensor of the layer");
                return Err(Error::invalid(tensor.gradient_name(), found, wanted));
            }
        }
        if let Some(operand) = self.between.iter().find(|x| x.rows().is_some()) {
            let wanted = "a learned tensor between the projections";
            return Err(Error::invalid(operand.gradient_name(), operand, wanted));
        }
        self.attention().map_or(Ok(()), |backward| backward.validate().map(|_| ()))
    }
}

/// The projection that makes q, k or v: y = x Wᵀ + b, and what is behind its rows.
pub(super) struct Projection {
    pub(super) operand: Operand,
    pub(super) x: LayerTensor,
    pub(super) w: LayerTensor,
    pub(super) b: LayerTensor,
    /// The learned row behind those of the input.
    pub(super) extra: Option<LayerTensor>,
    /// Rows of the input.
    pub(super) rows: u32,
    /// Rows of q, k or v: the input's and the extra ones.
    pub(super) seq: u32,
    pub(super) inputs: u32,
    pub(super) heads: u32,
    pub(super) dim: u32,
}

impl Projection {
    pub(super) fn all(layer: &MultiHeadAttention) -> [Self; 3] {
        use LayerTensor::{BK, BQ, BV, BiasK, BiasV, WK, WQ, WV, XK, XQ, XV};
        let s = layer.attention.shape;
        let dim_q = layer.attention.general.unwrap_or(s.dim_qk);
        let keys = |operand, [x, w, b]: [LayerTensor; 3], extra, [inputs, dim]: [u32; 2]| Self {
            operand,
            x,
            w,
            b,
            extra: Some(extra),
            rows: layer.input_keys(),
            seq: s.seq_kv,
            inputs,
            heads: s.heads_kv,
            dim,
        };
        let q = Self {
            extra: None,
            rows: s.seq_q,
            seq: s.seq_q,
            heads: s.heads_q,
            ..keys(Operand::Q, [XQ, WQ, BQ], BiasK, [layer.width_q, dim_q])
        };
        [
            q,
            keys(Operand::K, [XK, WK, BK], BiasK, [layer.width_k, s.dim_qk]),
            keys(Operand::V, [XV, WV, BV], BiasV, [layer.width_v, s.dim_v]),
        ]
    }

    /// Channels of its rows.
    pub(super) fn outputs(&self) -> u32 {
        self.heads * self.dim
    }
}

/// How the gradients of a layer will be computed.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerBackwardPlan {
    /// What was asked.
    pub backward: LayerBackward,
    /// The plan between the projections; `None` where nothing of it is needed.
    pub attention: Option<BackwardPlan>,
}

impl Engine {
    /// Plans the gradients of a layer, blocking the thread while kernels are compiled and tried.
    ///
    /// # Errors
    /// Invalid argument for gradients that the layer cannot have; unsupported, with the reason.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn plan_layer_backward(
        &self,
        backward: &LayerBackward,
        policy: &Policy,
    ) -> Result<LayerBackwardPlan> {
        pollster::block_on(self.plan_layer_backward_in(backward, policy, Wait::Blocking))
    }

    /// `plan_layer_backward` without blocking the thread.
    ///
    /// # Errors
    /// As `plan_layer_backward`.
    pub async fn plan_layer_backward_async(
        &self,
        backward: &LayerBackward,
        policy: &Policy,
    ) -> Result<LayerBackwardPlan> {
        self.plan_layer_backward_in(backward, policy, Wait::Awaiting).await
    }

    async fn plan_layer_backward_in(
        &self,
        backward: &LayerBackward,
        policy: &Policy,
        wait: Wait,
    ) -> Result<LayerBackwardPlan> {
        backward.validate()?;
        self.check_queue()?;
        if policy.self_test == SelfTest::OnFirstUse
            && let Some(rejection) = self.linear_backward_is_wrong(wait).await?
        {
            return Err(Error::unsupported(
                "gradients of the layer's projections",
                vec![rejection],
            ));
        }
        let call = backward.attention();
        let attention = match call {
            Some(call) => Some(self.plan_backward_in(&call, policy, wait).await?),
            None => None,
        };
        Ok(LayerBackwardPlan { backward: backward.clone(), attention })
    }
}

/// Gradients of a layer on the host, each of the shape of its tensor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LayerGradients {
    tensors: BTreeMap<LayerTensor, Vec<f64>>,
    /// Those of the call between the projections.
    pub between: Gradients,
}

impl LayerGradients {
    /// The gradient of a tensor; `None` where it was not wanted.
    pub fn get(&self, tensor: LayerTensor) -> Option<&[f64]> {
        self.tensors.get(&tensor).map(Vec::as_slice)
    }

    /// All of them but those between the projections, in the order of [`LayerTensor`].
    pub fn iter(&self) -> impl Iterator<Item = (LayerTensor, &[f64])> {
        self.tensors.iter().map(|(tensor, values)| (*tensor, values.as_slice()))
    }

    pub(super) fn insert(&mut self, tensor: LayerTensor, values: Vec<f64>) {
        self.tensors.insert(tensor, values);
    }
}
