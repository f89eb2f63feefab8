//! A problem in words: what case names, plans and tables show.

use crate::feature::mask::Mask;
use crate::feature::score::Score;
use crate::problem::Problem;
use crate::tensor::Scalar;

/// What comes with tensors stands after what does not, in this order, by the word that its text begins with: names of
/// cases stay what they are.
const TABLES: [&str; 8] =
    ["mask", "bias", "alibi", "sinks", "kv-lengths", "q-lengths", "segments", "blocks"];

/// A modifier that stands with the scores rather than beside the masks.
const EARLY: &str = "relative";

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
        let own = a.own_modifiers(Scalar(self.scale())).into_iter().flatten();
        let (early, late): (Vec<String>, Vec<String>) =
            own.filter_map(|score| score.text()).partition(|text| head(text) == EARLY);
        words.extend(early);
        words.extend(a.normalizer.text());
        words.extend(a.dropout.map(|dropout| dropout.text()));
        let mut middle: Vec<String> = a.masks.iter().map(|mask| mask.text()).collect();
        middle.extend(late);
        for (on, name) in
            [(a.sinks, "sinks"), (a.kv_lengths, "kv-lengths"), (a.q_lengths, "q-lengths")]
        {
            middle.extend(on.then(|| name.into()));
        }
        // In that order. A sort of these few words is 5 KB of a WebAssembly module.
        let place = |text: &str| TABLES.iter().position(|table| *table == head(text));
        for at in std::iter::once(None).chain((0..TABLES.len()).map(Some)) {
            words.extend(middle.iter().filter(|text| place(text) == at).cloned());
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

/// A word without what it has in brackets.
fn head(text: &str) -> &str {
    text.split(['(', '[']).next().unwrap_or_default()
}
