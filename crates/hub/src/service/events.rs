//! Events as a caller follows them: the durable log after a given number, then what comes live,
//! each event once, with an explicit gap where the log was trimmed (DESIGN §9).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::event::Event;
use cortex_core::id::{NodeId, Seq};
use cortex_core::limits::EVENTS_KEPT_MAX;
use cortex_core::rights::Right;
use cortex_core::subscribers::{Filter, Item};
use cortex_store::{LoggedEvent, Tx};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::Subscription;
use crate::service::{Caller, Context, write_refusal};

/// Events of one page of the log.
const PAGE: usize = 500;
/// The log is trimmed after so many new events.
const TRIM_EVERY: u64 = 10_000;
/// Events that one transaction trims.
const TRIM_BATCH: u64 = 2_000;

/// The use cases of events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    context: Context,
}

/// What a follower sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// An event.
    Event(Seq, Arc<Event>),
    /// Events from `from` up to but without `to` were trimmed.
    Gap {
        /// The first that is missing.
        from: Seq,
        /// The first that is there, or will be.
        to: Seq,
    },
}

impl Events {
    /// The use cases over `context`.
    pub const fn new(context: Context) -> Self {
        Self { context }
    }

    /// Follows what comes after `after`, or only what comes live, as far as the caller sees it.
    /// `pruned` is cancelled when this follower does not read. `Quota` when too many listen.
    pub fn follow(
        &self,
        caller: &Caller,
        after: Option<Seq>,
        filter: Filter,
        pruned: CancellationToken,
    ) -> Result<Feed, Refusal> {
        let (subscription, head) = self.context.bus.subscribe_until(filter.clone(), pruned)?;
        let mut ready = VecDeque::new();
        let mut position = after.unwrap_or(head);
        if position > head {
            // Numbers that this log never gave: it was restored, or they are made up.
            ready.push_back(Followed::Gap { from: position.next(), to: head.next() });
            position = head;
        }
        let (context, sight) = (self.context.clone(), Sight::new(&self.context, caller));
        Ok(Feed { context, subscription, filter, sight, position, catch_up_to: head, ready })
    }

    /// Keeps the log within its bound until `shutdown`. Sleeps until enough has been added.
    pub async fn run_trim(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        while !shutdown.is_cancelled() {
            while self.trim(EVENTS_KEPT_MAX, TRIM_BATCH).await? == TRIM_BATCH {}
            let next = Seq(self.context.bus.head().0 + TRIM_EVERY);
            tokio::select! {
                () = self.context.bus.reached(next) => {}
                () = shutdown.cancelled() => break,
            }
        }
        Ok(())
    }

    /// Trims the log to the newest `keep`, at most `batch` at once; returns how many went.
    pub async fn trim(&self, keep: u64, batch: u64) -> Result<u64, Refusal> {
        use cortex_store::StoreExt as _;
        let work = move |tx: &mut dyn Tx| Ok(tx.trim_events(keep, batch)?);
        self.context.store.write(super::STORE_DEADLINE, work).await.map_err(write_refusal)
    }
}

/// Which events a follower sees: those of its nodes, and all when it sees all nodes.
struct Sight {
    context: Context,
    caller: Caller,
    changes: watch::Receiver<u64>,
    /// Nodes that it saw when it last heard of them: a removed one has no record any more.
    seen: BTreeSet<NodeId>,
}

impl Sight {
    fn new(context: &Context, caller: &Caller) -> Self {
        let nodes = context.directory.nodes().into_iter();
        let seen = nodes.filter(|node| caller.has(Right::EventsRead, node)).map(|node| node.id).collect();
        let changes = context.directory.principals();
        Self { context: context.clone(), caller: caller.clone(), changes, seen }
    }

    fn sees(&mut self, event: &Event) -> bool {
        if self.changes.has_changed().unwrap_or(false) {
            self.changes.borrow_and_update();
            self.caller = Caller::new(self.context.directory.who(Arc::clone(&self.caller.token)));
        }
        if self.caller.everywhere(Right::EventsRead) {
            return true;
        }
        let Some(id) = event.node else { return false };
        let Some(node) = self.context.directory.node(id) else { return self.seen.contains(&id) };
        let sees = self.caller.has(Right::EventsRead, &node);
        if sees {
            self.seen.insert(id)
        } else {
            self.seen.remove(&id)
        };
        sees
    }
}

/// One follower's way through log and bus.
pub struct Feed {
    context: Context,
    subscription: Subscription,
    filter: Filter,
    sight: Sight,
    /// All up to here was handed out, or did not concern this follower.
    position: Seq,
    /// Up to here the log is read before the bus.
    catch_up_to: Seq,
    ready: VecDeque<Followed>,
}

impl Feed {
    /// The next one; `None` when this follower did not read and was pruned.
    ///
    /// # Errors
    /// When the log cannot be read; nothing is skipped by it, and a later call tries again.
    pub async fn next(&mut self) -> Result<Option<Followed>, Refusal> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if self.position < self.catch_up_to {
                self.read_page().await?;
                continue;
            }
            match self.subscription.next().await {
                Some(Item::Event(seq, event)) if seq > self.position => {
                    self.position = seq;
                    if self.sight.sees(&event) {
                        return Ok(Some(Followed::Event(seq, event)));
                    }
                }
                // The log had it already.
                Some(Item::Event(..)) => {}
                // What came after that number was dropped for this follower up to this moment.
                Some(Item::Lagged { .. }) => self.catch_up_to = self.context.bus.head(),
                None => return Ok(None),
            }
        }
    }

    async fn read_page(&mut self) -> Result<(), Refusal> {
        let after = self.position;
        let page = self.context.view(move |view| view.events(after, PAGE)).await?;
        // The log has no holes but the trimmed front.
        let first = page.first().map_or(self.catch_up_to.next(), |logged| logged.seq);
        if first > after.next() {
            self.ready.push_back(Followed::Gap { from: after.next(), to: first });
        }
        self.position = page.last().map_or(self.catch_up_to, |logged| logged.seq);
        let (filter, sight) = (&self.filter, &mut self.sight);
        let wanted =
            page.into_iter().filter(|logged| filter.wants(&logged.event) && sight.sees(&logged.event));
        self.ready.extend(wanted.map(|LoggedEvent { seq, event }| Followed::Event(seq, Arc::new(event))));
        Ok(())
    }
}
