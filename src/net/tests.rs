//! Whom to trust, and what is said of servers that are not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use super::kit::{Certificates, terminate};
use super::*;

fn options(ca: Option<&Path>) -> HttpOptions {
    HttpOptions { timeout: Duration::from_secs(5), redirects: 0, secure: true, ca: ca.map(Path::to_owned) }
}

/// Libraries wrap errors in one another in many ways.
#[test]
fn errors_of_tls_are_found_wherever_they_are() {
    use std::io::Error as Io;
    use std::sync::Arc;

    use tokio_rustls::rustls::{CertificateError, Error as Tls};

    let tls = || Tls::InvalidCertificate(CertificateError::UnknownIssuer);
    let shared: Arc<dyn std::error::Error + Send + Sync> = Arc::new(tls());
    let shared_io: Arc<dyn std::error::Error + Send + Sync> = Arc::new(Io::other(tls()));
    let wrapped: [Box<dyn std::error::Error>; 5] = [
        Box::new(tls()),
        Box::new(Io::other(tls())),
        Box::new(Io::other(Io::other(tls()))),
        Box::new(shared),
        Box::new(shared_io),
    ];
    for (number, error) in wrapped.iter().enumerate() {
        assert!(said(&**error).contains("`ca: FILE.pem`"), "{number}: {}", said(&**error));
    }
    assert_eq!(said(&Io::other("something else")), "something else");
}

#[test]
fn a_file_that_names_nobody_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("ca.pem");
    for (text, what) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "")]
    {
        std::fs::write(&path, text).expect("a file");
        let error = http_client(&options(Some(&path))).expect_err("it is refused");
        assert!(error.contains("ca.pem") && error.contains(what) && error.contains("PEM"), "{error}");
    }
    assert!(http_client(&options(Some(&dir.path().join("none")))).is_err());
}

/// Something that speaks no TLS is told of as such, and not by the address.
#[test]
fn a_server_without_tls_is_told_of() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut bytes = [0; 512];
        let _ = stream.read(&mut bytes);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let client = http_client(&HttpOptions { secure: false, ..options(None) }).expect("a client");
    let error = client.get(format!("https://{address}/secret")).send().expect_err("no TLS");
    let told = said(&error);
    assert!(told.contains("does not speak TLS") && !told.contains("secret"), "{told}");
    served.join().expect("it ends");
    let error = client.get(format!("http://{address}/secret")).send().expect_err("nobody is there");
    let told = said(&error);
    assert!(told.contains("refused") && !told.contains("secret"), "{told}");
}

/// A server that answers everything with 200.
fn plain() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    address
}

#[test]
fn certificates_are_held_against_who_is_trusted() {
    let Some(made) = Certificates::new("certificates of HTTPS servers") else { return };
    let other = Certificates::new("another authority").expect("it was there");
    let asked = |pair: &_, host: &str, ca: &Path| {
        let port = terminate(pair, plain());
        let client = http_client(&options(Some(ca))).expect("a client");
        let answer = client.get(format!("https://{host}:{port}/secret")).send();
        answer.map(|answer| answer.text().expect("a body")).map_err(|error| said(&error))
    };
    let server = made.server();
    assert_eq!(asked(&server, "127.0.0.1", &made.ca()), Ok("ok".to_owned()));
    assert_eq!(asked(&server, "localhost", &made.ca()), Ok("ok".to_owned()));
    let fault = |pair: &_, host: &str, ca: &Path| {
        let told = asked(pair, host, ca).expect_err("it is refused");
        assert!(!told.contains("secret"), "{told}");
        told
    };
    assert!(fault(&server, "127.0.0.1", &other.ca()).contains("name its authority by `ca: FILE.pem`"));
    let elsewhere = made.sign("elsewhere", "DNS:elsewhere.example", None);
    assert!(fault(&elsewhere, "127.0.0.1", &made.ca()).contains("for another name"));
    let old = made.sign("old", "IP:127.0.0.1", Some(("20200101000000Z", "20210101000000Z")));
    assert!(fault(&old, "127.0.0.1", &made.ca()).contains("has expired"));
    // The authority's own certificate is no server's.
    let own = (made.ca(), made.path("ca.key"));
    let told = fault(&own, "127.0.0.1", &made.ca());
    assert!(told.contains("authority") || told.contains("another name"), "{told}");
}
