//! From the typed configuration to the plan: names are resolved, expressions typed, columns pruned.
//!
//! The parts run one after the other and none stops at a fault. Whatever could not be made is remembered as declared but
//! broken, so that what refers to it is left out in silence instead of being reported again.

mod accuracy;
mod aggregate;
mod alerts;
mod condition;
mod connector;
mod detect;
mod drift;
mod feast;
mod join;
mod kafka;
mod latency;
mod message;
mod model_version;
mod monitor;
mod notify;
mod output;
mod post;
mod retrain;
mod rollout;
mod set;
mod source;
mod topic;
mod view;

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::catalog::Catalog;
use super::config::{ClockConfig, JobConfig, OrderConfig};
use super::expr::{ExprError, time_type};
use super::faults::{Collector, Path, Step};
use super::model::{CheckpointPlan, Clock, JoinPlan, Order, Plan, SourcePlan, StreamRef, TickPolicy, ViewPlan};
use super::nearest;
use super::registry::uri_of;
use super::yaml::{Data, Node, Place};
use crate::base::{ORD_COLUMN, TIME_COLUMN};

use join::Join;
use set::Set;
use source::Source;
use view::View;

/// What every part needs.
pub(super) struct Compiler<'a> {
    /// The file as read: knows what was declared, whether or not it was sound.
    pub tree: &'a Node,
    /// The job's name.
    pub job: &'a str,
    /// The job file's directory.
    pub directory: &'a FilePath,
    pub catalog: &'a dyn Catalog,
    pub faults: &'a mut Collector,
}

impl Compiler<'_> {
    /// Compiles the whole job; `None` when any fault forbids it.
    pub fn compile(&mut self, config: &JobConfig, fingerprint: String) -> Option<Plan> {
        let mut sources: Vec<Source> =
            config.sources.0.iter().enumerate().map(|(i, (name, c))| self.source(i, name, c)).collect();
        let joins: Vec<Join> =
            config.streams.0.iter().filter_map(|(name, c)| self.join(name, c, &mut sources)).collect();
        let mut views: Vec<View> =
            config.features.0.iter().filter_map(|(name, c)| self.view(name, c, &mut sources, &joins)).collect();
        let spines = self.spines(config, &sources, &views);
        for view in &mut views {
            if let Some((_, c)) = config.features.0.iter().find(|(name, _)| *name == view.name) {
                self.post(view, c, &spines, &mut sources, &joins);
            }
        }
        let sets: Vec<Set> = config
            .feature_sets
            .0
            .iter()
            .filter_map(|(name, c)| self.set(name, c, &mut sources, &views, &joins))
            .collect();
        let models = self.models(config, &sets);
        let labels = self.labels(config, &models, &sets, &mut sources);
        let mut monitors = self.monitors(config, &models, &labels, &sets, &mut sources);
        let rollouts = self.retrain(config, &models, &monitors, &sets, &mut sources);
        let receivers = self.alerts(config, &models, &mut monitors);
        let retrains = self.retrains(config, &models, &monitors, &labels);
        let tables = output::Tables::of(config);
        let online = self.online(config);
        let offline = self.offline(config, &tables);
        let topics = self.topics(config, &sources);
        if self.faults.fatal() {
            return None;
        }
        self.unused(config, &sources);

        let clock = match config.clock {
            ClockConfig::Event => Clock::Event,
            ClockConfig::Wall => Clock::Wall,
        };
        let paced = sources.iter().any(|s| s.connector.is_live());
        let order = match config.order {
            Some(OrderConfig::EventTime) => Order::EventTime,
            Some(OrderConfig::Arrival) => Order::Arrival,
            None if paced => Order::Arrival,
            None => Order::EventTime,
        };
        let sources: Vec<SourcePlan> = sources.into_iter().map(Source::finish).collect::<Option<_>>()?;
        let joins: Vec<JoinPlan> = joins.into_iter().map(|j| j.finish(&sources)).collect::<Option<_>>()?;
        let views: Vec<ViewPlan> = views.into_iter().map(|v| v.finish(&sources, &joins)).collect::<Option<_>>()?;
        let labels = labels.into_iter().map(|l| l.finish(&sources)).collect::<Option<_>>()?;
        self.feast(online.as_ref(), &sources, &joins, &views);
        if self.faults.fatal() {
            return None;
        }
        Some(Plan {
            job: config.job.0.clone(),
            version: config.version,
            clock,
            order,
            ticks: TickPolicy {
                interval: config.tick.interval.as_ref().map_or(20_000, |d| d.0),
                rows_max: config.tick.rows.unwrap_or(16_384) as usize,
                bytes_max: config.tick.bytes.unwrap_or(16 << 20) as usize,
                in_flight_max: config.tick.in_flight.unwrap_or(8) as usize,
            },
            checkpoint: CheckpointPlan {
                interval: config.checkpoint.interval.as_ref().map_or(10_000_000, |d| d.0),
                rows: config.checkpoint.rows,
                keep: config.checkpoint.keep.unwrap_or(3) as usize,
                keep_ticks: config.checkpoint.keep_ticks.as_ref().map_or(30 * 86_400_000_000, |d| d.0),
                uri: config.checkpoint.uri.as_ref().map(|uri| uri.0.clone()),
            },
            sources,
            joins,
            views,
            sets: sets.into_iter().map(|s| s.plan).collect(),
            models,
            labels,
            monitors,
            rollouts,
            retrains,
            receivers,
            online,
            offline,
            topics,
            registry: uri_of(config.registry.as_ref(), self.directory),
            fingerprint,
        })
    }

    /// Adds an error at the value of a path, or at the innermost part of the path that the file has.
    fn error(&mut self, path: &Path, what: impl Into<String>, mend: impl Into<String>) {
        let place = place_of(self.tree, path, false);
        self.faults.error(&place, path, what, mend);
    }

    /// Adds an error for each line of an outside answer.
    fn errors(&mut self, path: &Path, lines: &str) {
        for line in lines.lines().filter(|l| !l.trim().is_empty()) {
            self.error(path, line.trim(), "");
        }
    }

    /// Adds an error at the key that a path ends in.
    fn error_at_key(&mut self, path: &Path, what: impl Into<String>, mend: impl Into<String>) {
        let place = place_of(self.tree, path, true);
        self.faults.error(&place, path, what, mend);
    }

    /// Adds a warning at the key that a path ends in.
    fn warn(&mut self, path: &Path, what: impl Into<String>, mend: impl Into<String>) {
        let place = place_of(self.tree, path, true);
        self.faults.warn(&place, path, what, mend);
    }

    /// Adds an expression's error at the expression.
    fn expression_error(&mut self, path: &Path, error: &ExprError) {
        // What is broken has been reported where it stands.
        if !matches!(error, ExprError::Broken { .. }) {
            self.error(path, error.to_string(), error.mend());
        }
    }

    /// Whether the file has a mapping entry of that name, sound or not.
    fn declared(&self, section: &str, name: &str) -> bool {
        self.tree.get(section).is_some_and(|s| s.get(name).is_some())
    }

    /// Reports a name that the file does not declare; a declared but broken one has its own fault already.
    fn undeclared(&mut self, path: &Path, name: &str, what: &str, sections: &[&str]) {
        if sections.iter().any(|s| self.declared(s, name)) {
            return;
        }
        let mut names: Vec<String> = Vec::new();
        for section in sections {
            if let Some(Data::Map(entries)) = self.tree.get(section).map(|n| &n.data) {
                names.extend(entries.iter().map(|(k, _)| k.text.clone()));
            }
        }
        let mend = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => format!("declare it under `{}`", sections.join("` or `")),
            None => format!("there are {}", quoted(&names)),
        };
        self.error(path, format!("there is no {what} `{name}`"), mend);
    }

    /// Whether the file declares something in the view that a column of that name may come from, sound or not.
    fn may_have(&self, view: &str, column: &str) -> bool {
        let view = self.tree.get("features").and_then(|f| f.get(view));
        ["derive", "aggregates", "post"].iter().any(|section| {
            let Some(Data::Map(entries)) = view.and_then(|v| v.get(section)).map(|n| &n.data) else {
                return false;
            };
            entries.iter().any(|(k, _)| {
                column.strip_prefix(k.text.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            })
        })
    }

    /// Warns of sources and streams that nothing reads.
    fn unused(&mut self, config: &JobConfig, sources: &[Source]) {
        let mut read: BTreeSet<&str> = BTreeSet::new();
        for (_, stream) in &config.streams.0 {
            read.extend([stream.join.left.0.as_str(), stream.join.right.0.as_str()]);
        }
        read.extend(config.features.0.iter().map(|(_, v)| v.from.0.as_str()));
        read.extend(config.feature_sets.0.iter().map(|(_, s)| s.on.0.as_str()));
        read.extend(config.labels.0.iter().map(|(_, l)| l.from.0.as_str()));
        for source in sources {
            if !read.contains(source.name.as_str()) {
                let path = Path::of(&["sources", &source.name]);
                self.warn(&path, "nothing reads this source", "remove it, or name it in a view, stream or feature set");
            }
        }
        for (name, _) in &config.streams.0 {
            if !read.contains(name.as_str()) {
                self.warn(
                    &Path::of(&["streams", name]),
                    "nothing reads this stream",
                    "remove it, or name it in a view",
                );
            }
        }
    }
}

/// Where a path leads, as far as the file goes along with it.
pub(super) fn place_of(tree: &Node, path: &Path, key: bool) -> Place {
    let (mut node, mut place) = (tree, tree.place.clone());
    for step in path.steps() {
        let found = match (&node.data, step) {
            (Data::Map(entries), Step::Key(name)) => {
                entries.iter().find(|(k, _)| k.text == *name).map(|(k, v)| (v, if key { &k.place } else { &v.place }))
            }
            (Data::List(items), Step::Item(i)) => items.get(*i).map(|v| (v, &v.place)),
            _ => None,
        };
        let Some((next, at)) = found else { break };
        (node, place) = (next, at.clone());
    }
    place
}

pub(super) fn quoted(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|n| format!("`{}`", n.as_ref())).collect::<Vec<_>>().join(", ")
}

/// The source whose rows make up a stream: the left side of a join.
fn row_source(stream: StreamRef, joins: &[Join]) -> usize {
    match stream {
        StreamRef::Source(source) => source,
        StreamRef::Join(join) => joins[join].left,
    }
}

/// `_time` and `_ord`, then the given fields.
fn engine_schema(fields: impl IntoIterator<Item = Arc<Field>>) -> SchemaRef {
    let system = [Field::new(TIME_COLUMN, time_type(), false), Field::new(ORD_COLUMN, DataType::UInt64, false)];
    let all: Vec<Arc<Field>> = system.into_iter().map(Arc::new).chain(fields).collect();
    Arc::new(Schema::new(all))
}
