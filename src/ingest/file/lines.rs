//! Cuts a text file into records: lines, or lines joined while a quoted field is open.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use crate::ingest::decode::csv::Quotes;

/// Largest record that is taken, in bytes. Larger ones are dead letters of which the beginning is kept.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;

/// How much of a record that is too large is kept.
pub(crate) const KEPT_BYTES: usize = 4_096;

const BUFFER_BYTES: usize = 256 << 10;

/// What was appended to the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A whole record, without its line break.
    Whole,
    /// The first [`KEPT_BYTES`] of a record of this many bytes.
    TooLarge(u64),
}

/// The records of a text file.
pub(crate) struct Records {
    input: BufReader<File>,
    /// Lines that were read ahead in vain, with their line breaks.
    back: VecDeque<(Vec<u8>, Record)>,
    /// Whether a record goes on in the next line while a quoted field is open.
    quoted: bool,
}

impl Records {
    /// Records of a file: its lines, where `quoted` joined while a quoted field is open.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(file: File, quoted: bool) -> io::Result<Records> {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, file);
        if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            input.consume(3);
        }
        Ok(Records { input, back: VecDeque::new(), quoted })
    }

    /// Appends the next record to `data`; `None` at the end.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn next(&mut self, data: &mut Vec<u8>) -> io::Result<Option<Record>> {
        let start = data.len();
        let Some(record) = self.line(data)? else {
            return Ok(None);
        };
        if !self.quoted || record != Record::Whole {
            return Ok(Some(trim(data, start, record)));
        }
        let mut quotes = Quotes::Start.after(&data[start..]);
        if quotes != Quotes::Open {
            return Ok(Some(trim(data, start, record)));
        }
        // A quote that nobody closes must not swallow the file: if the record does not end within bounds, the first line
        // stands alone (and will not decode) and the others are read anew.
        let first = data.len();
        let mut ahead = Vec::new();
        while data.len() - start <= RECORD_BYTES_MAX {
            let before = data.len();
            let Some(line) = self.line(data)? else { break };
            quotes = if line == Record::Whole { quotes.after(&data[before..]) } else { Quotes::Broken };
            if !matches!(quotes, Quotes::Open | Quotes::Broken) {
                return Ok(Some(trim(data, start, Record::Whole)));
            }
            ahead.push((data[before..].to_vec(), line));
            if quotes == Quotes::Broken {
                break;
            }
        }
        for line in ahead.into_iter().rev() {
            self.back.push_front(line);
        }
        data.truncate(first);
        Ok(Some(trim(data, start, Record::Whole)))
    }

    /// Appends the next line with its line break.
    fn line(&mut self, data: &mut Vec<u8>) -> io::Result<Option<Record>> {
        if let Some((line, record)) = self.back.pop_front() {
            data.extend_from_slice(&line);
            return Ok(Some(record));
        }
        let start = data.len();
        let read = self.input.by_ref().take(RECORD_BYTES_MAX as u64 + 1).read_until(b'\n', data)?;
        if read == 0 {
            return Ok(None);
        }
        if read <= RECORD_BYTES_MAX || data.ends_with(b"\n") {
            return Ok(Some(Record::Whole));
        }
        data.truncate(start + KEPT_BYTES);
        let mut bytes = read as u64;
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                break;
            }
            let end = available.iter().position(|b| *b == b'\n');
            let step = end.map_or(available.len(), |end| end + 1);
            self.input.consume(step);
            bytes += step as u64 - u64::from(end.is_some());
            if end.is_some() {
                break;
            }
        }
        Ok(Some(Record::TooLarge(bytes)))
    }
}

fn trim(data: &mut Vec<u8>, start: usize, record: Record) -> Record {
    if record == Record::Whole {
        if data[start..].ends_with(b"\n") {
            data.pop();
        }
        if data[start..].ends_with(b"\r") {
            data.pop();
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::tests::kit::Dir;

    fn records(bytes: &[u8], csv: bool) -> Vec<(Record, String)> {
        let path = Dir::new();
        let file = File::open(path.text("a", bytes)).unwrap();
        let mut records = Records::new(file, csv).unwrap();
        let (mut found, mut data) = (Vec::new(), Vec::new());
        while let Some(record) = records.next(&mut data).unwrap() {
            found.push((record, String::from_utf8_lossy(&data).into_owned()));
            data.clear();
        }
        found
    }

    fn whole(lines: &[&str]) -> Vec<(Record, String)> {
        lines.iter().map(|line| (Record::Whole, (*line).to_owned())).collect()
    }

    #[test]
    fn lines_end_in_either_way_or_not_at_all() {
        assert_eq!(records(b"\xef\xbb\xbfa\r\n\nb\n c", false), whole(&["a", "", "b", " c"]));
        assert_eq!(records(b"a\n", false), whole(&["a"]));
        assert_eq!(records(b"", false), []);
    }

    #[test]
    fn a_quoted_line_break_joins_lines() {
        assert_eq!(records(b"a,\"b\r\nc\"\nd\n", true), whole(&["a,\"b\r\nc\"", "d"]));
    }

    #[test]
    fn a_quote_that_nobody_closes_costs_one_line() {
        assert_eq!(records(b"1,\"x\n2,y\n3,\"z\n4\n", true), whole(&["1,\"x", "2,y", "3,\"z", "4"]));
        assert_eq!(records(b"0\n1,\"x\n2,y\n3,z", true), whole(&["0", "1,\"x", "2,y", "3,z"]));
        let mut long = b"1,\"x\n".to_vec();
        (0..200_000).for_each(|i| long.extend_from_slice(format!("{i},yyyyyyyy\n").as_bytes()));
        let found = records(&long, true);
        assert_eq!(found.len(), 200_001);
        assert_eq!(found[200_000].1, "199999,yyyyyyyy");
    }

    #[test]
    fn a_huge_record_keeps_its_beginning_and_the_next_is_whole() {
        let huge = [&vec![b'x'; RECORD_BYTES_MAX + 5][..], b"\nnext\n"].concat();
        for csv in [false, true] {
            let found = records(&huge, csv);
            assert_eq!(found[0].0, Record::TooLarge(RECORD_BYTES_MAX as u64 + 5));
            assert_eq!(found[0].1.len(), KEPT_BYTES);
            assert_eq!(found[1..], whole(&["next"]));
        }
        let behind_a_quote = [b"1,\"x\n", &huge[..]].concat();
        let found = records(&behind_a_quote, true);
        assert_eq!((found[0].1.as_str(), found[2].1.as_str(), found.len()), ("1,\"x", "next", 3));
        let just = [&vec![b'x'; RECORD_BYTES_MAX][..], b"\n"].concat();
        assert_eq!(records(&just, false)[0].0, Record::Whole);
    }
}
