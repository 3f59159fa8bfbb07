//! Times that come round, as cron writes them.

use std::fmt;

use super::time::{DAY, EventTime};

const MINUTE: i64 = 60_000_000;
/// Further ahead nothing is looked for: a leap year's 29 February comes within eight years.
const DAYS_MAX: i64 = 366 * 9;

/// Minutes of the calendar (UTC), by five fields: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday).
///
/// A field is `*`, a number, a range `1-5`, a step `*/15` or `8-18/2`, or several with commas between. Where both day fields are
/// restricted a day counts by either, as in cron.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    either_day: bool,
}

impl Cron {
    /// Reads the five fields.
    ///
    /// # Errors
    /// A sentence that says which is wrong.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "`{text}` has {} fields, not five; write minute, hour, day of the month, month and day of the week, such as 0 3 * * *",
                fields.len()
            ));
        };
        let weekdays = field(weekday, "day of the week", 0, 7)?;
        let cron = Cron {
            text: fields.join(" "),
            minutes: field(minute, "minute", 0, 59)?,
            hours: field(hour, "hour", 0, 23)?,
            days: field(day, "day of the month", 1, 31)?,
            months: field(month, "month", 1, 12)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        match cron.after(0) {
            Some(_) => Ok(cron),
            None => Err(format!("`{text}` never comes: no month has such a day")),
        }
    }

    /// The first moment after `time`; none when there is none within years.
    pub fn after(&self, time: EventTime) -> Option<EventTime> {
        let first = time.div_euclid(MINUTE).checked_add(1)?;
        let mut day = (first * MINUTE).div_euclid(DAY);
        let mut minute = first - day * 1440;
        for _ in 0..DAYS_MAX {
            if self.has_day(day)
                && let Some(found) = (minute..1440).find(|m| has(self.hours, m / 60) && has(self.minutes, m % 60))
            {
                return day.checked_mul(1440)?.checked_add(found)?.checked_mul(MINUTE);
            }
            (day, minute) = (day + 1, 0);
        }
        None
    }

    fn has_day(&self, day: i64) -> bool {
        let (month, of_month) = calendar(day);
        // 1970-01-01 was a Thursday.
        let (by_month, by_week) = (has(self.days, of_month), has(self.weekdays, (day + 4).rem_euclid(7)));
        has(self.months, month) && if self.either_day { by_month || by_week } else { by_month && by_week }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.text)
    }
}

fn has(set: u64, value: i64) -> bool {
    set >> value & 1 == 1
}

fn field(text: &str, what: &str, low: u32, high: u32) -> Result<u64, String> {
    let wrong = || {
        format!("`{text}` is no {what}: write *, or numbers from {low} to {high}, such as {low}, {low}-{high} or */5")
    };
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| (low..=high).contains(n)).ok_or_else(wrong);
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong)?),
            None => (part, 1),
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (low, high),
            (_, Some((from, to))) => (number(from)?, number(to)?),
            // `5/15` is every fifteen from 5 on.
            _ if part.contains('/') => (number(range)?, high),
            _ => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(wrong());
        }
        (from..=to).step_by(step as usize).for_each(|n| set |= 1 << n);
    }
    Ok(set)
}

/// Month and day of the month of a day since 1970. Source: H. Hinnant, "chrono-compatible low-level date algorithms", 2021.
fn calendar(day: i64) -> (i64, i64) {
    let z = day + 719_468;
    let of_era = z.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (if month < 10 { month + 3 } else { month - 9 }, of_year - (153 * month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::super::time::{format_time, parse_time};
    use super::*;
    use proptest::prelude::*;

    fn next(cron: &str, after: &str) -> String {
        format_time(Cron::parse(cron).unwrap().after(parse_time(after).unwrap()).unwrap())
    }

    #[test]
    fn moments() {
        for (cron, after, expected) in [
            ("0 3 * * *", "2026-01-05T03:00:00Z", "2026-01-06T03:00:00Z"),
            ("0 3 * * *", "2026-01-05T02:59:59.999999Z", "2026-01-05T03:00:00Z"),
            ("*/15 * * * *", "2026-01-05T00:46:00Z", "2026-01-05T01:00:00Z"),
            ("5/20 8-9 * * *", "2026-01-05T08:06:00Z", "2026-01-05T08:25:00Z"),
            ("0 0 29 2 *", "2026-01-01", "2028-02-29T00:00:00Z"),
            ("30 6 * * 1", "2026-01-05T06:30:00Z", "2026-01-12T06:30:00Z"),
            ("0 0 * * 7", "2026-01-05", "2026-01-11T00:00:00Z"),
            ("0 0 13 * 5", "2026-01-05", "2026-01-09T00:00:00Z"),
            ("0 0 1 1,7 *", "2026-01-05", "2026-07-01T00:00:00Z"),
            ("0 12 * * *", "1969-12-30T13:00:00Z", "1969-12-31T12:00:00Z"),
        ] {
            assert_eq!(next(cron, after), expected, "{cron} after {after}");
        }
    }

    #[test]
    fn what_is_none_is_told() {
        for (text, part) in [
            ("0 3 * *", "4 fields, not five"),
            ("60 3 * * *", "no minute"),
            ("0 5-3 * * *", "no hour"),
            ("0 0 0 * *", "no day of the month"),
            ("0 0 * jan *", "no month"),
            ("*/0 * * * *", "no minute"),
            ("0 0 31 2 *", "never comes"),
        ] {
            let told = Cron::parse(text).unwrap_err();
            assert!(told.contains(part), "{told}");
        }
    }

    proptest! {
        /// Minute by minute nothing is passed over.
        #[test]
        fn no_moment_is_passed_over(
            start in 0..4_000_000_000_000_000i64,
            minute in prop_oneof![Just("*".to_owned()), (0..60).prop_map(|n: i32| n.to_string()), Just("*/7".to_owned())],
            hour in prop_oneof![Just("*".to_owned()), (0..24).prop_map(|n: i32| n.to_string())],
            weekday in prop_oneof![Just("*".to_owned()), (0..8).prop_map(|n: i32| n.to_string())],
        ) {
            let cron = Cron::parse(&format!("{minute} {hour} * * {weekday}")).unwrap();
            let wanted = |text: &str, value: i64| match text {
                "*" => true,
                "*/7" => value % 7 == 0,
                n => n.parse::<i64>().unwrap() == value,
            };
            let matches = |time: i64| {
                let (m, h, d) = (time / MINUTE % 60, time / MINUTE / 60 % 24, (time / DAY + 4) % 7);
                wanted(&minute, m)
                    && (hour == "*" || hour.parse::<i64>().unwrap() == h)
                    && (weekday == "*" || weekday.parse::<i64>().unwrap() % 7 == d)
            };
            let first = (start / MINUTE + 1) * MINUTE;
            let expected = (0..8 * 1440).map(|m| first + m * MINUTE).find(|t| matches(*t));
            prop_assert_eq!(cron.after(start), expected);
        }
    }
}
