//! The tick log on a real directory, on disks that fail, and after crashes of every kind.

use std::fs;
use std::io;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn record(tick: Tick) -> TickRecord {
    TickRecord {
        tick,
        watermark: if tick == 5 { i64::MAX } else { tick as i64 * 1_000 - 3_000 },
        offsets: vec![vec![tick * 3, tick], vec![], vec![u64::MAX - tick]],
        entered: vec![(1, 2, tick)],
        idle: if tick.is_multiple_of(2) { vec![] } else { vec![(0, 1), (2, 0)] },
        commands: if tick.is_multiple_of(3) { vec!["{\"swap\": \"fraud\"}".into()] } else { vec![] },
        epoch_end: tick % 4 == 3,
    }
}

fn records(ticks: std::ops::Range<Tick>) -> Vec<TickRecord> {
    ticks.map(record).collect()
}

fn write(log: &mut TickLog, ticks: std::ops::Range<Tick>) {
    ticks.for_each(|tick| log.append(&record(tick)).unwrap());
}

fn filled(ticks: Tick) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = TickLog::take_over(dir.path(), 0, 0).unwrap().0;
    write(&mut log, 0..ticks);
    log.close().unwrap();
    let path = dir.path().join("ticks-00000000000000000000.log");
    (dir, path)
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("state/ticks");
    let mut log = TickLog::take_over(&nested, 0, 0).unwrap().0;
    assert_eq!(log.durable(), 0);
    write(&mut log, 0..10);
    log.sync().unwrap();
    assert_eq!(log.durable(), 10);
    write(&mut log, 10..20);
    drop(log);
    assert_eq!(read(&nested).unwrap(), TickLogContents { records: records(0..20), next: 20, torn: None });
}

#[test]
fn a_log_is_resumed() {
    let (dir, _) = filled(7);
    let (mut log, contents) = TickLog::take_over(dir.path(), 1, 0).unwrap();
    assert_eq!(contents.records, records(0..7));
    assert_eq!(log.durable(), 7);
    assert!(matches!(log.append(&record(9)), Err(TickLogError::Gap { expected: 7, got: 9 })));
    write(&mut log, 7..9);
    log.close().unwrap();
    assert_eq!(read(dir.path()).unwrap().records, records(0..9));
}

#[test]
fn an_absent_directory_has_no_records_and_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("none");
    assert_eq!(read(&absent).unwrap(), TickLogContents::default());
    let (mut log, _) = TickLog::take_over(&absent, 1, 0).unwrap();
    write(&mut log, 0..1);
    log.close().unwrap();
    assert_eq!(read(&absent).unwrap().records, records(0..1));
}

/// A process that is killed leaves the zeros that it would have written over.
#[test]
fn zeros_at_the_end_are_no_damage() {
    let (dir, path) = filled(6);
    let mut bytes = fs::read(&path).unwrap();
    bytes.resize(bytes.len() + 300, 0);
    fs::write(&path, &bytes).unwrap();
    let whole = TickLogContents { records: records(0..6), next: 6, torn: None };
    assert_eq!(read(dir.path()).unwrap(), whole);
    let (mut log, _) = TickLog::take_over(dir.path(), 1, 0).unwrap();
    write(&mut log, 6..8);
    log.sync().unwrap();
    assert_eq!(read(dir.path()).unwrap().records, records(0..8), "while it is written");
    log.close().unwrap();
    assert_eq!(read(dir.path()).unwrap().records, records(0..8));
}

/// Wherever a crash cuts the file, the whole records before the cut are read, and the log goes on behind them.
#[test]
fn every_cut_is_a_torn_tail() {
    let (_dir, path) = filled(6);
    let bytes = fs::read(&path).unwrap();
    let mut ends = vec![8];
    while let Some(length) = bytes.get(ends[ends.len() - 1]..).filter(|b| !b.is_empty()) {
        ends.push(ends[ends.len() - 1] + 8 + u32::from_le_bytes(length[..4].try_into().unwrap()) as usize);
    }
    for cut in 0..bytes.len() {
        let (dir, path) = filled(0);
        fs::write(&path, &bytes[..cut]).unwrap();
        let whole = ends.iter().skip(1).filter(|end| **end <= cut).count() as Tick;
        let contents = read(dir.path()).unwrap();
        assert_eq!(contents.records, records(0..whole), "cut at {cut}");
        assert_eq!(contents.torn.is_none(), ends.contains(&cut), "cut at {cut}");
        let (mut log, _) = TickLog::take_over(dir.path(), 3, 0).unwrap();
        write(&mut log, whole..8);
        log.close().unwrap();
        assert_eq!(
            read(dir.path()).unwrap(),
            TickLogContents { records: records(0..8), next: 8, torn: None },
            "cut at {cut}"
        );
    }
}

proptest! {
    /// A flipped bit anywhere never yields a record that was not written.
    #[test]
    fn a_flipped_bit_ends_the_records(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (dir, path) = filled(6);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        match read(dir.path()) {
            Ok(contents) => {
                prop_assert!(contents.records.len() < 6);
                prop_assert_eq!(&contents.records, &records(0..contents.records.len() as Tick));
                prop_assert!(contents.torn.is_some());
            }
            Err(error) => prop_assert!(at < 8, "{}", error),
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (dir, path) = filled(1);
        let mut whole = fs::read(&path).unwrap();
        whole.extend(bytes);
        fs::write(&path, &whole).unwrap();
        prop_assert_eq!(read(dir.path()).unwrap().records, records(0..1));
    }
}

/// What another segment follows had been durable: if it is broken, it is damage and not a crash.
#[test]
fn damage_before_the_last_segment_is_an_error() {
    let (dir, path) = filled(6);
    let mut later = segments::FORMAT.to_vec();
    (6..9).for_each(|tick| segments::encode(&record(tick), &mut later));
    fs::write(dir.path().join("ticks-00000000000000000006.log"), &later).unwrap();
    assert_eq!(read(dir.path()).unwrap().records, records(0..9));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = read(dir.path()).unwrap_err();
    assert!(matches!(error, TickLogError::Damaged { .. }), "{error}");
    assert!(TickLog::take_over(dir.path(), 1, 0).is_err());
    // A segment that is missing altogether.
    fs::remove_file(&path).unwrap();
    fs::write(dir.path().join("ticks-00000000000000000003.log"), &bytes).unwrap();
    assert!(read(dir.path()).unwrap_err().to_string().contains("damaged"));
}

fn segments(dir: &Path) -> Vec<Tick> {
    segments::list(dir).unwrap().into_iter().map(|segment| segment.first).collect()
}

/// A log of several segments, each record durable by itself.
fn long(ticks: Tick) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut log = TickLog::take_over(dir.path(), 0, 0).unwrap().0;
    for tick in 0..ticks {
        write(&mut log, tick..tick + 1);
        log.sync().unwrap();
    }
    dir
}

#[test]
fn a_log_is_read_from_any_tick() {
    let dir = long(60);
    let firsts = segments(dir.path());
    assert!(firsts.len() > 3, "{firsts:?}");
    for from in 0..63 {
        let contents = read_from(dir.path(), from).unwrap();
        let expected = TickLogContents { records: records(from.min(60)..60), next: 60, torn: None };
        assert_eq!(contents, expected, "from {from}");
    }
    // What is not needed is not read.
    let broken = dir.path().join(format!("ticks-{:020}.log", firsts[1]));
    fs::write(&broken, "broken").unwrap();
    assert!(read_from(dir.path(), firsts[2] - 1).is_err());
    assert_eq!(read_from(dir.path(), firsts[2]).unwrap().records, records(firsts[2]..60));
    let none = dir.path().join("none");
    assert_eq!(read_from(&none, 5).unwrap(), TickLogContents { next: 5, ..TickLogContents::default() });
    let (log, _) = TickLog::take_over(&none, 1, 5).unwrap();
    assert_eq!(log.durable(), 5);
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

#[test]
fn whole_segments_are_removed_from_the_front() {
    for before in [0, 1, 30, 59, 60, 1_000] {
        let dir = long(60);
        let firsts = segments(dir.path());
        let (mut log, _) = TickLog::take_over(dir.path(), 1, 40).unwrap();
        let (long_ago, later) = (SystemTime::now() - HOUR, SystemTime::now() + HOUR);
        assert_eq!(remove_before(dir.path(), before, long_ago).unwrap(), 0, "all of it is young");
        let removed = remove_before(dir.path(), before, later).unwrap();
        let left = segments(dir.path());
        assert_eq!(left, firsts[removed..], "before {before}");
        assert_eq!(remove_before(dir.path(), before, later).unwrap(), 0);
        // No tick is lost that is asked for, none is kept for nothing.
        assert!(left[0] <= before && left.get(1).is_none_or(|next| *next > before));
        assert_eq!(read(dir.path()).unwrap().records, records(left[0]..60));
        write(&mut log, 60..70);
        log.close().unwrap();
        assert_eq!(read(dir.path()).unwrap().records, records(left[0]..70));
        assert!(read_from(dir.path(), left[0]).is_ok());
        if left[0] > 0 {
            let error = read_from(dir.path(), left[0] - 1).unwrap_err();
            assert!(error.to_string().contains(&format!("begins with tick {}", left[0])), "{error}");
            assert_eq!(error.blame(), Blame::Outside);
        }
    }
}

/// A crash may leave a last segment without a record; the ticks before it may be gone by then.
#[test]
fn an_empty_last_segment_says_which_tick_comes_next() {
    for torn in [&segments::FORMAT[..], &segments::FORMAT[..3], &[]] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ticks-00000000000000000040.log"), torn).unwrap();
        assert_eq!(read(dir.path()).unwrap().next, 40);
        let (mut log, contents) = TickLog::take_over(dir.path(), 1, 40).unwrap();
        assert!(contents.records.is_empty());
        assert_eq!(log.durable(), 40);
        write(&mut log, 40..43);
        log.close().unwrap();
        assert_eq!(read(dir.path()).unwrap(), TickLogContents { records: records(40..43), next: 43, torn: None });
    }
}

#[test]
fn a_log_may_begin_behind_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = TickLog::take_over(dir.path(), 1, 7).unwrap();
    assert!(matches!(log.append(&record(0)), Err(TickLogError::Gap { expected: 7, got: 0 })));
    write(&mut log, 7..9);
    log.close().unwrap();
    assert_eq!(read_from(dir.path(), 7).unwrap().records, records(7..9));
    // What was loaded may be newer than the log, when that was lost in part.
    let (log, contents) = TickLog::take_over(dir.path(), 2, 20).unwrap();
    assert_eq!((log.durable(), contents.records.len()), (20, 0));
}

/// A process that was frozen wakes after its successor took over, and writes on.
#[test]
fn what_a_superseded_process_writes_is_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut frozen, _) = TickLog::take_over(dir.path(), 1, 0).unwrap();
    write(&mut frozen, 0..5);
    frozen.sync().unwrap();
    let (mut log, contents) = TickLog::take_over(dir.path(), 2, 0).unwrap();
    assert_eq!(contents.next, 5);
    // Ticks of its own, cut elsewhere.
    frozen.append(&TickRecord { watermark: 77, ..record(5) }).unwrap();
    frozen.sync().unwrap();
    write(&mut log, 5..7);
    log.sync().unwrap();
    write(&mut frozen, 6..40);
    frozen.close().unwrap();
    assert_eq!(read(dir.path()).unwrap().records, records(0..7));
    log.close().unwrap();
    let (mut log, _) = TickLog::take_over(dir.path(), 9, 0).unwrap();
    write(&mut log, 7..8);
    log.close().unwrap();
    assert_eq!(read(dir.path()).unwrap().records, records(0..8));
}

/// A start that goes on from a checkpoint after the log was lost or damaged: earlier ticks are gone, later ones are not.
#[test]
fn a_later_start_does_not_need_what_is_lost() {
    let dir = long(20);
    let first = dir.path().join("ticks-00000000000000000000.log");
    fs::write(&first, "gone").unwrap();
    assert!(read(dir.path()).is_err());
    let (mut log, _) = TickLog::begin_anew(dir.path(), 5, 30).unwrap();
    write(&mut log, 30..33);
    log.close().unwrap();
    assert!(read_from(dir.path(), 2).is_err_and(|error| error.to_string().contains("begins with tick")));
    assert_eq!(read_from(dir.path(), 31).unwrap().records, records(31..33));
    // Begun anew in the middle of what there was: the rest of that is void.
    let dir = long(20);
    let (mut log, contents) = TickLog::begin_anew(dir.path(), 1, 10).unwrap();
    assert!(contents.records.is_empty());
    write(&mut log, 10..12);
    log.close().unwrap();
    assert_eq!(read(dir.path()).unwrap().records, records(0..12));
    TickLog::take_over(dir.path(), 2, 0).unwrap();
    assert_eq!(read(dir.path()).unwrap().records, records(0..12), "void segments are removed, valid ones are not");
}

/// Has room for so many bytes.
struct SmallDisk {
    room: usize,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Disk for SmallDisk {
    fn append(&mut self, _: Tick, records: &[u8]) -> io::Result<()> {
        if records.len() > self.room {
            return Err(io::Error::from_raw_os_error(28));
        }
        self.room -= records.len();
        self.written.lock().unwrap().extend_from_slice(records);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        "small/ticks".into()
    }
}

#[test]
fn a_full_disk_ends_the_log_with_a_plain_error() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let mut log = TickLog::start(Box::new(SmallDisk { room: 500, written: Arc::clone(&written) }), 0).unwrap();
    let failed_at = (0..100)
        .find(|tick| {
            let error = log.append(&record(*tick)).and_then(|()| log.sync()).err();
            if let Some(error) = &error {
                let text = error.to_string();
                assert!(text.contains("small/ticks") && text.contains("append") && text.contains("restart"), "{text}");
                assert!(text.contains(&format!("every tick below {tick} is safe")), "{text}");
                assert_eq!(error.blame(), Blame::Outside);
            }
            error.is_some()
        })
        .unwrap();
    assert_eq!(log.durable(), failed_at);
    assert!(log.handle().wait(failed_at).is_err());
    assert!(log.append(&record(failed_at + 1)).is_err(), "the log does not go on after a gap");
    let mut expected = Vec::new();
    (0..failed_at).for_each(|tick| segments::encode(&record(tick), &mut expected));
    assert_eq!(*written.lock().unwrap(), expected);
    assert!(log.close().is_err());
}

/// A slow disk gets what has gathered meanwhile in one write.
#[test]
fn commits_are_grouped() {
    struct SlowDisk(Arc<AtomicU64>);
    impl Disk for SlowDisk {
        fn append(&mut self, _: Tick, _: &[u8]) -> io::Result<()> {
            std::thread::sleep(std::time::Duration::from_millis(5));
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        fn path(&self) -> PathBuf {
            PathBuf::new()
        }
    }
    let writes = Arc::new(AtomicU64::new(0));
    let mut log = TickLog::start(Box::new(SlowDisk(Arc::clone(&writes))), 0).unwrap();
    let durable = log.handle();
    write(&mut log, 0..1_000);
    log.sync().unwrap();
    assert_eq!(durable.ticks(), 1_000);
    assert!(writes.load(Ordering::Relaxed) < 500, "{} writes", writes.load(Ordering::Relaxed));
}
