//! DDM, the drift detection method: how far an error rate has risen above its lowest.
//!
//! J. Gama et al., "Learning with Drift Detection", SBIA 2004, as in River 0.26.1. With `p` the error rate and
//! `s = sqrt(p (1 − p) / n)`, the lowest `p + s` gives `p_min` and `s_min`; `p + s > p_min + k s_min` is a warning at one `k`
//! and a change at a larger one.

use super::Mean;
use super::bytes::{Damaged, Reader, put_f64, put_u64};
use crate::plan::model::DdmPlan;

/// See the module's description. It takes 0 and 1 only.
#[derive(Clone, Debug, PartialEq)]
pub struct Ddm {
    plan: DdmPlan,
    rate: Mean,
    rate_min: f64,
    deviation_min: f64,
    warning: bool,
    changed: bool,
}

impl Ddm {
    /// A detector that has seen nothing.
    pub fn new(plan: DdmPlan) -> Ddm {
        let rate = Mean::default();
        Ddm { plan, rate, rate_min: f64::INFINITY, deviation_min: 0.0, warning: false, changed: false }
    }

    /// Takes 1 for a wrong prediction, 0 for a right one; says whether the error rate has risen.
    pub fn update(&mut self, x: f64) -> bool {
        if self.changed {
            *self = Ddm::new(self.plan);
        }
        self.rate.update(x);
        let (p, n) = (self.rate.mean, self.rate.n);
        // The mean of bits may leave 0..1 by its last bit.
        let s = (p * (1.0 - p) / n as f64).max(0.0).sqrt();
        if n > self.plan.warm_start {
            if p + s <= self.rate_min + self.deviation_min {
                (self.rate_min, self.deviation_min) = (p, s);
            }
            let beyond = |k: f64| p + s > self.rate_min + k * self.deviation_min;
            self.changed = beyond(self.plan.drift_threshold);
            self.warning = !self.changed && beyond(self.plan.warning_threshold);
        }
        self.changed
    }

    /// Whether the error rate is in the warning zone.
    pub fn warning(&self) -> bool {
        self.warning
    }

    /// Numbers since the detector began.
    pub fn width(&self) -> u64 {
        self.rate.n
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.rate.mean
    }

    pub(super) fn save(&self, out: &mut Vec<u8>) {
        put_u64(out, self.rate.n);
        for number in [self.rate.mean, self.rate_min, self.deviation_min] {
            put_f64(out, number);
        }
        out.push(u8::from(self.warning));
        out.push(u8::from(self.changed));
    }

    pub(super) fn load(plan: DdmPlan, bytes: &mut Reader<'_>) -> Result<Ddm, Damaged> {
        let rate = Mean { n: bytes.u64()?, mean: bytes.f64()? };
        let (rate_min, deviation_min) = (bytes.f64()?, bytes.f64()?);
        Ok(Ddm { plan, rate, rate_min, deviation_min, warning: bytes.bool()?, changed: bytes.bool()? })
    }
}
