//! When a model is retrained: triggers, the cool-down, and what has been seen of them. Knows nothing of timely.
//!
//! What is asked for follows from the clock at the ticks, the alerts and the numbers of labels. A trigger that comes while it is too
//! early waits for the end of the cool-down; one by an alert is withdrawn when the alert is resolved before.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Asked;
use crate::base::EventTime;
use crate::plan::model::{MonitorPlan, Plan, RetrainPlan, Trigger};

/// What a tick brings.
#[derive(Debug, Default)]
pub struct News {
    alerts: Vec<(String, String, String, bool)>,
    labels: BTreeMap<String, u64>,
}

impl News {
    /// An alert of a model begins or ends.
    pub fn alert(&mut self, model: &str, name: &str, fingerprint: &str, firing: bool) {
        self.alerts.push((model.to_owned(), name.to_owned(), fingerprint.to_owned(), firing));
    }

    /// So many labels of a model have come.
    pub fn labels(&mut self, model: &str, count: u64) {
        *self.labels.entry(model.to_owned()).or_default() += count;
    }
}

/// What is remembered of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When the job's clock was first seen.
    began: Option<EventTime>,
    /// When a retraining was asked for last.
    last: Option<EventTime>,
    /// How often one was.
    number: u64,
    /// Labels since.
    labels: u64,
    /// Up to where moments of the calendar have been looked at.
    looked: Option<EventTime>,
    /// A moment of the calendar has come and waits.
    due: Option<String>,
    /// Alerts that fire: their names by their fingerprints.
    alerts: BTreeMap<String, String>,
}

/// The triggers of all models of a worker.
#[derive(Debug)]
pub struct Core {
    models: Vec<(String, RetrainPlan, Watched)>,
    seen: BTreeMap<String, Seen>,
}

/// Names of the alerts that start a model's retraining.
type Watched = BTreeSet<String>;

impl Core {
    /// The triggers of the models that are `own`.
    pub fn new(plan: &Plan, own: impl Fn(&str) -> bool) -> Core {
        let models = plan
            .retrains
            .iter()
            .filter(|retrain| !retrain.on.is_empty())
            .map(|retrain| {
                let monitor = plan.monitors.iter().find(|monitor| monitor.model == retrain.model);
                (plan.models[retrain.model].name.clone(), retrain.clone(), watched(retrain, monitor))
            })
            .filter(|(name, ..)| own(name))
            .collect();
        Core { models, seen: BTreeMap::new() }
    }

    /// Whether there is anything to do.
    pub fn has_models(&self) -> bool {
        !self.models.is_empty()
    }

    /// Goes on from saved state.
    pub fn restore(&mut self, saved: BTreeMap<String, Seen>) {
        self.seen.extend(saved);
    }

    /// What is remembered, by model.
    pub fn seen(&self) -> &BTreeMap<String, Seen> {
        &self.seen
    }

    /// What is asked for at a tick.
    pub fn tick(&mut self, now: EventTime, news: News) -> Vec<Asked> {
        let mut asked = Vec::new();
        for (model, plan, watched) in &self.models {
            let seen = self.seen.entry(model.clone()).or_default();
            for (_, name, fingerprint, firing) in
                news.alerts.iter().filter(|(of, name, ..)| of == model && watched.contains(name))
            {
                match firing {
                    true => seen.alerts.insert(fingerprint.clone(), name.clone()),
                    false => seen.alerts.remove(fingerprint),
                };
            }
            seen.labels += news.labels.get(model).copied().unwrap_or_default();
            // The clock has not begun.
            if now == EventTime::MIN {
                continue;
            }
            seen.began.get_or_insert(now);
            seen.look(plan, now);
            let ready = seen.last.is_none_or(|last| now >= last.saturating_add(plan.cool_down));
            let Some(cause) = seen.cause(plan, now).filter(|_| ready) else { continue };
            seen.number += 1;
            asked.push(Asked { model: model.clone(), cause, at: now, number: seen.number });
            let (began, looked, number) = (seen.began, seen.looked, seen.number);
            // What fires on is asked for again: the first retraining may have come too soon to know better.
            let alerts = std::mem::take(&mut seen.alerts);
            *seen = Seen { began, last: Some(now), number, looked, alerts, ..Seen::default() };
        }
        asked
    }
}

impl Seen {
    /// Notes the moments of the calendar that have come.
    fn look(&mut self, plan: &RetrainPlan, now: EventTime) {
        let from = self.looked.or(self.began).unwrap_or(now);
        for trigger in &plan.on {
            if let Trigger::Cron(cron) = trigger
                && cron.after(from).is_some_and(|moment| moment <= now)
            {
                self.due.get_or_insert_with(|| trigger.to_string());
            }
        }
        self.looked = Some(from.max(now));
    }

    /// Why a retraining is asked for, if one is.
    fn cause(&self, plan: &RetrainPlan, now: EventTime) -> Option<String> {
        let since = self.last.or(self.began).unwrap_or(now);
        let regular = plan.on.iter().find(|trigger| match trigger {
            Trigger::Every(every) => now >= since.saturating_add(*every),
            Trigger::Labels(count) => self.labels >= *count,
            Trigger::Drift | Trigger::Alert(_) | Trigger::Cron(_) => false,
        });
        let alert = self.alerts.values().next().map(|name| format!("alert {name}"));
        alert.or(self.due.clone()).or(regular.map(ToString::to_string))
    }
}

fn watched(retrain: &RetrainPlan, monitor: Option<&MonitorPlan>) -> Watched {
    let rules = monitor.map(|monitor| monitor.alerts.as_slice()).unwrap_or_default();
    let mut names = Watched::new();
    for trigger in &retrain.on {
        match trigger {
            Trigger::Alert(name) => names.extend([name.clone()]),
            Trigger::Drift => {
                names.extend(rules.iter().filter(|rule| rule.condition.is_drift()).map(|rule| rule.name.clone()));
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Cron, DAY, Micros};
    use proptest::prelude::*;

    const HOUR: Micros = 3_600_000_000;

    fn core(on: Vec<Trigger>, cool_down: Micros) -> Core {
        let watched = ["drifted", "weak"].map(str::to_owned).into();
        let plan = RetrainPlan { model: 0, on, cool_down, job: "x".into() };
        Core { models: vec![("fraud".into(), plan, watched)], seen: BTreeMap::new() }
    }

    fn times(core: &mut Core, until: EventTime, step: Micros) -> Vec<(EventTime, String)> {
        let ticks = (0..=until / step).map(|i| i * step);
        ticks.flat_map(|now| core.tick(now, News::default())).map(|a| (a.at, a.cause)).collect()
    }

    #[test]
    fn schedules() {
        let every = times(&mut core(vec![Trigger::Every(7 * DAY)], 0), 22 * DAY, HOUR);
        assert_eq!(every, [7, 14, 21].map(|day| (day * DAY, "every 7d".to_owned())));
        let cron = Cron::parse("0 3 * * *").unwrap();
        let nightly = times(&mut core(vec![Trigger::Cron(cron)], 2 * DAY), 5 * DAY, HOUR);
        let day = |d: i64| (d * DAY + 3 * HOUR, "cron 0 3 * * *".to_owned());
        assert_eq!(nightly, [day(0), day(2), day(4)], "none sooner than the cool-down allows");
    }

    #[test]
    fn labels_are_counted_since_the_last_time() {
        let mut core = core(vec![Trigger::Labels(10)], HOUR);
        let mut asked = Vec::new();
        for i in 0..12 {
            let mut news = News::default();
            news.labels("fraud", 5);
            news.labels("other", 500);
            asked.extend(core.tick(i * HOUR / 4, news).into_iter().map(|a| (a.at / (HOUR / 4), a.number)));
        }
        assert_eq!(asked, [(1, 1), (5, 2), (9, 3)]);
    }

    #[test]
    fn alerts_wait_for_the_cool_down_unless_they_are_resolved() {
        let mut core = core(vec![Trigger::Drift], 10);
        let tick = |core: &mut Core, now: EventTime, alert: Option<(&str, bool)>| {
            let mut news = News::default();
            if let Some((fingerprint, firing)) = alert {
                news.alert("fraud", "drifted", fingerprint, firing);
                news.alert("other", "drifted", "z", true);
                news.alert("fraud", "unrelated", "y", true);
            }
            core.tick(now, news).len()
        };
        assert_eq!(tick(&mut core, EventTime::MIN, Some(("a", true))), 0, "there is no clock yet");
        assert_eq!(tick(&mut core, 0, None), 1);
        assert_eq!(tick(&mut core, 4, Some(("a", false))), 0);
        assert_eq!(tick(&mut core, 5, Some(("b", true))), 0, "too early");
        assert_eq!(tick(&mut core, 6, Some(("b", false))), 0);
        assert_eq!(tick(&mut core, 12, None), 0, "it is right again");
        assert_eq!(tick(&mut core, 13, Some(("c", true))), 1);
        assert_eq!(tick(&mut core, 15, Some(("d", true))), 0);
        assert_eq!(tick(&mut core, 23, None), 1, "it waited");
        assert_eq!(tick(&mut core, 32, None), 0);
        assert_eq!(tick(&mut core, 33, None), 1, "it fires on");
        assert_eq!(tick(&mut core, 34, Some(("c", false))), 0);
        assert_eq!(tick(&mut core, 35, Some(("d", false))), 0);
        assert_eq!(tick(&mut core, 60, None), 0, "all is well");
    }

    proptest! {
        /// Saved and restored at any tick, the same is asked for.
        #[test]
        fn restored_triggers_ask_for_the_same(
            ticks in prop::collection::vec((1..9i64, 0..9u64, prop::option::of((0..3u8, any::<bool>()))), 1..40),
            cut in 0..40usize,
        ) {
            let cron = Cron::parse("*/20 * * * *").unwrap();
            let on = vec![Trigger::Drift, Trigger::Cron(cron), Trigger::Labels(12), Trigger::Every(HOUR)];
            let mut whole = core(on.clone(), HOUR / 2);
            let mut half = core(on.clone(), HOUR / 2);
            let mut now = 0;
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            for (i, (step, labels, alert)) in ticks.into_iter().enumerate() {
                if i == cut {
                    let saved = serde_json::to_vec(half.seen()).unwrap();
                    half = core(on.clone(), HOUR / 2);
                    half.restore(serde_json::from_slice(&saved).unwrap());
                }
                now += step * HOUR / 12;
                let news = || {
                    let mut news = News::default();
                    news.labels("fraud", labels);
                    if let Some((which, firing)) = alert {
                        news.alert("fraud", "weak", &which.to_string(), firing);
                    }
                    news
                };
                expected.extend(whole.tick(now, news()));
                found.extend(half.tick(now, news()));
            }
            prop_assert!(expected.windows(2).all(|pair| pair[1].at - pair[0].at >= HOUR / 2));
            prop_assert_eq!(found, expected);
        }
    }
}
