//! A problem in words: what case names, plans and tables show.

use std::borrow::Cow;

use crate::feature::mask::Mask;
use crate::feature::score::{Bias, Score, Softcap};
use crate::problem::Problem;

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
        words.extend(a.kv_scales.map(|scales| scales.text()));
        words.extend(a.inner.text());
        words.extend(a.rotary.map(|rotary| rotary.text()));
        words.extend(a.cosine.map(|cosine| cosine.text()));
        words.extend(a.general.map(|d| format!("general({d})")));
        words.extend(a.relative.and_then(|relative| relative.text()));
        words.extend(a.normalizer.text());
        words.extend(a.dropout.map(|dropout| dropout.text()));
        let mut middle: Vec<Word> = a.masks.iter().map(|x| (x.slot().name, x.text())).collect();
        let mut word = |name: &'static str, text: Option<String>| {
            middle.extend(text.map(|text| (name.into(), text)));
        };
        word("softcap", a.softcap.and_then(|cap| Softcap(cap).text()));
        word("bias", a.bias.and_then(|shape| Bias { shape, dtype: a.bias_dtype }.text()));
        word("alibi", a.alibi.and_then(|alibi| alibi.text()));
        for (on, name) in
            [(a.sinks, "sinks"), (a.kv_lengths, "kv-lengths"), (a.q_lengths, "q-lengths")]
        {
            word(name, on.then(|| name.into()));
        }
        // In that order. A sort of these few words is 5 KB of a WebAssembly module.
        let place = |name: &str| TABLES.iter().position(|table| *table == name);
        for at in std::iter::once(None).chain((0..TABLES.len()).map(Some)) {
            let here = middle.iter().filter(|(name, _)| place(name) == at);
            words.extend(here.map(|(_, text)| text.clone()));
        }
        words.extend(a.paged.map(|paged| paged.text()));
        words.extend(a.packed.map(|packed| packed.text()));
        words.extend(a.table.map(|words| format!("table({words})")));
        words.extend(a.custom_scores.iter().filter_map(|score| score.text()));
        words.extend(a.custom_masks.iter().map(|mask| mask.text()));
        words.extend(a.lse.then(|| "lse".into()));
        words.extend(a.weights.map(|at| at.name().into()));
        words.join(" ")
    }
}
