//! Duplicates: a row is one when a row of the same id was kept whose event time is within the horizon, before or after.
//!
//! *Kept* is asked in one order that depends on no cut into reads: always the partition with the lowest watermark goes on, by
//! one row, the first such partition where several are equal; that is the order in which aligned sources are read.
//! Duplicates do not extend the horizon, only kept rows count. Rows without an id are never duplicates.
//!
//! State: the ids of kept rows, by generations of event time as long as the horizon. A generation holds at most one row per
//! id, so a row is compared with at most three. A generation is dropped, whole, when the watermark has passed it by the
//! horizon: the state is bounded by the ids of twice the horizon plus the disorder.

mod saved;
mod scout;

use std::collections::BTreeMap;
use std::hash::Hash;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use hashbrown::HashMap;

pub use self::saved::DedupDelta;
use self::saved::Writer;
pub use self::scout::AheadState;
pub(crate) use self::scout::Scout;
use crate::base::{EventTime, Micros};

/// The ids of kept rows.
#[derive(Debug)]
pub(crate) struct Kept {
    horizon: Micros,
    words: Generations<u64>,
    texts: Generations<Box<str>>,
    /// What was kept since it was last saved, where it is saved at all.
    news: Option<Writer>,
}

#[derive(Debug)]
struct Generations<K>(BTreeMap<i64, HashMap<K, EventTime>>);

/// An id in a form that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Id {
    None,
    Word(u64),
    Text(Box<str>),
}

impl Kept {
    pub(crate) fn new(horizon: Micros) -> Kept {
        Kept { horizon, words: Generations(BTreeMap::new()), texts: Generations(BTreeMap::new()), news: None }
    }

    /// Keeps a row, or returns the time of the kept row that it duplicates.
    pub(crate) fn offer(&mut self, id: Id, time: EventTime) -> Option<EventTime> {
        match id {
            Id::None => None,
            Id::Word(word) => {
                let found = self.words.offer(word, time, self.horizon);
                if let Some(news) = self.news.as_mut().filter(|_| found.is_none()) {
                    news.word(word, time);
                }
                found
            }
            Id::Text(text) => {
                // Written first, since the text is given away.
                let mark = self.news.as_ref().map(Writer::mark);
                if let Some(news) = &mut self.news {
                    news.text(&text, time);
                }
                let found = self.texts.offer(text, time, self.horizon);
                if let (Some(news), Some(mark), true) = (&mut self.news, mark, found.is_some()) {
                    news.take_back(mark);
                }
                found
            }
        }
    }

    /// From now on, what is kept is noted for [`Kept::save`].
    pub(crate) fn note_news(&mut self, noted: bool) {
        self.news = noted.then(Writer::default);
    }

    /// What was kept since the last call, or with `whole` all that is kept; none where that is nothing.
    pub(crate) fn save(&mut self, whole: bool) -> Option<Vec<u8>> {
        let mut writer = self.news.as_mut().map(std::mem::take).unwrap_or_default();
        if whole {
            writer = Writer::default();
            self.words.0.values().flatten().for_each(|(word, time)| writer.word(*word, *time));
            self.texts.0.values().flatten().for_each(|(text, time)| writer.text(text, *time));
        }
        writer.finish()
    }

    /// Keeps what was saved.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing of them is kept then.
    pub(crate) fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let width = Generations::<u64>::width(self.horizon);
        for (id, time) in saved::read(bytes)? {
            let generation = time.div_euclid(width);
            match id {
                Id::Word(word) => {
                    self.words.0.entry(generation).or_default().insert(word, time);
                }
                Id::Text(text) => {
                    self.texts.0.entry(generation).or_default().insert(text, time);
                }
                Id::None => {}
            }
        }
        Ok(())
    }

    /// Forgets what rows at or after `watermark` cannot duplicate.
    pub(crate) fn advance(&mut self, watermark: EventTime) {
        self.words.advance(watermark, self.horizon);
        self.texts.advance(watermark, self.horizon);
    }

    /// Number of ids held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let (words, texts) = (self.words.0.values(), self.texts.0.values());
        words.map(HashMap::len).sum::<usize>() + texts.map(HashMap::len).sum::<usize>()
    }
}

impl<K: Hash + Eq> Generations<K> {
    /// Times of one generation differ by less than `width`, hence by no more than the horizon.
    fn width(horizon: Micros) -> Micros {
        horizon.saturating_add(1)
    }

    fn offer(&mut self, key: K, time: EventTime, horizon: Micros) -> Option<EventTime> {
        let generation = time.div_euclid(Self::width(horizon));
        for near in generation - 1..=generation + 1 {
            let found = self.0.get(&near).and_then(|ids| ids.get(&key));
            if let Some(kept) = found.filter(|kept| kept.abs_diff(time) <= horizon.unsigned_abs()) {
                return Some(*kept);
            }
        }
        self.0.entry(generation).or_default().insert(key, time);
        None
    }

    fn advance(&mut self, watermark: EventTime, horizon: Micros) {
        let past = watermark.saturating_sub(horizon);
        while let Some(first) = self.0.first_entry() {
            let end = (first.key() + 1).saturating_mul(Self::width(horizon));
            if end > past {
                return;
            }
            first.remove();
        }
    }
}

/// Whether a column can be an `id`.
pub(crate) fn can_be_id(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Timestamp(_, _) | DataType::Date32) || data_type.is_integer()
}

/// The ids in a column for which [`can_be_id`] holds.
pub(crate) fn ids(column: &ArrayRef) -> Result<Vec<Id>, ArrowError> {
    let valid = |row: usize, id: Id| if column.is_valid(row) { id } else { Id::None };
    Ok(match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            (0..texts.len()).map(|row| valid(row, Id::Text(texts.value(row).into()))).collect()
        }
        DataType::UInt64 => {
            let words = column.as_primitive::<UInt64Type>().values();
            words.iter().enumerate().map(|(row, word)| valid(row, Id::Word(*word))).collect()
        }
        other => {
            // Dates are days in 32 bits, which only widen by way of their numbers.
            let plain = if *other == DataType::Date32 { cast(column, &DataType::Int32)? } else { column.clone() };
            let words = cast(&plain, &DataType::Int64)?;
            let words = words.as_primitive::<Int64Type>().values();
            words.iter().enumerate().map(|(row, word)| valid(row, Id::Word(word.cast_unsigned()))).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Int32Array, StringArray};
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        #[test]
        fn equals_the_definition(
            rows in prop::collection::vec((0u64..4, -30i64..30), 0..80),
            horizon in 0i64..12,
            text in any::<bool>(),
        ) {
            let mut kept = Kept::new(horizon);
            let mut naive: Vec<(u64, i64)> = Vec::new();
            for (id, time) in rows {
                let found = naive.iter().any(|(i, t)| *i == id && (t - time).abs() <= horizon);
                let key = if text { Id::Text(id.to_string().into()) } else { Id::Word(id) };
                prop_assert_eq!(kept.offer(key, time).is_some(), found);
                if !found {
                    naive.push((id, time));
                }
            }
        }

        #[test]
        fn forgetting_changes_nothing_for_rows_in_time(
            rows in prop::collection::vec((0u64..4, 0i64..10), 0..80),
            horizon in 0i64..12,
        ) {
            let (mut kept, mut forgetful) = (Kept::new(horizon), Kept::new(horizon));
            for (step, (id, early)) in rows.into_iter().enumerate() {
                let watermark = step as i64 * 3;
                prop_assert_eq!(kept.offer(Id::Word(id), watermark + early), forgetful.offer(Id::Word(id), watermark + early));
                forgetful.advance(watermark);
            }
            prop_assert!(forgetful.len() <= 4 * 4 + 10);
        }
    }

    #[test]
    fn the_ends_of_the_horizon() {
        let mut kept = Kept::new(10);
        assert_eq!(kept.offer(Id::Word(1), 100), None);
        assert_eq!(kept.offer(Id::Word(1), 110), Some(100));
        assert_eq!(kept.offer(Id::Word(1), 90), Some(100));
        assert_eq!(kept.offer(Id::Word(1), 111), None);
        assert_eq!(kept.offer(Id::None, 111), None);
        assert_eq!(kept.offer(Id::None, 111), None);
        kept.advance(1_000);
        assert_eq!(kept.len(), 0);
        let mut forever = Kept::new(i64::MAX);
        assert_eq!(
            (forever.offer(Id::Word(1), i64::MIN / 2), forever.offer(Id::Word(1), 5)),
            (None, Some(i64::MIN / 2))
        );
    }

    #[test]
    fn ids_of_every_type() {
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(-1), None]));
        assert_eq!(ids(&ints).unwrap(), [Id::Word(u64::MAX), Id::None]);
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![7]));
        assert_eq!(ids(&dates).unwrap(), [Id::Word(7)]);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), None]));
        assert_eq!(ids(&texts).unwrap(), [Id::Text("".into()), Id::None]);
    }
}
