//! Why a job's process ended, in plain words, from what it said last.

use std::path::Path;
use std::process::ExitStatus;

use super::disk::tail;
use super::process;

/// Bytes of a log that are looked at.
const LOOK: u64 = 64 << 10;
/// Begins the line by which the server marks a start in a job's log.
pub const MARK: &str = "=== tidemill serve: ";
/// Characters of an explanation.
const LONGEST: usize = 600;

/// Whether a process ended well of which nobody saw how: then it has printed its summary.
pub fn printed_summary(printed: &Path) -> bool {
    let summary: Option<serde_json::Value> =
        std::fs::read(printed).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    summary.is_some_and(|summary| summary.get("rows_read").is_some())
}

/// How a process ended and what it said last of an error.
pub fn explain(status: Option<ExitStatus>, log: &Path) -> String {
    let how = process::ending(status);
    let text = tail(log, LOOK).unwrap_or_default();
    // What an earlier start said explains nothing.
    let text = text.rfind(MARK).map_or(text.as_str(), |at| &text[at..]);
    let mut explanation = match last_error(text) {
        Some(error) => format!("{how}: {error}"),
        None => how,
    };
    if let Some((at, _)) = explanation.char_indices().nth(LONGEST) {
        explanation.truncate(at);
        explanation.push('…');
    }
    explanation
}

/// The last error of a log.
fn last_error(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.starts_with(MARK)).collect();
    // What the program ends with.
    if let Some(at) = lines.iter().rposition(|line| line.starts_with("error: ")) {
        return Some(lines[at]["error: ".len()..].to_owned());
    }
    // Faults of its file, each with its mend below.
    let faults: Vec<usize> = (0..lines.len()).filter(|&at| lines[at].contains(": error: ")).collect();
    if let Some(&first) = faults.first() {
        let mend = lines.get(first + 1).map(|line| line.trim()).filter(|line| line.starts_with("mend: "));
        let fault = lines[first].split_once(": error: ").map_or(lines[first], |(_, fault)| fault);
        let more = if faults.len() > 1 { format!(" (and {} more)", faults.len() - 1) } else { String::new() };
        return Some(format!(
            "its file has faults: {fault}{}{more}",
            mend.map(|m| format!("; {m}")).unwrap_or_default()
        ));
    }
    if let Some(at) = lines.iter().position(|line| line.contains("panicked at")) {
        let place = lines[at].split("panicked at ").nth(1).unwrap_or_default().trim_end_matches(':');
        let what = lines.get(at + 1).map_or("", |line| line.trim());
        return Some(format!("a defect of the program, at {place}: {what}"));
    }
    let logged = lines.iter().rev().find(|line| line.contains(" ERROR ")).map(|line| line.trim().to_owned());
    logged.or_else(|| {
        lines.iter().rev().find(|line| line.starts_with("tidemill: ")).map(|line| line["tidemill: ".len()..].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        last_error(text)
    }

    #[test]
    fn the_error_is_found_among_what_is_said() {
        assert_eq!(
            of("warning: x\nerror: cannot open lake: no space left\n").unwrap(),
            "cannot open lake: no space left"
        );
        let faults = "job.yaml:3:5: error: sources.tx: unknown key `flie`\n    mend: did you mean `file`?\njob.yaml:9:1: error: b\n2 errors in job.yaml\n";
        assert_eq!(
            of(faults).unwrap(),
            "its file has faults: sources.tx: unknown key `flie`; mend: did you mean `file`? (and 1 more)"
        );
        let panic = "\nthread 'timely:0' (12) panicked at src/engine/stage.rs:10:5:\nindex out of bounds\nnote: run with\ntidemill: a worker failed\n";
        assert_eq!(of(panic).unwrap(), "a defect of the program, at src/engine/stage.rs:10:5: index out of bounds");
        assert_eq!(of("2026 ERROR tidemill: disk\n2026 INFO x\n").unwrap(), "2026 ERROR tidemill: disk");
        assert_eq!(of("tidemill: failpoint a: Kill\n").unwrap(), "failpoint a: Kill");
        assert_eq!(of("hello\n"), None);
    }

    #[test]
    fn what_an_earlier_start_said_explains_nothing() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let log = dir.path().join("log");
        std::fs::write(&log, format!("{MARK}start 1\nerror: old\n{MARK}start 2\nfine\n")).expect("a file");
        assert_eq!(explain(None, &log), "it ended while no server was there to see how");
        std::fs::write(&log, format!("{MARK}start 2\nerror: {}\n", "x".repeat(5000))).expect("a file");
        assert_eq!(explain(None, &log).chars().count(), LONGEST + 1);
    }
}
