//! Where a source's events come from: files, the generator or a topic.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

use super::Compiler;
use crate::plan::catalog::{ConnectorSpec, SourceSpec, format_of, locate};
use crate::plan::config::{
    FileConfig, FormatConfig, GeneratorConfig, GeneratorStreamConfig, KafkaConfig, SourceConfig,
};
use crate::plan::expr::time_type;
use crate::plan::faults::Path;
use crate::plan::model::{
    Connector, FileConnector, FileFormat, GeneratorConnector, GeneratorStream, KafkaConnector, KafkaStart, Properties,
    Rate,
};

impl Compiler<'_> {
    /// Where events come from, and the columns that they have there.
    pub(super) fn connector(
        &mut self,
        path: &Path,
        name: &str,
        config: &SourceConfig,
    ) -> (Connector, Option<Vec<Arc<Field>>>) {
        let node = self.tree.get("sources").and_then(|s| s.get(name));
        let present = |key| node.is_some_and(|n| n.get(key).is_some());
        let given: Vec<&str> = ["file", "generator", "kafka"].into_iter().filter(|key| present(key)).collect();
        if let [first, others @ ..] = &given[..]
            && let Some(other) = others.last()
        {
            let what = format!("a source has `{first}` or `{other}`, not both");
            self.error_at_key(&path.key(other), what, "make two sources");
        }
        if given.is_empty() && !present("http") {
            self.error(
                path,
                "the source does not say where events come from",
                "add `kafka: {topic: …}`, `file: {path: …}` or `generator: {stream: …}`",
            );
        }
        let schema = config.schema.as_ref().map(|s| PathBuf::from(locate(&s.0, self.directory)));
        if let Some(config) = &config.kafka {
            return self.kafka(path, name, config, schema);
        }
        if let Some(config) = &config.generator {
            return self.generator(path, name, config, schema);
        }
        match &config.file {
            Some(file) => self.file(path, name, file, schema),
            None => (nowhere(), None),
        }
    }

    fn file(
        &mut self,
        path: &Path,
        name: &str,
        config: &FileConfig,
        schema: Option<PathBuf>,
    ) -> (Connector, Option<Vec<Arc<Field>>>) {
        let at = path.key("file").key("path");
        let rate = config.rate.as_ref().map_or(Rate::Max, |r| r.0);
        if let Some((scheme, _)) = config.path.0.split_once("://") {
            self.error(&at, format!("`{scheme}://` is not built yet"), "give a local path");
            return (nowhere(), None);
        }
        let declared = config.format.map(|f| match f {
            FormatConfig::Parquet => FileFormat::Parquet,
            FormatConfig::Ndjson => FileFormat::Ndjson,
            FormatConfig::Csv => FileFormat::Csv,
        });
        let located = locate(&config.path.0, self.directory);
        let hinted = declared.or_else(|| format_of(std::path::Path::new(&located)));
        let need_schema = "add `schema: FILE.avsc`, which says what columns there are and of what type";
        if let (Some(format @ (FileFormat::Ndjson | FileFormat::Csv)), None) = (hinted, &schema) {
            self.error_at_key(
                &path.key("file"),
                format!("{} files do not say the types of their columns", named(format)),
                need_schema,
            );
            return (nowhere(), None);
        }
        let spec = SourceSpec { connector: ConnectorSpec::File { path: located.clone(), format: declared }, schema };
        let (columns, files) = match self.catalog.event_schema(name, &spec) {
            Ok((schema, files)) => (schema, files),
            Err(what) => {
                self.errors(&at, &what);
                return (nowhere(), None);
            }
        };
        if files.is_empty() {
            self.error(&at, format!("no file matches `{located}`"), "");
            return (nowhere(), None);
        }
        if files.len() > usize::from(u16::MAX) {
            self.error(&at, format!("{} files match; a source can have {}", files.len(), u16::MAX), "name fewer");
        }
        let formats: BTreeSet<Option<&str>> = files.iter().map(|f| format_of(f).map(named)).collect();
        let Some(format) = declared.or_else(|| format_of(&files[0])) else {
            self.error(
                &at,
                format!("the extension of `{}` does not tell the files' format", files[0].display()),
                "add `format: parquet`, `ndjson` or `csv`",
            );
            return (nowhere(), None);
        };
        if declared.is_none() && formats.len() > 1 {
            let formats: Vec<&str> = formats.iter().map(|f| f.unwrap_or("others")).collect();
            self.error(
                &at,
                format!("the files are of several formats: {}", formats.join(", ")),
                "make one source of each, or add `format:` if they are one",
            );
        }
        if spec.schema.is_none() && format != FileFormat::Parquet {
            self.error_at_key(
                &path.key("file"),
                format!("{} files do not say the types of their columns", named(format)),
                need_schema,
            );
        }
        let connector = Connector::File(FileConnector { path: located, files, format, rate });
        (connector, Some(columns.fields().to_vec()))
    }

    fn kafka(
        &mut self,
        path: &Path,
        name: &str,
        config: &KafkaConfig,
        schema: Option<PathBuf>,
    ) -> (Connector, Option<Vec<Arc<Field>>>) {
        let at = path.key("kafka");
        let brokers = config.brokers.as_ref().map_or(DEFAULT_BROKERS, |b| b.0.as_str());
        self.kafka_brokers(&at.key("brokers"), brokers);
        self.kafka_topic(&at.key("topic"), &config.topic.0);
        let properties = self.kafka_properties(&at.key("properties"), &config.properties, SOURCE_SETTINGS);
        let discover_every = config.discover_every.as_ref().map_or(10_000_000, |d| d.0);
        if discover_every == 0 {
            self.error(&at.key("discover_every"), "`0s` would ask the brokers without end", "give a length of time");
        }
        let connector = Connector::Kafka(Box::new(KafkaConnector {
            brokers: brokers.to_owned(),
            topic: config.topic.0.clone(),
            format: self.message_format(&at, config, schema.as_deref()),
            start: config.start.as_ref().map_or(KafkaStart::Earliest, |s| s.0),
            key: config.key.as_ref().map(|k| k.0.clone()),
            timestamp: config.timestamp.as_ref().map(|t| t.0.clone()),
            headers: config.headers.0.iter().map(|(column, header)| (column.clone(), header.0.clone())).collect(),
            discover_every,
            group: self.kafka_group(&at.key("group"), config),
            properties: Properties(properties),
        }));
        let spec = SourceSpec { connector: ConnectorSpec::Kafka, schema };
        let columns = match self.catalog.event_schema(name, &spec) {
            Ok((schema, _)) => schema.fields().to_vec(),
            Err(what) => {
                self.errors(&at, &what);
                return (connector, None);
            }
        };
        let columns = self.message_columns(&at, config, columns);
        (connector, Some(columns))
    }

    /// The events' columns, and after them those that hold what a message says besides its value.
    fn message_columns(&mut self, at: &Path, config: &KafkaConfig, mut columns: Vec<Arc<Field>>) -> Vec<Arc<Field>> {
        let of_key = config.key.iter().map(|column| (at.key("key"), &column.0, DataType::Utf8));
        let of_time = config.timestamp.iter().map(|column| (at.key("timestamp"), &column.0, time_type()));
        let of_headers = config.headers.0.iter();
        let of_headers = of_headers.map(|(column, _)| (at.key("headers").key(column), column, DataType::Utf8));
        for (path, column, data_type) in of_key.chain(of_time).chain(of_headers) {
            if columns.iter().any(|field| field.name() == column) {
                self.error(&path, format!("the source has a column `{column}` already"), "choose another name");
            } else {
                columns.push(Arc::new(Field::new(column, data_type, true)));
            }
        }
        columns
    }

    /// The group that offsets are committed under, if any.
    fn kafka_group(&mut self, at: &Path, config: &KafkaConfig) -> Option<String> {
        let group = match &config.group {
            None => return Some(format!("tidemill.{}", self.job)),
            Some(group) => group.0.as_str(),
        };
        if group.trim().is_empty() || group.chars().any(char::is_control) {
            let what = format!("`{}` is not a name of a consumer group", group.escape_default());
            self.error(at, what, "write a name, or `none` to commit no offsets");
        }
        (group != "none").then(|| group.to_owned())
    }

    fn generator(
        &mut self,
        path: &Path,
        name: &str,
        config: &GeneratorConfig,
        schema: Option<PathBuf>,
    ) -> (Connector, Option<Vec<Arc<Field>>>) {
        let stream = match config.stream {
            GeneratorStreamConfig::Transactions => GeneratorStream::Transactions,
            GeneratorStreamConfig::Labels => GeneratorStream::Labels,
        };
        let connector = Connector::Generator(GeneratorConnector {
            stream,
            seed: config.seed.unwrap_or(42),
            customers: config.customers.unwrap_or(5_000),
            terminals: config.terminals.unwrap_or(10_000),
            // 2026-01-01T00:00:00Z.
            start: config.start.as_ref().map_or(1_767_225_600_000_000, |t| t.0),
            duration: config.duration.as_ref().map(|d| d.0),
            label_delay: config.label_delay.as_ref().map_or(7 * 86_400_000_000, |d| d.0),
            drift_after: config.drift_after.as_ref().map(|d| d.0),
            rate: config.rate.as_ref().map_or(Rate::Max, |r| r.0),
        });
        let spec = SourceSpec { connector: ConnectorSpec::Generator(stream), schema };
        match self.catalog.event_schema(name, &spec) {
            Ok((schema, _)) => (connector, Some(schema.fields().to_vec())),
            Err(what) => {
                self.errors(&path.key("generator"), &what);
                (connector, None)
            }
        }
    }
}

/// Where a broker is that nobody has moved.
pub(super) const DEFAULT_BROKERS: &str = "localhost:9092";

/// Settings that a source needs as they are, and why.
const SOURCE_SETTINGS: &[(&str, &str)] = &[
    ("group.id", "`group` names the group that offsets are committed under"),
    ("group.instance.id", "the job assigns partitions itself and is in no consumer group"),
    ("group.protocol", "the job assigns partitions itself and is in no consumer group"),
    ("group.remote.assignor", "the job assigns partitions itself and is in no consumer group"),
    ("partition.assignment.strategy", "the job assigns partitions itself"),
    ("enable.auto.commit", "offsets are kept in the tick log, with the cut that they belong to"),
    ("auto.commit.interval.ms", "offsets are kept in the tick log, with the cut that they belong to"),
    ("enable.auto.offset.store", "offsets are kept in the tick log, with the cut that they belong to"),
    ("auto.offset.reset", "`start` says where to begin, and offsets that have expired stop the job"),
    ("isolation.level", "a source reads committed messages only"),
    ("enable.partition.eof", "the source has to know where partitions end"),
    ("check.crcs", "damaged messages must be found"),
    ("allow.auto.create.topics", "a topic that is not there is an error"),
];

fn named(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Parquet => "Parquet",
        FileFormat::Ndjson => "NDJSON",
        FileFormat::Csv => "CSV",
    }
}

/// Stands for a connector that has a fault; no plan holds it.
fn nowhere() -> Connector {
    Connector::File(FileConnector {
        path: String::new(),
        files: Vec::new(),
        format: FileFormat::Parquet,
        rate: Rate::Max,
    })
}
