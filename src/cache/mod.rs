//! Keys and values kept from step to step: [`KvCache`] on the GPU, and the page tables behind it.

mod append;
mod kv_cache;
mod pages;
mod self_test;

pub use append::{Append, AppendDescriptor, NewRows};
pub use kv_cache::{KvCache, KvCacheDescriptor};
pub use pages::{Changes, NO_PAGE, PageTable};
