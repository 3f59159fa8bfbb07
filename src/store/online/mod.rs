//! Embedded online store.
