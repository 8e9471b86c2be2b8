//! All nodes that have a link or open runs: drives the machines of `cortex_core` with link
//! frames, log progress, commits and timers, and does what they say.
//!
//! Never here: waiting for the store on the path of a frame, a lock over an await, protobuf.
//! Locks nest in one order: slot, then the maps of [`Inner`].

mod attach;
mod decide;
mod files;
mod link;
mod moving;
mod refused;
mod requests;
mod slot;
mod timers;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cortex_core::files::ask::Ticket;
use cortex_core::hub_runs::{Action, Decision, HubRuns};
use cortex_core::id::{Epoch, LinkId, NodeId, RunId, TransferId, WatchId};
use cortex_core::limits::{ATTACHES_AT_ONCE_MAX, BACKOFF_MS_MAX, RESTART_GRACE_MS};
use cortex_core::message::{SignedPolicy, Start, ToHub, ToNode};
use cortex_core::pool::attempt::{self, Owed};
use cortex_core::registry::Registry;
use cortex_core::run::Run;
use cortex_core::time::Timestamp;
use cortex_core::{Code, Refusal};
use cortex_store::{Read, StoreError, StoreExt};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use attach::{put_quarantine, refuse_quarantined};
pub(crate) use files::{Asker, FilePlace, Waiting, is_denied};
pub use link::{Link, Outgoing};
pub(crate) use moving::{Asked, MovingPlace, Wish, Wishing};
pub(crate) use requests::Reserved;
pub(crate) use slot::{Live, Progress};
pub use watches::Unwatched;
pub(crate) use watches::Watch;

use crate::clock;
use crate::runlog::{RunLog, RunLogs, Sink};
use crate::service::{Context, store_refusal};
use crate::transfer::{Opening, Redeemed, Tickets};
use files::{Counted, Touched, open_files};
use slot::{Slot, SlotState};

/// How long the start of the hub waits for the store.
const RESTORE_DEADLINE: Duration = Duration::from_secs(30);

/// What is known of a connected node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceView {
    /// Epoch of its link.
    pub epoch: Epoch,
    /// Since when.
    pub since: Timestamp,
    /// When it was last heard.
    pub heard: Timestamp,
}

/// The links and open runs of all nodes. Cheap to clone.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    me: Weak<Self>,
    context: Context,
    logs: RunLogs,
    next_link: AtomicU64,
    heartbeats: AtomicU64,
    attaches: Semaphore,
    present: Mutex<Present>,
    slots: Mutex<BTreeMap<NodeId, Arc<Slot>>>,
    runs: Mutex<BTreeMap<RunId, Arc<Live>>>,
    /// Where attempts of tasks have operations on files.
    touched: Mutex<Touched>,
    files_open: Counted,
    tickets: Tickets,
    /// Transfers of trees, by the node that they are with.
    moving: Mutex<BTreeMap<(TransferId, NodeId), moving::Moving>>,
    /// Folders that nodes were asked to watch.
    watches: Mutex<BTreeMap<(NodeId, WatchId), Arc<watches::Seen>>>,
    watch_news: AtomicU64,
    /// How often the hub asked for a folder by itself.
    folder_asks: AtomicU64,
    /// Sent to whenever a node comes or goes.
    came_or_went: watch::Sender<()>,
    timers: Mutex<BTreeSet<(Timestamp, NodeId)>>,
    timers_changed: Notify,
    /// Nodes that left, and when they were last heard, until that is written.
    left: Mutex<BTreeMap<NodeId, Timestamp>>,
    /// Refusals of nodes that are in the audit log, and since when.
    refused: Mutex<BTreeMap<(NodeId, Code), Timestamp>>,
    /// Those who follow the output of runs.
    followers: Arc<AtomicUsize>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Who is here, and by which link.
#[derive(Default)]
struct Present {
    registry: Registry,
    links: BTreeMap<NodeId, Arc<Link>>,
}

/// One who follows the output of a run.
#[derive(Debug)]
pub(crate) struct Following(Arc<AtomicUsize>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mesh {
    /// Nobody is here. [`Self::restore`] takes up what the store holds.
    pub fn new(context: Context, logs: RunLogs) -> Self {
        let inner = Arc::new_cyclic(|me| Inner {
            me: Weak::clone(me),
            context,
            logs,
            next_link: AtomicU64::new(1),
            heartbeats: AtomicU64::new(0),
            attaches: Semaphore::new(ATTACHES_AT_ONCE_MAX),
            present: Mutex::default(),
            slots: Mutex::default(),
            runs: Mutex::default(),
            touched: Mutex::default(),
            files_open: Counted::default(),
            tickets: Tickets::default(),
            moving: Mutex::default(),
            watches: Mutex::default(),
            watch_news: AtomicU64::new(0),
            folder_asks: AtomicU64::new(0),
            came_or_went: watch::Sender::new(()),
            timers: Mutex::default(),
            timers_changed: Notify::new(),
            left: Mutex::default(),
            refused: Mutex::default(),
            followers: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let fences = Arc::downgrade(&inner);
        inner.context.board.on_attempt(Box::new(move |task, attempt| {
            if let Some(inner) = fences.upgrade() {
                inner.fence(task, attempt);
            }
        }));
        Self { inner }
    }

    /// Takes up the runs that had not ended when the hub stopped, each with what its log holds, and the
    /// operations on files. Call it once, before nodes are let in.
    ///
    /// # Errors
    /// `store_unavailable` when store or disk do not answer.
    pub async fn restore(&self) -> Result<(), Refusal> {
        let store = &self.inner.context.store;
        let open = store.read(RESTORE_DEADLINE, open_with_owed).await.map_err(store_refusal)?;
        let mut nodes = BTreeSet::new();
        for (run, owed) in open {
            nodes.insert(run.node);
            let log = self.inner.logs.recover(run.id, self.inner.sink()).await?;
            let (kept, started) = (log.end(), run.started_at.is_some());
            let start = Start::of(&run);
            let (id, cancelled) = (run.id, run.cancelled_by.is_some() || owed == Owed::Cancel);
            let live = self.inner.insert_live(run, log);
            self.inner.with_slot(live.node, |slot, state| {
                state.live.insert(start.run, Arc::clone(&live));
                state.runs.restore(start, started, kept, cancelled);
                if owed == Owed::End {
                    state.runs.give_up(id, "The attempt was over when the hub ended.");
                }
                self.inner.act(slot, state);
            });
        }
        let now = self.inner.context.clock.now();
        for node in nodes {
            self.inner.drive(node, |runs| runs.await_node(now, RESTART_GRACE_MS));
        }
        let open = store.read(RESTORE_DEADLINE, open_files).await.map_err(store_refusal)?;
        open.into_iter().for_each(|file| self.inner.take_up_file(file));
        Ok(())
    }

    /// Presence of a node.
    pub fn presence(&self, node: NodeId) -> Option<PresenceView> {
        let present = lock(&self.inner.present);
        let presence = present.registry.get(node)?;
        let heard = present.links.get(&node).map_or(presence.since, |link| link.heard());
        Some(PresenceView { epoch: presence.epoch, since: presence.since, heard })
    }

    /// Nodes that are connected.
    pub fn online(&self) -> usize {
        lock(&self.inner.present).registry.len()
    }

    /// Open runs of all nodes.
    pub fn runs_open(&self) -> usize {
        lock(&self.inner.runs).len()
    }

    /// Open runs of one node.
    pub fn runs_open_on(&self, node: NodeId) -> usize {
        let slot = lock(&self.inner.slots).get(&node).cloned();
        slot.map_or(0, |slot| slot.lock().runs.len())
    }

    /// Entries of all maps: what must return to its idle count (I9).
    pub fn entries(&self) -> usize {
        let present = {
            let present = lock(&self.inner.present);
            present.registry.entries() + present.links.len()
        };
        let maps =
            lock(&self.inner.slots).len() + lock(&self.inner.runs).len() + lock(&self.inner.timers).len();
        let files = lock(&self.inner.touched).len() + self.file_ops_open();
        let streams =
            self.tickets() + self.streams() + self.transfers_moving() + lock(&self.inner.watches).len();
        present + maps + files + streams + self.inner.logs.writing()
    }

    /// Tickets for streams that nobody has used.
    pub fn tickets(&self) -> usize {
        self.inner.tickets.waiting()
    }

    /// Streams for content.
    pub fn streams(&self) -> usize {
        self.inner.tickets.running()
    }

    /// Leave for a connected node to open one stream.
    ///
    /// # Errors
    /// `node_offline`; `quota` when there are too many.
    pub fn ticket(&self, node: NodeId) -> Result<Opening, Refusal> {
        let inner = &self.inner;
        let present = lock(&inner.present);
        let offline = || Refusal::new(Code::NodeOffline, "The node is offline; nothing was sent.");
        let link = present.links.get(&node).ok_or_else(offline)?;
        let (of, now) = ((link.id(), link.epoch()), inner.context.clock.now());
        // Under the lock: a link that ends takes its tickets along, this one too.
        inner.tickets.issue(Ticket::new(clock::random()), node, of, now)
    }

    /// A node shows a ticket.
    ///
    /// # Errors
    /// `forbidden`, `stale_epoch`.
    pub(crate) fn redeem(&self, ticket: Ticket, node: NodeId, epoch: Epoch) -> Result<Redeemed, Refusal> {
        self.inner.tickets.redeem(ticket, node, epoch, self.inner.context.clock.now())
    }

    /// Those who follow the output of runs.
    pub fn followers(&self) -> usize {
        self.inner.followers.load(Ordering::Relaxed)
    }

    /// Counts one follower for as long as what is returned lives.
    pub(crate) fn following(&self) -> Following {
        self.inner.followers.fetch_add(1, Ordering::Relaxed);
        Following(Arc::clone(&self.inner.followers))
    }

    /// Heartbeats since the start.
    pub fn heartbeats(&self) -> u64 {
        self.inner.heartbeats.load(Ordering::Relaxed)
    }

    /// Sends a committed policy to its node, when that is connected. One that is not gets it in
    /// its Welcome.
    pub fn push_policy(&self, node: NodeId, signed: SignedPolicy) {
        // Through the slot, so that it cannot come before the Welcome of a link that begins.
        let slot = lock(&self.inner.slots).get(&node).cloned();
        let Some(slot) = slot else { return };
        let state = slot.lock();
        if let Some(link) = &state.link {
            link.send(ToNode::Policy(signed));
        }
    }

    /// The node was removed or shut out: its link ends, it is told not to come back, and its open
    /// runs are settled as lost.
    pub fn close_node(&self, node: NodeId, refusal: Refusal) {
        self.inner.close_node(node, &refusal);
    }

    /// Tells all nodes that the hub goes away, and when to come back.
    pub fn goodbye(&self, refusal: &Refusal, retry_after_ms: u64) {
        let links: Vec<Arc<Link>> = lock(&self.inner.present).links.values().cloned().collect();
        for link in links {
            link.close(refusal.clone(), Some(retry_after_ms));
        }
    }

    /// Ends what the mesh does by itself, after a moment for what is under way. The store must
    /// still be open.
    pub async fn stop(&self, patience: Duration) {
        self.inner.tasks.close();
        let _quiet = tokio::time::timeout(patience, self.inner.tasks.wait()).await;
        self.inner.stop.cancel();
    }

    /// Told when nothing more is to be tried: the store is about to close.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Monotonic time of the hub.
    pub fn now(&self) -> Timestamp {
        self.inner.context.clock.now()
    }

    /// The moment of the runtime's clock that `at` names.
    pub fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        self.inner.context.clock.instant(at)
    }

    /// Runs a task that outlives the caller, and that [`Self::stop`] waits for.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.inner.tasks.spawn(task)
    }

    /// An open run.
    pub(crate) fn live(&self, run: RunId) -> Option<Arc<Live>> {
        lock(&self.inner.runs).get(&run).cloned()
    }
}

/// Open runs, each with what its task says of it.
fn open_with_owed(view: &dyn Read) -> Result<Vec<(Run, Owed)>, StoreError> {
    let with = |run: Run| {
        let task = run.task.map(|(id, _)| view.task(id)).transpose()?.flatten();
        let owed = attempt::owed(&run, task.as_ref());
        Ok((run, owed))
    };
    view.open_runs()?.into_iter().map(with).collect()
}

impl Inner {
    fn sink(&self) -> Weak<dyn Sink> {
        let me: Weak<Self> = Weak::clone(&self.me);
        me
    }

    fn insert_live(&self, run: Run, log: Arc<RunLog>) -> Arc<Live> {
        let (id, node) = (run.id, run.node);
        let progress = Progress { end: log.end().total(), run: Arc::new(run), input_taken: 0 };
        let live =
            Arc::new(Live { node, log, progress: watch::Sender::new(progress), wish: Mutex::default() });
        lock(&self.runs).insert(id, Arc::clone(&live));
        live
    }

    /// Works on a node's slot, which is made when there is none.
    fn with_slot<T>(&self, node: NodeId, work: impl FnOnce(&Arc<Slot>, &mut SlotState) -> T) -> T {
        loop {
            let slot = Arc::clone(lock(&self.slots).entry(node).or_insert_with(|| Arc::new(Slot::new(node))));
            let mut state = slot.lock();
            if state.dead {
                continue;
            }
            return work(&slot, &mut state);
        }
    }

    /// Puts something into a node's machine and does what it says.
    fn drive<T>(&self, node: NodeId, step: impl FnOnce(&mut HubRuns) -> T) -> T {
        self.with_slot(node, |slot, state| {
            let result = step(&mut state.runs);
            self.act(slot, state);
            result
        })
    }

    /// Does all that the machine of the slot asks for; nothing of it waits.
    fn act(&self, slot: &Arc<Slot>, state: &mut SlotState) {
        while let Some(action) = state.runs.poll_action() {
            self.act_once(state, action);
        }
        self.start_deciding(slot, state);
        self.act_on_files(slot, state);
        let timeouts = [state.runs.poll_timeout(), state.files.machine.poll_timeout()];
        let wanted = timeouts.into_iter().flatten().map(|(at, _)| at).min();
        if wanted != state.timer {
            self.move_timer(slot.node, state.timer, wanted);
            state.timer = wanted;
        }
        if state.is_idle() {
            // Nobody looks at the timer of a slot that is gone.
            if let Some(timer) = state.timer.take() {
                self.move_timer(slot.node, Some(timer), None);
            }
            state.dead = true;
            lock(&self.slots).remove(&slot.node);
        }
    }

    fn act_once(&self, state: &mut SlotState, action: Action) {
        match action {
            Action::Send(message) => {
                let sent = state.link.as_ref().is_none_or(|link| link.send(message));
                state.input_refused |= !sent;
            }
            Action::Decide(run, command) => state.decisions.push(Decision::Run(run, command)),
            Action::Append { run, stream, offset: _, data } => {
                let Some(live) = state.live.get(&run) else { return };
                let bytes = data.len() as u64;
                live.log.append(stream, data);
                live.progress.send_modify(|progress| progress.end += bytes);
            }
            Action::Mark { run, to } => {
                let Some(live) = state.live.get(&run) else { return };
                live.log.mark(to);
                live.progress.send_modify(|progress| progress.end = progress.end.max(to.total()));
            }
            Action::Finish(run) => {
                if let Some(live) = state.live.get(&run) {
                    live.log.finish();
                }
            }
            Action::InputTaken(run, upto) => {
                if let Some(live) = state.live.get(&run) {
                    live.progress
                        .send_modify(|progress| progress.input_taken = progress.input_taken.max(upto));
                }
            }
            Action::Closed(run) => {
                state.live.remove(&run);
                lock(&self.runs).remove(&run);
            }
            Action::CloseLink(refusal) => {
                if let Some(link) = &state.link {
                    link.close(refusal, Some(BACKOFF_MS_MAX));
                }
            }
        }
    }

    fn close_node(&self, node: NodeId, refusal: &Refusal) {
        self.with_slot(node, |slot, state| {
            let link = {
                let mut present = lock(&self.present);
                present.registry.remove(node);
                present.links.remove(&node)
            };
            state.link = None;
            self.came_or_went.send_replace(());
            state.runs.abandon(&format!("The node was shut out: {}", refusal.message));
            state.files.machine.abandon("its node was shut out");
            self.act(slot, state);
            if let Some(link) = link {
                link.close(refusal.clone(), None);
            }
        });
    }

    fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    fn move_timer(&self, node: NodeId, from: Option<Timestamp>, to: Option<Timestamp>) {
        let mut timers = lock(&self.timers);
        if let Some(from) = from {
            timers.remove(&(from, node));
        }
        if let Some(to) = to {
            timers.insert((to, node));
        }
        drop(timers);
        self.timers_changed.notify_one();
    }
}

impl Sink for Inner {
    fn written(&self, run: RunId, position: u64) {
        let node = lock(&self.runs).get(&run).map(|live| live.node);
        if let Some(node) = node {
            self.drive(node, |runs| runs.written(run, position));
        }
    }

    fn synced(&self, run: RunId, position: u64) {
        let node = lock(&self.runs).get(&run).map(|live| live.node);
        if let Some(node) = node {
            self.drive(node, |runs| runs.synced(run, position));
        }
    }
}

/// A frame of a node on its current link; frames of any other link have no effect.
impl Mesh {
    /// Takes in a frame about a run.
    pub fn handle(&self, link: &Link, message: ToHub) {
        self.inner.drive(link.node(), |runs| runs.handle(link.id(), message));
    }

    /// Answers a heartbeat. Touches neither store nor slot.
    pub fn heartbeat(&self, link: &Link, seq: u64) {
        self.inner.heartbeats.fetch_add(1, Ordering::Relaxed);
        self.inner.context.board.heard(link.node());
        link.send(ToNode::HeartbeatAck { seq });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
