//! From what a dataflow file says about files to the files themselves.

use std::path::{Path, PathBuf};

use crate::plan::format_of;
use crate::plan::model::FileFormat;

/// The files that `path` names: one file, a directory's files (not those of directories in it), or what a glob matches (`**`
/// for any depth). Sorted by name, without those whose names begin with `.` or `_`. Of a directory, only the files whose
/// extension tells `format`, or any format where it is not given.
///
/// # Errors
/// A sentence that says what was looked for and how to mend it.
pub fn expand(path: &str, format: Option<FileFormat>) -> Result<Vec<PathBuf>, String> {
    expand_in(Path::new(path), format)
}

fn expand_in(path: &Path, format: Option<FileFormat>) -> Result<Vec<PathBuf>, String> {
    let shown = path.display();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| format!("cannot list {shown}: {e}"))?;
        let mut files = Vec::new();
        for entry in entries {
            let file = entry.map_err(|e| format!("cannot list {shown}: {e}"))?.path();
            let fits = format_of(&file).is_some_and(|found| format.is_none_or(|wanted| wanted == found));
            if fits && file.is_file() && !is_hidden(&file) {
                files.push(file);
            }
        }
        return sorted(files, || {
            let what = format.map_or("Parquet, NDJSON or CSV", name);
            format!("no file in {shown} is {what} by its extension; write `{shown}/**/*` for the directories below it")
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

fn name(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Parquet => "Parquet",
        FileFormat::Ndjson => "NDJSON",
        FileFormat::Csv => "CSV",
    }
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
            let files = expand(dir.path().join(path).to_str().unwrap(), Some(FileFormat::Parquet))?;
            Ok(files.iter().map(|f| f.file_name().unwrap().to_str().unwrap().to_owned()).collect())
        };
        assert_eq!(names("a.parquet"), Ok(vec!["a.parquet".into()]));
        assert_eq!(names("c.csv"), Ok(vec!["c.csv".into()]));
        assert_eq!(names("odd[1].parquet"), Ok(vec!["odd[1].parquet".into()]));
        assert_eq!(names("."), Ok(vec!["a.parquet".into(), "b.parquet".into(), "odd[1].parquet".into()]));
        assert_eq!(names("?.parquet"), Ok(vec!["a.parquet".into(), "b.parquet".into()]));
        assert_eq!(names("z.parquet"), Err(format!("there is no file {}/z.parquet", dir.path().display())));
        assert_eq!(names("z*.parquet"), Err(format!("no file matches {}/z*.parquet", dir.path().display())));
        assert!(names("[").unwrap_err().contains("is not a pattern"));
        let here = dir.path().to_str().unwrap();
        assert_eq!(expand(here, None).unwrap().len(), 4);
        let error = expand(here, Some(FileFormat::Ndjson)).unwrap_err();
        assert!(error.contains("is NDJSON by its extension"), "{error}");
    }
}
