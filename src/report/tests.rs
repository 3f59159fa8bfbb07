use super::build;
use super::chart;
use super::format;
use super::html::{Html, escaped};
use super::metrics::{Unit, about, alarms_below, title, unit};
use super::model::*;

const DAY: i64 = 86_400_000_000;

#[test]
fn numbers_are_as_short_as_they_say_something() {
    let cases = [
        (0.0, "0"),
        (0.912_345, "0.9123"),
        (0.5, "0.5"),
        (12.345_6, "12.35"),
        (123.456, "123.5"),
        (-0.25, "−0.25"),
        (1_234.5, "1\u{202f}234"),
        (1_234_567.0, "1\u{202f}234\u{202f}567"),
        (0.000_025, "2.5 · 10⁻⁵"),
        (-3e12, "−3.0 · 10¹²"),
        (f64::NAN, "–"),
    ];
    for (value, text) in cases {
        assert_eq!(format::number(value), text, "{value}");
    }
    let cases = [
        (0.012_345, Unit::Share, "1.23 %"),
        (0.456_78, Unit::Share, "45.7 %"),
        (1.0, Unit::Share, "100 %"),
        (-0.000_01, Unit::Share, "0 %"),
        (1_234.0, Unit::Count, "1\u{202f}234"),
        (7.25, Unit::Milliseconds, "7.25 ms"),
        (12_500.0, Unit::Milliseconds, "12.5 s"),
        (90.0, Unit::Seconds, "90 s"),
        (5_400.0, Unit::Seconds, "90 min"),
        (86_400.0 * 3.5, Unit::Seconds, "3.5 d"),
        (412e6, Unit::Bytes, "412 MB"),
        (1_850.0, Unit::PerSecond, "1\u{202f}850/s"),
    ];
    for (value, unit, text) in cases {
        assert_eq!(format::value(value, unit), text, "{value} {unit:?}");
    }
}

#[test]
fn times_are_as_short_as_they_are_plain() {
    let start = 1_767_571_200_000_000;
    let hour = DAY / 24;
    assert_eq!(format::window(start, start + DAY), "5 Jan 2026");
    assert_eq!(format::window(start + hour, start + 2 * hour), "5 Jan 2026 01:00–02:00");
    let minute = hour / 60;
    assert_eq!(format::window(start + minute, start + minute + 10_000_000), "5 Jan 2026 00:01:00–00:01:10");
    assert_eq!(format::window(start + 23 * hour, start + 24 * hour), "5 Jan 2026 23:00–00:00");
    assert_eq!(format::window(start, start + 7 * DAY), "5 Jan 2026 – 12 Jan 2026");
    assert_eq!(format::moment(start + 90_000_000), "5 Jan 2026 00:01:30");
    assert_eq!(format::moment(i64::MAX), format!("{} µs", i64::MAX));
}

#[test]
fn nothing_from_outside_is_markup() {
    let hostile = "<script>alert('x')</script>&\"\u{0}\u{1b}[31m";
    let safe = escaped(hostile);
    assert!(!safe.contains(['<', '>', '"', '\'', '\u{0}', '\u{1b}']), "{safe}");
    assert_eq!(safe.matches("&amp;").count(), 1);
    let mut html = Html::default();
    html.element("p class=\"x\"", hostile).value(Some(0.25), Unit::Share).value(None, Unit::Count);
    let page = html.finish();
    assert!(
        page.starts_with("<p class=\"x\">&lt;script&gt;") && page.contains("</p><data value=\"0.25\">25 %</data>"),
        "{page}"
    );
}

#[test]
fn hostile_names_come_through_every_section_as_text() {
    let bad = "<b onmouseover=x>\"'&".to_owned();
    let point = |value| Point {
        start: 0,
        end: DAY,
        value: Some(value),
        first: Some(0.5),
        rows: 3,
        alarm: true,
        complete: false,
    };
    let line = Line { name: bad.clone(), colour: 7, points: vec![point(0.25)] };
    let chart = Chart {
        title: bad.clone(),
        note: Some(bad.clone()),
        metric: bad.clone(),
        lines: vec![line.clone(), line.clone()],
        ..Chart::default()
    };
    let cell = Cell {
        metric: bad.clone(),
        version: bad.clone(),
        value: 1.0,
        threshold: Some(0.5),
        ratio: Some(2.0),
        alarm: true,
    };
    let model = ModelPage {
        model: bad.clone(),
        versions: vec![Version { name: bad.clone(), colour: 0, predictions: Some(1) }; 2],
        span: Some((0, DAY)),
        volume: Some(Chart { look: Look::Bars, ..chart.clone() }),
        accuracy: vec![chart.clone()],
        revisions: Some(Revisions { windows: 1, told_again: 1, largest: Some((bad.clone(), 0, 0.1, 0.2)) }),
        labels: vec![chart.clone()],
        segments: vec![SegmentTable {
            column: bad.clone(),
            window: (0, DAY),
            version: bad.clone(),
            metrics: vec![bad.clone()],
            rows: vec![(bad.clone(), 1, vec![None])],
            left_out: 2,
        }],
        confusion: Some(Confusion {
            window: (0, DAY),
            version: bad.clone(),
            classes: vec![bad.clone()],
            counts: vec![vec![Some(1.0)]],
        }),
        heat: Some(Heat {
            windows: vec![(0, DAY)],
            together: 2,
            rows: vec![(bad.clone(), vec![Some(cell)]), (bad.clone(), vec![None])],
        }),
        columns: vec![chart.clone()],
        columns_left_out: 3,
        drift: vec![chart.clone()],
        errors: vec![chart.clone()],
        quality: Some(QualityTable {
            metrics: vec![bad.clone()],
            columns: vec![QualityColumn {
                name: bad.clone(),
                values: vec![Some(line)],
                new_categories: vec![(bad.clone(), 0.1)],
            }],
        }),
        rows: vec![chart.clone()],
        alerts: vec![AlertSpan {
            name: bad.clone(),
            severity: bad.clone(),
            about: bad.clone(),
            start: 0,
            end: None,
            value: Some(1.0),
            threshold: Some(2.0),
            unit: Unit::Number,
            times: 2,
            message: bad.clone(),
        }],
        has_alerts: true,
        operation: vec![chart],
        headline: vec![Tile {
            title: bad.clone(),
            value: 1.0,
            unit: Unit::Number,
            of: bad.clone(),
            window: Some((0, DAY)),
            before: Some(2.0),
            better: Better::More,
            alarm: true,
            open: true,
        }],
        ..ModelPage::default()
    };
    let page = Page {
        job: bad.clone(),
        job_version: 1,
        root: bad.clone(),
        tables: vec![(bad.clone(), 1)],
        from: Some(0),
        to: Some(DAY),
        models: vec![model],
    };
    let html = super::html(&page);
    assert!(!html.contains("<b onmouseover") && html.matches("&lt;b onmouseover").count() > 30);
    for section in
        ["Accuracy", "Drift", "Data quality", "Alerts", "Operation", "Confusion", "Columns together, and errors"]
    {
        assert!(html.contains(&format!(">{section}</h")), "{section}");
    }
}

#[test]
fn a_page_without_anything_says_so_in_words() {
    let model = ModelPage { model: "fraud".into(), window: DAY, ..ModelPage::default() };
    let page = Page {
        job: "j".into(),
        job_version: 1,
        root: "lake".into(),
        tables: Vec::new(),
        from: None,
        to: None,
        models: vec![model],
    };
    let html = super::html(&page);
    assert_eq!(html.matches("class=\"empty\"").count(), 6, "the head, and each section");
    assert!(!html.contains("<svg"));
}

#[test]
fn what_is_known_of_a_statistic_goes_by_its_name() {
    assert_eq!((title("card_precision_100"), unit("card_precision_100")), ("Card precision (100)".into(), Unit::Share));
    assert_eq!(
        (title("f1"), title("r2"), title("precision_at_k")),
        ("F1".into(), "R²".into(), "Precision among the first k".into())
    );
    assert_eq!((title("my_own_metric"), unit("my_own_metric")), ("my own metric".into(), Unit::Number));
    assert!(about("nothing").is_none());
    assert!(alarms_below("ks_p") && alarms_below("chi_square_p") && !alarms_below("psi"));
}

#[test]
fn both_ways_of_writing_a_confusion_cell_are_read() {
    let pair = build::label_and_prediction;
    assert_eq!(pair("true=0 predicted=1"), Some(("0", "1")));
    assert_eq!(pair("tp"), Some(("1", "1")));
    assert_eq!(pair("fn"), Some(("1", "0")));
    assert_eq!((pair(""), pair("3"), pair("1 2 3")), (None, None, None));
}

#[test]
fn axes_have_round_steps_around_all_values() {
    let chart = |values: &[f64], look, threshold| {
        let points = values.iter().enumerate().map(|(i, value)| Point {
            start: i as i64 * DAY,
            end: (i as i64 + 1) * DAY,
            value: Some(*value),
            first: None,
            rows: 1,
            alarm: false,
            complete: true,
        });
        let line = Line { points: points.collect(), ..Line::default() };
        Chart { lines: vec![line.clone(), line], look, threshold, ..Chart::default() }
    };
    let close = |found: Vec<f64>, expected: &[f64]| {
        assert!(
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9),
            "{found:?}, not {expected:?}"
        );
    };
    close(chart::steps(&chart(&[0.88, 0.93], Look::Lines, None)), &[0.88, 0.9, 0.92, 0.94]);
    close(chart::steps(&chart(&[2.0, 11.0], Look::Lines, None)), &[0.0, 5.0, 10.0, 15.0]);
    close(chart::steps(&chart(&[0.01, 0.02], Look::Lines, Some(0.035))), &[0.0, 0.02, 0.04]);
    close(chart::steps(&chart(&[10.0, 30.0], Look::Bars, None)), &[0.0, 20.0, 40.0, 60.0]);
    close(chart::steps(&chart(&[0.0, 0.0], Look::Lines, None)), &[0.0, 0.5, 1.0]);
    close(chart::steps(&chart(&[], Look::Lines, None)), &[0.0, 0.5, 1.0]);
    for values in [[1e-300, 2e-300], [-5.0, -5.0], [1e300, -1e300], [3.0, 3.0]] {
        let steps = chart::steps(&chart(&values, Look::Lines, None));
        let (first, last) = (steps[0], steps[steps.len() - 1]);
        assert!(steps.len() >= 2 && first <= values[0].min(values[1]) && last >= values[0].max(values[1]), "{steps:?}");
    }
}
