//! What the tests of this room share: plans without a dataflow file, files without a disk layout to remember.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::base::{ORD_COLUMN, TIME_COLUMN};
use crate::ingest::{Counts, DeadLetter, Decoded, IngestError, ReaderOptions, SourceReader};
use crate::plan::expr::Expr;
use crate::plan::expr::time_type;
use crate::plan::model::{Connector, FileConnector, FileFormat, NamedExpr, OnLate, Rate, SourcePlan, ValueRule};

/// A plan under construction.
pub(crate) struct Plan(pub SourcePlan);

impl Plan {
    /// A source of files with these columns and an event time.
    pub(crate) fn new(format: FileFormat, files: &[&Path], fields: Vec<Field>, event_time: &str) -> Plan {
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let mut plan = Plan(SourcePlan {
            name: "tx".into(),
            connector: Connector::File(FileConnector {
                path: "given".into(),
                files: files.iter().map(|f| f.to_path_buf()).collect(),
                format,
                rate: Rate::Max,
            }),
            event_time: compile(&schema, event_time),
            stream_schema: schema.clone(),
            schema,
            filter: None,
            id: None,
            disorder: 0,
            idle_after: None,
            on_late: OnLate::DeadLetter,
            rules: Vec::new(),
            rejected_to: "tx_rejected".into(),
            dedup: None,
            derived: Vec::new(),
        });
        plan.finish();
        plan
    }

    pub(crate) fn filter(mut self, text: &str) -> Plan {
        self.0.filter = Some(compile(&self.0.schema, text));
        self
    }

    pub(crate) fn disorder(mut self, micros: i64) -> Plan {
        self.0.disorder = micros;
        self
    }

    pub(crate) fn on_late(mut self, on_late: OnLate) -> Plan {
        self.0.on_late = on_late;
        self
    }

    pub(crate) fn dedup(mut self, id: &str, horizon: i64) -> Plan {
        self.0.id = Some(self.0.schema.index_of(id).unwrap());
        self.0.dedup = Some(horizon);
        self
    }

    pub(crate) fn derive(mut self, name: &str, text: &str) -> Plan {
        self.0.derived.push(NamedExpr { name: name.into(), expr: compile(&self.0.schema, text) });
        self.finish();
        self
    }

    pub(crate) fn rule(mut self, column: &str, set: impl FnOnce(&mut ValueRule)) -> Plan {
        let column = self.0.schema.index_of(column).unwrap();
        let mut rule = ValueRule { column, required: false, min: None, max: None, allowed: None };
        set(&mut rule);
        self.0.rules.push(rule);
        self
    }

    fn finish(&mut self) {
        let mut fields =
            vec![Field::new(TIME_COLUMN, time_type(), false), Field::new(ORD_COLUMN, DataType::UInt64, false)];
        fields.extend(self.0.schema.fields().iter().map(|f| f.as_ref().clone()));
        let derived = self.0.derived.iter().map(|d| Field::new(&d.name, d.expr.data_type.clone(), true));
        fields.extend(derived);
        self.0.stream_schema = Arc::new(Schema::new(fields));
    }

    pub(crate) fn open(&self) -> Result<SourceReader, IngestError> {
        SourceReader::open(&self.0, ReaderOptions::default())
    }

    /// Reads everything, `rows_max` rows at a time, one partition after the other.
    pub(crate) fn read(&self, rows_max: usize) -> Outcome {
        self.open().unwrap().read_all(rows_max)
    }
}

fn compile(schema: &Schema, text: &str) -> Expr {
    let scope: Vec<_> =
        schema.fields().iter().map(|f| (f.name().as_str(), f.name().as_str(), f.data_type().clone())).collect();
    Expr::compile(text, &scope).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Everything that came out of a source.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub batch: RecordBatch,
    pub dead: Vec<DeadLetter>,
    pub counts: Counts,
    pub watermark: i64,
}

impl Outcome {
    /// Kind, offset and bytes of each dead letter.
    pub(crate) fn letters(&self) -> Vec<(&'static str, u64, String)> {
        let letter = |l: &DeadLetter| (l.kind.as_str(), l.offset, String::from_utf8_lossy(&l.original).into_owned());
        self.dead.iter().map(letter).collect()
    }

    /// A column's values as text, null as the empty text.
    pub(crate) fn column(&self, name: &str) -> Vec<String> {
        let column = self.batch.column_by_name(name).unwrap();
        let format = arrow::util::display::FormatOptions::new();
        let format = arrow::util::display::ArrayFormatter::try_new(column, &format).unwrap();
        (0..column.len()).map(|row| format.value(row).to_string()).collect()
    }

    /// Offsets of the rows that went on.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        let ords: &arrow::array::UInt64Array = self.batch.column(1).as_any().downcast_ref().unwrap();
        ords.values().iter().map(|o| crate::base::Position::from(crate::base::Ord64(*o)).offset).collect()
    }
}

impl SourceReader {
    pub(crate) fn read_all(&mut self, rows_max: usize) -> Outcome {
        let (mut parts, mut dead, mut counts, mut watermark) = (Vec::new(), Vec::new(), Counts::default(), i64::MIN);
        for partition in 0..self.partitions() {
            while let Some(decoded) = self.read(partition, rows_max).unwrap() {
                let Decoded { batch, dead: letters, rows_read, counts: n, .. } = decoded;
                assert!(rows_read as usize <= rows_max && rows_read > 0);
                assert_eq!(batch.num_rows() as u64, n.accepted);
                assert_eq!(rows_read, n.read);
                parts.push(batch);
                dead.extend(letters);
                counts.add(&n);
                watermark = decoded.watermark;
            }
        }
        // Findings are told check by check; over cuts only their order by position is the same.
        dead.sort_by_key(|l| (l.partition, l.offset));
        let schema = parts.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        Outcome { batch: concat_batches(&schema, &parts).unwrap(), dead, counts, watermark }
    }
}

/// A temporary directory to put files in.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn text(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn parquet(&self, name: &str, batch: &RecordBatch, group_rows: usize) -> PathBuf {
        let path = self.0.path().join(name);
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        path
    }
}

/// Path of the shared test data, when it is here.
pub(crate) fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var("TIDEMILL_DATA")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if !path.exists() {
        println!("skipped: {} is not here; set TIDEMILL_DATA", path.display());
        return None;
    }
    Some(path)
}

/// A server that answers requests from a list (status and body), then with 500. Status 0 never answers. Returns its
/// address and the number of requests so far.
pub(crate) fn http(answers: Vec<(u16, String)>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    std::thread::spawn(move || {
        let mut hung = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let n = counter.fetch_add(1, Ordering::SeqCst);
            let (status, body) = answers.get(n).cloned().unwrap_or((500, String::new()));
            if status == 0 {
                hung.push(stream);
                continue;
            }
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 16]);
        }
    });
    (url, asked)
}
