//! The files of a tick log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{TickLogContents, TickLogError, TickRecord, TornTail};
use crate::base::Tick;

/// First bytes of a segment.
pub(super) const FORMAT: [u8; 8] = *b"TMTICKS1";
/// A segment that has grown beyond this is followed by another.
const SEGMENT_BYTES: u64 = 64 << 20;
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
    /// The last segment and its length; none before the first record.
    last: Option<(File, PathBuf, u64)>,
}

impl Segments {
    pub fn create(dir: &Path) -> Result<Self, TickLogError> {
        fs::create_dir_all(dir).map_err(error("create", dir))?;
        if !list(dir)?.is_empty() {
            return Err(TickLogError::Exists { path: dir.to_owned() });
        }
        // The directory itself must survive a crash, as its files do.
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(parent).map_err(error("sync", parent))?;
        Ok(Segments { dir: dir.to_owned(), last: None })
    }

    pub fn resume(dir: &Path, contents: &TickLogContents) -> Result<Self, TickLogError> {
        fs::create_dir_all(dir).map_err(error("create", dir))?;
        let Some((_, path)) = list(dir)?.pop() else {
            return Self::create(dir);
        };
        let open = || {
            let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
            if let Some(torn) = &contents.torn {
                file.set_len(torn.at)?;
            }
            let mut length = file.seek(SeekFrom::End(0))?;
            if length < FORMAT.len() as u64 {
                // The crash tore even the segment's first bytes.
                file.set_len(0)?;
                file.rewind()?;
                file.write_all(&FORMAT)?;
                length = FORMAT.len() as u64;
            }
            file.sync_data()?;
            Ok((file, path.clone(), length))
        };
        Ok(Segments { dir: dir.to_owned(), last: Some(open().map_err(error("resume", &path))?) })
    }

    fn begin(&mut self, first: Tick) -> io::Result<()> {
        let path = self.dir.join(format!("ticks-{first:020}.log"));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(&FORMAT)?;
        sync_dir(&self.dir)?;
        self.last = Some((file, path, FORMAT.len() as u64));
        Ok(())
    }
}

impl Disk for Segments {
    fn append(&mut self, first: Tick, records: &[u8]) -> io::Result<()> {
        if self.last.as_ref().is_none_or(|(_, _, length)| *length > SEGMENT_BYTES) {
            self.begin(first)?;
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

pub(super) fn read(dir: &Path) -> Result<TickLogContents, TickLogError> {
    let mut contents = TickLogContents::default();
    let segments = list(dir)?;
    for (i, (first, path)) in segments.iter().enumerate() {
        let is_last = i + 1 == segments.len();
        let bytes = fs::read(path).map_err(error("read", path))?;
        let damaged = |at: usize, what: String| TickLogError::Damaged { path: path.clone(), at: at as u64, what };
        let torn = |at: usize| TornTail { path: path.clone(), at: at as u64, bytes: (bytes.len() - at) as u64 };
        let expected = contents.records.last().map_or(*first, |r: &TickRecord| r.tick + 1);
        if expected != *first {
            return Err(damaged(0, format!("it begins with tick {first} where {expected} comes next")));
        }
        if !bytes.starts_with(&FORMAT) {
            if is_last && FORMAT.starts_with(&bytes) {
                contents.torn = Some(torn(0));
                break;
            }
            return Err(damaged(0, "it is not a tick log of this version".into()));
        }
        let mut at = FORMAT.len();
        while at < bytes.len() {
            match decode(&bytes[at..]) {
                Ok((record, length)) => {
                    let expected = contents.records.last().map_or(*first, |r| r.tick + 1);
                    if record.tick != expected {
                        return Err(damaged(at, format!("it has tick {} where {expected} comes next", record.tick)));
                    }
                    contents.records.push(record);
                    at += length;
                }
                Err(_) if is_last => {
                    contents.torn = Some(torn(at));
                    break;
                }
                Err(what) => return Err(damaged(at, what)),
            }
        }
    }
    Ok(contents)
}

/// The segments with their first ticks, in order.
fn list(dir: &Path) -> Result<Vec<(Tick, PathBuf)>, TickLogError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(error("list", dir))?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.map_err(error("list", dir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let number = name.strip_prefix("ticks-").and_then(|n| n.strip_suffix(".log"));
        if let Some(first) = number.and_then(|n| n.parse().ok()) {
            segments.push((first, path));
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
