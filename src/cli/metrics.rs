//! The arguments that have a run serve its metrics.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use crate::engine::Telemetry;
use crate::plan::model::Plan;
use crate::telemetry::{MetricsServer, ServerOptions, Token};

/// Where metrics are served.
#[derive(Args, Clone, Debug, Default)]
pub struct MetricsArgs {
    /// Serve metrics for Prometheus on this address, such as 127.0.0.1:9464: /metrics, and /health and /ready for supervisors.
    #[arg(long, value_name = "HOST:PORT", env = "TIDEMILL_METRICS", value_parser = address)]
    metrics: Option<SocketAddr>,
    /// Ask requests for metrics for this token, as `Authorization: Bearer …`; needed to listen elsewhere than on loopback.
    #[arg(long, value_name = "TOKEN", env = "TIDEMILL_METRICS_TOKEN", hide_env_values = true)]
    metrics_token: Option<String>,
    /// Listen elsewhere than on loopback without a token: anybody who reaches the address may read the metrics.
    #[arg(long)]
    metrics_open: bool,
}

/// Metrics that are being served; ends when it is dropped.
pub struct Served {
    /// What is told.
    pub telemetry: Arc<Telemetry>,
    _server: MetricsServer,
}

impl MetricsArgs {
    /// Serves the metrics of a job that is about to run, where that is wanted; says where on standard error.
    pub fn serve(&self, plan: &Plan, state_dir: Option<&Path>) -> anyhow::Result<Option<Served>> {
        let Some(address) = self.metrics else { return Ok(None) };
        let telemetry = Telemetry::new(plan, state_dir);
        let token = self.metrics_token.clone().and_then(Token::new);
        let options = ServerOptions { address, token, open: self.metrics_open };
        let server = MetricsServer::start(options, telemetry.registry(), telemetry.health())?;
        eprintln!("metrics: http://{}/metrics", server.address());
        Ok(Some(Served { telemetry, _server: server }))
    }
}

/// An address; a name is looked up, and the first address that it has is taken.
fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; write 127.0.0.1:9464"))?;
    found.next().ok_or_else(|| "the name has no address; write 127.0.0.1:9464".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(address("127.0.0.1:9464").unwrap().port(), 9464);
        assert_eq!(address("[::1]:0").unwrap().port(), 0);
        assert!(address("localhost:9464").unwrap().ip().is_loopback());
        for bad in ["9464", "127.0.0.1", "127.0.0.1:99999", ""] {
            assert!(address(bad).unwrap_err().contains("127.0.0.1:9464"), "{bad}");
        }
    }
}
