//! The HTTP client.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use tokio_rustls::rustls::RootCertStore;

use super::trust::{trust, trusting};

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// How long one request may take, the connection included.
    pub timeout: Duration,
    /// Redirects that are followed.
    pub redirects: usize,
    /// Whether the address begins with `https`.
    pub secure: bool,
    /// The authorities that are trusted instead of the system's, in PEM.
    pub ca: Option<PathBuf>,
}

/// A client; nothing is asked yet.
///
/// # Errors
/// When it is not known whom to trust, in words.
pub fn http_client(options: &HttpOptions) -> Result<Client, String> {
    let trusted = match (options.secure, &options.ca) {
        (false, None) => trust(None).unwrap_or_else(|_| trusting(RootCertStore::empty())),
        (_, ca) => trust(ca.as_deref()).map_err(|error| error.to_string())?,
    };
    let redirects = match options.redirects {
        0 => Policy::none(),
        count => Policy::limited(count),
    };
    let client = Client::builder().timeout(options.timeout).connect_timeout(options.timeout);
    let client = client.redirect(redirects).tls_backend_preconfigured(trusted);
    client.build().map_err(|error| error.to_string())
}
