//! The work pool of the simulated hub: the drivers that `cortex_hub::service::pool` are, over jobs of the
//! simulated store. Never here: a decision about a task, a lane or a lease; those are core's.

mod desk;
mod peace;

use std::collections::{BTreeSet, VecDeque};

use cortex_core::error::{Code, Refusal};
use cortex_core::id::{Attempt, LaneId, NodeId, TaskId, TokenId};
use cortex_core::limits::KILL_GRACE_MS;
use cortex_core::lock::Locks;
use cortex_core::message::Start;
use cortex_core::name::Labels;
use cortex_core::pool::board::Board;
use cortex_core::pool::desk::{New, Report};
use cortex_core::pool::lane::{Lanes, unlocked};
use cortex_core::pool::order::Turns;
use cortex_core::pool::room::{LOOK_EVERY_MS, Room, in_turn, is_for, sleep_ms};
use cortex_core::pool::{Holder, Kind, Priority, Said, Task};
use cortex_core::run::Run;
use cortex_core::time::WallTime;

use super::Hub;
use super::store::Job;
use super::table::Told;
use crate::check::Happened;
use crate::faults::{FAULTS_MS, Transition};
use crate::net::{Context, Wake};
use crate::worker::WorkerWake;
pub(super) use desk::Desk;

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
    Progress { token: TokenId, task: TaskId, attempt: Attempt, said: Said },
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
            PoolJob::Report { .. } | PoolJob::Progress { .. } => {}
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
}

/// Something is committed, and what follows from it is not: a good moment for the hub to die.
fn die_soon(cx: &mut Context) {
    if cx.now < FAULTS_MS && cx.random.chance(15) {
        let (power, silent) = (cx.random.chance(50), cx.random.chance(50));
        let (wait, down_ms) = (cx.random.between(0, 5), cx.random.between(10, 5_000));
        cx.after(wait, Wake::Transition(Transition::HubCrash { power, silent, down_ms }));
    }
}
