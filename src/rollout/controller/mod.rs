//! Decides how a rollout goes on: shadow, steps, promotion, or back.
//!
//! A pure state machine on the job's clock. It is told what was routed, which losses have become known or no longer hold, and
//! which commands took effect; asked to [`Controller::decide`], it answers with a numbered [`Decision`]. A decision changes nothing until its
//! command comes back through the tick log ([`Controller::applied`]); until then it is *pending* and no other is made, so a replay
//! makes the same decisions under the same numbers.
//!
//! **Rules**, in this order. A guard that is hurt rolls back, at once and in every phase. While the rollout is held nothing else
//! happens. Losses that are certainly more than `margin` higher roll back. Then, by phase: shadow goes on after its time; a
//! canary goes on to the next share after `hold`; rows with all shares the challenger's are promoted after `hold` or `keep`;
//! and whatever ends with the challenger alone (promotion, a share of all rows) needs losses that are certainly less than
//! `margin` higher. What needs losses waits until each version has `min_rows` labelled rows, and until labels have come since
//! the last step: *missing data holds*. After `max` without an end the rollout times out.
//!
//! **State** is sums: its size does not grow with rows. All sums are exact, so a decision does not depend on the order in which
//! rows are told between two of them, and a label that is corrected takes its loss away without trace.

mod saved;
#[cfg(test)]
mod tests;
mod verdict;

use serde::{Deserialize, Serialize};

use super::command::{Action, End, Exposure, Guarded};
use super::guard::{Routed, ScoreMoments, Seen, look};
use super::stat::compare::{Difference, Pairs, two_sample};
use super::stat::moments::Sample;
use super::stat::sequence::Sequence;
use crate::base::{EventTime, format_duration};
use crate::plan::model::{OnTimeout, RolloutPlan, SHARE_ALL, Share, Strategy};

pub use saved::SavedError;

/// Who scored a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arm {
    /// The champion.
    Champion,
    /// The challenger.
    Challenger,
}

impl Arm {
    fn index(self) -> usize {
        match self {
            Arm::Champion => 0,
            Arm::Challenger => 1,
        }
    }
}

/// A row's loss has become known, or no longer holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Time of the row.
    pub time: EventTime,
    /// Since when it is known.
    pub due: EventTime,
    /// Whose score was published.
    pub arm: Arm,
    /// Loss of the published score.
    pub loss: f64,
    /// Loss of the challenger's score in shadow.
    pub shadow_loss: Option<f64>,
    /// Whether it no longer holds: the label was corrected or withdrawn. Told with the values with which it was told before.
    pub retract: bool,
}

/// A fact of the wall clock, as recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fact {
    /// What was measured.
    pub what: Guarded,
    /// Its value.
    pub value: f64,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Both versions score every row.
    Shadow,
    /// The challenger scores a share that grows.
    Canary(Share),
    /// The challenger scores a share.
    Ab(Share),
    /// The challenger scores all rows, the champion is kept.
    Switched,
    /// The challenger is champion.
    Promoted,
    /// The champion has stayed.
    RolledBack,
}

impl Phase {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Shadow => "shadow",
            Phase::Canary(_) => "canary",
            Phase::Ab(_) => "ab",
            Phase::Switched => "switched",
            Phase::Promoted => "promoted",
            Phase::RolledBack => "rolled_back",
        }
    }

    /// The challenger's share of the rows.
    pub fn share(self) -> Share {
        match self {
            Phase::Shadow | Phase::RolledBack => 0,
            Phase::Canary(share) | Phase::Ab(share) => share,
            Phase::Switched | Phase::Promoted => SHARE_ALL,
        }
    }
}

/// All numbers behind a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Mean loss of the challenger less that of the champion; below 0 the challenger is better.
    pub lift: Option<f64>,
    /// Lower end of its interval, which holds at every look.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// p-value, at every look, of the hypothesis that the challenger's loss is just `margin` higher.
    pub p_value: Option<f64>,
    /// Whether the losses compare the same rows, in shadow, instead of the rows of each.
    pub paired: bool,
    /// Rows routed to champion and challenger.
    pub rows: [u64; 2],
    /// Rows whose losses are known.
    pub labelled: [u64; 2],
    /// Mean losses.
    pub losses: [Option<f64>; 2],
    /// What the guards see.
    pub guards: Seen,
}

/// How the rollout is to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Number within the rollout, from 1.
    pub seq: u64,
    /// What is to be done.
    pub action: Action,
    /// Why, in words.
    pub why: String,
    /// When it was made, on the job's clock.
    pub at: EventTime,
    /// Where the rollout stood.
    pub phase: Phase,
    /// All numbers.
    pub numbers: Numbers,
}

/// A time with one share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stratum {
    /// Rows from here on belong to it.
    from: EventTime,
    share: Share,
    routed: Routed,
    losses: [Sample; 2],
}

impl Stratum {
    fn new(from: EventTime, share: Share) -> Stratum {
        Stratum { from, share, routed: Routed::default(), losses: Default::default() }
    }
}

/// The controller of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Controller {
    policy: RolloutPlan,
    id: String,
    /// Since when the time until `max` counts: the beginning, or the last `resume`.
    counted_from: EventTime,
    exposure: Exposure,
    /// When the present share came into force.
    entered: EventTime,
    /// Number of the next decision.
    next: u64,
    /// What was decided and has not taken effect, as its number and its action.
    pending: Option<(u64, Action)>,
    /// By time.
    strata: Vec<Stratum>,
    pairs: Pairs,
    /// Latest time of a row whose loss was told.
    latest: EventTime,
    /// Losses of the challenger that have become known since the present share is in force.
    fresh: i64,
    latency: Option<f64>,
}

impl Controller {
    /// A rollout that begins now.
    pub fn new(policy: RolloutPlan, id: String, begun: EventTime) -> Controller {
        let exposure = Exposure::first(&policy);
        Controller {
            id,
            counted_from: begun,
            entered: begun,
            next: 1,
            pending: None,
            strata: vec![Stratum::new(begun, exposure.share)],
            pairs: Pairs::default(),
            latest: EventTime::MIN,
            fresh: 0,
            latency: None,
            exposure,
            policy,
        }
    }

    /// The rollout's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its policy.
    pub fn policy(&self) -> &RolloutPlan {
        &self.policy
    }

    /// Who scores which rows.
    pub fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    /// A loss has become known, or no longer holds. Rows from before the rollout are passed over.
    pub fn observe(&mut self, outcome: &Outcome) {
        self.observe_in(outcome, None);
    }

    /// The same for rows that are assigned by a column: `group` is the key's, below [`super::guard::GROUPS`], of which the lowest are
    /// the challenger's. Rows of a group are then not taken for independent.
    pub fn observe_in(&mut self, outcome: &Outcome, group: Option<u16>) {
        let times = if outcome.retract { -1 } else { 1 };
        let Some(stratum) = self.strata.iter_mut().rfind(|stratum| stratum.from <= outcome.time) else { return };
        self.latest = self.latest.max(outcome.time);
        if let Some(shadow) = outcome.shadow_loss {
            self.pairs.add(outcome.loss, shadow, group, times);
            self.fresh += times;
        } else if stratum.share > 0 {
            stratum.losses[outcome.arm.index()].add(outcome.loss, group, times);
            if outcome.arm == Arm::Challenger {
                self.fresh += times;
            }
        }
    }

    /// Rows that were routed to a version in a tick, `errors` of which could not be scored, and the scores of the others. In shadow the
    /// challenger has no rows, but scores and errors.
    pub fn assigned(&mut self, arm: Arm, rows: u64, scores: &ScoreMoments, errors: u64) {
        if let Some(stratum) = self.strata.last_mut() {
            let arm = arm.index();
            stratum.routed.rows[arm] += rows;
            stratum.routed.errors[arm] += errors;
            stratum.routed.scores[arm].merge(scores);
        }
    }

    /// Rows of a group, besides [`Controller::assigned`], where rows are assigned by a column.
    pub fn assigned_group(&mut self, group: u16, rows: u64) {
        if let Some(stratum) = self.strata.last_mut() {
            *stratum.routed.groups.entry(group).or_default() += rows;
        }
    }

    /// A recorded fact of the wall clock.
    pub fn fact(&mut self, fact: &Fact) {
        match fact.what {
            Guarded::LatencyP99Ms => self.latency = Some(fact.value),
        }
    }

    /// What is to be done at this time, if anything. Whoever asks sees to it that the command comes back, once.
    pub fn decide(&mut self, now: EventTime) -> Option<Decision> {
        if self.pending.is_some() || self.exposure.end.is_some() {
            return None;
        }
        let (seen, hurt) = self.guards();
        let (action, why) = self.verdict(now, hurt)?;
        let numbers = self.numbers_with(seen);
        let decision = Decision { seq: self.next, action, why, at: now, phase: self.state(), numbers };
        self.next += 1;
        self.pending = Some((decision.seq, decision.action.clone()));
        Some(decision)
    }

    /// The decision that has not taken effect: after a restart its command is to be given again, under this number.
    pub fn pending(&self) -> Option<(u64, &Action)> {
        self.pending.as_ref().map(|(seq, action)| (*seq, action))
    }

    /// The command of the pending decision has come back through the tick log and takes effect for rows from `at` on. False where
    /// it changes nothing.
    pub fn applied(&mut self, seq: u64, at: EventTime) -> bool {
        match self.pending.clone() {
            Some((pending, action)) if pending == seq => self.command(&action, Some(seq), at),
            _ => false,
        }
    }

    /// A command has come through the tick log: a decision's, by its number, or one given by hand. False where it comes too late.
    pub fn command(&mut self, action: &Action, seq: Option<u64>, at: EventTime) -> bool {
        if let Some(seq) = seq {
            self.next = self.next.max(seq + 1);
            self.pending.take_if(|(pending, _)| *pending <= seq);
        }
        if let Action::Guard { what, value } = action {
            self.fact(&Fact { what: *what, value: *value });
        }
        let before = self.exposure.clone();
        if !self.exposure.apply(action, seq.is_some()) {
            return false;
        }
        match action {
            Action::Resume => self.counted_from = at,
            Action::Step { .. } if (before.shadow, before.share) != (self.exposure.shadow, self.exposure.share) => {
                self.entered = at;
                self.fresh = 0;
                // A row whose loss was told stays where it was counted.
                let from = at.max(self.latest.saturating_add(1));
                self.strata.push(Stratum::new(from, self.exposure.share));
            }
            _ => {}
        }
        true
    }

    /// Where the rollout stands.
    pub fn state(&self) -> Phase {
        match (self.exposure.end, self.exposure.shadow, self.exposure.share) {
            (Some(End::Promoted), ..) => Phase::Promoted,
            (Some(End::RolledBack), ..) => Phase::RolledBack,
            (None, true, _) => Phase::Shadow,
            (None, false, SHARE_ALL) => Phase::Switched,
            (None, false, share) => match self.policy.strategy {
                Strategy::Ab { .. } => Phase::Ab(share),
                Strategy::Canary { .. } | Strategy::BlueGreen { .. } => Phase::Canary(share),
            },
        }
    }

    /// All numbers as they are now.
    pub fn numbers(&self) -> Numbers {
        self.numbers_with(self.guards().0)
    }
}
