//! Where a source's events come from: files or the generator.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::Field;

use super::Compiler;
use crate::plan::catalog::{ConnectorSpec, SourceSpec, format_of, locate};
use crate::plan::config::{FileConfig, FormatConfig, GeneratorConfig, GeneratorStreamConfig, SourceConfig};
use crate::plan::faults::Path;
use crate::plan::model::{Connector, FileConnector, FileFormat, GeneratorConnector, GeneratorStream, Rate};

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
        let (file, generator) = (present("file"), present("generator"));
        if file && generator {
            self.error_at_key(
                &path.key("generator"),
                "a source has `file` or `generator`, not both",
                "make two sources",
            );
        }
        if !file && !generator && !present("kafka") && !present("http") {
            self.error(
                path,
                "the source does not say where events come from",
                "add `file: {path: …}` or `generator: {stream: …}`",
            );
        }
        let schema = config.schema.as_ref().map(|s| PathBuf::from(locate(&s.0, self.directory)));
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
