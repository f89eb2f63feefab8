//! Generated straight-line code of the fused backward kernels: the rows or keys that an invocation owns, and their
//! gradients, in registers.
//!
//! As in `registers`, what must stay in registers is numbered variables: `a{r}_{d}` and `b{r}_{d}` hold channels
//! 4d..4d+3 of q and d_o of row r, or of k and v of key r; `x{r}_{d}` and `y{r}_{d}` the sums that become the gradients
//! of k and v, or that of q and what corrects it. Of the other side a row is read at an address that all invocations
//! share.

use std::fmt::Write;

use super::function;
use super::registers::{component, row_types};
use crate::kernel::bindings::Binding;
use crate::kernel::element::RowTile;
use crate::kernel::spec::KernelSpec;

/// Which side of pairs an invocation owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Own {
    Rows,
    Keys,
}

/// Names of the tensors of a side: what scores are products of, and what gradients of weights are.
const OF_ROWS: [&str; 2] = ["q", "d_o"];
const OF_KEYS: [&str; 2] = ["k", "v"];

impl Own {
    pub(super) fn tensors(self) -> [&'static str; 2] {
        if self == Self::Rows { OF_ROWS } else { OF_KEYS }
    }

    pub(super) fn others(self) -> [&'static str; 2] {
        if self == Self::Rows { OF_KEYS } else { OF_ROWS }
    }

    /// Whether sums of gradients of products are wanted, and sums of weights: of v, or of k where they correct the
    /// gradient of q.
    pub(super) fn sums(self, spec: &KernelSpec) -> [bool; 2] {
        let stored = |binding| spec.has_element(binding);
        match self {
            Self::Rows => [stored(Binding::O), spec.corrects_means()],
            Self::Keys => [stored(Binding::O), stored(Binding::DV)],
        }
    }

    /// The position of the pair with the r-th that is owned, `step` from one to the next. Rows and keys past the last
    /// repeat it, so that nothing is read outside.
    fn position(self, r: u32, step: &str) -> String {
        match self {
            Self::Rows => format!("position_at(rows, min(row + {r}u * {step}, rows.last), key)"),
            Self::Keys => {
                format!("position_at(rows, row, min(key + {r}u * {step}, params.seq_kv - 1u))")
            }
        }
    }
}

/// The tensor that a tensor lies as: gradients as what they are of.
pub(super) fn like(tensor: &'static str) -> &'static str {
    if tensor == "d_o" { "o" } else { tensor }
}

/// The stride that steps from row to row of a tensor.
fn stride(tensor: &'static str) -> String {
    format!("params.{}_stride_row", like(tensor))
}

/// The definitions that `kernel/fused_backward_rows.wgsl` and `kernel/fused_backward_keys.wgsl` call.
pub(in crate::kernel) fn own(tile: &RowTile, spec: &KernelSpec, side: Own) -> String {
    let mut out = row_types(tile.rows);
    let all = if tile.rows == 1 { "hidden" } else { "all(hidden)" };
    let _ = writeln!(
        out,
        "const LANES: u32 = {}u;\nconst GROUP: u32 = {}u;\nconst MASKED: bool = {};",
        tile.lanes,
        tile.group_rows(),
        spec.is_masked()
    );
    entry(&mut out, tile);
    // Broadcasts follow only if some invocation needs them, and then all take part.
    let all = if tile.fetch > 1 { format!("subgroupAll({all})") } else { all.to_owned() };
    function(&mut out, "own_all(hidden: RowMask) -> bool", &format!("return {all};"));
    let wanted = side.sums(spec);
    load(&mut out, tile, side, wanted);
    products(&mut out, tile, side);
    pairs(&mut out, tile.rows, side, "LANES");
    kept(&mut out, tile.rows, spec, side, "LANES");
    sums(&mut out, tile, side, wanted);
    store(&mut out, tile, side, wanted);
    out
}

/// Head dimensions in the order of a side's tensors.
fn dims(tile: &RowTile) -> [u32; 2] {
    [tile.dim_qk, tile.dim_v]
}

/// Each vec4 of a row of `dim` channels: its number, and how many of its channels there are.
fn fours(dim: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..dim.div_ceil(4)).map(move |d| (d, (dim - 4 * d).min(4)))
}

/// The entry point, which tells an invocation its part in what neighbours fetch together.
fn entry(out: &mut String, tile: &RowTile) {
    let (part, place) = match tile.fetch {
        1 => ("", String::new()),
        n => (
            ", @builtin(subgroup_invocation_id) subgroup_lane: u32",
            format!("own_part = subgroup_lane & {}u; ", n - 1),
        ),
    };
    let _ = writeln!(
        out,
        "var<private> own_part: u32;\n@compute @workgroup_size(LANES, 1, 1)\n\
         fn main(@builtin(workgroup_id) workgroup: vec3<u32>, \
         @builtin(local_invocation_index) lane: u32{part}) {{ {place}gradients(workgroup, lane); }}"
    );
}

/// Statements that make `z{d}` channels 4d..4d+3 of a row of `dim` channels at element `at`, `n` of which there are.
fn fetch(body: &mut String, tile: &RowTile, tensor: &str, dim: u32, (d, n): (u32, u32)) {
    if tile.fetch == 1 {
        let _ = write!(body, "\n  let z{d} = {tensor}_load4(at + {}u, {n}u);", 4 * d);
        return;
    }
    let (group, member) = (d / tile.fetch, d % tile.fetch);
    if member == 0 {
        // The last group may reach past the row: lanes there load nothing.
        let start = 4 * group * tile.fetch;
        let count = match start + 4 * tile.fetch <= dim {
            true => "4u".to_owned(),
            false => format!("u32(clamp(i32({dim}u - {start}u) - i32(own_part * 4u), 0, 4))"),
        };
        let at = format!("at + {start}u + own_part * 4u");
        let _ = write!(body, "\n  let f{group} = {tensor}_load4({at}, {count});");
    }
    let _ = write!(body, "\n  let z{d} = subgroupBroadcast(f{group}, {member}u);");
}

fn load(out: &mut String, tile: &RowTile, side: Own, wanted: [bool; 2]) {
    let mut body = String::new();
    for r in 0..tile.rows {
        let _ = write!(body, "\n  let own{r} = own + {r}u * LANES;");
        for (i, (tensor, dim)) in side.tensors().into_iter().zip(dims(tile)).enumerate() {
            let kept = ["a", "b"][i];
            let _ = write!(body, "\n  let {kept}{r} = at_{kept} + own{r} * {};", stride(tensor));
            for (d, n) in fours(dim) {
                let _ = writeln!(out, "var<private> {kept}{r}_{d}: vec4<f32>;");
                let _ = write!(
                    body,
                    "\n  {kept}{r}_{d} = {tensor}_load4({kept}{r} + {}u, select(0u, {n}u, own{r} < end));",
                    4 * d
                );
            }
        }
        for (sum, (_, dim)) in wanted_sums(tile, side, wanted) {
            for (d, _) in fours(dim) {
                let _ = writeln!(out, "var<private> {sum}{r}_{d}: vec4<f32>;");
                let _ = write!(body, "\n  {sum}{r}_{d} = vec4<f32>(0.0);");
            }
        }
    }
    function(out, "own_load(at_a: u32, at_b: u32, own: u32, end: u32)", &body);
}

/// Sums that are wanted: their registers, the tensor of the other side that they are of, and its channels.
fn wanted_sums(
    tile: &RowTile,
    side: Own,
    wanted: [bool; 2],
) -> impl Iterator<Item = (&'static str, (&'static str, u32))> {
    let ([first, second], [dim_qk, dim_v]) = (side.others(), dims(tile));
    let second = match side {
        // Weighed by weights alone, keys say what rounding has left in the gradient of q.
        Own::Rows => (first, dim_qk),
        Own::Keys => (second, dim_v),
    };
    let sums = [("x", (first, dim_qk)), ("y", second)];
    sums.into_iter().zip(wanted).filter_map(|(sum, on)| on.then_some(sum))
}

/// Products of a row of the other side with all that are owned.
fn products(out: &mut String, tile: &RowTile, side: Own) {
    let each = side.others().into_iter().zip(dims(tile));
    for (i, (other, dim)) in each.enumerate() {
        let (name, kept) = [("own_product", "a"), ("own_incoming", "b")][i];
        let mut body = String::new();
        for r in 0..tile.rows {
            let _ = write!(body, "\n  var s{r} = vec4<f32>(0.0);");
        }
        for (d, n) in fours(dim) {
            fetch(&mut body, tile, other, dim, (d, n));
            for r in 0..tile.rows {
                let _ = write!(body, "\n  s{r} = fma({kept}{r}_{d}, z{d}, s{r});");
            }
        }
        let sums: Vec<String> =
            (0..tile.rows).map(|r| format!("(s{r}.x + s{r}.y) + (s{r}.z + s{r}.w)")).collect();
        let _ = write!(body, "\n  return RowVec({});", sums.join(", "));
        function(out, &format!("{name}(at: u32) -> RowVec"), &body);
    }
}

/// Scores, derivatives, factors and masks of the pairs with `n` that are owned, one by one.
pub(super) fn pairs(out: &mut String, n: u32, side: Own, step: &str) {
    let place = "rows: Rows, row: u32, key: u32";
    let mut each = |signature: &str, kind: &str, of: &dyn Fn(u32) -> String| {
        let all: Vec<String> = (0..n).map(of).collect();
        function(
            out,
            &format!("{signature} -> {kind}"),
            &format!("return {kind}({});", all.join(", ")),
        );
    };
    let at = |r| side.position(r, step);
    let of = |name: &str, r| component(n, name, r);
    each(&format!("own_modify(x: RowVec, {place})"), "RowVec", &|r| {
        format!("modify({}, {})", of("x", r), at(r))
    });
    each(&format!("own_slopes(x: RowVec, {place})"), "RowVec", &|r| {
        format!("chain_derivatives({}, {}).x", of("x", r), at(r))
    });
    each(&format!("own_factor({place})"), "RowVec", &|r| format!("weight_factor({})", at(r)));
    each(&format!("own_hidden(s: RowVec, {place})"), "RowMask", &|r| {
        format!("is_masked({}) || !keep({})", of("s", r), at(r))
    });
}

/// What is known of a row that all invocations go over, or of those that are owned; and how these end.
pub(super) fn kept(out: &mut String, n: u32, spec: &KernelSpec, side: Own, step: &str) {
    let each = spec.is_each();
    let place = |row: &str| {
        format!("2u * ((rows.batch * params.heads_q + rows.head) * params.seq_q + {row})")
    };
    if side == Own::Keys {
        let body = match each {
            true => "return Kept(RowVec(0.0), RowVec(0.0), RowVec(normalize_factor()));".to_owned(),
            false => format!(
                "let at = {}; let state = states[at]; \
                 return Kept(RowVec(state.x), RowVec(state.y), RowVec(states[at + 1u].x));",
                place("row")
            ),
        };
        return function(out, "row_kept(rows: Rows, row: u32) -> Kept", &body);
    }
    let of = |name: &str| {
        let all: Vec<String> = (0..n).map(|r| format!("{name}{r}")).collect();
        format!("RowVec({})", all.join(", "))
    };
    let (mut load, mut ends) = (String::new(), String::new());
    for r in (0..n).filter(|_| !each) {
        let at = place(&owned_row(r, step));
        let _ = write!(load, "\n  let state{r} = states[{at}];");
        let _ = write!(load, " let lse{r} = state{r}.x; let shift{r} = state{r}.y;");
        if spec.knows_states() {
            let _ = write!(load, " let known{r} = states[{at} + 1u].x;");
        }
        ends += &row_end(n, r, &place(&owned_row(r, step)), step);
    }
    let scale = if spec.knows_states() { of("known") } else { "RowVec(1.0)".to_owned() };
    let (load, ends) = match each {
        true => {
            let factor = "RowVec(normalize_factor())";
            let none = "RowVec(0.0)";
            let ends = format!("return RowEnds(RowVec(1.0), {none});");
            (format!("return Kept({none}, {none}, {factor});"), ends)
        }
        false => (
            format!("{load}\n  return Kept({}, {}, {scale});", of("lse"), of("shift")),
            format!("{ends}\n  return RowEnds({}, {});", of("scale"), of("left")),
        ),
    };
    function(out, "own_kept(rows: Rows, row: u32) -> Kept", &load);
    let signature = "own_ends(rows: Rows, row: u32, end: u32, l: RowVec, e: RowVec) -> RowEnds";
    function(out, signature, &ends);
}

/// The r-th row that is owned; rows past the last repeat it.
fn owned_row(r: u32, step: &str) -> String {
    format!("min(row + {r}u * {step}, rows.last)")
}

/// Statements that make `scale{r}` and `left{r}` of a row whose state is at `place`, and leave its keys what they need.
///
/// With L = l and what the row's sink has of it, and m = <d_o, o>: sum(w y) = e - (d_lse - m) l, and what m lacks of
/// sum(w y) / L is (e - d_lse l - m (L - l)) / L. Of a row that sees nothing all is 0.
fn row_end(n: u32, r: u32, place: &str, step: &str) -> String {
    let [l, e] = ["l", "e"].map(|name| component(n, name, r));
    format!(
        "\n  let at{r} = {place}; let state{r} = states[at{r}]; let d_lse{r} = states[at{r} + 1u].y;\
         \n  let sink{r} = sink_share(rows.head, state{r}.x); let empty{r} = {l} == 0.0;\
         \n  let scale{r} = select(1.0 / ({l} + sink{r}), 0.0, empty{r});\
         \n  let lacks{r} = ({e} - d_lse{r} * {l} - (d_lse{r} - state{r}.y) * sink{r}) * scale{r};\
         \n  let left{r} = select(lacks{r}, 0.0, empty{r});\
         \n  if (row + {r}u * {step} < end) {{\
         \n    states[at{r}].y = state{r}.y - left{r};\
         \n    states[at{r} + 1u].x = scale{r};\
         \n  }}"
    )
}

/// sum = sum + factor * a row of the other side; the `shown` forms leave it out where the pair is hidden, whatever it
/// holds. Of rows both sums are of k, which is fetched once.
fn sums(out: &mut String, tile: &RowTile, side: Own, wanted: [bool; 2]) {
    let each: Vec<_> = wanted_sums(tile, side, wanted).collect();
    let of = |sum: &str| each.iter().copied().filter(|(of, _)| *of == sum).collect::<Vec<_>>();
    let functions = match side {
        Own::Rows => vec![("own_add", "f: RowVec, g: RowVec", each.clone())],
        Own::Keys => vec![("own_add", "f: RowVec", of("x")), ("own_weigh", "f: RowVec", of("y"))],
    };
    for (name, factors, sums) in functions {
        for shown in [false, true] {
            let mut body = String::new();
            let (_, (tensor, dim)) = sums.first().copied().unwrap_or(("", ("", 0)));
            for (d, n) in fours(dim) {
                fetch(&mut body, tile, tensor, dim, (d, n));
                for r in 0..tile.rows {
                    let hidden = component(tile.rows, "hidden", r);
                    let z = match shown {
                        true => format!("select(z{d}, vec4<f32>(0.0), {hidden})"),
                        false => format!("z{d}"),
                    };
                    for (i, (sum, _)) in sums.iter().enumerate() {
                        let factor = component(tile.rows, ["f", "g"][i], r);
                        let _ = write!(
                            body,
                            "\n  {sum}{r}_{d} = fma(vec4<f32>({factor}), {z}, {sum}{r}_{d});"
                        );
                    }
                }
            }
            let signature = match shown {
                true => format!("{name}_shown(at: u32, {factors}, hidden: RowMask)"),
                false => format!("{name}(at: u32, {factors})"),
            };
            function(out, &signature, &body);
        }
    }
}

/// Gradients where what they are of is stored; those of rows past the query length are 0.
fn store(out: &mut String, tile: &RowTile, side: Own, wanted: [bool; 2]) {
    let mut body = String::new();
    for r in 0..tile.rows {
        let _ = write!(body, "\n  let own{r} = own + {r}u * LANES;\n  if (own{r} < end) {{");
        for (i, (tensor, dim)) in side.tensors().into_iter().zip(dims(tile)).enumerate() {
            if !wanted[i] || (side == Own::Rows && i == 1) {
                continue;
            }
            let (to, sum) = [("o", "x"), ("d_v", "y")][i];
            let _ = write!(body, "\n    let {to}{r} = at_{to} + own{r} * {};", stride(tensor));
            for (d, n) in fours(dim) {
                let value = match side {
                    Own::Rows => {
                        let [scale, left] =
                            ["ends.scale", "ends.left"].map(|name| component(tile.rows, name, r));
                        let sum = match wanted[1] {
                            true => format!("fma(vec4<f32>(-{left}), y{r}_{d}, x{r}_{d})"),
                            false => format!("x{r}_{d}"),
                        };
                        format!("select({sum} * {scale}, vec4<f32>(0.0), own{r} >= length)")
                    }
                    Own::Keys => format!("{sum}{r}_{d}"),
                };
                let _ = write!(body, "\n    {to}_store4({to}{r} + {}u, {n}u, {value});", 4 * d);
            }
        }
        body += "\n  }";
    }
    let signature = match side {
        Own::Rows => "own_store(at_o: u32, own: u32, end: u32, length: u32, ends: RowEnds)",
        Own::Keys => "own_store(at_o: u32, at_d_v: u32, own: u32, end: u32)",
    };
    function(out, signature, &body);
}
