//! Checking results: what to run, what is expected, and whether a result is right.

pub mod compare;
pub mod execute;
pub mod truth;
