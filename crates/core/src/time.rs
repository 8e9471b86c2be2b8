//! Two kinds of time, kept apart by type. [`Timestamp`] decides; [`WallTime`] is shown and kept.

use std::fmt;
use std::ops::{Add, Sub};

/// Milliseconds on a monotonic clock whose origin is the start of the process (or the world of
/// a simulation). Never stored, never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment plus a span in milliseconds; saturates.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 when `earlier` is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since 1970-01-01 UTC on the hub's wall clock. It is shown to people, kept in
/// rows, and decides only what a person gave as a date or span that must outlive restarts
/// (an invite's expiry, a grant `--for 1h`). No argument for safety rests on it (DESIGN §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

impl WallTime {
    /// This moment plus a span in milliseconds; saturates.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        let ms = if ms > i64::MAX as u64 { i64::MAX } else { ms as i64 };
        Self(self.0.saturating_add(ms))
    }
}

impl Add<u64> for Timestamp {
    type Output = Self;
    fn add(self, ms: u64) -> Self {
        self.plus_ms(ms)
    }
}

impl Sub for Timestamp {
    type Output = u64;
    fn sub(self, earlier: Self) -> u64 {
        self.ms_since(earlier)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
