//! A variant's key as text: `staged_score/f16px4.f16px4/scale+softcap/causal+window@top_left`.

use std::fmt;

use super::bindings::Binding;
use super::spec::{BlockTable, Capture, KernelSpec, Preparation};
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
        let flags = [
            self.reads(Operand::Sinks).then_some("sink"),
            self.reads(Operand::VScales).then_some("v_scales"),
            self.writes.lse.then_some("lse"),
            capture_word(self.writes.capture),
            self.writes.carry.then_some("carry"),
            (self.blocks == Some(BlockTable::Classified)).then_some("classified"),
            (self.has_edges() && self.kernel.is_fused()).then_some("edges"),
            (self.stores(Binding::DV) && self.elements.iter().any(|x| x.0 == Binding::DV))
                .then_some("d_v"),
            self.factor.then_some("gaussian"),
            self.dropout.then_some("dropout"),
            self.added.then_some("added"),
            self.build.unchecked.then_some("unchecked"),
            self.build.small_tables.then_some("small-tables"),
        ];
        for flag in flags.into_iter().flatten() {
            write!(f, "/{flag}")?;
        }
        if let Some(parts) = self.backward {
            let words = [
                (parts.lse, "d_lse"),
                (parts.weights, "d_weights"),
                (parts.entries, "entries"),
                (parts.row_sums, "row_sums"),
                (parts.centers, "centers"),
            ];
            for (_, word) in words.iter().filter(|(on, _)| *on) {
                write!(f, "/{word}")?;
            }
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
