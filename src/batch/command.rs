//! Steps that run a program: a training set in, a file out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::error::StepError;
use super::process::die_with_parent;
use super::step::{Context, Produced, Step};
use crate::engine::training;
use crate::monitor::drift::profile::PROFILE_FILE;
use crate::plan::batch::CommandPlan;
use crate::plan::model::Plan;
use crate::score::Model;

impl Step for CommandPlan {
    fn run(&self, context: &Context<'_>) -> Result<Produced, StepError> {
        let mut command = self.command(context)?;
        let shown = self.run.join(" ");
        context.progress(None, &shown);
        println!("$ {shown}");
        // The step's own process leads the group that a timeout ends; the program is in it and dies with it.
        die_with_parent(&mut command, libc::SIGKILL);
        let began = std::time::Instant::now();
        let mut child = command.spawn().map_err(|error| {
            let what = format!("cannot start `{}`: {error}; name a program that is on the PATH", self.run[0]);
            // A program that is not there will not be there next time.
            StepError::hopeless(what)
        })?;
        let status = child.wait().map_err(StepError::again)?;
        if !status.success() {
            return Err(StepError::again(format!("`{shown}` failed ({status}); see the step's log")));
        }
        let mut outputs = Vec::new();
        if let Some(file) = &self.out {
            let path = context.out(file);
            if !path.is_file() {
                let what = format!(
                    "`{shown}` ended well and has not written its output: `{file}` is to be where TIDEMILL_OUT says"
                );
                return Err(StepError::hopeless(what));
            }
            let name = if is_onnx(&path) { "model" } else { "out" };
            if is_onnx(&path) {
                check_model(&path, context)?;
            }
            outputs.push((name.to_owned(), file.clone()));
            // Which of the set's rows the program has taken, it alone knows: all count.
            if is_onnx(&path)
                && let Some(given) =
                    self.input.map(|input| context.given(&context.plan.steps[input].name)).transpose()?
                && let Ok(set) = given.file("set")
            {
                let tables = given.record.inputs.iter().filter_map(|i| Some((i.what.clone(), i.version?))).collect();
                let profile = training::profile_of(&set, None, tables).map_err(StepError::hopeless)?;
                std::fs::write(context.out(PROFILE_FILE), profile.encode()).map_err(StepError::again)?;
                outputs.push(("training".to_owned(), PROFILE_FILE.to_owned()));
            }
        }
        let facts = json!({"command": shown, "seconds": began.elapsed().as_secs_f64(), "status": status.code()});
        Ok(Produced { outputs, facts, ..Produced::default() })
    }
}

impl CommandPlan {
    fn command(&self, context: &Context<'_>) -> Result<Command, StepError> {
        let (program, arguments) = self.run.split_first().ok_or_else(|| StepError::hopeless("no program is named"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        let directory = &context.plan.directory;
        if !directory.as_os_str().is_empty() {
            command.current_dir(directory);
        }
        let threads = context.threads.to_string();
        command
            .env("TIDEMILL_BATCH", &context.plan.name)
            .env("TIDEMILL_STEP", &context.step.name)
            .env("TIDEMILL_SEED", context.plan.seed.to_string())
            .env("TIDEMILL_THREADS", &threads)
            // What most numeric libraries ask for.
            .env("OMP_NUM_THREADS", &threads);
        if let (Some(job), Some(model)) = (context.job, context.plan.model) {
            command.env("TIDEMILL_MODEL", &job.models[model].name);
        }
        if let Some(input) = self.input {
            let given = context.given(&context.plan.steps[input].name)?;
            let first = given.record.outputs.first().ok_or_else(|| {
                StepError::hopeless(format!("step `{}` leaves no file", context.plan.steps[input].name))
            })?;
            command.env("TIDEMILL_SET", absolute(&given.directory.join(&first.file))?);
            for output in &given.record.outputs {
                let name: String =
                    output.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
                let variable = format!("TIDEMILL_IN_{}", name.to_ascii_uppercase());
                command.env(variable, absolute(&given.directory.join(&output.file))?);
            }
        }
        if let Some(file) = &self.out {
            command.env("TIDEMILL_OUT", absolute(&context.out(file))?);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, StepError> {
    std::path::absolute(path).map_err(StepError::again)
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "onnx")
}

/// Holds an ONNX file against the inputs and outputs of the job's model, if the file is for one.
fn check_model(path: &Path, context: &Context<'_>) -> Result<(), StepError> {
    let model =
        Model::load(path).map_err(|error| StepError::hopeless(format!("the ONNX file is not sound: {error}")))?;
    if let (Some(job), Some(index)) = (context.job, context.plan.model) {
        fits(&model, job, index)?;
    }
    Ok(())
}

/// Whether a model takes and gives what the job's model does.
pub fn fits(model: &Model, job: &Plan, index: usize) -> Result<(), StepError> {
    let plan = &job.models[index];
    let columns: Vec<_> =
        job.sets[plan.inputs].columns.iter().map(|c| (c.name.as_str(), c.data_type.clone())).collect();
    model.bind(&columns, &plan.outputs).map(drop).map_err(|problems| {
        StepError::hopeless(format!("the ONNX file is no `{}`: {}", plan.name, problems.join("; ")))
    })
}
