//! A batch dataflow in words, as `check` prints it.

use std::fmt::Write;

use super::model::*;
use crate::base::{format_bytes, format_duration, format_time};

impl BatchPlan {
    /// What it will do: its limits, and the steps in the order of the file. Several lines, for people.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "batch {} version {}", self.name, self.version)?;
        if let Some(job) = &self.job {
            write!(out, "  of job {} ({})", job.plan.job, job.file.display())?;
            match self.model {
                Some(model) => writeln!(out, ", model {}", job.plan.models[model].name)?,
                None => writeln!(out)?,
            }
        }
        let threads = self.limits.threads.map_or("one thread per processor".to_owned(), |n| format!("{n} threads"));
        let memory = self.limits.memory.map_or(String::new(), |bytes| format!(", {} of memory", format_bytes(bytes)));
        let parallel = match self.limits.parallel {
            Some(1) => "one step at a time".to_owned(),
            Some(n) => format!("{n} steps side by side"),
            None => "a step per thread side by side".to_owned(),
        };
        writeln!(out, "  {threads}{memory}, {parallel}; seed {}", self.seed)?;
        writeln!(out, "  plan {}", &self.fingerprint[..16.min(self.fingerprint.len())])?;
        for step in &self.steps {
            writeln!(out, "\nstep {}: {}", step.name, step.kind.word())?;
            self.write_kind(out, &step.kind)?;
            if !step.needs.is_empty() {
                let names: Vec<&str> = step.needs.iter().map(|&needed| self.steps[needed].name.as_str()).collect();
                writeln!(out, "  after {}", names.join(", "))?;
            }
            let timeout = step.timeout.map(|limit| format!("ended after {}", format_duration(limit)));
            let retries = (step.retries > 0).then(|| {
                let again = if step.retries == 1 { "once".into() } else { format!("{} times", step.retries) };
                format!("tried again {again}, after {} and growing pauses", format_duration(step.backoff))
            });
            let limits: Vec<String> = timeout.into_iter().chain(retries).collect();
            if !limits.is_empty() {
                writeln!(out, "  {}", limits.join("; "))?;
            }
        }
        Ok(())
    }

    fn write_kind(&self, out: &mut String, kind: &StepKind) -> std::fmt::Result {
        let name = |step: usize| self.steps[step].name.as_str();
        match kind {
            StepKind::Dataset(set) => {
                let last = set.last.map_or("all rows".to_owned(), |last| format!("rows of {}", format_duration(last)));
                let to = set.to.map_or(String::new(), |to| format!(" up to {}", format_time(to)));
                let delay = set.label_delay.unwrap_or(0);
                let settled = match delay {
                    0 => String::new(),
                    delay => format!(", {} old at least", format_duration(delay)),
                };
                writeln!(out, "  {last}{to}{settled}; tables: {}", set.at)?;
            }
            StepKind::Fit(fit) => {
                let learner = fit.learner.as_object().and_then(|map| map.iter().next());
                let (learner, settings) = learner.map_or(("nothing", String::new()), |(n, v)| (n, v.to_string()));
                writeln!(out, "  {learner} {settings} on {}", name(fit.from))?;
                for (what, value) in [("inputs", &fit.prepare), ("split", &fit.split)] {
                    if value.as_object().is_some_and(|map| !map.is_empty()) {
                        writeln!(out, "  {what}: {value}")?;
                    }
                }
                if let Some(tune) = &fit.tune {
                    writeln!(out, "  tuned: {}", tune.options)?;
                    if let Some(folds) = &tune.folds {
                        writeln!(out, "  folds: {folds}")?;
                    }
                }
            }
            StepKind::Evaluate(evaluate) => {
                let (model, on) = (name(evaluate.model), name(evaluate.on));
                writeln!(out, "  the model of {model} beside the champion on {on}")?;
                if let Some(condition) = evaluate.options["promote_if"].as_str() {
                    writeln!(out, "  passes if {condition}")?;
                }
                if let Some(slices) = evaluate.options["slices"].as_array() {
                    let names: Vec<&str> = slices.iter().filter_map(serde_json::Value::as_str).collect();
                    writeln!(out, "  slices by {}", names.join(", "))?;
                }
            }
            StepKind::Register(register) => {
                let alias = register.alias.as_ref().map_or(String::new(), |alias| format!(" as {alias}"));
                let after = register.after.map_or(String::new(), |step| format!(" if {} passed", name(step)));
                writeln!(out, "  the model of {}{alias}{after}", name(register.from))?;
            }
            StepKind::Rollout(rollout) => {
                let wait = rollout.wait.map_or(String::new(), |w| format!(", waits {} at most", format_duration(w)));
                writeln!(out, "  the version of {} as {}{wait}", name(rollout.from), rollout.alias)?;
            }
            StepKind::Command(command) => {
                writeln!(out, "  runs {}", command.run.join(" "))?;
                if let Some(made) = &command.out {
                    writeln!(out, "  leaves {made}")?;
                }
            }
        }
        Ok(())
    }
}
