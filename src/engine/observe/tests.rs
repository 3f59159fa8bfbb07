use std::sync::Arc;

use arrow::array::{Float32Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};

use super::*;

fn observer() -> Observer {
    let labels = WatchedLabels {
        index: 0,
        id: 0,
        value: 1,
    };
    let watched = Watched {
        model: 1,
        name: "fraud".into(),
        score: "score".into(),
        id: Some("tx_id".into()),
        columns: vec![
            ("amount".into(), "amount".into()),
            ("customer.nb_tx_1d".into(), "customer__nb_tx_1d".into()),
        ],
        labels: Some(labels),
    };
    Observer::with(Some(watched), 1000)
}

fn batch(first: i64, scores: &[f32]) -> (RecordBatch, Vec<ArrayRef>) {
    let n = scores.len() as i64;
    let times = TimestampMicrosecondArray::from_iter_values(first..first + n).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter([
        ("_time", Arc::new(times) as ArrayRef),
        ("tx_id", Arc::new(Int64Array::from_iter_values(first..first + n))),
        (
            "amount",
            Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64 + 0.256))),
        ),
        ("customer.nb_tx_1d", Arc::new(Int64Array::from(vec![None; n as usize]))),
    ]);
    (
        batch.unwrap(),
        vec![Arc::new(Float32Array::from(scores.to_vec())) as ArrayRef],
    )
}

fn labels(ids: ArrayRef, values: Vec<Option<i32>>) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("tx_id", ids),
        ("is_fraud", Arc::new(Int32Array::from(values)) as ArrayRef),
    ])
    .unwrap()
}

#[test]
fn a_snapshot_tells_what_was_reported() {
    let observer = observer();
    assert_eq!(observer.snapshot().watermark, None);
    observer.on_tick(3, 100, 2, 5_000);
    observer.on_tick(4, 50, 0, 4_000);
    observer.on_dead_letters(1);
    let (rows, scores) = batch(10, &[0.1, 0.9, 0.4, 0.2]);
    observer.on_scored(1, &rows, &scores);
    observer.on_scored(0, &rows, &scores); // another model: counted, not shown
    let ids = Arc::new(Int32Array::from(vec![10, 11, 12, 13, 99])) as ArrayRef;
    observer.on_labels(0, &labels(ids, vec![Some(0), Some(1), Some(1), None, Some(1)]));
    observer.on_labels(7, &labels(Arc::new(Int32Array::from(vec![13])), vec![Some(1)]));

    let snapshot = observer.snapshot();
    assert_eq!(
        (snapshot.rows_in, snapshot.rows_scored, snapshot.dead_letters),
        (150, 8, 3)
    );
    assert_eq!(
        (snapshot.tick, snapshot.watermark, snapshot.labels),
        (4, Some(5_000), 6)
    );
    assert_eq!(snapshot.columns, ["amount", "customer__nb_tx_1d"]);
    let row = &snapshot.recent[..];
    assert_eq!(row.len(), 1, "rows are taken now and then");
    assert_eq!(
        (row[0].time, row[0].id.as_str(), row[0].score),
        (13, "13", f64::from(0.2f32))
    );
    assert_eq!(row[0].values, ["3.26", "-"]);
    let accuracy = snapshot.accuracy.unwrap();
    assert_eq!(
        accuracy,
        Accuracy {
            auc: Some(1.0),
            window: 3,
            positives: 2,
            matched: 3
        }
    );

    // A label that came first waits for its prediction.
    let (rows, scores) = batch(99, &[0.05]);
    observer.on_scored(1, &rows, &scores);
    assert_eq!(observer.snapshot().accuracy.unwrap().auc, Some(2.0 / 3.0));
}

#[test]
fn text_ids_match_and_odd_batches_do_no_harm() {
    let observer = observer();
    let ids = Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
    let scores = vec![Arc::new(Float64Array::from(vec![Some(0.3), Some(f64::NAN)])) as ArrayRef];
    let rows = RecordBatch::try_from_iter([("tx_id", ids.clone())]).unwrap();
    observer.on_scored(1, &rows, &scores);
    observer.on_labels(0, &labels(ids, vec![Some(1), Some(1)]));
    assert_eq!(
        observer.snapshot().accuracy.unwrap().matched,
        1,
        "a score that is no number is left out"
    );
    assert_eq!(
        observer.snapshot().recent[0].values,
        ["-", "-"],
        "columns that are not there"
    );

    observer.on_scored(1, &rows, &[]);
    observer.on_scored(1, &rows.slice(0, 0), &[scores[0].slice(0, 0)]);
    observer.on_scored(1, &rows.slice(0, 1), &scores);
    observer.on_labels(0, &rows);
    assert_eq!(observer.snapshot().rows_scored, 5);
}

#[test]
fn latency_looks_back_ten_seconds() {
    let mut latencies = Latencies::new();
    latencies.record(0, 1000, Duration::from_secs(2));
    for second in 0..100 {
        latencies.record(second, 99, Duration::from_millis(1));
        latencies.record(second, 1, Duration::from_millis(10));
        assert!(latencies.seconds.len() <= LATENCY_SECONDS);
    }
    let near = |a: Duration, b: u64| (a.as_micros() as f64 / (b * 1000) as f64 - 1.0).abs() < 0.02;
    let recent = latencies.recent().unwrap();
    assert!(
        near(recent.p50, 1) && near(recent.p99, 1) && near(recent.max, 10),
        "{recent:?}"
    );
    let total = quantiles(&latencies.total).unwrap();
    assert!(near(total.p99, 2000) && near(total.max, 2000), "{total:?}");
    latencies.turn_to(1000);
    assert_eq!(latencies.recent(), None, "nothing in ten seconds");
    latencies.record(1000, 1, Duration::MAX);
    assert!(latencies.recent().is_some());
}

#[test]
fn numbers_are_short() {
    let all = [0.0, 3.0, -2.0, 1234.5, 0.123456, 0.00001, 1.5e12, f64::NAN].map(short);
    assert_eq!(all, ["0", "3", "-2", "1234.50", "0.1235", "1.00e-5", "1.50e12", "NaN"]);
}
