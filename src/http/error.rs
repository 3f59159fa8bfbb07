//! Why a server cannot be started.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a server cannot be started, or a file of its cannot be read again. The user's to mend.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address may be reached by others, who could do anything.
    #[error(
        "{0} could be reached by others, who could submit jobs and read features; listen on 127.0.0.1, give --tokens, or say --open"
    )]
    Open(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; give --listen another address, or free this one")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A tokens file.
    #[error("tokens file {path}: {what}", path = path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong, without anything secret.
        what: String,
    },
    /// A certificate or key.
    #[error("TLS file {path}: {what}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong, without anything secret.
        what: String,
    },
    /// Client certificates and nobody who could come with one, or the other way round.
    #[error("{0}")]
    Certificates(&'static str),
}
