//! What has happened in the pool since the hub began, as numbers: a machine that is told of each
//! committed change. Never here: how things stand, which the store and the board know.

use std::collections::BTreeMap;

use super::{Decided, Lost, TaskState};
use crate::event::EventKind;

/// Who has a lease, by sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HolderKind {
    /// A node.
    Node,
    /// A worker that is none.
    Worker,
}

impl HolderKind {
    /// All.
    pub const ALL: &'static [Self] = &[Self::Node, Self::Worker];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Worker => "worker",
        }
    }
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseEnd {
    /// The work was done.
    Done,
    /// The work failed.
    Failed,
    /// It was ended as somebody asked.
    Cancelled,
    /// The node's policy denied it.
    Denied,
    /// Without a report.
    Lost(Lost),
}

impl LeaseEnd {
    /// All.
    pub const ALL: &'static [Self] = &[
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Denied,
        Self::Lost(Lost::Expired),
        Self::Lost(Lost::NodeGone),
        Self::Lost(Lost::GivenBack),
        Self::Lost(Lost::Drained),
    ];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Denied => "denied",
            Self::Lost(how) => how.as_str(),
        }
    }
}

/// What one change of one task was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    submitted: bool,
    claimed: Option<HolderKind>,
    /// How its lease ended, if it had one.
    lease_end: Option<LeaseEnd>,
    ended: Option<TaskState>,
    stale: bool,
}

impl Change {
    /// What this decision did.
    pub fn of(decided: &Decided) -> Self {
        let Decided { task, events, .. } = decided;
        let has = |kind: EventKind| events.iter().any(|event| event.kind == kind);
        let holder = task.lease.map(|lease| lease.holder);
        let sort = holder.map(|it| if it.node().is_some() { HolderKind::Node } else { HolderKind::Worker });
        // A late report is told of a task that may have ended long before.
        let stale = has(EventKind::TaskStaleReport);
        Self {
            submitted: has(EventKind::TaskSubmitted),
            claimed: sort.filter(|_| has(EventKind::TaskLeased)),
            lease_end: task.lease.is_none().then(|| lease_end(decided)),
            ended: Some(task.state).filter(|state| state.is_final() && !stale),
            stale,
        }
    }
}

fn lease_end(decided: &Decided) -> LeaseEnd {
    let told = [
        (EventKind::TaskDone, LeaseEnd::Done),
        (EventKind::TaskFailed, LeaseEnd::Failed),
        (EventKind::TaskCancelled, LeaseEnd::Cancelled),
    ];
    for event in &decided.events {
        if let Some((_, end)) = told.iter().find(|(kind, _)| *kind == event.kind) {
            return *end;
        }
        if event.kind == EventKind::TaskReleased {
            let is_it = |end: &&LeaseEnd| Some(end.as_str()) == event.detail.as_deref();
            return LeaseEnd::ALL.iter().find(is_it).copied().unwrap_or(LeaseEnd::Denied);
        }
    }
    LeaseEnd::Denied
}

/// What became of a tick of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TickEnd {
    /// It made a task.
    Made,
    /// It was missed, and the schedule wants none for such.
    Missed,
    /// There was no room for another task.
    Refused,
}

impl TickEnd {
    /// All.
    pub const ALL: &'static [Self] = &[Self::Made, Self::Missed, Self::Refused];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Missed => "missed",
            Self::Refused => "refused",
        }
    }
}

/// The numbers. What is not listed has not happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// New tasks.
    pub submitted: u64,
    /// Claims by who made them.
    pub claims: BTreeMap<HolderKind, u64>,
    /// Leases that ended, by how.
    pub lease_ends: BTreeMap<LeaseEnd, u64>,
    /// Tasks that came to their end, by which.
    pub ended: BTreeMap<TaskState, u64>,
    /// Words of attempts that were over.
    pub stale: u64,
    /// Ticks of schedules.
    pub ticks: BTreeMap<TickEnd, u64>,
}

impl Figures {
    /// A change was committed; `had_lease` says whether the task had one before.
    pub fn add(&mut self, change: Change, had_lease: bool) {
        self.submitted += u64::from(change.submitted);
        self.stale += u64::from(change.stale);
        one_more(&mut self.claims, change.claimed);
        one_more(&mut self.lease_ends, change.lease_end.filter(|_| had_lease));
        one_more(&mut self.ended, change.ended);
    }

    /// A tick was committed.
    pub fn ticked(&mut self, end: TickEnd) {
        one_more(&mut self.ticks, Some(end));
    }
}

fn one_more<K: Ord>(counts: &mut BTreeMap<K, u64>, key: Option<K>) {
    if let Some(key) = key {
        *counts.entry(key).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Attempt, NodeId, RunId, TokenId};
    use crate::pool::decide::tests::{ready, then};
    use crate::pool::{Command, Holder, Priority, TaskResult, decide};
    use crate::time::WallTime;

    fn node() -> NodeId {
        NodeId::mint(1, &[1; 10])
    }

    /// The figures of a ready task to which these things happen.
    fn figures(commands: Vec<Command>) -> Figures {
        let (mut figures, mut task) = (Figures::default(), ready());
        for command in commands {
            let decided = decide(&task, command, WallTime(1_000)).expect("it follows");
            figures.add(Change::of(&decided), task.lease.is_some());
            task = decided.task;
        }
        figures
    }

    fn claim() -> Command {
        Command::Claim(Holder::Worker { token: TokenId::mint(1, &[1; 10]) })
    }

    #[test]
    fn each_end_of_a_lease_is_counted_once_and_by_its_reason() {
        let attempt = Attempt(1);
        let fail = |is_final| Command::Fail { attempt, result: TaskResult::default(), is_final, chance: 0 };
        let rows = [
            (Command::Finish { attempt, result: TaskResult::default() }, "done", Some(TaskState::Done)),
            (fail(false), "failed", None),
            (fail(true), "failed", Some(TaskState::Dead)),
            (
                Command::Cancelled { attempt, result: TaskResult::default() },
                "cancelled",
                Some(TaskState::Cancelled),
            ),
            (Command::Exclude { node: node(), why: "a rule".into() }, "denied", None),
            (Command::Lose { attempt, how: Lost::Expired }, "lease_expired", None),
            (Command::Lose { attempt, how: Lost::NodeGone }, "node_gone", None),
            (Command::Lose { attempt, how: Lost::GivenBack }, "given_back", None),
            (Command::Lose { attempt, how: Lost::Drained }, "drained", None),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for (command, reason, state) in rows {
            let shown = format!("{command:?}");
            let all = figures(vec![claim(), command]);
            assert_eq!(all.claims, [(HolderKind::Worker, 1)].into(), "{shown}");
            let ends: Vec<_> = all.lease_ends.iter().map(|(end, count)| (end.as_str(), *count)).collect();
            assert_eq!(ends, [(reason, 1)], "{shown}");
            assert_eq!(all.ended, state.map(|state| (state, 1)).into_iter().collect(), "{shown}");
            seen.insert(reason);
        }
        assert_eq!(seen.len(), LeaseEnd::ALL.len());
    }

    #[test]
    fn what_has_no_lease_ends_none_and_what_stays_counts_nothing() {
        let by = || "a".to_owned();
        assert_eq!(figures(vec![Command::Cancel { by: by() }]).lease_ends, BTreeMap::new());
        let held = vec![
            claim(),
            Command::Bump { by: by(), priority: Priority::URGENT },
            Command::Cancel { by: by() },
        ];
        assert_eq!(figures(held), figures(vec![claim()]), "it is still worked on");
        let holder = Holder::Node { node: node(), run: RunId::mint(1, &[1; 10]) };
        assert_eq!(figures(vec![Command::Claim(holder)]).claims, [(HolderKind::Node, 1)].into());
    }

    #[test]
    fn a_late_report_is_counted_as_such_and_ends_nothing() {
        let attempt = Attempt(1);
        let done = then(&then(&ready(), claim()), Command::Finish { attempt, result: TaskResult::default() });
        let (step, event) = crate::pool::decide::stale_step(
            &done,
            attempt,
            Holder::Worker { token: TokenId::mint(1, &[1; 10]) },
            WallTime(1),
        );
        let mut figures = Figures::default();
        figures.add(Change::of(&Decided { task: done, steps: vec![step], events: vec![event] }), false);
        assert_eq!(figures, Figures { stale: 1, ..Figures::default() });
    }
}
