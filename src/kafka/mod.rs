//! Kafka clients, as sources and sinks both need them: configuration with secrets, and news of brokers that go away.
//!
//! Settings come in three layers: what Tidemill would choose, what the dataflow file's `properties` say, and what must be
//! so for the engine's promises to hold. Secrets are looked up last and appear in no error and no log.

mod bootstrap;
mod config;
mod connection;

pub use bootstrap::Bootstrap;
pub use config::{ClientError, client_config, setting_fault};
pub use connection::{Connection, Context};
