//! Tables and progress.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where nobody watches a bar, a step that takes longer says so, and again each time that this has doubled.
const LONG: Duration = Duration::from_secs(30);

/// Set in the environment, it makes every step say on stderr when it begins: for who runs the program from another.
const STEPS: &str = "HEEDFUL_STEPS";

/// A table with a header row; columns from `numbers` on are aligned right.
pub(crate) fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for (i, column) in table.column_iter_mut().enumerate() {
        if i >= numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// How far a command has come, on stderr: on a terminal a bar once two seconds have passed, elsewhere a line
/// when a step takes long. It goes when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    says_steps: bool,
    step: Arc<Mutex<Step>>,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
}

/// What runs now.
struct Step {
    name: String,
    since: Instant,
    /// When it is next said that it still runs.
    next: Duration,
}

impl Progress {
    pub(crate) fn new(steps: usize, what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::hidden());
        let template = "{prefix} {bar:24} {pos}/{len} {elapsed} {eta} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        let step = Step { name: "begins".into(), since: Instant::now(), next: LONG };
        let step = Arc::new(Mutex::new(step));
        let (end, ended) = channel();
        let (watched, shared) = (bar.clone(), Arc::clone(&step));
        let watcher = std::thread::spawn(move || {
            let tick = Duration::from_millis(250);
            while ended.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                watch(&watched, &mut lock(&shared), what);
            }
        });
        let says_steps = std::env::var_os(STEPS).is_some();
        Self { bar, what, says_steps, step, watcher: Some((end, watcher)) }
    }

    /// The next step begins.
    pub(crate) fn step(&self, name: &str) {
        self.bar.inc(1);
        *lock(&self.step) = Step { name: String::new(), since: Instant::now(), next: LONG };
        self.within(name);
    }

    /// The next part of the step begins.
    pub(crate) fn within(&self, name: &str) {
        if self.says_steps {
            eprintln!("heedful {}: {name}", self.what);
        }
        self.bar.set_message(name.to_owned());
        name.clone_into(&mut lock(&self.step).name);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, watcher)) = self.watcher.take() {
            drop(end);
            // A watcher that panicked has nothing more to show.
            let _ = watcher.join();
        }
        self.bar.finish_and_clear();
    }
}

fn watch(bar: &ProgressBar, step: &mut Step, what: &str) {
    if std::io::stderr().is_terminal() {
        if bar.is_hidden() && bar.elapsed().as_secs() >= 2 {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.tick();
    } else if step.since.elapsed() >= step.next {
        eprintln!("heedful {what}: {}: {} s so far", step.name, step.since.elapsed().as_secs());
        step.next *= 2;
    }
}

fn lock(step: &Mutex<Step>) -> MutexGuard<'_, Step> {
    step.lock().unwrap_or_else(PoisonError::into_inner)
}
