//! The features that a row of a report exercises: those the words of its case's name say, its path, and
//! the suite it was recorded in.
//!
//! Recorded cases have names of their own; the keys of the kernels that served them say what they asked
//! for, as far as a word there has one meaning.

use std::sync::LazyLock;

use crate::feature::slots;
use crate::plan::Path;
use crate::verify::report::CaseResult;

/// A row of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) group: &'static str,
    pub(super) name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Index into [`FEATURES`].
    Known(usize),
    /// A suite of recorded cases.
    Suite(String),
    /// A path.
    Path(String),
}

/// How a feature shows.
#[derive(Clone, Copy)]
enum Sign {
    /// The name and the kernel have this word, which is that of a slot.
    Slot(&'static str),
    /// The name has this word, whatever it has in brackets; a kernel has one of these.
    Word(&'static str, &'static [&'static str]),
    /// A name with a shape says so.
    Name(fn(&Name<'_>) -> bool),
    /// The name or the key of the kernel has this in it.
    Text(&'static str, &'static str),
}
use Sign::{Name as Says, Slot, Text, Word};

/// A group, the name of one of its features, and how it shows.
type Known = (&'static str, &'static str, Sign);

/// Groups, and each one's features in the order of the matrix.
static FEATURES: LazyLock<Vec<Known>> =
    LazyLock::new(|| [STORAGE, &masks(), &scores(), OTHERS].concat());

/// The masks that are shown first; others follow in the order of their declaration.
const FIRST: [&str; 7] =
    ["causal", "window", "dense", "kv-lengths", "q-lengths", "segments", "blocks"];

/// Every mask there is, by its name in kernels, and lengths, which hide keys and rows as well.
fn masks() -> Vec<Known> {
    let lengths = [
        ("kv-lengths", ("Masks", "key lengths", Word("kv-lengths", &[]))),
        ("q-lengths", ("Masks", "query lengths", Word("q-lengths", &[]))),
    ];
    let declared = slots().filter(|slot| slot.kind == "mask").map(|slot| {
        let name: &str = &slot.name;
        let sign = match name {
            // A caller's own masks are `mask(name)`.
            "dense" => Text("mask[", "dense"),
            "blocks" => Word("blocks", &["classified", "blocks"]),
            _ => Slot(name),
        };
        (name, ("Masks", slot.title(), sign))
    });
    let mut all: Vec<(&str, Known)> = lengths.into_iter().chain(declared).collect();
    all.sort_by_key(|(name, _)| FIRST.iter().position(|x| x == name).unwrap_or(FIRST.len()));
    all.into_iter().map(|(_, known)| known).collect()
}

/// Every score modifier with a row of its own, by its name in kernels.
fn scores() -> Vec<Known> {
    let own = ("Scores", "scale of its own", Word("scale", &[]));
    let declared = slots().filter(|slot| slot.kind == "score" && slot.listed);
    let declared = declared.map(|slot| ("Scores", slot.title(), Slot(&slot.name)));
    [own].into_iter().chain(declared).collect()
}

const STORAGE: &[Known] = &[
    ("Storage", "f32", Says(|n| n.words.contains(&"f32"))),
    ("Storage", "f16", Says(|n| n.words.contains(&"f16"))),
    ("Storage", "bf16", Says(|n| n.words.contains(&"bf16"))),
    ("Storage", "k and v f32", Says(|n| n.words.contains(&"kv(f32)"))),
    ("Storage", "k and v f16", Says(|n| n.words.contains(&"kv(f16)"))),
    ("Storage", "k and v bf16", Says(|n| n.words.contains(&"kv(bf16)"))),
    ("Storage", "k and v int8", Says(|n| n.words.contains(&"kv(int8)"))),
    ("Storage", "k and v int4", Says(|n| n.words.contains(&"kv(int4)"))),
    ("Storage", "k and v e4m3", Says(|n| n.words.contains(&"kv(e4m3)"))),
    ("Storage", "k and v e5m2", Says(|n| n.words.contains(&"kv(e5m2)"))),
    ("Storage", "k and v e4m3 by rows", Says(|n| n.words.contains(&"kv(e4m3-row)"))),
    ("Storage", "k and v e5m2 by rows", Says(|n| n.words.contains(&"kv(e5m2-row)"))),
    ("Storage", "k and v mxfp4", Says(|n| n.words.contains(&"kv(mxfp4)"))),
    ("Storage", "scales of k and v", Word("kv-scales", &["key_scale"])),
];

const OTHERS: &[Known] = &[
    ("Scores", "sinks", Word("sinks", &["sink"])),
    ("Scores", "additive, tanh", Word("additive", &["tanh"])),
    ("Scores", "additive, leaky ReLU", Word("leaky", &["leaky_relu"])),
    ("Scores", "general (qᵀWk)", Word("general", &["general"])),
    ("Scores", "cosine", Word("cosine", &["cosine"])),
    ("Scores", "rotary positions", Word("rotary", &["halves", "interleaved"])),
    ("Normalisers", "softmax", Says(|n| n.is_softmax())),
    ("Normalisers", "ReLU", Word("relu", &["relu"])),
    ("Normalisers", "sigmoid", Word("sigmoid", &["sigmoid"])),
    ("Normalisers", "hard", Word("hard", &["hard"])),
    ("Normalisers", "sampled", Word("sample", &["gumbel"])),
    ("Normalisers", "dropout", Word("dropout", &["dropout"])),
    ("Normalisers", "raw sums", Word("raw", &[])),
    ("Normalisers", "sparsemax", Word("sparsemax", &["sparsemax"])),
    ("Normalisers", "entmax", Word("entmax15", &["entmax15"])),
    ("Normalisers", "monotonic", Word("monotonic", &["monotonic"])),
    ("Outputs", "log-sum-exp", Word("lse", &["lse"])),
    ("Outputs", "scores", Says(|n| n.any(&["raw-scores", "after-softcap", "after-bias"]))),
    ("Outputs", "weights", Word("probabilities", &[])),
    ("Outputs", "gradients", Text("gradients ", "backward_row")),
    ("Heads and lengths", "grouped heads", Says(|n| n.heads.0 != n.heads.1)),
    ("Heads and lengths", "one key head", Says(|n| n.heads.1 == 1 && n.heads.0 > 1)),
    ("Heads and lengths", "one query row", Says(|n| n.seq.0 == 1)),
    ("Heads and lengths", "seq_q ≠ seq_kv", Says(|n| n.seq.0 != n.seq.1)),
    ("Heads and lengths", "no rows or keys", Says(|n| n.batch * n.seq.0 * n.seq.1 == 0)),
    (DIMENSIONS, "1 to 32", Says(|n| n.dim() <= 32)),
    (DIMENSIONS, "33 to 64", Says(|n| (33..=64).contains(&n.dim()))),
    (DIMENSIONS, "65 to 128", Says(|n| (65..=128).contains(&n.dim()))),
    (DIMENSIONS, "129 to 256", Says(|n| (129..=256).contains(&n.dim()))),
    (DIMENSIONS, "257 to 512", Says(|n| (257..=512).contains(&n.dim()))),
    (DIMENSIONS, "513 to 1024", Says(|n| n.dim() > 512)),
    (DIMENSIONS, "no multiple of 4", Says(|n| n.dims.0 % 4 + n.dims.1 % 4 > 0)),
    (DIMENSIONS, "dim_qk ≠ dim_v", Says(|n| n.dims.0 != n.dims.1)),
    ("Layout", "[batch, seq, heads, dim]", Says(|n| n.layout(|l| l == "bshd"))),
    ("Layout", "strides", Says(|n| n.layout(|l| l.starts_with("strides(")))),
    ("Layout", "pages", Word("paged", &["paged"])),
    ("Layout", "packed sequences", Word("packed", &["packed"])),
    ("Layout", "projections (layers)", Text("_layer_", "project")),
    ("Data", "NaN where nothing may read", Word("poison", &[])),
    ("Data", "large scores or values", Says(|n| n.any(&["logits", "values"]))),
];

/// Group of the head dimensions.
const DIMENSIONS: &str = "Head dimension";
/// Group of the suites.
pub(super) const RECORDED: &str = "Recorded cases";
/// Group of the paths.
pub(super) const PATHS: &str = "Path";

/// Every feature there is, and those that only these rows have.
pub(super) fn all<'a>(cases: impl Iterator<Item = &'a CaseResult>) -> Vec<Feature> {
    let known = FEATURES.iter().enumerate().map(|(i, (group, name, _))| Feature {
        group,
        name: (*name).into(),
        kind: Kind::Known(i),
    });
    let mut paths: Vec<String> = Path::ALL.iter().map(|path| path.name().to_owned()).collect();
    let mut suites: Vec<String> = Vec::new();
    for case in cases {
        let suite = Name::parse(&case.name).is_none().then_some(case.suite.as_str());
        for (list, found) in [(&mut paths, path(&case.kernel)), (&mut suites, suite)] {
            if let Some(found) = found.filter(|found| !list.iter().any(|known| known == found)) {
                list.push(found.to_owned());
            }
        }
    }
    let feature = |group: &'static str, name: String, kind: fn(String) -> Kind| Feature {
        group,
        kind: kind(name.clone()),
        name,
    };
    let suites = suites.into_iter().map(|name| feature(RECORDED, name, Kind::Suite));
    let paths = paths.into_iter().map(|name| feature(PATHS, name, Kind::Path));
    known.chain(suites).chain(paths).collect()
}

/// Indices of the features that a row exercises.
pub(super) fn of(case: &CaseResult, all: &[Feature]) -> Vec<usize> {
    let name = Name::parse(&case.name);
    let shows = |feature: &Feature| match &feature.kind {
        Kind::Known(i) => match (&FEATURES[*i].2, &name) {
            (Word(word, _) | Slot(word), Some(name)) => name.any(&[word]),
            (Says(says), Some(name)) => says(name),
            (Says(_), None) => false,
            (Slot(key), None) => key_words(&case.kernel).any(|word| word == *key),
            (Word(_, keys), None) => key_words(&case.kernel).any(|word| keys.contains(&word)),
            (Text(text, _), Some(_)) => case.name.contains(text),
            (Text(text, key), None) => {
                case.name.contains(text) || key_words(&case.kernel).any(|word| word == *key)
            }
        },
        Kind::Suite(suite) => name.is_none() && *suite == case.suite,
        Kind::Path(known) => path(&case.kernel) == Some(known),
    };
    all.iter().enumerate().filter(|(_, feature)| shows(feature)).map(|(i, _)| i).collect()
}

/// The features that a generated case's name says, but for head dimensions, of which wide ones are slow to compile.
pub(in crate::verify) fn said_by(name: &str) -> Vec<(&'static str, &'static str)> {
    let row = CaseResult::unsupported(name, "", 0, "");
    let known = of(&row, &all(std::iter::empty())).into_iter().filter_map(|i| FEATURES.get(i));
    known
        .map(|(group, name, _)| (*group, *name))
        .filter(|(group, _)| *group != DIMENSIONS)
        .collect()
}

fn key_words(kernel: &str) -> impl Iterator<Item = &str> {
    kernel.split([' ', '/', '+', '@'])
}

/// The path of a variant key, or of a row that names its path because no kernel ran.
fn path(kernel: &str) -> Option<&str> {
    let around = ["", "prepare", "project", "classify"];
    let base = |key: &&str| !around.contains(&key.split('/').next().unwrap_or_default());
    let key = kernel.split(' ').find(base)?;
    let name = key.split('/').next()?;
    let on_matrix = key.split('/').any(|word| word.starts_with("m8t") || word.starts_with("m16t"));
    match name.split('_').next() {
        _ if name == "fused_forward_tile" => Some("fused-tile"),
        _ if kernel.contains("fused_backward_tile_") => Some("fused-tile"),
        // No path was chosen for gradients that a call does not have.
        Some("auto") => None,
        Some("fused") if on_matrix => Some("fused-matrix"),
        Some("staged") if on_matrix => Some("staged-matrix"),
        // Edges are walked in one pass, and are planned as the fused path.
        Some("edge") => Some("fused"),
        other => other,
    }
}

/// The name of a generated case.
struct Name<'a> {
    batch: u32,
    heads: (u32, u32),
    seq: (u32, u32),
    dims: (u32, u32),
    words: Vec<&'a str>,
}

impl<'a> Name<'a> {
    /// `None` when it does not begin with a shape, `1x8/2x512x64`; that of a case's gradients does after a word that
    /// says so.
    fn parse(name: &'a str) -> Option<Self> {
        let mut words = name.strip_prefix("gradients ").unwrap_or(name).split(' ');
        let mut axes = words.next()?.split('x').map(|axis| {
            let (a, b) = axis.split_once('/').unwrap_or((axis, axis));
            Some((a.parse().ok()?, b.parse().ok()?))
        });
        let mut axis = || axes.next().flatten();
        let (batch, heads, seq, dims) = (axis()?.0, axis()?, axis()?, axis()?);
        axes.next().is_none().then(|| Self { batch, heads, seq, dims, words: words.collect() })
    }

    /// Whether one of these words is there, alone or with something in brackets or after `=`.
    fn any(&self, wanted: &[&str]) -> bool {
        let head = |word: &'a str| word.split(['(', '[', '=']).next().unwrap_or_default();
        self.words.iter().any(|word| wanted.contains(&head(word)))
    }

    fn dim(&self) -> u32 {
        self.dims.0.max(self.dims.1)
    }

    fn layout(&self, wanted: fn(&str) -> bool) -> bool {
        self.words.iter().flat_map(|word| word.split('/')).any(wanted)
    }

    fn is_softmax(&self) -> bool {
        let normalizers = FEATURES.iter().filter(|(group, _, _)| *group == "Normalisers");
        !normalizers.into_iter().any(|(_, _, sign)| match sign {
            Word(word, _) | Slot(word) => self.any(&[word]),
            Says(_) | Text(..) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{all, of, path};
    use crate::plan::Path;
    use crate::verify::cases::{Grid, backward_grid, grid};
    use crate::verify::report::CaseResult;

    fn names(name: &str, suite: &str, kernel: &str) -> Vec<String> {
        let mut case = CaseResult::unsupported(name, suite, 0, "");
        case.kernel = kernel.into();
        let all = all([&case].into_iter());
        of(&case, &all).into_iter().map(|i| all[i].name.clone()).collect()
    }

    #[test]
    fn names_and_kernels_say_what_a_row_exercises() {
        let name = "2x6/2x3/150x64 f16 kv(int4) window(20,-,bottom-right) softcap(5.0) mask[1, 1, 3, 150] \
            kv-lengths paged(24x16,11) bhsd/bshd/bshd/bhsd poison";
        let wanted = [
            "f16",
            "k and v int4",
            "sliding window",
            "boolean mask",
            "key lengths",
            "softcap",
            "softmax",
            "grouped heads",
            "seq_q ≠ seq_kv",
            "33 to 64",
            "[batch, seq, heads, dim]",
            "pages",
            "NaN where nothing may read",
            "split",
        ];
        assert_eq!(names(name, "full", "split_forward/f16 split_merge/f16"), wanted);
        let kernel =
            "project fused_forward_subgroup/f32x4/scale/causal+packed@top_left/sink/lse/r4";
        let wanted = ["causal", "sinks", "log-sum-exp", "packed sequences", "projections (layers)"];
        assert_eq!(
            names("mha_layer_0", "forms", kernel),
            [&wanted[..], &["forms", "fused"]].concat()
        );
        assert_eq!(names("rotary_embedding_0", "onnx", ""), ["onnx"]);
        let gradients = "gradients 1x2x5x8 f32 softcap(5.0)";
        let wanted = ["f32", "softcap", "softmax", "gradients", "1 to 32", "staged"];
        assert_eq!(names(gradients, "quick", "staged_score/f32x4 backward_row/softcap"), wanted);
        assert_eq!(path("prepare/f32 edge_forward/f32"), Some("fused"));
        assert_eq!(path("other_forward/f16"), Some("other"));
        assert_eq!(path("fused_forward_matrix/f16/scale/-/m8t4x8b1k16d16w"), Some("fused-matrix"));
        let staged = "prepare/f16 staged_score/f16/m16t2x32b2k64d64wu staged_normalize/-";
        assert_eq!(path(staged), Some("staged-matrix"));
        assert_eq!(path("staged-matrix"), Some("staged-matrix"));
        assert_eq!(path("prepare/f32"), None);
    }

    /// A feature that no case exercises would be blank on every adapter: a misspelt word here, or a hole in
    /// the grid. Layers are in recorded cases only.
    #[test]
    fn the_full_grid_exercises_every_feature() {
        let row = |name: String| CaseResult::unsupported(name, "full", 0, "");
        let calls = grid(Grid::Full).expect("distinct names").into_iter().map(|case| case.name);
        let gradients = backward_grid(Grid::Full).expect("distinct names").into_iter();
        let rows: Vec<_> = calls.chain(gradients.map(|case| case.name)).map(row).collect();
        let all = all(rows.iter());
        let mut missing: Vec<&str> = Vec::new();
        for (i, feature) in all.iter().enumerate() {
            if !rows.iter().any(|case| of(case, &all).contains(&i)) {
                missing.push(&feature.name);
            }
        }
        // Rows without a kernel are on no path.
        let paths = Path::ALL.iter().map(|path| path.name());
        let wanted: Vec<&str> = ["projections (layers)"].into_iter().chain(paths).collect();
        assert_eq!(missing, wanted);
    }
}
