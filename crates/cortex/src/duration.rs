//! Durations as people write them: `90s`, `10m`, `1h30m`, `250ms`. A number without its unit is
//! refused, since seconds and milliseconds look alike.

use std::time::Duration;

/// Reads a duration above zero. The error is a sentence.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| bad(text))?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad(text))?;
        let tail = &rest[digits..];
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let part = unit(&tail[..unit_len]).and_then(|ms| number.checked_mul(ms)).ok_or_else(|| bad(text))?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(|| bad(text))?;
        rest = &tail[unit_len..];
    }
    if total.is_zero() {
        return Err(bad(text));
    }
    Ok(total)
}

/// Milliseconds, as the API takes them; saturates.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A span for people: `480 ms`, `3.2 s`, `12m 5s`, `3h 2m`, `4d 1h`; `1h` when it is a whole one.
pub(crate) fn show(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        60..3600 => two((seconds / 60, "m"), (seconds % 60, "s")),
        3600..86_400 => two((seconds / 3600, "h"), (seconds % 3600 / 60, "m")),
        86_400.. => two((seconds / 86_400, "d"), (seconds % 86_400 / 3600, "h")),
    }
}

fn two((big, big_unit): (u64, &str), (small, small_unit): (u64, &str)) -> String {
    if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit} {small}{small_unit}") }
}

fn unit(text: &str) -> Option<u64> {
    match text {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

fn bad(text: &str) -> String {
    let shown = cortex_core::name::printable(text, 40);
    format!("`{shown}` is not a duration; write a number with ms, s, m, h or d, such as 90s, 10m or 1h30m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in
            [("90s", 90_000), ("10m", 600_000), ("1h", 3_600_000), ("1h30m", 5_400_000), ("250ms", 250)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_zero_and_nonsense_are_refused() {
        for text in
            ["", "10", "0s", "-1s", "1.5h", "10x", "s", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_shown_short() {
        assert_eq!([show(480), show(3_250), show(725_000)], ["480 ms", "3.2 s", "12m 5s"]);
        assert_eq!([show(3_600_000), show(2_592_000_000)], ["1h", "30d"]);
    }
}
