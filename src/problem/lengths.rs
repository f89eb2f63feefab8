//! How many elements each tensor of a call has.

use crate::feature::ElementType;
use crate::problem::{Operand, Problem};
use crate::tensor::Scalar;

impl Problem {
    /// The operands of this call, each with its length in elements in the problem's layout.
    pub fn operands(&self) -> Vec<(Operand, u64)> {
        let all = Operand::ALL.iter();
        all.filter_map(|&operand| Some((operand, self.elements(operand)?))).collect()
    }

    /// Elements of an operand in the problem's layout; `None` where the call has no such operand.
    pub fn elements(&self, operand: Operand) -> Option<u64> {
        let a = self.attention();
        let s = a.shape;
        let (batch, heads) = (u64::from(s.batch), u64::from(s.heads_q));
        let angles = || a.rotary.map(|rotary| rotary.angles());
        match operand {
            Operand::Q | Operand::O => Some(self.span(operand, s.heads_q)),
            Operand::K | Operand::V => Some(self.span(operand, s.heads_kv)),
            Operand::Lse => a.lse.then(|| self.stored_rows()),
            Operand::Weights => a.weights.map(|_| s.rows().saturating_mul(s.seq_kv.into())),
            Operand::Sinks => a.sinks.then_some(heads),
            Operand::KvLengths => a.kv_lengths.then_some(batch),
            Operand::QLengths => a.q_lengths.then_some(batch),
            Operand::Offsets => self.needs_offsets().then_some(batch),
            Operand::CuSeqlensQ => a.packed.map(|_| batch + 1),
            Operand::CuSeqlensKv => a.packs_keys().then_some(batch + 1),
            Operand::ScoreV => a.inner.elements(&s),
            Operand::RotaryCos | Operand::RotarySin => angles(),
            Operand::HeadScale => a.cosine.filter(|x| x.head_scale).map(|_| heads),
            Operand::ScoreMatrix => a.general.map(|d| u64::from(d) * u64::from(s.dim_qk)),
            Operand::Positions => {
                a.rotary.filter(|x| x.ids).map(|x| x.id_rows(&s) * u64::from(s.seq_q))
            }
            Operand::KeyPositions => {
                a.rotary.filter(|x| x.key_ids).map(|x| x.id_rows(&s) * u64::from(x.new_keys(&s)))
            }
            Operand::PageTable => a.paged.map(|paged| batch * u64::from(paged.row)),
            Operand::Table => a.table.map(u64::from),
            // The others are those of masks and score modifiers; tests/features.rs has each claimed by one.
            of_features => self.of_features(of_features),
        }
    }

    /// Elements of what a mask or a score modifier of the library's comes with; `None` where none does.
    fn of_features(&self, operand: Operand) -> Option<u64> {
        let (a, s) = (self.attention(), self.attention().shape);
        let this = |(of, _): &(Operand, u64)| *of == operand;
        let of_mask = a.masks.iter().flat_map(|mask| mask.operands(&s)).find(this);
        let of_score = || {
            let scores = a.own_modifiers(Scalar(self.scale())).into_iter().flatten();
            scores.flat_map(|score| score.operands(&s)).find(this)
        };
        of_mask.or_else(of_score).map(|(_, elements)| elements)
    }

    /// Bits of one element of an operand; a unit of stored rows where q, k, v or o is meant.
    pub(crate) fn element_bits(&self, operand: Operand) -> u64 {
        if operand == Operand::Bias {
            return 8 * self.attention().bias_dtype.bytes();
        }
        match operand.element_type() {
            ElementType::Stored => self.storage(operand).unit_bits(),
            ElementType::Flag if self.attention().masks.bits.is_some() => 1,
            ElementType::Flag => 8,
            ElementType::F32 | ElementType::U32 | ElementType::I32 | ElementType::Word => 32,
        }
    }

    /// Elements from the first to the last of q, k, v or o.
    fn span(&self, operand: Operand, heads: u32) -> u64 {
        let (batch, rows) = self.extent(operand);
        let [batch, heads, rows, dim] =
            [batch, heads, rows, self.row_units(operand)].map(u64::from);
        self.strides(operand).span(batch, heads, rows, dim).unwrap_or(0)
    }

    /// Query rows that o and lse hold, over all heads.
    fn stored_rows(&self) -> u64 {
        let a = self.attention();
        a.packed.map_or(a.shape.rows(), |x| u64::from(x.total_q) * u64::from(a.shape.heads_q))
    }
}
