//! What a running job tells of itself to those who steer it: the words of its control socket.

mod types;

pub use types::*;
