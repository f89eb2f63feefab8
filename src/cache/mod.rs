//! Keys and values kept from step to step: [`KvCache`] on the GPU, and the page tables behind it.

mod append;
mod descriptor;
mod kv_cache;
mod pages;
mod self_test;

pub use append::{Append, AppendDescriptor, NewRows};
pub use descriptor::KvCacheDescriptor;
pub use kv_cache::KvCache;
// The host's side, for this repository's tests.
#[doc(hidden)]
pub use pages::{Changes, PageTable};
