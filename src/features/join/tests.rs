//! The label join against a list of rows that is searched from end to end.

use arrow::array::{AsArray, Float64Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;
use crate::base::worker_of_slot;

/// A row of either side: the ordinal makes it unique; the value of its columns follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    time: i64,
    ord: u64,
    id: Option<u8>,
    left: bool,
}

/// What an update says: time, ord, target, label (the right row's ord), revise.
type Said = (i64, u64, (i64, u64), Option<u64>, bool);

#[derive(Clone, Copy, Debug)]
enum Ids {
    Words,
    Text,
}

fn stream_schema(ids: Ids, left: bool) -> SchemaRef {
    let id = match ids {
        Ids::Words if left => DataType::Int64,
        Ids::Words => DataType::Int32,
        Ids::Text => DataType::Utf8,
    };
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let name = |l: &'static str, r: &'static str| if left { l } else { r };
    Arc::new(Schema::new(vec![
        Field::new("_time", time, false),
        Field::new("_ord", DataType::UInt64, false),
        Field::new(name("amount", "label"), DataType::Float64, !left),
        Field::new(name("id", "right_id"), id, true),
        Field::new(name("merchant", "reason"), DataType::Utf8, !left),
    ]))
}

fn batch(rows: &[Row], ids: Ids, left: bool) -> RecordBatch {
    let rows: Vec<&Row> = rows.iter().filter(|r| r.left == left).collect();
    let id: ArrayRef = match ids {
        Ids::Words => Arc::new(rows.iter().map(|r| r.id.map(i64::from)).collect::<Int64Array>()),
        Ids::Text => Arc::new(rows.iter().map(|r| r.id.map(|id| format!("id-{id}"))).collect::<StringArray>()),
    };
    let schema = stream_schema(ids, left);
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.time)).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.ord))),
        Arc::new(rows.iter().map(|r| Some(r.ord as f64)).collect::<Float64Array>()),
        arrow::compute::cast(&id, schema.field(3).data_type()).unwrap(),
        Arc::new(rows.iter().map(|r| Some(format!("text {}", r.ord))).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

fn plan(ids: Ids, within: i64) -> JoinPlan {
    let (left, right) = (stream_schema(ids, true), stream_schema(ids, false));
    let mut fields = left.fields().to_vec();
    fields.extend([right.fields()[4].clone(), right.fields()[2].clone()]);
    JoinPlan {
        name: "labelled".into(),
        left: 0,
        right: 1,
        left_on: 3,
        right_on: 3,
        within,
        schema: Arc::new(Schema::new(fields)),
        right_columns: vec![4, 2],
    }
}

fn join(ids: Ids, within: i64) -> LabelJoin {
    LabelJoin::new(&plan(ids, within), &stream_schema(ids, false), true).unwrap()
}

/// Reads updates back and checks that every column of a row belongs to it.
fn said(updates: &RecordBatch) -> Vec<Said> {
    let number = |name: &str| updates.column_by_name(name).unwrap().as_primitive::<arrow::datatypes::UInt64Type>();
    let float = |name: &str| updates.column_by_name(name).unwrap().as_primitive::<arrow::datatypes::Float64Type>();
    let text = |name: &str| updates.column_by_name(name).unwrap().as_string::<i32>();
    let target_times = updates.column_by_name(TARGET_TIME_COLUMN).unwrap();
    let target_times = target_times.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let target_ords = number(TARGET_ORD_COLUMN);
    (0..updates.num_rows())
        .map(|i| {
            let target = (target_times.value(i), target_ords.value(i));
            assert_eq!(float("amount").value(i), target.1 as f64);
            assert_eq!(text("merchant").value(i), format!("text {}", target.1));
            let label = (!float("label").is_null(i)).then(|| float("label").value(i) as u64);
            assert_eq!(
                (!text("reason").is_null(i)).then(|| text("reason").value(i).to_string()),
                label.map(|l| format!("text {l}"))
            );
            let revise = updates.column_by_name(REVISE_COLUMN).unwrap().as_boolean().value(i);
            (times(updates)[i], ords(updates)[i], target, label, revise)
        })
        .collect()
}

/// The definition, for rows in the order of `(time, ord)`.
fn naive(rows: &[Row], within: i64) -> Vec<Said> {
    let near = |a: &Row, b: &Row| a.id.is_some() && a.id == b.id && (a.time - b.time).abs() <= within;
    let mut said = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let earlier = &rows[..i];
        if row.left {
            // The latest right row of the id decides, even if it is too far away.
            let label = earlier.iter().rev().find(|r| !r.left && r.id == row.id).filter(|r| near(r, row));
            said.push((row.time, row.ord, (row.time, row.ord), label.map(|r| r.ord), false));
        } else {
            let targets = earlier.iter().filter(|l| l.left && near(l, row));
            said.extend(targets.map(|l| (row.time, row.ord, (l.time, l.ord), Some(row.ord), true)));
        }
    }
    said
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0i64..300, prop_oneof![4 => (0u8..12).prop_map(Some), 1 => Just(None)], any::<bool>());
    prop::collection::vec(row, 0..150).prop_map(|rows| {
        let rows = rows.into_iter().zip(0u64..);
        // Right rows are of the source that follows, as in a dataflow file.
        rows.map(|((time, id, left), n)| Row { time, ord: u64::from(!left) << 40 | n, id, left }).collect()
    })
}

/// Joins on several workers that together see all rows.
struct Workers {
    joins: Vec<LabelJoin>,
    ids: Ids,
    within: i64,
    /// What is saved: the last whole freeze of all workers, and those after it.
    saved: Vec<Vec<(u16, Vec<u8>)>>,
}

/// What a step does beside taking rows in: save everything or what is new, then perhaps go on with so many workers.
type Save = (usize, bool, Option<usize>);

fn saves() -> impl Strategy<Value = Vec<Save>> {
    let workers = prop_oneof![Just(None), (1usize..4).prop_map(Some)];
    prop::collection::vec((0usize..9, prop::bool::weighted(0.3), workers), 0..6)
}

impl Workers {
    fn apply(&mut self, rows: &[Row]) -> Vec<Said> {
        let workers = self.joins.len();
        let mut all = Vec::new();
        for (w, join) in self.joins.iter_mut().enumerate() {
            let route = |left: bool| {
                let all = batch(rows, self.ids, left);
                let mut hashes = Vec::new();
                key::hashes(&[all.column(3).clone()], &mut hashes).unwrap();
                let own: BooleanArray =
                    hashes.iter().map(|h| Some(worker_of_slot(slot_of(*h), workers) == w)).collect();
                arrow::compute::filter_record_batch(&all, &own).unwrap()
            };
            let updates = join.apply(Some(&route(true)), Some(&route(false)));
            let said = updates.map(|u| said(&u)).unwrap_or_default();
            assert!(said.is_sorted_by_key(|s| (s.0, s.1)));
            all.extend(said);
        }
        all.sort_by_key(|s| (s.0, s.1, s.2));
        all
    }

    fn new(ids: Ids, within: i64) -> Workers {
        Workers { joins: vec![join(ids, within)], ids, within, saved: Vec::new() }
    }

    /// The right rows that met nothing and are told of at a watermark.
    fn advance(&mut self, watermark: i64) -> Vec<(i64, u64)> {
        let mut all = Vec::new();
        for join in &mut self.joins {
            join.advance(watermark);
            let own: Vec<_> = join.take_unmatched().iter().flat_map(unmatched).collect();
            assert!(own.is_sorted());
            all.extend(own);
        }
        all.sort_unstable();
        all
    }

    /// The saves of step `step`, right behind a watermark.
    fn save(&mut self, saves: &[Save], step: usize, watermark: i64) {
        for (_, whole, workers) in saves.iter().filter(|(at, ..)| *at == step) {
            if *whole {
                self.saved.clear();
            }
            let frozen: Vec<JoinFrozen> = self.joins.iter_mut().map(|join| join.freeze(*whole)).collect();
            self.saved.push(frozen.into_iter().flat_map(|frozen| frozen.encode().unwrap()).collect());
            let Some(workers) = *workers else { continue };
            self.joins = (0..workers).map(|_| join(self.ids, self.within)).collect();
            for (slot, bytes) in self.saved.iter().flatten() {
                self.joins[worker_of_slot(usize::from(*slot), workers)].import(*slot, bytes).unwrap();
            }
            self.joins.iter_mut().for_each(|join| join.advance(watermark));
            assert!(self.joins.iter().all(|join| join.unmatched.is_empty()), "told of a second time");
        }
    }
}

/// Reads unmatched rows back and checks that every column of a row belongs to it.
fn unmatched(rows: &RecordBatch) -> Vec<(i64, u64)> {
    let labels = rows.column_by_name("label").unwrap().as_primitive::<arrow::datatypes::Float64Type>();
    let at: Vec<_> = times(rows).iter().copied().zip(ords(rows).iter().copied()).collect();
    assert!(at.iter().zip(labels.values()).all(|((_, ord), label)| *ord as f64 == *label));
    at
}

/// The definition: right rows, for rows in the order of `(time, ord)`, that no left row ever has as its label.
fn naive_unmatched(rows: &[Row], within: i64) -> Vec<(i64, u64)> {
    let near = |a: &Row, b: &Row| a.id.is_some() && a.id == b.id && (a.time - b.time).abs() <= within;
    let met = |i: usize, right: &Row| {
        let before = rows[..i].iter().any(|left| left.left && near(left, right));
        // Until the next right row of the id, which decides from there on.
        let next = rows[i + 1..].iter().take_while(|row| row.left || row.id != right.id);
        before || next.filter(|row| row.left).any(|left| near(left, right))
    };
    let lone = rows.iter().enumerate().filter(|(i, row)| !row.left && !met(*i, row));
    lone.map(|(_, row)| (row.time, row.ord)).collect()
}

proptest! {
    /// In event-time order, any cut into calls, with the state saved and moved to other workers on the way, gives what the
    /// definition gives, and tells of what met nothing once and at the first watermark that rules it out.
    #[test]
    fn joins_as_defined(
        rows in rows(),
        cuts in prop::collection::vec(0i64..400, 0..8),
        within in prop_oneof![Just(0i64), 1i64..60, Just(i64::MAX)],
        ids in prop_oneof![Just(Ids::Words), Just(Ids::Text)],
        saves in saves(),
    ) {
        let mut rows = rows;
        rows.sort_unstable();
        let mut cuts = cuts;
        cuts.push(400);
        cuts.sort_unstable();
        let mut workers = Workers::new(ids, within);
        let (mut got, mut done) = (Vec::new(), 0);
        let (mut lone, mut expired) = (naive_unmatched(&rows, within.min(1_000)), 0);
        lone.sort_unstable();
        for (i, watermark) in cuts.into_iter().enumerate() {
            let next = rows.partition_point(|r| r.time < watermark);
            got.extend(workers.apply(&rows[done..next]));
            done = next;
            let past = lone.partition_point(|(time, _)| *time < watermark.saturating_sub(within));
            prop_assert_eq!(workers.advance(watermark), &lone[expired..past.max(expired)]);
            expired = past.max(expired);
            workers.save(&saves, i, watermark);
        }
        let mut expected = naive(&rows, within.min(1_000));
        expected.sort_by_key(|s| (s.0, s.1, s.2));
        prop_assert_eq!(got, expected);
    }

    /// In order of arrival too, what is saved and moved goes on as what is not, row by row.
    #[test]
    fn what_is_saved_goes_on(
        rows in rows(),
        steps in 5usize..40,
        within in prop_oneof![1i64..60, Just(i64::MAX)],
        ids in prop_oneof![Just(Ids::Words), Just(Ids::Text)],
        saves in saves(),
    ) {
        // A row may come before earlier ones, though not before the watermark.
        let mut rows = rows;
        rows.sort_by_key(|row| row.time + (row.ord * 7_919 % 40) as i64);
        let (mut twin, mut workers) = (Workers::new(ids, within), Workers::new(ids, within));
        for (i, part) in rows.chunks(steps).enumerate() {
            let mut part = part.to_vec();
            part.sort_unstable();
            prop_assert_eq!(workers.apply(&part), twin.apply(&part));
            let watermark = rows[((i + 1) * steps).min(rows.len())..].iter().map(|row| row.time).min().unwrap_or(1_000);
            prop_assert_eq!(workers.advance(watermark), twin.advance(watermark));
            workers.save(&saves, i, watermark);
        }
    }

    /// One worker that is saved and restored says the same bits as one that is not.
    #[test]
    fn one_worker_goes_on_bit_by_bit(rows in rows(), saves in saves(), ids in prop_oneof![Just(Ids::Words), Just(Ids::Text)]) {
        let mut rows = rows;
        rows.sort_unstable();
        let saves: Vec<Save> = saves.into_iter().map(|(at, whole, workers)| (at, whole, workers.map(|_| 1))).collect();
        let (mut twin, mut one) = (join(ids, 50), Workers::new(ids, 50));
        for (i, part) in rows.chunks(20).enumerate() {
            let (left, right) = (batch(part, ids, true), batch(part, ids, false));
            prop_assert_eq!(one.joins[0].apply(Some(&left), Some(&right)), twin.apply(Some(&left), Some(&right)));
            let watermark = part[part.len() - 1].time;
            one.joins[0].advance(watermark);
            twin.advance(watermark);
            prop_assert_eq!(one.joins[0].take_unmatched(), twin.take_unmatched());
            one.save(&saves, i, watermark);
        }
    }

    /// In order of arrival the labels end up as if all rows had come in order, and none is seen before its time.
    #[test]
    fn arrival_order_ends_with_the_latest_label(rows in rows(), step in 1usize..40) {
        let mut join = join(Ids::Words, i64::MAX);
        let mut label = HashMap::new();
        for part in rows.chunks(step) {
            let mut part = part.to_vec();
            part.sort_unstable();
            let updates = join.apply(Some(&batch(&part, Ids::Words, true)), Some(&batch(&part, Ids::Words, false)));
            for (time, _, target, right, revise) in updates.map(|u| said(&u)).unwrap_or_default() {
                prop_assert_eq!(revise, label.contains_key(&target));
                prop_assert!(time >= target.0);
                if let Some(right) = right {
                    let right_time = rows.iter().find(|r| r.ord == right).unwrap().time;
                    prop_assert_eq!(time, right_time.max(target.0));
                }
                label.insert(target, right);
            }
        }
        for row in rows.iter().filter(|r| r.left) {
            let rights = rows.iter().filter(|r| !r.left && r.id.is_some() && r.id == row.id);
            prop_assert_eq!(label[&(row.time, row.ord)], rights.max().map(|r| r.ord));
        }
    }

    /// Damaged bytes are refused and leave the join as it was.
    #[test]
    fn broken_slots_are_refused(at in any::<prop::sample::Index>(), ids in prop_oneof![Just(Ids::Words), Just(Ids::Text)]) {
        let mut full = join(ids, 100);
        let rows: Vec<Row> = (0..40).map(|i| Row { time: i, ord: i as u64, id: Some(i as u8 / 4), left: i % 2 == 0 }).collect();
        full.apply(Some(&batch(&rows, ids, true)), Some(&batch(&rows, ids, false)));
        for (slot, bytes) in full.freeze(false).encode().unwrap() {
            let mut empty = join(ids, 100);
            let mut damaged = bytes.clone();
            let bit = at.index(bytes.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(empty.import(slot, &damaged).is_err());
            prop_assert!(empty.import(slot, &bytes[..at.index(bytes.len())]).is_err());
            // Sound in itself, and of another join.
            let mut other = join(match ids { Ids::Words => Ids::Text, Ids::Text => Ids::Words }, 100);
            let error = other.import(slot, &bytes).unwrap_err().to_string();
            prop_assert!(error.contains("join `labelled`") && error.contains("another join"), "{}", error);
            empty.advance(0);
            prop_assert_eq!((empty.kept(), other.kept()), ((0, 0), (0, 0)));
            empty.import(slot, &bytes).unwrap();
        }
    }
}

/// A save costs what came since the one before, and rows that have expired are in none.
#[test]
fn saves_hold_what_is_new() {
    let mut join = join(Ids::Words, 1_000);
    let rows = |from: i64, to: i64, left: bool| {
        let row = |i: i64| Row { time: i, ord: i as u64 | u64::from(!left) << 40, id: Some((i % 200) as u8), left };
        batch(&(from..to).map(row).collect::<Vec<_>>(), Ids::Words, left)
    };
    let met = |join: &mut LabelJoin| {
        let slots = join.freeze(false).encode().unwrap();
        slots.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    };
    join.apply(Some(&rows(0, 500, true)), None);
    assert_eq!(join.freeze(false).rows(), (500, 0));
    assert_eq!(join.freeze(false).rows(), (0, 0));
    assert!(join.freeze(false).encode().unwrap().is_empty());
    join.apply(Some(&rows(500, 510, true)), Some(&rows(500, 510, false)));
    // The left rows met by then are named, not written again.
    assert_eq!(join.freeze(false).rows(), (10, 10));
    join.apply(None, Some(&rows(510, 520, false)));
    assert!(met(&mut join) > 0);
    assert_eq!(join.freeze(true).rows(), (510, 20));
    join.advance(1_300);
    assert!(join.take_unmatched().is_empty());
    let kept = join.freeze(true).encode().unwrap();
    let mut restored = self::join(Ids::Words, 1_000);
    kept.iter().for_each(|(slot, bytes)| restored.import(*slot, bytes).unwrap());
    restored.advance(1_300);
    assert_eq!(restored.kept(), (210, 20));
    // Two rows that met nothing: told of by the one and by the other at the same watermark.
    for join in [&mut join, &mut restored] {
        join.apply(None, Some(&rows(1_530, 1_532, false)));
        join.advance(2_531);
        assert_eq!(join.take_unmatched().iter().flat_map(unmatched).collect::<Vec<_>>(), [(1_530, 1_530 | 1 << 40)]);
    }
}

#[test]
#[should_panic(expected = "unmatched rows are taken in every tick")]
fn unmatched_rows_must_be_taken_before_a_freeze() {
    let mut join = join(Ids::Words, 0);
    join.apply(None, Some(&batch(&[Row { time: 0, ord: 1, id: Some(1), left: false }], Ids::Words, false)));
    join.advance(10);
    join.freeze(false);
}

/// Prints what a freeze costs; a measurement, not a check.
#[test]
fn cost_of_a_freeze() {
    let mut join = join(Ids::Words, i64::MAX);
    let n = 200_000i64;
    let mut first = None;
    for (start, left) in [(0, true), (0, false), (n, true)] {
        for start in (start..start + n).step_by(8_192) {
            let row = |i: i64| Row { time: i, ord: i as u64 | u64::from(!left) << 40, id: Some(0), left };
            let rows = batch(&(start..start + 8_192).map(row).collect::<Vec<_>>(), Ids::Words, left);
            let mut columns = rows.columns().to_vec();
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + 8_192));
            columns[3] = arrow::compute::cast(&ids, columns[3].data_type()).unwrap();
            let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
            if left {
                join.apply(Some(&rows), None)
            } else {
                join.apply(None, Some(&rows))
            };
        }
        first.get_or_insert_with(|| join.freeze(false));
    }
    for whole in [false, true] {
        let begin = std::time::Instant::now();
        let frozen = join.freeze(whole);
        let held = begin.elapsed();
        let (rows, begin) = (frozen.rows(), std::time::Instant::now());
        let slots = frozen.encode().unwrap();
        let bytes: usize = slots.iter().map(|(_, bytes)| bytes.len()).sum();
        println!(
            "label join, whole {whole}: {rows:?} rows frozen in {:.2} ms, encoded in {:.0} ms elsewhere, {} bytes a row",
            held.as_secs_f64() * 1e3,
            begin.elapsed().as_secs_f64() * 1e3,
            bytes / (rows.0 + rows.1)
        );
    }
}

#[test]
fn state_and_index_are_let_go() {
    let mut join = join(Ids::Text, 1_000);
    let total = 200_000i64;
    for start in (0..total).step_by(500) {
        let rows: Vec<Row> = (start..start + 500)
            .map(|i| Row { time: i, ord: i as u64, id: Some((i / 2 % 251) as u8), left: i % 2 == 0 })
            .collect();
        join.apply(Some(&batch(&rows, Ids::Text, true)), Some(&batch(&rows, Ids::Text, false)));
        join.advance(start + 500);
        let (left, right) = join.kept();
        assert!(left + right <= 2_000 + 1_000, "{left} + {right} rows kept");
    }
    assert!(join.memory_bytes() < 10 << 20, "{} bytes", join.memory_bytes());
    join.advance(i64::MAX);
    assert_eq!(join.kept(), (0, 0));
    assert!(join.index.iter().all(|table| table.is_empty()));
    let counts = join.counts();
    assert_eq!((counts.left, counts.right, counts.labelled), (100_000, 100_000, 100_000));
    assert_eq!((counts.unlabelled, counts.unmatched, counts.superseded), (0, 0, 0));
}

#[test]
fn what_never_meets_is_counted() {
    let mut join = join(Ids::Words, 10);
    let row = |time, ord, id, left| Row { time, ord, id, left };
    let rows =
        [row(0, 0, Some(1), true), row(0, 1, None, true), row(50, 2, Some(1), false), row(50, 3, Some(2), false)];
    let updates = join.apply(Some(&batch(&rows, Ids::Words, true)), Some(&batch(&rows, Ids::Words, false))).unwrap();
    assert!(said(&updates).iter().all(|s| !s.4 && s.3.is_none()));
    join.advance(i64::MAX);
    assert_eq!(join.counts(), JoinCounts { left: 2, right: 2, unlabelled: 2, unmatched: 2, ..Default::default() });
}

/// A row is kept for as long as a row at the watermark may still meet it, and no longer matters after that.
#[test]
fn within_includes_its_ends() {
    for (first_is_left, gap, met) in [(true, 10, true), (false, 10, true), (true, 11, false), (false, 11, false)] {
        let mut join = join(Ids::Words, 10);
        let first = [Row { time: 0, ord: 0, id: Some(1), left: first_is_left }];
        let second = [Row { time: gap, ord: 1, id: Some(1), left: !first_is_left }];
        let mut apply = |rows: &[Row]| {
            let updates = join.apply(Some(&batch(rows, Ids::Words, true)), Some(&batch(rows, Ids::Words, false)));
            join.advance(rows[0].time + gap);
            updates.map(|u| said(&u)).unwrap_or_default()
        };
        apply(&first);
        let updates = apply(&second);
        assert_eq!(updates.iter().any(|u| u.3.is_some()), met, "{gap} after, first left: {first_is_left}");
    }
}

/// Many rows of one id must not cost a search of them all each time.
#[test]
fn one_id_for_all_left_rows() {
    let mut join = join(Ids::Words, 1_000);
    for start in (0..100_000i64).step_by(10_000) {
        let rows: Vec<Row> =
            (start..start + 10_000).map(|i| Row { time: i, ord: i as u64, id: Some(7), left: true }).collect();
        let updates = join.apply(Some(&batch(&rows, Ids::Words, true)), None).unwrap();
        assert_eq!(updates.num_rows(), 10_000);
        join.advance(start);
    }
    assert!(join.kept().0 < 30_000);
}

/// Prints what a left row and its label cost; a measurement, not a check.
#[test]
fn cost_per_row() {
    let mut join = join(Ids::Words, 7_000_000);
    let mut spent = std::time::Duration::ZERO;
    let n = 400_000i64;
    for start in (0..n).step_by(16_384) {
        let id = |i: i64| Some((i % 251) as u8);
        let rows: Vec<Row> =
            (start..start + 16_384).map(|i| Row { time: i, ord: i as u64, id: id(i), left: true }).collect();
        let mut left = batch(&rows, Ids::Words, true);
        let rights: Vec<Row> = rows.iter().map(|r| Row { left: false, ord: r.ord | 1 << 40, ..*r }).collect();
        let mut right = batch(&rights, Ids::Words, false);
        // Ids of their own, which a byte cannot give; each label comes 100,000 rows later.
        let with_ids = |batch: &RecordBatch, ids: ArrayRef| {
            let mut columns = batch.columns().to_vec();
            columns[3] = ids;
            RecordBatch::try_new(batch.schema(), columns).unwrap()
        };
        left = with_ids(&left, Arc::new(Int64Array::from_iter_values(start..start + 16_384)));
        let known = (start..start + 16_384).map(|i| (i - 100_000) as i32);
        right = with_ids(&right, Arc::new(arrow::array::Int32Array::from_iter_values(known)));
        let begin = std::time::Instant::now();
        let updates = join.apply(Some(&left), Some(&right));
        join.advance(start);
        spent += begin.elapsed();
        assert!(updates.is_some());
    }
    let ns = spent.as_nanos() as f64 / (2 * n) as f64;
    println!("label join: {ns:.0} ns per row in, {} bytes per row kept", join.memory_bytes() / join.kept().0);
}
