//! Commands on their way into ticks.
//!
//! Whoever wants to steer proposes a command under a key; the next tick that is cut takes it into its record, and from there
//! it comes to all workers. A replayed tick brings the commands of its record. A restart makes decisions again whose commands
//! the tick log may hold already: of two commands of one key the recorded one wins, whichever comes first.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Commands that wait for a tick, and the keys of those that ticks have brought.
#[derive(Debug, Default)]
pub struct Steering(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Key and text, in the order in which they were proposed.
    waiting: Vec<(String, String)>,
    brought: HashSet<String>,
}

impl Steering {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next tick that is cut take `command`, unless one with this key waits or was brought by a tick. Tells whether it does.
    pub fn propose(&self, key: &str, command: String) -> bool {
        let mut state = self.lock();
        if state.brought.contains(key) || state.waiting.iter().any(|(waiting, _)| waiting == key) {
            return false;
        }
        state.waiting.push((key.to_owned(), command));
        true
    }

    /// What a tick that is cut anew takes.
    pub fn take(&self) -> Vec<String> {
        let mut state = self.lock();
        let taken = std::mem::take(&mut state.waiting);
        let (keys, commands): (Vec<String>, Vec<String>) = taken.into_iter().unzip();
        state.brought.extend(keys);
        commands
    }

    /// A replayed tick has brought commands with these keys.
    pub fn brought(&self, keys: impl IntoIterator<Item = String>) {
        let mut state = self.lock();
        for key in keys {
            state.waiting.retain(|(waiting, _)| *waiting != key);
            state.brought.insert(key);
        }
    }

    /// Whether a command waits for a tick.
    pub fn is_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_one_wins() {
        let steering = Steering::default();
        assert!(steering.propose("a", "made before its record is replayed".into()));
        assert!(!steering.propose("a", "the same decision again".into()));
        assert!(steering.propose("b", "new".into()));
        steering.brought(["a".to_owned(), "c".to_owned()]);
        assert!(!steering.propose("c", "made behind its record".into()));
        assert_eq!(steering.take(), ["new"]);
        assert!(!steering.is_waiting());
        assert!(!steering.propose("b", "new".into()), "a decision is taken once");
        assert_eq!(steering.take(), Vec::<String>::new());
    }
}
