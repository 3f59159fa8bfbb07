//! Lookups.
