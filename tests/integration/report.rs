//! `tidemill report`: every number on the page is one of the tables, the page is sound HTML that asks nothing of anybody, and
//! what is lacking is said in words.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use tidemill::monitor::StatKind;
use tidemill::report::{self, ReportOptions, model::Page};

use crate::support::lake::{self, DAY, START};
use crate::support::{python, root};

struct Setting {
    _dir: TempDir,
    job: PathBuf,
    lake: PathBuf,
}

impl Setting {
    /// The repository's card fraud job with a monitor, and tables if they are wanted.
    fn new(tables: bool, monitors: &str) -> Setting {
        let dir = TempDir::new().expect("a folder");
        let text = fs::read_to_string(root().join("dataflows/card_fraud.yaml")).expect("a job");
        let text = without_monitors(&text);
        let job = dir.path().join("job.yaml");
        let models = root().join("models").display().to_string();
        fs::write(&job, format!("{}\n{monitors}", text.replace("models/card", &format!("{models}/card"))))
            .expect("a file");
        let lake = dir.path().join("lake/card_fraud");
        if tables {
            lake::make(&lake);
        }
        Setting { _dir: dir, job, lake }
    }

    fn report(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("report").arg(&self.job).args(args).env("LAKE", self.lake.parent().expect("a folder"));
        command.output().expect("tidemill starts")
    }

    fn page(&self, options: &ReportOptions) -> Page {
        let lake = self.lake.parent().expect("a folder").display().to_string();
        let (plan, _) = tidemill::engine::load(&self.job, &[], &|name| (name == "LAKE").then(|| lake.clone()))
            .unwrap_or_else(|faults| panic!("{faults}"));
        report::page(&plan, options).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A job up to its monitors, which are its last part.
pub fn without_monitors(job: &str) -> &str {
    job.split_once("\nmonitors:").map_or(job, |(before, _)| before)
}

const MONITOR: &str = "monitors: {fraud: {window: 1d, latency: {p99_ms: 200}}}";

fn failure(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_page_says_what_the_tables_say() {
    let setting = Setting::new(true, MONITOR);
    let page = setting.page(&ReportOptions::default());
    let model = &page.models[0];
    assert_eq!((model.model.as_str(), model.span), ("fraud", Some((START, START + lake::DAYS * DAY))));
    let versions: Vec<(&str, Option<u64>)> = model.versions.iter().map(|v| (v.name.as_str(), v.predictions)).collect();
    let made = |version: &str| (0..lake::DAYS).map(|day| lake::predictions_on(version, day) as u64).sum::<u64>();
    assert_eq!(versions, [("2026-01", Some(made("2026-01"))), ("2026-02", Some(made("2026-02")))]);
    assert_eq!(model.predictions, Some(made("2026-01") + made("2026-02")));

    // The newest revision of each window, and beside it what was told first.
    let told = lake::statistics();
    let of = |metric: &str, version: &str, day: i64| {
        let mut found: Vec<_> = told
            .iter()
            .filter(|s| s.kind == StatKind::Accuracy && s.metric == metric && s.version == version)
            .filter(|s| s.segment.is_empty() && s.subject.is_empty() && s.window_start == START + day * DAY)
            .collect();
        found.sort_by_key(|s| s.revision);
        (found[0].value, found[found.len() - 1].value, found.len())
    };
    let auc = model.accuracy.iter().find(|chart| chart.metric == "auc").expect("a chart");
    assert_eq!(auc.lines.iter().map(|line| line.points.len()).sum::<usize>(), 22 + 15);
    for line in &auc.lines {
        for point in &line.points {
            let (first, newest, times) = of("auc", &line.name, (point.start - START) / DAY);
            assert_eq!(
                (point.value, point.first),
                (newest, first.filter(|_| times > 1)),
                "{} {}",
                line.name,
                point.start
            );
        }
    }
    let tile = &model.headline[0];
    let (last, before) = (of("auc", "2026-02", 29).1, of("auc", "2026-02", 28).1);
    assert_eq!((tile.title.as_str(), Some(tile.value), tile.before), ("ROC AUC", last, before));

    // Drift: the two columns that drift come first, from the twentieth day on.
    let heat = model.heat.as_ref().expect("a map");
    let first: Vec<&str> = heat.rows.iter().take(2).map(|(column, _)| column.as_str()).collect();
    assert_eq!((first, heat.windows.len(), heat.together), (vec!["amount", "terminal__risk_7d"], 30, 1));
    let alarms: Vec<usize> =
        heat.rows[0].1.iter().enumerate().filter_map(|(i, c)| c.as_ref()?.alarm.then_some(i)).collect();
    assert_eq!(alarms, (20..30).collect::<Vec<_>>());
    // A p-value is an alarm when it is small.
    let cell = heat.rows[0].1[25].as_ref().expect("a cell");
    assert!(cell.alarm && cell.ratio.is_some_and(|ratio| ratio > 1.0), "{cell:?}");
    assert!(heat.rows.iter().find(|(c, _)| c == "customer__night").expect("a row").1[3].is_none());

    let confusion = model.confusion.as_ref().expect("a matrix");
    assert_eq!(
        (confusion.classes.as_slice(), confusion.version.as_str()),
        (&["0".to_owned(), "1".to_owned()][..], "2026-02")
    );
    let sum: f64 = confusion.counts.iter().flatten().flatten().sum();
    let rows = told.iter().rev().find(|s| s.metric == "auc" && s.segment.is_empty()).expect("a row").rows;
    assert!((sum - rows as f64).abs() <= 4.0, "{sum} of {rows}");
    assert_eq!(model.segments[0].rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["FR", "DE", "GB"]);

    let spans: Vec<(&str, i64, Option<i64>, usize)> = model
        .alerts
        .iter()
        .map(|a| (a.name.as_str(), (a.start - START) / DAY, a.end.map(|e| (e - START) / DAY), a.times))
        .collect();
    let expected = [
        ("nulls in country", 12, Some(15), 1),
        ("drift", 21, None, 2),
        ("drift", 22, None, 1),
        ("auc is low", 27, None, 1),
        ("cards found", 28, None, 1),
    ];
    assert_eq!(spans, expected);
    let quality = model.quality.as_ref().expect("a table");
    let mcc = quality.columns.iter().find(|column| column.name == "mcc").expect("a column");
    assert_eq!(mcc.new_categories, [("crypto <exchange>".to_owned(), 0.014), ("gift_cards".to_owned(), 0.007)]);
    let latency = model.operation.iter().find(|chart| chart.metric == "latency_p99_ms").expect("a chart");
    // Samples share points, and the worst of each is shown.
    let worst = told.iter().filter(|s| s.metric == "latency_p99_ms").filter_map(|s| s.value).fold(0.0, f64::max);
    let shown = latency.lines[0].points.iter().filter_map(|point| point.value).fold(0.0, f64::max);
    assert_eq!((shown, latency.threshold, latency.lines.len()), (worst, Some(200.0), 2));
    assert!(latency.lines[0].points.len() <= 240);
    let again = model.revisions.as_ref().expect("revisions");
    assert_eq!((again.windows, again.told_again), (30, 23));
}

#[test]
fn a_span_of_time_is_of_windows_that_start_in_it() {
    let setting = Setting::new(true, MONITOR);
    let (from, to) = (START + 10 * DAY, START + 13 * DAY);
    let page = setting.page(&ReportOptions { from: Some(from), to: Some(to), ..ReportOptions::default() });
    let model = &page.models[0];
    assert_eq!(model.span, Some((from, to)));
    let made: u64 = (10..13).map(|day| lake::predictions_on("2026-01", day) as u64).sum();
    assert_eq!((model.predictions, model.versions.len()), (Some(made), 1));
    assert_eq!(model.heat.as_ref().expect("a map").windows.len(), 3);
    assert!(model.operation.is_empty() && model.alerts.len() == 1);
    let nothing = setting.page(&ReportOptions { to: Some(START), ..ReportOptions::default() });
    let html = report::html(&nothing);
    for said in ["There is no statistic in this time", "No alert fired in this time", "was not sampled in this time"] {
        assert!(html.contains(said), "{said}");
    }
}

/// Reads the page with Python's parser: elements that do not fit each other, links that lead elsewhere, and all numbers for
/// machines with the text beside them.
const READ: &str = r#"
import html.parser, json, sys
VOID = {'meta', 'br', 'link', 'img', 'input', 'hr'}
class P(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(); self.open = []; self.bad = []; self.data = []; self.ids = []; self.refs = []; self.labels = []; self.text = None
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if len(a) != len(attrs): self.bad.append(f'twice an attribute: {tag} {attrs}')
        if tag not in VOID: self.open.append(tag)
        if 'id' in a: self.ids.append(a['id'])
        for k, v in attrs:
            if k in ('src', 'href', 'action', 'data', 'poster', 'srcset', 'xlink:href') and not v.startswith('#'): self.bad.append(f'{tag} {k}={v}')
            if k.startswith('on'): self.bad.append(f'{tag} {k}')
            if k == 'href': self.refs.append(v[1:])
            if k == 'aria-labelledby': self.labels += v.split()
        if tag in ('script', 'iframe', 'object', 'embed', 'link', 'base', 'img'): self.bad.append(tag)
        if tag == 'data': self.text = ''; self.value = float(a['value'])
    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID: self.open.pop()
    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag: self.bad.append(f'</{tag}> at {self.getpos()}')
        if tag == 'data': self.data.append([self.value, self.text]); self.text = None
    def handle_data(self, text):
        if self.text is not None: self.text += text
p = P(); page = open(sys.argv[1], encoding='utf-8').read(); p.feed(page); p.close()
if p.open: p.bad.append(f'left open: {p.open}')
if len(p.ids) != len(set(p.ids)): p.bad.append('an id is there twice')
for r in p.refs + p.labels:
    if r not in p.ids: p.bad.append(f'nothing has the id {r}')
for word in ('url(', '@import', 'http://', 'https://', 'javascript:', 'NaN', 'inf"'):
    if word in page: p.bad.append(word)
print(json.dumps({'bad': p.bad, 'data': p.data}))
"#;

#[test]
fn the_page_is_sound_and_its_numbers_are_the_tables() {
    let setting = Setting::new(true, MONITOR);
    let out = setting.lake.with_file_name("report.html");
    let made = setting.report(&["--out", &out.display().to_string()]);
    assert!(made.status.success(), "{:?}", failure(&made));
    assert_eq!(String::from_utf8_lossy(&made.stdout).trim(), out.display().to_string());
    let html = fs::read_to_string(&out).expect("a page");
    assert!(html.contains("AUC fell to 0.884 &lt;b&gt;below&lt;/b&gt; 0.89 &amp; stays there"));
    assert!(html.contains("crypto &lt;exchange&gt;") && !html.contains("<exchange>"));
    // For whoever wants to look at it.
    if let Some(keep) = std::env::var_os("TIDEMILL_REPORT") {
        fs::copy(&out, keep).expect("a copy");
    }
    let Some(python) = python("reading the report's HTML") else { return };
    let script = out.with_file_name("read.py");
    fs::write(&script, READ).expect("a file");
    let output = Command::new(python).arg(&script).arg(&out).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(read["bad"], serde_json::json!([]));

    // All that may be told: values of the tables, rows, thresholds, and sums and counts of them that are checked above.
    let mut known: BTreeMap<u64, ()> = BTreeMap::new();
    let mut note = |value: f64| {
        known.insert(value.to_bits(), ());
    };
    for stat in lake::statistics() {
        [stat.value, stat.threshold].into_iter().flatten().for_each(&mut note);
        note(stat.rows as f64);
    }
    for alert in lake::ALERTS {
        note(alert.7);
        note(alert.8);
    }
    let mut sums = vec![0.0; 3];
    for (i, version) in ["2026-01", "2026-02"].into_iter().enumerate() {
        for day in 0..lake::DAYS {
            let rows = lake::predictions_on(version, day) as f64;
            note(rows);
            sums[i] += rows;
            sums[2] += rows;
        }
    }
    sums.into_iter().for_each(&mut note);
    // Drifting columns, alerts; samples of the job's operation that share a point.
    (0..12).for_each(|count| note(f64::from(count)));
    (1..8).for_each(|samples| note(f64::from(samples) * 19_000.0));
    let data = read["data"].as_array().expect("a list");
    assert!(data.len() > 3_000, "{}", data.len());
    for pair in data {
        let (value, text) = (pair[0].as_f64().expect("a number"), pair[1].as_str().expect("a text"));
        assert!(known.contains_key(&value.to_bits()), "{value} ({text}) is in no table");
        assert!(is_near(value, text), "{value} is shown as {text}");
    }
}

/// Whether a text for people is a number, rounded.
fn is_near(value: f64, text: &str) -> bool {
    let text = text.replace('\u{202f}', "").replace('−', "-");
    let (number, unit) = text.find([' ', '/']).map_or((text.as_str(), ""), |at| text.split_at(at));
    let Ok(number) = number.parse::<f64>() else { return false };
    let raised = |c: char| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().position(|r| r == c).map(|d| d.to_string()).unwrap_or("-".into());
    let scale = match unit.trim() {
        "%" => 0.01,
        "" | "/s" | "ms" | "B" | "s" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "min" => 60.0,
        power if power.starts_with("· 10") => {
            let digits: String = power.trim_start_matches("· 10").chars().map(raised).collect();
            10f64.powi(digits.parse().expect("a power"))
        }
        other => panic!("unit `{other}`"),
    };
    // Four digits, or two decimals of a per cent.
    let off = (number * scale - value).abs();
    let one = unit.ends_with('B') || (unit.trim() == "%" && value >= 0.0999);
    let decimals = if one { 0.051 } else { 0.0051 };
    off <= value.abs() * 6e-4 || off <= scale * decimals || (unit.contains('·') && off <= value.abs() * 0.06)
}

#[test]
fn what_is_lacking_is_said() {
    let setting = Setting::new(false, MONITOR);
    let (code, text) = failure(&setting.report(&[]));
    assert!(code == Some(2) && text.contains("there are no tables in") && text.contains("--tables"), "{code:?} {text}");
    fs::create_dir_all(&setting.lake).expect("a folder");
    let (code, text) = failure(&setting.report(&[]));
    assert!(code == Some(1) && text.contains("stats/accuracy") && text.contains("`monitors`"), "{code:?} {text}");
    let (code, text) = failure(&setting.report(&["--model", "fruad"]));
    assert!(code == Some(2) && text.contains("did you mean `fraud`?"), "{code:?} {text}");
    let (code, text) = failure(&setting.report(&["--from", "2026-01-02", "--to", "2026-01-01"]));
    assert!(code == Some(2) && text.contains("--from is not before --to"), "{code:?} {text}");
    let (code, text) = failure(&setting.report(&["--from", "yesterday"]));
    assert!(code == Some(2) && text.contains("2018-04-01"), "{code:?} {text}");
    let unwatched = Setting::new(true, "");
    let (code, text) = failure(&unwatched.report(&[]));
    assert!(code == Some(2) && text.contains("it has no `monitors`"), "{code:?} {text}");
    let (code, text) = failure(&unwatched.report(&["--model", "fraud"]));
    assert!(code == Some(2) && text.contains("model `fraud` is not watched"), "{code:?} {text}");
}

#[test]
fn tables_that_are_damaged_or_foreign_are_named() {
    let setting = Setting::new(true, MONITOR);
    let log = setting.lake.join("stats/drift/_delta_log/00000000000000000000.json");
    let whole = fs::read(&log).expect("a log");
    fs::write(&log, b"{\"metaData\": 7").expect("a file");
    let (code, text) = failure(&setting.report(&["--out", "-"]));
    assert!(code == Some(1) && text.contains("stats/drift"), "{code:?} {text}");
    fs::write(&log, whole).expect("a file");
    assert!(setting.report(&["--out", "-"]).status.success());
    fs::remove_dir_all(setting.lake.join("stats/alerts")).expect("a folder");
    let other =
        tidemill::store::offline::read_table(&setting.lake.join("predictions/fraud"), None, None).expect("rows");
    lake::write(&setting.lake, "stats/alerts", &other);
    let (code, text) = failure(&setting.report(&["--out", "-"]));
    assert!(code == Some(1) && text.contains("stats/alerts") && text.contains("`name`"), "{code:?} {text}");
    // A file that cannot be written is no half a page.
    fs::remove_dir_all(setting.lake.join("stats/alerts")).expect("a folder");
    let nowhere: &Path = &setting.lake.join("not/there.html");
    let (code, text) = failure(&setting.report(&["--out", &nowhere.display().to_string()]));
    assert!(code == Some(1) && text.contains("not/there.html"), "{code:?} {text}");
}
