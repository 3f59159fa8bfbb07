//! Page-Hinkley's test: how far the sum of deviations from the running mean has come from its extreme.
//!
//! E. S. Page, "Continuous Inspection Schemes", Biometrika 41 (1954), two-sided and with the fading of River 0.26.1:
//! `S⁺ ← α S⁺ + (x − mean) − δ` is held against its minimum, `S⁻ ← α S⁻ + (x − mean) + δ` against its maximum.

use super::Mean;
use super::bytes::{Damaged, Reader, put_f64, put_u64};
use crate::plan::model::{Direction, PageHinkleyPlan};

/// See the module's description.
#[derive(Clone, Debug, PartialEq)]
pub struct PageHinkley {
    plan: PageHinkleyPlan,
    mean: Mean,
    up: f64,
    up_min: f64,
    down: f64,
    down_max: f64,
    changed: bool,
}

impl PageHinkley {
    /// A test that has seen nothing.
    pub fn new(plan: PageHinkleyPlan) -> PageHinkley {
        // River's maximum begins at −1, not at −∞.
        let mean = Mean::default();
        PageHinkley { plan, mean, up: 0.0, up_min: f64::INFINITY, down: 0.0, down_max: -1.0, changed: false }
    }

    /// Takes a number, and says whether the mean has changed.
    pub fn update(&mut self, x: f64) -> bool {
        if self.changed {
            *self = PageHinkley::new(self.plan);
        }
        let PageHinkleyPlan { min_instances, delta, threshold, alpha, direction } = self.plan;
        self.mean.update(x);
        let off = x - self.mean.mean;
        self.up = alpha * self.up + off - delta;
        self.down = alpha * self.down + off + delta;
        self.up_min = self.up_min.min(self.up);
        self.down_max = self.down_max.max(self.down);
        if self.mean.n >= min_instances {
            let (risen, fallen) = (self.up - self.up_min > threshold, self.down_max - self.down > threshold);
            self.changed = match direction {
                Direction::Up => risen,
                Direction::Down => fallen,
                Direction::Both => risen || fallen,
            };
        }
        self.changed
    }

    /// Numbers since the test began.
    pub fn width(&self) -> u64 {
        self.mean.n
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.mean.mean
    }

    pub(super) fn save(&self, out: &mut Vec<u8>) {
        put_u64(out, self.mean.n);
        for number in [self.mean.mean, self.up, self.up_min, self.down, self.down_max] {
            put_f64(out, number);
        }
        out.push(u8::from(self.changed));
    }

    pub(super) fn load(plan: PageHinkleyPlan, bytes: &mut Reader<'_>) -> Result<PageHinkley, Damaged> {
        let mean = Mean { n: bytes.u64()?, mean: bytes.f64()? };
        let (up, up_min, down, down_max) = (bytes.f64()?, bytes.f64()?, bytes.f64()?, bytes.f64()?);
        Ok(PageHinkley { plan, mean, up, up_min, down, down_max, changed: bytes.bool()? })
    }
}
