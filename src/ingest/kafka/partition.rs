//! One partition: messages off its queue, decoded, with their own bytes kept for dead letters.

use std::ffi::CString;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedMessage};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::columns::{Extras, MessageColumns};
use super::topic::Shared;
use super::watch::last_told_end;
use crate::ingest::IngestError;
use crate::ingest::decode::RawChunk;
use crate::kafka::Context;

/// Payload bytes taken at once.
const CHUNK_BYTES: usize = 4 << 20;

/// A position packs the offset into this many bits.
const OFFSET_END: u64 = 1 << 40;

/// A partition that lacks no more than this many offsets counts as read to its end: the markers of transactions take
/// offsets and are no messages.
const NEAR_END: u64 = 16;

/// Where reading a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Offset of the next message.
    pub next: u64,
    /// Offset of the first message that is not read, if there is an end.
    pub end: Option<u64>,
}

/// What a partition had.
pub(crate) enum Taken {
    /// Messages.
    Rows(Box<RawChunk>),
    /// None now. With `caught_up` there are none on the broker either, else they are on their way.
    Nothing { caught_up: bool },
    /// None ever: the end was reached.
    End,
}

/// An assigned partition.
pub(crate) struct Partition {
    source: String,
    topic: String,
    topic_c: CString,
    number: u16,
    place: Place,
    shared: Arc<Shared>,
    queue: PartitionQueue<Context>,
    columns: MessageColumns,
    /// The end of the partition was told since the last message.
    at_end: bool,
    /// A message that was taken off the queue and belongs behind a bound.
    held: Option<OwnedMessage>,
    /// Messages whose decoding has to wait, for a schema registry say.
    waiting: Option<Gathered>,
    /// An error that came behind messages.
    error: Option<IngestError>,
}

/// Messages on their way to rows.
#[derive(Default)]
pub(crate) struct Gathered {
    pub data: Vec<u8>,
    pub ranges: Vec<Range<usize>>,
    pub offsets: Vec<u64>,
    pub extras: Extras,
    pub blank: u64,
    pub rows: u64,
    pub next: u64,
}

impl Partition {
    /// Assigns a partition and begins to fetch.
    pub(crate) fn assign(
        source: &str,
        topic: &str,
        number: u16,
        place: Place,
        shared: &Arc<Shared>,
        columns: MessageColumns,
    ) -> Result<Partition, IngestError> {
        let refuse = |what: String| {
            IngestError::source(source, format!("partition {number} of topic `{topic}` cannot be assigned: {what}"))
        };
        let topic_c = CString::new(topic).map_err(|e| refuse(e.to_string()))?;
        // Before it is assigned, so that not one message goes to the common queue.
        let queue = shared.consumer.split_partition_queue(topic, i32::from(number));
        let mut queue = queue.ok_or_else(|| refuse("librdkafka has no queue for it".into()))?;
        let waker = shared.waker.clone();
        queue.set_nonempty_callback(move || {
            if let Some(wake) = waker.get() {
                wake();
            }
        });
        let mut list = TopicPartitionList::new();
        let next = i64::try_from(place.next).map_err(|e| refuse(e.to_string()))?;
        list.add_partition_offset(topic, i32::from(number), Offset::Offset(next)).map_err(|e| refuse(e.to_string()))?;
        shared.consumer.incremental_assign(&list).map_err(|e| refuse(e.to_string()))?;
        Ok(Partition {
            source: source.to_owned(),
            topic: topic.to_owned(),
            topic_c,
            number,
            place,
            shared: shared.clone(),
            queue,
            columns,
            at_end: false,
            held: None,
            waiting: None,
            error: None,
        })
    }

    /// Offset of the next message.
    pub(crate) fn next_offset(&self) -> u64 {
        self.place.next
    }

    /// Takes up to `rows_max` messages that are here, none of them from `until` on. Does not wait.
    ///
    /// # Errors
    /// When the partition cannot be read on.
    pub(crate) fn take(&mut self, rows_max: usize, until: Option<u64>) -> Result<Taken, IngestError> {
        // An error stays behind the messages that it came behind, also while they wait.
        let gathered = match self.waiting.take() {
            Some(gathered) => gathered,
            None => match self.error.take() {
                Some(error) => return Err(error),
                None => self.gather(rows_max, until)?,
            },
        };
        if gathered.rows == 0 {
            let end = until.into_iter().chain(self.place.end).min();
            let ended = end.is_some_and(|end| self.at_end || self.place.next >= end);
            return Ok(if ended { Taken::End } else { Taken::Nothing { caught_up: self.caught_up() } });
        }
        let next = gathered.next;
        match self.columns.decode(gathered, i32::from(self.number)) {
            Ok(chunk) => {
                self.place.next = next;
                Ok(Taken::Rows(Box::new(chunk)))
            }
            Err((gathered, error)) if error.retryable() => {
                tracing::debug!(source = self.source, partition = self.number, %error, "messages wait");
                self.waiting = Some(*gathered);
                Ok(Taken::Nothing { caught_up: false })
            }
            Err((_, error)) => Err(error),
        }
    }

    fn gather(&mut self, rows_max: usize, until: Option<u64>) -> Result<Gathered, IngestError> {
        let mut gathered = Gathered { next: self.place.next, ..Gathered::default() };
        let bound = until.into_iter().chain(self.place.end).min().unwrap_or(u64::MAX);
        if let Some(held) = self.held.take() {
            if held.offset().unsigned_abs() >= bound {
                self.held = Some(held);
                return Ok(gathered);
            }
            self.at_end = false;
            gathered.push(&held, &self.columns);
        }
        while gathered.next < bound && gathered.rows < rows_max as u64 && gathered.data.len() < CHUNK_BYTES {
            match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let offset = message.offset().unsigned_abs();
                    // What is from before was fetched for an earlier assignment.
                    if offset < gathered.next {
                        continue;
                    }
                    self.at_end = false;
                    if offset >= bound {
                        self.held = Some(message.detach());
                        // Between here and the bound there is nothing.
                        self.at_end = true;
                        break;
                    }
                    if offset >= OFFSET_END {
                        self.error = Some(IngestError::source(
                            &self.source,
                            format!(
                                "partition {} of topic `{}` has reached offset {offset}; positions hold offsets below 2^40, so write to a new topic",
                                self.number, self.topic
                            ),
                        ));
                        break;
                    }
                    gathered.push(&message, &self.columns);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    break;
                }
                Some(Err(error)) => {
                    match self.judge(&error, gathered.next) {
                        Some(fatal) if gathered.rows == 0 => return Err(fatal),
                        Some(fatal) => self.error = Some(fatal),
                        None => {}
                    }
                    break;
                }
            }
        }
        Ok(gathered)
    }

    /// The error that ends the source, if it is one that waiting does not mend.
    fn judge(&self, error: &KafkaError, next: u64) -> Option<IngestError> {
        let (topic, number) = (&self.topic, self.number);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                let held = self.shared.consumer.fetch_watermarks(topic, i32::from(number), Duration::from_secs(5));
                Some(IngestError::Expired {
                    source_name: self.source.clone(),
                    topic: topic.clone(),
                    partition: number,
                    offset: next,
                    held: match held {
                        Ok((low, high)) if low < high => format!("it holds offsets {low} to {}", high - 1),
                        Ok((low, _)) => format!("it holds nothing, and will go on with offset {low}"),
                        Err(_) => "what it holds cannot be found out".to_owned(),
                    },
                })
            }
            Some(
                code @ (RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::Fatal),
            ) => Some(IngestError::source(
                &self.source,
                format!("partition {number} of topic `{topic}` cannot be read any further: {code}"),
            )),
            _ => {
                // Retried by librdkafka, and told by the client's context.
                tracing::debug!(source = self.source, topic, partition = number, %error, "kafka");
                None
            }
        }
    }

    /// Whether the broker has nothing more, or next to nothing.
    fn caught_up(&self) -> bool {
        if self.held.is_some() || self.waiting.is_some() {
            return false;
        }
        if self.at_end {
            return true;
        }
        let end = last_told_end(&self.shared, &self.topic_c, i32::from(self.number));
        end.is_some_and(|end| self.place.next.saturating_add(NEAR_END) >= end)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, i32::from(self.number));
        // The client is about to close, which does the same.
        let _ = self.shared.consumer.incremental_unassign(&list);
    }
}

/// Offset, payload, key and timestamp (milliseconds) of a message.
type Fields<'a> = (u64, Option<&'a [u8]>, Option<&'a [u8]>, Option<i64>);

/// A message, whoever owns it.
pub(crate) trait Parts {
    fn parts(&self) -> Fields<'_>;
    fn last_header(&self, name: &str) -> Option<&[u8]>;
}

macro_rules! parts {
    ($message:ty) => {
        impl Parts for $message {
            fn parts(&self) -> Fields<'_> {
                (self.offset().unsigned_abs(), self.payload(), self.key(), self.timestamp().to_millis())
            }

            fn last_header(&self, name: &str) -> Option<&[u8]> {
                self.headers()?.iter().filter(|header| header.key == name).last()?.value
            }
        }
    };
}
parts!(BorrowedMessage<'_>);
parts!(OwnedMessage);

impl Gathered {
    fn push(&mut self, message: &impl Parts, columns: &MessageColumns) {
        let (offset, payload, key, timestamp) = message.parts();
        self.rows += 1;
        self.next = offset + 1;
        // A tombstone says that a key is gone; it is no event.
        let Some(payload) = payload else {
            self.blank += 1;
            return;
        };
        let start = self.data.len();
        self.data.extend_from_slice(payload);
        self.ranges.push(start..self.data.len());
        self.offsets.push(offset);
        columns.note(&mut self.extras, key, timestamp, message);
    }
}
