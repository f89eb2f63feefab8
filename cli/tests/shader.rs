//! `heedful shader`: the kernels of a call for a device that need not be there.

mod common;

use common::{NO_ADAPTER, Place, heedful_with};

const CALL: &str = r#"{"shape":"1x8/2x4096x64","masks":{"causal":{"align":"top_left"}}}"#;

/// The plan, which stands above the kernels.
fn top(said: &str) -> String {
    said.lines().take(12).collect::<Vec<_>>().join("\n")
}

/// Runs without any adapter: nothing here may look for one.
fn shader(place: &Place, options: &str) -> common::Finished {
    heedful_with(&place.path(""), &format!("shader {options}"), &[NO_ADAPTER])
}

#[test]
fn every_described_device_gets_its_kernels() {
    let place = Place::new();
    place.write("call.json", CALL);
    for (device, words) in [
        ("default", &["default limits", "fused_forward_tile/"][..]),
        ("nvidia", &["NVIDIA", "fused_forward_tile/"]),
        ("amd", &["AMD", "fused_forward_tile/"]),
        ("intel", &["Intel", "fused_forward_tile/"]),
        ("apple", &["Apple", "(metal)", "fused_forward_tile/"]),
        ("cpu", &["llvmpipe", "kernel 1 of 1"]),
    ] {
        let said =
            shader(&place, &format!("--call call.json --device {device}")).succeeded().stdout();
        for word in words.iter().chain(&["kernel 1 of 1", "@compute", "fn mask_causal("]) {
            assert!(said.contains(word), "{device} lacks {word}: {}", top(&said));
        }
    }
}

#[test]
fn a_path_has_all_its_kernels() {
    let place = Place::new();
    let text =
        |options: &str| shader(&place, &format!("--call {CALL} {options}")).succeeded().stdout();
    let staged = text("--path staged");
    for kernel in ["staged_score", "staged_normalize", "staged_value"] {
        assert_eq!(
            staged.matches(&format!("\n// {kernel}/")).count(),
            1,
            "{kernel}: {}",
            top(&staged)
        );
    }
    assert_eq!(staged.matches("@compute").count(), 3, "{}", top(&staged));
    let gradients = text("--gradients");
    assert!(gradients.contains("// backward_row/") && gradients.contains("// backward_keys/"));
    let units = r#"--call {"shape":"1x8x512x64","dtype":"f16"} --path fused-matrix"#;
    let said = shader(&place, &format!("{units} --device nvidia")).succeeded().stdout();
    assert!(said.contains("enable wgpu_cooperative_matrix;"), "{}", top(&said));
    shader(&place, &format!("{units} --device intel"))
        .refused(2, &["fused_forward_matrix", "cubes of 8 or 16"]);
}

#[test]
fn files_hold_what_is_printed_and_its_spirv() {
    let place = Place::new();
    shader(&place, &format!("--call {CALL} --out one.wgsl --spirv one.spv")).succeeded();
    let wgsl = std::fs::read_to_string(place.path("one.wgsl")).expect("the text");
    let printed = shader(&place, &format!("--call {CALL}")).succeeded().stdout();
    assert!(printed.contains(&wgsl) && wgsl.contains("@compute"), "{}", top(&printed));
    let said = shader(&place, &format!("--call {CALL} --path staged --spirv all.spv")).succeeded();
    let names = ["all-1-staged_score.spv", "all-2-staged_normalize.spv", "all-3-staged_value.spv"];
    for name in ["one.spv"].iter().chain(&names) {
        let bytes = std::fs::read(place.path(name)).expect("SPIR-V");
        // The magic number, and whole words.
        assert_eq!(
            (bytes[..4].to_vec(), bytes.len() % 4),
            (0x0723_0203_u32.to_le_bytes().to_vec(), 0)
        );
        // OpEntryPoint's name.
        assert!(bytes.windows(5).any(|x| x == b"main\0"), "{name}");
    }
    assert!(names.iter().all(|name| said.stdout().contains(name)), "{}", said.stdout());
}

#[test]
fn a_device_is_read_from_a_file() {
    let place = Place::new();
    // What is not given is as by default; what `info --json` and `bench --json` write is taken as it is.
    place.write(
        "small.json",
        r#"{"name": "mine", "device_type": "discretegpu", "max_workgroup_bytes": 4096}"#,
    );
    place.write(
        "info.json",
        r#"[{"capabilities": {"name": "theirs", "subgroups": true}, "features": []}]"#,
    );
    for (file, name) in [("small.json", "mine"), ("info.json", "theirs")] {
        let said = shader(&place, &format!("--call {CALL} --device {file}")).succeeded().stdout();
        assert!(said.starts_with(&format!("// for {name} (none)\n")), "{}", top(&said));
    }
}

#[test]
fn what_cannot_be_composed_is_refused_by_name() {
    let place = Place::new();
    place.write("list.json", "[]");
    place.write("odd.json", r#"{"colour": 1}"#);
    place.write("type.json", r#"{"subgroups": 1}"#);
    let before = place.files();
    for (options, words) in [
        ("--call {}", &["--call", "no shape", "1x8/2x512x64"][..]),
        (r#"--call {"shape":"1x8x4x0"}"#, &["dim_qk", "0"]),
        ("--call none.json", &["--call none.json", "readable"]),
        (r#"--call {"shape":"1x8x4x8"} --device voodoo"#, &["--device voodoo", "nvidia", "apple"]),
        (r#"--call {"shape":"1x8x4x8"} --device list.json"#, &["list.json", "capabilities"]),
        (r#"--call {"shape":"1x8x4x8"} --device odd.json"#, &["colour", "max_workgroup_bytes"]),
        (r#"--call {"shape":"1x8x4x8"} --device type.json"#, &["type.json", "boolean"]),
        (r#"--call {"shape":"1x8x4x8"} --path reference"#, &["--path", "kernels"]),
        (r#"--call {"shape":"1x8x4x8"} --out -"#, &["--out", "a file"]),
        (r#"--call {"shape":"1x8x4x8"} --spirv none/x.spv"#, &["none/x.spv", "folder"]),
        (r#"--call {"shape":"1x8x4x8","normalizer":"hard"} --gradients"#, &["hard"]),
    ] {
        shader(&place, options).refused(2, words);
    }
    assert_eq!(place.files(), before);
}
