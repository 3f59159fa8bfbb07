//! The Redis online store by itself, on a real server.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tidemill::base::SecretText;
use tidemill::ops::key;
use tidemill::plan::model::{Clock, RedisLayout, RedisPlan};
use tidemill::store::online::{
    ColumnSchema, OnlineReader, Rank, RedisRows, RedisStore, RedisWriter, Stamp, ViewSchema,
};

use crate::support::redis::Redis;

const STARTS: usize = 3;
const ENTITIES: i64 = 12;

fn place(redis: &Redis, prefix: &str, layout: &RedisLayout) -> RedisPlan {
    RedisPlan {
        url: SecretText::parse(&redis.url()).expect("a URL"),
        shown: "redis".into(),
        prefix: prefix.into(),
        layout: in_project(layout, prefix),
        ca: None,
    }
}

/// The layout; Feast's in a project of its own.
fn in_project(layout: &RedisLayout, project: &str) -> RedisLayout {
    match layout {
        RedisLayout::Native => RedisLayout::Native,
        RedisLayout::Feast { .. } => RedisLayout::Feast { project: project.into() },
    }
}

fn layouts() -> [RedisLayout; 2] {
    [RedisLayout::Native, RedisLayout::Feast { project: "p".into() }]
}

fn schema() -> ViewSchema {
    let column = |name: &str| ColumnSchema::new(name, &DataType::Int64).expect("a type that is held");
    ViewSchema {
        view: "v".into(),
        entity: vec![column("id")],
        columns: ["start", "tick", "number"].map(column).to_vec(),
        ttl: None,
        job: "j".into(),
        job_version: 1,
    }
}

/// What happens between a job's starts and the server.
#[derive(Clone, Debug)]
enum Step {
    /// A start of the job writes some entities at a tick.
    Write { start: usize, tick: u64, entities: Vec<i64> },
    /// The server forgets its scripts.
    ForgetScripts,
    /// All connections break.
    Hangup,
    /// The server loses everything.
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    let entities = proptest::collection::vec(0..ENTITIES, 0..6);
    prop_oneof![
        20 => (0..STARTS, 0..20u64, entities).prop_map(|(start, tick, entities)| Step::Write { start, tick, entities }),
        1 => Just(Step::ForgetScripts),
        1 => Just(Step::Hangup),
        1 => Just(Step::Lose),
    ]
}

fn write(writer: &mut RedisWriter, stamp: Stamp, entities: &[i64], number: i64) -> u64 {
    let ids: ArrayRef = Arc::new(Int64Array::from(entities.to_vec()));
    let keys = key::encode(&[ids]).expect("keys");
    let times = vec![stamp.tick as i64; entities.len()];
    let column = |value: i64| Arc::new(Int64Array::from(vec![value; entities.len()])) as ArrayRef;
    let values = [column(stamp.generation as i64), column(stamp.tick as i64), column(number)];
    let rows =
        RedisRows { view: 0, keys: keys.iter().collect(), event_time: &times, valid_until: &times, values: &values };
    writer.put(stamp, Some(stamp.tick as i64), &[rows], &|| false).expect("written").expect("not given up")
}

/// Starts of a job that write in any order of (generation, tick), over connections that break, leave what a map would
/// hold that keeps the newest stamp of each entity.
#[test]
fn an_older_stamp_never_replaces_a_newer_one() {
    layouts().iter().for_each(an_older_stamp_never_replaces_a_newer_one_in);
}

fn an_older_stamp_never_replaces_a_newer_one_in(layout: &RedisLayout) {
    let Some(redis) = Redis::start("compare-and-set in Redis") else { return };
    let runs = std::sync::atomic::AtomicU32::new(0);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let steps = proptest::collection::vec(step(), 1..60);
    let outcome = runner.run(&steps, |steps| {
        let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let place = place(&redis, &format!("run{run}"), layout);
        let stores: Vec<RedisStore> =
            (0..STARTS).map(|_| RedisStore::open(&place, Clock::Event, &[schema()], None).expect("a store")).collect();
        let generations: Vec<u64> = stores.iter().map(RedisStore::generation).collect();
        prop_assert_eq!(&generations, &[generations[0], generations[0] + 1, generations[0] + 2]);
        let mut writers: Vec<RedisWriter> = stores.iter().map(|store| store.writer("0")).collect();
        let mut naive: HashMap<i64, (Stamp, i64)> = HashMap::new();
        for (number, step) in (0i64..).zip(steps) {
            match step {
                Step::ForgetScripts => redis.ask::<()>(&["SCRIPT", "FLUSH"]),
                Step::Hangup => {
                    redis.ask::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
                }
                Step::Lose => {
                    redis.ask::<()>(&["FLUSHALL"]);
                    naive.clear();
                }
                Step::Write { start, tick, entities } => {
                    let stamp = Stamp { generation: generations[start], tick };
                    write(&mut writers[start], stamp, &entities, number);
                    for entity in entities {
                        let held = naive.entry(entity).or_insert((stamp, number));
                        if held.0 <= stamp {
                            *held = (stamp, number);
                        }
                    }
                }
            }
        }
        // A loss may have taken what the reader needs to know of the job; a write brings it back.
        let newest = Stamp { generation: generations[STARTS - 1], tick: 0 };
        write(&mut writers[STARTS - 1], newest, &[], 0);
        let reader = OnlineReader::redis(&place).expect("a reader");
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ENTITIES));
        let found = reader.read("v", &[ids]).expect("rows");
        for entity in 0..ENTITIES {
            let row = found.states[entity as usize].map(|_| {
                let value = |i: usize| found.values.column(i).as_primitive::<Int64Type>().value(entity as usize);
                (Stamp { generation: value(0) as u64, tick: value(1) as u64 }, value(2))
            });
            prop_assert_eq!(row, naive.get(&entity).copied(), "entity {}", entity);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// What a server lost is counted once for all writers, and the generation is not given away again.
#[test]
fn a_loss_is_counted_once() {
    layouts().iter().for_each(a_loss_is_counted_once_in);
}

fn a_loss_is_counted_once_in(layout: &RedisLayout) {
    let Some(mut redis) = Redis::start("losses of Redis") else { return };
    let place = place(&redis, "p", layout);
    let store = RedisStore::open(&place, Clock::Event, &[schema()], None).expect("a store");
    let losses = store.losses();
    let losses = || losses.load(std::sync::atomic::Ordering::SeqCst);
    let (mut a, mut b) = (store.writer("a"), store.writer("b"));
    let stamp = |tick| Stamp { generation: store.generation(), tick };
    assert_eq!((write(&mut a, stamp(1), &[1, 2], 0), write(&mut b, stamp(1), &[3], 0), losses()), (2, 1, 0));
    redis.ask::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!((write(&mut a, stamp(2), &[1], 0), losses()), (1, 0), "a broken connection is no loss");
    redis.ask::<()>(&["FLUSHALL"]);
    write(&mut a, stamp(3), &[1], 0);
    write(&mut b, stamp(3), &[3], 0);
    assert_eq!(losses(), 1, "emptied");
    redis.start_again();
    write(&mut b, stamp(4), &[3], 0);
    write(&mut a, stamp(4), &[1], 0);
    assert_eq!(losses(), 2, "restarted");
    let next = RedisStore::open(&place, Clock::Event, &[schema()], None).expect("a store");
    assert_eq!(next.generation(), store.generation() + 1);
}

/// What happens to lives of the values.
#[derive(Clone, Debug)]
enum Event {
    /// A start joins, and writes nothing.
    Join,
    /// One of the starts writes some entities.
    Write { start: usize, entities: Vec<i64> },
    /// The server loses everything.
    Lose,
}

fn event() -> impl Strategy<Value = Event> {
    let entities = proptest::collection::vec(0..ENTITIES, 0..3);
    prop_oneof![
        2 => Just(Event::Join),
        6 => (0..STARTS, entities).prop_map(|(start, entities)| Event::Write { start, entities }),
        1 => Just(Event::Lose),
    ]
}

/// A start that finds the life in which values were told finds them all, whoever joined, wrote or died in between.
#[test]
fn a_life_that_is_found_again_has_all_that_was_told_in_it() {
    layouts().iter().for_each(a_life_that_is_found_again_has_all_that_was_told_in_it_in);
}

fn a_life_that_is_found_again_has_all_that_was_told_in_it_in(layout: &RedisLayout) {
    let Some(redis) = Redis::start("lives of values in Redis") else { return };
    let runs = std::sync::atomic::AtomicU32::new(0);
    let (found, lost) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&proptest::collection::vec(event(), 1..40), |events| {
        let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let place = place(&redis, &format!("life{run}"), layout);
        let open = || RedisStore::open(&place, Clock::Event, &[schema()], None).expect("a store");
        let mut starts: Vec<(RedisStore, RedisWriter)> = Vec::new();
        // Entities by the life that their writer took them to be in.
        let mut told: HashMap<String, Vec<i64>> = HashMap::new();
        for (tick, event) in (0u64..).zip(events) {
            match event {
                Event::Lose => redis.ask::<()>(&["FLUSHALL"]),
                Event::Write { start, entities } => {
                    let newest = starts.len().checked_sub(1 + start % starts.len().max(1));
                    let Some((store, writer)) = newest.and_then(|index| starts.get_mut(index)) else { continue };
                    write(writer, Stamp { generation: store.generation(), tick }, &entities, 0);
                    told.entry(store.life().0).or_default().extend(entities);
                }
                Event::Join => {
                    let store = open();
                    let reader = OnlineReader::redis(&place).expect("a reader");
                    match told.get(&store.life().0) {
                        Some(told) if !told.is_empty() => {
                            let ids: ArrayRef = Arc::new(Int64Array::from(told.clone()));
                            let rows = reader.read("v", &[ids]).expect("rows");
                            prop_assert!(rows.states.iter().all(Option::is_some), "{:?}", told);
                            found.set(found.get() + 1);
                        }
                        _ => lost.set(lost.get() + 1),
                    }
                    let writer = store.writer("0");
                    starts.push((store, writer));
                }
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(found.get() > 10 && lost.get() > 10, "{} and {}", found.get(), lost.get());
}

/// Starts that the job's state has numbered rank by their numbers, in whatever order they come; so do those that come with
/// the number that they had when the server forgets. Starts without numbers, or of another state, rank by when they come.
#[test]
fn starts_rank_by_their_numbers() {
    layouts().iter().for_each(starts_rank_by_their_numbers_in);
}

fn starts_rank_by_their_numbers_in(layout: &RedisLayout) {
    let Some(redis) = Redis::start("ranks of starts in Redis") else { return };
    let place = place(&redis, "p", layout);
    let open = |rank: Option<(&str, u64)>| {
        let rank = rank.map(|(instance, number)| Rank { instance: instance.into(), number });
        RedisStore::open(&place, Clock::Event, &[schema()], rank).expect("a store")
    };
    let (third, first) = (open(Some(("a", 3))), open(Some(("a", 1))));
    let put = |store: &RedisStore, tick| {
        write(&mut store.writer("0"), Stamp { generation: store.generation(), tick }, &[tick as i64], 0)
    };
    // Not even where there is nothing.
    assert_eq!((put(&third, 1), put(&first, 9), put(&third, 2)), (1, 0, 1));
    let ninth = open(Some(("a", 9)));
    assert_eq!((ninth.generation() - third.generation(), third.generation() - first.generation()), (6, 2));
    redis.ask::<()>(&["FLUSHALL"]);
    // Who was there before counts from where he stood.
    assert_eq!((put(&first, 9), put(&third, 1)), (1, 1));
    assert_eq!(open(Some(("a", 9))).generation(), ninth.generation());
    redis.ask::<()>(&["FLUSHALL"]);
    let tenth = open(Some(("a", 10)));
    assert!(tenth.generation() > ninth.generation());
    assert_eq!((put(&tenth, 1), put(&ninth, 9), put(&tenth, 2)), (1, 0, 1));
    let mut newest = tenth.generation();
    for rank in [None, Some(("b", 1)), Some(("a", 2)), None, None, Some(("a", 0))] {
        let next = open(rank);
        assert!(next.generation() > newest, "{rank:?}");
        newest = next.generation();
    }
}

/// Rows of an older version of the job stay readable, by the names of their columns.
#[test]
fn versions_lie_side_by_side() {
    layouts().iter().for_each(versions_lie_side_by_side_in);
}

fn versions_lie_side_by_side_in(layout: &RedisLayout) {
    let Some(redis) = Redis::start("versions in Redis") else { return };
    let place = place(&redis, "p", layout);
    let store = RedisStore::open(&place, Clock::Event, &[schema()], None).expect("a store");
    write(&mut store.writer("0"), Stamp { generation: 1, tick: 7 }, &[1, 2], 70);
    let mut wider = schema();
    wider.columns.remove(0);
    wider.columns.push(ColumnSchema::new("extra", &DataType::Int64).expect("a type"));
    wider.job_version = 2;
    let store = RedisStore::open(&place, Clock::Event, &[wider], None).expect("a store");
    write(&mut store.writer("0"), Stamp { generation: 2, tick: 1 }, &[2], 90);
    let reader = OnlineReader::redis(&place).expect("a reader");
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let found = reader.read("v", &[ids]).expect("rows");
    let column = |i: usize| found.values.column(i).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!(found.schema.job_version, 2);
    // The second write put (generation, tick, number) under the new names (tick, number, extra).
    assert_eq!(
        (column(0), column(1), column(2)),
        (vec![Some(7), Some(2)], vec![Some(70), Some(1)], vec![None, Some(90)])
    );
    assert_eq!(reader.views().expect("views"), ["v"]);
    let unknown = reader.read("w", &[Arc::new(Int64Array::from(vec![1])) as ArrayRef]).expect_err("no such view");
    assert!(unknown.to_string().contains("no view `w`; it has v"), "{unknown}");
}
