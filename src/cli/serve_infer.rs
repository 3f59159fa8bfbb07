//! How `tidemill serve` scores rows by the Open Inference Protocol.

use clap::Args;

use crate::base::parse_bytes;
use crate::serving::infer::{Options, Settings};

/// Scores for tensors.
#[derive(Args, Debug)]
pub struct InferArgs {
    /// Serve the models of this registry too, besides those of the jobs: a directory or an address (`s3://…`).
    #[arg(long, value_name = "URI", env = "TIDEMILL_REGISTRY")]
    registry: Option<String>,
    /// Threads that score requests to /v2. Default: one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    infer_threads: Option<u16>,
    /// How requests to /v2 are scored, such as `batch=64,delay=2ms,queue=100,timeout=1s,cache=30s`: rows of a batch at most, how long one
    /// waits for others, requests that may wait, time for an answer, how long answers are kept. Unset: batch=256,delay=0,queue=1024,timeout=10s,cache=off.
    #[arg(long, value_name = "SETTINGS", default_value = "", hide_default_value = true)]
    infer: String,
    /// The same for one model, as NAME:SETTINGS; what is not set there is as for all. Repeatable.
    #[arg(long, value_name = "NAME:SETTINGS", value_parser = of_model)]
    infer_model: Vec<(String, String)>,
    /// Memory for answers that are kept (`cache=`).
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    infer_cache: u64,
    /// Memory for the inputs of requests that wait.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = parse_bytes)]
    infer_queue: u64,
    /// Versions of models that are kept loaded at most.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    infer_loaded: u32,
}

fn of_model(text: &str) -> Result<(String, String), String> {
    let (name, settings) = text.split_once(':').ok_or_else(|| format!("`{text}` is not NAME:SETTINGS"))?;
    Settings::default().with(settings)?;
    Ok((name.to_owned(), settings.to_owned()))
}

impl InferArgs {
    /// How requests are answered; none is longer than `body` bytes.
    ///
    /// # Errors
    /// A sentence that names the setting that is not understood.
    pub fn options(&self, body: u64) -> Result<Options, String> {
        let settings = Settings::default().with(&self.infer).map_err(|why| format!("--infer {}: {why}", self.infer))?;
        let own = |(name, text): &(String, String)| settings.clone().with(text).map(|own| (name.clone(), own));
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let unset = Options::default();
        Ok(Options {
            registry: self.registry.clone().filter(|uri| !uri.is_empty()),
            threads: self.infer_threads.map_or(unset.threads, usize::from),
            models: self.infer_model.iter().map(own).collect::<Result<_, _>>()?,
            settings,
            cache_bytes: bytes(self.infer_cache),
            queue_bytes: bytes(self.infer_queue),
            request_bytes: bytes(body),
            loaded: self.infer_loaded as usize,
            refresh: unset.refresh,
        })
    }
}
