//! A client's way back to brokers that it has forgotten.
//!
//! A broker that was taken for dead and wakes may name no broker in its metadata, not even itself. librdkafka (2.12) then
//! drops all that it knew and plans to begin anew, and calls that off if the last connection is closed before the rest of the
//! answer is read: from then on it asks nobody, for ever. So a client whose brokers do not answer is told of those that it
//! began with, as it would be in a process of its own that is started again.

use std::cell::Cell;
use std::ffi::CString;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::Client;

/// Brokers that are away for less are found by librdkafka itself.
const PAUSE: Duration = Duration::from_secs(1);
/// Each time is kept by the client, so a long outage must not be one of many.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// When a client is told next of the brokers that it began with, if they do not answer.
#[derive(Debug, Default)]
pub struct Bootstrap(Cell<Option<Due>>);

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    pause: Duration,
}

impl Bootstrap {
    /// Tells `client` of `brokers` if they have been `away` for a while: after a second, and then after pauses that double.
    /// To be called whenever the client is served.
    pub fn tend<C: ClientContext>(&self, client: &Client<C>, brokers: &str, away: bool) {
        let now = Instant::now();
        let pause = match self.0.get().filter(|_| away) {
            Some(due) if now < due.at => return,
            Some(due) => (due.pause * 2).min(PAUSE_MAX),
            None => PAUSE,
        };
        let due = self.0.replace(away.then_some(Due { at: now + pause, pause }));
        // A list with a zero in it is none that a client was made with.
        if let (true, Some(_), Ok(brokers)) = (away, due, CString::new(brokers)) {
            // SAFETY: the client lives as long as what is borrowed, and the list is a C string that the call copies.
            unsafe { rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, Producer};

    use super::*;

    const METADATA: [u8; 2] = [0, 3];

    /// The answer to a question for metadata, in the protocol's first version: all brokers, and one topic. With no brokers
    /// it has so many partitions that reading them takes longer than closing a connection.
    fn metadata(port: u16, fenced: bool) -> Vec<u8> {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&(text.len() as i16).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        let mut out = i32::from(!fenced).to_be_bytes().to_vec();
        if !fenced {
            out.extend_from_slice(&1_i32.to_be_bytes());
            text(&mut out, "127.0.0.1");
            out.extend_from_slice(&i32::from(port).to_be_bytes());
        }
        out.extend_from_slice(&1_i32.to_be_bytes());
        out.extend_from_slice(&0_i16.to_be_bytes());
        text(&mut out, "rows");
        let partitions: i32 = if fenced { 2_000 } else { 1 };
        out.extend_from_slice(&partitions.to_be_bytes());
        for number in 0..partitions {
            let (error, leader) = if fenced { (5_i16, -1_i32) } else { (0, 1) };
            out.extend_from_slice(&error.to_be_bytes());
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&leader.to_be_bytes());
            // Three replicas, and those in sync: librdkafka has room for answers that are that long.
            for _ in 0..2 {
                out.extend_from_slice(&3_i32.to_be_bytes());
                (1..4_i32).for_each(|replica| out.extend_from_slice(&replica.to_be_bytes()));
            }
        }
        out
    }

    /// Answers a connection's questions for metadata until it is closed.
    fn serve(mut stream: TcpStream, port: u16, fenced: &AtomicBool) -> std::io::Result<()> {
        loop {
            let mut head = [0; 12];
            stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            stream.read_exact(&mut vec![0; length - 8])?;
            assert_eq!(head[4..6], METADATA, "only metadata is asked for");
            let body = metadata(port, fenced.load(Ordering::SeqCst));
            let mut answer = (body.len() as u32 + 4).to_be_bytes().to_vec();
            answer.extend_from_slice(&head[8..]);
            answer.extend_from_slice(&body);
            stream.write_all(&answer)?;
        }
    }

    #[test]
    fn a_broker_that_named_none_is_found_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fenced = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&fenced);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fenced = Arc::clone(&theirs);
                std::thread::spawn(move || serve(stream, port, &fenced));
            }
        });
        let brokers = format!("127.0.0.1:{port}");
        let mut config = ClientConfig::new();
        // A protocol without questions for versions.
        config.set("api.version.request", "false").set("broker.version.fallback", "0.9.0");
        let client: BaseProducer = config.set("bootstrap.servers", &brokers).create().unwrap();
        let ask = |time| client.client().fetch_metadata(Some("rows"), time).ok();
        assert_eq!(ask(Duration::from_secs(10)).map(|metadata| metadata.brokers().len()), Some(1));
        fenced.store(true, Ordering::SeqCst);
        let answer = ask(Duration::from_secs(2));
        assert!(answer.is_none_or(|metadata| metadata.brokers().is_empty()));
        fenced.store(false, Ordering::SeqCst);
        let (bootstrap, began) = (Bootstrap::default(), Instant::now());
        while ask(Duration::from_millis(200)).is_none_or(|metadata| metadata.brokers().is_empty()) {
            assert!(began.elapsed() < Duration::from_secs(30), "it asks nobody");
            bootstrap.tend(client.client(), &brokers, true);
        }
    }
}
