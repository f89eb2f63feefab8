//! Runs the built binary, and writes arrays as numpy writes them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own for a test, with everything the test writes.
pub struct Bench {
    pub folder: PathBuf,
}

impl Bench {
    pub fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs `heedful` in the folder.
    pub fn heedful(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_heedful"))
            .args(args)
            .current_dir(&self.folder)
            // Mesa complains on stderr where there is none.
            .env("XDG_RUNTIME_DIR", &self.folder)
            .output()
            .unwrap()
    }

    /// Writes an array: `dtype` as numpy names it, raw little-endian data.
    pub fn npy(&self, name: &str, dtype: &str, fortran: bool, shape: &[usize], data: &[u8]) {
        let axes: String = shape.iter().map(|n| format!("{n}, ")).collect();
        let order = if fortran { "True" } else { "False" };
        let header =
            format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': ({axes}), }}");
        let size = (10 + header.len() + 1).next_multiple_of(64) - 10;
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((size as u16).to_le_bytes());
        bytes.extend(format!("{header:<width$}\n", width = size - 1).bytes());
        bytes.extend(data);
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn f32s(&self, name: &str, shape: &[usize], seed: u32) {
        let n: usize = shape.iter().product();
        let data: Vec<u8> = wave(n, seed).iter().flat_map(|x| x.to_le_bytes()).collect();
        self.npy(name, "<f4", false, shape, &data);
    }

    pub fn bools(&self, name: &str, shape: &[usize]) {
        let n: usize = shape.iter().product();
        let data: Vec<u8> = (0..n).map(|i| u8::from(i % 5 != 3)).collect();
        self.npy(name, "|b1", false, shape, &data);
    }

    pub fn integers(&self, name: &str, values: &[i64]) {
        let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.npy(name, "<i8", false, &[values.len()], &data);
    }

    /// The shape of a written array.
    pub fn shape(&self, name: &str) -> Vec<u64> {
        heedful::verify::npy::read(&self.path(name)).unwrap().shape
    }
}

pub fn wave(n: usize, seed: u32) -> Vec<f32> {
    (0..n).map(|i| ((i as f32 + 1.0) * (0.7 + seed as f32 * 0.31)).sin()).collect()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether there is an adapter; without one the reference serves, and `REQUIRE_GPU=1` makes that a
/// failure.
pub fn has_adapter(test: &str) -> bool {
    let found = !pollster::block_on(heedful::device::adapters()).is_empty();
    let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
    assert!(found || !required, "{test}: REQUIRE_GPU=1 and there is no adapter");
    if !found {
        println!("SKIPPED {test}: no adapter");
    }
    found
}

pub fn golden(suite: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(suite);
    root.to_string_lossy().into_owned()
}
