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
                let at = match set.at {
                    At::Latest => "the latest versions of the tables".to_owned(),
                    At::Version(version) => format!("version {version} of the labels"),
                    At::Time(time) => format!("the tables as of {}", format_time(time)),
                };
                writeln!(out, "  {last} whose labels had {} to come, from {at}", format_duration(set.label_delay))?;
            }
            StepKind::Fit(fit) => {
                let learner = fit.learner.as_object().and_then(|map| map.iter().next());
                let (learner, settings) = learner.map_or(("nothing", String::new()), |(n, v)| (n, v.to_string()));
                writeln!(out, "  {learner} {settings} on {}", name(fit.from))?;
                if let Some(prepare) = &fit.prepare {
                    writeln!(out, "  inputs: {prepare}")?;
                }
                if let Some(tune) = &fit.tune {
                    let settings: Vec<&str> = tune.space.iter().map(|(setting, _)| setting.as_str()).collect();
                    let trials = tune.trials.map_or(String::new(), |n| format!(", {n} trials at most"));
                    writeln!(out, "  tuned ({}{trials}): {}", tune.method, settings.join(", "))?;
                }
                writeln!(out, "  {}", split(&fit.split))?;
            }
            StepKind::Evaluate(evaluate) => {
                let (model, on) = (name(evaluate.model), name(evaluate.on));
                writeln!(out, "  the model of {model} beside the champion on {on}")?;
                if let Some(condition) = &evaluate.promote_if {
                    writeln!(out, "  passes if {condition}")?;
                }
                if !evaluate.slices.is_empty() {
                    writeln!(out, "  slices by {}", evaluate.slices.join(", "))?;
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

fn split(plan: &SplitPlan) -> String {
    let kept = match (plan.test, plan.share) {
        (Some(test), _) => format!("the newest {} are kept to judge by", format_duration(test)),
        (None, share) => format!("the newest {} of the rows are kept to judge by", share.unwrap_or(0.2)),
    };
    let gap = if plan.gap > 0 { format!(", after a gap of {}", format_duration(plan.gap)) } else { String::new() };
    let train = plan.train.map_or(String::new(), |train| format!(", fitted on {} before", format_duration(train)));
    format!("{kept}{gap}{train}")
}
