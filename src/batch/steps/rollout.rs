//! Rollouts: a registered version gets its alias, and what the running job makes of it may be waited for.

use std::time::{Duration, Instant};

use serde_json::json;

use super::register::{blamed, by};
use crate::base::format_duration;
use crate::batch::error::StepError;
use crate::batch::step::{Context, Produced, Step};
use crate::plan::batch::RolloutStep;
use crate::registry::{CHALLENGER, CHAMPION, Previous, Registry, VersionNumber};

/// Between two looks at the registry.
const LOOK: Duration = Duration::from_millis(500);

/// A version, as the step that registered it tells.
#[derive(serde::Deserialize)]
struct Made {
    model: String,
    version: VersionNumber,
    registry: String,
}

impl Step for RolloutStep {
    fn run(&self, context: &Context<'_>) -> Result<Produced, StepError> {
        let path = context.given(&context.plan.steps[self.from].name)?.file("version")?;
        let bytes = std::fs::read(path).map_err(StepError::again)?;
        let made: Made = serde_json::from_slice(&bytes).map_err(StepError::hopeless)?;
        let registry = Registry::open(&made.registry).map_err(blamed)?;
        let model = registry.model(&made.model).map_err(blamed)?;
        // A step that starts over must not bring back what was decided meanwhile.
        let known = model.aliases.get(CHAMPION) == Some(&made.version);
        if model.aliases.get(&self.alias) != Some(&made.version) && !known {
            let why = format!("`{}` brings it in", context.plan.name);
            let by = by(context, &why, "rollout");
            registry.set_alias(&made.model, &self.alias, made.version, Previous::Any, &by).map_err(blamed)?;
        }
        let name = format!("{}@{}", made.model, made.version);
        println!("{name} is {}", self.alias);
        let decision = match self.wait.filter(|_| self.alias == CHALLENGER) {
            Some(wait) => self.wait_for(&registry, &made, wait, context)?,
            None => "not waited for",
        };
        let summary = format!("{name} is {}; {decision}", self.alias);
        Ok(Produced {
            facts: json!({"summary": summary, "model": made.model, "version": made.version, "decision": decision}),
            ..Produced::default()
        })
    }
}

impl RolloutStep {
    /// Waits until the version is the champion, or the challenger no more.
    fn wait_for(
        &self,
        registry: &Registry,
        made: &Made,
        wait: i64,
        context: &Context<'_>,
    ) -> Result<&'static str, StepError> {
        let (began, limit) = (Instant::now(), Duration::from_micros(wait.unsigned_abs()));
        while began.elapsed() < limit {
            let aliases = registry.model(&made.model).map_err(blamed)?.aliases;
            if aliases.get(CHAMPION) == Some(&made.version) {
                return Ok("promoted");
            }
            if aliases.get(CHALLENGER) != Some(&made.version) {
                return Ok("rolled back");
            }
            context.progress(Some(began.elapsed().as_secs_f64() / limit.as_secs_f64()), "waiting for a decision");
            std::thread::sleep(LOOK);
        }
        let limit = format_duration(wait);
        Err(StepError::hopeless(format!("nothing was decided about the challenger in {limit}; is the job running?")))
    }
}
