//! Normalisers: from a row of scores to a row of weights.

pub mod sink;
pub mod softmax;
