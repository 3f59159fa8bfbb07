//! What can go wrong with a registry of models.

use crate::base::Blame;
use crate::state::StateError;

/// An error of the `registry` room.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The address is not understood, or the directory cannot be made.
    #[error("`{uri}` cannot be a registry of models: {why}; give a directory, or an address such as s3://bucket/path")]
    Place {
        /// What was given.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is nothing there.
    #[error("there is no registry of models in {place}; `tidemill models register --registry {place} …` begins one")]
    Absent {
        /// Directory of the registry.
        place: String,
    },
    /// The registry cannot be read or written.
    #[error("registry {place}: cannot {action} {name}: {source}")]
    Store {
        /// Directory or address of the registry.
        place: String,
        /// What was attempted.
        action: &'static str,
        /// The object.
        name: String,
        /// What the store says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object is damaged or missing.
    #[error("registry {place}: {name} {what}; {mend}")]
    Damaged {
        /// Directory or address of the registry.
        place: String,
        /// The object.
        name: String,
        /// What is wrong with it.
        what: String,
        /// How to go on.
        mend: String,
    },
    /// A name that models or aliases cannot have, or a value that cannot be kept.
    #[error("{0}")]
    Refused(String),
    /// There is no model of this name.
    #[error("registry {place} has no model `{name}`{hint}")]
    NoModel {
        /// Directory or address of the registry.
        place: String,
        /// What was asked for.
        name: String,
        /// What there is.
        hint: String,
    },
    /// The model has no such version.
    #[error("model `{name}` has no version {number}; {has}")]
    NoVersion {
        /// The model.
        name: String,
        /// What was asked for.
        number: u32,
        /// What there is.
        has: String,
    },
    /// No version of the model has this alias.
    #[error("model `{name}` has no alias `{alias}`; {has}")]
    NoAlias {
        /// The model.
        name: String,
        /// What was asked for.
        alias: String,
        /// What there is.
        has: String,
    },
    /// The alias is not where the caller believed it to be.
    #[error(
        "alias `{alias}` of model `{name}` is {found}, and was expected to be {expected}: somebody else has moved it; look at `tidemill models history {name}` and decide again"
    )]
    Conflict {
        /// The model.
        name: String,
        /// The alias.
        alias: String,
        /// Where it was believed to be.
        expected: String,
        /// Where it is.
        found: String,
    },
    /// There is no version to go back to.
    #[error("alias `{alias}` of model `{name}` has been at no other version{was}; there is nothing to go back to")]
    NoPrevious {
        /// The model.
        name: String,
        /// The alias.
        alias: String,
        /// ` than 3`, where it is anywhere.
        was: String,
    },
    /// The key of an entry was used for something else.
    #[error("key `{key}` is that of entry {entry}, which did something else ({did}); a key names one deed")]
    KeyUsed {
        /// The key.
        key: String,
        /// The entry that has it.
        entry: u64,
        /// What that entry did.
        did: String,
    },
}

impl RegistryError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            RegistryError::Store { .. } | RegistryError::Damaged { .. } => Blame::Outside,
            _ => Blame::User,
        }
    }

    /// Whether somebody else was faster, and a new look may help.
    pub fn is_conflict(&self) -> bool {
        matches!(self, RegistryError::Conflict { .. })
    }
}

impl From<StateError> for RegistryError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Store { place, action, name, source } => RegistryError::Store { place, action, name, source },
            StateError::Place { uri, why } => RegistryError::Place { uri, why },
            StateError::Damaged { place, name, what } => {
                let mend = "put it back from a copy of the registry".to_owned();
                RegistryError::Damaged { place, name, what: format!("is damaged: {what}"), mend }
            }
            other => RegistryError::Refused(other.to_string()),
        }
    }
}
