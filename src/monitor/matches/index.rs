//! From an id to where its rows are.
//!
//! A line of the cache holds up to five places, each behind a tag, 32 bits of its id. Which line an id calls home follows from
//! its tag, so a table grows, and drops what is gone, without a look at any row. A line that is full sends who comes next to
//! the line behind it; whoever searches goes on until a line that was never full.
//!
//! Ids that are counted up, as most are, lie side by side in the order in which they come, and are found again in lines that
//! are at hand. Where that lays too many into one line, as with ids that are multiples of a power of two, a table goes over to
//! homes that follow from a hash, for good.
//!
//! Places are not taken out when their window is dropped: whoever asks passes over them, and they are dropped when their table
//! is laid out anew. There are several tables, so that no tick waits for that of all ids.

use super::lines::{Line, PLACES, lines};
use super::store::{Address, Key};
use crate::base::{hash_u64, prefetch};

/// Tables, as bits of the tag.
const TABLES: u32 = 3;
/// Ids in a row that share their home, as bits of the tag.
const TOGETHER: u32 = 2;
/// Lines that an id may be away from its home before the table goes over to hashes.
const AWAY_MAX: usize = 32;

/// A place that was taken out.
const GONE: Address = Address::MAX;

#[derive(Debug, Default)]
struct Table {
    /// None, or a power of two of them.
    lines: Vec<Line>,
    /// Places that are not free.
    used: usize,
    /// Whether homes follow from a hash.
    hashed: bool,
}

/// Where the rows of ids are.
#[derive(Debug)]
pub(super) struct Index {
    tables: Vec<Table>,
}

/// Number of an id's table, and its tag there.
#[inline(always)]
fn home(key: Key) -> (usize, u32) {
    let low = key as u64;
    // Of ids that are counted up the upper half is the same for long.
    let tag = low as u32 ^ hash_u64(low >> 32) as u32;
    // No place is behind 0.
    ((tag >> TOGETHER) as usize & ((1 << TABLES) - 1), tag.max(1))
}

impl Index {
    pub fn new() -> Index {
        Index { tables: (0..1 << TABLES).map(|_| Table::default()).collect() }
    }

    /// Bytes that the tables take.
    pub fn memory_bytes(&self) -> usize {
        let lines: usize = self.tables.iter().map(|table| table.lines.len()).sum();
        lines * size_of::<Line>() + self.tables.len() * size_of::<Table>()
    }

    /// Asks for the line that is an id's home.
    #[inline(always)]
    pub fn prefetch(&self, key: Key) {
        let (table, tag) = home(key);
        let table = &self.tables[table];
        prefetch(table.lines.as_ptr().wrapping_add(table.line_of(tag)));
    }

    /// All places that an id may have; others are rare among them, and those that were dropped are not left out.
    #[inline(always)]
    pub fn each(&self, key: Key, mut see: impl FnMut(Address)) {
        let (table, tag) = home(key);
        let table = &self.tables[table];
        let (lines, mut at) = (&table.lines[..], table.line_of(tag));
        while let Some(line) = lines.get(at) {
            let mut behind = line.behind(tag);
            while behind != 0 {
                let place = line.places[behind.trailing_zeros() as usize % PLACES];
                if place != GONE {
                    see(place);
                }
                behind &= behind - 1;
            }
            if !line.is_full() {
                break;
            }
            at = (at + 1) & (lines.len() - 1);
        }
    }

    /// The first place that an id may have in the line that is its home.
    #[inline(always)]
    pub fn guess(&self, key: Key) -> Option<Address> {
        let (table, tag) = home(key);
        let table = &self.tables[table];
        let line = table.lines.get(table.line_of(tag))?;
        let mut behind = line.behind(tag);
        while behind != 0 {
            let place = line.places[behind.trailing_zeros() as usize % PLACES];
            if place != GONE {
                return Some(place);
            }
            behind &= behind - 1;
        }
        None
    }

    /// Adds a place. Where the table is full, places that are not `live` are dropped.
    #[inline(always)]
    pub fn insert(&mut self, key: Key, place: Address, live: impl Fn(Address) -> bool) {
        let (table, tag) = home(key);
        let table = &mut self.tables[table];
        // Four of five places: more, and searches become long.
        if table.used >= table.lines.len() * (PLACES - 1) {
            table.lay_out(&live);
        }
        if table.put(tag, place) > AWAY_MAX && !table.hashed {
            table.hashed = true;
            table.lay_out(&live);
        }
    }

    /// Takes a place out.
    pub fn remove(&mut self, key: Key, place: Address) {
        let (table, tag) = home(key);
        let table = &mut self.tables[table];
        let mut at = table.line_of(tag);
        let lines = &mut table.lines[..];
        let mask = lines.len().wrapping_sub(1);
        while let Some(line) = lines.get_mut(at) {
            if let Some(found) = line.places[..line.len as usize].iter_mut().find(|found| **found == place) {
                *found = GONE;
                return;
            }
            if !line.is_full() {
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Places that are `live`.
    #[cfg(test)]
    pub fn live(&self, live: impl Fn(Address) -> bool) -> usize {
        let lines = self.tables.iter().flat_map(|table| table.lines.iter());
        let places = lines.flat_map(|line| &line.places[..line.len as usize]);
        places.filter(|place| **place != GONE && live(**place)).count()
    }
}

impl Table {
    /// The home of a tag.
    #[inline(always)]
    fn line_of(&self, tag: u32) -> usize {
        let number = tag >> (TOGETHER + TABLES);
        let number = if self.hashed { (hash_u64(u64::from(tag)) >> 32) as u32 } else { number };
        number as usize & self.lines.len().wrapping_sub(1)
    }

    /// Puts a place where there is room; returns how many lines that is away from its home.
    #[inline(always)]
    fn put(&mut self, tag: u32, place: Address) -> usize {
        let mask = self.lines.len().wrapping_sub(1);
        let (mut at, mut away) = (self.line_of(tag), 0);
        // One in five places is free.
        while let Some(line) = self.lines.get_mut(at) {
            if let Some(free) = line.places.get_mut(line.len as usize) {
                *free = place;
                line.tags[line.len as usize] = tag;
                line.len += 1;
                self.used += 1;
                break;
            }
            at = (at + 1) & mask;
            away += 1;
        }
        away
    }

    /// Lays live places out anew, with room for a seventh more at least.
    #[cold]
    #[inline(never)]
    fn lay_out(&mut self, live: &impl Fn(Address) -> bool) {
        let old = std::mem::take(&mut self.lines);
        let places = || {
            let lines = old.iter().flat_map(|line| line.tags.iter().zip(&line.places).take(line.len as usize));
            lines.filter(|(_, place)| **place != GONE && live(**place))
        };
        let count = places().count() + 1;
        loop {
            self.lines = lines((count * 2).div_ceil(7).next_power_of_two());
            self.used = 0;
            let farthest = places().map(|(tag, place)| self.put(*tag, *place)).max();
            if self.hashed || farthest.is_none_or(|away| away <= AWAY_MAX) {
                break;
            }
            self.hashed = true;
        }
    }
}

#[cfg(test)]
impl Table {
    /// Lines that a place is away from its home at most.
    fn away(&self) -> usize {
        let of = |at: usize, line: &Line| {
            let tags = line.tags.iter().take(line.len as usize);
            tags.map(|tag| at.wrapping_sub(self.line_of(*tag)) & (self.lines.len() - 1)).max()
        };
        self.lines.iter().enumerate().filter_map(|(at, line)| of(at, line)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Deed {
        Insert(u64),
        Remove(prop::sample::Index),
        /// What was inserted before is dropped, as if in windows that are gone.
        Drop(prop::sample::Index),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        // Ids in a row, ids far apart whose homes are one, and any ids.
        let id = prop_oneof![0u64..400, (0u64..40).prop_map(|i| i << 40), any::<u64>()];
        let deed = prop_oneof![
            20 => id.prop_map(Deed::Insert),
            2 => any::<prop::sample::Index>().prop_map(Deed::Remove),
            1 => any::<prop::sample::Index>().prop_map(Deed::Drop),
        ];
        prop::collection::vec(deed, 1..800)
    }

    proptest! {
        /// A list of all that is there finds the same.
        #[test]
        fn finds_what_a_list_finds(deeds in deeds(), narrow in any::<bool>()) {
            let key = |id: u64| Key::from(if narrow { id % 64 } else { id });
            let mut index = Index::new();
            let mut list: Vec<(Key, Address)> = Vec::new();
            let mut dropped_before = 0;
            for (number, deed) in deeds.iter().enumerate() {
                match deed {
                    Deed::Insert(id) => {
                        index.insert(key(*id), number as Address, |place| place >= dropped_before);
                        list.push((key(*id), number as Address));
                    }
                    Deed::Remove(at) if !list.is_empty() => {
                        let (key, place) = list.remove(at.index(list.len()));
                        index.remove(key, place);
                    }
                    Deed::Drop(at) => {
                        dropped_before = dropped_before.max(at.index(number + 1) as Address);
                        list.retain(|(_, place)| *place >= dropped_before);
                    }
                    Deed::Remove(_) => {}
                }
            }
            prop_assert_eq!(index.live(|place| place >= dropped_before), list.len());
            let keys: BTreeSet<Key> = list.iter().map(|(key, _)| *key).chain([7, 1 << 50]).collect();
            for key in keys {
                let mut found = Vec::new();
                index.each(key, |place| found.push(place));
                let expected: Vec<Address> = list.iter().filter(|row| row.0 == key).map(|row| row.1).collect();
                found.retain(|place| *place >= dropped_before);
                // Of other ids some may be found, but few have the same bits.
                prop_assert!(expected.iter().all(|place| found.contains(place)), "{:?} in {:?}", expected, found);
                prop_assert!(found.len() <= expected.len() + 1, "{:?} in {:?}", expected, found);
                let used: usize = index.tables.iter().map(|table| table.used).sum();
                let live = index.live(|_| true);
                // So few are all at home; and where no other id is, one of them is, unless a line of them is gone.
                let alone = expected.len() == list.len() && live == list.len() && used - live < PLACES;
                if !expected.is_empty() && (used <= PLACES || alone) {
                    prop_assert!(index.guess(key).is_some());
                }
            }
        }
    }

    /// Ids that all would have one home are told apart by their hashes.
    #[test]
    fn no_pattern_of_ids_is_slow() {
        for step in [1, 3, 1 << 5, 1 << 12, 1 << 20, 1 << 32, (1 << 32) + (1 << 20)] {
            let mut index = Index::new();
            let ids = || (0..20_000u64).map(|i| i.wrapping_mul(step));
            ids().zip(0..).for_each(|(id, place)| index.insert(Key::from(id), place, |_| true));
            let away = index.tables.iter().map(Table::away).max();
            assert!(away.is_some_and(|away| away <= 2 * AWAY_MAX), "{step}: {away:?} lines away");
            for (id, place) in ids().zip(0..) {
                let (mut found, mut others) = (false, 0);
                index.each(Key::from(id), |at| if at == place { found = true } else { others += 1 });
                assert!(found && others < 4, "{step}: {found}, and {others} others");
            }
        }
    }

    /// Ids that come and go in turn do not make the tables grow.
    #[test]
    fn what_is_gone_takes_no_room() {
        let mut index = Index::new();
        let kept = 50_000u64;
        for id in 0..20 * kept {
            index.insert(Key::from(id), id, |place| place + kept >= id);
        }
        let each = index.memory_bytes() as f64 / kept as f64;
        assert!(each < 40.0, "{each} bytes each");
        let mut found = 0;
        (19 * kept..20 * kept).for_each(|id| index.each(Key::from(id), |place| found += u64::from(place == id)));
        assert_eq!(found, kept);
    }
}
