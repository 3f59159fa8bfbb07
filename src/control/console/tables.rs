//! What was read of tables, kept as long as they have no newer version.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::http::Problem;
use crate::store::offline::table_path;

/// Answers that are kept.
const KEPT_MAX: usize = 24;
/// An answer holds for so many times as long as it took to make, though the tables go on: reading shall not take all of a
/// processor.
const WORTH: u32 = 8;
/// And for at least so long.
const AGE_MIN: Duration = Duration::from_secs(2);

/// Answers by what they were made of.
#[derive(Default)]
pub(super) struct Cache {
    kept: Mutex<Vec<Arc<Kept>>>,
}

struct Kept {
    key: String,
    /// Held while the answer is made: who asks for the same meanwhile waits for it.
    answer: Mutex<Option<Answer>>,
}

#[derive(Clone)]
struct Answer {
    versions: Vec<Option<String>>,
    bytes: Arc<[u8]>,
    made: Instant,
    took: Duration,
}

impl Cache {
    /// The answer named `key`, which is made of these tables below `root`, and made again when one of them has changed.
    pub fn get(
        &self,
        key: String,
        root: &Path,
        tables: &[String],
        make: impl FnOnce() -> Result<Vec<u8>, Problem>,
    ) -> Result<Arc<[u8]>, Problem> {
        let kept = self.entry(key);
        let mut answer = kept.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let versions: Vec<Option<String>> = tables.iter().map(|name| newest(&table_path(root, name))).collect();
        if let Some(known) = answer.as_ref()
            && (known.versions == versions || known.made.elapsed() < (known.took * WORTH).max(AGE_MIN))
        {
            return Ok(Arc::clone(&known.bytes));
        }
        let begun = Instant::now();
        let bytes: Arc<[u8]> = make()?.into();
        *answer = Some(Answer { versions, bytes: Arc::clone(&bytes), made: Instant::now(), took: begun.elapsed() });
        Ok(bytes)
    }

    fn entry(&self, key: String) -> Arc<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match kept.iter().position(|one| one.key == key) {
            Some(at) => kept.remove(at),
            None => Arc::new(Kept { key, answer: Mutex::default() }),
        };
        // What was asked for last stands last, and goes last.
        kept.push(Arc::clone(&entry));
        let over = kept.len().saturating_sub(KEPT_MAX);
        kept.drain(..over);
        entry
    }
}

/// The name of a table's newest commit; nothing where there is no table.
fn newest(table: &Path) -> Option<String> {
    let log: PathBuf = table.join("_delta_log");
    let names = std::fs::read_dir(log).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".json") && name.starts_with(|c: char| c.is_ascii_digit())).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_kept_until_a_table_has_a_newer_version() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let log = dir.path().join("stats/drift/_delta_log");
        std::fs::create_dir_all(&log).expect("a folder");
        std::fs::write(log.join("00000000000000000000.json"), "").expect("a file");
        let cache = Cache::default();
        let read = |text: &str| {
            let make = || Ok(text.as_bytes().to_vec());
            let bytes = cache.get("a".to_owned(), dir.path(), &["stats/drift".to_owned()], make).expect("an answer");
            String::from_utf8(bytes.to_vec()).expect("text")
        };
        assert_eq!(read("first"), "first");
        assert_eq!(read("second"), "first", "nothing has changed");
        std::fs::write(log.join("00000000000000000001.json"), "").expect("a file");
        let entry = cache.entry("a".to_owned());
        let before = |answer: &mut Answer| answer.made = Instant::now().checked_sub(AGE_MIN * 2).expect("a time");
        entry.answer.lock().expect("no panic").as_mut().map(before).expect("an answer");
        assert_eq!(read("third"), "third", "the table has a newer version");
        for n in 0..KEPT_MAX {
            cache.entry(n.to_string());
        }
        assert!(cache.kept.lock().expect("no panic").iter().all(|kept| kept.key != "a"), "the oldest goes");
    }
}
