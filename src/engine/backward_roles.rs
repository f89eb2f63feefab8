//! What each step of a backward pass binds as q, k, v, o and their gradients.

use crate::engine::{BackwardTensors, BufferView};
use crate::error::{Error, Result};
use crate::kernel::Binding;
use crate::plan::{BackwardPlan, BackwardStep, Makes};
use crate::problem::{Operand, Problem};
use crate::tensor::Strides;

/// What stands for q, k, v or o in a dispatch, and how it lies.
pub(super) struct Role<'a> {
    pub(super) binding: Binding,
    pub(super) name: &'static str,
    pub(super) view: BufferView<'a>,
    pub(super) strides: Strides,
    pub(super) elements: u64,
    /// Of an element.
    pub(super) bytes: u64,
}

/// Buffers that steps leave to others: f32 rows without gaps, but for what stands for a gradient that nobody asked for,
/// which lies and is stored as that would be.
pub(crate) type Held = Vec<(Makes, wgpu::Buffer)>;

/// Tensors from which steps take what they bind.
pub(super) struct Roles<'a> {
    pub(super) plan: &'a BackwardPlan,
    pub(super) tensors: &'a BackwardTensors<'a>,
    /// What steps leave to others beside the scratch: copies of q and k, and their gradients.
    pub(super) held: Held,
}

impl<'a> Roles<'a> {
    pub(super) fn call(&self) -> &'a Problem {
        self.plan.problem().problem()
    }

    pub(super) fn held(&self, makes: Makes) -> Option<BufferView<'_>> {
        self.held.iter().find(|(of, _)| *of == makes).map(|(_, buffer)| buffer.into())
    }

    /// A tensor of rows that lies as one of the caller's.
    fn like<'b>(
        &self,
        binding: Binding,
        name: &'static str,
        view: BufferView<'b>,
        operand: Operand,
    ) -> Role<'b> {
        let call = self.call();
        let elements = call.elements(operand).unwrap_or(0);
        let (strides, bytes) = (call.strides(operand), call.element_bits(operand) / 8);
        Role { binding, name, view, strides, elements, bytes }
    }

    /// f32 rows of q or k without gaps that a step leaves to others.
    fn rows<'b>(&self, binding: Binding, view: BufferView<'b>, of: Operand, dim: u32) -> Role<'b> {
        let call = self.call();
        let strides = call.copy_strides(of, dim);
        let elements = call.copy_rows(of) * u64::from(dim);
        Role { binding, name: of.name(), view, strides, elements, bytes: 4 }
    }

    /// q, k or v of the caller's.
    fn given(&self, binding: Binding, operand: Operand) -> Role<'a> {
        let t = &self.tensors.forward;
        let view = match operand {
            Operand::Q => t.q,
            Operand::K => t.k,
            _ => t.v,
        };
        self.like(binding, operand.name(), view, operand)
    }

    /// q or k as they meet: the copy where there is one.
    fn met(&self, binding: Binding, operand: Operand) -> Role<'_> {
        match self.held(Makes::Copy(operand)) {
            Some(view) => self.rows(binding, view, operand, self.call().attention().shape.dim_qk),
            None => self.given(binding, operand),
        }
    }

    /// The gradient of q, k or v as they meet.
    fn d_met(&self, binding: Binding, operand: Operand) -> Result<Role<'_>> {
        let made_by: &[Makes] = match operand {
            Operand::Q => &[Makes::Gradient(Operand::Q), Makes::OfRows, Makes::OfQueries],
            _ => &[Makes::Gradient(operand), Makes::OfKeys],
        };
        let held = made_by.iter().find_map(|makes| self.held(*makes));
        match held.filter(|_| self.call().prepares(operand)) {
            Some(view) => {
                Ok(self.rows(binding, view, operand, self.call().attention().shape.dim_qk))
            }
            None => self.out(operand),
        }
    }

    /// Where the gradient of an operand goes; where nobody wants it, what is held for it.
    fn out(&self, operand: Operand) -> Result<Role<'_>> {
        let name = operand.gradient_name();
        let held = [Makes::Unprepared(operand), Makes::Gradient(operand)];
        let held = held.into_iter().find_map(|makes| self.held(makes));
        let view = self.tensors.gradient(operand).or(held);
        let view =
            view.ok_or_else(|| Error::internal("binding gradients", format!("no {name}")))?;
        let bytes = self.plan.problem().gradient_bits(operand) / 8;
        Ok(Role { bytes, ..self.like(Binding::O, name, view, operand) })
    }

    /// What kernels that go over pairs in one pass read.
    fn pairs(&self) -> Vec<Role<'_>> {
        vec![
            self.met(Binding::Q, Operand::Q),
            self.met(Binding::K, Operand::K),
            self.given(Binding::V, Operand::V),
            self.like(Binding::DO, "d_o", self.tensors.d_o, Operand::O),
        ]
    }

    /// Each row's part in the gradient of an additive score's weights, as rows whose columns are summed.
    pub(super) fn row_parts(&self) -> Option<(Role<'_>, [u32; 3])> {
        let a = self.call().attention();
        let s = a.shape;
        let view = self.held(Makes::Gradient(Operand::ScoreV))?;
        let [batch, rows, columns] = match a.inner.is_per_head() {
            true => [s.batch, s.seq_q, s.heads_q * s.dim_qk],
            false => [1, s.batch * s.heads_q * s.seq_q, s.dim_qk],
        };
        let row = u64::from(columns);
        let strides = Strides { batch: u64::from(rows) * row, head: 0, row };
        let elements = u64::from(batch) * strides.batch;
        let name = "row_sums";
        let role = Role { binding: Binding::K, name, view, strides, elements, bytes: 4 };
        Some((role, [batch, rows, columns]))
    }

    /// What a step binds as q, k, v and o.
    pub(super) fn of(&self, step: &BackwardStep) -> Result<Vec<Role<'_>>> {
        let makes = step.makes;
        let dim_q = self.call().dim(Operand::Q);
        let d_o = |binding| self.like(binding, "d_o", self.tensors.d_o, Operand::O);
        let turned = |binding| {
            let view = self.held(Makes::Turned)?;
            Some(self.rows(binding, view, Operand::Q, dim_q))
        };
        Ok(match makes {
            Makes::Copy(of) => vec![self.given(Binding::Q, of), self.met(Binding::O, of)],
            Makes::Turned => {
                turned(Binding::O).into_iter().chain([self.given(Binding::Q, Operand::Q)]).collect()
            }
            Makes::Delta => {
                let o = self.tensors.forward.o;
                vec![self.like(Binding::O, "o", o, Operand::O), d_o(Binding::DO)]
            }
            Makes::OfRows | Makes::OfQueries => {
                let mut roles = self.pairs();
                if step.kernel.has_element(Binding::O) {
                    roles.push(self.d_met(Binding::O, Operand::Q)?);
                }
                roles
            }
            Makes::OfKeys => {
                let mut roles = self.pairs();
                if step.kernel.has_element(Binding::O) {
                    roles.push(self.d_met(Binding::O, Operand::K)?);
                }
                if step.kernel.has_element(Binding::DV) {
                    roles.push(Role { binding: Binding::DV, ..self.out(Operand::V)? });
                }
                roles
            }
            Makes::Products => {
                vec![self.met(Binding::Q, Operand::Q), self.met(Binding::K, Operand::K)]
            }
            Makes::Incoming => vec![d_o(Binding::Q), self.given(Binding::K, Operand::V)],
            Makes::Gradient(Operand::V) => vec![d_o(Binding::Q), self.out(Operand::V)?],
            Makes::Gradient(of @ (Operand::K | Operand::Q))
                if self.call().attention().inner.is_sum() =>
            {
                let [q, k] = [(Binding::Q, Operand::Q), (Binding::K, Operand::K)]
                    .map(|(binding, operand)| self.met(binding, operand));
                vec![q, k, self.d_met(Binding::O, of)?]
            }
            Makes::Gradient(Operand::K) => {
                vec![self.met(Binding::Q, Operand::Q), self.d_met(Binding::O, Operand::K)?]
            }
            Makes::Gradient(Operand::ScoreV) => {
                self.row_parts().into_iter().map(|(role, _)| role).collect()
            }
            Makes::Gradient(Operand::Q) => {
                vec![self.met(Binding::V, Operand::K), self.d_met(Binding::O, Operand::Q)?]
            }
            Makes::Unprepared(of) => {
                vec![self.given(Binding::Q, of), self.d_met(Binding::K, of)?, self.out(of)?]
            }
            Makes::Gradient(Operand::ScoreMatrix) => {
                let x = turned(Binding::Q).unwrap_or_else(|| self.given(Binding::Q, Operand::Q));
                // Columns of the matrix meet the channels of k.
                let head = u64::from(self.call().attention().shape.dim_qk);
                let strides = Strides { batch: 0, head, row: 1 };
                let out = Role { strides, ..self.out(Operand::ScoreMatrix)? };
                vec![x, self.d_met(Binding::K, Operand::Q)?, out]
            }
            Makes::Rows | Makes::Gradient(_) => Vec::new(),
        })
    }
}
