//! `tidemill experiments size`.

use clap::Args;
use serde::Serialize;

use crate::cli::failure::usage;
use crate::cli::output::{columns, grouped, print, print_json};
use crate::rollout::stat::fixed::Design;
use crate::rollout::stat::size;

/// Arguments of `experiments size`.
#[derive(Args, Debug)]
pub struct SizeArgs {
    /// The champion's rate, such as 0.05 for an error in twenty rows.
    #[arg(long, value_name = "RATE", required_unless_present = "sd", conflicts_with = "sd")]
    baseline: Option<f64>,
    /// Standard deviation of a row's loss, for losses that are no rate, such as log_loss.
    #[arg(long, value_name = "SD")]
    sd: Option<f64>,
    /// The smallest difference that must not be missed, such as 0.01, or -0.01 for a rate that falls.
    #[arg(long, value_name = "DIFFERENCE", allow_negative_numbers = true)]
    effect: f64,
    /// Probability to see a difference where there is none, both sides together.
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    alpha: f64,
    /// Probability to find the difference if it is there.
    #[arg(long, value_name = "P", default_value_t = 0.8)]
    power: f64,
    /// The challenger's share of the rows, in per cent.
    #[arg(long, value_name = "PERCENT", default_value_t = 50.0)]
    share: f64,
    /// `expect_rows` of the rollout; without it, tuned for the size of the fixed test.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(10..))]
    expect_rows: Option<u64>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Rows {
    champion: u64,
    challenger: u64,
}

#[derive(Serialize)]
struct Sizes {
    effect: f64,
    alpha: f64,
    power: f64,
    /// With one look at the end.
    fixed: Rows,
    /// With a look after every row: by then the difference is found with the probability `power`.
    sequential_at_most: Rows,
    /// Mean of the rows until then, those that end earlier with what they took.
    sequential_expected: Rows,
    /// Half have ended by then.
    sequential_median: Rows,
    /// Found by the number of rows of the fixed test.
    sequential_power_at_fixed: f64,
}

pub fn run(args: &SizeArgs) -> anyhow::Result<()> {
    let sizes = sizes(args)?;
    if args.json {
        return print_json(&sizes);
    }
    let row = |name: &str, rows: &Rows, note: String| {
        let total = rows.champion + rows.challenger;
        vec![name.to_owned(), grouped(rows.champion), grouped(rows.challenger), grouped(total), note]
    };
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let titles = ["rows with labels", "champion", "challenger", "both", ""].map(str::to_owned).to_vec();
    let table = columns(
        &[
            titles,
            row("one look at the end", &sizes.fixed, format!("finds it in {}", percent(sizes.power))),
            row("a look at every row, mean", &sizes.sequential_expected, String::new()),
            row("  half have ended by", &sizes.sequential_median, String::new()),
            row(
                "  at most",
                &sizes.sequential_at_most,
                format!(
                    "finds it in {}; by the rows of one look, in {}",
                    percent(sizes.power),
                    percent(sizes.sequential_power_at_fixed)
                ),
            ),
        ],
        &[1, 2, 3],
    );
    print(&table)
}

fn sizes(args: &SizeArgs) -> anyhow::Result<Sizes> {
    let between = |name: &str, value: f64, low: f64, high: f64| match value > low && value < high {
        true => Ok(()),
        false => Err(usage(format!("--{name} {value} is not between {low} and {high}"))),
    };
    between("alpha", args.alpha, 0.0, 0.5)?;
    between("power", args.power, args.alpha, 1.0)?;
    between("share", args.share, 0.0, 100.0)?;
    let share = args.share / 100.0;
    if args.effect == 0.0 || !args.effect.is_finite() {
        return Err(usage("--effect 0 would take rows without end; name the smallest difference that matters"));
    }
    let design = match (args.baseline, args.sd) {
        (_, Some(sd)) => {
            between("sd", sd, 0.0, f64::INFINITY)?;
            Design::mean(sd, args.effect, share)
        }
        (Some(baseline), None) => {
            between("baseline", baseline, 0.0, 1.0)?;
            let other = baseline + args.effect;
            if !(0.0..=1.0).contains(&other) {
                return Err(usage(format!(
                    "--baseline {baseline} and --effect {} make {other}, which is no rate",
                    args.effect
                )));
            }
            Design::rate(baseline, args.effect, share)
        }
        (None, None) => return Err(usage("name --baseline RATE, or --sd of the loss")),
    };
    let expect = args.expect_rows.map(|rows| rows as f64);
    let size = size::size(&design, args.alpha, args.power, expect).ok_or_else(|| {
        usage("with --expect-rows so far from what it takes, a look at every row takes more than a hundred times as many rows")
    })?;
    let rows = |total: f64| Rows {
        champion: (total * (1.0 - share)).ceil() as u64,
        challenger: (total * share).ceil() as u64,
    };
    Ok(Sizes {
        effect: args.effect,
        alpha: args.alpha,
        power: args.power,
        fixed: rows(size.fixed),
        sequential_at_most: rows(size.most),
        sequential_expected: rows(size.mean),
        sequential_median: rows(size.median),
        sequential_power_at_fixed: size.power_at_fixed,
    })
}
