//! Whether a server holds all values of a job: what the next start can rely on, and what it must write again.
//!
//! The job's hash names, in `whole`, the life of the server (its run id) in which all values lie. A start that finds another
//! there, or none, writes all values of its state again: the server restarted or was emptied while no process of the job
//! looked, or one did look and ended before it had made up for the loss. `whole` is written when every stage has sent all
//! values since the last loss, and the epoch in which it did is committed, so that no state that is older lacks them.

use std::sync::{Mutex, PoisonError};

use crate::base::Epoch;

/// How far the stages of a job have made up for losses.
#[derive(Debug, Default)]
pub struct Whole {
    incomplete: bool,
    /// By stage: the losses that it has made up for, and the epoch with which all was sent.
    stages: Mutex<Vec<Option<(u64, Epoch)>>>,
}

impl Whole {
    pub(super) fn new(incomplete: bool) -> Whole {
        Whole { incomplete, stages: Mutex::default() }
    }

    /// Whether values may have been missing when the job started.
    pub fn incomplete(&self) -> bool {
        self.incomplete
    }

    /// A stage that is going to send values; returns its number.
    pub fn register(&self) -> usize {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.push((!self.incomplete).then_some((0, 0)));
        stages.len() - 1
    }

    /// Notes that a stage has sent all its values since the last of `losses` losses, in `epoch`.
    pub fn made_good(&self, stage: usize, losses: u64, epoch: Epoch) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = stages.get_mut(stage) {
            *stage = Some((losses, epoch));
        }
    }

    /// Whether every stage had sent all with `epoch`, after so many losses.
    pub(super) fn is_whole(&self, losses: u64, epoch: Epoch) -> bool {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.iter().all(|stage| stage.is_some_and(|(made, with)| made >= losses && with <= epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stages_have_to_make_up_for_all_losses() {
        let whole = Whole::new(false);
        let stages = [whole.register(), whole.register()];
        assert!(whole.is_whole(0, 1) && !whole.is_whole(1, 1));
        whole.made_good(stages[0], 1, 5);
        assert!(!whole.is_whole(1, 9));
        whole.made_good(stages[1], 1, 7);
        assert!(!whole.is_whole(1, 6) && whole.is_whole(1, 7) && !whole.is_whole(2, 9));
        let whole = Whole::new(true);
        let stage = whole.register();
        assert!(whole.incomplete() && !whole.is_whole(0, 9));
        whole.made_good(stage, 0, 3);
        assert!(whole.is_whole(0, 3));
    }
}
