//! `bench rollouts`: simulated rollouts, looked at after every row, beside a z-test at every look and a z-test with one look.
//!
//! Each rollout is a [`Controller`] that is told rows and losses one after the other and asked to decide after each. In an A/A
//! rollout both versions are equal: whatever is promoted there is a mistake. In an A/B rollout the challenger is better, or worse.
//! The fixed test looks once, at the number of rows at which it finds the effect with a probability of 0.8; the z-test at
//! every look is what one does who watches it and stops when it is below `alpha`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::base::SplitMix64;
use crate::plan::model::{ByPlan, GuardPlan, Loss, OnTimeout, RolloutPlan, SHARE_ALL, Share, Strategy};
use crate::rollout::stat::fixed::{self, Design};
use crate::rollout::{Action, Arm, Controller, Outcome, ScoreMoments};

const ALPHA: f64 = 0.05;
const POWER: f64 = 0.8;
/// Share of rows that are lost by the champion of most rollouts.
const BASE: f64 = 0.05;
const EFFECT: f64 = 0.01;
const SECOND: i64 = 1_000_000;
/// Rows of a step of the canary, a row a second.
const HOLD_ROWS: i64 = 4_000;
const CUSTOMERS: u64 = 2_000;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rollouts of each kind.
    pub rollouts: u64,
    /// Seed.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seed of all; rollout `i` of a kind has the seed `seed + i`.
    pub seed: u64,
    /// Rollouts of each kind.
    pub rollouts: u64,
    /// Probability of a false promotion that is promised.
    pub alpha: f64,
    /// Rows of both versions at which the fixed test looks.
    pub fixed_rows: u64,
    /// By kind.
    pub kinds: Vec<Kind>,
    /// Whether false promotions are no more than promised, but for chance.
    pub promise_kept: bool,
    /// Time it took.
    pub seconds: f64,
}

/// One kind of rollouts.
#[derive(Clone, Debug, Serialize)]
pub struct Kind {
    /// What is simulated.
    pub name: &'static str,
    /// Whether both versions are equal.
    pub equal: bool,
    /// Rows after which a rollout is given up.
    pub rows_at_most: u64,
    /// Rows between two looks.
    pub rows_per_look: u64,
    /// By the controller.
    pub controller: Verdicts,
    /// By a z-test at every look.
    pub peeking: Verdicts,
    /// By a z-test with one look.
    pub fixed: Verdicts,
}

/// How rollouts ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdicts {
    /// Share of the rollouts in which the challenger was promoted, or found to be better.
    pub promoted: f64,
    /// In which it was taken back, or found to be worse.
    pub rolled_back: f64,
    /// Of these, because of a guard.
    pub by_guard: f64,
    /// Half of those that ended had ended by then, in rows of both versions.
    pub median_rows: Option<u64>,
    /// 80 % of all had ended by then.
    pub rows_of_80_percent: Option<u64>,
    /// Mean rows, those that did not end with all of their rows.
    pub mean_rows: f64,
}

/// A kind of rollouts, and how to make their rows.
#[derive(Clone, Copy)]
struct Setting {
    name: &'static str,
    /// Probabilities of a loss of champion and challenger, where rows are lost or not.
    rates: [f64; 2],
    way: Way,
    rows: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// One share; rows are lost or not.
    Ab(Share),
    /// One share; log loss of a model of rare events: small but for one row in a hundred, of which 40 % are very costly.
    Rare(Share),
    /// Growing shares, and a rate of loss that grows three times as high meanwhile.
    Canary,
    /// Both score each row; they lose the same row with a probability of one half.
    Shadow,
    /// Of one customer in ten 42 % of rows are lost, of others 1 %; assigned and counted by customer, or counted as if by row.
    Customers { counted: bool },
}

fn settings(fixed_rows: u64) -> Vec<Setting> {
    let long = 2 * fixed_rows;
    let (same, better, worse) = ([BASE; 2], [BASE + EFFECT, BASE], [BASE, BASE + EFFECT]);
    let of = |name, rates, way, rows| Setting { name, rates, way, rows };
    vec![
        of("A/A 50:50, error 5 %", same, Way::Ab(5_000), long),
        of("A/A 95:5, error 5 %", same, Way::Ab(500), long),
        of("A/A 95:5, log loss of rare events", same, Way::Rare(500), long),
        of("A/A canary 5-25-50, error grows 5 to 15 %", same, Way::Canary, 5 * HOLD_ROWS as u64),
        of("A/A shadow, error 5 %", same, Way::Shadow, long),
        of("A/A 50:50 by customer, few of whom err", same, Way::Customers { counted: true }, long),
        of("  the same, rows taken for independent", same, Way::Customers { counted: false }, long),
        of("A/B 50:50, error 6 to 5 %", better, Way::Ab(5_000), long),
        of("A/B 50:50, error 5 to 6 %", worse, Way::Ab(5_000), long),
        of("A/B shadow, error 6 to 5 %", better, Way::Shadow, long),
    ]
}

/// Simulates.
pub fn run(options: &Options) -> Report {
    let start = Instant::now();
    let fixed_rows = Design::rate(BASE, EFFECT, 0.5).rows(ALPHA, POWER).ceil() as u64;
    let kinds: Vec<Kind> = settings(fixed_rows).iter().map(|setting| kind(setting, options, fixed_rows)).collect();
    // Of independent rows: the other is there to be seen failing.
    let counted = kinds.iter().filter(|kind| kind.equal && !kind.name.starts_with(' '));
    let rollouts = options.rollouts as f64;
    let most = ALPHA + 3.0 * (ALPHA * (1.0 - ALPHA) / rollouts.max(1.0)).sqrt();
    Report {
        seed: options.seed,
        rollouts: options.rollouts,
        alpha: ALPHA,
        fixed_rows,
        promise_kept: counted.into_iter().all(|kind| kind.controller.promoted <= most),
        kinds,
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// How one rollout ended by one of the three: better or worse, by a guard, after how many rows.
#[derive(Clone, Copy)]
struct End {
    better: bool,
    by_guard: bool,
    rows: u64,
}

type Ends = [Option<End>; 3];

fn kind(setting: &Setting, options: &Options, fixed_rows: u64) -> Kind {
    let next = AtomicU64::new(0);
    let work = || {
        let mut ends = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= options.rollouts {
                return ends;
            }
            ends.push(simulate(setting, options.seed.wrapping_add(i), fixed_rows));
        }
    };
    let ends: Vec<Ends> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut ends = work();
        for thread in threads {
            match thread.join() {
                Ok(others) => ends.extend(others),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        ends
    });
    let [controller, peeking, fixed] = [0, 1, 2].map(|who| verdicts(ends.iter().map(|ends| ends[who]), setting.rows));
    Kind {
        name: setting.name,
        equal: setting.rates[0] == setting.rates[1],
        rows_at_most: setting.rows,
        rows_per_look: look_every(setting.way),
        controller,
        peeking,
        fixed,
    }
}

fn verdicts(ends: impl Iterator<Item = Option<End>>, all: u64) -> Verdicts {
    let (mut sum, mut count, mut rows) = (Verdicts::default(), 0.0, Vec::new());
    for end in ends {
        count += 1.0;
        sum.mean_rows += end.map_or(all, |end| end.rows) as f64;
        if let Some(end) = end {
            *if end.better { &mut sum.promoted } else { &mut sum.rolled_back } += 1.0;
            sum.by_guard += f64::from(u8::from(end.by_guard));
            rows.push(end.rows);
        }
    }
    rows.sort_unstable();
    let count = f64::max(count, 1.0);
    Verdicts {
        promoted: sum.promoted / count,
        rolled_back: sum.rolled_back / count,
        by_guard: sum.by_guard / count,
        median_rows: rows.get(rows.len() / 2).copied(),
        rows_of_80_percent: rows.get((POWER * count).ceil() as usize - 1).copied(),
        mean_rows: sum.mean_rows / count,
    }
}

/// A look at customers is a look at all of them.
fn look_every(way: Way) -> u64 {
    if matches!(way, Way::Customers { .. }) { 250 } else { 1 }
}

fn policy(way: Way, fixed_rows: u64) -> RolloutPlan {
    let (shadow, strategy) = match way {
        Way::Ab(share) | Way::Rare(share) => (0, Strategy::Ab { share }),
        Way::Customers { .. } => (0, Strategy::Ab { share: 5_000 }),
        Way::Canary => (0, Strategy::Canary { steps: vec![500, 2_500, 5_000, SHARE_ALL], hold: HOLD_ROWS * SECOND }),
        Way::Shadow => (1, Strategy::BlueGreen { keep: SECOND }),
    };
    RolloutPlan {
        shadow,
        strategy,
        by: (way == Way::Customers { counted: true }).then(|| ByPlan { column: "customer".to_owned(), text: false }),
        metric: Loss::Error,
        alpha: ALPHA,
        margin: 0.0,
        min_rows: 500,
        expect_rows: fixed_rows,
        max: i64::MAX,
        on_timeout: OnTimeout::Hold,
        guard: GuardPlan { latency_p99_ms: None, error_rate: None, score_shift_sd: None, sample_ratio_alpha: 0.001 },
    }
}

/// What the z-tests see: the rows as they are, without regard to shares and customers. Of pairs, their differences.
#[derive(Default)]
struct Plain([(f64, f64, f64); 2]);

impl Plain {
    fn add(&mut self, arm: usize, value: f64) {
        let (rows, sum, squares) = &mut self.0[arm];
        (*rows, *sum, *squares) = (*rows + 1.0, *sum + value, *squares + value * value);
    }

    fn rows(&self, arm: usize) -> f64 {
        self.0[arm].0
    }

    /// The difference, and its distance from 0 in standard errors.
    fn z(&self, paired: bool) -> (f64, f64) {
        let [(mean0, v0), (mean1, v1)] = self.0.map(|(rows, sum, squares)| {
            let mean = sum / rows.max(1.0);
            (mean, (squares / rows.max(1.0) - mean * mean) / (rows - 1.0).max(1.0))
        });
        let (lift, variance) = if paired { (mean1, v1) } else { (mean1 - mean0, v0 + v1) };
        (lift, if variance > 0.0 { (lift / variance.sqrt()).abs() } else { 0.0 })
    }
}

fn simulate(setting: &Setting, seed: u64, fixed_rows: u64) -> Ends {
    let Setting { rates, way, rows: all, .. } = *setting;
    let mut random = SplitMix64::new(seed);
    let policy = policy(way, fixed_rows);
    let (min_rows, by_customer) = (policy.min_rows as f64, matches!(way, Way::Customers { .. }));
    let critical = fixed::quantile_above(ALPHA / 2.0);
    let mut controller = Controller::new(policy, seed.to_string(), 0);
    let mut plain = Plain::default();
    let mut ends: Ends = [None; 3];
    let salt = random.word();
    let none = ScoreMoments::default();
    for rows in 1..=all {
        let time = rows as i64 * SECOND;
        let customer = random.below(CUSTOMERS);
        let bucket = SplitMix64::new(salt ^ customer).below(u64::from(SHARE_ALL)) as u16;
        let part = f64::from(controller.exposure().share) / f64::from(SHARE_ALL);
        let challenger = match by_customer {
            true => bucket < controller.exposure().share,
            false => random.unit() < part,
        };
        let arm = usize::from(challenger);
        let mut lost = |rate: f64| f64::from(u8::from(random.unit() < rate));
        let (loss, shadow_loss) = match way {
            Way::Ab(_) => (lost(rates[arm]), None),
            Way::Rare(_) => match (lost(0.01), lost(0.4)) {
                (1.0, 1.0) => (4.0 + 2.0 * random.unit(), None),
                (1.0, _) => (0.3, None),
                _ => (0.005 + 0.01 * random.unit(), None),
            },
            Way::Canary => (lost(rates[arm] * (1.0 + 2.0 * rows as f64 / all as f64)), None),
            Way::Shadow => {
                let own = lost(rates[0]);
                let other = if lost(0.5) == 1.0 { own * lost(rates[1] / rates[0]) } else { lost(rates[1]) };
                (own, Some(other))
            }
            Way::Customers { .. } => {
                // Follows from the customer, whatever the rollout.
                let errs = SplitMix64::new(customer).below(10) == 0;
                (lost(if errs { 0.42 } else { 0.01 }), None)
            }
        };
        let arm = if challenger { Arm::Challenger } else { Arm::Champion };
        match shadow_loss {
            Some(other) => plain.add(1, other - loss),
            None => plain.add(usize::from(challenger), loss),
        }
        if ends[0].is_none() {
            let group = (way == Way::Customers { counted: true }).then_some(bucket);
            controller.assigned(arm, 1, &none, 0);
            group.into_iter().for_each(|group| controller.assigned_group(group, 1));
            controller.observe_in(&Outcome { time, due: time, arm, loss, shadow_loss, retract: false }, group);
            if rows % look_every(way) == 0
                && let Some(decision) = controller.decide(time)
            {
                let onward = matches!(decision.action, Action::Step { share } if share < SHARE_ALL);
                if onward {
                    controller.applied(decision.seq, time + 1);
                } else {
                    let better = !matches!(decision.action, Action::RollBack { .. });
                    let by_guard = decision.why.contains("shares of rows");
                    ends[0] = Some(End { better, by_guard, rows });
                }
            }
        }
        let paired = shadow_loss.is_some();
        let looks = [ends[1].is_none() && rows % look_every(way) == 0, rows == fixed_rows.min(all)];
        if looks.contains(&true) {
            let (lift, z) = plain.z(paired);
            let end = (z > critical).then_some(End { better: lift < 0.0, by_guard: false, rows });
            if looks[0] && plain.rows(1) >= min_rows && (paired || plain.rows(0) >= min_rows) {
                ends[1] = end;
            }
            if looks[1] {
                ends[2] = end;
            }
        }
        if rows >= fixed_rows.min(all) && ends[0].is_some() && ends[1].is_some() {
            break;
        }
    }
    ends
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rollouts of each kind, seeds from {}; alpha {}; the fixed test looks once, at {} rows; {:.0} s\n",
            self.rollouts, self.seed, self.alpha, self.fixed_rows, self.seconds
        )?;
        writeln!(
            f,
            "{:44} {:>30}   {:>30}   {:>20}",
            "", "controller, every look", "z-test at every look", "z-test, one look"
        )?;
        writeln!(
            f,
            "{:44} {:>9} {:>9} {:>10}   {:>9} {:>9} {:>10}   {:>9} {:>10}",
            "", "promoted", "back", "mean rows", "better", "worse", "mean rows", "better", "worse"
        )?;
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        for kind in &self.kinds {
            let Kind { controller, peeking, fixed, .. } = kind;
            writeln!(
                f,
                "{:44} {:>9} {:>9} {:>10.0}   {:>9} {:>9} {:>10.0}   {:>9} {:>10}",
                kind.name,
                percent(controller.promoted),
                percent(controller.rolled_back),
                controller.mean_rows,
                percent(peeking.promoted),
                percent(peeking.rolled_back),
                peeking.mean_rows,
                percent(fixed.promoted),
                percent(fixed.rolled_back),
            )?;
        }
        writeln!(f)?;
        for kind in self.kinds.iter().filter(|kind| !kind.equal) {
            let rows = |rows: Option<u64>| rows.map_or("no rows".to_owned(), |rows| format!("{rows} rows"));
            writeln!(
                f,
                "{}: 80 % ended by {}, half of those that ended by {}",
                kind.name,
                rows(kind.controller.rows_of_80_percent),
                rows(kind.controller.median_rows)
            )?;
        }
        let independent = self.kinds.iter().filter(|kind| !kind.name.starts_with(' '));
        let most = independent.map(|kind| kind.controller.by_guard).fold(0.0, f64::max);
        writeln!(f, "of independent rows, guards took back at most {} (sample ratio, at 0.001)", percent(most))?;
        write!(f, "false promotions are {} {}", if self.promise_kept { "within" } else { "ABOVE" }, percent(self.alpha))
    }
}
