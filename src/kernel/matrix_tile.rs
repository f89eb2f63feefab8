//! How `fused_forward_matrix` lays rows and keys over matrix units, and the head dimensions it is unrolled for.

use std::fmt;

/// Elements between rows of a tile in workgroup memory beyond its own: 16 bytes of f16, so that rows start in different
/// banks and every start is aligned as matrix loads want it.
const PAD: u32 = 8;

/// Shape of the matrix kernels' workgroups.
///
/// A team is as many invocations as the largest subgroup has: one subgroup, or several that do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatrixTile {
    /// Edge of the matrices: 8 or 16.
    pub edge: u32,
    /// Invocations of a team.
    pub team: u32,
    /// Teams of a workgroup; each has rows of its own.
    pub teams: u32,
    /// Blocks of `edge` query rows of a team.
    pub blocks: u32,
    /// Keys between barriers, a multiple of `edge`.
    pub keys: u32,
    /// Head dimension of q and k.
    pub dim_qk: u32,
    /// Head dimension of v and o.
    pub dim_v: u32,
    /// Whether tiles of k and v are arrays of vectors: stored at once, but Metal's loads take scalars only.
    pub vectors: bool,
    /// Whether steps over blocks are written out, so that matrices stay in registers. Software drivers compile loops
    /// several times as fast and run them no slower.
    pub unrolled: bool,
}

impl MatrixTile {
    /// Query rows of a team.
    pub fn team_rows(&self) -> u32 {
        self.blocks * self.edge
    }

    /// Query rows of a workgroup.
    pub fn rows(&self) -> u32 {
        self.teams * self.team_rows()
    }

    /// Invocations per workgroup.
    pub fn lanes(&self) -> u32 {
        self.team * self.teams
    }

    /// Invocations that share the scores of a row.
    pub fn parts(&self) -> u32 {
        self.lanes() / self.rows()
    }

    /// Matrices along the head dimension of q and k, and of v and o.
    pub fn depth(&self) -> [u32; 2] {
        [self.dim_qk, self.dim_v].map(|dim| dim.max(1).div_ceil(self.edge))
    }

    /// Elements between keys of scores and weights in workgroup memory, which lie `[key][row]`.
    pub fn row_stride(&self) -> u32 {
        self.rows() + PAD
    }

    /// Elements between keys of the tiles of k and of v.
    pub fn key_strides(&self) -> [u32; 2] {
        self.depth().map(|blocks| blocks * self.edge + PAD)
    }

    /// Bytes of workgroup memory: k, v, scores in f32, weights in f16, a factor per row, a value per invocation where
    /// several share a row, and the flags.
    pub fn workgroup_bytes(&self) -> u32 {
        let [k, v] = self.key_strides();
        let shared = if self.parts() > 1 { 4 * self.lanes() } else { 0 };
        self.keys * (2 * (k + v) + 6 * self.row_stride()) + 4 * self.rows() + shared + 80
    }
}

impl fmt::Display for MatrixTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { edge, team, teams, blocks, keys, .. } = *self;
        write!(f, "m{edge}t{teams}x{team}b{blocks}k{keys}d{}", self.dim_qk)?;
        if self.dim_v != self.dim_qk {
            write!(f, "v{}", self.dim_v)?;
        }
        let flags = [(self.vectors, "w"), (self.unrolled, "u")];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, name)| f.write_str(name))
    }
}
