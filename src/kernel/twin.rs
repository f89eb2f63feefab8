//! What the composer, the planner and the encoder must know of a kernel file: its twin in Rust.
//!
//! Every `shaders/kernel/x.wgsl` has its `src/kernel/x.rs` with one of these, and the constructor of its
//! [`KernelSpec`](super::KernelSpec).

use super::bindings::{Access, Binding};
use super::spec::KernelSpec;
use crate::feature::Parameter;
use crate::feature::mask::Blocks;

/// A file of `shaders/common`: its path as messages show it, and its text.
pub(super) type Common = (&'static str, &'static str);

/// The file `shaders/common/{name}.wgsl`.
macro_rules! common {
    ($name:literal) => {
        (
            concat!("common/", $name, ".wgsl"),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/common/", $name, ".wgsl")),
        )
    };
}
pub(super) use common;

/// The twin of `shaders/kernel/{name}.wgsl` with nothing but its text.
macro_rules! kernel_file {
    ($name:literal) => {
        $crate::kernel::twin::Twin::new(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/shaders/kernel/",
            $name,
            ".wgsl"
        )))
    };
}
pub(super) use kernel_file;

/// What a kernel does of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// One pass: scores, weights and sums of v.
    Fused,
    /// It makes scores, other kernels go on.
    Scores,
    /// It knows positions, lengths and masks, but makes no scores.
    Rows,
    /// It stands beside attention, without positions.
    Alone,
}

/// How a kernel that makes scores goes through the keys of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visits {
    /// One by one, in stretches of a page or of blocks that are all there.
    Stretches,
    /// One by one, each wherever its page is, or nowhere.
    Keys,
    /// By tiles that may hold keys of several pages and of none; a block table is asked about each.
    Tiles,
    /// The same, but a tile is tested whatever the block table says of it.
    TestedTiles,
}

/// A kernel file as the rest of the crate sees it.
pub(crate) struct Twin {
    /// The file's text.
    pub(super) source: &'static str,
    pub(super) family: Family,
    pub(super) visits: Visits,
    /// Whether it is a product on the tile of `common/tile.wgsl`.
    pub(super) square: bool,
    /// Whether it needs the derivatives of its slots.
    pub(super) backward: bool,
    /// How it uses tables beside those that its features read; `None` where it does not.
    pub(super) tables: Option<Access>,
    /// Whether its heads are those of k and v.
    pub(crate) by_group: bool,
    /// Files of `shaders/common` beside those that its features bring.
    pub(super) commons: fn(&KernelSpec) -> Vec<Common>,
    /// Resources beside operands with an element type, optional outputs, masks and tables.
    pub(super) bindings: fn(&KernelSpec) -> Vec<(Binding, Access)>,
    /// Functions by which it reaches its slots, beside loads, stores and positions.
    pub(super) glue: fn(&mut String, &KernelSpec),
    /// Generated code in front of it: the part's name and its text.
    pub(super) generated: fn(&KernelSpec) -> Option<(&'static str, String)>,
    /// Invocations per workgroup.
    pub(super) invocations: fn(&KernelSpec) -> u32,
    /// Bytes of workgroup memory.
    pub(super) workgroup_bytes: fn(&KernelSpec) -> u32,
    /// Workgroups of a dispatch.
    pub(super) grid: fn(&KernelSpec, &Work) -> [u32; 3],
    /// What it reads of the parameter block, beside what every kernel has and what its slots read.
    pub(super) parameters: &'static [Parameter],
}

impl Twin {
    pub(super) const fn new(source: &'static str) -> Self {
        Self {
            source,
            family: Family::Rows,
            visits: Visits::Stretches,
            square: false,
            backward: false,
            tables: None,
            by_group: false,
            commons: |_| Vec::new(),
            bindings: |_| Vec::new(),
            glue: |_, _| {},
            generated: |_| None,
            invocations: |_| 64,
            workgroup_bytes: |_| 0,
            grid: |_, work| [work.rows, work.pairs(), 1],
            parameters: &[],
        }
    }
}

impl Twin {
    /// The same for another file, which differs in its text only.
    pub(super) const fn of_file(self, file: Self) -> Self {
        Self { source: file.source, ..self }
    }
}

/// The work of one dispatch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// Sequences.
    pub(crate) batch: u32,
    /// Query heads, or block tables of a sequence where one is built.
    pub(crate) heads: u32,
    /// Query heads of a key/value head.
    pub(crate) group: u32,
    /// Rows.
    pub(crate) rows: u32,
    /// Keys.
    pub(crate) keys: u32,
    /// Columns of the output.
    pub(crate) columns: u32,
    /// Elements of the output, where each is an invocation's.
    pub(crate) elements: u64,
    /// Shares that keys are split into.
    pub(crate) shares: u32,
    /// Blocks of the table that is built.
    pub(crate) blocks: Option<Blocks>,
}

impl Work {
    /// (sequence, head) pairs.
    pub(super) fn pairs(&self) -> u32 {
        self.batch * self.heads
    }
}

/// `n` workgroups over two axes, since one has at most 65 535.
pub(super) fn spread(n: u64) -> [u32; 2] {
    [n.min(65_535) as u32, n.div_ceil(65_535) as u32]
}
