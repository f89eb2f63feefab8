//! Rotary frequencies as models' configurations stretch them, against `transformers`' formulas evaluated apart, in
//! float64 with numpy (`rope/scalings.json`: configurations and frequencies).
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use heedful::feature::rotary_config::{ModelConfig, RopeScaling};
use heedful::{LongRope, RotaryConfig, RotaryScaling, Yarn};

#[derive(serde::Deserialize)]
struct Recorded {
    name: String,
    config: RotaryConfig,
    rows: u32,
    dim: u32,
    factor: f64,
    frequencies: Vec<f64>,
}

fn near(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= 1e-13 * wanted.abs()
}

#[test]
fn frequencies_of_models_are_those_of_transformers() {
    let recorded: Vec<Recorded> =
        serde_json::from_str(include_str!("rope/scalings.json")).expect("recorded cases");
    assert_eq!(recorded.len(), 14);
    for case in recorded {
        let config = case.config;
        assert_eq!(config.dim, case.dim, "{}", case.name);
        let (found, factor) =
            config.scaling.frequencies(config.dim, config.base, case.rows).unwrap();
        assert!(near(factor, case.factor), "{}: {factor}, not {}", case.name, case.factor);
        assert_eq!(found.len(), case.frequencies.len(), "{}", case.name);
        for (m, (found, wanted)) in found.iter().zip(&case.frequencies).enumerate() {
            assert!(near(*found, *wanted), "{}, pair {m}: {found}, not {wanted}", case.name);
        }
        let (cos, sin) = config.tables(case.rows).unwrap();
        assert_eq!([cos.len(), sin.len()], [(case.rows * case.dim / 2) as usize; 2]);
        for (m, x) in case.frequencies.iter().enumerate() {
            let angle = 77.0 * x;
            let at = 77 * case.frequencies.len() + m;
            for (found, wanted) in [(cos[at], angle.cos()), (sin[at], angle.sin())] {
                let wanted = (wanted * case.factor) as f32;
                assert!(
                    (found - wanted).abs() <= 1e-6,
                    "{}, pair {m}: {found}, not {wanted}",
                    case.name
                );
            }
        }
    }
}

/// DeepSeek-V2 and V3 multiply the scale with m(mscale_all_dim)²: 0.1 ln(40) + 1 = 1.3688879.
#[test]
fn scores_of_deepseek_are_scaled_once_more() {
    let yarn = Yarn { mscale_all_dim: Some(1.0), ..Yarn::new(40.0, 4096.0) };
    assert!((yarn.score_factor() - 1.368_887_945_411_393_7_f64.powi(2)).abs() < 1e-12);
    assert_eq!(Yarn::new(40.0, 4096.0).score_factor(), 1.0);
}

#[test]
fn what_gives_no_angles_is_refused_by_name() {
    let refused = |scaling: RotaryScaling, words: &[&str]| {
        let error = scaling.tables(8, 1e4, 4).unwrap_err();
        assert!(error.is_invalid(), "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    };
    for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(RotaryScaling::Linear(factor), &["factor", "> 0"]);
        refused(RotaryScaling::Ntk(factor), &["factor", "> 0"]);
        refused(RotaryScaling::Yarn(Yarn::new(factor, 10.0)), &["factor", "> 0"]);
        refused(
            RotaryScaling::DynamicNtk { factor: 2.0, trained: factor },
            &["original_max", "> 0"],
        );
    }
    let freqs = RotaryScaling::Llama3 { factor: 8.0, low_freq: 4.0, high_freq: 4.0, trained: 9.0 };
    refused(freqs, &["high_freq_factor", "4"]);
    let (short, long) = (vec![1.0; 4], vec![2.0; 3]);
    let lists = LongRope { short, long, trained: 100.0, factor: 2.0, attention_factor: None };
    refused(RotaryScaling::LongRope(lists), &["long_factor", "3 numbers", "4"]);
    refused(
        RotaryScaling::Proportional { factor: 1.0, share: 1.5 },
        &["partial_rotary_factor", "1.5"],
    );
    for (dim, base) in [(7, 1e4), (0, 1e4), (8, 1.0), (8, f64::NAN)] {
        assert!(RotaryScaling::None.tables(dim, base, 4).is_err(), "{dim} {base}");
    }
}

#[test]
fn what_a_configuration_lacks_is_named() {
    let kind =
        |kind: &str| Some(RopeScaling { rope_type: Some(kind.into()), ..Default::default() });
    let head = ModelConfig { head_dim: Some(64), ..ModelConfig::default() };
    for (scaling, words) in [
        (kind("linear"), ["rope_scaling factor", "linear"]),
        (kind("dynamic"), ["factor", "dynamic"]),
        (kind("yarn"), ["max_position_embeddings", "yarn"]),
        (kind("llama3"), ["factor", "llama3"]),
        (kind("longrope"), ["short_factor", "longrope"]),
        (kind("mrope"), ["rope_type", "mrope"]),
    ] {
        let error = RotaryConfig::try_from(ModelConfig { rope_scaling: scaling, ..head.clone() });
        let error = error.unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let error = RotaryConfig::try_from(ModelConfig::default()).unwrap_err().to_string();
    assert!(error.contains("head_dim") && error.contains("hidden_size"), "{error}");
    let unknown = r#"{"head_dim": 64, "rope_scaling": {"type": "longrope", "short_mscale": 1.2}}"#;
    let error = serde_json::from_str::<RotaryConfig>(unknown).unwrap_err().to_string();
    assert!(error.contains("short_mscale"), "{error}");
}
