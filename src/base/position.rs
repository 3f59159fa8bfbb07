//! Where a row came from, packed into one sortable word.

use std::fmt;

/// Source, partition and offset of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Rank of the source in the dataflow file, from 0.
    pub source: u8,
    /// Partition within the source, from 0.
    pub partition: u16,
    /// Offset within the partition, from 0, below 2^40.
    pub offset: u64,
}

/// A [`Position`] in one `u64` whose order is (source, partition, offset): the tie-break after event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ord64(pub u64);

const OFFSET_BITS: u32 = 40;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;

impl From<Position> for Ord64 {
    #[inline]
    fn from(p: Position) -> Self {
        debug_assert!(p.offset <= OFFSET_MASK);
        Ord64(u64::from(p.source) << 56 | u64::from(p.partition) << OFFSET_BITS | (p.offset & OFFSET_MASK))
    }
}

impl From<Ord64> for Position {
    #[inline]
    fn from(o: Ord64) -> Self {
        Position { source: (o.0 >> 56) as u8, partition: (o.0 >> OFFSET_BITS) as u16, offset: o.0 & OFFSET_MASK }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.source, self.partition, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_round_trips_and_keeps_order(
            a in (any::<u8>(), any::<u16>(), 0..1u64 << 40),
            b in (any::<u8>(), any::<u16>(), 0..1u64 << 40),
        ) {
            let position = |(source, partition, offset)| Position { source, partition, offset };
            let (a, b) = (position(a), position(b));
            prop_assert_eq!(Position::from(Ord64::from(a)), a);
            prop_assert_eq!(Ord64::from(a).cmp(&Ord64::from(b)), a.cmp(&b));
        }
    }
}
