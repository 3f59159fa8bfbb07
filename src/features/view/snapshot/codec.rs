//! The bytes of a snapshot: numbers of variable length, times and positions as differences, amounts of money in cents.
//!
//! A *number* takes one byte per seven bits; the zeros at the low end of its first byte say how many bytes follow, and a
//! first byte of zero is followed by eight bytes as they are. A *signed* one is folded so that small ones of either sign
//! are short. A *float* is a number: an even one is a folded count of hundredths, 1 is followed by the float's own eight
//! bytes, 3 is null.
//!
//! The bytes of a slot are a version, the flags, the view's fingerprint, the origin of times, then items to the end but
//! for four bytes of checksum.

use super::super::ViewError;
use super::super::layout::NULL_FLOAT;
use crate::base::hash_bytes;
use crate::features::numeric::Accumulator;

/// Version of the format.
const VERSION: u8 = 2;
/// Flag of a slot: the online store's refresh was on.
const REFRESHED: u8 = 1;
const CHECKSUM: usize = 4;
const RAW: u64 = 1;
const NULL: u64 = 3;
/// Beyond this many hundredths a float is written as it is.
const HUNDREDTHS_MAX: f64 = (1u64 << 46) as f64;
/// Adding and taking this away rounds a float below 2^51 to an integer.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

pub(super) fn bad(what: &str) -> ViewError {
    ViewError::Snapshot { what: what.to_owned() }
}

#[inline(always)]
fn fold(n: i64) -> u64 {
    (n << 1 ^ n >> 63) as u64
}

#[inline(always)]
fn unfold(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Bytes under construction.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    /// What times are told from.
    pub(super) origin: i64,
}

impl Writer {
    /// Begins a slot.
    pub(super) fn begin(&mut self, fingerprint: u64, refreshed: bool, origin: i64) {
        self.bytes.extend_from_slice(&[VERSION, if refreshed { REFRESHED } else { 0 }]);
        self.bytes.extend_from_slice(&fingerprint.to_le_bytes());
        self.origin = origin;
        self.signed(origin);
    }

    /// Ends a slot and gives its bytes away.
    pub(super) fn seal(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        seal(&mut bytes);
        bytes
    }

    #[inline(always)]
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    #[inline(always)]
    pub(super) fn number(&mut self, n: u64) {
        let bits = 64 - (n | 1).leading_zeros();
        if bits > 56 {
            self.bytes.push(0);
            self.bytes.extend_from_slice(&n.to_le_bytes());
            return;
        }
        let length = bits.div_ceil(7);
        let word = (n << 1 | 1) << (length - 1);
        // Eight bytes at once are cheaper than just those that count.
        let end = self.bytes.len() + length as usize;
        self.bytes.extend_from_slice(&word.to_le_bytes());
        self.bytes.truncate(end);
    }

    #[inline(always)]
    pub(super) fn signed(&mut self, n: i64) {
        self.number(fold(n));
    }

    /// A number whose null is the least of all, which is short for that.
    #[inline(always)]
    pub(super) fn narrow(&mut self, n: i64) {
        self.number(fold(n).wrapping_add(1));
    }

    #[inline(always)]
    pub(super) fn time(&mut self, time: i64) {
        self.signed(time.wrapping_sub(self.origin));
    }

    #[inline(always)]
    pub(super) fn float(&mut self, word: u64) {
        let scaled = f64::from_bits(word) * 100.0;
        let hundredths = (scaled + ROUNDER) - ROUNDER;
        if hundredths.abs() < HUNDREDTHS_MAX && (hundredths / 100.0).to_bits() == word {
            return self.number(fold(hundredths as i64) << 1);
        }
        if word == NULL_FLOAT {
            return self.number(NULL);
        }
        self.number(RAW);
        self.bytes.extend_from_slice(&word.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text);
    }

    pub(super) fn optional_text(&mut self, text: Option<&[u8]>) {
        match text {
            None => self.number(0),
            Some(text) => {
                self.number(text.len() as u64 + 1);
                self.bytes.extend_from_slice(text);
            }
        }
    }

    pub(super) fn pair(&mut self, pair: (i64, i64)) {
        self.signed(pair.0);
        self.signed(pair.1);
    }

    pub(super) fn sums(&mut self, sums: &Accumulator) {
        // Halves of wide integers: those of small negative ones are ones throughout.
        sums.to_words().into_iter().for_each(|word| self.signed(word as i64));
    }
}

/// Appends the checksum.
pub(super) fn seal(bytes: &mut Vec<u8>) {
    let sum = hash_bytes(bytes) as u32;
    bytes.extend_from_slice(&sum.to_le_bytes());
}

/// Bytes being read.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    origin: i64,
    /// Whether the online store's refresh was on.
    pub(super) refreshed: bool,
}

impl<'a> Reader<'a> {
    /// Opens a slot of a view with this fingerprint.
    pub(super) fn open(bytes: &'a [u8], fingerprint: u64) -> Result<Self, ViewError> {
        let Some((content, sum)) = bytes.split_last_chunk::<CHECKSUM>() else {
            return Err(bad("it ends too early"));
        };
        if hash_bytes(content) as u32 != u32::from_le_bytes(*sum) {
            return Err(bad("its bytes are damaged or cut short: they do not match their checksum"));
        }
        let mut reader = Reader { bytes: content, origin: 0, refreshed: false };
        if reader.byte()? != VERSION {
            return Err(bad("it is of another version"));
        }
        reader.refreshed = reader.byte()? & REFRESHED != 0;
        if reader.raw()? != fingerprint {
            return Err(bad("its view had other inputs or windows"));
        }
        reader.origin = reader.signed()?;
        Ok(reader)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    #[inline(always)]
    fn take(&mut self, count: usize) -> Result<&'a [u8], ViewError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| bad("it ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8, ViewError> {
        Ok(self.take(1)?[0])
    }

    #[inline(always)]
    fn raw(&mut self) -> Result<u64, ViewError> {
        let mut word = [0; 8];
        word.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(word))
    }

    #[inline(always)]
    pub(super) fn number(&mut self) -> Result<u64, ViewError> {
        let Some(first) = self.bytes.first() else {
            return Err(bad("it ends too early"));
        };
        if *first == 0 {
            self.bytes = &self.bytes[1..];
            return self.raw();
        }
        let length = first.trailing_zeros() + 1;
        let word = match self.bytes.first_chunk::<8>() {
            Some(chunk) => {
                self.bytes = &self.bytes[length as usize..];
                u64::from_le_bytes(*chunk)
            }
            None => {
                let mut word = [0; 8];
                word[..length as usize].copy_from_slice(self.take(length as usize)?);
                u64::from_le_bytes(word)
            }
        };
        Ok(word << (64 - 8 * length) >> (64 - 7 * length))
    }

    #[inline(always)]
    pub(super) fn signed(&mut self) -> Result<i64, ViewError> {
        self.number().map(unfold)
    }

    #[inline(always)]
    pub(super) fn narrow(&mut self) -> Result<i64, ViewError> {
        self.number().map(|n| unfold(n.wrapping_sub(1)))
    }

    /// A number below a limit.
    pub(super) fn below(&mut self, limit: u64) -> Result<u64, ViewError> {
        let number = self.number()?;
        if number < limit { Ok(number) } else { Err(bad("a count is larger than can be")) }
    }

    #[inline(always)]
    pub(super) fn time(&mut self) -> Result<i64, ViewError> {
        Ok(self.signed()?.wrapping_add(self.origin))
    }

    /// What times are told from.
    pub(super) fn origin(&self) -> i64 {
        self.origin
    }

    #[inline(always)]
    pub(super) fn float(&mut self) -> Result<u64, ViewError> {
        match self.number()? {
            RAW => self.raw(),
            NULL => Ok(NULL_FLOAT),
            n if n & 1 == 0 => Ok((unfold(n >> 1) as f64 / 100.0).to_bits()),
            _ => Err(bad("there is no such form of a float")),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], ViewError> {
        let length = self.count(1)?;
        self.take(length)
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<&'a [u8]>, ViewError> {
        match self.number()? {
            0 => Ok(None),
            length => self.take(usize::try_from(length - 1).map_err(|_| bad("a length is too large"))?).map(Some),
        }
    }

    /// A count of things of at least `size` bytes each.
    pub(super) fn count(&mut self, size: usize) -> Result<usize, ViewError> {
        let count = self.number()?;
        if count > (self.bytes.len() / size) as u64 {
            return Err(bad("a count is larger than what follows"));
        }
        Ok(count as usize)
    }

    pub(super) fn pair(&mut self) -> Result<(i64, i64), ViewError> {
        Ok((self.signed()?, self.signed()?))
    }

    pub(super) fn sums(&mut self) -> Result<Accumulator, ViewError> {
        let mut words = [0; Accumulator::WORDS];
        for word in &mut words {
            *word = self.signed()? as u64;
        }
        Ok(Accumulator::from_words(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Item {
        Number(u64),
        Signed(i64),
        Time(i64),
        Float(u64),
        Text(Vec<u8>),
        Narrow(i64),
        Optional(Option<Vec<u8>>),
    }

    fn write(writer: &mut Writer, item: &Item) {
        match item {
            Item::Number(n) => writer.number(*n),
            Item::Signed(n) => writer.signed(*n),
            Item::Time(n) => writer.time(*n),
            Item::Float(word) => writer.float(*word),
            Item::Text(text) => writer.text(text),
            Item::Narrow(n) => writer.narrow(*n),
            Item::Optional(text) => writer.optional_text(text.as_deref()),
        }
    }

    fn read(reader: &mut Reader<'_>, like: &Item) -> Result<Item, ViewError> {
        Ok(match like {
            Item::Number(_) => Item::Number(reader.number()?),
            Item::Signed(_) => Item::Signed(reader.signed()?),
            Item::Time(_) => Item::Time(reader.time()?),
            Item::Float(_) => Item::Float(reader.float()?),
            Item::Text(_) => Item::Text(reader.text()?.to_vec()),
            Item::Narrow(_) => Item::Narrow(reader.narrow()?),
            Item::Optional(_) => Item::Optional(reader.optional_text()?.map(<[u8]>::to_vec)),
        })
    }

    fn item() -> impl Strategy<Value = Item> {
        let wide = || (any::<u64>(), 0u32..64).prop_map(|(n, shift)| n >> shift);
        prop_oneof![
            wide().prop_map(Item::Number),
            wide().prop_map(|n| Item::Signed(n as i64)),
            wide().prop_map(|n| Item::Signed((n as i64).wrapping_neg())),
            any::<i64>().prop_map(Item::Time),
            any::<f64>().prop_map(|x| Item::Float(x.to_bits())),
            any::<u64>().prop_map(Item::Float),
            (-1_000_000i64..1_000_000).prop_map(|n| Item::Float((n as f64 / 100.0).to_bits())),
            Just(Item::Float(NULL_FLOAT)),
            Just(Item::Float((-0.0f64).to_bits())),
            any::<i64>().prop_map(Item::Narrow),
            Just(Item::Narrow(i64::MIN)),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Item::Text),
            prop::option::of(prop::collection::vec(any::<u8>(), 0..9)).prop_map(Item::Optional),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            items in prop::collection::vec(item(), 0..40),
            origin in any::<i64>(),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let mut writer = Writer::default();
            writer.begin(7, true, origin);
            items.iter().for_each(|item| write(&mut writer, item));
            let bytes = writer.seal();
            let mut reader = Reader::open(&bytes, 7).unwrap();
            for item in &items {
                prop_assert_eq!(&read(&mut reader, item).unwrap(), item);
            }
            prop_assert!(reader.is_empty() && reader.refreshed);
            prop_assert!(Reader::open(&bytes, 8).is_err());
            // No damage is overlooked.
            let at = at.index(bytes.len());
            prop_assert!(Reader::open(&bytes[..at], 7).is_err());
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            prop_assert!(Reader::open(&damaged, 7).is_err());
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let mut writer = Writer::default();
        writer.begin(0x0807_0605_0403_0201, true, 1_000);
        writer.number(0);
        writer.number(127);
        writer.number(128);
        writer.number(u64::MAX);
        writer.signed(-2);
        writer.time(1_003);
        writer.float(12.34f64.to_bits());
        writer.float(0.125f64.to_bits());
        writer.float(NULL_FLOAT);
        writer.text(b"ab");
        let expected: &[u8] = &[
            2, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x42, 0x1f, // version, flags, fingerprint, 2,000
            1, 0xff, 0x02, 0x02, 0, 255, 255, 255, 255, 255, 255, 255, 255, // 0, 127, 128, all ones
            7, 13, // -2 and three after the origin
            0x22, 0x4d, // 4 · 1,234
            3, 0, 0, 0, 0, 0, 0, 0xc0, 0x3f, 7, 5, b'a', b'b',
        ];
        assert_eq!(writer.bytes, expected);
        assert_eq!(writer.seal().len(), expected.len() + CHECKSUM);
    }
}
