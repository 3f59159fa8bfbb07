//! Avro's binary encoding, read from bytes that nobody vouches for.

/// Why bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// They end too early.
    Short,
    /// A number has more than 64 bits.
    Long,
    /// A length is negative.
    Negative,
}

/// What is left of a payload.
pub(super) struct Input<'a> {
    pub rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// A number of variable length, zigzag.
    #[inline(always)]
    pub(super) fn long(&mut self) -> Result<i64, Cut> {
        if let Some((first, rest)) = self.rest.split_first()
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(zigzag(u64::from(*first)));
        }
        const ENDS: u64 = 0x8080_8080_8080_8080;
        if let Some(eight) = self.rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let ends = !word & ENDS;
            if ends != 0 {
                // The bits up to the end of the first byte that is the last, then seven from each byte drawn together.
                let bits = word & (ends ^ (ends - 1)) & !ENDS;
                let bits = (bits & 0x007f_007f_007f_007f) | ((bits & 0x7f00_7f00_7f00_7f00) >> 1);
                let bits = (bits & 0x0000_3fff_0000_3fff) | ((bits & 0x3fff_0000_3fff_0000) >> 2);
                let bits = (bits & 0x0000_0000_0fff_ffff) | ((bits & 0x0fff_ffff_0000_0000) >> 4);
                self.rest = &self.rest[ends.trailing_zeros() as usize / 8 + 1..];
                return Ok(zigzag(bits));
            }
        }
        self.long_slow()
    }

    #[cold]
    fn long_slow(&mut self) -> Result<i64, Cut> {
        let mut bits = 0u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            if i == 9 && *byte > 1 {
                return Err(Cut::Long);
            }
            bits |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(zigzag(bits));
            }
        }
        Err(if self.rest.len() < 10 { Cut::Short } else { Cut::Long })
    }

    /// As many bytes as the number before them says.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Cut> {
        let len = self.long()?;
        if len < 0 {
            return Err(Cut::Negative);
        }
        self.fixed(usize::try_from(len).unwrap_or(usize::MAX))
    }

    #[inline(always)]
    pub(super) fn fixed(&mut self, len: usize) -> Result<&'a [u8], Cut> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Cut::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline(always)]
    pub(super) fn double(&mut self) -> Result<f64, Cut> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Cut::Short)?;
        self.rest = rest;
        Ok(f64::from_le_bytes(*bytes))
    }

    #[inline(always)]
    pub(super) fn float(&mut self) -> Result<f32, Cut> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Cut::Short)?;
        self.rest = rest;
        Ok(f32::from_le_bytes(*bytes))
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8, Cut> {
        let (byte, rest) = self.rest.split_first().ok_or(Cut::Short)?;
        self.rest = rest;
        Ok(*byte)
    }
}

#[inline(always)]
fn zigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A number as the specification writes it.
    fn written(value: i64) -> Vec<u8> {
        let mut bits = ((value << 1) ^ (value >> 63)) as u64;
        let mut bytes = Vec::new();
        while bits >= 0x80 {
            bytes.push(bits as u8 | 0x80);
            bits >>= 7;
        }
        bytes.push(bits as u8);
        bytes
    }

    #[test]
    fn numbers_of_the_specification() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x01], -1),
            (&[0x02], 1),
            (&[0x7f], -64),
            (&[0x80, 0x01], 64),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MIN),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MAX),
        ] {
            assert_eq!(Input { rest: bytes }.long(), Ok(value));
        }
        assert_eq!(Input { rest: &[0x80; 9] }.long(), Err(Cut::Short));
        assert_eq!(Input { rest: &[0x80; 11] }.long(), Err(Cut::Long));
        let beyond = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Input { rest: &beyond }.long(), Err(Cut::Long));
        assert_eq!(Input { rest: &[0x01, 0x00] }.bytes(), Err(Cut::Negative));
        assert_eq!(Input { rest: &written(i64::MAX) }.bytes(), Err(Cut::Short));
        assert_eq!(Input { rest: &[0x04, b'a'] }.bytes(), Err(Cut::Short));
    }

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<i64>(), shift in 0u32..64, after in prop::collection::vec(any::<u8>(), 0..12)) {
            let value = value >> shift;
            let bytes = [written(value), after.clone()].concat();
            let mut input = Input { rest: &bytes };
            prop_assert_eq!(input.long(), Ok(value));
            prop_assert_eq!(input.rest, &after[..]);
            let whole = written(value);
            for cut in 0..whole.len() {
                prop_assert_eq!(Input { rest: &whole[..cut] }.long(), Err(Cut::Short));
            }
        }
    }
}
