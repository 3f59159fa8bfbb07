//! Models, labels and stores.

use std::path::PathBuf;

use super::Compiler;
use super::join::same_keys;
use super::model_version::ModelVersion;
use super::set::Set;
use super::source::{DEAD_LETTERS, Source};
use crate::base::{Micros, SecretText};
use crate::plan::RedisAddress;
use crate::plan::config::{JobConfig, LayoutConfig, MaintainConfig, ModelConfig, RedisConfig};
use crate::plan::faults::Path;
use crate::plan::model::{
    LabelPlan, MaintainPlan, ModelOutput, ModelPlan, OfflinePlan, OnlinePlace, OnlinePlan, RedisLayout, RedisPlan,
    SourcePlan,
};
use crate::plan::{feast, nearest};

/// The tables that a job has.
pub(super) struct Tables(Vec<String>);

impl Tables {
    pub fn of(config: &JobConfig) -> Tables {
        let mut tables: Vec<String> = config.features.0.iter().map(|(n, _)| format!("features/{n}")).collect();
        tables.extend(config.feature_sets.0.iter().map(|(n, _)| format!("feature_sets/{n}")));
        tables.extend(config.models.0.iter().map(|(n, _)| format!("predictions/{n}")));
        tables.extend(config.labels.0.iter().map(|(n, _)| format!("labels/{n}")));
        if !config.monitors.0.is_empty() {
            tables.extend(["stats/accuracy", "stats/drift", "stats/quality", "stats/operation"].map(str::to_owned));
        }
        if config.monitors.0.iter().any(|(_, monitor)| !monitor.alerts.is_empty()) {
            tables.push("stats/alerts".to_owned());
        }
        tables.push(DEAD_LETTERS.to_string());
        for (_, source) in &config.sources.0 {
            if let Some(rejected) = &source.on_invalid
                && !tables.contains(&rejected.dead_letter.0)
            {
                tables.push(rejected.dead_letter.0.clone());
            }
        }
        Tables(tables)
    }
}

/// A label declaration on its way to a [`LabelPlan`].
pub(super) struct Label {
    pub model: usize,
    pub from: usize,
    id: String,
    pub value: String,
    within: Micros,
}

impl Label {
    pub fn finish(self, sources: &[SourcePlan]) -> Option<LabelPlan> {
        let schema = &sources[self.from].stream_schema;
        Some(LabelPlan {
            model: self.model,
            from: self.from,
            id: schema.index_of(&self.id).ok()?,
            value: schema.index_of(&self.value).ok()?,
            within: self.within,
        })
    }
}

impl Compiler<'_> {
    pub(super) fn models(&mut self, config: &JobConfig, sets: &[Set]) -> Vec<ModelPlan> {
        config.models.0.iter().filter_map(|(name, c)| self.model(config, name, c, sets)).collect()
    }

    fn model(&mut self, job: &JobConfig, name: &str, config: &ModelConfig, sets: &[Set]) -> Option<ModelPlan> {
        let path = Path::of(&["models", name]);
        let version = self.model_version(job, name, config);
        if config.outputs.0.is_empty() {
            let written = self.tree.get("models").and_then(|m| m.get(name)).and_then(|m| m.get("outputs"));
            if matches!(written.map(|n| &n.data), Some(crate::plan::yaml::Data::Map(entries)) if entries.is_empty()) {
                self.error(&path.key("outputs"), "the model has no outputs", "add `score: \"probabilities[1]\"`");
            }
        }
        let mut outputs = Vec::new();
        for (column, text) in &config.outputs.0 {
            match output(column, &text.0) {
                Some(output) => outputs.push(output),
                None => self.error(
                    &path.key("outputs").key(column),
                    format!("`{}` is not an output", text.0),
                    "write the output's name, with an element where it has several: \"probabilities[1]\"",
                ),
            }
        }
        let inputs = sets.iter().position(|s| s.plan.name == config.inputs.0);
        if inputs.is_none() {
            self.undeclared(&path.key("inputs"), &config.inputs.0, "feature set", &["feature_sets"]);
        }
        let (inputs, version) = (inputs?, version?);
        for (column, _) in &config.outputs.0 {
            if sets[inputs].plan.columns.iter().any(|c| c.name == *column) {
                let what = format!("`{column}` is a column of `{}` already, and both go to one table", config.inputs.0);
                self.error_at_key(&path.key("outputs").key(column), what, "choose another name");
            }
        }
        // A set that has lost columns to faults would be blamed for their number.
        if sets[inputs].sound && outputs.len() == config.outputs.0.len() {
            let columns: Vec<_> =
                sets[inputs].plan.columns.iter().map(|c| (c.name.clone(), c.data_type.clone())).collect();
            for what in self.catalog.check_model(&version.file, &columns, &outputs) {
                self.errors(&version.at, &format!("{}{what}", version.said));
            }
        } else if version.registered.is_none() && !version.file.is_file() {
            self.error(&version.at, format!("there is no file `{}`", version.file.display()), "");
        }
        let ModelVersion { version, file, registered, .. } = version;
        Some(ModelPlan { name: name.to_string(), version, path: file, registered, inputs, outputs })
    }

    pub(super) fn labels(
        &mut self,
        config: &JobConfig,
        models: &[ModelPlan],
        sets: &[Set],
        sources: &mut [Source],
    ) -> Vec<Label> {
        let mut labels = Vec::new();
        for (name, c) in &config.labels.0 {
            let path = Path::of(&["labels", name]);
            let model = models.iter().position(|m| m.name == *name);
            if model.is_none() && !self.declared("models", name) {
                let names: Vec<&str> = config.models.0.iter().map(|(n, _)| n.as_str()).collect();
                let mend = nearest(name, names.iter().copied()).map(|n| format!("did you mean `{n}`?"));
                self.error_at_key(
                    &path,
                    format!("there is no model `{name}`"),
                    mend.unwrap_or("labels are named by their model".into()),
                );
            }
            let from = sources.iter().position(|s| s.name == c.from.0);
            let Some(from) = from else {
                self.undeclared(&path.key("from"), &c.from.0, "source", &["sources"]);
                continue;
            };
            let id_type = self.source_column(&path.key("prediction"), &c.prediction.0, &sources[from]);
            let value_type = self.source_column(&path.key("value"), &c.value.0, &sources[from]);
            if let Some(t) = &value_type
                && !(t.is_numeric() || *t == arrow::datatypes::DataType::Boolean)
            {
                let mend = "a label is a number or a truth value";
                self.error(&path.key("value"), format!("`{}` is of type {t}", c.value.0), mend);
            }
            let Some(model) = model else { continue };
            let spine = &sources[sets[models[model].inputs].plan.spine];
            let written =
                self.tree.get("sources").and_then(|s| s.get(&spine.name)).is_some_and(|s| s.get("id").is_some());
            match (&spine.id, &id_type) {
                (None, _) if !written => {
                    let spine = spine.name.clone();
                    self.error(
                        &path.key("prediction"),
                        format!("labels find predictions by the event's id, and `{spine}` names none"),
                        format!("add `id: COLUMN` to `sources.{spine}`"),
                    );
                }
                (Some(id), Some(found)) => {
                    if let Some(wanted) = spine.column(id)
                        && !same_keys(wanted, found)
                    {
                        let what = format!(
                            "`{}` is of type {found}; the id `{id}` of `{}` is of type {wanted}",
                            c.prediction.0, spine.name
                        );
                        self.error(&path.key("prediction"), what, "both must be integers, or of one type");
                    }
                }
                _ => {}
            }
            for column in [&c.prediction.0, &c.value.0] {
                sources[from].note_column(column);
            }
            labels.push(Label {
                model,
                from,
                id: c.prediction.0.clone(),
                value: c.value.0.clone(),
                within: c.within.0,
            });
        }
        labels
    }

    pub(super) fn online(&mut self, config: &JobConfig) -> Option<OnlinePlan> {
        let online = config.sinks.online.as_ref()?;
        let path = Path::of(&["sinks", "online"]);
        if config.features.0.is_empty() {
            self.error_at_key(&path, "the online store would be empty: the job has no feature views", "remove it");
        }
        if online.refresh.as_ref().is_some_and(|r| r.0 == 0) {
            self.error(
                &path.key("refresh"),
                "`refresh: 0s` would rewrite without end",
                "give a length of time such as 100ms",
            );
        }
        let refresh = online.refresh.as_ref().map_or(1_000_000, |r| r.0);
        if let Some(redis) = &online.redis {
            if online.embedded.is_some() {
                let mend = "remove one of them";
                self.error_at_key(&path.key("embedded"), "a job has one online store, and `redis` is given too", mend);
            }
            return Some(OnlinePlan { store: OnlinePlace::Redis(self.redis(config, redis)?), refresh });
        }
        let directory = online.embedded.as_ref().and_then(|e| e.path.as_ref());
        let directory = directory.map_or_else(|| format!("./online/{}", config.job.0), |p| p.0.clone());
        let directory = self.local(&path.key("embedded").key("path"), &directory)?;
        Some(OnlinePlan { store: OnlinePlace::Embedded(PathBuf::from(directory)), refresh })
    }

    fn redis(&mut self, config: &JobConfig, redis: &RedisConfig) -> Option<RedisPlan> {
        let path = Path::of(&["sinks", "online", "redis"]);
        let layout = match redis.layout {
            LayoutConfig::Native => {
                if redis.project.is_some() {
                    let mend = "add `layout: feast`, or remove it";
                    self.error_at_key(&path.key("project"), "a project is Feast's, and the layout is `native`", mend);
                }
                RedisLayout::Native
            }
            LayoutConfig::Feast => {
                let project = redis.project.as_ref().map_or(&config.job.0, |p| &p.0).clone();
                if !feast::is_project(&project) {
                    let what = format!("`{project}` is no name of a Feast project");
                    let place = path.key(if redis.project.is_some() { "project" } else { "layout" });
                    self.error(&place, what, "give `project`: letters, digits and underscores");
                }
                RedisLayout::Feast { project }
            }
        };
        let prefix = redis.prefix.as_ref().map_or_else(|| config.job.0.clone(), |p| p.0.clone());
        let url = SecretText::parse(&redis.url.0);
        // A reference to the whole URL shows its shape only when it is resolved.
        let shown = url.as_ref().map_err(Clone::clone).and_then(|url| match url.is_reference() {
            true => Ok(redis.url.0.clone()),
            false => RedisAddress::parse(&url.shape("x")).map(|address| address.to_string()),
        });
        let known = url.as_ref().ok().filter(|url| !url.is_reference()).map(|url| url.shape("x"));
        let ca = self.authorities(&path, redis.ca.as_ref(), known.as_deref());
        match (url, shown) {
            (Ok(url), Ok(shown)) => Some(RedisPlan { url, shown, prefix, layout, ca }),
            (_, Err(what)) | (Err(what), _) => {
                self.error(&path.key("url"), what, "");
                None
            }
        }
    }

    pub(super) fn offline(&mut self, config: &JobConfig, known: &Tables) -> Option<OfflinePlan> {
        let path = Path::of(&["sinks", "offline"]);
        let Some(offline) = &config.sinks.offline else {
            let kept = config.models.0.iter().all(|(_, model)| model.to.is_some());
            if self.tree.get("sinks").is_none_or(|s| s.get("offline").is_none()) && !kept {
                let mend = "add `sinks: {offline: {delta: {uri: DIRECTORY}}}`";
                self.warn(&Path::of(&["models"]), "predictions are computed and kept nowhere", mend);
            }
            return None;
        };
        for (i, table) in offline.tables.iter().flatten().enumerate() {
            if known.0.contains(&table.0) {
                continue;
            }
            let mend = match nearest(&table.0, known.0.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the tables are {}", known.0.join(", ")),
            };
            self.error(&path.key("tables").item(i), format!("the job has no table `{}`", table.0), mend);
        }
        let maintain = offline.maintain.as_ref().map(|maintain| self.maintain(&path.key("maintain"), maintain));
        let uri = self.local(&path.key("delta").key("uri"), &offline.delta.uri.0)?;
        Some(OfflinePlan {
            uri: std::path::absolute(&uri).ok()?.to_str()?.to_string(),
            tables: offline.tables.as_ref().map(|list| list.iter().map(|t| t.0.clone()).collect()),
            maintain,
        })
    }

    fn maintain(&mut self, path: &Path, config: &MaintainConfig) -> MaintainPlan {
        let default = MaintainPlan::default();
        let plan = MaintainPlan {
            every: config.every.as_ref().map_or(default.every, |d| d.0),
            compact_below: config.compact_below.as_ref().map_or(default.compact_below, |b| b.0),
            vacuum_after: config.vacuum_after.as_ref().map_or(default.vacuum_after, |d| d.0),
        };
        if plan.every < 1_000_000 {
            self.error(&path.key("every"), "is too often", "give 1s at least; 1h is usual");
        }
        if plan.vacuum_after < 3_600_000_000 {
            let what = "would take files away from queries that read them";
            self.error(&path.key("vacuum_after"), what, "give 1h at least; 7d is usual");
        }
        plan
    }

    /// A local directory; other places are refused by name.
    pub(super) fn local(&mut self, path: &Path, uri: &str) -> Option<String> {
        match uri.split_once("://") {
            None => Some(uri.to_string()),
            Some(("file", rest)) => Some(rest.to_string()),
            Some((scheme, _)) => {
                self.error(path, format!("`{scheme}://` is not built yet"), "give a local directory");
                None
            }
        }
    }
}

/// Reads `tensor` or `tensor[element]`.
fn output(column: &str, text: &str) -> Option<ModelOutput> {
    let (tensor, element) = match text.split_once('[') {
        None => (text, None),
        Some((tensor, rest)) => (tensor, Some(rest.strip_suffix(']')?.parse().ok()?)),
    };
    let tensor = tensor.trim();
    if tensor.is_empty() || tensor.contains(']') {
        return None;
    }
    Some(ModelOutput { name: column.to_string(), tensor: tensor.to_string(), element })
}
