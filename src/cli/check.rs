//! `tidemill check JOB.yaml`: validate, print the plan.

use clap::Args;
use serde_json::{Value, json};

use super::failure::tally;
use super::job::JobArgs;
use super::output::{print, print_json};
use crate::base::{Faults, Severity};
use crate::engine;
use crate::plan::model::Plan;

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Print the outcome, every fault and the plan as JSON.
    #[arg(long)]
    json: bool,
}

/// Validates a job, its models included, and prints what it would run.
pub fn run(args: CheckArgs) -> anyhow::Result<()> {
    let outcome = args.job.load().and_then(|job| Ok((describe(&job.plan, &args.job)?, job.warnings)));
    match outcome {
        Ok((plan, warnings)) if args.json => print_json(&document(Some(&plan), &warnings)),
        Ok((plan, warnings)) => {
            print(&plan)?;
            if !warnings.list.is_empty() {
                eprintln!("{warnings}{}", tally(&warnings));
            }
            Ok(())
        }
        Err(error) => {
            if let (true, Some(faults)) = (args.json, error.downcast_ref::<Faults>()) {
                print_json(&document(None, faults))?;
            }
            Err(error)
        }
    }
}

/// The plan in words; what is wrong with it is told of the file that the user named.
fn describe(plan: &Plan, job: &JobArgs) -> Result<String, Faults> {
    engine::check(plan).map_err(|faults| Faults { file: job.file.display().to_string(), ..faults })
}

fn document(plan: Option<&str>, faults: &Faults) -> Value {
    let list: Vec<Value> = faults
        .list
        .iter()
        .map(|f| {
            let severity = match f.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            json!({
                "severity": severity, "file": faults.file, "line": f.line, "column": f.column,
                "path": f.path, "what": f.what, "mend": f.mend,
            })
        })
        .collect();
    json!({ "ok": plan.is_some(), "faults": list, "plan": plan })
}
