//! Reads the messages of one slot back, and believes no byte that a checksum does not vouch for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Block, Cursor, END, ENTRY_BYTES, KEYED, MAGIC, OutboxPart, SAME_HEADERS, TAIL_BYTES};
use crate::store::StoreError;

/// Reads the messages of one slot of a file, in the order appended. Holds one block in memory.
#[derive(Debug)]
pub struct OutboxReader {
    path: PathBuf,
    file: File,
    topics: usize,
    /// Blocks of the slot that are still to be read, the next one last.
    blocks: Vec<Block>,
    block: Vec<u8>,
    /// Messages left in `block`, and where the next begins.
    left: u32,
    at: usize,
    headers: Range<usize>,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxMessage<'a> {
    /// Number of the topic in the part's list.
    pub topic: u16,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The payload.
    pub payload: &'a [u8],
    /// The headers.
    pub headers: OutboxHeaders<'a>,
}

/// The headers of a message, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxHeaders<'a>(&'a [u8]);

impl<'a> OutboxHeaders<'a> {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut cursor = Cursor::new(self.0);
        let mut left = cursor.u16().unwrap_or_default();
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            header(&mut cursor)
        })
    }

    /// Whether the bytes are headers and nothing else.
    fn is_sound(&self) -> bool {
        let mut cursor = Cursor::new(self.0);
        let Some(count) = cursor.u16() else { return false };
        (0..count).all(|_| header(&mut cursor).is_some()) && cursor.at == self.0.len()
    }
}

fn header<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a str, &'a [u8])> {
    let (name, value) = (cursor.u16()?, cursor.u32()?);
    let name = std::str::from_utf8(cursor.take(usize::from(name))?).ok()?;
    Some((name, cursor.take(value as usize)?))
}

impl OutboxReader {
    /// Opens a part below `directory` for the messages of `slot`; none when the part has no such slot.
    ///
    /// # Errors
    /// [`StoreError::OutboxDamaged`] when the file is not what the part says, [`StoreError::Io`] when it cannot be read.
    pub fn open(directory: &Path, part: &OutboxPart, slot: u16) -> Result<OutboxReader, StoreError> {
        let path = directory.join(&part.path);
        let damaged = |reason: String| StoreError::OutboxDamaged { path: path.clone(), reason };
        let mut file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let length = file.metadata().map_err(StoreError::io("open", &path))?.len();
        if length != part.bytes {
            return Err(damaged(format!("it has {length} bytes instead of {}", part.bytes)));
        }
        let too_short = || damaged(format!("{length} bytes are too few"));
        let tail_at = length.checked_sub(TAIL_BYTES as u64).ok_or_else(too_short)?;
        let tail = read_at(&mut file, &path, tail_at, TAIL_BYTES)?;
        let mut cursor = Cursor::new(&tail);
        let (Some(index_length), Some(crc32), Some(end)) = (cursor.u32(), cursor.u32(), cursor.take(8)) else {
            return Err(too_short());
        };
        let index_at = tail_at.checked_sub(u64::from(index_length)).ok_or_else(too_short)?;
        if end != END || !(index_length as usize).is_multiple_of(ENTRY_BYTES) || index_at < MAGIC.len() as u64 {
            return Err(damaged("it does not end as an outbox file does".to_owned()));
        }
        let index = read_at(&mut file, &path, index_at, index_length as usize)?;
        if crc32fast::hash(&index) != crc32 {
            return Err(damaged("the checksum of its index is wrong".to_owned()));
        }
        if read_at(&mut file, &path, 0, MAGIC.len())? != MAGIC {
            return Err(damaged("it does not begin as an outbox file does".to_owned()));
        }
        let mut blocks: Vec<Block> = index.as_chunks::<ENTRY_BYTES>().0.iter().map(Block::read).collect();
        let mut next = MAGIC.len() as u64;
        let mut counts = vec![0; part.slots.len()];
        for block in &blocks {
            let count = counts.get_mut(usize::from(block.slot));
            let sound = block.offset == next && block.messages > 0;
            let (Some(count), true) = (count, sound) else {
                return Err(damaged("its index makes no sense".to_owned()));
            };
            *count += u64::from(block.messages);
            next += u64::from(block.length);
        }
        if next != index_at || counts != part.slots {
            return Err(damaged("its index does not fit the manifest".to_owned()));
        }
        blocks.retain(|block| block.slot == slot);
        blocks.reverse();
        let topics = part.topics.len();
        Ok(OutboxReader { path, file, topics, blocks, block: Vec::new(), left: 0, at: 0, headers: 0..0 })
    }

    /// Leaves out the next `count` messages, or as many as there are; returns how many are still to be left out.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn skip(&mut self, mut count: u64) -> Result<u64, StoreError> {
        while count > 0 {
            match self.blocks.last() {
                Some(block) if self.left == 0 && u64::from(block.messages) <= count => {
                    count -= u64::from(block.messages);
                    self.blocks.pop();
                }
                _ => match self.next()? {
                    Some(_) => count -= 1,
                    None => return Ok(count),
                },
            }
        }
        Ok(0)
    }

    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// [`StoreError::OutboxDamaged`] when its block is not what was written, [`StoreError::Io`] when it cannot be read.
    // The message borrows the reader's block, which no `Iterator` can say.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<OutboxMessage<'_>>, StoreError> {
        if self.left == 0 {
            if self.at != self.block.len() {
                return Err(self.damaged("a block is longer than its messages"));
            }
            let Some(block) = self.blocks.pop() else { return Ok(None) };
            self.block = read_at(&mut self.file, &self.path, block.offset, block.length as usize)?;
            if crc32fast::hash(&self.block) != block.crc32 {
                return Err(self.damaged(&format!("the checksum of the block at {} is wrong", block.offset)));
            }
            (self.left, self.at, self.headers) = (block.messages, 0, 0..0);
        }
        let Some((end, headers)) = self.measure() else {
            return Err(self.damaged("a message makes no sense"));
        };
        let begin = std::mem::replace(&mut self.at, end);
        self.headers = headers;
        self.left -= 1;
        // It was measured: all of it is there.
        Ok(decode(&self.block, begin, self.headers.clone()))
    }

    /// Where the message at hand ends, and its headers; `None` when it is no message.
    fn measure(&self) -> Option<(usize, Range<usize>)> {
        let mut cursor = Cursor { bytes: &self.block, at: self.at };
        let lengths = Lengths::read(&mut cursor)?;
        let headers = match lengths.headers {
            Some(length) => {
                let begin = cursor.at;
                let headers = OutboxHeaders(cursor.take(length)?);
                headers.is_sound().then_some(begin..cursor.at)?
            }
            None if self.headers.is_empty() => return None,
            None => self.headers.clone(),
        };
        cursor.take(lengths.key.unwrap_or_default())?;
        cursor.take(lengths.payload)?;
        (usize::from(lengths.topic) < self.topics).then_some((cursor.at, headers))
    }

    fn damaged(&self, reason: &str) -> StoreError {
        StoreError::OutboxDamaged { path: self.path.clone(), reason: reason.to_owned() }
    }
}

/// What stands in front of a message.
struct Lengths {
    topic: u16,
    key: Option<usize>,
    headers: Option<usize>,
    payload: usize,
}

impl Lengths {
    fn read(cursor: &mut Cursor<'_>) -> Option<Lengths> {
        let flags = cursor.u8()?;
        if flags & !(KEYED | SAME_HEADERS) != 0 {
            return None;
        }
        let topic = cursor.u16()?;
        let key = if flags & KEYED != 0 { Some(cursor.u32()? as usize) } else { None };
        let headers = if flags & SAME_HEADERS == 0 { Some(cursor.u32()? as usize) } else { None };
        Some(Lengths { topic, key, headers, payload: cursor.u32()? as usize })
    }
}

fn decode(block: &[u8], begin: usize, headers: Range<usize>) -> Option<OutboxMessage<'_>> {
    let mut cursor = Cursor { bytes: block, at: begin };
    let lengths = Lengths::read(&mut cursor)?;
    cursor.take(lengths.headers.unwrap_or_default())?;
    let key = match lengths.key {
        Some(length) => Some(cursor.take(length)?),
        None => None,
    };
    let payload = cursor.take(lengths.payload)?;
    Some(OutboxMessage { topic: lengths.topic, key, payload, headers: OutboxHeaders(block.get(headers)?) })
}

fn read_at(file: &mut File, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
    // No more than the file has: its length was compared, and all offsets lie within.
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(StoreError::io("read", path))?;
    Ok(bytes)
}
