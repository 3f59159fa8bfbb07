//! Rates: counters as they were over the last ten seconds, looked at once a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Rates are over so long.
const LOOK_BACK: Duration = Duration::from_secs(10);

/// Counters at one moment, by their place; those that come later are behind those that were there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Rows read, by source.
    pub read: Vec<u64>,
    /// Rows in, rows out and nanoseconds worked, by node.
    pub nodes: Vec<[u64; 3]>,
    /// Nanoseconds in which the reader waited for the graph.
    pub waited_ns: u64,
}

/// The samples of the last ten seconds.
#[derive(Debug)]
pub struct Window(VecDeque<(Instant, Sample)>);

/// What has changed per second of the time looked back on.
#[derive(Debug)]
pub struct Rates {
    /// Rows read, by source.
    pub read: Vec<f64>,
    /// Rows in, rows out, and the share of one worker's time, by node.
    pub nodes: Vec<[f64; 3]>,
    /// The share of the time in which the reader waited.
    pub waited: f64,
}

impl Window {
    /// Begins at `now`, with nothing counted.
    pub fn new(now: Instant) -> Window {
        Window(VecDeque::from([(now, Sample::default())]))
    }

    /// Takes in a sample; one at the far end of the look-back stays.
    pub fn add(&mut self, now: Instant, sample: Sample) {
        self.0.push_back((now, sample));
        while self.0.len() > 2 && self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= LOOK_BACK) {
            self.0.pop_front();
        }
    }

    /// What has changed from the oldest sample to `sample`, taken now.
    pub fn rates(&self, now: Instant, sample: &Sample) -> Rates {
        let none = (now, Sample::default());
        let (since, old) = self.0.front().unwrap_or(&none);
        let seconds = now.saturating_duration_since(*since).as_secs_f64().max(1e-3);
        let rate = |now: u64, old: u64| now.saturating_sub(old) as f64 / seconds;
        Rates {
            read: sample
                .read
                .iter()
                .enumerate()
                .map(|(i, n)| rate(*n, old.read.get(i).copied().unwrap_or(0)))
                .collect(),
            nodes: (sample.nodes.iter().enumerate())
                .map(|(i, [rows_in, rows_out, worked])| {
                    let [was_in, was_out, had_worked] = old.nodes.get(i).copied().unwrap_or_default();
                    [rate(*rows_in, was_in), rate(*rows_out, was_out), rate(*worked, had_worked) / 1e9]
                })
                .collect(),
            waited: (rate(sample.waited_ns, old.waited_ns) / 1e9).clamp(0.0, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_look_back_ten_seconds() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let sample = |rows: u64| Sample {
            read: vec![rows],
            nodes: vec![[rows, rows / 2, rows * 1_000_000]],
            waited_ns: rows * 500_000,
        };
        let mut window = Window::new(begin);
        // A thousand rows a second for five seconds, then none.
        let rows = |second: u64| second.min(5) * 1_000;
        let early = window.rates(at(2), &sample(rows(2)));
        assert_eq!((early.read[0], early.nodes[0], early.waited), (1_000.0, [1_000.0, 500.0, 1.0], 0.5));
        (1..=12).for_each(|second| window.add(at(second), sample(rows(second))));
        assert!((11..=12).contains(&window.0.len()), "{}", window.0.len());
        assert_eq!(window.rates(at(12), &sample(rows(12))).read[0], 300.0, "three of the last ten seconds had rows");
        (13..=40).for_each(|second| window.add(at(second), sample(rows(second))));
        assert_eq!(window.rates(at(40), &sample(rows(40))).read[0], 0.0);
        // A node that is new was nothing before.
        let mut more = sample(rows(40));
        more.nodes.push([20, 20, 0]);
        assert_eq!(window.rates(at(40), &more).nodes[1][0], 2.0);
    }
}
