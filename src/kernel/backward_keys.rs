//! Backward: gradients of keys or values.

use super::bindings::{Access, Binding};
use super::block_tile::TILE;
use super::element::Element;
use super::generate::glue::output_glue;
use super::generate::matrix_square::PLAIN_BYTES;
use super::kernels::Kernel;
use super::spec::{KernelSpec, Writes};
use super::twin::{Twin, common, kernel_file};
use crate::problem::Problem;

pub(super) const TWIN: Twin = Twin {
    square: true,
    commons: |_| vec![common!("tile"), common!("tile_selected"), common!("finish_key")],
    // Read only, but all scratch may share one buffer.
    bindings: |_| vec![(Binding::Scores, Access::ReadWrite)],
    glue: output_glue,
    // and sh_special
    workgroup_bytes: |_| PLAIN_BYTES + 16,
    grid: |_, work| {
        let pairs = work.pairs() / work.group.max(1);
        [work.columns.div_ceil(TILE), work.keys.div_ceil(TILE), pairs]
    },
    ..kernel_file!("backward_keys")
};

impl KernelSpec {
    /// Backward: the gradient of v from weights and that of o, or of k from that of the products and q. `carry`: rows
    /// come in several blocks.
    pub(crate) fn backward_keys(problem: &Problem, b: Element, d: Element, carry: bool) -> Self {
        Self {
            elements: vec![(Binding::Q, b), (Binding::O, d)],
            writes: Writes { carry, ..Writes::NOTHING },
            ..Self::ranged(Kernel::BackwardKeys, problem).without_data_masks()
        }
    }
}
