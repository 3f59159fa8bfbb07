//! How a topic that is being read stands with its brokers, for those who look from outside.

use std::ffi::CString;
use std::sync::Weak;

use rdkafka::bindings::rd_kafka_get_watermark_offsets;
use rdkafka::consumer::Consumer;

use super::topic::Shared;

/// Looks at a topic that is being read; does not keep it open.
#[derive(Clone)]
pub struct TopicWatch {
    source: String,
    topic: CString,
    shared: Weak<Shared>,
}

impl TopicWatch {
    pub(super) fn new(source: &str, topic: &str, shared: Weak<Shared>) -> Option<TopicWatch> {
        Some(TopicWatch { source: source.to_owned(), topic: CString::new(topic).ok()?, shared })
    }

    /// The source that reads it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether its brokers answer, as far as is known; `None` once it is read no more.
    pub fn is_up(&self) -> Option<bool> {
        Some(!self.shared.upgrade()?.connection.is_away())
    }

    /// The offset that the next message of a partition will get, as the last fetch told; `None` while that is not known.
    pub fn end_offset(&self, partition: usize) -> Option<u64> {
        let shared = self.shared.upgrade()?;
        last_told_end(&shared, &self.topic, i32::try_from(partition).ok()?)
    }
}

/// The end of a partition, as the last fetch told.
pub(super) fn last_told_end(shared: &Shared, topic: &CString, partition: i32) -> Option<u64> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client lives as long as what is borrowed; the name is a C string; both results are ours. The call looks up
    // what the last fetch told and does not block.
    let outcome = unsafe {
        rd_kafka_get_watermark_offsets(
            shared.consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    (outcome as i32 == 0 && high >= 0).then(|| high.unsigned_abs())
}
