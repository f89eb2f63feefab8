//! `heedful bench`: every row is checked before it is timed, and the JSON holds what the table shows.

mod common;

use common::{adapter, heedful, repository};

#[test]
fn workloads_and_the_real_model_are_checked_and_timed() {
    if !adapter("workloads_and_the_real_model") {
        return;
    }
    for filter in ["one-row", "sentence-model"] {
        let done = heedful(&repository(), &format!("bench --filter {filter} --json -")).succeeded();
        let record = done.json();
        let rows = record["rows"].as_array().expect("a list").clone();
        assert!(rows.len() >= 2, "{filter}: {} rows", rows.len());
        for row in rows {
            assert_eq!(row["verdict"], "ok", "{row}");
            assert!(row["name"].as_str().is_some_and(|name| name.contains(filter)), "{row}");
            assert!(row["median_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{row}");
            assert!(row["tolerance_ratio"].as_f64().is_some_and(|ratio| ratio <= 1.0), "{row}");
        }
    }
}

#[test]
fn a_suite_is_written_as_csv_markdown_pictures_and_a_record() {
    if !adapter("a_suite_is_written") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let run = "bench --suite decode --filter row- --path split --budget 0.01 --csv rows.csv --markdown table.md \
               --plot picture.svg --plot picture.png --record record";
    heedful(at, run).succeeded();
    let csv = std::fs::read_to_string(at.join("rows.csv")).expect("a table");
    let header = csv.lines().next().expect("a header");
    for column in
        ["name", "median_ms", "of_limit", "of_f32", "of_matrix", "tolerance_ratio", "buffers"]
    {
        assert!(header.split(',').any(|x| x == column), "{column} in {header}");
    }
    assert!(csv.lines().count() >= 5, "{csv}");
    let table = std::fs::read_to_string(at.join("table.md")).expect("a table");
    assert!(
        table.contains("limits measured:")
            && table.contains("| row-1024 | 1x8x1/1024x64 f32 | split |"),
        "{table}"
    );
    for picture in ["roofline", "lengths", "paths"] {
        let svg =
            std::fs::read_to_string(at.join(format!("picture-{picture}.svg"))).expect(picture);
        assert!(svg.starts_with("<svg") && svg.contains("</svg>"), "{picture}");
        let png = std::fs::read(at.join(format!("picture-{picture}.png"))).expect(picture);
        assert!(png.starts_with(b"\x89PNG"), "{picture}");
        assert!(at.join(format!("record/decode-{picture}.svg")).exists(), "{picture}");
    }
    let origin = std::fs::read_to_string(at.join("record/decode.json")).expect("provenance");
    let origin: serde_json::Value = serde_json::from_str(&origin).expect("JSON");
    assert!(origin["roofline"]["f32_gflops"].as_f64().is_some_and(|x| x > 0.0), "{origin}");
    assert!(origin["capabilities"]["max_binding_bytes"].as_u64().is_some(), "{origin}");
    assert_eq!(std::fs::read_to_string(at.join("record/decode.csv")).expect("a table"), csv);
}

#[test]
fn gradients_are_timed_beside_the_forward_pass() {
    if !adapter("gradients_are_timed") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let own = "[[workload]]\nname = \"mine\"\nshape = \"2x4/2x70x16\"\ncausal = \"top-left\"\n\
               [[workload]]\nname = \"none\"\nshape = \"1x2x9x16\"\nrotary = 8\n";
    std::fs::write(folder.path().join("own.toml"), own).expect("written");
    let run = "bench --definitions own.toml --backward --budget 0.01 --json -";
    let record = heedful(folder.path(), run).succeeded().json();
    let rows = record["rows"].as_array().expect("rows");
    let named = |name: &str| rows.iter().filter(|x| x["name"] == name).collect::<Vec<_>>();
    let (forward, gradients) = (named("mine"), named("gradients mine"));
    // Fused and staged.
    assert!(forward.len() >= 2 && gradients.len() == 2, "{rows:?}");
    let number = |row: &serde_json::Value, name: &str| {
        row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"))
    };
    let row = gradients[1];
    assert_eq!([&gradients[0]["path"], &row["path"]], ["fused", "staged"], "{rows:?}");
    assert_eq!(row["verdict"], "ok", "{row}");
    assert!((number(row, "gflop") - 2.5 * number(forward[0], "gflop")).abs() < 1e-9, "{row}");
    // Tiles on the diagonal are half empty.
    assert!(number(row, "done_gflop") > 1.2 * number(row, "gflop"), "{row}");
    let best = forward.iter().map(|x| number(x, "gflops")).fold(0.0, f64::max);
    assert!((number(row, "of_forward") - number(row, "gflops") / best).abs() < 1e-9, "{row}");
    assert!(number(row, "of_limit") > 0.0 && number(row, "tolerance_ratio") <= 1.0, "{row}");
    assert!(forward.iter().all(|x| x["done_gflop"].is_null() && x["of_forward"].is_null()));
}

#[test]
fn own_workloads_and_peers_are_taken_and_bad_ones_refused() {
    if !adapter("own_workloads_and_peers") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let write = |name: &str, text: &str| std::fs::write(at.join(name), text).expect("written");
    write(
        "own.toml",
        "[[workload]]\nname = \"mine\"\nshape = \"1x2x33x16\"\ncausal = \"top-left\"\n",
    );
    let shape = r#"{"batch": 1, "heads_q": 2, "heads_kv": 2, "seq_q": 33, "seq_kv": 33, "dim": 16, "causal": true, "dtype": "f32"}"#;
    let result = |name: &str, verdict: &str| {
        format!(
            r#"{{"shape": {shape}, "strategy": "{name}", "check": {{"verdict": "{verdict}"}}, "median_ms": 1000.0}}"#
        )
    };
    let peers = format!(
        r#"{{"tool": "peer-x", "results": [{}, {}]}}"#,
        result("right", "ok"),
        result("wrong", "wrong")
    );
    write("peers.json", &peers);
    let done =
        heedful(at, "bench --definitions own.toml --budget 0.01 --peers peers.json --json -")
            .succeeded();
    let rows = done.json()["rows"].as_array().expect("rows").clone();
    let row = |path: &str| {
        rows.iter().find(|x| x["path"] == path).unwrap_or_else(|| panic!("{path} in {rows:?}"))
    };
    assert_eq!(row("fused")["buffers"], "same");
    assert!(row("x right")["of_best"].as_f64().is_some_and(|x| x > 1.0), "{rows:?}");
    assert_eq!(row("x wrong")["verdict"], "skipped");
    assert!(
        row("x wrong")["median_ms"].is_null() && row("x wrong")["reason"] == "its result is wrong"
    );

    write("bad.toml", "[[workload]]\nname = \"mine\"\nshape = \"1x3/2x4x4\"\n");
    for (arguments, named) in [
        ("bench --definitions bad.toml", "workload \"mine\""),
        ("bench --definitions none.toml", "none.toml"),
        ("bench --filter nothing-like-this", "--filter"),
        ("bench --filter one-row --plot picture.gif", "--plot"),
        ("bench --filter one-row --json none/x.json", "none/x.json"),
        ("bench --filter one-row --peers own.toml", "own.toml"),
        ("bench --filter one-row --tuning peers.json", "peers.json"),
    ] {
        heedful(at, arguments).refused(2, &[named]);
    }
}

#[test]
fn matrix_paths_alone_are_held_against_matrix_units() {
    if !adapter("matrix_paths_alone") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let own = "[[workload]]\nname = \"mine\"\nshape = \"1x2x33x16\"\ndtype = \"f16\"\n";
    std::fs::write(at.join("own.toml"), own).expect("written");
    let run = "bench --definitions own.toml --matrix --budget 0.01 --csv rows.csv --record record --json -";
    let record = heedful(at, run).succeeded().json();
    let peak = record["roofline"]["matrix_gflops"].as_f64();
    let units = record["capabilities"]["matrix_units"].as_array().expect("a list").len();
    assert!(peak.is_none_or(|x| x > 0.0 && units > 0), "{record}");
    let rows = record["rows"].as_array().expect("rows");
    let matrix = |row: &serde_json::Value| row["path"] == "fused-matrix";
    assert_eq!(rows.iter().any(matrix), peak.is_some(), "{rows:?}");
    for row in rows {
        assert_eq!(row["verdict"], "ok", "{row}");
        assert!(row["of_f32"].as_f64().is_some_and(|x| x > 0.0), "{row}");
        let (share, gflops) = (row["of_matrix"].as_f64(), row["gflops"].as_f64());
        let wanted = gflops.zip(peak).map(|(gflops, peak)| gflops / peak).filter(|_| matrix(row));
        assert_eq!(share, wanted, "{row}");
    }
    if peak.is_none() {
        println!("no matrix units: columns are empty");
    }
    heedful(at, "report --bench record record").succeeded();
    // Records from before the columns are read as well.
    let table = std::fs::read_to_string(at.join("rows.csv")).expect("a table");
    let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().expect("a header");
    let old = |cells: Vec<&str>| {
        let kept =
            cells.iter().zip(&header).filter(|(_, name)| !["of_f32", "of_matrix"].contains(name));
        kept.map(|(cell, _)| *cell).collect::<Vec<_>>().join(",")
    };
    let text =
        [old(header.clone())].into_iter().chain(lines.map(old)).collect::<Vec<_>>().join("\n");
    std::fs::write(at.join("record/own.csv"), text).expect("written");
    heedful(at, "report --bench record record").succeeded();
}

#[test]
fn work_beyond_the_limit_is_a_row_that_says_so() {
    if !adapter("work_beyond_the_limit") {
        return;
    }
    let arguments = "bench --filter one-row --max-gflop 0 --json -";
    let rows = heedful(&repository(), arguments).succeeded().json()["rows"].clone();
    assert_eq!(rows[0]["verdict"], "skipped", "{rows}");
    assert!(rows[0]["reason"].as_str().is_some_and(|x| x.contains("--max-gflop")), "{rows}");
}

#[test]
fn a_path_whose_tiles_are_mostly_empty_is_spared_as_the_work_that_they_are() {
    if !adapter("a_path_whose_tiles_are_mostly_empty") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let own = "[[workload]]\nname = \"many-tiny\"\nshape = \"1000x8x1/4x4\"\n";
    std::fs::write(at.join("own.toml"), own).expect("written");
    let arguments = "bench --definitions own.toml --budget 0.01 --max-gflop 1 --json -";
    let rows = heedful(at, arguments).succeeded().json()["rows"].clone();
    for row in rows.as_array().expect("rows") {
        let spared = row["path"] == "staged";
        assert_eq!(row["verdict"], if spared { "skipped" } else { "ok" }, "{row}");
        let reason = row["reason"].as_str().expect("text");
        assert_eq!(spared, reason.contains("mostly empty"), "{row}");
    }
}

/// Starts `heedful`, presses Ctrl-C when it says that a step begins whose name is asked for, and waits for its end.
#[cfg(unix)]
fn interrupted(
    folder: &std::path::Path,
    arguments: &str,
    mut is_last: impl FnMut(&str) -> bool,
) -> (std::process::Output, String) {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_heedful"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .env("HEEDFUL_STEPS", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let id = child.id().to_string();
    let mut pressed = false;
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().expect("a pipe")).lines() {
        let line = line.expect("text");
        if !pressed && is_last(&line) {
            let sent = Command::new("kill").args(["-INT", &id]).status();
            assert!(sent.expect("kill").success());
            pressed = true;
        }
        said += &format!("{line}\n");
    }
    assert!(pressed, "no such step: {said}");
    (child.wait_with_output().expect("it ends"), said)
}

#[test]
#[cfg(unix)]
fn ctrl_c_keeps_the_rows_that_were_measured() {
    if !adapter("ctrl_c_keeps_the_rows") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let one = |i: usize| format!("[[workload]]\nname = \"mine-{i}\"\nshape = \"1x2x33x16\"\n");
    // Each row takes half a second at least: never done before Ctrl-C comes.
    std::fs::write(at.join("own.toml"), (0..400).map(one).collect::<String>()).expect("written");
    let arguments = "bench --definitions own.toml --path fused --budget 0.5 --json rows.json \
                     --csv rows.csv --plot p.svg";
    std::fs::write(at.join("rows.json"), "an old record").expect("written");
    let (done, stderr) = interrupted(at, arguments, |line| line.contains("mine-1:"));
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("stopped by Ctrl-C after"), "{stderr}");
    let text = std::fs::read_to_string(at.join("rows.json")).expect("a record");
    let record: serde_json::Value = serde_json::from_str(&text).expect("a whole record");
    let rows = record["rows"].as_array().expect("rows").len();
    assert!((1..400).contains(&rows), "{rows} rows");
    let table = String::from_utf8_lossy(&done.stdout);
    assert!(table.contains("mine-0") && !table.contains("mine-399"), "{table}");
    let csv = std::fs::read_to_string(at.join("rows.csv")).expect("a table");
    assert_eq!(csv.lines().count(), rows + 1);
    assert!(at.join("p-paths.svg").exists());
}

#[test]
#[cfg(unix)]
fn tune_takes_a_list_of_dimensions_and_keeps_what_it_found_at_ctrl_c() {
    if !adapter("tune_takes_a_list") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    heedful(at, "tune --dims 64 0").refused(2, &["--dims", "0", "1..="]);
    heedful(at, "tune --dims 64,128 1900").refused(2, &["--dims", "1900"]);
    let arguments = "tune --dims 8 16 --budget 0.01 --out table.json";
    std::fs::write(at.join("table.json"), "an old table").expect("written");
    // When the second kernel begins, the first is found and more than one is left.
    let mut kernels = 0;
    let (done, stderr) = interrupted(at, arguments, |line| {
        kernels += u32::from(line.ends_with(", as shipped"));
        kernels == 2
    });
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("stopped by Ctrl-C after 1 of"), "{stderr}");
    let table = std::fs::read_to_string(at.join("table.json")).expect("a table");
    let table: serde_json::Value = serde_json::from_str(&table).expect("a whole table");
    assert!(table["provenance"].is_array(), "{table}");

    // Before the first kernel is found nothing is.
    std::fs::write(at.join("table.json"), "an old table").expect("written");
    let (done, stderr) = interrupted(at, arguments, |line| line.ends_with(", as shipped"));
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("nothing is written"), "{stderr}");
    let table = std::fs::read_to_string(at.join("table.json")).expect("a table");
    assert_eq!(table, "an old table");
}

#[test]
fn a_reader_that_stops_early_ends_the_program_without_a_word() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_heedful"))
        .args(["report", "tests/reports/software-adapters.json"])
        .current_dir(repository())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
