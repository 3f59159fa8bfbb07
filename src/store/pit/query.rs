//! What a set is asked to be.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::{EventTime, Micros, parse_time};

/// Payload columns of the tables `labels/<model>`: the prediction's id, the label (null withdraws it), when it became known.
pub const LABEL_TABLE_COLUMNS: [&str; 3] = ["id", "value", "known_at"];

/// A set to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Name of the job, for the manifest.
    pub job: String,
    /// The offline store's directory.
    pub lake: PathBuf,
    /// Which rows.
    pub rows: Rows,
    /// Which versions of the tables.
    pub at: Asked,
    /// Memory for rows of the set at hand, in bytes, more or less.
    pub memory_bytes: usize,
}

impl Query {
    /// What [`Query::memory_bytes`] is where nobody says: 64 MiB.
    pub const MEMORY_BYTES: usize = 64 << 20;
}

/// Rows of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// Predictions with their labels.
    Labelled(Labelled),
    /// Rows of a file.
    Entities(Entities),
}

/// Predictions with their labels and the features that were logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// Name of the model.
    pub model: String,
    /// The table of labels: `labels/<model>`, with [`LABEL_TABLE_COLUMNS`].
    pub labels: String,
    /// The table of logged features: `feature_sets/<set>`.
    pub features: String,
    /// Its column that holds the prediction's id.
    pub id: String,
    /// Its columns that name entities.
    pub keys: Vec<String>,
    /// Its columns that are the model's inputs, in the model's order.
    pub inputs: Vec<String>,
    /// Which predictions, and what was known of them.
    pub window: Window,
}

/// A window of event time, seen at a cut-off.
///
/// A row is in it when its event time is at or after `from` and at or before the cut-off less the label delay, and its label
/// became known at or before the cut-off: nothing is in it that was not knowable then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The cut-off. Default: the newest event time in the tables.
    #[serde(default, with = "text::time", skip_serializing_if = "Option::is_none")]
    pub to: Option<EventTime>,
    /// The least event time. Default: no limit.
    #[serde(default, with = "text::time", skip_serializing_if = "Option::is_none")]
    pub from: Option<EventTime>,
    /// Instead of `from`: this long up to the cut-off less the label delay, its beginning not included.
    #[serde(default, with = "text::span", skip_serializing_if = "Option::is_none")]
    pub last: Option<Micros>,
    /// How long after an event its label is settled: younger events are left out, labelled or not.
    #[serde(default, with = "text::span", skip_serializing_if = "Option::is_none")]
    pub label_delay: Option<Micros>,
}

/// Rows of a file with features of views.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entities {
    /// The Parquet file: the views' key columns, a time column, and whatever else shall be in the set.
    pub file: PathBuf,
    /// Its time column. Default: `event_time`, or else its only column of times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The views, whose columns follow the file's.
    pub views: Vec<View>,
}

/// A feature view that rows are joined with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Its table: `features/<view>`.
    pub table: String,
    /// Columns of the entity's key, named alike in the table and in the file.
    pub keys: Vec<String>,
    /// Columns that are taken.
    pub columns: Vec<ViewColumn>,
    /// A row older than this is not taken.
    #[serde(default, with = "text::span", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Micros>,
}

/// A column that is taken of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewColumn {
    /// Its name in the table.
    pub column: String,
    /// Its name in the set.
    pub name: String,
}

/// Versions of tables that are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// The newest of each.
    #[default]
    Newest,
    /// This one of every table.
    Version(u64),
    /// Of each the newest that was committed at or before this time of the wall clock.
    Time(EventTime),
    /// By table.
    Tables(BTreeMap<String, u64>),
}

/// `latest`, a number, a time, or `TABLE=VERSION,…`.
impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Asked, String> {
        let text = text.trim();
        let what = || {
            format!(
                "`{text}` names no version; write a number, a time such as 2026-01-31T12:00:00Z, `latest`, or labels/fraud=3,feature_sets/inputs=5"
            )
        };
        if text == "latest" {
            return Ok(Asked::Newest);
        }
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
            return text.parse().map(Asked::Version).map_err(|_| what());
        }
        if text.contains('=') {
            let pair = |pair: &str| {
                let (table, version) = pair.split_once('=')?;
                Some((table.trim().to_owned(), version.trim().parse().ok()?))
            };
            return text.split(',').map(pair).collect::<Option<_>>().map(Asked::Tables).ok_or_else(what);
        }
        parse_time(text).map(Asked::Time).map_err(|_| what())
    }
}

/// Times and durations as the command line writes them.
mod text {
    pub mod time {
        use serde::{Deserialize, Deserializer, Serializer, de::Error};

        use crate::base::{EventTime, format_time, parse_time};

        pub fn serialize<S: Serializer>(time: &Option<EventTime>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => serializer.serialize_str(&format_time(*time)),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EventTime>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| parse_time(&text).map_err(D::Error::custom)).transpose()
        }
    }

    pub mod span {
        use serde::{Deserialize, Deserializer, Serializer, de::Error};

        use crate::base::{Micros, format_duration, parse_duration};

        pub fn serialize<S: Serializer>(span: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
            match span {
                Some(span) => serializer.serialize_str(&format_duration(*span)),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Micros>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| parse_duration(&text).map_err(D::Error::custom)).transpose()
        }
    }
}
