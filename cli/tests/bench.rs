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
            assert!(row["error"].is_null(), "{row}");
            assert!(row["name"].as_str().is_some_and(|name| name.contains(filter)), "{row}");
            assert!(row["time"]["median_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{row}");
            assert!(row["tolerance_ratio"].as_f64().is_some_and(|ratio| ratio <= 1.0), "{row}");
        }
    }
}
