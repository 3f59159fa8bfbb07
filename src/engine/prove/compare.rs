//! Two tables' rows of one date held against each other, bit by bit.
//!
//! Rows are matched by key, their position. Of several rows of one key each takes a twin that equals it in every bit, if
//! there is one; what is left over on both sides is a pair that differs. Floats are compared as bits, so that −0.0 is not 0.0
//! and a NaN equals itself alone; a null equals a null.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

/// How rows of a key differ; numbers are row numbers of the two batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowDifference {
    /// A column holds other bits.
    Value {
        /// Row of the recorded batch.
        recorded: usize,
        /// Row of the replayed batch.
        replayed: usize,
        /// The first such column.
        column: usize,
    },
    /// The replay has a row that was not recorded.
    Missing {
        /// Row of the replayed batch.
        replayed: usize,
    },
    /// A row was recorded that the replay has not, nor any other of its key.
    Extra {
        /// Row of the recorded batch.
        recorded: usize,
    },
    /// A row was recorded beside another of its key, and the replay has no second one.
    Doubled {
        /// Row of the recorded batch.
        recorded: usize,
    },
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Rows that are the same in every bit.
    pub same: u64,
    /// All that differ, in the order of their keys.
    pub differences: Vec<RowDifference>,
}

/// Compares `recorded` with `replayed`, which have one schema (see [`aligned`]), matched by the columns `key`.
///
/// # Errors
/// When a column has a type that cannot be compared.
pub fn compare(recorded: &RecordBatch, replayed: &RecordBatch, key: &[&str]) -> Result<Compared, ArrowError> {
    let names: Vec<usize> = key.iter().map(|name| recorded.schema().index_of(name)).collect::<Result<_, _>>()?;
    let fields = names.iter().map(|&i| SortField::new(recorded.column(i).data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let encode = |batch: &RecordBatch| {
        let columns: Vec<ArrayRef> = names.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        converter.convert_columns(&columns)
    };
    let (left, right) = (encode(recorded)?, encode(replayed)?);
    let (left_order, right_order) = (sorted(&left), sorted(&right));
    let columns: Vec<Column> =
        recorded.columns().iter().zip(replayed.columns()).map(|(a, b)| Column::new(a, b)).collect::<Result<_, _>>()?;

    let mut compared = Compared::default();
    let (mut l, mut r) = (0, 0);
    while l < left_order.len() || r < right_order.len() {
        let smallest = match (left_order.get(l), right_order.get(r)) {
            (Some(&a), Some(&b)) => left.row(a).min(right.row(b)),
            (Some(&a), None) => left.row(a),
            (None, Some(&b)) => right.row(b),
            (None, None) => break,
        };
        let take = |rows: &Rows, order: &[usize], from: usize| {
            order[from..].iter().take_while(|&&row| rows.row(row) == smallest).count()
        };
        let (lefts, rights) = (take(&left, &left_order, l), take(&right, &right_order, r));
        group(&columns, &left_order[l..l + lefts], &right_order[r..r + rights], &mut compared);
        (l, r) = (l + lefts, r + rights);
    }
    Ok(compared)
}

/// Row numbers in the order of the keys.
fn sorted(rows: &Rows) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.num_rows()).collect();
    order.sort_by(|&a, &b| rows.row(a).cmp(&rows.row(b)));
    order
}

/// Compares the rows of one key.
fn group(columns: &[Column], recorded: &[usize], replayed: &[usize], compared: &mut Compared) {
    if let ([here], [there]) = (recorded, replayed)
        && first_difference(columns, *here, *there).is_none()
    {
        compared.same += 1;
        return;
    }
    let mut left = recorded.to_vec();
    let mut right = Vec::new();
    for &there in replayed {
        match left.iter().position(|&here| first_difference(columns, here, there).is_none()) {
            Some(twin) => {
                left.remove(twin);
                compared.same += 1;
            }
            None => right.push(there),
        }
    }
    for (&here, &there) in left.iter().zip(&right) {
        let column = first_difference(columns, here, there).unwrap_or_default();
        compared.differences.push(RowDifference::Value { recorded: here, replayed: there, column });
    }
    let paired = left.len().min(right.len());
    for &row in &left[paired..] {
        compared.differences.push(match replayed.is_empty() {
            true => RowDifference::Extra { recorded: row },
            false => RowDifference::Doubled { recorded: row },
        });
    }
    compared.differences.extend(right[paired..].iter().map(|&row| RowDifference::Missing { replayed: row }));
}

fn first_difference(columns: &[Column], recorded: usize, replayed: usize) -> Option<usize> {
    columns.iter().position(|column| !column.same(recorded, replayed))
}

/// A column of both sides, ready to be compared.
struct Column {
    nulls: [Option<NullBuffer>; 2],
    cells: [Cells; 2],
}

enum Cells {
    /// Values of one width in bytes, as they lie in memory.
    Fixed { bytes: arrow::buffer::Buffer, width: usize },
    /// Text and bytes.
    Text(ArrayRef),
    /// Bits.
    Bits(ArrayRef),
}

impl Column {
    fn new(recorded: &ArrayRef, replayed: &ArrayRef) -> Result<Column, ArrowError> {
        let nulls = [recorded.nulls().cloned(), replayed.nulls().cloned()];
        Ok(Column { nulls, cells: [Cells::new(recorded)?, Cells::new(replayed)?] })
    }

    fn same(&self, recorded: usize, replayed: usize) -> bool {
        let valid = |side: usize, row: usize| self.nulls[side].as_ref().is_none_or(|nulls| nulls.is_valid(row));
        match (valid(0, recorded), valid(1, replayed)) {
            (true, true) => self.cells[0].at(recorded) == self.cells[1].at(replayed),
            (here, there) => here == there,
        }
    }
}

impl Cells {
    fn new(column: &ArrayRef) -> Result<Cells, ArrowError> {
        Ok(match column.data_type() {
            DataType::Boolean => Cells::Bits(Arc::clone(column)),
            DataType::Utf8 | DataType::Binary => Cells::Text(Arc::clone(column)),
            other => {
                let width = other
                    .primitive_width()
                    .ok_or_else(|| ArrowError::NotYetImplemented(format!("comparing columns of type {other}")))?;
                let data = column.to_data();
                let bytes = data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width);
                Cells::Fixed { bytes, width }
            }
        })
    }

    /// The bytes of a value.
    fn at(&self, row: usize) -> &[u8] {
        match self {
            Cells::Fixed { bytes, width } => &bytes.as_slice()[row * width..(row + 1) * width],
            Cells::Text(column) => match column.data_type() {
                DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes(),
                _ => column.as_binary::<i32>().value(row),
            },
            Cells::Bits(column) if column.as_boolean().value(row) => &[1],
            Cells::Bits(_) => &[0],
        }
    }
}

/// The schema that has the columns of both, those of `first` in front.
///
/// # Errors
/// The column that the two have with different types.
pub fn union(first: &SchemaRef, second: &SchemaRef) -> Result<SchemaRef, String> {
    let mut fields: Vec<Arc<Field>> = first.fields().iter().cloned().collect();
    for field in second.fields() {
        match first.field_with_name(field.name()) {
            Ok(there) if there.data_type() == field.data_type() => {}
            Ok(there) => {
                let (name, here, there) = (field.name(), field.data_type(), there.data_type());
                return Err(format!("column `{name}` is {there} in the one and {here} in the other"));
            }
            Err(_) => fields.push(Arc::clone(field)),
        }
    }
    // What may be null differs between files and plans, and means nothing here.
    let fields: Vec<Field> = fields.iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// A batch with the columns of `schema`; those that it has not are null.
///
/// # Errors
/// When a column has another type.
pub fn aligned(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| {
        let there = batch.column_by_name(field.name()).cloned();
        there.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
    };
    let columns = schema.fields().iter().map(column).collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    type Row = (i64, Option<u64>, Option<bool>, Option<String>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let x: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.1.map(f64::from_bits))));
        let b: ArrayRef = Arc::new(BooleanArray::from_iter(rows.iter().map(|r| r.2)));
        let s: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.3.clone())));
        RecordBatch::try_from_iter_with_nullable([("k", key, true), ("x", x, true), ("b", b, true), ("s", s, true)])
            .unwrap()
    }

    fn found(recorded: &[Row], replayed: &[Row]) -> Compared {
        compare(&batch(recorded), &batch(replayed), &["k"]).unwrap()
    }

    fn float(key: i64, x: f64) -> Row {
        (key, Some(x.to_bits()), None, None)
    }

    #[test]
    fn one_bit_is_a_difference() {
        let nan = f64::from_bits(0x7ff8_0000_0000_0001);
        for (a, b) in [(1.0, 1.0f64.next_up()), (0.0, -0.0), (f64::NAN, nan), (f64::NAN, -f64::NAN)] {
            let difference = RowDifference::Value { recorded: 1, replayed: 0, column: 1 };
            let compared = found(&[float(5, 1.0), float(7, a)], &[float(7, b), float(5, 1.0)]);
            assert_eq!(compared, Compared { same: 1, differences: vec![difference] }, "{a} {b}");
            assert_eq!(found(&[float(7, a)], &[float(7, a)]).same, 1, "{a}");
        }
        // A null is no zero, whatever lies beneath it.
        assert_eq!(found(&[float(1, 0.0)], &[(1, None, None, None)]).differences.len(), 1);
        assert_eq!(found(&[(1, None, None, None)], &[(1, None, None, None)]).same, 1);
    }

    #[test]
    fn rows_of_one_key_find_their_twins() {
        let (a, b, c) = (float(1, 1.0), float(1, 2.0), float(1, 3.0));
        let both = |rows: [&Row; 2]| rows.map(Clone::clone).to_vec();
        assert_eq!(found(&both([&a, &b]), &both([&b, &a])).same, 2);
        let compared = found(&both([&a, &a]), std::slice::from_ref(&a));
        assert_eq!(compared.differences, [RowDifference::Doubled { recorded: 1 }]);
        let compared = found(&both([&a, &b]), &both([&b, &c]));
        assert_eq!(compared.differences, [RowDifference::Value { recorded: 0, replayed: 1, column: 1 }]);
        assert_eq!(found(std::slice::from_ref(&a), &[]).differences, [RowDifference::Extra { recorded: 0 }]);
        assert_eq!(found(&[], &[a]).differences, [RowDifference::Missing { replayed: 0 }]);
    }

    #[test]
    fn columns_that_one_side_lacks_are_null() {
        let (wide, narrow) = (batch(&[float(1, 1.0)]), batch(&[float(1, 1.0)]).project(&[0, 1]).unwrap());
        let schema = union(&wide.schema(), &narrow.schema()).unwrap();
        let compared = compare(&aligned(&wide, &schema).unwrap(), &aligned(&narrow, &schema).unwrap(), &["k"]).unwrap();
        assert_eq!(compared.same, 1, "null against nothing");
        let other: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let other = RecordBatch::try_from_iter([("x", other)]).unwrap();
        assert!(union(&wide.schema(), &other.schema()).unwrap_err().contains("column `x`"));
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let bits = prop_oneof![
            Just(None),
            prop::sample::select(vec![0u64, 1 << 63, f64::NAN.to_bits(), f64::NAN.to_bits() + 1, 1]).prop_map(Some)
        ];
        let text = prop::option::of(prop::sample::select(vec![String::new(), "a".to_owned()]));
        prop::collection::vec((0..4i64, bits, any::<Option<bool>>(), text), 0..12)
    }

    proptest! {
        /// A multiset per key is the naive twin.
        #[test]
        fn as_multisets(recorded in rows(), replayed in rows(), copy in any::<bool>()) {
            let replayed = if copy { recorded.iter().rev().cloned().collect() } else { replayed };
            let compared = found(&recorded, &replayed);
            let mut by_key: BTreeMap<i64, (Vec<String>, Vec<String>)> = BTreeMap::new();
            recorded.iter().for_each(|r| by_key.entry(r.0).or_default().0.push(format!("{r:?}")));
            replayed.iter().for_each(|r| by_key.entry(r.0).or_default().1.push(format!("{r:?}")));
            let (mut same, mut pairs, mut missing, mut extra, mut doubled) = (0, 0, 0, 0, 0);
            for (mut left, right) in by_key.into_values() {
                let none = right.is_empty();
                let mut rest = 0;
                for row in right {
                    match left.iter().position(|l| *l == row) {
                        Some(at) => { left.remove(at); same += 1; }
                        None => rest += 1,
                    }
                }
                pairs += rest.min(left.len());
                missing += rest.saturating_sub(left.len());
                *(if none { &mut extra } else { &mut doubled }) += left.len().saturating_sub(rest);
            }
            let count = |wanted: fn(&RowDifference) -> bool| compared.differences.iter().filter(|d| wanted(d)).count();
            prop_assert_eq!(compared.same, same);
            prop_assert_eq!(count(|d| matches!(d, RowDifference::Value { .. })), pairs);
            prop_assert_eq!(count(|d| matches!(d, RowDifference::Missing { .. })), missing);
            prop_assert_eq!(count(|d| matches!(d, RowDifference::Extra { .. })), extra);
            prop_assert_eq!(count(|d| matches!(d, RowDifference::Doubled { .. })), doubled);
            for difference in &compared.differences {
                if let RowDifference::Value { recorded: l, replayed: r, column } = difference {
                    let cells = |row: &Row| [format!("{:?}", row.0), format!("{:?}", row.1), format!("{:?}", row.2), format!("{:?}", row.3)];
                    let (l, r) = (cells(&recorded[*l]), cells(&replayed[*r]));
                    prop_assert_eq!(Some(*column), l.iter().zip(&r).position(|(l, r)| l != r));
                }
            }
        }
    }
}
