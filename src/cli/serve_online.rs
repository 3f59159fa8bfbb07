//! What `tidemill serve` serves of jobs that it does not run, and how it answers requests for features and predictions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::job::load;
use super::serve::time;
use crate::base::parse_bytes;
use crate::serving::online::Options;
use crate::serving::{FixedJobs, ServedJob};

/// Features and predictions of jobs.
#[derive(Args, Debug)]
pub struct OnlineArgs {
    /// Serve features and predictions of this job without running it: its values are read where the job keeps them, whether
    /// it runs or not. Repeatable.
    #[arg(long, value_name = "JOB.yaml")]
    online: Vec<PathBuf>,
    /// State directories of the jobs given with --online, in their order: registered models are served in the version that the
    /// state began with.
    #[arg(long, value_name = "DIR", requires = "online")]
    online_state: Vec<PathBuf>,
    /// An online store that has not answered by then has failed; after three in a row it is left alone for a while.
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = time)]
    store_timeout: Duration,
    /// Features that were read are good for so long; 0s asks the store each time.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    feature_cache_ttl: Duration,
    /// While a store does not answer, features that were read may be told for so long, marked as stale; 0s tells none.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    stale_max: Duration,
    /// Memory for features that were read.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    feature_cache: u64,
    /// Memory for scores that were told, by model and exact input; 0B keeps none.
    #[arg(long, value_name = "BYTES", default_value = "0B", value_parser = parse_bytes)]
    prediction_cache: u64,
    /// Most rows in one request for features or predictions.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_rows: u32,
}

impl OnlineArgs {
    /// The jobs of the files.
    pub fn jobs(&self) -> anyhow::Result<FixedJobs> {
        let jobs = self.online.iter().enumerate().map(|(at, file)| {
            let state_dir = self.online_state.get(at).cloned();
            let job = load(file, &[], state_dir.as_deref())?;
            eprint!("{}", job.warnings);
            Ok(ServedJob { job: job.plan.job.clone(), plan: Arc::new(job.plan), state_dir })
        });
        Ok(FixedJobs::new(jobs.collect::<anyhow::Result<_>>()?))
    }

    /// How requests are answered.
    pub fn options(&self) -> Options {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Options {
            timeout: self.store_timeout,
            feature_cache_ttl: self.feature_cache_ttl,
            stale_max: self.stale_max,
            feature_cache_bytes: bytes(self.feature_cache),
            prediction_cache_bytes: bytes(self.prediction_cache),
            rows_max: self.max_rows as usize,
        }
    }
}
