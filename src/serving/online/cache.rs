//! A cache bounded in bytes: what was not used for longest goes first.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Parts that are locked one by one.
const PARTS: usize = 16;
/// What an entry takes beside its key and value.
const OVERHEAD_BYTES: usize = 112;
const NONE: u32 = u32::MAX;

/// What an entry weighs beside the overhead.
pub trait Weight {
    /// Bytes on the heap.
    fn bytes(&self) -> usize;
}

/// A cache. Threads may share it.
pub struct Cache<K, V> {
    parts: Vec<Mutex<Part<K, V>>>,
    hasher: RandomState,
    bytes_max: usize,
    /// Looks that found something fresh enough.
    pub hits: AtomicU64,
    /// Looks that did not.
    pub misses: AtomicU64,
    /// Entries that went to make room.
    pub evictions: AtomicU64,
}

struct Part<K, V> {
    index: HashMap<K, u32>,
    entries: Vec<Entry<K, V>>,
    free: Vec<u32>,
    /// Used last, and used longest ago.
    first: u32,
    last: u32,
    bytes: usize,
}

struct Entry<K, V> {
    content: Option<(K, V)>,
    at: Instant,
    bytes: usize,
    before: u32,
    after: u32,
}

impl<K: Hash + Eq + Clone + Weight, V: Clone + Weight> Cache<K, V> {
    /// A cache of at most so many bytes; with none it holds nothing.
    pub fn new(bytes_max: usize) -> Self {
        let part = || {
            let (index, entries, free) = (HashMap::new(), Vec::new(), Vec::new());
            Mutex::new(Part { index, entries, free, first: NONE, last: NONE, bytes: 0 })
        };
        Cache {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            hasher: RandomState::new(),
            bytes_max,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    fn part(&self, key: &K) -> MutexGuard<'_, Part<K, V>> {
        let part = self.hasher.hash_one(key) as usize % PARTS;
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value and its age, if it is at most so old.
    pub fn get(&self, key: &K, age_max: Duration, now: Instant) -> Option<(V, Duration)> {
        let mut part = self.part(key);
        let found = part.index.get(key).copied().and_then(|at| {
            let entry = &part.entries[at as usize];
            let age = now.saturating_duration_since(entry.at);
            let (_, value) = entry.content.as_ref().filter(|_| age <= age_max)?;
            Some((at, value.clone(), age))
        });
        match found {
            Some((at, value, age)) => {
                part.unlink(at);
                part.push(at);
                self.hits.fetch_add(1, Relaxed);
                Some((value, age))
            }
            None => {
                self.misses.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// Keeps a value as of `now`, unless `newer` says that what is there is newer than it.
    pub fn put(&self, key: K, value: V, now: Instant, newer: impl FnOnce(&V) -> bool) {
        let bytes = key.bytes() * 2 + value.bytes() + OVERHEAD_BYTES;
        let room = self.bytes_max / PARTS;
        if bytes > room {
            return;
        }
        let mut part = self.part(&key);
        if let Some(at) = part.index.get(&key).copied() {
            if part.entries[at as usize].content.as_ref().is_some_and(|(_, held)| newer(held)) {
                return;
            }
            part.remove(at);
        }
        while part.bytes + bytes > room && part.last != NONE {
            let last = part.last;
            part.remove(last);
            self.evictions.fetch_add(1, Relaxed);
        }
        let entry = Entry { content: Some((key.clone(), value)), at: now, bytes, before: NONE, after: NONE };
        let at = match part.free.pop() {
            Some(at) => {
                part.entries[at as usize] = entry;
                at
            }
            None => {
                part.entries.push(entry);
                part.entries.len() as u32 - 1
            }
        };
        part.bytes += bytes;
        part.index.insert(key, at);
        part.push(at);
    }

    /// Forgets an entry; tells whether there was one.
    pub fn forget(&self, key: &K) -> bool {
        let mut part = self.part(key);
        match part.index.get(key).copied() {
            Some(at) => {
                part.remove(at);
                true
            }
            None => false,
        }
    }

    /// Forgets all entries of which `which` says so; tells how many there were.
    pub fn forget_all(&self, which: impl Fn(&K) -> bool) -> usize {
        let mut forgotten = 0;
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let meant: Vec<u32> = part.index.iter().filter(|(key, _)| which(key)).map(|(_, at)| *at).collect();
            forgotten += meant.len();
            meant.into_iter().for_each(|at| part.remove(at));
        }
        forgotten
    }

    /// Entries and bytes.
    pub fn size(&self) -> (usize, usize) {
        let parts = self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner));
        parts.fold((0, 0), |(entries, bytes), part| (entries + part.index.len(), bytes + part.bytes))
    }
}

impl<K: Hash + Eq, V> Part<K, V> {
    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let entry = &mut self.entries[at as usize];
        self.bytes -= entry.bytes;
        if let Some((key, _)) = entry.content.take() {
            self.index.remove(&key);
        }
        self.free.push(at);
    }

    fn unlink(&mut self, at: u32) {
        let (before, after) = (self.entries[at as usize].before, self.entries[at as usize].after);
        match before {
            NONE => self.first = after,
            before => self.entries[before as usize].after = after,
        }
        match after {
            NONE => self.last = before,
            after => self.entries[after as usize].before = before,
        }
    }

    fn push(&mut self, at: u32) {
        let first = self.first;
        let entry = &mut self.entries[at as usize];
        (entry.before, entry.after) = (NONE, first);
        match first {
            NONE => self.last = at,
            first => self.entries[first as usize].before = at,
        }
        self.first = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Weight for u32 {
        fn bytes(&self) -> usize {
            0
        }
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Sized(usize);

    impl Weight for Sized {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    proptest! {
        /// The naive twin keeps, per part, a list in the order of use.
        #[test]
        fn it_forgets_what_was_not_used_for_longest(
            deeds in prop::collection::vec((0u32..40, 0usize..4, 0u64..5), 1..300)
        ) {
            let room = 600;
            let cache: Cache<u32, Sized> = Cache::new(room * PARTS);
            let mut twin: Vec<Vec<(u32, usize, u64)>> = vec![Vec::new(); PARTS];
            let start = Instant::now();
            let mut clock = 0;
            for (key, deed, step) in deeds {
                clock += step;
                let now = start + Duration::from_secs(clock);
                let part = &mut twin[cache.hasher.hash_one(key) as usize % PARTS];
                let place = part.iter().position(|(held, ..)| *held == key);
                match deed {
                    0 => {
                        let expected = place.filter(|place| clock - part[*place].2 <= 3).map(|place| {
                            let entry = part.remove(place);
                            part.push(entry);
                            (Sized(entry.1), Duration::from_secs(clock - entry.2))
                        });
                        prop_assert_eq!(cache.get(&key, Duration::from_secs(3), now), expected);
                    }
                    1 => {
                        prop_assert_eq!(cache.forget(&key), place.is_some());
                        place.map(|place| part.remove(place));
                    }
                    size => {
                        let size = size * 37;
                        cache.put(key, Sized(size), now, |_| false);
                        place.map(|place| part.remove(place));
                        let weight = |part: &[(u32, usize, u64)]| {
                            part.iter().map(|(_, size, _)| size + OVERHEAD_BYTES).sum::<usize>()
                        };
                        while weight(part) + size + OVERHEAD_BYTES > room {
                            part.remove(0);
                        }
                        part.push((key, size, clock));
                    }
                }
                let entries = twin.iter().map(Vec::len).sum::<usize>();
                let bytes = twin.iter().flatten().map(|(_, size, _)| size + OVERHEAD_BYTES).sum::<usize>();
                prop_assert_eq!(cache.size(), (entries, bytes));
            }
            prop_assert_eq!(cache.forget_all(|key| key % 2 == 0), twin.iter().flatten().filter(|e| e.0 % 2 == 0).count());
            prop_assert!(cache.size().1 <= room * PARTS);
        }
    }

    #[test]
    fn what_is_newer_stays_and_what_is_too_large_is_not_kept() {
        let cache: Cache<u32, Sized> = Cache::new(16_000);
        let now = Instant::now();
        cache.put(1, Sized(20), now, |_| false);
        cache.put(1, Sized(10), now, |held| held.0 > 10);
        assert_eq!(cache.get(&1, Duration::ZERO, now).map(|(value, _)| value), Some(Sized(20)));
        cache.put(2, Sized(1_000), now, |_| false);
        assert_eq!(cache.get(&2, Duration::ZERO, now), None);
        let none: Cache<u32, Sized> = Cache::new(0);
        none.put(1, Sized(0), now, |_| false);
        assert_eq!(none.size(), (0, 0));
    }
}
