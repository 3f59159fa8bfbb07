//! A reader that is stopped at an epoch's end and resumed, against one that is not.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use proptest::prelude::*;

use super::*;
use crate::ingest::tests::kit::Dir;
use crate::ingest::ticks::TickRecord;
use crate::ingest::{FileCatalog, ReaderOptions, Reading};

/// A row of a file: id, seconds, and whether its line is broken.
type Row = (u8, i64, bool);

/// What is read, and how it is cut.
#[derive(Clone, Debug)]
struct Case {
    /// One vector per file.
    files: Vec<Vec<Row>>,
    format: usize,
    dedup: bool,
    text_ids: bool,
    arrival: bool,
    rows_max: usize,
    bytes_max: usize,
    epoch_rows: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let row = (0u8..30, 0i64..40, prop::bool::weighted(0.05));
    let file = prop::collection::vec(row, 0..150).prop_map(|rows| {
        // Time goes on, with rows out of order, some of them by more than the disorder.
        rows.into_iter().enumerate().map(|(i, (id, s, bad))| (id, i as i64 * 2 + s, bad)).collect::<Vec<Row>>()
    });
    let files = prop::collection::vec(file, 1..4);
    let cuts = (5usize..80, prop_oneof![200usize..3_000, Just(usize::MAX)], 1u64..150);
    (files, 0usize..3, any::<bool>(), any::<bool>(), any::<bool>(), cuts).prop_map(
        |(files, format, dedup, text_ids, arrival, (rows_max, bytes_max, epoch_rows))| Case {
            files,
            format,
            dedup,
            text_ids,
            arrival,
            rows_max,
            bytes_max,
            epoch_rows,
        },
    )
}

fn write(dir: &Dir, case: &Case) -> PathBuf {
    let id = |id: u8| if case.text_ids { format!("\"i{id}\"") } else { id.to_string() };
    let of = ["ndjson", "csv", "parquet"][case.format];
    for (n, rows) in case.files.iter().enumerate() {
        let name = format!("part-{n}.{of}");
        match case.format {
            0 => {
                let line = |(i, s, bad): &Row| match bad {
                    true => format!("{{\"id\":{},\"ts\":\n", id(*i)),
                    false => format!("{{\"id\":{},\"ts\":{},\"amount\":{n}.5}}\n", id(*i), s * 1_000),
                };
                dir.text(&name, rows.iter().map(line).collect::<String>());
            }
            1 => {
                let line = |(i, s, bad): &Row| match bad {
                    true => format!("{},soon,1\n", id(*i)),
                    false => format!("{},{},{n}.5\n", id(*i), s * 1_000),
                };
                dir.text(&name, "id,ts,amount\n".to_owned() + &rows.iter().map(line).collect::<String>());
            }
            _ => {
                let ids: arrow::array::ArrayRef = if case.text_ids {
                    Arc::new(StringArray::from_iter_values(rows.iter().map(|r| format!("i{}", r.0))))
                } else {
                    Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| i64::from(r.0))))
                };
                let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.1 * 1_000));
                let amounts = rows.iter().map(|r| (!r.2).then_some(n as f64 + 0.5));
                let batch = RecordBatch::try_from_iter([
                    ("id", ids),
                    ("ts", Arc::new(times.with_timezone("UTC")) as _),
                    ("amount", Arc::new(Float64Array::from_iter(amounts)) as _),
                ]);
                dir.parquet(&name, &batch.unwrap(), 37);
            }
        }
    }
    let id_type = if case.text_ids { "string" } else { "long" };
    dir.text(
        "tx.avsc",
        format!(
            r#"{{"type":"record","name":"tx","fields":[{{"name":"id","type":"{id_type}"}},
            {{"name":"ts","type":{{"type":"long","logicalType":"timestamp-millis"}}}},
            {{"name":"amount","type":["null","double"]}}]}}"#
        ),
    );
    let root = dir.path().display();
    let dedup = if case.dedup { "\n    dedup: 20s" } else { "" };
    let order = if case.arrival { "arrival" } else { "event_time" };
    let generator = "stream: transactions, seed: 3, customers: 20, terminals: 20, start: \"1970-01-01\", duration: 40d";
    dir.text(
        "job.yaml",
        format!(
            "job: j\nversion: 1\norder: {order}\nsources:\n  tx:\n    file: {{path: \"{root}/part-*.{of}\"}}\n    schema: {root}/tx.avsc\n    \
             id: id\n    event_time: ts\n    disorder: 15s\n    validate: {{amount: {{required: true}}}}{dedup}\n  \
             made:\n    generator: {{{generator}}}\n    id: tx_id\n    event_time: ts\n    where: \"ts < '1970-01-01T03:00:00Z'\"\n\
             features:\n  id:\n    from: tx\n    entity: [id]\n    \
             aggregates:\n      total: {{sum: amount, over: 1h}}\nfeature_sets:\n  wide: {{on: tx, take: [id, id.*]}}\n"
        ),
    )
}

/// The job, its files on disk, and how epochs end.
struct Job {
    plan: Plan,
    epochs: EpochPolicy,
    dir: Dir,
}

impl Job {
    fn new(case: &Case) -> Job {
        let dir = Dir::new();
        let path = write(&dir, case);
        let (mut plan, _) = crate::plan::load(&path, &[], &|_| None, &FileCatalog).unwrap_or_else(|f| panic!("{f}"));
        (plan.ticks.rows_max, plan.ticks.bytes_max) = (case.rows_max, case.bytes_max);
        // The generator's days would hide what the files do.
        if let crate::plan::model::Connector::Generator(generator) = &mut plan.sources[1].connector {
            generator.duration = Some(86_400_000_000);
        }
        let epochs = EpochPolicy { interval: Duration::from_secs(3_600), rows: case.epoch_rows, timed: false };
        Job { plan, epochs, dir }
    }

    fn begin(&self) -> Aligned {
        let readers = (0..self.plan.sources.len()).map(|source| {
            SourceReader::open(&self.plan.sources[source], ReaderOptions::of(&self.plan, source)).unwrap()
        });
        let mut aligned = Aligned::new(&self.plan, readers.collect(), self.epochs);
        aligned.keep_states(true);
        aligned
    }

    fn resume(&self, state: &AlignedState, dedup: &[DedupDelta]) -> Result<Aligned, IngestError> {
        let epoch = state.next_epoch + 3;
        let mut aligned =
            Aligned::resume(&self.plan, Reading::UntilEnd, self.epochs, epoch, state, dedup.iter().cloned())?;
        aligned.keep_states(true);
        Ok(aligned)
    }
}

/// What an epoch's end saved, as bytes: the state and the ids since the last whole ones.
type Saved = (Vec<u8>, Vec<Vec<u8>>);

/// Reads to the end. `before` are the ids that are saved already; `whole` says at which ends of epochs all are saved.
fn run(mut aligned: Aligned, before: &[Vec<u8>], whole: &[usize]) -> (Vec<Cut>, Vec<Saved>, Vec<Counts>) {
    let (mut cuts, mut saved, mut ids): (Vec<Cut>, Vec<Saved>, Vec<Vec<u8>>) =
        (Vec::new(), Vec::new(), before.to_vec());
    loop {
        if whole.contains(&saved.len()) {
            aligned.next_state_whole();
        }
        let all = aligned.whole;
        match aligned.next(Instant::now()).unwrap() {
            Next::Cut(cut) => {
                assert_eq!(cut.info.epoch_end, cut.state.is_some());
                if let Some(state) = &cut.state {
                    if all {
                        ids.clear();
                    }
                    ids.push(DedupDelta::encode(&cut.dedup));
                    saved.push((serde_json::to_vec(state).unwrap(), ids.clone()));
                }
                cuts.push(*cut);
            }
            Next::End => return (cuts, saved, aligned.counts().to_vec()),
            Next::Wait(_) => panic!("finite input does not wait"),
        }
    }
}

fn read((state, ids): &Saved) -> (AlignedState, Vec<DedupDelta>) {
    let ids = ids.iter().flat_map(|ids| DedupDelta::decode(ids).unwrap()).collect();
    (serde_json::from_slice(state).unwrap(), ids)
}

/// A tick's rows by source, in the order of their positions.
fn rows(cut: &Cut, sources: usize) -> Vec<Option<RecordBatch>> {
    let of = |source: usize| {
        let parts: Vec<&RecordBatch> = cut.batches.iter().filter(|(s, _)| *s == source).map(|(_, b)| b).collect();
        let all = concat_batches(&parts.first()?.schema(), parts).unwrap();
        Some(take_record_batch(&all, &sort_to_indices(all.column(1), None, None).unwrap()).unwrap())
    };
    (0..sources).map(of).collect()
}

fn assert_same(got: &[Cut], expected: &[Cut], replayed: usize, epochs_apart: u64) {
    assert_eq!(got.len(), expected.len(), "as many ticks");
    for (n, (got, expected)) in got.iter().zip(expected).enumerate() {
        let mut info = got.info;
        info.epoch -= epochs_apart;
        assert_eq!(info, expected.info);
        assert_eq!(
            (&got.offsets, &got.entered, &got.idle, got.rows),
            (&expected.offsets, &expected.entered, &expected.idle, expected.rows)
        );
        assert_eq!(got.replayed, n < replayed);
        if got.replayed {
            // A recorded tick is read partition by partition.
            assert_eq!(rows(got, 2), rows(expected, 2));
            let letters = |cut: &Cut| {
                let mut letters: Vec<_> =
                    cut.dead.iter().map(|l| (l.source.clone(), l.partition, l.offset, l.clone())).collect();
                letters.sort_by_key(|(source, partition, offset, _)| (source.clone(), *partition, *offset));
                letters.into_iter().map(|l| l.3).collect::<Vec<_>>()
            };
            assert_eq!(letters(got), letters(expected));
        } else {
            assert_eq!(got.batches, expected.batches);
            assert_eq!(got.dead, expected.dead);
        }
    }
}

/// What of a state does not depend on how far the look-ahead is.
fn comparable(saved: &Saved, epochs_apart: u64) -> AlignedState {
    let (mut state, _) = read(saved);
    state.next_epoch -= epochs_apart;
    state.sources.iter_mut().for_each(|source| source.ahead.clear());
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Stopped at the end of any epoch, twice, with some ticks more in the log, and resumed: all later ticks are the same.
    #[test]
    fn a_resumed_reader_goes_on_as_if_it_had_not_been_stopped(
        case in cases(),
        stops in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6), 1..3),
        whole in prop::collection::vec(0usize..12, 0..3),
    ) {
        let job = Job::new(&case);
        let (cuts, saved, counts) = run(job.begin(), &[], &whole);
        prop_assert!(cuts.last().unwrap().info.last);
        let (mut here, mut apart) = (saved.clone(), 0);
        for (stop, logged) in stops {
            let at = stop.index(here.len());
            let (state, ids) = read(&here[at]);
            let mut aligned = job.resume(&state, &ids).unwrap();
            apart += 3;
            let later = &cuts[state.tick as usize + 1..];
            let log: Vec<TickRecord> = later.iter().take(logged).map(Cut::record).collect();
            let replayed = log.len();
            aligned.follow(log, Afterwards::GoOn);
            let (got, saved_again, counts_again) = run(aligned, &here[at].1, &whole);
            assert_same(&got, later, replayed, apart);
            // What became of the rows is counted from the very beginning.
            prop_assert_eq!(&counts_again, &counts);
            if replayed == 0 {
                let got: Vec<_> = saved_again.iter().map(|s| comparable(s, apart)).collect();
                let skipped = saved.len() - saved_again.len();
                let expected: Vec<_> = saved[skipped..].iter().map(|s| comparable(s, 0)).collect();
                prop_assert_eq!(got, expected);
            }
            if saved_again.is_empty() {
                break;
            }
            here = saved_again;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Which rows go on and which are late or duplicates is a matter of the files alone, however they are cut.
    #[test]
    fn what_is_turned_away_depends_on_no_cut(case in cases(), rows_max in 1usize..60) {
        let outcome = |case: &Case| {
            let (cuts, _, counts) = run(Job::new(case).begin(), &[], &[]);
            let mut ords: Vec<u64> = cuts.iter().flat_map(|cut| cut.batches.iter()).flat_map(|(_, b)| crate::ops::ords(b).to_vec()).collect();
            ords.sort_unstable();
            let mut dead: Vec<_> = cuts.iter().flat_map(|cut| &cut.dead).map(|l| (l.partition, l.offset, l.kind, l.reason.clone())).collect();
            dead.sort();
            (ords, dead, counts)
        };
        let case = Case { dedup: true, ..case };
        let other = Case { rows_max, bytes_max: usize::MAX, ..case.clone() };
        prop_assert_eq!(outcome(&case), outcome(&other));
    }
}

fn plain(files: Vec<Vec<Row>>) -> Case {
    Case {
        files,
        format: 0,
        dedup: true,
        text_ids: true,
        arrival: false,
        rows_max: 40,
        bytes_max: usize::MAX,
        epoch_rows: 50,
    }
}

fn counting(rows: i64) -> Vec<Row> {
    (0..rows).map(|i| (i as u8 % 30, i, false)).collect()
}

/// The whole log, to its last tick, and what ends with it.
#[test]
fn the_end_of_a_log_may_be_the_end_of_the_input() {
    let job = Job::new(&plain(vec![counting(100), counting(60)]));
    let (cuts, saved, _) = run(job.begin(), &[], &[]);
    let log: Vec<TickRecord> = cuts.iter().map(Cut::record).collect();
    for afterwards in [Afterwards::GoOn, Afterwards::End] {
        let mut again = job.begin();
        again.follow(log.clone(), afterwards);
        assert_same(&run(again, &[], &[]).0, &cuts, cuts.len(), 0);
    }
    // Ends with the log, though the input would go on.
    let mut cut_short = job.begin();
    cut_short.follow(log[..2].to_vec(), Afterwards::End);
    let (cuts_short, ..) = run(cut_short, &[], &[]);
    assert_eq!(cuts_short.iter().map(|cut| cut.info.last).collect::<Vec<_>>(), [false, true]);
    // A state of the very end has nothing left to read.
    let (state, ids) = read(saved.last().unwrap());
    assert!(state.ended());
    assert!(run(job.resume(&state, &ids).unwrap(), &[], &[]).0.is_empty());
    // A log that has a hole.
    let mut holed = job.begin();
    holed.follow(log[1..].to_vec(), Afterwards::GoOn);
    assert!(holed.next(Instant::now()).unwrap_err().to_string().contains("tick 1 where 0 comes next"));
}

/// A job that is told to stop has a last tick, behind which it can go on; while it follows a log it has none.
#[test]
fn what_was_stopped_goes_on() {
    let job = Job::new(&plain(vec![counting(100), counting(60)]));
    let (cuts, ..) = run(job.begin(), &[], &[]);
    let mut stopped = job.begin();
    let Next::Cut(_) = stopped.next(Instant::now()).unwrap() else { panic!("a tick") };
    let Next::Cut(last) = stopped.stop(Instant::now()) else { panic!("a last tick") };
    assert!(last.info.last && last.info.epoch_end && last.rows == 0);
    let state = last.state.clone().unwrap();
    assert!(!state.ended());
    let mut ids = cuts[0].dedup.clone();
    ids.extend(last.dedup.clone());
    let (rest, ..) = run(job.resume(&state, &ids).unwrap(), &[], &[]);
    // The stop took a tick of its own.
    assert_eq!(rest[0].info.tick, cuts[1].info.tick + 1);
    let later: Vec<_> = cuts[1..].iter().map(|cut| (rows(cut, 2), cut.dead.clone(), cut.info.watermark)).collect();
    assert_eq!(rest.iter().map(|cut| (rows(cut, 2), cut.dead.clone(), cut.info.watermark)).collect::<Vec<_>>(), later);

    let mut following = job.begin();
    following.follow(cuts[..3].iter().map(Cut::record).collect(), Afterwards::GoOn);
    assert!(matches!(following.next(Instant::now()), Ok(Next::Cut(_))));
    assert!(matches!(following.stop(Instant::now()), Next::End));
    assert!(matches!(following.next(Instant::now()), Ok(Next::End)));
    // The log may hold the tick of a stop as well.
    let mut after = job.begin();
    after.follow(vec![cuts[0].record(), last.record()], Afterwards::GoOn);
    let (again, ..) = run(after, &[], &[]);
    assert_eq!(again.iter().map(|cut| cut.info.last).filter(|last| *last).count(), 1);
    assert_eq!(again.len(), rest.len() + 2);
}

#[test]
fn files_that_are_not_as_they_were_are_refused() {
    let case = Case { format: 1, ..plain(vec![counting(40), counting(40), counting(10)]) };
    let job = Job::new(&case);
    let (_, saved, _) = run(job.begin(), &[], &[]);
    let (state, ids) = read(&saved[0]);
    let refused = |plan: &Plan, state: &AlignedState, ids: &[DedupDelta]| {
        let resumed = Aligned::resume(plan, Reading::Live, job.epochs, 1, state, ids.iter().cloned());
        resumed.err().expect("it is refused").to_string()
    };
    let with_files = |change: &dyn Fn(&mut Vec<PathBuf>)| {
        let mut plan = job.plan.clone();
        if let crate::plan::model::Connector::File(file) = &mut plan.sources[0].connector {
            change(&mut file.files);
        }
        refused(&plan, &state, &ids)
    };
    let gone = with_files(&|files| drop(files.remove(1)));
    assert!(gone.contains("had 3 partitions and now has 2; put the files back: `part-1.csv` is not there"), "{gone}");
    let more = with_files(&|files| files.push(job.dir.text("part-3.csv", "id,ts,amount\n")));
    assert!(more.contains("had 3 partitions and now has 4"), "{more}");
    let moved = with_files(&|files| files.swap(0, 1));
    assert!(moved.contains("others have come before it"), "{moved}");

    let mut other = state.clone();
    other.version = 9;
    assert!(refused(&job.plan, &other, &ids).contains("version 9"));
    let mut other = state.clone();
    other.sources[1].name = "gone".into();
    assert!(refused(&job.plan, &other, &ids).contains("source `gone`"));
    let mut other = state.clone();
    other.sources[0].partitions.swap(0, 1);
    assert!(refused(&job.plan, &other, &ids).contains("order"));
    let mut damaged = ids.clone();
    damaged[0].bytes[3] ^= 1;
    let text = refused(&job.plan, &state, &damaged);
    assert!(text.contains("checksum") && text.contains("older checkpoint"), "{text}");

    let path = job.dir.path().join("part-2.csv");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let changed = refused(&job.plan, &state, &ids);
    assert!(changed.contains("part-2.csv had") && changed.contains("put the file back as it was"), "{changed}");
}

/// A source that a job gained since is read from its beginning, behind what is complete.
#[test]
fn a_source_that_is_new_begins_at_its_beginning() {
    let job = Job::new(&plain(vec![counting(100)]));
    let (cuts, saved, _) = run(job.begin(), &[], &[]);
    let (mut state, _) = read(&saved[0]);
    state.sources.remove(0);
    let (rest, _, counts) = run(job.resume(&state, &[]).unwrap(), &[], &[]);
    assert_eq!(counts[0].read, 100);
    let late = counts[0].dead.get(&crate::ingest::DeadLetterKind::Late).copied().unwrap_or(0);
    assert!(state.watermark > i64::MIN && late > 0, "{late} late rows behind {}", state.watermark);
    assert!(rest.windows(2).all(|pair| pair[0].info.watermark <= pair[1].info.watermark));
    assert_eq!(rest[0].info.previous_watermark, state.watermark);
    assert!(cuts.len() > 2);
}

/// A drained input is at its end, of which its state and every replay of its log know; the ticks of a log come first.
#[test]
fn what_was_drained_is_finished() {
    let job = Job::new(&plain(vec![counting(100), counting(60)]));
    let (cuts, saved, _) = run(job.begin(), &[], &[]);
    assert!(!read(saved.last().unwrap()).0.drained(), "all of it was read");
    let mut drained = job.begin();
    let Next::Cut(first) = drained.next(Instant::now()).unwrap() else { panic!("a tick") };
    let Next::Cut(last) = drained.drain(Instant::now()).unwrap() else { panic!("a last tick") };
    assert!(last.info.last && last.info.epoch_end && last.info.watermark == EventTime::MAX);
    assert!(last.info.now < EventTime::MAX, "the clock stays where events have brought it");
    let state = last.state.clone().unwrap();
    assert!(state.ended() && state.drained());
    assert!(matches!(drained.drain(Instant::now()), Ok(Next::End)));
    let mut ids = first.dedup.clone();
    ids.extend(last.dedup.clone());
    assert!(run(job.resume(&state, &ids).unwrap(), &[], &[]).0.is_empty(), "nothing is read behind it");
    // A process that died behind it replays it.
    let mut again = job.begin();
    again.follow(vec![first.record(), last.record()], Afterwards::GoOn);
    let (replayed, saved, _) = run(again, &[], &[]);
    assert_eq!(replayed.iter().map(|cut| cut.info).collect::<Vec<_>>(), [first.info, last.info]);
    assert!(read(&saved[0]).0.drained());
    // One that replays and is told to drain does the first before the second.
    let mut following = job.begin();
    following.follow(cuts[..2].iter().map(Cut::record).collect(), Afterwards::GoOn);
    let mut ticks = Vec::new();
    while let Next::Cut(cut) = following.drain(Instant::now()).unwrap() {
        ticks.push((cut.replayed, cut.info.last));
    }
    assert_eq!(ticks, [(true, false), (true, false), (false, true)]);
}

/// Somebody wants the epoch to end: it does with the next tick, unless epochs are held.
#[test]
fn an_epoch_ends_when_it_is_asked_for() {
    let mut job = Job::new(&plain(vec![counting(300)]));
    job.epochs = EpochPolicy { interval: Duration::from_secs(3_600), rows: u64::MAX, timed: true };
    let mut aligned = job.begin();
    let mut ends = Vec::new();
    for tick in 0..5 {
        if tick == 1 {
            aligned.close_epoch();
        }
        aligned.hold_epochs(tick == 1);
        let Next::Cut(cut) = aligned.next(Instant::now()).unwrap() else { panic!("a tick") };
        ends.push(cut.info.epoch_end);
    }
    assert_eq!(ends, [false, false, true, false, false]);
}

/// Epochs of jobs with checkpoints end by time though the input is finite.
#[test]
fn timed_epochs() {
    let mut job = Job::new(&plain(vec![counting(100)]));
    job.epochs = EpochPolicy { interval: Duration::ZERO, rows: u64::MAX, timed: true };
    let (cuts, saved, _) = run(job.begin(), &[], &[]);
    assert_eq!(cuts.len(), saved.len());
    job.epochs.timed = false;
    let (cuts, saved, _) = run(job.begin(), &[], &[]);
    assert!(cuts.len() > 1 && saved.len() == 1);
}

/// Prints what keeping states costs; a measurement, not a check.
#[test]
fn cost_of_states() {
    let rows = 200_000;
    for text_ids in [false, true] {
        let mut case = plain(vec![]);
        let dir = Dir::new();
        (case.text_ids, case.format) = (text_ids, 0);
        let id = |i: i64| if text_ids { format!("\"order-{:016x}\"", i * 2_654_435_761) } else { (i * 37).to_string() };
        let lines: String =
            (0..rows).map(|i| format!("{{\"id\":{},\"ts\":{},\"amount\":1}}\n", id(i), i * 10)).collect();
        write(&dir, &case);
        dir.text("part-0.ndjson", lines);
        let (mut plan, _) = crate::plan::load(&dir.path().join("job.yaml"), &[], &|_| None, &FileCatalog)
            .unwrap_or_else(|f| panic!("{f}"));
        plan.sources.truncate(1);
        plan.sources[0].dedup = Some(i64::MAX / 4);
        plan.ticks.rows_max = 10_000;
        let begin = |keep: bool| {
            let reader = SourceReader::open(&plan.sources[0], ReaderOptions::of(&plan, 0)).unwrap();
            let epochs = EpochPolicy { interval: Duration::MAX, rows: 50_000, timed: false };
            let mut aligned = Aligned::new(&plan, vec![reader], epochs);
            aligned.keep_states(keep);
            let begin = Instant::now();
            let (mut json, mut bytes, mut taken, mut state) = (0, 0, Duration::ZERO, Duration::ZERO);
            loop {
                let last = aligned.tick == (rows / 10_000) as u64;
                let (whole, before) = (last && keep, Instant::now());
                if whole {
                    aligned.next_state_whole();
                }
                let Next::Cut(cut) = aligned.next(Instant::now()).unwrap() else { break };
                if cut.state.is_some() && !whole {
                    let begin = Instant::now();
                    std::hint::black_box((aligned.state(0), aligned.take_ids()));
                    state = begin.elapsed();
                }
                if whole {
                    taken = before.elapsed();
                }
                json = cut.state.as_ref().map_or(json, |state| serde_json::to_vec(state).unwrap().len());
                bytes += cut.dedup.iter().map(|d| d.bytes.len()).sum::<usize>();
            }
            (begin.elapsed() - taken, json, bytes, taken, state)
        };
        let (without, ..) = begin(false);
        let (with, json, bytes, whole, state) = begin(true);
        println!(
            "states of {rows} rows, text ids: {text_ids}: {:.0} ns a row without, {:.0} with; a state takes {state:?}, JSON {json} bytes; {:.1} bytes of ids a row \
             (half of them the whole state, which took {:.1} ms)",
            without.as_nanos() as f64 / rows as f64,
            with.as_nanos() as f64 / rows as f64,
            bytes as f64 / rows as f64,
            whole.as_secs_f64() * 1e3
        );
    }
}
