//! Words of columns picked from one place or several, eight at once where the processor gathers them.

use super::origins::{Origins, check};

impl Origins {
    /// The values of a column, of which `parts` are those of each source.
    ///
    /// # Panics
    /// When a part is shorter or longer than its source.
    pub fn gather<W: Word>(&self, parts: &[&[W]]) -> Vec<W> {
        assert!(self.fit(parts), "a column is as long as its batch");
        W::gather(self, parts)
    }

    fn one_by_one<W: Copy>(&self, parts: &[&[W]]) -> Vec<W> {
        match parts {
            [only] => self.list().iter().map(|origin| only[origin.row as usize]).collect(),
            parts => self.list().iter().map(|origin| parts[origin.source as usize][origin.row as usize]).collect(),
        }
    }
}

/// Values of a fixed width, whatever they mean.
pub(super) trait Word: Copy {
    /// Where `parts` are as long as the sources.
    fn gather(origins: &Origins, parts: &[&[Self]]) -> Vec<Self> {
        origins.one_by_one(parts)
    }

    /// Appends the values at these rows.
    ///
    /// # Panics
    /// When there is no such row.
    fn append(values: &[Self], rows: &[u32], out: &mut Vec<Self>) {
        append_one_by_one(values, rows, out);
    }
}

fn append_one_by_one<W: Copy>(values: &[W], rows: &[u32], out: &mut Vec<W>) {
    out.extend(rows.iter().map(|row| values[*row as usize]));
}

impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}

impl Word for u64 {
    #[cfg(target_arch = "x86_64")]
    fn gather(origins: &Origins, parts: &[&[u64]]) -> Vec<u64> {
        if parts.len() > x86::SOURCES_MAX || !std::arch::is_x86_feature_detected!("avx512f") {
            return origins.one_by_one(parts);
        }
        // SAFETY: the processor has AVX-512, the parts are as long as the sources and no more than there may be, and each
        // origin is a row of its source.
        unsafe { x86::gather(origins.list(), parts) }
    }

    #[cfg(target_arch = "x86_64")]
    fn append(values: &[u64], rows: &[u32], out: &mut Vec<u64>) {
        append_words(values, rows, out);
    }
}

impl Word for i64 {
    #[cfg(target_arch = "x86_64")]
    fn append(values: &[i64], rows: &[u32], out: &mut Vec<i64>) {
        append_words(values, rows, out);
    }
}

/// Appends words of 64 bits; see [`Word::append`].
#[cfg(target_arch = "x86_64")]
fn append_words<W: Copy>(values: &[W], rows: &[u32], out: &mut Vec<W>) {
    const { assert!(size_of::<W>() == 8) };
    if !std::arch::is_x86_feature_detected!("avx512f") {
        return append_one_by_one(values, rows, out);
    }
    check(rows, values.len());
    // SAFETY: the processor has AVX-512, the words are of 64 bits, and `values` has each of the rows.
    unsafe { x86::append(values, rows, out) }
}

/// The numbers of each owner's rows, in order, where `owners` names each row's, a number below `count`.
pub(super) fn rows_of_owners(owners: &[u64], count: usize) -> Vec<Vec<u32>> {
    #[cfg(target_arch = "x86_64")]
    if count <= x86::OWNERS_MAX && std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512.
        return (0..count as u64).map(|owner| unsafe { x86::rows_of(owners, owner) }).collect();
    }
    let mut counts = vec![0; count];
    owners.iter().for_each(|owner| counts[*owner as usize] += 1);
    let mut rows: Vec<Vec<u32>> = counts.into_iter().map(Vec::with_capacity).collect();
    owners.iter().zip(0..).for_each(|(owner, row)| rows[*owner as usize].push(row));
    rows
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::origins::Origin;
    use crate::base::prefetch;

    /// Words of a vector.
    const LANES: usize = 8;
    /// Rows from one that is gathered to one that is fetched for later.
    const AHEAD: usize = 256;
    /// Most owners for each of which all rows are looked at.
    pub const OWNERS_MAX: usize = 8;
    /// Addresses that two vectors hold.
    pub const SOURCES_MAX: usize = 2 * LANES;

    /// # Safety
    /// Each origin is of one of the parts, of which there are [`SOURCES_MAX`] at most, and of a row that this has.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn gather(origins: &[Origin], parts: &[&[u64]]) -> Vec<u64> {
        let mut starts = [std::ptr::null::<u64>(); SOURCES_MAX];
        starts.iter_mut().zip(parts).for_each(|(start, part)| *start = part.as_ptr());
        let mut out: Vec<u64> = Vec::with_capacity(origins.len());
        let (eights, rest) = origins.as_chunks::<LANES>();
        // SAFETY: what is read of the origins and the starts are eight of each; each lane reads a row that its part has, by the
        // caller's word; what is written is within the room of `out`, of which no more is taken for filled.
        unsafe {
            let low = _mm512_loadu_si512(starts.as_ptr().cast());
            let high = _mm512_loadu_si512(starts.as_ptr().add(LANES).cast());
            for (i, eight) in eights.iter().enumerate() {
                // The processor fetches ahead by itself, but no further than to the end of a small page.
                for ahead in [0, LANES / 2] {
                    let origin = origins[(i * LANES + AHEAD + ahead).min(origins.len() - 1)];
                    prefetch(starts[origin.source as usize].wrapping_add(origin.row as usize));
                }
                // An origin is its source in the low half of a word, of which the permutation looks at four bits, and its row above.
                let eight = _mm512_loadu_si512(eight.as_ptr().cast());
                let rows = _mm512_slli_epi64::<3>(_mm512_srli_epi64::<32>(eight));
                let starts = _mm512_permutex2var_epi64(low, eight, high);
                let words = _mm512_i64gather_epi64::<1>(_mm512_add_epi64(starts, rows), std::ptr::null());
                _mm512_storeu_si512(out.as_mut_ptr().add(i * LANES).cast(), words);
            }
            out.set_len(eights.len() * LANES);
        }
        out.extend(rest.iter().map(|origin| parts[origin.source as usize][origin.row as usize]));
        out
    }

    /// # Safety
    /// `values` are words of 64 bits and have each of the rows.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn append<W: Copy>(values: &[W], rows: &[u32], out: &mut Vec<W>) {
        out.reserve(rows.len());
        let (eights, rest) = rows.as_chunks::<LANES>();
        // SAFETY: what is read of the rows are eight; each lane reads a row that there is, by the caller's word; what is written is
        // within the room of `out`, of which no more is taken for filled.
        unsafe {
            let end = out.as_mut_ptr().add(out.len());
            for (i, eight) in eights.iter().enumerate() {
                let rows = _mm512_cvtepu32_epi64(_mm256_loadu_si256(eight.as_ptr().cast()));
                let words = _mm512_i64gather_epi64::<8>(rows, values.as_ptr().cast());
                _mm512_storeu_si512(end.add(i * LANES).cast(), words);
            }
            out.set_len(out.len() + eights.len() * LANES);
        }
        out.extend(rest.iter().map(|row| values[*row as usize]));
    }

    /// The numbers of an owner's rows.
    #[target_feature(enable = "avx512f")]
    pub fn rows_of(owners: &[u64], owner: u64) -> Vec<u32> {
        let (eights, rest) = owners.as_chunks::<LANES>();
        let own = _mm512_set1_epi64(owner.cast_signed());
        // SAFETY: what is read of the owners are eight.
        let is_own =
            |eight: &[u64; LANES]| unsafe { _mm512_cmpeq_epi64_mask(_mm512_loadu_si512(eight.as_ptr().cast()), own) };
        let count = eights.iter().map(|eight| is_own(eight).count_ones() as usize).sum::<usize>();
        let mut out: Vec<u32> = Vec::with_capacity(count + 2 * LANES);
        let mut numbers = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 7, 6, 5, 4, 3, 2, 1, 0);
        let mut len = 0;
        for eight in eights {
            let mask = is_own(eight);
            // SAFETY: there are no more than `count` numbers before these, and then room for a whole vector.
            unsafe {
                let packed = _mm512_maskz_compress_epi32(u16::from(mask), numbers);
                _mm512_storeu_si512(out.as_mut_ptr().add(len).cast(), packed);
            }
            len += mask.count_ones() as usize;
            numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32(LANES as i32));
        }
        // SAFETY: so many numbers were counted, and written since.
        unsafe { out.set_len(len) };
        let first = eights.len() * LANES;
        out.extend(rest.iter().zip(first as u32..).filter(|(other, _)| **other == owner).map(|(_, row)| row));
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::batch::{Batch, Pick};
    use crate::ops::ords;
    use crate::ops::tests::rows;

    proptest! {
        /// Words of all widths, from any number of whole and picked batches, come to the places that one by one they come to.
        #[test]
        fn words_come_from_where_they_are_said_to(
            sources in prop::collection::vec((1u32..40, prop::option::of(prop::collection::vec(any::<prop::sample::Index>(), 1..40))), 1..20),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut number = 0;
            let sources: Vec<Batch> = sources
                .into_iter()
                .map(|(count, pick)| {
                    let batch = rows(&(0..count).map(|_| { number += 1; (0, number * 0x0123_4567_89ab_cdef) }).collect::<Vec<_>>());
                    let pick = pick.map_or(Pick::All, |pick| Pick::Rows(pick.iter().map(|row| row.index(count as usize) as u32).collect()));
                    Batch::picked(batch, pick)
                })
                .collect();
            let all: Vec<u64> = sources.iter().flat_map(|source| ords(&source.clone().into_rows()).to_vec()).collect();
            let order: Vec<u32> = order.iter().map(|row| row.index(all.len()) as u32).collect();
            let origins = Origins::ordered(&sources, &order);
            let expected: Vec<u64> = order.iter().map(|row| all[*row as usize]).collect();
            let parts: Vec<&[u64]> = sources.iter().map(|source| ords(source.backing())).collect();
            prop_assert_eq!(&origins.gather(&parts), &expected);
            prop_assert_eq!(&origins.one_by_one(&parts), &expected);
            let halves: Vec<Vec<u32>> = parts.iter().map(|part| part.iter().map(|word| *word as u32).collect()).collect();
            let halves: Vec<&[u32]> = halves.iter().map(|half| &half[..]).collect();
            prop_assert_eq!(origins.gather(&halves), expected.iter().map(|word| *word as u32).collect::<Vec<_>>());
            let mut appended = vec![7];
            u64::append(&all, &order, &mut appended);
            prop_assert_eq!(&appended[1..], &expected);
        }
    }

    proptest! {
        /// Each owner gets its rows in order, whether or not there are many owners.
        #[test]
        fn owners_get_their_rows(
            (count, owners) in (1usize..20).prop_flat_map(|count| (Just(count), prop::collection::vec(0..count as u64, 0..100))),
        ) {
            let expected: Vec<Vec<u32>> =
                (0..count as u64).map(|own| (0..owners.len() as u32).filter(|row| owners[*row as usize] == own).collect()).collect();
            prop_assert_eq!(rows_of_owners(&owners, count), expected);
        }
    }

    #[test]
    #[should_panic(expected = "row 3 is none of 3")]
    fn a_row_that_is_not_there_is_refused() {
        let batch = Batch::picked(rows(&[(0, 0), (0, 1), (0, 2)]), Pick::Rows(vec![0, 3]));
        Origins::ordered(&[batch], &[0]);
    }

    #[test]
    #[should_panic(expected = "row 9 is none of 9")]
    fn a_word_that_is_not_there_is_refused() {
        u64::append(&[1; 9], &[0, 1, 2, 3, 4, 5, 6, 9], &mut Vec::new());
    }
}
