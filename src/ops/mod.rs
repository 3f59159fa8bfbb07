//! Domain-free timely operators and containers.
