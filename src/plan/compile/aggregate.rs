//! A view's aggregates: functions, windows, tiles, and the values that stand for nothing.

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

use super::join::Join;
use super::source::Source;
use super::view::View;
use super::{Compiler, row_source};
use crate::base::{Micros, format_duration};
use crate::plan::config::{AggregateConfig, ViewConfig};
use crate::plan::expr::{Resolution, Scope};
use crate::plan::faults::Path;
use crate::plan::model::{AggregateFunction, AggregatePlan, StreamRef, Window};
use crate::plan::nearest;
use crate::plan::values::{Literal, Tiles, Window as WindowText};

impl Compiler<'_> {
    pub(super) fn aggregates(
        &mut self,
        path: &Path,
        config: &ViewConfig,
        view: &mut View,
        scope: &Scope,
        sources: &mut [Source],
        joins: &[Join],
    ) {
        for (name, aggregate) in &config.aggregates.0 {
            let at = path.key("aggregates").key(name);
            let Some((key, function, column)) = self.function(&at, aggregate) else {
                view.sound = false;
                continue;
            };
            let input = match (function, column) {
                (AggregateFunction::Count, "*") => Some(None),
                (_, "*") => {
                    self.error(
                        &at.key(key),
                        format!("`{key}` needs a column; `*` is for `count`"),
                        format!("write {key}: COLUMN"),
                    );
                    None
                }
                _ => self.input(&at.key(key), column, scope).map(Some),
            };
            let windows = self.windows(&at, aggregate, function);
            let (Some(input), Some(windows)) = (input, windows) else {
                view.sound = false;
                continue;
            };
            let Some(output) = self.output(&at.key(key), key, function, column, input.as_ref().map(|(_, t)| t)) else {
                continue;
            };
            let engine = input.as_ref().map(|(engine, _)| engine.clone());
            if let Some(engine) = &engine {
                sources[row_source(view.stream, joins)].note_column(engine);
                if let StreamRef::Join(j) = view.stream
                    && let Some(right) = joins[j].right_column(engine)
                {
                    sources[joins[j].right].note_column(right);
                    joins[j].used.borrow_mut().push(right.to_string());
                }
            }
            for WindowText { text, window } in windows {
                let column = match window {
                    Window::Lifetime => name.clone(),
                    Window::Trailing(_) => format!("{name}_{text}"),
                };
                let resolution = self.resolution(&at, aggregate, window);
                if !self.claim(&at, view, &column, "a column", None) {
                    continue;
                }
                let plan = AggregatePlan {
                    name: view.engine(&column),
                    function,
                    input: None,
                    input_type: input.as_ref().map(|(_, t)| t.clone()),
                    window,
                    resolution,
                    output_type: output.clone(),
                    default: (function == AggregateFunction::Count).then_some(ScalarValue::Int64(Some(0))),
                };
                view.aggregates.push((plan, engine.clone()));
            }
        }
    }

    /// The one function of an aggregate.
    fn function<'c>(
        &mut self,
        path: &Path,
        config: &'c AggregateConfig,
    ) -> Option<(&'static str, AggregateFunction, &'c str)> {
        use AggregateFunction::*;
        let all = [
            ("count", Count, &config.count),
            ("sum", Sum, &config.sum),
            ("mean", Mean, &config.mean),
            ("min", Min, &config.min),
            ("max", Max, &config.max),
            ("variance", Variance, &config.variance),
            ("stddev", Stddev, &config.stddev),
            ("variance_sample", VarianceSample, &config.variance_sample),
            ("stddev_sample", StddevSample, &config.stddev_sample),
            ("last", Last, &config.last),
        ];
        let given: Vec<_> =
            all.iter().filter_map(|(key, f, column)| Some((*key, *f, column.as_ref()?.0.as_str()))).collect();
        match given.as_slice() {
            [one] => Some(*one),
            [] => {
                // When the only key was refused (a function that is not built, or a slip) that is fault enough.
                let written = self.node(path).map(|n| match &n.data {
                    crate::plan::yaml::Data::Map(entries) => {
                        entries.iter().filter(|(k, _)| k.text != "over" && k.text != "resolution").count()
                    }
                    _ => 0,
                });
                if written == Some(0) {
                    let keys: Vec<&str> = all.iter().map(|a| a.0).collect();
                    self.error(
                        path,
                        "the aggregate does not say what to compute",
                        format!("add one of {}", keys.join(", ")),
                    );
                }
                None
            }
            [_, (second, ..), ..] => {
                let keys: Vec<&str> = given.iter().map(|g| g.0).collect();
                self.error_at_key(
                    &path.key(second),
                    format!("an aggregate has one function, this one has {}", keys.join(" and ")),
                    "make one aggregate of each",
                );
                None
            }
        }
    }

    fn node(&self, path: &Path) -> Option<&crate::plan::yaml::Node> {
        let mut node = self.tree;
        for step in path.steps() {
            node = match step {
                crate::plan::faults::Step::Key(key) => node.get(key)?,
                crate::plan::faults::Step::Item(_) => return None,
            };
        }
        Some(node)
    }

    /// Engine name and type of an aggregate's column.
    fn input(&mut self, path: &Path, column: &str, scope: &Scope) -> Option<(String, DataType)> {
        match scope.get(column) {
            Some(Resolution::Column(engine, data_type)) => return Some((engine.clone(), data_type.clone())),
            Some(Resolution::Computed(_) | Resolution::Broken) => {}
            Some(Resolution::Ambiguous(choices)) => {
                let mend = format!("write {}", choices.join(" or "));
                self.error(path, format!("`{column}` could be {}", choices.join(" or ")), mend);
            }
            Some(Resolution::Refused(what, mend)) => self.error(path, what.clone(), mend.clone()),
            None => {
                let is_name = column.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.');
                let mend = match scope.nearest(column) {
                    _ if !is_name => {
                        format!("aggregates take a column; write `derive: {{NAME: \"{column}\"}}` and aggregate NAME")
                    }
                    Some(near) => format!("did you mean `{near}`?"),
                    None => String::new(),
                };
                self.error(path, format!("`{column}` is not a column here"), mend);
            }
        }
        None
    }

    /// The type that a function makes of its input's.
    fn output(
        &mut self,
        path: &Path,
        key: &str,
        function: AggregateFunction,
        column: &str,
        input: Option<&DataType>,
    ) -> Option<DataType> {
        use AggregateFunction::*;
        let Some(input) = input else {
            return Some(DataType::Int64);
        };
        let (fits, output) = match function {
            Count => (true, DataType::Int64),
            Last => (true, input.clone()),
            Min | Max => (input.is_numeric() || input.is_temporal(), input.clone()),
            Sum if input.is_integer() => (true, DataType::Int64),
            Sum | Mean | Variance | Stddev | VarianceSample | StddevSample => (input.is_numeric(), DataType::Float64),
        };
        if !fits {
            let mend = match input {
                DataType::Boolean => format!("derive a number from it: \"cast({column} as int)\""),
                DataType::Utf8 => "count it, or take the `last`".to_string(),
                _ => "derive a number from it".to_string(),
            };
            let needs = if matches!(function, Min | Max) { "numbers or times" } else { "numbers" };
            self.error(path, format!("`{key}` needs {needs}; `{column}` is of type {input}"), mend);
        }
        fits.then_some(output)
    }

    fn windows(
        &mut self,
        path: &Path,
        config: &AggregateConfig,
        function: AggregateFunction,
    ) -> Option<Vec<WindowText>> {
        let Some(over) = &config.over else {
            if function == AggregateFunction::Last {
                let text = "lifetime".to_string();
                return Some(vec![WindowText { text, window: Window::Lifetime }]);
            }
            // A window that was cut away has its own fault.
            if self.node(path).is_some_and(|n| n.get("over").is_none()) {
                self.error(
                    path,
                    "the aggregate does not say over what",
                    "add `over: 7d`, a list such as [1d, 7d], or `over: lifetime`",
                );
            }
            return None;
        };
        for (i, window) in over.0.iter().enumerate() {
            if let Some(first) = over.0[..i].iter().find(|w| w.window == window.window) {
                let what = format!("`{}` and `{}` are the same window", first.text, window.text);
                self.error(&path.key("over").item(i), what, "remove one");
            }
        }
        Some(over.0.clone())
    }

    fn resolution(&mut self, path: &Path, config: &AggregateConfig, window: Window) -> Option<Micros> {
        let tiles = config.resolution.as_ref()?.0;
        let at = path.key("resolution");
        let Window::Trailing(width) = window else {
            self.error_at_key(&at, "a lifetime needs no tiles: its state is of constant size", "remove `resolution`");
            return None;
        };
        match tiles {
            Tiles::Width(tile) if tile > width => {
                let what = format!(
                    "a tile of {} is wider than the window of {}",
                    format_duration(tile),
                    format_duration(width)
                );
                self.error(&at, what, "use a smaller one");
                None
            }
            Tiles::Width(tile) => Some(tile),
            Tiles::Fraction(n) if width % i64::from(n) != 0 => {
                let what = format!("{tiles} of {} is no whole number of microseconds", format_duration(width));
                self.error(&at, what, "use another fraction");
                None
            }
            Tiles::Fraction(n) => Some(width / i64::from(n)),
        }
    }

    pub(super) fn defaults(&mut self, path: &Path, config: &ViewConfig, view: &mut View) {
        let prefix = format!("{}.", view.name);
        for (name, literal) in &config.default.0 {
            let at = path.key("default").key(name);
            let of_aggregate = |column: &str| {
                let own = column.strip_prefix(&prefix).unwrap_or(column);
                own == name
                    || config.aggregates.0.iter().any(|(aggregate, _)| {
                        aggregate == name
                            && (own == aggregate
                                || own
                                    .strip_prefix(aggregate.as_str())
                                    .is_some_and(|w| w.starts_with('_') && is_window(w)))
                    })
            };
            let hits: Vec<usize> =
                (0..view.aggregates.len()).filter(|i| of_aggregate(&view.aggregates[*i].0.name)).collect();
            if hits.is_empty() {
                if view.sound || !self.may_have(&view.name, name) {
                    let own = |a: &(AggregatePlan, Option<String>)| {
                        a.0.name.strip_prefix(&prefix).unwrap_or_default().to_string()
                    };
                    let names: Vec<String> = config
                        .aggregates
                        .0
                        .iter()
                        .map(|(n, _)| n.clone())
                        .chain(view.aggregates.iter().map(own))
                        .collect();
                    let mend = nearest(name, names.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`?"));
                    self.error_at_key(
                        &at,
                        format!("`{name}` is neither an aggregate nor the column of one"),
                        mend.unwrap_or_default(),
                    );
                }
                continue;
            }
            for hit in hits {
                let output = view.aggregates[hit].0.output_type.clone();
                match scalar(literal, &output) {
                    Some(value) => view.aggregates[hit].0.default = Some(value),
                    None => {
                        self.error(&at, format!("`{literal}` cannot stand for a value of type {output}"), "");
                        break;
                    }
                }
            }
        }
    }
}

/// Whether the rest of a column's name is a window: `_7d`.
fn is_window(rest: &str) -> bool {
    crate::base::parse_duration(&rest[1..]).is_ok()
}

/// A constant as a value of a type, when nothing of it is lost.
fn scalar(literal: &Literal, data_type: &DataType) -> Option<ScalarValue> {
    match (literal, data_type) {
        (Literal::Bool(b), DataType::Boolean) => Some(ScalarValue::Boolean(Some(*b))),
        (Literal::Text(t), DataType::Utf8) => Some(ScalarValue::Utf8(Some(t.clone()))),
        (Literal::Text(t), DataType::Timestamp(..)) => {
            let time = crate::base::parse_time(t).ok()?;
            Some(ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into())))
        }
        (Literal::Int(i), t) if t.is_integer() => ScalarValue::Int64(Some(*i)).cast_to(t).ok().filter(|v| !v.is_null()),
        (Literal::Int(i), t) if t.is_floating() => ScalarValue::Float64(Some(*i as f64)).cast_to(t).ok(),
        (Literal::Float(f), t) if t.is_floating() => ScalarValue::Float64(Some(*f)).cast_to(t).ok(),
        _ => None,
    }
}
