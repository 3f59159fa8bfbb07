//! Numeric inputs as one matrix of doubles, row by row, and sums over its rows that are the same on any number of threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::data::{Column, Matrix};
use super::error::TrainError;
use super::learner::data;

/// Rows at least that are summed by themselves.
const PART_ROWS: usize = 2048;

/// Parts at most: each holds a sum of its own.
const PARTS: usize = 64;

/// Inputs of a linear model.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    values: Vec<f64>,
    rows: usize,
    columns: usize,
}

impl Dense {
    /// Copies the columns, all of which are numbers without gaps.
    ///
    /// # Errors
    /// A column of categories; a value that is missing or not finite; columns of unequal length.
    pub(super) fn of(inputs: &Matrix) -> Result<Dense, TrainError> {
        let (rows, columns) = (inputs.rows(), inputs.columns.len());
        let mut values = vec![0.0; rows * columns];
        for (at, (name, column)) in inputs.names.iter().zip(&inputs.columns).enumerate() {
            let Column::Number(numbers) = column else {
                return Err(data(format!(
                    "input {name} holds categories, and a linear model takes numbers; prepare it with one_hot or ordinal"
                )));
            };
            if numbers.len() != rows {
                return Err(data(format!("input {name} has {} rows where there are {rows}", numbers.len())));
            }
            if let Some(row) = numbers.iter().position(|v| !v.is_finite()) {
                return Err(data(format!(
                    "input {name} is {} in row {row}, and a linear model takes finite numbers only; prepare it with impute",
                    numbers[row]
                )));
            }
            for (row, value) in numbers.iter().enumerate() {
                values[row * columns + at] = f64::from(*value);
            }
        }
        Ok(Dense { values, rows, columns })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

/// The sum of `len` numbers over all rows. `add` adds the rows of a range to a sum.
///
/// Rows are cut into parts by their number alone and the parts' sums are added in order, so that threads change nothing but the time.
pub(super) fn sum_rows(
    rows: usize,
    threads: usize,
    len: usize,
    add: impl Fn(Range<usize>, &mut [f64]) + Sync,
) -> Vec<f64> {
    let part_rows = rows.div_ceil(PARTS).max(PART_ROWS);
    let parts = rows.div_ceil(part_rows);
    let part = |p: usize| {
        let mut sum = vec![0.0; len];
        add(p * part_rows..((p + 1) * part_rows).min(rows), &mut sum);
        sum
    };
    let mut sums: Vec<(usize, Vec<f64>)> = if threads.min(parts) <= 1 {
        (0..parts).map(|p| (p, part(p))).collect()
    } else {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let work = || {
                let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&p| p < parts);
                std::iter::from_fn(take).map(|p| (p, part(p))).collect::<Vec<_>>()
            };
            let others: Vec<_> = (1..threads.min(parts)).map(|_| scope.spawn(work)).collect();
            let mut all = work();
            for other in others {
                // A thread dies of a defect only; it is this thread's too then.
                all.extend(other.join().unwrap_or_else(|defect| std::panic::resume_unwind(defect)));
            }
            all
        })
    };
    sums.sort_unstable_by_key(|(p, _)| *p);
    let mut total = vec![0.0; len];
    for (_, sum) in sums {
        total.iter_mut().zip(sum).for_each(|(t, s)| *t += s);
    }
    total
}
