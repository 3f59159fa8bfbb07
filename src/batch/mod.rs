//! Batch dataflows: steps that make a training set, fit, judge and register a model, run as jobs of their own.
//!
//! [`load()`] reads a file ([`crate::plan::batch`] has its grammar). A [`Queue`] is a directory of jobs; [`run()`] claims one and
//! carries it out: a [`schedule`] says which step runs when, the [`journal`] keeps what became of each, and each attempt is a
//! [process](executor) of this program that [works](worker) on one [`step`]. Whatever is killed, the next runner goes on: what is
//! done and whole is not done again, what was half done starts over.

mod command;
mod disk;
mod error;
pub mod executor;
pub mod journal;
mod load;
pub mod process;
mod queue;
mod retrainer;
mod run;
pub mod runner;
pub mod schedule;
pub mod step;
mod steps;
#[cfg(test)]
mod tests;
pub mod worker;

pub use error::{BatchError, StepError};
pub use load::load;
pub use queue::{Claim, Job, Queue, Request, Standing, Status, Submitted};
pub use retrainer::Retrainer;
pub use run::{Progress, RunOptions, StepProgress, StepSummary, Summary, rules, run};
pub use steps::signature;
