//! The first product of `fused_forward_tile`: loads of rows and keys, their way through workgroup memory, scores.

use super::{keys, plus, steps, strips};
use crate::kernel::bindings::Binding;
use crate::kernel::block_tile::BlockTile;
use crate::kernel::generate::steps::{Index, Steps};
use crate::kernel::spec::KernelSpec;
use crate::tensor::Scales;

/// `tile_q`, `tile_k`: four channels of a row that starts at element `at`; `tile_v`: a vec4 of columns of a
/// key, 0 where no row of the block may look.
pub(super) fn loads(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    let scaled = |operand: &str, binding| match spec.scales(binding) {
        Scales::Row => format!(" * {operand}_scale(at, 0u)"),
        Scales::Blocks => format!(" * {operand}_scale(at, c >> 5u)"),
        Scales::None => String::new(),
    };
    let there = if spec.is_paged() { "select(0u, n, key_there(rows, key))" } else { "n" };
    // Quantised loads may not ask how many are wanted.
    let asks = |binding| spec.scales(binding) == Scales::Blocks;
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
pub(super) fn products(out: &mut Steps, tile: &BlockTile) {
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
        let own = if at_once == 1 { Index::Number(0) } else { Index::Text("place.lane / 64u") };
        let group = plus(i * at_once, own);
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

/// One depth of the products: the `i`-th of the four of block `d`.
fn product_step(out: &mut Steps, tile: &BlockTile, d: Index, i: Index) {
    let [groups_q, _] = tile.groups();
    let turn = d.number().map_or(format!("(({d}) % 4u * 2u)"), |d| format!("{}u", d % 4 * 2));
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
