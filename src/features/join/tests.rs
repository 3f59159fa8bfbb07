//! The label join against a list of rows that is searched from end to end.

use arrow::array::{Float64Array, Int64Array, StringArray};
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
    LabelJoin::new(&plan(ids, within), &stream_schema(ids, false)).unwrap()
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

    fn scale(&mut self, workers: usize, within: i64) {
        let mut joins: Vec<LabelJoin> = (0..workers).map(|_| join(self.ids, within)).collect();
        for old in &self.joins {
            for slot in 0..SLOTS {
                joins[worker_of_slot(slot, workers)].import_slot(&old.export_slot(slot)).unwrap();
            }
        }
        self.joins = joins;
    }
}

proptest! {
    /// In event-time order, any cut into calls, with the state moved to other workers on the way, gives what the
    /// definition gives.
    #[test]
    fn joins_as_defined(
        rows in rows(),
        cuts in prop::collection::vec(0i64..300, 0..8),
        within in prop_oneof![Just(0i64), 1i64..60, Just(i64::MAX)],
        ids in prop_oneof![Just(Ids::Words), Just(Ids::Text)],
        moved_at in 0usize..8,
    ) {
        let mut rows = rows;
        rows.sort_unstable();
        let mut cuts = cuts;
        cuts.push(300);
        cuts.sort_unstable();
        let mut workers = Workers { joins: vec![join(ids, within)], ids };
        let (mut got, mut done) = (Vec::new(), 0);
        for (i, watermark) in cuts.into_iter().enumerate() {
            let next = rows.partition_point(|r| r.time < watermark);
            got.extend(workers.apply(&rows[done..next]));
            done = next;
            workers.joins.iter_mut().for_each(|j| j.advance(watermark));
            if i == moved_at {
                workers.scale(3, within);
            }
        }
        let mut expected = naive(&rows, within.min(1_000));
        expected.sort_by_key(|s| (s.0, s.1, s.2));
        prop_assert_eq!(got, expected);
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

    /// Bytes that are no slot are refused and leave the join as it was.
    #[test]
    fn broken_slots_are_refused(at in any::<prop::sample::Index>(), cut in any::<bool>()) {
        let mut full = join(Ids::Words, 100);
        let rows: Vec<Row> = (0..4).map(|i| Row { time: i, ord: i as u64, id: Some(1), left: i % 2 == 0 }).collect();
        full.apply(Some(&batch(&rows, Ids::Words, true)), Some(&batch(&rows, Ids::Words, false)));
        let bytes = (0..SLOTS).map(|s| full.export_slot(s)).find(|b| !b.is_empty()).unwrap();
        let mut empty = join(Ids::Words, 100);
        if cut {
            let short = &bytes[..at.index(bytes.len() - 1) + 1];
            if short.len() < bytes.len() {
                prop_assert!(empty.import_slot(short).is_err());
            }
        }
        prop_assert_eq!(empty.kept(), (0, 0));
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
