//! Messages to rows: one payload is one event, and a payload that cannot be decoded leaves its neighbours alone.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::avro::AvroMessages;
use super::columns::{Columns, Problem};
use super::json::JsonDecoder;
use crate::ingest::IngestError;
use crate::ingest::dead_letter::DeadLetterKind;
use crate::ingest::file::lines::RECORD_BYTES_MAX;
use crate::plan::model::MessageFormat;

/// Decodes the messages of one source.
pub trait MessageDecoder: Send {
    /// Decodes payloads, one event each.
    ///
    /// # Errors
    /// Only for what stops or delays the whole source; never for what a payload holds. After an error that is
    /// [retryable](IngestError::retryable) the same payloads may be given again: nothing was kept of them.
    fn decode(&mut self, payloads: &[&[u8]]) -> Result<Messages, IngestError>;
}

/// Payloads, decoded.
#[derive(Debug)]
pub struct Messages {
    /// The rows, in the order of their payloads: the fields of the source's schema, all nullable, as files of the same
    /// events would give them.
    pub rows: RecordBatch,
    /// Index of the payload of each row.
    pub row_of: Vec<u32>,
    /// The payloads that are not rows, in their order.
    pub refused: Vec<Refused>,
}

/// A payload that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Index of the payload.
    pub index: usize,
    /// Why, in one word.
    pub kind: DeadLetterKind,
    /// Why, in one sentence.
    pub reason: String,
}

/// The decoder of a source's messages: `schema` is [`SourcePlan::schema`](crate::plan::model::SourcePlan::schema).
///
/// # Errors
/// When messages of the format cannot hold one of the schema's fields.
pub fn message_decoder(
    source: &str,
    format: &MessageFormat,
    schema: &SchemaRef,
) -> Result<Box<dyn MessageDecoder>, IngestError> {
    let columns =
        Columns::new(schema).map_err(|what| IngestError::source(source, format!("{what}; change `schema`")))?;
    match format {
        MessageFormat::Json => {
            Ok(Box::new(JsonMessages { source: source.to_owned(), decoder: JsonDecoder::default(), columns }))
        }
        MessageFormat::Avro(avro) => Ok(Box::new(AvroMessages::new(source, avro, schema, columns)?)),
    }
}

/// One JSON object per payload, read as strictly as a line of a file; line breaks between its tokens are space.
struct JsonMessages {
    source: String,
    decoder: JsonDecoder,
    columns: Columns,
}

impl MessageDecoder for JsonMessages {
    fn decode(&mut self, payloads: &[&[u8]]) -> Result<Messages, IngestError> {
        let (mut row_of, mut refused) = (Vec::with_capacity(payloads.len()), Vec::new());
        self.columns.reserve(payloads.len());
        for (index, payload) in payloads.iter().enumerate() {
            let result = match too_large(payload) {
                Some(problem) => Err(problem),
                None => self.decoder.decode(payload, &mut self.columns),
            };
            match result {
                Ok(()) => row_of.push(index as u32),
                Err(Problem { kind, reason }) => refused.push(Refused { index, kind, reason }),
            }
        }
        let rows = self.columns.finish().map_err(|e| IngestError::internal(&self.source, e))?;
        Ok(Messages { rows, row_of, refused })
    }
}

/// Messages have the bound of a file's records.
pub(super) fn too_large(payload: &[u8]) -> Option<Problem> {
    (payload.len() > RECORD_BYTES_MAX).then(|| Problem {
        kind: DeadLetterKind::TooLarge,
        reason: format!("{} bytes; {RECORD_BYTES_MAX} are the most", payload.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::file::RawReader;
    use crate::ingest::file::text::TextReader;
    use crate::ingest::parse_avsc;
    use crate::ingest::tests::kit::Dir;
    use crate::plan::model::FileFormat;
    use proptest::prelude::*;

    fn schema() -> SchemaRef {
        parse_avsc(
            r#"{"type": "record", "name": "tx", "fields": [
                {"name": "id", "type": "long"},
                {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                {"name": "amount", "type": ["null", "double"]},
                {"name": "n", "type": "int", "default": 7},
                {"name": "country", "type": {"type": "enum", "name": "c", "symbols": ["FR", "DE"]}, "default": "FR"},
                {"name": "note", "type": ["null", "string"]}
            ]}"#,
        )
        .unwrap()
    }

    fn decode(payloads: &[&[u8]]) -> Messages {
        message_decoder("tx", &MessageFormat::Json, &schema()).unwrap().decode(payloads).unwrap()
    }

    #[test]
    fn a_bad_payload_leaves_its_neighbours_alone() {
        let good = br#"{"id":1,"ts":5,"note":"x"}"#.as_slice();
        let huge = vec![b' '; RECORD_BYTES_MAX + 1];
        let found = decode(&[
            good,
            b"{\"id\":2,\n\r\t \"ts\":\n6}\n",
            br#"{"id":3,"ts":7}{"id":4,"ts":8}"#,
            b"",
            br#"{"id":"3","ts":7}"#,
            br#"{"ts":7}"#,
            b"{\"id\":3,\"ts\":7,\"note\":\"\xff\"}",
            &huge,
            br#"{"id":5,"ts":7,"country":"IT"}"#,
            good,
        ]);
        assert_eq!(found.row_of, [0, 1, 9]);
        assert_eq!(found.rows.num_rows(), 3);
        let refused: Vec<_> = found.refused.iter().map(|r| (r.index, r.kind.as_str())).collect();
        assert_eq!(
            refused,
            [
                (2, "undecodable"),
                (3, "undecodable"),
                (4, "wrong_type"),
                (5, "missing_field"),
                (6, "undecodable"),
                (7, "too_large"),
                (8, "wrong_type"),
            ]
        );
        assert_eq!(
            found.refused[0].reason, "not JSON: expected the end of the line at byte 15, found '{'",
            "two documents in one payload"
        );
    }

    #[test]
    fn no_payloads_are_no_rows() {
        let found = decode(&[]);
        assert_eq!((found.rows.num_rows(), found.rows.num_columns()), (0, 6));
    }

    /// Something like a line of JSON that has the schema's fields, or nearly.
    fn line() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec!["id", "ts", "amount", "n", "country", "note", "more"]);
        let values = vec![
            "1",
            "-2.5",
            "1e3",
            "null",
            "\"FR\"",
            "\"IT\"",
            "\"\\u00e9\"",
            "\"2018-04-01T00:00:00Z\"",
            "true",
            "NaN",
            "[1]",
            "{\"id\":1}",
            "99999999999",
            "1e400",
            "\"NaN\"",
            "nul",
        ];
        let field = (key, prop::sample::select(values)).prop_map(|(k, v)| format!("\"{k}\":{v}"));
        let begun = prop::sample::select(vec!["\"id\":1,\"ts\":2", "\"id\":3", "\"ts\":1,\"id\":9,\"n\":1"]);
        (begun, prop::collection::vec(field, 0..4), prop::sample::select(vec!["}", "}", "}", "} ", "", "}}"]))
            .prop_map(|(begun, fields, end)| format!("{{{}{end}", [vec![begun.to_owned()], fields].concat().join(",")))
    }

    proptest! {
        /// The file reader is the twin: one payload per line gives the same rows and the same refusals.
        #[test]
        fn payloads_are_read_as_the_lines_of_a_file(lines in prop::collection::vec(line(), 1..40)) {
            let dir = Dir::new();
            let path = dir.text("a.ndjson", lines.join("\n"));
            let mut file = TextReader::open("tx", &path, FileFormat::Ndjson, &schema(), 0).unwrap();
            let chunk = file.read(1_000).unwrap().unwrap();
            let payloads: Vec<&[u8]> = lines.iter().map(|l| l.as_bytes()).collect();
            let found = decode(&payloads);
            prop_assert_eq!(&found.rows, &chunk.batch);
            let rows: Vec<u64> = found.row_of.iter().map(|i| u64::from(*i)).collect();
            let expected: Vec<u64> = (0..chunk.batch.num_rows()).map(|row| chunk.offsets.get(row)).collect();
            prop_assert_eq!(rows, expected);
            let ours: Vec<_> = found.refused.iter().map(|r| (r.index as u64, r.kind, r.reason.clone())).collect();
            let theirs: Vec<_> = chunk.failed.iter().map(|f| (f.offset, f.kind, f.reason.clone())).collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}
