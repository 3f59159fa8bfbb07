//! Avro messages: single records, plain or behind the five bytes with which Confluent's tools name a schema in a registry.
//!
//! A writer's schema is resolved to the declared one once; messages then run through a list of small operations that
//! fill the columns directly. Damaged messages are refused one by one. No length that a message states is trusted before
//! as many bytes are there, so nothing is allocated for it.

mod input;
mod program;
mod resolve;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use arrow::datatypes::{Schema, SchemaRef};

use self::program::Program;
use self::resolve::Reader;
use self::schema::AvroSchema;
use super::columns::{Columns, Problem};
use super::message::{MessageDecoder, Messages, Refused, too_large};
use crate::ingest::IngestError;
use crate::ingest::dead_letter::DeadLetterKind;
use crate::ingest::registry::Registry;
use crate::plan::model::{AvroFormat, AvroWriter};

/// What forbids reading messages of schema `writer` as events of schema `declared`, whose columns are `schema`.
pub(crate) fn schema_fault(schema: &Schema, declared: &str, writer: &str) -> Option<String> {
    let resolve = || Reader::new(schema, declared)?.resolve(AvroSchema::parse(writer, &[])?);
    resolve().err()
}

/// Avro messages of one source.
pub(super) struct AvroMessages {
    source: String,
    reader: Reader,
    columns: Columns,
    writers: Writers,
}

/// Where the writers' schemas come from.
enum Writers {
    One(Box<Program>),
    Registry(Registry, HashMap<u32, Found>),
}

/// What became of a schema of the registry: its program, or why its messages cannot be read.
type Found = Result<Box<Program>, String>;

impl AvroMessages {
    pub(super) fn new(
        source: &str,
        format: &AvroFormat,
        schema: &SchemaRef,
        columns: Columns,
    ) -> Result<AvroMessages, IngestError> {
        let refuse = |what: String| IngestError::source(source, format!("{what}; change `schema`"));
        let reader = Reader::new(schema, &format.declared).map_err(refuse)?;
        let writers = match &format.writer {
            AvroWriter::Schema(writer) => {
                let program = AvroSchema::parse(writer, &[]).and_then(|writer| reader.resolve(writer));
                Writers::One(Box::new(program.map_err(refuse)?))
            }
            AvroWriter::Registry(plan) => {
                let registry = Registry::of(plan).map_err(|error| IngestError::registry(source, error))?;
                Writers::Registry(registry, HashMap::new())
            }
        };
        Ok(AvroMessages { source: source.to_owned(), reader, columns, writers })
    }

    /// Makes sure that every schema of these payloads was asked for.
    fn prepare(&mut self, payloads: &[&[u8]]) -> Result<(), IngestError> {
        let Writers::Registry(registry, found) = &mut self.writers else { return Ok(()) };
        let mut last = None;
        for payload in payloads {
            let Ok((id, _)) = frame(payload) else { continue };
            if last == Some(id) || found.contains_key(&id) {
                last = Some(id);
                continue;
            }
            last = Some(id);
            let schema = registry.schema_by_id(id).map_err(|error| IngestError::registry(&self.source, error))?;
            // An unknown id is not kept: the registry's client knows when to ask again.
            let Some(schema) = schema else { continue };
            let program = match schema.language.as_str() {
                "AVRO" => AvroSchema::parse(&schema.text, &schema.references).and_then(|w| self.reader.resolve(w)),
                other => Err(format!("it is a schema of {other}, not of Avro")),
            };
            found.insert(id, program.map(Box::new));
        }
        Ok(())
    }

    fn run(&mut self, payloads: &[&[u8]], check_text: bool) -> (Vec<u32>, Vec<Refused>) {
        let (mut row_of, mut refused) = (Vec::with_capacity(payloads.len()), Vec::new());
        self.columns.reserve(payloads.len());
        let mut last: Option<(u32, &Found)> = None;
        for (index, payload) in payloads.iter().enumerate() {
            let result = match (&self.writers, too_large(payload)) {
                (_, Some(problem)) => Err(problem),
                (Writers::One(program), None) => program.decode(payload, &mut self.columns, check_text),
                (Writers::Registry(_, found), None) => frame(payload).and_then(|(id, record)| {
                    let program = match last {
                        Some((same, program)) if same == id => program,
                        _ => found.get(&id).ok_or_else(|| no_schema(format!("unknown schema id {id}")))?,
                    };
                    last = Some((id, program));
                    match program {
                        Ok(program) => program.decode(record, &mut self.columns, check_text),
                        Err(why) => Err(no_schema(format!("schema id {id}: {why}"))),
                    }
                }),
            };
            match result {
                Ok(()) => row_of.push(index as u32),
                Err(Problem { kind, reason }) => refused.push(Refused { index, kind, reason }),
            }
        }
        (row_of, refused)
    }
}

impl MessageDecoder for AvroMessages {
    fn decode(&mut self, payloads: &[&[u8]]) -> Result<Messages, IngestError> {
        self.prepare(payloads)?;
        let (row_of, refused) = self.run(payloads, false);
        if let Ok(rows) = self.columns.finish() {
            return Ok(Messages { rows, row_of, refused });
        }
        // Some text is not UTF-8. Only now it is worth while to look at each of them.
        self.columns.clear();
        let (row_of, refused) = self.run(payloads, true);
        let rows = self.columns.finish().map_err(|e| IngestError::internal(&self.source, e))?;
        Ok(Messages { rows, row_of, refused })
    }
}

fn no_schema(reason: String) -> Problem {
    Problem { kind: DeadLetterKind::Schema, reason }
}

/// Splits Confluent's frame: a zero, the schema's id in four bytes, the record.
#[inline]
fn frame(payload: &[u8]) -> Result<(u32, &[u8]), Problem> {
    match payload {
        [0, a, b, c, d, record @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), record)),
        [0, ..] => Err(Problem::undecodable(format!(
            "not in a registry's frame: {} bytes, and the frame alone has 5",
            payload.len()
        ))),
        [first, ..] => {
            Err(Problem::undecodable(format!("not in a registry's frame: its first byte is {first}, not 0")))
        }
        [] => Err(Problem::undecodable("not in a registry's frame: it is empty")),
    }
}
