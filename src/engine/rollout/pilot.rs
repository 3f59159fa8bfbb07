//! The thread between a job and its registry: what is wanted there becomes orders, what was done here is told there.
//!
//! It follows the history: a version that gets the alias `challenger` is loaded, so that no tick waits for it, and begins a
//! rollout; an alias that is moved by hand, and a request, become orders as well. Deeds are told once their tick is durable,
//! each under a key, so that it does not matter how often. It also looks at latency, which a replay cannot know: it proposes
//! that the fact be recorded when a guard is hurt. A registry that does not answer is asked again: the job goes on meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::EngineError;
use super::super::monitor::training;
use super::super::shared::Shared;
use super::{Rollouts, is_rolled_out, lock, own_prefix, policy, routes_name, saved_routes};
use crate::base::{Blame, Tick, failpoint};
use crate::plan::model::Plan;
use crate::registry::{By, CHALLENGER, CHAMPION, Entry, Event, Previous, Registry, RegistryError, Selector};
use crate::rollout::order::{Do, Order};
use crate::rollout::{Action, Guarded, VersionRef};

/// The registry is asked this often.
const EVERY: Duration = Duration::from_secs(1);
/// How long a job that ends waits for the registry.
const GRACE: Duration = Duration::from_secs(5);
/// Rows of a version before its latency is judged.
const LATENCY_ROWS: u64 = 1_000;

/// What is done at the registry besides a note.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Nothing.
    Noted,
    /// The champion is another.
    Promoted {
        /// The version that was the champion.
        from: Option<u64>,
        /// The version that is.
        to: u64,
    },
    /// The challenger is none any more.
    RolledBack {
        /// The version.
        challenger: u64,
    },
}

/// Something that was done and that the registry is to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deed {
    /// Names it.
    pub key: String,
    /// It is told when this tick is durable; at once where there is none.
    pub tick: Option<Tick>,
    /// The model, by the job's name for it.
    pub model: String,
    /// The model, by the registry's.
    pub name: String,
    /// The challenger.
    pub version: u32,
    /// What was done.
    pub what: What,
    /// Why.
    pub why: String,
    /// What the reason rests on.
    pub numbers: Value,
}

/// Begins the keys of a job's own entries.
pub fn own(plan: &Plan) -> String {
    format!("rollout/{}/", plan.job)
}

impl Rollouts {
    /// Has the registry told of a deed; nothing in a replay, whose deeds it knows.
    pub fn tell(&self, deed: Deed) {
        if self.live {
            lock(&self.deeds).push(deed);
        }
    }

    /// Deeds of a model that the registry has not been told.
    pub fn untold(&self, model: &str) -> Vec<Deed> {
        lock(&self.deeds).iter().filter(|deed| deed.model == model).cloned().collect()
    }

    /// The latency that is guarded of a model: rollout, version, milliseconds.
    pub fn watch(&self, model: usize, limit: Option<(String, String, f64)>) {
        let mut watched = lock(&self.watched);
        match limit {
            Some(limit) => watched.insert(model, limit),
            None => watched.remove(&model),
        };
    }
}

/// The thread; it ends when this is dropped.
pub struct Pilot {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pilot {
    /// Proposes what the first tick is to know, and starts the thread; nothing where no versions change, or in a replay.
    ///
    /// # Errors
    /// When saved routes cannot be read, or a thread cannot be started.
    pub fn start(shared: &Arc<Shared>) -> Result<Option<Pilot>, EngineError> {
        let routed: Vec<usize> = (0..shared.plan.models.len()).filter(|m| is_rolled_out(&shared.plan, *m)).collect();
        if routed.is_empty() || !shared.rollouts.live {
            return Ok(None);
        }
        let mut work = Work { shared: Arc::clone(shared), routed, trouble: None };
        work.begin()?;
        work.look();
        let (stop, stopped) = channel::<()>();
        let spawned = std::thread::Builder::new().name("rollout-pilot".to_owned()).spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                work.look();
            }
            let until = Instant::now() + GRACE;
            while !work.tell() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let refused = |error| EngineError::Workers(format!("a thread could not be started: {error}"));
        Ok(Some(Pilot { stop: Some(stop), thread: Some(spawned.map_err(refused)?) }))
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    /// Models whose versions may change.
    routed: Vec<usize>,
    /// What was wrong the last time, so that it is said once.
    trouble: Option<String>,
}

impl Work {
    /// Pins champions where no state says who they are, and finds out from where the history is followed.
    fn begin(&mut self) -> Result<(), EngineError> {
        let rollouts = &self.shared.rollouts;
        for &model in &self.routed {
            let name = self.shared.plan.models[model].name.clone();
            let saved = saved_routes(&self.shared.checkpoints, &routes_name(&self.shared.plan, model))?;
            let champion = rollouts.versions.first(model);
            let entry = match saved {
                Some(routes) if routes.first.as_ref() == Some(&champion) => {
                    lock(&rollouts.followed).insert(name, routes.entry);
                    continue;
                }
                Some(routes) => routes.entry,
                None => self.since(model, &champion).unwrap_or_else(|error| {
                    tracing::warn!(model = name, %error, "the registry's history is followed from its beginning");
                    0
                }),
            };
            lock(&rollouts.followed).insert(name.clone(), entry);
            rollouts.propose(&Order {
                model: name,
                id: String::new(),
                seq: None,
                entry: Some(entry),
                by: String::new(),
                why: String::new(),
                action: Do::Pin { champion },
            });
        }
        Ok(())
    }

    /// The last entry that a job which begins with `champion` need not follow.
    fn since(&self, model: usize, champion: &VersionRef) -> Result<u64, EngineError> {
        let (rollouts, plan) = (&self.shared.rollouts, &self.shared.plan);
        let registry = rollouts.versions.registry()?;
        let newest = registry.newest()?;
        let name = rollouts.versions.name(model);
        let info = match registry.model(name) {
            Ok(info) => info,
            Err(RegistryError::NoModel { .. }) => return Ok(newest),
            Err(error) => return Err(error.into()),
        };
        let history = registry.history(name)?;
        let given = |alias: &str, to: u32| -> Option<u64> {
            let gives = |entry: &&Entry| given_alias(&entry.event).is_some_and(|(a, n)| a == alias && n == to);
            history.iter().rev().find(gives).map(|entry| entry.number)
        };
        let mut since = newest;
        // A challenger that waits is begun with; a champion that was moved since the job's file was read is followed.
        if let Some(challenger) = info.aliases.get(CHALLENGER) {
            since = since.min(given(CHALLENGER, *challenger).map_or(since, |entry| entry - 1));
        }
        let follows_champion = plan.models[model]
            .registered
            .as_ref()
            .is_some_and(|registered| registered.reference.version == Selector::Alias(CHAMPION.to_owned()));
        if let Some(now) =
            info.aliases.get(CHAMPION).filter(|now| follows_champion && u64::from(**now) != champion.number)
        {
            since = since.min(given(CHAMPION, *now).map_or(since, |entry| entry - 1));
        }
        Ok(since)
    }

    /// One round.
    fn look(&mut self) {
        self.tell();
        let followed = self.follow();
        let trouble = followed.err().map(|error| error.to_string());
        if let Some(what) = trouble.as_ref().filter(|what| self.trouble.as_ref() != Some(what)) {
            tracing::warn!(error = what, "the registry of models cannot be followed; it is tried again");
        }
        self.trouble = trouble;
        self.guard();
    }

    /// Proposes what has come in the history.
    fn follow(&self) -> Result<(), EngineError> {
        let rollouts = &self.shared.rollouts;
        let registry = rollouts.versions.registry()?;
        let followed: BTreeMap<String, u64> = lock(&rollouts.followed).clone();
        let Some(since) = followed.values().min() else { return Ok(()) };
        for entry in registry.entries_since(*since)? {
            for &model in &self.routed {
                let name = &self.shared.plan.models[model].name;
                if followed.get(name).is_none_or(|last| entry.number <= *last) {
                    continue;
                }
                if rollouts.versions.name(model) == entry.model
                    && let Some(order) = self.order(&registry, model, &entry)?
                {
                    rollouts.propose(&order);
                }
                lock(&rollouts.followed).entry(name.clone()).and_modify(|last| *last = entry.number.max(*last));
            }
        }
        Ok(())
    }

    /// What an entry of the history means for a model.
    fn order(&self, registry: &Registry, model: usize, entry: &Entry) -> Result<Option<Order>, EngineError> {
        let plan = &self.shared.plan;
        if entry.key.as_ref().is_some_and(|key| key.starts_with(&own_prefix(plan))) {
            return Ok(None);
        }
        let action = match &entry.event {
            event if let Some((alias, number)) = given_alias(event) => match alias {
                CHAMPION => self.version(registry, model, number, entry)?.map(|to| Do::Switch { to }),
                CHALLENGER => {
                    let version = self.version(registry, model, number, entry)?;
                    version.zip(policy(plan, model)).map(|(challenger, policy)| {
                        Do::Act(Action::Begin { challenger, policy: Box::new(policy.clone()) })
                    })
                }
                _ => None,
            },
            Event::AliasRemoved { alias, .. } if alias == CHALLENGER => {
                Some(Do::Act(Action::RollBack { why: entry.why.clone() }))
            }
            Event::Noted { kind, .. } if kind == "request" => request(&entry.numbers, &entry.why),
            _ => None,
        };
        let begins = matches!(&action, Some(Do::Act(Action::Begin { .. })));
        Ok(action.map(|action| Order {
            model: plan.models[model].name.clone(),
            id: if begins { entry.number.to_string() } else { String::new() },
            seq: None,
            entry: Some(entry.number),
            by: entry.who.clone(),
            why: entry.why.clone(),
            action,
        }))
    }

    /// A version that is to score, loaded; nothing where it cannot.
    fn version(
        &self,
        registry: &Registry,
        model: usize,
        number: u32,
        entry: &Entry,
    ) -> Result<Option<VersionRef>, EngineError> {
        let versions = &self.shared.rollouts.versions;
        let name = versions.name(model);
        let found = registry.version(name, &Selector::Number(number))?;
        let version = VersionRef { number: u64::from(number), hash: found.artifact.hash };
        match versions.get(model, &version) {
            Ok(_) => {
                let mut monitors = self.shared.plan.monitors.iter().filter(|monitor| monitor.model == model);
                if monitors.any(training::is_wanted) {
                    // Read now, so that the tick which makes it the champion need not wait; what is wrong is told then.
                    drop(versions.training(model, &version));
                }
                Ok(Some(version))
            }
            // What cannot be reached now may be later.
            Err(error) if error.blame() == Blame::Outside => Err(error),
            Err(error) => {
                tracing::error!(model = name, version = number, %error, "a version that cannot score is passed over");
                let by = By::new(self.who(), format!("passed over: {error}"));
                let key = format!("{}{name}/entry/{}/refused", own_prefix(&self.shared.plan), entry.number);
                registry.note(name, Some(number), "decision", &by.key(key))?;
                Ok(None)
            }
        }
    }

    fn who(&self) -> String {
        format!("job {}", self.shared.plan.job)
    }

    /// Has it recorded that a version is too slow.
    fn guard(&self) {
        let rollouts = &self.shared.rollouts;
        for (model, (id, version, limit)) in lock(&rollouts.watched).clone() {
            let Some(meter) = rollouts.meter(model, &version) else { continue };
            let (value, rows) = meter.latency_p99_ms();
            if rows >= LATENCY_ROWS && value > limit {
                rollouts.propose(&Order {
                    model: self.shared.plan.models[model].name.clone(),
                    id,
                    seq: None,
                    entry: None,
                    by: "latency".to_owned(),
                    why: format!("the 99th percentile of latency is {value:.1} ms, and {limit} ms are allowed"),
                    action: Do::Act(Action::Guard { what: Guarded::LatencyP99Ms, value }),
                });
            }
        }
    }

    /// Tells the registry of what is durable, in order; whether nothing is left.
    fn tell(&self) -> bool {
        let rollouts = &self.shared.rollouts;
        loop {
            let Some(deed) = lock(&rollouts.deeds).first().cloned() else { return true };
            if deed.tick.is_some_and(|tick| !self.shared.is_durable(tick)) {
                return false;
            }
            failpoint("rollout.deed");
            match rollouts.versions.registry().and_then(|registry| Ok(self.tell_of(&registry, &deed)?)) {
                Ok(()) => {}
                Err(error) if error.blame() == Blame::Outside => {
                    tracing::debug!(%error, "the registry is told later");
                    return false;
                }
                // Somebody else has decided in between: the history says so, and is followed.
                Err(error) => tracing::warn!(%error, deed = deed.key, "the registry does not take what was decided"),
            }
            let mut deeds = lock(&rollouts.deeds);
            if deeds.first() == Some(&deed) {
                deeds.remove(0);
            }
        }
    }

    fn tell_of(&self, registry: &Registry, deed: &Deed) -> Result<(), RegistryError> {
        let by = |part: &str| {
            By::new(self.who(), deed.why.clone()).key(format!("{}{part}", deed.key)).numbers(deed.numbers.clone())
        };
        let number = |version: u64| u32::try_from(version).unwrap_or_default();
        let unless_moved = |outcome: Result<u64, RegistryError>| match outcome {
            Err(RegistryError::Conflict { .. } | RegistryError::NoAlias { .. }) => Ok(()),
            other => other.map(|_| ()),
        };
        match &deed.what {
            What::Noted => registry.note(&deed.name, Some(deed.version), "decision", &by("")).map(|_| ()),
            What::Promoted { from, to } => {
                let info = registry.model(&deed.name)?;
                let at = info.aliases.get(CHAMPION).copied();
                // Whoever promoted it by hand has moved the alias already.
                if at != Some(number(*to)) {
                    let expected = match from.map(number) {
                        Some(0) | None => Previous::Any,
                        Some(from) => Previous::At(from),
                    };
                    registry.set_alias(&deed.name, CHAMPION, number(*to), expected, &by(""))?;
                }
                let at = Previous::At(number(*to));
                unless_moved(registry.remove_alias(&deed.name, CHALLENGER, at, &by("/challenger")))
            }
            What::RolledBack { challenger } => {
                registry.note(&deed.name, Some(deed.version), "decision", &by(""))?;
                let at = Previous::At(number(*challenger));
                unless_moved(registry.remove_alias(&deed.name, CHALLENGER, at, &by("/challenger")))
            }
        }
    }
}

/// The alias that an entry gives, and the version that gets it.
fn given_alias(event: &Event) -> Option<(&str, u32)> {
    match event {
        Event::Registered { version, alias: Some(alias), .. } => Some((alias, version.number)),
        Event::AliasMoved { alias, to, .. } => Some((alias, *to)),
        _ => None,
    }
}

/// What somebody asks for in a note.
fn request(numbers: &Value, why: &str) -> Option<Do> {
    let action = match numbers.get("do").and_then(Value::as_str) {
        Some("promote") => Action::Promote,
        Some("roll_back") => Action::RollBack { why: why.to_owned() },
        Some("hold") => Action::Hold,
        Some("resume") => Action::Resume,
        other => {
            tracing::warn!(
                request = other,
                "a request in the registry that is not known; there are promote, roll_back, hold and resume"
            );
            return None;
        }
    };
    Some(Do::Act(action))
}
