//! Dead letters: of the job's process while it runs, else of its tables.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use axum::extract::{Path, RawQuery};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::stats::unread;
use super::wire::{Json, Query};
use super::{Console, in_path, parameter, plan_of, reads};
use crate::base::format_time;
use crate::engine::status::LetterStatus;
use crate::http::{Api, Place, Problem, schema_of};
use crate::ingest::DEAD_LETTERS;
use crate::ops::system::utc;
use crate::plan::model::Plan;
use crate::store::StoreError;
use crate::store::offline::{TableReader, table_path};

/// Letters that are told at most.
const LIMIT_MAX: usize = 1_000;
/// Letters that are told when nobody says how many.
const LIMIT: usize = 200;
/// Bytes of a letter that are told of a table's row.
const BYTES_MAX: usize = 64 << 10;
/// Dates of a table that are looked at.
const DATES_MAX: usize = 8;
/// Letters of unknown event time have this date.
const NO_DATE: &str = "1970-01-01";

/// A row that was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Letter {
    /// Name of the source.
    pub source: String,
    /// Partition of the source.
    pub partition: i64,
    /// Offset in the partition.
    pub offset: i64,
    /// Why it was turned away, in one word.
    pub kind: String,
    /// Why, in words.
    pub reason: String,
    /// When the job noted it; absent of letters from tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The row's event time, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<String>,
    /// The row as it came, in base64; its beginning where it is long.
    pub bytes_base64: String,
    /// The same as text, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Bytes of the row.
    pub bytes: u64,
}

/// A job's newest dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Letters {
    /// `job`: what its process has in memory; `tables`: rows of the tables of dead letters.
    from: String,
    /// The newest first.
    letters: Vec<Letter>,
}

pub(super) fn api(console: &Arc<Console>) -> Api {
    let mut letters = reads(
        "/api/v1/jobs/{id}/dead-letters",
        "job_dead_letters",
        "statistics",
        "A job's newest dead letters: of its process, else of its tables.",
        schema_of::<Letters>(),
    );
    let limit = json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT});
    letters.parameters = vec![in_path("id", "The job."), parameter("limit", Place::Query, "So many at most.", limit)];
    letters.problems = vec![400, 404, 422];
    let console = Arc::clone(console);
    Api::default().with(
        letters,
        get(async move |Path(id): Path<String>, RawQuery(query): RawQuery| -> Result<Json<Letters>, Problem> {
            let limit = Query::of(query.as_deref()).limit(LIMIT, LIMIT_MAX)?;
            console.read(move |console| console.letters(&id, limit)).await.map(Json)
        }),
    )
}

impl Console {
    fn letters(&self, id: &str, limit: usize) -> Result<Letters, Problem> {
        let job = self.job(id)?;
        if let Some(letters) = self.parts.source.letters(&job, limit) {
            let letters = letters.into_iter().take(limit).map(Letter::from).collect::<Vec<_>>();
            // A process that has just begun has none of those before it.
            if !letters.is_empty() {
                return Ok(Letters { from: "job".to_owned(), letters });
            }
        }
        let plan = plan_of(&job)?;
        let Some(offline) = &plan.offline else { return Ok(Letters { from: "job".to_owned(), letters: Vec::new() }) };
        let root = PathBuf::from(&offline.uri);
        let mut found: Vec<(i64, Letter)> = Vec::new();
        for name in tables(plan) {
            match TableReader::open(&table_path(&root, &name), None) {
                Ok(table) => read(&table, limit, &mut found)?,
                Err(StoreError::NoTable(_)) => {}
                Err(error) => return Err(unread(&error)),
            }
        }
        found.sort_by(|(a, one), (b, other)| (b, other.offset).cmp(&(a, one.offset)));
        found.truncate(limit);
        Ok(Letters { from: "tables".to_owned(), letters: found.into_iter().map(|(_, letter)| letter).collect() })
    }
}

/// Names of the tables of dead letters.
fn tables(plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = plan.sources.iter().map(|source| source.rejected_to.clone()).collect();
    names.push(DEAD_LETTERS.to_owned());
    names.sort_unstable();
    names.dedup();
    names
}

/// The letters of the newest dates, until there are enough.
fn read(table: &TableReader, limit: usize, found: &mut Vec<(i64, Letter)>) -> Result<(), Problem> {
    let dates = table.dates().map_err(|error| unread(&error))?;
    let undated = dates.contains(NO_DATE).then(|| NO_DATE.to_owned());
    let newest = dates.into_iter().rev().filter(|date| date != NO_DATE).take(DATES_MAX);
    let mut rows = 0;
    for date in undated.into_iter().chain(newest) {
        if rows >= limit && date != NO_DATE {
            break;
        }
        let mut of_date = Vec::new();
        for batch in table.read_date(&date).map_err(|error| unread(&error))? {
            rows_of(&batch, limit, &mut of_date)
                .map_err(|what| Problem::unavailable(format!("dead letters: {what}")))?;
        }
        if date != NO_DATE {
            rows += of_date.len();
        }
        found.append(&mut of_date);
    }
    Ok(())
}

/// The newest rows of a batch.
fn rows_of(batch: &RecordBatch, limit: usize, found: &mut Vec<(i64, Letter)>) -> Result<(), String> {
    let column = |name: &str, ty: DataType| {
        let column = batch.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"))?;
        cast(column, &ty).map_err(|error| format!("column `{name}`: {error}"))
    };
    let (ticks, partitions, offsets) = (
        column("_tick", DataType::Int64)?,
        column("_partition", DataType::Int64)?,
        column("_offset", DataType::Int64)?,
    );
    let (sources, kinds, reasons) =
        (column("_source", DataType::Utf8)?, column("kind", DataType::Utf8)?, column("reason", DataType::Utf8)?);
    let (times, originals) = (column("event_time", utc())?, column("original", DataType::Binary)?);
    let ticks = ticks.as_primitive::<Int64Type>();
    let mut order: Vec<usize> = (0..batch.num_rows()).collect();
    order.sort_by_key(|row| Reverse(ticks.value(*row)));
    for row in order.into_iter().take(limit) {
        let text = |column: &dyn Array| column.as_string::<i32>().value(row).to_owned();
        let whole = originals.as_binary::<i32>().value(row);
        let shown = &whole[..whole.len().min(BYTES_MAX)];
        let time =
            times.is_valid(row).then(|| format_time(times.as_primitive::<TimestampMicrosecondType>().value(row)));
        let letter = Letter {
            source: text(&sources),
            partition: partitions.as_primitive::<Int64Type>().value(row),
            offset: offsets.as_primitive::<Int64Type>().value(row),
            kind: text(&kinds),
            reason: text(&reasons),
            at: None,
            event_time: time,
            bytes_base64: base64(shown),
            text: std::str::from_utf8(shown).ok().map(str::to_owned),
            bytes: whole.len() as u64,
        };
        found.push((ticks.value(row), letter));
    }
    Ok(())
}

impl From<LetterStatus> for Letter {
    fn from(letter: LetterStatus) -> Letter {
        Letter {
            source: letter.source,
            partition: i64::from(letter.partition),
            offset: letter.offset.cast_signed(),
            kind: letter.kind,
            reason: letter.reason,
            at: Some(letter.at),
            event_time: letter.event_time,
            bytes_base64: letter.bytes_base64,
            text: letter.text,
            bytes: letter.bytes,
        }
    }
}

/// Base64 with padding, RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
