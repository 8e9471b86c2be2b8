//! Who is here: one presence per node, held in memory only. A machine.
//!
//! A farewell must show its link: a stale one cannot evict its successor (EXAMPLES §3). Presence
//! never waits for the store (MISSION 2.4).

use std::collections::{BTreeMap, VecDeque};

use crate::id::{Epoch, LinkId, NodeId};
use crate::limits::{TAKEOVER_WINDOW_MS, TAKEOVERS_MAX};
use crate::time::Timestamp;

/// A node that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Its link.
    pub link: LinkId,
    /// The link's epoch.
    pub epoch: Epoch,
    /// The node process that holds it.
    pub instance: u64,
    /// Since when.
    pub since: Timestamp,
}

/// Which process of a node a link is from, and which of its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Random, chosen at the start of the process.
    pub instance: u64,
    /// Counts its attempts; 0 from a node that does not count them.
    pub number: u64,
}

/// What an attach led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The node is online.
    Online {
        /// The link that it took over from, which must be closed.
        displaced: Option<LinkId>,
    },
    /// Too many processes fought over this identity: both links must be closed, and the node is
    /// to be quarantined in the store (ABUSE 13).
    Cloned {
        /// The link that was there.
        displaced: LinkId,
    },
    /// A link with a higher epoch, or of a later attempt of the same process, is or was here: this one is
    /// late, and what its Hello tells of the node's runs is over.
    Stale,
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    present: BTreeMap<NodeId, Presence>,
    /// The highest epoch that came, of every node that ever did and is enrolled: a link whose
    /// attach was answered late must not come back from behind one that has ended since.
    highest: BTreeMap<NodeId, Epoch>,
    /// The last attempt that came of the same nodes. A Hello that lay in the buffers of a connection which
    /// its node has long given up is given a new epoch like any other: by this it is known.
    dials: BTreeMap<NodeId, Dial>,
    takeovers: BTreeMap<NodeId, VecDeque<Timestamp>>,
}

impl Registry {
    /// Nobody is here.
    pub fn new() -> Self {
        Self::default()
    }

    /// A link of `node` was given `epoch` by the store.
    pub fn attach(
        &mut self,
        node: NodeId,
        link: LinkId,
        epoch: Epoch,
        dial: Dial,
        now: Timestamp,
    ) -> Attached {
        if self.highest.get(&node).is_some_and(|highest| *highest >= epoch) || self.is_late(node, dial) {
            return Attached::Stale;
        }
        self.highest.insert(node, epoch);
        self.dials.insert(node, dial);
        let instance = dial.instance;
        let before = self.present.get(&node).cloned();
        if let Some(before) = &before
            && before.instance != instance
            && self.count_takeover(node, now) >= TAKEOVERS_MAX
        {
            self.present.remove(&node);
            return Attached::Cloned { displaced: before.link };
        }
        self.present.insert(node, Presence { link, epoch, instance, since: now });
        Attached::Online { displaced: before.map(|before| before.link) }
    }

    fn is_late(&self, node: NodeId, dial: Dial) -> bool {
        let last = self.dials.get(&node).filter(|last| last.instance == dial.instance);
        last.is_some_and(|last| dial.number > 0 && dial.number <= last.number)
    }

    /// A link ended. Whether the node went offline by it.
    pub fn detach(&mut self, node: NodeId, link: LinkId) -> bool {
        if self.present.get(&node).is_none_or(|presence| presence.link != link) {
            return false;
        }
        self.present.remove(&node);
        true
    }

    /// The node was removed: its link, which must be closed.
    pub fn remove(&mut self, node: NodeId) -> Option<LinkId> {
        self.takeovers.remove(&node);
        self.highest.remove(&node);
        self.dials.remove(&node);
        self.present.remove(&node).map(|presence| presence.link)
    }

    /// The presence of a node.
    pub fn get(&self, node: NodeId) -> Option<&Presence> {
        self.present.get(&node)
    }

    /// How many are here.
    pub fn len(&self) -> usize {
        self.present.len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Entries of all maps that follow links, for the counter tests of I9. (The highest epoch of
    /// an enrolled node and its last attempt are kept until [`Self::remove`].)
    pub fn entries(&self) -> usize {
        self.present.len() + self.takeovers.len()
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let oldest = self.takeovers.values().filter_map(|times| times.front()).min()?;
        Some((oldest.plus_ms(TAKEOVER_WINDOW_MS), "the window in which take-overs are counted"))
    }

    /// Forgets take-overs that are out of their window.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.takeovers.retain(|_, times| {
            times.retain(|at| at.plus_ms(TAKEOVER_WINDOW_MS) > now);
            !times.is_empty()
        });
    }

    fn count_takeover(&mut self, node: NodeId, now: Timestamp) -> usize {
        let times = self.takeovers.entry(node).or_default();
        times.retain(|at| at.plus_ms(TAKEOVER_WINDOW_MS) > now);
        times.push_back(now);
        if times.len() > TAKEOVERS_MAX {
            times.pop_front();
        }
        times.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId::mint(1, &[1; 10])
    }

    /// Link and epoch by the same number.
    fn attach(registry: &mut Registry, number: u64, instance: u64, at: u64) -> Attached {
        registry.attach(node(), LinkId(number), Epoch(number), Dial { instance, number: 0 }, Timestamp(at))
    }

    #[test]
    fn a_stale_farewell_does_not_evict_the_successor() {
        let mut registry = Registry::new();
        assert_eq!(attach(&mut registry, 1, 9, 0), Attached::Online { displaced: None });
        assert_eq!(attach(&mut registry, 2, 9, 0), Attached::Online { displaced: Some(LinkId(1)) });
        assert!(!registry.detach(node(), LinkId(1)));
        assert_eq!(registry.get(node()).map(|presence| presence.link), Some(LinkId(2)));
        assert!(registry.detach(node(), LinkId(2)) && !registry.detach(node(), LinkId(2)));
        assert!(registry.is_empty());
    }

    #[test]
    fn a_hello_of_an_attempt_that_was_given_up_takes_over_from_no_later_one() {
        let mut registry = Registry::new();
        let mut attach = |epoch, instance, number| {
            registry.attach(node(), LinkId(epoch), Epoch(epoch), Dial { instance, number }, Timestamp(0))
        };
        assert_eq!(attach(1, 9, 2), Attached::Online { displaced: None });
        // It was read late, and so it has the higher epoch.
        assert_eq!(attach(2, 9, 1), Attached::Stale);
        assert_eq!(attach(3, 9, 2), Attached::Stale, "the same once more");
        assert_eq!(attach(4, 9, 3), Attached::Online { displaced: Some(LinkId(1)) });
        // Another process counts anew; one that does not count is taken as it comes.
        assert_eq!(attach(5, 8, 1), Attached::Online { displaced: Some(LinkId(4)) });
        assert_eq!(attach(6, 8, 0), Attached::Online { displaced: Some(LinkId(5)) });
    }

    #[test]
    fn a_lower_epoch_never_comes_online_even_after_the_higher_one_left() {
        let mut registry = Registry::new();
        attach(&mut registry, 5, 9, 0);
        assert_eq!(attach(&mut registry, 4, 9, 0), Attached::Stale);
        registry.detach(node(), LinkId(5));
        assert_eq!(attach(&mut registry, 4, 9, 0), Attached::Stale);
        assert_eq!(attach(&mut registry, 5, 9, 0), Attached::Stale);
        assert_eq!(registry.remove(node()), None);
    }

    #[test]
    fn the_third_takeover_by_another_process_in_the_window_is_a_clone() {
        let mut registry = Registry::new();
        let answers: Vec<Attached> = (1..=4).map(|n| attach(&mut registry, n, n % 2, n * 1_000)).collect();
        assert_eq!(answers[3], Attached::Cloned { displaced: LinkId(3) });
        assert!(matches!(answers[2], Attached::Online { .. }) && registry.get(node()).is_none());
    }

    #[test]
    fn takeovers_spread_over_time_or_by_one_process_are_no_clone() {
        let mut registry = Registry::new();
        for n in 1..=20 {
            let answer = attach(&mut registry, n, n % 2, n * TAKEOVER_WINDOW_MS / 2);
            assert!(matches!(answer, Attached::Online { .. }), "{n}");
        }
        for n in 21..=40 {
            assert!(matches!(attach(&mut registry, n, 0, 20 * TAKEOVER_WINDOW_MS), Attached::Online { .. }));
        }
    }

    #[test]
    fn counts_of_takeovers_leave_when_their_window_is_over() {
        let mut registry = Registry::new();
        attach(&mut registry, 1, 1, 0);
        attach(&mut registry, 2, 2, 10);
        assert_eq!(registry.entries(), 2);
        let (at, _) = registry.poll_timeout().expect("a window is open");
        assert_eq!(at, Timestamp(10 + TAKEOVER_WINDOW_MS));
        registry.handle_timeout(at);
        assert_eq!((registry.entries(), registry.poll_timeout()), (1, None));
    }
}
