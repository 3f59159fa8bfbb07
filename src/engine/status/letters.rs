//! The newest dead letters, kept in bounded memory for those who look.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::LetterStatus;
use crate::base::{EventTime, format_time, wall_clock};
use crate::ingest::DeadLetter;

/// Letters that are kept at most.
pub const LETTERS_MAX: usize = 1_000;
/// Bytes of their rows at most.
const BYTES_MAX: usize = 4 << 20;
/// Bytes of one row at most.
const ROW_BYTES_MAX: usize = 64 << 10;

/// A ring of letters.
#[derive(Default)]
pub struct Letters(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    letters: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    letter: DeadLetter,
    bytes: usize,
    at: EventTime,
}

impl Letters {
    /// Keeps the newest of these, and lets older ones go.
    pub fn keep(&self, letters: &[DeadLetter]) {
        if letters.is_empty() {
            return;
        }
        let at = wall_clock();
        let mut ring = self.lock();
        for letter in &letters[letters.len().saturating_sub(LETTERS_MAX)..] {
            let cut = letter.original.len().min(ROW_BYTES_MAX);
            let kept = DeadLetter {
                original: letter.original[..cut].to_vec(),
                reason: letter.reason.clone(),
                source: letter.source.clone(),
                ..*letter
            };
            ring.bytes += cut;
            ring.letters.push_back(Kept { letter: kept, bytes: letter.original.len(), at });
            while ring.letters.len() > LETTERS_MAX || ring.bytes > BYTES_MAX {
                let Some(gone) = ring.letters.pop_front() else { break };
                ring.bytes -= gone.letter.original.len();
            }
        }
    }

    /// The newest, the newest first.
    pub fn newest(&self, limit: usize) -> Vec<LetterStatus> {
        self.lock().letters.iter().rev().take(limit).map(Kept::told).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn told(&self) -> LetterStatus {
        let DeadLetter { kind, reason, source, partition, offset, event_time, original } = &self.letter;
        LetterStatus {
            source: source.to_string(),
            partition: u32::from(*partition),
            offset: *offset,
            kind: kind.as_str().to_owned(),
            reason: reason.clone(),
            at: format_time(self.at),
            event_time: event_time.map(format_time),
            bytes_base64: base64(original),
            text: std::str::from_utf8(original).ok().map(str::to_owned),
            bytes: self.bytes as u64,
        }
    }
}

/// Base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let shown = digit <= chunk.len();
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if shown { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::DeadLetterKind;

    fn letter(offset: u64, bytes: &[u8]) -> DeadLetter {
        DeadLetter {
            kind: DeadLetterKind::Undecodable,
            reason: "it is no JSON".into(),
            source: "tx".into(),
            partition: 3,
            offset,
            event_time: None,
            original: bytes.to_vec(),
        }
    }

    #[test]
    fn the_newest_are_kept_within_bounds() {
        let letters = Letters::default();
        letters.keep(&(0..3_000).map(|offset| letter(offset, b"{")).collect::<Vec<_>>());
        let told = letters.newest(usize::MAX);
        assert_eq!((told.len(), told[0].offset, told[LETTERS_MAX - 1].offset), (LETTERS_MAX, 2_999, 2_000));
        assert_eq!((told[0].text.as_deref(), told[0].bytes_base64.as_str(), told[0].partition), (Some("{"), "ew==", 3));
        let long = vec![0xff; ROW_BYTES_MAX + 7];
        letters.keep(&(0..500).map(|offset| letter(offset, &long)).collect::<Vec<_>>());
        let told = letters.newest(500);
        assert_eq!(told.len(), BYTES_MAX / ROW_BYTES_MAX);
        assert_eq!((told[0].bytes, &told[0].text), (ROW_BYTES_MAX as u64 + 7, &None));
    }

    #[test]
    fn base64_is_padded() {
        let told = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(told, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xff, 0xfe, 0x00]), "//4A");
    }
}
