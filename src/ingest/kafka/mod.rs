//! Topics: partitions assigned by hand, each with its own bounded queue of fetched messages.
//!
//! librdkafka fetches ahead into one queue per partition and stops where a queue is full, so a partition that is not asked
//! for more pauses by itself, and one that is asked goes on. Offsets are the caller's: where to read comes from no group.
//! How far a job has come is told to the brokers by a client apart ([`GroupOffsets`]), for tools that show lag.
//! A thread of the topic looks for new partitions, and asks whether brokers still answer, without which silence
//! means nothing.

mod columns;
mod group;
mod partition;
mod topic;
mod watch;

pub use group::GroupOffsets;
pub(crate) use partition::{Partition, Taken};
pub(crate) use topic::Topic;
pub use watch::TopicWatch;

/// How a topic is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// From its start without end; new partitions are read as they appear.
    #[default]
    Live,
    /// Up to what is there when the job starts: the partitions end there, as files do.
    UntilEnd,
    /// As a tick log says: which partitions, from where.
    Replay,
}
