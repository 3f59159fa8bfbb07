//! Messages to columns: the payload's by the format's decoder, and beside them key, timestamp and headers.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use super::partition::{Gathered, Parts};
use crate::ingest::IngestError;
use crate::ingest::dead_letter::DeadLetterKind;
use crate::ingest::decode::message::{MessageDecoder, Messages, message_decoder};
use crate::ingest::decode::normalise::UTC;
use crate::ingest::decode::{Failure, Offsets, Originals, RawChunk};
use crate::ingest::file::lines::KEPT_BYTES;
use crate::ingest::file::parquet::nullable;
use crate::plan::model::KafkaConnector;

/// Where a column of the source comes from.
#[derive(Clone, Debug, PartialEq)]
enum Origin {
    /// The payload, the decoder's column of this index.
    Payload(usize),
    Key,
    Timestamp,
    /// The header at this index of `headers`.
    Header(usize),
}

/// Makes a source's columns of messages.
pub(crate) struct MessageColumns {
    source: String,
    schema: SchemaRef,
    origins: Vec<Origin>,
    headers: Vec<String>,
    decoder: Box<dyn MessageDecoder>,
    key: bool,
    timestamp: bool,
}

/// What messages say besides their values, as far as a column asks for it.
#[derive(Default)]
pub(crate) struct Extras {
    keys: Texts,
    /// Microseconds.
    timestamps: Vec<Option<i64>>,
    headers: Vec<Texts>,
}

/// Byte strings that should be text, in one buffer.
#[derive(Default)]
struct Texts {
    data: Vec<u8>,
    /// End of each in `data`; none for null.
    ends: Vec<Option<usize>>,
}

impl Texts {
    fn push(&mut self, bytes: Option<&[u8]>) {
        self.data.extend_from_slice(bytes.unwrap_or_default());
        self.ends.push(bytes.map(|_| self.data.len()));
    }

    /// The bytes, by message.
    fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let end = (*end)?;
            Some(&self.data[std::mem::replace(&mut start, end)..end])
        })
    }
}

impl MessageColumns {
    /// # Errors
    /// When messages of the format cannot hold a column.
    pub(crate) fn new(source: &str, connector: &KafkaConnector, schema: &SchemaRef) -> Result<Self, IngestError> {
        let (mut origins, mut headers, mut payload) = (Vec::new(), Vec::new(), Vec::new());
        for field in schema.fields() {
            let name = Some(field.name());
            let header = connector.headers.iter().find(|(column, _)| Some(column) == name);
            origins.push(if connector.key.as_ref() == name {
                Origin::Key
            } else if connector.timestamp.as_ref() == name {
                Origin::Timestamp
            } else if let Some((_, header)) = header {
                headers.push(header.clone());
                Origin::Header(headers.len() - 1)
            } else {
                payload.push(field.clone());
                Origin::Payload(payload.len() - 1)
            });
        }
        let decoder = message_decoder(source, &connector.format, &Arc::new(Schema::new(payload)))?;
        Ok(MessageColumns {
            source: source.to_owned(),
            schema: nullable(schema),
            key: origins.contains(&Origin::Key),
            timestamp: origins.contains(&Origin::Timestamp),
            origins,
            headers,
            decoder,
        })
    }

    /// Takes note of what columns ask for besides the value.
    pub(crate) fn note(&self, extras: &mut Extras, key: Option<&[u8]>, millis: Option<i64>, message: &impl Parts) {
        if self.key {
            extras.keys.push(key);
        }
        if self.timestamp {
            extras.timestamps.push(millis.map(|ms| ms.saturating_mul(1_000)));
        }
        extras.headers.resize_with(self.headers.len(), Texts::default);
        for (name, texts) in self.headers.iter().zip(&mut extras.headers) {
            texts.push(message.last_header(name));
        }
    }

    /// Decodes messages.
    ///
    /// # Errors
    /// With the messages, when they cannot be decoded now.
    pub(crate) fn decode(
        &mut self,
        gathered: Gathered,
        partition: i32,
    ) -> Result<RawChunk, (Box<Gathered>, IngestError)> {
        let payloads: Vec<&[u8]> = gathered.ranges.iter().map(|range| &gathered.data[range.clone()]).collect();
        let decoded = match self.decoder.decode(&payloads) {
            Ok(decoded) => decoded,
            Err(error) => return Err((Box::new(gathered), error)),
        };
        self.assemble(&gathered, decoded).map(|parts| parts.into_chunk(gathered)).map_err(|error| {
            tracing::debug!(partition, "messages do not fit together");
            (Box::<Gathered>::default(), IngestError::internal(&self.source, error))
        })
    }

    fn assemble(&self, gathered: &Gathered, decoded: Messages) -> Result<Assembled, ArrowError> {
        let Messages { rows, row_of, refused } = decoded;
        let mut failed: Vec<(usize, DeadLetterKind, String)> =
            refused.into_iter().map(|r| (r.index, r.kind, r.reason)).collect();
        let extras = &gathered.extras;
        let mut keep = vec![true; row_of.len()];
        let mut not_text = |what: &dyn Fn() -> String, texts: &Texts| {
            let mut builder = StringBuilder::with_capacity(row_of.len(), texts.data.len());
            let mut wanted = row_of.iter().enumerate().peekable();
            for (message, bytes) in texts.iter().enumerate() {
                let Some((row, _)) = wanted.next_if(|(_, index)| **index as usize == message) else { continue };
                match bytes.map(std::str::from_utf8) {
                    None => builder.append_null(),
                    Some(Ok(text)) => builder.append_value(text),
                    Some(Err(_)) => {
                        builder.append_null();
                        if std::mem::replace(&mut keep[row], false) {
                            let reason = format!("{} is not text (UTF-8)", what());
                            failed.push((message, DeadLetterKind::WrongType, reason));
                        }
                    }
                }
            }
            Arc::new(builder.finish()) as ArrayRef
        };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.origins.len());
        for origin in &self.origins {
            columns.push(match origin {
                Origin::Payload(index) => rows.column(*index).clone(),
                Origin::Key => not_text(&|| "the message's key".to_owned(), &extras.keys),
                Origin::Timestamp => {
                    let times = row_of.iter().map(|index| extras.timestamps[*index as usize]);
                    Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone(UTC.clone()))
                }
                Origin::Header(header) => {
                    not_text(&|| format!("header `{}`", self.headers[*header]), &extras.headers[*header])
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(row_of.len()));
        let mut batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let mut kept = row_of;
        if keep.contains(&false) {
            batch = filter_record_batch(&batch, &BooleanArray::from(keep.clone()))?;
            let mut keep = keep.into_iter();
            kept.retain(|_| keep.next().unwrap_or(true));
        }
        failed.sort_by_key(|(message, ..)| *message);
        Ok(Assembled { batch, kept, failed })
    }
}

/// Rows, and messages that are none.
struct Assembled {
    batch: RecordBatch,
    /// The message of each row.
    kept: Vec<u32>,
    failed: Vec<(usize, DeadLetterKind, String)>,
}

impl Assembled {
    fn into_chunk(self, gathered: Gathered) -> RawChunk {
        let Gathered { data, ranges, offsets, blank, rows, next, .. } = gathered;
        let failed = self.failed.into_iter().map(|(message, kind, reason)| {
            let bytes = &data[ranges[message].clone()];
            let (reason, kept) = match kind {
                DeadLetterKind::TooLarge => {
                    let kept = bytes.len().min(KEPT_BYTES);
                    (format!("{reason}, the first {kept} are kept"), kept)
                }
                _ => (reason, bytes.len()),
            };
            Failure { offset: offsets[message], kind, reason, original: bytes[..kept].to_vec() }
        });
        let failed = failed.collect();
        let places: Vec<u64> = self.kept.iter().map(|message| offsets[*message as usize]).collect();
        let ranges = self.kept.iter().map(|message| ranges[*message as usize].clone()).collect();
        let dense = places.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        RawChunk {
            batch: self.batch,
            offsets: match places.first() {
                Some(first) if dense => Offsets::From(*first),
                _ => Offsets::List(places),
            },
            originals: Originals::Lines { data, ranges },
            failed,
            blank,
            rows,
            next_offset: next,
        }
    }
}
