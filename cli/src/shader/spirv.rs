//! From WGSL to SPIR-V, by the compiler that wgpu has inside.

use heedful::Error;
use heedful::kernel::{KernelSpec, compose};
use naga::back::spv;
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

/// The SPIR-V of a kernel, as bytes.
///
/// # Errors
/// Internal, with the shader file and line: every kernel that ships translates.
pub(super) fn translate(spec: &KernelSpec) -> Result<Vec<u8>, Error> {
    let composed = compose(spec);
    let wrong = |message: String| Error::internal(format!("translating {spec}"), message);
    let module = naga::front::wgsl::parse_str(&composed.text).map_err(|error| {
        let line = error.location(&composed.text).map_or(0, |at| at.line_number);
        let (path, line) = composed.lines.locate(line);
        wrong(format!("{path}:{line}: {error}"))
    })?;
    let capabilities =
        Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|error| wrong(error.emit_to_string(&composed.text)))?;
    let pipeline = spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: "main".into(),
    };
    // Cooperative matrices need the Vulkan memory model.
    let lang_version = if spec.matrix_tile().is_some() { (1, 6) } else { (1, 3) };
    let options = spv::Options { lang_version, ..Default::default() };
    let words = spv::write_vec(&module, &info, &options, Some(&pipeline))
        .map_err(|error| wrong(error.to_string()))?;
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}
