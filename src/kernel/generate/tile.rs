//! Generated code of `fused_forward_tile`: scores `s{key}_{strip}`, a vec4 of four rows each, and outputs
//! `o{row}_{column}`, a vec4 of four columns each, in an invocation's registers.
//!
//! Registers are variables of their own, since compilers keep arrays in registers under constant indices
//! only. Workgroup memory is `sh[block][place][16]`: with constant block and place the index check that
//! validation adds is one `min`.

use super::matrix::Steps;
use super::registers::row_types;
use crate::feature::score::Stage;
use crate::kernel::bindings::Binding;
use crate::kernel::block_tile::{BlockTile, PART};
use crate::kernel::spec::KernelSpec;
use crate::tensor::Storage;

/// The definitions that `kernel/fused_forward_tile.wgsl` calls.
pub(in crate::kernel) fn tile(tile: &BlockTile, spec: &KernelSpec) -> String {
    let mut out = Steps { text: row_types(4), unrolled: tile.unrolled };
    declare(&mut out, tile, spec);
    loads(&mut out, tile, spec);
    products(&mut out, tile);
    scores(&mut out, tile, spec);
    peaks(&mut out, tile);
    weights(&mut out, tile);
    multiply(&mut out, tile);
    if spec.selects_values() {
        multiply_selected(&mut out, tile);
    }
    sums(&mut out, tile, spec);
    store(&mut out, tile);
    out.text
}

/// Indices of the strips of rows, of keys and of rows of an invocation, and of its columns.
fn strips(tile: &BlockTile) -> std::ops::Range<u32> {
    0..tile.strips()
}

fn keys(tile: &BlockTile) -> std::ops::Range<u32> {
    0..tile.keys_each()
}

fn rows(tile: &BlockTile) -> std::ops::Range<u32> {
    0..4 * tile.strips()
}

fn columns(tile: &BlockTile) -> std::ops::Range<u32> {
    0..tile.columns_each()
}

/// Where a strip's vec4 lies among the 16 of a place.
fn of_strip(tile: &BlockTile, strip: u32) -> String {
    format!("{}u + place.y", strip * tile.down)
}

/// A sum of a number and an index, which is a number where steps are written out.
fn plus(base: u32, index: &str) -> String {
    let literal: Option<u32> = index.trim_end_matches('u').parse().ok();
    literal.map_or(format!("{base}u + {index}"), |i| format!("{}u", base + i))
}

fn declare(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    let constants = [
        ("DOWN", tile.down),
        ("ACROSS", tile.across),
        ("LANES", tile.lanes()),
        ("KEYS", tile.keys),
        ("DIM_QK", tile.dim_qk),
        ("DIM_V", tile.dim_v),
        ("STRIDE_V", tile.stride_v()),
    ];
    for (name, value) in constants {
        out.line(format!("const {name}: u32 = {value}u;"));
    }
    out.line(format!("const RELATIVE: bool = {};", !spec.is_each()));
    out.line(format!("const SELECTS: bool = {};", spec.selects_values()));
    out.line(format!(
        "var<workgroup> sh: array<array<array<vec4<f32>, 16>, 4>, {}>;",
        tile.blocks()
    ));
    if spec.selects_values() {
        // Whether some v was NaN or infinite. The first one only; it fills 16 bytes.
        out.line("var<workgroup> sh_special: array<atomic<u32>, 4>;");
    }
    for s in strips(tile) {
        keys(tile).for_each(|j| out.line(format!("var<private> s{j}_{s}: vec4<f32>;")));
        out.line(format!("var<private> l_{s}: vec4<f32>;"));
    }
    for r in rows(tile) {
        columns(tile).for_each(|t| out.line(format!("var<private> o{r}_{t}: vec4<f32>;")));
    }
    out.line("fn tile_begin(place: Place) {");
    strips(tile).for_each(|s| out.line(format!("l_{s} = vec4<f32>(0.0);")));
    for r in rows(tile) {
        columns(tile).for_each(|t| out.line(format!("o{r}_{t} = vec4<f32>(0.0);")));
    }
    if spec.selects_values() {
        out.line("if (place.lane == 0u) { atomicStore(&sh_special[0], 0u); }");
    }
    out.line("}");
}

/// `tile_q`, `tile_k`: four channels of a row that starts at element `at`; `tile_v`: a vec4 of columns of a
/// key, 0 where no row of the block may look.
fn loads(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    let storage = |binding| {
        let element = spec.elements.iter().find(|(b, _)| *b == binding);
        element.map(|(_, element)| element.storage)
    };
    let scaled = |operand: &str, binding| match storage(binding) {
        Some(Storage::Int8) => format!(" * {operand}_scale(at, 0u)"),
        Some(Storage::Int4) => format!(" * {operand}_scale(at, c >> 5u)"),
        _ => String::new(),
    };
    let there = if spec.is_paged() { "select(0u, n, key_there(rows, key))" } else { "n" };
    // Quantised loads may not ask how many are wanted.
    let asks = |binding| matches!(storage(binding), Some(Storage::Int4));
    let body = |operand: &str, binding, n: &str, there: &str| {
        let load = format!("{operand}_load4(at + c, m){}", scaled(operand, binding));
        let whole = n == "4u" && there == "n";
        let value = if asks(binding) && !whole {
            format!("var x = vec4<f32>(0.0); if (m > 0u) {{ x = {load}; }}")
        } else {
            format!("let x = {load};")
        };
        format!("let n = {n}; let m = {there}; {value}")
    };
    let left = |dim: u32, whole: bool| {
        if whole { "4u".to_owned() } else { format!("min(max({dim}u, c) - c, 4u)") }
    };
    let n = left(tile.dim_qk, tile.dim_qk.is_multiple_of(tile.depth));
    let q = body("q", Binding::Q, &n, "n");
    out.line(format!("fn tile_q(at: u32, c: u32) -> vec4<f32> {{ {q} return x; }}"));
    let k = body("k", Binding::K, &n, there);
    out.line(format!(
        "fn tile_k(rows: Rows, key: u32, at: u32, c: u32) -> vec4<f32> {{ {k} return x; }}"
    ));
    let n = left(tile.dim_v, tile.dim_v == 4 * tile.stride_v());
    let v = body("v", Binding::V, &n, there);
    let note = if spec.selects_values() {
        "if (tested && any_special(shown)) { atomicStore(&sh_special[0], 1u); } "
    } else {
        ""
    };
    out.line(format!(
        "fn tile_v(rows: Rows, visible: vec2<u32>, v_at: u32, wanted: u32, c: u32, tested: bool) -> vec4<f32> {{ \
         let key = clamp(wanted, visible.x, visible.y - 1u); \
         let at = v_at + span_offset(rows, key).y + key * params.v_stride_row; {v} \
         let shown = select(x, vec4<f32>(0.0), wanted != key); {note}return shown; }}"
    ));
}

/// Scores of the tile before modifiers: chunks of q and k through workgroup memory, each invocation taking
/// four rows or keys of four channels there at a time, transposed.
fn products(out: &mut Steps, tile: &BlockTile) {
    let [groups_q, groups] = tile.groups();
    let at_once = tile.lanes() / 64;
    let turns = groups.div_ceil(at_once);
    out.line("fn tile_products(rows: Rows, end: u32, origins: Origins, place: Place, row0: u32, key0: u32) {");
    for s in strips(tile) {
        keys(tile).for_each(|j| out.line(format!("s{j}_{s} = vec4<f32>(0.0);")));
    }
    // Neighbours read 64 bytes of one row, and put them into different banks: what a block has of four depths
    // is turned by twice their number. With a row to each neighbour one H200 reached 26, 29 and 28 TFLOP/s at
    // dims 64, 128 and 256, so 32, 34 and 34 (f32, 1x16x4096, chunks fetched ahead in both).
    out.line("let fours = place.lane % 4u;\nlet quad = place.lane / 4u % 16u;");
    for i in 0..turns {
        let group = plus(i * at_once, if at_once == 1 { "0u" } else { "place.lane / 64u" });
        out.line(format!(
            "let group{i} = {group};\nvar at{i} = vec4<u32>(0u);\nvar keys{i} = vec4<u32>(0u);"
        ));
        let q = format!(
            "at{i} = origins.q + min(vec4<u32>(row0 + quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(rows.last)) \
             * params.q_stride_row;"
        );
        let offset = |c: u32| format!("span_offset(rows, keys{i}[{c}u]).x");
        let offsets: Vec<String> = (0..4).map(offset).collect();
        let k = format!(
            "keys{i} = min(vec4<u32>(key0 + (group{i} - {groups_q}u) / {groups_q}u * 64u + quad * 4u) + \
             vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u)); \
             at{i} = origins.k + vec4<u32>({}) + keys{i} * params.k_stride_row;",
            offsets.join(", ")
        );
        out.line(of_group(tile, i, &q, &k));
    }
    let depth = tile.depth;
    out.line(format!(
        "for (var chunk = 0u; chunk < {}u; chunk += {depth}u) {{",
        tile.dim_qk.max(1).next_multiple_of(depth)
    ));
    for i in 0..turns {
        out.line(format!("let c{i} = chunk + group{i} % {groups_q}u * 16u + fours * 4u;"));
        let load = |of: &str| {
            let value = |r: u32| match of {
                "q" => format!("x{i}[{r}u] = tile_q(at{i}[{r}u], c{i});"),
                _ => format!("x{i}[{r}u] = tile_k(rows, keys{i}[{r}u], at{i}[{r}u], c{i});"),
            };
            (0..4).map(value).collect::<Vec<_>>().join(" ")
        };
        out.line(format!("var x{i}: mat4x4<f32>;\n{}", of_group(tile, i, &load("q"), &load("k"))));
    }
    out.line("workgroupBarrier();");
    for i in 0..turns {
        let full = (i + 1) * at_once <= groups;
        let at = format!("sh[group{i} * 4u + fours]");
        let put = |c: u32| format!("{at}[{c}][quad ^ (fours * 2u)] = t[{c}];");
        let puts = (0..4).map(put).collect::<Vec<_>>().join(" ");
        let guard = if full { String::new() } else { format!("if (group{i} < {groups}u) ") };
        out.line(format!("{guard}{{ let t = transpose(x{i}); {puts} }}"));
    }
    out.line("workgroupBarrier();");
    steps(out, depth, |out, d, i| product_step(out, tile, d, i));
    out.line("}\n}");
}

/// What an invocation does in its i-th turn of staging: for a group of q, for one of k, or one by its group.
fn of_group(tile: &BlockTile, i: u32, q: &str, k: &str) -> String {
    let [groups_q, groups] = tile.groups();
    let at_once = tile.lanes() / 64;
    let covered = i * at_once..((i + 1) * at_once).min(groups);
    if covered.end <= groups_q {
        q.to_owned()
    } else if covered.start >= groups_q {
        k.to_owned()
    } else {
        format!("if (group{i} < {groups_q}u) {{ {q} }} else {{ {k} }}")
    }
}

/// `body` for each of `n` depths or keys, given its block of four and its place there.
fn steps(out: &mut Steps, n: u32, body: impl Fn(&mut Steps, &str, &str)) {
    if out.unrolled {
        for d in 0..n {
            body(out, &format!("{}u", d / 4), &format!("{}u", d % 4));
        }
    } else {
        out.line(format!("for (var d = 0u; d < {n}u; d += 1u) {{"));
        body(out, "d / 4u", "d % 4u");
        out.line("}");
    }
}

/// One depth of the products: the `i`-th of the four of block `d`.
fn product_step(out: &mut Steps, tile: &BlockTile, d: &str, i: &str) {
    let [groups_q, _] = tile.groups();
    let literal: Option<u32> = d.trim_end_matches('u').parse().ok();
    let turn = literal.map_or(format!("(({d}) % 4u * 2u)"), |d| format!("{}u", d % 4 * 2));
    out.line("{");
    for s in strips(tile) {
        let at = format!("{}u + (place.y ^ {turn})", s * tile.down);
        out.line(format!("let a{s} = sh[{}][{i}][{at}];", plus(0, d)));
    }
    for t in 0..tile.keys_each() / 4 {
        let quad = t * tile.across;
        let block = plus(4 * groups_q * (1 + quad / 16), d);
        out.line(format!("let b{t} = sh[{block}][{i}][{}u + (place.x ^ {turn})];", quad % 16));
        for (j, s) in (0..4).flat_map(|j| strips(tile).map(move |s| (j, s))) {
            let score = format!("s{}_{s}", 4 * t + j);
            out.line(format!("{score} = fma(a{s}, vec4<f32>(b{t}[{j}u]), {score});"));
        }
    }
    out.line("}");
}

/// The next key's scores take the first one's place: after as many turns all are where they were, and a
/// loop's text is that of one.
fn rotate(out: &mut Steps, tile: &BlockTile, s: u32, by: u32) {
    let n = tile.keys_each();
    (0..by).for_each(|j| out.line(format!("let first{j}_{s} = s{j}_{s};")));
    (by..n).for_each(|j| out.line(format!("s{}_{s} = s{j}_{s};", j - by)));
    (0..by).for_each(|j| out.line(format!("s{}_{s} = first{j}_{s};", n - by + j)));
}

/// `body` for each of an invocation's keys in turn, given a strip: what it makes of `s0_{strip}` and `key`.
fn each_key(out: &mut Steps, tile: &BlockTile, body: impl Fn(&mut Steps, u32)) {
    out.line(format!("for (var i = 0u; i < {}u; i += 1u) {{", tile.keys_each()));
    out.line("let key = key_of(place, key0, i);");
    for s in strips(tile) {
        body(out, s);
        rotate(out, tile, s, 1);
    }
    out.line("}");
}

fn row_of(tile: &BlockTile, s: u32) -> String {
    format!("place.row + {}u", s * tile.down * 4)
}

fn scores(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    out.line("fn tile_show(rows: Rows, end: u32, place: Place, key0: u32) {");
    each_key(out, tile, |out, s| {
        out.line(format!("s0_{s} = shown_scores(rows, end, s0_{s}, {}, key);", row_of(tile, s)));
    });
    out.line("}\nfn tile_modify(rows: Rows, end: u32, place: Place, key0: u32) {");
    let plain = spec.scores.iter().all(|(stage, slot)| *stage == Stage::Scaled && !slot.custom);
    if plain {
        for (j, s) in keys(tile).flat_map(|j| strips(tile).map(move |s| (j, s))) {
            let whole = format!("whole_scores(rows, end, s{j}_{s}, {}, key0)", row_of(tile, s));
            out.line(format!("s{j}_{s} = {whole};"));
        }
    } else {
        each_key(out, tile, |out, s| {
            let whole = format!("whole_scores(rows, end, s0_{s}, {}, key)", row_of(tile, s));
            out.line(format!("s0_{s} = {whole};"));
        });
    }
    out.line("}");
}

/// A part of a row for each invocation across, and what 16 invocations make of them, four rows each.
fn across(out: &mut Steps, tile: &BlockTile, at: u32, body: impl Fn(&mut Steps, &str)) {
    out.repeat("i", tile.across / 4, |out, i| {
        for c in 0..4 {
            body(out, &format!("sh[{}][{c}][place.lane]", plus(at, i)));
        }
    });
}

fn peaks(out: &mut Steps, tile: &BlockTile) {
    let (at, over) = tile.peaks_at();
    let place = |s| format!("sh[{at}u + place.x / 4u][place.x % 4u][{}]", of_strip(tile, s));
    out.line("fn tile_put_peaks(place: Place) {");
    for s in strips(tile) {
        out.line(format!("var peak{s} = s0_{s};"));
        for j in 1..tile.keys_each() {
            out.line(format!("peak{s} = normalize_peak(peak{s}, s{j}_{s});"));
        }
    }
    out.line(if over { "workgroupBarrier();" } else { "" });
    strips(tile).for_each(|s| out.line(format!("{} = peak{s};", place(s))));
    out.line("}\nfn tile_peak(place: Place, m: vec4<f32>) -> vec4<f32> {\nvar peak = m;");
    across(out, tile, at, |out, part| out.line(format!("peak = normalize_peak(peak, {part});")));
    out.line("return peak;\n}\nfn tile_rescale(place: Place) {");
    let mut moved = Vec::new();
    for s in strips(tile) {
        out.line(format!("let old{s} = sh[0][1][{}];", of_strip(tile, s)));
        moved.push(format!("any(old{s} != vec4<f32>(1.0))"));
    }
    out.line(format!("if ({}) {{", moved.join(" || ")));
    strips(tile).for_each(|s| out.line(format!("l_{s} *= old{s};")));
    for r in rows(tile) {
        let old = format!("old{}[{}u]", r / 4, r % 4);
        columns(tile).for_each(|t| out.line(format!("o{r}_{t} *= {old};")));
    }
    out.line("}\n}\nfn tile_put_sums(place: Place) {");
    strips(tile).for_each(|s| out.line(format!("{} = l_{s};", place(s))));
    out.line("}\nfn tile_sum(place: Place) -> vec4<f32> {\nvar sum = vec4<f32>(0.0);");
    across(out, tile, at, |out, part| out.line(format!("sum += {part};")));
    out.line("return sum;\n}");
}

/// Scores become weights.
fn weights(out: &mut Steps, tile: &BlockTile) {
    let peaks = |out: &mut Steps| {
        for s in strips(tile) {
            out.line(format!("var m{s} = vec4<f32>(normalize_empty().m);"));
            out.line(format!("if (RELATIVE) {{ m{s} = sh[0][0][{}]; }}", of_strip(tile, s)));
        }
    };
    out.line("fn tile_weigh(place: Place) {");
    peaks(out);
    for (j, s) in keys(tile).flat_map(|j| strips(tile).map(move |s| (j, s))) {
        out.line(format!("s{j}_{s} = normalize_weight(s{j}_{s}, m{s}, m{s});"));
        out.line(format!("l_{s} += normalize_share(s{j}_{s});"));
    }
    out.line("}\nfn tile_weigh_shown(rows: Rows, end: u32, place: Place, key0: u32) {");
    peaks(out);
    each_key(out, tile, |out, s| {
        let row = row_of(tile, s);
        out.line(format!("let none{s} = masked4(s0_{s});"));
        out.line(format!("var p{s} = normalize_weight(s0_{s}, m{s}, m{s});"));
        out.line(format!("l_{s} += select(normalize_share(p{s}), vec4<f32>(0.0), none{s});"));
        out.line(format!("if (FACTOR) {{ p{s} *= factors(rows, end, {row}, key); }}"));
        out.line(format!("s0_{s} = weights_of_parts(p{s}, none{s});"));
    });
    out.line("}");
}

/// The `t`-th vec4 of columns of v at a key of the chunk: the `i`-th of the four of block `d`.
fn of_v(tile: &BlockTile, d: &str, i: &str, t: u32) -> String {
    let literal = |text: &str| text.trim_end_matches('u').parse::<u32>().ok();
    if let (Some(d), Some(i)) = (literal(d), literal(i)) {
        let at = (4 * d + i) * tile.stride_v() + t * tile.across;
        return format!("sh[{}u][{}][{}u + place.x]", at / 64, at / 16 % 4, at % 16);
    }
    let at = format!("(d * STRIDE_V + {}u)", t * tile.across);
    format!("sh[{at} / 64u][{at} / 16u % 4u][{at} % 16u + place.x]")
}

fn multiply(out: &mut Steps, tile: &BlockTile) {
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
fn multiply_selected(out: &mut Steps, tile: &BlockTile) {
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
fn sums(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    out.line(
        "fn tile_sums(rows: Rows, visible: vec2<u32>, origins: Origins, place: Place, key0: u32, tested: bool) {",
    );
    // Weights of all before are multiplied, and scores where none were needed for a peak.
    out.repeat("part", tile.keys / PART, |out, part| {
        if part != "0u" || spec.is_each() {
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

fn put_weights(out: &mut Steps, tile: &BlockTile, part: &str) {
    let literal: Option<u32> = part.trim_end_matches('u').parse().ok();
    // An invocation's four neighbouring keys lie in one part; all invocations have some there, or half of them.
    let halves = tile.across == 16;
    let [block, guard] = if halves {
        let own = literal.map_or(format!("{part} % 2u"), |part| format!("{}u", part % 2));
        ["place.x % 8u".to_owned(), format!("if (place.x / 8u == {own}) ")]
    } else {
        ["place.x".to_owned(), String::new()]
    };
    let four = literal.map_or(0, |part| if halves { part / 2 } else { part });
    out.line(format!("{guard}{{"));
    for (j, s) in (0..4).flat_map(|j| strips(tile).map(move |s| (j, s))) {
        let at = format!("sh[{}u + {block}][{j}][{}]", tile.weights_at(), of_strip(tile, s));
        out.line(format!("{at} = s{}_{s};", 4 * four + j));
    }
    out.line("}");
    if literal.is_none() && tile.keys_each() > 4 {
        let last = if halves { format!("if ({part} % 2u == 1u) ") } else { String::new() };
        out.line(format!("{last}{{"));
        strips(tile).for_each(|s| rotate(out, tile, s, 4));
        out.line("}");
    }
}

fn put_values(out: &mut Steps, tile: &BlockTile, part: &str) {
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

fn store(out: &mut Steps, tile: &BlockTile) {
    out.line("fn tile_store(place: Place, row_end: u32, o_at: u32) {");
    for s in strips(tile) {
        out.line(format!("let scale{s} = sh[0][0][{}];", of_strip(tile, s)));
        out.line(format!("let empty{s} = sh[0][1][{}];", of_strip(tile, s)));
    }
    for r in rows(tile) {
        let (s, c) = (r / 4, r % 4);
        out.line(format!("if ({} + {c}u < row_end) {{", row_of(tile, s)));
        out.line(format!("let at = o_at + ({} + {c}u) * params.o_stride_row;", row_of(tile, s)));
        for t in columns(tile) {
            let column = format!("(place.x + {}u) * 4u", t * tile.across);
            let value =
                format!("select(o{r}_{t} * scale{s}[{c}u], vec4<f32>(0.0), empty{s}[{c}u] > 0.0)");
            let store = format!("o_store4(at + c, min(DIM_V - c, 4u), {value});");
            out.line(format!("{{ let c = {column}; if (c < DIM_V) {{ {store} }} }}"));
        }
        out.line("}");
    }
    out.line("}");
}
