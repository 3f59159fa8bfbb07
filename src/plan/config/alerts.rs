//! What may be written under `monitors.NAME.alerts` and under `notify`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{DeliveryConfig, TopicConfig};
use crate::plan::values::{ByColumn, ByName, Duration, Hold, Name, Text};

/// A rule by which statistics become alerts. An alert fires once, when its condition has held long enough, and is
/// resolved once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct AlertConfig {
    /// Its name, unique in its monitor.
    pub name: Name,
    /// What is wrong: `METRIC < NUMBER` (or `<=`, `>`, `>=`, `==`, `!=`), with `METRIC(SUBJECT)` for one column or class and
    /// `METRIC(*)` for each; `drift` or `drift(COLUMN)` for a drift statistic beyond its calibrated threshold; `adwin`,
    /// `page_hinkley`, `ddm`, or `change` for any of them, for a change that a detector finds.
    pub when: Text,
    /// What is right again: a comparison such as `>= 0.85` on the far side of `when`; what lies between neither fires nor
    /// resolves. For a change detector a length of time without another change. Default: the opposite of `when`; of a
    /// change, the monitor's window.
    pub clear: Option<Text>,
    /// How long the condition must hold first, in event time: a length that windows one after the other must cover, or a number of
    /// them such as `3 windows`. Default: one window.
    #[serde(rename = "for")]
    pub hold: Option<Hold>,
    /// Statistics of fewer rows are not judged: they neither fire nor resolve. Default 0.
    #[serde(default)]
    pub min_rows: u64,
    /// Rows that it is about: `COLUMN=VALUE` of a segment column, `COLUMN=*` for each of its values, `*` for each segment and all
    /// rows. Default: all rows together.
    pub segment: Option<Text>,
    /// Only this version of the model. Default: each.
    pub version: Option<Text>,
    /// How bad it is. Default `warning`.
    #[serde(default)]
    pub severity: SeverityConfig,
    /// What is said, with places for what is known: {name}, {state}, {severity}, {model}, {version}, {route}, {segment}, {subject},
    /// {metric}, {value}, {threshold}, {rows}, {revision}, {window_start}, {window_end}, {since}. Default: a sentence with the
    /// numbers.
    pub message: Option<Text>,
    /// Labels that go along.
    #[serde(default)]
    pub labels: ByName<Text>,
    /// Address of what to do about it.
    pub runbook: Option<Text>,
    /// Who is told: names from `notify`, and `log` for the job's log. Default: all, and the log.
    pub to: Option<Vec<Text>>,
    /// How often they are told again while it goes on, in event time. Default: never.
    pub repeat: Option<Duration>,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum SeverityConfig {
    /// Good to know.
    Info,
    /// To be looked at.
    #[default]
    Warning,
    /// To be mended now.
    Critical,
}

/// Somebody who is told of alerts; exactly one of `log`, `kafka`, `webhook` and `alertmanager`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct ReceiverConfig {
    /// The job's log.
    pub log: Option<LogConfig>,
    /// A Kafka topic, which takes the rows of the table `stats/alerts` that are for it.
    pub kafka: Option<TopicConfig>,
    /// Kafka only: what is promised. Default: `exactly_once` for a job that has a state directory, else `at_least_once`.
    pub delivery: Option<DeliveryConfig>,
    /// Kafka, exactly once, only: transactions that rows are spread over. Default 4.
    #[schemars(range(min = 1, max = 64))]
    pub slots: Option<u32>,
    /// Kafka, exactly once, only: the topic that says how far each transaction has come. Default `tidemill.<job>.ledger`.
    pub ledger: Option<Text>,
    /// An address that gets a POST for each alert that fires or is resolved: at least once, and with the same `id` if twice.
    pub webhook: Option<WebhookConfig>,
    /// Prometheus's Alertmanager.
    pub alertmanager: Option<AlertmanagerConfig>,
}

/// The job's log: resolved alerts and those of severity `info` at INFO, others at WARN.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct LogConfig {}

/// A webhook. What it answers with 408, 429 or 5xx, or not at all, is tried again; what it refuses otherwise is dropped and counted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct WebhookConfig {
    /// Its address, `https://…` or `http://…`. Secrets are written `${env:NAME}` or `${file:PATH}`: they are looked up when the job starts and never printed.
    pub url: Text,
    /// What it gets. Default `json`.
    #[serde(default)]
    pub format: WebhookFormatConfig,
    /// Headers of the request; secrets as in `url`.
    #[serde(default)]
    pub headers: ByColumn<Text>,
    /// How long one request may take. Default 5s.
    pub timeout: Option<Duration>,
    /// Certificates (PEM) of the authorities that are trusted instead of the system's, for an address with `https`. Relative to
    /// this file.
    pub ca: Option<Text>,
}

/// What a webhook gets.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum WebhookFormatConfig {
    /// One JSON object with all that is known.
    #[default]
    Json,
    /// What Slack's incoming webhooks take.
    Slack,
}

/// Alertmanager, by version 2 of its API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct AlertmanagerConfig {
    /// Its address, such as `http://localhost:9093`. Secrets are written `${env:NAME}` or `${file:PATH}`.
    pub url: Text,
    /// Headers of the request; secrets as in `url`.
    #[serde(default)]
    pub headers: ByColumn<Text>,
    /// How long one request may take. Default 5s.
    pub timeout: Option<Duration>,
    /// Certificates (PEM) of the authorities that are trusted instead of the system's, for an address with `https`. Relative to
    /// this file.
    pub ca: Option<Text>,
    /// What goes on is told again after this long on the wall clock, as Alertmanager expects; four times as long without is resolved
    /// there. Default 1m.
    pub resend: Option<Duration>,
}
