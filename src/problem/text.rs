//! A problem in words: what case names, plans and tables show.

use crate::feature::align::Align;
use crate::feature::inner::{Activation, Inner};
use crate::feature::mask::{Axis, Mask};
use crate::feature::normalize::Normalizer;
use crate::feature::prepare::Rotary;
use crate::feature::score::Score;
use crate::problem::{Problem, WeightsAt};

impl Problem {
    /// Short text of everything but the shape, scale and layouts: `f16 causal(top-left) softcap(30.0)`.
    pub fn feature_text(&self) -> String {
        let a = self.attention();
        let align = |align: Align| match align {
            Align::TopLeft => "top-left".into(),
            Align::BottomRight => "bottom-right".into(),
            Align::Offset(n) => n.to_string(),
            Align::PerBatch => "per-batch".into(),
        };
        let bound = |n: Option<u32>| n.map_or("-".into(), |n| n.to_string());
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
        words.extend(a.causal.map(|x| format!("causal({})", align(x))));
        words
            .extend(a.window.map(|(w, x)| {
                format!("window({},{},{})", bound(w.left), bound(w.right), align(x))
            }));
        words.extend(a.dilated.map(|(n, x)| format!("dilated({n},{})", align(x))));
        words.extend(a.chunked.map(|(n, x)| format!("chunked({n},{})", align(x))));
        words.extend(a.neighborhood.map(|x| {
            let axis = |a: &Axis| {
                let causal = if a.causal { "c" } else { "" };
                format!("{}:{}/{}*{}{causal}", a.n, a.size, a.stride, a.dilation)
            };
            // Leading axes of one point go without saying.
            let axes = x.0.iter().skip_while(|a| **a == Axis::new(1, 1)).map(axis);
            format!("neighborhood({})", axes.collect::<Vec<String>>().join(","))
        }));
        words.extend(
            a.edges.map(|x| format!("edges({}{})", x.count, if x.bias { ",bias" } else { "" })),
        );
        words.extend(a.local.map(|x| {
            format!("local({:?}{})", x.reach.get(), if x.gaussian { ",gaussian" } else { "" })
        }));
        words.extend(a.softcap.map(|c| format!("softcap({:?})", c.get())));
        words.extend(a.mask.map(|m| format!("mask{:?}", m.0)));
        words.extend(a.bias.map(|b| format!("bias{:?}", b.0)));
        words.extend(a.alibi.map(|x| format!("alibi({})", align(x.align))));
        let flags = [(a.sinks, "sinks"), (a.kv_lengths, "kv-lengths"), (a.q_lengths, "q-lengths")];
        words.extend(flags.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).into()));
        words.extend(a.segments.then(|| "segments".into()));
        words.extend(
            a.blocks.map(|b| format!("blocks({}x{},{},{})", b.rows, b.keys, b.batch, b.heads)),
        );
        words.extend(a.paged.map(|p| format!("paged({}x{},{})", p.pages, p.page_size, p.row)));
        words.extend(a.packed.map(|p| format!("packed({},{})", p.total_q, p.total_kv)));
        words.extend(a.table.map(|words| format!("table({words})")));
        words.extend(a.custom_scores.iter().map(|score| format!("score({})", score.slot().name)));
        words.extend(a.custom_masks.iter().map(|mask| format!("mask({})", mask.slot().name)));
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
