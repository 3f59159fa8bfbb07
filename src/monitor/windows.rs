//! Windows and the boundaries at which they are told: whole numbers only, the same on every worker and in every start.
//!
//! A window `[start, end)` is a multiple of its length. What changes at event time `t` is told at the first boundary (a
//! multiple of `refresh`) at or after `t`, and not before the window's end. A label counts up to `within` after its
//! prediction, so the boundary at or after `end - 1 + within` is the last at which a window can change.

use crate::base::{EventTime, Micros};

/// Lengths of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Length of the tumbling windows.
    pub window: Micros,
    /// Boundaries are multiples of this; it divides `window`.
    pub refresh: Micros,
    /// A label further than this from its prediction does not count.
    pub within: Micros,
}

impl Windows {
    /// The window that a time is in.
    #[inline]
    pub fn start(&self, time: EventTime) -> EventTime {
        time.saturating_sub(time.rem_euclid(self.window))
    }

    /// The first moment after a window.
    #[inline]
    pub fn end(&self, start: EventTime) -> EventTime {
        start.saturating_add(self.window)
    }

    /// The first boundary at or after a time.
    #[inline]
    pub fn boundary(&self, time: EventTime) -> EventTime {
        match time.rem_euclid(self.refresh) {
            0 => time,
            past => time.saturating_add(self.refresh - past),
        }
    }

    /// The boundary at which a change at `due` in the window from `start` is told.
    #[inline]
    pub fn told(&self, start: EventTime, due: EventTime) -> EventTime {
        self.end(start).max(self.boundary(due))
    }

    /// The last boundary at which a window can change.
    #[inline]
    pub fn complete(&self, start: EventTime) -> EventTime {
        self.boundary(self.end(start).saturating_add(self.within - 1)).max(self.end(start))
    }

    /// The last boundary that a watermark has passed: nothing at or before it comes any more.
    pub fn passed(&self, watermark: EventTime) -> EventTime {
        match watermark {
            EventTime::MIN | EventTime::MAX => watermark,
            _ => (watermark - 1).saturating_sub((watermark - 1).rem_euclid(self.refresh)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries() {
        let w = Windows { window: 100, refresh: 20, within: 45 };
        assert_eq!((w.start(-1), w.start(0), w.start(99), w.end(0)), (-100, 0, 0, 100));
        assert_eq!((w.boundary(0), w.boundary(1), w.boundary(20), w.boundary(-1)), (0, 20, 20, 0));
        assert_eq!((w.told(0, 5), w.told(0, 100), w.told(0, 101)), (100, 100, 120));
        // A prediction at 99 takes labels up to 144.
        assert_eq!(w.complete(0), 160);
        assert_eq!(Windows { within: 41, ..w }.complete(0), 140);
        // The boundary 20 is passed when nothing at 20 can come any more.
        assert_eq!((w.passed(20), w.passed(21), w.passed(0), w.passed(1)), (0, 20, -20, 0));
        assert_eq!((w.passed(EventTime::MAX), w.passed(EventTime::MIN)), (EventTime::MAX, EventTime::MIN));
    }
}
