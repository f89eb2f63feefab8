//! The arrays of a recorded case, as what they are to a call.

use crate::error::{Error, Result};
use crate::feature::prepare::Rotary;
use crate::feature::score::Relative;
use crate::problem::{Attention, Problem};
use crate::tensor::{DType, Shape};
use crate::verify::data::CaseData;
use crate::verify::golden::attributes::number;
use crate::verify::golden::{GoldenCase, Precision};
use crate::verify::npy::{Array, Arrays};

/// A recorded case with its arrays.
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
    pub(super) fn cached(&mut self, role: &str) -> Result<Array> {
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

    pub(super) fn shape(&self, q: &Array, k: &Array, v: &Array) -> Result<Shape> {
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
    pub(super) fn relative(
        &mut self,
        attention: &mut Attention,
        data: &mut CaseData,
    ) -> Result<()> {
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
        let expanded = relative.t5_table(&learned, s.heads_q, bidirectional, furthest)?;
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
    pub(super) fn broadcast(&self, role: &str, array: &Array) -> Result<[u32; 4]> {
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
}
