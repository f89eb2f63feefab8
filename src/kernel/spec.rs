//! `KernelSpec`: everything that changes a kernel's code, and nothing that does not.
//!
//! Lengths, strides, scales and offsets are parameters; what is here decides text, types and bindings.
//! Its display form, `staged_score/f16px4.f16px4/scale+softcap/causal+window@top_left`, is log name,
//! pipeline label and test name.

use super::bindings::Binding;
use super::block_tile::BlockTile;
use super::element::{Element, RowTile, SplitTile};
use super::kernels::Kernel;
use super::matrix_tile::MatrixTile;
use super::tile::Tile;
use crate::feature::Slot;
use crate::feature::inner::sum;
use crate::feature::normalize;
use crate::feature::score::{Stage, bias, gumbel};
use crate::feature::weight::dropout;
use crate::problem::{Operand, WeightsAt};
use crate::tensor::Scales;

/// Words of tables that fit a uniform on every device.
pub const SMALL_TABLES: u32 = 4096;

/// Which scores a kernel writes to the `weights` output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capture {
    /// None.
    Nothing,
    /// The given point.
    At(WeightsAt),
}

/// Where the block table of a kernel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockTable {
    /// From the caller: a mask of its own that also says where no test is needed.
    Given,
    /// From the masks given as data, by a `classify` dispatch: where to look, and where no test is
    /// needed.
    Classified,
}

/// What a `prepare` kernel does to each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Preparation {
    /// Whether the rows are keys.
    pub keys: bool,
    /// Rotation: whether pairs are interleaved.
    pub rotary: Option<bool>,
    /// The table that positions come from.
    pub ids: Option<Operand>,
    /// Whether positions count to the end of the keys.
    pub at_end: bool,
    /// Brought to length 1.
    pub normalized: bool,
    /// And multiplied with a factor per head.
    pub head_scale: bool,
    /// Multiplied with a matrix.
    pub projected: bool,
}

/// What a kernel of gradients that goes over rows reads and writes beside products and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BackwardParts {
    /// Whether a gradient of lse comes in.
    pub lse: bool,
    /// Whether a gradient of the returned weights comes in.
    pub weights: bool,
    /// Whether gradients of scores behind the biases are kept.
    pub entries: bool,
    /// Whether each row's part is kept in the gradient of its head's sink, or of an additive score's weights.
    pub row_sums: bool,
    /// Whether each row's part in the gradient of its centre is kept.
    pub centers: bool,
}

/// What a kernel writes beside o.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Writes {
    /// Whether lse is written.
    pub lse: bool,
    /// Scores that are written out.
    pub capture: Capture,
    /// Whether partial sums of o are carried between dispatches.
    pub carry: bool,
}

impl Writes {
    /// Nothing.
    pub(super) const NOTHING: Self = Self { lse: false, capture: Capture::Nothing, carry: false };
}

/// How a kernel is built for a device and for the buffers of a call: its results are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Build {
    /// Whether it is compiled without run-time checks.
    pub unchecked: bool,
    /// Whether tables are a uniform of [`SMALL_TABLES`] words, where storage buffers do not suffice.
    pub small_tables: bool,
    /// Resources that are read only but declared writable, since their buffer is written in the same dispatch and
    /// wgpu lets no buffer be bound both ways; ascending.
    pub shared: Vec<Binding>,
}

impl Preparation {
    /// The tables that it reads.
    fn tables(self) -> Vec<Operand> {
        let tables = [
            (self.rotary.is_some(), Operand::RotaryCos),
            (self.rotary.is_some(), Operand::RotarySin),
            (self.head_scale, Operand::HeadScale),
            (self.projected, Operand::ScoreMatrix),
        ];
        let given = tables.into_iter().filter_map(|(on, table)| on.then_some(table));
        given.chain(self.ids).collect()
    }
}

/// Everything that changes a kernel's code: the key of the pipeline cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    /// The schedule.
    pub kernel: Kernel,
    /// Operands with an element type: q, k, v are loaded, o is stored.
    pub elements: Vec<(Binding, Element)>,
    /// The inner loop of scores.
    pub inner: Vec<Slot>,
    /// The normaliser.
    pub normalize: Option<Slot>,
    /// Score modifiers in order, each with its stage.
    pub scores: Vec<(Stage, Slot)>,
    /// Masks.
    pub masks: Vec<Slot>,
    /// Where the diagonal is, when a mask needs it.
    pub diagonal: Option<Slot>,
    /// Where ALiBi's distance 0 is.
    pub alibi: Option<Slot>,
    /// Tables that it reads beside those of its slots, ascending: lengths, where packed sequences start, sinks, edges,
    /// pages, and that of functions of the caller's own.
    pub tables: Vec<Operand>,
    /// Where the block table comes from, if there is one.
    pub blocks: Option<BlockTable>,
    /// Whether weights are multiplied with a factor of their place after they are normalised.
    pub factor: bool,
    /// Whether weights are left out at random.
    pub dropout: bool,
    /// What is done to rows of q or k.
    pub preparation: Option<Preparation>,
    /// Of a backward row kernel: what it reads and writes beside the usual.
    pub backward: Option<BackwardParts>,
    /// Whether a vector is added to each row.
    pub added: bool,
    /// What it writes beside o.
    pub writes: Writes,
    /// Outputs that it adds to rather than writes over; ascending.
    pub adds_to: Vec<Binding>,
    /// How it is built for a device and for the buffers of a call.
    pub build: Build,
    /// Shape of its workgroups, where the planner chooses it.
    pub tile: Option<Tile>,
}

impl KernelSpec {
    /// Head dimensions that a kernel is unrolled for, 0 where it is not.
    pub(super) fn dims(&self) -> [u32; 2] {
        self.tile.and_then(|tile| tile.dims()).unwrap_or_default()
    }

    /// The shape of a row kernel.
    pub fn row_tile(&self) -> Option<RowTile> {
        if let Some(Tile::Rows(tile)) = self.tile { Some(tile) } else { None }
    }

    /// The shape of the tile kernel.
    pub fn block_tile(&self) -> Option<BlockTile> {
        if let Some(Tile::Block(tile)) = self.tile { Some(tile) } else { None }
    }

    /// The shape of the split kernel.
    pub fn split_tile(&self) -> Option<SplitTile> {
        if let Some(Tile::Split(tile)) = self.tile { Some(tile) } else { None }
    }

    /// The shape of a kernel on matrix units.
    pub fn matrix_tile(&self) -> Option<MatrixTile> {
        if let Some(Tile::Matrix(tile)) = self.tile { Some(tile) } else { None }
    }

    /// Whether it loads or stores a tensor that is bound so.
    pub fn has_element(&self, binding: Binding) -> bool {
        self.elements.iter().any(|(of, _)| *of == binding)
    }

    /// Whether it holds functions of the caller's own.
    pub(crate) fn is_custom(&self) -> bool {
        self.scores.iter().map(|(_, slot)| slot).chain(&self.masks).any(|slot| slot.custom)
    }

    /// The same, also reading tables where `on` says so.
    pub(super) fn reading(mut self, on: bool, tables: &[Operand]) -> Self {
        self.tables.extend(tables.iter().filter(|_| on));
        self.tables.sort_unstable();
        self.tables.dedup();
        self
    }

    /// The same without tables.
    pub(super) fn ignoring(mut self, tables: &[Operand]) -> Self {
        self.tables.retain(|table| !tables.contains(table));
        self
    }

    /// Whether it reads a table that is none of its slots'.
    pub(crate) fn reads(&self, table: Operand) -> bool {
        self.tables.contains(&table)
    }

    /// Whether sequences are packed one after another.
    pub(super) fn is_packed(&self) -> bool {
        self.reads(Operand::CuSeqlensQ)
    }

    /// Whether their keys are too.
    pub(super) fn has_packed_keys(&self) -> bool {
        self.reads(Operand::CuSeqlensKv)
    }

    /// Whether keys are in pages.
    pub(super) fn is_paged(&self) -> bool {
        self.reads(Operand::PageTable)
    }

    /// Whether edges of a graph are in tables.
    pub(super) fn has_edges(&self) -> bool {
        self.reads(Operand::EdgeStarts)
    }

    /// Every table that it reads: its own, those of its slots and of what is done to rows, and the block table.
    pub(super) fn all_tables(&self) -> Vec<Operand> {
        let slots = self.slots();
        let of_slots = slots.iter().flat_map(|slot| slot.tables).copied();
        let prepared = self.preparation.map(Preparation::tables).unwrap_or_default();
        let blocks = self.blocks.map(|_| Operand::Blocks);
        let mut all: Vec<Operand> =
            self.tables.iter().copied().chain(of_slots).chain(prepared).chain(blocks).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether some entry of the bias may be −∞.
    pub(crate) fn bias_may_mask(&self) -> bool {
        self.scores.iter().any(|(_, slot)| bias::is_bias(slot))
    }

    /// Whether the bias is stored in 16 bits.
    pub(crate) fn has_half_bias(&self) -> bool {
        let halves = |slot: &Slot| bias::is_bias(slot) && *slot != bias::SLOT;
        self.scores.iter().any(|(_, slot)| halves(slot))
    }

    /// How the rows of k or v hold scales.
    pub(crate) fn scales(&self, binding: Binding) -> Scales {
        let element = self.elements.iter().find(|(b, _)| *b == binding);
        element.map_or(Scales::None, |(_, element)| element.storage.scales())
    }

    /// Whether it needs random numbers.
    pub(super) fn draws_lots(&self) -> bool {
        self.dropout || self.scores.iter().any(|(_, slot)| *slot == gumbel::SLOT)
    }

    /// Whether scores are additive.
    pub(crate) fn is_additive(&self) -> bool {
        self.inner.contains(&sum::SLOT)
    }

    /// Whether each score has its weight by itself.
    pub(crate) fn is_each(&self) -> bool {
        use normalize::{raw, relu, sigmoid};
        self.normalize
            .as_ref()
            .is_some_and(|slot| [relu::SLOT, sigmoid::SLOT, raw::SLOT].contains(slot))
    }

    /// Whether one key takes all weight.
    pub(crate) fn is_hard(&self) -> bool {
        self.normalize == Some(normalize::hard::SLOT)
    }

    /// Whether some row may not see a key whose v the tile kernel reads for others.
    pub(crate) fn selects_values(&self) -> bool {
        !self.masks.is_empty() || self.bias_may_mask()
    }

    /// Whether the module needs native f16.
    pub fn needs_f16(&self) -> bool {
        self.matrix_tile().is_some()
            || self.elements.iter().any(|(_, element)| element.load().needs_f16)
    }

    /// Query rows of a workgroup of a fused kernel, 1 of others.
    pub(crate) fn group_rows(&self) -> u32 {
        self.tile.map_or(1, |tile| tile.rows())
    }

    /// The slots whose files the kernel needs, in composition order.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for (binding, element) in &self.elements {
            let is_output = self.stores(*binding);
            if is_output && element.is_quantised() {
                continue;
            }
            slots.push(if is_output { element.store().slot } else { element.load().slot });
        }
        slots.extend(self.diagonal.clone());
        slots.extend(self.alibi.clone());
        slots.extend(self.scores.iter().map(|(_, slot)| slot.clone()));
        slots.extend(self.masks.iter().cloned());
        slots.extend(self.inner.iter().cloned());
        slots.extend(self.normalize.clone());
        slots.extend(self.reads(Operand::Sinks).then_some(normalize::sink::SLOT));
        slots.extend(self.dropout.then_some(dropout::SLOT));
        let mut seen = std::collections::HashSet::new();
        slots.retain(|slot| seen.insert(slot.clone()));
        slots
    }
}
