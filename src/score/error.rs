//! What can go wrong with a model: reading it, and running it.

use std::path::PathBuf;

use crate::base::Blame;

/// An error of the `score` room.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The file cannot be read.
    #[error("cannot read model {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not an ONNX model, or one that breaks ONNX's own rules.
    #[error("{} is not a usable ONNX model: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The model uses operators that no kernel here computes.
    #[error("model {} uses operators that tidemill has no kernel for: {operators}; export the model without them", path.display())]
    UnknownOperators {
        /// The file.
        path: PathBuf,
        /// `Scan (node "Sc_Scan"), com.microsoft.CDist (node "cd")`.
        operators: String,
    },
    /// A node of the model cannot be prepared.
    #[error("model {}, node {node}: {why}", path.display())]
    Node {
        /// The file.
        path: PathBuf,
        /// Name and operator of the node.
        node: String,
        /// What is wrong with it.
        why: String,
    },
    /// A row's result depends on the rows beside it, so no score of it could be reproduced.
    #[error("model {} mixes the rows of a batch ({why}); only models that score each row by itself can be used", path.display())]
    MixesRows {
        /// The file.
        path: PathBuf,
        /// Which output showed it.
        why: String,
    },
    /// The columns handed to a scorer are not the bound ones. A defect of the caller.
    #[error("a scorer was given {why}")]
    Columns {
        /// What it was given.
        why: String,
    },
}

impl ScoreError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            ScoreError::Read { .. } => Blame::Outside,
            ScoreError::Columns { .. } => Blame::Ours,
            _ => Blame::User,
        }
    }
}
