//! A run of `heedful verify` that ends early loses nothing: Ctrl-C, a crash, and going on.
#![cfg(unix)]

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, adapter};
use serde_json::Value;

const GRID: &str = "verify --grid quick --filter kv(int8)";

fn cases(place: &Place) -> Vec<Value> {
    let text = std::fs::read_to_string(place.path("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("a whole report");
    let cases = report["cases"].as_array().expect("a list").clone();
    assert_eq!(report["totals"]["total"], cases.len());
    cases
}

#[test]
fn ctrl_c_writes_what_ran_and_resume_goes_on() {
    if !adapter("ctrl_c_writes_what_ran") {
        return;
    }
    let place = Place::new();
    let arguments = format!("{GRID} --report report.json");
    let child = Command::new(env!("CARGO_BIN_EXE_heedful"))
        .args(arguments.split(' '))
        .current_dir(place.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let start = Instant::now();
    while !place.path("report.json.running").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no case was begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("stopped by Ctrl-C after") && stderr.contains("--resume"), "{stderr}");
    assert!(!place.path("report.json.running").exists());
    let first = cases(&place);

    place.heedful(&format!("{arguments} --resume")).succeeded();
    let all = cases(&place);
    assert!(all.len() > first.len(), "{} of {} ran before", first.len(), all.len());
    assert_eq!(all[..first.len()], first, "what ran before is kept");
    let mut names: Vec<(String, String)> =
        all.iter().map(|x| (x["name"].to_string(), x["kernel"].to_string())).collect();
    names.sort();
    let n = names.len();
    names.dedup();
    assert_eq!(names.len(), n, "a case ran twice");
    // Nothing is left to do.
    place.heedful(&format!("{arguments} --resume")).succeeded();
    assert_eq!(cases(&place), all);
}

#[test]
fn a_case_that_ended_the_process_fails_and_is_not_tried_again() {
    if !adapter("a_case_that_ended_the_process") {
        return;
    }
    let place = Place::new();
    let arguments = format!("{GRID} --report report.json");
    place.heedful(&arguments).succeeded();
    // As a crash in the middle of the last case leaves things.
    let all = cases(&place);
    let last = all.last().expect("a case")["name"].as_str().expect("a name").to_owned();
    let text = std::fs::read_to_string(place.path("report.json")).expect("a report");
    let mut report: Value = serde_json::from_str(&text).expect("JSON");
    let kept: Vec<Value> = all.iter().filter(|x| x["name"] != last.as_str()).cloned().collect();
    report["cases"] = kept.clone().into();
    place.write("report.json", report.to_string());
    place.write("report.json.running", format!("0\nquick\n{last}\n"));

    let done = place.heedful(&format!("{arguments} --resume"));
    assert_eq!(done.status(), Some(1), "{}", done.stderr());
    let after = cases(&place);
    assert_eq!(after.len(), kept.len() + 1);
    let row = after.last().expect("a row");
    assert_eq!((row["status"].as_str(), row["name"].as_str()), (Some("fail"), Some(last.as_str())));
    assert_eq!(row["reason"], "the process ended while this case ran");
    place.heedful("verify --resume").refused(2, &["--report"]);
}

#[test]
fn known_bugs_are_expected_failures_and_their_passes_failures() {
    if !adapter("known_bugs_are_expected") {
        return;
    }
    let place = Place::new();
    place.write(
        "bugs.json",
        r#"[{"backend": "*", "driver": "a driver nobody has", "case": "kv", "link": "x", "why": "y"},
            {"driver": " ", "case": "1x3/1x2/70x31/8 f32 kv(int8)", "kernel": "split",
             "link": "https://example.org/1", "why": "wrong scales"}]"#,
    );
    let done = place.heedful(&format!("{GRID} --expect bugs.json --report report.json"));
    assert_eq!(done.status(), Some(1), "{}", done.stderr());
    let failed: Vec<Value> = cases(&place).into_iter().filter(|x| x["status"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let reason = failed[0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("passes, but is expected to fail: wrong scales"), "{reason}");
    place.write("bugs.json", "[{}]");
    place.heedful(&format!("{GRID} --expect bugs.json")).refused(2, &["bugs.json"]);
}
