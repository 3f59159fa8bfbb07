//! Packed rows as JSON, column by column.

use axum::body::Bytes;

use super::catalogue::View;
use super::link::{LinkError, Rows};
use crate::base::{EventTime, format_time};
use crate::store::lookup::Status;
use crate::store::online::ColumnType;
use crate::store::online::value::{Header, walk};

/// The time that a row has which is not there.
pub const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// Where a value lies in its row; nowhere where it is null.
#[derive(Clone, Copy, Debug)]
struct Cell {
    start: u32,
    length: u32,
}

const NULL: Cell = Cell { start: 0, length: u32::MAX };

/// How a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be used.
    Present,
    /// There is none.
    Absent,
    /// Its entity is null, so there cannot be one.
    Invalid,
    /// Older than the view's ttl: its values are not told.
    Expired,
    /// Not rewritten when it should have been: its values are told.
    Overdue,
}

impl Standing {
    /// As Feast calls it.
    pub fn status(self) -> &'static str {
        match self {
            Standing::Present => Status::Present.as_str(),
            Standing::Absent => Status::NotFound.as_str(),
            Standing::Invalid => "INVALID",
            Standing::Expired | Standing::Overdue => Status::OutsideMaxAge.as_str(),
        }
    }

    /// Judges a row by its header and the job's clock.
    pub fn of(header: &Header, view: &View, now: Option<EventTime>) -> Standing {
        let Some(now) = now else { return Standing::Present };
        if view.ttl.is_some_and(|ttl| now.saturating_sub(header.event_time) > ttl) {
            Standing::Expired
        } else if now > header.valid_until.saturating_add(view.refresh) {
            Standing::Overdue
        } else {
            Standing::Present
        }
    }
}

/// Some columns of a view's rows, ready to be written.
pub struct Table {
    rows: Vec<Option<Bytes>>,
    /// Layout of each row.
    layouts: Vec<u32>,
    standings: Vec<Standing>,
    times: Vec<Option<EventTime>>,
    cells: Vec<Cell>,
    wanted: usize,
    /// By layout and wanted column.
    types: Vec<Vec<Option<ColumnType>>>,
}

impl Table {
    /// Finds the `wanted` columns in rows. `invalid` are rows whose entity is null.
    ///
    /// # Errors
    /// [`LinkError::Damaged`] when a row makes no sense.
    pub fn new(view: &View, wanted: &[&str], found: Rows, invalid: &[usize]) -> Result<Table, LinkError> {
        let damaged = |what: &str| LinkError::Damaged(format!("a row of view {}: {what}", view.name));
        let Rows { layouts, now, rows, .. } = found;
        let mut types = Vec::with_capacity(layouts.all.len());
        let mut places = Vec::with_capacity(layouts.all.len());
        for (_, schema) in &layouts.all {
            let slots = wanted.iter().map(|name| schema.columns.iter().position(|c| c.name == *name));
            let slots: Vec<Option<usize>> = slots.collect();
            types.push(slots.iter().map(|slot| slot.map(|at| schema.columns[at].column_type)).collect());
            let mut place = vec![u32::MAX; schema.columns.len()];
            slots.iter().enumerate().for_each(|(slot, at)| at.iter().for_each(|&at| place[at] = slot as u32));
            places.push(place);
        }
        let mut table = Table {
            layouts: Vec::with_capacity(rows.len()),
            standings: Vec::with_capacity(rows.len()),
            times: Vec::with_capacity(rows.len()),
            cells: vec![NULL; rows.len() * wanted.len()],
            wanted: wanted.len(),
            rows,
            types,
        };
        for (at, row) in table.rows.iter().enumerate() {
            let Some(row) = row.as_ref().filter(|_| !invalid.contains(&at)) else {
                let standing = if invalid.contains(&at) { Standing::Invalid } else { Standing::Absent };
                table.standings.push(standing);
                table.layouts.push(0);
                table.times.push(None);
                continue;
            };
            let header = Header::read(row).ok_or_else(|| damaged("it has an unknown format"))?;
            let layout = layouts.place(header.schema).ok_or_else(|| damaged("it follows an unknown layout"))?;
            table.standings.push(Standing::of(&header, view, now));
            table.layouts.push(layout as u32);
            table.times.push(Some(header.event_time));
            let cells = &mut table.cells[at * wanted.len()..][..wanted.len()];
            let (place, start) = (&places[layout], row.as_ptr() as usize);
            walk(&layouts.types[layout], row, |column, value| {
                if let (Some(value), Some(cell)) = (value, cells.get_mut(place[column] as usize)) {
                    *cell = Cell { start: (value.as_ptr() as usize - start) as u32, length: value.len() as u32 };
                }
            })
            .map_err(|what| damaged(&what))?;
        }
        Ok(table)
    }

    /// Writes a column as Feast has it: `{"values":[…],"statuses":[…],"event_timestamps":[…]}`. `times` are
    /// [`times`](Self::times).
    pub fn column(&self, wanted: usize, times: &[String], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"values\":[");
        let mut statuses = Vec::with_capacity(self.rows.len());
        for row in 0..self.rows.len() {
            if row > 0 {
                out.push(b',');
            }
            statuses.push(self.value(row, wanted, out));
        }
        out.extend_from_slice(b"],\"statuses\":[");
        for (row, status) in statuses.into_iter().enumerate() {
            if row > 0 {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(status.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b"],\"event_timestamps\":[");
        for (row, time) in times.iter().enumerate() {
            if row > 0 {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(time.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b"]}");
    }

    /// The event time of each row, in words.
    pub fn times(&self) -> Vec<String> {
        self.times.iter().map(|time| time.map_or_else(|| NO_TIME.to_owned(), format_time)).collect()
    }

    /// Writes a value, and tells its status.
    fn value(&self, row: usize, wanted: usize, out: &mut Vec<u8>) -> &'static str {
        let standing = self.standings[row];
        let cell = self.cells[row * self.wanted + wanted];
        let column_type = self.types.get(self.layouts[row] as usize).and_then(|types| types[wanted]);
        let told = matches!(standing, Standing::Present | Standing::Overdue);
        let bytes = self.rows[row].as_ref().filter(|_| told && cell.length != u32::MAX);
        let value = bytes.and_then(|row| row.get(cell.start as usize..(cell.start + cell.length) as usize));
        match value.zip(column_type) {
            Some((value, column_type)) => write_value(column_type, value, out),
            None => out.extend_from_slice(b"null"),
        }
        match standing {
            Standing::Present | Standing::Overdue if value.is_none() => Status::NullValue.as_str(),
            standing => standing.status(),
        }
    }
}

/// Writes a packed value as JSON: NaN and infinities as text, bytes in base64, times as RFC 3339.
pub fn write_value(column_type: ColumnType, value: &[u8], out: &mut Vec<u8>) {
    macro_rules! number {
        ($t:ty) => {
            match value.try_into().map(<$t>::from_le_bytes) {
                Ok(number) => serde_json::to_writer(out, &number),
                Err(_) => serde_json::to_writer(out, &()),
            }
        };
    }
    let written = match column_type {
        ColumnType::Boolean => serde_json::to_writer(out, &(value != [0])),
        ColumnType::Int8 => number!(i8),
        ColumnType::Int16 => number!(i16),
        ColumnType::Int32 => number!(i32),
        ColumnType::Int64 => number!(i64),
        ColumnType::UInt8 => number!(u8),
        ColumnType::UInt16 => number!(u16),
        ColumnType::UInt32 => number!(u32),
        ColumnType::UInt64 => number!(u64),
        ColumnType::Float32 | ColumnType::Float64 => {
            let wide = match value.len() {
                4 => value.try_into().map_or(f64::NAN, |b| f64::from(f32::from_le_bytes(b))),
                _ => value.try_into().map_or(f64::NAN, f64::from_le_bytes),
            };
            match wide {
                x if x.is_nan() => serde_json::to_writer(out, "NaN"),
                x if x.is_infinite() => serde_json::to_writer(out, if x > 0.0 { "Infinity" } else { "-Infinity" }),
                _ if column_type == ColumnType::Float32 => number!(f32),
                x => serde_json::to_writer(out, &x),
            }
        }
        ColumnType::Text => serde_json::to_writer(out, &String::from_utf8_lossy(value)),
        ColumnType::Bytes => serde_json::to_writer(out, &base64(value)),
        ColumnType::Date => {
            let days = value.try_into().map_or(0, i32::from_le_bytes);
            let midnight = format_time(i64::from(days).saturating_mul(86_400_000_000));
            serde_json::to_writer(out, midnight.split_once('T').map_or(midnight.as_str(), |(date, _)| date))
        }
        ColumnType::Timestamp => {
            serde_json::to_writer(out, &format_time(value.try_into().map_or(0, i64::from_le_bytes)))
        }
    };
    // Memory takes everything.
    debug_assert!(written.is_ok());
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let six = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= group.len() { DIGITS[six] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(column_type: ColumnType, value: &[u8]) -> String {
        let mut out = Vec::new();
        write_value(column_type, value, &mut out);
        String::from_utf8(out).expect("JSON is text")
    }

    #[test]
    fn values_as_json() {
        assert_eq!(written(ColumnType::Int64, &(-7i64).to_le_bytes()), "-7");
        assert_eq!(written(ColumnType::Float64, &0.1f64.to_le_bytes()), "0.1");
        assert_eq!(written(ColumnType::Float32, &0.1f32.to_le_bytes()), "0.1");
        assert_eq!(written(ColumnType::Float32, &f32::NAN.to_le_bytes()), "\"NaN\"");
        assert_eq!(written(ColumnType::Float64, &f64::NEG_INFINITY.to_le_bytes()), "\"-Infinity\"");
        assert_eq!(written(ColumnType::Text, "a\"é".as_bytes()), "\"a\\\"é\"");
        assert_eq!(written(ColumnType::Boolean, &[1]), "true");
        assert_eq!(written(ColumnType::Date, &(-1i32).to_le_bytes()), "\"1969-12-31\"");
        assert_eq!(written(ColumnType::Timestamp, &1_500_000i64.to_le_bytes()), "\"1970-01-01T00:00:01.500Z\"");
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
