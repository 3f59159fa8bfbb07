//! Order of the rows in a part: by event date, then entity, then event time, then arrival.
//!
//! One integer key column and event times (nearly) in order, the usual case, take a stable least-significant-digit radix
//! sort over the digits that differ at all; everything else compares Arrow's row encoding.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use crate::base::DAY;

/// Date of an event time, in days since 1970-01-01.
pub(super) fn date_of(time: i64) -> i32 {
    // Microseconds in i64 span 292,000 years, which fits i32 days.
    time.div_euclid(DAY) as i32
}

/// Rows in order, and where each date's rows lie.
#[derive(Debug, PartialEq)]
pub(super) struct Order {
    /// Input row numbers in output order.
    pub rows: Vec<u32>,
    /// Dates in order, each with its range of `rows`.
    pub dates: Vec<(i32, Range<usize>)>,
}

/// Orders rows by (date, `keys`, time, row number). `times` has one entry per row, at most `u32::MAX` of them; nulls in
/// keys come first.
pub(super) fn order(times: &[i64], keys: &[ArrayRef]) -> Result<Order, ArrowError> {
    let rows = match keys {
        [] => by_time(times),
        [key] if is_plain_integer(key) => {
            let key = cast(key, &DataType::Int64)?;
            let key = key.as_primitive::<Int64Type>().values();
            let mut pairs: Vec<(u64, u32)> =
                by_time(times).into_iter().map(|row| (key[row as usize] as u64 ^ 1 << 63, row)).collect();
            radix_sort(&mut pairs);
            pairs.into_iter().map(|(_, row)| row).collect()
        }
        keys => by_row_encoding(times, keys)?,
    };
    Ok(split_by_date(times, rows))
}

/// Integers up to 64 bits that fit `i64`, without nulls.
fn is_plain_integer(key: &ArrayRef) -> bool {
    key.null_count() == 0 && key.data_type().is_integer() && *key.data_type() != DataType::UInt64
}

/// Row numbers by (time, row number).
fn by_time(times: &[i64]) -> Vec<u32> {
    if times.is_sorted() {
        return (0..times.len() as u32).collect();
    }
    let least = times.iter().copied().min().unwrap_or(0);
    let mut pairs: Vec<(u64, u32)> =
        times.iter().zip(0u32..).map(|(t, row)| (t.wrapping_sub(least) as u64, row)).collect();
    radix_sort(&mut pairs);
    pairs.into_iter().map(|(_, row)| row).collect()
}

fn by_row_encoding(times: &[i64], keys: &[ArrayRef]) -> Result<Vec<u32>, ArrowError> {
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(keys)?;
    let mut rows: Vec<u32> = (0..times.len() as u32).collect();
    rows.sort_unstable_by(|&a, &b| {
        let (a, b) = (a as usize, b as usize);
        encoded.row(a).cmp(&encoded.row(b)).then(times[a].cmp(&times[b])).then(a.cmp(&b))
    });
    Ok(rows)
}

const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;

/// Stable sort by the first member; digits that are equal in all rows cost one look.
fn radix_sort(pairs: &mut Vec<(u64, u32)>) {
    let (mut all, mut any) = (u64::MAX, 0u64);
    for (key, _) in pairs.iter() {
        all &= key;
        any |= key;
    }
    let differing = all ^ any;
    let mut from = std::mem::take(pairs);
    let mut to = vec![(0u64, 0u32); from.len()];
    for shift in (0..u64::BITS).step_by(DIGIT_BITS as usize) {
        if differing >> shift & (DIGITS as u64 - 1) == 0 {
            continue;
        }
        let digit = |key: u64| (key >> shift) as usize & (DIGITS - 1);
        let mut next = [0usize; DIGITS];
        for (key, _) in &from {
            next[digit(*key)] += 1;
        }
        let mut sum = 0;
        for slot in &mut next {
            sum += std::mem::replace(slot, sum);
        }
        for pair in &from {
            let slot = &mut next[digit(pair.0)];
            to[*slot] = *pair;
            *slot += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    *pairs = from;
}

/// Moves the rows of each date together, keeping their order.
fn split_by_date(times: &[i64], rows: Vec<u32>) -> Order {
    let Some((first, last)) = times.iter().fold(None, |span: Option<(i64, i64)>, &t| match span {
        None => Some((t, t)),
        Some((least, most)) => Some((least.min(t), most.max(t))),
    }) else {
        return Order { rows, dates: Vec::new() };
    };
    if date_of(first) == date_of(last) {
        let all = 0..rows.len();
        return Order { rows, dates: vec![(date_of(first), all)] };
    }
    let base = date_of(first);
    let mut dated: Vec<(u64, u32)> =
        rows.into_iter().map(|row| (i64::from(date_of(times[row as usize]) - base) as u64, row)).collect();
    radix_sort(&mut dated);
    let mut dates: Vec<(i32, Range<usize>)> = Vec::new();
    for (position, (date, _)) in dated.iter().enumerate() {
        let date = base + *date as i32;
        match dates.last_mut() {
            Some((current, range)) if *current == date => range.end = position + 1,
            _ => dates.push((date, position..position + 1)),
        }
    }
    Order { rows: dated.into_iter().map(|(_, row)| row).collect(), dates }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    /// The naive twin: sort tuples.
    fn naive(times: &[i64], keys: &[Option<i64>]) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..times.len() as u32).collect();
        rows.sort_by_key(|&row| {
            let row = row as usize;
            (times[row].div_euclid(DAY), keys[row], times[row], row)
        });
        rows
    }

    proptest! {
        #[test]
        fn equals_a_sort_of_tuples(
            rows in prop::collection::vec((prop_oneof![-3 * DAY..3 * DAY, 0..5i64, Just(i64::MAX), Just(i64::MIN)],
                prop_oneof![0..4i64, any::<i64>()]), 0..200),
            in_order in any::<bool>(),
            nulls in any::<bool>(),
        ) {
            let mut rows = rows;
            if in_order {
                rows.sort_by_key(|(time, _)| *time);
            }
            let times: Vec<i64> = rows.iter().map(|(t, _)| *t).collect();
            let keys: Vec<Option<i64>> = rows.iter().map(|(_, k)| (!nulls || k % 3 != 0).then_some(*k)).collect();
            let column: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
            let Ok(found) = order(&times, &[column]) else { panic!("integers sort") };
            let expected = naive(&times, &keys);
            prop_assert_eq!(&found.rows, &expected);
            let mut covered = 0;
            for (date, range) in &found.dates {
                prop_assert_eq!(range.start, covered);
                covered = range.end;
                for row in &found.rows[range.clone()] {
                    prop_assert_eq!(date_of(times[*row as usize]), *date);
                }
            }
            prop_assert_eq!(covered, times.len());
        }
    }

    #[test]
    fn composite_and_text_keys() {
        let name: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), Some("a"), None, Some("a")]));
        let number: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 1]));
        assert_eq!(order(&[4, 3, 2, 1], &[name.clone(), number]).unwrap().rows, [2, 3, 1, 0]);
        assert_eq!(order(&[4, 3, 2, 1], &[name]).unwrap().rows, [2, 3, 1, 0]);
        assert_eq!(order(&[4, 3, 2, 3], &[]).unwrap().rows, [2, 1, 3, 0]);
    }
}
