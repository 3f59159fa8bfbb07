//! Which version scores which rows, from one command to the next.
//!
//! Every worker has the routes of every model and carries out the same commands in the same order, so all have the same. The
//! state is what a restart goes on with, whatever a registry says by then.

use serde::{Deserialize, Serialize};

use super::command::{Action, End, Exposure, VersionRef};
use super::controller::Phase;
use super::order::{Do, Order};
use crate::plan::model::{RolloutPlan, SHARE_ALL, Strategy};

/// The routes of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    /// The version that scores what nobody else does; none until one was [pinned](Do::Pin).
    pub champion: Option<VersionRef>,
    /// The version that the job's file named when the champion was pinned.
    pub first: Option<VersionRef>,
    /// Rollouts so far.
    pub serial: u32,
    /// The last entry of the registry's history that was followed.
    pub entry: u64,
    /// What is under way.
    pub rollout: Option<Underway>,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Underway {
    /// Its name.
    pub id: String,
    /// The version that comes in.
    pub challenger: VersionRef,
    /// How.
    pub policy: Box<RolloutPlan>,
    /// How far.
    pub exposure: Exposure,
}

/// What an order has done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing: it came too late, or twice.
    None,
    /// The champion is known.
    Pinned,
    /// A rollout has begun, in the place of another if there was one.
    Began(Option<Underway>),
    /// The share has changed.
    Stepped,
    /// The challenger of this rollout has become the champion in this one's place.
    Promoted(Underway, Option<VersionRef>),
    /// This rollout is over, and the champion stays.
    RolledBack(Underway),
    /// The champion was replaced by hand, and this rollout is over if there was one.
    Switched(Option<VersionRef>, Option<Underway>),
    /// It concerns decisions, and no routes.
    Decisions,
}

impl Underway {
    /// Begins with what the policy begins with.
    pub fn new(id: String, challenger: VersionRef, policy: Box<RolloutPlan>) -> Underway {
        Underway { exposure: Exposure::first(&policy), id, challenger, policy }
    }

    /// Where it stands, as [`Phase`].
    pub fn phase(&self) -> Phase {
        match (self.exposure.end, self.exposure.shadow, self.exposure.share, &self.policy.strategy) {
            (Some(End::Promoted), ..) => Phase::Promoted,
            (Some(End::RolledBack), ..) => Phase::RolledBack,
            (None, true, ..) => Phase::Shadow,
            (None, false, SHARE_ALL, _) => Phase::Switched,
            (None, false, share, Strategy::Ab { .. }) => Phase::Ab(share),
            (None, false, share, _) => Phase::Canary(share),
        }
    }

    /// What rows of champion and challenger have in their column `route`.
    pub fn names(&self) -> [&'static str; 2] {
        match (self.exposure.shadow, &self.policy.strategy) {
            (true, _) => ["champion", "champion"],
            (false, Strategy::Canary { .. }) => ["champion", "canary"],
            (false, Strategy::Ab { .. }) => ["champion", "ab"],
            (false, Strategy::BlueGreen { .. }) => ["blue", "green"],
        }
    }
}

impl Routes {
    /// Carries out an order.
    pub fn apply(&mut self, order: &Order) -> Effect {
        if let Do::Pin { champion } = &order.action {
            if self.first.as_ref() == Some(champion) {
                return Effect::None;
            }
            self.first = Some(champion.clone());
            self.entry = self.entry.max(order.entry.unwrap_or(0));
            return match self.champion.replace(champion.clone()) {
                None => Effect::Pinned,
                // Another version in the job's file is a change of the job.
                was => Effect::Switched(was, self.rollout.take()),
            };
        }
        if let Some(entry) = order.entry {
            if entry <= self.entry {
                return Effect::None;
            }
            self.entry = entry;
        }
        match &order.action {
            Do::Pin { .. } => Effect::None,
            Do::Act(Action::Begin { challenger, policy }) => {
                let known = self.champion.as_ref() == Some(challenger)
                    || self.rollout.as_ref().is_some_and(|underway| underway.challenger == *challenger);
                if known {
                    return Effect::None;
                }
                self.serial += 1;
                let begun = Underway::new(order.id.clone(), challenger.clone(), policy.clone());
                Effect::Began(self.rollout.replace(begun))
            }
            Do::Act(action) => {
                let meant = |underway: &&mut Underway| order.id.is_empty() || underway.id == order.id;
                let Some(underway) = self.rollout.as_mut().filter(meant) else { return Effect::None };
                if !underway.exposure.apply(action, order.seq.is_some()) {
                    return Effect::None;
                }
                match (underway.exposure.end, action) {
                    (Some(End::Promoted), _) => self.rollout.take().map_or(Effect::None, |over| self.promote(over)),
                    (Some(End::RolledBack), _) => self.rollout.take().map_or(Effect::None, Effect::RolledBack),
                    (None, Action::Step { .. }) => Effect::Stepped,
                    (None, _) => Effect::Decisions,
                }
            }
            Do::Switch { to } => {
                let over = self.rollout.take_if(|underway| {
                    // Whoever makes the champion a champion ends nothing.
                    self.champion.as_ref() != Some(to) || underway.challenger == *to
                });
                match over {
                    Some(underway) if underway.challenger == *to => self.promote(underway),
                    over if self.champion.as_ref() != Some(to) => {
                        Effect::Switched(self.champion.replace(to.clone()), over)
                    }
                    _ => Effect::None,
                }
            }
        }
    }

    fn promote(&mut self, underway: Underway) -> Effect {
        let was = self.champion.replace(underway.challenger.clone());
        Effect::Promoted(underway, was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::model::{GuardPlan, Loss, OnTimeout};

    fn policy(shadow: i64, strategy: Strategy) -> Box<RolloutPlan> {
        Box::new(RolloutPlan {
            shadow,
            strategy,
            by: None,
            metric: Loss::LogLoss,
            alpha: 0.05,
            margin: 0.0,
            min_rows: 10,
            expect_rows: 100,
            max: 1_000,
            on_timeout: OnTimeout::RollBack,
            guard: GuardPlan {
                latency_p99_ms: None,
                error_rate: None,
                score_shift_sd: None,
                sample_ratio_alpha: 0.001,
            },
        })
    }

    fn version(number: u64) -> VersionRef {
        VersionRef { number, hash: format!("{number:064x}") }
    }

    fn order(id: &str, entry: Option<u64>, action: Do) -> Order {
        Order { model: "m".into(), id: id.into(), seq: None, entry, by: String::new(), why: String::new(), action }
    }

    fn begin(id: &str, number: u64, entry: u64) -> Order {
        let policy = policy(10, Strategy::Canary { steps: vec![500, 10_000], hold: 10 });
        order(id, Some(entry), Do::Act(Action::Begin { challenger: version(number), policy }))
    }

    fn pinned() -> Routes {
        let mut routes = Routes::default();
        assert_eq!(routes.apply(&order("", Some(4), Do::Pin { champion: version(1) })), Effect::Pinned);
        routes
    }

    #[test]
    fn from_shadow_to_promotion() {
        let mut routes = pinned();
        assert_eq!(routes.apply(&begin("5", 2, 5)), Effect::Began(None));
        assert_eq!(
            routes.rollout.as_ref().map(|r| (r.exposure.shadow, r.names())),
            Some((true, ["champion", "champion"]))
        );
        assert_eq!(routes.apply(&order("5", None, Do::Act(Action::Step { share: 500 }))), Effect::Stepped);
        assert_eq!(routes.rollout.as_ref().map(|r| (r.exposure.share, r.names())), Some((500, ["champion", "canary"])));
        assert_eq!(routes.apply(&order("5", None, Do::Act(Action::Hold))), Effect::Decisions);
        assert!(
            matches!(routes.apply(&order("5", None, Do::Act(Action::Promote))), Effect::Promoted(_, Some(was)) if was == version(1))
        );
        assert_eq!((routes.champion.clone(), routes.rollout.clone(), routes.serial), (Some(version(2)), None, 1));
        // What comes for a rollout that is over changes nothing.
        for late in [Action::Step { share: 1 }, Action::Promote, Action::Hold] {
            let before = routes.clone();
            assert_eq!(routes.apply(&order("5", None, Do::Act(late))), Effect::None);
            assert_eq!(routes, before);
        }
    }

    #[test]
    fn what_was_followed_is_not_followed_again() {
        let mut routes = pinned();
        assert_eq!(routes.apply(&begin("4", 2, 4)), Effect::None, "it is older than the champion's pin");
        assert_eq!(routes.apply(&begin("6", 2, 6)), Effect::Began(None));
        assert_eq!(routes.apply(&begin("6", 2, 6)), Effect::None);
        assert_eq!(routes.apply(&begin("7", 2, 7)), Effect::None, "the same challenger again");
        assert!(matches!(routes.apply(&begin("8", 3, 8)), Effect::Began(Some(over)) if over.id == "6"));
        assert_eq!(
            routes.apply(&order("6", None, Do::Act(Action::Promote))),
            Effect::None,
            "a decision of a rollout that was replaced"
        );
        assert!(
            matches!(routes.apply(&order("", Some(9), Do::Act(Action::RollBack { why: "by hand".into() }))), Effect::RolledBack(over) if over.id == "8")
        );
        assert_eq!((routes.champion, routes.serial, routes.entry), (Some(version(1)), 2, 9));
    }

    #[test]
    fn another_version_in_the_jobs_file() {
        let mut routes = pinned();
        routes.apply(&begin("5", 2, 5));
        routes.apply(&order("5", None, Do::Act(Action::Promote)));
        assert_eq!(routes.apply(&order("", Some(4), Do::Pin { champion: version(1) })), Effect::None, "a restart");
        assert_eq!(routes.champion, Some(version(2)));
        let pin = order("", Some(4), Do::Pin { champion: version(3) });
        assert_eq!(routes.apply(&pin), Effect::Switched(Some(version(2)), None));
        assert_eq!((routes.champion, routes.entry), (Some(version(3)), 5));
    }

    #[test]
    fn a_champion_by_hand() {
        let mut routes = pinned();
        routes.apply(&begin("5", 2, 5));
        let back = |entry, number| order("", Some(entry), Do::Switch { to: version(number) });
        assert_eq!(routes.apply(&back(6, 1)), Effect::None);
        assert!(routes.rollout.is_some(), "the champion stays, and so does the rollout");
        assert!(matches!(routes.apply(&back(7, 2)), Effect::Promoted(over, _) if over.id == "5"));
        assert_eq!(routes.apply(&back(8, 1)), Effect::Switched(Some(version(2)), None));
        routes.apply(&begin("9", 2, 9));
        assert!(matches!(routes.apply(&back(10, 3)), Effect::Switched(_, Some(over)) if over.id == "9"));
        assert_eq!(routes.champion, Some(version(3)));
    }

    #[test]
    fn without_shadow_rows_are_routed_at_once() {
        for (strategy, share, names) in [
            (Strategy::Canary { steps: vec![500], hold: 1 }, 500, ["champion", "canary"]),
            (Strategy::Ab { share: 5_000 }, 5_000, ["champion", "ab"]),
            (Strategy::BlueGreen { keep: 1 }, SHARE_ALL, ["blue", "green"]),
        ] {
            let begun = Underway::new("1".into(), version(2), policy(0, strategy));
            assert_eq!((begun.exposure.share, begun.names()), (share, names));
        }
        let saved = serde_json::to_string(&pinned()).expect("it is JSON");
        assert_eq!(serde_json::from_str::<Routes>(&saved).expect("it is read back"), pinned());
    }
}
