//! `tidemill models`: what is registered, and how that is changed.

mod change;
mod register;
mod request;
mod show;
mod text;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::usage;
use super::job::SetArgs;
use crate::base::{Blame, ModelRef, Selector};
use crate::plan;
use crate::registry::{By, Registry, RegistryError};

/// Where registered models are kept, when nobody says so.
const DEFAULT: &str = "./registry";

/// The variable that says where.
const VARIABLE: &str = "TIDEMILL_REGISTRY";

/// `tidemill models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List the registered models: their versions, and which is the champion.
    List(show::ListArgs),
    /// Show a model and its versions, or all that is known of one version.
    Show(show::ShowArgs),
    /// Register an ONNX file as the next version of a model.
    ///
    /// What it takes and gives is read from the file; a file that cannot be scored with is refused. The file is kept under the
    /// hash of its content.
    #[command(after_help = register::EXAMPLE)]
    Register(register::RegisterArgs),
    /// Make a version the champion.
    ///
    /// Says what changes: version, signature, metrics, data. A version that takes or gives something else than the champion
    /// is refused without --force. The alias `challenger` is taken from the version that is promoted.
    Promote(change::PromoteArgs),
    /// Make the version the champion that was it before.
    Rollback(change::RollbackArgs),
    /// Ask jobs that roll out a model's challenger to go no further for now.
    ///
    /// Its share of rows stays what it is; guards go on and may still take it back. The request is an entry of the history,
    /// which running jobs follow.
    Hold(request::RequestArgs),
    /// Ask jobs that hold the rollout of a model's challenger to go on with it.
    Resume(request::RequestArgs),
    /// Give an alias to a version, or take it away.
    ///
    /// A challenger whose alias is taken away is rolled out no further: jobs go back to the champion.
    Alias(change::AliasArgs),
    /// Tell what was done to a model, by whom and why, newest last.
    History(show::HistoryArgs),
    /// Look for damage: entries of the history and files that are missing or are not what was written.
    Mend(change::MendArgs),
}

/// Where the registry is.
#[derive(Args, Debug)]
pub struct PlaceArgs {
    /// Directory or address (`s3://…`) of the registry. Default: $TIDEMILL_REGISTRY, else ./registry.
    #[arg(long, value_name = "URI", conflicts_with = "job")]
    registry: Option<String>,
    /// The registry that a job's file names.
    #[arg(long, value_name = "JOB.yaml")]
    job: Option<PathBuf>,
    #[command(flatten)]
    sets: SetArgs,
}

impl PlaceArgs {
    fn uri(&self) -> anyhow::Result<String> {
        if let Some(job) = &self.job {
            return Ok(plan::registry_of(job, &self.sets.sets, &|name| std::env::var(name).ok())?);
        }
        if !self.sets.sets.is_empty() {
            return Err(usage("--set changes a job's file; name it with --job"));
        }
        let variable = || std::env::var(VARIABLE).ok().filter(|uri| !uri.is_empty());
        Ok(self.registry.clone().or_else(variable).unwrap_or_else(|| DEFAULT.to_owned()))
    }

    /// Number and file of a registered version.
    pub fn file(&self, reference: &ModelRef) -> anyhow::Result<(u32, PathBuf)> {
        let registry = self.existing()?;
        let version = registry.version(&reference.name, &reference.version).map_err(failed)?;
        Ok((version.number, registry.artifact(&version.artifact.hash).map_err(failed)?))
    }

    /// The registry, which must be there.
    fn existing(&self) -> anyhow::Result<Registry> {
        Registry::existing(&self.uri()?).map_err(failed)
    }

    /// The registry, which is made when it is not there.
    fn open(&self) -> anyhow::Result<Registry> {
        Registry::open(&self.uri()?).map_err(failed)
    }
}

/// Who does it, and why.
#[derive(Args, Debug)]
pub struct ByArgs {
    /// The reason, for the history.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: String,
    /// Who does it. Default: the user.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Name the deed: what was done under this key is not done again. For scripts that try again.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl ByArgs {
    fn by(&self) -> By {
        let variable = |name: &str| std::env::var(name).ok().filter(|user| !user.is_empty());
        let user = || variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "unknown".to_owned());
        let by = By::new(self.by.clone().unwrap_or_else(user), self.why.clone());
        By { key: self.key.clone(), ..by }
    }
}

/// Shows, registers and moves registered models.
pub fn run(command: ModelsCommand) -> anyhow::Result<()> {
    match command {
        ModelsCommand::List(args) => show::list(&args),
        ModelsCommand::Show(args) => show::show(&args),
        ModelsCommand::Register(args) => register::register(&args),
        ModelsCommand::Promote(args) => change::promote(&args),
        ModelsCommand::Rollback(args) => change::rollback(&args),
        ModelsCommand::Hold(args) => request::request(&args, request::HOLD),
        ModelsCommand::Resume(args) => request::request(&args, request::RESUME),
        ModelsCommand::Alias(args) => change::alias(&args),
        ModelsCommand::History(args) => show::history(&args),
        ModelsCommand::Mend(args) => change::mend(&args),
    }
}

/// What was asked for and is not there is the caller's slip; what others did or a disk did is not.
fn failed(error: RegistryError) -> anyhow::Error {
    let theirs = matches!(error, RegistryError::Conflict { .. } | RegistryError::NoPrevious { .. });
    if error.blame() == Blame::User && !theirs { usage(error.to_string()) } else { error.into() }
}

/// Reads `fraud@3`, `fraud@challenger`.
fn reference(text: &str) -> Result<ModelRef, String> {
    text.parse()
}

/// Reads `3`, `challenger`, `latest`.
fn selector(text: &str) -> Result<Selector, String> {
    text.parse()
}
