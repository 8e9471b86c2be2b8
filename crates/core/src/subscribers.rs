//! Who listens to events: each gets each event once, whatever it subscribed to; a slow one is
//! told `lagged`, then pruned (MISSION 2.5, 2.7, DESIGN §9). A machine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::id::{NodeId, RunId, Seq};
use crate::limits::{SUBSCRIBER_QUEUE_MAX, SUBSCRIBER_STALL_MS_MAX, SUBSCRIBERS_MAX};
use crate::time::Timestamp;

/// One subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u64);

/// What a subscriber wants; empty lists mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of one of these nodes.
    pub nodes: Vec<NodeId>,
    /// Only of one of these runs.
    pub runs: Vec<RunId>,
    /// Only of one of these kinds.
    pub kinds: Vec<EventKind>,
}

impl Filter {
    /// Whether the event is wanted.
    pub fn wants(&self, event: &Event) -> bool {
        (self.nodes.is_empty() || event.node.is_some_and(|node| self.nodes.contains(&node)))
            && (self.runs.is_empty() || event.run.is_some_and(|run| self.runs.contains(&run)))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

/// What a subscriber takes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event with its number.
    Event(Seq, Arc<Event>),
    /// Events after this number were dropped for it: read the log from there.
    Lagged {
        /// The last number that it was given or that did not concern it.
        after: Seq,
    },
}

#[derive(Debug)]
struct Subscriber {
    filter: Filter,
    queue: VecDeque<(Seq, Arc<Event>)>,
    /// The newest number that this one has dealt with.
    passed: Seq,
    lagged: Option<Seq>,
    /// Since when something waits for it.
    waiting_since: Option<Timestamp>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Subscribers {
    next: u64,
    head: Seq,
    all: BTreeMap<SubscriberId, Subscriber>,
}

impl Subscribers {
    /// Nobody listens; the log's newest number is `head`.
    pub fn new(head: Seq) -> Self {
        Self { next: 0, head, all: BTreeMap::new() }
    }

    /// Adds a subscriber, which gets what comes after the returned number.
    pub fn subscribe(&mut self, filter: Filter) -> Result<(SubscriberId, Seq), Refusal> {
        if self.all.len() >= SUBSCRIBERS_MAX {
            return Err(Refusal::new(
                Code::Quota,
                format!("The hub has {SUBSCRIBERS_MAX} subscribers, which is the most."),
            ));
        }
        self.next += 1;
        let id = SubscriberId(self.next);
        let passed = self.head;
        self.all.insert(
            id,
            Subscriber { filter, queue: VecDeque::new(), passed, lagged: None, waiting_since: None },
        );
        Ok((id, passed))
    }

    /// Removes a subscriber. Removing it twice does nothing.
    pub fn unsubscribe(&mut self, id: SubscriberId) {
        self.all.remove(&id);
    }

    /// A committed event, in the order of the log. Returns whom to wake.
    pub fn publish(&mut self, seq: Seq, event: &Arc<Event>, now: Timestamp) -> Vec<SubscriberId> {
        self.head = self.head.max(seq);
        let mut wake = Vec::new();
        for (id, subscriber) in &mut self.all {
            if subscriber.take_in(seq, event, now) {
                wake.push(*id);
            }
        }
        wake
    }

    /// The next item of a subscriber; `None` when it has read all, or is gone.
    pub fn poll(&mut self, id: SubscriberId, now: Timestamp) -> Option<Item> {
        let subscriber = self.all.get_mut(&id)?;
        if let Some((seq, event)) = subscriber.queue.pop_front() {
            subscriber.passed = seq;
            subscriber.waiting_since =
                (!subscriber.queue.is_empty() || subscriber.lagged.is_some()).then_some(now);
            return Some(Item::Event(seq, event));
        }
        subscriber.waiting_since = None;
        subscriber.lagged.take().map(|after| Item::Lagged { after })
    }

    /// Whether the subscriber is there.
    pub fn contains(&self, id: SubscriberId) -> bool {
        self.all.contains_key(&id)
    }

    /// How many listen.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let oldest = self.all.values().filter_map(|subscriber| subscriber.waiting_since).min()?;
        Some((oldest.plus_ms(SUBSCRIBER_STALL_MS_MAX), "a subscriber that does not read"))
    }

    /// Prunes subscribers that have not read for too long. Returns who went.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Vec<SubscriberId> {
        let stalled =
            |s: &Subscriber| s.waiting_since.is_some_and(|at| at.plus_ms(SUBSCRIBER_STALL_MS_MAX) <= now);
        let gone: Vec<SubscriberId> =
            self.all.iter().filter(|(_, s)| stalled(s)).map(|(id, _)| *id).collect();
        for id in &gone {
            self.all.remove(id);
        }
        gone
    }
}

impl Subscriber {
    /// Whether there is something new to read.
    fn take_in(&mut self, seq: Seq, event: &Arc<Event>, now: Timestamp) -> bool {
        if self.lagged.is_some() || !self.filter.wants(event) {
            return false;
        }
        if self.queue.len() >= SUBSCRIBER_QUEUE_MAX {
            self.lagged = Some(self.queue.back().map_or(self.passed, |(last, _)| *last));
            return false;
        }
        self.queue.push_back((seq, Arc::clone(event)));
        self.waiting_since.get_or_insert(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallTime;

    const NOW: Timestamp = Timestamp(0);

    fn event(kind: EventKind, node: u8) -> Arc<Event> {
        Arc::new(Event::new(kind, WallTime(0)).node(NodeId::mint(1, &[node; 10])))
    }

    fn drain(all: &mut Subscribers, id: SubscriberId) -> Vec<Item> {
        std::iter::from_fn(|| all.poll(id, NOW)).collect()
    }

    #[test]
    fn each_event_comes_once_however_often_the_filter_names_it() {
        let mut all = Subscribers::new(Seq(7));
        let node = NodeId::mint(1, &[1; 10]);
        let filter = Filter { nodes: vec![node, node], kinds: vec![EventKind::NodeOnline; 2], runs: vec![] };
        let (id, after) = all.subscribe(filter).expect("room");
        assert_eq!(after, Seq(7));
        let (wanted, other) = (event(EventKind::NodeOnline, 1), event(EventKind::NodeOnline, 2));
        assert_eq!(all.publish(Seq(8), &wanted, NOW), [id]);
        assert!(all.publish(Seq(9), &other, NOW).is_empty());
        assert!(all.publish(Seq(10), &event(EventKind::NodeOffline, 1), NOW).is_empty());
        assert_eq!(drain(&mut all, id), [Item::Event(Seq(8), wanted)]);
    }

    #[test]
    fn a_slow_one_reads_what_waits_then_learns_from_where_to_read_the_log() {
        let mut all = Subscribers::new(Seq(0));
        let (id, _) = all.subscribe(Filter::default()).expect("room");
        let max = SUBSCRIBER_QUEUE_MAX as u64;
        for seq in 1..=max + 5 {
            all.publish(Seq(seq), &event(EventKind::NodeOnline, 1), NOW);
        }
        let items = drain(&mut all, id);
        assert_eq!(items.len(), SUBSCRIBER_QUEUE_MAX + 1);
        assert_eq!(items.last(), Some(&Item::Lagged { after: Seq(max) }));
        let next = event(EventKind::NodeOnline, 1);
        assert_eq!(all.publish(Seq(max + 6), &next, NOW), [id]);
        assert_eq!(drain(&mut all, id), [Item::Event(Seq(max + 6), next)]);
    }

    #[test]
    fn one_that_does_not_read_is_pruned_and_one_that_reads_stays() {
        let mut all = Subscribers::new(Seq(0));
        let [dead, alive, idle] = [0, 1, 2].map(|_| all.subscribe(Filter::default()).expect("room").0);
        all.publish(Seq(1), &event(EventKind::NodeOnline, 1), NOW);
        drain(&mut all, alive);
        drain(&mut all, idle);
        let (at, _) = all.poll_timeout().expect("one waits");
        assert_eq!(at, Timestamp(SUBSCRIBER_STALL_MS_MAX));
        assert!(all.handle_timeout(Timestamp(at.0 - 1)).is_empty());
        assert_eq!(all.handle_timeout(at), [dead]);
        assert!(!all.contains(dead) && all.contains(alive) && all.contains(idle));
        assert_eq!((all.poll(dead, at), all.poll_timeout(), all.len()), (None, None, 2));
    }

    #[test]
    fn there_is_a_most_of_them_and_leaving_makes_room() {
        let mut all = Subscribers::new(Seq(0));
        let ids: Vec<_> =
            (0..SUBSCRIBERS_MAX).map(|_| all.subscribe(Filter::default()).expect("room").0).collect();
        assert_eq!(all.subscribe(Filter::default()).expect_err("full").code, Code::Quota);
        for id in ids {
            all.unsubscribe(id);
            all.unsubscribe(id);
        }
        assert!(all.is_empty() && all.subscribe(Filter::default()).is_ok());
    }
}
