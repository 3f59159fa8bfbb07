//! What can go wrong when a model is made.

use crate::base::Blame;

/// An error of the `train` room.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A learner's setting is out of its range, or does not suit the data.
    #[error("{learner}.{setting}: {why}")]
    Setting {
        /// The learner, as it is written in a dataflow: `gbdt`.
        learner: &'static str,
        /// The setting: `rate`.
        setting: &'static str,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// Rows or labels that nothing can be learnt from.
    #[error("the training set cannot be used: {why}")]
    Data {
        /// What is wrong, where, and how to mend it.
        why: String,
    },
    /// An exported model is not what was fitted: a defect of the export.
    #[error("the exported model cannot be used: {why}")]
    Export {
        /// How it differs, and for which row.
        why: String,
    },
    /// The caller asked to stop.
    #[error("training was stopped")]
    Stopped,
}

impl TrainError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            TrainError::Setting { .. } | TrainError::Data { .. } | TrainError::Stopped => Blame::User,
            TrainError::Export { .. } => Blame::Ours,
        }
    }
}
