//! Settings of outside systems as they may be printed.

/// A setting's value as it may be printed: `***` where it is a secret by its name or refers to one.
pub fn shown_setting<'a>(name: &str, text: &'a str) -> &'a str {
    let secret = ["password", "secret", "key.pem", "ssl.key", "oauthbearer.config", "jaas", "passphrase"];
    let by_name = secret.iter().any(|word| name.contains(word)) && !name.ends_with(".location");
    if by_name || text.contains("${") { "***" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown_setting("client.id", "x"), "x");
        assert_eq!(shown_setting("client.id", "a${env:X}"), "***");
        assert_eq!(shown_setting("sasl.password", "plain"), "***");
        assert_eq!(shown_setting("sasl.oauthbearer.assertion.private.key.passphrase", "plain"), "***");
        assert_eq!(shown_setting("ssl.key.location", "/etc/key.pem"), "/etc/key.pem");
    }
}
