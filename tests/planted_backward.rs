//! Planted faults in the kernels of gradients are found: each row below is a fault in a kernel's text and cases of the
//! grid of gradients that must fail for it, with the reason that they must give, and must pass without it.
//!
//! The kinds are those of `planted.rs` as far as gradients have them, and what can go wrong in these alone: the mean of
//! a row's gradients, a derivative of the chain, a head of a group, sums that are carried from block to block, axes
//! that a bias is summed over, sinks. The self-test must refuse the kernel by name, or cannot see the fault, with the
//! reason why.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;
#[path = "planted/edits.rs"]
#[allow(dead_code, reason = "a part is for forward kernels")]
mod edits;

use common::skip::skipped;
use edits::{cut, swap, swaps};
use heedful::kernel::{Kernel, compose};
use heedful::verify::cases::{BackwardCase, Grid, backward_grid};
use heedful::verify::execute::Placement;
use heedful::verify::run::Outcome;
use heedful::verify::run_backward::Trial;
use heedful::{Attention, Backward, CustomScore, Engine, Operand, Path, Policy, SelfTest, Shape};

/// Why a case fails when numbers are wrong, when they are no numbers, and whatever was in memory.
const NUMBERS: &str = "largest error";
const CLASSES: &str = "are NaN, ∞ or finite wrongly";
const WRONG: &str = ": ";
const OUTSIDE: &str = "written outside its elements";
const BATCH: &str = "not batch-invariant";

/// What the self-test makes of a fault.
enum Says {
    /// It names the kernel.
    Refuses,
    /// It lets the kernel serve; why it cannot see the fault.
    Serves(&'static str),
    /// Either, or it blames others with it, and why.
    Either(&'static str),
}
use Says::{Either, Refuses, Serves};

struct Fault {
    name: &'static str,
    kernel: Kernel,
    edit: fn(&str) -> String,
    cases: &'static [&'static str],
    reason: &'static str,
    self_test: Says,
}

/// A test for each row.
macro_rules! faults {
    ($($name:ident: $kernel:ident, [$($case:literal),+], $reason:ident, $says:expr, $edit:expr;)*) => {
        $(#[test]
        fn $name() {
            check(&Fault {
                name: stringify!($name),
                kernel: Kernel::$kernel,
                edit: $edit,
                cases: &[$($case),+],
                reason: $reason,
                self_test: $says,
            });
        })*
    };
}

faults! {
    // A row's weights and gradients.
    the_delta_is_half: BackwardRow,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "(lse_index(rows, row)) - mean;", "(lse_index(rows, row)) - 0.5 * mean;");
    the_delta_of_thresholds_is_left_out: BackwardThreshold,
        ["2x4/2x67/90x24/40 f32 entmax15"], NUMBERS, Refuses,
        |text| swap(text, "measure * (y - mean)", "measure * y");
    the_gradient_of_lse_is_left_out: BackwardRow,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "d_lse_load(lse_index(rows, row)) - mean;", "-mean;");
    the_gradient_of_weights_is_left_out: BackwardRow,
        ["2x4/2x9/67x16 f16 kv-lengths q-lengths lse probabilities"], NUMBERS, Refuses,
        |text| swap(text, "sum[c] += d_weights_load", "sum[c] += 0.0 * d_weights_load");
    the_scale_is_missing: BackwardRow,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, " d.x *= score_scale_derivative(s, p);", "");
    the_derivative_of_the_softcap_is_missing: BackwardRow,
        ["2x4/2x35/70x24/16 f32 relative(34,69,0) causal(35) softcap(9.0) lse",
            "2x4/2x9/67x16 f32 causal(bottom-right) softcap(3.0) mask[2, 1, 9, 67] bias[1, 1, 9, 67] \
            alibi(bottom-right) sinks probabilities"],
        NUMBERS, Refuses,
        |text| swap(text, " d.x *= score_softcap_derivative(s, p);", "");
    the_sink_is_left_out: BackwardRow,
        ["2x6/2x20/70x32 f32 sinks lse sinks=1e1"], NUMBERS, Refuses,
        |text| swap(text, "total = normalize_merge(total, start);", "");
    sinks_get_the_sum_without_their_weight: BackwardRow,
        ["2x6/2x20/70x32 f32 sinks lse sinks=1e1"], NUMBERS, Refuses,
        |text| swap(text, "select(weight * shift,", "select(shift,");
    shares_of_a_row_are_joined_without_rescaling: BackwardRow,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "sh_d[lane] * normalize_rescale(vec4<f32>(a.m), m).x", "sh_d[lane]");
    a_row_lacks_a_barrier: BackwardRow,
        ["2x4/2x19/65x32 f32 lse"], WRONG, Refuses,
        |text| cut(text, "  sh_d[lane] = d;", "  workgroupBarrier();");

    // Masks.
    scores_are_masked_before_their_modifiers: BackwardRow,
        ["2x4/2x35/70x24/16 f32 relative(34,69,0) causal(35) softcap(9.0) lse"], CLASSES, Refuses,
        |text| swap(text, "select(masked(), modify(x[c], p), keep(p))",
            "modify(select(masked(), x[c], keep(p)), p)");
    a_key_too_many_is_visible: BackwardRow,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], CLASSES, Refuses,
        |text| swap(text, "<= p.diagonal", "<= p.diagonal + 1");
    keys_multiply_what_is_hidden_by_zero: BackwardKeys,
        ["2x4/2x13/67x16 f32 mask[2, 1, 13, 67] lse poison"], CLASSES,
        Serves("its tensors hold no NaN"),
        |text| swap(text, "if (any_special(b4))", "if (false)");
    hidden_pairs_of_a_threshold_have_a_part: BackwardThreshold,
        ["2x4/2x67/90x24/40 f32 sparsemax causal(9) mask[2, 1, 67, 90] probabilities poison"], WRONG,
        Refuses,
        |text| swap(text, "  scores[part.base + i] = weights_of_parts(w, none);",
            "  scores[part.base + i] = w;");

    // Sums for keys.
    keys_leave_out_a_head_of_the_group: BackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "head < (head_kv + 1u) * params.group;", "head + 1u < (head_kv + 1u) * params.group;");
    keys_leave_out_the_last_row: BackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "row >= row_end || key", "row + 1u >= row_end || key");
    keys_leave_out_the_last_key: BackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], CLASSES, Refuses,
        |text| swap(text, "if (key < key_end && ", "if (key + 1u < key_end && ");
    keys_write_a_row_past_the_end: BackwardKeys,
        ["2x4x33x40 bf16 causal(top-left) strides(6336,1584,44)"], OUTSIDE,
        Either("the row that is hit is another workgroup's, whichever comes last"),
        |text| swap(text, "if (key < key_end && ", "if (key <= key_end && ");
    keys_forget_the_blocks_before: BackwardKeys,
        ["2x2/1x65/130x16 f32 causal(top-left) lse", "2x4x33x64 f32 causal(top-left) bshd"], NUMBERS, Refuses,
        |text| swap(text, "total += carry_load(at);", "");
    keys_carry_on_what_the_first_block_found: BackwardKeys,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], WRONG, Refuses,
        |text| swap(text, "if (params.carry_in == 1u) {", "if (true) {");
    keys_take_heads_in_an_order_of_the_batch: BackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], BATCH,
        Serves("sums in another order are as near"),
        |text| swaps(text, &[
            ("for (var head = head_kv * params.group; head < (head_kv + 1u) * params.group; head += 1u) {",
                "for (var turn = 0u; turn < params.group; turn += 1u) {\n    \
                let head = head_kv * params.group + (turn + batch) % params.group;"),
        ]);
    keys_lack_the_barrier_before_reading: BackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], WRONG, Refuses,
        |text| swap(text, "  workgroupBarrier();\n  let special", "  let special");

    // In one pass.
    the_mean_of_a_row_is_half: FusedBackwardDelta,
        ["2x4x33x64 f32 causal(top-left) strides(9792,2448,68)"], NUMBERS, Refuses,
        |text| swap(text, "d_lse - mean", "d_lse - 0.5 * mean");
    a_row_forgets_the_gradient_of_its_lse: FusedBackwardDelta,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "vec2<f32>(0.0, d_lse)", "vec2<f32>(0.0, 0.0)");
    rows_in_one_pass_leave_out_the_last_key: FusedBackwardRows,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "key < untested.y;", "key + 1u < untested.y;");
    rows_in_one_pass_lack_the_scale: FusedBackwardRows,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, " d.x *= score_scale_derivative(s, p);", "");
    rows_in_one_pass_forget_the_sink: FusedBackwardRows,
        ["2x6/2x20/70x32 f32 sinks lse sinks=1e1 qkv"], NUMBERS, Refuses,
        |text| text.replace("= sink_share(rows.head", "= 0.0 * sink_share(rows.head");
    rows_in_one_pass_leave_twice_the_scale: FusedBackwardRows,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| text.replace("+ 1u].x = scale", "+ 1u].x = 2.0 * scale");
    rows_in_one_pass_do_not_correct_the_mean: FusedBackwardRows,
        ["2x4/2x70/90x16/24 f16 window(20,3,bottom-right) accumulate in-one-pass"], NUMBERS,
        Serves("its o is that of the reference"),
        |text| text.replace("= select(lacks", "= 0.0 * select(lacks");
    rows_in_one_pass_take_in_what_is_hidden: FusedBackwardRows,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swap(text, "<= p.diagonal", "<= p.diagonal + 1");
    rows_in_one_pass_multiply_what_is_hidden_by_zero: FusedBackwardRows,
        ["2x4/2x37/70x16/24 f32 mask[2, 1, 37, 70] lse special seen(lattice-790)"], CLASSES,
        Serves("its tensors hold no NaN"),
        |text| swap(text, "select(share.d_x, none, hidden)", "share.d_x");
    rows_in_one_pass_past_the_length_have_gradients: FusedBackwardRows,
        ["3x2/1x12/70x32 f32 alibi(bottom-right) kv-lengths q-lengths lse lengths=partial poison qkv"],
        WRONG, Refuses,
        |text| swap(text, "row_end, rows.q_len, own_ends", "row_end, row_end, own_ends");
    keys_in_one_pass_leave_out_a_head_of_the_group: FusedBackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "head < (head_kv + 1u) * params.group;", "head + 1u < (head_kv + 1u) * params.group;");
    keys_in_one_pass_leave_out_the_last_rows: FusedBackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "row0 < first.q_len;", "row0 + ROWS_AT_ONCE < first.q_len;");
    keys_in_one_pass_are_not_tested: FusedBackwardKeys,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swap(text, "let seen = whole.x", "let seen = true || whole.x");
    keys_in_one_pass_weigh_what_is_hidden: FusedBackwardKeys,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swaps(text, &[
            ("select(share.of_v, none, hidden)", "share.of_v"),
            ("own_weigh_shown(at.y, share.of_v, hidden);", "own_weigh(at.y, share.of_v);"),
        ]);
    keys_in_one_pass_weigh_by_the_gradient: FusedBackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "own_weigh(at.y, share.of_v);", "own_weigh(at.y, share.d_x);");
    keys_in_one_pass_write_a_row_past_the_end: FusedBackwardKeys,
        ["2x4x33x64 f32 causal(top-left) strides(9792,2448,68)"], OUTSIDE,
        Either("the row that is hit is another workgroup's, whichever comes last"),
        |text| text.replace(" < end) {", " <= end) {");
    keys_in_one_pass_take_heads_in_an_order_of_the_batch: FusedBackwardKeys,
        ["2x4/2x19/65x32 f32 lse"], BATCH,
        Serves("sums in another order are as near"),
        |text| swap(text,
            "for (var head = head_kv * params.group; head < (head_kv + 1u) * params.group; head += 1u) {",
            "for (var turn = 0u; turn < params.group; turn += 1u) {\n    \
            let head = head_kv * params.group + (turn + batch) % params.group;");

    // On tiles.
    tiles_of_rows_leave_out_the_last_one: FusedBackwardTileRows,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swap(text, "key0 < visible.y;", "key0 + KEYS < visible.y;");
    tiles_of_rows_are_not_tested: FusedBackwardTileRows,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swap(text, "    if (tested) {", "    if (tested && false) {");
    tiles_of_rows_lack_the_scale: FusedBackwardTileRows,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, " d.x *= score_scale_derivative(s, p);", "");
    tiles_of_rows_forget_the_sink: FusedBackwardTileRows,
        ["2x6/2x20/70x32 f32 sinks lse sinks=1e1 qkv"], NUMBERS, Refuses,
        |text| text.replace("= sink_share(rows.head", "= 0.0 * sink_share(rows.head");
    tiles_of_rows_do_not_correct_the_mean: FusedBackwardTileRows,
        ["2x4/2x70/90x16/24 f16 window(20,3,bottom-right) accumulate on-tiles"], NUMBERS,
        Serves("its o is that of the reference"),
        |text| text.replace("= select(lacks", "= 0.0 * select(lacks");
    tiles_of_rows_leave_twice_the_scale: FusedBackwardTileRows,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| text.replace("+ 1u].x = scale", "+ 1u].x = 2.0 * scale");
    tiles_of_rows_past_the_length_have_gradients: FusedBackwardTileRows,
        ["3x2/1x12/70x32 f32 alibi(bottom-right) kv-lengths q-lengths lse lengths=partial poison qkv"],
        WRONG, Serves("its tensors hold no NaN"),
        |text| text.replace("+ 0u >= length)", "+ 0u >= end)").replace("+ 1u >= length)", "+ 1u >= end)");
    tiles_of_rows_lack_the_barrier_before_their_weights: FusedBackwardTileRows,
        ["2x4/2x70/90x16/24 f32 causal(bottom-right) accumulate on-tiles"], WRONG, Refuses,
        |text| text.replace("\nworkgroupBarrier();\nif (place.x / 8u", "\nif (place.x / 8u");
    // Each gradient by itself, 32 rows or keys by 128.
    tiles_of_queries_leave_out_the_last_one: FusedBackwardTileQueries,
        ["2x4/2x70/150x16/12 f32 causal(bottom-right) sinks qkv on-tiles"], NUMBERS, Refuses,
        |text| swap(text, "key0 < visible.y;", "key0 + KEYS < visible.y;");
    tiles_of_queries_are_not_tested: FusedBackwardTileQueries,
        ["2x4/2x70/150x16/12 f32 causal(bottom-right) sinks qkv on-tiles"], NUMBERS, Refuses,
        |text| swap(text, "    if (tested) {", "    if (tested && false) {");
    tiles_of_queries_lack_the_scale: FusedBackwardTileQueries,
        ["2x4/2x70/150x16/12 f32 causal(bottom-right) sinks qkv on-tiles"], NUMBERS, Refuses,
        |text| swap(text, " d.x *= score_scale_derivative(s, p);", "");
    tiles_of_queries_forget_the_derivative_of_the_softcap: FusedBackwardTileQueries,
        ["2x4/2x150/70x12/16 bf16 softcap(4.0) bias[1, 4, 1, 70] qkv on-tiles"], NUMBERS, Refuses,
        |text| swap(text, " d.x *= score_softcap_derivative(s, p);", "");
    tiles_of_queries_do_not_divide_by_the_sum: FusedBackwardTileQueries,
        ["2x4/2x70/150x16/12 f32 causal(bottom-right) sinks qkv on-tiles"], NUMBERS, Refuses,
        |text| text.replace("let known0 = states", "let known0 = 2.0 * states");
    tiles_of_queries_do_not_take_off_the_mean: FusedBackwardTileQueries,
        ["2x4/2x70/150x16/12 f32 causal(bottom-right) sinks qkv on-tiles"], NUMBERS, Refuses,
        |text| text.replace("let shift0 = state0.y", "let shift0 = 0.0 * state0.y");
    tiles_of_queries_lack_the_barrier_behind_their_keys: FusedBackwardTileQueries,
        ["2x4/2x70/150x16/12 f32 causal(bottom-right) sinks qkv on-tiles"], WRONG, Refuses,
        |text| text.replace("= x1; }\nworkgroupBarrier();", "= x1; }");
    narrow_tiles_of_rows_take_the_columns_of_their_first_half: FusedBackwardTileRows,
        ["1x2/1x70/140x72/80 f16 causal(top-left) kv-lengths qkv on-tiles"], NUMBERS, Refuses,
        |text| text.replace(" + place.x / 16u]", "]");
    states_of_queries_on_tiles_leave_out_the_last_one: FusedBackwardTileRows,
        ["2x4/2x70/150x16/12 f32 causal(bottom-right) sinks qkv on-tiles"], NUMBERS, Refuses,
        |text| swap(text, "key0 < visible.y;", "key0 + KEYS < visible.y;");
    states_of_queries_on_tiles_reach_into_the_next_rows: FusedBackwardTileRows,
        ["2x4/2x70/150x16/12 f32 causal(bottom-right) sinks qkv on-tiles"], WRONG, Refuses,
        |text| text.replace("const OWNED: u32 = 32u;", "const OWNED: u32 = 64u;");
    keys_on_tiles_alone_take_weights_of_the_first_quarter: FusedBackwardTileKeys,
        ["2x4/2x150/70x12/16 bf16 softcap(4.0) bias[1, 4, 1, 70] qkv on-tiles"], NUMBERS, Refuses,
        |text| text.replace("if (place.x / 8u == 1u)", "if (place.x / 8u == 0u)");
    keys_on_tiles_take_rows_of_their_first_half: FusedBackwardTileKeys,
        ["2x4/2x150/70x12/16 bf16 softcap(4.0) bias[1, 4, 1, 70] qkv on-tiles"], NUMBERS, Refuses,
        |text| text.replace(" + place.x / 16u * 4u]", "]");
    keys_on_tiles_leave_out_half_of_their_steps: FusedBackwardTileKeys,
        ["2x4/2x150/70x12/16 bf16 softcap(4.0) bias[1, 4, 1, 70] qkv on-tiles"], NUMBERS, Refuses,
        |text| text.replace("(d * 2u + 1u)", "(d * 2u)");
    tiles_of_keys_leave_out_a_head_of_the_group: FusedBackwardTileKeys,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| swap(text, "head < (head_kv + 1u) * params.group;", "head + 1u < (head_kv + 1u) * params.group;");
    tiles_of_keys_leave_out_the_last_rows: FusedBackwardTileKeys,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swap(text, "row0 < first.q_len;", "row0 + KEYS < first.q_len;");
    tiles_of_keys_are_not_tested: FusedBackwardTileKeys,
        ["2x2/1x65/130x16 f32 causal(top-left) lse"], NUMBERS, Refuses,
        |text| swap(text, "if (visit == TESTED) {", "if (visit == TESTED && false) {");
    tiles_of_keys_multiply_what_is_hidden_by_zero: FusedBackwardTileKeys,
        ["2x4/2x13/67x16 f32 mask[2, 1, 13, 1] lse poison qkv on-tiles"], CLASSES,
        Serves("its tensors hold no NaN"),
        |text| swap(text, "weights_of_parts(pairs.other, hidden)", "select(pairs.other, none, hidden)");
    tiles_of_keys_weigh_by_the_gradient: FusedBackwardTileKeys,
        ["2x4/2x19/65x32 f32 lse"], NUMBERS, Refuses,
        |text| text.replace("y0_0 = pairs0.other", "y0_0 = pairs0.d_x");
    tiles_of_keys_of_few_bits_weigh_by_the_gradient: FusedBackwardTileKeys,
        ["2x4/2x70/90x16/24 bf16 causal(bottom-right) in-f32 accumulate"], NUMBERS, Refuses,
        |text| text.replace("y0_0 = pairs0.other", "y0_0 = pairs0.d_x");
    keys_of_few_bits_in_one_pass_weigh_by_the_gradient: FusedBackwardKeys,
        ["2x4/2x70/90x16/24 bf16 causal(bottom-right) in-f32 accumulate"], NUMBERS, Refuses,
        |text| swap(text, "own_weigh(at.y, share.of_v);", "own_weigh(at.y, share.d_x);");
    tiles_of_keys_take_rows_of_the_wrong_half: FusedBackwardTileKeys,
        ["2x4/2x70/90x16/24 f32 causal(bottom-right) accumulate on-tiles"], NUMBERS, Refuses,
        |text| text.replace("if (place.x / 8u == part % 2u)", "if (place.x / 8u == 0u)");
    tiles_of_keys_write_a_row_past_the_end: FusedBackwardTileKeys,
        ["2x4x33x64 f32 causal(top-left) strides(9792,2448,68)"], OUTSIDE,
        Either("the row that is hit is another workgroup's, whichever comes last"),
        |text| text.replace(" < end) {", " <= end) {");
    tiles_of_keys_take_heads_in_an_order_of_the_batch: FusedBackwardTileKeys,
        ["2x4/2x19/65x32 f32 lse"], BATCH,
        Serves("sums in another order are as near"),
        |text| swap(text,
            "for (var head = head_kv * params.group; head < (head_kv + 1u) * params.group; head += 1u) {",
            "for (var turn = 0u; turn < params.group; turn += 1u) {\n    \
            let head = head_kv * params.group + (turn + batch) % params.group;");

    // Added to what is there.
    what_was_in_a_row_of_a_tile_is_written_over: FusedBackwardTileKeys,
        ["2x4/2x70/90x16/24 f32 causal(bottom-right) accumulate on-tiles"],
        NUMBERS, Refuses,
        |text| swap(text, "d_v[i >> 2u] + v", "v");
    what_was_in_a_table_is_written_over: BackwardSinks,
        ["2x4/2x70/90x16/24 f16 bias[1, 4, 1, 90] alibi(bottom-right) sinks in-f32 accumulate"],
        NUMBERS, Refuses,
        |text| swap(text, "d_table[i] + v", "v");
    what_was_in_a_row_is_written_over: FusedBackwardKeys,
        ["2x4/2x70/90x16/24 f32 causal(bottom-right) accumulate in-one-pass"],
        NUMBERS, Refuses,
        |text| swap(text, "d_v[i >> 2u] + v", "v");

    // Sums for the other tensors.
    a_bias_is_not_summed_over_its_sequences: BackwardBias,
        ["2x4/2x13/67x16 f32 bias[1, 1, 13, 67] lse"], NUMBERS, Refuses,
        |text| swap(text, "b < batch_n; b += own_batch", "b < batch + 1u; b += own_batch");
    a_bias_is_not_summed_over_its_keys: BackwardBias,
        ["2x4/2x13/67x16 f32 bias[1, 1, 13, 1] lse"], NUMBERS, Refuses,
        |text| swap(text, "k < params.seq_kv; k += own_keys", "k < key + 1u; k += own_keys");
    a_bias_forgets_the_blocks_before: BackwardBias,
        ["2x4/2x9/67x16 f32 causal(bottom-right) softcap(3.0) mask[2, 1, 9, 67] bias[1, 1, 9, 67] \
            alibi(bottom-right) sinks after-softcap",
            "2x4/2x70/90x16/24 bf16 softcap(4.0) bias[1, 4, 1, 90] in-blocks"], NUMBERS, Refuses,
        |text| swap(text, "sum = d_table[at];", "sum = 0.0;");
    a_table_leaves_out_the_last_row: BackwardTable,
        ["2x4/2x35/70x24/16 f32 relative(34,69,0) causal(35) softcap(9.0) lse",
            "2x4/2x70/90x16/24 f32 causal(bottom-right) bias[1, 1, 70, 90] alibi(bottom-right) in-blocks"],
        NUMBERS, Refuses,
        |text| swap(text, "row < end; row += 64u", "row + 1u < end; row += 64u");
    a_table_forgets_the_blocks_before: BackwardTable,
        ["2x4/2x70/90x16/24 f32 causal(bottom-right) bias[1, 1, 70, 90] alibi(bottom-right) in-blocks"],
        NUMBERS, Refuses,
        |text| swap(text, "total += d_table[at];", "");
    keys_of_packed_sequences_take_in_a_row_past_the_end: BackwardKeys,
        ["3x4/2x40/60x16/24 f32 causal(bottom-right) packed(90,140) bshd"], WRONG, Refuses,
        |text| swap(text, "let last = max(stored_end(rows, params.row0 + row_end), params.row0) - params.row0;",
            "let last = row_end;");
    a_table_lacks_a_barrier: BackwardTable,
        ["2x4/2x35/70x24/16 f32 relative(34,69,0) causal(35) softcap(9.0) lse"], WRONG, Refuses,
        |text| cut(text, "  sh_sum[lane] = sum;", "  workgroupBarrier();");
    centers_leave_out_half_of_the_invocations: BackwardCenters,
        ["2x4/2x67/90x24/40 f32 dropout(0.2,81985529216486895) local(30.1,gaussian)"], NUMBERS, Refuses,
        |text| swap(text, "slice < 16u", "slice < 8u");
    edges_leave_out_a_head: BackwardEdges,
        ["2x4/2x70/130x16/24 f32 edges(333,bias) lse poison"], NUMBERS, Refuses,
        |text| swap(text, "pair < select(params.bias_batch_n", "pair + 1u < select(params.bias_batch_n");
    additive_rows_lack_the_inner_scale: BackwardSumRows,
        ["2x4/2x35/70x8/16 f32 additive(0.7) causal(bottom-right) sinks lse poison"], NUMBERS, Refuses,
        |text| swap(text, "params.inner_scale * inner_weights(head, column) * d", "inner_weights(head, column) * d");
    additive_rows_hold_parts_of_the_derivative: BackwardSumRows,
        ["2x4/2x35/70x8/16 f32 additive(0.7) causal(bottom-right) sinks lse poison"], NUMBERS, Refuses,
        |text| swap(text, "inner_activate(x), part)", "inner_derivative(x), part)");
    additive_keys_leave_out_a_head_of_the_group: BackwardSumKeys,
        ["2x4/2x35/70x8/16 f32 additive(0.7) causal(bottom-right) sinks lse poison"], NUMBERS, Refuses,
        |text| swap(text, "head < (head_kv + 1u) * params.group;", "head + 1u < (head_kv + 1u) * params.group;");
    a_copy_is_not_what_meets: Prepare,
        ["2x4/2x35/70x24/16 f32 rotary(24x70,interleaved) causal(35) kv-lengths lse poison"], NUMBERS, Refuses,
        |text| swap(text, "o[i >> 2u] = ", "o[i >> 2u] = 1.5 * ");
    products_of_copies_are_of_the_next_key: StagedScore,
        ["2x4/2x35/70x24/16 f32 rotary(24x70,interleaved) causal(35) kv-lengths lse poison"], WRONG,
        Either("products of d_o and v are another variant of it, wrong as well"),
        |text| swap(text, "let k_row = key0 + r * 4u;", "let k_row = key0 + r * 4u + 1u;");
    keys_of_copies_leave_out_a_head_of_the_group: BackwardKeys,
        ["2x4/2x35/70x24/16 f32 cosine(1e-6,head-scale) lse scale(10.0) logits=2e1"], NUMBERS, Refuses,
        |text| swap(text, "head < (head_kv + 1u) * params.group;", "head + 1u < (head_kv + 1u) * params.group;");
    keys_of_copies_in_one_pass_leave_out_a_head_of_the_group: FusedBackwardKeys,
        ["2x4/2x35/70x24/16 f32 rotary(24x70,interleaved) causal(35) kv-lengths lse poison"], NUMBERS, Refuses,
        |text| swap(text, "head < (head_kv + 1u) * params.group;", "head + 1u < (head_kv + 1u) * params.group;");
    rows_of_copies_in_one_pass_lack_the_scale: FusedBackwardRows,
        ["2x4/2x35/70x24/16 f32 rotary(24x70,interleaved) causal(35) kv-lengths lse poison"], NUMBERS, Refuses,
        |text| swap(text, " d.x *= score_scale_derivative(s, p);", "");
    a_matrix_leaves_out_the_last_row: BackwardMatrix,
        ["2x4/2x35/70x24/16 f32 general(5) mask[2, 1, 1, 70] lse"], NUMBERS, Refuses,
        |text| swap(text, "row < params.row_n;", "row + 1u < params.row_n;");
    a_matrix_of_turned_rows_leaves_out_the_last_row: BackwardMatrix,
        ["2x4/2x35/70x24/16 f32 rotary(12x70,halves) general(13) lse raw-scores"], NUMBERS, Refuses,
        |text| swap(text, "row < params.row_n;", "row + 1u < params.row_n;");
    weights_of_an_additive_score_leave_out_rows: BackwardColumns,
        ["2x4/2x35/70x8/16 f32 additive(0.7) causal(bottom-right) sinks lse poison"], NUMBERS, Refuses,
        |text| swap(text, "for (var i = turn; ", "for (var i = turn + 8u; ");
    factors_of_heads_leave_out_a_sequence: BackwardSinks,
        ["2x4/2x35/70x24/16 f32 cosine(1e-6,head-scale) lse scale(10.0) logits=2e1"], NUMBERS, Refuses,
        |text| swap(text, "batch < params.bias_batch_n;", "batch + 1u < params.bias_batch_n;");
    packed_rows_of_length_1_take_in_half_of_what_is_along_them: BackwardPrepare,
        ["3x6/2x40/90x24/16 bf16 cosine(1e-6,head-scale) packed(90,140) lse bshd"], NUMBERS, Refuses,
        |text| swap(text, "fma(-row.along,", "fma(-0.5 * row.along,");
    rows_are_turned_on_instead_of_back: BackwardPrepare,
        ["2x4/2x35/70x24/16 f32 rotary(24x70,interleaved) causal(35) kv-lengths lse poison"], NUMBERS, Refuses,
        |text| swap(text, "select(-other, other, turn.first)", "select(other, -other, turn.first)");
    rows_of_length_1_take_in_half_of_what_is_along_them: BackwardPrepare,
        ["2x4/2x35/70x24/16 f32 cosine(1e-6,head-scale) lse scale(10.0) logits=2e1"], NUMBERS, Refuses,
        |text| swap(text, "fma(-row.along,", "fma(-0.5 * row.along,");
    sinks_leave_out_a_sequence: BackwardSinks,
        ["2x6/2x20/70x32 f32 sinks lse sinks=1e1"], NUMBERS, Refuses,
        |text| swap(text, "batch < params.bias_batch_n;", "batch + 1u < params.bias_batch_n;");
    sinks_lack_a_barrier: BackwardSinks,
        ["2x4/2x70/90x16/24 f32 sinks"], WRONG, Refuses,
        |text| cut(text, "  sh_sum[lane] = sum;", "  workgroupBarrier();");
}

/// Cases go the path that has the kernel.
fn on_its_path(kernel: Kernel, case: &mut BackwardCase) {
    let fused = kernel.name().starts_with("fused_backward");
    let path = if kernel.name().contains("_tile_") { Path::FusedTile } else { Path::Fused };
    case.path = if fused { path } else { Path::Staged };
    case.in_blocks &= !fused;
}

/// The case without the fault on one engine, with it on another.
fn check(fault: &Fault) {
    let Some(right) = common::gpu::engine(fault.name) else { return };
    let planted = common::gpu::engine(fault.name).unwrap();
    planted.plant(fault.kernel, fault.edit);
    let named =
        |case: &BackwardCase| fault.cases.contains(&case.name.trim_start_matches("gradients "));
    // Of the full grid: which cases the quick one leaves out follows their number.
    let mut cases = backward_grid(Grid::Full).unwrap();
    cases.retain(named);
    cases.iter_mut().for_each(|case| on_its_path(fault.kernel, case));
    assert_eq!(cases.len(), fault.cases.len(), "{}: a case is not in the grid", fault.name);
    let (mut tried, mut reasons) = (Vec::new(), Vec::new());
    for case in &cases {
        if let Err(why) = changed(&right, fault, case) {
            skipped(fault.name, format!("on {}: {why}", case.name));
            continue;
        }
        assert_eq!(verdict(&right, case), None, "{}: {}", fault.name, case.name);
        let found = verdict(&planted, case);
        println!("{}: {found:?}", case.name);
        reasons.extend(found);
        tried.push(case);
    }
    let caught = reasons.iter().any(|why| why.contains(fault.reason));
    let name = fault.name;
    assert!(tried.is_empty() || caught, "{name}: no case says {:?}: {reasons:?}", fault.reason);
    // After the verdicts: what is refused serves nobody afterwards.
    for case in tried {
        self_test(&planted, fault, case);
    }
}

/// Whether the fault changes the text of a kernel that serves the case; else why it cannot be planted here.
fn changed(engine: &Engine, fault: &Fault, case: &BackwardCase) -> Result<(), String> {
    let policy = Policy { self_test: SelfTest::Off, ..case.policy() };
    let plan = engine.plan_backward_with(&case.backward, &policy).map_err(|e| e.to_string())?;
    let kernels = plan.kernels();
    let planted: Vec<_> = kernels.iter().filter(|spec| spec.kernel == fault.kernel).collect();
    assert!(!planted.is_empty(), "{}: no {:?} in {}", fault.name, fault.kernel, case.name);
    // What the driver runs as one vector needs no barrier; without subgroups it does not say how wide that is.
    let caps = engine.capabilities();
    let wide = !caps.subgroups || caps.subgroup_size[0] >= 16;
    if fault.name.contains("barrier") && wide {
        return Err("invocations that share may run as one vector".into());
    }
    for spec in &planted {
        let text = compose(spec).text;
        assert_ne!((fault.edit)(&text), text, "{} is not planted in {spec}", fault.name);
    }
    Ok(())
}

/// What is wrong with a case, as `heedful verify` says it.
fn verdict(engine: &Engine, case: &BackwardCase) -> Option<String> {
    let trial = Trial::new(case).unwrap();
    match trial.run(engine, Placement::Aligned).unwrap() {
        (Outcome::Ran(ran), differs) => {
            // Where stray writes are clamped to the tensor, numbers are wrong as well, and named first.
            let stray = ran.stray_write.as_ref().map(|at| format!("{OUTSIDE}: {at}"));
            let failure = ran.failure().or(differs)?;
            Some(failure).into_iter().chain(stray).reduce(|a, b| format!("{a}; {b}"))
        }
        (Outcome::Unsupported(why), _) => panic!("{}: {why}", case.name),
    }
}

/// The planted kernel is refused by its name when it is planned with, and no other is; or it serves for the reason that
/// the row gives.
fn self_test(planted: &Engine, fault: &Fault, case: &BackwardCase) {
    let what = format!("{} on {}", fault.name, case.name);
    let plan = planted.plan_backward_with(&case.backward, &case.policy());
    match (&fault.self_test, plan) {
        (Refuses, Ok(_)) => panic!("{what}: the self-test lets it serve"),
        (Refuses, Err(error)) => {
            assert!(error.is_unsupported(), "{what}: {error}");
            let [rejection] = error.rejections() else { panic!("{what}: {error}") };
            let named = rejection.candidate.starts_with(fault.kernel.name());
            assert!(named && !rejection.candidate.contains(" with "), "{what}: {rejection:?}");
            assert!(rejection.reason.contains("self-test"), "{what}: {rejection:?}");
        }
        (Either(why), verdict) => println!("{what}: {why}: {:?}", verdict.map(|_| "serves")),
        (Serves(_), Ok(_)) => {}
        (Serves(why), Err(error)) => panic!("{what}: refused, though {why}: {error}"),
    }
}

/// A kernel that is wrong is refused wherever it is needed, also by another engine that takes verdicts over; calls that
/// do not need it are served.
#[test]
fn a_wrong_kernel_is_named_and_others_serve_on() {
    let test = "a_wrong_kernel_is_named";
    let Some(planted) = common::gpu::engine(test) else { return };
    planted.plant(Kernel::BackwardSinks, |text| {
        swap(text, "batch < params.bias_batch_n;", "batch + 1u < params.bias_batch_n;")
    });
    let shape = Shape { heads_kv: 1, ..Shape::self_attention(2, 2, 40, 16) };
    let without = Backward::of(Attention::new(shape).sinks());
    let with = without.clone().with(Operand::Sinks);
    let (both, policy) = ([with.clone(), without.clone()], Policy::default());
    let warmed = pollster::block_on(planted.warm_backward(&both, &policy));
    let [refused, served] = &warmed[..] else { panic!("two results") };
    let error = refused.as_ref().unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("backward_sinks"), "{error}");
    assert!(served.is_ok(), "{served:?}");
    assert!(planted.plan(&without.attention).is_ok());

    // The other engine's kernels are right, but it does not try them.
    let other = common::gpu::engine(test).unwrap();
    let saved = planted.save_verdicts();
    assert!(other.restore_verdicts(&saved).unwrap() > 1, "{saved}");
    let before = other.compiled_kernels();
    assert!(other.plan_backward(&without).is_ok());
    let again = other.plan_backward(&with).unwrap_err();
    assert_eq!(again.rejections()[0].candidate, error.rejections()[0].candidate);
    assert_eq!(other.compiled_kernels(), before, "nothing is tried again");
    let off = Policy { self_test: SelfTest::Off, ..Policy::default() };
    assert!(common::gpu::engine(test).unwrap().plan_backward_with(&with, &off).is_ok());
}

/// Where the fused path's kernel is wrong the staged path serves, and the plan says why.
#[test]
fn the_staged_path_serves_where_the_fused_one_is_wrong() {
    let test = "the_staged_path_serves";
    let Some(planted) = common::gpu::engine(test) else { return };
    let shape = Shape { heads_kv: 1, ..Shape::self_attention(2, 2, 40, 16) };
    let backward = Backward::of(Attention::new(shape).with_lse());
    let right = common::gpu::engine(test).unwrap().plan_backward(&backward).unwrap();
    if right.path() != Path::Fused {
        return skipped(test, "this adapter prefers the staged path");
    }
    planted.plant(Kernel::FusedBackwardKeys, |text| {
        swap(text, "own_weigh(at.y, share.of_v);", "own_weigh(at.y, share.d_x);")
    });
    let plan = planted.plan_backward(&backward).unwrap();
    assert_eq!(plan.path(), Path::Staged);
    let text = plan.to_string();
    assert!(text.contains("refused fused_backward_keys"), "{text}");
    // The other kernels of that path are not blamed.
    let values = backward.clone().only(&[Operand::Q]);
    assert_eq!(planted.plan_backward(&values).unwrap().path(), Path::Fused);
}

/// A derivative that is not its closure's makes the call invalid, and no kernel is blamed.
#[test]
fn a_derivative_that_differs_from_its_closure_is_the_callers() {
    let Some(engine) = common::gpu::engine("a_derivative_that_differs") else { return };
    let wgsl = "fn score_square(s: f32, p: Position) -> f32 { return s * s; }";
    let square = CustomScore::new("square", wgsl, |s, _| s * s);
    let derivative = "fn score_square_derivative(s: f32, p: Position) -> f32 { return s; }";
    let call = |factor: f64| {
        let score = square.clone().with_derivative(derivative, move |s, _| factor * s);
        let attention = Attention::new(Shape::self_attention(1, 2, 9, 8));
        Backward::of(Attention { custom_scores: vec![score], ..attention })
    };
    let error = engine.plan_backward(&call(2.0)).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("square_derivative"), "{error}");
    // What the WGSL says is served, right or not as a derivative.
    engine.plan_backward(&call(1.0)).unwrap();
}
