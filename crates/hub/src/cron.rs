//! When schedules tick: cron texts and time zones, read and asked for the next moment. Never here: what
//! a tick does.
//!
//! Five fields, as crontab(5) has them, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
//! A time that a change of the clocks leaves out is taken at the moment of the change, and one that comes
//! twice is taken once (`croner`, which both tests below hold).

use cortex_core::name::printable;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The times of a schedule.
#[derive(Clone, Debug)]
pub struct Times {
    cron: Cron,
    zone: TimeZone,
}

impl Times {
    /// Reads them.
    ///
    /// # Errors
    /// `invalid_argument` with what cannot be read.
    pub fn parse(cron: &str, zone: &str) -> Result<Self, Refusal> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(cron).map_err(|error| {
            let message = format!("`{}` are no times of a schedule: {error}.", printable(cron, 120));
            Refusal::new(Code::InvalidArgument, message)
                .hint("Write minute, hour, day, month and weekday, such as `30 3 * * 1-5`, or `@daily`.")
        })?;
        let zone = TimeZone::get(zone).map_err(|_| {
            let message = format!("There is no time zone `{}`.", printable(zone, 80));
            Refusal::new(Code::InvalidArgument, message).hint("Name one such as `Europe/Berlin` or `UTC`.")
        })?;
        Ok(Self { cron, zone })
    }

    /// The first moment after `after`; `None` when there is none in this age.
    pub fn next(&self, after: WallTime) -> Option<WallTime> {
        let from = Timestamp::from_millisecond(after.0).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&from, false).ok()?;
        Some(WallTime(next.timestamp().as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> WallTime {
        WallTime(text.parse::<Timestamp>().expect("a moment").as_millisecond())
    }

    fn next(cron: &str, zone: &str, after: &str) -> WallTime {
        Times::parse(cron, zone).expect("good times").next(at(after)).expect("there is one")
    }

    #[test]
    fn the_next_moment_is_after_the_one_that_is_given_and_in_the_zone() {
        for (cron, zone, after, expected) in [
            ("30 3 * * *", "UTC", "2026-11-26T03:29:59Z", "2026-11-26T03:30:00Z"),
            ("30 3 * * *", "UTC", "2026-11-26T03:30:00Z", "2026-11-27T03:30:00Z"),
            ("30 3 * * *", "Europe/Berlin", "2026-11-26T02:29:00Z", "2026-11-26T02:30:00Z"),
            ("0 0 29 2 *", "UTC", "2026-11-26T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 9 * * 1-5", "UTC", "2026-11-27T10:00:00Z", "2026-11-30T09:00:00Z"),
            ("@hourly", "Asia/Kolkata", "2026-11-26T00:00:00Z", "2026-11-26T00:30:00Z"),
        ] {
            assert_eq!(next(cron, zone, after), at(expected), "{cron} in {zone} after {after}");
        }
    }

    #[test]
    fn a_time_that_the_change_of_clocks_leaves_out_comes_once_all_the_same() {
        // On 2027-03-28 the clocks of Berlin go from 02:00 to 03:00, which is 01:00 UTC.
        let first = next("30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z");
        assert_eq!(first, at("2027-03-28T01:00:00Z"));
        let times = Times::parse("30 2 * * *", "Europe/Berlin").expect("good times");
        assert_eq!(times.next(first), Some(at("2027-03-29T00:30:00Z")));
    }

    #[test]
    fn a_time_that_comes_twice_is_taken_once() {
        // On 2026-10-25 the clocks of Berlin go from 03:00 back to 02:00, which is 01:00 UTC.
        let times = Times::parse("30 2 * * *", "Europe/Berlin").expect("good times");
        let first = times.next(at("2026-10-24T12:00:00Z")).expect("there is one");
        assert_eq!(first, at("2026-10-25T00:30:00Z"));
        assert_eq!(times.next(first), Some(at("2026-10-26T01:30:00Z")));
    }

    #[test]
    fn what_is_no_time_is_refused_with_a_hint() {
        for (cron, zone) in [
            ("", "UTC"),
            ("* * * *", "UTC"),
            ("0 * * * * *", "UTC"),
            ("61 * * * *", "UTC"),
            ("\u{202e}", "UTC"),
            ("0 3 * * *", "Mars/Olympus"),
            ("0 3 * * *", "../etc/passwd"),
            ("0 3 * * *", ""),
        ] {
            let refusal = Times::parse(cron, zone).expect_err(cron);
            assert_eq!(refusal.code, Code::InvalidArgument, "{cron:?} {zone:?}");
            assert!(!refusal.message.contains('\u{202e}'));
        }
        let never = Times::parse("0 0 30 2 *", "UTC").expect("it reads well");
        assert_eq!(never.next(at("2026-11-26T00:00:00Z")), None);
    }
}
