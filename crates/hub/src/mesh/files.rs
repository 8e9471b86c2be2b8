//! Operations on files, as the mesh drives them: a place for one before it is accepted, its way to the
//! node, its end to the store, and its answer to whoever waits.
//!
//! The machine is `cortex_core::hub_files`. An operation has its entry from before its commit until its
//! end is stored, so that a lock, a newer attempt of its task and a repeat find it at any moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::ask::FileAsk;
use cortex_core::files::entity::{FileEnd, FileTask, decide, unknown_outcome};
use cortex_core::hub_files::{Action, HubFiles};
use cortex_core::id::{Attempt, NodeId, OpId, TaskId, TokenId, UserId};
use cortex_core::limits::FILE_OPS_OPEN_PER_NODE_MAX;
use cortex_core::policy::Rule;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Read, StoreError, Tx, WriteError};
use tokio::sync::oneshot;

use super::link::Link;
use super::slot::{Slot, SlotState};
use super::{Inner, Mesh, lock};
use crate::board;
use crate::service::outcome::write_surely;

/// What a caller is answered.
type Answer = Result<FileAnswer, Refusal>;

/// Nodes on which an attempt of a task has operations, and how many.
pub(super) type Touched = BTreeMap<TaskId, BTreeMap<NodeId, usize>>;

/// Counts operations that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted(Arc<AtomicUsize>);

/// One of them, for as long as it lives.
#[derive(Debug)]
struct Count(Arc<AtomicUsize>);

impl Counted {
    fn one(&self) -> Count {
        self.0.fetch_add(1, Ordering::Relaxed);
        Count(Arc::clone(&self.0))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who asked for an operation, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// With which token.
    pub(crate) token: Option<TokenId>,
    /// The person.
    pub(crate) user: Option<UserId>,
    /// On which node.
    pub(crate) node: NodeId,
    /// For which attempt of a task.
    pub(crate) attempt: Option<(TaskId, Attempt)>,
}

/// One operation, from before it is accepted until its end is stored.
#[derive(Debug)]
struct Asked {
    by: Asker,
    /// Whether the machine has it.
    is_sent: bool,
    answer: Option<oneshot::Sender<Answer>>,
    /// Repeats that wait for its end.
    repeats: Vec<oneshot::Sender<FileEnd>>,
    /// Somebody wished for its end before the machine had it.
    wish: Option<Refusal>,
    /// A newer attempt was heard of before the machine had it.
    fence: Option<Attempt>,
    _count: Count,
}

/// The operations of one node.
#[derive(Debug, Default)]
pub(super) struct FileSlot {
    pub(super) machine: HubFiles,
    asked: BTreeMap<OpId, Asked>,
    /// Ends on their way to the store.
    ends: Vec<(OpId, FileEnd)>,
    is_settling: bool,
}

impl FileSlot {
    pub(super) fn is_idle(&self) -> bool {
        self.machine.is_empty() && self.asked.is_empty() && self.ends.is_empty() && !self.is_settling
    }
}

/// A place for one operation, until it is handed over or dropped.
pub(crate) struct FilePlace {
    mesh: Arc<Inner>,
    node: NodeId,
    op: OpId,
}

/// The answer to an operation, which is to come. Dropped before, a read is ended.
pub(crate) struct Waiting {
    mesh: Arc<Inner>,
    node: NodeId,
    op: OpId,
    ends_with_it: bool,
    answer: oneshot::Receiver<Answer>,
}

impl Mesh {
    /// Keeps a place for an operation while it is accepted.
    ///
    /// # Errors
    /// `quota` when the node has too many, or does not read what it is sent.
    pub(crate) fn file_place(&self, op: OpId, by: Asker) -> Result<FilePlace, Refusal> {
        let inner = &self.inner;
        inner.with_slot(by.node, |slot, state| {
            let refused = state.admit_file().err();
            if refused.is_none() {
                inner.insert_asked(state, op, by, false);
            }
            inner.act(slot, state);
            refused.map_or(Ok(()), Err)
        })?;
        Ok(FilePlace { mesh: Arc::clone(inner), node: by.node, op })
    }

    /// An operation that was accepted goes to its node.
    pub(crate) fn file(&self, ask: FileAsk, place: &FilePlace) -> Waiting {
        let (op, node, ends_with_it) = (ask.id, place.node, ask.op.is_read());
        let (tell, answer) = oneshot::channel();
        let inner = &self.inner;
        fail::fail_point!("hub::files_before_ask");
        inner.with_slot(node, |slot, state| {
            state.submit_file(ask, tell, inner.context.clock.now());
            inner.act(slot, state);
        });
        Waiting { mesh: Arc::clone(inner), node, op, ends_with_it, answer }
    }

    /// The end of an operation that is open, for a repeat of it; `None` when it is not.
    pub(crate) fn file_end(&self, node: NodeId, op: OpId) -> Option<oneshot::Receiver<FileEnd>> {
        self.inner.with_slot(node, |slot, state| {
            let (tell, end) = oneshot::channel();
            let asked = state.files.asked.get_mut(&op);
            let found = asked.map(|asked| {
                // Those that went away make room.
                asked.repeats.retain(|repeat| !repeat.is_closed());
                asked.repeats.push(tell);
                end
            });
            self.inner.act(slot, state);
            found
        })
    }

    /// The protocol version that a connected node speaks.
    pub(crate) fn protocol(&self, node: NodeId) -> Option<u32> {
        lock(&self.inner.present).links.get(&node).map(|link| link.protocol())
    }

    /// Operations on files that have not ended.
    pub fn file_ops_open(&self) -> usize {
        self.inner.file_ops_open()
    }

    /// Ends all open operations that `matches` holds for, as far as they are not done: with its refusal.
    /// Returns how many there were. Does not block.
    pub(crate) fn end_files(&self, matches: impl Fn(&Asker) -> Option<Refusal>) -> usize {
        let slots: Vec<Arc<Slot>> = lock(&self.inner.slots).values().cloned().collect();
        let mut count = 0;
        for node in slots.into_iter().map(|slot| slot.node) {
            self.inner.with_slot(node, |slot, state| {
                let held =
                    state.files.asked.iter().filter_map(|(op, asked)| Some((*op, matches(&asked.by)?)));
                let held: Vec<(OpId, Refusal)> = held.collect();
                count += held.len();
                held.into_iter().for_each(|(op, why)| state.end_file(op, why));
                self.inner.act(slot, state);
            });
        }
        count
    }

    /// The node answers, on this link.
    pub fn file_answered(&self, link: &Link, op: OpId, answer: Result<FileAnswer, Refusal>) {
        fail::fail_point!("hub::files_after_answer");
        self.inner.with_slot(link.node(), |slot, state| {
            state.files.machine.answered(link.id(), op, answer);
            self.inner.act(slot, state);
        });
    }
}

impl SlotState {
    fn admit_file(&self) -> Result<(), Refusal> {
        self.files.machine.admit()?;
        let reads = self.link.as_ref().is_none_or(|link| link.has_room());
        if self.files.asked.len() < FILE_OPS_OPEN_PER_NODE_MAX && reads {
            return Ok(());
        }
        let message = if reads {
            format!(
                "The node has {FILE_OPS_OPEN_PER_NODE_MAX} open operations on files, which is the most it may have."
            )
        } else {
            "The node does not read what the hub sends it.".to_owned()
        };
        Err(Refusal::new(Code::Quota, message).hint("Wait for some of them to end, then ask again."))
    }

    fn submit_file(
        &mut self,
        ask: FileAsk,
        tell: oneshot::Sender<Answer>,
        now: cortex_core::time::Timestamp,
    ) {
        let op = ask.id;
        let Some(asked) = self.files.asked.get_mut(&op) else { return };
        (asked.is_sent, asked.answer) = (true, Some(tell));
        let (wish, fence) = (asked.wish.take(), asked.fence.take().zip(asked.by.attempt));
        self.files.machine.submit(ask, now);
        if let Some((newer, (task, _))) = fence {
            self.files.machine.fence(task, newer);
        }
        if let Some(why) = wish {
            self.files.machine.cancel(op, why);
        }
    }

    fn end_file(&mut self, op: OpId, why: Refusal) {
        match self.files.asked.get_mut(&op) {
            Some(asked) if asked.is_sent => self.files.machine.cancel(op, why),
            Some(asked) => drop(asked.wish.get_or_insert(why)),
            None => {}
        }
    }

    fn fence_files(&mut self, task: TaskId, lowest: Attempt) {
        let is_older = |asked: &&mut Asked| {
            !asked.is_sent && asked.by.attempt.is_some_and(|(of, attempt)| of == task && attempt < lowest)
        };
        for asked in self.files.asked.values_mut().filter(is_older) {
            asked.fence = asked.fence.max(Some(lowest));
        }
        self.files.machine.fence(task, lowest);
    }
}

impl Inner {
    pub(super) fn file_ops_open(&self) -> usize {
        self.files_open.0.load(Ordering::Relaxed)
    }

    fn insert_asked(&self, state: &mut SlotState, op: OpId, by: Asker, is_sent: bool) {
        let count = self.files_open.one();
        let asked =
            Asked { by, is_sent, answer: None, repeats: Vec::new(), wish: None, fence: None, _count: count };
        state.files.asked.insert(op, asked);
        if let Some((task, _)) = by.attempt {
            *lock(&self.touched).entry(task).or_default().entry(by.node).or_default() += 1;
        }
    }

    fn remove_asked(&self, state: &mut SlotState, op: OpId) {
        let Some(asked) = state.files.asked.remove(&op) else { return };
        let Some((task, _)) = asked.by.attempt else { return };
        let mut touched = lock(&self.touched);
        let Some(nodes) = touched.get_mut(&task) else { return };
        if let Some(count) = nodes.get_mut(&asked.by.node) {
            *count -= 1;
        }
        nodes.retain(|_, count| *count > 0);
        if nodes.is_empty() {
            touched.remove(&task);
        }
    }

    /// Attempts of this task below `lowest` do nothing more.
    pub(super) fn fence(&self, task: TaskId, lowest: Attempt) {
        self.fence_moving(task, lowest);
        let nodes: Vec<NodeId> =
            lock(&self.touched).get(&task).map(|nodes| nodes.keys().copied().collect()).unwrap_or_default();
        for node in nodes {
            self.with_slot(node, |slot, state| {
                state.fence_files(task, lowest);
                self.act(slot, state);
            });
        }
    }

    /// After a restart: an operation that has no end goes on waiting for its node.
    pub(super) fn take_up_file(&self, open: OpenFile) {
        let OpenFile { task, user, lowest, is_gone } = open;
        let by = Asker { token: task.token, user, node: task.node, attempt: task.attempt };
        self.with_slot(task.node, |slot, state| {
            self.insert_asked(state, task.id, by, true);
            state.files.machine.restore(task.id, task.attempt);
            if let Some(((of, _), lowest)) = task.attempt.zip(lowest) {
                state.files.machine.fence(of, lowest);
            }
            if is_gone {
                state.files.machine.abandon("its node was shut out");
            }
            self.act(slot, state);
        });
    }

    /// Does what the machine says; nothing of it waits.
    pub(super) fn act_on_files(&self, slot: &Arc<Slot>, state: &mut SlotState) {
        while let Some(action) = state.files.machine.poll_action() {
            match action {
                Action::Send(message) => {
                    if let Some(link) = &state.link {
                        link.send(message);
                    }
                }
                Action::Answer(op, answer) => {
                    let tell = state.files.asked.get_mut(&op).and_then(|asked| asked.answer.take());
                    if let Some(tell) = tell {
                        // Whoever went away hears nothing.
                        let _heard = tell.send(answer);
                    }
                }
                Action::Decide(op, end) => state.files.ends.push((op, end)),
                Action::Closed(op) => self.remove_asked(state, op),
            }
        }
        if state.files.ends.is_empty() || state.files.is_settling {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        state.files.is_settling = true;
        let slot = Arc::clone(slot);
        self.tasks.spawn(async move { me.settle_files(&slot).await });
    }

    async fn settle_files(&self, slot: &Arc<Slot>) {
        while let Some(batch) = self.take_ends(slot) {
            fail::fail_point!("hub::files_before_settle");
            let stored =
                write_surely(&self.context.store, &self.stop, "the end of operations on files", || {
                    let (batch, now) = (Arc::clone(&batch), self.context.clock.wall());
                    move |tx: &mut dyn Tx| settle(tx, &batch, now)
                });
            // What is not stored when the hub stops is told again by the node.
            let Some(ends) = stored.await else { return };
            let mut state = slot.lock();
            for (op, end) in ends {
                let repeats = state.files.asked.get_mut(&op).map(|asked| std::mem::take(&mut asked.repeats));
                for repeat in repeats.into_iter().flatten() {
                    let _heard = repeat.send(end.clone());
                }
            }
            for (op, _) in batch.iter() {
                state.files.machine.settled(*op);
            }
            self.act(slot, &mut state);
        }
    }

    /// What waits for the store; `None` when nothing does, and then the task is over.
    fn take_ends(&self, slot: &Arc<Slot>) -> Option<Arc<[(OpId, FileEnd)]>> {
        let mut state = slot.lock();
        if state.files.ends.is_empty() {
            state.files.is_settling = false;
            self.act(slot, &mut state);
            return None;
        }
        Some(std::mem::take(&mut state.files.ends).into())
    }
}

/// Ends stored operations. Returns how each has ended: an end that was there before stands.
fn settle(
    tx: &mut dyn Tx,
    batch: &[(OpId, FileEnd)],
    now: WallTime,
) -> Result<Vec<(OpId, FileEnd)>, WriteError> {
    let mut ends = Vec::new();
    for (op, end) in batch {
        let Some(task) = tx.file_op(*op)? else { continue };
        let end = match decide(&task, end.clone(), now) {
            Ok((ended, events)) => {
                if let Some(Err(refusal)) = ended.end().filter(|end| is_denied(end)) {
                    tx.append_audit(&denied(&task, refusal, now))?;
                }
                for event in &events {
                    tx.append_event(event)?;
                }
                tx.put_file_op(&ended)?;
                ended.end().cloned()
            }
            Err(_) => task.end().cloned(),
        };
        ends.extend(end.map(|end| (*op, end)));
    }
    Ok(ends)
}

/// Whether the node's own rules refused it, which the hub's had allowed: a link that leads out of its root,
/// or a ceiling that the hub does not know of.
pub(crate) fn is_denied<T>(answer: &Result<T, Refusal>) -> bool {
    let rules = [Code::PolicyDenied, Code::PathOutsideRoots, Code::SandboxUnavailable];
    matches!(answer, Err(refusal) if rules.contains(&refusal.code))
}

/// The row of a change that the node refused.
fn denied(task: &FileTask, refusal: &Refusal, now: WallTime) -> AuditRow {
    let paths = task.source.iter().chain([&task.path]).map(|path| path.as_str().to_owned());
    AuditRow {
        reason: Some(Rule::of(refusal).unwrap_or(refusal.code.as_str()).to_owned()),
        node: Some(task.node),
        policy_revision: Some(task.policy_revision),
        argv: [format!("@{}", task.verb)].into_iter().chain(paths).collect(),
        detail: Some(format!("op {}, refused by the node", task.id)),
        token: task.token,
        ..AuditRow::new(now, task.caller.clone(), task.verb.action(), Outcome::Denied)
    }
}

/// An operation that had no end when the hub stopped.
pub(super) struct OpenFile {
    task: FileTask,
    user: Option<UserId>,
    /// The lowest attempt of its task that may still do something.
    lowest: Option<Attempt>,
    /// Its node will not come back.
    is_gone: bool,
}

/// All of them.
pub(super) fn open_files(view: &dyn Read) -> Result<Vec<OpenFile>, StoreError> {
    let with = |task: FileTask| {
        let token = task.token.map(|token| view.token(token)).transpose()?.flatten();
        let of = task.attempt.map(|(of, _)| view.task(of)).transpose()?.flatten();
        let lowest = of.as_ref().map(board::lowest);
        let node = view.node(task.node)?;
        let is_gone = node.is_none_or(|node| node.removed_at.is_some() || node.quarantined);
        Ok(OpenFile { user: token.and_then(|token| token.user), lowest, is_gone, task })
    };
    view.open_file_ops()?.into_iter().map(with).collect()
}

impl Waiting {
    /// The answer.
    ///
    /// # Errors
    /// What came of it otherwise; `unknown_outcome` when the hub stops before that is known.
    pub(crate) async fn answer(mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.ends_with_it = false;
        answer.unwrap_or_else(|_| Err(unknown_outcome(self.op, "the hub stops")))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.ends_with_it {
            let why = Refusal::new(Code::Timeout, "Nobody waits for it any more.");
            self.mesh.with_slot(self.node, |slot, state| {
                state.files.machine.cancel(self.op, why);
                self.mesh.act(slot, state);
            });
        }
    }
}

impl Drop for FilePlace {
    fn drop(&mut self) {
        self.mesh.with_slot(self.node, |slot, state| {
            if state.files.asked.get(&self.op).is_some_and(|asked| !asked.is_sent) {
                self.mesh.remove_asked(state, self.op);
            }
            self.mesh.act(slot, state);
        });
    }
}
