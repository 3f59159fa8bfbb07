//! librdkafka's configuration from a dataflow file's `brokers` and `properties`.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::base::{Blame, SecretText, shown_setting};

/// Why a client cannot be configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A secret is not where its reference says.
    #[error("property `{property}`: {what}; provide it where the job runs")]
    Secret {
        /// The setting.
        property: String,
        /// Which reference cannot be resolved.
        what: String,
    },
    /// librdkafka refuses a setting, or settings that do not go together.
    #[error("{what}; mend `properties`")]
    Refused {
        /// What librdkafka says, without values.
        what: String,
    },
}

impl ClientError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        Blame::User
    }
}

/// The configuration of a client: `defaults`, over them the file's `properties` with their secrets, over them `fixed`.
///
/// # Errors
/// When a secret cannot be resolved, or librdkafka refuses a setting. The text holds no secret.
pub fn client_config(
    brokers: &str,
    properties: &[(String, String)],
    defaults: &[(&str, &str)],
    fixed: &[(&str, &str)],
) -> Result<ClientConfig, ClientError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    // Sooner than librdkafka's 10 s, so that a broker that is back is found.
    config.set("reconnect.backoff.max.ms", "1000");
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    let mut secrets = Vec::new();
    for (name, text) in properties {
        let secret = |what| ClientError::Secret { property: name.clone(), what };
        let parsed = SecretText::parse(text).map_err(secret)?;
        let value = parsed.resolve(|text| text).map_err(secret)?;
        let shown = shown_setting(name, text);
        if shown != text {
            secrets.push(value.clone());
        }
        // librdkafka says no more of it than "system lib". `probe` stands for the system's authorities.
        if name.starts_with("ssl.") && name.ends_with(".location") && value != "probe" {
            std::fs::File::open(&value)
                .map_err(|error| ClientError::Refused { what: format!("`{name}`: {shown} cannot be read: {error}") })?;
        }
        config.set(name, value);
    }
    for (name, value) in fixed {
        config.set(*name, *value);
    }
    // librdkafka says in its log alone why a connection was closed at once; all else of it is ours to filter.
    let debug = properties.iter().any(|(name, _)| name == "debug");
    config.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    match config.create_native_config() {
        Ok(_) => Ok(config),
        Err(error) => Err(ClientError::Refused { what: without(config_fault(error), &secrets) }),
    }
}

/// What is wrong with one setting, by librdkafka's account: an unknown name, a value out of range. `text` may hold
/// references to secrets, whose values are not looked up.
pub fn setting_fault(name: &str, text: &str) -> Option<String> {
    if text.contains("${") {
        // Without its secret a value cannot be judged; the name can, with any value in its place.
        let mut config = ClientConfig::new();
        config.set(name, "x");
        let unknown = matches!(
            config.create_native_config(),
            Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..))
        );
        return unknown.then(|| format!("librdkafka has no property `{name}`"));
    }
    let mut config = ClientConfig::new();
    config.set(name, text);
    let error = config.create_native_config().err()?;
    if shown_setting(name, text) == text {
        Some(config_fault(error))
    } else {
        Some(without(config_fault(error), &[text.to_owned()]))
    }
}

fn config_fault(error: KafkaError) -> String {
    match error {
        // The value, which may be a secret, is left out.
        KafkaError::ClientConfig(_, what, name, _) => {
            let what = what.trim_end_matches('.');
            if what.contains(&name) { format!("librdkafka says: {what}") } else { format!("`{name}`: {what}") }
        }
        other => other.to_string(),
    }
}

fn without(text: String, secrets: &[String]) -> String {
    secrets.iter().filter(|s| !s.is_empty()).fold(text, |text, secret| text.replace(secret.as_str(), "***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_file_stands_over_defaults_and_under_what_must_be() {
        let file = properties(&[("fetch.wait.max.ms", "50"), ("enable.auto.commit", "true")]);
        let defaults = [("fetch.wait.max.ms", "100"), ("fetch.min.bytes", "2")];
        let config = client_config("a:1,b:2", &file, &defaults, &[("enable.auto.commit", "false")]).unwrap();
        let get = |name| config.get(name);
        assert_eq!(get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(get("fetch.wait.max.ms"), Some("50"));
        assert_eq!(get("fetch.min.bytes"), Some("2"));
        assert_eq!(get("enable.auto.commit"), Some("false"));
    }

    #[test]
    fn secrets_are_resolved_and_never_told() {
        let path = std::env::temp_dir().join(format!("tidemill-kafka-secret-{}", std::process::id()));
        std::fs::write(&path, "hunter2\n").unwrap();
        let reference = format!("${{file:{}}}", path.display());
        let config = client_config("a:1", &properties(&[("client.id", &reference)]), &[], &[]).unwrap();
        assert_eq!(config.get("client.id"), Some("hunter2"));
        // A secret that librdkafka quotes in its refusal.
        let refused = client_config("a:1", &properties(&[("fetch.min.bytes", &reference)]), &[], &[]).unwrap_err();
        let text = format!("{refused} {refused:?}");
        assert!(text.contains("fetch.min.bytes") && !text.contains("hunter2"), "{text}");
        std::fs::remove_file(&path).unwrap();
        let gone = client_config("a:1", &properties(&[("client.id", &reference)]), &[], &[]).unwrap_err();
        assert!(gone.to_string().starts_with("property `client.id`: the file "), "{gone}");
    }

    #[test]
    fn single_settings_are_judged() {
        assert_eq!(setting_fault("fetch.min.bytes", "1"), None);
        assert_eq!(setting_fault("client.id", "${env:NOT_SET}"), None);
        // One without a default, one whose values are few.
        #[cfg(feature = "kafka-tls")]
        assert_eq!(setting_fault("sasl.password", "${env:NOT_SET}"), None);
        assert_eq!(setting_fault("client.rack", "${env:NOT_SET}"), None);
        assert_eq!(setting_fault("security.protocol", "${env:NOT_SET}"), None);
        assert!(setting_fault("fetch.min.byte", "1").unwrap().contains("fetch.min.byte"));
        assert!(setting_fault("fetch.min.bite", "${env:NOT_SET}").unwrap().contains("fetch.min.bite"));
        assert!(setting_fault("fetch.min.bytes", "many").unwrap().contains("fetch.min.bytes"));
    }
}
