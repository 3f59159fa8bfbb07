//! What shows that two programs made the same rows.

/// A sum over rows and columns that notices a wrong bit in any row, whatever the batches and the order of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    sum: u64,
}

impl Checksum {
    /// Adds a batch: each row's id, and the 64-bit values of each column, all of one length; nulls as 0.
    pub fn add(&mut self, ids: &[u64], columns: &[&[u64]]) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512dq") && has!("avx512vl") {
                // SAFETY: the processor has what the function is compiled for.
                return unsafe { self.add_avx512(ids, columns) };
            }
        }
        self.add_any(ids, columns);
    }

    /// The same in wide vectors, so that the sum takes little of the time that is measured.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    fn add_avx512(&mut self, ids: &[u64], columns: &[&[u64]]) {
        self.add_any(ids, columns);
    }

    #[inline(always)]
    fn add_any(&mut self, ids: &[u64], columns: &[&[u64]]) {
        const BLOCK: usize = 1024;
        let mut weights = [0; BLOCK];
        for (block, ids) in ids.chunks(BLOCK).enumerate() {
            let weights = &mut weights[..ids.len()];
            for (weight, id) in weights.iter_mut().zip(ids) {
                *weight = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            }
            for (i, column) in columns.iter().enumerate() {
                let words = &column[block * BLOCK..][..weights.len()];
                let sum =
                    weights.iter().zip(words).fold(0, |sum: u64, (w, word)| sum.wrapping_add(w.wrapping_mul(*word)));
                self.sum = self.sum.wrapping_add(sum.wrapping_mul(2 * i as u64 + 1));
            }
        }
    }

    /// Adds what another has added up.
    pub fn join(&mut self, other: Checksum) {
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash_u64;

    #[test]
    fn a_checksum_knows_rows_and_columns_but_not_their_order() {
        let ids: Vec<u64> = (0..3_000).collect();
        let columns: Vec<Vec<u64>> = (1..4).map(|c| ids.iter().map(|id| hash_u64(id * c)).collect()).collect();
        let sum = |ids: &[u64], columns: &[Vec<u64>]| {
            let mut sum = Checksum::default();
            sum.add(ids, &columns.iter().map(Vec::as_slice).collect::<Vec<_>>());
            sum
        };
        let whole = sum(&ids, &columns);
        // In other batches, last first.
        let part = |rows: std::ops::Range<usize>| {
            let columns: Vec<Vec<u64>> =
                columns.iter().map(|c| c[rows.clone()].iter().rev().copied().collect()).collect();
            sum(&ids[rows].iter().rev().copied().collect::<Vec<_>>(), &columns)
        };
        let mut parts = part(1_500..3_000);
        parts.join(part(0..1_500));
        assert_eq!(parts.value(), whole.value());
        let changed = |change: &dyn Fn(&mut Vec<Vec<u64>>)| {
            let mut columns = columns.clone();
            change(&mut columns);
            sum(&ids, &columns).value()
        };
        assert_ne!(changed(&|c| c[1][2_000] ^= 1 << 63), whole.value());
        assert_ne!(changed(&|c| c.swap(0, 1)), whole.value());
        assert_ne!(changed(&|c| c[2].swap(7, 8)), whole.value());
    }
}
