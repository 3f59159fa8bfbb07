//! Gathers every finding of a file.

use std::fmt;

use super::yaml::Place;
use crate::base::{Fault, Severity};

/// A path of keys, such as `features.customer.aggregates.nb_tx.over[1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

impl Path {
    /// The whole file.
    pub fn root() -> Path {
        Path::default()
    }

    /// Keys one after the other.
    pub fn of(keys: &[&str]) -> Path {
        Path(keys.iter().map(|k| Step::Key(k.to_string())).collect())
    }

    /// The value under a key.
    pub fn key(&self, key: &str) -> Path {
        self.step(Step::Key(key.to_string()))
    }

    /// An item of a list.
    pub fn item(&self, index: usize) -> Path {
        self.step(Step::Item(index))
    }

    /// The steps, outermost first.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    fn step(&self, step: Step) -> Path {
        let mut steps = self.0.clone();
        steps.push(step);
        Path(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub list: Vec<Fault>,
}

impl Collector {
    /// Adds a finding that forbids running.
    pub fn error(&mut self, place: &Place, path: &Path, what: impl Into<String>, mend: impl Into<String>) {
        self.add(Severity::Error, place, path, what.into(), mend.into());
    }

    /// Adds a finding that is worth knowing.
    pub fn warn(&mut self, place: &Place, path: &Path, what: impl Into<String>, mend: impl Into<String>) {
        self.add(Severity::Warning, place, path, what.into(), mend.into());
    }

    /// Whether any finding forbids running.
    pub fn fatal(&self) -> bool {
        self.list.iter().any(|f| f.severity == Severity::Error)
    }

    /// The findings in the order of the file; those without a place (flags) come last.
    pub fn sorted(mut self) -> Vec<Fault> {
        self.list.sort_by_key(|f| (f.line == 0, f.line, f.column));
        self.list.dedup();
        self.list
    }

    fn add(&mut self, severity: Severity, place: &Place, path: &Path, what: String, mend: String) {
        let what = match &place.set {
            Some(set) => format!("{what} (from `--set {set}`)"),
            None => what,
        };
        self.list.push(Fault { severity, line: place.line, column: place.column, path: path.to_string(), what, mend });
    }
}
