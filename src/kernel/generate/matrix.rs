//! Generated code of the matrix kernels: what is repeated per matrix, written out or as loops.
//!
//! Matrices are opaque and stay in registers only under constant indices; written out, every index is a literal. The
//! text of both forms is the same but for the index.

use std::fmt::Write;

use super::registers::row_types;
use super::steps::{Index, Steps};
use crate::kernel::bindings::Binding;
use crate::kernel::matrix_tile::MatrixTile;
use crate::kernel::spec::KernelSpec;
use crate::tensor::Storage;

/// The definitions that `kernel/fused_forward_matrix.wgsl` calls.
pub(in crate::kernel) fn matrix(tile: &MatrixTile, spec: &KernelSpec) -> String {
    let mut out = Steps { text: row_types(1), unrolled: tile.unrolled };
    declare(&mut out, tile, spec);
    load_q(&mut out, tile);
    scores(&mut out, tile);
    sums(&mut out, tile);
    fetches(&mut out, tile);
    weigh_whole(&mut out, tile);
    columns(&mut out, tile);
    out.text
}

fn declare(out: &mut Steps, tile: &MatrixTile, spec: &KernelSpec) {
    let [depth_qk, depth_v] = tile.depth();
    let [k_stride, v_stride] = tile.key_strides();
    let constants = [
        ("EDGE", tile.edge),
        ("TEAM", tile.team),
        ("TEAM_ROWS", tile.team_rows()),
        ("ROWS", tile.rows()),
        ("LANES", tile.lanes()),
        ("PARTS", tile.parts()),
        ("KEYS", tile.keys),
        ("ROW_STRIDE", tile.row_stride()),
        ("K_STRIDE", k_stride),
        ("V_STRIDE", v_stride),
        ("K_WORDS", depth_qk * tile.edge / 4),
        ("V_WORDS", depth_v * tile.edge / 4),
        ("DIM_QK", tile.dim_qk),
        ("DIM_V", tile.dim_v),
    ];
    for (name, value) in constants {
        out.line(format!("const {name}: u32 = {value}u;"));
    }
    // What is not f16 in memory may not fit it.
    let converted = |binding| {
        let element = spec.elements.iter().find(|(b, _)| *b == binding);
        element.is_some_and(|(_, element)| element.storage != Storage::F16)
    };
    let ranged = converted(Binding::Q) || converted(Binding::K);
    for (name, value) in [("RANGED_QK", ranged), ("RANGED_V", converted(Binding::V))] {
        out.line(format!("const {name}: bool = {value};"));
    }
    aliases(out, tile.edge);
    out.variables("<private>", "matrix_q", tile.blocks * depth_qk, "MatrixA");
    out.variables("<private>", "matrix_o", tile.blocks * depth_v, "MatrixC");
    tile_array(out, tile, "k", tile.keys * k_stride);
    tile_array(out, tile, "v", tile.keys * v_stride);
    parts(out, tile);
}

/// The three roles of a matrix.
pub(in crate::kernel) fn aliases(out: &mut Steps, edge: u32) {
    for (name, kind) in [("A", "f16"), ("B", "f16"), ("C", "f32")] {
        out.line(format!("alias Matrix{name} = coop_mat{edge}x{edge}<{kind}, {name}>;"));
    }
}

/// `sh_{name}16`, an operand in workgroup memory, and `{name}_put4(at, x)`.
pub(in crate::kernel) fn tile_array(out: &mut Steps, tile: &MatrixTile, name: &str, elements: u32) {
    let (kind, put) = if tile.vectors {
        (format!("vec4<f16>, {}", elements / 4), format!("sh_{name}16[at >> 2u] = x;"))
    } else {
        let put = |c: u32| format!("sh_{name}16[at + {c}u] = x[{c}u];");
        (format!("f16, {elements}"), (0..4).map(put).collect::<Vec<_>>().join(" "))
    };
    out.line(format!("var<workgroup> sh_{name}16: array<{kind}>;"));
    out.line(format!("fn {name}_put4(at: u32, x: vec4<f16>) {{ {put} }}"));
}

/// What invocations that share a row make of their parts: the peak of them, and their sum.
fn parts(out: &mut Steps, tile: &MatrixTile) {
    let shared = tile.parts() > 1;
    if shared {
        out.line("var<workgroup> sh_parts: array<f32, LANES>;");
    }
    for (name, join) in
        [("peak_of_parts", "normalize_peak(all, other)"), ("sum_of_parts", "all + other")]
    {
        let body = if shared {
            format!(
                "sh_parts[work.lane] = mine; workgroupBarrier(); var all = sh_parts[work.place]; \
                 for (var part = 1u; part < PARTS; part += 1u) {{ \
                 let other = sh_parts[work.place + part * ROWS]; all = {join}; }} return all;"
            )
        } else {
            "return mine;".to_owned()
        };
        out.line(format!("fn {name}(work: Work, mine: f32) -> f32 {{ {body} }}"));
    }
}

/// A place in a tile of k or v, and the stride that goes with it, in units of the array's elements.
pub(in crate::kernel) fn place(tile: &MatrixTile, at: &str, stride: u32) -> (String, String) {
    let unit = if tile.vectors { 4 } else { 1 };
    (format!("({at}) / {unit}u"), format!("{}u", stride / unit))
}

/// q as matrices, from columns of it that lie `[channel][row]` where weights will: KEYS channels at a time.
fn load_q(out: &mut Steps, tile: &MatrixTile) {
    let [depth, _] = tile.depth();
    let step = tile.keys / tile.edge;
    out.line("fn matrix_load_q(work: Work) {");
    out.repeat("chunk", depth.div_ceil(step), |out, chunk| {
        out.line(format!("stage_q(work, {chunk} * KEYS);"));
        out.line("workgroupBarrier();");
        out.repeat("i", step, |out, i| {
            guarded(out, depth, step, chunk, i, |out| {
                out.repeat("b", tile.blocks, |out, b| {
                    let q = out.variable("matrix_q", &[(b, depth), (chunk, step), (i, 1)]);
                    out.line(format!(
                        "{q} = coopLoad<MatrixA>(&sh_weights[{i} * EDGE * ROW_STRIDE + work.team_row + {b} * EDGE], ROW_STRIDE);"
                    ));
                });
            });
        });
        out.line("workgroupBarrier();");
    });
    out.line("}");
}

/// `body` only where `chunk * step + i` is below `depth`: left out where both are numbers, a loop of none or one
/// otherwise,
/// since an `if` on a variable may not stand around matrix operations.
fn guarded(
    out: &mut Steps,
    depth: u32,
    step: u32,
    chunk: Index,
    i: Index,
    body: impl Fn(&mut Steps),
) {
    if depth.is_multiple_of(step) {
        return body(out);
    }
    match (chunk.number(), i.number()) {
        (Some(chunk), Some(i)) if chunk * step + i >= depth => {}
        (Some(_), Some(_)) => body(out),
        _ => {
            out.line(format!(
                "for (var there = 0u; there < select(0u, 1u, {chunk} * {step}u + {i} < {depth}u); there += 1u) {{"
            ));
            body(out);
            out.line("}");
        }
    }
}

/// Products of the team's rows with the tile's keys, to `sh_scores[key][row]`. Row-major k is its transpose in column
/// order.
fn scores(out: &mut Steps, tile: &MatrixTile) {
    let [depth, _] = tile.depth();
    let [stride, _] = tile.key_strides();
    out.line("fn matrix_scores(team_row: u32) {");
    out.repeat("j", tile.keys / tile.edge, |out, j| {
        out.variables("", "s", tile.blocks, "MatrixC");
        out.repeat("d", depth, |out, d| {
            let at = format!("{j} * {}u + {d} * EDGE", tile.edge * stride);
            let (at, stride) = place(tile, &at, stride);
            out.line(format!("let k = coopLoad<MatrixB>(&sh_k16[{at}], {stride});"));
            out.repeat("b", tile.blocks, |out, b| {
                let q = out.variable("matrix_q", &[(b, depth), (d, 1)]);
                let s = out.variable("s", &[(b, 1)]);
                out.line(format!("{s} = coopMultiplyAdd({q}, k, {s});"));
            });
        });
        out.repeat("b", tile.blocks, |out, b| {
            // Each operand of a store is named first: the compiler panics where one is computed in place.
            let s = out.variable("s", &[(b, 1)]);
            out.line(format!("let x = {s};"));
            out.line(format!("let at = {j} * EDGE * ROW_STRIDE + team_row + {b} * EDGE;"));
            out.line("coopStore(x, &sh_scores[at], ROW_STRIDE);");
        });
    });
    out.line("}");
}

/// The team's weighted sums over the tile's keys.
fn sums(out: &mut Steps, tile: &MatrixTile) {
    let [_, depth] = tile.depth();
    let [_, stride] = tile.key_strides();
    out.line("fn matrix_sums(team_row: u32) {");
    out.repeat("j", tile.keys / tile.edge, |out, j| {
        out.variables("", "p", tile.blocks, "MatrixA");
        out.repeat("b", tile.blocks, |out, b| {
            let p = out.variable("p", &[(b, 1)]);
            out.line(format!(
                "{p} = coopLoad<MatrixA>(&sh_weights[{j} * EDGE * ROW_STRIDE + team_row + {b} * EDGE], ROW_STRIDE);"
            ));
        });
        out.repeat("d", depth, |out, d| {
            let at = format!("{j} * {}u + {d} * EDGE", tile.edge * stride);
            let (at, stride) = place(tile, &at, stride);
            out.line(format!("let v = coopLoadT<MatrixB>(&sh_v16[{at}], {stride});"));
            out.repeat("b", tile.blocks, |out, b| {
                let o = out.variable("matrix_o", &[(b, depth), (d, 1)]);
                let p = out.variable("p", &[(b, 1)]);
                out.line(format!("{o} = coopMultiplyAdd({p}, v, {o});"));
            });
        });
    });
    out.line("}");
}

/// `fetch_k` and its like bring a tile's words from memory into registers and look at the largest; `put_k` and its like take
/// them to workgroup memory.
fn fetches(out: &mut Steps, tile: &MatrixTile) {
    let words = tile.depth().map(|depth| tile.keys * depth * tile.edge / 4);
    let most = words.map(|n| n.div_ceil(tile.lanes()));
    let kept = most[0].max(most[1]);
    out.variables("<private>", "matrix_fetched", kept, "vec4<f16>");
    for (i, (name, ranged)) in [("k", "RANGED_QK"), ("v", "true")].into_iter().enumerate() {
        let upper = name.to_ascii_uppercase();
        let all = words[i].is_multiple_of(tile.lanes());
        let inside = if all { "true".into() } else { format!("w < {}u", words[i]) };
        out.line(format!("fn fetch_{name}(work: Work, key0: u32, flag: u32) {{"));
        out.line("var most = 0u;");
        out.repeat("i", most[i], |out, n| {
            out.line(format!("let w = work.lane + {n} * LANES;"));
            // Past the last word is past the tile's last key: read, but not put.
            out.line(format!("let x = {name}_word(work, key0, w);"));
            let fetched = out.variable("matrix_fetched", &[(n, 1)]);
            out.line(format!("{fetched} = vec4<f16>(x);"));
            out.line(format!("if ({ranged} && {inside}) {{ most = max(most, largest_bits(x)); }}"));
        });
        let converted = if name == "k" { "RANGED_QK" } else { "RANGED_V" };
        out.line(format!("if ({ranged}) {{ note(flag, most, {converted}); }}\n}}"));
        out.line(format!("fn put_{name}(work: Work) {{"));
        out.repeat("i", most[i], |out, n| {
            out.line(format!("let w = work.lane + {n} * LANES;"));
            let at = format!("w / {upper}_WORDS * {upper}_STRIDE + w % {upper}_WORDS * 4u");
            let fetched = out.variable("matrix_fetched", &[(n, 1)]);
            let put = format!("{name}_put4({at}, {fetched});");
            out.line(if all { put } else { format!("if ({inside}) {{ {put} }}") });
        });
        out.line("}");
    }
}

/// The weights of a tile that all rows see whole: scores stay in registers between the peak and the weights.
fn weigh_whole(out: &mut Steps, tile: &MatrixTile) {
    let keys = tile.keys / tile.parts();
    out.line("fn weigh_whole(work: Work, seen: Normalizer, key0: u32, grown: u32) -> Normalizer {");
    out.line(format!("let first = work.part * {keys}u;"));
    out.variables("", "s", keys, "f32");
    out.line("var peak = seen.m;");
    out.repeat("i", keys, |out, i| {
        out.line(format!("let at = (first + {i}) * ROW_STRIDE + work.place;"));
        let s = out.variable("s", &[(i, 1)]);
        out.line(format!("{s} = modify(sh_scores[at], shown(work, key0 + first + {i}));"));
        out.line(format!("peak = normalize_peak(peak, {s});"));
    });
    out.line("var state = raised(work, seen, peak, grown);");
    out.repeat("i", keys, |out, i| {
        let s = out.variable("s", &[(i, 1)]);
        out.line(format!("var p = normalize_weight({s}, state.m, state.m);"));
        out.line("state.l += normalize_share(p);");
        out.line(format!("if (FACTOR) {{ p *= weight_factor(shown(work, key0 + first + {i})); }}"));
        out.line(format!("sh_weights[(first + {i}) * ROW_STRIDE + work.place] = f16(p * UNIT);"));
    });
    out.line("return state;\n}");
}

/// o passes through `sh_scores[column][row]`, KEYS columns at a time: to be changed, and in the end.
fn columns(out: &mut Steps, tile: &MatrixTile) {
    let [_, depth] = tile.depth();
    let step = tile.keys / tile.edge;
    let pass = |out: &mut Steps, chunk: Index, inward: bool| {
        out.repeat("i", step, |out, i| {
            guarded(out, depth, step, chunk, i, |out| {
                out.repeat("b", tile.blocks, |out, b| {
                    let o = out.variable("matrix_o", &[(b, depth), (chunk, step), (i, 1)]);
                    out.line(format!(
                        "let at = {i} * EDGE * ROW_STRIDE + work.team_row + {b} * EDGE;"
                    ));
                    out.line(if inward {
                        format!("{o} = coopLoad<MatrixC>(&sh_scores[at], ROW_STRIDE);")
                    } else {
                        format!("let x = {o}; coopStore(x, &sh_scores[at], ROW_STRIDE);")
                    });
                });
            });
        });
        out.line("workgroupBarrier();");
    };
    let chunks = depth.div_ceil(step);
    out.line("fn matrix_turn(work: Work, turn: Turn) {");
    out.repeat("chunk", chunks, |out, chunk| {
        pass(out, chunk, false);
        let _ = writeln!(out.text, "turn_columns(work, turn, {chunk} * KEYS);");
        out.line("workgroupBarrier();");
        pass(out, chunk, true);
    });
    out.line("}\nfn matrix_end(work: Work, scale: f32, empty: bool) {");
    out.repeat("chunk", chunks, |out, chunk| {
        pass(out, chunk, false);
        let _ = writeln!(out.text, "store_columns(work, scale, empty, {chunk} * KEYS);");
        out.line("workgroupBarrier();");
    });
    out.line("}");
}
