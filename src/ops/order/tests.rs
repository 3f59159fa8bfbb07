//! The reorder buffer against sorting everything at once.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use proptest::prelude::*;

use super::*;
use crate::ops::tests::{rows, rows_with_strings};
use crate::ops::{ords, times};

type At = (i64, u64);

fn at(rows: &RecordBatch) -> Vec<At> {
    times(rows).iter().copied().zip(ords(rows).iter().copied()).collect()
}

/// The naive twin: a list.
#[derive(Default)]
struct Twin(Vec<At>);

impl Twin {
    fn release(&mut self, watermark: i64) -> Vec<At> {
        let (mut due, rest) = self.0.iter().partition::<Vec<At>, _>(|row| row.0 < watermark);
        self.0 = rest;
        due.sort_unstable();
        due
    }
}

/// One step: batches of times, then how far the watermark moves.
#[derive(Clone, Debug)]
struct Step {
    batches: Vec<Vec<i64>>,
    advance: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = prop_oneof![
        8 => 0i64..50,
        2 => 0i64..5_000,
        1 => Just(i64::MAX / 2),
        1 => Just(i64::MIN / 2),
    ];
    let batch = prop::collection::vec(time, 0..60);
    let step = (prop::collection::vec(batch, 0..4), prop_oneof![Just(0i64), 0i64..40, 0i64..4_000])
        .prop_map(|(batches, advance)| Step { batches, advance });
    prop::collection::vec(step, 1..12)
}

/// Runs the steps; ordinals run against the order of arrival within ties, as those of several partitions do.
fn check(steps: Vec<Step>, moved_at: usize) {
    let (mut twin, mut buffer, mut watermark, mut number) = (Twin::default(), Reorder::new(), 0i64, 0u64);
    for (i, step) in steps.into_iter().enumerate() {
        for batch in step.batches {
            let batch: Vec<At> = batch
                .into_iter()
                .map(|offset| {
                    number += 1;
                    (watermark.saturating_add(offset), (number % 3) << 40 | number)
                })
                .collect();
            twin.0.extend(&batch);
            buffer.push(rows_with_strings(&batch));
        }
        if i == moved_at {
            buffer = move_through_slots(&buffer);
        }
        watermark += step.advance;
        assert_release(&mut buffer, &mut twin, watermark);
    }
    assert_release(&mut buffer, &mut twin, i64::MAX);
    assert!(buffer.is_empty());
}

fn assert_release(buffer: &mut Reorder, twin: &mut Twin, watermark: i64) {
    let expected = twin.release(watermark);
    match buffer.release(watermark) {
        None => assert_eq!(expected, vec![]),
        Some(released) => {
            assert_eq!(at(&released), expected);
            assert_eq!(released, rows_with_strings(&expected), "columns moved otherwise than their rows");
        }
    }
    assert_eq!(buffer.len(), twin.0.len());
}

fn move_through_slots(buffer: &Reorder) -> Reorder {
    let mut moved = Reorder::new();
    for (_, bytes) in crate::ops::by_slot(&buffer.held(), &[2]).unwrap().into_iter().rev() {
        moved.import(&bytes).unwrap();
    }
    assert_eq!(moved.len(), buffer.len());
    moved
}

proptest! {
    #[test]
    fn releases_what_a_list_would(steps in steps(), moved_at in 0usize..12) {
        check(steps, moved_at);
    }

    #[test]
    fn merges_like_a_list(
        mut batches in prop::collection::vec(prop::collection::vec((0i64..100, 0u64..100), 0..80), 0..12),
        sorted in any::<bool>(),
    ) {
        if sorted {
            batches.iter_mut().for_each(|batch| batch.sort_unstable());
        }
        let merged = merge_sorted(batches.iter().map(|b| rows_with_strings(b)).collect::<Vec<_>>());
        let mut expected: Vec<At> = batches.into_iter().flatten().collect();
        expected.sort_unstable();
        prop_assert_eq!(merged.map(|m| at(&m)).unwrap_or_default(), expected);
    }
}

proptest! {
    /// Rows go to the slot of their key; damaged bytes are refused and nothing of them is taken in.
    #[test]
    fn slots_hold_their_own_and_nothing_else(list in prop::collection::vec((0i64..100, 0u64..100), 1..60), at in any::<prop::sample::Index>()) {
        let mut buffer = Reorder::new();
        list.chunks(7).for_each(|part| buffer.push(rows_with_strings(part)));
        buffer.release(i64::MIN);
        let slots = crate::ops::by_slot(&buffer.held(), &[2]).unwrap();
        let mut found: Vec<At> = Vec::new();
        for (slot, bytes) in &slots {
            let rows = crate::ops::load_rows(bytes).unwrap();
            let mut hashes = Vec::new();
            crate::ops::key::hashes(&[rows.column(2).clone()], &mut hashes).unwrap();
            prop_assert!(hashes.iter().all(|hash| crate::base::slot_of(*hash) == usize::from(*slot)));
            found.extend(self::at(&rows));
            let mut damaged = bytes.clone();
            let bit = at.index(bytes.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut empty = Reorder::new();
            prop_assert!(empty.import(&damaged).is_err() && empty.import(&bytes[..at.index(bytes.len())]).is_err());
            prop_assert!(empty.is_empty());
        }
        found.sort_unstable();
        let mut expected = list.clone();
        expected.sort_unstable();
        prop_assert_eq!(&found, &expected);
        prop_assert!(slots.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let whole = crate::ops::by_slot(&buffer.held(), &[]).unwrap();
        prop_assert_eq!((whole.len(), whole[0].0), (1, 0));
        prop_assert_eq!(crate::ops::load_rows(&whole[0].1).unwrap().num_rows(), list.len());
    }
}

/// Prints what a slot's rows take beside their values; a measurement, not a check.
#[test]
fn size_of_a_slot() {
    let few = rows_with_strings(&[(1, 1)]);
    let (tight, wide) = (crate::ops::save_rows(&few).len(), crate::ops::encode_rows(&few).len());
    let columns = few.num_columns();
    println!("one row of {columns} columns: {tight} bytes saved, {wide} with buffers padded to 64");
    assert!(tight < wide);
}

#[test]
fn rows_of_another_stream_are_refused() {
    let mut buffer = Reorder::new();
    buffer.push(rows_with_strings(&[(1, 1)]));
    let error = buffer.import(&crate::ops::save_rows(&rows(&[(1, 1)]))).unwrap_err();
    assert!(error.to_string().contains("other columns"), "{error}");
    assert_eq!(buffer.len(), 1);
}

/// A row far ahead of all others puts them all into one bucket.
#[test]
fn an_outlier_does_not_break_the_buckets() {
    let mut list: Vec<At> = (0..5_000u64).map(|i| ((i as i64 * 7919) % 5_000, i)).collect();
    list.push((1 << 43, 5_000));
    let mut buffer = Reorder::new();
    buffer.push(rows(&list));
    let released = buffer.release(i64::MAX).unwrap();
    list.sort_unstable();
    assert_eq!(at(&released), list);
}

/// Rows that wait long are merged a logarithmic number of times and let their buffers go.
#[test]
fn a_deep_buffer_keeps_few_runs_and_little_memory() {
    let (disorder, tick) = (200_000u64, 1_000u64);
    let mut buffer = Reorder::new();
    let mut released = 0;
    for start in (0..1_000_000).step_by(tick as usize) {
        let list: Vec<At> = (start..start + tick).map(|i| ((i ^ 1) as i64, i)).collect();
        buffer.push(rows_with_strings(&list));
        released += buffer.release(start as i64 - disorder as i64).map_or(0, |r| r.num_rows());
        assert!(buffer.runs() < 20, "{} runs", buffer.runs());
    }
    let held = buffer.len();
    assert_eq!(released + held, 1_000_000);
    assert!(buffer.backing_rows() < 3 * held, "{} rows of memory for {held}", buffer.backing_rows());
    assert!(buffer.memory_bytes() < 100 * held);
}

/// Prints what a row costs; the figure is a measurement, not a check.
#[test]
fn cost_per_row() {
    let rounds: u64 = std::env::var("TIDEMILL_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    for (name, parts) in [("one batch per tick", 1), ("eight batches per tick", 8)] {
        let ticks: Vec<Vec<RecordBatch>> = (0..4).map(|t| nearly_sorted(t, 65_536, parts)).collect();
        let total = rounds * 4 * 65_536;
        let mut best = f64::INFINITY;
        let mut naive = f64::INFINITY;
        for _ in 0..rounds {
            let mut buffer = Reorder::new();
            let start = std::time::Instant::now();
            let mut released = 0;
            for (t, tick) in ticks.iter().enumerate() {
                tick.iter().for_each(|b| buffer.push(b.clone()));
                released += buffer.release(tick_watermark(t as u64)).map_or(0, |r| r.num_rows());
            }
            best = best.min(start.elapsed().as_nanos() as f64 / released as f64);

            let start = std::time::Instant::now();
            for tick in &ticks {
                let joined = concat_batches(&tick[0].schema(), tick).unwrap();
                let mut order: Vec<u32> = (0..joined.num_rows() as u32).collect();
                let (times, ords) = (times(&joined), ords(&joined));
                order.sort_unstable_by_key(|i| (times[*i as usize], ords[*i as usize]));
                let order = arrow::array::UInt32Array::from(order);
                std::hint::black_box(arrow::compute::take_record_batch(&joined, &order).unwrap());
            }
            naive = naive.min(start.elapsed().as_nanos() as f64 / (4 * 65_536) as f64);
        }
        println!("reorder, {name}: {best:.1} ns per row; concat, sort and take: {naive:.1} ns ({total} rows)");
    }
}

fn tick_watermark(tick: u64) -> i64 {
    ((tick + 1) * 65_536) as i64 * 25_920 - 5_000_000
}

/// A tick of the windows benchmark: 38.6 events per second, up to five seconds of disorder, two keys and three numbers.
fn nearly_sorted(tick: u64, n: u64, parts: u64) -> Vec<RecordBatch> {
    use arrow::array::{ArrayRef, Float64Array, Int64Array};
    let batch = |part: u64| {
        let numbers = (tick * n + part * n / parts)..(tick * n + (part + 1) * n / parts);
        let list: Vec<At> =
            numbers.map(|i| (i as i64 * 25_920 - (crate::base::hash_u64(i) % 5_000_000) as i64, i)).collect();
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        let base = rows(&list);
        for (field, column) in base.schema().fields().iter().zip(base.columns()) {
            columns.push((field.name().clone(), column.clone()));
        }
        for c in 0..2 {
            columns.push((
                format!("k{c}"),
                Arc::new(list.iter().map(|r| Some(r.1 as i64 % 1000)).collect::<Int64Array>()),
            ));
        }
        for c in 0..3 {
            columns.push((format!("v{c}"), Arc::new(list.iter().map(|r| Some(r.1 as f64)).collect::<Float64Array>())));
        }
        RecordBatch::try_from_iter(columns).unwrap()
    };
    (0..parts).map(batch).collect()
}
