//! Numbers of bytes as users write them.

const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("", 1),
];

/// Reads a number of bytes such as `32MiB`, `100MB`, `4096`.
///
/// # Errors
/// A sentence that says what a number of bytes looks like, when `text` is none or is out of range.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let bad =
        || format!("`{text}` is not a number of bytes; write a whole number and a unit, such as 512KiB, 32MiB or 1GB");
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let scale = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, scale)| *scale).ok_or_else(bad)?;
    number.checked_mul(scale).ok_or_else(|| format!("`{text}` is more than 16 EiB"))
}

/// Writes a number of bytes in its largest whole binary unit: `32MiB`, `1000B`; [`parse_bytes`] reads it back.
pub fn format_bytes(bytes: u64) -> String {
    let whole = |(_, scale): &&(&str, u64)| bytes.is_multiple_of(*scale) && bytes >= *scale;
    let (name, scale) = UNITS[..4].iter().find(whole).unwrap_or(&UNITS[3]);
    format!("{}{name}", bytes / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_and_written() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("7B", 7), ("2kB", 2000), ("3MB", 3_000_000), ("32MiB", 32 << 20), ("1 GiB", 1 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5MiB", "1mib", "1TB", "99999999999999999999", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        for bytes in [0, 1, 1000, 1024, 1536, 32 << 20, (1 << 30) + 1, u64::MAX] {
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
        assert_eq!((format_bytes(32 << 20).as_str(), format_bytes(1000).as_str()), ("32MiB", "1000B"));
    }
}
