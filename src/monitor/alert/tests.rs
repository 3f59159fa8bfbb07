//! The machine case by case, and against a twin that remembers everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::{EventTime, Micros};
use crate::monitor::{Stat, StatKind};
use crate::plan::model::{
    AlertPlan, Comparison, Condition, Hold, MetricTable, Operator, SegmentFilter, Severity, Subject, Template,
    TemplatePiece,
};

const DAY: Micros = 86_400_000_000;

fn rule(condition: Condition) -> Rule {
    let plan = AlertPlan {
        name: "r".into(),
        condition,
        when: "x".into(),
        segment: SegmentFilter::All,
        version: None,
        hold: Hold::Time(0),
        min_rows: 10,
        severity: Severity::Warning,
        message: None,
        labels: vec![("team".into(), "risk".into())],
        runbook: None,
        to: vec![0],
        repeat: None,
    };
    Rule { monitor: "fraud".into(), plan, to: vec!["log".into()] }
}

fn compare(operator: Operator, number: f64) -> Comparison {
    Comparison { operator, number }
}

fn below(number: f64, clear: Option<f64>) -> Rule {
    rule(Condition::Compare {
        table: MetricTable::Accuracy,
        metric: "auc".into(),
        subject: Subject::Whole,
        wrong: compare(Operator::Less, number),
        clear: clear.map(|number| compare(Operator::AtLeast, number)),
    })
}

fn auc(window: i64, value: f64, revision: u32, as_of: EventTime) -> Stat {
    Stat {
        kind: StatKind::Accuracy,
        model: "fraud".into(),
        version: "champion".into(),
        route: String::new(),
        segment: String::new(),
        window_start: window * DAY,
        window_end: (window + 1) * DAY,
        subject: String::new(),
        metric: "auc".into(),
        value: Some(value),
        bound: None,
        rows: 100,
        threshold: None,
        alarm: None,
        revision,
        as_of,
        complete: false,
    }
}

fn told(machine: &mut Machine, stats: &[Stat], now: EventTime) -> Vec<(State, i64, EventTime)> {
    let mut out = Vec::new();
    machine.tick(&mut stats.to_vec(), now, &mut out);
    out.iter().map(|a| (a.state, a.window_start / DAY, a.at)).collect()
}

/// Tells windows with these values at their ends.
fn windows(machine: &mut Machine, first: i64, values: &[f64]) -> Vec<(State, i64)> {
    let days = first..;
    let stats: Vec<Stat> = days.zip(values).map(|(day, value)| auc(day, *value, 1, (day + 1) * DAY)).collect();
    stats.iter().flat_map(|s| told(machine, std::slice::from_ref(s), s.as_of)).map(|(s, w, _)| (s, w)).collect()
}

#[test]
fn fires_once_and_is_resolved_once() {
    let mut machine = Machine::new("job", vec![below(0.8, None)]);
    let said = windows(&mut machine, 0, &[0.9, 0.7, 0.6, 0.7, 0.8, 0.9, 0.5]);
    assert_eq!(said, [(State::Firing, 1), (State::Resolved, 4), (State::Firing, 6)]);
}

#[test]
fn what_lies_between_neither_fires_nor_resolves() {
    let mut machine = Machine::new("job", vec![below(0.8, Some(0.85))]);
    let said = windows(&mut machine, 0, &[0.82, 0.7, 0.82, 0.84, 0.85, 0.82]);
    assert_eq!(said, [(State::Firing, 1), (State::Resolved, 4)]);
}

#[test]
fn a_series_is_in_alarm_while_any_of_its_rules_fires() {
    let mut strict = below(0.8, None);
    strict.plan.hold = Hold::Windows(2);
    let mut machine = Machine::new("job", vec![below(0.6, None), strict]);
    let judged = |machine: &Machine| {
        let judged = machine.judges(StatKind::Accuracy);
        judged.into_iter().map(|(series, fires)| (series.metric, fires)).collect::<Vec<_>>()
    };
    assert_eq!(judged(&machine), []);
    for (window, value, fires) in [(0, 0.7, false), (1, 0.7, true), (2, 0.5, true), (3, 0.7, true), (4, 0.9, false)] {
        machine.tick(&mut [auc(window, value, 1, (window + 1) * DAY)], (window + 1) * DAY, &mut Vec::new());
        assert_eq!(judged(&machine), [("auc".to_owned(), fires)], "window {window}");
        assert_eq!(machine.judges(StatKind::Drift).len(), 0);
    }
}

#[test]
fn it_must_hold_through_windows_in_a_row() {
    for hold in [Hold::Windows(3), Hold::Time(3 * DAY)] {
        let mut machine = Machine::new("job", vec![below(0.8, None)]);
        machine_rule(&mut machine, |plan| plan.hold = hold);
        let said = windows(&mut machine, 0, &[0.7, 0.7, 0.9, 0.7, 0.7, 0.7, 0.7]);
        assert_eq!(said, [(State::Firing, 5)]);
        let since = machine.firing().next().expect("it fires").since;
        assert_eq!(since, 3 * DAY, "from the first window of the streak");
        // A window that nobody tells interrupts.
        let mut machine = Machine::new("job", vec![below(0.8, None)]);
        machine_rule(&mut machine, |plan| plan.hold = hold);
        assert_eq!(windows(&mut machine, 0, &[0.7, 0.7]), []);
        assert_eq!(windows(&mut machine, 3, &[0.7, 0.7]), []);
        assert_eq!(windows(&mut machine, 5, &[0.7]), [(State::Firing, 5)]);
    }
}

fn machine_rule(machine: &mut Machine, change: impl Fn(&mut AlertPlan)) {
    let mut rule = below(0.8, None);
    change(&mut rule.plan);
    *machine = Machine::new("job", vec![rule]);
}

#[test]
fn revisions_judge_the_newest_window_alone() {
    let mut machine = Machine::new("job", vec![below(0.8, None)]);
    assert_eq!(windows(&mut machine, 0, &[0.9, 0.9]), []);
    // A label corrected weeks later.
    assert_eq!(told(&mut machine, &[auc(0, 0.1, 2, 3 * DAY)], 3 * DAY), []);
    let newest = told(&mut machine, &[auc(1, 0.1, 2, 3 * DAY)], 3 * DAY);
    assert_eq!(newest, [(State::Firing, 1, 3 * DAY)]);
    assert_eq!(told(&mut machine, &[auc(1, 0.9, 3, 4 * DAY)], 4 * DAY), [(State::Resolved, 1, 4 * DAY)]);
    let mut few = auc(2, 0.1, 1, 5 * DAY);
    few.rows = 9;
    assert_eq!(told(&mut machine, &[few.clone()], 5 * DAY), [], "too few rows");
    few.rows = 10;
    few.value = None;
    assert_eq!(told(&mut machine, &[few], 5 * DAY), [], "no value");
}

#[test]
fn others_are_left_alone() {
    let mut machine = Machine::new("job", vec![below(0.8, None)]);
    let change = |change: fn(&mut Stat)| {
        let mut stat = auc(0, 0.1, 1, DAY);
        change(&mut stat);
        stat
    };
    let others = [
        change(|s| s.model = "churn".into()),
        change(|s| s.kind = StatKind::Quality),
        change(|s| s.metric = "accuracy".into()),
        change(|s| s.subject = "1".into()),
        change(|s| s.segment = "country=FR".into()),
    ];
    assert_eq!(told(&mut machine, &others, DAY), []);
    assert!(machine.is_empty());
    let mut rule = below(0.8, None);
    rule.plan.segment = SegmentFilter::Column("country".into());
    let mut machine = Machine::new("job", vec![rule]);
    assert_eq!(told(&mut machine, &others, DAY).len(), 1);
    let segment = machine.firing().next().expect("it fires");
    assert_eq!(segment.segment, "country=FR");
    assert!(
        segment.message.contains("auc of fraud version champion for country=FR is 0.1 (alert when < 0.8)"),
        "{}",
        segment.message
    );
}

#[test]
fn reminders_come_by_the_clock() {
    let mut rule = below(0.8, None);
    rule.plan.repeat = Some(DAY / 2);
    let mut machine = Machine::new("job", vec![rule]);
    assert_eq!(windows(&mut machine, 0, &[0.7]), [(State::Firing, 0)]);
    let mut out = Vec::new();
    machine.advance(DAY + DAY / 2 - 1, &mut out);
    assert_eq!(out, []);
    machine.advance(DAY + DAY / 2, &mut out);
    machine.advance(DAY + 5 * DAY / 2 + 7, &mut out);
    let said: Vec<_> = out.iter().map(|a| (a.repeat, a.at)).collect();
    assert_eq!(said, [(1, DAY + DAY / 2), (5, DAY + 5 * DAY / 2)]);
    assert_ne!(out[0].id(), out[1].id());
    assert_eq!(out[0].fingerprint, out[1].fingerprint);
}

#[test]
fn a_change_is_over_after_a_while() {
    let found = |as_of: EventTime| Stat {
        kind: StatKind::Drift,
        subject: "error".into(),
        metric: "adwin".into(),
        alarm: Some(true),
        ..auc(as_of / DAY, 0.3, 1, as_of)
    };
    let mut machine = Machine::new("job", vec![rule(Condition::Change { detector: None, over_after: DAY })]);
    assert_eq!(told(&mut machine, &[found(100)], 100), [(State::Firing, 0, 100)]);
    assert_eq!(told(&mut machine, &[found(DAY)], DAY), [], "it goes on");
    assert_eq!(told(&mut machine, &[], 2 * DAY - 1), []);
    assert_eq!(told(&mut machine, &[], 9 * DAY), [(State::Resolved, 1, 2 * DAY)]);
    assert!(machine.is_empty());
    // In one tick as in many: what is over ends before the next begins.
    let together = told(&mut machine, &[found(40 * DAY), found(30 * DAY)], 50 * DAY);
    let (fires, ends) = (State::Firing, State::Resolved);
    assert_eq!(
        together.iter().map(|t| (t.0, t.2 / DAY)).collect::<Vec<_>>(),
        [(fires, 30), (ends, 31), (fires, 40), (ends, 41)]
    );
    let warning = Stat { alarm: Some(false), metric: "ddm".into(), ..found(60 * DAY) };
    assert_eq!(told(&mut machine, &[warning], 60 * DAY), []);
}

#[test]
fn drift_goes_by_its_own_threshold() {
    let mut rule = rule(Condition::Drift { subject: Subject::Any });
    rule.plan.message = Some(Template(vec![
        TemplatePiece::Field("metric"),
        TemplatePiece::Text(" of ".into()),
        TemplatePiece::Field("subject"),
        TemplatePiece::Text(": ".into()),
        TemplatePiece::Field("value"),
        TemplatePiece::Text(" > ".into()),
        TemplatePiece::Field("threshold"),
    ]));
    let mut machine = Machine::new("job", vec![rule]);
    let psi = |window: i64, value: f64, alarm| Stat {
        kind: StatKind::Drift,
        subject: "amount".into(),
        metric: "psi".into(),
        threshold: Some(0.125),
        alarm,
        ..auc(window, value, 1, (window + 1) * DAY)
    };
    let stats = [psi(0, 0.1, Some(false)), psi(1, 0.25, Some(true)), psi(2, 0.3, None), psi(3, 0.1, Some(false))];
    let mut out = Vec::new();
    machine.tick(&mut stats.to_vec(), 4 * DAY, &mut out);
    let said: Vec<_> = out.iter().map(|a| (a.state, a.message.as_str())).collect();
    assert_eq!(said, [(State::Firing, "psi of amount: 0.25 > 0.125"), (State::Resolved, "psi of amount: 0.1 > 0.125")]);
}

#[test]
fn what_nobody_tells_any_more_ends() {
    let mut machine = Machine::new("job", vec![below(0.8, None)]);
    assert_eq!(windows(&mut machine, 0, &[0.7]), [(State::Firing, 0)]);
    assert_eq!(told(&mut machine, &[], (1 + STALE_WINDOWS) * DAY - 1), []);
    let at = (1 + STALE_WINDOWS) * DAY;
    assert_eq!(told(&mut machine, &[], at + 5), [(State::Resolved, 0, at)]);
    assert!(machine.is_empty());
}

#[test]
fn a_rule_that_is_gone_is_resolved() {
    let mut machine = Machine::new("job", vec![below(0.8, None)]);
    assert_eq!(windows(&mut machine, 0, &[0.7]), [(State::Firing, 0)]);
    let bytes = machine.save(|model| model == "fraud").expect("something goes on");
    assert_eq!(machine.save(|model| model != "fraud"), None);
    let mut other = Machine::new("job", Vec::new());
    other.load(&bytes).expect("it was saved");
    assert_eq!(told(&mut other, &[], 3 * DAY), [(State::Resolved, 0, 3 * DAY)]);
    assert_eq!(told(&mut other, &[], 4 * DAY), []);
    assert!(matches!(other.load(&bytes[1..]), Err(AlertError::Damaged(_))));
}

#[test]
fn the_engine_has_a_clock_of_its_own() {
    let mut machine = Machine::new(
        "job",
        vec![rule(Condition::Compare {
            table: MetricTable::Engine,
            metric: "cpu_cores".into(),
            subject: Subject::Any,
            wrong: compare(Operator::More, 0.9),
            clear: None,
        })],
    );
    let cpu = |second: i64, value| Stat {
        kind: StatKind::Operation,
        subject: "engine".into(),
        metric: "cpu_cores".into(),
        window_start: second * 1_000_000,
        window_end: (second + 1) * 1_000_000,
        as_of: (second + 1) * 1_000_000,
        ..auc(0, value, 1, 0)
    };
    let wall = 1_800_000_000;
    assert_eq!(told(&mut machine, &[cpu(wall, 0.95)], DAY).len(), 1);
    // Event time is far ahead, and nothing ends by it.
    assert_eq!(told(&mut machine, &[], EventTime::MAX), []);
    assert_eq!(told(&mut machine, &[cpu(wall + 1, 0.5)], DAY).len(), 1);
}

#[test]
fn numbers_for_people() {
    for (value, text) in [
        (0.0, "0"),
        (0.8, "0.8"),
        (0.123_456_789, "0.123457"),
        (12.5, "12.5"),
        (1234.5678, "1234.57"),
        (2_147_483_648.0, "2147483648"),
        (100.0, "100"),
        (-0.25, "-0.25"),
        (1.5e-7, "1.50000e-7"),
    ] {
        assert_eq!(message::number(Some(value)), text);
    }
    assert_eq!(message::number(None), "unknown");
}

fn fired() -> Alert {
    let mut rule = below(0.8, None);
    rule.plan.runbook = Some("https://wiki/auc".into());
    rule.plan.severity = Severity::Critical;
    let mut machine = Machine::new("job", vec![rule]);
    assert_eq!(windows(&mut machine, 0, &[0.74]).len(), 1);
    machine.firing().next().expect("it fires").clone()
}

#[test]
fn payloads() {
    let alert = fired();
    let json = payload::json(&alert);
    assert_eq!((json["state"].as_str(), json["value"].as_f64()), (Some("firing"), Some(0.74)));
    assert_eq!(
        (json["labels"]["team"].as_str(), json["window_end"].as_str()),
        (Some("risk"), Some("1970-01-02T00:00:00Z"))
    );
    assert_eq!(json["id"], alert.id());
    let slack = payload::slack(&alert);
    assert!(slack["text"].as_str().is_some_and(|t| t.contains("auc of fraud") && t.contains("&lt; 0.8")), "{slack}");
    assert_eq!(slack["attachments"][0]["blocks"][0]["type"], "section");
    assert!(
        slack["attachments"][0]["blocks"][2]["elements"][0]["text"]
            .as_str()
            .is_some_and(|t| t.contains("<https://wiki/auc|runbook>"))
    );

    let now = 10 * DAY;
    let sent = payload::alertmanager([&alert], now, 60_000_000);
    assert_eq!(sent[0]["labels"]["alertname"], "r");
    assert_eq!(sent[0]["labels"]["segment"], serde_json::Value::Null, "an empty label is none");
    assert_eq!(sent[0]["startsAt"], "1970-01-01T00:00:00Z");
    assert_eq!(sent[0]["endsAt"], "1970-01-11T00:01:00Z");
    assert_eq!(sent[0]["generatorURL"], "https://wiki/auc");
    let resolved = Alert { state: State::Resolved, at: 2 * DAY, ..alert };
    assert_eq!(payload::alertmanager([&resolved], now, 60_000_000)[0]["endsAt"], "1970-01-03T00:00:00Z");
    // Event time that runs ahead of the wall clock is over now.
    let early = payload::alertmanager([&Alert { since: 5 * DAY, ..resolved }], DAY, 60_000_000);
    assert_eq!(
        (early[0]["startsAt"].as_str(), early[0]["endsAt"].as_str()),
        (Some("1970-01-02T00:00:00Z"), Some("1970-01-02T00:00:00Z"))
    );
}

#[test]
fn rows_of_the_table() {
    let alert = fired();
    let batch = alert_batch([&alert, &alert], 7, 3, 5);
    assert_eq!((batch.num_rows(), batch.schema()), (2, alert_schema()));
    let text = |name: &str| {
        arrow::util::display::array_value_to_string(batch.column_by_name(name).expect("a column"), 1).expect("a text")
    };
    assert_eq!(
        (text("state"), text("_offset"), text("labels")),
        ("firing".into(), "6".into(), r#"{"team":"risk"}"#.into())
    );
    assert_eq!((text("_tick"), text("_job_version"), text("id")), ("7".into(), "3".into(), alert.id()));
}

/// What the machine should say of one series, from all that was ever told: nothing is kept up but the list.
#[derive(Default)]
struct Twin {
    /// Every judged statistic that was not behind the newest: window, wrong, clear.
    judged: Vec<(i64, bool, bool)>,
    firing: bool,
    /// Windows up to and with this, at the length of the list then, are of streaks that have ended.
    ended: usize,
}

impl Twin {
    fn hear(
        &mut self,
        window: i64,
        value: Option<f64>,
        enough: bool,
        (low, high): (f64, f64),
        hold: u32,
    ) -> Option<State> {
        let value = value.filter(|_| enough)?;
        let newest = self.judged.iter().map(|j| j.0).max();
        if newest.is_some_and(|newest| window < newest) {
            return None;
        }
        self.judged.push((window, value < low, value >= high));
        if self.firing {
            if value >= high {
                self.firing = false;
                self.ended = self.judged.len();
                return Some(State::Resolved);
            }
            return None;
        }
        // The last word on each window since the last end.
        let last: BTreeMap<i64, bool> = self.judged[self.ended..].iter().map(|j| (j.0, j.1)).collect();
        let streak = (0..).map(|back| window - back).take_while(|w| last.get(w) == Some(&true)).count();
        if streak >= hold as usize {
            self.firing = true;
            return Some(State::Firing);
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_machine_says_what_its_twin_says(
        hold in 1u32..4,
        hysteresis in prop::bool::ANY,
        told in prop::collection::vec((0i64..3, 0usize..8, 0u8..8, prop::bool::weighted(0.15)), 1..60),
    ) {
        let (low, high) = (0.5, if hysteresis { 0.75 } else { 0.5 });
        let mut rule = below(low, hysteresis.then_some(high));
        rule.plan.hold = Hold::Windows(hold);
        let rules = vec![rule];
        let mut machine = Machine::new("job", rules.clone());
        let mut twin = Twin::default();
        let mut newest = 5i64;
        for (step, (ahead, back, eighths, restart)) in told.into_iter().enumerate() {
            newest += ahead;
            // Mostly the newest window, now and then an older one.
            let window = if back < 2 { newest - 1 - back as i64 } else { newest };
            let mut stat = auc(window, f64::from(eighths) / 8.0, 1, (newest + 1) * DAY);
            stat.revision = step as u32;
            if eighths == 7 { stat.value = None; }
            if back == 3 { stat.rows = 3; }
            let expected = twin.hear(window, stat.value, stat.rows >= 10, (low, high), hold);
            let mut out = Vec::new();
            machine.tick(&mut [stat], (newest + 1) * DAY, &mut out);
            prop_assert_eq!(out.iter().map(|a| a.state).collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
            if restart && let Some(bytes) = machine.save(|_| true) {
                let mut again = Machine::new("job", rules.clone());
                again.load(&bytes).expect("it was just saved");
                prop_assert_eq!(again.save(|_| true), Some(bytes));
                machine = again;
            }
        }
    }
}
