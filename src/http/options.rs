//! Where a server listens, whom it lets in, and what it bears.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::audit::AuditLog;
use super::rate::Rate;
use super::tls::TlsFiles;

/// What a server is started with.
#[derive(Debug)]
pub struct ServerOptions {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listen elsewhere than on loopback, though there are no tokens.
    pub open: bool,
    /// Who may do what. Without it everybody may do everything.
    pub tokens: Option<PathBuf>,
    /// Certificates; without them it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// What it bears.
    pub limits: Limits,
    /// How many requests may come from one address without a token.
    pub anonymous: Option<Rate>,
    /// Where changes are written down.
    pub audit: Option<Arc<AuditLog>>,
}

/// What a server bears of its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; fewer if the system allows the process fewer open files.
    pub connections: usize,
    /// Length of a request's body, in bytes.
    pub body_bytes: u64,
    /// Length of a request's head, in bytes; at least 8192.
    pub head_bytes: u32,
    /// From the first byte of a request's head to its last; also for the TLS handshake.
    pub head: Duration,
    /// For how long a connection may be open without a request.
    pub idle: Duration,
    /// From the end of a request's head to the beginning of its answer.
    pub request: Duration,
    /// For how long a client may send nothing of a body, or read nothing of an answer. A body or answer of some length has a
    /// second more for each 8 kB.
    pub stall: Duration,
    /// When the server stops: for how long it says that it is not ready before it takes no more connections.
    pub drain_delay: Duration,
    /// When the server stops: for how long requests may go on.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 20_000,
            body_bytes: 32 << 20,
            head_bytes: 64 << 10,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            request: Duration::from_secs(60),
            stall: Duration::from_secs(20),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}
