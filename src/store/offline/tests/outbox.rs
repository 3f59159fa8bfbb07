//! Outboxes: staging, publication, what is left behind.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::*;

const TABLE: &str = "features/customer";

fn stage(root: &Path, instance: &str, rows: &[Row]) -> Vec<Part> {
    let options = WriterOptions { outbox: Some(instance.into()), ..options() };
    let mut writer = TableWriter::new(root, &spec(), options).unwrap();
    writer.append(7, &batch(rows)).unwrap();
    writer.flush().unwrap()
}

fn open(root: &Path) -> TableCommitter {
    TableCommitter::open(root, &spec(), "job/a/features/customer").unwrap()
}

/// All files below a directory, by their paths below it.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let Ok(listing) = std::fs::read_dir(directory.join(&below)) else { continue };
        for entry in listing.flatten() {
            let below = below.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => open.push(below),
                false => drop(found.insert(below.to_str().unwrap().to_owned())),
            }
        }
    }
    found
}

fn parquet_files(root: &Path) -> BTreeSet<String> {
    files(&table_path(root, TABLE)).into_iter().filter(|f| f.starts_with("event_date=")).collect()
}

/// Offsets `numbers`, each a row of a date of its own.
fn rows(numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(|i| (APRIL + i as i64 * DAY, Some(1), i, None)).collect()
}

#[test]
fn staged_parts_are_outside_the_table_until_they_are_committed() {
    let root = tempfile::tempdir().unwrap();
    let parts = stage(root.path(), "a", &rows(0..3));
    assert_eq!(parts.len(), 3);
    let staged: BTreeSet<String> = parts.iter().map(|p| p.staged.clone().unwrap()).collect();
    assert_eq!(files(root.path()), staged, "nothing but the outbox is written");
    assert!(staged.iter().all(|path| path.starts_with("_outbox/a/features/customer/event_date=2018-04-0")));
    // A manifest keeps them.
    let parts: Vec<Part> = serde_json::from_str(&serde_json::to_string(&parts).unwrap()).unwrap();

    let mut committer = open(root.path());
    assert_eq!(committer.commit(0, &parts).unwrap(), Outcome::Committed { version: 1 });
    assert_eq!(offsets(root.path()), BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
    assert_eq!(parquet_files(root.path()), parts.iter().map(|p| p.path.clone()).collect());
    assert!(files(&root.path().join("_outbox")).is_empty());
}

#[test]
fn a_part_of_before_outboxes_is_read_as_one_in_the_table() {
    let old = r#"{"path":"event_date=2018-04-01/p.parquet","size":1,"rows":1,"modified_ms":1,
        "event_date":"2018-04-01","stats":"{}"}"#;
    assert_eq!(serde_json::from_str::<Part>(old).unwrap().staged, None);
}

#[test]
fn publication_is_taken_up_wherever_it_stopped() {
    let root = tempfile::tempdir().unwrap();
    let parts = stage(root.path(), "a", &rows(0..3));
    let (staged, target) = {
        let of = |i: usize| root.path().join(parts[i].staged.as_ref().unwrap());
        let to = |i: usize| table_path(root.path(), TABLE).join(&parts[i].path);
        ([of(0), of(1), of(2)], [to(0), to(1), to(2)])
    };
    open(root.path());
    // Stopped in the middle: one file has both names, one only its last, one only its first.
    for target in &target[..2] {
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    }
    std::fs::hard_link(&staged[0], &target[0]).unwrap();
    std::fs::rename(&staged[1], &target[1]).unwrap();
    assert_eq!(open(root.path()).commit(4, &parts).unwrap(), Outcome::Committed { version: 1 });
    assert_eq!(offsets(root.path()), BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
    assert!(files(&root.path().join("_outbox")).is_empty());

    // Stopped after the commit: what is left in the outbox goes.
    std::fs::hard_link(&target[2], &staged[2]).unwrap();
    assert_eq!(open(root.path()).commit(4, &parts).unwrap(), Outcome::AlreadyCommitted);
    assert!(files(&root.path().join("_outbox")).is_empty());
    assert_eq!(offsets(root.path()), BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
}

#[test]
fn a_lost_part_is_named_and_nothing_is_committed() {
    let root = tempfile::tempdir().unwrap();
    let parts = stage(root.path(), "a", &rows(0..2));
    let lost = root.path().join(parts[1].staged.as_ref().unwrap());
    std::fs::remove_file(&lost).unwrap();
    let mut committer = open(root.path());
    let error = committer.commit(3, &parts).unwrap_err();
    assert!(matches!(error, StoreError::LostPart { epoch: 3, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(lost.to_str().unwrap()) && text.contains(&parts[1].path), "{text}");
    assert_eq!((committer.newest_epoch(), committer.version()), (None, 0));
    assert!(offsets(root.path()).is_empty());
}

#[test]
fn a_part_that_left_the_table_is_not_committed() {
    let root = tempfile::tempdir().unwrap();
    let parts = write(root.path(), &rows(0..2));
    let mut committer = open(root.path());
    std::fs::remove_file(table_path(root.path(), TABLE).join(&parts[1].path)).unwrap();
    let error = committer.commit(3, &parts).unwrap_err().to_string();
    assert!(error.contains(&parts[1].path) && error.contains("is gone"), "{error}");
    assert!(offsets(root.path()).is_empty());
}

/// Who slept while others published, compacted and vacuumed wakes with an old snapshot and parts that are nowhere.
#[test]
fn who_comes_too_late_for_the_files_finds_the_epoch() {
    let root = tempfile::tempdir().unwrap();
    let mut sleeper = open(root.path());
    let first = stage(root.path(), "a", &rows(0..1));
    let second = stage(root.path(), "a", &rows(0..1));
    let mut successor = open(root.path());
    successor.commit(0, &first).unwrap();
    successor.commit(1, &second).unwrap();
    compact(root.path(), TABLE, &CompactOptions::default(), &|| true).unwrap();
    let now = VacuumOptions { retention: Duration::ZERO, ..VacuumOptions::default() };
    assert_eq!(vacuum(root.path(), TABLE, &now, &|| true).unwrap().files, 2);
    assert_eq!(sleeper.commit(0, &first).unwrap(), Outcome::AlreadyCommitted);
    assert_eq!(sleeper.commit(1, &second).unwrap(), Outcome::AlreadyCommitted);
    assert_eq!(offsets(root.path()), BTreeMap::from([(0, 2)]));
}

#[test]
fn an_outbox_has_a_plain_name() {
    let root = tempfile::tempdir().unwrap();
    for bad in ["", "..", "a/b", ".x"] {
        let options = WriterOptions { outbox: Some(bad.into()), ..options() };
        assert!(matches!(TableWriter::new(root.path(), &spec(), options), Err(StoreError::Request(_))), "{bad}");
    }
}

#[test]
fn a_start_clears_away_what_earlier_ones_left() {
    let root = tempfile::tempdir().unwrap();
    let outboxes = root.path().join("_outbox");
    for name in ["j.3", "j.5", "j.6", "jj.1", "j"] {
        std::fs::create_dir_all(outboxes.join(name).join("t/event_date=2018-04-01")).unwrap();
        std::fs::write(outboxes.join(name).join("t/event_date=2018-04-01/part"), "1").unwrap();
    }
    discard_outboxes_before(root.path(), "j", 5).unwrap();
    let left: Vec<bool> = ["j.3", "j.5", "j.6", "jj.1", "j"].iter().map(|n| outboxes.join(n).exists()).collect();
    assert_eq!(left, [false, true, true, true, true]);
}

#[test]
fn epochs_may_have_gaps_and_no_rows() {
    let root = tempfile::tempdir().unwrap();
    let mut committer = open(root.path());
    assert_eq!(committer.commit(0, &[]).unwrap(), Outcome::Empty);
    assert_eq!(committer.newest_epoch(), None);
    for (epoch, offset) in [(3, 0), (4, 1), (9, 2)] {
        let parts = stage(root.path(), "a", &rows(offset..offset + 1));
        assert!(matches!(committer.commit(epoch, &parts).unwrap(), Outcome::Committed { .. }));
        assert_eq!(committer.commit(epoch + 1, &[]).unwrap(), Outcome::Empty, "an epoch without rows makes no commit");
        assert_eq!(committer.newest_epoch(), Some(epoch));
        assert_eq!(open(root.path()).newest_epoch(), Some(epoch));
    }
    assert_eq!(committer.version(), 3);
    assert_eq!(offsets(root.path()).len(), 3);
}

/// A zombie and its successor publish the same epochs at the same moments.
#[test]
fn racing_committers_end_with_one_commit_and_all_files() {
    const EPOCHS: u64 = 25;
    let root = tempfile::tempdir().unwrap();
    open(root.path());
    let epochs: Vec<Vec<Part>> = (0..EPOCHS).map(|e| stage(root.path(), "a", &rows(e * 3..e * 3 + 3))).collect();
    let barrier = Barrier::new(3);
    let committed: Vec<usize> = std::thread::scope(|scope| {
        let race = || {
            let mut committer = open(root.path());
            let mut won = 0;
            for (epoch, parts) in epochs.iter().enumerate() {
                barrier.wait();
                match committer.commit(epoch as u64, parts).unwrap() {
                    Outcome::Committed { .. } => won += 1,
                    Outcome::AlreadyCommitted => {}
                    Outcome::Empty => panic!("there were rows"),
                }
            }
            won
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(race)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(committed.iter().sum::<usize>(), EPOCHS as usize, "{committed:?}");
    assert_eq!(offsets(root.path()), (0..EPOCHS as i64 * 3).map(|offset| (offset, 1)).collect());
    assert_eq!(open(root.path()).version(), EPOCHS);
    assert_eq!(parquet_files(root.path()), epochs.iter().flatten().map(|p| p.path.clone()).collect());
    assert!(files(&root.path().join("_outbox")).is_empty());
}

/// What an outbox costs a commit of 10 parts, of one date and of ten, in turn with none. Prints; the figures are of the disk
/// below the temporary directory.
#[test]
fn cost_of_an_outbox() {
    let root = tempfile::tempdir().unwrap();
    let mut committer = open(root.path());
    let one_date: Vec<Row> = (0..10).map(|i| (APRIL + i, Some(i), i as u64, None)).collect();
    let mut times: [Vec<(f64, f64)>; 4] = Default::default();
    for epoch in 0..24u64 {
        let variant = epoch as usize % 4;
        let outbox = (variant % 2 == 1).then(|| "a".into());
        let options = WriterOptions { outbox, rows_max: 1, ..options() };
        let mut writer = TableWriter::new(root.path(), &spec(), options).unwrap();
        let started = Instant::now();
        writer.append(epoch, &batch(&if variant < 2 { one_date.clone() } else { rows(0..10) })).unwrap();
        let parts = writer.flush().unwrap();
        let flushed = started.elapsed();
        assert_eq!(parts.len(), 10);
        committer.commit(epoch, &parts).unwrap();
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        times[variant].push((ms(flushed), ms(started.elapsed() - flushed)));
    }
    let names =
        ["of one date, in the table", "of one date, staged", "of ten dates, in the table", "of ten dates, staged"];
    for (times, name) in times.iter_mut().zip(names) {
        let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let mut sorted: Vec<f64> = times.iter().map(of).collect();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        println!("10 parts {name}: flush {:.2} ms, commit {:.2} ms (medians)", median(&|t| t.0), median(&|t| t.1));
    }
    assert_eq!(offsets(root.path()), (0..10).map(|offset| (offset, 24)).collect());
}
