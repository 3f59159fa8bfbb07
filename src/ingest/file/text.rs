//! Text files: newline-delimited JSON and comma-separated values.
//!
//! Offsets are numbers of records, from 0: lines, for JSON; records without the header, for CSV. Blank lines have an offset
//! and are no rows.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};

use super::RawReader;
use super::lines::{RECORD_BYTES_MAX, Record, Records};
use crate::ingest::IngestError;
use crate::ingest::dead_letter::DeadLetterKind;
use crate::ingest::decode::columns::{Columns, Problem};
use crate::ingest::decode::csv::CsvDecoder;
use crate::ingest::decode::json::JsonDecoder;
use crate::ingest::decode::{Failure, Offsets, Originals, RawChunk};
use crate::plan::model::FileFormat;

/// One text file.
pub(crate) struct TextReader {
    source: String,
    path: PathBuf,
    records: Records,
    decoder: Decoder,
    columns: Columns,
    offset: u64,
}

enum Decoder {
    Json(JsonDecoder),
    Csv(CsvDecoder),
}

impl TextReader {
    /// Opens the file to read the fields of `schema` from record `offset` on.
    ///
    /// # Errors
    /// When the file cannot be opened or read, when text cannot hold a field, or when a CSV header lacks a required one.
    pub(crate) fn open(
        source: &str,
        path: &Path,
        format: FileFormat,
        schema: &SchemaRef,
        offset: u64,
    ) -> Result<TextReader, IngestError> {
        let open_error = |error| IngestError::Open { source_name: source.into(), path: path.into(), error };
        let refuse = |what: String, mend: &str| IngestError::file(source, path, what, mend);
        let file = File::open(path).map_err(open_error)?;
        let columns = Columns::new(schema)
            .map_err(|what| IngestError::source(source, format!("{what}; change `schema`, or convert the file")))?;
        let csv = format == FileFormat::Csv;
        let mut records = Records::new(file, csv).map_err(open_error)?;
        let decoder = if csv {
            let mut header = Vec::new();
            if records.next(&mut header).map_err(open_error)? != Some(Record::Whole) {
                return Err(refuse("it has no header".into(), "write the names of its fields in its first line"));
            }
            let names = schema.fields().iter();
            let names = names.map(|f| (f.name().clone(), !f.is_nullable(), *f.data_type() == DataType::Utf8));
            let decoder = CsvDecoder::new(&header, &columns, &names.collect::<Vec<_>>());
            Decoder::Csv(decoder.map_err(|what| refuse(what, "mend the file's first line, or `schema`"))?)
        } else {
            Decoder::Json(JsonDecoder::default())
        };
        let (source, path) = (source.to_owned(), path.to_owned());
        let mut reader = TextReader { source, path, records, decoder, columns, offset: 0 };
        let mut skipped = Vec::new();
        while reader.offset < offset && reader.next(&mut skipped)?.is_some() {
            skipped.clear();
        }
        reader.offset = offset;
        Ok(reader)
    }

    fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<Record>, IngestError> {
        let record = self.records.next(data).map_err(|error: io::Error| IngestError::Read {
            source_name: self.source.clone(),
            path: self.path.clone(),
            error,
        })?;
        self.offset += u64::from(record.is_some());
        Ok(record)
    }
}

impl RawReader for TextReader {
    fn read(&mut self, rows_max: usize) -> Result<Option<RawChunk>, IngestError> {
        let first = self.offset;
        let (mut data, mut ranges, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
        let (mut failed, mut blank) = (Vec::new(), 0);
        while self.offset - first < rows_max as u64 {
            let start = data.len();
            let offset = self.offset;
            let Some(record) = self.next(&mut data)? else { break };
            let bytes = &data[start..];
            let problem = match record {
                Record::TooLarge(size) => Some(Problem {
                    kind: DeadLetterKind::TooLarge,
                    reason: format!(
                        "{size} bytes; {RECORD_BYTES_MAX} are the most, the first {} are kept",
                        bytes.len()
                    ),
                }),
                Record::Whole if bytes.iter().all(u8::is_ascii_whitespace) => {
                    blank += 1;
                    data.truncate(start);
                    continue;
                }
                Record::Whole => match &mut self.decoder {
                    Decoder::Json(decoder) => decoder.decode(bytes, &mut self.columns).err(),
                    Decoder::Csv(decoder) => decoder.decode(bytes, &mut self.columns).err(),
                },
            };
            match problem {
                None => {
                    ranges.push(start..data.len());
                    offsets.push(offset);
                }
                Some(Problem { kind, reason }) => {
                    failed.push(Failure { offset, kind, reason, original: bytes.to_vec() });
                    data.truncate(start);
                }
            }
        }
        if self.offset == first {
            return Ok(None);
        }
        let batch = self.columns.finish().map_err(|e| IngestError::internal(&self.source, e))?;
        let dense = offsets.len() as u64 == self.offset - first;
        Ok(Some(RawChunk {
            batch,
            offsets: if dense { Offsets::From(first) } else { Offsets::List(offsets) },
            originals: Originals::Lines { data, ranges },
            failed,
            blank,
            rows: self.offset - first,
            next_offset: self.offset,
        }))
    }
}
