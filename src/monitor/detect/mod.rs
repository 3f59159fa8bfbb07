//! Change detectors over a stream of errors: ADWIN, Page-Hinkley and DDM, with the definitions and defaults of River 0.26.1.
//!
//! Each takes one number at a time, 1 for a wrong prediction and 0 for a right one, or the absolute error of a regression,
//! and says when the mean of what it sees has changed. After a change it begins anew with the next number, as River's do.
//! State: some numbers; ADWIN's grows with the logarithm of its window.

mod adwin;
mod bytes;
mod ddm;
mod page_hinkley;
mod prequential;
#[cfg(test)]
mod tests;

pub use adwin::Adwin;
pub use bytes::{Damaged, Reader};
pub use ddm::Ddm;
pub use page_hinkley::PageHinkley;
pub use prequential::Prequential;

use crate::plan::model::DetectorPlan;

/// What a detector has found at a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Whether it is a change, or else the first number of a warning zone.
    pub change: bool,
    /// The mean of what the detector keeps.
    pub mean: f64,
    /// How many numbers that is.
    pub width: u64,
}

/// A detector of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Detector {
    /// Adaptive windowing.
    Adwin(Adwin),
    /// Page-Hinkley's test.
    PageHinkley(PageHinkley),
    /// The drift detection method.
    Ddm(Ddm),
}

impl Detector {
    /// A detector that has seen nothing.
    pub fn new(plan: &DetectorPlan) -> Detector {
        match plan {
            DetectorPlan::Adwin(plan) => Detector::Adwin(Adwin::new(*plan)),
            DetectorPlan::PageHinkley(plan) => Detector::PageHinkley(PageHinkley::new(*plan)),
            DetectorPlan::Ddm(plan) => Detector::Ddm(Ddm::new(*plan)),
        }
    }

    /// Takes a number, and says what it makes of it.
    pub fn update(&mut self, x: f64) -> Option<Finding> {
        let (change, warning) = match self {
            Detector::Adwin(detector) => (detector.update(x), false),
            Detector::PageHinkley(detector) => (detector.update(x), false),
            Detector::Ddm(detector) => {
                let before = detector.warning();
                let change = detector.update(x);
                (change, detector.warning() && !before)
            }
        };
        (change || warning).then(|| Finding { change, mean: self.mean(), width: self.width() })
    }

    /// The mean of what the detector keeps; 0 of nothing.
    pub fn mean(&self) -> f64 {
        match self {
            Detector::Adwin(detector) => detector.mean(),
            Detector::PageHinkley(detector) => detector.mean(),
            Detector::Ddm(detector) => detector.mean(),
        }
    }

    /// How many numbers the detector keeps.
    pub fn width(&self) -> u64 {
        match self {
            Detector::Adwin(detector) => detector.width(),
            Detector::PageHinkley(detector) => detector.width(),
            Detector::Ddm(detector) => detector.width(),
        }
    }

    /// Appends the state, without the settings, for [`Detector::load`].
    pub fn save(&self, out: &mut Vec<u8>) {
        match self {
            Detector::Adwin(detector) => detector.save(out),
            Detector::PageHinkley(detector) => detector.save(out),
            Detector::Ddm(detector) => detector.save(out),
        }
    }

    /// Reads a state that a detector of the same settings has saved.
    ///
    /// # Errors
    /// When the bytes are not that.
    pub fn load(plan: &DetectorPlan, bytes: &mut Reader<'_>) -> Result<Detector, Damaged> {
        Ok(match plan {
            DetectorPlan::Adwin(plan) => Detector::Adwin(Adwin::load(*plan, bytes)?),
            DetectorPlan::PageHinkley(plan) => Detector::PageHinkley(PageHinkley::load(*plan, bytes)?),
            DetectorPlan::Ddm(plan) => Detector::Ddm(Ddm::load(*plan, bytes)?),
        })
    }
}

/// A running mean in River's order of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mean {
    n: u64,
    mean: f64,
}

impl Mean {
    fn update(&mut self, x: f64) {
        self.n += 1;
        self.mean += (1.0 / self.n as f64) * (x - self.mean);
    }
}
