//! What was done about versions, as rows of the table `stats/rollout`: written in the graph, read by those who want to know.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::controller::Numbers;
use crate::base::{EventTime, Tick};
use crate::ops::system::{SystemRow, system_columns, table_schema, utc};

/// Name of the table.
pub const TABLE: &str = "stats/rollout";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields = [
        ("model", DataType::Utf8),
        ("rollout", DataType::Utf8),
        ("sequence", DataType::Int64),
        ("action", DataType::Utf8),
        ("phase", DataType::Utf8),
        ("champion", DataType::Utf8),
        ("challenger", DataType::Utf8),
        ("share", DataType::Float64),
        ("lift", DataType::Float64),
        ("low", DataType::Float64),
        ("high", DataType::Float64),
        ("p_value", DataType::Float64),
        ("loss_champion", DataType::Float64),
        ("loss_challenger", DataType::Float64),
        ("rows_champion", DataType::Int64),
        ("rows_challenger", DataType::Int64),
        ("labelled_champion", DataType::Int64),
        ("labelled_challenger", DataType::Int64),
        ("sample_ratio_p", DataType::Float64),
        ("score_shift_sd", DataType::Float64),
        ("error_rate", DataType::Float64),
        ("latency_p99_ms", DataType::Float64),
        ("by", DataType::Utf8),
        ("why", DataType::Utf8),
    ];
    table_schema(fields)
});

/// Columns of the table, those that every table has in front: `event_time` is the job's clock when the row's deed took effect,
/// from `_tick` on; `phase`, `champion` and `share` (the challenger's, in per cent) are those from then on; numbers are those by
/// which it was decided.
pub fn record_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// The numbers of a decision as they are kept: what is not finite has no place in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Mean loss of the challenger less the champion's.
    pub lift: Option<f64>,
    /// Lower end of its interval, which holds at every look.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// p-value, which holds at every look.
    pub p_value: Option<f64>,
    /// Mean losses of champion and challenger.
    pub losses: [Option<f64>; 2],
    /// Rows routed.
    pub rows: [u64; 2],
    /// Rows whose losses were known.
    pub labelled: [u64; 2],
    /// p-value of the shares of rows, which holds at every look.
    pub sample_ratio_p: Option<f64>,
    /// Distance of mean scores in standard deviations.
    pub score_shift_sd: Option<f64>,
    /// Share of the challenger's rows that could not be scored.
    pub error_rate: Option<f64>,
    /// Latency in milliseconds.
    pub latency_p99_ms: Option<f64>,
}

impl From<&Numbers> for Figures {
    fn from(numbers: &Numbers) -> Figures {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        Figures {
            lift: finite(numbers.lift),
            low: finite(numbers.low),
            high: finite(numbers.high),
            p_value: finite(numbers.p_value),
            losses: numbers.losses.map(finite),
            rows: numbers.rows,
            labelled: numbers.labelled,
            sample_ratio_p: finite(numbers.guards.sample_ratio_p),
            score_shift_sd: finite(numbers.guards.score_shift),
            error_rate: finite(numbers.guards.error_rate),
            latency_p99_ms: finite(numbers.guards.latency_p99_ms),
        }
    }
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The job's clock.
    pub at: EventTime,
    /// From this tick on.
    pub tick: Tick,
    /// The model.
    pub model: String,
    /// The rollout.
    pub rollout: String,
    /// Number of the decision in its rollout; none of what was done by hand.
    pub sequence: Option<u64>,
    /// What was done, such as `step`.
    pub action: String,
    /// Where the rollout stands from then on.
    pub phase: String,
    /// The champion from then on.
    pub champion: String,
    /// The challenger.
    pub challenger: String,
    /// The challenger's share from then on, in per cent.
    pub share: f64,
    /// The numbers by which it was decided.
    pub figures: Figures,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Rows of the table, in the order given.
///
/// # Errors
/// Never, short of a defect: the columns are those of the schema.
pub fn record_batch(records: &[Record], job_version: u32) -> Result<RecordBatch, ArrowError> {
    let text =
        |of: fn(&Record) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(records.iter().map(of))) };
    let float = |of: fn(&Figures) -> Option<f64>| -> ArrayRef {
        Arc::new(Float64Array::from_iter(records.iter().map(|record| of(&record.figures))))
    };
    let whole = |of: fn(&Figures) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(records.iter().map(|record| of(&record.figures).cast_signed())))
    };
    let places = records.iter().zip(0..).map(|(record, number)| SystemRow {
        time: Some(record.at),
        tick: record.tick,
        source: format!("rollout.{}", record.model),
        partition: 0,
        offset: number,
    });
    let mut columns = system_columns(places, job_version);
    let own: Vec<ArrayRef> = vec![
        text(|r| &r.model),
        text(|r| &r.rollout),
        Arc::new(Int64Array::from_iter(records.iter().map(|r| r.sequence.map(u64::cast_signed)))),
        text(|r| &r.action),
        text(|r| &r.phase),
        text(|r| &r.champion),
        text(|r| &r.challenger),
        Arc::new(Float64Array::from_iter_values(records.iter().map(|r| r.share))),
        float(|f| f.lift),
        float(|f| f.low),
        float(|f| f.high),
        float(|f| f.p_value),
        float(|f| f.losses[0]),
        float(|f| f.losses[1]),
        whole(|f| f.rows[0]),
        whole(|f| f.rows[1]),
        whole(|f| f.labelled[0]),
        whole(|f| f.labelled[1]),
        float(|f| f.sample_ratio_p),
        float(|f| f.score_shift_sd),
        float(|f| f.error_rate),
        float(|f| f.latency_p99_ms),
        text(|r| &r.by),
        text(|r| &r.why),
    ];
    columns.extend(own);
    RecordBatch::try_new(record_schema(), columns)
}

/// Reads rows of the table, whatever the order of their columns.
///
/// # Errors
/// A sentence, when a column is missing or of another type, or a row has no time.
pub fn records_of(batch: &RecordBatch) -> Result<Vec<Record>, String> {
    let column = |name: &str, ty: DataType| -> Result<ArrayRef, String> {
        let column = batch.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"))?;
        cast(column, &ty).map_err(|error| format!("column `{name}`: {error}"))
    };
    let texts = |names: [&str; 8]| -> Result<Vec<ArrayRef>, String> {
        names.into_iter().map(|name| column(name, DataType::Utf8)).collect()
    };
    let texts = texts(["model", "rollout", "action", "phase", "champion", "challenger", "by", "why"])?;
    let floats = [
        "share",
        "lift",
        "low",
        "high",
        "p_value",
        "loss_champion",
        "loss_challenger",
        "sample_ratio_p",
        "score_shift_sd",
        "error_rate",
        "latency_p99_ms",
    ];
    let floats: Vec<ArrayRef> =
        floats.into_iter().map(|name| column(name, DataType::Float64)).collect::<Result<_, _>>()?;
    let wholes = ["_tick", "sequence", "rows_champion", "rows_challenger", "labelled_champion", "labelled_challenger"];
    let wholes: Vec<ArrayRef> =
        wholes.into_iter().map(|name| column(name, DataType::Int64)).collect::<Result<_, _>>()?;
    let times = column("event_time", utc())?;
    (0..batch.num_rows())
        .map(|row| {
            let text = |i: usize| match texts[i].is_valid(row) {
                true => texts[i].as_string::<i32>().value(row).to_owned(),
                false => String::new(),
            };
            let float = |i: usize| floats[i].is_valid(row).then(|| floats[i].as_primitive::<Float64Type>().value(row));
            let whole = |i: usize| {
                let valid = wholes[i].is_valid(row);
                valid.then(|| wholes[i].as_primitive::<Int64Type>().value(row).max(0).cast_unsigned())
            };
            if times.is_null(row) {
                return Err("a row has no time".to_owned());
            }
            let count = |i: usize| whole(i).unwrap_or(0);
            Ok(Record {
                at: times.as_primitive::<TimestampMicrosecondType>().value(row),
                tick: count(0),
                model: text(0),
                rollout: text(1),
                sequence: whole(1),
                action: text(2),
                phase: text(3),
                champion: text(4),
                challenger: text(5),
                share: float(0).unwrap_or(0.0),
                figures: Figures {
                    lift: float(1),
                    low: float(2),
                    high: float(3),
                    p_value: float(4),
                    losses: [float(5), float(6)],
                    rows: [count(2), count(3)],
                    labelled: [count(4), count(5)],
                    sample_ratio_p: float(7),
                    score_shift_sd: float(8),
                    error_rate: float(9),
                    latency_p99_ms: float(10),
                },
                by: text(6),
                why: text(7),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::guard::Seen;

    #[test]
    fn rows_are_read_back_as_they_were_written() {
        let numbers = Numbers {
            lift: Some(-0.25),
            low: Some(f64::NEG_INFINITY),
            high: Some(0.5),
            p_value: Some(1e-9),
            rows: [9, 8],
            labelled: [7, 6],
            losses: [Some(1.0), None],
            guards: Seen { error_rate: Some(0.01), latency_p99_ms: Some(12.5), ..Seen::default() },
            ..Numbers::default()
        };
        let figures = Figures::from(&numbers);
        assert_eq!(figures.low, None);
        let record = |sequence, tick| Record {
            at: 1_767_225_600_000_000 + tick as i64,
            tick,
            model: "fraud".into(),
            rollout: "7".into(),
            sequence,
            action: "step".into(),
            phase: "canary".into(),
            champion: "1".into(),
            challenger: "2".into(),
            share: 2.5,
            figures,
            by: "the job".into(),
            why: "so".into(),
        };
        let records = vec![record(Some(3), 7), record(None, 8)];
        let batch = record_batch(&records, 1).unwrap();
        assert_eq!(records_of(&batch).unwrap(), records);
        let reversed: Vec<usize> = (0..batch.num_columns()).rev().collect();
        assert_eq!(records_of(&batch.project(&reversed).unwrap()).unwrap(), records);
        let without = batch.project(&[0, 1, 2, 7]).unwrap();
        assert!(records_of(&without).unwrap_err().contains("`rollout`"));
    }
}
