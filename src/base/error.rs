//! What an error is, whose fault it is, and how several are reported at once.

use std::fmt;

/// Whose fault an error is; it decides the exit code and whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The file, the flags or the data that the user gave.
    User,
    /// Something outside: a disk, a broker, a store. A retry may help.
    Outside,
    /// A defect of Tidemill.
    Ours,
}

/// How grave a finding in a dataflow file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the job runs.
    Warning,
    /// The job cannot run.
    Error,
}

/// One finding in a dataflow file: where, what, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How grave it is.
    pub severity: Severity,
    /// Line, from 1; 0 when the fault has no place in the file.
    pub line: usize,
    /// Column, from 1; 0 when the fault has no place in the file.
    pub column: usize,
    /// Path of keys, such as `features.customer.aggregates.nb_tx`.
    pub path: String,
    /// What is wrong, lowercase, no full stop.
    pub what: String,
    /// How to mend it; empty when that is plain from `what`.
    pub mend: String,
}

/// Every fault of one file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The file's name as given.
    pub file: String,
    /// The faults.
    pub list: Vec<Fault>,
}

impl Faults {
    /// Whether any fault forbids running.
    pub fn fatal(&self) -> bool {
        self.list.iter().any(|f| f.severity == Severity::Error)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.list {
            let severity = match fault.severity {
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            write!(f, "{}", self.file)?;
            if fault.line > 0 {
                write!(f, ":{}:{}", fault.line, fault.column)?;
            }
            write!(f, ": {severity}: ")?;
            if !fault.path.is_empty() {
                write!(f, "{}: ", fault.path)?;
            }
            writeln!(f, "{}", fault.what)?;
            if !fault.mend.is_empty() {
                writeln!(f, "    mend: {}", fault.mend)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
