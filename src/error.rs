//! The one error type, its kinds, and the rejections that explain an unsupported request.
//!
//! Every message names the argument, what was found and what is wanted, so that one line on a
//! terminal is enough to mend the call.

use std::fmt;

/// Why a call could not be served.
///
/// The kind is private so that it can grow; ask with [`is_invalid`](Error::is_invalid),
/// [`is_unsupported`](Error::is_unsupported), [`is_full`](Error::is_full),
/// [`is_out_of_memory`](Error::is_out_of_memory), [`is_device_lost`](Error::is_device_lost) and
/// [`is_internal`](Error::is_internal).
///
/// ```
/// use heedful::{Attention, Shape};
/// let error = Attention::new(Shape::self_attention(1, 8, 16, 0)).validate().unwrap_err();
/// assert!(error.is_invalid());
/// assert_eq!(error.to_string(), "dim_qk: found 0, want 1..=1024");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

#[derive(Debug, Clone, thiserror::Error)]
enum Kind {
    #[error("{argument}: found {found}, want {wanted}")]
    Invalid { argument: String, found: String, wanted: String },
    #[error("{what} is not supported here{}", RejectionList(.rejections))]
    Unsupported { what: String, rejections: Vec<Rejection> },
    #[error("{what} does not suffice: found {found}, want {wanted}")]
    Full { what: String, found: String, wanted: String },
    #[error("out of device memory while {during} ({bytes} B asked for)")]
    OutOfMemory { during: String, bytes: u64 },
    #[error("the device was lost while {during}: {reason}")]
    DeviceLost { during: String, reason: String },
    #[error("internal error while {during}: {message}")]
    Internal { during: String, message: String },
}

/// One kernel that was considered and why it does not serve, with the numbers that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Variant key or kernel name of the candidate.
    pub candidate: String,
    /// Why not, with what it needs and what there is.
    pub reason: String,
}

struct RejectionList<'a>(&'a [Rejection]);

impl fmt::Display for RejectionList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, rejection) in self.0.iter().enumerate() {
            let lead = if i == 0 { ": " } else { "; " };
            write!(f, "{lead}{}: {}", rejection.candidate, rejection.reason)?;
        }
        Ok(())
    }
}

impl Error {
    /// The caller's argument is wrong: name it, say what was found and what is wanted.
    pub fn invalid(
        argument: impl Into<String>,
        found: impl fmt::Display,
        wanted: impl fmt::Display,
    ) -> Self {
        Self(Box::new(Kind::Invalid {
            argument: argument.into(),
            found: found.to_string(),
            wanted: wanted.to_string(),
        }))
    }

    /// No kernel can serve the request on this device.
    pub fn unsupported(what: impl Into<String>, rejections: Vec<Rejection>) -> Self {
        Self(Box::new(Kind::Unsupported { what: what.into(), rejections }))
    }

    /// A store of fixed size has no room: name it, say what was asked of it and what it has.
    pub fn full(
        what: impl Into<String>,
        found: impl fmt::Display,
        wanted: impl fmt::Display,
    ) -> Self {
        Self(Box::new(Kind::Full {
            what: what.into(),
            found: found.to_string(),
            wanted: wanted.to_string(),
        }))
    }

    /// The device refused `bytes` of memory.
    pub fn out_of_memory(during: impl Into<String>, bytes: u64) -> Self {
        Self(Box::new(Kind::OutOfMemory { during: during.into(), bytes }))
    }

    /// The device is gone; a new one is needed.
    pub fn device_lost(during: impl Into<String>, reason: impl Into<String>) -> Self {
        Self(Box::new(Kind::DeviceLost { during: during.into(), reason: reason.into() }))
    }

    /// A fault of this library or of the driver below it.
    pub fn internal(during: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Kind::Internal { during: during.into(), message: message.into() }))
    }

    /// The caller passed something that cannot be right.
    pub fn is_invalid(&self) -> bool {
        matches!(*self.0, Kind::Invalid { .. })
    }

    /// The request is meaningful but nothing here can serve it; see [`rejections`](Self::rejections).
    pub fn is_unsupported(&self) -> bool {
        matches!(*self.0, Kind::Unsupported { .. })
    }

    /// A cache has no room for what was to be appended; nothing was changed.
    pub fn is_full(&self) -> bool {
        matches!(*self.0, Kind::Full { .. })
    }

    /// The device has not enough memory left.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(*self.0, Kind::OutOfMemory { .. })
    }

    /// The device was lost; everything made from it is unusable.
    pub fn is_device_lost(&self) -> bool {
        matches!(*self.0, Kind::DeviceLost { .. })
    }

    /// A defect in this library or the driver; please report it.
    pub fn is_internal(&self) -> bool {
        matches!(*self.0, Kind::Internal { .. })
    }

    /// The argument that an invalid call got wrong.
    pub fn argument(&self) -> Option<&str> {
        match &*self.0 {
            Kind::Invalid { argument, .. } => Some(argument),
            _ => None,
        }
    }

    /// What the driver or the library says of an internal error.
    pub(crate) fn message(&self) -> Option<&str> {
        match &*self.0 {
            Kind::Internal { message, .. } => Some(message),
            _ => None,
        }
    }

    /// Each candidate kernel and why it was refused; empty unless the request is unsupported.
    pub fn rejections(&self) -> &[Rejection] {
        match &*self.0 {
            Kind::Unsupported { rejections, .. } => rejections,
            _ => &[],
        }
    }
}

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
