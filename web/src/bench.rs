//! Bench: a few calls, each held against what the device was measured to do.

use std::time::Duration;

use heedful::bench::{Buffers, Limit, Roofline, measure_host_async};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::verify::report::Adapter;
use heedful::{Align, Attention, DType, Engine, Policy, Result, Shape};
use serde::Serialize;

/// Time spent on each call.
const BUDGET: Duration = Duration::from_millis(500);

/// A call and what it is like.
pub(crate) struct Timed {
    title: &'static str,
    attention: Attention,
}

/// What a call took.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    title: &'static str,
    call: String,
    path: String,
    milliseconds: f64,
    spread: f64,
    /// 10⁹ multiply-adds of the two products a second, counted as two, of pairs that are visible.
    gflops: f64,
    /// FLOP for each byte that must be read or written.
    intensity: f64,
    /// The least time that the device could take, as a part of what it took.
    share: f64,
    limit: Limit,
}

/// The calls that are timed: what a model does over a prompt and for a token, smaller where shaders run on the CPU.
pub(crate) fn calls(adapter: &Adapter) -> Vec<Timed> {
    let software = adapter.kind == "cpu";
    let (heads, rows, keys) = if software { (2, 256, 1024) } else { (8, 1024, 4096) };
    let prompt = |dim| Attention::new(Shape::self_attention(1, heads, rows, dim));
    let token =
        Shape { heads_q: 4 * heads, heads_kv: heads, seq_q: 1, seq_kv: keys, ..prompt(128).shape };
    let call = |title, attention| Timed { title, attention };
    vec![
        call("a prompt, 64 channels", prompt(64)),
        call("the same, causal", prompt(64).causal(Align::TopLeft)),
        call("a prompt, 128 channels", prompt(128)),
        call("the same in f16", prompt(128).dtype(DType::F16)),
        call("one token, grouped heads", Attention::new(token)),
        call("the same in f16", Attention::new(token).dtype(DType::F16)),
    ]
}

impl Timed {
    /// What it is like.
    pub(crate) fn title(&self) -> &'static str {
        self.title
    }

    /// Times it, its tensors the same in every run.
    ///
    /// # Errors
    /// What the library says of the call.
    pub(crate) async fn row(&self, engine: &Engine, roofline: &Roofline) -> Result<Row> {
        let problem = self.attention.validate()?;
        let data = CaseData::generate(&problem, 1, &DataOptions::default());
        let inputs = data.inputs();
        let plan = engine.plan_async(&self.attention, &Policy::default()).await?;
        let (time, dispatches) =
            measure_host_async(engine, &plan, &inputs, Buffers::Same, BUDGET).await?;
        let flops = problem.flops(&inputs.operands) as f64;
        let bytes = problem.min_bytes(&inputs.operands) as f64;
        let (least, limit) = roofline.bound(plan.path(), flops, bytes, dispatches, true);
        let ms = time.median_ms;
        Ok(Row {
            title: self.title,
            call: problem.to_string(),
            path: plan.path().to_string(),
            milliseconds: ms,
            spread: time.spread_ms,
            gflops: flops / ms / 1e6,
            intensity: flops / bytes,
            share: least / ms,
            limit,
        })
    }
}
