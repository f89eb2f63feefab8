//! What several test binaries share: the kernel variants, and the compiler as a library.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

pub mod gpu;
pub mod noise;
pub mod skip;

use std::collections::{BTreeMap, HashSet};

use heedful::feature::mask::{Dense, Masks, Neighborhood};
use heedful::feature::{self, Slot};
use heedful::kernel::{Composed, Element, KernelSpec, Width, compose};
use heedful::plan::MatrixUnit;
#[cfg(feature = "verify")]
use heedful::verify::cases::{Grid, grid};
use heedful::{
    Align, Attention, Backward, BackwardPlan, Blocks, Broadcast, Capabilities, DType, Edges, Inner,
    KvScales, Layout, Normalizer, Operand, Path, Plan, Policy, Relative, Rotary, Scalar, Shape,
    Storage, WeightsAt,
};
use naga::valid::{Capabilities as NagaCapabilities, ModuleInfo, ValidationFlags, Validator};

/// Every kernel variant that the planner makes of a systematic set of descriptors, by key.
///
/// Each feature meets each other feature: modifiers and masks run through all subsets, while storage
/// types, alignments and outputs rotate with coprime periods.
///
/// Masks that are not among them come with examples of their own, on every path.
pub fn variants() -> BTreeMap<String, KernelSpec> {
    let mut all = recorded_variants();
    let there: HashSet<Slot> = all.values().flat_map(KernelSpec::slots).collect();
    let base = Attention::new(Shape::self_attention(2, 4, 70, 16));
    for masks in Masks::examples(&base.shape) {
        if masks.iter().all(|mask| there.contains(&mask.slot())) {
            continue;
        }
        for (rows, path) in [
            (70, Path::Fused),
            (70, Path::FusedTile),
            (70, Path::Staged),
            (70, Path::Split),
            (5, Path::Split),
        ] {
            let shape = Shape { seq_q: rows, ..base.shape };
            let Ok(problem) = (Attention { shape, masks, ..base.clone() }).validate() else {
                continue;
            };
            let policy = Policy { path, ..Default::default() };
            let plan = Plan::new(&problem, &Capabilities::default(), &policy).expect("a plan");
            all.extend(plan.kernels().into_iter().map(|spec| (spec.to_string(), spec.clone())));
        }
    }
    on_every_path(beside_these(&base), &mut all);
    #[cfg(feature = "verify")]
    on_every_path(of_new_scores(&all), &mut all);
    all
}

fn on_every_path(calls: Vec<heedful::Problem>, all: &mut BTreeMap<String, KernelSpec>) {
    for problem in calls {
        for path in [Path::Fused, Path::FusedTile, Path::Staged, Path::Split] {
            let policy = Policy { path, ..Default::default() };
            // Not every path reads every storage.
            let Ok(plan) = Plan::new(&problem, &Capabilities::default(), &policy) else { continue };
            all.extend(plan.kernels().into_iter().map(|spec| (spec.to_string(), spec.clone())));
        }
    }
}

/// Keys in small floating-point numbers, with scales of their own and of the call; biases in 16 bits; dropout.
fn beside_these(base: &Attention) -> Vec<heedful::Problem> {
    let few = Attention { shape: Shape { seq_q: 5, ..base.shape }, ..base.clone() };
    let mut calls = Vec::new();
    for storage in Storage::ALL.iter().copied() {
        calls.push(few.clone().kv_storage(storage));
        if storage.dtype().is_none() {
            calls.push(few.clone().kv_storage(storage).kv_scales(KvScales::Head));
        }
    }
    for dtype in [DType::F16, DType::Bf16] {
        calls.push(few.clone().bias([2, 1, 5, 70]).bias_dtype(dtype));
    }
    calls.extend([few.dropout(0.1, 1), base.clone().causal(Align::TopLeft).dropout(0.1, 1)]);
    calls.iter().map(|call| call.validate().expect("a valid call")).collect()
}

/// The quick grid's calls with score modifiers that are in none of these.
#[cfg(feature = "verify")]
fn of_new_scores(all: &BTreeMap<String, KernelSpec>) -> Vec<heedful::Problem> {
    let there: HashSet<Slot> = all.values().flat_map(KernelSpec::slots).collect();
    let new = feature::slots().filter(|slot| slot.kind == "score" && !there.contains(slot));
    let new: HashSet<&Slot> = new.collect();
    if new.is_empty() {
        return Vec::new();
    }
    let cases = grid(Grid::Quick).expect("distinct names").into_iter();
    let calls = cases.filter_map(|case| case.attention.validate().ok());
    calls.filter(|call| call.scores().iter().any(|score| new.contains(&score.slot()))).collect()
}

/// Those whose text is on record.
pub fn recorded_variants() -> BTreeMap<String, KernelSpec> {
    let aligns = [Align::TopLeft, Align::BottomRight, Align::Offset(3), Align::PerBatch];
    let captures = [
        None,
        Some(WeightsAt::RawScores),
        Some(WeightsAt::AfterSoftcap),
        Some(WeightsAt::AfterBias),
        Some(WeightsAt::Probabilities),
    ];
    let normalizers = [
        Normalizer::Softmax,
        Normalizer::Softmax,
        Normalizer::Softmax,
        Normalizer::Relu { power: 2, divisor: Scalar(3.0) },
        Normalizer::Sigmoid { bias: Scalar(-1.0) },
        Normalizer::Hard,
        Normalizer::Sample { seed: 1 },
        Normalizer::Sparsemax,
        Normalizer::Entmax15,
        Normalizer::Monotonic,
        Normalizer::Raw,
    ];
    let dtypes = [DType::F32, DType::F16, DType::Bf16];
    let mut all = BTreeMap::new();
    for i in 0..1024_usize {
        let on = |bit: usize| i >> bit & 1 == 1;
        // 65: no multiple of 4; 72: no multiple of what eight invocations fetch; 160: one row each.
        let dim = [64, 65, 16, 72, 160, 3, 64][i % 7];
        let places = i % 11;
        // The points of a grid are rows and keys.
        let (rows, keys) = if places == 4 { (70, 70) } else { (70, 130) };
        let mut a = Attention::new(Shape { seq_q: rows, ..Shape::self_attention(2, 4, keys, dim) })
            .dtype(dtypes[i % 3]);
        if on(0) {
            a = a.softcap(20.0);
        }
        if on(1) {
            a = a.bias([1, 4, rows, keys]);
        }
        if on(2) {
            a = a.alibi(aligns[i / 3 % 4]);
        }
        if on(3) {
            a = a.causal(aligns[i % 4]);
        }
        if on(4) {
            a = a.window(Some(9), None, aligns[i % 4]);
        }
        if on(5) {
            a = a.mask([2, 1, 1, keys]);
        }
        a.kv_lengths = on(6);
        a.q_lengths = on(7);
        a.sinks = on(8);
        a.lse = on(9);
        a.weights = captures[i % 5];
        // Other forms meet every mask and modifier in turn.
        a.normalizer = normalizers[(i / 5) % normalizers.len()];
        if a.normalizer != Normalizer::Softmax {
            (a.sinks, a.lse) = (false, false);
        }
        match i % 9 {
            3 => a = a.additive(0.5),
            5 => a = a.additive_leaky(0.2),
            6 if i % 2 == 0 => a = a.cosine_scaled(1e-6),
            6 => a = a.cosine(1e-6),
            7 => a = a.general(20),
            _ => {}
        }
        if i % 4 == 1 && dim > 3 {
            let ids = i % 8 == 1;
            let turned = Rotary { interleaved: i % 3 == 0, ids, ..Rotary::new(16, 200) };
            a = a.rotary(Rotary { keys_from: if ids { 60 } else { 0 }, ..turned });
        }
        if i % 6 == 2 {
            a = a.relative(Relative { left: 5, right: 9, offset: 1 });
        }
        if places == 1 {
            a = a.edges(Edges { count: 200, bias: i % 2 == 0 });
        }
        if places == 2 {
            a = if a.normalizer.takes_one() { a.local(9.0) } else { a.local_gaussian(9.0) };
        }
        if places == 3 && a.masks.causal.is_none() && a.masks.window.is_none() {
            a = a.dilated(3, aligns[i % 4]).chunked(40, aligns[i % 4]);
        }
        if places == 4 {
            let image = Neighborhood::image(7, 10, 3);
            a = a.neighborhood(if i % 2 == 0 { image } else { Neighborhood::line(70, 9) });
        }
        if i % 7 < 2 {
            a = a.segments();
        }
        if i % 8 > 5 && a.masks.edges.is_none() {
            a = a.blocks(Blocks::new(32, 16));
        }
        let caps = Capabilities { shader_f16: i % 11 < 5, ..Default::default() };
        // A small binding limit splits keys, which gives the variants that carry sums.
        let whole = a.rotary.is_none() && a.cosine.is_none() && a.general.is_none();
        let whole = whole && a.normalizer != Normalizer::Monotonic;
        let limit = if i % 13 == 0 && whole { 48 << 10 } else { caps.max_binding_bytes };
        let caps = Capabilities { max_binding_bytes: limit, ..caps };
        let mut add = |a: &Attention, caps: &Capabilities, path: Path| {
            let problem = a.validate().expect("a valid descriptor");
            let policy = Policy { path, ..Default::default() };
            let plan = Plan::new(&problem, caps, &policy).expect("a plan");
            all.extend(plan.kernels().into_iter().map(|spec| (spec.to_string(), spec.clone())));
        };
        add(&a, &caps, Path::Staged);
        if i % 19 == 0 {
            let packed = Attention {
                weights: None,
                kv_lengths: false,
                q_lengths: false,
                masks: unpacked(a.masks),
                rotary: None,
                cosine: None,
                general: None,
                ..a.clone()
            };
            let wide =
                Capabilities { subgroups: true, subgroup_size: [8, 8], ..Default::default() };
            if packed.normalizer != Normalizer::Monotonic {
                add(&packed.clone().packed(100, 150), &wide, Path::Staged);
            }
            if !packed.normalizer.needs_row() {
                add(&packed.packed(100, 150), &wide, Path::Fused);
            }
        }
        if !a.normalizer.needs_row() && !a.normalizer.takes_one() {
            let caps = Capabilities { max_binding_bytes: 1 << 27, ..caps.clone() };
            add(&few_rows(&a, i), &caps, Path::Split);
            let sums = !a.inner.is_sum() && a.masks.edges.is_none() && a.masks.blocks.is_none();
            if sums && a.shape.seq_q > heedful::plan::MAX_ROWS {
                let many = Attention { weights: None, ..a.clone() };
                add(&many, &caps, Path::Split);
                if i % 5 == 0 {
                    // Heads that share k and v are rows of one tile.
                    let shape = Shape { heads_kv: 1, ..many.shape };
                    add(&Attention { shape, ..many }, &caps, Path::Split);
                }
            }
        }
        let probabilities = (a.weights == captures[4]).then_some(WeightsAt::Probabilities);
        let learned = Attention { weights: probabilities, ..a.clone() };
        let unwritten = Attention { weights: None, ..a };
        let classes = ["cpu", "discretegpu"];
        let fused = Capabilities {
            device_type: classes[i % 2].into(),
            subgroups: i % 5 < 3,
            subgroup_size: [4 << (i % 3), 32],
            max_binding_bytes: Capabilities::default().max_binding_bytes,
            ..caps
        };
        let one_pass = !unwritten.normalizer.needs_row();
        let is_sum = one_pass && !unwritten.normalizer.takes_one() && !unwritten.inner.is_sum();
        if is_sum && unwritten.masks.edges.is_none() && i % 3 == 0 {
            // Written out, and with more than a default device's workgroup memory.
            let names = ["NVIDIA", "another"];
            let tile = Capabilities {
                name: names[i / 2 % 2].into(),
                max_workgroup_bytes: [16 << 10, 32 << 10][i / 4 % 2],
                ..fused.clone()
            };
            add(&unwritten, &tile, Path::FusedTile);
        }
        if one_pass {
            add(&unwritten, &fused, Path::Fused);
        }
        gradients(&learned, i, &fused, &mut all);
        if i % 7 == 3 {
            on_matrix_units(&unwritten, i, &mut all);
        }
    }
    for spec in beside() {
        all.insert(spec.to_string(), spec);
    }
    for width in [Width::Single, Width::Vec4] {
        let e = Element { width, ..Element::F32X4 };
        let spec = KernelSpec::matmul(e, e, e);
        all.insert(spec.to_string(), spec);
        for added in [false, true] {
            let spec = KernelSpec::project([e, e, e], added, None);
            all.insert(spec.to_string(), spec);
        }
        for spec in [KernelSpec::backward_project([e, e, e]), KernelSpec::backward_matrix(e, e)] {
            all.insert(spec.to_string(), spec);
        }
    }
    let columns = KernelSpec::backward_columns();
    all.insert(columns.to_string(), columns);
    let average = KernelSpec::average();
    all.insert(average.to_string(), average);
    all
}

/// The variants that a browser can be given, which has no cooperative matrices.
pub fn browser_variants() -> BTreeMap<String, KernelSpec> {
    let mut all = variants();
    all.retain(|_, spec| spec.matrix_tile().is_none());
    all
}

/// Slot files that none of these need.
pub fn missing_slots<'a>(specs: impl Iterator<Item = &'a KernelSpec>) -> Vec<String> {
    let there: HashSet<Slot> = specs.flat_map(KernelSpec::slots).collect();
    feature::slots().filter(|slot| !there.contains(slot)).map(Slot::path).collect()
}

/// The kernels for gradients of a call, where it has them and they are served.
fn gradients(a: &Attention, i: usize, caps: &Capabilities, all: &mut BTreeMap<String, KernelSpec>) {
    let optional = [
        Operand::HeadScale,
        Operand::ScoreMatrix,
        Operand::ScoreV,
        Operand::EdgeBias,
        Operand::Centers,
        Operand::Bias,
        Operand::Relative,
        Operand::AlibiSlopes,
        Operand::Sinks,
    ];
    let problem = a.validate().expect("a valid descriptor");
    let there = optional.into_iter().filter(|x| problem.elements(*x).is_some());
    let mut backward = there.take(i % 5).fold(Backward::of(a.clone()), Backward::with);
    if a.lse && i.is_multiple_of(2) {
        backward = backward.from_lse();
    }
    if a.weights.is_some() {
        backward = backward.from_weights();
    }
    let Ok(problem) = backward.validate() else { return };
    let tile = i.is_multiple_of(2).then_some(Path::FusedTile);
    for path in [Path::Fused, Path::Staged].into_iter().chain(tile) {
        if let Ok(plan) = BackwardPlan::new(&problem, caps, &Policy { path, ..Policy::default() }) {
            all.extend(plan.kernels().into_iter().map(|spec| (spec.to_string(), spec.clone())));
        }
    }
}

/// The variants for matrices of 8 and of 16, for every subgroup size that devices with them have, where they can serve.
fn on_matrix_units(a: &Attention, i: usize, all: &mut BTreeMap<String, KernelSpec>) {
    let dtype = [DType::F16, DType::Bf16][i % 2];
    let (edge, sizes, backend, class) = [
        (8, [8, 8], "vulkan", "cpu"),
        (8, [4, 64], "metal", "integratedgpu"),
        (16, [32, 32], "vulkan", "discretegpu"),
        (16, [32, 64], "vulkan", "discretegpu"),
    ][i / 7 % 4];
    let caps = matrix_caps(edge, sizes, backend, class);
    for path in [Path::FusedMatrix, Path::StagedMatrix] {
        let problem = a.clone().dtype(dtype).validate().expect("a valid descriptor");
        let policy = Policy { path, ..Default::default() };
        // Additive scores, unbounded weights and the like are refused.
        if let Ok(plan) = Plan::new(&problem, &caps, &policy) {
            all.extend(plan.kernels().into_iter().map(|spec| (spec.to_string(), spec.clone())));
        }
    }
    for added in [false, true] {
        let e = Element::F32X4;
        let spec = KernelSpec::project([e, e, e], added, heedful::plan::tuning::square_tile(&caps));
        all.insert(spec.to_string(), spec);
    }
}

/// A device with cubes of `edge` that multiply f16 and sum in f32.
pub fn matrix_caps(edge: u32, sizes: [u32; 2], backend: &str, class: &str) -> Capabilities {
    let (operands, sums) = (DType::F16, DType::F32);
    Capabilities {
        backend: backend.into(),
        device_type: class.into(),
        shader_f16: true,
        subgroups: true,
        subgroup_size: sizes,
        max_workgroup_bytes: if edge == 16 { 48 << 10 } else { 32 << 10 },
        max_invocations: 1024,
        matrix_units: vec![MatrixUnit { size: [edge; 3], operands, sums }],
        ..Capabilities::default()
    }
}

/// A kernel as the compiler sees it.
pub struct Checked {
    pub composed: Composed,
    pub module: naga::Module,
    pub info: ModuleInfo,
}

/// Parses and validates; a failure names the shader file and line.
pub fn check(spec: &KernelSpec) -> Checked {
    let composed = compose(spec);
    let module = naga::front::wgsl::parse_str(&composed.text).unwrap_or_else(|error| {
        let line = error.location(&composed.text).map_or(0, |at| at.line_number);
        let (path, line) = composed.lines.locate(line);
        panic!("{spec}: {path}:{line}: {}", error.emit_to_string(&composed.text));
    });
    let capabilities = NagaCapabilities::SHADER_FLOAT16
        | NagaCapabilities::SUBGROUP
        | NagaCapabilities::COOPERATIVE_MATRIX;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{spec}: {}", error.emit_to_string(&composed.text)));
    Checked { composed, module, info }
}

/// The masks that packed sequences may have.
fn unpacked(masks: Masks) -> Masks {
    let (segments, blocks, edges) = (None, None, None);
    Masks { segments, blocks, edges, local: None, neighborhood: None, ..masks }
}

/// Few rows against a cache, with the features of `a` that the split path serves.
fn few_rows(a: &Attention, i: usize) -> Attention {
    let seq_kv = if a.masks.neighborhood.is_some() { 5 } else { a.shape.seq_kv };
    let keys = [1, 1, 1, seq_kv];
    let few = Attention {
        shape: Shape { seq_q: 5, seq_kv, ..a.shape },
        weights: None,
        masks: Masks {
            dense: a.masks.dense.map(|_| Dense(Broadcast(keys))),
            neighborhood: a.masks.neighborhood.map(|_| Neighborhood::line(5, 3)),
            edges: None,
            blocks: None,
            ..a.masks
        },
        bias: a.bias.map(|_| Broadcast(keys)),
        inner: Inner::Product,
        rotary: None,
        cosine: None,
        general: None,
        kv_storage: Some(Storage::ALL[i % 5]),
        layout_k: Layout::Bhsd,
        layout_v: Layout::Bhsd,
        ..a.clone()
    };
    if i.is_multiple_of(3) { few.paged(9, 16, seq_kv.div_ceil(16)) } else { few }
}

/// The kernels around a cache, and the merge of partial results.
fn beside() -> Vec<KernelSpec> {
    let mut specs = vec![KernelSpec::cache_advance(), KernelSpec::cache_copy()];
    for dtype in DType::ALL {
        for native_f16 in [false, true].into_iter().take(if dtype == DType::F16 { 2 } else { 1 }) {
            let read = Element { storage: dtype.into(), native_f16, width: Width::Single };
            for storage in Storage::ALL.iter().copied() {
                let native_f16 = native_f16 && storage == Storage::F16;
                for width in [Width::Single, Width::Vec4] {
                    let write = Element { storage, native_f16, width };
                    for rotary in [None, Some(false), Some(true)] {
                        specs.push(KernelSpec::cache_append(
                            read,
                            write,
                            width == Width::Vec4,
                            rotary,
                        ));
                    }
                }
            }
            for width in [Width::Single, Width::Vec4] {
                let element = Element { width, ..read };
                specs.push(KernelSpec::merge_states(element, element));
            }
        }
    }
    specs
}
