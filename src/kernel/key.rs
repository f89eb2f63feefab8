//! A variant's key as text: `staged_score/f16px4.f16px4/scale+softcap/causal+window@top_left`.

use std::fmt;

use super::bindings::Binding;
use super::spec::{BackwardParts, BlockTable, Capture, KernelSpec, Preparation};
use crate::feature::inner::product;
use crate::feature::normalize;
use crate::problem::{Operand, WeightsAt};

impl fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |names: Vec<String>, between: &str| {
            if names.is_empty() { "-".to_owned() } else { names.join(between) }
        };
        let elements = self.elements.iter().map(|(_, element)| element.to_string()).collect();
        let scores = self.scores.iter().map(|(_, slot)| slot.name.to_string()).collect();
        let mut masks: Vec<String> = self.masks.iter().map(|slot| slot.name.to_string()).collect();
        masks.extend(self.reads(Operand::KvLengths).then(|| "kv".to_owned()));
        masks.extend(self.reads(Operand::QLengths).then(|| "q".to_owned()));
        masks.extend(self.is_paged().then(|| "paged".to_owned()));
        masks.extend((self.is_packed() || self.has_packed_keys()).then(|| "packed".to_owned()));
        write!(f, "{}/{}", self.kernel.name(), join(elements, "."))?;
        write!(f, "/{}/{}", join(scores, "+"), join(masks, "+"))?;
        for slot in self.inner.iter().chain(&self.normalize) {
            // The usual ones go without saying.
            if *slot != product::SLOT && *slot != normalize::softmax::SLOT {
                write!(f, "/{}", slot.name)?;
            }
        }
        if let Some(slot) = &self.diagonal {
            write!(f, "@{}", slot.name)?;
        }
        if let Some(slot) = &self.alibi {
            write!(f, "/alibi@{}", slot.name)?;
        }
        for word in self.preparation.iter().flat_map(preparation_words) {
            write!(f, "/{word}")?;
        }
        for flag in flags_of(self).into_iter().flatten() {
            write!(f, "/{flag}")?;
        }
        for word in self.backward.iter().flat_map(backward_words) {
            write!(f, "/{word}")?;
        }
        if !self.adds_to.is_empty() {
            f.write_str("/adds")?;
        }
        self.tile.iter().try_for_each(|tile| write!(f, "/{tile}"))?;
        if !self.build.shared.is_empty() {
            let names = self.build.shared.iter().map(|binding| binding.name().to_owned()).collect();
            write!(f, "/shared({})", join(names, "."))?;
        }
        Ok(())
    }
}

/// What it is besides its slots, in the order in which its name says it.
fn flags_of(spec: &KernelSpec) -> [Option<&'static str>; 13] {
    [
        spec.reads(Operand::Sinks).then_some("sink"),
        spec.reads(Operand::VScales).then_some("v_scales"),
        spec.writes.lse.then_some("lse"),
        capture_word(spec.writes.capture),
        spec.writes.carry.then_some("carry"),
        (spec.blocks == Some(BlockTable::Classified)).then_some("classified"),
        (spec.has_edges() && spec.kernel.is_fused()).then_some("edges"),
        spec.has_element(Binding::DV).then_some("d_v"),
        spec.factor.then_some("gaussian"),
        spec.dropout.then_some("dropout"),
        spec.added.then_some("added"),
        spec.build.unchecked.then_some("unchecked"),
        spec.build.small_tables.then_some("small-tables"),
    ]
}

fn backward_words(parts: &BackwardParts) -> impl Iterator<Item = &'static str> {
    let words = [
        (parts.lse, "d_lse"),
        (parts.weights, "d_weights"),
        (parts.entries, "entries"),
        (parts.row_sums, "row_sums"),
        (parts.centers, "centers"),
    ];
    words.into_iter().filter_map(|(on, word)| on.then_some(word))
}

fn capture_word(capture: Capture) -> Option<&'static str> {
    match capture {
        Capture::Nothing => None,
        Capture::At(WeightsAt::RawScores) => Some("raw"),
        Capture::At(WeightsAt::AfterSoftcap) => Some("capped"),
        Capture::At(WeightsAt::AfterBias) => Some("biased"),
        Capture::At(WeightsAt::Probabilities) => Some("weights"),
    }
}

fn preparation_words(x: &Preparation) -> impl Iterator<Item = &'static str> {
    let words = [
        (x.keys, "k"),
        (!x.keys, "q"),
        (x.rotary.is_some(), if x.rotary == Some(true) { "interleaved" } else { "halves" }),
        (x.ids == Some(Operand::Positions), "ids"),
        (x.ids == Some(Operand::KeyPositions), "key_ids"),
        (x.at_end, "end"),
        (x.normalized, "cosine"),
        (x.head_scale, "head_scale"),
        (x.projected, "general"),
    ];
    words.into_iter().filter_map(|(on, word)| on.then_some(word))
}
