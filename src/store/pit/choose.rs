//! One row of several that have one key and one time: the last that the engine met.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::row::{RowConverter, SortField};

use super::asof::{At, Found};
use super::table::Table;
use super::{Progress, StoreError};

/// What ranks rows of one time: the order in which the engine met them, then who wrote them. Rows that are equal in all of
/// this were written twice, by runs of their own; then the greater by its values is taken, so that the choice is the same
/// however the files lie.
const RANK: [&str; 5] = ["_source", "_partition", "_offset", "_job_version", "_tick"];

/// The row of each set that counts; `columns` are those that are taken of it.
pub(super) fn winners(
    table: &Table,
    found: &Found,
    columns: &[&str],
    progress: &Progress,
) -> Result<Vec<At>, StoreError> {
    let mut tied: Vec<At> = Vec::new();
    for (first, others) in found.sets.iter().filter(|(_, others)| !others.is_empty()) {
        tied.push(*first);
        tied.extend(others.iter().copied());
    }
    if tied.is_empty() {
        return Ok(found.sets.iter().map(|(row, _)| *row).collect());
    }
    tied.sort_unstable();
    tied.dedup();
    let mut all: Vec<&str> = RANK.to_vec();
    all.extend(columns.iter().filter(|column| !RANK.contains(column)));
    let fetched = table.fetch(&tied, &all, progress)?;
    let wrong = || StoreError::arrow(table.name.as_str());
    let fields = fetched.schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(wrong())?;
    let convert = |batch: &RecordBatch| {
        let columns: Vec<ArrayRef> = batch.columns().to_vec();
        converter.convert_columns(&columns)
    };
    let ranks = fetched.batches.iter().map(convert).collect::<Result<Vec<_>, _>>().map_err(wrong())?;
    let rank = |row: &At| {
        let (batch, row) = fetched.places[tied.partition_point(|t| t < row)];
        ranks[batch as usize].row(row as usize)
    };
    let winner = |(first, others): &(At, Box<[At]>)| match others.is_empty() {
        true => *first,
        // Equal in every column that is taken: any will do.
        false => others.iter().fold(*first, |best, other| if rank(other) > rank(&best) { *other } else { best }),
    };
    Ok(found.sets.iter().map(winner).collect())
}
