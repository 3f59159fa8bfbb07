//! `GET /metrics`, `/health` and `/ready`, on a thread of its own; and that thread, for others that serve a router.
//!
//! It listens on loopback alone, unless it is given a token that every request for metrics must carry, or is told that
//! anybody may read them. Health and readiness need no token: they say nothing but that.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::metric::Registry;
use super::text::Format;

/// How a process is.
pub trait Health: Send + Sync {
    /// Whether it does what it is there for, or will soon; else why not. A supervisor restarts one that does not.
    ///
    /// # Errors
    /// A sentence.
    fn live(&self) -> Result<(), String>;

    /// Whether it does so now; else why not.
    ///
    /// # Errors
    /// A sentence.
    fn ready(&self) -> Result<(), String>;
}

/// What a request must carry. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, unless the text is empty.
    pub fn new(text: impl Into<String>) -> Option<Token> {
        Some(text.into()).filter(|text| !text.is_empty()).map(Token)
    }

    /// Whether a request carries it. Compares all of it, so that the time taken says nothing of where it differs.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        let given = given.strip_prefix(b"Bearer ").or_else(|| given.strip_prefix(b"bearer ")).unwrap_or_default();
        let differing = given.iter().zip(self.0.as_bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
        given.len() == self.0.len() && differing == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where to listen, and who may read.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// What `Authorization: Bearer …` must hold.
    pub token: Option<Token>,
    /// Listen elsewhere than on loopback, though there is no token.
    pub open: bool,
}

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address may be reached by others.
    #[error(
        "metrics on {0} could be read by anybody who reaches it; listen on 127.0.0.1, set TIDEMILL_METRICS_TOKEN, or say --metrics-open"
    )]
    Open(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for metrics: {error}; give --metrics another address, or free this one")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The thread cannot be started.
    #[error("the thread that serves metrics cannot be started: {0}")]
    Thread(io::Error),
}

/// A running server; ends when it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    _thread: ServerThread,
}

/// A thread that serves a router; ends when it is dropped.
#[derive(Debug)]
pub struct ServerThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Told {
    registry: Arc<Registry>,
    health: Arc<dyn Health>,
    token: Option<Token>,
}

impl MetricsServer {
    /// Listens, and answers from now on.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start(
        options: ServerOptions,
        registry: Arc<Registry>,
        health: Arc<dyn Health>,
    ) -> Result<MetricsServer, ServerError> {
        let ServerOptions { address, token, open } = options;
        if !address.ip().is_loopback() && token.is_none() && !open {
            return Err(ServerError::Open(address));
        }
        let refused = |error| ServerError::Bind { address, error };
        let listener = std::net::TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let router = routes(registry, health, token).route("/", get(root));
        let listener = move || TcpListener::from_std(listener);
        let thread = ServerThread::start("metrics", listener, router, std::future::pending());
        Ok(MetricsServer { address, _thread: thread.map_err(ServerError::Thread)? })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl ServerThread {
    /// Serves `router` to whoever connects, on a thread called `name`, where `beside` runs too; `listener` is called there, inside
    /// the runtime.
    ///
    /// # Errors
    /// When the system refuses a thread or what its runtime needs.
    pub fn start<L: Listener>(
        name: &str,
        listener: impl FnOnce() -> io::Result<L> + Send + 'static,
        router: Router,
        beside: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<ServerThread>
    where
        L::Addr: fmt::Debug,
    {
        // A request that needs the disk waits on one of the few threads for that.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.spawn(beside);
            runtime.spawn(async move {
                let listener = match listener() {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "nothing can be served"),
                };
                // It returns on no error: a connection that fails is that client's affair.
                let _ = axum::serve(listener, router).await;
            });
            // Nothing is ever sent: the other end is dropped.
            let _ = runtime.block_on(stopped);
            // Open connections are not waited for, nor is a request that hangs on a disk.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(serve)?;
        Ok(ServerThread { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic, a defect, has been reported.
            let _ = thread.join();
        }
    }
}

/// Metrics, health and readiness. With a token, whoever asks for metrics must have it.
pub fn routes(registry: Arc<Registry>, health: Arc<dyn Health>, token: Option<Token>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(self::health))
        .route("/ready", get(ready))
        .with_state(Told { registry, health, token })
}

async fn metrics(State(told): State<Told>, headers: HeaderMap) -> Response {
    if let Some(token) = &told.token
        && !token.is_in(&headers)
    {
        let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, ask, "metrics need `Authorization: Bearer <token>`\n").into_response();
    }
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    let registry = Arc::clone(&told.registry);
    // It asks the system for free disk, which may take its time.
    match tokio::task::spawn_blocking(move || registry.gather().text(format)).await {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be gathered\n").into_response(),
    }
}

async fn health(State(told): State<Told>) -> Response {
    answer(told.health.live())
}

async fn ready(State(told): State<Told>) -> Response {
    answer(told.health.ready())
}

async fn root() -> &'static str {
    "tidemill: /metrics, /health, /ready\n"
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
