//! `tidemill features get VIEW k=v …`: what a reader would be served now, or at a time.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::job::{SetArgs, assignment};

/// Commands on features.
#[derive(Debug, Subcommand)]
pub enum FeaturesCommand {
    /// Read one entity's features from the online store of a running or stopped job.
    Get(GetArgs),
}

/// Arguments of `features get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// The feature view.
    view: String,
    /// The entity: a value for each key column of the view, such as `customer_id=42`.
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = assignment)]
    keys: Vec<(String, String)>,
    /// The job's dataflow file, which says where the stores are.
    #[arg(long, value_name = "JOB.yaml", required_unless_present_any = ["online", "offline"])]
    job: Option<PathBuf>,
    #[command(flatten)]
    sets: SetArgs,
    /// The online store's directory, instead of --job.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["job", "as_of"])]
    online: Option<PathBuf>,
    /// The offline store's directory, instead of --job with --as-of.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["job", "online"], requires = "as_of")]
    offline: Option<PathBuf>,
    /// Read the offline store instead: the entity's features as of this event time.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a command on features.
pub fn run(command: FeaturesCommand) -> anyhow::Result<()> {
    let FeaturesCommand::Get(args) = command;
    let _ = args;
    anyhow::bail!("stores are not linked yet")
}
