//! Checking results: what to run, what is expected, and whether a result is right.

pub mod alone;
pub mod cases;
pub mod compare;
pub mod data;
pub mod execute;
pub mod expectations;
pub mod golden;
pub mod gradients;
mod held;
mod held_backward;
pub mod npy;
pub mod report;
pub mod run;
pub mod run_backward;
pub mod truth;
