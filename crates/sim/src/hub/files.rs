//! Operations on files at the simulated hub: the driver that the hub's service is, over jobs of the
//! simulated store. The attempts of tasks that editors work for are numbers that the store keeps.

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::error::{Code, Refusal};
use cortex_core::event::{Event, EventKind};
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::ask::FileAsk;
use cortex_core::files::entity::{FileEnd, FileOutcome, FileTask, decide, unknown_outcome};
use cortex_core::hub_files::{Action, HubFiles};
use cortex_core::id::{Attempt, LinkId, NodeId, OpId, TaskId};
use cortex_core::policy::{FileQuestion, Site, judge_files};
use cortex_core::time::WallTime;
use cortex_store::{StoreError, Tx, WriteError};

use super::Hub;
use super::store::{Done, Job};
use crate::check::{Happened, Word};
use crate::faults::FAULTS_MS;
use crate::net::{Context, Wake};
use crate::node::ground;

/// Wait before the end of an operation is brought to the store again.
const AGAIN_MS: u64 = 700;
/// Answers that never come, percent.
const LOST_ANSWERS: u64 = 10;
/// Who works on files.
const CALLER: &str = "token:editor";

/// One transaction on files.
#[derive(Clone, Debug)]
pub(crate) enum FileJob {
    Accept { request: usize, node: usize, ask: Box<FileAsk>, key: Option<String> },
    Decide { node: usize, op: OpId, end: FileEnd },
    Fence { task: usize },
}

/// What a committed one gives back.
pub(in crate::hub) enum FileDone {
    Nothing,
    Accepted,
    /// There is an operation with this key.
    Known(Box<FileTask>),
    Denied(Refusal),
}

impl Hub {
    /// The tasks for which some of the work is done.
    pub(crate) fn file_task(number: usize) -> TaskId {
        TaskId::mint(7, &[u8::try_from(number).unwrap_or(0); 10])
    }

    /// Takes up what the store holds.
    pub(super) fn load_files(&mut self, cx: &mut Context) {
        let open = self.store.read_now(|view| view.open_file_ops()).unwrap_or_default();
        for task in open {
            if let Some(node) = self.place_of(task.node) {
                self.files[node].restore(task.id, task.attempt);
            }
        }
        for node in 0..self.files.len() {
            for (number, attempt) in self.attempts.iter().enumerate() {
                self.files[node].fence(Self::file_task(number), *attempt);
            }
            let here = self.store.read_now(|view| view.node(self.ids[node])).ok().flatten();
            if here.is_some_and(|node| node.quarantined) {
                self.abandon_files(node);
            }
        }
        self.carry_out_files(cx);
    }

    fn place_of(&self, id: NodeId) -> Option<usize> {
        self.ids.iter().position(|node| *node == id)
    }

    pub(super) fn abandon_files(&mut self, node: usize) {
        self.files[node].abandon("the node is shut out");
    }

    /// An editor asks for an operation.
    pub(crate) fn edit(
        &mut self,
        request: usize,
        node: usize,
        ask: FileAsk,
        key: Option<String>,
        cx: &mut Context,
    ) {
        if !self.up {
            return;
        }
        let here = self.registry.get(self.ids[node]).is_some();
        let offline = || Err(Refusal::new(Code::NodeOffline, "The node is not here."));
        // A repeat is looked up all the same.
        let refused = if here || key.is_some() { self.files[node].admit() } else { offline() };
        match refused {
            Ok(()) => {
                let job = FileJob::Accept { request, node, ask: Box::new(ask), key };
                self.enqueue(Job::File(job), cx);
            }
            Err(refusal) => self.answer_edit(request, Err(refusal), cx),
        }
    }

    /// An editor goes away from the newest operation that somebody waits for.
    pub(crate) fn cancel_edit(&mut self, node: usize) {
        let newest = self.edits.iter().rev().find(|(_, (at, _))| *at == node).map(|(op, _)| *op);
        if let Some(op) = newest {
            self.files[node].cancel(op, Refusal::new(Code::Locked, "A lock holds on the editor."));
        }
    }

    pub(super) fn file_answered(
        &mut self,
        node: usize,
        link: LinkId,
        op: OpId,
        answer: Result<FileAnswer, Refusal>,
    ) {
        self.files[node].answered(link, op, answer);
    }

    fn answer_edit(&self, request: usize, answer: Result<FileAnswer, Refusal>, cx: &mut Context) {
        let (wait, lost) = (cx.random.between(1, 60), cx.random.chance(LOST_ANSWERS));
        if !lost || cx.now >= FAULTS_MS {
            cx.after(wait, Wake::FileAnswer { request, answer });
        }
    }

    pub(super) fn carry_out_files(&mut self, cx: &mut Context) {
        for node in 0..self.files.len() {
            while let Some(action) = self.files[node].poll_action() {
                self.act_on_files(node, action, cx);
            }
        }
    }

    /// What a link that was superseded led to, if anything.
    pub(super) fn late_file_frame(&mut self, node: usize, superseded: bool, cx: &mut Context) {
        while let Some(action) = self.files[node].poll_action() {
            if superseded {
                cx.note(Happened::LateFrame { node });
            }
            self.act_on_files(node, action, cx);
        }
    }

    fn act_on_files(&mut self, node: usize, action: Action, cx: &mut Context) {
        match action {
            Action::Send(message) => {
                let Some(link) = self.files[node].link() else { return };
                let lane = message.lane();
                self.send(link, lane, message, cx);
            }
            Action::Answer(op, answer) => {
                if let Some((_, request)) = self.edits.remove(&op) {
                    cx.note(Happened::FileTold { op, word: Word::of(answer.as_ref().err()) });
                    self.answer_edit(request, answer, cx);
                } else {
                    cx.note(Happened::Broken(format!("nobody waits for {op}")));
                }
            }
            Action::Decide(op, end) => drop(self.enqueue(Job::File(FileJob::Decide { node, op, end }), cx)),
            Action::Closed(op) => {
                if self.edits.contains_key(&op) {
                    cx.note(Happened::Broken(format!("{op} was closed and its caller waits")));
                }
            }
        }
    }

    pub(super) fn decide_file_again(&mut self, node: usize, op: OpId, end: FileEnd, cx: &mut Context) {
        self.enqueue(Job::File(FileJob::Decide { node, op, end }), cx);
    }

    pub(super) fn files_committed(&mut self, late: bool, job: &FileJob, done: FileDone, cx: &mut Context) {
        match (job, done) {
            (FileJob::Accept { request, node, ask, .. }, FileDone::Accepted) => {
                cx.note(Happened::FileAccepted { node: *node, op: ask.id, reads: ask.op.is_read() });
                self.edits.insert(ask.id, (*node, *request));
                self.files[*node].submit(FileAsk::clone(ask), cx.timestamp());
            }
            (FileJob::Accept { request, .. }, FileDone::Known(task)) if !late => {
                let open = || Err(unknown_outcome(task.id, "it is under way"));
                let answer = task.end().cloned().map_or_else(open, |end| end.map(FileOutcome::answer));
                cx.note(Happened::FileTold { op: task.id, word: Word::of(answer.as_ref().err()) });
                self.answer_edit(*request, answer, cx);
            }
            (FileJob::Accept { request, .. }, FileDone::Denied(refusal)) if !late => {
                self.answer_edit(*request, Err(refusal), cx);
            }
            (FileJob::Decide { node, op, .. }, _) => self.files[*node].settled(*op),
            (FileJob::Fence { task }, _) => {
                let attempt = self.attempts[*task];
                self.files.iter_mut().for_each(|files| files.fence(Self::file_task(*task), attempt));
            }
            _ => {}
        }
    }

    pub(super) fn files_failed(
        &mut self,
        late: bool,
        job: &FileJob,
        refusal: Option<Refusal>,
        cx: &mut Context,
    ) {
        match job {
            FileJob::Accept { request, .. } if !late => {
                let unavailable = || Refusal::new(Code::StoreUnavailable, "The store does not answer.");
                self.answer_edit(*request, Err(refusal.unwrap_or_else(unavailable)), cx);
            }
            FileJob::Decide { node, op, end } => {
                let (life, node, op, end) = (self.life, *node, *op, end.clone());
                cx.after(AGAIN_MS, Wake::DecideFile { life, node, op, end });
            }
            FileJob::Accept { .. } | FileJob::Fence { .. } => {}
        }
    }

    /// Its time is over, and nobody waits for it: only the caller of one that is accepted did.
    pub(super) fn files_late(&self, job: &FileJob, cx: &mut Context) {
        if let FileJob::Accept { request, .. } = job {
            let refusal = Refusal::new(Code::StoreUnavailable, "The store does not answer.");
            self.answer_edit(*request, Err(refusal), cx);
        }
    }
}

/// What a job does within its transaction, and what is noted once that is committed.
pub(super) fn transact(
    tx: &mut dyn Tx,
    ids: &[NodeId],
    attempts: &[Attempt],
    job: &FileJob,
    wall: WallTime,
    notes: &mut Vec<Happened>,
) -> Result<Done, WriteError> {
    match job {
        FileJob::Accept { node, ask, key, .. } => {
            accept(tx, ids[*node], attempts, ask, key.as_deref(), wall).map(Done::File)
        }
        FileJob::Decide { op, end, .. } => {
            let Some(task) = tx.file_op(*op)? else {
                return Err(StoreError::Damaged(format!("operation {op} is gone")).into());
            };
            if let Ok((next, events)) = decide(&task, end.clone(), wall) {
                tx.put_file_op(&next)?;
                events.iter().try_for_each(|event| tx.append_event(event).map(drop))?;
                notes.push(Happened::FileEnded { op: *op, word: Word::of(end.as_ref().err()) });
            }
            Ok(Done::File(FileDone::Nothing))
        }
        FileJob::Fence { .. } => Ok(Done::File(FileDone::Nothing)),
    }
}

fn accept(
    tx: &mut dyn Tx,
    node: NodeId,
    attempts: &[Attempt],
    ask: &FileAsk,
    key: Option<&str>,
    now: WallTime,
) -> Result<FileDone, WriteError> {
    if let Some(key) = key
        && let Some(known) = tx.file_op_by_key(CALLER, node, key)?
    {
        known.check_repeat(&ask.op)?;
        return Ok(FileDone::Known(Box::new(known)));
    }
    if let Some((task, attempt)) = ask.attempt {
        let number = (0..attempts.len()).find(|number| Hub::file_task(*number) == task);
        if number.is_none_or(|number| attempts[number] != attempt) {
            return Err(Refusal::new(Code::StaleAttempt, "Another attempt has the task.").into());
        }
    }
    let policy = super::store::held(tx.policy(node)?, node);
    let site = Site { ground: ground(), ceilings: Vec::new() };
    let question = FileQuestion { op: &ask.op, node: "node", site: &site, reserved: &[], consent: false };
    let verdict = judge_files(&policy.document, &question);
    let outcome = if verdict.is_ok() { Outcome::Allowed } else { Outcome::Denied };
    let mut row = AuditRow::new(now, CALLER, ask.op.verb().action(), outcome);
    (row.node, row.policy_revision) = (Some(node), Some(policy.revision));
    tx.append_audit(&row)?;
    if let Err(refusal) = verdict {
        let denied = Event::new(EventKind::FileDenied, now).node(node).subject(ask.op.path().as_str());
        tx.append_event(&denied.detail(ask.op.verb().as_str()))?;
        return Ok(FileDone::Denied(refusal));
    }
    if !ask.op.is_read() {
        let task = FileTask::accepted(ask.id, node, &ask.op, CALLER.to_owned(), policy.revision, now);
        tx.put_file_op(&FileTask { key: key.map(str::to_owned), attempt: ask.attempt, ..task })?;
    }
    Ok(FileDone::Accepted)
}

/// The machines of a hub that has just begun.
pub(super) fn machines(ids: &[NodeId]) -> Vec<HubFiles> {
    ids.iter().map(|_| HubFiles::new()).collect()
}
