//! Change detectors of a monitor.

/// A change detector and its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectorPlan {
    /// Adaptive windowing.
    Adwin(AdwinPlan),
    /// Page-Hinkley's test.
    PageHinkley(PageHinkleyPlan),
    /// The drift detection method.
    Ddm(DdmPlan),
}

impl DetectorPlan {
    /// Names of all detectors, which are the names of their statistics.
    pub const NAMES: [&'static str; 3] = ["adwin", "page_hinkley", "ddm"];

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            DetectorPlan::Adwin(_) => "adwin",
            DetectorPlan::PageHinkley(_) => "page_hinkley",
            DetectorPlan::Ddm(_) => "ddm",
        }
    }

    /// The detector of a name with River's defaults.
    pub fn named(name: &str) -> Option<DetectorPlan> {
        Some(match name {
            "adwin" => DetectorPlan::Adwin(AdwinPlan::default()),
            "page_hinkley" => DetectorPlan::PageHinkley(PageHinkleyPlan::default()),
            "ddm" => DetectorPlan::Ddm(DdmPlan::default()),
            _ => return None,
        })
    }
}

/// Settings of ADWIN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdwinPlan {
    /// Significance of a cut.
    pub delta: f64,
    /// Cuts are tried every so many numbers.
    pub clock: u64,
    /// Buckets of one size before two are merged.
    pub max_buckets: u64,
    /// Least length of either side of a cut.
    pub min_window_length: u64,
    /// No cut before the window is longer than this.
    pub grace_period: u64,
}

impl Default for AdwinPlan {
    fn default() -> Self {
        AdwinPlan { delta: 0.002, clock: 32, max_buckets: 5, min_window_length: 5, grace_period: 10 }
    }
}

/// Settings of Page-Hinkley's test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PageHinkleyPlan {
    /// No change before so many numbers.
    pub min_instances: u64,
    /// Deviations below this do not count.
    pub delta: f64,
    /// A change is a sum of deviations beyond this.
    pub threshold: f64,
    /// What the sum keeps of itself with each number.
    pub alpha: f64,
    /// Which changes count.
    pub direction: Direction,
}

impl Default for PageHinkleyPlan {
    fn default() -> Self {
        let alpha = 1.0 - 0.0001;
        PageHinkleyPlan { min_instances: 30, delta: 0.005, threshold: 50.0, alpha, direction: Direction::Both }
    }
}

/// Which changes of a mean count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Rises.
    Up,
    /// Falls.
    Down,
    /// Both.
    Both,
}

/// Settings of DDM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DdmPlan {
    /// No change before more than so many numbers.
    pub warm_start: u64,
    /// Standard deviations above the lowest error rate that are a warning.
    pub warning_threshold: f64,
    /// Standard deviations above the lowest error rate that are a change.
    pub drift_threshold: f64,
}

impl Default for DdmPlan {
    fn default() -> Self {
        DdmPlan { warm_start: 30, warning_threshold: 2.0, drift_threshold: 3.0 }
    }
}
