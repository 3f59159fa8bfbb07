//! Compaction and vacuum: the same rows before and after, for every reader and every version.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::base::EventTime;

const TABLE: &str = "features/customer";
const GO_ON: &dyn Fn() -> bool = &|| true;

/// All rows, as sorted lines of JSON.
fn lines(root: &Path, version: Option<u64>) -> Vec<String> {
    let mut text = Vec::new();
    let mut json = arrow::json::LineDelimitedWriter::new(&mut text);
    for batch in read_table(&table_path(root, TABLE), None, version).unwrap() {
        json.write(&batch).unwrap();
    }
    json.finish().unwrap();
    drop(json);
    let mut lines: Vec<String> = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn live(root: &Path) -> Vec<PathBuf> {
    let table = TableReader::open(&table_path(root, TABLE), None).unwrap();
    table.files().unwrap().iter().map(|file| table.file_path(file).unwrap()).collect()
}

fn on_disk(root: &Path) -> usize {
    let mut count = 0;
    for date in std::fs::read_dir(table_path(root, TABLE)).unwrap().flatten() {
        if date.file_name().to_string_lossy().starts_with("event_date=") {
            count += std::fs::read_dir(date.path()).unwrap().count();
        }
    }
    count
}

fn age(path: &Path, days: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
}

fn fill(root: &Path, epochs: u64) {
    let mut committer = TableCommitter::open(root, &spec(), "job").unwrap();
    for epoch in 0..epochs {
        let rows: Vec<Row> =
            (0..20).map(|i| (APRIL + i % 2 * DAY + i, Some(i % 3), epoch * 20 + i as u64, Some(i as f64))).collect();
        committer.commit(epoch, &write(root, &rows)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    /// Twin: the table that was not compacted.
    #[test]
    fn compaction_changes_no_row_no_version_and_no_answer(
        rows in prop::collection::vec((0..3 * DAY, prop::option::weighted(0.9, 0..5i64), prop::option::of(any::<f32>())), 1..300),
        epochs in 1..12usize,
        target in prop_oneof![Just(6_000u64), Just(20_000), Just(128 << 20)],
        at in 0..4 * DAY,
    ) {
        let root = tempfile::tempdir().unwrap();
        let rows: Vec<Row> = rows.iter().enumerate()
            .map(|(i, (time, key, x))| (APRIL + time, *key, i as u64, x.filter(|x| x.is_finite()).map(f64::from))).collect();
        let mut committer = TableCommitter::open(root.path(), &spec(), "job").unwrap();
        for (epoch, chunk) in rows.chunks(rows.len().div_ceil(epochs)).enumerate() {
            committer.commit(epoch as u64, &write(root.path(), chunk)).unwrap();
        }
        let (version, newest) = (committer.version(), committer.newest_epoch());
        let history: Vec<_> = (0..=version).map(|v| lines(root.path(), Some(v))).collect();
        let directory = table_path(root.path(), TABLE);
        let answers = || (0..5i64).map(|key| {
            let table = TableReader::open(&directory, None).unwrap();
            let entity = [("customer_id".to_string(), Arc::new(Int64Array::from(vec![key])) as ArrayRef)];
            latest_as_of(&table, &entity, APRIL + at, None).unwrap().map(|l| (l.event_time, l.row))
        }).collect::<Vec<_>>();
        let before = answers();

        let options = CompactOptions { target_bytes: target, below_bytes: target, ..CompactOptions::default() };
        let files_before = live(root.path()).len() as u64;
        let planned = compact(root.path(), TABLE, &CompactOptions { dry_run: true, ..options.clone() }, GO_ON).unwrap();
        prop_assert_eq!(live(root.path()).len() as u64, files_before, "a dry run changes nothing");
        let done = compact(root.path(), TABLE, &options, GO_ON).unwrap();
        prop_assert!(done.files_before >= planned.files_before);
        prop_assert_eq!(live(root.path()).len() as u64 + done.files_before, files_before + done.files_after);
        if target == 128 << 20 {
            prop_assert!(live(root.path()).len() <= 4, "one file a date");
        }

        prop_assert_eq!(&lines(root.path(), None), &history[version as usize]);
        for (v, rows) in history.iter().enumerate() {
            prop_assert_eq!(&lines(root.path(), Some(v as u64)), rows, "version {}", v);
        }
        prop_assert_eq!(answers(), before);
        let mut after = TableCommitter::open(root.path(), &spec(), "job").unwrap();
        prop_assert_eq!(after.newest_epoch(), newest);
        prop_assert_eq!(after.commit(newest.unwrap(), &write(root.path(), &rows)).unwrap(), Outcome::AlreadyCommitted);
        if target == 128 << 20 {
            let again = compact(root.path(), TABLE, &options, GO_ON).unwrap();
            prop_assert_eq!(again.files_before, 0, "nothing is left to do");
        }
    }
}

#[test]
fn compacted_files_are_sorted_told_and_no_change_of_data() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 7);
    let done = compact(root.path(), TABLE, &CompactOptions::default(), GO_ON).unwrap();
    assert_eq!((done.files_before, done.files_after, done.rows), (14, 2, 140));
    assert!(done.bytes_after < done.bytes_before);

    let mut sums = HashMap::new();
    for path in live(root.path()) {
        let file = std::fs::File::open(&path).unwrap();
        let reader =
            parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let mut keys = Vec::new();
        for batch in reader.map(Result::unwrap) {
            let of = |name: &str| batch.column_by_name(name).unwrap().clone();
            let (customers, times) = (of("customer_id"), of("event_time"));
            let customers = customers.as_primitive::<Int64Type>().values().iter().copied();
            let times = times.as_primitive::<TimestampMicrosecondType>().values().iter().copied();
            keys.extend(customers.zip(times));
        }
        assert!(keys.is_sorted() && keys.len() == 70, "{keys:?}");
        let times = || keys.iter().map(|(_, time)| *time - APRIL);
        sums.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), (times().min(), times().max()));
    }
    // The log's last commits are the compaction's.
    let log = table_path(root.path(), "features/customer/_delta_log");
    for version in [8, 9] {
        let text = std::fs::read_to_string(log.join(format!("{version:020}.json"))).unwrap();
        let actions: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let info = actions.iter().find_map(|a| a.get("commitInfo")).unwrap();
        assert_eq!(info["operation"], "OPTIMIZE");
        let removes: Vec<_> = actions.iter().filter_map(|a| a.get("remove")).collect();
        assert_eq!(removes.len(), 7);
        assert!(removes.iter().all(|remove| remove["dataChange"] == false && remove["deletionTimestamp"].is_i64()));
        let adds: Vec<_> = actions.iter().filter_map(|a| a.get("add")).collect();
        let [add] = adds.as_slice() else { panic!("one file: {text}") };
        assert_eq!(add["dataChange"], false);
        let stats: serde_json::Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        assert_eq!(stats["numRecords"], 70);
        assert_eq!((&stats["minValues"]["customer_id"], &stats["maxValues"]["customer_id"]), (&0.into(), &2.into()));
        assert_eq!(stats["nullCount"]["customer_id"], 0);
        let name = add["path"].as_str().unwrap().rsplit('/').next().unwrap();
        let moment =
            |text: &serde_json::Value| -> EventTime { crate::base::parse_time(text.as_str().unwrap()).unwrap() };
        // The log's statistics are to the millisecond, rounded down, as the format has it.
        let (least, most) = (moment(&stats["minValues"]["event_time"]), moment(&stats["maxValues"]["event_time"]));
        let (min, max) = sums[name];
        assert!((0..1000).contains(&(APRIL + min.unwrap() - least)), "{stats}");
        assert!((0..1000).contains(&(APRIL + max.unwrap() - most)), "{stats}");
    }
}

#[test]
fn files_of_both_shapes_and_a_job_that_lost_a_column() {
    let root = tempfile::tempdir().unwrap();
    let narrow = spec();
    let mut columns: Vec<_> =
        narrow.columns().iter().map(|c| (c.name.clone(), c.engine.clone(), c.data_type.clone())).collect();
    columns.push(("nb_tx".into(), "customer_id".into(), DataType::Int64));
    let wide = TableSpec::new(TABLE, columns, &["customer_id"]).unwrap();
    let put = |spec: &TableSpec, epoch: u64, customer: i64| {
        let mut committer = TableCommitter::open(root.path(), spec, "job").unwrap();
        let mut writer = TableWriter::new(root.path(), spec, options()).unwrap();
        writer.append(epoch, &batch(&[(APRIL + 5, Some(customer), epoch, Some(0.5))])).unwrap();
        assert!(matches!(committer.commit(epoch, &writer.flush().unwrap()).unwrap(), Outcome::Committed { .. }));
    };
    put(&narrow, 0, 1); // version 1
    put(&wide, 1, 2); // the new version of the job adds the column
    put(&narrow, 2, 3); // the next one has lost the feature and still writes
    let values = || {
        let table = TableReader::open(&table_path(root.path(), TABLE), None).unwrap();
        let all = concat_batches(table.schema(), &table.read(None).unwrap()).unwrap();
        let of = |name: &str| all.column_by_name(name).unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        of("customer_id").into_iter().zip(of("nb_tx")).collect::<BTreeMap<_, _>>()
    };
    let expected = BTreeMap::from([(Some(1), None), (Some(2), Some(2)), (Some(3), None)]);
    assert_eq!(values(), expected);
    let before = lines(root.path(), None);
    let done = compact(root.path(), TABLE, &CompactOptions::default(), GO_ON).unwrap();
    assert_eq!((done.files_before, done.files_after), (3, 1));
    assert_eq!(values(), expected);
    assert_eq!(lines(root.path(), None), before);
    for customer in 1..4i64 {
        let table = TableReader::open(&table_path(root.path(), TABLE), None).unwrap();
        let entity = [("customer_id".to_string(), Arc::new(Int64Array::from(vec![customer])) as ArrayRef)];
        let row = latest_as_of(&table, &entity, APRIL + DAY, None).unwrap().unwrap().row;
        let value = row.column_by_name("nb_tx").unwrap().as_primitive::<Int64Type>().iter().next().unwrap();
        assert_eq!(value, expected[&Some(customer)]);
    }
    put(&narrow, 3, 4);
    put(&wide, 4, 5);
    compact(root.path(), TABLE, &CompactOptions::default(), GO_ON).unwrap();
    assert_eq!(values().into_values().flatten().collect::<Vec<_>>(), [2, 5]);
    assert_eq!(live(root.path()).len(), 1);
}

/// Appends go on while files are merged, vacuumed and read.
#[test]
fn upkeep_and_appends_do_not_disturb_each_other() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 2);
    let ended = AtomicBool::new(false);
    let merged = std::thread::scope(|scope| {
        let upkeep = || {
            let mut merged = 0;
            let now = VacuumOptions { retention: Duration::ZERO, ..VacuumOptions::default() };
            while !ended.load(Ordering::Relaxed) {
                merged += compact(root.path(), TABLE, &CompactOptions::default(), GO_ON).unwrap().files_before;
                vacuum(root.path(), TABLE, &now, GO_ON).unwrap();
            }
            merged
        };
        let upkeep: Vec<_> = (0..2).map(|_| scope.spawn(upkeep)).collect();
        let mut committer = TableCommitter::open(root.path(), &spec(), "other").unwrap();
        for epoch in 0..40u64 {
            let parts = write(root.path(), &[(APRIL, Some(1), 1000 + epoch, None)]);
            let outcome = committer.commit(epoch, &parts).unwrap();
            assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        }
        ended.store(true, Ordering::Relaxed);
        upkeep.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    assert!(merged > 4, "the test saw no merge between appends: {merged}");
    compact(root.path(), TABLE, &CompactOptions::default(), GO_ON).unwrap();
    let expected: BTreeMap<i64, usize> = (0..40).chain(1000..1040).map(|offset| (offset, 1)).collect();
    assert_eq!(offsets(root.path()), expected);
    assert_eq!(live(root.path()).len(), 2);
}

#[test]
fn a_vacuum_spares_what_anyone_may_need() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 3);
    compact(root.path(), TABLE, &CompactOptions::default(), GO_ON).unwrap();
    let table = table_path(root.path(), TABLE);
    let merged = live(root.path());
    // Removed a moment ago, though long written.
    for date in ["event_date=2018-04-01", "event_date=2018-04-02"] {
        std::fs::read_dir(table.join(date)).unwrap().flatten().for_each(|file| age(&file.path(), 50));
    }
    // Never committed: a young one, an old one, an old one that an outbox holds, an old one that a writer left half-done.
    let (young, old) =
        (write(root.path(), &[(APRIL, None, 900, None)]), write(root.path(), &[(APRIL, None, 901, None)]));
    age(&table.join(&old[0].path), 50);
    let staged = WriterOptions { outbox: Some("a".into()), ..options() };
    let mut writer = TableWriter::new(root.path(), &spec(), staged).unwrap();
    writer.append(0, &batch(&[(APRIL, None, 902, None)])).unwrap();
    let staged = writer.flush().unwrap();
    let waiting = table.join(&staged[0].path);
    std::fs::hard_link(root.path().join(staged[0].staged.as_ref().unwrap()), &waiting).unwrap();
    age(&waiting, 50);
    let half = table.join("event_date=2018-04-01/.part-00000-0.zstd.parquet.tmp");
    std::fs::write(&half, "half").unwrap();
    age(&half, 50);
    std::fs::write(table.join("README.md"), "not ours").unwrap();
    age(&table.join("README.md"), 50);

    let (rows, all) = (lines(root.path(), None), on_disk(root.path()));
    assert_eq!(all, 2 + 6 + 2 + 1 + 1);
    let week = VacuumOptions::default();
    let planned = vacuum(root.path(), TABLE, &VacuumOptions { dry_run: true, ..week.clone() }, GO_ON).unwrap();
    assert_eq!((planned.files, on_disk(root.path())), (2, all), "the old orphan and the half file, not yet");
    assert_eq!(vacuum(root.path(), TABLE, &week, GO_ON).unwrap(), planned);
    assert!(!table.join(&old[0].path).exists() && !half.exists());
    assert!(table.join(&young[0].path).exists() && waiting.exists() && table.join("README.md").exists());
    assert_eq!(lines(root.path(), Some(2)).len(), 40, "older versions are still there");

    // Without retention what was removed goes, and what is not committed yet stays.
    let now = VacuumOptions { retention: Duration::ZERO, ..week };
    assert_eq!(vacuum(root.path(), TABLE, &now, GO_ON).unwrap().files, 6);
    assert_eq!(on_disk(root.path()), 2 + 1 + 1);
    assert_eq!(live(root.path()), merged);
    assert_eq!(lines(root.path(), None), rows);
    let mut committer = TableCommitter::open(root.path(), &spec(), "job").unwrap();
    committer.commit(10, &young).unwrap();
    committer.commit(11, &staged).unwrap();
    assert_eq!(lines(root.path(), None).len(), rows.len() + 2);
}

/// A removal that checkpoints no longer tell, as they do for 7 days, is known from the log's entries.
#[test]
fn a_long_retention_outlives_the_checkpoints_memory() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 6);
    compact(root.path(), TABLE, &CompactOptions::default(), GO_ON).unwrap();
    // As if it had been 10 days ago: version 8 is the second removal.
    let log = table_path(root.path(), "features/customer/_delta_log");
    let then = SystemTime::now() - Duration::from_secs(10 * 86_400);
    let then_ms = then.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    for version in [7, 8] {
        let path = log.join(format!("{version:020}.json"));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = Vec::new();
        for line in text.lines() {
            let mut action: serde_json::Value = serde_json::from_str(line).unwrap();
            if action.get("remove").is_some() {
                action["remove"]["deletionTimestamp"] = serde_json::json!(then_ms as u64);
            }
            lines.push(action.to_string());
        }
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        age(&path, 10);
    }
    for date in ["event_date=2018-04-01", "event_date=2018-04-02"] {
        let directory = table_path(root.path(), TABLE).join(date);
        std::fs::read_dir(directory).unwrap().flatten().for_each(|file| age(&file.path(), 50));
    }
    // Versions 9 and 10: a checkpoint that has forgotten.
    let mut committer = TableCommitter::open(root.path(), &spec(), "other").unwrap();
    for epoch in 0..2 {
        committer.commit(epoch, &write(root.path(), &[(APRIL, None, 500 + epoch, None)])).unwrap();
    }
    assert!(log.join(format!("{:020}.checkpoint.parquet", 10)).exists());
    let month = VacuumOptions { retention: Duration::from_secs(30 * 86_400), ..VacuumOptions::default() };
    assert_eq!(vacuum(root.path(), TABLE, &month, GO_ON).unwrap().files, 0);
    assert_eq!(vacuum(root.path(), TABLE, &VacuumOptions::default(), GO_ON).unwrap().files, 12);
    assert_eq!(offsets(root.path()).len(), 122);
}

#[test]
fn the_logs_old_entries_go_and_what_readers_need_stays() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 33);
    let log = table_path(root.path(), "features/customer/_delta_log");
    let versions = || {
        let names = std::fs::read_dir(&log).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        let mut found: Vec<u64> =
            names.filter(|n| n.len() == 25).filter_map(|n| n.strip_suffix(".json")?.parse().ok()).collect();
        found.sort_unstable();
        found
    };
    let rows = lines(root.path(), None);
    let options = VacuumOptions::default();
    assert_eq!(vacuum(root.path(), TABLE, &options, GO_ON).unwrap().log_files, 0, "all is young");
    // Up to version 24 is old; 25 and later must stay readable, which takes the checkpoint of version 20.
    for entry in std::fs::read_dir(&log).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.get(..20).and_then(|n| n.parse::<u64>().ok()).is_some_and(|version| version <= 24) {
            age(&entry.path(), 31);
        }
    }
    let planned = vacuum(root.path(), TABLE, &VacuumOptions { dry_run: true, ..options.clone() }, GO_ON).unwrap();
    assert_eq!(planned.log_files, 21, "20 entries and the checkpoint of version 10");
    assert_eq!(versions().len(), 34);
    assert_eq!(vacuum(root.path(), TABLE, &options, GO_ON).unwrap(), planned);
    assert_eq!(versions(), (20..=33).collect::<Vec<_>>());
    assert_eq!(lines(root.path(), None), rows);
    for version in 20..=33 {
        assert_eq!(lines(root.path(), Some(version)).len() as u64, version * 20);
    }
    assert!(TableReader::open(&table_path(root.path(), TABLE), Some(19)).is_err());
    assert_eq!(TableCommitter::open(root.path(), &spec(), "job").unwrap().newest_epoch(), Some(32));

    // A table that rests: all is old, the newest checkpoint and what follows it stay.
    for entry in std::fs::read_dir(&log).unwrap().flatten() {
        age(&entry.path(), 31);
    }
    vacuum(root.path(), TABLE, &options, GO_ON).unwrap();
    assert_eq!(versions(), (30..=33).collect::<Vec<_>>());
    assert_eq!(lines(root.path(), None), rows);
    fill(root.path(), 34);
    assert_eq!(lines(root.path(), None).len(), rows.len() + 20, "epochs up to 32 are in the table already");
}

/// Merges 20 files of one date; prints the rate beside that of writing them, the memory it takes, and a point read before and
/// after. `TIDEMILL_BENCH_ROWS=4000000` for a figure to quote.
#[test]
fn compaction_rate() {
    let total: u64 = std::env::var("TIDEMILL_BENCH_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000);
    let features: Vec<String> = (0..20).map(|i| format!("f{i}")).collect();
    let columns = std::iter::once(("customer_id".to_string(), "customer_id".to_string(), DataType::Int64))
        .chain(features.iter().map(|f| (f.clone(), f.clone(), DataType::Float64)));
    let spec = TableSpec::new(TABLE, columns, &["customer_id"]).unwrap();
    let root = tempfile::tempdir().unwrap();
    let mut committer = TableCommitter::open(root.path(), &spec, "job").unwrap();
    let mut writer = TableWriter::new(root.path(), &spec, options()).unwrap();
    let mixed = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let mut writing = Duration::ZERO;
    for epoch in 0..20u64 {
        for start in (total * epoch / 20..total * (epoch + 1) / 20).step_by(8192) {
            let rows = start..(start + 8192).min(total * (epoch + 1) / 20);
            let times = rows.clone().map(|i| APRIL + (i as i64 * 20_000) % DAY);
            let ord = |offset| Ord64::from(Position { source: 0, partition: 0, offset }).0;
            let mut columns: Vec<(String, ArrayRef)> = vec![
                ("_time".into(), Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
                ("_ord".into(), Arc::new(UInt64Array::from_iter_values(rows.clone().map(ord)))),
                (
                    "customer_id".into(),
                    Arc::new(Int64Array::from_iter_values(rows.clone().map(|i| mixed(i) as i64 % 200_000))),
                ),
            ];
            for (i, feature) in features.iter().enumerate() {
                let value = |row: u64| (mixed(row + i as u64) % 100_000) as f64 / (1 + i) as f64;
                columns.push((feature.clone(), Arc::new(Float64Array::from_iter_values(rows.clone().map(value)))));
            }
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let started = std::time::Instant::now();
            writer.append(epoch, &batch).unwrap();
            writing += started.elapsed();
        }
        let started = std::time::Instant::now();
        let parts = writer.flush().unwrap();
        committer.commit(epoch, &parts).unwrap();
        writing += started.elapsed();
    }
    drop(writer);
    let point_read = || {
        let mut times: Vec<f64> = (0..11i64)
            .map(|key| {
                let started = std::time::Instant::now();
                let table = TableReader::open(&table_path(root.path(), TABLE), None).unwrap();
                let entity = [("customer_id".to_string(), Arc::new(Int64Array::from(vec![key])) as ArrayRef)];
                latest_as_of(&table, &entity, APRIL + DAY, None).unwrap();
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[5]
    };
    let resident = |field: &str| -> f64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
    };
    let read_before = point_read();
    // The peak from here on, where the system lets it be set back.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let (held, started) = (resident("VmRSS"), std::time::Instant::now());
    let options = CompactOptions { below_bytes: 1 << 40, target_bytes: 1 << 40, ..CompactOptions::default() };
    let done = compact(root.path(), TABLE, &options, GO_ON).unwrap();
    let took = started.elapsed();
    assert_eq!((done.files_before, done.files_after, done.rows), (20, 1, total));
    let rate = |time: Duration| total as f64 / time.as_secs_f64() / 1e6;
    println!(
        "written at {:.2} M rows/s, merged at {:.2} M rows/s with {:.0} MiB more memory, {:.1} → {:.1} MiB in {} → {} \
         files, point read {read_before:.1} → {:.1} ms",
        rate(writing),
        rate(took),
        resident("VmHWM") - held,
        done.bytes_before as f64 / 1048576.0,
        done.bytes_after as f64 / 1048576.0,
        done.files_before,
        done.files_after,
        point_read(),
    );
}

#[test]
fn upkeep_that_is_told_to_stop_leaves_the_table_right() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 5);
    let rows = lines(root.path(), None);
    assert_eq!(compact(root.path(), TABLE, &CompactOptions::default(), &|| false).unwrap(), Compacted::default());
    let left = std::cell::Cell::new(2);
    let some = || left.replace(left.get() - 1) > 0;
    let done = compact(root.path(), TABLE, &CompactOptions::default(), &some).unwrap();
    assert_eq!((done.files_before, done.files_after), (5, 1), "one date of two");
    assert_eq!(lines(root.path(), None), rows);
    assert_eq!(live(root.path()).len(), 6);
    let now = VacuumOptions { retention: Duration::ZERO, ..VacuumOptions::default() };
    assert_eq!(vacuum(root.path(), TABLE, &now, &|| false).unwrap(), Vacuumed::default());
    let error = compact(root.path(), "features/nobody", &CompactOptions::default(), GO_ON).unwrap_err();
    assert!(matches!(error, StoreError::NoTable(_)), "{error}");
    assert!(matches!(vacuum(root.path(), "features/nobody", &now, GO_ON), Err(StoreError::NoTable(_))));
}
