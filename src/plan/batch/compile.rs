//! From the typed configuration to the compiled batch dataflow: the job is loaded, names are resolved, cycles refused.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::config::*;
use super::model::*;
use crate::base::{Micros, Severity};
use crate::plan::catalog::{BatchPart, Catalog};
use crate::plan::compile::{place_of, quoted};
use crate::plan::faults::{Collector, Path};
use crate::plan::model::{Plan, Task};
use crate::plan::nearest;
use crate::plan::values::Name;
use crate::plan::yaml::Node;

/// Pause before the second attempt, unless given.
const BACKOFF: Micros = 10_000_000;

pub(super) struct Compiler<'a> {
    pub tree: &'a Node,
    pub directory: &'a FilePath,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub catalog: &'a dyn Catalog,
    /// Changes of the job's file from outside, after those of `with`.
    pub job_sets: &'a [(String, String)],
    /// The job and its model, once they are known.
    pub job_model: Option<(Arc<Plan>, usize)>,
    pub faults: &'a mut Collector,
}

/// Reads a job's kinds of steps off its configuration.
fn kinds(c: &StepConfig) -> Vec<&'static str> {
    let all = [
        ("dataset", c.dataset.is_some()),
        ("fit", c.fit.is_some()),
        ("evaluate", c.evaluate.is_some()),
        ("register", c.register.is_some()),
        ("rollout", c.rollout.is_some()),
        ("command", c.command.is_some()),
    ];
    all.into_iter().filter(|(_, there)| *there).map(|(kind, _)| kind).collect()
}

impl Compiler<'_> {
    pub fn compile(&mut self, config: &BatchConfig, fingerprint: String) -> Option<BatchPlan> {
        let job = config.of.as_ref().and_then(|of| self.job(&of.0, config));
        if config.of.is_none() && !config.with.0.is_empty() {
            self.error(&Path::of(&["with"]), "there is no job whose file could be changed", "name it: `of: JOB.yaml`");
        }
        let model = self.model(config, job.as_ref());
        self.job_model = job.as_ref().map(|job| Arc::clone(&job.plan)).zip(model);
        if config.steps.0.is_empty() && self.written().is_empty() {
            self.error(&Path::of(&["steps"]), "there is nothing to do", "name at least one step");
        }
        let context = format!(
            "version {} seed {} model {} job {}",
            config.version,
            config.seed.unwrap_or(42),
            config.model.as_ref().map_or("", |name| &name.0),
            job.as_ref().map_or("", |job| &job.plan.fingerprint)
        );
        let mut steps = Vec::new();
        for (name, c) in &config.steps.0 {
            steps.push(self.step(config, name, c, &context));
        }
        self.cycles(&steps);
        let steps: Option<Vec<StepPlan>> = steps.into_iter().collect();
        let plan = |count: u32| count as usize;
        let steps = steps.filter(|_| !self.faults.fatal())?;
        Some(BatchPlan {
            name: config.batch.0.clone(),
            version: config.version,
            job,
            model,
            seed: config.seed.unwrap_or(42),
            limits: Limits {
                threads: config.limits.threads.map(plan),
                memory: config.limits.memory.as_ref().map(|bytes| bytes.0),
                parallel: config.limits.parallel.map(plan),
            },
            steps,
            directory: self.directory.to_owned(),
            fingerprint,
        })
    }

    fn error(&mut self, path: &Path, what: impl Into<String>, mend: impl Into<String>) {
        let place = place_of(self.tree, path, false);
        self.faults.error(&place, path, what, mend);
    }

    fn error_at_key(&mut self, path: &Path, what: impl Into<String>, mend: impl Into<String>) {
        let place = place_of(self.tree, path, true);
        self.faults.error(&place, path, what, mend);
    }

    /// Names of all steps of the file, sound or not.
    fn written(&self) -> Vec<String> {
        let steps = self.tree.get("steps").map(|node| &node.data);
        match steps {
            Some(crate::plan::yaml::Data::Map(entries)) => entries.iter().map(|(key, _)| key.text.clone()).collect(),
            _ => Vec::new(),
        }
    }

    fn job(&mut self, of: &str, config: &BatchConfig) -> Option<JobOf> {
        let path = Path::of(&["of"]);
        let file: PathBuf = self.directory.join(of);
        if !file.is_file() {
            let what = format!("there is no file `{of}`");
            self.error(&path, what, "a relative path starts at the directory of this file");
            return None;
        }
        let mut sets: Vec<(String, String)> =
            config.with.0.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        sets.extend_from_slice(self.job_sets);
        match crate::plan::load(&file, &sets, self.env, self.catalog) {
            Ok((plan, _)) => Some(JobOf { file, sets, plan: Arc::new(plan) }),
            Err(faults) => {
                let errors: Vec<_> = faults.list.iter().filter(|f| f.severity == Severity::Error).collect();
                let first = errors.first().map_or(String::new(), |f| match f.path.as_str() {
                    "" => format!("; the first: line {}: {}", f.line, f.what),
                    path => format!("; the first: {path}: {}", f.what),
                });
                let count = if errors.len() == 1 { "an error".to_owned() } else { format!("{} errors", errors.len()) };
                let mend = format!("`tidemill check {of}` lists them");
                self.error(&path, format!("the job's file has {count}{first}"), mend);
                None
            }
        }
    }

    fn model(&mut self, config: &BatchConfig, job: Option<&JobOf>) -> Option<usize> {
        let name = &config.model.as_ref()?.0;
        let path = Path::of(&["model"]);
        let Some(job) = job else {
            if config.of.is_none() {
                self.error(&path, "there is no job that could have the model", "name it: `of: JOB.yaml`");
            }
            return None;
        };
        let names: Vec<&str> = job.plan.models.iter().map(|model| model.name.as_str()).collect();
        let found = names.iter().position(|model| model == name);
        if found.is_none() {
            let mend = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if names.is_empty() => "it has none".to_owned(),
                None => format!("it has {}", quoted(&names)),
            };
            self.error(&path, format!("the job has no model `{name}`"), mend);
        }
        found
    }

    fn step(&mut self, config: &BatchConfig, name: &str, c: &StepConfig, context: &str) -> Option<StepPlan> {
        let path = Path::of(&["steps", name]);
        let kinds = kinds(c);
        let [kind] = kinds[..] else {
            match kinds[..] {
                [first, second, ..] => {
                    let what = format!("a step does one thing, and this one has `{first}` and `{second}`");
                    self.error_at_key(&path.key(second), what, "make two steps of it");
                }
                _ => {
                    let mend = "write one of dataset, fit, evaluate, register, rollout and command";
                    let node = self.tree.get("steps").and_then(|steps| steps.get(name));
                    // One that is there and broken has its fault already.
                    let written = ["dataset", "fit", "evaluate", "register", "rollout", "command"];
                    if !written.iter().any(|key| node.is_some_and(|node| node.get(key).is_some())) {
                        self.error_at_key(&path, "the step does nothing", mend);
                    }
                }
            }
            return None;
        };
        if kind != "command" {
            if config.of.is_none() {
                let what = format!("`{kind}` works on a job, and the file names none");
                self.error_at_key(&path.key(kind), what, "write `of: JOB.yaml` at the top");
            } else if config.model.is_none() {
                let what = format!("`{kind}` is about a model, and the file names none");
                self.error_at_key(&path.key(kind), what, "write `model: NAME` at the top");
            }
        }
        let at = path.key(kind);
        let mut needs = Vec::new();
        let compiled = match (&c.dataset, &c.fit, &c.evaluate, &c.register, &c.rollout, &c.command) {
            (Some(c), ..) => StepKind::Dataset(self.dataset(&at, c)?),
            (_, Some(c), ..) => StepKind::Fit(self.fit(&at, c, config, &mut needs)?),
            (_, _, Some(c), ..) => StepKind::Evaluate(self.evaluate(&at, c, config, &mut needs)?),
            (_, _, _, Some(c), ..) => StepKind::Register(self.register(&at, c, config, &mut needs)?),
            (_, _, _, _, Some(c), _) => StepKind::Rollout(self.rollout(&at, c, config, &mut needs)?),
            (.., Some(c)) => StepKind::Command(self.command(&at, c, config, &mut needs)?),
            _ => return None,
        };
        for (i, needed) in c.needs.iter().enumerate() {
            needs.extend(self.other(&path.key("needs").item(i), needed, config, &[]));
        }
        needs.sort_unstable();
        needs.dedup();
        for (at, length) in [
            (path.key("timeout"), c.timeout.as_ref()),
            (path.key("backoff"), c.backoff.as_ref()),
            (at.key("timeout"), c.command.as_ref().and_then(|command| command.timeout.as_ref())),
        ] {
            if length.is_some_and(|length| length.0 == 0) {
                self.error(&at, "must be longer than nothing", "give a length of time such as 10m");
            }
        }
        let own = c.command.as_ref().and_then(|command| command.timeout.as_ref());
        let mut definition = format!("{context} {kind} ");
        if let Some(node) = self.tree.get("steps").and_then(|steps| steps.get(name)).and_then(|step| step.get(kind)) {
            crate::plan::write_canonical(node, &mut definition);
        }
        Some(StepPlan {
            name: name.to_owned(),
            kind: compiled,
            needs,
            retries: c.retries.unwrap_or(0),
            backoff: c.backoff.as_ref().map_or(BACKOFF, |backoff| backoff.0),
            timeout: [c.timeout.as_ref(), own].into_iter().flatten().map(|length| length.0).min(),
            definition,
        })
    }

    /// The index of a step that is named at a path; `kinds` are those that it may be of, empty for any.
    fn other(&mut self, path: &Path, name: &Name, config: &BatchConfig, kinds_allowed: &[&str]) -> Option<usize> {
        let name = &name.0;
        let Some(index) = config.steps.0.iter().position(|(step, _)| step == name) else {
            let written = self.written();
            // A declared but broken one has its own fault already.
            if !written.contains(name) {
                let mend = match nearest(name, written.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", quoted(&written)),
                };
                self.error(path, format!("there is no step `{name}`"), mend);
            }
            return None;
        };
        let kinds = kinds(&config.steps.0[index].1);
        if let [kind] = kinds[..]
            && !kinds_allowed.is_empty()
            && !kinds_allowed.contains(&kind)
        {
            let fitting: Vec<&str> = config
                .steps
                .0
                .iter()
                .filter(|(_, c)| self::kinds(c).iter().any(|kind| kinds_allowed.contains(kind)))
                .map(|(name, _)| name.as_str())
                .collect();
            let mend = match fitting.is_empty() {
                true => format!("add a step with `{}`", kinds_allowed.join("` or `")),
                false => format!("there {} {}", if fitting.len() == 1 { "is" } else { "are" }, quoted(&fitting)),
            };
            let wanted = kinds_allowed.join("` or `");
            self.error(path, format!("`{name}` is a step with `{kind}`; here one with `{wanted}` is meant"), mend);
            return None;
        }
        Some(index)
    }

    fn dataset(&mut self, at: &Path, c: &DatasetConfig) -> Option<DatasetPlan> {
        if c.last.as_ref().is_some_and(|last| last.0 == 0) {
            self.error(&at.key("last"), "`last` must be longer than nothing", "give a length of time such as 30d");
        }
        let state = c.at.as_ref().map_or("latest", |at| &at.0);
        self.ask(&at.key("at"), |catalog| catalog.batch_fault(&BatchPart::At(state)));
        Some(DatasetPlan {
            last: c.last.as_ref().map(|last| last.0),
            to: c.to.as_ref().map(|to| to.0),
            label_delay: c.label_delay.as_ref().map(|delay| delay.0),
            at: state.to_owned(),
        })
    }

    /// Adds what the catalog finds.
    fn ask(&mut self, at: &Path, question: impl FnOnce(&dyn Catalog) -> Option<(String, String)>) {
        if let Some((what, mend)) = question(self.catalog) {
            self.error(at, what, mend);
        }
    }

    /// What the model tells, by the step or by the model's monitor.
    fn tells(&self, classes: Option<u32>, learner: Option<&LearnerConfig>) -> Tells {
        let monitor = self
            .job_model
            .as_ref()
            .and_then(|(plan, model)| plan.monitors.iter().find(|monitor| monitor.model == *model));
        match (classes, monitor.map(|monitor| monitor.task)) {
            (Some(classes), _) => Tells::Classes(classes),
            (None, Some(Task::Regression | Task::Ranking)) => Tells::Number,
            (None, Some(Task::Binary | Task::Multiclass)) => Tells::Classes(2),
            (None, None) if learner.is_some_and(|learner| learner.linear.is_some()) => Tells::Number,
            (None, None) => Tells::Classes(2),
        }
    }

    fn fit(&mut self, at: &Path, c: &FitConfig, config: &BatchConfig, needs: &mut Vec<usize>) -> Option<FitPlan> {
        let from = self.other(&at.key("from"), &c.from, config, &["dataset"]);
        needs.extend(from);
        let learner = json_of(&c.learner);
        let tells = self.tells(c.classes, Some(&c.learner));
        let written: Vec<&String> = learner.as_object().map(|map| map.keys().collect()).unwrap_or_default();
        let mut sound = false;
        match written[..] {
            [name] => {
                let before = self.faults.list.len();
                let key = at.key("learner").key(name);
                self.ask(&key, |catalog| catalog.batch_fault(&BatchPart::Learner(&learner, tells)));
                sound = before == self.faults.list.len();
            }
            [] => {
                let mend = "write one of gbdt, forest, tree, logistic and linear, such as `learner: {gbdt: {}}`";
                let node = self.tree.get("steps");
                // What is there and broken has its fault already.
                let broken = at.steps().get(1).and_then(|step| match step {
                    crate::plan::faults::Step::Key(name) => node?.get(name)?.get("fit")?.get("learner"),
                    crate::plan::faults::Step::Item(_) => None,
                });
                if broken.is_none_or(|node| matches!(&node.data, crate::plan::yaml::Data::Map(map) if map.is_empty())) {
                    self.error(&at.key("learner"), "nothing learns", mend);
                }
            }
            [first, second, ..] => {
                let what = format!("one learns, and here are `{first}` and `{second}`");
                let key = at.key("learner").key(second);
                self.error_at_key(&key, what, "make two steps of it, and compare them");
            }
        }
        let prepare = c.prepare.as_ref().map_or_else(|| json!({}), json_of);
        self.ask(&at.key("prepare"), |catalog| catalog.batch_fault(&BatchPart::Prepare(&prepare)));
        let tune = c.tune.as_ref().map(|tune| {
            let plan = TunePlan { options: json_of(tune), folds: tune.folds.as_ref().map(json_of) };
            if sound {
                let part = BatchPart::Tune { options: &plan.options, learner: &learner, tells };
                self.ask(&at.key("tune"), |catalog| catalog.batch_fault(&part));
            }
            plan
        });
        let split = self.split(&at.key("split"), c.split.as_ref());
        Some(FitPlan { from: from?, learner, prepare, tune, split, tells })
    }

    fn split(&mut self, at: &Path, c: Option<&SplitConfig>) -> Value {
        let Some(c) = c else { return json!({}) };
        if c.share.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
            self.error(&at.key("share"), "a share is above 0 and below 1", "write 0.2, say");
        }
        if let (Some(_), Some(_)) = (c.share, &c.test) {
            let mend = "keep one of them";
            self.error_at_key(&at.key("share"), "`test` says already how much is kept to judge by", mend);
        }
        for (key, length) in [("test", &c.test), ("train", &c.train)] {
            if length.as_ref().is_some_and(|length| length.0 == 0) {
                self.error(&at.key(key), format!("`{key}` must be longer than nothing"), "give a length such as 7d");
            }
        }
        json_of(c)
    }

    fn evaluate(
        &mut self,
        at: &Path,
        c: &EvaluateConfig,
        config: &BatchConfig,
        needs: &mut Vec<usize>,
    ) -> Option<EvaluatePlan> {
        let model = self.other(&at.key("model"), &c.model, config, &["fit", "command"]);
        let on = self.other(&at.key("on"), &c.on, config, &["dataset"]);
        needs.extend(model.into_iter().chain(on));
        let fit = model.and_then(|step| config.steps.0[step].1.fit.as_ref());
        if c.split.is_some() && fit.is_some() {
            let mend = "remove it; the split is that of the fit";
            self.error_at_key(&at.key("split"), "a fitted model is judged on the rows that its fit kept", mend);
        }
        let tells = self.tells(fit.and_then(|fit| fit.classes), fit.map(|fit| &fit.learner));
        let options = json_of(c);
        let key = if c.promote_if.is_some() { at.key("promote_if") } else { at.clone() };
        self.ask(&key, |catalog| catalog.batch_fault(&BatchPart::Evaluate(&options, tells)));
        let split = self.split(&at.key("split"), c.split.as_ref());
        Some(EvaluatePlan { model: model?, on: on?, split, options, importance: c.importance.unwrap_or(true), tells })
    }

    fn alias(&mut self, at: &Path, alias: &str) {
        let fits = alias.starts_with(|c: char| c.is_ascii_alphabetic())
            && alias.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
            && alias != "latest";
        if !fits {
            let mend = "use letters, digits, `_` and `-`, a letter first; such as challenger";
            self.error(at, format!("`{alias}` cannot be an alias"), mend);
        }
    }

    fn register(
        &mut self,
        at: &Path,
        c: &RegisterConfig,
        config: &BatchConfig,
        needs: &mut Vec<usize>,
    ) -> Option<RegisterPlan> {
        let from = self.other(&at.key("from"), &c.from, config, &["fit", "command"]);
        let after = c.after.as_ref().and_then(|step| self.other(&at.key("after"), step, config, &["evaluate"]));
        needs.extend(from.into_iter().chain(after));
        if let Some(alias) = &c.alias {
            self.alias(&at.key("alias"), &alias.0);
        }
        if c.after.is_some() && after.is_none() {
            return None;
        }
        Some(RegisterPlan { from: from?, after, alias: c.alias.as_ref().map(|alias| alias.0.clone()) })
    }

    fn rollout(
        &mut self,
        at: &Path,
        c: &RolloutStepConfig,
        config: &BatchConfig,
        needs: &mut Vec<usize>,
    ) -> Option<RolloutStep> {
        let from = self.other(&at.key("from"), &c.from, config, &["register"]);
        needs.extend(from);
        let alias = c.alias.as_ref().map_or("challenger", |alias| &alias.0).to_owned();
        self.alias(&at.key("alias"), &alias);
        if c.wait.is_some() && alias != "challenger" {
            let mend = "remove it";
            self.error_at_key(&at.key("wait"), "only what becomes of a challenger is decided by the job", mend);
        }
        Some(RolloutStep { from: from?, alias, wait: c.wait.as_ref().map(|wait| wait.0) })
    }

    fn command(
        &mut self,
        at: &Path,
        c: &CommandConfig,
        config: &BatchConfig,
        needs: &mut Vec<usize>,
    ) -> Option<CommandPlan> {
        let input = c.input.as_ref().and_then(|step| self.other(&at.key("in"), step, config, &[]));
        needs.extend(input);
        if let Some(out) = &c.out {
            let plain = FilePath::new(&out.0).file_name().is_some_and(|name| name.to_str() == Some(&out.0));
            if !plain || out.0.starts_with('.') {
                let mend = "name a file alone, such as model.onnx; TIDEMILL_OUT says where it is written";
                self.error(&at.key("out"), format!("`{}` is not the name of a file", out.0), mend);
            }
        }
        for (name, _) in &c.env.0 {
            if name.starts_with("TIDEMILL_") || name.contains(['=', '\0']) {
                let what = format!("`{name}` cannot be given to the program");
                self.error_at_key(&at.key("env").key(name), what, "TIDEMILL_… is set by Tidemill; choose another name");
            }
        }
        if c.input.is_some() && input.is_none() {
            return None;
        }
        Some(CommandPlan {
            run: c.run.iter().map(|word| word.0.clone()).collect(),
            input,
            out: c.out.as_ref().map(|out| out.0.clone()),
            env: c.env.0.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
        })
    }

    /// Refuses steps that wait for each other, with the round named once.
    fn cycles(&mut self, steps: &[Option<StepPlan>]) {
        // One that has faults of its own is in nobody's way.
        let needs = |step: usize| steps[step].as_ref().map(|step| step.needs.as_slice()).unwrap_or_default();
        let name = |step: usize| steps[step].as_ref().map(|step| step.name.as_str()).unwrap_or_default();
        let mut settled = vec![false; steps.len()];
        while let Some(step) = (0..steps.len()).find(|&s| !settled[s] && needs(s).iter().all(|&n| settled[n])) {
            settled[step] = true;
        }
        while let Some(first) = settled.iter().position(|settled| !settled) {
            // Whoever is not settled needs one that is not, so this walk comes round.
            let mut walk = vec![first];
            let round = loop {
                let last = walk[walk.len() - 1];
                let Some(&next) = needs(last).iter().find(|&&needed| !settled[needed]) else { break Vec::new() };
                if let Some(begin) = walk.iter().position(|&step| step == next) {
                    break walk[begin..].to_vec();
                }
                walk.push(next);
            };
            if let Some(&head) = round.iter().min() {
                let at = round.iter().position(|&step| step == head).unwrap_or(0);
                let names: Vec<&str> =
                    round[at..].iter().chain(&round[..at]).chain([&head]).map(|&step| name(step)).collect();
                let what = match names.len() {
                    2 => format!("`{}` waits for itself", names[0]),
                    _ => format!("steps wait for each other: {}", names.join(" → ")),
                };
                let path = Path::of(&["steps", name(head)]);
                let key = if self.has_needs(name(head)) { path.key("needs") } else { path };
                self.error_at_key(&key, what, "an arrow leads from a step to one that it needs; take one away");
            }
            walk.iter().for_each(|&step| settled[step] = true);
        }
    }

    fn has_needs(&self, name: &str) -> bool {
        self.tree.get("steps").and_then(|steps| steps.get(name)).is_some_and(|step| step.get("needs").is_some())
    }
}

/// A configuration in the words of the file.
fn json_of(config: &impl serde::Serialize) -> Value {
    // Texts, numbers and mappings of texts always become JSON.
    serde_json::to_value(config).unwrap_or_default()
}
