//! What compiling a plan asks of the rooms to the right, which `plan` cannot import.

use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};
use serde_json::Value;

use super::batch::Tells;
use super::model::{FileFormat, GeneratorStream, ModelOutput};
use crate::base::ModelRef;

/// What a source says about where its events come from and how they are described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// Where from.
    pub connector: ConnectorSpec,
    /// The declared schema, an `.avsc` file.
    pub schema: Option<PathBuf>,
}

/// Where a source's events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectorSpec {
    /// Files.
    File {
        /// Path, directory or glob, relative to the current directory or absolute.
        path: String,
        /// The encoding, when the file names it; else each file's extension tells, see [`format_of`].
        format: Option<FileFormat>,
    },
    /// A stream of the built-in generator.
    Generator(GeneratorStream),
    /// A Kafka topic: the schema says what its messages hold.
    Kafka,
}

/// A registered version of a model, as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredFile {
    /// Number of the version.
    pub number: u32,
    /// SHA-256 (hex) of the file.
    pub hash: String,
    /// The ONNX file.
    pub path: PathBuf,
}

/// Knows the outside world: files, schemas, models.
pub trait Catalog {
    /// The schema of a source's events with the types that its data has (any order-preserving projection of it can be
    /// read), and its files in the order in which they are numbered as partitions; no files where there are none.
    ///
    /// # Errors
    /// A sentence, lowercase and without full stop, such as ``no file matches `/data/*.parquet` ``.
    fn event_schema(&self, source: &str, spec: &SourceSpec) -> Result<(SchemaRef, Vec<PathBuf>), String>;

    /// What forbids scoring `inputs` (names in tables and types, in order) with the model at `path` and reading `outputs`
    /// from it; empty when nothing does. The default looks only whether the file is there.
    fn check_model(&self, path: &Path, inputs: &[(String, DataType)], outputs: &[ModelOutput]) -> Vec<String> {
        let _ = (inputs, outputs);
        if path.is_file() { Vec::new() } else { vec![format!("there is no file `{}`", path.display())] }
    }

    /// The version that `model` of the job scores with, where its file names the registered `reference` in the registry at
    /// `uri`. The default knows no registry.
    ///
    /// # Errors
    /// A sentence, lowercase and without full stop.
    fn registered(&self, model: &str, uri: &str, reference: &ModelRef) -> Result<RegisteredFile, String> {
        let _ = model;
        Err(format!("`{reference}` cannot be looked up in {uri} here"))
    }

    /// What forbids reading messages of the Avro schema `writer` as events of the Avro schema `declared`, both as texts. The
    /// default knows nothing of Avro.
    fn avro_fault(&self, declared: &str, writer: &str) -> Option<String> {
        let _ = (declared, writer);
        None
    }

    /// What is wrong with a setting of a Kafka client, such as a name that librdkafka does not know; the text may hold
    /// references to secrets. The default knows nothing of settings.
    fn kafka_setting_fault(&self, name: &str, text: &str) -> Option<String> {
        let _ = (name, text);
        None
    }

    /// What is wrong with a part of a batch dataflow, and how to mend it. The default knows nothing of them.
    fn batch_fault(&self, part: &BatchPart<'_>) -> Option<(String, String)> {
        let _ = part;
        None
    }
}

/// A part of a batch dataflow that others understand; settings are JSON in their words.
#[derive(Clone, Copy, Debug)]
pub enum BatchPart<'a> {
    /// Which state of tables a training set is made of.
    At(&'a str),
    /// A learner with its settings, `{"gbdt": {"trees": 200}}`, and what is to be told.
    Learner(&'a Value, Tells),
    /// What is done to inputs.
    Prepare(&'a Value),
    /// How settings are looked for.
    Tune {
        /// Method, trials, space and so on.
        options: &'a Value,
        /// Whose settings.
        learner: &'a Value,
        /// What is to be told.
        tells: Tells,
    },
    /// How a model is judged, and what is told.
    Evaluate(&'a Value, Tells),
}

/// The encoding that a file's extension tells.
pub fn format_of(path: &Path) -> Option<FileFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "parquet" | "pq" => Some(FileFormat::Parquet),
        "ndjson" | "jsonl" | "json" => Some(FileFormat::Ndjson),
        "csv" => Some(FileFormat::Csv),
        _ => None,
    }
}

/// Where a path of the job's file leads: relative paths start at the current directory, else, when nothing is there, at
/// the job file's directory.
pub(super) fn locate(path: &str, directory: &Path) -> String {
    let there = |p: &str| Path::new(p).exists() || glob::glob(p).is_ok_and(|mut matches| matches.next().is_some());
    if Path::new(path).is_absolute() || there(path) {
        return path.to_string();
    }
    match directory.join(path).to_str() {
        Some(beside) if there(beside) => beside.to_string(),
        _ => path.to_string(),
    }
}
