//! Rows of a set at hand: columns from several places, brought together in the set's order.

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};

use crate::store::StoreError;
use crate::store::offline::ROW_GROUP_ROWS;

/// Batches that rows are gathered from, and where the row of each output row is.
pub(super) struct Piece {
    columns: Vec<Vec<ArrayRef>>,
    places: Vec<(usize, usize)>,
}

impl Piece {
    /// Rows of batches with the columns of `schema`; a row without a place has nulls.
    pub fn new(schema: &SchemaRef, batches: &[RecordBatch], places: Vec<Option<(usize, usize)>>) -> Piece {
        let nulls = batches.len();
        let column = |column: usize| {
            let mut arrays: Vec<ArrayRef> = batches.iter().map(|batch| batch.column(column).clone()).collect();
            arrays.push(new_null_array(schema.field(column).data_type(), 1));
            arrays
        };
        let columns = (0..schema.fields().len()).map(column).collect();
        Piece { columns, places: places.into_iter().map(|place| place.unwrap_or((nulls, 0))).collect() }
    }

    fn gather(&self, column: usize, rows: &[u32]) -> Result<ArrayRef, StoreError> {
        let arrays: Vec<&dyn Array> = self.columns[column].iter().map(AsRef::as_ref).collect();
        let places: Vec<(usize, usize)> = rows.iter().map(|row| self.places[*row as usize]).collect();
        interleave(&arrays, &places).map_err(StoreError::arrow("a set"))
    }
}

/// Rows of a set that are held in memory.
pub(super) struct Run {
    /// Columns of the set.
    pub schema: SchemaRef,
    /// Where the rows are.
    pub pieces: Vec<Piece>,
    /// Per column of the set, its piece and its column in there.
    pub columns: Vec<(usize, usize)>,
    /// Columns of the set that rows are sorted by.
    pub order: Vec<usize>,
    /// How many rows there are.
    pub rows: usize,
}

impl Run {
    /// Hands the rows over in order, [`ROW_GROUP_ROWS`] at a time, the last time fewer.
    pub fn in_order(&self, take: &mut dyn FnMut(&RecordBatch) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let rows = self.sorted()?;
        for rows in rows.chunks(ROW_GROUP_ROWS) {
            let columns = self.columns.iter().map(|(piece, column)| self.pieces[*piece].gather(*column, rows));
            let batch = RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, _>>()?);
            take(&batch.map_err(StoreError::arrow("a set"))?)?;
        }
        Ok(())
    }

    fn sorted(&self) -> Result<Vec<u32>, StoreError> {
        let wrong = || StoreError::arrow("a set's order");
        let mut rows: Vec<u32> = (0..self.rows as u32).collect();
        let keys = self.order.iter().map(|key| {
            let (piece, column) = self.columns[*key];
            self.pieces[piece].gather(column, &rows)
        });
        let keys: Vec<ArrayRef> = keys.collect::<Result<_, _>>()?;
        // The order in which runs are merged.
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let encoded = RowConverter::new(fields).and_then(|c| c.convert_columns(&keys)).map_err(wrong())?;
        rows.sort_unstable_by(|a, b| encoded.row(*a as usize).cmp(&encoded.row(*b as usize)).then(a.cmp(b)));
        Ok(rows)
    }
}
