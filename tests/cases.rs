//! The case catalogue: names, data, and the tolerance that is measured for each case.

use std::collections::HashSet;

use heedful::Error;
use heedful::reference::{Order, emulate};
use heedful::verify::cases::{Grid, grid};
use heedful::verify::truth::Truth;

#[test]
fn every_case_is_valid_and_has_a_name_of_its_own() -> Result<(), Error> {
    let (quick, full) = (grid(Grid::Quick), grid(Grid::Full));
    assert!((120..420).contains(&quick.len()), "quick: {}", quick.len());
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
    for case in grid(Grid::Quick) {
        let (problem, data) = case.generate()?;
        let truth = Truth::measure_with(&problem, &data.inputs(), &[])?;
        assert!(truth.outputs.o.iter().all(|x| x.is_finite()), "{}", case.name);
        assert!(truth.outputs.lse.iter().all(|x| !x.is_nan()), "{}", case.name);
    }
    Ok(())
}
