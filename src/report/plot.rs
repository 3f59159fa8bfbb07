//! Plots of numbers against numbers as SVG: calibration, importance, tuning. Colours come from the page's style; a tuning
//! also stands alone, with the style in it.

use std::fmt::Write;

use super::format;
use super::html::Html;
use crate::train::explain::Importance;
use crate::train::metrics::CalibrationBin;
use crate::train::tune::Table;

const WIDTH: f64 = 360.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

/// An axis: values from `low` to `high`, written at `steps`.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    steps: Vec<f64>,
}

impl Axis {
    /// Round values from below the least to above the most.
    fn linear(low: f64, high: f64) -> Axis {
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
        let rough = (high - low) / 3.0;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|s| s * power).find(|s| *s >= rough * 0.999).unwrap_or(power);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let steps: Vec<f64> = (0..=((last - first) as usize).min(8)).map(|i| (first + i as f64) * step).collect();
        Axis { low: first * step, high: last * step, log: false, steps }
    }

    /// Powers of ten around values above 0.
    fn logarithmic(low: f64, high: f64) -> Axis {
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let last = last.max(first + 1);
        let each = ((last - first) / 6 + 1).max(1);
        let steps = (first..=last).filter(|power| (power - first) % each == 0).map(|power| 10f64.powi(power)).collect();
        Axis { low: 10f64.powi(first), high: 10f64.powi(last), log: true, steps }
    }

    /// Place from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low).log10() - self.low.log10()) / (self.high.log10() - self.low.log10())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0)
    }
}

/// Where a plot is drawn.
struct Frame {
    x: Axis,
    y: Axis,
    height: f64,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.part(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.height - BOTTOM - self.y.part(value) * (self.height - TOP - BOTTOM)
    }

    /// Opens the drawing, with grid, axes and their names.
    fn open(&self, html: &mut Html, id: &str, title: &str, described: &str, names: (&str, &str)) {
        open(html, id, self.height, title, described);
        for step in &self.y.steps {
            let y = self.y(*step);
            html.raw(format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>", WIDTH - RIGHT));
            html.raw(format_args!(
                "<text class=\"axis\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">",
                LEFT - 6.0,
                y + 3.5
            ));
            html.text(format::number(*step)).raw("</text>");
        }
        for (i, step) in self.x.steps.iter().enumerate() {
            let x = self.x(*step);
            let anchor = if i + 1 == self.x.steps.len() && x > WIDTH - RIGHT - 8.0 { "end" } else { "middle" };
            html.raw(format_args!("<path class=\"tick\" d=\"M{x:.1} {}v4\"/>", self.height - BOTTOM));
            html.raw(format_args!(
                "<text class=\"axis\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">",
                self.height - 18.0
            ));
            html.text(format::number(*step)).raw("</text>");
        }
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        html.raw(format_args!(
            "<text class=\"axis\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">",
            self.height - 4.0
        ));
        html.text(names.0).raw("</text>");
        if !names.1.is_empty() {
            let y = TOP + (self.height - TOP - BOTTOM) / 2.0;
            html.raw(format_args!(
                "<text class=\"axis\" transform=\"translate(10 {y:.1}) rotate(-90)\" text-anchor=\"middle\">"
            ));
            html.text(names.1).raw("</text>");
        }
    }
}

fn open(html: &mut Html, id: &str, height: f64, title: &str, described: &str) {
    html.raw(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}t {id}d\"><title id=\"{id}t\">"
    ));
    html.text(title).raw(format_args!("</title><desc id=\"{id}d\">")).text(described).raw("</desc>");
}

/// Mean scores against shares of positives, the challenger's (first colour) and the champion's (second), with intervals. A
/// rare class is drawn on logarithms, or nearly all of it would lie in one corner.
pub(super) fn calibration(html: &mut Html, id: &str, challenger: &[CalibrationBin], champion: &[CalibrationBin]) {
    let all = || challenger.iter().chain(champion);
    let most = all().map(|bin| bin.score.max(bin.high)).fold(0.0, f64::max).max(1e-6);
    let least = all().flat_map(|bin| [bin.score, bin.share]).filter(|value| *value > 0.0).fold(most, f64::min);
    let log = least < most / 30.0;
    let axis = || if log { Axis::logarithmic(least.max(1e-5), most) } else { Axis::linear(0.0, most.min(1.0)) };
    let frame = Frame { x: axis(), y: axis(), height: 250.0 };
    let described = format!(
        "{} groups of rows by score; on the line, the share of positives is the score. The table below has all values.",
        challenger.len()
    );
    frame.open(html, id, "Calibration", &described, ("mean score", "share of positives"));
    let (from, to) = (frame.x.low, frame.x.high);
    html.raw(format_args!(
        "<path class=\"even\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>",
        frame.x(from),
        frame.y(from),
        frame.x(to),
        frame.y(to)
    ));
    for (bins, colour) in [(champion, 1), (challenger, 0)] {
        let mut path = String::new();
        for (i, bin) in bins.iter().enumerate() {
            let (x, y) = (frame.x(bin.score), frame.y(bin.share));
            let _ = write!(path, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
            html.raw(format_args!(
                "<path class=\"reach s{colour}\" d=\"M{x:.1} {:.1}V{:.1}\"/>",
                frame.y(bin.low),
                frame.y(bin.high)
            ));
        }
        html.raw(format_args!("<path class=\"line s{colour}\" d=\"{path}\"/>"));
        for bin in bins {
            let (x, y) = (frame.x(bin.score), frame.y(bin.share));
            html.raw(format_args!("<circle class=\"known f{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"><title>"));
            html.text(format_args!(
                "mean score {}, share of positives {} ({} to {}); {} rows",
                format::number(bin.score),
                format::number(bin.share),
                format::number(bin.low),
                format::number(bin.high),
                format::grouped(bin.rows as f64)
            ));
            html.raw("</title></circle>");
        }
    }
    html.raw("</svg>");
}

/// Inputs that are drawn at most.
pub(super) const INPUTS_MAX: usize = 20;

/// Bars of how much worse the statistic is without an input, with the spread over shuffles; a thin bar below tells the share
/// of gain.
pub(super) fn importance(html: &mut Html, id: &str, importance: &Importance) {
    const ROW: f64 = 21.0;
    const NAMES: f64 = 172.0;
    const VALUES: f64 = 52.0;
    let inputs: Vec<_> = importance.inputs.iter().take(INPUTS_MAX).collect();
    let height = TOP + ROW * inputs.len() as f64 + 4.0;
    let described = format!(
        "{} inputs; the first, {}, makes {} worse by {}. The table below has all values.",
        inputs.len(),
        inputs.first().map_or("", |input| input.name.as_str()),
        importance.metric,
        format::number(inputs.first().map_or(0.0, |input| input.worse))
    );
    open(html, id, height, "Importance of inputs", &described);
    let most = inputs.iter().map(|input| input.worse + input.sd.unwrap_or(0.0)).fold(0.0, f64::max).max(1e-12);
    let gain = inputs.iter().filter_map(|input| input.gain).fold(0.0, f64::max).max(1e-12);
    let room = WIDTH - NAMES - VALUES;
    for (i, input) in inputs.iter().enumerate() {
        let y = TOP + ROW * i as f64;
        let shown = shortened(&input.name, 26);
        html.raw(format_args!("<text class=\"name\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">", NAMES - 8.0, y + 10.0));
        html.text(&shown).raw("<title>").text(&input.name).raw("</title></text>");
        let wide = (input.worse.max(0.0) / most * room).max(0.6);
        html.raw(format_args!(
            "<rect class=\"f0\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"9\" rx=\"1.5\"><title>",
            y + 2.0
        ));
        html.text(format_args!("{}: {} worse by {}", input.name, importance.metric, format::number(input.worse)));
        html.raw("</title></rect>");
        if let Some(sd) = input.sd.filter(|sd| *sd > 0.0) {
            let at = |value: f64| NAMES + (value / most * room).clamp(0.0, room);
            html.raw(format_args!(
                "<path class=\"reach s5\" d=\"M{:.1} {:.1}H{:.1}\"/>",
                at(input.worse - sd),
                y + 6.5,
                at(input.worse + sd)
            ));
        }
        if let Some(share) = input.gain {
            html.raw(format_args!(
                "<rect class=\"f1\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"3\" rx=\"1\"><title>",
                y + 12.5,
                share / gain * room
            ));
            html.text(format_args!(
                "{}: {} of all gain",
                input.name,
                format::value(share, super::metrics::Unit::Share)
            ));
            html.raw("</title></rect>");
        }
        html.raw(format_args!("<text class=\"axis\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">", WIDTH - 2.0, y + 10.0));
        html.text(format::number(input.worse)).raw("</text>");
    }
    html.raw("</svg>");
}

/// A name with its middle left out where it is long: both ends tell it from others.
fn shortened(name: &str, most: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= most {
        return name.to_owned();
    }
    let (head, tail) = ((most - 1) / 2, (most - 1) - (most - 1) / 2);
    letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect()
}

/// Trials in their order with the best so far.
pub(super) fn trials(html: &mut Html, id: &str, table: &Table) {
    let means: Vec<f64> = table.trials.iter().filter_map(|trial| trial.mean).collect();
    let (low, high) = span(&trimmed(&means, table.more_is_better));
    let frame = Frame {
        x: Axis::linear(0.0, (table.trials.len() as f64 - 1.0).max(1.0)),
        y: Axis::linear(low, high),
        height: 220.0,
    };
    let best = table.best().and_then(|best| best.mean);
    let described = format!(
        "{} trials; the best has {} {}. The table below has the best of them.",
        table.trials.len(),
        table.metric,
        best.map_or_else(|| "–".to_owned(), format::number)
    );
    frame.open(
        html,
        id,
        "Trials",
        &described,
        ("trial, in the order they were begun", &super::metrics::title(&table.metric)),
    );
    let better = |a: f64, b: f64| if table.more_is_better { a > b } else { a < b };
    // The best so far is a step line; of successive halving, only rounds are to be compared, so each has its own.
    let rounds = table.trials.iter().map(|trial| trial.round).max().unwrap_or(0);
    for round in 0..=rounds {
        let mut path = String::new();
        let mut so_far: Option<f64> = None;
        for (i, trial) in table.trials.iter().enumerate().filter(|(_, trial)| trial.round == round) {
            let Some(mean) = trial.mean else { continue };
            let x = frame.x(i as f64);
            match so_far {
                None => {
                    let _ = write!(path, "M{x:.1} {:.1}", frame.y(mean));
                    so_far = Some(mean);
                }
                Some(best) => {
                    let _ = write!(path, "H{x:.1}");
                    if better(mean, best) {
                        let _ = write!(path, "V{:.1}", frame.y(mean));
                        so_far = Some(mean);
                    }
                }
            }
        }
        html.raw(format_args!("<path class=\"line s{}\" d=\"{path}\"/>", round as usize % 6));
    }
    for (i, trial) in table.trials.iter().enumerate() {
        let Some(mean) = trial.mean else { continue };
        dot(html, (frame.x(i as f64), frame.y(mean)), trial.round as usize, i == table.best, &hint(table, i));
    }
    html.raw("</svg>");
}

/// A setting against the statistic, one dot for each trial; none where it is no number or always the same.
pub(super) fn setting(html: &mut Html, id: &str, table: &Table, name: &str) -> bool {
    let points: Vec<(usize, f64, f64)> = table
        .trials
        .iter()
        .enumerate()
        .filter_map(|(i, trial)| Some((i, trial.values.get(name)?.as_f64()?, trial.mean?)))
        .collect();
    let (low, high) = span(&points.iter().map(|point| point.1).collect::<Vec<f64>>());
    if points.len() < 3 || low >= high {
        return false;
    }
    let means: Vec<f64> = points.iter().map(|point| point.2).collect();
    let (worst, best) = span(&trimmed(&means, table.more_is_better));
    let x = if low > 0.0 && high / low > 30.0 { Axis::logarithmic(low, high) } else { Axis::linear(low, high) };
    let frame = Frame { x, y: Axis::linear(worst, best), height: 170.0 };
    let described =
        format!("{} trials by {name}, from {} to {}.", points.len(), format::number(low), format::number(high));
    frame.open(html, id, name, &described, (name, ""));
    for (i, value, mean) in points {
        let round = table.trials[i].round as usize;
        dot(html, (frame.x(value), frame.y(mean)), round, i == table.best, &hint(table, i));
    }
    html.raw("</svg>");
    true
}

fn dot(html: &mut Html, (x, y): (f64, f64), colour: usize, best: bool, hint: &str) {
    if best {
        html.raw(format_args!("<circle class=\"ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\"/>"));
    }
    html.raw(format_args!("<circle class=\"known f{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\"><title>", colour % 6));
    html.text(hint).raw("</title></circle>");
}

fn hint(table: &Table, at: usize) -> String {
    let trial = &table.trials[at];
    let values: Vec<String> = trial.values.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mean = trial.mean.map_or_else(|| "–".to_owned(), format::number);
    format!("trial {}: {} {mean}; {}", trial.number, table.metric, values.join(", "))
}

fn span(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// Without the outliers on the bad side, which would press the rest together; they are drawn at the edge.
fn trimmed(values: &[f64], more_is_better: bool) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    if !more_is_better {
        sorted.reverse();
    }
    // From here on the worst stands first.
    if sorted.len() >= 8 {
        let (quarter, middle, last) = (sorted[sorted.len() / 4], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        let reach = 4.0 * (last - middle).abs().max((middle - quarter).abs());
        sorted.retain(|value| (value - middle).abs() <= reach);
    }
    sorted
}

/// A difference with its interval on a line with 0 in the middle; `most` is the farthest end of all.
pub(super) fn whisker(html: &mut Html, (value, low, high): (f64, f64, f64), most: f64, class: &str) {
    let at = |value: f64| 60.0 + 56.0 * (value / most).clamp(-1.0, 1.0);
    html.raw(
        "<svg class=\"whisker\" viewBox=\"0 0 120 16\" aria-hidden=\"true\"><path class=\"tick\" d=\"M60 1V15\"/>",
    );
    html.raw(format_args!("<path class=\"reach {class}\" d=\"M{:.1} 8H{:.1}\"/>", at(low), at(high)));
    html.raw(format_args!("<circle class=\"{class}\" cx=\"{:.1}\" cy=\"8\" r=\"2.8\"/></svg>", at(value)));
}

/// What plots need beyond the page's style.
pub(super) const STYLE: &str = "\
.even{stroke:var(--muted);stroke-width:1;stroke-dasharray:4 3;fill:none}\
.reach{stroke-width:1.3;fill:none;opacity:.55}\
.name{fill:var(--ink);font-size:9px}\
.ring{fill:none;stroke:var(--bad);stroke-width:1.6}\
.whisker{display:block;width:120px;height:16px}\
.whisker .reach{opacity:.8}\
.whisker .good{stroke:var(--good);fill:var(--good)}.whisker .worse{stroke:var(--bad);fill:var(--bad)}.whisker .even{stroke:var(--muted);fill:var(--muted);stroke-dasharray:none}";

/// A tuning as a drawing that stands alone.
pub fn tuning_svg(table: &Table) -> String {
    let mut html = Html::default();
    trials(&mut html, "tuning", table);
    let drawing = html.finish();
    // The style goes behind the title; a drawing on its own needs a ground of its own, too.
    let style = format!(
        "<style>{}{STYLE}svg{{font-family:system-ui,sans-serif}}.ground{{fill:var(--card)}}</style><rect class=\"ground\" width=\"100%\" height=\"100%\"/>",
        super::sections::STYLE
    );
    drawing.replacen("</desc>", &format!("</desc>{style}"), 1)
}
