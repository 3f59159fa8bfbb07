//! Join streams.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

use super::source::Source;
use super::{Compiler, engine_schema};
use crate::base::Micros;
use crate::plan::config::StreamConfig;
use crate::plan::expr::{Resolution, Scope};
use crate::plan::faults::Path;
use crate::plan::model::{JoinPlan, SourcePlan};

/// A join on its way to a [`JoinPlan`].
pub(super) struct Join {
    pub name: String,
    pub left: usize,
    pub right: usize,
    pub on: String,
    pub within: Micros,
    /// Right columns: name in the right source, name in the joined stream.
    right_names: Vec<(String, String)>,
    /// The names that expressions may use; `None` when either side's columns could not be found out.
    pub scope: Option<Scope>,
    /// Right columns that something uses, by their name in the right source.
    pub used: std::cell::RefCell<Vec<String>>,
}

impl Join {
    /// The right source's column that an engine column of the joined stream is.
    pub fn right_column(&self, engine: &str) -> Option<&str> {
        self.right_names.iter().find(|(_, e)| e == engine).map(|(n, _)| n.as_str())
    }

    pub fn finish(self, sources: &[SourcePlan]) -> Option<JoinPlan> {
        let (left, right) = (&sources[self.left].stream_schema, &sources[self.right].stream_schema);
        let used = self.used.borrow();
        let mut right_columns = Vec::new();
        let mut fields: Vec<Arc<Field>> = left.fields().iter().skip(2).cloned().collect();
        for (index, field) in right.fields().iter().enumerate() {
            if used.contains(field.name()) {
                let (_, engine) = self.right_names.iter().find(|(n, _)| n == field.name())?;
                right_columns.push(index);
                fields.push(Arc::new(Field::new(engine, field.data_type().clone(), true)));
            }
        }
        Some(JoinPlan {
            left: self.left,
            right: self.right,
            left_on: left.index_of(&self.on).ok()?,
            right_on: right.index_of(&self.on).ok()?,
            within: self.within,
            schema: engine_schema(fields),
            right_columns,
            name: self.name.clone(),
        })
    }
}

impl Compiler<'_> {
    pub(super) fn join(&mut self, name: &str, config: &StreamConfig, sources: &mut [Source]) -> Option<Join> {
        let path = Path::of(&["streams", name, "join"]);
        let config = &config.join;
        let left = self.side(&path.key("left"), &config.left.0, sources);
        let right = self.side(&path.key("right"), &config.right.0, sources);
        let (left, right) = (left?, right?);
        if left == right {
            let mend = "declare a second source that reads the same data";
            self.error(&path.key("right"), format!("both sides are `{}`", config.left.0), mend);
            return None;
        }
        let on = &config.on.0;
        let left_type = self.source_column(&path.key("on"), on, &sources[left]);
        let right_type = self.source_column(&path.key("on"), on, &sources[right]);
        if let (Some(l), Some(r)) = (&left_type, &right_type) {
            if !same_keys(l, r) {
                let (ln, rn) = (&sources[left].name, &sources[right].name);
                self.error(
                    &path.key("on"),
                    format!("`{on}` is of type {l} in `{ln}` and of type {r} in `{rn}`"),
                    "both must be integers, or of one type",
                );
            } else if !is_key(l) {
                self.error(
                    &path.key("on"),
                    format!("`{on}` is of type {l}, which cannot be a key"),
                    "use integers or text",
                );
            }
        }
        for side in [left, right] {
            sources[side].note_column(on);
        }
        let (scope, right_names) = match (&sources[left].columns, &sources[right].columns) {
            (Some(l), Some(r)) => names(l, r, on, &sources[left], &sources[right]),
            _ => (None, Vec::new()),
        };
        Some(Join {
            name: name.to_string(),
            left,
            right,
            on: on.clone(),
            within: config.within.0,
            right_names,
            scope,
            used: Default::default(),
        })
    }

    fn side(&mut self, path: &Path, name: &str, sources: &[Source]) -> Option<usize> {
        let found = sources.iter().position(|s| s.name == name);
        if found.is_none() {
            if self.declared("streams", name) {
                self.error(path, format!("`{name}` is a stream; only sources can be joined"), "");
            } else {
                self.undeclared(path, name, "source", &["sources"]);
            }
        }
        found
    }
}

type Columns = [(String, DataType)];

/// The names of a joined stream, and the engine names of its right columns.
fn names(l: &Columns, r: &Columns, on: &str, left: &Source, right: &Source) -> (Option<Scope>, Vec<(String, String)>) {
    let mut scope = Scope::default();
    let mut right_names = Vec::new();
    let in_right = |name: &str| r.iter().any(|(n, _)| n == name);
    for (name, data_type) in l {
        if name != on && in_right(name) {
            scope.add(name, Resolution::Ambiguous(vec![format!("left.{name}"), format!("right.{name}")]));
        } else {
            scope.column(name, name, data_type.clone());
        }
        for side in ["left", left.name.as_str()] {
            scope.column(&format!("{side}.{name}"), name, data_type.clone());
        }
    }
    for (name, data_type) in r {
        let taken = l.iter().any(|(n, _)| n == name);
        let engine = if taken { format!("{}.{name}", right.name) } else { name.clone() };
        if !taken {
            scope.column(name, &engine, data_type.clone());
        }
        for side in ["right", right.name.as_str()] {
            scope.column(&format!("{side}.{name}"), &engine, data_type.clone());
        }
        right_names.push((name.clone(), engine));
    }
    for (source, side) in [(left, "left"), (right, "right")] {
        for name in source.refused_names() {
            if let Some((what, mend)) = source.refusal(name) {
                let refused = Resolution::Refused(what.to_string(), mend.to_string());
                scope.add(&format!("{side}.{name}"), refused.clone());
                scope.add(name, refused);
            }
        }
    }
    (Some(scope), right_names)
}

/// Whether equal values of two types have one canonical key: integers of any width, else one type.
pub(super) fn same_keys(a: &DataType, b: &DataType) -> bool {
    a == b || (a.is_integer() && b.is_integer())
}

/// Whether a column of this type can be a key.
pub(super) fn is_key(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_temporal() || matches!(data_type, DataType::Utf8 | DataType::Boolean)
}
