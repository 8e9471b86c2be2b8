//! Failed tries by who tried, so that guessing is slow. Bounded: the oldest make room.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use cortex_core::limits::{JOIN_FAILURES_MAX, JOIN_FAILURES_WINDOW_MS, JOIN_SOURCES_MAX};
use cortex_core::time::Timestamp;
use cortex_core::{Code, Refusal};

use super::network;

/// Failures of the last window, by address or by whatever else is tried.
#[derive(Debug)]
pub(in crate::service) struct Tries<K> {
    /// What is refused: `Too many failed joins came from this address.`
    words: &'static str,
    failures: BTreeMap<K, Window>,
    /// By the start of their window, oldest first.
    order: VecDeque<(Timestamp, K)>,
}

#[derive(Debug)]
struct Window {
    since: Timestamp,
    count: usize,
}

impl<K: Ord + Clone> Tries<K> {
    /// Nobody has failed yet; `words` tell who has too often.
    pub(in crate::service) const fn new(words: &'static str) -> Self {
        Self { words, failures: BTreeMap::new(), order: VecDeque::new() }
    }

    /// `rate_limited` for one with too many failures.
    pub(in crate::service) fn check(&mut self, key: &K, now: Timestamp) -> Result<(), Refusal> {
        self.expire(now);
        let Some(window) = self.failures.get(key).filter(|window| window.count >= JOIN_FAILURES_MAX) else {
            return Ok(());
        };
        let wait_ms = window.since.plus_ms(JOIN_FAILURES_WINDOW_MS).ms_since(now);
        Err(Refusal::new(Code::RateLimited, self.words)
            .detail("retry_after_s", wait_ms.div_ceil(1_000).max(1).to_string()))
    }

    /// Counts a failure.
    pub(in crate::service) fn fail(&mut self, key: K, now: Timestamp) {
        self.expire(now);
        if let Some(window) = self.failures.get_mut(&key) {
            window.count += 1;
            return;
        }
        if self.order.len() >= JOIN_SOURCES_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.failures.remove(&oldest);
        }
        self.failures.insert(key.clone(), Window { since: now, count: 1 });
        self.order.push_back((now, key));
    }

    /// Takes one failure back: what was counted in advance went well.
    pub(in crate::service) fn forgive(&mut self, key: &K) {
        if let Some(window) = self.failures.get_mut(key) {
            window.count = window.count.saturating_sub(1);
        }
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some((since, key)) = self.order.front()
            && since.plus_ms(JOIN_FAILURES_WINDOW_MS) <= now
        {
            self.failures.remove(key);
            self.order.pop_front();
        }
    }
}

/// Failures by address.
#[derive(Debug)]
pub(in crate::service) struct Sources(Tries<IpAddr>);

impl Sources {
    /// See [`Tries::new`].
    pub(in crate::service) const fn new(words: &'static str) -> Self {
        Self(Tries::new(words))
    }

    /// `rate_limited` for an address with too many failures.
    pub(in crate::service) fn check(
        &mut self,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        source.map_or(Ok(()), |source| self.0.check(&network(source), now))
    }

    /// Counts a failure.
    pub(in crate::service) fn fail(&mut self, source: Option<IpAddr>, now: Timestamp) {
        if let Some(source) = source {
            self.0.fail(network(source), now);
        }
    }

    /// Takes one failure back.
    pub(in crate::service) fn forgive(&mut self, source: Option<IpAddr>) {
        if let Some(source) = source {
            self.0.forgive(&network(source));
        }
    }

    /// Addresses that are remembered.
    pub(in crate::service) fn len(&self) -> usize {
        self.0.failures.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> Option<IpAddr> {
        Some(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn an_address_waits_after_too_many_failures_and_others_do_not() {
        let mut sources = Sources::new("Too many.");
        for _ in 0..JOIN_FAILURES_MAX {
            sources.check(address(1), Timestamp(0)).expect("below the bound");
            sources.fail(address(1), Timestamp(0));
        }
        let refusal = sources.check(address(1), Timestamp(1_000)).expect_err("above the bound");
        assert_eq!(refusal.code, Code::RateLimited);
        assert_eq!(refusal.details, vec![("retry_after_s", "59".to_owned())]);
        sources.check(address(2), Timestamp(1_000)).expect("another address");
        sources.check(address(1), Timestamp(JOIN_FAILURES_WINDOW_MS)).expect("the window is over");
        assert_eq!(sources.len(), 0);
    }

    #[test]
    fn what_was_counted_in_advance_and_went_well_does_not_count() {
        let mut sources = Sources::new("Too many.");
        for _ in 0..3 * JOIN_FAILURES_MAX {
            sources.check(address(1), Timestamp(0)).expect("it always goes well");
            sources.fail(address(1), Timestamp(0));
            sources.forgive(address(1));
        }
        sources.forgive(address(2));
    }

    #[test]
    fn the_map_of_addresses_is_bounded() {
        let mut sources = Sources::new("Too many.");
        for n in 0..JOIN_SOURCES_MAX + 100 {
            sources.fail(address(u32::try_from(n).expect("small")), Timestamp(0));
        }
        assert_eq!(sources.len(), JOIN_SOURCES_MAX);
    }

    #[test]
    fn all_addresses_of_one_ipv6_network_are_one_source_and_mapped_ones_are_ipv4() {
        let mut sources = Sources::new("Too many.");
        let at = |text: &str| Some(text.parse().expect("an address"));
        for n in 0..JOIN_FAILURES_MAX {
            sources.fail(at(&format!("2001:db8::{n}")), Timestamp(0));
            sources.fail(at("::ffff:192.0.2.1"), Timestamp(0));
        }
        assert_eq!(sources.len(), 2);
        sources.check(at("2001:db8::ffff:1"), Timestamp(1)).expect_err("the same network");
        sources.check(at("2001:db8:0:1::1"), Timestamp(1)).expect("another network");
        sources.check(at("192.0.2.1"), Timestamp(1)).expect_err("the same address");
        sources.check(at("::ffff:192.0.2.2"), Timestamp(1)).expect("another address");
    }
}
