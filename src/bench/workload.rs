//! Workloads: what is timed, read from definitions in TOML.
//!
//! The built-in ones lie in `benches/definitions`; a file of one's own has the same form, one
//! `[[workload]]` table for each call. Only `name` and `shape` are required. What a call may be is said by short
//! forms, as `causal = "top-left"`, or by the fields of [`Attention`] themselves, as
//! `call.masks.chunked = { size = 64, align = "top_left" }`.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::feature::align::Align;
use crate::feature::mask::{Blocks, Edges, Neighborhood};
use crate::feature::normalize::Normalizer;
use crate::feature::prepare::Rotary;
use crate::feature::score::Relative;
use crate::problem::Attention;
use crate::tensor::{Layout, Scalar, Shape};
use crate::verify::data::{DataOptions, Lengths};

/// A named call.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Short name, unique among the definitions it comes from.
    pub name: String,
    /// What it stands for; may be empty.
    pub about: String,
    /// The suites it is in.
    pub suites: Vec<String>,
    /// The call.
    pub attention: Attention,
    /// How its tensors are drawn.
    pub data: DataOptions,
}

/// The built-in definition files by name.
const BUILT_IN: [(&str, &str); 7] = [
    ("small.toml", include_str!("../../benches/definitions/small.toml")),
    ("models.toml", include_str!("../../benches/definitions/models.toml")),
    ("long.toml", include_str!("../../benches/definitions/long.toml")),
    ("decode.toml", include_str!("../../benches/definitions/decode.toml")),
    ("forms.toml", include_str!("../../benches/definitions/forms.toml")),
    ("matrix.toml", include_str!("../../benches/definitions/matrix.toml")),
    ("backward.toml", include_str!("../../benches/definitions/backward.toml")),
];

impl Workload {
    /// Every built-in workload.
    ///
    /// # Errors
    /// An invalid-argument error that names the file and the workload, should a definition be wrong.
    pub fn built_in() -> Result<Vec<Self>> {
        let files = BUILT_IN.iter().map(|(file, text)| Self::parse(file, text));
        Ok(files.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// The built-in workloads of a suite; `full` is all of them.
    ///
    /// # Errors
    /// As [`built_in`](Self::built_in).
    pub fn suite(name: &str) -> Result<Vec<Self>> {
        let mut workloads = Self::built_in()?;
        workloads.retain(|x| name == "full" || x.suites.iter().any(|suite| suite == name));
        Ok(workloads)
    }

    /// Reads definitions from a file.
    ///
    /// # Errors
    /// An invalid-argument error that names the file, and the workload where one is wrong.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::invalid(&file, e, "a readable file of definitions"))?;
        Self::parse(&file, &text)
    }

    fn parse(file: &str, text: &str) -> Result<Vec<Self>> {
        let definitions: Definitions = toml::from_str(text)
            .map_err(|e| Error::invalid(file, e, "definitions of workloads in TOML"))?;
        let mut names = std::collections::HashSet::new();
        let named = |x: Definition| {
            let place = format!("{file}, workload {:?}", x.name);
            if !names.insert(x.name.clone()) {
                return Err(Error::invalid(place, "a second one", "one of each name"));
            }
            x.workload().map_err(|e| Error::invalid(place, e, "a valid call"))
        };
        definitions.workload.into_iter().map(named).collect()
    }
}

/// A file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definitions {
    workload: Vec<Definition>,
}

/// One table of a file; names are those of [`Attention`]'s methods.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    suites: Vec<String>,
    /// `batch x heads x rows x dim`, as tables show it.
    shape: String,
    /// Fields of [`Attention`] as they are: whatever has no short form below, which come after them.
    #[serde(default)]
    call: toml::Table,
    dtype: Option<String>,
    kv_storage: Option<String>,
    scale: Option<f32>,
    /// `dot`, `additive`, `leaky`, `cosine` or `general`.
    score: Option<String>,
    /// As `heedful run --normalizer`.
    normalizer: Option<String>,
    softcap: Option<f32>,
    /// `top-left`, `bottom-right` or an offset.
    causal: Option<Diagonal>,
    window: Option<WindowDefinition>,
    dilated: Option<u32>,
    chunked: Option<u32>,
    /// Shape of a boolean mask.
    mask: Option<[u32; 4]>,
    /// Shape of an additive bias.
    bias: Option<[u32; 4]>,
    alibi: Option<Diagonal>,
    relative: Option<RelativeDefinition>,
    /// Channels that are rotated.
    rotary: Option<u32>,
    /// Reach around predicted centres, with a Gaussian.
    local: Option<f32>,
    /// Rows and columns of an image and the side of a neighbourhood.
    neighborhood: Option<[u32; 3]>,
    /// Edges of a graph.
    edges: Option<u32>,
    /// Rows and keys of a block.
    blocks: Option<[u32; 2]>,
    /// Share of the blocks that are visited.
    #[serde(default = "all")]
    density: f64,
    #[serde(default)]
    sinks: bool,
    #[serde(default)]
    segments: bool,
    #[serde(default)]
    lse: bool,
    /// Key lengths per sequence: `full` or `mixed` (a part, nothing, all, by turns).
    lengths: Option<String>,
    /// Rows of all sequences together, which lie after one another.
    packed: Option<u32>,
    /// Keys of a page.
    pages: Option<u32>,
}

fn all() -> f64 {
    1.0
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Diagonal {
    Offset(i32),
    Named(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowDefinition {
    left: Option<u32>,
    right: Option<u32>,
    align: Option<Diagonal>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RelativeDefinition {
    left: u32,
    right: u32,
}

impl Diagonal {
    fn align(&self) -> Result<Align> {
        match self {
            Self::Offset(n) => Ok(Align::Offset(*n)),
            Self::Named(name) if name == "top-left" => Ok(Align::TopLeft),
            Self::Named(name) if name == "bottom-right" => Ok(Align::BottomRight),
            Self::Named(name) => {
                let wanted = "top-left, bottom-right or an integer";
                Err(Error::invalid("diagonal", format!("{name:?}"), wanted))
            }
        }
    }
}

impl Definition {
    fn workload(self) -> Result<Workload> {
        let shape: Shape = self.shape.parse()?;
        let attention = self.placed(self.scored(self.call(shape)?)?)?;
        let lengths = match self.lengths.as_deref() {
            None | Some("full") => Lengths::Full,
            Some("mixed") => Lengths::Mixed,
            Some(other) => {
                return Err(Error::invalid("lengths", format!("{other:?}"), "full or mixed"));
            }
        };
        if !(0.0..=1.0).contains(&self.density) {
            return Err(Error::invalid("density", self.density, "0 to 1"));
        }
        attention.validate()?;
        let data = DataOptions { density: self.density, lengths, ..DataOptions::default() };
        Ok(Workload { name: self.name, about: self.about, suites: self.suites, attention, data })
    }

    /// The fields that are given as they are.
    fn call(&self, shape: Shape) -> Result<Attention> {
        let wrong = |e: &dyn std::fmt::Display| {
            Error::invalid("call", e, "fields of an attention call and what they may hold")
        };
        let mut fields = self.call.clone();
        let shape = toml::Value::try_from(shape).map_err(|e| wrong(&e))?;
        fields.insert("shape".into(), shape);
        fields.try_into().map_err(|e| wrong(&e))
    }

    /// How scores and weights are made, and in which storage.
    fn scored(&self, call: Attention) -> Result<Attention> {
        let mut call = call;
        if let Some(dtype) = &self.dtype {
            call = call.dtype(dtype.parse()?);
        }
        if let Some(storage) = &self.kv_storage {
            call = call.kv_storage(storage.parse()?);
        }
        if let Some(scale) = self.scale {
            call = call.scale(scale);
        }
        let shape = call.shape;
        call = match self.score.as_deref() {
            None | Some("dot") => call,
            Some("additive") => call.additive(1.0),
            Some("leaky") => call.additive_leaky(0.2),
            Some("cosine") => call.cosine_scaled(1e-6),
            Some("general") => call.general(shape.dim_qk),
            Some(other) => {
                let wanted = "dot, additive, leaky, cosine or general";
                return Err(Error::invalid("score", format!("{other:?}"), wanted));
            }
        };
        if let Some(name) = &self.normalizer {
            call = call.normalizer(normalizer(name, shape.seq_kv)?);
        }
        if let Some(cap) = self.softcap {
            call = call.softcap(cap);
        }
        if let Some(bias) = self.bias {
            call = call.bias(bias);
        }
        if let Some(alibi) = &self.alibi {
            call = call.alibi(alibi.align()?);
        }
        if let Some(RelativeDefinition { left, right }) = self.relative {
            call = call.relative(Relative { left, right, offset: 0 });
        }
        if let Some(dim) = self.rotary {
            call = call.rotary(Rotary::new(dim, shape.seq_q.max(shape.seq_kv)));
        }
        if self.sinks {
            call = call.sinks();
        }
        if self.lse {
            call = call.with_lse();
        }
        Ok(call)
    }

    /// Which keys a row sees, and how sequences lie.
    fn placed(&self, call: Attention) -> Result<Attention> {
        let mut call = call;
        let shape = call.shape;
        if let Some(causal) = &self.causal {
            call = call.causal(causal.align()?);
        }
        if let Some(WindowDefinition { left, right, align }) = &self.window {
            let align = align.as_ref().map_or(Ok(Align::TopLeft), Diagonal::align)?;
            call = call.window(*left, *right, align);
        }
        if let Some(step) = self.dilated {
            call = call.dilated(step, Align::TopLeft);
        }
        if let Some(size) = self.chunked {
            call = call.chunked(size, Align::TopLeft);
        }
        if let Some(mask) = self.mask {
            call = call.mask(mask);
        }
        if let Some(reach) = self.local {
            call = call.local_gaussian(reach);
        }
        if let Some([rows, columns, side]) = self.neighborhood {
            call = call.neighborhood(Neighborhood::image(rows, columns, side));
        }
        if let Some(count) = self.edges {
            call = call.edges(Edges { count, bias: false });
        }
        if let Some([rows, keys]) = self.blocks {
            call = call.blocks(Blocks::new(rows, keys));
        }
        if self.segments {
            call = call.segments();
        }
        if self.lengths.is_some() {
            call = call.kv_lengths();
        }
        if let Some(total) = self.packed {
            call = call.packed(total, total);
        }
        if let Some(size) = self.pages {
            if size == 0 {
                return Err(Error::invalid("pages", size, "at least 1 key"));
            }
            // As a cache keeps its pages: heads after one another.
            let row = shape.seq_kv.div_ceil(size);
            let paged = call.paged(shape.batch * row, size, row);
            call = Attention { layout_k: Layout::Bhsd, layout_v: Layout::Bhsd, ..paged };
        }
        Ok(call)
    }
}

/// A normaliser by its name on the command line, with the usual parameters for so many keys.
fn normalizer(name: &str, keys: u32) -> Result<Normalizer> {
    let n = keys.max(1) as f32;
    Ok(match name {
        "softmax" => Normalizer::Softmax,
        "relu" => Normalizer::Relu { power: 1, divisor: Scalar(n) },
        "relu-squared" => Normalizer::Relu { power: 2, divisor: Scalar(n) },
        "sigmoid" => Normalizer::Sigmoid { bias: Scalar(-n.ln()) },
        "hard" => Normalizer::Hard,
        "sample" => Normalizer::Sample { seed: 1 },
        "sparsemax" => Normalizer::Sparsemax,
        "entmax15" => Normalizer::Entmax15,
        "monotonic" => Normalizer::Monotonic,
        "raw" => Normalizer::Raw,
        _ => {
            let wanted = "softmax, relu, relu-squared, sigmoid, hard, sample, sparsemax, entmax15, monotonic or raw";
            return Err(Error::invalid("normalizer", format!("{name:?}"), wanted));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Align, Workload};

    #[test]
    fn every_definition_is_a_valid_call_of_a_known_suite() {
        let workloads = Workload::built_in().expect("valid definitions");
        let mut names: Vec<&str> = workloads.iter().map(|x| x.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), workloads.len(), "names are unique over all files");
        for workload in &workloads {
            let known =
                ["quick", "standard", "long", "decode", "forms", "matrix", "backward", "full"];
            assert!(workload.suites.iter().all(|x| known.contains(&x.as_str())), "{workload:?}");
            assert!(!workload.suites.is_empty(), "{} is in no suite", workload.name);
        }
        for suite in ["quick", "standard", "long", "decode", "forms", "matrix", "backward"] {
            assert!(!Workload::suite(suite).expect(suite).is_empty(), "{suite}");
        }
        assert_eq!(Workload::suite("full").expect("full").len(), workloads.len());
    }

    #[test]
    fn a_wrong_definition_is_refused_by_file_workload_and_field() {
        let parse = |text: &str| Workload::parse("own.toml", text).expect_err(text).to_string();
        let with = |line: &str| {
            parse(&format!("[[workload]]\nname = \"x\"\nshape = \"1x8/3x4x5\"\n{line}"))
        };
        assert!(parse("nonsense").contains("own.toml"));
        assert!(with("").contains("own.toml, workload \"x\""), "{}", with(""));
        assert!(with("").contains("heads_q"), "{}", with(""));
        assert!(with("colour = 3").contains("colour"));
        let twice = "[[workload]]\nname = \"x\"\nshape = \"1x8x4x5\"\n";
        assert!(parse(&format!("{twice}{twice}")).contains("a second one"));
        assert!(parse(&format!("{twice}causal = \"middle\"")).contains("top-left"));
        assert!(parse(&format!("{twice}normalizer = \"none\"")).contains("entmax15"));
        assert!(parse(&format!("{twice}call.masks.round = {{}}")).contains("round"));
        assert!(parse(&format!("{twice}call.masks.chunked = {{ size = 3 }}")).contains("align"));
    }

    #[test]
    fn a_call_may_be_given_field_by_field() {
        let with = |lines: &str| {
            let text = format!("[[workload]]\nname = \"x\"\nshape = \"1x8x4x5\"\n{lines}");
            Workload::parse("own.toml", &text).expect(lines).remove(0).attention
        };
        let fields = "call.masks.dilated = { step = 2, align = \"top_left\" }\ncall.sinks = true";
        let wanted = with("").dilated(2, Align::TopLeft).sinks();
        assert_eq!(with(fields), wanted);
        let both = format!("{fields}\ncausal = \"top-left\"");
        assert_eq!(with(&both), wanted.causal(Align::TopLeft));
    }
}
