//! What changes a rollout: commands in the tick log, and what follows from them for the rows.

use serde::{Deserialize, Serialize};

use crate::plan::model::{RolloutPlan, SHARE_ALL, Share, Strategy};

/// A version of a model: its number in the registry and the hash of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionRef {
    /// Number.
    pub number: u64,
    /// Hash of the artifact's bytes.
    pub hash: String,
}

/// An entry of a tick's record. It takes effect for the rows that are scored in that tick and later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Of a rollout.
    Rollout(RolloutCommand),
}

/// A command to a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutCommand {
    /// The model.
    pub model: String,
    /// The rollout.
    pub id: String,
    /// Number of the controller's decision; none where somebody gives the command by hand, or a guard reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Who gives it by hand.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub who: String,
    /// What is to be done.
    #[serde(rename = "do")]
    pub action: Action,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A rollout begins.
    Begin {
        /// Who comes in.
        challenger: VersionRef,
        /// How.
        policy: Box<RolloutPlan>,
    },
    /// The challenger gets this share of the rows.
    Step {
        /// In hundredths of a per cent.
        share: Share,
    },
    /// The challenger becomes the champion.
    Promote,
    /// The champion gets all rows back.
    RollBack {
        /// Why.
        why: String,
    },
    /// Nothing but guards decides until `resume`.
    Hold,
    /// Decisions go on.
    Resume,
    /// A fact of the wall clock that steers, recorded so that a replay knows it.
    Guard {
        /// What was measured.
        what: Guarded,
        /// Its value.
        value: f64,
    },
}

impl Action {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Begin { .. } => "begin",
            Action::Step { .. } => "step",
            Action::Promote => "promote",
            Action::RollBack { .. } => "roll_back",
            Action::Hold => "hold",
            Action::Resume => "resume",
            Action::Guard { .. } => "guard",
        }
    }
}

/// What a guard measures on the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarded {
    /// 99th percentile of latency, in milliseconds.
    LatencyP99Ms,
}

impl Guarded {
    /// Its name in the file and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Guarded::LatencyP99Ms => "latency_p99_ms",
        }
    }
}

/// How a rollout has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The challenger is champion.
    Promoted,
    /// The champion has stayed.
    RolledBack,
}

/// Who scores which rows: what all workers make of the same commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Whether the challenger scores every row beside the champion.
    pub shadow: bool,
    /// The challenger's share of the rows, in hundredths of a per cent.
    pub share: Share,
    /// Whether nothing but guards decides.
    pub held: bool,
    /// How it has ended.
    pub end: Option<End>,
}

impl Exposure {
    /// At the beginning.
    pub fn first(policy: &RolloutPlan) -> Exposure {
        let shadow = policy.shadow > 0;
        let share = if shadow { 0 } else { first_share(&policy.strategy) };
        Exposure { shadow, share, held: false, end: None }
    }

    /// What a command makes of it; `decided` by the controller, else by hand. False where the command comes too late and changes
    /// nothing: to a rollout that is over, or a decision to go on that somebody's hold has overtaken.
    pub fn apply(&mut self, action: &Action, decided: bool) -> bool {
        let onward = matches!(action, Action::Step { .. } | Action::Promote);
        if self.end.is_some() || (decided && self.held && onward) {
            return false;
        }
        match action {
            Action::Begin { .. } | Action::Guard { .. } => {}
            Action::Step { share } => {
                self.shadow = false;
                self.share = (*share).min(SHARE_ALL);
            }
            Action::Promote => {
                *self = Exposure { shadow: false, share: SHARE_ALL, held: false, end: Some(End::Promoted) }
            }
            Action::RollBack { .. } => {
                *self = Exposure { shadow: false, share: 0, held: false, end: Some(End::RolledBack) }
            }
            Action::Hold => self.held = true,
            Action::Resume => self.held = false,
        }
        true
    }
}

/// The share with which the challenger meets rows first.
pub(super) fn first_share(strategy: &Strategy) -> Share {
    match strategy {
        Strategy::Canary { steps, .. } => steps.first().copied().unwrap_or(SHARE_ALL),
        Strategy::Ab { share } => *share,
        Strategy::BlueGreen { .. } => SHARE_ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_json() {
        let text = r#"{"rollout":{"model":"fraud","id":"7","seq":3,"do":{"step":{"share":2500}}}}"#;
        let command = RolloutCommand {
            model: "fraud".into(),
            id: "7".into(),
            seq: Some(3),
            who: String::new(),
            action: Action::Step { share: 2500 },
        };
        assert_eq!(serde_json::to_string(&Command::Rollout(command.clone())).unwrap(), text);
        assert_eq!(serde_json::from_str::<Command>(text).unwrap(), Command::Rollout(command));
        let by_hand = r#"{"rollout":{"model":"fraud","id":"7","who":"ann","do":"promote"}}"#;
        let read: Command = serde_json::from_str(by_hand).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), by_hand);
    }

    #[test]
    fn what_comes_too_late_changes_nothing() {
        let mut exposure = Exposure { shadow: false, share: 500, held: false, end: None };
        assert!(exposure.apply(&Action::Hold, false));
        assert!(!exposure.apply(&Action::Promote, true), "overtaken by the hold");
        assert!(exposure.apply(&Action::Step { share: 2500 }, false), "by hand");
        assert!(exposure.apply(&Action::RollBack { why: String::new() }, true), "a guard is not held back");
        let over = exposure.clone();
        for action in [Action::Promote, Action::Resume, Action::Step { share: 1 }] {
            assert!(!exposure.apply(&action, false));
        }
        assert_eq!((exposure.share, exposure.end, over.held), (0, Some(End::RolledBack), false));
    }
}
