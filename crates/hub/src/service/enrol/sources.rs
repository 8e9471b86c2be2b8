//! Failed joins by address, so that guessing is slow. Bounded: the oldest address makes room.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use cortex_core::limits::{JOIN_FAILURES_MAX, JOIN_FAILURES_WINDOW_MS, JOIN_SOURCES_MAX};
use cortex_core::time::Timestamp;
use cortex_core::{Code, Refusal};

use crate::service::network::network;

/// Failures of the last window.
#[derive(Debug, Default)]
pub(super) struct Sources {
    failures: BTreeMap<IpAddr, Window>,
    /// Addresses by the start of their window, oldest first.
    order: VecDeque<(Timestamp, IpAddr)>,
}

#[derive(Debug)]
struct Window {
    since: Timestamp,
    count: usize,
}

impl Sources {
    /// `rate_limited` for an address with too many failures.
    pub(super) fn check(&mut self, source: Option<IpAddr>, now: Timestamp) -> Result<(), Refusal> {
        self.expire(now);
        let Some(window) = source.and_then(|source| self.failures.get(&network(source))) else {
            return Ok(());
        };
        if window.count < JOIN_FAILURES_MAX {
            return Ok(());
        }
        let wait_ms = window.since.plus_ms(JOIN_FAILURES_WINDOW_MS).ms_since(now);
        Err(Refusal::new(Code::RateLimited, "Too many failed joins came from this address.")
            .detail("retry_after_s", wait_ms.div_ceil(1_000).max(1).to_string()))
    }

    pub(super) fn fail(&mut self, source: Option<IpAddr>, now: Timestamp) {
        let Some(source) = source.map(network) else { return };
        self.expire(now);
        if let Some(window) = self.failures.get_mut(&source) {
            window.count += 1;
            return;
        }
        if self.order.len() >= JOIN_SOURCES_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.failures.remove(&oldest);
        }
        self.failures.insert(source, Window { since: now, count: 1 });
        self.order.push_back((now, source));
    }

    pub(super) fn len(&self) -> usize {
        self.failures.len()
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some((since, source)) = self.order.front()
            && since.plus_ms(JOIN_FAILURES_WINDOW_MS) <= now
        {
            self.failures.remove(source);
            self.order.pop_front();
        }
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
        let mut sources = Sources::default();
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
    fn the_map_of_addresses_is_bounded() {
        let mut sources = Sources::default();
        for n in 0..JOIN_SOURCES_MAX + 100 {
            sources.fail(address(u32::try_from(n).expect("small")), Timestamp(0));
        }
        assert_eq!(sources.len(), JOIN_SOURCES_MAX);
    }

    #[test]
    fn all_addresses_of_one_ipv6_network_are_one_source_and_mapped_ones_are_ipv4() {
        let mut sources = Sources::default();
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
