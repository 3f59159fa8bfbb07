//! The prequential error: the mean error of a model, each prediction judged before anything is learned from it.
//!
//! J. Gama, R. Sebastião and P. P. Rodrigues, "On evaluating stream learning algorithms", Machine Learning 90 (2013): over all
//! that was seen, and fading, where each error counts [`Prequential::FADING`] times as much as the one after it.

use super::bytes::{Damaged, Reader, put_f64, put_u64};

/// See the module's description.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prequential {
    seen: u64,
    sum: f64,
    faded_sum: f64,
    faded_weight: f64,
}

impl Prequential {
    /// What an error is worth beside the one after it: about a thousand errors count.
    pub const FADING: f64 = 0.999;

    /// Takes an error.
    pub fn update(&mut self, error: f64) {
        self.seen += 1;
        self.sum += error;
        self.faded_sum = error + Self::FADING * self.faded_sum;
        self.faded_weight = 1.0 + Self::FADING * self.faded_weight;
    }

    /// Errors seen.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The mean of all; none of nothing.
    pub fn mean(&self) -> Option<f64> {
        (self.seen > 0).then(|| self.sum / self.seen as f64)
    }

    /// The fading mean; none of nothing.
    pub fn fading(&self) -> Option<f64> {
        (self.seen > 0).then(|| self.faded_sum / self.faded_weight)
    }

    /// Appends the state for [`Prequential::load`].
    pub fn save(&self, out: &mut Vec<u8>) {
        put_u64(out, self.seen);
        for number in [self.sum, self.faded_sum, self.faded_weight] {
            put_f64(out, number);
        }
    }

    /// Reads a saved state.
    ///
    /// # Errors
    /// When the bytes are not that.
    pub fn load(bytes: &mut Reader<'_>) -> Result<Prequential, Damaged> {
        Ok(Prequential { seen: bytes.u64()?, sum: bytes.f64()?, faded_sum: bytes.f64()?, faded_weight: bytes.f64()? })
    }
}
