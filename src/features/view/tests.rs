//! The view against a twin that keeps every row and scans them all for every question.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;
use proptest::prelude::*;

use super::keys::bytes_of_word;
use super::{Revisions, Updates, ViewOptions, ViewState};
use crate::base::{SlotRange, slot_of, worker_of_slot};
use crate::features::numeric::{self, Accumulator, Scale, quantise, square};
use crate::plan::model::{AggregateFunction as F, AggregatePlan, Order, StreamRef, ViewPlan, Window};

/// A row of the test stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) time: i64,
    pub(super) ord: u64,
    pub(super) key: Option<i64>,
    pub(super) x: Option<f64>,
    pub(super) n: Option<i64>,
    pub(super) small: Option<i32>,
    pub(super) text: Option<String>,
}

pub(super) const X: usize = 3;
pub(super) const N: usize = 4;
pub(super) const SMALL: usize = 5;
pub(super) const TEXT: usize = 6;

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn schema(text_key: bool) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_time", time_type(), false),
        Field::new("_ord", DataType::UInt64, false),
        Field::new("key", if text_key { DataType::Utf8 } else { DataType::Int64 }, true),
        Field::new("x", DataType::Float64, true),
        Field::new("n", DataType::Int64, true),
        Field::new("small", DataType::Int32, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

pub(super) fn batch(rows: &[Row], text_key: bool) -> RecordBatch {
    let key: ArrayRef = if text_key {
        Arc::new(rows.iter().map(|r| r.key.map(|k| format!("key {k}"))).collect::<StringArray>())
    } else {
        Arc::new(rows.iter().map(|r| r.key).collect::<Int64Array>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| Some(r.time)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(rows.iter().map(|r| Some(r.ord)).collect::<UInt64Array>()),
        key,
        Arc::new(rows.iter().map(|r| r.x).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|r| r.n).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.small).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|r| r.text.clone()).collect::<StringArray>()),
    ];
    RecordBatch::try_new(
        Arc::new(Schema::new(
            schema(text_key).fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
        )),
        columns,
    )
    .unwrap()
}

pub(super) fn aggregate(
    function: F,
    input: Option<usize>,
    window: Window,
    resolution: Option<i64>,
    default: Option<ScalarValue>,
) -> AggregatePlan {
    let input_type = input.map(|i| schema(false).field(i).data_type().clone());
    let output_type = match function {
        F::Count => DataType::Int64,
        F::Sum if matches!(input, Some(N | SMALL)) => DataType::Int64,
        F::Min | F::Max | F::Last => input_type.clone().unwrap(),
        _ => DataType::Float64,
    };
    AggregatePlan {
        name: format!("v.{function:?}"),
        function,
        input,
        input_type,
        window,
        resolution,
        output_type,
        default,
    }
}

pub(super) fn plan(aggregates: Vec<AggregatePlan>, delay: i64, include_current: bool, disorder: i64) -> ViewPlan {
    ViewPlan {
        name: "v".into(),
        stream: StreamRef::Source(0),
        entity: vec![2],
        entity_names: vec!["key".into()],
        delay,
        include_current,
        aggregates,
        derived: vec![],
        post: vec![],
        ttl: None,
        disorder,
    }
}

/// The twin: every row of every key, scanned for every question.
#[derive(Default)]
struct Twin {
    rows: Vec<Row>,
}

impl Twin {
    fn ask(&self, plan: &ViewPlan, key: Option<i64>, time: i64) -> Vec<ScalarValue> {
        let head = time - plan.delay;
        plan.aggregates
            .iter()
            .map(|a| {
                let mut rows: Vec<&Row> = self
                    .rows
                    .iter()
                    .filter(|r| key.is_some() && r.key == key && r.time <= head)
                    .filter(|r| match (a.window, a.resolution) {
                        (Window::Lifetime, _) => true,
                        (Window::Trailing(width), None) => r.time > head - width,
                        (Window::Trailing(width), Some(grain)) => r.time >= (head - width).div_euclid(grain) * grain,
                    })
                    .collect();
                rows.sort_by_key(|r| (r.time, r.ord));
                value(a, &rows)
            })
            .collect()
    }
}

fn value(a: &AggregatePlan, rows: &[&Row]) -> ScalarValue {
    let number = |r: &Row| -> Option<f64> { r.x.filter(|x| !x.is_nan()) };
    let integer = |r: &Row| {
        if a.input == Some(N) { r.n } else { r.small.map(i64::from) }
    };
    let present = match a.input {
        None => rows.len(),
        Some(X) => rows.iter().filter(|r| number(r).is_some()).count(),
        Some(TEXT) => rows.iter().filter(|r| r.text.is_some()).count(),
        Some(_) => rows.iter().filter(|r| integer(r).is_some()).count(),
    };
    let null = ScalarValue::try_from(&a.output_type).unwrap();
    let empty = if a.function == F::Last { rows.is_empty() } else { present == 0 };
    if empty {
        return match (&a.default, a.function) {
            (Some(default), _) => default.clone(),
            (None, F::Count) => ScalarValue::Int64(Some(0)),
            _ => null,
        };
    }
    if a.function == F::Count {
        return ScalarValue::Int64(Some(present as i64));
    }
    if a.function == F::Last {
        let last = rows[rows.len() - 1];
        return match a.input {
            Some(X) => ScalarValue::Float64(number(last).map(|x| x + 0.0)),
            Some(N) => ScalarValue::Int64(last.n),
            Some(SMALL) => ScalarValue::Int32(last.small),
            _ => ScalarValue::Utf8(last.text.clone()),
        };
    }
    let mut sums = Accumulator::ZERO;
    let scale = if a.input == Some(X) { Scale::Fraction } else { Scale::One };
    for row in rows {
        let m = if a.input == Some(X) { number(row).map(quantise) } else { integer(row).map(|n| Some(i128::from(n))) };
        match m {
            Some(Some(m)) => sums.add_with_square(m, square(m)),
            Some(None) => sums.add_beyond(),
            None => {}
        }
    }
    match (a.function, &a.output_type) {
        (F::Sum, DataType::Int64) => ScalarValue::Int64(numeric::sum_i64(&sums)),
        (F::Sum, _) => ScalarValue::Float64(numeric::sum(&sums, scale)),
        (F::Mean, _) => ScalarValue::Float64(numeric::mean(&sums, scale)),
        (F::Variance, _) => ScalarValue::Float64(numeric::variance(&sums, scale, false)),
        (F::Stddev, _) => ScalarValue::Float64(numeric::stddev(&sums, scale, false)),
        (F::VarianceSample, _) => ScalarValue::Float64(numeric::variance(&sums, scale, true)),
        (F::StddevSample, _) => ScalarValue::Float64(numeric::stddev(&sums, scale, true)),
        (function, data_type) => {
            let min = function == F::Min;
            let pick = |a: std::cmp::Ordering| if min { a.is_lt() } else { a.is_gt() };
            if data_type == &DataType::Float64 {
                let values = rows.iter().filter_map(|r| number(r)).map(|x| x + 0.0);
                ScalarValue::Float64(values.reduce(|a, b| if pick(b.total_cmp(&a)) { b } else { a }))
            } else {
                let best = rows.iter().filter_map(|r| integer(r)).reduce(|a, b| if pick(b.cmp(&a)) { b } else { a });
                if data_type == &DataType::Int64 {
                    ScalarValue::Int64(best)
                } else {
                    ScalarValue::Int32(best.map(|b| b as i32))
                }
            }
        }
    }
}

/// Bits, so that −0.0, NaN and the last ulp count.
pub(super) fn same(a: &ScalarValue, b: &ScalarValue) -> bool {
    match (a, b) {
        (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

fn check(
    plan: &ViewPlan,
    answers: &[ArrayRef],
    row: usize,
    expected: &[ScalarValue],
    what: &dyn Fn() -> String,
) -> Result<(), TestCaseError> {
    for ((a, array), expected) in plan.aggregates.iter().zip(answers).zip(expected) {
        prop_assert_eq!(array.data_type(), &a.output_type);
        let got = ScalarValue::try_from_array(array, row).unwrap();
        prop_assert!(
            same(&got, expected),
            "{:?} {:?} {:?}: {got:?}, not {expected:?}; {}",
            a.function,
            a.window,
            a.resolution,
            what()
        );
    }
    Ok(())
}

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        4 => prop::sample::select(vec![1i64, 5, 17, 60, 200, 900]).prop_map(Window::Trailing),
        1 => Just(Window::Lifetime),
    ]
}

pub(super) fn aggregates(last: bool, tiles: bool) -> impl Strategy<Value = Vec<AggregatePlan>> {
    let functions = vec![
        F::Count,
        F::Sum,
        F::Mean,
        F::Min,
        F::Max,
        F::Variance,
        F::Stddev,
        F::VarianceSample,
        F::StddevSample,
        F::Last,
    ];
    let one = (
        prop::sample::select(if last { functions } else { functions[..9].to_vec() }),
        prop::sample::select(vec![X, X, X, N, SMALL, TEXT]),
        windows(),
        prop::option::of(prop::sample::select(vec![3i64, 10, 50])),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(move |(function, input, window, resolution, star, default)| {
            let input = match function {
                F::Count if star => None,
                F::Count | F::Last => Some(input),
                _ if input == TEXT => Some(X),
                _ => Some(input),
            };
            let plain = aggregate(function, input, window, resolution.filter(|_| tiles), None);
            let default = default.then(|| match plain.output_type {
                DataType::Float64 => ScalarValue::Float64(Some(-7.5)),
                DataType::Int32 => ScalarValue::Int32(Some(-7)),
                DataType::Utf8 => ScalarValue::Utf8(Some("none".into())),
                _ => ScalarValue::Int64(Some(-7)),
            });
            AggregatePlan { default, ..plain }
        });
    prop::collection::vec(one, 1..8)
}

pub(super) fn row(keys: i64, spread: i64) -> impl Strategy<Value = Row> {
    let x = prop_oneof![
        8 => (-100_000i64..100_000).prop_map(|c| Some(c as f64 / 100.0)),
        2 => (-1.0e-9..1.0e-9).prop_map(Some),
        1 => Just(Some(1.0e14)),
        1 => Just(Some(f64::NAN)),
        1 => Just(Some(-0.0)),
        1 => Just(None),
    ];
    let n = prop_oneof![6 => (-50i64..50).prop_map(Some), 1 => any::<i64>().prop_map(Some), 1 => Just(None)];
    let text = prop::option::of(prop::sample::select(vec!["a".to_string(), "bb".into(), "".into()]));
    (0..spread, prop::option::weighted(0.97, 0..keys), x, n, prop::option::of(any::<i32>()), text)
        .prop_map(|(time, key, x, n, small, text)| Row { time, ord: 0, key, x, n, small, text })
}

/// Rows whose times are steps from the one before.
pub(super) fn stream(rows: usize) -> impl Strategy<Value = Vec<Row>> {
    (1i64..4, prop::sample::select(vec![1i64, 4, 40])).prop_flat_map(move |(keys, spread)| {
        prop::collection::vec(row(keys, spread), 1..rows).prop_map(|rows| one_after_another(rows, -50))
    })
}

/// Rows whose times were steps, from a time on.
fn one_after_another(mut rows: Vec<Row>, from: i64) -> Vec<Row> {
    rows.iter_mut().zip(0..).fold(from, |time, (row, ord)| {
        (row.time, row.ord) = (time + row.time, ord);
        row.time
    });
    rows
}

/// A view of its own stream's rows, in event-time order and in batches of `cut` rows with sweeps in between, tells what the twin
/// tells.
fn in_order(plan: &ViewPlan, rows: &[Row], text_key: bool, cut: usize) -> Result<(), TestCaseError> {
    let mut view = ViewState::new(plan, &schema(text_key), options(Order::EventTime)).unwrap();
    let mut twin = Twin::default();
    // With a delay the row itself is not due yet at its own time.
    let sees_itself = plan.include_current || plan.delay > 0;
    for rows in rows.chunks(cut) {
        let answers = view.apply_own(&batch(rows, text_key)).unwrap();
        for (i, row) in rows.iter().enumerate() {
            if sees_itself {
                twin.rows.push(row.clone());
            }
            check(plan, &answers, i, &twin.ask(plan, row.key, row.time), &|| format!("{row:?}"))?;
            if !sees_itself {
                twin.rows.push(row.clone());
            }
        }
        view.advance(rows[rows.len() - 1].time);
    }
    Ok(())
}

fn options(order: Order) -> ViewOptions {
    ViewOptions { order, refresh: false, revise_within: None, checkpoints: false }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every row of a stream in event-time order updates and asks, in batches of any size, with sweeps in between.
    #[test]
    fn own_stream_in_order(
        aggregates in aggregates(true, true),
        rows in stream(400),
        delay in prop::sample::select(vec![0i64, 0, 7, 100]),
        include_current in any::<bool>(),
        text_key in any::<bool>(),
        cut in 1usize..90,
    ) {
        let plan = plan(aggregates, delay, include_current, 0);
        in_order(&plan, &rows, text_key, cut)?;
    }

    /// One float of one key, in windows whose starts are rounded and others, while there are so few rows that they are kept.
    #[test]
    fn windows_with_a_resolution_held_by_rows(
        aggregates in prop::collection::vec(
            (
                prop::sample::select(vec![F::Sum, F::Mean, F::Min, F::Max, F::Stddev]),
                prop::sample::select(vec![1i64, 5, 17, 60]),
                prop::option::weighted(0.8, prop::sample::select(vec![3i64, 10, 50])),
            ),
            1..6,
        ),
        rows in prop::collection::vec(row(1, 4), 20..300),
        cut in 1usize..90,
    ) {
        let aggregates = aggregates.into_iter().map(|(function, width, resolution)| {
            aggregate(function, Some(X), Window::Trailing(width), resolution, None)
        });
        let plan = plan(aggregates.collect(), 0, true, 0);
        in_order(&plan, &one_after_another(rows, 0), false, cut)?;
    }

    /// One float of busy keys in tiles: between the tiles' edges the rows of a batch take a way of their own.
    #[test]
    fn busy_keys_in_tiles(
        sums in prop::sample::select(vec![F::Sum, F::Mean, F::Stddev]),
        windows in prop::collection::vec(
            (prop::sample::select(vec![40i64, 100, 300]), prop::sample::select(vec![3i64, 10, 50])),
            1..4,
        ),
        extrema in any::<bool>(),
        rows in prop::collection::vec(row(2, 3), 100..500),
        text_key in any::<bool>(),
        cut in 1usize..300,
    ) {
        let functions = if extrema { vec![sums, F::Min, F::Max] } else { vec![sums] };
        let aggregates = windows.iter().flat_map(|(width, resolution)| {
            functions.iter().map(|f| aggregate(*f, Some(X), Window::Trailing(*width), Some(*resolution), None))
        });
        let plan = plan(aggregates.collect(), 0, true, 0);
        in_order(&plan, &one_after_another(rows, -50), text_key, cut)?;
    }

    /// Rows fall back by up to the disorder.
    #[test]
    fn own_stream_in_arrival_order(
        aggregates in aggregates(true, true),
        mut rows in stream(300),
        back in prop::collection::vec(0i64..30, 300),
        delay in prop::sample::select(vec![0i64, 0, 7, 100]),
        include_current in any::<bool>(),
        cut in 1usize..20,
    ) {
        let disorder = 30;
        let plan = plan(aggregates, delay, include_current, disorder);
        let mut view = ViewState::new(&plan, &schema(false), options(Order::Arrival)).unwrap();
        let mut twin = Twin::default();
        rows.iter_mut().zip(&back).for_each(|(row, back)| row.time -= back);
        let mut highest = i64::MIN;
        for chunk in rows.chunks(cut) {
            let mut rows: Vec<Row> = chunk.to_vec();
            rows.retain(|r| { let late = r.time < highest.saturating_sub(disorder); highest = highest.max(r.time); !late });
            rows.sort_by_key(|r| (r.time, r.ord));
            let answers = view.apply_own(&batch(&rows, false)).unwrap();
            for (i, row) in rows.iter().enumerate() {
                if include_current || delay > 0 {
                    twin.rows.push(row.clone());
                }
                check(&plan, &answers, i, &twin.ask(&plan, row.key, row.time), &|| format!("{row:?}"))?;
                if !include_current && delay == 0 {
                    twin.rows.push(row.clone());
                }
            }
            view.advance(highest - disorder);
        }
    }

    /// Updates of one stream, revisions of them, and questions of another; the state moves between workers on the way.
    #[test]
    fn merged_streams_with_revisions_and_moves(
        aggregates in aggregates(true, true),
        updates in stream(250),
        questions in stream(150),
        revisions in prop::collection::vec((any::<prop::sample::Index>(), 0i64..120, row(1, 1)), 0..60),
        revisable in any::<bool>(),
        delay in prop::sample::select(vec![0i64, 7, 100]),
        text_key in any::<bool>(),
        cut in 3i64..200,
        arrival in any::<bool>(),
    ) {
        let within = 120;
        let plan = plan(aggregates, delay, true, 0);
        let order = if arrival { Order::Arrival } else { Order::EventTime };
        let options = ViewOptions { order, refresh: false, revise_within: revisable.then_some(within), checkpoints: true };
        let mut view = ViewState::new(&plan, &schema(text_key), options).unwrap();
        let mut twin = Twin::default();
        // (due, target row, is a revision)
        let mut events: Vec<(i64, Row, bool)> = updates.iter().map(|r| (r.time, r.clone(), false)).collect();
        if revisable {
            for (target, after, new) in &revisions {
                let old = &updates[target.index(updates.len())];
                events.push((old.time + after, Row { time: old.time, ord: old.ord, key: old.key, ..new.clone() }, true));
            }
        }
        events.sort_by_key(|(due, row, revise)| (*due, *revise, row.ord));
        let end = events.iter().map(|e| e.0).chain(questions.iter().map(|q| q.time)).max().unwrap();
        let mut from = -60;
        while from <= end {
            let to = from + cut;
            let due: Vec<_> = events.iter().filter(|e| e.0 >= from && e.0 < to).cloned().collect();
            let asked: Vec<Row> = questions.iter().filter(|q| q.time >= from && q.time < to).cloned().collect();
            let targets: Vec<Row> = due.iter().map(|e| e.1.clone()).collect();
            let update_batch = update_batch(&due, &targets, text_key);
            let question_batch = batch(&asked, text_key);
            let columns = Revisions { target_time: 7, target_ord: 8, revise: 9 };
            let merged = view.apply_merged(
                Some(Updates { batch: &update_batch, revisions: revisable.then_some(columns), answers: true }),
                Some((&question_batch, &[2])),
            ).unwrap();
            let mut next = 0;
            let mut apply = |twin: &mut Twin, upto: i64| -> Result<(), TestCaseError> {
                while next < due.len() && due[next].0 <= upto {
                    let (time, row, revise) = &due[next];
                    if *revise {
                        if let Some(old) = twin.rows.iter_mut().find(|r| r.ord == row.ord) {
                            *old = row.clone();
                        }
                    } else {
                        twin.rows.push(row.clone());
                    }
                    check(&plan, merged.updates.as_ref().unwrap(), next, &twin.ask(&plan, row.key, *time), &|| format!("update {row:?}"))?;
                    next += 1;
                }
                Ok(())
            };
            for (i, question) in asked.iter().enumerate() {
                apply(&mut twin, question.time)?;
                check(&plan, &merged.questions, i, &twin.ask(&plan, question.key, question.time), &|| format!("{question:?}"))?;
            }
            apply(&mut twin, i64::MAX)?;
            view.advance(to);
            if from % 5 == 0 {
                view = moved(&mut view, || ViewState::new(&plan, &schema(text_key), options).unwrap());
                }
            from = to;
        }
    }

    /// A run that starts in the middle gives the same bits once the longest window has passed.
    #[test]
    fn history_leaves_no_trace(
        aggregates in aggregates(false, true),
        rows in stream(400),
        middle in any::<prop::sample::Index>(),
        delay in prop::sample::select(vec![0i64, 7]),
    ) {
        let aggregates: Vec<_> = aggregates.into_iter().filter(|a| a.window != Window::Lifetime).collect();
        let reach = delay + aggregates.iter().map(|a| match a.window {
            Window::Trailing(width) => width + a.resolution.unwrap_or(0),
            Window::Lifetime => 0,
        }).max().unwrap_or(0);
        let plan = plan(aggregates, delay, true, 0);
        let run = |rows: &[Row]| {
            ViewState::new(&plan, &schema(false), options(Order::EventTime)).unwrap().apply_own(&batch(rows, false)).unwrap()
        };
        let middle = middle.index(rows.len());
        let (whole, part) = (run(&rows), run(&rows[middle..]));
        for (i, row) in rows[middle..].iter().enumerate().filter(|(_, r)| r.time > rows[middle].time + reach) {
            for (a, b) in whole.iter().zip(&part) {
                let (a, b) = (ScalarValue::try_from_array(a, middle + i).unwrap(), ScalarValue::try_from_array(b, i).unwrap());
                prop_assert!(same(&a, &b), "{row:?}: {a:?}, {b:?}");
            }
        }
    }

    /// What refresh tells is the value at that time, it stays the value until `valid_until`, and nothing untold changes.
    #[test]
    fn refresh_tells_every_change(
        aggregates in aggregates(true, true),
        rows in stream(150),
        delay in prop::sample::select(vec![0i64, 7]),
        step in 1i64..40,
    ) {
        let plan = plan(aggregates, delay, true, 0);
        let options = ViewOptions { order: Order::EventTime, refresh: true, revise_within: None, checkpoints: false };
        let mut view = ViewState::new(&plan, &schema(false), options).unwrap();
        let mut twin = Twin::default();
        let mut online: std::collections::BTreeMap<Vec<u8>, (Vec<ScalarValue>, i64)> = Default::default();
        let kept = plan.aggregates.iter().any(|a| a.function == F::Last && a.window == Window::Lifetime);
        let width = |a: &AggregatePlan| if let Window::Trailing(width) = a.window { width } else { 0 };
        let widest = plan.aggregates.iter().map(width).max().unwrap_or(0);
        let (mut now, mut next) = (-60, 0);
        while next < rows.len() || now < rows[rows.len() - 1].time + 1200 {
            now += step;
            let from = next;
            while next < rows.len() && rows[next].time <= now {
                twin.rows.push(rows[next].clone());
                next += 1;
            }
            view.apply_own(&batch(&rows[from..next], false)).unwrap();
            // What a sweep has let go of makes no difference.
            if step % 2 == 0 {
                view.advance(now);
            }
            loop {
                let told = view.refresh(now, 2).unwrap();
                for i in 0..told.keys.len() {
                    let of_key =
                        |row: &&Row| row.key.is_some_and(|k| bytes_of_word(k as u64)[..] == *told.keys.value(i));
                    let newest = twin.rows.iter().filter(of_key).map(|row| row.time).max();
                    let start = now - delay - widest;
                    prop_assert_eq!(Some(told.event_times[i]), newest.map(|time| if kept { time } else { time.max(start) }));
                    let values = told.values.iter().map(|v| ScalarValue::try_from_array(v, i).unwrap()).collect();
                    prop_assert!(told.valid_until[i] > now);
                    online.insert(told.keys.value(i).to_vec(), (values, told.valid_until[i]));
                }
                if !told.more {
                    break;
                }
            }
            view.advance(now);
            for key in 0..4i64 {
                let bytes = bytes_of_word(key as u64).to_vec();
                if let Some((values, until)) = online.get(&bytes) {
                    prop_assert!(*until > now);
                    for (got, expected) in values.iter().zip(twin.ask(&plan, Some(key), now)) {
                        prop_assert!(same(got, &expected), "at {now}: {got:?}, not {expected:?}");
                    }
                } else {
                    prop_assert!(twin.rows.iter().all(|r| r.key != Some(key)));
                }
            }
        }
    }
}

pub(super) fn update_batch(due: &[(i64, Row, bool)], targets: &[Row], text_key: bool) -> RecordBatch {
    let plain = batch(targets, text_key);
    let mut columns = plain.columns().to_vec();
    columns[0] = Arc::new(due.iter().map(|e| Some(e.0)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"));
    columns.push(ArrayRef::clone(plain.column(0)));
    columns.push(ArrayRef::clone(plain.column(1)));
    columns.push(Arc::new(due.iter().map(|e| Some(e.2)).collect::<BooleanArray>()));
    let mut fields: Vec<Field> = plain.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("_target_time", time_type(), true));
    fields.push(Field::new("_target_ord", DataType::UInt64, true));
    fields.push(Field::new("_revise", DataType::Boolean, true));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The state after a move from one worker to three and back.
fn moved(view: &mut ViewState, new: impl Fn() -> ViewState) -> ViewState {
    let mut three: Vec<ViewState> = (0..3).map(|_| new()).collect();
    for (slot, bytes) in written(view, true) {
        three[worker_of_slot(slot.into(), 3)].import(slot, &bytes).unwrap();
    }
    assert_eq!(three.iter().map(ViewState::keys).sum::<usize>(), view.keys());
    let mut one = new();
    for (slot, bytes) in three.iter_mut().flat_map(|view| written(view, true)) {
        one.import(slot, &bytes).unwrap();
    }
    one
}

/// What a freeze of now writes.
pub(super) fn written(view: &mut ViewState, whole: bool) -> Vec<(u16, Vec<u8>)> {
    view.freeze(if whole { SlotRange::ALL } else { SlotRange::NONE }).unwrap();
    let slots = some(view.write_frozen(usize::MAX));
    assert!(!view.frozen());
    slots
}

/// The slots that something is in.
pub(super) fn some(mut slots: Vec<(u16, Vec<u8>)>) -> Vec<(u16, Vec<u8>)> {
    slots.retain(|(_, bytes)| !bytes.is_empty());
    slots
}

pub(super) fn simple(keys: impl Fn(usize) -> i64, step: i64, count: usize) -> Vec<Row> {
    (0..count)
        .map(|i| Row {
            time: i as i64 * step,
            ord: i as u64,
            key: Some(keys(i)),
            x: Some((i * 7919 % 1000) as f64 / 8.0),
            n: Some(i as i64),
            small: None,
            text: None,
        })
        .collect()
}

#[test]
fn two_workers_see_what_one_sees() {
    let aggregates = vec![
        aggregate(F::Stddev, Some(X), Window::Trailing(500), None, None),
        aggregate(F::Min, Some(X), Window::Trailing(100), Some(10), None),
    ];
    let plan = plan(aggregates, 0, true, 0);
    let rows = simple(|i| (i % 97) as i64, 1, 5000);
    let new = || ViewState::new(&plan, &schema(false), options(Order::EventTime)).unwrap();
    let whole = new().apply_own(&batch(&rows, false)).unwrap();
    let mut workers = [new(), new()];
    let worker = |row: &Row| worker_of_slot(slot_of(crate::base::hash_u64(row.key.unwrap() as u64)), 2);
    for (w, state) in workers.iter_mut().enumerate() {
        let (at, own): (Vec<usize>, Vec<Row>) =
            rows.iter().enumerate().filter(|(_, r)| worker(r) == w).map(|(i, r)| (i, r.clone())).unzip();
        let answers = state.apply_own(&batch(&own, false)).unwrap();
        for (a, b) in whole.iter().zip(&answers) {
            let take = UInt64Array::from(at.iter().map(|i| *i as u64).collect::<Vec<_>>());
            assert_eq!(&arrow::compute::take(a, &take, None).unwrap(), b);
        }
    }
}

#[test]
fn idle_keys_are_dropped_and_busy_ones_get_thin() {
    let aggregates = vec![aggregate(F::Mean, Some(X), Window::Trailing(1000), None, None)];
    let plan = plan(aggregates, 0, true, 0);
    let mut view = ViewState::new(&plan, &schema(false), options(Order::EventTime)).unwrap();
    view.apply_own(&batch(&simple(|i| if i % 2 == 0 { 1 } else { 2 + (i % 50) as i64 }, 1, 900), false)).unwrap();
    assert!(view.keys() > 20);
    assert!(view.dense.iter().flatten().count() >= 1);
    let mut last = simple(|_| 1, 1, 1);
    last[0].time = 1895;
    view.apply_own(&batch(&last, false)).unwrap();
    for time in (1000..4000).step_by(100) {
        view.advance(time);
        if time == 1800 {
            assert_eq!(view.dense.iter().flatten().count(), 0, "few rows are left of the busy key");
        }
    }
    assert_eq!(view.keys(), 0);
    assert!(view.index.slot(0).next().is_none());
    let used: usize = view.small.iter().map(|s| s.bytes_used()).sum();
    assert_eq!((used, view.chunks.bytes_used()), (0, 0));
}

#[test]
fn texts_and_names_are_given_back() {
    let aggregates = vec![aggregate(F::Last, Some(TEXT), Window::Trailing(50), None, None)];
    let plan = plan(aggregates, 0, true, 0);
    let mut view = ViewState::new(&plan, &schema(true), options(Order::EventTime)).unwrap();
    let mut rows = simple(|i| (i % 5) as i64, 1, 300);
    rows.iter_mut().enumerate().for_each(|(i, r)| r.text = Some(format!("text {i}")));
    for rows in rows.chunks(7) {
        let answers = view.apply_own(&batch(rows, true)).unwrap();
        let expected: ArrayRef = Arc::new(rows.iter().map(|r| r.text.clone()).collect::<StringArray>());
        assert_eq!(&answers[0], &expected);
    }
    (300..1000).step_by(10).for_each(|time| view.advance(time));
    assert_eq!((view.keys(), view.texts.in_use()), (0, 0));
}

#[test]
fn what_a_view_cannot_do_is_said() {
    let error = |a: AggregatePlan| {
        ViewState::new(&plan(vec![a], 0, true, 0), &schema(false), options(Order::EventTime)).err().unwrap().to_string()
    };
    assert!(
        error(aggregate(F::Mean, Some(TEXT), Window::Lifetime, None, None))
            .contains("cannot take a column of type Utf8")
    );
    assert!(error(aggregate(F::Count, None, Window::Trailing(0), None, None)).contains("longer than nothing"));
    let default = Some(ScalarValue::Utf8(Some("many".into())));
    assert!(error(aggregate(F::Count, None, Window::Lifetime, None, default)).contains("many"));
    let view = ViewState::new(
        &plan(vec![aggregate(F::Mean, Some(X), Window::Lifetime, None, None)], 0, true, 0),
        &schema(false),
        options(Order::EventTime),
    );
    let short = batch(&simple(|_| 1, 1, 3), false).project(&[0, 1, 2]).unwrap();
    assert!(view.unwrap().apply_own(&short).unwrap_err().to_string().contains("there is no column 3"));
}

#[test]
fn arrays_of_answers_join() {
    let plan = plan(vec![aggregate(F::Sum, Some(N), Window::Trailing(3), None, None)], 0, true, 0);
    let mut view = ViewState::new(&plan, &schema(false), options(Order::EventTime)).unwrap();
    let rows = simple(|_| 1, 1, 6);
    let parts: Vec<ArrayRef> =
        rows.chunks(4).map(|rows| view.apply_own(&batch(rows, false)).unwrap().remove(0)).collect();
    let all = concat(&[parts[0].as_ref(), parts[1].as_ref()]).unwrap();
    let expected: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 3, 6, 9, 12]));
    assert_eq!(&all, &expected);
}
