//! What is kept of a model and its versions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::entry::By;
use crate::base::EventTime;

/// Number of a version: from 1, never used twice.
pub type VersionNumber = u32;

/// The alias of the version that scores.
pub const CHAMPION: &str = "champion";

/// The alias of the version that is to replace it.
pub const CHALLENGER: &str = "challenger";

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name in the model.
    pub name: String,
    /// Element type by ONNX's names: `float`, `double`, `int64`, `bool`, `string`.
    pub element: String,
    /// Dimensions after the rows; `None` where the model leaves one open. An empty list is one value per row.
    pub dims: Option<Vec<usize>>,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} [N", self.name, self.element)?;
        match &self.dims {
            Some(dims) => dims.iter().try_for_each(|d| write!(f, ", {d}"))?,
            None => write!(f, ", ?")?,
        }
        write!(f, "]")
    }
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// In the model's order.
    pub inputs: Vec<Field>,
    /// In the model's order.
    pub outputs: Vec<Field>,
}

/// Bytes that are kept under their content's hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// SHA-256 in hex.
    pub hash: String,
    /// Length.
    pub bytes: u64,
}

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its number.
    pub number: VersionNumber,
    /// The ONNX file.
    pub artifact: Artifact,
    /// What it takes and gives.
    pub signature: Signature,
    /// How good it was found to be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// How it was made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// What it was made from: versions of Delta tables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, u64>,
    /// Whatever else is to be known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Files beside the model, such as its card, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Artifact>,
    /// Who registered it.
    pub who: String,
    /// Why.
    pub why: String,
    /// When, by the wall clock.
    pub at: EventTime,
}

/// A model as the registry knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
    /// Which version has which alias.
    pub aliases: BTreeMap<String, VersionNumber>,
}

impl ModelInfo {
    /// A version by its number.
    pub fn version(&self, number: VersionNumber) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// The aliases of a version.
    pub fn aliases_of(&self, number: VersionNumber) -> impl Iterator<Item = &str> {
        self.aliases.iter().filter(move |(_, has)| **has == number).map(|(alias, _)| alias.as_str())
    }
}

/// Bytes of a model or of a file beside it.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file.
    File(PathBuf),
}

/// What is to be registered.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Name of the model; a new one begins with its first version.
    pub name: String,
    /// The ONNX file.
    pub model: Content,
    /// What it takes and gives.
    pub signature: Signature,
    /// How good it was found to be.
    pub metrics: BTreeMap<String, f64>,
    /// How it was made.
    pub params: BTreeMap<String, String>,
    /// What it was made from: versions of Delta tables.
    pub data: BTreeMap<String, u64>,
    /// Whatever else is to be known.
    pub tags: BTreeMap<String, String>,
    /// Files beside the model, such as its card, by name.
    pub files: BTreeMap<String, Content>,
    /// An alias that it gets in the same moment.
    pub alias: Option<String>,
    /// Who registers it, and why.
    pub by: By,
}

impl Registration {
    /// A registration of nothing but a model.
    pub fn new(name: impl Into<String>, model: Content, signature: Signature, by: By) -> Registration {
        Registration {
            name: name.into(),
            model,
            signature,
            metrics: BTreeMap::new(),
            params: BTreeMap::new(),
            data: BTreeMap::new(),
            tags: BTreeMap::new(),
            files: BTreeMap::new(),
            alias: None,
            by,
        }
    }
}

/// Where an alias is believed to be when it is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// Wherever.
    Any,
    /// Nowhere.
    Nowhere,
    /// At this version.
    At(VersionNumber),
}

/// An alias that was moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The version that had it.
    pub from: Option<VersionNumber>,
    /// The version that has it.
    pub to: VersionNumber,
    /// The entry of the history.
    pub entry: u64,
}
