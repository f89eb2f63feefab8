//! The second product of `fused_forward_tile`: weights and values through workgroup memory, sums of columns.

use super::{columns, of_strip, plus, rotate, rows, steps, strips};
use crate::kernel::block_tile::{BlockTile, PART};
use crate::kernel::generate::steps::{Index, Steps};
use crate::kernel::spec::KernelSpec;

/// The `t`-th vec4 of columns of v at a key of the chunk: the `i`-th of the four of block `d`.
fn of_v(tile: &BlockTile, d: Index, i: Index, t: u32) -> String {
    if let (Some(d), Some(i)) = (d.number(), i.number()) {
        let at = (4 * d + i) * tile.stride_v() + t * tile.across;
        return format!("sh[{}u][{}][{}u + place.x]", at / 64, at / 16 % 4, at % 16);
    }
    let at = format!("(d * STRIDE_V + {}u)", t * tile.across);
    format!("sh[{at} / 64u][{at} / 16u % 4u][{at} % 16u + place.x]")
}

pub(super) fn multiply(out: &mut Steps, tile: &BlockTile) {
    out.line("fn tile_multiply(place: Place, chunk: u32) {");
    steps(out, tile.keys_v, |out, d, i| {
        out.line("{");
        for s in strips(tile) {
            let block = plus(tile.weights_at(), d);
            let at = format!("sh[{block} + chunk / 4u][{i}][{}]", of_strip(tile, s));
            out.line(format!("let p{s} = {at};"));
        }
        for t in columns(tile) {
            out.line(format!("let v{t} = {};", of_v(tile, d, i, t)));
            for r in rows(tile) {
                let p = format!("p{}[{}u]", r / 4, r % 4);
                out.line(format!("o{r}_{t} = fma(vec4<f32>({p}), v{t}, o{r}_{t});"));
            }
        }
        out.line("}");
    });
    out.line("}");
}

/// The same without the keys that have no part in a row's sum, key by key.
pub(super) fn multiply_selected(out: &mut Steps, tile: &BlockTile) {
    out.line("fn tile_multiply_selected(place: Place, chunk: u32) {");
    out.line(format!("for (var d = 0u; d < {}u; d += 1u) {{", tile.keys_v));
    for t in columns(tile) {
        let at = format!("(d * STRIDE_V + {}u + place.x)", t * tile.across);
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
            out.line(format!("o{r}_{t} = fma(vec4<f32>({p}), v{t}, o{r}_{t});"));
        }
        out.line("}");
    }
    out.line("}\n}");
}

/// Weights of 32 keys at a time into workgroup memory, chunks of v beside them, and their products.
pub(super) fn sums(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    out.line(
        "fn tile_sums(rows: Rows, visible: vec2<u32>, origins: Origins, place: Place, key0: u32, tested: bool) {",
    );
    // Weights of all before are multiplied, and scores where none were needed for a peak.
    out.repeat("part", tile.keys / PART, |out, part| {
        if part != Index::Number(0) || spec.is_each() {
            out.line("workgroupBarrier();");
        }
        put_weights(out, tile, part);
        out.line(format!("for (var chunk = 0u; chunk < {PART}u; chunk += {}u) {{", tile.keys_v));
        put_values(out, tile, part);
        out.line(if spec.selects_values() {
            "if (tested && atomicLoad(&sh_special[0]) != 0u) { tile_multiply_selected(place, chunk); } \
             else { tile_multiply(place, chunk); }"
        } else {
            "tile_multiply(place, chunk);"
        });
        out.line("}");
    });
    out.line("}");
}

fn put_weights(out: &mut Steps, tile: &BlockTile, part: Index) {
    // An invocation's four neighbouring keys lie in one part; all invocations have some there, or half of them.
    let halves = tile.across == 16;
    let [block, guard] = if halves {
        let own = part.number().map_or(format!("{part} % 2u"), |part| format!("{}u", part % 2));
        ["place.x % 8u".to_owned(), format!("if (place.x / 8u == {own}) ")]
    } else {
        ["place.x".to_owned(), String::new()]
    };
    let four = part.number().map_or(0, |part| if halves { part / 2 } else { part });
    out.line(format!("{guard}{{"));
    for (j, s) in (0..4).flat_map(|j| strips(tile).map(move |s| (j, s))) {
        let at = format!("sh[{}u + {block}][{j}][{}]", tile.weights_at(), of_strip(tile, s));
        out.line(format!("{at} = s{}_{s};", 4 * four + j));
    }
    out.line("}");
    if part.number().is_none() && tile.keys_each() > 4 {
        let last = if halves { format!("if ({part} % 2u == 1u) ") } else { String::new() };
        out.line(format!("{last}{{"));
        strips(tile).for_each(|s| rotate(out, tile, s, 4));
        out.line("}");
    }
}

fn put_values(out: &mut Steps, tile: &BlockTile, part: Index) {
    let all = tile.keys_v * tile.stride_v();
    let turns = all.div_ceil(tile.lanes());
    for i in 0..turns {
        out.line(format!("let e{i} = place.lane + {}u;", i * tile.lanes()));
        let key = format!("key0 + {part} * {PART}u + chunk + e{i} / STRIDE_V");
        let four = format!("e{i} % STRIDE_V * 4u");
        out.line(format!("let x{i} = tile_v(rows, visible, origins.v, {key}, {four}, tested);"));
    }
    out.line("workgroupBarrier();");
    for i in 0..turns {
        let full = (i + 1) * tile.lanes() <= all;
        let guard = if full { String::new() } else { format!("if (e{i} < {all}u) ") };
        out.line(format!("{guard}{{ sh[e{i} / 64u][e{i} / 16u % 4u][e{i} % 16u] = x{i}; }}"));
    }
    out.line("workgroupBarrier();");
}
