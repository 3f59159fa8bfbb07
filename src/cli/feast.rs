//! `tidemill feast export`: definitions for Feast's SDK.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::failure::usage;
use super::job::JobArgs;
use super::output::print;
use crate::plan::feast::{DEFINITIONS, Online, SETTINGS, repository};

/// Commands for Feast.
#[derive(Debug, Subcommand)]
pub enum FeastCommand {
    /// Write a Feast repository for a job: settings, entities, feature views, feature services.
    ///
    /// `feast apply` takes it as it is. Online values come from the job's Redis, which must have `layout: feast`, or with
    /// --remote from a server; historical ones from the job's tables. Secrets stay references to environment variables.
    Export(ExportArgs),
}

/// Arguments of `feast export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The repository's directory; made if it is not there. Files of an earlier export are replaced, others never.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Read online values from the server at this URL, such as http://localhost:7070, instead of from Redis.
    #[arg(long, value_name = "URL")]
    remote: Option<String>,
    /// The environment variable in which readers have the token that the server asks for; only its name is written.
    #[arg(long, value_name = "NAME", requires = "remote")]
    token_env: Option<String>,
    /// Feast's project, with --remote. Default: that of the job's online store, else the job's name.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
}

/// Runs a command for Feast.
pub fn run(command: FeastCommand) -> anyhow::Result<()> {
    let FeastCommand::Export(args) = command;
    let plan = args.job.load_and_warn(None)?;
    let online = match args.remote {
        None => Online::Redis,
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
            Online::Remote { url, token: args.token_env }
        }
        Some(url) => return Err(usage(format!("--remote {url}: give a URL that begins with http:// or https://"))),
    };
    let repository = repository(&plan, &online, args.project.as_deref()).map_err(usage)?;
    let files = [(SETTINGS, &repository.settings), (DEFINITIONS, &repository.definitions)];
    for (name, _) in &files {
        ours(&args.out.join(name))?;
    }
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    for (name, text) in files {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut text = format!("wrote {SETTINGS} and {DEFINITIONS} to {}\n", args.out.display());
    if !repository.variables.is_empty() {
        text += &format!("set before use: {}\n", repository.variables.join(", "));
        if repository.variables.iter().any(|name| name == "FEAST_REDIS_CONNECTION") {
            text += "  FEAST_REDIS_CONNECTION is Feast's form of the address: HOST:PORT,db=N,username=…,password=…\n";
        }
    }
    text += &format!("next: feast --chdir {} apply\n", args.out.display());
    print(&text)
}

/// Refuses to replace what was not exported.
fn ours(path: &Path) -> anyhow::Result<()> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.starts_with("# Made by `tidemill feast export`") => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(usage(format!(
            "{} is there and was not made by `tidemill feast export`; give another directory, or remove it",
            path.display()
        ))),
    }
}
