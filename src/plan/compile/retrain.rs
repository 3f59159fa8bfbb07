//! `retrain`.

use super::Compiler;
use super::set::Set;
use super::source::Source;
use crate::plan::config::JobConfig;
use crate::plan::faults::Path;
use crate::plan::model::{ModelPlan, MonitorPlan, RolloutPlan};
use crate::plan::nearest;

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
}
