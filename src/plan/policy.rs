//! What the caller leaves open or insists on.

use std::fmt;
use std::sync::Arc;

use crate::plan::tuning::Tuning;

macro_rules! paths {
    ($($(#[$doc:meta])* $Path:ident: $name:literal,)*) => {
        /// Which schedule to use.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[non_exhaustive]
        pub enum Path {
            /// The first of the others that can serve.
            #[default]
            Auto,
            $($(#[$doc])* $Path,)*
        }

        impl Path {
            /// All but [`Auto`](Self::Auto).
            pub const ALL: &'static [Self] = &[$(Self::$Path),*];

            /// What messages, reports and the command line call it.
            pub fn name(self) -> &'static str {
                match self {
                    Self::Auto => "auto",
                    $(Self::$Path => $name,)*
                }
            }
        }
    };
}

paths! {
    /// One pass with an online softmax; scores are never written to memory.
    Fused: "fused",
    /// The same on a tile of rows and keys that a workgroup's invocations share: for GPUs.
    FusedTile: "fused-tile",
    /// Keys shared out over workgroups, partial results merged: for few query rows.
    Split: "split",
    /// Scores are materialised in scratch: QKᵀ, row softmax, weighted sum.
    Staged: "staged",
    /// One pass with both products on matrix units; see [`Policy::matrix_units`].
    FusedMatrix: "fused-matrix",
    /// The staged path with both products on matrix units; see [`Policy::matrix_units`].
    StagedMatrix: "staged-matrix",
}

impl Path {
    /// Whether its kernels are for matrix units.
    pub fn is_matrix(self) -> bool {
        matches!(self, Self::FusedMatrix | Self::StagedMatrix)
    }

    /// The path whose blocks and scratch are alike.
    pub(crate) fn plain(self) -> Self {
        match self {
            Self::FusedTile | Self::FusedMatrix => Self::Fused,
            Self::StagedMatrix => Self::Staged,
            other => other,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether kernels prove themselves on the device before they serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SelfTest {
    /// The first time an engine plans with a variant.
    #[default]
    OnFirstUse,
    /// Never: planning submits nothing and does not wait.
    Off,
}

/// Whether kernels are compiled with wgpu's own run-time checks: indices clamped to their buffers, and
/// loops counted so that none runs for ever.
///
/// The kernels index only what [`bind`](crate::Engine::bind) has checked, so the checks find nothing
/// there; they guard against tables on the GPU that are out of range, and against the caller's own
/// functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Checks {
    off: bool,
}

impl Checks {
    /// With checks.
    pub const ON: Self = Self { off: false };

    /// Without checks.
    ///
    /// # Safety
    /// Nothing stands between a wrong index and the device's memory: the caller's own functions must
    /// stay within their table and end, and tables that live on the GPU (`cu_seqlens`, lengths, block
    /// tables) must hold what their documentation says.
    #[allow(unsafe_code, reason = "this is where the caller takes responsibility")]
    pub const unsafe fn off() -> Self {
        Self { off: true }
    }

    /// Whether checks are off.
    pub fn are_off(self) -> bool {
        self.off
    }
}

/// How to plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Which schedule.
    pub path: Path,
    /// Whether kernels prove themselves before they serve.
    pub self_test: SelfTest,
    /// Whether kernels are compiled with run-time checks.
    pub checks: Checks,
    /// Whether keys are split into shares of a fixed size, so that a row has the same bits whatever the batch it
    /// is in, its neighbours and the length of the longest sequence are. Otherwise shares are as many as keep the
    /// device busy. All other paths are so anyway, and [`Path::Auto`] then does not ask whether the batch makes one of
    /// them faster: calls of other rows, keys or heads may still go other paths, and so may a batch whose partial
    /// results the device or the policy has no room for.
    pub batch_invariant: bool,
    /// Most scratch memory a plan may use, bytes. Less scratch means more, smaller dispatches.
    pub max_workspace_bytes: u64,
    /// Whether f16 tensors are read and written with the device's own f16, where it has that, rather than unpacked
    /// from words in integers; by what is faster on the class of device unless it is given.
    pub native_f16: Option<bool>,
    /// Whether [`Path::Auto`] considers matrix units, where the engine was told of them
    /// ([`Engine::with_matrix_units`](crate::Engine::with_matrix_units)), and a layer's projections use them. Operands
    /// are rounded to f16 on the way, and so are weights; sums stay f32. wgpu calls the feature experimental.
    pub matrix_units: bool,
    /// Tile shapes to use before those that ship, as `heedful tune` writes them.
    pub tuning: Option<Arc<Tuning>>,
}

impl Default for Policy {
    /// Any path without matrix units, self-tested, with checks, at most 256 MiB of scratch, the tile shapes that ship.
    fn default() -> Self {
        Self {
            path: Path::Auto,
            self_test: SelfTest::OnFirstUse,
            checks: Checks::ON,
            batch_invariant: false,
            max_workspace_bytes: 256 << 20,
            native_f16: None,
            matrix_units: false,
            tuning: None,
        }
    }
}
