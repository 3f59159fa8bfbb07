//! Windows, aggregates, lookups and joins.
