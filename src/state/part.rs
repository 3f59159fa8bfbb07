//! Snapshot parts: one object per worker and epoch with the state of its operators, by key slot.
//!
//! A part begins with eight bytes that name the format. Then chunks follow: the operator's name, a mode, and the number of
//! entries; for each entry its slot and length; then the entries' bytes, or, as the mode says, the length of one zstd frame
//! of them all and the frame. Numbers are little-endian. A part has no end mark: the manifest knows its length and its CRC-32.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::StateError;
use super::store::{ObjectWriter, Store};
use crate::base::SlotRange;

/// First bytes of a part.
const FORMAT: [u8; 8] = *b"TMSTATE1";

/// Set in a mode whose entries are one zstd frame.
const PACKED: u8 = 2;
/// Level of that frame: what repeats from slot to slot, such as a schema, is found by the fastest, too.
const LEVEL: i32 = 1;

/// Folder of the parts.
pub(super) const FOLDER: &str = "parts";

/// The object of the part that a worker of a generation writes for an epoch.
pub(super) fn name(generation: u64, epoch: u64, worker: usize) -> String {
    format!("{FOLDER}/{generation:020}-{epoch:020}-{worker:05}.state")
}

/// The parts in a store, each with the generation that wrote it.
///
/// # Errors
/// When they cannot be listed.
pub(super) fn list(store: &Store) -> Result<Vec<(u64, String)>, StateError> {
    let generation = |name: &str| name.strip_prefix(FOLDER)?.strip_prefix('/')?.split('-').next()?.parse().ok();
    let listed = store.list(FOLDER)?.into_iter();
    Ok(listed.filter_map(|listed| Some((generation(&listed.name)?, listed.name))).collect())
}

/// Bytes of one key slot.
pub type SlotBytes = (u16, Vec<u8>);

/// How a chunk relates to those of the epochs before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It adds to them.
    Change = 0,
    /// It stands for itself; earlier ones are void.
    Replace = 1,
    /// What earlier epochs hold of the slots that it lists is void, and later ones add to it.
    Slots = 4,
    /// What earlier epochs hold of the operator is void, and later ones add to it.
    Whole = 5,
}

impl Mode {
    fn of(byte: u8) -> Option<Mode> {
        [Mode::Change, Mode::Replace, Mode::Slots, Mode::Whole].into_iter().find(|mode| *mode as u8 == byte)
    }
}

/// A part as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRef {
    /// The object.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its CRC-32.
    pub crc32: u32,
    /// The epoch that wrote it.
    pub epoch: u64,
    /// Whether parts of earlier epochs are not needed.
    pub whole: bool,
    /// Key slots that it holds all of; state that is not written slot by slot goes with the first.
    #[serde(default)]
    pub anew: SlotRange,
    /// Bytes of what it holds all of.
    #[serde(default)]
    pub anew_bytes: u64,
    /// Bytes by operator.
    pub operators: BTreeMap<String, u64>,
}

impl PartRef {
    /// Slots that it holds all of.
    pub fn anew(&self) -> SlotRange {
        if self.whole { SlotRange::ALL } else { self.anew }
    }

    /// Bytes of what it holds all of.
    pub fn anew_bytes(&self) -> u64 {
        // Whole parts of earlier versions do not tell.
        if self.whole && self.anew.is_empty() { self.bytes } else { self.anew_bytes }
    }
}

/// Writes a part.
pub struct PartWriter {
    object: ObjectWriter,
    name: String,
    crc: crc32fast::Hasher,
    bytes: u64,
    anew_bytes: u64,
    operators: BTreeMap<String, u64>,
    head: Vec<u8>,
}

impl PartWriter {
    /// Begins the part `name`.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn begin(store: &Store, name: &str) -> Result<PartWriter, StateError> {
        let mut writer = PartWriter {
            object: store.writer(name)?,
            name: name.to_owned(),
            crc: crc32fast::Hasher::new(),
            bytes: 0,
            anew_bytes: 0,
            operators: BTreeMap::new(),
            head: Vec::new(),
        };
        writer.put(&FORMAT)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        self.object.write(bytes)
    }

    /// Appends entries of an operator.
    ///
    /// # Errors
    /// When the store takes no more.
    pub fn chunk(&mut self, operator: &str, mode: Mode, entries: &[SlotBytes]) -> Result<(), StateError> {
        self.put_head(operator, mode as u8, entries)?;
        for (_, bytes) in entries {
            self.put(bytes)?;
        }
        let bytes: usize = entries.iter().map(|(_, bytes)| bytes.len()).sum();
        self.count(operator, mode, bytes);
        Ok(())
    }

    /// As [`PartWriter::chunk`], for entries that have much in common: they are compressed together.
    ///
    /// # Errors
    /// When the store takes no more.
    pub fn chunk_packed(&mut self, operator: &str, mode: Mode, entries: &[SlotBytes]) -> Result<(), StateError> {
        let all: Vec<u8> = entries.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        let packed = zstd::bulk::compress(&all, LEVEL).ok().filter(|packed| packed.len() < all.len());
        let Some(packed) = packed else { return self.chunk(operator, mode, entries) };
        self.put_head(operator, mode as u8 | PACKED, entries)?;
        self.put(&(packed.len() as u64).to_le_bytes())?;
        self.put(&packed)?;
        self.count(operator, mode, packed.len());
        Ok(())
    }

    fn count(&mut self, operator: &str, mode: Mode, bytes: usize) {
        *self.operators.entry(operator.to_owned()).or_default() += bytes as u64;
        if matches!(mode, Mode::Slots | Mode::Whole) {
            self.anew_bytes += bytes as u64;
        }
    }

    fn put_head(&mut self, operator: &str, mode: u8, entries: &[SlotBytes]) -> Result<(), StateError> {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        head.extend_from_slice(&(operator.len() as u16).to_le_bytes());
        head.extend_from_slice(operator.as_bytes());
        head.push(mode);
        head.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        for (slot, bytes) in entries {
            head.extend_from_slice(&slot.to_le_bytes());
            head.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        }
        self.put(&head)?;
        self.head = head;
        Ok(())
    }

    /// Ends the part, which holds all of the slots `anew`: it is durable.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn finish(self, epoch: u64, anew: SlotRange) -> Result<PartRef, StateError> {
        let PartWriter { object, name, crc, bytes, anew_bytes, operators, .. } = self;
        object.finish()?;
        let whole = anew.is_all();
        Ok(PartRef { name, bytes, crc32: crc.finalize(), epoch, whole, anew, anew_bytes, operators })
    }
}

/// A part in memory, found to be whole.
#[derive(Debug)]
pub struct Part {
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
    /// The epoch that wrote it.
    pub epoch: u64,
}

#[derive(Debug)]
struct Chunk {
    operator: String,
    mode: Mode,
    /// Where each slot's bytes are: in `unpacked`, or in the part.
    entries: Vec<(u16, Range<usize>)>,
    unpacked: Option<Vec<u8>>,
}

impl Part {
    /// Reads a part and holds it against what the manifest says.
    ///
    /// # Errors
    /// [`StateError::Damaged`] when it is not what was written.
    pub fn read(store: &Store, part: &PartRef) -> Result<Part, StateError> {
        let damaged = |what: String| store.damaged(&part.name, what);
        let bytes = store.read(&part.name)?.ok_or_else(|| damaged("it is missing".into()))?;
        if bytes.len() as u64 != part.bytes {
            return Err(damaged(format!("it has {} bytes and was written with {}", bytes.len(), part.bytes)));
        }
        if crc32fast::hash(&bytes) != part.crc32 {
            return Err(damaged("its checksum does not match".into()));
        }
        let chunks = parse(&bytes).ok_or_else(|| damaged("it is no snapshot of this version".into()))?;
        Ok(Part { bytes, chunks, epoch: part.epoch })
    }

    /// The chunks of an operator, in the order written, each with its entries.
    pub fn chunks<'a>(
        &'a self,
        operator: &'a str,
    ) -> impl Iterator<Item = (Mode, impl Iterator<Item = (u16, &'a [u8])>)> {
        let chunks = self.chunks.iter().filter(move |chunk| chunk.operator == operator);
        chunks.map(|chunk| {
            let bytes = chunk.unpacked.as_deref().unwrap_or(&self.bytes);
            (chunk.mode, chunk.entries.iter().map(|(slot, range)| (*slot, &bytes[range.clone()])))
        })
    }
}

fn parse(bytes: &[u8]) -> Option<Vec<Chunk>> {
    let mut at = FORMAT.len();
    if !bytes.starts_with(&FORMAT) {
        return None;
    }
    let take = |at: &mut usize, count: usize| {
        let taken = bytes.get(*at..at.checked_add(count)?)?;
        *at += count;
        Some(taken)
    };
    let mut chunks = Vec::new();
    while at < bytes.len() {
        let length = u16::from_le_bytes(take(&mut at, 2)?.try_into().ok()?);
        let operator = std::str::from_utf8(take(&mut at, usize::from(length))?).ok()?.to_owned();
        let (mode, packed) = match take(&mut at, 1)? {
            [byte] => (Mode::of(*byte & !PACKED)?, byte & PACKED != 0),
            _ => return None,
        };
        let count = u32::from_le_bytes(take(&mut at, 4)?.try_into().ok()?) as usize;
        let heads = take(&mut at, count.checked_mul(10)?)?;
        let mut entries = Vec::with_capacity(count);
        let mut end = if packed { 0 } else { at };
        for head in heads.chunks_exact(10) {
            let slot = u16::from_le_bytes(head[..2].try_into().ok()?);
            let length = usize::try_from(u64::from_le_bytes(head[2..].try_into().ok()?)).ok()?;
            let from = end;
            end = end.checked_add(length)?;
            entries.push((slot, from..end));
        }
        let unpacked = if packed {
            let length = u64::from_le_bytes(take(&mut at, 8)?.try_into().ok()?);
            Some(unpack(take(&mut at, usize::try_from(length).ok()?)?, end)?)
        } else {
            let length = end - at;
            take(&mut at, length)?;
            None
        };
        chunks.push(Chunk { operator, mode, entries, unpacked });
    }
    Some(chunks)
}

/// What was packed, if it has this length. No more is reserved than is found, whatever the length claims.
fn unpack(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let limit = (length as u64).checked_add(1)?;
    zstd::stream::read::Decoder::new(packed).ok()?.take(limit).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() == length).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Operator, mode, whether it is packed, entries.
    type Written = Vec<(String, Mode, bool, Vec<SlotBytes>)>;

    fn chunks() -> impl Strategy<Value = Written> {
        let entry = (0u16..1024, prop::collection::vec(prop_oneof![3 => Just(7u8), 1 => any::<u8>()], 0..40));
        let mode = prop::sample::select(vec![Mode::Change, Mode::Replace, Mode::Slots, Mode::Whole]);
        let chunk = ("[ab]{0,2}", mode, any::<bool>(), prop::collection::vec(entry, 0..5));
        prop::collection::vec(chunk, 0..6)
    }

    fn read(part: &Part, operator: &str) -> Vec<(Mode, Vec<SlotBytes>)> {
        let chunks = part.chunks(operator);
        chunks.map(|(mode, entries)| (mode, entries.map(|(slot, bytes)| (slot, bytes.to_vec())).collect())).collect()
    }

    fn write(store: &Store, chunks: &Written) -> PartRef {
        let mut writer = PartWriter::begin(store, "parts/p").expect("it begins");
        for (operator, mode, packed, entries) in chunks {
            let written = match packed {
                true => writer.chunk_packed(operator, *mode, entries),
                false => writer.chunk(operator, *mode, entries),
            };
            written.expect("it is written");
        }
        writer.finish(7, SlotRange::ALL).expect("it is finished")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(chunks in chunks()) {
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::open(&dir.path().display().to_string()).expect("it opens");
            let part = Part::read(&store, &write(&store, &chunks)).expect("it is whole");
            for operator in ["", "a", "b", "ab"] {
                let wanted = chunks.iter().filter(|c| c.0 == operator);
                let expected: Vec<(Mode, Vec<SlotBytes>)> = wanted.map(|c| (c.1, c.3.clone())).collect();
                prop_assert_eq!(read(&part, operator), expected);
            }
        }

        #[test]
        fn damage_is_seen(chunks in chunks(), at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::open(&dir.path().display().to_string()).expect("it opens");
            let part = write(&store, &chunks);
            let path = dir.path().join(&part.name);
            let mut bytes = std::fs::read(&path).expect("it is there");
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            std::fs::write(&path, &bytes).expect("it is written");
            let seen = matches!(Part::read(&store, &part), Err(StateError::Damaged { .. }));
            prop_assert!(seen, "damage at byte {}", at);
            // Behind a checksum that lies, too, nothing panics.
            let lied = PartRef { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes), ..part };
            let _ = Part::read(&store, &lied);
        }
    }

    #[test]
    fn what_repeats_from_slot_to_slot_is_written_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().display().to_string()).expect("it opens");
        let schema: Vec<u8> = (0..1_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let entries: Vec<SlotBytes> =
            (0..1_024u16).map(|slot| (slot, [&schema[..], &slot.to_le_bytes()].concat())).collect();
        let part = write(&store, &vec![("join".to_owned(), Mode::Change, true, entries.clone())]);
        assert!(part.bytes < 40_000, "{}", part.bytes);
        let part = Part::read(&store, &part).expect("it is whole");
        assert_eq!(read(&part, "join"), [(Mode::Change, entries)]);
    }
}
