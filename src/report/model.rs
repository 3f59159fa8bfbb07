//! What the page says, as data: times are microseconds of event time in UTC, but where a wall clock is named.

use serde::Serialize;

pub use super::metrics::{Better, Unit};
use crate::base::EventTime;

/// The page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page {
    /// Name of the job.
    pub job: String,
    /// Version of the job.
    pub job_version: u32,
    /// Directory of the tables.
    pub root: String,
    /// Tables that were read, each at its version.
    pub tables: Vec<(String, u64)>,
    /// First moment that was asked for.
    pub from: Option<EventTime>,
    /// First moment after what was asked for.
    pub to: Option<EventTime>,
    /// One part for each model.
    pub models: Vec<ModelPage>,
}

/// What is said of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ModelPage {
    /// The model.
    pub model: String,
    /// Length of its windows, in microseconds.
    pub window: i64,
    /// Its versions in the order of their first prediction or statistic.
    pub versions: Vec<Version>,
    /// First moment of the first window, first moment after the last.
    pub span: Option<(EventTime, EventTime)>,
    /// What was known by this time is on the page.
    pub as_of: Option<EventTime>,
    /// Predictions that the table holds; none where there is no such table.
    pub predictions: Option<u64>,
    /// What matters most.
    pub headline: Vec<Tile>,
    /// Predictions by day and version.
    pub volume: Option<Chart>,
    /// How predictions compare with labels.
    pub accuracy: Vec<Chart>,
    /// Windows that were told again.
    pub revisions: Option<Revisions>,
    /// What became of the labels.
    pub labels: Vec<Chart>,
    /// Statistics by segment, of the newest window.
    pub segments: Vec<SegmentTable>,
    /// Labels against predictions, of the newest window.
    pub confusion: Option<Confusion>,
    /// Drift by column and window.
    pub heat: Option<Heat>,
    /// Drift of single columns.
    pub columns: Vec<Chart>,
    /// Columns that have no chart of their own for want of room.
    pub columns_left_out: usize,
    /// Other statistics of drift, of no column.
    pub drift: Vec<Chart>,
    /// What change detectors say of the stream of errors.
    pub errors: Vec<Chart>,
    /// Quality by column.
    pub quality: Option<QualityTable>,
    /// Quality of rows as a whole.
    pub rows: Vec<Chart>,
    /// Alerts.
    pub alerts: Vec<AlertSpan>,
    /// Whether there is a table of alerts.
    pub has_alerts: bool,
    /// How the job ran, by the wall clock.
    pub operation: Vec<Chart>,
    /// Samples that one point of these stands for, the worst of them.
    pub samples: usize,
}

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Its colour's number.
    pub colour: usize,
    /// Predictions that it made, where the table of predictions is there.
    pub predictions: Option<u64>,
}

/// One number that matters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tile {
    /// What it is.
    pub title: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
    /// What it is of.
    pub of: String,
    /// Its window.
    pub window: Option<(EventTime, EventTime)>,
    /// The number in the window before.
    pub before: Option<f64>,
    /// Which way is better.
    pub better: Better,
    /// Whether it calls for attention.
    pub alarm: bool,
    /// Whether it may still change.
    pub open: bool,
}

/// How a chart is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// A line for each series.
    #[default]
    Lines,
    /// Bars, one series on the other.
    Bars,
}

/// Values over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Chart {
    /// What is shown.
    pub title: String,
    /// A remark.
    pub note: Option<String>,
    /// Name of the statistic.
    pub metric: String,
    /// Unit of the values.
    pub unit: Unit,
    /// How it is drawn.
    pub look: Look,
    /// The series.
    pub lines: Vec<Line>,
    /// Beyond this, a value is an alarm: the newest threshold.
    pub threshold: Option<f64>,
}

/// One series of a chart.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its colour's number.
    pub colour: usize,
    /// Its values, in their order.
    pub points: Vec<Point>,
}

/// A value of a window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// First moment of the window.
    pub start: EventTime,
    /// First moment after it.
    pub end: EventTime,
    /// The value as it is known now.
    pub value: Option<f64>,
    /// As it was told first, where it was told again.
    pub first: Option<f64>,
    /// Rows behind it.
    pub rows: u64,
    /// Whether it is beyond its threshold.
    pub alarm: bool,
    /// Whether nothing more can change it.
    pub complete: bool,
}

/// Windows that were told again as labels came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Revisions {
    /// Windows.
    pub windows: usize,
    /// Those that were told more than once.
    pub told_again: usize,
    /// The statistic that changed most relative to itself: name, window, first, newest.
    pub largest: Option<(String, EventTime, f64, f64)>,
}

/// Statistics of the segments of one column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentTable {
    /// The column.
    pub column: String,
    /// The window.
    pub window: (EventTime, EventTime),
    /// The version.
    pub version: String,
    /// The statistics.
    pub metrics: Vec<String>,
    /// Value of the column, rows, a value for each statistic; most rows first.
    pub rows: Vec<(String, u64, Vec<Option<f64>>)>,
    /// Values of the column that are not listed for want of room.
    pub left_out: usize,
}

/// Labels against predictions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    /// The window.
    pub window: (EventTime, EventTime),
    /// The version.
    pub version: String,
    /// The classes.
    pub classes: Vec<String>,
    /// Counts by label, then by prediction; none where nothing was told.
    pub counts: Vec<Vec<Option<f64>>>,
}

/// Drift by column and window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Heat {
    /// The windows, some of which may be several in one.
    pub windows: Vec<(EventTime, EventTime)>,
    /// Windows that are in one.
    pub together: usize,
    /// Column, and its worst statistic by window.
    pub rows: Vec<(String, Vec<Option<Cell>>)>,
}

/// A column's worst statistic in a window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The statistic.
    pub metric: String,
    /// Version of the model; empty for all.
    pub version: String,
    /// The value.
    pub value: f64,
    /// Its threshold.
    pub threshold: Option<f64>,
    /// How far the value is towards its threshold: 1 is at it.
    pub ratio: Option<f64>,
    /// Whether it is beyond it.
    pub alarm: bool,
}

/// Quality by column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QualityTable {
    /// The statistics.
    pub metrics: Vec<String>,
    /// The columns.
    pub columns: Vec<QualityColumn>,
}

/// Quality of one column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QualityColumn {
    /// The column.
    pub name: String,
    /// By statistic: its values over time; none where the column has no such statistic.
    pub values: Vec<Option<Line>>,
    /// Categories that the reference does not have, with the largest share of a window; largest first.
    pub new_categories: Vec<(String, f64)>,
}

/// An alert from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertSpan {
    /// Its rule.
    pub name: String,
    /// Its severity.
    pub severity: String,
    /// What it is about: statistic, column, segment.
    pub about: String,
    /// When it began to fire.
    pub start: EventTime,
    /// When it was resolved; none while it fires.
    pub end: Option<EventTime>,
    /// The value that set it off.
    pub value: Option<f64>,
    /// The threshold.
    pub threshold: Option<f64>,
    /// Unit of both.
    pub unit: Unit,
    /// How often it was told that it fires.
    pub times: usize,
    /// What was said first.
    pub message: String,
}
