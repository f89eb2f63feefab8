//! What every mask and score modifier must have beside its WGSL: a text, a serial form, a meaning, a case and a line of
//! the table of features.
use std::collections::BTreeSet;

use heedful::feature::mask::Masks;
use heedful::feature::{Slot, slots};
use heedful::verify::cases::{Grid, backward_grid, grid};
use heedful::verify::data::{CaseData, DataOptions};
use heedful::{Align, Attention, Backward, Operand, Problem, Shape};

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

/// A call of the quick grid for each file of score modifiers, with its problem.
fn scored() -> Vec<(&'static Slot, Attention, Problem)> {
    let calls: Vec<(Attention, Problem)> = grid(Grid::Quick)
        .expect("distinct names")
        .into_iter()
        .filter(|case| case.attention.shape.scores().iter().all(|n| *n > 1))
        .filter_map(|case| Some((case.attention.clone(), case.attention.validate().ok()?)))
        .collect();
    let of = |slot: &'static Slot| {
        let has = |call: &&(Attention, Problem)| call.1.scores().iter().any(|x| x.slot() == *slot);
        let least = calls.iter().filter(has).min_by_key(|call| call.0.shape.rows());
        let (attention, problem) =
            least.unwrap_or_else(|| panic!("score modifier {:?} is in no case", slot.name));
        (slot, attention.clone(), problem.clone())
    };
    slots().filter(|slot| slot.kind == "score").map(of).collect()
}

#[test]
fn every_score_modifier_is_in_names_and_files_of_calls() {
    for (slot, attention, problem) in scored() {
        let name = &slot.name;
        let score = problem.scores().into_iter().find(|x| x.slot() == *slot).expect("its modifier");
        match score.text() {
            Some(text) => assert!(problem.to_string().contains(&text), "{problem} lacks {text}"),
            // Another feature or the call says it.
            None => assert!(!slot.listed, "{name} has no text"),
        }
        let text = serde_json::to_string(&attention).expect("JSON");
        let read: Attention = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(read, attention, "{name}: {text}");
    }
}

#[test]
fn every_score_modifier_fills_the_parameters_that_its_file_declares() {
    for (slot, _, problem) in scored() {
        for score in problem.scores() {
            let set: Vec<_> = score.parameters().iter().map(|x| x.parameter).collect();
            // A bias in 16 bits reads what the bias declares.
            let silent =
                score.slot().parameters.is_empty() && score.slot().name.starts_with("bias_");
            assert!(silent || set == score.slot().parameters, "{}: {:?}", slot.name, score.slot());
        }
    }
}

/// A modifier changes some score that is seen, and its derivative is that of its meaning.
#[test]
fn every_score_modifier_has_a_meaning_and_its_derivative() {
    for (slot, attention, problem) in scored() {
        let data = CaseData::generate(&problem, 1, &DataOptions::default());
        let operands = data.operands();
        let score = problem.scores().into_iter().find(|x| x.slot() == *slot).expect("its modifier");
        let mut changed = 0;
        for [batch, head, row] in attention.shape.row_positions() {
            let at = problem.position(batch, head, row, &operands);
            for key in problem.key_range(&at).take(20) {
                let at = heedful::Position { key, ..at };
                let s = 0.1 * f64::from(key) - 0.7;
                let new = score.apply(s, &at, &operands);
                changed += usize::from(new != s);
                if new.is_finite() {
                    let step = 1e-5;
                    let [up, down] = [s + step, s - step].map(|s| score.apply(s, &at, &operands));
                    let (found, wanted) =
                        (score.derivative(s, &at, &operands), (up - down) / (2.0 * step));
                    let close = (found - wanted).abs() <= 1e-6 * wanted.abs().max(1.0);
                    assert!(close, "{} at {at:?}: {found}, want {wanted}", slot.name);
                }
            }
        }
        assert!(changed > 0, "{} changes no score of {problem}", slot.name);
    }
}

/// What may have a gradient has a kernel that makes it, in some case.
#[test]
fn every_gradient_is_in_a_case() {
    let cases = backward_grid(Grid::Quick).expect("distinct names");
    let wanted: BTreeSet<Operand> =
        cases.iter().flat_map(|case| case.backward.wanted.clone()).collect();
    let may = |operand: &Operand| {
        let call = Attention::new(SHAPE);
        let error = Backward::of(call).only(&[*operand]).validate().err();
        error.is_none_or(|error| error.to_string().contains("a call without it"))
    };
    let all: BTreeSet<Operand> = Operand::ALL.iter().copied().filter(may).collect();
    assert_eq!(all, wanted, "operands `with gradient` and those that cases have gradients of");
    assert!(!all.contains(&Operand::RotaryCos) && all.contains(&Operand::Relative));
}

/// Each tensor of a call comes with some call, as many values as it has elements.
#[test]
fn every_tensor_is_in_a_case() {
    let mut missing: BTreeSet<Operand> = Operand::ALL.iter().copied().collect();
    for case in grid(Grid::Full).expect("distinct names") {
        let Ok(problem) = case.attention.validate() else { continue };
        missing.retain(|operand| problem.elements(*operand).is_none());
    }
    // Words for functions of the caller's own, of which no case has any.
    assert_eq!(missing, [Operand::Table].into(), "in no case");
}

#[test]
fn every_mask_and_score_modifier_is_in_the_table_of_features() {
    let page = include_str!("../docs/features.md");
    for (kind, group) in [("mask", "| **Masks**"), ("score", "| **Scores**")] {
        // Several, where the adapters' reports differ.
        let rows = page.lines().filter(|line| line.starts_with(group));
        let row: String = rows.collect::<Vec<_>>().join("\n");
        for slot in slots().filter(|slot| slot.kind == kind && slot.listed) {
            let title = slot.title();
            assert!(row.contains(title), "docs/features.md lacks {title:?}: {row}");
        }
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
