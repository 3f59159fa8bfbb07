use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::StoreError;

type Message = (u16, u16, Option<Vec<u8>>, Vec<u8>, Vec<(String, Vec<u8>)>);

const SLOTS: u16 = 3;

fn writer(dir: &TempDir) -> OutboxWriter {
    OutboxWriter::create(dir.path(), "job", "g1-w0", vec!["a".to_owned(), "b".to_owned()], SLOTS).expect("a writer")
}

fn append(writer: &mut OutboxWriter, (topic, slot, key, payload, headers): &Message) {
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    writer.append(*topic, *slot, key.as_deref(), payload, &headers).expect("appended");
}

fn owned(message: OutboxMessage<'_>, slot: u16) -> Message {
    let headers = message.headers.iter().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
    (message.topic, slot, message.key.map(<[u8]>::to_vec), message.payload.to_vec(), headers)
}

fn read(dir: &TempDir, part: &OutboxPart, slot: u16, skip: u64) -> Result<Vec<Message>, StoreError> {
    let mut reader = OutboxReader::open(dir.path(), part, slot)?;
    reader.skip(skip)?;
    let mut messages = Vec::new();
    while let Some(message) = reader.next()? {
        messages.push(owned(message, slot));
    }
    Ok(messages)
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    // Few headers, so that neighbours often have the same.
    let headers = prop::sample::select(vec![
        vec![],
        vec![("tick".to_owned(), b"1".to_vec())],
        vec![("tick".to_owned(), b"2".to_vec()), (String::new(), vec![])],
    ]);
    prop::collection::vec((0u16..2, 0..SLOTS, prop::option::of(bytes()), bytes(), headers), 1..60)
}

/// A generous bound on memory that damage might ask for is the file's own length: the reader compares it first.
fn damage_is_found(bytes: &[u8], part: &OutboxPart, dir: &TempDir, expected: &[Vec<Message>]) {
    fs::write(dir.path().join(&part.path), bytes).expect("a file");
    let mut failed = 0;
    for slot in 0..SLOTS {
        match read(dir, part, slot, 0) {
            // A block of another slot may be the damaged one.
            Ok(found) => assert_eq!(found, expected[usize::from(slot)], "damage went by unseen"),
            Err(StoreError::OutboxDamaged { path, .. }) => {
                assert!(path.ends_with(&part.path));
                failed += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(failed > 0, "damage was found by no slot");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_appended_comes_back_and_damage_is_found(
        epochs in prop::collection::vec(messages(), 1..3), skip in 0u64..70, at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let dir = TempDir::new().unwrap();
        let mut writer = writer(&dir);
        for (epoch, messages) in epochs.iter().enumerate() {
            messages.iter().for_each(|message| append(&mut writer, message));
            let part = writer.finish(epoch as u64).unwrap().expect("a part");
            prop_assert_eq!(part.messages, messages.len() as u64);
            let bytes = fs::read(dir.path().join(&part.path)).unwrap();
            prop_assert_eq!((bytes.len() as u64, crc32fast::hash(&bytes)), (part.bytes, part.crc32));
            let of_slot = |slot: u16| messages.iter().filter(|m| m.1 == slot).cloned().collect::<Vec<_>>();
            let expected: Vec<Vec<Message>> = (0..SLOTS).map(of_slot).collect();
            for (slot, expected) in (0..).zip(&expected) {
                prop_assert_eq!(part.slots[usize::from(slot)], expected.len() as u64);
                prop_assert_eq!(&read(&dir, &part, slot, 0).unwrap(), expected);
                let rest = &expected[expected.len().min(skip as usize)..];
                prop_assert_eq!(&read(&dir, &part, slot, skip).unwrap(), rest);
            }
            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= flip;
            damage_is_found(&flipped, &part, &dir, &expected);
            // Another length is found before anything is read, also when the manifest agrees.
            let short = &bytes[..at.index(bytes.len())];
            damage_is_found(short, &part, &dir, &expected);
            let agrees = OutboxPart { bytes: short.len() as u64, ..part.clone() };
            damage_is_found(short, &agrees, &dir, &expected);
        }
        prop_assert!(writer.finish(9).unwrap().is_none());
    }

    /// Checksums that fit do not make sense of nonsense: blocks of any bytes are refused or read, and nothing panics.
    #[test]
    fn nonsense_with_good_checksums_is_no_panic(block in prop::collection::vec(0u8..4, 0..80), count in 1u32..5) {
        let dir = TempDir::new().unwrap();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&block);
        let entry = Block { slot: 0, messages: count, offset: 8, length: block.len() as u32, crc32: crc32fast::hash(&block) };
        let mut index = Vec::new();
        entry.write(&mut index);
        let crc32 = crc32fast::hash(&index);
        bytes.extend_from_slice(&index);
        bytes.extend_from_slice(&(index.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32.to_le_bytes());
        bytes.extend_from_slice(END);
        let part = OutboxPart {
            application: "job".to_owned(), path: "x".into(), bytes: bytes.len() as u64, crc32: 0, messages: u64::from(count),
            topics: vec!["a".to_owned()], slots: vec![u64::from(count)],
        };
        fs::write(dir.path().join("x"), &bytes).unwrap();
        if let Ok(found) = read(&dir, &part, 0, 0) {
            prop_assert_eq!(found.len(), count as usize);
        }
    }
}

#[test]
fn the_format_is_pinned() {
    let dir = TempDir::new().unwrap();
    let mut writer = writer(&dir);
    append(&mut writer, &(1, 2, Some(b"k".to_vec()), b"v".to_vec(), vec![("h".to_owned(), b"x".to_vec())]));
    append(&mut writer, &(0, 2, None, b"w".to_vec(), vec![("h".to_owned(), b"x".to_vec())]));
    let part = writer.finish(7).unwrap().unwrap();
    let bytes = fs::read(dir.path().join(&part.path)).unwrap();
    assert_eq!(part.path.to_str(), Some("00000000000000000007-g1-w0.outbox"));
    let first = b"\x01\x01\x00\x01\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00hxkv";
    let second = b"\x02\x00\x00\x01\x00\x00\x00w";
    let block = [first.as_slice(), second].concat();
    assert_eq!(bytes[..8], *MAGIC);
    assert_eq!(bytes[8..8 + block.len()], block);
    assert_eq!(bytes.len(), 8 + block.len() + ENTRY_BYTES + TAIL_BYTES);
    assert_eq!(part.slots, [0, 0, 2]);
    let text = serde_json::to_string(&part).unwrap();
    assert_eq!(serde_json::from_str::<OutboxPart>(&text).unwrap(), part);
}

#[test]
fn large_epochs_go_through_the_file_and_leave_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let mut writer = writer(&dir);
    let payload = |n: u32| vec![n as u8; 1000];
    for n in 0..20_000u32 {
        append(&mut writer, &(0, (n % 3) as u16, Some(n.to_le_bytes().to_vec()), payload(n), vec![]));
        let held = writer.held();
        assert!(held <= 5 << 20, "{held} bytes in memory");
    }
    let part = writer.finish(0).unwrap().unwrap();
    let found = read(&dir, &part, 1, 6_000).unwrap();
    let numbers: Vec<u32> =
        found.iter().map(|m| u32::from_le_bytes(m.2.clone().unwrap().try_into().unwrap())).collect();
    assert_eq!(numbers, (18_001..20_000).step_by(3).collect::<Vec<_>>());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    // An epoch that does not come to its end.
    for n in 0..6_000 {
        append(&mut writer, &(0, 0, None, payload(n), vec![]));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // The same epoch again would replace what a manifest may name.
    let mut again = self::writer(&dir);
    append(&mut again, &(0, 0, None, payload(1), vec![]));
    assert!(matches!(again.finish(0), Err(StoreError::Io { action: "create", .. })));
    drop(again);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn slots_are_pinned() {
    // Outboxes of one start of a job are published by the next.
    let keys: Vec<u16> = ["", "a", "b", "c", "4711"].iter().map(|key| slot_of_key(key.as_bytes(), 4)).collect();
    let rows: Vec<u16> = (0..5).map(|row| slot_of_row(row, 4)).collect();
    assert_eq!((keys, rows), (vec![2, 3, 3, 3, 1], vec![3, 0, 2, 1, 2]));
    assert!((0..1000).all(|row| slot_of_row(row, 1) == 0 && slot_of_row(row, 64) < 64));
}
