//! Timing on a device: repeated runs within a time budget, and what clock they were read from.
//!
//! Where the device has timestamps, a run is the time between the ends of its compute pass; elsewhere it
//! is the wall time of a submission of several runs, divided by their number, so that the cost of
//! submitting and waiting is spread. Short runs are submitted together either way: waited for one by
//! one, runs of the same kernel took one H200 up to four times as long (0.29 and 0.07 ms). Its clocks may have
//! sunk between them; they were not read.

use std::time::{Duration, Instant};

use crate::device::{Readback, Wait, create_buffer};
use crate::engine::{Bound, BoundBackward, Engine, Matmul, Uploaded, UploadedBackward};
use crate::error::{Error, Result};
use crate::plan::{BackwardPlan, Plan};
use crate::reference::{Incoming, Inputs};

/// Where times come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Clock {
    /// Timestamps that the device wrote at both ends of the pass.
    Gpu,
    /// The host's clock around submit and wait.
    Wall,
}

/// Times of repeated runs, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Measurement {
    /// Median.
    pub median_ms: f64,
    /// Fastest.
    pub min_ms: f64,
    /// Median of the distances from the median.
    pub spread_ms: f64,
    /// Runs.
    pub runs: usize,
    /// Where the times come from.
    pub clock: Clock,
}

/// Which tensors the runs of a measurement read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Buffers {
    /// Each run another copy, [`ROTATED_BYTES`] of them in all: no cache holds the inputs, as in an application
    /// that does other work between two calls.
    Rotated,
    /// The same in every run: caches hold what fits them.
    Same,
}

impl Buffers {
    /// Copies of tensors of so many bytes.
    fn copies(self, bytes: u64) -> u64 {
        match self {
            Self::Rotated => (ROTATED_BYTES / bytes.max(1)).clamp(1, MOST_COPIES),
            Self::Same => 1,
        }
    }
}

/// Bytes that copies of a call's tensors take together, more than last-level caches hold.
pub const ROTATED_BYTES: u64 = 192 << 20;

/// Shortest warm-up of hardware: one H200 took up to twice as long over kernels that followed a pause of a
/// second. That this is long enough is not measured.
const RAMP: Duration = Duration::from_millis(300);

/// Most runs of one submission.
const MOST_TOGETHER: usize = 32;

/// Bytes of their timestamps, two of 8 each.
const TIMESTAMP_BYTES: u64 = 16 * MOST_TOGETHER as u64;

/// Most copies: a bind group and tables for each.
const MOST_COPIES: u64 = 48;

/// Times a call on host data, whose tensors stay on the device from run to run; with the dispatches of a run.
///
/// # Errors
/// As [`Engine::run_host`].
pub fn measure_host(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    buffers: Buffers,
    budget: Duration,
) -> Result<(Measurement, usize)> {
    let copies = buffers.copies(plan.problem().min_bytes(&inputs.operands));
    let mut uploaded = vec![Uploaded::new(engine, plan, inputs)?];
    for _ in 1..copies {
        uploaded.push(uploaded[0].copied(engine)?);
    }
    let bound: Result<Vec<Bound>> = uploaded.iter().map(|x| x.bind(engine, plan, inputs)).collect();
    let bound = bound?;
    Ok((measure(engine, &bound, budget)?, bound[0].dispatch_count()))
}

/// Times gradients on host data in the same way.
///
/// # Errors
/// As [`Engine::run_backward_host`].
pub fn measure_backward_host(
    engine: &Engine,
    plan: &BackwardPlan,
    inputs: &Inputs<'_>,
    incoming: &Incoming<'_>,
    buffers: Buffers,
    budget: Duration,
) -> Result<(Measurement, usize)> {
    let copies = buffers.copies(plan.problem().min_bytes(&inputs.operands));
    let outputs = pollster::block_on(engine.outputs_for(plan, inputs, Wait::Blocking))?;
    let first = UploadedBackward::new(engine, plan, inputs, incoming, outputs.as_ref())?;
    let mut uploaded = vec![first];
    for _ in 1..copies {
        uploaded.push(uploaded[0].copied(engine)?);
    }
    let bound: Result<Vec<BoundBackward>> =
        uploaded.iter().map(|x| x.bind(engine, plan, inputs, None)).collect();
    let bound = bound?;
    let time = repeat(engine, budget, &|run, encoder, timestamps| {
        let bound = &bound[run % bound.len()];
        match timestamps {
            Some(timestamps) => bound.encode_timed(encoder, timestamps),
            None => bound.encode(encoder),
        }
    })?;
    Ok((time, bound[0].dispatch_count()))
}

/// Times bound calls, which take turns: at least 3 runs (2 of those that take seconds), then until `budget` is
/// spent, at most 1000.
///
/// # Errors
/// Invalid argument when there are none; device lost, out of memory, internal.
pub fn measure(engine: &Engine, bound: &[Bound], budget: Duration) -> Result<Measurement> {
    if bound.is_empty() {
        return Err(Error::invalid("bound", "no call", "at least one"));
    }
    repeat(engine, budget, &|run, encoder, timestamps| {
        let bound = &bound[run % bound.len()];
        match timestamps {
            Some(timestamps) => bound.encode_timed(encoder, timestamps),
            None => bound.encode(encoder),
        }
    })
}

/// Times the plain matrix product that attention is measured against.
///
/// # Errors
/// Device lost, out of memory, internal.
pub fn measure_matmul(engine: &Engine, matmul: &Matmul, budget: Duration) -> Result<Measurement> {
    repeat(engine, budget, &|_, encoder, timestamps| matmul.encode(encoder, timestamps))
}

/// Records one run; its number comes first.
pub(super) type Encode<'a> =
    dyn Fn(usize, &mut wgpu::CommandEncoder, Option<wgpu::ComputePassTimestampWrites<'_>>) + 'a;

pub(super) fn repeat(
    engine: &Engine,
    budget: Duration,
    encode: &Encode<'_>,
) -> Result<Measurement> {
    let timer = Timer::new(engine)?;
    // Warms caches and clocks, and says how long a run is.
    let warm = Instant::now();
    let mut run = 1;
    let mut last = timer.wall(engine, encode, 0, 1)?;
    let together = |last: f64| (0.005 / last.max(1e-6)).clamp(1.0, MOST_TOGETHER as f64) as usize;
    let cpu = engine.capabilities().device_type == "cpu";
    let least = budget / 4;
    let least = if cpu { least } else { least.max(RAMP) };
    while last < 1.0 && (run < 3 || warm.elapsed() < least) {
        let batch = together(last);
        last = timer.wall(engine, encode, run, batch)?;
        run += batch;
    }
    let batch = together(last);
    let least = if last > 2.0 { 2 } else { 3 };
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < least || (start.elapsed() < budget && times.len() < 1000) {
        match &timer.queries {
            Some(queries) => times.extend(timer.gpu(engine, encode, run, batch, queries)?),
            None => times.push(timer.wall(engine, encode, run, batch)?),
        }
        run += batch;
    }
    let clock = if timer.queries.is_some() { Clock::Gpu } else { Clock::Wall };
    Ok(summary(times, clock))
}

/// Waits for everything submitted.
pub(super) fn wait(engine: &Engine) -> Result<()> {
    let polled = engine.device().poll(wgpu::PollType::wait_indefinitely());
    polled.map(|_| ()).map_err(|e| Error::device_lost("timing", e.to_string()))
}

fn summary(mut seconds: Vec<f64>, clock: Clock) -> Measurement {
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let middle = median(&mut seconds);
    let fastest = seconds.first().copied().unwrap_or(0.0);
    let mut distances: Vec<f64> = seconds.iter().map(|t| (t - middle).abs()).collect();
    Measurement {
        median_ms: middle * 1e3,
        min_ms: fastest * 1e3,
        spread_ms: median(&mut distances) * 1e3,
        runs: seconds.len(),
        clock,
    }
}

/// Query set and buffer of the timestamps at both ends of each pass, where the device has them.
struct Timer {
    queries: Option<(wgpu::QuerySet, wgpu::Buffer)>,
}

impl Timer {
    fn new(engine: &Engine) -> Result<Self> {
        if !engine.capabilities().timestamps {
            return Ok(Self { queries: None });
        }
        let set = engine.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("bench"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * MOST_TOGETHER as u32,
        });
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let buffer = create_buffer(engine.device(), "timestamps", TIMESTAMP_BYTES, usage)?;
        Ok(Self { queries: Some((set, buffer)) })
    }

    /// Seconds of each of `batch` runs of one submission, between the device's timestamps.
    fn gpu(
        &self,
        engine: &Engine,
        encode: &Encode<'_>,
        run: usize,
        batch: usize,
        (set, buffer): &(wgpu::QuerySet, wgpu::Buffer),
    ) -> Result<Vec<f64>> {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        for i in 0..batch {
            let timestamps = wgpu::ComputePassTimestampWrites {
                query_set: set,
                beginning_of_pass_write_index: Some(2 * i as u32),
                end_of_pass_write_index: Some(2 * i as u32 + 1),
            };
            encode(run + i, &mut encoder, Some(timestamps));
        }
        encoder.resolve_query_set(set, 0..2 * batch as u32, buffer, 0);
        let bytes = 16 * batch as u64;
        let readback = Readback::record(engine.device(), &mut encoder, buffer, 0, bytes)?;
        engine.queue().submit([encoder.finish()]);
        let bytes = readback.read_blocking()?;
        let ticks: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|b| b.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
            .collect();
        if ticks.len() != 2 * batch {
            return Err(Error::internal("timing", "timestamps did not come back"));
        }
        let period = f64::from(engine.queue().get_timestamp_period());
        let seconds = |ends: &[u64]| ends[1].saturating_sub(ends[0]) as f64 * period * 1e-9;
        Ok(ticks.chunks_exact(2).map(seconds).collect())
    }

    /// Seconds of one run by the host's clock, from `batch` runs in one submission.
    fn wall(&self, engine: &Engine, encode: &Encode<'_>, run: usize, batch: usize) -> Result<f64> {
        let start = Instant::now();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        for i in 0..batch {
            encode(run + i, &mut encoder, None);
        }
        engine.queue().submit([encoder.finish()]);
        wait(engine)?;
        Ok(start.elapsed().as_secs_f64() / batch as f64)
    }
}
