//! In order of arrival the results depend on the tick log alone: the same cuts give the same bytes, on any number of
//! workers and whatever the settings that made the cuts; other cuts give other results.

use tempfile::TempDir;

use crate::support::Job;
use crate::support::rows::{assert_same_rows, same_rows, without};

/// Generated traffic as fast as it goes, applied as it arrives.
fn arrival(rows: &str) -> Job {
    Job::new("dataflows/card_fraud.yaml")
        .set("order", "arrival")
        .set("tick.rows", rows)
        .set("sources.tx.generator.rate", "max")
        .set("sources.tx.generator.duration", "5d")
        .set("sources.fraud_labels.generator.duration", "5d")
}

#[test]
fn results_depend_on_the_tick_log_alone() {
    let state = TempDir::new().expect("a folder");
    let recorded = arrival("3000").state(state.path()).run();
    for workers in [1, 3] {
        let again = arrival("500").workers(workers).replay(state.path()).run();
        assert_eq!(again.summary.ticks, recorded.summary.ticks);
        for table in ["predictions/fraud", "features/terminal"] {
            assert_same_rows(table, &recorded.table(table, None), &again.table(table, None));
        }
    }
    // Labels are read ahead of payments by a chunk, so other cuts let other labels arrive first.
    let other = arrival("20000").run();
    let table = "feature_sets/fraud_inputs";
    let (a, b) = (without(&recorded.table(table, None), &["_tick"]), without(&other.table(table, None), &["_tick"]));
    assert!(!same_rows(&a, &b), "the cuts made no difference: the test shows nothing");
}
