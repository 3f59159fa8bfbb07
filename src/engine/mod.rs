//! Builds the timely graph from a plan and runs it.
//!
//! Entry points, in the order of a job's life: [`load`] reads and compiles a dataflow file, [`check()`] holds it against the
//! models and tables that it names and describes it, [`run()`] runs it. Inside: `read_ahead` reads and cuts ticks, `source`
//! sends them, `stage` is a feature view as an operator, `finish` scores, `offline_sink`, `online_sink` and `topic_sink`
//! publish.

mod alarm;
mod background;
mod check;
mod checkpoint;
pub mod dataset;
mod error;
mod figures;
mod finish;
mod graph;
mod labels;
mod letters;
mod models;
mod monitor;
pub mod observe;
mod offline_sink;
mod offsets;
mod online_redis;
mod online_sink;
mod operators;
mod ordered;
pub mod outbox;
pub mod prove;
mod publish;
mod read_ahead;
mod recovery;
mod retrain;
pub mod rollout;
mod run;
mod shared;
mod source;
mod stage;
pub mod status;
pub mod tables;
pub mod telemetry;
mod ticked;
mod topic_sink;
mod topics;
pub mod training;
mod upkeep;

pub use check::{JobCatalog, check, load, load_text, load_with_state};
pub use error::EngineError;
pub use figures::{CheckpointSummary, RecoverySummary};
pub use observe::Observer;
pub use operators::Changes;
pub use recovery::{Notice, RestartOptions, Saved, compare, compare_outline, save, saved};
pub use retrain::{Asked, Retrainer};
pub use run::{Alter, LatencySummary, RunOptions, RunSummary, SourceSummary, Tap, TopicSummary, run};
pub use shared::StopHandle;
pub use shared::TurnedAway;
pub use telemetry::Telemetry;
pub use upkeep::upkeep_options;
