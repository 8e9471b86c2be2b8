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
