//! One transfer, as long as something is told of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cortex_core::Refusal;
use cortex_core::files::content::TreeId;
use cortex_core::id::{TokenId, TransferId, UserId};
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_core::transfer::{Noted, PathNote, Phase, Progress, TransferEnd, TreeTold};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Order;
use super::shown::{Row, Shown, Stage, Standing};
use crate::metrics::Metrics;
use crate::service::Caller;
use crate::transfer::pull::Pull;
use crate::transfer::push::Push;

/// Bytes of notes that one transfer keeps for all its nodes together.
const NOTE_BYTES_MAX: usize = 256 * 1024;
/// What a row takes beside its notes, about.
const ROW_BYTES: usize = 1_024;
/// How often progress alone is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

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
        let (root, entries, bytes) = match order.tree() {
            Some((root, entries, bytes)) => (Some(root), entries, bytes),
            None => (None, 0, 0),
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
    pub(super) fn weight(&self) -> usize {
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
