//! Errors of connections in words.

use std::error::Error;
use std::sync::Arc;

use tokio_rustls::rustls::{CertificateError, Error as TlsError};

/// What an error comes down to: of TLS what it means, else the innermost cause, for libraries' own words only say that a
/// request was sent. Never an address, which may hold a secret.
pub fn said(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    loop {
        if let Some(tls) = tls(innermost) {
            return told(tls);
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => return innermost.to_string(),
        }
    }
}

fn tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    // What an input or output error was made of is not among its sources; libraries wrap one in another, or share them.
    let inside = || match error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(shared) => tls(&**shared),
        None => tls(error.downcast_ref::<std::io::Error>()?.get_ref()?),
    };
    error.downcast_ref::<TlsError>().or_else(inside)
}

fn told(error: &TlsError) -> String {
    use CertificateError as Certificate;
    match error {
        TlsError::InvalidCertificate(why) => match why {
            Certificate::Expired | Certificate::ExpiredContext { .. } => "its certificate has expired".to_owned(),
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is the clock of this machine right?".to_owned()
            }
            Certificate::UnknownIssuer => {
                "nobody who is trusted here vouches for its certificate; name its authority by `ca: FILE.pem`"
                    .to_owned()
            }
            Certificate::BadSignature => {
                "the authority that is trusted under the name of its authority has another key; is the file that `ca` names an older one?"
                    .to_owned()
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                format!("its certificate is for another name ({why})")
            }
            Certificate::Revoked => "its certificate was revoked".to_owned(),
            Certificate::Other(_) if why.to_string().contains("CaUsedAsEndEntity") => {
                "its certificate is that of an authority; give the server one of its own that the authority has signed"
                    .to_owned()
            }
            other => format!("its certificate is not accepted: {other}"),
        },
        TlsError::InvalidMessage(_) => "it does not speak TLS at this port; is it `http://`?".to_owned(),
        TlsError::AlertReceived(alert) => format!("it ends the TLS handshake with the alert {alert:?}"),
        other => format!("TLS with it fails: {other}"),
    }
}
