//! How the messages of a topic are encoded, and where their schemas are.

use std::path::Path as FilePath;
use std::sync::Arc;

use super::Compiler;
use crate::base::SecretText;
use crate::plan::catalog::locate;
use crate::plan::config::{KafkaConfig, MessageFormatConfig, RegistryConfig};
use crate::plan::faults::Path;
use crate::plan::model::{AvroFormat, AvroWriter, MessageFormat, RegistryPlan};

impl Compiler<'_> {
    /// The encoding of the messages of the source at `at`, whose declared schema is the file `schema`.
    pub(super) fn message_format(
        &mut self,
        at: &Path,
        config: &KafkaConfig,
        schema: Option<&FilePath>,
    ) -> MessageFormat {
        if !matches!(config.format, Some(MessageFormatConfig::Avro)) {
            for (key, given) in
                [("registry", config.registry.is_some()), ("writer_schema", config.writer_schema.is_some())]
            {
                if given {
                    let what = format!("`{key}` says how Avro messages are written, and these are JSON");
                    self.error_at_key(&at.key(key), what, "write `format: avro`, or remove it");
                }
            }
            return MessageFormat::Json;
        }
        // Without a declared schema, or one that cannot be read, the source has its fault already.
        let Some(declared) = schema.and_then(|file| std::fs::read_to_string(file).ok()) else {
            return MessageFormat::Json;
        };
        let declared: Arc<str> = declared.into();
        let writer = match (&config.registry, &config.writer_schema) {
            (Some(registry), None) => AvroWriter::Registry(self.registry(&at.key("registry"), registry)),
            (None, None) => AvroWriter::Schema(declared.clone()),
            (Some(_), Some(_)) => {
                let what = "a message's schema comes from `registry` or from `writer_schema`, not from both";
                self.error_at_key(&at.key("writer_schema"), what, "remove one of them");
                AvroWriter::Schema(declared.clone())
            }
            (None, Some(file)) => {
                let at = at.key("writer_schema");
                let file = locate(&file.0, self.directory);
                match std::fs::read_to_string(&file) {
                    Ok(text) => {
                        if let Some(what) = self.catalog.avro_fault(&declared, &text) {
                            self.error(&at, what, "mend one of the two schemas by Avro's rules of resolution");
                        }
                        AvroWriter::Schema(text.into())
                    }
                    Err(error) => {
                        self.error(&at, format!("cannot read {file}: {error}"), "");
                        AvroWriter::Schema(declared.clone())
                    }
                }
            }
        };
        if let (AvroWriter::Schema(writer), None) = (&writer, &config.writer_schema)
            && let Some(what) = self.catalog.avro_fault(&declared, writer)
        {
            self.error(at, what, "mend the file that `schema` names");
        }
        MessageFormat::Avro(AvroFormat { declared, writer })
    }

    pub(super) fn registry(&mut self, at: &Path, config: &RegistryConfig) -> RegistryPlan {
        if let Some(what) = RegistryPlan::address_fault(&config.url.0) {
            self.error(&at.key("url"), what, "");
        }
        let mut secret = |key: &str, text: &str| match SecretText::parse(text) {
            Ok(text) => Some(text),
            Err(what) => {
                self.error(&at.key(key), what, "write ${env:NAME} or ${file:PATH}");
                None
            }
        };
        let user = config.user.as_ref().map(|text| secret("user", &text.0));
        let password = config.password.as_ref().map(|text| secret("password", &text.0));
        if user.is_some() != password.is_some() {
            self.error(at, "credentials are a `user` and a `password`", "give both, or none");
        }
        let timeout = config.timeout.as_ref().map(|t| t.0);
        if timeout == Some(0) {
            self.error(&at.key("timeout"), "`0s` leaves no time to answer", "give a length of time");
        }
        let credentials = user.flatten().zip(password.flatten());
        let ca = self.authorities(at, config.ca.as_ref(), Some(&config.url.0));
        RegistryPlan { url: config.url.0.clone(), credentials, timeout, ca }
    }
}
