//! Checkpoints, the newest hundred: those of this process as they come, those before as far as their manifests are kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::CheckpointStatus;
use crate::base::{Epoch, format_time};
use crate::state::Committed;
use crate::state::manifest::{self, Seen};

/// Checkpoints that are remembered.
const CHECKPOINTS_MAX: usize = 100;

/// What is remembered.
#[derive(Default)]
pub struct History(Mutex<VecDeque<CheckpointStatus>>);

impl History {
    /// Takes in the log as a start has found it, when all of it is published.
    pub fn found(&self, entries: &BTreeMap<u64, Seen>) {
        let mut list = self.lock();
        list.extend(manifest::epochs(entries).map(|(epoch, manifest)| {
            let own = manifest.parts.iter().filter(|part| part.epoch == epoch);
            CheckpointStatus {
                epoch,
                generation: manifest.generation,
                tick: manifest.tick,
                at: format_time(manifest.committed_ms.saturating_mul(1_000)),
                took_ms: None,
                bytes: own.clone().map(|part| part.bytes).sum(),
                bytes_total: manifest.parts.iter().map(|part| part.bytes).sum(),
                whole: manifest.parts.iter().all(|part| part.whole),
                published: true,
            }
        }));
        while list.len() > CHECKPOINTS_MAX {
            list.pop_front();
        }
    }

    /// An epoch is committed.
    pub fn committed(&self, committed: &Committed) {
        let mut list = self.lock();
        if list.len() == CHECKPOINTS_MAX {
            list.pop_front();
        }
        list.push_back(CheckpointStatus {
            epoch: committed.size.epoch,
            generation: committed.generation,
            tick: committed.size.tick,
            at: format_time(committed.at_ms.saturating_mul(1_000)),
            took_ms: None,
            bytes: committed.size.bytes,
            bytes_total: committed.bytes_total,
            whole: committed.size.whole,
            published: false,
        });
    }

    /// An epoch is published, so long after its last tick was cut.
    pub fn published(&self, epoch: Epoch, took: Duration) {
        let mut list = self.lock();
        if let Some(one) = list.iter_mut().rev().find(|one| one.epoch == epoch) {
            one.took_ms = Some(took.as_secs_f64() * 1e3);
            one.published = true;
        }
    }

    /// The newest first.
    pub fn newest(&self) -> Vec<CheckpointStatus> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<CheckpointStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
