//! Upkeep of the tables while the job runs: a thread of low priority that merges small files and deletes old ones.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::Micros;
use crate::plan::model::{MaintainPlan, Plan};
use crate::store::StoreError;
use crate::store::offline::{CompactOptions, UpkeepOptions, VacuumOptions, keep_up};

/// The thread; ends, at the next row group or file, when this is dropped.
pub struct UpkeepThread {
    stop: Option<Sender<()>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UpkeepThread {
    /// Keeps up the tables `names` below `root` as often as the job's file says,
    /// first after one interval; not at all when it says nothing. A failure is logged and tried
    /// again the next time: the tables are right, only not as tidy.
    pub fn spawn(root: PathBuf, names: Vec<String>, job: &Plan) -> Option<Self> {
        let plan = job.offline.as_ref()?.maintain.as_ref()?;
        let options = upkeep_options(job, plan);
        let every = std_duration(plan.every);
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = channel::<()>();
        let told = Arc::clone(&stopping);
        let spawned = std::thread::Builder::new().name("tidemill-upkeep".to_owned()).spawn(move || {
            lower_priority();
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                for name in &names {
                    match keep_up(&root, name, &options, &|| !told.load(Ordering::Relaxed)) {
                        Ok(done) => tracing::debug!(table = name, ?done, "upkeep"),
                        // The job has written nothing to it yet.
                        Err(StoreError::NoTable(_)) => {}
                        Err(error) => tracing::warn!(table = name, %error, "upkeep failed; it is tried again"),
                    }
                }
            }
        });
        match spawned {
            Ok(thread) => Some(UpkeepThread { stop: Some(stop), stopping, thread: Some(thread) }),
            Err(error) => {
                tracing::warn!(%error, "tables are not kept up: no thread for it");
                None
            }
        }
    }
}

impl Drop for UpkeepThread {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a job's file, or `plan` in its place, asks for, as the store takes it.
pub fn upkeep_options(job: &Plan, plan: &MaintainPlan) -> UpkeepOptions {
    let default = VacuumOptions::default();
    // Parts that were written early in a long epoch are in the table before they are committed.
    let uncommitted = default.uncommitted.max(2 * std_duration(job.checkpoint.interval));
    UpkeepOptions {
        compact: CompactOptions { below_bytes: plan.compact_below, ..CompactOptions::default() },
        vacuum: VacuumOptions { retention: std_duration(plan.vacuum_after), uncommitted, ..default },
    }
}

fn std_duration(micros: Micros) -> Duration {
    Duration::from_micros(micros.max(0) as u64)
}

/// Lets the job's own threads go first.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    // SAFETY: changes the scheduling of the calling thread; no memory is involved. On Linux 0 is this thread, not the process.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10);
    }
}
