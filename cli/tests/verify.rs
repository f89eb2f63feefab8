//! `heedful verify`, `bench` and `info`: reports that machines read, and the exit status of each end.

mod common;

use common::{NO_ADAPTER, Place, adapter, heedful, heedful_with, repository};
use serde_json::Value;

fn has(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "no {field} in {object}");
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn verify_recorded_cases_of_a_real_model_pass() {
    if !adapter("verify_recorded_cases") {
        return;
    }
    let place = Place::new();
    let report = place.path("report.json");
    let arguments = format!("verify --cases tests/golden/real --report {}", report.display());
    let done = heedful(&repository(), &arguments).succeeded();
    assert!(done.stdout().contains("worst ratio"), "{}", done.stdout());
    let text = std::fs::read_to_string(report).expect("the report");
    let report: Value = serde_json::from_str(&text).expect("the report is JSON");

    has(&report, &["heedful", "revision", "date", "host", "adapters", "cases", "totals"]);
    has(&report["host"], &["os", "cpu"]);
    let adapters = report["adapters"].as_array().expect("a list");
    assert_eq!(adapters.len(), 1);
    let fields =
        ["name", "backend", "driver", "driver_info", "type", "limits", "features", "subgroup"];
    has(&adapters[0], &fields);
    let cases = report["cases"].as_array().expect("a list");
    // Two recorded attention calls and a whole block, fused by rows and by the tile, and staged; two of them have
    // few rows and are split as well.
    assert_eq!(cases.len(), 11);
    for case in cases {
        has(
            case,
            &["name", "suite", "adapter", "kernel", "status", "reason", "max_abs", "max_rel"],
        );
        has(case, &["worst_row", "tolerance_ratio", "seed", "ms"]);
        assert_eq!(case["status"], "pass", "{case}");
        assert_eq!(case["adapter"], 0, "{case}");
        assert!(number(&case["tolerance_ratio"]) <= 1.0, "{case}");
        assert!(number(&case["ms"]) > 0.0, "{case}");
    }
    for (total, wanted) in
        [("total", 11), ("pass", 11), ("fail", 0), ("expected_fail", 0), ("unsupported", 0)]
    {
        assert_eq!(report["totals"][total], wanted, "{total}");
    }
}

#[test]
fn shards_hold_every_case_once() {
    let refused = heedful(&repository(), "verify --shard 3/2");
    assert!(refused.stderr().contains("no 3 among 1 to 2"), "{}", refused.stderr());
    if !adapter("shards_hold_every_case") {
        return;
    }
    let names = |shard: &str| -> Vec<String> {
        let arguments = format!("verify --cases tests/golden/real --shard {shard} --report -");
        let report = heedful(&repository(), &arguments).succeeded().json();
        let cases = report["cases"].as_array().expect("a list");
        cases.iter().map(|case| case["name"].to_string()).collect()
    };
    let (first, second) = (names("1/2"), names("2/2"));
    assert_eq!(first.len() + second.len(), 11);
    assert!(!second.is_empty() && first.iter().all(|name| !second.contains(name)), "{first:?}");
}

#[test]
fn verify_report_on_standard_output_is_json_alone() {
    if !adapter("verify_report_on_standard_output") {
        return;
    }
    let arguments = "verify --grid quick --filter causal(-9) --seed 3 --report -";
    let report = heedful(&repository(), arguments).succeeded().json();
    let cases = report["cases"].as_array().expect("a list");
    assert!(!cases.is_empty());
    for case in cases {
        assert!(case["name"].as_str().is_some_and(|name| name.contains("causal(-9)")), "{case}");
        assert_eq!(case["seed"], 3, "{case}");
        assert_eq!(case["suite"], "quick", "{case}");
        let reason = case["reason"].as_str().expect("text");
        assert_eq!(case["status"] == "unsupported", !reason.is_empty(), "{case}");
    }
}

#[test]
fn verify_runs_on_the_named_paths_only() {
    if !adapter("verify_runs_on_the_named_paths_only") {
        return;
    }
    let arguments = "verify --cases tests/golden/real --path staged --path split --report -";
    let report = heedful(&repository(), arguments).succeeded().json();
    let cases = report["cases"].as_array().expect("a list");
    // Three calls staged, and the two with few rows split.
    assert_eq!(cases.len(), 5);
    for case in cases {
        let kernel = case["kernel"].as_str().expect("text");
        assert!(kernel.contains("staged_") || kernel.contains("split_"), "{case}");
    }
    for name in ["auto", "reference"] {
        let refused = format!("verify --path {name}");
        heedful(&repository(), &refused).refused(2, &["--path"]);
    }
}

#[test]
fn verify_checks_the_gradients_of_a_grids_cases() {
    if !adapter("verify_checks_the_gradients") {
        return;
    }
    // One case, and its gradients.
    let arguments = "verify --filter sinks=1e1 --report -";
    let report = heedful(&repository(), arguments).succeeded().json();
    let cases = report["cases"].as_array().expect("a list");
    let gradients = |case: &&Value| {
        case["name"].as_str().is_some_and(|x| x.starts_with("gradients 2x6/2x20/70x32"))
    };
    // Beside them those of q, k and v alone.
    let all = |case: &&Value| !case["name"].as_str().is_some_and(|x| x.contains(" qkv"));
    let rows: Vec<&Value> = cases.iter().filter(gradients).filter(all).collect();
    let [row] = rows[..] else { panic!("{rows:?}") };
    assert_eq!((&row["status"], &row["suite"]), (&"pass".into(), &"quick".into()), "{row}");
    assert!(row["kernel"].as_str().is_some_and(|x| x.contains("backward_sinks")), "{row}");
    assert!(cases.len() > 3, "{cases:?}");
    let fused = heedful(&repository(), "verify --filter sinks=1e1 --path fused --report -");
    let fused = fused.succeeded().json();
    let fused = fused["cases"].as_array().expect("a list");
    assert!(!fused.is_empty(), "{fused:?}");
    // Those of q, k and v; the gradient of sinks is read off scores.
    for row in fused.iter().filter(gradients) {
        let served = row["kernel"].as_str().is_some_and(|x| x.contains("fused_backward_keys"));
        let why = row["reason"].as_str().is_some_and(|x| x.contains("gradient of sinks"));
        assert!(served || row["status"] == "unsupported" && why, "{row}");
    }
}

#[test]
fn verify_checks_recorded_gradients() {
    if !adapter("verify_checks_recorded_gradients") {
        return;
    }
    let arguments = "verify --cases tests/golden/varlen --filter varlen_0 --path staged --report -";
    let report = heedful(&repository(), arguments).succeeded().json();
    let cases = report["cases"].as_array().expect("a list");
    let name = |case: &&Value| case["name"].as_str().is_some_and(|x| x.starts_with("gradients "));
    let gradients: Vec<&Value> = cases.iter().filter(name).collect();
    assert_eq!(gradients.len(), 10);
    for case in gradients {
        assert_eq!(case["status"], "pass", "{case}");
        assert!(case["kernel"].as_str().is_some_and(|x| x.contains("backward_row")), "{case}");
    }
}

#[test]
fn verify_without_an_executed_case_fails() {
    if !adapter("verify_without_an_executed_case") {
        return;
    }
    for arguments in [
        "verify --filter nothing-matches",
        "verify --cases tests/golden/real --filter nothing-matches",
    ] {
        heedful(&repository(), arguments).refused(1, &["no case was run"]);
    }
}

#[test]
fn verify_bad_case_folders_are_one_line() {
    let place = Place::new();
    place.heedful("verify --cases .").refused(2, &["cases.json"]);
    place.heedful("verify --cases nowhere").refused(2, &["nowhere"]);
    let real = repository().join("tests/golden/real/cases.json");
    let whole = std::fs::read(real).expect("the recorded cases");
    for cut in [0, 1, 40, whole.len() / 2, whole.len() - 3] {
        place.write("cases.json", &whole[..cut]);
        place.heedful("verify --cases .").refused(2, &["cases.json"]);
    }
    for text in ["{}", "[1]", "[{}]", "null", "\u{feff}[]"] {
        place.write("cases.json", text);
        place.heedful("verify --cases .").refused(2, &["cases.json"]);
    }
}

#[test]
fn verify_missing_or_damaged_arrays_are_one_line() {
    if !adapter("verify_missing_or_damaged_arrays") {
        return;
    }
    let place = Place::new();
    let real = repository().join("tests/golden/real");
    let read = |name: &str| std::fs::read(real.join(name)).expect("a recorded file");
    place.write("cases.json", read("cases.json"));
    place.heedful("verify --cases .").refused(2, &["minilm_layer0.npz"]);
    let arrays = read("minilm_layer0.npz");
    for cut in [0, 100, arrays.len() / 2, arrays.len() - 1] {
        place.write("minilm_layer0.npz", &arrays[..cut]);
        place.heedful("verify --cases .").refused(2, &["minilm_layer0.npz"]);
    }
}

#[test]
fn verify_reports_into_a_missing_folder_are_refused() {
    if !adapter("verify_reports_into_a_missing_folder") {
        return;
    }
    let arguments = "verify --cases tests/golden/real --report tests/nowhere/report.json";
    heedful(&repository(), arguments).refused(2, &["report.json"]);
}

#[test]
fn bench_prints_json() {
    if !adapter("bench_prints_json") {
        return;
    }
    let record = heedful(&repository(), "bench --filter odd --json -").succeeded().json();
    has(&record, &["heedful", "adapter", "driver", "backend", "suite", "matmul", "rows"]);
    assert!(number(&record["matmul"]["gflops"]) > 0.0);
    let rows = record["rows"].as_array().expect("a list");
    let paths: Vec<&str> = rows.iter().filter_map(|row| row["path"].as_str()).collect();
    let hardware = record["capabilities"]["device_type"] != "cpu";
    assert_eq!(paths.contains(&"fused-tile"), hardware, "left out on software: {paths:?}");
    assert!(paths.contains(&"fused") && paths.contains(&"staged"), "{paths:?}");
    // Asked for, it is timed everywhere.
    let asked = "bench --filter odd --path fused-tile --json -";
    let asked = heedful(&repository(), asked).succeeded().json();
    let tile = asked["rows"].as_array().expect("a list");
    assert_eq!(tile.len(), 1);
    assert_eq!(tile[0]["path"], "fused-tile");
    for row in rows.iter().chain(tile) {
        assert_eq!(row["name"], "odd-sizes");
        assert_eq!(row["verdict"], "ok", "{row}");
        assert!(number(&row["gflops"]) > 0.0, "{row}");
        assert!(number(&row["median_ms"]) > 0.0, "{row}");
        assert!(number(&row["tolerance_ratio"]) <= 1.0, "{row}");
    }
}

#[test]
fn bench_without_a_workload_is_refused() {
    heedful(&repository(), "bench --suite huge").refused(2, &["--suite", "huge"]);
    if adapter("bench_without_a_workload") {
        let arguments = "bench --filter nothing-matches";
        heedful(&repository(), arguments).refused(2, &["--filter", "no workload"]);
    }
}

#[test]
fn info_is_json() {
    // A list on every machine; on one without adapters, an empty one.
    let all = heedful(&repository(), "info --json -").succeeded().json();
    for adapter in all.as_array().expect("a list") {
        has(adapter, &["capabilities", "features", "matrix", "kernels"]);
        has(&adapter["capabilities"], &["name", "backend", "driver", "device_type", "shader_f16"]);
        let kernels = adapter["kernels"].as_array().expect("a list");
        assert!(!kernels.is_empty());
        for kernel in kernels {
            let runs = kernel["kernels"].as_array().is_some_and(|list| !list.is_empty());
            let refused = kernel["refused"].as_array().is_some_and(|list| !list.is_empty());
            assert!(runs || refused, "{kernel}");
        }
    }
}

#[test]
fn info_of_an_unknown_adapter_is_refused() {
    heedful(&repository(), "info --adapter no-such-adapter").refused(2, &["--adapter"]);
    heedful(&repository(), "verify --adapter no-such-adapter").refused(2, &["--adapter"]);
    heedful(&repository(), "bench --adapter no-such-adapter").refused(2, &["--adapter"]);
    let both = "verify --adapter a --all-adapters";
    heedful(&repository(), both).refused(2, &["--adapter", "--all-adapters"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for (arguments, word) in [
        ("--help", "verify"),
        ("run --help", "--weights-at"),
        ("--version", env!("CARGO_PKG_VERSION")),
    ] {
        let said = heedful(&repository(), arguments).succeeded().stdout();
        assert!(said.contains(word), "{arguments}: {said}");
    }
}

#[test]
fn without_an_adapter_a_required_one_is_status_3() {
    let run = |arguments: &str| heedful_with(&repository(), arguments, &[NO_ADAPTER]);
    assert_eq!(run("info --json -").succeeded().json(), Value::Array(Vec::new()));
    run("verify").refused(3, &["no GPU adapter", "mesa-vulkan-drivers"]);
    run("bench --require-adapter").refused(3, &["no GPU adapter"]);
    run("bench --adapter any").refused(2, &["--adapter"]);
}
