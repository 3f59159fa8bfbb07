//! Feature sets.

use super::join::{Join, is_key, same_keys};
use super::source::Source;
use super::view::View;
use super::{Compiler, quoted};
use crate::plan::config::SetConfig;
use crate::plan::faults::Path;
use crate::plan::model::{SetColumn, SetPlan, StreamRef};
use crate::plan::nearest;

/// A feature set, and whether all of its columns could be made out.
pub(super) struct Set {
    pub plan: SetPlan,
    pub sound: bool,
}

impl Compiler<'_> {
    pub(super) fn set(
        &mut self,
        name: &str,
        config: &SetConfig,
        sources: &mut [Source],
        views: &[View],
        joins: &[Join],
    ) -> Option<Set> {
        let path = Path::of(&["feature_sets", name]);
        let on = &config.on.0;
        let Some(spine) = sources.iter().position(|s| s.name == *on) else {
            if self.declared("streams", on) {
                let left = joins.iter().find(|j| j.name == *on).map(|j| sources[j.left].name.clone());
                let mend = left.map(|l| format!("write `on: {l}`")).unwrap_or_default();
                self.error(&path.key("on"), format!("`{on}` is a stream; a spine is a source"), mend);
            } else {
                self.undeclared(&path.key("on"), on, "source", &["sources"]);
            }
            return None;
        };
        let faults_before = self.faults.list.len();
        let mut columns: Vec<SetColumn> = Vec::new();
        let mut used: Vec<usize> = Vec::new();
        for (i, taken) in config.take.iter().enumerate() {
            let at = path.key("take").item(i);
            let taken = taken.0.as_str();
            let found = match taken.split_once('.') {
                // A source's column may have a dot in its name; no view has.
                Some((view, column)) if sources[spine].column(taken).is_none() => {
                    self.view_columns(&at, view, column, spine, &sources[spine].name.clone(), views, &mut used)
                }
                _ => self.source_column(&at, taken, &sources[spine]).map(|data_type| {
                    sources[spine].note_column(taken);
                    vec![SetColumn { name: taken.to_string(), engine: taken.to_string(), data_type }]
                }),
            };
            for column in found.unwrap_or_default() {
                if columns.iter().any(|c| c.name == column.name) {
                    self.error(&at, format!("the column `{}` is taken twice", column.name), "remove one");
                } else {
                    columns.push(column);
                }
            }
        }
        used.sort_unstable();
        for view in &used {
            self.keys(&path, &views[*view], spine, sources, &config.take);
        }
        let named = |view: &str| self.tree.get("features").is_some_and(|f| f.get(view).is_some());
        let lost = config
            .take
            .iter()
            .filter_map(|t| t.0.split_once('.'))
            .any(|(v, _)| named(v) && !views.iter().any(|w| w.name == v));
        let sound = self.faults.list.len() == faults_before
            && !lost
            && sources[spine].columns.is_some()
            && used.iter().all(|v| views[*v].sound);
        let plan = SetPlan { name: name.to_string(), spine, views: used, columns };
        Some(Set { plan, sound })
    }

    /// The columns that `view.column` or `view.*` names.
    #[allow(clippy::too_many_arguments)]
    fn view_columns(
        &mut self,
        path: &Path,
        name: &str,
        column: &str,
        spine: usize,
        spine_name: &str,
        views: &[View],
        used: &mut Vec<usize>,
    ) -> Option<Vec<SetColumn>> {
        let Some(index) = views.iter().position(|v| v.name == name) else {
            self.undeclared(path, name, "view", &["features"]);
            return None;
        };
        let view = &views[index];
        let derived = if view.stream == StreamRef::Source(spine) { view.derived.as_slice() } else { &[] };
        let own = derived
            .iter()
            .map(|(n, t)| (view.engine(n), t.clone()))
            .chain(view.aggregates.iter().map(|(a, _)| (a.name.clone(), a.output_type.clone())))
            .chain(view.post.iter().map(|p| (p.name.clone(), p.expr.data_type.clone())));
        let all: Vec<SetColumn> = own
            .map(|(engine, data_type)| SetColumn { name: engine.replacen('.', "__", 1), engine, data_type })
            .collect();
        if !used.contains(&index) {
            used.push(index);
        }
        if column == "*" {
            if all.is_empty() && view.sound {
                let what = format!("view `{name}` has no columns that rows of `{spine_name}` can read");
                self.error(path, what, "columns derived from another stream must be aggregated first");
            }
            return Some(all);
        }
        let engine = view.engine(column);
        if let Some(found) = all.iter().find(|c| c.engine == engine) {
            return Some(vec![found.clone()]);
        }
        if view.derived.iter().any(|(n, _)| n == column) {
            let what = format!("`{column}` is derived from the view's own stream, not from the spine `{spine_name}`");
            self.error(path, what, "aggregate it in the view, or derive it in a view over the spine");
        } else if view.sound || !self.may_have(name, column) {
            let names: Vec<&str> = all.iter().map(|c| &c.engine[name.len() + 1..]).collect();
            let mend = match nearest(column, names.iter().copied()) {
                Some(near) => format!("did you mean `{name}.{near}`?"),
                None => format!("it has {}", quoted(&names)),
            };
            self.error(path, format!("view `{name}` has no column `{column}`"), mend);
        }
        None
    }

    /// The spine must have the view's entity columns.
    fn keys(
        &mut self,
        path: &Path,
        view: &View,
        spine: usize,
        sources: &mut [Source],
        take: &[crate::plan::values::Text],
    ) {
        let prefix = format!("{}.", view.name);
        let item = take.iter().position(|t| t.0.starts_with(&prefix)).unwrap_or(0);
        let at = path.key("take").item(item);
        if sources[spine].columns.is_none() {
            return;
        }
        for (column, data_type) in &view.entity {
            let spine_name = sources[spine].name.clone();
            match sources[spine].column(column) {
                Some(found) if same_keys(found, data_type) => sources[spine].note_column(column),
                // A type that is no key has its fault at the view.
                Some(found) if is_key(data_type) => {
                    let what = format!(
                        "view `{}` is keyed by `{column}` of type {data_type}; in the spine `{spine_name}` it is of type {found}",
                        view.name
                    );
                    self.error(&at, what, "both must be integers, or of one type");
                }
                Some(_) => {}
                None => {
                    let what = format!(
                        "view `{}` is keyed by `{column}`, which the spine `{spine_name}` does not have",
                        view.name
                    );
                    let mend = match sources[spine].refusal(column) {
                        Some((_, mend)) => mend.to_string(),
                        None => "name the column alike in both sources".to_string(),
                    };
                    self.error(&at, what, mend);
                }
            }
        }
    }
}
