//! Everything that reads bytes from outside, fed with damaged ones: no panic, no row lost beside a bad one, no time without end.
//!
//! Inputs are mutations of the files in `tests/fuzz/<reader>/` and of each other. An input that breaks a reader is written
//! there, to be kept: every file is tried first. `TIDEMILL_FUZZ_SECONDS` says how long each reader is fed (a minute under
//! `tests/all --full`, else a fraction of a second), `TIDEMILL_FUZZ_SEED` where to begin.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;

use super::kit::{Dir, http};
use crate::base::SplitMix64;
use crate::ingest::decode::avro::schema_fault;
use crate::ingest::file::RawReader;
use crate::ingest::file::parquet::ParquetReader;
use crate::ingest::file::text::TextReader;
use crate::ingest::{MessageDecoder, is_shielded, message_decoder, parse_avsc};
use crate::plan::model::{AvroFormat, AvroWriter, FileFormat, MessageFormat, RegistryPlan};

const DECLARED: &str = r#"{"type":"record","name":"tx","fields":[
    {"name":"id","type":"long"}, {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"amount","type":["null","double"],"default":null}, {"name":"n","type":"int","default":7},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["FR","DE"],"default":"FR"},"default":"DE"},
    {"name":"note","type":["null","string"],"default":null}, {"name":"ok","type":"boolean","default":true},
    {"name":"day","type":{"type":"int","logicalType":"date"},"default":0}]}"#;

const WRITER: &str = r#"{"type":"record","name":"tx","fields":[
    {"name":"more","type":{"type":"array","items":["null","string",{"type":"map","values":"double"},"tx"]}},
    {"name":"id","type":"int"}, {"name":"ts","type":["long","null"]},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["IT","DE"]}},
    {"name":"fixed","type":{"type":"fixed","name":"F","size":3}}, {"name":"note","type":["bytes","null","int"]}]}"#;

/// Pseudo-random numbers.
struct Random(SplitMix64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.word()
    }

    fn below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }

    /// Damages `input`; `other` is another input to take pieces from, `words` are pieces that mean something.
    fn damage(&mut self, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = (at + self.below(9)).min(input.len());
            match self.below(8) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = self.next() as u8,
                2 => drop(input.drain(at..end)),
                3 => {
                    let copy = input[at..end].to_vec();
                    input.splice(at..at, copy);
                }
                4 => input.truncate(at),
                5 => {
                    let start = self.below(other.len());
                    let piece = &other[start..(start + self.below(40)).min(other.len())];
                    input.splice(at..end, piece.iter().copied());
                }
                6 => {
                    const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, b'"'];
                    let edge = EDGES[self.below(8)];
                    input.splice(at..at, std::iter::repeat_n(edge, 1 + self.below(10)));
                }
                _ if !words.is_empty() => drop(input.splice(at..at, words[self.below(words.len())].iter().copied())),
                _ => {}
            }
        }
        input.truncate(1 << 16);
    }
}

fn folder(reader: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(reader)
}

/// Feeds `read` with the reader's corpus, `seeds`, and what comes of damaging them.
fn fuzz(reader: &str, seeds: Vec<Vec<u8>>, words: &[&[u8]], mut read: impl FnMut(&[u8])) {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<f64>().ok());
    let full = std::env::var_os("TIDEMILL_TESTS").is_some_and(|v| v == "full");
    let seconds = variable("TIDEMILL_FUZZ_SECONDS").unwrap_or(if full { 60.0 } else { 0.3 });
    let seed = variable("TIDEMILL_FUZZ_SEED").map_or(1, |seed| seed as u64);
    let mut pool = seeds;
    let files = std::fs::read_dir(folder(reader)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
    files.sort();
    pool.extend(files.iter().filter_map(|file| std::fs::read(file).ok()));
    let mut attempt = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| read(input))).is_err() {
            let name = format!("{:016x}", crate::base::hash_bytes(input));
            std::fs::create_dir_all(folder(reader)).unwrap();
            std::fs::write(folder(reader).join(&name), input).unwrap();
            panic!("{reader}: seed {seed}: the input tests/fuzz/{reader}/{name} breaks it");
        }
    };
    pool.iter().for_each(|input| attempt(input));
    let (mut random, begin, mut executions) = (Random(SplitMix64::new(seed)), Instant::now(), pool.len());
    while begin.elapsed() < Duration::from_secs_f64(seconds) {
        for _ in 0..16 {
            let mut input = pool[random.below(pool.len())].clone();
            let other = pool[random.below(pool.len())].clone();
            random.damage(&mut input, &other, words);
            attempt(&input);
            executions += 1;
            // Without a measure of what is new, chance decides what to build upon.
            if random.below(64) == 0 && !input.is_empty() {
                let place = if pool.len() < 256 { pool.len() } else { 32 + random.below(pool.len() - 32) };
                if place == pool.len() { pool.push(input) } else { pool[place] = input }
            }
        }
    }
    println!("{reader}: {executions} executions in {:.1} s, seed {seed}", begin.elapsed().as_secs_f64());
}

/// The input between two sound messages, which must come out as they do alone.
fn between(decoder: &mut dyn MessageDecoder, good: &[u8], input: &[u8]) -> bool {
    let found = decoder.decode(&[good, input, good]).unwrap();
    assert_eq!(found.row_of.len() + found.refused.len(), 3);
    assert!(found.row_of.starts_with(&[0]) && found.row_of.ends_with(&[2]), "{:?}", found.refused);
    assert_eq!(found.rows.num_rows(), found.row_of.len());
    let last = found.rows.num_rows() - 1;
    assert_eq!(found.rows.slice(0, 1), found.rows.slice(last, 1));
    found.refused.is_empty()
}

fn schema() -> SchemaRef {
    parse_avsc(DECLARED).unwrap()
}

const JSON: &[u8] = br#"{"id":1,"ts":"2018-04-01T00:00:31Z","amount":-1.5e2,"n":5,"kind":"FR","note":"\ud83d\ude00\n","ok":true,"x":[{"y":[1,null]},"z"],"day":"2018-04-01"}"#;

const JSON_WORDS: &[&[u8]] = &[
    b"NaN",
    b"-Infinity",
    b"null",
    b"\"id\":",
    b"\\u0000",
    b"\\ud800",
    b"[[[[",
    b"1e999",
    b"99999999999999999999",
    b"{}",
    b"\n",
];

#[test]
fn json_messages() {
    let mut decoder = message_decoder("tx", &MessageFormat::Json, &schema()).unwrap();
    fuzz("json", vec![JSON.to_vec(), b"{}".to_vec()], JSON_WORDS, |input| {
        // What is taken is JSON, but for the words that other languages write.
        let taken = between(decoder.as_mut(), br#"{"id":1,"ts":2}"#, input);
        let words = [&b"NaN"[..], b"Infinity"].iter().any(|word| input.windows(word.len()).any(|w| w == *word));
        if taken && !words {
            let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(input);
            assert!(parsed.is_ok(), "{parsed:?}: {}", String::from_utf8_lossy(input));
        }
    });
}

/// A message of [`DECLARED`], and one of [`WRITER`].
fn avro_seeds() -> [Vec<u8>; 2] {
    let declared = [&[2, 4, 2][..], &1.5f64.to_le_bytes(), &[14, 0, 2, 4], b"hi", &[1, 6]].concat();
    let map = [&[4, 2, 2][..], b"k", &2.5f64.to_le_bytes(), &[0]].concat();
    let writer = [&[6, 0, 2, 2, b'x'][..], &map, &[0, 10, 0, 20, 2, 1, 2, 3, 0, 2, b'n']].concat();
    [declared, writer]
}

#[test]
fn avro_messages() {
    let [declared, written] = avro_seeds();
    for (name, writer, good) in [("avro", DECLARED, declared), ("avro_resolved", WRITER, written)] {
        let format = AvroFormat { declared: DECLARED.into(), writer: AvroWriter::Schema(writer.into()) };
        let mut decoder = message_decoder("tx", &MessageFormat::Avro(format), &schema()).unwrap();
        fuzz(name, vec![good.clone()], &[&[0xff; 9], &[0xfe, 0xff, 0xff, 0xff, 0x0f], &[1]], |input| {
            between(decoder.as_mut(), &good, input);
        });
    }
}

#[test]
fn framed_messages() {
    let [declared, written] = avro_seeds();
    let answer = |schema: &str| (200, serde_json::json!({ "schema": schema }).to_string());
    let unknown = (404, r#"{"error_code":40403,"message":"no"}"#.to_string());
    // More unknown ids than this are one too many: the registry is away then, and the rest of the inputs waits.
    let answers = [vec![answer(DECLARED), answer(WRITER)], vec![unknown; 2_000]].concat();
    let plan = RegistryPlan { url: http(answers).0, credentials: None, timeout: None, ca: None };
    let format = AvroFormat { declared: DECLARED.into(), writer: AvroWriter::Registry(plan) };
    let mut decoder = message_decoder("tx", &MessageFormat::Avro(format), &schema()).unwrap();
    let framed = |id: u8, record: &[u8]| [&[0, 0, 0, 0, id][..], record].concat();
    let seeds = [framed(1, &declared), framed(2, &written)];
    decoder.decode(&[&seeds[0], &seeds[1]]).unwrap();
    let good = seeds[0].clone();
    fuzz("framed", seeds.to_vec(), &[&[0, 0, 0, 0, 2]], |input| {
        // Ids that were never asked for cost a request each; a few are enough.
        let mut input = input.to_vec();
        if let [_, high @ .., _] = input.get_mut(..5).unwrap_or_default() {
            high.fill(0);
        }
        between(decoder.as_mut(), &good, &input);
    });
}

#[test]
fn schemas_of_writers() {
    let schema = schema();
    let words: &[&[u8]] =
        &[b"{\"type\":\"array\",\"items\":\"tx\"}", b"\"null\"", b"[\"null\",\"long\"]", b"\"tx\"", b"[[", b"1e9"];
    fuzz("avsc", vec![DECLARED.into(), WRITER.into()], words, |input| {
        if let Ok(text) = std::str::from_utf8(input) {
            let _ = parse_avsc(text);
            let _ = schema_fault(&schema, DECLARED, text);
        }
    });
}

/// Reads a whole file, and holds the rows against the count.
fn read_all(mut reader: impl RawReader) {
    let mut next = 0;
    while let Ok(Some(chunk)) = reader.read(7) {
        assert!(chunk.rows > 0 && chunk.next_offset > next);
        next = chunk.next_offset;
        for row in 0..chunk.batch.num_rows() {
            assert!(chunk.offsets.get(row) < next);
            chunk.original(row);
        }
    }
}

#[test]
fn text_files() {
    let csv = b"id,ts,amount,n,kind,note,ok,day\n1,5,1.5,7,FR,\"a,\"\"b\"\"\nc\",true,2018-04-01\r\n2,6,,8,DE,,0,3\n"
        .to_vec();
    let ndjson = [JSON, b"\r\n\n", JSON].concat();
    let quotes: &[&[u8]] = &[b"\"", b"\"\"", b",", b"\r\n", b"\xef\xbb\xbf"];
    for (name, format, seed, words) in
        [("csv", FileFormat::Csv, csv, quotes), ("ndjson", FileFormat::Ndjson, ndjson, JSON_WORDS)]
    {
        let dir = Dir::new();
        let schema = schema();
        fuzz(name, vec![seed], words, |input| {
            let path = dir.text("input", input);
            if let Ok(reader) = TextReader::open("tx", &path, format, &schema, 0) {
                read_all(reader);
            }
        });
    }
}

#[test]
fn parquet_files() {
    // parquet-rs panics on some damaged files, which the reader turns into dead letters and must keep quiet about.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !is_shielded() {
            hook(info);
        }
    }));
    let dir = Dir::new();
    let schema = schema();
    let mut decoder = message_decoder("tx", &MessageFormat::Json, &schema).unwrap();
    let batch = decoder.decode(&[JSON, br#"{"id":2,"ts":2}"#, JSON]).unwrap().rows;
    let seed = std::fs::read(dir.parquet("seed", &batch, 2)).unwrap();
    fuzz("parquet", vec![seed], &[b"PAR1", &[0xff; 4]], |input| {
        let path = dir.text("input", input);
        if let Ok(reader) = ParquetReader::open("tx", &path, &schema, 0) {
            read_all(reader);
        }
    });
}
