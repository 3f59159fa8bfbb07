//! Tables compared as sets of rows, bit by bit.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::pretty::pretty_format_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Reads a whole Parquet file.
pub fn read_parquet(path: &Path) -> RecordBatch {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().expect("a reader").map(|b| b.expect("a batch")).collect();
    concat_batches(&schema, &batches).expect("one schema")
}

/// A column of numbers or times (in microseconds) as numbers; null is `None`.
pub fn values(batch: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    let column = column(batch, name);
    if let DataType::Timestamp(_, zone) = column.data_type() {
        let micros = cast_to(column, name, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()));
        let counts = cast_to(&micros, name, &DataType::Int64);
        return counts.as_primitive::<Int64Type>().iter().map(|t| t.map(|t| t as f64)).collect();
    }
    cast_to(column, name, &DataType::Float64).as_primitive::<Float64Type>().iter().collect()
}

/// A column of ids.
pub fn ids(batch: &RecordBatch, name: &str) -> Vec<i64> {
    let ids = cast_to(column(batch, name), name, &DataType::Int64);
    assert_eq!(ids.null_count(), 0, "`{name}` has nulls");
    ids.as_primitive::<Int64Type>().values().to_vec()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    batch.column_by_name(name).unwrap_or_else(|| panic!("no column `{name}` among {names:?}"))
}

fn cast_to(column: &ArrayRef, name: &str, to: &DataType) -> ArrayRef {
    cast(column, to).unwrap_or_else(|e| panic!("column `{name}`: {e}"))
}

/// The batch without the named columns.
pub fn without(batch: &RecordBatch, names: &[&str]) -> RecordBatch {
    let keep: Vec<usize> =
        (0..batch.num_columns()).filter(|&i| !names.contains(&batch.schema().field(i).name().as_str())).collect();
    batch.project(&keep).expect("columns of the batch")
}

/// Whether two tables hold the same rows, bit for bit, in whatever order.
pub fn same_rows(a: &RecordBatch, b: &RecordBatch) -> bool {
    difference(a, b).is_none()
}

/// Asserts that two tables hold the same rows, bit for bit, in whatever order.
pub fn assert_same_rows(what: &str, expected: &RecordBatch, found: &RecordBatch) {
    assert!(expected.num_rows() > 0, "{what}: an empty table proves nothing");
    if let Some(difference) = difference(expected, found) {
        panic!("{what}: {difference}");
    }
}

fn difference(expected: &RecordBatch, found: &RecordBatch) -> Option<String> {
    let columns = |b: &RecordBatch| -> Vec<_> {
        b.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
    };
    if columns(expected) != columns(found) {
        return Some(format!("columns are {:?} and {:?}", columns(expected), columns(found)));
    }
    let fields = expected.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(fields).expect("types that sort");
    let encode = |b: &RecordBatch| converter.convert_columns(b.columns()).expect("rows");
    let (left, right) = (encode(expected), encode(found));
    let sorted = |rows: &Rows| {
        let mut order: Vec<usize> = (0..rows.num_rows()).collect();
        order.sort_unstable_by_key(|&row| rows.row(row));
        order
    };
    for (l, r) in sorted(&left).into_iter().zip(sorted(&right)) {
        if left.row(l) != right.row(r) {
            let both = [expected.slice(l, 1), found.slice(r, 1)];
            let shown = pretty_format_batches(&both).expect("a table");
            return Some(format!("the first rows that differ are\n{shown}"));
        }
    }
    let (expected, found) = (expected.num_rows(), found.num_rows());
    (expected != found).then(|| format!("{expected} rows and {found}"))
}

#[test]
fn one_bit_of_one_value_is_a_difference() {
    let batch = |values: &[f64]| {
        let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("x", column)]).expect("a batch")
    };
    let base = batch(&[1.0, 2.0, 0.0]);
    assert_eq!(difference(&base, &batch(&[0.0, 1.0, 2.0])), None, "order does not count");
    for other in [&[1.0, 2.0f64.next_up(), 0.0][..], &[1.0, 2.0, -0.0], &[1.0, 1.0, 0.0], &[1.0, 2.0]] {
        assert!(difference(&base, &batch(other)).is_some(), "{other:?}");
        assert!(difference(&batch(other), &base).is_some(), "{other:?}");
    }
}
