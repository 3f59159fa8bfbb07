//! Registrations: a version of the model with its figures, its card, and the versions of its data.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::evaluate::{Judgement, facts_of, model_of};
use super::{task_of, write};
use crate::base::wall_clock;
use crate::batch::error::StepError;
use crate::batch::step::{Context, Produced, Step};
use crate::monitor::drift::profile::PROFILE_FILE;
use crate::plan::batch::{RegisterPlan, StepKind};
use crate::plan::model::Plan;
use crate::registry::{By, Content, Field, Registration, Registry, RegistryError, Signature};
use crate::report::card_html;
use crate::score::{Model, TensorInfo};
use crate::train::card::{Card, DataFacts};

/// Who registers.
const WHO: &str = "tidemill train";

/// Name of a model in the registry: what the job's file says, else its own.
pub(super) fn registered_name(job: &Plan, model: usize) -> String {
    let plan = &job.models[model];
    plan.registered.as_ref().map_or_else(|| plan.name.clone(), |registered| registered.reference.name.clone())
}

/// Whoever asks for something in the name of a step; the same after a kill.
pub(super) fn by(context: &Context<'_>, why: &str, word: &str) -> By {
    let key = format!("batch/{}/{}/{word}", context.id, context.step.name);
    By::new(WHO, format!("{why} ({})", context.cause)).key(format!("{key}/{}", context.submitted))
}

/// An error of the registry: one that cannot be reached may be later.
pub(super) fn blamed(error: RegistryError) -> StepError {
    match error.blame() {
        crate::base::Blame::Outside => StepError::again(error),
        _ => StepError::hopeless(error),
    }
}

/// What a model takes and gives, as the registry keeps it.
pub fn signature(model: &Model) -> Signature {
    let field = |info: &TensorInfo| Field {
        name: info.name.clone(),
        element: info.element.to_string(),
        dims: info.dims.clone(),
    };
    Signature {
        inputs: model.inputs().iter().map(field).collect(),
        outputs: model.outputs().iter().map(field).collect(),
    }
}

impl RegisterPlan {
    fn judgement(&self, context: &Context<'_>) -> Result<Option<Judgement>, StepError> {
        let Some(after) = self.after else { return Ok(None) };
        let path = context.given(&context.plan.steps[after].name)?.file("evaluation")?;
        let bytes = std::fs::read(path).map_err(StepError::again)?;
        serde_json::from_slice(&bytes).map(Some).map_err(StepError::hopeless)
    }
}

impl Step for RegisterPlan {
    fn run(&self, context: &Context<'_>) -> Result<Produced, StepError> {
        let (job, index) = (context.job()?, context.model()?);
        let judgement = self.judgement(context)?;
        if let Some(judgement) = judgement.as_ref().filter(|judgement| !judgement.passed) {
            let why = judgement.why.clone().unwrap_or_else(|| "the model did not pass".to_owned());
            println!("nothing is registered: {why}");
            return Ok(Produced { skipped: Some(why), ..Produced::default() });
        }
        let path = model_of(context, self.from)?;
        let bytes = std::fs::read(&path).map_err(StepError::again)?;
        let model = Model::from_bytes(path, &bytes).map_err(StepError::hopeless)?;
        crate::batch::command::fits(&model, job, index)?;
        let facts = facts_of(context, self.from)?;
        let name = registered_name(job, index);
        let card = Card {
            model: name.clone(),
            version: None,
            made_for: context.cause.to_owned(),
            made_at: wall_clock(),
            task: facts.as_ref().map_or_else(
                || judgement.as_ref().map_or(task_of(crate::plan::batch::Tells::Classes(2)), |j| j.evaluation.task),
                |facts| facts.task,
            ),
            data: facts.as_ref().map_or_else(DataFacts::default, |facts| facts.data.clone()),
            learner: facts.as_ref().map_or_else(|| command_of(context, self.from), |facts| facts.learner.clone()),
            params: facts.as_ref().map_or(Value::Null, |facts| facts.params.clone()),
            seed: context.plan.seed,
            champion: judgement.as_ref().and_then(|judgement| judgement.champion.clone()),
            evaluation: judgement.as_ref().map(|judgement| judgement.evaluation.clone()),
            importance: judgement.as_ref().and_then(|judgement| judgement.importance.clone()),
            tuning: facts.as_ref().and_then(|facts| facts.tuning.clone()),
            limits: Vec::new(),
        };
        let (markdown, html) = (card.markdown(), card_html(&card));
        write(&context.out("card.md"), &markdown)?;
        write(&context.out("card.html"), &html)?;

        let metrics: BTreeMap<String, f64> = judgement
            .iter()
            .flat_map(|judgement| &judgement.evaluation.metrics)
            .filter_map(|compared| Some((compared.metric.clone(), compared.challenger?.value)))
            .filter(|(_, value)| value.is_finite())
            .collect();
        let mut params: BTreeMap<String, String> = BTreeMap::from([("learner".to_owned(), card.learner.clone())]);
        if let Some(settings) = facts.as_ref().and_then(|facts| facts.params.as_object()) {
            params.extend(settings.iter().map(|(key, value)| (key.clone(), shown(value))));
        }
        let data: BTreeMap<String, u64> = facts.iter().flat_map(|facts| facts.data.tables.iter().cloned()).collect();
        let tags = [
            ("batch", context.plan.name.clone()),
            ("job", context.id.to_owned()),
            ("fingerprint", context.plan.fingerprint.clone()),
        ];
        let mut files = BTreeMap::from([("card.md", markdown.into_bytes()), ("card.html", html.into_bytes())]);
        if let Ok(path) = context.given(&context.plan.steps[self.from].name)?.file("training") {
            files.insert(PROFILE_FILE, std::fs::read(path).map_err(StepError::again)?);
        }
        let why = match &judgement {
            Some(_) => format!("`{}` made it and judged it well", context.plan.name),
            None => format!("`{}` made it", context.plan.name),
        };
        let mut registration =
            Registration::new(name.clone(), Content::Bytes(bytes), signature(&model), by(context, &why, "register"));
        registration.metrics = metrics;
        registration.params = params;
        registration.data = data;
        registration.tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        registration.files = files.into_iter().map(|(key, bytes)| (key.to_owned(), Content::Bytes(bytes))).collect();
        registration.alias.clone_from(&self.alias);
        crate::base::failpoint("batch.register");
        let registry = Registry::open(&job.registry).map_err(blamed)?;
        let number = registry.register(registration).map_err(blamed)?;
        crate::base::failpoint("batch.registered");
        let alias = self.alias.as_ref().map_or(String::new(), |alias| format!(" as {alias}"));
        let summary = format!("{name}@{number}{alias}");
        println!("registered {summary} in {}", registry.place());
        let version = json!({"model": name, "version": number, "registry": job.registry});
        write(&context.out("version.json"), version.to_string())?;
        let outputs = [("card", "card.md"), ("page", "card.html"), ("version", "version.json")];
        Ok(Produced {
            outputs: outputs.map(|(name, file)| (name.to_owned(), file.to_owned())).to_vec(),
            facts: json!({"summary": summary, "model": name, "version": number, "alias": self.alias}),
            ..Produced::default()
        })
    }
}

fn command_of(context: &Context<'_>, step: usize) -> String {
    match &context.plan.steps[step].kind {
        StepKind::Command(command) => command.run.join(" "),
        other => other.word().to_owned(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
