//! What the caller leaves open or insists on.

use std::fmt;

/// Which schedule to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Path {
    /// The first of the others that can serve.
    #[default]
    Auto,
    /// One pass with an online softmax; scores are never written to memory.
    Fused,
    /// Scores are materialised in scratch: QKᵀ, row softmax, weighted sum.
    Staged,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Fused => "fused",
            Self::Staged => "staged",
        })
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

/// How to plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Which schedule.
    pub path: Path,
    /// Whether kernels prove themselves before they serve.
    pub self_test: SelfTest,
    /// Most scratch memory a plan may use, bytes. Less scratch means more, smaller dispatches.
    pub max_workspace_bytes: u64,
}

impl Default for Policy {
    /// Any path, self-tested, at most 256 MiB of scratch.
    fn default() -> Self {
        Self { path: Path::Auto, self_test: SelfTest::OnFirstUse, max_workspace_bytes: 256 << 20 }
    }
}
