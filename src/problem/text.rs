//! A problem in words: what case names, plans and tables show.

use std::borrow::Cow;

use crate::feature::inner::{Activation, Inner};
use crate::feature::mask::Mask;
use crate::feature::normalize::Normalizer;
use crate::feature::prepare::Rotary;
use crate::feature::score::Score;
use crate::problem::{Problem, WeightsAt};

/// A feature's name and its text.
type Word = (Cow<'static, str>, String);

/// What comes with tensors stands after what does not, in this order: names of cases stay what they are.
const TABLES: [&str; 8] =
    ["dense", "bias", "alibi", "sinks", "kv-lengths", "q-lengths", "segments", "blocks"];

impl Problem {
    /// Short text of everything but the shape, scale and layouts: `f16 causal(top-left) softcap(30.0)`.
    pub fn feature_text(&self) -> String {
        let a = self.attention();
        let mut words = vec![a.dtype.to_string()];
        words.extend(a.kv_storage.map(|storage| format!("kv({storage})")));
        match a.inner {
            Inner::Product => {}
            Inner::Sum { activation: Activation::Tanh, inner_scale, per_head } => {
                let heads = if per_head { ",per-head" } else { "" };
                words.push(format!("additive({:?}{heads})", inner_scale.get()));
            }
            Inner::Sum { activation: Activation::LeakyRelu { slope }, inner_scale, per_head } => {
                let heads = if per_head { "" } else { ",shared" };
                words.push(format!("leaky({:?},{:?}{heads})", slope.get(), inner_scale.get()));
            }
        }
        words.extend(a.rotary.map(|rotary| rotary_text(&rotary)));
        words.extend(a.cosine.map(|c| {
            let heads = if c.head_scale { ",head-scale" } else { "" };
            format!("cosine({:e}{heads})", c.eps.get())
        }));
        words.extend(a.general.map(|d| format!("general({d})")));
        words.extend(a.relative.map(|r| format!("relative({},{},{})", r.left, r.right, r.offset)));
        words.extend(match a.normalizer {
            Normalizer::Softmax => None,
            Normalizer::Relu { power, divisor } => {
                Some(format!("relu({power},{:?})", divisor.get()))
            }
            Normalizer::Sigmoid { bias } => Some(format!("sigmoid({:?})", bias.get())),
            Normalizer::Sample { seed } => Some(format!("sample({seed})")),
            other => Some(other.name().into()),
        });
        let mut middle: Vec<Word> = a.masks.iter().map(|x| (x.slot().name, x.text())).collect();
        let mut word = |name: &'static str, text: Option<String>| {
            middle.extend(text.map(|text| (name.into(), text)));
        };
        word("softcap", a.softcap.map(|c| format!("softcap({:?})", c.get())));
        word("bias", a.bias.map(|b| format!("bias{:?}", b.0)));
        word("alibi", a.alibi.map(|x| format!("alibi({})", x.align)));
        for (on, name) in
            [(a.sinks, "sinks"), (a.kv_lengths, "kv-lengths"), (a.q_lengths, "q-lengths")]
        {
            word(name, on.then(|| name.into()));
        }
        middle.sort_by_key(|(name, _)| TABLES.iter().position(|table| table == name));
        words.extend(middle.into_iter().map(|(_, text)| text));
        words.extend(a.paged.map(|p| format!("paged({}x{},{})", p.pages, p.page_size, p.row)));
        words.extend(a.packed.map(|p| format!("packed({},{})", p.total_q, p.total_kv)));
        words.extend(a.table.map(|words| format!("table({words})")));
        words.extend(a.custom_scores.iter().map(|score| format!("score({})", score.slot().name)));
        words.extend(a.custom_masks.iter().map(|mask| mask.text()));
        words.extend(a.lse.then(|| "lse".into()));
        words.extend(a.weights.map(|at| {
            match at {
                WeightsAt::RawScores => "raw-scores",
                WeightsAt::AfterSoftcap => "after-softcap",
                WeightsAt::AfterBias => "after-bias",
                WeightsAt::Probabilities => "probabilities",
            }
            .into()
        }));
        words.join(" ")
    }
}

/// Channels and table, pairs, and where positions start if not at 0.
fn rotary_text(r: &Rotary) -> String {
    let kind = if r.interleaved { "interleaved" } else { "halves" };
    let mut text = format!("rotary({}x{},{kind}", r.dim, r.table_rows);
    let flags = [(r.ids, ",ids"), (r.at_end, ",end")];
    text.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag));
    let starts = [(r.q_start, ",q+"), (r.keys_from, ",from"), (r.k_start, ",k+")];
    for (start, name) in starts.into_iter().filter(|(start, _)| *start > 0) {
        text += &format!("{name}{start}");
    }
    text + ")"
}
