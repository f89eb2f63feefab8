//! Joins the shares that split kernels leave.

use std::fmt::Write;

use super::bindings::Binding;
use super::element::{Element, MergeTile};
use super::fused_forward::invocations;
use super::generate::glue::{output_glue, start_glue, value_scale_glue};
use super::generate::registers::row_types;
use super::kernels::Kernel;
use super::spec::{KernelSpec, Writes};
use super::split_forward::partial_results;
use super::tile::Tile;
use super::twin::{Twin, common, kernel_file};
use crate::problem::{Operand, Problem};

pub(super) const TWIN: Twin = Twin {
    commons: |spec| {
        let mut commons = vec![common!("normalizer"), common!("finish")];
        commons.extend(spec.is_each().then_some(common!("normalize_each")));
        commons
    },
    bindings: partial_results,
    glue: |out, spec| {
        *out += &row_types(1);
        if let Some(Tile::Merge(tile)) = spec.tile {
            let MergeTile { columns, sides } = tile;
            let _ = writeln!(
                out,
                "const LANES: u32 = {}u;\nconst COLUMN_LANES: u32 = {columns}u;\nconst SIDES: u32 = {sides}u;",
                tile.lanes()
            );
        }
        start_glue(out, spec);
        value_scale_glue(out, spec);
        output_glue(out, spec);
    },
    invocations,
    workgroup_bytes: |spec| 24 * invocations(spec),
    ..kernel_file!("split_merge")
};

impl KernelSpec {
    /// Joins shares into o and lse.
    pub fn split_merge(problem: &Problem, o: Element, tile: MergeTile) -> Self {
        let a = problem.attention();
        let ranged = Self::ranged(Kernel::SplitMerge, problem);
        Self {
            elements: vec![(Binding::O, o)],
            tile: Some(Tile::Merge(tile)),
            normalize: Some(a.normalizer.slot()),
            writes: Writes { lse: a.lse, ..Writes::NOTHING },
            masks: Vec::new(),
            diagonal: None,
            factor: false,
            dropout: false,
            ..ranged.ignoring(&[Operand::PageTable, Operand::Table])
        }
        .reading(a.sinks, &[Operand::Sinks])
        .reading(a.kv_scales.is_some(), &[Operand::VScales])
    }
}
