//! The kinds of steps.

use serde_json::Value;

use super::error::StepError;
use super::step::{Context, Produced, Step};
use crate::plan::batch::StepKind;

/// What carries a kind of step out.
pub(super) fn step_of(kind: &StepKind) -> &dyn Step {
    match kind {
        StepKind::Command(command) => command,
        _ => &NotYet,
    }
}

struct NotYet;

impl Step for NotYet {
    fn run(&self, context: &Context<'_>) -> Result<Produced, StepError> {
        Err(StepError::hopeless(format!("`{}` steps are not built yet", context.step.kind.word())))
    }
}

/// What is wrong with a learner and its settings.
pub(super) fn learner_fault(_: &Value) -> Option<String> {
    None
}

/// What is wrong with a condition over metrics.
pub(super) fn promote_if_fault(_: &str) -> Option<String> {
    None
}

/// What is wrong with the name of a metric.
pub(super) fn tune_metric_fault(_: &str) -> Option<String> {
    None
}
