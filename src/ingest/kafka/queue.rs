//! The queue of one partition's fetched messages, taken off some hundreds at a time: librdkafka's own structures, without
//! an event and a counted reference around each.

use std::collections::VecDeque;
use std::ffi::{CStr, c_void};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_header_get_last, rd_kafka_message_destroy, rd_kafka_message_headers,
    rd_kafka_message_t, rd_kafka_message_timestamp, rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy,
    rd_kafka_queue_forward, rd_kafka_queue_get_partition, rd_kafka_queue_t, rd_kafka_resp_err_t, rd_kafka_t,
    rd_kafka_timestamp_type_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use crate::kafka::Context;

/// Messages taken off the queue at once.
const BATCH: usize = 256;

/// Called when the queue that was empty has something.
type Wake = Box<dyn Fn() + Send + Sync>;

/// A partition's own queue.
pub(super) struct PartitionQueue {
    queue: NonNull<rd_kafka_queue_t>,
    taken: VecDeque<Fetched>,
    /// Boxed twice, since librdkafka hands one plain pointer back.
    wake: Option<Box<Wake>>,
    /// Outlives the queue.
    _consumer: Arc<BaseConsumer<Context>>,
}

// SAFETY: librdkafka's queues and messages may be used from any thread; nothing here is shared between threads.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Splits the queue of a partition off the consumer's. None where librdkafka has none.
    pub(super) fn open(consumer: &Arc<BaseConsumer<Context>>, topic: &CStr, partition: i32) -> Option<PartitionQueue> {
        // SAFETY: the client lives, the name is a C string. The queue is forwarded to nowhere, so it keeps what comes.
        let queue = unsafe {
            let queue =
                NonNull::new(rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition))?;
            rd_kafka_queue_forward(queue.as_ptr(), null_mut());
            queue
        };
        Some(PartitionQueue { queue, taken: VecDeque::new(), wake: None, _consumer: Arc::clone(consumer) })
    }

    /// Has `wake` called, from librdkafka's threads, when the queue was empty and has something.
    pub(super) fn wake_with(&mut self, wake: impl Fn() + Send + Sync + 'static) {
        unsafe extern "C" fn call(_: *mut rd_kafka_t, wake: *mut c_void) {
            // SAFETY: the pointer is the one given below; what it points to lives until the callback is taken away.
            unsafe { (*wake.cast_const().cast::<Wake>())() }
        }
        let wake: Box<Wake> = Box::new(Box::new(wake));
        let pointer: *const Wake = &raw const *wake;
        // SAFETY: `wake` stays where it is as long as the queue has it: it is dropped after `drop` took the callback away.
        unsafe { rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), Some(call), pointer.cast_mut().cast()) };
        self.wake = Some(wake);
    }

    /// The next message, if one is here. Does not wait.
    ///
    /// # Errors
    /// What came in place of a message.
    pub(super) fn next(&mut self) -> Option<Result<Fetched, KafkaError>> {
        if self.taken.is_empty() {
            let mut messages = [null_mut::<rd_kafka_message_t>(); BATCH];
            // SAFETY: the queue lives; the array has room for so many pointers. Each that is returned is ours.
            let count =
                unsafe { rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, messages.as_mut_ptr(), messages.len()) };
            let count = usize::try_from(count).unwrap_or(0);
            self.taken.extend(messages.iter().take(count).filter_map(|message| NonNull::new(*message)).map(Fetched));
        }
        let fetched = self.taken.pop_front()?;
        Some(match fetched.fields().err {
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(fetched),
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                Err(KafkaError::PartitionEOF(fetched.fields().partition))
            }
            other => Err(KafkaError::MessageConsumption(other.into())),
        })
    }

    /// Puts the message back that came last.
    pub(super) fn put_back(&mut self, message: Fetched) {
        self.taken.push_front(message);
    }

    /// Whether messages were taken off the queue that nobody has asked for yet.
    pub(super) fn holds(&self) -> bool {
        !self.taken.is_empty()
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        self.taken.clear();
        // SAFETY: the queue is ours; when the first call returns the callback is called no more.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, null_mut());
            rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// A message off a queue.
pub(super) struct Fetched(NonNull<rd_kafka_message_t>);

impl Fetched {
    fn fields(&self) -> &rd_kafka_message_t {
        // SAFETY: a message that librdkafka has made and that is destroyed with `self`.
        unsafe { self.0.as_ref() }
    }

    /// Its offset.
    pub(super) fn offset(&self) -> u64 {
        self.fields().offset.unsigned_abs()
    }

    /// Its key.
    pub(super) fn key(&self) -> Option<&[u8]> {
        // SAFETY: null, or so many bytes that live as long as the message.
        unsafe { bytes(self.fields().key, self.fields().key_len) }
    }

    /// Its payload.
    pub(super) fn payload(&self) -> Option<&[u8]> {
        // SAFETY: as above.
        unsafe { bytes(self.fields().payload, self.fields().len) }
    }

    /// Its timestamp, in milliseconds.
    pub(super) fn timestamp(&self) -> Option<i64> {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives; the result is ours.
        let time = unsafe { rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) };
        Some(time).filter(|time| *time != -1 && kind != rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
    }

    /// The value of its last header of this name.
    pub(super) fn last_header(&self, name: &CStr) -> Option<&[u8]> {
        let (mut headers, mut value, mut length) = (null_mut(), null::<c_void>(), 0);
        // SAFETY: the message lives and keeps its headers; names are C strings; results are ours, and what they point to
        // lives as long as the message.
        unsafe {
            if rd_kafka_message_headers(self.0.as_ptr(), &mut headers)
                != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
                || rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut length)
                    != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                return None;
            }
            bytes(value.cast_mut(), length)
        }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// # Safety
/// Where `start` is not null, `length` bytes are there that live as long as the result.
unsafe fn bytes<'a>(start: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by the caller's word.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}
