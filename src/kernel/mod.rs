//! From a problem to WGSL text: the variant key, the composer, the binding registry, the parameter
//! block and the resource formulas. Everything here is plain data and runs without a GPU.

mod bindings;
mod block_tile;
mod compose;
mod element;
mod glue;
mod glue_elements;
mod key;
mod matrix;
mod matrix_square;
mod matrix_tile;
mod params;
mod registers;
mod resources;
mod schedule;
mod spec;
mod split;
mod tile;
mod variants;

pub use bindings::{Access, Binding, BindingKind};
pub use block_tile::BlockTile;
pub use compose::{Compiler, Composed, LineMap, compose, compose_for};
pub use element::{Element, RowTile, SplitTile, Width};
pub use matrix_tile::MatrixTile;
pub use params::Params;
pub(crate) use params::{
    BLOCK_SCAN, CARRY_IN, CARRY_OUT, DIM_SOURCE, ROTARY_FROM, ROTARY_START, SCORE_STRIDE, SPLIT_N,
    SPLIT_SIZE,
};
pub use resources::Resources;
pub use schedule::Kernel;
pub use spec::{BlockTable, Capture, KernelSpec, Preparation, SMALL_TABLES, TILE};
