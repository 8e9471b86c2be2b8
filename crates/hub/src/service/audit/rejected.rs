//! Refused requests in the audit log: one row when somebody begins, and one for all that came in
//! the minute after. Somebody who tries tokens, or what a token may not do, in a loop must not fill
//! the log. Strangers and known callers have windows of their own: whoever has many addresses must
//! not push what a known caller tried out of its window.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::Code;

/// Time for which two rows stand for all that one tried.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Windows of one kind at once; what has no place shares one of each code.
const WINDOWS_MAX: usize = 1_024;

/// Which refusals are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The actor of the rows.
    pub(super) actor: String,
    /// Why.
    pub(super) code: Code,
    /// What was asked for, where that is one of few.
    pub(super) asked: Option<String>,
}

/// Whose windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of callers whose token is good.
    Known,
    /// Of addresses.
    Stranger,
}

/// The windows that are open, and what was refused in each after its first row.
#[derive(Debug, Default)]
pub(super) struct Windows {
    known: Mutex<BTreeMap<Key, u64>>,
    strangers: Mutex<BTreeMap<Key, u64>>,
}

impl Windows {
    /// Counts a refusal; the key of its window when that begins with it.
    pub(super) fn begin(&self, kind: Kind, own: Key) -> Option<Key> {
        let mut windows = self.lock(kind);
        let full = windows.len() >= WINDOWS_MAX;
        let key = if full && !windows.contains_key(&own) { others(kind, own.code) } else { own };
        if let Some(more) = windows.get_mut(&key) {
            *more = more.saturating_add(1);
            return None;
        }
        windows.insert(key.clone(), 0);
        Some(key)
    }

    /// Ends a window: how many came after the first.
    pub(super) fn end(&self, kind: Kind, key: &Key) -> u64 {
        self.lock(kind).remove(key).unwrap_or(0)
    }

    fn lock(&self, kind: Kind) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        let windows = match kind {
            Kind::Known => &self.known,
            Kind::Stranger => &self.strangers,
        };
        windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The window of all for whom there is no place.
fn others(kind: Kind, code: Code) -> Key {
    let actor = match kind {
        Kind::Known => "token:?",
        Kind::Stranger => "http:?",
    };
    Key { actor: actor.to_owned(), code, asked: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(actor: &str, code: Code) -> Key {
        Key { actor: actor.to_owned(), code, asked: None }
    }

    #[test]
    fn a_window_counts_what_came_after_its_first_and_begins_anew_when_it_has_ended() {
        let windows = Windows::default();
        let begin = |key| windows.begin(Kind::Stranger, key);
        let here = || key("http:127.0.0.1", Code::Unauthenticated);
        let begun = begin(here()).expect("the first");
        for _ in 0..5 {
            assert_eq!(begin(here()), None);
        }
        let other = key("http:127.0.0.1", Code::WrongAudience);
        assert!(begin(other).is_some(), "another code is told apart");
        let asked = Key { asked: Some("GET /".to_owned()), ..here() };
        assert!(begin(asked).is_some(), "so is what was asked for");
        let end = || windows.end(Kind::Stranger, &begun);
        assert_eq!((end(), end()), (5, 0));
        assert_eq!(begin(here()).as_ref(), Some(&begun));
    }

    #[test]
    fn many_addresses_share_one_window_beyond_the_bound_and_push_out_no_known_caller() {
        let windows = Windows::default();
        let known = || Key { asked: Some("PUT /".to_owned()), ..key("token:deploy", Code::Forbidden) };
        let begun = (0..100_000_u32)
            .filter(|n| windows.begin(Kind::Stranger, key(&n.to_string(), Code::Unauthenticated)).is_some());
        assert_eq!(begun.count(), WINDOWS_MAX + 1);
        assert_eq!(windows.begin(Kind::Known, known()), Some(known()), "it has a row of its own");
        let shared = others(Kind::Stranger, Code::Unauthenticated);
        assert_eq!(windows.end(Kind::Stranger, &shared), 100_000 - WINDOWS_MAX as u64 - 1);
    }
}
