//! What is asked: the [`Attention`] builder, the validated [`Problem`], and the cost model.

mod attention;
mod backward;
pub mod cost;
mod lengths;
mod problem;
mod text;
mod validate;

pub use crate::feature::Operand;
pub use attention::{Attention, Packed, Paged, WeightsAt};
pub(crate) use attention::{PACKED_PARAMETERS, PAGED_PARAMETERS};
pub use backward::{Backward, BackwardProblem};
pub use problem::Problem;
