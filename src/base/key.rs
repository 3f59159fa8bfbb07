//! Entity keys: stable hashes, the 1,024 key slots, and which worker owns a slot.
//!
//! The hashes are part of the snapshot format: a slot's number must be the same in every build.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Number of key slots. State moves between workers, and is snapshotted, by slot.
pub const SLOTS: usize = 1024;

/// Stable hash of a key that fits 64 bits (integers; see `features` for the mapping of types).
///
/// Source: the finaliser of MurmurHash3 with the constants of "Mix13" (Stafford), a bijection on 64 bits.
#[inline(always)]
pub fn hash_u64(key: u64) -> u64 {
    let mut x = key ^ 0x9e37_79b9_7f4a_7c15;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// [`hash_u64`] of each word, in its place.
pub fn hash_words(words: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512dq") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { hash_words_avx512(words) };
    }
    words.iter_mut().for_each(|word| *word = hash_u64(*word));
}

/// The same, eight at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn hash_words_avx512(words: &mut [u64]) {
    words.iter_mut().for_each(|word| *word = hash_u64(*word));
}

/// Stable hash of a key given as bytes (XXH3, seed 0).
#[inline]
pub fn hash_bytes(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The slot of a hash, `0..SLOTS`: its ten highest bits.
#[inline(always)]
pub fn slot_of(hash: u64) -> usize {
    (hash >> 54) as usize
}

/// Key slots from one on up to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRange {
    from: u16,
    to: u16,
}

impl SlotRange {
    /// None.
    pub const NONE: SlotRange = SlotRange { from: 0, to: 0 };
    /// All of them.
    pub const ALL: SlotRange = SlotRange { from: 0, to: SLOTS as u16 };

    /// So many slots from one on, or as many as there are.
    pub fn new(from: u16, count: u16) -> SlotRange {
        let from = from.min(SLOTS as u16);
        SlotRange { from, to: from.saturating_add(count).min(SLOTS as u16) }
    }

    /// Whether a slot is among them.
    #[inline(always)]
    pub fn contains(self, slot: usize) -> bool {
        (usize::from(self.from)..usize::from(self.to)).contains(&slot)
    }

    /// The slots, rising.
    pub fn slots(self) -> std::ops::Range<usize> {
        usize::from(self.from)..usize::from(self.to)
    }

    /// How many they are.
    pub fn len(self) -> u16 {
        self.to.saturating_sub(self.from)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether all slots are among them.
    pub fn is_all(self) -> bool {
        self == SlotRange::ALL
    }

    /// Whether the first slot of all is among them.
    pub fn is_first(self) -> bool {
        self.contains(0)
    }

    /// The slot behind them.
    pub fn end(self) -> u16 {
        self.to
    }
}

/// The worker, `0..workers`, that owns a slot. Contiguous ranges of slots, equal to within one.
#[inline(always)]
pub fn worker_of_slot(slot: usize, workers: usize) -> usize {
    slot * workers / SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_pinned() {
        // Snapshots depend on these numbers.
        assert_eq!(hash_u64(0), 16294208416658607535);
        assert_eq!(hash_bytes(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn words_are_hashed_one_by_one_or_together() {
        for count in 0..40u64 {
            let words: Vec<u64> =
                (0..count).map(|i| i.wrapping_mul(0x0123_4567_89ab_cdef).rotate_left(i as u32)).collect();
            let mut hashed = words.clone();
            hash_words(&mut hashed);
            assert_eq!(hashed, words.into_iter().map(hash_u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_worker_owns_slots() {
        for workers in 1..=16 {
            let mut seen = vec![0usize; workers];
            for slot in 0..SLOTS {
                seen[worker_of_slot(slot, workers)] += 1;
            }
            let (min, max) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
            assert!(max - min <= 1, "{workers} workers: {seen:?}");
        }
    }
}
