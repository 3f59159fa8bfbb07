//! Judgements: a model beside the champion, on rows that it was not fitted on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fit::FitFacts;
use super::score::Scored;
use super::{failed, settings, task_of, with_default, write};
use crate::batch::error::StepError;
use crate::batch::journal::Input;
use crate::batch::step::{Context, Produced, Step};
use crate::plan::batch::EvaluatePlan;
use crate::score::Model;
use crate::train::evaluate::{EvaluateOptions, Evaluation, evaluate};
use crate::train::explain::{ExplainOptions, Importance, explain};
use crate::train::set;
use crate::train::split::{SplitOptions, split};
use crate::train::tune::Predict;

/// The judgement's file.
const EVALUATION: &str = "evaluation.json";

/// What a judgement tells those who register the model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Judgement {
    /// Whether the condition holds; true where there is none.
    pub passed: bool,
    /// Why not.
    pub why: Option<String>,
    /// How the champion is called that it was compared with, if there was one that could be.
    pub champion: Option<String>,
    /// The figures.
    pub evaluation: Evaluation,
    /// What each input is worth.
    pub importance: Option<Importance>,
}

/// What a step left of a fit; nothing of a model that a program made.
pub(super) fn facts_of(context: &Context<'_>, step: usize) -> Result<Option<FitFacts>, StepError> {
    let given = context.given(&context.plan.steps[step].name)?;
    let Ok(path) = given.file("fit") else { return Ok(None) };
    let bytes = std::fs::read(path).map_err(StepError::again)?;
    serde_json::from_slice(&bytes).map(Some).map_err(StepError::hopeless)
}

/// The model that a step left.
pub(super) fn model_of(context: &Context<'_>, step: usize) -> Result<PathBuf, StepError> {
    let name = &context.plan.steps[step].name;
    context.given(name)?.file("model").map_err(|_| {
        let what = format!("step `{name}` has left no ONNX file; a program names one by `out: model.onnx`");
        StepError::hopeless(what)
    })
}

impl Step for EvaluatePlan {
    fn run(&self, context: &Context<'_>) -> Result<Produced, StepError> {
        context.progress(Some(0.0), "reading the set");
        let (job, index) = (context.job()?, context.model()?);
        let plan = &job.models[index];
        let facts = facts_of(context, self.model)?;
        let model = model_of(context, self.model)?;
        let given = context.given(&context.plan.steps[self.on].name)?;
        let whole = set::read(&given.file("set")?, None).map_err(StepError::hopeless)?;
        let (task, written) = match &facts {
            Some(facts) => (facts.task, &facts.split),
            None => (task_of(self.tells), &self.split),
        };
        let fold = split(&whole, &settings::<SplitOptions>(written)?).map_err(failed)?;
        let rows = whole.take(&fold.test);
        drop(whole);

        context.progress(Some(0.1), "scoring");
        // Of two classes the first declared output is the score that is published and monitored.
        let wanted = match task {
            crate::train::data::Task::Classes(n) => n as usize,
            _ => 1,
        };
        let outputs = plan.outputs.get(..wanted).ok_or_else(|| {
            StepError::hopeless(format!(
                "the model `{}` is to tell {wanted} values; declare so many `outputs`",
                plan.name
            ))
        })?;
        let challenger = Scored::load(&model, &rows.inputs, outputs)?;
        let own = challenger.predict(&rows.inputs).map_err(failed)?;
        let champion = Scored::load(&plan.path, &rows.inputs, outputs)
            .and_then(|champion| champion.predict(&rows.inputs).map_err(failed));
        let champion = match champion {
            Ok(scores) => Some(scores),
            Err(error) => {
                println!("the champion cannot score these rows, so there is nothing to compare with: {error}");
                None
            }
        };
        context.progress(Some(0.3), "judging");
        let seed = json!(context.plan.seed);
        let options: EvaluateOptions = settings(&with_default(&self.options, "seed", seed))?;
        let evaluation = evaluate(&rows, task, &own, champion.as_deref(), &options, context.threads).map_err(failed)?;
        context.progress(Some(0.7), "shuffling inputs");
        let importance = match self.importance {
            true => {
                let gains = facts.as_ref().and_then(|facts| facts.gains.as_deref());
                let how = ExplainOptions { seed: context.plan.seed, ..ExplainOptions::default() };
                Some(explain(&challenger, gains, &rows, task, &how, context.threads).map_err(failed)?)
            }
            false => None,
        };
        let verdict = evaluation.verdict.as_ref();
        let passed = verdict.is_none_or(|verdict| verdict.holds == Some(true));
        let why = verdict.filter(|_| !passed).map(|verdict| match verdict.holds {
            None => format!("`{}` cannot be judged: a value is missing", verdict.condition),
            _ => format!("`{}` does not hold", verdict.condition),
        });
        let version = plan.registered.as_ref().map_or(plan.version.clone(), |registered| registered.number.to_string());
        let champion_name = champion.as_ref().map(|_| format!("{}@{version}", plan.name));
        let mut metrics = serde_json::Map::new();
        for compared in &evaluation.metrics {
            let value = |told: Option<crate::train::evaluate::Told>| told.map(|told| told.value);
            let pair = json!({"challenger": value(compared.challenger), "champion": value(compared.champion)});
            metrics.insert(compared.metric.clone(), pair);
        }
        let first = evaluation.metrics.first();
        let headline = first.map_or(String::new(), |first| {
            let value = |told: Option<crate::train::evaluate::Told>| {
                told.map_or("none".to_owned(), |told| format!("{:.4}", told.value))
            };
            format!("{} {} beside {}", first.metric, value(first.challenger), value(first.champion))
        });
        let summary = format!("{headline}, {}", if passed { "passed" } else { "not passed" });
        println!("{summary} on {} rows", evaluation.rows);
        let hash = Model::load(&plan.path).map(|model| model.hash().to_owned()).ok();
        let judgement = Judgement { passed, why: why.clone(), champion: champion_name, evaluation, importance };
        write(&context.out(EVALUATION), serde_json::to_vec_pretty(&judgement).map_err(StepError::hopeless)?)?;
        Ok(Produced {
            outputs: vec![("evaluation".to_owned(), EVALUATION.to_owned())],
            inputs: vec![Input { what: format!("champion {}@{version}", plan.name), version: None, sha256: hash }],
            facts: json!({
                "summary": summary, "passed": passed, "why": why, "rows": judgement.evaluation.rows, "metrics": metrics,
                "champion": judgement.champion,
            }),
            skipped: None,
        })
    }
}
