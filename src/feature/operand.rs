//! Every tensor of a call, declared once.
//!
//! From the list below follow [`Operand`] with its names, the CPU's [`Operands`] and the owned
//! [`OwnedInputs`](crate::reference::OwnedInputs), the engine's [`Tensors`](crate::Tensors), and where each
//! table starts in the parameter block (`aux_{name}` in WGSL). How long a tensor is, is said by
//! [`Problem::elements`](crate::Problem::elements), which the compiler keeps complete.

use std::fmt;

/// Hands the list of operands to the macro `$then`, in five groups that differ in how they are given:
/// inputs in the call's storage type, the output in it, other outputs, inputs that are as large as the scores
/// (or broadcast to them), and small tables. Behind the name of an entry is its element type on the GPU, and whether
/// kernels make a gradient of it; q, k and v have one.
macro_rules! for_operands {
    ($then:ident) => {
        $then! {
            rows {
                /// Queries `[batch, heads_q, seq_q, dim_qk]`.
                q: Q,
                /// Keys `[batch, heads_kv, seq_kv, dim_qk]`.
                k: K,
                /// Values `[batch, heads_kv, seq_kv, dim_v]`.
                v: V,
            }
            output {
                /// Output `[batch, heads_q, seq_q, dim_v]`.
                o: O,
            }
            results {
                /// Log-sum-exp `[batch, heads_q, seq_q]`, f32, without gaps.
                lse: Lse,
                /// Scores or weights `[batch, heads_q, seq_q, seq_kv]`, f32, without gaps.
                weights: Weights,
            }
            dense {
                /// Boolean mask of the call's mask shape, nonzero = attend; on the GPU one byte per element, or one
                /// bit, in a buffer that is padded to 4 bytes.
                mask: Mask, flag,
                /// Additive bias of the call's bias shape, in its type, f32 as a rule; −∞ masks.
                bias: Bias, f32 with gradient,
            }
            tables {
                /// What k is stored divided by, `[1]` or `[heads_kv]`, f32.
                k_scales: KScales, f32,
                /// What v is stored divided by, `[1]` or `[heads_kv]`, f32.
                v_scales: VScales, f32,
                /// ALiBi slopes `[heads_q]`, f32.
                alibi_slopes: AlibiSlopes, f32 with gradient,
                /// Sinks `[heads_q]`, f32: one extra logit per query head, in the denominator only.
                sinks: Sinks, f32 with gradient,
                /// Key lengths `[batch]`, u32.
                kv_lengths: KvLengths, u32,
                /// Query lengths `[batch]`, u32.
                q_lengths: QLengths, u32,
                /// Alignment offsets `[batch]`, i32.
                offsets: Offsets, i32,
                /// First query row of each packed sequence and their total, `[batch + 1]`, u32.
                cu_seqlens_q: CuSeqlensQ, u32,
                /// First key of each packed sequence and their total, `[batch + 1]`, u32.
                cu_seqlens_kv: CuSeqlensKv, u32,
                /// Weights of the additive score `[dim_qk]` or `[heads_q, dim_qk]`, f32.
                score_v: ScoreV, f32 with gradient,
                /// Cosines of the rotary angles, `[table_rows, dim / 2]`, f32.
                rotary_cos: RotaryCos, f32,
                /// Sines of the rotary angles, `[table_rows, dim / 2]`, f32.
                rotary_sin: RotarySin, f32,
                /// Factors of the cosine score, `[heads_q]`, f32.
                head_scale: HeadScale, f32 with gradient,
                /// Matrix of the general score, `[dim_q, dim_qk]`, f32.
                score_matrix: ScoreMatrix, f32 with gradient,
                /// Biases by relative position, `[heads_q, left + 1 + right]`, f32.
                relative: Relative, f32 with gradient,
                /// Centers of local attention `[batch, seq_q]`, f32.
                centers: Centers, f32 with gradient,
                /// First edge of each query row and their total `[seq_q + 1]`, u32, rising.
                edge_starts: EdgeStarts, u32,
                /// Key of each edge, u32, rising within each row.
                edge_keys: EdgeKeys, u32,
                /// Bias of each edge, f32.
                edge_bias: EdgeBias, f32 with gradient,
                /// Rotary positions of query rows `[batch, seq_q]` or `[1, seq_q]`, u32.
                positions: Positions, u32,
                /// Rotary positions of the keys that are turned, `[batch, keys]` or `[1, keys]`, u32.
                key_positions: KeyPositions, u32,
                /// Segment ids of query rows `[batch, seq_q]`, u32.
                segments_q: SegmentsQ, u32,
                /// Segment ids of keys `[batch, seq_kv]`, u32.
                segments_kv: SegmentsKv, u32,
                /// Parent of each node of a tree of rows, `[batch, seq_q]` or `[1, seq_q]`, i32, less than the node;
                /// −1 for none.
                parents: Parents, i32,
                /// Page of each run of keys of a paged call, `[batch, row]`, u32.
                page_table: PageTable, u32,
                /// Block table, [`Blocks::words`](crate::Blocks::words) words.
                blocks: Blocks, u32,
                /// Words for the caller's own functions; closures have their own copy.
                table: Table, word,
            }
        }
    };
}
pub(crate) use for_operands;

/// The type in which the host holds a table or mask, by its type on the GPU.
macro_rules! host_type {
    (f32) => {
        f64
    };
    (u32) => {
        u32
    };
    (word) => {
        u32
    };
    (i32) => {
        i32
    };
    (flag) => {
        bool
    };
}
pub(crate) use host_type;

/// What the elements of a tensor are on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// The call's storage type, rows with strides.
    Stored,
    /// f32.
    F32,
    /// u32.
    U32,
    /// i32.
    I32,
    /// A byte, nonzero = true.
    Flag,
    /// Whatever 32 bits the caller's functions take them for.
    Word,
}

macro_rules! element_type {
    (f32) => {
        ElementType::F32
    };
    (u32) => {
        ElementType::U32
    };
    (i32) => {
        ElementType::I32
    };
    (flag) => {
        ElementType::Flag
    };
    (word) => {
        ElementType::Word
    };
}

/// Whether a word is given.
macro_rules! given {
    () => {
        false
    };
    ($word:ident) => {
        true
    };
}

macro_rules! define_operand {
    (
        rows { $($(#[$rows_doc:meta])* $rows:ident: $Rows:ident,)* }
        output { $(#[$output_doc:meta])* $output:ident: $Output:ident, }
        results { $($(#[$result_doc:meta])* $result:ident: $Result:ident,)* }
        dense {
            $(
                $(#[$dense_doc:meta])*
                $dense:ident: $Dense:ident, $dense_type:ident $(with $dense_gradient:ident)?,
            )*
        }
        tables {
            $(
                $(#[$table_doc:meta])*
                $table:ident: $Table:ident, $table_type:ident $(with $table_gradient:ident)?,
            )*
        }
    ) => {
        /// Every tensor of a call, by its name in messages.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        pub enum Operand {
            $($(#[$rows_doc])* $Rows,)*
            $(#[$output_doc])* $Output,
            $($(#[$result_doc])* $Result,)*
            $($(#[$dense_doc])* $Dense,)*
            $($(#[$table_doc])* $Table,)*
        }

        /// The tensors that are rows with strides, in the call's storage type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Rows { $($Rows,)* $Output, }

        /// The tensors along the axes of the scores, or broadcast to them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Dense { $($Result,)* $($Dense,)* }

        #[derive(Clone, Copy)]
        enum TableIndex { $($Table,)* }

        impl Operand {
            /// All of them, in the order of the declaration.
            pub const ALL: &'static [Self] =
                &[$(Self::$Rows,)* Self::$Output, $(Self::$Result,)* $(Self::$Dense,)* $(Self::$Table,)*];

            /// The small tables.
            pub(crate) const TABLES: &'static [Self] = &[$(Self::$Table,)*];

            /// The name used in messages and on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$Rows => stringify!($rows),)*
                    Self::$Output => stringify!($output),
                    $(Self::$Result => stringify!($result),)*
                    $(Self::$Dense => stringify!($dense),)*
                    $(Self::$Table => stringify!($table),)*
                }
            }

            /// What its gradient is called in messages.
            pub(crate) fn gradient_name(self) -> &'static str {
                match self {
                    $(Self::$Rows => concat!("gradient of ", stringify!($rows)),)*
                    Self::$Output => concat!("gradient of ", stringify!($output)),
                    $(Self::$Result => concat!("gradient of ", stringify!($result)),)*
                    $(Self::$Dense => concat!("gradient of ", stringify!($dense)),)*
                    $(Self::$Table => concat!("gradient of ", stringify!($table)),)*
                }
            }

            /// Whether the call writes it.
            pub fn is_output(self) -> bool {
                match self {
                    $(Self::$Rows => false,)*
                    Self::$Output => true,
                    $(Self::$Result => true,)*
                    $(Self::$Dense => false,)*
                    $(Self::$Table => false,)*
                }
            }

            /// Its place among the small tables; `None` for views.
            pub(crate) fn table_index(self) -> Option<usize> {
                match self {
                    $(Self::$Rows => None,)*
                    Self::$Output => None,
                    $(Self::$Result => None,)*
                    $(Self::$Dense => None,)*
                    $(Self::$Table => Some(TableIndex::$Table as usize),)*
                }
            }

            /// Which of the tensors as large as the scores it is; `None` for everything else.
            pub(crate) fn dense(self) -> Option<Dense> {
                match self {
                    $(Self::$Rows => None,)*
                    Self::$Output => None,
                    $(Self::$Result => Some(Dense::$Result),)*
                    $(Self::$Dense => Some(Dense::$Dense),)*
                    $(Self::$Table => None,)*
                }
            }

            /// Which rows with strides it is; `None` for everything else.
            pub(crate) fn rows(self) -> Option<Rows> {
                match self {
                    $(Self::$Rows => Some(Rows::$Rows),)*
                    Self::$Output => Some(Rows::$Output),
                    $(Self::$Result => None,)*
                    $(Self::$Dense => None,)*
                    $(Self::$Table => None,)*
                }
            }

            /// Whether it may have a gradient: what is learned or computed, and has a kernel that makes it.
            pub(crate) fn has_gradient(self) -> bool {
                match self {
                    $(Self::$Rows => true,)*
                    Self::$Output => false,
                    $(Self::$Result => false,)*
                    $(Self::$Dense => given!($($dense_gradient)?),)*
                    $(Self::$Table => given!($($table_gradient)?),)*
                }
            }

            /// What its elements are on the GPU.
            pub fn element_type(self) -> ElementType {
                match self {
                    $(Self::$Rows => ElementType::Stored,)*
                    Self::$Output => ElementType::Stored,
                    $(Self::$Result => ElementType::F32,)*
                    $(Self::$Dense => element_type!($dense_type),)*
                    $(Self::$Table => element_type!($table_type),)*
                }
            }
        }

        /// The small and broadcast tensors that features read, on the CPU.
        ///
        /// An operand that the problem does not name is an empty slice.
        #[derive(Debug, Clone, Copy, Default)]
        pub struct Operands<'a> {
            $($(#[$dense_doc])* pub $dense: &'a [host_type!($dense_type)],)*
            $($(#[$table_doc])* pub $table: &'a [host_type!($table_type)],)*
        }

        impl<'a> Operands<'a> {
            /// The values of an operand; `None` for q, k, v and outputs.
            pub(crate) fn values(&self, operand: Operand) -> Option<Values<'a>> {
                match operand {
                    $(Operand::$Rows => None,)*
                    Operand::$Output => None,
                    $(Operand::$Result => None,)*
                    $(Operand::$Dense => Some(self.$dense.into()),)*
                    $(Operand::$Table => Some(self.$table.into()),)*
                }
            }
        }
    };
}
for_operands!(define_operand);

impl Operands<'_> {
    /// Elements of an operand that are there; `None` for q, k, v and outputs.
    pub fn elements(&self, operand: Operand) -> Option<usize> {
        self.values(operand).map(|values| values.len())
    }
}

impl Operand {
    /// Whether it is a small table: a slice of the host's, or a buffer that is copied at every run.
    pub fn is_table(self) -> bool {
        self.table_index().is_some()
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A table or mask on the host.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    /// What is f32 on the GPU.
    Floats(&'a [f64]),
    /// u32.
    Counts(&'a [u32]),
    /// i32.
    Integers(&'a [i32]),
    /// Booleans.
    Flags(&'a [bool]),
}

impl Values<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Floats(x) => x.len(),
            Self::Counts(x) => x.len(),
            Self::Integers(x) => x.len(),
            Self::Flags(x) => x.len(),
        }
    }
}

impl<'a> From<&'a [f64]> for Values<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self::Floats(values)
    }
}

impl<'a> From<&'a [u32]> for Values<'a> {
    fn from(values: &'a [u32]) -> Self {
        Self::Counts(values)
    }
}

impl<'a> From<&'a [i32]> for Values<'a> {
    fn from(values: &'a [i32]) -> Self {
        Self::Integers(values)
    }
}

impl<'a> From<&'a [bool]> for Values<'a> {
    fn from(values: &'a [bool]) -> Self {
        Self::Flags(values)
    }
}
