//! Verdicts: which kernels proved right on a device, and which were wrong there, together or alone.
//!
//! A wrong result of kernels that ran one after another says that something among them is wrong, so it
//! is kept against all of them together: a plan is refused when it holds all kernels of some wrong
//! set. A kernel that was wrong by itself is a set of one.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Rejection, Result};
use crate::kernel::KernelSpec;
use crate::plan::Capabilities;

/// First line of saved verdicts: the format.
const FORMAT: &str = "heedful verdicts 1";

/// A kernel's text, and how large the call was that it was tried with where that is the caller's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    text: u128,
    extent: [u32; 2],
}

/// Kernels that were wrong together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    keys: Vec<Key>,
    /// Their names, joined.
    names: String,
    reason: String,
}

#[derive(Debug, Default)]
struct State {
    /// Texts of kernels, which take longer to make than to look up.
    texts: HashMap<KernelSpec, u128>,
    right: HashMap<Key, String>,
    wrong: Vec<Wrong>,
}

impl State {
    fn key(&mut self, spec: &KernelSpec, extent: [u32; 2]) -> Key {
        let text = match self.texts.get(spec) {
            Some(text) => *text,
            None => {
                let text = spec.fingerprint();
                self.texts.insert(spec.clone(), text);
                text
            }
        };
        // Only functions of the caller's own depend on the extent of its call.
        let extent = if spec.is_custom() { extent } else { [0; 2] };
        Key { text, extent }
    }
}

/// What is known of a list of kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Each was part of a right result.
    Right,
    /// All of some wrong set are among them.
    Wrong(Rejection),
    /// Not tried yet.
    Unknown,
}

/// The verdicts of one engine.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(Mutex<State>);

impl Verdicts {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of kernels that serve a call of this extent together.
    pub(crate) fn of(&self, kernels: &[&KernelSpec], extent: [u32; 2]) -> Verdict {
        let mut state = self.state();
        let keys: HashSet<Key> = kernels.iter().map(|spec| state.key(spec, extent)).collect();
        if let Some(wrong) = state.wrong.iter().find(|x| x.keys.iter().all(|k| keys.contains(k))) {
            let (candidate, reason) = (wrong.names.clone(), wrong.reason.clone());
            return Verdict::Wrong(Rejection { candidate, reason });
        }
        let right = keys.iter().all(|key| state.right.contains_key(key));
        if right { Verdict::Right } else { Verdict::Unknown }
    }

    /// What is known of a kernel by itself.
    pub(crate) fn alone(&self, kernel: &KernelSpec) -> Verdict {
        self.of(&[kernel], [0; 2])
    }

    /// These kernels gave a right result.
    pub(crate) fn set_right(&self, kernels: &[&KernelSpec], extent: [u32; 2]) {
        let mut state = self.state();
        for spec in kernels {
            let key = state.key(spec, extent);
            state.right.insert(key, spec.to_string());
        }
    }

    /// These kernels together gave a wrong result.
    pub(crate) fn set_wrong(&self, kernels: &[&KernelSpec], extent: [u32; 2], reason: String) {
        let mut state = self.state();
        let keys: Vec<Key> = kernels.iter().map(|spec| state.key(spec, extent)).collect();
        let names: Vec<String> = kernels.iter().map(ToString::to_string).collect();
        let wrong = Wrong { keys, names: names.join(" with "), reason };
        if !state.wrong.contains(&wrong) {
            state.wrong.push(wrong);
        }
    }

    /// Everything that is known, as text.
    pub(crate) fn saved(&self, caps: &Capabilities) -> String {
        let state = self.state();
        let key = |key: &Key| format!("{:032x}:{}x{}", key.text, key.extent[0], key.extent[1]);
        let mut lines = vec![FORMAT.to_owned()];
        lines.extend(device(caps));
        let mut right: Vec<_> = state.right.iter().collect();
        right.sort_unstable();
        lines.extend(right.iter().map(|(x, name)| format!("right {} {name}", key(x))));
        lines.extend(state.wrong.iter().map(|x| {
            let keys: Vec<String> = x.keys.iter().map(key).collect();
            // A line each, whatever a driver's message holds.
            let one = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("wrong {} {} | {}", keys.join("+"), x.names, one(&x.reason))
        }));
        lines.join("\n") + "\n"
    }

    /// Takes over what [`saved`](Self::saved) wrote on the same device; how many verdicts that were.
    pub(crate) fn restore(&self, saved: &str, caps: &Capabilities) -> Result<usize> {
        let mut lines = saved.lines();
        let first = lines.next().unwrap_or_default();
        if first != FORMAT {
            return Err(Error::invalid(
                "saved verdicts",
                format!("{first:?}"),
                format!("{FORMAT:?}"),
            ));
        }
        let of: Vec<&str> = lines.by_ref().take(device(caps).len()).collect();
        // A browser may say neither: then nothing tells this device from another.
        let nameless = caps.name.is_empty() && caps.driver.is_empty();
        if of != device(caps) || nameless {
            return Ok(0);
        }
        // All of it or nothing.
        let read: Result<Vec<Line>> = lines.map(Line::read).collect();
        let read = read?;
        let mut state = self.state();
        let count = read.len();
        for line in read {
            match line {
                Line::Right(key, name) => {
                    state.right.insert(key, name);
                }
                Line::Wrong(wrong) => {
                    if !state.wrong.contains(&wrong) {
                        state.wrong.push(wrong);
                    }
                }
            }
        }
        Ok(count)
    }
}

/// What a verdict holds for: this version of the kernels on this adapter under this driver.
fn device(caps: &Capabilities) -> [String; 4] {
    let one = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    [
        format!("version {}", env!("CARGO_PKG_VERSION")),
        format!("adapter {}", one(&caps.name)),
        format!("backend {}", one(&caps.backend)),
        format!("driver {}", one(&caps.driver)),
    ]
}

/// One saved verdict.
enum Line {
    Right(Key, String),
    Wrong(Wrong),
}

impl Line {
    fn read(line: &str) -> Result<Self> {
        let unread = || Error::invalid("saved verdicts", format!("{line:?}"), "a saved verdict");
        let (word, rest) = line.split_once(' ').ok_or_else(unread)?;
        let (keys, rest) = rest.split_once(' ').ok_or_else(unread)?;
        let keys: Option<Vec<Key>> = keys.split('+').map(Key::read).collect();
        let keys = keys.ok_or_else(unread)?;
        match (word, keys.as_slice()) {
            ("right", [key]) => Ok(Self::Right(*key, rest.to_owned())),
            ("wrong", _) => {
                let (names, reason) = rest.split_once(" | ").ok_or_else(unread)?;
                let (names, reason) = (names.to_owned(), reason.to_owned());
                Ok(Self::Wrong(Wrong { keys, names, reason }))
            }
            _ => Err(unread()),
        }
    }
}

impl Key {
    fn read(text: &str) -> Option<Self> {
        let (text, extent) = text.split_once(':')?;
        let (rows, keys) = extent.split_once('x')?;
        let text = u128::from_str_radix(text, 16).ok()?;
        Some(Self { text, extent: [rows.parse().ok()?, keys.parse().ok()?] })
    }
}
