//! Drift and quality of monitors.

use std::path::PathBuf;

use arrow::datatypes::DataType;

use super::Compiler;
use super::output::Label;
use super::set::Set;
use super::source::Source;
use crate::base::{Micros, format_duration};
use crate::plan::catalog::locate;
use crate::plan::config::{
    CorrectConfig, DriftConfig, DriftRuleConfig, MonitorConfig, ReferenceConfig, ReferenceSettings, ReferenceWord,
};
use crate::plan::expr::check_syntax;
use crate::plan::faults::Path;
use crate::plan::model::{ColumnRole, DriftColumn, DriftMetric, DriftPlan, ModelPlan, QualityMetric, ReferencePlan};
use crate::plan::nearest;

/// Statistics of inputs when the file does not say.
const FEATURES: [DriftMetric; 4] = [DriftMetric::Psi, DriftMetric::Ks, DriftMetric::Js, DriftMetric::Missing];
/// Bins of `psi` when the file does not say.
const BINS: u32 = 10;
/// Name of the column of labels in a training set.
const TRAINING_LABEL: &str = "label";
/// Rate of alarms without cause when the file does not say.
const FALSE_ALARMS: f64 = 0.01;

impl Compiler<'_> {
    /// What a monitor's `drift` and `quality` ask for; `None` when they ask for nothing, or have faults.
    pub(super) fn drift(
        &mut self,
        path: &Path,
        c: &MonitorConfig,
        (window, refresh): (Micros, Micros),
        (model, label): (&ModelPlan, Option<&Label>),
        set: &Set,
        sources: &[Source],
    ) -> Option<DriftPlan> {
        let quality = c.quality.clone().unwrap_or_default();
        let drift = c.drift.as_ref();
        if drift.is_none() && quality.is_empty() {
            return None;
        }
        let at = path.key("drift");
        let window = drift.and_then(|d| d.window.as_ref()).map_or(window, |d| d.0);
        if window <= 0 || window % refresh != 0 {
            let what = format!("the window is no whole number of refreshes, which are {}", format_duration(refresh));
            self.error(&at.key("window"), what, "write a multiple of the monitor's `refresh`, or a shorter `refresh`");
            return None;
        }
        let rate = drift.and_then(|d| d.false_alarms).unwrap_or(FALSE_ALARMS);
        if !(rate > 0.0 && rate <= 0.5) {
            let what = format!("`false_alarms` is a share of windows, and {rate} is none");
            self.error(&at.key("false_alarms"), what, "write one above 0 and up to 0.5, such as 0.01");
        }
        // One with faults has been told of where they are.
        let declared =
            self.tree.get("monitors").and_then(|m| m.get(&model.name)).is_some_and(|m| m.get("drift").is_some());
        for (i, metric) in quality.iter().enumerate() {
            let here = path.key("quality").item(i);
            if matches!(metric, QualityMetric::Range | QualityMetric::NewCategories) && !declared {
                let what = format!("`{}` is held against a reference, and there is none", metric.name());
                self.error(&here, what, "add `drift: {reference: …}`");
            }
            let source = &sources[set.plan.spine];
            if *metric == QualityMetric::Duplicates && source.dedup.is_none() {
                let what = format!("source `{}` does not look for duplicates", source.name);
                self.error(&here, what, format!("give it `dedup: 1d`, under `sources.{}`", source.name));
            }
        }
        let mut references = Vec::new();
        let reference =
            drift.and_then(|d| self.reference(&at.key("reference"), &d.reference, (window, model), &mut references));
        let own = drift.and_then(|d| d.prediction_reference.as_ref());
        let outputs_reference = match own {
            Some(own) => self.reference(&at.key("prediction_reference"), own, (window, model), &mut references),
            None => reference,
        };
        let mut columns = self.drift_features(&at, drift, set, reference);
        let metrics = drift.and_then(|d| d.prediction.clone()).unwrap_or_default();
        let is_training =
            |reference: Option<usize>| reference.is_some_and(|r| references[r] == ReferencePlan::Training);
        if !metrics.is_empty() && is_training(outputs_reference) {
            let what = "a training set has labels, and no outputs of the model";
            self.error(&at.key("prediction"), what, "add `prediction_reference: {past: 7d}`, or another one");
        }
        let named = |name: &str| {
            let names = drift.map(|d| d.names.0.as_slice()).unwrap_or_default();
            names.iter().find(|(ours, _)| ours == name).map_or_else(|| name.to_owned(), |(_, theirs)| theirs.0.clone())
        };
        for output in model.outputs.iter().filter(|_| !metrics.is_empty()) {
            columns.push(DriftColumn {
                name: output.name.clone(),
                engine: output.name.clone(),
                role: ColumnRole::Prediction,
                categories: false,
                metrics: metrics.clone(),
                reference: outputs_reference,
                reference_column: named(&output.name),
            });
        }
        let own = drift.and_then(|d| d.label_reference.as_ref());
        let label_reference = match own {
            Some(own) => self.reference(&at.key("label_reference"), own, (window, model), &mut references),
            None => reference,
        };
        let metrics = drift.and_then(|d| d.label.clone()).unwrap_or_default();
        if let (false, None) = (metrics.is_empty(), label) {
            let what = format!("model `{}` has no labels", model.name);
            self.error(&at.key("label"), what, format!("declare them: `labels: {{{}: …}}`", model.name));
        }
        let is_training = label_reference.is_some_and(|r| references[r] == ReferencePlan::Training);
        let label = label.filter(|_| !metrics.is_empty()).map(|label| DriftColumn {
            name: label.value.clone(),
            engine: String::new(),
            role: ColumnRole::Label,
            categories: false,
            metrics,
            reference: label_reference,
            reference_column: match named(&label.value) {
                // Training sets name it so, whatever the source does.
                name if is_training && name == label.value => TRAINING_LABEL.to_owned(),
                name => name,
            },
        });
        if let Some(drift) = drift {
            for (ours, _) in &drift.names.0 {
                if !columns.iter().chain(&label).any(|column| column.name == *ours) {
                    let mend = nearest(ours, columns.iter().map(|c| c.name.as_str()));
                    let mend = mend.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
                    self.error_at_key(&at.key("names").key(ours), format!("no column `{ours}` is watched"), mend);
                }
            }
        }
        Some(DriftPlan {
            window,
            columns,
            label,
            references,
            bins: drift.and_then(|d| d.bins).unwrap_or(BINS) as usize,
            false_alarms: rate,
            bonferroni: drift.and_then(|d| d.correct) == Some(CorrectConfig::Bonferroni),
            evidently: drift.and_then(|d| d.rule) == Some(DriftRuleConfig::Evidently),
            quality,
            spine: set.plan.spine,
        })
    }

    fn drift_features(
        &mut self,
        at: &Path,
        drift: Option<&DriftConfig>,
        set: &Set,
        reference: Option<usize>,
    ) -> Vec<DriftColumn> {
        let all = &set.plan.columns;
        let listed = |columns: &Option<crate::plan::values::Columns>| columns.as_ref().map(|c| c.0.clone());
        let chosen = drift.and_then(|d| listed(&d.columns));
        let categorical = drift.and_then(|d| listed(&d.categorical)).unwrap_or_default();
        let lists = [("columns", chosen.clone().unwrap_or_default()), ("categorical", categorical.clone())];
        for (key, names) in lists {
            for name in names.iter().filter(|name| !all.iter().any(|c| c.name == **name || c.engine == **name)) {
                let mend = match nearest(name, all.iter().map(|c| c.name.as_str())) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("they are {}", super::quoted(&all.iter().map(|c| &c.name).collect::<Vec<_>>())),
                };
                self.error(&at.key(key), format!("`{name}` is no input of the model"), mend);
            }
        }
        let metrics = match drift {
            None => Vec::new(),
            Some(drift) => drift.features.clone().unwrap_or(FEATURES.to_vec()),
        };
        let names = drift.map(|d| d.names.0.as_slice()).unwrap_or_default();
        let mut columns = Vec::new();
        for column in all {
            let is = |name: &String| *name == column.name || *name == column.engine;
            if chosen.as_ref().is_some_and(|chosen| !chosen.iter().any(is)) {
                continue;
            }
            let text = matches!(column.data_type, DataType::Utf8 | DataType::Boolean | DataType::Dictionary(..));
            let number = column.data_type.is_numeric() && !matches!(column.data_type, DataType::Decimal256(..));
            if drift.is_some() && !text && !number {
                let what = format!("`{}` is of type {}, which has no histogram", column.name, column.data_type);
                self.error(&at.key("columns"), what, "leave it out: name the others under `columns`");
                continue;
            }
            let theirs = names.iter().find(|(ours, _)| *ours == column.name);
            columns.push(DriftColumn {
                name: column.name.clone(),
                engine: column.engine.clone(),
                role: ColumnRole::Feature,
                categories: text || categorical.iter().any(is),
                metrics: metrics.clone(),
                reference,
                reference_column: theirs.map_or_else(|| column.name.clone(), |(_, theirs)| theirs.0.clone()),
            });
        }
        columns
    }

    fn reference(
        &mut self,
        path: &Path,
        c: &ReferenceConfig,
        (window, model): (Micros, &ModelPlan),
        all: &mut Vec<ReferencePlan>,
    ) -> Option<usize> {
        let plan = match c {
            ReferenceConfig::Word(ReferenceWord::Training) => {
                if model.registered.is_none() {
                    let what = format!(
                        "model `{}` scores with a file, and only a registered version says what it was fitted on",
                        model.name
                    );
                    let mend = format!(
                        "write `models: {{{0}: {{registry: {0}@champion, …}}}}`, or name the rows: `reference: {{delta: {{uri: …}}}}`",
                        model.name
                    );
                    self.error(path, what, mend);
                    return None;
                }
                ReferencePlan::Training
            }
            ReferenceConfig::With(settings) => self.reference_with(path, settings, window)?,
        };
        all.push(plan);
        Some(all.len() - 1)
    }

    fn reference_with(&mut self, path: &Path, c: &ReferenceSettings, window: Micros) -> Option<ReferencePlan> {
        let kinds = [c.delta.is_some(), c.file.is_some(), c.past.is_some(), c.between.is_some()];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            let mend = "write `training`, or one of `delta: {uri: …}`, `file: PATH.parquet`, `past: 7d`, `between: [FROM, TO]`";
            self.error(path, "a reference is one thing", mend);
            return None;
        }
        if c.filter.is_some() && c.file.is_none() {
            let mend = "write it inside of `delta: {…}`, or remove it";
            self.error_at_key(&path.key("where"), "`where` is of `file`", mend);
        }
        let filters = [(path.key("where"), &c.filter), (path.key("delta").key("where"), &None)];
        let inner = c.delta.as_ref().map(|d| (path.key("delta").key("where"), &d.filter));
        for (at, filter) in filters.into_iter().chain(inner) {
            if let Some(Err(error)) = filter.as_ref().map(|filter| check_syntax(&filter.0)) {
                self.expression_error(&at, &error);
            }
        }
        let plan = if let Some(delta) = &c.delta {
            let uri = self.local(&path.key("delta").key("uri"), &delta.uri.0)?;
            let filter = delta.filter.as_ref().map(|f| f.0.clone());
            ReferencePlan::Delta { uri: PathBuf::from(uri), version: delta.version, filter }
        } else if let Some(file) = &c.file {
            let filter = c.filter.as_ref().map(|f| f.0.clone());
            ReferencePlan::File { path: PathBuf::from(locate(&file.0, self.directory)), filter }
        } else if let Some(past) = &c.past {
            if past.0 <= 0 || past.0 % window != 0 {
                let what = format!("`past` is no whole number of windows, which are {}", format_duration(window));
                self.error(&path.key("past"), what, "write a multiple of the window");
                return None;
            }
            ReferencePlan::Past(past.0)
        } else {
            let times: Vec<i64> = c.between.iter().flatten().map(|time| time.0).collect();
            let [from, to] = times[..] else {
                let mend = "write `between: [2026-01-01, 2026-01-08]`";
                self.error(&path.key("between"), "`between` has two times", mend);
                return None;
            };
            if from >= to || from.rem_euclid(window) != 0 || to.rem_euclid(window) != 0 {
                let what = format!("`between` is no whole number of windows, which are {}", format_duration(window));
                self.error(&path.key("between"), what, "begin and end with a window, in UTC");
                return None;
            }
            ReferencePlan::Between(from, to)
        };
        Some(plan)
    }
}
