//! How a problem will run on a device: candidates and rejections, kernel variants, blocks, scratch.
//!
//! It works on [`Capabilities`] as plain data, so a plan for any GPU can be made and read anywhere.

mod block;
mod capabilities;
mod classify;
mod plan;
mod policy;
mod prepare;
pub mod tuning;

pub use block::{Block, BlockSize};
pub use capabilities::Capabilities;
pub use classify::Classify;
pub(crate) use plan::operand_of;
pub use plan::{BlocksPlan, FusedPlan, Plan, Schedule, Scratch, StagedPlan};
pub use policy::{Checks, Path, Policy, SelfTest};
pub use prepare::Prepare;
