//! Jobs as a server keeps them: submitted, supervised, changed, and found again.
//!
//! [`model`] is what the API says. [`disk`] keeps it: a directory per job, with its files, its state, its log and its
//! history. A [`Manager`] does what is asked: it writes down what is wanted of a job, and a keeper, one per job that is not at
//! rest, brings that about. Each job is a process in a session of its own (`process`) that outlives the server; the server
//! talks to it over its control socket (`talk`). [`api`] is the same over HTTP.

pub mod api;
pub mod console;
pub mod disk;
mod ending;
mod entry;
mod error;
pub mod file;
mod keeper;
mod manager;
mod metrics;
pub mod model;
mod process;
mod served;
mod talk;
mod upgrade;
pub mod wire;

pub use entry::Options;
pub use error::ControlError;
pub use manager::Manager;
pub use served::Served;
