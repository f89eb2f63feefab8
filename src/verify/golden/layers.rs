//! Recorded cases that are more than one attention call: layers, graphs, rotations.

use crate::error::{Error, Result};
use crate::feature::mask::Edges;
use crate::layer::{HostWeights, MultiHeadAttention};
use crate::problem::{Attention, WeightsAt};
use crate::tensor::{Layout, Shape};
use crate::verify::data::CaseData;
use crate::verify::golden::attributes::{apply, number};
use crate::verify::golden::reader::Reader;
use crate::verify::golden::{Expected, Form, LayerCase, Loaded, Role, Support};
use crate::verify::npy::Array;

/// A case of kind `mha_layer`: `[batch, rows, width]` inputs and a layer's weights.
pub(super) fn layer(mut reader: Reader<'_>) -> Result<Support> {
    let x_q = reader.threes("x_q")?;
    let x_k = reader.three_or("x_k", &x_q)?;
    let x_v = reader.three_or("x_v", &x_k)?;
    let w_q = reader.required("w_q")?;
    let (w_k, w_v) = (reader.required("w_k")?, reader.required("w_v")?);
    let w_o = reader.input("w_o")?;
    let heads_q = number(reader.case, "num_heads")?.unwrap_or(1.0) as u32;
    let heads_kv = number(reader.case, "num_heads_kv")?.map_or(heads_q, |n| n as u32);
    let flag = |key: &str| {
        let value = reader.case.record.attributes.get(key);
        value.and_then(serde_json::Value::as_bool).unwrap_or(false)
    };
    let (learned_key, zero_key) = (flag("bias_kv"), flag("zero_kv"));
    let average_weights = flag("average_weights");
    let added = u32::from(learned_key) + u32::from(zero_key);
    let shape = Shape {
        batch: x_q.shape[0] as u32,
        heads_q,
        heads_kv,
        seq_q: x_q.shape[1] as u32,
        seq_kv: x_k.shape[1] as u32 + added,
        dim_qk: w_q.shape[0] as u32 / heads_q.max(1),
        dim_v: w_v.shape[0] as u32 / heads_kv.max(1),
    };
    let (mut attention, offsets) = apply(reader.case, Attention::new(shape))?;
    let mut data = reader.tables(&mut attention, offsets.as_deref())?;
    reader.rotary(&mut attention, &mut data)?;
    let layer = MultiHeadAttention {
        attention,
        width_q: x_q.shape[2] as u32,
        width_k: x_k.shape[2] as u32,
        width_v: x_v.shape[2] as u32,
        width_out: w_o.as_ref().map(|w| w.shape[0] as u32),
        learned_key,
        zero_key,
        average_weights,
    };
    let mut vector = |role: &str| -> Result<Vec<f64>> {
        Ok(reader.input(role)?.map_or_else(Vec::new, |x| reader.floats(&x)))
    };
    let mut weights = HostWeights {
        w_o: vector("w_o")?,
        b_q: vector("b_q")?,
        b_k: vector("b_k")?,
        b_v: vector("b_v")?,
        b_o: vector("b_o")?,
        bias_k: vector("bias_k")?,
        bias_v: vector("bias_v")?,
        ..HostWeights::default()
    };
    weights.w_q = reader.floats(&w_q);
    weights.w_k = reader.floats(&w_k);
    weights.w_v = reader.floats(&w_v);
    let [x_q, x_k, x_v] = [x_q, x_k, x_v].map(|x| reader.floats(&x));
    layer.validate().map_err(|e| reader.about(&e))?;
    let expected = reader.named(&["out", "weights"])?;
    let case = LayerCase { layer, x_q, x_k, x_v, weights };
    finish(&reader, Form::Layer(Box::new(case)), data, expected, None)
}

/// A case of kind `gat`: graph attention as a layer of additive scores along edges.
pub(super) fn graph(mut reader: Reader<'_>) -> Result<Support> {
    let x = reader.required("x")?;
    let (nodes, width) = (x.shape[0] as u32, x.shape[1] as u32);
    let heads = number(reader.case, "num_heads")?.unwrap_or(1.0) as u32;
    let slope = number(reader.case, "negative_slope")?.unwrap_or(0.2) as f32;
    let attribute = |key: &str| reader.case.record.attributes.get(key).cloned().unwrap_or_default();
    let second = attribute("form") == "gatv2";
    let concat = attribute("concat").as_bool().unwrap_or(true);
    let (mut weights, [dim_qk, dim_v], score_v) = if second {
        second_form(&mut reader, heads)?
    } else {
        first_form(&mut reader, heads, width)?
    };
    // Heads one after another, or their mean.
    let context = heads * dim_v;
    let width_out = if concat { context } else { dim_v };
    weights.w_o = (0..width_out * context)
        .map(|i| {
            let (out, c) = (i / context, i % context);
            let share = if concat { 1.0 } else { 1.0 / f64::from(heads) };
            if out == c || (!concat && out == c % dim_v) { share } else { 0.0 }
        })
        .collect();
    weights.b_o = match reader.input("b")? {
        Some(b) => reader.floats(&b),
        None => Vec::new(),
    };
    let edges = match reader.edges(nodes)? {
        Ok(edges) => edges,
        Err(reason) => return Ok(Support::Unsupported(reason)),
    };
    let shape = Shape { dim_qk, dim_v, ..Shape::self_attention(1, heads, nodes, dim_v) };
    let attention = Attention::new(shape)
        .additive_leaky(slope)
        .edges(Edges { count: edges.len() as u32, bias: false })
        .with_weights(WeightsAt::Probabilities);
    let (edge_starts, edge_keys, _) = Edges::rows(&edges, nodes, nodes)?;
    let data = CaseData { score_v, edge_starts, edge_keys, ..CaseData::default() };
    let layer = MultiHeadAttention {
        width_out: Some(width_out),
        ..MultiHeadAttention::new(attention, width)
    };
    let x = reader.floats(&x);
    let case = LayerCase { layer, x_q: x.clone(), x_k: x.clone(), x_v: x, weights };
    let expected = reader.named(&["out", "weights"])?;
    finish(&reader, Form::Layer(Box::new(case)), data, expected, Some(edges))
}

/// The projections of a graph layer, its channels per head of q and of v, and the weights of its score.
type GraphForm = (HostWeights, [u32; 2], Vec<f64>);

/// GATv2: a · LeakyReLU(W_dst h_i + W_src h_j).
fn second_form(reader: &mut Reader<'_>, heads: u32) -> Result<GraphForm> {
    let mut weights = HostWeights::default();
    let att = reader.required("att")?;
    let dim = att.values.len() as u32 / heads.max(1);
    let mut vector = |role: &str| -> Result<Vec<f64>> {
        let array = reader.required(role)?;
        Ok(reader.floats(&array))
    };
    (weights.w_q, weights.b_q) = (vector("w_dst")?, vector("b_dst")?);
    (weights.w_k, weights.b_k) = (vector("w_src")?, vector("b_src")?);
    (weights.w_v, weights.b_v) = (weights.w_k.clone(), weights.b_k.clone());
    Ok((weights, [dim, dim], reader.floats(&att)))
}

/// GAT: LeakyReLU(a_dst · W h_i + a_src · W h_j).
fn first_form(reader: &mut Reader<'_>, heads: u32, width: u32) -> Result<GraphForm> {
    let mut weights = HostWeights::default();
    // a · (W h) is one channel per head: the row aᵀ W of a matrix.
    let w = reader.required("w")?;
    let w = reader.floats(&w);
    let dim = (w.len() as u32 / width.max(1) / heads.max(1)) as usize;
    let mut row = |role: &str| -> Result<Vec<f64>> {
        let a = reader.required(role)?;
        let a = reader.floats(&a);
        let entry = |h: usize, c: usize| -> f64 {
            (0..dim).map(|d| a[h * dim + d] * w[(h * dim + d) * width as usize + c]).sum()
        };
        let pairs = (0..heads as usize).flat_map(|h| (0..width as usize).map(move |c| (h, c)));
        Ok(pairs.map(|(h, c)| entry(h, c)).collect())
    };
    (weights.w_q, weights.w_k) = (row("att_dst")?, row("att_src")?);
    weights.w_v = w;
    Ok((weights, [1, dim as u32], vec![1.0; heads as usize]))
}

/// A case of kind `edge_attention`: q, k, v `[nodes, heads, dim]` along edges.
pub(super) fn edge_attention(mut reader: Reader<'_>) -> Result<Support> {
    let [q, k, v] = ["q", "k", "v"].map(|role| reader.threes(role));
    let (q, k, v) = (q?, k?, v?);
    let nodes = q.shape[0] as u32;
    let shape = Shape {
        batch: 1,
        heads_q: q.shape[1] as u32,
        heads_kv: k.shape[1] as u32,
        seq_q: nodes,
        seq_kv: k.shape[0] as u32,
        dim_qk: q.shape[2] as u32,
        dim_v: v.shape[2] as u32,
    };
    let edges = match reader.edges(nodes)? {
        Ok(edges) => edges,
        Err(reason) => return Ok(Support::Unsupported(reason)),
    };
    let graph = Edges { count: edges.len() as u32, bias: false };
    let attention = Attention::new(shape).layout(Layout::Bshd).edges(graph);
    let (edge_starts, edge_keys, _) = Edges::rows(&edges, nodes, shape.seq_kv)?;
    let attention = Attention { layout_o: Layout::Bshd, ..attention };
    let (attention, _) = apply(reader.case, attention)?;
    let data = CaseData {
        q: reader.floats(&q),
        k: reader.floats(&k),
        v: reader.floats(&v),
        edge_starts,
        edge_keys,
        ..CaseData::default()
    };
    let mut expected = reader.named(&["out", "weights"])?;
    // Recorded [nodes, heads, dim]; outputs are [heads, nodes, dim].
    let [nodes, heads, dim] = [shape.seq_q, shape.heads_q, shape.dim_v].map(|n| n as usize);
    for role in expected.iter_mut().filter(|x| x.role == Role::Out) {
        let at = |i: usize| {
            let (h, n, c) = (i / (nodes * dim), i / dim % nodes, i % dim);
            role.values[(n * heads + h) * dim + c]
        };
        role.values = (0..role.values.len()).map(at).collect();
    }
    let loaded = Loaded {
        attention,
        data,
        expected,
        notes: Vec::new(),
        form: Form::Attention,
        edges: Some(edges),
    };
    Ok(Support::Supported(Box::new(loaded)))
}

/// A case of kind `rotary_embedding`: x `[batch, heads, seq, dim]`, rotated.
pub(super) fn rotation(mut reader: Reader<'_>) -> Result<Support> {
    let x = reader.rows("x")?;
    let [batch, heads, seq, dim] = [0, 1, 2, 3].map(|axis| x.shape[axis] as u32);
    let shape = Shape { batch, ..Shape::self_attention(batch, heads, seq, dim) };
    let mut attention = Attention::new(shape).dtype(reader.dtype()?);
    let mut data = CaseData::default();
    reader.rotary(&mut attention, &mut data)?;
    let values: Vec<f64> = x.values.iter().map(|x| reader.round(*x, attention.dtype)).collect();
    data = CaseData { q: values.clone(), k: values.clone(), v: values, ..data };
    let expected = reader.named(&["out"])?;
    let notes = Vec::new();
    let form = Form::Rotation;
    Ok(Support::Supported(Box::new(Loaded { attention, data, expected, notes, form, edges: None })))
}

fn finish(
    reader: &Reader<'_>,
    form: Form,
    data: CaseData,
    expected: Vec<Expected>,
    edges: Option<Vec<[u32; 2]>>,
) -> Result<Support> {
    let Form::Layer(case) = &form else {
        return Err(Error::internal("reading a layer", "no layer"));
    };
    let attention = case.layer.inner();
    let mut notes = Vec::new();
    if reader.case.record.dtype == "f64" {
        notes.push("recorded in f64, run in f32".into());
    }
    Ok(Support::Supported(Box::new(Loaded { attention, data, expected, notes, form, edges })))
}

impl Reader<'_> {
    /// An input `[batch, rows, width]`, or another input where the case lacks it.
    fn three_or(&mut self, role: &str, other: &Array) -> Result<Array> {
        match self.case.record.inputs.contains_key(role) {
            true => self.threes(role),
            false => Ok(other.clone()),
        }
    }

    /// (source, destination) of every edge; why it cannot be a mask, where it cannot.
    fn edges(&mut self, nodes: u32) -> Result<Result<Vec<[u32; 2]>, String>> {
        let array = self.required("edges")?;
        let ends: Vec<u32> = self.integers("edges", &array)?;
        let (sources, destinations) = ends.split_at(ends.len() / 2);
        let edges: Vec<[u32; 2]> =
            sources.iter().zip(destinations).map(|(s, d)| [*s, *d]).collect();
        if let Some(edge) = edges.iter().find(|edge| edge.iter().any(|end| *end >= nodes)) {
            let argument = format!("case {}, edges", self.case.name);
            return Err(Error::invalid(argument, format!("{edge:?}"), format!("below {nodes}")));
        }
        let distinct: std::collections::HashSet<_> = edges.iter().collect();
        if distinct.len() < edges.len() {
            return Ok(Err("an edge that is there twice: a mask holds it once".into()));
        }
        Ok(Ok(edges))
    }

    /// The recorded results of the given roles, as they are.
    fn named(&mut self, roles: &[&str]) -> Result<Vec<Expected>> {
        let mut expected = Vec::new();
        for (name, array) in &self.case.record.expected {
            let role = match name.as_str() {
                "out" => Role::Out,
                "weights" => Role::Weights,
                _ => continue,
            };
            if roles.contains(&name.as_str()) {
                let values = self.arrays.get(array)?.values;
                expected.push(Expected { role, values, tolerance: self.tolerance(name) });
            }
        }
        Ok(expected)
    }
}
