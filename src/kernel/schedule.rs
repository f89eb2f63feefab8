//! The kernel files: one for each schedule.

/// A schedule: which kernel file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    /// Tiled QKᵀ with score chain and masks.
    StagedScore,
    /// Row normaliser.
    StagedNormalize,
    /// Row normaliser by a threshold.
    StagedThreshold,
    /// Row normaliser that goes forward from row to row.
    StagedMonotonic,
    /// Tiled weighted sum of v.
    StagedValue,
    /// One pass with an online softmax, rows in registers; no device feature.
    FusedForward,
    /// One pass along the edges of a graph.
    EdgeForward,
    /// The same with k and v fetched by subgroups.
    FusedForwardSubgroup,
    /// One pass on a tile of rows and keys that is register-blocked; no device feature.
    FusedForwardTile,
    /// One pass with both products on matrix units.
    FusedForwardMatrix,
    /// Few rows, keys split over workgroups.
    SplitForward,
    /// Joins the shares of `SplitForward`.
    SplitMerge,
    /// Rotates, projects or normalises rows of q or k.
    Prepare,
    /// Writes new rows into a cache.
    CacheAppend,
    /// Counts the new rows.
    CacheAdvance,
    /// Copies a page of a cache.
    CacheCopy,
    /// Joins partial results that were computed apart.
    MergeStates,
    /// Builds a block table from masks given as data.
    Classify,
    /// A linear layer.
    Project,
    /// The mean of weights over heads.
    Average,
    /// Plain matrix product on the staged tile.
    Matmul,
    /// What functions of the caller's own say of each pair.
    OwnFunctions,
}

impl Kernel {
    /// File stem under `shaders/kernel`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StagedScore => "staged_score",
            Self::StagedNormalize => "staged_normalize",
            Self::StagedThreshold => "staged_threshold",
            Self::StagedMonotonic => "staged_monotonic",
            Self::StagedValue => "staged_value",
            Self::FusedForward => "fused_forward",
            Self::EdgeForward => "edge_forward",
            Self::FusedForwardSubgroup => "fused_forward_subgroup",
            Self::FusedForwardTile => "fused_forward_tile",
            Self::FusedForwardMatrix => "fused_forward_matrix",
            Self::SplitForward => "split_forward",
            Self::SplitMerge => "split_merge",
            Self::Prepare => "prepare",
            Self::CacheAppend => "cache_append",
            Self::CacheAdvance => "cache_advance",
            Self::CacheCopy => "cache_copy",
            Self::MergeStates => "merge_states",
            Self::Classify => "classify",
            Self::Project => "project",
            Self::Average => "average",
            Self::Matmul => "matmul",
            Self::OwnFunctions => "own_functions",
        }
    }

    /// Whether it is one of the fused kernels.
    pub fn is_fused(self) -> bool {
        let rows = matches!(self, Self::FusedForward | Self::FusedForwardSubgroup);
        rows || matches!(
            self,
            Self::EdgeForward | Self::FusedForwardTile | Self::FusedForwardMatrix
        )
    }

    /// Whether it is a product on the tile of `common/tile.wgsl`.
    pub(super) fn uses_tile(self) -> bool {
        matches!(self, Self::StagedScore | Self::StagedValue | Self::Project | Self::Matmul)
    }

    /// Whether it makes scores: with modifiers and masks for each pair.
    pub fn scores(self) -> bool {
        self.is_fused() || matches!(self, Self::StagedScore | Self::SplitForward)
    }

    /// Whether it is a kernel beside attention, without positions and masks.
    pub(super) fn stands_alone(self) -> bool {
        let cache = [Self::CacheAppend, Self::CacheAdvance, Self::CacheCopy, Self::MergeStates];
        let layer = [Self::Prepare, Self::Project, Self::Average, Self::Matmul];
        cache.contains(&self) || layer.contains(&self)
    }

    pub(crate) fn source(self) -> &'static str {
        match self {
            Self::StagedScore => include_str!("../../shaders/kernel/staged_score.wgsl"),
            Self::StagedNormalize => include_str!("../../shaders/kernel/staged_normalize.wgsl"),
            Self::StagedMonotonic => include_str!("../../shaders/kernel/staged_monotonic.wgsl"),
            Self::StagedThreshold => include_str!("../../shaders/kernel/staged_threshold.wgsl"),
            Self::StagedValue => include_str!("../../shaders/kernel/staged_value.wgsl"),
            Self::FusedForward => include_str!("../../shaders/kernel/fused_forward.wgsl"),
            Self::EdgeForward => include_str!("../../shaders/kernel/edge_forward.wgsl"),
            Self::FusedForwardSubgroup => {
                include_str!("../../shaders/kernel/fused_forward_subgroup.wgsl")
            }
            Self::FusedForwardTile => {
                include_str!("../../shaders/kernel/fused_forward_tile.wgsl")
            }
            Self::FusedForwardMatrix => {
                include_str!("../../shaders/kernel/fused_forward_matrix.wgsl")
            }
            Self::SplitForward => include_str!("../../shaders/kernel/split_forward.wgsl"),
            Self::SplitMerge => include_str!("../../shaders/kernel/split_merge.wgsl"),
            Self::Prepare => include_str!("../../shaders/kernel/prepare.wgsl"),
            Self::CacheAppend => include_str!("../../shaders/kernel/cache_append.wgsl"),
            Self::CacheAdvance => include_str!("../../shaders/kernel/cache_advance.wgsl"),
            Self::CacheCopy => include_str!("../../shaders/kernel/cache_copy.wgsl"),
            Self::MergeStates => include_str!("../../shaders/kernel/merge_states.wgsl"),
            Self::Classify => include_str!("../../shaders/kernel/classify.wgsl"),
            Self::Project => include_str!("../../shaders/kernel/project.wgsl"),
            Self::Average => include_str!("../../shaders/kernel/average.wgsl"),
            Self::Matmul => include_str!("../../shaders/kernel/matmul.wgsl"),
            Self::OwnFunctions => include_str!("../../shaders/kernel/own_functions.wgsl"),
        }
    }
}
