//! Joins of real tables held against naive ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::table::Table;
use super::*;
use crate::base::{DAY, EventTime, Ord64, Position};
use crate::store::offline::{
    CompactOptions, TableCommitter, TableReader, TableSpec, TableWriter, WriterOptions, compact, table_path,
};

const START: i64 = 17_622 * DAY; // 2018-04-01
/// Three hours, so that a few steps cross days.
const STEP: i64 = 3 * 3_600_000_000;

/// A row of a table: its time in steps, its key, its offset, its value.
type Row = (i64, Option<i64>, u64, Option<f64>);

/// Appends rows to a table, as one epoch of an application of its own.
fn append(lake: &Path, spec: &TableSpec, epoch: u64, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let ord = |offset| Ord64::from(Position { source: 0, partition: 1, offset }).0;
    let time = || -> ArrayRef {
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| START + r.0 * STEP)).with_timezone("UTC"),
        )
    };
    let names: Vec<&str> =
        ["_time", "_ord"].into_iter().chain(spec.columns().iter().map(|c| c.engine.as_str())).collect();
    let column = |name: &str| -> ArrayRef {
        match name {
            "_time" | "known_at" => time(),
            "_ord" => Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| ord(r.2)))),
            "country" => Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1.map(|key| format!("c{}", key % 2))))),
            // So that keys of two columns are needed to tell rows apart.
            "half" => Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.1.map(|key| key / 2)))),
            "value" | "amount" => Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.3))),
            _ => Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.1))),
        }
    };
    let batch = RecordBatch::try_from_iter_with_nullable(names.into_iter().map(|n| (n, column(n), true))).unwrap();
    let options = WriterOptions { job_version: 1, sources: vec!["tx".into()], ..WriterOptions::default() };
    let mut writer = TableWriter::new(lake, spec, options).unwrap();
    writer.append(epoch, &batch).unwrap();
    let parts = writer.flush().unwrap();
    TableCommitter::open(lake, spec, "test").unwrap().commit(epoch, &parts).unwrap();
}

fn spec(name: &str, columns: &[(&str, DataType)], entity: &[&str]) -> TableSpec {
    let columns = columns.iter().map(|(n, t)| (n.to_string(), n.to_string(), t.clone()));
    TableSpec::new(name, columns, entity).unwrap()
}

fn view_spec() -> TableSpec {
    let columns = [
        ("customer_id", DataType::Int64),
        ("half", DataType::Int64),
        ("country", DataType::Utf8),
        ("amount", DataType::Float64),
    ];
    spec("features/customer", &columns, &["customer_id"])
}

fn set_spec() -> TableSpec {
    let columns = [("tx_id", DataType::Int64), ("half", DataType::Int64), ("amount", DataType::Float64)];
    spec("feature_sets/s", &columns, &["half"])
}

fn label_spec() -> TableSpec {
    let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    spec("labels/m", &[("id", DataType::Int64), ("value", DataType::Float64), ("known_at", time)], &["id"])
}

fn write_parquet(path: &Path, batch: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn read_parquet(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn floats(batch: &RecordBatch, name: &str) -> Vec<Option<u64>> {
    let column = batch.column_by_name(name).unwrap().as_primitive::<Float64Type>();
    column.iter().map(|value| value.map(f64::to_bits)).collect()
}

fn integers(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().iter().collect()
}

fn times(batch: &RecordBatch, name: &str) -> Vec<Option<EventTime>> {
    batch.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().iter().collect()
}

fn view(keys: &[&str], ttl: Option<i64>) -> View {
    let column = |column: &str| ViewColumn { column: column.into(), name: format!("customer__{column}") };
    View {
        table: "features/customer".into(),
        keys: keys.iter().map(|k| k.to_string()).collect(),
        columns: vec![column("amount")],
        ttl: ttl.map(|steps| steps * STEP),
    }
}

fn query(lake: &Path, rows: Rows) -> Query {
    Query { job: "j".into(), lake: lake.to_path_buf(), rows, at: Asked::Newest, memory_bytes: Query::MEMORY_BYTES }
}

/// Probes: time in steps and a little less or more, and a key.
fn entity_file(dir: &Path, probes: &[(Option<(i64, i64)>, Option<i64>)]) -> PathBuf {
    let at = |probe: &(Option<(i64, i64)>, Option<i64>)| probe.0.map(|(step, off)| START + step * STEP + off);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("note", Arc::new(Int64Array::from_iter_values(0..probes.len() as i64))),
        ("customer_id", Arc::new(Int64Array::from_iter(probes.iter().map(|p| p.1)))),
        ("half", Arc::new(Int64Array::from_iter(probes.iter().map(|p| p.1.map(|key| key / 2))))),
        ("country", Arc::new(StringArray::from_iter(probes.iter().map(|p| p.1.map(|key| format!("c{}", key % 2)))))),
        ("when", Arc::new(TimestampMicrosecondArray::from_iter(probes.iter().map(at)))),
    ];
    let path = dir.join("entities.parquet");
    write_parquet(
        &path,
        &RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap(),
    );
    path
}

/// The naive twin: among all rows of the key the greatest that is not later.
fn as_of(epochs: &[Vec<Row>], key: Option<i64>, time: Option<i64>, ttl: Option<i64>) -> Option<Option<u64>> {
    let (key, time) = (key?, time?);
    let rows = epochs.iter().enumerate().flat_map(|(epoch, rows)| rows.iter().map(move |row| (epoch, row)));
    let known = rows.filter(|(_, row)| row.1 == Some(key) && START + row.0 * STEP <= time);
    let value = |v: Option<f64>| v.map(|v| (v.to_bits() ^ ((v.to_bits() as i64 >> 63) as u64 | 1 << 63), v.to_bits()));
    let newest = known.map(|(epoch, row)| (row.0, row.2, epoch, value(row.3))).max()?;
    let old = ttl.is_some_and(|ttl| time - (START + newest.0 * STEP) > ttl * STEP);
    (!old).then_some(newest.3.map(|(_, bits)| bits))
}

fn rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let key = prop_oneof![6 => (0..6i64).prop_map(Some), 1 => Just(None)];
    let value = prop_oneof![4 => (-3..3i32).prop_map(|v| Some(f64::from(v) / 4.0)), 1 => Just(None)];
    // Few times, keys and offsets, so that there are ties and rows that were written twice.
    let row = (0..24i64, key, 0..30u64, value);
    prop::collection::vec(prop::collection::vec(row, 0..40), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn entities_find_what_a_search_by_hand_finds(
        epochs in rows(),
        later in rows(),
        probes in prop::collection::vec(
            (prop::option::weighted(0.95, (-1..26i64, -1..2i64)), prop::option::weighted(0.95, -1..7i64)), 0..60),
        ttl in prop::option::of(0..9i64),
        two_columns in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let lake = dir.path().join("lake");
        append(&lake, &view_spec(), 0, &[(0, Some(77), 0, None)]);
        for (epoch, rows) in (1..).zip(&epochs) {
            append(&lake, &view_spec(), epoch, rows);
        }
        let file = entity_file(dir.path(), &probes);
        let keys: &[&str] = if two_columns { &["half", "country"] } else { &["customer_id"] };
        let entities = Entities { file, time: None, views: vec![view(keys, ttl)] };
        let mut query = query(&lake, Rows::Entities(entities));
        let out = dir.path().join("a.parquet");
        let manifest = build(&query, &out).unwrap();
        let set = read_parquet(&out);

        let when = |probe: &(Option<(i64, i64)>, Option<i64>)| probe.0.map(|(step, off)| START + step * STEP + off);
        let mut order: Vec<usize> = (0..probes.len()).collect();
        order.sort_by_key(|&i| (when(&probes[i]), i));
        let expected: Vec<Option<u64>> =
            order.iter().map(|&i| as_of(&epochs, probes[i].1, when(&probes[i]), ttl).flatten()).collect();
        prop_assert_eq!(integers(&set, "note"), order.iter().map(|&i| Some(i as i64)).collect::<Vec<_>>());
        prop_assert_eq!(floats(&set, "customer__amount"), expected);
        let gaps = probes.iter().filter(|p| as_of(&epochs, p.1, when(p), ttl).is_none()).count() as u64;
        prop_assert_eq!(manifest.counts.with_gaps, gaps);

        // Compaction, later rows, small chunks: the same bytes, by version.
        for (epoch, rows) in (100..).zip(&later) {
            append(&lake, &view_spec(), epoch, rows);
        }
        compact(&lake, "features/customer", &CompactOptions::default(), &|| true).unwrap();
        let versions = manifest.tables.iter().map(|t| (t.table.clone(), t.version)).collect();
        query.at = Asked::Tables(versions);
        query.memory_bytes = 3_000;
        let again = dir.path().join("b.parquet");
        let second = build(&query, &again).unwrap();
        prop_assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
        prop_assert_eq!(&second, &manifest);
        // The compacted files hold the same rows, and more.
        query.at = Asked::Newest;
        build(&query, &again).unwrap();
        let mut all = epochs.clone();
        all.resize(99, Vec::new());
        all.extend(later);
        let expected: Vec<Option<u64>> =
            order.iter().map(|&i| as_of(&all, probes[i].1, when(&probes[i]), ttl).flatten()).collect();
        prop_assert_eq!(floats(&read_parquet(&again), "customer__amount"), expected);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        prop_assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{:?}", left);
    }

    #[test]
    fn labels_find_their_features_and_nothing_that_was_not_known(
        features in rows(),
        labels in rows(),
        from in prop::option::of(0..20i64),
        to in prop::option::of(0..26i64),
        delay in prop::option::of(0..8i64),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let lake = dir.path().join("lake");
        append(&lake, &set_spec(), 0, &[(0, Some(77), 0, None)]);
        append(&lake, &label_spec(), 0, &[(1, Some(78), 0, None)]);
        for (epoch, (features, labels)) in (1..).zip(features.iter().zip(&labels)) {
            append(&lake, &set_spec(), epoch, features);
            append(&lake, &label_spec(), epoch, labels);
        }
        let n = features.len().min(labels.len());
        let newest = features[..n].iter().chain(&labels[..n]).flatten().map(|row| row.0).max().unwrap_or(0).max(1);
        let (cut_off, delayed) = (to.unwrap_or(newest), delay.unwrap_or(0));
        let window = Window {
            to: to.map(|to| START + to * STEP),
            from: from.map(|from| START + from * STEP),
            last: None,
            label_delay: delay.map(|delay| delay * STEP),
        };
        let asked = Labelled {
            model: "m".into(),
            labels: "labels/m".into(),
            features: "feature_sets/s".into(),
            id: "tx_id".into(),
            keys: vec!["half".into()],
            inputs: vec!["amount".into()],
            window,
        };
        let mut query = query(&lake, Rows::Labelled(asked));
        let out = dir.path().join("a.parquet");
        let built = build(&query, &out);
        if from.is_some_and(|from| from > cut_off - delayed) {
            prop_assert!(built.unwrap_err().to_string().contains("no event is at or after"));
            return Ok(());
        }
        let manifest = built.unwrap();
        let set = read_parquet(&out);

        // By hand: labels first, then each one's row.
        let value = |v: Option<f64>| v.map(f64::to_bits);
        let mut latest: BTreeMap<i64, (i64, u64, usize, Option<u64>)> = BTreeMap::new();
        for (epoch, rows) in labels[..n].iter().enumerate() {
            for row in rows.iter().filter(|row| row.0 <= cut_off) {
                let Some(id) = row.1 else { continue };
                let label = (row.0, row.2, epoch, value(row.3));
                let held = latest.entry(id).or_insert(label);
                *held = label.max(*held);
            }
        }
        let mut expected: Vec<(i64, i64, Option<u64>, u64, i64)> = Vec::new();
        for (id, (known, _, _, label)) in &latest {
            let Some(label) = label else { continue };
            let last = START + (cut_off - delayed) * STEP;
            let in_window: Vec<Vec<Row>> = features[..n]
                .iter()
                .map(|rows| rows.iter().filter(|r| from.is_none_or(|from| r.0 >= from)).copied().collect())
                .collect();
            let Some(amount) = as_of(&in_window, Some(*id), Some(last), None) else { continue };
            let time = in_window.iter().flatten().filter(|r| r.1 == Some(*id) && r.0 <= cut_off - delayed);
            let time = time.map(|r| r.0).max().unwrap();
            expected.push((START + time * STEP, *id, amount, *label, START + known * STEP));
        }
        expected.sort_unstable_by_key(|row| (row.0, row.1));
        let column = |name: &str| floats(&set, name);
        let found: Vec<_> = (0..set.num_rows())
            .map(|row| {
                let time = times(&set, "event_time")[row].unwrap();
                let id = integers(&set, "tx_id")[row].unwrap();
                (time, id, column("amount")[row], column("label")[row].unwrap(), times(&set, "known_at")[row].unwrap())
            })
            .collect();
        prop_assert_eq!(&found, &expected);
        for row in &found {
            prop_assert!(row.0 + delayed * STEP <= START + cut_off * STEP && row.4 <= START + cut_off * STEP);
        }
        let withdrawn = latest.values().filter(|label| label.3.is_none()).count() as u64;
        // The label that every table here begins with is withdrawn too, where it was known.
        prop_assert_eq!(manifest.counts.withdrawn, withdrawn + u64::from(cut_off >= 1));

        // Compacted, and in chunks: the same bytes.
        for table in ["feature_sets/s", "labels/m"] {
            compact(&lake, table, &CompactOptions::default(), &|| true).unwrap();
        }
        query.memory_bytes = 2_000;
        let again = dir.path().join("b.parquet");
        let second = build(&query, &again).unwrap();
        prop_assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap());
        prop_assert_eq!(second.counts, manifest.counts);
    }
}

#[test]
fn a_set_says_what_its_columns_are() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), &set_spec(), 1, &[(0, Some(1), 1, Some(0.5)), (1, Some(2), 2, None)]);
    append(
        dir.path(),
        &label_spec(),
        1,
        &[(2, Some(1), 1, Some(1.0)), (2, Some(2), 2, Some(0.0)), (3, Some(3), 3, Some(1.0))],
    );
    let asked = Labelled {
        model: "m".into(),
        labels: "labels/m".into(),
        features: "feature_sets/s".into(),
        id: "tx_id".into(),
        keys: vec!["half".into()],
        inputs: vec!["amount".into(), "half".into()],
        window: Window { last: Some(DAY), ..Window::default() },
    };
    let out = dir.path().join("set.parquet");
    let manifest = build(&query(dir.path(), Rows::Labelled(asked)), &out).unwrap();
    let roles: Vec<(&str, Role)> = manifest.columns.iter().map(|c| (c.name.as_str(), c.role)).collect();
    let expected = [
        ("tx_id", Role::Id),
        ("event_time", Role::Time),
        ("half", Role::Input),
        ("amount", Role::Input),
        ("label", Role::Label),
        ("known_at", Role::Known),
    ];
    assert_eq!(roles, expected);
    assert_eq!(read_roles(&out).unwrap(), manifest.columns);
    assert_eq!((manifest.rows, manifest.counts.without_features), (2, 1));
    // What was left open is filled in: the cut-off is the newest time of both tables.
    let Rows::Labelled(filled) = &manifest.query else { panic!("labelled") };
    assert_eq!(filled.window.to, Some(START + 3 * STEP));
    assert_eq!(filled.window.from, Some(START + 3 * STEP - DAY + 1));
    assert_eq!(Manifest::read(&manifest_path(&out)).unwrap(), manifest);
}

#[test]
fn versions_are_asked_for_by_number_and_by_time() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), &view_spec(), 1, &[(0, Some(1), 1, Some(1.0))]);
    let table = table_path(dir.path(), "features/customer");
    let first = TableReader::open(&table, None).unwrap();
    let committed = first.committed().unwrap();
    // Files tell the time as coarsely as the system's clock ticks.
    std::thread::sleep(std::time::Duration::from_millis(100));
    append(dir.path(), &view_spec(), 2, &[(1, Some(1), 2, Some(2.0))]);
    let newest = TableReader::open(&table, None).unwrap();
    assert!(newest.version() > first.version());
    let version = |asked: Asked| Table::open(dir.path(), "features/customer", &asked).map(|t| t.version().version);
    assert_eq!(version(Asked::Newest).unwrap(), newest.version());
    assert_eq!(version(Asked::Time(committed)).unwrap(), first.version());
    assert_eq!(version(Asked::Time(committed + 15_000)).unwrap(), first.version());
    assert_eq!(version(Asked::Time(EventTime::MAX)).unwrap(), newest.version());
    assert_eq!(version(Asked::Version(first.version())).unwrap(), first.version());
    let error = version(Asked::Time(0)).unwrap_err().to_string();
    assert!(error.contains("no version that was committed by 1970-01-01"), "{error}");
    let error = version(Asked::Version(99)).unwrap_err().to_string();
    assert!(error.contains("has no version 99; its newest is"), "{error}");
    assert_eq!("12".parse(), Ok(Asked::Version(12)));
    assert_eq!("latest".parse(), Ok(Asked::Newest));
    assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Asked::Time(1_000_000)));
    let pairs = [("labels/m".to_owned(), 3), ("feature_sets/s".to_owned(), 5)];
    assert_eq!("labels/m=3, feature_sets/s=5".parse(), Ok(Asked::Tables(pairs.into_iter().collect())));
    for bad in ["", "yesterday", "a=b", "1,2", "99999999999999999999999"] {
        assert!(bad.parse::<Asked>().unwrap_err().contains("names no version"), "{bad}");
    }
}

#[test]
fn what_cannot_be_joined_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let (lake, out) = (dir.path().join("lake"), dir.path().join("out.parquet"));
    append(&lake, &view_spec(), 1, &[(0, Some(1), 1, Some(1.0))]);
    let file = entity_file(dir.path(), &[(Some((1, 0)), Some(1))]);
    let refused =
        |entities: Entities, out: &Path| build(&query(&lake, Rows::Entities(entities)), out).unwrap_err().to_string();
    let good = || Entities { file: file.clone(), time: None, views: vec![view(&["customer_id"], None)] };
    let cases: Vec<(Entities, &str)> = vec![
        (Entities { time: Some("nix".into()), ..good() }, "has no column `nix`; it has note, customer_id"),
        (Entities { time: Some("note".into()), ..good() }, "column `note` of"),
        (Entities { views: vec![], ..good() }, "no view to join"),
        (Entities { views: vec![view(&["nix"], None)], ..good() }, "table features/customer has no column `nix`"),
        (Entities { file: dir.path().join("none.parquet"), ..good() }, "cannot open"),
        (
            Entities { views: vec![View { table: "features/none".into(), ..view(&["customer_id"], None) }], ..good() },
            "there is no delta table in",
        ),
    ];
    for (entities, expected) in cases {
        let error = refused(entities, &out);
        assert!(error.contains(expected), "{error} / {expected}");
    }
    assert!(refused(good(), &dir.path().join("x.json")).contains("its own manifest"));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let when: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![START]));
    let own = dir.path().join("text.parquet");
    write_parquet(&own, &RecordBatch::try_from_iter([("customer_id", text.clone()), ("when", when)]).unwrap());
    let error = refused(Entities { file: own.clone(), ..good() }, &out);
    assert!(error.contains("is Utf8, and Int64 in table features/customer; cast it"), "{error}");
    write_parquet(&own, &RecordBatch::try_from_iter([("customer_id", text)]).unwrap());
    assert!(refused(Entities { file: own.clone(), ..good() }, &out).contains("no column of times"));
    fs::write(&own, b"PAR1 not quite").unwrap();
    assert!(refused(Entities { file: own, ..good() }, &out).contains("text.parquet"));
    // Vacuumed: the version is in the log, its files are gone.
    append(&lake, &view_spec(), 2, &[(1, Some(1), 2, Some(2.0))]);
    compact(&lake, "features/customer", &CompactOptions::default(), &|| true).unwrap();
    let reader = TableReader::open(&table_path(&lake, "features/customer"), Some(1)).unwrap();
    for old in reader.data_files().unwrap() {
        fs::remove_file(old.path).unwrap();
    }
    let error = build(&Query { at: Asked::Version(1), ..query(&lake, Rows::Entities(good())) }, &out).unwrap_err();
    assert!(error.to_string().contains("which is gone: a vacuum has deleted it"), "{error}");
    assert!(!out.exists() && !manifest_path(&out).exists());
}

#[test]
fn a_nanosecond_before_is_before() {
    let dir = tempfile::tempdir().unwrap();
    let lake = dir.path().join("lake");
    append(&lake, &view_spec(), 1, &[(0, Some(1), 1, Some(1.0)), (1, Some(1), 2, Some(2.0))]);
    let exact = (START + STEP) * 1_000;
    let when = TimestampNanosecondArray::from(vec![exact - 1, exact, exact + 1]);
    let keys: ArrayRef = Arc::new(arrow::array::UInt8Array::from(vec![1; 3]));
    let file = dir.path().join("e.parquet");
    write_parquet(
        &file,
        &RecordBatch::try_from_iter([("customer_id", keys), ("event_time", Arc::new(when) as ArrayRef)]).unwrap(),
    );
    let out = dir.path().join("out.parquet");
    let entities = Entities { file, time: None, views: vec![view(&["customer_id"], None)] };
    build(&query(&lake, Rows::Entities(entities)), &out).unwrap();
    let expected = [1.0f64, 2.0, 2.0].map(|v| Some(v.to_bits())).to_vec();
    assert_eq!(floats(&read_parquet(&out), "customer__amount"), expected);
}
