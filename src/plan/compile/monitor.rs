//! Monitors.

use arrow::datatypes::DataType;

use super::Compiler;
use super::accuracy::Watched;
use super::output::Label;
use super::set::Set;
use super::source::Source;
use crate::base::DAY;
use crate::plan::config::{JobConfig, MonitorConfig, TaskConfig};
use crate::plan::faults::Path;
use crate::plan::model::{ModelPlan, MonitorPlan, Task};
use crate::plan::nearest;

/// Values of a segment column that are told apart when the file does not say.
const SEGMENTS_MAX: u32 = 100;

impl Compiler<'_> {
    pub(super) fn monitors(
        &mut self,
        config: &JobConfig,
        models: &[ModelPlan],
        labels: &[Label],
        sets: &[Set],
        sources: &mut [Source],
    ) -> Vec<MonitorPlan> {
        let monitors = config.monitors.0.iter();
        monitors.filter_map(|(name, c)| self.monitor(name, c, models, labels, sets, sources)).collect()
    }

    fn monitor(
        &mut self,
        name: &str,
        c: &MonitorConfig,
        models: &[ModelPlan],
        labels: &[Label],
        sets: &[Set],
        sources: &mut [Source],
    ) -> Option<MonitorPlan> {
        let path = Path::of(&["monitors", name]);
        let Some(model) = models.iter().position(|m| m.name == *name) else {
            if !self.declared("models", name) {
                let names = models.iter().map(|m| m.name.as_str());
                let mend = nearest(name, names).map(|n| format!("did you mean `{n}`?"));
                let mend = mend.unwrap_or("monitors are named by their model".into());
                self.error_at_key(&path, format!("there is no model `{name}`"), mend);
            }
            return None;
        };
        let label = labels.iter().position(|l| l.model == model);
        let window = c.window.as_ref().map_or(DAY, |d| d.0);
        let refresh = c.refresh.as_ref().map_or(window, |d| d.0);
        for (key, length) in [("window", window), ("refresh", refresh)] {
            if length <= 0 {
                let mend = "give a length of time such as 1h";
                self.error(&path.key(key), format!("`{key}` must be longer than nothing"), mend);
                return None;
            }
        }
        if window % refresh != 0 {
            let mend = "write a refresh of which the window is a multiple, such as 1h for 1d";
            self.error(&path.key("refresh"), "the window is no whole number of refreshes", mend);
        }
        let set = &sets[models[model].inputs];
        let spine = set.plan.spine;
        let mut segments = Vec::new();
        for (i, column) in c.segments.iter().enumerate() {
            let at = path.key("segments").item(i);
            match set.plan.columns.iter().find(|s| s.name == column.0) {
                Some(found) => segments.push((column.0.clone(), found.engine.clone())),
                None if self.source_column(&at, &column.0, &sources[spine]).is_some() => {
                    sources[spine].note_column(&column.0);
                    segments.push((column.0.clone(), column.0.clone()));
                }
                None => {}
            }
        }
        let outputs: Vec<&str> = models[model].outputs.iter().map(|o| o.name.as_str()).collect();
        let prediction: Vec<String> = match &c.prediction {
            Some(columns) => columns.0.clone(),
            None => outputs.first().map(|o| (*o).to_owned()).into_iter().collect(),
        };
        for column in prediction.iter().filter(|p| !outputs.contains(&p.as_str())) {
            let mend = nearest(column, outputs.iter().copied()).map(|n| format!("did you mean `{n}`?"));
            let mend = mend.unwrap_or_else(|| format!("its outputs are {}", outputs.join(", ")));
            self.error(&path.key("prediction"), format!("`{name}` has no output `{column}`"), mend);
        }
        let label_type = label.and_then(|l| sources[labels[l].from].column(&labels[l].value).cloned());
        let task = match c.task {
            Some(TaskConfig::Binary) => Task::Binary,
            Some(TaskConfig::Multiclass) => Task::Multiclass,
            Some(TaskConfig::Regression) => Task::Regression,
            Some(TaskConfig::Ranking) => Task::Ranking,
            None if prediction.len() > 1 => Task::Multiclass,
            None if label_type.as_ref().is_some_and(DataType::is_floating) => Task::Regression,
            None => Task::Binary,
        };
        if prediction.len() > 1 && task != Task::Multiclass {
            let mend = "name one output, or write `task: multiclass`";
            self.error(&path.key("prediction"), "several outputs are the probabilities of several classes", mend);
        }
        let known = label.map(|label| &labels[label]);
        let drift = self.drift(&path, c, (window, refresh), (&models[model], known), set, sources);
        let watched = Watched { path: &path, task, labelled: label.is_some(), outputs: prediction.len(), window };
        let accuracy = self.accuracy(c, &watched, set, &mut sources[spine]);
        Some(MonitorPlan {
            model,
            drift,
            labels: label,
            window,
            refresh,
            segments,
            segments_max: c.segments_max.unwrap_or(SEGMENTS_MAX) as usize,
            prediction,
            task,
            latency: self.latency(&path.key("latency"), c.latency.as_ref()),
            accuracy,
            detectors: self.detectors(&path, c, task, label.is_some()),
            alerts: Vec::new(),
        })
    }
}
