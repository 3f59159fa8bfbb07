//! A monotone map from floats to integers, so that minima of any input type are minima of `i64`.

/// Maps a float that is not NaN to an integer of the same order (−0.0 must have been made 0.0 before).
#[inline(always)]
pub fn float_key(x: f64) -> i64 {
    let bits = x.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The inverse of [`float_key`].
#[inline(always)]
pub fn float_of_key(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}
