//! Running a call on a GPU so that nothing wrong can hide.
//!
//! Outputs and scratch are filled with a NaN pattern first, so what a kernel leaves unwritten shows.
//! Guard words stand around every tensor: inputs lie in NaN, and every byte around and between the
//! elements of an output must still hold the pattern afterwards. Each call runs twice and must give
//! the same bits.

use web_time::Instant;

use crate::device::{Readback, Wait, scoped, settled};
use crate::engine::{Engine, HostTables};
use crate::error::Result;
use crate::plan::Plan;
use crate::reference::{Inputs, Outputs};
use crate::verify::held::Held;

pub use crate::verify::held::Placement;

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The outputs, gapless.
    pub outputs: Outputs,
    /// First output written outside its elements, with the byte offset; `None` when none was.
    pub stray_write: Option<String>,
    /// Whether the second run gave the same bits.
    pub repeatable: bool,
    /// Wall time of the second run with its readback, milliseconds.
    pub milliseconds: f64,
}

/// Runs a planned call twice on poisoned, guarded tensors, blocking the thread.
///
/// # Errors
/// Invalid argument when inputs do not fit the problem, out of memory, device lost, internal.
#[cfg(not(target_arch = "wasm32"))]
pub fn execute(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    placement: Placement,
) -> Result<Execution> {
    pollster::block_on(execute_in(engine, plan, inputs, placement, Wait::Blocking))
}

/// `execute` without blocking the thread.
///
/// # Errors
/// As `execute`.
pub async fn execute_async(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    placement: Placement,
) -> Result<Execution> {
    execute_in(engine, plan, inputs, placement, Wait::Awaiting).await
}

pub(super) async fn execute_in(
    engine: &Engine,
    plan: &Plan,
    inputs: &Inputs<'_>,
    placement: Placement,
    wait: Wait,
) -> Result<Execution> {
    let problem = plan.problem();
    inputs.validate(problem)?;
    let tables = HostTables::new(problem, &inputs.operands);
    let held = settled(|| Held::new(engine, plan, inputs, &tables, placement)).await?;
    let bound = engine.bind_async(plan, &held.tensors(&tables)).await?;
    let outputs: Vec<&wgpu::Buffer> = held.outputs.iter().map(|x| &x.buffer).collect();
    let run = || {
        submitted(engine, &outputs, wait, |encoder| {
            held.poison(encoder);
            bound.encode(encoder);
        })
    };
    let first = run().await?;
    let start = Instant::now();
    let second = run().await?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let (outputs, stray_write) = held.collect(problem, &inputs.operands, &first);
    Ok(Execution { outputs, stray_write, repeatable: first == second, milliseconds })
}

/// Submits what is recorded, and gives the bytes that it leaves in `buffers`.
pub(super) async fn submitted(
    engine: &Engine,
    buffers: &[&wgpu::Buffer],
    wait: Wait,
    record: impl FnOnce(&mut wgpu::CommandEncoder),
) -> Result<Vec<Vec<u8>>> {
    let device = engine.device();
    let submit = || -> Result<Vec<Readback>> {
        let mut encoder = device.create_command_encoder(&Default::default());
        record(&mut encoder);
        let read = |x: &&wgpu::Buffer| Readback::record(device, &mut encoder, x, 0, x.size());
        let readbacks = buffers.iter().map(read).collect::<Result<_>>()?;
        scoped(device, "submitting a case", 0, || engine.queue().submit([encoder.finish()]))?;
        Ok(readbacks)
    };
    let mut bytes = Vec::new();
    for readback in settled(submit).await? {
        bytes.push(readback.get(wait).await?);
    }
    Ok(bytes)
}
