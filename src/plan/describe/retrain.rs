//! When models are retrained, in words.

use std::fmt::Write;

use crate::base::format_duration;
use crate::plan::model::Plan;

/// What starts which batch dataflow.
pub(super) fn write_retrains(out: &mut String, plan: &Plan) -> std::fmt::Result {
    for retrain in &plan.retrains {
        writeln!(out, "\nretraining of {}: {}", plan.models[retrain.model].name, retrain.job.display())?;
        let on: Vec<String> = retrain.on.iter().map(ToString::to_string).collect();
        match on.is_empty() {
            true => writeln!(out, "  by hand alone")?,
            false => {
                writeln!(
                    out,
                    "  on {}; none sooner than {} after the last",
                    on.join(", "),
                    format_duration(retrain.cool_down)
                )?;
            }
        }
    }
    Ok(())
}
