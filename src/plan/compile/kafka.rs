//! What sources and sinks on Kafka have in common: brokers and librdkafka's settings.

use super::Compiler;
use crate::base::SecretText;
use crate::plan::faults::Path;
use crate::plan::values::{ByColumn, Text};

/// Settings that are Tidemill's own in any client, and why.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "`brokers` names the brokers"),
    ("metadata.broker.list", "`brokers` names the brokers"),
    ("plugin.library.paths", "a job loads no libraries"),
];

impl Compiler<'_> {
    /// Checks `properties` at `path`, and returns them; `ours` are further settings that are not the file's to choose,
    /// and why.
    pub(super) fn kafka_properties(
        &mut self,
        path: &Path,
        properties: &ByColumn<Text>,
        ours: &[(&str, &str)],
    ) -> Vec<(String, String)> {
        for (name, value) in &properties.0 {
            let at = path.key(name);
            if let Some((_, why)) = OURS.iter().chain(ours).find(|(own, _)| own == name) {
                self.error_at_key(&at, format!("`{name}` is not for the file to set: {why}"), "remove it");
            } else if !cfg!(feature = "kafka-tls") && needs_tls(name, &value.0) {
                let what = format!("`{name}` needs a Tidemill that was built with the cargo feature `kafka-tls`");
                self.error_at_key(
                    &at,
                    what,
                    "build with `--features kafka-tls`, or use a listener without TLS and SASL",
                );
            } else if let Err(what) = SecretText::parse(&value.0) {
                self.error(&at, what, "write ${env:NAME} or ${file:PATH}");
            } else if let Some(what) = self.catalog.kafka_setting_fault(name, &value.0) {
                self.error_at_key(&at, what, "librdkafka's CONFIGURATION.md lists the properties");
            }
        }
        properties.0.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()
    }

    /// Checks the name of a topic at `path`.
    pub(super) fn kafka_topic(&mut self, path: &Path, name: &str) {
        let valid = name.len() <= 249 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !valid || name == "." || name == ".." {
            let mend = "use at most 249 letters, digits, dots, underscores and hyphens";
            self.error(path, format!("`{name}` is not a name of a topic"), mend);
        }
    }

    /// Checks a list of brokers at `path`.
    pub(super) fn kafka_brokers(&mut self, path: &Path, brokers: &str) {
        let sound = |one: &str| {
            let one = one.trim();
            let host =
                one.rsplit_once(':').map_or(one, |(host, port)| if port.parse::<u16>().is_ok() { host } else { "" });
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/${}@".contains(c))
        };
        if let Some(bad) = brokers.split(',').find(|one| !sound(one)) {
            self.error(
                path,
                format!("`{}` is not a broker", bad.trim()),
                "write HOST:PORT, several with commas between",
            );
        }
    }
}

/// Whether a setting is about TLS or SASL.
fn needs_tls(name: &str, value: &str) -> bool {
    let secured = name == "security.protocol" && !value.eq_ignore_ascii_case("plaintext");
    secured || name.starts_with("ssl.") || name.starts_with("sasl.") || name == "enable.ssl.certificate.verification"
}
