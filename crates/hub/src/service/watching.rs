//! One folder of a node that the hub keeps an eye on: when it is looked at, and whether its node tells of
//! changes.

use cortex_core::limits::{LOOK_WATCHED_MS, WATCH_AGAIN_MS, WATCH_HOPELESS_MS};
use cortex_core::time::Timestamp;
use cortex_core::transfer::Filters;
use cortex_core::watch::{Blind, Looks, Sight};

use tokio::time::Instant;

use crate::mesh::{Unwatched, Watch};

/// One folder.
#[derive(Default)]
pub(in crate::service) struct Watching {
    /// When it is looked at.
    pub(in crate::service) looks: Looks,
    /// What its node was asked for, by which rules.
    asked: Option<(Watch, Filters)>,
    /// Since when it is watched.
    since: Option<Timestamp>,
    unwatched: Option<Unwatched>,
    /// Not asked for before that.
    again: Timestamp,
    pause_ms: u64,
}

impl Watching {
    /// Its node came or went: of what happened there meanwhile nobody told.
    pub(in crate::service) fn link_changed(&mut self) {
        self.looks.want();
        *self = Self { looks: self.looks, ..Self::default() };
    }

    /// Takes in what its node told.
    pub(in crate::service) fn hear(&mut self, now: Timestamp) {
        let Some(sight) = self.asked.as_ref().and_then(|(watch, _)| watch.take()) else { return };
        self.looks.changed(now);
        match sight {
            Sight::Changed => {}
            Sight::Watching => (self.since, self.unwatched) = (Some(now), None),
            Sight::Blind(why) => self.is_unwatched(Unwatched::Blind(why), now),
        }
    }

    /// Has its node asked when that is due, or when it was asked by other rules.
    pub(in crate::service) fn ask(
        &mut self,
        filters: &Filters,
        now: Timestamp,
        watch: impl FnOnce(Filters) -> Result<Watch, Unwatched>,
    ) {
        if self.asked.as_ref().is_some_and(|(_, by)| by != filters) {
            (self.asked, self.since, self.again) = (None, None, now);
        }
        if self.asked.is_some() || self.again > now {
            return;
        }
        match watch(filters.clone()) {
            Ok(watch) => self.asked = Some((watch, filters.clone())),
            Err(why) => self.is_unwatched(why, now),
        }
    }

    /// When a look is due, when it comes `every_ms` without a watch.
    pub(in crate::service) fn due(&self, every_ms: u64) -> Timestamp {
        self.looks.due(if self.since.is_some() { LOOK_WATCHED_MS } else { every_ms })
    }

    /// When its node is to be asked again.
    pub(in crate::service) fn again(&self) -> Option<Timestamp> {
        self.asked.is_none().then_some(self.again)
    }

    /// Whether it is watched.
    pub(in crate::service) const fn is_watched(&self) -> bool {
        self.since.is_some()
    }

    /// Why it is not, when its node was asked.
    pub(in crate::service) const fn unwatched(&self) -> Option<Unwatched> {
        self.unwatched
    }

    fn is_unwatched(&mut self, why: Unwatched, now: Timestamp) {
        let (first, longest) = WATCH_AGAIN_MS;
        // One that lasted was no failure of the kind before.
        let lasted = self.since.is_some_and(|since| now.ms_since(since) > longest);
        self.pause_ms = match why {
            Unwatched::Version | Unwatched::Blind(Blind::Limit | Blind::Many | Blind::Remote) => {
                WATCH_HOPELESS_MS
            }
            Unwatched::Blind(_) if lasted || self.pause_ms == 0 => first,
            Unwatched::Blind(_) => (self.pause_ms * 2).min(longest),
        };
        self.again = now.plus_ms(self.pause_ms);
        (self.asked, self.since, self.unwatched) = (None, None, Some(why));
    }
}

/// Waits until then, or for ever.
pub(in crate::service) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
