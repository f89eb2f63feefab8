//! What every feature must have beside its WGSL: a text, a serial form, a meaning, a case and a line of the table of
//! features.

use std::collections::BTreeSet;

use heedful::feature::mask::Masks;
use heedful::feature::slots;
use heedful::verify::cases::{Grid, grid};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::{Align, Attention, Problem, Shape};

const SHAPE: Shape =
    Shape { batch: 2, heads_q: 2, heads_kv: 1, seq_q: 12, seq_kv: 12, dim_qk: 4, dim_v: 4 };

/// A call of each example of each mask, with the mask's name.
fn calls() -> Vec<(String, Attention, Problem)> {
    let call = |masks: Masks| {
        let name = masks.iter().next().expect("one mask").slot().name.into_owned();
        let attention = Attention { masks, ..Attention::new(SHAPE) };
        let problem = attention.validate().unwrap_or_else(|e| panic!("example of {name}: {e}"));
        (name, attention, problem)
    };
    Masks::examples(&SHAPE).into_iter().map(call).collect()
}

#[test]
fn every_mask_file_has_its_place_and_an_example() {
    let files: BTreeSet<&str> =
        slots().filter(|slot| slot.kind == "mask").map(|slot| &*slot.name).collect();
    assert_eq!(files, Masks::NAMES.iter().copied().collect(), "slot files and places of masks");
    let calls = calls();
    let examples: BTreeSet<&str> = calls.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(files, examples, "masks and those with examples");
}

#[test]
fn every_mask_is_in_names_and_says_all_of_itself() {
    let mut texts = BTreeSet::new();
    for (name, attention, problem) in calls() {
        let text = attention.masks.iter().next().expect("one mask").text();
        assert!(problem.to_string().contains(&text), "{name}: {problem} lacks {text}");
        // Reports know a mask by the first word of its text; a boolean mask's is older than its file.
        let word = if name == "dense" { "mask" } else { &name };
        assert_eq!(text.split(['(', '[']).next(), Some(word), "{name}: {text}");
        assert!(texts.insert(text.clone()), "{name}: two unequal examples are called {text}");
    }
}

/// Every pair that an example keeps and hides: there are both, and none is kept outside the range that the
/// mask leaves.
#[test]
fn every_mask_has_a_meaning() {
    for (name, _, problem) in calls() {
        let data = CaseData::generate(&problem, 1, &DataOptions::default());
        let operands = data.operands();
        let mut seen = [0, 0];
        for [batch, head, row] in SHAPE.row_positions() {
            let at = problem.position(batch, head, row, &operands);
            let range = problem.key_range(&at);
            for key in 0..SHAPE.seq_kv {
                let at = heedful::Position { key, ..at };
                let keeps = problem.masks().iter().all(|x| x.keeps(&at, &operands, &SHAPE));
                assert!(
                    !keeps || range.contains(&key),
                    "{name}: {at:?} is kept, but not in {range:?}"
                );
                seen[usize::from(keeps)] += 1;
            }
        }
        assert!(seen.iter().all(|n| *n > 0), "{name}: {problem} hides and keeps {seen:?}");
    }
}

#[test]
fn every_mask_fills_the_parameters_that_its_file_declares() {
    for (name, _, problem) in calls() {
        for mask in problem.masks() {
            let set: Vec<_> = mask.parameters(&SHAPE).iter().map(|x| x.parameter).collect();
            assert_eq!(set, mask.slot().parameters, "{name}");
        }
    }
}

#[test]
fn every_mask_is_in_a_case() {
    let cases = grid(Grid::Quick).expect("distinct names");
    for name in Masks::NAMES {
        let has = |attention: &Attention| attention.masks.iter().any(|x| x.slot().name == *name);
        assert!(cases.iter().any(|case| has(&case.attention)), "{name} is in no case");
    }
}

#[test]
fn every_mask_is_in_the_table_of_features() {
    let page = include_str!("../docs/features.md");
    // Several, where the adapters' reports differ.
    let rows = page.lines().filter(|line| line.starts_with("| **Masks**"));
    let row: String = rows.collect::<Vec<_>>().join("\n");
    for slot in slots().filter(|slot| slot.kind == "mask") {
        let title = slot.title();
        assert!(row.contains(title), "docs/features.md lacks the mask {title:?}: {row}");
    }
}

#[test]
fn a_call_is_read_as_it_is_written() {
    for (name, attention, _) in calls() {
        let text = serde_json::to_string(&attention).expect("JSON");
        let read: Attention = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(read, attention, "{name}: {text}");
    }
}

#[test]
fn a_call_is_its_shape_and_what_differs() {
    let shape = serde_json::to_string(&SHAPE).expect("JSON");
    let read = |rest: &str| serde_json::from_str(&format!("{{\"shape\": {shape}{rest}}}"));
    assert_eq!(read("").ok(), Some(Attention::new(SHAPE)));
    let masks = r#", "masks": {"causal": {"align": "top_left"}, "window": {"left": 3, "align": "top_left"}}"#;
    let wanted = Attention::new(SHAPE).window(Some(3), None, Align::TopLeft).causal(Align::TopLeft);
    assert_eq!(read(masks).ok(), Some(wanted));
    for (rest, word) in [
        (r#", "colour": 1"#, "colour"),
        (r#", "masks": {"round": {}}"#, "round"),
        (r#", "masks": {"causal": {"align": "top_left", "colour": 1}}"#, "colour"),
        (r#", "masks": {"causal": {"align": "middle"}}"#, "middle"),
        (r#", "masks": {"causal": {}}"#, "align"),
        (r#", "custom_masks": []"#, "functions of the caller's own"),
    ] {
        let error = read(rest).expect_err(rest).to_string();
        assert!(error.contains(word), "{rest}: {error}");
    }
}

/// Whatever the order in which masks are given; of two of one kind the later stays.
#[test]
fn equal_calls_are_equal() {
    let call = || Attention::new(SHAPE);
    let align = Align::TopLeft;
    assert_eq!(
        call().causal(align).segments().chunked(4, align),
        call().chunked(4, align).segments().causal(align)
    );
    assert_eq!(call().chunked(5, align).chunked(4, align), call().chunked(4, align));
    assert_ne!(call().chunked(5, align), call().chunked(4, align));
}
