//! A value depends only on what is in its window: a run from the middle of a stream, once the longest window has passed,
//! leaves the same bytes as the run from the start.

use std::path::Path;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use tidemill::base::{parse_duration, parse_time};

use crate::support::rows::{assert_same_rows, without};
use crate::support::{Job, golden_data};

/// Days of the generator's traffic; the job's longest look back is a window of 7 days behind a delay of 1.
const DAYS: i64 = 14;
const MIDDLE: &str = "2026-01-09T12:00:00";
const PASSED: &str = "2026-01-17T12:00:00";

fn card_fraud() -> Job {
    let days = format!("{DAYS}d");
    Job::new("dataflows/card_fraud.yaml")
        .set("sources.tx.generator.rate", "max")
        .set("sources.tx.generator.duration", &days)
        .set("sources.fraud_labels.generator.duration", &days)
}

fn tiled(job: Job) -> Job {
    job.set("features.customer.aggregates.nb_tx.resolution", "5m")
        .set("features.customer.aggregates.avg_amount.resolution", "1h")
        .set("features.terminal.aggregates.risk.resolution", "1h")
}

#[test]
fn a_run_from_the_middle_leaves_the_same_bytes() {
    let tables = ["features/customer", "features/terminal", "feature_sets/fraud_inputs", "predictions/fraud"];
    from_the_middle(card_fraud, &tables);
}

#[test]
fn tiles_remember_no_more_than_rows_do() {
    from_the_middle(|| tiled(card_fraud()), &["feature_sets/fraud_inputs"]);
}

fn from_the_middle(job: impl Fn() -> Job, tables: &[&str]) {
    let whole = job().run();
    let after = format!("ts >= timestamp '{MIDDLE}'");
    let middle = job().set("sources.tx.where", &after).workers(2).run();
    for table in tables {
        let (expected, found) = (since(&whole.table(table, None), PASSED), since(&middle.table(table, None), PASSED));
        // The run from the middle may cut its ticks elsewhere; nothing else may differ.
        assert_same_rows(table, &without(&expected, &["_tick"]), &without(&found, &["_tick"]));
    }
    let before =
        rows_before(&whole.table(tables[0], None), PASSED) - rows_before(&middle.table(tables[0], None), PASSED);
    assert!(before > 0, "the run from the middle read as much as the other");
}

#[test]
fn the_handbook_from_the_middle() {
    let Some(data) = golden_data("fraud") else { return };
    let run = |data: &Path, from: &str| {
        let between =
            |days: &str| format!("TX_DATETIME >= timestamp '{days}' and TX_DATETIME < timestamp '2018-06-05'");
        Job::new("dataflows/fraud_handbook.yaml")
            .env("DATA", data)
            .set("sources.tx.where", &between(from))
            .set("sources.labels.where", &between(from))
            .run()
            .table("predictions/fraud", None)
    };
    // 30 days behind a delay of 7 have passed 37 days later.
    let passed = parse_time("2018-04-15").expect("a time") + parse_duration("37d").expect("a duration");
    let passed = tidemill::base::format_time(passed);
    let (whole, middle) = (run(&data, "2018-04-01"), run(&data, "2018-04-15"));
    let (expected, found) = (since(&whole, &passed), since(&middle, &passed));
    assert_same_rows("predictions/fraud", &without(&expected, &["_tick"]), &without(&found, &["_tick"]));
}

/// The rows at or after a time.
fn since(batch: &RecordBatch, time: &str) -> RecordBatch {
    let from = parse_time(time).expect("a time");
    let keep: BooleanArray = times(batch).iter().map(|t| Some(*t >= from)).collect();
    filter_record_batch(batch, &keep).expect("a mask as long as the batch")
}

fn rows_before(batch: &RecordBatch, time: &str) -> usize {
    let end = parse_time(time).expect("a time");
    times(batch).iter().filter(|t| **t < end).count()
}

fn times(batch: &RecordBatch) -> &[i64] {
    let column = batch.column_by_name("event_time").expect("every table has an event time");
    column.as_primitive::<TimestampMicrosecondType>().values()
}
