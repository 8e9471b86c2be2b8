//! What the hub has in mind of the work pool, shared: the machine [`board::Board`] of core, whose turn it
//! was, and who waits for something. The store is the truth: this is loaded from it at the start and
//! changed only after a commit. Never here: decisions, and waiting for anything.

mod asking;
mod shares;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cortex_core::Refusal;
use cortex_core::id::{Attempt, LaneId, NodeId, RunId, TaskId};
use cortex_core::pool::board;
use cortex_core::pool::figures::{Change, Figures, TickEnd};
use cortex_core::pool::lane::{LaneKey, Lanes};
use cortex_core::pool::order::Turns;
use cortex_core::pool::pause::{Part, Pause};
use cortex_core::pool::quota::Quota;
use cortex_core::pool::{Holder, Task, TaskState};
use cortex_core::time::{Timestamp, WallTime};
use cortex_store::{Read, StoreError, Tx};
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use asking::Waiting;

pub use asking::{Asking, ClaimFn, LeftClaim};
pub use shares::Shares;
pub use table::Noted;

/// Told of a task and of the lowest attempt of it that may still do something.
type OnAttempt = Box<dyn Fn(TaskId, Attempt) + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Board {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    state: Mutex<State>,
    turns: Mutex<Turns>,
    quota: Quota,
    shares: Shares,
    /// Told of each attempt, see [`Board::on_attempt`].
    attempts: OnceLock<OnAttempt>,
    /// A command may wait, or a node may have room for one.
    nodes: Notify,
    /// A lease, a due time or a time to start came nearer.
    timers: Notify,
}

#[derive(Default)]
struct State {
    board: board::Board,
    figures: Figures,
    /// When the timers are looked at next; the start when that is not known.
    planned: Timestamp,
    /// Parts that stand still.
    pauses: BTreeMap<Part, Pause>,
    /// Those of them whose work was given back.
    drained: BTreeSet<Part>,
    /// Who waits for payloads, by kind.
    workers: BTreeMap<String, Waiting>,
    /// Who waits for the next change of a task.
    watched: BTreeMap<TaskId, watch::Sender<()>>,
}

/// How the pool stands, as far as that is in mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Lanes in which something may be ready.
    pub lanes: usize,
    /// Leases of nodes.
    pub node_leases: usize,
    /// Leases of workers that are none.
    pub worker_leases: usize,
}

/// What the store holds at a start.
pub struct Stored {
    lanes: Vec<(LaneId, LaneKey)>,
    leased: Vec<Task>,
    pauses: Vec<Pause>,
}

impl Board {
    /// Nothing is known, and bounds are as usual.
    pub fn new(clock: Clock) -> Self {
        Self::with_quota(clock, Quota::default())
    }

    /// Nothing is known.
    pub fn with_quota(clock: Clock, quota: Quota) -> Self {
        let inner = Inner {
            clock,
            state: Mutex::default(),
            turns: Mutex::default(),
            quota,
            shares: Shares::default(),
            attempts: OnceLock::new(),
            nodes: Notify::new(),
            timers: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes up what the store holds. Each lease has its whole length again.
    pub fn load(&self, stored: Stored) {
        let Stored { lanes, leased, pauses } = stored;
        let now = self.inner.clock.now();
        let mut state = self.state();
        state.board.load(lanes, &leased, now);
        state.pauses = pauses.into_iter().map(|pause| (pause.part.clone(), pause)).collect();
    }

    /// What the store holds, for [`Self::load`].
    pub fn stored(view: &dyn Read) -> Result<Stored, StoreError> {
        Ok(Stored { lanes: view.lanes()?, leased: view.leased_tasks()?, pauses: view.pauses()? })
    }

    /// A pause was committed.
    pub fn put_pause(&self, pause: Pause) {
        let mut state = self.state();
        state.drained.remove(&pause.part);
        state.pauses.insert(pause.part.clone(), pause);
        self.inner.timers.notify_one();
    }

    /// A pause was removed: whoever waits looks again.
    pub fn remove_pause(&self, part: &Part) {
        let mut state = self.state();
        state.pauses.remove(part);
        state.drained.remove(part);
        drop(state);
        self.wake_all();
    }

    /// Parts that stand still.
    pub fn pauses(&self) -> Vec<Pause> {
        self.state().pauses.values().cloned().collect()
    }

    /// Parts whose work is to be given back at this moment.
    pub fn to_drain(&self, now: WallTime) -> Vec<Part> {
        let state = self.state();
        let over = state.pauses.values().filter(|pause| pause.drained_at.is_some_and(|at| at <= now));
        over.map(|pause| pause.part.clone()).filter(|part| !state.drained.contains(part)).collect()
    }

    /// When the work of the next part is to be given back.
    pub fn next_drain(&self) -> Option<WallTime> {
        let state = self.state();
        let open = state.pauses.values().filter(|pause| !state.drained.contains(&pause.part));
        open.filter_map(|pause| pause.drained_at).min()
    }

    /// The work of this part was given back.
    pub fn drained(&self, part: &Part) {
        self.state().drained.insert(part.clone());
    }

    /// A timer may be due earlier than was said.
    pub fn wake_timers(&self) {
        self.inner.timers.notify_one();
    }

    /// How many tasks there may be.
    pub fn quota(&self) -> Quota {
        self.inner.quota
    }

    /// What each party may have on its way to the store.
    pub fn shares(&self) -> &Shares {
        &self.inner.shares
    }

    /// A table over a transaction: what is put into it is known here once it is committed.
    pub fn over<'t>(&self, tx: &'t mut dyn Tx) -> Noted<'t> {
        Noted { board: self.clone(), tx, puts: 0 }
    }

    /// Lanes in which something may be ready.
    pub fn ready(&self) -> Lanes {
        self.state().board.ready()
    }

    /// Whose turn it was.
    fn turns(&self) -> MutexGuard<'_, Turns> {
        lock(&self.inner.turns)
    }

    /// Tasks that a node works on, and those that claims may be about to give it.
    pub fn busy(&self, node: NodeId) -> usize {
        self.state().board.busy(node)
    }

    /// Keeps so many of a node's slots taken until the claim for them is through, whoever has stopped
    /// waiting for it.
    pub fn promise(&self, node: NodeId, count: usize) -> Promise {
        self.state().board.promise(node, count);
        Promise { board: self.clone(), node, count }
    }

    /// The attempts that a node works on, with their runs.
    pub fn attempts_of(&self, node: NodeId) -> Vec<(TaskId, Attempt, RunId)> {
        self.state().board.attempts_of(node)
    }

    /// A node was heard: its leases are extended.
    pub fn heard(&self, node: NodeId) {
        let now = self.inner.clock.now();
        self.state().board.heard(node, now);
    }

    /// A worker is still at it.
    ///
    /// # Errors
    /// `stale_attempt`.
    pub fn extend(
        &self,
        task: TaskId,
        attempt: Attempt,
        holder: Holder,
        ms: Option<u64>,
    ) -> Result<(), Refusal> {
        let now = self.inner.clock.now();
        self.state().board.leases_mut().extend(task, attempt, holder, ms, now)
    }

    /// Leases that have ended, told again after a while until the store says otherwise.
    pub fn ended_leases(&self) -> Vec<(TaskId, Attempt)> {
        let now = self.inner.clock.now();
        let mut state = self.state();
        std::iter::from_fn(|| state.board.leases_mut().poll_ended(now)).collect()
    }

    /// When the next lease may end.
    pub fn next_lease(&self) -> Option<Timestamp> {
        self.state().board.leases().poll_timeout().map(|(at, _)| at)
    }

    /// How many leases there are.
    pub fn leases(&self) -> usize {
        self.state().board.leases().len()
    }

    /// A node may have room, or may be asked again.
    pub fn wake_nodes(&self) {
        self.inner.nodes.notify_one();
    }

    /// What may be handed out to whom has changed: a lock went, a right or a label came.
    pub fn wake_all(&self) {
        self.wake_nodes();
        self.state().workers.values().for_each(|waiting| waiting.wake.notify_one());
    }

    /// Until a node may be given something.
    pub async fn node_work(&self) {
        self.inner.nodes.notified().await;
    }

    /// Until a timer may be due earlier than was said.
    pub async fn timer_change(&self) {
        self.inner.timers.notified().await;
    }

    /// Changes of a task from this moment on, until the answer is dropped.
    pub fn watch(&self, task: TaskId) -> Watched {
        let mut state = self.state();
        let sender = state.watched.entry(task).or_insert_with(|| watch::channel(()).0);
        Watched { changes: Some(sender.subscribe()), board: self.clone(), task }
    }

    /// What has happened since the hub began, and how things stand now.
    pub fn figures(&self) -> (Figures, Standing) {
        let state = self.state();
        let (leases, lanes) = (state.board.leases(), state.board.ready_len());
        let nodes = leases.nodes_len();
        (state.figures.clone(), Standing { lanes, node_leases: nodes, worker_leases: leases.len() - nodes })
    }

    /// A tick of a schedule was committed.
    pub fn ticked(&self, end: TickEnd) {
        self.state().figures.ticked(end);
    }

    /// A worker was refused as one whose attempt is over.
    pub fn refused_stale(&self) {
        self.state().figures.stale += 1;
    }

    /// A task as it is committed.
    fn put(&self, lane: Option<LaneId>, task: &Task, change: Change) {
        self.note(lane, task, change);
        if let Some(tell) = self.inner.attempts.get() {
            tell(task.id, lowest(task));
        }
    }

    /// Who is told, after each commit that put a task, of the lowest attempt of it that may still do
    /// something. Set once; must not block.
    pub fn on_attempt(&self, tell: OnAttempt) {
        let _first = self.inner.attempts.set(tell);
    }

    fn note(&self, lane: Option<LaneId>, task: &Task, change: Change) {
        let now = self.inner.clock.now();
        let mut state = self.state();
        let had_lease = state.board.leases().has(task.id, task.attempt);
        state.figures.add(change, had_lease);
        if let Some(watched) = state.watched.get(&task.id) {
            watched.send_replace(());
        }
        let woken = state.board.put(lane, task, now);
        if let Some(waiting) = woken.kind.and_then(|kind| state.workers.get(kind.as_str())) {
            waiting.wake.notify_one();
        }
        if woken.timers && self.timer_of(task, now).is_some_and(|at| at < state.planned) {
            self.inner.timers.notify_one();
        }
        if woken.nodes {
            self.inner.nodes.notify_one();
        }
    }

    /// When something is due of a task by the clock.
    fn timer_of(&self, task: &Task, now: Timestamp) -> Option<Timestamp> {
        let wall = self.inner.clock.wall();
        let until = |at: WallTime| now.plus_ms(u64::try_from(at.0.saturating_sub(wall.0)).unwrap_or(0));
        match task.state {
            TaskState::Scheduled => task.due_at.filter(|_| task.waits_for == 0).map(until),
            TaskState::Ready => task.expires_at.map(until),
            TaskState::Leased => task.lease.map(|lease| now.plus_ms(lease.ms)),
            TaskState::Done | TaskState::Dead | TaskState::Cancelled | TaskState::Expired => None,
        }
    }

    /// The timers are looked at then, unless something is due before: that is told.
    pub fn plan_timers(&self, at: Timestamp) {
        self.state().planned = at;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }
}

/// Slots of a node that a claim may fill; see [`Board::promise`].
pub struct Promise {
    board: Board,
    node: NodeId,
    count: usize,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.board.state().board.fulfilled(self.node, self.count);
        self.board.wake_nodes();
    }
}

/// One who waits for changes of a task.
pub struct Watched {
    board: Board,
    task: TaskId,
    changes: Option<watch::Receiver<()>>,
}

impl Watched {
    /// Until it has changed once more.
    pub async fn changed(&mut self) {
        if let Some(changes) = &mut self.changes {
            // The sender is kept for as long as somebody watches.
            drop(changes.changed().await);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.board.state();
        self.changes = None;
        if state.watched.get(&self.task).is_some_and(|sender| sender.receiver_count() == 0) {
            state.watched.remove(&self.task);
        }
    }
}

/// The attempt that works on a task, or the one to come.
pub fn lowest(task: &Task) -> Attempt {
    if task.state == TaskState::Leased { task.attempt } else { task.attempt.next() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
