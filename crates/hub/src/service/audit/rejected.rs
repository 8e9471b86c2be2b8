//! Rejected credentials in the audit log: one row when an address begins, and one for all that it
//! tried in the minute after. Somebody who tries tokens in a loop must not fill the log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::Code;

/// Time for which two rows stand for all that one address tried.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are told apart; those beyond it share a window.
const SOURCES_MAX: usize = 1_024;

/// Whose rejections are counted together: `None` are all addresses for which there is no place.
pub(super) type Key = (Option<IpAddr>, Code);

/// The windows that are open, and what was rejected in each after its first row.
#[derive(Debug, Default)]
pub(super) struct Windows(Mutex<BTreeMap<Key, u64>>);

impl Windows {
    /// Counts a rejection; the key of its window when that begins with it.
    pub(super) fn begin(&self, source: Option<IpAddr>, code: Code) -> Option<Key> {
        let mut windows = self.lock();
        let full = windows.len() >= SOURCES_MAX;
        let own = (source, code);
        let key = if full && !windows.contains_key(&own) { (None, code) } else { own };
        if let Some(more) = windows.get_mut(&key) {
            *more = more.saturating_add(1);
            return None;
        }
        windows.insert(key, 0);
        Some(key)
    }

    /// Ends a window: how many came after the first.
    pub(super) fn end(&self, key: Key) -> u64 {
        self.lock().remove(&key).unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_what_came_after_its_first_and_begins_anew_when_it_has_ended() {
        let windows = Windows::default();
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let key = windows.begin(here, Code::Unauthenticated).expect("the first");
        for _ in 0..5 {
            assert_eq!(windows.begin(here, Code::Unauthenticated), None);
        }
        assert!(windows.begin(here, Code::WrongAudience).is_some(), "another code is told apart");
        assert_eq!((windows.end(key), windows.end(key)), (5, 0));
        assert_eq!(windows.begin(here, Code::Unauthenticated), Some(key));
    }

    #[test]
    fn many_addresses_share_one_window_beyond_the_bound() {
        let windows = Windows::default();
        let begun = (0..100_000_u32)
            .filter(|n| windows.begin(Some(IpAddr::from(n.to_be_bytes())), Code::Unauthenticated).is_some());
        assert_eq!(begun.count(), SOURCES_MAX + 1);
        assert_eq!(windows.end((None, Code::Unauthenticated)), 100_000 - SOURCES_MAX as u64 - 1);
    }
}
