//! How a challenger replaces the champion, and how it is taken back: sequential tests, guards, the controller.
//!
//! Layers, bottom-up: [`loss`](mod@loss), how far a prediction is from its label; [`stat`], tests that may be looked at after every row;
//! [`command`], what changes a rollout and what follows for the rows; [`guard`], what takes a challenger back at once;
//! [`controller`], who decides; [`order`], a command as the tick log holds it; [`routes`], which version scores what;
//! [`controller`], who decides; [`order`], a command as the tick log holds it; [`routes`], which version scores which rows;
//! [`record`], what was done, as rows. Nothing here knows of timely, of tables or of the registry.

pub mod command;
pub mod controller;
pub mod guard;
pub mod loss;
pub mod order;
pub mod record;
pub mod routes;
pub mod stat;

pub use command::{Action, End, Exposure, Guarded, VersionRef};
pub use controller::{Arm, Controller, Decision, Fact, Numbers, Outcome, Phase};
pub use guard::ScoreMoments;
pub use order::{Do, Order};
pub use record::{Record, record_batch, record_schema, records_of};
pub use routes::Routes;
