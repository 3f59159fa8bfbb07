//! `tidemill maintain JOB.yaml`: merges small files of the job's tables and deletes what no reader needs.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::failure::usage;
use super::job::JobArgs;
use super::output::{bytes, columns, grouped, print, print_json};
use crate::base::{Micros, parse_bytes, parse_duration};
use crate::engine::tables::{table_names, wanted};
use crate::engine::upkeep_options;
use crate::store::StoreError;
use crate::store::offline::{Upkeep, keep_up};

/// Arguments of `maintain`.
#[derive(Args, Debug)]
pub struct MaintainArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Only this table, such as `features/customer`; repeatable. Default: all that the job writes.
    #[arg(long = "table", value_name = "NAME")]
    tables: Vec<String>,
    /// Merge the files of a date that are smaller than this, such as `32MiB`; 0 merges none. Default: what the file says
    /// under `sinks.offline.maintain`, else 32MiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    compact_below: Option<u64>,
    /// Delete files that were replaced, or left behind by a writer that died, longer ago than this, such as `7d`: make it
    /// longer than the longest query. Default: what the file says, else 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    vacuum_older_than: Option<Micros>,
    /// Say what would be done and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// Keeps up a job's tables; the job may run meanwhile.
pub fn run(args: MaintainArgs) -> anyhow::Result<()> {
    let plan = args.job.load_and_warn(None)?;
    let Some(offline) = &plan.offline else {
        return Err(usage("the job has no offline sink, so it has no tables"));
    };
    let known: Vec<String> = table_names(&plan).into_iter().filter(|name| wanted(offline, name)).collect();
    if let Some(stranger) = args.tables.iter().find(|name| !known.contains(name)) {
        return Err(usage(format!("the job writes no table `{stranger}`; it writes {}", known.join(", "))));
    }
    let mut maintain = offline.maintain.clone().unwrap_or_default();
    maintain.compact_below = args.compact_below.unwrap_or(maintain.compact_below);
    maintain.vacuum_after = args.vacuum_older_than.unwrap_or(maintain.vacuum_after);
    let mut options = upkeep_options(&plan, &maintain);
    (options.compact.dry_run, options.vacuum.dry_run) = (args.dry_run, args.dry_run);
    let root = PathBuf::from(&offline.uri);
    let mut done: Vec<Upkeep> = Vec::new();
    for name in known.iter().filter(|name| args.tables.is_empty() || args.tables.contains(name)) {
        match keep_up(&root, name, &options, &|| true) {
            Ok(upkeep) => done.push(upkeep),
            // A table that the job has had no row for yet.
            Err(StoreError::NoTable(_)) if args.tables.is_empty() => {}
            Err(error) => return Err(error).with_context(|| format!("table {name}")),
        }
    }
    match args.json {
        true => print_json(&json!({ "job": plan.job, "dry_run": args.dry_run, "tables": done })),
        false => print(&text(&done, args.dry_run)),
    }
}

/// One line per table.
fn text(done: &[Upkeep], dry_run: bool) -> String {
    if done.is_empty() {
        return "the job has written no tables yet\n".to_owned();
    }
    let after = if dry_run { "to merge" } else { "after" };
    let deleted = if dry_run { "to delete" } else { "deleted" };
    let mut rows = vec![["table", "files", after, "bytes", "", deleted, "", "log"].map(str::to_owned).to_vec()];
    for Upkeep { table, before, after, compacted, vacuumed } in done {
        let merged = match dry_run {
            true => format!("{} → {}", grouped(compacted.files_before), grouped(compacted.files_after)),
            false => format!("→ {}", grouped(after.files)),
        };
        let bytes_after = if dry_run { String::new() } else { format!("→ {}", bytes(after.bytes)) };
        rows.push(vec![
            table.clone(),
            grouped(before.files),
            merged,
            bytes(before.bytes),
            bytes_after,
            grouped(vacuumed.files),
            bytes(vacuumed.bytes),
            grouped(vacuumed.log_files),
        ]);
    }
    let mut text = columns(&rows, &[1, 3, 5, 6, 7]);
    if dry_run {
        text.push_str("nothing was changed\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::offline::{Compacted, Extent, Vacuumed};

    #[test]
    fn a_line_per_table() {
        let upkeep = Upkeep {
            table: "features/customer".into(),
            before: Extent { files: 1200, bytes: 9_000_000 },
            after: Extent { files: 3, bytes: 7_000_000 },
            compacted: Compacted { files_before: 1200, files_after: 3, ..Compacted::default() },
            vacuumed: Vacuumed { files: 17, bytes: 123_456, log_files: 4 },
        };
        let told = text(std::slice::from_ref(&upkeep), false);
        let line = told.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected =
            ["features/customer", "1,200", "→", "3", "9.0", "MB", "→", "7.0", "MB", "17", "123.5", "kB", "4"];
        assert_eq!(words, expected, "{told}");
        let dry = text(&[upkeep], true);
        assert!(dry.contains("1,200 → 3") && dry.ends_with("nothing was changed\n"), "{dry}");
        assert_eq!(text(&[], false), "the job has written no tables yet\n");
    }
}
