//! Reads a source, partition by partition: decode, check, and hand on what is sound.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use serde::{Deserialize, Serialize};

use super::IngestError;
use super::checks::{Checks, Counts, count_kinds};
use super::dead_letter::{DeadLetter, DeadLetterKind};
use super::decode::{Offsets, Originals, RawChunk};
use super::dedup::{AheadState, DedupDelta, Kept, Scout, can_be_id, ids};
use super::file::RawReader;
use super::file::parquet::ParquetReader;
use super::file::text::TextReader;
use super::generator::Generator;
use super::kafka::{self, Reading, Taken, Topic, TopicWatch};
use super::lateness::Lateness;
use super::rows::{Bad, Rows};
use crate::base::{EventTime, Micros, format_time};
use crate::plan::model::{Connector, FileFormat, Plan, SourcePlan, StreamRef};

/// What a reader must know besides its own plan.
#[derive(Clone, Debug, Default)]
pub struct ReaderOptions {
    /// Rank of the source in the plan: the highest byte of `_ord`.
    pub rank: u8,
    /// Columns of [`SourcePlan::schema`] that name an entity or a join key: a row in which one is null is a dead letter.
    pub keys: Vec<usize>,
    /// Next offset of each partition; `None` starts at the beginning.
    pub resume: Option<Vec<u64>>,
    /// How topics are read.
    pub reading: Reading,
    /// With `resume`: how far duplicates over several partitions were decided, by partition.
    pub ahead: Vec<AheadState>,
}

impl ReaderOptions {
    /// The options of source `source` of a plan, from the beginning.
    ///
    /// Keys are the entities of the views over the source's stream, of the views over a join whose left side it is, and
    /// the join key where it is the right side (a label without an id is nobody's).
    pub fn of(plan: &Plan, source: usize) -> ReaderOptions {
        let mut names: Vec<&str> = Vec::new();
        for view in &plan.views {
            let reads = match view.stream {
                StreamRef::Source(s) => s == source,
                StreamRef::Join(j) => plan.joins[j].left == source,
            };
            if reads {
                names.extend(view.entity_names.iter().map(String::as_str));
            }
        }
        let schema = &plan.sources[source];
        let rights = plan.joins.iter().filter(|join| join.right == source);
        names.extend(rights.map(|join| schema.stream_schema.field(join.right_on).name().as_str()));
        let mut keys: Vec<usize> = names.iter().filter_map(|name| schema.schema.index_of(name).ok()).collect();
        keys.sort_unstable();
        keys.dedup();
        ReaderOptions { rank: u8::try_from(source).unwrap_or(u8::MAX), keys, ..ReaderOptions::default() }
    }
}

/// What one read of one partition brought.
#[derive(Debug)]
pub struct Decoded {
    /// The sound rows, in [`SourcePlan::stream_schema`], in the order of their offsets; may have fewer rows than were read.
    pub batch: RecordBatch,
    /// The rows that were turned away, in the order in which the checks found them.
    pub dead: Vec<DeadLetter>,
    /// Raw rows read.
    pub rows_read: u64,
    /// Offset of the first raw row that was not read.
    pub next_offset: u64,
    /// Size of the decoded rows, as values, without the slack of buffers.
    pub bytes: usize,
    /// The partition's watermark after these rows; `i64::MIN` before its first sound row.
    pub watermark: EventTime,
    /// What became of the raw rows.
    pub counts: Counts,
}

/// What asking a partition brought.
#[derive(Debug)]
pub enum Polled {
    /// Rows.
    Rows(Box<Decoded>),
    /// Nothing now. With `caught_up` there is nothing to come by now, else it is on its way.
    Nothing {
        /// Whether everything that is there has been read.
        caught_up: bool,
    },
    /// Nothing ever: the partition is at its end.
    End,
}

/// Reads the partitions of one source.
///
/// What it hands on depends on the partitions' rows alone: not on `rows_max`, and not on which partition is read when.
pub struct SourceReader {
    name: String,
    rank: u8,
    checks: Arc<Checks>,
    stream: SchemaRef,
    partitions: Vec<Partition>,
    dedup: Dedup,
    /// The topic that partitions come from, and its source's disorder for those that appear.
    topic: Option<(Topic, Lateness)>,
    /// The files that partitions are, as they were when they were opened.
    files: Vec<FileState>,
}

/// A file of a source, by which it is recognised when a job resumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileState {
    /// Its name without the folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// How duplicates are found.
enum Dedup {
    /// They are not looked for.
    Off,
    /// Within each partition, the order of its rows says which was kept: by the id in this column.
    InOrder { id: usize, horizon: Micros, kept: Vec<Kept>, noted: bool },
    /// Over several partitions, whatever was decided ahead.
    Ahead(Box<Scout>),
}

struct Partition {
    raw: Raw,
    lateness: Lateness,
    next_offset: u64,
}

/// Where a partition's rows come from.
enum Raw {
    /// Something that ends and is always there.
    Finite(Box<dyn RawReader>),
    /// A topic.
    Topic(Box<kafka::Partition>),
}

impl SourceReader {
    /// Opens every partition of a source; a topic's are entered by [`SourceReader::discover`] or [`SourceReader::enter`].
    ///
    /// # Errors
    /// When a file cannot be opened, is damaged as a whole, or has other columns than the plan; when no broker answers or
    /// the topic is not there.
    pub fn open(plan: &SourcePlan, options: ReaderOptions) -> Result<SourceReader, IngestError> {
        let refuse = |what| IngestError::source(&plan.name, what);
        let checks = Arc::new(Checks::new(plan, options.keys.clone()).map_err(refuse)?);
        let offset = |partition: usize| options.resume.as_ref().and_then(|r| r.get(partition)).copied().unwrap_or(0);
        let lateness = Lateness::new(plan.disorder);
        let topic = match &plan.connector {
            Connector::Kafka(connector) => {
                Some((Topic::open(plan, connector, options.reading, options.resume.as_deref())?, lateness))
            }
            _ => None,
        };
        let raws = open_partitions(plan, &offset)?;
        if raws.len() > usize::from(u16::MAX) + 1 {
            return Err(refuse(format!("it has {} files; 65,536 is the most, so merge some", raws.len())));
        }
        if topic.is_none() && options.resume.as_ref().is_some_and(|resume| resume.len() != raws.len()) {
            let was = options.resume.as_ref().map_or(0, Vec::len);
            return Err(refuse(format!("it had {was} partitions and now has {}; put the files back", raws.len())));
        }
        let dedup = match (plan.dedup, plan.id) {
            (None, _) => Dedup::Off,
            (Some(_), None) => {
                return Err(refuse("`dedup` needs to know the `id` of a row; name its column".into()));
            }
            (Some(_), Some(id)) if !can_be_id(plan.schema.field(id).data_type()) => {
                let field = plan.schema.field(id);
                let (name, data_type) = (field.name(), field.data_type());
                return Err(refuse(format!(
                    "`dedup` cannot compare ids of type {data_type}, as in `{name}`; ids are whole numbers, text or times"
                )));
            }
            // A topic has no end to look ahead to.
            (Some(horizon), Some(id)) if raws.len() == 1 || topic.is_some() => {
                Dedup::InOrder { id, horizon, kept: raws.iter().map(|_| Kept::new(horizon)).collect(), noted: false }
            }
            (Some(horizon), Some(id)) => {
                let decided = |p: usize| options.ahead.get(p).map_or_else(|| offset(p), |state| state.next_offset);
                let ahead = open_partitions(plan, &decided)?.into_iter().enumerate();
                let ahead = ahead.map(|(p, raw)| (raw, lateness, decided(p))).collect();
                let mut scout = Scout::new(&plan.name, checks.clone(), id, horizon, ahead);
                scout.restore(&options.ahead);
                Dedup::Ahead(Box::new(scout))
            }
        };
        let partitions = raws.into_iter().enumerate().map(|(p, raw)| Partition {
            raw: Raw::Finite(raw),
            lateness,
            next_offset: offset(p),
        });
        Ok(SourceReader {
            name: plan.name.clone(),
            rank: options.rank,
            checks,
            stream: plan.stream_schema.clone(),
            partitions: partitions.collect(),
            dedup,
            topic,
            files: files_of(plan)?,
        })
    }

    /// Whether it is a topic.
    pub fn is_topic(&self) -> bool {
        self.topic.is_some()
    }

    /// Whether its partitions have no end and new ones may appear.
    pub fn is_live(&self) -> bool {
        self.topic.as_ref().is_some_and(|(topic, _)| topic.is_live())
    }

    /// Enters the topic's partitions that are there by now, each at its first offset; returns the numbers of those that
    /// were entered. Other sources have theirs from the start.
    ///
    /// # Errors
    /// When a partition cannot be assigned.
    pub fn discover(&mut self) -> Result<std::ops::Range<usize>, IngestError> {
        let before = self.partitions.len();
        let Some((topic, lateness)) = &mut self.topic else { return Ok(before..before) };
        let lateness = *lateness;
        for partition in topic.discover()? {
            self.add(partition, lateness);
        }
        Ok(before..self.partitions.len())
    }

    /// Enters the topic's next partition at an offset, as a tick log or a checkpoint says.
    ///
    /// # Errors
    /// When the source is no topic, or the partition cannot be assigned.
    pub fn enter(&mut self, offset: u64) -> Result<(), IngestError> {
        let Some((topic, lateness)) = &mut self.topic else {
            let what = "the tick log is of a topic; give the dataflow file that it was written with";
            return Err(IngestError::source(&self.name, what));
        };
        let lateness = *lateness;
        let partition = topic.enter_at(offset)?;
        self.add(partition, lateness);
        Ok(())
    }

    fn add(&mut self, partition: kafka::Partition, lateness: Lateness) {
        let next_offset = partition.next_offset();
        self.partitions.push(Partition { raw: Raw::Topic(Box::new(partition)), lateness, next_offset });
        if let Dedup::InOrder { horizon, kept, noted, .. } = &mut self.dedup {
            let mut new = Kept::new(*horizon);
            new.note_news(*noted);
            kept.push(new);
        }
    }

    /// Has `wake` called, from another thread, when a partition that had nothing has something.
    pub fn wake_with(&self, wake: Box<dyn Fn() + Send + Sync>) {
        if let Some((topic, _)) = &self.topic {
            topic.wake_with(wake);
        }
    }

    /// When the topic's brokers were asked the first and the last of the questions that they have answered without a break;
    /// silence outside of that may be an outage.
    pub fn answering(&self) -> Option<(Instant, Instant)> {
        self.topic.as_ref().and_then(|(topic, _)| topic.answering())
    }

    /// Looks at the topic from outside; none of a source that is none.
    pub fn topic_watch(&self) -> Option<TopicWatch> {
        self.topic.as_ref().and_then(|(topic, _)| topic.watched())
    }

    /// Number of partitions: one per file, and those of a topic that were entered.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Offset of the first raw row of a partition that has not been read.
    pub fn next_offset(&self, partition: usize) -> u64 {
        self.partitions[partition].next_offset
    }

    /// A partition's watermark: rows with event time below it are complete. `i64::MIN` before the first sound row; a
    /// partition that has come to its end no longer counts, which the caller knows from [`SourceReader::read`].
    pub fn watermark(&self, partition: usize) -> EventTime {
        self.partitions[partition].lateness.watermark()
    }

    /// Raises a partition's watermark, as when a job resumes: the rows before the offset are not read again.
    pub fn raise_watermark(&mut self, partition: usize, watermark: EventTime) {
        // The look-ahead for duplicates has what it knows of lateness from its own state.
        self.partitions[partition].lateness.raise(watermark);
    }

    /// The file that a partition is, if it is one.
    pub fn file(&self, partition: usize) -> Option<&FileState> {
        self.files.get(partition)
    }

    /// Has the ids of rows that are kept from now on noted for [`SourceReader::take_ids`].
    pub fn keep_ids(&mut self, noted: bool) {
        match &mut self.dedup {
            Dedup::Off => {}
            Dedup::InOrder { kept, noted: later, .. } => {
                *later = noted;
                kept.iter_mut().for_each(|kept| kept.note_news(noted));
            }
            Dedup::Ahead(scout) => scout.kept().note_news(noted),
        }
    }

    /// The ids of rows that were kept since the last call, or with `whole` all that may still find duplicates.
    pub fn take_ids(&mut self, whole: bool) -> Vec<DedupDelta> {
        let delta = |(partition, kept): (usize, &mut Kept)| {
            let bytes = kept.save(whole)?;
            Some(DedupDelta { source: self.name.clone(), partition: partition as u16, bytes })
        };
        match &mut self.dedup {
            Dedup::Off => Vec::new(),
            Dedup::InOrder { kept, .. } => kept.iter_mut().enumerate().filter_map(delta).collect(),
            Dedup::Ahead(scout) => delta((0, scout.kept())).into_iter().collect(),
        }
    }

    /// How far duplicates over several partitions are decided, by partition; nothing where they are found in order.
    pub fn ahead(&self) -> Vec<AheadState> {
        match &self.dedup {
            Dedup::Ahead(scout) => scout.state(),
            _ => Vec::new(),
        }
    }

    /// Takes in ids that [`SourceReader::take_ids`] gave, the oldest first. Those that can find no duplicates any more are
    /// forgotten again.
    ///
    /// # Errors
    /// When the bytes are damaged, or of a partition that is not there.
    pub fn load_ids(&mut self, delta: &DedupDelta) -> Result<(), IngestError> {
        let refuse = |what: String| {
            let partition = delta.partition;
            IngestError::Checkpoint { what: format!("ids of source `{}`, partition {partition}: {what}", self.name) }
        };
        let partition = usize::from(delta.partition);
        match &mut self.dedup {
            // The job no longer looks for duplicates.
            Dedup::Off => Ok(()),
            Dedup::InOrder { kept, .. } => {
                let there = kept.get_mut(partition).zip(self.partitions.get(partition));
                let (kept, state) = there.ok_or_else(|| refuse("there is no such partition".into()))?;
                kept.load(&delta.bytes).map_err(refuse)?;
                kept.advance(state.lateness.watermark());
                Ok(())
            }
            Dedup::Ahead(scout) => {
                scout.kept().load(&delta.bytes).map_err(refuse)?;
                scout.forget();
                Ok(())
            }
        }
    }

    /// Reads the next `min(rows_max, remaining)` raw rows of a partition; `None` at its end, and where a topic has nothing
    /// now. Never 0 raw rows.
    ///
    /// # Errors
    /// When the partition cannot be read on. Bad rows are in [`Decoded::dead`].
    pub fn read(&mut self, partition: usize, rows_max: usize) -> Result<Option<Decoded>, IngestError> {
        Ok(match self.poll(partition, rows_max, None)? {
            Polled::Rows(decoded) => Some(*decoded),
            Polled::Nothing { .. } | Polled::End => None,
        })
    }

    /// Like [`SourceReader::read`], and tells apart what is not there yet; of a topic no rows from offset `until` on.
    ///
    /// # Errors
    /// As [`SourceReader::read`].
    pub fn poll(&mut self, partition: usize, rows_max: usize, until: Option<u64>) -> Result<Polled, IngestError> {
        let chunk = match &mut self.partitions[partition].raw {
            Raw::Finite(raw) => match raw.read(rows_max.max(1))? {
                Some(chunk) => chunk,
                None => return Ok(Polled::End),
            },
            Raw::Topic(topic) => match topic.take(rows_max.max(1), until)? {
                Taken::Rows(chunk) => *chunk,
                Taken::Nothing { caught_up } => return Ok(Polled::Nothing { caught_up }),
                Taken::End => return Ok(Polled::End),
            },
        };
        self.checked(partition, chunk).map(|decoded| Polled::Rows(Box::new(decoded)))
    }

    fn checked(&mut self, partition: usize, mut chunk: RawChunk) -> Result<Decoded, IngestError> {
        let state = &mut self.partitions[partition];
        state.next_offset = chunk.next_offset;
        let number = partition as u16;
        let internal = |e| IngestError::internal(&self.name, e);
        let mut checked = self.checks.run(&mut chunk, number, &mut state.lateness).map_err(internal)?;
        let watermark = state.lateness.watermark();
        let duplicates = self.dedup.find(&self.name, partition, &checked.rows, &chunk, watermark)?;
        checked.rows.reject(duplicates, &chunk, &mut checked.letters).map_err(internal)?;
        let batch = self.checks.emit(checked.rows, &chunk, &self.stream, self.rank, number).map_err(internal)?;
        let dead = count_kinds(&checked.letters);
        let counted = batch.num_rows() as u64 + checked.filtered + checked.late_dropped + chunk.blank;
        let letters = checked.letters.list.len() as u64;
        let counts = Counts {
            read: chunk.rows,
            accepted: batch.num_rows() as u64,
            filtered: checked.filtered,
            late_dropped: checked.late_dropped,
            blank: chunk.blank,
            lost: chunk.rows.saturating_sub(counted + letters),
            dead,
        };
        Ok(Decoded {
            bytes: value_bytes(&batch),
            batch,
            dead: checked.letters.list,
            rows_read: chunk.rows,
            next_offset: chunk.next_offset,
            watermark: state.lateness.watermark(),
            counts,
        })
    }
}

impl Dedup {
    /// The duplicates among rows that passed every other check.
    fn find(
        &mut self,
        source: &str,
        partition: usize,
        rows: &Rows,
        chunk: &RawChunk,
        watermark: EventTime,
    ) -> Result<Vec<Bad>, IngestError> {
        let bad = |row: usize, kept: EventTime| Bad {
            row,
            kind: DeadLetterKind::Duplicate,
            reason: format!("a row with the same id and event time {} was kept", format_time(kept)),
        };
        Ok(match self {
            Dedup::Off => Vec::new(),
            Dedup::InOrder { id, kept, .. } => {
                let kept = &mut kept[partition];
                let ids = ids(rows.batch.column(*id)).map_err(|e| IngestError::internal(source, e))?;
                let found = ids.into_iter().enumerate().filter_map(|(row, id)| {
                    let first = kept.offer(id, rows.time(row)?)?;
                    Some(bad(row, first))
                });
                let found = found.collect();
                kept.advance(watermark);
                found
            }
            Dedup::Ahead(scout) => {
                let mut duplicates = scout.duplicates(partition, chunk.next_offset)?.into_iter().peekable();
                let mut found = Vec::new();
                for row in 0..rows.len() {
                    let offset = chunk.offsets.get(rows.place(row));
                    if let Some((_, kept)) = duplicates.next_if(|(at, _)| *at == offset) {
                        found.push(bad(row, kept));
                    }
                }
                found
            }
        })
    }
}

fn open_partitions(plan: &SourcePlan, offset: &dyn Fn(usize) -> u64) -> Result<Vec<Box<dyn RawReader>>, IngestError> {
    match &plan.connector {
        Connector::File(file) => {
            let files = file.files.iter().enumerate();
            let open = files.map(|(p, path)| -> Result<Box<dyn RawReader>, IngestError> {
                match file.format {
                    FileFormat::Parquet => {
                        Ok(Box::new(ParquetReader::open(&plan.name, path, &plan.schema, offset(p))?))
                    }
                    FileFormat::Ndjson | FileFormat::Csv => {
                        Ok(Box::new(TextReader::open(&plan.name, path, file.format, &plan.schema, offset(p))?))
                    }
                }
            });
            open.collect()
        }
        Connector::Kafka(_) => Ok(Vec::new()),
        Connector::Generator(generator) => {
            let made = Generator::new(generator, &plan.schema);
            let mut made = made.map_err(|e| IngestError::source(&plan.name, e.to_string()))?;
            made.seek(offset(0));
            Ok(vec![Box::new(made)])
        }
    }
}

fn files_of(plan: &SourcePlan) -> Result<Vec<FileState>, IngestError> {
    let Connector::File(file) = &plan.connector else { return Ok(Vec::new()) };
    let state = |path: &PathBuf| {
        let error = |error| IngestError::Open { source_name: plan.name.clone(), path: path.clone(), error };
        let bytes = std::fs::metadata(path).map_err(error)?.len();
        Ok(FileState { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes })
    };
    file.files.iter().map(state).collect()
}

impl RawReader for Generator {
    fn read(&mut self, rows_max: usize) -> Result<Option<RawChunk>, IngestError> {
        let first = self.offset();
        let Some(batch) = Generator::read(self, rows_max) else {
            return Ok(None);
        };
        Ok(Some(RawChunk {
            offsets: Offsets::From(first),
            originals: Originals::Columns,
            failed: Vec::new(),
            blank: 0,
            rows: batch.num_rows() as u64,
            next_offset: first + batch.num_rows() as u64,
            batch,
        }))
    }
}

/// Bytes of the values of a batch.
fn value_bytes(batch: &RecordBatch) -> usize {
    let rows = batch.num_rows();
    let column = |column: &arrow::array::ArrayRef| match column.data_type() {
        DataType::Utf8 => column
            .as_string::<i32>()
            .value_offsets()
            .last()
            .map_or(0, |end| *end as usize - column.as_string::<i32>().value_offsets()[0] as usize + 4 * rows),
        other => other.primitive_width().map_or(rows.div_ceil(8), |width| width * rows),
    };
    batch.columns().iter().map(column).sum()
}
