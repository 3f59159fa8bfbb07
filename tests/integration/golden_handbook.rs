//! `dataflows/fraud_handbook.yaml` against the published features and scores.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use tidemill::monitor::drift::count::{Counter, Missing};
use tidemill::monitor::drift::measure::{Metric, measure};
use tidemill::monitor::drift::reference::Reference;

use crate::support::rows::{assert_same_rows, ids, read_parquet, values, without};
use crate::support::{Job, full, golden_columns, golden_data};

const TABLE: &str = "predictions/fraud";
const ID: &str = "TRANSACTION_ID";

/// Enough of the data that every window has slid past its first row: 30 days after a delay of 7, and a week more.
const SLICE_END: &str = "2018-05-16";

fn job(data: &Path) -> Job {
    Job::new("dataflows/fraud_handbook.yaml").env("DATA", data)
}

/// The job over the slice; over everything when the long suites are asked for.
fn slice(data: &Path) -> Job {
    if full() {
        return job(data);
    }
    let before = format!("TX_DATETIME < timestamp '{SLICE_END}'");
    job(data).set("sources.tx.where", &before).set("sources.labels.where", &before)
}

#[test]
fn features_and_scores_equal_the_published_ones() {
    let Some(data) = golden_data("fraud") else { return };
    let lake = job(&data).workers(2).run();
    let table = lake.table(TABLE, None);
    assert_eq!(table.num_rows(), 1_466_282, "one row per transaction");
    assert_eq!(golden_rows_compared(&data, &table), 1_000);

    let scores = by_id(&table, "score");
    let frauds = by_id(&read_parquet(&data.join("transactions.parquet")), "TX_FRAUD");
    let published = by_id(&read_parquet(&data.join("reference_scores.parquet")), "score_lr");
    assert_eq!(published.len(), 58_264, "the book's test set");
    let mut ranked = Vec::with_capacity(published.len());
    for (id, expected) in published {
        let score = scores[&id];
        assert!((score - expected).abs() <= 1e-6, "transaction {id}: score {score}, published {expected}");
        ranked.push((score, frauds[&id] == 1.0));
    }
    let auc = auc(&mut ranked);
    assert!((auc - 0.8703).abs() < 0.00005, "AUC {auc}");
    assert_drift(&data, &table);
}

/// The drift of each feature from the training week to the book's test set, as published.
fn assert_drift(data: &Path, table: &RecordBatch) {
    const DAY: f64 = 86_400e6;
    let text = std::fs::read_to_string(data.join("reference_drift.json")).expect("the published drift");
    let published: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let mut names = golden_columns("handbook_columns");
    names.insert("TX_AMOUNT".to_owned(), "TX_AMOUNT".to_owned());
    let tested = by_id(&read_parquet(&data.join("reference_scores.parquet")), "score_lr");
    // 2018-07-25 and a week.
    let week = 17_737.0 * DAY..17_744.0 * DAY;
    let times = values(table, "event_time");
    let training: BooleanArray = times.iter().map(|t| Some(week.contains(&t.expect("a time")))).collect();
    let test: BooleanArray = ids(table, ID).iter().map(|id| Some(tested.contains_key(id))).collect();
    let rows = |keep: &BooleanArray| filter_record_batch(table, keep).expect("rows");
    let (training, test) = (rows(&training), rows(&test));
    assert_eq!((training.num_rows(), test.num_rows()), (67_240, 58_264));
    let mut compared = 0;
    for (ours, theirs) in &names {
        let column = |rows: &RecordBatch| Arc::clone(rows.column_by_name(ours).expect("a feature"));
        let expected = published.iter().find(|p| p["feature"] == **theirs).expect("every feature is published");
        let reference = Reference::of_column(&column(&training), false, 10).expect("values");
        let mut counter = Counter::new(&reference.kind());
        counter.count(&column(&test), &mut Missing::new(test.num_rows())).expect("it is counted");
        let window = counter.take();
        let psi = measure(Metric::Psi, &reference, &window).expect("a value");
        let wanted = expected["psi"].as_f64().expect("a number");
        assert!((psi.value - wanted).abs() <= 1e-9, "{theirs}: PSI {psi:?}, published {wanted}");
        let ks = measure(Metric::Ks, &reference, &window).expect("a value");
        let wanted = expected["ks"].as_f64().expect("a number");
        let bound = ks.bound.unwrap_or(0.0);
        assert!((ks.value - wanted).abs() <= bound + 1e-9, "{theirs}: KS {ks:?}, published {wanted}");
        assert!(bound <= 0.006, "{theirs}: a bound of {bound} says little");
        compared += 1;
    }
    assert_eq!(compared, 15);
}

#[test]
fn workers_and_ticks_change_no_bit() {
    let Some(data) = golden_data("fraud") else { return };
    let base = slice(&data).run().table(TABLE, None);
    assert!(golden_rows_compared(&data, &base) > 100);
    for workers in [2, 3] {
        let found = slice(&data).workers(workers).run().table(TABLE, None);
        assert_same_rows(&format!("{workers} workers"), &base, &found);
    }
    // Another size of ticks moves rows between ticks, and nothing else.
    let base = without(&base, &["_tick"]);
    for (rows, workers) in [("997", 1), ("1000000", 2), ("30011", 3)] {
        let found = slice(&data).set("tick.rows", rows).workers(workers).run().table(TABLE, None);
        assert_same_rows(&format!("ticks of {rows} rows, {workers} workers"), &base, &without(&found, &["_tick"]));
    }
}

/// Compares the golden rows that `table` has, and says how many those are.
fn golden_rows_compared(data: &Path, table: &RecordBatch) -> usize {
    let golden = read_parquet(&data.join("golden_features.parquet"));
    let columns = golden_columns("handbook_columns");
    assert_eq!(columns.len(), 14, "all features of the book");
    let row_of: HashMap<i64, usize> = ids(table, ID).into_iter().enumerate().map(|(row, id)| (id, row)).collect();
    let rows: Vec<(i64, usize, usize)> = ids(&golden, ID)
        .into_iter()
        .enumerate()
        .filter_map(|(expected, id)| Some((id, expected, *row_of.get(&id)?)))
        .collect();
    for (ours, theirs) in &columns {
        let (found, expected) = (values(table, ours), values(&golden, theirs));
        // Counts and risks are exact; the book's averages come from float sums.
        let tolerance = if theirs.contains("AVG_AMOUNT") { 1e-9 } else { 0.0 };
        for &(id, expected_row, row) in &rows {
            let found = found[row].unwrap_or_else(|| panic!("transaction {id}: {ours} is null"));
            let expected = expected[expected_row].expect("the golden file has no nulls");
            assert!((found - expected).abs() <= tolerance, "transaction {id}: {ours} is {found}, {theirs} {expected}");
        }
    }
    rows.len()
}

fn by_id(batch: &RecordBatch, column: &str) -> HashMap<i64, f64> {
    let values = values(batch, column).into_iter().map(|v| v.expect("no nulls"));
    ids(batch, ID).into_iter().zip(values).collect()
}

/// Area under the ROC curve by ranks, ties shared.
fn auc(rows: &mut [(f64, bool)]) -> f64 {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut positives, mut rank_sum) = (0.0, 0.0);
    let mut start = 0;
    while start < rows.len() {
        let end = start + rows[start..].iter().take_while(|r| r.0 == rows[start].0).count();
        let rank = (start + 1 + end) as f64 / 2.0;
        let here = rows[start..end].iter().filter(|r| r.1).count() as f64;
        positives += here;
        rank_sum += here * rank;
        start = end;
    }
    let negatives = rows.len() as f64 - positives;
    (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

#[test]
fn auc_of_a_known_ranking() {
    assert_eq!(auc(&mut [(0.1, false), (0.4, false), (0.35, true), (0.8, true)]), 0.75);
    assert_eq!(auc(&mut [(0.5, false), (0.5, true)]), 0.5);
}
