//! `tidemill experiments show JOB.yaml`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::base::format_time;
use crate::cli::failure::usage;
use crate::cli::job::JobArgs;
use crate::cli::output::{columns, grouped, print, print_json};
use crate::plan::nearest;
use crate::rollout::record::{Record, TABLE, records_of};
use crate::store::StoreError;
use crate::store::offline::{TableReader, table_path};

/// Arguments of `experiments show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Only this model; without it all.
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Only this rollout.
    #[arg(long, value_name = "ID")]
    rollout: Option<String>,
    /// Directory of the tables, where it is not the job's own.
    #[arg(long, value_name = "DIR")]
    tables: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// A rollout as it is told.
#[derive(Serialize)]
struct Shown {
    model: String,
    rollout: String,
    /// Where it stands.
    phase: String,
    champion: String,
    challenger: String,
    /// In the order in which it was done.
    decisions: Vec<Record>,
}

pub fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let plan = args.job.load_and_warn(None)?;
    if let Some(model) = &args.model
        && !plan.models.iter().any(|m| m.name == *model)
    {
        let near = nearest(model, plan.models.iter().map(|m| m.name.as_str()));
        let mend = near.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        return Err(usage(format!("there is no model `{model}`{mend}")));
    }
    let root = match (&args.tables, &plan.offline) {
        (Some(tables), _) => tables.clone(),
        (None, Some(offline)) => PathBuf::from(&offline.uri),
        (None, None) => {
            let mend = "it has no `sinks.offline`; name the directory with --tables";
            return Err(usage(format!("job `{}` keeps no tables: {mend}", plan.job)));
        }
    };
    let path = table_path(&root, TABLE);
    let table = match TableReader::open(&path, None) {
        Ok(table) => table,
        Err(StoreError::NoTable(_)) => {
            bail!("there is no table {}: the job has not run, or none of its models has a `rollout`", path.display())
        }
        Err(error) => return Err(error.into()),
    };
    let mut records = Vec::new();
    for batch in table.read(None)? {
        records.extend(records_of(&batch).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))?);
    }
    let wanted = |name: &String, only: &Option<String>| only.as_ref().is_none_or(|only| only == name);
    records.retain(|record| wanted(&record.model, &args.model) && wanted(&record.rollout, &args.rollout));
    let shown = rollouts(records);
    if args.json {
        return print_json(&shown);
    }
    if shown.is_empty() {
        return print("no rollouts\n");
    }
    print(&shown.iter().map(text).collect::<Vec<_>>().join("\n"))
}

/// Rollouts in the order in which they began.
fn rollouts(mut records: Vec<Record>) -> Vec<Shown> {
    // Rows of one tick are in the order in which they were written; the sort keeps it.
    records.sort_by_key(|record| record.tick);
    let mut shown: Vec<Shown> = Vec::new();
    for record in records {
        let found = shown.iter().position(|s| s.model == record.model && s.rollout == record.rollout);
        let at = found.unwrap_or_else(|| {
            shown.push(Shown {
                model: record.model.clone(),
                rollout: record.rollout.clone(),
                phase: String::new(),
                champion: record.champion.clone(),
                challenger: String::new(),
                decisions: Vec::new(),
            });
            shown.len() - 1
        });
        let rollout = &mut shown[at];
        rollout.phase.clone_from(&record.phase);
        if !record.challenger.is_empty() {
            rollout.challenger.clone_from(&record.challenger);
        }
        rollout.decisions.push(record);
    }
    shown
}

fn text(shown: &Shown) -> String {
    let Shown { model, rollout, phase, champion, challenger, decisions } = shown;
    let mut text = match (rollout.is_empty(), challenger.is_empty()) {
        (true, _) => format!("{model}\n"),
        (false, true) => format!("{model}, rollout {rollout}: {phase}\n"),
        (false, false) => format!("{model}, rollout {rollout}: {challenger} against {champion}: {phase}\n"),
    };
    let titles = ["", "when", "does", "share", "rows", "labelled", "loss", "challenger", "lift", "low", "high", "p"];
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.6}"));
    let pair = |[champion, challenger]: [u64; 2]| format!("{} + {}", grouped(champion), grouped(challenger));
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for decision in decisions {
        let figures = &decision.figures;
        rows.push(vec![
            decision.sequence.map_or("by hand".to_owned(), |n| format!("#{n}")),
            format_time(decision.at),
            decision.action.clone(),
            format!("{} %", decision.share),
            pair(figures.rows),
            pair(figures.labelled),
            number(figures.losses[0]),
            number(figures.losses[1]),
            number(figures.lift),
            number(figures.low),
            number(figures.high),
            figures.p_value.map_or("-".to_owned(), |p| match p < 1e-4 {
                true => format!("{p:.1e}"),
                false => format!("{p:.4}"),
            }),
        ]);
    }
    let table = columns(&rows, &[3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let mut lines = table.lines();
    let mut add = |line: &str| {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    };
    lines.next().into_iter().for_each(&mut add);
    for (line, decision) in lines.zip(decisions) {
        add(line);
        let mut why: Vec<String> = Vec::new();
        why.extend((!decision.by.is_empty()).then(|| decision.by.clone()));
        why.extend((!decision.why.is_empty()).then(|| decision.why.clone()));
        why.extend(guards(decision));
        if !why.is_empty() {
            add(&format!("    {}", why.join("; ")));
        }
    }
    text
}

/// What the guards saw, in words.
fn guards(decision: &Record) -> Option<String> {
    let figures = &decision.figures;
    let seen = [
        figures.sample_ratio_p.map(|p| format!("sample ratio p = {p:.3}")),
        figures.score_shift_sd.map(|sd| format!("scores {sd:+.2} sd away")),
        figures.error_rate.map(|rate| format!("errors {:.2} %", 100.0 * rate)),
        figures.latency_p99_ms.map(|ms| format!("p99 {ms:.1} ms")),
    ];
    let seen: Vec<String> = seen.into_iter().flatten().collect();
    (!seen.is_empty()).then(|| format!("guards: {}", seen.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::record::Figures;

    fn record(tick: u64, rollout: &str, sequence: Option<u64>, action: &str, phase: &str) -> Record {
        Record {
            at: 1_767_225_600_000_000 + tick as i64 * 1_000_000,
            tick,
            model: "fraud".into(),
            rollout: rollout.into(),
            sequence,
            action: action.into(),
            phase: phase.into(),
            champion: "1".into(),
            challenger: "2".into(),
            share: 5.0,
            figures: Figures {
                lift: Some(-0.0125),
                low: Some(-0.02),
                high: Some(-0.005),
                p_value: Some(0.0031),
                rows: [9_500, 500],
                labelled: [9_000, 480],
                losses: [Some(0.3), Some(0.2875)],
                sample_ratio_p: Some(1.0),
                ..Figures::default()
            },
            by: String::new(),
            why: "the challenger is fit".into(),
        }
    }

    #[test]
    fn rollouts_are_told_one_by_one() {
        let records = vec![
            record(9, "8", Some(1), "step", "canary"),
            record(5, "7", Some(2), "promote", "promoted"),
            record(3, "7", None, "begin", "shadow"),
        ];
        let shown = rollouts(records);
        let told: Vec<(&str, &str, usize)> =
            shown.iter().map(|s| (s.rollout.as_str(), s.phase.as_str(), s.decisions.len())).collect();
        assert_eq!(told, [("7", "promoted", 2), ("8", "canary", 1)]);
        let text = text(&shown[0]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "fraud, rollout 7: 2 against 1: promoted");
        assert!(lines[2].trim_start().starts_with("by hand") && lines[2].contains("begin"), "{text}");
        for part in ["#2", "promote", "5 %", "9,500 + 500", "9,000 + 480", "-0.012500", "-0.005000", "0.0031"] {
            assert!(lines[4].contains(part), "{part}: {text}");
        }
        assert_eq!(lines[5].trim(), "the challenger is fit; guards: sample ratio p = 1.000");
    }
}
