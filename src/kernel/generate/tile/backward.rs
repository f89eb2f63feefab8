//! Generated code of the fused backward kernels on tiles: products `s{other}_{strip}` of q and k and
//! `y{other}_{strip}` of d_o and v, a vec4 of four that are owned each, which become gradients of products and weights;
//! sums `o{own}_{column}` of the first and `z{own}_{column}` of the second, a vec4 of four columns each: gradients of k
//! and v, or of q and what corrects it.

use super::products::{Meeting, Places, Side, load_rows, load_values, products};
use super::sums::{Weighing, sums};
use super::{
    Ends, Store, columns, declare_tile, keys, of_strip, rotate, row_of, row_sums, row_types, rows,
    store, strips,
};
use crate::kernel::bindings::Binding;
use crate::kernel::block_tile::BlockTile;
use crate::kernel::generate::own::{Own, kept, like, pairs};
use crate::kernel::generate::steps::Steps;
use crate::kernel::spec::KernelSpec;

/// What a kernel is generated from: which side it owns, and which gradients are wanted.
struct Shape<'a> {
    spec: &'a KernelSpec,
    side: Own,
    /// The tile for rows of q and k, and for those of v and d_o.
    tiles: [BlockTile; 2],
    /// Whether sums of gradients of products are wanted, and sums of weights.
    wanted: [bool; 2],
}

/// The definitions that the kernels `fused_backward_tile_*` call.
pub(in crate::kernel) fn tile_backward(tile: &BlockTile, spec: &KernelSpec, side: Own) -> String {
    let mut out = Steps { text: row_types(4), unrolled: tile.is_written() };
    let tiles = [tile.dim_qk, tile.dim_v].map(|dim| tile.of_dim(dim));
    let shape = Shape { spec, side, tiles, wanted: side.sums(spec) };
    declare_tile(&mut out, &tile.of_dim(tile.dim_qk.max(tile.dim_v)), spec);
    shape.declare(&mut out);
    let d_o = "params.d_o_base + o_origin(batch) + head * params.o_stride_head";
    out.line(format!("fn d_o_origin(batch: u32, head: u32) -> u32 {{ return {d_o}; }}"));
    pairs(&mut out.text, 4, side, "1u");
    kept(&mut out.text, 4, spec, side, "1u");
    shape.products(&mut out);
    shape.pairs(&mut out, false);
    shape.pairs(&mut out, true);
    shape.sums(&mut out);
    if shape.sums_rows() {
        row_sums(&mut out, tile, "l");
        row_sums(&mut out, tile, "e");
        shape.correct(&mut out);
    }
    shape.stores(&mut out);
    out.text
}

/// The binding of a tensor that both sides are made of.
fn binding(tensor: &str) -> Binding {
    match tensor {
        "q" => Binding::Q,
        "k" => Binding::K,
        "v" => Binding::V,
        _ => Binding::DO,
    }
}

impl Shape<'_> {
    /// Whether it sums up weights of each row as well.
    fn sums_rows(&self) -> bool {
        self.side == Own::Rows && !self.spec.knows_states()
    }

    /// Sums: their registers, the tile that says how many there are, and the tensor that they are of.
    fn sums_of(&self) -> [(&'static str, &BlockTile, &'static str); 2] {
        let ([first, second], others) = (&self.tiles, self.side.others());
        match self.side {
            // Weights of keys say what rounding has left in those of products.
            Own::Rows => [("o", first, others[0]), ("z", first, others[0])],
            Own::Keys => [("o", first, others[0]), ("z", second, others[1])],
        }
    }

    fn declare(&self, out: &mut Steps) {
        let tile = &self.tiles[0];
        out.line(format!("const OWNS_ROWS: bool = {};", self.side == Own::Rows));
        for s in strips(tile) {
            for j in keys(tile) {
                out.line(format!(
                    "var<private> s{j}_{s}: vec4<f32>;\nvar<private> y{j}_{s}: vec4<f32>;"
                ));
            }
            if self.sums_rows() {
                out.line(format!("var<private> l_{s}: vec4<f32>;\nvar<private> e_{s}: vec4<f32>;"));
            }
        }
        let mut begin = String::new();
        for (i, (name, tile, _)) in self.sums_of().into_iter().enumerate() {
            if !self.wanted[i] {
                continue;
            }
            for (r, t) in rows(tile).flat_map(|r| columns(tile).map(move |t| (r, t))) {
                out.line(format!("var<private> {name}{r}_{t}: vec4<f32>;"));
                begin += &format!("{name}{r}_{t} = vec4<f32>(0.0);\n");
            }
        }
        for s in strips(tile).filter(|_| self.sums_rows()) {
            begin += &format!("l_{s} = vec4<f32>(0.0);\ne_{s} = vec4<f32>(0.0);\n");
        }
        if self.spec.selects_values() {
            begin += "if (place.lane == 0u) { atomicStore(&sh_special[0], 0u); }\n";
        }
        out.line(format!("fn tile_begin(rows: Rows, place: Place) {{\n{begin}}}"));
    }

    /// Both products, each where a sum needs it.
    fn products(&self, out: &mut Steps) {
        let ends = match self.side {
            Own::Rows => [["row0", "rows.last"], ["key0", "end - 1u"]],
            Own::Keys => [["key0", "end - 1u"], ["row0", "rows.last"]],
        };
        let tensors = self.side.tensors().into_iter().zip(self.side.others());
        // Weights come from the first product, and only gradients of scores from the second.
        let needed = [true, self.wanted[0] || self.side == Own::Rows];
        for (i, (own, other)) in tensors.enumerate() {
            let (name, sums) = [("tile_products", "s"), ("tile_incoming", "y")][i];
            let tile = &self.tiles[i];
            if !needed[i] {
                out.line(format!(
                    "fn {name}(rows: Rows, end: u32, origins: Origins, place: Place, row0: u32, key0: u32) {{}}"
                ));
                continue;
            }
            let [own, other] = [(own, ends[0]), (other, ends[1])].map(|(tensor, rows)| {
                load_rows(out, tile, self.spec, (tensor, binding(tensor)));
                Side { tensor, like: like(tensor), rows, places: Places::Rows }
            });
            products(out, tile, &Meeting { name, sides: [own, other], sums });
        }
    }

    /// Products become gradients of scores, and weights with their factors, pair by pair.
    fn pairs(&self, out: &mut Steps, shown: bool) {
        let tile = &self.tiles[0];
        let name = if shown { "tile_pairs_shown" } else { "tile_pairs" };
        out.line(format!("fn {name}(rows: Rows, end: u32, place: Place, begin: u32) {{"));
        for s in strips(tile).filter(|_| self.side == Own::Rows) {
            out.line(format!("let kept_{s} = own_kept(rows, {});", row_of(tile, s)));
        }
        out.line(format!("for (var i = 0u; i < {}u; i += 1u) {{", tile.keys_each()));
        self.pair(out, shown);
        for s in strips(tile) {
            ["s", "y"].into_iter().for_each(|of| rotate(out, tile, of, s, 1));
        }
        out.line("}\n}");
    }

    /// The pairs of the `i`-th of the other side.
    fn pair(&self, out: &mut Steps, shown: bool) {
        let tile = &self.tiles[0];
        out.line("let other = key_of(place, begin, i);");
        let (name, outside) = match shown {
            true => ("pairs_shown", "other >= end, "),
            false => ("pairs_whole", ""),
        };
        out.line(if shown { "let at = min(other, end - 1u);" } else { "let at = other;" });
        if self.side == Own::Keys {
            out.line("let kept = row_kept(rows, at);");
        }
        for s in strips(tile) {
            let own = row_of(tile, s);
            let (place, kept) = match self.side {
                Own::Rows => (format!("{own}, at"), format!("kept_{s}")),
                Own::Keys => (format!("at, {own}"), "kept".to_owned()),
            };
            let call = format!("{name}(rows, {place}, {outside}s0_{s}, y0_{s}, {kept})");
            out.line(format!(
                "let pairs{s} = {call};\ns0_{s} = pairs{s}.d_x;\ny0_{s} = pairs{s}.other;"
            ));
            if self.sums_rows() {
                out.line(format!("l_{s} += pairs{s}.weight;\ne_{s} += pairs{s}.d_s;"));
            }
        }
    }

    /// What the other side's rows add to the sums.
    fn sums(&self, out: &mut Steps) {
        let first = if self.side == Own::Rows { "key0" } else { "row0" };
        let mut loaded = Vec::new();
        for (i, (sums_of, tile, values)) in self.sums_of().into_iter().enumerate() {
            let (name, weights) = [("tile_add", "s"), ("tile_weigh", "y")][i];
            if !self.wanted[i] {
                let place = format!("origins: Origins, place: Place, {first}: u32");
                out.line(format!(
                    "fn {name}(rows: Rows, range: vec2<u32>, {place}, tested: bool) {{}}"
                ));
                continue;
            }
            if !loaded.contains(&values) {
                load_values(out, tile, self.spec, (values, like(values), binding(values)));
                loaded.push(values);
            }
            let weighing = Weighing { name, weights, values, sums: sums_of, first, waits: true };
            sums(out, tile, self.spec, &weighing);
        }
    }

    /// What rows' means lacked is taken off.
    fn correct(&self, out: &mut Steps) {
        out.line("fn tile_correct(place: Place) {");
        let tile = &self.tiles[0];
        for s in strips(tile).filter(|_| self.wanted[1]) {
            out.line(format!("let left{s} = sh[0][1][{}];", of_strip(tile, s)));
        }
        for (r, t) in rows(tile).flat_map(|r| columns(tile).map(move |t| (r, t))) {
            if self.wanted[1] {
                let left = format!("vec4<f32>(-left{}[{}u])", r / 4, r % 4);
                out.line(format!("o{r}_{t} = fma({left}, z{r}_{t}, o{r}_{t});"));
            }
        }
        out.line("}");
    }

    fn stores(&self, out: &mut Steps) {
        let names = [("tile_store", "o"), ("tile_store_v", "d_v")];
        let made = if self.side == Own::Rows { 1 } else { 2 };
        for (i, (sums, tile, _)) in self.sums_of().into_iter().enumerate().take(made) {
            let (name, to) = names[i];
            let of = like(self.side.tensors()[i]);
            let ends = if self.sums_rows() { Ends::Rows } else { Ends::Known };
            match self.wanted[i] {
                true => store(out, tile, &Store { name, sums, to: [to, of], ends }),
                false => out.line(format!("{} {{}}", Store::signature(name, ends))),
            }
        }
    }
}
