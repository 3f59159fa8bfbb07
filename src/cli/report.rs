//! `tidemill report JOB.yaml`: a page on how models do, from the job's tables.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::failure::usage;
use super::job::JobArgs;
use super::output::print;
use crate::base::{EventTime, parse_time};
use crate::report::{self, ReportError, ReportOptions};

/// Arguments of `report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Directory of the tables, where it is not the job's own.
    #[arg(long, value_name = "DIR")]
    tables: Option<PathBuf>,
    /// Only windows that start at this time or later, such as 2026-01-05 or 2026-01-05T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<EventTime>,
    /// Only windows that start before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<EventTime>,
    /// Only this model; without it all that have a monitor.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The file to write; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Write what the page says as JSON instead.
    #[arg(long)]
    json: bool,
}

/// Writes the page.
pub fn run(args: ReportArgs) -> anyhow::Result<()> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        return Err(usage("--from is not before --to, so there is nothing between them"));
    }
    let plan = args.job.load_and_warn(None)?;
    let options = ReportOptions { tables: args.tables, from: args.from, to: args.to, model: args.model };
    let page = report::page(&plan, &options).map_err(|error| match error {
        ReportError::Store(_) | ReportError::Foreign { .. } | ReportError::NoStatistics(..) => error.into(),
        error => usage(error.to_string()),
    })?;
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&page)?),
        false => report::html(&page),
    };
    if args.out.as_os_str() == "-" {
        return print(&text);
    }
    write(&args.out, &text).with_context(|| format!("cannot write {}", args.out.display()))?;
    print(&format!("{}\n", args.out.display()))
}

/// Writes a file whole or not at all: a page that is being read is replaced, not overwritten.
fn write(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let mut file = std::fs::File::create(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // What cannot be removed either is left to whoever mends the disk.
        let _ = std::fs::remove_file(&beside);
    }
    written
}
