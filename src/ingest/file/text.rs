//! Lines of text.

use std::path::Path;

use arrow::datatypes::SchemaRef;

use super::RawReader;
use crate::ingest::IngestError;
use crate::plan::model::FileFormat;

/// Opens a text file.
pub(crate) fn open(
    source: &str,
    _path: &Path,
    _format: FileFormat,
    _schema: &SchemaRef,
    _offset: u64,
) -> Result<Box<dyn RawReader>, IngestError> {
    Err(IngestError::source(source, "text is not built yet"))
}
