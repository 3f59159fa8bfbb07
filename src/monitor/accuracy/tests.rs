//! Statistics against scikit-learn, through the way that rows take: feed, items sorted as the graph sorts them, measures.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::counts::{Counting, Counts, Tally};
use super::feed::Feed;
use super::items::{By, Fact, Name, Outcome, Ranked, Score, Value};
use super::measure::Measures;
use super::segments::outcomes;
use crate::monitor::matches::{Change, Matches, Row, Sink, Widths};
use crate::monitor::windows::Windows;
use crate::plan::model::{AccuracyPlan, Metric, RankingPlan, Task};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    task: String,
    #[serde(default)]
    threshold: f64,
    #[serde(default)]
    k: usize,
    #[serde(default)]
    queries: Vec<i64>,
    scores: Vec<Vec<f64>>,
    labels: Vec<f64>,
    expected: BTreeMap<String, Option<f64>>,
    #[serde(default)]
    confusion: BTreeMap<String, u64>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stats/accuracy.json");
    let text = std::fs::read_to_string(path).expect("the golden file");
    serde_json::from_str::<Golden>(&text).expect("cases").cases
}

fn measures(case: &Case, bins: Option<u32>) -> Measures {
    let task = match case.task.as_str() {
        "binary" => Task::Binary,
        "multiclass" => Task::Multiclass,
        "regression" => Task::Regression,
        _ => Task::Ranking,
    };
    let ranking = (case.k > 0).then(|| RankingPlan { query: "q".into(), text: false, k: case.k });
    let metrics = Metric::of(task).to_vec();
    let plan = AccuracyPlan { metrics, threshold: case.threshold, bins, ranking, card: None };
    Measures { task, outputs: case.scores[0].len(), plan }
}

const WINDOWS: Windows = Windows { window: 1_000_000, refresh: 1_000_000, within: 1 };

/// What the graph makes of facts, of one group.
fn through(measures: &Measures, facts: Vec<Fact>) -> Vec<Value> {
    let mut counts = Counts::default();
    let mut queries: BTreeMap<By, BTreeMap<Ranked, i64>> = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::Counts(_, more) => counts.add(&more),
            Fact::Ranked(((_, _, query), ranked), diff) => {
                *queries.entry(query).or_default().entry(ranked).or_default() += diff;
            }
            Fact::Card(..) => {}
        }
    }
    for query in queries.values() {
        let items: Vec<(&Ranked, i64)> = query.iter().map(|(item, count)| (item, *count)).collect();
        measures.query(&items).iter().for_each(|more| counts.sums.add(more));
    }
    match outcomes(measures, 10, &[(&Name::of(""), counts)]).pop() {
        Some((_, Outcome::Values(values))) => values,
        other => panic!("{other:?}"),
    }
}

fn values(case: &Case, measures: &Measures) -> Vec<Value> {
    let widths = Widths { scores: measures.outputs, segments: 0, groups: 1 };
    let names = Matches::new(WINDOWS, widths, vec![false], false).names().clone();
    let mut feed = Feed::new(measures.clone(), WINDOWS, i64::MIN);
    let mut tell = |row: usize, shift: f64, diff: i64| {
        let scores: Vec<f64> = case.scores[row].iter().map(|score| score + shift).collect();
        let groups = [case.queries.get(row).copied().unwrap_or_default()];
        let (time, ord) = (row as i64, row as u64);
        let seen = Row { time, ord, window: 0, version: 0, scores: &scores, segments: &[], groups: &groups };
        feed.change(seen, Change::Predicted, time, diff);
        feed.change(seen, Change::Labelled(case.labels[row], true), time, diff);
    };
    for row in 0..case.labels.len() {
        // What was there for a while leaves no trace.
        tell(row, 0.0, 1);
        tell(row, -0.125, 1);
    }
    (0..case.labels.len()).rev().for_each(|row| tell(row, -0.125, -1));
    let ripe = feed.ripen(i64::MAX, &names);
    assert_eq!(feed.held(), 0);
    through(measures, ripe.facts.into_iter().flat_map(|(_, facts)| facts).collect())
}

fn of(values: &[Value], metric: &str) -> Option<Option<f64>> {
    values.iter().find(|v| v.metric.name() == metric).map(|v| v.value.map(f64::from_bits))
}

#[test]
fn statistics_equal_those_of_scikit_learn() {
    let mut compared = 0;
    for case in cases() {
        let values = values(&case, &measures(&case, None));
        for (metric, expected) in &case.expected {
            let found = of(&values, metric).unwrap_or_else(|| panic!("{}: no {metric}", case.name));
            match (found, expected) {
                (Some(found), Some(expected)) => {
                    let scale = expected.abs().max(1e-300);
                    assert!((found - expected).abs() <= 1e-9 * scale, "{}: {metric} {found} not {expected}", case.name);
                }
                (found, expected) => assert_eq!(found, *expected, "{}: {metric}", case.name),
            }
            compared += 1;
        }
        let confusion = values.iter().filter(|v| v.metric == Metric::Confusion && v.value != Some(0f64.to_bits()));
        let confusion: BTreeMap<String, u64> = confusion
            .map(|v| {
                let (truth, predicted) = v.subject.expect("classes");
                (format!("{truth} {predicted}"), f64::from_bits(v.value.expect("a count")) as u64)
            })
            .collect();
        let expected: BTreeMap<String, u64> = case.confusion.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(confusion, expected, "{}", case.name);
        let rows = case.labels.len() as u64;
        assert!(values.iter().all(|v| v.rows == rows), "{}: {values:?}", case.name);
    }
    println!("{compared} statistics equal scikit-learn's");
}

#[test]
fn in_bins_statistics_are_within_their_bounds() {
    for case in cases().iter().filter(|case| case.task != "regression" && case.k == 0) {
        if case.scores.iter().flatten().any(|score| !(0.0..=1.0).contains(score)) {
            continue;
        }
        for bins in [10, 50, 1000] {
            let of_case = measures(case, Some(bins));
            let widths = Widths { scores: of_case.outputs, segments: 0, groups: 0 };
            let names = Matches::new(WINDOWS, widths, Vec::new(), false).names().clone();
            let mut feed = Feed::new(of_case.clone(), WINDOWS, i64::MIN);
            for (row, (scores, label)) in case.scores.iter().zip(&case.labels).enumerate() {
                let (time, ord) = (row as i64, row as u64);
                let seen = Row { time, ord, window: 0, version: 0, scores, segments: &[], groups: &[] };
                feed.change(seen, Change::Labelled(*label, true), time, 1);
            }
            let ripe = feed.ripen(i64::MAX, &names);
            let values = through(&of_case, ripe.facts.into_iter().flat_map(|(_, facts)| facts).collect());
            for (metric, expected) in &case.expected {
                let value = values.iter().find(|v| v.metric.name() == metric).expect("a value");
                let (Some(found), Some(expected)) = (value.value.map(f64::from_bits), expected) else {
                    assert_eq!(value.value.is_some(), expected.is_some(), "{}: {metric}", case.name);
                    continue;
                };
                let bound = value.bound.map_or(0.0, f64::from_bits);
                let off = (found - expected).abs();
                assert!(off <= bound + 1e-9, "{} in {bins} bins: {metric} is {off} off, not {bound}", case.name);
                let binned = ["auc", "average_precision", "calibration_error"].contains(&metric.as_str());
                assert_eq!(value.bound.is_some(), binned, "{metric}");
            }
        }
    }
}

#[test]
fn nothing_and_what_does_not_fit() {
    let case = Case {
        name: "invalid".into(),
        task: "binary".into(),
        threshold: 0.5,
        k: 0,
        queries: Vec::new(),
        scores: vec![vec![f64::NAN], vec![f64::INFINITY]],
        labels: vec![1.0, 0.0],
        expected: BTreeMap::new(),
        confusion: BTreeMap::new(),
    };
    let told = values(&case, &measures(&case, None));
    let found = |metric| of(&told, metric);
    assert_eq!(
        (found("labels_invalid"), found("unmatched"), found("coverage")),
        (Some(Some(2.0)), Some(Some(0.0)), Some(Some(1.0)))
    );
    assert_eq!(found("auc"), None);
    assert!(outcomes(&measures(&case, None), 10, &[]).is_empty());
}

#[test]
fn values_beyond_the_first_few_are_one_group() {
    let case = &cases()[0];
    let measures = measures(case, None);
    let of_rows = |rows: &[(f64, bool)]| {
        let mut counting = Counting::default();
        for (score, positive) in rows {
            counting.tally(Tally::Labelled, 1);
            counting.score(0, Score::exact(*score), *positive, 1);
        }
        counting.counts()
    };
    let values = [
        (&Name::of("a"), of_rows(&[(0.9, true)])),
        (&Name::of("b"), of_rows(&[(0.8, false)])),
        (&Name::of("c"), of_rows(&[(0.7, true), (0.1, false)])),
        (&Name::of("d"), of_rows(&[(0.2, false), (0.7, true)])),
    ];
    let told = outcomes(&measures, 2, &values);
    let names: Vec<&str> = told.iter().map(|(name, _)| &*name.0).collect();
    assert_eq!(names, ["a", "b", "(other)"]);
    let Outcome::Values(values) = &told[2].1 else { panic!("no values") };
    assert_eq!(of(values, "auc"), Some(Some(1.0)));
}
