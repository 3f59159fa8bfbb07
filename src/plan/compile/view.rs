//! Feature views: derived columns, aggregates, columns after them.

use arrow::datatypes::DataType;

use super::join::{Join, is_key};
use super::source::Source;
use super::{Compiler, row_source};
use crate::base::Micros;
use crate::plan::config::ViewConfig;
use crate::plan::expr::{Resolution, Scope};
use crate::plan::faults::Path;
use crate::plan::model::{AggregatePlan, JoinPlan, NamedExpr, SourcePlan, StreamRef, ViewPlan};

/// A view on its way to a [`ViewPlan`].
pub(super) struct View {
    pub name: String,
    pub stream: StreamRef,
    /// Entity columns and their types; a column that could not be found is left out.
    pub entity: Vec<(String, DataType)>,
    /// Derived columns by their own names, and their types.
    pub derived: Vec<(String, DataType)>,
    /// Aggregates with the engine name of their input.
    pub aggregates: Vec<(AggregatePlan, Option<String>)>,
    pub post: Vec<NamedExpr>,
    delay: Micros,
    include_current: bool,
    ttl: Option<Micros>,
    /// Own names that are taken, by what.
    names: Vec<(String, &'static str)>,
    /// Whether every part is sound; the columns of a broken view are not known for sure.
    pub sound: bool,
}

impl View {
    /// The engine name of a column of the view.
    pub fn engine(&self, column: &str) -> String {
        format!("{}.{column}", self.name)
    }

    pub fn finish(self, sources: &[SourcePlan], joins: &[JoinPlan]) -> Option<ViewPlan> {
        let (schema, disorder) = match self.stream {
            StreamRef::Source(s) => (&sources[s].stream_schema, sources[s].disorder),
            StreamRef::Join(j) => {
                let join = &joins[j];
                (&join.schema, sources[join.left].disorder.max(sources[join.right].disorder))
            }
        };
        let mut aggregates = Vec::new();
        for (mut aggregate, input) in self.aggregates {
            aggregate.input = match input {
                Some(name) => Some(schema.index_of(&name).ok()?),
                None => None,
            };
            aggregates.push(aggregate);
        }
        Some(ViewPlan {
            stream: self.stream,
            entity: self.entity.iter().map(|(name, _)| schema.index_of(name).ok()).collect::<Option<_>>()?,
            entity_names: self.entity.into_iter().map(|(name, _)| name).collect(),
            delay: self.delay,
            include_current: self.include_current,
            aggregates,
            derived: self.derived.iter().map(|(name, _)| format!("{}.{name}", self.name)).collect(),
            post: self.post,
            ttl: self.ttl,
            disorder,
            name: self.name,
        })
    }
}

impl Compiler<'_> {
    pub(super) fn view(
        &mut self,
        name: &str,
        config: &ViewConfig,
        sources: &mut [Source],
        joins: &[Join],
    ) -> Option<View> {
        let path = Path::of(&["features", name]);
        let from = &config.from.0;
        let source = sources.iter().position(|s| s.name == *from).map(StreamRef::Source);
        let join = joins.iter().position(|j| j.name == *from).map(StreamRef::Join);
        let Some(stream) = source.or(join) else {
            self.undeclared(&path.key("from"), from, "source or stream", &["sources", "streams"]);
            return None;
        };
        let faults_before = self.faults.list.len();
        let mut view = View {
            name: name.to_string(),
            stream,
            entity: Vec::new(),
            derived: Vec::new(),
            aggregates: Vec::new(),
            post: Vec::new(),
            delay: config.delay.as_ref().map_or(0, |d| d.0),
            include_current: config.include_current,
            ttl: config.ttl.as_ref().map(|d| d.0),
            names: Vec::new(),
            sound: true,
        };
        let scope = match stream {
            StreamRef::Source(s) => sources[s].scope(),
            StreamRef::Join(j) => joins[j].scope.clone(),
        };
        self.entity(&path, config, &mut view, sources, joins);
        if let Some(mut scope) = scope {
            self.derive(&path, config, &mut view, &mut scope, sources, joins);
            self.aggregates(&path, config, &mut view, &scope, sources, joins);
        } else {
            view.sound = false;
        }
        self.defaults(&path, config, &mut view);
        // What the validator cut away from the view is missing here without a new fault.
        let lists = [("derive", config.derive.0.len()), ("aggregates", config.aggregates.0.len())];
        for (key, kept) in lists {
            let written = self.tree.get("features").and_then(|f| f.get(name)).and_then(|v| v.get(key));
            if let Some(crate::plan::yaml::Data::Map(entries)) = written.map(|n| &n.data) {
                view.sound &= entries.len() == kept;
            }
        }
        view.sound &= self.faults.list[faults_before..].iter().all(|f| f.severity != crate::base::Severity::Error);
        if view.sound && config.aggregates.0.is_empty() && config.derive.0.is_empty() && config.post.0.is_empty() {
            self.error_at_key(&path, "the view computes nothing", "add `aggregates`, `derive` or `post`");
        }
        Some(view)
    }

    fn entity(&mut self, path: &Path, config: &ViewConfig, view: &mut View, sources: &mut [Source], joins: &[Join]) {
        let owner = row_source(view.stream, joins);
        for (i, column) in config.entity.iter().enumerate() {
            let at = path.key("entity").item(i);
            if config.entity[..i].iter().any(|c| c.0 == column.0) {
                self.error(&at, format!("`{}` is listed twice", column.0), "remove one");
                continue;
            }
            if let StreamRef::Join(j) = view.stream
                && sources[owner].columns.is_some()
                && sources[owner].column(&column.0).is_none()
                && sources[joins[j].right].column(&column.0).is_some()
            {
                let what =
                    format!("`{}` is a column of the right side, which is not known when the event happens", column.0);
                self.error(&at, what, format!("use a column of `{}`", sources[owner].name));
                continue;
            }
            let Some(data_type) = self.source_column(&at, &column.0, &sources[owner]) else {
                continue;
            };
            if !is_key(&data_type) {
                self.error(
                    &at,
                    format!("`{}` is of type {data_type}, which cannot be a key", column.0),
                    "use integers, text, truth values, dates or timestamps",
                );
            }
            sources[owner].note_column(&column.0);
            view.entity.push((column.0.clone(), data_type));
        }
    }

    /// Takes a column's name, unless the view or its stream has it already.
    pub(super) fn claim(
        &mut self,
        path: &Path,
        view: &mut View,
        name: &str,
        what: &'static str,
        scope: Option<&Scope>,
    ) -> bool {
        if let Some((_, other)) = view.names.iter().find(|(n, _)| n == name) {
            self.error_at_key(path, format!("the view has {other} `{name}` already"), "choose another name");
            return false;
        }
        if scope.is_some_and(|s| s.get(name).is_some()) {
            self.error_at_key(
                path,
                format!("`{name}` is a column of the view's stream already"),
                "choose another name",
            );
            return false;
        }
        view.names.push((name.to_string(), what));
        true
    }

    /// Compiles derived columns and adds them to the names that aggregates may use.
    fn derive(
        &mut self,
        path: &Path,
        config: &ViewConfig,
        view: &mut View,
        scope: &mut Scope,
        sources: &mut [Source],
        joins: &[Join],
    ) {
        let owner = row_source(view.stream, joins);
        // Derived columns are computed where the event comes in, before anything is joined to it.
        let mut readable = scope.clone();
        if let StreamRef::Join(j) = view.stream {
            let right = sources[joins[j].right].name.clone();
            readable.refuse(|engine| {
                joins[j].right_column(engine).map(|column| {
                    (
                        format!("`{column}` is told by `{right}` later; a derived column is computed when the event comes in"),
                        "aggregate the column as it is, or compute it in the data".to_string(),
                    )
                })
            });
        }
        for (name, sql) in &config.derive.0 {
            let at = path.key("derive").key(name);
            if !self.claim(&at, view, name, "a derived column", Some(scope)) {
                continue;
            }
            match readable.compile(&sql.0) {
                Ok(expr) => {
                    sources[owner].note(&expr);
                    let engine = view.engine(name);
                    view.derived.push((name.clone(), expr.data_type.clone()));
                    scope.column(name, &engine, expr.data_type.clone());
                    readable.add(name, Resolution::Computed(Box::new(expr.clone())));
                    sources[owner].derived.push(NamedExpr { name: engine, expr });
                }
                Err(e) => {
                    self.expression_error(&at, &e);
                    let broken = Resolution::Broken;
                    scope.add(name, broken.clone());
                    readable.add(name, broken);
                }
            }
        }
    }
}
