//! The list of kernel files: a schedule or a step beside attention each.

/// Hands the list to a macro: each kernel with its documentation and its file stem.
macro_rules! for_kernels {
    ($then:ident) => {
        $then! {
            /// Tiled QKᵀ with score chain and masks.
            StagedScore: staged_score,
            /// Row normaliser.
            StagedNormalize: staged_normalize,
            /// Row normaliser by a threshold.
            StagedThreshold: staged_threshold,
            /// Row normaliser that goes forward from row to row.
            StagedMonotonic: staged_monotonic,
            /// Tiled weighted sum of v.
            StagedValue: staged_value,
            /// One pass with an online softmax, rows in registers; no device feature.
            FusedForward: fused_forward,
            /// One pass along the edges of a graph.
            EdgeForward: edge_forward,
            /// One pass with an online softmax, rows in registers, k and v fetched by subgroups.
            FusedForwardSubgroup: fused_forward_subgroup,
            /// One pass on a tile of rows and keys that is register-blocked; no device feature.
            FusedForwardTile: fused_forward_tile,
            /// One pass with both products on matrix units.
            FusedForwardMatrix: fused_forward_matrix,
            /// Few rows, keys split over workgroups.
            SplitForward: split_forward,
            /// More rows on tiles, keys split over workgroups.
            SplitForwardTile: split_forward_tile,
            /// Rows of all heads of a group on tiles, keys split over workgroups.
            SplitForwardGroup: split_forward_group,
            /// Joins the shares of the three before.
            SplitMerge: split_merge,
            /// Rotates, projects or normalises rows of q or k.
            Prepare: prepare,
            /// Writes new rows into a cache.
            CacheAppend: cache_append,
            /// Counts the new rows.
            CacheAdvance: cache_advance,
            /// Copies a page of a cache.
            CacheCopy: cache_copy,
            /// Joins partial results that were computed apart.
            MergeStates: merge_states,
            /// Builds a block table from masks given as data.
            Classify: classify,
            /// A linear layer.
            Project: project,
            /// The mean of weights over heads.
            Average: average,
            /// Plain matrix product on the staged tile.
            Matmul: matmul,
            /// Backward: weights and gradients of scores, row by row.
            BackwardRow: backward_row,
            /// Backward: the same for normalisers by a threshold.
            BackwardThreshold: backward_threshold,
            /// Backward: gradients of keys or values, key by key.
            BackwardKeys: backward_keys,
            /// Backward: gradients of q through an additive score, row by row.
            BackwardSumRows: backward_sum_rows,
            /// Backward: gradients of k through an additive score, key by key.
            BackwardSumKeys: backward_sum_keys,
            /// Backward: gradient of the bias.
            BackwardBias: backward_bias,
            /// Backward: gradients of predicted centres.
            BackwardCenters: backward_centers,
            /// Backward: gradients of biases of edges.
            BackwardEdges: backward_edges,
            /// Backward: gradient of a score modifier's table.
            BackwardTable: backward_table,
            /// Backward: gradients of sinks and of factors of heads.
            BackwardSinks: backward_sinks,
            /// Backward: q and k before they were rotated, projected or normalised.
            BackwardPrepare: backward_prepare,
            /// Backward: gradient of a matrix.
            BackwardMatrix: backward_matrix,
            /// Backward: gradient of a linear layer's input.
            BackwardProject: backward_project,
            /// Backward: sums of columns.
            BackwardColumns: backward_columns,
            /// Backward in one pass: what is needed of each row.
            FusedBackwardDelta: fused_backward_delta,
            /// Backward in one pass: gradients of q, rows in registers.
            FusedBackwardRows: fused_backward_rows,
            /// Backward in one pass: gradients of k and v, keys in registers.
            FusedBackwardKeys: fused_backward_keys,
            /// Backward in one pass on tiles: gradients of q.
            FusedBackwardTileRows: fused_backward_tile_rows,
            /// Backward on tiles, each gradient by itself: that of q.
            FusedBackwardTileQueries: fused_backward_tile_queries,
            /// Backward in one pass on tiles: gradients of k and v.
            FusedBackwardTileKeys: fused_backward_tile_keys,
            /// What functions of the caller's own say of each pair.
            OwnFunctions: own_functions,
        }
    };
}
pub(super) use for_kernels;

macro_rules! kernels {
    ($($(#[$doc:meta])* $Kernel:ident: $stem:ident,)*) => {
        /// A schedule: which kernel file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kernel {
            $($(#[$doc])* $Kernel,)*
        }

        impl Kernel {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$Kernel,)*];

            /// File stem under `shaders/kernel`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$Kernel => stringify!($stem),)*
                }
            }
        }
    };
}
for_kernels!(kernels);
