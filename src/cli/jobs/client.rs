//! The command line's side of the jobs API.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use url::Url;

use crate::base::{Fault, Faults, Severity};
use crate::cli::failure::usage;
use crate::control::model::{FileFault, FileProblem};
use crate::control::wire;
use crate::net::trust;

/// How long a connection is waited for.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer is waited for: a file with many models takes a while to be checked.
const ANSWER: Duration = Duration::from_secs(120);

/// Where the server is, and who asks.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// The server's address.
    #[arg(long, value_name = "URL", env = "TIDEMILL_SERVER", default_value = "http://127.0.0.1:7070")]
    server: String,
    /// The token to show to the server, where it asks for one.
    #[arg(long, value_name = "TOKEN", env = "TIDEMILL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Authorities to trust for an https server (PEM). Default: those of the system.
    #[arg(long, value_name = "FILE", env = "TIDEMILL_SERVER_CA")]
    server_ca: Option<PathBuf>,
}

/// A server to be asked.
pub struct Client {
    url: Url,
    token: Option<String>,
    tls: Option<Arc<ClientConfig>>,
    runtime: tokio::runtime::Runtime,
}

impl ServerArgs {
    /// A client for the server.
    pub fn client(&self) -> anyhow::Result<Client> {
        let url = Url::parse(&self.server)
            .map_err(|error| usage(format!("--server {}: {error}; write http://127.0.0.1:7070", self.server)))?;
        let tls = match url.scheme() {
            "http" => None,
            "https" => Some(self.tls()?),
            other => return Err(usage(format!("--server {}: `{other}` is neither http nor https", self.server))),
        };
        if url.host().is_none() {
            return Err(usage(format!("--server {}: it names no host", self.server)));
        }
        let token = self.token.clone().filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| token.bytes().any(|b| !(0x21..0x7f).contains(&b))) {
            return Err(usage("the token has characters that no token has"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Client { url, token, tls, runtime })
    }

    fn tls(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let trusted = trust(self.server_ca.as_deref());
        trusted.map(Arc::new).map_err(|error| usage(format!("--server-ca: {error}")))
    }
}

impl Client {
    /// `GET path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask("GET", path, None::<&()>, "")
    }

    /// `method path` with a body; faults are told of `file`.
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
        file: &str,
    ) -> anyhow::Result<T> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let (status, answer) = self.exchange(method, path, &body)?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&answer)
                .with_context(|| format!("{} answered what is not understood; is it a tidemill server?", self.url));
        }
        Err(refused(status, &answer, file))
    }

    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or(7070);
        let authority = format!("{host}:{port}");
        let base = self.url.path().trim_end_matches('/');
        let mut head = format!(
            "{method} {base}{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\naccept: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        if !body.is_empty() {
            head.push_str("content-type: application/json\r\n");
        }
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        head.push_str("\r\n");
        let request = [head.as_bytes(), body].concat();
        let unreached = |error: &dyn std::fmt::Display| {
            anyhow!(
                "the server {} cannot be reached: {error}; is `tidemill serve` running there? --server or TIDEMILL_SERVER names another",
                self.url
            )
        };
        let answer = self.runtime.block_on(async {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let stream = tokio::time::timeout(CONNECT, TcpStream::connect((bare, port)))
                .await
                .map_err(|_| unreached(&"no answer within 10 s"))?
                .map_err(|error| unreached(&error))?;
            let exchanged = async {
                match &self.tls {
                    None => talk(stream, &request).await,
                    Some(config) => {
                        let name = ServerName::try_from(bare.to_owned()).map_err(std::io::Error::other)?;
                        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
                        talk(stream, &request).await
                    }
                }
            };
            tokio::time::timeout(ANSWER, exchanged)
                .await
                .map_err(|_| anyhow!("the server {} did not answer within {} s", self.url, ANSWER.as_secs()))?
                .map_err(|error| unreached(&error))
        })?;
        match wire::parse(&answer) {
            Some(parsed) => Ok(parsed),
            None => bail!("the server {} closed the connection in the middle of its answer", self.url),
        }
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        // A server that ends TLS without a word has said all that it says in length.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        other => {
            other?;
        }
    }
    Ok(answer)
}

/// What the server said went wrong.
fn refused(status: u16, answer: &[u8], file: &str) -> anyhow::Error {
    let Ok(problem) = serde_json::from_slice::<FileProblem>(answer) else {
        return anyhow!("the server answered {status}: {}", String::from_utf8_lossy(answer).trim());
    };
    if !problem.faults.is_empty() {
        return Faults { file: file.to_owned(), list: problem.faults.into_iter().map(fault).collect() }.into();
    }
    match status {
        422 => usage(problem.problem.detail),
        _ => anyhow!("{}", problem.problem.detail),
    }
}

/// A finding as the program knows them.
pub fn fault(told: FileFault) -> Fault {
    Fault {
        severity: if told.severity == "warning" { Severity::Warning } else { Severity::Error },
        line: told.line as usize,
        column: told.column as usize,
        path: told.path,
        what: told.what,
        mend: told.mend,
    }
}

/// A text as part of a path.
pub fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(server: &str) -> ServerArgs {
        ServerArgs { server: server.to_owned(), token: None, server_ca: None }
    }

    #[test]
    fn a_server_that_is_not_there_is_said_to_be_so() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let client = args(&format!("http://{address}")).client().expect("a client");
        let error = client.get::<serde_json::Value>("/api/v1/jobs").expect_err("nobody is there").to_string();
        assert!(error.contains("cannot be reached") && error.contains("TIDEMILL_SERVER"), "{error}");
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[test]
    fn an_address_is_http_or_https() {
        for bad in ["127.0.0.1:7070", "ftp://x", "http://", "x"] {
            assert!(args(bad).client().is_err(), "{bad}");
        }
        let token = ServerArgs { token: Some("a\r\nb".to_owned()), ..args("http://h") };
        assert!(token.client().is_err());
        assert_eq!(segment("a b/ü"), "a%20b%2F%C3%BC");
    }
}
