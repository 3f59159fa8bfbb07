//! What the sink stages, without a broker: the same messages in the same slots on any number of workers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;
use timely::{CommunicationConfig, Config, WorkerConfig};

use super::*;
use crate::base::Epoch;
use crate::engine::checkpoint::{Checkpoints, Resumed};
use crate::engine::offsets::Offsets;
use crate::engine::outbox::Staging;
use crate::engine::rollout::{Rollouts, Versions};
use crate::engine::shared::StopHandle;
use crate::engine::telemetry::Meters;
use crate::engine::{EngineError, RunOptions, graph, load_text};
use crate::ingest::aligned::{Aligned, EpochPolicy};
use crate::ingest::{ReaderOptions, Reading, SourceReader};
use crate::plan::model::Plan;
use crate::state::{Coordinator, Expected, Hooks, Progress, StateError};
use crate::store::topic::outbox::OutboxReader;

const SLOTS: u16 = 3;

fn plan() -> Plan {
    let text = r#"
job: staged
order: event_time
tick: {rows: 100}
sources:
  tx:
    generator: {stream: transactions, seed: 7, customers: 50, terminals: 60, start: "2026-01-05", duration: 8d}
    id: tx_id
    event_time: ts
    validate: {amount: {max: 150}}
features:
  customer:
    from: tx
    entity: [customer_id]
    aggregates: {nb_tx: {count: "*", over: 1d}}
    to: {kafka: {topic: customers, key: customer_id}, slots: 3}
  terminal:
    from: tx
    entity: [terminal_id]
    aggregates: {nb_tx: {count: "*", over: 1d}}
feature_sets:
  inputs: {on: tx, take: [customer.*, terminal.*], to: {kafka: {topic: inputs}, slots: 3}}
sinks:
  dead_letters: {kafka: {topic: dead, properties: {compression.type: zstd}}, delivery: exactly_once, slots: 3}
"#;
    load_text("job.yaml", text, &[], &|_| None).unwrap_or_else(|faults| panic!("{faults}")).0
}

/// Takes part in no checkpoint.
struct Nobody;

impl Hooks for Nobody {
    fn wait_durable(&self, _: Tick) -> bool {
        true
    }

    fn publish(&self, _: Epoch, _: &BTreeMap<String, Vec<serde_json::Value>>) -> bool {
        true
    }

    fn forget_before(&self, _: Tick) {}

    fn failed(&self, error: StateError) {
        panic!("{error}");
    }
}

/// Runs the plan as [`run`](crate::engine::run()) does, with outboxes; what was staged, in the order reported.
fn run(dir: &Path, workers: usize, suppress_through: Option<Tick>) -> Vec<Staged> {
    let plan = Arc::new(plan());
    let reports: Arc<Mutex<Vec<Staged>>> = Arc::default();
    let hears = Arc::clone(&reports);
    let stage = move |staged| hears.lock().unwrap_or_else(PoisonError::into_inner).push(staged);
    let staging = Staging {
        directory: dir.to_owned(),
        application: "tidemill.staged".to_owned(),
        generation: 1,
        stage: Arc::new(stage),
    };
    let mut resources = graph::Resources::open(&plan).expect("resources");
    resources.open_topics(&plan, Some(&staging)).expect("topics");
    let resources = Arc::new(resources);
    let reading = ReaderOptions { reading: Reading::UntilEnd, ..ReaderOptions::of(&plan, 0) };
    let reader = SourceReader::open(&plan.sources[0], reading).expect("a reader");
    let epochs = EpochPolicy { interval: Duration::from_secs(3600), rows: 250, timed: false };
    let reader = Mutex::new(Some(Aligned::new(&plan, vec![reader], epochs)));
    let progress = Arc::<Progress>::default();
    let expected = Expected { first: 0, parts: 0, sinks: BTreeMap::new() };
    let (coordinator, reporter) =
        Coordinator::start(None, expected, Arc::clone(&progress), Arc::new(Nobody)).expect("a thread");
    let resumed = Resumed { suppress_through, ..Resumed::default() };
    let checkpoints =
        Checkpoints::start(std::time::Instant::now(), None, resumed, progress, reporter).expect("checkpoints");
    let meters = Meters::new(&plan, workers, &RunOptions::default());
    let watchers = (meters, None, StopHandle::new(), None, None);
    let rollouts = Rollouts::new(Versions::new(&plan, &[]), false);
    let outbox = ("staged".to_owned(), rollouts);
    let shared =
        Shared::new(Arc::clone(&plan), None, Arc::default(), checkpoints, Offsets::default(), outbox, watchers);
    let communication = if workers == 1 { CommunicationConfig::Thread } else { CommunicationConfig::Process(workers) };
    let config = Config { communication, worker: WorkerConfig::default() };
    let theirs = Arc::clone(&shared);
    let guards = timely::execute(config, move |worker| {
        let reader = if worker.index() == 0 { reader.lock().expect("a lock").take() } else { None };
        let built = graph::build(worker, Arc::clone(&theirs), Arc::clone(&resources), reader);
        while !built.done.done() && !theirs.failed() {
            worker.step_or_park(Some(Duration::from_millis(50)));
        }
    });
    guards.expect("workers").join().into_iter().for_each(|guard| guard.expect("a worker"));
    shared.checkpoints.close();
    coordinator.finish();
    if let Some(error) = shared.take_failure() {
        panic!("{error}");
    }
    let reports = reports.lock().expect("a lock");
    reports.clone()
}

/// Topic, slot, key, payload and the headers but the epoch's, which closes where the machine's speed has it.
type Message = (String, u16, Option<Vec<u8>>, Vec<u8>, Vec<(String, Vec<u8>)>);

fn messages(dir: &Path, staged: &[Staged]) -> Vec<Message> {
    let mut staged: Vec<&Staged> = staged.iter().collect();
    staged.sort_by_key(|staged| (staged.epoch, staged.worker));
    let mut messages = Vec::new();
    for staged in staged {
        for part in &staged.parts {
            for slot in 0..SLOTS {
                let mut reader = OutboxReader::open(dir, part, slot).expect("a part");
                while let Some(message) = reader.next().expect("a message") {
                    let headers: BTreeMap<&str, &[u8]> = message.headers.iter().collect();
                    assert_eq!(headers["tidemill.epoch"], staged.epoch.to_string().as_bytes());
                    let headers = headers.into_iter().filter(|(name, _)| *name != "tidemill.epoch");
                    messages.push((
                        part.topics[usize::from(message.topic)].clone(),
                        slot,
                        message.key.map(<[u8]>::to_vec),
                        message.payload.to_vec(),
                        headers.map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
                    ));
                }
            }
        }
    }
    messages
}

fn by_key(messages: &[Message]) -> BTreeMap<(String, Option<Vec<u8>>), Vec<Message>> {
    let mut by_key: BTreeMap<_, Vec<Message>> = BTreeMap::new();
    for message in messages {
        by_key.entry((message.0.clone(), message.2.clone())).or_default().push(message.clone());
    }
    by_key
}

#[test]
fn outboxes_hold_the_same_on_any_number_of_workers() {
    let dir = TempDir::new().expect("a temporary folder");
    let alone = run(&dir.path().join("1"), 1, None);
    let expected = messages(&dir.path().join("1"), &alone);
    let count = |topic: &str| expected.iter().filter(|message| message.0 == topic).count();
    assert!(count("customers") > 200 && count("customers") == count("inputs"), "{}", count("customers"));
    assert!(count("dead") > 0);
    assert!(
        expected.iter().map(|message| message.1).collect::<std::collections::BTreeSet<_>>().len() == SLOTS as usize
    );
    // Dead letters have other settings, so another publisher.
    let applications = ["tidemill.staged", "tidemill.staged/1"];
    assert!(alone.iter().flat_map(|s| &s.parts).all(|part| applications.contains(&part.application.as_str())));

    let together = run(&dir.path().join("3"), 3, None);
    let epochs = 1 + together.iter().map(|staged| staged.epoch).max().expect("epochs");
    assert!(epochs > 1, "one epoch shows nothing of their ends");
    for worker in 0..3 {
        let reported: Vec<u64> = together.iter().filter(|s| s.worker == worker).map(|s| s.epoch).collect();
        assert_eq!(reported, (0..epochs).collect::<Vec<_>>(), "each worker reports each epoch once and in order");
    }
    let mut found = by_key(&messages(&dir.path().join("3"), &together));
    let mut expected = by_key(&expected);
    // Those without a key have no order; those of a key must be in theirs.
    for topic in ["dead", "inputs"] {
        let unkeyed = (topic.to_owned(), None);
        found.get_mut(&unkeyed).expect("messages").sort();
        expected.get_mut(&unkeyed).expect("messages").sort();
    }
    assert_eq!(found, expected);
}

#[test]
fn a_replay_drops_what_is_published() {
    let dir = TempDir::new().expect("a temporary folder");
    let all = run(dir.path(), 1, None);
    let tick = |message: &Message| {
        let (_, tick) = message.4.iter().find(|(name, _)| name == "tidemill.tick").expect("a tick");
        std::str::from_utf8(tick).expect("text").parse::<Tick>().expect("a number")
    };
    let mut expected = messages(dir.path(), &all);
    let through = tick(&expected[expected.len() / 2]);
    let before = expected.len();
    expected.retain(|message| tick(message) > through);
    assert!(!expected.is_empty() && expected.len() < before);
    let other = dir.path().join("replay");
    let replayed = run(&other, 1, Some(through));
    assert_eq!(replayed.len(), all.len());
    assert_eq!(messages(&other, &replayed), expected);
}

#[test]
fn exactly_once_needs_a_state_directory() {
    let mut resources = graph::Resources::open(&plan()).expect("resources");
    let error = resources.open_topics(&plan(), None).expect_err("it is refused");
    let EngineError::Plan(text) = error else { panic!("{error}") };
    assert!(text.starts_with("sinks.dead_letters.delivery: `exactly_once` needs a state directory; run"), "{text}");
}
