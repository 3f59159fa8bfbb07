//! Columns as ranks of their values, for trees whose thresholds lie between any two values.

use super::bins::{between, counted, cuts, order_key};
use super::data::{Column, Matrix};
use super::parallel::each;

/// The rank of a missing value.
pub(super) const MISSING_RANK: u32 = u32::MAX;

/// One column by ranks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ranked {
    /// Per row; of a category its code.
    pub rank: Vec<u32>,
    /// Ranks in use lie below this.
    pub ranks: usize,
    /// The least value of each rank; empty for a category.
    low: Vec<f32>,
    /// The greatest value of each rank.
    high: Vec<f32>,
}

impl Ranked {
    /// Ranks a column: each distinct value its own rank, or at most `most` ranks with near equal numbers of rows.
    pub fn of(column: &Column, most: Option<u32>) -> Ranked {
        let values = match column {
            Column::Category { codes, levels } => {
                return Ranked { rank: codes.clone(), ranks: levels.len(), low: Vec::new(), high: Vec::new() };
            }
            Column::Number(values) => values,
        };
        let present = values.iter().enumerate().filter(|(_, x)| !x.is_nan());
        let mut sorted: Vec<u64> = present.map(|(row, x)| u64::from(order_key(*x)) << 32 | row as u64).collect();
        sorted.sort_unstable();
        let keys: Vec<u32> = sorted.iter().map(|key| (key >> 32) as u32).collect();
        let distinct = counted(&keys);
        let cuts = cuts(&distinct, most.map_or(usize::MAX, |most| most as usize));
        let ends = cuts.iter().copied().chain((!distinct.is_empty()).then(|| distinct.len() - 1));
        let (mut low, mut high, mut ends_at) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for end in ends {
            low.push(distinct[first].0);
            high.push(distinct[end].0);
            ends_at.push(order_key(distinct[end].0));
            first = end + 1;
        }
        let mut rank = vec![MISSING_RANK; values.len()];
        let mut at = 0;
        for key in sorted {
            while ends_at[at] < (key >> 32) as u32 {
                at += 1;
            }
            rank[key as u32 as usize] = at as u32;
        }
        Ranked { rank, ranks: high.len(), low, high }
    }

    /// Whether it is a category.
    pub fn is_category(&self) -> bool {
        self.high.is_empty() && self.ranks > 0
    }

    /// A threshold with one rank on its left and the other, a higher one, on its right.
    pub fn threshold(&self, rank: u32, next: u32) -> f32 {
        between(self.high[rank as usize], self.low[next as usize])
    }

    /// Whether a threshold above all numbers divides them from missing values: not where one is infinite.
    pub fn is_finite(&self) -> bool {
        self.high.last().is_none_or(|high| high.is_finite())
    }
}

/// Ranks all columns.
pub(super) fn rank_all(inputs: &Matrix, most: Option<u32>, threads: usize) -> Vec<Ranked> {
    let mut all: Vec<(&Column, Ranked)> = inputs.columns.iter().map(|column| (column, Ranked::default())).collect();
    each(threads, &mut all, |(column, ranked)| *ranked = Ranked::of(column, most));
    all.into_iter().map(|(_, ranked)| ranked).collect()
}
