//! Checking results: what to run, what is expected, and whether a result is right.
//!
//! [`cases`] lists generated calls and [`data`] draws their tensors; [`truth`] says what such a call
//! should yield. [`golden`] reads recorded calls with recorded results. [`compare`] gives the verdict
//! on either, by the numerical contract it documents, and [`report`] keeps the verdicts.

pub mod cases;
pub mod compare;
pub mod data;
pub mod golden;
pub mod report;
pub mod truth;
