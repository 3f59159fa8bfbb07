//! Sources: columns, event time, filter, checks.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::{Compiler, engine_schema, quoted};
use crate::base::{Micros, ORD_COLUMN, TIME_COLUMN};
use crate::plan::config::{OnLateConfig, SourceConfig};
use crate::plan::expr::{self, Expr, Resolution, Scope, engine_type, time_type};
use crate::plan::faults::Path;
use crate::plan::model::{Connector, NamedExpr, OnLate, SourcePlan, ValueRule};
use crate::plan::nearest;
use crate::plan::values::Sql;

/// Tables of dead letters that are there anyway.
pub(super) const DEAD_LETTERS: &str = "dead_letters";

/// When a silent partition of a topic stops holding the watermark back, unless the file says.
const KAFKA_IDLE_AFTER: Micros = 30_000_000;

/// A source on its way to a [`SourcePlan`].
pub(super) struct Source {
    pub name: String,
    pub connector: Connector,
    /// Columns that may be used, with their engine types; `None` when they could not be found out.
    pub columns: Option<Vec<(String, DataType)>>,
    /// The fields behind them as the data has them: what they say of nulls and in their metadata is for the decoders.
    fields: Vec<Arc<Field>>,
    /// Columns that are there and may not be used, and why.
    refused: Vec<(String, String, String)>,
    /// Columns that something uses.
    pub used: BTreeSet<String>,
    pub id: Option<String>,
    pub derived: Vec<NamedExpr>,
    pub disorder: Micros,
    filter: Option<Expr>,
    event_time: Option<Expr>,
    idle_after: Option<Micros>,
    on_late: OnLate,
    rules: Vec<(String, ValueRule)>,
    rejected_to: String,
    pub dedup: Option<Micros>,
}

impl Source {
    /// Type of a column that may be used.
    pub fn column(&self, name: &str) -> Option<&DataType> {
        self.columns.as_ref()?.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// Why a column that is there may not be used, and what to do.
    pub fn refusal(&self, name: &str) -> Option<(&str, &str)> {
        self.refused.iter().find(|(n, ..)| n == name).map(|(_, what, mend)| (what.as_str(), mend.as_str()))
    }

    /// Columns that are there and may not be used.
    pub fn refused_names(&self) -> impl Iterator<Item = &str> {
        self.refused.iter().map(|(name, ..)| name.as_str())
    }

    /// The columns as names for expressions; `None` when they could not be found out.
    pub fn scope(&self) -> Option<Scope> {
        let mut scope = Scope::default();
        for (name, data_type) in self.columns.as_ref()? {
            scope.column(name, name, data_type.clone());
        }
        for (name, what, mend) in &self.refused {
            scope.add(name, Resolution::Refused(what.clone(), mend.clone()));
        }
        Some(scope)
    }

    /// Notes that an expression reads columns of this source.
    pub fn note(&mut self, expr: &Expr) {
        for input in &expr.inputs {
            self.note_column(input);
        }
    }

    /// Notes that a column is used, if it is one of this source.
    pub fn note_column(&mut self, name: &str) {
        if self.column(name).is_some() {
            self.used.insert(name.to_string());
        }
    }

    /// The plan, with the columns that are used; `None` only for sources that have a fault.
    pub fn finish(self) -> Option<SourcePlan> {
        let columns = self.columns?;
        let fields: Vec<Arc<Field>> = columns
            .iter()
            .filter(|(name, _)| self.used.contains(name))
            .map(|(name, t)| Arc::new(Field::new(name, t.clone(), true)))
            .collect();
        let position = |name: &str| fields.iter().position(|f| f.name() == name);
        let derived = self.derived.iter().map(|d| Arc::new(Field::new(&d.name, d.expr.data_type.clone(), true)));
        let stream_schema = engine_schema(fields.iter().cloned().chain(derived));
        let mut rules = Vec::new();
        for (name, rule) in self.rules {
            rules.push(ValueRule { column: position(&name)?, ..rule });
        }
        let outside = |name: &String| self.fields.iter().find(|f| f.name() == name);
        let decoded = fields.iter().map(|field| match outside(field.name()) {
            Some(found) => Arc::new(found.as_ref().clone().with_data_type(field.data_type().clone())),
            None => field.clone(),
        });
        let schema = Arc::new(Schema::new(decoded.collect::<Vec<_>>()));
        Some(SourcePlan {
            id: self.id.as_deref().and_then(position),
            schema,
            name: self.name,
            connector: self.connector,
            filter: self.filter,
            event_time: self.event_time?,
            disorder: self.disorder,
            idle_after: self.idle_after,
            on_late: self.on_late,
            rules,
            rejected_to: self.rejected_to,
            dedup: self.dedup,
            derived: self.derived,
            stream_schema,
        })
    }
}

impl Compiler<'_> {
    pub(super) fn source(&mut self, rank: usize, name: &str, config: &SourceConfig) -> Source {
        let path = Path::of(&["sources", name]);
        if rank == 256 {
            self.error_at_key(&path, "a job can have 256 sources", "");
        }
        if self.declared("streams", name) {
            self.error_at_key(&Path::of(&["streams", name]), format!("`{name}` is the name of a source already"), "");
        }
        let (connector, columns) = self.connector(&path, name, config);
        let mut source = Source {
            name: name.to_string(),
            connector,
            columns: None,
            fields: Vec::new(),
            refused: Vec::new(),
            used: BTreeSet::new(),
            id: None,
            derived: Vec::new(),
            disorder: config.disorder.as_ref().map_or(0, |d| d.0),
            filter: None,
            event_time: None,
            // Else a partition that never gets a message would stop the job for ever.
            idle_after: config.idle_after.as_ref().map(|d| d.0).or(config.kafka.as_ref().map(|_| KAFKA_IDLE_AFTER)),
            on_late: match config.on_late {
                OnLateConfig::DeadLetter => OnLate::DeadLetter,
                OnLateConfig::Drop => OnLate::Drop,
            },
            rules: Vec::new(),
            rejected_to: config.on_invalid.as_ref().map_or(DEAD_LETTERS, |r| r.dead_letter.0.as_str()).to_string(),
            dedup: config.dedup.as_ref().map(|d| d.0),
        };
        if let Some(columns) = columns {
            self.columns(&path, config, columns, &mut source);
        }
        self.expressions(&path, config, &mut source);
        self.identity(&path, config, &mut source);
        self.rules(&path, config, &mut source);
        source
    }

    /// Which of the data's columns may be used, and as what.
    fn columns(&mut self, path: &Path, config: &SourceConfig, outside: Vec<Arc<Field>>, source: &mut Source) {
        let mut columns = Vec::new();
        for field in &outside {
            let (name, data_type) = (field.name(), field.data_type());
            let hidden = config.columns.as_ref().is_some_and(|list| !list.iter().any(|c| c.0 == *name));
            let refusal = if hidden {
                Some((
                    format!("`{name}` is not among the source's `columns`"),
                    format!("add it to `sources.{}.columns`", source.name),
                ))
            } else if name == TIME_COLUMN || name == ORD_COLUMN {
                Some((
                    format!("`{name}` is a name that the engine uses itself"),
                    "rename the column in the data".to_string(),
                ))
            } else {
                match engine_type(data_type) {
                    Some(data_type) => {
                        columns.push((name.clone(), data_type));
                        None
                    }
                    None => Some((
                        format!("`{name}` is of type {data_type}, which cannot be used"),
                        "flatten it in the data".to_string(),
                    )),
                }
            };
            if let Some((what, mend)) = refusal {
                source.refused.push((name.clone(), what, mend));
            }
        }
        for (i, column) in config.columns.iter().flatten().enumerate() {
            let at = path.key("columns").item(i);
            if !outside.iter().any(|field| *field.name() == column.0) {
                let mend = nearest(&column.0, outside.iter().map(|field| field.name().as_str()));
                let mend = mend.map_or_else(
                    || format!("it has {}", quoted(&outside.iter().map(|field| field.name()).collect::<Vec<_>>())),
                    |n| format!("did you mean `{n}`?"),
                );
                self.error(&at, format!("the data has no column `{}`", column.0), mend);
            } else if config.columns.iter().flatten().take(i).any(|c| c.0 == column.0) {
                self.error(&at, format!("`{}` is listed twice", column.0), "remove one");
            }
        }
        source.columns = Some(columns);
        source.fields = outside;
    }

    /// Event time and filter.
    fn expressions(&mut self, path: &Path, config: &SourceConfig, source: &mut Source) {
        if let Some(filter) = self.compile_source(&path.key("where"), config.filter.as_ref(), source) {
            if filter.data_type == DataType::Boolean {
                source.note(&filter);
                source.filter = Some(filter);
            } else {
                let what = format!("`{}` is of type {}, not a condition", filter.text, filter.data_type);
                self.error(&path.key("where"), what, "compare it with something");
            }
        }
        let at = path.key("event_time");
        if let Some(time) = self.compile_source(&at, Some(&config.event_time), source) {
            let text = &time.text;
            let what = format!("event time must be a timestamp; `{text}` is of type {}", time.data_type);
            if time.data_type == time_type() {
                source.note(&time);
                source.event_time = Some(time);
            } else if time.data_type.is_integer() {
                self.error(&at, what, format!("write to_timestamp_millis({text}), or to_timestamp_seconds or to_timestamp_micros, as the unit is"));
            } else if time.data_type == DataType::Utf8 {
                self.error(&at, what, format!("write to_timestamp({text})"));
            } else if time.data_type == DataType::Date32 {
                self.error(&at, what, format!("write cast({text} as timestamp) for its midnight"));
            } else {
                self.error(&at, what, "");
            }
        }
    }

    fn compile_source(&mut self, path: &Path, sql: Option<&Sql>, source: &Source) -> Option<Expr> {
        let sql = sql?;
        // Without columns the words can still be checked.
        let compiled = match source.scope() {
            Some(scope) => scope.compile(&sql.0).map(Some),
            None => expr::check_syntax(&sql.0).map(|()| None),
        };
        compiled.unwrap_or_else(|e| {
            self.expression_error(path, &e);
            None
        })
    }

    /// The id, and what needs one.
    fn identity(&mut self, path: &Path, config: &SourceConfig, source: &mut Source) {
        if let Some(id) = &config.id
            && let Some(data_type) = self.source_column(&path.key("id"), &id.0, source)
        {
            if data_type.is_integer() || data_type == DataType::Utf8 {
                source.id = Some(id.0.clone());
                source.note_column(&id.0);
            } else {
                let mend = "use a column of integers or text";
                self.error(
                    &path.key("id"),
                    format!("`{}` is of type {data_type}, which cannot identify an event", id.0),
                    mend,
                );
            }
        }
        let declared =
            self.tree.get("sources").and_then(|s| s.get(&source.name)).is_some_and(|s| s.get("id").is_some());
        if config.dedup.is_some() && !declared {
            self.error_at_key(&path.key("dedup"), "`dedup` needs to know what identifies an event", "add `id: COLUMN`");
        }
        if config.dedup.as_ref().is_some_and(|d| d.0 == 0) {
            self.error(&path.key("dedup"), "`dedup: 0s` would remember nothing", "give a length of time, or remove it");
        }
    }

    /// The type of a source's column; reports it when there is none.
    pub(super) fn source_column(&mut self, path: &Path, name: &str, source: &Source) -> Option<DataType> {
        let columns = source.columns.as_ref()?;
        if let Some(data_type) = source.column(name) {
            return Some(data_type.clone());
        }
        if let Some((what, mend)) = source.refusal(name) {
            self.error(path, what, mend);
            return None;
        }
        let mend = match nearest(name, columns.iter().map(|(n, _)| n.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it has {}", quoted(&columns.iter().map(|(n, _)| n).collect::<Vec<_>>())),
        };
        self.error(path, format!("source `{}` has no column `{name}`", source.name), mend);
        None
    }

    fn rules(&mut self, path: &Path, config: &SourceConfig, source: &mut Source) {
        for (column, rule) in &config.validate.0 {
            let at = path.key("validate").key(column);
            let place = super::place_of(self.tree, &at, true);
            let before = self.faults.list.len();
            let data_type = self.source_column(&at, column, source);
            // The key names the column, so the fault belongs there.
            for fault in &mut self.faults.list[before..] {
                (fault.line, fault.column) = (place.line, place.column);
            }
            let Some(data_type) = data_type else { continue };
            // A check that was cut away has its own fault.
            let written = self.tree.get("sources").and_then(|s| s.get(&source.name)).and_then(|s| s.get("validate"));
            let written = written.and_then(|v| v.get(column));
            let checks = ["min", "max", "in"].iter().any(|key| written.is_some_and(|r| r.get(key).is_some()));
            if !checks && !rule.required {
                self.error_at_key(&at, "the rule checks nothing", "give `min`, `max`, `in` or `required: true`");
            }
            if (rule.min.is_some() || rule.max.is_some()) && !data_type.is_numeric() {
                let key = if rule.min.is_some() { "min" } else { "max" };
                self.error_at_key(
                    &at.key(key),
                    format!("`{column}` is of type {data_type}; `min` and `max` are for numbers"),
                    "use `in`",
                );
            }
            if let (Some(min), Some(max)) = (rule.min, rule.max)
                && min > max
            {
                self.error(
                    &at.key("min"),
                    format!("`min` {min} is above `max` {max}: every value would be rejected"),
                    "",
                );
            }
            if let Some(allowed) = &rule.allowed {
                if allowed.is_empty() {
                    self.error(
                        &at.key("in"),
                        "the list is empty: every value would be rejected",
                        "name the allowed values",
                    );
                }
                let comparable = data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Boolean);
                if !comparable {
                    self.error_at_key(
                        &at.key("in"),
                        format!("`{column}` is of type {data_type}; `in` is for text, integers and truth values"),
                        "use `min` and `max`",
                    );
                }
            }
            source.note_column(column);
            let rule = ValueRule {
                column: 0,
                required: rule.required,
                min: rule.min,
                max: rule.max,
                allowed: rule.allowed.as_ref().map(|list| list.iter().map(ToString::to_string).collect()),
            };
            source.rules.push((column.clone(), rule));
        }
        let rejects =
            self.tree.get("sources").and_then(|s| s.get(&source.name)).is_some_and(|s| s.get("validate").is_some());
        if config.on_invalid.is_some() && !rejects {
            self.error_at_key(
                &path.key("on_invalid"),
                "`on_invalid` says where rejected rows go, but nothing rejects any",
                "add `validate:`, or remove it",
            );
        }
    }
}
