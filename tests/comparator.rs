//! The comparator is code under test: every way a result can be wrong must make it fail, and
//! exactness and honest rounding must pass.

use heedful::reference::{Inputs, Order, Outputs, emulate};
use heedful::verify::compare::{Measurement, Tolerance, compare};
use heedful::verify::truth::Truth;
use heedful::{Align, Attention, DType, Error, Problem, Shape, WeightsAt};

struct Call {
    problem: Problem,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
}

impl Call {
    fn new(dtype: DType) -> Result<Self, Error> {
        let shape = Shape { seq_kv: 24, ..Shape::self_attention(2, 3, 16, 8) };
        // Rows 0..3 see no key, so that empty rows are among what is compared.
        let attention = Attention::new(shape).dtype(dtype).causal(Align::Offset(-3)).with_lse();
        let problem = attention.with_weights(WeightsAt::Probabilities).validate()?;
        let wave = |n: u64, step: f64| -> Vec<f64> {
            (0..n).map(|i| dtype.round((i as f64 * step).sin() * 2.0)).collect()
        };
        let [q, k, v, _] = shape.elements();
        Ok(Self { problem, q: wave(q, 0.7), k: wave(k, 1.3), v: wave(v, 2.9) })
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs { q: &self.q, k: &self.k, v: &self.v, operands: Default::default() }
    }

    fn truth(&self) -> Result<Truth, Error> {
        Truth::measure(&self.problem, &self.inputs())
    }

    /// An honest result, spoiled by `spoil`; true when every output passes.
    fn passes(&self, spoil: impl Fn(&mut Outputs)) -> Result<bool, Error> {
        let mut found = emulate(&self.problem, &self.inputs(), Order::Forward)?;
        spoil(&mut found);
        let comparisons = self.truth()?.check(&self.problem, &found);
        assert_eq!(comparisons.len(), 3);
        Ok(comparisons.iter().all(|(_, comparison)| comparison.pass))
    }
}

fn all_dtypes(check: impl Fn(&Call) -> Result<(), Error>) -> Result<(), Error> {
    DType::ALL.into_iter().try_for_each(|dtype| check(&Call::new(dtype)?))
}

/// Row (batch 1, head 2, row 9) of o, in elements.
const ROW: std::ops::Range<usize> = 8 * (5 * 16 + 9)..8 * (5 * 16 + 10);

#[test]
fn honest_rounding_passes() -> Result<(), Error> {
    all_dtypes(|call| {
        for order in Order::ALL {
            let found = emulate(&call.problem, &call.inputs(), order)?;
            for (operand, comparison) in call.truth()?.check(&call.problem, &found) {
                assert!(comparison.pass, "{operand} {order:?}: {}", comparison.message());
            }
        }
        Ok(())
    })
}

#[test]
fn an_order_of_summation_not_measured_passes() -> Result<(), Error> {
    all_dtypes(|call| {
        let orders = [Order::Forward, Order::Reversed];
        let truth = Truth::measure_with(&call.problem, &call.inputs(), &orders)?;
        let found = emulate(&call.problem, &call.inputs(), Order::Blocked)?;
        for (operand, comparison) in truth.check(&call.problem, &found) {
            assert!(comparison.pass, "{operand}: {}", comparison.message());
        }
        Ok(())
    })
}

#[test]
fn the_truth_itself_passes_with_ratio_zero() -> Result<(), Error> {
    all_dtypes(|call| {
        let truth = call.truth()?;
        for (_, comparison) in truth.check(&call.problem, &truth.outputs) {
            assert!(comparison.pass);
            assert_eq!((comparison.tolerance_ratio, comparison.max_abs), (0.0, 0.0));
            assert_eq!(comparison.worst_row, None);
        }
        Ok(())
    })
}

#[test]
fn one_nan_fails_and_is_located() -> Result<(), Error> {
    let call = Call::new(DType::F32)?;
    let truth = call.truth()?;
    let mut o = truth.outputs.o.clone();
    o[ROW.start + 5] = f64::NAN;
    let comparison = truth.check_o(&o);
    assert!(!comparison.pass);
    assert_eq!(comparison.class_mismatches, 1);
    assert_eq!(comparison.worst_row, Some(ROW.start / 8));
    assert_eq!(comparison.worst_element, Some(ROW.start + 5));
    assert!(comparison.message().contains("row 89, column 5"), "{}", comparison.message());
    Ok(())
}

#[test]
fn one_wrong_element_fails() -> Result<(), Error> {
    all_dtypes(|call| {
        for error in [-1e-1, 3e-2] {
            assert!(!call.passes(|x| x.o[ROW.start] += error)?, "{}", call.problem);
        }
        assert!(!call.passes(|x| x.lse[89] += 1e-4)?);
        assert!(!call.passes(|x| x.weights.iter_mut().for_each(|w| w[89 * 24] += 1e-4))?);
        Ok(())
    })
}

#[test]
fn a_shifted_row_fails() -> Result<(), Error> {
    all_dtypes(|call| {
        assert!(!call.passes(|x| x.o[ROW].rotate_right(1))?);
        assert!(!call.passes(|x| x.o.copy_within(ROW, ROW.start - 8))?);
        assert!(!call.passes(|x| x.o.rotate_right(8))?);
        Ok(())
    })
}

#[test]
fn swapped_heads_fail() -> Result<(), Error> {
    all_dtypes(|call| {
        let head = 16 * 8;
        assert!(!call.passes(|x| {
            let (first, second) = x.o.split_at_mut(head);
            first.swap_with_slice(&mut second[..head]);
        })?);
        assert!(!call.passes(|x| x.lse.rotate_right(16))?);
        Ok(())
    })
}

#[test]
fn a_buffer_never_written_fails() -> Result<(), Error> {
    all_dtypes(|call| {
        for poison in [0.0, f64::NAN] {
            assert!(!call.passes(|x| x.o.fill(poison))?, "o = {poison}");
            assert!(!call.passes(|x| x.lse.fill(poison))?, "lse = {poison}");
            let fill = |x: &mut Outputs| x.weights.iter_mut().for_each(|w| w.fill(poison));
            assert!(!call.passes(fill)?, "weights = {poison}");
            assert!(!call.passes(|x| x.o[ROW].fill(poison))?, "a row of o = {poison}");
        }
        Ok(())
    })
}

#[test]
fn garbage_in_an_empty_row_fails() -> Result<(), Error> {
    all_dtypes(|call| {
        assert!(!call.passes(|x| x.o[0] = 1e-9)?);
        assert!(!call.passes(|x| x.lse[0] = -1e30)?, "a finite sentinel is not −∞");
        assert!(!call.passes(|x| x.lse[0] = f64::INFINITY)?);
        assert!(!call.passes(|x| x.lse[89] = f64::NEG_INFINITY)?);
        assert!(!call.passes(|x| x.weights.iter_mut().for_each(|w| w[0] = 1e-9))?);
        Ok(())
    })
}

#[test]
fn lengths_must_agree() -> Result<(), Error> {
    let call = Call::new(DType::F32)?;
    assert!(!call.passes(|x| x.o.truncate(8))?);
    assert!(!call.passes(|x| x.o.push(0.0))?);
    assert!(!call.passes(|x| x.lse.clear())?);
    assert!(!call.passes(|x| x.weights = None)?);
    let recorded = Tolerance::Recorded { rtol: 1.0, atol: 1.0 };
    let comparison = compare(&[], &[1.0], 1, &recorded);
    assert!(!comparison.pass);
    assert_eq!(comparison.message(), "length: found 1 elements, want 0");
    assert!(!compare(&[1.0], &[], 1, &recorded).pass);
    assert!(compare(&[], &[], 1, &recorded).pass);
    Ok(())
}

#[test]
fn recorded_tolerance_is_elementwise() {
    let tolerance = Tolerance::Recorded { rtol: 1e-3, atol: 1e-6 };
    let expected = [1000.0, 1.0, 0.0, f64::NEG_INFINITY, f64::NAN];
    let passes = |i: usize, x: f64| {
        let mut found = expected;
        found[i] = x;
        compare(&expected, &found, 5, &tolerance).pass
    };
    assert!(passes(0, 1000.9) && !passes(0, 1001.1));
    assert!(passes(1, 1.0009) && !passes(1, 1.9));
    assert!(passes(2, 1e-6) && !passes(2, 1.1e-6));
    assert!(!passes(3, f64::MIN) && !passes(3, f64::INFINITY) && !passes(3, f64::NAN));
    assert!(!passes(4, 0.0) && !passes(4, f64::INFINITY));
}

#[test]
fn overflow_of_the_storage_type_is_the_class_wanted() {
    let expected = [70_000.0, 1.0];
    let tolerance = Tolerance::measured(&Measurement {
        expected: &expected,
        emulated: &[],
        row_len: 2,
        dtype: DType::F16,
        unit: 0.0,
        lse: &[],
        terms: &[],
    });
    assert!(compare(&expected, &[f64::INFINITY, 1.0], 2, &tolerance).pass);
    assert!(!compare(&expected, &[65_504.0, 1.0], 2, &tolerance).pass);
}

#[test]
fn the_worst_element_is_the_one_furthest_beyond_its_allowance() {
    let tolerance = Tolerance::Recorded { rtol: 1e-3, atol: 0.0 };
    let comparison = compare(&[1.0, 1000.0], &[1.01, 1000.5], 1, &tolerance);
    assert_eq!((comparison.worst_row, comparison.max_abs), (Some(0), 0.5));
    assert!((comparison.tolerance_ratio - 10.0).abs() < 1e-9);
    assert!((comparison.max_rel - 0.01).abs() < 1e-12);
}

/// A row of one output with its lse, and whether a found row passes.
fn row_passes(dtype: DType, expected: &[f64], lse: f64, found: &[f64]) -> bool {
    let (row_len, lse) = (expected.len(), [lse]);
    let emulated: &[&[f64]] = &[expected];
    let of = Measurement { expected, emulated, row_len, dtype, unit: 0.0, lse: &lse, terms: &[] };
    compare(expected, found, row_len, &Tolerance::measured(&of)).pass
}

#[test]
fn what_drivers_flush_to_zero_passes_and_no_more() {
    // Nothing but weights that round to 0: what is left may be subnormal, in rows that see something.
    let zeros = [0.0; 3];
    assert!(row_passes(DType::F32, &zeros, -1e4, &[6e-39, 0.0, -1e-38]));
    assert!(!row_passes(DType::F32, &zeros, -1e4, &[3e-38, 0.0, 0.0]));
    assert!(!row_passes(DType::F16, &zeros, -1e4, &[6e-8, 0.0, 0.0]), "half's own smallest");
    assert!(!row_passes(DType::F32, &zeros, f64::NEG_INFINITY, &[6e-39, 0.0, 0.0]), "sees nothing");
    // An element below the smallest normal number is right as 0 and as itself, and as nothing else.
    assert!(row_passes(DType::F32, &[1e-39, 0.0], 0.0, &[0.0, 0.0]));
    for (dtype, below, above) in [(DType::F16, 3e-5, 7e-5), (DType::Bf16, 9e-39, 1.3e-37)] {
        let row = |x: f64| [dtype.round(x), 1000.0 * dtype.round(x)];
        for x in [below, above] {
            assert!(row_passes(dtype, &row(x), 0.0, &row(x)), "{dtype} {x}");
        }
        assert!(row_passes(dtype, &row(below), 0.0, &[0.0, row(below)[1]]), "{dtype}");
    }
    let half = |x: f64| DType::F16.round(x);
    assert!(!row_passes(DType::F16, &[half(7e-5), 1e-3], 0.0, &[0.0, 1e-3]), "not subnormal");
    assert!(!row_passes(DType::F16, &[half(3e-5), 1e-3], 0.0, &[half(1e-4), 1e-3]), "not 0");
    assert!(!row_passes(DType::F16, &[half(3e-5); 2], 0.0, &[0.0, half(6e-5)]), "the other one");
}
