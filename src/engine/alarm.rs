//! Schedules an operator again.

use std::time::{Duration, Instant};

use timely::scheduling::Activator;

/// Schedules its operator for later, once for each moment: the operator is woken from outside too, and must not gather timers.
pub struct Alarm {
    activator: Activator,
    due: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set.
    pub fn new(activator: Activator) -> Self {
        Alarm { activator, due: None }
    }

    /// Schedules the operator as soon as the worker comes to it.
    pub fn ring(&self) {
        self.activator.activate();
    }

    /// Schedules the operator after `wait`, unless it is to be sooner.
    pub fn ring_after(&mut self, wait: Duration) {
        let now = Instant::now();
        let at = now + wait;
        if self.due.is_none_or(|due| due <= now || at < due) {
            self.due = Some(at);
            self.activator.activate_after(wait);
        }
    }
}
