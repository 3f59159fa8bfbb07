//! What tools that show lag say of a job: how far it has come, never further, and nothing is left when it has read all.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tidemill::engine::RunOptions;

use crate::kafka_source::{Setting, event};
use crate::support::kafka::{Broker, Record, topic};

fn events(ids: std::ops::Range<i64>) -> impl Iterator<Item = Record> {
    ids.map(|id| event((id % 2) as i32, id, id))
}

fn filled(broker: &Broker, name: &str, events_count: i64) -> String {
    let name = topic(name);
    broker.create_topic(&name, 2);
    broker.produce(&name, events(0..events_count));
    name
}

#[test]
fn lag_falls_while_a_job_runs_and_is_nothing_at_its_end() {
    let Some(broker) = Broker::start() else { return };
    let (total, group) = (4_000, "watched");
    let name = filled(broker, "lag", total);
    let kafka = format!(", group: {group}");
    let setting = Setting::new(&broker.address(), &name, &kafka, "", "tick: {rows: 50, in_flight: 12}");
    // One worker takes its time, so what was sent is far ahead of what is through.
    let seen = Arc::new(AtomicI64::new(0));
    let count = Arc::clone(&seen);
    let options = RunOptions {
        until_end: true,
        workers: 2,
        tap: Some(Arc::new(move |_, batch| {
            if std::thread::current().name().is_some_and(|name| name.ends_with('1')) {
                std::thread::sleep(Duration::from_millis(50));
            }
            count.fetch_add(batch.num_rows() as i64, Ordering::SeqCst);
        })),
        ..RunOptions::default()
    };
    let mut sums = Vec::new();
    std::thread::scope(|scope| {
        let job = scope.spawn(|| setting.run("lake", options));
        while !job.is_finished() {
            let committed: i64 = broker.committed(group, &name).into_iter().flatten().sum();
            let seen = seen.load(Ordering::SeqCst);
            assert!(committed <= seen, "{committed} are committed, {seen} are through");
            sums.push(committed);
            std::thread::sleep(Duration::from_millis(50));
        }
        let summary = job.join().expect("no panic").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(summary.rows_read, total as u64);
    });
    assert!(sums.is_sorted(), "{sums:?}");
    sums.dedup();
    sums.retain(|sum| (1..total).contains(sum));
    assert!(sums.len() >= 2, "between the beginning and the end: {sums:?}");
    assert_eq!(broker.committed(group, &name), [Some(2_000), Some(2_000)]);

    let rows = |committed: i64, end: i64| -> Vec<_> {
        (0..2).map(|partition| (name.clone(), partition, committed, end, end - committed)).collect()
    };
    let Some(lag) = broker.lag(group) else { return };
    assert_eq!(lag, rows(2_000, 2_000));
    broker.produce(&name, events(total..total + 10));
    assert_eq!(broker.lag(group), Some(rows(2_000, 2_005)));
}

#[test]
fn a_live_job_commits_what_it_has_read_and_nothing_is_read_back() {
    let Some(broker) = Broker::start() else { return };
    let name = filled(broker, "live_lag", 100);
    let group = format!("live.{name}");
    let setting = || Setting::new(&broker.address(), &name, &format!(", group: {group}"), "", "");
    let mut live = setting().live(RunOptions::default());
    for (round, id) in (100..103).enumerate() {
        live.wait_for(100 + round);
        let deadline = Instant::now() + Duration::from_secs(20);
        while broker.committed(&group, &name).into_iter().flatten().sum::<i64>() != id {
            assert!(Instant::now() < deadline, "{:?}, not {id}", broker.committed(&group, &name));
            std::thread::sleep(Duration::from_millis(20));
        }
        broker.produce(&name, events(id..id + 1));
    }
    live.wait_for(103);
    live.stop();
    assert_eq!(broker.committed(&group, &name), [Some(52), Some(51)]);

    // The next start reads from where the file says.
    let again = setting();
    let summary = again.run("lake", RunOptions { until_end: true, ..again.options() });
    assert_eq!(summary.unwrap_or_else(|error| panic!("{error}")).rows_read, 103);
}

#[test]
fn replays_and_jobs_without_a_group_commit_nothing() {
    let Some(broker) = Broker::start() else { return };
    let name = filled(broker, "silent_lag", 100);
    let group = format!("silent.{name}");
    let job = |group: &str| Setting::new(&broker.address(), &name, &format!(", group: {group}"), "", "");
    let first = job("none");
    let state = first.state();
    let options = RunOptions { until_end: true, state_dir: Some(state.clone()), ..first.options() };
    first.run("lake", options).unwrap_or_else(|error| panic!("{error}"));
    let second = job(&group);
    let options = RunOptions { until_end: true, replay: Some(state), ..second.options() };
    let summary = second.run("lake", options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(summary.rows_read, 100);
    for group in ["none", &group, "tidemill", "tidemill.on_kafka"] {
        assert_eq!(broker.committed(group, &name), [None, None], "{group}");
    }
    // What shows that the above would have been seen.
    let third = job(&group);
    let options = RunOptions { until_end: true, ..third.options() };
    third.run("lake", options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(broker.committed(&group, &name), [Some(50), Some(50)]);
}

#[test]
fn a_group_that_refuses_costs_one_warning() {
    use rdkafka::consumer::Consumer;
    let Some(broker) = Broker::start() else { return };
    let name = filled(broker, "refused_lag", 100);
    let group = format!("members.{name}");
    // A group with a member takes no offsets from others.
    let member = broker.consumer(&[("group.id", &group), ("auto.offset.reset", "earliest")]);
    member.subscribe(&[&name]).expect("a subscription");
    let deadline = Instant::now() + Duration::from_secs(30);
    while member.assignment().is_ok_and(|assigned| assigned.count() < 2) {
        assert!(Instant::now() < deadline, "the member gets no partitions");
        let _ = member.poll(Duration::from_millis(50));
    }
    let setting = Setting::new(&broker.address(), &name, &format!(", group: {group}"), "", "");
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["run", "--until-end"])
        .arg(&setting.file)
        .env("LAKE", setting.dir.path().join("lake"))
        .output()
        .expect("tidemill starts");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let expected =
        format!("source `tx`: offsets cannot be committed to group `{group}`: the group has members of its own");
    assert_eq!(log.matches(&expected).count(), 1, "{log}");
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
}

#[test]
fn brokers_that_do_not_answer_hold_up_the_end_for_a_few_seconds_only() {
    let Some(broker) = Broker::own() else { return };
    let name = filled(&broker, "away_lag", 100);
    let mut live = Setting::new(&broker.address(), &name, "", "", "").live(RunOptions::default());
    live.wait_for(100);
    broker.freeze();
    let begin = Instant::now();
    let summary = live.stop();
    let took = begin.elapsed();
    broker.thaw();
    assert_eq!(summary.rows_read, 100);
    assert!(took < Duration::from_secs(15), "{took:?}");
}
