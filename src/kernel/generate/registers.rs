//! Generated straight-line code of the fused row kernels: q and o of an invocation's rows in registers.
//!
//! Compilers keep arrays in registers only when every index is a constant after unrolling, and the
//! loop guards that validation adds defeat unrolling. So registers are numbered variables, and each
//! step over a head dimension is written out: `q{r}_{d}` and `o{r}_{d}` hold elements 4d..4d+3 of row r.

use std::fmt::Write;

use crate::kernel::bindings::Binding;
use crate::kernel::element::RowTile;
use crate::kernel::spec::KernelSpec;
use crate::tensor::Scales;

const ACCUMULATE: &str = "fn registers_accumulate(at: u32, slice: u32, old: RowVec, p: RowVec)";
const ACCUMULATE_SHOWN: &str =
    "fn registers_accumulate_shown(at: u32, slice: u32, old: RowVec, p: RowVec, hidden: RowMask)";

/// Which rows take part in a weighted sum.
#[derive(Clone, Copy)]
enum Rows {
    All,
    Shown,
}

/// The definitions that `common/fused_rows.wgsl` calls.
pub(in crate::kernel) fn registers(tile: &RowTile, spec: &KernelSpec) -> String {
    let masked = spec.is_masked();
    let mut out = types(tile, masked);
    declare(&mut out, tile, spec.is_additive());
    load_q(&mut out, tile, spec.is_additive());
    product(&mut out, tile, spec, |r, d| format!("q{r}_{d}"));
    per_row(&mut out, tile);
    accumulate(&mut out, tile, spec, Rows::All);
    if masked {
        accumulate(&mut out, tile, spec, Rows::Shown);
    } else {
        // Never called, but named.
        let _ = writeln!(out, "{ACCUMULATE_SHOWN} {{}}");
    }
    finish(&mut out, tile);
    out
}

fn rows(tile: &RowTile) -> std::ops::Range<u32> {
    0..tile.rows
}

/// Component r of a vector with one for each of `n` rows; a single row is a scalar.
pub(in crate::kernel) fn component(n: u32, name: &str, r: u32) -> String {
    if n == 1 { name.to_owned() } else { format!("{name}[{r}u]") }
}

/// Types with one component per row (in the staged normaliser, per score of a row), and a test on them.
pub(in crate::kernel) fn row_types(n: u32) -> String {
    let of = |scalar: &str| if n == 1 { scalar.to_owned() } else { format!("vec{n}<{scalar}>") };
    let (float, boolean, bits) = (of("f32"), of("bool"), of("u32"));
    format!(
        "alias RowVec = {float};\nalias RowMask = {boolean};\n\
         // By bits: comparisons with NaN may be assumed away.\n\
         fn nan_rows(x: RowVec) -> RowMask {{ \
         return (bitcast<{bits}>(x) & {bits}(0x7fffffffu)) > {bits}(0x7f800000u); }}\n"
    )
}

fn types(tile: &RowTile, masked: bool) -> String {
    let all = if tile.rows == 1 { "hidden" } else { "all(hidden)" };
    let types = row_types(tile.rows);
    format!(
        "{types}const ROWS: u32 = {}u;\nconst LANES: u32 = {}u;\nconst FETCH: u32 = {}u;\n\
         const ROW_STEP: u32 = {}u;\nconst GROUP_ROWS: u32 = {}u;\nconst WIDE: bool = {};\n\
         const MASKED: bool = {masked};\n\
         fn registers_all(hidden: RowMask) -> bool {{ return {all}; }}\n",
        tile.rows,
        tile.lanes,
        tile.fetch,
        if tile.wide { 1 } else { tile.lanes },
        tile.group_rows(),
        tile.wide
    )
}

fn declare(out: &mut String, tile: &RowTile, additive: bool) {
    for d in 0..if additive { tile.slices(tile.dim_qk) } else { 0 } {
        let _ = writeln!(out, "var<private> w_{d}: vec4<f32>;");
    }
    for r in rows(tile) {
        for d in 0..tile.slices(tile.dim_qk) {
            let _ = writeln!(out, "var<private> q{r}_{d}: vec4<f32>;");
        }
        for d in 0..tile.slices(tile.dim_v) {
            let _ = writeln!(out, "var<private> o{r}_{d}: vec4<f32>;");
        }
    }
}

fn load_q(out: &mut String, tile: &RowTile, additive: bool) {
    *out += "fn registers_load_q(head: u32, q_at: u32, row: u32, row_end: u32, slice: u32) {\n";
    for d in 0..if additive { tile.slices(tile.dim_qk) } else { 0 } {
        let _ = writeln!(out, "  w_{d} = inner_weights(head, {});", tile.channel(d));
    }
    for r in rows(tile) {
        let _ = writeln!(out, "  let row{r} = row + {r}u * ROW_STEP;");
        let _ = writeln!(out, "  let at{r} = q_at + row{r} * params.q_stride_row;");
        for d in 0..tile.slices(tile.dim_qk) {
            let (c, n) = (tile.channel(d), (tile.dim_qk - 4 * d).min(4));
            let _ = writeln!(
                out,
                "  q{r}_{d} = q_load4(at{r} + {c}, select(0u, {n}u, row{r} < row_end));"
            );
        }
        for d in 0..tile.slices(tile.dim_v) {
            let _ = writeln!(out, "  o{r}_{d} = vec4<f32>(0.0);");
        }
    }
    *out += "}\n";
}

/// Statements that make `x{d}` elements 4d..4d+3 of the row of k or v at element `at`.
fn fetch(out: &mut String, tile: &RowTile, spec: &KernelSpec, binding: Binding, d: u32) {
    let (operand, dim) = if binding == Binding::K { ("k", tile.dim_qk) } else { ("v", tile.dim_v) };
    let n = (dim - 4 * d).min(4);
    // Rows with scales: one for all, or one for every 8 fours.
    let block = match spec.scales(binding) {
        Scales::Row => Some(0),
        // Of neighbours that share a row, those of one register are in one block.
        Scales::Blocks if tile.wide => Some(d * tile.lanes / 8),
        Scales::Blocks => Some(d / 8),
        Scales::None => None,
    };
    let first = if tile.wide { 8 / tile.lanes } else { 8 };
    if let Some(block) = block.filter(|block| d == first * block) {
        let _ = writeln!(out, "  let scale{block} = {operand}_scale(at, {block}u);");
    }
    let scale = block.map_or(String::new(), |block| format!(" * scale{block}"));
    if tile.wide {
        let c = tile.channel(d);
        let _ = writeln!(out, "  let x{d} = {operand}_load4(at + {c}, 4u){scale};");
        return;
    }
    if tile.fetch == 1 {
        let _ = writeln!(out, "  let x{d} = {operand}_load4(at + {}u, {n}u){scale};", 4 * d);
        return;
    }
    let (group, member) = (d / tile.fetch, d % tile.fetch);
    if member == 0 {
        // The last group may reach past the row: lanes there load nothing.
        let start = 4 * group * tile.fetch;
        let count = if start + 4 * tile.fetch <= dim {
            "4u".to_owned()
        } else {
            format!("clamp(i32({dim}u - {start}u) - i32(slice * 4u), 0, 4)")
        };
        let count = if count == "4u" { count } else { format!("u32({count})") };
        let _ = writeln!(
            out,
            "  let y{group} = {operand}_load4(at + {start}u + slice * 4u, {count}){scale};"
        );
    }
    let _ = writeln!(out, "  let x{d} = subgroupBroadcast(y{group}, {member}u);");
}

/// Products of a key with all rows; `q` says where channels 4d..4d+3 of row r are.
pub(in crate::kernel) fn product(
    out: &mut String,
    tile: &RowTile,
    spec: &KernelSpec,
    q: impl Fn(u32, u32) -> String,
) {
    *out += "fn registers_product(at: u32, slice: u32) -> RowVec {\n";
    for r in rows(tile) {
        let _ = writeln!(out, "  var s{r} = vec4<f32>(0.0);");
    }
    for d in 0..tile.slices(tile.dim_qk) {
        fetch(out, tile, spec, Binding::K, d);
        for r in rows(tile) {
            let q = q(r, d);
            let term = if spec.is_additive() {
                format!("inner_sum_4({q}, x{d}, w_{d}, s{r})")
            } else {
                format!("inner_product_4({q}, x{d}, s{r})")
            };
            let _ = writeln!(out, "  s{r} = {term};");
        }
    }
    let sum = |r: u32| {
        let own = format!("(s{r}.x + s{r}.y) + (s{r}.z + s{r}.w)");
        if tile.wide { format!("subgroupAdd({own})") } else { own }
    };
    let sums: Vec<String> = rows(tile).map(sum).collect();
    let _ = writeln!(out, "  return RowVec({});\n}}", sums.join(", "));
}

/// Score modifiers and masks, row by row.
fn per_row(out: &mut String, tile: &RowTile) {
    *out += "fn registers_modify(product: RowVec, rows: Rows, row: u32, key: u32) -> RowVec {\n";
    let modified: Vec<String> = rows(tile)
        .map(|r| {
            let s = component(tile.rows, "product", r);
            format!("modify({s}, position_at(rows, row + {r}u * ROW_STEP, key))")
        })
        .collect();
    let _ = writeln!(out, "  return RowVec({});\n}}", modified.join(", "));
    *out += "fn registers_factor(rows: Rows, row: u32, key: u32) -> RowVec {\n";
    let factors: Vec<String> = rows(tile)
        .map(|r| format!("weight_factor(position_at(rows, row + {r}u * ROW_STEP, key))"))
        .collect();
    let _ = writeln!(out, "  return RowVec({});\n}}", factors.join(", "));
    *out += "fn registers_hidden(s: RowVec, rows: Rows, row: u32, key: u32) -> RowMask {\n";
    let hidden: Vec<String> = rows(tile)
        .map(|r| {
            let s = component(tile.rows, "s", r);
            format!("is_masked({s}) || !keep(position_at(rows, row + {r}u * ROW_STEP, key))")
        })
        .collect();
    let _ = writeln!(out, "  return RowMask({});\n}}", hidden.join(", "));
}

/// o = old · o + p · v; the `shown` form leaves hidden rows' v out, whatever it holds.
fn accumulate(out: &mut String, tile: &RowTile, spec: &KernelSpec, which: Rows) {
    let signature = match which {
        Rows::All => ACCUMULATE,
        Rows::Shown => ACCUMULATE_SHOWN,
    };
    let _ = writeln!(out, "{signature} {{");
    for d in 0..tile.slices(tile.dim_v) {
        fetch(out, tile, spec, Binding::V, d);
        for r in rows(tile) {
            let (old, p) = (component(tile.rows, "old", r), component(tile.rows, "p", r));
            let hidden = component(tile.rows, "hidden", r);
            let x = match which {
                Rows::All => format!("x{d}"),
                Rows::Shown => format!("select(x{d}, vec4<f32>(0.0), {hidden})"),
            };
            // One key takes all weight: o is replaced, not summed, so that no infinity meets a 0.
            let sum = if spec.is_hard() {
                format!("select(o{r}_{d}, x{d}, vec4<bool>({p} > 0.0))")
            } else {
                format!("fma(vec4<f32>({p}), {x}, o{r}_{d} * {old})")
            };
            let _ = writeln!(out, "  o{r}_{d} = {sum};");
        }
    }
    *out += "}\n";
}

fn finish(out: &mut String, tile: &RowTile) {
    *out += "fn registers_finish(rows: Rows, row: u32, row_end: u32, o_at: u32, m: RowVec, l: RowVec, slice: u32) {\n";
    for r in rows(tile) {
        let (m, l) = (component(tile.rows, "m", r), component(tile.rows, "l", r));
        let _ = writeln!(out, "  let row{r} = row + {r}u * ROW_STEP;");
        let _ = writeln!(out, "  if (row{r} < row_end) {{");
        let _ = writeln!(
            out,
            "    let scale = finish_row(rows, row{r}, Normalizer({m}, {l}), !WIDE || slice == 0u);"
        );
        let _ = writeln!(out, "    let empty = row_empty(rows, row{r}, Normalizer({m}, {l}));");
        let _ = writeln!(out, "    let at = o_at + row{r} * params.o_stride_row;");
        for d in 0..tile.slices(tile.dim_v) {
            let n = (tile.dim_v - 4 * d).min(4);
            let _ = writeln!(
                out,
                "    o_store4(at + {}, {n}u, select(o{r}_{d} * scale, vec4<f32>(0.0), empty));",
                tile.channel(d)
            );
        }
        *out += "  }\n";
    }
    *out += "}\n";
}
