//! The composer: a kernel's WGSL from its spec.
//!
//! It concatenates, in this order: a prelude (enables, constants, bindings), the common files, one
//! file per filled slot, generated glue that names the slots (`keep`, `score_scaled` …), and the
//! kernel file. Nothing is replaced inside a file, so a compiler's line number maps back to the
//! file a person edits.

use super::bindings::{Access, Binding};
use super::element::Width;
use super::generate::glue::glue;
use super::params::Params;
use super::spec::{KernelSpec, SMALL_TABLES};
use super::twin::{Common, Family, common};
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
    let twin = spec.kernel.twin();
    let attends = twin.family != Family::Alone;
    let capped = spec.scores.iter().any(|(_, slot)| *slot == softcap::SLOT);
    let by_features = [
        (true, common!("numeric")),
        (attends, common!("position")),
        (spec.blocks.is_some(), common!("blocks")),
        (capped || spec.inner.contains(&tanh::SLOT), common!("tanh")),
        (spec.preparation.is_some(), common!("rotary")),
        (spec.draws_lots(), common!("philox")),
        (spec.is_paged() && attends, common!("pages")),
        (spec.has_edges(), common!("edges")),
    ];
    let by_features = by_features.into_iter().filter_map(|(on, file)| on.then_some(file));
    let commons: Vec<Common> = by_features.chain((twin.commons)(spec)).collect();
    for (path, text) in commons {
        w.part(path, text);
    }
    for slot in spec.slots() {
        w.part(&slot.path(), if twin.backward { &slot.source } else { slot.forward() });
    }
    w.part("generated/glue", &glue(spec));
    if let Some((path, text)) = (twin.generated)(spec) {
        w.part(path, &text);
    }
    w.part(&format!("kernel/{}.wgsl", spec.kernel.name()), twin.source);
    Composed { text: w.text, lines: w.lines }
}

fn prelude(spec: &KernelSpec, compiler: Compiler) -> String {
    let mut out = format!("// {spec}\n");
    if spec.needs_f16() {
        out.push_str("enable f16;\n");
    }
    if spec.matrix_tile().is_some() {
        out.push_str("enable wgpu_cooperative_matrix;\n");
    }
    let shares_keys = spec.split_tile().is_some_and(|tile| tile.key_lanes > 1);
    let subgroups = shares_keys || spec.row_tile().is_some_and(|tile| tile.fetch > 1);
    if subgroups && compiler == Compiler::Browser {
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
        let word = if spec.build.small_tables { "aux[i >> 2u][i & 3u]" } else { "aux[i]" };
        out += &format!("fn aux_word(i: u32) -> u32 {{ return {word}; }}\n");
    }
    out
}

fn variable_type(spec: &KernelSpec, binding: Binding, access: Access) -> String {
    let element = spec.elements.iter().find(|(b, _)| *b == binding).map(|(_, element)| *element);
    let stores = spec.stores(binding);
    let word = match (binding, element) {
        (Binding::Params, _) => return "Params".into(),
        (Binding::Aux, _) if access == Access::Uniform => {
            return format!("array<vec4<u32>, {}>", SMALL_TABLES / 4);
        }
        (_, Some(element)) if stores && element.is_quantised() => "u32",
        (_, Some(element)) if stores => match element.width {
            Width::Vec4 => element.store().word4,
            Width::Single if element.store().halves => "atomic<u32>",
            Width::Single => element.store().word1,
        },
        (_, Some(element)) => match element.width {
            Width::Vec4 => element.load().word4,
            Width::Single => element.load().word1,
        },
        (Binding::Scores | Binding::Carry | Binding::Partials, None) => "vec4<f32>",
        (Binding::Grads | Binding::Entries, None) => "vec4<f32>",
        (Binding::RowSums | Binding::CenterSums | Binding::DLse, None) => "f32",
        (Binding::DWeights | Binding::DTable, None) => "f32",
        (Binding::States, None) => "vec2<f32>",
        (Binding::Mask | Binding::Aux, None) => "u32",
        // Two to a word.
        (Binding::Bias, None) if spec.has_half_bias() => "u32",
        (Binding::Bias | Binding::Lse | Binding::Weights, None) => "f32",
        (Binding::InverseSums | Binding::Angles | Binding::PartsLse, None) => "f32",
        // Without an element type they are not bound.
        (Binding::Q | Binding::K | Binding::V | Binding::O | Binding::Projection, None) => "f32",
        (Binding::DO | Binding::DV, None) => "f32",
    };
    format!("array<{word}>")
}

impl KernelSpec {
    /// A number that tells its text from that of every other kernel, the same in every build of this version.
    pub(crate) fn fingerprint(&self) -> u128 {
        // FNV-1a.
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
        let step = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
        compose(self).text.as_bytes().iter().fold(BASIS, step)
    }
}
