//! From a problem to WGSL text: the variant key, the composer, the binding registry, the parameter
//! block and the resource formulas. Everything here is plain data and runs without a GPU.

mod bindings;
mod block_tile;
mod compose;
mod element;
mod generate;
mod kernels;
mod key;
mod matrix_tile;
mod params;
mod resources;
mod spec;
mod tile;
mod twin;
mod twins;
mod variants;

// One of each kernel file.
mod average;
mod backward_bias;
mod backward_centers;
mod backward_columns;
mod backward_edges;
mod backward_keys;
mod backward_matrix;
mod backward_prepare;
mod backward_project;
mod backward_row;
mod backward_sinks;
mod backward_sum_keys;
mod backward_sum_rows;
mod backward_table;
mod backward_threshold;
mod cache_advance;
mod cache_append;
mod cache_copy;
mod classify;
mod edge_forward;
mod fused_backward_delta;
mod fused_backward_keys;
mod fused_backward_rows;
mod fused_backward_tile_keys;
mod fused_backward_tile_queries;
mod fused_backward_tile_rows;
mod fused_forward;
mod fused_forward_matrix;
mod fused_forward_subgroup;
mod fused_forward_tile;
mod matmul;
mod merge_states;
mod own_functions;
mod prepare;
mod project;
mod split_forward;
mod split_forward_tile;
mod split_merge;
mod staged_monotonic;
mod staged_normalize;
mod staged_score;
mod staged_threshold;
mod staged_value;

pub(crate) use backward_bias::BATCH_N;
pub(crate) use backward_sum_rows::SUM_TILE;
pub(crate) use backward_table::TABLE_WIDTH;
pub use bindings::{Access, Binding, BindingKind};
pub use block_tile::{BlockTile, Repeats, TILE};
pub(crate) use classify::BLOCK_SCAN;
pub use compose::{Compiler, Composed, LineMap, compose, compose_for};
pub use element::{Element, MergeTile, RowTile, SplitTile, Width};
pub(crate) use fused_backward_delta::{D_LSE_BASE, D_O_BASE};
pub(crate) use fused_backward_keys::D_V_BASE;
pub use kernels::Kernel;
pub use matrix_tile::MatrixTile;
pub(crate) use merge_states::PARTS_LSE_BASE;
pub use params::Params;
pub(crate) use prepare::{DIM_SOURCE, POSITIONS_ROW, POSITIONS_STRIDE, ROTARY_FROM, ROTARY_START};
pub(crate) use project::{PROJECTION_BASE, PROJECTION_STRIDE_ROW};
pub use resources::Resources;
pub use spec::{
    BackwardParts, BlockTable, Build, Capture, KernelSpec, Preparation, SMALL_TABLES, Writes,
};
pub(crate) use split_forward::{SPLIT_N, SPLIT_SIZE};
pub(crate) use staged_score::SCORE_STRIDE;
pub(crate) use staged_value::{CARRY_IN, CARRY_OUT};
pub use tile::Tile;
pub(crate) use twin::Work;
