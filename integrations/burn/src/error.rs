//! What can go wrong.

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was not made. Nothing was recorded then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor or number that does not fit.
    #[error("{argument}: found {found}; wanted {wanted}")]
    Invalid {
        /// Which.
        argument: String,
        /// What it is.
        found: String,
        /// What it may be.
        wanted: String,
    },
    /// The engine refused the call, or failed.
    #[error(transparent)]
    Engine(#[from] heedful::Error),
    /// Burn could not give what was asked of it.
    #[error("burn: {0}")]
    Burn(String),
}

impl Error {
    pub(crate) fn invalid(
        argument: impl Into<String>,
        found: impl ToString,
        wanted: impl Into<String>,
    ) -> Self {
        let (argument, found, wanted) = (argument.into(), found.to_string(), wanted.into());
        Self::Invalid { argument, found, wanted }
    }
}
