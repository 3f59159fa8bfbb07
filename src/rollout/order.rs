//! Commands about versions, as the tick log holds them.

use serde::{Deserialize, Serialize};

use super::command::{Action, VersionRef};

/// What is to be done about a model's versions, from a tick on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The model, by the job's name for it.
    pub model: String,
    /// The rollout; empty for whatever is under way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Number of the decision in its rollout, of a decision of the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The entry of the registry's history that it follows, if it follows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// Who wants it, and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What.
    #[serde(rename = "do")]
    pub action: Do,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Do {
    /// The job's file names this version: with it a job begins.
    Pin {
        /// The version.
        champion: VersionRef,
    },
    /// This version becomes the champion at once, whatever is under way.
    Switch {
        /// The version.
        to: VersionRef,
    },
    /// What concerns a rollout.
    #[serde(untagged)]
    Act(Action),
}

impl Do {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Do::Pin { .. } => "pin",
            Do::Switch { .. } => "switch",
            Do::Act(action) => action.name(),
        }
    }
}

/// A command of the tick log.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Command {
    Rollout(Order),
}

impl Order {
    /// Names the deed: of two orders with one key only one is carried out.
    pub fn key(&self) -> String {
        let model = &self.model;
        match (self.entry.filter(|_| !matches!(self.action, Do::Pin { .. })), self.seq, &self.action) {
            (Some(entry), ..) => format!("{model}/entry/{entry}"),
            (None, Some(seq), _) => format!("{model}/{}/{seq}", self.id),
            (None, None, Do::Pin { champion }) => format!("{model}/pin/{}", champion.hash),
            (None, None, Do::Act(Action::Guard { what, .. })) => format!("{model}/{}/{}", self.id, what.name()),
            (None, None, action) => format!("{model}/{}/{}", self.id, action.name()),
        }
    }

    /// As the tick log holds it.
    ///
    /// # Errors
    /// Never, short of a defect: numbers are finite.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Command::Rollout(self.clone()))
    }

    /// Reads a command of the tick log.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn decode(text: &str) -> Result<Order, String> {
        let Command::Rollout(order) = serde_json::from_str(text)
            .map_err(|error| format!("the tick log holds a command that this program does not know: {error}"))?;
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::command::Guarded;

    #[test]
    fn commands_come_back() {
        let version = |number| VersionRef { number, hash: format!("{number:064x}") };
        let order = |entry, seq, action| Order {
            model: "fraud".into(),
            id: "7".into(),
            seq,
            entry,
            by: "somebody".into(),
            why: "so".into(),
            action,
        };
        for (order, key) in [
            (
                order(Some(7), None, Do::Pin { champion: version(1) }),
                "fraud/pin/0000000000000000000000000000000000000000000000000000000000000001",
            ),
            (order(Some(8), None, Do::Switch { to: version(2) }), "fraud/entry/8"),
            (order(None, Some(3), Do::Act(Action::Step { share: 500 })), "fraud/7/3"),
            (
                order(None, None, Do::Act(Action::Guard { what: Guarded::LatencyP99Ms, value: 12.5 })),
                "fraud/7/latency_p99_ms",
            ),
            (order(None, None, Do::Act(Action::Hold)), "fraud/7/hold"),
        ] {
            let text = order.encode().expect("it is JSON");
            assert_eq!(Order::decode(&text), Ok(order.clone()));
            assert_eq!(order.key(), key);
        }
        // What a tick log holds is for ever.
        let written = r#"{"rollout":{"model":"fraud","id":"7","seq":3,"do":{"step":{"share":500}}}}"#;
        let order = Order::decode(written).expect("it is a command");
        assert_eq!(
            (order.action.clone(), order.encode().expect("it is JSON")),
            (Do::Act(Action::Step { share: 500 }), written.to_owned())
        );
        assert!(Order::decode(r#"{"rollout":{"model":"fraud","do":"dance"}}"#).is_err());
    }
}
