//! Feast's layout: one hash per entity, shared by all views with the same entity key.
//!
//! ```text
//! key    u32 n | per join key, sorted: u32 2 | u32 length | name | per value, in that order: u32 type | u32 length | bytes | project
//! field  MurmurHash3 of "view:feature", four bytes: a serialized feast.types.Value, empty for a null
//! field  "_ts:view": a google.protobuf.Timestamp, the event time of the entity's last event
//! field  "_tm:view": the header of a packed row (see `value`), which Feast's SDK never asks for
//! ```
//! Numbers are little-endian. The header carries what Feast's layout has no place for: the stamp by which writes are
//! ordered, until when the values hold, and the job's clock at the writing. Source: Feast 0.67, `infra/key_encoding_utils.py`,
//! `infra/online_stores/helpers.py` and `redis.py`, entity keys of version 3.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, PrimitiveArray, PrimitiveBuilder, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use crate::base::EventTime;
use crate::ops::key;
use crate::plan::feast::{FeastType, field_of};
use crate::store::online::value::{ColumnType, Header, pack};
use crate::store::online::{Stamp, ViewSchema};

const SECOND: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;

/// How one view lies in Feast's hashes.
#[derive(Clone, Debug)]
pub struct FeastView {
    /// What every key of the view begins with.
    key_start: Vec<u8>,
    /// Entity columns in the order of Feast's keys: their places in the view's key, their types.
    key_columns: Vec<(usize, FeastType)>,
    project: Vec<u8>,
    /// The features' fields, then `_ts:view` and `_tm:view`.
    fields: Vec<Vec<u8>>,
    types: Vec<(ColumnType, FeastType)>,
    fingerprint: u32,
}

/// One tagged value of a serialized `feast.types.Value`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Found<'a> {
    Integer(i64),
    Double(f64),
    Float(f32),
    Bool(bool),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Time(i64),
}

impl FeastView {
    /// The view in a project; `None` when Feast has no type for one of its columns.
    pub fn new(schema: &ViewSchema, project: &str) -> Option<FeastView> {
        let mut names: Vec<(usize, &str)> =
            schema.entity.iter().map(|column| column.name.as_str()).enumerate().collect();
        names.sort_unstable_by_key(|(_, name)| *name);
        let mut key_start = (names.len() as u32).to_le_bytes().to_vec();
        for (_, name) in &names {
            key_start.extend(FeastType::String.number().to_le_bytes());
            counted(&mut key_start, name.as_bytes());
        }
        let key_columns = names
            .iter()
            .map(|(place, _)| Some((*place, FeastType::of_key(&schema.entity[*place].column_type.data_type())?)))
            .collect::<Option<_>>()?;
        let types = schema
            .columns
            .iter()
            .map(|column| Some((column.column_type, FeastType::of_feature(&column.column_type.data_type())?)))
            .collect::<Option<_>>()?;
        let mut fields: Vec<Vec<u8>> =
            schema.columns.iter().map(|column| field_of(&schema.view, &column.name).to_vec()).collect();
        fields.push(format!("_ts:{}", schema.view).into_bytes());
        fields.push(format!("_tm:{}", schema.view).into_bytes());
        Some(FeastView {
            key_start,
            key_columns,
            project: project.as_bytes().to_vec(),
            fields,
            types,
            fingerprint: super::fingerprint(schema),
        })
    }

    /// The fields of an entity's hash that are the view's: its features, the event time, the header.
    pub fn fields(&self) -> &[Vec<u8>] {
        &self.fields
    }

    /// The entity's key, from its [canonical bytes](crate::ops::key); `None` where a part is null, which Feast's keys do not
    /// hold.
    pub fn key(&self, canonical: &[u8]) -> Option<Vec<u8>> {
        let parts = key::parts(canonical)?;
        let mut key = self.key_start.clone();
        for (place, held) in &self.key_columns {
            key.extend(held.number().to_le_bytes());
            match (parts.get(*place)?, held) {
                (key::Part::Integer(value), FeastType::Int32) => {
                    counted(&mut key, &i32::try_from(*value).ok()?.to_le_bytes());
                }
                (key::Part::Integer(value), FeastType::Int64) => counted(&mut key, &value.to_le_bytes()),
                (key::Part::Integer(days), FeastType::UnixTimestamp) => {
                    counted(&mut key, &days.checked_mul(DAY_SECONDS)?.to_le_bytes());
                }
                (key::Part::Bytes(bytes), FeastType::String | FeastType::Bytes) => counted(&mut key, bytes),
                _ => return None,
            }
        }
        key.extend_from_slice(&self.project);
        Some(key)
    }

    /// The values of rows as arguments in Redis's protocol: of each row the features, the event time and the header.
    pub(super) fn arguments(
        &self,
        columns: &[ArrayRef],
        rows: usize,
        header: impl Fn(usize) -> Header,
    ) -> Result<FeastRows, ArrowError> {
        let mut encoded = columns
            .iter()
            .zip(&self.types)
            .map(|(column, (held, feast))| Encoded::of(column, *held, *feast))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut times, mut headers) = (Encoded::default(), Encoded::default());
        for row in 0..rows {
            let header = header(row);
            times.push(|out| timestamp(out, header.event_time));
            headers.push(|out| out.extend(header.bytes()));
        }
        encoded.push(times);
        encoded.push(headers);
        Ok(FeastRows { columns: encoded })
    }

    /// Packed rows of the view's newest layout from what the hashes hold of its [fields](Self::fields), one list per entity;
    /// `None` for an entity that the view does not know. What Feast's SDK wrote has no header: it holds for ever.
    ///
    /// # Errors
    /// When the values cannot be packed.
    pub fn rows(&self, found: &[Vec<Option<Vec<u8>>>]) -> Result<Vec<Option<Vec<u8>>>, ArrowError> {
        let features = self.types.len();
        let headers: Vec<Option<Header>> = found
            .iter()
            .map(|values| {
                let held = |at: usize| values.get(features + at).and_then(Option::as_deref);
                match (held(1).and_then(Header::read), held(0)) {
                    (Some(header), _) => Some(Header { schema: self.fingerprint, ..header }),
                    (None, Some(time)) => Some(Header {
                        schema: self.fingerprint,
                        stamp: Stamp { generation: 0, tick: 0 },
                        event_time: read_timestamp(time),
                        valid_until: EventTime::MAX,
                        refreshed_at: EventTime::MIN,
                    }),
                    (None, None) => None,
                }
            })
            .collect();
        let known: Vec<(Header, &Vec<Option<Vec<u8>>>)> =
            headers.iter().zip(found).filter_map(|(header, values)| Some(((*header)?, values))).collect();
        let types: Vec<ColumnType> = self.types.iter().map(|(held, _)| *held).collect();
        let columns: Vec<ArrayRef> = types
            .iter()
            .enumerate()
            .map(|(i, held)| {
                let values = known.iter().map(|(_, values)| values.get(i).and_then(Option::as_deref).and_then(read));
                column(*held, values)
            })
            .collect();
        let packed = pack(&types, &columns, known.len(), |row| known[row].0)?;
        let mut packed = packed.iter();
        Ok(headers.iter().map(|header| header.and_then(|_| packed.next()).map(<[u8]>::to_vec)).collect())
    }
}

/// Rows as arguments, column by column.
pub(super) struct FeastRows {
    columns: Vec<Encoded>,
}

impl FeastRows {
    /// Appends a row's values.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        for column in &self.columns {
            out.extend_from_slice(column.get(row));
        }
    }
}

/// A column's values, each as an argument in Redis's protocol.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    scratch: Vec<u8>,
}

impl Encoded {
    fn of(column: &ArrayRef, held: ColumnType, feast: FeastType) -> Result<Encoded, ArrowError> {
        let to = match (feast, held) {
            (FeastType::Int32, _) => DataType::Int32,
            (FeastType::Int64, _) => DataType::Int64,
            _ => held.data_type(),
        };
        let column = if *column.data_type() == to { Arc::clone(column) } else { cast(column, &to)? };
        let mut out = Encoded::default();
        match feast {
            FeastType::Bytes => out.each(column.as_binary::<i32>().iter(), |out, v| text(out, 1, v)),
            FeastType::String => out.each(column.as_string::<i32>().iter(), |out, v| text(out, 2, v.as_bytes())),
            FeastType::Int32 => {
                out.each(column.as_primitive::<Int32Type>().iter(), |out, v| varint(out, 3, i64::from(v)));
            }
            FeastType::Int64 => out.each(column.as_primitive::<Int64Type>().iter(), |out, v| varint(out, 4, v)),
            FeastType::Double => out.each(column.as_primitive::<Float64Type>().iter(), |out, v| {
                out.push(5 << 3 | 1);
                out.extend(v.to_le_bytes());
            }),
            FeastType::Float => out.each(column.as_primitive::<Float32Type>().iter(), |out, v| {
                out.push(6 << 3 | 5);
                out.extend(v.to_le_bytes());
            }),
            FeastType::Bool => out.each(column.as_boolean().iter(), |out, v| varint(out, 7, i64::from(v))),
            FeastType::UnixTimestamp if held == ColumnType::Date => out
                .each(column.as_primitive::<Date32Type>().iter(), |out, v| varint(out, 8, i64::from(v) * DAY_SECONDS)),
            FeastType::UnixTimestamp => {
                out.each(column.as_primitive::<TimestampMicrosecondType>().iter(), |out, v| {
                    varint(out, 8, v.div_euclid(SECOND));
                });
            }
        }
        Ok(out)
    }

    fn each<T>(&mut self, values: impl Iterator<Item = Option<T>>, write: impl Fn(&mut Vec<u8>, T)) {
        for value in values {
            self.push(|out| {
                if let Some(value) = value {
                    write(out, value);
                }
            });
        }
    }

    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        write(&mut self.scratch);
        super::writer::argument(&mut self.bytes, &self.scratch);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[row]]
    }
}

fn counted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Protocol Buffers' varint.
fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(out: &mut Vec<u8>, field: u8, value: i64) {
    out.push(field << 3);
    number(out, value.cast_unsigned());
}

fn text(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// `google.protobuf.Timestamp`: zeros are left out.
fn timestamp(out: &mut Vec<u8>, time: EventTime) {
    let (seconds, nanos) = (time.div_euclid(SECOND), time.rem_euclid(SECOND) * 1000);
    if seconds != 0 {
        varint(out, 1, seconds);
    }
    if nanos != 0 {
        varint(out, 2, nanos);
    }
}

/// Takes a varint off the front.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn read_timestamp(mut bytes: &[u8]) -> EventTime {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    while let Some(tag) = take_number(&mut bytes) {
        let Some(value) = take_number(&mut bytes) else { break };
        match tag {
            8 => seconds = value.cast_signed(),
            16 => nanos = value.cast_signed(),
            _ => break,
        }
    }
    seconds.saturating_mul(SECOND).saturating_add(nanos / 1000)
}

/// Reads a serialized `feast.types.Value`; `None` for a null and for what no feature of ours is.
fn read(mut bytes: &[u8]) -> Option<Found<'_>> {
    let tag = take_number(&mut bytes)?;
    Some(match (tag >> 3, tag & 7) {
        (field @ (1 | 2), 2) => {
            let length = usize::try_from(take_number(&mut bytes)?).ok()?;
            let value = bytes.get(..length)?;
            if field == 1 { Found::Bytes(value) } else { Found::Text(value) }
        }
        (3 | 4, 0) => Found::Integer(take_number(&mut bytes)?.cast_signed()),
        (5, 1) => Found::Double(f64::from_le_bytes(*bytes.first_chunk()?)),
        (6, 5) => Found::Float(f32::from_le_bytes(*bytes.first_chunk()?)),
        (7, 0) => Found::Bool(take_number(&mut bytes)? != 0),
        (8, 0) => Found::Time(take_number(&mut bytes)?.cast_signed()),
        _ => return None,
    })
}

/// A column of what was read; nulls for values of another type, such as an earlier version of the job may have left.
fn column<'a>(held: ColumnType, values: impl Iterator<Item = Option<Found<'a>>>) -> ArrayRef {
    fn primitive<'a, P: ArrowPrimitiveType>(
        values: impl Iterator<Item = Option<Found<'a>>>,
        get: impl Fn(Found<'a>) -> Option<P::Native>,
    ) -> PrimitiveArray<P> {
        let mut builder = PrimitiveBuilder::<P>::new();
        values.for_each(|value| builder.append_option(value.and_then(&get)));
        builder.finish()
    }
    match held {
        ColumnType::Boolean => {
            let mut builder = BooleanBuilder::new();
            for value in values {
                builder.append_option(match value {
                    Some(Found::Bool(value)) => Some(value),
                    _ => None,
                });
            }
            Arc::new(builder.finish())
        }
        ColumnType::Text => {
            let mut builder = StringBuilder::new();
            for value in values {
                builder.append_option(match value {
                    Some(Found::Text(value)) => std::str::from_utf8(value).ok(),
                    _ => None,
                });
            }
            Arc::new(builder.finish())
        }
        ColumnType::Bytes => {
            let mut builder = BinaryBuilder::new();
            for value in values {
                builder.append_option(match value {
                    Some(Found::Bytes(value)) => Some(value),
                    _ => None,
                });
            }
            Arc::new(builder.finish())
        }
        ColumnType::Float32 => Arc::new(primitive::<Float32Type>(values, |value| match value {
            Found::Float(value) => Some(value),
            _ => None,
        })),
        ColumnType::Float64 => Arc::new(primitive::<Float64Type>(values, |value| match value {
            Found::Double(value) => Some(value),
            _ => None,
        })),
        ColumnType::Date => Arc::new(primitive::<Date32Type>(values, |value| match value {
            Found::Time(seconds) => i32::try_from(seconds.div_euclid(DAY_SECONDS)).ok(),
            _ => None,
        })),
        ColumnType::Timestamp => {
            let times = primitive::<TimestampMicrosecondType>(values, |value| match value {
                Found::Time(seconds) => seconds.checked_mul(SECOND),
                _ => None,
            });
            Arc::new(times.with_data_type(held.data_type()))
        }
        // Integers: `pack` casts to the width, and what does not fit becomes null.
        _ => Arc::new(primitive::<Int64Type>(values, |value| match value {
            Found::Integer(value) => Some(value),
            _ => None,
        })),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array};
    use arrow::array::{StringArray, TimestampMicrosecondArray, UInt8Array};
    use arrow::datatypes::TimeUnit;

    use super::*;
    use crate::store::online::ColumnSchema;
    use crate::store::online::value::unpack;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn schema(entity: &[(&str, DataType)], columns: &[(&str, DataType)]) -> ViewSchema {
        let list = |columns: &[(&str, DataType)]| {
            columns.iter().map(|(name, to)| ColumnSchema::new(*name, to).expect("a type that is held")).collect()
        };
        ViewSchema {
            view: "user_tx".into(),
            entity: list(entity),
            columns: list(columns),
            ttl: None,
            job: "j".into(),
            job_version: 1,
        }
    }

    fn key_of(entity: &[(&str, DataType)], columns: &[ArrayRef]) -> Option<String> {
        let view = FeastView::new(&schema(entity, &[]), "fraud").expect("a view");
        view.key(key::encode(columns).expect("keys").get(0)).map(|key| hex(&key))
    }

    /// Keys that Feast 0.67 wrote.
    #[test]
    fn keys_are_feasts() {
        let u1: ArrayRef = Arc::new(StringArray::from(vec!["u1"]));
        assert_eq!(
            key_of(&[("user_id", DataType::Utf8)], std::slice::from_ref(&u1)).as_deref(),
            Some("010000000200000007000000757365725f6964020000000200000075316672617564")
        );
        // Join keys are sorted by name, their values with them.
        let seven: ArrayRef = Arc::new(Int64Array::from(vec![-7]));
        assert_eq!(
            key_of(&[("user_id", DataType::Utf8), ("item", DataType::Int64)], &[u1, seven]).as_deref(),
            Some(concat!(
                "02000000",
                "02000000040000006974656d",
                "0200000007000000757365725f6964",
                "0400000008000000f9ffffffffffffff",
                "02000000020000007531",
                "6672617564"
            ))
        );
        let small: ArrayRef = Arc::new(UInt8Array::from(vec![200]));
        let narrow = key_of(&[("n", DataType::UInt8)], &[small]).expect("a key");
        assert!(narrow.contains("0300000004000000c8000000"), "{narrow}");
        let day: ArrayRef = Arc::new(Date32Array::from(vec![1]));
        let date = key_of(&[("d", DataType::Date32)], &[day]).expect("a key");
        assert!(date.contains("08000000080000008051010000000000"), "{date}");
        let null: ArrayRef = Arc::new(Int32Array::from(vec![None]));
        assert_eq!(key_of(&[("n", DataType::Int32)], &[null]), None);
        let float = schema(&[("f", DataType::Timestamp(TimeUnit::Microsecond, None))], &[]);
        assert!(FeastView::new(&float, "p").is_none(), "seconds would be one key for many");
    }

    /// Every type: bytes that Feast 0.67 wrote where the brief values are its own, and what is read back of all.
    #[test]
    fn values_are_feasts_and_come_back() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let columns: Vec<(&str, DataType, ArrayRef, &[&str])> = vec![
            (
                "cnt_1h",
                DataType::Int64,
                Arc::new(Int64Array::from(vec![Some(3), Some(-1), None])),
                &["2003", "20ffffffffffffffffff01", ""],
            ),
            (
                "sum_1h",
                DataType::Float64,
                Arc::new(Float64Array::from(vec![Some(1.5), Some(0.0), None])),
                &["29000000000000f83f", "290000000000000000", ""],
            ),
            (
                "last_c",
                DataType::Utf8,
                Arc::new(StringArray::from(vec![Some("US"), Some(""), None])),
                &["12025553", "1200", ""],
            ),
            (
                "i",
                DataType::Int32,
                Arc::new(Int32Array::from(vec![Some(0), Some(i32::MIN), None])),
                &["1800", "1880808080f8ffffffff01", ""],
            ),
            ("u", DataType::UInt8, Arc::new(UInt8Array::from(vec![Some(255), Some(0), None])), &["18ff01", "1800", ""]),
            (
                "f",
                DataType::Float32,
                Arc::new(Float32Array::from(vec![Some(1.5), Some(-0.0), None])),
                &["350000c03f", "3500000080", ""],
            ),
            (
                "b",
                DataType::Boolean,
                Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
                &["3801", "3800", ""],
            ),
            (
                "y",
                DataType::Binary,
                Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b""), None])),
                &["0a0200ff", "0a00", ""],
            ),
            (
                "d",
                DataType::Date32,
                Arc::new(Date32Array::from(vec![Some(1), Some(-1), None])),
                &["4080a305", "4080ddfaffffffffffff01", ""],
            ),
            (
                "t",
                time.clone(),
                Arc::new(
                    TimestampMicrosecondArray::from(vec![Some(5_000_000), Some(-1_000_000), None]).with_timezone("UTC"),
                ),
                &["4005", "40ffffffffffffffffff01", ""],
            ),
        ];
        let declared: Vec<(&str, DataType)> = columns.iter().map(|(name, to, _, _)| (*name, to.clone())).collect();
        let schema = schema(&[("user_id", DataType::Utf8)], &declared);
        let view = FeastView::new(&schema, "fraud").expect("a view");
        let header = |row: usize| Header {
            schema: 0,
            stamp: Stamp { generation: 2, tick: 3 },
            event_time: [1_795_218_868_000_000, 1_500_000, 0][row],
            valid_until: 7,
            refreshed_at: 8,
        };
        let values: Vec<ArrayRef> = columns.iter().map(|(_, _, column, _)| Arc::clone(column)).collect();
        let rows = view.arguments(&values, 3, header).expect("rows");
        // Taken apart as Redis takes it apart.
        let arguments = |row: usize| {
            let (mut out, mut found) = (Vec::new(), Vec::new());
            rows.write(row, &mut out);
            let mut rest = &out[..];
            while let Some(at) = rest.iter().position(|b| *b == b'\r') {
                let length: usize = std::str::from_utf8(&rest[1..at]).expect("digits").parse().expect("a length");
                found.push(Some(rest[at + 2..at + 2 + length].to_vec()));
                rest = &rest[at + 4 + length..];
            }
            found
        };
        for row in 0..3 {
            let found = arguments(row);
            assert_eq!(found.len(), columns.len() + 2);
            for ((name, _, _, expected), found) in columns.iter().zip(&found) {
                assert_eq!(hex(found.as_deref().expect("a value")), expected[row], "{name}, row {row}");
            }
        }
        let times: Vec<String> =
            (0..3).map(|row| hex(arguments(row)[columns.len()].as_deref().expect("a time"))).collect();
        assert_eq!(times, ["08b4bb83d806", "08011080cab5ee01", ""]);

        let held: Vec<Vec<Option<Vec<u8>>>> = (0..3).map(arguments).chain([vec![None; columns.len() + 2]]).collect();
        let packed = view.rows(&held).expect("packed");
        assert_eq!(packed.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, true, false]);
        let types: Vec<ColumnType> = schema.columns.iter().map(|c| c.column_type).collect();
        let bytes: Vec<Option<&[u8]>> = packed[..3].iter().map(Option::as_deref).collect();
        for ((name, _, expected, _), found) in columns.iter().zip(unpack(&types, &bytes).expect("columns")) {
            assert_eq!(&found, expected, "{name}");
        }
        let read = Header::read(packed[0].as_deref().expect("a row")).expect("a header");
        assert_eq!(read, Header { schema: super::super::fingerprint(&schema), ..header(0) });
    }

    /// What Feast's SDK wrote itself has its time and no header of ours.
    #[test]
    fn rows_of_another_writer_hold_for_ever() {
        let schema = schema(&[("user_id", DataType::Utf8)], &[("cnt_1h", DataType::Int64)]);
        let view = FeastView::new(&schema, "fraud").expect("a view");
        let found = view.rows(&[vec![Some(vec![0x20, 3]), Some(vec![8, 5, 16, 0xe8, 7]), None]]).expect("rows");
        let header = Header::read(found[0].as_deref().expect("a row")).expect("a header");
        assert_eq!((header.event_time, header.valid_until), (5_000_001, i64::MAX));
    }

    #[test]
    fn broken_values_are_nulls() {
        for bytes in [&[][..], &[0x20], &[0x29, 1, 2], &[0x12, 9, 1], &[0x7a, 0], &[0x20; 12], &[0xff; 20]] {
            let found = read(bytes);
            assert!(found.is_none() || matches!(found, Some(Found::Integer(_))), "{bytes:?}: {found:?}");
        }
    }
}
