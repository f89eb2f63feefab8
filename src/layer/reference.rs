//! The layer in float64.

use crate::error::Result;
use crate::layer::{LayerInputs, LayerOutputs, MultiHeadAttention};
use crate::reference::{Inputs, Outputs};

/// q, k and v as the attention reads them: rows that hold their heads one after another.
pub(super) struct Between {
    pub(super) q: Vec<f64>,
    pub(super) k: Vec<f64>,
    pub(super) v: Vec<f64>,
}

impl Between {
    pub(super) fn new(layer: &MultiHeadAttention, inputs: &LayerInputs<'_>) -> Self {
        let w = inputs.weights;
        let [width_q, width_k, width_v, _] = layer.inner_widths().map(|n| n as usize);
        let keys = layer.input_keys();
        let q = linear(inputs.x_q, &w.w_q, &w.b_q, layer.width_q as usize, width_q);
        let k = linear(inputs.x_k, &w.w_k, &w.b_k, layer.width_k as usize, width_k);
        let v = linear(inputs.x_v, &w.w_v, &w.b_v, layer.width_v as usize, width_v);
        let k = extended(layer, &k, &w.bias_k, width_k * keys as usize, width_k);
        let v = extended(layer, &v, &w.bias_v, width_v * keys as usize, width_v);
        Self { q, k, v }
    }

    /// What the attention makes of them.
    pub(super) fn attended(
        &self,
        layer: &MultiHeadAttention,
        inputs: &LayerInputs<'_>,
    ) -> Result<Outputs> {
        let Self { q, k, v } = self;
        layer.inner().validate()?.reference(&Inputs { q, k, v, operands: inputs.operands })
    }
}

impl MultiHeadAttention {
    /// Computes the layer in float64, on the CPU: `[batch, seq_q, width_out]`, and weights where the attention returns
    /// them.
    ///
    /// # Errors
    /// An invalid-argument error that names the tensor whose length does not fit the layer.
    pub fn reference(&self, inputs: &LayerInputs<'_>) -> Result<LayerOutputs> {
        self.validate()?;
        inputs.validate(self)?;
        let s = self.attention.shape;
        let w = inputs.weights;
        let [.., context] = self.inner_widths().map(|n| n as usize);
        let attended = Between::new(self, inputs).attended(self, inputs)?;
        let rows = by_rows(&attended.o, [s.batch, s.heads_q, s.seq_q, s.dim_v]);
        let out = match self.width_out {
            Some(width) => linear(&rows, &w.w_o, &w.b_o, context, width as usize),
            None => rows,
        };
        let heads = s.heads_q as usize;
        let weights = attended.weights.map(|all| {
            let each = (s.seq_q * s.seq_kv) as usize;
            if self.average_weights { averaged(&all, heads, each) } else { all }
        });
        Ok(LayerOutputs { out, weights })
    }
}

/// `[batch, heads, seq, dim]` as rows that hold their heads one after another.
pub(super) fn by_rows(values: &[f64], sizes: [u32; 4]) -> Vec<f64> {
    let mut rows = vec![0.0; values.len()];
    for (place, head) in places(sizes).zip(values.chunks((sizes[3] as usize).max(1))) {
        rows[place..place + head.len()].copy_from_slice(head);
    }
    rows
}

/// Rows that hold their heads one after another as `[batch, heads, seq, dim]`.
pub(super) fn by_heads(rows: &[f64], sizes: [u32; 4]) -> Vec<f64> {
    places(sizes).flat_map(|place| &rows[place..place + sizes[3] as usize]).copied().collect()
}

/// Where each row of each head lies among rows that hold their heads one after another.
fn places([batch, heads, seq, dim]: [u32; 4]) -> impl Iterator<Item = usize> {
    let [batch, heads, seq, dim] = [batch, heads, seq, dim].map(|n| n as usize);
    let all = (0..batch).flat_map(move |b| (0..heads).map(move |h| (b, h)));
    all.flat_map(move |(b, h)| (0..seq).map(move |row| ((b * seq + row) * heads + h) * dim))
}

/// y = x Wᵀ + b for every row of x.
fn linear(x: &[f64], w: &[f64], b: &[f64], inputs: usize, outputs: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len() / inputs.max(1) * outputs);
    for row in x.chunks_exact(inputs) {
        for (n, column) in w.chunks_exact(inputs).enumerate() {
            let sum: f64 = row.iter().zip(column).map(|(x, w)| x * w).sum();
            y.push(sum + b.get(n).copied().unwrap_or(0.0));
        }
    }
    y
}

/// Keys or values with the layer's own behind those of each sequence.
fn extended(
    layer: &MultiHeadAttention,
    rows: &[f64],
    learned: &[f64],
    sequence: usize,
    width: usize,
) -> Vec<f64> {
    let mut all = Vec::new();
    for batch in 0..layer.attention.shape.batch as usize {
        all.extend_from_slice(&rows[batch * sequence..(batch + 1) * sequence]);
        all.extend_from_slice(learned);
        all.resize(all.len() + if layer.zero_key { width } else { 0 }, 0.0);
    }
    all
}

fn averaged(weights: &[f64], heads: usize, each: usize) -> Vec<f64> {
    let mut mean = Vec::with_capacity(weights.len() / heads.max(1));
    for batch in weights.chunks(heads * each.max(1)) {
        for i in 0..each {
            let sum: f64 = batch.chunks(each).map(|head| head[i]).sum();
            mean.push(sum / heads as f64);
        }
    }
    mean
}
