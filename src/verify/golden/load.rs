//! From the arrays of a recorded case to a call with its data and what is expected of it.

use crate::error::{Error, Result};
use crate::feature::prepare::Rotary;
use crate::feature::score::{Relative, t5_table};
use crate::problem::{Attention, Operand, Problem};
use crate::tensor::{DType, Shape};
use crate::verify::compare::Tolerance;
use crate::verify::data::CaseData;
use crate::verify::golden::attributes::{apply, number, unsupported};
use crate::verify::golden::layers;
use crate::verify::golden::{Expected, Form, GoldenCase, Limit, Loaded, Precision, Role, Support};
use crate::verify::npy::{Array, Arrays};

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
    let (expected, notes) = reader.expected_packed(&problem, &data)?;
    Ok(Support::Supported(Box::new(Loaded {
        attention,
        data,
        expected,
        notes,
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

pub(super) struct Reader<'a> {
    pub(super) case: &'a GoldenCase,
    pub(super) arrays: Arrays,
    pub(super) precision: Precision,
}

impl Reader<'_> {
    pub(super) fn about(&self, error: &Error) -> Error {
        let file = self.case.path.display();
        Error::invalid(format!("{file}, case {}", self.case.name), error, "a call that fits")
    }

    pub(super) fn wrong(&self, what: &str, found: &[u64], wanted: &str) -> Error {
        let argument = format!("{}, {what} shape", self.case.path.display());
        Error::invalid(argument, format!("{found:?}"), wanted)
    }

    /// The array of an input role, if the case has that role.
    pub(super) fn input(&mut self, role: &str) -> Result<Option<Array>> {
        let name = self.case.record.inputs.get(role);
        name.map(|name| self.arrays.get(name)).transpose()
    }

    /// An input `[batch, heads, seq, dim]`.
    pub(super) fn rows(&mut self, role: &str) -> Result<Array> {
        let array = self.input(role)?.ok_or_else(|| {
            let argument = format!("case {}, inputs", self.case.name);
            Error::invalid(argument, format!("no {role}"), "q, k and v")
        })?;
        if array.shape.len() == 4 {
            return Ok(array);
        }
        Err(self.wrong(role, &array.shape, "[batch, heads, seq, dim]"))
    }

    /// An input that the case must have.
    pub(super) fn required(&mut self, role: &str) -> Result<Array> {
        self.input(role)?.ok_or_else(|| {
            let argument = format!("case {}, inputs", self.case.name);
            Error::invalid(argument, format!("no {role}"), "one")
        })
    }

    /// An input `[total, heads, dim]`.
    pub(super) fn threes(&mut self, role: &str) -> Result<Array> {
        let array = self.required(role)?;
        if array.shape.len() == 3 {
            return Ok(array);
        }
        Err(self.wrong(role, &array.shape, "[total, heads, dim]"))
    }

    /// k or v, behind its past where there is one.
    fn cached(&mut self, role: &str) -> Result<Array> {
        let new = self.rows(role)?;
        let past_role = format!("past_{role}");
        if !self.case.record.inputs.contains_key(&past_role) {
            return Ok(new);
        }
        let past = self.rows(&past_role)?;
        let fits = |axis: usize| past.shape[axis] == new.shape[axis];
        if !(fits(0) && fits(1) && fits(3)) {
            let wanted = format!("that of {role}, {:?}, but for the sequence", new.shape);
            return Err(self.wrong(&past_role, &past.shape, &wanted));
        }
        let head = |array: &Array| (array.shape[2] * array.shape[3]) as usize;
        let (old_len, new_len) = (head(&past), head(&new));
        let heads = (new.shape[0] * new.shape[1]) as usize;
        let values = (0..heads).flat_map(|h| {
            let old = &past.values[h * old_len..(h + 1) * old_len];
            old.iter().chain(&new.values[h * new_len..(h + 1) * new_len]).copied()
        });
        let values = values.collect();
        let seq = past.shape[2] + new.shape[2];
        let shape = vec![new.shape[0], new.shape[1], seq, new.shape[3]];
        Ok(Array { shape, values, is_bool: false, is_float: true })
    }

    fn shape(&self, q: &Array, k: &Array, v: &Array) -> Result<Shape> {
        let size = |n: u64| {
            u32::try_from(n).map_err(|_| self.wrong("q, k or v", &[n], "sizes below 2^32"))
        };
        let projected = self.case.record.inputs.contains_key("w_score");
        if k.shape[0] != q.shape[0] || (k.shape[3] != q.shape[3] && !projected) {
            let wanted = format!("batch and dim of q, {:?}", q.shape);
            return Err(self.wrong("k", &k.shape, &wanted));
        }
        if v.shape[..3] != k.shape[..3] {
            let wanted = format!("batch, heads and seq of k, {:?}", k.shape);
            return Err(self.wrong("v", &v.shape, &wanted));
        }
        Ok(Shape {
            batch: size(q.shape[0])?,
            heads_q: size(q.shape[1])?,
            heads_kv: size(k.shape[1])?,
            seq_q: size(q.shape[2])?,
            seq_kv: size(k.shape[2])?,
            dim_qk: size(k.shape[3])?,
            dim_v: size(v.shape[3])?,
        })
    }

    pub(super) fn dtype(&self) -> Result<DType> {
        let text = self.case.record.dtype.as_str();
        if text == "f64" {
            return Ok(DType::F32);
        }
        text.parse().map_err(|_| {
            let argument = format!("case {}, dtype", self.case.name);
            Error::invalid(argument, text, "f64, f32, f16 or bf16")
        })
    }

    pub(super) fn round(&self, x: f64, dtype: DType) -> f64 {
        match self.precision {
            Precision::Double => x,
            Precision::Stored => dtype.round(x),
        }
    }

    /// A call holds its scale in f32. In double precision what that loses is put into q.
    pub(super) fn scale_residue(&self, problem: &Problem) -> Result<f64> {
        let stored = f64::from(problem.scale());
        let exact = number(self.case, "scale")?
            .unwrap_or(1.0 / f64::from(problem.attention().shape.dim_qk).sqrt());
        let apply = self.precision == Precision::Double && stored != 0.0 && stored.is_finite();
        Ok(if apply { exact / stored } else { 1.0 })
    }

    /// Masks, biases and tables, announced in the call.
    pub(super) fn tables(
        &mut self,
        attention: &mut Attention,
        offsets: Option<&str>,
    ) -> Result<CaseData> {
        let mut data = CaseData::default();
        if let Some(mask) = self.input("mask")? {
            if !mask.is_bool {
                let argument = format!("{}, mask", self.case.path.display());
                return Err(Error::invalid(argument, "numbers", "booleans"));
            }
            *attention = attention.clone().mask(self.broadcast("mask", &mask)?);
            data.mask = mask.values.iter().map(|x| *x != 0.0).collect();
        }
        if let Some(bias) = self.input("bias")? {
            *attention = attention.clone().bias(self.broadcast("bias", &bias)?);
            data.bias = self.floats(&bias);
        }
        if let Some(slopes) = self.input("alibi_slopes")? {
            data.alibi_slopes = self.floats(&slopes);
        }
        if let Some(weights) = self.input("score_v")? {
            data.score_v = self.floats(&weights);
        }
        if let Some(matrix) = self.input("w_score")? {
            data.score_matrix = self.floats(&matrix);
        }
        if let Some(factors) = self.input("head_scale")? {
            data.head_scale = self.floats(&factors);
        }
        if let Some(sinks) = self.input("sinks")? {
            attention.sinks = true;
            data.sinks = self.floats(&sinks);
        }
        if let Some(lengths) = self.input("kv_lengths")? {
            attention.kv_lengths = true;
            data.kv_lengths = self.integers("kv_lengths", &lengths)?;
        }
        if let Some(lengths) = self.input("q_lengths")? {
            attention.q_lengths = true;
            data.q_lengths = self.integers("q_lengths", &lengths)?;
        }
        if let Some(name) = offsets {
            let table = self.arrays.get(name)?;
            data.offsets = self.integers(name, &table)?;
        }
        Ok(data)
    }

    /// Rotation of q and of the new keys; those of the past are as they were stored.
    pub(super) fn rotary(&mut self, attention: &mut Attention, data: &mut CaseData) -> Result<()> {
        let shape = attention.shape;
        let past = match self.input("past_k")? {
            Some(past) => past.shape[2] as u32,
            None => 0,
        };
        let sizes = [shape.batch, shape.seq_q, shape.seq_kv.saturating_sub(past)];
        let Some(parsed) = self.rotary_of(sizes, shape.dim_qk)? else { return Ok(()) };
        let rotary = Rotary { keys_from: past, ..parsed.rotary };
        (data.rotary_cos, data.rotary_sin) = (parsed.cos, parsed.sin);
        data.positions = parsed.positions;
        *attention = attention.clone().rotary(rotary);
        Ok(())
    }

    /// T5's bias: a learned table by buckets of relative position.
    fn relative(&mut self, attention: &mut Attention, data: &mut CaseData) -> Result<()> {
        let Some(table) = self.input("relative_table")? else { return Ok(()) };
        let given = self.case.record.attributes.get("relative_bias");
        let get = |key: &str| given.and_then(|x| x.get(key)).cloned().unwrap_or_default();
        let wrong = |key: &str| {
            let argument = format!("case {}, attribute relative_bias {key}", self.case.name);
            Error::invalid(argument, get(key), "what T5 has")
        };
        if get("type") != "t5" {
            return Err(wrong("type"));
        }
        let bidirectional = get("bidirectional").as_bool().ok_or_else(|| wrong("bidirectional"))?;
        let furthest = get("max_distance").as_u64().ok_or_else(|| wrong("max_distance"))? as u32;
        let s = attention.shape;
        let relative = Relative { left: s.seq_q.max(1) - 1, right: s.seq_kv.max(1) - 1, offset: 0 };
        let learned: Vec<f32> = table.values.iter().map(|x| *x as f32).collect();
        let expanded = t5_table(&learned, s.heads_q, bidirectional, furthest, &relative);
        data.relative = expanded.into_iter().map(f64::from).collect();
        *attention = attention.clone().relative(relative);
        Ok(())
    }

    pub(super) fn floats(&self, array: &Array) -> Vec<f64> {
        array.values.iter().map(|x| self.round(*x, DType::F32)).collect()
    }

    pub(super) fn integers<T: TryFrom<i64>>(&self, role: &str, array: &Array) -> Result<Vec<T>> {
        let integer = |x: &f64| (x.fract() == 0.0).then_some(*x as i64);
        let convert = |x: &f64| {
            integer(x).and_then(|n| T::try_from(n).ok()).ok_or_else(|| {
                let argument = format!("{}, {role}", self.case.path.display());
                Error::invalid(argument, x, "an integer in range")
            })
        };
        array.values.iter().map(convert).collect()
    }

    /// The shape of a mask or bias with leading dimensions of 1 put in.
    fn broadcast(&self, role: &str, array: &Array) -> Result<[u32; 4]> {
        let mut shape = [1; 4];
        let axes = array.shape.iter().rev().zip(shape.iter_mut().rev());
        for (found, axis) in axes {
            *axis = u32::try_from(*found)
                .map_err(|_| self.wrong(role, &array.shape, "sizes below 2^32"))?;
        }
        if array.shape.len() > 4 {
            return Err(self.wrong(role, &array.shape, "four dimensions at most"));
        }
        Ok(shape)
    }

    /// The recorded results of packed sequences, spread to `[batch, heads, seq, …]` as outputs are.
    fn expected_packed(
        &mut self,
        problem: &Problem,
        data: &CaseData,
    ) -> Result<(Vec<Expected>, Vec<String>)> {
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
        Ok((expected, vec!["gradients are not computed".into()]))
    }

    /// The recorded results with their tolerances, and notes on the others.
    fn expected(&mut self, attention: &Attention) -> Result<(Vec<Expected>, Vec<String>)> {
        let (mut expected, mut notes) = (Vec::new(), Vec::new());
        let case = self.case;
        if case.record.dtype == "f64" && self.precision == Precision::Stored {
            notes.push("recorded in f64, run in f32".into());
        }
        let gradients = case.record.expected.keys().filter(|role| role.starts_with("d_")).count();
        if gradients > 0 {
            notes.push(format!("{gradients} gradients are not computed"));
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
