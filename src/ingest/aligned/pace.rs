//! How fast sources are read.

use std::time::Instant;

use crate::base::EventTime;
use crate::plan::model::{Connector, Rate};

/// How fast a source may be read, on the wall clock.
pub(super) enum Pace {
    Max,
    PerSecond { rate: f64, started: Option<Instant>, emitted: f64 },
    RealTime { started: Option<(Instant, EventTime)> },
}

impl Pace {
    pub(super) fn of(connector: &Connector) -> Pace {
        let rate = match connector {
            Connector::File(file) => file.rate,
            Connector::Generator(generator) => generator.rate,
            Connector::Kafka(_) => Rate::Max,
        };
        match rate {
            Rate::Max => Pace::Max,
            Rate::RealTime => Pace::RealTime { started: None },
            Rate::PerSecond(rate) => Pace::PerSecond { rate, started: None, emitted: 0.0 },
        }
    }

    /// Begins anew with the next row.
    pub(super) fn restart(&mut self) {
        match self {
            Pace::Max => {}
            Pace::PerSecond { started, emitted, .. } => (*started, *emitted) = (None, 0.0),
            Pace::RealTime { started } => *started = None,
        }
    }

    /// Rows that may be read now from a partition whose watermark is `watermark`.
    pub(super) fn allowed(&mut self, now: Instant, watermark: EventTime) -> usize {
        match self {
            Pace::Max => usize::MAX,
            Pace::PerSecond { rate, started, emitted } => {
                let started = *started.get_or_insert(now);
                let due = now.saturating_duration_since(started).as_secs_f64() * *rate - *emitted;
                due.max(0.0) as usize
            }
            // Small steps keep the reader within a few rows of the event time that the wall clock has reached.
            Pace::RealTime { started } => match started {
                None => 1,
                Some((wall, event)) => {
                    let reached = event.saturating_add(now.saturating_duration_since(*wall).as_micros() as i64);
                    if watermark <= reached { 16 } else { 0 }
                }
            },
        }
    }

    pub(super) fn consumed(&mut self, rows: u64, newest: EventTime, now: Instant) {
        match self {
            Pace::Max => {}
            Pace::PerSecond { emitted, .. } => *emitted += rows as f64,
            Pace::RealTime { started } => {
                if started.is_none() && newest != EventTime::MIN {
                    *started = Some((now, newest));
                }
            }
        }
    }
}
