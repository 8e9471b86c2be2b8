//! Schedules: each makes a task at each of its ticks. When a tick is, the hub reads from its cron text;
//! whether it makes a task is decided here. A tick's task has a key of its own, so that no tick makes
//! two, whoever looks at it and however often.

use std::sync::Arc;

use super::{Owner, Priority, TaskSpec};
use crate::error::{Code, Refusal};
use crate::id::ScheduleId;
use crate::limits::{CRON_BYTES_MAX, TICK_LATE_MS};
use crate::name::Name;
use crate::time::WallTime;

/// What becomes of ticks that nobody saw: the hub was down, or its clock jumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// One task for all of them.
    #[default]
    Once,
    /// None.
    Skip,
}

impl Missed {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Skip => "skip",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "once" => Some(Self::Once),
            "skip" => Some(Self::Skip),
            _ => None,
        }
    }
}

/// One schedule as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its id.
    pub id: ScheduleId,
    /// Its name, unique among those of its party.
    pub name: Name,
    /// Whose the tasks are.
    pub owner: Owner,
    /// Who made it.
    pub caller: String,
    /// When: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// In which time zone, by its IANA name.
    pub zone: String,
    /// What becomes of ticks that nobody saw.
    pub missed: Missed,
    /// What each task is.
    pub spec: Arc<TaskSpec>,
    /// How soon.
    pub priority: Priority,
    /// It makes tasks.
    pub is_on: bool,
    /// The next tick; `None` when there is none, or it is off.
    pub next_at: Option<WallTime>,
    /// The last tick that made a task.
    pub last_at: Option<WallTime>,
    /// When it was made.
    pub created_at: WallTime,
}

/// A tick whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The schedule after it.
    pub schedule: Schedule,
    /// The key of the task that it makes; `None` when it makes none.
    pub key: Option<String>,
}

impl Schedule {
    /// Checks what is not checked where it is read.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.cron.len() > CRON_BYTES_MAX || self.zone.len() > CRON_BYTES_MAX {
            let message =
                format!("The times of a schedule and its zone have at most {CRON_BYTES_MAX} bytes.");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        if !self.spec.after.is_empty() {
            let message =
                "The tasks of a schedule cannot wait for others: those would be the same each time.";
            return Err(Refusal::new(Code::InvalidArgument, message).hint("Leave `after` out."));
        }
        self.spec.check()
    }

    /// The tick whose time has come. `after_now` is the first one after this moment.
    pub fn tick(&self, now: WallTime, after_now: Option<WallTime>) -> Option<Tick> {
        let at = self.next_at.filter(|at| self.is_on && *at <= now)?;
        let is_late = now.0.saturating_sub(at.0) > TICK_LATE_MS as i64;
        let makes = !is_late || self.missed == Missed::Once;
        let schedule =
            Self { next_at: after_now, last_at: if makes { Some(at) } else { self.last_at }, ..self.clone() };
        let key = makes.then(|| format!("schedule:{}:{}", self.id, at.0));
        Some(Tick { schedule, key })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Work;
    use super::*;
    use crate::id::UserId;
    use crate::run::RunSpec;

    fn schedule(missed: Missed) -> Schedule {
        let run = RunSpec { argv: vec!["backup".into()], ..RunSpec::default() };
        Schedule {
            id: ScheduleId::mint(1, &[1; 10]),
            name: Name::parse("nightly").expect("a name"),
            owner: Owner { token: None, user: Some(UserId::mint(1, &[2; 10])) },
            caller: "user:ada".into(),
            cron: "0 3 * * *".into(),
            zone: "Europe/Berlin".into(),
            missed,
            spec: Arc::new(TaskSpec::new(Work::Command(run))),
            priority: Priority::DEFAULT,
            is_on: true,
            next_at: Some(WallTime(1_000)),
            last_at: None,
            created_at: WallTime(0),
        }
    }

    #[test]
    fn a_tick_makes_one_task_by_its_own_key_and_moves_on() {
        let before = schedule(Missed::Once);
        assert_eq!(before.tick(WallTime(999), Some(WallTime(2_000))), None);
        let tick = before.tick(WallTime(1_000), Some(WallTime(2_000))).expect("its time has come");
        assert_eq!(tick.key, Some(format!("schedule:{}:1000", before.id)));
        assert_eq!(
            (tick.schedule.next_at, tick.schedule.last_at),
            (Some(WallTime(2_000)), Some(WallTime(1_000)))
        );
        assert_eq!(tick.schedule.tick(WallTime(1_001), Some(WallTime(2_000))), None);
        let off = Schedule { is_on: false, ..before };
        assert_eq!(off.tick(WallTime(1_000), None), None);
    }

    #[test]
    fn ticks_that_nobody_saw_make_one_task_or_none_as_the_schedule_says() {
        let late = WallTime(1_000 + TICK_LATE_MS as i64 + 1);
        for (missed, makes) in [(Missed::Once, true), (Missed::Skip, false)] {
            let tick = schedule(missed).tick(late, Some(WallTime(i64::MAX))).expect("its time has come");
            assert_eq!(tick.key.is_some(), makes, "{missed:?}");
            assert_eq!(tick.schedule.next_at, Some(WallTime(i64::MAX)), "{missed:?}");
            assert_eq!(Missed::parse(missed.as_str()), Some(missed));
            let in_time = schedule(missed).tick(WallTime(late.0 - 1), None).expect("its time has come");
            assert!(in_time.key.is_some(), "{missed:?}");
        }
    }

    #[test]
    fn tasks_of_a_schedule_wait_for_no_others() {
        let mut with_after = schedule(Missed::Once);
        with_after.check().expect("plain");
        let spec =
            TaskSpec { after: vec![crate::id::TaskId::mint(1, &[1; 10])], ..(*with_after.spec).clone() };
        with_after.spec = Arc::new(spec);
        assert_eq!(with_after.check().expect_err("it waits").code, Code::InvalidArgument);
        let long = Schedule { cron: "1".repeat(CRON_BYTES_MAX + 1), ..schedule(Missed::Once) };
        assert_eq!(long.check().expect_err("too long").code, Code::TooLarge);
    }
}
