//! The case catalogue: names, data, and the tolerance that is measured for each case.

use std::collections::HashSet;

use heedful::Error;
use heedful::reference::{Order, emulate};
use heedful::verify::cases::{Grid, SEEN, grid};
use heedful::verify::truth::Truth;

#[test]
fn every_case_is_valid_and_has_a_name_of_its_own() -> Result<(), Error> {
    let (quick, full) = (grid(Grid::Quick), grid(Grid::Full));
    assert!((120..430).contains(&quick.len()), "quick: {}", quick.len());
    assert!((500..1500).contains(&full.len()), "full: {}", full.len());
    let mut names = HashSet::new();
    for case in &full {
        assert!(names.insert(&case.name), "twice: {}", case.name);
        case.attention.validate()?;
    }
    assert!(quick.iter().all(|case| names.contains(&case.name)));
    Ok(())
}

#[test]
fn data_is_deterministic_and_fits_its_problem() -> Result<(), Error> {
    for case in grid(Grid::Quick) {
        let (problem, data) = case.generate()?;
        data.inputs().validate(&problem)?;
        let again = case.generate()?.1;
        let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&data.q), bits(&again.q), "{}", case.name);
        assert_eq!(bits(&data.v), bits(&again.v), "{}", case.name);
    }
    Ok(())
}

#[test]
fn a_tiled_computation_passes_every_case_by_the_errors_of_the_plain_ones() -> Result<(), Error> {
    let mut worst = Vec::new();
    for case in grid(Grid::Quick) {
        let (problem, data) = case.generate()?;
        let inputs = data.inputs();
        let truth = Truth::measure_with(&problem, &inputs, &[Order::Forward, Order::Reversed])?;
        let found = emulate(&problem, &inputs, Order::Blocked)?;
        for (operand, comparison) in truth.check(&problem, &found) {
            if !comparison.pass {
                worst.push(format!("{} {operand}: {}", case.name, comparison.message()));
            }
        }
    }
    assert!(worst.is_empty(), "{} failures:\n{}", worst.len(), worst.join("\n"));
    Ok(())
}

#[test]
fn what_is_masked_does_not_leak_into_any_case() -> Result<(), Error> {
    // Where a NaN is there to be seen, it is.
    for case in grid(Grid::Quick).into_iter().filter(|case| !case.data.special) {
        let (problem, data) = case.generate()?;
        let truth = Truth::measure_with(&problem, &data.inputs(), &[])?;
        assert!(truth.outputs.o.iter().all(|x| x.is_finite()), "{}", case.name);
        assert!(truth.outputs.lse.iter().all(|x| !x.is_nan()), "{}", case.name);
    }
    Ok(())
}

/// A case in which a NaN is seen has rows that see it and rows that do not.
#[test]
fn a_special_value_shows_in_some_rows_only() -> Result<(), Error> {
    let mut cases = grid(Grid::Quick);
    cases.retain(|case| case.data.special);
    assert!(!cases.is_empty());
    for case in cases {
        let (problem, data) = case.generate()?;
        let truth = Truth::measure_with(&problem, &data.inputs(), &[])?;
        let shown = truth.outputs.o.iter().filter(|x| !x.is_finite()).count();
        assert!(shown > 0 && shown < truth.outputs.o.len(), "{}", case.name);
    }
    Ok(())
}

#[test]
fn everything_seen_elsewhere_has_a_case_that_names_it() {
    let cases = grid(Grid::Full);
    for seen in SEEN {
        let named = cases.iter().filter(|case| case.seen == Some(seen));
        let suffix = format!(" seen({})", seen.issue);
        let names: Vec<&str> = named.map(|case| case.name.as_str()).collect();
        assert!(!names.is_empty(), "{} has no case", seen.issue);
        assert!(names.iter().all(|name| name.ends_with(&suffix)), "{names:?}");
    }
    for case in cases.iter().filter_map(|case| case.seen) {
        assert!(SEEN.contains(&case), "{} is not listed", case.issue);
    }
}
