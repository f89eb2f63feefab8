//! One extra logit z_h per head that joins the denominator only: not scaled, not capped, no value.
//!
//! A row without visible keys then has o = 0 and lse = z_h. Its meaning is an argument of
//! [`softmax`](super::softmax::softmax): a row whose maximum and sum start at (z_h, 1).

use crate::feature::{Operand, Slot, slot};

pub(crate) const SLOT: Slot = slot!("normalize", "sink").reading(&[Operand::Sinks]);
