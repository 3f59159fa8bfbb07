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
    /// What is asked of a split, a tuning or an evaluation cannot be done.
    #[error("{what}{}", behind(mend))]
    Asked {
        /// What is wrong and where.
        what: String,
        /// How to mend it; empty where that is plain.
        mend: String,
    },
    /// The journal of a tuning cannot be read or written, or is not this tuning's.
    #[error("journal {}: {why}", path.display())]
    Journal {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        why: String,
        /// Whether the disk is to blame.
        outside: bool,
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
            TrainError::Journal { outside: true, .. } => Blame::Outside,
            TrainError::Setting { .. }
            | TrainError::Data { .. }
            | TrainError::Asked { .. }
            | TrainError::Journal { .. }
            | TrainError::Stopped => Blame::User,
            TrainError::Export { .. } => Blame::Ours,
        }
    }

    /// Something that cannot be done.
    pub(super) fn asked(what: impl Into<String>, mend: impl Into<String>) -> Self {
        TrainError::Asked { what: what.into(), mend: mend.into() }
    }

    /// Rows that cannot be used.
    pub(super) fn data(why: impl Into<String>) -> Self {
        TrainError::Data { why: why.into() }
    }
}

/// The way out behind what is wrong.
fn behind(mend: &str) -> String {
    if mend.is_empty() { String::new() } else { format!("; {mend}") }
}
