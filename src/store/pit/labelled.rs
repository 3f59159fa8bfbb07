//! Labels joined with the features that were logged for their predictions.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};

use super::asof::Probes;
use super::choose::winners;
use super::keys::{KeyIndex, comparable};
use super::manifest::{ColumnNote, Counts, Manifest, Role};
use super::output::Output;
use super::query::{LABEL_TABLE_COLUMNS, Labelled, Query, Rows, Window};
use super::run::{Piece, Run};
use super::table::{EVENT_TIME, Table};
use super::{Progress, StoreError};
use crate::base::{EventTime, format_time, hash_u64};
use crate::ops::key;
use crate::ops::system::utc;

/// What ranks labels of one id, after the time at which they became known: the order of their coming.
const RANK: [&str; 6] = ["known_at", "_source", "_partition", "_offset", "_job_version", "_tick"];

pub(super) fn build(query: &Query, asked: &Labelled, out: &Path, progress: &Progress) -> Result<Manifest, StoreError> {
    let mut set = Set::open(query, asked)?;
    let rows = set.labels.rows()?;
    let width = set.schema.fields().iter().map(|f| width(f.data_type())).sum::<usize>() + 96;
    let chunk = (query.memory_bytes / width).max(1) as u64;
    let chunks = rows.div_ceil(chunk).max(1);
    progress.expect(chunks * (rows + set.features.rows()?));
    let order = vec![set.place(Role::Time), set.place(Role::Id)];
    let (schema, notes) = (set.schema.clone(), set.notes.clone());
    let mut output = Output::new(out, schema, order.clone(), &notes);
    let mut only = None;
    for part in 0..chunks {
        let run = set.run(part, chunks, order.clone(), progress)?;
        match chunks {
            1 => only = Some(run),
            _ => output.run(&run)?,
        }
    }
    let written = output.finish(only.as_ref())?;
    Ok(Manifest {
        program: Manifest::PROGRAM.to_owned(),
        job: query.job.clone(),
        query: Rows::Labelled(Labelled { window: set.window, ..asked.clone() }),
        tables: vec![set.labels.version(), set.features.version()],
        entities: None,
        columns: notes,
        rows: written.rows,
        counts: set.counts,
        bytes: written.bytes,
        sha256: written.sha256,
    })
}

/// About how many bytes a value takes.
pub(super) fn width(data_type: &DataType) -> usize {
    data_type.primitive_width().unwrap_or(24)
}

/// The two tables and what is taken of them.
struct Set {
    labels: Table,
    features: Table,
    /// Column of `features` with the prediction's id, and its type.
    id: String,
    id_type: DataType,
    /// Columns of `features` that are taken, event time among them.
    columns: Vec<String>,
    /// With all that was left open filled in.
    window: Window,
    cut_off: EventTime,
    /// Event times of the set's rows.
    span: (EventTime, EventTime),
    schema: SchemaRef,
    notes: Vec<ColumnNote>,
    counts: Counts,
}

impl Set {
    fn open(query: &Query, asked: &Labelled) -> Result<Set, StoreError> {
        let labels = Table::open(&query.lake, &asked.labels, &query.at)?;
        let features = Table::open(&query.lake, &asked.features, &query.at)?;
        for (column, wanted) in LABEL_TABLE_COLUMNS.iter().zip([None, Some(DataType::Float64), Some(utc())]) {
            let found = labels.field(column)?.data_type();
            if let Some(wanted) = wanted.filter(|wanted| wanted != found) {
                let reason = format!("its column `{column}` is {found}, not {wanted}");
                return Err(StoreError::Schema { table: asked.labels.clone(), reason });
            }
        }
        let id_type = features.field(&asked.id)?.data_type().clone();
        let label_id = labels.field(LABEL_TABLE_COLUMNS[0])?.data_type();
        if !comparable(&id_type, label_id) {
            return Err(StoreError::Request(format!(
                "the ids of table {} are {label_id}, those of {} are {id_type}: they cannot be compared",
                asked.labels, asked.features
            )));
        }
        let (window, cut_off, span) = resolved(&asked.window, &labels, &features)?;

        let mut columns: Vec<String> = Vec::new();
        let mut notes: Vec<ColumnNote> = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        let is_input = |name: &String| asked.inputs.contains(name);
        let taken = [(asked.id.clone(), Role::Id), (EVENT_TIME.to_owned(), Role::Time)]
            .into_iter()
            .chain(asked.keys.iter().map(|name| (name.clone(), if is_input(name) { Role::Input } else { Role::Key })))
            .chain(asked.inputs.iter().map(|name| (name.clone(), Role::Input)));
        for (name, role) in taken {
            if columns.contains(&name) {
                continue;
            }
            let field = features.field(&name)?;
            // An id that is an input too, as odd as that is, stays one.
            let data_type = field.data_type().clone();
            notes.push(ColumnNote { name: name.clone(), role, data_type: data_type.to_string() });
            fields.push(Field::new(&name, data_type, true));
            columns.push(name);
        }
        for (name, role, data_type) in [("label", Role::Label, DataType::Float64), ("known_at", Role::Known, utc())] {
            let mut name = name.to_owned();
            while columns.iter().any(|column| column.eq_ignore_ascii_case(&name)) {
                name.push('_');
            }
            notes.push(ColumnNote { name: name.clone(), role, data_type: data_type.to_string() });
            fields.push(Field::new(name, data_type, true));
        }
        let (id, schema) = (asked.id.clone(), Schema::new(fields).into());
        let counts = Counts::default();
        Ok(Set { labels, features, id, id_type, columns, window, cut_off, span, schema, notes, counts })
    }

    fn place(&self, role: Role) -> usize {
        self.notes.iter().position(|note| note.role == role).unwrap_or(0)
    }

    /// The rows of those ids whose hash falls into part `part` of `parts`.
    fn run(&mut self, part: u64, parts: u64, order: Vec<usize>, progress: &Progress) -> Result<Run, StoreError> {
        let (index, labels) = self.latest(part, parts, progress)?;
        let last = self.span.1;
        let groups: Vec<u32> = (0..index.len() as u32).collect();
        let times: Vec<Option<EventTime>> = labels.iter().map(|label| label.value.map(|_| last)).collect();
        let probes = Probes::new(index, &groups, &times);
        let best = self.features.search(std::slice::from_ref(&self.id), &probes, self.span, progress)?;
        let from = self.span.0;
        let found = best.finish(&probes, |_| from);
        drop(probes);
        let taken: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let winners = winners(&self.features, &found, &taken, progress)?;

        // Each prediction has one label and one row, so rows of the set are labels that have found one.
        let mut rows: Vec<(super::asof::At, &Label)> = Vec::new();
        for (set, label) in found.of.iter().zip(&labels).filter(|(_, label)| label.value.is_some()) {
            match set {
                Some(set) => rows.push((winners[*set as usize], label)),
                None => self.counts.without_features += 1,
            }
        }
        rows.sort_unstable_by_key(|(at, _)| *at);
        let at: Vec<_> = rows.iter().map(|(at, _)| *at).collect();
        let fetched = self.features.fetch(&at, &taken, progress)?;
        let known = rows.iter().map(|(_, label)| label.known);
        let own = RecordBatch::try_from_iter([
            ("label", std::sync::Arc::new(rows.iter().map(|(_, l)| l.value).collect::<Float64Array>()) as ArrayRef),
            ("known_at", std::sync::Arc::new(TimestampMicrosecondArray::from_iter_values(known).with_timezone("UTC"))),
        ])
        .map_err(StoreError::arrow("a set's labels"))?;
        let of_features = fetched.places.iter().map(|(batch, row)| Some((*batch as usize, *row as usize))).collect();
        let of_labels = (0..rows.len()).map(|row| Some((0, row))).collect();
        let pieces = vec![
            Piece::new(&fetched.schema, &fetched.batches, of_features),
            Piece::new(&own.schema(), &[own], of_labels),
        ];
        let columns = (0..self.columns.len()).map(|column| (0, column)).chain([(1, 0), (1, 1)]).collect();
        Ok(Run { schema: self.schema.clone(), pieces, columns, order, rows: at.len() })
    }

    /// The latest label of each id of a part, as known at the cut-off.
    fn latest(&mut self, part: u64, parts: u64, progress: &Progress) -> Result<(KeyIndex, Vec<Label>), StoreError> {
        let columns: Vec<&str> = LABEL_TABLE_COLUMNS.iter().copied().chain(RANK[1..].iter().copied()).collect();
        let wrong = || StoreError::arrow(self.labels.name.as_str());
        let (cut_off, id_type) = (self.cut_off, self.id_type.clone());
        let (mut seen, mut later) = (0u64, 0u64);
        let mut batches = Vec::new();
        self.labels.each(&columns, progress, &mut |batch| {
            let ids = cast(batch.column(0), &id_type).map_err(wrong())?;
            let known = batch.column(2).as_primitive::<TimestampMicrosecondType>();
            let mut hashes = Vec::with_capacity(ids.len());
            if parts > 1 {
                key::hashes(std::slice::from_ref(&ids), &mut hashes).map_err(|e| StoreError::Request(e.to_string()))?;
            }
            let keep = (0..batch.num_rows()).map(|row| {
                let ours = parts == 1 || hash_u64(hashes[row]) % parts == part;
                let in_time = known.is_valid(row) && known.value(row) <= cut_off;
                seen += u64::from(ours);
                later += u64::from(ours && !in_time);
                Some(ours && in_time && ids.is_valid(row))
            });
            let keep = keep.collect::<arrow::array::BooleanArray>();
            batches.push(filter_record_batch(&batch, &keep).map_err(wrong())?);
            Ok(())
        })?;
        self.counts.label_rows += seen;
        self.counts.not_known_yet += later;
        let schema = self.labels.schema_of(&columns)?;
        let all = concat_batches(&schema, &batches).map_err(wrong())?;
        drop(batches);
        let mut index = KeyIndex::new(vec![id_type])?;
        let groups = index.number(&all.columns()[..1])?;
        let values = all.column(1).as_primitive::<Float64Type>();
        let known = all.column(2).as_primitive::<TimestampMicrosecondType>();
        let ranks = all.columns()[2..].to_vec();
        let fields = ranks.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let ranks = RowConverter::new(fields).and_then(|c| c.convert_columns(&ranks)).map_err(wrong())?;
        // Of labels that were written twice, by runs of their own, the greater; none is the least.
        let bits = |row: usize| values.is_valid(row).then(|| values.value(row).to_bits());
        let mut best: Vec<Option<usize>> = vec![None; index.len()];
        for (row, group) in groups.iter().enumerate().filter(|(_, group)| **group != super::keys::NO_GROUP) {
            let held = &mut best[*group as usize];
            if held.is_none_or(|held| (ranks.row(row), bits(row)) > (ranks.row(held), bits(held))) {
                *held = Some(row);
            }
        }
        let label = |row: Option<usize>| match row {
            Some(row) => Label { value: values.is_valid(row).then(|| values.value(row)), known: known.value(row) },
            None => Label { value: None, known: EventTime::MIN },
        };
        let labels: Vec<Label> = best.into_iter().map(label).collect();
        self.counts.withdrawn += labels.iter().filter(|label| label.value.is_none()).count() as u64;
        Ok((index, labels))
    }
}

/// The latest label of an id.
struct Label {
    /// None when it was withdrawn.
    value: Option<f64>,
    known: EventTime,
}

/// The window with its cut-off and its beginning, the cut-off, and the event times that are in it.
fn resolved(
    window: &Window,
    labels: &Table,
    features: &Table,
) -> Result<(Window, EventTime, (EventTime, EventTime)), StoreError> {
    if window.from.is_some() && window.last.is_some() {
        return Err(StoreError::Request("a window begins with `from` or is the `last` so long, not both".into()));
    }
    let cut_off = match window.to {
        Some(to) => to,
        None => labels.newest_time()?.max(features.newest_time()?).ok_or_else(|| {
            StoreError::Request(format!(
                "tables {} and {} have no rows yet; let the job run until predictions have labels",
                labels.name, features.name
            ))
        })?,
    };
    let delay = window.label_delay.unwrap_or(0);
    let last = cut_off.saturating_sub(delay);
    let from = window.last.map(|length| last.saturating_sub(length).saturating_add(1)).or(window.from);
    if let Some(from) = from.filter(|from| *from > last) {
        return Err(StoreError::Request(format!(
            "no event is at or after {} and at or before {} (the cut-off {} less the label delay); choose an earlier beginning, a later cut-off or a shorter delay",
            format_time(from),
            format_time(last),
            format_time(cut_off)
        )));
    }
    let filled = Window { to: Some(cut_off), from, last: None, label_delay: window.label_delay };
    Ok((filled, cut_off, (from.unwrap_or(EventTime::MIN), last)))
}
