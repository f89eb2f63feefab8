//! The composer: a kernel's WGSL from its spec.
//!
//! It concatenates, in this order: a prelude (enables, constants, bindings), the common files, one
//! file per filled slot, generated glue that names the slots (`keep`, `score_scaled` …), and the
//! kernel file. Nothing is replaced inside a file, so a compiler's line number maps back to the
//! file a person edits.

use super::bindings::{Access, Binding};
use super::element::Width;
use super::glue::glue;
use super::matrix::matrix;
use super::matrix_square::matrix_square;
use super::params::Params;
use super::registers::registers;
use super::schedule::Kernel;
use super::spec::{KernelSpec, SMALL_TABLES};
use super::split::split;
use super::tile::tile;
use crate::feature::inner::tanh;
use crate::feature::score::softcap;

/// A composed module: its text and where each line came from.
#[derive(Debug, Clone)]
pub struct Composed {
    /// WGSL.
    pub text: String,
    /// Origin of every line.
    pub lines: LineMap,
}

/// Which file each line of a composed module came from.
#[derive(Debug, Clone, Default)]
pub struct LineMap {
    /// (first line of the part, counted from 1; its path)
    parts: Vec<(u32, String)>,
}

impl LineMap {
    /// The file and line, both as a person sees them, of a line of the composed text.
    pub fn locate(&self, line: u32) -> (&str, u32) {
        match self.parts.iter().rev().find(|(first, _)| *first <= line) {
            Some((first, path)) => (path, line - first + 1),
            None => ("generated", line),
        }
    }
}

#[derive(Default)]
struct Writer {
    text: String,
    lines: LineMap,
}

impl Writer {
    fn part(&mut self, path: &str, text: &str) {
        let line = self.text.matches('\n').count() as u32 + 1;
        self.lines.parts.push((line, path.to_owned()));
        self.text.push_str(text);
        if !text.ends_with('\n') {
            self.text.push('\n');
        }
    }
}

macro_rules! common {
    ($name:literal) => {
        (
            concat!("common/", $name, ".wgsl"),
            include_str!(concat!("../../shaders/common/", $name, ".wgsl")),
        )
    };
}

/// The compiler that is to read the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compiler {
    /// naga, as wgpu has it: subgroup operations need no `enable`, and uniformity is not analysed.
    Naga,
    /// A browser's (Tint): subgroup operations must be enabled, and an analysis that does not know that
    /// what `subgroupAll` returns is uniform over the subgroup must be told so.
    Browser,
}

/// Composes the WGSL of a kernel for naga. Deterministic: the same spec gives the same text.
pub fn compose(spec: &KernelSpec) -> Composed {
    compose_for(spec, Compiler::Naga)
}

/// Composes the WGSL of a kernel for a compiler.
pub fn compose_for(spec: &KernelSpec, compiler: Compiler) -> Composed {
    let mut w = Writer::default();
    w.part("generated/prelude", &prelude(spec, compiler));
    w.part("generated/params", Params::wgsl());
    let mut commons = vec![common!("numeric")];
    if !spec.kernel.stands_alone() {
        commons.push(common!("position"));
    }
    if spec.blocks.is_some() {
        commons.push(common!("blocks"));
    }
    let capped = spec.scores.iter().any(|(_, slot)| *slot == softcap::SLOT);
    if capped || spec.inner.contains(&tanh::SLOT) {
        commons.push(common!("tanh"));
    }
    if spec.preparation.is_some() {
        commons.push(common!("rotary"));
    }
    if spec.paged && !spec.kernel.stands_alone() {
        commons.push(common!("pages"));
    }
    if spec.edges {
        commons.push(common!("edges"));
    }
    match spec.kernel {
        Kernel::FusedForward | Kernel::FusedForwardSubgroup | Kernel::EdgeForward => {
            commons.extend([common!("normalizer"), common!("finish")]);
            commons.extend([common!("modify"), common!("fused_rows")]);
            commons.extend(spec.is_each().then_some(common!("normalize_each")));
        }
        Kernel::FusedForwardTile | Kernel::FusedForwardMatrix => {
            commons.extend([common!("normalizer"), common!("finish"), common!("modify")]);
            commons.extend(spec.is_each().then_some(common!("normalize_each")));
        }
        Kernel::SplitForward => {
            commons.extend([common!("normalizer"), common!("modify")]);
            commons.extend(spec.is_each().then_some(common!("normalize_each")));
        }
        Kernel::SplitMerge => {
            commons.extend([common!("normalizer"), common!("finish")]);
            commons.extend(spec.is_each().then_some(common!("normalize_each")));
        }
        Kernel::StagedScore | Kernel::StagedValue | Kernel::Project | Kernel::Matmul => {
            commons.extend((spec.kernel == Kernel::StagedScore).then_some(common!("modify")));
            commons.push(common!("tile"));
            commons.extend(spec.matrix.is_some().then_some(common!("tile_matrix")));
            commons.extend(spec.is_additive().then_some(common!("tile_sum")));
        }
        Kernel::StagedNormalize => {
            commons.push(common!("normalizer"));
            commons.extend(spec.is_each().then_some(common!("normalize_each")));
            // Hard attention has its own, which remember the key.
            commons.extend((!spec.is_hard()).then_some(common!("normalize_staged")));
        }
        Kernel::StagedThreshold
        | Kernel::StagedMonotonic
        | Kernel::Classify
        | Kernel::CacheAppend
        | Kernel::CacheAdvance
        | Kernel::CacheCopy
        | Kernel::MergeStates
        | Kernel::Prepare
        | Kernel::Average
        | Kernel::OwnFunctions => {}
    }
    for (path, text) in commons {
        w.part(path, text);
    }
    for slot in spec.slots() {
        w.part(&slot.path(), &slot.source);
    }
    w.part("generated/glue", &glue(spec));
    if let Some(rows) = &spec.rows {
        w.part("generated/registers", &registers(rows, spec));
    }
    if let Some(shape) = &spec.tile {
        w.part("generated/tile", &tile(shape, spec));
    }
    if let Some(tile) = &spec.matrix {
        let text = match spec.kernel {
            Kernel::FusedForwardMatrix => matrix(tile, spec),
            kernel => matrix_square(tile, kernel),
        };
        w.part("generated/matrix", &text);
    }
    if let Some(tile) = &spec.split {
        w.part("generated/split", &split(tile, spec));
    }
    w.part(&format!("kernel/{}.wgsl", spec.kernel.name()), spec.kernel.source());
    Composed { text: w.text, lines: w.lines }
}

fn prelude(spec: &KernelSpec, compiler: Compiler) -> String {
    let mut out = format!("// {spec}\n");
    if spec.needs_f16() {
        out.push_str("enable f16;\n");
    }
    if spec.matrix.is_some() {
        out.push_str("enable wgpu_cooperative_matrix;\n");
    }
    if spec.kernel == Kernel::FusedForwardSubgroup && compiler == Compiler::Browser {
        out.push_str("enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n");
    }
    for bound in spec.bindings() {
        let space = match bound.access {
            Access::Uniform => "uniform",
            Access::Read => "storage, read",
            Access::ReadWrite => "storage, read_write",
        };
        let name = bound.binding.name();
        let kind = variable_type(spec, bound.binding, bound.access);
        let number = bound.binding.number();
        out += &format!("@group(0) @binding({number}) var<{space}> {name}: {kind};\n");
    }
    if spec.needs_aux() {
        let word = if spec.small_tables { "aux[i >> 2u][i & 3u]" } else { "aux[i]" };
        out += &format!("fn aux_word(i: u32) -> u32 {{ return {word}; }}\n");
    }
    out
}

fn variable_type(spec: &KernelSpec, binding: Binding, access: Access) -> String {
    let element = spec.elements.iter().find(|(b, _)| *b == binding).map(|(_, element)| *element);
    let word = match (binding, element) {
        (Binding::Params, _) => return "Params".into(),
        (Binding::Aux, _) if access == Access::Uniform => {
            return format!("array<vec4<u32>, {}>", SMALL_TABLES / 4);
        }
        (Binding::O, Some(element)) if element.is_quantised() => "u32",
        (Binding::O, Some(element)) => match element.width {
            Width::Vec4 => element.store().word4,
            Width::Single if element.store().halves => "atomic<u32>",
            Width::Single => element.store().word1,
        },
        (_, Some(element)) => match element.width {
            Width::Vec4 => element.load().word4,
            Width::Single => element.load().word1,
        },
        (Binding::Scores | Binding::Carry | Binding::Partials, _) => "vec4<f32>",
        (Binding::States, _) => "vec2<f32>",
        (Binding::Mask | Binding::Aux, _) => "u32",
        _ => "f32",
    };
    format!("array<{word}>")
}
