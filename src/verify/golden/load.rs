//! From the arrays of a recorded case to a call with its data and what is expected of it.

use crate::error::{Error, Result};
use crate::problem::Attention;
use crate::tensor::Shape;
use crate::verify::data::CaseData;
use crate::verify::golden::attributes::{apply, unsupported};
use crate::verify::golden::layers;
use crate::verify::golden::reader::Reader;
use crate::verify::golden::{Form, GoldenCase, Loaded, Precision, Support};
use crate::verify::npy::Arrays;

pub(super) fn load(case: &GoldenCase, precision: Precision) -> Result<Support> {
    if let Some(reason) = unsupported(case) {
        return Ok(Support::Unsupported(reason));
    }
    let mut reader = Reader { case, arrays: Arrays::open(&case.path)?, precision };
    match case.record.kind.as_str() {
        "varlen" => return packed(reader),
        "paged" => return paged(reader),
        "mha_layer" => return layers::layer(reader),
        "gat" => return layers::graph(reader),
        "edge_attention" => return layers::edge_attention(reader),
        "rotary_embedding" => return layers::rotation(reader),
        _ => {}
    }
    let (q, k, v) = (reader.rows("q")?, reader.cached("k")?, reader.cached("v")?);
    let shape = reader.shape(&q, &k, &v)?;
    let mut attention = Attention::new(shape).dtype(reader.dtype()?);
    if case.record.inputs.contains_key("w_score") {
        attention = attention.general(q.shape[3] as u32);
    }
    let (mut attention, offsets) = apply(case, attention)?;
    let mut tables = reader.tables(&mut attention, offsets.as_deref())?;
    reader.rotary(&mut attention, &mut tables)?;
    reader.relative(&mut attention, &mut tables)?;
    let problem = attention.validate().map_err(|e| reader.about(&e))?;
    let residue = reader.scale_residue(&problem)?;
    // Where it is not q that scores are linear in, what the scale loses goes elsewhere.
    let linear = !attention.inner.is_sum() && attention.cosine.is_none();
    let (residue, elsewhere) = if linear { (residue, 1.0) } else { (1.0, residue) };
    tables.score_v.iter_mut().for_each(|w| *w *= elsewhere);
    tables.head_scale.iter_mut().for_each(|w| *w *= elsewhere);
    let round = |x: &f64| reader.round(*x, attention.dtype);
    let data = CaseData {
        q: q.values.iter().map(|x| round(&(x * residue))).collect(),
        k: k.values.iter().map(round).collect(),
        v: v.values.iter().map(round).collect(),
        ..tables
    };
    data.inputs().validate(&problem).map_err(|e| reader.about(&e))?;
    let (expected, notes) = reader.expected(&attention)?;
    Ok(Support::Supported(Box::new(Loaded {
        attention,
        data,
        expected,
        notes,
        form: Form::Attention,
        edges: None,
    })))
}

/// A case of kind `varlen`: `[total, heads, dim]` tensors of sequences one after another.
fn packed(mut reader: Reader<'_>) -> Result<Support> {
    let [q, k, v] = ["q", "k", "v"].map(|role| reader.threes(role));
    let (q, k, v) = (q?, k?, v?);
    let size = |n: u64| {
        u32::try_from(n).map_err(|_| Error::invalid("packed tensors", n, "sizes below 2^32"))
    };
    let starts = |reader: &mut Reader<'_>, role: &str| -> Result<Vec<u32>> {
        let array = reader.required(role)?;
        reader.integers(role, &array)
    };
    let cu_seqlens_q = starts(&mut reader, "cu_seqlens_q")?;
    let cu_seqlens_kv = starts(&mut reader, "cu_seqlens_k")?;
    let longest =
        |table: &[u32]| table.windows(2).map(|w| w[1].saturating_sub(w[0])).max().unwrap_or(0);
    let shape = Shape {
        batch: size(cu_seqlens_q.len().saturating_sub(1) as u64)?,
        heads_q: size(q.shape[1])?,
        heads_kv: size(k.shape[1])?,
        seq_q: longest(&cu_seqlens_q),
        seq_kv: longest(&cu_seqlens_kv),
        dim_qk: size(q.shape[2])?,
        dim_v: size(v.shape[2])?,
    };
    let attention = Attention::new(shape).dtype(reader.dtype()?);
    let attention = attention.packed(size(q.shape[0])?, size(k.shape[0])?);
    let (mut attention, offsets) = apply(reader.case, attention)?;
    let tables = reader.tables(&mut attention, offsets.as_deref())?;
    let problem = attention.validate().map_err(|e| reader.about(&e))?;
    let residue = reader.scale_residue(&problem)?;
    let round = |x: &f64| reader.round(*x, attention.dtype);
    let data = CaseData {
        q: q.values.iter().map(|x| round(&(x * residue))).collect(),
        k: k.values.iter().map(round).collect(),
        v: v.values.iter().map(round).collect(),
        cu_seqlens_q,
        cu_seqlens_kv,
        ..tables
    };
    data.inputs().validate(&problem).map_err(|e| reader.about(&e))?;
    let expected = reader.expected_packed(&problem, &data)?;
    Ok(Support::Supported(Box::new(Loaded {
        attention,
        data,
        expected,
        notes: Vec::new(),
        form: Form::Attention,
        edges: None,
    })))
}

/// A case of kind `paged`: keys and values in pages `[pages, page_size, heads_kv, dim]`.
fn paged(mut reader: Reader<'_>) -> Result<Support> {
    let [q, k, v] = ["q", "k_pages", "v_pages"].map(|role| reader.rows(role));
    let (q, k, v) = (q?, k?, v?);
    let table = reader.required("block_table")?;
    let size = |n: u64| {
        u32::try_from(n).map_err(|_| Error::invalid("paged tensors", n, "sizes below 2^32"))
    };
    if table.shape.len() != 2 || table.shape[0] != q.shape[0] {
        return Err(reader.wrong("block_table", &table.shape, "[batch, max_blocks]"));
    }
    let (page_size, row) = (size(k.shape[1])?, size(table.shape[1])?);
    let shape = Shape {
        batch: size(q.shape[0])?,
        heads_q: size(q.shape[1])?,
        heads_kv: size(k.shape[2])?,
        seq_q: size(q.shape[2])?,
        seq_kv: row.saturating_mul(page_size),
        dim_qk: size(q.shape[3])?,
        dim_v: size(v.shape[3])?,
    };
    let attention = Attention::new(shape).dtype(reader.dtype()?);
    let attention = attention.paged(size(k.shape[0])?, page_size, row);
    let (mut attention, offsets) = apply(reader.case, attention)?;
    let tables = reader.tables(&mut attention, offsets.as_deref())?;
    let problem = attention.validate().map_err(|e| reader.about(&e))?;
    let residue = reader.scale_residue(&problem)?;
    let round = |x: &f64| reader.round(*x, attention.dtype);
    // Unused entries are -1, which is no page.
    let page = |x: &i64| u32::try_from(*x).unwrap_or(u32::MAX);
    let data = CaseData {
        q: q.values.iter().map(|x| round(&(x * residue))).collect(),
        k: k.values.iter().map(round).collect(),
        v: v.values.iter().map(round).collect(),
        page_table: reader.integers("block_table", &table)?.iter().map(page).collect(),
        ..tables
    };
    data.inputs().validate(&problem).map_err(|e| reader.about(&e))?;
    let (expected, notes) = reader.expected(&attention)?;
    Ok(Support::Supported(Box::new(Loaded {
        attention,
        data,
        expected,
        notes,
        form: Form::Attention,
        edges: None,
    })))
}
