//! Generated WGSL: what is repeated in registers or matrices, and the functions by which kernels reach their slots.

pub(super) mod glue;
pub(super) mod glue_elements;
pub(super) mod matrix;
pub(super) mod matrix_square;
pub(super) mod own;
pub(super) mod registers;
pub(super) mod split;
pub(super) mod steps;
pub(super) mod tile;

use std::fmt::Write;

/// A function on a line of its own.
pub(in crate::kernel) fn function(out: &mut String, signature: &str, body: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "fn {signature} {{ {body} }}");
}
