use super::Board;
use crate::monitor::{Series, Stat, StatKind};
use crate::telemetry::{Format, Metrics};

fn stat(kind: StatKind, segment: &str, window: i64, revision: u32, value: f64) -> Stat {
    Stat {
        kind,
        model: "fraud".into(),
        version: "2".into(),
        route: String::new(),
        segment: segment.into(),
        window_start: window * 60_000_000,
        window_end: (window + 1) * 60_000_000,
        subject: if kind == StatKind::Drift { "amount".into() } else { String::new() },
        metric: if kind == StatKind::Drift { "psi".into() } else { "auc".into() },
        value: Some(value),
        bound: None,
        rows: 10,
        threshold: (kind == StatKind::Drift).then_some(0.1),
        alarm: (kind == StatKind::Drift).then_some(value > 0.1),
        revision,
        as_of: 0,
        complete: false,
    }
}

fn shown(board: &Board, name: &str) -> Vec<(String, f64)> {
    let mut metrics = Metrics::default();
    board.collect(&mut metrics);
    let label = |labels: &[(&'static str, String)]| {
        let parts: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        parts.join(",")
    };
    metrics.numbers(name).into_iter().map(|(labels, value)| (label(labels), value)).collect()
}

#[test]
fn the_newest_window_and_revision_of_a_series_is_shown() {
    let board = Board::default();
    for (window, revision, value) in [(3, 1, 0.1), (3, 2, 0.2), (2, 9, 0.9), (3, 1, 0.3), (4, 1, 0.4), (4, 1, 0.5)] {
        board.publish(&stat(StatKind::Accuracy, "", window, revision, value));
    }
    board.publish(&stat(StatKind::Accuracy, "country=FR", 1, 1, f64::NAN));
    let expected = [("model=fraud,version=2,metric=auc".to_owned(), 0.5)];
    assert_eq!(shown(&board, "ml_model_accuracy"), expected);
    assert_eq!(shown(&board, "ml_statistics_window_end_seconds"), [("model=fraud,table=accuracy".to_owned(), 300.0)]);
}

#[test]
fn accuracy_is_in_alarm_while_an_alert_of_it_fires() {
    let board = Board::default();
    let one = stat(StatKind::Accuracy, "", 3, 1, 0.4);
    board.publish(&one);
    assert_eq!(shown(&board, "ml_model_accuracy_alarm"), [], "no alert judges it");
    let labels = "model=fraud,version=2,metric=auc".to_owned();
    for fires in [true, false] {
        board.judge(0, [(Series::from(&one), fires)].into());
        assert_eq!(shown(&board, "ml_model_accuracy_alarm"), [(labels.clone(), f64::from(u8::from(fires)))]);
    }
    board.judge(0, Default::default());
    assert_eq!(shown(&board, "ml_model_accuracy_alarm"), [], "it was let go of");
}

#[test]
fn drift_comes_with_its_threshold_and_alarm() {
    let board = Board::default();
    board.publish(&stat(StatKind::Drift, "", 1, 1, 0.25));
    let labels = "model=fraud,version=2,column=amount,metric=psi".to_owned();
    for (name, value) in [("ml_drift", 0.25), ("ml_drift_threshold", 0.1), ("ml_drift_alarm", 1.0)] {
        assert_eq!(shown(&board, name), [(labels.clone(), value)], "{name}");
    }
    board.publish(&stat(StatKind::Drift, "", 2, 1, 0.05));
    assert_eq!(shown(&board, "ml_drift_alarm"), [(labels, 0.0)]);
}

#[test]
fn series_are_bounded_and_the_oldest_make_room() {
    let board = Board::default();
    board.open();
    for window in 0..20 {
        board.publish_within(&stat(StatKind::Accuracy, &format!("card={window}"), window, 1, 0.5), 8);
    }
    // Late news of a segment that is shown no more does not push out newer ones.
    board.publish_within(&stat(StatKind::Accuracy, "card=3", 3, 2, 0.5), 8);
    let cards: Vec<String> = shown(&board, "ml_model_accuracy").into_iter().map(|(labels, _)| labels).collect();
    assert_eq!(cards.len(), 8);
    assert!((12..20).all(|card| cards.iter().any(|labels| labels.contains(&format!("card={card},")))), "{cards:?}");
    assert_eq!(shown(&board, "tidemill_statistics_series_left_out_total"), [(String::new(), 13.0)]);
    let mut metrics = Metrics::default();
    board.collect(&mut metrics);
    assert!(metrics.text(Format::OpenMetrics).contains("segment=\"card=19\""));
}
