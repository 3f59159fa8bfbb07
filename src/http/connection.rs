//! One connection: what it waits for, and until when.
//!
//! A connection is cut off when its client takes too long over the head of a request, over the handshake or over reading an
//! answer; it is closed in peace when it has been idle. HTTP's state machines know of the first half of this at most, so what
//! passes through the stream and what is going on above it are noted here, and one timer for each connection looks at that.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::figures::Refusal;
use super::options::Limits;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that a client must read in a millisecond for longer answers to get longer times.
const SLOWEST_PER_MS: u64 = 8;

/// What is noted of a connection. Times are milliseconds since `began`, plus one; 0 is never.
pub(super) struct Connection {
    pub peer: SocketAddr,
    /// Names in the client's certificate.
    pub certificate: Vec<String>,
    began: Instant,
    /// Requests that are not answered to the end.
    in_flight: AtomicU32,
    /// Of these, those that wait for us rather than for the client.
    ours: AtomicU32,
    /// When the last answer ended.
    idle_since: AtomicU64,
    /// When the first byte of a head came that is not complete.
    head_since: AtomicU64,
    /// When a part of an answer was last taken.
    moved: AtomicU64,
    /// Since when the stream takes no more, and what it took since.
    blocked_since: AtomicU64,
    blocked_bytes: AtomicU64,
    http2: AtomicBool,
}

/// What is to be done about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing; look again then.
    Wait(Duration),
    /// It has been idle.
    Close,
    /// The client is too slow.
    Cut(Refusal),
}

impl Connection {
    pub fn new(peer: SocketAddr, certificate: Vec<String>) -> Connection {
        Connection {
            peer,
            certificate,
            began: Instant::now(),
            in_flight: AtomicU32::new(0),
            ours: AtomicU32::new(0),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            blocked_bytes: AtomicU64::new(0),
            http2: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// What is to be done now.
    pub fn verdict(&self, limits: &Limits) -> Verdict {
        self.verdict_at(self.now(), limits)
    }

    fn verdict_at(&self, now: u64, limits: &Limits) -> Verdict {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4).max(1);
        let stall = ms(limits.stall);
        // Nothing is looked at later than this: a head may begin at any time.
        let mut next = ms(limits.head);
        let mut due = |from: u64, after: u64| {
            let at = from.saturating_add(after);
            if at > now {
                next = next.min(at - now);
            }
            at <= now
        };
        let blocked = self.blocked_since.load(Relaxed);
        if blocked > 0 && due(blocked, stall + self.blocked_bytes.load(Relaxed) / SLOWEST_PER_MS) {
            return Verdict::Cut(Refusal::SlowReader);
        }
        if self.in_flight.load(Relaxed) > 0 {
            // Over HTTP/2 a client may leave an answer where it is and the stream open.
            if self.ours.load(Relaxed) == 0 && due(self.moved.load(Relaxed), stall) {
                return Verdict::Cut(Refusal::SlowReader);
            }
            return Verdict::Wait(Duration::from_millis(next));
        }
        let head = self.head_since.load(Relaxed);
        if head > 0 && due(head, ms(limits.head)) {
            return Verdict::Cut(Refusal::SlowHead);
        }
        match head == 0 && due(self.idle_since.load(Relaxed), ms(limits.idle)) {
            true => Verdict::Close,
            false => Verdict::Wait(Duration::from_millis(next)),
        }
    }

    /// A request's head is there.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Relaxed);
        self.ours.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        Busy { connection: Arc::clone(self), ours: true }
    }
}

/// A request that is not answered to the end; it is when this is dropped.
pub(super) struct Busy {
    connection: Arc<Connection>,
    ours: bool,
}

impl Busy {
    /// Says who waits for whom: `true` when the client waits for us.
    pub fn waits_for_us(&mut self, ours: bool) {
        if self.ours != ours {
            self.ours = ours;
            match ours {
                true => self.connection.ours.fetch_add(1, Relaxed),
                false => self.connection.ours.fetch_sub(1, Relaxed),
            };
        }
        self.connection.moved.store(self.connection.now(), Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.waits_for_us(false);
        self.connection.idle_since.store(self.connection.now(), Relaxed);
        self.connection.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The stream of a connection.
pub(super) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    /// How much of HTTP/2's preface came; `None` when it is clear what is spoken.
    preface: Option<usize>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, connection: Arc<Connection>) -> Watched<S> {
        Watched { stream, connection, preface: Some(0) }
    }

    fn received(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(seen) = self.preface {
            let compared = bytes.len().min(PREFACE.len() - seen);
            self.preface = match bytes[..compared] == PREFACE[seen..seen + compared] {
                true if seen + compared < PREFACE.len() => Some(seen + compared),
                whole => {
                    self.connection.http2.store(whole, Relaxed);
                    if whole {
                        self.connection.head_since.store(0, Relaxed);
                    }
                    None
                }
            };
        }
        // Over HTTP/2, bytes need not be a request; what begins one and does not end it is idle.
        let waits = self.connection.in_flight.load(Relaxed) == 0 && !self.connection.http2.load(Relaxed);
        if waits && self.connection.head_since.load(Relaxed) == 0 {
            self.connection.head_since.store(self.connection.now(), Relaxed);
        }
    }

    /// Takes note of how a write went, of so many bytes.
    fn written(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Pending if self.connection.blocked_since.load(Relaxed) == 0 => {
                self.connection.blocked_bytes.store(0, Relaxed);
                self.connection.blocked_since.store(self.connection.now(), Relaxed);
            }
            Poll::Ready(Ok(count)) => {
                self.connection.blocked_bytes.fetch_add(*count as u64, Relaxed);
            }
            _ => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = polled {
            self.received(&buffer.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        match &polled {
            // Flushed is all that was to be written.
            Poll::Ready(Ok(())) => self.connection.blocked_since.store(0, Relaxed),
            Poll::Pending => self.written(&Poll::Pending),
            Poll::Ready(Err(_)) => {}
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        if polled.is_pending() {
            self.written(&Poll::Pending);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            head: Duration::from_millis(10),
            idle: Duration::from_millis(100),
            stall: Duration::from_millis(50),
            ..Limits::default()
        }
    }

    fn watched() -> (Arc<Connection>, Watched<tokio::io::Empty>) {
        let connection = Arc::new(Connection::new(([127, 0, 0, 1], 1).into(), Vec::new()));
        (Arc::clone(&connection), Watched::new(tokio::io::empty(), connection))
    }

    fn wait(ms: u64) -> Verdict {
        Verdict::Wait(Duration::from_millis(ms))
    }

    #[test]
    fn idle_is_closed_and_half_a_head_is_cut() {
        let (connection, mut stream) = watched();
        let at = |now| connection.verdict_at(now, &limits());
        assert_eq!((at(1), at(95), at(101)), (wait(10), wait(6), Verdict::Close));
        stream.received(b"GET ");
        connection.head_since.store(95, Relaxed);
        assert_eq!((at(104), at(105)), (wait(1), Verdict::Cut(Refusal::SlowHead)));
        stream.received(b"/");
        assert_eq!(connection.head_since.load(Relaxed), 95, "more of it is no new beginning");
        let busy = connection.begin();
        assert_eq!(at(1000), wait(10), "it waits for us");
        drop(busy);
        connection.idle_since.store(1000, Relaxed);
        assert_eq!((at(1099), at(1100)), (wait(1), Verdict::Close));
    }

    #[test]
    fn over_http2_bytes_alone_are_no_head() {
        let (connection, mut stream) = watched();
        stream.received(&PREFACE[..10]);
        assert!(connection.head_since.load(Relaxed) > 0, "half a preface");
        stream.received(&PREFACE[10..]);
        stream.received(b"\0\0\0\x04\0\0\0\0\0");
        assert_eq!(connection.head_since.load(Relaxed), 0);
        assert_eq!(connection.verdict_at(100, &limits()), wait(1));
        let (connection, mut stream) = watched();
        stream.received(b"PRI * HTTP/3");
        assert!(connection.head_since.load(Relaxed) > 0 && !connection.http2.load(Relaxed));
    }

    #[test]
    fn who_does_not_read_is_cut_and_who_reads_gets_time() {
        let (connection, stream) = watched();
        let at = |now| connection.verdict_at(now, &limits());
        let mut busy = connection.begin();
        stream.written(&Poll::Pending);
        connection.blocked_since.store(100, Relaxed);
        assert_eq!(at(150), Verdict::Cut(Refusal::SlowReader));
        stream.written(&Poll::Ready(Ok(80)));
        assert_eq!((at(159), at(160)), (wait(1), Verdict::Cut(Refusal::SlowReader)));
        connection.blocked_since.store(0, Relaxed);
        busy.waits_for_us(false);
        connection.moved.store(200, Relaxed);
        assert_eq!((at(249), at(250)), (wait(1), Verdict::Cut(Refusal::SlowReader)));
        busy.waits_for_us(true);
        assert_eq!(at(5000), wait(10), "it waits for data of ours");
    }
}
