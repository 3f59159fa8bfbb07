//! Event time, ticks, positions, keys and error kinds: the words that every room speaks.

mod cores;
mod cron;
mod error;
mod failpoint;
mod key;
mod large;
mod model_ref;
mod position;
mod prefetch;
mod random;
mod seal;
mod secret;
mod setting;
mod size;
mod time;

pub use cores::Cores;
pub use cron::Cron;
pub use error::{Blame, Fault, Faults, Severity};
pub use failpoint::{VARIABLE as FAILPOINTS, failpoint};
pub use key::{SLOTS, SlotRange, hash_bytes, hash_u64, hash_words, slot_of, worker_of_slot};
pub use large::{Large, LargeBox, LargeVec, want_large_pages};
pub use model_ref::{ModelRef, Selector, check_alias, check_model_name};
pub use position::{Ord64, Position};
pub use prefetch::prefetch;
pub use random::{SplitMix64, any_seed};
pub use seal::{seal, unseal};
pub use secret::{SecretText, is_secret_reference};
pub use setting::shown_setting;
pub use size::{format_bytes, parse_bytes};
pub use time::{DAY, EventTime, Micros, format_duration, format_time, parse_duration, parse_time, wall_clock};

/// The timely timestamp of a small group of input: dense, from 0, cut by worker 0.
pub type Tick = u64;

/// The ticks between two commits of the sinks; dense, from 0.
pub type Epoch = u64;

/// Name of the event-time column that every batch inside the engine begins with
/// (`Timestamp(Microsecond, "UTC")`, never null).
pub const TIME_COLUMN: &str = "_time";

/// Name of the position column that every batch inside the engine has second (`UInt64`, an [`Ord64`], never null).
pub const ORD_COLUMN: &str = "_ord";
