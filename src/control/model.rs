//! What the jobs API takes and answers. Times are RFC 3339 in UTC.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::Problem;

/// A job that the server keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// Its name for requests, unique and never used again: the name in its file and a number.
    pub id: String,
    /// The name in its file.
    pub name: String,
    /// Which of its files it runs, from 1.
    pub version: u64,
    /// What is wanted of it.
    pub desired: Desired,
    /// What it does.
    pub state: JobState,
    /// How often it was started again because it had died, since somebody last started it.
    pub restarts: u64,
    /// Why it is not as wanted, or why it last died.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// When it was submitted.
    pub created: String,
    /// When it was last changed, or changed by itself.
    pub updated: String,
    /// Worker threads.
    pub workers: u16,
    /// Its process, while it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Since when that process has been there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started: Option<String>,
    /// What is being done with it, besides being kept as wanted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub doing: Option<Doing>,
    /// How many savepoints of it there are.
    pub savepoints: u64,
}

/// What is wanted of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// It runs, and is started again when it dies.
    Running,
    /// It does not run.
    Stopped,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobState {
    /// Its process has been started, and does not answer yet.
    Starting,
    /// It runs.
    Running,
    /// It was asked to stop.
    Stopping,
    /// It was stopped.
    Stopped,
    /// It came to the end of its input.
    Finished,
    /// It died, and is started again in a while.
    Restarting,
    /// It died again and again, or cannot run; it stays so until it is started or changed.
    Failed,
}

impl JobState {
    /// As the API says it.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Starting => "STARTING",
            JobState::Running => "RUNNING",
            JobState::Stopping => "STOPPING",
            JobState::Stopped => "STOPPED",
            JobState::Finished => "FINISHED",
            JobState::Restarting => "RESTARTING",
            JobState::Failed => "FAILED",
        }
    }

    /// Whether the job has no process and gets none by itself.
    pub fn at_rest(self) -> bool {
        matches!(self, JobState::Stopped | JobState::Finished | JobState::Failed)
    }
}

/// What is being done with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    /// It is stopped, and started again.
    Restart,
    /// It is stopped with a savepoint, and goes on with another file.
    Upgrade,
    /// It is stopped, and deleted with all that the server has of it.
    Delete,
}

/// A job to be submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = example())]
pub struct Submission {
    /// The dataflow file, as text.
    #[schemars(length(min = 1, max = 1_048_576))]
    pub file: String,
    /// What `${NAME}` in the file stands for. A value may refer to a secret, `${env:NAME}` or `${file:PATH}`, which is kept as
    /// that reference.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Values of the file that are replaced: path of keys, value.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Worker threads.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub workers: u16,
    /// A savepoint, or a stopped job's state directory, that the job begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// End at the end of finite sources, and of topics as they are when the job is started.
    #[serde(default)]
    pub until_end: bool,
    /// Drop the state of the savepoint that the job has no use for.
    #[serde(default)]
    pub allow_drop: bool,
}

/// What a job was submitted or upgraded with, besides its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// What `${NAME}` in the file stands for; `***` where it is a secret.
    pub values: BTreeMap<String, String>,
    /// Values of the file that are replaced; `***` where it is a secret.
    pub set: BTreeMap<String, String>,
    /// Worker threads.
    pub workers: u16,
    /// What the job began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether the job ends at the end of its input.
    pub until_end: bool,
    /// Whether state that the job has no use for is dropped.
    pub allow_drop: bool,
}

/// A job's file, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobFile {
    /// Which of the job's files it is, from 1.
    pub version: u64,
    /// Versions that are kept, oldest first.
    pub versions: Vec<u64>,
    /// The file; plain passwords in it are shown as `***`.
    pub file: String,
    /// What came with it.
    pub settings: Settings,
}

/// One finding in a dataflow file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileFault {
    /// `error` or `warning`.
    pub severity: String,
    /// Line, from 1; 0 when the fault has no place in the file.
    pub line: u64,
    /// Column, from 1; 0 when the fault has no place in the file.
    pub column: u64,
    /// Path of keys.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// How to mend it; may be empty.
    pub mend: String,
}

/// A problem with a dataflow file: all its faults at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileProblem {
    /// The problem.
    #[serde(flatten)]
    pub problem: Problem,
    /// The faults; empty when the file is right, and something else is not.
    #[serde(default)]
    pub faults: Vec<FileFault>,
    /// What the job would keep, gain and lose of its state, where that is the problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<StateChanges>,
}

/// What a valid file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// The job's name.
    pub name: String,
    /// The version in its file.
    pub version: u32,
    /// The plan in words, as `tidemill check` prints it.
    pub plan: String,
    /// What the job is made of.
    pub summary: PlanSummary,
    /// Warnings.
    pub warnings: Vec<FileFault>,
}

/// What a job is made of: names, in the order of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanSummary {
    /// Sources.
    pub sources: Vec<String>,
    /// Streams that join others.
    pub streams: Vec<String>,
    /// Feature views.
    pub views: Vec<String>,
    /// Feature sets.
    pub feature_sets: Vec<String>,
    /// Models.
    pub models: Vec<String>,
    /// Topics that the job writes.
    pub topics: Vec<String>,
}

/// How a job is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StopMode {
    /// Finish what was read, save all state, end.
    #[default]
    Checkpoint,
    /// The same after all rows that wait in order and all open windows have come out, as if the input had ended.
    Drain,
    /// End without saving; a start goes on from the newest checkpoint.
    Now,
}

impl StopMode {
    /// As the API says it.
    pub fn name(self) -> &'static str {
        match self {
            StopMode::Checkpoint => "checkpoint",
            StopMode::Drain => "drain",
            StopMode::Now => "now",
        }
    }
}

/// How a job is to be stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// How.
    #[serde(default)]
    pub mode: StopMode,
    /// Copy the state to this directory, or address such as s3://bucket/path, when the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<String>,
}

/// How a job is to be restarted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartRequest {
    /// How it is stopped before.
    #[serde(default)]
    pub mode: StopMode,
}

/// A file to go on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// The dataflow file, as text.
    #[schemars(length(min = 1, max = 1_048_576))]
    pub file: String,
    /// What `${NAME}` in the file stands for; without it as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<BTreeMap<String, String>>,
    /// Values of the file that are replaced; without it as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<BTreeMap<String, String>>,
    /// Worker threads; without it as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<u16>,
    /// Drop state that the file has no use for.
    #[serde(default)]
    pub allow_drop: bool,
}

/// State that a changed file has no use for, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostState {
    /// The operator.
    pub operator: String,
    /// Why its state cannot be taken over.
    pub why: String,
    /// Whether an operator of this name is still there, and its state means something else.
    pub changed: bool,
}

/// What a job keeps, gains and loses of its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateChanges {
    /// Operators whose state goes on.
    pub kept: Vec<String>,
    /// Operators that begin without state.
    pub gained: Vec<String>,
    /// Operators whose state is dropped.
    pub lost: Vec<LostState>,
    /// The same in words.
    pub text: String,
}

/// What an upgrade changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upgrade {
    /// Whether it was only asked what would change.
    pub dry_run: bool,
    /// The version that the file has, or would have.
    pub version: u64,
    /// What becomes of the state; none where the job has saved none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<StateChanges>,
    /// Whether state would be lost, so that `allow_drop` is needed.
    pub needs_allow_drop: bool,
    /// Lines of the plan that go (`-`) and come (`+`).
    pub plan: Vec<String>,
    /// Warnings about the file.
    pub warnings: Vec<FileFault>,
    /// The job.
    pub job: Job,
}

/// A savepoint to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavepointRequest {
    /// A name for the request: the same name twice is one savepoint. Without it one is made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub trigger: Option<String>,
    /// A new directory, or an address such as s3://bucket/path; without it a directory of the job's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// How far a savepoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SavepointState {
    /// It is being written.
    Running,
    /// It is there.
    Done,
    /// It could not be written.
    Failed,
}

/// A savepoint of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Savepoint {
    /// Name of the request.
    pub trigger: String,
    /// How far it is.
    pub state: SavepointState,
    /// Where it is.
    pub place: String,
    /// The epoch that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Why it could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Which of the job's files it was made with.
    pub version: u64,
    /// When it was asked for.
    pub asked: String,
}

/// Something that was done with a job, or that the job did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When.
    pub at: String,
    /// Who: the name of a token, or `server` for what was not asked for.
    pub who: String,
    /// What: `submit`, `start`, `stop`, `restart`, `upgrade`, `savepoint`, `delete`, `died`, `failed`, `adopted`…
    pub what: String,
    /// What came of it.
    pub outcome: String,
    /// The rest, in words; may be empty.
    #[serde(default)]
    pub detail: String,
    /// The version of the job's file.
    pub version: u64,
}

/// The end of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Log {
    /// Lines, oldest first.
    pub lines: Vec<String>,
    /// Where the log goes on: to be given as `after` for what comes next.
    pub next: u64,
}

/// A plan in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanText {
    /// Which of the job's files it is of.
    pub version: u64,
    /// The plan, as `tidemill check` prints it.
    pub plan: String,
    /// What the job is made of.
    pub summary: PlanSummary,
}

fn one() -> u16 {
    1
}

/// A small job, for readers of the document, and for programs that try what it says.
fn example() -> Submission {
    let file = r#"job: example
version: 1
sources:
  tx:
    generator: {stream: transactions, seed: 1, customers: 20, terminals: 40, start: "2026-01-05", rate: "${RATE}"}
    id: tx_id
    event_time: ts
features:
  customer:
    from: tx
    entity: [customer_id]
    aggregates: {nb_tx: {count: "*", over: 1d}}
feature_sets:
  inputs: {on: tx, take: [amount, customer.*]}
"#;
    Submission {
        file: file.to_owned(),
        values: BTreeMap::from([("RATE".to_owned(), "10".to_owned())]),
        set: BTreeMap::new(),
        workers: 1,
        from: None,
        until_end: false,
        allow_drop: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_job() {
        let Submission { file, values, set, workers, from, until_end, allow_drop } = example();
        let settings = Settings { values, set, workers, from, until_end, allow_drop };
        let sound = crate::control::file::check(&file, &settings, std::path::Path::new("")).expect("it is right");
        assert_eq!(sound.plan.job, "example");
    }
}
