//! The stories of the demo: a model that the world has left behind is replaced, and a bad one is kept out.
//!
//! *Drift*: the generated frauds change on a day; the monitor's alerts start a retraining. The first may not pass, for want of
//! labels of the new world, and is followed by others as long as an alert fires; a challenger that passes is compared in
//! shadow, gets a share of the customers, then all, and is champion. *Broken challenger*: somebody registers a model that was
//! trained on shuffled labels, past all judgement; in shadow its losses show, and it is taken back.
//!
//! All of it is done by the job and its batch dataflow; what is here prepares them and tells what happens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};

use crate::base::SplitMix64;
use crate::batch::{Queue, Standing, signature};
use crate::engine::dataset;
use crate::plan::model::Plan;
use crate::registry::{By, CHALLENGER, CHAMPION, Content, Entry, Event, Registration, Registry, Selector};
use crate::score::Model;
use crate::store::pit::{self, Asked, Query, Rows, Window};
use crate::train::data::Task;
use crate::train::learner::{Learner, Options};
use crate::train::pipeline::Pipeline;
use crate::train::prepare::Prepare;
use crate::train::{onnx, set};

/// The model of the job, in its file and in the registry.
const NAME: &str = "fraud";
/// Who speaks.
const WHO: &str = "tidemill demo";
/// News are looked for this often.
const LOOK: Duration = Duration::from_millis(250);
/// The job goes on for so long after its end, to be looked at.
const AFTER: Duration = Duration::from_secs(3);
/// The broken model learns from the labels of so many days.
const DAYS: i64 = 3;

/// The line of the job's file that names a model's file, and what a story has there.
const VERSIONS: &str = "    versions: {champion: models/card_fraud.onnx}\n";
const REGISTERED: &str = "    registry: fraud@champion\n";

/// How challengers come in. The margin is what the challenger's log loss may be higher.
const ROLLOUT: &str =
    "{shadow: 2d, canary: [25, 50, 100], hold: 1d, by: customer_id, margin: 0.005, min_rows: 2000, expect_rows: 40000}";

/// What the drift starts.
const RETRAIN: &str = "# A new model for card_fraud, of the last days: labels come a day later.
batch: retrain
version: 1
of: card_fraud.yaml
model: fraud
seed: 42
limits: {threads: 1}

steps:
  set:
    dataset: {last: 4d, label_delay: 1d}
    retries: 2
  fit:
    fit: {from: set, learner: {gbdt: {trees: 60, leaves: 15, min_rows: 40}}, split: {share: 0.25, gap: 12h}}
  evaluate:
    evaluate: {model: fit, on: set, promote_if: \"auc_challenger >= auc_champion + 0.05\", repeats: 50, importance: false}
  register:
    register: {from: fit, after: evaluate, alias: challenger}
";

/// Which story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// The world changes, and the model after it.
    Drift,
    /// A bad model is kept out.
    BrokenChallenger,
}

impl Story {
    /// The job's file.
    pub fn job(self, text: &str) -> String {
        let on = match self {
            Story::Drift => "[{alert: more_errors}, {alert: weak_scores}]",
            Story::BrokenChallenger => "[]",
        };
        format!(
            "{}\nregistry: {{uri: \"${{LAKE:-./lake}}/registry\"}}\n\nretrain:\n  {NAME}:\n    on: {on}\n    cool_down: 10d\n    job: retrain.yaml\n    rollout: {ROLLOUT}\n",
            text.replace(VERSIONS, REGISTERED)
        )
    }

    /// Puts the first champion into the registry, and the batch dataflow beside the job's file.
    pub fn prepare(self, root: &Path, model: &[u8]) -> anyhow::Result<()> {
        std::fs::write(root.join("retrain.yaml"), RETRAIN)
            .with_context(|| format!("cannot write {}", root.join("retrain.yaml").display()))?;
        register(&registry(root)?, model, By::new(WHO, "the model that the program brings along"), CHAMPION)?;
        Ok(())
    }

    /// The settings that a story needs: enough traffic that a few days tell, in a few seconds each.
    pub fn sets(self, root: &Path) -> Vec<(String, String)> {
        let mut sets = vec![("registry.uri".to_owned(), place(root))];
        for source in ["tx", "fraud_labels"] {
            let mut set = |key: &str, value: &str| {
                sets.push((format!("sources.{source}.generator.{key}"), value.to_owned()));
            };
            set("customers", "10000");
            set("terminals", "20000");
            if self == Story::Drift {
                set("drift_after", "9d");
            }
        }
        sets.push(("sources.tx.generator.rate".to_owned(), "10000".to_owned()));
        // Tables grow with checkpoints, and days pass in seconds here.
        sets.push(("checkpoint.interval".to_owned(), "1s".to_owned()));
        sets
    }
}

fn place(root: &Path) -> String {
    root.join("registry").display().to_string()
}

fn registry(root: &Path) -> anyhow::Result<Registry> {
    Ok(Registry::open(&place(root))?)
}

fn register(registry: &Registry, model: &[u8], by: By, alias: &str) -> anyhow::Result<u32> {
    let loaded = Model::from_bytes(PathBuf::from("model.onnx"), model)?;
    let mut registration = Registration::new(NAME, Content::Bytes(model.to_vec()), signature(&loaded), by);
    registration.alias = Some(alias.to_owned());
    Ok(registry.register(registration)?)
}

/// How a story ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The challenger is champion.
    Promoted(u32),
    /// The challenger was taken back.
    RolledBack(u32),
}

impl Ending {
    /// Whether it is the one that the story is to show.
    pub fn is_of(self, story: Story) -> bool {
        matches!((self, story), (Ending::Promoted(_), Story::Drift) | (Ending::RolledBack(_), Story::BrokenChallenger))
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            Ending::Promoted(version) => format!("version {version} is champion"),
            Ending::RolledBack(version) => format!("version {version} was taken back; the champion stays"),
        }
    }
}

/// Follows what happens, and does what the story's people do.
pub struct Teller {
    story: Story,
    plan: Plan,
    root: PathBuf,
    registry: Registry,
    queue: Queue,
    /// The last entry told.
    seen: u64,
    /// How each retraining stood when it was last told of.
    retrainings: BTreeMap<String, Standing>,
    looked: Duration,
    broken: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
    did: bool,
    /// Event time of the first labels.
    began: Option<i64>,
    ended: Option<(Ending, Duration)>,
}

impl Teller {
    /// Begins with a job that is about to start.
    pub fn new(story: Story, plan: &Plan, root: &Path) -> anyhow::Result<Teller> {
        let registry = registry(root)?;
        let seen = registry.newest()?;
        Ok(Teller {
            story,
            plan: plan.clone(),
            root: root.to_owned(),
            registry,
            queue: Queue::new(&root.join("state/queue"))?,
            seen,
            retrainings: BTreeMap::new(),
            looked: Duration::ZERO,
            broken: None,
            did: false,
            began: None,
            ended: None,
        })
    }

    /// What is new. `clock` is the job's, in event time.
    pub fn look(&mut self, elapsed: Duration, clock: Option<i64>) -> Vec<String> {
        if elapsed < self.looked + LOOK {
            return Vec::new();
        }
        self.looked = elapsed;
        let mut news = Vec::new();
        // What cannot be read now is looked at again.
        if let Err(error) = self.gather(elapsed, clock, &mut news) {
            tracing::warn!(%error, "the story cannot be followed");
        }
        let at = clock.map_or_else(String::new, |clock| format!(" {}", crate::base::format_time(clock)));
        let day = at.get(..11).unwrap_or_default();
        news.into_iter().map(|line| format!("{:>4} s {day}  {line}", elapsed.as_secs())).collect()
    }

    fn gather(&mut self, elapsed: Duration, clock: Option<i64>, news: &mut Vec<String>) -> anyhow::Result<()> {
        for job in self.queue.list().unwrap_or_default() {
            if self.retrainings.insert(job.id.clone(), job.status.state) != Some(job.status.state) {
                let why = job.status.why.map_or_else(String::new, |why| format!(": {why}"));
                news.push(format!("retraining {}{why} ({})", job.status.state.word(), job.request.cause));
            }
        }
        for entry in self.registry.entries_since(self.seen)? {
            self.seen = entry.number;
            news.push(line_of(&entry));
            if let (None, Some(ending)) = (self.ended, ending_of(&entry, &self.registry)?) {
                self.ended = Some((ending, elapsed));
            }
        }
        if self.story == Story::BrokenChallenger {
            self.break_in(clock, news)?;
        }
        Ok(())
    }

    /// Trains on shuffled labels once there are some, off this thread.
    fn break_in(&mut self, clock: Option<i64>, news: &mut Vec<String>) -> anyhow::Result<()> {
        if self.broken.as_ref().is_some_and(std::thread::JoinHandle::is_finished)
            && let Some(thread) = self.broken.take()
        {
            let outcome = thread.join().unwrap_or_else(|_| Err(anyhow!("training on shuffled labels failed")));
            // Once more: its tables may not be there yet.
            self.did = outcome.is_ok();
            outcome?;
        }
        let Some(clock) = clock else { return Ok(()) };
        let began = *self.began.get_or_insert(clock);
        if self.did || clock < began.saturating_add((DAYS + 1) * crate::base::DAY) {
            return Ok(());
        }
        self.did = true;
        news.push(format!("somebody trains a model on the labels of {DAYS} days, shuffled, and registers it"));
        let (plan, root) = (self.plan.clone(), self.root.clone());
        let thread = std::thread::Builder::new().name("tidemill-demo".to_owned());
        self.broken = Some(thread.spawn(move || train_badly(&plan, &root)).context("no thread for the training")?);
        Ok(())
    }

    /// How the story has ended, once there has been time to look at it.
    pub fn is_over(&self, elapsed: Duration) -> bool {
        self.ended.is_some_and(|(_, at)| elapsed >= at + AFTER)
    }

    /// How it has ended.
    pub fn ending(&self) -> Option<Ending> {
        self.ended.map(|(ending, _)| ending)
    }
}

fn line_of(entry: &Entry) -> String {
    let why = if entry.why.is_empty() { String::new() } else { format!(": {}", entry.why) };
    format!("{} {}{why}", entry.model, entry.event)
}

fn ending_of(entry: &Entry, registry: &Registry) -> anyhow::Result<Option<Ending>> {
    Ok(match &entry.event {
        Event::AliasMoved { alias, to, back: false, .. } if alias == CHAMPION => Some(Ending::Promoted(*to)),
        Event::AliasRemoved { alias, from } if alias == CHALLENGER => {
            let champion = registry.version(NAME, &Selector::Alias(CHAMPION.to_owned()))?;
            (champion.number != *from).then_some(Ending::RolledBack(*from))
        }
        _ => None,
    })
}

/// What somebody in a hurry does: the labels of a set get into disorder, and the model is registered without being judged.
fn train_badly(plan: &Plan, root: &Path) -> anyhow::Result<()> {
    let window = Window { label_delay: Some(crate::base::DAY), ..Window::default() };
    let query = Query {
        job: plan.job.clone(),
        lake: dataset::lake(plan)?,
        rows: Rows::Labelled(dataset::labelled(plan, NAME, window)?),
        at: Asked::Newest,
        memory_bytes: Query::MEMORY_BYTES,
    };
    let file = root.join("shuffled.parquet");
    pit::build(&query, &file)?;
    let mut set = set::read(&file, None)?;
    ensure!(set.labels.iter().any(|label| *label > 0.0), "there are no frauds to learn from yet");
    let mut random = SplitMix64::new(7);
    for i in (1..set.labels.len()).rev() {
        let j = random.below(i as u64 + 1) as usize;
        set.labels.swap(i, j);
    }
    let learner: Learner = serde_json::from_value(serde_json::json!({"gbdt": {"trees": 20, "leaves": 15}}))?;
    let pipeline = Pipeline::fit(&Prepare::default(), &learner, &set, Task::Binary, None, &Options::default())?;
    let why = "trained in a hurry; nobody has looked at the labels";
    register(&registry(root)?, &onnx::export(&pipeline)?, By::new("somebody", why), CHALLENGER)?;
    Ok(())
}
