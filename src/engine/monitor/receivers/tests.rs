//! Receivers against a small server that answers by a script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use std::path::PathBuf;

use super::*;
use crate::net::kit::{Certificates, terminate};

/// A request as it came.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: Vec<String>,
    body: Value,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request with the next status, and with the last from then on.
    fn start(script: &'static [u16]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(mut stream) = stream else { continue };
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                let (mut first, mut headers, mut length) = (String::new(), Vec::new(), 0);
                reader.read_line(&mut first).expect("a line");
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("a line");
                    let line = line.trim().to_lowercase();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(n) = line.strip_prefix("content-length:") {
                        length = n.trim().parse().expect("a number");
                    }
                    headers.push(line);
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("a body");
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = serde_json::from_slice(&body).expect("JSON");
                seen.lock().expect("no panic").push(Request { path, headers, body });
                let status = script[number.min(script.len() - 1)];
                let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Server { address, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn alert(name: &str, state: State) -> Alert {
    Alert {
        fingerprint: format!("f-{name}"),
        state,
        repeat: 0,
        at: 2_000_000,
        job: "job".into(),
        monitor: "fraud".into(),
        name: name.into(),
        severity: "critical".into(),
        model: "fraud".into(),
        version: String::new(),
        route: String::new(),
        segment: String::new(),
        subject: String::new(),
        metric: "auc".into(),
        value: Some(0.5),
        threshold: Some(0.8),
        condition: "auc < 0.8".into(),
        rows: 3,
        revision: 1,
        window_start: 0,
        window_end: 1_000_000,
        since: 0,
        message: "it is bad".into(),
        labels: Vec::new(),
        runbook: None,
        to: vec!["ops".into()],
    }
}

fn target_of(server: &Server, path: &str, headers: &[(&str, &str)]) -> Target {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), SecretText::parse(v).expect("a text"))).collect();
    let url = SecretText::parse(&server.address).expect("a text");
    let plan = HttpPlan { url, shown: "http://there".into(), headers, timeout: 2_000_000, ca: None };
    target(&plan, path).expect("an address")
}

/// A receiver's thread, and what became of its alerts.
struct Running {
    outbox: Option<Sender<Message>>,
    done: Inbox<(String, String)>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

fn run(way: Way, durable: impl Fn(Tick) -> bool + Send + 'static) -> Running {
    let (outbox, inbox) = channel();
    let (sender, done) = channel();
    let counts: Arc<Counts> = Arc::default();
    let teller = Teller::new("ops".into(), way, Arc::clone(&counts), sender);
    let thread = std::thread::spawn(move || teller.run(&inbox, &durable));
    Running { outbox: Some(outbox), done, counts, thread: Some(thread) }
}

impl Running {
    fn send(&self, message: Message) {
        self.outbox.as_ref().expect("it runs").send(message).expect("it listens");
    }

    fn tell(&self, tick: Tick, alert: &Alert) {
        self.send(Message::Tell(Some(tick), Box::new(alert.clone())));
    }

    fn flush(&self) {
        let (done, flushed) = channel();
        self.send(Message::Flush(done));
        flushed.recv_timeout(Duration::from_secs(20)).expect("it is done in time");
    }

    fn finished(&self) -> Vec<String> {
        self.done.try_iter().map(|(_, id)| id).collect()
    }

    fn counted(&self) -> (u64, u64, u64) {
        let of = |c: &AtomicU64| c.load(Ordering::Relaxed);
        (of(&self.counts.delivered), of(&self.counts.failed), of(&self.counts.dropped))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.outbox = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

#[test]
fn a_webhook_that_fails_first_gets_every_alert_in_order() {
    let server = Server::start(&[503, 500, 429, 200]);
    let headers = [("Authorization", "Bearer ${env:PATH}"), ("X-Team", "risk")];
    let way = Way::Webhook(target_of(&server, "", &headers), WebhookFormat::Json);
    let running = run(way, |_| true);
    let (one, two) = (alert("one", State::Firing), alert("two", State::Firing));
    running.tell(1, &one);
    running.tell(1, &two);
    running.flush();
    let requests = server.requests();
    let said: Vec<_> = requests.iter().map(|r| r.body["name"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(said, ["one", "one", "one", "one", "two"], "in order, and each until it is taken");
    assert!(requests.windows(2).take(3).all(|w| w[0].body["id"] == w[1].body["id"]));
    let last = &requests[4];
    assert!(last.headers.contains(&format!("idempotency-key: {}", two.id())), "{:?}", last.headers);
    assert!(
        last.headers.contains(&"x-team: risk".to_owned())
            && last.headers.iter().any(|h| h.starts_with("authorization: bearer /"))
    );
    assert_eq!((running.counted(), running.finished()), ((2, 3, 0), vec![one.id(), two.id()]));
}

#[test]
fn what_is_refused_is_dropped_and_counted() {
    let server = Server::start(&[404, 302, 200]);
    let running = run(Way::Webhook(target_of(&server, "", &[]), WebhookFormat::Slack), |_| true);
    for name in ["a", "b", "c"] {
        running.tell(1, &alert(name, State::Resolved));
    }
    running.flush();
    assert_eq!((running.counted(), running.finished().len()), ((1, 0, 2), 3));
    let text = server.requests()[2].body["text"].as_str().unwrap_or_default().to_owned();
    assert_eq!(text, ":white_check_mark: Resolved: it is bad");
}

#[test]
fn nothing_leaves_before_its_tick_is_durable() {
    let server = Server::start(&[200]);
    let durable = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&durable);
    let running = run(Way::Webhook(target_of(&server, "", &[]), WebhookFormat::Json), move |tick| {
        while !seen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        tick < 9
    });
    running.tell(7, &alert("a", State::Firing));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.requests().len(), 0);
    durable.store(true, Ordering::Relaxed);
    running.flush();
    assert_eq!(server.requests().len(), 1);
    // The log has failed: the tick may never have been.
    running.tell(9, &alert("b", State::Firing));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((server.requests().len(), running.finished().len()), (1, 1));
}

#[test]
fn alertmanager_is_told_again_until_it_is_resolved() {
    let server = Server::start(&[200]);
    let way = Way::Alertmanager(target_of(&server, "api/v2/alerts", &[]), Duration::from_millis(200));
    let running = run(way, |_| true);
    // One goes on since before the start, one is new.
    running.send(Message::GoesOn(Box::new(alert("old", State::Firing))));
    running.tell(1, &alert("new", State::Firing));
    std::thread::sleep(Duration::from_millis(1200));
    let both = |r: &Request| r.body.as_array().is_some_and(|a| a.len() == 2);
    let requests = server.requests();
    assert!(requests.iter().all(|r| r.path == "/api/v2/alerts"));
    assert!(requests.iter().filter(|r| both(r)).count() >= 2, "{requests:?}");
    for name in ["old", "new"] {
        running.tell(2, &alert(name, State::Resolved));
    }
    running.flush();
    let resolved: Vec<Request> = server.requests();
    let ends = resolved.last().map(|r| r.body[0]["endsAt"].as_str().unwrap_or_default().to_owned());
    assert_eq!(ends.as_deref(), Some("1970-01-01T00:00:02Z"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.requests().len(), resolved.len(), "nothing goes on, nothing is told again");
    assert_eq!(running.counted(), (3, 0, 0));
}

#[test]
fn an_absent_receiver_costs_the_oldest_and_shows_no_secret() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let url = SecretText::parse(&format!("http://{closed}/secret-path")).expect("a text");
    let plan = HttpPlan { url, shown: "http://there".into(), headers: Vec::new(), timeout: 500_000, ca: None };
    let way = Way::Webhook(target(&plan, "").expect("an address"), WebhookFormat::Json);
    let mut teller = Teller::new("ops".into(), way, Arc::default(), channel().0);
    let Answer::Later(what) = teller.deliver(&alert("a", State::Firing)) else { panic!("nobody is there") };
    assert!(what.contains("http://there") && !what.contains("secret-path"), "{what}");
    for i in 0..QUEUE_MAX + 5 {
        teller.take(Message::Tell(Some(1), Box::new(alert(&format!("n{i}"), State::Firing))));
    }
    assert_eq!((teller.queue.len(), teller.counts.dropped.load(Ordering::Relaxed)), (QUEUE_MAX, 5));
    assert_eq!(teller.queue.front().map(|q| q.1.name.as_str()), Some("n5"));
    assert!(teller.work(&|_| true));
    assert!(teller.rests_until.is_some() && teller.queue.len() == QUEUE_MAX);
}

#[test]
fn addresses_are_looked_up_at_the_start() {
    let plan = |url: &str, header: &str, ca: Option<&str>| HttpPlan {
        url: SecretText::parse(url).expect("a text"),
        shown: String::new(),
        headers: vec![("X-Key".into(), SecretText::parse(header).expect("a text"))],
        timeout: 1,
        ca: ca.map(Into::into),
    };
    let fault = |url: &str, header: &str| target(&plan(url, header, None), "").err().unwrap_or_default();
    assert!(fault("${env:NOT_SET_ANYWHERE_1}", "x").contains("is not set"));
    assert!(fault("ftp://hooks.slack.com/x", "x").contains("write https://HOST"));
    let trusting = |url: &str| target(&plan(url, "x", Some("/no/such/ca.pem")), "").err().unwrap_or_default();
    assert!(trusting("http://a").contains("without TLS"));
    assert!(trusting("https://a").contains("/no/such/ca.pem"));
    assert!(fault("http://a", "b\u{7}c").contains("X-Key"));
    assert_eq!(fault("http://a/${env:HOME}", "x"), "");
}

#[test]
fn receivers_behind_tls_are_told_when_they_are_trusted() {
    let Some(made) = Certificates::new("receivers of alerts behind TLS") else { return };
    let server = Server::start(&[200]);
    let plain = server.address.trim_start_matches("http://").parse().expect("an address");
    let port = terminate(&made.server(), plain);
    let teller = |ca: Option<PathBuf>, path: &str, way: fn(Target) -> Way| {
        let url = SecretText::parse(&format!("https://127.0.0.1:{port}/{path}")).expect("a text");
        let plan = HttpPlan { url, shown: "https://127.0.0.1".into(), headers: Vec::new(), timeout: 5_000_000, ca };
        let target = target(&plan, if path.is_empty() { "api/v2/alerts" } else { "" }).expect("an address");
        Teller::new("ops".into(), way(target), Arc::default(), channel().0)
    };
    let slack = |target| Way::Webhook(target, WebhookFormat::Slack);
    let manager = |target| Way::Alertmanager(target, Duration::from_secs(60));
    for (path, way) in [("hook/topsecret", slack as fn(Target) -> Way), ("", manager as fn(Target) -> Way)] {
        let mut teller = teller(Some(made.ca()), path, way);
        assert!(matches!(teller.deliver(&alert("a", State::Firing)), Answer::Taken), "{path}");
    }
    let paths: Vec<String> = server.requests().iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths, ["/hook/topsecret", "/api/v2/alerts"]);
    // Nobody vouches for the authority of a test.
    let mut strange = teller(None, "hook/topsecret", slack);
    let Answer::Later(what) = strange.deliver(&alert("a", State::Firing)) else { panic!("nobody vouches for it") };
    assert!(what.contains("https://127.0.0.1") && what.contains("`ca: FILE.pem`"), "{what}");
    assert!(!what.contains("topsecret"), "{what}");
    assert_eq!(server.requests().len(), 2);
}
