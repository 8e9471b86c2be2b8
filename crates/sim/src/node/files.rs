//! A node's clerks, over a disk that is a map: they prepare, wait for their word, take effect some time
//! later, and are killed at any moment between. What was renamed and not synced may go with the power.

use std::collections::BTreeMap;

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::{Encoding, FileAnswer};
use cortex_core::files::ask::FileAsk;
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{Content, Expect, FileOp, WriteHow};
use cortex_core::id::OpId;
use cortex_core::journal::Record;
use cortex_core::message::{Envelope, ToHub, ToNode};
use cortex_core::node_files::{Action, Found, NodeFiles};

use super::Node;
use crate::check::{Change, Happened};
use crate::faults::FAULTS_MS;
use crate::net::{Context, NodeWake};

/// What is to come of a clerk's work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClerkWake {
    /// It has prepared it, or read.
    Prepared,
    /// It gives effect to the next of its changes.
    Effect,
    /// It has synced it all, and says so.
    Done,
    /// It was killed.
    Dead,
    /// Somebody looked for what it left.
    Looked,
}

/// Files by path.
pub(crate) type Disk = BTreeMap<String, Bytes>;

/// What is to be at some paths.
type Changes = Vec<(String, Option<Bytes>)>;

/// One clerk at its work.
struct Work {
    ask: FileAsk,
    /// Changes to come, the next one last.
    plan: Changes,
    answer: Result<FileAnswer, Refusal>,
    /// What was at each path before it was changed.
    before: Changes,
    began: bool,
    dying: bool,
}

#[derive(Default)]
pub(super) struct Clerks {
    pub(super) machine: NodeFiles,
    at_work: BTreeMap<OpId, Work>,
    pub(super) disk: Disk,
}

impl Clerks {
    /// What must be empty when nothing is under way.
    pub(super) fn entries(&self) -> usize {
        self.machine.held() + self.at_work.len()
    }
}

impl Node {
    /// What is on its disk.
    pub(crate) fn disk(&self) -> BTreeMap<String, ContentId> {
        self.clerks.disk.iter().map(|(path, bytes)| (path.clone(), ContentId::of(bytes))).collect()
    }

    /// Whether this frame is about files; and what it means for them, in a world that has them.
    pub(super) fn file_frame(&mut self, envelope: &Envelope<ToNode>, cx: &mut Context) -> bool {
        let Envelope { epoch, message } = envelope;
        let is_ours = matches!(
            message,
            ToNode::FileAsk(_)
                | ToNode::FileCancel { .. }
                | ToNode::FileSettled { .. }
                | ToNode::AttemptFence { .. }
        );
        let concerns_us = is_ours || (self.does_files && matches!(message, ToNode::Start(_)));
        if !concerns_us {
            return false;
        }
        let now = self.local(cx);
        let is_stale = !self.runs.is_linked() || *epoch != self.runs.numbers().1;
        match self.runs.gate(*epoch) {
            Ok(gate) => {
                let attempt = if let ToNode::FileAsk(ask) = message {
                    ask.attempt
                } else if let ToNode::Start(start) = message {
                    start.task
                } else if let ToNode::AttemptFence { task, attempt } = message {
                    Some((*task, *attempt))
                } else {
                    None
                };
                if let Some((task, attempt)) = attempt {
                    cx.note(Happened::AttemptHeard { node: self.index, task, attempt });
                }
                self.clerks.machine.handle(message.clone(), &gate, now);
            }
            // The machine of the runs says it of a start.
            Err(_) if !is_ours => {}
            Err(refusal) => {
                if let Some(link) = self.link() {
                    cx.send_to_hub(link, ToHub::Refused { run: None, refusal });
                }
            }
        }
        if is_stale && is_ours {
            let mut effect = false;
            while let Some(action) = self.clerks.machine.poll_action() {
                effect = true;
                self.act_on_files(action, cx);
            }
            cx.note(Happened::StaleFrame { node: self.index, epoch: epoch.0, effect });
        }
        is_ours
    }

    pub(super) fn pump_files(&mut self, cx: &mut Context) {
        while let Some(action) = self.clerks.machine.poll_action() {
            self.act_on_files(action, cx);
        }
    }

    fn act_on_files(&mut self, action: Action, cx: &mut Context) {
        match action {
            Action::Send(message) => {
                if let Some(link) = self.link() {
                    cx.send_to_hub(link, message);
                }
            }
            Action::Journal(record) => self.journal(record, cx),
            Action::Perform { ask, .. } => self.perform(*ask, cx),
            Action::Commit(op) => self.commit(op, cx),
            Action::Abort(op) => {
                if let Some(work) = self.clerks.at_work.get_mut(&op) {
                    work.dying = true;
                    let wait = cx.random.between(1, 200);
                    self.clerk_after(wait, op, ClerkWake::Dead, cx);
                }
            }
            // The simulated hub asks for none.
            Action::Transfer { .. } | Action::EndTransfer(_) | Action::Watch { .. } | Action::Unwatch(_) => {}
            Action::Recover { accepted, .. } => {
                let wait = io_ms(100, cx);
                self.looks.insert(accepted.op, accepted.path.as_str().to_owned());
                self.clerk_after(wait, accepted.op, ClerkWake::Looked, cx);
            }
        }
    }

    fn clerk_after(&self, ms: u64, op: OpId, wake: ClerkWake, cx: &mut Context) {
        cx.node_after(ms, self.index, NodeWake::Clerk { life: self.life, op, wake });
    }

    fn perform(&mut self, ask: FileAsk, cx: &mut Context) {
        let op = ask.id;
        if !ask.op.is_read() {
            let durable = &self.disk.journal[..self.disk.synced];
            let is_row = |record: &Record| matches!(record, Record::FileAccepted(row) if row.op == op);
            let journaled = durable.iter().any(is_row);
            cx.note(Happened::FileBegun { node: self.index, op, journaled });
        }
        let answer = Err(Refusal::new(Code::Internal, "not yet"));
        let work = Work { ask, plan: vec![], answer, before: vec![], began: false, dying: false };
        self.clerks.at_work.insert(op, work);
        let wait = io_ms(80, cx);
        self.clerk_after(wait, op, ClerkWake::Prepared, cx);
    }

    pub(super) fn clerk(&mut self, op: OpId, wake: ClerkWake, cx: &mut Context) {
        let now = self.local(cx);
        match wake {
            ClerkWake::Prepared => self.prepare(op, cx),
            ClerkWake::Effect => self.take_effect(op, cx),
            ClerkWake::Done => {
                if let Some(work) = self.clerks.at_work.remove(&op) {
                    self.clerks.machine.performed(op, work.answer);
                }
            }
            ClerkWake::Dead => {
                if self.clerks.at_work.remove(&op).is_some() {
                    self.clerks.machine.lost(op, now);
                }
            }
            ClerkWake::Looked => {
                let Some(path) = self.looks.remove(&op) else { return };
                let found = self.clerks.disk.get(&path);
                let found =
                    found.map(|bytes| Found { etag: ContentId::of(bytes), bytes: bytes.len() as u64 });
                self.clerks.machine.recovered(op, found.filter(|_| cx.random.chance(95)));
            }
        }
    }

    fn prepare(&mut self, op: OpId, cx: &mut Context) {
        let now = self.local(cx);
        let Some(work) = self.clerks.at_work.get_mut(&op) else { return };
        match plan(&self.clerks.disk, &work.ask.op) {
            Ok((plan, answer)) => {
                (work.plan, work.answer) = (plan, Ok(answer));
                if work.ask.op.is_read() {
                    self.clerk(op, ClerkWake::Done, cx);
                    return;
                }
                let intended = work.plan.first().filter(|_| is_write(&work.ask.op));
                let intended =
                    intended.and_then(|(_, bytes)| bytes.as_ref()).map(|bytes| ContentId::of(bytes));
                self.clerks.machine.prepared(op, intended, now);
            }
            Err(refusal) => {
                work.answer = Err(refusal);
                self.clerk(op, ClerkWake::Done, cx);
            }
        }
    }

    fn commit(&mut self, op: OpId, cx: &mut Context) {
        let Some(work) = self.clerks.at_work.get(&op) else { return };
        cx.note(Happened::FileCommitted { node: self.index, op, attempt: work.ask.attempt });
        let wait = io_ms(60, cx);
        self.clerk_after(wait, op, ClerkWake::Effect, cx);
    }

    fn take_effect(&mut self, op: OpId, cx: &mut Context) {
        let Some(work) = self.clerks.at_work.get_mut(&op) else { return };
        let first = !std::mem::replace(&mut work.began, true);
        // What was prepared on must be what is there.
        let expected = plan(&self.clerks.disk, &work.ask.op).map(|(plan, _)| plan);
        let clobbers = first && expected.as_ref() != Ok(&work.plan);
        if let Some((path, bytes)) = work.plan.pop() {
            let change =
                Change { path: path.clone(), etag: bytes.as_ref().map(|bytes| ContentId::of(bytes)) };
            let old = match bytes {
                Some(bytes) => self.clerks.disk.insert(path.clone(), bytes),
                None => self.clerks.disk.remove(&path),
            };
            work.before.push((path, old));
            let attempt = work.ask.attempt;
            cx.note(Happened::FileEffect { node: self.index, op, attempt, first, clobbers, change });
        }
        let goes_on = !work.plan.is_empty();
        let is_whole = matches!(work.ask.op, FileOp::Move { .. });
        let wait = if goes_on && is_whole { 0 } else { cx.random.between(1, 60) };
        if goes_on && is_whole {
            self.take_effect(op, cx);
            return;
        }
        self.clerk_after(wait, op, if goes_on { ClerkWake::Effect } else { ClerkWake::Done }, cx);
    }

    /// The clerks die with the node process; with the power goes what they had not synced, or not.
    pub(super) fn crash_clerks(&mut self, power: bool, cx: &mut Context) {
        self.looks.clear();
        for (op, work) in std::mem::take(&mut self.clerks.at_work) {
            if !power || work.before.is_empty() || cx.random.chance(50) {
                continue;
            }
            let mut changes = Vec::new();
            for (path, bytes) in work.before.into_iter().rev() {
                changes.push(Change {
                    path: path.clone(),
                    etag: bytes.as_ref().map(|bytes| ContentId::of(bytes)),
                });
                match bytes {
                    Some(bytes) => drop(self.clerks.disk.insert(path, bytes)),
                    None => drop(self.clerks.disk.remove(&path)),
                }
            }
            cx.note(Happened::FileUndone { node: self.index, op, changes });
        }
    }
}

/// How long a file system takes, milliseconds. It may hang, while there are faults.
fn io_ms(usual: u64, cx: &mut Context) -> u64 {
    let hangs = cx.random.chance(4) && cx.now < FAULTS_MS;
    if hangs { cx.random.between(2_000, 45_000) } else { cx.random.between(1, usual) }
}

const fn is_write(op: &FileOp) -> bool {
    matches!(op, FileOp::Write { .. })
}

/// The changes that an operation makes, in the order of their stack, and its answer.
fn plan(disk: &Disk, op: &FileOp) -> Result<(Changes, FileAnswer), Refusal> {
    let missing = |path: &str| Refusal::new(Code::NotFound, format!("`{path}` is not there."));
    let done = |removed: usize, made: u64| FileAnswer::Done {
        removed: removed as u64,
        made,
        notes: vec![],
        dry_run: false,
    };
    match op {
        FileOp::Read { path, .. } => {
            let data = disk.get(path.as_str()).ok_or_else(|| missing(path.as_str()))?.clone();
            let (size, etag) = (data.len() as u64, Some(ContentId::of(&data)));
            let encoding = Encoding::Binary;
            Ok((
                vec![],
                FileAnswer::Content { data, from: 0, size, etag, lines: None, encoding, complete: true },
            ))
        }
        FileOp::Write { path, content: Content::Inline(bytes), how, expect, .. } => {
            let there = disk.get(path.as_str()).map(|bytes| ContentId::of(bytes));
            if *how == WriteHow::Create && there.is_some() {
                return Err(Refusal::new(Code::Conflict, "It is there.").detail("kind", "exists"));
            }
            if let Expect::Etag(etag) = expect
                && there != Some(*etag)
            {
                return Err(Refusal::new(Code::EtagMismatch, "It is not what it was."));
            }
            let answer = FileAnswer::Written {
                etag: ContentId::of(bytes),
                bytes: bytes.len() as u64,
                created: there.is_none(),
                before: there,
                diff: None,
                notes: vec![],
                dry_run: false,
            };
            Ok((vec![(path.as_str().to_owned(), Some(bytes.clone()))], answer))
        }
        FileOp::Remove { path, .. } => {
            let is_below = |at: &&String| {
                at.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let gone: Vec<_> = disk.keys().filter(is_below).map(|at| (at.clone(), None)).collect();
            if gone.is_empty() {
                return Err(missing(path.as_str()));
            }
            let answer = done(gone.len(), 0);
            Ok((gone, answer))
        }
        FileOp::Move { from, to, .. } => {
            let bytes = disk.get(from.as_str()).ok_or_else(|| missing(from.as_str()))?.clone();
            let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
            Ok((vec![(from, None), (to, Some(bytes))], done(1, 1)))
        }
        FileOp::List { .. }
        | FileOp::Stat { .. }
        | FileOp::Find { .. }
        | FileOp::Grep { .. }
        | FileOp::Write { .. }
        | FileOp::Edit { .. }
        | FileOp::MakeDir { .. }
        | FileOp::Copy { .. } => Err(Refusal::new(Code::Internal, "Nobody asks for that here.")),
    }
}
