//! Stages messages: in memory up to a bound, then in a hidden file that gets its name when it is whole and on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Block, END, KEYED, MAGIC, OutboxPart, SAME_HEADERS, file_name};
use crate::base::{Epoch, failpoint};
use crate::store::StoreError;

/// Messages in memory, over all slots, before they go to the file.
const BUFFER_BYTES: usize = 4 << 20;

/// Ends the names of files that are not whole.
const UNFINISHED: &str = ".unfinished";

/// Takes the messages of one worker and leaves a file per epoch.
#[derive(Debug)]
pub struct OutboxWriter {
    directory: PathBuf,
    application: String,
    name: String,
    topics: Vec<String>,
    slots: Vec<Slot>,
    buffered: usize,
    headers: Vec<u8>,
    file: Option<Staged>,
}

/// Messages of one slot that are not in the file yet.
#[derive(Clone, Debug, Default)]
struct Slot {
    bytes: Vec<u8>,
    messages: u32,
    /// Where the headers of the latest message stand in `bytes`.
    headers: Option<Range<usize>>,
    /// Messages of the epoch.
    total: u64,
}

#[derive(Debug)]
struct Staged {
    path: PathBuf,
    file: File,
    length: u64,
    crc32: crc32fast::Hasher,
    blocks: Vec<Block>,
}

impl OutboxWriter {
    /// A writer of files in `directory`, which is made if it is not there, with `name` in their names. No other writer,
    /// of this or an earlier start of the job, has that name: it holds the generation and the worker.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn create(
        directory: &Path,
        application: &str,
        name: &str,
        topics: Vec<String>,
        slots: u16,
    ) -> Result<OutboxWriter, StoreError> {
        fs::create_dir_all(directory).map_err(StoreError::io("create", directory))?;
        Ok(OutboxWriter {
            directory: directory.to_owned(),
            application: application.to_owned(),
            name: name.to_owned(),
            topics,
            slots: vec![Slot::default(); usize::from(slots.max(1))],
            buffered: 0,
            headers: Vec::new(),
            file: None,
        })
    }

    /// Number of slots.
    pub fn slots(&self) -> u16 {
        self.slots.len() as u16
    }

    /// Bytes of messages in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.slots.iter().map(|slot| slot.bytes.len()).sum()
    }

    /// Adds a message to a slot.
    ///
    /// # Errors
    /// When the file cannot be written, or the message is too large for any broker (1 GiB).
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn append(
        &mut self,
        topic: u16,
        slot: u16,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: &[(&str, &[u8])],
    ) -> Result<(), StoreError> {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).ok().filter(|length| *length <= 1 << 30);
        let too_large = || StoreError::Request(format!("a message of {} bytes is too large", payload.len()));
        self.headers.clear();
        let count = u16::try_from(headers.len()).map_err(|_| too_large())?;
        self.headers.extend_from_slice(&count.to_le_bytes());
        for (name, value) in headers {
            let length = u16::try_from(name.len()).map_err(|_| too_large())?;
            self.headers.extend_from_slice(&length.to_le_bytes());
            self.headers.extend_from_slice(&size(value).ok_or_else(too_large)?.to_le_bytes());
            self.headers.extend_from_slice(name.as_bytes());
            self.headers.extend_from_slice(value);
        }
        let header_length = size(&self.headers).ok_or_else(too_large)?;
        let key_length = key.map(|key| size(key).ok_or_else(too_large)).transpose()?;
        let payload_length = size(payload).ok_or_else(too_large)?;

        let slot = &mut self.slots[usize::from(slot)];
        let before = slot.bytes.len();
        let same = slot.headers.clone().is_some_and(|range| slot.bytes[range] == self.headers[..]);
        let out = &mut slot.bytes;
        out.push(if key.is_some() { KEYED } else { 0 } | if same { SAME_HEADERS } else { 0 });
        out.extend_from_slice(&topic.to_le_bytes());
        if let Some(length) = key_length {
            out.extend_from_slice(&length.to_le_bytes());
        }
        if !same {
            out.extend_from_slice(&header_length.to_le_bytes());
        }
        out.extend_from_slice(&payload_length.to_le_bytes());
        if !same {
            slot.headers = Some(out.len()..out.len() + self.headers.len());
            out.extend_from_slice(&self.headers);
        }
        out.extend_from_slice(key.unwrap_or_default());
        out.extend_from_slice(payload);
        slot.messages += 1;
        slot.total += 1;
        self.buffered += slot.bytes.len() - before;
        if self.buffered >= BUFFER_BYTES {
            self.spill()?;
        }
        Ok(())
    }

    /// Ends the epoch: its messages are in a file, and the file and its name are on disk. `None` when there are none.
    ///
    /// # Errors
    /// When the file cannot be written, or another of its name is there.
    pub fn finish(&mut self, epoch: Epoch) -> Result<Option<OutboxPart>, StoreError> {
        let totals: Vec<u64> = self.slots.iter_mut().map(|slot| std::mem::take(&mut slot.total)).collect();
        let messages = totals.iter().sum();
        if messages == 0 {
            return Ok(None);
        }
        self.spill()?;
        let Some(mut staged) = self.file.take() else {
            return Ok(None);
        };
        let name = file_name(epoch, &self.name);
        let target = self.directory.join(&name);
        let finished = staged.close().and_then(|()| {
            // A name that is taken belongs to messages that a manifest may count on.
            if target.exists() {
                return Err(StoreError::io("create", &target)(io::Error::from(io::ErrorKind::AlreadyExists)));
            }
            fs::rename(&staged.path, &target).map_err(StoreError::io("rename", &staged.path))?;
            sync_directory(&self.directory)
        });
        if let Err(error) = finished {
            // The file is of no use any more; what it was is in the error.
            let _ = fs::remove_file(&staged.path);
            return Err(error);
        }
        failpoint("topic.staged");
        Ok(Some(OutboxPart {
            application: self.application.clone(),
            path: name,
            bytes: staged.length,
            crc32: staged.crc32.finalize(),
            messages,
            topics: self.topics.clone(),
            slots: totals,
        }))
    }

    /// Moves what is in memory to the file, one block per slot.
    fn spill(&mut self) -> Result<(), StoreError> {
        let staged = match &mut self.file {
            Some(staged) => staged,
            none => {
                let path = self.directory.join(format!(".{}{UNFINISHED}", self.name));
                none.insert(Staged::create(path)?)
            }
        };
        for (number, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.messages > 0) {
            let length = u32::try_from(slot.bytes.len())
                .map_err(|_| StoreError::Request("a block of messages is too large".to_owned()))?;
            let block = Block {
                slot: number as u16,
                messages: std::mem::take(&mut slot.messages),
                offset: staged.length,
                length,
                crc32: crc32fast::hash(&slot.bytes),
            };
            staged.write(&slot.bytes)?;
            staged.blocks.push(block);
            slot.bytes.clear();
            slot.headers = None;
        }
        self.buffered = 0;
        Ok(())
    }
}

impl Drop for OutboxWriter {
    fn drop(&mut self) {
        if let Some(staged) = self.file.take() {
            // What is left over is removed by the next start.
            let _ = fs::remove_file(&staged.path);
        }
    }
}

impl Staged {
    fn create(path: PathBuf) -> Result<Staged, StoreError> {
        let file = File::create(&path).map_err(StoreError::io("create", &path))?;
        let mut staged = Staged { path, file, length: 0, crc32: crc32fast::Hasher::new(), blocks: Vec::new() };
        staged.write(MAGIC)?;
        Ok(staged)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(StoreError::io("write", &self.path))?;
        self.length += bytes.len() as u64;
        self.crc32.update(bytes);
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let mut index = Vec::new();
        self.blocks.iter().for_each(|block| block.write(&mut index));
        let crc32 = crc32fast::hash(&index);
        let length = u32::try_from(index.len())
            .map_err(|_| StoreError::Request("an epoch has too many messages for one file".to_owned()))?;
        index.extend_from_slice(&length.to_le_bytes());
        index.extend_from_slice(&crc32.to_le_bytes());
        index.extend_from_slice(END);
        self.write(&index)?;
        self.file.sync_all().map_err(StoreError::io("sync", &self.path))
    }
}

fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", directory))
}
