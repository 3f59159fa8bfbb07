//! Whole jobs, from a dataflow file to the tables it leaves: one test binary, since each links the whole program.

mod accuracy;
mod avro_peer;
mod bad_input;
mod card_fraud;
mod chaos;
mod cli;
mod delta;
mod delta_upkeep;
mod docker;
mod drift;
mod exactly_once;
mod generate;
mod golden_flights;
mod golden_handbook;
mod history;
mod kafka_avro;
mod kafka_golden;
mod kafka_lag;
mod kafka_resume;
mod kafka_source;
#[cfg(feature = "kafka-tls")]
mod kafka_tls;
mod labels;
mod object_store;
mod online;
mod prove;
mod readme;
mod recovery;
mod redis_job;
mod redis_store;
mod registry;
mod savepoint;
mod score_matrix;
mod support;
mod ticks;
mod topics;
