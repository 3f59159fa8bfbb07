//! Charts as SVG, drawn for a card of some 360 pixels and scaled with it. Colours come from the page's style, so that they
//! follow light and dark. A table beside each chart says the same in numbers.

use std::fmt::Write;

use super::format;
use super::html::{Html, escaped};
use super::model::{Chart, Line, Look, Point, Unit};
use crate::base::EventTime;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 184.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 24.0;
/// Colours in the page's style.
pub(super) const COLOURS: usize = 6;
const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Where values are drawn.
struct Scale {
    from: EventTime,
    to: EventTime,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, time: EventTime) -> f64 {
        let part = (time - self.from) as f64 / (self.to - self.from).max(1) as f64;
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }
}

/// Whether there is a value to draw.
pub(super) fn has_values(chart: &Chart) -> bool {
    chart.lines.iter().flat_map(|line| &line.points).any(|point| point.value.is_some())
}

/// Draws a chart. `id` is the element's, `span` the time to show.
pub(super) fn draw(html: &mut Html, id: &str, chart: &Chart, span: (EventTime, EventTime)) {
    let steps = steps(chart);
    let scale = Scale {
        from: span.0,
        to: span.1,
        low: steps.first().copied().unwrap_or(0.0),
        high: steps.last().copied().unwrap_or(1.0),
    };
    html.raw(format_args!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}t {id}d\"><title id=\"{id}t\">"
    ));
    html.text(&chart.title).raw(format_args!("</title><desc id=\"{id}d\">")).text(described(chart)).raw("</desc>");
    for step in &steps {
        let y = scale.y(*step);
        html.raw(format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>", WIDTH - RIGHT));
        html.raw(format_args!("<text class=\"axis\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">", LEFT - 6.0, y + 3.5));
        html.text(format::value(*step, chart.unit)).raw("</text>");
    }
    for (i, time) in days(span).into_iter().enumerate() {
        let x = scale.x(time);
        let anchor = if i == 0 && x < LEFT + 16.0 { "start" } else { "middle" };
        let anchor = if x > WIDTH - 26.0 { "end" } else { anchor };
        html.raw(format_args!("<path class=\"tick\" d=\"M{x:.1} {}v4\"/>", HEIGHT - BOTTOM));
        html.raw(format_args!("<text class=\"axis\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">", HEIGHT - 7.0));
        html.text(format::tick(time, span.1 - span.0)).raw("</text>");
    }
    match chart.look {
        Look::Bars => bars(html, chart, &scale),
        Look::Lines => {
            for line in &chart.lines {
                draw_line(html, chart, line, &scale);
            }
        }
    }
    if let Some(threshold) = chart.threshold.filter(|threshold| (scale.low..=scale.high).contains(threshold)) {
        let y = scale.y(threshold);
        html.raw(format_args!("<path class=\"threshold\" d=\"M{LEFT} {y:.1}H{}\"><title>threshold ", WIDTH - RIGHT));
        html.text(format::value(threshold, chart.unit)).raw("</title></path>");
    }
    html.raw("</svg>");
}

fn draw_line(html: &mut Html, chart: &Chart, line: &Line, scale: &Scale) {
    let colour = line.colour % COLOURS;
    let at = |point: &Point| scale.x(point.start + (point.end - point.start) / 2);
    // What was told first, and the band between it and what is known now.
    for run in runs(&line.points, |point| point.value.is_some() && point.first.is_some()) {
        let mut band = String::new();
        for (i, point) in run.iter().enumerate() {
            let _ = write!(
                band,
                "{}{:.1} {:.1}",
                if i == 0 { 'M' } else { 'L' },
                at(point),
                scale.y(point.value.unwrap_or(0.0))
            );
        }
        let mut first = String::new();
        for (i, point) in run.iter().enumerate() {
            let _ = write!(
                first,
                "{}{:.1} {:.1}",
                if i == 0 { 'M' } else { 'L' },
                at(point),
                scale.y(point.first.unwrap_or(0.0))
            );
        }
        for point in run.iter().rev() {
            let _ = write!(band, "L{:.1} {:.1}", at(point), scale.y(point.first.unwrap_or(0.0)));
        }
        html.raw(format_args!(
            "<path class=\"band f{colour}\" d=\"{band}Z\"/><path class=\"first s{colour}\" d=\"{first}\"/>"
        ));
    }
    for run in runs(&line.points, |point| point.value.is_some()) {
        let mut path = String::new();
        for (i, point) in run.iter().enumerate() {
            let _ = write!(
                path,
                "{}{:.1} {:.1}",
                if i == 0 { 'M' } else { 'L' },
                at(point),
                scale.y(point.value.unwrap_or(0.0))
            );
        }
        html.raw(format_args!("<path class=\"line s{colour}\" d=\"{path}\"/>"));
    }
    // A mark for each value as long as they can be told apart; always where there is an alarm.
    let all = line.points.len() <= 62;
    for point in &line.points {
        let Some(value) = point.value.filter(|_| all || point.alarm) else { continue };
        let (x, y) = (at(point), scale.y(value));
        let form = if point.alarm {
            "alarm"
        } else if point.complete {
            "known"
        } else {
            "open"
        };
        html.raw(format_args!(
            "<circle class=\"{form} s{colour} f{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{}\"><title>",
            if point.alarm { 3.4 } else { 2.2 }
        ));
        html.text(hint(chart, line, point, value)).raw("</title></circle>");
    }
}

/// What is said when a value is pointed at.
fn hint(chart: &Chart, line: &Line, point: &Point, value: f64) -> String {
    let mut text = format!("{}: {}", format::window(point.start, point.end), format::value(value, chart.unit));
    if chart.lines.len() > 1 {
        let _ = write!(text, " ({})", line.name);
    }
    if let Some(first) = point.first {
        let _ = write!(text, ", first told as {}", format::value(first, chart.unit));
    }
    let _ = write!(text, "; {} rows", format::grouped(point.rows as f64));
    if point.alarm {
        text.push_str("; beyond its threshold");
    }
    if !point.complete {
        text.push_str("; may still change");
    }
    text
}

fn bars(html: &mut Html, chart: &Chart, scale: &Scale) {
    let mut below: std::collections::BTreeMap<EventTime, f64> = std::collections::BTreeMap::new();
    for line in &chart.lines {
        let colour = line.colour % COLOURS;
        for point in &line.points {
            let Some(value) = point.value else { continue };
            let base = below.entry(point.start).or_insert(0.0);
            let (left, right) = (scale.x(point.start), scale.x(point.end));
            let gap = ((right - left) * 0.15).min(2.0);
            let (top, bottom) = (scale.y(*base + value), scale.y(*base));
            *base += value;
            html.raw(format_args!(
                "<rect class=\"bar f{colour}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>",
                left + gap / 2.0,
                (right - left - gap).max(0.5),
                (bottom - top).max(0.0)
            ));
            let of = if chart.lines.len() > 1 { format!(" ({})", line.name) } else { String::new() };
            html.text(format_args!(
                "{}: {}{of}",
                format::window(point.start, point.end),
                format::value(value, chart.unit)
            ));
            html.raw("</title></rect>");
        }
    }
}

/// A small line without axes.
pub(super) fn spark(html: &mut Html, line: &Line, span: (EventTime, EventTime), label: &str) {
    let values = || line.points.iter().filter_map(|point| point.value);
    let (low, high) = values().fold((0.0f64, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let high = if high > low { high } else { low + 1.0 };
    let x = |point: &Point| {
        let middle = point.start + (point.end - point.start) / 2;
        1.0 + 78.0 * (middle - span.0) as f64 / (span.1 - span.0).max(1) as f64
    };
    let y = |value: f64| 19.0 - 17.0 * (value - low) / (high - low);
    html.raw("<svg class=\"spark\" viewBox=\"0 0 80 20\" role=\"img\" aria-label=\"").text(label).raw("\">");
    for run in runs(&line.points, |point| point.value.is_some()) {
        let mut path = String::new();
        for (i, point) in run.iter().enumerate() {
            let _ =
                write!(path, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, x(point), y(point.value.unwrap_or(0.0)));
        }
        if run.len() == 1 {
            path.push_str("h0.1");
        }
        html.raw(format_args!("<path class=\"line s0\" d=\"{path}\"/>"));
    }
    for point in line.points.iter().filter(|point| point.alarm) {
        if let Some(value) = point.value {
            html.raw(format_args!("<circle class=\"alarm\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.8\"/>", x(point), y(value)));
        }
    }
    html.raw("</svg>");
}

/// Neighbours for which `is` holds.
fn runs(points: &[Point], is: impl Fn(&Point) -> bool) -> Vec<&[Point]> {
    points.split(|point| !is(point)).filter(|run| !run.is_empty()).collect()
}

/// Round values along the axis, from below the least to above the most; from nothing for bars and whatever is near it.
pub(super) fn steps(chart: &Chart) -> Vec<f64> {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let mut low = f64::MAX;
    let mut high = f64::MIN;
    for value in points().flat_map(|point| [point.value, point.first]).flatten() {
        low = low.min(value);
        high = high.max(value);
    }
    if chart.look == Look::Bars {
        let mut sums: std::collections::BTreeMap<EventTime, f64> = std::collections::BTreeMap::new();
        points().for_each(|point| *sums.entry(point.start).or_default() += point.value.unwrap_or(0.0));
        high = sums.into_values().fold(high, f64::max);
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    // A threshold that is not far off belongs into the picture.
    if let Some(threshold) = chart.threshold {
        let reach = (high - low).max(high.abs() * 0.2);
        if (low - 2.0 * reach..=high + 2.0 * reach).contains(&threshold) {
            (low, high) = (low.min(threshold), high.max(threshold));
        }
    }
    // Closer than this, steps would be written alike.
    let least = match chart.unit {
        Unit::Bytes | Unit::Seconds | Unit::Milliseconds => 0.04,
        _ => 0.004,
    };
    let short = least * high.abs().max(low.abs()) - (high - low);
    if short > 0.0 && high > low {
        (low, high) = (low - short / 2.0, high + short / 2.0);
    }
    if chart.look == Look::Bars || (low > 0.0 && low < high * 0.4) {
        low = 0.0;
    }
    if high - low < 1e-12 * high.abs().max(1e-300) || high == low {
        let nothing = if chart.unit == Unit::Share { 0.01 } else { 1.0 };
        let room = if high == 0.0 { nothing } else { high.abs() * 0.1 };
        (low, high) = (if low >= 0.0 { (low - room).max(0.0) } else { low - room }, high + room);
    }
    let rough = (high - low) / 3.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|s| s * power).find(|s| *s >= rough * 0.999).unwrap_or(power);
    let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
    (0..=((last - first) as usize).min(8)).map(|i| (first + i as f64) * step).collect()
}

/// Moments to name along a span: round ones, at most five.
fn days(span: (EventTime, EventTime)) -> Vec<EventTime> {
    const STEPS: [i64; 18] = [
        MINUTE / 60,
        MINUTE / 6,
        MINUTE,
        5 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        HOUR,
        3 * HOUR,
        6 * HOUR,
        12 * HOUR,
        DAY,
        2 * DAY,
        7 * DAY,
        14 * DAY,
        30 * DAY,
        91 * DAY,
        182 * DAY,
        365 * DAY,
    ];
    let length = (span.1 - span.0).max(1);
    let step = STEPS.into_iter().find(|step| length / step <= 4).unwrap_or(length / 4).max(1);
    let first = (span.0 + step - 1).div_euclid(step) * step;
    (0..6).map(|i| first + i * step).take_while(|time| *time <= span.1).collect()
}

/// A chart in a sentence or two, for those who do not see it.
fn described(chart: &Chart) -> String {
    let mut text = String::new();
    for line in &chart.lines {
        let values: Vec<f64> = line.points.iter().filter_map(|point| point.value).collect();
        let Some(last) = values.last() else { continue };
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
        let value = |value: f64| format::value(value, chart.unit);
        let name = if line.name.is_empty() { String::new() } else { format!("{}: ", line.name) };
        let _ = write!(
            text,
            "{name}{} values between {} and {}, the last {}. ",
            values.len(),
            value(low),
            value(high),
            value(*last)
        );
    }
    if let Some(threshold) = chart.threshold {
        let _ = write!(text, "The threshold is {}. ", format::value(threshold, chart.unit));
    }
    text.push_str("The table below has all values.");
    text
}

/// A patch of a colour, for legends.
pub(super) fn swatch(colour: usize, name: &str) -> String {
    format!("<span class=\"key\"><i class=\"b{}\"></i>{}</span>", colour % COLOURS, escaped(name))
}
