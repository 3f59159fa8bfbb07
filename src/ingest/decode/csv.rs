//! Comma-separated values (RFC 4180) straight into columns.
//!
//! Fields may be quoted, a quote inside is doubled, and a quoted field may hold line breaks. An unquoted empty field is
//! null; a quoted one is the empty text (null for a column that is no text).

use super::columns::{Columns, Problem, Token};
use super::json::utf8;

/// Decodes records in the layout of a header.
#[derive(Debug)]
pub(crate) struct CsvDecoder {
    /// For each field of the header, its column.
    fields: Vec<Option<usize>>,
    /// Whether each column holds text.
    texts: Vec<bool>,
    spelt: String,
}

impl CsvDecoder {
    /// Reads a header. `required` and `texts` tell of each column whether it must be there and whether it holds text.
    ///
    /// # Errors
    /// A sentence, when the header is no record, names a field twice, or lacks a required one.
    pub(crate) fn new(header: &[u8], columns: &Columns, names: &[(String, bool, bool)]) -> Result<CsvDecoder, String> {
        let mut seen: Vec<String> = Vec::new();
        split(header, &mut String::new(), |field, _| {
            seen.push(field.trim().to_owned());
            Ok(())
        })
        .map_err(|problem| format!("its header is not a record: {}", problem.reason))?;
        for (name, required, _) in names {
            match seen.iter().filter(|s| *s == name).count() {
                0 if *required => return Err(format!("its header has no field `{name}`")),
                0 | 1 => {}
                _ => return Err(format!("its header has the field `{name}` twice")),
            }
        }
        let fields = seen.iter().map(|name| columns.find(name)).collect();
        Ok(CsvDecoder { fields, texts: names.iter().map(|(_, _, text)| *text).collect(), spelt: String::new() })
    }

    /// Appends one record's row; on a problem nothing is appended.
    pub(crate) fn decode(&mut self, record: &[u8], columns: &mut Columns) -> Result<(), Problem> {
        let result = self.fields(record, columns).and_then(|()| columns.end_row());
        if result.is_err() {
            columns.abandon_row();
        }
        result
    }

    fn fields(&mut self, record: &[u8], columns: &mut Columns) -> Result<(), Problem> {
        let mut count = 0;
        let mut problem = None;
        split(record, &mut self.spelt, |field, quoted| {
            if let Some(Some(column)) = self.fields.get(count) {
                let token = match (quoted, field.is_empty(), self.texts[*column]) {
                    (_, true, false) | (false, true, true) => Token::Null,
                    (true, _, true) => Token::Text(field),
                    _ => Token::Bare(field),
                };
                // A wrong number of fields shifts values into wrong columns: it is the better reason of the two.
                problem = problem.take().or(columns.set(*column, token).err());
            }
            count += 1;
            Ok(())
        })?;
        if count != self.fields.len() {
            return Err(Problem::undecodable(format!("{count} fields, the header has {}", self.fields.len())));
        }
        problem.map_or(Ok(()), Err)
    }
}

/// Follows the quotes of a record over its lines, to know where the record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// At the beginning of a field.
    Start,
    /// In an unquoted field.
    Plain,
    /// In a quoted field: the next line belongs to the record.
    Open,
    /// At a quote in a quoted field: it ends the field unless another quote follows.
    Closing,
    /// Text stands behind the end of a quoted field: no more lines can mend this.
    Broken,
}

impl Quotes {
    /// The state after more bytes.
    pub(crate) fn after(mut self, bytes: &[u8]) -> Quotes {
        for byte in bytes {
            self = match (self, byte) {
                (Quotes::Start, b'"') => Quotes::Open,
                (Quotes::Start | Quotes::Plain | Quotes::Closing, b',') => Quotes::Start,
                (Quotes::Start | Quotes::Plain, _) => Quotes::Plain,
                (Quotes::Open, b'"') => Quotes::Closing,
                (Quotes::Open, _) => Quotes::Open,
                (Quotes::Closing, b'"') => Quotes::Open,
                (Quotes::Closing, b'\r' | b'\n') => Quotes::Closing,
                (Quotes::Closing | Quotes::Broken, _) => Quotes::Broken,
            };
        }
        self
    }
}

/// Calls `each` with every field's text and whether it was quoted.
fn split(
    record: &[u8],
    spelt: &mut String,
    mut each: impl FnMut(&str, bool) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let text = utf8(record)?;
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            spelt.clear();
            loop {
                let Some(end) = rest.find('"') else {
                    return Err(Problem::undecodable("a quoted field does not end"));
                };
                spelt.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('"') {
                    Some(after) => {
                        spelt.push('"');
                        rest = after;
                    }
                    None => break,
                }
            }
            each(spelt, true)?;
            if rest.is_empty() {
                return Ok(());
            }
            rest = rest.strip_prefix(',').ok_or_else(|| {
                Problem::undecodable(format!("byte {}: text after the end of a quoted field", text.len() - rest.len()))
            })?;
        } else {
            match rest.bytes().position(|b| b == b',') {
                Some(comma) => {
                    each(&rest[..comma], false)?;
                    rest = &rest[comma + 1..];
                }
                None => return each(rest, false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(record: &str) -> Result<Vec<(String, bool)>, String> {
        let mut found = Vec::new();
        split(record.as_bytes(), &mut String::new(), |field, quoted| {
            found.push((field.to_owned(), quoted));
            Ok(())
        })
        .map_err(|p| p.reason)?;
        Ok(found)
    }

    #[test]
    fn records() {
        let expected = [("a", false), (" b ", false), ("", false), ("c,\"\nd", true), ("", true)];
        let expected: Vec<_> = expected.iter().map(|(f, q)| ((*f).to_owned(), *q)).collect();
        assert_eq!(fields("a, b ,,\"c,\"\"\nd\",\"\""), Ok(expected));
        assert_eq!(fields("a,").unwrap().len(), 2);
        assert!(fields("\"a\"b").unwrap_err().contains("byte 3"));
        assert!(fields("\"a").unwrap_err().contains("does not end"));
    }

    #[test]
    fn quotes_are_followed() {
        for (record, state) in [
            (&b"x,\"a\"\""[..], Quotes::Open),
            (b"x\"y,\"a\"\"\"", Quotes::Closing),
            (b"\"", Quotes::Open),
            (b"", Quotes::Start),
            (b"\"a\"b", Quotes::Broken),
            (b"\"a\"\r\n", Quotes::Closing),
        ] {
            assert_eq!(Quotes::Start.after(record), state);
        }
    }

    proptest! {
        #[test]
        fn written_records_read_back(values in prop::collection::vec("[a-c,\" \n\u{e9}]{0,6}", 1..6)) {
            let quoted: Vec<String> = values.iter().map(|v| format!("\"{}\"", v.replace('"', "\"\""))).collect();
            let record = quoted.join(",");
            prop_assert_eq!(Quotes::Start.after(record.as_bytes()), Quotes::Closing);
            let found: Vec<String> = fields(&record).unwrap().into_iter().map(|(f, _)| f).collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn a_record_splits_when_its_quotes_are_closed(record in "[ab,\"]{0,12}", cut in 0usize..13) {
            let cut = cut.min(record.len());
            let state = Quotes::Start.after(&record.as_bytes()[..cut]).after(&record.as_bytes()[cut..]);
            prop_assert_eq!(fields(&record).is_ok(), !matches!(state, Quotes::Open | Quotes::Broken));
        }

        #[test]
        fn random_bytes_never_panic(record in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = split(&record, &mut String::new(), |_, _| Ok(()));
            Quotes::Start.after(&record);
        }
    }
}
