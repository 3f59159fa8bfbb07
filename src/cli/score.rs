//! `tidemill score`: rows of Parquet files through a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::usage;
use super::models::PlaceArgs;
use super::output::{grouped, print, print_json};
use crate::base::{Blame, ModelRef};
use crate::plan::model::ModelOutput;
use crate::score::Model;
use crate::score::files::{FilesError, Input, Keep, Mapped, Options, Progress, Report, run as score_files};

/// Arguments of `score`.
#[derive(Args, Debug)]
pub struct ScoreArgs {
    /// An ONNX file, or a registered version: `fraud@champion`, `fraud@3`.
    #[arg(long, value_name = "FILE.onnx|NAME@VERSION")]
    model: String,
    /// Parquet files, directories of them, or patterns such as `days/*.parquet`.
    #[arg(long = "in", value_name = "FILES", required = true, num_args = 1..)]
    inputs: Vec<String>,
    /// Directory for the scores, a file for each input, of the same name.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Columns that are the model's inputs: in order, where the model does not name them; as NAME=COLUMN where a file calls
    /// them otherwise. Default: the model's own names.
    #[arg(long, value_name = "COLUMN|NAME=COLUMN", value_delimiter = ',', value_parser = mapped)]
    columns: Vec<Mapped>,
    /// Columns that are written beside the scores; `*` for all, `-` for none.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', default_value = "*")]
    keep: Vec<String>,
    /// A score column and the model's output that it is: `score=probabilities[1]`. Default: every value of every output.
    #[arg(long = "score", value_name = "NAME=OUTPUT[I]", value_parser = output)]
    scores: Vec<ModelOutput>,
    /// Threads. Default: one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Write outputs anew that are there and were made of something else.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// What a reader of `--help` sees at its end.
pub const EXAMPLE: &str = "\
Example: tidemill score --model fraud@champion --in 'lake/days/*.parquet' --out scores --keep tx_id --score score=probability[1]

A row that cannot be scored has no score, and the column `reason` says why. Outputs appear under their names when they are whole; the same
command again does only what is not done.";

fn mapped(text: &str) -> Result<Mapped, String> {
    let (name, column) = text.split_once('=').unwrap_or((text, text));
    match name.is_empty() || column.is_empty() {
        true => Err(format!("`{text}` is neither COLUMN nor NAME=COLUMN")),
        false => Ok(Mapped { name: name.trim().to_owned(), column: column.trim().to_owned() }),
    }
}

fn output(text: &str) -> Result<ModelOutput, String> {
    let wrong = || format!("`{text}` is not NAME=OUTPUT or NAME=OUTPUT[I], as in score=probabilities[1]");
    let (name, tensor) =
        text.split_once('=').filter(|(name, tensor)| !name.is_empty() && !tensor.is_empty()).ok_or_else(wrong)?;
    let (tensor, element) = match tensor.strip_suffix(']').and_then(|t| t.rsplit_once('[')) {
        Some((tensor, element)) => (tensor, Some(element.parse().map_err(|_| wrong())?)),
        None => (tensor, None),
    };
    Ok(ModelOutput { name: name.to_owned(), tensor: tensor.to_owned(), element })
}

/// Scores files.
pub fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let (model, version) = args.model()?;
    let keep = match args.keep.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["*"] => Keep::All,
        ["-"] => Keep::Only(Vec::new()),
        _ => Keep::Only(args.keep.clone()),
    };
    let threads = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let inputs = inputs(&args.inputs)?;
    let options = Options {
        model,
        version,
        columns: args.columns.clone(),
        outputs: args.scores.clone(),
        keep,
        out: args.out.clone(),
        threads,
        replace: args.replace,
    };
    let progress = Arc::new(Progress::default());
    let stopped = Arc::clone(&progress);
    ctrlc::set_handler(move || stopped.stop()).context("cannot listen for interrupts")?;
    let bar = watch(&progress);
    let scored = score_files(&inputs, &options, &progress);
    drop(bar);
    let report = scored.map_err(|error| match error.blame() {
        Blame::User if !matches!(error, FilesError::Stopped) => usage(error.to_string()),
        _ => error.into(),
    })?;
    if args.json { print_json(&report) } else { print(&text(&report, &args.out)) }
}

impl ScoreArgs {
    /// The model, and what its version is called.
    fn model(&self) -> anyhow::Result<(Model, String)> {
        let file = Path::new(&self.model);
        let blamed = |error: crate::score::ScoreError| match error.blame() {
            Blame::User => usage(error.to_string()),
            _ => error.into(),
        };
        if file.is_file() {
            let model = Model::load(file).map_err(blamed)?;
            let name = file.file_stem().map_or_else(|| self.model.clone(), |stem| stem.to_string_lossy().into_owned());
            return Ok((model, name));
        }
        let Ok(reference) = self.model.parse::<ModelRef>() else {
            return Err(usage(format!(
                "there is no file {}; a registered version is named as in fraud@champion",
                self.model
            )));
        };
        let (number, path) = self.place.file(&reference)?;
        Ok((Model::load(path).map_err(blamed)?, number.to_string()))
    }
}

/// The files that are meant, each with its name beneath the output's directory.
fn inputs(asked: &[String]) -> anyhow::Result<Vec<Input>> {
    let mut found = Vec::new();
    for text in asked {
        let path = Path::new(text);
        if path.is_file() {
            found.push(Input { path: path.to_owned(), name: PathBuf::from(path.file_name().unwrap_or_default()) });
            continue;
        }
        let (base, pattern) = match path.is_dir() {
            true => (path.to_owned(), format!("{}/**/*.parquet", glob::Pattern::escape(text))),
            false => (fixed(path), text.clone()),
        };
        let before = found.len();
        for file in glob::glob(&pattern).map_err(|error| usage(format!("--in {text}: {error}")))? {
            let file = file.map_err(|error| usage(format!("--in {text}: {error}")))?;
            let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if file.is_file() && !hidden {
                let name = file.strip_prefix(&base).map_or_else(|_| file.clone(), Path::to_owned);
                found.push(Input { path: file, name });
            }
        }
        if found.len() == before {
            return Err(usage(format!("--in {text}: there are no such files")));
        }
    }
    Ok(found)
}

/// The part of a pattern before the first component with a wildcard.
fn fixed(pattern: &Path) -> PathBuf {
    pattern.components().take_while(|c| !c.as_os_str().to_string_lossy().contains(['*', '?', '['])).collect()
}

fn text(report: &Report, out: &Path) -> String {
    let skipped = match report.skipped {
        0 => String::new(),
        n => format!(", {n} were there already"),
    };
    let failed = match report.failed {
        0 => String::new(),
        n => format!(", {} without a score (see the column `reason`)", grouped(n)),
    };
    let (files, rows, scores) = (report.files, grouped(report.rows), report.scores.join(", "));
    let plural = if files == 1 { "" } else { "s" };
    format!("{files} file{plural} written to {}{skipped}: {rows} rows{failed}; scores: {scores}\n", out.display())
}

/// Takes the bar away when it is dropped.
struct Bar(Option<(std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>)>);

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((finished, thread)) = self.0.take() {
            drop(finished);
            // A bar that failed has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Draws how far it has come, on a terminal, for what lasts longer than two seconds.
fn watch(progress: &Arc<Progress>) -> Bar {
    use std::io::IsTerminal;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    if !std::io::stderr().is_terminal() {
        return Bar(None);
    }
    let (finished, wait) = channel::<()>();
    let progress = Arc::clone(progress);
    let draw = move || {
        if wait.recv_timeout(Duration::from_secs(2)) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let style = ProgressStyle::with_template("{wide_bar} {percent}%, {eta} left; {pos} of {len} rows, {per_sec}");
        let bar = ProgressBar::new(progress.rows.load(Relaxed))
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        while wait.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
            bar.set_length(progress.rows.load(Relaxed));
            bar.set_position(progress.done.load(Relaxed));
        }
        bar.finish_and_clear();
    };
    // Without a thread there is no bar, and the scores are none the worse.
    let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(draw).ok();
    Bar(thread.map(|thread| (finished, thread)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let columns = |text| mapped(text).map(|m| (m.name, m.column));
        assert_eq!(columns("a"), Ok(("a".into(), "a".into())));
        assert_eq!(columns("a=b"), Ok(("a".into(), "b".into())));
        assert!(columns("=b").is_err());
        let outputs = |text| output(text).map(|o| (o.name, o.tensor, o.element));
        assert_eq!(outputs("score=p[1]"), Ok(("score".into(), "p".into(), Some(1))));
        assert_eq!(outputs("score=p"), Ok(("score".into(), "p".into(), None)));
        assert!(outputs("p").is_err() && outputs("a=p[x]").is_err());
        assert_eq!(fixed(Path::new("a/b/*/c.parquet")), Path::new("a/b"));
    }
}
