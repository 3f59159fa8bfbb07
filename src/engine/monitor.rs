//! The monitors of a job in its graph: what they take of scored rows and labels, and the statistics that leave.

pub mod accuracy;
pub mod alerts;
pub mod detect;
pub mod drift;
pub mod label_drift;
pub mod matches;
mod operation;
pub mod receivers;
pub mod reference;
pub mod training;

use std::sync::Arc;

use timely::dataflow::Scope;

use self::matches::Matched;
use super::rollout;
use super::shared::Shared;
use super::ticked::{Control, Port, Rows};
use crate::base::Tick;
use crate::monitor::StatKind;
use crate::monitor::drift::labels::LabelWatch;
use crate::monitor::drift::windows::Watch;
use crate::plan::model::{MonitorPlan, Plan};

/// Statistics of one kind on their way to tables, topics, alerts and pages, as rows of [`crate::monitor::stat_schema`].
pub struct Statistics<'s> {
    /// The monitor, by index.
    pub monitor: usize,
    /// Which table they go to.
    pub kind: StatKind,
    /// The rows.
    pub rows: Rows<'s>,
}

/// Name of a monitor, which begins the names of its operators.
pub fn name(plan: &Plan, monitor: &MonitorPlan) -> String {
    format!("monitor {}", plan.models[monitor.model].name)
}

/// What is watched of a monitor's rows, and where duplicates are told of.
pub struct Watched<'a, 's> {
    /// The columns with their references; nothing where neither drift nor quality is asked for.
    pub watch: Option<&'a Arc<Watch>>,
    /// The label with its reference; nothing where its drift is not asked for.
    pub labels: Option<&'a Arc<LabelWatch>>,
    /// Rows of the table `dead_letters`, where duplicates are counted.
    pub dead: Option<Rows<'s>>,
    /// Commands about versions, where windows are held against the champion's training set and another may become it.
    pub commands: Option<Rows<'s>>,
}

/// Attaches a monitor to the scored rows of its model, and the rows of its labels' source, where it has labels, on the
/// worker of their id and in the plan's order. Beside the statistics it returns the stream of matches, where there are labels.
pub fn monitor<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    monitor: usize,
    scored: Rows<'s>,
    labels: Option<Port<'s>>,
    watched: Watched<'_, 's>,
) -> (Vec<Statistics<'s>>, Option<Rows<'s>>) {
    let mut statistics = Vec::new();
    let mut labelled = None;
    statistics.extend(operation::operation(scope, shared, control, monitor));
    // Whoever reads the scored rows first counts them.
    let (first, second) = (control.clone(), if labels.is_some() { control.inside() } else { control.clone() });
    let control = &control.inside();
    // What labels say of predictions: read by whatever compares the two. Whoever reads the stream of matches says so here:
    // else it has no rows.
    let rolled_out = rollout::is_rolled_out(&shared.plan, shared.plan.monitors[monitor].model);
    let read = !shared.plan.monitors[monitor].detectors.is_empty() || watched.labels.is_some() || rolled_out;
    let matched = labels.map(|labels| matches::matches(scope, shared, first, monitor, read, scored.clone(), labels));
    if let Some(Matched { rows, ripe }) = matched {
        labelled = Some(rows.clone());
        let told = accuracy::accuracy(scope, shared, control.clone(), monitor, ripe);
        statistics.push(Statistics { monitor, kind: StatKind::Accuracy, rows: told });
        if let Some(watch) = watched.labels {
            statistics.push(label_drift::label_drift(
                scope,
                shared,
                control,
                monitor,
                watch,
                rows.clone(),
                watched.commands.clone(),
            ));
        }
        if !shared.plan.monitors[monitor].detectors.is_empty() {
            let rows = detect::detect(scope, shared, control.clone(), monitor, rows);
            statistics.push(Statistics { monitor, kind: StatKind::Drift, rows });
        }
    }
    if let Some(watch) = watched.watch {
        statistics.extend(drift::drift(
            scope,
            shared,
            &second,
            monitor,
            watch,
            (scored, watched.dead),
            watched.commands,
        ));
    }
    (statistics, labelled)
}

#[cfg(test)]
mod tests;
