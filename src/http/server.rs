//! The server: listens, speaks HTTP/1.1 and HTTP/2 on one port, with TLS or without, and stops in peace.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::extract::DefaultBodyLimit;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::connection::{Connection, Verdict, Watched};
use super::figures::{Figures, Refusal};
use super::gate::Gate;
use super::options::{Limits, ServerOptions};
use super::own;
use super::rate::Addresses;
use super::service::Shared;
use super::tls::Tls;
use super::tokens::{Stamp, Tokens, stamp};
use super::{Api, HttpError, Problem, certificate};
use crate::telemetry::{Health, Registry};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Open files that are left to the rest of the process.
const FILES_LEFT: usize = 256;
/// Requests that one HTTP/2 connection may have at a time.
const STREAMS_MAX: u32 = 128;
/// How often files are looked at, to be read again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is sent to a connection too many, before anything is read of it.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How far a server has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serves,
    /// It serves, and says that it is not ready.
    Leaves,
    /// It takes no more connections, and ends those that it has when they are answered.
    Drains,
    /// It ends all at once.
    Ends,
}

/// A running server.
pub struct HttpServer {
    address: SocketAddr,
    secure: bool,
    connections_max: usize,
    limits: Limits,
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<()>,
    looking: JoinHandle<()>,
    slots: Arc<Semaphore>,
    figures: Arc<Figures>,
    works: Arc<AtomicUsize>,
}

/// What accepted connections need.
struct Accepting {
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    builder: Builder<TokioExecutor>,
    phase: watch::Receiver<Phase>,
}

impl HttpServer {
    /// Listens, and answers from now on, on the runtime that it is called in. Adds `/health`, `/ready`, `/metrics` and
    /// `/openapi.json` to the API, and its own metrics to the registry.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn start(
        options: ServerOptions,
        api: Api,
        registry: Arc<Registry>,
        health: Arc<dyn Health>,
    ) -> Result<HttpServer, HttpError> {
        let ServerOptions { listen, open, tokens, tls, mut limits, anonymous, audit } = options;
        let loopback = listen.ip().to_canonical().is_loopback();
        if !loopback && tokens.is_none() && !open {
            return Err(HttpError::Open(listen));
        }
        let known = tokens.as_deref().map(Tokens::load).transpose()?;
        let asks = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        match &known {
            None if asks => {
                return Err(HttpError::Certificates("--client-ca needs --tokens, which says who may do what"));
            }
            Some(known) if known.has_certificates() && !asks => {
                return Err(HttpError::Certificates("the tokens file has certificates, which need --client-ca"));
            }
            _ => {}
        }
        let tls = tls.map(Tls::load).transpose()?.map(Arc::new);
        let listener = bind(listen).map_err(|error| HttpError::Bind { address: listen, error })?;
        let address = listener.local_addr().map_err(|error| HttpError::Bind { address: listen, error })?;
        limits.connections = limits.connections.min(files_limit().saturating_sub(FILES_LEFT)).max(1);

        let (phase, seen) = watch::channel(Phase::Serves);
        let leaving = phase.subscribe();
        let leaves = Arc::new(move || *leaving.borrow() > Phase::Serves);
        let api = api.and(own::api(Arc::clone(&registry), health, leaves));
        let document = Arc::new(api.openapi("Tidemill", env!("CARGO_PKG_VERSION")));
        let api = api.and(own::document(document));
        let figures = Arc::new(Figures::new(api.ids(), audit.clone()));
        figures.connections_max.store(limits.connections as u64, Relaxed);
        figures.certificate_ends.store(tls.as_ref().and_then(|tls| tls.ends()).unwrap_or(0), Relaxed);
        registry.register(Arc::clone(&figures) as _);
        let router = api
            .into_router()
            .fallback(|| async { Problem::not_found("there is no such page; /openapi.json has all of them") })
            .method_not_allowed_fallback(|| async {
                Problem::new(
                    axum::http::StatusCode::METHOD_NOT_ALLOWED,
                    "this page has other methods; see /openapi.json",
                )
            })
            // Bodies are bounded before they get here.
            .layer(DefaultBodyLimit::disable());
        let files = known.as_ref().map(|known| known.files().to_vec()).unwrap_or_default();
        let gate = Gate {
            tokens: known.map(|known| std::sync::RwLock::new(Arc::new(known))),
            addresses: anonymous.map(Addresses::new),
            loopback: loopback && !open,
            began: Instant::now(),
        };
        let works = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(Shared {
            router,
            gate,
            limits: limits.clone(),
            figures: Arc::clone(&figures),
            audit,
            works: Arc::clone(&works),
        });
        let slots = Arc::new(Semaphore::new(limits.connections));
        let looking = tokio::spawn(look(Arc::clone(&shared), tokens, files, tls.clone()));
        let accepting = Accepting { shared, tls: tls.clone(), builder: builder(&limits), phase: seen };
        let accepting = tokio::spawn(Arc::new(accepting).accept(listener, Arc::clone(&slots)));
        let connections_max = limits.connections;
        let secure = tls.is_some();
        Ok(HttpServer { address, secure, connections_max, limits, phase, accepting, looking, slots, figures, works })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as clients write it.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }

    /// How many connections may be open at a time: what was asked for, or what the system's limit of open files leaves.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Stops: says for `drain_delay` that it is not ready, then takes no more connections and lets what has begun finish
    /// within `drain`. Returns how many connections were cut off then.
    pub async fn stop(self) -> usize {
        self.figures.draining.store(1, Relaxed);
        self.phase.send_replace(Phase::Leaves);
        tokio::time::sleep(self.limits.drain_delay).await;
        self.phase.send_replace(Phase::Drains);
        self.looking.abort();
        // It ends by itself; its listener is closed then.
        let _ = self.accepting.await;
        let all = u32::try_from(self.connections_max).unwrap_or(u32::MAX);
        let finished = async {
            let _ = self.slots.acquire_many(all).await;
            while self.works.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(self.limits.drain, finished).await {
            Ok(()) => 0,
            Err(_) => {
                let left = self.connections_max.saturating_sub(self.slots.available_permits());
                self.phase.send_replace(Phase::Ends);
                left
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of a process that was here before may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How many files the process may have open, after asking the system for as many as it gives.
fn files_limit() -> usize {
    let mut limit = std::mem::MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the system fills the structure that we own, and says whether it did.
    let mut limit = match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) } {
        0 => unsafe { limit.assume_init() },
        _ => return 1024,
    };
    let soft = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: it reads the structure that we own.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
    usize::try_from(if raised { limit.rlim_max } else { soft }).unwrap_or(usize::MAX)
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Its own limit of time would hold for idle connections too; `connection` has both.
    builder.http1().header_read_timeout(None).max_buf_size(limits.head_bytes.max(8192) as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(limits.head_bytes)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.stall);
    builder
}

/// Looks at files now and then, and reads again what has changed.
async fn look(shared: Arc<Shared>, tokens: Option<PathBuf>, files: Vec<PathBuf>, tls: Option<Arc<Tls>>) {
    let stamps = |paths: &[PathBuf]| paths.iter().map(|path| stamp(path)).collect::<Vec<Stamp>>();
    let mut token_files = files;
    let tls_files = tls.as_ref().map(|tls| tls.paths()).unwrap_or_default();
    let (mut of_tokens, mut of_tls) = (stamps(&token_files), stamps(&tls_files));
    let figures = &shared.figures;
    let told = |result: Result<(), HttpError>| match result {
        Ok(()) => {
            figures.reloads_good.fetch_add(1, Relaxed);
        }
        Err(error) => {
            figures.reloads_bad.fetch_add(1, Relaxed);
            tracing::error!("{error}; what was read before holds on");
        }
    };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = stamps(&token_files);
        if now != of_tokens
            && let Some(path) = &tokens
        {
            of_tokens = now;
            told(Tokens::load(path).map(|tokens| {
                token_files = tokens.files().to_vec();
                of_tokens = stamps(&token_files);
                shared.gate.replace(tokens);
                tracing::info!("tokens were read again");
            }));
        }
        let now = stamps(&tls_files);
        if now != of_tls
            && let Some(tls) = &tls
        {
            of_tls = now;
            let reloaded = tls.reload();
            if reloaded.is_ok() {
                figures.certificate_ends.store(tls.ends().unwrap_or(0), Relaxed);
                tracing::info!("certificates were read again");
            }
            told(reloaded);
        }
    }
}

impl Accepting {
    async fn accept(self: Arc<Self>, listener: TcpListener, slots: Arc<Semaphore>) {
        let mut phase = self.phase.clone();
        loop {
            let accepted = tokio::select! {
                _ = reached(&mut phase, Phase::Drains) => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // The client has gone, or there are no files left to open; in neither case is it over.
                Err(error) => {
                    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                        tracing::warn!(%error, "connections cannot be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    continue;
                }
            };
            self.shared.figures.accepted.fetch_add(1, Relaxed);
            match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => drop(tokio::spawn(Arc::clone(&self).connected(stream, peer, slot))),
                Err(_) => {
                    self.shared.figures.refused(Refusal::Connections);
                    if self.tls.is_none() {
                        let _ = stream.try_write(TOO_MANY);
                    }
                }
            }
        }
    }

    async fn connected(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let figures = &self.shared.figures;
        figures.connections.fetch_add(1, Relaxed);
        // Answers are written whole; waiting for more to send would only make them late.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.serve(stream, Connection::new(peer, Vec::new())).await,
            Some(tls) => {
                let handshake = TlsAcceptor::from(tls.config()).accept(stream);
                match tokio::time::timeout(self.shared.limits.head, handshake).await {
                    Ok(Ok(stream)) => {
                        let shown = stream.get_ref().1.peer_certificates().and_then(|list| list.first());
                        let names = shown.map(|shown| certificate::facts(shown).names).unwrap_or_default();
                        self.serve(stream, Connection::new(peer, names)).await;
                    }
                    Ok(Err(error)) => {
                        figures.refused(Refusal::Handshake);
                        tracing::debug!(%peer, %error, "TLS handshake");
                    }
                    Err(_) => figures.refused(Refusal::SlowHead),
                }
            }
        }
        figures.connections.fetch_sub(1, Relaxed);
        drop(slot);
    }

    async fn serve<S>(&self, stream: S, connection: Connection)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::new(connection);
        let limits = &self.shared.limits;
        let service = service_fn(|request| {
            let (shared, from) = (Arc::clone(&self.shared), Arc::clone(&connection));
            async move { Ok::<_, std::convert::Infallible>(shared.answer(from, request).await) }
        });
        let watched = Watched::new(stream, Arc::clone(&connection));
        let mut served = pin!(self.builder.serve_connection(TokioIo::new(watched), service));
        let mut phase = self.phase.clone();
        let mut timer = pin!(tokio::time::sleep(limits.head));
        let mut closing = false;
        loop {
            tokio::select! {
                ended = served.as_mut() => {
                    if let Err(error) = ended
                        && !closing
                        && is_malformed(error.as_ref())
                    {
                        self.shared.figures.refused(Refusal::Malformed);
                        tracing::debug!(peer = %connection.peer, error, "malformed request");
                    }
                    return;
                }
                () = timer.as_mut() => {
                    let next = match connection.verdict(limits) {
                        Verdict::Wait(next) => next,
                        // It was asked to close and had its time.
                        Verdict::Close if closing => return,
                        Verdict::Close => {
                            closing = true;
                            served.as_mut().graceful_shutdown();
                            limits.head
                        }
                        Verdict::Cut(why) => {
                            self.shared.figures.refused(why);
                            return;
                        }
                    };
                    timer.as_mut().reset(tokio::time::Instant::now() + next);
                }
                reached = reached(&mut phase, if closing { Phase::Ends } else { Phase::Drains }) => {
                    if reached >= Phase::Ends {
                        return;
                    }
                    closing = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Waits for a phase; the one that is then there, the last one if nobody is left to say.
async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) -> Phase {
    phase.wait_for(|phase| *phase >= wanted).await.map_or(Phase::Ends, |phase| *phase)
}

/// Whether a connection ended by what the client sent, and not because it went away.
fn is_malformed(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(|error| error.is_parse() || error.is_parse_too_large())
}
