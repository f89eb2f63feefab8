//! Backward: gradients of biases of a graph's edges.

use super::bindings::{Access, Binding};
use super::kernels::Kernel;
use super::spec::KernelSpec;
use super::twin::{Twin, kernel_file, spread};
use super::variants::EDGES;
use crate::problem::{Operand, Problem};

pub(super) const TWIN: Twin = Twin {
    bindings: |_| vec![(Binding::Entries, Access::ReadWrite), (Binding::DTable, Access::ReadWrite)],
    // One invocation for each of `elements`.
    grid: |_, work| {
        let [x, y] = spread(work.elements.div_ceil(64));
        [x, y, 1]
    },
    ..kernel_file!("backward_edges")
};

impl KernelSpec {
    /// Backward: the gradients of biases of edges.
    pub(crate) fn backward_edges(problem: &Problem) -> Self {
        let ranged = Self::ranged(Kernel::BackwardEdges, problem).ignoring(&[Operand::Table]);
        // It knows the graph only.
        Self { masks: Vec::new(), diagonal: None, factor: false, dropout: false, ..ranged }
            .reading(true, EDGES)
    }
}
