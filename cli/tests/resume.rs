//! A run of `heedful verify` that ends early loses nothing and blames no case: Ctrl-C, a kill, a crash, a full disk,
//! two runs at once, and going on.
#![cfg(unix)]

mod common;

use std::process::{Child, Command, Stdio};
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

fn text(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).unwrap_or_default()
}

fn journal(place: &Place) -> String {
    text(place, "report.json.journal")
}

fn started(place: &Place, arguments: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_heedful"))
        .args(arguments.split(' '))
        .current_dir(place.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "waited for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn kill(signal: &str, process: u32) {
    let signal = format!("-{signal}");
    let sent = Command::new("kill").args([&signal, &process.to_string()]).status();
    assert!(sent.expect("kill").success());
}

/// The rows of the cases that a journal says have ended.
fn ended(journal: &str) -> Vec<Value> {
    let lines = journal.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("a line"));
    lines.flat_map(|line| line["ended"].as_array().cloned().unwrap_or_default()).collect()
}

#[test]
fn ctrl_c_writes_what_ran_and_resume_goes_on() {
    if !adapter("ctrl_c_writes_what_ran") {
        return;
    }
    let place = Place::new();
    let arguments = format!("{GRID} --report report.json");
    place.write("report.json", "an old report");
    let child = started(&place, &arguments);
    until("a case begins", || journal(&place).contains("began"));
    assert_eq!(text(&place, "report.json"), "an old report");
    kill("INT", child.id());
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("stopped by Ctrl-C after") && stderr.contains("--resume"), "{stderr}");
    assert_eq!(place.files(), ["report.json"]);
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

/// What a run leaves that was killed in the middle of a case after some others; the run's arguments come back.
fn killed(place: &Place) -> String {
    let arguments = format!("{GRID} --report report.json");
    let mut child = started(place, &arguments);
    until("two cases end", || journal(place).matches("ended").count() >= 2);
    kill("KILL", child.id());
    child.wait().expect("it ends");
    arguments
}

/// Cuts a journal behind the last case that began, and returns that line: it may end behind the case's results, and is
/// then as if the process had ended in it.
fn cut_behind_begun(place: &Place) -> Value {
    let text = journal(place);
    let mut kept: Vec<&str> = text.lines().collect();
    let last = kept.iter().rposition(|line| line.contains("began")).expect("a case began");
    kept.truncate(last + 1);
    place.write("report.json.journal", kept.join("\n") + "\n");
    serde_json::from_str(kept[last]).expect("a line")
}

#[test]
fn a_kill_loses_no_result_and_blames_no_case() {
    if !adapter("a_kill_loses_no_result") {
        return;
    }
    let place = Place::new();
    place.write("report.json", "an old report");
    let mut arguments = killed(&place);
    assert_eq!(text(&place, "report.json"), "an old report");
    let kept = ended(&journal(&place));
    assert!(kept.len() >= 2);
    // As a kill in the middle of a write, and twice in the same case, leaves it.
    let cut = journal(&place) + "{\"ended\":[{\"name\":";
    place.write("report.json.journal", &cut);
    arguments += " --resume";
    let mut child = started(&place, &arguments);
    until("the second process", || journal(&place).matches("process").count() >= 2);
    kill("KILL", child.id());
    child.wait().expect("it ends");

    place.heedful(&arguments).succeeded();
    let all = cases(&place);
    assert_eq!(all[..kept.len()], kept, "what ended before is kept");
    assert!(all.iter().all(|row| row["status"] != "fail"), "{all:?}");
    assert_eq!(place.files(), ["report.json"]);
    let whole = Place::new();
    whole.heedful(&format!("{GRID} --report report.json")).succeeded();
    let names = |rows: &[Value]| -> Vec<(String, String)> {
        rows.iter().map(|x| (x["name"].to_string(), x["kernel"].to_string())).collect()
    };
    assert_eq!(names(&all), names(&cases(&whole)), "as a run that nothing stopped");
}

#[test]
fn a_case_that_crashes_again_alone_fails_and_the_run_goes_on() {
    if !adapter("a_case_that_crashes_again_alone") || !std::path::Path::new("/proc/self").exists() {
        return;
    }
    let place = Place::new();
    let arguments = killed(&place);
    let begun = cut_behind_begun(&place);
    let child = started(&place, &format!("{arguments} --resume"));
    let mut alone = None;
    // One that has come to its drivers: before, what ends it is not the case.
    until("a process of its own", || {
        alone = child_of(child.id(), "--alone").filter(|id| {
            let mapped = std::fs::read_to_string(format!("/proc/{id}/maps")).unwrap_or_default();
            mapped.contains("libvulkan") || mapped.contains("libEGL")
        });
        alone.is_some()
    });
    kill("ABRT", alone.expect("a process"));
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let all = cases(&place);
    let failed: Vec<&Value> = all.iter().filter(|row| row["status"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["name"], begun["began"]["name"]);
    let reason = failed[0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("again when it ran alone") && reason.contains("signal: 6"), "{reason}");
    assert!(all.len() > 3, "the other cases ran");
    place.heedful("verify --resume").refused(2, &["--report"]);
}

/// As on a driver from elsewhere, whose libraries come with their own loader (`scripts/software-adapters`).
#[test]
#[cfg(target_os = "linux")]
fn a_case_is_tried_alone_under_a_loader_too() {
    let test = "a_case_is_tried_alone_under_a_loader_too";
    if !adapter(test) {
        return;
    }
    let maps = std::fs::read_to_string("/proc/self/maps").expect("what is mapped");
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let Some(loader) = files.find(|path| path.rsplit('/').next().unwrap_or("").starts_with("ld-"))
    else {
        return common::skip::skipped(test, "no loader is mapped");
    };
    let place = Place::new();
    let arguments = killed(&place);
    cut_behind_begun(&place);
    let output = Command::new(loader)
        .arg(env!("CARGO_BIN_EXE_heedful"))
        .args(arguments.split(' ').chain(["--resume"]))
        .current_dir(place.path(""))
        .output()
        .expect("the loader starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(cases(&place).iter().all(|row| row["status"] != "fail"));
}

/// A process that `parent` started and whose arguments have `word`.
fn child_of(parent: u32, word: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let ids = entries.flatten().filter_map(|x| x.file_name().to_str()?.parse::<u32>().ok());
    let read = |id: u32, name: &str| std::fs::read_to_string(format!("/proc/{id}/{name}"));
    let mut ours = ids.filter(|id| {
        let status = read(*id, "status").unwrap_or_default();
        let parent = format!("PPid:\t{parent}\n");
        status.contains(&parent) && read(*id, "cmdline").unwrap_or_default().contains(word)
    });
    ours.next()
}

#[test]
fn a_second_run_of_the_same_report_is_refused() {
    if !adapter("a_second_run_of_the_same_report") {
        return;
    }
    let place = Place::new();
    let arguments = format!("{GRID} --report report.json");
    let child = started(&place, &arguments);
    until("a case begins", || journal(&place).contains("began"));
    // Stopped, so that it is there for as long as it is needed.
    kill("STOP", child.id());
    let process = format!("process {}", child.id());
    std::os::unix::fs::symlink("report.json", place.path("link.json")).expect("a link");
    for other in ["", " --resume"] {
        place.heedful(&format!("{arguments}{other}")).refused(2, &["report.json", &process]);
    }
    place.heedful(&format!("{GRID} --report link.json")).refused(2, &["link.json", &process]);
    kill("CONT", child.id());
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(cases(&place).iter().all(|row| row["status"] != "fail"));
}

#[test]
fn a_full_disk_ends_the_run_and_blames_no_case() {
    if !adapter("a_full_disk_ends_the_run") {
        return;
    }
    let place = Place::new();
    let arguments = format!("{GRID} --report report.json");
    // Room for the head of a journal and some cases.
    let done = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 12; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_heedful"))
        .args(arguments.split(' '))
        .current_dir(place.path(""))
        .env("MESA_SHADER_CACHE_DISABLE", "true")
        .output()
        .expect("a shell");
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("report.json.journal"), "{stderr}");
    assert!(!place.path("report.json").exists());
    let kept = ended(&journal(&place));
    assert!(!kept.is_empty() && journal(&place).ends_with('\n'));
    place.heedful(&format!("{arguments} --resume")).succeeded();
    let all = cases(&place);
    assert_eq!(all[..kept.len()], kept);
    assert!(all.iter().all(|row| row["status"] != "fail"), "{all:?}");
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
