//! Around attention: the multi-head layer with its projections, and the forms of it that have names.
//!
//! | form | how |
//! |---|---|
//! | self attention | one input for q, k and v |
//! | cross attention (N → M) | another input, or two, for k and v |
//! | attention pooling (N → 1) | a learned query: seq_q = 1, x_q is a weight |
//! | grouped heads | `heads_kv` < `heads_q` in the attention's shape |

mod backward;
mod backward_bound;
mod backward_host;
mod bound;
mod host;
mod multi_head;
mod reference;
mod reference_backward;
mod self_test;
mod self_test_backward;

pub use backward::{LayerBackward, LayerBackwardPlan, LayerGradients, LayerTensor};
pub use backward_bound::{BoundLayerBackward, LayerBackwardTensors};
pub use bound::BoundLayer;
pub use host::{HostWeights, LayerInputs, LayerOutputs};
pub use multi_head::{ExtraKeys, LayerPlan, LayerWeights, MultiHeadAttention};

/// Centers of local attention as Luong et al. (2015) predict them: seq_kv · sigmoid(vᵀ tanh(W h_i)) for each
/// state h_i `[rows, width]`, W `[hidden, width]`, v `[hidden]`; the table `centers` of
/// [`Attention::local`](crate::Attention::local).
///
/// ```
/// // tanh(0) = 0, so the sigmoid is in the middle.
/// let centers = heedful::layer::predicted_centers(&[0.0, 0.0], &[1.0, 2.0], &[3.0], 10);
/// assert_eq!(centers, [5.0]);
/// ```
pub fn predicted_centers(states: &[f64], w: &[f64], v: &[f64], seq_kv: u32) -> Vec<f64> {
    let width = w.len() / v.len().max(1);
    let center = |h: &[f64]| {
        let hidden = w.chunks(width).map(|row| row.iter().zip(h).map(|(w, h)| w * h).sum::<f64>());
        let sum: f64 = hidden.zip(v).map(|(x, v)| v * x.tanh()).sum();
        f64::from(seq_kv) / (1.0 + (-sum).exp())
    };
    states.chunks_exact(width.max(1)).map(center).collect()
}

/// Vectors of position `[rows, width]` to be added to inputs: sin(p / 10000^(2m / width)) in channel 2m and
/// cos in channel 2m + 1 (Vaswani et al., 2017).
///
/// ```
/// let positions = heedful::layer::sinusoidal(2, 4);
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
