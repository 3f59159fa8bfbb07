//! A real Kafka broker for tests: one node, on loopback, with its data in a temporary folder.

use super::free_port;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

/// Long enough for a broker on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fits a data directory that `tests/prepare.sh` has formatted, and one formatted here.
const CLUSTER_ID: &str = "dGlkZW1pbGwtdGVzdHMtMQ";

/// A broker. The shared one lives as long as the process; it and those of a test's own end with the process whatever
/// ends that.
pub struct Broker {
    port: u16,
    jars: PathBuf,
    data: PathBuf,
    java: Option<Java>,
    /// Removed at the end; the shared broker's folder by its watchdog.
    _folder: Option<TempDir>,
}

/// A running broker's process.
struct Java {
    process: Child,
    /// Ends the broker when its standard input closes, which happens at the latest when this process is gone.
    watchdog: Child,
}

/// Topic, partition, committed offset, end and lag, as Kafka's own tool shows them.
pub type Lag = (String, i32, i64, i64, i64);

/// What a test sends.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Where to; the producer chooses by key when there is none.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A value for a partition.
    pub fn to(partition: i32, value: impl Into<Vec<u8>>) -> Record {
        Record { partition: Some(partition), value: Some(value.into()), ..Record::default() }
    }
}

impl Broker {
    /// The broker that the tests of this process share; nothing after saying what is skipped. Each test makes topics of
    /// its own, named by [`topic`].
    pub fn start() -> Option<&'static Broker> {
        static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let mut broker = Broker::own()?;
            // The value never drops, so the folder is left to the watchdog.
            broker._folder.take().map(TempDir::keep);
            Some(broker)
        });
        if shared.is_none() {
            println!("{SKIPPED}");
        }
        shared.as_ref()
    }

    /// A broker that a test may stop and start; nothing after saying what is skipped.
    pub fn own() -> Option<Broker> {
        Broker::own_with(&[], "", &[])
    }

    /// As [`own`](Self::own), with further listeners (protocol and port), lines of `server.properties`, and users in the
    /// form that Kafka's storage tool adds them, such as `SCRAM-SHA-512=[name=u,password=p]`.
    pub fn own_with(listeners: &[(&str, u16)], settings: &str, users: &[&str]) -> Option<Broker> {
        let Some(jars) = std::env::var_os("TIDEMILL_KAFKA").filter(|path| !path.is_empty()).map(PathBuf::from) else {
            println!("{SKIPPED}");
            return None;
        };
        let folder = TempDir::new().expect("a temporary folder");
        let data = folder.path().join("data");
        let (port, controller) = (free_port(), free_port());
        let text = properties(port, controller, listeners, &data) + settings;
        std::fs::write(folder.path().join("server.properties"), text).expect("a file in a temporary folder");
        let mut broker = Broker { port, jars, data, java: None, _folder: Some(folder) };
        broker.format(users);
        broker.start_again();
        Some(broker)
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the broker's process as an operator would, and waits until it is gone.
    pub fn stop(&mut self) {
        if let Some(mut java) = self.java.take() {
            signal(java.process.id(), "TERM");
            wait(&mut java.process);
            java.dismiss();
        }
    }

    /// Ends the broker's process without warning.
    pub fn kill(&mut self) {
        if let Some(mut java) = self.java.take() {
            signal(java.process.id(), "KILL");
            wait(&mut java.process);
            java.dismiss();
        }
    }

    /// Freezes the broker's process: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.java.iter().for_each(|java| signal(java.process.id(), "STOP"));
    }

    /// Lets a frozen broker go on.
    pub fn thaw(&self) {
        self.java.iter().for_each(|java| signal(java.process.id(), "CONT"));
    }

    /// Starts a broker that was stopped, with its address and its data, and waits until it answers.
    pub fn start_again(&mut self) {
        let folder = self.data.parent().expect("a folder in a folder").to_owned();
        let log = std::fs::File::create(folder.join("log")).expect("a file in a temporary folder");
        let mut command = self.java();
        command.arg("kafka.Kafka").arg(folder.join("server.properties"));
        let out = log.try_clone().expect("a second handle of a file");
        let process = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn().expect("java starts");
        let watchdog = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -KILL $0 2>/dev/null && rm -rf \"$1\""])
            .arg(process.id().to_string())
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        self.java = Some(Java { process, watchdog });
        let deadline = Instant::now() + PATIENCE;
        // The socket opens before the broker has registered itself.
        while TcpStream::connect(self.address()).is_err() || !self.answers() {
            let ended = self.java.as_mut().and_then(|java| java.process.try_wait().ok().flatten());
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "the broker has ended: {}", log());
            assert!(Instant::now() < deadline, "the broker does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let metadata = self.consumer(&[]).fetch_metadata(None, Duration::from_secs(1));
        metadata.is_ok_and(|m| !m.brokers().is_empty())
    }

    fn format(&self, users: &[&str]) {
        let formatted = self.jars.join("formatted");
        std::fs::create_dir(&self.data).expect("a folder in a temporary folder");
        if formatted.is_dir() && users.is_empty() {
            for entry in std::fs::read_dir(&formatted).expect("a readable folder") {
                let entry = entry.expect("a readable folder");
                std::fs::copy(entry.path(), self.data.join(entry.file_name())).expect("a copied file");
            }
            return;
        }
        let mut command = self.java();
        command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
        command.arg(self.data.parent().expect("a folder in a folder").join("server.properties"));
        command.args(users.iter().flat_map(|user| ["--add-scram", user]));
        let output = command.output().expect("java starts");
        assert!(output.status.success(), "cannot format: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Java as `tests/prepare.sh` calls it, so that its archive of classes fits.
    fn java(&self) -> Command {
        self.java_with(None)
    }

    /// Java with the jars of a folder besides, behind the others.
    fn java_with(&self, more: Option<&Path>) -> Command {
        let mut jars: Vec<PathBuf> = std::fs::read_dir(&self.jars)
            .unwrap_or_else(|e| panic!("TIDEMILL_KAFKA={}: {e}", self.jars.display()))
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "jar"))
            .collect();
        jars.sort();
        jars.extend(more.map(|folder| folder.join("*")));
        let classpath = std::env::join_paths(&jars).expect("paths without colons");
        let mut command = Command::new("java");
        command.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]);
        let archive = self.jars.join("classes.jsa");
        if archive.is_file() {
            command.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
        }
        command.arg("-cp").arg(classpath);
        command
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: usize) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// Makes a topic with settings such as `retention.bytes`.
    pub fn create_topic_with(&self, name: &str, partitions: usize, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, i32::try_from(partitions).expect("few"), TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let made = wait_for(self.admin().create_topics([&topic], &AdminOptions::new())).expect("the broker answers");
        made.into_iter().for_each(|one| {
            one.unwrap_or_else(|(name, error)| panic!("topic {name}: {error}"));
        });
        // Made is not yet known to all.
        let deadline = Instant::now() + PATIENCE;
        while self.partitions(name) != partitions {
            assert!(Instant::now() < deadline, "topic {name} does not appear");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Grows a topic to this many partitions.
    pub fn add_partitions(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        let made = wait_for(self.admin().create_partitions([&more], &AdminOptions::new())).expect("the broker answers");
        made.into_iter().for_each(|one| {
            one.unwrap_or_else(|(name, error)| panic!("topic {name}: {error}"));
        });
        let deadline = Instant::now() + PATIENCE;
        while self.partitions(name) != partitions {
            assert!(Instant::now() < deadline, "topic {name} does not grow");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Removes what a partition holds before an offset, as retention does.
    pub fn expire(&self, topic: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
        let left = wait_for(self.admin().delete_records(&offsets, &AdminOptions::new())).expect("the broker answers");
        left.elements().iter().for_each(|element| element.error().expect("records are removed"));
    }

    fn partitions(&self, topic: &str) -> usize {
        let metadata = self.consumer(&[]).fetch_metadata(Some(topic), PATIENCE).expect("the broker answers");
        metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none()).map_or(0, |t| t.partitions().len())
    }

    /// What Kafka's own tool says of a group; nothing after saying what is skipped.
    pub fn lag(&self, group: &str) -> Option<Vec<Lag>> {
        let tools = self.jars.join("tools");
        if !tools.is_dir() {
            println!(
                "skipped: what Kafka's tool says of lag: there are no tools beside Kafka's jars (tests/all fetches them)"
            );
            return None;
        }
        let mut command = self.java_with(Some(&tools));
        command.arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
        command.args(["--bootstrap-server", &self.address(), "--describe", "--group", group]);
        let output = command.output().expect("java starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let number = |text: &str| text.parse().unwrap_or(-1);
        let rows = lines.filter(|parts| parts.len() > 5 && parts[0] == group);
        let rows = rows.map(|p| (p[1].to_owned(), number(p[2]) as i32, number(p[3]), number(p[4]), number(p[5])));
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        Some(rows)
    }

    /// Offsets that a group has committed, by partition; none where it has not.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        let partitions = i32::try_from(self.partitions(topic)).expect("few");
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(topic, 0, partitions - 1);
        let found = self.consumer(&[("group.id", group)]).committed_offsets(asked, PATIENCE).expect("an answer");
        found.elements().iter().map(|one| one.offset().to_raw().filter(|offset| *offset >= 0)).collect()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("an admin client")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }

    /// A consumer in no group, with settings besides.
    pub fn consumer(&self, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", "tests").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().expect("a consumer")
    }

    /// A producer with settings besides, such as `transactional.id`.
    pub fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut config = self.config();
        config.set("linger.ms", "5").set("queue.buffering.max.messages", "1000000").set("message.max.bytes", "8388608");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().expect("a producer")
    }

    /// Sends records in their order and waits until the broker has them.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = Record>) {
        let producer = self.producer(&[]);
        send(&producer, topic, records);
        producer.flush(PATIENCE).expect("the broker takes the records");
    }

    /// Everything that a topic holds now, partition by partition, in the order of offsets; committed records only.
    pub fn consume(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer = self.consumer(&[("auto.offset.reset", "earliest"), ("enable.partition.eof", "true")]);
        let partitions = self.partitions(topic);
        let mut from_start = TopicPartitionList::new();
        for partition in 0..partitions {
            from_start
                .add_partition_offset(topic, i32::try_from(partition).expect("few"), Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&from_start).expect("an assignment");
        let (mut messages, mut ended) = (Vec::new(), 0);
        let deadline = Instant::now() + PATIENCE;
        while ended < partitions {
            assert!(Instant::now() < deadline, "topic {topic} cannot be read to its end");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => messages.push(message.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => panic!("topic {topic}: {error}"),
                None => {}
            }
        }
        messages.sort_by_key(|m| (rdkafka::Message::partition(m), rdkafka::Message::offset(m)));
        messages
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Java {
    /// Ends the watchdog without letting it bite: the process id may be somebody else's by now.
    fn dismiss(mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

/// Hands records to a producer; blocks while its queue is full.
pub fn send(producer: &BaseProducer, topic: &str, records: impl IntoIterator<Item = Record>) {
    for record in records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut next = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
        next.partition = record.partition;
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.timestamp = record.timestamp_ms;
        loop {
            match producer.send(next) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    producer.poll(Duration::from_millis(10));
                    next = back;
                }
                Err((error, _)) => panic!("topic {topic}: {error}"),
            }
        }
    }
}

/// A name of a topic that no other test has.
pub fn topic(name: &str) -> String {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

const SKIPPED: &str = "skipped: jobs on Kafka: TIDEMILL_KAFKA names no directory of Kafka's jars (tests/all makes one)";

fn properties(port: u16, controller: u16, listeners: &[(&str, u16)], data: &Path) -> String {
    let more: String = listeners.iter().map(|(protocol, port)| format!(",{protocol}://127.0.0.1:{port}")).collect();
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\n\
         log.retention.ms=-1\n\
         log.retention.check.interval.ms=500\n\
         log.initial.task.delay.ms=100\n\
         message.max.bytes=8388608\n\
         num.network.threads=2\n\
         num.io.threads=2\n",
        data.display()
    )
}

fn signal(process: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
}

fn wait(process: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    while matches!(process.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            let _ = process.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn wait_for<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[test]
fn what_is_sent_is_read_also_after_a_restart() {
    let Some(mut broker) = Broker::own() else { return };
    let topic = topic("harness");
    broker.create_topic(&topic, 2);
    let record = |n: u8| Record {
        key: Some(vec![n]),
        headers: vec![("h".to_owned(), vec![n, n])],
        timestamp_ms: Some(1_000 + i64::from(n)),
        ..Record::to(i32::from(n % 2), [n])
    };
    broker.produce(&topic, (0..4).map(record));
    broker.stop();
    broker.start_again();
    broker.produce(&topic, [record(4)]);
    broker.expire(&topic, 0, 1);
    let values: Vec<_> =
        broker.consume(&topic).iter().map(|m| rdkafka::Message::payload(m).map(<[u8]>::to_vec)).collect();
    assert_eq!(values, [2, 4, 1, 3].map(|n: u8| Some(vec![n])));
}
