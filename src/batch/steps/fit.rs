//! Fits: the set is split by time, settings are looked for, the learner is fitted, the model is exported and held against what was
//! fitted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{failed, settings, task_of, with_default, write};
use crate::base::format_time;
use crate::batch::command::fits;
use crate::batch::disk::hash_text;
use crate::batch::error::StepError;
use crate::batch::step::{Context, Produced, Step};
use crate::engine::training;
use crate::monitor::drift::profile::PROFILE_FILE;
use crate::plan::batch::{FitPlan, StepKind, TunePlan};
use crate::plan::model::Plan;
use crate::report::tuning_svg;
use crate::score::Model;
use crate::train::card::DataFacts;
use crate::train::check::{self, Checked};
use crate::train::data::{Set, Task};
use crate::train::explain::gain_shares;
use crate::train::learner::{Continue, Learner, Options, Progress};
use crate::train::onnx;
use crate::train::pipeline::Pipeline;
use crate::train::prepare::Prepare;
use crate::train::set;
use crate::train::split::{Span, SplitOptions, hold_out, prequential, split};
use crate::train::tune::{FoldSet, Table, TuneProgress, Tuning, learner_of, tune_learner};

/// The model's file.
pub(super) const MODEL: &str = "model.onnx";
/// What is told of a fit, for the steps that come after.
pub(super) const FIT: &str = "fit.json";
/// Share of the rows to fit on, the newest, that early stopping looks at, and that settings are tried on without folds.
const VALID: f64 = 0.1;
const TRIED: f64 = 0.2;

/// What a fit tells those who judge and register its model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FitFacts {
    /// What the model tells.
    pub task: Task,
    /// The learner's name.
    pub learner: String,
    /// All its settings.
    pub params: Value,
    /// What was drawn at random was drawn by it.
    pub seed: u64,
    /// Where the rows are in time.
    pub span: Span,
    /// The split, as it was written: the same again gives the same rows.
    pub split: Value,
    /// What it was fitted on.
    pub data: DataFacts,
    /// Each input's share of what all splits gained.
    pub gains: Option<Vec<f64>>,
    /// How settings were found.
    pub tuning: Option<Table>,
    /// How the exported model compares.
    pub checked: Checked,
}

/// A word on how far it is, from any thread.
struct Far(f64, String);

impl Step for FitPlan {
    fn run(&self, context: &Context<'_>) -> Result<Produced, StepError> {
        let (far, heard) = channel();
        let place = self.place(context)?;
        std::thread::scope(|scope| {
            let work = scope.spawn(move || work(self, place, far));
            while !work.is_finished() {
                if let Ok(Far(part, text)) = heard.recv_timeout(Duration::from_millis(50)) {
                    context.progress(Some(part), &text);
                }
            }
            work.join().unwrap_or_else(|_| Err(StepError::again("the thread of the fit failed")))
        })
    }
}

/// What a fit goes by, for its thread.
struct Place {
    set: PathBuf,
    tables: Vec<(String, u64)>,
    out: PathBuf,
    /// Beside the attempts: what a tuning has done survives them.
    step: PathBuf,
    name: String,
    definition: String,
    seed: u64,
    threads: usize,
    job: Arc<Plan>,
    model: usize,
    label_delay: Option<i64>,
}

impl FitPlan {
    fn place(&self, context: &Context<'_>) -> Result<Place, StepError> {
        let from = &context.plan.steps[self.from];
        let given = context.given(&from.name)?;
        let tables = given.record.inputs.iter().filter_map(|i| Some((i.what.clone(), i.version?))).collect();
        let label_delay = match &from.kind {
            StepKind::Dataset(dataset) => dataset.label_delay,
            _ => None,
        };
        let job = context.plan.job.as_ref().ok_or_else(|| StepError::hopeless("the batch dataflow is of no job"))?;
        Ok(Place {
            set: given.file("set")?,
            tables,
            out: context.directory.to_owned(),
            step: context.directory.parent().unwrap_or(context.directory).to_owned(),
            name: context.step.name.clone(),
            definition: given.record.outputs.iter().map(|o| o.sha256.as_str()).collect::<Vec<_>>().join(" "),
            seed: context.plan.seed,
            threads: context.threads,
            job: Arc::clone(&job.plan),
            model: context.model()?,
            label_delay,
        })
    }
}

fn work(plan: &FitPlan, place: Place, far: Sender<Far>) -> Result<Produced, StepError> {
    let tell = |part: f64, text: String| {
        // Nobody listens any more when the step is being ended.
        let _ = far.send(Far(part, text));
    };
    tell(0.0, "reading the set".to_owned());
    let task = task_of(plan.tells);
    let whole = set::read(&place.set, None).map_err(StepError::hopeless)?;
    let fold = split(&whole, &settings::<SplitOptions>(&plan.split)?).map_err(failed)?;
    let (train, test) = (whole.take(&fold.train), whole.take(&fold.test));
    // What streams are held against later is what the model has seen, bit for bit as it was logged.
    let tables: BTreeMap<String, u64> = place.tables.iter().cloned().collect();
    let profile = training::profile_of(&place.set, Some(&fold.train), tables).map_err(StepError::hopeless)?;
    write(&place.out.join(PROFILE_FILE), profile.encode())?;
    drop(whole);
    println!(
        "{} rows to fit on (until {}), {} to judge by (from {})",
        train.rows(),
        format_time(fold.span.end),
        test.rows(),
        format_time(fold.span.start)
    );
    let (mut learner, prepare): (Learner, Prepare) = (settings(&plan.learner)?, settings(&plan.prepare)?);
    let mut tuning = None;
    let before = if plan.tune.is_some() { 0.8 } else { 0.05 };
    if let Some(tune) = &plan.tune {
        let table = look_for(plan, tune, &place, &train, (&learner, &prepare), task, &|done: TuneProgress| {
            let best = done.best.map_or(String::new(), |best| format!(", best {best:.5}"));
            tell(
                before * done.done as f64 / done.total.max(1) as f64,
                format!("{} of {} fits{best}", done.done, done.total),
            );
        })?;
        let best = table.best().ok_or_else(|| StepError::hopeless("no trial came to a model"))?;
        learner = learner_of(&learner, &best.params).map_err(failed)?;
        println!("{}", table.text(20));
        tuning = Some(table);
    }
    // What early stopping looks at is not what the model is judged by.
    let stops = matches!(&learner, Learner::Gbdt(gbdt) if gbdt.stop_after.is_some());
    let (rows, valid) = match stops {
        true => {
            let (rows, valid) = hold_out(&train, VALID).map_err(failed)?;
            (train.take(&rows), Some(train.take(&valid)))
        }
        false => (train.clone(), None),
    };
    let told = |progress: Progress| {
        let part = f64::from(progress.done) / f64::from(progress.total.max(1));
        let loss = progress.loss.map_or(String::new(), |loss| format!(", loss {loss:.5}"));
        tell(before + (0.95 - before) * part, format!("{} of {}{loss}", progress.done, progress.total));
        crate::base::failpoint("batch.fit.round");
        Continue::Yes
    };
    let options = Options { threads: place.threads, seed: place.seed, progress: Some(&told) };
    let pipeline = Pipeline::fit(&prepare, &learner, &rows, task, valid.as_ref(), &options).map_err(failed)?;
    tell(0.96, "exporting".to_owned());
    let bytes = onnx::export(&pipeline).map_err(failed)?;
    let checked = check::check(&pipeline, &bytes, &test.inputs).map_err(failed)?;
    let path = place.out.join(MODEL);
    write(&path, &bytes)?;
    let model = Model::load(&path).map_err(StepError::hopeless)?;
    fits(&model, &place.job, place.model)?;
    println!(
        "the exported model tells {} rows and {} made for it as the fitted one does",
        checked.rows, checked.probes
    );
    let params = serde_json::to_value(&learner).unwrap_or_default()[learner.name()].clone();
    let facts = FitFacts {
        task,
        learner: learner.name().to_owned(),
        params: params.clone(),
        seed: place.seed,
        span: fold.span,
        split: plan.split.clone(),
        data: DataFacts::of(&rows, place.tables, place.label_delay),
        gains: gain_shares(&pipeline.fitted, rows.inputs.names.len()),
        tuning: tuning.clone(),
        checked,
    };
    let summary = format!("{} on {} rows, {} kept to judge by", facts.learner, rows.rows(), test.rows());
    let outputs = [("model", MODEL), ("fit", FIT), ("training", PROFILE_FILE)];
    let mut outputs = outputs.map(|(name, file)| (name.to_owned(), file.to_owned())).to_vec();
    write(&place.out.join(FIT), serde_json::to_vec_pretty(&facts).map_err(StepError::hopeless)?)?;
    if let Some(table) = &tuning {
        write(&place.out.join("tuning.txt"), table.text(usize::MAX))?;
        write(&place.out.join("tuning.svg"), tuning_svg(table))?;
        outputs.extend([("tuning", "tuning.txt"), ("plot", "tuning.svg")].map(|(n, f)| (n.to_owned(), f.to_owned())));
    }
    let facts = json!({
        "summary": summary, "learner": facts.learner, "params": params, "rows": rows.rows(), "kept": test.rows(),
        "model_hash": facts.checked.hash, "max_difference": facts.checked.max_difference,
    });
    Ok(Produced { outputs, facts, ..Produced::default() })
}

/// Looks for settings on folds of the rows to fit on.
fn look_for(
    plan: &FitPlan,
    tune: &TunePlan,
    place: &Place,
    train: &Set,
    (learner, prepare): (&Learner, &Prepare),
    task: Task,
    progress: &(dyn Fn(TuneProgress) + Sync),
) -> Result<Table, StepError> {
    let folds = match &tune.folds {
        Some(folds) => prequential(train, task, &settings(folds)?).map_err(failed)?,
        None => {
            let gap = plan.split["gap"].clone();
            let mut own = json!({"share": TRIED});
            if gap.is_string() {
                own["gap"] = gap;
            }
            vec![split(train, &settings::<SplitOptions>(&own)?).map_err(failed)?]
        }
    };
    let folds = FoldSet::of(train, &folds);
    let options = settings(&with_default(&tune.options, "seed", json!(place.seed)))?;
    let made_by = format!("{} {} {}", place.name, place.definition, plan.split);
    // A tuning of other rows or settings has a journal of its own.
    let journal = place
        .step
        .join(format!("tune-{}.journal", &hash_text(&format!("{made_by}{}{}", tune.options, plan.learner))[..16]));
    let (stop, base) = (AtomicBool::new(false), Value::Null);
    let tuning = Tuning {
        options: &options,
        task,
        base: &base,
        folds: &folds,
        threads: place.threads,
        made_by: &made_by,
        journal: Some(&journal),
        stop: &stop,
        progress: Some(progress),
    };
    tune_learner(&tuning, prepare, learner).map_err(failed)
}
