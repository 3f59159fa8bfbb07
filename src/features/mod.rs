//! Windows, aggregates, lookups and joins.

pub mod numeric;
pub mod view;
