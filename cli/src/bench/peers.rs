//! Other systems' results for the same calls, shown beside ours in one table.
//!
//! Files are JSON objects with `results`: each has a `shape` (sizes, `causal`, `dtype`), a verdict under
//! `check`, and times in milliseconds, as METHODOLOGY.md describes.

use std::path::PathBuf;

use heedful::{Error, Shape};
use serde::Deserialize;
use serde_json::Value;

use super::rows::{Record, Row, Verdict};
use crate::Outcome;

/// One result of another system.
pub(super) struct Peer {
    system: String,
    /// As [`Row::call`] writes it.
    shape: String,
    features: String,
    device: Option<String>,
    /// Its best figure, in milliseconds; `None` where it failed or was wrong.
    ms: Option<f64>,
    reason: String,
}

#[derive(Deserialize)]
struct File {
    results: Vec<Value>,
    #[serde(default)]
    tool: Option<String>,
    #[serde(default)]
    device: Option<String>,
}

#[derive(Deserialize)]
struct Sizes {
    batch: u32,
    heads_q: u32,
    heads_kv: u32,
    seq_q: u32,
    seq_kv: u32,
    dim: u32,
    causal: bool,
    dtype: String,
}

/// Reads peers' files.
pub(super) fn read(paths: &[PathBuf]) -> Outcome<Vec<Peer>> {
    let mut peers = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let wanted = "a peer's results in JSON";
        let text = std::fs::read_to_string(path).map_err(|e| Error::invalid(&name, e, wanted))?;
        let file: File =
            serde_json::from_str(&text).map_err(|e| Error::invalid(&name, e, wanted))?;
        let stem = path.file_stem().map(|x| x.to_string_lossy().into_owned());
        let tool = file.tool.clone().or(stem).unwrap_or_default();
        // What died or declined has nothing to compare; gradients are other work.
        let of_ours = |result: &&Value| {
            let variant = result["strategy"].as_str().unwrap_or_default();
            result["error"].is_null() && !variant.starts_with("bwd") && !variant.starts_with("fb_")
        };
        for (i, result) in file.results.iter().enumerate().filter(|(_, x)| of_ours(x)) {
            let place = || format!("{name}, result {i}");
            let sizes: Sizes = serde_json::from_value(result["shape"].clone())
                .map_err(|e| Error::invalid(place(), e, "a shape"))?;
            peers.push(peer(&tool, file.device.as_deref(), &sizes, result));
        }
    }
    Ok(peers)
}

fn peer(tool: &str, device: Option<&str>, sizes: &Sizes, result: &Value) -> Peer {
    let Sizes { batch, heads_q, heads_kv, seq_q, seq_kv, dim, .. } = *sizes;
    let shape = Shape { batch, heads_q, heads_kv, seq_q, seq_kv, dim_qk: dim, dim_v: dim };
    // A system may have been run in another storage than the shape's own.
    let dtype = match result["dtype"].as_str().unwrap_or(&sizes.dtype) {
        "fp16" => "f16",
        "fp32" => "f32",
        other => other,
    };
    let causal = if sizes.causal { " causal(top-left)" } else { "" };
    let variant = ["strategy", "op", "backend"].iter().find_map(|key| result[key].as_str());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let verdict = text(&result["check"]["verdict"]);
    let right = matches!(verdict.as_deref(), Some("ok" | "loose"));
    let verdict = verdict.as_deref().unwrap_or("not checked");
    let reason = if right { String::new() } else { format!("its result is {verdict}") };
    Peer {
        system: format!("{} {}", tool.trim_start_matches("peer-"), variant.unwrap_or_default()),
        shape: shape.to_string(),
        features: format!("{dtype}{causal}"),
        device: text(&result["device"]).or(device.map(str::to_owned)),
        ms: if right { best(result) } else { None },
        reason,
    }
}

/// The least of the times that a peer's program reports: by its device's clock, batched, or one by one.
fn best(result: &Value) -> Option<f64> {
    let places = [result, &result["fwd"], &result["resident"]];
    let keys = ["device_ms", "batched_ms", "min_ms", "median_ms"];
    let times = places.iter().flat_map(|place| keys.iter().filter_map(|key| place[*key].as_f64()));
    times.filter(|ms| *ms > 0.0).min_by(f64::total_cmp)
}

/// Puts each peer's result behind our rows of the same call on the same adapter, and holds every time against
/// our best of the call. A wrong result gets no time.
pub(super) fn join(record: &mut Record, peers: &[Peer]) {
    let ours = std::mem::take(&mut record.rows);
    let adapter = record.provenance.adapter.clone();
    for group in ours.chunk_by(|a, b| a.name == b.name) {
        let same = |x: &&Peer| x.shape == group[0].shape && x.features == group[0].features;
        let peers = peers.iter().filter(same).map(|x| beside(x, &group[0], &adapter));
        let best = group.iter().filter_map(|x| x.median_ms).min_by(f64::total_cmp);
        record.rows.extend(group.iter().cloned().chain(peers).map(|row| {
            let of_best = row.median_ms.zip(best).map(|(ms, best)| ms / best);
            Row { of_best, ..row }
        }));
    }
}

fn beside(peer: &Peer, row: &Row, adapter: &str) -> Row {
    let mut line =
        Row::new(&row.name, row.shape.clone(), row.features.clone(), peer.system.clone());
    (line.gflop, line.megabytes) = (row.gflop, row.megabytes);
    line.reason = peer.reason.clone();
    line.verdict = if peer.ms.is_some() { Verdict::Ok } else { Verdict::Skipped };
    if let Some(device) = peer.device.as_deref().filter(|device| *device != adapter) {
        line.verdict = Verdict::Skipped;
        line.reason = format!("measured on {device}");
        return line;
    }
    if let Some(ms) = peer.ms {
        line.median_ms = Some(ms);
        line.gflops = Some(row.gflop / ms * 1e3);
        line.gbps = Some(row.megabytes / ms);
        line.limit_ms = row.limit_ms;
        line.limit = row.limit;
        line.of_limit = row.limit_ms.map(|limit| limit / ms);
    }
    line
}
