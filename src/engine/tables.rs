//! The small tables of a call that are on the host.

use crate::engine::{Table, Tensors};
use crate::feature::Operands;
use crate::problem::{Operand, Problem};

/// The tables that a problem announces, in the types kernels read.
pub(crate) struct HostTables<'a> {
    operands: &'a Operands<'a>,
    announced: Vec<Operand>,
    /// What is f64 on the host.
    floats: Vec<(Operand, Vec<f32>)>,
}

impl<'a> HostTables<'a> {
    pub(crate) fn new(problem: &Problem, operands: &'a Operands<'a>) -> Self {
        let announced: Vec<Operand> = problem.operands().into_iter().map(|(o, _)| o).collect();
        let floats = announced.iter().filter_map(|&operand| {
            let values = match operand {
                Operand::AlibiSlopes => operands.alibi_slopes,
                Operand::Sinks => operands.sinks,
                Operand::ScoreV => operands.score_v,
                Operand::RotaryCos => operands.rotary_cos,
                Operand::RotarySin => operands.rotary_sin,
                Operand::HeadScale => operands.head_scale,
                Operand::ScoreMatrix => operands.score_matrix,
                Operand::Relative => operands.relative,
                Operand::Centers => operands.centers,
                Operand::EdgeBias => operands.edge_bias,
                _ => return None,
            };
            Some((operand, values.iter().map(|&x| x as f32).collect()))
        });
        let floats = floats.collect();
        Self { operands, announced, floats }
    }

    /// A table that the problem announces.
    pub(crate) fn table(&self, operand: Operand) -> Option<Table<'_>> {
        let x = self.operands;
        if !self.announced.contains(&operand) {
            return None;
        }
        if let Some((_, values)) = self.floats.iter().find(|(o, _)| *o == operand) {
            return Some(Table::F32(values));
        }
        Some(match operand {
            Operand::KvLengths => Table::U32(x.kv_lengths),
            Operand::QLengths => Table::U32(x.q_lengths),
            Operand::Offsets => Table::I32(x.offsets),
            Operand::CuSeqlensQ => Table::U32(x.cu_seqlens_q),
            Operand::CuSeqlensKv => Table::U32(x.cu_seqlens_kv),
            Operand::EdgeStarts => Table::U32(x.edge_starts),
            Operand::EdgeKeys => Table::U32(x.edge_keys),
            Operand::Positions => Table::U32(x.positions),
            Operand::SegmentsQ => Table::U32(x.segments_q),
            Operand::SegmentsKv => Table::U32(x.segments_kv),
            Operand::PageTable => Table::U32(x.page_table),
            Operand::Blocks => Table::U32(x.blocks),
            Operand::Table => Table::U32(x.table),
            _ => return None,
        })
    }

    /// Names every table among the tensors.
    pub(crate) fn set<'b>(&'b self, tensors: &mut Tensors<'b>) {
        for &operand in &self.announced {
            if let (Some(table), Some(place)) = (self.table(operand), tensors.table_mut(operand)) {
                *place = Some(table);
            }
        }
    }
}
