//! Rotary attributes and caches of a recorded case.

use crate::error::{Error, Result};
use crate::feature::prepare::Rotary;
use crate::feature::rotary::RotaryScaling;
use crate::verify::golden::reader::Reader;

/// A rotation with its tables.
pub(super) struct Parsed {
    pub(super) rotary: Rotary,
    pub(super) cos: Vec<f64>,
    pub(super) sin: Vec<f64>,
    pub(super) positions: Vec<u32>,
}

impl Reader<'_> {
    /// The rotation that a case asks for, of rows `[batch, seq]` and so many new keys, with `dim` channels.
    pub(super) fn rotary_of(
        &mut self,
        [batch, seq, keys]: [u32; 3],
        dim: u32,
    ) -> Result<Option<Parsed>> {
        let Some(given) = self.case.record.attributes.get("rotary") else { return Ok(None) };
        let argument = |key: &str| format!("case {}, attribute rotary {key}", self.case.name);
        let interleaved = given.get("interleaved").and_then(serde_json::Value::as_bool);
        let turned = given.get("dim").and_then(serde_json::Value::as_u64);
        let base = given.get("base").and_then(serde_json::Value::as_f64);
        let dim = turned.map_or(dim, |dim| dim as u32);
        let missing = Error::invalid(argument("base"), "nothing", "a number, or cos_cache");
        let ids: Option<Vec<u32>> = match self.input("position_ids")? {
            Some(ids) => {
                let values: Vec<u32> = self.integers("position_ids", &ids)?;
                // One row of ids serves the whole batch.
                let repeats = (u64::from(batch * seq) / ids.values.len().max(1) as u64).max(1);
                Some(values.repeat(repeats as usize))
            }
            None => None,
        };
        let cached = match (self.input("cos_cache")?, self.input("sin_cache")?) {
            (Some(cos), Some(sin)) => Some((self.floats(&cos), self.floats(&sin), cos.shape.len())),
            _ => None,
        };
        // Without ids and caches both sides are counted from 0, however long they are.
        let counted = cached.is_none() && ids.is_none();
        let (cos, sin, positions) = match (cached, ids) {
            (Some((cos, sin, _)), Some(ids)) => (cos, sin, ids),
            // [batch, seq, dim / 2]: a position of its own for every row.
            (Some((cos, sin, _)), None) => (cos, sin, (0..batch * seq).collect()),
            (None, ids) => {
                let base = base.ok_or(missing)?;
                let last = ids.as_ref().and_then(|ids| ids.iter().max().copied());
                let rows = last.map_or(seq.max(keys).max(1), |last| last + 1);
                let (cos, sin) = RotaryScaling::None.tables(dim, base, rows)?;
                let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
                (wide(cos), wide(sin), ids.unwrap_or_default())
            }
        };
        let table_rows = (cos.len() / (dim as usize / 2).max(1)) as u32;
        let rotary = Rotary {
            interleaved: interleaved.unwrap_or(false),
            ids: !counted,
            ..Rotary::new(dim, table_rows)
        };
        Ok(Some(Parsed { rotary, cos, sin, positions }))
    }
}
