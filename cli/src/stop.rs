//! Ctrl-C: what runs is finished or dropped, what was found out is kept.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Outcome;

/// A flag that the first Ctrl-C sets, for the program to stop after `what`; the second one ends the process.
pub(crate) fn on_ctrl_c(what: &'static str) -> Outcome<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if std::io::stderr().is_terminal() {
            eprintln!("heedful: stopping after {what}; once more ends at once");
        }
    })
    .map_err(|e| heedful::Error::internal("listening for Ctrl-C", e.to_string()))?;
    Ok(stop)
}
