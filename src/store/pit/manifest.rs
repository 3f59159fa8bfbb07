//! What a set was made of, so that it can be made again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use serde::{Deserialize, Serialize};

use super::query::Rows;
use crate::store::StoreError;
use crate::store::offline::{sync_directory, unique};

/// Key of a set's columns in the metadata of its Parquet file.
const ROLES: &str = "tidemill.columns";

/// A table at a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableVersion {
    /// Name of the table.
    pub table: String,
    /// Its version.
    pub version: u64,
    /// When that was committed, on the wall clock, where the log still says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<String>,
}

/// A file that was read besides the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Where it was.
    pub file: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// What a column of a set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The prediction's id.
    Id,
    /// The event time.
    Time,
    /// Names an entity, and is no input.
    Key,
    /// An input of the model, or a feature of a view.
    Input,
    /// What was to be told.
    Label,
    /// When that became known.
    Known,
    /// A column of the file of entities.
    Extra,
}

/// A column of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnNote {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its Arrow type.
    pub data_type: String,
}

/// What became of what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Labels: rows of their table.
    pub label_rows: u64,
    /// Of these not known yet at the cut-off.
    pub not_known_yet: u64,
    /// Predictions whose label was withdrawn.
    pub withdrawn: u64,
    /// Predictions with a label and no logged features in the window.
    pub without_features: u64,
    /// Rows of the file of entities for which some view has nothing.
    pub with_gaps: u64,
}

/// What a set was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The program that made it.
    pub program: String,
    /// The job.
    pub job: String,
    /// What was asked for, with all that was left open filled in.
    pub query: Rows,
    /// The tables that were read.
    pub tables: Vec<TableVersion>,
    /// The file of entities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entities: Option<InputFile>,
    /// The set's columns.
    pub columns: Vec<ColumnNote>,
    /// Its rows.
    pub rows: u64,
    /// What is not in it, and why.
    pub counts: Counts,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file's bytes.
    pub sha256: String,
}

/// Where the manifest of a set is: beside it, as `NAME.json`.
pub fn manifest_path(set: &Path) -> PathBuf {
    set.with_extension("json")
}

impl Manifest {
    /// The name of this program in manifests.
    pub(super) const PROGRAM: &str = concat!("tidemill ", env!("CARGO_PKG_VERSION"));

    /// Writes the manifest, whole or not at all.
    ///
    /// # Errors
    /// From the file system.
    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|e| StoreError::Request(format!("the manifest: {e}")))?;
        text.push(b'\n');
        let directory = directory_of(path);
        let hidden = directory.join(format!(".{}.tmp", unique()));
        let written = File::create_new(&hidden)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .map_err(StoreError::io("write", path))
            .and_then(|()| fs::rename(&hidden, path).map_err(StoreError::io("write", path)));
        if written.is_err() {
            // A name that nobody knows.
            let _ = fs::remove_file(&hidden);
        }
        written.and_then(|()| sync_directory(&directory))
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`StoreError::Request`] when the file is none; from the file system.
    pub fn read(path: &Path) -> Result<Manifest, StoreError> {
        let text = fs::read(path).map_err(StoreError::io("read", path))?;
        serde_json::from_slice(&text)
            .map_err(|error| StoreError::Request(format!("{} is no manifest of a set: {error}", path.display())))
    }
}

/// The directory that a file is in.
pub(super) fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The columns' roles as metadata of the set's file.
pub(super) fn roles(columns: &[ColumnNote]) -> Result<KeyValue, StoreError> {
    let text = serde_json::to_string(columns).map_err(|e| StoreError::Request(format!("the set's columns: {e}")))?;
    Ok(KeyValue::new(ROLES.to_owned(), text))
}

/// The columns of a set, as its file says.
///
/// # Errors
/// [`StoreError::Request`] when the file is no set; from reading it.
pub fn read_roles(set: &Path) -> Result<Vec<ColumnNote>, StoreError> {
    let file = File::open(set).map_err(StoreError::io("open", set))?;
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(StoreError::parquet(set))?;
    let pairs = metadata.file_metadata().key_value_metadata();
    let text = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == ROLES)?.value.as_deref());
    let what = |why: &str| {
        StoreError::Request(format!("{} is no set that `tidemill dataset` has written: {why}", set.display()))
    };
    let text = text.ok_or_else(|| what("it does not say which columns are inputs"))?;
    serde_json::from_str(text).map_err(|error| what(&error.to_string()))
}
