//! The shared binner: columns as small numbers, with thresholds that say the same of the raw values.
//!
//! A number x lies in bin b = |{i : edge_i < x}|, so that `bin <= b` and `x <= edge_b` are the same question for every x, seen in
//! training or not. Edges lie half-way between neighbouring values of the training set, rounded down to single precision:
//! for values a < b the edge e has a <= e < b. A missing value has the bin [`MISSING_BIN`], which no edge divides from the others.
//!
//! Levels of a category have a bin each, the most frequent ones where there are too many; the rest share [`REST_BIN`], and are
//! never asked for by name, as levels are that were not seen.

use super::data::{Column, MISSING};
use super::parallel::Crew;
use crate::base::SplitMix64;

/// The bin of a missing value.
pub(super) const MISSING_BIN: u8 = 255;
/// The bin of levels that have none of their own.
pub(super) const REST_BIN: u8 = 254;
/// Edges are taken from so many rows at most, drawn at random.
const SAMPLE: usize = 200_000;

/// How one column is divided.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bins {
    /// A number.
    Number {
        /// Rising; one fewer than there are bins.
        edges: Vec<f32>,
        /// Whether +∞ was seen, which a threshold cannot divide from missing values.
        infinite: bool,
        /// Whether a missing value was seen.
        missing: bool,
    },
    /// A category.
    Category {
        /// The bin of each code.
        bin: Vec<u8>,
        /// The code of each bin.
        code: Vec<u32>,
        /// Whether a missing value was seen.
        missing: bool,
    },
}

impl Bins {
    /// Divides numbers into at most `most` bins, 2 to 255; levels of a category have as many as there can be.
    pub fn of(column: &Column, most: usize) -> Bins {
        match column {
            Column::Number(values) => {
                let missing = values.iter().any(|x| x.is_nan());
                let infinite = values.contains(&f32::INFINITY);
                let mut sorted = sample(values);
                sorted.sort_unstable();
                Bins::Number { edges: edges(&counted(&sorted), most), infinite, missing }
            }
            Column::Category { codes, levels } => {
                let mut counts = vec![0u64; levels.len()];
                let mut missing = false;
                for code in codes {
                    match counts.get_mut(*code as usize) {
                        Some(count) => *count += 1,
                        None => missing = true,
                    }
                }
                let mut seen: Vec<u32> = (0..levels.len() as u32).filter(|code| counts[*code as usize] > 0).collect();
                if seen.len() > usize::from(REST_BIN) {
                    seen.sort_by_key(|code| (std::cmp::Reverse(counts[*code as usize]), *code));
                    seen.truncate(usize::from(REST_BIN));
                    seen.sort_unstable();
                }
                let mut bin = vec![REST_BIN; levels.len()];
                for (index, code) in seen.iter().enumerate() {
                    bin[*code as usize] = index as u8;
                }
                Bins::Category { bin, code: seen, missing }
            }
        }
    }

    /// The bins of a column's rows.
    pub fn apply(&self, column: &Column) -> Vec<u8> {
        match (self, column) {
            (Bins::Number { edges, .. }, Column::Number(values)) => {
                // Padded to 256, a search is eight steps without a branch; NaN is below no edge and above none.
                let mut padded = [f32::INFINITY; 256];
                padded[..edges.len()].copy_from_slice(edges);
                values.iter().map(|x| if x.is_nan() { MISSING_BIN } else { search(&padded, *x) }).collect()
            }
            (Bins::Category { bin, .. }, Column::Category { codes, .. }) => {
                codes
                    .iter()
                    .map(|code| {
                        if *code == MISSING {
                            MISSING_BIN
                        } else {
                            bin.get(*code as usize).copied().unwrap_or(REST_BIN)
                        }
                    })
                    .collect()
            }
            _ => vec![MISSING_BIN; column.len()],
        }
    }
}

/// Edges below x: x = +∞ is above all but the padding.
#[inline]
fn search(padded: &[f32; 256], x: f32) -> u8 {
    let mut at = 0usize;
    for step in [128, 64, 32, 16, 8, 4, 2, 1] {
        at += step * usize::from(padded[at + step - 1] < x);
    }
    at as u8
}

/// A number as an integer in the same order; −0 is 0, and −∞ the least finite number, as every threshold is finite.
#[inline]
pub(super) fn order_key(x: f32) -> u32 {
    let bits = (x.max(f32::MIN) + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The number of a key.
#[inline]
pub(super) fn of_order_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Keys of values that are there; of many rows some, always the same ones.
fn sample(values: &[f32]) -> Vec<u32> {
    let keys = |x: &f32| (!x.is_nan()).then(|| order_key(*x));
    if values.len() <= SAMPLE {
        return values.iter().filter_map(keys).collect();
    }
    let mut random = SplitMix64::new(0);
    (0..SAMPLE).filter_map(|_| keys(&values[random.below(values.len() as u64) as usize])).collect()
}

/// Distinct values of sorted keys, and how many rows have each.
pub(super) fn counted(sorted: &[u32]) -> Vec<(f32, u64)> {
    let mut values: Vec<(f32, u64)> = Vec::new();
    let mut last = None;
    for key in sorted {
        match values.last_mut() {
            Some((_, count)) if last == Some(*key) => *count += 1,
            _ => values.push((of_order_key(*key), 1)),
        }
        last = Some(*key);
    }
    values
}

/// Half-way between a, which is finite, and b, a < b, rounded down: at least a and below b, and finite.
pub(super) fn between(a: f32, b: f32) -> f32 {
    let middle = (f64::from(a) + f64::from(b)) / 2.0;
    let near = middle.min(f64::from(f32::MAX)) as f32;
    if f64::from(near) > middle { near.next_down() } else { near }
}

/// With fewer bins than these none is spent on the ends.
const TAILED: usize = 128;
/// Each further bin towards an end holds so many times fewer rows.
const TAPER: f64 = 1.5;

/// Edges of at most `most` bins of near equal numbers of rows; a value that has a bin's share or more has one to itself. Of many
/// bins the outermost taper off: what is rare, such as an amount that only frauds have, often lies at an end, and one bin of
/// equal size would hide it.
pub(super) fn edges(values: &[(f32, u64)], most: usize) -> Vec<f32> {
    let cuts = if most < TAILED || values.len() <= most { cuts(values, most) } else { tapered(values, most) };
    cuts.iter().map(|&last| between(values[last].0, values[last + 1].0)).collect()
}

/// As [`cuts`], with bins at both ends that hold fewer and fewer rows.
fn tapered(values: &[(f32, u64)], most: usize) -> Vec<usize> {
    let ends: Vec<u64> = values
        .iter()
        .scan(0, |rows, (_, count)| {
            *rows += count;
            Some(*rows)
        })
        .collect();
    let all = ends.last().copied().unwrap_or(0);
    let (mut ranks, mut rows) = (Vec::new(), all as f64 / most as f64);
    while rows > 1.0 && ranks.len() < most / 2 {
        rows /= TAPER;
        ranks.extend([rows.ceil() as u64, all - rows.ceil() as u64]);
    }
    let mut cuts = cuts(values, most - ranks.len());
    cuts.extend(ranks.iter().map(|rank| ends.partition_point(|end| end < rank)).filter(|at| at + 1 < values.len()));
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Indices of the last value of every bin but the last one.
pub(super) fn cuts(values: &[(f32, u64)], most: usize) -> Vec<usize> {
    if values.len() <= most {
        return (0..values.len().saturating_sub(1)).collect();
    }
    let mut rest: u64 = values.iter().map(|(_, count)| count).sum();
    let mut bins = most as u64;
    // Values with a bin's share or more are set apart first: what is left is divided among the other bins.
    let share = rest as f64 / bins as f64;
    let heavy: Vec<bool> = values.iter().map(|(_, count)| *count as f64 >= share).collect();
    for ((_, count), _) in values.iter().zip(&heavy).filter(|(_, heavy)| **heavy) {
        rest -= count;
        bins = bins.saturating_sub(1);
    }
    let mut cuts = Vec::with_capacity(most);
    let (mut held, mut share) = (0, rest as f64 / bins.max(1) as f64);
    for index in 0..values.len() - 1 {
        let count = values[index].1;
        if !heavy[index] {
            rest -= count;
        }
        held += count;
        // A bin ends where it is full, where a heavy value stands by itself, and before one once it is half full.
        let full = held as f64 >= share || heavy[index] || (heavy[index + 1] && held as f64 >= share / 2.0);
        if full && cuts.len() + 1 < most {
            cuts.push(index);
            held = 0;
            if !heavy[index] {
                bins = bins.saturating_sub(1);
                share = rest as f64 / bins.max(1) as f64;
            }
        }
    }
    cuts
}

/// All columns, divided and counted off, by column.
pub(super) fn bin_all(columns: &[Column], most: usize, crew: &Crew) -> (Vec<Bins>, Vec<Vec<u8>>) {
    let mut all: Vec<(&Column, Option<(Bins, Vec<u8>)>)> = columns.iter().map(|column| (column, None)).collect();
    crew.each(true, &mut all, |(column, out)| {
        let bins = Bins::of(column, most);
        let binned = bins.apply(column);
        *out = Some((bins, binned));
    });
    all.into_iter().filter_map(|(_, out)| out).unzip()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Bins {
        fn len(&self) -> usize {
            match self {
                Bins::Number { edges, .. } => edges.len() + 1,
                Bins::Category { code, .. } => code.len(),
            }
        }
    }

    fn numbers() -> impl Strategy<Value = Vec<f32>> {
        let some = prop_oneof![
            8 => (-40i32..40).prop_map(|x| x as f32 / 4.0),
            4 => any::<f32>(),
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
            1 => Just(-0.0),
            1 => Just(f32::MAX),
            1 => Just(f32::MIN_POSITIVE / 2.0),
        ];
        prop::collection::vec(some, 1..400)
    }

    proptest! {
        #[test]
        fn a_threshold_says_of_raw_values_what_it_says_of_bins(seen in numbers(), new in numbers(), most in 2usize..=255) {
            let bins = Bins::of(&Column::Number(seen.clone()), most);
            let Bins::Number { edges, .. } = &bins else { panic!("not a number") };
            prop_assert!(edges.len() < most && edges.is_sorted_by(|a, b| a < b) && edges.iter().all(|e| e.is_finite()));
            for values in [seen, new] {
                let binned = bins.apply(&Column::Number(values.clone()));
                for (x, bin) in values.iter().zip(binned) {
                    prop_assert_eq!(x.is_nan(), bin == MISSING_BIN);
                    for (index, edge) in edges.iter().enumerate().filter(|_| !x.is_nan()) {
                        prop_assert_eq!(*x <= *edge, usize::from(bin) <= index, "{} {}", x, edge);
                    }
                }
            }
        }

        #[test]
        fn few_values_have_a_bin_each(values in prop::collection::vec(-100i16..100, 1..300)) {
            let column = Column::Number(values.iter().map(|x| f32::from(*x)).collect());
            let bins = Bins::of(&column, 255);
            let distinct: std::collections::BTreeSet<_> = values.iter().collect();
            prop_assert_eq!(bins.len(), distinct.len());
            let binned = bins.apply(&column);
            for (x, bin) in values.iter().zip(binned) {
                prop_assert_eq!(distinct.iter().position(|y| *y == x), Some(usize::from(bin)));
            }
        }

        #[test]
        fn bins_are_of_like_size(seed in any::<u64>(), most in 2usize..100) {
            let mut random = SplitMix64::new(seed);
            let values: Vec<f32> = (0..5000).map(|_| random.unit() as f32).collect();
            let bins = Bins::of(&Column::Number(values.clone()), most);
            prop_assert_eq!(bins.len(), most);
            let mut counts = vec![0usize; most];
            for bin in bins.apply(&Column::Number(values)) {
                counts[usize::from(bin)] += 1;
            }
            let share = 5000 / most;
            prop_assert!(counts.iter().all(|count| (share / 2..=2 * share).contains(count)), "{:?}", counts);
        }
    }

    #[test]
    fn the_ends_are_told_finely() {
        // 67,000 amounts, of which 35 are above all others: fewer than a bin of equal size has.
        let mut random = SplitMix64::new(2);
        let mut values: Vec<f32> = (0..67_000).map(|_| random.unit() as f32 * 200.0).collect();
        values.iter_mut().take(35).enumerate().for_each(|(i, x)| *x = 220.0 + i as f32);
        let Bins::Number { edges, .. } = Bins::of(&Column::Number(values.clone()), 255) else { panic!("not a number") };
        assert!(edges.len() <= 254, "{}", edges.len());
        let wrong = |edge: &f32| values.iter().filter(|x| (**x > *edge) != (**x >= 220.0)).count();
        let best = edges.iter().map(wrong).min();
        assert!(best <= Some(12), "the nearest edge puts {best:?} rows on the wrong side");
        assert!(edges.iter().filter(|edge| **edge < 1.0).count() > 10, "the lower end, too");
    }

    #[test]
    fn a_frequent_value_has_a_bin_to_itself_and_leaves_the_others_theirs() {
        let mut values = vec![0.0f32; 5000];
        values.extend((1..=5000).map(|x| x as f32));
        let bins = Bins::of(&Column::Number(values), 11);
        let Bins::Number { edges, .. } = bins else { panic!("not a number") };
        assert_eq!(edges.len(), 10);
        assert_eq!(edges[0], 0.5);
        assert!(edges.windows(2).skip(1).all(|pair| (pair[1] - pair[0] - 500.0).abs() <= 1.0), "{edges:?}");
    }

    #[test]
    fn frequent_levels_have_bins_and_the_rest_share_one() {
        let levels = (0..400).map(|level| level.to_string()).collect();
        let mut codes: Vec<u32> = (0..300).collect();
        codes.extend((200..300).chain([7, MISSING]));
        let column = Column::Category { codes: codes.clone(), levels };
        let bins = Bins::of(&column, 255);
        assert_eq!(bins.len(), 254);
        let binned = bins.apply(&column);
        let Bins::Category { code, missing, .. } = &bins else { panic!("not a category") };
        assert!(*missing && code.contains(&7) && (200..300).all(|c| code.contains(&c)));
        for (c, bin) in codes.iter().zip(&binned) {
            match *bin {
                MISSING_BIN => assert_eq!(*c, MISSING),
                REST_BIN => assert!(!code.contains(c)),
                bin => assert_eq!(code[usize::from(bin)], *c),
            }
        }
        assert_eq!(binned.iter().filter(|bin| **bin == REST_BIN).count(), 300 - 254);
    }
}
