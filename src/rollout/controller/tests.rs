//! Against a naive twin that keeps every row and computes everything anew, in other words and other arithmetic; and by hand.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::{Strategy as Strategy_, ValueTree};

use super::*;
use crate::plan::model::{GuardPlan, Loss, Strategy};

const SECOND: i64 = 1_000_000;

fn policy() -> RolloutPlan {
    RolloutPlan {
        shadow: 0,
        strategy: Strategy::Canary { steps: vec![500, 2_500, 5_000, SHARE_ALL], hold: 10 * SECOND },
        by: None,
        metric: Loss::LogLoss,
        alpha: 0.05,
        margin: 0.0,
        min_rows: 10,
        expect_rows: 100,
        max: 1_000 * SECOND,
        on_timeout: OnTimeout::RollBack,
        guard: GuardPlan { latency_p99_ms: None, error_rate: None, score_shift_sd: None, sample_ratio_alpha: 0.0 },
    }
}

fn outcome(time: i64, arm: Arm, loss: f64) -> Outcome {
    Outcome { time, due: time, arm, loss, shadow_loss: None, retract: false }
}

/// Losses about 1, and about 1 + `lift`, half a standard deviation wide at `spread` 1, for `rows` rows of each from `time` on.
fn feed(controller: &mut Controller, time: i64, rows: i64, lift: f64, spread: f64) {
    for i in 0..rows {
        let wobble = spread * ((i * 7 % 11) as f64 / 11.0 - 0.5);
        controller.observe(&outcome(time + i, Arm::Champion, 1.0 + wobble));
        controller.observe(&outcome(time + i, Arm::Challenger, 1.0 + lift - wobble));
    }
}

/// Decides, and lets the decision take effect.
fn go(controller: &mut Controller, now: i64) -> Option<Action> {
    let decision = controller.decide(now)?;
    assert!(controller.decide(now + 1).is_none(), "one at a time");
    assert!(controller.applied(decision.seq, now));
    assert!(!controller.applied(decision.seq, now), "twice is once");
    Some(decision.action)
}

#[test]
fn a_better_challenger_goes_all_the_way() {
    let mut c = Controller::new(policy(), "7".into(), 0);
    assert_eq!(c.state(), Phase::Canary(500));
    feed(&mut c, 0, 50, -0.5, 1.0);
    assert_eq!(go(&mut c, 9 * SECOND), None, "the step is held");
    let mut now = 10 * SECOND;
    for share in [2_500, 5_000, SHARE_ALL] {
        assert_eq!(go(&mut c, now), Some(Action::Step { share }));
        if share < SHARE_ALL {
            assert_eq!(go(&mut c, now + 10 * SECOND), None, "no labels since the step");
            feed(&mut c, now, 20, -0.5, 1.0);
        }
        now += 10 * SECOND;
    }
    assert_eq!((c.state(), go(&mut c, now - 1)), (Phase::Switched, None));
    assert_eq!((go(&mut c, now), c.state()), (Some(Action::Promote), Phase::Promoted));
    assert_eq!(go(&mut c, now + 10_000 * SECOND), None);
    assert_eq!(c.exposure().share, SHARE_ALL);
}

#[test]
fn a_worse_one_goes_back_in_whatever_phase() {
    let ab = Strategy::Ab { share: 5_000 };
    for strategy in [policy().strategy, ab] {
        let mut c = Controller::new(RolloutPlan { strategy, ..policy() }, "7".into(), 0);
        feed(&mut c, 0, 9, 2.0, 1.0);
        assert_eq!(go(&mut c, SECOND), None, "too few rows");
        feed(&mut c, 9, 21, 2.0, 1.0);
        let decision = c.decide(SECOND).unwrap();
        assert!(
            decision.why.starts_with("the challenger is worse: log_loss 0.951515 and 3.048485 in 30 and 30 rows"),
            "{}",
            decision.why
        );
        assert_eq!((decision.numbers.labelled, decision.phase), ([30, 30], c.state()));
        assert!(matches!(decision.action, Action::RollBack { .. }));
    }
    let mut c = Controller::new(RolloutPlan { shadow: 10 * SECOND, ..policy() }, "7".into(), 0);
    for i in 0..30 {
        let shadow_loss = Some(3.0 + (i % 5) as f64);
        c.observe(&Outcome { shadow_loss, ..outcome(i, Arm::Champion, 1.0) });
    }
    assert!(matches!(go(&mut c, SECOND), Some(Action::RollBack { .. })), "in shadow");
    assert_eq!(c.state(), Phase::RolledBack);
}

#[test]
fn shadow_ends_after_its_time_with_labels() {
    let plan = RolloutPlan { shadow: 10 * SECOND, ..policy() };
    let mut c = Controller::new(plan, "7".into(), 0);
    assert_eq!((c.state(), c.exposure().shadow), (Phase::Shadow, true));
    assert_eq!(go(&mut c, 20 * SECOND), None, "missing labels hold");
    for i in 0..30 {
        c.observe(&Outcome { shadow_loss: Some(1.0 + (i % 3) as f64), ..outcome(i, Arm::Champion, 2.0) });
    }
    assert_eq!(go(&mut c, 5 * SECOND), None, "before its time");
    assert_eq!(go(&mut c, 10 * SECOND), Some(Action::Step { share: 500 }));
    let pairs = c.pairs.rows();
    c.observe(&Outcome { shadow_loss: Some(1.0), ..outcome(8, Arm::Champion, 2.0) });
    assert_eq!((c.pairs.rows(), c.numbers().labelled), (pairs + 1, [0, 0]), "a label for a row in shadow comes later");
}

#[test]
fn blue_green_switches_on_shadow_and_keeps_the_old_one_warm() {
    let strategy = Strategy::BlueGreen { keep: 60 * SECOND };
    let mut c =
        Controller::new(RolloutPlan { shadow: 10 * SECOND, strategy: strategy.clone(), ..policy() }, "7".into(), 0);
    for i in 0..30 {
        c.observe(&Outcome { shadow_loss: Some(1.0 + (i % 3) as f64), ..outcome(i, Arm::Champion, 2.1) });
    }
    assert_eq!(go(&mut c, 10 * SECOND), None, "no worse is not enough");
    for i in 30..100 {
        c.observe(&Outcome { shadow_loss: Some(1.0 + (i % 3) as f64 / 10.0), ..outcome(i, Arm::Champion, 2.1) });
    }
    assert_eq!(go(&mut c, 10 * SECOND), Some(Action::Step { share: SHARE_ALL }));
    assert_eq!((c.state(), go(&mut c, 69 * SECOND)), (Phase::Switched, None));
    let mut back = c.clone();
    assert_eq!(go(&mut c, 70 * SECOND), Some(Action::Promote));
    back.policy.guard.latency_p99_ms = Some(20.0);
    assert!(back.command(&Action::Guard { what: Guarded::LatencyP99Ms, value: 25.0 }, None, 40 * SECOND));
    assert!(matches!(go(&mut back, 40 * SECOND), Some(Action::RollBack { why }) if why.contains("25.0 ms")));
    assert_eq!(Controller::new(RolloutPlan { strategy, ..policy() }, "7".into(), 0).state(), Phase::Switched);
}

#[test]
fn time_is_over_and_hands_are_stronger() {
    for on_timeout in [OnTimeout::RollBack, OnTimeout::Hold] {
        let mut c = Controller::new(RolloutPlan { on_timeout, ..policy() }, "7".into(), 0);
        assert_eq!(go(&mut c, 999 * SECOND), None);
        let action = go(&mut c, 1_000 * SECOND);
        match on_timeout {
            OnTimeout::RollBack => {
                assert!(matches!(action, Some(Action::RollBack { why }) if why.contains("nothing decided")))
            }
            OnTimeout::Hold => {
                assert_eq!(action, Some(Action::Hold));
                feed(&mut c, 0, 50, 2.0, 1.0);
                assert_eq!(go(&mut c, 2_000 * SECOND), None, "held");
                assert!(c.command(&Action::Resume, None, 3_000 * SECOND));
                assert!(matches!(go(&mut c, 3_001 * SECOND), Some(Action::RollBack { .. })));
            }
        }
    }
    // A hold that is recorded before a decision's command overtakes it; the decision is made again after `resume`.
    let mut c = Controller::new(policy(), "7".into(), 0);
    feed(&mut c, 0, 50, -0.5, 1.0);
    let first = c.decide(10 * SECOND).unwrap();
    assert_eq!((first.seq, c.pending()), (1, Some((1, &Action::Step { share: 2_500 }))));
    assert!(c.command(&Action::Hold, None, 10 * SECOND) && !c.applied(1, 10 * SECOND));
    assert_eq!((c.state(), c.decide(11 * SECOND)), (Phase::Canary(500), None));
    assert!(c.command(&Action::Resume, None, 12 * SECOND));
    assert_eq!(c.decide(12 * SECOND).map(|d| (d.seq, d.action)), Some((2, Action::Step { share: 2_500 })));
    assert!(c.command(&Action::Promote, None, 13 * SECOND), "by hand");
    assert!(!c.applied(2, 13 * SECOND), "too late");
    assert_eq!(c.state(), Phase::Promoted);
}

#[test]
fn traffic_that_changes_between_steps_is_no_difference() {
    // Losses double with the second step, where the challenger gets most of its rows: pooled it looks far worse.
    let mut c = Controller::new(policy(), "7".into(), 0);
    for (step, (level, rows)) in [(1.0, [950, 50]), (2.0, [750, 750])].into_iter().enumerate() {
        let from = step as i64 * 100 * SECOND;
        if step == 1 {
            assert!(c.command(&Action::Step { share: 5_000 }, None, from));
        }
        for (arm, rows) in [Arm::Champion, Arm::Challenger].into_iter().zip(rows) {
            (0..rows).for_each(|i| c.observe(&outcome(from + i, arm, level * (0.5 + (i % 2) as f64))));
        }
    }
    let numbers = c.numbers();
    assert_eq!((numbers.labelled, numbers.lift), ([1_700, 800], Some(0.0)));
    assert!(numbers.low.unwrap() < 0.0 && numbers.high.unwrap() > 0.0);
}

#[test]
fn a_label_that_is_corrected_leaves_no_trace() {
    let mut c = Controller::new(policy(), "7".into(), 0);
    feed(&mut c, 0, 50, 0.1, 1.0);
    let before = c.clone();
    for value in [1e12, 1e-12, 0.1] {
        c.observe(&outcome(3, Arm::Challenger, value));
    }
    assert_ne!(c.numbers().lift, before.numbers().lift);
    for value in [1e-12, 0.1, 1e12] {
        c.observe(&Outcome { retract: true, ..outcome(3, Arm::Challenger, value) });
    }
    assert_eq!(c, before);
}

#[test]
fn damaged_state_is_refused() {
    let mut bytes = Controller::new(policy(), "7".into(), 0).encode();
    assert!(Controller::decode(&bytes).is_ok());
    bytes[20] ^= 1;
    assert!(Controller::decode(&bytes).is_err_and(|e| e.to_string().contains("older checkpoint")));
}

// ---- the twin ----

#[derive(Clone, Debug)]
enum Op {
    Row {
        time: i64,
        challenger: bool,
        loss: f64,
        shadow: Option<f64>,
        group: u16,
    },
    /// Takes back a row that was told.
    Correct(Index),
    Routed {
        challenger: bool,
        rows: u64,
        errors: u64,
        score: f64,
    },
    Decide(i64),
    /// The pending command comes back.
    Apply,
    ByHand(Action),
    Cut,
}

/// Keeps everything.
struct Twin {
    plan: RolloutPlan,
    /// Beginnings of shares.
    shares: Vec<(i64, Share)>,
    /// Stratum, arm (2 is shadow's challenger), loss, group, rank of the row.
    rows: Vec<(usize, usize, f64, u16, usize)>,
    routed: Vec<(usize, usize, u64, u64, f64)>,
    shadow: bool,
    held: bool,
    over: bool,
    entered: i64,
    counted_from: i64,
    latest: i64,
    fresh: i64,
    latency: Option<f64>,
    pending: Option<Action>,
}

impl Twin {
    fn share(&self) -> Share {
        self.shares.last().unwrap().1
    }

    fn row(&mut self, rank: usize, op: &Op, told: bool) {
        let Op::Row { time, challenger, loss, shadow, group } = op else { unreachable!() };
        let Some(stratum) = self.shares.iter().rposition(|(from, _)| from <= time) else { return };
        self.latest = self.latest.max(*time);
        let by = if told { 1 } else { -1 };
        let kinds: Vec<(usize, f64)> = match shadow {
            Some(other) => vec![(0, *loss), (2, *other)],
            None if self.shares[stratum].1 > 0 => vec![(usize::from(*challenger), *loss)],
            None => return,
        };
        if shadow.is_some() || *challenger {
            self.fresh += by;
        }
        for (kind, loss) in kinds {
            let paired = if shadow.is_some() { usize::MAX } else { stratum };
            match told {
                true => self.rows.push((paired, kind, loss, *group, rank)),
                false => self.rows.retain(|r| r.4 != rank),
            }
        }
    }

    /// Mean and its variance, by two passes.
    fn mean(&self, values: &[(f64, u16)]) -> Option<(f64, f64)> {
        let n = values.len() as f64;
        if values.len() < 2 {
            return None;
        }
        let mean = values.iter().map(|v| v.0).sum::<f64>() / n;
        if self.plan.by.is_none() {
            let spread: f64 = values.iter().map(|v| (v.0 - mean).powi(2)).sum();
            return Some((mean, spread / (n - 1.0) / n));
        }
        let mut groups = std::collections::BTreeMap::<u16, f64>::new();
        for (value, group) in values {
            *groups.entry(*group).or_default() += value - mean;
        }
        let g = groups.len() as f64;
        (g > 1.0).then(|| (mean, g / (g - 1.0) * groups.values().map(|s| s * s).sum::<f64>() / n / n))
    }

    fn of(&self, stratum: usize, kind: usize) -> Vec<(f64, u16)> {
        self.rows.iter().filter(|r| (r.0, r.1) == (stratum, kind)).map(|r| (r.2, r.3)).collect()
    }

    /// Lift, its error, information, whether there are enough rows.
    fn paired(&self) -> Option<(f64, f64, f64, bool)> {
        let (own, other) = (self.of(usize::MAX, 0), self.of(usize::MAX, 2));
        let values: Vec<(f64, u16)> = own.iter().zip(&other).map(|(a, b)| (b.0 - a.0, a.1)).collect();
        let (mean, variance) = self.mean(&values)?;
        Some((mean, variance.sqrt(), values.len() as f64, values.len() as u64 >= self.plan.min_rows))
    }

    fn split(&self) -> Option<(f64, f64, f64, bool)> {
        let (mut lift, mut error, mut information, mut counts) = (0.0, 0.0, 0.0, [0, 0]);
        for stratum in 0..self.shares.len() {
            let (own, other) = (self.of(stratum, 0), self.of(stratum, 1));
            let (Some(a), Some(b)) = (self.mean(&own), self.mean(&other)) else { continue };
            let (n, m) = (own.len() as f64, other.len() as f64);
            let (mut s, mut t) = (a.1 * n, b.1 * m);
            if n < m {
                s = s.max(t)
            } else {
                t = t.max(s)
            }
            let weight = 1.0 / (1.0 / n + 1.0 / m);
            lift += weight * (b.0 - a.0);
            error += weight * weight * (s / n + t / m);
            information += weight;
            counts = [counts[0] + own.len(), counts[1] + other.len()];
        }
        let enough = counts.iter().all(|n| *n as u64 >= self.plan.min_rows);
        (information > 0.0).then(|| (lift / information, error.sqrt() / information, information, enough))
    }

    /// Ends of the interval, by the formula of the paper with the root of its ρ² found by bisection.
    fn interval(&self, (lift, error, n, _): (f64, f64, f64, bool), tuned: f64) -> Option<(f64, f64)> {
        let alpha = self.plan.alpha;
        let (mut low, mut high) = (1e-9, 1e9);
        for _ in 0..200 {
            let x: f64 = 0.5 * (low + high);
            if ((1.0 + x) / (alpha * alpha)).ln() > x { low = x } else { high = x }
        }
        let (rho2, deviation) = (low / tuned, error * n.sqrt());
        let width =
            deviation * (2.0 * (n * rho2 + 1.0) / (n * n * rho2) * ((n * rho2 + 1.0).sqrt() / alpha).ln()).sqrt();
        (error > 0.0).then_some((lift - width, lift + width))
    }

    fn guard_hurts(&self) -> bool {
        let guard = &self.plan.guard;
        if self.latency.zip(guard.latency_p99_ms).is_some_and(|(p99, most)| p99 > most) {
            return true;
        }
        let [tried, errors] = self.routed.iter().filter(|r| r.1 == 1).fold([0, 0], |s, r| [s[0] + r.2, s[1] + r.3]);
        let tried = tried.max(errors);
        // Beta-binomial over binomial, factor by factor.
        let evidence = |counts: [u64; 2], share: f64, strength: f64| {
            let prior = [(1.0 - share) * strength, share * strength];
            let mut log = 0.0f64;
            for i in 0..counts[0] {
                log += ((prior[0] + i as f64) / (strength + i as f64) / (1.0 - share)).ln();
            }
            for i in 0..counts[1] {
                log += ((prior[1] + i as f64) / (strength + (counts[0] + i) as f64) / share).ln();
            }
            log
        };
        if let Some(most) = guard.error_rate
            && errors as f64 > most * tried as f64
            && evidence([tried - errors, errors], most, 100.0).exp() >= 1.0 / self.plan.alpha
        {
            return true;
        }
        let ratio: f64 = (0..self.shares.len())
            .map(|stratum| {
                let count = |arm| self.routed.iter().filter(|r| r.0 == stratum && r.1 == arm).map(|r| r.2).sum();
                match self.shares[stratum].1 {
                    0 | SHARE_ALL => 0.0,
                    share => evidence([count(0), count(1)], f64::from(share) / 1e4, 1_000.0),
                }
            })
            .sum();
        guard.sample_ratio_alpha > 0.0 && self.plan.by.is_none() && (-ratio).exp() <= guard.sample_ratio_alpha
    }

    fn decide(&self, now: i64) -> Option<Action> {
        let plan = &self.plan;
        let back = || Some(Action::RollBack { why: String::new() });
        if self.over || self.pending.is_some() {
            return None;
        }
        if self.guard_hurts() {
            return back();
        }
        if self.held {
            return None;
        }
        let (paired, split) = (self.paired(), self.split());
        let expect = plan.expect_rows as f64;
        let ends = |e: Option<(f64, f64, f64, bool)>, tuned| e.filter(|e| e.3).and_then(|e| self.interval(e, tuned));
        let (shadow, means) = (ends(paired, expect / 2.0), ends(split, expect / 4.0));
        if [shadow, means].into_iter().flatten().any(|(low, _)| low > plan.margin) {
            return back();
        }
        let fit = |ends: Option<(f64, f64)>| ends.is_some_and(|(_, high)| high < plan.margin);
        let enough = |e: Option<(f64, f64, f64, bool)>| e.is_some_and(|e| e.3);
        let (lasted, share) = (now - self.entered, self.share());
        let found = match &plan.strategy {
            _ if self.shadow => {
                let ready = lasted >= plan.shadow && self.fresh > 0 && enough(paired);
                match &plan.strategy {
                    Strategy::Canary { steps, .. } if ready => Some(Action::Step { share: steps[0] }),
                    Strategy::Ab { share } if ready => Some(Action::Step { share: *share }),
                    Strategy::BlueGreen { .. } if ready && fit(shadow) => Some(Action::Step { share: SHARE_ALL }),
                    _ => None,
                }
            }
            Strategy::Canary { hold, .. } if lasted < *hold => None,
            Strategy::Canary { .. } if share == SHARE_ALL => Some(Action::Promote),
            Strategy::Canary { .. } if self.fresh <= 0 => None,
            Strategy::Canary { steps, .. } => match steps.iter().find(|s| **s > share) {
                Some(&SHARE_ALL) => fit(means).then_some(Action::Step { share: SHARE_ALL }),
                Some(next) => enough(split).then_some(Action::Step { share: *next }),
                None => fit(means).then_some(Action::Promote),
            },
            Strategy::Ab { .. } => fit(means).then_some(Action::Promote),
            Strategy::BlueGreen { keep } => (share == SHARE_ALL && lasted >= *keep).then_some(Action::Promote),
        };
        let only_waiting = !self.shadow && share == SHARE_ALL && !matches!(plan.strategy, Strategy::Ab { .. });
        match found {
            None if !only_waiting && now - self.counted_from >= plan.max => match plan.on_timeout {
                OnTimeout::RollBack => back(),
                OnTimeout::Hold => Some(Action::Hold),
            },
            found => found,
        }
    }

    fn command(&mut self, action: &Action, decided: bool, at: i64) {
        if decided {
            self.pending = None;
        }
        if let Action::Guard { value, .. } = action {
            self.latency = Some(*value);
        }
        if self.over || (decided && self.held && matches!(action, Action::Step { .. } | Action::Promote)) {
            return;
        }
        match action {
            Action::Step { share } if self.shadow || *share != self.share() => {
                (self.shadow, self.entered, self.fresh) = (false, at, 0);
                self.shares.push((at.max(self.latest.saturating_add(1)), *share));
            }
            Action::Promote | Action::RollBack { .. } => self.over = true,
            Action::Hold => self.held = true,
            Action::Resume => (self.held, self.counted_from) = (false, at),
            _ => {}
        }
    }
}

fn ops(bias: f64) -> impl Strategy_<Value = Vec<Op>> {
    let loss = (0u8..20).prop_map(|l| f64::from(l) / 7.0);
    let row = (0..4_000i64, any::<bool>(), loss.clone(), prop::option::weighted(0.3, loss), 0u16..40).prop_map(
        move |(time, challenger, loss, shadow, group)| Op::Row {
            time: time * SECOND / 10,
            challenger,
            loss: if challenger && shadow.is_none() { loss + bias } else { loss },
            shadow: shadow.map(|s| s + bias),
            group,
        },
    );
    let routed = (any::<bool>(), 0..60u64, prop::sample::select(vec![0, 0, 0, 1, 2]), 0u8..9)
        .prop_map(|(challenger, rows, errors, s)| Op::Routed { challenger, rows, errors, score: f64::from(s) });
    let hand = prop::sample::select(vec![
        Action::Hold,
        Action::Resume,
        Action::Resume,
        Action::Step { share: 5_000 },
        Action::Promote,
        Action::RollBack { why: String::new() },
        Action::Guard { what: Guarded::LatencyP99Ms, value: 9.0 },
        Action::Guard { what: Guarded::LatencyP99Ms, value: 11.0 },
    ]);
    let rows = prop::collection::vec(row, 1..12);
    let many = prop_oneof![
        12 => rows,
        2 => any::<Index>().prop_map(|i| vec![Op::Correct(i)]),
        3 => routed.prop_map(|o| vec![o]),
        8 => prop_oneof![9 => 0..20i64, 1 => 90..250i64].prop_map(|d| vec![Op::Decide(d * SECOND)]),
        6 => Just(vec![Op::Apply]),
        1 => hand.prop_map(|a| vec![Op::ByHand(a)]),
        2 => Just(vec![Op::Cut]),
    ];
    prop::collection::vec(many, 1..60).prop_map(|all| all.concat())
}

fn plans() -> impl Strategy_<Value = RolloutPlan> {
    let ways = prop::sample::select(vec![
        Strategy::Canary { steps: vec![500, 2_500, SHARE_ALL], hold: 10 * SECOND },
        Strategy::Canary { steps: vec![2_000, 5_000], hold: 5 * SECOND },
        Strategy::Ab { share: 5_000 },
        Strategy::BlueGreen { keep: 15 * SECOND },
    ]);
    (ways, any::<bool>(), any::<[bool; 3]>(), 2..30u64, prop::sample::select(vec![0.0, 0.2]), any::<bool>()).prop_map(
        |(strategy, shadow, guards, min_rows, margin, by)| RolloutPlan {
            shadow: if shadow { 20 * SECOND } else { 0 },
            strategy,
            by: by.then(|| crate::plan::model::ByPlan { column: "customer_id".into(), text: false }),
            margin,
            min_rows,
            alpha: 0.2,
            max: 200 * SECOND,
            on_timeout: if guards[0] { OnTimeout::Hold } else { OnTimeout::RollBack },
            guard: GuardPlan {
                latency_p99_ms: guards[1].then_some(10.0),
                error_rate: guards[2].then_some(0.05),
                score_shift_sd: None,
                sample_ratio_alpha: if guards[0] { 0.001 } else { 0.0 },
            },
            ..policy()
        },
    )
}

/// Runs both side by side; the kinds of decisions that were made.
fn side_by_side(plan: RolloutPlan, ops: &[Op]) -> Result<Vec<&'static str>, TestCaseError> {
    let mut whole = Controller::new(plan.clone(), "7".into(), 0);
    let mut cut = whole.clone();
    let mut twin = Twin {
        shares: vec![(0, whole.exposure().share)],
        shadow: whole.exposure().shadow,
        plan,
        rows: Vec::new(),
        routed: Vec::new(),
        held: false,
        over: false,
        entered: 0,
        counted_from: 0,
        latest: i64::MIN,
        fresh: 0,
        latency: None,
        pending: None,
    };
    let (mut now, mut told, mut made) = (0, Vec::new(), Vec::new());
    for (rank, op) in ops.iter().enumerate() {
        match op {
            Op::Row { time, challenger, loss, shadow, group } => {
                let arm = if *challenger && shadow.is_none() { Arm::Challenger } else { Arm::Champion };
                let outcome = Outcome { shadow_loss: *shadow, ..outcome(*time, arm, *loss) };
                let group = twin.plan.by.is_some().then_some(*group);
                whole.observe_in(&outcome, group);
                cut.observe_in(&outcome, group);
                twin.row(rank, op, true);
                told.push((rank, op, outcome, group));
            }
            Op::Correct(index) if !told.is_empty() => {
                let (rank, op, outcome, group) = told.swap_remove(index.index(told.len()));
                let outcome = Outcome { retract: true, ..outcome };
                whole.observe_in(&outcome, group);
                cut.observe_in(&outcome, group);
                twin.row(rank, op, false);
            }
            Op::Routed { challenger, rows, errors, score } => {
                let arm = if *challenger { Arm::Challenger } else { Arm::Champion };
                let mut scores = ScoreMoments::default();
                scores.add(*score, rows.saturating_sub(*errors).cast_signed());
                let rows = if twin.shadow && *challenger { 0 } else { (*rows).max(*errors) };
                whole.assigned(arm, rows, &scores, *errors);
                cut.assigned(arm, rows, &scores, *errors);
                let tried = rows.max(scores.rows().cast_unsigned());
                let stratum = twin.shares.len() - 1;
                twin.routed.push((stratum, usize::from(*challenger), tried, *errors, *score));
            }
            Op::Decide(after) => {
                now += after;
                let (decision, again) = (whole.decide(now), cut.decide(now));
                prop_assert_eq!(&decision, &again, "what was encoded decides the same");
                let plain = |action: Action| match action {
                    Action::RollBack { .. } => Action::RollBack { why: String::new() },
                    other => other,
                };
                let expected = twin.decide(now);
                prop_assert_eq!(decision.as_ref().map(|d| plain(d.action.clone())), expected.clone(), "at {}", now);
                if let Some(decision) = decision {
                    made.push(decision.action.name());
                    let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
                        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs()),
                        (a, b) => a == b,
                    };
                    let (e, tuned) = match decision.numbers.paired {
                        true => (twin.paired(), twin.plan.expect_rows as f64 / 2.0),
                        false => (twin.split(), twin.plan.expect_rows as f64 / 4.0),
                    };
                    let interval = e.and_then(|e| twin.interval(e, tuned));
                    let numbers = &decision.numbers;
                    prop_assert!(near(numbers.lift, e.map(|e| e.0)), "{numbers:?} {e:?}");
                    prop_assert!(near(numbers.low, interval.map(|i| i.0)), "{numbers:?} {interval:?}");
                    prop_assert!(near(numbers.high, interval.map(|i| i.1)), "{numbers:?} {interval:?}");
                    twin.pending = expected;
                }
            }
            Op::Apply => {
                if let Some((seq, action)) = whole.pending().map(|(seq, action)| (seq, action.clone())) {
                    prop_assert_eq!(whole.applied(seq, now), cut.command(&action, Some(seq), now));
                    twin.command(&action, true, now);
                }
            }
            Op::ByHand(action) => {
                prop_assert_eq!(whole.command(action, None, now), cut.command(action, None, now));
                twin.command(action, false, now);
            }
            Op::Cut => {
                let bytes = cut.encode();
                cut = Controller::decode(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(&cut, &whole);
            }
            Op::Correct(_) => {}
        }
    }
    Ok(made)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn as_the_naive_twin(plan in plans(), ops in prop::sample::select(vec![-1.5, 0.0, 1.5]).prop_flat_map(ops)) {
        side_by_side(plan, &ops)?;
    }
}

/// The property would hold of a controller that never decides: each kind of decision must be among the cases.
#[test]
fn the_twins_cases_hold_every_kind_of_decision() {
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    for bias in [-1.5, 1.5, 0.0].into_iter().cycle().take(300) {
        let plan = plans().new_tree(&mut runner).unwrap().current();
        let ops = ops(bias).new_tree(&mut runner).unwrap().current();
        seen.extend(side_by_side(plan, &ops).unwrap());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["hold", "promote", "roll_back", "step"]);
}
