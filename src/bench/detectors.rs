//! `bench detectors`: change detectors over one stream of errors, on one thread. `benches/river_detectors.py` runs it beside River.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use crate::base::hash_u64;
use crate::monitor::detect::Detector;
use crate::plan::model::DetectorPlan;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of the stream.
    pub errors: u64,
    /// Where the stream is written, a byte for each error.
    pub keep: Option<PathBuf>,
}

/// One detector.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub detector: String,
    /// Errors per second on one core.
    pub errors_per_second: f64,
    /// Changes that it found.
    pub changes: u64,
    /// Bytes of its state at the end.
    pub state_bytes: usize,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Length of the stream.
    pub errors: u64,
    /// One line for each detector.
    pub lines: Vec<Line>,
}

/// Errors at a rate of 0.2 and 0.35, in turn, for 50,000 each.
fn stream(errors: u64) -> Vec<u8> {
    const CHANGE: u64 = 50_000;
    let rate = |i: u64| if (i / CHANGE).is_multiple_of(2) { 0.2 } else { 0.35 };
    (0..errors).map(|i| u8::from(((hash_u64(i) >> 11) as f64) < rate(i) * (1u64 << 53) as f64)).collect()
}

/// Measures.
///
/// # Errors
/// When the stream cannot be written.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let bits = stream(options.errors);
    if let Some(path) = &options.keep {
        std::fs::write(path, &bits).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut lines = Vec::new();
    for name in DetectorPlan::NAMES {
        let Some(plan) = DetectorPlan::named(name) else { continue };
        let mut detector = Detector::new(&plan);
        let started = Instant::now();
        let changes = bits.iter().filter(|bit| detector.update(f64::from(**bit)).is_some_and(|f| f.change)).count();
        let seconds = started.elapsed().as_secs_f64();
        let mut state = Vec::new();
        detector.save(&mut state);
        lines.push(Line {
            detector: name.to_owned(),
            errors_per_second: bits.len() as f64 / seconds,
            changes: changes as u64,
            state_bytes: state.len(),
        });
    }
    Ok(Report { errors: options.errors, lines })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} errors, one thread", self.errors)?;
        for line in &self.lines {
            writeln!(
                f,
                "  {:<14} {:>7.1} M errors/s, {} changes found, {} bytes of state",
                line.detector,
                line.errors_per_second / 1e6,
                line.changes,
                line.state_bytes
            )?;
        }
        Ok(())
    }
}
