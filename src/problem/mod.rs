//! What is asked: the [`Attention`] builder, the validated [`Problem`], and the cost model.

mod attention;
pub mod cost;
mod operand;
mod problem;
mod text;
mod validate;

pub use attention::{Attention, Packed, Paged, WeightsAt};
pub use operand::Operand;
pub use problem::Problem;
