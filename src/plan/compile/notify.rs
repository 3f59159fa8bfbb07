//! Who is told of alerts.

use std::path::PathBuf;

use super::Compiler;
use crate::base::SecretText;
use crate::plan::catalog::locate;
use crate::plan::config::{JobConfig, ReceiverConfig, ToConfig, WebhookFormatConfig};
use crate::plan::faults::Path;
use crate::plan::model::{HttpPlan, ReceiverPlan, ReceiverWay, WebhookFormat, is_secure};
use crate::plan::values::{ByColumn, Duration, Text};

/// How long a request may take when the file does not say.
const TIMEOUT: i64 = 5_000_000;
/// After how long Alertmanager is told again when the file does not say.
const RESEND: i64 = 60_000_000;

impl Compiler<'_> {
    /// The receivers of the file that are sound.
    pub(super) fn receivers(&mut self, config: &JobConfig) -> Vec<ReceiverPlan> {
        let receivers = config.notify.0.iter();
        receivers
            .filter_map(|(name, c)| {
                let way = self.receiver(&Path::of(&["notify", name]), c)?;
                Some(ReceiverPlan { name: name.clone(), way })
            })
            .collect()
    }

    fn receiver(&mut self, path: &Path, c: &ReceiverConfig) -> Option<ReceiverWay> {
        let topic_only =
            [("delivery", c.delivery.is_some()), ("slots", c.slots.is_some()), ("ledger", c.ledger.is_some())];
        for (key, _) in topic_only.into_iter().filter(|(_, given)| *given && c.kafka.is_none()) {
            self.error_at_key(&path.key(key), format!("`{key}` is for topics"), "remove it");
        }
        match (&c.log, &c.kafka, &c.webhook, &c.alertmanager) {
            (Some(_), None, None, None) => Some(ReceiverWay::Log),
            (None, Some(_), None, None) => Some(ReceiverWay::Topic),
            (None, None, Some(webhook), None) => {
                let http = self.http(
                    &path.key("webhook"),
                    (&webhook.url, webhook.ca.as_ref()),
                    &webhook.headers,
                    &webhook.timeout,
                )?;
                let format = match webhook.format {
                    WebhookFormatConfig::Json => WebhookFormat::Json,
                    WebhookFormatConfig::Slack => WebhookFormat::Slack,
                };
                Some(ReceiverWay::Webhook(http, format))
            }
            (None, None, None, Some(manager)) => {
                let path = path.key("alertmanager");
                let resend = manager.resend.as_ref().map_or(RESEND, |resend| resend.0);
                if resend <= 0 {
                    self.error(&path.key("resend"), "`resend` must be longer than nothing", "the usual is 1m");
                }
                let http = self.http(&path, (&manager.url, manager.ca.as_ref()), &manager.headers, &manager.timeout)?;
                Some(ReceiverWay::Alertmanager(http, resend))
            }
            _ => {
                // One that was cut away has its own fault.
                let written = ["log", "kafka", "webhook", "alertmanager"]
                    .iter()
                    .filter(|way| {
                        self.tree
                            .get("notify")
                            .and_then(|n| n.get(path_end(path)?))
                            .is_some_and(|n| n.get(way).is_some())
                    })
                    .count();
                if written != 1 {
                    let mend = "give each way a name of its own: `ops: {webhook: {url: …}}`";
                    self.error(path, "a receiver is one of log, kafka, webhook and alertmanager", mend);
                }
                None
            }
        }
    }

    fn http(
        &mut self,
        path: &Path,
        (url, ca): (&Text, Option<&Text>),
        headers: &ByColumn<Text>,
        timeout: &Option<Duration>,
    ) -> Option<HttpPlan> {
        let at = path.key("url");
        let mut address = self.secret(&at, &url.0);
        // What is a reference as a whole is checked when it is looked up.
        let fault = address.as_ref().filter(|a| !a.is_reference()).and_then(|a| HttpPlan::address_fault(&a.shape("x")));
        if let Some(fault) = fault {
            self.error(&at, "the address cannot be used", fault);
            address = None;
        }
        let shape = address.as_ref().map(|address| address.shape("x")).unwrap_or_default();
        let shown = url::Url::parse(&shape).ok();
        let shown = shown.and_then(|url| Some(format!("{}://{}", url.scheme(), url.host_str()?)));
        let known = address.as_ref().filter(|address| !address.is_reference());
        let ca = self.authorities(path, ca, known.map(|address| address.shape("x")).as_deref());
        let mut sound = Vec::new();
        for (name, text) in &headers.0 {
            let at = path.key("headers").key(name);
            let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            let Some(value) = self.secret(&at, &text.0) else { continue };
            if !named {
                self.error_at_key(
                    &at,
                    format!("`{name}` is not the name of a header"),
                    "use letters, digits and hyphens",
                );
            } else if !value.shape("x").bytes().all(|b| (b' '..0x7f).contains(&b)) {
                self.error(&at, "a header's value is printable ASCII", "");
            } else {
                sound.push((name.clone(), value));
            }
        }
        let timeout_us = timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.0);
        if timeout_us <= 0 {
            self.error(&path.key("timeout"), "`timeout` must be longer than nothing", "the usual is 5s");
        }
        Some(HttpPlan {
            url: address?,
            shown: shown.unwrap_or_else(|| "an address from a secret".to_owned()),
            headers: sound,
            timeout: timeout_us,
            ca,
        })
    }

    /// The file of authorities that `ca` names; `url` is the address, as far as it is known.
    pub(super) fn authorities(&mut self, path: &Path, ca: Option<&Text>, url: Option<&str>) -> Option<PathBuf> {
        let ca = ca?;
        if url.is_some_and(|url| !is_secure(url)) {
            let what = "`ca` says whom to trust, and the address is of a server without TLS";
            self.error_at_key(&path.key("ca"), what, "write `https://` (`rediss://` for Redis), or remove it");
        }
        Some(PathBuf::from(locate(&ca.0, self.directory)))
    }

    fn secret(&mut self, at: &Path, text: &str) -> Option<SecretText> {
        match SecretText::parse(text) {
            Ok(secret) => Some(secret),
            Err(what) => {
                self.error(at, what, "");
                None
            }
        }
    }
}

fn path_end(path: &Path) -> Option<&str> {
    match path.steps().last() {
        Some(crate::plan::faults::Step::Key(name)) => Some(name),
        _ => None,
    }
}

/// The settings of a receiver's topic.
pub(super) fn topic_of(c: &ReceiverConfig) -> Option<ToConfig> {
    let kafka = c.kafka.clone()?;
    Some(ToConfig { kafka, delivery: c.delivery, slots: c.slots, ledger: c.ledger.clone() })
}
