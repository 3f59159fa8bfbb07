//! TLS: certificates from PEM files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::{HttpError, certificate};

/// The PEM files of a server that speaks TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of those who vouch for clients. A client may then show a certificate in place of a token.
    pub client_ca: Option<PathBuf>,
    /// Whether a client that shows none is refused at the handshake.
    pub client_required: bool,
}

/// What the handshakes of this moment go by.
pub(super) struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub fn load(files: TlsFiles) -> Result<Tls, HttpError> {
        let config = RwLock::new(config(&files)?);
        Ok(Tls { files, config })
    }

    /// Reads the files again; on an error all stays as it was.
    pub fn reload(&self) -> Result<(), HttpError> {
        let config = config(&self.files)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        let TlsFiles { certificate, key, client_ca, .. } = &self.files;
        [certificate, key].into_iter().chain(client_ca).cloned().collect()
    }

    /// When the server's certificate ends, in seconds since 1970.
    pub fn ends(&self) -> Option<i64> {
        certificate::ends(&self.files.certificate)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let wrong = |what: String| HttpError::Tls { path: path.to_owned(), what };
    let list = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let list: Vec<_> = list.collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
    match list.is_empty() {
        true => Err(wrong("it has no `-----BEGIN CERTIFICATE-----`".to_owned())),
        false => Ok(list),
    }
}

fn config(files: &TlsFiles) -> Result<Arc<ServerConfig>, HttpError> {
    let wrong = |path: &Path, what: String| HttpError::Tls { path: path.to_owned(), what };
    let chain = certificates(&files.certificate)?;
    // Its errors say nothing of the key.
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error.to_string()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.certificate, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if files.client_required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(path, error.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong(&files.key, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
