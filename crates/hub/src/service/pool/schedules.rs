//! Schedules: made, switched, removed, and their ticks. The task of a tick and the tick itself are one
//! transaction, so that neither a crash nor a second look makes two of one.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::ScheduleId;
use cortex_core::limits::SCHEDULES_MAX;
use cortex_core::name::{Name, printable};
use cortex_core::pool::desk::{self, New, Submitted};
use cortex_core::pool::figures::TickEnd;
use cortex_core::pool::schedule::{Missed, Schedule};
use cortex_core::pool::{Priority, TaskSpec, Work};
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use super::{Pool, may_have, owner_of, room};
use crate::board::Board;
use crate::clock::{new_schedule_id, new_task_id};
use crate::cron::Times;
use crate::service::{Caller, Context, anew};

/// Ticks of one transaction.
const BATCH: usize = 64;

/// A schedule to be made.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    /// Its name.
    pub name: Name,
    /// When.
    pub cron: String,
    /// In which time zone.
    pub zone: String,
    /// What becomes of ticks that nobody saw.
    pub missed: Missed,
    /// What each task is.
    pub spec: TaskSpec,
    /// How soon.
    pub priority: Priority,
}

impl Pool {
    /// Makes a schedule. Needs `tasks:submit`.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument`, `too_large`, `quota`, `conflict` for a name that is taken.
    pub async fn add_schedule(&self, caller: &Caller, new: NewSchedule) -> Result<Schedule, Refusal> {
        caller.anywhere(Right::TasksSubmit)?;
        may_have(caller, new.priority)?;
        let now = self.context.clock.wall();
        let next_at = Times::parse(&new.cron, &new.zone)?.next(now);
        if next_at.is_none() {
            let message = format!("`{}` is at no time that comes.", printable(&new.cron, 120));
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Look at the day of the month beside the month: 30 2 is no day."));
        }
        let schedule = Schedule {
            id: new_schedule_id(&self.context.clock),
            name: new.name,
            owner: owner_of(caller),
            caller: caller.actor(),
            cron: new.cron,
            zone: new.zone,
            missed: new.missed,
            spec: Arc::new(new.spec),
            priority: new.priority,
            is_on: true,
            next_at,
            last_at: None,
            created_at: now,
        };
        schedule.check()?;
        let (caller, put) = (caller.clone(), schedule.clone());
        let work = move |tx: &mut dyn Tx| {
            let caller = anew(tx, &caller, now)?;
            caller.anywhere(Right::TasksSubmit)?;
            if tx.schedules()?.len() >= SCHEDULES_MAX {
                let message = format!("The hub has {SCHEDULES_MAX} schedules, which is the most.");
                return Err(Refusal::new(Code::Quota, message)
                    .hint("Remove some with `cortex task schedule rm`.")
                    .into());
            }
            record(tx, &caller, "schedule.create", &put, "created", now)?;
            tx.put_schedule(&put)
        };
        let board = self.board.clone();
        self.context.commit(work, move |()| board.wake_timers()).await?;
        Ok(schedule)
    }

    /// Schedules that the caller sees, by name.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn schedules(&self, caller: &Caller) -> Result<Vec<Schedule>, Refusal> {
        let all = self.context.view(|view| view.schedules()).await?;
        Ok(all.into_iter().filter(|schedule| sees(caller, schedule)).collect())
    }

    /// Switches a schedule on or off, by its name or id. Ticks that passed while it was off are none.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn switch_schedule(
        &self,
        caller: &Caller,
        named: &str,
        is_on: bool,
    ) -> Result<Schedule, Refusal> {
        let what = if is_on { "switched on" } else { "switched off" };
        let now = self.context.clock.wall();
        self.change_schedule(caller, named, "schedule.switch", what, move |tx, schedule| {
            let next_at = Times::parse(&schedule.cron, &schedule.zone)?.next(now).filter(|_| is_on);
            let switched = Schedule { is_on, next_at, ..schedule.clone() };
            tx.put_schedule(&switched)?;
            Ok(switched)
        })
        .await
    }

    /// Removes a schedule, by its name or id. Its tasks stay.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn remove_schedule(&self, caller: &Caller, named: &str) -> Result<Schedule, Refusal> {
        self.change_schedule(caller, named, "schedule.remove", "removed", |tx, schedule| {
            tx.remove_schedule(schedule.id)?;
            Ok(schedule)
        })
        .await
    }

    async fn change_schedule(
        &self,
        caller: &Caller,
        named: &str,
        action: &'static str,
        what: &'static str,
        change: impl FnOnce(&mut dyn Tx, Schedule) -> Result<Schedule, WriteError> + Send + 'static,
    ) -> Result<Schedule, Refusal> {
        let (now, caller, named) = (self.context.clock.wall(), caller.clone(), named.to_owned());
        let work = move |tx: &mut dyn Tx| {
            let caller = anew(tx, &caller, now)?;
            let schedule = found(tx, &caller, &named)?;
            let is_own = schedule.owner.party() == owner_of(&caller).party();
            if is_own {
                caller.anywhere(Right::TasksSubmit)?;
            } else if !caller.everywhere(Right::TasksControl) {
                let message = format!("`{}` may look at this schedule and not change it.", caller.actor());
                return Err(Refusal::new(Code::Forbidden, message).into());
            }
            record(tx, &caller, action, &schedule, what, now)?;
            change(tx, schedule)
        };
        let board = self.board.clone();
        self.context.commit(work, move |_| board.wake_timers()).await
    }

    /// Makes the tasks of the ticks that have come. Returns how many schedules ticked.
    pub(super) async fn tick_due(&self) -> Result<usize, Refusal> {
        let now = self.context.clock.wall();
        let due = self.context.view(move |view| view.schedules_due(now, BATCH)).await?;
        let count = due.len();
        if count > 0 {
            let context = self.context.clone();
            let ids: Vec<ScheduleId> = due.iter().map(|schedule| schedule.id).collect();
            let work = move |tx: &mut dyn Tx| {
                ids.iter().try_for_each(|id| tick(tx, &context, &context.board, *id, now))
            };
            self.context.commit(work, |()| ()).await?;
        }
        Ok(count)
    }
}

/// One tick, with its task, in one transaction.
fn tick(
    tx: &mut dyn Tx,
    context: &Context,
    board: &Board,
    id: ScheduleId,
    now: WallTime,
) -> Result<(), WriteError> {
    let Some(schedule) = tx.schedule(id)? else { return Ok(()) };
    // A zone that a newer time zone database does not have any more: it does not tick until it is made anew.
    let times = Times::parse(&schedule.cron, &schedule.zone).ok();
    let Some(tick) = schedule.tick(now, times.and_then(|times| times.next(now))) else { return Ok(()) };
    tx.put_schedule(&tick.schedule)?;
    let Some(key) = tick.key else { return count(tx, board, TickEnd::Missed) };
    if let Err(refusal) = room(tx, board, schedule.owner)?.check() {
        tracing::warn!(schedule = %schedule.name, code = %refusal.code, "a tick made no task: {refusal}");
        return count(tx, board, TickEnd::Refused);
    }
    let argv = match &schedule.spec.work {
        Work::Command(run) => run.argv.clone(),
        Work::Payload { .. } => Vec::new(),
    };
    let new = New {
        id: new_task_id(&context.clock),
        spec: Arc::clone(&schedule.spec),
        priority: schedule.priority,
        owner: schedule.owner,
        caller: schedule.caller.clone(),
        key: Some(key),
        traceparent: None,
        schedule: Some(id),
        due_at: None,
    };
    let row = AuditRow {
        argv,
        token: schedule.owner.token,
        detail: Some(format!("task {} of schedule {}", new.id, schedule.name)),
        ..AuditRow::new(now, schedule.caller, "task.submit", Outcome::Allowed)
    };
    if let Submitted::New(_) = desk::submit(&mut board.over(tx), new, now)? {
        tx.append_audit(&row)?;
        count(tx, board, TickEnd::Made)?;
    }
    Ok(())
}

fn count(tx: &mut dyn Tx, board: &Board, end: TickEnd) -> Result<(), WriteError> {
    let board = board.clone();
    tx.after_commit(Box::new(move || board.ticked(end)));
    Ok(())
}

fn sees(caller: &Caller, schedule: &Schedule) -> bool {
    schedule.owner.party() == owner_of(caller).party() || caller.everywhere(Right::TasksRead)
}

/// By id, or by the name of one's own; of others by name when it is the only one.
fn found(tx: &dyn Tx, caller: &Caller, named: &str) -> Result<Schedule, WriteError> {
    let seen: Vec<Schedule> = tx.schedules()?.into_iter().filter(|schedule| sees(caller, schedule)).collect();
    let is_named = |schedule: &&Schedule| {
        schedule.id.to_string() == named || schedule.name.as_str() == named.to_ascii_lowercase()
    };
    let own = owner_of(caller).party();
    let mut found: Vec<&Schedule> = seen.iter().filter(is_named).collect();
    found.sort_by_key(|schedule| schedule.owner.party() != own);
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [first, ..] if first.owner.party() == own => Ok((*first).clone()),
        [] => {
            let message = format!("There is no schedule `{}`.", printable(named, 80));
            Err(Refusal::new(Code::NotFound, message)
                .hint("List the schedules with `cortex task schedule ls`.")
                .into())
        }
        _ => {
            let message = format!("Several people have a schedule `{}`.", printable(named, 80));
            Err(Refusal::new(Code::Conflict, message).hint("Name it by its id.").into())
        }
    }
}

fn record(
    tx: &mut dyn Tx,
    caller: &Caller,
    action: &str,
    schedule: &Schedule,
    what: &str,
    now: WallTime,
) -> Result<(), WriteError> {
    let argv = match &schedule.spec.work {
        Work::Command(run) => run.argv.clone(),
        Work::Payload { .. } => Vec::new(),
    };
    tx.append_audit(&AuditRow {
        argv,
        token: Some(caller.token.id),
        detail: Some(format!("schedule {} ({}), {}", schedule.name, schedule.id, schedule.cron)),
        ..AuditRow::new(now, caller.actor(), action, Outcome::Allowed)
    })?;
    let event = Event::new(EventKind::ScheduleChanged, now).subject(schedule.name.as_str()).detail(what);
    tx.append_event(&event.actor(caller.actor()))?;
    Ok(())
}
