//! `tidemill features get VIEW k=v …`: what a reader would be served now, or at a time.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::usage;
use super::job::{SetArgs, assignment, load};
use super::output::{print, print_json};
use crate::base::parse_time;
use crate::plan::model::OnlinePlace;
use crate::store::StoreError;
use crate::store::lookup::{FeatureRow, get_as_of, get_online};
use crate::store::online::OnlineReader;

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
    /// The directory of an embedded online store, instead of --job.
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
    let row = args.get().map_err(|error| match error.downcast::<StoreError>() {
        // A question that cannot be asked of this view is the caller's.
        Ok(StoreError::Request(what)) => usage(what),
        Ok(other) => other.into(),
        Err(other) => other,
    })?;
    if args.json { print_json(&row) } else { print(&row.to_string()) }
}

impl GetArgs {
    fn get(&self) -> anyhow::Result<FeatureRow> {
        let plan = self.job.as_deref().map(|file| load(file, &self.sets.sets, None)).transpose()?.map(|job| job.plan);
        let Some(at) = &self.as_of else {
            let place = self.online.clone().map(OnlinePlace::Embedded);
            let place = place.or_else(|| plan.as_ref()?.online.as_ref().map(|o| o.store.clone()));
            let place = place.ok_or_else(|| usage("the job has no online sink; read its tables with --as-of TIME"))?;
            return Ok(get_online(&OnlineReader::of(&place)?, &self.view, &self.keys)?);
        };
        let at = parse_time(at).map_err(|what| usage(format!("--as-of: {what}")))?;
        let dir = self.offline.clone().or_else(|| plan.as_ref()?.offline.as_ref().map(|o| PathBuf::from(&o.uri)));
        let dir = dir.ok_or_else(|| usage("the job has no offline sink, so its past is not kept"))?;
        let view = plan.as_ref().and_then(|p| p.views.iter().find(|v| v.name == self.view));
        Ok(get_as_of(&dir, &self.view, &self.keys, at, view.and_then(|v| v.ttl))?)
    }
}
