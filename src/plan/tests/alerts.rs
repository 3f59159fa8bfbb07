//! Detectors, alerts and receivers of sound files.

use super::*;
use crate::plan::model::Severity;

const JOB: &str = r#"
job: j
sources:
  tx: {generator: {stream: transactions, duration: 1d}, id: tx_id, event_time: ts}
  labels: {generator: {stream: labels, duration: 1d}, id: tx_id, event_time: known_at}
feature_sets: {s: {on: tx, take: [amount, mcc]}}
sinks: {offline: {delta: {uri: lake}}}
models: {fraud: {versions: {champion: m.onnx}, inputs: s, outputs: {score: "p[1]"}}}
labels: {fraud: {from: labels, prediction: tx_id, value: is_fraud, within: 1d}}
monitors:
  fraud:
    segments: [country]
    detectors: [adwin, {page_hinkley: {delta: 0.01, threshold: 20, mode: up}}, ddm]
    alerts:
      - {name: bad, when: auc < 0.8, clear: ">= 0.85", for: 3 windows, min_rows: 500, severity: critical, repeat: 4h,
         message: "{model} {{is}} at {value}", labels: {team: risk}, runbook: "https://wiki/x", to: [pager, topic]}
      - {name: each, when: confusion > 50%, segment: country=*, for: 2d}
      - {name: drifts, when: drift(amount)}
      - {name: anywhere, when: f1 < 0.5, segment: "*", version: champion}
      - {name: changed, when: change, clear: 6h}
      - {name: hot, when: memory_bytes > 2GiB, to: [log]}
notify:
  pager: {webhook: {url: "http://pager/${env:KEY}", headers: {Authorization: "Bearer ${env:TOKEN}"}, timeout: 2s}}
  am: {alertmanager: {url: "http://am:9093"}}
  topic: {kafka: {topic: alerts}, delivery: at_least_once}
"#;

fn plan_of(text: &str) -> (Plan, Vec<crate::base::Fault>) {
    compile("j", text, Path::new(""), &[], &env, &Stub).unwrap_or_else(|f| panic!("{f}"))
}

#[test]
fn alerts_in_detail() {
    let (plan, warnings) = plan_of(JOB);
    assert!(warnings.is_empty(), "{warnings:?}");
    let names: Vec<&str> = plan.receivers.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["pager", "am", "topic", "log"]);
    let monitor = &plan.monitors[0];
    assert_eq!(monitor.detectors[0], DetectorPlan::Adwin(AdwinPlan::default()));
    let DetectorPlan::PageHinkley(test) = monitor.detectors[1] else { panic!() };
    assert_eq!((test.delta, test.threshold, test.direction, test.min_instances), (0.01, 20.0, Direction::Up, 30));
    let [bad, each, drifts, anywhere, changed, hot] = &monitor.alerts[..] else { panic!("{:?}", monitor.alerts) };
    let comparison = |operator, number| Comparison { operator, number };
    assert_eq!(
        bad.condition,
        Condition::Compare {
            table: MetricTable::Accuracy,
            metric: "auc".into(),
            subject: Subject::Whole,
            wrong: comparison(Operator::Less, 0.8),
            clear: Some(comparison(Operator::AtLeast, 0.85)),
        }
    );
    assert_eq!(
        (bad.hold, bad.min_rows, bad.severity, bad.to.as_slice()),
        (Hold::Windows(3), 500, Severity::Critical, &[0, 2][..])
    );
    let pieces = bad.message.as_ref().map(|m| m.0.clone()).unwrap_or_default();
    let (text, field) = (|t: &str| TemplatePiece::Text(t.into()), TemplatePiece::Field);
    assert_eq!(pieces, [field("model"), text(" "), text("{"), text("is"), text("}"), text(" at "), field("value")]);
    assert_eq!(each.segment, SegmentFilter::Column("country".into()));
    assert_eq!((each.hold, each.to.len(), each.severity), (Hold::Time(2 * 86_400_000_000), 4, Severity::Warning));
    assert_eq!(
        (&drifts.condition, &anywhere.segment),
        (&Condition::Drift { subject: Subject::Is("amount".into()) }, &SegmentFilter::Each)
    );
    assert_eq!(changed.condition, Condition::Change { detector: None, over_after: 6 * 3_600_000_000 });
    assert!(matches!(
        hot.condition,
        Condition::Compare { table: MetricTable::Engine, wrong: Comparison { number: 2_147_483_648.0, .. }, .. }
    ));
    let topic = &plan.topics[0];
    assert_eq!((topic.rows.clone(), topic.delivery), (TopicRows::Alerts("topic".into()), Some(Delivery::AtLeastOnce)));
    let described = plan.describe();
    for told in [
        "detector page_hinkley: beyond 20, delta 0.01, alpha 0.9999, up, after 30 errors",
        "alert bad (critical): auc < 0.8, of all rows; clear when >= 0.85; for 3 windows; of 500 rows at least; told to pager, topic, again every 4h",
        "alert changed (warning): change, of all rows; over 6h after the last; told to pager, am, topic, log",
        "pager: POST to http://pager in JSON, at least once",
        "am: Alertmanager at http://am, again every 1m",
    ] {
        assert!(described.contains(told), "{told} is not in {described}");
    }
    assert!(!format!("{plan:?}").contains("TOKEN") && !described.contains("KEY"));
}

#[test]
fn receivers_without_alerts_are_useless() {
    let text = JOB
        .replace("    alerts:\n", "")
        .lines()
        .filter(|l| !l.contains("name:") && !l.contains("message:"))
        .collect::<Vec<_>>()
        .join("\n");
    let (plan, warnings) = plan_of(&text);
    assert_eq!((plan.receivers.len(), plan.topics.len()), (0, 0));
    let paths: Vec<&str> = warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(paths, ["notify.pager", "notify.am", "notify.topic"]);
}
