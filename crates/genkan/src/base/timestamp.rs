//! Points in time, and how the lexicons write them.

use std::fmt;
use std::time::Duration;

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded down, as in the claims of a JWT (RFC 7519 §2).
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this one. Zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whether less than `duration` has passed since `earlier`.
    ///
    /// `false` if `earlier` is to come, by more than two clocks differ: a clock was ahead when it was
    /// recorded. Something that is not repeated too early must not wait until then.
    pub(crate) fn is_within(self, duration: Duration, earlier: Self) -> bool {
        self.since(earlier) < duration && earlier.since(self) < TOLERANCE
    }

    /// Parses a `datetime` of the lexicons: RFC 3339 with a zone and any number of decimals.
    ///
    /// Digits after the milliseconds are dropped. Leap seconds and days that do not exist are
    /// `None`.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once('T')?;
        // The last one: the date and its dashes were split off above.
        let zone_at = rest.rfind(['Z', '+', '-'])?;
        let (time, zone) = rest.split_at(zone_at);
        let [year, month, day] = fields(date, '-')?;
        let (time, decimals) =
            time.split_once('.').map_or((time, None), |(time, decimals)| (time, Some(decimals)));
        let [hours, minutes, seconds] = fields(time, ':')?;
        let millis = match decimals {
            None => 0,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                // Filled up on the right: `.5` is 500 milliseconds.
                format!("{digits:0<3}").get(..3)?.parse::<i64>().ok()?
            }
            Some(_) => return None,
        };
        let offset_minutes = match zone.split_at_checked(1)? {
            ("Z", "") => 0,
            (sign @ ("+" | "-"), offset) => {
                let [hours, minutes] = fields(offset, ':')?;
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 60 + minutes) * if sign == "+" { 1 } else { -1 }
            }
            _ => return None,
        };
        // `fields` checks the least length of each number, and these the length of all together. A year
        // has four digits.
        let fine = date.len() == 10
            && date.find('-') == Some(4)
            && time.len() == 8
            && hours < 24
            && minutes < 60
            && seconds < 60;
        // The round trip refuses days that do not exist, such as 30 February.
        let days = days_from_civil(year, month, day);
        if !fine || civil_from_days(days) != (year, month, day) {
            return None;
        }
        // The offset is how far local time is ahead of UTC, so it is subtracted.
        let total_minutes = (days * 24 + hours) * 60 + minutes - offset_minutes;
        Some(Self((total_minutes * 60 + seconds) * 1000 + millis))
    }

    /// Returns the `datetime` of the lexicons, such as `2026-01-31T12:00:00.000Z`.
    pub fn rfc3339(self) -> String {
        self.to_string()
    }
}

/// More than the estimates of replicas differ.
const TOLERANCE: Duration = Duration::from_mins(1);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(86_400_000);
        let in_day = self.0.rem_euclid(86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (hours, minutes) = (in_day / 3_600_000, in_day / 60_000 % 60);
        let (seconds, millis) = (in_day / 1000 % 60, in_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn fields<const N: usize>(text: &str, between: char) -> Option<[i64; N]> {
    // Checked by hand, since `parse` also accepts a leading `+`.
    let is_number = |field: &str| field.len() >= 2 && field.bytes().all(|byte| byte.is_ascii_digit());
    let numbers: Vec<i64> = text
        .split(between)
        .map(|field| if is_number(field) { field.parse().ok() } else { None })
        .collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// Returns the day number of a proleptic Gregorian date. 1970-01-01 is day 0.
///
/// A year begins in March here, so that a leap day is the last day of its year and months before it
/// have constant offsets. An era is the 400 years (146,097 days) after which the calendar repeats.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Returns the proleptic Gregorian date of a day number: the inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // Counts from 0000-03-01, the first day of an era.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_dates_as_the_calendar_does() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_102_444_799_001, "2099-12-31T23:59:59.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).rfc3339(), text);
        }
    }

    #[test]
    fn what_a_wrong_clock_recorded_is_not_recent() {
        let (now, pause) = (Timestamp::from_seconds(1_000_000), Duration::from_mins(10));
        let is_recent =
            |minutes: i64| now.is_within(pause, Timestamp::from_seconds(1_000_000 + 60 * minutes));
        assert!(is_recent(0) && is_recent(-9));
        assert!(!is_recent(-10), "it is over");
        assert!(!is_recent(60), "the clock was ahead by an hour");
        assert!(
            now.is_within(pause, now.plus(Duration::from_secs(1))),
            "replicas are never exactly together"
        );
    }

    #[test]
    fn reads_back_what_it_prints_and_other_zones() {
        for text in ["1970-01-01T00:00:00.000Z", "2024-02-29T23:59:59.999Z", "2099-12-31T23:59:59.001Z"] {
            assert_eq!(Timestamp::parse_rfc3339(text).unwrap().rfc3339(), text);
        }
        let read = |text: &str| Timestamp::parse_rfc3339(text).map(Timestamp::rfc3339);
        assert_eq!(read("2024-03-01T01:30:00+02:00").unwrap(), "2024-02-29T23:30:00.000Z");
        assert_eq!(read("2024-01-01T00:00:00.1234567Z").unwrap(), "2024-01-01T00:00:00.123Z");
        for text in [
            "",
            "2024-01-01",
            "2024-02-30T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-1-1T00:00:00Z",
            "999-012-31T00:00:00Z",
            "999-12-031T00:00:00Z",
            "02024-01-1T00:00:00Z",
            "2024-001-1T00:00:00Z",
            "2024-01-01T00:00:00.Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
