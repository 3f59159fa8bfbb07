//! An entry's words as numbers.

use super::layout::{Input, Kind, Layout, Level, NULL_FLOAT, NULL_NARROW, NULL_TEXT};
use crate::features::numeric::{Accumulator, float_key, quantise, square};

/// What an input adds to sums.
#[derive(Clone, Copy)]
pub(super) enum Term {
    Null,
    Beyond,
    Number(i128, [u128; 2]),
}

/// Whether an input of an entry is null.
#[inline(always)]
pub(super) fn is_null(layout: &Layout, input: &Input, entry: &[u64]) -> bool {
    let word = entry[input.word];
    match input.kind {
        Kind::Float => word == NULL_FLOAT,
        Kind::Narrow => word == NULL_NARROW,
        Kind::Bytes => word == NULL_TEXT,
        Kind::Wide | Kind::Unsigned => layout.mask.is_some_and(|mask| entry[mask] & input.mask != 0),
    }
}

/// What an input of an entry adds to sums, up to `level`.
#[inline(always)]
pub(super) fn term(layout: &Layout, input: &Input, entry: &[u64], level: Level) -> Term {
    if is_null(layout, input, entry) {
        return Term::Null;
    }
    let word = entry[input.word];
    if level == Level::Count {
        return Term::Number(0, [0, 0]);
    }
    let m = match input.kind {
        Kind::Float => match quantise(f64::from_bits(word)) {
            Some(m) => m,
            None => return Term::Beyond,
        },
        Kind::Unsigned => i128::from(word),
        _ => i128::from(word as i64),
    };
    Term::Number(m, if level == Level::Squares { square(m) } else { [0, 0] })
}

/// Adds a term to an accumulator of some level.
#[inline(always)]
pub(super) fn add(acc: &mut Accumulator, level: Level, term: Term) {
    match (term, level) {
        (Term::Null, _) => {}
        (Term::Beyond, Level::Count) | (Term::Number(..), Level::Count) => acc.add_count(),
        (Term::Beyond, _) => acc.add_beyond(),
        (Term::Number(m, _), Level::Sum) => acc.add(m),
        (Term::Number(m, square), Level::Squares) => acc.add_with_square(m, square),
    }
}

/// Undoes [`add`].
#[inline(always)]
pub(super) fn remove(acc: &mut Accumulator, level: Level, term: Term) {
    match (term, level) {
        (Term::Null, _) => {}
        (Term::Beyond, Level::Count) | (Term::Number(..), Level::Count) => acc.remove_count(),
        (Term::Beyond, _) => acc.remove_beyond(),
        (Term::Number(m, _), Level::Sum) => acc.remove(m),
        (Term::Number(m, square), Level::Squares) => acc.remove_with_square(m, square),
    }
}

/// An input of an entry as an integer of the same order; `None` for null.
#[inline(always)]
pub(super) fn sort_key(layout: &Layout, input: &Input, entry: &[u64]) -> Option<i64> {
    if is_null(layout, input, entry) {
        return None;
    }
    let word = entry[input.word];
    Some(match input.kind {
        Kind::Float => float_key(f64::from_bits(word)),
        Kind::Unsigned => (word ^ 1 << 63) as i64,
        _ => word as i64,
    })
}

/// No smallest and no largest value.
pub(super) const NO_EXTREMA: (i64, i64) = (i64::MAX, i64::MIN);

/// Widens extrema by a value.
#[inline(always)]
pub(super) fn widen(extrema: &mut (i64, i64), key: i64) {
    extrema.0 = extrema.0.min(key);
    extrema.1 = extrema.1.max(key);
}

/// One row of raw results, filled in by a record.
pub(super) struct Raw<'a> {
    /// Rows per window.
    pub(super) rows: &'a mut [u64],
    /// Sums per pair.
    pub(super) sums: &'a mut [Accumulator],
    /// Smallest and largest sort key per extrema; only meaningful when the pair's count is not zero.
    pub(super) extrema: &'a mut [(i64, i64)],
    /// Last word per last value, and 0 absent, 1 null, 2 there.
    pub(super) lasts: &'a mut [(u64, u8)],
}

impl Raw<'_> {
    /// What a key without rows has.
    pub(super) fn clear(&mut self) {
        self.rows.fill(0);
        self.sums.fill(Accumulator::ZERO);
        self.extrema.fill(NO_EXTREMA);
        self.lasts.fill((0, 0));
    }
}

/// A last value as found in an entry.
#[inline(always)]
pub(super) fn last_of(layout: &Layout, input: &Input, entry: &[u64]) -> (u64, u8) {
    if is_null(layout, input, entry) { (0, 1) } else { (entry[input.word], 2) }
}
