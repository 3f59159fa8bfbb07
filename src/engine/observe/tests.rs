use std::sync::Arc;

use arrow::array::{
    Float32Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array,
};

use super::*;

fn observer() -> Observer {
    let labels = WatchedLabels { source: 1, id: 2, value: 3 };
    let watched = Watched {
        model: 1,
        name: "fraud".into(),
        score: "score".into(),
        id: Some("tx_id".into()),
        columns: vec![("amount".into(), "amount".into()), ("customer.nb_tx_1d".into(), "customer__nb_tx_1d".into())],
        labels: Some(labels),
    };
    Observer::with(Some(watched), 1000, 2)
}

fn tick(tick: Tick, now: EventTime) -> TickInfo {
    let watermark = now + 1;
    TickInfo { tick, watermark, previous_watermark: now, now, epoch: 0, epoch_end: false, last: false }
}

fn times(times: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
}

/// Rows whose id, time and offset are one number.
fn scored(ids: ArrayRef, first: i64, scores: &[f32]) -> RecordBatch {
    let n = scores.len() as i64;
    let batch = RecordBatch::try_from_iter([
        ("_time", times(first..first + n)),
        ("_ord", Arc::new(UInt64Array::from_iter_values((first..first + n).map(|i| i as u64)))),
        ("tx_id", ids),
        ("amount", Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64 + 0.256)))),
        ("customer.nb_tx_1d", Arc::new(Int64Array::from(vec![None; n as usize]))),
        ("score", Arc::new(Float32Array::from(scores.to_vec())) as ArrayRef),
    ]);
    batch.unwrap()
}

fn numbered(first: i64, scores: &[f32]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(first..first + scores.len() as i64);
    scored(Arc::new(ids), first, scores)
}

fn labels(time: i64, ids: ArrayRef, values: Vec<Option<i32>>) -> RecordBatch {
    let batch = RecordBatch::try_from_iter([
        ("_time", times((0..ids.len()).map(|_| time))),
        ("_ord", Arc::new(UInt64Array::from(vec![0; ids.len()]))),
        ("tx_id", ids),
        ("is_fraud", Arc::new(Int32Array::from(values)) as ArrayRef),
    ]);
    batch.unwrap()
}

#[test]
fn a_snapshot_tells_what_was_reported() {
    let observer = observer();
    assert_eq!(observer.snapshot().watermark, None);
    observer.on_tick(&tick(3, 4_000), &[vec![14], vec![0]], 100, 2);
    observer.on_dead_letters(1);
    let rows = numbered(10, &[0.1, 0.9, 0.4, 0.2]);
    observer.on_scored(1, &tick(3, 4_000), &rows);
    observer.on_scored(0, &tick(3, 4_000), &rows); // another model: counted, not shown
    let ids = Arc::new(Int32Array::from(vec![10, 11, 12, 13, 99])) as ArrayRef;
    observer.on_labels(1, &labels(5_000, ids, vec![Some(0), Some(1), Some(1), None, Some(1)]));
    observer.on_labels(0, &labels(5_000, Arc::new(Int32Array::from(vec![13])), vec![Some(1)]));

    let snapshot = observer.snapshot();
    assert_eq!((snapshot.rows_in, snapshot.rows_scored, snapshot.dead_letters), (100, 8, 3));
    assert_eq!((snapshot.tick, snapshot.ticks_behind), (3, 0));
    assert_eq!((snapshot.watermark, snapshot.labels), (Some(4_000), 5));
    assert_eq!(snapshot.columns, ["amount", "customer__nb_tx_1d"]);
    let row = &snapshot.recent[..];
    assert_eq!(row.len(), 1, "rows are taken now and then");
    assert_eq!((row[0].time, row[0].id.as_str(), row[0].score), (13, "13", f64::from(0.2f32)));
    assert_eq!(row[0].values, ["3.26", "-"]);
    assert!(snapshot.latency.is_some());
    assert_eq!(snapshot.accuracy, None, "the labels are not known yet");

    observer.on_tick(&tick(5, 5_000), &[vec![100], vec![5]], 50, 0);
    let snapshot = observer.snapshot();
    assert_eq!(snapshot.ticks_behind, 2);
    let accuracy = Accuracy { auc: Some(1.0), window: 3, positives: 2, matched: 3 };
    assert_eq!(snapshot.accuracy, Some(accuracy));

    // A label that came first waits for its prediction.
    observer.on_scored(1, &tick(6, 5_000), &numbered(99, &[0.05]));
    assert_eq!(observer.snapshot().accuracy.unwrap().auc, Some(2.0 / 3.0));
}

#[test]
fn text_ids_match_and_odd_batches_do_no_harm() {
    let observer = observer();
    let ids = Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
    let rows = scored(ids.clone(), 0, &[0.3, f32::NAN]);
    observer.on_scored(1, &tick(1, 0), &rows);
    observer.on_labels(1, &labels(1, ids, vec![Some(1), Some(1)]));
    observer.on_tick(&tick(1, 1), &[], 0, 0);
    let matched = observer.snapshot().accuracy.unwrap().matched;
    assert_eq!(matched, 1, "a score that is no number is left out");

    observer.on_scored(1, &tick(1, 0), &rows.slice(0, 0));
    observer.on_scored(1, &tick(1, 0), &rows.project(&[3]).unwrap());
    observer.on_labels(1, &rows);
    observer.on_labels(1, &rows.project(&[0, 1]).unwrap());
    let snapshot = observer.snapshot();
    assert_eq!((snapshot.rows_scored, snapshot.latency), (4, None));
}

#[test]
fn latency_counts_from_the_tick_that_read_the_row() {
    let mut latencies = Latencies::new(2);
    let position = |source, partition, offset| Ord64::from(Position { source, partition, offset }).0;
    let second = Duration::from_secs(1);
    latencies.cuts.push(second, &[vec![10, 0], vec![5]]);
    latencies.cuts.push(2 * second, &[vec![10, 7], vec![5]]);
    latencies.cuts.push(3 * second, &[vec![20, 7], vec![9]]);
    // Read at 1, 1, 3, 2, 3 s; the last row is of no known tick.
    let rows = [
        position(0, 0, 8),
        position(0, 0, 9),
        position(0, 0, 10),
        position(0, 1, 0),
        position(1, 0, 5),
        position(0, 0, 20),
    ];
    latencies.scored(0, 4 * second, &rows);
    let counted: Vec<(u64, u64)> = latencies
        .total
        .iter_recorded()
        .map(|v| (v.value_iterated_to().div_ceil(1_010_000), v.count_at_value()))
        .collect();
    assert_eq!(counted, [(1, 2), (2, 1), (3, 2)]);
}

#[test]
fn latency_looks_back_ten_seconds() {
    let mut latencies = Latencies::new(2);
    latencies.record(1, 0, 1000, Duration::from_secs(2));
    for second in 0..100 {
        latencies.record(1, second, 99, Duration::from_millis(1));
        latencies.record(1, second, 1, Duration::from_millis(10));
        assert!(latencies.models[1].seconds.len() <= LATENCY_SECONDS);
    }
    let near = |a: Duration, b: u64| (a.as_micros() as f64 / (b * 1000) as f64 - 1.0).abs() < 0.02;
    let recent = latencies.recent().unwrap();
    assert!(near(recent.p50, 1) && near(recent.p99, 1) && near(recent.max, 10), "{recent:?}");
    let total = quantiles(&latencies.total).unwrap();
    assert!(near(total.p99, 2000) && near(total.max, 2000), "{total:?}");
    latencies.turn_to(1000);
    assert_eq!(latencies.recent(), None, "nothing in ten seconds");
    latencies.record(1, 1000, 1, Duration::MAX);
    assert!(latencies.recent().is_some());
}

#[test]
fn latencies_are_told_by_model() {
    let observer = Observer::with(None, 0, 2);
    {
        let mut latencies = lock(&observer.latency);
        for ms in [1, 2, 4, 400] {
            latencies.record(1, 0, 10, Duration::from_millis(ms));
        }
        latencies.record(0, 0, 1, Duration::from_secs(9));
        latencies.record(7, 0, 1, Duration::from_secs(9));
    }
    let buckets = observer.latencies_of(1, &[0.0005, 0.0025, 0.005, 1.0]);
    assert_eq!(buckets.cumulative, [(0.0005, 0), (0.0025, 20), (0.005, 30), (1.0, 40)]);
    assert_eq!((buckets.count, buckets.sum), (40, 4.07));
    let (latency, rows) = observer.take_latency(1).unwrap();
    let near = |a: Duration, ms: u64| (a.as_micros() as f64 / (ms * 1000) as f64 - 1.0).abs() < 0.02;
    assert!(near(latency.p50, 2) && near(latency.p99, 400) && rows == 40, "{latency:?} of {rows}");
    assert_eq!((observer.take_latency(1), observer.latencies_of(1, &[1.0]).count), (None, 40));
    assert_eq!((observer.take_latency(0).unwrap().1, observer.take_latency(2)), (1, None));
}

#[test]
fn numbers_are_short() {
    let all = [0.0, 3.0, -2.0, 1234.5, 0.123456, 0.00001, 1.5e12, f64::NAN].map(short);
    assert_eq!(all, ["0", "3", "-2", "1234.50", "0.1235", "1.00e-5", "1.50e12", "NaN"]);
}
