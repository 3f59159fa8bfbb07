//! Columns under construction: typed values of one row at a time, and a row is in all columns or in none.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::{
    DataType, Date32Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;

use super::normalise::{DEFAULT_KEY, SYMBOLS_KEY, Scale, UTC};
use crate::base::{DAY, EventTime};
use crate::ingest::dead_letter::DeadLetterKind;
use crate::ingest::file::parquet::nullable;

/// Why a row is not decoded.
#[derive(Debug, PartialEq)]
pub(crate) struct Problem {
    pub kind: DeadLetterKind,
    pub reason: String,
}

impl Problem {
    pub(crate) fn undecodable(reason: impl Into<String>) -> Problem {
        Problem { kind: DeadLetterKind::Undecodable, reason: reason.into() }
    }
}

/// A value as a format writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Null,
    Bool(bool),
    /// A JSON number.
    Number(&'a str),
    /// A bare `NaN`, `Infinity` or `-Infinity`, as Python and Java write them in place of a JSON number.
    NotFinite(f64),
    /// Text that says it is text: a JSON string, a quoted CSV field.
    Text(&'a str),
    /// Text that may be anything: an unquoted CSV field.
    Bare(&'a str),
    /// A JSON list or object.
    Nested,
}

impl Token<'_> {
    fn describe(&self) -> String {
        let short = |text: &str| text.chars().take(40).collect::<String>();
        match self {
            Token::Null => "null".into(),
            Token::Bool(b) => b.to_string(),
            Token::Number(text) | Token::Bare(text) => short(text),
            Token::NotFinite(number) => number.to_string(),
            Token::Text(text) => format!("the text {:?}", short(text)),
            Token::Nested => "a list or an object".into(),
        }
    }
}

/// The columns of a source while rows are appended.
#[derive(Debug)]
pub(crate) struct Columns {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
}

#[derive(Debug)]
struct Column {
    name: String,
    kind: Kind,
    required: bool,
    /// The value of an absent field, where the schema gives one that is not null.
    default: Option<serde_json::Value>,
    values: Values,
    valid: Valid,
}

#[derive(Clone, Debug)]
enum Kind {
    Bool,
    Whole(i64, i64),
    Unsigned,
    Real,
    Text(Option<Vec<String>>),
    Time(Scale),
    Date,
}

impl Kind {
    fn no_values(&self) -> Values {
        match self {
            Kind::Real => Values::Reals(Vec::new()),
            Kind::Text(_) => Values::Texts { offsets: vec![0], bytes: Vec::new() },
            _ => Values::Words(Vec::new()),
        }
    }
}

#[derive(Debug)]
enum Values {
    /// Whole numbers (unsigned ones as their bits), times, dates, truth values.
    Words(Vec<i64>),
    Reals(Vec<f64>),
    Texts {
        offsets: Vec<i32>,
        bytes: Vec<u8>,
    },
}

/// Which values are not null; costs nothing until there is a null.
#[derive(Debug, Default)]
struct Valid {
    len: usize,
    bits: Option<Vec<bool>>,
}

impl Valid {
    #[inline(always)]
    fn push(&mut self, valid: bool) {
        if !valid && self.bits.is_none() {
            self.bits = Some(vec![true; self.len]);
        }
        if let Some(bits) = &mut self.bits {
            bits.push(valid);
        }
        self.len += 1;
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Some(bits) = &mut self.bits {
            bits.truncate(len);
        }
    }

    fn finish(&mut self) -> Option<NullBuffer> {
        self.len = 0;
        self.bits.take().map(NullBuffer::from).filter(|nulls| nulls.null_count() > 0)
    }
}

impl Columns {
    /// # Errors
    /// A sentence that names a field which text cannot hold.
    pub(crate) fn new(schema: &SchemaRef) -> Result<Columns, String> {
        let columns = schema.fields().iter().map(|f| Column::new(f)).collect::<Result<_, _>>()?;
        Ok(Columns { schema: nullable(schema), columns, rows: 0 })
    }

    /// Place of a column by name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// Makes room for this many rows.
    pub(crate) fn reserve(&mut self, rows: usize) {
        for column in &mut self.columns {
            match &mut column.values {
                Values::Words(words) => words.reserve(rows),
                Values::Reals(reals) => reals.reserve(rows),
                Values::Texts { offsets, .. } => offsets.reserve(rows),
            }
        }
    }

    /// Sets a value of the row being built; a value set twice counts as set last.
    #[inline]
    pub(crate) fn set(&mut self, column: usize, token: Token<'_>) -> Result<(), Problem> {
        let column = &mut self.columns[column];
        if column.valid.len > self.rows {
            column.truncate(self.rows);
        }
        column.push(token)
    }

    /// Appends a whole number, time (microseconds), date (days) or truth value to the row being built. This and its
    /// siblings are for decoders that give every column one value per row, of the column's type and range.
    #[inline(always)]
    pub(crate) fn word(&mut self, column: usize, word: i64) {
        let column = &mut self.columns[column];
        if let Values::Words(words) = &mut column.values {
            words.push(word);
        }
        column.valid.push(true);
    }

    /// Appends a real number.
    #[inline(always)]
    pub(crate) fn real(&mut self, column: usize, real: f64) {
        let column = &mut self.columns[column];
        if let Values::Reals(reals) = &mut column.values {
            reals.push(real);
        }
        column.valid.push(true);
    }

    /// Appends a text; [`Columns::finish`] fails when it was not UTF-8.
    ///
    /// # Errors
    /// When the column's texts pass 2 GiB.
    #[inline(always)]
    pub(crate) fn text(&mut self, column: usize, text: &[u8]) -> Result<(), Problem> {
        let column = &mut self.columns[column];
        if let Values::Texts { offsets, bytes } = &mut column.values {
            let Ok(end) = i32::try_from(bytes.len() + text.len()) else {
                return Err(too_many_texts(&column.name));
            };
            bytes.extend_from_slice(text);
            offsets.push(end);
        }
        column.valid.push(true);
        Ok(())
    }

    /// Appends a null, to a column that may hold one.
    pub(crate) fn null(&mut self, column: usize) {
        self.columns[column].append_null();
    }

    /// Appends the value of an absent field.
    ///
    /// # Errors
    /// When the field has no default and is required, or the default is not of its type.
    pub(crate) fn absent(&mut self, column: usize) -> Result<(), Problem> {
        self.columns[column].push_absent()
    }

    /// Ends a row of which every column has its value.
    #[inline(always)]
    pub(crate) fn row_done(&mut self) {
        self.rows += 1;
    }

    /// Forgets all rows.
    pub(crate) fn clear(&mut self) {
        self.rows = 0;
        for column in &mut self.columns {
            column.values = column.kind.no_values();
            column.valid = Valid::default();
        }
    }

    /// Ends the row: fields that were not set take their default or null.
    pub(crate) fn end_row(&mut self) -> Result<(), Problem> {
        for column in &mut self.columns {
            if column.valid.len == self.rows {
                column.push_absent()?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Forgets the row being built.
    pub(crate) fn abandon_row(&mut self) {
        self.columns.iter_mut().for_each(|c| c.truncate(self.rows));
    }

    /// The whole rows as a batch; begins anew.
    ///
    /// # Errors
    /// When a text that was appended unchecked is not UTF-8; the columns must be [cleared](Columns::clear) then.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.abandon_row();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        let types = self.schema.fields().iter().map(|f| f.data_type());
        let arrays = self.columns.iter_mut().zip(types).map(|(c, t)| c.finish(t)).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
    }
}

impl Column {
    fn new(field: &Field) -> Result<Column, String> {
        use DataType::*;
        let metadata = |key| field.metadata().get(key).map(String::as_str);
        let kind = match field.data_type() {
            Boolean => Kind::Bool,
            Int8 => Kind::Whole(i8::MIN.into(), i8::MAX.into()),
            Int16 => Kind::Whole(i16::MIN.into(), i16::MAX.into()),
            Int32 => Kind::Whole(i32::MIN.into(), i32::MAX.into()),
            Int64 => Kind::Whole(i64::MIN, i64::MAX),
            UInt8 => Kind::Whole(0, u8::MAX.into()),
            UInt16 => Kind::Whole(0, u16::MAX.into()),
            UInt32 => Kind::Whole(0, u32::MAX.into()),
            UInt64 => Kind::Unsigned,
            Float32 | Float64 => Kind::Real,
            Utf8 => Kind::Text(metadata(SYMBOLS_KEY).and_then(|json| serde_json::from_str(json).ok())),
            Timestamp(_, _) => Kind::Time(Scale::of(field)),
            Date32 => Kind::Date,
            other => {
                return Err(format!("field `{}` is {other}, which text files cannot hold", field.name()));
            }
        };
        let values = kind.no_values();
        let default = metadata(DEFAULT_KEY).and_then(|json| serde_json::from_str(json).ok());
        let default = default.filter(|value: &serde_json::Value| !value.is_null());
        let (name, required) = (field.name().clone(), !field.is_nullable());
        Ok(Column { name, kind, required, default, values, valid: Valid::default() })
    }

    fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.values {
            Values::Words(words) => words.truncate(rows),
            Values::Reals(reals) => reals.truncate(rows),
            Values::Texts { offsets, bytes } => {
                offsets.truncate(rows + 1);
                bytes.truncate(offsets[offsets.len() - 1] as usize);
            }
        }
    }

    #[inline]
    fn push(&mut self, token: Token<'_>) -> Result<(), Problem> {
        if token == Token::Null {
            return self.push_null("null");
        }
        match (&self.kind, &mut self.values) {
            (Kind::Real, Values::Reals(reals)) => match real(token) {
                Some(real) => reals.push(real),
                None => return Err(self.wrong(token, "a number")),
            },
            (Kind::Text(symbols), Values::Texts { offsets, bytes }) => {
                let (Token::Text(text) | Token::Bare(text)) = token else {
                    return Err(self.wrong(token, "a text"));
                };
                if symbols.as_ref().is_some_and(|symbols| !symbols.iter().any(|s| s == text)) {
                    return Err(self.wrong(token, "one of the schema's symbols"));
                }
                let Ok(end) = i32::try_from(bytes.len() + text.len()) else {
                    return Err(too_many_texts(&self.name));
                };
                bytes.extend_from_slice(text.as_bytes());
                offsets.push(end);
            }
            (kind, Values::Words(words)) => match word(kind, token) {
                Ok(word) => words.push(word),
                Err(wanted) => return Err(self.wrong(token, &wanted)),
            },
            (_, _) => unreachable!("values are made for the kind"),
        }
        self.valid.push(true);
        Ok(())
    }

    fn push_null(&mut self, what: &str) -> Result<(), Problem> {
        if self.required {
            let reason = format!("field `{}` is {what}, the schema requires a value", self.name);
            return Err(Problem { kind: DeadLetterKind::MissingField, reason });
        }
        self.append_null();
        Ok(())
    }

    fn append_null(&mut self) {
        match &mut self.values {
            Values::Words(words) => words.push(0),
            Values::Reals(reals) => reals.push(0.0),
            Values::Texts { offsets, .. } => offsets.push(offsets[offsets.len() - 1]),
        }
        self.valid.push(false);
    }

    fn push_absent(&mut self) -> Result<(), Problem> {
        match self.default.clone() {
            None => self.push_null("absent"),
            Some(serde_json::Value::Bool(b)) => self.push(Token::Bool(b)),
            Some(serde_json::Value::String(text)) => self.push(Token::Text(&text)),
            Some(serde_json::Value::Number(n)) => self.push(Token::Number(&n.to_string())),
            Some(_) => self.push_null("absent"),
        }
    }

    #[cold]
    fn wrong(&self, token: Token<'_>, wanted: &str) -> Problem {
        let reason = format!("field `{}` is {}, expected {wanted}", self.name, token.describe());
        Problem { kind: DeadLetterKind::WrongType, reason }
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let nulls = self.valid.finish();
        Ok(match &mut self.values {
            Values::Words(words) => {
                let words = std::mem::take(words);
                match data_type {
                    DataType::Boolean => {
                        let bits = words.iter().map(|w| *w != 0).collect::<Vec<bool>>();
                        Arc::new(BooleanArray::new(bits.into(), nulls))
                    }
                    DataType::Int8 => narrow::<Int8Type>(words, nulls, |w| w as i8),
                    DataType::Int16 => narrow::<Int16Type>(words, nulls, |w| w as i16),
                    DataType::Int32 => narrow::<Int32Type>(words, nulls, |w| w as i32),
                    DataType::Int64 => Arc::new(PrimitiveArray::<Int64Type>::new(words.into(), nulls)),
                    DataType::UInt8 => narrow::<UInt8Type>(words, nulls, |w| w as u8),
                    DataType::UInt16 => narrow::<UInt16Type>(words, nulls, |w| w as u16),
                    DataType::UInt32 => narrow::<UInt32Type>(words, nulls, |w| w as u32),
                    DataType::UInt64 => narrow::<UInt64Type>(words, nulls, i64::cast_unsigned),
                    DataType::Date32 => narrow::<Date32Type>(words, nulls, |w| w as i32),
                    _ => Arc::new(TimestampMicrosecondArray::new(words.into(), nulls).with_timezone(UTC.clone())),
                }
            }
            Values::Reals(reals) => {
                let reals = std::mem::take(reals);
                match data_type {
                    DataType::Float32 => {
                        let values: ScalarBuffer<f32> = reals.iter().map(|r| *r as f32).collect::<Vec<_>>().into();
                        Arc::new(PrimitiveArray::<Float32Type>::new(values, nulls))
                    }
                    _ => Arc::new(PrimitiveArray::<Float64Type>::new(reals.into(), nulls)),
                }
            }
            Values::Texts { offsets, bytes } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                let bytes = Buffer::from_vec(std::mem::take(bytes));
                Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
            }
        })
    }
}

#[cold]
fn too_many_texts(field: &str) -> Problem {
    let reason = format!("field `{field}`: the texts of one read pass 2 GiB");
    Problem { kind: DeadLetterKind::TooLarge, reason }
}

fn narrow<T: ArrowPrimitiveType>(words: Vec<i64>, nulls: Option<NullBuffer>, to: fn(i64) -> T::Native) -> ArrayRef {
    let values: ScalarBuffer<T::Native> = words.into_iter().map(to).collect::<Vec<_>>().into();
    Arc::new(PrimitiveArray::<T>::new(values, nulls))
}

fn real(token: Token<'_>) -> Option<f64> {
    match token {
        Token::Number(text) => text.parse().ok(),
        Token::NotFinite(number) => Some(number),
        // CSV has no other way to write one; in JSON these three are how protocol buffers write them.
        Token::Bare(text) => text.trim().parse().ok(),
        Token::Text("NaN") => Some(f64::NAN),
        Token::Text("Infinity") => Some(f64::INFINITY),
        Token::Text("-Infinity") => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The word for a token, or what was expected in its place.
fn word(kind: &Kind, token: Token<'_>) -> Result<i64, String> {
    let number = match token {
        Token::Number(text) => Some(text),
        Token::Bare(text) => Some(text.trim()),
        _ => None,
    };
    match kind {
        Kind::Bool => match (token, number) {
            (Token::Bool(b), _) => Ok(i64::from(b)),
            (Token::Bare(_), Some("1")) => Ok(1),
            (Token::Bare(_), Some("0")) => Ok(0),
            (Token::Bare(_), Some(text)) if text.eq_ignore_ascii_case("true") => Ok(1),
            (Token::Bare(_), Some(text)) if text.eq_ignore_ascii_case("false") => Ok(0),
            _ => Err("true or false".into()),
        },
        Kind::Whole(min, max) => match number.and_then(whole) {
            Some(whole) if (*min..=*max).contains(&whole) => Ok(whole),
            Some(_) => Err(format!("a whole number from {min} to {max}")),
            None => Err("a whole number in 64 bits".into()),
        },
        Kind::Unsigned => {
            let unsigned = number.and_then(|text| text.parse::<u64>().ok().or_else(|| whole(text)?.try_into().ok()));
            unsigned.map(u64::cast_signed).ok_or_else(|| "a whole number from 0 to 2^64 - 1".into())
        }
        Kind::Time(scale) => match (number.and_then(whole), token) {
            (Some(whole), _) => Ok(scale.micros(whole)),
            (None, Token::Text(text) | Token::Bare(text)) => time(text),
            _ => Err("a time".into()),
        }
        .map_err(|what: String| format!("{what}, such as 2018-04-01T00:00:31Z or a whole number of {}", unit(*scale))),
        Kind::Date => {
            let days = match (number.and_then(whole), token) {
                (Some(days), _) => Ok(days),
                (None, Token::Text(text) | Token::Bare(text)) => time(text).map(|time| time.div_euclid(DAY)),
                _ => Err(String::new()),
            };
            let days = days.ok().filter(|days| i32::try_from(*days).is_ok());
            days.ok_or_else(|| "a date such as 2018-04-01".into())
        }
        Kind::Real | Kind::Text(_) => unreachable!("not kept as words"),
    }
}

fn unit(scale: Scale) -> &'static str {
    match scale {
        Scale::S => "seconds",
        Scale::Ms => "milliseconds",
        Scale::Us => "microseconds",
        Scale::Ns => "nanoseconds",
    }
}

/// A whole number; `5.0` and `1e3` are whole numbers too, since tools write integers with gaps that way.
fn whole(text: &str) -> Option<i64> {
    const EXACT: f64 = (1u64 << 53) as f64;
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    if !text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        return None;
    }
    let real: f64 = text.parse().ok()?;
    (real.fract() == 0.0 && real.abs() <= EXACT).then_some(real as i64)
}

/// A time as text. Times that are well written and beyond 1677 to 2262 become the ends of time, for the check of the
/// range to find.
fn time(text: &str) -> Result<EventTime, String> {
    let text = text.trim();
    if let Ok(nanos) = string_to_timestamp_nanos(text) {
        return Ok(nanos.div_euclid(1_000));
    }
    let year = text.get(..4).and_then(|year| year.parse::<u16>().ok());
    match (year, text.get(4..)) {
        (Some(year), Some(rest)) if string_to_timestamp_nanos(&format!("2000{rest}")).is_ok() && year < 1700 => {
            Ok(EventTime::MIN)
        }
        (Some(year), Some(rest)) if string_to_timestamp_nanos(&format!("2000{rest}")).is_ok() && year > 2200 => {
            Ok(EventTime::MAX)
        }
        _ => Err("a time".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::decode::normalise::UNIT_KEY;
    use crate::plan::expr::time_type;
    use arrow::array::Array;
    use arrow::datatypes::Schema;

    fn one(field: Field, token: Token<'_>) -> Result<String, Problem> {
        let mut columns = Columns::new(&Arc::new(Schema::new(vec![field]))).unwrap();
        columns.set(0, token)?;
        columns.end_row()?;
        let batch = columns.finish().unwrap();
        let format = arrow::util::display::FormatOptions::new().with_null("null");
        Ok(arrow::util::display::ArrayFormatter::try_new(batch.column(0), &format).unwrap().value(0).to_string())
    }

    #[test]
    fn values_are_taken_by_type_or_refused_with_what_was_expected() {
        let field = |t: DataType| Field::new("x", t, true);
        let ms = field(time_type()).with_metadata([(UNIT_KEY.into(), "ms".into())].into());
        for (field, token, expected) in [
            (field(DataType::Int32), Token::Number("5.0"), "5"),
            (field(DataType::Int64), Token::Bare(" -7 "), "-7"),
            (field(DataType::UInt64), Token::Number("18446744073709551615"), "18446744073709551615"),
            (field(DataType::Float64), Token::Number("1e999"), "inf"),
            (field(DataType::Float64), Token::Text("NaN"), "NaN"),
            (field(DataType::Float32), Token::Bare("0.1"), "0.1"),
            (field(DataType::Boolean), Token::Bare("TRUE"), "true"),
            (field(DataType::Utf8), Token::Bare("5"), "5"),
            (field(DataType::Date32), Token::Text("2018-04-01"), "2018-04-01"),
            (field(DataType::Date32), Token::Number("1"), "1970-01-02"),
            (ms.clone(), Token::Number("1500"), "1970-01-01T00:00:01.500Z"),
            (ms.clone(), Token::Bare("2018-04-01 00:00:31"), "2018-04-01T00:00:31Z"),
            (ms.clone(), Token::Null, "null"),
        ] {
            assert_eq!(one(field.clone(), token).as_deref(), Ok(expected), "{field:?} {token:?}");
        }
        for (field, token) in [
            (field(DataType::Int8), Token::Number("300")),
            (field(DataType::Int64), Token::Number("5.5")),
            (field(DataType::Int64), Token::Text("5")),
            (field(DataType::Int64), Token::Number("99999999999999999999")),
            (field(DataType::UInt64), Token::Number("-1")),
            (field(DataType::Float64), Token::Text("12.5")),
            (field(DataType::Float64), Token::Bool(true)),
            (field(DataType::Utf8), Token::Number("5")),
            (field(DataType::Utf8), Token::Nested),
            (field(DataType::Boolean), Token::Number("1")),
            (ms.clone(), Token::Text("yesterday")),
            (ms.clone(), Token::Bool(true)),
        ] {
            let problem = one(field.clone(), token).unwrap_err();
            assert_eq!(problem.kind, DeadLetterKind::WrongType, "{field:?} {token:?}");
        }
    }

    #[test]
    fn times_beyond_the_calendar_are_times() {
        assert_eq!(time("9999-12-31T23:59:59Z"), Ok(i64::MAX));
        assert_eq!(time("0001-01-01"), Ok(i64::MIN));
        assert!(time("9999-13-31").is_err() && time("é999-01-01").is_err());
    }

    #[test]
    fn an_abandoned_row_leaves_no_trace_and_a_repeated_field_counts_last() {
        let fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, false)];
        let mut columns = Columns::new(&Arc::new(Schema::new(fields))).unwrap();
        columns.set(1, Token::Text("first")).unwrap();
        columns.set(1, Token::Text("second")).unwrap();
        columns.end_row().unwrap();
        columns.set(1, Token::Text("gone")).unwrap();
        assert!(columns.set(0, Token::Bool(true)).is_err());
        columns.abandon_row();
        columns.set(0, Token::Number("3")).unwrap();
        assert_eq!(columns.end_row().unwrap_err().kind, DeadLetterKind::MissingField);
        columns.abandon_row();
        let batch = columns.finish().unwrap();
        assert_eq!(batch.num_rows(), 1);
        assert!(batch.column(0).is_null(0));
        assert_eq!(batch.column(1).as_ref(), &StringArray::from(vec!["second"]) as &dyn Array);
    }

    #[test]
    fn defaults_and_symbols_come_from_the_schema() {
        let currency = Field::new("currency", DataType::Utf8, false).with_metadata(
            [(DEFAULT_KEY.into(), "\"EUR\"".into()), (SYMBOLS_KEY.into(), "[\"EUR\",\"USD\"]".into())].into(),
        );
        let mut columns = Columns::new(&Arc::new(Schema::new(vec![currency.clone()]))).unwrap();
        columns.end_row().unwrap();
        assert_eq!(columns.finish().unwrap().column(0).as_ref(), &StringArray::from(vec!["EUR"]) as &dyn Array);
        assert_eq!(one(currency, Token::Text("YEN")).unwrap_err().kind, DeadLetterKind::WrongType);
    }
}
