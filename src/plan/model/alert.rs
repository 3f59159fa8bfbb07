//! Alerts of a monitor, and who is told.

use std::fmt;

use std::path::PathBuf;

use crate::base::{EventTime, Micros, SecretText, format_duration};

/// A rule by which statistics become alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertPlan {
    /// Its name, unique in its monitor.
    pub name: String,
    /// What is wrong when it holds.
    pub condition: Condition,
    /// The condition as written.
    pub when: String,
    /// The rows that it is about.
    pub segment: SegmentFilter,
    /// The version of the model, if only one.
    pub version: Option<String>,
    /// How long it must hold before anybody is told.
    pub hold: Hold,
    /// Statistics of fewer rows are not judged.
    pub min_rows: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What is said, if not the usual.
    pub message: Option<Template>,
    /// Labels that go along.
    pub labels: Vec<(String, String)>,
    /// Where to read what to do.
    pub runbook: Option<String>,
    /// Who is told: indices into the plan's receivers.
    pub to: Vec<usize>,
    /// How often those are told again while it goes on.
    pub repeat: Option<Micros>,
}

/// What may be wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A statistic is beyond a number.
    Compare {
        /// The table of the statistic.
        table: MetricTable,
        /// Its name.
        metric: String,
        /// What it is of.
        subject: Subject,
        /// What is wrong.
        wrong: Comparison,
        /// What is right again; the opposite of `wrong` where the file says nothing.
        clear: Option<Comparison>,
    },
    /// A drift statistic is beyond its calibrated threshold.
    Drift {
        /// What drifts.
        subject: Subject,
    },
    /// A change detector has found a change. It is over when the detector has been silent for a while.
    Change {
        /// The detector; any where none is named.
        detector: Option<String>,
        /// For so long, in event time.
        over_after: Micros,
    },
}

impl Condition {
    /// Whether it is about drift, of data or of errors.
    pub fn is_drift(&self) -> bool {
        match self {
            Condition::Drift { .. } | Condition::Change { .. } => true,
            Condition::Compare { table, .. } => *table == MetricTable::Drift,
        }
    }
}

/// The table of a statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricTable {
    /// `stats/accuracy`.
    Accuracy,
    /// `stats/drift`, of columns.
    Drift,
    /// `stats/drift`, of the errors that detectors watch.
    Errors,
    /// `stats/quality`.
    Quality,
    /// `stats/operation`, of a version of the model.
    Serving,
    /// `stats/operation`, of the job's process.
    Engine,
}

impl MetricTable {
    /// Name of the table.
    pub fn name(self) -> &'static str {
        match self {
            MetricTable::Accuracy => "stats/accuracy",
            MetricTable::Drift | MetricTable::Errors => "stats/drift",
            MetricTable::Quality => "stats/quality",
            MetricTable::Serving | MetricTable::Engine => "stats/operation",
        }
    }

    /// Whether its statistics are told by segment.
    pub fn has_segments(self) -> bool {
        self == MetricTable::Accuracy
    }

    /// Whether its statistics are told by version of the model.
    pub fn has_versions(self) -> bool {
        matches!(self, MetricTable::Accuracy | MetricTable::Errors | MetricTable::Serving)
    }
}

/// What a statistic must be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The model as a whole.
    Whole,
    /// Anything; each is an alert of its own.
    Any,
    /// This column or class.
    Is(String),
}

impl Subject {
    /// Whether a statistic is meant.
    pub fn takes(&self, subject: &str) -> bool {
        match self {
            Subject::Whole => subject.is_empty(),
            Subject::Any => true,
            Subject::Is(name) => name == subject,
        }
    }
}

/// Rows that an alert is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentFilter {
    /// All rows together.
    All,
    /// Each segment, and all rows together; each is an alert of its own.
    Each,
    /// Each value of a segment column.
    Column(String),
    /// One value of one segment column, `column=value`.
    Is(String),
}

impl SegmentFilter {
    /// Whether a statistic is meant.
    pub fn takes(&self, segment: &str) -> bool {
        match self {
            SegmentFilter::All => segment.is_empty(),
            SegmentFilter::Each => true,
            SegmentFilter::Column(column) => segment.split_once('=').is_some_and(|(name, _)| name == column),
            SegmentFilter::Is(wanted) => segment == wanted,
        }
    }
}

impl fmt::Display for SegmentFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SegmentFilter::All => f.write_str("all rows"),
            SegmentFilter::Each => f.write_str("all rows and each segment"),
            SegmentFilter::Column(column) => write!(f, "each {column}"),
            SegmentFilter::Is(wanted) => f.write_str(wanted),
        }
    }
}

/// A comparison with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// How.
    pub operator: Operator,
    /// With what.
    pub number: f64,
}

impl Comparison {
    /// Whether a value compares so.
    pub fn holds(&self, value: f64) -> bool {
        match self.operator {
            Operator::Less => value < self.number,
            Operator::AtMost => value <= self.number,
            Operator::More => value > self.number,
            Operator::AtLeast => value >= self.number,
            Operator::Equal => value == self.number,
            Operator::NotEqual => value != self.number,
        }
    }

    /// Whether some value compares both as `self` and as `other`.
    pub fn meets(&self, other: &Comparison) -> bool {
        // Both change at their numbers alone.
        let (a, b) = (self.number.min(other.number), self.number.max(other.number));
        [a - 1.0, a, a + (b - a) / 2.0, b, b + 1.0].iter().any(|v| self.holds(*v) && other.holds(*v))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator.sign(), self.number)
    }
}

/// How two numbers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Operator {
    /// All, the longer signs first.
    pub const ALL: [Operator; 6] =
        [Operator::AtMost, Operator::AtLeast, Operator::Equal, Operator::NotEqual, Operator::Less, Operator::More];

    /// As it is written.
    pub fn sign(self) -> &'static str {
        match self {
            Operator::Less => "<",
            Operator::AtMost => "<=",
            Operator::More => ">",
            Operator::AtLeast => ">=",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
        }
    }
}

/// How long a condition must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// In windows one after the other that are this long together; nothing is one window.
    Time(Micros),
    /// In so many windows one after the other.
    Windows(u32),
}

impl Hold {
    /// Whether windows one after the other are enough.
    pub fn is_over(self, windows: u32, since: EventTime, until: EventTime) -> bool {
        match self {
            Hold::Time(length) => windows > 0 && until.saturating_sub(since) >= length,
            Hold::Windows(count) => windows >= count.max(1),
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Time(length) => f.write_str(&format_duration(*length)),
            Hold::Windows(count) => write!(f, "{count} windows"),
        }
    }
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// To be looked at.
    Warning,
    /// To be mended now.
    Critical,
}

impl Severity {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// A text with places for what is known of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<TemplatePiece>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePiece {
    /// Said as it is.
    Text(String),
    /// What is known under one of [`Template::FIELDS`].
    Field(&'static str),
}

impl Template {
    /// What may stand in braces.
    pub const FIELDS: [&'static str; 16] = [
        "name",
        "state",
        "severity",
        "model",
        "version",
        "route",
        "segment",
        "subject",
        "metric",
        "value",
        "threshold",
        "rows",
        "revision",
        "window_start",
        "window_end",
        "since",
    ];
}

/// Somebody who is told of alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverPlan {
    /// The name that alerts use.
    pub name: String,
    /// How.
    pub way: ReceiverWay,
}

/// How somebody is told.
#[derive(Clone, Debug, PartialEq)]
pub enum ReceiverWay {
    /// In the job's log.
    Log,
    /// In a topic, which the plan's topics describe.
    Topic,
    /// By a POST.
    Webhook(HttpPlan, WebhookFormat),
    /// By Alertmanager's API; what goes on is told again after this long on the wall clock.
    Alertmanager(HttpPlan, Micros),
}

/// Whom to POST to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPlan {
    /// The whole address.
    pub url: SecretText,
    /// The part of it that may be shown.
    pub shown: String,
    /// Headers that go along.
    pub headers: Vec<(String, SecretText)>,
    /// How long one request may take.
    pub timeout: Micros,
    /// The authorities that are trusted instead of the system's, for `https`.
    pub ca: Option<PathBuf>,
}

impl HttpPlan {
    /// What forbids posting to an address, and how to mend it.
    pub fn address_fault(url: &str) -> Option<String> {
        match url::Url::parse(url) {
            Err(error) => Some(format!("{error}; write https://HOST/PATH or http://HOST:PORT/PATH")),
            Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host().is_none() => {
                Some("write https://HOST/PATH or http://HOST:PORT/PATH".to_string())
            }
            Ok(_) => None,
        }
    }
}

/// What a webhook gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// One JSON object with all that is known.
    Json,
    /// What Slack's incoming webhooks take.
    Slack,
}
