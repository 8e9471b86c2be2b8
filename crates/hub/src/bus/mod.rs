//! The in-process bus: hands committed events to subscribers, in the order of the log.
//!
//! It promises no more than a bus between hubs could: at most once, bounded, and a slow
//! subscriber is told `lagged`, then pruned. What must not be missed is read from the log.
//! Publishing runs on the store's own thread and therefore never waits for a subscriber; no
//! lock is held over more than one pass through the subscribers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cortex_core::Refusal;
use cortex_core::id::Seq;
use cortex_core::subscribers::{Filter, Item, SubscriberId, Subscribers};
use cortex_core::time::Timestamp;
use cortex_store::LoggedEvent;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    state: Mutex<State>,
    head: watch::Sender<Seq>,
    waiting: Notify,
}

struct State {
    machine: Subscribers,
    listeners: BTreeMap<SubscriberId, Listener>,
}

struct Listener {
    wake: Arc<Notify>,
    pruned: CancellationToken,
}

impl Bus {
    /// A bus on which nobody listens.
    pub fn new(clock: Clock) -> Self {
        let state = State { machine: Subscribers::new(Seq(0)), listeners: BTreeMap::new() };
        let (head, _) = watch::channel(Seq(0));
        Self { inner: Arc::new(Inner { clock, state: Mutex::new(state), head, waiting: Notify::new() }) }
    }

    /// The newest number of an existing log. Call it once, before anybody subscribes or writes.
    pub fn begin(&self, head: Seq) {
        let mut state = self.state();
        if state.machine.is_empty() {
            state.machine = Subscribers::new(head);
            self.inner.head.send_replace(head);
        }
    }

    /// Hands out committed events, which must come in the order of the log.
    pub fn publish(&self, events: &[LoggedEvent]) {
        let Some(last) = events.last() else { return };
        let now = self.inner.clock.now();
        let mut state = self.state();
        let idle = state.machine.poll_timeout().is_none();
        for logged in events {
            let event = Arc::new(logged.event.clone());
            for id in state.machine.publish(logged.seq, &event, now) {
                state.wake(id);
            }
        }
        let wake_pruner = idle && state.machine.poll_timeout().is_some();
        // Under the lock, so that the head never runs ahead of what subscribers were given.
        self.inner.head.send_replace(last.seq);
        drop(state);
        if wake_pruner {
            self.inner.waiting.notify_one();
        }
    }

    /// Subscribes to what comes after the returned number. `Quota` when too many listen.
    pub fn subscribe(&self, filter: Filter) -> Result<(Subscription, Seq), Refusal> {
        self.subscribe_until(filter, CancellationToken::new())
    }

    /// The same; `pruned` is cancelled when the subscription is pruned. A reader that stalls is
    /// not polled again, so whoever holds its connection learns it by this token.
    pub fn subscribe_until(
        &self,
        filter: Filter,
        pruned: CancellationToken,
    ) -> Result<(Subscription, Seq), Refusal> {
        let wake = Arc::new(Notify::new());
        let mut state = self.state();
        let (id, after) = state.machine.subscribe(filter)?;
        state.listeners.insert(id, Listener { wake: Arc::clone(&wake), pruned });
        drop(state);
        Ok((Subscription { bus: self.clone(), id, wake }, after))
    }

    /// The newest number that was published.
    pub fn head(&self) -> Seq {
        *self.inner.head.borrow()
    }

    /// Waits until the log has reached `seq`.
    pub async fn reached(&self, seq: Seq) {
        let mut head = self.inner.head.subscribe();
        // The sender lives in `self`, so this ends only by the condition.
        drop(head.wait_for(|head| *head >= seq).await);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.state().machine.len()
    }

    /// Prunes who has not read for too long at `now`; returns how many went.
    pub fn prune(&self, now: Timestamp) -> usize {
        let mut state = self.state();
        let gone = state.machine.handle_timeout(now);
        for id in &gone {
            if let Some(listener) = state.listeners.remove(id) {
                listener.pruned.cancel();
                listener.wake.notify_one();
            }
        }
        gone.len()
    }

    /// Prunes stalled subscribers until `shutdown`. Sleeps until the next one is due.
    pub async fn run_pruner(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        while !shutdown.is_cancelled() {
            let due = self.state().machine.poll_timeout();
            let due = async {
                match due {
                    Some((at, _why)) => tokio::time::sleep_until(self.inner.clock.instant(at)).await,
                    None => self.inner.waiting.notified().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = shutdown.cancelled() => break,
            }
            let gone = self.prune(self.inner.clock.now());
            if gone > 0 {
                tracing::info!(gone, "pruned event listeners that did not read");
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&self, id: SubscriberId) {
        if let Some(listener) = self.listeners.get(&id) {
            listener.wake.notify_one();
        }
    }
}

/// One subscription; dropping it ends it.
pub struct Subscription {
    bus: Bus,
    id: SubscriberId,
    wake: Arc<Notify>,
}

impl Subscription {
    /// The next item; `None` when this subscription was pruned. Cancel-safe.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            {
                let now = self.bus.inner.clock.now();
                let mut state = self.bus.state();
                if !state.machine.contains(self.id) {
                    return None;
                }
                if let Some(item) = state.machine.poll(self.id, now) {
                    return Some(item);
                }
            }
            // A wake-up between the poll and here is kept by the Notify.
            self.wake.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.bus.state();
        state.machine.unsubscribe(self.id);
        state.listeners.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::event::{Event, EventKind};
    use cortex_core::limits::{SUBSCRIBER_QUEUE_MAX, SUBSCRIBER_STALL_MS_MAX};
    use cortex_core::time::WallTime;
    use proptest::prelude::*;

    use super::*;

    const KINDS: [EventKind; 3] = [EventKind::NodeOnline, EventKind::RunEnded, EventKind::TokenCreated];

    fn logged(seq: u64, kind: EventKind) -> LoggedEvent {
        LoggedEvent { seq: Seq(seq), event: Event::new(kind, WallTime(0)) }
    }

    fn drain(subscription: &mut Subscription) -> Vec<Item> {
        use futures::FutureExt;
        std::iter::from_fn(|| subscription.next().now_or_never().flatten()).collect()
    }

    proptest! {
        #[test]
        fn each_listener_gets_each_event_that_it_wants_once_and_in_order(
            filters in proptest::collection::vec(proptest::collection::vec(0..3usize, 0..4), 1..6),
            commits in proptest::collection::vec(proptest::collection::vec(0..3usize, 1..5), 0..40),
        ) {
            let bus = Bus::new(Clock::default());
            let kinds = |list: &Vec<usize>| list.iter().map(|i| KINDS[*i]).collect::<Vec<_>>();
            let mut subscriptions: Vec<_> = filters.iter().map(|list| {
                let filter = Filter { kinds: kinds(list), ..Filter::default() };
                (filter.clone(), bus.subscribe(filter).expect("room").0)
            }).collect();
            let mut all = Vec::new();
            for commit in &commits {
                let from = all.len() as u64;
                let events: Vec<_> =
                    (from + 1..).zip(kinds(commit)).map(|(seq, kind)| logged(seq, kind)).collect();
                bus.publish(&events);
                all.extend(events);
            }
            prop_assert_eq!(bus.head(), Seq(all.len() as u64));
            for (filter, subscription) in &mut subscriptions {
                let wanted: Vec<_> = all.iter().filter(|logged| filter.wants(&logged.event)).map(|l| l.seq).collect();
                let got: Vec<_> = drain(subscription).into_iter().map(|item| match item {
                    Item::Event(seq, _) => seq,
                    Item::Lagged { after } => panic!("lagged after {after}"),
                }).collect();
                prop_assert_eq!(got, wanted);
            }
        }
    }

    #[test]
    fn a_full_listener_is_told_where_it_fell_behind() {
        let bus = Bus::new(Clock::default());
        let (mut subscription, _) = bus.subscribe(Filter::default()).expect("room");
        let max = SUBSCRIBER_QUEUE_MAX as u64;
        (1..=max + 5).for_each(|seq| bus.publish(&[logged(seq, EventKind::NodeOnline)]));
        let items = drain(&mut subscription);
        assert_eq!(items.len(), SUBSCRIBER_QUEUE_MAX + 1);
        assert_eq!(items.last(), Some(&Item::Lagged { after: Seq(max) }));
    }

    #[tokio::test]
    async fn a_listener_that_does_not_read_is_pruned_and_told_so() {
        let clock = Clock::default();
        let bus = Bus::new(clock);
        let pruned = CancellationToken::new();
        let (mut slow, _) = bus.subscribe_until(Filter::default(), pruned.clone()).expect("room");
        let (quick, _) =
            bus.subscribe(Filter { kinds: vec![EventKind::RunEnded], ..Filter::default() }).expect("room");
        bus.publish(&[logged(1, EventKind::NodeOnline)]);
        assert_eq!(bus.prune(clock.now()), 0);
        assert_eq!(bus.prune(clock.now().plus_ms(SUBSCRIBER_STALL_MS_MAX + 1)), 1);
        assert!(pruned.is_cancelled());
        assert_eq!(slow.next().await, None);
        drop((slow, quick));
        assert_eq!(bus.listeners(), 0, "a dropped listener leaves nothing behind");
    }
}
