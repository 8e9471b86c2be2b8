//! What the pool of the simulated hub does in its transactions, by the desk of core.

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::error::{Code, Refusal};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{NodeId, RunId, TaskId};
use cortex_core::lock::Locks;
use cortex_core::policy::{Policy, Question, Site, judge};
use cortex_core::pool::desk::{self, New, Report, Submitted, Take};
use cortex_core::pool::lane::{Lanes, unlocked};
use cortex_core::pool::order::Turns;
use cortex_core::pool::{Holder, Lost, Task, Work};
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_store::{PoolRead, Tx, WriteError};

use super::{Place, PoolDone, PoolJob, Steer};
use crate::check::Happened;
use crate::hub::store::{Done, LEAKED, held};
use crate::hub::table::{Noted, Told, Watch};
use crate::node::ground;
use crate::random::Random;

/// What a transaction of the pool needs beside the store.
pub(in crate::hub) struct Desk<'h> {
    pub(in crate::hub) ids: &'h [NodeId],
    pub(in crate::hub) places: &'h [Place],
    pub(in crate::hub) turns: &'h mut Turns,
    pub(in crate::hub) random: &'h mut Random,
    pub(in crate::hub) minted: &'h mut u64,
    pub(in crate::hub) told: &'h mut Told,
    pub(in crate::hub) wall: WallTime,
}

impl Desk<'_> {
    pub(in crate::hub) fn transact(&mut self, tx: &mut dyn Tx, job: &PoolJob) -> Result<Done, WriteError> {
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
            PoolJob::Progress { token, task, attempt, said } => {
                let holder = Holder::Worker { token: *token };
                let table = &mut Noted::over(tx, self.told);
                desk::progress(table, *task, *attempt, holder, said.clone(), wall)?;
                PoolDone::Nothing
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
