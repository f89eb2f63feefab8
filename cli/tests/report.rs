//! `heedful report`: reports of several machines merged, in every format, and tables inside other files.

mod common;

use std::process::Command;

use common::{Place, repository};
use serde_json::{Value, json};

fn adapter(name: &str, driver: &str) -> Value {
    json!({"name": name, "backend": "vulkan", "driver": driver, "driver_info": "1.0", "type": "cpu",
        "limits": {"max_buffer_size": 1}, "features": [], "subgroup": [4, 8]})
}

fn row(name: &str, suite: &str, kernel: &str, status: &str, reason: &str) -> Value {
    let ran = status != "unsupported";
    json!({"name": name, "suite": suite, "adapter": 0, "kernel": kernel, "status": status, "reason": reason,
        "max_abs": ran.then_some(1e-3), "max_rel": ran.then_some(2e-3), "worst_row": ran.then_some(7),
        "tolerance_ratio": ran.then_some(if status == "fail" { 12.5 } else { 0.5 }),
        "seed": (suite == "quick").then_some(42), "ms": ran.then_some(1.5)})
}

fn report(adapter: Value, cases: Vec<Value>) -> String {
    // Totals are counted anew when a report is read.
    let totals = json!({"total": 0, "pass": 0, "fail": 0, "expected_fail": 0, "unsupported": 0});
    json!({"heedful": "0.1.0", "revision": "abc", "date": "2026-01-02T03:04:05Z",
        "host": {"os": "linux", "cpu": "A & B <C>"}, "adapters": [adapter], "cases": cases, "totals": totals})
    .to_string()
}

/// A machine where something is wrong, and one where it is not.
fn two(place: &Place) {
    let wrong = "o: largest error <1> & \"2\", worst at row 7, column 3: found é, want 0";
    place.write(
        "a.json",
        report(
            adapter("Device <1> & \"x\"", "driver-a"),
            vec![
                row("1x2x5x8 f32 causal(top-left)", "quick", "fused_forward/x", "fail", wrong),
                row(
                    "1x2x5x8 f16 softcap(3.0)",
                    "quick",
                    "staged_score/x",
                    "expected_fail",
                    "known",
                ),
                row("1x2x5x8 f32 alibi(top-left)", "quick", "split", "unsupported", "no kernel"),
                row("minilm", "real", "fused_forward/x", "pass", ""),
            ],
        ),
    );
    place.write(
        "b.json",
        report(
            adapter("Device 2", "driver-b"),
            vec![
                row("1x2x5x8 f32 causal(top-left)", "quick", "fused_forward/x", "pass", ""),
                row("1x2x5x8 f16 softcap(3.0)", "quick", "staged_score/x", "pass", ""),
            ],
        ),
    );
}

/// The line of a Markdown table that begins with `name`.
fn line<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("| {name} |");
    let found = text.lines().find(|line| line.starts_with(&start));
    let found = found.unwrap_or_else(|| panic!("no {name} in {text}"));
    found.split('|').skip(2).map(str::trim).collect()
}

#[test]
fn two_reports_become_one_matrix_and_a_failure_is_status_1() {
    let place = Place::new();
    two(&place);
    let done = place.heedful("report a.json b.json --markdown m.md --json all.json");
    assert_eq!(done.status(), Some(1), "{}", done.stderr());
    assert!(done.stderr().contains("1 of 6 rows failed"), "{}", done.stderr());
    let text = std::fs::read_to_string(place.path("m.md")).expect("Markdown");
    assert_eq!(line(&text, "causal")[..2], ["✗ 1", "✓"], "{text}");
    assert_eq!(line(&text, "softcap")[..2], ["! 1", "✓"], "{text}");
    assert_eq!(line(&text, "ALiBi")[..2], ["–", ""], "nothing ran: {text}");
    assert!(text.contains("found é"), "the element is named: {text}");
    let all = std::fs::read_to_string(place.path("all.json")).expect("JSON");
    let all: Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(all["totals"]["total"], 6);
    assert_eq!(
        (all["totals"]["pass"].as_u64(), all["totals"]["fail"].as_u64()),
        (Some(3), Some(1))
    );
    assert_eq!(all["adapters"].as_array().map(Vec::len), Some(2));
    assert!(all["cases"].as_array().expect("rows").iter().any(|x| x["adapter"] == 1));
    // The merged report is a report; the right machine alone is a good end.
    assert_eq!(place.heedful("report all.json --markdown -").status(), Some(1));
    assert!(place.heedful("report b.json").succeeded().stdout().contains("Device 2"));
}

#[test]
fn junit_is_xml_that_others_read() {
    let place = Place::new();
    two(&place);
    place.heedful("report a.json b.json --junit out.xml");
    let program = "import sys, xml.etree.ElementTree as e\n\
        r = e.parse(sys.argv[1]).getroot()\n\
        t = r.findall('.//testcase')\n\
        print(len(t), len(r.findall('.//failure')), len(r.findall('.//skipped')))\n\
        f = r.find('.//failure'); print(f.get('message'))";
    let file = place.path("out.xml");
    let Ok(output) = Command::new("python3").args(["-c", program]).arg(file).output() else {
        return common::skip::skipped("junit_is_xml", "no python3");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("6 1 "), "{text}");
    assert!(text.contains("largest error <1> & \"2\""), "{text}");
}

#[test]
fn what_is_wrong_with_files_is_said_before_anything_is_written() {
    let place = Place::new();
    two(&place);
    place.write("bad.json", "{}");
    place.write("plain.md", "no markers\n");
    for (arguments, word) in [
        ("report none.json --html x.html", "none.json"),
        ("report bad.json --html x.html", "bad.json"),
        ("report a.json --html nowhere/x.html", "nowhere"),
        ("report b.json --html x.html --readme plain.md", "support:begin"),
        ("report --bench .", "no table"),
        ("report --bench nowhere", "nowhere"),
        ("report", "REPORT"),
    ] {
        place.heedful(arguments).refused(2, &[word]);
        assert!(!place.path("x.html").exists(), "{arguments}");
    }
}

#[test]
fn the_table_of_a_readme_is_spliced_and_checked() {
    let place = Place::new();
    two(&place);
    place.write("README.md", "above\n<!-- support:begin -->\nold\n<!-- support:end -->\nbelow\n");
    place.heedful("report b.json --readme README.md --check").refused(1, &["not up to date"]);
    place.heedful("report b.json --readme README.md").succeeded();
    let text = std::fs::read_to_string(place.path("README.md")).expect("a file");
    assert!(text.starts_with("above\n") && text.ends_with("below\n") && !text.contains("old"));
    assert_eq!(line(&text, "**Storage**: f32, f16")[0], "✓");
    place.heedful("report b.json --readme README.md --check").succeeded();
}

#[test]
fn the_page_opens_in_a_browser_and_lists_rows_on_demand() {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|x| Command::new(x).arg("--version").output().is_ok());
    let Some(browser) = found else {
        return common::skip::skipped("the_page_opens_in_a_browser", "no Chromium");
    };
    let place = Place::new();
    two(&place);
    place.heedful("report a.json b.json --html page.html");
    let page = std::fs::read_to_string(place.path("page.html")).expect("a page");
    assert!(!page.contains("http://") && !page.contains("src="), "it needs no network");
    let dump = |fragment: &str| {
        let url = format!("file://{}{fragment}", place.path("page.html").display());
        let profile = format!("--user-data-dir={}", place.path("profile").display());
        let output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args([&profile, "--virtual-time-budget=2000", "--dump-dom", &url])
            .output()
            .expect("the browser starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let closed = dump("");
    assert!(closed.contains("Device &lt;1&gt; &amp; "), "{closed}");
    assert!(closed.contains("largest error &lt;1&gt; &amp; \"2\""), "failures need no script");
    assert!(closed.contains("✗"), "the matrix");
    let listed = |dom: &str| dom.matches("how to run this row again").count();
    // Once in the script itself.
    assert_eq!(listed(&closed), 1, "nothing is listed before it is asked for");
    assert_eq!(listed(&dump("#adapter-0")), 5, "four rows");
}

#[test]
fn the_tables_show_the_newest_records() {
    let place = repository();
    let folders = |inside: &str| {
        let entries = std::fs::read_dir(place.join(inside)).expect("a folder");
        let mut names: Vec<String> = entries
            .flatten()
            .map(|x| format!("{inside}/{}", x.file_name().to_string_lossy()))
            .collect();
        names.sort();
        names
    };
    let records: Vec<String> = folders("benches/record");
    let records =
        records.into_iter().filter(|x| x.contains("/mesa-")).collect::<Vec<_>>().join(" ");
    common::heedful(&place, &format!("report --bench {records} --readme docs/speed.md --check"))
        .succeeded();
    let reports = folders("tests/reports");
    let reports =
        reports.into_iter().filter(|x| x.ends_with(".json")).collect::<Vec<_>>().join(" ");
    common::heedful(&place, &format!("report {reports} --readme docs/features.md --check"))
        .succeeded();
}
