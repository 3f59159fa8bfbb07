//! `dataflows/flight_delay.yaml` against the golden features of real flights.

use std::collections::HashMap;
use std::path::Path;

use crate::support::rows::{assert_same_rows, ids, read_parquet, values, without};
use crate::support::{Job, golden_columns, golden_data};

const TABLE: &str = "feature_sets/flight_inputs";
const ID: &str = "flight_id";

fn job(data: &Path) -> Job {
    Job::new("dataflows/flight_delay.yaml").env("DATA", data)
}

#[test]
fn features_equal_the_golden_file() {
    let Some(data) = golden_data("flights") else { return };
    let table = job(&data).workers(2).run().table(TABLE, None);
    assert_eq!(table.num_rows(), 122_639, "one row per flight that has a schedule");
    let golden = read_parquet(&data.join("golden_features.parquet"));
    let columns = golden_columns("flight_columns");
    let row_of: HashMap<i64, usize> = ids(&table, ID).into_iter().enumerate().map(|(row, id)| (id, row)).collect();
    let golden_ids = ids(&golden, ID);
    assert_eq!(golden_ids.len(), 1_000);
    for (ours, theirs) in &columns {
        let (found, expected) = (values(&table, ours), values(&golden, theirs));
        for (golden_row, id) in golden_ids.iter().enumerate() {
            let (found, expected) = (found[row_of[id]], expected[golden_row]);
            assert_eq!(found, expected, "flight {id}: {ours} against {theirs}");
        }
    }
    let uncovered = ["flight_id", "sched_dep_utc", "origin", "carrier", "label_arr_utc", "label_late15"];
    for field in golden.schema().fields() {
        let known = columns.values().any(|c| c == field.name()) || uncovered.contains(&field.name().as_str());
        assert!(known, "the mapping says nothing of {}", field.name());
    }
}

#[test]
fn workers_and_ticks_change_no_bit() {
    let Some(data) = golden_data("flights") else { return };
    let base = job(&data).run().table(TABLE, None);
    for workers in [2, 3] {
        assert_same_rows(&format!("{workers} workers"), &base, &job(&data).workers(workers).run().table(TABLE, None));
    }
    let base = without(&base, &["_tick"]);
    for (rows, workers) in [("256", 1), ("1000000", 2), ("4999", 3)] {
        let found = job(&data).set("tick.rows", rows).workers(workers).run().table(TABLE, None);
        assert_same_rows(&format!("ticks of {rows} rows, {workers} workers"), &base, &without(&found, &["_tick"]));
    }
}
