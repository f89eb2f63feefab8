//! The known-answer call: a small one of the same features, its tensors, and how near a result must be.

use crate::engine::stored::rounded;
use crate::error::Result;
use crate::feature::inner::{Activation, Inner};
use crate::feature::normalize::Normalizer;
use crate::feature::prepare::{Cosine, Rotary};
use crate::feature::score::{Alibi, Relative};
use crate::feature::weight::Dropout;
use crate::plan::{Capabilities, Path, Plan};
use crate::problem::{Attention, Operand, Packed, Paged, Problem};
use crate::reference::{Inputs, Outputs, OwnedInputs};
use crate::tensor::{BLOCK, DType, Layout, Scalar, Scales, Shape};

/// Rows and keys of the known-answer call: more than one tile of every kernel, and no multiple of any. Where tiles are
/// data they follow from the tile.
pub(super) const ROWS: u32 = 67;
pub(super) const KEYS: u32 = 71;

/// Every how manyth key of a matrix kernel's call is LOUD times as large: peaks grow from tile to tile, so that o is
/// scaled.
const LOUD_EVERY: usize = 24;
const LOUD: f64 = 24.0;

/// What a softened row or block is multiplied with: its scale is another power of two.
const SOFT: f64 = 0.25;

/// Keys of a page: neither a power of two nor a part of the keys.
const PAGE: u32 = 12;

/// The call that a plan's kernels are tried with, planned with the same kernels.
pub(super) struct KnownCall {
    pub(super) plan: Plan,
    pub(super) tensors: Known,
}

impl KnownCall {
    /// `None` where the caller's own call has no pair to try functions of the caller's own with.
    pub(super) fn new(plan: &Plan, caps: &Capabilities) -> Result<Option<Self>> {
        // Shares of the split kernels are two tiles, so that what is carried from tile to tile is tried too.
        let loud = plan.path() == Path::FusedMatrix;
        let (mut rows, mut keys) = (ROWS, KEYS);
        for spec in plan.kernels() {
            let tiles = if plan.path() == Path::Split { 3 } else { 1 };
            let tile = spec.block_tile().map(|x| [x.rows + 3, tiles * x.keys + 7]);
            let matrix =
                spec.matrix_tile().filter(|_| loud).map(|x| [x.rows() + 3, 2 * x.keys + 7]);
            if let Some([most_rows, most_keys]) = tile.or(matrix) {
                (rows, keys) = (rows.max(most_rows), keys.max(most_keys));
            }
            keys = spec.split_tile().map_or(keys, |tile| 3 * tile.keys + 7);
        }
        let Some(small) = small(plan.problem().attention(), rows, keys) else { return Ok(None) };
        let plan = plan.shrunk(&small, caps)?;
        let tensors = Known::new(plan.problem(), loud);
        Ok(Some(Self { plan, tensors }))
    }
}

/// The same call at small sizes and with numbers of the trial's own: every feature stays, so that the same
/// variants serve it. Functions of the caller's own are asked for positions that the caller's call has;
/// `None` where it has none.
pub(super) fn small(attention: &Attention, rows: u32, keys: u32) -> Option<Attention> {
    let own = !attention.custom_masks.is_empty() || !attention.custom_scores.is_empty();
    let s = attention.shape;
    let [rows, keys] = match own {
        true => [rows.min(s.seq_q), keys.min(s.seq_kv)],
        false => [rows, keys],
    };
    let empty = rows == 0 || keys == 0 || s.batch == 0 || s.heads_kv == 0;
    (!own || !empty).then(|| shrink(&tame(attention), rows, keys))
}

/// What a caller's numbers are in the trial: such that scores are of magnitude 1 and sums over all keys are well inside
/// every storage type, whatever the call asks for. Numbers are parameters, so the kernels are the same.
fn tame(attention: &Attention) -> Attention {
    let inner = match attention.inner {
        Inner::Product => Inner::Product,
        Inner::Sum { activation: Activation::Tanh, per_head, .. } => {
            let inner_scale = Scalar(0.75);
            Inner::Sum { activation: Activation::Tanh, inner_scale, per_head }
        }
        Inner::Sum { activation: Activation::LeakyRelu { .. }, inner_scale: _, per_head } => {
            let activation = Activation::LeakyRelu { slope: Scalar(0.2) };
            Inner::Sum { activation, inner_scale: Scalar(1.0), per_head }
        }
    };
    let normalizer = match attention.normalizer {
        Normalizer::Relu { power, .. } => Normalizer::Relu { power, divisor: Scalar(71.0) },
        Normalizer::Sigmoid { .. } => Normalizer::Sigmoid { bias: Scalar(-2.0) },
        other => other,
    };
    let relative =
        |x: Relative| Relative { left: x.left.min(34), right: x.right.min(37), offset: 2 };
    Attention {
        scale: None,
        softcap: attention.softcap.map(|_| Scalar(1.0)),
        alibi: attention.alibi.map(|alibi| Alibi { align: alibi.align.known() }),
        cosine: attention.cosine.map(|cosine| Cosine { eps: Scalar(1e-6), ..cosine }),
        relative: attention.relative.map(relative),
        inner,
        normalizer,
        dropout: attention.dropout.map(|x| Dropout { rate: Scalar(0.25), ..x }),
        ..attention.clone()
    }
}

fn shrink(attention: &Attention, rows: u32, keys: u32) -> Attention {
    let s = attention.shape;
    let group = s.group().min(2);
    // Two sequences of rows - 3 and rows - 33 rows, as the length tables of `Known` say.
    let total_kv = if attention.packs_keys() { 2 * keys } else { 0 };
    let packed = attention.packed.map(|_| Packed { total_q: 2 * rows, total_kv });
    let heads_kv = s.heads_kv.min(2);
    let shape = Shape {
        batch: s.batch.clamp(1, 2),
        heads_q: heads_kv * group,
        heads_kv,
        seq_q: rows,
        seq_kv: keys,
        ..s
    };
    // Both sequences are the points of a grid.
    let keys = if attention.masks.neighborhood.is_some() { rows } else { keys };
    // Longer tables than any position, and a key that is not turned.
    let rotary = attention.rotary.map(|rotary| Rotary {
        table_rows: 128.max(2 * keys).max(2 * rows),
        q_start: 3,
        // Keys that are all in a cache stay so.
        keys_from: if rotary.keys_from < s.seq_kv { keys.saturating_sub(ROWS) } else { keys },
        k_start: 7,
        ..rotary
    });
    let shape = Shape { seq_kv: keys, ..shape };
    let layout = if packed.is_some() { Layout::Bshd } else { Layout::Bhsd };
    let row = keys.div_ceil(PAGE);
    let paged = attention.paged.map(|_| Paged { pages: shape.batch * row, page_size: PAGE, row });
    Attention {
        shape,
        packed,
        paged,
        rotary,
        masks: attention.masks.known(&shape),
        bias: attention.bias.map(|bias| bias.fitted(&shape)),
        ..attention.clone().layout(layout)
    }
}

/// The known-answer call's tensors: values of magnitude 1 from a fixed sequence.
pub(super) struct Known(OwnedInputs);

impl Known {
    pub(super) fn new(problem: &Problem, loud: bool) -> Self {
        let a = problem.attention();
        let count = |operand| problem.elements(operand).unwrap_or(0);
        let drawn = |operand| (0..count(operand)).map(move |i| value(operand as u64 + 1, i));
        let rows = |operand| -> Vec<f64> {
            let mut drawn: Vec<f64> = drawn(operand).collect();
            if loud && operand == Operand::K {
                amplify(problem, &mut drawn);
            }
            soften(problem, operand, &mut drawn);
            rounded(problem, operand, drawn)
        };
        let counted = |operand, number: fn(u32) -> u32| -> Vec<u32> {
            (0..count(operand) as u32).map(number).collect()
        };
        let lengths = |operand, full: u32| {
            (0..count(operand)).map(|i| full.saturating_sub(3 + 30 * i as u32)).collect()
        };
        let starts = |operand, full: u32| -> Vec<u32> {
            let first = full.saturating_sub(3);
            let both = first + full.saturating_sub(33);
            let ends = [0, first, both, both];
            ends.into_iter().take(count(operand) as usize).collect()
        };
        let mut known = OwnedInputs {
            q: rows(Operand::Q),
            k: rows(Operand::K),
            v: rows(Operand::V),
            k_scales: drawn(Operand::KScales).map(|x| DType::F32.round(1.5 + x)).collect(),
            v_scales: drawn(Operand::VScales).map(|x| DType::F32.round(1.5 + x)).collect(),
            mask: drawn(Operand::Mask).map(|x| x < 0.5).collect(),
            bias: drawn(Operand::Bias).map(|x| a.bias_dtype.round(x)).collect(),
            // As heavy as many keys, so that one too many shows.
            sinks: drawn(Operand::Sinks).map(|x| 4.0 * DType::F32.round(x)).collect(),
            kv_lengths: lengths(Operand::KvLengths, a.shape.seq_kv.max(KEYS)),
            q_lengths: lengths(Operand::QLengths, a.shape.seq_q),
            offsets: (0..count(Operand::Offsets)).map(|i| 5 - 9 * i as i32).collect(),
            cu_seqlens_q: starts(Operand::CuSeqlensQ, a.shape.seq_q),
            cu_seqlens_kv: starts(Operand::CuSeqlensKv, a.shape.seq_kv),
            centers: (0..count(Operand::Centers)).map(|i| 0.75 * (i % 80) as f64).collect(),
            // Three keys for each row.
            edge_starts: counted(Operand::EdgeStarts, |row| 3 * row),
            edge_keys: counted(Operand::EdgeKeys, |i| (i / 3 * 7) % 20 + i % 3 * 17),
            positions: counted(Operand::Positions, |i| (i * 7) % 64),
            segments_q: counted(Operand::SegmentsQ, |i| (i + 5) / 19 % 3),
            segments_kv: counted(Operand::SegmentsKv, |i| (i + 5) / 19 % 3),
            // The row before, but for every third row one further up, and a second tree.
            parents: (0..count(Operand::Parents) as i32)
                .map(|i| i % a.shape.seq_q.max(1) as i32)
                .map(|row| if row == 20 { -1 } else { (row - 1 - 3 * (row % 3 / 2)).max(-1) })
                .collect(),
            key_positions: counted(Operand::KeyPositions, |i| (i * 5 + 3) % 64),
            // Backwards, so that neighbours are not neighbours.
            page_table: (0..count(Operand::PageTable) as u32).rev().collect(),
            blocks: Self::blocks(a),
            // Functions of the caller's own are asked on the host, where closures have their own copy.
            table: counted(Operand::Table, |_| 0),
            ..OwnedInputs::default()
        };
        // Every other table of real numbers.
        let others = problem.operands().into_iter().filter(|(operand, _)| operand.is_table());
        for (operand, _) in others {
            if let Some(values) = known.floats_mut(operand).filter(|values| values.is_empty()) {
                values.extend(drawn(operand).map(|x| DType::F32.round(x)));
            }
        }
        Self(known)
    }

    /// Blocks that are left out, visited and, where no mask but causality and windows is there, whole.
    fn blocks(a: &Attention) -> Vec<u32> {
        let Some(blocks) = a.masks.blocks else { return Vec::new() };
        let data = a.masks.iter().any(|mask| mask.slot().is_data);
        let whole = !data && a.bias.is_none() && a.custom_masks.is_empty();
        let mut table = blocks.table(&a.shape, |batch, head, row, key| {
            let [row, key] = [row / blocks.rows, key / blocks.keys];
            !(batch + head + row + 2 * key).is_multiple_of(3)
        });
        if !whole {
            table.iter_mut().for_each(|word| *word &= 0x5555_5555);
        }
        table
    }

    pub(super) fn owned(&self) -> &OwnedInputs {
        &self.0
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        self.0.inputs()
    }
}

/// Fibonacci hashing: uniform in [-1, 1), different in every element of every tensor.
pub(super) fn value(salt: u64, i: u64) -> f64 {
    let bits = (i + salt * 0x1_0001).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    bits as f64 / f64::from(1 << 23) - 1.0
}

/// Makes every LOUD_EVERY-th key louder, whatever the layout.
fn amplify(problem: &Problem, k: &mut [f64]) {
    let row = problem.strides(Operand::K).row.max(1) as usize;
    for (i, x) in k.iter_mut().enumerate() {
        if i / row % LOUD_EVERY == LOUD_EVERY - 1 {
            *x *= LOUD;
        }
    }
}

/// Makes every third of what shares a scale softer, so that scales which are powers of two differ too.
fn soften(problem: &Problem, operand: Operand, rows: &mut [f64]) {
    let units = problem.row_units(operand).max(1) as usize;
    let block = match problem.storage(operand).scales() {
        Scales::None => return,
        Scales::Row => units,
        Scales::Blocks => BLOCK,
    };
    for (i, x) in rows.iter_mut().enumerate() {
        if (i / units + i % units / block) % 3 == 1 {
            *x *= SOFT;
        }
    }
}

/// How far a correct kernel's result may be off: 2^-9 of the values' magnitude in f32, 2^-7 in f16 and 2^-4
/// in bf16, far above rounding and far below what a wrong index does.
pub(super) fn allowed(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2.0_f64.powi(-9),
        DType::F16 => 2.0_f64.powi(-7),
        DType::Bf16 => 2.0_f64.powi(-4),
    }
}

/// The first output that is off by more than a correct kernel can be.
pub(super) fn difference(problem: &Problem, found: &Outputs, wanted: &Outputs) -> Option<String> {
    let allowed = allowed(problem.attention().dtype);
    let empty = Vec::new();
    let outputs = [
        (Operand::O, &found.o, &wanted.o, true),
        (Operand::Lse, &found.lse, &wanted.lse, problem.attention().lse),
        (
            Operand::Weights,
            found.weights.as_ref().unwrap_or(&empty),
            wanted.weights.as_ref().unwrap_or(&empty),
            true,
        ),
    ];
    for (operand, found, wanted, asked) in outputs {
        if !asked {
            continue;
        }
        if found.len() != wanted.len() {
            return Some(format!("self-test: {operand} has {} elements", found.len()));
        }
        let off = found.iter().zip(wanted).position(|(x, e)| {
            // What is infinite is near anything; NaN is never wanted here.
            let close = e.is_finite() && (x - e).abs() <= allowed * e.abs().max(1.0);
            !(close || x == e)
        });
        if let Some(i) = off {
            let (x, e) = (found[i], wanted[i]);
            return Some(format!("wrong in the self-test: {operand}[{i}] is {x:e}, want {e:e}"));
        }
    }
    None
}
