//! How a problem will run on a device: candidates and rejections, kernel variants, blocks, scratch.
//!
//! It works on [`Capabilities`] as plain data, so a plan for any GPU can be made and read anywhere.

mod block;
mod capabilities;
mod classify;
mod fit;
mod matrix;
mod plan;
mod policy;
mod prepare;
mod schedule;
mod split;
pub mod tuning;

pub use block::{Block, BlockSize};
pub use capabilities::{Capabilities, MatrixScalar, MatrixUnit};
pub use classify::Classify;
pub(crate) use fit::check_matrix;
pub use matrix::MatrixPlan;
pub use plan::Plan;
pub use policy::{Checks, Path, Policy, SelfTest};
pub use prepare::Prepare;
pub use schedule::{BlocksPlan, FusedPlan, Schedule, Scratch, StagedPlan};
pub use split::{MAX_ROWS, SplitPlan};
