//! What can go wrong with recovery state.

use crate::base::Blame;

/// Why state cannot be kept, read or taken over.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The place of the state cannot be read or written.
    #[error(
        "state in {place}: cannot {action} {name}: {source}; what was committed before is safe: mend the store and run the job again"
    )]
    Store {
        /// Directory or address of the state.
        place: String,
        /// What was attempted.
        action: &'static str,
        /// The object.
        name: String,
        /// What the store says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The place of the state cannot be understood.
    #[error("`{uri}` cannot hold state: {why}; give a directory, or an address such as s3://bucket/path")]
    Place {
        /// What was given.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object is damaged or missing.
    #[error("state in {place}: {name} is damaged: {what}")]
    Damaged {
        /// Directory or address of the state.
        place: String,
        /// The object.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Another process works with this state now.
    #[error(
        "another process has taken over the state in {place} (entry {number} of its log is not ours); this one has published nothing since and ends"
    )]
    Superseded {
        /// Directory or address of the state.
        place: String,
        /// The number that was lost.
        number: u64,
    },
    /// The state cannot be restored as asked.
    #[error("{0}")]
    Refused(String),
}

impl StateError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            StateError::Store { .. } | StateError::Damaged { .. } | StateError::Superseded { .. } => Blame::Outside,
            StateError::Place { .. } | StateError::Refused(_) => Blame::User,
        }
    }
}
