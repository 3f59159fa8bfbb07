//! Domain-free timely operators and containers.

pub mod key;
