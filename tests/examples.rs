//! The examples run and print what they promise; the sentence model meets its own implementation.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "common/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs an example that `cargo test` has built beside this test, and returns what it prints.
fn printed(name: &str, arguments: &[&str]) -> String {
    let test = std::env::current_exe().unwrap();
    let folder: PathBuf = test.parent().unwrap().parent().unwrap().join("examples");
    let program = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let run = Command::new(&program).args(arguments).env("PRINT_EMBEDDINGS", "1").output();
    let run = run.unwrap_or_else(|e| {
        panic!("{}: {e} (a whole `cargo test` builds the examples)", program.display())
    });
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{name}: {}\n{text}\n{errors}", run.status);
    text
}

/// The numbers that stand before `unit` in a text, in order.
fn before(text: &str, unit: &str) -> Vec<f64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| pair[1].starts_with(unit));
    pairs.filter_map(|pair| pair[0].parse().ok()).collect()
}

#[test]
fn the_two_saws_differ_by_position_only() {
    let text = printed("sequence_labeling", &[]);
    let apart: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split("differ by at most ").nth(1)?.trim().parse().ok())
        .collect();
    assert_eq!(apart.len(), 2, "{text}");
    assert!(apart[0] == 0.0 && apart[1] > 0.05, "{text}");
}

#[test]
fn speech_needs_no_scratch_and_work_that_grows_with_its_length() {
    let text = printed("speech_window", &["4000"]);
    let rows: Vec<Vec<f64>> = text
        .lines()
        .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .filter(|row: &Vec<f64>| row.len() == 6)
        .collect();
    assert_eq!(rows.len(), 3, "{text}");
    let growth = rows[2][2] / rows[1][2];
    assert!((1.9..2.2).contains(&growth), "{text}");
    assert!(rows.iter().all(|row| row[4] == 0.0), "{text}");
}

#[test]
fn both_pictures_are_cleaner_than_the_noise() {
    let text = printed("image_neighborhood", &[]);
    let decibel = before(&text, "dB");
    assert_eq!(decibel.len(), 3, "{text}");
    assert!(decibel[1] > decibel[0] + 5.0 && decibel[2] > decibel[0] + 5.0, "{text}");
}

#[test]
fn atoms_listen_along_their_bonds() {
    let text = printed("graph_attention", &[]);
    assert!(text.contains("C1 listens to N1 100 %"), "{text}");
    assert!(text.contains("Na listens to nobody"), "{text}");
    let apart = text.split("differ by ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(apart.parse::<f64>().unwrap() < 1e-5, "{text}");
}

#[test]
fn each_output_word_looks_at_its_own_input_word() {
    let text = printed("translation_decoder", &[]);
    for (row, word) in ["the", "house", "is", "very", "old"].iter().enumerate() {
        let lines = text.lines().filter(|line| line.starts_with(word));
        for line in lines {
            let cells = line.split_whitespace().filter_map(|cell| cell.parse::<f64>().ok());
            let cells: Vec<f64> = cells.collect();
            assert_eq!(cells.len(), 5, "{line}");
            assert!(cells.iter().all(|cell| *cell <= cells[row]), "{line}");
        }
    }
    assert!(text.contains("general") && text.contains("additive"), "{text}");
}

/// The weights of the maps that a text holds, map by map, row by row.
fn maps(text: &str, rows: &[&str]) -> Vec<Vec<f64>> {
    let lines = text.lines().filter(|line| rows.iter().any(|row| line.starts_with(row)));
    lines
        .map(|line| line.split_whitespace().filter_map(|cell| cell.parse().ok()).collect())
        .collect()
}

#[test]
fn a_layer_learns_to_look_behind_its_marker() {
    let text = printed("learn_qkv", &[]);
    let loss = |line: &str| {
        let mut words = line.split_whitespace();
        let [step, loss] = [words.next()?, words.next()?];
        Some((step.parse::<usize>().ok()?, loss.parse::<f64>().ok()?))
    };
    let losses: Vec<f64> = text.lines().filter_map(loss).map(|(_, loss)| loss).collect();
    assert_eq!(losses.len(), 9, "{text}");
    // Eight letters: ln 8 is what guessing costs.
    assert!(losses[0] > 1.9 && losses[8] < 0.02, "{text}");
    assert!(losses[5..].windows(2).all(|pair| pair[1] < pair[0]), "{text}");
    assert!(text.contains("384 of 384 answers right"), "{text}");
    // Before, no marker looks anywhere in particular; after, each at the token behind it.
    let markers = ["▲", "●", "■"];
    let maps = maps(&text, &markers);
    assert_eq!(maps.len(), 6, "{text}");
    assert!(maps[..3].iter().flatten().all(|weight| *weight < 0.3), "{text}");
    let heading = text.lines().find(|line| line.trim_start() != *line && line.contains('▲'));
    let columns: Vec<&str> = heading.unwrap().split_whitespace().collect();
    for (marker, weights) in markers.iter().zip(&maps[3..]) {
        let behind = columns.iter().position(|column| column == marker).unwrap() + 1;
        assert_eq!(weights.len(), columns.len(), "{text}");
        assert!(weights[behind] > 0.5, "{marker} looks elsewhere\n{text}");
    }
}

#[test]
fn the_callers_own_functions_run() {
    assert!(printed("custom_mask", &[]).contains("largest difference"));
    printed("custom_score", &[]);
}

#[test]
fn sentences_are_embedded_as_the_model_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = root.join("target/minilm");
    if !model.join("model.safetensors").exists() {
        let why = format!("{} is not there; tests/minilm.sh fetches it", model.display());
        return skip::skipped("sentences_are_embedded_as_the_model_does", why);
    }
    let text = printed("sentence_embedding", &[&model.to_string_lossy()]);
    let recorded = std::fs::read(root.join("tests/golden/real/embeddings.json")).unwrap();
    let recorded: serde_json::Value = serde_json::from_slice(&recorded).unwrap();
    let wanted = recorded["embeddings"].as_array().unwrap();
    let found: Vec<Vec<f64>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("embedding "))
        .map(|line| line.split(' ').map(|x| x.parse().unwrap()).collect())
        .collect();
    assert_eq!(found.len(), wanted.len());
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let wanted: Vec<f64> =
            wanted.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let cosine = dot(found, &wanted) / (dot(found, found) * dot(&wanted, &wanted)).sqrt();
        assert!(1.0 - cosine < 1e-4, "sentence {i}: cosine distance {:e}", 1.0 - cosine);
        println!("sentence {i}: cosine distance {:.1e}", 1.0 - cosine);
    }
}

/// The numbers behind "differs by at most", in order.
fn differences(text: &str) -> Vec<f64> {
    let number = |part: &str| part.split([',', '\n']).next().and_then(|x| x.trim().parse().ok());
    text.split("differs by at most").skip(1).filter_map(number).collect()
}

#[test]
fn steps_through_a_cache_are_one_call_over_all_tokens() {
    let text = printed("generate_step", &[]);
    let off = differences(&text);
    // f32, f16, bf16, int8, int4; e4m3, e5m2, both with scales of rows, MXFP4: each by its own rounding, and no more.
    let allowed = [1e-6, 1e-3, 8e-3, 2e-2, 0.1, 0.05, 0.1, 0.05, 0.1, 0.3];
    assert_eq!(off.len(), allowed.len(), "{text}");
    assert!(off.iter().zip(allowed).all(|(off, allowed)| *off < allowed), "{text}");
}

#[test]
fn halves_on_two_devices_make_the_whole() {
    let off = differences(&printed("two_devices", &[]));
    assert!(off.len() == 1 && off[0] < 1e-6, "{off:?}");
}

#[test]
fn an_application_keeps_everything_in_one_buffer_of_its_own_device() {
    let text = printed("own_device", &[]);
    let off = differences(&text);
    assert!(off.len() == 1 && off[0] < 1e-6, "{text}");
    assert!(text.contains("the same bits in one pass: true"), "{text}");
}
