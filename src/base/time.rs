//! Event time: microseconds since 1970-01-01T00:00:00Z, and durations as users write them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Event time in microseconds since the Unix epoch, UTC.
pub type EventTime = i64;

/// A length of time in microseconds.
pub type Micros = i64;

/// A day.
pub const DAY: Micros = 86_400_000_000;

/// The wall clock, in microseconds since 1970; 0 before.
pub fn wall_clock() -> EventTime {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as EventTime)
}

const UNITS: [(&str, Micros); 7] = [
    ("d", DAY),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
    ("w", 604_800_000_000),
];

/// Reads a duration such as `500ms`, `10s`, `5m`, `1h`, `7d`, `2w`.
///
/// # Errors
/// A sentence that says what a duration looks like, when `text` is none or is out of range.
pub fn parse_duration(text: &str) -> Result<Micros, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let bad =
        || format!("`{text}` is not a duration; write a whole number and a unit, such as 500ms, 10s, 5m, 1h or 7d");
    let number: i64 = digits.parse().map_err(|_| bad())?;
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale).ok_or_else(bad)?;
    number.checked_mul(scale).ok_or_else(|| format!("`{text}` is longer than 292,000 years"))
}

/// Writes a duration in its largest whole unit up to days: `7d`, `90m`, `1500ms`; the inverse of [`parse_duration`].
pub fn format_duration(micros: Micros) -> String {
    for (name, scale) in &UNITS[..6] {
        if micros % scale == 0 && (micros != 0 || *name == "s") {
            return format!("{}{name}", micros / scale);
        }
    }
    format!("{micros}us")
}

/// Writes an event time as RFC 3339 in UTC with as many fraction digits as it needs (0, 3 or 6).
/// Times beyond the calendar's range are written as `<n>us`.
pub fn format_time(time: EventTime) -> String {
    match arrow::temporal_conversions::timestamp_us_to_datetime(time) {
        Some(t) if time % 1_000_000 == 0 => t.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Some(t) if time % 1_000 == 0 => t.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        Some(t) => t.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        None => format!("{time}us"),
    }
}

/// Reads a time as RFC 3339 or as `YYYY-MM-DD[ HH:MM:SS[.fff]]` in UTC.
///
/// # Errors
/// A sentence that says what a time looks like.
pub fn parse_time(text: &str) -> Result<EventTime, String> {
    arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text.trim())
        .map(|ns| ns.div_euclid(1_000))
        .map_err(|_| format!("`{text}` is not a time; write 2018-04-01T00:00:31Z or 2018-04-01"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("7d"), Ok(7 * 86_400_000_000));
        assert_eq!(parse_duration("500ms"), Ok(500_000));
        assert_eq!(format_duration(7 * 86_400_000_000), "7d");
        assert_eq!(format_duration(90 * 60_000_000), "90m");
        assert_eq!(format_duration(0), "0s");
        for bad in ["", "d", "1.5h", "7 days", "-1s", "99999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(format_time(1_500_000), "1970-01-01T00:00:01.500Z");
        assert!(parse_time("yesterday").is_err());
    }

    proptest! {
        #[test]
        fn durations_round_trip(micros in 0..i64::MAX) {
            prop_assert_eq!(parse_duration(&format_duration(micros)), Ok(micros));
        }

        #[test]
        fn times_round_trip(time in -60_000_000_000_000_000i64..9_000_000_000_000_000) {
            let text = format_time(time);
            if time > -9_000_000_000_000_000 {
                prop_assert_eq!(parse_time(&text), Ok(time));
            }
        }
    }
}
