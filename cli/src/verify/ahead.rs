//! Compiling kernels of the next cases while one runs: most of a run's time on drivers that compile on the CPU.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heedful::Engine;
use heedful::verify::planned::Planned;

use super::planned::compile;

/// Cases that may be compiled before the one that runs.
pub(super) const LEAD: usize = 12;

/// How far a run has come.
#[derive(Default)]
pub(super) struct Ahead(AtomicUsize);

/// Ends compiling ahead.
pub(super) struct End<'a>(&'a Ahead);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.0.store(usize::MAX, Ordering::Relaxed);
    }
}

impl Ahead {
    /// The case of this place runs now.
    pub(super) fn reached(&self, place: usize) {
        self.0.store(place, Ordering::Relaxed);
    }

    /// When this is dropped, also in a panic, no more cases run.
    pub(super) fn until_dropped(&self) -> End<'_> {
        End(self)
    }

    /// Compiles what the cases from `first` on need, a few before the one that runs.
    pub(super) fn compile(&self, engine: &Engine, cases: &[&Planned], first: usize) {
        for (place, planned) in cases.iter().enumerate().skip(first) {
            let mut running = self.0.load(Ordering::Relaxed);
            while running < usize::MAX && place > running + LEAD {
                std::thread::sleep(Duration::from_millis(2));
                running = self.0.load(Ordering::Relaxed);
            }
            if place > running {
                compile(planned, engine);
            }
        }
    }
}
