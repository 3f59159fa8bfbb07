//! `retrain`: when a model is retrained, and how its challengers come in.

use std::path::PathBuf;

use super::Compiler;
use super::output::Label;
use super::set::Set;
use super::source::Source;
use crate::base::{Cron, Micros};
use crate::plan::config::{JobConfig, RetrainConfig, TriggerConfig, TriggerSettings, TriggerWord};
use crate::plan::faults::Path;
use crate::plan::model::{ModelPlan, MonitorPlan, RetrainPlan, RolloutPlan, Trigger};
use crate::plan::nearest;

/// None is started sooner after the last, unless given.
const COOL_DOWN: Micros = 3_600_000_000;

impl Compiler<'_> {
    /// How challengers come in, by model.
    pub(super) fn retrain(
        &mut self,
        config: &JobConfig,
        models: &[ModelPlan],
        monitors: &[MonitorPlan],
        sets: &[Set],
        sources: &mut [Source],
    ) -> Vec<(usize, RolloutPlan)> {
        let mut rollouts = Vec::new();
        for (name, c) in &config.retrain.0 {
            let path = Path::of(&["retrain", name]);
            let Some(model) = models.iter().position(|m| m.name == *name) else {
                if !self.declared("models", name) {
                    let near = nearest(name, models.iter().map(|m| m.name.as_str()));
                    let mend = near.map(|n| format!("did you mean `{n}`?"));
                    let mend = mend.unwrap_or("models are retrained under their own names".into());
                    self.error_at_key(&path, format!("there is no model `{name}`"), mend);
                }
                continue;
            };
            let Some(rollout) = &c.rollout else { continue };
            let set = &sets[models[model].inputs];
            let monitor = monitors.iter().find(|monitor| monitor.model == model);
            let spine = &mut sources[set.plan.spine];
            if monitor.is_none() && self.declared("monitors", name) {
                // It has its own fault.
                continue;
            }
            let rollout = self.rollout(&path.key("rollout"), rollout, monitor, set, spine);
            rollouts.extend(rollout.map(|rollout| (model, rollout)));
        }
        rollouts
    }

    /// When models are retrained.
    pub(super) fn retrains(
        &mut self,
        config: &JobConfig,
        models: &[ModelPlan],
        monitors: &[MonitorPlan],
        labels: &[Label],
    ) -> Vec<RetrainPlan> {
        let mut retrains = Vec::new();
        for (name, c) in &config.retrain.0 {
            let path = Path::of(&["retrain", name]);
            // A model that is not there has its fault already.
            let Some(model) = models.iter().position(|m| m.name == *name) else { continue };
            let on: Vec<Trigger> =
                c.on.iter()
                    .enumerate()
                    .filter_map(|(i, trigger)| {
                        let monitor = monitors.iter().find(|monitor| monitor.model == model);
                        self.trigger(
                            &path.key("on").item(i),
                            trigger,
                            monitor,
                            name,
                            labels.iter().any(|l| l.model == model),
                        )
                    })
                    .collect();
            if let Some(retrain) = self.retraining(&path, c, model, on) {
                retrains.push(retrain);
            }
        }
        retrains
    }

    fn retraining(&mut self, path: &Path, c: &RetrainConfig, model: usize, on: Vec<Trigger>) -> Option<RetrainPlan> {
        let Some(job) = &c.job else {
            if !c.on.is_empty() {
                let mend = "name the batch dataflow: `job: JOB.yaml`";
                self.error_at_key(&path.key("on"), "it is not said what is started", mend);
            } else if c.cool_down.is_some() {
                self.error_at_key(&path.key("cool_down"), "nothing is started that could cool down", "remove it");
            }
            return None;
        };
        // A server keeps a copy of the job's file elsewhere, and runs the job where the server was started.
        let file = match self.directory.join(&job.0) {
            beside if beside.is_file() => beside,
            beside => Some(PathBuf::from(&job.0)).filter(|here| here.is_file()).unwrap_or(beside),
        };
        match std::fs::read_to_string(&file) {
            Ok(text) if !crate::plan::batch::is_batch(&text) => {
                let what = format!("`{}` is no batch dataflow", job.0);
                self.error(&path.key("job"), what, "it begins with `batch: NAME`, and has `steps`");
            }
            Ok(_) => {}
            Err(error) => {
                let what = format!("`{}` cannot be read: {error}", job.0);
                self.error(
                    &path.key("job"),
                    what,
                    "a relative path starts at the directory of the job's file, or else at the current one",
                );
            }
        }
        Some(RetrainPlan { model, on, cool_down: c.cool_down.as_ref().map_or(COOL_DOWN, |d| d.0), job: file })
    }

    fn trigger(
        &mut self,
        at: &Path,
        c: &TriggerConfig,
        monitor: Option<&MonitorPlan>,
        model: &str,
        labels: bool,
    ) -> Option<Trigger> {
        let c = match c {
            TriggerConfig::Word(TriggerWord::Drift) => {
                let rules = monitor.map(|monitor| monitor.alerts.as_slice()).unwrap_or_default();
                let about = rules.iter().any(|rule| rule.condition.is_drift());
                if !about && !self.broken_alerts(model, monitor) {
                    let mend = "write one such as `{name: drifted, when: drift}` or `{name: changed, when: change}` under the monitor's `alerts`";
                    self.error(at, "the model's monitor has no alert about drift", mend);
                }
                return Some(Trigger::Drift);
            }
            TriggerConfig::With(settings) => settings,
        };
        let TriggerSettings { alert, every, cron, labels: count } = c;
        let written = [alert.is_some(), every.is_some(), cron.is_some(), count.is_some()];
        if written.iter().filter(|is| **is).count() != 1 {
            let what = "a trigger is one of alert, every, cron and labels";
            self.error(at, what, "write several as several items: `[{every: 7d}, {labels: 50000}]`");
            return None;
        }
        if let Some(name) = alert {
            let rules = monitor.map(|monitor| monitor.alerts.as_slice()).unwrap_or_default();
            if !rules.iter().any(|rule| rule.name == name.0) && !self.broken_alerts(model, monitor) {
                let near = nearest(&name.0, rules.iter().map(|rule| rule.name.as_str()));
                let mend =
                    near.map_or("write it under the monitor's `alerts`".to_owned(), |n| format!("did you mean `{n}`?"));
                self.error(&at.key("alert"), format!("the model's monitor has no alert `{}`", name.0), mend);
            }
            return Some(Trigger::Alert(name.0.clone()));
        }
        if let Some(every) = every {
            if every.0 == 0 {
                self.error(&at.key("every"), "`every` must be longer than nothing", "write 7d, say");
            }
            return Some(Trigger::Every(every.0));
        }
        if let Some(cron) = cron {
            return match Cron::parse(&cron.0) {
                Ok(cron) => Some(Trigger::Cron(cron)),
                Err(what) => {
                    self.error(&at.key("cron"), what, "");
                    None
                }
            };
        }
        if !labels && !self.declared("labels", model) {
            let mend = "declare them under `labels` by the model's name";
            self.error(&at.key("labels"), "the model has no labels that could be counted", mend);
        }
        count.map(Trigger::Labels)
    }

    /// Whether the monitor was written with alerts that have faults of their own.
    fn broken_alerts(&self, model: &str, monitor: Option<&MonitorPlan>) -> bool {
        let written = self.tree.get("monitors").and_then(|monitors| monitors.get(model));
        let alerts = match written.and_then(|monitor| monitor.get("alerts")).map(|node| &node.data) {
            Some(crate::plan::yaml::Data::List(items)) => items.len(),
            _ => 0,
        };
        match monitor {
            Some(monitor) => alerts != monitor.alerts.len(),
            None => written.is_some(),
        }
    }
}
