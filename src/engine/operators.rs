//! The stateful operators of a plan, by the names under which their state is saved, with what each state means in words.
//!
//! State is taken over when an operator of the same name means the same. What is said of an operator must therefore name all
//! that its state depends on, and nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::monitor;
use super::monitor::{drift, label_drift};
use super::retrain;
use super::rollout;
use super::stage::{join_name, view_name};
use crate::base::format_duration;
use crate::plan::chain::Chain;
use crate::plan::model::{Order, Plan, SourcePlan, StreamRef, ViewPlan, Window};

/// Begins the names of operators that hold rows until the watermark passes them.
const REORDER: &str = "reorder ";

/// What a changed job keeps, gains and loses of saved state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Operators whose state goes on.
    pub kept: Vec<String>,
    /// Operators that begin without state.
    pub gained: Vec<String>,
    /// Operators whose state is dropped, with the reason.
    pub lost: Vec<(String, String)>,
}

impl Changes {
    /// Holds saved operators against those of a plan.
    pub fn between(saved: &BTreeMap<String, String>, planned: &BTreeMap<String, String>) -> Changes {
        let mut changes = Changes::default();
        for (name, was) in saved {
            let lost = |why: String| match name.starts_with(REORDER) {
                true => (name.clone(), format!("rows that were read and wait for the watermark would go: {why}")),
                false => (name.clone(), why),
            };
            match planned.get(name) {
                Some(is) if is == was || is_waiting(name, was, is) => changes.kept.push(name.clone()),
                Some(is) => changes.lost.push(lost(format!("it was `{was}` and is `{is}`"))),
                None => changes.lost.push(lost("the job has it no more".to_owned())),
            }
        }
        changes.gained = planned.keys().filter(|name| !changes.kept.contains(name)).cloned().collect();
        changes
    }

    /// The changes in words, a line each.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "keeps the state of: {}", list(&self.kept));
        let _ = writeln!(text, "begins without state: {}", list(&self.gained));
        for (name, why) in &self.lost {
            let _ = writeln!(text, "loses the state of: {name}: {why}");
        }
        text
    }
}

/// Whether the same rows wait. What was said of them once named the key that they were saved by, which makes no difference.
fn is_waiting(name: &str, was: &str, is: &str) -> bool {
    name.starts_with(REORDER) && was.strip_prefix(is).is_some_and(|rest| rest.starts_with(" by "))
}

/// The stateful operators of a plan: what their state means, by name.
pub fn operators(plan: &Plan, chains: &[Chain]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut seen: Vec<usize> = Vec::new();
    let reorder = |all: &mut BTreeMap<String, String>, source: usize, reader: &str| {
        if plan.order == Order::EventTime {
            let source = &plan.sources[source];
            all.insert(format!("{REORDER}{} for {reader}", source.name), format!("rows ({})", columns(source)));
        }
    };
    for join in &plan.joins {
        let (left, right) = (&plan.sources[join.left], &plan.sources[join.right]);
        let (left_on, right_on) =
            (left.stream_schema.field(join.left_on).name(), right.stream_schema.field(join.right_on).name());
        let name = join_name(join);
        reorder(&mut all, join.left, &name);
        reorder(&mut all, join.right, &name);
        let right_columns: Vec<&str> =
            join.right_columns.iter().map(|c| right.stream_schema.field(*c).name().as_str()).collect();
        let meaning = format!(
            "{} ({}) by {left_on} with {} ({}) by {right_on} within {}",
            left.name,
            columns(left),
            right.name,
            right_columns.join(", "),
            format_duration(join.within)
        );
        all.insert(name, meaning);
    }
    for chain in chains {
        let spine = &plan.sources[chain.spine];
        reorder(&mut all, chain.spine, &format!("rows of {}", spine.name));
        for &index in &chain.views {
            let view = &plan.views[index];
            let name = view_name(view, seen.contains(&index).then_some(spine));
            seen.push(index);
            match view.stream {
                StreamRef::Source(source) if source != chain.spine => {
                    reorder(&mut all, source, &name);
                }
                _ => {}
            }
            all.insert(name, meaning(plan, view));
        }
    }
    for described in &plan.monitors {
        for (name, meaning) in [
            (drift::windows_name(plan, described), drift::windows_meaning(described)),
            (label_drift::name(plan, described), label_drift::meaning(plan, described)),
        ] {
            all.extend(meaning.map(|meaning| (name, meaning)));
        }
        let Some(labels) = described.labels.map(|labels| &plan.labels[labels]) else { continue };
        reorder(&mut all, labels.from, &monitor::name(plan, described));
        all.insert(monitor::matches::name(plan, described), monitor::matches::meaning(plan, described, labels));
        all.insert(monitor::accuracy::name(plan, described), monitor::accuracy::meaning(plan, described));
        if !described.detectors.is_empty() {
            all.insert(monitor::detect::name(plan, described), monitor::detect::meaning(plan, described));
        }
    }
    all.extend(rollout::operators(plan));
    if monitor::alerts::wanted(plan) {
        all.insert(monitor::alerts::NAME.to_owned(), monitor::alerts::MEANING.to_owned());
    }
    if retrain::wanted(plan) {
        all.insert(retrain::NAME.to_owned(), retrain::MEANING.to_owned());
    }
    all
}

fn columns(source: &SourcePlan) -> String {
    let fields = source.stream_schema.fields().iter();
    fields.map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
}

/// What the state of a view holds.
fn meaning(plan: &Plan, view: &ViewPlan) -> String {
    let (stream, schema, derived) = match view.stream {
        StreamRef::Source(source) => {
            let source = &plan.sources[source];
            (&source.name, &source.stream_schema, &source.derived)
        }
        StreamRef::Join(join) => {
            let join = &plan.joins[join];
            (&join.name, &join.schema, &plan.sources[join.left].derived)
        }
    };
    let mut text = format!("{stream} by {}", view.entity_names.join(", "));
    let mut aggregates: Vec<String> = view
        .aggregates
        .iter()
        .map(|aggregate| {
            let input = aggregate.input.map_or("*", |column| schema.field(column).name());
            let expression =
                derived.iter().find(|d| d.name == input).map_or(String::new(), |d| format!(" = {}", d.expr.text));
            let kind = aggregate.input_type.as_ref().map_or(String::new(), |kind| format!(" {kind}"));
            let window = match aggregate.window {
                Window::Trailing(width) => format_duration(width),
                Window::Lifetime => "lifetime".to_owned(),
            };
            let tiles = aggregate.resolution.map_or(String::new(), |r| format!(" in tiles of {}", format_duration(r)));
            format!("{:?}({input}{kind}{expression}) over {window}{tiles}", aggregate.function).to_lowercase()
        })
        .collect();
    aggregates.dedup();
    let _ = write!(text, ": {}", aggregates.join("; "));
    if view.delay > 0 {
        let _ = write!(text, "; delayed by {}", format_duration(view.delay));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_named() {
        let map = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let saved = map(&[("view a", "x"), ("view b", "y"), ("view c", "z")]);
        let planned = map(&[("view a", "x"), ("view b", "Y"), ("view d", "w")]);
        let changes = Changes::between(&saved, &planned);
        assert_eq!(changes.kept, ["view a"]);
        assert_eq!(changes.gained, ["view b", "view d"]);
        let lost: Vec<&str> = changes.lost.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(lost, ["view b", "view c"]);
        let (was, is) = (map(&[("reorder tx", "rows (a Int64) by a")]), map(&[("reorder tx", "rows (a Int64)")]));
        assert_eq!(Changes::between(&was, &is).kept, ["reorder tx"]);
        let is = map(&[("reorder tx", "rows (a Int64, b Int64)")]);
        let lost = Changes::between(&was, &is).lost;
        assert!(lost.len() == 1 && lost[0].1.starts_with("rows that were read and wait for the watermark would go"));
        let text = changes.text();
        assert!(text.contains("loses the state of: view b: it was `y` and is `Y`"), "{text}");
    }
}
