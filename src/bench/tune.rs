//! The search for tile shapes: every feasible one is proved right, timed, and held against the one that ships.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bench::measure::{Buffers, measure_host};
use crate::engine::Engine;
use crate::error::Result;
use crate::kernel::{Kernel, Repeats};
use crate::plan::tuning::{self, Class, FusedRow, MatrixRow, SplitRow, TileRow, Tuning, class};
use crate::plan::{Capabilities, Path, Plan, Policy};
use crate::problem::{Attention, Problem};
use crate::tensor::{DType, Shape};
use crate::verify::data::{CaseData, DataOptions, Lengths};
use crate::verify::truth::Truth;

/// How much faster than the shape that ships a shape must be to replace it.
const GAIN: f64 = 0.97;

/// Longest compilation of a kernel, seconds: above it a faster shape is not worth its wait.
const MAX_FIRST_USE: f64 = 1.5;

/// A tile shape to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// Of a fused kernel.
    Fused(FusedRow),
    /// Of the tile kernel.
    Tile(TileRow),
    /// Of the split kernel.
    Split(SplitRow),
    /// Of the kernel for matrix units.
    Matrix(MatrixRow),
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Trial {
    /// Right: median milliseconds, and seconds to compile.
    Timed(f64, f64),
    /// Refused by the planner or the driver, wrong, or too slow to compile.
    Refused(String),
}

/// One thing to tune: a kernel at a head dimension.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it is called in a table.
    pub name: String,
    /// The call that is timed.
    pub attention: Attention,
    /// Every shape to try.
    pub candidates: Vec<Candidate>,
    path: Path,
    kernel: Kernel,
    subgroups: bool,
}

impl Candidate {
    /// The table that has only this shape.
    fn table(&self) -> Tuning {
        match self {
            Self::Fused(row) => Tuning { fused: vec![row.clone()], ..Tuning::default() },
            Self::Tile(row) => Tuning { tile: vec![row.clone()], ..Tuning::default() },
            Self::Split(row) => Tuning { split: vec![row.clone()], ..Tuning::default() },
            Self::Matrix(row) => Tuning { matrix: vec![row.clone()], ..Tuning::default() },
        }
    }
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fused(row) => write!(f, "{} rows, {} lanes", row.rows, row.lanes),
            Self::Tile(TileRow { down, across, keys, repeats, .. }) => {
                let form = match repeats {
                    Repeats::Written => "written out",
                    Repeats::Loops => "loops",
                    Repeats::Eights => "loops of eight",
                };
                write!(f, "{down} by {across} invocations, {keys} keys, {form}")
            }
            Self::Split(row) => {
                let SplitRow { rows, lanes, keys, key_lanes, .. } = row;
                write!(f, "{rows} rows, {lanes} lanes, {keys} keys, {key_lanes} to a key")
            }
            Self::Matrix(MatrixRow { teams, blocks, keys, unrolled, .. }) => {
                let form = if *unrolled { "written out" } else { "loops" };
                write!(f, "{teams} teams, {blocks} blocks, {keys} keys, {form}")
            }
        }
    }
}

impl Target {
    /// The fused kernels, with and without subgroups, the split kernel, and the one for matrix units where the engine
    /// has some, at a head dimension. A software adapter gets shorter sequences.
    pub fn all(engine: &Engine, dim: u32) -> Vec<Self> {
        let caps = engine.capabilities();
        let software = caps.device_type == "cpu";
        let (rows, keys) = if software { (512, 4096) } else { (4096, 16384) };
        let heads = if software { 8 } else { 16 };
        let square = Attention::new(Shape::self_attention(1, heads, rows, dim));
        let decode = Shape { heads_q: 4 * heads, seq_q: 1, seq_kv: keys, ..square.shape };
        let device = short_name(&caps.driver);
        let fused = |subgroup| fused_candidates(caps, dim, &device, subgroup);
        let target = |kernel: Kernel, attention: Attention, path, candidates| {
            let subgroups = kernel == Kernel::FusedForwardSubgroup;
            let name = format!("{}, dim {dim}", kernel.name());
            Self { name, attention, candidates, path, kernel, subgroups }
        };
        let tile = target(
            Kernel::FusedForwardTile,
            square.clone(),
            Path::FusedTile,
            tile_candidates(caps, dim, &device),
        );
        let portable = target(Kernel::FusedForward, square.clone(), Path::Fused, fused(false));
        let mut targets = vec![tile, portable];
        if caps.subgroups && caps.subgroup_size[0] >= 4 {
            let attention = square.clone();
            targets.push(target(Kernel::FusedForwardSubgroup, attention, Path::Fused, fused(true)));
        }
        targets.push(target(
            Kernel::SplitForward,
            Attention::new(decode),
            Path::Split,
            split_candidates(caps, dim, &device),
        ));
        let matrix = matrix_candidates(caps, &square.shape, &device);
        if !matrix.is_empty() {
            let (half, path) = (square.dtype(DType::F16), Path::FusedMatrix);
            targets.push(target(Kernel::FusedForwardMatrix, half, path, matrix));
        }
        targets
    }

    /// Proves and times the shape that ships (`None`) or a candidate.
    ///
    /// # Errors
    /// Device lost, out of memory.
    pub fn attempt(
        &self,
        engine: &Engine,
        candidate: Option<&Candidate>,
        given: &Given,
        budget: Duration,
    ) -> Result<Trial> {
        let tuning = candidate.map(|x| Arc::new(x.table()));
        let policy = Policy { path: self.path, tuning, ..Policy::default() };
        let refused = |reason: String| Ok(Trial::Refused(reason));
        let mut caps = engine.capabilities().clone();
        caps.subgroups &= self.subgroups;
        let plan = match Plan::new(&self.attention.validate()?, &caps, &policy) {
            Err(error) if error.is_unsupported() => return refused(error.to_string()),
            plan => plan?,
        };
        let serves = plan.kernels().iter().any(|spec| spec.kernel == self.kernel);
        if let Some(rejection) = plan.rejections().first().filter(|_| !serves) {
            return refused(rejection.reason.clone());
        }
        let start = Instant::now();
        match engine.prepare(&plan) {
            Err(error) if error.is_internal() => return refused(error.to_string()),
            prepared => prepared?,
        }
        let first_use = start.elapsed().as_secs_f64();
        if first_use > MAX_FIRST_USE {
            return refused(format!("{first_use:.1} s to compile"));
        }
        let found = engine.run_host(&plan, &given.data.inputs())?;
        let comparison = given.truth.check_o(&found.o);
        if !comparison.pass {
            return refused(comparison.message());
        }
        let (time, _) = measure_host(engine, &plan, &given.data.inputs(), Buffers::Same, budget)?;
        Ok(Trial::Timed(time.median_ms, first_use))
    }

    /// The best candidate, where it is enough faster than the shape that ships.
    pub fn winner<'a>(
        &'a self,
        shipped: &Trial,
        trials: &[(&'a Candidate, Trial)],
    ) -> Option<(&'a Candidate, f64)> {
        let timed = trials.iter().filter_map(|(candidate, trial)| match trial {
            Trial::Timed(ms, _) => Some((*candidate, *ms)),
            Trial::Refused(_) => None,
        });
        let best = timed.min_by(|a, b| a.1.total_cmp(&b.1))?;
        match shipped {
            Trial::Timed(ms, _) => (best.1 < ms * GAIN).then_some(best),
            Trial::Refused(_) => Some(best),
        }
    }
}

fn fused_candidates(caps: &Capabilities, dim: u32, device: &str, subgroup: bool) -> Vec<Candidate> {
    let (class, max_dim) = (class(caps), dim);
    let shapes = [1, 2, 4].into_iter().flat_map(|r| [8, 16, 32, 64, 128].map(|l| (r, l)));
    let row = |(rows, lanes)| {
        let device = Cow::Owned(device.to_owned());
        Candidate::Fused(FusedRow { class, device, max_dim, subgroup, rows, lanes })
    };
    shapes.map(row).collect()
}

fn split_candidates(caps: &Capabilities, dim: u32, device: &str) -> Vec<Candidate> {
    let (class, max_dim) = (class(caps), dim);
    let rows = [1, 2, 4].into_iter();
    let lanes = rows.flat_map(|r| [8, 32, 64, 128, 256].map(|l| (r, l)));
    let keys = lanes.flat_map(|(r, l)| [64, 128].map(|k| (r, l, k)));
    // Lanes of a vector of a CPU share nothing.
    let side: &[u32] = if class == Class::Software { &[1] } else { &[1, 4, 8, 16] };
    let shapes = keys.flat_map(|(r, l, k)| side.iter().map(move |s| (r, l, k, *s)));
    let shapes = shapes.filter(|(_, l, k, s)| k * s >= *l);
    let row = |(rows, lanes, keys, key_lanes)| {
        let device = Cow::Owned(device.to_owned());
        Candidate::Split(SplitRow { class, device, max_dim, rows, lanes, keys, key_lanes })
    };
    shapes.map(row).collect()
}

fn tile_candidates(caps: &Capabilities, dim: u32, device: &str) -> Vec<Candidate> {
    let (class, max_dim) = (class(caps), dim);
    let grids = [8, 16].into_iter().flat_map(|down| [8, 16].map(|across| [down, across]));
    let shapes = grids.flat_map(|[down, across]| [64, 128].map(|keys| [down, across, keys]));
    // Loops are for software drivers, written out they compile for seconds there.
    let software = class == Class::Software;
    let form = if software { Repeats::Loops } else { Repeats::Written };
    let eights = [[16, 16, 64], [8, 32, 128]].map(|shape| (shape, Repeats::Eights));
    let shapes = shapes.map(|shape| (shape, form));
    let row = |([down, across, keys], repeats): ([u32; 3], Repeats)| {
        let device = Cow::Owned(device.to_owned());
        Candidate::Tile(TileRow { class, device, max_dim, down, across, keys, repeats })
    };
    shapes.chain(eights.into_iter().filter(|_| !software)).map(row).collect()
}

/// Shapes for matrix units that come out as different tiles on a device; none where it has no units.
fn matrix_candidates(caps: &Capabilities, shape: &Shape, device: &str) -> Vec<Candidate> {
    let Some(edge) = caps.matrix_edge() else { return Vec::new() };
    let (class, max_dim) = (class(caps), shape.dim_qk);
    let shapes = [2, 4, 8].into_iter().flat_map(|teams| [1, 2].map(|blocks| (teams, blocks)));
    let shapes = shapes.flat_map(|(teams, blocks)| [16, 32].map(|keys| (teams, blocks, keys)));
    let mut tiles = Vec::new();
    let mut candidates = Vec::new();
    for ((teams, blocks, keys), unrolled) in
        shapes.flat_map(|shape| [true, false].map(|unrolled| (shape, unrolled)))
    {
        let device = Cow::Owned(device.to_owned());
        let row = MatrixRow { class, device, edge, max_dim, teams, blocks, keys, unrolled };
        let candidate = Candidate::Matrix(row);
        // What a device can't hold is cut, down to a shape that is tried already.
        let tile = tuning::matrix_tile(caps, shape, Some(&candidate.table()));
        if tile.is_some_and(|tile| !tiles.contains(&tile)) {
            tiles.extend(tile);
            candidates.push(candidate);
        }
    }
    candidates
}

/// The tensors of a target and what they should yield.
#[derive(Debug)]
pub struct Given {
    data: CaseData,
    truth: Truth,
}

impl Given {
    /// Draws them and runs the reference.
    ///
    /// # Errors
    /// Invalid argument when the call is not valid.
    pub fn new(target: &Target) -> Result<Self> {
        let problem: Problem = target.attention.validate()?;
        let options = DataOptions { lengths: Lengths::Full, ..DataOptions::default() };
        let data = CaseData::generate(&problem, 1, &options);
        let measure =
            if target.path.is_matrix() { Truth::measure_on_matrix_units } else { Truth::measure };
        let truth = measure(&problem, &data.inputs())?;
        Ok(Self { data, truth })
    }
}

/// What tells a driver's generation from others: up to the second number of its version.
fn short_name(driver: &str) -> String {
    let driver = driver.split(" (").next().unwrap_or(driver).trim();
    let mut dots = 0;
    let end = driver.char_indices().find(|(_, c)| {
        dots += usize::from(*c == '.');
        dots == 2
    });
    driver[..end.map_or(driver.len(), |(i, _)| i)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Candidate, matrix_candidates, short_name};
    use crate::plan::tuning::matrix_tile;
    use crate::plan::{Capabilities, MatrixUnit};
    use crate::tensor::{DType, Shape};

    #[test]
    fn drivers_are_named_by_generation() {
        assert_eq!(short_name("llvmpipe Mesa 22.3.6 (LLVM 15.0.6)"), "llvmpipe Mesa 22.3");
        assert_eq!(short_name("NVIDIA 570.12"), "NVIDIA 570.12");
        assert_eq!(short_name(""), "");
    }

    #[test]
    fn shapes_for_matrix_units_are_few_and_none_is_tried_twice() {
        let shape = Shape::self_attention(1, 8, 4096, 64);
        let mut caps = Capabilities { subgroup_size: [32, 32], ..Capabilities::default() };
        assert!(matrix_candidates(&caps, &shape, "").is_empty());
        for (edge, team) in [(8, 8), (8, 32), (16, 32), (16, 64)] {
            let (operands, sums) = (DType::F16, DType::F32);
            caps.matrix_units = vec![MatrixUnit { size: [edge; 3], operands, sums }];
            caps.subgroup_size = [team; 2];
            caps.max_workgroup_bytes = 48 << 10;
            let candidates = matrix_candidates(&caps, &shape, "");
            assert!((2..=24).contains(&candidates.len()), "{edge} {team}: {candidates:?}");
            let table = |x: &Candidate| {
                let table = x.table();
                table.validate().expect("a valid row");
                matrix_tile(&caps, &shape, Some(&table)).expect("a tile")
            };
            let tiles: Vec<_> = candidates.iter().map(table).collect();
            let again = |i: usize| tiles[..i].contains(&tiles[i]);
            assert!(!(0..tiles.len()).any(again), "{tiles:?}");
        }
    }
}
