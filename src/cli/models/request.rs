//! `tidemill models hold` and `resume`: what running jobs are asked for.

use clap::Args;
use serde_json::json;

use super::{ByArgs, PlaceArgs, failed};
use crate::cli::failure::usage;
use crate::cli::output::{print, print_json};
use crate::registry::CHALLENGER;

/// Go no further.
pub const HOLD: &str = "hold";
/// Go on.
pub const RESUME: &str = "resume";

/// Arguments of `models hold` and `models resume`.
#[derive(Args, Debug)]
pub struct RequestArgs {
    /// The model.
    #[arg(value_name = "NAME")]
    model: String,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// Asks the jobs that roll out a model's challenger for something.
pub fn request(args: &RequestArgs, what: &str) -> anyhow::Result<()> {
    let registry = args.place.existing()?;
    let model = registry.model(&args.model).map_err(failed)?;
    let Some(challenger) = model.aliases.get(CHALLENGER).copied() else {
        return Err(usage(format!("model `{}` has no {CHALLENGER}, so no rollout can {what}", model.name)));
    };
    let by = args.by.by().numbers(json!({"do": what}));
    let entry = registry.note(&model.name, Some(challenger), "request", &by).map_err(failed)?;
    if args.json {
        let place = registry.place();
        return print_json(&json!({
            "registry": place, "model": model.name, "version": challenger, "request": what, "entry": entry,
        }));
    }
    print(&format!("jobs that roll out {} version {challenger} are asked to {what} (entry {entry})\n", model.name))
}
