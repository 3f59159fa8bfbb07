//! Printing results to standard output.

use std::io::{ErrorKind, Write};

use serde::Serialize;

/// Prints `text` to standard output. A reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints `value` as one indented JSON document.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Lays rows out in columns, two spaces apart; the columns that `right` names are aligned to the right.
pub fn columns(rows: &[Vec<String>], right: &[usize]) -> String {
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter()
                .enumerate()
                .map(|(i, cell)| {
                    if right.contains(&i) { format!("{cell:>0$}", widths[i]) } else { format!("{cell:<0$}", widths[i]) }
                })
                .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A whole number with its thousands apart: `1,466,282`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 worker`, `2 workers`.
pub fn workers(n: usize) -> String {
    if n == 1 { "1 worker".to_owned() } else { format!("{n} workers") }
}

/// A number of bytes in the unit that reads best: `812 B`, `3.4 MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            ["0", "999", "1,000", "1,466,282"],
            [0, 999, 1000, 1_466_282].map(grouped).each_ref().map(String::as_str)
        );
        assert_eq!(
            ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "3.4 GB"],
            [0, 999, 1000, 999_900, 999_960, 3_400_000_000].map(bytes).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["tx".to_owned(), "12".to_owned()], vec!["labels".to_owned(), "3,456".to_owned()]];
        assert_eq!(columns(&rows, &[1]), "tx         12\nlabels  3,456\n");
    }
}
