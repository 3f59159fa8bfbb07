//! The process of one attempt of a step.

use std::collections::BTreeMap;
use std::path::Path;

use super::BatchError;
use super::disk::replace;
use super::error::StepError;
use super::executor::{definition, step_directory};
use super::journal::{Change, Journal, Record};
use super::load::load_request;
use super::queue::Queue;
use super::step::{Context, Given, Produced, RESULT, Told};
use super::steps::step_of;
use crate::base::failpoint;

/// Which attempt a process is for.
#[derive(Clone, Debug)]
pub struct AttemptOf {
    /// The job in the queue.
    pub id: String,
    /// The step's name.
    pub step: String,
    /// Threads that it may use.
    pub threads: usize,
    /// What the runner believes that the step is to do.
    pub definition: String,
}

/// Carries out an attempt, and leaves a word on how it ended for the runner.
///
/// # Errors
/// When not even that can be done.
pub fn work(queue: &Queue, attempt: &AttemptOf) -> Result<(), BatchError> {
    let job = queue.job(&attempt.id)?;
    let directory = queue.directory(&attempt.id);
    let work = step_directory(&directory, &attempt.step).join("work");
    let told = match carry_out(&job.request, &directory, &work, attempt, &job.id) {
        Ok(produced) => Told::Done(produced),
        Err(error) => {
            eprintln!("error: {error}");
            Told::Failed { why: error.to_string(), again: matches!(error, StepError::Again(_)) }
        }
    };
    failpoint("batch.told");
    let path = work.join(RESULT);
    let bytes = serde_json::to_vec(&told).map_err(|e| BatchError::damaged(&path, e.to_string()))?;
    replace(&path, &bytes)
}

fn carry_out(
    request: &super::queue::Request,
    directory: &Path,
    work: &Path,
    attempt: &AttemptOf,
    id: &str,
) -> Result<Produced, StepError> {
    let (plan, _) = load_request(request).map_err(|faults| StepError::hopeless(faults.to_string().trim_end()))?;
    let index = plan.steps.iter().position(|step| step.name == attempt.step);
    let index =
        index.ok_or_else(|| StepError::hopeless(format!("the file has no step `{}` any more", attempt.step)))?;
    let step = &plan.steps[index];
    let entries = Journal::read(&directory.join("journal")).map_err(StepError::again)?;
    let mut done: BTreeMap<usize, Record> = BTreeMap::new();
    let mut given = BTreeMap::new();
    for &needed in &step.needs {
        let name = &plan.steps[needed].name;
        let last = entries.iter().rev().find(|entry| entry.step == *name).map(|entry| &entry.change);
        let Some(Change::Done(record)) = last else {
            return Err(StepError::hopeless(format!("step `{name}` is not done")));
        };
        done.insert(needed, record.clone());
        given.insert(
            name.clone(),
            Given { directory: step_directory(directory, name).join("out"), record: record.clone() },
        );
    }
    if definition(step, &plan, &done) != attempt.definition {
        return Err(StepError::hopeless("the file, or what it names, was changed while the job ran; resume the job"));
    }
    let context = Context::new(&plan, step, work, attempt.threads, given, (id, &request.cause, &request.submitted));
    failpoint(&format!("batch.step.{}", attempt.step));
    step_of(&step.kind).run(&context)
}
