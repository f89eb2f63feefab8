//! Generated functions by which a kernel reaches its slots: positions, scores, masks, outputs.

use std::fmt::Write;

use super::function;
use super::glue_elements::{load_glue, store_glue};
use crate::feature::Slot;
use crate::feature::score::Stage;
use crate::kernel::bindings::Binding;
use crate::kernel::kernels::Kernel;
use crate::kernel::spec::{BlockTable, Capture, KernelSpec};
use crate::kernel::twin::{Family, Visits};
use crate::problem::{Operand, WeightsAt};

/// The functions by which a kernel reaches its slots.
pub(in crate::kernel) fn glue(spec: &KernelSpec) -> String {
    let mut out = String::new();
    for (binding, element) in &spec.elements {
        match binding {
            // Written as words.
            Binding::O if element.is_quantised() => {}
            to if spec.stores(*to) => store_glue(&mut out, spec, *to, *element),
            _ => load_glue(&mut out, spec, *binding, *element),
        }
    }
    let twin = spec.kernel.twin();
    if twin.square && spec.matrix_tile().is_none() {
        plain_tile_glue(&mut out);
    }
    if twin.family != Family::Alone {
        position_glue(&mut out, spec);
    }
    (twin.glue)(&mut out, spec);
    out
}

/// `d_table_store(i, v)`: an element of a table's gradient.
pub(in crate::kernel) fn table_glue(out: &mut String, spec: &KernelSpec) {
    let sum = if spec.adds_to.contains(&Binding::DTable) { "d_table[i] + v" } else { "v" };
    function(out, "d_table_store(i: u32, v: f32)", &format!("d_table[i] = {sum};"));
}

/// What every one-pass kernel needs.
pub(in crate::kernel) fn fused_glue(out: &mut String, spec: &KernelSpec) {
    score_glue(out, spec);
    whole_glue(out, spec);
    weight_glue(out, spec);
    start_glue(out, spec);
    value_scale_glue(out, spec);
    output_glue(out, spec);
}

/// `weight_factor(p)`: what a weight is multiplied with after it is normalised.
pub(in crate::kernel) fn weight_glue(out: &mut String, spec: &KernelSpec) {
    let factors = [(spec.factor, "mask_local_factor(p)"), (spec.dropout, "weight_dropout(p)")];
    let factors: Vec<&str> = factors.iter().filter_map(|(on, of)| on.then_some(*of)).collect();
    let product = if factors.is_empty() { "1.0".to_owned() } else { factors.join(" * ") };
    function(out, "weight_factor(p: Position) -> f32", &format!("return {product};"));
    // Of four keys from a multiple of 4 on; places are asked one by one.
    let mut four = "var f = vec4<f32>(1.0);".to_owned();
    if spec.factor {
        four += " var q = p; for (var c = 0u; c < 4u; c += 1u) { q.key = p.key + c; \
                 f[c] = mask_local_factor(q); }";
    }
    if spec.dropout {
        four += " f *= weight_dropout_4(p);";
    }
    function(out, "weight_factor4(p: Position) -> vec4<f32>", &format!("{four} return f;"));
    let _ = writeln!(out, "const FACTOR: bool = {};", !factors.is_empty());
}

/// `normalize_start(head)`: a row before its first key.
pub(in crate::kernel) fn start_glue(out: &mut String, spec: &KernelSpec) {
    let start =
        if spec.reads(Operand::Sinks) { "normalize_sink(head)" } else { "normalize_empty()" };
    function(out, "normalize_start(head: u32) -> Normalizer", &format!("return {start};"));
}

/// `value_scale(head)`: what o is multiplied with beside its weights' sum.
pub(in crate::kernel) fn value_scale_glue(out: &mut String, spec: &KernelSpec) {
    let word = "aux_word(params.aux_v_scales + head / params.group * params.kv_scale_stride)";
    let scaled = spec.reads(Operand::VScales);
    let scale = if scaled { format!("bitcast<f32>({word})") } else { "1.0".to_owned() };
    function(out, "value_scale(head: u32) -> f32", &format!("return {scale};"));
}

/// Score modifiers, masks and the keys to look at: what every kernel needs that makes scores.
pub(in crate::kernel) fn score_glue(out: &mut String, spec: &KernelSpec) {
    if spec.has_edges() {
        let along = spec.kernel == Kernel::EdgeForward;
        let body = if along { "return current_edge;" } else { "return edge_find(p);" };
        function(out, "edge_of(p: Position) -> u32", body);
    }
    chain_glue(out, spec);
    keep_glue(out, spec);
    blocks_glue(out, spec);
}

fn position_glue(out: &mut String, spec: &KernelSpec) {
    origin_glue(out, spec);
    let shorter = |on: bool, own: &str, table: &str| match on {
        true => format!("return min(aux_word(params.{table} + batch), {own});"),
        false => format!("return {own};"),
    };
    let q_len = match spec.is_packed() {
        true => packed_length("q"),
        false => shorter(spec.reads(Operand::QLengths), "params.seq_q", "aux_q_lengths"),
    };
    function(out, "q_length(batch: u32) -> u32", &q_len);
    let keys = match spec.has_packed_keys() {
        true => packed_length("kv"),
        false => "return params.seq_kv;".to_owned(),
    };
    function(out, "keys_held(batch: u32) -> u32", &keys);
    let kv = shorter(spec.reads(Operand::KvLengths), "keys_held(batch)", "aux_kv_lengths");
    function(out, "kv_length(batch: u32) -> u32", &kv);
    if spec.reads(Operand::Table) {
        let body = "return aux_word(params.aux_table + i);";
        function(out, "table_word(i: u32) -> u32", body);
    }
    let align = |slot: &Option<Slot>, given: &str| {
        slot.as_ref().map_or("return 0;".to_owned(), |slot| {
            format!("return {}(batch, q_len, kv_len, params.{given});", slot.function())
        })
    };
    let signature = "(batch: u32, q_len: u32, kv_len: u32) -> i32";
    let diagonal = align(&spec.diagonal, "diagonal_offset");
    function(out, &format!("diagonal{signature}"), &diagonal);
    let alibi = align(&spec.alibi, "alibi_offset");
    function(out, &format!("alibi_offset{signature}"), &alibi);
    let mut body = "var range = keys;".to_owned();
    for mask in spec.masks.iter().filter(|mask| mask.narrows) {
        body += &format!(" range = {}_range(rows, range);", mask.function());
    }
    let signature = "narrow(rows: Rows, keys: vec2<i32>) -> vec2<i32>";
    function(out, signature, &format!("{body} return range;"));
}

/// The tile without matrix units: nothing is put beside it, and a step is multiplied plainly.
fn plain_tile_glue(out: &mut String) {
    for signature in [
        "half_begin(lane: u32)",
        "half_put_a(r: u32, d: u32, rows: mat4x4<f32>)",
        "half_put_b_columns(c: u32, d: u32, columns: mat4x4<f32>)",
        "half_put_b_row(d: u32, c: u32, row: vec4<f32>)",
        "tile_finish(acc: ptr<function, array<vec4<f32>, 16>>, x: u32, y: u32)",
    ] {
        function(out, signature, "");
    }
    let signature =
        "tile_products(acc: ptr<function, array<vec4<f32>, 16>>, done: bool, x: u32, y: u32)";
    function(out, signature, "if (!done) { tile_multiply(acc, x, y); }");
}

/// What is done to a row of q or k, or to a new row of a cache.
pub(in crate::kernel) fn rotary_glue(out: &mut String, spec: &KernelSpec) {
    let Some(x) = spec.preparation else { return };
    angle_glue(out, spec);
    for (name, on) in [
        ("ROTARY", x.rotary.is_some()),
        ("INTERLEAVED", x.rotary == Some(true)),
        ("POSITION_IDS", x.ids.is_some()),
        ("NORMALIZED", x.normalized),
        ("HEAD_SCALE", x.head_scale),
        ("PROJECTED", x.projected),
    ] {
        let _ = writeln!(out, "const {name}: bool = {on};");
    }
    if !spec.needs_aux() {
        // Named in branches that are not taken.
        *out += "fn aux_word(i: u32) -> u32 { return 0u; }\n";
    }
    let _ = writeln!(out, "const PAGED: bool = {};", spec.is_paged());
}

/// Where angles and position ids are read, and the position of the first row that is turned.
fn angle_glue(out: &mut String, spec: &KernelSpec) {
    let ids = spec.preparation.and_then(|x| x.ids).unwrap_or(Operand::Positions);
    let first = format!("return params.aux_{} + batch * params.positions_stride;", ids.name());
    function(out, "position_ids(batch: u32) -> u32", &first);
    let bound = spec.bindings().iter().any(|x| x.binding == Binding::Angles);
    let word = if bound { "return angles[i];" } else { "return bitcast<f32>(aux_word(i));" };
    function(out, "rotary_word(i: u32) -> f32", word);
    if !spec.preparation.is_some_and(|x| x.at_end) {
        return function(out, "rotary_first(batch: u32) -> u32", "return params.rotary_start;");
    }
    let held = |packed: bool, side: &str| match packed {
        true => packed_length(side),
        false => format!("return params.seq_{side};"),
    };
    function(out, "q_held(batch: u32) -> u32", &held(spec.is_packed(), "q"));
    function(out, "kv_held(batch: u32) -> u32", &held(spec.has_packed_keys(), "kv"));
    let length = |on: bool, side: &str| match on {
        true => {
            format!("min(aux_word(params.aux_{side}_lengths + batch), {side}_held(batch))")
        }
        false => format!("{side}_held(batch)"),
    };
    let [kv, q] =
        [length(spec.reads(Operand::KvLengths), "kv"), length(spec.reads(Operand::QLengths), "q")];
    let body = format!("let rows = {q}; return max({kv}, rows) - rows;");
    function(out, "rotary_first(batch: u32) -> u32", &body);
}

/// The row at which a packed sequence starts, by an expression for its number.
fn packed_start(side: &str, batch: &str) -> String {
    format!("min(aux_word(params.aux_cu_seqlens_{side} + {batch}), params.total_{side})")
}

/// How long a packed sequence is, as the body of a function of `batch`.
fn packed_length(side: &str) -> String {
    let [start, end] = ["batch", "batch + 1u"].map(|batch| packed_start(side, batch));
    format!(
        "let start = {start}; let end = {end}; \
         return min(max(start, end) - start, params.seq_{side});"
    )
}

/// The first element of a sequence in a tensor, as the body of a function of `batch`; `packed` is the side it lies by.
fn origin(tensor: &str, packed: Option<&str>) -> String {
    match packed {
        Some(side) => {
            format!("return {} * params.{tensor}_stride_row;", packed_start(side, "batch"))
        }
        None => format!("return batch * params.{tensor}_stride_batch;"),
    }
}

/// Where a sequence starts in rows, in their copy and in the gradient of that, and how many rows it has.
pub(in crate::kernel) fn copy_glue(out: &mut String, spec: &KernelSpec) {
    let keys = spec.preparation.is_some_and(|x| x.keys);
    let (side, packed) =
        if keys { ("kv", spec.has_packed_keys()) } else { ("q", spec.is_packed()) };
    for tensor in ["q", "k", "o"] {
        let body = origin(tensor, packed.then_some(side));
        function(out, &format!("{tensor}_origin(batch: u32) -> u32"), &body);
    }
    let rows = if packed { packed_length(side) } else { "return params.row_n;".to_owned() };
    function(out, "rows_held(batch: u32) -> u32", &rows);
}

/// Where a sequence starts in q, k, v, o and lse, and how many of a block's rows are stored.
fn origin_glue(out: &mut String, spec: &KernelSpec) {
    let tensors = [("q", "q"), ("k", "kv"), ("v", "kv"), ("o", "q")];
    for (name, side) in tensors {
        let packed = if side == "q" { spec.is_packed() } else { spec.has_packed_keys() };
        let body = match spec.is_paged() && side == "kv" && !packed {
            true => "return 0u;".to_owned(),
            false => origin(name, packed.then_some(side)),
        };
        function(out, &format!("{name}_origin(batch: u32) -> u32"), &body);
    }
    let lse = if spec.is_packed() {
        "return (min(aux_word(params.aux_cu_seqlens_q + rows.batch), params.total_q) + row) * \
         params.heads_q + rows.head;"
    } else {
        "return (rows.batch * params.heads_q + rows.head) * params.seq_q + row;"
    };
    function(out, "lse_index(rows: Rows, row: u32) -> u32", lse);
    let end = if spec.is_packed() { "return min(row_end, rows.q_len);" } else { "return row_end;" };
    function(out, "stored_end(rows: Rows, row_end: u32) -> u32", end);
    // In packed tensors the keys past a sequence's own are another's, or nobody's.
    let end = if spec.has_packed_keys() {
        "return min(key_end, keys_held(rows.batch));"
    } else {
        "return key_end;"
    };
    function(out, "read_end(rows: Rows, key_end: u32) -> u32", end);
    let own = [
        spec.is_packed().then_some("row < rows.q_len"),
        spec.has_packed_keys().then_some("key < keys_held(rows.batch)"),
    ];
    let own: Vec<&str> = own.into_iter().flatten().collect();
    let held = if own.is_empty() { "true".to_owned() } else { own.join(" && ") };
    function(out, "pair_held(rows: Rows, row: u32, key: u32) -> bool", &format!("return {held};"));
}

fn chain_glue(out: &mut String, spec: &KernelSpec) {
    let stages = [
        (Stage::Scaled, "scaled"),
        (Stage::Capped, "capped"),
        (Stage::Biased, "biased"),
        (Stage::Drawn, "drawn"),
    ];
    for (stage, name) in stages {
        let mut body = "var x = s;".to_owned();
        for (_, slot) in spec.scores.iter().filter(|(of, _)| *of == stage) {
            body += &format!(" x = {}(x, p);", slot.function());
        }
        let signature = format!("score_{name}(s: f32, p: Position) -> f32");
        function(out, &signature, &format!("{body} return x;"));
    }
    let biased = spec.scores.iter().any(|(of, _)| *of == Stage::Biased);
    let _ = writeln!(out, "const BIASED: bool = {biased};");
}

fn keep_glue(out: &mut String, spec: &KernelSpec) {
    let mut terms = vec!["p.key < p.kv_len".to_owned(), "p.row < p.q_len".to_owned()];
    let pages = spec.is_paged() && spec.kernel.twin().visits != Visits::Stretches;
    terms.extend(pages.then(|| "page_of(p.batch, p.key) < params.page_count".to_owned()));
    terms.extend(spec.masks.iter().map(|mask| format!("{}(p)", mask.function())));
    function(out, "keep(p: Position) -> bool", &format!("return {};", terms.join(" && ")));
}

/// `whole_range(rows, visible)`: the visible keys that every row of a block sees, for which no test
/// is needed; empty at the end of the visible ones where there are none.
pub(in crate::kernel) fn whole_glue(out: &mut String, spec: &KernelSpec) {
    let mut body = "var range = vec2<i32>(visible);".to_owned();
    for mask in spec.masks.iter().filter(|mask| mask.narrows) {
        body += &format!(" range = {}_whole(rows, range);", mask.function());
    }
    // What a block table knows of each block need not be feared in all of them.
    let visits = spec.kernel.twin().visits;
    let by_tile = visits == Visits::TestedTiles;
    let feared = match spec.blocks.filter(|_| !by_tile) {
        Some(BlockTable::Given) => false,
        Some(BlockTable::Classified) => spec.masks.iter().any(|mask| mask.custom),
        None => {
            let data = spec.masks.iter().any(|mask| !mask.narrows);
            data || spec.bias_may_mask()
                || spec.has_edges() && by_tile
                || spec.is_paged() && by_tile
        }
    };
    // A loop less is half the code, and rows that are shared are long: testing their keys costs little beside them.
    let wide = spec.row_tile().is_some_and(|rows| rows.wide) && spec.is_masked();
    // A tile may hold keys of several pages, and of none.
    let pages = spec.is_paged() && visits == Visits::Tiles;
    // Only keys that are tested are multiplied with a factor.
    if feared || wide || pages || spec.dropout {
        body += " range = vec2<i32>(0);";
    }
    body += " if (range.x >= range.y) { return visible.yy; } return vec2<u32>(range);";
    function(out, "whole_range(rows: Rows, visible: vec2<u32>) -> vec2<u32>", &body);
}

/// How kernels use the block table: which keys come next, and whether a tile is visited at all.
fn blocks_glue(out: &mut String, spec: &KernelSpec) {
    let table = spec.blocks.is_some();
    let span = if table {
        "return blocks_span(rows, start, visible, whole);"
    } else if spec.is_paged() {
        "return pages_span(rows, start, visible, whole);"
    } else {
        "return vec4<u32>(visible.x, whole, visible.y);"
    };
    let arguments = "rows: Rows, start: u32, visible: vec2<u32>, whole: vec2<u32>";
    function(out, &format!("next_span({arguments}) -> vec4<u32>"), span);
    page_glue(out, spec);
    let visited = if table { "return blocks_visit(rows, keys);" } else { "return true;" };
    function(out, "tile_visited(rows: Rows, keys: vec2<u32>) -> bool", visited);
    let whole = if table { "return blocks_whole(rows, keys);" } else { "return true;" };
    function(out, "tile_whole(rows: Rows, keys: vec2<u32>) -> bool", whole);
}

/// `span_offset(rows, key)`: what is added to addresses of a key in k and v; `key_there(rows, key)`: whether it has a
/// place.
pub(in crate::kernel) fn page_glue(out: &mut String, spec: &KernelSpec) {
    let offset = if spec.is_paged() {
        "return page_offset(rows.batch, key);"
    } else {
        "return vec2<u32>(0u);"
    };
    function(out, "span_offset(rows: Rows, key: u32) -> vec2<u32>", offset);
    let there = if spec.is_paged() {
        "return page_of(rows.batch, key) < params.page_count;"
    } else {
        "return true;"
    };
    function(out, "key_there(rows: Rows, key: u32) -> bool", there);
}

/// Optional outputs: the constants that switch them, and stores that are empty when they are off.
pub(in crate::kernel) fn output_glue(out: &mut String, spec: &KernelSpec) {
    let captures = ["NONE", "SCALED", "CAPPED", "BIASED", "PROBABILITIES"];
    let chosen = match spec.writes.capture {
        Capture::Nothing => 0,
        Capture::At(WeightsAt::RawScores) => 1,
        Capture::At(WeightsAt::AfterSoftcap) => 2,
        Capture::At(WeightsAt::AfterBias) => 3,
        Capture::At(WeightsAt::Probabilities) => 4,
    };
    for (i, name) in captures.iter().enumerate() {
        *out += &format!("const CAPTURE_{name}: u32 = {i}u;\n");
    }
    *out += &format!("const CAPTURE: u32 = {chosen}u;\n");
    *out += &format!("const LSE: bool = {};\n", spec.writes.lse);
    *out += &format!("const CARRY: bool = {};\n", spec.writes.carry);
    let weights = if chosen > 0 { "weights[params.weights_base + i] = v;" } else { "" };
    function(out, "weights_store(i: u32, v: f32)", weights);
    let lse = if spec.writes.lse { "lse[params.lse_base + i] = v;" } else { "" };
    function(out, "lse_store(i: u32, v: f32)", lse);
    let (load, store) = if spec.writes.carry {
        ("return carry[i];", "carry[i] = v;")
    } else {
        ("return vec4<f32>(0.0);", "")
    };
    function(out, "carry_load(i: u32) -> vec4<f32>", load);
    function(out, "carry_store(i: u32, v: vec4<f32>)", store);
}
