//! A model card: what a model was made of, how good it is beside the champion, and what it is not good for. As data, and as
//! Markdown; the report draws it as a page.
//!
//! Source of the idea: M. Mitchell et al., "Model Cards for Model Reporting", 2019.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::data::{Set, Task};
use super::evaluate::{Compared, Evaluation, Slice, Told};
use super::explain::Importance;
use super::metrics::{metric_named, more_is_better, task_name};
use super::tune::table::shown;
use super::tune::{Table, TuneMethod};
use crate::base::{DAY, EventTime, Micros, format_duration, format_time};

/// A model card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The model.
    pub model: String,
    /// Its version, where it has one yet.
    pub version: Option<u64>,
    /// Who or what had it made, and why.
    pub made_for: String,
    /// When, by the wall clock.
    pub made_at: EventTime,
    /// What it tells.
    pub task: Task,
    /// What it was made of.
    pub data: DataFacts,
    /// The learner, such as `gbdt`.
    pub learner: String,
    /// All its settings.
    pub params: Value,
    /// What was drawn at random was drawn by it.
    pub seed: u64,
    /// How the champion is called that it was compared with.
    pub champion: Option<String>,
    /// How good it is.
    pub evaluation: Option<Evaluation>,
    /// What it goes by.
    pub importance: Option<Importance>,
    /// How its settings were found.
    pub tuning: Option<Table>,
    /// Limits that its makers know of; what follows from the figures is added.
    pub limits: Vec<String>,
}

/// What a model was made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataFacts {
    /// Tables with the versions that were read.
    pub tables: Vec<(String, u64)>,
    /// First moment of the rows that it was fitted on, and ...
    pub from: EventTime,
    /// ... the last.
    pub to: EventTime,
    /// Rows that it was fitted on.
    pub rows: u64,
    /// Of these with a label above 0.
    pub positives: u64,
    /// How long labels take to come.
    pub label_delay: Option<Micros>,
    /// Inputs in their order.
    pub inputs: Vec<String>,
}

impl DataFacts {
    /// Of the rows that a model is fitted on.
    pub fn of(train: &Set, tables: Vec<(String, u64)>, label_delay: Option<Micros>) -> DataFacts {
        DataFacts {
            tables,
            from: train.times.iter().copied().min().unwrap_or(0),
            to: train.times.iter().copied().max().unwrap_or(0),
            rows: train.rows() as u64,
            positives: train.labels.iter().filter(|label| **label > 0.0).count() as u64,
            label_delay,
            inputs: train.inputs.names.clone(),
        }
    }
}

/// Positives in the test below which figures are shaky.
const POSITIVES_FEW: u64 = 100;
/// Rows, or positives, of a slice below which it says little.
const SLICE_FEW: u64 = 30;

impl Card {
    /// Whether a difference is for the better, for the worse, or neither as far as is known.
    pub fn verdict_of(&self, compared: &Compared) -> Option<bool> {
        let Told { low: Some(low), high: Some(high), .. } = compared.difference? else { return None };
        let apart = if low > 0.0 {
            true
        } else if high < 0.0 {
            false
        } else {
            return None;
        };
        Some(apart == self.more_is_better(&compared.metric))
    }

    /// Whether more of a statistic is better.
    pub fn more_is_better(&self, metric: &str) -> bool {
        metric.starts_with("card_precision") || metric_named(metric, self.task).is_ok_and(more_is_better)
    }

    /// Limits: those that are known and those that follow from the figures.
    pub fn all_limits(&self) -> Vec<String> {
        let mut limits = self.limits.clone();
        let days = |length: Micros| format!("{:.0} days", (length as f64 / DAY as f64).max(1.0));
        let fitted = days(self.data.to - self.data.from);
        match &self.evaluation {
            None => limits.push("It was not judged by rows that it was not fitted on.".into()),
            Some(found) => {
                limits.push(format!(
                    "It was fitted on {fitted} and judged by {}: what changes over a longer time was not seen.",
                    days(found.to - found.from)
                ));
                self.limits_of(found, &mut limits);
            }
        }
        if let Some(delay) = self.data.label_delay.filter(|delay| *delay > 0) {
            limits.push(format!(
                "Labels take {}: the newest events that it was fitted on are at least that much older than its first use.",
                format_duration(delay)
            ));
        }
        if let Some(tuning) = &self.tuning {
            for name in at_the_end(tuning) {
                limits.push(format!(
                    "The best value of `{name}` lies at an end of the values tried: a better one may lie beyond."
                ));
            }
        }
        limits
    }

    fn limits_of(&self, found: &Evaluation, limits: &mut Vec<String>) {
        if let Some(positives) = found.positives.filter(|positives| *positives < POSITIVES_FEW) {
            limits.push(format!(
                "Only {positives} of the rows that it was judged by are positive: its figures are uncertain."
            ));
        }
        let compared = found.metrics.iter().filter(|metric| metric.difference.is_some_and(|told| told.low.is_some()));
        let known: Vec<Option<bool>> = compared.map(|metric| self.verdict_of(metric)).collect();
        if let Some(champion) =
            self.champion.as_ref().filter(|_| !known.is_empty() && known.iter().all(Option::is_none))
        {
            limits.push(format!("None of its figures is shown to differ from those of {champion}."));
        }
        let worse: Vec<String> = found
            .slices
            .iter()
            .filter_map(|slice| {
                Some((slice, slice.metrics.iter().find(|metric| headline(found) == Some(&metric.metric))?))
            })
            .filter(|(_, metric)| self.verdict_of(metric) == Some(false))
            .map(|(slice, metric)| format!("{} = {} ({})", slice.column, slice.value, metric.metric))
            .collect();
        if !worse.is_empty() {
            limits.push(format!(
                "It is worse than the champion where {}. Of many slices one in twenty looks so by chance.",
                worse.join(", ")
            ));
        }
        let few =
            |slice: &&Slice| slice.rows < SLICE_FEW || slice.positives.is_some_and(|positives| positives < SLICE_FEW);
        let few: Vec<String> =
            found.slices.iter().filter(few).map(|slice| format!("{} = {}", slice.column, slice.value)).collect();
        if !few.is_empty() {
            limits.push(format!("Too few rows or positives to say much where {}.", few.join(", ")));
        }
        let off = found.calibration.iter().filter(|bin| bin.score < bin.low || bin.score > bin.high).count();
        if off > 0 {
            limits.push(format!(
                "Scores are not shares of positives as they stand: in {off} of {} groups of rows the share is another.",
                found.calibration.len()
            ));
        }
        if found.by.is_none() {
            limits.push(
                "Intervals take rows for independent; those of one entity often are not, so they may be too narrow."
                    .into(),
            );
        }
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let version = self.version.map_or_else(String::new, |version| format!(" version {version}"));
        let _ = writeln!(out, "# {}{version}\n", plain(&self.model));
        let _ = writeln!(
            out,
            "{}. Made {} for {}.\n",
            capital(task_name(self.task)),
            format_time(self.made_at),
            plain(&self.made_for)
        );
        self.write_data(&mut out);
        if let Some(found) = &self.evaluation {
            self.write_evaluation(found, &mut out);
        }
        if let Some(importance) = &self.importance {
            write_importance(importance, &mut out);
        }
        if let Some(tuning) = &self.tuning {
            let _ = writeln!(out, "## Settings tried\n");
            let _ = writeln!(
                out,
                "{} trials ({}), each on {} folds in time, ordered by {}. The best:\n",
                tuning.trials.len(),
                method(tuning.method),
                tuning.folds.len(),
                tuning.metric
            );
            let _ = writeln!(out, "```text\n{}```\n", tuning.text(10));
        }
        let _ = writeln!(out, "## Limits\n");
        for limit in self.all_limits() {
            let _ = writeln!(out, "- {}", plain(&limit));
        }
        out
    }

    fn write_data(&self, out: &mut String) {
        let data = &self.data;
        let _ = writeln!(out, "## What it was made of\n");
        let _ = writeln!(out, "| | |\n|---|---|");
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "| {name} | {value} |");
        };
        for (table, version) in &data.tables {
            row("Table", format!("{} at version {version}", plain(table)));
        }
        row("Events", format!("{} to {}", format_time(data.from), format_time(data.to)));
        row("Rows", format!("{}{}", data.rows, self.positives_of(data.rows, Some(data.positives))));
        if let Some(delay) = data.label_delay {
            row("Label delay", format_duration(delay));
        }
        row("Inputs", format!("{}: {}", data.inputs.len(), plain(&data.inputs.join(", "))));
        row("Learner", plain(&self.learner));
        row("Settings", format!("`{}`", self.params.to_string().replace('|', "\\|")));
        row("Seed", self.seed.to_string());
        out.push('\n');
    }

    /// The positives in parentheses, with two classes.
    fn positives_of(&self, rows: u64, positives: Option<u64>) -> String {
        match positives.filter(|_| self.task == Task::Binary && rows > 0) {
            Some(positives) => format!(" ({positives} positive, {:.2} %)", 100.0 * positives as f64 / rows as f64),
            None => String::new(),
        }
    }

    fn write_evaluation(&self, found: &Evaluation, out: &mut String) {
        let _ = writeln!(out, "## How good it is\n");
        let _ = writeln!(
            out,
            "Judged by {} rows{} from {} to {} that it was not fitted on. In brackets: {:.0} % intervals.\n",
            found.rows,
            self.positives_of(found.rows, found.positives),
            format_time(found.from),
            format_time(found.to),
            100.0 * found.confidence
        );
        if let Some(verdict) = &found.verdict {
            let _ =
                writeln!(out, "`{}`: **{}** (`{}`)\n", verdict.condition, holds(verdict.holds), verdict.with_values);
        }
        match &self.champion {
            Some(champion) => {
                let _ = writeln!(
                    out,
                    "| statistic | this model | {} | difference | |\n|---|---|---|---|---|",
                    plain(champion)
                );
            }
            None => {
                let _ = writeln!(out, "| statistic | this model |\n|---|---|");
            }
        }
        for metric in &found.metrics {
            let _ = write!(out, "| {} | {} |", metric.metric, interval(metric.challenger));
            if self.champion.is_some() {
                let word = match self.verdict_of(metric) {
                    Some(true) => "better",
                    Some(false) => "worse",
                    None => "",
                };
                let _ = write!(out, " {} | {} | {word} |", interval(metric.champion), interval(metric.difference));
            }
            out.push('\n');
        }
        out.push('\n');
        if !found.slices.is_empty() {
            self.write_slices(found, out);
        }
    }

    fn write_slices(&self, found: &Evaluation, out: &mut String) {
        let Some(first) = found.slices.first().and_then(|slice| slice.metrics.first()).map(|metric| &metric.metric)
        else {
            return;
        };
        let first = headline(found).unwrap_or(first);
        let _ =
            writeln!(out, "### Slices\n\n| slice | rows | positives | {first} | difference |\n|---|---|---|---|---|");
        for slice in &found.slices {
            let metric = slice.metrics.iter().find(|metric| metric.metric == *first);
            let _ = writeln!(
                out,
                "| {} = {} | {} | {} | {} | {} |",
                plain(&slice.column),
                plain(&slice.value),
                slice.rows,
                slice.positives.map_or_else(|| "–".to_owned(), |positives| positives.to_string()),
                interval(metric.and_then(|metric| metric.challenger)),
                interval(metric.and_then(|metric| metric.difference))
            );
        }
        out.push('\n');
    }
}

/// The statistic that slices are shown by: the first of those that are compared that has an interval in them.
pub fn headline(found: &Evaluation) -> Option<&String> {
    const FIRST: [&str; 4] = ["auc", "rmse", "mse", "log_loss"];
    let known = |name: &&str| found.metrics.iter().find(|metric| metric.metric == **name);
    FIRST.iter().find_map(known).or(found.metrics.first()).map(|metric| &metric.metric)
}

/// What became of a condition, in words.
pub fn holds(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "holds",
        Some(false) => "does not hold",
        None => "cannot be told",
    }
}

/// What a method is called.
pub fn method(method: TuneMethod) -> &'static str {
    match method {
        TuneMethod::Grid => "grid",
        TuneMethod::Random => "random search",
        TuneMethod::Tpe => "TPE",
        TuneMethod::Halving => "successive halving",
    }
}

/// Settings whose best value is the least or the greatest of three numbers or more that were tried.
fn at_the_end(tuning: &Table) -> Vec<&String> {
    let Some(best) = tuning.best() else { return Vec::new() };
    let is_end = |name: &&String| {
        let number = |values: &serde_json::Map<String, Value>| values.get(*name).and_then(Value::as_f64);
        let Some(at) = number(&best.values) else { return false };
        let mut tried: Vec<f64> = tuning.trials.iter().filter_map(|trial| number(&trial.values)).collect();
        tried.sort_unstable_by(f64::total_cmp);
        tried.dedup();
        tried.len() > 2 && (tried.first() == Some(&at) || tried.last() == Some(&at))
    };
    best.values.keys().filter(is_end).collect()
}

fn write_importance(importance: &Importance, out: &mut String) {
    let _ = writeln!(out, "## What it goes by\n");
    let _ = writeln!(
        out,
        "How much worse {} ({:.4}) is when an input is shuffled among {} rows, {} times.\n",
        importance.metric, importance.value, importance.rows, importance.repeats
    );
    let gains = importance.inputs.iter().any(|input| input.gain.is_some());
    let _ = writeln!(out, "| input | worse by | ± sd |{}", if gains { " share of gain |" } else { "" });
    let _ = writeln!(out, "|---|---|---|{}", if gains { "---|" } else { "" });
    for input in &importance.inputs {
        let sd = input.sd.map_or_else(|| "–".to_owned(), |sd| format!("{sd:.4}"));
        let _ = write!(out, "| {} | {:.4} | {sd} |", plain(&input.name), input.worse);
        if gains {
            let _ = write!(out, " {:.1} % |", 100.0 * input.gain.unwrap_or(0.0));
        }
        out.push('\n');
    }
    out.push('\n');
}

/// A value with its interval.
fn interval(told: Option<Told>) -> String {
    match told {
        None => "–".to_owned(),
        Some(Told { value, low: Some(low), high: Some(high) }) => format!("{value:.4} [{low:.4}, {high:.4}]"),
        Some(Told { value, .. }) => format!("{value:.4}"),
    }
}

/// Text that Markdown takes for text.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '<' | '>' | '[' | ']' | '*' | '\\' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Settings as name and value, for tables.
pub fn settings(params: &Value) -> Vec<(String, String)> {
    match params {
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), shown(Some(value)))).collect(),
        Value::Null => Vec::new(),
        other => vec![("settings".to_owned(), other.to_string())],
    }
}
