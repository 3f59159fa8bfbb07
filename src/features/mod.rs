//! Windows, aggregates, lookups and joins.

pub mod join;
pub mod numeric;
pub mod view;
