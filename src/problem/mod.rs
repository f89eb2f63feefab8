//! What is asked: the [`Attention`] builder, the validated [`Problem`], and the cost model.

mod attention;
mod attention_masks;
mod backward;
mod cost;
mod lengths;
mod problem;
mod sequences;
mod text;
mod validate;

pub use crate::feature::Operand;
pub use attention::{Attention, WeightsAt};
pub use backward::{Backward, BackwardProblem};
pub use problem::Problem;
pub(crate) use sequences::{PACKED_PARAMETERS, PAGED_PARAMETERS};
#[doc(hidden)]
pub use sequences::{Packed, Paged};
