//! The tensors of a call on the CPU, borrowed and owned.

use super::length;
use crate::error::{Error, Result};
use crate::feature::Operands;
use crate::feature::operand::{Rows, for_operands, host_type};
use crate::problem::{Operand, Problem};

/// The tensors of a call on the CPU, in float64.
///
/// q is `[batch, heads_q, seq_q, dim_qk]`, k is `[batch, heads_kv, seq_kv, dim_qk]` and v is
/// `[batch, heads_kv, seq_kv, dim_v]`, each laid out in the problem's strides. A slice may be longer
/// than the strides reach, so that packed tensors can be passed as overlapping views.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: &'a [f64],
    /// Keys.
    pub k: &'a [f64],
    /// Values.
    pub v: &'a [f64],
    /// Masks, biases, lengths and tables; what the problem does not name is ignored.
    pub operands: Operands<'a>,
}

impl<'a> Inputs<'a> {
    /// The values of q, k or v; `None` for o, which is no input.
    pub(crate) fn rows(&self, rows: Rows) -> Option<&'a [f64]> {
        match rows {
            Rows::Q => Some(self.q),
            Rows::K => Some(self.k),
            Rows::V => Some(self.v),
            Rows::O => None,
        }
    }

    /// Checks that every tensor is as long as the problem reads.
    ///
    /// # Errors
    /// An invalid-argument error that names the tensor, its length and the length wanted.
    pub fn validate(&self, problem: &Problem) -> Result<()> {
        for (operand, wanted) in problem.operands() {
            let rows = operand.rows().and_then(|rows| self.rows(rows)).map(<[f64]>::len);
            let exact = self.operands.values(operand).map(|values| values.len());
            let Some(found) = rows.or(exact).map(|n| n as u64) else { continue };
            if exact.is_some() && found != wanted {
                return Err(Error::invalid(operand.name(), length(found), length(wanted)));
            }
            if found < wanted {
                let wanted = format!("at least {}", length(wanted));
                return Err(Error::invalid(operand.name(), length(found), wanted));
            }
        }
        Ok(())
    }
}

/// A tensor that may be one of real numbers.
trait Floats {
    fn floats(&mut self) -> Option<&mut Vec<f64>>;
}

impl Floats for Vec<f64> {
    fn floats(&mut self) -> Option<&mut Vec<f64>> {
        Some(self)
    }
}

impl Floats for Vec<u32> {
    fn floats(&mut self) -> Option<&mut Vec<f64>> {
        None
    }
}

impl Floats for Vec<i32> {
    fn floats(&mut self) -> Option<&mut Vec<f64>> {
        None
    }
}

impl Floats for Vec<bool> {
    fn floats(&mut self) -> Option<&mut Vec<f64>> {
        None
    }
}

/// The last `wanted` elements, or all where that is no limit.
#[cfg(feature = "verify")]
fn keep_end<T>(values: &mut Vec<T>, wanted: Option<u64>) {
    let wanted = wanted.map_or(values.len(), |n| n as usize);
    values.drain(..values.len().saturating_sub(wanted));
}

/// What the host holds of a number, by its type on the GPU.
macro_rules! held {
    (f32) => {
        |x| f64::from(x as f32)
    };
    (u32) => {
        |x| x as u32
    };
    (word) => {
        |x| x as u32
    };
    (i32) => {
        |x| x as i32
    };
    (flag) => {
        |x| x != 0.0
    };
}

macro_rules! define_owned {
    (
        rows { $($(#[$rows_doc:meta])* $rows:ident: $Rows:ident,)* }
        output { $(#[$output_doc:meta])* $output:ident: $Output:ident, }
        results { $($(#[$result_doc:meta])* $result:ident: $Result:ident,)* }
        dense {
            $(
                $(#[$dense_doc:meta])*
                $dense:ident: $Dense:ident, $dense_type:ident $(with $dense_gradient:ident)?,
            )*
        }
        tables {
            $(
                $(#[$table_doc:meta])*
                $table:ident: $Table:ident, $table_type:ident $(with $table_gradient:ident)?,
            )*
        }
    ) => {
        /// [`Inputs`] that own their tensors, laid out in the problem's strides; those that the problem does not name
        /// are empty.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct OwnedInputs {
            $($(#[$rows_doc])* pub $rows: Vec<f64>,)*
            $($(#[$dense_doc])* pub $dense: Vec<host_type!($dense_type)>,)*
            $($(#[$table_doc])* pub $table: Vec<host_type!($table_type)>,)*
        }

        impl OwnedInputs {
            /// The tensors as the reference takes them.
            pub fn inputs(&self) -> Inputs<'_> {
                Inputs { $($rows: &self.$rows,)* operands: self.operands() }
            }

            /// Sets a tensor from numbers, as near as what holds it comes to them; outputs are none of them.
            pub fn set(&mut self, operand: Operand, values: Vec<f64>) {
                match operand {
                    $(Operand::$Rows => self.$rows = values,)*
                    Operand::$Output => {}
                    $(Operand::$Result => {})*
                    $(Operand::$Dense => self.$dense = values.into_iter().map(held!($dense_type)).collect(),)*
                    $(Operand::$Table => self.$table = values.into_iter().map(held!($table_type)).collect(),)*
                }
            }

            /// The small and broadcast tensors.
            pub fn operands(&self) -> Operands<'_> {
                Operands { $($dense: &self.$dense,)* $($table: &self.$table,)* }
            }

            /// Of each table the end that a call of the last sequence alone reads: what sequences share stays.
            #[cfg(feature = "verify")]
            pub(crate) fn keep_last(&mut self, alone: &Problem) {
                $(keep_end(&mut self.$dense, alone.elements(Operand::$Dense));)*
                $(keep_end(&mut self.$table, alone.elements(Operand::$Table));)*
            }

            /// The values of a tensor of real numbers; `None` for others and for outputs.
            pub fn floats_mut(&mut self, operand: Operand) -> Option<&mut Vec<f64>> {
                match operand {
                    $(Operand::$Rows => Some(&mut self.$rows),)*
                    Operand::$Output => None,
                    $(Operand::$Result => None,)*
                    $(Operand::$Dense => self.$dense.floats(),)*
                    $(Operand::$Table => self.$table.floats(),)*
                }
            }
        }
    };
}
for_operands!(define_owned);
