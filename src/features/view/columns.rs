//! Between Arrow columns and words: entries read row by row, answers gathered column by column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;

use super::ViewError;
use super::keys::Texts;
use super::layout::{Kind, Layout, NULL_FLOAT, NULL_NARROW, NULL_TEXT, Output, Source};

/// A column's values in one of `Float64`, `Int64`, `UInt64`, `LargeBinary`-like, as its kind wants.
pub(super) fn plain(column: &ArrayRef, kind: Kind) -> Result<ArrayRef, ViewError> {
    let reinterpret = |column: &ArrayRef, to: DataType| -> Result<ArrayRef, ViewError> {
        let data = column.to_data().into_builder().data_type(to).build()?;
        Ok(arrow::array::make_array(data))
    };
    let column = match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values)?,
        _ => ArrayRef::clone(column),
    };
    Ok(match kind {
        Kind::Float if column.data_type() == &DataType::Float64 => column,
        Kind::Float => cast(&column, &DataType::Float64)?,
        Kind::Unsigned => column,
        Kind::Wide => reinterpret(&column, DataType::Int64)?,
        Kind::Narrow => match column.data_type() {
            DataType::Date32 | DataType::Time32(_) => cast(&reinterpret(&column, DataType::Int32)?, &DataType::Int64)?,
            DataType::Boolean => {
                let values: &BooleanArray = column.as_boolean();
                Arc::new(values.iter().map(|v| v.map(i64::from)).collect::<Int64Array>())
            }
            _ => cast(&column, &DataType::Int64)?,
        },
        Kind::Bytes => match column.data_type() {
            DataType::Binary => column,
            DataType::LargeBinary | DataType::BinaryView => cast(&column, &DataType::Binary)?,
            DataType::Utf8 => cast(&column, &DataType::Binary)?,
            _ => cast(&cast(&column, &DataType::Utf8)?, &DataType::Binary)?,
        },
    })
}

/// The time column of a batch.
pub(super) fn times(batch: &RecordBatch, column: usize) -> Result<&ScalarBuffer<i64>, ViewError> {
    batch
        .columns()
        .get(column)
        .and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>())
        .filter(|c| c.null_count() == 0)
        .map(PrimitiveArray::values)
        .ok_or_else(|| ViewError::Batch { what: format!("column {column} is not a time without nulls") })
}

/// The position column of a batch.
pub(super) fn ords(batch: &RecordBatch, column: usize) -> Result<&ScalarBuffer<u64>, ViewError> {
    batch
        .columns()
        .get(column)
        .and_then(|c| c.as_primitive_opt::<UInt64Type>())
        .filter(|c| c.null_count() == 0)
        .map(PrimitiveArray::values)
        .ok_or_else(|| ViewError::Batch { what: format!("column {column} is not a position without nulls") })
}

/// The rows of a batch as entries, one after another in `entries`. Texts are acquired.
pub(super) fn read_entries(
    layout: &Layout,
    batch: &RecordBatch,
    times: &[i64],
    ords: &[u64],
    texts: &mut Texts,
    entries: &mut Vec<u64>,
) -> Result<(), ViewError> {
    let stride = layout.stride;
    let columns = layout
        .inputs
        .iter()
        .map(|input| {
            let column = batch
                .columns()
                .get(input.column)
                .ok_or_else(|| ViewError::Batch { what: format!("there is no column {}", input.column) })?;
            let found = match column.data_type() {
                DataType::Dictionary(_, values) => values.as_ref(),
                other => other,
            };
            if found != &input.data_type {
                let what = format!("column {} is {found}, not {}", input.column, input.data_type);
                return Err(ViewError::Batch { what });
            }
            plain(column, input.kind)
        })
        .collect::<Result<Vec<_>, _>>()?;
    entries.clear();
    entries.resize(times.len() * stride, 0);
    for (entry, time) in entries.chunks_exact_mut(stride).zip(times) {
        entry[0] = *time as u64;
    }
    if let Some(at) = layout.ord {
        for (entry, ord) in entries.chunks_exact_mut(stride).zip(ords) {
            entry[at] = *ord;
        }
    }
    for (input, column) in layout.inputs.iter().zip(&columns) {
        let at = input.word;
        let rows = entries.chunks_exact_mut(stride);
        match input.kind {
            Kind::Float => {
                for (entry, value) in rows.zip(column.as_primitive::<Float64Type>().values()) {
                    // Adding zero turns −0.0 into 0.0.
                    entry[at] = if value.is_nan() { NULL_FLOAT } else { (value + 0.0).to_bits() };
                }
            }
            Kind::Narrow | Kind::Wide => {
                for (entry, value) in rows.zip(column.as_primitive::<Int64Type>().values()) {
                    entry[at] = *value as u64;
                }
            }
            Kind::Unsigned => {
                for (entry, value) in rows.zip(column.as_primitive::<UInt64Type>().values()) {
                    entry[at] = *value;
                }
            }
            Kind::Bytes => {
                let column = column.as_binary::<i32>();
                for (row, entry) in rows.enumerate() {
                    entry[at] = if column.is_null(row) { NULL_TEXT } else { texts.acquire(column.value(row)) };
                }
            }
        }
        if let Some(nulls) = column.nulls().filter(|n| n.null_count() > 0 && input.kind != Kind::Bytes) {
            for (entry, valid) in entries.chunks_exact_mut(stride).zip(nulls) {
                if !valid {
                    match (input.kind, layout.mask) {
                        (Kind::Float, _) => entry[at] = NULL_FLOAT,
                        (Kind::Narrow, _) => entry[at] = NULL_NARROW,
                        (_, Some(mask)) => {
                            entry[mask] |= input.mask;
                            // One null is one entry, whatever lay under it.
                            entry[at] = 0;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(())
}

/// A default as the word (or text) in which an output is gathered. The error says that it does not fit.
pub(super) fn word_of_scalar(value: &ScalarValue, output: &Output) -> Result<Result<u64, Vec<u8>>, ()> {
    let array = value.cast_to(&output.data_type).and_then(|v| v.to_array()).map_err(|_| ())?;
    if array.is_null(0) {
        return Err(());
    }
    let floats = matches!(output.source, Source::Mean { .. } | Source::Variance { .. })
        || (matches!(output.source, Source::Sum { .. }) && output.data_type.is_floating());
    let kind = match output.source {
        _ if floats => Kind::Float,
        Source::Rows { .. } | Source::Count { .. } | Source::Sum { .. } => Kind::Wide,
        _ => output.kind,
    };
    let input = if matches!(output.source, Source::Min { .. } | Source::Max { .. } | Source::Last { .. }) {
        cast(&array, &output.input_type).map_err(|_| ())?
    } else if floats {
        cast(&array, &DataType::Float64).map_err(|_| ())?
    } else {
        cast(&array, &DataType::Int64).map_err(|_| ())?
    };
    let column = plain(&input, kind).map_err(|_| ())?;
    if column.is_null(0) {
        return Err(());
    }
    Ok(match kind {
        Kind::Float => Ok((column.as_primitive::<Float64Type>().value(0) + 0.0).to_bits()),
        Kind::Narrow | Kind::Wide => Ok(column.as_primitive::<Int64Type>().value(0) as u64),
        Kind::Unsigned => Ok(column.as_primitive::<UInt64Type>().value(0)),
        Kind::Bytes => Err(column.as_binary::<i32>().value(0).to_vec()),
    })
}
