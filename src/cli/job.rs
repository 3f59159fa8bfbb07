//! The arguments that name a job, and its loading.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::usage;
use crate::base::{Fault, Faults};
use crate::engine;
use crate::plan::model::Plan;

/// The job's file and what is changed in it for this run.
#[derive(Args, Debug)]
pub struct JobArgs {
    /// The job's dataflow file.
    #[arg(value_name = "JOB.yaml")]
    pub file: PathBuf,
    #[command(flatten)]
    pub sets: SetArgs,
}

/// Changes to a dataflow file, given on the command line.
#[derive(Args, Debug)]
pub struct SetArgs {
    /// Set a value of the file, such as `--set sinks.offline.delta.uri=/tmp/lake`; repeatable.
    #[arg(long = "set", value_name = "PATH.TO.KEY=VALUE", value_parser = assignment)]
    pub sets: Vec<(String, String)>,
}

/// Reads `key=value`; the value may hold more `=`.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// A loaded job: its plan and the warnings about its file.
#[derive(Debug)]
pub struct Job {
    pub plan: Plan,
    pub warnings: Faults,
}

impl JobArgs {
    /// Reads and compiles the job's file, with the process's environment.
    pub fn load(&self) -> anyhow::Result<Job> {
        load(&self.file, &self.sets.sets, None)
    }

    /// Like [`JobArgs::load`], for a job whose state is in a directory.
    pub fn load_with_state(&self, state: Option<&Path>) -> anyhow::Result<Job> {
        load(&self.file, &self.sets.sets, state)
    }

    /// Like [`JobArgs::load_with_state`]; warnings go to standard error.
    pub fn load_and_warn(&self, state: Option<&Path>) -> anyhow::Result<Plan> {
        let job = self.load_with_state(state)?;
        eprint!("{}", job.warnings);
        Ok(job.plan)
    }
}

/// Reads and compiles a job's file, with the process's environment.
pub fn load(file: &Path, sets: &[(String, String)], state: Option<&Path>) -> anyhow::Result<Job> {
    // A better sentence than the loader's for the commonest slip.
    if !file.is_file() {
        let why = if file.is_dir() { "is a directory; name the job's file in it" } else { "does not exist" };
        return Err(usage(format!("{} {why}", file.display())));
    }
    let (plan, warnings): (Plan, Vec<Fault>) =
        engine::load_with_state(file, sets, &|name| std::env::var(name).ok(), state)?;
    Ok(Job { plan, warnings: Faults { file: file.display().to_string(), list: warnings } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments() {
        let pair = |k: &str, v: &str| Ok((k.to_owned(), v.to_owned()));
        assert_eq!(assignment("a.b=c"), pair("a.b", "c"));
        assert_eq!(assignment("where=a = 1"), pair("where", "a = 1"));
        assert_eq!(assignment("a="), pair("a", ""));
        assert!(assignment("a").is_err());
        assert!(assignment("=a").is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("no/such/job.yaml"), &[], None).unwrap_err();
        assert_eq!(error.to_string(), "no/such/job.yaml does not exist");
    }
}
