use serde_json::json;

use super::*;
use crate::base::{DAY, SplitMix64};
use crate::train::card::DataFacts;
use crate::train::data::{Column, Matrix, Set};
use crate::train::evaluate::{CardOptions, EvaluateOptions, evaluate};
use crate::train::explain::{Importance, InputImportance};
use crate::train::split::Span;
use crate::train::tune::{FoldFacts, Trial, TuneMethod};

/// Two days of June 2018 by the hour, a model that knows more than the champion in one country and less in another.
fn set_and_scores() -> (Set, Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut random = SplitMix64::new(4);
    let rows = 4000;
    let country: Vec<&str> = (0..rows).map(|row| ["at", "be", "<b>ch&"][row % 10 % 3]).collect();
    let labels: Vec<f64> = (0..rows).map(|_| f64::from(u8::from(random.unit() < 0.05))).collect();
    let mut scores = |noise: &dyn Fn(&str) -> f64| -> Vec<Vec<f64>> {
        let score = |(label, country): (&f64, &&str)| {
            let sum: f64 = (0..4).map(|_| random.unit()).sum::<f64>() - 2.0;
            let logit = -4.0 + 3.0 * label + 2.5 * noise(country) * sum;
            1.0 / (1.0 + (-logit).exp())
        };
        vec![labels.iter().zip(&country).map(score).collect()]
    };
    let champion = scores(&|_| 1.0);
    let challenger = scores(&|country| if country == "be" { 1.7 } else { 0.4 });
    let first = 17_690 * DAY;
    let times: Vec<i64> = (0..rows as i64).map(|row| first + row * DAY / 570).collect();
    let set = Set {
        inputs: Matrix {
            names: vec!["amount".into()],
            columns: vec![Column::Number((0..rows).map(|_| (random.unit() * 300.0).floor() as f32).collect())],
        },
        labels,
        weights: None,
        known: times.iter().map(|time| time + 7 * DAY).collect(),
        times,
        extra: vec![
            ("country".into(), country.into_iter().map(str::to_owned).collect()),
            ("customer".into(), (0..rows).map(|row| format!("c{}", row % 700)).collect()),
        ],
    };
    (set, challenger, champion)
}

fn tuning() -> Table {
    let mut random = SplitMix64::new(8);
    let mut trials: Vec<Trial> = (0..40u32)
        .map(|number| {
            let rate = (1e4 * 0.01 * 50f64.powf(random.unit())).round() / 1e4;
            let leaves = 2 + random.below(60);
            let pull = |fold: f64| {
                0.88 - 0.012 * (rate / 0.08).ln().powi(2) - 0.0004 * (leaves as f64 - 24.0).abs()
                    + 0.01 * fold * random.clone().unit()
            };
            let folds: Vec<_> = (0..4)
                .map(|fold| {
                    [("auc".to_owned(), pull(f64::from(fold))), ("average_precision".to_owned(), 0.7 - rate / 5.0)]
                        .into_iter()
                        .collect()
                })
                .collect();
            let mut trial = Trial {
                number,
                round: 0,
                budget: None,
                values: json!({"rate": rate, "leaves": leaves, "kind": "even"})
                    .as_object()
                    .cloned()
                    .unwrap_or_default(),
                params: json!({}),
                folds,
                mean: None,
                sd: Some(0.009),
                seconds: 1.25,
                failed: None,
            };
            trial.mean = trial.mean_of("auc");
            trial
        })
        .collect();
    trials[7].folds.clear();
    trials[7].mean = None;
    trials[7].failed = Some("gbdt.rate: <0> is not above 0".into());
    let best = (0..40)
        .filter(|at| trials[*at].mean.is_some())
        .max_by(|a, b| trials[*a].mean.unwrap().total_cmp(&trials[*b].mean.unwrap()));
    let fold = |week: i64| {
        let start = (17_670 + 7 * week) * DAY;
        let span = Span { from: start, end: start + 7 * DAY, start: start + 14 * DAY, stop: start + 21 * DAY };
        FoldFacts { span, train_rows: 66_864, train_positives: 633, test_rows: 57_182, test_positives: 416 }
    };
    Table {
        method: TuneMethod::Tpe,
        seed: 0,
        metric: "auc".into(),
        more_is_better: true,
        folds: (0..4).map(fold).collect(),
        trials,
        best: best.unwrap(),
    }
}

fn card() -> Card {
    let (set, challenger, champion) = set_and_scores();
    let options = EvaluateOptions {
        slices: vec!["country".into(), "amount".into()],
        promote_if: Some("auc_challenger >= auc_champion - 0.002 and auc_low > -0.05".into()),
        repeats: 200,
        cards: Some(CardOptions { by: "customer".into(), k: 20, every: "1d".into() }),
        ..EvaluateOptions::default()
    };
    let evaluation = evaluate(&set, Task::Binary, &challenger, Some(&champion), &options, 2).unwrap();
    let names = [
        "TERMINAL_ID_RISK_7DAY_WINDOW",
        "TX_AMOUNT",
        "CUSTOMER_ID_AVG_AMOUNT_30DAY_WINDOW",
        "TX_DURING_NIGHT",
        "noise",
    ];
    let worth = [0.121, 0.084, 0.012, 0.003, -0.0004];
    let inputs = names.iter().zip(worth).map(|(name, worse)| InputImportance {
        name: (*name).into(),
        worse,
        sd: Some(worse.abs() * 0.1 + 0.0005),
        gain: Some((worse + 0.001).max(0.0) / 0.23),
    });
    Card {
        model: "fraud".into(),
        version: Some(7),
        made_for: "drift: psi(TX_AMOUNT) of monitor fraud".into(),
        made_at: 17_700 * DAY,
        task: Task::Binary,
        data: DataFacts {
            tables: vec![("labels/fraud".into(), 41), ("feature_sets/fraud_inputs".into(), 1_207)],
            label_delay: Some(7 * DAY),
            ..DataFacts::of(&set, Vec::new(), None)
        },
        learner: "gbdt".into(),
        params: json!({"trees": 100, "rate": 0.3, "leaves": 8, "depth": 3, "l2": 1.0, "stop_after": null}),
        seed: 20,
        champion: Some("fraud version 6".into()),
        evaluation: Some(evaluation),
        importance: Some(Importance {
            metric: "auc".into(),
            value: 0.91,
            rows: 4000,
            repeats: 5,
            inputs: inputs.collect(),
        }),
        tuning: Some(tuning()),
        limits: vec!["Card payments of one bank; never used for <others>.".into()],
    }
}

/// Every element that is opened is closed, in order.
fn balanced(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for part in html.split('<').skip(1) {
        let tag = part.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('!') || tag.ends_with('/') || matches!(name, "meta" | "br") {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "before {}", &part[..part.len().min(80)]);
        } else {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_card_as_a_page() {
    let card = card();
    let page = card_html(&card);
    if let Some(folder) = std::env::var_os("TIDEMILL_CARD_PAGES").map(std::path::PathBuf::from) {
        std::fs::write(folder.join("card.html"), &page).unwrap();
        std::fs::write(folder.join("card.md"), card.markdown()).unwrap();
        std::fs::write(folder.join("tuning.svg"), crate::report::tuning_svg(card.tuning.as_ref().unwrap())).unwrap();
    }
    balanced(&page);
    assert!(page.contains("default-src 'none'") && !page.contains("<script") && !page.contains("<b>ch"));
    assert_eq!(
        page.matches("http").count(),
        page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count() + 1,
        "no request"
    );
    for text in [
        "fraud version 7 · Tidemill model card",
        "labels/fraud</code> at version 41",
        "country = be",
        "country = &lt;b&gt;ch&amp;",
        "auc_challenger &gt;= auc_champion - 0.002",
        "1 of the trials failed; the first: gbdt.rate: &lt;0&gt; is not above 0",
        "It is worse than the champion where country = be (auc",
        "never used for &lt;others&gt;",
        "Labels take 7d",
        "gbdt",
        "stop_after <b>null</b>",
    ] {
        assert!(page.contains(text), "{text} is missing");
    }
    // Every number of every statistic is there, as it was computed.
    for metric in &card.evaluation.as_ref().unwrap().metrics {
        let told = metric.challenger.unwrap();
        assert!(page.contains(&format!("<data value=\"{:?}\">", told.value)), "{}", metric.metric);
    }
}

#[test]
fn a_card_with_little_to_tell() {
    let full = card();
    let bare = Card {
        version: None,
        champion: None,
        evaluation: None,
        importance: None,
        tuning: None,
        limits: Vec::new(),
        params: serde_json::Value::Null,
        ..full.clone()
    };
    let page = card_html(&bare);
    balanced(&page);
    assert!(page.contains("It was not judged by rows") && !page.contains("id=\"evaluation\""));
    assert!(bare.markdown().contains("- It was not judged by rows"));
    let (set, challenger, _) = set_and_scores();
    let alone = evaluate(&set, Task::Binary, &challenger, None, &EvaluateOptions::default(), 1).unwrap();
    let page = card_html(&Card { champion: None, evaluation: Some(alone), ..full });
    balanced(&page);
    assert!(!page.contains(">champion<"));
}

#[test]
fn a_card_as_markdown() {
    let text = card().markdown();
    for line in [
        "# fraud version 7\n",
        "| Table | labels/fraud at version 41 |",
        "| Label delay | 7d |",
        "| statistic | this model | fraud version 6 | difference | |",
        "- Card payments of one bank; never used for \\<others\\>.",
        "**holds**",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    // Tables have as many cells in each line as in their head.
    let mut cells = 0;
    for line in text.lines() {
        let here = line.replace("\\|", "").matches('|').count();
        assert!(cells == 0 || here == 0 || here == cells, "{line}");
        cells = here;
    }
}

#[test]
fn a_tuning_stands_alone() {
    let svg = crate::report::tuning_svg(&tuning());
    balanced(&svg);
    assert!(svg.starts_with("<svg xmlns=") && svg.contains("prefers-color-scheme:dark"));
    // One trial failed and has no dot.
    assert_eq!(svg.matches("<circle class=\"known").count(), 39);
    assert_eq!(svg.matches("<circle class=\"ring").count(), 1);
}
