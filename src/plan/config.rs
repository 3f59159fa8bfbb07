//! The dataflow file's types: what may be written, and what each key means. These comments are the reference manual and
//! the descriptions in `schemas/dataflow.schema.json`.

mod accuracy;
mod alerts;
mod detect;
mod drift;
mod latency;
mod monitors;
mod retrain;
mod rollout;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{
    ByColumn, ByName, Bytes, Columns, Duration, Literal, Name, Rate, Resolution, Sql, Start, Text, Time, Windows,
};

pub(super) use alerts::{AlertConfig, ReceiverConfig, SeverityConfig, WebhookFormatConfig};
pub(super) use detect::{AdwinConfig, DdmConfig, DetectorConfig, DirectionConfig, PageHinkleyConfig};
pub(super) use drift::{
    CorrectConfig, DriftConfig, DriftRuleConfig, QualityConfig, ReferenceConfig, ReferenceSettings, ReferenceWord,
};
pub(super) use latency::LatencyConfig;
pub(super) use monitors::{MonitorConfig, TaskConfig};
pub(super) use retrain::{RetrainConfig, TriggerConfig, TriggerSettings, TriggerWord};
pub(super) use rollout::{GuardConfig, LossConfig, OnTimeoutConfig, PromoteIfConfig, RolloutConfig};

/// A job: sources of events, features over them, models that score them, and where it all goes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobConfig {
    /// Name of the job.
    pub job: Name,
    /// Version of the job, written beside every row; raise it when the meaning of a column changes.
    #[serde(default = "one")]
    pub version: u32,
    /// What "now" means for refresh, ttl and staleness: `event` is the watermark, `wall` the wall clock.
    #[serde(default)]
    pub clock: ClockConfig,
    /// Order in which rows meet the state. `event_time` holds rows until the watermark passes them, so that results depend
    /// on no cut, no worker count and no arrival; it is the default when every source is finite and unpaced. `arrival`
    /// applies each tick as it comes; it is the default when any source is paced or endless.
    pub order: Option<OrderConfig>,
    /// When ticks are cut.
    #[serde(default)]
    pub tick: TickConfig,
    /// When epochs close: the rows of an epoch become visible in tables, and in topics that are written exactly once,
    /// together; with a state directory the job's state is saved with them.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// Where registered models are kept, for models that name one.
    pub registry: Option<ModelRegistryConfig>,
    /// Where events come from. Their order breaks ties between events of equal time.
    pub sources: ByName<SourceConfig>,
    /// Streams made of sources.
    #[serde(default)]
    pub streams: ByName<StreamConfig>,
    /// Feature views: aggregates of one stream by one entity.
    #[serde(default)]
    pub features: ByName<ViewConfig>,
    /// Sets of features, read as of each event of one source.
    #[serde(default)]
    pub feature_sets: ByName<SetConfig>,
    /// Where feature values and predictions go.
    #[serde(default)]
    pub sinks: SinksConfig,
    /// Models that score a feature set.
    #[serde(default)]
    pub models: ByName<ModelConfig>,
    /// Labels of the models' predictions.
    #[serde(default)]
    pub labels: ByName<LabelConfig>,
    /// What is watched of the models, by their names.
    #[serde(default)]
    pub monitors: ByName<MonitorConfig>,
    /// How models get new versions, by their names.
    #[serde(default)]
    pub retrain: ByName<RetrainConfig>,
    /// Who is told of the monitors' alerts, by names that alerts use. The job's log, `log`, need not be declared.
    #[serde(default)]
    pub notify: ByName<ReceiverConfig>,
}

fn one() -> u32 {
    1
}

/// What "now" means.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClockConfig {
    /// The watermark.
    #[default]
    Event,
    /// The wall clock.
    Wall,
}

/// Order in which rows meet the state.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OrderConfig {
    /// By event time, behind the watermark.
    EventTime,
    /// Tick by tick.
    Arrival,
}

/// When an epoch closes, and what is kept of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointConfig {
    /// An epoch closes at the first tick after this long on the wall clock. Finite, unpaced input without a state directory is
    /// cut by rows alone, so that the cuts depend on no speed. Default 10s.
    pub interval: Option<Duration>,
    /// ... or after this many rows of input. Default 1000000 without a state directory, else no bound.
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// Epochs whose state is kept; more are a way back further. Default 3.
    #[schemars(range(min = 1, max = 1000))]
    pub keep: Option<u64>,
    /// How long the tick log is kept, which says how the input was cut: by whole files of about a megabyte, by the time of their
    /// last record. What a kept epoch needs stays. A replay, and so a proof of what was served, reaches back no further.
    /// Default 30d.
    pub keep_ticks: Option<Duration>,
    /// Where the state's snapshots are kept: a directory, or an object store such as `s3://bucket/path`, whose credentials come
    /// from the environment. The tick log stays in the state directory. Default: the state directory.
    pub uri: Option<Text>,
}

/// When a tick, the unit of progress, is cut.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TickConfig {
    /// Cut after this long. Only paced and live sources are cut by time. Default 20ms.
    pub interval: Option<Duration>,
    /// Cut after this many rows. Default 16384.
    #[schemars(range(min = 1))]
    pub rows: Option<u32>,
    /// Cut after this many bytes of decoded input. Default 16777216.
    #[schemars(range(min = 1))]
    pub bytes: Option<u64>,
    /// Ticks in flight before sources pause. Default 8.
    #[schemars(range(min = 1))]
    pub in_flight: Option<u32>,
}

/// A source of events; exactly one of `file`, `generator` and `kafka` says where from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceConfig {
    /// Files.
    pub file: Option<FileConfig>,
    /// The built-in generator of card traffic.
    pub generator: Option<GeneratorConfig>,
    /// A Kafka topic.
    pub kafka: Option<KafkaConfig>,
    /// The events' Avro schema, an `.avsc` file. Needed for NDJSON, CSV and Kafka; Parquet and the generator bring their own.
    pub schema: Option<Text>,
    /// Read these columns only. Without it all can be used, and those that nothing uses are not read.
    pub columns: Option<Vec<Text>>,
    /// Keep the events for which this is true.
    #[serde(rename = "where")]
    pub filter: Option<Sql>,
    /// Column that identifies an event.
    pub id: Option<Text>,
    /// Event time: a column or an expression of a timestamp type. Timestamps without a zone are read as UTC.
    pub event_time: Sql,
    /// How much out of order events may come: the watermark is the highest event time seen in a partition, less this. Default 0s.
    pub disorder: Option<Duration>,
    /// A silent live partition stops holding the watermark back after this long; what it brings later from behind the
    /// watermark is late. When all are silent, the watermark goes on at the pace of the wall clock. Finite sources never
    /// are. Default on Kafka 30s.
    pub idle_after: Option<Duration>,
    /// What happens to an event behind the watermark. Default `dead_letter`.
    #[serde(default)]
    pub on_late: OnLateConfig,
    /// Checks of values, by column; a row that fails one is rejected.
    #[serde(default)]
    pub validate: ByColumn<RuleConfig>,
    /// Where rejected rows go. Default: the table `dead_letters`.
    pub on_invalid: Option<RejectConfig>,
    /// Remove events whose `id` was seen within this event time, and count them. On Kafka within a partition, so write
    /// messages of one id to one partition.
    pub dedup: Option<Duration>,
}

/// Files: one partition each, in the order of their names.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileConfig {
    /// A file, a directory or a glob. Relative paths start at the current directory, else at the job file's.
    pub path: Text,
    /// How the files are encoded. Default: by their extension.
    pub format: Option<FormatConfig>,
    /// How fast they are read: `max`, `real_time` (at the pace of event time), or events per second. Default `max`.
    pub rate: Option<Rate>,
}

/// A Kafka topic. All its partitions are read by this job, without a consumer group; only what was committed by its
/// producer's transaction is read. Messages without a value (tombstones) are no events: they are counted and skipped.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KafkaConfig {
    /// Brokers, as `HOST:PORT`, several with commas between. Default `localhost:9092`.
    pub brokers: Option<Text>,
    /// Name of the topic.
    pub topic: Text,
    /// How messages are encoded. Default `json`.
    pub format: Option<MessageFormatConfig>,
    /// Avro only: the schema, an `.avsc` file, that messages are written with, where it is not the source's `schema`.
    pub writer_schema: Option<Text>,
    /// Avro only: messages name their schema in this registry, by a zero byte and four bytes of id in front of the record.
    pub registry: Option<RegistryConfig>,
    /// Where to begin: `earliest`, `latest` (only what comes from now on), or with the first message that has at least
    /// this timestamp, such as 2026-01-31T08:00:00Z. Default `earliest`. Partitions that appear later are read from their beginning.
    pub start: Option<Start>,
    /// Adds a column of this name that holds the message's key as text, null where it has none.
    pub key: Option<Text>,
    /// Adds a column of this name that holds the message's own timestamp, which its producer or the broker gave it.
    pub timestamp: Option<Text>,
    /// Adds columns that hold headers as text: the column's name, and the header's. Null where a message does not have
    /// the header; the last one where it has several.
    #[serde(default)]
    pub headers: ByColumn<Text>,
    /// How often to look for new partitions. Default 10s.
    pub discover_every: Option<Duration>,
    /// Under which consumer group's name to commit how far the topic has been read, for tools that show lag, or `none`. It is
    /// for watching only: the job is no member of the group, and never reads the offsets back. Default `tidemill.JOB`.
    pub group: Option<Text>,
    /// Settings of librdkafka by their names. Secrets are written `${env:NAME}` or `${file:PATH}`: they are looked up when
    /// the job starts and never printed.
    #[serde(default)]
    pub properties: ByColumn<Text>,
}

/// Encodings of messages.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum MessageFormatConfig {
    /// One JSON object.
    Json,
    /// One Avro record, resolved to the source's `schema` by Avro's rules; a nullable field that messages lack is null.
    Avro,
}

/// Encodings of files.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FormatConfig {
    /// Apache Parquet.
    Parquet,
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values under a header line.
    Csv,
}

/// The built-in world of card traffic. Sources of one job with equal settings see one and the same world.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GeneratorConfig {
    /// Which of the world's streams.
    pub stream: GeneratorStreamConfig,
    /// Seed of the world and of its traffic. Default 42.
    pub seed: Option<u64>,
    /// Number of customers. Default 5000.
    #[schemars(range(min = 1))]
    pub customers: Option<u32>,
    /// Number of terminals. Default 10000.
    #[schemars(range(min = 1))]
    pub terminals: Option<u32>,
    /// First event time. Default 2026-01-01.
    pub start: Option<Time>,
    /// Length of event time generated. Without it the stream never ends.
    pub duration: Option<Duration>,
    /// Time from a transaction until its label is known. Default 7d.
    pub label_delay: Option<Duration>,
    /// Event time, after `start`, at which the distributions drift. Without it they never do.
    pub drift_after: Option<Duration>,
    /// How fast events are produced: `max`, `real_time` (at the pace of event time), or events per second. Default `max`.
    pub rate: Option<Rate>,
}

/// The generator's streams.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GeneratorStreamConfig {
    /// Card transactions, at their own time.
    Transactions,
    /// Fraud labels, at the time they become known.
    Labels,
}

/// What happens to an event behind the watermark. It is counted either way.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnLateConfig {
    /// Kept as a dead letter.
    #[default]
    DeadLetter,
    /// Dropped.
    Drop,
}

/// Checks of one column. Null passes all but `required`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleConfig {
    /// Smallest allowed value.
    pub min: Option<f64>,
    /// Largest allowed value.
    pub max: Option<f64>,
    /// The allowed values.
    #[serde(rename = "in")]
    pub allowed: Option<Vec<Literal>>,
    /// Whether null is refused. Default false.
    #[serde(default)]
    pub required: bool,
}

/// Where rejected rows go.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RejectConfig {
    /// Table of dead letters that takes them.
    pub dead_letter: Name,
}

/// A stream made of sources.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamConfig {
    /// Adds to each event of one source what another source tells about it later.
    pub join: JoinConfig,
}

/// A left join in the left event's time. What the right side tells becomes visible at its own time; until then the left
/// event counts, with nulls in the right columns. Names that both sides have are written `left.NAME` and `right.NAME`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinConfig {
    /// Source of the events.
    pub left: Text,
    /// Source of what is told later, such as labels.
    pub right: Text,
    /// Column that both have.
    pub on: Text,
    /// What the right side tells later than this after the event is not joined.
    pub within: Duration,
}

/// A feature view: aggregates of one stream by one entity. Each event of the stream sees its entity's windows as of its own time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ViewConfig {
    /// The source or stream that is aggregated.
    pub from: Text,
    /// Columns that name the entity. A spine that reads the view has columns of the same names.
    #[schemars(length(min = 1))]
    pub entity: Vec<Text>,
    /// Shifts every window into the past: `(t − delay − window, t − delay]`. Default 0s.
    pub delay: Option<Duration>,
    /// Whether an event sees itself. Default true.
    #[serde(default = "yes")]
    pub include_current: bool,
    /// Columns computed from the event, by name; later ones may read earlier ones.
    #[serde(default)]
    pub derive: ByName<Sql>,
    /// Aggregates, by name. The column is `<name>_<window>`, or `<name>` over a lifetime.
    #[serde(default)]
    pub aggregates: ByName<AggregateConfig>,
    /// Columns computed from the aggregates and the event, by name; later ones may read earlier ones.
    #[serde(default)]
    pub post: ByName<Sql>,
    /// Values of aggregates whose window is empty, by the aggregate's name or its column's. Without it counts are 0 and
    /// all else is null.
    #[serde(default)]
    pub default: ByName<Literal>,
    /// An online value older than this is not served.
    pub ttl: Option<Duration>,
    /// Publish the view's rows to a topic, besides the table `features/<view>`.
    pub to: Option<ToConfig>,
}

fn yes() -> bool {
    true
}

/// One function of one column over one window or several. Nulls and NaN are skipped, except by `last`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AggregateConfig {
    /// Number of rows (`"*"`), or of those in which a column is not null.
    pub count: Option<Text>,
    /// Exact sum of a column.
    pub sum: Option<Text>,
    /// Mean of a column.
    pub mean: Option<Text>,
    /// Smallest value of a column.
    pub min: Option<Text>,
    /// Largest value of a column.
    pub max: Option<Text>,
    /// Population variance of a column.
    pub variance: Option<Text>,
    /// Population standard deviation of a column.
    pub stddev: Option<Text>,
    /// Sample variance of a column, null below two rows.
    pub variance_sample: Option<Text>,
    /// Sample standard deviation of a column, null below two rows.
    pub stddev_sample: Option<Text>,
    /// The latest row's value of a column, null included.
    pub last: Option<Text>,
    /// Length of the trailing window, a list of lengths, or `lifetime`. Needed by all but `last`.
    pub over: Option<Windows>,
    /// Keep rows as tiles of this width instead of one by one: a length of time, or a fraction of each window such as `1/60`.
    /// A window may then reach up to one tile further back.
    pub resolution: Option<Resolution>,
}

/// Features read as of each event of one source, the spine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetConfig {
    /// The spine: a source.
    pub on: Text,
    /// The set's columns in order: columns of the spine, `view.column`, or `view.*` for all of a view.
    #[schemars(length(min = 1))]
    pub take: Vec<Text>,
    /// Publish the set's rows to a topic, besides the table `feature_sets/<set>`.
    pub to: Option<ToConfig>,
}

/// Where feature values and predictions go.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SinksConfig {
    /// The latest values by entity, for reads at any time.
    pub online: Option<OnlineConfig>,
    /// Tables of everything that was computed.
    pub offline: Option<OfflineConfig>,
    /// Publish the dead letters of all sources and models to a topic, besides their tables.
    pub dead_letters: Option<ToConfig>,
}

/// A topic that takes rows, and what is promised of them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToConfig {
    /// A Kafka topic.
    pub kafka: TopicConfig,
    /// What is promised. Default: `exactly_once` for a job that has a state directory (`--state`), else `at_least_once`.
    pub delivery: Option<DeliveryConfig>,
    /// Exactly once only: rows are spread by key over this many transactions, which are written side by side. Default 4.
    #[schemars(range(min = 1, max = 64))]
    pub slots: Option<u32>,
    /// Exactly once only: the topic that says how far each transaction has come, on the same brokers. It is compacted and has
    /// one partition, and is made if it is not there. Default `tidemill.<job>.ledger`.
    pub ledger: Option<Text>,
}

/// What is promised of rows in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DeliveryConfig {
    /// Rows become visible, to consumers that read committed messages, when the checkpoint that covers them is complete: each
    /// once, whatever fails. Needs a state directory. Jobs that share brokers need different names.
    ExactlyOnce,
    /// Rows are published as soon as their tick is durable; after a failure some may be there twice.
    AtLeastOnce,
}

/// A Kafka topic that takes rows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicConfig {
    /// Brokers, as `HOST:PORT`, several with commas between. Default: those of the job's Kafka sources, else
    /// `localhost:9092`.
    pub brokers: Option<Text>,
    /// Name of the topic.
    pub topic: Text,
    /// How rows are encoded. Default `json`; of dead letters `original`.
    pub format: Option<TopicFormatConfig>,
    /// Avro only: register the schema here when the job starts, under the subject `<topic>-value`, and name it in each message.
    pub registry: Option<RegistryConfig>,
    /// Column of the rows, or several, that make the message's key: rows of one key keep their order. Default: no key.
    pub key: Option<Columns>,
    /// Settings of librdkafka's producer by their names, such as `compression.type: zstd`. Secrets are written
    /// `${env:NAME}` or `${file:PATH}`.
    #[serde(default)]
    pub properties: ByColumn<Text>,
}

/// Encodings of rows in topics.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TopicFormatConfig {
    /// One JSON object.
    Json,
    /// One Avro datum without a container; `check` prints its schema. With a `registry`, behind a zero byte and the schema's
    /// id.
    Avro,
    /// Dead letters only: the bytes as they came, and why they were turned away in the message's headers.
    Original,
}

/// The online store.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OnlineConfig {
    /// A store in the job's own process. The default.
    pub embedded: Option<EmbeddedConfig>,
    /// A Redis server, instead of `embedded`.
    pub redis: Option<RedisConfig>,
    /// A value is rewritten at most this long, on the job's clock, after it would change. Default 1s.
    pub refresh: Option<Duration>,
}

/// The embedded store.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddedConfig {
    /// Directory. Default `./online/<job>`.
    pub path: Option<Text>,
}

/// A Redis server. One that is away makes the job wait; one that comes back empty is filled again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RedisConfig {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://…` for a server that speaks TLS. Secrets are best given by reference: `${env:NAME}` or
    /// `${file:PATH}`, for the password or for the whole URL; they are looked up when the job starts and never printed.
    pub url: Text,
    /// How values lie in Redis. Default `native`.
    #[serde(default)]
    pub layout: LayoutConfig,
    /// Begins every key: `PREFIX:VIEW:ENTITY`; with `layout: feast` it is the one key that describes the job. Jobs that share a
    /// server need different ones. Default: the job's name.
    pub prefix: Option<Text>,
    /// Certificates (PEM) of the authorities that are trusted instead of the system's, for `rediss://…`. Relative to
    /// this file.
    pub ca: Option<Text>,
    /// Feast's project, with `layout: feast`: ends every key. Letters, digits and underscores. Default: the job's name.
    pub project: Option<Text>,
}

/// How values lie in Redis.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LayoutConfig {
    /// One packed value per entity and view.
    #[default]
    Native,
    /// One hash per entity, as Feast's SDK reads it.
    Feast,
}

/// The offline store.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfflineConfig {
    /// Delta tables under one directory.
    pub delta: DeltaConfig,
    /// Write these tables only, such as `predictions/fraud` or `features/customer`. Default: all.
    pub tables: Option<Vec<Text>>,
    /// Keep the tables tidy while the job runs: merge small files, delete what no reader needs. Off unless written; `{}` takes
    /// all defaults. `tidemill maintain` does the same once.
    pub maintain: Option<MaintainConfig>,
}

/// Upkeep of tables, on a thread of low priority.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MaintainConfig {
    /// How often, on the wall clock. Default 1h.
    pub every: Option<Duration>,
    /// Files of one date that are smaller than this are merged into ones of about 128MiB. Default 32MiB; 0 merges none.
    pub compact_below: Option<Bytes>,
    /// Files that were replaced, or left behind by a writer that died, are deleted after this long: longer than the longest
    /// query. Entries of the Delta log go after 30d, or this if it is longer. Default 7d.
    pub vacuum_after: Option<Duration>,
}

/// Delta tables.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeltaConfig {
    /// Directory of the tables. Relative paths start at the current directory.
    pub uri: Text,
}

/// A registry of models, as `tidemill models` keeps it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelRegistryConfig {
    /// A directory, or an object store such as `s3://bucket/path`, whose credentials come from the environment. Relative paths
    /// start at the current directory, else at the job file's. Default `./registry`.
    pub uri: Text,
}

/// A model that scores a feature set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelConfig {
    /// ONNX files by version name; one, such as `champion`. Relative paths start at the current directory, else at the job file's.
    #[serde(default)]
    pub versions: ByName<Text>,
    /// A registered model, instead of `versions`: `NAME@ALIAS`, such as `fraud@champion`, `NAME@NUMBER` or `NAME@latest`. It is
    /// looked up when the job begins; what goes on from a state directory goes on with the version that it began with.
    pub registry: Option<Text>,
    /// The feature set whose columns, in order, are the model's inputs.
    pub inputs: Text,
    /// Columns of the prediction, by name: an output of the model, with the element that is taken where it has several, such
    /// as `"probabilities[1]"`.
    pub outputs: ByName<Text>,
    /// Publish predictions to a topic, besides the table `predictions/<model>`.
    pub to: Option<ToConfig>,
}

/// Labels of a model's predictions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelConfig {
    /// Source of the labels.
    pub from: Text,
    /// Its column that holds the `id` of the scored event.
    pub prediction: Text,
    /// Its column that holds the label.
    pub value: Text,
    /// A label later than this after the event is not joined.
    pub within: Duration,
}

/// A schema registry with Confluent's HTTP interface. While it does not answer the source waits.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryConfig {
    /// Its address, such as `http://localhost:8081` or `https://registry`.
    pub url: Text,
    /// User, where it asks for one. Secrets are written `${env:NAME}` or `${file:PATH}`: they are looked up when the job
    /// starts and never printed.
    pub user: Option<Text>,
    /// The user's password.
    pub password: Option<Text>,
    /// How long one request may take. Default 3s.
    pub timeout: Option<Duration>,
    /// Certificates (PEM) of the authorities that are trusted instead of the system's, for an address with `https`. Relative to
    /// this file.
    pub ca: Option<Text>,
}
