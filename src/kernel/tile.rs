//! The shape of a kernel's workgroups, where the planner chooses it.

use std::fmt;

use super::block_tile::BlockTile;
use super::element::{MergeTile, RowTile, SplitTile};
use super::matrix_tile::MatrixTile;

/// How a kernel lays its work over invocations; those that have none take 64 rows or elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tile {
    /// Rows in registers.
    Rows(RowTile),
    /// A block of rows and keys.
    Block(BlockTile),
    /// Rows of a group, keys shared out.
    Split(SplitTile),
    /// Columns of o, shares side by side.
    Merge(MergeTile),
    /// Matrices.
    Matrix(MatrixTile),
}

impl Tile {
    /// Invocations per workgroup.
    pub(super) fn lanes(&self) -> u32 {
        match self {
            Self::Rows(tile) => tile.lanes,
            Self::Block(tile) => tile.lanes(),
            Self::Split(tile) => tile.lanes,
            Self::Merge(tile) => tile.lanes(),
            Self::Matrix(tile) => tile.lanes(),
        }
    }

    /// Query rows of a workgroup.
    pub(super) fn rows(&self) -> u32 {
        match self {
            Self::Rows(tile) => tile.group_rows(),
            Self::Block(tile) => tile.rows,
            Self::Split(tile) => tile.rows,
            Self::Merge(_) => 1,
            Self::Matrix(tile) => tile.rows(),
        }
    }

    /// Head dimensions that registers are numbered for; `None` where loops go over them.
    pub(super) fn dims(&self) -> Option<[u32; 2]> {
        match self {
            Self::Rows(tile) => Some([tile.dim_qk, tile.dim_v]),
            Self::Block(tile) => Some([tile.dim_qk, tile.dim_v]),
            Self::Split(tile) => Some([tile.dim_qk, tile.dim_v]),
            Self::Merge(_) | Self::Matrix(_) => None,
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(tile) => tile.fmt(f),
            Self::Block(tile) => tile.fmt(f),
            Self::Split(tile) => tile.fmt(f),
            Self::Merge(tile) => tile.fmt(f),
            Self::Matrix(tile) => tile.fmt(f),
        }
    }
}
