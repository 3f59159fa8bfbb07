//! One type per meaning: what files call timestamps, strings or decimals becomes the few types that the engine computes with.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date64Type, Field, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;

use crate::base::{EventTime, Micros};
use crate::plan::expr::engine_type;

/// The time zone of every time column.
pub static UTC: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("UTC"));

/// Key in a field's metadata that says what an integer means that stands for a time: `s`, `ms`, `us` or `ns` since 1970.
pub const UNIT_KEY: &str = "tidemill.unit";

/// Key in a field's metadata that holds the value of an absent field, as JSON.
pub const DEFAULT_KEY: &str = "tidemill.default";

/// Key in a field's metadata that holds the allowed values of an enumeration, as a JSON list.
pub const SYMBOLS_KEY: &str = "tidemill.symbols";

/// Whether [`normalise`] turns every value of type `file` into `field`'s type without losing any.
pub(crate) fn converts(file: &DataType, field: &Field) -> bool {
    use DataType::*;
    let Some(engine) = engine_type(file) else {
        return false;
    };
    if engine == *field.data_type() {
        return true;
    }
    match (&engine, field.data_type()) {
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64) | (Int16, Int32 | Int64 | Float32 | Float64) => true,
        (Int32, Int64 | Float64) | (Int64, Float64) => true,
        (UInt8, Int16 | Int32 | Int64 | UInt16 | UInt32 | UInt64 | Float32 | Float64) => true,
        (UInt16, Int32 | Int64 | UInt32 | UInt64 | Float32 | Float64) => true,
        (UInt32, Int64 | UInt64 | Float64) | (Float32, Float64) | (Date32, Timestamp(_, _)) => true,
        (Int64, Timestamp(_, _)) => field.metadata().contains_key(UNIT_KEY),
        _ => false,
    }
}

/// Turns a column of a file into `field`'s type.
///
/// Times that microseconds in 64 bits cannot hold become the nearest that can, so that the check of the time's range sees
/// them; nanoseconds are rounded down.
///
/// # Errors
/// When Arrow cannot cast; never for types that `converts` allows.
pub(crate) fn normalise(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    let (from, to) = (column.data_type(), field.data_type());
    if from == to {
        return Ok(column.clone());
    }
    if matches!(to, DataType::Timestamp(TimeUnit::Microsecond, _)) {
        return match from {
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Ok(Arc::new(column.as_primitive::<TimestampMicrosecondType>().clone().with_timezone(UTC.clone())))
            }
            DataType::Timestamp(TimeUnit::Second, _) => Ok(rescale::<TimestampSecondType>(column, Scale::S)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Ok(rescale::<TimestampMillisecondType>(column, Scale::Ms)),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(rescale::<TimestampNanosecondType>(column, Scale::Ns)),
            DataType::Date64 => Ok(rescale::<Date64Type>(column, Scale::Ms)),
            DataType::Int64 => Ok(rescale::<Int64Type>(column, Scale::of(field))),
            other => {
                // Dictionaries and the like: to their own values first.
                let plain = match other {
                    DataType::Dictionary(_, value) => value.as_ref().clone(),
                    DataType::RunEndEncoded(_, values) => values.data_type().clone(),
                    _ => return cast(column, to),
                };
                normalise(&cast(column, &plain)?, field)
            }
        };
    }
    cast(column, to)
}

fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })
}

/// What one unit of an integer time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    S,
    Ms,
    Us,
    Ns,
}

impl Scale {
    /// The unit that a field's metadata names; microseconds when it names none.
    pub(crate) fn of(field: &Field) -> Scale {
        match field.metadata().get(UNIT_KEY).map(String::as_str) {
            Some("s") => Scale::S,
            Some("ms") => Scale::Ms,
            Some("ns") => Scale::Ns,
            _ => Scale::Us,
        }
    }

    /// Microseconds, saturating.
    #[inline(always)]
    pub(crate) fn micros(self, value: i64) -> EventTime {
        const MS: Micros = 1_000;
        match self {
            Scale::S => value.saturating_mul(1_000 * MS),
            Scale::Ms => value.saturating_mul(MS),
            Scale::Us => value,
            Scale::Ns => value.div_euclid(1_000),
        }
    }
}

fn rescale<T: ArrowPrimitiveType<Native = i64>>(column: &ArrayRef, scale: Scale) -> ArrayRef {
    let column: &PrimitiveArray<T> = column.as_primitive();
    let values = column.values().iter();
    // One loop per unit, so that the unit is a constant in it.
    let micros: Vec<i64> = match scale {
        Scale::S => values.map(|v| Scale::S.micros(*v)).collect(),
        Scale::Ms => values.map(|v| Scale::Ms.micros(*v)).collect(),
        Scale::Us => values.copied().collect(),
        Scale::Ns => values.map(|v| Scale::Ns.micros(*v)).collect(),
    };
    Arc::new(TimestampMicrosecondArray::new(micros.into(), column.nulls().cloned()).with_timezone(UTC.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::expr::time_type as event_time_type;
    use arrow::array::{
        DictionaryArray, Float64Array, Int64Array, LargeStringArray, StringArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray,
    };
    use arrow::datatypes::Int32Type;

    fn micros(column: ArrayRef, field: &Field) -> Vec<Option<i64>> {
        normalise(&column, field).unwrap().as_primitive::<TimestampMicrosecondType>().iter().collect()
    }

    #[test]
    fn times_of_every_unit_become_microseconds_and_saturate() {
        let field = Field::new("ts", event_time_type(), true);
        let ms = TimestampMillisecondArray::from(vec![Some(-1), None, Some(i64::MAX), Some(i64::MIN)]);
        assert_eq!(micros(Arc::new(ms), &field), [Some(-1000), None, Some(i64::MAX), Some(i64::MIN)]);
        let ns = TimestampNanosecondArray::from(vec![1_999, -1]);
        assert_eq!(micros(Arc::new(ns), &field), [Some(1), Some(-1)]);
        let s = TimestampSecondArray::from(vec![7]);
        assert_eq!(micros(Arc::new(s), &field), [Some(7_000_000)]);
        let unit = field.clone().with_metadata([(UNIT_KEY.into(), "ms".into())].into());
        assert_eq!(micros(Arc::new(Int64Array::from(vec![2])), &unit), [Some(2_000)]);
        assert!(converts(&DataType::Int64, &unit) && !converts(&DataType::Int64, &field));
    }

    #[test]
    fn text_dictionaries_and_decimals_get_plain_types() {
        let field = Field::new("x", DataType::Utf8, true);
        let large: ArrayRef = Arc::new(LargeStringArray::from(vec!["a"]));
        assert_eq!(normalise(&large, &field).unwrap().as_string::<i32>(), &StringArray::from(vec!["a"]));
        let dictionary: ArrayRef = Arc::new(["b", "a", "b"].into_iter().collect::<DictionaryArray<Int32Type>>());
        assert!(converts(dictionary.data_type(), &field));
        assert_eq!(normalise(&dictionary, &field).unwrap().as_string::<i32>(), &StringArray::from(vec!["b", "a", "b"]));
        let decimal = arrow::array::Decimal128Array::from(vec![1234]).with_precision_and_scale(10, 2).unwrap();
        let field = Field::new("x", DataType::Float64, true);
        let decimal: ArrayRef = Arc::new(decimal);
        assert!(converts(decimal.data_type(), &field));
        let column = normalise(&decimal, &field).unwrap();
        assert_eq!(column.as_primitive::<arrow::datatypes::Float64Type>(), &Float64Array::from(vec![12.34]));
    }
}
