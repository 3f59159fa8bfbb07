//! Who is told of alerts, outside of topics and tables: the log, webhooks, Alertmanager.
//!
//! Each worker has a thread for each receiver, with a queue of its own, so that one that does not answer keeps nobody else
//! waiting, and never the graph. An alert leaves when its tick is durable: whatever happens afterwards, a replay of the tick
//! makes the same alert with the same id. Until a receiver has taken an alert it is part of the state of the operator that
//! made it, and is told again after a restart; so each is told at least once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Inbox, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use super::super::EngineError;
use super::super::shared::Shared;
use crate::base::{SecretText, Tick, failpoint, wall_clock};
use crate::monitor::alert::{Alert, State, payload};
use crate::net::{HttpOptions, http_client, said};
use crate::plan::model::{HttpPlan, Plan, ReceiverWay, WebhookFormat, is_secure};

/// Alerts that wait for one receiver on one worker; beyond that the oldest is dropped.
const QUEUE_MAX: usize = 1000;
/// Between attempts; doubles from the one to the other.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Alertmanager keeps what it was told for so many times of being told again.
const LASTING: i64 = 4;

/// What became of the alerts for one receiver.
#[derive(Debug, Default)]
pub struct Counts {
    /// Taken.
    pub delivered: AtomicU64,
    /// Attempts that were answered with trouble, or not at all.
    pub failed: AtomicU64,
    /// Refused for good, or too many.
    pub dropped: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiverSummary {
    /// Name of the receiver.
    pub receiver: String,
    /// Alerts that it has taken.
    pub delivered: u64,
    /// Attempts that were answered with trouble, or not at all.
    pub failed: u64,
    /// Alerts that it refused for good, or that were too many.
    pub dropped: u64,
}

/// Where alerts are posted to.
#[derive(Clone)]
struct Target {
    url: String,
    shown: String,
    headers: HeaderMap,
    client: Client,
}

#[derive(Clone)]
enum Way {
    Log,
    Webhook(Target, WebhookFormat),
    Alertmanager(Target, Duration),
}

/// A receiver that threads of the job tell.
pub struct Receiver {
    /// Its name.
    pub name: String,
    way: Way,
    /// What became of its alerts.
    pub counts: Arc<Counts>,
}

/// Looks up the addresses of a plan's receivers, topics apart.
///
/// # Errors
/// When a secret is not there, or an address or a header cannot be used.
pub fn open(plan: &Plan) -> Result<Vec<Receiver>, EngineError> {
    let mut receivers = Vec::new();
    for receiver in &plan.receivers {
        let fault = |what: String| EngineError::Plan(format!("notify.{}: {what}", receiver.name));
        let way = match &receiver.way {
            ReceiverWay::Topic => continue,
            ReceiverWay::Log => Way::Log,
            ReceiverWay::Webhook(http, format) => Way::Webhook(target(http, "").map_err(fault)?, *format),
            ReceiverWay::Alertmanager(http, resend) => {
                let resend = Duration::from_micros(resend.unsigned_abs());
                Way::Alertmanager(target(http, "api/v2/alerts").map_err(fault)?, resend)
            }
        };
        receivers.push(Receiver { name: receiver.name.clone(), way, counts: Arc::default() });
    }
    Ok(receivers)
}

fn target(plan: &HttpPlan, path: &str) -> Result<Target, String> {
    let look_up = |text: &SecretText| text.resolve(|secret| secret);
    let url = look_up(&plan.url)?;
    if let Some(fault) = HttpPlan::address_fault(url.trim()) {
        return Err(format!("the address cannot be used: {fault}"));
    }
    let secure = is_secure(&url);
    if plan.ca.is_some() && !secure {
        return Err("`ca` says whom to trust, and the address is of a server without TLS; write `https://`".into());
    }
    let timeout = Duration::from_micros(plan.timeout.unsigned_abs());
    let client = http_client(&HttpOptions { timeout, redirects: 0, secure, ca: plan.ca.clone() })?;
    let url = match path {
        "" => url.trim().to_owned(),
        path => format!("{}/{path}", url.trim().trim_end_matches('/')),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &plan.headers {
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not the name of a header"))?;
        let mut value = HeaderValue::from_str(look_up(value)?.trim())
            .map_err(|_| format!("the value of the header `{name}` is not printable ASCII"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(Target { url, shown: plan.shown.clone(), headers, client })
}

/// What the receivers have got.
pub fn summaries(receivers: &[Receiver]) -> Vec<ReceiverSummary> {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    receivers
        .iter()
        .map(|receiver| ReceiverSummary {
            receiver: receiver.name.clone(),
            delivered: of(&receiver.counts.delivered),
            failed: of(&receiver.counts.failed),
            dropped: of(&receiver.counts.dropped),
        })
        .collect()
}

/// An alert for one receiver that has not taken it yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The receiver's name.
    pub receiver: String,
    /// The alert.
    pub alert: Alert,
}

enum Message {
    /// Tell this, when the tick is durable.
    Tell(Option<Tick>, Box<Alert>),
    /// This goes on since before the start.
    GoesOn(Box<Alert>),
    /// Say when nothing waits any more.
    Flush(Sender<()>),
}

/// The threads of one worker that tell receivers.
pub struct Courier {
    threads: BTreeMap<String, (Sender<Message>, Option<JoinHandle<()>>)>,
    taken: Inbox<(String, String)>,
    waiting: Vec<Outgoing>,
}

impl Courier {
    /// Starts a thread for each receiver.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(shared: &Arc<Shared>, receivers: &[Receiver], worker: usize) -> Result<Courier, EngineError> {
        let (done, taken) = channel();
        let mut threads = BTreeMap::new();
        for receiver in receivers {
            let (outbox, inbox) = channel();
            let (shared, done, name) = (Arc::clone(shared), done.clone(), receiver.name.clone());
            let (way, counts) = (receiver.way.clone(), Arc::clone(&receiver.counts));
            let thread = std::thread::Builder::new().name(format!("tidemill-tell-{name}-{worker}"));
            let durable = move |tick| shared.wait_durable(tick);
            let run = move || Teller::new(name, way, counts, done).run(&inbox, &durable);
            let thread = thread.spawn(run).map_err(|error| {
                EngineError::Workers(format!("a thread that tells `{}` could not be started: {error}", receiver.name))
            })?;
            threads.insert(receiver.name.clone(), (outbox, Some(thread)));
        }
        Ok(Courier { threads, taken, waiting: Vec::new() })
    }

    /// Tells all receivers of an alert that threads tell, when the tick is durable.
    pub fn tell(&mut self, tick: Option<Tick>, alert: &Alert) {
        for receiver in &alert.to {
            self.tell_one(tick, Outgoing { receiver: receiver.clone(), alert: alert.clone() });
        }
    }

    /// Tells one receiver, if it is there.
    pub fn tell_one(&mut self, tick: Option<Tick>, outgoing: Outgoing) {
        if let Some((thread, _)) = self.threads.get(&outgoing.receiver) {
            // A thread ends early only when the job has failed.
            let _ = thread.send(Message::Tell(tick, Box::new(outgoing.alert.clone())));
            self.waiting.push(outgoing);
        }
    }

    /// Lets receivers know of an alert that goes on since before the start.
    pub fn goes_on(&self, alert: &Alert) {
        for (thread, _) in alert.to.iter().filter_map(|receiver| self.threads.get(receiver)) {
            let _ = thread.send(Message::GoesOn(Box::new(alert.clone())));
        }
    }

    /// What receivers have not taken yet.
    pub fn waiting(&mut self) -> &[Outgoing] {
        while let Ok((receiver, id)) = self.taken.try_recv() {
            self.waiting.retain(|outgoing| outgoing.receiver != receiver || outgoing.alert.id() != id);
        }
        &self.waiting
    }

    /// Waits until the receivers have taken everything, but no longer than `patience`.
    pub fn flush(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        let (done, flushed) = channel();
        for (thread, _) in self.threads.values() {
            let _ = thread.send(Message::Flush(done.clone()));
        }
        drop(done);
        for _ in 0..self.threads.len() {
            if flushed.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                break;
            }
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        // Without their senders the threads end.
        let threads: Vec<_> = std::mem::take(&mut self.threads).into_values().map(|(_, thread)| thread).collect();
        for thread in threads.into_iter().flatten() {
            let _ = thread.join();
        }
        let left = self.waiting().len();
        if left > 0 {
            tracing::warn!(alerts = left, "alerts are not delivered; with a state directory the next start tells them");
        }
    }
}

/// How a receiver took an alert.
enum Answer {
    Taken,
    /// Not now: why.
    Later(String),
    /// Never: why.
    Refused(String),
}

/// One receiver's thread.
struct Teller {
    name: String,
    way: Way,
    counts: Arc<Counts>,
    done: Sender<(String, String)>,
    queue: VecDeque<(Option<Tick>, Box<Alert>)>,
    flushers: Vec<Sender<()>>,
    pause: Duration,
    /// Nothing is tried before.
    rests_until: Option<Instant>,
    /// Alertmanager: what goes on, by fingerprint, and when it is told again.
    active: BTreeMap<String, Box<Alert>>,
    resend_at: Instant,
}

impl Teller {
    fn new(name: String, way: Way, counts: Arc<Counts>, done: Sender<(String, String)>) -> Teller {
        Teller {
            name,
            way,
            counts,
            done,
            queue: VecDeque::new(),
            flushers: Vec::new(),
            pause: PAUSE_MIN,
            rests_until: None,
            active: BTreeMap::new(),
            resend_at: Instant::now(),
        }
    }

    fn run(mut self, inbox: &Inbox<Message>, durable: &dyn Fn(Tick) -> bool) {
        loop {
            let now = Instant::now();
            let wake = [(!self.queue.is_empty()).then(|| self.rests_until.unwrap_or(now)), self.resends()];
            let wait = wake
                .into_iter()
                .flatten()
                .min()
                .map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(now));
            let message = match inbox.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            message.into_iter().chain(inbox.try_iter()).for_each(|message| self.take(message));
            if !self.work(durable) {
                return;
            }
            if self.queue.is_empty() {
                for flusher in self.flushers.drain(..) {
                    // Whoever has waited long enough is gone.
                    let _ = flusher.send(());
                }
            }
        }
    }

    fn resends(&self) -> Option<Instant> {
        (matches!(self.way, Way::Alertmanager(..)) && !self.active.is_empty()).then_some(self.resend_at)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Tell(tick, alert) => {
                self.queue.push_back((tick, alert));
                if self.queue.len() > QUEUE_MAX
                    && let Some((_, oldest)) = self.queue.pop_front()
                {
                    self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        receiver = self.name,
                        alert = oldest.name,
                        "too many alerts wait; the oldest is dropped"
                    );
                    self.finished(&oldest);
                }
            }
            Message::GoesOn(alert) => {
                self.active.insert(alert.fingerprint.clone(), alert);
            }
            Message::Flush(flusher) => self.flushers.push(flusher),
        }
    }

    fn finished(&self, alert: &Alert) {
        // Nobody waits for the answer when the job is over.
        let _ = self.done.send((self.name.clone(), alert.id()));
    }

    /// Tells what waits and what is to be told again, as far as the receiver goes along. False when the job has failed.
    fn work(&mut self, durable: &dyn Fn(Tick) -> bool) -> bool {
        let rests = |until: Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        while !rests(self.rests_until)
            && let Some((tick, alert)) = self.queue.pop_front()
        {
            if tick.is_some_and(|tick| !durable(tick)) {
                return false;
            }
            failpoint("alerts.deliver");
            match self.deliver(&alert) {
                Answer::Taken => {
                    failpoint("alerts.delivered");
                    self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                    self.calm();
                    self.note(alert);
                }
                Answer::Refused(what) => {
                    self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(receiver = self.name, alert = alert.name, what, "an alert is refused and dropped");
                    self.calm();
                    self.finished(&alert);
                }
                Answer::Later(what) => {
                    self.rest(&what);
                    self.queue.push_front((tick, alert));
                }
            }
        }
        if self.resends().is_some_and(|at| at <= Instant::now()) && !rests(self.rests_until) {
            self.resend();
        }
        true
    }

    fn note(&mut self, alert: Box<Alert>) {
        self.finished(&alert);
        match alert.state {
            State::Firing => self.active.insert(alert.fingerprint.clone(), alert),
            State::Resolved => self.active.remove(&alert.fingerprint),
        };
    }

    fn calm(&mut self) {
        (self.pause, self.rests_until) = (PAUSE_MIN, None);
    }

    fn rest(&mut self, what: &str) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        if self.pause == PAUSE_MIN {
            tracing::warn!(receiver = self.name, what, "alerts cannot be delivered; they are tried again");
        }
        self.rests_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn resend(&mut self) {
        let Way::Alertmanager(target, every) = self.way.clone() else { return };
        let alerts: Vec<&Alert> = self.active.values().map(AsRef::as_ref).collect();
        let body = payload::alertmanager(alerts, wall_clock(), lasting(every));
        match self.post(&target, &body, None) {
            Answer::Taken => self.calm(),
            Answer::Refused(what) => tracing::warn!(receiver = self.name, what, "alerts that go on are refused"),
            Answer::Later(what) => self.rest(&what),
        }
        self.resend_at = Instant::now() + every;
    }

    fn deliver(&mut self, alert: &Alert) -> Answer {
        match self.way.clone() {
            Way::Log => {
                log(alert);
                Answer::Taken
            }
            Way::Webhook(target, format) => {
                let body = match format {
                    WebhookFormat::Json => payload::json(alert),
                    WebhookFormat::Slack => payload::slack(alert),
                };
                self.post(&target, &body, Some(alert))
            }
            Way::Alertmanager(target, every) => {
                let body = payload::alertmanager([alert], wall_clock(), lasting(every));
                self.resend_at = self.resend_at.max(Instant::now() + every / 2);
                self.post(&target, &body, Some(alert))
            }
        }
    }

    fn post(&self, target: &Target, body: &Value, alert: Option<&Alert>) -> Answer {
        let mut request = target.client.post(&target.url).headers(target.headers.clone());
        request = request.header("Content-Type", "application/json").body(body.to_string());
        if let Some(alert) = alert {
            request = request.header("Idempotency-Key", alert.id());
        }
        match request.send() {
            Ok(answer) if answer.status().is_success() => Answer::Taken,
            Ok(answer) => {
                let status = answer.status();
                let said = answer.text().unwrap_or_default();
                let said: String = said.chars().take(200).collect();
                let what = format!("{} answers {status}: {}", target.shown, said.trim());
                if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
                    Answer::Later(what)
                } else {
                    Answer::Refused(what)
                }
            }
            // An address may hold a secret, and the error would show it.
            Err(error) => Answer::Later(format!("{} is out of reach: {}", target.shown, said(&error))),
        }
    }
}

fn lasting(every: Duration) -> i64 {
    i64::try_from(every.as_micros()).unwrap_or(i64::MAX).saturating_mul(LASTING)
}

fn log(alert: &Alert) {
    let (state, id) = (alert.state.as_str(), alert.id());
    let Alert { name, severity, message, model, segment, repeat, .. } = alert;
    if alert.state == State::Resolved || severity == "info" {
        tracing::info!(alert = name, state, severity, model, segment, repeat, id, "{message}");
    } else {
        tracing::warn!(alert = name, state, severity, model, segment, repeat, id, "{message}");
    }
}

#[cfg(test)]
mod tests;
