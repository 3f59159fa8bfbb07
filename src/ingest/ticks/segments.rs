//! The files of a tick log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::{TickLogContents, TickLogError, TickRecord, TornTail};
use crate::base::{Tick, failpoint};

/// First bytes of a segment.
pub(super) const FORMAT: [u8; 8] = *b"TMTICKS1";
/// A segment that has grown beyond this is followed by another: some thousands of ticks, so that few more are read again
/// and kept than are needed.
const SEGMENT_BYTES: u64 = if cfg!(test) { 2 << 10 } else { 1 << 20 };
/// Length and checksum before a record.
const FRAME: usize = 8;
/// No record is longer; a larger length is a sign of damage.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// What the log's thread writes to.
pub(super) trait Disk: Send {
    /// Appends whole records, of which the first is of tick `first`, and makes them durable.
    fn append(&mut self, first: Tick, records: &[u8]) -> io::Result<()>;
    /// Where the records go, for messages.
    fn path(&self) -> PathBuf;
}

/// Appends a record in its frame.
pub(super) fn encode(record: &TickRecord, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME]);
    serde_json::to_writer(&mut *out, record).expect("a record of numbers and texts is JSON and memory takes it");
    let (length, crc) = (out.len() - start - FRAME, crc32fast::hash(&out[start + FRAME..]));
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 4..start + FRAME].copy_from_slice(&crc.to_le_bytes());
}

/// The record at the start of `bytes` and the bytes it takes.
fn decode(bytes: &[u8]) -> Result<(TickRecord, usize), String> {
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
    let (Some(length), Some(crc)) = (word(0), word(4)) else {
        return Err("the file ends within a record's frame".into());
    };
    let length = length as usize;
    if length == 0 || length > RECORD_BYTES_MAX {
        return Err(format!("a record of {length} bytes"));
    }
    let body = bytes.get(FRAME..FRAME + length).ok_or("the file ends within a record")?;
    if crc32fast::hash(body) != crc {
        return Err("the checksum does not match".into());
    }
    let record = serde_json::from_slice(body).map_err(|e| format!("not a tick record: {e}"))?;
    Ok((record, FRAME + length))
}

/// The segments of a directory; see the module's head for the format.
pub(super) struct Segments {
    dir: PathBuf,
    generation: u64,
    /// The last segment and its length; none before the first record.
    last: Option<(File, PathBuf, u64)>,
}

impl Segments {
    /// Writes a generation's segments; none of them is there before its first record.
    pub fn begin(dir: &Path, generation: u64) -> Result<Self, TickLogError> {
        fs::create_dir_all(dir).map_err(error("create", dir))?;
        // The directory itself must survive a crash, as its files do.
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(parent).map_err(error("sync", parent))?;
        Ok(Segments { dir: dir.to_owned(), generation, last: None })
    }

    fn next_segment(&mut self, first: Tick) -> io::Result<()> {
        let name = match self.generation {
            0 => format!("ticks-{first:020}.log"),
            generation => format!("ticks-{first:020}-{generation}.log"),
        };
        let path = self.dir.join(name);
        self.trim();
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        // Zeros up to the end: writing over them changes no metadata, so that syncing a record does not wait for the file
        // system's journal and all that others have put there.
        let mut zeros = vec![0; SEGMENT_BYTES as usize];
        zeros[..FORMAT.len()].copy_from_slice(&FORMAT);
        file.write_all(&zeros)?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(FORMAT.len() as u64))?;
        sync_dir(&self.dir)?;
        self.last = Some((file, path, FORMAT.len() as u64));
        Ok(())
    }

    /// Cuts the zeros off the last segment.
    fn trim(&mut self) {
        if let Some((file, _, length)) = &self.last {
            // Readers take zeros for what they are.
            let _ = file.set_len(*length);
        }
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.trim();
    }
}

impl Disk for Segments {
    fn append(&mut self, first: Tick, records: &[u8]) -> io::Result<()> {
        if self.last.as_ref().is_none_or(|(_, _, length)| *length + records.len() as u64 > SEGMENT_BYTES) {
            self.next_segment(first)?;
        }
        let Some((file, _, length)) = &mut self.last else {
            return Ok(());
        };
        file.write_all(records)?;
        file.sync_data()?;
        *length += records.len() as u64;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.last.as_ref().map_or_else(|| self.dir.clone(), |(_, path, _)| path.clone())
    }
}

/// Removes the segments whose ticks are all below `tick`, up to the first that was written to since `idle_since`.
pub(super) fn remove_before(dir: &Path, tick: Tick, idle_since: SystemTime) -> Result<usize, TickLogError> {
    let segments = list(dir)?;
    let mut removed = 0;
    for pair in segments.windows(2).take_while(|pair| pair[1].first <= tick) {
        let path = &pair[0].path;
        let written = fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(error("read", path))?;
        if written >= idle_since {
            break;
        }
        fs::remove_file(path).map_err(error("remove", path))?;
        failpoint("ticks.removed");
        // Before the next, so that no hole is left whatever is lost in a crash.
        sync_dir(dir).map_err(error("sync", dir))?;
        removed += 1;
    }
    Ok(removed)
}

/// Removes the segments that a later generation has made void.
pub(super) fn remove_void(dir: &Path) -> Result<(), TickLogError> {
    let valid = list(dir)?;
    for segment in list_all(dir)?.iter().filter(|segment| !valid.contains(segment)) {
        fs::remove_file(&segment.path).map_err(error("remove", &segment.path))?;
    }
    Ok(())
}

/// Reads all records, or those from tick `from` on.
pub(super) fn read(dir: &Path, from: Option<Tick>) -> Result<TickLogContents, TickLogError> {
    let mut contents = TickLogContents::default();
    let mut segments = list(dir)?;
    if segments.is_empty() {
        contents.next = from.unwrap_or(0);
    }
    let gone = |from: Tick, first: Tick| TickLogError::Gone { path: dir.to_owned(), from, first };
    if let (Some(from), Some(Segment { first, .. })) = (from, segments.first()) {
        if from < *first {
            return Err(gone(from, *first));
        }
        let needed = segments.iter().rposition(|segment| segment.first <= from).unwrap_or(0);
        segments.drain(..needed);
    }
    let newest = segments.last().map_or(0, |segment| segment.generation);
    for (i, segment) in segments.iter().enumerate() {
        let next = segments.get(i + 1);
        let whole = read_segment(segment, next, newest, from, &mut contents)?;
        if let (false, Some(next)) = (whole, next) {
            tracing::warn!(
                segment = %segment.path.display(),
                from = contents.next,
                to = next.first,
                "ticks of an earlier start are missing or damaged; the log counts from the later start on"
            );
            contents.records.clear();
            if let Some(from) = from.filter(|from| *from < next.first) {
                return Err(gone(from, next.first));
            }
        }
    }
    Ok(contents)
}

/// Reads a segment up to where the next one begins. False when it does not reach there, as one of a generation before `newest` may.
fn read_segment(
    segment: &Segment,
    next: Option<&Segment>,
    newest: u64,
    from: Option<Tick>,
    contents: &mut TickLogContents,
) -> Result<bool, TickLogError> {
    let Segment { first, path, .. } = segment;
    let bytes = fs::read(path).map_err(error("read", path))?;
    let torn = |at: usize| TornTail { path: path.clone(), at: at as u64, bytes: (bytes.len() - at) as u64 };
    // A later start may not have needed this one; what it wrote itself had been synced.
    let fault = |at: usize, what: String| match segment.generation < newest {
        true => Ok(false),
        false => Err(TickLogError::Damaged { path: path.clone(), at: at as u64, what }),
    };
    contents.next = *first;
    if !bytes.starts_with(&FORMAT) {
        if next.is_none() && FORMAT.starts_with(&bytes) {
            contents.torn = Some(torn(0));
            return Ok(true);
        }
        return fault(0, "it is not a tick log of this version".into());
    }
    let mut at = FORMAT.len();
    // What is behind the place where a later start went on is void.
    while at < bytes.len() && next.is_none_or(|next| contents.next < next.first) {
        match decode(&bytes[at..]) {
            Ok((record, length)) => {
                if record.tick != contents.next {
                    return fault(at, format!("it has tick {} where {} comes next", record.tick, contents.next));
                }
                contents.next += 1;
                if from.is_none_or(|from| record.tick >= from) {
                    contents.records.push(record);
                }
                at += length;
            }
            Err(_) if bytes[at..].iter().all(|byte| *byte == 0) => break,
            Err(_) if next.is_none() => {
                contents.torn = Some(torn(at));
                return Ok(true);
            }
            Err(what) => return fault(at, what),
        }
    }
    match next {
        Some(next) if contents.next < next.first => fault(
            at,
            format!("it ends where tick {} comes next, and the next segment begins with {}", contents.next, next.first),
        ),
        _ => Ok(true),
    }
}

/// A segment's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// The start that wrote it.
    pub generation: u64,
    /// Its first tick.
    pub first: Tick,
    pub path: PathBuf,
}

/// The valid segments in order: one of a later generation makes void what earlier ones have from its first tick on.
pub(super) fn list(dir: &Path) -> Result<Vec<Segment>, TickLogError> {
    let mut valid: Vec<Segment> = Vec::new();
    for segment in list_all(dir)? {
        while valid.last().is_some_and(|last| last.first >= segment.first) {
            valid.pop();
        }
        valid.push(segment);
    }
    Ok(valid)
}

/// All segments by generation and first tick.
fn list_all(dir: &Path) -> Result<Vec<Segment>, TickLogError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(error("list", dir))?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.map_err(error("list", dir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some(name) = name.strip_prefix("ticks-").and_then(|n| n.strip_suffix(".log")) else { continue };
        let (first, generation) = name.split_once('-').unwrap_or((name, "0"));
        if let (Ok(first), Ok(generation)) = (first.parse(), generation.parse()) {
            segments.push(Segment { generation, first, path });
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> TickLogError + 'a {
    move |source| TickLogError::Io { action, path: path.to_owned(), durable: 0, source: Arc::new(source) }
}
