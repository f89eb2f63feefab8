//! Files survive: whatever a command cannot write whole, the old file stays and nothing else is left.
#![cfg(unix)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{NO_ADAPTER, Order, Place, adapter, npy, numbers, skip};
use serde_json::{Value, json};

const OLD: &str = "an old file\n<!-- support:begin -->\n<!-- support:end -->\n";

/// Runs `heedful` where no file may grow beyond 512 bytes: the write that would fails, as on a full disk.
fn limited(place: &Place, arguments: &str, given: &[(&str, &str)]) -> Output {
    let runtime = tempfile::tempdir().expect("a temporary folder");
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_heedful")])
        .args(arguments.split_whitespace())
        .current_dir(place.path(""))
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env("MESA_SHADER_CACHE_DISABLE", "true")
        .envs(given.iter().copied())
        .output()
        .expect("a shell")
}

/// A command that cannot write `outputs` keeps them as they were, says which, and leaves nothing beside them.
fn keeps(place: &Place, arguments: &str, outputs: &[&str], named: &str) {
    keeps_with(place, arguments, outputs, named, &[]);
}

/// The same with variables of its own.
fn keeps_with(
    place: &Place,
    arguments: &str,
    outputs: &[&str],
    named: &str,
    given: &[(&str, &str)],
) {
    for output in outputs {
        place.write(output, OLD);
    }
    let before = place.files();
    let done = limited(place, arguments, given);
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{arguments}: {stderr}");
    assert!(stderr.contains(named), "{arguments}: {stderr}");
    for output in outputs {
        let text = std::fs::read(place.path(output)).expect("the old file");
        assert!(text == OLD.as_bytes(), "{arguments}: {output} was changed");
    }
    assert_eq!(place.files(), before, "{arguments}");
}

fn report(cases: usize) -> String {
    let row = |i: usize| {
        json!({"name": format!("1x2x{i}x8 f32"), "suite": "quick", "adapter": 0, "kernel": "fused",
            "status": "pass", "reason": "", "max_abs": 1e-3, "max_rel": 2e-3, "worst_row": 7,
            "tolerance_ratio": 0.5, "seed": 42, "ms": 1.5})
    };
    let adapter = json!({"name": "Device", "backend": "vulkan", "driver": "d", "driver_info": "1.0",
        "type": "cpu", "limits": {}, "features": [], "subgroup": [4, 8]});
    let rows: Vec<Value> = (1..=cases).map(row).collect();
    let totals = json!({"total": 0, "pass": 0, "fail": 0, "expected_fail": 0, "unsupported": 0});
    json!({"heedful": "0.1.0", "revision": "abc", "date": "2026-01-02T03:04:05Z",
        "host": {"os": "linux", "cpu": "x"}, "adapters": [adapter], "cases": rows, "totals": totals})
    .to_string()
}

/// Reports, arrays and weights whose outputs are larger than 512 bytes.
fn place() -> Place {
    let place = Place::new();
    place.write("a.json", report(9));
    let array = |name: &str, shape: &[usize]| {
        let values: Vec<f64> = numbers(shape.iter().product(), 1).iter().map(|x| x.abs()).collect();
        place.write(name, npy("<f4", Order::C, shape, &values));
    };
    array("q.npy", &[2, 4, 9, 8]);
    array("k.npy", &[2, 2, 13, 8]);
    array("weights.npy", &[2, 3, 4, 5]);
    place
}

#[test]
fn what_cannot_be_written_whole_leaves_the_old_file() {
    let place = place();
    for option in ["html", "junit", "json", "markdown", "readme"] {
        keeps(&place, &format!("report a.json --{option} old.out"), &["old.out"], "old.out");
    }
    keeps(&place, "map --weights weights.npy --out old.png", &["old.png"], "old.png");
    let run = "run --q q.npy --k k.npy --v k.npy --path reference";
    for option in ["out", "lse", "weights"] {
        // The log-sum-exp is small: of three outputs written together the first fails.
        let outputs = format!("{run} --out old.out --{option} old2.out");
        if option != "out" {
            keeps(&place, &outputs, &["old.out", "old2.out"], "old.out");
        }
    }
    keeps(&place, &format!("{run} --out old.out"), &["old.out"], "old.out");
}

#[test]
fn what_an_adapter_found_out_and_cannot_be_written_leaves_the_old_file() {
    if !adapter("what_an_adapter_found_out") {
        return;
    }
    let place = place();
    keeps(&place, "info --json old.json", &["old.json"], "old.json");
    let verify = "verify --filter 1x3/1x2/70x31/8";
    for output in ["old.html", "old.json"] {
        keeps(&place, &format!("{verify} --report {output}"), &[output], output);
    }
}

#[test]
fn a_record_that_cannot_be_written_leaves_the_old_one() {
    // On the reference: what is written is the same on any machine.
    let place = place();
    let keeps = |arguments: &str, output: &str, named: &str| {
        keeps_with(&place, arguments, &[output], named, &[NO_ADAPTER]);
    };
    let own = |i| format!("[[workload]]\nname = \"mine-{i}\"\nshape = \"1x2x33x16\"\n");
    place.write("own.toml", (0..6).map(own).collect::<String>());
    let bench = "bench --definitions own.toml";
    for (option, output) in
        [("json", "old.json"), ("csv", "old.csv"), ("markdown", "old.md"), ("plot", "x.svg")]
    {
        let written = if option == "plot" { "x-paths.svg" } else { output };
        keeps(&format!("{bench} --{option} {output}"), written, written);
    }
    std::fs::create_dir(place.path("record")).expect("a folder");
    keeps(&format!("{bench} --record record"), "record/own.csv", "own.csv");
    let left = std::fs::read_dir(place.path("record")).expect("the folder").count();
    assert_eq!(left, 1, "a part of a record was left");
}

#[test]
fn a_full_disk_leaves_the_old_files() {
    let place = place();
    let disk = place.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let options = ["-t", "tmpfs", "-o", "size=64k", "none"];
    let mounted = Command::new("mount").args(options).arg(&disk).output();
    if !mounted.as_ref().is_ok_and(|done| done.status.success()) {
        let why = mounted.map(|done| String::from_utf8_lossy(&done.stderr).into_owned());
        skip::unsupported("a_full_disk", format!("no file system can be mounted: {why:?}"));
        return;
    }
    // Unmounted whatever the test finds.
    let _unmount = Unmount(&disk);
    for name in ["old.html", "old.png", "old.npy", "old.md"] {
        std::fs::write(disk.join(name), OLD).expect("room for it");
    }
    let filler = std::fs::write(disk.join("filler"), vec![1; 1 << 20]);
    assert!(filler.is_err(), "the disk is full");
    place.write("long.json", report(900));
    for (arguments, output) in [
        ("report long.json --html disk/old.html", "old.html"),
        ("report long.json --readme disk/old.md", "old.md"),
        ("map --weights weights.npy --out disk/old.png", "old.png"),
        ("run --q q.npy --k k.npy --v k.npy --path reference --out disk/old.npy", "old.npy"),
    ] {
        place.heedful(arguments).refused(2, &[output, "space"]);
        let text = std::fs::read(disk.join(output)).expect("the old file");
        assert!(text == OLD.as_bytes(), "{arguments}");
    }
    assert_eq!(std::fs::read_dir(&disk).expect("the disk").count(), 5, "a part was left");
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // A folder that stays mounted is left to the user of the machine.
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn links_stay_links_devices_stay_devices_and_permissions_stay() {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    let place = place();
    place.write("old.html", OLD);
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(place.path("old.html"), mode(0o640)).expect("permissions");
    std::os::unix::fs::symlink("old.html", place.path("link.html")).expect("a link");
    place.heedful("report a.json --html link.html").succeeded();
    assert!(place.path("link.html").is_symlink());
    let text = std::fs::read_to_string(place.path("old.html")).expect("a page");
    assert!(text.contains("<html") && text.trim_end().ends_with("</html>"), "{text}");
    let kept = std::fs::metadata(place.path("old.html")).expect("the file").permissions();
    assert_eq!(kept.mode() & 0o777, 0o640);

    // A link of the device's name: nobody's device is at stake.
    std::os::unix::fs::symlink("/dev/null", place.path("null.html")).expect("a link");
    place.heedful("report a.json --html null.html").succeeded();
    assert!(place.path("null.html").is_symlink());
    let device = std::fs::metadata("/dev/null").expect("a device");
    assert!(device.file_type().is_char_device());
}

#[test]
fn a_full_disk_behind_standard_output_is_said() {
    if !Path::new("/dev/full").exists() {
        skip::unsupported("a_full_disk_behind_standard_output", "no /dev/full");
        return;
    }
    let place = place();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let done = Command::new(env!("CARGO_BIN_EXE_heedful"))
        .args(["report", "a.json"])
        .current_dir(place.path(""))
        .stdout(full)
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("standard output") && stderr.contains("space"), "{stderr}");
}
