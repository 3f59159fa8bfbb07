//! `tidemill submit`, `jobs`, `job`, `stop`, `start`, `restart`, `logs`, `upgrade`, `savepoint` and `delete`: what is asked of
//! a server over its API.

mod change;
mod client;
mod show;

pub use change::{
    DeleteArgs, RestartArgs, SavepointArgs, StartArgs, StopArgs, SubmitArgs, UpgradeArgs, delete, restart, savepoint,
    start, stop, submit, upgrade,
};
pub use show::{JobArgs, JobsArgs, LogsArgs, job, jobs, logs};
