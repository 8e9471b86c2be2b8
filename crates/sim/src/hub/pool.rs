//! The work pool of the simulated hub: the drivers that `cortex_hub::service::pool` are, over jobs of the
//! simulated store. Never here: a decision about a task, a lane or a lease; those are core's.

use std::collections::{BTreeSet, VecDeque};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::error::{Code, Refusal};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{Attempt, LaneId, NodeId, RunId, TaskId, TokenId};
use cortex_core::limits::KILL_GRACE_MS;
use cortex_core::lock::Locks;
use cortex_core::message::Start;
use cortex_core::name::Labels;
use cortex_core::policy::{Policy, Question, Site, judge};
use cortex_core::pool::board::Board;
use cortex_core::pool::desk::{self, New, Report, Submitted, Take};
use cortex_core::pool::explain::{Facts, NodeFacts, Reason, explain};
use cortex_core::pool::lane::{Lanes, unlocked};
use cortex_core::pool::order::Turns;
use cortex_core::pool::room::{LOOK_EVERY_MS, Room, in_turn, is_for, sleep_ms};
use cortex_core::pool::{Holder, Kind, Lost, Priority, Task, TaskState, Work};
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_store::{PoolRead, Read, TaskFilter, Tx, WriteError};

use super::Hub;
use super::store::{Done, Job, LEAKED, held};
use super::table::{Noted, Told, Watch};
use crate::check::Happened;
use crate::faults::{FAULTS_MS, Transition};
use crate::net::{Context, Wake};
use crate::node::ground;
use crate::random::Random;
use crate::worker::WorkerWake;

/// Wait of a worker of the hub that failed, and of timers that the store failed, as in `cortex_hub`.
const AGAIN_MS: u64 = 1_000;
/// Tasks of one transaction, as in `cortex_hub`.
const BATCH: usize = 256;
/// Answers that never come, percent.
const LOST_ANSWERS: u64 = 12;

/// A node as the pool knows it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) labels: Labels,
    pub(crate) slots: u32,
}

/// What people do with a task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Steer {
    Cancel,
    Retry,
    Bump(Priority),
}

/// One transaction of the pool.
#[derive(Clone, Debug)]
pub(crate) enum PoolJob {
    Submit { request: usize, new: New },
    Steer { request: usize, task: TaskId, how: Steer },
    Claim { node: usize, lanes: Lanes, limit: usize, now: WallTime },
    Ask { worker: usize, token: TokenId, lanes: Lanes, max: usize, now: WallTime },
    Report { worker: usize, token: TokenId, task: TaskId, attempt: Attempt, report: Report },
    EndLease { task: TaskId, attempt: Attempt },
    Wake { tasks: Vec<TaskId>, now: WallTime },
    Expire { tasks: Vec<TaskId>, now: WallTime },
}

/// What a committed job of the pool gives back.
pub(super) enum PoolDone {
    Nothing,
    Task(Box<Task>),
    Runs(Vec<Run>),
    Tasks(Vec<Task>),
    Reported,
    Ended(Option<Holder>),
}

/// What a client of the pool is told.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Task(TaskId),
    Refused(Code),
    Unavailable,
}

/// The hub's memory of the pool.
#[derive(Default)]
pub(super) struct Pool {
    pub(super) board: Board,
    pub(super) turns: Turns,
    round: Round,
    timing: BTreeSet<u64>,
    timing_failed: bool,
    timer_at: Option<u64>,
    wake_nodes: bool,
    wake_timers: bool,
}

/// One look for nodes with room, and its claims, one after the other.
#[derive(Default)]
struct Round {
    ready: Lanes,
    waiting: VecDeque<(usize, usize)>,
    given: usize,
    claim: Option<u64>,
    /// It failed, and is begun anew after a while.
    rests: bool,
}

impl Hub {
    /// Takes up what the store holds.
    pub(super) fn load_pool(&mut self, cx: &mut Context) {
        let read = self.store.read_now(|view| Ok((view.lanes()?, view.leased_tasks()?)));
        let (lanes, leased) = read.unwrap_or_default();
        self.pool.board.load(lanes, &leased, cx.timestamp());
        (self.pool.wake_nodes, self.pool.wake_timers) = (true, true);
        self.look_again(cx);
    }

    /// Serves nodes that nobody has woken.
    pub(super) fn look_again(&mut self, cx: &mut Context) {
        self.pool.wake_nodes = true;
        let life = self.life;
        cx.after(LOOK_EVERY_MS, Wake::LookAgain { life });
    }

    pub(super) fn node_heard(&mut self, node: usize, cx: &mut Context) {
        cx.note(Happened::Heard { node });
        self.pool.board.heard(self.ids[node], cx.timestamp());
    }

    pub(super) const fn wake_nodes(&mut self) {
        self.pool.wake_nodes = true;
    }

    /// Tells the board what a transaction did that is committed.
    pub(super) fn tell(&mut self, told: Told, cx: &mut Context) {
        told.notes.into_iter().for_each(|note| cx.note(note));
        self.pool.board.found_empty(told.empty.into_inner());
        for (lane, task) in told.puts {
            let woken = self.pool.board.put(lane, &task, cx.timestamp());
            self.pool.wake_nodes |= woken.nodes;
            self.pool.wake_timers |= woken.timers;
        }
    }

    /// Serves whoever was woken.
    pub(super) fn serve_pool(&mut self, cx: &mut Context) {
        if std::mem::take(&mut self.pool.wake_timers) {
            self.serve_timers(cx);
        }
        if self.pool.wake_nodes && self.pool.round.claim.is_none() && !self.pool.round.rests {
            self.pool.wake_nodes = false;
            self.begin_round(cx);
        }
    }

    pub(super) fn serve_again(&mut self, cx: &mut Context) {
        self.pool.round.rests = false;
        self.pool.wake_nodes = true;
        self.serve_pool(cx);
    }

    fn begin_round(&mut self, cx: &mut Context) {
        self.expect_known_lanes(cx);
        let mut ready = self.pool.board.ready();
        ready.retain(|(_, key)| key.kind.is_command());
        if ready.is_empty() {
            return;
        }
        let turns = in_turn(self.rooms()).into_iter().map(|room| (room.node, room.free)).collect::<Vec<_>>();
        let place = |id: NodeId| self.ids.iter().position(|node| *node == id);
        let waiting = turns.into_iter().filter_map(|(id, free)| Some((place(id)?, free))).collect();
        self.pool.round = Round { ready, waiting, ..Round::default() };
        self.next_claim(cx);
    }

    fn next_claim(&mut self, cx: &mut Context) {
        while let Some((node, free)) = self.pool.round.waiting.pop_front() {
            let lanes = self.lanes_for(node, free, cx.wall());
            if lanes.is_empty() || self.runs[node].admit().is_err() {
                continue;
            }
            self.pool.board.promise(self.ids[node], free);
            let claim = PoolJob::Claim { node, lanes, limit: free, now: cx.wall() };
            self.pool.round.claim = Some(self.enqueue(Job::Pool(claim), cx));
            return;
        }
        if self.pool.round.given > 0 {
            self.begin_round(cx);
        }
    }

    /// What a node may have at this moment: of owners that no lock holds on, as the hub knows them.
    fn lanes_for(&self, node: usize, free: usize, now: WallTime) -> Lanes {
        let here = Room { node: self.ids[node], labels: &self.places[node].labels, free };
        let rooms = self.rooms();
        let ready = self.pool.round.ready.iter().filter(|(_, key)| is_for(key, here, rooms.iter().copied()));
        unlocked(&ready.cloned().collect::<Lanes>(), &self.locks(), now)
    }

    fn rooms(&self) -> Vec<Room<'_>> {
        let quarantined = |id: NodeId| {
            self.store.read_now(|view| view.node(id)).ok().flatten().is_none_or(|node| node.quarantined)
        };
        let here = self.ids.iter().zip(&self.places);
        let here = here.filter(|(id, _)| self.registry.get(**id).is_some() && !quarantined(**id));
        here.map(|(id, place)| {
            let free = (place.slots as usize).saturating_sub(self.pool.board.busy(*id));
            Room { node: *id, labels: &place.labels, free }
        })
        .collect()
    }

    fn locks(&self) -> Locks {
        Locks::new(self.store.read_now(|view| view.locks()).unwrap_or_default())
    }

    /// Every task that stands does so in a lane that the board knows of.
    fn expect_known_lanes(&self, cx: &mut Context) {
        let known: BTreeSet<LaneId> = self.pool.board.ready().into_iter().map(|(id, _)| id).collect();
        let standing = self.store.read_now(|view| {
            let lanes: Vec<LaneId> = view.lanes()?.into_iter().map(|(id, _)| id).collect();
            view.heads(&lanes)
        });
        for head in standing.unwrap_or_default().iter().filter(|head| !known.contains(&head.lane)) {
            cx.note(Happened::Misordered { task: head.task, why: "its lane is not known" });
        }
    }

    /// Does what is due by the clock, unless that is under way.
    pub(super) fn serve_timers(&mut self, cx: &mut Context) {
        if !self.pool.timing.is_empty() {
            self.pool.wake_timers = true;
            return;
        }
        self.pool.timer_at = None;
        let (now, wall) = (cx.timestamp(), cx.wall());
        let leases = self.pool.board.leases_mut();
        let ended: Vec<_> = std::iter::from_fn(|| leases.poll_ended(now)).collect();
        for (task, attempt) in &ended {
            cx.note(Happened::Over { task: *task, attempt: *attempt });
        }
        let mut jobs: Vec<PoolJob> =
            ended.into_iter().map(|(task, attempt)| PoolJob::EndLease { task, attempt }).collect();
        let read =
            self.store.read_now(|view| Ok((view.tasks_due(wall, BATCH)?, view.tasks_expiring(wall, BATCH)?)));
        let (due, expiring) = read.unwrap_or_default();
        jobs.extend((!due.is_empty()).then_some(PoolJob::Wake { tasks: due, now: wall }));
        jobs.extend((!expiring.is_empty()).then_some(PoolJob::Expire { tasks: expiring, now: wall }));
        for job in jobs {
            let number = self.enqueue(Job::Pool(job), cx);
            self.pool.timing.insert(number);
        }
        self.sleep(cx);
    }

    fn sleep(&mut self, cx: &mut Context) {
        if !self.pool.timing.is_empty() {
            return;
        }
        let read = self.store.read_now(|view| Ok((view.next_due()?, view.next_expiry()?)));
        let (due, expiry) = read.unwrap_or_default();
        let lease = self.pool.board.leases().poll_timeout().map(|(at, _)| at);
        let failed = std::mem::take(&mut self.pool.timing_failed);
        let wait = sleep_ms(due.into_iter().chain(expiry), cx.wall(), lease, cx.timestamp());
        let at = cx.now + if failed { AGAIN_MS } else { wait };
        if self.pool.timer_at.is_none_or(|armed| at < armed) {
            self.pool.timer_at = Some(at);
            let life = self.life;
            cx.at(at, Wake::PoolTimer { life });
        }
    }

    fn timing_done(&mut self, number: u64, failed: bool, cx: &mut Context) {
        if self.pool.timing.remove(&number) {
            self.pool.timing_failed |= failed;
            self.sleep(cx);
        }
    }

    pub(super) fn pool_committed(
        &mut self,
        (number, late): (u64, bool),
        job: &PoolJob,
        done: PoolDone,
        cx: &mut Context,
    ) {
        match (job, done) {
            (PoolJob::Submit { request, .. } | PoolJob::Steer { request, .. }, PoolDone::Task(task)) => {
                if let (PoolJob::Steer { how: Steer::Cancel, .. }, Some(Holder::Node { node, run })) =
                    (job, task.lease.map(|lease| lease.holder))
                    && let Some(node) = self.ids.iter().position(|id| *id == node)
                {
                    self.runs[node].cancel(run, KILL_GRACE_MS);
                    die_soon(cx);
                }
                if !late {
                    self.answer(*request, Answer::Task(task.id), cx);
                }
            }
            (PoolJob::Claim { node, limit, .. }, PoolDone::Runs(runs)) => {
                self.pool.board.fulfilled(self.ids[*node], *limit);
                let given = runs.len();
                for run in runs {
                    cx.note(Happened::Accepted { node: *node, run: run.id });
                    self.owner.insert(run.id, *node);
                    self.runs[*node].submit(Start::of(&run), cx.timestamp());
                }
                if self.pool.round.claim == Some(number) {
                    self.pool.round.claim = None;
                    self.pool.round.given += given;
                    self.next_claim(cx);
                } else {
                    self.pool.wake_nodes = true;
                }
            }
            (PoolJob::Ask { worker, .. }, PoolDone::Tasks(tasks)) if !late => {
                let given = tasks.iter().map(|task| (task.id, task.attempt)).collect();
                self.answer_worker(*worker, WorkerWake::Given(given), cx);
            }
            (PoolJob::Report { worker, task, attempt, .. }, PoolDone::Reported) if !late => {
                let (task, attempt) = (*task, *attempt);
                self.answer_worker(*worker, WorkerWake::Heard { task, attempt }, cx);
            }
            (PoolJob::EndLease { .. }, PoolDone::Ended(holder)) => {
                if let Some(Holder::Node { node, run }) = holder
                    && let Some(node) = self.ids.iter().position(|id| *id == node)
                {
                    self.runs[node].give_up(run, "The lease of its task ended.");
                    die_soon(cx);
                }
                self.timing_done(number, false, cx);
            }
            (PoolJob::Wake { .. } | PoolJob::Expire { .. }, _) => self.timing_done(number, false, cx),
            _ => {}
        }
    }

    /// Nothing of it is stored, and whoever waits is told.
    pub(super) fn pool_failed(
        &mut self,
        (number, late): (u64, bool),
        job: &PoolJob,
        code: Option<Code>,
        cx: &mut Context,
    ) {
        if let PoolJob::Claim { node, limit, .. } = job {
            self.pool.board.fulfilled(self.ids[*node], *limit);
        }
        if !late {
            self.pool_given_up(number, job, code, cx);
        }
    }

    /// Who waited for it waits no more: it failed, or its time is over.
    pub(super) fn pool_given_up(&mut self, number: u64, job: &PoolJob, code: Option<Code>, cx: &mut Context) {
        match job {
            PoolJob::Submit { request, .. } | PoolJob::Steer { request, .. } => {
                self.answer(*request, code.map_or(Answer::Unavailable, Answer::Refused), cx);
            }
            PoolJob::Claim { lanes, .. } => {
                self.pool.board.not_claimed(lanes.clone());
                if self.pool.round.claim == Some(number) {
                    self.pool.round.claim = None;
                    self.pool.round.rests = true;
                    let life = self.life;
                    cx.after(AGAIN_MS, Wake::ServeNodes { life });
                }
            }
            PoolJob::Ask { worker, lanes, .. } => {
                self.pool.board.not_claimed(lanes.clone());
                self.answer_worker(*worker, WorkerWake::Given(Vec::new()), cx);
            }
            PoolJob::Report { .. } => {}
            PoolJob::EndLease { .. } | PoolJob::Wake { .. } | PoolJob::Expire { .. } => {
                self.timing_done(number, true, cx);
            }
        }
    }

    fn answer(&self, request: usize, answer: Answer, cx: &mut Context) {
        let (wait, lost) = (cx.random.between(1, 60), cx.random.chance(LOST_ANSWERS));
        if !lost || cx.now >= FAULTS_MS {
            cx.after(wait, Wake::Answer { request, answer });
        }
    }

    fn answer_worker(&self, worker: usize, wake: WorkerWake, cx: &mut Context) {
        let (wait, lost) = (cx.random.between(1, 60), cx.random.chance(LOST_ANSWERS));
        if !lost || cx.now >= FAULTS_MS {
            cx.after(wait, Wake::Worker { worker, wake });
        }
    }

    /// A worker asks for payloads of these kinds.
    pub(crate) fn ask(
        &mut self,
        (worker, token): (usize, TokenId),
        kinds: &[Kind],
        max: usize,
        cx: &mut Context,
    ) {
        let now = cx.wall();
        let mut lanes = self.pool.board.ready();
        lanes.retain(|(_, key)| kinds.contains(&key.kind));
        let lanes = unlocked(&lanes, &self.locks(), now);
        if !lanes.is_empty() {
            self.enqueue(Job::Pool(PoolJob::Ask { worker, token, lanes, max, now }), cx);
        }
    }

    /// A worker says that it is at it. Nothing is stored.
    pub(crate) fn extend(
        &mut self,
        token: TokenId,
        task: TaskId,
        attempt: Attempt,
        cx: &mut Context,
    ) -> Result<(), Refusal> {
        let (holder, now) = (Holder::Worker { token }, cx.timestamp());
        self.pool.board.leases_mut().extend(task, attempt, holder, None, now)?;
        cx.note(Happened::Extended { task, attempt });
        Ok(())
    }

    /// Sentences about what has not come to rest, when all had time to: a task may wait only for what
    /// `explain` names, and that is not somebody who is busy.
    pub(crate) fn restless_tasks(&self, kinds: &[Kind], now: WallTime) -> Vec<String> {
        let mut restless = Vec::new();
        if self.pool.board.entries() > 0 {
            restless.push(format!(
                "I8: the pool still has {} leases and slots in use",
                self.pool.board.entries()
            ));
        }
        let locks = self.locks();
        let read = self.store.read_now(|view| {
            let all = view.tasks(&TaskFilter::default(), usize::MAX)?;
            let open = all.into_iter().filter(|task| !task.state.is_final());
            open.map(|task| Ok((self.facts(view, &task, (kinds, &locks), now)?, task)))
                .collect::<Result<Vec<_>, _>>()
        });
        for (facts, task) in read.unwrap_or_default() {
            let reasons = explain(&task, &facts);
            // A time that has come is named beside another reason.
            if !reasons.iter().any(|reason| is_good(reason, now)) {
                let state = task.state.as_str();
                let lane = task.lane();
                restless.push(format!("I8: task {} is still {state}: {reasons:?} in {lane:?}", task.id));
            }
        }
        restless
    }

    fn facts(
        &self,
        view: &dyn Read,
        task: &Task,
        (kinds, locks): (&[Kind], &Locks),
        now: WallTime,
    ) -> Result<Facts, cortex_store::StoreError> {
        let is_shut_out = |id: NodeId| Ok(view.node(id)?.is_none_or(|node| node.quarantined));
        let shut_out: Vec<bool> =
            self.ids.iter().map(|id| is_shut_out(*id)).collect::<Result<_, cortex_store::StoreError>>()?;
        let node = |(index, place): (usize, &Place)| NodeFacts {
            name: format!("node-{index}"),
            labels: place.labels.clone(),
            is_online: self.registry.get(self.ids[index]).is_some() && !shut_out[index],
            owner_may: true,
            slots: place.slots,
            busy: u32::try_from(self.pool.board.busy(self.ids[index])).unwrap_or(u32::MAX),
            paused_by: None,
            denied_by: task.excluded.contains(&self.ids[index]).then(|| "policy".to_owned()),
        };
        let dependency = |id: &TaskId| Ok(view.task(*id)?.map(|task| (*id, task.state)));
        let dependencies: Vec<_> =
            task.spec.after.iter().map(dependency).collect::<Result<Vec<_>, cortex_store::StoreError>>()?;
        let not_done = dependencies.into_iter().flatten().filter(|(_, state)| *state != TaskState::Done);
        let stopped = task.owner.token.filter(|token| locks.on_caller(*token, None, now).is_some());
        Ok(Facts {
            nodes: self.places.iter().enumerate().map(node).collect(),
            dependencies: not_done.collect(),
            working: task.spec.concurrency.as_ref().map_or(Ok(0), |key| view.working(&key.key))?,
            owner_stopped: stopped.map(|_| "locked".to_owned()),
            workers: u32::from(kinds.contains(&task.spec.work.kind())),
            ..Facts::default()
        })
    }
}

/// Something is committed, and what follows from it is not: a good moment for the hub to die.
fn die_soon(cx: &mut Context) {
    if cx.now < FAULTS_MS && cx.random.chance(15) {
        let (power, silent) = (cx.random.chance(50), cx.random.chance(50));
        let (wait, down_ms) = (cx.random.between(0, 5), cx.random.between(10, 5_000));
        cx.after(wait, Wake::Transition(Transition::HubCrash { power, silent, down_ms }));
    }
}

/// Whether a task may still wait for that after everything had its time.
fn is_good(reason: &Reason, now: WallTime) -> bool {
    match reason {
        Reason::ScheduledFor(at) | Reason::AfterFailure { at, .. } => *at > now,
        Reason::Dependency(_, state) => *state != TaskState::Done,
        Reason::OwnerStopped(_)
        | Reason::NoNodeWith { .. }
        | Reason::Offline(_)
        | Reason::Denied(_)
        | Reason::NoSlots(_)
        | Reason::NoWorker(_) => true,
        Reason::NotWaiting(_)
        | Reason::KeyFull { .. }
        | Reason::Paused(_)
        | Reason::OwnerMayNot(_)
        | Reason::NodePaused(_)
        | Reason::Busy(_)
        | Reason::Next => false,
    }
}

/// What a transaction of the pool needs beside the store.
pub(super) struct Desk<'h> {
    pub(super) ids: &'h [NodeId],
    pub(super) places: &'h [Place],
    pub(super) turns: &'h mut Turns,
    pub(super) random: &'h mut Random,
    pub(super) minted: &'h mut u64,
    pub(super) told: &'h mut Told,
    pub(super) wall: WallTime,
}

impl Desk<'_> {
    pub(super) fn transact(&mut self, tx: &mut dyn Tx, job: &PoolJob) -> Result<Done, WriteError> {
        let wall = self.wall;
        let done = match job {
            PoolJob::Submit { new, .. } => self.submit(tx, new)?,
            PoolJob::Steer { task, how, .. } => {
                tx.append_audit(&AuditRow::new(wall, "token:sim", "task.steer", Outcome::Allowed))?;
                if let Steer::Retry = how {
                    self.told.notes.push(Happened::Retried { task: *task });
                }
                let (table, by) = (&mut Noted::over(tx, self.told), "token:sim".to_owned());
                let task = match how {
                    Steer::Cancel => desk::cancel(table, *task, by, wall)?,
                    Steer::Retry => desk::retry(table, *task, by, wall)?,
                    Steer::Bump(priority) => desk::bump(table, *task, by, *priority, wall)?,
                };
                PoolDone::Task(Box::new(task))
            }
            PoolJob::Claim { node, lanes, limit, now } => self.claim(tx, *node, lanes, *limit, *now)?,
            PoolJob::Ask { token, lanes, max, now, .. } => {
                let mut take = |_: &Task| Take::By(Holder::Worker { token: *token });
                PoolDone::Tasks(self.hand_out(tx, lanes, *max, *now, &mut take)?)
            }
            PoolJob::Report { token, task, attempt, report, .. } => {
                let holder = Holder::Worker { token: *token };
                self.told.report(*task, *attempt, holder, !matches!(report, Report::GivenBack));
                let table = &mut Noted::over(tx, self.told);
                // Taken or refused: what it brought is kept, and it is no more asked.
                let _taken: Result<Task, Refusal> =
                    desk::report(table, *task, *attempt, holder, report.clone(), wall)?;
                PoolDone::Reported
            }
            PoolJob::EndLease { task, attempt } => {
                let holder = PoolRead::task(tx, *task)?.and_then(|task| task.lease).map(|lease| lease.holder);
                let table = &mut Noted::over(tx, self.told);
                let lost = desk::lose(table, *task, *attempt, Lost::Expired, wall)?;
                PoolDone::Ended(lost.and(holder))
            }
            PoolJob::Wake { tasks, now } => {
                let table = &mut Noted::over(tx, self.told);
                tasks.iter().try_for_each(|id| desk::wake(table, *id, *now).map(drop))?;
                PoolDone::Nothing
            }
            PoolJob::Expire { tasks, now } => {
                for id in tasks {
                    let Some(task) = PoolRead::task(tx, *id)? else { continue };
                    let suits = |(id, place): (&NodeId, &Place)| task.lane().suits(*id, &place.labels);
                    let could =
                        !task.spec.work.kind().is_command() || self.ids.iter().zip(self.places).any(suits);
                    desk::expire(&mut Noted::over(tx, self.told), *id, !could, *now)?;
                }
                PoolDone::Nothing
            }
        };
        Ok(Done::Pool(done))
    }

    fn submit(&mut self, tx: &mut dyn Tx, new: &New) -> Result<PoolDone, WriteError> {
        *self.minted += 1;
        let id = TaskId::mint(1_800_000_000_000 + *self.minted, &self.random.bytes());
        let new = New { id, ..new.clone() };
        let submitted = desk::submit(&mut Noted::over(tx, self.told), new, self.wall)?;
        let task = match submitted {
            Submitted::New(task) => {
                tx.append_audit(&AuditRow::new(self.wall, "token:sim", "task.submit", Outcome::Allowed))?;
                task
            }
            Submitted::Known(task) => task,
        };
        Ok(PoolDone::Task(Box::new(task)))
    }

    /// Hands out, looked at by one who knows the order otherwise.
    fn hand_out(
        &mut self,
        tx: &mut dyn Tx,
        lanes: &Lanes,
        limit: usize,
        now: WallTime,
        take: &mut dyn FnMut(&Task) -> Take,
    ) -> Result<Vec<Task>, WriteError> {
        let lanes = unlocked(lanes, &Locks::new(tx.locks()?), now);
        let watch = Some(Watch::over(&lanes, self.turns, now));
        let mut table = Noted { watch, ..Noted::over(tx, self.told) };
        let tasks = desk::claim(&mut table, &lanes, self.turns, limit, now, take)?;
        if tasks.len() < limit {
            table.left()?;
        }
        Ok(tasks)
    }

    fn claim(
        &mut self,
        tx: &mut dyn Tx,
        node: usize,
        lanes: &Lanes,
        limit: usize,
        now: WallTime,
    ) -> Result<PoolDone, WriteError> {
        let (id, wall) = (self.ids[node], self.wall);
        if tx.node(id)?.is_none_or(|node| node.quarantined) {
            return Ok(PoolDone::Runs(Vec::new()));
        }
        let policy = held(tx.policy(id)?, id);
        let (mut random, minted) = (self.random.clone(), *self.minted);
        let mut runs: Vec<Run> = Vec::new();
        let mut take = |task: &Task| {
            let number = 1_800_000_000_000 + minted;
            let mut bytes = random.bytes();
            // By its last bit one sees the token by which a run was asked for.
            bytes[9] = bytes[9] & !1 | u8::from(task.owner.token == Some(LEAKED));
            match attempt(task, RunId::mint(number, &bytes), &policy, now) {
                Ok(run) => {
                    let holder = Holder::Node { node: id, run: run.id };
                    runs.push(run);
                    Take::By(holder)
                }
                Err(refusal) => Take::Exclude { node: id, why: refusal.code.as_str().to_owned() },
            }
        };
        let tasks = self.hand_out(tx, lanes, limit, now, &mut take)?;
        (*self.random, *self.minted) = (random, minted + 1);
        for run in &runs {
            let mut row = AuditRow::new(wall, "token:sim", "run.start", Outcome::Allowed);
            (row.node, row.run, row.policy_revision) = (Some(id), Some(run.id), Some(policy.revision));
            tx.append_audit(&row)?;
            tx.put_run(run)?;
            tx.append_event(&Event::new(EventKind::RunAccepted, wall).node(id).run(run.id))?;
        }
        self.expect_room(tx, node, tasks.first())?;
        Ok(PoolDone::Runs(runs))
    }

    /// A node never has more tasks than slots.
    fn expect_room(&mut self, tx: &dyn Tx, node: usize, task: Option<&Task>) -> Result<(), WriteError> {
        let of_node = |task: &Task| task.lease.and_then(|lease| lease.holder.node()) == Some(self.ids[node]);
        let busy = tx.leased_tasks()?.iter().filter(|task| of_node(task)).count();
        if let Some(task) = task.filter(|_| busy > self.places[node].slots as usize) {
            self.told.notes.push(Happened::Misordered { task: task.id, why: "its node had no room" });
        }
        Ok(())
    }
}

/// The next attempt of a task as a run, when the policy lets it start.
fn attempt(task: &Task, id: RunId, policy: &Policy, now: WallTime) -> Result<Run, Refusal> {
    let Work::Command(spec) = &task.spec.work else {
        return Err(Refusal::new(Code::Internal, "A payload is nothing that a node runs."));
    };
    let site = Site { ground: ground(), ceilings: Vec::new() };
    let question = Question { spec, node: "node", site: &site, now: Some(now), consent: false };
    judge(&policy.document, &question)?;
    let run = Run::accepted(id, policy.node, spec.clone(), task.caller.clone(), policy.revision, now);
    Ok(Run {
        token: task.owner.token,
        user: task.owner.user,
        task: Some((task.id, task.attempt.next())),
        ..run
    })
}
