//! How what the page says follows from the tables.

use std::collections::{BTreeMap, BTreeSet};

use super::ReportOptions;
use super::metrics::{alarms_below, better, rank, title, unit};
use super::model::*;
use super::read::{AlertRow, Input};
use crate::base::{DAY, EventTime};
use crate::monitor::{History, Series, StatKind, Told};
use crate::plan::model::Plan;

/// Columns of the drift map at most; more windows share one.
const HEAT_WINDOWS_MAX: usize = 48;
/// Columns with a drift chart of their own.
const COLUMNS_MAX: usize = 12;
/// Segments listed of one column.
const SEGMENTS_MAX: usize = 25;
/// Statistics by column in the table of quality.
const QUALITY_METRICS_MAX: usize = 5;
/// New categories named of one column.
const CATEGORIES_MAX: usize = 8;
/// Accuracy tiles.
const TILES_MAX: usize = 6;
/// Points of a series of the job's operation; more samples share one.
const SAMPLES_MAX: usize = 240;
/// The subject of change detectors on the stream of errors.
const ERRORS: &str = "error";

/// Statistics of labels rather than of how good predictions are.
const OF_LABELS: [&str; 6] = ["predictions", "unmatched", "coverage", "labels_late", "labels_orphan", "labels_invalid"];

pub(super) fn page(plan: &Plan, input: &Input, options: &ReportOptions) -> Page {
    Page {
        job: plan.job.clone(),
        job_version: plan.version,
        root: input.root.display().to_string(),
        tables: input.tables.clone(),
        from: options.from,
        to: options.to,
        models: input.models.iter().map(|model| Of::new(plan, input, model).page()).collect(),
    }
}

/// Windows of a series, in their order.
type Windows = BTreeMap<EventTime, Told>;

/// The tables as far as they are of one model.
struct Of<'a> {
    plan: &'a Plan,
    input: &'a Input,
    model: &'a str,
    versions: Vec<String>,
}

impl<'a> Of<'a> {
    fn new(plan: &'a Plan, input: &'a Input, model: &'a str) -> Of<'a> {
        let mut of = Of { plan, input, model, versions: Vec::new() };
        // By the first time that they are heard of.
        let mut first: BTreeMap<&str, EventTime> = BTreeMap::new();
        let mut note = |version: &'a str, at: EventTime| {
            let known = first.entry(version).or_insert(at);
            *known = at.min(*known);
        };
        for (version, day) in input.predictions.get(model).into_iter().flat_map(BTreeMap::keys) {
            note(version, *day);
        }
        for kind in [StatKind::Accuracy, StatKind::Drift, StatKind::Quality] {
            for (series, windows) in of.series(kind).filter(|(s, _)| !s.version.is_empty()) {
                windows.keys().next().iter().for_each(|start| note(&series.version, **start));
            }
        }
        let mut found: Vec<(EventTime, &str)> = first.into_iter().map(|(version, at)| (at, version)).collect();
        found.sort_unstable();
        of.versions = found.into_iter().map(|(_, version)| version.to_owned()).collect();
        of
    }

    /// The model's series of a kind.
    fn series(&self, kind: StatKind) -> impl Iterator<Item = (&'a Series, &'a Windows)> + use<'a> {
        let (input, model): (&'a Input, &'a str) = (self.input, self.model);
        input
            .statistics
            .get(&kind)
            .into_iter()
            .flat_map(History::series)
            .filter(move |(series, _)| series.model == model)
    }

    /// Those of all rows.
    fn overall(&self, kind: StatKind) -> impl Iterator<Item = (&'a Series, &'a Windows)> + use<'a> {
        self.series(kind).filter(|(series, _)| series.segment.is_empty())
    }

    fn page(&self) -> ModelPage {
        let index = self.plan.models.iter().position(|model| model.name == self.model);
        let monitor = self.plan.monitors.iter().find(|monitor| Some(monitor.model) == index);
        let predictions = self.input.predictions.get(self.model);
        let exact = || StatKind::ALL.into_iter().filter(|kind| kind.is_exact()).flat_map(|kind| self.series(kind));
        let told = || exact().flat_map(|(_, windows)| windows.values());
        let span =
            told().map(|t| (t.newest.window_start, t.newest.window_end)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let accuracy = self.charts(StatKind::Accuracy, |series| {
            series.subject.is_empty() && !OF_LABELS.contains(&series.metric.as_str()) && series.metric != "confusion"
        });
        let (columns, columns_left_out) = self.columns();
        let (operation, samples) = self.operation();
        let alerts = alerts(self.input.alerts.iter().filter(|row| row.model == self.model || row.model.is_empty()));
        let mut page = ModelPage {
            model: self.model.to_owned(),
            window: monitor.map_or(DAY, |monitor| monitor.window),
            versions: self.versions(),
            span,
            as_of: told().map(|told| told.newest.as_of).max(),
            predictions: predictions.map(|counts| counts.values().sum()),
            headline: Vec::new(),
            volume: predictions.and_then(|counts| self.volume(counts)),
            accuracy,
            revisions: self.revisions(),
            labels: self.charts(StatKind::Accuracy, |series| {
                series.subject.is_empty() && OF_LABELS.contains(&series.metric.as_str())
            }),
            segments: self.segments(),
            confusion: self.confusion(),
            heat: self.heat(),
            columns,
            columns_left_out,
            drift: self.charts(StatKind::Drift, |series| series.subject.is_empty()),
            errors: self.charts(StatKind::Drift, |series| series.subject == ERRORS),
            quality: self.quality(),
            rows: self.charts(StatKind::Quality, |series| series.subject.is_empty()),
            has_alerts: self.input.tables.iter().any(|(name, _)| name == "stats/alerts"),
            alerts,
            operation,
            samples,
        };
        page.headline = headline(&page);
        page
    }

    fn versions(&self) -> Vec<Version> {
        let counts = self.input.predictions.get(self.model);
        let made = |version: &String| {
            counts.map(|counts| counts.iter().filter(|((v, _), _)| v == version).map(|(_, rows)| rows).sum())
        };
        let version =
            |(colour, name): (usize, &String)| Version { name: name.clone(), colour, predictions: made(name) };
        self.versions.iter().enumerate().map(version).collect()
    }

    /// The colour of a version; what is of all versions has the one behind theirs, or that of the only one.
    fn colour(&self, version: &str) -> usize {
        let behind = if self.versions.len() > 1 { self.versions.len() } else { 0 };
        self.versions.iter().position(|known| known == version).unwrap_or(behind)
    }

    fn line(&self, series: &Series, windows: &Windows) -> Line {
        let version = if series.version.is_empty() { "all versions" } else { &series.version };
        let name = if series.route.is_empty() { version.to_owned() } else { format!("{version} · {}", series.route) };
        Line { name, colour: self.colour(&series.version), points: windows.values().map(point).collect() }
    }

    /// A chart for each statistic of series that are wanted, with a line for each version and route.
    fn charts(&self, kind: StatKind, wanted: impl Fn(&Series) -> bool) -> Vec<Chart> {
        let mut by_metric: BTreeMap<&str, Vec<(&Series, &Windows)>> = BTreeMap::new();
        for (series, windows) in self.overall(kind).filter(|(series, _)| wanted(series)) {
            by_metric.entry(&series.metric).or_default().push((series, windows));
        }
        let mut charts: Vec<Chart> =
            by_metric.into_iter().map(|(metric, of)| self.chart(title(metric), metric, &of)).collect();
        charts.sort_by_key(|chart| rank(&chart.metric));
        charts
    }

    fn chart(&self, title: String, metric: &str, of: &[(&Series, &Windows)]) -> Chart {
        let newest = of.iter().flat_map(|(_, windows)| windows.values().next_back()).map(|told| &told.newest);
        let threshold = newest.max_by_key(|stat| stat.window_start).and_then(|stat| stat.threshold);
        let mut lines: Vec<Line> = of.iter().map(|(series, windows)| self.line(series, windows)).collect();
        lines.sort_by_key(|line| line.colour);
        Chart { title, metric: metric.to_owned(), unit: unit(metric), lines, threshold, ..Chart::default() }
    }

    fn volume(&self, counts: &BTreeMap<(String, EventTime), u64>) -> Option<Chart> {
        let line = |version: &String| Line {
            name: version.clone(),
            colour: self.colour(version),
            points: counts
                .iter()
                .filter(|((v, _), _)| v == version)
                .map(|((_, day), rows)| Point {
                    start: *day,
                    end: day + DAY,
                    value: Some(*rows as f64),
                    first: None,
                    rows: *rows,
                    alarm: false,
                    complete: true,
                })
                .collect(),
        };
        let lines: Vec<Line> = self.versions.iter().map(line).filter(|line| !line.points.is_empty()).collect();
        (!lines.is_empty()).then(|| Chart {
            title: "Predictions by day".to_owned(),
            metric: "predictions".to_owned(),
            unit: Unit::Count,
            look: Look::Bars,
            lines,
            ..Chart::default()
        })
    }

    fn revisions(&self) -> Option<Revisions> {
        let mut again: BTreeMap<EventTime, bool> = BTreeMap::new();
        let mut largest: Option<(f64, (String, EventTime, f64, f64))> = None;
        for (series, windows) in
            self.overall(StatKind::Accuracy).filter(|(s, _)| !OF_LABELS.contains(&s.metric.as_str()))
        {
            for (start, told) in windows {
                *again.entry(*start).or_default() |= told.times > 1;
                let (Some(first), Some(newest)) = (told.first.value, told.newest.value) else { continue };
                let change = (newest - first).abs() / first.abs().max(newest.abs());
                let counted = series.metric == "confusion" || !series.subject.is_empty();
                if !counted && change.is_finite() && largest.as_ref().is_none_or(|(most, _)| change > *most) {
                    largest = Some((change, (series.metric.clone(), *start, first, newest)));
                }
            }
        }
        (!again.is_empty()).then(|| Revisions {
            windows: again.len(),
            told_again: again.values().filter(|again| **again).count(),
            largest: largest.filter(|(change, _)| *change > 0.0).map(|(_, what)| what),
        })
    }

    fn segments(&self) -> Vec<SegmentTable> {
        let mut by_column: BTreeMap<&str, Vec<(&Series, &Windows)>> = BTreeMap::new();
        for (series, windows) in self.series(StatKind::Accuracy) {
            if let Some((column, _)) = series.segment.split_once('=').filter(|_| series.subject.is_empty()) {
                by_column.entry(column).or_default().push((series, windows));
            }
        }
        by_column.into_iter().filter_map(|(column, of)| self.segment_table(column, &of)).collect()
    }

    fn segment_table(&self, column: &str, of: &[(&Series, &Windows)]) -> Option<SegmentTable> {
        let valued = |windows: &Windows| {
            windows.values().rev().find(|t| t.newest.value.is_some()).map(|t| t.newest.window_start)
        };
        let newest = of.iter().filter_map(|(_, windows)| valued(windows)).max()?;
        let there: Vec<_> = of.iter().filter_map(|(s, w)| w.get(&newest).map(|told| (*s, &told.newest))).collect();
        let version = there.iter().map(|(s, _)| s.version.as_str()).max_by_key(|version| self.colour(version))?;
        let there: Vec<_> = there.iter().filter(|(s, _)| s.version == version).collect();
        let metrics: BTreeSet<&str> =
            there.iter().map(|(s, _)| s.metric.as_str()).filter(|m| !OF_LABELS.contains(m)).collect();
        let mut metrics: Vec<String> = metrics.into_iter().map(str::to_owned).collect();
        metrics.sort_by_key(|metric| rank(metric));
        metrics.truncate(TILES_MAX);
        let window = there.first().map(|(_, stat)| (stat.window_start, stat.window_end))?;
        let mut by_value: BTreeMap<&str, (u64, Vec<Option<f64>>)> = BTreeMap::new();
        for (series, stat) in &there {
            let value = series.segment.split_once('=').map_or("", |(_, value)| value);
            let row = by_value.entry(value).or_insert_with(|| (0, vec![None; metrics.len()]));
            if let Some(at) = metrics.iter().position(|metric| *metric == series.metric) {
                row.0 = row.0.max(stat.rows);
                row.1[at] = stat.value;
            }
        }
        let mut rows: Vec<_> = by_value.into_iter().map(|(value, (n, values))| (value.to_owned(), n, values)).collect();
        rows.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        let left_out = rows.len().saturating_sub(SEGMENTS_MAX);
        rows.truncate(SEGMENTS_MAX);
        Some(SegmentTable { column: column.to_owned(), window, version: version.to_owned(), metrics, rows, left_out })
    }

    /// The newest window's matrix, of the newest version that has one.
    fn confusion(&self) -> Option<Confusion> {
        let cells: Vec<_> = self
            .overall(StatKind::Accuracy)
            .filter(|(series, _)| series.metric == "confusion")
            .filter_map(|(series, windows)| Some((series, windows, label_and_prediction(&series.subject)?)))
            .collect();
        let newest = |windows: &Windows| {
            windows.values().rev().find(|t| t.newest.value.is_some()).map(|t| t.newest.window_start)
        };
        let start = cells.iter().filter_map(|(_, windows, _)| newest(windows)).max()?;
        let there = cells.iter().filter(|(_, windows, _)| windows.contains_key(&start));
        let version = there.map(|(series, ..)| series.version.as_str()).max_by_key(|version| self.colour(version))?;
        let mut counts: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        let mut window = (start, start);
        for (series, windows, pair) in &cells {
            let Some(told) = windows.get(&start).filter(|_| series.version == version) else { continue };
            window.1 = told.newest.window_end;
            if let Some(count) = told.newest.value {
                // Several routes of one version are one matrix.
                *counts.entry(*pair).or_default() += count;
            }
        }
        let mut classes: Vec<&str> = counts.keys().flat_map(|(label, predicted)| [*label, *predicted]).collect();
        let number = |class: &str| class.parse::<f64>().unwrap_or(f64::INFINITY);
        classes.sort_by(|a, b| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
        classes.dedup();
        let row = |label: &&str| classes.iter().map(|predicted| counts.get(&(*label, *predicted)).copied()).collect();
        Some(Confusion {
            window,
            version: version.to_owned(),
            counts: classes.iter().map(row).collect(),
            classes: classes.iter().map(|class| (*class).to_owned()).collect(),
        })
    }

    /// The drift of columns: what is of a column, by column. Change detectors look at errors, not at a column.
    fn drift_columns(&self) -> BTreeMap<&'a str, Vec<(&'a Series, &'a Windows)>> {
        let mut columns: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (series, windows) in
            self.overall(StatKind::Drift).filter(|(s, _)| !s.subject.is_empty() && s.subject != ERRORS)
        {
            columns.entry(&series.subject).or_default().push((series, windows));
        }
        columns
    }

    fn heat(&self) -> Option<Heat> {
        let columns = self.drift_columns();
        let mut windows: BTreeMap<EventTime, EventTime> = BTreeMap::new();
        for (_, of) in columns.values().flatten() {
            windows.extend(of.values().map(|told| (told.newest.window_start, told.newest.window_end)));
        }
        let windows: Vec<(EventTime, EventTime)> = windows.into_iter().collect();
        if windows.is_empty() {
            return None;
        }
        let together = windows.len().div_ceil(HEAT_WINDOWS_MAX);
        let windows: Vec<(EventTime, EventTime)> =
            windows.chunks(together).map(|chunk| (chunk[0].0, chunk[chunk.len() - 1].1)).collect();
        let worst = |of: &[(&Series, &Windows)], (from, to): (EventTime, EventTime)| {
            let cells = of
                .iter()
                .flat_map(|(series, windows)| windows.range(from..to).filter_map(|(_, told)| cell(series, told)));
            cells.max_by(|a, b| badness(a).partial_cmp(&badness(b)).unwrap_or(std::cmp::Ordering::Equal))
        };
        let mut rows: Vec<(String, Vec<Option<Cell>>)> = columns
            .iter()
            .map(|(column, of)| ((*column).to_owned(), windows.iter().map(|window| worst(of, *window)).collect()))
            .collect();
        let alarms = |row: &[Option<Cell>]| row.iter().flatten().filter(|cell| cell.alarm).count();
        // What drifts first; the others stay by name.
        rows.sort_by_key(|row| std::cmp::Reverse(alarms(&row.1)));
        Some(Heat { windows, together, rows })
    }

    /// Charts of columns, those that drift first, and how many columns have none.
    fn columns(&self) -> (Vec<Chart>, usize) {
        let mut charts: Vec<((usize, f64), Chart)> = Vec::new();
        for (column, of) in self.drift_columns() {
            // The statistic that says most, as in the map.
            let mut metrics: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
            for (series, windows) in &of {
                let entry = metrics.entry(&series.metric).or_insert((0, -1.0));
                for cell in windows.values().filter_map(|told| cell(series, told)) {
                    entry.0 += usize::from(cell.alarm);
                    entry.1 = entry.1.max(cell.ratio.unwrap_or(-0.5));
                }
            }
            let lead = metrics.into_iter().max_by(|(a, x), (b, y)| {
                let first = |metric: &str, weight: &(usize, f64)| (weight.0 > 0, !alarms_below(metric), weight.0);
                first(a, x).cmp(&first(b, y)).then(x.1.total_cmp(&y.1)).then_with(|| rank(b).cmp(&rank(a)))
            });
            let Some((metric, weight)) = lead else { continue };
            let of: Vec<_> = of.into_iter().filter(|(series, _)| series.metric == metric).collect();
            let mut chart = self.chart(column.to_owned(), metric, &of);
            chart.note = Some(title(metric));
            charts.push((weight, chart));
        }
        charts.sort_by(|(a, _), (b, _)| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
        let left_out = charts.len().saturating_sub(COLUMNS_MAX);
        charts.truncate(COLUMNS_MAX);
        (charts.into_iter().map(|(_, chart)| chart).collect(), left_out)
    }

    fn quality(&self) -> Option<QualityTable> {
        let mut columns: BTreeMap<&str, BTreeMap<&str, Line>> = BTreeMap::new();
        let mut categories: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
        for (series, windows) in self.overall(StatKind::Quality).filter(|(series, _)| !series.subject.is_empty()) {
            match series.subject.split_once('=') {
                Some((column, value)) if series.metric == "new_category" => {
                    let most = windows.values().filter_map(|told| told.newest.value).fold(0.0, f64::max);
                    let known = categories.entry(column).or_default().entry(value).or_default();
                    *known = most.max(*known);
                }
                _ => {
                    // One line whatever the version: rows are the same to all.
                    let line = columns.entry(&series.subject).or_default().entry(&series.metric).or_default();
                    line.points.extend(windows.values().map(point));
                }
            }
        }
        for line in columns.values_mut().flat_map(BTreeMap::values_mut) {
            line.points.sort_by_key(|point| point.start);
        }
        let metrics: BTreeSet<&str> = columns.values().flat_map(|lines| lines.keys().copied()).collect();
        let mut metrics: Vec<&str> = metrics.into_iter().collect();
        metrics.sort_by_key(|metric| rank(metric));
        metrics.truncate(QUALITY_METRICS_MAX);
        let named = |column: &str| {
            let mut list: Vec<(String, f64)> =
                categories.get(column).into_iter().flatten().map(|(name, most)| ((*name).to_owned(), *most)).collect();
            list.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            list.truncate(CATEGORIES_MAX);
            list
        };
        let columns: Vec<QualityColumn> = columns
            .into_iter()
            .map(|(name, mut lines)| QualityColumn {
                name: name.to_owned(),
                values: metrics.iter().map(|metric| lines.remove(metric)).collect(),
                new_categories: named(name),
            })
            .collect();
        let metrics = metrics.into_iter().map(str::to_owned).collect();
        (!columns.is_empty()).then_some(QualityTable { metrics, columns })
    }

    /// How the job ran: of samples that share a point, the one that is worst.
    fn operation(&self) -> (Vec<Chart>, usize) {
        let mut charts = self.charts(StatKind::Operation, |series| series.metric != "latency_max_ms");
        let samples = charts.iter().flat_map(|chart| &chart.lines).map(|line| line.points.len()).max().unwrap_or(0);
        let together = samples.div_ceil(SAMPLES_MAX).max(1);
        for chart in &mut charts {
            let several = chart.lines.len() > 1;
            for (colour, line) in chart.lines.iter_mut().enumerate() {
                line.points = line.points.chunks(together).filter_map(|points| worst(points, &chart.metric)).collect();
                line.colour = colour;
                if !several {
                    line.name.clear();
                }
            }
        }
        // Two latencies say more in one chart.
        let at = |charts: &[Chart], metric: &str| charts.iter().position(|chart| chart.metric == metric);
        if let (Some(_), Some(median)) = (at(&charts, "latency_p99_ms"), at(&charts, "latency_p50_ms")) {
            let median = charts.remove(median);
            let both = at(&charts, "latency_p99_ms").map(|at| &mut charts[at]);
            both.into_iter().for_each(|both| join_latencies(both, median.lines.clone()));
        }
        (charts, together)
    }
}

fn join_latencies(chart: &mut Chart, medians: Vec<Line>) {
    chart.title = "Latency".to_owned();
    let several = chart.lines.len() > 1;
    let named = |line: Line, what: &str, colour: usize| Line {
        name: if several { format!("{what}, {}", line.name) } else { what.to_owned() },
        colour,
        ..line
    };
    let slowest = std::mem::take(&mut chart.lines).into_iter().enumerate();
    chart.lines = slowest.map(|(i, line)| named(line, "99th percentile", 2 * i)).collect();
    chart.lines.extend(medians.into_iter().enumerate().map(|(i, line)| named(line, "median", 2 * i + 1)));
}

fn point(told: &Told) -> Point {
    let stat = &told.newest;
    Point {
        start: stat.window_start,
        end: stat.window_end,
        value: stat.value,
        first: told.first.value.filter(|_| told.first.revision != stat.revision),
        rows: stat.rows,
        alarm: stat.alarm == Some(true),
        complete: stat.complete,
    }
}

/// One point for several: the worst value, or the last where none is better than another.
fn worst(points: &[Point], metric: &str) -> Option<Point> {
    let valued = || points.iter().filter_map(|point| Some((point.value?, point)));
    let pick = match better(metric) {
        Better::Less => valued().max_by(|a, b| a.0.total_cmp(&b.0)),
        Better::More => valued().min_by(|a, b| a.0.total_cmp(&b.0)),
        Better::Neither => valued().next_back(),
    };
    let (first, last) = (points.first()?, points.last()?);
    let mut one = pick.map_or(last, |(_, point)| point).clone();
    (one.start, one.end) = (first.start, last.end);
    one.rows = points.iter().map(|point| point.rows).sum();
    one.alarm = points.iter().any(|point| point.alarm);
    Some(one)
}

fn cell(series: &Series, told: &Told) -> Option<Cell> {
    let stat = &told.newest;
    let value = stat.value?;
    let ratio = stat.threshold.map(|threshold| {
        match alarms_below(&series.metric) {
            // Probabilities fall by powers of ten where others grow by parts.
            true if value < threshold => 1.0 + (threshold / value.max(1e-300)).log10(),
            true => threshold / value,
            // Nothing is beyond nothing.
            false if value == 0.0 => 0.0,
            false => (value / threshold).abs().min(1e6),
        }
    });
    Some(Cell {
        metric: series.metric.clone(),
        version: series.version.clone(),
        value,
        threshold: stat.threshold,
        ratio,
        alarm: stat.alarm == Some(true),
    })
}

/// Of two cells the one with more of this is shown: alarms, then sizes before probabilities, which say of large samples that
/// they differ and not how much, then how near it is to its threshold.
fn badness(cell: &Cell) -> (bool, bool, f64) {
    (cell.alarm, cell.ratio.is_some() && !alarms_below(&cell.metric), cell.ratio.unwrap_or(-1.0))
}

/// The label and the predicted class that a cell of a confusion matrix is of: `tp`, or two classes in this order, whatever
/// words and signs are around them.
pub(super) fn label_and_prediction(subject: &str) -> Option<(&str, &str)> {
    match subject {
        "tp" => return Some(("1", "1")),
        "fn" => return Some(("1", "0")),
        "fp" => return Some(("0", "1")),
        "tn" => return Some(("0", "0")),
        _ => {}
    }
    const WORDS: [&str; 7] = ["label", "labelled", "actual", "true", "predicted", "prediction", "as"];
    let mut parts = subject
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
        .filter(|part| !part.is_empty() && !WORDS.contains(part));
    let pair = (parts.next()?, parts.next()?);
    parts.next().is_none().then_some(pair)
}

/// Alerts from when they fired until they were resolved.
fn alerts<'a>(rows: impl Iterator<Item = &'a AlertRow>) -> Vec<AlertSpan> {
    let mut spans: Vec<AlertSpan> = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let firing = row.state != "resolved";
        match open.get(row.fingerprint.as_str()) {
            Some(&at) if firing => spans[at].times += 1,
            Some(&at) => {
                spans[at].end = Some(row.at);
                open.remove(row.fingerprint.as_str());
            }
            // What fired before the time that was asked for is not known.
            None if !firing => {}
            None => {
                open.insert(&row.fingerprint, spans.len());
                let parts = [title(&row.metric), row.subject.clone(), row.segment.clone()];
                let about: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                spans.push(AlertSpan {
                    name: row.name.clone(),
                    severity: row.severity.clone(),
                    about: about.join(", "),
                    start: row.at,
                    end: None,
                    value: row.value,
                    threshold: row.threshold,
                    unit: unit(&row.metric),
                    times: 1,
                    message: row.message.clone(),
                });
            }
        }
    }
    spans
}

/// The newest value of a chart, and the one before: of the line that reaches furthest, the newest version among equals.
fn newest(chart: &Chart) -> Option<(&Line, &Point, Option<f64>)> {
    let last = |line: &Line| line.points.iter().rposition(|point| point.value.is_some());
    let reach = |line: &&Line| last(line).map(|at| (line.points[at].start, line.colour));
    let line = chart.lines.iter().filter(|line| last(line).is_some()).max_by_key(reach)?;
    let at = last(line)?;
    let before = line.points[..at].iter().rev().find_map(|point| point.value);
    Some((line, &line.points[at], before))
}

fn headline(page: &ModelPage) -> Vec<Tile> {
    let tile = |chart: &Chart| {
        let (line, point, before) = newest(chart)?;
        Some(Tile {
            title: chart.title.clone(),
            value: point.value?,
            unit: chart.unit,
            of: line.name.clone(),
            window: Some((point.start, point.end)),
            before,
            better: better(&chart.metric),
            alarm: point.alarm,
            open: !point.complete,
        })
    };
    let mut tiles: Vec<Tile> = page.accuracy.iter().filter_map(tile).take(TILES_MAX).collect();
    if let Some(heat) = &page.heat {
        let drifting = |at: usize| {
            heat.rows.iter().filter(|(_, cells)| cells[at].as_ref().is_some_and(|cell| cell.alarm)).count() as f64
        };
        let last = heat.windows.len() - 1;
        tiles.push(Tile {
            title: "Columns that drift".to_owned(),
            value: drifting(last),
            unit: Unit::Count,
            of: format!("of {}", heat.rows.len()),
            window: Some(heat.windows[last]),
            before: last.checked_sub(1).map(drifting),
            better: Better::Less,
            alarm: drifting(last) > 0.0,
            open: false,
        });
    }
    if page.has_alerts {
        let firing = page.alerts.iter().filter(|alert| alert.end.is_none()).count();
        tiles.push(Tile {
            title: "Alerts firing".to_owned(),
            value: firing as f64,
            unit: Unit::Count,
            of: format!("of {} so far", page.alerts.len()),
            window: None,
            before: None,
            better: Better::Less,
            alarm: firing > 0,
            open: false,
        });
    }
    if let Some(latency) = page.operation.iter().find(|chart| chart.metric == "latency_p99_ms") {
        let slowest = Chart { lines: latency.lines.iter().take(1).cloned().collect(), ..latency.clone() };
        tiles.extend(tile(&slowest));
    }
    tiles
}
