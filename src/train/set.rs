//! Reads a set that `tidemill dataset` has written into memory, as learners want it.
//!
//! Which columns are inputs, label and times stands in the file itself. Numbers and truth values become the 32-bit floats
//! that an exported model will see, nulls become missing values, texts become categories whose levels are sorted.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchReader};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::data::{Column, MISSING, Matrix, Set};
use crate::base::EventTime;
use crate::store::StoreError;
use crate::store::pit::{ColumnNote, Role, read_roles};

/// Why a set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The file cannot be read, or is no set.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The set does not hold what learning needs.
    #[error("{file}: {what}")]
    Unfit {
        /// The file.
        file: String,
        /// What is amiss, and how to mend it.
        what: String,
    },
}

/// Reads the set `file`. `label` names its column of labels where the set itself has none: one that was made of a file of
/// entities; labels of such a set count as known at the event.
///
/// # Errors
/// When the file is no set, has no labels, or an input is of a type that no learner takes.
pub fn read(file: &Path, label: Option<&str>) -> Result<Set, SetError> {
    let unfit = |what: String| SetError::Unfit { file: file.display().to_string(), what };
    let notes = read_roles(file)?;
    let of_role = |role: Role| notes.iter().find(|note| note.role == role);
    let label = match (label, of_role(Role::Label)) {
        (Some(name), _) => notes.iter().find(|note| note.name == name).ok_or_else(|| {
            let names: Vec<&str> = notes.iter().map(|note| note.name.as_str()).collect();
            unfit(format!("there is no column `{name}`; there are {}", names.join(", ")))
        })?,
        (None, Some(note)) => note,
        (None, None) => {
            return Err(unfit("there are no labels; make the set with --model, or name a column of labels".into()));
        }
    };
    let time = of_role(Role::Time).ok_or_else(|| unfit("there is no event time".into()))?;
    let known = of_role(Role::Known).unwrap_or(time);
    let is_label = |note: &ColumnNote| note.name == label.name;
    let inputs: Vec<&ColumnNote> = notes.iter().filter(|n| n.role == Role::Input && !is_label(n)).collect();
    if inputs.is_empty() {
        return Err(unfit("there are no inputs to learn from".into()));
    }
    let slices = |n: &&ColumnNote| matches!(n.role, Role::Key | Role::Extra) && !is_label(n);
    let extra: Vec<&ColumnNote> = notes.iter().filter(slices).collect();

    let opened = File::open(file).map_err(StoreError::io("open", file))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(StoreError::parquet(file))?;
    let rows = builder.metadata().file_metadata().num_rows().max(0) as usize;
    let wanted = inputs.iter().chain(&extra).chain([&label, &time, &known]);
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted.map(|note| note.name.as_str()));
    let reader = builder.with_projection(mask).build().map_err(StoreError::parquet(file))?;

    let mut columns: Vec<Building> = Vec::new();
    for note in &inputs {
        let field = reader.schema();
        let field = field.field_with_name(&note.name).map_err(|e| unfit(e.to_string()))?;
        columns.push(Building::of(field.data_type(), rows).ok_or_else(|| {
            unfit(format!(
                "input `{}` is of type {}, which no learner takes; derive a number, a truth value or a text of it",
                note.name,
                field.data_type()
            ))
        })?);
    }
    let mut labels: Vec<f64> = Vec::with_capacity(rows);
    let (mut times, mut when_known): (Vec<EventTime>, Vec<EventTime>) = Default::default();
    let mut texts: Vec<Vec<String>> = vec![Vec::new(); extra.len()];
    for batch in reader {
        let batch = batch.map_err(StoreError::arrow(file.display().to_string()))?;
        let get = |note: &ColumnNote| column(&batch, note).map_err(unfit);
        for (building, note) in columns.iter_mut().zip(&inputs) {
            building.add(get(note)?).map_err(StoreError::arrow(file.display().to_string()))?;
        }
        let values = cast(get(label)?, &DataType::Float64).map_err(|e| unfit(format!("labels: {e}")))?;
        let values = values.as_primitive::<Float64Type>();
        if let Some(row) = (0..values.len()).find(|row| values.is_null(*row) || !values.value(*row).is_finite()) {
            let row = labels.len() + row;
            return Err(unfit(format!("the label `{}` of row {row} is no number; leave such rows out", label.name)));
        }
        labels.extend(values.values());
        for (note, times) in [(time, &mut times), (known, &mut when_known)] {
            let column = cast(get(note)?, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
                .map_err(|e| unfit(format!("`{}`: {e}", note.name)))?;
            if column.null_count() > 0 {
                return Err(unfit(format!("`{}` is null in some rows; leave such rows out", note.name)));
            }
            times.extend(column.as_primitive::<TimestampMicrosecondType>().values());
        }
        for (texts, note) in texts.iter_mut().zip(&extra) {
            let column = get(note)?;
            let shown = ArrayFormatter::try_new(column, &FormatOptions::default()).map_err(|e| unfit(e.to_string()))?;
            texts.extend((0..column.len()).map(|row| shown.value(row).to_string()));
        }
    }
    Ok(Set {
        inputs: Matrix {
            names: inputs.iter().map(|note| note.name.clone()).collect(),
            columns: columns.into_iter().map(Building::finish).collect(),
        },
        labels,
        weights: None,
        times,
        known: when_known,
        extra: extra.iter().map(|note| note.name.clone()).zip(texts).collect(),
    })
}

fn column<'a>(batch: &'a RecordBatch, note: &ColumnNote) -> Result<&'a ArrayRef, String> {
    batch.column_by_name(&note.name).ok_or_else(|| format!("column `{}` is gone", note.name))
}

/// An input that is being read.
enum Building {
    Number(Vec<f32>),
    /// Codes in the order of coming, and these by text.
    Category(Vec<u32>, BTreeMap<String, u32>),
}

impl Building {
    fn of(data_type: &DataType, rows: usize) -> Option<Building> {
        match data_type {
            DataType::Boolean => Some(Building::Number(Vec::with_capacity(rows))),
            other if other.is_numeric() => Some(Building::Number(Vec::with_capacity(rows))),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Some(Building::Category(Vec::with_capacity(rows), BTreeMap::new()))
            }
            _ => None,
        }
    }

    fn add(&mut self, column: &ArrayRef) -> Result<(), arrow::error::ArrowError> {
        match self {
            Building::Number(values) => {
                let column = cast(column, &DataType::Float32)?;
                let column = column.as_primitive::<Float32Type>();
                values.extend(column.iter().map(|value| value.unwrap_or(f32::NAN)));
            }
            Building::Category(codes, levels) => {
                let column = cast(column, &DataType::Utf8)?;
                for text in column.as_string::<i32>() {
                    let Some(text) = text else {
                        codes.push(MISSING);
                        continue;
                    };
                    let next = levels.len() as u32;
                    codes.push(match levels.get(text) {
                        Some(code) => *code,
                        None => *levels.entry(text.to_owned()).or_insert(next),
                    });
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Column {
        match self {
            Building::Number(values) => Column::Number(values),
            Building::Category(mut codes, levels) => {
                let mut sorted = vec![0; levels.len()];
                levels.values().zip(0..).for_each(|(code, place)| sorted[*code as usize] = place);
                for code in codes.iter_mut().filter(|code| **code != MISSING) {
                    *code = sorted[*code as usize];
                }
                Column::Category { codes, levels: levels.into_keys().collect() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn inputs_become_what_models_see() {
        let mut number = Building::of(&DataType::Float64, 3).unwrap();
        let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1), None, Some(f64::NAN), Some(1e300)]));
        number.add(&column).unwrap();
        let Column::Number(values) = number.finish() else { panic!("numbers") };
        assert_eq!(values[0].to_bits(), 0.1f32.to_bits());
        assert!(values[1].is_nan() && values[2].is_nan() && values[3] == f32::INFINITY);

        let mut whole = Building::of(&DataType::Int64, 1).unwrap();
        whole.add(&(Arc::new(Int64Array::from(vec![16_777_217])) as ArrayRef)).unwrap();
        let mut truth = Building::of(&DataType::Boolean, 1).unwrap();
        truth.add(&(Arc::new(BooleanArray::from(vec![Some(true), None])) as ArrayRef)).unwrap();
        assert_eq!(whole.finish(), Column::Number(vec![16_777_216.0]));
        let Column::Number(values) = truth.finish() else { panic!("numbers") };
        assert!(values[0] == 1.0 && values[1].is_nan());

        let mut text = Building::of(&DataType::Utf8, 4).unwrap();
        for part in [vec![Some("b"), None, Some("a")], vec![Some("c"), Some("b")]] {
            text.add(&(Arc::new(StringArray::from(part)) as ArrayRef)).unwrap();
        }
        let levels = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(text.finish(), Column::Category { codes: vec![1, MISSING, 0, 2, 1], levels });
        assert!(Building::of(&DataType::Date32, 0).is_none());
    }

    #[test]
    fn a_file_that_is_no_set_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC"));
        let batch = RecordBatch::try_from_iter([("event_time", times)]).unwrap();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let error = read(&path, None).unwrap_err().to_string();
        assert!(error.contains("is no set"), "{error}");
        std::fs::write(&path, b"not parquet").unwrap();
        assert!(read(&path, None).unwrap_err().to_string().contains("x.parquet"));
        assert!(read(&dir.path().join("none.parquet"), None).unwrap_err().to_string().contains("cannot open"));
    }
}
