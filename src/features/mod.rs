//! Windows, aggregates, lookups and joins.

pub mod join;
