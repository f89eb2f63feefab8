//! Host and GPU agree on the parameter block: offsets by reflection, values by an echo on the GPU.

mod common;

use std::collections::HashSet;

use bytemuck::Zeroable;
use heedful::kernel::{Element, KernelSpec, Params};

#[test]
fn params_offsets_match_the_compilers_view() {
    let spec = KernelSpec::matmul(Element::F32X4, Element::F32X4, Element::F32X4);
    let module = common::check(&spec).module;
    let (_, params) = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some("Params"))
        .expect("the parameter struct");
    let naga::TypeInner::Struct { members, span } = &params.inner else {
        panic!("Params is no struct");
    };
    assert_eq!(*span as usize, size_of::<Params>().next_multiple_of(4));
    let seen: Vec<(String, String, usize)> = members
        .iter()
        .map(|member| {
            let naga::TypeInner::Scalar(scalar) = module.types[member.ty].inner else {
                panic!("{:?} is no scalar", member.name);
            };
            let kind = match scalar.kind {
                naga::ScalarKind::Uint => "u32",
                naga::ScalarKind::Sint => "i32",
                _ => "f32",
            };
            (member.name.clone().unwrap_or_default(), kind.into(), member.offset as usize)
        })
        .collect();
    let fields = Params::fields().into_iter().enumerate();
    let wanted: Vec<(String, String, usize)> =
        fields.map(|(i, (name, kind))| (name, kind.into(), 4 * i)).collect();
    assert_eq!(seen, wanted);
    let names: HashSet<&String> = wanted.iter().map(|(name, _, _)| name).collect();
    assert_eq!(names.len(), wanted.len(), "a parameter is declared twice");
}

#[test]
fn params_are_echoed_by_the_gpu() {
    let Some(engine) = common::gpu::engine("params_are_echoed_by_the_gpu") else { return };
    let mut params = Params::zeroed();
    for (i, word) in bytemuck::cast_slice_mut::<u8, u32>(bytemuck::bytes_of_mut(&mut params))
        .iter_mut()
        .enumerate()
    {
        // Small floats and integers alike: no pattern is NaN, so no driver may change it.
        *word = 0x3f80_0000 + (i as u32 + 1) * 0x1234;
    }
    let echoed = common::gpu::echo(&engine, bytemuck::bytes_of(&params), &echo_shader());
    assert_eq!(bytemuck::cast_slice::<u8, u32>(&echoed[..size_of::<Params>()]), {
        bytemuck::cast_slice::<u8, u32>(bytemuck::bytes_of(&params))
    });
}

/// A shader that copies every member, by name, to its index.
fn echo_shader() -> String {
    let mut text = String::from(
        "@group(0) @binding(0) var<uniform> params: Params;\n\
         @group(0) @binding(1) var<storage, read_write> out: array<u32>;\n",
    );
    text += Params::wgsl();
    text += "@compute @workgroup_size(1) fn main() {\n";
    for (i, (name, _)) in Params::fields().iter().enumerate() {
        text += &format!("  out[{i}] = bitcast<u32>(params.{name});\n");
    }
    text + "}\n"
}
