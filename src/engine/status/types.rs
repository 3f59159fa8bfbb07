//! What a running job tells of itself, as it is written in JSON.
//!
//! Times on the wall clock and of events are RFC 3339, in UTC. Counts are since the process started; rates are rows per
//! second over the last ten seconds, or over the time since the start where that is shorter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::{Epoch, Tick};

/// A running job, as `GET /v1/status` of its control socket tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobStatus {
    /// Name of the job.
    pub job: String,
    /// Version of its dataflow file.
    pub version: u32,
    /// Hash of the compiled plan's stateful operators and what they mean: two files with one fingerprint go on from each other's state.
    pub fingerprint: String,
    /// Number of the claim under which this process has the state; 0 without a state directory.
    pub generation: u64,
    /// When the process began to run the job.
    pub started: String,
    /// Worker threads.
    pub workers: usize,
    /// What it is doing.
    pub state: JobState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it was asked to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<StopMode>,
    /// Whether the input has ended: a job that stays goes on answering readers.
    pub input_ended: bool,
    /// The job's clock in event time; absent before the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// How far the clock is behind the wall clock, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_lag_ms: Option<i64>,
    /// The newest tick; 0 before the first.
    pub tick: Tick,
    /// Ticks cut by this process.
    pub ticks: u64,
    /// Ticks that are not through the graph and in the hands of the sinks.
    pub ticks_in_flight: u64,
    /// The reader waits when so many are.
    pub ticks_in_flight_max: u64,
    /// Part of the last ten seconds in which the reader waited for the graph.
    pub backpressure: f64,
    /// Rows read from all sources.
    pub rows_read: u64,
    /// Rows scored by all models.
    pub rows_scored: u64,
    /// Rows turned away, at the sources and in the graph.
    pub dead_letters: u64,
    /// Entity keys held by all views.
    pub keys: u64,
    /// Bytes of the views' state.
    pub state_bytes: u64,
    /// The sources, in the file's order.
    pub sources: Vec<SourceStatus>,
    /// The dataflow.
    pub graph: GraphStatus,
    /// The newest checkpoints, the newest first, at most 100; those of earlier starts too, as far as their manifests are kept.
    pub checkpoints: Vec<CheckpointStatus>,
    /// Epochs that were cut and are not published.
    pub epochs_outstanding: u64,
    /// The models, in the file's order.
    pub models: Vec<ModelStatus>,
    /// Alerts that are firing.
    pub alerts: Vec<AlertStatus>,
    /// Topics that are written.
    pub topics: Vec<TopicStatus>,
}

/// What a job's process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It opens stores and restores state, or builds its graph.
    Starting,
    /// It takes rows in, or has read all and answers readers.
    Running,
    /// It was asked to end, and finishes.
    Stopping,
    /// It has failed, and ends.
    Failed,
}

/// How a job is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Finish what was read, save a last checkpoint, end. The job goes on from there when it is started again.
    Checkpoint,
    /// Let the clock go to its end first: rows that wait in order leave, open windows are told. As with input that has ended,
    /// the job cannot read on from there.
    Drain,
    /// End without a checkpoint. What was read since the last one is read again by the next start.
    Now,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// `file`, `kafka` or `generator`.
    pub kind: String,
    /// Raw rows read, in this start and in those whose state it went on from.
    pub read: u64,
    /// Rows that passed all checks.
    pub accepted: u64,
    /// Rows that `where` took out.
    pub filtered: u64,
    /// Late rows that were dropped.
    pub late: u64,
    /// Rows that became dead letters at the source.
    pub dead: u64,
    /// Rows read per second.
    pub rate: f64,
    /// Whether the brokers answer, as far as is known; absent for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Its partitions; for files one, which counts rows.
    pub partitions: Vec<PartitionStatus>,
}

/// A partition of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: u32,
    /// The first offset that no tick holds.
    pub next_offset: u64,
    /// Offsets that are on the brokers, as of the last fetch, and in no tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Its watermark, in event time; absent before its first row, and at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// Whether it is silent and holds no watermark back.
    pub idle: bool,
    /// Whether it is ahead of the others in event time, and waits for them.
    pub paused: bool,
    /// Whether it was read to its end.
    pub ended: bool,
}

/// The dataflow as a graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GraphStatus {
    /// What computes.
    pub nodes: Vec<NodeStatus>,
    /// What flows.
    pub edges: Vec<EdgeStatus>,
}

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// Names it among the others: `view:customer`.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// Its name in the file; of a sink the table's or topic's.
    pub name: String,
    /// Rows that have come in.
    pub rows_in: u64,
    /// Rows that have gone out; for a sink, those that it has written.
    pub rows_out: u64,
    /// Rows in, per second.
    pub rate_in: f64,
    /// Rows out, per second.
    pub rate_out: f64,
    /// Rows that wait in front of it: on their way between workers, for their tick to be complete, or for the watermark.
    pub queued: u64,
    /// Part of the last ten seconds in which it worked, of all workers together: 1 when all did nothing else.
    pub busy: f64,
    /// Entity keys that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// Bytes of its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
}

/// What a node of the graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Reads rows.
    Source,
    /// Joins two streams.
    Join,
    /// Keeps features by entity.
    View,
    /// Puts the columns of a feature set together.
    Set,
    /// Scores.
    Model,
    /// Watches a model.
    Monitor,
    /// Writes rows.
    Sink,
}

/// An edge of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeStatus {
    /// Id of the node that rows leave.
    pub from: String,
    /// Id of the node that they come to.
    pub to: String,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointStatus {
    /// Its epoch.
    pub epoch: Epoch,
    /// The claim of the process that wrote it.
    pub generation: u64,
    /// The epoch's last tick.
    pub tick: Tick,
    /// When it was committed.
    pub at: String,
    /// From the cut of its last tick until it was published, in milliseconds; absent for those of earlier starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// Bytes written for it.
    pub bytes: u64,
    /// Bytes of all that it builds on, its own among them.
    pub bytes_total: u64,
    /// Whether it builds on no epoch before it.
    pub whole: bool,
    /// Whether its rows are visible to readers.
    pub published: bool,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelStatus {
    /// Its name in the file.
    pub name: String,
    /// Rows that it scored.
    pub scored: u64,
    /// Rows that it could not score.
    pub unscored: u64,
    /// The versions that score, the champion first.
    pub routes: Vec<RouteStatus>,
    /// Time from the cut of the tick that read a row until it was scored, over the last ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<LatencyStatus>,
}

/// A version of a model that scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteStatus {
    /// The version, as rows have it.
    pub version: String,
    /// What it is there for.
    pub role: RouteRole,
    /// Its part of the rows, 0 to 1; a shadow has none.
    pub share: f64,
}

/// What a version of a model is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteRole {
    /// The one in force.
    Champion,
    /// Tried on a share of the rows.
    Challenger,
    /// Scores all rows; nobody acts on it.
    Shadow,
}

/// Quantiles of a latency, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyStatus {
    /// Half were faster.
    pub p50: f64,
    /// Nine of ten were faster.
    pub p90: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
}

/// An alert that is firing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertStatus {
    /// Name of the rule.
    pub name: String,
    /// Its severity.
    pub severity: String,
    /// `firing`.
    pub state: String,
    /// When it began, in event time.
    pub since: String,
    /// What it says.
    pub text: String,
}

/// A topic that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopicStatus {
    /// Its name.
    pub topic: String,
    /// What is published there: a table's name or `dead letters`.
    pub rows: String,
    /// Messages that the brokers acknowledged.
    pub delivered: u64,
    /// Whether the brokers answer, as far as is known; absent for topics that are written exactly once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
}

/// A dead letter in memory, as `GET /v1/letters` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LetterStatus {
    /// Name of the source.
    pub source: String,
    /// Partition of the source.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// Why it was turned away, in one word, as in the tables of dead letters.
    pub kind: String,
    /// Why, in words.
    pub reason: String,
    /// When the job noted it.
    pub at: String,
    /// The row's event time, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<String>,
    /// The row as it came, in base64; of one turned away in the graph, as JSON.
    pub bytes_base64: String,
    /// The same as text, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Bytes of the row; more than are kept when it was cut.
    pub bytes: u64,
}

/// Body of `POST /v1/stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// How to end.
    pub mode: StopMode,
}

/// Body of `POST /v1/savepoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavepointRequest {
    /// Names the request: the same trigger twice is one savepoint. 1 to 128 of `a-z A-Z 0-9 . _ -`, not beginning with a dot.
    pub trigger: String,
    /// Where it is written: a directory, or an address such as `s3://bucket/path`.
    pub place: String,
}

/// A savepoint that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SavepointStatus {
    /// Names the request.
    pub trigger: String,
    /// How far it is.
    pub state: SavepointState,
    /// Where it is written.
    pub place: String,
    /// When it was asked for.
    pub asked: String,
    /// The epoch that it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How far a savepoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SavepointState {
    /// On its way.
    Running,
    /// Complete.
    Done,
    /// It will not come; another trigger may try again.
    Failed,
}

/// `control.json` in the state directory: where a job's process can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ControlFile {
    /// Path of the socket.
    pub socket: String,
    /// The process.
    pub pid: u32,
    /// When it started.
    pub started: String,
    /// Number of the claim under which it has the state.
    pub generation: u64,
}
