//! Ids of kept rows as bytes, so that a restart finds the same duplicates.
//!
//! A version, then per id a byte that tells its form, the event time as the difference to that of the id before, and the
//! id: a word as the difference to the word before, a text behind its length. Differences are zigzag, numbers are varints,
//! so that ids that grow with time take some five bytes. A CRC-32 of all of it ends it.

use super::Id;
use crate::base::{EventTime, seal, unseal};

const VERSION: u8 = 1;
const WORD: u8 = 1;
const TEXT: u8 = 2;

/// Ids of rows that were kept, of one source and partition: those since the last state, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupDelta {
    /// Name of the source.
    pub source: String,
    /// Partition of the source; 0 where its partitions are looked at together.
    pub partition: u16,
    /// The ids with their times.
    pub bytes: Vec<u8>,
}

impl DedupDelta {
    /// Several as one piece of bytes.
    pub fn encode(deltas: &[DedupDelta]) -> Vec<u8> {
        let mut out = Vec::with_capacity(deltas.iter().map(|d| d.bytes.len() + d.source.len() + 8).sum());
        for delta in deltas {
            varint(delta.source.len() as u64, &mut out);
            out.extend_from_slice(delta.source.as_bytes());
            varint(u64::from(delta.partition), &mut out);
            varint(delta.bytes.len() as u64, &mut out);
            out.extend_from_slice(&delta.bytes);
        }
        out
    }

    /// Reads what [`DedupDelta::encode`] wrote. Whether the ids are sound is found out when they are loaded.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Vec<DedupDelta>, String> {
        let mut input = Reader(bytes);
        let mut deltas = Vec::new();
        while !input.0.is_empty() {
            let source = input.bytes()?;
            let source = String::from_utf8(source.to_vec()).map_err(|_| "a source's name is no text".to_owned())?;
            let partition = u16::try_from(input.varint()?).map_err(|_| "a partition's number is too large")?;
            deltas.push(DedupDelta { source, partition, bytes: input.bytes()?.to_vec() });
        }
        Ok(deltas)
    }
}

/// Writes ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    time: EventTime,
    word: u64,
}

/// A place in what was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(usize, EventTime);

impl Writer {
    pub(super) fn word(&mut self, word: u64, time: EventTime) {
        self.begin(WORD, time);
        zigzag(word.wrapping_sub(self.word).cast_signed(), &mut self.bytes);
        self.word = word;
    }

    pub(super) fn text(&mut self, text: &str, time: EventTime) {
        self.begin(TEXT, time);
        varint(text.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.bytes.len(), self.time)
    }

    /// Takes back the text that was written at `mark`.
    pub(super) fn take_back(&mut self, mark: Mark) {
        self.bytes.truncate(mark.0);
        self.time = mark.1;
    }

    /// The bytes; none where no id was written.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        if self.bytes.len() <= 1 {
            return None;
        }
        seal(&mut self.bytes);
        Some(self.bytes)
    }

    fn begin(&mut self, form: u8, time: EventTime) {
        if self.bytes.is_empty() {
            self.bytes.push(VERSION);
        }
        self.bytes.push(form);
        zigzag(time.wrapping_sub(self.time), &mut self.bytes);
        self.time = time;
    }
}

/// The ids of one [`DedupDelta`].
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(Id, EventTime)>, String> {
    let mut input = Reader(unseal(bytes, VERSION)?);
    let (mut time, mut word, mut found) = (0i64, 0u64, Vec::new());
    while !input.0.is_empty() {
        let form = input.byte()?;
        time = time.wrapping_add(input.zigzag()?);
        let id = match form {
            WORD => {
                word = word.wrapping_add(input.zigzag()?.cast_unsigned());
                Id::Word(word)
            }
            TEXT => Id::Text(std::str::from_utf8(input.bytes()?).map_err(|_| "an id is no text")?.into()),
            other => return Err(format!("there is no form {other} of an id")),
        };
        found.push((id, time));
    }
    Ok(found)
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn zigzag(number: i64, out: &mut Vec<u8>) {
    varint(((number << 1) ^ (number >> 63)).cast_unsigned(), out);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.0.split_first().ok_or("it is cut short")?;
        self.0 = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number is too large".into())
    }

    fn zigzag(&mut self) -> Result<i64, String> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.varint()?).map_err(|_| "a length is too large")?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::dedup::Kept;
    use proptest::prelude::*;

    fn offered() -> impl Strategy<Value = Vec<(Id, i64)>> {
        let id = prop_oneof![
            (0u64..20).prop_map(Id::Word),
            any::<u64>().prop_map(Id::Word),
            "[a-c]{0,2}".prop_map(|text| Id::Text(text.into())),
        ];
        let time = prop_oneof![8 => 0i64..60, 1 => -1_000_000_000_000_000i64..1_000_000_000_000_000];
        prop::collection::vec((id, time), 0..80)
    }

    proptest! {
        /// Base and deltas together find the duplicates that an uninterrupted run would, and damage is told.
        #[test]
        fn what_was_kept_goes_on(
            rows in offered(),
            later in offered(),
            saves in prop::collection::vec((0usize..80, any::<bool>()), 0..4),
            horizon in 0i64..30,
            flip in any::<prop::sample::Index>(),
        ) {
            let mut kept = Kept::new(horizon);
            kept.note_news(true);
            let mut parts: Vec<Vec<u8>> = Vec::new();
            for (step, (id, time)) in rows.iter().enumerate() {
                for (_, whole) in saves.iter().filter(|(at, _)| *at == step) {
                    if *whole {
                        parts.clear();
                    }
                    parts.extend(kept.save(*whole));
                }
                kept.offer(id.clone(), *time);
            }
            parts.extend(kept.save(false));
            let mut restored = Kept::new(horizon);
            for part in &parts {
                restored.load(part).unwrap();
                let mut damaged = part.clone();
                let at = flip.index(part.len() * 8);
                damaged[at / 8] ^= 1 << (at % 8);
                prop_assert!(Kept::new(horizon).load(&damaged).is_err());
                prop_assert!(Kept::new(horizon).load(&part[..flip.index(part.len())]).is_err());
            }
            prop_assert_eq!(restored.len(), kept.len());
            for (id, time) in later {
                prop_assert_eq!(restored.offer(id.clone(), time), kept.offer(id, time));
            }
        }

        #[test]
        fn foreign_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = DedupDelta::decode(&bytes);
            let mut sealed = bytes.clone();
            seal(&mut sealed);
            let _ = Kept::new(5).load(&sealed);
        }
    }

    #[test]
    fn bytes_are_pinned() {
        let mut writer = Writer::default();
        writer.word(7, 1_000);
        writer.word(8, 1_001);
        writer.text("ab", 1_001);
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes[..bytes.len() - 4], [1, 1, 0xd0, 0x0f, 14, 1, 2, 2, 2, 0, 2, b'a', b'b']);
        assert_eq!(read(&bytes).unwrap().len(), 3);
        let deltas = [
            DedupDelta { source: "tx".into(), partition: 3, bytes },
            DedupDelta { source: "labels".into(), partition: 0, bytes: vec![] },
        ];
        let encoded = DedupDelta::encode(&deltas);
        assert_eq!(DedupDelta::decode(&encoded).unwrap(), deltas);
        assert!(DedupDelta::decode(&encoded[..encoded.len() - 2]).is_err());
    }
}
