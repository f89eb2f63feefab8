//! Generated code of kernels on tiles of rows and keys: scores `s{key}_{strip}`, a vec4 of four rows each, and outputs
//! `o{row}_{column}`, a vec4 of four columns each, in an invocation's registers. Gradients are in `backward`.
//!
//! Registers are variables of their own, since compilers keep arrays in registers under constant indices
//! only. Workgroup memory is `sh[block][place][16]`: with constant block and place the index check that
//! validation adds is one `min`.

mod backward;
mod products;
mod sums;

pub(in crate::kernel) use backward::tile_backward;

use super::registers::row_types;
use super::steps::{Index, Steps};
use crate::feature::score::Stage;
use crate::kernel::bindings::Binding;
use crate::kernel::block_tile::BlockTile;
use crate::kernel::kernels::Kernel;
use crate::kernel::spec::KernelSpec;
use sums::Weighing;

/// The definitions that `common/tile_attend.wgsl` and the kernels around it call.
pub(in crate::kernel) fn tile(tile: &BlockTile, spec: &KernelSpec) -> String {
    let mut out = Steps { text: row_types(4), unrolled: tile.is_written() };
    declare(&mut out, tile, spec);
    out.line("fn d_o_origin(batch: u32, head: u32) -> u32 { return 0u; }");
    places_of_rows(&mut out, spec);
    products::loads(&mut out, tile, spec);
    products::load_values(&mut out, tile, spec, ("v", "v", Binding::V));
    let meeting = if spec.packs_heads() { &products::SCORES_OF_GROUP } else { &products::SCORES };
    products::products(&mut out, tile, meeting);
    scores(&mut out, tile, spec);
    peaks(&mut out, tile);
    weights(&mut out, tile);
    let weighing = Weighing {
        name: "tile_sums",
        weights: "s",
        values: "v",
        sums: "o",
        first: "key0",
        waits: spec.is_each(),
    };
    sums::sums(&mut out, tile, spec, &weighing);
    row_sums(&mut out, tile, "l");
    match spec.kernel {
        Kernel::SplitForwardTile | Kernel::SplitForwardGroup => store_parts(&mut out, tile),
        _ => store(&mut out, tile, &OUTPUTS),
    }
    out.text
}

/// What a row's number says: which row of which head, where its q is, and where its partial results are. Numbers of
/// rows of a group go from head to head, and those past the last repeat it.
fn places_of_rows(out: &mut Steps, spec: &KernelSpec) {
    let position = "fn tile_position(rows: Rows, row: u32, key: u32) -> Position";
    let part = "fn tile_part(row: u32) -> u32";
    let shares = matches!(spec.kernel, Kernel::SplitForwardTile | Kernel::SplitForwardGroup);
    if !spec.packs_heads() {
        let at = "position_at(rows, min(row, rows.last), key)";
        out.line(format!("{position} {{ return {at}; }}"));
        if shares {
            out.line(format!("{part} {{ return row * params.split_n; }}"));
        }
        return;
    }
    out.line("fn group_last() -> u32 { return params.group * params.row_n - 1u; }");
    let at = "Position(rows.batch, rows.head + at % params.group, params.row0 + at / params.group, key, rows.q_len, \
              rows.kv_len, rows.diagonal, rows.alibi_offset)";
    out.line(format!("{position} {{ let at = min(row, group_last()); return {at}; }}"));
    let offset = "row % params.group * params.seq_q + row / params.group";
    out.line(format!("{part} {{ return ({offset}) * params.split_n; }}"));
    let q = "row % params.group * params.q_stride_head \
             + (params.row0 + row / params.group) * params.q_stride_row";
    out.line(format!("fn group_rows_q(row: vec4<u32>) -> vec4<u32> {{ return {q}; }}"));
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
fn plus(base: u32, index: Index) -> String {
    index.number().map_or(format!("{base}u + {index}"), |i| format!("{}u", base + i))
}

/// The tile's numbers and its workgroup memory.
fn declare_tile(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    let constants = [
        ("OWNED", tile.rows),
        ("DOWN", tile.down),
        ("ACROSS", tile.across),
        ("LANES", tile.lanes()),
        ("KEYS", tile.keys),
    ];
    for (name, value) in constants {
        out.line(format!("const {name}: u32 = {value}u;"));
    }
    out.line(format!(
        "var<workgroup> sh: array<array<array<vec4<f32>, 16>, 4>, {}>;",
        tile.blocks()
    ));
    if spec.selects_values() {
        // Whether some v was NaN or infinite. The first one only; it fills 16 bytes.
        out.line("var<workgroup> sh_special: array<atomic<u32>, 4>;");
    }
}

fn declare(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    declare_tile(out, tile, spec);
    out.line(format!("const RELATIVE: bool = {};", !spec.is_each()));
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

/// The end of a loop; in eights one that compilers do not know: a tile whose loops they write out may spill where its
/// loops do not (`plan/tuning/table.rs`).
fn end_of(tile: &BlockTile, end: u32) -> String {
    if tile.keeps_loops() {
        format!("select({end}u, 0u, params.seq_q == 0u)")
    } else {
        format!("{end}u")
    }
}

/// `body` for each of `n` depths or keys, given its block of four and its place there.
fn steps(out: &mut Steps, tile: &BlockTile, n: u32, body: impl Fn(&mut Steps, Index, Index)) {
    if out.unrolled {
        for d in 0..n {
            body(out, Index::Number(d / 4), Index::Number(d % 4));
        }
    } else if tile.keeps_loops() {
        let blocks = ["(d * 2u)", "(d * 2u + 1u)"].into_iter().take(n as usize / 4);
        let end = end_of(tile, n.div_ceil(8));
        out.line(format!("for (var d = 0u; d < {end}; d += 1u) {{"));
        for block in blocks {
            (0..4).for_each(|i| body(out, Index::Text(block), Index::Number(i)));
        }
        out.line("}");
    } else {
        out.line(format!("for (var d = 0u; d < {n}u; d += 1u) {{"));
        body(out, Index::Text("d / 4u"), Index::Text("d % 4u"));
        out.line("}");
    }
}

/// The next key's scores take the first one's place: after as many turns all are where they were, and a
/// loop's text is that of one.
fn rotate(out: &mut Steps, tile: &BlockTile, of: &str, s: u32, by: u32) {
    let n = tile.keys_each();
    (0..by).for_each(|j| out.line(format!("let first_{of}{j}_{s} = {of}{j}_{s};")));
    (by..n).for_each(|j| out.line(format!("{of}{}_{s} = {of}{j}_{s};", j - by)));
    (0..by).for_each(|j| out.line(format!("{of}{}_{s} = first_{of}{j}_{s};", n - by + j)));
}

/// `body` for each of an invocation's keys in turn, given a strip: what it makes of `s0_{strip}` and `key`.
fn each_key(out: &mut Steps, tile: &BlockTile, body: impl Fn(&mut Steps, u32)) {
    out.line(format!("for (var i = 0u; i < {}u; i += 1u) {{", tile.keys_each()));
    out.line("let key = key_of(place, key0, i);");
    for s in strips(tile) {
        body(out, s);
        rotate(out, tile, "s", s, 1);
    }
    out.line("}");
}

fn row_of(tile: &BlockTile, s: u32) -> String {
    format!("place.row + {}u", s * tile.down * 4)
}

/// Whether scores are their products, scaled: short enough to be written out for each.
fn is_plain(spec: &KernelSpec) -> bool {
    spec.scores.iter().all(|(stage, slot)| *stage == Stage::Scaled && !slot.custom)
}

fn scores(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    out.line("fn tile_show(rows: Rows, end: u32, place: Place, key0: u32) {");
    each_key(out, tile, |out, s| {
        out.line(format!("s0_{s} = shown_scores(rows, end, s0_{s}, {}, key);", row_of(tile, s)));
    });
    out.line("}\nfn tile_modify(rows: Rows, end: u32, place: Place, key0: u32) {");
    if is_plain(spec) {
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
    out.line("}\n}");
}

/// `gather_{of}`, `tile_{of}`: the parts of rows' sums, and behind it what they come to, four rows to each of the first
/// 16 invocations.
fn row_sums(out: &mut Steps, tile: &BlockTile, of: &str) {
    let (at, _) = tile.peaks_at();
    let place = |s| format!("sh[{at}u + place.x / 4u][place.x % 4u][{}]", of_strip(tile, s));
    out.line(format!("fn gather_{of}(place: Place) {{\nworkgroupBarrier();"));
    strips(tile).for_each(|s| out.line(format!("{} = {of}_{s};", place(s))));
    out.line(format!(
        "workgroupBarrier();\n}}\nfn tile_{of}(place: Place) -> vec4<f32> {{\nvar sum = vec4<f32>(0.0);"
    ));
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

/// O as it is, into a share's partial results; `first` is where those of row 0 of the head are.
fn store_parts(out: &mut Steps, tile: &BlockTile) {
    out.line("fn tile_store_parts(place: Place, row_end: u32, first: u32) {");
    let columns_all = tile.dim_v.div_ceil(4);
    for r in rows(tile) {
        let row = format!("{} + {}u", row_of(tile, r / 4), r % 4);
        out.line(format!("if ({row} < row_end) {{"));
        out.line(format!("let at = (first + tile_part({row})) * {columns_all}u;"));
        for t in columns(tile) {
            let column = format!("place.x + {}u", t * tile.across);
            out.line(format!(
                "{{ let c = {column}; if (c < {columns_all}u) {{ partials[at + c] = o{r}_{t}; }} }}"
            ));
        }
        out.line("}");
    }
    out.line("}");
}

/// What becomes of columns where they are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// They are multiplied with what workgroup memory says of their rows, or 0 where it says that these are empty.
    Outputs,
    /// They are multiplied with what it says of their rows; 0 past the sequence's length.
    Rows,
    /// They are as they are; 0 past the sequence's length.
    Known,
}

/// Columns that are in registers, and where they go.
struct Store {
    /// The function that stores them.
    name: &'static str,
    /// Registers of the columns.
    sums: &'static str,
    /// The tensor, and the one that it lies as.
    to: [&'static str; 2],
    ends: Ends,
}

const OUTPUTS: Store = Store { name: "tile_store", sums: "o", to: ["o", "o"], ends: Ends::Outputs };

impl Store {
    fn signature(name: &str, ends: Ends) -> String {
        let length = if ends == Ends::Outputs { "" } else { "length: u32, " };
        format!("fn {name}(place: Place, end: u32, {length}first: u32)")
    }
}

fn store(out: &mut Steps, tile: &BlockTile, of: &Store) {
    let Store { name, sums, to: [to, like], ends } = of;
    let dim = tile.dim_v;
    out.line(format!("{} {{", Store::signature(name, *ends)));
    for s in strips(tile).filter(|_| *ends != Ends::Known) {
        out.line(format!("let scale{s} = sh[0][0][{}];", of_strip(tile, s)));
    }
    for s in strips(tile).filter(|_| *ends == Ends::Outputs) {
        out.line(format!("let empty{s} = sh[0][1][{}];", of_strip(tile, s)));
    }
    for r in rows(tile) {
        let (s, c) = (r / 4, r % 4);
        let row = format!("{} + {c}u", row_of(tile, s));
        out.line(format!("if ({row} < end) {{"));
        out.line(format!("let at = first + ({row}) * params.{like}_stride_row;"));
        for t in columns(tile) {
            let column = format!("(place.x + {}u) * 4u", t * tile.across);
            let scaled = format!("{sums}{r}_{t} * scale{s}[{c}u]");
            let (value, none) = match ends {
                Ends::Outputs => (scaled, format!("empty{s}[{c}u] > 0.0")),
                Ends::Rows => (scaled, format!("{row} >= length")),
                Ends::Known => (format!("{sums}{r}_{t}"), format!("{row} >= length")),
            };
            let value = format!("select({value}, vec4<f32>(0.0), {none})");
            let store = format!("{to}_store4(at + c, min({dim}u - c, 4u), {value});");
            out.line(format!("{{ let c = {column}; if (c < {dim}u) {{ {store} }} }}"));
        }
        out.line("}");
    }
    out.line("}");
}
