//! A model card as a page: one file of HTML without scripts and without a request to anywhere.

use super::chart::swatch;
use super::format;
use super::html::Html;
use super::metrics::{Unit, title, unit};
use super::{plot, sections};
use crate::base::format_duration;
use crate::train::card::{Card, headline, holds, method, settings};
use crate::train::data::Task;
use crate::train::evaluate::{Compared, Evaluation, Method, Told};
use crate::train::explain::Importance;
use crate::train::metrics::{CalibrationBin, task_name};
use crate::train::tune::Table;

/// Trials in the table at most.
const TRIALS_MAX: usize = 12;
/// Statistics that stand large at the top.
const TILES: [&str; 9] =
    ["auc", "average_precision", "log_loss", "card_precision_100", "brier", "f1_macro", "accuracy", "rmse", "r2"];

const STYLE: &str = ".settings{display:flex;flex-wrap:wrap;gap:6px 8px;margin:0}.settings span{background:var(--grid);border-radius:6px;padding:2px 8px;font-size:13px}\
.limits{margin:0;padding-left:20px}.limits li{margin:0 0 6px;max-width:78ch}.cond{font-size:14px}.good{color:var(--good)}.worse{color:var(--bad)}\
.range{color:var(--muted);font-size:12px}td .word{font-weight:600}.grid>*{min-width:0}.grid>.wide{grid-column:span 2}h3+.card,.grid+h3{margin-top:0}.grid+h3{margin-top:26px}\
@media (max-width:760px){.grid>.wide{grid-column:auto}}";

/// A model card as HTML.
pub fn card_html(card: &Card) -> String {
    let mut html = Html::default();
    html.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    // Nothing is loaded from anywhere, and the browser is told so.
    html.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">");
    html.element("title", format_args!("{} · Tidemill model card", named(card)));
    html.raw("<style>").raw(sections::STYLE).raw(plot::STYLE).raw(STYLE).raw("</style></head><body>");
    head(&mut html, card);
    html.raw("<main class=\"wrap\">");
    nav(&mut html, card);
    if let Some(found) = &card.evaluation {
        tiles(&mut html, card, found);
        evaluation(&mut html, card, found);
    }
    if let Some(found) = &card.importance {
        importance(&mut html, found);
    }
    if let Some(table) = &card.tuning {
        tuning(&mut html, table);
    }
    made_of(&mut html, card);
    html.raw(
        "<section id=\"limits\"><h2>Limits</h2><p class=\"lead\">What it is not good for, as far as is known.</p>",
    );
    html.raw("<div class=\"card\"><ul class=\"limits\">");
    card.all_limits().iter().for_each(|limit| {
        html.element("li", limit);
    });
    html.raw("</ul></div></section></main>");
    html.raw("<footer><div class=\"wrap\"><p>Times are UTC. Made by Tidemill ").text(env!("CARGO_PKG_VERSION"));
    html.raw(" on ").moment(card.made_at).raw(".</p></div></footer></body></html>\n");
    html.finish()
}

fn named(card: &Card) -> String {
    card.version.map_or_else(|| card.model.clone(), |version| format!("{} version {version}", card.model))
}

fn head(html: &mut Html, card: &Card) {
    html.raw("<header><div class=\"wrap\">");
    html.element("p class=\"eyebrow\"", format_args!("model card · {} · {}", task_name(card.task), card.learner));
    html.element("h1", named(card));
    html.raw("<dl class=\"facts\">");
    html.raw("<div><dt>Made for</dt><dd>").text(&card.made_for).raw("</dd></div>");
    html.raw("<div><dt>Fitted on</dt><dd>").value(Some(card.data.rows as f64), Unit::Count).raw(" rows, ");
    html.moment(card.data.from).raw(" – ").moment(card.data.to).raw("</dd></div>");
    if let Some(found) = &card.evaluation {
        html.raw("<div><dt>Judged by</dt><dd>").value(Some(found.rows as f64), Unit::Count).raw(" rows, ");
        html.moment(found.from).raw(" – ").moment(found.to).raw("</dd></div>");
    }
    if let Some(champion) = &card.champion {
        html.raw("<div><dt>Beside</dt><dd>").raw(swatch(0, "this model")).raw(swatch(1, champion)).raw("</dd></div>");
    }
    html.raw("</dl></div></header>");
}

fn nav(html: &mut Html, card: &Card) {
    html.raw("<nav aria-label=\"Sections\">");
    for (there, id, label) in [
        (card.evaluation.is_some(), "evaluation", "How good it is"),
        (card.importance.is_some(), "importance", "What it goes by"),
        (card.tuning.is_some(), "tuning", "Settings tried"),
        (true, "data", "What it was made of"),
        (true, "limits", "Limits"),
    ] {
        html.raw(if there { format!("<a href=\"#{id}\">{label}</a>") } else { String::new() });
    }
    html.raw("</nav>");
}

fn tiles(html: &mut Html, card: &Card, found: &Evaluation) {
    html.raw("<section class=\"tiles\" aria-label=\"What matters most\">");
    if let Some(verdict) = &found.verdict {
        html.raw(if verdict.holds == Some(true) { "<div class=\"tile\">" } else { "<div class=\"tile bad\">" });
        html.raw("<h3>Promotion</h3><p class=\"big\">");
        html.text(match verdict.holds {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        });
        html.raw("</p><p class=\"of\">what was asked for ").text(holds(verdict.holds)).raw("</p></div>");
    }
    let known = TILES.iter().filter_map(|name| found.metrics.iter().find(|metric| metric.metric == *name));
    for metric in known.filter(|metric| metric.challenger.is_some()).take(4) {
        html.raw("<div class=\"tile\">");
        html.element("h3", title(&metric.metric));
        html.raw("<p class=\"big\">").value(metric.challenger.map(|told| told.value), unit(&metric.metric)).raw("</p>");
        if let Some(champion) = metric.champion {
            let change = metric.difference.map_or(0.0, |told| told.value);
            let (class, word) = match card.verdict_of(metric) {
                Some(true) => ("trend good", ", better"),
                Some(false) => ("trend worse", ", worse"),
                None => ("trend", ""),
            };
            let arrow = if change > 0.0 {
                "▲"
            } else if change < 0.0 {
                "▼"
            } else {
                "→"
            };
            html.raw(format_args!("<p class=\"{class}\">{arrow} champion "))
                .value(Some(champion.value), unit(&metric.metric));
            html.raw(word).raw("</p>");
        }
        html.raw("</div>");
    }
    html.raw("</section>");
}

fn evaluation(html: &mut Html, card: &Card, found: &Evaluation) {
    html.raw("<section id=\"evaluation\"><h2>How good it is</h2><p class=\"lead\">On ");
    html.value(Some(found.rows as f64), Unit::Count).raw(" rows ");
    if let Some(positives) = found.positives {
        html.raw("(").value(Some(positives as f64), Unit::Count).raw(" positive) ");
    }
    html.raw("that it was not fitted on");
    html.text(if card.champion.is_some() { ", the champion on the same rows. " } else { ". " });
    html.text(format_args!("Ranges are {} intervals", format::value(found.confidence, Unit::Share)));
    if let Some(by) = &found.by {
        html.raw(", rows of one <code>").text(by).raw("</code> drawn together");
    }
    html.raw(".</p>");
    if let Some(verdict) = &found.verdict {
        html.raw("<p class=\"cond\"><code>").text(&verdict.condition).raw("</code> ");
        html.element(
            if verdict.holds == Some(true) { "b class=\"good\"" } else { "b class=\"worse\"" },
            holds(verdict.holds),
        );
        html.raw(": <code>").text(&verdict.with_values).raw("</code>");
        if !verdict.missing.is_empty() {
            html.text(format_args!(" (no value for {})", verdict.missing.join(", ")));
        }
        html.raw("</p>");
    }
    html.raw("<div class=\"grid\">");
    metrics(html, card, found);
    calibration(html, card, found);
    html.raw("</div>");
    slices(html, card, found);
    html.raw("</section>");
}

/// A value with its interval below.
fn told(html: &mut Html, told: Option<Told>, metric: &str) {
    html.raw("<td>").value(told.map(|told| told.value), unit(metric));
    if let Some((low, high)) = told.and_then(|told| told.low.zip(told.high)) {
        html.raw("<br><span class=\"range\">").text(format_args!(
            "{} – {}",
            format::value(low, unit(metric)),
            format::value(high, unit(metric))
        ));
        html.raw("</span>");
    }
    html.raw("</td>");
}

fn class_of(card: &Card, metric: &Compared) -> (&'static str, &'static str) {
    match card.verdict_of(metric) {
        Some(true) => ("good", "better"),
        Some(false) => ("worse", "worse"),
        None => ("even", ""),
    }
}

fn drawn(html: &mut Html, card: &Card, metric: &Compared, most: f64) {
    html.raw("<td>");
    if let Some(Told { value, low: Some(low), high: Some(high) }) = metric.difference {
        plot::whisker(html, (value, low, high), most, class_of(card, metric).0);
    }
    html.raw("</td>");
}

fn farthest<'a>(metrics: impl Iterator<Item = &'a Compared>) -> f64 {
    let ends = metrics.filter_map(|metric| metric.difference).flat_map(|told| [told.low, told.high]);
    ends.flatten().fold(0.0f64, |most, end| most.max(end.abs())).max(1e-12)
}

fn metrics(html: &mut Html, card: &Card, found: &Evaluation) {
    let compared = card.champion.is_some();
    html.raw("<div class=\"card wide\"><div class=\"scroll\"><table><thead><tr><th scope=\"col\">Statistic</th><th scope=\"col\">this model</th>");
    if compared {
        html.raw("<th scope=\"col\">champion</th><th scope=\"col\">difference</th><th scope=\"col\"><span class=\"hidden\">drawn</span></th><th scope=\"col\"></th>");
    }
    html.raw("<th scope=\"col\">interval by</th></tr></thead><tbody>");
    for metric in &found.metrics {
        html.raw("<tr>").element("th scope=\"row\"", title(&metric.metric));
        told(html, metric.challenger, &metric.metric);
        if compared {
            told(html, metric.champion, &metric.metric);
            told(html, metric.difference, &metric.metric);
            drawn(html, card, metric, farthest(std::iter::once(metric)));
            let (class, word) = class_of(card, metric);
            html.raw(format_args!("<td class=\"left none {class}\"><span class=\"word\">{word}</span></td>"));
        }
        html.raw("<td class=\"muted\">");
        html.text(match metric.method {
            Method::Delong => "DeLong",
            Method::Normal => "mean of rows",
            Method::Bootstrap => "bootstrap",
            Method::None => "–",
        });
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table></div></div>");
}

fn calibration(html: &mut Html, card: &Card, found: &Evaluation) {
    if found.calibration.is_empty() {
        return;
    }
    html.raw("<figure class=\"card\"><figcaption><h4>Calibration</h4><span class=\"muted\">groups of rows by score</span></figcaption>");
    html.raw("<p class=\"legend\">").raw(swatch(0, "this model"));
    if let Some(champion) = card.champion.as_ref().filter(|_| !found.champion_calibration.is_empty()) {
        html.raw(swatch(1, champion));
    }
    html.raw("<span class=\"key\"><i class=\"dash\"></i>as it should be</span></p>");
    plot::calibration(html, "calibration", &found.calibration, &found.champion_calibration);
    html.raw("<details><summary>Numbers</summary>");
    bins(html, "this model", &found.calibration);
    if !found.champion_calibration.is_empty() {
        bins(html, card.champion.as_deref().unwrap_or("champion"), &found.champion_calibration);
    }
    html.raw("</details></figure>");
}

fn bins(html: &mut Html, name: &str, bins: &[CalibrationBin]) {
    html.raw("<div class=\"scroll\"><table><thead><tr>")
        .element("th scope=\"col\"", format_args!("Mean score, {name}"));
    html.raw("<th scope=\"col\">positives</th><th scope=\"col\">95 % interval</th><th scope=\"col\">rows</th></tr></thead><tbody>");
    for bin in bins {
        html.raw("<tr><th scope=\"row\">").value(Some(bin.score), Unit::Number).raw("</th><td>");
        html.value(Some(bin.share), Unit::Number).raw("</td><td class=\"muted\">");
        html.text(format_args!("{} – {}", format::number(bin.low), format::number(bin.high)));
        html.raw("</td><td class=\"muted\">").value(Some(bin.rows as f64), Unit::Count).raw("</td></tr>");
    }
    html.raw("</tbody></table></div>");
}

fn slices(html: &mut Html, card: &Card, found: &Evaluation) {
    let Some(name) = headline(found).filter(|_| !found.slices.is_empty()) else { return };
    let of = |metrics: &[Compared]| metrics.iter().find(|metric| metric.metric == *name).cloned();
    let most = farthest(found.slices.iter().flat_map(|slice| &slice.metrics).filter(|metric| metric.metric == *name));
    html.raw("<h3>Slices</h3><div class=\"card\"><div class=\"scroll\"><table><thead><tr><th scope=\"col\">Rows where</th><th scope=\"col\">rows</th>");
    html.raw(if card.task == Task::Binary { "<th scope=\"col\">positives</th>" } else { "" });
    html.element("th scope=\"col\"", title(name));
    if card.champion.is_some() {
        html.raw("<th scope=\"col\">champion</th><th scope=\"col\">difference</th><th scope=\"col\"><span class=\"hidden\">drawn</span></th><th scope=\"col\"></th>");
    }
    html.raw("</tr></thead><tbody>");
    for slice in &found.slices {
        html.raw("<tr>").element("th scope=\"row\"", format_args!("{} = {}", slice.column, slice.value));
        html.raw("<td>").value(Some(slice.rows as f64), Unit::Count).raw("</td>");
        if card.task == Task::Binary {
            html.raw("<td>").value(slice.positives.map(|positives| positives as f64), Unit::Count).raw("</td>");
        }
        let metric = of(&slice.metrics);
        told(html, metric.as_ref().and_then(|metric| metric.challenger), name);
        if card.champion.is_some() {
            told(html, metric.as_ref().and_then(|metric| metric.champion), name);
            told(html, metric.as_ref().and_then(|metric| metric.difference), name);
            if let Some(metric) = &metric {
                drawn(html, card, metric, most);
                let (class, word) = class_of(card, metric);
                html.raw(format_args!("<td class=\"left none {class}\"><span class=\"word\">{word}</span></td>"));
            }
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div></div>");
}

fn importance(html: &mut Html, found: &Importance) {
    html.raw("<section id=\"importance\"><h2>What it goes by</h2><p class=\"lead\">How much worse ");
    html.text(title(&found.metric)).raw(" (").value(Some(found.value), unit(&found.metric));
    html.text(format_args!(
        ") is when an input is shuffled among {} rows: the mean of {} times. Of inputs that tell the same, each shows little.",
        format::grouped(found.rows as f64),
        found.repeats
    ));
    html.raw("</p><figure class=\"card narrow\"><p class=\"legend\">").raw(swatch(0, "worse without it"));
    if found.inputs.iter().any(|input| input.gain.is_some()) {
        html.raw(swatch(1, "share of what splits gained"));
    }
    html.raw("</p>");
    plot::importance(html, "inputs", found);
    if found.inputs.len() > plot::INPUTS_MAX {
        html.element(
            "p class=\"muted\"",
            format_args!("and {} more, all of less", found.inputs.len() - plot::INPUTS_MAX),
        );
    }
    html.raw("<details><summary>Numbers</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">Input</th><th scope=\"col\">worse by</th><th scope=\"col\">± sd</th><th scope=\"col\">gain</th></tr></thead><tbody>");
    for input in &found.inputs {
        html.raw("<tr>").element("th scope=\"row\"", &input.name);
        html.raw("<td>").value(Some(input.worse), Unit::Number).raw("</td><td class=\"muted\">");
        html.value(input.sd, Unit::Number).raw("</td><td>").value(input.gain, Unit::Share).raw("</td></tr>");
    }
    html.raw("</tbody></table></div></details></figure></section>");
}

fn tuning(html: &mut Html, table: &Table) {
    html.raw("<section id=\"tuning\"><h2>Settings tried</h2>");
    html.element(
        "p class=\"lead\"",
        format_args!(
            "{} trials by {}, each on {} in time with the delay of labels between; ordered by {}, {}.",
            table.trials.len(),
            method(table.method),
            if table.folds.len() == 1 { "one split".to_owned() } else { format!("{} folds", table.folds.len()) },
            title(&table.metric),
            if table.more_is_better { "more is better" } else { "less is better" }
        ),
    );
    html.raw("<div class=\"grid\"><figure class=\"card\"><figcaption><h4>Trials</h4><span class=\"muted\">the line is the best so far, the ring the best</span></figcaption>");
    plot::trials(html, "trials", table);
    html.raw("</figure>");
    let names: Vec<&String> = table.trials.first().map(|trial| trial.values.keys().collect()).unwrap_or_default();
    for (i, name) in names.iter().enumerate() {
        let mut figure = Html::default();
        if plot::setting(&mut figure, &format!("setting{i}"), table, name) {
            html.raw("<figure class=\"card\"><figcaption><h4>").text(name).raw("</h4></figcaption>");
            html.raw(figure.finish()).raw("</figure>");
        }
    }
    html.raw("</div>");
    let others: Vec<&String> = table
        .best()
        .and_then(|best| best.folds.first())
        .map(|fold| fold.keys().filter(|name| **name != table.metric).collect())
        .unwrap_or_default();
    html.raw(
        "<h3>The best</h3><div class=\"card\"><div class=\"scroll\"><table><thead><tr><th scope=\"col\">Trial</th>",
    );
    let rounds = table.trials.iter().any(|trial| trial.budget.is_some());
    html.raw(if rounds { "<th scope=\"col\">given</th>" } else { "" });
    names.iter().for_each(|name| {
        html.element("th scope=\"col\"", name);
    });
    html.element("th scope=\"col\"", title(&table.metric)).raw("<th scope=\"col\">± sd</th>");
    others.iter().for_each(|name| {
        html.element("th scope=\"col\"", title(name));
    });
    html.raw("<th scope=\"col\">time</th></tr></thead><tbody>");
    for trial in table.ordered().into_iter().take(TRIALS_MAX) {
        html.raw("<tr>").element("th scope=\"row\"", trial.number);
        if rounds {
            html.raw("<td>").value(trial.budget, Unit::Number).raw("</td>");
        }
        for name in &names {
            let shown = match trial.values.get(*name) {
                Some(value) => {
                    value.as_f64().map_or_else(|| crate::train::tune::table::shown(Some(value)), format::number)
                }
                None => String::new(),
            };
            html.element("td", shown);
        }
        html.raw("<td>").value(trial.mean, unit(&table.metric)).raw("</td><td class=\"muted\">");
        html.value(trial.sd, unit(&table.metric)).raw("</td>");
        for name in &others {
            html.raw("<td>").value(trial.mean_of(name), unit(name)).raw("</td>");
        }
        match &trial.failed {
            Some(why) => html.element("td class=\"bad\"", format_args!("failed: {why}")),
            None => html.raw("<td class=\"muted\">").value(Some(trial.seconds), Unit::Seconds).raw("</td>"),
        };
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div>");
    if table.trials.len() > TRIALS_MAX {
        html.element("p class=\"muted\"", format_args!("and {} more", table.trials.len() - TRIALS_MAX));
    }
    let failed: Vec<&str> = table.trials.iter().filter_map(|trial| trial.failed.as_deref()).collect();
    if let Some(why) = failed.first() {
        html.element("p class=\"muted\"", format_args!("{} of the trials failed; the first: {why}", failed.len()));
    }
    html.raw("</div>");
    folds(html, table);
    html.raw("</section>");
}

fn folds(html: &mut Html, table: &Table) {
    let best = table.best();
    html.raw("<h3>Folds</h3><div class=\"card\"><div class=\"scroll\"><table><thead><tr><th scope=\"col\">Fitted on</th><th scope=\"col\">rows</th><th scope=\"col\">positives</th>");
    html.raw("<th scope=\"col\">judged by</th><th scope=\"col\">rows</th><th scope=\"col\">positives</th>");
    html.element("th scope=\"col\"", format_args!("{} of the best", title(&table.metric))).raw("</tr></thead><tbody>");
    for (i, fold) in table.folds.iter().enumerate() {
        html.raw("<tr><th scope=\"row\">").window(fold.span.from, fold.span.end).raw("</th>");
        for count in [fold.train_rows, fold.train_positives] {
            html.raw("<td>").value(Some(count as f64), Unit::Count).raw("</td>");
        }
        html.raw("<td>").window(fold.span.start, fold.span.stop).raw("</td>");
        for count in [fold.test_rows, fold.test_positives] {
            html.raw("<td>").value(Some(count as f64), Unit::Count).raw("</td>");
        }
        let value = best.and_then(|best| best.folds.get(i)).and_then(|fold| fold.get(&table.metric).copied());
        html.raw("<td>").value(value, unit(&table.metric)).raw("</td></tr>");
    }
    html.raw("</tbody></table></div></div>");
}

fn made_of(html: &mut Html, card: &Card) {
    let data = &card.data;
    html.raw("<section id=\"data\"><h2>What it was made of</h2><p class=\"lead\">Enough to make it again.</p><div class=\"card\"><dl class=\"facts\">");
    for (table, version) in &data.tables {
        html.raw("<div><dt>Table</dt><dd><code>")
            .text(table)
            .raw("</code> at version ")
            .text(version)
            .raw("</dd></div>");
    }
    html.raw("<div><dt>Events</dt><dd>").moment(data.from).raw(" – ").moment(data.to).raw("</dd></div>");
    html.raw("<div><dt>Rows</dt><dd>").value(Some(data.rows as f64), Unit::Count).raw("</dd></div>");
    if card.task == Task::Binary {
        html.raw("<div><dt>Positive</dt><dd>").value(Some(data.positives as f64), Unit::Count).raw(" (");
        html.value((data.rows > 0).then(|| data.positives as f64 / data.rows as f64), Unit::Share).raw(")</dd></div>");
    }
    if let Some(delay) = data.label_delay {
        html.raw("<div><dt>Label delay</dt><dd>").text(format_duration(delay)).raw("</dd></div>");
    }
    html.raw("<div><dt>Seed</dt><dd>").text(card.seed).raw("</dd></div></dl><h3>Settings of ");
    html.text(&card.learner).raw("</h3><p class=\"settings\">");
    for (name, value) in settings(&card.params) {
        html.raw("<span>").text(name).raw(" <b>").text(value).raw("</b></span>");
    }
    html.raw("</p><h3>").text(format_args!("{} inputs", data.inputs.len())).raw("</h3><p class=\"settings\">");
    data.inputs.iter().for_each(|input| {
        html.element("span", input);
    });
    html.raw("</p></div></section>");
}

#[cfg(test)]
mod tests;
