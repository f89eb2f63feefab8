//! Generated straight-line code of `split_forward`: q and o of a group's rows in registers.
//!
//! `q{r}_{d}` holds channels 4d..4d+3 of row r, in every invocation; `o{r}_{s}` the s-th vec4 of o that the invocation
//! sums, which is vec4 `lane % DIM_LANES + s * DIM_LANES` of the row.

use std::fmt::Write;

use super::bindings::Binding;
use super::element::SplitTile;
use super::registers::{component, product, row_types};
use super::spec::KernelSpec;
use crate::tensor::Storage;

/// The definitions that `kernel/split_forward.wgsl` calls.
pub(super) fn split(tile: &SplitTile, spec: &KernelSpec) -> String {
    let mut out = row_types(tile.rows);
    declare(&mut out, tile, spec);
    begin(&mut out, tile);
    product(&mut out, &tile.registers(), spec);
    out += "fn split_product(at: u32) -> RowVec { return registers_product(at, 0u); }\n";
    per_row(&mut out, tile, spec);
    masks(&mut out, tile);
    sums(&mut out, tile, spec);
    end(&mut out, tile);
    out
}

/// Component r of a per-row vector.
fn of(tile: &SplitTile, name: &str, r: u32) -> String {
    component(&tile.registers(), name, r)
}

fn declare(out: &mut String, tile: &SplitTile, spec: &KernelSpec) {
    let constants = [
        ("ROWS", tile.rows),
        ("LANES", tile.lanes),
        ("KEYS", tile.keys),
        ("DIM_LANES", tile.dim_lanes()),
        ("HIDDEN_FROM_ALL", (1 << tile.rows) - 1),
    ];
    for (name, value) in constants {
        let _ = writeln!(out, "const {name}: u32 = {value}u;");
    }
    for (name, value) in [("MASKED", spec.is_masked()), ("PAGED", spec.paged)] {
        let _ = writeln!(out, "const {name}: bool = {value};");
    }
    for r in 0..tile.rows {
        let _ = writeln!(out, "var<private> head{r}: u32;\nvar<private> row{r}: u32;");
        for d in 0..tile.dim_qk.div_ceil(4) {
            let _ = writeln!(out, "var<private> q{r}_{d}: vec4<f32>;");
        }
        for s in 0..tile.slices() {
            let _ = writeln!(out, "var<private> o{r}_{s}: vec4<f32>;");
        }
    }
}

/// Where each row is, and its q; rows past the group's last repeat it and are not written.
fn begin(out: &mut String, tile: &SplitTile) {
    *out += "fn split_begin(rows: Rows, first: u32, last: u32, row_end: u32) {\n";
    for r in 0..tile.rows {
        let _ = writeln!(out, "  let packed{r} = min(first + {r}u, last);");
        let _ = writeln!(out, "  row{r} = params.row0 + packed{r} / params.group;");
        let _ = writeln!(out, "  head{r} = rows.head + packed{r} % params.group;");
        let _ = writeln!(
            out,
            "  let at{r} = params.q_base + q_origin(rows.batch) + head{r} * params.q_stride_head + row{r} * params.q_stride_row;"
        );
        for d in 0..tile.dim_qk.div_ceil(4) {
            let (c, n) = (4 * d, (tile.dim_qk - 4 * d).min(4));
            let n = format!("select(0u, {n}u, row{r} < row_end)");
            let _ = writeln!(out, "  q{r}_{d} = q_load4(at{r} + {c}u, {n});");
        }
        for s in 0..tile.slices() {
            let _ = writeln!(out, "  o{r}_{s} = vec4<f32>(0.0);");
        }
    }
    *out += "}\n";
}

/// Score modifiers, masks and factors, row by row.
fn per_row(out: &mut String, tile: &SplitTile, spec: &KernelSpec) {
    let at = |r: u32| {
        format!(
            "Position(rows.batch, head{r}, row{r}, key, rows.q_len, rows.kv_len, rows.diagonal, rows.alibi_offset)"
        )
    };
    let mut function = |signature: &str, kind: &str, value: &dyn Fn(u32) -> String| {
        let values: Vec<String> = (0..tile.rows).map(value).collect();
        let _ = writeln!(
            out,
            "fn {signature} -> {kind} {{\n  return {kind}({});\n}}",
            values.join(", ")
        );
    };
    function("split_modify(product: RowVec, rows: Rows, key: u32)", "RowVec", &|r| {
        format!("modify({}, {})", of(tile, "product", r), at(r))
    });
    function("split_hidden(s: RowVec, rows: Rows, key: u32)", "RowMask", &|r| {
        if !spec.is_masked() {
            return "false".to_owned();
        }
        format!("is_masked({}) || !keep({})", of(tile, "s", r), at(r))
    });
    function("split_factor(rows: Rows, key: u32)", "RowVec", &|r| {
        format!("weight_factor({})", at(r))
    });
}

/// Between a mask per row and its bits.
fn masks(out: &mut String, tile: &SplitTile) {
    let bits = |r: u32| format!("select(0u, {}u, {})", 1 << r, of(tile, "hidden", r));
    let bits: Vec<String> = (0..tile.rows).map(bits).collect();
    let _ =
        writeln!(out, "fn split_bits(hidden: RowMask) -> u32 {{ return {}; }}", bits.join(" | "));
    let mask = |r: u32| format!("(bits & {}u) != 0u", 1 << r);
    let mask: Vec<String> = (0..tile.rows).map(mask).collect();
    let _ = writeln!(
        out,
        "fn split_mask(bits: u32) -> RowMask {{ return RowMask({}); }}",
        mask.join(", ")
    );
}

/// o = old · o, and o = o + p · v of one key.
fn sums(out: &mut String, tile: &SplitTile, spec: &KernelSpec) {
    *out += "fn split_rescale(old: RowVec) {\n";
    for r in 0..tile.rows {
        for s in 0..tile.slices() {
            let _ = writeln!(out, "  o{r}_{s} *= {};", of(tile, "old", r));
        }
    }
    *out += "}\nfn split_accumulate(at: u32, p: RowVec, hidden: RowMask, lane: u32) {\n";
    let storage = spec.elements.iter().find(|(b, _)| *b == Binding::V).map(|(_, x)| x.storage);
    if storage == Some(Storage::Int8) {
        *out += "  let scale = v_scale(at, 0u);\n";
    }
    let columns = tile.dim_v.div_ceil(4);
    for s in 0..tile.slices() {
        let _ = writeln!(out, "  let c{s} = lane + {}u;", s * tile.dim_lanes());
        let n = if tile.dim_v.is_multiple_of(4 * tile.dim_lanes()) {
            "4u".to_owned()
        } else {
            format!("select(0u, min({}u - 4u * c{s}, 4u), c{s} < {columns}u)", tile.dim_v)
        };
        let scale = match storage {
            Some(Storage::Int8) => " * scale".to_owned(),
            Some(Storage::Int4) => format!(" * v_scale(at, c{s} >> 3u)"),
            _ => String::new(),
        };
        let _ = writeln!(out, "  let x{s} = v_load4(at + 4u * c{s}, {n}){scale};");
        for r in 0..tile.rows {
            // Where nothing is masked a key is hidden from all rows or from none.
            let x = if spec.is_masked() {
                format!("select(x{s}, vec4<f32>(0.0), {})", of(tile, "hidden", r))
            } else {
                format!("x{s}")
            };
            let p = of(tile, "p", r);
            let _ = writeln!(out, "  o{r}_{s} = fma(vec4<f32>({p}), {x}, o{r}_{s});");
        }
    }
    *out += "}\n";
}

fn end(out: &mut String, tile: &SplitTile) {
    *out += "fn split_end(rows: Rows, first: u32, last: u32, split: u32, lane: u32, m: RowVec, l: RowVec) {\n";
    let columns = tile.dim_v.div_ceil(4);
    for r in 0..tile.rows {
        let _ =
            writeln!(out, "  let index{r} = partial_index(rows.batch, head{r}, row{r}, split);");
        for s in 0..tile.slices() {
            let _ = writeln!(out, "  let sum{r}_{s} = sum_of_parts(o{r}_{s}, lane);");
            let c = format!("lane + {}u", s * tile.dim_lanes());
            let _ = writeln!(
                out,
                "  if (first + {r}u <= last && lane < DIM_LANES && {c} < {columns}u) {{ partials[index{r} * {columns}u + {c}] = sum{r}_{s}; }}"
            );
        }
        let (m, l) = (of(tile, "m", r), of(tile, "l", r));
        let _ = writeln!(
            out,
            "  if (first + {r}u <= last && lane == 0u) {{ states[index{r}] = vec2<f32>({m}, {l}); }}"
        );
    }
    *out += "}\n";
}
