//! `tidemill check JOB.yaml`: validate, print the plan.

use clap::Args;
use serde_json::{Value, json};

use super::failure::{tally, usage};
use super::job::JobArgs;
use super::output::{print, print_json};
use crate::base::{Faults, Severity};
use crate::engine::{self, Changes};
use crate::plan::model::Plan;

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Say what the job would keep, gain and lose of this savepoint, or of another state directory's newest epoch.
    #[arg(long, value_name = "SAVEPOINT")]
    from: Option<String>,
    /// Print the outcome, every fault and the plan as JSON.
    #[arg(long)]
    json: bool,
}

/// Validates a job, its models included, or a batch dataflow, and prints what it would run.
pub fn run(args: CheckArgs) -> anyhow::Result<()> {
    if super::train::is_batch(&args.job.file) {
        return batch(&args);
    }
    let outcome = args.job.load().and_then(|job| {
        let changes = args.from.as_deref().map(|from| engine::compare(&job.plan, from)).transpose()?;
        Ok((describe(&job.plan, &args.job)?, changes, job.warnings))
    });
    match outcome {
        Ok((plan, changes, warnings)) if args.json => {
            print_json(&document(Some(&plan), changes.as_ref(), &warnings))?;
            accepted(changes.as_ref())
        }
        Ok((plan, changes, warnings)) => {
            print(&plan)?;
            if let Some(changes) = &changes {
                print(&format!("\nfrom {}, the job\n{}", args.from.unwrap_or_default(), changes.text()))?;
            }
            if !warnings.list.is_empty() {
                eprintln!("{warnings}{}", tally(&warnings));
            }
            accepted(changes.as_ref())
        }
        Err(error) => {
            if let (true, Some(faults)) = (args.json, error.downcast_ref::<Faults>()) {
                print_json(&document(None, None, faults))?;
            }
            Err(error)
        }
    }
}

/// Validates a batch dataflow and prints its steps.
fn batch(args: &CheckArgs) -> anyhow::Result<()> {
    if args.from.is_some() {
        return Err(usage("--from is for jobs; a batch dataflow has no state"));
    }
    match crate::batch::load(&args.job.file, &args.job.sets.sets, &[]) {
        Ok((plan, list)) => {
            let warnings = Faults { file: args.job.file.display().to_string(), list };
            if args.json {
                return print_json(&document(Some(&plan.describe()), None, &warnings));
            }
            print(&plan.describe())?;
            if !warnings.list.is_empty() {
                eprintln!("{warnings}{}", tally(&warnings));
            }
            Ok(())
        }
        Err(faults) => {
            if args.json {
                print_json(&document(None, None, &faults))?;
            }
            Err(faults.into())
        }
    }
}

/// The plan in words; what is wrong with it is told of the file that the user named.
fn describe(plan: &Plan, job: &JobArgs) -> Result<String, Faults> {
    engine::check(plan).map_err(|faults| Faults { file: job.file.display().to_string(), ..faults })
}

/// A loss has to be accepted by the run.
fn accepted(changes: Option<&Changes>) -> anyhow::Result<()> {
    match changes {
        Some(changes) if !changes.lost.is_empty() => {
            Err(anyhow::anyhow!("state would be lost; put back what is missing, or run with --allow-drop"))
        }
        _ => Ok(()),
    }
}

fn document(plan: Option<&str>, changes: Option<&Changes>, faults: &Faults) -> Value {
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
    let mut document = json!({ "ok": plan.is_some(), "faults": list, "plan": plan });
    if let Some(changes) = changes {
        document["changes"] = json!(changes);
    }
    document
}
