//! Entity keys: stable hashes, the 1,024 key slots, and which worker owns a slot.
//!
//! The hashes are part of the snapshot format: a slot's number must be the same in every build.

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
