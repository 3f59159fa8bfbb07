//! From what a dataflow file says about files to the files themselves.

use std::path::{Path, PathBuf};

use crate::plan::model::FileFormat;

/// Endings of each format's file names.
pub fn endings(format: FileFormat) -> &'static [&'static str] {
    match format {
        FileFormat::Parquet => &["parquet", "pq"],
        FileFormat::Ndjson => &["ndjson", "jsonl", "json"],
        FileFormat::Csv => &["csv"],
    }
}

/// The format that a path's ending tells, if any: `a/*.parquet`, `b.ndjson`.
pub fn format_of(path: &str) -> Option<FileFormat> {
    let ending = Path::new(path).extension()?.to_str()?.to_ascii_lowercase();
    let formats = [FileFormat::Parquet, FileFormat::Ndjson, FileFormat::Csv];
    formats.into_iter().find(|format| endings(*format).contains(&ending.as_str()))
}

/// The files that `path` names: one file, a directory's files with the format's endings (not those of directories in it),
/// or what a glob matches (`**` for any depth). Sorted by name, without those whose names begin with `.` or `_`.
/// A relative path is looked up in each of `bases` until one has files.
///
/// # Errors
/// A sentence that says what was looked for and how to mend it.
pub fn expand(path: &str, format: FileFormat, bases: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut failure = None;
    for base in bases {
        match expand_in(&base.join(path), format) {
            Ok(files) => return Ok(files),
            // The first base is where the user stands: its failure is the one to tell.
            Err(what) => failure = failure.or(Some(what)),
        }
    }
    Err(failure.unwrap_or_else(|| format!("there is nowhere to look for `{path}`")))
}

fn expand_in(path: &Path, format: FileFormat) -> Result<Vec<PathBuf>, String> {
    let shown = path.display();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| format!("cannot list {shown}: {e}"))?;
        let mut files = Vec::new();
        for entry in entries {
            let file = entry.map_err(|e| format!("cannot list {shown}: {e}"))?.path();
            if file.is_file() && !is_hidden(&file) && file.to_str().and_then(format_of) == Some(format) {
                files.push(file);
            }
        }
        let endings = endings(format).join(" or .");
        return sorted(files, || {
            format!("no file in {shown} ends in .{endings}; write `{shown}/**/*` for the directories below it")
        });
    }
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    let text = path.to_str().ok_or_else(|| format!("{shown} is not UTF-8"))?;
    if !text.contains(['*', '?', '[']) {
        return Err(format!("there is no file {shown}"));
    }
    let matches = glob::glob(text).map_err(|e| format!("`{shown}` is not a pattern of file names: {e}"))?;
    let mut files = Vec::new();
    for found in matches {
        let file = found.map_err(|e| format!("cannot look into {}: {}", e.path().display(), e.error()))?;
        if file.is_file() && !is_hidden(&file) {
            files.push(file);
        }
    }
    sorted(files, || format!("no file matches {shown}"))
}

fn is_hidden(file: &Path) -> bool {
    file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(['.', '_']))
}

fn sorted(mut files: Vec<PathBuf>, none: impl Fn() -> String) -> Result<Vec<PathBuf>, String> {
    files.sort();
    if files.is_empty() { Err(none()) } else { Ok(files) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::tests::kit::Dir;

    #[test]
    fn a_file_a_directory_and_a_glob() {
        let dir = Dir::new();
        for name in ["b.parquet", "a.parquet", "c.csv", "_hidden.parquet", ".x.parquet", "odd[1].parquet"] {
            dir.text(name, b"");
        }
        let names = |path: &str| -> Result<Vec<String>, String> {
            let files = expand(path, FileFormat::Parquet, &["/nowhere".into(), dir.path().to_owned()])?;
            Ok(files.iter().map(|f| f.file_name().unwrap().to_str().unwrap().to_owned()).collect())
        };
        assert_eq!(names("a.parquet"), Ok(vec!["a.parquet".into()]));
        assert_eq!(names("c.csv"), Ok(vec!["c.csv".into()]));
        assert_eq!(names("odd[1].parquet"), Ok(vec!["odd[1].parquet".into()]));
        assert_eq!(names("."), Ok(vec!["a.parquet".into(), "b.parquet".into(), "odd[1].parquet".into()]));
        assert_eq!(names("?.parquet"), Ok(vec!["a.parquet".into(), "b.parquet".into()]));
        assert_eq!(names("z.parquet"), Err("there is no file /nowhere/z.parquet".into()));
        assert_eq!(names("z*.parquet"), Err("no file matches /nowhere/z*.parquet".into()));
        assert!(names("[").unwrap_err().contains("is not a pattern"));
        let error = expand(".", FileFormat::Ndjson, &[dir.path().to_owned()]).unwrap_err();
        assert!(error.contains("ends in .ndjson or .jsonl or .json"), "{error}");
    }

    #[test]
    fn formats_by_ending() {
        assert_eq!(format_of("x/*.PARQUET"), Some(FileFormat::Parquet));
        assert_eq!(format_of("x.jsonl"), Some(FileFormat::Ndjson));
        assert_eq!(format_of("x.csv"), Some(FileFormat::Csv));
        assert_eq!(format_of("x.txt"), None);
        assert_eq!(format_of("dir"), None);
    }
}
