//! Training sets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::base::format_time;
use crate::batch::error::StepError;
use crate::batch::journal::Input;
use crate::batch::step::{Context, Produced, Step};
use crate::engine::dataset;
use crate::plan::batch::DatasetPlan;
use crate::store::StoreError;
use crate::store::pit::{self, Progress, Query, Rows, Window, manifest_path};

/// The set's file.
const SET: &str = "set.parquet";
/// Between two words on how far it is.
const TELL: Duration = Duration::from_millis(200);

impl Step for DatasetPlan {
    fn run(&self, context: &Context<'_>) -> Result<Produced, StepError> {
        let job = context.job()?;
        let model = &job.models[context.model()?].name;
        let window = Window { last: self.last, from: None, to: self.to, label_delay: self.label_delay };
        let rows = Rows::Labelled(dataset::labelled(job, model, window).map_err(StepError::hopeless)?);
        let at = self.at.parse().map_err(StepError::Hopeless)?;
        let lake = dataset::lake(job).map_err(StepError::hopeless)?;
        let query = Query { job: job.job.clone(), lake, rows, at, memory_bytes: Query::MEMORY_BYTES };
        let out = context.out(SET);
        let (progress, over) = (Progress::default(), AtomicBool::new(false));
        let built = std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let built = pit::build_watched(&query, &out, &progress);
                over.store(true, Ordering::Release);
                built
            });
            while !over.load(Ordering::Acquire) && !work.is_finished() {
                let (done, of) = progress.rows();
                let part = (of > 0).then(|| done as f64 / of as f64);
                context.progress(part, &format!("{done} rows read"));
                std::thread::sleep(TELL.min(Duration::from_millis(20)));
            }
            work.join()
        });
        let manifest = built.map_err(|_| StepError::again("a thread of the set failed"))?.map_err(blamed)?;
        if manifest.rows == 0 {
            let what = "no row has a label that may be taken; wait for labels, or take a longer `last` or a shorter `label_delay`";
            return Err(StepError::again(what));
        }
        let tables = manifest.tables.iter().map(|table| Input {
            what: table.table.clone(),
            version: Some(table.version),
            sha256: None,
        });
        let summary = format!("{} rows, {} columns", manifest.rows, manifest.columns.len());
        let cut_off = match &manifest.query {
            Rows::Labelled(labelled) => labelled.window.to.map(format_time),
            Rows::Entities(_) => None,
        };
        let manifest_file = manifest_path(&out);
        let manifest_name = manifest_file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Ok(Produced {
            outputs: vec![("set".to_owned(), SET.to_owned()), ("manifest".to_owned(), manifest_name)],
            inputs: tables.collect(),
            facts: json!({"summary": summary, "rows": manifest.rows, "cut_off": cut_off, "counts": manifest.counts}),
            skipped: None,
        })
    }
}

fn blamed(error: StoreError) -> StepError {
    match error {
        // What is not there may come: labels, predictions.
        StoreError::NoTable { .. } => StepError::again(error),
        StoreError::Request(what) => StepError::hopeless(what),
        other => StepError::again(other),
    }
}
