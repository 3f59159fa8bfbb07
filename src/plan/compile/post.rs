//! Columns computed after a view's aggregates.
//!
//! They are evaluated on rows of the view's own stream and on rows of every spine that reads the view, so they may use
//! what all of these have: the view's aggregates, earlier columns of the list, and the events' columns that are common.

use arrow::datatypes::DataType;

use super::join::Join;
use super::source::Source;
use super::view::View;
use super::{Compiler, row_source};
use crate::plan::config::{JobConfig, ViewConfig};
use crate::plan::expr::{ExprError, Resolution, Scope};
use crate::plan::faults::Path;
use crate::plan::model::{NamedExpr, StreamRef};

/// The spines that read each view.
pub(super) struct Spines(Vec<(String, Vec<usize>)>);

impl Compiler<'_> {
    pub(super) fn spines(&mut self, config: &JobConfig, sources: &[Source], views: &[View]) -> Spines {
        let mut spines: Vec<(String, Vec<usize>)> = views.iter().map(|v| (v.name.clone(), Vec::new())).collect();
        for (_, set) in &config.feature_sets.0 {
            let Some(spine) = sources.iter().position(|s| s.name == set.on.0) else {
                continue;
            };
            for taken in &set.take {
                let Some((view, _)) = taken.0.split_once('.') else {
                    continue;
                };
                if let Some((_, list)) = spines.iter_mut().find(|(name, _)| name == view)
                    && !list.contains(&spine)
                {
                    list.push(spine);
                }
            }
        }
        Spines(spines)
    }

    pub(super) fn post(
        &mut self,
        view: &mut View,
        config: &ViewConfig,
        spines: &Spines,
        sources: &mut [Source],
        joins: &[Join],
    ) {
        if config.post.0.is_empty() {
            return;
        }
        let owner = row_source(view.stream, joins);
        let mut rows = vec![owner];
        rows.extend(spines.0.iter().filter(|(name, _)| *name == view.name).flat_map(|(_, list)| list.iter().copied()));
        rows.dedup();
        let path = Path::of(&["features", &view.name, "post"]);
        let Some(mut scope) = post_scope(view, &rows, sources, joins) else {
            view.sound = false;
            return;
        };
        for (name, sql) in &config.post.0 {
            let at = path.key(name);
            let own = view
                .derived
                .iter()
                .map(|(n, _)| n.clone())
                .chain(view.aggregates.iter().map(|a| bare(view, &a.0.name)));
            let taken = own.chain(view.post.iter().map(|p| bare(view, &p.name))).any(|n| n == *name);
            if taken {
                self.error_at_key(&at, format!("the view has a column `{name}` already"), "choose another name");
                view.sound = false;
                continue;
            }
            if sources[owner].column(name).is_some() {
                self.error_at_key(
                    &at,
                    format!("`{name}` is a column of the view's stream already"),
                    "choose another name",
                );
                view.sound = false;
                continue;
            }
            match scope.compile(&sql.0) {
                Ok(expr) => {
                    for row in &rows {
                        sources[*row].note(&expr);
                    }
                    scope.add(name, Resolution::Computed(Box::new(expr.clone())));
                    view.post.push(NamedExpr { name: view.engine(name), expr });
                }
                Err(mut e) => {
                    if let ExprError::Unknown { names } = &mut e
                        && !view.sound
                    {
                        // Columns of aggregates that have faults are missing because of those.
                        names.retain(|(n, _)| !self.may_have(&view.name, n));
                    }
                    if !matches!(&e, ExprError::Unknown { names } if names.is_empty()) {
                        self.expression_error(&at, &e);
                    }
                    scope.add(name, Resolution::Broken);
                    view.sound = false;
                }
            }
        }
    }
}

fn bare(view: &View, engine: &str) -> String {
    engine.strip_prefix(&view.engine("")).unwrap_or(engine).to_string()
}

/// What post expressions may read; `None` when some stream's columns could not be found out.
fn post_scope(view: &View, rows: &[usize], sources: &[Source], joins: &[Join]) -> Option<Scope> {
    let mut scope = Scope::default();
    for (aggregate, _) in &view.aggregates {
        scope.column(&bare(view, &aggregate.name), &aggregate.name, aggregate.output_type.clone());
        scope.column(&aggregate.name, &aggregate.name, aggregate.output_type.clone());
    }
    let owner = rows[0];
    for (name, data_type) in &view.derived {
        match rows.iter().find(|r| **r != owner) {
            None => {
                scope.column(name, &view.engine(name), data_type.clone());
                scope.column(&view.engine(name), &view.engine(name), data_type.clone());
            }
            Some(spine) => scope.add(
                name,
                Resolution::Refused(
                    format!(
                        "`{name}` is derived from `{}`, and rows of `{}` read the view too",
                        sources[owner].name, sources[*spine].name
                    ),
                    "aggregate it, for example by `last`, and read the aggregate".to_string(),
                ),
            ),
        }
    }
    for row in rows {
        for (name, data_type) in sources[*row].columns.as_ref()? {
            let without: Option<&usize> = rows.iter().find(|r| sources[**r].column(name) != Some(data_type));
            match without {
                None if *row == owner => scope.column(name, name, data_type.clone()),
                None => {}
                Some(other) => scope.add(name, elsewhere(name, data_type, &sources[*row], &sources[*other])),
            }
        }
    }
    if let StreamRef::Join(j) = view.stream {
        for (name, data_type) in sources[owner].columns.as_ref()? {
            if matches!(scope.get(name), Some(Resolution::Column(engine, _)) if engine == name) {
                scope.column(&format!("left.{name}"), name, data_type.clone());
            }
        }
        let right = &sources[joins[j].right];
        for name in right
            .columns
            .as_ref()?
            .iter()
            .flat_map(|(n, _)| [n.clone(), format!("right.{n}"), format!("{}.{n}", right.name)])
        {
            if scope.get(&name).is_none() {
                let what = format!(
                    "`{name}` is told later by `{}`; only its aggregates can be read here",
                    sources[joins[j].right].name
                );
                scope.add(&name, Resolution::Refused(what, "aggregate it".to_string()));
            }
        }
    }
    Some(scope)
}

fn elsewhere(name: &str, data_type: &DataType, here: &Source, there: &Source) -> Resolution {
    let what = match there.column(name) {
        Some(other) => {
            format!("`{name}` is of type {data_type} in `{}` and of type {other} in `{}`", here.name, there.name)
        }
        None => {
            format!("`{name}` is a column of `{}` but not of `{}`, whose rows read the view too", here.name, there.name)
        }
    };
    Resolution::Refused(what, "read only what both have, or aggregate it".to_string())
}
