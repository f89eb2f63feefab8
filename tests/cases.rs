//! The case catalogue: names, data, and the tolerance that is measured for each case.

use std::collections::{HashMap, HashSet};

use heedful::feature::mask::{Axis, Bits, Neighborhood, Tree};
use heedful::feature::score::Relative;
use heedful::reference::{Order, emulate};
use heedful::verify::cases::{Case, Grid, SEEN, backward_grid, grid};
use heedful::verify::data::DataOptions;
use heedful::verify::truth::Truth;
use heedful::{
    Activation, Align, Attention, Blocks, DType, Edges, Error, Inner, KvScales, Layout, Normalizer,
    Rotary, Scalar, Shape, Storage, Strides, WeightsAt,
};

#[test]
fn every_case_is_valid_and_has_a_name_of_its_own() -> Result<(), Error> {
    let (quick, full) = (grid(Grid::Quick)?, grid(Grid::Full)?);
    assert!((120..700).contains(&quick.len()), "quick: {}", quick.len());
    assert!((500..1800).contains(&full.len()), "full: {}", full.len());
    let mut names = HashSet::new();
    for case in &full {
        assert!(names.insert(&case.name), "twice: {}", case.name);
        case.attention.validate()?;
    }
    assert!(quick.iter().all(|case| names.contains(&case.name)));
    for case in grid(Grid::Matrix)? {
        case.attention.validate()?;
    }
    let mut names = HashSet::new();
    for case in backward_grid(Grid::Full)? {
        assert!(names.insert(case.name.clone()), "twice: {}", case.name);
    }
    let quick = backward_grid(Grid::Quick)?;
    assert!((140..300).contains(&quick.len()), "gradients, quick: {}", quick.len());
    assert!(quick.iter().all(|case| names.contains(&case.name)));
    Ok(())
}

/// Calls that differ in one field or one number of it: a field that names leave out makes two cases one.
#[test]
fn a_name_says_what_the_call_is() {
    let base = || Attention::new(Shape::self_attention(2, 4, 24, 16));
    let turned = |change: fn(&mut Rotary)| {
        let mut rotary = Rotary { at_end: true, ..Rotary::new(8, 90) };
        change(&mut rotary);
        base().rotary(rotary)
    };
    let sum = |activation, per_head| {
        let inner_scale = Scalar(1.0);
        Attention { inner: Inner::Sum { activation, inner_scale, per_head }, ..base() }
    };
    let leaky = |slope| Activation::LeakyRelu { slope: Scalar(slope) };
    let near = |axes| base().neighborhood(Neighborhood(axes));
    let (one, whole) = (Axis::new(1, 1), Axis::new(24, 5));
    let blocks = |batch, heads| base().blocks(Blocks { batch, heads, ..Blocks::new(8, 8) });
    let relu = |power, divisor| Normalizer::Relu { power, divisor: Scalar(divisor) };
    let wide = Layout::Strided(Strides { batch: 4 * 24 * 20, head: 24 * 20, row: 20 });
    let calls = [
        base(),
        Attention::new(Shape::self_attention(2, 4, 16, 24)),
        base().dtype(DType::F16),
        base().kv_storage(Storage::F32),
        base().kv_storage(Storage::E4m3),
        base().kv_storage(Storage::E4m3).kv_scales(KvScales::Tensor),
        base().kv_storage(Storage::E4m3).kv_scales(KvScales::Head),
        base().scale(2.0),
        base().causal(Align::TopLeft),
        base().causal(Align::Offset(1)),
        base().window(Some(3), None, Align::TopLeft),
        base().window(None, Some(3), Align::TopLeft),
        sum(Activation::Tanh, false),
        sum(Activation::Tanh, true),
        sum(leaky(0.1), false),
        sum(leaky(0.1), true),
        sum(leaky(0.2), true),
        turned(|_| {}),
        turned(|x| x.dim = 6),
        turned(|x| x.interleaved = true),
        turned(|x| x.table_rows = 91),
        turned(|x| x.ids = true),
        turned(|x| x.key_ids = true),
        turned(|x| (x.ids, x.shared_ids) = (true, true)),
        turned(|x| x.q_start = 1),
        turned(|x| x.at_end = false),
        turned(|x| x.keys_from = 1),
        turned(|x| x.k_start = 1),
        base().cosine(1e-6),
        base().cosine_scaled(1e-6),
        base().cosine_scaled(1e-5),
        base().general(5),
        base().relative(Relative { left: 1, right: 2, offset: 3 }),
        base().relative(Relative { left: 1, right: 2, offset: 0 }),
        base().normalizer(relu(1, 2.0)),
        base().normalizer(relu(2, 2.0)),
        base().normalizer(relu(2, 3.0)),
        base().normalizer(Normalizer::Sample { seed: 1 }),
        base().normalizer(Normalizer::Sample { seed: 2 }),
        base().dilated(2, Align::TopLeft),
        base().chunked(2, Align::TopLeft),
        near([one, one, whole]),
        near([one, whole, one]),
        near([one, one, Axis { causal: true, ..whole }]),
        near([one, one, Axis { stride: 2, ..whole }]),
        near([one, one, Axis { dilation: 2, ..whole }]),
        base().edges(Edges { count: 5, bias: false }),
        base().edges(Edges { count: 5, bias: true }),
        base().local(3.0),
        base().local_gaussian(3.0),
        base().softcap(2.0),
        base().mask([1, 1, 1, 24]),
        base().bias([1, 1, 1, 24]),
        base().bias([1, 1, 1, 24]).bias_dtype(DType::F16),
        base().bias([1, 1, 1, 24]).bias_dtype(DType::Bf16),
        base().masked(Bits(heedful::Broadcast([1, 1, 1, 24]))),
        base().alibi(Align::TopLeft),
        base().sinks(),
        base().kv_lengths(),
        base().q_lengths(),
        base().packed(30, 40),
        base().packed(40, 30),
        base().paged(9, 8, 3),
        base().paged(9, 8, 4),
        base().segments(),
        base().tree(Tree { align: Align::TopLeft, shared: false }),
        base().tree(Tree { align: Align::TopLeft, shared: true }),
        blocks(1, 1),
        blocks(2, 1),
        blocks(1, 4),
        base().table(3),
        base().layout(Layout::Bshd),
        base().layout_q(Layout::Bshd),
        base().layout_v(Layout::Bshd),
        base().layout_o(wide),
        base().with_lse(),
        base().with_weights(WeightsAt::RawScores),
        base().with_weights(WeightsAt::Probabilities),
    ];
    let mut named: HashMap<String, &Attention> = HashMap::new();
    for call in &calls {
        assert!(call.validate().is_ok(), "{call:?}");
        let name = Case::new(call.clone(), DataOptions::USUAL).name;
        let other = named.insert(name.clone(), call);
        assert!(other.is_none(), "both are {name:?}: {call:?}, {other:?}");
    }
}

#[test]
fn data_is_deterministic_and_fits_its_problem() -> Result<(), Error> {
    for case in grid(Grid::Quick)? {
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
    for case in grid(Grid::Quick)? {
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
    // Where a NaN is there to be seen, or scores that are lost, it is.
    let seen = |case: &Case| case.data.special || case.data.lost;
    for case in grid(Grid::Quick)?.into_iter().filter(|case| !seen(case)) {
        let (problem, data) = case.generate()?;
        let truth = Truth::measure_with(&problem, &data.inputs(), &[])?;
        assert!(truth.outputs.o.iter().all(|x| x.is_finite()), "{}", case.name);
        assert!(truth.outputs.lse.iter().all(|x| !x.is_nan()), "{}", case.name);
    }
    Ok(())
}

/// A case in which a NaN is seen has rows that see it and, where no weight is faint, rows that do not.
#[test]
fn a_special_value_shows_in_some_rows_only() -> Result<(), Error> {
    let mut cases = grid(Grid::Quick)?;
    cases.retain(|case| case.data.special);
    assert!(!cases.is_empty());
    for case in cases {
        let (problem, data) = case.generate()?;
        let truth = Truth::measure_with(&problem, &data.inputs(), &[])?;
        let shown = truth.outputs.o.iter().filter(|x| !x.is_finite()).count();
        let some = case.data.faint || shown < truth.outputs.o.len();
        // Where one key takes all weight, it may be another.
        let any = case.attention.normalizer.takes_one() || shown > 0;
        assert!(any && some, "{}", case.name);
    }
    Ok(())
}

#[test]
fn everything_seen_elsewhere_has_a_case_that_names_it() -> Result<(), Error> {
    let cases = grid(Grid::Full)?;
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
    Ok(())
}
