//! A task while it is decided on: its new state, and what is told of each change.

use super::super::{Holder, Lease, Priority, Progress, Said, Step, StepKind, Task, TaskResult, TaskState};
use super::{Command, Decided, Lost, stale};
use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::id::{Attempt, NodeId};
use crate::limits::{EXCLUDED_NODES_MAX, PROGRESS_EVENT_MS, STEPS_MAX};
use crate::time::WallTime;

/// A task that is being decided on.
pub(super) struct Draft {
    task: Task,
    steps: Vec<Step>,
    events: Vec<Event>,
    now: WallTime,
}

/// Who and where a step was.
#[derive(Default)]
struct By<'a> {
    holder: Option<Holder>,
    actor: Option<&'a str>,
    detail: Option<String>,
}

impl Draft {
    pub(super) const fn new(task: Task, now: WallTime) -> Self {
        Self { task, steps: Vec::new(), events: Vec::new(), now }
    }

    pub(super) fn decided(self) -> Decided {
        Decided { task: self.task, steps: self.steps, events: self.events }
    }

    /// The first moment of a task.
    pub(super) fn submit(&mut self) {
        let actor = self.task.caller.clone();
        let by = By { actor: Some(&actor), ..By::default() };
        self.tell(StepKind::Submitted, Some(EventKind::TaskSubmitted), by);
        self.wait_or_make_ready();
    }

    pub(super) fn apply(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::Wake { dependency } => self.wake(dependency),
            Command::Park(parked) => self.park(parked),
            Command::Claim(holder) => self.claim(holder),
            Command::Progress { attempt, said } => self.progress(attempt, said),
            Command::Finish { attempt, result } => self.finish(attempt, result),
            Command::Fail { attempt, result, is_final, chance } => {
                self.fail(attempt, result, is_final, chance)
            }
            Command::Lose { attempt, how } => self.lose(attempt, how),
            Command::Exclude { node, why } => self.exclude(node, why),
            Command::Cancel { by } => self.cancel(&by),
            Command::Cancelled { attempt, result } => self.cancelled(attempt, result),
            Command::Expire => self.expire(),
            Command::Postpone => self.postpone(),
            Command::Retry { by, waits_for } => self.retry(&by, waits_for),
            Command::Bump { by, priority } => self.bump(&by, priority),
        }
    }

    fn wake(&mut self, dependency: bool) -> Result<(), Refusal> {
        self.must_be(TaskState::Scheduled)?;
        if dependency {
            self.task.waits_for = self.task.waits_for.saturating_sub(1);
        }
        if self.may_be_ready() {
            self.make_ready();
        }
        Ok(())
    }

    fn may_be_ready(&self) -> bool {
        self.task.waits_for == 0 && self.task.due_at.is_none_or(|due| due <= self.now)
    }

    fn wait_or_make_ready(&mut self) {
        if self.may_be_ready() {
            self.make_ready();
        } else {
            self.task.state = TaskState::Scheduled;
            self.tell(StepKind::Scheduled, None, By::default());
        }
    }

    fn park(&mut self, parked: bool) -> Result<(), Refusal> {
        self.must_be(TaskState::Ready)?;
        self.task.parked = parked;
        Ok(())
    }

    fn claim(&mut self, holder: Holder) -> Result<(), Refusal> {
        self.must_be(TaskState::Ready)?;
        let task = &mut self.task;
        task.state = TaskState::Leased;
        task.parked = false;
        task.attempt = task.attempt.next();
        task.lease = Some(Lease { holder, ms: task.spec.lease_ms, since: self.now });
        task.progress = None;
        // Of a node the run tells later who had this attempt; of a worker nothing else does.
        let worker = holder.worker().map(|token| token.to_string());
        let by = By { holder: Some(holder), actor: worker.as_deref(), ..By::default() };
        self.tell(StepKind::Leased, Some(EventKind::TaskLeased), by);
        Ok(())
    }

    /// It is no step: a timeline has room for what a task went through, and not for a meter.
    fn progress(&mut self, attempt: Attempt, said: Said) -> Result<(), Refusal> {
        let holder = self.must_hold(attempt)?;
        let now = self.now;
        let told_at = self.task.progress.as_ref().map(|progress| progress.told_at);
        // A clock that went back is no reason to be silent.
        let is_quiet = told_at.is_some_and(|at| now >= at && now < at.plus_ms(PROGRESS_EVENT_MS));
        if !is_quiet {
            let total = said.total.map(|total| format!("/{total}")).unwrap_or_default();
            let mut event = Event::new(EventKind::TaskProgress, now).subject(self.task.id.to_string());
            (event.node, event.run) = (holder.node(), holder.run());
            // The note is the work's own words, which are no matter of the event log.
            event.detail = Some(format!("{}{total}", said.done));
            self.events.push(event);
        }
        let told_at = told_at.filter(|_| is_quiet).unwrap_or(now);
        self.task.progress = Some(Progress { said, at: now, told_at });
        Ok(())
    }

    fn finish(&mut self, attempt: Attempt, result: TaskResult) -> Result<(), Refusal> {
        let holder = self.must_hold(attempt)?;
        self.task.result = Some(result);
        self.end(TaskState::Done, By { holder: Some(holder), ..By::default() });
        Ok(())
    }

    fn fail(
        &mut self,
        attempt: Attempt,
        result: TaskResult,
        is_final: bool,
        chance: u64,
    ) -> Result<(), Refusal> {
        let holder = self.must_hold(attempt)?;
        let by = By { holder: Some(holder), detail: result.message.clone(), ..By::default() };
        self.task.result = Some(result);
        self.task.tries += 1;
        self.tell(StepKind::Failed, Some(EventKind::TaskFailed), by);
        if is_final {
            self.end(TaskState::Dead, By::default());
        } else {
            let wait_ms = self.task.spec.backoff.wait_ms(self.task.tries, chance);
            self.again(wait_ms);
        }
        Ok(())
    }

    fn lose(&mut self, attempt: Attempt, how: Lost) -> Result<(), Refusal> {
        let holder = self.must_hold(attempt)?;
        let by = By { holder: Some(holder), detail: Some(how.as_str().to_owned()), ..By::default() };
        self.tell(StepKind::Released, Some(EventKind::TaskReleased), by);
        if how.counts() {
            self.task.tries += 1;
        }
        self.again(0);
        Ok(())
    }

    fn exclude(&mut self, node: NodeId, why: String) -> Result<(), Refusal> {
        if self.task.state != TaskState::Leased {
            self.must_be(TaskState::Ready)?;
        }
        let holder = self.task.lease.map(|lease| lease.holder);
        self.task.excluded.insert(node);
        let mut step = self.step(StepKind::Excluded, By { holder, detail: Some(why), ..By::default() });
        step.node = Some(node);
        self.push(step);
        if self.task.excluded.len() > EXCLUDED_NODES_MAX {
            self.end(TaskState::Dead, By { detail: Some("denied".to_owned()), ..By::default() });
        } else if self.task.state == TaskState::Leased {
            self.again(0);
        }
        Ok(())
    }

    fn cancel(&mut self, by: &str) -> Result<(), Refusal> {
        let told = By { actor: Some(by), ..By::default() };
        match self.task.state {
            TaskState::Scheduled | TaskState::Ready => {
                self.task.cancelled_by = Some(by.to_owned());
                self.end(TaskState::Cancelled, told);
            }
            TaskState::Leased => {
                if self.task.cancelled_by.is_none() {
                    self.task.cancelled_by = Some(by.to_owned());
                    self.tell(StepKind::CancelRequested, Some(EventKind::TaskCancelRequested), told);
                }
            }
            TaskState::Cancelled => {}
            TaskState::Done | TaskState::Dead | TaskState::Expired => return Err(self.ended()),
        }
        Ok(())
    }

    fn cancelled(&mut self, attempt: Attempt, result: TaskResult) -> Result<(), Refusal> {
        let holder = self.must_hold(attempt)?;
        self.task.result = Some(result);
        self.end(TaskState::Cancelled, By { holder: Some(holder), ..By::default() });
        Ok(())
    }

    fn expire(&mut self) -> Result<(), Refusal> {
        self.must_be(TaskState::Ready)?;
        self.end(TaskState::Expired, By::default());
        Ok(())
    }

    fn postpone(&mut self) -> Result<(), Refusal> {
        self.must_be(TaskState::Ready)?;
        let Some(ms) = self.task.spec.start_within_ms else { return Ok(()) };
        self.task.expires_at = Some(self.now.plus_ms(ms));
        self.tell(StepKind::Postponed, None, By::default());
        Ok(())
    }

    fn retry(&mut self, by: &str, waits_for: u32) -> Result<(), Refusal> {
        if self.task.state == TaskState::Ready && !self.task.excluded.is_empty() {
            return self.forget_denials(by);
        }
        if !self.task.state.is_final() {
            let message = format!("Task {} has not ended: it is {}.", self.task.id, self.task.state.as_str());
            return Err(Refusal::new(Code::Conflict, message)
                .hint("Wait for its end, or cancel it first with `cortex task cancel`."));
        }
        if self.task.state == TaskState::Done {
            let message = format!("Task {} is done; it is not done twice.", self.task.id);
            return Err(Refusal::new(Code::Conflict, message)
                .hint("Submit it again with `cortex task add` to have it done once more."));
        }
        let task = &mut self.task;
        (task.tries, task.cancelled_by, task.ended_at) = (0, None, None);
        task.waits_for = waits_for;
        task.excluded.clear();
        task.due_at = None;
        task.ready_at = None;
        self.tell(StepKind::Retried, None, By { actor: Some(by), ..By::default() });
        self.wait_or_make_ready();
        Ok(())
    }

    /// It waits, and nodes that denied it may be asked again: somebody has changed their policies.
    fn forget_denials(&mut self, by: &str) -> Result<(), Refusal> {
        self.task.excluded.clear();
        // It comes into another lane, where nothing may stand for its key yet.
        self.task.parked = false;
        self.tell(StepKind::Retried, None, By { actor: Some(by), ..By::default() });
        Ok(())
    }

    fn bump(&mut self, by: &str, priority: Priority) -> Result<(), Refusal> {
        if self.task.state.is_final() {
            return Err(self.ended());
        }
        if self.task.priority == priority {
            return Ok(());
        }
        let detail = Some(format!("{} to {priority}", self.task.priority));
        self.task.priority = priority;
        // It comes into another lane, where nothing may stand for its key yet.
        self.task.parked = false;
        self.tell(
            StepKind::Bumped,
            Some(EventKind::TaskBumped),
            By { actor: Some(by), detail, ..By::default() },
        );
        Ok(())
    }

    /// After an attempt that came to nothing: another one, or the end.
    fn again(&mut self, wait_ms: u64) {
        self.task.lease = None;
        if self.task.cancelled_by.is_some() {
            self.end(TaskState::Cancelled, By::default());
        } else if self.task.tries >= self.task.spec.attempts_max {
            self.end(TaskState::Dead, By::default());
        } else if wait_ms > 0 {
            self.task.state = TaskState::Scheduled;
            self.task.due_at = Some(self.now.plus_ms(wait_ms));
            self.tell(StepKind::Scheduled, None, By::default());
        } else {
            self.make_ready();
        }
    }

    /// It waits for a claim. Its age counts from the first time.
    fn make_ready(&mut self) {
        let task = &mut self.task;
        task.state = TaskState::Ready;
        task.parked = false;
        task.lease = None;
        let first = task.ready_at.is_none();
        task.ready_at.get_or_insert(self.now);
        // A task that has started once is not bound by its time to start any more.
        let starts_within = task.spec.start_within_ms.filter(|_| first && !task.has_started());
        task.expires_at = match (starts_within, task.has_started()) {
            (Some(ms), _) => Some(self.now.plus_ms(ms)),
            (None, true) => None,
            (None, false) => task.expires_at,
        };
        self.tell(StepKind::Ready, Some(EventKind::TaskReady), By::default());
    }

    fn end(&mut self, state: TaskState, by: By<'_>) {
        let (kind, event) = match state {
            TaskState::Done => (StepKind::Done, EventKind::TaskDone),
            TaskState::Cancelled => (StepKind::Cancelled, EventKind::TaskCancelled),
            TaskState::Expired => (StepKind::Expired, EventKind::TaskExpired),
            TaskState::Dead | TaskState::Scheduled | TaskState::Ready | TaskState::Leased => {
                (StepKind::Dead, EventKind::TaskDead)
            }
        };
        self.task.state = state;
        self.task.lease = None;
        self.task.parked = false;
        self.task.ended_at = Some(self.now);
        self.tell(kind, Some(event), by);
    }

    fn tell(&mut self, kind: StepKind, event: Option<EventKind>, by: By<'_>) {
        if let Some(event) = event {
            let mut event = Event::new(event, self.now).subject(self.task.id.to_string());
            event.node = by.holder.and_then(|holder| holder.node());
            event.run = by.holder.and_then(|holder| holder.run());
            event.actor = by.actor.filter(|_| kind != StepKind::Leased).map(str::to_owned);
            // What failed may have been said by the work itself, which is no matter of the event log.
            let attempt = (self.task.attempt > Attempt(0)).then(|| self.task.attempt.to_string());
            event.detail = if kind == StepKind::Released { by.detail.clone() } else { attempt };
            self.events.push(event);
        }
        let step = self.step(kind, by);
        self.push(step);
    }

    fn step(&self, kind: StepKind, by: By<'_>) -> Step {
        Step {
            at: self.now,
            kind,
            attempt: self.task.attempt,
            node: by.holder.and_then(|holder| holder.node()),
            run: by.holder.and_then(|holder| holder.run()),
            actor: by.actor.map(str::to_owned),
            detail: by.detail,
        }
    }

    fn push(&mut self, step: Step) {
        if self.task.steps < STEPS_MAX {
            self.task.steps += 1;
            self.steps.push(step);
        }
    }

    fn must_be(&self, state: TaskState) -> Result<(), Refusal> {
        if self.task.state == state {
            return Ok(());
        }
        let (id, is) = (self.task.id, self.task.state.as_str());
        Err(Refusal::new(Code::Conflict, format!("Task {id} is {is} and not {}.", state.as_str())))
    }

    fn must_hold(&self, attempt: Attempt) -> Result<Holder, Refusal> {
        match self.task.lease {
            Some(lease) if self.task.attempt == attempt => Ok(lease.holder),
            Some(_) | None => Err(stale(&self.task, attempt)),
        }
    }

    fn ended(&self) -> Refusal {
        let message = format!("Task {} has ended: it is {}.", self.task.id, self.task.state.as_str());
        Refusal::new(Code::Conflict, message).hint("Read its result with `cortex task get`.")
    }
}
