//! Batch invariance: a sequence computed alone has the bits it has in its batch.

use crate::device::Wait;
use crate::engine::Engine;
use crate::error::Result;
use crate::feature::normalize::Normalizer;
use crate::plan::{Path, Policy};
use crate::problem::{Attention, Operand};
use crate::tensor::Broadcast;
use crate::verify::data::CaseData;
#[cfg(not(target_arch = "wasm32"))]
use crate::verify::execute::Placement;
use crate::verify::execute::execute_in;
use crate::verify::run::{On, policy};

/// The last sequence of a batch as a call of its own; `None` where it is not one: a batch of one, packed
/// sequences, block tables of their own, keys or weights drawn by position in the batch.
pub fn last_alone(attention: &Attention, data: &CaseData) -> Option<(Attention, CaseData)> {
    let batch = attention.shape.batch as usize;
    let drawn =
        attention.dropout.is_some() || matches!(attention.normalizer, Normalizer::Sample { .. });
    let own_blocks = attention.masks.blocks.is_some_and(|x| x.batch > 1);
    if batch < 2 || attention.packed.is_some() || own_blocks || drawn {
        return None;
    }
    let problem = attention.validate().ok()?;
    let mut call = attention.clone();
    call.shape.batch = 1;
    let mut own = data.clone();
    let pages = attention.paged.is_some();
    for (operand, values) in
        [(Operand::Q, &mut own.q), (Operand::K, &mut own.k), (Operand::V, &mut own.v)]
    {
        // Pages are everybody's.
        if operand == Operand::Q || !pages {
            let stride = problem.strides(operand).batch;
            values.drain(..usize::try_from(stride).ok()? * (batch - 1));
        }
    }
    let bits = call.masks.bits.as_mut().map(|x| &mut x.0);
    let mask = call.masks.dense.as_mut().map(|x| &mut x.0).or(bits);
    for Broadcast([of_batch, ..]) in mask.into_iter().chain(&mut call.bias) {
        *of_batch = 1;
    }
    let problem = call.validate().ok()?;
    own.keep_last(&problem);
    own.inputs().validate(&problem).ok()?;
    Some((call, own))
}

/// Runs the last sequence of a batch alone; says where its bits are others than `o`, the output of the whole
/// batch `[batch, heads_q, seq_q, dim_v]`. The split path, whose shares follow the batch, runs both again with
/// shares of a fixed size. It blocks the thread.
///
/// # Errors
/// Device lost, out of memory, internal.
#[cfg(not(target_arch = "wasm32"))]
pub fn differs_alone(
    engine: &Engine,
    attention: &Attention,
    data: &CaseData,
    path: Path,
    placement: Placement,
    o: &[f64],
) -> Result<Option<String>> {
    let (at, wait) = (On { path, placement }, Wait::Blocking);
    pollster::block_on(differs_alone_in(engine, attention, data, at, o, wait))
}

pub(super) async fn differs_alone_in(
    engine: &Engine,
    attention: &Attention,
    data: &CaseData,
    On { path, placement }: On,
    o: &[f64],
    wait: Wait,
) -> Result<Option<String>> {
    let Some((call, own)) = last_alone(attention, data) else { return Ok(None) };
    let batch_invariant = path == Path::Split;
    let policy = Policy { batch_invariant, ..policy(path, placement) };
    let run = async |call: &Attention, data: &CaseData| -> Result<Option<Vec<f64>>> {
        let plan = match engine.plan_in(call, &policy, wait).await {
            Ok(plan) => plan,
            Err(error) if error.is_unsupported() => return Ok(None),
            Err(error) => return Err(error),
        };
        let execution = execute_in(engine, &plan, &data.inputs(), placement, wait).await?;
        Ok(Some(execution.outputs.o))
    };
    let again = if batch_invariant { run(attention, data).await? } else { None };
    let whole = again.as_deref().unwrap_or(o);
    let Some(alone) = run(&call, &own).await? else { return Ok(None) };
    let within = &whole[whole.len() - alone.len()..];
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let differs = within.iter().zip(&alone).position(|pair| !same(pair));
    Ok(differs.map(|i| {
        let (dim, rows) = (call.shape.dim_v as usize, call.shape.seq_q as usize);
        let (row, head) = (i / dim % rows, i / dim / rows);
        let (channel, a, b) = (i % dim, within[i], alone[i]);
        format!(
            "not batch-invariant: head {head} row {row} channel {channel} of the last sequence is {a:e} in its \
             batch and {b:e} alone"
        )
    }))
}
