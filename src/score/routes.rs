//! Rows scored by two versions of a model: which version scores which row, and the scores back in the order of the rows.
//!
//! A row's **group** is a number below [`SHARE_ALL`], by a hash of its key with a salt: all rows of a key have one group as long
//! as the salt is the same, so assignment is *sticky*; a share takes so many of the lowest groups, so a smaller share is
//! *nested* in a larger one. Since a row's score depends on the row and its model alone, it does not matter which rows are scored with it.

use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{interleave, take};

use super::error::ScoreError;
use super::scorer::{Scorer, Scores};
use crate::base::{hash_bytes, hash_u64};
use crate::plan::model::{SHARE_ALL, Share};

/// What a name, such as a rollout's, adds to the hash of a key.
pub fn salt_of(name: &str) -> u64 {
    hash_bytes(name.as_bytes())
}

/// The group of a key, given by its hash. Part of saved state: it must be the same in every build.
#[inline]
pub fn group(salt: u64, key: u64) -> u16 {
    // The high half of the product: an even spread without a division.
    ((u128::from(hash_u64(key ^ salt)) * u128::from(SHARE_ALL)) >> 64) as u16
}

/// How a batch is scored.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// By the champion.
    Champion,
    /// By the champion, and by the challenger too, for comparison.
    Shadow,
    /// The share by the challenger, the rest by the champion.
    Split {
        /// The challenger's share.
        share: Share,
        /// The [groups](group) of the rows' keys.
        groups: &'a [u16],
    },
}

/// Scores of a batch by two versions.
#[derive(Debug)]
pub struct Routed {
    /// What counts: of each row the score of the version that it was routed to.
    pub scores: Scores,
    /// Of each row whether the challenger made its score; none where the champion made all.
    pub challenger: Option<Vec<bool>>,
    /// Scores of all rows by the challenger, in shadow.
    pub shadow: Option<Scores>,
    /// How long champion and challenger took.
    pub took: [Duration; 2],
}

/// A champion, and a challenger with outputs of the same types if there is one.
pub struct Pair {
    /// Scores what nobody else does.
    pub champion: Scorer,
    /// Scores its share, or in shadow.
    pub challenger: Option<Scorer>,
}

impl Pair {
    /// Scores a batch. Without a challenger the champion scores all of it.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    pub fn score(&mut self, columns: &[ArrayRef], way: Way<'_>) -> Result<Routed, ScoreError> {
        let (champion, challenger) = (&mut self.champion, self.challenger.as_mut());
        let Some(challenger) = challenger.filter(|_| !matches!(way, Way::Champion)) else {
            let (scores, took) = timed(champion, columns)?;
            return Ok(Routed { scores, challenger: None, shadow: None, took: [took, Duration::ZERO] });
        };
        let Way::Split { share, groups } = way else {
            let (scores, first) = timed(champion, columns)?;
            let (shadow, second) = timed(challenger, columns)?;
            return Ok(Routed { scores, challenger: None, shadow: Some(shadow), took: [first, second] });
        };
        let arms: Vec<bool> = groups.iter().map(|group| *group < share).collect();
        let routed = arms.iter().filter(|challenger| **challenger).count();
        if routed == 0 || routed == arms.len() {
            let scorer = if routed == 0 { champion } else { challenger };
            let (scores, took) = timed(scorer, columns)?;
            let took = if routed == 0 { [took, Duration::ZERO] } else { [Duration::ZERO, took] };
            return Ok(Routed { scores, challenger: Some(arms), shadow: None, took });
        }
        let places = |arm: bool| -> UInt32Array {
            (0u32..).zip(&arms).filter(|(_, of)| **of == arm).map(|(row, _)| row).collect::<Vec<u32>>().into()
        };
        let ours = [places(false), places(true)];
        let (first, first_took) = timed(champion, &picked(columns, &ours[0])?)?;
        let (second, second_took) = timed(challenger, &picked(columns, &ours[1])?)?;
        let mut next = [0, 0];
        let order: Vec<(usize, usize)> = arms
            .iter()
            .map(|arm| {
                let arm = usize::from(*arm);
                next[arm] += 1;
                (arm, next[arm] - 1)
            })
            .collect();
        let columns = first.columns.iter().zip(&second.columns);
        let columns = columns
            .map(|(a, b)| interleave(&[a.as_ref(), b.as_ref()], &order).map_err(|error| mixed(&error)))
            .collect::<Result<_, _>>()?;
        let mut failed: Vec<(usize, String)> = Vec::new();
        for (places, scores) in ours.iter().zip([first, second]) {
            failed.extend(scores.failed.into_iter().map(|(row, why)| (places.value(row) as usize, why)));
        }
        failed.sort_by_key(|(row, _)| *row);
        let scores = Scores { columns, failed };
        Ok(Routed { scores, challenger: Some(arms), shadow: None, took: [first_took, second_took] })
    }
}

fn timed(scorer: &mut Scorer, columns: &[ArrayRef]) -> Result<(Scores, Duration), ScoreError> {
    let started = Instant::now();
    Ok((scorer.score(columns)?, started.elapsed()))
}

fn picked(columns: &[ArrayRef], places: &UInt32Array) -> Result<Vec<ArrayRef>, ScoreError> {
    columns.iter().map(|column| take(column.as_ref(), places, None).map_err(|error| mixed(&error))).collect()
}

fn mixed(error: &arrow::error::ArrowError) -> ScoreError {
    ScoreError::Columns { why: format!("columns whose rows cannot be told apart by version: {error}") }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, Float64Array};
    use arrow::datatypes::{DataType, Float32Type};
    use proptest::prelude::*;

    use super::*;
    use crate::plan::model::ModelOutput;
    use crate::score::{Bound, Model};

    fn bound(name: &str) -> Arc<Bound> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(format!("{name}.onnx"));
        let columns: Vec<(&str, DataType)> =
            ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().map(|n| (n, DataType::Float64)).collect();
        let output = ModelOutput { name: "score".into(), tensor: "probabilities".into(), element: Some(1) };
        Model::load(path).expect("loads").bind(&columns, &[output]).expect("fits")
    }

    #[test]
    fn groups_are_pinned() {
        // Who is in which share of a rollout that goes on over a restart depends on these.
        assert_eq!(salt_of("fraud/7"), PINNED.0);
        assert_eq!([group(PINNED.0, 0), group(PINNED.0, u64::MAX)], PINNED.1);
    }

    const PINNED: (u64, [u16; 2]) = (8_168_206_135_388_551_116, [3273, 9381]);

    #[test]
    fn shares_have_their_sizes() {
        let salt = salt_of("a rollout");
        let keys = 200_000u64;
        for share in [0, 1, 100, 500, 2_500, 5_000, SHARE_ALL] {
            let of_all = f64::from(share) / f64::from(SHARE_ALL);
            let inside = (0..keys).filter(|key| group(salt, hash_u64(*key)) < share).count() as f64;
            let expected = keys as f64 * of_all;
            let sd = (expected * (1.0 - of_all)).sqrt();
            assert!((inside - expected).abs() <= 4.0 * sd, "{share}: {inside} of {keys}");
        }
    }

    /// The arms of one salt say nothing of those of another: of those in 20 % of the one, 20 % are in that of the other.
    #[test]
    fn rollouts_are_assigned_independently() {
        let (share, keys) = (2_000, 200_000u64);
        let arm = |salt: &str, key: u64| group(salt_of(salt), hash_u64(key)) < share;
        let both = (0..keys).filter(|key| arm("fraud/1", *key) && arm("fraud/2", *key)).count() as f64;
        assert!((both - 8_000.0).abs() < 4.0 * (8_000.0f64 * 0.96).sqrt(), "{both} of {keys} are in both");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Sticky and nested: a key's arm depends on salt, key and share alone, and who is in a share is in every larger one.
        #[test]
        fn assignment_is_sticky_and_nested(salt in any::<u64>(), keys in prop::collection::vec(any::<u64>(), 1..200),
                                           mut shares in prop::collection::vec(0..=SHARE_ALL, 2..5)) {
            shares.sort_unstable();
            for key in &keys {
                let inside: Vec<bool> =
                    shares.iter().map(|share| group(salt, *key) < *share).collect();
                prop_assert!(inside.is_sorted(), "{inside:?} at {shares:?}");
            }
        }

        /// The naive twin scores each row alone, by the version that its bucket says; both give the same bits, whatever the cut
        /// into batches.
        #[test]
        fn routed_scores_are_those_of_their_versions(
            values in prop::collection::vec(prop::array::uniform8(prop_oneof![9 => -3.0..3.0f64, 1 => Just(f64::NAN)]), 1..60),
            keys in prop::collection::vec(any::<u64>(), 60),
            share in prop_oneof![Just(0), Just(SHARE_ALL), 0..=SHARE_ALL],
            cut in 0usize..60,
        ) {
            let (first, second) = (bound(MODELS.0), bound(MODELS.1));
            let mut pair = Pair {
                champion: first.scorer().unwrap(),
                challenger: Some(second.scorer().unwrap()),
            };
            let mut alone = [first.scorer().unwrap(), second.scorer().unwrap()];
            let columns: Vec<ArrayRef> = (0..8)
                .map(|c| Arc::new(Float64Array::from_iter_values(values.iter().map(|row| row[c]))) as ArrayRef)
                .collect();
            let groups: Vec<u16> = keys.iter().map(|key| group(salt_of("x"), *key)).collect();
            let cut = cut.min(values.len());
            for (from, length) in [(0, cut), (cut, values.len() - cut)] {
                let part: Vec<ArrayRef> = columns.iter().map(|column| column.slice(from, length)).collect();
                let groups = &groups[from..from + length];
                let split = pair.score(&part, Way::Split { share, groups }).unwrap();
                let shadow = pair.score(&part, Way::Shadow).unwrap();
                for row in 0..length {
                    let one: Vec<ArrayRef> = part.iter().map(|column| column.slice(row, 1)).collect();
                    let by: Vec<Scores> = alone.iter_mut().map(|scorer| scorer.score(&one).unwrap()).collect();
                    let arm = usize::from(groups[row] < share);
                    let bits = |scores: &Scores, row: usize| {
                        let column = scores.columns[0].as_primitive::<Float32Type>();
                        column.is_valid(row).then(|| column.value(row).to_bits())
                    };
                    let failed = |scores: &Scores, row: usize| scores.failed.iter().any(|(at, _)| *at == row);
                    prop_assert_eq!(bits(&split.scores, row), bits(&by[arm], 0));
                    prop_assert_eq!(failed(&split.scores, row), failed(&by[arm], 0));
                    let arms = split.challenger.as_ref().unwrap();
                    prop_assert_eq!(usize::from(arms[row]), arm);
                    prop_assert_eq!(bits(&shadow.scores, row), bits(&by[0], 0));
                    prop_assert_eq!(bits(shadow.shadow.as_ref().unwrap(), row), bits(&by[1], 0));
                }
            }
        }
    }

    const MODELS: (&str, &str) = ("lr_binary", "forest_binary");
}
