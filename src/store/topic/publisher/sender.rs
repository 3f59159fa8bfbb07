//! Hands messages to librdkafka, a burst at a time: while one is on its way to the brokers the next one gathers.
//!
//! librdkafka sends what lingers for long enough, and keeps one batch per partition under way where the producer is
//! idempotent. Given messages one by one it sends the first of them alone, and while that one is under way it asks, without
//! a pause, whether the others may leave: a core's worth of asking while the brokers are slow. So a burst lies in its queues
//! whole, leaves at once on the word of a flush, in one batch per partition, and nothing is behind it until it is acknowledged.

use std::collections::VecDeque;
use std::ffi::{CString, c_char, c_void};
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rdkafka::bindings::{
    RD_KAFKA_MSG_F_COPY, rd_kafka_flush, rd_kafka_header_add, rd_kafka_headers_destroy, rd_kafka_headers_new,
    rd_kafka_headers_t, rd_kafka_last_error, rd_kafka_producev, rd_kafka_resp_err_t, rd_kafka_topic_destroy,
    rd_kafka_topic_new, rd_kafka_topic_t, rd_kafka_vtype_t,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};

use super::messages::{Message, Messages};
use super::{Account, FULL_WAIT, Failure, Reports};

/// A burst waits no longer than this, in milliseconds, for the one before it: of several brokers one may be slow.
const BEHIND_MS: i32 = 500;

/// What waits for the sender.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Messages with the number of their topic.
    bursts: VecDeque<(usize, Messages)>,
    bytes: usize,
    /// The sender sleeps.
    idle: bool,
    closing: bool,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Takes messages in.
    pub(super) fn push(&self, topic: usize, messages: Messages) {
        let mut state = self.lock();
        state.bytes += messages.bytes();
        state.bursts.push_back((topic, messages));
        self.wake(state);
    }

    /// Takes one message in.
    pub(super) fn push_one(&self, topic: usize, key: Option<&[u8]>, payload: &[u8], headers: &[(&'static str, &[u8])]) {
        let mut state = self.lock();
        if !state.bursts.back().is_some_and(|(last, messages)| *last == topic && messages.is_plain()) {
            state.bursts.push_back((topic, Messages::default()));
        }
        if let Some((_, messages)) = state.bursts.back_mut() {
            let before = messages.bytes();
            let key = |out: &mut Vec<u8>| {
                out.extend_from_slice(key.unwrap_or_default());
                key.is_some()
            };
            messages.push(key, |out| out.extend_from_slice(payload), headers);
            let added = messages.bytes() - before;
            state.bytes += added;
        }
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let idle = std::mem::replace(&mut state.idle, false);
        drop(state);
        if idle {
            self.ready.notify_one();
        }
    }

    /// Has the sender end; what waits is dropped.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.ready.notify_one();
    }

    /// All that waits, once there is something; none when it is over.
    fn take(&self) -> Option<VecDeque<(usize, Messages)>> {
        let mut state = self.lock();
        while state.bursts.is_empty() && !state.closing {
            state.idle = true;
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        if state.closing {
            return None;
        }
        state.bytes = 0;
        Some(std::mem::take(&mut state.bursts))
    }
}

/// The sending thread's work, until it is over.
pub(super) fn send(producer: Arc<BaseProducer<Reports>>, account: &Account, waiting: &Waiting, closing: &AtomicBool) {
    let mut topics = Topics { handles: account.topics.iter().map(|_| None).collect(), producer };
    while let Some(bursts) = waiting.take() {
        for (topic, messages) in bursts {
            let mut left = messages.len() as u64;
            messages.each(|message| match topics.produce(account, topic, message, closing) {
                Ok(()) => {
                    left -= 1;
                    true
                }
                Err(Some(error)) => {
                    account.refused(topic, Failure::Message(topic, error.to_string()), 1);
                    left -= 1;
                    true
                }
                Err(None) => false,
            });
            if left > 0 {
                return;
            }
        }
        topics.flush();
    }
}

/// The producer, and its topics by number.
struct Topics {
    handles: Vec<Option<NonNull<rd_kafka_topic_t>>>,
    producer: Arc<BaseProducer<Reports>>,
}

impl Topics {
    /// Hands a message over; waits while the producer's queue is full. An error without one says that it is over.
    fn produce(
        &mut self,
        account: &Account,
        topic: usize,
        message: &Message<'_>,
        closing: &AtomicBool,
    ) -> Result<(), Option<KafkaError>> {
        let handle = self.handle(account, topic).map_err(Some)?;
        let headers = Headers::new(&message.headers);
        let (key, key_length) = message.key.map_or((null(), 0), |key| (key.as_ptr(), key.len()));
        loop {
            // SAFETY: the client and the topic live as long as `self`; keys and payloads are copied by the call, each tag is
            // followed by the arguments that librdkafka's documentation names for it, and the list is ended. The headers go
            // over to the message when the call succeeds, and only then.
            let outcome = unsafe {
                rd_kafka_producev(
                    self.producer.client().native_ptr(),
                    rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                    handle.as_ptr(),
                    rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                    RD_KAFKA_MSG_F_COPY,
                    rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                    message.payload.as_ptr().cast::<c_void>(),
                    message.payload.len(),
                    rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
                    key.cast::<c_void>(),
                    key_length,
                    rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                    topic as *mut c_void,
                    rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                    headers.0,
                    rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
                )
            };
            match outcome {
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    std::mem::forget(headers);
                    return Ok(());
                }
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL => {
                    if closing.load(Ordering::Acquire) {
                        return Err(None);
                    }
                    std::thread::sleep(FULL_WAIT);
                }
                other => return Err(Some(KafkaError::MessageProduction(other.into()))),
            }
        }
    }

    /// librdkafka's handle of a topic, made when the first message goes there.
    fn handle(&mut self, account: &Account, topic: usize) -> Result<NonNull<rd_kafka_topic_t>, KafkaError> {
        if let Some(handle) = self.handles[topic] {
            return Ok(handle);
        }
        let name = CString::new(account.topics[topic].name.as_str())?;
        // SAFETY: the client lives as long as `self`, and the name is a C string that the call copies.
        let handle = unsafe { rd_kafka_topic_new(self.producer.client().native_ptr(), name.as_ptr(), null_mut()) };
        let Some(handle) = NonNull::new(handle) else {
            // SAFETY: asks for this thread's last error.
            let error = RDKafkaErrorCode::from(unsafe { rd_kafka_last_error() });
            return Err(KafkaError::MessageProduction(error));
        };
        self.handles[topic] = Some(handle);
        Ok(handle)
    }

    /// Has all that is in the queue leave at once, and waits until it is acknowledged, though not for ever.
    fn flush(&self) {
        // SAFETY: the client lives as long as `self`. The call sets the client's mark that nothing lingers, wakes its threads
        // and waits; delivery reports are served by another thread. That it took too long is no fault.
        unsafe { rd_kafka_flush(self.producer.client().native_ptr(), BEHIND_MS) };
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        for handle in self.handles.iter().flatten() {
            // SAFETY: made by `rd_kafka_topic_new`, given back once, before the client ends.
            unsafe { rd_kafka_topic_destroy(handle.as_ptr()) };
        }
    }
}

/// Headers that no message owns yet.
struct Headers(*mut rd_kafka_headers_t);

impl Headers {
    fn new(headers: &[(&'static str, &[u8])]) -> Headers {
        if headers.is_empty() {
            return Headers(null_mut());
        }
        // SAFETY: plain constructor; names and values are copied by the call, with the lengths that go with them.
        unsafe {
            let list = rd_kafka_headers_new(headers.len());
            for (name, value) in headers {
                let (name_length, length) = (name.len() as isize, value.len() as isize);
                // It fails only where the list may not be written, which a new one may.
                rd_kafka_header_add(
                    list,
                    name.as_ptr().cast::<c_char>(),
                    name_length,
                    value.as_ptr().cast::<c_void>(),
                    length,
                );
            }
            Headers(list)
        }
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by `rd_kafka_headers_new`, and no message has taken it over.
            unsafe { rd_kafka_headers_destroy(self.0) };
        }
    }
}
