//! The state of a monitor as bytes.

use std::collections::VecDeque;

use super::{Against, Part, Window, Windows};
use crate::monitor::drift::histogram::codec;

/// Kinds of records.
const HEAD: i64 = 0;
const WINDOW: i64 = 1;
const BETWEEN: i64 = 2;

/// Why saved state cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// The bytes are no record of this version.
    #[error("the saved windows of monitor `{0}` cannot be read")]
    Damaged(String),
    /// The cells in which values were counted are other ones now.
    #[error(
        "the reference of column `{column}` of monitor `{model}` is not the one that the saved windows were counted by; give the reference back as it was, or name a version of it"
    )]
    OtherReference {
        /// The monitor.
        model: String,
        /// The column.
        column: String,
    },
}

impl Windows {
    /// What changed since the last time, or with `whole` all: each a record for [`Windows::import`], in order.
    pub fn save(&mut self, whole: bool) -> Vec<Vec<u8>> {
        let mut head = Vec::new();
        codec::put(&mut head, HEAD);
        for time in [self.first, self.next] {
            codec::put(&mut head, i64::from(time.is_some()));
            codec::put(&mut head, time.unwrap_or(0));
        }
        codec::put(&mut head, i64::from(self.empty));
        codec::put(&mut head, self.newest);
        codec::put(&mut head, self.kept_from);
        codec::put(&mut head, self.volumes.len() as i64);
        self.volumes.iter().for_each(|rows| codec::put(&mut head, rows.cast_signed()));
        codec::put(&mut head, self.watch.columns.len() as i64);
        for column in &self.watch.columns {
            codec::put(&mut head, column.fingerprint().cast_signed());
        }
        let mut records = vec![head];
        for (start, window) in &self.windows {
            if !whole && !self.unsaved.contains(start) {
                continue;
            }
            let mut record = Vec::new();
            codec::put(&mut record, WINDOW);
            codec::put(&mut record, i64::from(window.revision));
            codec::put(&mut record, i64::from(window.changed));
            let part = Part {
                start: *start,
                rows: window.rows,
                missing: window.missing,
                duplicates: window.duplicates,
                newest: window.newest,
                columns: window.columns.clone(),
            };
            record.extend(part.encode());
            records.push(record);
        }
        if whole || self.unsaved_between {
            for (index, histogram) in &self.between {
                let mut record = Vec::new();
                codec::put(&mut record, BETWEEN);
                codec::put(&mut record, *index as i64);
                codec::write(histogram, &mut record);
                records.push(record);
            }
        }
        self.unsaved.clear();
        self.unsaved_between = false;
        records
    }

    /// Takes in a record; a later one of a window stands for the earlier.
    ///
    /// # Errors
    /// When the record is none, or values were counted in other cells.
    pub fn import(&mut self, bytes: &[u8]) -> Result<(), SavedError> {
        let mut reader = codec::Reader(bytes);
        let damaged = || SavedError::Damaged(self.watch.model.clone());
        let kind = reader.number().ok_or_else(damaged)?;
        match kind {
            HEAD => self.import_head(&mut reader),
            WINDOW => {
                let mut window = || {
                    let (revision, changed) = (reader.number()?, reader.number()?);
                    let part = Part::read(&mut reader)?;
                    Some((u32::try_from(revision).ok()?, changed != 0, part))
                };
                let (revision, changed, part) = window().ok_or_else(damaged)?;
                if part.columns.len() != self.watch.columns.len() {
                    return Err(damaged());
                }
                let Part { start, rows, missing, duplicates, newest, columns } = part;
                let window = Window { rows, missing, duplicates, newest, columns, revision, changed };
                self.windows.insert(start, window);
                Ok(())
            }
            BETWEEN => {
                let mut read = || Some((usize::try_from(reader.number()?).ok()?, reader.histogram()?));
                let (index, histogram) = read().ok_or_else(damaged)?;
                let planned = self.watch.columns.get(index).map(|column| &column.against);
                if !matches!(planned, Some(Against::Between(..))) {
                    return Err(damaged());
                }
                self.between.insert(index, histogram);
                Ok(())
            }
            _ => Err(damaged()),
        }
    }

    fn import_head(&mut self, reader: &mut codec::Reader<'_>) -> Result<(), SavedError> {
        let mut read = || {
            let mut time = || Some((reader.number()? != 0, reader.number()?));
            let (first, next) = (time()?, time()?);
            let empty = u32::try_from(reader.number()?).ok()?;
            let (newest, kept_from) = (reader.number()?, reader.number()?);
            let volumes = (0..reader.number()?)
                .map(|_| Some(reader.number()?.cast_unsigned()))
                .collect::<Option<VecDeque<_>>>()?;
            let prints =
                (0..reader.number()?).map(|_| Some(reader.number()?.cast_unsigned())).collect::<Option<Vec<_>>>()?;
            Some((first, next, empty, (newest, kept_from), volumes, prints))
        };
        let damaged = || SavedError::Damaged(self.watch.model.clone());
        let (first, next, empty, (newest, kept_from), volumes, prints) = read().ok_or_else(damaged)?;
        if prints.len() != self.watch.columns.len() {
            return Err(damaged());
        }
        let changed = self.watch.columns.iter().zip(prints).find(|(column, print)| column.fingerprint() != *print);
        if let Some((column, _)) = changed {
            return Err(SavedError::OtherReference { model: self.watch.model.clone(), column: column.name.clone() });
        }
        let time = |(is, time): (bool, i64)| is.then_some(time);
        (self.first, self.next) = (time(first), time(next));
        (self.empty, self.newest, self.volumes) = (empty, newest, volumes);
        // Earlier records have windows that were no longer needed when this was saved.
        self.kept_from = kept_from;
        self.windows = self.windows.split_off(&kept_from);
        Ok(())
    }
}
