//! From statistics to alerts: ok → pending → firing → resolved.
//!
//! A series is one statistic of one model, version, route, segment and subject under one rule. Its windows are judged in order:
//! what is told of a window older than the newest that was judged changes nothing, while a new revision of the newest judges it
//! anew. Windows in a row that are wrong make a streak; a streak that is long enough fires, and a window that is clear ends it.
//! A statistic without value or of too few rows is not judged, and a window that is not judged interrupts a streak.
//!
//! What happens without statistics (a reminder, a change that is over, a series that nobody tells any more) happens at a time of
//! the clock, [`Machine::advance`], and before whatever has that time; so results do not depend on how time is cut.
//! Statistics of the job's operation are on the wall clock, and what is due of them goes by their own time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::history;
use super::{Alert, AlertError, State, fingerprint, message};
use crate::base::{EventTime, Micros};
use crate::monitor::{Stat, StatKind};
use crate::plan::model::{AlertPlan, Condition, DetectorPlan, Plan};

/// A series that was not told for so many of its windows is let go of; if it fires, it is resolved.
pub const STALE_WINDOWS: i64 = 32;

/// A rule of a monitor.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The monitor, which has its model's name.
    pub monitor: String,
    /// What it says.
    pub plan: AlertPlan,
    /// Who is told, by name.
    pub to: Vec<String>,
}

impl Rule {
    /// The rules of a plan.
    pub fn all(plan: &Plan) -> Vec<Rule> {
        let rules = plan.monitors.iter().flat_map(|monitor| monitor.alerts.iter().map(move |alert| (monitor, alert)));
        rules
            .map(|(monitor, alert)| Rule {
                monitor: plan.models[monitor.model].name.clone(),
                plan: alert.clone(),
                to: alert.to.iter().map(|receiver| plan.receivers[*receiver].name.clone()).collect(),
            })
            .collect()
    }

    /// Whether a statistic is judged by the rule.
    fn takes(&self, stat: &Stat) -> bool {
        let ours = |model: &str| stat.model == model;
        let plan = &self.plan;
        let about = match &plan.condition {
            Condition::Compare { table, metric, subject, .. } => {
                ours(&self.monitor)
                    && table.name() == stat.kind.table()
                    && *metric == stat.metric
                    && subject.takes(&stat.subject)
            }
            Condition::Drift { subject } => {
                let calibrated = stat.kind == StatKind::Drift && stat.threshold.is_some() && stat.alarm.is_some();
                ours(&self.monitor) && calibrated && subject.takes(&stat.subject)
            }
            Condition::Change { detector, .. } => {
                let named = match detector {
                    Some(name) => *name == stat.metric,
                    None => DetectorPlan::NAMES.contains(&stat.metric.as_str()),
                };
                ours(&self.monitor) && stat.kind == StatKind::Drift && named && stat.alarm == Some(true)
            }
        };
        about
            && plan.version.as_ref().is_none_or(|version| *version == stat.version)
            && plan.segment.takes(&stat.segment)
    }

    /// Whether a statistic is wrong, and whether it is clear; neither where it says nothing.
    fn judge(&self, stat: &Stat) -> Option<(bool, bool)> {
        if stat.rows < self.plan.min_rows {
            return None;
        }
        match &self.plan.condition {
            Condition::Compare { wrong, clear, .. } => {
                let value = stat.value.filter(|value| value.is_finite())?;
                let wrong = wrong.holds(value);
                Some((wrong, clear.map_or(!wrong, |clear| clear.holds(value))))
            }
            Condition::Drift { .. } => stat.alarm.map(|alarm| (alarm, !alarm)),
            Condition::Change { .. } => Some((true, false)),
        }
    }
}

/// What a series is, besides its rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    /// Whether it is on the wall clock.
    wall: bool,
    model: String,
    version: String,
    route: String,
    segment: String,
    subject: String,
    metric: String,
}

/// Windows in a row that are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Streak {
    windows: u32,
    since: EventTime,
}

/// What goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Firing {
    /// As it was told last.
    alert: Alert,
    /// When it began.
    began: EventTime,
    /// When a change is over, if no other is found.
    over: Option<EventTime>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Series {
    /// The newest window that was judged.
    window: (EventTime, EventTime),
    /// The streak before it, and with it.
    before: Streak,
    now: Streak,
    /// When the series is let go of.
    stale: EventTime,
    firing: Option<Firing>,
}

impl Series {
    /// When something happens by the clock, if nothing is told before.
    fn due(&self, repeat: Option<Micros>) -> EventTime {
        let Some(firing) = &self.firing else { return self.stale };
        let again = repeat.map(|repeat| next(firing.began, firing.alert.repeat + 1, repeat));
        again.into_iter().chain(firing.over).fold(self.stale, EventTime::min)
    }
}

fn next(began: EventTime, number: u64, every: Micros) -> EventTime {
    began.saturating_add(every.saturating_mul(i64::try_from(number).unwrap_or(i64::MAX)))
}

/// A series as it is saved.
#[derive(Serialize, Deserialize)]
struct Saved {
    monitor: String,
    rule: String,
    key: Key,
    series: Series,
}

/// The rules of a job and what goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    job: String,
    rules: Vec<Rule>,
    series: BTreeMap<(usize, Key), Series>,
    /// What fired under rules that are gone.
    orphans: Vec<Alert>,
    /// The clock of events, and that of the wall.
    clocks: [EventTime; 2],
    /// Nothing happens by the clocks before.
    due: [EventTime; 2],
}

impl Machine {
    /// A machine that has heard nothing.
    pub fn new(job: &str, rules: Vec<Rule>) -> Machine {
        Machine {
            job: job.to_owned(),
            rules,
            series: BTreeMap::new(),
            orphans: Vec::new(),
            clocks: [EventTime::MIN; 2],
            due: [EventTime::MAX; 2],
        }
    }

    /// Series that are held.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// What goes on.
    pub fn firing(&self) -> impl Iterator<Item = &Alert> {
        self.series.values().filter_map(|series| series.firing.as_ref()).map(|firing| &firing.alert)
    }

    /// The series of a table that rules judge, and whether any of them fires.
    pub fn judges(&self, kind: StatKind) -> BTreeMap<history::Series, bool> {
        let mut judged = BTreeMap::new();
        for ((rule, key), series) in &self.series {
            let Condition::Compare { table, .. } = &self.rules[*rule].plan.condition else { continue };
            if table.name() != kind.table() {
                continue;
            }
            let Key { model, version, route, segment, subject, metric, .. } = key.clone();
            let fires = judged.entry(history::Series { kind, model, version, route, segment, subject, metric });
            *fires.or_insert(false) |= series.firing.is_some();
        }
        judged
    }

    /// Takes the statistics that became known together, in any order, and then the time.
    pub fn tick(&mut self, stats: &mut [Stat], now: EventTime, out: &mut Vec<Alert>) {
        stats.sort_by(|a, b| order(a).cmp(&order(b)));
        for stat in stats {
            self.observe(stat, out);
        }
        self.advance(now, out);
    }

    /// Takes a statistic. Statistics come in the order of the time at which they were known.
    pub fn observe(&mut self, stat: &Stat, out: &mut Vec<Alert>) {
        if !self.rules.iter().any(|rule| rule.takes(stat)) {
            return;
        }
        let clock = usize::from(!stat.kind.is_exact());
        self.pass(clock, stat.as_of, out);
        for rule in 0..self.rules.len() {
            if self.rules[rule].takes(stat)
                && let Some((wrong, clear)) = self.rules[rule].judge(stat)
            {
                self.judged(rule, stat, (wrong, clear), out);
            }
        }
    }

    /// The clock of events shows `now`.
    pub fn advance(&mut self, now: EventTime, out: &mut Vec<Alert>) {
        for mut alert in std::mem::take(&mut self.orphans) {
            alert.at = alert.at.max(now);
            out.push(alert);
        }
        self.pass(0, now, out);
    }

    fn judged(&mut self, rule: usize, stat: &Stat, (wrong, clear): (bool, bool), out: &mut Vec<Alert>) {
        let Machine { job, rules, series, due, .. } = self;
        let rule_index = rule;
        let rule = &rules[rule];
        let key = Key {
            wall: !stat.kind.is_exact(),
            model: stat.model.clone(),
            version: stat.version.clone(),
            route: stat.route.clone(),
            segment: stat.segment.clone(),
            subject: stat.subject.clone(),
            metric: stat.metric.clone(),
        };
        let window = (stat.window_start, stat.window_end);
        let new = || Series { window, before: Streak::default(), now: Streak::default(), stale: 0, firing: None };
        let series = series.entry((rule_index, key)).or_insert_with(new);
        let change = match rule.plan.condition {
            Condition::Change { over_after, .. } => Some(over_after),
            _ => None,
        };
        if change.is_none() && stat.window_start < series.window.0 {
            return;
        }
        if stat.window_start != series.window.0 {
            series.before = if series.window.1 == stat.window_start { series.now } else { Streak::default() };
            series.window = window;
        }
        series.now = match (wrong, series.before.windows) {
            (false, _) => Streak::default(),
            (true, 0) => Streak { windows: 1, since: stat.window_start },
            (true, windows) => Streak { windows: windows.saturating_add(1), since: series.before.since },
        };
        let length = (stat.window_end - stat.window_start).max(1);
        series.stale = stat.as_of.saturating_add(length.saturating_mul(STALE_WINDOWS));
        let over = change.map(|after| stat.as_of.saturating_add(after));
        // A change stays as long as its rule says.
        series.stale = over.map_or(series.stale, |over| over.max(series.stale));
        match &mut series.firing {
            Some(firing) if clear => {
                out.push(alert(job, rule, stat, State::Resolved, firing.alert.since));
                series.firing = None;
                // What comes is a new streak.
                (series.before, series.now) = Default::default();
            }
            Some(firing) => {
                let told = alert(job, rule, stat, State::Firing, firing.alert.since);
                firing.alert = Alert { repeat: firing.alert.repeat, ..told };
                firing.over = over;
            }
            None => {
                let streak = series.now;
                if change.is_some() || rule.plan.hold.is_over(streak.windows, streak.since, stat.window_end) {
                    let since = if change.is_some() { stat.as_of } else { streak.since };
                    let told = alert(job, rule, stat, State::Firing, since);
                    out.push(told.clone());
                    series.firing = Some(Firing { alert: told, began: stat.as_of, over });
                }
            }
        }
        let due = &mut due[usize::from(!stat.kind.is_exact())];
        *due = (*due).min(series.due(rule.plan.repeat));
    }

    /// Does what is due by a clock, in the order of time.
    fn pass(&mut self, clock: usize, now: EventTime, out: &mut Vec<Alert>) {
        self.clocks[clock] = self.clocks[clock].max(now);
        while self.due[clock] <= now {
            let mut next_due = EventTime::MAX;
            let mut first: Option<(EventTime, (usize, Key))> = None;
            for (key, series) in self.series.iter().filter(|((_, key), _)| usize::from(key.wall) == clock) {
                let due = series.due(self.rules[key.0].plan.repeat);
                if first.as_ref().is_none_or(|(least, _)| due < *least) {
                    if let Some((least, _)) = &first {
                        next_due = next_due.min(*least);
                    }
                    first = Some((due, key.clone()));
                } else {
                    next_due = next_due.min(due);
                }
            }
            self.due[clock] = first.as_ref().map_or(EventTime::MAX, |(due, _)| *due);
            let Some((due, key)) = first.filter(|(due, _)| *due <= now) else { break };
            let again = self.happens(&key, due, now, out);
            self.due[clock] = next_due.min(again.unwrap_or(EventTime::MAX));
        }
    }

    /// What happens to a series at a time; returns when the next thing does.
    fn happens(
        &mut self,
        key: &(usize, Key),
        due: EventTime,
        now: EventTime,
        out: &mut Vec<Alert>,
    ) -> Option<EventTime> {
        let rule = &self.rules[key.0];
        let series = self.series.get_mut(key)?;
        let ends =
            due >= series.stale || series.firing.as_ref().is_some_and(|f| f.over.is_some_and(|over| due >= over));
        if !ends {
            let every = rule.plan.repeat?;
            let firing = series.firing.as_mut()?;
            // Of reminders that were slept through, the last is enough.
            let passed = now.min(firing.over.unwrap_or(EventTime::MAX)).min(series.stale).saturating_sub(firing.began);
            firing.alert.repeat = u64::try_from(passed / every).unwrap_or(0).max(firing.alert.repeat + 1);
            let at = next(firing.began, firing.alert.repeat, every);
            out.push(Alert { at, ..firing.alert.clone() });
            return Some(series.due(rule.plan.repeat));
        }
        let series = self.series.remove(key)?;
        if let Some(Firing { alert, .. }) = series.firing {
            let mut alert = Alert { state: State::Resolved, repeat: 0, at: due, ..alert };
            alert.message = message::over(&alert, rule.plan.message.as_ref());
            out.push(alert);
        }
        None
    }

    /// The state of the series whose model `ours` takes, as bytes; `None` when there is nothing.
    pub fn save(&self, ours: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
        let saved: Vec<Saved> = self
            .series
            .iter()
            .filter(|((_, key), _)| ours(&key.model))
            .map(|((rule, key), series)| Saved {
                monitor: self.rules[*rule].monitor.clone(),
                rule: self.rules[*rule].plan.name.clone(),
                key: key.clone(),
                series: series.clone(),
            })
            .collect();
        // Texts and finite numbers always become JSON.
        (!saved.is_empty()).then(|| serde_json::to_vec(&saved).unwrap_or_default())
    }

    /// Takes over what was saved. What fires under a rule that is gone is resolved with the next tick.
    ///
    /// # Errors
    /// When the bytes are not what was saved.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), AlertError> {
        let saved: Vec<Saved> = serde_json::from_slice(bytes).map_err(|e| AlertError::Damaged(e.to_string()))?;
        for Saved { monitor, rule, key, series } in saved {
            match self.rules.iter().position(|r| r.monitor == monitor && r.plan.name == rule) {
                Some(index) => {
                    let due = &mut self.due[usize::from(key.wall)];
                    *due = (*due).min(series.due(self.rules[index].plan.repeat));
                    self.series.insert((index, key), series);
                }
                None => self.orphans.extend(series.firing.map(|firing| {
                    let mut alert = Alert { state: State::Resolved, repeat: 0, ..firing.alert };
                    alert.message = message::over(&alert, None);
                    alert
                })),
            }
        }
        Ok(())
    }

    /// The models of which something is held.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = self.series.keys().map(|(_, key)| key.model.as_str()).collect();
        models.sort_unstable();
        models.dedup();
        models
    }
}

/// The order of statistics that are known together.
fn order(s: &Stat) -> impl Ord + '_ {
    let names = (&s.model, &s.version, &s.route, &s.segment, &s.subject, &s.metric);
    (s.as_of, s.window_start, s.revision, s.kind, names)
}

fn alert(job: &str, rule: &Rule, stat: &Stat, state: State, since: EventTime) -> Alert {
    let Rule { monitor, plan, to } = rule;
    let parts =
        [job, monitor, &plan.name, &stat.model, &stat.version, &stat.route, &stat.segment, &stat.subject, &stat.metric];
    let mut alert = Alert {
        fingerprint: fingerprint(&parts),
        state,
        repeat: 0,
        at: stat.as_of,
        job: job.to_owned(),
        monitor: monitor.clone(),
        name: plan.name.clone(),
        severity: plan.severity.as_str().to_owned(),
        model: stat.model.clone(),
        version: stat.version.clone(),
        route: stat.route.clone(),
        segment: stat.segment.clone(),
        subject: stat.subject.clone(),
        metric: stat.metric.clone(),
        value: stat.value.filter(|value| value.is_finite()),
        threshold: match &plan.condition {
            Condition::Compare { wrong, .. } => Some(wrong.number),
            Condition::Drift { .. } => stat.threshold.filter(|threshold| threshold.is_finite()),
            Condition::Change { .. } => None,
        },
        condition: plan.when.clone(),
        rows: stat.rows,
        revision: stat.revision,
        window_start: stat.window_start,
        window_end: stat.window_end,
        since,
        message: String::new(),
        labels: plan.labels.clone(),
        runbook: plan.runbook.clone(),
        to: to.clone(),
    };
    alert.message = match &plan.message {
        Some(template) => message::render(template, &alert),
        None => message::usual(&alert, &plan.condition),
    };
    alert
}
