//! Fixed-point values and their running sums.

/// Floats of this magnitude and above are beyond range: 2^42.
pub const FLOAT_LIMIT: f64 = 4_398_046_511_104.0;

/// What one unit of an accumulator's integers is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Integers: one is 1.
    One,
    /// Floats: one is 2^-64.
    Fraction,
}

impl Scale {
    /// The worth of one unit of `S1`.
    #[inline(always)]
    pub(super) fn unit(self) -> f64 {
        match self {
            Scale::One => 1.0,
            Scale::Fraction => f64::from_bits((1023 - 64) << 52),
        }
    }

    /// The worth of one unit of `S2`.
    #[inline(always)]
    pub(super) fn unit_squared(self) -> f64 {
        match self {
            Scale::One => 1.0,
            Scale::Fraction => f64::from_bits((1023 - 128) << 52),
        }
    }
}

/// `x` as an integer multiple of 2^-64, half to even; `None` when it is beyond range or NaN.
#[inline(always)]
pub fn quantise(x: f64) -> Option<i128> {
    let exponent = (x.to_bits() >> 52) as u32 & 0x7ff;
    // 2^-11 to 2^42, the common case: the last digit is worth at least 2^-63.
    if exponent.wrapping_sub(1023 - 11) >= 42 + 11 {
        return quantise_any(x);
    }
    // SAFETY: it is below 2^42 in magnitude.
    let whole = unsafe { x.to_int_unchecked::<i64>() };
    // Below 1, exactly; and a whole number of 2^-63.
    let fraction = (x - whole as f64) * 9_223_372_036_854_775_808.0;
    // SAFETY: it is below 2^63 in magnitude.
    let fraction = unsafe { fraction.to_int_unchecked::<i64>() };
    Some((i128::from(whole) << 64) + (i128::from(fraction) << 1))
}

/// [`quantise`] of any float.
#[inline(never)]
fn quantise_any(x: f64) -> Option<i128> {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 & 0x7ff;
    // 1023 + 42: at least 2^42, an infinity or NaN.
    if exponent >= 1065 {
        return None;
    }
    let mantissa = (bits & ((1 << 52) - 1)) | (u64::from(exponent != 0) << 52);
    // x = mantissa · 2^(exponent − 1075), so in units of 2^-64 the mantissa moves left by exponent − 1011.
    let left = exponent - 1011;
    let magnitude = if left >= 0 {
        u128::from(mantissa) << left
    } else {
        u128::from(round_right(mantissa, (-left).min(63) as u32))
    };
    let sign = i128::from(bits as i64 >> 63);
    Some((magnitude as i128 ^ sign) - sign)
}

/// `mantissa / 2^right`, half to even; `right` is 1 to 63 and the mantissa below 2^53.
fn round_right(mantissa: u64, right: u32) -> u64 {
    let floor = mantissa >> right;
    let rest = mantissa & ((1 << right) - 1);
    let half = 1 << (right - 1);
    floor + u64::from(rest > half || (rest == half && floor & 1 == 1))
}

/// `m²` as (low, high) halves of 256 bits.
#[inline(always)]
pub fn square(m: i128) -> [u128; 2] {
    let a = m.unsigned_abs();
    let (high, low) = ((a >> 64) as u64, a as u64);
    let (bottom, cross, top) = (wide(low, low), wide(high, low), wide(high, high));
    // 2·cross at limb 1.
    let (l1, c) = ((bottom >> 64) as u64).carrying_add((cross << 1) as u64, false);
    let (l2, c) = (top as u64).carrying_add((cross >> 63) as u64, c);
    let l3 = ((top >> 64) as u64).wrapping_add((cross >> 127) as u64).wrapping_add(u64::from(c));
    halves([bottom as u64, l1, l2, l3])
}

#[inline(always)]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[inline(always)]
fn limbs(halves: [u128; 2]) -> [u64; 4] {
    [halves[0] as u64, (halves[0] >> 64) as u64, halves[1] as u64, (halves[1] >> 64) as u64]
}

#[inline(always)]
fn halves(limbs: [u64; 4]) -> [u128; 2] {
    [u128::from(limbs[0]) | u128::from(limbs[1]) << 64, u128::from(limbs[2]) | u128::from(limbs[3]) << 64]
}

/// Count, sum and sum of squares of some inputs; one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Accumulator {
    /// Sum, modulo 2^128.
    pub(super) sum: i128,
    /// Sum of squares, low and high half.
    pub(super) squares: [u128; 2],
    /// Number of inputs that are not null.
    pub(super) count: u64,
    /// Of these, how many are beyond range (and in no sum).
    pub(super) beyond: u32,
    /// How often `sum` wrapped upwards less how often downwards.
    pub(super) wraps: i32,
}

impl Accumulator {
    /// Nothing.
    pub const ZERO: Accumulator = Accumulator { sum: 0, squares: [0, 0], count: 0, beyond: 0, wraps: 0 };

    /// Number of inputs that are not null.
    #[inline(always)]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the sums stand for all inputs: none is beyond range, and the sum is within ±2^127 units.
    #[inline(always)]
    pub fn in_range(&self) -> bool {
        self.beyond == 0 && self.wraps == 0
    }

    /// Counts an input and nothing else.
    #[inline(always)]
    pub fn add_count(&mut self) {
        self.count += 1;
    }

    /// Undoes [`Self::add_count`].
    #[inline(always)]
    pub fn remove_count(&mut self) {
        self.count -= 1;
    }

    /// Adds an input beyond range.
    #[cold]
    pub fn add_beyond(&mut self) {
        self.count += 1;
        self.beyond += 1;
    }

    /// Undoes [`Self::add_beyond`].
    #[cold]
    pub fn remove_beyond(&mut self) {
        self.count -= 1;
        self.beyond -= 1;
    }

    /// Adds an input, without its square.
    #[inline(always)]
    pub fn add(&mut self, m: i128) {
        self.count += 1;
        self.add_sum(m);
    }

    /// Undoes [`Self::add`].
    #[inline(always)]
    pub fn remove(&mut self, m: i128) {
        self.count -= 1;
        self.remove_sum(m);
    }

    /// Adds an input and its square.
    #[inline(always)]
    pub fn add_with_square(&mut self, m: i128, square: [u128; 2]) {
        self.count += 1;
        self.add_sum(m);
        self.add_squares(square);
    }

    /// Undoes [`Self::add_with_square`].
    #[inline(always)]
    pub fn remove_with_square(&mut self, m: i128, square: [u128; 2]) {
        self.count -= 1;
        self.remove_sum(m);
        self.remove_squares(square);
    }

    /// Adds all that another holds.
    #[inline(always)]
    pub fn merge(&mut self, other: &Accumulator) {
        self.count += other.count;
        self.beyond = self.beyond.wrapping_add(other.beyond);
        self.wraps = self.wraps.wrapping_add(other.wraps);
        self.add_sum(other.sum);
        self.add_squares(other.squares);
    }

    /// Undoes [`Self::merge`].
    #[inline(always)]
    pub fn unmerge(&mut self, other: &Accumulator) {
        self.count -= other.count;
        self.beyond = self.beyond.wrapping_sub(other.beyond);
        self.wraps = self.wraps.wrapping_sub(other.wraps);
        self.remove_sum(other.sum);
        self.remove_squares(other.squares);
    }

    #[inline(always)]
    fn add_sum(&mut self, m: i128) {
        let (sum, wrapped) = self.sum.overflowing_add(m);
        self.sum = sum;
        if wrapped {
            self.wrap(m > 0);
        }
    }

    #[inline(always)]
    fn remove_sum(&mut self, m: i128) {
        let (sum, wrapped) = self.sum.overflowing_sub(m);
        self.sum = sum;
        if wrapped {
            self.wrap(m < 0);
        }
    }

    #[cold]
    fn wrap(&mut self, upwards: bool) {
        self.wraps = self.wraps.wrapping_add(if upwards { 1 } else { -1 });
    }

    #[inline(always)]
    fn add_squares(&mut self, square: [u128; 2]) {
        let (a, b) = (limbs(self.squares), limbs(square));
        let (l0, c) = a[0].carrying_add(b[0], false);
        let (l1, c) = a[1].carrying_add(b[1], c);
        let (l2, c) = a[2].carrying_add(b[2], c);
        let (l3, _) = a[3].carrying_add(b[3], c);
        self.squares = halves([l0, l1, l2, l3]);
    }

    #[inline(always)]
    fn remove_squares(&mut self, square: [u128; 2]) {
        let (a, b) = (limbs(self.squares), limbs(square));
        let (l0, c) = a[0].borrowing_sub(b[0], false);
        let (l1, c) = a[1].borrowing_sub(b[1], c);
        let (l2, c) = a[2].borrowing_sub(b[2], c);
        let (l3, _) = a[3].borrowing_sub(b[3], c);
        self.squares = halves([l0, l1, l2, l3]);
    }

    /// Words of a stored accumulator.
    pub const WORDS: usize = 8;

    /// As words, for compact records and snapshots.
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let [low, high] = self.squares;
        [
            self.sum as u64,
            (self.sum >> 64) as u64,
            low as u64,
            (low >> 64) as u64,
            high as u64,
            (high >> 64) as u64,
            self.count,
            u64::from(self.beyond) | u64::from(self.wraps as u32) << 32,
        ]
    }

    /// The inverse of [`Self::to_words`].
    pub fn from_words(w: [u64; Self::WORDS]) -> Self {
        let wide = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
        Accumulator {
            sum: wide(w[0], w[1]) as i128,
            squares: [wide(w[2], w[3]), wide(w[4], w[5])],
            count: w[6],
            beyond: w[7] as u32,
            wraps: (w[7] >> 32) as u32 as i32,
        }
    }
}
