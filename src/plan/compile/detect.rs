//! Change detectors.

use super::Compiler;
use crate::plan::config::{AdwinConfig, DdmConfig, DetectorConfig, DirectionConfig, MonitorConfig, PageHinkleyConfig};
use crate::plan::faults::Path;
use crate::plan::model::{AdwinPlan, DdmPlan, DetectorPlan, Direction, PageHinkleyPlan, Task};

impl Compiler<'_> {
    /// The detectors of the monitor at `path`.
    pub(super) fn detectors(
        &mut self,
        path: &Path,
        c: &MonitorConfig,
        task: Task,
        labelled: bool,
    ) -> Vec<DetectorPlan> {
        let path = path.key("detectors");
        if !c.detectors.is_empty() && !labelled {
            let mend = "declare them under `labels`, or remove the detectors";
            self.error_at_key(&path, "detectors watch errors, and the model has no labels", mend);
        }
        if !c.detectors.is_empty() && task == Task::Ranking {
            let mend = "remove them; they are for classes and numbers";
            self.error_at_key(&path, "one prediction of a ranking is neither right nor wrong", mend);
        }
        let mut plans: Vec<DetectorPlan> = Vec::new();
        for (i, detector) in c.detectors.iter().enumerate() {
            let at = path.item(i);
            let Some(plan) = self.detector(&at, detector) else { continue };
            if plans.iter().any(|p| p.name() == plan.name()) {
                let what = format!("`{}` is there twice", plan.name());
                self.error(&at, what, "remove one; a model has one detector of a kind");
                continue;
            }
            if matches!(plan, DetectorPlan::Ddm(_)) && task == Task::Regression {
                let mend = "use adwin or page_hinkley";
                self.error(&at, "`ddm` is for right and wrong; an error of a regression is a number", mend);
            }
            plans.push(plan);
        }
        plans
    }

    fn detector(&mut self, at: &Path, detector: &DetectorConfig) -> Option<DetectorPlan> {
        let with = match detector {
            DetectorConfig::Name(name) => return DetectorPlan::named(name),
            DetectorConfig::With(with) => with,
        };
        match (&with.adwin, &with.page_hinkley, &with.ddm) {
            (Some(c), None, None) => Some(DetectorPlan::Adwin(self.adwin(&at.key("adwin"), c))),
            (None, Some(c), None) => Some(DetectorPlan::PageHinkley(self.page_hinkley(&at.key("page_hinkley"), c))),
            (None, None, Some(c)) => Some(DetectorPlan::Ddm(self.ddm(&at.key("ddm"), c))),
            _ => {
                let mend = "write each detector as an item of its own: `- adwin` or `- page_hinkley: {threshold: 50}`";
                self.error(at, "an item is one detector", mend);
                None
            }
        }
    }

    fn adwin(&mut self, at: &Path, c: &AdwinConfig) -> AdwinPlan {
        let usual = AdwinPlan::default();
        AdwinPlan {
            delta: self.within(at, "delta", c.delta, usual.delta, |d| d > 0.0 && d < 1.0, "between 0 and 1"),
            clock: c.clock.unwrap_or(usual.clock),
            max_buckets: c.max_buckets.unwrap_or(usual.max_buckets),
            min_window_length: c.min_window_length.unwrap_or(usual.min_window_length),
            grace_period: c.grace_period.unwrap_or(usual.grace_period),
        }
    }

    fn page_hinkley(&mut self, at: &Path, c: &PageHinkleyConfig) -> PageHinkleyPlan {
        let usual = PageHinkleyPlan::default();
        PageHinkleyPlan {
            min_instances: c.min_instances.unwrap_or(usual.min_instances),
            delta: self.within(at, "delta", c.delta, usual.delta, |d| d >= 0.0, "not negative"),
            threshold: self.within(at, "threshold", c.threshold, usual.threshold, |t| t > 0.0, "more than 0"),
            alpha: self.within(at, "alpha", c.alpha, usual.alpha, |a| a > 0.0 && a <= 1.0, "more than 0, at most 1"),
            direction: match c.mode {
                None | Some(DirectionConfig::Both) => Direction::Both,
                Some(DirectionConfig::Up) => Direction::Up,
                Some(DirectionConfig::Down) => Direction::Down,
            },
        }
    }

    fn ddm(&mut self, at: &Path, c: &DdmConfig) -> DdmPlan {
        let usual = DdmPlan::default();
        let positive = |t: f64| t > 0.0;
        let plan = DdmPlan {
            warm_start: c.warm_start.unwrap_or(usual.warm_start),
            warning_threshold: self.within(
                at,
                "warning_threshold",
                c.warning_threshold,
                usual.warning_threshold,
                positive,
                "more than 0",
            ),
            drift_threshold: self.within(
                at,
                "drift_threshold",
                c.drift_threshold,
                usual.drift_threshold,
                positive,
                "more than 0",
            ),
        };
        if plan.warning_threshold > plan.drift_threshold {
            let what =
                format!("a warning at {} comes after the change at {}", plan.warning_threshold, plan.drift_threshold);
            self.error(at, what, "write a `warning_threshold` below the `drift_threshold`");
        }
        plan
    }

    fn within(
        &mut self,
        at: &Path,
        key: &str,
        written: Option<f64>,
        usual: f64,
        allowed: impl Fn(f64) -> bool,
        range: &str,
    ) -> f64 {
        let Some(number) = written else { return usual };
        if !allowed(number) {
            self.error(
                &at.key(key),
                format!("`{key}` must be {range}, found `{number}`"),
                format!("the usual is {usual}"),
            );
        }
        number
    }
}
