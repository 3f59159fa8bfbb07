//! An entry's words as numbers.

use super::layout::{Input, Kind, Layout, Level, NULL_FLOAT, NULL_NARROW, NULL_TEXT};
use crate::features::numeric::{Accumulator, float_key, quantise, square};

/// What is known of a view's entries when the program is compiled: the common shape gets code of its own.
pub(super) trait Shape {
    /// Kind of the only input, in word 1 of an entry of two words.
    const KIND: Option<Kind>;
    /// Level of all its sums.
    const LEVEL: Option<Level>;

    /// Words of an entry.
    #[inline(always)]
    fn stride(layout: &Layout) -> usize {
        if Self::KIND.is_some() { 2 } else { layout.stride }
    }
}

/// Any view.
pub(super) struct Any;
/// One float, summed.
pub(super) struct FloatSum;
/// One float, summed with its squares.
pub(super) struct FloatSquares;

impl Shape for Any {
    const KIND: Option<Kind> = None;
    const LEVEL: Option<Level> = None;
}

impl Shape for FloatSum {
    const KIND: Option<Kind> = Some(Kind::Float);
    const LEVEL: Option<Level> = Some(Level::Sum);
}

impl Shape for FloatSquares {
    const KIND: Option<Kind> = Some(Kind::Float);
    const LEVEL: Option<Level> = Some(Level::Squares);
}

/// What an input adds to sums.
#[derive(Clone, Copy)]
pub(super) enum Term {
    Null,
    Beyond,
    Number(i128, [u128; 2]),
}

/// Whether an input of an entry is null.
#[inline(always)]
pub(super) fn is_null<S: Shape>(layout: &Layout, input: &Input, entry: &[u64]) -> bool {
    if S::KIND == Some(Kind::Float) {
        return entry[1] == NULL_FLOAT;
    }
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
pub(super) fn term<S: Shape>(layout: &Layout, input: &Input, entry: &[u64], level: Level) -> Term {
    if is_null::<S>(layout, input, entry) {
        return Term::Null;
    }
    let level = S::LEVEL.unwrap_or(level);
    let (word, kind) = match S::KIND {
        Some(kind) => (entry[1], kind),
        None => (entry[input.word], input.kind),
    };
    if level == Level::Count {
        return Term::Number(0, [0, 0]);
    }
    let m = match kind {
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
pub(super) fn add<S: Shape>(acc: &mut Accumulator, level: Level, term: Term) {
    match (term, S::LEVEL.unwrap_or(level)) {
        (Term::Null, _) => {}
        (Term::Beyond, Level::Count) | (Term::Number(..), Level::Count) => acc.add_count(),
        (Term::Beyond, _) => acc.add_beyond(),
        (Term::Number(m, _), Level::Sum) => acc.add(m),
        (Term::Number(m, square), Level::Squares) => acc.add_with_square(m, square),
    }
}

/// Undoes [`add`].
#[inline(always)]
pub(super) fn remove<S: Shape>(acc: &mut Accumulator, level: Level, term: Term) {
    match (term, S::LEVEL.unwrap_or(level)) {
        (Term::Null, _) => {}
        (Term::Beyond, Level::Count) | (Term::Number(..), Level::Count) => acc.remove_count(),
        (Term::Beyond, _) => acc.remove_beyond(),
        (Term::Number(m, _), Level::Sum) => acc.remove(m),
        (Term::Number(m, square), Level::Squares) => acc.remove_with_square(m, square),
    }
}

/// An input of an entry as an integer of the same order; `None` for null.
#[inline(always)]
pub(super) fn sort_key<S: Shape>(layout: &Layout, input: &Input, entry: &[u64]) -> Option<i64> {
    if is_null::<S>(layout, input, entry) {
        return None;
    }
    let (word, kind) = match S::KIND {
        Some(kind) => (entry[1], kind),
        None => (entry[input.word], input.kind),
    };
    Some(match kind {
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
    if is_null::<Any>(layout, input, entry) { (0, 1) } else { (entry[input.word], 2) }
}
