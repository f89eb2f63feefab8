//! Checks that look at several fields of a call at once, and what they resolve.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::feature::Slot;
use crate::feature::align::{Align, MAX_OFFSET};
use crate::feature::inner::{Activation, Inner};
use crate::feature::normalize::Normalizer;
use crate::problem::Attention;
use crate::tensor::{Layout, MAX_SEQ, Strides};

/// Two functions of one name would be one function.
pub(super) fn distinct(kind: &str, slots: impl Iterator<Item = Slot>) -> Result<()> {
    let mut names = HashSet::new();
    for slot in slots {
        if !names.insert(slot.name.clone()) {
            let found = format!("{:?} twice", slot.name);
            return Err(Error::invalid(format!("custom {kind} name"), found, "distinct names"));
        }
    }
    Ok(())
}

/// Sinks and the log-sum-exp belong to softmax.
pub(super) fn check_normalizer(a: &Attention) -> Result<()> {
    a.normalizer.validate()?;
    if let Inner::Sum { activation, inner_scale } = a.inner {
        let slope =
            if let Activation::LeakyRelu { slope } = activation { slope.get() } else { 0.0 };
        for (argument, found) in [("inner_scale", inner_scale.get()), ("leaky slope", slope)] {
            if !found.is_finite() {
                return Err(Error::invalid(argument, found, "a finite number"));
            }
        }
    }
    if a.normalizer == Normalizer::Softmax {
        return Ok(());
    }
    for (argument, on) in [("sinks", a.sinks), ("lse", a.lse)] {
        if on {
            let found = format!("normalizer {}", a.normalizer.name());
            return Err(Error::invalid(argument, found, "softmax, to which they belong"));
        }
    }
    let picks = matches!(a.normalizer, Normalizer::Hard | Normalizer::Sample { .. });
    if picks && a.shape.seq_kv > 1 << 24 {
        return Err(Error::invalid("seq_kv", a.shape.seq_kv, "at most 2^24 for hard attention"));
    }
    Ok(())
}

/// Packed sequences bring their own lengths, have no layout by batch, and return no weights.
pub(super) fn check_packed(a: &Attention) -> Result<()> {
    let Some(packed) = a.packed else { return Ok(()) };
    let refuse =
        |argument: &str, wanted: &str| Err(Error::invalid(argument, "packed sequences", wanted));
    if a.kv_lengths || a.q_lengths {
        return refuse("lengths", "no length tables: cu_seqlens give the lengths");
    }
    if a.segments {
        return refuse("segments", "no segments: packed sequences do not see each other");
    }
    if a.blocks.is_some() {
        return refuse("blocks", "no block table, or sequences that are not packed");
    }
    if a.weights.is_some() {
        return refuse("weights", "no weights, or sequences that are not packed");
    }
    if [a.layout_q, a.layout_k, a.layout_v, a.layout_o].contains(&Layout::Bhsd) {
        return refuse("layout", "Layout::Bshd or strides, of which batch is not used");
    }
    for (name, total) in [("total_q", packed.total_q), ("total_kv", packed.total_kv)] {
        if total > MAX_SEQ {
            return Err(Error::invalid(name, total, format!("0..={MAX_SEQ}")));
        }
    }
    Ok(())
}

pub(super) fn resolve_align(a: &Attention) -> Result<Option<Align>> {
    let window = a.window.map(|(_, align)| align);
    if let (Some(causal), Some(window)) = (a.causal, window)
        && causal != window
    {
        let wanted = format!("the alignment of causal, {causal:?}");
        return Err(Error::invalid("window alignment", format!("{window:?}"), wanted));
    }
    for align in [a.causal, window, a.alibi.map(|x| x.align)].into_iter().flatten() {
        if let Align::Offset(n) = align
            && n.unsigned_abs() > MAX_OFFSET.unsigned_abs()
        {
            return Err(Error::invalid("alignment offset", n, format!("±{MAX_OFFSET} at most")));
        }
    }
    Ok(a.causal.or(window))
}

pub(super) fn resolve_strides(a: &Attention) -> Result<[Strides; 4]> {
    let s = a.shape;
    let (batch, rows_q, rows_kv) = match a.packed {
        Some(packed) => (1, packed.total_q, packed.total_kv),
        None => (s.batch, s.seq_q, s.seq_kv),
    };
    let tensors = [
        ("q", a.layout_q, s.heads_q, rows_q, s.dim_qk),
        ("k", a.layout_k, s.heads_kv, rows_kv, s.dim_qk),
        ("v", a.layout_v, s.heads_kv, rows_kv, s.dim_v),
        ("o", a.layout_o, s.heads_q, rows_q, s.dim_v),
    ];
    let mut resolved = [Strides { batch: 0, head: 0, row: 0 }; 4];
    for ((name, layout, heads, seq, dim), slot) in tensors.into_iter().zip(&mut resolved) {
        let strides = layout.strides(heads, seq, dim);
        let sizes = [batch, heads, seq, dim];
        let empty = sizes.contains(&0);
        let span = strides.span(sizes[0].into(), sizes[1].into(), sizes[2].into(), sizes[3].into());
        // 2^46 elements: beyond any device, and leaves room for byte arithmetic in u64.
        if !empty && span.is_none_or(|n| n > 1 << 46) {
            let found = format!("strides {strides:?} over {sizes:?}");
            return Err(Error::invalid(name, found, "a tensor of at most 2^46 elements"));
        }
        if name == "o" && !empty {
            strides.check_disjoint("o strides", sizes)?;
        }
        *slot = strides;
    }
    if s.rows().checked_mul(s.seq_kv.into()).is_none_or(|n| n > 1 << 60) {
        return Err(Error::invalid("shape", s, "at most 2^60 scores"));
    }
    Ok(resolved)
}
