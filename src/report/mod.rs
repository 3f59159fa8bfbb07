//! A page for people on how models do, from the tables that a job with monitors leaves: one file of HTML without scripts and
//! without a request to anywhere.
//!
//! Layers, bottom-up: `read`, statistics, alerts and counts of predictions from Delta tables; [`model`], what the page says,
//! as data; `build`, how that follows from the tables; `metrics`, what is known of statistics by their names; `format`,
//! numbers and times for people; `html`, `chart` and `sections`, how it looks.
//! Beside them `plot` and `card`: a model card from what `train` found, in the same style.

mod build;
mod card;
mod chart;
mod error;
mod format;
mod html;
mod metrics;
pub mod model;
mod plot;
mod read;
mod sections;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use card::card_html;
pub use error::ReportError;
pub use model::Page;
pub use plot::tuning_svg;
pub use read::{history, newest};

use crate::base::EventTime;
use crate::plan::model::Plan;

/// What a page is made of.
#[derive(Clone, Debug, Default)]
pub struct ReportOptions {
    /// Directory of the job's tables, where it is not the plan's.
    pub tables: Option<PathBuf>,
    /// Windows that start at or after this, and ...
    pub from: Option<EventTime>,
    /// ... before this.
    pub to: Option<EventTime>,
    /// This model alone; else all that are monitored.
    pub model: Option<String>,
}

/// Reads a job's tables and says what the page says.
///
/// # Errors
/// When there are no such tables, they cannot be read, or the job watches no such model.
pub fn page(plan: &Plan, options: &ReportOptions) -> Result<Page, ReportError> {
    let input = read::read(plan, options)?;
    Ok(build::page(plan, &input, options))
}

/// The page as HTML.
pub fn html(page: &Page) -> String {
    sections::page(page)
}
