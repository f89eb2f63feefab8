//! Checking results: what to run, what is expected, and whether a result is right.

pub mod alone;
pub mod cases;
pub mod compare;
pub mod data;
pub mod execute;
pub mod expectations;
#[cfg(not(target_arch = "wasm32"))]
pub mod golden;
pub mod gradients;
mod held;
mod held_backward;
#[cfg(not(target_arch = "wasm32"))]
pub mod npy;
pub mod planned;
pub mod report;
pub mod run;
pub mod run_backward;
pub mod trial;
pub mod truth;
