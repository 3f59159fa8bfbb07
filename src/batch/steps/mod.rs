//! The kinds of steps, and what forbids parts of them.

mod dataset;
mod evaluate;
mod fit;
mod register;
mod rollout;
mod score;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::StepError;
use super::step::Step;
use crate::plan::BatchPart;
use crate::plan::batch::{StepKind, Tells};
use crate::store::pit::Asked;
use crate::train::data::Task;
use crate::train::error::TrainError;
use crate::train::evaluate::EvaluateOptions;
use crate::train::learner::Learner;
use crate::train::prepare::Prepare;
use crate::train::tune::{TuneOptions, check_names};

pub use register::signature;

/// What carries a kind of step out.
pub(super) fn step_of(kind: &StepKind) -> &dyn Step {
    match kind {
        StepKind::Dataset(dataset) => dataset,
        StepKind::Fit(fit) => fit,
        StepKind::Evaluate(evaluate) => evaluate,
        StepKind::Register(register) => register,
        StepKind::Rollout(rollout) => rollout,
        StepKind::Command(command) => command,
    }
}

/// What models tell, in the words of learners.
fn task_of(tells: Tells) -> Task {
    match tells {
        Tells::Number => Task::Regression,
        Tells::Classes(2) => Task::Binary,
        Tells::Classes(n) => Task::Classes(n),
    }
}

/// What is wrong with a part of a batch dataflow, and how to mend it.
pub(super) fn batch_fault(part: &BatchPart<'_>) -> Option<(String, String)> {
    match part {
        BatchPart::At(text) => text.parse::<Asked>().err().map(|what| (what, String::new())),
        BatchPart::Learner(learner, tells) => {
            let learner: Learner = match read(learner) {
                Ok(learner) => learner,
                Err(fault) => return Some(fault),
            };
            let suits = match (&learner, tells) {
                (Learner::Linear(_), Tells::Classes(_)) => Some("logistic"),
                (Learner::Logistic(_), Tells::Number) => Some("linear"),
                _ => None,
            };
            if let Some(other) = suits {
                let told = if *tells == Tells::Number { "numbers" } else { "classes" };
                let what = format!("`{}` does not tell {told}, which the model is to", learner.name());
                return Some((what, format!("use `{other}`, or `gbdt`")));
            }
            learner.check().err().map(fault)
        }
        BatchPart::Prepare(prepare) => read::<Prepare>(prepare).err(),
        BatchPart::Tune { options, learner, tells } => {
            let options: TuneOptions = match read(options) {
                Ok(options) => options,
                Err(fault) => return Some(fault),
            };
            let learner: Learner = read(learner).ok()?;
            options.check(task_of(*tells)).and_then(|()| check_names(&options, &learner)).err().map(fault)
        }
        BatchPart::Evaluate(options, tells) => {
            let options: EvaluateOptions = match read(options) {
                Ok(options) => options,
                Err(fault) => return Some(fault),
            };
            options.check(task_of(*tells)).err().map(fault)
        }
    }
}

fn fault(error: TrainError) -> (String, String) {
    match error {
        TrainError::Asked { what, mend } => (what, mend),
        other => (other.to_string(), String::new()),
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, (String, String)> {
    serde_json::from_value(value.clone()).map_err(|error| (error.to_string(), String::new()))
}

/// Settings that the file's compiler has passed.
fn settings<T: DeserializeOwned>(value: &Value) -> Result<T, StepError> {
    read(value).map_err(|(what, _)| StepError::hopeless(what))
}

/// Puts a value in the place of a key that was not written.
fn with_default(settings: &Value, key: &str, value: Value) -> Value {
    let mut settings = settings.clone();
    if let Value::Object(map) = &mut settings {
        map.entry(key).or_insert(value);
    }
    settings
}

/// An error of training: rows may be others next time only where the tables are.
fn failed(error: TrainError) -> StepError {
    match error {
        TrainError::Stopped => StepError::again(error),
        other => StepError::hopeless(other),
    }
}

/// Writes a file of the step.
fn write(path: &std::path::Path, bytes: impl AsRef<[u8]>) -> Result<(), StepError> {
    std::fs::write(path, bytes).map_err(|error| StepError::again(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault_of(part: BatchPart<'_>) -> String {
        batch_fault(&part).map_or("none".to_owned(), |(what, mend)| format!("{what}; {mend}"))
    }

    #[test]
    fn parts_are_held_against_what_they_are_for() {
        let (binary, number) = (Tells::Classes(2), Tells::Number);
        let learner = json!({"gbdt": {"trees": 50}});
        for (part, told) in [
            (BatchPart::Learner(&learner, binary), "none"),
            (BatchPart::Learner(&json!({"gbdt": {"rate": 7.0}}), binary), "gbdt.rate: 7 is not above 0"),
            (BatchPart::Learner(&json!({"linear": {}}), binary), "use `logistic`"),
            (BatchPart::Learner(&json!({"logistic": {}}), number), "use `linear`"),
            (BatchPart::At("latest"), "none"),
            (BatchPart::At("labels/fraud=3"), "none"),
            (BatchPart::At("yesterday"), "names no version"),
            (BatchPart::Prepare(&json!({"impute": {"constant": 0}, "scale": "min_max"})), "none"),
            (BatchPart::Evaluate(&json!({"promote_if": "auc_challenger >= auc_champion - 0.002"}), binary), "none"),
            (BatchPart::Evaluate(&json!({"promote_if": "auc_chalenger > 1"}), binary), "auc_challenger"),
            (
                BatchPart::Tune {
                    options: &json!({"space": {"rate": {"log": [0.01, 0.3]}}}),
                    learner: &learner,
                    tells: binary,
                },
                "none",
            ),
            (
                BatchPart::Tune { options: &json!({"space": {"rat": [1]}}), learner: &learner, tells: binary },
                "did you mean `rate`?",
            ),
        ] {
            let found = fault_of(part);
            assert!(found.contains(told), "{part:?}: {found}");
        }
    }

    /// Whatever learners and preparation can be told can be written in a file.
    #[test]
    fn the_grammar_has_all_settings() {
        let schema = crate::plan::batch::schema();
        let all = [
            ("GbdtConfig", json!(crate::train::gbdt::Gbdt::default())),
            ("ForestConfig", json!(crate::train::forest::Forest::default())),
            ("TreeConfig", json!(crate::train::tree::DecisionTree::default())),
            ("LogisticConfig", json!(crate::train::logistic::Logistic::default())),
            ("LinearConfig", json!(crate::train::linear::LinearRegression::default())),
            ("PrepareConfig", json!(Prepare::default())),
            ("TuneConfig", json!(TuneOptions::default())),
            ("EvaluateConfig", json!(EvaluateOptions::default())),
            ("SplitConfig", json!(crate::train::split::SplitOptions::default())),
            ("FoldsConfig", json!(crate::train::split::PrequentialOptions::default())),
        ];
        for (name, value) in all {
            let properties = schema["$defs"][name]["properties"].as_object().unwrap();
            for key in value.as_object().unwrap().keys() {
                // Whatever is drawn at random follows from the file's one seed.
                assert!(properties.contains_key(key) || key == "seed", "{name} has no {key}");
            }
        }
    }
}
