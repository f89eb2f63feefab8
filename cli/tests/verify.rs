//! `heedful verify`, `bench` and `info`: what they print, what they exit with.

mod common;

use common::{Bench, golden, has_adapter, stderr, stdout};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn recorded_cases_pass_and_the_report_is_complete() {
    if !has_adapter("recorded_cases") {
        return;
    }
    let bench = Bench::new("report");
    let real = golden("real");
    let output = bench.heedful(&["verify", "--cases", &real, "--report", "r.json"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let text = std::fs::read_to_string(bench.path("r.json")).expect("a report");
    let report = json(&text);
    for key in ["heedful", "revision", "date", "host", "adapters", "cases", "totals"] {
        assert!(!report[key].is_null(), "{key} in {text}");
    }
    let case = &report["cases"][0];
    for key in ["name", "suite", "adapter", "kernel", "status", "reason", "max_abs", "ms"] {
        assert!(!case[key].is_null(), "{key} in {case}");
    }
    assert_eq!(report["totals"]["fail"], 0);
    assert_eq!(report["totals"]["pass"], 4);
    let subgroup = report["adapters"][0]["subgroup"].as_array().map(Vec::len);
    assert_eq!(subgroup, Some(2));
}

#[test]
fn generated_cases_are_replayed_by_name_and_seed() {
    if !has_adapter("generated_cases") {
        return;
    }
    let bench = Bench::new("replay");
    let args = ["verify", "--grid", "quick", "--filter", "softcap", "--seed", "5", "--report", "-"];
    let first = json(&stdout(&bench.heedful(&args)));
    let second = json(&stdout(&bench.heedful(&args)));
    let errors = |report: &Value| -> Vec<Value> {
        let cases = report["cases"].as_array().expect("cases").iter();
        cases.map(|case| case["max_abs"].clone()).collect()
    };
    assert!(!errors(&first).is_empty());
    assert_eq!(errors(&first), errors(&second));
    assert_eq!(first["cases"][0]["seed"], 5);
}

#[test]
fn nothing_run_is_no_success() {
    if !has_adapter("nothing_run") {
        return;
    }
    let bench = Bench::new("nothing");
    let output = bench.heedful(&["verify", "--filter", "no case is called this"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("no case was run"));
}

#[test]
fn bad_case_folders_are_named() {
    let bench = Bench::new("folders");
    let output = bench.heedful(&["verify", "--cases", "."]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cases.json"), "{}", stderr(&output));
    std::fs::write(bench.path("cases.json"), "[{\"name\": \"cut").expect("written");
    let output = bench.heedful(&["verify", "--cases", "."]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}

#[test]
fn bench_and_info_speak_json() {
    let bench = Bench::new("json");
    let output = bench.heedful(&["bench", "--filter", "odd-sizes", "--json", "-"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let record = json(&stdout(&output));
    let row = &record["rows"][0];
    assert!(row["gflops"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
    assert!(row["error"].is_null(), "{row}");
    if has_adapter("bench_and_info") {
        assert!(record["matmul"]["gflops"].as_f64().is_some_and(|rate| rate > 0.0));
    }
    let output = bench.heedful(&["info", "--json", "-"]);
    assert!(json(&stdout(&output)).is_array());
    let help = stdout(&bench.heedful(&["--help"]));
    for command in ["bench", "info", "run", "verify"] {
        assert!(help.contains(command), "{help}");
    }
}
