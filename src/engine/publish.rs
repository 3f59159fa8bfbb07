//! Publishes committed epochs: what the sinks staged becomes visible, once.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EngineError;
use super::graph::Resources;
use super::outbox;
use super::shared::{Failure, Shared, StopHandle};
use super::status::NodeKind;
use super::status::flow::Flow;
use super::status::history::History;
use super::topic_sink::GRACE;
use crate::base::{Epoch, Tick};
use crate::ingest::ticks::{self, Durable};
use crate::state::{Committed, Hooks, Report, StateError};
use crate::store::offline::{Part, TableCommitter, discard_outboxes_before};
use crate::store::topic::outbox::OutboxPart;
use crate::telemetry::Histogram;

/// Name of the offline sink in manifests.
pub const OFFLINE: &str = "offline";
/// Name in manifests of the topics that are written exactly once.
pub const TOPICS: &str = "topics";
/// Topics written at least once: an epoch is complete when the brokers have all its messages.
pub const SENT: &str = "sent";
/// Name of the online sink in manifests.
pub const ONLINE: &str = "online";

/// Parts of tables that one worker staged in an epoch.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StagedTables {
    /// Parts by table.
    pub tables: BTreeMap<String, Vec<Part>>,
}

/// Where a job publishes.
pub struct Publication {
    /// The first failure of the job.
    pub failure: Arc<Failure>,
    /// The tick log, where the job has a state directory.
    pub tick_log: Option<Durable>,
    /// Directory of the tick log.
    pub state_dir: Option<PathBuf>,
    /// The tick log is kept so long.
    pub keep_ticks: Duration,
    /// Names the job's life.
    pub application: String,
    /// The switch that stops the job.
    pub stop: StopHandle,
    /// Directory of the offline tables.
    pub root: Option<PathBuf>,
    /// Tables and topics.
    pub resources: Arc<Resources>,
    /// How long epochs take from their last cut until they are published.
    pub epoch_seconds: Arc<Histogram>,
    /// Checkpoints, for those who watch.
    pub history: Arc<History>,
    /// The dataflow, whose sinks count what this process has published; set when it has caught up.
    pub flow: OnceLock<Arc<Flow>>,
    /// Committers of tables that have had rows.
    pub committers: Mutex<BTreeMap<String, TableCommitter>>,
}

impl Publication {
    /// Publishes what kept epochs staged and what their sinks lack, after an earlier process ended; then clears what it left
    /// in the outboxes, which are those of generations before `generation`.
    ///
    /// # Errors
    /// When something cannot be published.
    pub fn catch_up(&self, staged: &[Staged], instance: &str, generation: u64) -> Result<(), EngineError> {
        if let Some(outboxes) = &self.resources.outboxes {
            outboxes.open(&self.giving_up())?;
        }
        for (epoch, outboxes) in staged {
            if !self.publish(*epoch, outboxes) {
                let unknown = || EngineError::defect("publication failed without a word");
                return Err(self.failure.take().unwrap_or_else(unknown));
            }
        }
        // What is left was staged by processes whose epochs did not come about.
        if let Some(outboxes) = &self.resources.outboxes {
            outboxes.clear()?;
        }
        if let Some(root) = &self.root {
            discard_outboxes_before(root, instance, generation)?;
        }
        Ok(())
    }

    fn tables(&self, epoch: Epoch, staged: &[Value]) -> Result<(), EngineError> {
        let mut by_table: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        for value in staged {
            let staged = serde_json::from_value::<StagedTables>(value.clone());
            let staged = staged.map_err(|e| EngineError::defect(format!("epoch {epoch} staged no tables: {e}")))?;
            for (table, parts) in staged.tables {
                by_table.entry(table).or_default().extend(parts);
            }
        }
        let Some(root) = &self.root else {
            if let Some(table) = by_table.keys().next() {
                tracing::warn!(epoch, table, "rows were staged for tables, and the job has no offline sink any more");
            }
            return Ok(());
        };
        let mut committers = self.committers.lock().unwrap_or_else(PoisonError::into_inner);
        // A table is made with the first epoch, whether or not it has rows for it.
        for spec in self.resources.specs().filter(|spec| !committers.contains_key(spec.name())).collect::<Vec<_>>() {
            let application = format!("{}/{}", self.application, spec.name());
            committers.insert(spec.name().to_owned(), TableCommitter::open(root, spec, application)?);
        }
        for (table, mut parts) in by_table {
            let Some(committer) = committers.get_mut(&table) else {
                // A file leaves its outbox when its epoch is in the table.
                let waits = |part: &Part| part.staged.as_ref().is_some_and(|staged| root.join(staged).exists());
                if !parts.iter().any(waits) {
                    continue;
                }
                let what = format!(
                    "epoch {epoch} staged rows of table `{table}`, which the job has no more; run the job once as it was, then change it"
                );
                return Err(EngineError::Plan(what));
            };
            parts.sort_by(|a, b| a.path.cmp(&b.path));
            committer.commit(epoch, &parts)?;
            if let Some(sink) = self.flow.get().and_then(|flow| flow.find(NodeKind::Sink, &table_sink(&table))) {
                sink.sent(parts.iter().map(|part| part.rows as usize).sum());
            }
        }
        Ok(())
    }

    /// Whether to wait for the brokers no longer: the job has failed, or was asked to stop a while ago. What is committed is
    /// published by the next start.
    fn giving_up(&self) -> impl Fn() -> bool {
        let asked: Cell<Option<Instant>> = Cell::new(None);
        move || {
            if self.stop.is_stopped() && asked.get().is_none() {
                asked.set(Some(Instant::now()));
            }
            self.failure.failed() || asked.get().is_some_and(|since| since.elapsed() > GRACE)
        }
    }

    fn topics(&self, epoch: Epoch, staged: &[Value]) -> Result<(), EngineError> {
        let mut parts: Vec<OutboxPart> = Vec::new();
        for value in staged {
            let staged = serde_json::from_value::<Vec<OutboxPart>>(value.clone());
            parts.extend(staged.map_err(|e| EngineError::defect(format!("epoch {epoch} staged no messages: {e}")))?);
        }
        // A file leaves the outbox when its epoch is published. One that a topic of the job takes is missed there, if it is gone
        // without that; one that none takes any more can only be missed while it is there.
        let taken = |part: &OutboxPart| self.resources.outboxes.as_ref().is_some_and(|outboxes| outboxes.takes(part));
        let waits = |part: &OutboxPart| {
            self.state_dir.as_ref().is_some_and(|dir| dir.join(outbox::FOLDER).join(&part.path).exists())
        };
        parts.retain(|part| taken(part) || waits(part));
        if parts.is_empty() {
            return Ok(());
        }
        let Some(outboxes) = &self.resources.outboxes else {
            let what = format!(
                "messages of epoch {epoch} wait to be published, and the job has no topics that are written exactly once any more; run it once as it was before"
            );
            return Err(EngineError::Plan(what));
        };
        outboxes.publish(epoch, &parts, &self.giving_up())?;
        outboxes.discard(&parts);
        Ok(())
    }
}

/// Name of a table's node in the dataflow.
pub fn table_sink(table: &str) -> String {
    format!("table/{table}")
}

/// What an epoch staged, by sink.
pub type Staged = (Epoch, BTreeMap<String, Vec<Value>>);

/// Reports what workers stage of topics, as soon as there is a job to report to.
pub fn stage_topics(job: Arc<OnceLock<Weak<Shared>>>) -> Arc<dyn Fn(outbox::Staged) + Send + Sync> {
    Arc::new(move |staged: outbox::Staged| {
        let Some(shared) = job.get().and_then(Weak::upgrade) else { return };
        let value = (!staged.parts.is_empty()).then(|| serde_json::to_value(&staged.parts)).transpose();
        match value {
            Ok(value) => {
                shared.checkpoints.report(Report::Staged { epoch: staged.epoch, sink: TOPICS.to_owned(), value });
            }
            Err(error) => shared.fail(EngineError::defect(error.to_string())),
        }
    })
}

impl Hooks for Publication {
    fn wait_durable(&self, tick: Tick) -> bool {
        if self.failure.failed() {
            return false;
        }
        let Some(durable) = &self.tick_log else { return true };
        durable.wait(tick).map_err(|error| self.failure.fail(error.into())).is_ok()
    }

    fn publish(&self, epoch: Epoch, outboxes: &BTreeMap<String, Vec<Value>>) -> bool {
        let published = self.tables(epoch, outboxes.get(OFFLINE).map(Vec::as_slice).unwrap_or_default());
        let published =
            published.and_then(|()| outboxes.get(TOPICS).map_or(Ok(()), |staged| self.topics(epoch, staged)));
        published.map_err(|error| self.failure.fail(error)).is_ok()
    }

    fn forget_before(&self, tick: Tick) {
        let Some(dir) = &self.state_dir else { return };
        let Some(idle_since) = SystemTime::now().checked_sub(self.keep_ticks) else { return };
        // What cannot be removed now is removed with another epoch.
        if let Err(error) = ticks::remove_before(dir, tick, idle_since) {
            tracing::warn!(%error, "old ticks are not removed");
        }
    }

    fn committed(&self, committed: &Committed) {
        self.history.committed(committed);
    }

    fn published(&self, epoch: Epoch, took: Duration) {
        self.epoch_seconds.record(took);
        self.history.published(epoch, took);
    }

    fn failed(&self, error: StateError) {
        self.failure.fail(error.into());
    }
}
