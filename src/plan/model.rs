//! The compiled plan: what a dataflow file means once every name is resolved and every expression typed.
//!
//! `plan` makes it, every room to the right reads it; nothing in it is text to be parsed again.
//!
//! **Column names inside the engine.** A batch of a stream begins with `_time` and `_ord` (see [`crate::base`]), then the
//! event's columns under their own names, then the derived columns as `<view>.<name>`. A stage adds its view's aggregates
//! and then its post columns as `<view>.<name>`. [`Expr`]s name engine columns, so they evaluate on any batch that has them.

mod accuracy;
mod alert;
mod detect;
mod drift;
mod latency;
mod metric;
mod monitor;
mod retrain;
mod rollout;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::ScalarValue;
use url::Url;

use super::expr::Expr;
use crate::base::{EventTime, Micros, ModelRef, SecretText};

pub use accuracy::{AccuracyPlan, CardPlan, Metric, RankingPlan};
pub use alert::{
    AlertPlan, Comparison, Condition, Hold, HttpPlan, MetricTable, Operator, ReceiverPlan, ReceiverWay, SegmentFilter,
    Severity, Subject, Template, TemplatePiece, WebhookFormat,
};
pub use detect::{AdwinPlan, DdmPlan, DetectorPlan, Direction, PageHinkleyPlan};
pub use drift::{ColumnRole, DriftColumn, DriftMetric, DriftPlan, QualityMetric, ReferencePlan};
pub use latency::LatencyPlan;
pub use metric::{metrics, table_of};
pub use monitor::{MonitorPlan, Task};
pub use retrain::{RetrainPlan, Trigger};
pub use rollout::{ByPlan, GuardPlan, Loss, OnTimeout, RolloutPlan, SHARE_ALL, Share, Strategy};

/// A whole job.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the job.
    pub job: String,
    /// Version of the job, written beside every row.
    pub version: u32,
    /// What "now" means.
    pub clock: Clock,
    /// Order in which rows meet the state.
    pub order: Order,
    /// When ticks are cut and how many may be in flight.
    pub ticks: TickPolicy,
    /// When epochs close, and what is kept of them.
    pub checkpoint: CheckpointPlan,
    /// The sources, in file order; a source's index is its rank in ties.
    pub sources: Vec<SourcePlan>,
    /// The label-join streams.
    pub joins: Vec<JoinPlan>,
    /// The feature views, in file order.
    pub views: Vec<ViewPlan>,
    /// The feature sets.
    pub sets: Vec<SetPlan>,
    /// The models.
    pub models: Vec<ModelPlan>,
    /// Label declarations.
    pub labels: Vec<LabelPlan>,
    /// How challengers of models come in, by model.
    pub rollouts: Vec<(usize, RolloutPlan)>,
    /// When models are retrained.
    pub retrains: Vec<RetrainPlan>,
    /// What is watched of the models.
    pub monitors: Vec<MonitorPlan>,
    /// Who is told of their alerts; nobody where there are none.
    pub receivers: Vec<ReceiverPlan>,
    /// The online store, if any.
    pub online: Option<OnlinePlan>,
    /// The offline store, if any.
    pub offline: Option<OfflinePlan>,
    /// The topics that rows are published to.
    pub topics: Vec<TopicPlan>,
    /// Directory or address of the registry of models, whether or not one of them is registered.
    pub registry: String,
    /// SHA-256 (hex) of the normalised file after expansion: names the plan in manifests and logs.
    pub fingerprint: String,
}

/// What "now" means for refresh, ttl and staleness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The watermark.
    Event,
    /// The wall clock.
    Wall,
}

/// Order in which rows meet the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Rows wait for the watermark; results depend on no cut, no worker count and no arrival.
    EventTime,
    /// Rows are applied tick by tick as they come; results depend on the tick log alone.
    Arrival,
}

/// When worker 0 cuts a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickPolicy {
    /// Cut after this long, for paced and live sources only (finite unpaced input is cut by size alone, so that cuts repeat).
    pub interval: Micros,
    /// Cut after this many rows.
    pub rows_max: usize,
    /// Cut after this many bytes of decoded input.
    pub bytes_max: usize,
    /// Ticks that may be in flight past the sinks' probe before sources pause.
    pub in_flight_max: usize,
}

/// A source of events.
#[derive(Clone, Debug)]
pub struct SourcePlan {
    /// Name in the file.
    pub name: String,
    /// Where events come from.
    pub connector: Connector,
    /// The event's columns as decoded, in order (only those that the job needs, plus `id`).
    pub schema: SchemaRef,
    /// Columns of the underlying data that must be read, names of `schema`'s fields.
    pub filter: Option<Expr>,
    /// Event time; its type is `Timestamp(Microsecond, "UTC")`.
    pub event_time: Expr,
    /// Column of `schema` that identifies an event.
    pub id: Option<usize>,
    /// Watermark = highest event time seen in the partition − disorder.
    pub disorder: Micros,
    /// A silent live partition stops holding the watermark back after this long.
    pub idle_after: Option<Micros>,
    /// What happens to a row behind the watermark.
    pub on_late: OnLate,
    /// Value checks.
    pub rules: Vec<ValueRule>,
    /// Table that takes rejected rows: `dead_letters` unless named.
    pub rejected_to: String,
    /// Rows whose `id` was seen within this event time are removed and counted.
    pub dedup: Option<Micros>,
    /// Columns computed per row after the filter, appended to the event's columns.
    pub derived: Vec<NamedExpr>,
    /// Schema of the batches that leave ingest: `_time`, `_ord`, `schema`, `derived`.
    pub stream_schema: SchemaRef,
}

/// A computed column.
#[derive(Clone, Debug)]
pub struct NamedExpr {
    /// Engine column name.
    pub name: String,
    /// How to compute it.
    pub expr: Expr,
}

/// Where a source's events come from.
#[derive(Clone, Debug)]
pub enum Connector {
    /// Files.
    File(FileConnector),
    /// The built-in generator of card traffic.
    Generator(GeneratorConnector),
    /// A Kafka topic.
    Kafka(Box<KafkaConnector>),
}

impl Connector {
    /// Whether it is paced by the wall clock or never ends.
    pub fn is_live(&self) -> bool {
        match self {
            Connector::File(file) => file.rate != Rate::Max,
            Connector::Generator(generator) => generator.rate != Rate::Max || generator.duration.is_none(),
            Connector::Kafka(_) => true,
        }
    }
}

/// A Kafka topic.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaConnector {
    /// Brokers, as `host:port` with commas between.
    pub brokers: String,
    /// Name of the topic.
    pub topic: String,
    /// How messages are encoded.
    pub format: MessageFormat,
    /// Where to begin.
    pub start: KafkaStart,
    /// Column of [`SourcePlan::schema`] that holds a message's key.
    pub key: Option<String>,
    /// Column that holds a message's own timestamp.
    pub timestamp: Option<String>,
    /// Columns that hold headers, with the headers' names.
    pub headers: Vec<(String, String)>,
    /// How often to look for new partitions.
    pub discover_every: Micros,
    /// Consumer group under whose name offsets are committed for others to see; none commits nothing.
    pub group: Option<String>,
    /// Settings of librdkafka.
    pub properties: Properties,
}

/// Settings of an outside system, by name; values may hold secrets or refer to them, so `Debug` shows the names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<(String, String)>);

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Where reading a topic begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaStart {
    /// With the oldest message that is kept.
    Earliest,
    /// With the first message from now on.
    Latest,
    /// With the first message that has at least this timestamp.
    At(EventTime),
}

/// Files: one partition per file, in the order of their names.
#[derive(Clone, Debug)]
pub struct FileConnector {
    /// Path, directory or glob, as given after expansion.
    pub path: String,
    /// The files that matched, sorted.
    pub files: Vec<PathBuf>,
    /// How they are encoded.
    pub format: FileFormat,
    /// How fast they are read.
    pub rate: Rate,
}

/// Encodings of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values with a header line.
    Csv,
}

/// How one message of a topic is encoded.
#[derive(Clone, Debug, PartialEq)]
pub enum MessageFormat {
    /// One JSON object.
    Json,
    /// One Avro record.
    Avro(AvroFormat),
}

/// Messages that are Avro records.
#[derive(Clone, Debug, PartialEq)]
pub struct AvroFormat {
    /// The declared schema, as text: what messages are resolved to.
    pub declared: Arc<str>,
    /// What messages are written with.
    pub writer: AvroWriter,
}

/// The schema that messages are written with.
#[derive(Clone, Debug, PartialEq)]
pub enum AvroWriter {
    /// All with this one, as text.
    Schema(Arc<str>),
    /// Each names its own: a zero byte, the schema's id in the registry as four bytes (big-endian), the record.
    Registry(RegistryPlan),
}

/// A schema registry with Confluent's HTTP interface.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryPlan {
    /// Its base address.
    pub url: String,
    /// User and password, with their secrets as references.
    pub credentials: Option<(SecretText, SecretText)>,
    /// How long one request may take.
    pub timeout: Option<Micros>,
    /// The authorities that are trusted instead of the system's, for `https`.
    pub ca: Option<PathBuf>,
}

/// Whether an address is that of a server which speaks TLS.
pub fn is_secure(url: &str) -> bool {
    let scheme = url.trim().split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("rediss"))
}

impl RegistryPlan {
    /// What forbids using an address as a registry's, and how to mend it.
    pub fn address_fault(url: &str) -> Option<String> {
        match Url::parse(url) {
            Err(error) => Some(format!("{error}; write http://HOST:PORT or https://HOST:PORT")),
            Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host().is_none() => {
                Some("write http://HOST:PORT or https://HOST:PORT".to_string())
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Some("give credentials as `user` and `password`, not in the address".to_string())
            }
            Ok(_) => None,
        }
    }
}

/// How fast a source is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the job keeps up.
    Max,
    /// At the pace of event time, on the wall clock.
    RealTime,
    /// Events per second of wall time.
    PerSecond(f64),
}

/// Which of the generator's streams a source reads. Sources of one job with equal settings see one and the same world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratorStream {
    /// Card transactions, at their own time.
    Transactions,
    /// Fraud labels, at the time they become known.
    Labels,
}

/// The built-in generator of card traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorConnector {
    /// Which stream.
    pub stream: GeneratorStream,
    /// Seed of the world and of its traffic.
    pub seed: u64,
    /// Number of customers.
    pub customers: u32,
    /// Number of terminals.
    pub terminals: u32,
    /// First event time.
    pub start: i64,
    /// Length of event time generated; `None` never ends.
    pub duration: Option<Micros>,
    /// Time from a transaction until its label is known.
    pub label_delay: Micros,
    /// Event time, after `start`, at which the distributions drift; `None` never.
    pub drift_after: Option<Micros>,
    /// How fast events are produced.
    pub rate: Rate,
}

/// What happens to a row behind the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLate {
    /// To dead letters, counted.
    DeadLetter,
    /// Dropped, counted.
    Drop,
}

/// Checks on one column of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueRule {
    /// Column of [`SourcePlan::schema`].
    pub column: usize,
    /// Null is refused.
    pub required: bool,
    /// Smallest allowed value.
    pub min: Option<f64>,
    /// Largest allowed value.
    pub max: Option<f64>,
    /// Allowed values, as text.
    pub allowed: Option<Vec<String>>,
}

/// A left join of labels (or other late facts) onto events, in the left row's event time.
#[derive(Clone, Debug)]
pub struct JoinPlan {
    /// Name of the joined stream.
    pub name: String,
    /// Source of the left rows.
    pub left: usize,
    /// Source of the right rows.
    pub right: usize,
    /// Key column in the left source's `stream_schema`.
    pub left_on: usize,
    /// Key column in the right source's `stream_schema`.
    pub right_on: usize,
    /// A right row later than this after its left row is unmatched.
    pub within: Micros,
    /// Columns of the joined stream: `_time`, `_ord`, left columns, then the right columns that `right_columns` names.
    pub schema: SchemaRef,
    /// Right columns carried, as indices into the right `stream_schema`.
    pub right_columns: Vec<usize>,
}

/// What a view reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRef {
    /// A source, by index.
    Source(usize),
    /// A join stream, by index.
    Join(usize),
}

/// A feature view: aggregates of one stream by one entity.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    /// Name of the view.
    pub name: String,
    /// What it reads.
    pub stream: StreamRef,
    /// Entity key columns, as indices into the stream's schema.
    pub entity: Vec<usize>,
    /// Names of the entity columns; the spine has columns of the same names.
    pub entity_names: Vec<String>,
    /// Shifts every window into the past: `(t − delay − window, t − delay]`.
    pub delay: Micros,
    /// Whether an event's own row sees the event.
    pub include_current: bool,
    /// The aggregates, one output column each.
    pub aggregates: Vec<AggregatePlan>,
    /// Names (engine names) of the derived columns, a part of the view when its stream is the spine.
    pub derived: Vec<String>,
    /// Columns computed from the aggregates and the spine row.
    pub post: Vec<NamedExpr>,
    /// An online value older than this is not served.
    pub ttl: Option<Micros>,
    /// Largest disorder of the view's stream: how long rows must be kept past the longest window.
    pub disorder: Micros,
}

/// One aggregate over one window: one output column.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregatePlan {
    /// Engine column name, `<view>.<name>_<window>`.
    pub name: String,
    /// What is computed.
    pub function: AggregateFunction,
    /// Input column, an index into the stream's schema; `None` counts rows.
    pub input: Option<usize>,
    /// Type of the input column.
    pub input_type: Option<DataType>,
    /// Over what.
    pub window: Window,
    /// Tile width, when rows are kept as tiles instead of one by one.
    pub resolution: Option<Micros>,
    /// Type of the output column.
    pub output_type: DataType,
    /// Value when the window holds nothing (SQL null, and 0 for counts, unless given).
    pub default: Option<ScalarValue>,
}

/// A window that ends at the row (less the view's delay).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// `(t − width, t]`.
    Trailing(Micros),
    /// Everything up to t.
    Lifetime,
}

/// What an aggregate computes. Null inputs and NaN are skipped by all but `Count` of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Number of rows, or of non-null inputs. `Int64`.
    Count,
    /// Exact sum, rounded once. `Int64` for integers (null beyond its range), else `Float64`.
    Sum,
    /// Exact mean, rounded once. `Float64`.
    Mean,
    /// Smallest. The input's type.
    Min,
    /// Largest. The input's type.
    Max,
    /// Population variance. `Float64`.
    Variance,
    /// Population standard deviation. `Float64`.
    Stddev,
    /// Sample variance, null below two rows. `Float64`.
    VarianceSample,
    /// Sample standard deviation, null below two rows. `Float64`.
    StddevSample,
    /// The latest row's value (null included). The input's type.
    Last,
}

/// A set of features read as of each event of its spine.
#[derive(Clone, Debug)]
pub struct SetPlan {
    /// Name of the set.
    pub name: String,
    /// The spine: a source, by index.
    pub spine: usize,
    /// The views that the columns are of.
    pub views: Vec<usize>,
    /// The set's columns, in the order of `take`.
    pub columns: Vec<SetColumn>,
}

/// One column of a feature set.
#[derive(Clone, Debug, PartialEq)]
pub struct SetColumn {
    /// Name in tables: `amount`, `customer__nb_tx_7d`.
    pub name: String,
    /// Engine column name: `amount`, `customer.nb_tx_7d`.
    pub engine: String,
    /// Type.
    pub data_type: DataType,
}

/// A model that scores a feature set.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    /// Name of the model.
    pub name: String,
    /// Name of the version that scores: `champion`, or its number where it is registered.
    pub version: String,
    /// The ONNX file.
    pub path: PathBuf,
    /// The registered version that it is, if it is one.
    pub registered: Option<RegisteredPlan>,
    /// The feature set, by index.
    pub inputs: usize,
    /// Output columns.
    pub outputs: Vec<ModelOutput>,
}

/// The registered version that scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredPlan {
    /// What the job's file names.
    pub reference: ModelRef,
    /// Number of the version that it was when it was looked up.
    pub number: u32,
    /// SHA-256 (hex) of the ONNX file.
    pub hash: String,
}

/// One output column of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOutput {
    /// Column name: `score`.
    pub name: String,
    /// Name of the ONNX output: `probability`.
    pub tensor: String,
    /// Element along the last axis; `None` for outputs of one value per row.
    pub element: Option<usize>,
}

/// Labels of a model's predictions.
#[derive(Clone, Debug)]
pub struct LabelPlan {
    /// The model, by index.
    pub model: usize,
    /// The label source, by index.
    pub from: usize,
    /// Column of the label source's `stream_schema` that holds the prediction's id.
    pub id: usize,
    /// Column of the label source's `stream_schema` that holds the label.
    pub value: usize,
    /// A label later than this is not joined.
    pub within: Micros,
}

/// The online store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnlinePlan {
    /// Which store.
    pub store: OnlinePlace,
    /// An online value is rewritten at most this long, on the job's clock, after it would change.
    pub refresh: Micros,
}

/// Where online values are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnlinePlace {
    /// In a directory, in the job's own process.
    Embedded(PathBuf),
    /// In Redis.
    Redis(RedisPlan),
}

impl OnlinePlace {
    /// The directory of an embedded store.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            OnlinePlace::Embedded(path) => Some(path),
            OnlinePlace::Redis(_) => None,
        }
    }
}

/// A Redis server and the keys that are the job's on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPlan {
    /// The URL, see [`RedisAddress`](crate::plan::RedisAddress).
    pub url: SecretText,
    /// The URL as it may be shown.
    pub shown: String,
    /// Begins every key; the key that describes the job is this alone.
    pub prefix: String,
    /// How values lie.
    pub layout: RedisLayout,
    /// The authorities that are trusted instead of the system's, for `rediss`.
    pub ca: Option<PathBuf>,
}

/// How values lie in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisLayout {
    /// One packed value per entity and view.
    Native,
    /// Feast's: one hash per entity.
    Feast {
        /// Feast's project.
        project: String,
    },
}

/// The offline store: Delta tables under one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflinePlan {
    /// Directory (an absolute path without scheme for local directories).
    pub uri: String,
    /// Tables to write, such as `predictions/fraud` or `features/customer`; `None` writes all.
    pub tables: Option<Vec<String>>,
    /// Upkeep of the tables while the job runs, if it is wanted.
    pub maintain: Option<MaintainPlan>,
}

/// Upkeep of tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintainPlan {
    /// How often, on the wall clock.
    pub every: Micros,
    /// Files of one date smaller than this many bytes are merged.
    pub compact_below: u64,
    /// Files that were replaced or abandoned are deleted after this long.
    pub vacuum_after: Micros,
}

impl Default for MaintainPlan {
    fn default() -> Self {
        MaintainPlan { every: 3_600_000_000, compact_below: 32 << 20, vacuum_after: 7 * 86_400_000_000 }
    }
}

/// When epochs close, and what is kept of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointPlan {
    /// An epoch closes at the first tick after this long on the wall clock.
    pub interval: Micros,
    /// ... or after this many rows of input, if the file says so.
    pub rows: Option<u64>,
    /// Epochs whose state is kept.
    pub keep: usize,
    /// The tick log is kept so long.
    pub keep_ticks: Micros,
    /// Where snapshots are kept, if not in the state directory.
    pub uri: Option<String>,
}

impl CheckpointPlan {
    /// Directory or address of the snapshots of a job with this state directory.
    pub fn place(&self, state_dir: &Path) -> String {
        self.uri.clone().unwrap_or_else(|| state_dir.display().to_string())
    }
}

/// A topic that rows are published to.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicPlan {
    /// What is published.
    pub rows: TopicRows,
    /// Brokers, as librdkafka reads them.
    pub brokers: String,
    /// Name of the topic.
    pub topic: String,
    /// How rows are encoded.
    pub format: TopicFormat,
    /// Where the schema of Avro messages is registered, if anywhere.
    pub registry: Option<RegistryPlan>,
    /// Columns of the message's key, by their names in the rows; none for no key.
    pub key: Vec<String>,
    /// Settings of librdkafka's producer.
    pub properties: Properties,
    /// What is promised; `None` when the file does not say: exactly once where the job has a state directory, else at least
    /// once.
    pub delivery: Option<Delivery>,
    /// Exactly once: over how many transactions rows are spread.
    pub slots: u16,
    /// Exactly once: the topic that says how far they have come.
    pub ledger: String,
}

/// What is promised of rows in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Each is there once, with the checkpoint that covers it.
    ExactlyOnce,
    /// Each is there, as soon as its tick is durable, after a failure perhaps twice.
    AtLeastOnce,
}

/// Rows that a topic takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRows {
    /// Those of a table, such as `predictions/fraud`, whether or not the table is written.
    Table(String),
    /// All dead letters.
    DeadLetters,
    /// The statistics of a monitor, by its name.
    Statistics(String),
    /// The alerts for a receiver, by its name.
    Alerts(String),
}

impl TopicRows {
    /// What they are, in words.
    pub fn name(&self) -> &str {
        match self {
            TopicRows::Table(table) => table,
            TopicRows::DeadLetters => "dead letters",
            TopicRows::Statistics(_) => "statistics",
            TopicRows::Alerts(_) => "alerts",
        }
    }

    /// Where the file asks for them.
    pub fn path(&self) -> String {
        match self {
            TopicRows::DeadLetters => "sinks.dead_letters".to_owned(),
            TopicRows::Statistics(monitor) => format!("monitors.{monitor}.to"),
            TopicRows::Alerts(receiver) => format!("notify.{receiver}"),
            TopicRows::Table(table) => match table.split_once('/') {
                Some(("predictions", model)) => format!("models.{model}.to"),
                Some((section, name)) => format!("{section}.{name}.to"),
                None => table.clone(),
            },
        }
    }
}

/// Encodings of rows in topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicFormat {
    /// One JSON object.
    Json,
    /// One Avro datum.
    Avro,
    /// The bytes as they came.
    Original,
}
