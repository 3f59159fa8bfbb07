//! Numbers and times for people. Times are UTC; the page says so once.

use arrow::temporal_conversions::timestamp_us_to_datetime;

use super::metrics::Unit;
use crate::base::{DAY, EventTime};

/// A value in its unit, as short as it says something.
pub(super) fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Number => number(value),
        Unit::Share => format!("{} %", trimmed(value * 100.0, if (value * 100.0).abs() < 9.995 { 2 } else { 1 })),
        Unit::Count => grouped(value),
        Unit::Milliseconds if value >= 9_999.5 => format!("{} s", number(value / 1e3)),
        Unit::Milliseconds => format!("{} ms", number(value)),
        Unit::Seconds => seconds(value),
        Unit::Bytes => bytes(value),
        Unit::PerSecond => format!("{}/s", if value.abs() >= 100.0 { grouped(value) } else { number(value) }),
    }
}

/// A number with four significant digits at most, whole numbers whole.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        size if !(1e-4..1e9).contains(&size) => powered(value),
        size if size >= 1000.0 => grouped(value),
        size => {
            let digits = 3 - size.log10().floor() as i32;
            minus(trimmed(value, usize::try_from(digits.clamp(0, 4)).unwrap_or(0)))
        }
    }
}

/// As `2.5 · 10⁻⁵`.
fn powered(value: f64) -> String {
    let text = format!("{value:.1e}");
    let (number, power) = text.split_once('e').unwrap_or((&text, "0"));
    let raised = |c: char| match c {
        '-' => '⁻',
        c => c.to_digit(10).and_then(|digit| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit as usize)).unwrap_or(c),
    };
    format!("{} · 10{}", minus(number.to_owned()), power.chars().map(raised).collect::<String>())
}

/// With so many decimals at most, and no noughts at their end.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    minus(if text == "-0" { "0".to_owned() } else { text.to_owned() })
}

fn minus(text: String) -> String {
    text.replace('-', "−")
}

/// A whole number with its thousands apart.
pub(super) fn grouped(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("−{text}") } else { text }
}

fn seconds(value: f64) -> String {
    let size = value.abs();
    for (unit, name) in [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")] {
        if size >= 2.0 * unit {
            return format!("{} {name}", minus(trimmed(value / unit, 1)));
        }
    }
    format!("{} s", number(value))
}

fn bytes(value: f64) -> String {
    for (unit, name) in [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
        if value.abs() >= unit {
            return format!("{} {name}", trimmed(value / unit, 1));
        }
    }
    format!("{value:.0} B")
}

/// A moment: `5 Jan 2026 14:30`, without the time at midnight.
pub(super) fn moment(time: EventTime) -> String {
    match timestamp_us_to_datetime(time) {
        Some(at) if time.rem_euclid(DAY) == 0 => at.format("%-d %b %Y").to_string(),
        Some(at) if time.rem_euclid(60_000_000) == 0 => at.format("%-d %b %Y %H:%M").to_string(),
        Some(at) => at.format("%-d %b %Y %H:%M:%S").to_string(),
        None => format!("{time} µs"),
    }
}

/// A moment on an axis of this length.
pub(super) fn tick(time: EventTime, length: i64) -> String {
    let form = match length {
        length if length > 700 * DAY => "%b %Y",
        length if length > 3 * DAY => "%-d %b",
        length if length > DAY => "%-d %b %H:%M",
        length if length > DAY / 144 => "%H:%M",
        _ => "%H:%M:%S",
    };
    timestamp_us_to_datetime(time).map_or_else(String::new, |at| at.format(form).to_string())
}

/// A window: one day by its date, others from and to.
pub(super) fn window(start: EventTime, end: EventTime) -> String {
    match end - start {
        DAY if start.rem_euclid(DAY) == 0 => moment(start),
        length if length < DAY && start.div_euclid(DAY) == (end - 1).div_euclid(DAY) => {
            let whole = start % 60_000_000 == 0 && end % 60_000_000 == 0;
            let clock = if whole { "%H:%M" } else { "%H:%M:%S" };
            let write = |time: EventTime, form: &str| {
                timestamp_us_to_datetime(time).map_or_else(String::new, |at| at.format(form).to_string())
            };
            format!("{}–{}", write(start, &format!("%-d %b %Y {clock}")), write(end, clock))
        }
        _ => format!("{} – {}", moment(start), moment(end)),
    }
}

/// For machines: RFC 3339.
pub(super) fn machine(time: EventTime) -> String {
    crate::base::format_time(time)
}
