//! Held against a real server.
