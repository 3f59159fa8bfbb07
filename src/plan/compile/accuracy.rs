//! Monitors: how good predictions turn out to be.

use arrow::datatypes::DataType;

use super::Compiler;
use super::set::Set;
use super::source::Source;
use crate::ops::key;
use crate::plan::config::MonitorConfig;
use crate::plan::faults::Path;
use crate::plan::model::{AccuracyPlan, CardPlan, Metric, RankingPlan, Task};

/// Scores from here on are positive when the file does not say.
const THRESHOLD: f64 = 0.5;

/// A monitor as far as it is known.
pub(super) struct Watched<'a> {
    pub path: &'a Path,
    pub task: Task,
    pub labelled: bool,
    pub outputs: usize,
    pub window: i64,
}

impl Compiler<'_> {
    pub(super) fn accuracy(
        &mut self,
        c: &MonitorConfig,
        watched: &Watched,
        set: &Set,
        spine: &mut Source,
    ) -> Option<AccuracyPlan> {
        let Watched { path, task, labelled, outputs, window } = *watched;
        let (ranked, binary) = (task == Task::Ranking, task == Task::Binary);
        if !labelled {
            let written = [
                ("accuracy", c.accuracy.is_some()),
                ("threshold", c.threshold.is_some()),
                ("scores", c.scores.is_some()),
                ("ranking", c.ranking.is_some()),
                ("card_precision", c.card_precision.is_some()),
            ];
            for (key, _) in written.into_iter().filter(|(_, written)| *written) {
                let mend = "declare them under `labels`, by the model's name";
                self.error_at_key(&path.key(key), "without labels nobody knows how good predictions are", mend);
            }
            return None;
        }
        let mut metrics = Vec::new();
        for (i, metric) in c.accuracy.iter().flatten().enumerate() {
            let (at, metric) = (path.key("accuracy").item(i), metric.metric());
            if !Metric::of(task).contains(&metric) {
                let fit: Vec<&str> = Metric::of(task).iter().map(|metric| metric.name()).collect();
                let what = format!("`{}` is no statistic of {}", metric.name(), words(task));
                self.error(&at, what, format!("those that fit are {}", fit.join(", ")));
            } else if metrics.contains(&metric) {
                self.error(&at, format!("`{}` is written twice", metric.name()), "remove one");
            } else {
                metrics.push(metric);
            }
        }
        if c.accuracy.is_none() {
            metrics = Metric::usual(task).to_vec();
        }
        if task == Task::Multiclass && outputs < 2 {
            let mend = "name the outputs with the classes' probabilities: `prediction: [p0, p1, p2]`";
            self.error_at_key(path, "a model of several classes needs an output for each", mend);
        }
        let threshold = c.threshold.unwrap_or(THRESHOLD);
        if c.threshold.is_some() && !binary {
            let mend = "remove it";
            self.error_at_key(&path.key("threshold"), format!("{} has no threshold", words(task)), mend);
        }
        let bins = c.scores.as_ref().map(|scores| scores.bins);
        if let Some(bins) = bins {
            if !(binary || task == Task::Multiclass) {
                self.error_at_key(&path.key("scores"), format!("{} counts no scores", words(task)), "remove it");
            } else if bins % 10 != 0 {
                let mend = "write a multiple of ten, such as 1000";
                self.error(
                    &path.key("scores").key("bins"),
                    "the ten bins of the calibration error would cut these",
                    mend,
                );
            }
        }
        let ranking = c.ranking.as_ref().and_then(|ranking| {
            let path = path.key("ranking");
            if !ranked {
                let mend = "write `task: ranking`, or remove it";
                self.error_at_key(&path, format!("{} ranks no items", words(task)), mend);
                return None;
            }
            let (query, text) = self.group(&path.key("query"), &ranking.query.0, set, spine)?;
            Some(RankingPlan { query, text, k: ranking.k.unwrap_or(10) as usize })
        });
        if ranked && c.ranking.is_none() {
            let mend = "write `ranking: {query: COLUMN, k: 10}`";
            self.error_at_key(path, "items are ranked within a query, and none is named", mend);
        }
        let card = c.card_precision.as_ref().and_then(|card| {
            let path = path.key("card_precision");
            if !binary {
                let what = format!("{} does not tell good cards from bad ones", words(task));
                self.error_at_key(&path, what, "remove it");
                return None;
            }
            let exclude = card.exclude_found.as_ref().map_or(0, |exclude| exclude.0);
            if exclude < 0 || exclude % window != 0 {
                let mend = "write a multiple of the window, such as 7d for 1d";
                self.error(&path.key("exclude_found"), "it is no whole number of windows", mend);
            }
            let (by, text) = self.group(&path.key("by"), &card.by.0, set, spine)?;
            Some(CardPlan { by, text, k: card.k.unwrap_or(100) as usize, exclude })
        });
        Some(AccuracyPlan { metrics, threshold, bins, ranking, card })
    }

    /// A column of scored rows by which they are grouped: its engine name, and whether it is text.
    pub(super) fn group(&mut self, path: &Path, name: &str, set: &Set, spine: &mut Source) -> Option<(String, bool)> {
        let (engine, data_type) = match set.plan.columns.iter().find(|column| column.name == name) {
            Some(found) => (found.engine.clone(), found.data_type.clone()),
            None => (name.to_owned(), self.source_column(path, name, spine)?),
        };
        spine.note_column(name);
        let text = match &data_type {
            number if key::is_word(std::slice::from_ref(number)) => false,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
            other => {
                let what = format!("`{name}` is of type {other}");
                self.error(path, what, "rows are grouped by whole numbers or texts");
                return None;
            }
        };
        Some((engine, text))
    }
}

fn words(task: Task) -> &'static str {
    match task {
        Task::Binary => "a model of two classes",
        Task::Multiclass => "a model of several classes",
        Task::Regression => "a regression",
        Task::Ranking => "a ranking",
    }
}
