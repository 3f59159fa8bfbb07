//! Against a naive twin.
