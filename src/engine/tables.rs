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

    /// Names every table among the tensors.
    pub(crate) fn set<'b>(&'b self, tensors: &mut Tensors<'b>) {
        let x = self.operands;
        for &operand in &self.announced {
            let float = self.floats.iter().find(|(o, _)| *o == operand);
            let table = match (operand, float) {
                (_, Some((_, values))) => Table::F32(values),
                (Operand::KvLengths, _) => Table::U32(x.kv_lengths),
                (Operand::QLengths, _) => Table::U32(x.q_lengths),
                (Operand::Offsets, _) => Table::I32(x.offsets),
                (Operand::CuSeqlensQ, _) => Table::U32(x.cu_seqlens_q),
                (Operand::CuSeqlensKv, _) => Table::U32(x.cu_seqlens_kv),
                (Operand::EdgeStarts, _) => Table::U32(x.edge_starts),
                (Operand::EdgeKeys, _) => Table::U32(x.edge_keys),
                (Operand::Positions, _) => Table::U32(x.positions),
                (Operand::SegmentsQ, _) => Table::U32(x.segments_q),
                (Operand::SegmentsKv, _) => Table::U32(x.segments_kv),
                (Operand::PageTable, _) => Table::U32(x.page_table),
                (Operand::Blocks, _) => Table::U32(x.blocks),
                (Operand::Table, _) => Table::U32(x.table),
                _ => continue,
            };
            if let Some(place) = tensors.table_mut(operand) {
                *place = Some(table);
            }
        }
    }
}
