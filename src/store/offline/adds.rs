//! Parts as the Delta library wants them told.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Fields, Schema};

use super::part::Part;
use super::spec::DATE_COLUMN;
use crate::ops::system::SYSTEM_COLUMNS;

/// Arrow structure of [`Part::stats`] in a table of `schema` that keeps statistics of the columns `names`.
pub(super) fn stats_fields<'a>(schema: &Schema, names: impl IntoIterator<Item = &'a str>) -> Fields {
    let columns: Vec<&Field> = names.into_iter().filter_map(|name| schema.field_with_name(name).ok()).collect();
    let nested = |of: &dyn Fn(&Field) -> DataType| {
        DataType::Struct(columns.iter().map(|f| Field::new(f.name(), of(f), true)).collect::<Fields>())
    };
    let values = nested(&|f| f.data_type().clone());
    Fields::from(vec![
        Field::new("numRecords", DataType::Int64, true),
        Field::new("nullCount", nested(&|_| DataType::Int64), true),
        Field::new("minValues", values.clone(), true),
        Field::new("maxValues", values, true),
        Field::new("tightBounds", DataType::Boolean, true),
    ])
}

/// The parts as the Delta library wants them told.
pub(super) fn add_files(parts: &[Part], stats: &Fields) -> Result<RecordBatch, arrow::error::ArrowError> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut partitions = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for part in parts {
        partitions.keys().append_value(SYSTEM_COLUMNS[DATE_COLUMN]);
        partitions.values().append_value(&part.event_date);
        partitions.append(true)?;
    }
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::new(Schema::new(stats.clone())))
        .with_batch_size(parts.len())
        .build_decoder()?;
    let lines: String = parts.iter().flat_map(|part| [part.stats.as_str(), "\n"]).collect();
    let mut rest = lines.as_bytes();
    while !rest.is_empty() {
        let read = decoder.decode(rest)?;
        rest = &rest[read..];
        if read == 0 {
            break;
        }
    }
    let stats = decoder.flush()?.filter(|batch| batch.num_rows() == parts.len()).ok_or_else(|| {
        arrow::error::ArrowError::JsonError(format!("statistics of {} parts were expected", parts.len()))
    })?;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("path", Arc::new(StringArray::from_iter_values(parts.iter().map(|p| &p.path)))),
        ("partitionValues", Arc::new(partitions.finish())),
        ("size", Arc::new(Int64Array::from_iter_values(parts.iter().map(|p| p.size as i64)))),
        ("modificationTime", Arc::new(Int64Array::from_iter_values(parts.iter().map(|p| p.modified_ms)))),
        ("stats", Arc::new(arrow::array::StructArray::from(stats))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), *name == "stats")).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}
