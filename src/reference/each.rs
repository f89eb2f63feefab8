//! The same work for each of many, on as many threads as there are.

use std::ops::Range;

/// What `work` gives for each number of a range, in order; `state` is made once on each thread.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn each<S, T: Send>(
    range: Range<u64>,
    state: impl Fn() -> S + Send + Sync,
    work: impl Fn(&mut S, u64) -> T + Send + Sync,
) -> Vec<T> {
    use rayon::prelude::*;
    range.into_par_iter().map_init(state, work).collect()
}

/// The same where there are no threads.
#[cfg(target_arch = "wasm32")]
pub(super) fn each<S, T>(
    range: Range<u64>,
    state: impl Fn() -> S,
    work: impl Fn(&mut S, u64) -> T,
) -> Vec<T> {
    let mut state = state();
    range.map(|i| work(&mut state, i)).collect()
}
