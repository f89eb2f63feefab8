//! Timing on a device: repeated runs within a time budget, and what clock they were read from.
//!
//! Where the device has timestamps, a run is the time between the ends of its compute pass; elsewhere it
//! is the wall time of a submission of several runs, divided by their number, so that the cost of
//! submitting and waiting is spread. Short runs are submitted together either way: waited for one by
//! one, runs of the same kernel took one H200 up to four times as long (0.29 and 0.07 ms). Its clocks may have
//! sunk between them; they were not read. Browsers round timestamps to 0.1 ms, so there wall times of longer
//! submissions are taken.

use std::ops::Range;
use std::time::Duration;

use web_time::Instant;

use crate::device::{Readback, Wait, create_buffer, finished};
use crate::engine::{Bound, Engine, Uploaded};
#[cfg(not(target_arch = "wasm32"))]
use crate::engine::{BoundBackward, Matmul, UploadedBackward};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::reference::Inputs;
#[cfg(not(target_arch = "wasm32"))]
use crate::{plan::BackwardPlan, reference::Incoming};

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

/// Most runs of one submission, and about how many seconds they take together. A browser's clock has steps of up to
/// 0.1 ms, and waiting for a submission takes it a millisecond or more.
const MOST_TOGETHER: usize = if cfg!(target_arch = "wasm32") { 256 } else { 32 };
const TOGETHER: f64 = if cfg!(target_arch = "wasm32") { 0.05 } else { 0.005 };

/// Bytes of their timestamps, two of 8 each.
const TIMESTAMP_BYTES: u64 = 16 * MOST_TOGETHER as u64;

/// Most copies: a bind group and tables for each.
const MOST_COPIES: u64 = 48;

/// Times a call on host data, whose tensors stay on the device from run to run; with the dispatches of a run.
///
/// # Errors
/// As [`Engine::run_host`].
#[cfg(not(target_arch = "wasm32"))]
pub fn measure_host(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    buffers: Buffers,
    budget: Duration,
) -> Result<(Measurement, usize)> {
    pollster::block_on(measure_host_in(engine, plan, inputs, buffers, budget, Wait::Blocking))
}

/// `measure_host` without blocking the thread.
///
/// # Errors
/// As `measure_host`.
pub async fn measure_host_async(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    buffers: Buffers,
    budget: Duration,
) -> Result<(Measurement, usize)> {
    measure_host_in(engine, plan, inputs, buffers, budget, Wait::Awaiting).await
}

async fn measure_host_in(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    buffers: Buffers,
    budget: Duration,
    wait: Wait,
) -> Result<(Measurement, usize)> {
    let copies = buffers.copies(plan.problem().min_bytes(&inputs.operands));
    let mut uploaded = vec![Uploaded::new(engine, plan, inputs)?];
    for _ in 1..copies {
        uploaded.push(uploaded[0].copied(engine)?);
    }
    let bound: Result<Vec<Bound>> = uploaded.iter().map(|x| x.bind(engine, plan, inputs)).collect();
    let bound = bound?;
    Ok((measure_in(engine, &bound, budget, wait).await?, bound[0].dispatch_count()))
}

/// Times gradients on host data in the same way.
///
/// # Errors
/// As [`Engine::run_backward_host`].
#[cfg(not(target_arch = "wasm32"))]
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
    let encode: &Encode<'_> = &|run, encoder, timestamps| {
        let bound = &bound[run % bound.len()];
        match timestamps {
            Some(timestamps) => bound.encode_timed(encoder, timestamps),
            None => bound.encode(encoder),
        }
    };
    let time = pollster::block_on(repeat(engine, budget, encode, Wait::Blocking))?;
    Ok((time, bound[0].dispatch_count()))
}

/// Times bound calls, which take turns: at least 3 runs (2 of those that take seconds), then until `budget` is
/// spent, at most 1000.
///
/// # Errors
/// Invalid argument when there are none; device lost, out of memory, internal.
#[cfg(not(target_arch = "wasm32"))]
pub fn measure(engine: &Engine, bound: &[Bound], budget: Duration) -> Result<Measurement> {
    pollster::block_on(measure_in(engine, bound, budget, Wait::Blocking))
}

async fn measure_in(
    engine: &Engine,
    bound: &[Bound],
    budget: Duration,
    wait: Wait,
) -> Result<Measurement> {
    if bound.is_empty() {
        return Err(Error::invalid("bound", "no call", "at least one"));
    }
    let encode: &Encode<'_> = &|run, encoder, timestamps| {
        let bound = &bound[run % bound.len()];
        match timestamps {
            Some(timestamps) => bound.encode_timed(encoder, timestamps),
            None => bound.encode(encoder),
        }
    };
    repeat(engine, budget, encode, wait).await
}

/// Times the plain matrix product that attention is measured against.
///
/// # Errors
/// Device lost, out of memory, internal.
#[cfg(not(target_arch = "wasm32"))]
pub fn measure_matmul(engine: &Engine, matmul: &Matmul, budget: Duration) -> Result<Measurement> {
    let encode: &Encode<'_> = &|_, encoder, timestamps| matmul.encode(encoder, timestamps);
    pollster::block_on(repeat(engine, budget, encode, Wait::Blocking))
}

/// Records one run; its number comes first.
pub(super) type Encode<'a> =
    dyn Fn(usize, &mut wgpu::CommandEncoder, Option<wgpu::ComputePassTimestampWrites<'_>>) + 'a;

pub(super) async fn repeat(
    engine: &Engine,
    budget: Duration,
    encode: &Encode<'_>,
    wait: Wait,
) -> Result<Measurement> {
    let timer = Timer::new(engine)?;
    // Warms caches and clocks, and says how long a run is.
    let warm = Instant::now();
    let mut run = 1;
    let mut last = timer.wall(engine, encode, 0..1, wait).await?;
    let together =
        |last: f64| (TOGETHER / last.max(1e-6)).clamp(1.0, MOST_TOGETHER as f64) as usize;
    let cpu = engine.capabilities().device_type == "cpu";
    let least = budget / 4;
    let least = if cpu { least } else { least.max(RAMP) };
    while last < 1.0 && (run < 3 || warm.elapsed() < least) {
        let batch = together(last);
        last = timer.wall(engine, encode, run..run + batch, wait).await?;
        run += batch;
    }
    let batch = together(last);
    let least = if last > 2.0 { 2 } else { 3 };
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < least || (start.elapsed() < budget && times.len() < 1000) {
        match &timer.queries {
            Some(queries) => {
                times.extend(timer.gpu(engine, encode, run..run + batch, queries, wait).await?);
            }
            None => times.push(timer.wall(engine, encode, run..run + batch, wait).await?),
        }
        run += batch;
    }
    let clock = if timer.queries.is_some() { Clock::Gpu } else { Clock::Wall };
    still_there(engine, wait).await?;
    Ok(summary(times, clock))
}

/// An error where the device was lost meanwhile: a browser then calls what was submitted done, but maps no buffer.
async fn still_there(engine: &Engine, wait: Wait) -> Result<()> {
    let buffer = create_buffer(engine.device(), "last", 4, wgpu::BufferUsages::COPY_SRC)?;
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let readback = Readback::record(engine.device(), &mut encoder, &buffer, 0, 4)?;
    engine.queue().submit([encoder.finish()]);
    readback.get(wait).await.map(|_| ())
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
        if !engine.capabilities().timestamps || cfg!(target_arch = "wasm32") {
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

    /// Seconds of each run of one submission, between the device's timestamps.
    async fn gpu(
        &self,
        engine: &Engine,
        encode: &Encode<'_>,
        runs: Range<usize>,
        (set, buffer): &(wgpu::QuerySet, wgpu::Buffer),
        wait: Wait,
    ) -> Result<Vec<f64>> {
        let batch = runs.len();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        for (i, run) in runs.enumerate() {
            let timestamps = wgpu::ComputePassTimestampWrites {
                query_set: set,
                beginning_of_pass_write_index: Some(2 * i as u32),
                end_of_pass_write_index: Some(2 * i as u32 + 1),
            };
            encode(run, &mut encoder, Some(timestamps));
        }
        encoder.resolve_query_set(set, 0..2 * batch as u32, buffer, 0);
        let bytes = 16 * batch as u64;
        let readback = Readback::record(engine.device(), &mut encoder, buffer, 0, bytes)?;
        engine.queue().submit([encoder.finish()]);
        let bytes = readback.get(wait).await?;
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

    /// Seconds of one run by the host's clock, from several in one submission.
    async fn wall(
        &self,
        engine: &Engine,
        encode: &Encode<'_>,
        runs: Range<usize>,
        wait: Wait,
    ) -> Result<f64> {
        let (start, batch) = (Instant::now(), runs.len());
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        runs.for_each(|run| encode(run, &mut encoder, None));
        engine.queue().submit([encoder.finish()]);
        finished(engine.device(), engine.queue(), wait).await?;
        Ok(start.elapsed().as_secs_f64() / batch as f64)
    }
}
