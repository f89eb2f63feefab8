//! How a problem will run on a device: candidates and rejections, kernel variants, blocks, scratch.
//!
//! It works on [`Capabilities`] as plain data, so a plan for any GPU can be made and read anywhere.

mod backward;
mod backward_steps;
mod backward_work;
mod block;
mod candidates;
mod capabilities;
mod classify;
mod fit;
mod fused;
mod fused_backward;
mod matrix;
mod plan;
mod policy;
mod prepare;
mod split;
mod split_tile;
mod staged;
mod staged_backward;
mod steps;
mod tile;
// Rows of tiles are written by `heedful tune`, and read.
#[doc(hidden)]
pub mod tuning;
mod turns;

pub use backward::BackwardPlan;
pub(crate) use backward_steps::{BackwardStep, Makes, Phase};
#[doc(hidden)]
pub use block::{Block, BlockSize};
pub use capabilities::{Capabilities, MatrixUnit};
use classify::Classify;
pub(crate) use fit::check_matrix;
pub use plan::Plan;
pub use policy::{Checks, Path, Policy, SelfTest};
#[doc(hidden)]
pub use split::MAX_ROWS;
#[doc(hidden)]
pub use steps::{Over, Shares, Step};
