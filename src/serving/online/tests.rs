//! The routes over a store of the test.
