//! `tidemill serve`: the server of jobs, features and predictions.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::usage;
use super::serve_infer::InferArgs;
use super::serve_online::OnlineArgs;
use crate::base::{parse_bytes, parse_duration};
use crate::control::console::{ConsoleParts, TokenNames};
use crate::control::{self, Manager, Served};
use crate::http::{self, Api, AuditLog, HttpServer, Limits, Rate, ServerOptions, TlsFiles};
use crate::serving::{Jobs, JoinedJobs, infer, online};
use crate::telemetry::process::Process;
use crate::telemetry::{Health, Registry};

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Listen on this address. Other machines reach it only if it is not loopback, which needs --tokens or --open.
    #[arg(long, value_name = "HOST:PORT", env = "TIDEMILL_LISTEN", default_value = "127.0.0.1:7070", value_parser = address)]
    listen: SocketAddr,
    /// Keep jobs and the audit log in this directory.
    #[arg(long, value_name = "DIR", env = "TIDEMILL_DATA", default_value = "tidemill-data")]
    data: PathBuf,
    #[command(flatten)]
    online: OnlineArgs,
    #[command(flatten)]
    infer: InferArgs,
    /// Threads that answer requests. Default: half of the processors. More of them than are needed cost processor time: what one
    /// thread hands to another has to be woken for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    jobs: SuperviseArgs,
}

/// How jobs are supervised.
#[derive(Args, Debug)]
struct SuperviseArgs {
    /// Kill a job that has not stopped after this time; ten times as long where it is drained.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    stop_timeout: Duration,
    /// Leave a job alone, as FAILED, that has died so often without a new checkpoint in between.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    deaths: u32,
    /// Begin a job's log anew when it has so many bytes; the one before is kept.
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = parse_bytes)]
    log_bytes: u64,
}

/// Who may come in.
#[derive(Args, Debug)]
struct AccessArgs {
    /// Ask for tokens: this file has their hashes and scopes. It is read again when it changes. See docs/security.md.
    #[arg(long, value_name = "FILE", env = "TIDEMILL_TOKENS")]
    tokens: Option<PathBuf>,
    /// Listen elsewhere than on loopback without tokens: whoever reaches the address may do everything.
    #[arg(long, conflicts_with = "tokens")]
    open: bool,
    /// Speak TLS with this certificate (PEM, with those between it and the root). Read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Take certificates of clients that these vouch for (PEM) in place of tokens; the tokens file says who may do what.
    #[arg(long, value_name = "FILE", requires = "tls_cert", requires = "tokens")]
    client_ca: Option<PathBuf>,
    /// Refuse clients without a certificate at the handshake, health checks included.
    #[arg(long, requires = "client_ca")]
    client_cert_required: bool,
    /// Take so many requests a second from one address without a token. Default: 100 with --tokens, without them no limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    anonymous_rate: Option<u32>,
}

/// What the server bears.
#[derive(Args, Debug)]
struct LimitArgs {
    /// Connections at a time; fewer if the system allows fewer open files.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// Longest body of a request.
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = parse_bytes)]
    max_body: u64,
    /// Time for the head of a request, and for the TLS handshake.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    header_timeout: Duration,
    /// Time after which a connection without a request is closed.
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = time)]
    idle_timeout: Duration,
    /// Time until a request's answer begins.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    request_timeout: Duration,
    /// Time for which a client may send nothing of a body, or read nothing of an answer.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = time)]
    stall_timeout: Duration,
    /// When stopping: time for requests that have begun.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    drain: Duration,
    /// When stopping: time in which /ready says 503 and all else goes on, for load balancers to notice.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    drain_delay: Duration,
}

/// What the parts of the server share.
struct Parts {
    /// Who changed what.
    audit: Arc<AuditLog>,
    /// The jobs that the server runs.
    jobs: Manager,
    /// Whose features and predictions are served: these, and those given with --online.
    served: Arc<dyn Jobs>,
    /// How.
    online: online::Options,
    /// How tensors are scored.
    infer: infer::Options,
    /// What is told to Prometheus.
    registry: Arc<Registry>,
    /// The file of tokens, if there is one.
    tokens: Option<PathBuf>,
}

/// Everything that is served: the one place where the parts of the API come together.
fn apis(parts: &Parts) -> anyhow::Result<Api> {
    let audit = http::audit_api(Arc::clone(&parts.audit));
    let jobs = control::api::api(parts.jobs.clone());
    let online = online::api(Arc::clone(&parts.served), parts.online.clone(), &parts.registry);
    let infer = infer::api(Arc::clone(&parts.served), parts.infer.clone(), &parts.registry)
        .context("no threads to score with")?;
    Ok(Api::default().and(audit).and(jobs).and(online).and(infer).and(console(parts)))
}

/// The web console with its data.
fn console(parts: &Parts) -> Api {
    let names = |path: PathBuf| -> TokenNames { Arc::new(move || http::token_names(&path).unwrap_or_default()) };
    control::console::api(ConsoleParts {
        source: Arc::new(parts.jobs.clone()),
        data: parts.jobs.root().to_owned(),
        tokens: parts.tokens.clone().map(names),
    })
}

/// The server as health checks see it.
struct Serving;

impl Health for Serving {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Serves until it is interrupted.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let half = || std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads.map_or_else(half, usize::from))
        .enable_all()
        .build()
        .context("no threads to serve with")?;
    let served = runtime.block_on(serve(&args));
    // A handler that hangs on a disk is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.data).map_err(|error| usage(format!("--data {}: {error}", args.data.display())))?;
    let audit = Arc::new(AuditLog::new(args.data.join("audit.ndjson")));
    let registry = Arc::new(Registry::default());
    registry.register(Arc::new(Process::new([args.data.clone()])));
    // Before anything is served: a signal that comes then stops it in peace too.
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let fixed = args.online.jobs()?;
    let jobs = Manager::open(args.supervision()?)?;
    let _kept = Kept(jobs.clone());
    registry.register(Arc::new(jobs.clone()));
    let served = JoinedJobs::new(vec![Arc::new(Served::new(jobs.clone())), Arc::new(fixed)]);
    let api = apis(&Parts {
        audit: Arc::clone(&audit),
        tokens: args.access.tokens.clone(),
        jobs,
        served: Arc::new(served),
        online: args.online.options(),
        infer: args.infer.options(args.limits.max_body).map_err(usage)?,
        registry: Arc::clone(&registry),
    })?;
    let options = args.options(audit);
    let wanted = options.limits.connections;
    let server =
        HttpServer::start(options, api, registry, Arc::new(Serving)).await.map_err(|e| usage(e.to_string()))?;
    if server.connections_max() < wanted {
        eprintln!(
            "at most {} connections: the system allows no more open files; raise its limit (ulimit -n)",
            server.connections_max()
        );
    }
    eprintln!("serving: {}", server.url());
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    eprintln!("stopping: finishing what has begun (interrupt again to end at once)");
    tokio::select! {
        cut = server.stop() => {
            if cut > 0 {
                eprintln!("{cut} connections were cut off: they took longer than --drain");
            }
            Ok(())
        }
        _ = terminated.recv() => std::process::exit(143),
        _ = interrupted.recv() => std::process::exit(130),
    }
}

/// The jobs are looked after until the server has ended; their processes go on.
struct Kept(Manager);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl ServeArgs {
    fn supervision(&self) -> anyhow::Result<control::Options> {
        let program = std::env::current_exe().context("cannot find this program's own file, which runs the jobs")?;
        Ok(control::Options {
            stop_timeout: self.jobs.stop_timeout,
            deaths_max: self.jobs.deaths,
            log_bytes_max: self.jobs.log_bytes,
            ..control::Options::new(self.data.clone(), program)
        })
    }

    fn options(&self, audit: Arc<AuditLog>) -> ServerOptions {
        let AccessArgs { tokens, open, tls_cert, tls_key, client_ca, client_cert_required, anonymous_rate } =
            &self.access;
        let limits = &self.limits;
        let tls = tls_cert.clone().zip(tls_key.clone()).map(|(certificate, key)| TlsFiles {
            certificate,
            key,
            client_ca: client_ca.clone(),
            client_required: *client_cert_required,
        });
        let per_second = anonymous_rate.or(tokens.as_ref().map(|_| 100));
        ServerOptions {
            listen: self.listen,
            open: *open,
            tokens: tokens.clone(),
            tls,
            limits: Limits {
                connections: limits.max_connections as usize,
                body_bytes: limits.max_body,
                head: limits.header_timeout,
                idle: limits.idle_timeout,
                request: limits.request_timeout,
                stall: limits.stall_timeout,
                drain_delay: limits.drain_delay,
                drain: limits.drain,
                ..Limits::default()
            },
            anonymous: per_second.map(|n| Rate { per_second: f64::from(n), burst: n }),
            audit: Some(audit),
        }
    }
}

/// An address; a name is looked up, and the first address that it has is taken.
fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; write 127.0.0.1:7070"))?;
    found.next().ok_or_else(|| "the name has no address; write 127.0.0.1:7070".to_owned())
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let micros = parse_duration(text)?;
    u64::try_from(micros).map(Duration::from_micros).map_err(|_| "a time is not negative".to_owned())
}
