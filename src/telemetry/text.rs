//! Metrics as text: Prometheus' classic format, version 0.0.4, and OpenMetrics 1.0.0 for those who ask for it.
//!
//! They differ little: OpenMetrics names a counter's family without `_total`, tells units, has a type for labels that say
//! what something is, and ends in `# EOF`.

use std::fmt::Write;

use super::histogram::Buckets;
use super::metric::{Description, Kind, Labels, Metrics, Value};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' classic text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a request asks for in its `Accept` header: OpenMetrics where that is named with at least the weight of the
    /// classic format, else the classic format, which everybody reads.
    pub fn accepted(accept: &str) -> Format {
        let mut weights = [0.0f64; 2];
        for item in accept.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut weight = 1.0;
            let mut version = None;
            for parameter in parts {
                match parameter.split_once('=').map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim())) {
                    Some((name, value)) if name == "q" => weight = value.parse().unwrap_or(0.0),
                    Some((name, value)) if name == "version" => version = Some(value.trim_matches('"').to_owned()),
                    _ => {}
                }
            }
            let known = |wanted: &[&str]| version.as_deref().is_none_or(|version| wanted.contains(&version));
            match kind.as_str() {
                "application/openmetrics-text" if known(&["1.0.0", "0.0.1"]) => weights[1] = weights[1].max(weight),
                "text/plain" if known(&["0.0.4"]) => weights[0] = weights[0].max(weight),
                "*/*" | "text/*" => weights[0] = weights[0].max(weight),
                _ => {}
            }
        }
        if weights[1] > 0.0 && weights[1] >= weights[0] { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The format's media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// The metrics in a format.
    pub fn text(&self, format: Format) -> String {
        let mut out = String::with_capacity(16 << 10);
        for (family, samples) in self.families.values() {
            head(&mut out, family, format);
            for (labels, value) in samples {
                match value {
                    Value::Number(number) => sample(&mut out, family.name, labels, None, *number),
                    Value::Buckets(buckets) => histogram(&mut out, family.name, labels, buckets),
                }
            }
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

fn head(out: &mut String, family: &Description, format: Format) {
    let open = format == Format::OpenMetrics;
    let (name, kind) = match family.kind {
        Kind::Counter if open => (family.name.strip_suffix("_total").unwrap_or(family.name), "counter"),
        Kind::Info if open => (family.name.strip_suffix("_info").unwrap_or(family.name), "info"),
        Kind::Counter => (family.name, "counter"),
        Kind::Gauge | Kind::Info => (family.name, "gauge"),
        Kind::Histogram => (family.name, "histogram"),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {}", escaped(family.help, open));
    let _ = writeln!(out, "# TYPE {name} {kind}");
    if open && !family.unit.is_empty() {
        let _ = writeln!(out, "# UNIT {name} {}", family.unit);
    }
}

fn histogram(out: &mut String, name: &str, labels: &Labels, buckets: &Buckets) {
    let bucket = format!("{name}_bucket");
    for (bound, count) in &buckets.cumulative {
        // With a fraction also where it is whole, so that both formats make the same series.
        sample(out, &bucket, labels, Some(&format!("{bound:?}")), *count as f64);
    }
    sample(out, &bucket, labels, Some("+Inf"), buckets.count as f64);
    sample(out, &format!("{name}_sum"), labels, None, buckets.sum);
    sample(out, &format!("{name}_count"), labels, None, buckets.count as f64);
}

fn sample(out: &mut String, name: &str, labels: &Labels, bound: Option<&str>, value: f64) {
    out.push_str(name);
    let all = labels.iter().map(|(name, value)| (*name, value.as_str())).chain(bound.map(|bound| ("le", bound)));
    let mut open = '{';
    for (name, value) in all {
        let _ = write!(out, "{open}{name}=\"{}\"", escaped(value, true));
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    let _ = match value {
        value if value.is_nan() => writeln!(out, " NaN"),
        f64::INFINITY => writeln!(out, " +Inf"),
        f64::NEG_INFINITY => writeln!(out, " -Inf"),
        // Counts whole, the rest as short as it can be read back.
        value if value == value.trunc() && value.abs() < 1e15 => writeln!(out, " {value}"),
        value => writeln!(out, " {value:?}"),
    };
}

/// Text between quotes or, without `quotes`, behind a name: backslashes and line ends escaped.
fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out
}
