//! Alerts.

use super::condition::{self, Written};
use super::{Compiler, place_of, quoted};
use crate::base::parse_duration;
use crate::plan::config::{AlertConfig, JobConfig, SeverityConfig};
use crate::plan::faults::{Path, Step};
use crate::plan::model::{
    AlertPlan, Comparison, Condition, DetectorPlan, Hold, Metric, MetricTable, ModelPlan, MonitorPlan, Operator,
    ReceiverPlan, ReceiverWay, SegmentFilter, Severity, Subject, Template, TemplatePiece, metrics, table_of,
};
use crate::plan::nearest;
use crate::plan::yaml::{Data, Node};

/// Name of the job's log among the receivers.
const LOG: &str = "log";

impl Compiler<'_> {
    /// Gives the monitors their alerts; returns who is told of them.
    pub(super) fn alerts(
        &mut self,
        config: &JobConfig,
        models: &[ModelPlan],
        monitors: &mut [MonitorPlan],
    ) -> Vec<ReceiverPlan> {
        let mut receivers = self.receivers(config);
        let any = config.monitors.0.iter().any(|(_, c)| !c.alerts.is_empty());
        if !any {
            for receiver in receivers.drain(..) {
                let path = Path::of(&["notify", &receiver.name]);
                self.warn(&path, "no alert is told to it: there are none", "write `alerts` in a monitor, or remove it");
            }
            return receivers;
        }
        if !receivers.iter().any(|r| r.name == LOG) {
            receivers.push(ReceiverPlan { name: LOG.to_owned(), way: ReceiverWay::Log });
        }
        for monitor in monitors.iter_mut() {
            let model = &models[monitor.model];
            let Some((name, c)) = config.monitors.0.iter().find(|(name, _)| *name == model.name) else { continue };
            let path = Path::of(&["monitors", name, "alerts"]);
            let mut plans: Vec<AlertPlan> = Vec::new();
            for (i, alert) in c.alerts.iter().enumerate() {
                let at = path.item(i);
                if c.alerts[..i].iter().any(|a| a.name.0 == alert.name.0) {
                    let what = format!("the monitor has an alert `{}` already", alert.name.0);
                    self.error(&at.key("name"), what, "choose another name");
                    continue;
                }
                plans.extend(self.alert(&at, alert, model, monitor, &receivers));
            }
            monitor.alerts = plans;
        }
        receivers
    }

    fn alert(
        &mut self,
        at: &Path,
        c: &AlertConfig,
        model: &ModelPlan,
        plan: &MonitorPlan,
        receivers: &[ReceiverPlan],
    ) -> Option<AlertPlan> {
        let condition = self.condition(at, c, plan);
        let segment = self.segment(at, c, plan);
        // A change is of the errors that detectors watch.
        let table = match &condition {
            Some(Condition::Compare { table, .. }) => *table,
            Some(Condition::Drift { .. }) => MetricTable::Drift,
            Some(Condition::Change { .. }) => MetricTable::Errors,
            None => MetricTable::Accuracy,
        };
        let told = [
            ("segment", c.segment.is_some(), table.has_segments(), "of all rows together"),
            ("version", c.version.is_some(), table.has_versions(), "of all versions together"),
        ];
        for (key, _, _, how) in told.into_iter().filter(|(_, given, has, _)| *given && !has) {
            self.error_at_key(&at.key(key), format!("what `when` names is told {how}"), "remove it");
        }
        if let Some(version) = &c.version
            && table.has_versions()
            && model.version != version.0
        {
            let mend = format!("its version is `{}`", model.version);
            self.error(&at.key("version"), format!("`{}` has no version `{}`", model.name, version.0), mend);
        }
        let message = c.message.as_ref().and_then(|text| self.template(&at.key("message"), &text.0));
        let hold = c.hold.as_ref().map_or(Hold::Time(0), |hold| hold.0);
        if matches!(condition, Some(Condition::Change { .. })) && c.hold.is_some() {
            let mend = "remove it, or write `clear: 1d` for how long the alert stays";
            self.error_at_key(&at.key("for"), "a change is found at one moment; it does not hold for a while", mend);
        }
        if let Hold::Windows(0) = hold {
            self.error(&at.key("for"), "an alert of no window fires without reason", "write `1 window` or more");
        }
        if c.repeat.as_ref().is_some_and(|repeat| repeat.0 <= 0) {
            self.error(&at.key("repeat"), "`repeat` must be longer than nothing", "give a length of time such as 4h");
        }
        if let Some(runbook) = &c.runbook
            && let Err(error) = url::Url::parse(&runbook.0)
        {
            let mend = "write an address such as https://wiki/runbook";
            self.error(&at.key("runbook"), format!("`{}` is no address: {error}", runbook.0), mend);
        }
        for (key, _) in &c.labels.0 {
            let ours = ["alertname", "severity", "job", "model", "version", "route", "segment", "subject", "metric"];
            if ours.contains(&key.as_str()) {
                let at = at.key("labels").key(key);
                self.error_at_key(&at, format!("`{key}` is set by Tidemill"), "choose another name");
            }
        }
        let to = match &c.to {
            None => (0..receivers.len()).collect(),
            Some(names) => {
                let mut to = Vec::new();
                for (i, name) in names.iter().enumerate() {
                    match receivers.iter().position(|r| r.name == name.0) {
                        Some(receiver) if to.contains(&receiver) => {
                            self.error(&at.key("to").item(i), format!("`{}` is there twice", name.0), "remove one");
                        }
                        Some(receiver) => to.push(receiver),
                        None if self.declared("notify", &name.0) => {}
                        None => {
                            let names: Vec<&str> = receivers.iter().map(|r| r.name.as_str()).collect();
                            let near = nearest(&name.0, names.iter().copied()).map(|n| format!("did you mean `{n}`?"));
                            let mend = near.unwrap_or_else(|| format!("there are {}", quoted(&names)));
                            let what = format!("there is no receiver `{}` under `notify`", name.0);
                            self.error(&at.key("to").item(i), what, mend);
                        }
                    }
                }
                to
            }
        };
        if c.to.as_ref().is_some_and(Vec::is_empty) {
            self.error(&at.key("to"), "the alert is told to nobody", "name a receiver, or `log`");
        }
        let detectors = Path::of(&["monitors", &model.name, "detectors"]);
        let written = match node_of(self.tree, &detectors).map(|node| &node.data) {
            Some(Data::List(items)) => items.len(),
            _ => 0,
        };
        // Detectors that were cut away have faults of their own.
        if let Some(Condition::Change { detector, .. }) = &condition
            && written == plan.detectors.len()
        {
            let there = match detector {
                None => !plan.detectors.is_empty(),
                Some(name) => plan.detectors.iter().any(|d| d.name() == name),
            };
            if !there {
                let name = detector.as_deref().unwrap_or("adwin");
                let mend = format!("write `detectors: [{name}]` in the monitor");
                self.error(&at.key("when"), "the monitor has no such detector", mend);
            }
        }
        Some(AlertPlan {
            name: c.name.0.clone(),
            condition: condition?,
            when: c.when.0.clone(),
            segment,
            version: c.version.as_ref().map(|version| version.0.clone()),
            hold,
            min_rows: c.min_rows,
            severity: match c.severity {
                SeverityConfig::Info => Severity::Info,
                SeverityConfig::Warning => Severity::Warning,
                SeverityConfig::Critical => Severity::Critical,
            },
            message,
            labels: c.labels.0.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
            runbook: c.runbook.as_ref().map(|runbook| runbook.0.clone()),
            to,
            repeat: c.repeat.as_ref().map(|repeat| repeat.0),
        })
    }

    fn condition(&mut self, at: &Path, c: &AlertConfig, plan: &MonitorPlan) -> Option<Condition> {
        let path = at.key("when");
        let Written { name, subject, comparison } = match condition::parse(&c.when.0, true, "") {
            Ok(written) => written,
            Err(fault) => {
                self.error_in(&path, fault.at, fault.what, fault.mend);
                return None;
            }
        };
        let given = match subject.as_deref() {
            None => None,
            Some("*") => Some(Subject::Any),
            Some(name) => Some(Subject::Is(name.to_owned())),
        };
        let detector = DetectorPlan::NAMES.contains(&name.as_str());
        if comparison.is_some() && (detector || name == "change" || name == "drift") {
            let what = format!("`{name}` is not a number: it is found or not");
            self.error_in(&path, 0, what, format!("write `when: {name}`"));
            return None;
        }
        if detector || name == "change" {
            if subject.is_some() {
                let mend = format!("write `when: {name}`");
                self.error_in(&path, name.len(), "detectors watch errors alone", mend);
            }
            let over_after = match c.clear.as_ref().map(|clear| parse_duration(&clear.0)) {
                None => plan.window,
                Some(Ok(after)) if after > 0 => after,
                Some(_) => {
                    let what = "a change is over when the detector has been silent for a while";
                    self.error(&at.key("clear"), what, "write a length of time such as 1d, or remove it");
                    plan.window
                }
            };
            return Some(Condition::Change { detector: detector.then_some(name), over_after });
        }
        if name == "drift" {
            if c.clear.is_some() {
                let what = "a drift alarm is over when the statistic is within its threshold again";
                self.error_at_key(&at.key("clear"), what, "remove it, or compare a statistic such as `psi > 0.2`");
            }
            return Some(Condition::Drift { subject: given.unwrap_or(Subject::Any) });
        }
        let Some(table) = table_of(plan.task, &name) else {
            let names: Vec<&str> =
                metrics(plan.task).into_iter().map(|(name, _)| name).chain(["drift", "change"]).collect();
            let near = nearest(&name, names.iter().copied().chain(DetectorPlan::NAMES));
            let mend = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let all: Vec<&str> = names.iter().copied().chain(DetectorPlan::NAMES).collect();
                    format!("there are {}", all.join(", "))
                }
            };
            self.error_in(&path, 0, format!("a monitor of this task has no statistic `{name}`"), mend);
            return None;
        };
        let Some(wrong) = comparison else {
            let what = format!("`{name}` is a number; the condition does not say which is wrong");
            self.error_in(&path, c.when.0.len(), what, format!("write such as `{name} < 0.8`"));
            return None;
        };
        if matches!(table, MetricTable::Accuracy | MetricTable::Errors) && plan.labels.is_none() {
            let mend = "declare them under `labels`";
            self.error_in(&path, 0, format!("`{name}` needs labels, and the model has none"), mend);
        } else if table == MetricTable::Errors && plan.detectors.is_empty() {
            let mend = "write `detectors: [adwin]` in the monitor";
            self.error_in(&path, 0, format!("`{name}` is of what detectors watch, and there are none"), mend);
        } else if let Some(accuracy) = plan.accuracy.as_ref().filter(|_| table == MetricTable::Accuracy) {
            let chosen = |metric: &Metric| accuracy.metrics.contains(metric) || !Metric::of(plan.task).contains(metric);
            let all = Metric::of(plan.task).iter();
            if all.into_iter().any(|metric| metric.name() == name && !chosen(metric)) {
                let mend = format!("add `{name}` to the monitor's `accuracy`");
                self.error_in(&path, 0, format!("the monitor does not tell `{name}`"), mend);
            }
            if name == Metric::CardPrecision.name() && accuracy.card.is_none() {
                let mend = "write `card_precision: {by: COLUMN}` in the monitor";
                self.error_in(&path, 0, format!("the monitor does not tell `{name}`"), mend);
            }
        }
        // Counts by label and prediction have no whole.
        let whole = table == MetricTable::Accuracy && name != Metric::Confusion.name();
        let usual = if whole { Subject::Whole } else { Subject::Any };
        let subject = given.unwrap_or(usual);
        let clear = self.clear(at, c, &name, &wrong);
        Some(Condition::Compare { table, metric: name, subject, wrong, clear })
    }

    /// What is right again, if the file says.
    fn clear(&mut self, at: &Path, c: &AlertConfig, metric: &str, wrong: &Comparison) -> Option<Comparison> {
        let path = at.key("clear");
        let text = &c.clear.as_ref()?.0;
        let written = match condition::parse(text, false, metric) {
            Ok(written) => written,
            Err(fault) => {
                self.error_in(&path, fault.at, fault.what, fault.mend);
                return None;
            }
        };
        let far = match wrong.operator {
            Operator::Less | Operator::AtMost => ">=",
            Operator::More | Operator::AtLeast => "<=",
            Operator::Equal => "!=",
            Operator::NotEqual => "==",
        };
        let mend = format!("write such as `\"{far} {}\"`", wrong.number);
        if (!written.name.is_empty() && written.name != metric) || written.subject.is_some() {
            self.error_in(&path, 0, format!("`clear` is about `{metric}`, as `when` is"), mend);
            return None;
        }
        let Some(clear) = written.comparison else {
            self.error_in(&path, text.len(), "the condition does not say what is right again", mend);
            return None;
        };
        if clear.meets(wrong) {
            let what =
                format!("`{clear}` is on the wrong side of `{wrong}`: some values are both wrong and right again");
            self.error_in(&path, 0, what, mend);
        }
        Some(clear)
    }

    fn segment(&mut self, at: &Path, c: &AlertConfig, plan: &MonitorPlan) -> SegmentFilter {
        let Some(text) = &c.segment else { return SegmentFilter::All };
        if text.0 == "*" {
            return SegmentFilter::Each;
        }
        let path = at.key("segment");
        let columns: Vec<&str> = plan.segments.iter().map(|(name, _)| name.as_str()).collect();
        let Some((column, value)) = text.0.split_once('=') else {
            let mend = "write `COLUMN=VALUE`, `COLUMN=*`, or `\"*\"` for each segment";
            self.error(&path, format!("`{}` is no segment", text.0), mend);
            return SegmentFilter::All;
        };
        if !columns.contains(&column) {
            let mend = match columns.as_slice() {
                [] => format!("write `segments: [{column}]` in the monitor"),
                columns => format!("its segments are {}", columns.join(", ")),
            };
            self.error(&path, format!("the monitor has no segments by `{column}`"), mend);
        }
        match value {
            "*" => SegmentFilter::Column(column.to_owned()),
            _ => SegmentFilter::Is(text.0.clone()),
        }
    }

    fn template(&mut self, path: &Path, text: &str) -> Option<Template> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let at = text.len() - rest.len() + open;
            pieces.push(TemplatePiece::Text(rest[..open].to_owned()));
            let sign = &rest[open..=open];
            // A sign twice is the sign itself.
            if rest[open + 1..].starts_with(sign) {
                pieces.push(TemplatePiece::Text(sign.to_owned()));
                rest = &rest[open + 2..];
                continue;
            }
            let inside = rest[open + 1..].split_once('}').filter(|_| sign == "{");
            let Some((inside, after)) = inside else {
                self.error_in(
                    path,
                    at,
                    format!("a `{sign}` stands alone"),
                    format!("write `{sign}{sign}` for the sign itself"),
                );
                return None;
            };
            let Some(field) = Template::FIELDS.iter().find(|f| **f == inside.trim()) else {
                let near = nearest(inside.trim(), Template::FIELDS.iter().copied())
                    .map(|n| format!("did you mean `{{{n}}}`?"));
                let mend = near.unwrap_or_else(|| format!("there are {}", Template::FIELDS.join(", ")));
                self.error_in(path, at, format!("nothing is known of an alert as `{{{inside}}}`"), mend);
                return None;
            };
            pieces.push(TemplatePiece::Field(field));
            rest = after;
        }
        pieces.push(TemplatePiece::Text(rest.to_owned()));
        pieces.retain(|piece| !matches!(piece, TemplatePiece::Text(text) if text.is_empty()));
        Some(Template(pieces))
    }

    /// Adds an error at a character of a text.
    pub(super) fn error_in(&mut self, path: &Path, at: usize, what: impl Into<String>, mend: impl Into<String>) {
        let mut place = place_of(self.tree, path, false);
        if place.set.is_none()
            && let Some(Data::Scalar(scalar)) = node_of(self.tree, path).map(|node| &node.data)
        {
            let before = scalar.text.get(..at).unwrap_or(&scalar.text).chars().count();
            place.column += before + usize::from(!scalar.plain);
        }
        self.faults.error(&place, path, what, mend);
    }
}

fn node_of<'a>(tree: &'a Node, path: &Path) -> Option<&'a Node> {
    path.steps().iter().try_fold(tree, |node, step| match (&node.data, step) {
        (Data::Map(_), Step::Key(name)) => node.get(name),
        (Data::List(items), Step::Item(i)) => items.get(*i),
        _ => None,
    })
}
