//! The catalogue of generated cases: one source for the tests, `heedful verify` and `heedful bench`.
//!
//! [`Grid::Quick`] touches every feature and crosses the edges of 64-wide tiles with small tensors;
//! [`Grid::Full`] adds products of features; [`Grid::Matrix`] is for matrix units. A case is named by its shape, its
//! features and what is unusual about its layout or data; names are unique and stable, and the seed follows from the
//! name, so that a case is the same whatever grid it came from. Cases that stand for what went wrong in other
//! projects and in drivers end in `seen(project-number)`; [`SEEN`] says what that was. [`backward_grid`] has the
//! gradients of the same cases, each under its case's name behind `gradients `.

mod backward;
mod cache;
mod forms;
mod full;
mod matrix;
mod numeric;
mod quick;
mod seen;
mod slots;

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::problem::{Attention, Problem};
use crate::tensor::{Layout, Strides};
use crate::verify::data::{CaseData, DataOptions, Lengths};

pub use backward::{BackwardCase, CaseIncoming, backward_grid, draw_incoming};
pub use seen::SEEN;

/// A named call with the recipe of its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Unique name: shape, features, then layout and data where they are unusual.
    pub name: String,
    /// The call.
    pub attention: Attention,
    /// Seed of the data.
    pub seed: u64,
    /// The data.
    pub data: DataOptions,
    /// What went wrong elsewhere that the case stands for.
    pub seen: Option<&'static Seen>,
}

/// Something that went wrong elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Project and number of the issue or change that reports it.
    pub issue: &'static str,
    /// What went wrong.
    pub what: &'static str,
}

impl Seen {
    const fn new(issue: &'static str, what: &'static str) -> Self {
        Self { issue, what }
    }
}

/// How much of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grid {
    /// A few of the quick ones in which every slot file occurs: for where a case is dear, as in a browser.
    Slots,
    /// About 550 small cases.
    Quick,
    /// Those and about 1000 more.
    Full,
    /// For kernels on matrix units: tails of their tiles, and the quick grid in f16 and bf16.
    Matrix,
}

impl Case {
    /// A case with a name and a seed that follow from the call and the data.
    pub fn new(attention: Attention, data: DataOptions) -> Self {
        let name = name(&attention, &data);
        Self { seed: hash(&name), name, attention, data, seen: None }
    }

    /// The same call for what was seen elsewhere, under a name that says so.
    fn seen(attention: Attention, data: DataOptions, seen: &'static Seen) -> Self {
        let name = format!("{} seen({})", name(&attention, &data), seen.issue);
        Self { seed: hash(&name), name, attention, data, seen: Some(seen) }
    }

    /// Validates the call and draws its data.
    ///
    /// # Errors
    /// As [`Attention::validate`].
    pub fn generate(&self) -> Result<(Problem, CaseData)> {
        let problem = self.attention.validate()?;
        let data = CaseData::generate(&problem, self.seed, &self.data);
        Ok((problem, data))
    }
}

/// The cases of a grid, each once.
///
/// # Errors
/// An internal error that names two unequal cases of one name, of which a report could show only one.
pub fn grid(grid: Grid) -> Result<Vec<Case>> {
    once(match grid {
        Grid::Matrix => matrix::cases(),
        Grid::Slots => slots::cases(),
        Grid::Quick => quick_grid(),
        Grid::Full => full_grid(),
    })
}

/// The quick grid's own cases, then what other files have for it.
fn quick_grid() -> Vec<Case> {
    let others = forms::cases().into_iter().step_by(2);
    let seen = cache::quick().into_iter().chain(seen::quick()).chain(forms::dropped());
    let mut cases: Vec<Case> = quick::own().into_iter().chain(others).chain(seen).collect();
    cases.extend(quick::examples(&cases));
    cases
}

/// The quick grid and what the full one has more.
fn full_grid() -> Vec<Case> {
    [quick_grid(), full::cases()].concat()
}

/// Leaves out repetitions; cases that differ must have names that do.
fn once(cases: Vec<Case>) -> Result<Vec<Case>> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut distinct: Vec<Case> = Vec::new();
    for case in cases {
        match places.get(&case.name).map(|&place| &distinct[place]) {
            None => {
                places.insert(case.name.clone(), distinct.len());
                distinct.push(case);
            }
            Some(first) if *first == case => {}
            Some(first) => {
                let differ = if first.attention == case.attention { "data" } else { "calls" };
                let what = format!("two cases with different {differ} are called {:?}", case.name);
                return Err(Error::internal("making a grid of cases", what));
            }
        }
    }
    Ok(distinct)
}

/// q, k and v as views of one packed `[batch, seq, 3, heads, dim]` tensor. Needs seq_q = seq_kv,
/// one head dimension and as many key heads as query heads.
pub fn packed_qkv(attention: Attention) -> Attention {
    let s = attention.shape;
    let (seq, heads, dim) = (u64::from(s.seq_q), u64::from(s.heads_q), u64::from(s.dim_qk));
    let row = 3 * heads * dim;
    let view = Layout::Strided(Strides { batch: seq * row, head: dim, row });
    Attention { layout_q: view, layout_k: view, layout_v: view, ..attention }
}

/// Every tensor `[batch, heads, seq, dim]` with `pad` unused elements after each row and three unused
/// rows after each head.
pub fn padded(attention: Attention, pad: u32) -> Attention {
    let s = attention.shape;
    let layout = |heads: u32, seq: u32, dim: u32| {
        let row = u64::from(dim) + u64::from(pad);
        let head = (u64::from(seq) + 3) * row;
        Layout::Strided(Strides { batch: u64::from(heads) * head, head, row })
    };
    Attention {
        layout_q: layout(s.heads_q, s.seq_q, s.dim_qk),
        layout_k: layout(s.heads_kv, s.seq_kv, s.dim_qk),
        layout_v: layout(s.heads_kv, s.seq_kv, s.dim_v),
        layout_o: layout(s.heads_q, s.seq_q, s.dim_v),
        ..attention
    }
}

fn name(attention: &Attention, data: &DataOptions) -> String {
    let features = attention.validate().map(|p| p.feature_text()).unwrap_or_default();
    let mut words = vec![attention.shape.to_string(), features];
    words.extend(attention.scale.map(|scale| format!("scale({:?})", scale.get())));
    let layouts = [attention.layout_q, attention.layout_k, attention.layout_v, attention.layout_o];
    if layouts == [layouts[0]; 4] {
        words.extend((layouts[0] != Layout::Bhsd).then(|| layout_word(layouts[0])));
    } else {
        words.push(layouts.map(layout_word).join("/"));
    }
    let usual = DataOptions::default();
    let mut differs = |name: &str, found: f64, usual: f64| {
        if found != usual {
            words.push(format!("{name}={found:e}"));
        }
    };
    differs("logits", data.logits, usual.logits);
    differs("values", data.values, usual.values);
    differs("density", data.density, usual.density);
    if attention.sinks {
        differs("sinks", data.sinks, usual.sinks);
    }
    if attention.kv_lengths || attention.q_lengths {
        words.extend(match data.lengths {
            Lengths::Mixed => None,
            other => Some(format!("lengths={}", format!("{other:?}").to_ascii_lowercase())),
        });
    }
    let marks = [
        (data.poison, "poison"),
        (data.stale, "stale"),
        (data.special, "special"),
        (data.faint, "faint"),
        (data.lost, "lost"),
        (data.lowest_bias, "lowest-bias"),
        (data.high_bits, "high-bits"),
        (data.yarn, "yarn"),
    ];
    words.extend(marks.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned()));
    if attention.bias.is_some() {
        words.extend((!data.bias_blocks).then(|| "finite-bias".into()));
    }
    words.join(" ")
}

fn layout_word(layout: Layout) -> String {
    match layout {
        Layout::Bhsd => "bhsd".into(),
        Layout::Bshd => "bshd".into(),
        Layout::Strided(s) => format!("strides({},{},{})", s.batch, s.head, s.row),
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{Case, once};
    use crate::problem::Attention;
    use crate::tensor::Shape;
    use crate::verify::data::DataOptions;

    #[test]
    fn unequal_cases_of_one_name_are_an_error_and_equal_ones_are_one() {
        let call = Attention::new(Shape::self_attention(1, 2, 5, 8));
        let case = Case::new(call, DataOptions::USUAL);
        // No bias, so its blocks are not in the name.
        let other = Case { data: DataOptions { bias_blocks: false, ..case.data }, ..case.clone() };
        assert_eq!(once(vec![case.clone(), case.clone()]).map(|x| x.len()).ok(), Some(1));
        let error = once(vec![case.clone(), other]).expect_err("they differ");
        assert!(error.is_internal() && error.to_string().contains(&case.name), "{error}");
    }
}
