//! Every composed variant is validated and translated to SPIR-V, MSL, HLSL and GLSL, without a GPU.

mod common;

use std::collections::BTreeMap;

use common::{Checked, browser_variants, check, missing_slots, recorded_variants, variants};
use heedful::kernel::{
    Access, Binding, BindingKind, Build, Composed, Kernel, KernelSpec, Resources,
};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, Layouter};
use rayon::prelude::*;

const ENTRY: &str = "main";

#[test]
fn every_variant_validates_and_translates() {
    let variants = variants();
    assert!(variants.len() > 500, "only {} variants", variants.len());
    let shared: Vec<KernelSpec> = variants.values().step_by(7).map(sharing).collect();
    let all: Vec<&KernelSpec> = variants.values().chain(&shared).collect();
    all.par_iter().for_each(|spec| translate(spec));
    println!("{} variants validated and translated", all.len());
}

fn translate(spec: &KernelSpec) {
    let checked = check(spec);
    to_spirv(spec, &checked);
    // Matrices of 16 and tiles of vectors are for Vulkan, matrices of 8 for Vulkan and Metal, none for DX12 and OpenGL.
    if spec.matrix_tile().is_none_or(|tile| !tile.vectors) {
        to_msl(spec, &checked);
    }
    if spec.matrix_tile().is_some() {
        return;
    }
    to_hlsl(spec, &checked);
    // OpenGL has neither f16 nor subgroups in wgpu.
    if !spec.needs_f16() && spec.kernel != Kernel::FusedForwardSubgroup {
        to_glsl(spec, &checked);
    }
}

/// The form for tensors that all lie in one buffer, and for devices with few storage buffers.
fn sharing(spec: &KernelSpec) -> KernelSpec {
    let all = spec.bindings();
    let read = all.iter().filter(|kind| kind.access == Access::Read).map(|kind| kind.binding);
    // Parameters are a uniform, tables lie in a buffer of the engine's.
    let shared = read.filter(|binding| ![Binding::Params, Binding::Aux].contains(binding));
    let writes = all.contains(&BindingKind { binding: Binding::Aux, access: Access::ReadWrite });
    let small_tables = spec.needs_aux() && !writes;
    let build = Build { shared: shared.collect(), small_tables, ..spec.build.clone() };
    KernelSpec { build, ..spec.clone() }
}

fn to_spirv(spec: &KernelSpec, checked: &Checked) {
    let pipeline = spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: ENTRY.into(),
    };
    let lang_version = if spec.matrix_tile().is_some() { (1, 6) } else { (1, 3) };
    let options = spv::Options { lang_version, ..Default::default() };
    let words = spv::write_vec(&checked.module, &checked.info, &options, Some(&pipeline))
        .unwrap_or_else(|e| panic!("{spec}: SPIR-V: {e}"));
    assert!(words.len() > 100);
}

fn to_msl(spec: &KernelSpec, checked: &Checked) {
    let mut resources = msl::EntryPointResources::default();
    for (slot, bound) in spec.bindings().iter().enumerate() {
        let target = msl::BindTarget { buffer: Some(slot as u8), ..Default::default() };
        let at = naga::ResourceBinding { group: 0, binding: bound.binding.number() };
        resources.resources.insert(at, target);
    }
    resources.sizes_buffer = Some(30);
    let options = msl::Options {
        lang_version: if spec.matrix_tile().is_some() { (3, 1) } else { (2, 4) },
        per_entry_point_map: [(ENTRY.to_owned(), resources)].into_iter().collect(),
        fake_missing_bindings: false,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions::default();
    let (text, info) = msl::write_string(&checked.module, &checked.info, &options, &pipeline)
        .unwrap_or_else(|e| panic!("{spec}: MSL: {e}"));
    assert!(info.entry_point_names.iter().all(Result::is_ok), "{spec}: MSL entry point");
    assert!(text.contains("kernel void"));
}

fn to_hlsl(spec: &KernelSpec, checked: &Checked) {
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..Default::default() };
    let pipeline = hlsl::PipelineOptions::default();
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(&checked.module, &checked.info, None)
        .unwrap_or_else(|e| panic!("{spec}: HLSL: {e}"));
    let invocations = Resources::of(spec).invocations;
    assert!(text.contains(&format!("numthreads({invocations}, 1, 1)")));
}

fn to_glsl(spec: &KernelSpec, checked: &Checked) {
    let options = glsl::Options { version: glsl::Version::new_gles(310), ..Default::default() };
    let pipeline = glsl::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: ENTRY.into(),
        multiview: None,
    };
    let mut text = String::new();
    glsl::Writer::new(
        &mut text,
        &checked.module,
        &checked.info,
        &options,
        &pipeline,
        BoundsCheckPolicies::default(),
    )
    .and_then(|mut writer| writer.write())
    .unwrap_or_else(|e| panic!("{spec}: GLSL: {e}"));
    let invocations = Resources::of(spec).invocations;
    assert!(text.contains(&format!("local_size_x = {invocations}")));
}

#[test]
fn resources_match_the_compilers_view() {
    let variants = variants();
    let shared: Vec<KernelSpec> = variants.values().step_by(7).map(sharing).collect();
    let all: Vec<&KernelSpec> = variants.values().chain(&shared).collect();
    all.par_iter().for_each(|spec| compare_resources(spec));
}

fn compare_resources(spec: &KernelSpec) {
    let Checked { module, info, .. } = check(spec);
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).expect("a valid module has layouts");
    let entry = info.get_entry_point(0);
    let used: Vec<_> =
        module.global_variables.iter().filter(|(handle, _)| !entry[*handle].is_empty()).collect();
    let workgroup_bytes: u32 = used
        .iter()
        .filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup)
        .map(|(_, variable)| layouter[variable.ty].size)
        .sum();
    let needs = Resources::of(spec);
    assert_eq!(workgroup_bytes, needs.workgroup_bytes, "{spec}");
    let invocations: u32 = module.entry_points[0].workgroup_size.iter().product();
    assert_eq!(invocations, needs.invocations, "{spec}");

    let declared: Vec<(u32, bool)> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let writable = match variable.space {
                naga::AddressSpace::Storage { access } => {
                    access.contains(naga::StorageAccess::STORE)
                }
                naga::AddressSpace::Uniform => false,
                _ => return None,
            };
            Some((variable.binding.as_ref()?.binding, writable))
        })
        .collect();
    let expected: Vec<(u32, bool)> = spec
        .bindings()
        .iter()
        .map(|b| (b.binding.number(), b.access == Access::ReadWrite))
        .collect();
    assert_eq!(declared, expected, "{spec}");
    let most = match (spec.matrix_tile(), spec.block_tile()) {
        (Some(_), _) => 48 << 10,
        (_, Some(_)) => (16 << 10) + 16,
        _ => 16 << 10,
    };
    assert!(needs.storage_buffers <= 8 && needs.workgroup_bytes <= most, "{spec}");
    assert_eq!(spec.bindings()[0].binding, Binding::Params);
}

#[test]
fn compiler_errors_are_located_in_the_file_a_person_edits() {
    let variants = variants();
    let spec = variants
        .values()
        .find(|spec| spec.to_string().contains("causal"))
        .expect("a causal variant");
    let composed = heedful::kernel::compose(spec);
    let line = composed.text.lines().position(|line| line.starts_with("fn mask_causal("));
    let line = line.expect("the causal slot is composed") as u32 + 1;
    assert_eq!(composed.lines.locate(line), ("slot/mask/causal.wgsl", 2));
    assert_eq!(composed.lines.locate(1).0, "generated/prelude");
}

/// Writes every variant, as a browser's compiler is to read it, for `tests/tint.sh`.
#[test]
#[ignore = "writes files for tests/tint.sh"]
fn write_variants() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tint/variants");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for the variants");
    let variants = browser_variants();
    let shared: Vec<KernelSpec> = variants.values().step_by(7).map(sharing).collect();
    for (i, spec) in variants.values().chain(&shared).enumerate() {
        let composed = heedful::kernel::compose_for(spec, heedful::kernel::Compiler::Browser);
        std::fs::write(folder.join(format!("{i:04}.wgsl")), composed.text).expect("a written file");
    }
    println!("{}", folder.display());
}

/// What no variant holds is read by no compiler, neither by those of naga's outputs nor by Tint.
#[test]
fn every_slot_is_in_a_variant() {
    assert_eq!(missing_slots(variants().values()), [""; 0], "in no variant");
    let for_tint = browser_variants();
    assert_eq!(missing_slots(for_tint.values()), [""; 0], "in no variant that Tint reads");
    // What a spec says that it holds is in the text.
    for spec in for_tint.values().step_by(7) {
        let text = heedful::kernel::compose_for(spec, heedful::kernel::Compiler::Browser).text;
        assert!(spec.slots().iter().all(|slot| text.contains(slot.forward())), "{spec}");
    }
}

#[test]
fn composing_is_deterministic() {
    for spec in variants().values().take(50) {
        assert_eq!(heedful::kernel::compose(spec).text, heedful::kernel::compose(spec).text);
    }
}

/// Every kernel's text, in one number each: what changed when a schedule, a slot or the composer was edited is seen in
/// review. The parameter block is left out, which is generated.
#[test]
fn kernels_are_as_recorded() {
    let mut found = BTreeMap::<&str, (usize, u64)>::new();
    for spec in recorded_variants().values() {
        let (count, digest) = found.entry(spec.kernel.name()).or_insert((0, FNV_BASIS));
        *count += 1;
        *digest = digest_of(*digest, &heedful::kernel::compose(spec));
    }
    for kernel in Kernel::ALL.iter().filter(|kernel| **kernel != Kernel::OwnFunctions) {
        assert!(found.contains_key(kernel.name()), "{} is in no variant", kernel.name());
    }
    let line =
        |(name, (count, digest)): (&&str, &(usize, u64))| format!("{name} {count} {digest:016x}\n");
    let found: String = found.iter().map(line).collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kernels.txt");
    if std::env::var_os("HEEDFUL_BLESS").is_some() {
        std::fs::write(&path, &found).expect("a written file");
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<&str> =
        found.lines().filter(|line| !recorded.lines().any(|old| old == *line)).collect();
    assert_eq!(
        found, recorded,
        "other kernels than recorded: {changed:#?}\nif that is meant: HEEDFUL_BLESS=1 cargo test --test compose"
    );
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a over the lines that are not the parameter block's.
fn digest_of(start: u64, composed: &Composed) -> u64 {
    let lines = (1..).zip(composed.text.lines());
    let own = lines.filter(|(n, _)| !composed.lines.locate(*n).0.starts_with("generated/params"));
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    own.flat_map(|(_, line)| line.bytes().chain([b'\n'])).fold(start, step)
}
