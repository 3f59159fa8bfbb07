//! The page, section by section.

use super::chart::{self, swatch};
use super::format;
use super::html::Html;
use super::metrics::title;
use super::model::*;
use crate::base::{EventTime, format_duration};

/// The style of all pages.
pub(super) const STYLE: &str = include_str!("style.css");

/// Series in a chart's table at most before it is too wide to read; the rest stand in further tables.
const TABLE_LINES_MAX: usize = 4;

pub(super) fn page(page: &Page) -> String {
    let mut html = Html::default();
    html.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    // Nothing is loaded from anywhere, and the browser is told so.
    html.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">");
    let names: Vec<&str> = page.models.iter().map(|model| model.model.as_str()).collect();
    html.element("title", format_args!("{} · {} · Tidemill report", names.join(", "), page.job));
    html.raw("<style>").raw(STYLE).raw("</style></head><body>");
    for (i, model) in page.models.iter().enumerate() {
        model_page(&mut html, page, model, &format!("m{i}"));
    }
    foot(&mut html, page);
    html.raw("</body></html>\n");
    html.finish()
}

fn model_page(html: &mut Html, page: &Page, model: &ModelPage, id: &str) {
    html.raw("<header><div class=\"wrap\">");
    html.element("p class=\"eyebrow\"", format_args!("job {} · version {}", page.job, page.job_version));
    html.element("h1", &model.model);
    facts(html, model);
    html.raw("</div></header><main class=\"wrap\">");
    nav(html, id);
    headline(html, model);
    accuracy(html, model, id);
    drift(html, model, id);
    quality(html, model, id);
    alerts(html, model, id);
    operation(html, model, id);
    html.raw("</main>");
}

fn facts(html: &mut Html, model: &ModelPage) {
    html.raw("<dl class=\"facts\">");
    if let Some((from, to)) = model.span {
        html.raw("<div><dt>Windows</dt><dd>").window(from, to);
        html.text(format_args!(", each {}", format_duration(model.window))).raw("</dd></div>");
    }
    if let Some(predictions) = model.predictions {
        html.raw("<div><dt>Predictions</dt><dd>").value(Some(predictions as f64), Unit::Count).raw("</dd></div>");
    }
    if let Some(as_of) = model.as_of.filter(|as_of| *as_of < EventTime::MAX) {
        html.raw("<div><dt>As known on</dt><dd>").moment(as_of).raw("</dd></div>");
    }
    if !model.versions.is_empty() {
        html.raw("<div><dt>Versions</dt><dd>");
        for version in &model.versions {
            html.raw(swatch(version.colour, &version.name));
            if let Some(predictions) = version.predictions {
                html.raw(" <span class=\"muted\">").value(Some(predictions as f64), Unit::Count).raw("</span> ");
            }
        }
        html.raw("</dd></div>");
    }
    html.raw("</dl>");
}

fn nav(html: &mut Html, id: &str) {
    html.raw("<nav aria-label=\"Sections\">");
    for (name, label) in SECTIONS {
        html.raw(format_args!("<a href=\"#{id}-{name}\">{label}</a>"));
    }
    html.raw("</nav>");
}

const SECTIONS: [(&str, &str); 5] = [
    ("accuracy", "Accuracy"),
    ("drift", "Drift"),
    ("quality", "Data quality"),
    ("alerts", "Alerts"),
    ("operation", "Operation"),
];

fn section(html: &mut Html, id: &str, name: &str, lead: &str) {
    let label = SECTIONS.iter().find(|(known, _)| *known == name).map_or(name, |(_, label)| label);
    html.raw(format_args!("<section id=\"{id}-{name}\"><h2>{label}</h2>"));
    html.element("p class=\"lead\"", lead);
}

fn headline(html: &mut Html, model: &ModelPage) {
    if model.span.is_none() {
        html.element(
            "p class=\"empty\"",
            "There is no statistic in this time yet. The first comes when the first window has ended and its labels are there.",
        );
    }
    if model.headline.is_empty() {
        return;
    }
    html.raw("<section class=\"tiles\" aria-label=\"What matters most\">");
    for tile in &model.headline {
        html.raw(if tile.alarm { "<div class=\"tile bad\">" } else { "<div class=\"tile\">" });
        html.element("h3", &tile.title);
        html.raw("<p class=\"big\">").value(Some(tile.value), tile.unit).raw("</p>");
        trend(html, tile);
        html.raw("<p class=\"of\">").text(&tile.of);
        if let Some((start, end)) = tile.window {
            html.raw(if tile.of.is_empty() { "" } else { " · " }).window(start, end);
        }
        html.raw(if tile.open { ", may still change" } else { "" }).raw("</p></div>");
    }
    html.raw("</section>");
}

/// The change since the window before, with an arrow, in words, and in a colour that says whether it is for the better.
fn trend(html: &mut Html, tile: &Tile) {
    let Some(before) = tile.before else { return };
    let change = tile.value - before;
    let shown = |value: f64| format::value(value, tile.unit);
    if change == 0.0 || shown(tile.value) == shown(before) {
        html.raw("<p class=\"trend\">→ as before</p>");
        return;
    }
    let good = match tile.better {
        Better::More => Some(change > 0.0),
        Better::Less => Some(change < 0.0),
        Better::Neither => None,
    };
    let class = good.map_or("trend", |good| if good { "trend good" } else { "trend worse" });
    html.raw(format_args!("<p class=\"{class}\">{} from ", if change > 0.0 { "▲" } else { "▼" }));
    html.value(Some(before), tile.unit);
    html.raw(good.map_or("", |good| if good { ", better" } else { ", worse" })).raw("</p>");
}

/// The time that charts are of.
fn reach(charts: &[Chart]) -> Option<(EventTime, EventTime)> {
    let points = charts.iter().flat_map(|chart| &chart.lines).flat_map(|line| &line.points);
    points.map(|point| (point.start, point.end)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// Charts side by side, all over the same time. The versions' colours are told above them.
fn charts(html: &mut Html, charts: &[Chart], id: &str, model: &ModelPage) {
    let Some(span) = reach(charts) else { return };
    html.raw("<div class=\"grid\">");
    for (i, chart) in charts.iter().enumerate() {
        let is_known = |line: &Line| model.versions.iter().any(|version| version.name == line.name);
        let legend = chart.lines.len() > 1 && !chart.lines.iter().all(is_known);
        figure(html, chart, &format!("{id}{i}"), span, legend);
    }
    html.raw("</div>");
}

/// The versions' colours, where there are several.
fn versions(html: &mut Html, model: &ModelPage) {
    if model.versions.len() > 1 {
        html.raw("<p class=\"legend\">");
        for version in &model.versions {
            html.raw(swatch(version.colour, &version.name));
        }
        html.raw("</p>");
    }
}

fn figure(html: &mut Html, chart: &Chart, id: &str, span: (EventTime, EventTime), legend: bool) {
    html.raw("<figure class=\"card\"><figcaption><h4>").text(&chart.title).raw("</h4>");
    if let Some(note) = &chart.note {
        html.element("span class=\"muted\"", note);
    }
    html.raw("</figcaption>");
    if legend {
        html.raw("<p class=\"legend\">");
        chart.lines.iter().for_each(|line| {
            html.raw(swatch(line.colour, &line.name));
        });
        html.raw("</p>");
    }
    if chart::has_values(chart) {
        chart::draw(html, id, chart, span);
    } else {
        html.element("p class=\"empty\"", "It is not defined in any of these windows.");
    }
    html.raw("<details><summary>Numbers</summary>");
    for lines in chart.lines.chunks(TABLE_LINES_MAX) {
        table(html, chart, lines);
    }
    html.raw("</details></figure>");
}

fn table(html: &mut Html, chart: &Chart, lines: &[Line]) {
    let told_again = lines.iter().flat_map(|line| &line.points).any(|point| point.first.is_some());
    html.raw("<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Window</th>");
    for line in lines {
        html.element("th scope=\"col\"", if line.name.is_empty() { &chart.title } else { &line.name });
        html.raw(if told_again { "<th scope=\"col\">first told</th>" } else { "" });
        html.raw(if chart.look == Look::Lines { "<th scope=\"col\">rows</th>" } else { "" });
    }
    html.raw("</tr></thead><tbody>");
    let mut windows: Vec<(EventTime, EventTime)> =
        lines.iter().flat_map(|line| &line.points).map(|point| (point.start, point.end)).collect();
    windows.sort_unstable();
    windows.dedup();
    for window in windows.iter().rev() {
        html.raw("<tr><th scope=\"row\">").window(window.0, window.1).raw("</th>");
        for line in lines {
            let point = line.points.iter().find(|point| (point.start, point.end) == *window);
            let alarm = point.is_some_and(|point| point.alarm);
            html.raw(if alarm { "<td class=\"bad\">" } else { "<td>" });
            html.value(point.and_then(|point| point.value), chart.unit);
            html.raw(if alarm { " <span class=\"mark\">alarm</span></td>" } else { "</td>" });
            if told_again {
                html.raw("<td class=\"muted\">").value(point.and_then(|point| point.first), chart.unit).raw("</td>");
            }
            if chart.look == Look::Lines {
                let rows = point.map(|point| point.rows as f64);
                html.raw("<td class=\"muted\">").value(rows, Unit::Count).raw("</td>");
            }
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div>");
}

fn accuracy(html: &mut Html, model: &ModelPage, id: &str) {
    section(
        html,
        id,
        "accuracy",
        "How predictions compare with the labels that came, by the window of the prediction.",
    );
    if model.accuracy.is_empty() {
        let why = "No prediction of this time has been compared with a label: there are no labels, or they are still to come.";
        html.element("p class=\"empty\"", why);
    } else {
        html.raw("<p class=\"legend\">");
        for version in &model.versions {
            html.raw(swatch(version.colour, &version.name));
        }
        html.raw("<span class=\"key\"><i class=\"dash\"></i>as first told; the band is what labels have changed since</span>");
        html.raw("<span class=\"key\"><i class=\"hollow\"></i>may still change</span></p>");
        charts(html, &model.accuracy, &format!("{id}a"), model);
    }
    if let Some(revisions) = &model.revisions {
        html.raw("<p>").text(format_args!("{} of {} windows ", revisions.told_again, revisions.windows));
        html.text("were told again as labels came or were corrected.");
        if let Some((metric, start, first, newest)) = &revisions.largest {
            let unit = super::metrics::unit(metric);
            html.text(format_args!(" The largest change: {} of ", title(metric))).moment(*start).raw(", from ");
            html.value(Some(*first), unit).raw(" to ").value(Some(*newest), unit).raw(".");
        }
        html.raw("</p>");
    }
    confusion(html, model);
    for segments in &model.segments {
        segment_table(html, segments);
    }
    let volume: Vec<Chart> = model.volume.iter().chain(&model.labels).cloned().collect();
    if !volume.is_empty() {
        html.raw("<h3>Volume and labels</h3>");
        charts(html, &volume, &format!("{id}l"), model);
    }
    html.raw("</section>");
}

fn confusion(html: &mut Html, model: &ModelPage) {
    let Some(confusion) = &model.confusion else { return };
    html.raw("<h3>Confusion</h3><div class=\"card narrow\"><p class=\"muted\">");
    html.text(&confusion.version).raw(" · ").window(confusion.window.0, confusion.window.1);
    html.raw("; shares are of the label's row</p><div class=\"scroll\"><table class=\"matrix\"><thead><tr><td></td>");
    for class in &confusion.classes {
        html.element("th scope=\"col\"", format_args!("predicted {class}"));
    }
    html.raw("</tr></thead><tbody>");
    for (class, counts) in confusion.classes.iter().zip(&confusion.counts) {
        let sum: f64 = counts.iter().flatten().sum();
        html.raw("<tr>").element("th scope=\"row\"", format_args!("label {class}"));
        for (predicted, count) in confusion.classes.iter().zip(counts) {
            let share = count.map_or(0.0, |count| count / sum.max(1.0));
            let right = if predicted == class { "right" } else { "wrong" };
            html.raw(format_args!("<td class=\"{right}\" style=\"--share:{:.0}%\">", share * 70.0));
            html.value(*count, Unit::Count);
            if count.is_some() {
                html.element("span class=\"share\"", format::value(share, Unit::Share));
            }
            html.raw("</td>");
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div></div>");
}

fn segment_table(html: &mut Html, segments: &SegmentTable) {
    html.element("h3", format_args!("By {}", segments.column));
    html.raw("<div class=\"card\"><p class=\"muted\">").text(&segments.version).raw(" · ");
    html.window(segments.window.0, segments.window.1);
    html.raw("</p><div class=\"scroll\"><table><thead><tr>").element("th scope=\"col\"", &segments.column);
    html.raw("<th scope=\"col\">rows</th>");
    for metric in &segments.metrics {
        html.element("th scope=\"col\"", title(metric));
    }
    html.raw("</tr></thead><tbody>");
    for (value, rows, values) in &segments.rows {
        html.raw("<tr>").element("th scope=\"row\"", value).raw("<td>");
        html.value(Some(*rows as f64), Unit::Count).raw("</td>");
        for (value, metric) in values.iter().zip(&segments.metrics) {
            html.raw("<td>").value(*value, super::metrics::unit(metric)).raw("</td>");
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div>");
    if segments.left_out > 0 {
        html.element("p class=\"muted\"", format_args!("{} values with fewer rows are not listed.", segments.left_out));
    }
    html.raw("</div>");
}

fn drift(html: &mut Html, model: &ModelPage, id: &str) {
    section(
        html,
        id,
        "drift",
        "How far inputs, predictions and labels are from their reference, and what change detectors say.",
    );
    match &model.heat {
        Some(heat) => heat_map(html, heat),
        None => {
            let why = "No column is held against a reference, or no window of this time has ended yet.";
            html.element("p class=\"empty\"", why);
        }
    }
    if !model.columns.is_empty() {
        html.raw("<h3>Column by column</h3>");
        versions(html, model);
        charts(html, &model.columns, &format!("{id}d"), model);
        if model.columns_left_out > 0 {
            let more = format!(
                "{} further columns are in the map alone; they are further from their thresholds.",
                model.columns_left_out
            );
            html.element("p class=\"muted\"", more);
        }
    }
    let whole: Vec<Chart> = model.drift.iter().chain(&model.errors).cloned().collect();
    if !whole.is_empty() {
        html.raw("<h3>Columns together, and errors</h3>");
        charts(html, &whole, &format!("{id}e"), model);
    }
    html.raw("</section>");
}

/// Colour of a cell, by how far it is towards its threshold.
fn heat_class(cell: &Cell) -> &'static str {
    match (cell.alarm, cell.ratio) {
        (false, None) => "hx",
        (false, Some(ratio)) => ["h0", "h1", "h2", "h3"][((ratio * 4.0) as usize).min(3)],
        (true, ratio) => match ratio.unwrap_or(1.0) {
            ratio if ratio < 1.5 => "h4",
            ratio if ratio < 2.5 => "h5",
            ratio if ratio < 5.0 => "h6",
            _ => "h7",
        },
    }
}

fn heat_map(html: &mut Html, heat: &Heat) {
    html.raw("<div class=\"card\"><p class=\"legend\">");
    for (class, label) in
        [("h0", "far from its threshold"), ("h3", "near it"), ("h4", "beyond it"), ("h7", "5 times and more")]
    {
        html.raw(format_args!("<span class=\"key\"><i class=\"{class}\"></i>{label}</span>"));
    }
    html.raw("<span class=\"key\"><i class=\"hx\"></i>without a threshold</span><span class=\"key\"><i class=\"hn\"></i>nothing told</span></p>");
    html.raw("<p class=\"muted\">");
    let each = match heat.together {
        1 => "Each column's worst statistic of each window, relative to its threshold.".to_owned(),
        n => format!("Each column's worst statistic of each {n} windows, relative to its threshold."),
    };
    html.text(each).raw(" A number says how many times its threshold a value is.</p><div class=\"scroll\"><table class=\"heat\" aria-label=\"Drift by column and window\"><thead><tr><td></td>");
    let every = heat.windows.len().div_ceil(8).max(1);
    let mut at = 0;
    while at < heat.windows.len() {
        let wide = every.min(heat.windows.len() - at);
        let span = heat.windows[heat.windows.len() - 1].1 - heat.windows[0].0;
        html.raw(format_args!("<th scope=\"colgroup\" colspan=\"{wide}\">"));
        // A name needs the room of two cells at least.
        html.text(if wide > 1 || every == 1 { format::tick(heat.windows[at].0, span) } else { String::new() })
            .raw("</th>");
        at += wide;
    }
    html.raw("</tr></thead><tbody>");
    for (column, cells) in &heat.rows {
        html.raw("<tr>").element("th scope=\"row\"", column);
        for (cell, window) in cells.iter().zip(&heat.windows) {
            let when = format::window(window.0, window.1);
            let Some(cell) = cell else {
                html.raw("<td class=\"hn\" title=\"").text(format_args!("{when}: nothing told")).raw("\"></td>");
                continue;
            };
            html.raw(format_args!("<td class=\"{}\" title=\"", heat_class(cell))).text(&when).text(": ");
            html.text(title(&cell.metric))
                .text(" ")
                .text(format::value(cell.value, super::metrics::unit(&cell.metric)));
            if let Some(threshold) = cell.threshold {
                html.text(format_args!(", threshold {}", format::value(threshold, super::metrics::unit(&cell.metric))));
            }
            if !cell.version.is_empty() {
                html.text(format_args!(", version {}", cell.version));
            }
            let unit = super::metrics::unit(&cell.metric);
            html.raw("\"><span class=\"hidden\">").value(Some(cell.value), unit).raw("</span>");
            if cell.alarm {
                let times = cell.ratio.unwrap_or(1.0).floor().max(1.0);
                html.raw("<b aria-hidden=\"true\">");
                html.text(if times > 9.0 { "9+".to_owned() } else { format!("{times}") }).raw("</b>");
                html.raw("<span class=\"hidden\">, alarm</span>");
            }
            html.raw("</td>");
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div></div>");
}

fn quality(html: &mut Html, model: &ModelPage, id: &str) {
    section(html, id, "quality", "Whether rows are sound: what is missing, out of range, new, late or there twice.");
    if model.quality.is_none() && model.rows.is_empty() {
        html.element(
            "p class=\"empty\"",
            "The quality of rows is not watched, or no window of this time has ended yet.",
        );
    }
    if let Some(quality) = &model.quality {
        let points =
            quality.columns.iter().flat_map(|column| column.values.iter().flatten()).flat_map(|line| &line.points);
        let span = points.map(|p| (p.start, p.end)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0, 1));
        let named = quality.columns.iter().any(|column| !column.new_categories.is_empty());
        html.raw(
            "<div class=\"card\"><p class=\"muted\">Newest value, the highest of the time shown, and how it went.</p>",
        );
        html.raw("<div class=\"scroll\"><table class=\"quality\"><thead><tr><th scope=\"col\">Column</th>");
        for metric in &quality.metrics {
            html.element("th scope=\"col\" colspan=\"3\"", title(metric));
        }
        html.raw(if named { "<th scope=\"col\">Which are new</th>" } else { "" }).raw("</tr></thead><tbody>");
        for column in &quality.columns {
            html.raw("<tr>").element("th scope=\"row\"", &column.name);
            for (line, metric) in column.values.iter().zip(&quality.metrics) {
                quality_cells(html, line.as_ref(), metric, &column.name, span);
            }
            if named {
                html.raw("<td class=\"left\">");
                for (i, (name, share)) in column.new_categories.iter().enumerate() {
                    html.raw(if i > 0 { ", " } else { "" }).element("code", name).raw(" <span class=\"muted\">");
                    html.value(Some(*share), Unit::Share).raw("</span>");
                }
                html.raw("</td>");
            }
            html.raw("</tr>");
        }
        html.raw("</tbody></table></div></div>");
    }
    if !model.rows.is_empty() {
        html.raw("<h3>Rows as a whole</h3>");
        versions(html, model);
        charts(html, &model.rows, &format!("{id}q"), model);
    }
    html.raw("</section>");
}

/// Newest value, highest, and a small line.
fn quality_cells(html: &mut Html, line: Option<&Line>, metric: &str, column: &str, span: (EventTime, EventTime)) {
    let unit = super::metrics::unit(metric);
    let newest = line.and_then(|line| line.points.iter().rev().find(|point| point.value.is_some()));
    let (Some(line), Some(newest)) = (line, newest) else {
        html.raw("<td colspan=\"3\" class=\"none left\">–</td>");
        return;
    };
    let highest = line.points.iter().filter_map(|point| point.value).fold(f64::MIN, f64::max);
    html.raw(if newest.alarm { "<td class=\"bad\">" } else { "<td>" }).value(newest.value, unit);
    html.raw(if newest.alarm { " <span class=\"mark\">alarm</span></td>" } else { "</td>" });
    html.raw("<td class=\"muted\">").value(Some(highest), unit).raw("</td><td>");
    let alarms = line.points.iter().filter(|point| point.alarm).count();
    let label = format!("{} of {column} over time, {alarms} alarms", title(metric));
    chart::spark(html, line, span, &label);
    html.raw("</td>");
}

fn alerts(html: &mut Html, model: &ModelPage, id: &str) {
    section(html, id, "alerts", "When an alert fired, and when it was right again.");
    if model.alerts.is_empty() {
        let why = match model.has_alerts {
            true => "No alert fired in this time.",
            false => "No alert has ever fired, or none is set up.",
        };
        html.element("p class=\"empty\"", why);
        html.raw("</section>");
        return;
    }
    let begin = model.alerts.iter().map(|alert| alert.start).min().unwrap_or(0);
    let end = model.alerts.iter().map(|alert| alert.end.unwrap_or(alert.start)).max().unwrap_or(1);
    let known = model.as_of.filter(|as_of| *as_of < EventTime::MAX).unwrap_or(end);
    let span = model.span.map_or((begin, end), |span| (span.0.min(begin), span.1.max(end).max(known)));
    let part = |time: EventTime| 100.0 * (time - span.0) as f64 / (span.1 - span.0).max(1) as f64;
    html.raw("<div class=\"card\"><ul class=\"timeline\">");
    for alert in &model.alerts {
        let (left, right) = (part(alert.start), part(alert.end.unwrap_or(span.1)));
        html.raw(format_args!("<li class=\"{}\"><div class=\"what\"><b>", severity(&alert.severity))).text(&alert.name);
        html.raw("</b> <span class=\"muted\">").text(&alert.about).raw("</span></div>");
        html.raw(format_args!(
            "<div class=\"bar\"><i class=\"{}\" style=\"left:{left:.2}%;width:{:.2}%\"></i></div>",
            if alert.end.is_none() { "open" } else { "closed" },
            (right - left).max(0.6)
        ));
        html.raw("<p>").element("span class=\"mark severity\"", &alert.severity).raw(" ").moment(alert.start);
        match alert.end {
            Some(end) => html.raw(" – ").moment(end),
            None => html.raw(", <b>still firing</b>"),
        };
        if alert.value.is_some() {
            html.raw(" · ").value(alert.value, alert.unit);
            if alert.threshold.is_some() {
                html.raw(", threshold ").value(alert.threshold, alert.unit);
            }
        }
        if alert.times > 1 {
            html.text(format_args!(" · told {} times", alert.times));
        }
        html.raw("<br><span class=\"muted\">").text(&alert.message).raw("</span></p></li>");
    }
    html.raw("</ul><p class=\"ends\" aria-hidden=\"true\">").moment(span.0).moment(span.1).raw("</p></div></section>");
}

fn severity(text: &str) -> &'static str {
    match text {
        "critical" | "page" | "error" | "high" => "critical",
        "info" | "low" | "notice" => "info",
        _ => "warning",
    }
}

fn operation(html: &mut Html, model: &ModelPage, id: &str) {
    section(html, id, "operation", "How the job ran, sampled by the wall clock (event time plays no part here).");
    if model.operation.is_empty() {
        html.element("p class=\"empty\"", "The job's operation was not sampled in this time.");
    } else {
        if let Some((from, to)) = reach(&model.operation) {
            html.raw("<p class=\"lead\">").window(from, to);
            if model.samples > 1 {
                html.text(format_args!("; each point is the worst of {} samples.", model.samples));
            }
            html.raw("</p>");
        }
        charts(html, &model.operation, &format!("{id}o"), model);
    }
    html.raw("</section>");
}

fn foot(html: &mut Html, page: &Page) {
    html.raw("<footer><div class=\"wrap\"><p>Times are UTC. Windows hold predictions by their own time. ");
    html.raw("The numbers are those of the newest revision of each window in ");
    html.element("code", &page.root).raw(": ");
    for (i, (table, version)) in page.tables.iter().enumerate() {
        html.raw(if i > 0 { ", " } else { "" }).element("code", table).text(format_args!(" (version {version})"));
    }
    html.raw(".");
    if page.from.is_some() || page.to.is_some() {
        html.raw(" Windows that start");
        if let Some(from) = page.from {
            html.raw(" at or after ").moment(from);
        }
        if let Some(to) = page.to {
            html.raw(" before ").moment(to);
        }
        html.raw(".");
    }
    html.raw("</p><p>Made by Tidemill ").text(env!("CARGO_PKG_VERSION")).raw(".</p></div></footer>");
}
