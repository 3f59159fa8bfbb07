//! The profile of a training set: of each column as much as it takes to hold windows of a stream against it.
//!
//! It is made when a version of a model is registered and kept beside the version, so that the rows themselves may be
//! compacted and vacuumed away. Numbers are counted in [fixed cells](super::grid), which need no reference: so windows that
//! were counted before another version became the champion can be held against that version's set, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::count::{Counter, Kind, Missing};
use super::grid::Grid;
use super::histogram::{Categories, Cell, Histogram, Numeric};
use super::reference::Reference;
use crate::base::EventTime;

/// Name of the file in which a version of a model has its profile.
pub const PROFILE_FILE: &str = "training.json";
/// Name of the column of labels in a training set.
pub const LABEL: &str = "label";
/// Version of the file's form.
const FORMAT: u32 = 1;
/// Distinct numbers that are counted as categories, too: a monitor may take numbers for such.
const NUMBERED_MAX: usize = 256;

/// The rows that a model was fitted on.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// How many.
    pub rows: u64,
    /// Event times of the first and of the last, if there are any.
    pub span: Option<(EventTime, EventTime)>,
    /// The tables that they were read from, with their versions.
    pub tables: BTreeMap<String, u64>,
    columns: BTreeMap<String, Counts>,
}

/// What is known of a column.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    numbers: Option<Numeric>,
    categories: Option<Categories>,
}

/// Why a profile says nothing of a column, or nothing at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The bytes are no profile.
    #[error("its profile cannot be read: {0}")]
    Damaged(String),
    /// Another version of the program wrote it.
    #[error("its profile is of format {0}, and this program reads format {FORMAT}")]
    Format(u32),
    /// There is no such column.
    #[error("it has no column `{0}`; it has {1}")]
    NoColumn(String, String),
    /// The column has no values.
    #[error("its column `{0}` has no values")]
    Empty(String),
    /// The column is of numbers, and the monitor counts categories, or the other way about.
    #[error("its column `{0}` is not of {1}")]
    Kind(String, &'static str),
}

/// Counts the columns of a training set.
pub struct Profiler {
    columns: Vec<Column>,
    rows: u64,
    span: Option<(EventTime, EventTime)>,
}

/// A column while it is counted.
struct Column {
    name: String,
    numbers: Option<Counter>,
    /// Of numbers only while they are few.
    categories: Option<(Counter, Histogram)>,
}

impl Column {
    fn count(&mut self, values: &ArrayRef) -> Result<(), ArrowError> {
        let missing = || Missing::new(values.len());
        if let Some(numbers) = &mut self.numbers {
            numbers.count(values, &mut missing())?;
        }
        if let Some((counter, all)) = &mut self.categories {
            counter.count(values, &mut missing())?;
            // By pieces, so that a column of which every value is another does not fill the memory.
            all.add(&counter.take());
            let few = matches!(all, Histogram::Categories(c) if c.others == 0 && c.counts.len() <= NUMBERED_MAX);
            if self.numbers.is_some() && !few {
                self.categories = None;
            }
        }
        Ok(())
    }

    fn finish(self) -> (String, Counts) {
        let numbers = self.numbers.and_then(|mut counter| match counter.take() {
            Histogram::Numeric(numbers) => Some(numbers),
            Histogram::Categories(_) => None,
        });
        let categories = self.categories.and_then(|(_, all)| match all {
            Histogram::Categories(categories) => Some(categories),
            Histogram::Numeric(_) => None,
        });
        (self.name, Counts { numbers, categories })
    }
}

impl Profiler {
    /// For columns of these names and types; those that are neither numbers nor categories are left out.
    pub fn new(columns: &[(String, DataType)]) -> Profiler {
        let column = |(name, ty): &(String, DataType)| {
            let text = matches!(ty, DataType::Utf8 | DataType::Boolean | DataType::Dictionary(..));
            let number = ty.is_numeric();
            // A column of times is neither.
            (text || number).then(|| Column {
                name: name.clone(),
                numbers: number.then(|| Counter::new(&Kind::Numeric(Arc::new(Grid::fixed())))),
                categories: Some((Counter::new(&Kind::Categories), Histogram::Categories(Categories::default()))),
            })
        };
        Profiler { columns: columns.iter().filter_map(column).collect(), rows: 0, span: None }
    }

    /// Counts rows, which happened at `times`.
    ///
    /// # Errors
    /// When a column is missing or of another type than said.
    pub fn count(&mut self, rows: &RecordBatch, times: &[EventTime]) -> Result<(), ArrowError> {
        for column in &mut self.columns {
            let values = rows.column_by_name(&column.name);
            let missing = || ArrowError::SchemaError(format!("there is no column `{}`", column.name));
            let values = values.ok_or_else(missing)?;
            column.count(values)?;
        }
        self.rows += rows.num_rows() as u64;
        for time in times {
            let (from, to) = self.span.unwrap_or((*time, *time));
            self.span = Some((from.min(*time), to.max(*time)));
        }
        Ok(())
    }

    /// What was counted, of rows of these tables at these versions.
    pub fn finish(self, tables: BTreeMap<String, u64>) -> Profile {
        let columns = self.columns.into_iter().map(Column::finish).collect();
        Profile { rows: self.rows, span: self.span, tables, columns }
    }
}

impl Profile {
    /// The reference that a column is, for windows that are counted in fixed cells, or as categories.
    ///
    /// # Errors
    /// When the profile does not have it.
    pub fn reference(&self, column: &str, categories: bool, bins: usize) -> Result<Arc<Reference>, ProfileError> {
        let counts = self.columns.get(column).ok_or_else(|| {
            let names: Vec<&str> = self.columns.keys().map(String::as_str).collect();
            ProfileError::NoColumn(column.to_owned(), names.join(", "))
        })?;
        let of = |kind: &'static str| ProfileError::Kind(column.to_owned(), kind);
        let (counts, grid) = match categories {
            true => {
                let what = "categories, or of more distinct numbers than are counted as such (256)";
                (Histogram::Categories(counts.categories.clone().ok_or_else(|| of(what))?), None)
            }
            false => {
                let numbers = counts.numbers.clone().ok_or_else(|| of("numbers"))?;
                (Histogram::Numeric(numbers), Some(Arc::new(Grid::fixed())))
            }
        };
        let reference = Reference::of_windows(&counts, grid.as_ref(), bins);
        reference.map(Arc::new).ok_or_else(|| ProfileError::Empty(column.to_owned()))
    }

    /// As JSON.
    pub fn encode(&self) -> Vec<u8> {
        let columns = self.columns.iter().map(|(name, counts)| (name.clone(), SavedColumn::of(counts))).collect();
        let (rows, span, tables) = (self.rows, self.span, self.tables.clone());
        // Numbers and texts always become JSON.
        serde_json::to_vec(&Saved { format: FORMAT, rows, span, tables, columns }).unwrap_or_default()
    }

    /// What [`Profile::encode`] wrote.
    ///
    /// # Errors
    /// When it did not, or another version did.
    pub fn decode(bytes: &[u8]) -> Result<Profile, ProfileError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let damaged = |error: serde_json::Error| ProfileError::Damaged(error.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
        if head.format != FORMAT {
            return Err(ProfileError::Format(head.format));
        }
        let saved: Saved = serde_json::from_slice(bytes).map_err(damaged)?;
        let column = |(name, column): (String, SavedColumn)| {
            let sum = || ProfileError::Damaged(format!("a sum of column `{name}` is no whole number"));
            Ok((name.clone(), column.counts().ok_or_else(sum)?))
        };
        let columns = saved.columns.into_iter().map(column).collect::<Result<_, _>>()?;
        Ok(Profile { rows: saved.rows, span: saved.span, tables: saved.tables, columns })
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    rows: u64,
    span: Option<(EventTime, EventTime)>,
    tables: BTreeMap<String, u64>,
    columns: BTreeMap<String, SavedColumn>,
}

#[derive(Serialize, Deserialize)]
struct SavedColumn {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    numbers: Option<SavedNumbers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    categories: Option<SavedCategories>,
}

#[derive(Serialize, Deserialize)]
struct SavedNumbers {
    nulls: i64,
    not_finite: i64,
    /// Cell, count, and the sum of what the values are above the cell's lower end, as text: it may have 128 bits.
    cells: Vec<(u32, i64, String)>,
}

#[derive(Serialize, Deserialize)]
struct SavedCategories {
    nulls: i64,
    others: i64,
    counts: BTreeMap<Box<str>, i64>,
}

impl SavedColumn {
    fn of(counts: &Counts) -> SavedColumn {
        let numbers = counts.numbers.as_ref().map(|n| SavedNumbers {
            nulls: n.nulls,
            not_finite: n.not_finite,
            cells: n.cells.iter().map(|(index, cell)| (*index, cell.count, cell.sum.to_string())).collect(),
        });
        let categories = counts.categories.clone();
        let categories =
            categories.map(|Categories { nulls, others, counts }| SavedCategories { nulls, others, counts });
        SavedColumn { numbers, categories }
    }

    fn counts(self) -> Option<Counts> {
        let numbers = self.numbers.map(|SavedNumbers { nulls, not_finite, cells }| {
            let cell = |(index, count, sum): (u32, i64, String)| Some((index, Cell { count, sum: sum.parse().ok()? }));
            let cells = cells.into_iter().map(cell).collect::<Option<BTreeMap<_, _>>>()?;
            Some(Numeric { nulls, not_finite, cells, outside: None })
        });
        let numbers = match numbers {
            Some(numbers) => Some(numbers?),
            None => None,
        };
        let categories =
            self.categories.map(|SavedCategories { nulls, others, counts }| Categories { nulls, others, counts });
        Some(Counts { numbers, categories })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};

    use super::*;
    use crate::monitor::drift::measure::measure;
    use crate::plan::model::DriftMetric;

    fn rows() -> RecordBatch {
        let amounts = (0..1000).map(|i| (i % 10 != 0).then(|| 0.37 * f64::from(i) - 100.0));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("amount", Arc::new(Float64Array::from_iter(amounts))),
            ("hour", Arc::new(Int64Array::from_iter_values((0..1000).map(|i| i % 24)))),
            (
                "country",
                Arc::new(StringArray::from_iter_values((0..1000).map(|i| if i % 3 == 0 { "FR" } else { "DE" }))),
            ),
            ("night", Arc::new(BooleanArray::from_iter((0..1000).map(|i| Some(i % 5 == 0))))),
            ("none", Arc::new(Float64Array::from_iter((0..1000).map(|_| None::<f64>)))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).expect("rows")
    }

    fn profile() -> Profile {
        let rows = rows();
        let columns: Vec<(String, DataType)> =
            rows.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
        let mut profiler = Profiler::new(&columns);
        let times: Vec<i64> = (0..1000).collect();
        // In pieces, as files are read.
        for from in [0usize, 300, 600] {
            let length = 300.min(1000 - from) + if from == 600 { 100 } else { 0 };
            profiler.count(&rows.slice(from, length), &times[from..from + length]).expect("they are counted");
        }
        profiler.finish(BTreeMap::from([("labels/fraud".to_owned(), 41)]))
    }

    #[test]
    fn it_is_read_back_as_it_was() {
        let profile = profile();
        assert_eq!((profile.rows, profile.span), (1000, Some((0, 999))));
        assert_eq!(Profile::decode(&profile.encode()).as_ref(), Ok(&profile));
        assert!(matches!(Profile::decode(b"{}"), Err(ProfileError::Damaged(_))));
        let newer = String::from_utf8(profile.encode()).expect("text").replace("\"format\":1", "\"format\":2");
        assert_eq!(Profile::decode(newer.as_bytes()), Err(ProfileError::Format(2)));
        let odd = r#"{"format":1,"rows":1,"span":null,"tables":{},
            "columns":{"a":{"numbers":{"nulls":0,"not_finite":0,"cells":[[1,1,"one"]]}}}}"#;
        assert!(matches!(Profile::decode(odd.as_bytes()), Err(ProfileError::Damaged(_))));
    }

    /// Held against itself nothing differs; held against the exact reference the difference is within the bound.
    #[test]
    fn a_column_is_what_its_values_say() {
        let (rows, profile) = (rows(), profile());
        for (name, categories) in
            [("amount", false), ("hour", false), ("hour", true), ("country", true), ("night", true)]
        {
            let column = rows.column_by_name(name).expect("a column");
            let reference = profile.reference(name, categories, 10).expect("a reference");
            let mut counter = Counter::new(&reference.kind());
            counter.count(column, &mut Missing::new(column.len())).expect("it is counted");
            let same = measure(DriftMetric::Psi, &reference, &counter.take()).expect("a value");
            assert_eq!(same.value, 0.0, "{name}");
            let half = column.slice(0, 400);
            counter.count(&half, &mut Missing::new(half.len())).expect("it is counted");
            let window = counter.take();
            let exact = Reference::of_column(column, categories, 10).expect("a reference");
            let mut counter = Counter::new(&exact.kind());
            counter.count(&half, &mut Missing::new(half.len())).expect("it is counted");
            let other = counter.take();
            for metric in [DriftMetric::Ks, DriftMetric::ShiftSd] {
                let (Some(fixed), Some(exact)) =
                    (measure(metric, &reference, &window), measure(metric, &exact, &other))
                else {
                    assert!(categories, "{name} {metric:?}");
                    continue;
                };
                let bound = fixed.bound.unwrap_or(0.0) + exact.bound.unwrap_or(0.0) + 1e-3;
                assert!(
                    (fixed.value - exact.value).abs() <= bound,
                    "{name} {metric:?}: {} {}",
                    fixed.value,
                    exact.value
                );
            }
        }
    }

    #[test]
    fn what_it_does_not_have_is_named() {
        let profile = profile();
        let fault = |column: &str, categories| {
            profile.reference(column, categories, 10).expect_err("it is refused").to_string()
        };
        assert!(fault("amounts", false).contains("amount, country, hour"));
        assert!(fault("country", false).contains("not of numbers"));
        assert!(fault("amount", true).contains("more distinct numbers"));
        assert!(fault("none", false).contains("has no values"));
    }
}
