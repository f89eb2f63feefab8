//! Folders of recorded cases: damaged ones are errors that name the file, unknown ones are refused
//! with a reason, and nothing in them makes the loader panic.

use std::fs;
use std::path::{Path, PathBuf};

use heedful::verify::golden::{GoldenSuite, Precision, Support};
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn recorded(suite: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(suite)
}

/// A folder with the arrays of one recorded case and an entry changed by `change`.
fn folder(name: &str, change: impl Fn(&mut Value)) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder)?;
    let cases: Value = serde_json::from_slice(&fs::read(recorded("jax").join("cases.json"))?)?;
    let mut case = cases[0].clone();
    fs::write(folder.join("grid000.npz"), fs::read(recorded("jax").join("grid000.npz"))?)?;
    change(&mut case);
    fs::write(folder.join("cases.json"), json!([case]).to_string())?;
    Ok(folder)
}

/// The message of the error that opening or loading the case gives, or the reason it is refused.
fn message(folder: &Path) -> String {
    let suite = match GoldenSuite::open(folder) {
        Ok(suite) => suite,
        Err(error) => return error.to_string(),
    };
    match suite.cases[0].load(Precision::Stored) {
        Ok(Support::Supported(_)) => "supported".into(),
        Ok(Support::Unsupported(reason)) => reason,
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_case_is_read_and_unknown_keys_are_ignored() -> Outcome {
    let folder = folder("unknown_keys", |case| {
        case["colour"] = json!("green");
        case["attributes"]["mood"] = json!([1]);
    })?;
    assert_eq!(message(&folder), "supported");
    assert_eq!(GoldenSuite::open(&folder)?.name, "unknown_keys");
    Ok(())
}

#[test]
fn what_is_not_computed_is_refused_with_a_reason() -> Outcome {
    for (key, value, reason) in [
        ("normalizer", json!("entmax3"), "normalizer entmax3: not computed"),
        ("score", json!("euclid"), "score euclid: not computed"),
    ] {
        let folder = folder(key, |case| case["attributes"][key] = value.clone())?;
        assert_eq!(message(&folder), reason);
    }
    for (kind, reason) in [
        ("retention", "kind retention: not an attention call"),
        ("varlen", "layout bhsd: only thd is read"),
    ] {
        let folder = folder("kind", |case| case["kind"] = json!(kind))?;
        assert_eq!(message(&folder), reason);
    }
    Ok(())
}

#[test]
fn malformed_entries_are_errors_that_say_where() -> Outcome {
    let cases: [(&str, &[&str], Value); 8] = [
        ("tolerance", &["tolerance"], json!(3)),
        ("dtype", &["dtype"], json!("f8")),
        ("file", &["file"], json!("../grid000.npz")),
        ("scale", &["attributes", "scale"], json!("large")),
        ("causal", &["attributes", "causal"], json!({"offset": 1.5})),
        ("window", &["attributes", "window"], json!({"left": -1})),
        ("array", &["inputs", "q"], json!("missing")),
        ("q", &["inputs", "q"], json!("bias")),
    ];
    for (what, path, value) in cases {
        let change = |case: &mut Value| {
            *path.iter().fold(case, |at, key| &mut at[*key]) = value.clone();
        };
        let text = message(&folder(&format!("malformed_{what}"), change)?);
        assert!(text.contains("want") && text.contains(what), "{what}: {text}");
    }
    Ok(())
}

#[test]
fn cut_files_are_errors_that_name_the_file() -> Outcome {
    let folder = folder("cut", |_| {})?;
    let path = folder.join("grid000.npz");
    let whole = fs::read(&path)?;
    for cut in (0..whole.len()).step_by(97) {
        fs::write(&path, &whole[..cut])?;
        let text = message(&folder);
        assert!(text.contains("grid000.npz"), "cut at {cut}: {text}");
    }
    // A byte changed anywhere: an error or another value, never a panic.
    for i in (0..whole.len()).step_by(13) {
        let mut changed = whole.clone();
        changed[i] ^= 0xff;
        fs::write(&path, changed)?;
        message(&folder);
    }
    fs::write(folder.join("cases.json"), "[{\"name\": ")?;
    assert!(message(&folder).contains("cases.json"));
    assert!(message(&folder.join("nowhere")).contains("cases.json"));
    Ok(())
}
