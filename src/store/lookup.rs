//! One entity's features, now or as of a past time: what `tidemill features get` prints.
//!
//! Online values come from the embedded store and are judged by the job's clock; as-of values from the offline table
//! `features/<view>`: the entity's newest row at or before the time, never after.

use std::fmt;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::StoreError;
use super::offline::{TableReader, latest_as_of, table_path};
use super::online::{OnlineReader, ViewSchema};
use crate::base::{EventTime, Micros, format_time, parse_time};
use crate::ops::system::SYSTEM_COLUMNS;

/// Whether a feature has a value that may be used; names as Feast's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// There is a value.
    Present,
    /// The entity is known and the feature has no value.
    NullValue,
    /// The entity is not known.
    NotFound,
    /// The entity's last event is older than the view's ttl.
    OutsideMaxAge,
}

impl Status {
    /// The name as Feast writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Present => "PRESENT",
            Status::NullValue => "NULL_VALUE",
            Status::NotFound => "NOT_FOUND",
            Status::OutsideMaxAge => "OUTSIDE_MAX_AGE",
        }
    }
}

/// One feature of an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Column name, without the view's.
    pub name: String,
    /// The value as JSON; null unless [`Status::Present`]. NaN and infinities are the strings `NaN`, `Infinity` and
    /// `-Infinity`, bytes are hexadecimal, times RFC 3339.
    pub value: Value,
    /// Whether it may be used.
    pub status: Status,
}

/// The features of one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureRow {
    /// Name of the view.
    pub view: String,
    /// The entity, as asked for, in the order of the view's key.
    pub entity: Vec<(String, String)>,
    /// [`Status::Present`] when the entity is known and young enough.
    pub status: Status,
    /// Event time of the entity's last event (online), or of the row found (as of).
    pub event_time: Option<EventTime>,
    /// Until when the values hold, on the job's clock; online only, `None` also when they hold for ever.
    pub valid_until: Option<EventTime>,
    /// The job's clock, or the time asked for; what ages are judged by.
    pub now: Option<EventTime>,
    /// Whether the job's clock has passed `valid_until`: the job is behind, or stopped.
    pub stale: bool,
    /// The features, in the order of the view.
    pub features: Vec<Feature>,
}

/// Reads an entity's features from the online store. `entity` holds `column=value` pairs, all of the view's key.
///
/// # Errors
/// [`StoreError::Request`] when there is no such view, or the entity does not name its key; otherwise from the store.
pub fn get_online(reader: &OnlineReader, view: &str, entity: &[(String, String)]) -> Result<FeatureRow, StoreError> {
    let schema = reader.schema(view)?;
    let key_types: Vec<(&str, DataType)> =
        schema.entity.iter().map(|c| (c.name.as_str(), c.column_type.data_type())).collect();
    let (entity, keys) = parse_entity(view, &key_types, entity)?;
    let keys: Vec<ArrayRef> = keys.into_iter().map(|(_, key)| key).collect();
    let found = reader.read(view, &keys)?;
    let ViewSchema { ttl, .. } = found.schema;
    let state = found.states[0];
    let status = match state {
        None => Status::NotFound,
        Some(state) => by_age(state.event_time, found.now, ttl),
    };
    let columns = found.schema.columns.iter().map(|c| c.name.clone()).zip(found.values.columns());
    Ok(FeatureRow {
        view: view.into(),
        entity,
        status,
        event_time: state.map(|s| s.event_time),
        valid_until: state.map(|s| s.valid_until).filter(|t| *t < EventTime::MAX),
        now: found.now,
        stale: state.zip(found.now).is_some_and(|(state, now)| now > state.valid_until),
        features: features(columns, status),
    })
}

/// Reads an entity's features as of `at` from the table `features/<view>` below `lake`. `entity` holds `column=value`
/// pairs; `ttl` is the view's.
///
/// # Errors
/// [`StoreError::NoTable`] when the view has no table; [`StoreError::Request`] when the entity does not name columns of
/// it; otherwise from the table.
pub fn get_as_of(
    lake: &Path,
    view: &str,
    entity: &[(String, String)],
    at: EventTime,
    ttl: Option<Micros>,
) -> Result<FeatureRow, StoreError> {
    let table = TableReader::open(&table_path(lake, &format!("features/{view}")), None)?;
    let schema = table.schema().clone();
    let payload = || schema.fields().iter().filter(|f| !SYSTEM_COLUMNS.contains(&f.name().as_str()));
    let mut key_types = Vec::new();
    for (name, _) in entity {
        let field = payload().find(|f| f.name() == name).ok_or_else(|| {
            let names: Vec<&str> = payload().map(|f| f.name().as_str()).collect();
            StoreError::Request(format!("table features/{view} has no column `{name}`; it has {}", names.join(", ")))
        })?;
        key_types.push((name.as_str(), field.data_type().clone()));
    }
    let (entity, keys) = parse_entity(view, &key_types, entity)?;
    let found = latest_as_of(&table, &keys, at, None)?;
    let status = match &found {
        None => Status::NotFound,
        Some(found) => by_age(found.event_time, Some(at), ttl),
    };
    let prefix = format!("{view}__");
    let names = payload().map(|f| f.name()).filter(|name| !entity.iter().any(|(key, _)| key == *name));
    let columns = names.map(|name| {
        let short = name.strip_prefix(&prefix).unwrap_or(name).to_string();
        let field = schema.field_with_name(name).expect("a name of the schema");
        let missing = || arrow::array::new_null_array(field.data_type(), 1);
        (short, found.as_ref().and_then(|f| f.row.column_by_name(name).cloned()).unwrap_or_else(missing))
    });
    let columns: Vec<(String, ArrayRef)> = columns.collect();
    Ok(FeatureRow {
        view: view.into(),
        features: features(columns.iter().map(|(name, column)| (name.clone(), column)), status),
        entity,
        status,
        event_time: found.map(|f| f.event_time),
        valid_until: None,
        now: Some(at),
        stale: false,
    })
}

fn by_age(event_time: EventTime, now: Option<EventTime>, ttl: Option<Micros>) -> Status {
    match (now, ttl) {
        (Some(now), Some(ttl)) if now.saturating_sub(event_time) > ttl => Status::OutsideMaxAge,
        _ => Status::Present,
    }
}

fn features<'a>(columns: impl Iterator<Item = (String, &'a ArrayRef)>, status: Status) -> Vec<Feature> {
    columns
        .map(|(name, column)| match status {
            Status::Present if column.is_null(0) => Feature { name, value: Value::Null, status: Status::NullValue },
            Status::Present => Feature { name, value: to_json(column), status },
            _ => Feature { name, value: Value::Null, status },
        })
        .collect()
}

/// The entity in the key's order: its text, and one-row arrays of the key's types.
type Entity = (Vec<(String, String)>, Vec<(String, ArrayRef)>);

/// Reads `column=value` pairs as the key that `key` names.
fn parse_entity(view: &str, key: &[(&str, DataType)], entity: &[(String, String)]) -> Result<Entity, StoreError> {
    let wanted = || key.iter().map(|(name, _)| format!("{name}=…")).collect::<Vec<_>>().join(" ");
    let wrong = |what: String| StoreError::Request(format!("{what}; an entity of `{view}` is {}", wanted()));
    if let Some((name, _)) = entity.iter().find(|(name, _)| !key.iter().any(|(key, _)| key == name)) {
        return Err(wrong(format!("`{name}` is no key column")));
    }
    let mut parsed: Entity = Default::default();
    for (name, data_type) in key {
        let mut given = entity.iter().filter(|(given, _)| given == name);
        let (Some((_, text)), None) = (given.next(), given.next()) else {
            return Err(wrong(format!("`{name}` must be given once")));
        };
        let array = parse_value(text, data_type)
            .ok_or_else(|| wrong(format!("`{text}` is no value of `{name}`, which is {data_type}")))?;
        parsed.0.push((name.to_string(), text.clone()));
        parsed.1.push((name.to_string(), array));
    }
    Ok(parsed)
}

fn parse_value(text: &str, data_type: &DataType) -> Option<ArrayRef> {
    if let DataType::Timestamp(_, _) = data_type {
        let time = TimestampMicrosecondArray::from(vec![parse_time(text).ok()?]).with_timezone("UTC");
        return arrow::compute::cast(&time, data_type).ok();
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&StringArray::from(vec![text]), data_type, &strict).ok().filter(|array| array.is_valid(0))
}

/// The first value of a column as JSON.
fn to_json(column: &ArrayRef) -> Value {
    let float = |x: f64| match x {
        x if x.is_nan() => Value::from("NaN"),
        x if x.is_infinite() => Value::from(if x > 0.0 { "Infinity" } else { "-Infinity" }),
        x => Value::from(x),
    };
    let as_type = |to: DataType| arrow::compute::cast(column, &to).ok();
    match column.data_type() {
        _ if column.is_null(0) => Value::Null,
        DataType::Boolean => Value::from(column.as_boolean().value(0)),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(0)),
        // Through its shortest text, so that 0.1 stays 0.1.
        DataType::Float32 => {
            let x = column.as_primitive::<Float32Type>().value(0);
            float(if x.is_finite() { x.to_string().parse().unwrap_or(f64::from(x)) } else { f64::from(x) })
        }
        DataType::UInt64 => Value::from(column.as_primitive::<UInt64Type>().value(0)),
        DataType::Utf8 => Value::from(column.as_string::<i32>().value(0)),
        DataType::Binary => {
            let bytes = column.as_binary::<i32>().value(0);
            Value::from(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
        }
        DataType::Timestamp(_, _) => {
            match as_type(DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)) {
                Some(time) => Value::from(format_time(time.as_primitive::<TimestampMicrosecondType>().value(0))),
                None => Value::Null,
            }
        }
        other if other.is_integer() => {
            as_type(DataType::Int64).map_or(Value::Null, |n| Value::from(n.as_primitive::<Int64Type>().value(0)))
        }
        _ => ArrayFormatter::try_new(column, &FormatOptions::default())
            .map_or(Value::Null, |text| Value::from(text.value(0).to_string())),
    }
}

/// One object: `view`, `entity`, `status`, `event_time`, `valid_until`, `now`, `stale`, `features` (name → value) and
/// `statuses` (name → status), features in the view's order.
impl Serialize for FeatureRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Pairs<'a, V>(Vec<(&'a str, V)>);
        impl<V: Serialize> Serialize for Pairs<'_, V> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
            }
        }
        let entity = self.entity.iter().map(|(name, text)| (name.as_str(), text));
        let values = self.features.iter().map(|f| (f.name.as_str(), &f.value));
        let statuses = self.features.iter().map(|f| (f.name.as_str(), f.status));
        let mut map = serializer.serialize_map(Some(9))?;
        map.serialize_entry("view", &self.view)?;
        map.serialize_entry("entity", &Pairs(entity.collect()))?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("event_time", &self.event_time.map(format_time))?;
        map.serialize_entry("valid_until", &self.valid_until.map(format_time))?;
        map.serialize_entry("now", &self.now.map(format_time))?;
        map.serialize_entry("stale", &self.stale)?;
        map.serialize_entry("features", &Pairs(values.collect()))?;
        map.serialize_entry("statuses", &Pairs(statuses.collect()))?;
        map.end()
    }
}

/// For people: the entity, its times, one line per feature.
impl fmt::Display for FeatureRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.view)?;
        for (name, text) in &self.entity {
            write!(f, " {name}={text}")?;
        }
        match self.status {
            Status::NotFound => return writeln!(f, ": not found"),
            Status::OutsideMaxAge => writeln!(f, ": last event is older than the view's ttl")?,
            _ => writeln!(f)?,
        }
        let width = self.features.iter().map(|f| f.name.chars().count()).max().unwrap_or(0).max("valid_until".len());
        if let Some(time) = self.event_time {
            writeln!(f, "  {:width$}  {}", "event_time", format_time(time))?;
        }
        if let Some(time) = self.valid_until {
            let stale = if self.stale { "  (stale)" } else { "" };
            writeln!(f, "  {:width$}  {}{stale}", "valid_until", format_time(time))?;
        }
        if self.status == Status::Present {
            for feature in &self.features {
                match &feature.value {
                    Value::String(text) => writeln!(f, "  {:width$}  {text}", feature.name)?,
                    value => writeln!(f, "  {:width$}  {value}", feature.name)?,
                }
            }
        }
        Ok(())
    }
}
