//! The kernels that the planner chooses for real GPUs, written for `scripts/gpu-compilers`, which has their
//! compilers read them.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod common;

use std::fmt::Write as _;
use std::path::Path as FilePath;

use common::matrix_caps;
use heedful::kernel::{Binding, BlockTile, Element, Kernel, KernelSpec, Tile, compose};
use heedful::plan::MatrixUnit;
use heedful::{
    Align, Attention, Backward, BackwardPlan, Capabilities, DType, Edges, Normalizer, Path, Plan,
    Policy, Rotary, Shape, Storage,
};

/// A device by the name that the compilers' drivers know, with what the planner asks of it.
struct Device {
    shim: &'static str,
    name: &'static str,
    class: &'static str,
    subgroup_size: [u32; 2],
    /// Cubes that multiply f16 and sum in f32; 0: none.
    matrix_edge: u32,
}

const DEVICES: &[Device] = &[
    Device {
        shim: "navi31",
        name: "AMD Radeon RX 7900 XTX",
        class: "discretegpu",
        subgroup_size: [32, 64],
        matrix_edge: 16,
    },
    Device {
        shim: "nv-174",
        name: "NVIDIA GeForce RTX 3080",
        class: "discretegpu",
        subgroup_size: [32, 32],
        matrix_edge: 16,
    },
    Device {
        shim: "intel-dg2",
        name: "Intel(R) Arc(tm) A770 Graphics",
        class: "discretegpu",
        subgroup_size: [8, 32],
        matrix_edge: 0,
    },
    Device {
        shim: "fd-740",
        name: "Adreno (TM) 740",
        class: "integratedgpu",
        subgroup_size: [64, 128],
        matrix_edge: 0,
    },
    Device {
        shim: "agx-13",
        name: "Apple M1",
        class: "integratedgpu",
        subgroup_size: [32, 32],
        matrix_edge: 0,
    },
];

fn capabilities(device: &Device) -> Capabilities {
    let Device { name, class, subgroup_size, matrix_edge, .. } = *device;
    let units: Vec<MatrixUnit> = match matrix_edge {
        0 => Vec::new(),
        edge => matrix_caps(edge, subgroup_size, "vulkan", class).matrix_units,
    };
    Capabilities {
        name: name.into(),
        backend: "vulkan".into(),
        device_type: class.into(),
        shader_f16: true,
        subgroups: true,
        subgroup_size,
        max_workgroup_bytes: 32 << 10,
        max_invocations: 1024,
        matrix_units: units,
        ..Capabilities::default()
    }
}

/// What is asked of the planner: a name, the call, the path.
fn calls() -> Vec<(String, Attention, Path)> {
    let mut calls = Vec::new();
    let prefill = |dim| Attention::new(Shape::self_attention(1, 16, 4096, dim));
    for dim in [64, 128, 256] {
        calls.push((format!("d{dim}.f32"), prefill(dim), Path::Auto));
        calls.push((format!("d{dim}.f16"), prefill(dim).dtype(DType::F16), Path::Auto));
        let causal = prefill(dim).causal(Align::TopLeft);
        calls.push((format!("d{dim}.f32.causal"), causal, Path::Auto));
        let few = Shape { heads_q: 32, heads_kv: 8, seq_q: 1, ..prefill(dim).shape };
        calls.push((format!("d{dim}.f32.decode"), Attention::new(few), Path::Split));
    }
    for dim in [64, 128] {
        calls.push((format!("d{dim}.f32.rows"), prefill(dim), Path::Fused));
        let half = prefill(dim).dtype(DType::F16);
        calls.push((format!("d{dim}.f16.matrix"), half, Path::FusedMatrix));
        calls.push((format!("d{dim}.f32.dropout"), prefill(dim).dropout(0.1, 1), Path::Auto));
    }
    // Latent attention: 128 heads over one; and keys of few bits.
    let [heads_q, heads_kv, seq_q, dim_qk, dim_v] = [128, 1, 1, 576, 512];
    let latent = Shape { heads_q, heads_kv, seq_q, dim_qk, dim_v, ..prefill(64).shape };
    let latent = Attention::new(latent).dtype(DType::F16);
    // The same with four drafted tokens, of which each row sees those before it.
    let drafted = Attention { shape: Shape { seq_q: 4, ..latent.shape }, ..latent.clone() };
    calls.push(("latent.f16.draft".into(), drafted.causal(Align::BottomRight), Path::Auto));
    calls.push(("latent.f16.decode".into(), latent, Path::Auto));
    for storage in [Storage::E4m3, Storage::Mxfp4] {
        let few = Shape { heads_q: 32, heads_kv: 8, seq_q: 1, ..prefill(128).shape };
        let call = Attention::new(few).dtype(DType::F16).kv_storage(storage);
        calls.push((format!("d128.{storage}.decode"), call, Path::Split));
    }
    let short = Attention::new(Shape::self_attention(1, 8, 512, 64));
    calls.push(("d64.f32.short".into(), short, Path::Auto));
    calls.push(("d64.f32.staged".into(), prefill(64), Path::Staged));
    let pages = prefill(64).kv_storage(Storage::Int8).paged(256, 16, 256);
    calls.push(("d64.int8.pages.staged".into(), pages, Path::Staged));
    calls
}

/// Calls whose gradients are asked for.
fn gradients() -> Vec<(String, Backward, Path)> {
    let mut calls = Vec::new();
    // Rows and keys in registers are passed over on hardware: what they would take there.
    for dim in [32, 64, 128] {
        let call = Attention::new(Shape::self_attention(1, 16, 4096, dim)).with_lse();
        calls.push((format!("d{dim}.f32.fused.gradients"), Backward::of(call), Path::Fused));
    }
    let mut staged = Vec::new();
    for dim in [64, 128, 256] {
        let prefill = Attention::new(Shape::self_attention(1, 16, 4096, dim)).with_lse();
        let tile = [
            ("f32", prefill.clone()),
            ("f16", prefill.clone().dtype(DType::F16)),
            ("f32.causal", prefill.causal(Align::TopLeft)),
        ];
        for (form, call) in tile {
            calls.push((
                format!("d{dim}.{form}.tile.gradients"),
                Backward::of(call),
                Path::FusedTile,
            ));
        }
    }
    for dim in [64, 128] {
        let prefill = Attention::new(Shape::self_attention(1, 16, 4096, dim)).with_lse();
        let call = Backward::of(prefill.clone());
        calls.push((format!("d{dim}.f32.gradients"), call, Path::Staged));
        let sparse = Attention { lse: false, ..prefill.clone() }.normalizer(Normalizer::Sparsemax);
        staged.push((format!("d{dim}.f32.sparsemax.gradients"), Backward::of(sparse)));
        let half = prefill.clone().dtype(DType::F16).causal(Align::TopLeft);
        calls.push((format!("d{dim}.f16.causal.gradients"), Backward::of(half), Path::Staged));
        let learned = prefill.bias([1, 16, 1, 4096]).sinks().alibi(Align::TopLeft).softcap(30.0);
        let learned = Backward::all(learned).unwrap();
        staged.push((format!("d{dim}.f32.all.gradients"), learned));
        let plain = || Attention::new(Shape::self_attention(1, 16, 1024, dim));
        let edges = Edges { count: 1 << 14, bias: true };
        for (form, call) in [
            ("cosine", plain().rotary(Rotary::new(dim, 1024)).cosine_scaled(1e-6)),
            ("general", plain().general(dim)),
            ("additive", plain().additive(1.0)),
            ("graph", plain().edges(edges)),
            ("local", plain().local_gaussian(64.0)),
            ("dropout", plain().dropout(0.1, 1)),
        ] {
            staged.push((format!("d{dim}.f32.{form}.gradients"), Backward::all(call).unwrap()));
        }
    }
    calls.extend(staged.into_iter().map(|(name, backward)| (name, backward, Path::Auto)));
    calls
}

/// What a layer's gradients need beside its attention's, of gapless rows whose channels are multiples of 4.
fn of_layers() -> [KernelSpec; 3] {
    let element = Element::F32X4;
    [
        KernelSpec::backward_project([element; 3]),
        KernelSpec::backward_matrix(element, element),
        KernelSpec::backward_columns(),
    ]
}

/// New rows of f16 into pages of a cache, in each storage that is not a copy of them; keys that are turned on the way.
fn of_caches() -> Vec<(String, KernelSpec)> {
    let read = Element { storage: Storage::F16, native_f16: true, ..Element::F32X4 };
    let of = |storage: Storage| Element { storage, ..Element::F32X4 };
    let append = |storage, rotary| KernelSpec::cache_append(read, of(storage), true, rotary);
    let quantised = Storage::ALL.iter().copied().filter(|storage| storage.dtype().is_none());
    let plain = quantised.map(|storage| (format!("cache.{storage}"), append(storage, None)));
    let turned = [Storage::Int8, Storage::E4m3Row]
        .map(|storage| (format!("cache.{storage}.turned"), append(storage, Some(false))));
    plain.chain(turned).collect()
}

/// The multiply-adds of an invocation that a kernel's loops must do: of a whole tile, loop by loop, or of a turn of
/// the hot loop and its turns in one of the loop around. Nothing where no such number is known.
fn wanted(spec: &KernelSpec) -> String {
    if !spec.masks.is_empty() {
        // A tested tile and one that needs no test lie in one loop.
        return "none".into();
    }
    match (spec.kernel, spec.tile) {
        (
            Kernel::FusedForwardTile | Kernel::SplitForwardTile | Kernel::SplitForwardGroup,
            Some(Tile::Block(tile)),
        ) => format!("tile {}", of_tiles(&tile, &[tile.dim_qk], &[tile.dim_v])),
        (Kernel::FusedForward, Some(Tile::Rows(tile))) => {
            format!("loop {}", tile.rows * (tile.dim_qk + tile.dim_v))
        }
        // Both products, and the sums of d_q, or of d_k and d_v.
        (Kernel::FusedBackwardRows, Some(Tile::Rows(tile))) => {
            format!("loop {}", tile.rows * (2 * tile.dim_qk + tile.dim_v))
        }
        (Kernel::FusedBackwardKeys, Some(Tile::Rows(tile))) => {
            format!("loop {}", tile.rows * 2 * (tile.dim_qk + tile.dim_v))
        }
        // Two products of the pairs, and sums of d_q and of what corrects it, unless these are another kernel's.
        (Kernel::FusedBackwardTileRows, Some(Tile::Block(tile))) => {
            let sums = if spec.has_element(Binding::O) { vec![tile.dim_qk; 2] } else { vec![] };
            format!("tile {}", of_tiles(&tile, &[tile.dim_qk, tile.dim_v], &sums))
        }
        (Kernel::FusedBackwardTileQueries, Some(Tile::Block(tile))) => {
            format!("tile {}", of_tiles(&tile, &[tile.dim_qk, tile.dim_v], &[tile.dim_qk]))
        }
        // The tile's loop stands in one over the heads of a group. Weights take one product.
        (Kernel::FusedBackwardTileKeys, Some(Tile::Block(tile))) => {
            let [d_k, d_v] = [Binding::O, Binding::DV].map(|of| spec.has_element(of));
            let products = if d_k { vec![tile.dim_qk, tile.dim_v] } else { vec![tile.dim_qk] };
            let sums = [(d_v, tile.dim_v), (d_k, tile.dim_qk)];
            let sums: Vec<u32> = sums.iter().filter_map(|(on, dim)| on.then_some(*dim)).collect();
            format!("tile-of-heads {}", of_tiles(&tile, &products, &sums))
        }
        (Kernel::StagedScore, _) => "loop 64,16".into(),
        (Kernel::StagedValue | Kernel::BackwardKeys, _) => "loop 64".into(),
        (Kernel::BackwardMatrix | Kernel::BackwardProject, _) => "loop 64".into(),
        _ => "none".into(),
    }
}

/// Multiply-adds of a tile's loops in kernels on tiles: products, then sums of as many columns, 32 keys at a time.
fn of_tiles(tile: &BlockTile, products: &[u32], sums: &[u32]) -> String {
    let all = |dim: u32| tile.rows * tile.keys * dim / tile.lanes();
    // In loops chunks stand around their depths and keys.
    let product = |dim: &u32| match tile.is_written() {
        true => all(*dim).to_string(),
        false => format!("{}x{}", all(*dim), dim.div_ceil(tile.depth)),
    };
    let chunks = if tile.is_written() { String::new() } else { format!("x{}", 32 / tile.keys_v) };
    let parts = tile.keys / 32;
    let sum = |dim: &u32| vec![format!("{}{chunks}", all(*dim) / parts); parts as usize].join(",");
    products.iter().map(product).chain(sums.iter().map(sum)).collect::<Vec<_>>().join(",")
}

/// `target/compilers/DEVICE/NAME.kernel.wgsl`, and a list of what each is and what is asked of it.
#[test]
#[ignore = "writes files for scripts/gpu-compilers"]
fn write_kernels() {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("target/compilers/kernels");
    let _ = std::fs::remove_dir_all(&folder);
    for device in DEVICES {
        let (caps, place) = (capabilities(device), folder.join(device.shim));
        std::fs::create_dir_all(&place).unwrap();
        let mut list = String::new();
        for (name, call, path) in calls() {
            let policy = Policy { path, matrix_units: path.is_matrix(), ..Policy::default() };
            // A path that a device has no units for.
            let Ok(plan) = Plan::new(&call.validate().unwrap(), &caps, &policy) else {
                assert!(path.is_matrix(), "{name} on {}", device.shim);
                continue;
            };
            for spec in plan.kernels() {
                let file = format!("{name}.{}", spec.kernel.name());
                std::fs::write(place.join(format!("{file}.wgsl")), compose(spec).text).unwrap();
                writeln!(list, "{file} {spec} {}", wanted(spec)).unwrap();
            }
        }
        for (name, backward, path) in gradients() {
            let problem = backward.validate().unwrap();
            let policy = Policy { path, ..Policy::default() };
            let plan = BackwardPlan::new(&problem, &caps, &policy).unwrap();
            let mut seen = Vec::new();
            for spec in plan.kernels() {
                seen.push(spec.kernel);
                // The second of a kind.
                let n = seen.iter().filter(|kernel| **kernel == spec.kernel).count();
                let again = if n > 1 { n.to_string() } else { String::new() };
                let file = format!("{name}.{}{again}", spec.kernel.name());
                std::fs::write(place.join(format!("{file}.wgsl")), compose(spec).text).unwrap();
                writeln!(list, "{file} {spec} {}", wanted(spec)).unwrap();
            }
        }
        for spec in of_layers() {
            let file = format!("layer.f32.gradients.{}", spec.kernel.name());
            std::fs::write(place.join(format!("{file}.wgsl")), compose(&spec).text).unwrap();
            writeln!(list, "{file} {spec} {}", wanted(&spec)).unwrap();
        }
        for (name, spec) in of_caches() {
            let file = format!("{name}.{}", spec.kernel.name());
            std::fs::write(place.join(format!("{file}.wgsl")), compose(&spec).text).unwrap();
            writeln!(list, "{file} {spec} {}", wanted(&spec)).unwrap();
        }
        std::fs::write(place.join("list"), list).unwrap();
    }
    println!("{}", folder.display());
}
