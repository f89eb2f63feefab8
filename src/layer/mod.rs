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
pub use multi_head::{LayerPlan, LayerWeights, MultiHeadAttention};
