//! A table read date by date, so that nobody holds more of it than a date.

use std::collections::BTreeSet;
use std::fs::File;

use arrow::array::RecordBatch;
use arrow::compute::{cast, filter_record_batch, kernels::cmp};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::committer::newest_epoch;
use super::reader::{TableReader, partition_date};
use super::spec::DATE_COLUMN;
use crate::base::Epoch;
use crate::ops::system::SYSTEM_COLUMNS;
use crate::store::StoreError;

impl TableReader {
    /// The event dates that the table has files of, `YYYY-MM-DD`, in their order.
    ///
    /// # Errors
    /// [`StoreError::Delta`] when the log cannot be read.
    pub fn dates(&self) -> Result<BTreeSet<String>, StoreError> {
        Ok(self.files()?.iter().filter_map(partition_date).map(str::to_owned).collect())
    }

    /// The rows of an event date, in no order to rely on.
    ///
    /// # Errors
    /// As [`TableReader::read`].
    pub fn read_date(&self, date: &str) -> Result<Vec<RecordBatch>, StoreError> {
        let wrong = || StoreError::arrow(self.directory.display().to_string());
        let files = self.files()?;
        if !self.plain(&files) {
            let of_date = |batch: RecordBatch| {
                let dates = cast(batch.column_by_name(SYSTEM_COLUMNS[DATE_COLUMN])?, &DataType::Utf8).ok()?;
                let wanted = arrow::array::StringArray::new_scalar(date);
                let keep = cmp::eq(&dates, &wanted).ok()?;
                Some(filter_record_batch(&batch, &keep).map_err(wrong()))
            };
            return self.read(None)?.into_iter().filter_map(of_date).collect();
        }
        let mut batches = Vec::new();
        for file in files.iter().filter(|file| partition_date(file) == Some(date)) {
            let path = self.file_path(file)?;
            let opened = File::open(&path).map_err(StoreError::io("open", &path))?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(StoreError::parquet(&path))?;
            for batch in builder.build().map_err(StoreError::parquet(&path))? {
                let batch = batch.and_then(|batch| self.complete(&batch, file));
                batches.push(batch.map_err(StoreError::arrow(path.display().to_string()))?);
            }
        }
        Ok(batches)
    }

    /// The newest epoch that an application has committed to the table.
    ///
    /// # Errors
    /// [`StoreError::Delta`] when the log cannot be read.
    pub fn newest_epoch(&self, application: &str) -> Result<Option<Epoch>, StoreError> {
        newest_epoch(&self.snapshot, application, self.engine.as_ref())
            .map_err(StoreError::delta(self.directory.display().to_string()))
    }
}
