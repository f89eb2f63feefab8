//! The gradients of the catalogue's cases: of every tensor of a call that has one, under the case's name.

use crate::error::Result;
use crate::feature::Position;
use crate::feature::align::Align::{BottomRight, TopLeft};
use crate::feature::mask::Edges;
use crate::feature::normalize::Normalizer;
use crate::feature::prepare::Rotary;
use crate::plan::{Path, Policy};
use crate::problem::{Attention, Backward, BackwardProblem, Operand, WeightsAt};
use crate::reference::Incoming;
use crate::tensor::DType;
use crate::verify::cases::quick::{call, usual};
use crate::verify::cases::{Case, Grid, grid, slots};
use crate::verify::data::draw::Draw;
use crate::verify::data::{CaseData, DataOptions};

/// A case's gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct BackwardCase {
    /// `gradients ` and the name of the case.
    pub name: String,
    /// The gradients of every tensor of the call that has one. They come from o, from lse where the normaliser is
    /// softmax without sinks, and from weights that are returned.
    pub backward: Backward,
    /// Seed of the data.
    pub seed: u64,
    /// The data.
    pub data: DataOptions,
    /// Whether scratch is for some rows only, so that sums are carried from block to block of the staged path.
    pub in_blocks: bool,
    /// One of [`BackwardPlan::PATHS`](crate::BackwardPlan::PATHS), or whichever is preferred.
    pub path: Path,
}

/// What comes into a case, without gaps.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseIncoming {
    /// Gradient of o, values of the storage type.
    pub o: Vec<f64>,
    /// Gradient of lse; empty unless the problem takes one.
    pub lse: Vec<f64>,
    /// Gradient of the returned weights; empty unless the problem takes one.
    pub weights: Vec<f64>,
}

impl CaseIncoming {
    /// As the reference and engines take it.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { o: &self.o, lse: &self.lse, weights: &self.weights }
    }
}

impl BackwardCase {
    /// Every gradient of a case.
    ///
    /// # Errors
    /// As [`Attention::validate`].
    pub fn of(case: &Case) -> Result<Self> {
        let a = &case.attention;
        let lse = a.normalizer == Normalizer::Softmax && !a.sinks;
        let mut backward = Backward::all(Attention { lse, ..a.clone() })?;
        if lse {
            backward = backward.from_lse();
        }
        if a.weights == Some(WeightsAt::Probabilities) {
            backward = backward.from_weights();
        }
        Ok(Self {
            name: format!("gradients {}", case.name),
            backward,
            seed: case.seed,
            data: case.data,
            in_blocks: case.seed / SHARE % 4 == 1,
            path: if case.seed / SHARE % 2 == 1 { Path::Staged } else { Path::Auto },
        })
    }

    /// The same with gradients of q, k and v only, which more kernels serve; `None` where there are no others.
    fn of_rows_only(&self) -> Option<Self> {
        let rows = [Operand::Q, Operand::K, Operand::V];
        let mut backward = self.backward.clone();
        backward.attention.lse |= backward.attention.normalizer == Normalizer::Softmax;
        let some = backward.wanted != rows;
        backward = backward.only(&rows);
        (some && backward.validate().is_ok()).then(|| Self {
            name: format!("{} qkv", self.name),
            backward,
            in_blocks: false,
            path: Path::Auto,
            ..self.clone()
        })
    }

    /// The same on tiles, which software adapters do not choose; `None` where they do not serve.
    fn on_tiles(&self) -> Option<Self> {
        let rows = [Operand::Q, Operand::K, Operand::V];
        let a = &self.backward.attention;
        let serve = !a.inner.is_sum() && !a.normalizer.needs_row() && a.masks.edges.is_none();
        let mut backward = self.backward.clone().only(&rows);
        backward.attention.lse |= a.normalizer == Normalizer::Softmax;
        // Gradients of weights come in for each score.
        (serve && !backward.from_weights && backward.validate().is_ok()).then(|| Self {
            name: format!("{} qkv on-tiles", self.name),
            backward,
            in_blocks: false,
            path: Path::FusedTile,
            ..self.clone()
        })
    }

    /// Whether it has gradients of tensors that belong to a form of scores or of places.
    fn learns_what_few_do(&self) -> bool {
        let few = |operand: &Operand| {
            matches!(
                operand,
                Operand::Relative
                    | Operand::HeadScale
                    | Operand::ScoreMatrix
                    | Operand::ScoreV
                    | Operand::EdgeBias
                    | Operand::Centers
            )
        };
        self.backward.wanted.iter().any(few)
    }

    /// Validates the gradients and draws data and what comes in: where data is poisoned, NaN for all that no visible
    /// pair passes on.
    ///
    /// # Errors
    /// As [`Backward::validate`].
    pub fn generate(&self) -> Result<(BackwardProblem, CaseData, CaseIncoming)> {
        let problem = self.backward.validate()?;
        let call = problem.problem();
        let data = CaseData::generate(call, self.seed, &self.data);
        let mut incoming = draw_incoming(&problem, self.seed);
        if self.data.poison {
            incoming.poison(&problem, &data);
        }
        Ok((problem, data, incoming))
    }

    /// The policy that its gradients are planned under, beside what a caller asks for.
    pub fn policy(&self) -> Policy {
        let s = self.backward.attention.shape;
        let usual = Policy { path: self.path, ..Policy::default() };
        if !self.in_blocks {
            return usual;
        }
        // Three planes of 20 rows of a group.
        let row = u64::from(s.seq_kv).next_multiple_of(4).max(4) * 4 * 3;
        let max_workspace_bytes = usual.max_workspace_bytes.min(20 * u64::from(s.group()) * row);
        Policy { max_workspace_bytes, ..usual }
    }
}

/// What comes into a call: uniform in [-1, 1), that of o rounded to the storage type. Equal arguments give equal data.
pub fn draw_incoming(problem: &BackwardProblem, seed: u64) -> CaseIncoming {
    let (call, asked) = (problem.problem().attention(), problem.backward());
    // Other numbers than those of the call's tensors.
    let mut draw = Draw::new(seed ^ 0x6772_6164);
    let mut values = |on: bool, n: u64| -> Vec<f64> {
        (0..if on { n } else { 0 }).map(|_| draw.signed()).collect()
    };
    let rows = call.shape.rows();
    let o = values(true, rows * u64::from(call.shape.dim_v));
    CaseIncoming {
        o: o.into_iter().map(|x| call.dtype.round(x)).collect(),
        lse: values(asked.from_lse, rows),
        weights: values(asked.from_weights, rows * u64::from(call.shape.seq_kv)),
    }
}

impl CaseIncoming {
    fn poison(&mut self, problem: &BackwardProblem, data: &CaseData) {
        let call = problem.problem();
        let s = call.attention().shape;
        let (dim, keys) = (s.dim_v as usize, s.seq_kv as usize);
        let operands = data.operands();
        for (row, [batch, head, at]) in s.row_positions().enumerate() {
            let at = call.position(batch, head, at, &operands);
            let seen = |key: u32| call.sees(&Position { key, ..at }, &operands);
            let seen: Vec<bool> = (0..s.seq_kv).map(seen).collect();
            let weights = self.weights.iter_mut().skip(row * keys).zip(&seen);
            weights.filter(|(_, seen)| !**seen).for_each(|(x, _)| *x = f64::NAN);
            if !seen.contains(&true) {
                self.o[row * dim..(row + 1) * dim].fill(f64::NAN);
                self.lse.iter_mut().skip(row).take(1).for_each(|x| *x = f64::NAN);
            }
        }
    }
}

/// One case in how many the quick grid has the gradients of.
const SHARE: u64 = 4;

/// The gradients of a grid's cases: of each in the full grid; in that of slots few in which every kernel occurs; in
/// the quick one of those that learn something few cases have, and of a part of the others, which follows from
/// their seeds; of none in the grid for matrix units, which gradients do not use. Where a call has gradients of
/// more than q, k and v, those of these alone as well, and those of all on tiles (in the quick grid a part of
/// both). And some that only gradients have a use for.
///
/// # Errors
/// As [`grid`].
pub fn backward_grid(of: Grid) -> Result<Vec<BackwardCase>> {
    let cases = match of {
        Grid::Matrix => return Ok(Vec::new()),
        Grid::Slots => return Ok(slots::of_gradients(&backward_grid(Grid::Quick)?)),
        Grid::Quick | Grid::Full => grid(of)?,
    };
    let mut cases: Vec<BackwardCase> = cases.iter().map(BackwardCase::of).collect::<Result<_>>()?;
    if of == Grid::Quick {
        let rare = |case: &BackwardCase| case.learns_what_few_do() || case.data.lowest_bias;
        cases.retain(|case| case.seed % SHARE == 0 || rare(case));
    }
    let part = |case: &&BackwardCase, n: u64| {
        of != Grid::Quick || case.data.lowest_bias || (case.seed / SHARE).is_multiple_of(n)
    };
    let rows_only =
        cases.iter().filter(|case| part(case, 3)).filter_map(BackwardCase::of_rows_only);
    let on_tiles = cases.iter().filter(|case| part(case, 5)).filter_map(BackwardCase::on_tiles);
    let others: Vec<_> = rows_only.chain(on_tiles).collect();
    cases.extend(others);
    cases.extend(own()?);
    Ok(cases)
}

/// Rows for every invocation that joins their sums, in one block and in several; packed sequences; and sums of nothing,
/// which are 0.
fn own() -> Result<Vec<BackwardCase>> {
    let base = || call(2, [4, 2], [70, 90], [16, 24]);
    let calls = [
        base().sinks(),
        base().alibi(BottomRight).bias([1, 1, 70, 90]).causal(BottomRight),
        base().bias([1, 4, 1, 90]).softcap(4.0).dtype(DType::Bf16),
        call(3, [4, 2], [40, 60], [16, 24]).packed(90, 140).causal(BottomRight),
        call(3, [4, 2], [40, 60], [24, 16]).packed(90, 140).sinks().dtype(DType::F16),
        call(3, [4, 2], [40, 90], [24, 16]).packed(90, 140).kv_lengths(),
        call(3, [4, 2], [40, 60], [16, 24]).packed(90, 140).rotary(Rotary::new(8, 100)),
        call(3, [4, 2], [40, 60], [16, 24]).packed(90, 140).cosine_scaled(1e-6).with_lse(),
        call(3, [4, 2], [40, 60], [16, 24]).packed(90, 140).with_weights(WeightsAt::Probabilities),
    ];
    let mut cases = Vec::new();
    for attention in calls {
        let case = BackwardCase::of(&usual(attention))?;
        let in_blocks = BackwardCase {
            name: format!("{} in-blocks", case.name),
            in_blocks: true,
            path: Path::Staged,
            ..case.clone()
        };
        cases.extend([BackwardCase { in_blocks: false, path: Path::Auto, ..case }, in_blocks]);
    }
    // Of q, k and v only: the matrix has no gradient beside packed rows.
    let projected = call(3, [4, 2], [40, 60], [16, 24]).general(12).packed(90, 140);
    cases.extend(BackwardCase::of(&usual(projected))?.of_rows_only());
    cases.extend(added()?);
    cases.extend(large_and_empty()?);
    Ok(cases)
}

/// In f32, and added to what is there: each kernel that writes a gradient.
fn added() -> Result<Vec<BackwardCase>> {
    let base = || call(2, [4, 2], [70, 90], [16, 24]);
    let mut cases = Vec::new();
    let learned = [
        base().sinks().alibi(BottomRight).bias([1, 4, 1, 90]).dtype(DType::F16),
        base().causal(BottomRight).dtype(DType::Bf16),
        base().causal(BottomRight),
        base().cosine_scaled(1e-6).rotary(Rotary::new(8, 100)).dtype(DType::F16),
        base().general(12).dtype(DType::Bf16),
        base().additive(1.0).bias([2, 1, 70, 1]),
        base().edges(Edges { count: 700, bias: true }),
        call(3, [4, 2], [40, 60], [16, 24]).packed(90, 140).dtype(DType::F16),
    ];
    for (i, attention) in learned.into_iter().enumerate() {
        let case = BackwardCase::of(&usual(attention))?;
        let backward = case.backward.in_f32().accumulate();
        let path = Path::Staged;
        let name = format!("{} in-f32 accumulate", case.name);
        let in_blocks = i % 2 == 0;
        cases.push(BackwardCase { name, backward, path, in_blocks, ..case });
    }
    let one_pass = [
        base().causal(BottomRight),
        base().cosine_scaled(1e-6).rotary(Rotary::new(8, 100)),
        base().window(Some(20), Some(3), BottomRight).dtype(DType::F16),
    ];
    let paths = [(Path::Fused, "in-one-pass"), (Path::FusedTile, "on-tiles")];
    for (attention, (path, word)) in one_pass.iter().flat_map(|a| paths.map(|path| (a, path))) {
        let case = BackwardCase::of(&usual(attention.clone()))?;
        let name = format!("{} accumulate {word}", case.name);
        let mut backward = case.backward.clone().accumulate();
        // What o of few bits says of the mean is corrected: seen where gradients have more.
        backward.in_f32 = attention.dtype != DType::F32;
        cases.push(BackwardCase { name, backward, path, in_blocks: false, ..case });
    }
    Ok(cases)
}

/// More than a tile of rows and keys, for each way of laying gradients over tiles; and no rows, no keys, no sequence.
fn large_and_empty() -> Result<Vec<BackwardCase>> {
    let mut cases = Vec::new();
    let on_tiles = [
        call(2, [4, 2], [70, 150], [16, 12]).sinks().causal(BottomRight),
        call(2, [4, 2], [150, 70], [12, 16]).bias([1, 4, 1, 70]).softcap(4.0).dtype(DType::Bf16),
        call(2, [2, 1], [130, 70], [48, 64]).window(Some(40), Some(9), BottomRight),
        call(1, [2, 1], [70, 140], [72, 80]).kv_lengths().causal(TopLeft).dtype(DType::F16),
    ];
    for attention in on_tiles {
        cases.extend(BackwardCase::of(&usual(attention))?.on_tiles());
    }
    let nothing = [
        call(2, [2, 1], [0, 5], [8, 8]),
        call(2, [2, 1], [5, 0], [8, 8]),
        call(2, [2, 1], [0, 5], [8, 8]).bias([1, 1, 1, 5]).alibi(BottomRight),
        call(2, [2, 1], [5, 0], [8, 8]).bias([1, 2, 5, 1]).sinks(),
        call(0, [2, 1], [5, 5], [8, 8]).bias([1, 2, 5, 5]).sinks(),
    ];
    for attention in nothing {
        cases.push(BackwardCase::of(&usual(attention))?);
    }
    Ok(cases)
}
