//! The attributes of a recorded case, as features of a call.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::feature::align::Align;
use crate::feature::normalize::Normalizer;
use crate::problem::{Attention, WeightsAt};
use crate::tensor::Scalar;
use crate::verify::golden::GoldenCase;

/// Why the case cannot be run, if it cannot.
pub(super) fn unsupported(case: &GoldenCase) -> Option<String> {
    let record = &case.record;
    let layout = match record.kind.as_str() {
        "attention" | "attention_relative_bias" => "bhsd",
        "varlen" => "thd",
        "mha_layer" => "bsd",
        "gat" => "nf",
        "edge_attention" => "nhd",
        "rotary_embedding" => "bhsd",
        // Its layout is said in words.
        "paged" => record.layout.as_str(),
        kind => return Some(format!("kind {kind}: not an attention call")),
    };
    if record.layout != layout {
        return Some(format!("layout {}: only {layout} is read", record.layout));
    }
    let text = |key: &str, served: &[&str]| {
        let value = record.attributes.get(key)?.as_str().unwrap_or("unknown");
        (!served.contains(&value)).then(|| format!("{key} {value}: not computed"))
    };
    let scores = text("score", &["dot", "additive", "concat", "general", "cosine"]);
    let normalizers = ["softmax", "relu", "sigmoid", "sparsemax", "entmax15"];
    if let Some(what) = scores.or_else(|| text("normalizer", &normalizers)) {
        return Some(what);
    }
    None
}

/// Applies every attribute to a call; also the name of the array of offsets per sequence, if any.
pub(super) fn apply(
    case: &GoldenCase,
    mut attention: Attention,
) -> Result<(Attention, Option<String>)> {
    let mut offsets = None;
    let mut align = |key: &str| parse_align(case, key, &mut offsets);
    let (causal, window_offset) = (align("causal")?, align("window_offset")?);
    if let Some(scale) = number(case, "scale")? {
        attention = attention.scale(scale as f32);
    }
    if let Some(normalizer) = normalizer(case)? {
        attention = attention.normalizer(normalizer);
    }
    if matches!(text(case, "score"), Some("additive" | "concat")) {
        attention = attention.additive(number(case, "inner_scale")?.unwrap_or(1.0) as f32);
    }
    if text(case, "score") == Some("cosine") {
        let head_scale = case.record.inputs.contains_key("head_scale");
        let eps = number(case, "norm_eps")?.unwrap_or(0.0);
        let eps = eps as f32;
        attention = if head_scale { attention.cosine_scaled(eps) } else { attention.cosine(eps) };
    }
    if let Some(cap) = number(case, "softcap")? {
        attention = attention.softcap(cap as f32);
    }
    if let Some(causal) = causal {
        attention = attention.causal(causal);
    }
    if let Some(window) = case.record.attributes.get("window").filter(|w| !w.is_null()) {
        let side = |name: &str| match window.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(n) => n
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .map(Some)
                .ok_or_else(|| wrong(case, "window", n, "null or an integer ≥ 0 on each side")),
        };
        let align = causal.or(window_offset).unwrap_or(Align::TopLeft);
        attention = attention.window(side("left")?, side("right")?, align);
    }
    if case.record.attributes.get("alibi") == Some(&Value::Bool(true)) {
        attention = attention.alibi(alibi_align(case)?);
    }
    if case.record.expected.contains_key("lse") {
        attention = attention.with_lse();
    }
    if let Some(at) = weights_at(case)? {
        attention = attention.with_weights(at);
    }
    Ok((attention, offsets))
}

fn text<'a>(case: &'a GoldenCase, key: &str) -> Option<&'a str> {
    case.record.attributes.get(key)?.as_str()
}

fn normalizer(case: &GoldenCase) -> Result<Option<Normalizer>> {
    let scalar = |key: &str| -> Result<Scalar> {
        let value = number(case, key)?;
        let missing = || wrong(case, key, &Value::Null, "a number");
        value.map(|x| Scalar(x as f32)).ok_or_else(missing)
    };
    Ok(match text(case, "normalizer") {
        Some("relu") => {
            let power = number(case, "relu_power")?.unwrap_or(1.0) as u32;
            Some(Normalizer::Relu { power, divisor: scalar("normalizer_divisor")? })
        }
        Some("sigmoid") => Some(Normalizer::Sigmoid { bias: scalar("sigmoid_bias")? }),
        Some("sparsemax") => Some(Normalizer::Sparsemax),
        Some("entmax15") => Some(Normalizer::Entmax15),
        _ => None,
    })
}

/// A number of the attributes, exactly as recorded.
pub(super) fn number(case: &GoldenCase, key: &str) -> Result<Option<f64>> {
    match case.record.attributes.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(x) => x.as_f64().map(Some).ok_or_else(|| wrong(case, key, x, "a number")),
    }
}

/// An integer, or the alignment of each sequence by name.
fn alibi_align(case: &GoldenCase) -> Result<Align> {
    let key = "alibi_offset";
    match case.record.attributes.get(key) {
        None | Some(Value::Null) => Ok(Align::Offset(0)),
        Some(Value::String(text)) if text == "top_left" => Ok(Align::TopLeft),
        Some(Value::String(text)) if text == "bottom_right" => Ok(Align::BottomRight),
        Some(x) => as_i32(x)
            .map(Align::Offset)
            .ok_or_else(|| wrong(case, key, x, "an integer, \"top_left\" or \"bottom_right\"")),
    }
}

fn as_i32(x: &Value) -> Option<i32> {
    x.as_i64().and_then(|n| i32::try_from(n).ok())
}

fn parse_align(
    case: &GoldenCase,
    key: &str,
    offsets: &mut Option<String>,
) -> Result<Option<Align>> {
    let wanted = "\"top_left\", \"bottom_right\", {\"offset\": n} or {\"offset_per_batch\": name}";
    let Some(value) = case.record.attributes.get(key).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let align = match value {
        Value::String(text) if text == "top_left" => Some(Align::TopLeft),
        Value::String(text) if text == "bottom_right" => Some(Align::BottomRight),
        Value::Object(map) => match (map.get("offset"), map.get("offset_per_batch")) {
            (Some(n), _) => as_i32(n).map(Align::Offset),
            (_, Some(Value::String(name))) => {
                *offsets = Some(name.clone());
                Some(Align::PerBatch)
            }
            _ => None,
        },
        _ => None,
    };
    align.map(Some).ok_or_else(|| wrong(case, key, value, wanted))
}

fn weights_at(case: &GoldenCase) -> Result<Option<WeightsAt>> {
    let expected = &case.record.expected;
    if !expected.contains_key("weights") && !expected.contains_key("scores") {
        return Ok(None);
    }
    let mode = case.record.attributes.get("weights_mode").unwrap_or(&Value::Null);
    match mode.as_str() {
        Some("raw_scores") => Ok(Some(WeightsAt::RawScores)),
        Some("after_softcap") => Ok(Some(WeightsAt::AfterSoftcap)),
        Some("after_bias") => Ok(Some(WeightsAt::AfterBias)),
        Some("probabilities") => Ok(Some(WeightsAt::Probabilities)),
        None if expected.contains_key("weights") => Ok(Some(WeightsAt::Probabilities)),
        _ => {
            let wanted = "raw_scores, after_softcap, after_bias or probabilities";
            Err(wrong(case, "weights_mode", mode, wanted))
        }
    }
}

fn wrong(case: &GoldenCase, key: &str, found: &Value, wanted: &str) -> Error {
    Error::invalid(format!("case {}, attribute {key}", case.name), found, wanted)
}
