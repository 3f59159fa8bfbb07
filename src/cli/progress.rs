//! A progress bar on standard error, for jobs that last and people who watch.

use std::fs::File;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parquet::file::metadata::ParquetMetaDataReader;

use super::output::grouped;
use crate::base::{EventTime, format_time};
use crate::engine::observe::{Observer, Snapshot};
use crate::plan::model::{Connector, FileFormat, Plan};

/// A job that ends sooner is not worth a bar.
const PATIENCE: Duration = Duration::from_secs(2);
const REDRAW: Duration = Duration::from_millis(200);

/// Draws how far a job has come, until it is finished or dropped.
pub struct Progress {
    thread: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Watches a job: draws a bar where standard error is a terminal, and says when a job that stays (`until_end` is not
    /// set) has read everything.
    pub fn watch(plan: &Plan, observer: &Arc<Observer>, until_end: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let (finished, wait) = mpsc::channel();
        let (observer, job, rows) = (Arc::clone(observer), plan.job.clone(), rows_of_files(plan));
        let draw = move || {
            if wait.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = if terminal { bar(rows).with_message(job) } else { ProgressBar::hidden() };
            while wait.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
                let snapshot = observer.snapshot();
                bar.set_position(snapshot.rows_in);
                bar.set_prefix(describe(&snapshot));
                if !until_end && snapshot.watermark == Some(EventTime::MAX) {
                    bar.finish_and_clear();
                    eprintln!(
                        "all sources have ended; readers are answered until an interrupt (--until-end ends here)"
                    );
                    return;
                }
            }
            bar.finish_and_clear();
        };
        // Without a thread there is no bar, and the job is none the worse.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(draw).ok();
        Progress { thread: thread.map(|thread| (finished, thread)) }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some((finished, thread)) = self.thread {
            drop(finished);
            // A bar that failed has nothing to say.
            let _ = thread.join();
        }
    }
}

fn bar(rows: Option<u64>) -> ProgressBar {
    let (bar, template) = match rows {
        Some(rows) => (ProgressBar::new(rows), "{msg} {wide_bar} {percent}%, {eta} left; {prefix}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed_precise}; {prefix}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn describe(snapshot: &Snapshot) -> String {
    let rate = snapshot.rows_in as f64 / snapshot.elapsed.as_secs_f64().max(1e-9);
    let mut text = format!("{} rows, {} per second", grouped(snapshot.rows_in), grouped(rate as u64));
    if let Some(clock) = snapshot.watermark.filter(|w| *w != EventTime::MAX) {
        text.push_str(&format!(", clock {}", format_time(clock)));
    }
    if snapshot.dead_letters > 0 {
        text.push_str(&format!(", {} dead letters", grouped(snapshot.dead_letters)));
    }
    text
}

/// Rows that the job will read, where the footers of its files say so.
fn rows_of_files(plan: &Plan) -> Option<u64> {
    let mut rows = 0;
    for source in &plan.sources {
        let Connector::File(files) = &source.connector else {
            return None;
        };
        if files.format != FileFormat::Parquet {
            return None;
        }
        for path in &files.files {
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(path).ok()?).ok()?;
            rows += u64::try_from(metadata.file_metadata().num_rows()).ok()?;
        }
    }
    Some(rows)
}
