//! The rules.

use super::*;

/// A comparison with its interval.
pub(super) struct Evidence {
    pub difference: Difference,
    interval: Option<(f64, f64)>,
    /// Whether there are enough rows to decide by it.
    enough: bool,
    paired: bool,
}

impl Evidence {
    /// Certainly more than `margin` higher.
    fn worse(&self, margin: f64) -> bool {
        self.enough && self.interval.is_some_and(|(low, _)| low > margin)
    }

    /// Certainly less than `margin` higher.
    fn fit(&self, margin: f64) -> bool {
        self.enough && self.interval.is_some_and(|(_, high)| high < margin)
    }
}

impl Controller {
    /// The sequence of the comparison of means, or of pairs. Half of the labelled rows are each version's, so that they are worth a
    /// quarter of their number; a pair is worth two rows.
    fn sequence(&self, paired: bool) -> Sequence {
        let rows = self.policy.expect_rows as f64;
        Sequence::tuned(self.policy.alpha, if paired { rows / 2.0 } else { rows / 4.0 })
    }

    fn evidence(&self, difference: Option<Difference>, paired: bool) -> Option<Evidence> {
        let difference = difference?;
        let interval = difference.interval(&self.sequence(paired));
        let enough = difference.rows.iter().all(|rows| *rows >= self.policy.min_rows.cast_signed());
        Some(Evidence { difference, interval, enough, paired })
    }

    /// Of rows in shadow.
    fn shadowed(&self) -> Option<Evidence> {
        self.evidence(self.pairs.difference(), true)
    }

    /// Of rows that were split.
    fn split(&self) -> Option<Evidence> {
        self.evidence(two_sample(self.strata.iter().map(|stratum| &stratum.losses)), false)
    }

    /// What the guards see, and what hurts one.
    pub(super) fn guards(&self) -> (Seen, Option<String>) {
        let routed: Vec<(Share, &Routed)> =
            self.strata.iter().map(|stratum| (stratum.share, &stratum.routed)).collect();
        look(&routed, self.latency, &self.policy)
    }

    /// All numbers.
    pub(super) fn numbers_with(&self, guards: Seen) -> Numbers {
        let mut numbers = Numbers { guards, ..Numbers::default() };
        for stratum in &self.strata {
            for arm in 0..2 {
                numbers.rows[arm] += stratum.routed.rows[arm];
            }
        }
        // Where nothing is split the rows in shadow are what decides.
        let paired = self.exposure.shadow || matches!(self.policy.strategy, Strategy::BlueGreen { .. });
        let labelled = |rows: i64| rows.max(0).cast_unsigned();
        numbers.paired = paired;
        numbers.labelled = match paired {
            true => [labelled(self.pairs.rows()); 2],
            false => [0, 1].map(|arm| labelled(self.strata.iter().map(|s| s.losses[arm].rows()).sum())),
        };
        if let Some(evidence) = if paired { self.shadowed() } else { self.split() } {
            let difference = &evidence.difference;
            numbers.lift = Some(difference.lift);
            (numbers.low, numbers.high) = evidence.interval.unzip();
            numbers.p_value = difference.p_value(&self.sequence(paired), self.policy.margin);
            numbers.losses = difference.losses.map(Some);
        }
        numbers
    }

    pub(super) fn verdict(&self, now: EventTime, hurt: Option<String>) -> Option<(Action, String)> {
        if let Some(why) = hurt {
            return Some(back(why));
        }
        if self.exposure.held {
            return None;
        }
        let margin = self.policy.margin;
        let (shadowed, split) = (self.shadowed(), self.split());
        for evidence in [&shadowed, &split].into_iter().flatten() {
            if evidence.worse(margin) {
                return Some(back(format!("the challenger is worse: {}", self.told(evidence))));
            }
        }
        let lasted = now.saturating_sub(self.entered);
        let fit = |evidence: &Option<Evidence>| evidence.as_ref().is_some_and(|evidence| evidence.fit(margin));
        let shown = |evidence: &Option<Evidence>| match evidence {
            Some(evidence) => self.told(evidence),
            None => "there are no losses yet".to_owned(),
        };
        let step = |share: Share, why: String| Some((Action::Step { share }, why));
        let onward = match (&self.policy.strategy, self.state()) {
            (_, Phase::Promoted | Phase::RolledBack) => None,
            (strategy, Phase::Shadow) => {
                let alone = matches!(strategy, Strategy::BlueGreen { .. });
                let enough = shadowed.as_ref().is_some_and(|evidence| evidence.enough);
                let ready = lasted >= self.policy.shadow && self.fresh > 0 && enough && (!alone || fit(&shadowed));
                let words =
                    if alone { "in shadow the challenger was fit" } else { "in shadow the challenger did no harm" };
                let share = super::super::command::first_share(strategy);
                ready.then(|| step(share, format!("{words}: {}", shown(&shadowed)))).flatten()
            }
            (Strategy::Canary { steps, hold }, Phase::Canary(share)) if lasted >= *hold && self.fresh > 0 => {
                let next = steps.iter().find(|step| **step > share);
                let enough = split.as_ref().is_some_and(|evidence| evidence.enough);
                match next {
                    Some(next) if *next < SHARE_ALL && enough => {
                        step(*next, format!("held for {} without harm: {}", format_duration(*hold), shown(&split)))
                    }
                    Some(next) if *next == SHARE_ALL && fit(&split) => {
                        step(*next, format!("the challenger is fit: {}", shown(&split)))
                    }
                    None if fit(&split) => Some((Action::Promote, format!("the challenger is fit: {}", shown(&split)))),
                    _ => None,
                }
            }
            (Strategy::Canary { hold, .. }, Phase::Switched) if lasted >= *hold => {
                let why = format!("all rows for {} without harm: {}", format_duration(*hold), shown(&split));
                Some((Action::Promote, why))
            }
            (Strategy::BlueGreen { keep }, Phase::Switched) if lasted >= *keep => {
                Some((Action::Promote, format!("all rows for {} without harm", format_duration(*keep))))
            }
            (Strategy::Ab { .. }, Phase::Ab(_) | Phase::Switched) if fit(&split) => {
                Some((Action::Promote, format!("the challenger is fit: {}", shown(&split))))
            }
            _ => None,
        };
        // Whoever has all rows waits for the end of a time, not for evidence.
        let waits = self.state() != Phase::Switched || matches!(self.policy.strategy, Strategy::Ab { .. });
        onward.or_else(|| {
            (waits && now.saturating_sub(self.counted_from) >= self.policy.max).then(|| {
                let evidence = if self.exposure.shadow { &shadowed } else { &split };
                let why = format!("nothing decided in {}: {}", format_duration(self.policy.max), shown(evidence));
                match self.policy.on_timeout {
                    OnTimeout::RollBack => back(why),
                    OnTimeout::Hold => (Action::Hold, why),
                }
            })
        })
    }

    fn told(&self, evidence: &Evidence) -> String {
        let Difference { lift, losses: [champion, challenger], rows, .. } = &evidence.difference;
        let of = match rows {
            [pairs, _] if evidence.paired => format!("{pairs} rows"),
            [champion, challenger] => format!("{champion} and {challenger} rows"),
        };
        let interval = match evidence.interval {
            Some((low, high)) => format!(", between {low:+.6} and {high:+.6}"),
            None => String::new(),
        };
        let metric = self.policy.metric.name();
        format!("{metric} {champion:.6} and {challenger:.6} in {of}, difference {lift:+.6}{interval}")
    }
}

fn back(why: String) -> (Action, String) {
    (Action::RollBack { why: why.clone() }, why)
}
