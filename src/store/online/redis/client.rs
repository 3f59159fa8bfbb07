//! Connections to Redis, and what its errors mean.

use std::error::Error;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ServerErrorKind, TlsCertificates, Value};
use redis::{Client, Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError};

use crate::net::trust;
use crate::plan::RedisAddress;
use crate::plan::model::RedisPlan;
use crate::store::StoreError;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A Redis server to connect to.
pub(super) struct Endpoint {
    client: Client,
    /// The address, without who asks.
    address: String,
}

/// Something that Redis refused or that happened on the way, and whether time may mend it.
#[derive(Debug)]
pub(super) struct Trouble {
    pub what: String,
    pub passing: bool,
}

impl Endpoint {
    /// Resolves the plan's references; connects nowhere.
    pub fn new(plan: &RedisPlan) -> Result<Self, StoreError> {
        let wrong = |reason: String| StoreError::Redis { address: plan.shown.clone(), reason, passing: false };
        let address = RedisAddress::resolve(&plan.url).map_err(wrong)?;
        let shown = address.to_string();
        let mut settings = RedisConnectionInfo::default().set_db(address.database.into());
        if let Some(username) = &address.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &address.password {
            settings = settings.set_password(password);
        }
        let refused = |reason: String| StoreError::Redis { address: shown.clone(), reason, passing: false };
        if plan.ca.is_some() && !address.secure {
            return Err(refused(
                "`ca` says whom to trust, and the address is of a server without TLS; write `rediss://`".into(),
            ));
        }
        let place = match address.secure {
            false => ConnectionAddr::Tcp(address.host, address.port),
            true => {
                // Whom to trust is told now, and not at the first connection.
                trust(plan.ca.as_deref()).map_err(|error| refused(error.to_string()))?;
                ConnectionAddr::TcpTls { host: address.host, port: address.port, insecure: false, tls_params: None }
            }
        };
        let root_cert = plan.ca.as_ref().map(std::fs::read).transpose().map_err(|error| refused(error.to_string()))?;
        let client = place
            .into_connection_info()
            .map(|info| info.set_redis_settings(settings))
            .and_then(|info| match root_cert {
                Some(_) => Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }),
                None => Client::open(info),
            })
            .map_err(|e| refused(trouble(&e).what))?;
        Ok(Endpoint { client, address: shown })
    }

    /// The address as it may be shown.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects; every exchange over the connection ends within some seconds.
    pub fn connect(&self) -> Result<Connection, RedisError> {
        let connection = self.client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// Connects without blocking, for many requests at once.
    pub async fn connect_async(&self, patience: Duration) -> Result<MultiplexedConnection, RedisError> {
        // Each request has a bound of its own, which may be another from one to the next.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(None);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    pub fn wrong(&self, trouble: Trouble) -> StoreError {
        StoreError::Redis { address: self.address.clone(), reason: trouble.what, passing: trouble.passing }
    }
}

/// What an error means.
pub(super) fn trouble(error: &RedisError) -> Trouble {
    // Of several commands sent at once the first that failed says why.
    if let Some((_, first)) = error.clone().into_server_errors().as_deref().and_then(<[_]>::first)
        && error.code().is_none()
    {
        return trouble(&first.clone().into());
    }
    let passing = |what: String| Trouble { what, passing: true };
    let lasting = |what: String| Trouble { what, passing: false };
    let said = || error.detail().map_or_else(|| error.to_string(), str::to_owned);
    let caused = |error: &RedisError| error.source().map_or_else(said, crate::net::said);
    match (error.kind(), error.code().unwrap_or_default()) {
        _ if error.is_connection_refusal() => {
            passing("connection refused; start the server, or correct `sinks.online.redis.url`".into())
        }
        _ if error.is_timeout() => passing(format!("no answer within {} s", PATIENCE.as_secs())),
        (_, "NOAUTH") => passing("it wants a password; give one in `sinks.online.redis.url`".into()),
        (ErrorKind::AuthenticationFailed, _) | (_, "WRONGPASS") => {
            passing("the user or the password is wrong; correct `sinks.online.redis.url`".into())
        }
        (ErrorKind::Io, _) => passing(format!("{}; is `sinks.online.redis.url` right?", caused(error))),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            lasting(format!("the user may not do what the job needs: {}", said()))
        }
        (ErrorKind::Server(ServerErrorKind::CrossSlot), _) => lasting(CLUSTER.into()),
        _ if error.is_cluster_error() => lasting(CLUSTER.into()),
        (
            _,
            code @ ("OOM" | "MISCONF" | "READONLY" | "LOADING" | "BUSY" | "MASTERDOWN" | "NOREPLICAS" | "NOSCRIPT"),
        ) => passing(format!("{code} {}", said())),
        (
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::NoScript,
            ),
            _,
        ) => passing(said()),
        (_, code) => lasting(format!("{code} {}", said()).trim().to_owned()),
    }
}

/// Why a cluster is refused.
pub(super) const CLUSTER: &str = "a Redis cluster is not built yet; give a server that stands alone";

/// A server's answer, or the error that it is.
pub(super) fn answer(value: Value) -> Result<Value, RedisError> {
    value.extract_error()
}

/// A field of `INFO`.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
