//! The live view of a running job: on a terminal it redraws itself in place, elsewhere it prints one line a second.
//!
//! It draws from the job's [`Observer`] on a thread of its own and changes nothing about the job. What a frame shows is a
//! function of a snapshot ([`frame`], [`plain_line`]); this file's other half puts it on the screen.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use console::{Style, Term};

use super::output::grouped;
use crate::base::format_time;
use crate::engine::observe::{Latency, Observer, Snapshot};

/// Time between frames on a terminal.
const FRAME: Duration = Duration::from_millis(250);
/// Time between lines elsewhere, and between points of the curve.
const LINE: Duration = Duration::from_secs(1);
/// Rates are over this long.
const RATE_OVER: Duration = Duration::from_secs(3);
/// Points of the curve of accuracy.
const CURVE_POINTS: usize = 40;
/// News that stay on the screen.
const NEWS: usize = 8;
/// Width of a column of values.
const CELL: usize = 11;

/// A view that is being drawn.
pub struct Live {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Live {
    /// Begins to draw on standard output. `step` is called at every frame, first with the time since the start.
    /// What it returns is news, shown line by line.
    pub fn start(
        title: &str,
        observer: Arc<Observer>,
        mut step: impl FnMut(Duration) -> Vec<String> + Send + 'static,
    ) -> Live {
        let (end, ended) = channel();
        let mut view = View::new(title);
        let mut screen = Screen::stdout();
        let thread = std::thread::spawn(move || {
            loop {
                let wait = if screen.redraws() { FRAME } else { FRAME.min(view.until_line(&observer)) };
                let last = !matches!(ended.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
                view.ended = last;
                let snapshot = observer.snapshot();
                view.hear(step(snapshot.elapsed));
                view.see(&snapshot);
                // A screen that is gone is no reason to stop the job.
                let _ = screen.show(&mut view, &snapshot, last);
                if last {
                    return;
                }
            }
        });
        Live { end, thread }
    }

    /// Draws the last frame and leaves it on the screen.
    pub fn finish(self) {
        // The thread ends on a message as on a closed channel; if it panicked, the panic has been printed.
        let _ = self.end.send(());
        let _ = self.thread.join();
    }
}

/// What the view remembers from frame to frame.
#[derive(Debug)]
struct View {
    title: String,
    /// Elapsed time and rows scored (read, where no model scores them), over [`RATE_OVER`]: labels are read ahead in bursts.
    rows: VecDeque<(Duration, u64)>,
    /// The area under the curve, by second.
    curve: VecDeque<f64>,
    curve_at: Duration,
    line_at: Duration,
    ended: bool,
    /// The latest news.
    news: VecDeque<String>,
    /// Those that were not printed as lines yet.
    unsaid: Vec<String>,
}

impl View {
    fn new(title: &str) -> View {
        View {
            title: title.to_owned(),
            rows: VecDeque::from([(Duration::ZERO, 0)]),
            curve: VecDeque::new(),
            curve_at: Duration::ZERO,
            line_at: LINE,
            ended: false,
            news: VecDeque::new(),
            unsaid: Vec::new(),
        }
    }

    fn until_line(&self, observer: &Observer) -> Duration {
        self.line_at.saturating_sub(observer.elapsed()).max(Duration::from_millis(1))
    }

    fn hear(&mut self, news: Vec<String>) {
        for line in news {
            self.news.push_back(line.clone());
            self.unsaid.push(line);
        }
        while self.news.len() > NEWS {
            self.news.pop_front();
        }
    }

    fn see(&mut self, snapshot: &Snapshot) {
        let rows = if snapshot.model.is_some() { snapshot.rows_scored } else { snapshot.rows_in };
        self.rows.push_back((snapshot.elapsed, rows));
        while self.rows.len() > 2 && self.rows[1].0 + RATE_OVER <= snapshot.elapsed {
            self.rows.pop_front();
        }
        let auc = snapshot.accuracy.and_then(|a| a.auc);
        if let (Some(auc), true) = (auc, snapshot.elapsed >= self.curve_at) {
            self.curve_at = snapshot.elapsed + LINE;
            if self.curve.len() == CURVE_POINTS {
                self.curve.pop_front();
            }
            self.curve.push_back(auc);
        }
    }

    /// Rows per second.
    fn rate(&self) -> u64 {
        match (self.rows.front(), self.rows.back()) {
            (Some((t0, n0)), Some((t1, n1))) if t1 > t0 => {
                ((n1 - n0) as f64 / (*t1 - *t0).as_secs_f64()).round() as u64
            }
            _ => 0,
        }
    }
}

/// How a piece of text looks on a terminal with colours.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ink {
    Plain,
    Dim,
    Strong,
    Alarm,
}

/// A line of a frame, in pieces.
type Line = Vec<(Ink, String)>;

/// The frame for a terminal of `width` columns and `height` rows; the list of features is cut to fit.
fn frame(view: &View, snapshot: &Snapshot, width: usize, height: usize) -> Vec<Line> {
    let mut lines = vec![title_line(view, snapshot, width), Vec::new()];
    let figure = |name: &str, value: String, more: String| {
        vec![(Ink::Dim, format!("  {name:<13}")), (Ink::Strong, value), (Ink::Plain, more)]
    };
    let counts =
        format!("   {} scored   {} dead letters", grouped(snapshot.rows_scored), grouped(snapshot.dead_letters));
    lines.push(figure(
        "rows/s",
        format!("{:>9}", grouped(view.rate())),
        format!("   {} read{counts}", grouped(snapshot.rows_in)),
    ));
    let clock = snapshot.watermark.map_or_else(|| "-".to_owned(), whole_seconds);
    let behind = match snapshot.ticks_behind {
        0..=1 => String::new(),
        n => format!("   {} ticks behind", grouped(n)),
    };
    lines.push(figure("watermark", clock, behind));
    lines.push(match snapshot.latency {
        Some(Latency { p50, p99, max }) => figure(
            "latency",
            format!("p50 {}   p99 {}", short_time(p50), short_time(p99)),
            format!("   max {}   over the last 10 s", short_time(max)),
        ),
        None => figure("latency", "-".to_owned(), String::new()),
    });
    let accuracy = snapshot.accuracy.and_then(|a| a.auc.map(|auc| (auc, a)));
    lines.push(match accuracy {
        Some((auc, a)) => {
            let more = format!(" {} frauds among {} labelled rows", grouped(a.positives), grouped(a.window));
            figure("AUC", format!("{auc:.4}  {}", curve(&view.curve)), more)
        }
        None => figure("AUC", "-".to_owned(), "  labels are still to come".to_owned()),
    });
    lines.push(Vec::new());
    if !view.news.is_empty() {
        lines.extend(view.news.iter().map(|news| vec![(Ink::Plain, format!("  {news}"))]));
        lines.push(Vec::new());
    }
    lines.extend(rows_table(snapshot, width, height.saturating_sub(lines.len() + 1)));
    lines.truncate(height.saturating_sub(1));
    lines
}

fn title_line(view: &View, snapshot: &Snapshot, width: usize) -> Line {
    let hint = if view.ended { "ended" } else { "Ctrl-C ends it" };
    let right = format!("{} s   {hint}", snapshot.elapsed.as_secs());
    let gap = width.saturating_sub(view.title.chars().count() + right.chars().count() + 1).max(2);
    vec![(Ink::Strong, view.title.clone()), (Ink::Plain, " ".repeat(gap)), (Ink::Dim, right)]
}

/// The last rows side by side, the newest on the right: a feature per line, the score at the end.
fn rows_table(snapshot: &Snapshot, width: usize, height: usize) -> Vec<Line> {
    let Some((model, score)) = &snapshot.model else {
        return Vec::new();
    };
    let name_width = snapshot.columns.iter().map(|c| c.chars().count()).max().unwrap_or(0).clamp(12, 28) + 2;
    let shown = (width.saturating_sub(name_width + 3) / CELL).min(snapshot.recent.len());
    let rows = &snapshot.recent[snapshot.recent.len() - shown..];
    // The head and the score always have their place; the features share the rest.
    if height < 3 {
        return Vec::new();
    }
    let line = |name: String, ink: Ink, cells: &mut dyn Iterator<Item = (Ink, String)>| {
        let mut line = vec![(ink, format!("  {name:<name_width$}"))];
        line.extend(cells.map(|(ink, text)| (ink, format!("{:>CELL$}", cut(&text, CELL - 1)))));
        line
    };
    let mut lines = Vec::new();
    let head = format!("last rows of {model}");
    lines.push(line(cut(&head, name_width), Ink::Dim, &mut rows.iter().map(|r| (Ink::Dim, r.id.clone()))));
    for (i, name) in snapshot.columns.iter().enumerate().take(height - 2) {
        let cell = |r: &crate::engine::observe::ScoredRow| (Ink::Plain, r.values.get(i).cloned().unwrap_or_default());
        lines.push(line(cut(name, name_width - 2), Ink::Plain, &mut rows.iter().map(cell)));
    }
    let inked = |score: f64| (if score >= 0.5 { Ink::Alarm } else { Ink::Strong }, format!("{score:.4}"));
    lines.push(line(cut(score, name_width - 2), Ink::Strong, &mut rows.iter().map(|r| inked(r.score))));
    lines
}

/// One line for a log: everything but the features.
fn plain_line(view: &View, snapshot: &Snapshot) -> String {
    let mut parts = vec![
        format!("{:>4} s", snapshot.elapsed.as_secs()),
        format!("{} rows", grouped(snapshot.rows_in)),
        format!("{} rows/s", grouped(view.rate())),
        format!("{} scored", grouped(snapshot.rows_scored)),
        format!("{} dead letters", grouped(snapshot.dead_letters)),
        format!("watermark {}", snapshot.watermark.map_or_else(|| "-".to_owned(), whole_seconds)),
    ];
    if let Some(latency) = snapshot.latency {
        parts.push(format!("p50 {} p99 {}", short_time(latency.p50), short_time(latency.p99)));
    }
    if let (Some(last), Some((_, score))) = (snapshot.recent.last(), &snapshot.model) {
        parts.push(format!("{} has {score} {:.4}", if last.id.is_empty() { "last row" } else { &last.id }, last.score));
    }
    if let Some((auc, a)) = snapshot.accuracy.and_then(|a| a.auc.map(|auc| (auc, a))) {
        parts.push(format!("AUC {auc:.4} over {} labels", grouped(a.window)));
    }
    parts.join("   ")
}

/// Event time to the second.
fn whole_seconds(time: i64) -> String {
    format_time(time - time.rem_euclid(1_000_000))
}

/// `850 µs`, `1.2 ms`, `34 ms`, `1.8 s`.
fn short_time(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// The points as bars from one half (a coin) to one.
fn curve(points: &VecDeque<f64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    points.iter().map(|p| BARS[(((p - 0.5) * 16.0).max(0.0) as usize).min(7)]).collect()
}

/// The first `most` characters.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Where frames go.
enum Screen {
    /// A terminal, and the number of lines of the last frame.
    Terminal(Term, usize),
    /// A pipe or a file.
    Lines,
}

impl Screen {
    fn stdout() -> Screen {
        let term = Term::buffered_stdout();
        if term.features().is_attended() { Screen::Terminal(term, 0) } else { Screen::Lines }
    }

    fn redraws(&self) -> bool {
        matches!(self, Screen::Terminal(..))
    }

    fn show(&mut self, view: &mut View, snapshot: &Snapshot, last: bool) -> io::Result<()> {
        match self {
            Screen::Terminal(term, drawn) => {
                let (height, width) = term.size();
                let lines = frame(view, snapshot, width.into(), height.into());
                if *drawn > 0 {
                    term.move_cursor_up(*drawn)?;
                }
                for line in &lines {
                    term.clear_line()?;
                    term.write_line(&painted(
                        line,
                        usize::from(width).saturating_sub(1),
                        term.features().colors_supported(),
                    ))?;
                }
                // A frame shorter than the last one leaves nothing of it behind.
                term.clear_to_end_of_screen()?;
                *drawn = lines.len();
                term.flush()
            }
            Screen::Lines => {
                let mut text: String = view.unsaid.drain(..).map(|line| line + "\n").collect();
                if last || snapshot.elapsed >= view.line_at {
                    text += &plain_line(view, snapshot);
                    text.push('\n');
                }
                while view.line_at <= snapshot.elapsed {
                    view.line_at += LINE;
                }
                io::Write::write_all(&mut io::stdout(), text.as_bytes())
            }
        }
    }
}

/// A line as text of `width` columns at most. All that is printed is one column wide per character.
fn painted(line: &Line, width: usize, colours: bool) -> String {
    let (mut text, mut left) = (String::new(), width);
    for (ink, piece) in line {
        let piece = cut(piece, left);
        left -= piece.chars().count();
        let style = match ink {
            _ if !colours => None,
            Ink::Plain => None,
            Ink::Dim => Some(Style::new().dim()),
            Ink::Strong => Some(Style::new().bold()),
            Ink::Alarm => Some(Style::new().red().bold()),
        };
        match style {
            Some(style) => text.push_str(&style.force_styling(true).apply_to(piece).to_string()),
            None => text.push_str(&piece),
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::observe::{Accuracy, ScoredRow};

    fn snapshot(seconds: u64) -> Snapshot {
        let latency = Latency {
            p50: Duration::from_micros(850),
            p99: Duration::from_micros(4_310),
            max: Duration::from_millis(61),
        };
        let row = |id: u64, score: f64| ScoredRow {
            time: 0,
            id: id.to_string(),
            values: vec!["53.20".into(), "4".into(), "12.4056".into()],
            score,
        };
        Snapshot {
            elapsed: Duration::from_secs(seconds),
            rows_in: 2_000 * seconds,
            rows_scored: 1_999 * seconds,
            dead_letters: 3,
            labels: 20_112,
            tick: 9,
            ticks_behind: 0,
            watermark: Some(1_767_571_200_123_456),
            latency: Some(latency),
            latency_total: None,
            model: Some(("fraud".into(), "score".into())),
            columns: vec!["amount".into(), "customer__nb_tx_1d".into(), "customer__avg_amount_7d".into()],
            recent: (0..8).map(|i| row(12_345_678 + i, i as f64 / 8.0)).collect(),
            accuracy: Some(Accuracy { auc: Some(0.9431), window: 20_112, positives: 163, matched: 20_112 }),
        }
    }

    fn seen() -> View {
        let mut view = View::new("tidemill demo: card_fraud");
        (0..12).for_each(|second| view.see(&snapshot(second)));
        view
    }

    fn text(lines: &[Line], width: usize) -> String {
        lines.iter().map(|line| painted(line, width, false) + "\n").collect()
    }

    #[test]
    fn a_frame_shows_the_job() {
        let expected = "\
tidemill demo: card_fraud                                 12 s   Ctrl-C ends it

  rows/s           1,999   24,000 read   23,988 scored   3 dead letters
  watermark    2026-01-05T00:00:00Z
  latency      p50 850 µs   p99 4.3 ms   max 61 ms   over the last 10 s
  AUC          0.9431  █████████████ 163 frauds among 20,112 labelled rows

  last rows of fraud          12345682   12345683   12345684   12345685
  amount                         53.20      53.20      53.20      53.20
  customer__nb_tx_1d                 4          4          4          4
  customer__avg_amount_7d      12.4056    12.4056    12.4056    12.4056
  score                         0.5000     0.6250     0.7500     0.8750
";
        let mut view = seen();
        view.see(&snapshot(12));
        assert_eq!(text(&frame(&view, &snapshot(12), 80, 30), 79), expected);
    }

    #[test]
    fn a_frame_fits_any_terminal() {
        for (width, height) in [(0, 0), (1, 1), (20, 5), (80, 9), (80, 10), (300, 100)] {
            let lines = frame(&seen(), &snapshot(12), width, height);
            assert!(lines.len() <= height, "{} lines on {height}", lines.len());
            for line in text(&lines, width).lines() {
                assert!(line.chars().count() <= width, "{line:?} on {width}");
            }
        }
        let scored = text(&frame(&seen(), &snapshot(12), 80, 11), 80);
        assert!(scored.ends_with("0.8750\n"), "the score stays when features have no room:\n{scored}");
    }

    #[test]
    fn a_job_that_has_nothing_to_show_yet() {
        let empty = Snapshot {
            watermark: None,
            latency: None,
            model: None,
            columns: Vec::new(),
            recent: Vec::new(),
            accuracy: None,
            ..snapshot(0)
        };
        let text = text(&frame(&View::new("job"), &empty, 80, 30), 80);
        assert!(text.contains("watermark    -\n") && text.contains("labels are still to come"), "{text}");
        let line = plain_line(&View::new("job"), &empty);
        assert_eq!(line, "   0 s   0 rows   0 rows/s   0 scored   3 dead letters   watermark -");
    }

    #[test]
    fn a_line_tells_the_same() {
        let line = plain_line(&seen(), &snapshot(11));
        let expected = "  11 s   22,000 rows   1,999 rows/s   21,989 scored   3 dead letters   watermark 2026-01-05T00:00:00Z   \
                        p50 850 µs p99 4.3 ms   12345685 has score 0.8750   AUC 0.9431 over 20,112 labels";
        assert_eq!(line, expected);
    }

    #[test]
    fn times_and_curves_are_short() {
        let times = [0, 999, 1_000, 9_940, 34_567, 999_999, 1_810_000].map(|t| short_time(Duration::from_micros(t)));
        assert_eq!(times, ["0 µs", "999 µs", "1.0 ms", "9.9 ms", "34 ms", "999 ms", "1.8 s"]);
        assert_eq!(curve(&VecDeque::from([0.1, 0.5, 0.75, 0.99, 1.0])), "▁▁▅██");
    }
}
