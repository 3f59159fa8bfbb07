//! Batch dataflow files of this machine.

use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};

use super::queue::Request;
use crate::base::{Fault, Faults, ModelRef};
use crate::engine::JobCatalog;
use crate::plan::batch::{self, BatchPlan, Reading};
use crate::plan::model::ModelOutput;
use crate::plan::{BatchPart, Catalog, RegisteredFile, SourceSpec};

/// What batch dataflows know besides what jobs do.
#[derive(Default)]
struct BatchCatalog(JobCatalog);

impl Catalog for BatchCatalog {
    fn event_schema(&self, source: &str, spec: &SourceSpec) -> Result<(SchemaRef, Vec<PathBuf>), String> {
        self.0.event_schema(source, spec)
    }

    fn check_model(&self, path: &Path, inputs: &[(String, DataType)], outputs: &[ModelOutput]) -> Vec<String> {
        self.0.check_model(path, inputs, outputs)
    }

    fn registered(&self, model: &str, uri: &str, reference: &ModelRef) -> Result<RegisteredFile, String> {
        self.0.registered(model, uri, reference)
    }

    fn avro_fault(&self, declared: &str, writer: &str) -> Option<String> {
        self.0.avro_fault(declared, writer)
    }

    fn kafka_setting_fault(&self, name: &str, text: &str) -> Option<String> {
        self.0.kafka_setting_fault(name, text)
    }

    fn batch_fault(&self, part: &BatchPart<'_>) -> Option<(String, String)> {
        super::steps::batch_fault(part)
    }
}

/// Reads and compiles the batch dataflow at `path`, with the process's environment: the plan and the warnings about it.
///
/// # Errors
/// Every fault of the file at once.
pub fn load(
    path: &Path,
    sets: &[(String, String)],
    job_sets: &[(String, String)],
) -> Result<(BatchPlan, Vec<Fault>), Faults> {
    let env = |name: &str| std::env::var(name).ok();
    batch::load(path, &Reading { sets, job_sets, env: &env, catalog: &BatchCatalog::default() })
}

/// As [`load`], what was submitted.
pub(super) fn load_request(request: &Request) -> Result<(BatchPlan, Vec<Fault>), Faults> {
    load(&request.file, &request.sets, &request.job_sets)
}
