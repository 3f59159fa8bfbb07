//! Stands in for `engine` until it is linked.
#![allow(missing_docs)]
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Fault, Faults};
use crate::plan::model::Plan;

#[derive(Clone, Default)]
pub struct StopHandle;
impl StopHandle {
    pub fn new() -> Self {
        Self
    }
    pub fn stop(&self) {}
}
pub use crate::engine::observe::Observer;
#[derive(Clone, Default)]
pub struct RunOptions {
    pub workers: usize,
    pub until_end: bool,
    pub state_dir: Option<PathBuf>,
    pub observer: Option<Arc<Observer>>,
    pub stop: StopHandle,
}
#[derive(serde::Serialize)]
pub struct RunSummary {
    pub job: String,
    pub workers: usize,
    pub rows_read: u64,
    pub rows_scored: u64,
    pub dead_letters: u64,
    pub ticks: u64,
    pub seconds: f64,
    pub keys: u64,
    pub state_bytes: u64,
    pub clock: Option<String>,
}
pub fn load(
    file: &Path,
    _: &[(String, String)],
    _: &dyn Fn(&str) -> Option<String>,
) -> Result<(Plan, Vec<Fault>), Faults> {
    Err(Faults {
        file: file.display().to_string(),
        list: Vec::new(),
    })
}
pub fn check(plan: &Plan) -> Result<String, Faults> {
    Ok(plan.job.clone())
}
pub fn run(_: Plan, _: RunOptions) -> Result<RunSummary, Faults> {
    Err(Faults::default())
}
