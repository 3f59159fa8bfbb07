//! `tidemill demo`: the card fraud job on generated traffic, watched live; alone, or with a [`story`].
//!
//! Everything that it needs is in the program. Each run has a directory of its own, which it leaves behind with the job's
//! file, the model and the tables, so that what was shown can be looked at and run again.

mod story;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use clap::Args;

use super::job::load;
use super::live::Live;
use super::output::{grouped, print};
use super::run::retrainer;
use crate::engine::observe::{Observer, Snapshot};
use crate::engine::{self, RunOptions, RunSummary, StopHandle};
use crate::ingest::generator::{Generator, schema};
use crate::plan::model::{Connector, Plan};
use story::{Story, Teller};

const JOB: &str = include_str!("../../dataflows/card_fraud.yaml");
const MODEL: &[u8] = include_bytes!("../../models/card_fraud.onnx");

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// End after this many seconds; without it the demo runs until Ctrl-C.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    exit_after: Option<Duration>,
    /// The frauds change on the ninth day: the alarm fires, a new model is trained, compared in shadow, tried on a share of the
    /// customers, and promoted. Ends then.
    #[arg(long, conflicts_with = "broken_challenger")]
    drift: bool,
    /// Somebody registers a model that was trained on shuffled labels: it is found out in shadow, and taken back. Ends then.
    #[arg(long)]
    broken_challenger: bool,
    /// Directory to leave the tables in; each run makes `demo`, `demo-2`, … there.
    #[arg(long, value_name = "DIR", env = "LAKE", default_value = "lake")]
    lake: PathBuf,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Set a value of the job's file, such as `--set sources.tx.generator.rate=20000`; repeatable.
    #[arg(long = "set", value_name = "PATH.TO.KEY=VALUE", value_parser = super::job::assignment)]
    sets: Vec<(String, String)>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a number of seconds; write 30 or 0.5");
    text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or_else(bad)
}

/// Runs the demo until it is interrupted or its time is over, then says what it leaves behind.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    let story = match (args.drift, args.broken_challenger) {
        (true, _) => Some(Story::Drift),
        (_, true) => Some(Story::BrokenChallenger),
        _ => None,
    };
    let place = Place::make(&args.lake, story)?;
    let mut sets = place.sets(story);
    sets.extend(args.sets);
    let job = load(&place.job, &sets, None)?;
    eprint!("{}", job.warnings);
    let state = place.root.join("state");
    let teller = story.map(|story| Teller::new(story, &job.plan, &place.root)).transpose()?;
    let teller = Arc::new(Mutex::new(teller));
    let sample = sample_customer(&job.plan);

    let stop = StopHandle::new();
    let asked = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(stop.clone(), Arc::clone(&asked))?;
    let observer = Arc::new(Observer::new(&job.plan));
    let options = RunOptions {
        workers: args.workers.into(),
        // The sources are endless unless a setting says otherwise; then there is nothing to stay for.
        until_end: true,
        state_dir: Some(state.clone()),
        observer: Some(Arc::clone(&observer)),
        stop: stop.clone(),
        retrain: retrainer(&job.plan, sets, None, Some(&state))?,
        ..RunOptions::default()
    };
    let (told, clock) = (Arc::clone(&teller), Arc::clone(&observer));
    let live = Live::start(&format!("tidemill demo: {}", job.plan.job), Arc::clone(&observer), move |elapsed| {
        let mut teller = told.lock().unwrap_or_else(PoisonError::into_inner);
        let news = teller.as_mut().map(|teller| teller.look(elapsed, clock.snapshot().watermark)).unwrap_or_default();
        let over = teller.as_ref().is_some_and(|teller| teller.is_over(elapsed));
        if over || args.exit_after.is_some_and(|after| elapsed >= after) {
            stop.stop();
        }
        news
    });
    let result = engine::run(job.plan, options);
    live.finish();
    let mut headline = headline(&result?, &observer.snapshot());
    let ending = teller.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Teller::ending);
    if let Some(ending) = ending {
        headline += &format!("; {}", ending.map_or_else(|| "the story did not end".to_owned(), story::Ending::words));
    }
    print(&farewell(&place, &headline, sample, story)?)?;
    match (story, ending.flatten()) {
        (Some(story), Some(ending)) if !ending.is_of(story) => bail!("the story ended otherwise than it should"),
        _ => Ok(()),
    }
}

/// The first interrupt asks the job to finish what it has read; the second ends the process. Nothing is printed: the live
/// view has the screen.
fn stop_on_interrupt(stop: StopHandle, asked: Arc<AtomicBool>) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        stop.stop();
    })
    .context("cannot listen for interrupts")
}

/// A directory of one run.
struct Place {
    root: PathBuf,
    job: PathBuf,
    model: PathBuf,
}

impl Place {
    /// Makes the first of `demo`, `demo-2`, … that is not there, and puts the job's file and its model in it.
    fn make(lake: &Path, story: Option<Story>) -> anyhow::Result<Place> {
        let cannot = |what: &Path| format!("cannot write {}; name a directory with --lake", what.display());
        std::fs::create_dir_all(lake).with_context(|| cannot(lake))?;
        let mut number = 1;
        let root = loop {
            let root = lake.join(if number == 1 { "demo".to_owned() } else { format!("demo-{number}") });
            match std::fs::create_dir(&root) {
                Ok(()) => break root,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error).with_context(|| cannot(&root)),
            }
        };
        let (job, models) = (root.join("card_fraud.yaml"), root.join("models"));
        let model = models.join("card_fraud.onnx");
        let text = story.map_or_else(|| JOB.to_owned(), |story| story.job(JOB));
        std::fs::write(&job, text).with_context(|| cannot(&job))?;
        std::fs::create_dir(&models).with_context(|| cannot(&models))?;
        std::fs::write(&model, MODEL).with_context(|| cannot(&model))?;
        if let Some(story) = story {
            story.prepare(&root, MODEL)?;
        }
        Ok(Place { root, job, model })
    }

    fn offline(&self) -> PathBuf {
        self.root.join("card_fraud")
    }

    fn online(&self) -> PathBuf {
        self.root.join("card_fraud_online")
    }

    /// The settings that keep the run in its directory.
    fn sets(&self, story: Option<Story>) -> Vec<(String, String)> {
        let set = |key: &str, path: &Path| (key.to_owned(), path.display().to_string());
        let mut sets =
            vec![set("sinks.offline.delta.uri", &self.offline()), set("sinks.online.embedded.path", &self.online())];
        match story {
            Some(story) => sets.extend(story.sets(&self.root)),
            None => sets.push(set("models.fraud.versions.champion", &self.model)),
        }
        sets
    }

    /// The Delta tables, by name.
    fn tables(&self) -> anyhow::Result<Vec<String>> {
        fn walk(directory: &Path, name: &str, tables: &mut Vec<String>) -> std::io::Result<()> {
            if directory.join("_delta_log").is_dir() {
                tables.push(name.to_owned());
                return Ok(());
            }
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    let file = entry.file_name();
                    let file = file.to_string_lossy();
                    let name = if name.is_empty() { file.into_owned() } else { format!("{name}/{file}") };
                    walk(&entry.path(), &name, tables)?;
                }
            }
            Ok(())
        }
        let (root, mut tables) = (self.offline(), Vec::new());
        if root.is_dir() {
            walk(&root, "", &mut tables).with_context(|| format!("cannot list {}", root.display()))?;
        }
        tables.sort();
        Ok(tables)
    }
}

/// A customer who has surely been seen: that of the first transaction.
fn sample_customer(plan: &Plan) -> Option<i64> {
    let Connector::Generator(connector) = &plan.sources.first()?.connector else {
        return None;
    };
    let all = schema(connector.stream);
    let column = all.index_of("customer_id").ok()?;
    let mut generator = Generator::new(connector, &Arc::new(all.project(&[column]).ok()?)).ok()?;
    Some(generator.read(1)?.column(0).as_primitive::<Int64Type>().value(0))
}

/// What was done.
fn headline(summary: &RunSummary, last: &Snapshot) -> String {
    let (read, scored) = (grouped(summary.rows_read), grouped(summary.rows_scored));
    let mut text = format!("{}: {read} rows read and {scored} scored in {:.1} s", summary.job, summary.seconds);
    if let Some((auc, a)) = last.accuracy.and_then(|a| a.auc.map(|auc| (auc, a))) {
        text += &format!("; AUC {auc:.4} over the last {} labelled rows", grouped(a.window));
    }
    text
}

/// What was done, what is left behind, and how to look at it.
fn farewell(place: &Place, headline: &str, sample: Option<i64>, story: Option<Story>) -> anyhow::Result<String> {
    let mut text = format!("\n{headline}");
    let (offline, online) = (place.offline(), place.online());
    writeln!(text, "\n\nDelta tables in {}:", offline.display())?;
    let tables = place.tables()?;
    for table in &tables {
        writeln!(text, "  {table}")?;
    }
    if tables.is_empty() {
        writeln!(text, "  none: nothing was committed")?;
    }
    // As this program was called, so that the commands run where it is not on the path.
    let tidemill = quoted(Path::new(&std::env::args_os().next().unwrap_or_else(|| "tidemill".into())));
    let show = |text: &mut String, why: &str, command: &str| writeln!(text, "\n  # {why}\n  {command}");
    write!(text, "\nTo look at them:")?;
    writeln!(text)?;
    if let Some(table) = tables.iter().find(|t| t.starts_with("predictions/")).or(tables.first()) {
        let path = quoted(&offline.join(table));
        show(
            &mut text,
            "the latest rows, in Python (pip install deltalake pandas)",
            &format!(
                "python3 -c 'import sys, deltalake; print(deltalake.DeltaTable(sys.argv[1]).to_pandas().tail())' {path}"
            ),
        )?;
        show(
            &mut text,
            "the same files in any Parquet reader, such as DuckDB",
            &format!(
                "duckdb -c \"select count(*), avg(amount) from read_parquet('{}/**/*.parquet')\"",
                offline.join(table).display()
            ),
        )?;
    }
    if let Some(customer) = sample {
        let online = quoted(&online);
        show(
            &mut text,
            "what a reader of the online store is served about a customer",
            &format!("{tidemill} features get customer customer_id={customer} --online {online}"),
        )?;
    }
    let own = |key: &str, path: &Path| format!(" --set {key}={}", quoted(path));
    let mut job = quoted(&place.job);
    if story.is_some() {
        job += &own("registry.uri", &place.root.join("registry"));
        let tables = own("sinks.offline.delta.uri", &offline);
        show(
            &mut text,
            "what was decided, and by which numbers",
            &format!("{tidemill} experiments show {job}{tables}"),
        )?;
        let registry = quoted(&place.root.join("registry"));
        show(
            &mut text,
            "who did what to the model",
            &format!("{tidemill} models history fraud --registry {registry}"),
        )?;
    }
    show(&mut text, "the plan of the job that made them", &format!("{tidemill} check {job}"))?;
    Ok(text)
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_a_directory_of_its_own() {
        let lake = tempfile::tempdir().unwrap();
        let places: Vec<Place> = (0..3).map(|_| Place::make(&lake.path().join("deep/lake"), None).unwrap()).collect();
        let names: Vec<_> = places.iter().map(|p| p.root.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["demo", "demo-2", "demo-3"]);
        assert_eq!(std::fs::read(&places[2].model).unwrap(), MODEL);
        assert_eq!(std::fs::read_to_string(&places[2].job).unwrap(), JOB);
        assert!(places[1].sets(None).iter().all(|(_, path)| Path::new(path).starts_with(&places[1].root)));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Place::make(&file.path().join("lake"), None).err().unwrap().to_string();
        assert!(error.starts_with("cannot write ") && error.ends_with("; name a directory with --lake"), "{error}");
    }

    #[test]
    fn the_farewell_names_the_tables_and_how_to_read_them() {
        let lake = tempfile::tempdir().unwrap();
        let place = Place::make(&lake.path().join("my lake"), None).unwrap();
        for table in ["predictions/fraud", "features/customer"] {
            std::fs::create_dir_all(place.offline().join(table).join("_delta_log")).unwrap();
            std::fs::create_dir_all(place.offline().join(table).join("event_date=2026-01-05")).unwrap();
        }
        assert_eq!(place.tables().unwrap(), ["features/customer", "predictions/fraud"]);
        let text = farewell(&place, "card_fraud: 60,013 rows read", Some(17), None).unwrap();
        assert!(text.starts_with("\ncard_fraud: 60,013 rows read\n\nDelta tables in "), "{text}");
        let table = format!("'{}'", place.offline().join("predictions/fraud").display());
        assert!(text.contains(&format!(".to_pandas().tail())' {table}\n")), "{text}");
        assert!(text.contains("features get customer customer_id=17 --online "), "{text}");
    }

    #[test]
    fn seconds_are_numbers() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "-1", "30s", "nan", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shells_read_paths_as_one_word() {
        let all = ["lake/demo-2", "a b", "it's"].map(|p| quoted(Path::new(p)));
        assert_eq!(all, ["lake/demo-2", "'a b'", r"'it'\''s'"]);
    }
}
