//! What attention means: one small file per behaviour, the twin of `shaders/slot`.
//!
//! A feature is its descriptor (plain data), its meaning on the CPU in f64, and the name of the
//! WGSL file that says the same on the GPU. The order of evaluation is fixed:
//! scale → softcap → bias → ALiBi → masks → normaliser → weighted sum of v. A masked key is
//! selected away, never multiplied by zero, so NaN or Inf under a mask cannot leak.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

pub mod align;
pub mod custom;
pub mod inner;
pub mod load;
pub mod mask;
pub mod normalize;
pub(crate) mod operand;
pub(crate) mod parameter;
mod philox;
pub mod prepare;
pub mod rotary;
pub mod rotary_config;
pub mod score;
pub mod store;
pub mod weight;

pub use operand::{ElementType, Operand, Operands};
pub use parameter::{Parameter, ParameterKind, Setting};

/// What stands between a slot's text and its derivative.
const BACKWARD: &str = "\n// Backward:\n";

/// One WGSL slot file: a behaviour as the composer sees it.
///
/// Two are equal when they have the same place and name and, where they are the caller's own, the same text.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Slot {
    /// Folder under `shaders/slot`, e.g. `mask`.
    pub kind: &'static str,
    /// File stem, e.g. `causal`; its functions are called `{kind}_{name}…`.
    pub name: Cow<'static, str>,
    /// The file's text.
    pub source: Cow<'static, str>,
    /// Whether it is the caller's own.
    pub custom: bool,
    /// What it reads of the parameter block, beside what every kernel has.
    pub parameters: &'static [Parameter],
    /// The small tables that it reads, each at `params.aux_{name}` of `aux_word`.
    pub tables: &'static [Operand],
    /// Of masks: whether positions alone decide, in such a way that whole ranges of keys are hidden or visible;
    /// the file then has `mask_{name}_range` and `mask_{name}_whole`.
    pub narrows: bool,
    /// Of masks: whether it is data from which a block table can be built.
    pub is_data: bool,
    /// What reports call it where it is not its name.
    title: Option<&'static str>,
    /// Whether reports have a row of its own for it: else another row shows it, or every call has it.
    pub listed: bool,
}

impl Slot {
    /// A mask that rules out whole ranges of keys.
    pub(crate) const fn narrowing(mut self) -> Self {
        self.narrows = true;
        self
    }

    /// A mask that is data, by rows and keys.
    pub(crate) const fn of_data(mut self) -> Self {
        self.is_data = true;
        self
    }

    /// A file that reads small tables.
    pub(crate) const fn reading(mut self, tables: &'static [Operand]) -> Self {
        self.tables = tables;
        self
    }

    pub(crate) const fn titled(mut self, title: &'static str) -> Self {
        self.title = Some(title);
        self
    }

    /// A file without a row of its own in reports.
    pub(crate) const fn unlisted(mut self) -> Self {
        self.listed = false;
        self
    }

    /// What reports call it.
    pub fn title(&self) -> &str {
        self.title.unwrap_or(&self.name)
    }

    fn key(&self) -> (&str, &str, Option<&str>) {
        (self.kind, &self.name, self.custom.then_some(&*self.source))
    }

    /// The text without the derivative, which follows a line `// Backward:`.
    pub fn forward(&self) -> &str {
        self.source.split_once(BACKWARD).map_or(&self.source, |(forward, _)| forward)
    }

    /// Whether it has a derivative of its own; that of other score modifiers is 1.
    pub(crate) fn has_derivative(&self) -> bool {
        self.source.contains(&format!("fn {}_derivative(", self.function()))
    }

    /// Path below `shaders/`, as compiler messages show it.
    pub fn path(&self) -> String {
        let folder = if self.custom { "custom" } else { "slot" };
        format!("{folder}/{}/{}.wgsl", self.kind, self.name)
    }

    /// Name of the slot's main function.
    pub fn function(&self) -> String {
        format!("{}_{}", self.kind, self.name)
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Slot {}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Declares the slot whose file is `shaders/slot/{kind}/{name}.wgsl`, and the parameters it reads.
macro_rules! slot {
    ($kind:literal, $name:literal $(, $parameter:expr)* $(,)?) => {
        $crate::feature::Slot {
            kind: $kind,
            name: std::borrow::Cow::Borrowed($name),
            source: std::borrow::Cow::Borrowed(include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/shaders/slot/",
                $kind,
                "/",
                $name,
                ".wgsl"
            ))),
            custom: false,
            parameters: &[$($parameter),*],
            tables: &[],
            narrows: false,
            is_data: false,
            title: None,
            listed: true,
        }
    };
}
pub(crate) use slot;

/// Every slot file there is, by its folder in `shaders/slot`; a test compares them.
pub(crate) const SLOTS: &[&[Slot]] = &[
    load::SLOTS,
    store::SLOTS,
    align::SLOTS,
    inner::SLOTS,
    score::SLOTS,
    mask::SLOTS,
    normalize::SLOTS,
    weight::SLOTS,
];

/// Every slot file there is.
pub fn slots() -> impl Iterator<Item = &'static Slot> {
    SLOTS.iter().copied().flatten()
}

/// One (query row, key) pair and what masks and score modifiers may know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Sequence of the batch.
    pub batch: u32,
    /// Query head.
    pub head: u32,
    /// Query row i.
    pub row: u32,
    /// Key j, counted with past keys.
    pub key: u32,
    /// Query rows of this sequence (`seq_q`, or its entry of the length table).
    pub q_len: u32,
    /// Keys of this sequence (`seq_kv`, or its entry of the length table).
    pub kv_len: u32,
    /// Alignment offset: the key on the diagonal of row i is i + diagonal.
    pub diagonal: i64,
}

/// The element of a tensor that a score or a factor takes in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The tensor.
    pub operand: Operand,
    /// Its element.
    pub index: usize,
    /// The derivative of the score or factor by it.
    pub factor: f64,
}
