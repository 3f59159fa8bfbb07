//! Against what SciPy, statsmodels and numerical integration say (`tests/python/make_rollout_golden.py`), and against chance.

use serde_json::Value;

use super::compare::{Difference, Pairs, two_sample};
use super::fixed::{self, Design};
use super::moments::Sample;
use super::passage::Passage;
use super::ratio::evidence;
use super::sequence::Sequence;
use super::size::size;
use crate::base::SplitMix64;

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rollout/statistics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn cases(name: &str) -> Vec<Value> {
    let cases = golden()[name].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn near(a: f64, b: f64, relative: f64) {
    assert!((a - b).abs() <= relative * (a.abs() + b.abs()) + 1e-300, "{a} is not {b}");
}

#[test]
fn sequences_as_integrated() {
    for case in cases("sequences") {
        let (alpha, rows) = (number(&case["alpha"]), number(&case["rows"]));
        let sequence = Sequence::tuned(alpha, number(&case["tuned"]));
        // The minimum is flat: where it lies is known to half of the digits, how low it is to all.
        near(sequence.reach(rows), number(&case["reach"]), 1e-6);
        for (z, p) in numbers(&case["z"]).into_iter().zip(numbers(&case["p"])) {
            near(sequence.p_value(z, rows), p, 1e-5);
        }
        let edge = sequence.reach(rows);
        near(sequence.p_value(edge, rows), alpha, 1e-9);
        assert!(sequence.p_value(edge * 1.000_001, rows) < alpha && sequence.p_value(edge * 0.999_999, rows) > alpha);
    }
    assert_eq!(Sequence::tuned(0.05, 100.0).reach(0.0), f64::INFINITY);
}

#[test]
fn differences_as_in_statsmodels() {
    for case in cases("differences") {
        let strata: Vec<[Sample; 2]> = case["strata"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stratum| {
                [("champion", 0), ("challenger", 1)].map(|(name, arm)| {
                    let mut sample = Sample::default();
                    let groups = stratum["groups"][arm].as_array();
                    for (i, value) in numbers(&stratum[name]).into_iter().enumerate() {
                        sample.add(value, groups.map(|g| g[i].as_u64().unwrap() as u16), 1);
                    }
                    sample
                })
            })
            .collect();
        let difference = two_sample(strata.iter()).unwrap();
        // Means of a million, in plain floats over there.
        near(difference.lift, number(&case["lift"]), 1e-7);
        near(difference.error, number(&case["error"]), 1e-8);
        near(difference.information, number(&case["information"]), 1e-14);
        near(fixed::p_value(&difference, 0.0).unwrap(), number(&case["fixed_p"]), 1e-7);
        near(difference.losses[1] - difference.losses[0], difference.lift, 1e-12);
        assert_eq!(difference.rows, [105, 82]);
    }
}

#[test]
fn pairs_as_in_scipy() {
    for case in cases("pairs") {
        let mut pairs = Pairs::default();
        for (a, b) in numbers(&case["champion"]).into_iter().zip(numbers(&case["challenger"])) {
            pairs.add(a, b, None, 1);
        }
        let difference = pairs.difference().unwrap();
        near(difference.lift, number(&case["lift"]), 1e-8);
        near(difference.error, number(&case["error"]), 1e-8);
    }
}

#[test]
fn ratios_as_in_scipy() {
    for case in cases("ratios") {
        let counts = [0, 1].map(|i| case["counts"][i].as_u64().unwrap());
        let found = evidence(counts, number(&case["share"]), number(&case["concentration"]));
        // Of large counts, logarithms of the gamma function of some 1e8 are left as units.
        assert!((found - number(&case["evidence"])).abs() < 1e-6 * (1.0 + number(&case["evidence"]).abs()), "{case}");
    }
    assert_eq!((evidence([5, 0], 0.0, 10.0), evidence([5, 1], 0.0, 10.0)), (0.0, f64::INFINITY));
}

#[test]
fn sizes_as_in_statsmodels() {
    for case in cases("sizes") {
        let design = Design::rate(number(&case["baseline"]), number(&case["effect"]), 0.5);
        let (alpha, power) = (number(&case["alpha"]), number(&case["power"]));
        near(design.rows(alpha, power) / 2.0, number(&case["rows_per_arm"]), 1e-7);
        near(design.power(alpha, design.rows(alpha, power)), power, 1e-9);
    }
}

/// A standard normal variable, by Box and Muller.
fn normal(random: &mut SplitMix64) -> f64 {
    (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
}

#[test]
fn passages_as_walked() {
    // Walks of 2,000 steps against the grid: the steps' overshoot makes them a little late.
    let (drift, sequence) = (0.06, Sequence::tuned(0.05, 2_000.0));
    let upper = |t: f64| sequence.reach(t) * t.sqrt();
    let passage = Passage::of(upper, drift, 2.0, 4_000.0, 600);
    let runs = 2_000;
    let mut random = SplitMix64::new(11);
    let (mut mean, mut by) = (0.0, [0; 3]);
    for _ in 0..runs {
        let (mut at, mut w) = (0, 0.0);
        while at < 4_000 {
            at += 2;
            w += 2.0 * drift + std::f64::consts::SQRT_2 * normal(&mut random);
            if w > upper(f64::from(at)) {
                break;
            }
        }
        let passed = at < 4_000;
        mean += f64::from(at) / f64::from(runs);
        for (count, end) in by.iter_mut().zip([1_000, 2_000, 3_999]) {
            *count += u32::from(passed && at <= end);
        }
    }
    for (count, end) in by.into_iter().zip([1_000.0, 2_000.0, 3_999.0]) {
        let share = f64::from(count) / f64::from(runs);
        assert!((share - passage.by(end)).abs() < 0.03, "by {end}: {share}, {}", passage.by(end));
    }
    assert!((mean / passage.mean_until(4_000.0) - 1.0).abs() < 0.03, "{mean} {}", passage.mean_until(4_000.0));
    let median = passage.quantile(0.5).unwrap();
    assert!((passage.by(median) - 0.5).abs() < 0.01);
    // Without drift the probability ever to pass one side is what the sequence promises, half of it.
    let forever = Passage::of(upper, 0.0, 1e-3, 1e9, 2_000);
    let end = forever.by(1e9);
    assert!((0.0245..0.0252).contains(&end), "{end}");
}

#[test]
fn a_sequential_size_is_larger_at_most_and_stops_early() {
    let design = Design::rate(0.05, 0.01, 0.5);
    let found = size(&design, 0.05, 0.8, None).unwrap();
    near(found.fixed, 16_315.46, 1e-6);
    assert!(found.most > found.fixed && found.median < found.fixed, "{found:?}");
    assert!((0.4..0.7).contains(&found.power_at_fixed));
    // It holds for other tunings, and is hardly worse.
    for expect in [5_000.0, 60_000.0] {
        let other = size(&design, 0.05, 0.8, Some(expect)).unwrap();
        assert!((0.98..1.25).contains(&(other.most / found.most)), "{other:?}");
    }
}

/// One comparison of rows drawn with these probabilities of a loss of 1, looked at after every row.
fn first_exit(seed: u64, rates: [f64; 2], share: f64, end: i64) -> (Option<bool>, bool) {
    let mut random = SplitMix64::new(seed);
    let sequence = Sequence::tuned(0.05, 1_000.0);
    let mut samples: [Sample; 2] = Default::default();
    let (mut exit, mut peeked) = (None, false);
    for _ in 0..end {
        let arm = usize::from(random.unit() < share);
        samples[arm].add(f64::from(u8::from(random.unit() < rates[arm])), None, 1);
        if samples.iter().any(|sample| sample.rows() < 100) {
            continue;
        }
        let Some(difference) = two_sample(std::iter::once(&samples)) else { continue };
        let out = |d: &Difference| d.interval(&sequence).filter(|(low, high)| *low > 0.0 || *high < 0.0);
        exit = exit.or_else(|| out(&difference).map(|(low, _)| low > 0.0));
        peeked |= fixed::p_value(&difference, 0.0).is_some_and(|p| p < 0.05);
    }
    (exit, peeked)
}

#[test]
fn a_look_after_every_row_errs_no_more_than_promised() {
    for (share, rate) in [(0.5, 0.1), (0.05, 0.01)] {
        let runs = 300;
        let (mut better, mut worse, mut peeked) = (0, 0, 0);
        for seed in 0..runs {
            let (exit, peek) = first_exit(seed, [rate; 2], share, 5_000);
            better += i32::from(exit == Some(false));
            worse += i32::from(exit == Some(true));
            peeked += i32::from(peek);
        }
        // 0.025 of each side; at most 2.5 standard deviations above it by chance.
        assert!(better <= 14 && worse <= 14, "share {share}: {better} better, {worse} worse of {runs}");
        // The test can fail: a z-test at each look does, where it has rows enough to be looked at often.
        assert!(share < 0.5 || peeked > 75, "share {share}: {peeked}");
    }
    let found = (0..100).filter(|seed| first_exit(*seed, [0.2, 0.14], 0.5, 5_000).0 == Some(false)).count();
    assert!(found >= 85, "{found}");
}
