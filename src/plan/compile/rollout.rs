//! `retrain.<model>.rollout`.

use super::Compiler;
use super::set::Set;
use super::source::Source;
use crate::plan::config::{GuardConfig, LossConfig, OnTimeoutConfig, PromoteIfConfig, RolloutConfig};
use crate::plan::faults::Path;
use crate::plan::model::{
    ByPlan, GuardPlan, Loss, MonitorPlan, OnTimeout, RolloutPlan, SHARE_ALL, Share, Strategy, Task,
};

const HOUR: i64 = 3_600_000_000;
/// Steps of a canary when the file names no strategy, in per cent.
const STEPS: [f64; 4] = [5.0, 25.0, 50.0, 100.0];
const ALPHA: f64 = 0.05;
const MIN_ROWS: u64 = 1_000;
const EXPECT_ROWS: u64 = 20_000;
const MAX: i64 = 30 * 24 * HOUR;
const SAMPLE_RATIO_ALPHA: f64 = 0.001;

impl Compiler<'_> {
    /// The rollout policy at `path` of a model with that monitor; `set` are the model's inputs, `spine` the source of its rows.
    pub(super) fn rollout(
        &mut self,
        path: &Path,
        c: &RolloutConfig,
        monitor: Option<&MonitorPlan>,
        set: &Set,
        spine: &mut Source,
    ) -> Option<RolloutPlan> {
        let strategy = self.strategy(path, c);
        let Some(monitor) = monitor else {
            let mend = "declare it under `monitors` by the model's name; `{}` will do";
            self.error_at_key(path, "versions are compared by what the model's monitor sees, and there is none", mend);
            return None;
        };
        let shadow = self.length(path, "shadow", c.shadow.as_ref().map(|d| d.0), 0);
        if monitor.labels.is_none() {
            let alone = matches!(strategy, Some(Strategy::BlueGreen { .. })) && c.shadow.is_none();
            let written = [
                ("metric", c.metric.is_some()),
                ("alpha", c.alpha.is_some()),
                ("margin", c.margin.is_some()),
                ("promote_if", c.promote_if.is_some()),
                ("min_rows", c.min_rows.is_some()),
                ("expect_rows", c.expect_rows.is_some()),
            ];
            let mend = "declare them under `labels` by the model's name, or write `blue_green: true` without `shadow`, which guards alone decide";
            if !alone {
                self.error_at_key(path, "without labels nobody knows which version is better", mend);
            } else {
                for (key, _) in written.into_iter().filter(|(_, written)| *written) {
                    self.error_at_key(&path.key(key), "without labels there are no losses", mend);
                }
            }
        } else if matches!(strategy, Some(Strategy::BlueGreen { .. })) && c.shadow.is_none() {
            let mend = "write `shadow: 1d`, so that losses decide";
            self.warn(&path.key("blue_green"), "without `shadow` nothing but guards decides about the switch", mend);
        }
        if matches!(strategy, Some(Strategy::BlueGreen { .. }))
            && c.shadow.is_none()
            && c.guard.as_ref().is_some_and(|guard| guard.score_shift_sd.is_some())
        {
            let mend = "write `shadow: 1h`, or remove it";
            let what =
                "all rows are the challenger's from the beginning, and there are no champion's scores to compare with";
            self.error_at_key(&path.key("guard").key("score_shift_sd"), what, mend);
        }
        let metric = self.loss(path, c, monitor.task);
        let alpha = c.alpha.unwrap_or(ALPHA);
        if !(alpha > 0.0 && alpha < 0.5) {
            self.error(&path.key("alpha"), "`alpha` is a probability below one half", "write 0.05, say");
        }
        let margin = self.margin(path, c);
        if let Some(min) = c.min_rows
            && c.expect_rows.is_some_and(|expect| expect < min)
        {
            let mend = "write at least twice `min_rows`";
            self.error(
                &path.key("expect_rows"),
                "nothing is decided before `min_rows`, so more are to be expected",
                mend,
            );
        }
        let by = match &c.by {
            Some(by) => {
                let (column, text) = self.group(&path.key("by"), &by.0, set, spine)?;
                Some(ByPlan { column, text })
            }
            None => None,
        };
        let max = self.length(path, "max", c.max.as_ref().map(|d| d.0), MAX);
        let guard = self.guard(&path.key("guard"), c.guard.as_ref());
        Some(RolloutPlan {
            shadow,
            strategy: strategy?,
            by,
            metric: metric?,
            alpha,
            margin,
            min_rows: c.min_rows.unwrap_or(MIN_ROWS),
            expect_rows: c.expect_rows.unwrap_or(EXPECT_ROWS).max(c.min_rows.unwrap_or(MIN_ROWS)),
            max,
            on_timeout: match c.on_timeout {
                None | Some(OnTimeoutConfig::RollBack) => OnTimeout::RollBack,
                Some(OnTimeoutConfig::Hold) => OnTimeout::Hold,
            },
            guard,
        })
    }

    fn strategy(&mut self, path: &Path, c: &RolloutConfig) -> Option<Strategy> {
        let ways = [("canary", c.canary.is_some()), ("ab", c.ab.is_some()), ("blue_green", c.blue_green == Some(true))];
        let named: Vec<&str> = ways.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        if let [first, second, ..] = named[..] {
            let what = format!("`{first}` and `{second}` are two ways to bring a challenger in");
            self.error_at_key(&path.key(second), what, "keep one");
            return None;
        }
        let way = named.first().copied().unwrap_or("canary");
        for (key, written, of) in [("hold", c.hold.is_some(), "canary"), ("keep", c.keep.is_some(), "blue_green")] {
            if written && way != of {
                let what = format!("`{key}` belongs to `{of}`, and the way is `{way}`");
                self.error_at_key(&path.key(key), what, "remove it");
            }
        }
        match way {
            "ab" => {
                let at = path.key("ab");
                let share = self.share(&at, c.ab.unwrap_or_default())?;
                if share == SHARE_ALL {
                    let mend = "write 50, or use `blue_green: true`";
                    self.error(&at, "the champion would have no rows to compare with", mend);
                }
                Some(Strategy::Ab { share })
            }
            "blue_green" => {
                let keep = self.length(path, "keep", c.keep.as_ref().map(|d| d.0), HOUR);
                Some(Strategy::BlueGreen { keep })
            }
            _ => {
                let at = path.key("canary");
                let written = c.canary.clone().unwrap_or_else(|| STEPS.to_vec());
                let mut steps: Vec<Share> = Vec::new();
                for (i, share) in written.iter().enumerate() {
                    let share = self.share(&at.item(i), *share)?;
                    if steps.last().is_some_and(|last| *last >= share) {
                        self.error(&at.item(i), "a step is no larger than the one before", "write growing shares");
                    }
                    steps.push(share);
                }
                if steps.first() == Some(&SHARE_ALL) {
                    let mend = "begin with a small share, such as 5, or use `blue_green: true`";
                    self.error(&at, "a canary that begins with all rows has nothing to compare with", mend);
                }
                let hold = self.length(path, "hold", c.hold.as_ref().map(|d| d.0), HOUR);
                Some(Strategy::Canary { steps, hold })
            }
        }
    }

    fn share(&mut self, at: &Path, percent: f64) -> Option<Share> {
        let hundredths = (percent * 100.0).round();
        if (1.0..=f64::from(SHARE_ALL)).contains(&hundredths) && (percent * 100.0 - hundredths).abs() < 1e-6 {
            return Some(hundredths as Share);
        }
        let what = format!("`{percent}` is no share of the rows");
        self.error(at, what, "write per cent, from 0.01 to 100 with at most two decimals");
        None
    }

    fn length(&mut self, path: &Path, key: &str, written: Option<i64>, default: i64) -> i64 {
        if written.is_some_and(|length| length <= 0) {
            self.error(&path.key(key), format!("`{key}` must be longer than nothing"), "write 1h, say");
        }
        written.unwrap_or(default)
    }

    fn loss(&mut self, path: &Path, c: &RolloutConfig, task: Task) -> Option<Loss> {
        let fit: &[Loss] = match task {
            Task::Binary => &[Loss::LogLoss, Loss::Brier, Loss::Error],
            Task::Multiclass => &[Loss::LogLoss, Loss::Error],
            Task::Regression => &[Loss::SquaredError, Loss::AbsoluteError],
            Task::Ranking => {
                let mend = "promote by hand: `tidemill models promote`";
                self.error_at_key(path, "a ranking has no loss of a single row", mend);
                return None;
            }
        };
        let Some(written) = c.metric else { return fit.first().copied() };
        let metric = match written {
            LossConfig::LogLoss => Loss::LogLoss,
            LossConfig::Brier => Loss::Brier,
            LossConfig::Error => Loss::Error,
            LossConfig::SquaredError => Loss::SquaredError,
            LossConfig::AbsoluteError => Loss::AbsoluteError,
        };
        if !fit.contains(&metric) {
            let names: Vec<&str> = fit.iter().map(|loss| loss.name()).collect();
            let what = format!("`{}` is no loss of this model's task", metric.name());
            self.error(&path.key("metric"), what, format!("those that fit are {}", names.join(", ")));
        }
        Some(metric)
    }

    /// The difference that must be excluded.
    fn margin(&mut self, path: &Path, c: &RolloutConfig) -> f64 {
        let margin = c.margin.unwrap_or(0.0);
        if !margin.is_finite() || margin < 0.0 {
            let mend = "write how much worse the challenger may be, such as 0.002, or 0";
            self.error(&path.key("margin"), "`margin` is less than nothing", mend);
        }
        if c.promote_if == Some(PromoteIfConfig::Superior) && margin != 0.0 {
            let mend = "write `promote_if: not_inferior`, or remove `margin`";
            self.error(&path.key("margin"), "who must be superior has no margin", mend);
        }
        if c.promote_if == Some(PromoteIfConfig::NotInferior) && margin == 0.0 {
            let mend = "write `margin: 0.002`, say, in units of `metric`";
            self.error(&path.key("promote_if"), "with a margin of 0 not to be inferior is to be superior", mend);
        }
        margin
    }

    fn guard(&mut self, path: &Path, c: Option<&GuardConfig>) -> GuardPlan {
        let c = c.cloned().unwrap_or_default();
        for (key, value) in [("latency_p99_ms", c.latency_p99_ms), ("score_shift_sd", c.score_shift_sd)] {
            if value.is_some_and(|value| !value.is_finite() || value <= 0.0) {
                self.error(&path.key(key), format!("`{key}` must be more than 0"), "");
            }
        }
        if c.error_rate.is_some_and(|rate| !(0.0..1.0).contains(&rate)) {
            self.error(&path.key("error_rate"), "`error_rate` is a share of rows", "write 0.01, say");
        }
        let sample_ratio_alpha = c.sample_ratio_alpha.unwrap_or(SAMPLE_RATIO_ALPHA);
        if !(0.0..0.5).contains(&sample_ratio_alpha) {
            let mend = "write 0.001, or 0 for no test";
            self.error(&path.key("sample_ratio_alpha"), "`sample_ratio_alpha` is a probability below one half", mend);
        }
        GuardPlan {
            latency_p99_ms: c.latency_p99_ms,
            error_rate: c.error_rate,
            score_shift_sd: c.score_shift_sd,
            sample_ratio_alpha,
        }
    }
}
