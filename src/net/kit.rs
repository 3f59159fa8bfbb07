//! For tests: certificates that the openssl program makes, and a server that speaks TLS before one that does not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A folder with an authority, `ca.pem`, and certificates that it has signed.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    /// Makes the authority; nothing after saying what is skipped where there is no openssl.
    pub fn new(what: &str) -> Option<Certificates> {
        if !Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()) {
            println!("skipped: {what}: there is no openssl (tests/all installs one)");
            return None;
        }
        let made = Certificates(tempfile::tempdir().expect("a folder"));
        // Authorities of one name would be taken for each other.
        let name = made.0.path().file_name().map(|name| name.to_string_lossy().replace('.', "")).unwrap_or_default();
        made.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=authority-{name} -keyout ca.key -out ca.pem"
        ));
        Some(made)
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output = command.current_dir(self.0.path()).args(arguments.split_whitespace()).output().expect("it starts");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A certificate and its key for the names `alternative`, such as `IP:127.0.0.1`: good for 30 days, or from one time to
    /// another.
    pub fn sign(&self, name: &str, alternative: &str, dates: Option<(&str, &str)>) -> (PathBuf, PathBuf) {
        let write = |name: &str, text: &str| std::fs::write(self.path(name), text).expect("a file");
        self.openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        write("names", &format!("basicConstraints=CA:FALSE\nsubjectAltName={alternative}\n"));
        match dates {
            None => self.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out {name}.pem"
            )),
            Some((from, to)) => {
                write("index.txt", "");
                write("serial", "1000\n");
                let place = "database=index.txt\nnew_certs_dir=.\nserial=serial\ndefault_md=sha256\npolicy=p";
                write("ca.cnf", &format!("[ca]\ndefault_ca=d\n[d]\n{place}\n[p]\ncommonName=supplied\n"));
                self.openssl(&format!(
                    "ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -startdate {from} -enddate {to} -extfile names -notext -in {name}.csr -out {name}.pem"
                ));
            }
        }
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    /// A certificate for this machine, good for some days.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        self.sign("server", "IP:127.0.0.1,DNS:localhost", None)
    }
}

/// Speaks TLS with a certificate and its key at a port of its own, and hands what it hears on to `to`; for as long as the
/// program runs. Returns the port.
pub fn terminate((certificate, key): &(PathBuf, PathBuf), to: SocketAddr) -> u16 {
    let read = |path: &Path| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path).expect("a file").collect::<Result<_, _>>().expect("certificates")
    };
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(read(certificate), key)
        .expect("a certificate with its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("a socket");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Clients that trust nobody go away here.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Ok(mut plain) = tokio::net::TcpStream::connect(to).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
    });
    port
}
