//! Running the binary, and arrays in the exact bytes that numpy writes.
#![allow(dead_code, reason = "each test binary uses a part")]

#[path = "../../../tests/common/skip.rs"]
pub(crate) mod skip;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder of arrays that the binary runs in.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("a writable temporary folder");
    }

    /// Names of the files there are, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the temporary folder");
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Runs `heedful` with arguments that are separated by blanks, in this folder.
    pub(crate) fn heedful(&self, arguments: &str) -> Finished {
        heedful(self.folder.path(), arguments)
    }
}

/// Runs `heedful` in a folder.
pub(crate) fn heedful(folder: &Path, arguments: &str) -> Finished {
    heedful_with(folder, arguments, &[])
}

/// The variable that leaves a run without adapters on any machine.
pub(crate) const NO_ADAPTER: (&str, &str) = ("WGPU_BACKEND", "noop");

/// Runs `heedful` in a folder with variables of its own.
pub(crate) fn heedful_with(folder: &Path, arguments: &str, given: &[(&str, &str)]) -> Finished {
    // Some drivers complain on stderr about a missing runtime folder; any folder will do.
    let runtime = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(env!("CARGO_BIN_EXE_heedful"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env("NO_COLOR", "1")
        .envs(given.iter().copied())
        .output()
        .expect("the binary starts");
    Finished { arguments: arguments.to_owned(), output }
}

/// The folder of the whole repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above").to_owned()
}

/// Whether there is an adapter. Without one the test says why it is skipped, and fails when
/// `REQUIRE_GPU=1`.
pub(crate) fn adapter(test: &str) -> bool {
    let found = heedful(&repository(), "info --json -");
    if found.json().as_array().is_some_and(|all| !all.is_empty()) {
        return true;
    }
    let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
    assert!(!required, "{test}: REQUIRE_GPU=1 and no adapter");
    skip::skipped(test, "no adapter");
    false
}

/// What a run of the binary left.
pub(crate) struct Finished {
    arguments: String,
    output: Output,
}

impl Finished {
    pub(crate) fn status(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Standard error, without the lines that say how long a step takes: that is the machine's affair.
    pub(crate) fn stderr(&self) -> String {
        let text = String::from_utf8_lossy(&self.output.stderr);
        text.split_inclusive('\n').filter(|line| !line.ends_with(" s so far\n")).collect()
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        let text = self.stdout();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}: {text}", self.arguments))
    }

    /// Done and right: status 0 and nothing on stderr.
    pub(crate) fn succeeded(self) -> Self {
        let why = format!("{}\n{}{}", self.arguments, self.stdout(), self.stderr());
        assert_eq!(self.status(), Some(0), "{why}");
        assert_eq!(self.stderr(), "", "{why}");
        self
    }

    /// The given status, and one line on stderr that says every one of `words`.
    pub(crate) fn refused(self, status: i32, words: &[&str]) -> Self {
        let (arguments, stderr) = (&self.arguments, self.stderr());
        assert_eq!(self.status(), Some(status), "{arguments}: {stderr}");
        assert!(stderr.starts_with("heedful: "), "{arguments}: {stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{arguments}: {stderr}");
        assert!(stderr.ends_with('\n'), "{arguments}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments}: {stderr:?} does not say {word:?}");
        }
        self
    }
}

/// How an array lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    C,
    Fortran,
}

/// A `.npy` file as numpy writes it: version 1.0, header padded with blanks to 64 bytes.
pub(crate) fn npy(dtype: &str, order: Order, shape: &[usize], values: &[f64]) -> Vec<u8> {
    let axes = match shape {
        [n] => format!("({n},)"),
        _ => {
            let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
            format!("({})", axes.join(", "))
        }
    };
    let fortran = if order == Order::Fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {axes}, }}");
    let size = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((size as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = size - 1).as_bytes());
    assert_eq!(values.len(), shape.iter().product::<usize>(), "{shape:?}");
    for i in 0..values.len() {
        let x = values[if order == Order::Fortran { c_index(i, shape) } else { i }];
        match dtype {
            "<f4" => bytes.extend((x as f32).to_le_bytes()),
            "<f8" => bytes.extend(x.to_le_bytes()),
            "<f2" => bytes.extend(half::f16::from_f64(x).to_le_bytes()),
            "<i8" => bytes.extend((x as i64).to_le_bytes()),
            "|b1" => bytes.push(u8::from(x != 0.0)),
            other => panic!("no dtype {other}"),
        }
    }
    bytes
}

/// Index in C order of the i-th element in Fortran order.
fn c_index(mut i: usize, shape: &[usize]) -> usize {
    let (mut index, mut step) = (0, shape.iter().product::<usize>());
    for n in shape {
        step /= n;
        index += i % n * step;
        i /= n;
    }
    index
}

/// Numbers between −1 and 1 that repeat late and look like no pattern of a kernel.
pub(crate) fn numbers(n: usize, seed: usize) -> Vec<f64> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f64 / 1001.0 - 1.0;
    // f16 values, so that every dtype stores the same numbers.
    (0..n).map(|i| half::f16::from_f64(value(i)).to_f64()).collect()
}

/// q `[2, 4, 9, 8]`, k `[2, 2, 13, 8]`, v `[2, 2, 13, 6]` and everything that goes with them.
pub(crate) fn arrays() -> Place {
    let place = Place::new();
    let array = |name: &str, dtype: &str, shape: &[usize], values: Vec<f64>| {
        place.write(name, npy(dtype, Order::C, shape, &values));
    };
    let random = |name: &str, shape: &[usize], seed: usize| {
        array(name, "<f4", shape, numbers(shape.iter().product(), seed));
    };
    random("q.npy", &[2, 4, 9, 8], 1);
    random("k.npy", &[2, 2, 13, 8], 2);
    random("v.npy", &[2, 2, 13, 6], 3);
    random("bias.npy", &[4, 9, 13], 4);
    random("sinks.npy", &[4], 5);
    random("past_k.npy", &[2, 2, 5, 8], 6);
    random("past_v.npy", &[2, 2, 5, 6], 7);
    array("slopes.npy", "<f8", &[4], vec![0.5, 0.25, 0.125, 0.0625]);
    array("kv_lengths.npy", "<i8", &[2], vec![7.0, 13.0]);
    array("q_lengths.npy", "<i8", &[2], vec![9.0, 3.0]);
    let keep = |i: usize| f64::from(u8::from(i % 5 != 3));
    array("mask.npy", "|b1", &[2, 1, 9, 13], (0..234).map(keep).collect());
    array("key_mask.npy", "|b1", &[2, 1, 1, 13], (0..26).map(keep).collect());
    place
}

pub(crate) const QKV: &str = "run --q q.npy --k k.npy --v v.npy";
