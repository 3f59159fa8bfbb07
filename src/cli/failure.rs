//! How a command fails: the error printed once, and the exit code.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use crate::base::{Faults, Severity};

/// A failure that is the caller's: wrong arguments, a file that is not there or does not mean anything.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A usage error, ready to be returned.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Prints the error to standard error, once, and says how the program ends.
pub fn report(error: &anyhow::Error) -> ExitCode {
    // Standard error may be closed; then there is nobody to tell.
    let _ = std::io::stderr().write_all(text(error).as_bytes());
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    let bad_file = error.chain().any(|e| e.is::<Usage>() || e.is::<Faults>());
    if bad_file { 2 } else { 1 }
}

fn text(error: &anyhow::Error) -> String {
    if let Some(faults) = error.downcast_ref::<Faults>() {
        return format!("{faults}{}\n", tally(faults));
    }
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Many errors already end with their cause.
        if !parts.iter().any(|said| said.contains(&text)) {
            parts.push(text);
        }
    }
    format!("error: {}\n", parts.join(": "))
}

/// `2 errors and 1 warning in job.yaml`.
pub fn tally(faults: &Faults) -> String {
    let count = |severity, name| {
        let n = faults.list.iter().filter(|f| f.severity == severity).count();
        (n > 0).then(|| format!("{n} {name}{}", if n == 1 { "" } else { "s" }))
    };
    let counts: Vec<String> =
        [count(Severity::Error, "error"), count(Severity::Warning, "warning")].into_iter().flatten().collect();
    format!("{} in {}", counts.join(" and "), faults.file)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::base::Fault;

    fn faults(severities: &[Severity]) -> Faults {
        let fault = |severity: &Severity| Fault {
            severity: *severity,
            line: 3,
            column: 5,
            path: "sources.tx".into(),
            what: "unknown key `flie`".into(),
            mend: "did you mean `file`?".into(),
        };
        Faults { file: "job.yaml".into(), list: severities.iter().map(fault).collect() }
    }

    #[test]
    fn a_bad_file_is_two_and_a_failed_job_is_one() {
        assert_eq!(code(&faults(&[Severity::Error]).into()), 2);
        assert_eq!(code(&usage("no such file")), 2);
        assert_eq!(code(&anyhow::Error::new(Usage("x".into())).context("while reading")), 2);
        assert_eq!(code(&anyhow::anyhow!("the disk is full")), 1);
    }

    #[test]
    fn faults_are_all_printed_and_counted() {
        let text = text(&faults(&[Severity::Error, Severity::Warning, Severity::Error]).into());
        assert!(
            text.starts_with("job.yaml:3:5: error: sources.tx: unknown key `flie`\n    mend: did you mean"),
            "{text}"
        );
        assert!(text.ends_with("2 errors and 1 warning in job.yaml\n"), "{text}");
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let inner = std::io::Error::other("no space left");
        let once = Err::<(), _>(inner).context("cannot write lake/part-1: no space left").unwrap_err();
        assert_eq!(text(&once), "error: cannot write lake/part-1: no space left\n");
        let chained =
            Err::<(), _>(std::io::Error::other("no space left")).context("cannot write lake/part-1").unwrap_err();
        assert_eq!(text(&chained), "error: cannot write lake/part-1: no space left\n");
    }
}
