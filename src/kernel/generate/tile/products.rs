//! Products of rows of two tensors: their way through workgroup memory, and sums in registers.

use super::{end_of, keys, plus, steps, strips};
use crate::kernel::bindings::Binding;
use crate::kernel::block_tile::BlockTile;
use crate::kernel::generate::steps::{Index, Steps};
use crate::kernel::spec::KernelSpec;
use crate::tensor::Scales;

/// How many of a vec4's channels there are of `dim`, where the last chunk may reach past them.
fn left(dim: u32, whole: bool) -> String {
    if whole { "4u".to_owned() } else { format!("min(max({dim}u, c) - c, 4u)") }
}

/// `tile_q`, `tile_k`: four channels of a row that starts at element `at`.
pub(super) fn loads(out: &mut Steps, tile: &BlockTile, spec: &KernelSpec) {
    let n = left(tile.dim_qk, tile.dim_qk.is_multiple_of(tile.depth));
    let q = load(spec, "q", Binding::Q, &n, "n");
    out.line(format!("fn tile_q(at: u32, c: u32) -> vec4<f32> {{ {q} return x; }}"));
    let k = load(spec, "k", Binding::K, &n, there(spec));
    out.line(format!(
        "fn tile_k(rows: Rows, key: u32, at: u32, c: u32) -> vec4<f32> {{ {k} return x; }}"
    ));
}

/// `tile_{operand}`: the same of a tensor that is in no pages.
pub(super) fn load_rows(
    out: &mut Steps,
    tile: &BlockTile,
    spec: &KernelSpec,
    (operand, binding): (&str, Binding),
) {
    let n = left(tile.dim_qk, tile.dim_qk.is_multiple_of(tile.depth));
    let x = load(spec, operand, binding, &n, "n");
    out.line(format!("fn tile_{operand}(at: u32, c: u32) -> vec4<f32> {{ {x} return x; }}"));
}

/// `tile_{operand}_of`: a vec4 of columns of a key, or of a row where these are weighed, 0 outside of `range`.
pub(super) fn load_values(
    out: &mut Steps,
    tile: &BlockTile,
    spec: &KernelSpec,
    (operand, like, binding): (&str, &str, Binding),
) {
    let n = left(tile.dim_v, tile.dim_v == 4 * tile.stride_v());
    let v = load(spec, operand, binding, &n, there(spec));
    let note = if spec.selects_values() {
        "if (tested && any_special(shown)) { atomicStore(&sh_special[0], 1u); } "
    } else {
        ""
    };
    let place = "rows: Rows, range: vec2<u32>, first: u32, wanted: u32, c: u32, tested: bool";
    out.line(format!(
        "fn tile_{operand}_of({place}) -> vec4<f32> {{ \
         let key = clamp(wanted, range.x, range.y - 1u); \
         let at = first + span_offset(rows, key).y + key * params.{like}_stride_row; {v} \
         let shown = select(x, vec4<f32>(0.0), wanted != key); {note}return shown; }}"
    ));
}

/// How many of `n` channels may be read where a key may have no place.
fn there(spec: &KernelSpec) -> &'static str {
    if spec.is_paged() { "select(0u, n, key_there(rows, key))" } else { "n" }
}

/// Statements that make `x` four channels from `c` on of the row at element `at`, `n` of which there are.
fn load(spec: &KernelSpec, operand: &str, binding: Binding, n: &str, there: &str) -> String {
    let scaled = match spec.scales(binding) {
        Scales::Row => format!(" * {operand}_scale(at, 0u)"),
        Scales::Blocks => format!(" * {operand}_scale(at, c >> 5u)"),
        Scales::None => String::new(),
    };
    let load = format!("{operand}_load4(at + c, m){scaled}");
    // Quantised loads may not ask how many are wanted.
    let asks = spec.scales(binding) == Scales::Blocks;
    let whole = n == "4u" && there == "n";
    let value = if asks && !whole {
        format!("var x = vec4<f32>(0.0); if (m > 0u) {{ x = {load}; }}")
    } else {
        format!("let x = {load};")
    };
    format!("let n = {n}; let m = {there}; {value}")
}

/// One of the tensors whose rows meet.
pub(super) struct Side {
    /// Its name in `origins`.
    pub(super) tensor: &'static str,
    /// The tensor that it lies as.
    pub(super) like: &'static str,
    /// The first of its rows here, and the last that may be read: those behind repeat it.
    pub(super) rows: [&'static str; 2],
    /// What of their places is not their number times the stride of rows.
    pub(super) places: Places,
}

/// Where rows of a tensor are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Places {
    /// One behind the other.
    Rows,
    /// Perhaps in pages.
    Pages,
    /// Of one head after another.
    Group,
}

/// Products of 64 rows of one tensor and the tile's of another.
pub(super) struct Meeting {
    /// The function that makes them.
    pub(super) name: &'static str,
    /// Rows and keys of the tile.
    pub(super) sides: [Side; 2],
    /// Registers of the sums.
    pub(super) sums: &'static str,
}

/// Scores before modifiers.
pub(super) const SCORES: Meeting = Meeting {
    name: "tile_products",
    sides: [
        Side { tensor: "q", like: "q", rows: ["row0", "rows.last"], places: Places::Rows },
        KEYS,
    ],
    sums: "s",
};

const KEYS: Side =
    Side { tensor: "k", like: "k", rows: ["key0", "end - 1u"], places: Places::Pages };

/// The same where rows are those of a group.
pub(super) const SCORES_OF_GROUP: Meeting = Meeting {
    sides: [
        Side { tensor: "q", like: "q", rows: ["row0", "group_last()"], places: Places::Group },
        KEYS,
    ],
    ..SCORES
};

impl Side {
    /// Where the rows start that an invocation takes in its `i`-th turn, from the `offset`-th of the tile on.
    fn starts(&self, i: u32, offset: &str) -> String {
        let Self { tensor, like, rows: [first, last], places } = self;
        let rows = format!(
            "min(vec4<u32>({first} + {offset}quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>({last}))"
        );
        let at = match places {
            Places::Rows => format!("{rows} * params.{like}_stride_row"),
            Places::Group => format!("group_rows_{like}({rows})"),
            Places::Pages => String::new(),
        };
        if !at.is_empty() {
            return format!("at{i} = origins.{tensor} + {at};");
        }
        let offset = |c: u32| format!("span_offset(rows, keys{i}[{c}u]).x");
        let offsets: Vec<String> = (0..4).map(offset).collect();
        format!(
            "keys{i} = {rows}; at{i} = origins.{tensor} + vec4<u32>({}) + keys{i} * params.{like}_stride_row;",
            offsets.join(", ")
        )
    }

    /// Four channels of each of these rows.
    fn load(&self, i: u32) -> String {
        let Self { tensor, places, .. } = self;
        let value = |r: u32| match *places == Places::Pages {
            false => format!("x{i}[{r}u] = tile_{tensor}(at{i}[{r}u], c{i});"),
            true => format!("x{i}[{r}u] = tile_{tensor}(rows, keys{i}[{r}u], at{i}[{r}u], c{i});"),
        };
        (0..4).map(value).collect::<Vec<_>>().join(" ")
    }
}

/// Products over the tile's `dim_qk` channels: chunks of both sides through workgroup memory, each invocation taking
/// four rows or keys of four channels there at a time, transposed.
pub(super) fn products(out: &mut Steps, tile: &BlockTile, meeting: &Meeting) {
    let Meeting { name, sides: [own, other], sums } = meeting;
    let [groups_q, groups] = tile.groups();
    let at_once = tile.lanes() / 64;
    let turns = groups.div_ceil(at_once);
    out.line(format!(
        "fn {name}(rows: Rows, end: u32, origins: Origins, place: Place, row0: u32, key0: u32) {{"
    ));
    for s in strips(tile) {
        keys(tile).for_each(|j| out.line(format!("{sums}{j}_{s} = vec4<f32>(0.0);")));
    }
    // Neighbours read 64 bytes of one row, and put them into different banks: what a block has of four depths
    // is turned by twice their number. With a row to each neighbour one H200 reached 26, 29 and 28 TFLOP/s at
    // dims 64, 128 and 256, so 32, 34 and 34 (f32, 1x16x4096, chunks fetched ahead in both).
    out.line("let fours = place.lane % 4u;\nlet quad = place.lane / 4u % 16u;");
    for i in 0..turns {
        let part = if at_once == 1 { Index::Number(0) } else { Index::Text("place.lane / 64u") };
        let group = plus(i * at_once, part);
        out.line(format!("let group{i} = {group};\nvar at{i} = vec4<u32>(0u);"));
        if other.places == Places::Pages {
            out.line(format!("var keys{i} = vec4<u32>(0u);"));
        }
        let offset = format!("(group{i} - {groups_q}u) / {groups_q}u * 64u + ");
        out.line(of_group(tile, i, &own.starts(i, ""), &other.starts(i, &offset)));
    }
    let depth = tile.depth;
    out.line(format!(
        "for (var chunk = 0u; chunk < {}; chunk += {depth}u) {{",
        end_of(tile, tile.dim_qk.max(1).next_multiple_of(depth))
    ));
    for i in 0..turns {
        out.line(format!("let c{i} = chunk + group{i} % {groups_q}u * 16u + fours * 4u;"));
        let loads = of_group(tile, i, &own.load(i), &other.load(i));
        out.line(format!("var x{i}: mat4x4<f32>;\n{loads}"));
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
    steps(out, tile, depth, |out, d, i| product_step(out, tile, sums, d, i));
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
fn product_step(out: &mut Steps, tile: &BlockTile, sums: &str, d: Index, i: Index) {
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
        let (more, x) = match tile.across > 16 {
            true => (format!(" + place.x / 16u * {}u", 4 * groups_q), "(place.x % 16u)"),
            false => (String::new(), "place.x"),
        };
        out.line(format!("let b{t} = sh[{block}{more}][{i}][{}u + ({x} ^ {turn})];", quad % 16));
        for (j, s) in (0..4).flat_map(|j| strips(tile).map(move |s| (j, s))) {
            let sum = format!("{sums}{}_{s}", 4 * t + j);
            out.line(format!("{sum} = fma(a{s}, vec4<f32>(b{t}[{j}u]), {sum});"));
        }
    }
    out.line("}");
}
