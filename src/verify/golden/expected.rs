//! What a recorded case expects: results by role, with their tolerances.

use crate::error::Result;
use crate::problem::{Attention, Operand, Problem};
use crate::tensor::Shape;
use crate::verify::compare::Tolerance;
use crate::verify::data::CaseData;
use crate::verify::golden::reader::Reader;
use crate::verify::golden::{Expected, Limit, Precision, Role};

impl Reader<'_> {
    /// The recorded results of packed sequences, spread to `[batch, heads, seq, …]` as outputs are.
    pub(super) fn expected_packed(
        &mut self,
        problem: &Problem,
        data: &CaseData,
    ) -> Result<Vec<Expected>> {
        let s = problem.attention().shape;
        let total = problem.extent(Operand::O).0.max(problem.extent(Operand::O).1);
        let mut expected = Vec::new();
        for (name, array) in &self.case.record.expected {
            let Some(role @ (Role::Out | Role::Lse)) = role_of(name) else { continue };
            let array = self.arrays.get(array)?;
            let (columns, absent) =
                if role == Role::Out { (s.dim_v, 0.0) } else { (1, f64::NEG_INFINITY) };
            let wanted = u64::from(total) * u64::from(s.heads_q) * u64::from(columns);
            if array.values.len() as u64 != wanted {
                return Err(self.wrong(name, &array.shape, "[total_q, heads_q(, dim_v)]"));
            }
            let columns = columns as usize;
            let mut values = Vec::new();
            for at in s.row_positions() {
                let row = problem.lse_index(at, &data.operands()) as usize * columns;
                let held = problem.stores(at[0], at[2], &data.operands());
                match array.values.get(row..row + columns) {
                    Some(found) if held => values.extend_from_slice(found),
                    _ => values.resize(values.len() + columns, absent),
                }
            }
            expected.push(Expected { role, values, tolerance: self.tolerance(name) });
        }
        Ok(expected)
    }

    /// The recorded results with their tolerances, and notes on the others.
    pub(super) fn expected(
        &mut self,
        attention: &Attention,
    ) -> Result<(Vec<Expected>, Vec<String>)> {
        let (mut expected, mut notes) = (Vec::new(), Vec::new());
        let case = self.case;
        if case.record.dtype == "f64" && self.precision == Precision::Stored {
            notes.push("recorded in f64, run in f32".into());
        }
        for (name, array) in &case.record.expected {
            let Some(role) = role_of(name) else {
                if !name.starts_with("d_") {
                    notes.push(format!("role {name} is not compared"));
                }
                continue;
            };
            let array = self.arrays.get(array)?;
            let wanted = sizes(attention.shape, role);
            if array.shape != wanted {
                return Err(self.wrong(name, &array.shape, &format!("{wanted:?}")));
            }
            expected.push(Expected { role, values: array.values, tolerance: self.tolerance(name) });
        }
        Ok((expected, notes))
    }

    pub(super) fn tolerance(&self, role: &str) -> Tolerance {
        let record = &self.case.record;
        let cast = record.dtype == "f64" && self.precision == Precision::Stored;
        let limits = match &record.tolerance_f32 {
            Some(limits) if cast => limits,
            _ => &record.tolerance,
        };
        let Limit { rtol, atol } = limits.roles.get(role).copied().unwrap_or(limits.all);
        if cast && record.tolerance_f32.is_none() {
            return Tolerance::Recorded { rtol: rtol.max(1e-4), atol: atol.max(1e-5) };
        }
        Tolerance::Recorded { rtol, atol }
    }
}

fn role_of(name: &str) -> Option<Role> {
    match name {
        "out" => Some(Role::Out),
        "lse" => Some(Role::Lse),
        "weights" | "scores" => Some(Role::Weights),
        "present_k" => Some(Role::PresentK),
        "present_v" => Some(Role::PresentV),
        _ => None,
    }
}

fn sizes(s: Shape, role: Role) -> Vec<u64> {
    let sizes: &[u32] = match role {
        Role::Out => &[s.batch, s.heads_q, s.seq_q, s.dim_v],
        Role::Lse => &[s.batch, s.heads_q, s.seq_q],
        Role::Weights => &[s.batch, s.heads_q, s.seq_q, s.seq_kv],
        Role::PresentK => &[s.batch, s.heads_kv, s.seq_kv, s.dim_qk],
        Role::PresentV => &[s.batch, s.heads_kv, s.seq_kv, s.dim_v],
    };
    sizes.iter().map(|n| u64::from(*n)).collect()
}
