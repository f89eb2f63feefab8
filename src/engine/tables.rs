//! The small tables of a call that are on the host.

use crate::engine::{Table, Tensors};
use crate::feature::Operands;
use crate::feature::operand::Values;
use crate::problem::{Operand, Problem};

/// The tables that a problem announces, in the types kernels read.
pub(crate) struct HostTables<'a> {
    tables: Vec<(Operand, HostTable<'a>)>,
}

enum HostTable<'a> {
    /// f64 on the host.
    Floats(Vec<f32>),
    Counts(&'a [u32]),
    Integers(&'a [i32]),
}

impl<'a> HostTables<'a> {
    pub(crate) fn new(problem: &Problem, operands: &Operands<'a>) -> Self {
        let announced = Operand::TABLES.iter().filter(|table| problem.elements(**table).is_some());
        let table = |operand: &Operand| {
            let table = match operands.values(*operand)? {
                Values::Floats(x) => HostTable::Floats(x.iter().map(|&x| x as f32).collect()),
                Values::Counts(x) => HostTable::Counts(x),
                Values::Integers(x) => HostTable::Integers(x),
                // Masks are tensors.
                Values::Flags(_) => return None,
            };
            Some((*operand, table))
        };
        Self { tables: announced.filter_map(table).collect() }
    }

    /// A table that the problem announces.
    pub(crate) fn table(&self, operand: Operand) -> Option<Table<'_>> {
        let (_, table) = self.tables.iter().find(|(o, _)| *o == operand)?;
        Some(match table {
            HostTable::Floats(x) => Table::F32(x),
            HostTable::Counts(x) => Table::U32(x),
            HostTable::Integers(x) => Table::I32(x),
        })
    }

    /// Names every table among the tensors.
    pub(crate) fn set<'b>(&'b self, tensors: &mut Tensors<'b>) {
        for (operand, _) in &self.tables {
            if let (Some(table), Some(place)) = (self.table(*operand), tensors.table_mut(*operand))
            {
                *place = Some(table);
            }
        }
    }
}
