//! The reference against other implementations (recorded cases) and against closed forms.

use std::path::PathBuf;

use heedful::Operands;
use heedful::reference::{Inputs, Order, Outputs, emulate};
use heedful::verify::cases::{packed_qkv, padded};
use heedful::verify::data::{CaseData, DataOptions, gather};
use heedful::verify::golden::{Form, GoldenSuite, Loaded, Precision, Support};
use heedful::{Alibi, Align, Attention, DType, Error, Layout, Operand, Shape, WeightsAt};

fn suite(name: &str) -> Result<GoldenSuite, Error> {
    GoldenSuite::open(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name))
}

/// Checks every case that can be run; how many were, and why the others were not.
fn check_suite(
    name: &str,
    precision: Precision,
    compute: impl Fn(&Loaded) -> Result<Outputs, Error>,
) -> Result<(usize, Vec<String>), Error> {
    let (mut run, mut skipped, mut wrong) = (0, Vec::new(), Vec::new());
    for case in suite(name)?.cases {
        match case.load(precision)? {
            Support::Unsupported(reason) => skipped.push(reason),
            Support::Supported(loaded) => {
                run += 1;
                let comparisons = loaded.check(&compute(&loaded)?);
                assert!(!comparisons.is_empty(), "{}: nothing compared", case.name);
                let failed = comparisons.iter().filter(|(_, comparison)| !comparison.pass);
                wrong.extend(failed.map(|(role, comparison)| {
                    format!("{} {}: {}", case.name, role.name(), comparison.message())
                }));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok((run, skipped))
}

fn reference(loaded: &Loaded) -> Result<Outputs, Error> {
    loaded.reference()
}

#[test]
fn reference_matches_jax_in_double_precision() -> Result<(), Error> {
    let (run, skipped) = check_suite("jax", Precision::Double, reference)?;
    assert_eq!((run, skipped.len()), (127, 0), "{skipped:?}");
    Ok(())
}

#[test]
fn reference_matches_onnx() -> Result<(), Error> {
    for precision in [Precision::Double, Precision::Stored] {
        let (run, skipped) = check_suite("onnx", precision, reference)?;
        assert_eq!((run, skipped.len()), (71, 0));
    }
    Ok(())
}

#[test]
fn reference_matches_a_real_model() -> Result<(), Error> {
    let (run, skipped) = check_suite("real", Precision::Double, reference)?;
    assert_eq!((run, skipped.len()), (3, 0));
    Ok(())
}

/// Layers, additive and other scores, normalisers, rotations and graphs.
#[test]
fn reference_matches_other_forms() -> Result<(), Error> {
    let (run, skipped) = check_suite("forms", Precision::Stored, reference)?;
    assert_eq!((run, skipped.len()), (56, 0), "{skipped:?}");
    Ok(())
}

#[test]
fn an_f32_computation_meets_the_recorded_tolerances() -> Result<(), Error> {
    for name in ["jax", "onnx", "real", "forms"] {
        for order in [Order::Forward, Order::Blocked] {
            check_suite(name, Precision::Stored, |loaded| {
                if !matches!(loaded.form, Form::Attention) {
                    return loaded.reference();
                }
                emulate(&loaded.attention.validate()?, &loaded.data.inputs(), order)
            })?;
        }
    }
    Ok(())
}

/// One head of `seq_q` rows and `seq_kv` keys; q = 1 and k = 0, so that all weights are equal, and
/// v[j] = [j, 1].
fn uniform(seq_q: u32, seq_kv: u32) -> (Attention, CaseData) {
    let shape = Shape { batch: 1, heads_q: 1, heads_kv: 1, seq_q, seq_kv, dim_qk: 1, dim_v: 2 };
    let data = CaseData {
        q: vec![1.0; seq_q as usize],
        k: vec![0.0; seq_kv as usize],
        v: (0..seq_kv).flat_map(|j| [f64::from(j), 1.0]).collect(),
        ..CaseData::default()
    };
    (Attention::new(shape), data)
}

fn run(attention: &Attention, data: &CaseData) -> Result<Outputs, Error> {
    attention.validate()?.reference(&data.inputs())
}

/// The keys each row sees, read off its weights.
fn seen(attention: Attention, data: &CaseData) -> Result<Vec<Vec<u32>>, Error> {
    let keys = attention.shape.seq_kv as usize;
    let outputs = run(&attention.with_weights(WeightsAt::Probabilities), data)?;
    let weights = outputs.weights.unwrap_or_default();
    let row = |row: &[f64]| (0..keys as u32).filter(|j| row[*j as usize] > 0.0).collect();
    Ok(weights.chunks(keys).map(row).collect())
}

#[test]
fn uniform_weights_average_v() -> Result<(), Error> {
    let (attention, data) = uniform(2, 5);
    let outputs = run(&attention, &data)?;
    for (found, wanted) in outputs.o.iter().zip([2.0, 1.0, 2.0, 1.0]) {
        assert!((found - wanted).abs() < 1e-14);
    }
    assert!(outputs.lse.iter().all(|lse| (lse - 5_f64.ln()).abs() < 1e-14));
    assert_eq!(outputs.weights, None);
    Ok(())
}

#[test]
fn a_single_key_copies_v_and_its_score_is_the_lse() -> Result<(), Error> {
    let (attention, mut data) = uniform(1, 1);
    (data.k, data.v) = (vec![3.0], vec![7.0, -1.0]);
    let outputs = run(&attention.scale(0.5), &data)?;
    assert_eq!((outputs.o, outputs.lse), (vec![7.0, -1.0], vec![1.5]));
    Ok(())
}

#[test]
fn a_row_without_keys_is_zero_whatever_k_and_v_hold() -> Result<(), Error> {
    let (attention, mut data) = uniform(2, 3);
    data.k.fill(f64::NAN);
    data.v.fill(f64::INFINITY);
    data.mask = vec![false; 3];
    let attention = attention.mask([1, 1, 1, 3]).with_weights(WeightsAt::Probabilities);
    let outputs = run(&attention, &data)?;
    assert_eq!((outputs.o, outputs.lse), (vec![0.0; 4], vec![f64::NEG_INFINITY; 2]));
    assert_eq!(outputs.weights, Some(vec![0.0; 6]));
    Ok(())
}

#[test]
fn a_row_with_only_a_sink_has_its_logit_as_lse() -> Result<(), Error> {
    let (attention, mut data) = uniform(2, 0);
    data.sinks = vec![-4.0];
    let outputs = run(&attention.sinks(), &data)?;
    assert_eq!((outputs.o, outputs.lse), (vec![0.0; 4], vec![-4.0; 2]));

    // Past the query length not even the sink counts.
    let (attention, mut data) = uniform(2, 2);
    (data.sinks, data.q_lengths) = (vec![0.0], vec![1]);
    let outputs = run(&attention.sinks().q_lengths(), &data)?;
    assert!((outputs.lse[0] - 3_f64.ln()).abs() < 1e-15);
    assert_eq!((outputs.lse[1], &outputs.o[2..]), (f64::NEG_INFINITY, &[0.0; 2][..]));
    assert!((outputs.o[1] - 2.0 / 3.0).abs() < 1e-15, "the sink takes a third");
    Ok(())
}

#[test]
fn causal_alignments_by_hand() -> Result<(), Error> {
    let (attention, data) = uniform(2, 4);
    let with = |align| seen(attention.clone().causal(align), &data);
    assert_eq!(with(Align::TopLeft)?, [vec![0], vec![0, 1]]);
    assert_eq!(with(Align::BottomRight)?, [vec![0, 1, 2], vec![0, 1, 2, 3]]);
    assert_eq!(with(Align::Offset(-1))?, [vec![], vec![0]]);
    let (attention, data) = uniform(4, 2);
    let bottom_right = seen(attention.clone().causal(Align::BottomRight), &data)?;
    assert_eq!(bottom_right, [vec![], vec![], vec![0], vec![0, 1]]);
    let window = attention.window(Some(1), Some(0), Align::TopLeft);
    assert_eq!(seen(window, &data)?, [vec![0], vec![0, 1], vec![1], vec![]]);
    Ok(())
}

#[test]
fn bottom_right_meets_the_last_key_of_each_sequence() -> Result<(), Error> {
    let (attention, mut data) = uniform(3, 4);
    (data.kv_lengths, data.q_lengths) = (vec![3], vec![2]);
    let attention = attention.causal(Align::BottomRight).kv_lengths().q_lengths();
    assert_eq!(seen(attention, &data)?, [vec![0, 1], vec![0, 1, 2], vec![]]);
    Ok(())
}

#[test]
fn the_softcap_comes_before_bias_and_mask() -> Result<(), Error> {
    let (attention, mut data) = uniform(1, 3);
    data.k = vec![1e6, -1e6, 1e6];
    data.bias = vec![5.0, 5.0, f64::NEG_INFINITY];
    let attention = attention.softcap(2.0).bias([1, 1, 1, 3]);
    let at = |at| Ok::<_, Error>(run(&attention.clone().with_weights(at), &data)?.weights);
    assert_eq!(at(WeightsAt::RawScores)?, Some(vec![1e6, -1e6, 1e6]));
    assert_eq!(at(WeightsAt::AfterSoftcap)?, Some(vec![2.0, -2.0, 2.0]));
    assert_eq!(at(WeightsAt::AfterBias)?, Some(vec![7.0, 3.0, f64::NEG_INFINITY]));
    let weight = 1.0 / (1.0 + (-4_f64).exp());
    let found = at(WeightsAt::Probabilities)?.unwrap_or_default();
    assert!((found[0] - weight).abs() < 1e-15 && found[2] == 0.0);
    Ok(())
}

#[test]
fn alibi_slopes_of_six_heads_are_those_of_the_paper() {
    let slopes = Alibi::standard_slopes(6);
    let wanted = [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125];
    assert_eq!(slopes, wanted);
    assert_eq!(Alibi::standard_slopes(8)[0], 0.5);
}

#[test]
fn alibi_subtracts_the_distance_to_the_diagonal() -> Result<(), Error> {
    let (attention, mut data) = uniform(2, 4);
    data.alibi_slopes = vec![0.5];
    let attention = attention.alibi(Align::BottomRight).with_weights(WeightsAt::AfterBias);
    let scores = run(&attention, &data)?.weights.unwrap_or_default();
    assert_eq!(scores, [-1.0, -0.5, 0.0, -0.5, -1.5, -1.0, -0.5, 0.0]);
    Ok(())
}

#[test]
fn query_heads_share_key_heads_in_order() -> Result<(), Error> {
    let shape =
        Shape { batch: 1, heads_q: 6, heads_kv: 2, seq_q: 1, seq_kv: 1, dim_qk: 1, dim_v: 1 };
    let data =
        CaseData { q: vec![1.0; 6], k: vec![0.0; 2], v: vec![3.0, 4.0], ..CaseData::default() };
    assert_eq!(run(&Attention::new(shape), &data)?.o, [3.0, 3.0, 3.0, 4.0, 4.0, 4.0]);
    Ok(())
}

#[test]
fn layouts_change_where_tensors_lie_and_nothing_else() -> Result<(), Error> {
    let plain = Attention::new(Shape::self_attention(2, 3, 9, 5)).causal(Align::TopLeft);
    let options = DataOptions::default();
    let problem = plain.validate()?;
    let data = CaseData::generate(&problem, 1, &options);
    let wanted = problem.reference(&data.inputs())?;
    let bshd = plain.clone().layout(Layout::Bshd);
    for other in [bshd, packed_qkv(plain.clone()), padded(plain, 2)] {
        let problem = other.validate()?;
        let laid = CaseData::generate(&problem, 1, &options);
        assert_eq!(gather(&laid.q, problem.strides(Operand::Q), [2, 3, 9, 5]), data.q);
        assert_eq!(problem.reference(&laid.inputs())?, wanted);
    }
    Ok(())
}

#[test]
fn tensors_of_a_wrong_length_are_refused_by_name() -> Result<(), Error> {
    let problem = uniform(2, 3).0.mask([1, 1, 2, 3]).sinks().validate()?;
    let (q, k, v) = (vec![0.0; 2], vec![0.0; 3], vec![0.0; 6]);
    let (mask, sinks) = ([true; 6], [0.0]);
    let operands = Operands { mask: &mask, sinks: &sinks, ..Operands::default() };
    let good = Inputs { q: &q, k: &k, v: &v, operands };
    assert!(problem.reference(&good).is_ok());
    let argument = |inputs: Inputs<'_>| match problem.reference(&inputs) {
        Err(error) => error.argument().unwrap_or_default().to_owned(),
        Ok(_) => "none".into(),
    };
    assert_eq!(argument(Inputs { q: &q[1..], ..good }), "q");
    assert_eq!(argument(Inputs { v: &v[1..], ..good }), "v");
    let mask = Operands { mask: &mask[1..], ..operands };
    assert_eq!(argument(Inputs { operands: mask, ..good }), "mask");
    let sinks = Operands { sinks: &[], ..operands };
    assert_eq!(argument(Inputs { operands: sinks, ..good }), "sinks");
    Ok(())
}

#[test]
fn emulation_rounds_o_to_the_storage_type() -> Result<(), Error> {
    let (attention, data) = uniform(1, 3);
    let data = CaseData { v: vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0], ..data };
    for dtype in DType::ALL {
        let problem = attention.clone().dtype(dtype).validate()?;
        for order in Order::ALL {
            let found = emulate(&problem, &data.inputs(), order)?;
            assert_eq!(found.o[0], dtype.round(1.0 / 3.0), "{dtype} {order:?}");
        }
    }
    Ok(())
}

/// Windows of NATTEN's own documentation: they shift at the borders, skip by dilation and end at causal rows.
#[test]
fn neighborhoods_by_hand() {
    use heedful::Axis;
    let seen =
        |axis: Axis, i: u32| -> Vec<u32> { (0..axis.n).filter(|j| axis.sees(i, *j)).collect() };
    let plain = Axis::new(6, 3);
    assert_eq!(seen(plain, 0), [0, 1, 2]);
    assert_eq!(seen(plain, 3), [2, 3, 4]);
    assert_eq!(seen(plain, 5), [3, 4, 5]);
    let even = Axis::new(6, 4);
    assert_eq!(seen(even, 2), [0, 1, 2, 3]);
    assert_eq!(seen(even, 5), [2, 3, 4, 5]);
    let dilated = Axis { dilation: 2, ..Axis::new(7, 3) };
    assert_eq!(seen(dilated, 0), [0, 2, 4]);
    assert_eq!(seen(dilated, 5), [1, 3, 5]);
    let causal = Axis { causal: true, ..plain };
    assert_eq!(seen(causal, 0), [0]);
    assert_eq!(seen(causal, 4), [2, 3, 4]);
    let strided = Axis { stride: 3, ..plain };
    assert_eq!(seen(strided, 0), seen(strided, 2));
    assert_eq!(seen(strided, 3), [3, 4, 5]);
}

#[test]
fn predicted_centers_by_hand() {
    let shape = Shape { seq_q: 2, ..Shape::self_attention(1, 1, 12, 4) };
    let call = Attention::new(shape).local(2.0);
    let (w, v) = ([1.0, 0.0, 0.5, -1.0], [2.0, -1.0]);
    let states = [0.25, 0.5, -1.0, 0.75];
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let wanted = [
        12.0 * sigmoid(2.0 * 0.25_f64.tanh() - (0.125_f64 - 0.5).tanh()),
        12.0 * sigmoid(2.0 * (-1.0_f64).tanh() - (-0.5_f64 - 0.75).tanh()),
    ];
    let found = call.predicted_centers(&states, &w, &v).unwrap();
    assert!(found.iter().zip(wanted).all(|(x, y)| (x - y).abs() < 1e-12), "{found:?} {wanted:?}");
    for (states, w, v, argument) in [
        (&states[..], &w[..3], &v[..], "w"),
        (&states[..], &w[..1], &v[..], "w"),
        (&states[..], &w[..], &v[..0], "w"),
        (&states[..3], &w[..], &v[..], "states"),
        (&states[..2], &w[..], &v[..], "states"),
    ] {
        let error = call.predicted_centers(states, w, v).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(argument), "{argument}: {error}");
    }
}
