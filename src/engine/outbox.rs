//! Where rows of topics wait for their epoch: the outboxes of a job, who hears that they are staged, and who publishes them.
//!
//! Topics that differ in name alone share a publisher, as they share a producer when they are written at least once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::EngineError;
use crate::base::Epoch;
use crate::plan::model::{Delivery, Plan, TopicPlan};
use crate::store::StoreError;
use crate::store::topic::outbox::{OutboxPart, OutboxWriter};
use crate::store::topic::transactions::{MESSAGES_MAX, Rightful, TransactionOptions, TransactionalPublisher};

/// Folder of the outbox files in the state directory.
pub const FOLDER: &str = "outbox";

/// How epochs are staged.
#[derive(Clone)]
pub struct Staging {
    /// Directory of the outbox files.
    pub directory: PathBuf,
    /// Names the job and its state in transactions and ledgers: the same over restarts, and no other job's.
    pub application: String,
    /// Grows with each start of the job.
    pub generation: u64,
    /// Whether this start still has the job's state.
    pub rightful: Option<Rightful>,
    /// Hears, on a publishing thread, that a worker has staged an epoch.
    pub stage: Arc<dyn Fn(Staged) + Send + Sync>,
}

/// One worker's messages of one epoch, on disk. Each worker reports each epoch once, in order, also when it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The worker.
    pub worker: usize,
    /// The epoch.
    pub epoch: Epoch,
    /// The files, at most one for each publisher.
    pub parts: Vec<OutboxPart>,
}

/// Topics that one publisher publishes.
pub struct OutboxGroup {
    options: TransactionOptions,
    publisher: OnceLock<TransactionalPublisher>,
}

impl OutboxGroup {
    /// The publisher, once [`Outboxes::open`] has opened it.
    pub fn publisher(&self) -> Option<&TransactionalPublisher> {
        self.publisher.get()
    }

    /// Messages of the topic of this number that are published.
    pub fn delivered(&self, topic: u16) -> u64 {
        let deliveries = self.publisher().map(TransactionalPublisher::deliveries).unwrap_or_default();
        deliveries.get(usize::from(topic)).map_or(0, |delivery| delivery.delivered)
    }
}

/// A topic's group and its number there.
type Place = (usize, u16);

/// The outboxes of a job.
pub struct Outboxes {
    staging: Staging,
    groups: Vec<Arc<OutboxGroup>>,
}

impl Outboxes {
    /// Whether rows of a topic go through an outbox.
    ///
    /// # Errors
    /// When the topic asks for what a job without a state directory cannot give.
    pub(super) fn wanted(topic: &TopicPlan, staging: Option<&Staging>) -> Result<bool, EngineError> {
        match (topic.delivery, staging) {
            (Some(Delivery::ExactlyOnce), None) => Err(EngineError::Plan(format!(
                "{}.delivery: `exactly_once` needs a state directory; run the job with --state DIR, or write `at_least_once`",
                topic.rows.path()
            ))),
            (Some(Delivery::AtLeastOnce), _) | (None, None) => Ok(false),
            (Some(Delivery::ExactlyOnce) | None, Some(_)) => Ok(true),
        }
    }

    /// The outboxes of those topics of a plan that go through one, and for each its group and number there. `None` when
    /// there are none.
    pub(super) fn of(
        plan: &Plan,
        wanted: &[bool],
        staging: Option<&Staging>,
    ) -> Result<(Option<Outboxes>, Vec<Option<Place>>), EngineError> {
        let mut groups: Vec<TransactionOptions> = Vec::new();
        let mut places = vec![None; plan.topics.len()];
        let Some(staging) = staging else { return Ok((None, places)) };
        for ((topic, place), _) in plan.topics.iter().zip(&mut places).zip(wanted).filter(|(_, wanted)| **wanted) {
            let alike = |group: &TransactionOptions| {
                group.brokers == topic.brokers
                    && group.properties == topic.properties.0
                    && group.slots == topic.slots
                    && group.ledger == topic.ledger
            };
            let at = groups.iter().position(alike).unwrap_or_else(|| {
                // By number: names and settings of topics may change while an epoch waits to be published.
                let application = match groups.len() {
                    0 => staging.application.clone(),
                    n => format!("{}/{n}", staging.application),
                };
                groups.push(TransactionOptions {
                    brokers: topic.brokers.clone(),
                    properties: topic.properties.0.clone(),
                    topics: Vec::new(),
                    application,
                    slots: topic.slots,
                    ledger: topic.ledger.clone(),
                    generation: staging.generation,
                    rightful: staging.rightful.clone(),
                    messages_max: MESSAGES_MAX,
                });
                groups.len() - 1
            });
            // A topic that takes two kinds of rows is counted for each.
            groups[at].topics.push(topic.topic.clone());
            *place = Some((at, (groups[at].topics.len() - 1) as u16));
        }
        if groups.is_empty() {
            return Ok((None, places));
        }
        let group = |options| Arc::new(OutboxGroup { options, publisher: OnceLock::new() });
        let groups = groups.into_iter().map(group).collect();
        Ok((Some(Outboxes { staging: staging.clone(), groups }), places))
    }

    /// Whether topics of the job take a part.
    pub fn takes(&self, part: &OutboxPart) -> bool {
        let ours = self.groups.iter().find(|group| group.options.application == part.application);
        ours.is_some_and(|group| part.topics.iter().all(|topic| group.options.topics.contains(topic)))
    }

    /// The publishers' topics.
    pub fn groups(&self) -> &[Arc<OutboxGroup>] {
        &self.groups
    }

    /// Opens the publishers: fences whoever published before and reads the ledgers. Before anything is published.
    ///
    /// # Errors
    /// As [`TransactionalPublisher::open`].
    pub fn open(&self, give_up: &dyn Fn() -> bool) -> Result<(), StoreError> {
        for group in self.groups.iter().filter(|group| group.publisher.get().is_none()) {
            let publisher = TransactionalPublisher::open(group.options.clone(), give_up)?;
            // Whoever else has opened it meanwhile was fenced by this one, and says so.
            let _ = group.publisher.set(publisher);
        }
        Ok(())
    }

    /// Publishes what the ledgers lack of an epoch whose manifest names these parts, in the manifest's order. Epochs come in
    /// order. Blocks; see [`TransactionalPublisher::publish`].
    ///
    /// # Errors
    /// As [`TransactionalPublisher::publish`], and when no topic of the job takes a part.
    pub fn publish(&self, epoch: Epoch, parts: &[OutboxPart], give_up: &dyn Fn() -> bool) -> Result<(), StoreError> {
        if let Some(part) =
            parts.iter().find(|part| !self.groups.iter().any(|g| g.options.application == part.application))
        {
            return Err(StoreError::Request(format!(
                "messages of epoch {epoch} for {} wait to be published ({}), and the job has no such topics any more; run it once as it was before",
                part.topics.join(", "),
                part.path.display()
            )));
        }
        let parts: Vec<(PathBuf, OutboxPart)> =
            parts.iter().map(|part| (self.staging.directory.clone(), part.clone())).collect();
        for group in &self.groups {
            match group.publisher() {
                Some(publisher) => publisher.publish(epoch, &parts, give_up)?,
                None => return Err(StoreError::Request("the publishers of topics are not open".to_owned())),
            };
        }
        Ok(())
    }

    /// Removes files of published epochs. Best effort: what stays is removed after the next start.
    pub fn discard(&self, parts: &[OutboxPart]) {
        for part in parts {
            let path = self.staging.directory.join(&part.path);
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a published outbox is not removed");
            }
        }
    }

    /// Removes the files of all starts before this one, when everything that was committed is published. What a later start
    /// stages stays: this one may have been stopped and be too late.
    ///
    /// # Errors
    /// When the directory cannot be read or a file not be removed.
    pub fn clear(&self) -> Result<(), StoreError> {
        let directory = &self.staging.directory;
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(StoreError::io("list", directory))?,
        };
        for entry in entries {
            let path = entry.map_err(StoreError::io("list", directory))?.path();
            if generation_of(&path).is_some_and(|generation| generation >= self.staging.generation) {
                continue;
            }
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The writers of one worker, one for each group.
    pub(super) fn writers(&self, worker: usize) -> Result<Vec<OutboxWriter>, StoreError> {
        let Staging { directory, generation, .. } = &self.staging;
        let writer = |(number, group): (usize, &Arc<OutboxGroup>)| {
            let TransactionOptions { application, topics, slots, .. } = &group.options;
            let name = format!("g{generation}-w{worker}-{number}");
            OutboxWriter::create(directory, application, &name, topics.clone(), *slots)
        };
        self.groups.iter().enumerate().map(writer).collect()
    }

    /// Reports an epoch.
    pub(super) fn staged(&self, staged: Staged) {
        (self.staging.stage)(staged);
    }
}

/// The start that wrote a file, by its name: its writer's (see [`Outboxes::writers`]) behind a dot, or behind an epoch once it is
/// finished.
fn generation_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let writer = name.strip_prefix('.').or_else(|| Some(name.split_once('-')?.1))?;
    writer.strip_prefix('g')?.split_once("-w")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_start_stages_is_not_cleared_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let outboxes = |generation: u64| {
            let application = "job".to_owned();
            let options = TransactionOptions {
                brokers: String::new(),
                properties: Vec::new(),
                topics: vec!["t".to_owned()],
                application: application.clone(),
                slots: 1,
                ledger: "ledger".to_owned(),
                generation,
                rightful: None,
                messages_max: 1,
            };
            let groups = vec![Arc::new(OutboxGroup { options, publisher: OnceLock::new() })];
            let stage: Arc<dyn Fn(Staged) + Send + Sync> = Arc::new(|_| {});
            let staging = Staging { directory: dir.path().to_owned(), application, generation, rightful: None, stage };
            Outboxes { staging, groups }
        };
        for generation in [2, 3, 5] {
            let mut writer = outboxes(generation).writers(0).expect("a writer").remove(0);
            writer.append(0, 0, None, b"row", &[]).expect("it is taken in");
            writer.finish(7).expect("it is written").expect("it has a message");
            let unfinished = dir.path().join(format!(".g{generation}-w0-0.unfinished"));
            std::fs::write(unfinished, b"half").expect("it is written");
        }
        outboxes(3).clear().expect("it is cleared");
        let entries = std::fs::read_dir(dir.path()).expect("it is listed");
        let mut left: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        left.sort();
        let epoch = format!("{:020}", 7);
        let stays = [3, 5].map(|generation| format!("{epoch}-g{generation}-w0-0.outbox"));
        assert_eq!(left, [".g3-w0-0.unfinished", ".g5-w0-0.unfinished", &stays[0], &stays[1]]);
    }
}
