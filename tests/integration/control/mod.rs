//! Jobs of a server: submitted, stopped, changed, disturbed, and found again.

mod crash;
mod fuzz;
mod jobs;
mod server;
mod upgrade;
