//! What is asked: the [`Attention`] builder, the validated [`Problem`], and the cost model.

mod attention;
pub mod cost;
mod problem;

pub use attention::{Attention, Packed, WeightsAt};
pub use problem::{Operand, Problem};
