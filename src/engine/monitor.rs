//! The monitors of a job in its graph: what they take of scored rows and labels, and the statistics that leave.

pub mod drift;
pub mod reference;

use std::sync::Arc;

use timely::dataflow::Scope;

use super::shared::Shared;
use super::ticked::{Control, Port, Rows};
use crate::base::Tick;
use crate::monitor::StatKind;
use crate::monitor::drift::windows::Watch;

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
pub fn name(shared: &Shared, monitor: usize) -> String {
    format!("monitor {}", shared.plan.models[shared.plan.monitors[monitor].model].name)
}

/// What is watched of a monitor's rows, and where duplicates are told of.
pub struct Watched<'a, 's> {
    /// The columns with their references; nothing where neither drift nor quality is asked for.
    pub watch: Option<&'a Arc<Watch>>,
    /// Rows of the table `dead_letters`, where duplicates are counted.
    pub dead: Option<Rows<'s>>,
}

/// Attaches a monitor to the scored rows of its model, and the rows of its labels' source, where it has labels, on the
/// worker of their id and in the plan's order.
pub fn monitor<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    monitor: usize,
    scored: Rows<'s>,
    labels: Option<Port<'s>>,
    watched: Watched<'_, 's>,
) -> Vec<Statistics<'s>> {
    let _ = labels;
    let mut statistics = Vec::new();
    if let Some(watch) = watched.watch {
        statistics.extend(drift::drift(scope, shared, control, monitor, watch, scored, watched.dead));
    }
    statistics
}
