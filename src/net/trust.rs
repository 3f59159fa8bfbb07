//! Whom clients trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Why it is not known whom to trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// A file of authorities cannot be used.
    #[error("{}: {what}; name a file with the authority's certificate in PEM", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The system has no authorities.
    #[error(
        "this system says nowhere whom to trust{0}; install its certificates (package ca-certificates), name them by SSL_CERT_FILE, or name the authority of the server itself"
    )]
    System(String),
}

/// What a client's side of TLS goes by: the authorities in `ca`, or else those of the system (or of `SSL_CERT_FILE` and
/// `SSL_CERT_DIR`, where these are set).
///
/// # Errors
/// When there are none, or the file cannot be used.
pub fn trust(ca: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let roots = match ca {
        Some(path) => named(path)?,
        None => system()?,
    };
    Ok(trusting(roots))
}

/// Makes this program's cryptography that of all libraries in it which ask for TLS without naming one; once is enough.
pub fn provide() {
    // Whoever came first has named the same.
    let _ = ring::default_provider().install_default();
}

pub(super) fn trusting(roots: RootCertStore) -> ClientConfig {
    provide();
    // The process's own, which has been named now.
    let provider = CryptoProvider::get_default().map_or_else(|| Arc::new(ring::default_provider()), Arc::clone);
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // Ring speaks both versions that are safe.
    let builder = builder.unwrap_or_else(|_| ClientConfig::builder());
    builder.with_root_certificates(roots).with_no_client_auth()
}

fn named(path: &Path) -> Result<RootCertStore, TrustError> {
    let wrong = |what: String| TrustError::File { path: path.to_owned(), what };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(wrong("there is no certificate in it".to_owned())),
        false => Ok(roots),
    }
}

fn system() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's list may hold some that are not understood here.
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.first()) {
        (false, _) => Ok(roots),
        (true, Some(error)) => Err(TrustError::System(format!(" ({error})"))),
        (true, None) => Err(TrustError::System(String::new())),
    }
}
