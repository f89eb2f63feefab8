//! The kernel that measures matrix units goes through the compiler on any machine: it panics on some forms of a store.

use heedful::bench::{MATRIX_FORMS, matrix_text};
use heedful::kernel::MatrixTile;
use naga::back::{msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

fn tile(edge: u32) -> MatrixTile {
    MatrixTile {
        edge,
        team: 32,
        teams: 4,
        blocks: 1,
        keys: 16,
        dim_qk: 64,
        dim_v: 64,
        vectors: true,
        unrolled: true,
    }
}

#[test]
fn every_form_compiles_for_vulkan_and_metal() {
    for (edge, form) in [8, 16].into_iter().flat_map(|edge| MATRIX_FORMS.map(|form| (edge, form))) {
        let text = matrix_text(&tile(edge), form);
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        let allowed = Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX;
        let info = Validator::new(ValidationFlags::all(), allowed)
            .validate(&module)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        let options = spv::Options { lang_version: (1, 3), ..Default::default() };
        let words = spv::write_vec(&module, &info, &options, None);
        assert!(words.is_ok_and(|words| words.len() > 100), "{text}");
        let options = msl::Options { lang_version: (2, 4), ..Default::default() };
        let written = msl::write_string(&module, &info, &options, &Default::default());
        assert!(written.is_ok_and(|(metal, _)| metal.contains("simdgroup")), "{text}");
    }
}
