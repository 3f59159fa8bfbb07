//! The detectors against River's findings, and through saving and loading.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::plan::model::{AdwinPlan, Direction, PageHinkleyPlan};

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/stats/detect.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("a committed file")).expect("JSON")
}

/// The stream of `make_detect_golden.py`: splitmix64 to fractions in 0..1.
struct Fractions(u64);

impl Fractions {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn stream(case: &Value) -> Vec<f64> {
    let mut fractions = Fractions(case["seed"].as_u64().expect("a seed"));
    let mut out = Vec::new();
    for part in case["parts"].as_array().expect("parts") {
        let (steps, from, to) =
            (part[0].as_u64().unwrap_or(0), part[1].as_f64().unwrap_or(0.0), part[2].as_f64().unwrap_or(0.0));
        for step in 0..steps {
            let level = from + (to - from) * step as f64 / steps as f64;
            let u = fractions.next();
            out.push(if case["kind"] == "bits" { f64::from(u8::from(u < level)) } else { level + u });
        }
    }
    out
}

fn plan(name: &str, settings: &Value) -> DetectorPlan {
    let mut plan = DetectorPlan::named(name).expect("a detector");
    let float = |key: &str, usual: f64| settings[key].as_f64().unwrap_or(usual);
    let whole = |key: &str, usual: u64| settings[key].as_u64().unwrap_or(usual);
    match &mut plan {
        DetectorPlan::Adwin(p) => {
            *p = AdwinPlan {
                delta: float("delta", p.delta),
                clock: whole("clock", p.clock),
                max_buckets: whole("max_buckets", p.max_buckets),
                min_window_length: whole("min_window_length", p.min_window_length),
                grace_period: whole("grace_period", p.grace_period),
            }
        }
        DetectorPlan::PageHinkley(p) => {
            *p = PageHinkleyPlan {
                min_instances: whole("min_instances", p.min_instances),
                delta: float("delta", p.delta),
                threshold: float("threshold", p.threshold),
                alpha: float("alpha", p.alpha),
                direction: match settings["mode"].as_str() {
                    Some("up") => Direction::Up,
                    Some("down") => Direction::Down,
                    _ => Direction::Both,
                },
            }
        }
        DetectorPlan::Ddm(p) => p.drift_threshold = float("drift_threshold", p.drift_threshold),
    }
    plan
}

/// Where a detector finds changes, with width and mean at each, and where its warning zones begin.
fn findings(plan: &DetectorPlan, stream: &[f64]) -> (Vec<(usize, u64, f64)>, Vec<usize>) {
    let mut detector = Detector::new(plan);
    let (mut changes, mut warnings) = (Vec::new(), Vec::new());
    for (i, x) in stream.iter().enumerate() {
        match detector.update(*x) {
            Some(Finding { change: true, mean, width }) => changes.push((i, width, mean)),
            Some(_) => warnings.push(i),
            None => {}
        }
    }
    (changes, warnings)
}

#[test]
fn changes_are_found_where_river_finds_them() {
    let golden = golden();
    assert_eq!(golden["river"], "0.26.1");
    let mut found_any = 0;
    for case in golden["streams"].as_array().expect("streams") {
        let stream = stream(case);
        for run in case["runs"].as_array().expect("runs") {
            let name = run["detector"].as_str().expect("a name");
            let (changes, warnings) = findings(&plan(name, &run["settings"]), &stream);
            let expected = run["changes"].as_array().expect("changes");
            assert_eq!(changes.len(), expected.len(), "{name} {} on {}", run["settings"], case["name"]);
            for ((at, width, mean), river) in changes.iter().zip(expected) {
                assert_eq!(
                    (*at as u64, *width),
                    (river[0].as_u64().unwrap_or(0), river[1].as_u64().unwrap_or(0)),
                    "{name} on {}",
                    case["name"]
                );
                let off = (mean - river[2].as_f64().unwrap_or(f64::NAN)).abs();
                assert!(off <= 1e-9 * mean.abs().max(1.0), "{name} on {}: {mean} is off by {off}", case["name"]);
                found_any += 1;
            }
            if let Some(river) = run["warnings"].as_array() {
                let river: Vec<usize> = river.iter().filter_map(|w| w.as_u64()).map(|w| w as usize).collect();
                assert_eq!(warnings, river, "{name} on {}", case["name"]);
            }
        }
    }
    assert!(found_any > 100, "{found_any} changes are too few to show anything");
}

/// The error of the baseline that repeats the last label, on Elec2.
#[test]
fn prequential_error_of_elec2() {
    let golden = golden();
    let elec = &golden["elec2"];
    let runs = elec["error_runs"].as_array().expect("runs");
    // Lengths of runs of equal bits, the first of zeros.
    let mut errors = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        errors.extend(std::iter::repeat_n((i % 2) as f64, run.as_u64().unwrap_or(0) as usize));
    }
    let mut prequential = Prequential::default();
    errors.iter().for_each(|error| prequential.update(*error));
    let accuracy = 1.0 - prequential.mean().expect("errors");
    assert_eq!(prequential.seen(), elec["rows"].as_u64().unwrap_or(0));
    assert!((accuracy - elec["accuracy"].as_f64().unwrap_or(0.0)).abs() < 1e-12);
    assert_eq!(format!("{accuracy:.4}"), "0.8533");
    assert!((prequential.fading().expect("errors") - elec["fading"].as_f64().unwrap_or(0.0)).abs() < 1e-12);
    let (changes, _) = findings(&plan("adwin", &Value::Null), &errors);
    let river: Vec<usize> =
        elec["adwin"].as_array().expect("changes").iter().filter_map(|c| c.as_u64()).map(|c| c as usize).collect();
    assert_eq!(changes.iter().map(|c| c.0).collect::<Vec<_>>(), river);
}

#[test]
fn the_window_is_small() {
    let mut adwin = Adwin::new(AdwinPlan::default());
    let mut fractions = Fractions(5);
    for _ in 0..1_000_000 {
        adwin.update(f64::from(u8::from(fractions.next() < 0.2)));
    }
    assert!(adwin.width() > 900_000 && adwin.buckets() < 110, "{} in {} buckets", adwin.width(), adwin.buckets());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn saved_and_loaded_it_goes_on_as_before(seed in any::<u64>(), cut in 0usize..1500, which in 0usize..3) {
        let plan = DetectorPlan::named(DetectorPlan::NAMES[which]).expect("a detector");
        let mut fractions = Fractions(seed);
        let bits: Vec<f64> = (0..3000).map(|i| f64::from(u8::from(fractions.next() < if i < 1500 { 0.1 } else { 0.6 }))).collect();
        let mut whole = Detector::new(&plan);
        let expected: Vec<_> = bits.iter().map(|x| whole.update(*x)).collect();
        prop_assert!(expected.iter().flatten().any(|f| f.change));
        let mut detector = Detector::new(&plan);
        let mut found: Vec<_> = bits[..cut].iter().map(|x| detector.update(*x)).collect();
        let mut bytes = Vec::new();
        detector.save(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let mut detector = Detector::load(&plan, &mut reader).expect("it was just saved");
        prop_assert!(reader.is_empty());
        found.extend(bits[cut..].iter().map(|x| detector.update(*x)));
        prop_assert_eq!(found, expected);
        let whole_bytes = |d: &Detector| { let mut b = Vec::new(); d.save(&mut b); b };
        prop_assert_eq!(whole_bytes(&detector), whole_bytes(&whole));
        for short in [0, bytes.len() / 2, bytes.len() - 1] {
            prop_assert!(Detector::load(&plan, &mut Reader::new(&bytes[..short])).is_err());
        }
    }

    /// ADWIN with its buckets, beside one that keeps every number and knows where the buckets' borders would be.
    #[test]
    fn buckets_hold_what_the_numbers_say(seed in any::<u64>(), steps in 1usize..600) {
        let mut fractions = Fractions(seed);
        let mut adwin = Adwin::new(AdwinPlan { delta: 1e-12, ..AdwinPlan::default() });
        let mut all = Vec::new();
        for _ in 0..steps {
            let x = fractions.next();
            all.push(x);
            prop_assert!(!adwin.update(x));
        }
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let variance = all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / all.len() as f64;
        prop_assert_eq!(adwin.width(), steps as u64);
        prop_assert!((adwin.mean() - mean).abs() < 1e-9);
        prop_assert!((adwin.variance() - variance).abs() < 1e-9);
    }
}
