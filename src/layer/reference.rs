//! The layer in float64.

use crate::error::Result;
use crate::layer::{LayerInputs, LayerOutputs, MultiHeadAttention};
use crate::reference::{Inputs, attend};

/// Computes a layer in float64.
///
/// # Errors
/// An invalid-argument error that names the tensor whose length does not fit the layer.
pub fn forward(layer: &MultiHeadAttention, inputs: &LayerInputs<'_>) -> Result<LayerOutputs> {
    layer.validate()?;
    inputs.validate(layer)?;
    let s = layer.attention.shape;
    let w = inputs.weights;
    let [width_q, width_k, width_v, context] = layer.inner_widths().map(|n| n as usize);
    let keys = layer.input_keys();
    let q = linear(inputs.x_q, &w.w_q, &w.b_q, layer.width_q as usize, width_q);
    let k = linear(inputs.x_k, &w.w_k, &w.b_k, layer.width_k as usize, width_k);
    let v = linear(inputs.x_v, &w.w_v, &w.b_v, layer.width_v as usize, width_v);
    let k = extended(layer, &k, &w.bias_k, width_k * keys as usize, width_k);
    let v = extended(layer, &v, &w.bias_v, width_v * keys as usize, width_v);
    let problem = layer.inner().validate()?;
    let attended = attend(&problem, &Inputs { q: &q, k: &k, v: &v, operands: inputs.operands })?;

    // [batch, heads, seq, dim] to rows that hold their heads one after another.
    let (heads, seq, dim) = (s.heads_q as usize, s.seq_q as usize, s.dim_v as usize);
    let mut rows = vec![0.0; attended.o.len()];
    for (i, head) in attended.o.chunks(dim.max(1)).enumerate() {
        let (batch, h, row) = (i / (heads * seq), i / seq % heads, i % seq);
        let at = ((batch * seq + row) * heads + h) * dim;
        rows[at..at + dim].copy_from_slice(head);
    }
    let out = match layer.width_out {
        Some(width) => linear(&rows, &w.w_o, &w.b_o, context, width as usize),
        None => rows,
    };
    let weights = attended.weights.map(|all| {
        let each = (s.seq_q * s.seq_kv) as usize;
        if layer.average_weights { averaged(&all, heads, each) } else { all }
    });
    Ok(LayerOutputs { out, weights })
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
        all.resize(all.len() + if layer.extra.zero { width } else { 0 }, 0.0);
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
