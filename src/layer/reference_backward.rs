//! The gradients of a layer in float64.

use crate::error::{Error, Result};
use crate::layer::backward::{LayerBackward, LayerGradients, LayerTensor, Projection};
use crate::layer::reference::{Between, by_heads, by_rows};
use crate::layer::{LayerInputs, MultiHeadAttention};
use crate::reference::{Gradients, Incoming, Inputs};

impl LayerBackward {
    /// Computes the gradients that are wanted in float64, on the CPU, from that of the layer's output, `d_out`
    /// `[batch, seq_q, width_out]`. Each is as long as what it is the gradient of.
    ///
    /// # Errors
    /// Invalid argument for gradients that the layer cannot have, or naming the tensor whose length does not fit it.
    pub fn reference(&self, inputs: &LayerInputs<'_>, d_out: &[f64]) -> Result<LayerGradients> {
        self.validate()?;
        inputs.validate(&self.layer)?;
        let layer = &self.layer;
        let s = layer.attention.shape;
        let w = inputs.weights;
        let [.., context] = layer.inner_widths().map(|n| n as usize);
        let out = layer.width_out.map_or(context, |n| n as usize);
        let rows = s.batch as usize * s.seq_q as usize;
        if d_out.len() != rows * out {
            return Err(Error::invalid("d_out", d_out.len(), format!("{} elements", rows * out)));
        }
        let between = Between::new(layer, inputs);
        let mut found = LayerGradients::default();
        let mut keep = |tensor, values| {
            if self.wants(tensor) {
                found.insert(tensor, values);
            }
        };
        let mut d_context = d_out.to_vec();
        if layer.width_out.is_some() {
            let o = between.attended(layer, inputs)?.o;
            let o = by_rows(&o, [s.batch, s.heads_q, s.seq_q, s.dim_v]);
            keep(LayerTensor::WO, of_matrix(d_out, &o, out, context));
            keep(LayerTensor::BO, of_vector(d_out, out));
            d_context = of_input(d_out, &w.w_o, out, context);
        }
        let Some(call) = self.attention() else { return Ok(found) };
        let problem = call.validate()?;
        let Between { q, k, v } = &between;
        let attended = Inputs { q, k, v, operands: inputs.operands };
        let d_o = by_heads(&d_context, [s.batch, s.heads_q, s.seq_q, s.dim_v]);
        let incoming = Incoming { o: &d_o, ..Incoming::default() };
        let gradients = problem.reference(&attended, &incoming)?;

        for (one, [x, matrix]) in Projection::all(layer).iter().zip([
            [inputs.x_q, &w.w_q],
            [inputs.x_k, &w.w_k],
            [inputs.x_v, &w.w_v],
        ]) {
            let Some(d) = gradients.get(one.operand) else { continue };
            let [inputs, outputs] = [one.inputs, one.outputs()].map(|n| n as usize);
            let d = by_rows(d, [s.batch, one.heads, one.seq, one.dim]);
            let (d, learned) = without_extra(layer, &d, one);
            keep(one.x, of_input(&d, matrix, outputs, inputs));
            keep(one.w, of_matrix(&d, x, outputs, inputs));
            keep(one.b, of_vector(&d, outputs));
            one.extra.into_iter().for_each(|extra| keep(extra, learned.clone()));
        }
        let mut learned = Gradients::default();
        for operand in &self.between {
            learned.insert(*operand, gradients.get(*operand).unwrap_or_default().to_vec());
        }
        found.between = learned;
        Ok(found)
    }
}

/// d W for every row of d.
fn of_input(d: &[f64], w: &[f64], outputs: usize, inputs: usize) -> Vec<f64> {
    let mut x = Vec::with_capacity(d.len() / outputs.max(1) * inputs);
    for row in d.chunks_exact(outputs) {
        for c in 0..inputs {
            x.push(row.iter().enumerate().map(|(n, d)| d * w[n * inputs + c]).sum());
        }
    }
    x
}

/// Σ over rows of dᵀ x; rows that pass nothing on are left out.
fn of_matrix(d: &[f64], x: &[f64], outputs: usize, inputs: usize) -> Vec<f64> {
    let mut w = vec![0.0; outputs * inputs];
    for (d, x) in d.chunks_exact(outputs).zip(x.chunks_exact(inputs)) {
        for (d, w) in d.iter().zip(w.chunks_exact_mut(inputs)).filter(|(d, _)| **d != 0.0) {
            w.iter_mut().zip(x).for_each(|(w, x)| *w += d * x);
        }
    }
    w
}

/// Σ over rows of d.
fn of_vector(d: &[f64], outputs: usize) -> Vec<f64> {
    let mut b = vec![0.0; outputs];
    for d in d.chunks_exact(outputs) {
        b.iter_mut().zip(d).for_each(|(b, d)| *b += d);
    }
    b
}

/// The rows of the input, and the sum of what the learned row behind them has.
fn without_extra(layer: &MultiHeadAttention, d: &[f64], of: &Projection) -> (Vec<f64>, Vec<f64>) {
    let width = of.outputs() as usize;
    let (mut rows, mut learned) = (Vec::new(), vec![0.0; width]);
    for sequence in d.chunks_exact((of.seq as usize * width).max(1)) {
        let (input, extra) = sequence.split_at(of.rows as usize * width);
        rows.extend_from_slice(input);
        if layer.learned_key {
            learned.iter_mut().zip(extra).for_each(|(sum, d)| *sum += d);
        }
    }
    (rows, learned)
}
