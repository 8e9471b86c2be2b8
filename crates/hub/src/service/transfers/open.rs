//! One transfer, as long as something is told of it, and all of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cortex_core::files::content::TreeId;
use cortex_core::id::{NodeId, TokenId, TransferId, UserId};
use cortex_core::limits::{
    TRANSFERS_KEPT_MAX, TRANSFERS_KEPT_MS, TRANSFERS_OPEN_MAX, TRANSFERS_OPEN_PER_TOKEN_MAX,
};
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_core::transfer::{LeftOut, Noted, PathNote, Phase, Progress, TransferEnd, TreeTold};
use cortex_core::{Code, Refusal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Order;
use crate::metrics::Metrics;
use crate::service::Caller;
use crate::transfer::pull::Pull;
use crate::transfer::push::Push;

/// Bytes of notes that one transfer keeps for all its nodes together.
const NOTE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of all that is kept of ended transfers, about.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a row takes beside its notes, about.
const ROW_BYTES: usize = 1_024;
/// How often progress alone is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// What is moved, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To nodes.
    Push,
    /// From a node.
    Pull,
}

impl Kind {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
        }
    }
}

/// How far a transfer is at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its turn, for its node to come back, or for somebody to read it.
    Queued,
    /// The node looks at its folder.
    Scanning,
    /// Content moves.
    Moving,
    /// The node has all that it asked for.
    Applying,
    /// There was nothing to do.
    InSync,
    /// It is done.
    Done,
    /// A safety rule stopped it before the first change.
    Halted,
    /// It is not done, or not all of it.
    Failed,
    /// Its caller ended it.
    Cancelled,
}

impl Stage {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scanning => "scanning",
            Self::Moving => "moving",
            Self::Applying => "applying",
            Self::InSync => "in_sync",
            Self::Done => "done",
            Self::Halted => "halted",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more comes.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Queued | Self::Scanning | Self::Moving | Self::Applying => false,
            Self::InSync | Self::Done | Self::Halted | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// How it stands with a transfer as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Some node is not done.
    Open,
    /// All nodes are.
    Done,
    /// Some node failed, or was halted.
    Failed,
    /// Its caller ended it.
    Cancelled,
}

impl Standing {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A transfer at one node.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the node, or what the caller called it.
    pub node: String,
    /// The node; `None` of one that is not there.
    pub id: Option<NodeId>,
    /// The folder there.
    pub path: String,
    /// How far it is.
    pub stage: Stage,
    /// Bytes of content that are to be moved, as far as is known.
    pub bytes_total: u64,
    /// Bytes of content that were moved.
    pub bytes_moved: u64,
    /// Bytes that this took on the connection.
    pub wire_bytes: u64,
    /// Entries that are to be changed, as far as is known.
    pub steps_total: u64,
    /// Entries that were changed.
    pub steps_done: u64,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Option<Duration>,
    /// What stopped it.
    pub error: Option<Refusal>,
    /// What came of it.
    pub end: Option<Arc<TransferEnd>>,
    /// Of a pull: what the folder has and its tree has not.
    pub left_out: LeftOut,
}

/// A transfer, as it is told.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its id.
    pub id: TransferId,
    /// Which way.
    pub kind: Kind,
    /// How it stands.
    pub standing: Standing,
    /// Grows with each change.
    pub seq: u64,
    /// The tree, once it is known.
    pub root: Option<TreeId>,
    /// Its entries.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether nothing is done.
    pub dry_run: bool,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: WallTime,
    /// When it ended.
    pub ended_at: Option<WallTime>,
    /// How it stands with each node.
    pub rows: Vec<Row>,
}

/// Who asked for a transfer.
#[derive(Clone, Debug)]
pub(super) struct By {
    pub(super) token: TokenId,
    pub(super) user: Option<UserId>,
    pub(super) actor: String,
}

impl By {
    pub(super) fn of(caller: &Caller) -> Self {
        Self { token: caller.token.id, user: caller.token.user, actor: caller.actor() }
    }

    /// Whether this is the caller's: by the token itself, or for a person in one of its sessions.
    pub(super) fn is(&self, caller: &Caller) -> bool {
        let own = &caller.token;
        own.id == self.token
            || (own.kind == TokenKind::Session && own.user.is_some() && own.user == self.user)
    }
}

/// Content on its way.
#[derive(Clone)]
pub(super) enum Content {
    Push(Arc<Push>),
    Pull(Arc<Pull>),
}

/// One transfer.
pub(super) struct Transfer {
    pub(super) id: TransferId,
    pub(super) by: By,
    pub(super) at: WallTime,
    pub(super) order: Order,
    pub(super) content: Content,
    /// Nothing more comes.
    pub(super) over: CancellationToken,
    metrics: Metrics,
    live: Mutex<Live>,
    seq: watch::Sender<u64>,
    end: watch::Sender<Option<Stop>>,
}

/// Why a transfer is to end before its time.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    pub(super) why: Refusal,
    /// Its caller wants it.
    pub(super) is_cancelled: bool,
}

struct Live {
    rows: Vec<Row>,
    root: Option<TreeId>,
    entries: u64,
    bytes: u64,
    ended_at: Option<WallTime>,
    standing: Standing,
    note_bytes: usize,
    told: Instant,
}

impl Transfer {
    pub(super) fn new(
        id: TransferId,
        by: By,
        at: WallTime,
        (order, content): (Order, Content),
        rows: Vec<Row>,
        metrics: Metrics,
    ) -> Self {
        for row in &rows {
            metrics.transfer_stage(None, Some(row.stage));
        }
        let (root, entries, bytes) = match &order {
            Order::Push(push) => (Some(push.root), push.entries, push.bytes),
            Order::Pull(_) => (None, 0, 0),
        };
        let live = Live {
            rows,
            root,
            entries,
            bytes,
            ended_at: None,
            standing: Standing::Open,
            note_bytes: 0,
            told: Instant::now(),
        };
        Self {
            id,
            by,
            at,
            order,
            content,
            over: CancellationToken::new(),
            metrics,
            live: Mutex::new(live),
            seq: watch::Sender::new(1),
            end: watch::Sender::new(None),
        }
    }

    pub(super) fn shown(&self) -> Shown {
        let live = self.lock();
        Shown {
            id: self.id,
            kind: self.order.kind(),
            standing: live.standing,
            seq: *self.seq.borrow(),
            root: live.root,
            entries: live.entries,
            bytes: live.bytes,
            dry_run: matches!(&self.order, Order::Push(push) if push.dry_run),
            by: self.by.actor.clone(),
            at: self.at,
            ended_at: live.ended_at,
            rows: live.rows.clone(),
        }
    }

    /// Bytes that it took on the connection to a node so far.
    pub(super) fn wire_bytes(&self, seat: usize) -> u64 {
        self.lock().rows[seat].wire_bytes
    }

    pub(super) fn standing(&self) -> Standing {
        self.lock().standing
    }

    /// Waits until something is told that is newer than `after`, or nothing more comes.
    pub(super) async fn news(&self, after: u64) {
        let mut seq = self.seq.subscribe();
        tokio::select! {
            // The sender lives in `self`.
            _newer = seq.wait_for(|seq| *seq > after) => {}
            () = self.over.cancelled() => {}
        }
    }

    /// It is to end. What was wished first stands.
    pub(super) fn stop(&self, why: Refusal, is_cancelled: bool) {
        self.end.send_modify(|end| *end = end.take().or(Some(Stop { why, is_cancelled })));
    }

    /// Waits until it is to end.
    pub(super) async fn stopped(&self) -> Stop {
        let mut end = self.end.subscribe();
        let stop = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        match stop {
            Some(stop) => stop,
            // The sender lives in `self`.
            None => std::future::pending().await,
        }
    }

    /// How far it is at a node.
    pub(super) fn stage(&self, seat: usize, stage: Stage) {
        self.change(seat, |row| std::mem::replace(&mut row.stage, stage) != stage);
    }

    /// The node says how far it is.
    pub(super) fn progress(&self, seat: usize, progress: Progress) {
        let now = Instant::now();
        let mut live = self.lock();
        let row = &mut live.rows[seat];
        let before = row.stage;
        match row.stage {
            Stage::Scanning | Stage::Moving | Stage::Applying => match progress.phase {
                Phase::Scanning => {}
                Phase::Moving => {
                    row.stage = Stage::Moving;
                    if progress.bytes_total > 0 {
                        row.bytes_total = progress.bytes_total;
                    }
                }
                Phase::Applying => {
                    row.stage = Stage::Applying;
                    (row.steps_done, row.steps_total) = (progress.files, progress.files_total);
                }
            },
            Stage::Queued
            | Stage::InSync
            | Stage::Done
            | Stage::Halted
            | Stage::Failed
            | Stage::Cancelled => {
                return;
            }
        }
        let stage = row.stage;
        let is_told = before != stage || now.duration_since(live.told) >= PROGRESS_EVERY;
        if is_told {
            live.told = now;
        }
        drop(live);
        if before != stage {
            self.metrics.transfer_stage(Some(before), Some(stage));
        }
        if is_told {
            self.tell();
        }
    }

    /// Content went over the connection: so many bytes of it, and so many that were wanted.
    pub(super) fn moved(&self, seat: usize, wire: u64, plain: u64) {
        self.metrics.transfer_bytes(self.order.kind(), wire);
        let now = Instant::now();
        let mut live = self.lock();
        let row = &mut live.rows[seat];
        row.wire_bytes += wire;
        row.bytes_moved += plain;
        row.bytes_total = row.bytes_total.max(row.bytes_moved);
        let is_told = now.duration_since(live.told) >= PROGRESS_EVERY;
        if is_told {
            live.told = now;
        }
        drop(live);
        if is_told {
            self.tell();
        }
    }

    /// The node says what it has.
    pub(super) fn tree(&self, seat: usize, told: &TreeTold) {
        {
            let mut live = self.lock();
            (live.root, live.entries, live.bytes) = (Some(told.root), told.entries, told.bytes);
        }
        self.change(seat, |row| {
            (row.bytes_total, row.steps_total) = (told.bytes, told.entries);
            row.left_out = told.left_out;
            true
        });
    }

    /// It ended at a node. Returns whether it has ended as a whole by that.
    pub(super) fn ended(
        &self,
        seat: usize,
        stage: Stage,
        result: Result<Box<TransferEnd>, Refusal>,
        now: WallTime,
    ) -> bool {
        let mut live = self.lock();
        let room = NOTE_BYTES_MAX.saturating_sub(live.note_bytes);
        let row = &mut live.rows[seat];
        if row.stage.is_over() {
            return false;
        }
        let before = std::mem::replace(&mut row.stage, stage);
        row.took = Some(row.began.elapsed());
        let mut kept = 0;
        match result {
            Ok(mut end) => {
                kept = clip(&mut end, room);
                row.bytes_total = row.bytes_moved;
                row.steps_total = end.counts.to_node.max(end.files);
                row.steps_done = row.steps_total;
                row.error = failure(&end, stage);
                row.end = Some(Arc::from(end));
            }
            // That somebody wanted its end is no error.
            Err(refusal) => row.error = (stage != Stage::Cancelled).then_some(refusal),
        }
        live.note_bytes += kept;
        let is_over = live.rows.iter().all(|row| row.stage.is_over());
        if is_over {
            live.ended_at = Some(now);
            let is_good = |row: &Row| matches!(row.stage, Stage::Done | Stage::InSync);
            live.standing = if live.rows.iter().any(|row| row.stage == Stage::Cancelled) {
                Standing::Cancelled
            } else if live.rows.iter().all(is_good) {
                Standing::Done
            } else {
                Standing::Failed
            };
        }
        drop(live);
        self.metrics.transfer_stage(Some(before), Some(stage));
        self.tell();
        if is_over {
            self.over.cancel();
        }
        is_over
    }

    /// Gives back its place in the figures when nothing was begun.
    pub(super) fn withdraw(&self) {
        for row in self.lock().rows.iter().filter(|row| !row.stage.is_over()) {
            self.metrics.transfer_stage(Some(row.stage), None);
        }
    }

    fn change(&self, seat: usize, work: impl FnOnce(&mut Row) -> bool) {
        let mut live = self.lock();
        let row = &mut live.rows[seat];
        if row.stage.is_over() {
            return;
        }
        let before = row.stage;
        let (changed, stage) = (work(row), row.stage);
        drop(live);
        if before != stage {
            self.metrics.transfer_stage(Some(before), Some(stage));
        }
        if changed {
            self.tell();
        }
    }

    fn tell(&self) {
        self.seq.send_modify(|seq| *seq += 1);
    }

    /// What it takes in memory, about.
    fn weight(&self) -> usize {
        let live = self.lock();
        live.note_bytes + live.rows.len() * ROW_BYTES
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the notes that do not fit. Returns what the others take.
fn clip(end: &mut TransferEnd, room: usize) -> usize {
    let mut used = 0;
    let mut fits = |note: &PathNote| {
        used += note.weight() + 64;
        used <= room
    };
    let count = end.notes.iter().take_while(|note| fits(note)).count();
    end.notes_more += (end.notes.len() - count) as u64;
    end.notes.truncate(count);
    used.min(room)
}

/// The first step that was not done, as a refusal.
fn failure(end: &TransferEnd, stage: Stage) -> Option<Refusal> {
    if stage != Stage::Failed {
        return None;
    }
    end.notes.iter().find_map(|note| {
        let Noted::Failed(code) = note.what else { return None };
        let path = cortex_core::name::printable(note.path.as_str(), 300);
        let message = format!("`{path}` and maybe others are not what they are to be; what was done stays.");
        Some(Refusal::new(code, message).detail("path", path))
    })
}

/// All transfers of which something is told.
#[derive(Default)]
pub(super) struct Table {
    open: BTreeMap<TransferId, Arc<Transfer>>,
    ended: BTreeMap<TransferId, Arc<Transfer>>,
    /// Those that ended, oldest first, with their weight.
    order: VecDeque<(TransferId, Instant, usize)>,
    weight: usize,
    keys: HashMap<(TokenId, String), TransferId>,
    is_stopping: bool,
}

impl Table {
    /// Looks for what the same caller asked for with the same key.
    ///
    /// # Errors
    /// `conflict` when that was something else.
    pub(super) fn known(
        &self,
        token: TokenId,
        key: &str,
        order: &Order,
    ) -> Result<Option<Arc<Transfer>>, Refusal> {
        let found = self.keys.get(&(token, key.to_owned())).and_then(|id| self.get(*id));
        match found {
            Some(transfer) if transfer.order == *order => Ok(Some(transfer)),
            Some(_) => {
                let message = "The idempotency key was used for another transfer.";
                Err(Refusal::new(Code::Conflict, message).hint("Use a new key."))
            }
            None => Ok(None),
        }
    }

    /// Takes one in.
    ///
    /// # Errors
    /// `rate_limited` when its token has too many open, `quota` when the hub has, `hub_unreachable` when it
    /// stops.
    pub(super) fn open(&mut self, transfer: &Arc<Transfer>, key: Option<String>) -> Result<(), Refusal> {
        if self.is_stopping {
            return Err(Refusal::new(Code::HubUnreachable, "The hub stops.").hint("Ask again in a moment."));
        }
        let token = transfer.by.token;
        if self.open.values().filter(|open| open.by.token == token).count() >= TRANSFERS_OPEN_PER_TOKEN_MAX {
            let message =
                format!("This token has {TRANSFERS_OPEN_PER_TOKEN_MAX} transfers open, the most at once.");
            return Err(Refusal::new(Code::RateLimited, message)
                .hint("Wait for some of them to end, or cancel one, then ask again."));
        }
        if self.open.len() >= TRANSFERS_OPEN_MAX {
            let message = format!("The hub has {TRANSFERS_OPEN_MAX} transfers open, the most at once.");
            return Err(
                Refusal::new(Code::Quota, message).hint("Wait for some of them to end, then ask again.")
            );
        }
        self.open.insert(transfer.id, Arc::clone(transfer));
        if let Some(key) = key {
            self.keys.insert((token, key), transfer.id);
        }
        Ok(())
    }

    /// One ended: what came of it is told for a while.
    pub(super) fn end(&mut self, id: TransferId) {
        let Some(transfer) = self.open.remove(&id) else { return };
        let weight = transfer.weight();
        self.ended.insert(id, transfer);
        self.order.push_back((id, Instant::now(), weight));
        self.weight += weight;
        self.prune();
    }

    /// One was not begun.
    pub(super) fn forget(&mut self, id: TransferId) {
        self.open.remove(&id);
        self.keys.retain(|_, known| *known != id);
    }

    pub(super) fn get(&self, id: TransferId) -> Option<Arc<Transfer>> {
        self.open.get(&id).or_else(|| self.ended.get(&id)).cloned()
    }

    /// All, the newest first, from behind `before` on.
    pub(super) fn all(&self, before: Option<TransferId>) -> Vec<Arc<Transfer>> {
        let mut all: Vec<_> = self.open.values().chain(self.ended.values()).cloned().collect();
        all.sort_by_key(|transfer| std::cmp::Reverse(transfer.id));
        all.retain(|transfer| before.is_none_or(|before| transfer.id < before));
        all
    }

    /// No more come. Returns those that are open.
    pub(super) fn stop(&mut self) -> Vec<Arc<Transfer>> {
        self.is_stopping = true;
        self.open.values().cloned().collect()
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Forgets what is too old, or too much.
    pub(super) fn prune(&mut self) {
        let kept = Duration::from_millis(TRANSFERS_KEPT_MS);
        while let Some((id, since, weight)) = self.order.front().copied() {
            let is_too_much = self.order.len() > TRANSFERS_KEPT_MAX || self.weight > KEPT_BYTES_MAX;
            if !is_too_much && since.elapsed() < kept {
                break;
            }
            self.order.pop_front();
            self.weight -= weight;
            self.ended.remove(&id);
            self.keys.retain(|_, known| *known != id);
        }
    }
}
