//! What takes a challenger back at once: errors, scores that are elsewhere, shares that are not kept, latency.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stat::moments::Moments;
use super::stat::ratio;
use super::stat::sequence::Sequence;
use crate::plan::model::{RolloutPlan, SHARE_ALL, Share};

/// Groups into which keys are hashed where rows are assigned by a column: as many as there are shares.
pub const GROUPS: u16 = SHARE_ALL;

/// Rows by which the prior of a share is strong: a share is expected to be off by some
/// `sqrt(share (1 − share) / CONCENTRATION)` if it is.
const CONCENTRATION: f64 = 1_000.0;
/// The same of the share of errors.
const ERROR_CONCENTRATION: f64 = 100.0;
/// Rows of each version before scores are compared.
const SCORES_MIN: i64 = 100;
/// Groups of each version before their rows are compared.
const GROUPS_MIN: u16 = 30;

/// Scores of rows, for the comparison of their distribution.
pub type ScoreMoments = Moments;

/// Rows that were routed while one share was in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// Rows of champion and challenger.
    pub rows: [u64; 2],
    /// Those that could not be scored.
    pub errors: [u64; 2],
    /// Scores.
    pub scores: [Moments; 2],
    /// Rows by group, where rows are assigned by a column.
    pub groups: BTreeMap<u16, u64>,
}

impl Routed {
    /// Evidence (a logarithm) that the challenger's part of the rows is not `share`.
    ///
    /// Where rows are assigned in groups, their numbers vary with the groups' sizes, and what should be equal are the mean rows
    /// per group: their difference is looked at with the variance between groups.
    fn ratio(&self, share: Share, plan: &RolloutPlan) -> f64 {
        if share == 0 || share >= SHARE_ALL {
            return 0.0;
        }
        let part = f64::from(share) / f64::from(SHARE_ALL);
        if plan.by.is_none() {
            return ratio::evidence(self.rows, part, CONCENTRATION);
        }
        let of = [GROUPS - share, share];
        if of[0].min(of[1]) < GROUPS_MIN || self.groups.is_empty() {
            return 0.0;
        }
        let mean = |arm: usize| {
            let inside = |group: &u16| (*group < share) == (arm == 1);
            let (mut rows, mut squares) = (0.0, 0.0);
            for (_, n) in self.groups.iter().filter(|(group, _)| inside(group)) {
                rows += *n as f64;
                squares += (*n as f64).powi(2);
            }
            let groups = f64::from(of[arm]);
            let variance = (squares - rows * rows / groups).max(0.0) / (groups - 1.0);
            (rows, rows / groups, variance / groups)
        };
        let ((rows0, mean0, v0), (rows1, mean1, v1)) = (mean(0), mean(1));
        if v0 + v1 <= 0.0 {
            return 0.0;
        }
        let sequence = Sequence::tuned(plan.guard.sample_ratio_alpha, plan.expect_rows as f64 * part * (1.0 - part));
        let z = (mean1 - mean0) / (v0 + v1).sqrt();
        -sequence.p_value(z, (rows0 + rows1) * part * (1.0 - part)).ln()
    }
}

/// What the guards see.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// p-value, at every look, of the shares.
    pub sample_ratio_p: Option<f64>,
    /// Distance of the challenger's mean score from the champion's in the champion's standard deviations.
    pub score_shift: Option<f64>,
    /// Share of the challenger's rows that could not be scored.
    pub error_rate: Option<f64>,
    /// 99th percentile of latency in milliseconds, as last reported.
    pub latency_p99_ms: Option<f64>,
}

/// Looks at all that was routed, share by share; what hurts is told in words.
pub fn look(strata: &[(Share, &Routed)], latency: Option<f64>, plan: &RolloutPlan) -> (Seen, Option<String>) {
    let mut seen = Seen { latency_p99_ms: latency, ..Seen::default() };
    let mut hurt = None;
    let guard = &plan.guard;
    if let (Some(most), Some(p99)) = (guard.latency_p99_ms, latency)
        && p99 > most
    {
        hurt = Some(format!("the 99th percentile of latency is {p99:.1} ms, more than {most} ms"));
    }

    let rows: u64 = strata.iter().map(|(_, routed)| routed.rows[1].max(routed.scores[1].rows().max(0) as u64)).sum();
    let errors: u64 = strata.iter().map(|(_, routed)| routed.errors[1]).sum();
    let tried = rows.max(errors);
    if tried > 0 {
        let rate = errors as f64 / tried as f64;
        seen.error_rate = Some(rate);
        if let Some(most) = guard.error_rate
            && rate > most
            && ratio::evidence([tried - errors, errors], most, ERROR_CONCENTRATION) >= -plan.alpha.ln()
        {
            hurt = hurt.or(Some(format!(
                "{errors} of {tried} rows could not be scored by the challenger, beyond doubt more than {most} of them"
            )));
        }
    }

    if let Some((shift, least)) = shift(strata, plan) {
        seen.score_shift = Some(shift);
        if let Some(most) = guard.score_shift_sd
            && least > most
        {
            hurt = hurt.or(Some(format!(
                "the challenger's scores are {shift:+.2} standard deviations away from the champion's, beyond doubt more than {most}"
            )));
        }
    }

    if guard.sample_ratio_alpha > 0.0 && strata.iter().any(|(share, _)| (1..SHARE_ALL).contains(share)) {
        let evidence: f64 = strata.iter().map(|(share, routed)| routed.ratio(*share, plan)).sum();
        let p = (-evidence).exp().min(1.0);
        seen.sample_ratio_p = Some(p);
        if p <= guard.sample_ratio_alpha {
            hurt = hurt.or(Some(format!(
                "the versions do not get the shares of rows that they should (p = {p:.2e}), so that what they are compared by is not to be trusted"
            )));
        }
    }
    (seen, hurt)
}

/// How far the challenger's mean score is from the champion's in standard deviations, and how far it is at the least.
///
/// Scores are compared within a share, as losses are. Where all rows are the challenger's they are compared with all of the
/// champion's before.
fn shift(strata: &[(Share, &Routed)], plan: &RolloutPlan) -> Option<(f64, f64)> {
    let mut champion = Moments::default();
    let (mut weights, mut sum, mut error) = (0.0, 0.0, 0.0);
    for (share, routed) in strata {
        let [own, other] = &routed.scores;
        champion.merge(own);
        let against = if *share == SHARE_ALL { &champion } else { own };
        let (Some(m0), Some(v0), Some(m1), Some(v1)) =
            (against.mean(), against.variance(), other.mean(), other.variance())
        else {
            continue;
        };
        let (n0, n1) = (against.rows() as f64, other.rows() as f64);
        if against.rows() < SCORES_MIN || other.rows() < SCORES_MIN {
            continue;
        }
        let weight = n0 * n1 / (n0 + n1);
        weights += weight;
        sum += weight * (m1 - m0);
        error += weight * weight * (v0 / n0 + v1 / n1);
    }
    let deviation = champion.variance()?.sqrt();
    if weights <= 0.0 || deviation <= 0.0 {
        return None;
    }
    let sequence = Sequence::tuned(plan.alpha, plan.expect_rows as f64 / 4.0);
    let (shift, reach) = (sum / weights, sequence.reach(weights) * error.sqrt() / weights);
    Some((shift / deviation, (shift.abs() - reach) / deviation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SplitMix64;
    use crate::plan::model::{ByPlan, GuardPlan, Loss, OnTimeout, Strategy};

    fn plan(guard: GuardPlan) -> RolloutPlan {
        RolloutPlan {
            shadow: 0,
            strategy: Strategy::Ab { share: 500 },
            by: None,
            metric: Loss::LogLoss,
            alpha: 0.05,
            margin: 0.0,
            min_rows: 100,
            expect_rows: 20_000,
            max: 1,
            on_timeout: OnTimeout::Hold,
            guard,
        }
    }

    const NONE: GuardPlan =
        GuardPlan { latency_p99_ms: None, error_rate: None, score_shift_sd: None, sample_ratio_alpha: 0.0 };

    /// The first of `ticks` looks, with 100 rows more each, that hurts.
    fn first_hurt(plan: &RolloutPlan, ticks: usize, mut tick: impl FnMut(&mut Routed)) -> Option<(usize, String)> {
        let mut routed = Routed::default();
        (0..ticks).find_map(|i| {
            tick(&mut routed);
            look(&[(500, &routed)], None, plan).1.map(|why| (i, why))
        })
    }

    #[test]
    fn shares_that_are_not_kept() {
        let plan = plan(GuardPlan { sample_ratio_alpha: 0.01, ..NONE });
        let run = |seed: u64, share: f64, ticks| {
            let mut random = SplitMix64::new(seed);
            first_hurt(&plan, ticks, |routed| {
                (0..100).for_each(|_| routed.rows[usize::from(random.unit() < share)] += 1);
            })
        };
        let false_alarms = (0..300).filter(|seed| run(*seed, 0.05, 200).is_some()).count();
        assert!(false_alarms <= 7, "{false_alarms} of 300 at 0.01");
        let found = (0..50).filter(|seed| run(*seed, 0.04, 200).is_some()).count();
        assert!(found >= 45, "{found} of 50");
    }

    #[test]
    fn customers_have_many_rows() {
        // 300 groups in use, each with its own appetite: rows are far from multinomial.
        let by = Some(ByPlan { column: "customer_id".into(), text: false });
        let plan = RolloutPlan { by, ..plan(GuardPlan { sample_ratio_alpha: 0.01, ..NONE }) };
        let rows = RolloutPlan { by: None, ..plan.clone() };
        let run = |plan: &RolloutPlan, seed: u64, lost: f64| {
            let mut random = SplitMix64::new(seed);
            let groups: Vec<(u16, u64)> =
                (0..3_000).map(|_| (random.below(10_000) as u16, 1 + random.below(30) * random.below(2))).collect();
            first_hurt(plan, 100, |routed| {
                for (group, rows) in &groups {
                    let challenger = *group < 500;
                    if !challenger || random.unit() >= lost {
                        routed.rows[usize::from(challenger)] += rows;
                        *routed.groups.entry(*group).or_default() += rows;
                    }
                }
            })
            .is_some()
        };
        let alarms = |plan: &RolloutPlan, lost| (0..60).filter(|seed| run(plan, *seed, lost)).count();
        assert!(alarms(&plan, 0.0) <= 3, "{} of 60", alarms(&plan, 0.0));
        assert!(alarms(&rows, 0.0) >= 30, "taken for independent they would alarm");
        assert!(alarms(&plan, 0.6) >= 45, "six of ten rows lost: {}", alarms(&plan, 0.6));
    }

    #[test]
    fn rows_of_groups_by_two_passes() {
        let by = Some(ByPlan { column: "customer_id".into(), text: false });
        let plan = RolloutPlan { by, ..plan(GuardPlan { sample_ratio_alpha: 0.01, ..NONE }) };
        let of = |group: u16| if group < 500 { u64::from(group % 3) } else { u64::from(group % 4) };
        let mut routed = Routed::default();
        let mut counts = [Vec::new(), Vec::new()];
        for group in 0..GROUPS {
            counts[usize::from(group < 500)].push(of(group) as f64);
            if of(group) > 0 {
                routed.groups.insert(group, of(group));
            }
        }
        let [(mean0, v0), (mean1, v1)] = counts.clone().map(|counts| {
            let n = counts.len() as f64;
            let mean = counts.iter().sum::<f64>() / n;
            (mean, counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
        });
        let rows: f64 = counts.iter().flatten().sum();
        let sequence = Sequence::tuned(0.01, 20_000.0 * 0.05 * 0.95);
        let expected = sequence.p_value((mean1 - mean0) / (v0 + v1).sqrt(), rows * 0.05 * 0.95);
        let found = look(&[(500, &routed)], None, &plan).0.sample_ratio_p.unwrap();
        assert!((found / expected - 1.0).abs() < 1e-6 && found < 1e-6, "{found} {expected}");
    }

    #[test]
    fn errors_beyond_doubt() {
        let plan = plan(GuardPlan { error_rate: Some(0.01), ..NONE });
        let run = |seed: u64, rate: f64| {
            let mut random = SplitMix64::new(seed);
            first_hurt(&plan, 100, |routed| {
                for _ in 0..100 {
                    routed.rows[1] += 1;
                    routed.errors[1] += u64::from(random.unit() < rate);
                }
            })
        };
        for (rate, allowed) in [(0.01, 0..=15), (0.005, 0..=3), (0.02, 95..=100)] {
            let hurt = (0..100).filter(|seed| run(*seed, rate).is_some()).count();
            assert!(allowed.contains(&hurt), "at {rate}: {hurt} of 100");
        }
        let none = RolloutPlan { guard: GuardPlan { error_rate: Some(0.0), ..NONE }, ..plan };
        let routed = Routed { rows: [100, 100], errors: [0, 1], ..Routed::default() };
        assert!(look(&[(500, &routed)], None, &none).1.is_some_and(|why| why.contains("1 of 100")));
    }

    #[test]
    fn scores_that_are_elsewhere() {
        let plan = plan(GuardPlan { score_shift_sd: Some(0.5), ..NONE });
        let run = |shift: f64| {
            let mut random = SplitMix64::new(3);
            first_hurt(&plan, 200, |routed| {
                for _ in 0..100 {
                    let challenger = random.unit() < 0.05;
                    // Uniform on a length of the root of 12: the deviation is 1.
                    let score = 12f64.sqrt() * random.unit() + if challenger { shift } else { 0.0 };
                    routed.scores[usize::from(challenger)].add(score, 1);
                }
            })
        };
        assert_eq!((run(0.0), run(0.45)), (None, None));
        for shift in [0.8, -0.8] {
            let (at, why) = run(shift).unwrap();
            assert!(at > 18 && why.contains("standard deviations"), "{at} {why}");
        }
        // All rows the challenger's: against what the champion scored before.
        let mut before = Routed::default();
        let mut after = Routed::default();
        for i in 0..1_000 {
            before.scores[0].add(f64::from(i % 10), 1);
            after.scores[1].add(f64::from(i % 10) + 4.0, 1);
        }
        let strata = [(0, &before), (SHARE_ALL, &after)];
        let (seen, hurt) = look(&strata, None, &plan);
        assert!(hurt.is_some() && (1.3..1.5).contains(&seen.score_shift.unwrap()), "{seen:?}");
    }
}
