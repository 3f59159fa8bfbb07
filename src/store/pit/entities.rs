//! Rows of a file joined with feature views as of each row's time.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::asof::{At, Probes};
use super::choose::winners;
use super::keys::{KeyIndex, comparable};
use super::labelled::width;
use super::manifest::{ColumnNote, Counts, InputFile, Manifest, Role, TableVersion};
use super::output::{Output, sha256_of};
use super::query::{Entities, Query, Rows, View};
use super::run::{Piece, Run};
use super::table::{EVENT_TIME, Table};
use super::{Progress, StoreError};
use crate::base::EventTime;

/// The number of a row in the file: sorts rows of one time. It is in runs, not in the set.
const ROW: &str = "_tidemill_row";

pub(super) fn build(query: &Query, asked: &Entities, out: &Path, progress: &Progress) -> Result<Manifest, StoreError> {
    let mut set = Set::open(query, asked)?;
    let opened = File::open(&asked.file).map_err(StoreError::io("open", &asked.file))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(StoreError::parquet(&asked.file))?;
    let rows = builder.metadata().file_metadata().num_rows().max(0) as u64;
    let bytes = set.schema.fields().iter().map(|f| width(f.data_type())).sum::<usize>() + 96;
    let chunk = (query.memory_bytes / bytes).max(1);
    let chunks = rows.div_ceil(chunk as u64).max(1);
    let mut expected = 0;
    for (table, _) in &set.views {
        expected += table.rows()?;
    }
    progress.expect(rows + chunks * expected);
    let reader = builder.with_batch_size(chunk.min(1 << 13)).build().map_err(StoreError::parquet(&asked.file))?;

    let order = vec![set.time, set.schema.fields().len() - 1];
    let (schema, notes) = (set.schema.clone(), set.notes.clone());
    let mut output = Output::new(out, schema, order.clone(), &notes);
    let (mut held, mut held_rows, mut first, mut only): (Vec<RecordBatch>, usize, u64, Option<Run>) =
        Default::default();
    for batch in reader {
        let batch = batch.map_err(StoreError::arrow(asked.file.display().to_string()))?;
        progress.add(batch.num_rows() as u64)?;
        if held_rows > 0 && held_rows + batch.num_rows() > chunk {
            output.run(&set.run(std::mem::take(&mut held), first, order.clone(), progress)?)?;
            first += std::mem::take(&mut held_rows) as u64;
        }
        held_rows += batch.num_rows();
        held.push(batch);
    }
    let rest = set.run(held, first, order, progress)?;
    match first {
        0 => only = Some(rest),
        _ => output.run(&rest)?,
    }
    let written = output.finish(only.as_ref())?;
    let tables: Vec<TableVersion> = set.views.iter().map(|(table, _)| table.version()).collect();
    Ok(Manifest {
        program: Manifest::PROGRAM.to_owned(),
        job: query.job.clone(),
        query: Rows::Entities(Entities { time: Some(set.time_column.clone()), ..asked.clone() }),
        tables,
        entities: Some(InputFile { file: asked.file.clone(), sha256: sha256_of(&asked.file)? }),
        columns: notes,
        rows: written.rows,
        counts: set.counts,
        bytes: written.bytes,
        sha256: written.sha256,
    })
}

/// The views' tables, the file's columns and those of the set.
struct Set {
    views: Vec<(Table, View)>,
    file: SchemaRef,
    time_column: String,
    /// Place of the time column.
    time: usize,
    /// The file's columns, the views', and the row number.
    schema: SchemaRef,
    notes: Vec<ColumnNote>,
    counts: Counts,
}

impl Set {
    fn open(query: &Query, asked: &Entities) -> Result<Set, StoreError> {
        let shown = asked.file.display();
        let opened = File::open(&asked.file).map_err(StoreError::io("open", &asked.file))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(StoreError::parquet(&asked.file))?;
        let file = Arc::clone(builder.schema());
        let names = || file.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        let fault = |what: String| Err(StoreError::Request(what));
        let is_time = |field: &Field| matches!(field.data_type(), DataType::Timestamp(..));
        let time_column = match &asked.time {
            Some(name) => name.clone(),
            None if file.field_with_name(EVENT_TIME).is_ok() => EVENT_TIME.to_owned(),
            None => match file.fields().iter().filter(|f| is_time(f)).collect::<Vec<_>>()[..] {
                [one] => one.name().clone(),
                [] => return fault(format!("{shown} has no column of times; it has {}", names())),
                _ => {
                    return fault(format!(
                        "{shown} has several columns of times and none is `{EVENT_TIME}`; name the one that counts (--time)"
                    ));
                }
            },
        };
        let Ok(time) = file.index_of(&time_column) else {
            return fault(format!("{shown} has no column `{time_column}`; it has {}", names()));
        };
        if !is_time(file.field(time)) && !matches!(file.field(time).data_type(), DataType::Date32) {
            return fault(format!(
                "column `{time_column}` of {shown} is {}, not a timestamp or a date",
                file.field(time).data_type()
            ));
        }
        if asked.views.is_empty() {
            return fault("there is no view to join with".to_owned());
        }
        let mut fields: Vec<Field> = file.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let mut notes: Vec<ColumnNote> = Vec::new();
        for field in file.fields() {
            let role = match field.name() {
                name if *name == time_column => Role::Time,
                name if asked.views.iter().any(|view| view.keys.contains(name)) => Role::Key,
                _ => Role::Extra,
            };
            notes.push(ColumnNote { name: field.name().clone(), role, data_type: field.data_type().to_string() });
        }
        let mut views = Vec::new();
        for view in &asked.views {
            let table = Table::open(&query.lake, &view.table, &query.at)?;
            for key in &view.keys {
                let wanted = table.field(key)?.data_type().clone();
                let Ok(found) = file.field_with_name(key) else {
                    return fault(format!(
                        "{shown} has no column `{key}`, by which {} is joined; it has {}",
                        view.table,
                        names()
                    ));
                };
                if !comparable(found.data_type(), &wanted) {
                    return fault(format!(
                        "column `{key}` of {shown} is {}, and {wanted} in table {}; cast it",
                        found.data_type(),
                        view.table
                    ));
                }
            }
            for column in &view.columns {
                let data_type = table.field(&column.column)?.data_type().clone();
                if fields.iter().any(|f| f.name().eq_ignore_ascii_case(&column.name)) {
                    return fault(format!("two columns would be named `{}`; rename that of {shown}", column.name));
                }
                notes.push(ColumnNote {
                    name: column.name.clone(),
                    role: Role::Input,
                    data_type: data_type.to_string(),
                });
                fields.push(Field::new(&column.name, data_type, true));
            }
            views.push((table, view.clone()));
        }
        fields.push(Field::new(ROW, DataType::Int64, true));
        let (schema, counts) = (Schema::new(fields).into(), Counts::default());
        Ok(Set { views, file, time_column, time, schema, notes, counts })
    }

    /// Joins rows of the file, of which the first has number `first`.
    fn run(
        &mut self,
        batches: Vec<RecordBatch>,
        first: u64,
        order: Vec<usize>,
        progress: &Progress,
    ) -> Result<Run, StoreError> {
        let wrong = || StoreError::arrow("the file of entities");
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let mut times: Vec<Option<EventTime>> = Vec::with_capacity(rows);
        for batch in &batches {
            times.extend(floored(batch.column(self.time)).map_err(wrong())?);
        }
        let mut gaps = vec![false; rows];
        let mut pieces = Vec::new();
        let mut columns: Vec<(usize, usize)> = (0..self.file.fields().len()).map(|column| (0, column)).collect();
        for (table, view) in &self.views {
            let mut index = KeyIndex::new(table.types(&view.keys)?)?;
            let mut groups = Vec::with_capacity(rows);
            for batch in &batches {
                let keys: Vec<ArrayRef> =
                    view.keys.iter().filter_map(|key| batch.column_by_name(key).cloned()).collect();
                groups.extend(index.number(&keys)?);
            }
            let probes = Probes::new(index, &groups, &times);
            drop(groups);
            let oldest = |time: EventTime| view.ttl.map_or(EventTime::MIN, |ttl| time.saturating_sub(ttl));
            let taken: Vec<&str> = view.columns.iter().map(|column| column.column.as_str()).collect();
            let (mut found_rows, mut places): (Vec<At>, Vec<Option<At>>) = (Vec::new(), vec![None; rows]);
            if let Some((least, most)) = probes.span() {
                let found = table.search(&view.keys, &probes, (oldest(least), most), progress)?.finish(&probes, oldest);
                drop(probes);
                let winners = winners(table, &found, &taken, progress)?;
                for (place, set) in places.iter_mut().zip(&found.of) {
                    *place = set.map(|set| winners[set as usize]);
                }
                found_rows = places.iter().flatten().copied().collect();
                found_rows.sort_unstable();
                found_rows.dedup();
            }
            let fetched = table.fetch(&found_rows, &taken, progress)?;
            let place = |(at, gap): (Option<At>, &mut bool)| match at {
                Some(at) => {
                    let (batch, row) = fetched.places[found_rows.partition_point(|row| *row < at)];
                    Some((batch as usize, row as usize))
                }
                None => {
                    *gap = true;
                    None
                }
            };
            let places = places.into_iter().zip(&mut gaps).map(place).collect();
            pieces.push(Piece::new(&fetched.schema, &fetched.batches, places));
            columns.extend((0..taken.len()).map(|column| (pieces.len(), column)));
        }
        self.counts.with_gaps += gaps.into_iter().filter(|gap| *gap).count() as u64;
        let own = batches.iter().enumerate();
        let own = own.flat_map(|(number, batch)| (0..batch.num_rows()).map(move |row| Some((number, row)))).collect();
        pieces.insert(0, Piece::new(&self.file, &batches, own));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first as i64..first as i64 + rows as i64));
        let numbers = RecordBatch::try_from_iter([(ROW, numbers)]).map_err(wrong())?;
        columns.push((pieces.len(), 0));
        pieces.push(Piece::new(&numbers.schema(), &[numbers], (0..rows).map(|row| Some((0, row))).collect()));
        Ok(Run { schema: self.schema.clone(), pieces, columns, order, rows })
    }
}

/// Times in whole microseconds, none later than it was: a feature of that microsecond may be later than the time itself.
fn floored(column: &ArrayRef) -> Result<Vec<Option<EventTime>>, arrow::error::ArrowError> {
    if let DataType::Timestamp(TimeUnit::Nanosecond, _) = column.data_type() {
        let times = column.as_primitive::<TimestampNanosecondType>();
        return Ok(times.iter().map(|time| time.map(|time| time.div_euclid(1_000))).collect());
    }
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let times = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(times.as_primitive::<TimestampMicrosecondType>().iter().collect())
}
