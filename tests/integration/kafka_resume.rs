//! Readers of live topics that are resumed from a state of theirs, with the ticks of the log and without.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use tidemill::engine;
use tidemill::ingest::aligned::{Afterwards, Aligned, AlignedState, Cut, EpochPolicy, Next};
use tidemill::ingest::ticks::TickRecord;
use tidemill::ingest::{DedupDelta, ReaderOptions, Reading, SourceReader};
use tidemill::plan::model::Plan;

use crate::kafka_source::{Setting, event};
use crate::support::kafka::{Broker, topic};

const EPOCHS: EpochPolicy = EpochPolicy { interval: Duration::from_millis(300), rows: 40, timed: true };

fn plan(setting: &Setting) -> Plan {
    let lake = setting.dir.path().join("lake").display().to_string();
    let env = move |name: &str| (name == "LAKE").then(|| lake.clone());
    let (mut plan, _) = engine::load(&setting.file, &[], &env).unwrap_or_else(|faults| panic!("{faults}"));
    plan.ticks.rows_max = 15;
    plan
}

fn begin(plan: &Plan, reading: Reading) -> Aligned {
    let options = ReaderOptions { reading, ..ReaderOptions::of(plan, 0) };
    let reader = SourceReader::open(&plan.sources[0], options).unwrap_or_else(|e| panic!("{e}"));
    let mut aligned = Aligned::new(plan, vec![reader], EPOCHS);
    aligned.keep_states(true);
    aligned
}

/// Goes on from the state of the last of `cuts` that has one, as its bytes, with the ids of all of them.
fn resume(plan: &Plan, reading: Reading, cuts: &[Cut]) -> Aligned {
    let state = cuts.iter().rev().find_map(|cut| cut.state.as_ref()).expect("an epoch has ended");
    let json = serde_json::to_string(state).expect("a state is JSON");
    let state: AlignedState = serde_json::from_str(&json).expect("it is read again");
    let ids = cuts
        .iter()
        .filter(|cut| cut.info.tick <= state.tick)
        .flat_map(|cut| DedupDelta::decode(&DedupDelta::encode(&cut.dedup)).expect("ids are read again"));
    let mut aligned = Aligned::resume(plan, reading, EPOCHS, 100, &state, ids).unwrap_or_else(|e| panic!("{e}"));
    aligned.keep_states(true);
    aligned
}

/// Reads until `done` of the cuts so far, or to the end.
fn pump(aligned: &mut Aligned, cuts: &mut Vec<Cut>, done: impl Fn(&[Cut]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !done(cuts) {
        match aligned.next(Instant::now()).unwrap_or_else(|e| panic!("{e}")) {
            Next::Cut(cut) => cuts.push(*cut),
            Next::Wait(wait) => std::thread::sleep(wait),
            Next::End => return,
        }
        assert!(
            Instant::now() < deadline,
            "{} rows, watermark {:?}",
            read(cuts),
            cuts.last().map(|c| c.info.watermark)
        );
    }
}

fn read(cuts: &[Cut]) -> u64 {
    cuts.iter().map(|cut| cut.rows).sum()
}

/// Positions of the rows that went on, and positions and kinds of those that did not.
fn outcome<'a>(cuts: impl IntoIterator<Item = &'a Cut>) -> (BTreeSet<u64>, BTreeSet<(u16, u64, &'static str)>) {
    let (mut rows, mut dead) = (BTreeSet::new(), BTreeSet::new());
    for cut in cuts {
        for (_, batch) in &cut.batches {
            let ords = batch.column(1).as_primitive::<UInt64Type>().values();
            assert!(ords.iter().all(|ord| rows.insert(*ord)), "a row comes once");
        }
        for letter in &cut.dead {
            assert!(dead.insert((letter.partition, letter.offset, letter.kind.as_str())), "a letter comes once");
        }
    }
    (rows, dead)
}

fn assert_same(got: &[Cut], expected: &[Cut]) {
    for (got, expected) in got.iter().zip(expected) {
        let mut info = got.info;
        info.epoch = expected.info.epoch;
        assert_eq!(info, expected.info);
        assert!(got.replayed);
        assert_eq!((&got.offsets, &got.entered, &got.idle), (&expected.offsets, &expected.entered, &expected.idle));
        assert_eq!(outcome([got]), outcome([expected]), "tick {}", info.tick);
    }
    assert_eq!(got.len(), expected.len());
}

/// Silence, partitions that appear, duplicates and late rows: the log's ticks are the same again from every state, and what
/// comes then meets the same lateness and the same ids.
#[test]
fn a_live_reader_is_resumed_with_its_log() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("resumed");
    broker.create_topic(&name, 2);
    let source = "disorder: 100ms\n    idle_after: 600ms\n    dedup: 1h";
    let setting = Setting::new(&broker.address(), &name, "", source, "order: event_time");
    let plan = plan(&setting);
    let (mut live, mut cuts) = (begin(&plan, Reading::Live), Vec::new());
    // Each id twice, every tenth row late.
    let rows = |partition: i32, from: i64| {
        (from..from + 50).map(move |id| event(partition, id / 2, if id % 10 == 9 { 0 } else { id * 20 }))
    };
    broker.produce(&name, rows(0, 0).chain(rows(1, 1_000)));
    pump(&mut live, &mut cuts, |cuts| read(cuts) == 100);
    // All of it is silent, until the watermark has gone on by itself.
    pump(&mut live, &mut cuts, |cuts| cuts.iter().filter(|cut| cut.idle.len() == 2).count() > 2);
    broker.add_partitions(&name, 3);
    broker.produce(&name, rows(0, 2_000).chain(rows(2, 3_000)));
    pump(&mut live, &mut cuts, |cuts| read(cuts) == 200);
    pump(&mut live, &mut cuts, |cuts| cuts.iter().filter(|cut| cut.idle.len() == 3).count() > 1);
    let ends: Vec<usize> = (0..cuts.len()).filter(|&n| cuts[n].state.is_some()).collect();
    assert!(ends.len() > 4, "{} epochs", ends.len());
    for end in ends.into_iter().step_by(2) {
        let mut again = resume(&plan, Reading::Live, &cuts[..=end]);
        let log: Vec<TickRecord> = cuts[end + 1..].iter().map(Cut::record).collect();
        let replayed = log.len();
        again.follow(log, Afterwards::GoOn);
        let mut got = Vec::new();
        pump(&mut again, &mut got, |cuts| cuts.len() == replayed);
        assert_same(&got, &cuts[end + 1..]);
    }
    // Dies here; the last epochs' ticks are in the log. Meanwhile more has come, also on a partition that is new.
    drop(live);
    let end = cuts.iter().rposition(|cut| cut.state.is_some()).expect("an epoch has ended");
    broker.add_partitions(&name, 4);
    let far = 7_200_000;
    broker.produce(&name, [event(1, 5_000, far), event(1, 5_000, far), event(2, 1_510, 60_010), event(3, 5_001, far)]);
    let mut again = resume(&plan, Reading::Live, &cuts[..=end]);
    again.follow(cuts[end + 1..].iter().map(Cut::record).collect(), Afterwards::GoOn);
    let (mut got, logged) = (Vec::new(), cuts.len() - end - 1);
    pump(&mut again, &mut got, |got| read(got) >= read(&cuts[end + 1..]) + 4);
    assert_same(&got[..logged], &cuts[end + 1..]);
    assert!(got[logged..].iter().all(|cut| !cut.replayed));
    assert_eq!(got.last().map(|cut| cut.offsets[0].clone()), Some(vec![100, 52, 51, 1]));
    let (accepted, dead) = outcome(&got[logged..]);
    assert_eq!(dead, BTreeSet::from([(1, 51, "duplicate"), (2, 50, "late")]));
    assert_eq!(accepted.len(), 2);
    let watermarks: Vec<i64> = cuts[..=end].iter().chain(&got).map(|cut| cut.info.watermark).collect();
    assert!(watermarks.is_sorted(), "watermarks never go back");
}

/// Stopped anywhere and resumed without a log: nothing is lost, doubled or judged otherwise.
#[test]
fn a_reader_of_topics_is_resumed_without_its_log() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("unlogged");
    broker.create_topic(&name, 3);
    let source = "disorder: 50ms\n    dedup: 10s";
    let setting = Setting::new(&broker.address(), &name, ", start: earliest", source, "order: event_time");
    let plan = plan(&setting);
    broker.produce(&name, (0..300).map(|n| event((n % 3) as i32, n / 9, if n % 11 == 0 { 0 } else { n * 10 })));
    let mut whole = Vec::new();
    pump(&mut begin(&plan, Reading::UntilEnd), &mut whole, |_| false);
    let expected = outcome(&whole);
    assert_eq!(expected.0.len() + expected.1.len(), 300);
    assert!(expected.1.iter().any(|l| l.2 == "late") && expected.1.iter().any(|l| l.2 == "duplicate"));
    for stop in (0..whole.len()).filter(|&n| whole[n].state.is_some()) {
        let (mut rest, mut again) = (Vec::new(), resume(&plan, Reading::UntilEnd, &whole[..=stop]));
        pump(&mut again, &mut rest, |_| false);
        assert_eq!(outcome(whole[..=stop].iter().chain(&rest)), expected, "stopped after tick {stop}");
        let ends = whole[..=stop].iter().chain(&rest).filter(|cut| cut.info.last).count();
        assert_eq!(ends, 1, "stopped after tick {stop}");
    }
    // What comes next is gone.
    broker.expire(&name, 1, 60);
    let first = whole.iter().position(|cut| cut.state.is_some()).expect("an epoch has ended");
    let mut again = resume(&plan, Reading::Live, &whole[..=first]);
    let deadline = Instant::now() + Duration::from_secs(40);
    let error = loop {
        match again.next(Instant::now()) {
            Err(error) => break error.to_string(),
            Ok(Next::Wait(wait)) => std::thread::sleep(wait),
            Ok(_) => {}
        }
        assert!(Instant::now() < deadline, "offsets that are gone are told of");
    };
    for word in ["`tx`", "partition 1 ", &name, "it holds offsets 60 to "] {
        assert!(error.contains(word), "no {word} in: {error}");
    }
    // A topic made anew with fewer partitions is another topic.
    let other = topic("unlogged");
    broker.create_topic(&other, 2);
    let mut plan = plan;
    if let tidemill::plan::model::Connector::Kafka(kafka) = &mut plan.sources[0].connector {
        kafka.topic = other;
    }
    let state = whole[first].state.as_ref().expect("an epoch has ended");
    let error = Aligned::resume(&plan, Reading::Live, EPOCHS, 1, state, []).err().expect("refused").to_string();
    assert!(error.contains("had 3 partitions and now has 2"), "{error}");
}
