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
        let security = Security::of(properties);
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
            } else if let Some((what, mend)) = security.fault(name, &value.0) {
                self.error_at_key(&at, what, mend);
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

/// Ways to log in that Tidemill has.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// What `security.protocol` asks for; all of it where only the job's environment tells.
struct Security {
    tls: bool,
    sasl: bool,
    mechanism: bool,
}

impl Security {
    fn of(properties: &ByColumn<Text>) -> Security {
        let find = |name: &str| properties.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.0.as_str());
        let protocol = find("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        let unknown = protocol.contains("${");
        let mechanism = unknown || find("sasl.mechanism").or_else(|| find("sasl.mechanisms")).is_some();
        Security { tls: unknown || protocol.ends_with("ssl"), sasl: unknown || protocol.starts_with("sasl"), mechanism }
    }

    /// What is wrong with a setting about TLS or SASL, and how to mend it: librdkafka passes over settings that its
    /// protocol does not use, and takes mechanisms that it cannot perform.
    fn fault(&self, name: &str, value: &str) -> Option<(String, &'static str)> {
        let sasl = name.starts_with("sasl.");
        if name == "security.protocol" && self.sasl && !self.mechanism {
            return Some((
                format!("`{value}` needs `sasl.mechanism`"),
                "set it to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
            ));
        }
        if matches!(name, "sasl.mechanism" | "sasl.mechanisms") && !value.contains("${") && !MECHANISMS.contains(&value)
        {
            let what = format!("SASL mechanism `{value}` is not built");
            return Some((
                what,
                "use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, or TLS certificates (`ssl.certificate.location`)",
            ));
        }
        let elsewhere = ["sasl.oauthbearer.", "sasl.kerberos.", "enable.sasl.oauthbearer."];
        if elsewhere.iter().any(|start| name.starts_with(start)) {
            let what = format!("`{name}` belongs to a SASL mechanism that is not built");
            return Some((what, "remove it; PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are built"));
        }
        if sasl && !self.sasl {
            return Some((
                format!("`{name}` has no effect with this `security.protocol`"),
                "set `security.protocol` to sasl_ssl or sasl_plaintext, or remove it",
            ));
        }
        if (name.starts_with("ssl.") || name == "enable.ssl.certificate.verification") && !self.tls {
            return Some((
                format!("`{name}` has no effect with this `security.protocol`"),
                "set `security.protocol` to ssl or sasl_ssl, or remove it",
            ));
        }
        None
    }
}

/// Whether a setting is about TLS or SASL.
fn needs_tls(name: &str, value: &str) -> bool {
    let secured = name == "security.protocol" && !value.eq_ignore_ascii_case("plaintext");
    secured || name.starts_with("ssl.") || name.starts_with("sasl.") || name == "enable.ssl.certificate.verification"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(properties: &[(&str, &str)]) -> Vec<String> {
        let text = |value: &&str| Text((*value).to_owned());
        let all = ByColumn(properties.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect());
        let security = Security::of(&all);
        properties.iter().filter_map(|(name, value)| Some(security.fault(name, value)?.0)).collect()
    }

    #[test]
    fn settings_that_would_be_passed_over_are_faults() {
        let login = [("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", "u"), ("sasl.password", "${env:P}")];
        for protocol in ["SASL_SSL", "sasl_plaintext", "${env:PROTOCOL}"] {
            let mut all = vec![("security.protocol", protocol)];
            all.extend(login);
            assert_eq!(faults(&all), [""; 0], "{protocol}");
        }
        for protocol in ["ssl", "plaintext"] {
            let mut all = vec![("security.protocol", protocol)];
            all.extend(login);
            assert_eq!(faults(&all).len(), 3, "{protocol}");
        }
        assert_eq!(faults(&login).len(), 3);
        assert_eq!(faults(&[("ssl.ca.location", "x"), ("client.id", "x")]).len(), 1);
        assert_eq!(faults(&[("security.protocol", "ssl"), ("ssl.ca.location", "x")]), [""; 0]);
        assert_eq!(faults(&[("security.protocol", "sasl_ssl")]), ["`sasl_ssl` needs `sasl.mechanism`"]);
        let bearer = [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "OAUTHBEARER")];
        assert_eq!(faults(&bearer), ["SASL mechanism `OAUTHBEARER` is not built"]);
    }
}
