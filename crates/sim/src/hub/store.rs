//! The hub's way to its store: a queue of transactions that are answered late, never, or with a
//! refusal. What was queued at a crash may have been committed all the same.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::error::Code;
use cortex_core::event::{Event, EventKind};
use cortex_core::hub_runs::{Decision, Decisions};
use cortex_core::id::{Epoch, Generation, LinkId, LockId, NodeId, RunId, TokenId};
use cortex_core::limits;
use cortex_core::lock::{Lock, Locks, Target};
use cortex_core::message::{Start, ToNode};
use cortex_core::name::Name;
use cortex_core::node::Node;
use cortex_core::outbox::Lane;
use cortex_core::policy::{Policy, Question, Site, judge};
use cortex_core::pool::Holder;
use cortex_core::pool::attempt::{self, Owed};
use cortex_core::run::{Command, EndCause, Run, RunSpec, RunState, decide};
use cortex_core::stream::Positions;
use cortex_core::time::WallTime;
use cortex_store::memory::MemoryStore;
use cortex_store::{Read, RunFilter, StoreError, StoredPolicy, Tx, WriteError};

use super::Hub;
use super::files::{self, FileDone, FileJob};
use super::pool::{Desk, Place, PoolDone, PoolJob};
use super::table::{Noted, Told};
use crate::check::Happened;
use crate::faults::FAULTS_MS;
use crate::net::{Context, Wake};
use crate::node::ground;

/// Waits before a batch is tried again, as in `cortex_hub`.
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 5_000;

/// One transaction and what follows it.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Attach { link: LinkId, node: usize, slots: u32 },
    Quarantine { node: usize },
    Accept { node: usize, run: RunId, spec: RunSpec },
    Decide { node: usize, batch: Arc<[Decision]> },
    Cancel { node: usize },
    SetPolicy { node: usize },
    Lock { lift: bool },
    Pool(PoolJob),
    File(FileJob),
}

#[derive(Clone, Debug)]
pub(super) struct Queued {
    number: u64,
    job: Job,
    /// Its caller was told that there is no answer.
    late: bool,
    /// Its caller took it back before it began: nothing of it is done.
    taken_back: bool,
}

impl Queued {
    pub(super) const fn is_by_the_clock(&self) -> bool {
        matches!(self.job, Job::Pool(PoolJob::Expire { .. }))
    }
}

/// What of one node is brought to the store, as `cortex_hub` does it: one batch after the other,
/// each until it is stored.
#[derive(Debug, Default)]
pub(super) struct Deciding {
    waiting: Decisions,
    under_way: Option<Arc<[Decision]>>,
    retry_ms: u64,
}

impl Deciding {
    pub(super) const fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}

/// What a committed job gives back.
pub(super) enum Done {
    Nothing,
    Epoch(Option<Epoch>),
    Accepted(Box<Run>),
    Cancelled(Option<RunId>),
    Policy(Box<Policy>),
    Locked(Vec<Run>),
    Pool(PoolDone),
    File(FileDone),
}

/// The token that is locked now and then.
pub(crate) const LEAKED: TokenId = TokenId::new(uuid::Uuid::from_u128(1));

/// The token by which a run was asked for: every second one by the one that leaked.
pub(crate) fn token_of(run: RunId) -> TokenId {
    let odd = run.as_bytes().last().is_some_and(|byte| byte % 2 == 1);
    if odd { LEAKED } else { TokenId::new(uuid::Uuid::from_u128(2)) }
}

impl Hub {
    pub(super) fn start(&mut self, cx: &mut Context) {
        self.up = true;
        let wall = cx.wall();
        let event = Event::new(EventKind::HubStarted, wall);
        drop(self.store.write_now(|tx| Ok(tx.append_event(&event)?)));
        cx.note(Happened::HubStarted);
        self.load_pool(cx);
        let open = self.store.read_now(open_with_owed).unwrap_or_default();
        for (run, owed) in open {
            let Some(node) = self.ids.iter().position(|id| *id == run.node) else { continue };
            let kept = self.logs.get(&run.id).map_or_else(Positions::default, crate::log::Log::positions);
            let cancelled = run.cancelled_by.is_some() || owed == Owed::Cancel;
            self.owner.insert(run.id, node);
            self.runs[node].restore(Start::of(&run), run.started_at.is_some(), kept, cancelled);
            if owed == Owed::End {
                self.runs[node].give_up(run.id, "The attempt was over when the hub ended.");
            }
        }
        self.load_files(cx);
        // A hub that ended between a lock and its effect.
        self.cut_locked(cx);
        for runs in &mut self.runs {
            runs.await_node(cx.timestamp(), limits::RESTART_GRACE_MS);
        }
    }

    fn cut_locked(&mut self, cx: &mut Context) {
        let read = self.store.read_now(|view| Ok((view.locks()?, view.open_runs()?)));
        let (locks, open) = read.unwrap_or_default();
        let locks = Locks::new(locks);
        let wall = cx.wall();
        let held = |run: &Run| run.token.is_some_and(|token| locks.on_caller(token, None, wall).is_some());
        self.cut(open.into_iter().filter(held).collect(), cx);
    }

    fn cut(&mut self, runs: Vec<Run>, cx: &mut Context) {
        for run in runs {
            let Some(node) = self.owner.get(&run.id).copied() else { continue };
            cx.note(Happened::Cut { run: run.id });
            self.runs[node].cut(run.id);
            self.decide(node, Decision::Run(run.id, Command::Cancel { by: "lock:sim".to_owned() }), cx);
        }
    }

    /// Returns its number.
    pub(super) fn enqueue(&mut self, job: Job, cx: &mut Context) -> u64 {
        let (until, delay) = self.slow_store;
        let delay = if until > cx.now { delay } else { cx.random.between(0, 5) };
        let healed = FAULTS_MS.max(cx.now) + 5;
        let at = (cx.now + delay).max(self.last_done).min(healed.max(self.last_done));
        self.last_done = at;
        self.next_job += 1;
        let (life, number) = (self.life, self.next_job);
        self.jobs.push_back(Queued { number, job, late: false, taken_back: false });
        cx.at(at, Wake::StoreDone { life });
        if at > cx.now + limits::STORE_MS_MAX {
            cx.after(limits::STORE_MS_MAX, Wake::StoreLate { life, job: number });
        }
        number
    }

    /// Nobody waits any more, and the transaction may still be committed.
    pub(super) fn store_late(&mut self, number: u64, cx: &mut Context) {
        let Some(queued) = self.jobs.iter_mut().find(|queued| queued.number == number) else { return };
        queued.late = true;
        let job = queued.job.clone();
        if let Job::Decide { .. } = &job {
            // When the store has begun with it its outcome is waited for.
            queued.taken_back = cx.random.chance(50);
            if queued.taken_back {
                self.failed(&job, cx);
            }
        } else if let Job::Pool(job) = &job {
            self.pool_given_up(number, job, None, cx);
        } else if let Job::File(job) = &job {
            self.files_late(job, cx);
        }
    }

    /// Brings a decision to the store, behind those of its node that wait.
    pub(super) fn decide(&mut self, node: usize, decision: Decision, cx: &mut Context) {
        self.deciding[node].waiting.push(decision);
        self.start_deciding(node, cx);
    }

    pub(super) fn tell_presence(&mut self, node: usize, kind: EventKind, cx: &mut Context) {
        let event = Event::new(kind, cx.wall()).node(self.ids[node]);
        self.decide(node, Decision::Event(event), cx);
    }

    pub(super) fn decide_again(&mut self, node: usize, cx: &mut Context) {
        if let Some(batch) = self.deciding[node].under_way.clone() {
            self.enqueue(Job::Decide { node, batch }, cx);
        }
    }

    fn start_deciding(&mut self, node: usize, cx: &mut Context) {
        let deciding = &mut self.deciding[node];
        if deciding.is_under_way() || deciding.waiting.is_empty() {
            return;
        }
        let batch: Arc<[Decision]> = deciding.waiting.take().into();
        deciding.under_way = Some(Arc::clone(&batch));
        deciding.retry_ms = RETRY_MS_MIN;
        self.enqueue(Job::Decide { node, batch }, cx);
    }

    pub(super) fn store_done(&mut self, cx: &mut Context) {
        let Some(Queued { job, late, taken_back, number }) = self.jobs.pop_front() else { return };
        if taken_back {
            return;
        }
        let result = if self.refusing_until > cx.now {
            Err(WriteError::Store(StoreError::Failed("the disk is full".to_owned())))
        } else {
            self.transact(&job, cx)
        };
        // What was promised to go on after the commit goes on, whoever has stopped waiting: an
        // accepted run that nobody submits would stay queued for ever.
        if late && matches!(job, Job::Attach { .. } | Job::Quarantine { .. }) {
            return;
        }
        match (result, &job) {
            (Ok(Done::Pool(done)), Job::Pool(job)) => self.pool_committed((number, late), job, done, cx),
            (Ok(Done::File(done)), Job::File(job)) => self.files_committed(late, job, done, cx),
            (Ok(done), _) => self.committed(&job, done, cx),
            (Err(error), Job::File(job)) => {
                let refusal = match error {
                    WriteError::Refused(refusal) => Some(refusal),
                    WriteError::Store(_) => None,
                };
                self.files_failed(late, job, refusal, cx);
            }
            (Err(error), Job::Pool(job)) => {
                let code: Option<Code> = match error {
                    WriteError::Refused(refusal) => Some(refusal.code),
                    WriteError::Store(_) => None,
                };
                self.pool_failed((number, late), job, code, cx);
            }
            (Err(WriteError::Refused(_)), _) => {}
            (Err(WriteError::Store(_)), _) => {
                if let Job::Attach { link, .. } = job {
                    let life = self.life;
                    cx.after(0, Wake::AttachReady { life, link, epoch: None });
                }
                self.failed(&job, cx);
            }
        }
    }

    /// At a crash a part of what waited was committed, and nobody heard of it.
    pub(super) fn lose_jobs(&mut self, cx: &mut Context) {
        let kept = if self.jobs.is_empty() { 0 } else { cx.random.index(self.jobs.len() + 1) };
        for queued in std::mem::take(&mut self.jobs).into_iter().take(kept) {
            if self.refusing_until <= cx.now && !queued.taken_back {
                drop(self.transact(&queued.job, cx));
            }
        }
        self.last_done = cx.now;
    }

    fn transact(&mut self, job: &Job, cx: &mut Context) -> Result<Done, WriteError> {
        let (wall, chance) = (cx.wall(), cx.now.wrapping_mul(0x9E37_79B9));
        let mut told = Told::default();
        let mut notes = Vec::new();
        let (store, ids, places, attempts) = (&self.store, &self.ids, &self.places, &self.attempts);
        let mut desk = Desk {
            ids,
            places,
            turns: &mut self.pool.turns,
            random: &mut cx.random,
            minted: &mut self.minted,
            told: &mut told,
            wall,
        };
        let done = store.write_now(|tx| match job {
            Job::Attach { node, slots, .. } => attach(tx, ids[*node], *slots),
            Job::Quarantine { node } => quarantine(tx, ids[*node], wall),
            Job::Accept { node, run, spec } => accept(tx, ids[*node], *run, spec, wall),
            Job::Decide { batch, .. } => {
                for decision in batch.iter() {
                    apply_decision(tx, desk.told, decision, chance, wall)?;
                }
                Ok(Done::Nothing)
            }
            Job::Cancel { node } => cancel(tx, ids[*node], wall),
            Job::SetPolicy { node } => set_policy(tx, ids[*node], wall),
            Job::Lock { lift } => lock(tx, *lift, wall),
            Job::Pool(job) => desk.transact(tx, job),
            Job::File(job) => files::transact(tx, ids, attempts, job, wall, &mut notes),
        })?;
        notes.into_iter().for_each(|note| cx.note(note));
        if let Job::File(FileJob::Fence { task }) = job {
            self.attempts[*task] = self.attempts[*task].next();
        }
        self.tell(told, cx);
        if let Job::Decide { node, batch } = job {
            for run in batch.iter().filter_map(Decision::ends) {
                cx.note(Happened::Settled { node: *node, run });
            }
        }
        Ok(done)
    }

    fn committed(&mut self, job: &Job, done: Done, cx: &mut Context) {
        match (job, done) {
            (Job::Attach { link, .. }, Done::Epoch(epoch)) => {
                // Tasks are not woken in the order in which the store answered them.
                let (life, link) = (self.life, *link);
                let wait = if cx.random.chance(20) { cx.random.between(0, 3_000) } else { 0 };
                cx.after(wait, Wake::AttachReady { life, link, epoch });
            }
            (Job::Accept { node, .. }, Done::Accepted(run)) => {
                cx.note(Happened::Accepted { node: *node, run: run.id });
                self.owner.insert(run.id, *node);
                self.runs[*node].submit(Start::of(&run), cx.timestamp());
            }
            (Job::Cancel { node }, Done::Cancelled(Some(run))) => {
                self.runs[*node].cancel(run, limits::KILL_GRACE_MS);
            }
            (Job::Lock { .. }, Done::Locked(open)) => {
                self.cut(open, cx);
                // What was locked may be handed out.
                self.wake_nodes();
            }
            (Job::SetPolicy { node }, Done::Policy(policy)) => {
                cx.note(Happened::PolicySet { node: *node, revision: policy.revision.0 });
                if let Some(link) = self.runs[*node].link() {
                    self.send(link, Lane::Control, ToNode::Policy((*policy).into()), cx);
                }
            }
            (Job::Decide { node, batch }, Done::Nothing) => {
                for run in batch.iter().filter_map(Decision::ends) {
                    self.runs[*node].settled(run);
                }
                self.deciding[*node].under_way = None;
                self.start_deciding(*node, cx);
            }
            _ => {}
        }
    }

    /// Nothing of it is stored: what must be is tried again.
    fn failed(&mut self, job: &Job, cx: &mut Context) {
        if let Job::Decide { node, .. } = job {
            let (life, node) = (self.life, *node);
            let retry_ms = self.deciding[node].retry_ms;
            self.deciding[node].retry_ms = (2 * retry_ms).min(RETRY_MS_MAX);
            cx.after(retry_ms, Wake::DecideAgain { life, node });
        }
    }
}

fn open_with_owed(view: &dyn Read) -> Result<Vec<(Run, Owed)>, StoreError> {
    let with = |run: Run| {
        let task = run.task.map(|(id, _)| view.task(id)).transpose()?.flatten();
        let owed = attempt::owed(&run, task.as_ref());
        Ok((run, owed))
    };
    view.open_runs()?.into_iter().map(with).collect()
}

pub(super) fn enrol(store: &MemoryStore, ids: &[NodeId], places: &[Place], now: WallTime) {
    for (index, (id, place)) in ids.iter().zip(places).enumerate() {
        let done = store.write_now(|tx| {
            let joined = Node::joined(*id, Name::parse(&format!("node-{index}"))?, [0; 32], now);
            tx.put_node(&Node { labels: place.labels.clone(), ..joined })?;
            Ok(tx.append_event(&Event::new(EventKind::NodeJoined, now).node(*id))?)
        });
        debug_assert!(done.is_ok(), "an empty store takes nodes");
    }
}

/// The epoch of a new link, and how many tasks the node takes now.
fn attach(tx: &mut dyn Tx, id: NodeId, slots: u32) -> Result<Done, WriteError> {
    let epoch = tx.next_epoch(id)?;
    if let Some(mut node) = tx.node(id)? {
        node.facts.slots = slots;
        tx.put_node(&node)?;
    }
    Ok(Done::Epoch(epoch))
}

pub(super) fn welcome(store: &MemoryStore, id: NodeId) -> (Generation, Policy, bool) {
    let read = store.read_now(|view| {
        let policy = held(view.policy(id)?, id);
        Ok((view.generation()?, policy, view.node(id)?.is_some_and(|node| node.quarantined)))
    });
    read.unwrap_or_else(|_| (Generation(1), Policy::strict(id, WallTime(0)), false))
}

/// The bytes of a simulated policy are its profile's name: the store reads none of them.
fn stored(policy: &Policy) -> StoredPolicy {
    StoredPolicy {
        node: policy.node,
        revision: policy.revision,
        document: policy.profile.clone().into_bytes(),
        signature: Vec::new(),
        changed_by: "token:sim".to_owned(),
        changed_at: policy.changed_at,
    }
}

pub(super) fn held(stored: Option<StoredPolicy>, node: NodeId) -> Policy {
    let read = stored.and_then(|stored| {
        let profile = String::from_utf8(stored.document).ok()?;
        Policy::from_profile(node, &profile, stored.revision, stored.changed_at)
    });
    read.unwrap_or_else(|| Policy::strict(node, WallTime(0)))
}

fn accept(
    tx: &mut dyn Tx,
    node: NodeId,
    id: RunId,
    spec: &RunSpec,
    now: WallTime,
) -> Result<Done, WriteError> {
    let policy = held(tx.policy(node)?, node);
    let locks = Locks::new(tx.locks()?);
    let locked = locks.on_caller(token_of(id), None, now).map(Lock::refusal);
    let site = Site { ground: ground(), ceilings: Vec::new() };
    let question = Question { spec, node: "node", site: &site, now: Some(now), consent: false };
    let verdict = locked.map_or_else(|| judge(&policy.document, &question), Err);
    let outcome = if verdict.is_ok() { Outcome::Allowed } else { Outcome::Denied };
    let mut row = AuditRow::new(now, "token:sim", "run.start", outcome);
    (row.node, row.run, row.policy_revision) = (Some(node), Some(id), Some(policy.revision));
    tx.append_audit(&row)?;
    if verdict.is_err() {
        tx.append_event(&Event::new(EventKind::RunDenied, now).node(node).run(id))?;
        return Ok(Done::Nothing);
    }
    let run = Run::accepted(id, node, spec.clone(), "token:sim".to_owned(), policy.revision, now);
    let run = Run { token: Some(token_of(id)), ..run };
    tx.put_run(&run)?;
    tx.append_event(&Event::new(EventKind::RunAccepted, now).node(node).run(id))?;
    Ok(Done::Accepted(Box::new(run)))
}

/// A run that was final already stays as it is.
fn apply_decision(
    tx: &mut dyn Tx,
    told: &mut Told,
    decision: &Decision,
    chance: u64,
    now: WallTime,
) -> Result<(), WriteError> {
    let (id, command) = match decision {
        Decision::Event(event) => {
            tx.append_event(event)?;
            return Ok(());
        }
        Decision::Run(id, command) => (*id, command),
    };
    let Some(before) = tx.run(id)? else {
        return Err(StoreError::Damaged(format!("run {id} is gone")).into());
    };
    let of = before.task.map(|(task, number)| (task, number, Holder::Node { node: before.node, run: id }));
    // What is said a second time of an end that was taken is no news.
    let is_news = !before.state.is_final() || before.state == RunState::Lost;
    if let (Some((task, number, holder)), Some(ended), true) = (of, command.ended(), is_news) {
        let brings = !matches!(ended.cause, EndCause::Denied);
        told.report(task, number, holder, brings);
    }
    let Ok((after, events)) = decide(&before, command.clone(), now) else {
        if let Some(ended) = command.ended() {
            attempt::came_late(&mut Noted::over(tx, told), &before, ended, now)?;
        }
        return Ok(());
    };
    tx.put_run(&after)?;
    for event in &events {
        tx.append_event(event)?;
    }
    attempt::settle(&mut Noted::over(tx, told), &after, chance, now).map(drop)
}

fn apply(tx: &mut dyn Tx, id: RunId, command: Command, now: WallTime) -> Result<(), WriteError> {
    let Some(run) = tx.run(id)? else {
        return Err(StoreError::Damaged(format!("run {id} is gone")).into());
    };
    let (next, events) = decide(&run, command, now)?;
    tx.put_run(&next)?;
    for event in &events {
        tx.append_event(event)?;
    }
    Ok(())
}

fn cancel(tx: &mut dyn Tx, node: NodeId, now: WallTime) -> Result<Done, WriteError> {
    let states = vec![RunState::Queued, RunState::Running, RunState::Disconnected];
    let filter = RunFilter { node: Some(node), states, before: None };
    let newest = tx.runs(&filter, 1)?.first().map(|run| run.id);
    if let Some(run) = newest {
        apply(tx, run, Command::Cancel { by: "token:sim".to_owned() }, now)?;
    }
    Ok(Done::Cancelled(newest))
}

fn set_policy(tx: &mut dyn Tx, node: NodeId, now: WallTime) -> Result<Done, WriteError> {
    let held = held(tx.policy(node)?, node);
    let profile = if held.profile == "dev" { "strict" } else { "dev" };
    let policy = Policy::from_profile(node, profile, held.revision.next(), now).unwrap_or(held);
    tx.put_policy(&stored(&policy))?;
    tx.append_event(&Event::new(EventKind::PolicyChanged, now).node(node))?;
    Ok(Done::Policy(Box::new(policy)))
}

fn lock(tx: &mut dyn Tx, lift: bool, now: WallTime) -> Result<Done, WriteError> {
    let id = LockId::new(uuid::Uuid::from_u128(1));
    let lock = Lock {
        id,
        target: Target::Token(LEAKED),
        message: String::new(),
        created_by: "token:admin".to_owned(),
        created_at: now,
        expires_at: None,
        lifted_at: lift.then_some(now),
        lifted_by: None,
    };
    tx.put_lock(&lock)?;
    let kind = if lift { EventKind::LockRemoved } else { EventKind::LockCreated };
    tx.append_event(&Event::new(kind, now).subject("token:leaked"))?;
    let open = if lift { Vec::new() } else { tx.open_runs()? };
    Ok(Done::Locked(open.into_iter().filter(|run| run.token == Some(LEAKED)).collect()))
}

fn quarantine(tx: &mut dyn Tx, id: NodeId, now: WallTime) -> Result<Done, WriteError> {
    if let Some(mut node) = tx.node(id)? {
        node.quarantined = true;
        tx.put_node(&node)?;
        tx.append_event(&Event::new(EventKind::NodeQuarantined, now).node(id))?;
    }
    Ok(Done::Nothing)
}
