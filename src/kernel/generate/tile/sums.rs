//! Sums of weighted rows: weights and values through workgroup memory, columns in registers.

use super::{columns, end_of, of_strip, plus, rotate, rows, steps, strips};
use crate::kernel::block_tile::{BlockTile, PART};
use crate::kernel::generate::steps::{Index, Steps};
use crate::kernel::spec::KernelSpec;

/// Weights in registers, and the sums that they make of the columns of another tensor's rows.
pub(super) struct Weighing {
    /// The function that makes them; those that multiply are called `{name}_part` and `{name}_selected`.
    pub(super) name: &'static str,
    /// Registers of the weights.
    pub(super) weights: &'static str,
    /// The tensor, as it is called in `origins`.
    pub(super) values: &'static str,
    /// Registers of the sums.
    pub(super) sums: &'static str,
    /// The first row of the tile.
    pub(super) first: &'static str,
    /// Whether workgroup memory may still be read when it starts.
    pub(super) waits: bool,
}

/// The `t`-th vec4 of columns of v at a key of the chunk: the `i`-th of the four of block `d`.
fn of_v(tile: &BlockTile, d: Index, i: Index, t: u32) -> String {
    let (more, x) = match tile.across > 16 {
        true => (" + place.x / 16u", "place.x % 16u"),
        false => ("", "place.x"),
    };
    if let (Some(d), Some(i)) = (d.number(), i.number()) {
        let at = (4 * d + i) * tile.stride_v() + t * tile.across;
        return format!("sh[{}u][{}{more}][{}u + {x}]", at / 64, at / 16 % 4, at % 16);
    }
    let [stride, column] = [tile.stride_v(), t * tile.across];
    if let Some(i) = i.number().filter(|_| stride.is_multiple_of(16)) {
        // Four keys are whole blocks.
        let at = (i * stride + column) / 16;
        let block = format!("{d} * {}u + {}u", stride / 16, at / 4);
        return format!("sh[{block}][{}{more}][{}u + {x}]", at % 4, column % 16);
    }
    let at = match i.number() {
        Some(i) => format!("({d} * {}u + {}u)", 4 * stride, i * stride + column),
        None => format!("(d * {stride}u + {column}u)"),
    };
    format!("sh[{at} / 64u][{at} / 16u % 4u{more}][{at} % 16u + {x}]")
}

fn multiply(out: &mut Steps, tile: &BlockTile, weighing: &Weighing) {
    let Weighing { name, sums, .. } = weighing;
    out.line(format!("fn {name}_part(place: Place, chunk: u32) {{"));
    steps(out, tile, tile.keys_v, |out, d, i| {
        out.line("{");
        for s in strips(tile) {
            let block = plus(tile.weights_at(), d);
            let at = format!("sh[{block} + chunk / 4u][{i}][{}]", of_strip(tile, s));
            out.line(format!("let p{s} = {at};"));
        }
        for t in columns(tile) {
            out.line(format!("let v{t} = {};", of_v(tile, d, i, t)));
            for r in rows(tile) {
                let (p, sum) = (format!("p{}[{}u]", r / 4, r % 4), format!("{sums}{r}_{t}"));
                out.line(format!("{sum} = fma(vec4<f32>({p}), v{t}, {sum});"));
            }
        }
        out.line("}");
    });
    out.line("}");
}

/// The same without the keys that have no part in a row's sum, key by key.
fn multiply_selected(out: &mut Steps, tile: &BlockTile, weighing: &Weighing) {
    let Weighing { name, sums, .. } = weighing;
    out.line(format!("fn {name}_selected(place: Place, chunk: u32) {{"));
    out.line(format!("for (var d = 0u; d < {}u; d += 1u) {{", tile.keys_v));
    for t in columns(tile) {
        let at = format!("(d * {}u + {}u + place.x)", tile.stride_v(), t * tile.across);
        out.line(format!("let v{t} = sh[{at} / 64u][{at} / 16u % 4u][{at} % 16u];"));
    }
    for s in strips(tile) {
        let at = format!("sh[{}u + (chunk + d) / 4u][(chunk + d) % 4u]", tile.weights_at());
        out.line(format!("let p{s} = {at}[{}];", of_strip(tile, s)));
    }
    for r in rows(tile) {
        let p = format!("p{}[{}u]", r / 4, r % 4);
        out.line(format!("if (!has_no_part({p})) {{"));
        for t in columns(tile) {
            let sum = format!("{sums}{r}_{t}");
            out.line(format!("{sum} = fma(vec4<f32>({p}), v{t}, {sum});"));
        }
        out.line("}");
    }
    out.line("}\n}");
}

/// Weights of 32 keys at a time into workgroup memory, chunks of values beside them, and their products: sums of the
/// tile's `dim_v` columns. Of values only those of keys in `range` are read.
pub(super) fn sums(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec, weighing: &Weighing) {
    multiply(out, tile, weighing);
    if spec.selects_values() {
        multiply_selected(out, tile, weighing);
    }
    let Weighing { name, first, waits, .. } = weighing;
    out.line(format!(
        "fn {name}(rows: Rows, range: vec2<u32>, origins: Origins, place: Place, {first}: u32, tested: bool) {{"
    ));
    // Weights of all before are multiplied, and scores where none were needed for a peak.
    let body = |out: &mut Steps, part: Index| {
        if part != Index::Number(0) || *waits {
            out.line("workgroupBarrier();");
        }
        put_weights(out, tile, weighing.weights, part);
        let end = end_of(tile, PART);
        out.line(format!("for (var chunk = 0u; chunk < {end}; chunk += {}u) {{", tile.keys_v));
        put_values(out, tile, weighing, part);
        out.line(if spec.selects_values() {
            format!(
                "if (tested && atomicLoad(&sh_special[0]) != 0u) {{ {name}_selected(place, chunk); }} \
                 else {{ {name}_part(place, chunk); }}"
            )
        } else {
            format!("{name}_part(place, chunk);")
        });
        out.line("}");
    };
    let parts = tile.keys / PART;
    match tile.keeps_loops() {
        true => (0..parts).for_each(|part| body(out, Index::Number(part))),
        false => out.repeat("part", parts, body),
    }
    out.line("}");
}

fn put_weights(out: &mut Steps, tile: &BlockTile, weights: &str, part: Index) {
    // An invocation's four neighbouring keys lie in one part; all invocations have some there, or a half or quarter.
    let of = tile.across / 8;
    let [block, guard] = if of > 1 {
        let own = part.number().map_or(format!("{part} % {of}u"), |part| format!("{}u", part % of));
        ["place.x % 8u".to_owned(), format!("if (place.x / 8u == {own}) ")]
    } else {
        ["place.x".to_owned(), String::new()]
    };
    let four = part.number().map_or(0, |part| part / of);
    out.line(format!("{guard}{{"));
    for (j, s) in (0..4).flat_map(|j| strips(tile).map(move |s| (j, s))) {
        let at = format!("sh[{}u + {block}][{j}][{}]", tile.weights_at(), of_strip(tile, s));
        out.line(format!("{at} = {weights}{}_{s};", 4 * four + j));
    }
    out.line("}");
    if part.number().is_none() && tile.keys_each() > 4 {
        let last =
            if of > 1 { format!("if ({part} % {of}u == {}u) ", of - 1) } else { String::new() };
        out.line(format!("{last}{{"));
        strips(tile).for_each(|s| rotate(out, tile, weights, s, 4));
        out.line("}");
    }
}

fn put_values(out: &mut Steps, tile: &BlockTile, weighing: &Weighing, part: Index) {
    let Weighing { values, first, .. } = weighing;
    let all = tile.keys_v * tile.stride_v();
    let turns = all.div_ceil(tile.lanes());
    for i in 0..turns {
        out.line(format!("let e{i} = place.lane + {}u;", i * tile.lanes()));
        let key = format!("{first} + {part} * {PART}u + chunk + e{i} / {}u", tile.stride_v());
        let four = format!("e{i} % {}u * 4u", tile.stride_v());
        out.line(format!(
            "let x{i} = tile_{values}_of(rows, range, origins.{values}, {key}, {four}, tested);"
        ));
    }
    out.line("workgroupBarrier();");
    for i in 0..turns {
        let full = (i + 1) * tile.lanes() <= all;
        let guard = if full { String::new() } else { format!("if (e{i} < {all}u) ") };
        out.line(format!("{guard}{{ sh[e{i} / 64u][e{i} / 16u % 4u][e{i} % 16u] = x{i}; }}"));
    }
    out.line("workgroupBarrier();");
}
