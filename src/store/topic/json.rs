//! Rows as JSON.

use std::io::Write;

use arrow::datatypes::Schema;

use super::cells::Cell;
use crate::base::{DAY, format_time};

/// What stands before each value: `{"a":`, `,"b":` and so on.
pub(super) fn heads(schema: &Schema) -> Vec<Vec<u8>> {
    let fields = schema.fields().iter().enumerate();
    fields
        .map(|(i, field)| {
            let mut head = vec![if i == 0 { b'{' } else { b',' }];
            write_serde(field.name().as_str(), &mut head);
            head.push(b':');
            head
        })
        .collect()
}

/// Writes a row as an object.
pub(super) fn write_row(heads: &[Vec<u8>], cells: &[Cell<'_>], row: usize, out: &mut Vec<u8>) {
    if heads.is_empty() {
        out.push(b'{');
    }
    for (head, cell) in heads.iter().zip(cells) {
        out.extend_from_slice(head);
        write_cell(cell, row, out);
    }
    out.push(b'}');
}

/// Writes one value.
pub(super) fn write_cell(cell: &Cell<'_>, row: usize, out: &mut Vec<u8>) {
    if cell.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match cell {
        Cell::Boolean(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
        Cell::Int8(a) => write_serde(&a.value(row), out),
        Cell::Int16(a) => write_serde(&a.value(row), out),
        Cell::Int32(a) => write_serde(&a.value(row), out),
        Cell::Int64(a) => write_serde(&a.value(row), out),
        Cell::Float32(a) => match a.value(row) {
            value if value.is_finite() => write_serde(&value, out),
            value => write_strange(f64::from(value), out),
        },
        Cell::Float64(a) => match a.value(row) {
            value if value.is_finite() => write_serde(&value, out),
            value => write_strange(value, out),
        },
        Cell::Text(a) => write_serde(a.value(row), out),
        Cell::Bytes(a) => write_base64(a.value(row), out),
        Cell::Date(a) => {
            out.push(b'"');
            write_date(i64::from(a.value(row)), out);
            out.push(b'"');
        }
        Cell::Time(a) => write_time(a.value(row), out),
        Cell::Decimal(a, scale) => write_decimal(a.value(row), *scale, out),
    }
}

fn write_serde<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // Writing a number or a text to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn write_strange(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match value {
        v if v.is_nan() => b"\"NaN\"",
        v if v > 0.0 => b"\"Infinity\"",
        _ => b"\"-Infinity\"",
    });
}

/// RFC 3339 in UTC with six digits of microseconds.
fn write_time(time: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    let (days, rest) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    if year_of(days).is_some() {
        write_date(days, out);
        out.push(b'T');
        let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
        digits(seconds / 3_600, 2, out);
        out.push(b':');
        digits(seconds / 60 % 60, 2, out);
        out.push(b':');
        digits(seconds % 60, 2, out);
        out.push(b'.');
        digits(micros, 6, out);
        out.push(b'Z');
    } else {
        out.extend_from_slice(format_time(time).as_bytes());
    }
    out.push(b'"');
}

fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    match year_of(days) {
        Some(year) => digits(year, 4, out),
        // A sign and at least four digits, as ISO 8601 writes years that RFC 3339 does not know.
        None => {
            // Writing to memory cannot fail.
            let _ = write!(out, "{year:+05}");
        }
    }
    out.push(b'-');
    digits(month, 2, out);
    out.push(b'-');
    digits(day, 2, out);
}

/// The year, where four digits hold it.
fn year_of(days: i64) -> Option<i64> {
    Some(civil(days).0).filter(|year| (0..=9_999).contains(year))
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A number that is not negative, with leading zeros.
fn digits(value: i64, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10_i64.pow(place) % 10) as u8);
    }
}

fn write_decimal(value: i128, scale: usize, out: &mut Vec<u8>) {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.push(b'-');
    }
    let zeros = (scale + 1).saturating_sub(digits.len());
    let padded = "0".repeat(zeros) + &digits;
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    out.extend_from_slice(whole.as_bytes());
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

/// Base64 (RFC 4648 §4) in quotes.
fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            out.push(match place <= chunk.len() {
                true => ALPHABET[(word >> (18 - 6 * place) & 63) as usize],
                false => b'=',
            });
        }
    }
    out.push(b'"');
}
