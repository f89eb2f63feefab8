//! Checks that look at several fields of a call at once, and what they resolve.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::feature::Slot;
use crate::feature::align::Align;
use crate::feature::mask::Mask;
use crate::feature::normalize::Normalizer;
use crate::problem::Attention;
use crate::tensor::{DType, Layout, Shape, Storage, Strides};

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
    a.normalizer.validate(&a.shape)?;
    if a.normalizer == Normalizer::Softmax {
        return Ok(());
    }
    for (argument, on) in [("sinks", a.sinks), ("lse", a.lse)] {
        if on {
            let found = format!("normalizer {}", a.normalizer.name());
            return Err(Error::invalid(argument, found, "softmax, to which they belong"));
        }
    }
    if a.normalizer == Normalizer::Monotonic && a.packed.is_some() {
        return Err(Error::invalid("normalizer", "packed sequences", "padded ones for monotonic"));
    }
    Ok(())
}

/// How q and k meet, and what happens to them first.
pub(super) fn check_prepare(a: &Attention) -> Result<()> {
    let s = a.shape;
    a.inner.validate()?;
    if let Some(dim_q) = a.general {
        if dim_q == 0 || dim_q > Shape::MAX_DIM {
            return Err(Error::invalid("general dim_q", dim_q, format!("1..={}", Shape::MAX_DIM)));
        }
        if a.cosine.is_some() {
            return Err(Error::invalid("cosine", "a general score", "one score function"));
        }
    }
    if let Some(rotary) = a.rotary {
        rotary.validate(a.general.unwrap_or(s.dim_qk), &s)?;
    }
    if let Some(cosine) = a.cosine {
        cosine.validate()?;
        if a.inner.is_sum() {
            return Err(Error::invalid("cosine", "an additive score", "one score function"));
        }
    }
    Ok(())
}

/// Masks beside each other and beside a normaliser; each alone has been checked.
pub(super) fn check_masks(a: &Attention) -> Result<()> {
    if a.masks.dense.is_some() && a.masks.bits.is_some() {
        return Err(Error::invalid("mask", "bytes and bits", "one boolean mask"));
    }
    if a.bias.is_none() && a.bias_dtype != DType::F32 {
        return Err(Error::invalid("bias_dtype", a.bias_dtype, "a bias that is stored so"));
    }
    if a.masks.edges.is_some() && a.masks.blocks.is_some() {
        return Err(Error::invalid("edges", "a block table", "edges or blocks, not both"));
    }
    if a.normalizer.takes_one() && a.masks.local.is_some_and(|local| local.gaussian) {
        return Err(Error::invalid("local gaussian", "hard attention", "weights to multiply"));
    }
    if a.normalizer.takes_one() && a.dropout.is_some() {
        return Err(Error::invalid("dropout", "one key that is taken", "weights to leave out"));
    }
    Ok(())
}

/// Packed sequences bring their own lengths of rows and have no layout by batch.
pub(super) fn check_packed(a: &Attention) -> Result<()> {
    let Some(packed) = a.packed else { return Ok(()) };
    let refuse =
        |argument: &str, wanted: &str| Err(Error::invalid(argument, "packed sequences", wanted));
    if a.q_lengths {
        return refuse("q_lengths", "none: cu_seqlens give the lengths");
    }
    if a.paged.is_some() && packed.total_kv > 0 {
        let found = format!("{} beside a page table", packed.total_kv);
        return Err(Error::invalid("total_kv", found, "0: keys in pages are not packed"));
    }
    for mask in a.masks.iter() {
        if let Some(wanted) = mask.unpacked() {
            return refuse(&mask.slot().name, wanted);
        }
    }
    let some_keys = a.packs_keys() && packed.total_kv > 0;
    let packed_keys = some_keys.then_some([a.layout_k, a.layout_v]);
    let mut layouts = [a.layout_q, a.layout_o].into_iter().chain(packed_keys.into_iter().flatten());
    if layouts.any(|layout| layout == Layout::Bhsd) {
        return refuse("layout", "Layout::Bshd or strides, of which batch is not used");
    }
    packed.validate()
}

/// Pages, and rows with scales.
pub(super) fn check_cache(a: &Attention) -> Result<()> {
    let refuse =
        |argument: &str, found: &str, wanted: &str| Err(Error::invalid(argument, found, wanted));
    let quantised = a.kv_storage.is_some_and(|storage| storage.dtype().is_none());
    if a.kv_scales.is_some() {
        if !quantised {
            let storage = a.kv_storage.unwrap_or(a.dtype.into()).to_string();
            return refuse("kv_scales", &storage, "keys and values of 8 bits or fewer");
        }
        if a.inner.is_sum() {
            return refuse("kv_scales", "an additive score", "products of q and k");
        }
    }
    let turns_keys = a.rotary.is_some_and(|x| x.keys_from < a.shape.seq_kv) || a.cosine.is_some();
    if turns_keys && (quantised || a.paged.is_some()) {
        let wanted = "keys as they meet: turned or brought to length 1 when the cache is filled";
        return refuse("rotary keys_from or cosine", "keys in a cache", wanted);
    }
    let Some(paged) = a.paged else { return Ok(()) };
    if a.masks.edges.is_some() || a.masks.blocks.is_some() {
        return refuse("paged", "edges or blocks", "none of them beside pages");
    }
    if !a.kv_lengths {
        return refuse("kv_lengths", "none", "key lengths, since pages are not full");
    }
    paged.validate(a.shape.seq_kv)
}

/// The diagonal that masks look at: all of them the same.
pub(super) fn resolve_align(a: &Attention) -> Result<Option<Align>> {
    let given = |mask: &dyn Mask| Some((mask.slot(), mask.align()?));
    let mut all = a.masks.iter().filter_map(given);
    let first = all.next();
    for (slot, align) in all {
        if let Some((of, other)) = first.as_ref().filter(|(_, other)| *other != align) {
            let wanted = format!("that of {}, {other:?}", of.name);
            let argument = format!("{} alignment", slot.name);
            return Err(Error::invalid(argument, format!("{align:?}"), wanted));
        }
    }
    let align = first.map(|(_, align)| align);
    align.into_iter().try_for_each(Align::validate)?;
    Ok(align)
}

pub(super) fn resolve_strides(a: &Attention) -> Result<[Strides; 4]> {
    let s = a.shape;
    let of_q = a.packed.map_or((s.batch, s.seq_q), |packed| (1, packed.total_q));
    let of_kv = match (a.paged, a.packed) {
        (Some(paged), _) => (paged.pages, paged.page_size),
        (None, Some(packed)) if a.packs_keys() => (1, packed.total_kv),
        (None, _) => (s.batch, s.seq_kv),
    };
    let storage = a.kv_storage.unwrap_or(a.dtype.into());
    let tensors = [
        ("q", a.layout_q, s.heads_q, of_q, a.general.unwrap_or(s.dim_qk)),
        ("k", a.layout_k, s.heads_kv, of_kv, storage.row_units(s.dim_qk)),
        ("v", a.layout_v, s.heads_kv, of_kv, storage.row_units(s.dim_v)),
        ("o", a.layout_o, s.heads_q, of_q, s.dim_v),
    ];
    let mut resolved = [Strides { batch: 0, head: 0, row: 0 }; 4];
    for ((name, layout, heads, (batch, seq), dim), slot) in tensors.into_iter().zip(&mut resolved) {
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
        let rows_are_words = |storage: Storage| {
            let word = 32 / storage.unit_bits();
            [strides.batch, strides.head, strides.row].iter().all(|n| n.is_multiple_of(word))
        };
        if matches!(name, "k" | "v") && storage.dtype().is_none() && !rows_are_words(storage) {
            let found = format!("{strides:?} in {} bits", storage.unit_bits());
            return Err(Error::invalid(name, found, "quantised rows that start at whole words"));
        }
        *slot = strides;
    }
    if s.rows().checked_mul(s.seq_kv.into()).is_none_or(|n| n > 1 << 60) {
        return Err(Error::invalid("shape", s, "at most 2^60 scores"));
    }
    Ok(resolved)
}
