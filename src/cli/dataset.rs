//! `tidemill dataset JOB.yaml`: point-in-time training sets from the job's tables.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::failure::usage;
use super::job::JobArgs;
use super::output::{bytes, columns, grouped, print, print_json};
use crate::base::{EventTime, Micros, parse_bytes, parse_duration, parse_time};
use crate::engine::{EngineError, dataset};
use crate::plan::model::Plan;
use crate::store::StoreError;
use crate::store::pit::{self, Asked, Entities, Manifest, Progress, Query, Rows, TableVersion, Window, manifest_path};

/// A set that is made sooner is not worth a bar.
const PATIENCE: Duration = Duration::from_secs(2);
const REDRAW: Duration = Duration::from_millis(200);

/// Arguments of `dataset`.
#[derive(Args, Debug)]
pub struct DatasetArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The set: labels of this model's predictions with the features that were logged for them. Default: the job's only
    /// model with labels.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["entities", "again"])]
    model: Option<String>,
    /// Events of this long up to the cut-off less the label delay, such as `30d`. Default: all.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with_all = ["from", "entities", "again"])]
    last: Option<Micros>,
    /// Events at or after this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["entities", "again"])]
    from: Option<EventTime>,
    /// The cut-off: events at or before this time, with labels that were known by then. Default: the newest time in the
    /// tables.
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["entities", "again"])]
    to: Option<EventTime>,
    /// Leave out events younger than this at the cut-off, such as `7d`: their labels are not settled yet.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with_all = ["entities", "again"])]
    label_delay: Option<Micros>,
    /// The set: rows of this file, each an entity and a time, with the latest features at or before the time and within the
    /// views' ttl.
    #[arg(long, value_name = "FILE.parquet", conflicts_with = "again")]
    entities: Option<PathBuf>,
    /// The time column of --entities. Default: `event_time`, or else the only column of timestamps.
    #[arg(long, value_name = "COLUMN", requires = "entities")]
    time: Option<String>,
    /// Take the columns of this feature set. Default: the job's only one.
    #[arg(long, value_name = "NAME", requires = "entities", conflicts_with = "views")]
    feature_set: Option<String>,
    /// Take all columns of this feature view instead; repeatable.
    #[arg(long = "view", value_name = "NAME", requires = "entities")]
    views: Vec<String>,
    /// Read the tables as they were: at a version (a number, for all tables), at a time of the wall clock (of each the newest
    /// version committed by then), or `labels/fraud=3,feature_sets/fraud_inputs=5`. Default: latest.
    #[arg(long, value_name = "VERSION|TIME", conflicts_with = "again")]
    at: Option<Asked>,
    /// Make a set again: what the manifest says, from the versions that it names. Ends with 1 unless the same bytes come out.
    #[arg(long, value_name = "MANIFEST.json")]
    again: Option<PathBuf>,
    /// Where to write the set; its manifest goes beside it, as NAME.json. Files of these names are replaced.
    #[arg(long, value_name = "FILE.parquet")]
    out: PathBuf,
    /// Hold about as much of the set in memory; the rest waits on disk, beside the output, until it is merged.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64MiB")]
    memory: u64,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

/// Makes a set.
pub fn run(args: DatasetArgs) -> anyhow::Result<()> {
    let plan = args.job.load_and_warn(None)?;
    let before = args.again.as_deref().map(Manifest::read).transpose().map_err(blamed)?;
    let query = args.query(&plan, before.as_ref()).map_err(|error| match error.downcast::<EngineError>() {
        // A question that cannot be asked of this job is the caller's.
        Ok(EngineError::Plan(what)) => usage(what),
        Ok(other) => other.into(),
        Err(other) => other,
    })?;
    let progress = Arc::new(Progress::default());
    let stopped = Arc::clone(&progress);
    ctrlc::set_handler(move || stopped.stop()).context("cannot listen for interrupts")?;
    let bar = watch(&progress, format!("dataset of {}", plan.job));
    let built = pit::build_watched(&query, &args.out, &progress);
    bar.finish();
    let manifest = built.map_err(|error| if progress.is_stopped() { error.into() } else { blamed(error) })?;
    if let Some(before) = before.filter(|before| before.sha256 != manifest.sha256) {
        let mut why = String::new();
        if before.program != manifest.program {
            why.push_str(&format!("; {} wrote the first, this is {}", before.program, manifest.program));
        }
        if before.entities.as_ref().map(|e| &e.sha256) != manifest.entities.as_ref().map(|e| &e.sha256) {
            why.push_str("; the file of entities has changed");
        }
        bail!(
            "{} is not what the manifest says: SHA-256 {}, not {}{why}",
            args.out.display(),
            manifest.sha256,
            before.sha256
        );
    }
    if args.json {
        print_json(&json!({ "out": args.out, "manifest": manifest_path(&args.out), "set": manifest }))
    } else {
        print(&args.text(&manifest))
    }
}

/// An error about what was asked is the caller's.
fn blamed(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Request(what) => usage(what),
        other => other.into(),
    }
}

impl DatasetArgs {
    fn query(&self, plan: &Plan, before: Option<&Manifest>) -> anyhow::Result<Query> {
        let (rows, at) = match (before, &self.entities) {
            (Some(before), _) => {
                if before.job != plan.job {
                    bail!(usage(format!("the manifest is of job `{}`, the file of `{}`", before.job, plan.job)));
                }
                let version = |table: &TableVersion| (table.table.clone(), table.version);
                (before.query.clone(), Asked::Tables(before.tables.iter().map(version).collect()))
            }
            (None, Some(file)) => {
                let views = if self.views.is_empty() {
                    let (views, left_out) = dataset::views_of_set(plan, &self.feature_set(plan)?)?;
                    if !left_out.is_empty() {
                        eprintln!("not in the views' tables, bring them in the file: {}", left_out.join(", "));
                    }
                    views
                } else {
                    dataset::views(plan, &self.views)?
                };
                let entities = Entities { file: file.clone(), time: self.time.clone(), views };
                (Rows::Entities(entities), self.at.clone().unwrap_or_default())
            }
            (None, None) => {
                let (last, from, to, label_delay) = (self.last, self.from, self.to, self.label_delay);
                let labelled = dataset::labelled(plan, &self.model(plan)?, Window { last, from, to, label_delay })?;
                (Rows::Labelled(labelled), self.at.clone().unwrap_or_default())
            }
        };
        let memory_bytes = usize::try_from(self.memory).unwrap_or(usize::MAX);
        Ok(Query { job: plan.job.clone(), lake: dataset::lake(plan)?, rows, at, memory_bytes })
    }

    fn model(&self, plan: &Plan) -> anyhow::Result<String> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        let with_labels: Vec<&str> = plan.labels.iter().map(|l| plan.models[l.model].name.as_str()).collect();
        match with_labels[..] {
            [one] => Ok(one.to_owned()),
            [] => Err(usage("the job has no model with labels; give --entities FILE.parquet for a set without")),
            _ => Err(usage(format!("several models have labels; give --model with one of {}", with_labels.join(", ")))),
        }
    }

    fn feature_set(&self, plan: &Plan) -> anyhow::Result<String> {
        if let Some(set) = &self.feature_set {
            return Ok(set.clone());
        }
        let names: Vec<&str> = plan.sets.iter().map(|set| set.name.as_str()).collect();
        match names[..] {
            [one] => Ok(one.to_owned()),
            [] => Err(usage("the job has no feature set; give --view NAME")),
            _ => Err(usage(format!("give --feature-set with one of {}, or --view", names.join(", ")))),
        }
    }

    fn text(&self, set: &Manifest) -> String {
        let mut facts = vec![
            vec!["rows".to_owned(), grouped(set.rows)],
            vec!["columns".to_owned(), grouped(set.columns.len() as u64)],
            vec!["size".to_owned(), bytes(set.bytes)],
            vec!["sha256".to_owned(), set.sha256.clone()],
        ];
        for table in &set.tables {
            let committed = table.committed.as_ref().map_or_else(String::new, |time| format!(", committed {time}"));
            facts.push(vec![table.table.clone(), format!("version {}{committed}", table.version)]);
        }
        if let Rows::Labelled(labelled) = &set.query {
            let window = &labelled.window;
            let words = [("from", window.from), ("cut-off", window.to)];
            for (name, time) in words {
                facts.extend(time.map(|time| vec![name.to_owned(), crate::base::format_time(time)]));
            }
        }
        let counts = &set.counts;
        let left_out = [
            (counts.not_known_yet, "labels not known at the cut-off"),
            (counts.withdrawn, "predictions whose label was withdrawn"),
            (counts.without_features, "labels without logged features in the window"),
        ];
        for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
            facts.push(vec!["left out".to_owned(), format!("{} {what}", grouped(count))]);
        }
        if counts.with_gaps > 0 {
            let what = format!("{} rows for which some view has nothing", grouped(counts.with_gaps));
            facts.push(vec!["with nulls".to_owned(), what]);
        }
        format!("{}\n{}", self.out.display(), columns(&facts, &[]))
    }
}

/// A bar on standard error, once the work has lasted, where somebody watches.
struct Bar(Option<(mpsc::Sender<()>, std::thread::JoinHandle<()>)>);

fn watch(progress: &Arc<Progress>, what: String) -> Bar {
    if !std::io::stderr().is_terminal() {
        return Bar(None);
    }
    let (finished, wait) = mpsc::channel();
    let progress = Arc::clone(progress);
    let draw = move || {
        if wait.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let template = "{msg} {wide_bar} {percent}%, {eta} left";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(1).with_style(style).with_message(what);
        while wait.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
            let (done, of) = progress.rows();
            bar.set_length(of.max(1));
            bar.set_position(done.min(of));
        }
        bar.finish_and_clear();
    };
    let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(draw).ok();
    Bar(thread.map(|thread| (finished, thread)))
}

impl Bar {
    fn finish(self) {
        if let Some((finished, thread)) = self.0 {
            drop(finished);
            // A bar that failed has nothing to say.
            let _ = thread.join();
        }
    }
}
