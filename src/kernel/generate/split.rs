//! Generated straight-line code of `split_forward`: q of a group's rows in workgroup memory or registers, o
//! in registers.
//!
//! `sh_q` holds channels 4d..4d+3 of row r at r * Q_WORDS + d: in registers of every invocation they spill on
//! every compiler of a GPU. Where a driver on the CPU runs a workgroup as one vector they are registers
//! `q{r}_{d}`: those spill to its caches anyway (1x8x1x1024x64 f32 on Mesa 22.3 5.7 ms, shared 8.2 ms).
//! `o{r}_{s}` is the s-th vec4 of o that the invocation sums, which is vec4 `lane % DIM_LANES + s *
//! DIM_LANES` of the row.

use std::fmt::Write;

use super::registers::{component, product, row_types};
use crate::kernel::bindings::Binding;
use crate::kernel::element::SplitTile;
use crate::kernel::spec::KernelSpec;
use crate::tensor::Scales;

/// The definitions that `kernel/split_forward.wgsl` calls.
pub(in crate::kernel) fn split(tile: &SplitTile, spec: &KernelSpec) -> String {
    let mut out = row_types(tile.rows);
    declare(&mut out, tile, spec);
    begin(&mut out, tile);
    if tile.key_lanes > 1 {
        parts(&mut out, tile, spec);
    } else {
        whole_products(&mut out, tile, spec);
    }
    per_row(&mut out, tile, spec);
    masks(&mut out, tile);
    sums(&mut out, tile, spec);
    end(&mut out, tile);
    out
}

/// Component r of a per-row vector.
fn of(tile: &SplitTile, name: &str, r: u32) -> String {
    component(tile.registers().rows, name, r)
}

/// Products of an invocation that has a key for itself.
fn whole_products(out: &mut String, tile: &SplitTile, spec: &KernelSpec) {
    let words = tile.dim_qk.div_ceil(4);
    product(out, &tile.registers(), spec, |r, d| match tile.shares_q() {
        true => format!("sh_q[{}u]", r * words + d),
        false => format!("q{r}_{d}"),
    });
    *out += "fn product_of(at: u32, i: u32) -> RowVec { return registers_product(at, 0u); }\n\
             fn split_parts(rows: Rows, k_at: u32, first: u32, end: u32, key0: u32, i: u32, part: u32) {}\n";
}

/// Products of invocations of a subgroup that share a key: each has every `key_lanes`-th vec4 of several keys, all of
/// which are asked for before any is used. What they have together lies in `sh_weights`.
fn parts(out: &mut String, tile: &SplitTile, spec: &KernelSpec) {
    let lanes = tile.key_lanes;
    let words = tile.dim_qk / 4 / lanes;
    let keys = || 0..tile.keys_asked();
    *out += "fn product_of(at: u32, i: u32) -> RowVec { return sh_weights[i]; }\n\
             fn split_parts(rows: Rows, k_at: u32, first: u32, end: u32, key0: u32, i: u32, part: u32) {\n";
    for u in keys() {
        let step = u * (tile.lanes / lanes);
        let _ = writeln!(out, "  let at{u} = row_of(rows, k_at, first, end, key0, i + {step}u);");
        fetch_keys(out, tile, spec, u, words);
    }
    for r in 0..tile.rows {
        for u in keys() {
            let _ = writeln!(out, "  var s{u}_{r} = vec4<f32>(0.0);");
        }
        for d in 0..words {
            let at = r * words * lanes + d * lanes;
            let _ = writeln!(out, "  let q{r}_{d} = sh_q[part + {at}u];");
            for u in keys() {
                let sum = format!("inner_product_4(q{r}_{d}, x{u}_{d}, s{u}_{r})");
                let _ = writeln!(out, "  s{u}_{r} = {sum};");
            }
        }
        // At once: the four parts of each sum would take registers until the last row is done.
        for u in keys() {
            let sum = format!("(s{u}_{r}.x + s{u}_{r}.y) + (s{u}_{r}.z + s{u}_{r}.w)");
            let _ = writeln!(out, "  let sum{u}_{r} = {sum};");
        }
    }
    for u in keys() {
        let sums: Vec<String> = (0..tile.rows).map(|r| format!("sum{u}_{r}")).collect();
        let _ = writeln!(out, "  var all{u} = RowVec({});", sums.join(", "));
        for step in (0..lanes.ilog2()).map(|bit| 1 << bit) {
            let _ = writeln!(out, "  all{u} += subgroupShuffleXor(all{u}, {step}u);");
        }
        let step = u * (tile.lanes / lanes);
        let _ = writeln!(out, "  if (part == 0u) {{ sh_weights[i + {step}u] = all{u}; }}");
    }
    *out += "}\n";
}

/// An invocation's vec4s of the u-th key.
fn fetch_keys(out: &mut String, tile: &SplitTile, spec: &KernelSpec, u: u32, words: u32) {
    let scales = spec.scales(Binding::K);
    if scales == Scales::Row {
        let _ = writeln!(out, "  let scale{u} = k_scale(at{u}, 0u);");
    }
    for d in 0..words {
        let word = format!("part + {}u", d * tile.key_lanes);
        let scale = match scales {
            Scales::Row => format!(" * scale{u}"),
            Scales::Blocks => format!(" * k_scale(at{u}, ({word}) >> 3u)"),
            Scales::None => String::new(),
        };
        let _ = writeln!(out, "  let x{u}_{d} = k_load4(at{u} + 4u * ({word}), 4u){scale};");
    }
}

fn declare(out: &mut String, tile: &SplitTile, spec: &KernelSpec) {
    let constants = [
        ("ROWS", tile.rows),
        ("LANES", tile.lanes),
        ("KEYS", tile.keys),
        ("KEY_LANES", tile.key_lanes),
        ("KEYS_ASKED", tile.keys_asked()),
        ("DIM_LANES", tile.dim_lanes()),
        ("SIDE_BY_SIDE", tile.lanes / tile.dim_lanes()),
        ("KEYS_AT_ONCE", tile.keys_at_once()),
        ("DIM_QK", tile.dim_qk),
        ("Q_WORDS", tile.dim_qk.div_ceil(4)),
        ("HIDDEN_FROM_ALL", (1 << tile.rows) - 1),
    ];
    for (name, value) in constants {
        let _ = writeln!(out, "const {name}: u32 = {value}u;");
    }
    let switches =
        [("MASKED", spec.is_masked()), ("PAGED", spec.is_paged()), ("SHARED_Q", tile.shares_q())];
    for (name, value) in switches {
        let _ = writeln!(out, "const {name}: bool = {value};");
    }
    if tile.shares_q() {
        *out += "var<workgroup> sh_q: array<vec4<f32>, ROWS * Q_WORDS>;\n";
    }
    for r in 0..tile.rows {
        let _ = writeln!(out, "var<private> head{r}: u32;\nvar<private> row{r}: u32;");
        for d in 0..if tile.shares_q() { 0 } else { tile.dim_qk.div_ceil(4) } {
            let _ = writeln!(out, "var<private> q{r}_{d}: vec4<f32>;");
        }
        for s in 0..tile.slices() {
            let _ = writeln!(out, "var<private> o{r}_{s}: vec4<f32>;");
        }
    }
}

/// Where each row is, and its q; rows past the group's last repeat it and are not written.
fn begin(out: &mut String, tile: &SplitTile) {
    *out += "fn split_begin(rows: Rows, first: u32, last: u32, row_end: u32, lane: u32) {\n";
    if tile.shares_q() {
        *out += "  for (var i = lane; i < ROWS * Q_WORDS; i += LANES) {\n    \
                 sh_q[i] = q_word(rows, min(first + i / Q_WORDS, last), row_end, i % Q_WORDS);\n  }\n";
    }
    for r in 0..tile.rows {
        let _ = writeln!(out, "  let packed{r} = min(first + {r}u, last);");
        let _ = writeln!(out, "  row{r} = params.row0 + packed{r} / params.group;");
        let _ = writeln!(out, "  head{r} = rows.head + packed{r} % params.group;");
        for d in 0..if tile.shares_q() { 0 } else { tile.dim_qk.div_ceil(4) } {
            let _ = writeln!(out, "  q{r}_{d} = q_word(rows, packed{r}, row_end, {d}u);");
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
    *out += "}\n";
    accumulate(out, tile, spec);
}

/// o = o + p · v of several keys: all of v is asked for before any is used, or each key would wait for memory
/// by itself.
fn accumulate(out: &mut String, tile: &SplitTile, spec: &KernelSpec) {
    *out += "fn split_accumulate(v_at: u32, key0: u32, first: u32, n: u32, lane: u32) {\n";
    for s in 0..tile.slices() {
        let _ = writeln!(out, "  let c{s} = lane + {}u;", s * tile.dim_lanes());
    }
    for u in 0..tile.keys_at_once() {
        let _ = writeln!(
            out,
            "  let i{u} = first + {u}u * SIDE_BY_SIDE;\n  let hidden{u} = hidden_bits(i{u}, n);\n  \
             let at{u} = place_of(v_at, key0, i{u}, hidden{u});"
        );
        fetch_values(out, tile, spec, u);
    }
    for u in 0..tile.keys_at_once() {
        let _ = writeln!(out, "  let p{u} = sh_weights[min(i{u}, KEYS - 1u)];");
        for (s, r) in (0..tile.slices()).flat_map(|s| (0..tile.rows).map(move |r| (s, r))) {
            // Without masks a key is hidden from all rows, being past the last, or from none.
            let bit = if spec.is_masked() { 1 << r } else { 1 };
            let x = format!("select(x{u}_{s}, vec4<f32>(0.0), (hidden{u} & {bit}u) != 0u)");
            let p = of(tile, &format!("p{u}"), r);
            let _ = writeln!(out, "  o{r}_{s} = fma(vec4<f32>({p}), {x}, o{r}_{s});");
        }
    }
    *out += "}\n";
}

/// An invocation's vec4s of v of the u-th key.
fn fetch_values(out: &mut String, tile: &SplitTile, spec: &KernelSpec, u: u32) {
    let scales = spec.scales(Binding::V);
    let columns = tile.dim_v.div_ceil(4);
    if scales == Scales::Row {
        let _ = writeln!(out, "  let scale{u} = v_scale(at{u}, 0u);");
    }
    for s in 0..tile.slices() {
        let n = if tile.dim_v.is_multiple_of(4 * tile.dim_lanes()) {
            "4u".to_owned()
        } else {
            format!("select(0u, min({}u - 4u * c{s}, 4u), c{s} < {columns}u)", tile.dim_v)
        };
        let scale = match scales {
            Scales::Row => format!(" * scale{u}"),
            Scales::Blocks => format!(" * v_scale(at{u}, c{s} >> 3u)"),
            Scales::None => String::new(),
        };
        let _ = writeln!(out, "  let x{u}_{s} = v_load4(at{u} + 4u * c{s}, {n}){scale};");
    }
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
