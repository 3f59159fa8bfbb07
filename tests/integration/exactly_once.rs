//! Outboxes published by transactions, on a real broker: through kills, stops, fences and restarts, who reads committed
//! messages reads each once and those of one key in their order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::producer::Producer;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;
use tidemill::store::StoreError;
use tidemill::store::topic::Publisher;
use tidemill::store::topic::outbox::{OutboxPart, OutboxWriter, slot_of_key};
use tidemill::store::topic::transactions::{MESSAGES_MAX, Rightful, TransactionOptions, TransactionalPublisher};

use crate::support::full;
use crate::support::kafka::{Broker, Record, send, topic};

const SLOTS: u16 = 3;
const KEYS: u64 = 40;
/// Holds what a process that publishes is to do.
const TASK: &str = "TIDEMILL_TEST_PUBLISH";

/// What to publish, and as whom.
#[derive(Clone, Serialize, Deserialize)]
struct Task {
    brokers: String,
    topics: Vec<String>,
    application: String,
    ledger: String,
    generation: u64,
    messages_max: u64,
    directory: PathBuf,
    epochs: Vec<(u64, Vec<OutboxPart>)>,
}

impl Task {
    /// Two topics and a ledger of their own.
    fn new(broker: &Broker, directory: &Path) -> Task {
        let topics = vec![topic("once-a"), topic("once-b")];
        topics.iter().for_each(|name| broker.create_topic(name, 2));
        let application = topic("tidemill.job");
        let ledger = format!("{application}.ledger");
        let (brokers, directory) = (broker.address(), directory.to_owned());
        Task {
            brokers,
            topics,
            application,
            ledger,
            generation: 1,
            messages_max: MESSAGES_MAX,
            directory,
            epochs: Vec::new(),
        }
    }

    /// Stages an epoch of `messages`, half on each of two workers by key.
    fn stage(&mut self, epoch: u64, messages: u64) {
        let mut parts = Vec::new();
        for worker in 0..2 {
            let name = format!("w{worker}");
            let writer = OutboxWriter::create(&self.directory, &self.application, &name, self.topics.clone(), SLOTS);
            let mut writer = writer.expect("a writer");
            for n in (0..messages).filter(|n| n % KEYS % 2 == worker) {
                let (key, payload) = (format!("k{}", n % KEYS), format!("{epoch:04}-{n:06}"));
                let epoch = epoch.to_string();
                let headers = [("tidemill.epoch", epoch.as_bytes())];
                let slot = slot_of_key(key.as_bytes(), SLOTS);
                let topic = u16::from(n % 3 == 0);
                writer.append(topic, slot, Some(key.as_bytes()), payload.as_bytes(), &headers).expect("appended");
            }
            parts.extend(writer.finish(epoch).expect("a part"));
        }
        self.epochs.push((epoch, parts));
    }

    fn options(&self) -> TransactionOptions {
        TransactionOptions {
            brokers: self.brokers.clone(),
            properties: Vec::new(),
            topics: self.topics.clone(),
            application: self.application.clone(),
            slots: SLOTS,
            ledger: self.ledger.clone(),
            generation: self.generation,
            rightful: None,
            messages_max: self.messages_max,
        }
    }

    fn open(&self) -> Result<TransactionalPublisher, StoreError> {
        TransactionalPublisher::open(self.options(), &|| false)
    }

    /// Publishes all epochs; how many messages that were.
    fn publish(&self, publisher: &TransactionalPublisher) -> Result<u64, StoreError> {
        let mut published = 0;
        for (epoch, parts) in &self.epochs {
            let parts: Vec<_> = parts.iter().map(|part| (self.directory.clone(), part.clone())).collect();
            published += publisher.publish(*epoch, &parts, &|| false)?.iter().map(|d| d.delivered).sum::<u64>();
        }
        Ok(published)
    }

    fn next_generation(&mut self) -> &mut Self {
        self.generation += 1;
        self
    }

    /// Starts a process that opens and publishes.
    fn process(&self, failpoints: &str) -> Child {
        Command::new(std::env::current_exe().expect("this very program"))
            .args(["exactly_once::a_process_that_publishes", "--exact", "--nocapture"])
            .env(TASK, serde_json::to_string(self).expect("JSON"))
            .env(FAILPOINTS, failpoints)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process")
    }

    /// Messages staged.
    fn total(&self) -> u64 {
        self.epochs.iter().flat_map(|(_, parts)| parts).map(|part| part.messages).sum()
    }

    /// That the topics hold what was staged, once and in order by key.
    fn check(&self, broker: &Broker) {
        let mut count = 0;
        for (number, topic) in self.topics.iter().enumerate() {
            let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for message in broker.consume(topic) {
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("bytes").to_vec()).expect("text");
                found.entry(text(message.key())).or_default().push(text(message.payload()));
            }
            let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (epoch, parts) in &self.epochs {
                let messages: u64 = parts.iter().map(|part| part.messages).sum();
                for n in (0..messages).filter(|n| u64::from(n % 3 == 0) == number as u64) {
                    expected.entry(format!("k{}", n % KEYS)).or_default().push(format!("{epoch:04}-{n:06}"));
                }
            }
            count += expected.values().map(|list| list.len() as u64).sum::<u64>();
            assert_eq!(found, expected, "{topic}");
        }
        assert_eq!(count, self.total());
    }
}

#[test]
fn a_process_that_publishes() {
    let Ok(task) = std::env::var(TASK) else { return };
    let task: Task = serde_json::from_str(&task).expect("a task");
    match task.open().and_then(|publisher| task.publish(&publisher)) {
        Ok(published) => println!("published {published}"),
        Err(error) => println!("error: {error}"),
    }
}

/// What a process printed and whether it was killed.
fn end(process: Child) -> (String, bool) {
    use std::os::unix::process::ExitStatusExt;
    let output = process.wait_with_output().expect("a process");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.signal() == Some(9))
}

fn is_taken_over(outcome: &Result<impl Sized, StoreError>) -> bool {
    matches!(outcome, Err(error @ StoreError::TakenOver { .. }) if error.to_string().contains("another process has taken over"))
}

#[test]
fn epochs_are_published_once() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    for messages_max in [MESSAGES_MAX, 7] {
        let mut task = Task { messages_max, ..Task::new(broker, dir.path()) };
        // One message leaves two slots without any; an epoch without any has no file.
        let epochs = if messages_max == 7 { [(10, 90), (11, 0), (13, 1)] } else { [(0, 400), (1, 0), (2, 1)] };
        epochs.iter().for_each(|(epoch, messages)| task.stage(*epoch, *messages));
        let last = epochs[2].0;
        let publisher = task.open().expect("a publisher");
        assert_eq!((0..SLOTS).map(|slot| publisher.published(slot)).collect::<Vec<_>>(), [None; SLOTS as usize]);
        assert_eq!(task.publish(&publisher).expect("published"), task.total());
        let slot = slot_of_key(b"k0", SLOTS);
        for other in 0..SLOTS {
            assert_eq!(publisher.published(other), Some(if other == slot { last } else { epochs[0].0 }));
        }
        assert_eq!(task.publish(&publisher).expect("published"), 0);
        assert_eq!(publisher.deliveries().iter().map(|d| d.delivered).sum::<u64>(), task.total());
        task.check(broker);
        drop(publisher);

        // Another start knows what the ledger says, also with another number of slots in its plan.
        let options = TransactionOptions { slots: 1, ..task.next_generation().options() };
        let publisher = TransactionalPublisher::open(options, &|| false).expect("a publisher");
        assert_eq!((publisher.slots(), publisher.published(slot)), (SLOTS, Some(last)));
        task.stage(last + 1, 50);
        assert_eq!(task.publish(&publisher).expect("published"), 50);
        task.check(broker);
    }
}

#[test]
fn kills_inside_and_after_transactions_cost_and_double_nothing() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task { messages_max: 40, ..Task::new(broker, dir.path()) };
    for epoch in 0..3 {
        task.stage(epoch, 200);
    }
    let mut kills = 0;
    for failpoints in
        ["topic.sent=kill", "topic.sent=kill@2", "topic.committed=kill", "topic.committed=kill@2", "topic.sent=kill@3"]
    {
        let (text, killed) = end(task.next_generation().process(failpoints));
        assert!(killed, "{failpoints}: {text}");
        kills += 1;
    }
    let (text, _) = end(task.next_generation().process(""));
    let left: u64 = text
        .lines()
        .find_map(|line| line.split_once("published ")?.1.trim().parse().ok())
        .unwrap_or_else(|| panic!("nothing published: {text}"));
    assert!(left > 0 && left < task.total(), "{left} of {} after {kills} kills", task.total());
    task.check(broker);
}

#[test]
fn a_zombie_is_fenced() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task::new(broker, dir.path());
    task.stage(0, 100);
    let first = task.open().expect("a publisher");
    let zombie = task.clone();
    let second = task.next_generation().open().expect("a publisher");
    let outcome = zombie.publish(&first);
    assert!(is_taken_over(&outcome), "{outcome:?}");
    // It stays that way.
    assert!(zombie.publish(&first).is_err());
    // One that comes too late to be fenced does no harm either.
    let late = zombie.open();
    assert!(is_taken_over(&late.map(drop)));
    assert_eq!(task.publish(&second).expect("published"), 100);
    task.check(broker);
}

#[test]
fn a_process_that_wakes_inside_a_transaction_is_fenced() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    for failpoint in ["topic.sent=stop", "topic.committed=stop"] {
        let mut task = Task::new(broker, dir.path());
        let epoch = u64::from(failpoint.starts_with("topic.c"));
        task.stage(epoch, 300);
        task.stage(epoch + 10, 300);
        let stopped = task.process(failpoint);
        let deadline = Instant::now() + Duration::from_secs(30);
        let stat = format!("/proc/{}/stat", stopped.id());
        while !std::fs::read_to_string(&stat).unwrap_or_default().contains(") T ") {
            assert!(Instant::now() < deadline, "the process does not come to {failpoint}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let publisher = task.next_generation().open().expect("a publisher");
        let published = task.publish(&publisher).expect("published");
        // The other slots may have come further.
        assert!(published >= 300 && published <= task.total(), "{published}");
        let _ = Command::new("kill").args(["-CONT", &stopped.id().to_string()]).status();
        let (text, _) = end(stopped);
        assert!(text.contains("error: another process has taken over"), "{text}");
        task.check(broker);
    }
}

/// A start was stopped between its look at who has the state and its fence; it wakes when its successor has the slots, and
/// fences them. The successor has the state, and goes on.
#[test]
fn a_late_fence_of_a_predecessor_does_not_stop_who_has_the_state() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task::new(broker, dir.path());
    task.stage(0, 300);
    let stopped = task.process("topic.fencing=stop");
    let deadline = Instant::now() + Duration::from_secs(30);
    let stat = format!("/proc/{}/stat", stopped.id());
    while !std::fs::read_to_string(&stat).unwrap_or_default().contains(") T ") {
        assert!(Instant::now() < deadline, "the process does not come to its fence");
        std::thread::sleep(Duration::from_millis(20));
    }
    task.next_generation();
    let rightful = Some(Rightful(std::sync::Arc::new(|| Some(true))));
    let options = TransactionOptions { rightful, ..task.options() };
    let publisher = TransactionalPublisher::open(options, &|| false).expect("a publisher");
    task.publish(&publisher).expect("published");
    let _ = Command::new("kill").args(["-CONT", &stopped.id().to_string()]).status();
    let (text, _) = end(stopped);
    assert!(text.contains("error: another process has taken over"), "{text}");
    task.stage(1, 300);
    assert_eq!(task.publish(&publisher).expect("published"), 300);
    task.check(broker);
    // And a start that knows itself replaced fences nobody.
    let rightful = Some(Rightful(std::sync::Arc::new(|| Some(false))));
    let options = TransactionOptions { rightful, ..task.next_generation().options() };
    assert!(is_taken_over(&TransactionalPublisher::open(options, &|| false)));
    task.stage(2, 30);
    assert_eq!(task.publish(&publisher).expect("published"), 30);
    task.check(broker);
}

#[test]
fn a_broker_that_restarts_costs_and_doubles_nothing() {
    let Some(mut broker) = Broker::own() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task { messages_max: 50, ..Task::new(&broker, dir.path()) };
    for epoch in 0..200 {
        task.stage(epoch, 150);
    }
    let publisher = task.open().expect("a publisher");
    let publishing = {
        let task = task.clone();
        std::thread::spawn(move || task.publish(&publisher))
    };
    let mut interrupted = 0;
    for round in 0..2 {
        std::thread::sleep(Duration::from_millis(300));
        // A quick machine may be through before the second time.
        if publishing.is_finished() {
            break;
        }
        interrupted += 1;
        if round == 0 {
            broker.kill()
        } else {
            broker.stop()
        }
        broker.start_again();
    }
    assert!(interrupted > 0, "all was published before the broker went away");
    let published = publishing.join().expect("a thread").expect("published");
    assert_eq!(published, task.total());
    task.check(&broker);
}

/// Longer than the brokers let a transaction last.
#[test]
fn a_broker_that_is_away_for_long_is_waited_for() {
    if !full() {
        println!("skipped: a broker that is away for 90 s (tests/all --full)");
        return;
    }
    let Some(broker) = Broker::own() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task::new(&broker, dir.path());
    for epoch in 0..3 {
        task.stage(epoch, 100_000);
    }
    let publisher = task.open().expect("a publisher");
    let publishing = {
        let task = task.clone();
        std::thread::spawn(move || task.publish(&publisher))
    };
    std::thread::sleep(Duration::from_millis(300));
    broker.freeze();
    std::thread::sleep(Duration::from_secs(90));
    assert!(!publishing.is_finished(), "it did not wait");
    broker.thaw();
    let published = publishing.join().expect("a thread").expect("published");
    assert_eq!(published, task.total());
    task.check(&broker);
}

/// The brokers abort what lasts longer than a minute and fence the producer, though nobody has taken over.
#[test]
fn a_process_that_sleeps_too_long_and_was_not_replaced_goes_on() {
    if !full() {
        println!("skipped: a process that sleeps for 80 s inside a transaction (tests/all --full)");
        return;
    }
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task::new(broker, dir.path());
    for epoch in 0..3 {
        task.stage(epoch, 200);
    }
    let (text, _) = end(task.process("topic.sent=sleep:80000@2"));
    assert!(text.contains(&format!("published {}", task.total())), "{text}");
    task.check(broker);
}

#[test]
fn a_publisher_without_brokers_gives_up_when_it_is_told_to() {
    let Some(mut broker) = Broker::own() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task::new(&broker, dir.path());
    task.stage(0, 100);
    let publisher = task.open().expect("a publisher");
    broker.stop();
    let since = Instant::now();
    let parts: Vec<_> = task.epochs[0].1.iter().map(|part| (task.directory.clone(), part.clone())).collect();
    let outcome = publisher.publish(0, &parts, &|| since.elapsed() > Duration::from_secs(2));
    assert!(matches!(&outcome, Err(StoreError::Topic { .. })), "{outcome:?}");
    let open = TransactionalPublisher::open(task.options(), &|| since.elapsed() > Duration::from_secs(4));
    assert!(matches!(open.map(drop), Err(StoreError::Topic { .. })));
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    drop(publisher);
    broker.start_again();
    let publisher = task.next_generation().open().expect("a publisher");
    task.publish(&publisher).expect("published");
    task.check(&broker);
}

#[test]
fn an_open_transaction_of_another_hides_nothing_of_the_ledger() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task::new(broker, dir.path());
    task.stage(0, 100);
    let first = task.open().expect("a publisher");
    let other = broker.producer(&[("transactional.id", &topic("other"))]);
    other.init_transactions(Duration::from_secs(30)).expect("an answer");
    other.begin_transaction().expect("a transaction");
    send(&other, &task.ledger, [Record { key: Some(b"other/0".to_vec()), ..Record::to(0, "nothing to us") }]);
    other.flush(Duration::from_secs(30)).expect("it is there");
    task.publish(&first).expect("published");
    drop(first);
    let claims = broker.consume(&task.ledger).len();
    assert_eq!(claims, usize::from(SLOTS), "the transaction hides nothing: the test shows nothing");
    task.next_generation();
    let second = {
        let task = task.clone();
        std::thread::spawn(move || task.open().and_then(|publisher| task.publish(&publisher)))
    };
    std::thread::sleep(Duration::from_secs(4));
    assert!(!second.is_finished(), "it did not wait: {:?}", second.join());
    other.abort_transaction(Duration::from_secs(30)).expect("aborted");
    assert_eq!(second.join().expect("a thread").expect("published"), 0);
    task.check(broker);
}

#[test]
fn what_cannot_be_is_said() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let mut task = Task::new(broker, dir.path());
    task.stage(0, 100);

    let mut lossy = Task { ledger: topic("lossy"), ..task.clone() };
    broker.create_topic_with(&lossy.ledger, 1, &[("cleanup.policy", "delete")]);
    let error = lossy.open().map(drop).expect_err("records would be lost").to_string();
    assert!(error.contains("`cleanup.policy` is `delete`") && error.contains("set it to `compact`"), "{error}");

    // A ledger that says so little that it may be of another outbox.
    lossy.ledger = task.ledger.clone();
    let publisher = Task { messages_max: 10, ..task.clone() }.open().expect("a publisher");
    drop(publisher);
    let (_, killed) = end(Task { messages_max: 10, ..task.clone() }.process("topic.committed=kill"));
    assert!(killed);
    let mut changed = Task { epochs: Vec::new(), ..task.clone() };
    std::fs::remove_dir_all(dir.path()).expect("removed");
    changed.stage(0, 101);
    let publisher = changed.next_generation().open().expect("a publisher");
    let error = changed.publish(&publisher).expect_err("other messages").to_string();
    assert!(error.contains("were published from an outbox that is not here"), "{error}");

    let gone = Task { topics: vec![topic("nowhere")], ..Task::new(broker, dir.path()) };
    let small = Task { topics: vec![topic("small")], ..Task::new(broker, dir.path()) };
    broker.create_topic_with(&small.topics[0], 1, &[("max.message.bytes", "1000")]);
    for (task, why) in [(gone, "Unknown topic"), (small, "Message size too large")] {
        let writer = OutboxWriter::create(dir.path(), &task.application, &task.topics[0], task.topics.clone(), 1);
        let mut writer = writer.expect("a writer");
        writer.append(0, 0, None, &[b'x'; 5000], &[]).expect("appended");
        let part = writer.finish(1).expect("a part").expect("a part");
        let soon = vec![("topic.metadata.propagation.max.ms".to_owned(), "1000".to_owned())];
        let options = TransactionOptions { properties: soon, ..task.options() };
        let publisher = TransactionalPublisher::open(options, &|| false).expect("a publisher");
        let error = publisher.publish(1, &[(dir.path().to_owned(), part)], &|| false).expect_err("refused").to_string();
        assert!(error.contains(&format!("topic `{}`", task.topics[0])) && error.contains(why), "{error}");
    }
}

/// Prints what transactions cost beside a plain producer, from the same rows.
#[test]
fn what_transactions_cost() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let messages: u64 = if full() { 2_000_000 } else { 20_000 };
    let mut task = Task::new(broker, dir.path());
    let since = Instant::now();
    let publisher = task.open().expect("a publisher");
    println!("a publisher of {SLOTS} slots opens in {:?}", since.elapsed());
    for round in 0..3 {
        let staging = Instant::now();
        task.stage(round * 1000, messages);
        let staged = staging.elapsed();
        let plain = Publisher::open(&broker.address(), &[], &task.topics).expect("a producer");
        let since = Instant::now();
        for n in 0..messages {
            let (key, payload) = (format!("k{}", n % KEYS), format!("{:04}-{n:06}", 9999));
            let headers: &[(&str, &[u8])] = &[("tidemill.epoch", b"9999")];
            plain
                .send(usize::from(n % 3 == 0), Some(key.as_bytes()), payload.as_bytes(), headers, &|| false)
                .expect("sent");
        }
        plain.flush(&|| false).expect("delivered");
        let plainly = since.elapsed();
        let since = Instant::now();
        let published = task.publish(&publisher).expect("published");
        let once = since.elapsed();
        assert_eq!(published, messages);
        let rate = |time: Duration| messages as f64 / time.as_secs_f64() / 1e3;
        println!(
            "{messages} messages: staged {:.0} k/s, published in transactions {:.0} k/s, by a plain producer {:.0} k/s",
            rate(staged),
            rate(once),
            rate(plainly)
        );
    }
    // Epochs follow each other at once, or after a pause, as checkpoints do: the brokers make a producer wait that begins
    // while they still complete its transaction before.
    let mut next = 10_000;
    for pause in [Duration::ZERO, Duration::from_millis(100)] {
        let mut times = Vec::new();
        for _ in 0..if full() { 300 } else { 20 } {
            task.epochs.clear();
            next += 1;
            task.stage(next, 10);
            std::thread::sleep(pause);
            let since = Instant::now();
            task.publish(&publisher).expect("published");
            times.push(since.elapsed());
        }
        times.sort();
        let at = |quantile: f64| times[((times.len() - 1) as f64 * quantile) as usize].as_secs_f64() * 1e3;
        let (p50, p99) = (at(0.5), at(0.99));
        println!(
            "an epoch of 10 messages in {SLOTS} slots, {pause:?} after the last: p50 {p50:.1} ms, p99 {p99:.1} ms"
        );
    }
}
