//! What was done about versions, as rows of the table `stats/rollout`.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::base::{DAY, EventTime, Tick};
use crate::plan::model::Share;
use crate::rollout::Numbers;

/// Name of the table.
pub const TABLE: &str = "stats/rollout";

const UTC: &str = "UTC";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields = [
        ("event_time", DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))),
        ("event_date", DataType::Date32),
        ("_tick", DataType::Int64),
        ("_source", DataType::Utf8),
        ("_partition", DataType::Int32),
        ("_offset", DataType::Int64),
        ("_job_version", DataType::Int32),
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
    Arc::new(Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
});

/// Columns of the table, those that every table has in front: `event_time` is the job's clock when the row's deed took effect,
/// from `_tick` on; `share` is the challenger's from then on, in per cent; numbers are those by which it was decided.
pub fn decision_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// The numbers of a decision as they are saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Challenger less champion.
    pub lift: Option<f64>,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// At every look.
    pub p_value: Option<f64>,
    /// Mean losses.
    pub losses: [Option<f64>; 2],
    /// Rows routed.
    pub rows: [u64; 2],
    /// Rows with labels.
    pub labelled: [u64; 2],
    /// What the guards saw.
    pub sample_ratio_p: Option<f64>,
    /// Likewise.
    pub score_shift_sd: Option<f64>,
    /// Likewise.
    pub error_rate: Option<f64>,
    /// Likewise.
    pub latency_p99_ms: Option<f64>,
}

impl Figures {
    /// Those of a controller. What is not finite has no place in a table.
    pub fn of(numbers: &Numbers) -> Figures {
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
pub struct Done {
    /// The job's clock.
    pub at: EventTime,
    /// The tick from which on it holds.
    pub tick: Tick,
    /// The rollout.
    pub id: String,
    /// Number of the decision in its rollout; none of what was done by hand.
    pub seq: Option<u64>,
    /// What.
    pub action: String,
    /// Where the rollout stands from then on.
    pub phase: String,
    /// The champion from then on.
    pub champion: String,
    /// The challenger.
    pub challenger: String,
    /// The challenger's share from then on.
    pub share: Share,
    /// The numbers by which it was decided.
    pub figures: Figures,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Rows of the table, in the order given.
pub fn decision_batch(model: &str, done: &[Done], job_version: u32) -> Result<RecordBatch, String> {
    let text =
        |of: &dyn Fn(&Done) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(done.iter().map(of))) };
    let float = |of: &dyn Fn(&Figures) -> Option<f64>| -> ArrayRef {
        Arc::new(Float64Array::from_iter(done.iter().map(|done| of(&done.figures))))
    };
    let whole = |of: &dyn Fn(&Figures) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(done.iter().map(|done| of(&done.figures).cast_signed())))
    };
    let same = |value: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(done.iter().map(|_| value))) };
    let source = format!("rollout.{model}");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(done.iter().map(|done| done.at)).with_timezone(UTC)),
        Arc::new(Date32Array::from_iter_values(
            done.iter().map(|done| i32::try_from(done.at.div_euclid(DAY)).unwrap_or(0)),
        )),
        Arc::new(Int64Array::from_iter_values(done.iter().map(|done| done.tick.cast_signed()))),
        same(&source),
        Arc::new(Int32Array::from_value(0, done.len())),
        Arc::new(Int64Array::from_iter_values((0..done.len()).map(|n| n as i64))),
        Arc::new(Int32Array::from_value(job_version.cast_signed(), done.len())),
        same(model),
        text(&|done| &done.id),
        Arc::new(Int64Array::from_iter(done.iter().map(|done| done.seq.map(u64::cast_signed)))),
        text(&|done| &done.action),
        text(&|done| &done.phase),
        text(&|done| &done.champion),
        text(&|done| &done.challenger),
        Arc::new(Float64Array::from_iter_values(done.iter().map(|done| f64::from(done.share) / 100.0))),
        float(&|f| f.lift),
        float(&|f| f.low),
        float(&|f| f.high),
        float(&|f| f.p_value),
        float(&|f| f.losses[0]),
        float(&|f| f.losses[1]),
        whole(&|f| f.rows[0]),
        whole(&|f| f.rows[1]),
        whole(&|f| f.labelled[0]),
        whole(&|f| f.labelled[1]),
        float(&|f| f.sample_ratio_p),
        float(&|f| f.score_shift_sd),
        float(&|f| f.error_rate),
        float(&|f| f.latency_p99_ms),
        text(&|done| &done.by),
        text(&|done| &done.why),
    ];
    RecordBatch::try_new(decision_schema(), columns).map_err(|error| error.to_string())
}
