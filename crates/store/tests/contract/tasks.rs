//! Tasks of the pool: kept to the last field, found in every order that is asked for, counted, and
//! removed with all that is theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::id::{Attempt, LaneId, RunId, ScheduleId, TaskId};
use cortex_core::limits::EVIDENCE_MAX;
use cortex_core::name::{Name, Selector};
use cortex_core::pool::lane::Head;
use cortex_core::pool::{
    Backoff, Concurrency, Decided, Evidence, Holder, Kind, Lease, Owner, Priority, Progress, Said, Step,
    StepKind, Task, TaskResult, TaskSpec, TaskState, Work,
};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use cortex_store::{Read, StoreError, TaskFilter, Tx, WriteError};

use crate::entities::token;
use crate::people::user;
use crate::subject::{Subject, no};
use crate::support::node_id;

fn id(number: u64) -> TaskId {
    TaskId::mint(number, &[3; 10])
}

/// A waiting task of one person with nothing but its command.
fn task(number: u64) -> Task {
    let run = RunSpec { argv: vec!["true".to_owned()], ..RunSpec::default() };
    Task {
        id: id(number),
        spec: Arc::new(TaskSpec::new(Work::Command(run))),
        owner: Owner { token: None, user: Some(user(1, "u").id) },
        caller: "user:ada".to_owned(),
        idempotency_key: None,
        traceparent: None,
        schedule: None,
        priority: Priority::DEFAULT,
        state: TaskState::Ready,
        attempt: Attempt(0),
        tries: 0,
        parked: false,
        waits_for: 0,
        submitted_at: WallTime(1),
        due_at: None,
        ready_at: Some(WallTime(10)),
        expires_at: None,
        lease: None,
        progress: None,
        excluded: [].into(),
        ended_at: None,
        result: None,
        cancelled_by: None,
        steps: 0,
    }
}

fn keyed(number: u64, limit: u32) -> Task {
    let concurrency = Some(Concurrency { key: "k".to_owned(), limit });
    let mut task = task(number);
    task.spec = Arc::new(TaskSpec { concurrency, ..TaskSpec::clone(&task.spec) });
    task
}

fn ended(number: u64, at: i64) -> Task {
    Task { state: TaskState::Done, ended_at: Some(WallTime(at)), ..task(number) }
}

fn full_spec(work: Work) -> TaskSpec {
    TaskSpec {
        work,
        selector: Selector::parse("os=linux,role=ci").expect("a selector"),
        prefer: Selector::parse("zone=a").expect("a selector"),
        attempts_max: 100,
        backoff: Backoff { initial_ms: 1, factor_percent: 101, max_ms: 2, jitter_percent: 3 },
        start_within_ms: Some(7),
        start_within_pauses: true,
        lease_ms: 12_345,
        after: vec![id(99), id(98), id(99)],
        concurrency: Some(Concurrency { key: "db \u{e4}".to_owned(), limit: 10_000 }),
        labels: [("a".to_owned(), "b".to_owned()), ("c.d".to_owned(), String::new())].into(),
    }
}

fn full_task(number: u64, work: Work) -> Task {
    Task {
        spec: Arc::new(full_spec(work)),
        owner: Owner { token: Some(token(1, "t").id), user: Some(user(1, "u").id) },
        idempotency_key: Some("key".to_owned()),
        traceparent: Some("00-aa-bb-01".to_owned()),
        schedule: Some(ScheduleId::mint(4, &[4; 10])),
        priority: Priority::URGENT,
        state: TaskState::Leased,
        attempt: Attempt(u64::MAX >> 1),
        tries: u32::MAX,
        waits_for: 3,
        submitted_at: WallTime(-1),
        due_at: Some(WallTime(2)),
        ready_at: Some(WallTime(3)),
        expires_at: Some(WallTime(4)),
        lease: Some(Lease {
            holder: Holder::Node { node: node_id(1), run: RunId::mint(1, &[1; 10]) },
            ms: u64::MAX,
            since: WallTime(5),
        }),
        progress: Some(Progress {
            said: Said { done: u64::MAX, total: Some(u64::MAX), note: Some("\u{1F980} \"\0".to_owned()) },
            at: WallTime(-7),
            told_at: WallTime(i64::MIN),
        }),
        excluded: [node_id(3), node_id(2)].into(),
        ended_at: Some(WallTime(6)),
        result: Some(TaskResult {
            code: Some(-1),
            signal: Some(9),
            output: vec![0, 255, b'x'],
            message: Some(String::new()),
        }),
        cancelled_by: Some("user:bob".to_owned()),
        steps: 1,
        ..task(number)
    }
}

fn step(number: i64) -> Step {
    Step {
        at: WallTime(number),
        kind: StepKind::Leased,
        attempt: Attempt(1),
        node: Some(node_id(1)),
        run: Some(RunId::mint(1, &[1; 10])),
        actor: Some("user:ada".to_owned()),
        detail: Some(format!("step {number}")),
    }
}

fn put(tx: &mut dyn Tx, task: &Task) -> Result<(), WriteError> {
    tx.put_task(&Decided { task: task.clone(), steps: Vec::new(), events: Vec::new() })
}

fn ids(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

type Counted = (u64, BTreeMap<TaskState, u64>, Vec<LaneId>);

/// All that is counted, and which lanes there are.
fn counted(view: &dyn Read) -> Result<Counted, StoreError> {
    let lanes = view.lanes()?.into_iter().map(|(id, _)| id).collect();
    Ok((view.open_tasks(None)?, view.task_counts()?, lanes))
}

pub(crate) async fn a_task_is_read_back_to_the_last_field(subject: Subject) {
    let run = RunSpec {
        argv: vec!["printf".to_owned(), "\u{1F980} \"\\".to_owned(), String::new()],
        cwd: Some("/tmp".to_owned()),
        env: vec![("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())],
        timeout_ms: Some(u64::MAX),
        stdin: true,
    };
    let kind = Name::parse("resize").and_then(Kind::payload).expect("a kind");
    let worker = Lease { holder: Holder::Worker { token: token(2, "t").id }, ms: 1, since: WallTime(1) };
    let bytes = Work::Payload { kind: kind.clone(), bytes: vec![0, 255] };
    let empty = Work::Payload { kind, bytes: Vec::new() };
    let all = vec![
        task(1),
        full_task(2, Work::Command(run)),
        Task { lease: Some(worker), idempotency_key: None, ..full_task(3, bytes) },
        Task {
            result: Some(TaskResult::default()),
            lease: None,
            progress: Some(Progress { said: Said::default(), at: WallTime(0), told_at: WallTime(0) }),
            idempotency_key: None,
            ..full_task(4, empty)
        },
        Task { owner: Owner { token: Some(token(3, "t").id), user: None }, ..task(5) },
        keyed(6, 2),
    ];
    let (put_all, first) = (all.clone(), all[1].clone());
    subject.put(move |tx| put_all.iter().try_for_each(|task| put(tx, task))).await;
    let numbers = 1..=7;
    let found =
        subject.get(move |view| numbers.map(|number| view.task(id(number))).collect::<Result<Vec<_>, _>>());
    let mut expected: Vec<Option<Task>> = all.into_iter().map(Some).collect();
    expected.push(None);
    assert_eq!(found.await, expected);
    let who = first.owner;
    let by_key = subject.get(move |view| Ok((view.task_by_key(who, "key")?, view.task_by_key(who, "ke")?)));
    assert_eq!(by_key.await, (Some(first), None));
}

pub(crate) async fn what_was_submitted_is_written_once(subject: Subject) {
    let old = full_task(1, Work::Command(RunSpec { argv: vec!["a".to_owned()], ..RunSpec::default() }));
    let new = Task {
        spec: Arc::clone(&old.spec),
        state: TaskState::Dead,
        lease: None,
        result: None,
        ..old.clone()
    };
    let put_new = Task { caller: "user:mallory".to_owned(), traceparent: None, ..new.clone() };
    subject.put(move |tx| put(tx, &old)).await;
    subject.put(move |tx| put(tx, &put_new)).await;
    assert_eq!(subject.get(|view| view.task(id(1))).await, Some(new));
}

pub(crate) async fn a_key_is_one_task_per_owner(subject: Subject) {
    let with_key = |number, owner| Task { idempotency_key: Some("key".to_owned()), owner, ..task(number) };
    let ada = task(0).owner;
    let token_of_ada = Owner { token: Some(token(1, "t").id), ..ada };
    let nobody = Owner { token: token_of_ada.token, user: None };
    // A person's sessions have keys, each of its tokens has its own, and so has one that is nobody's.
    let all = [with_key(1, ada), with_key(2, nobody), with_key(4, token_of_ada)];
    let (put_all, owners) = (all.clone(), all.clone().map(|task| task.owner));
    subject.put(move |tx| put_all.iter().try_for_each(|task| put(tx, task))).await;
    let found = subject.get(move |view| {
        owners.map(|owner| view.task_by_key(owner, "key")).into_iter().collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(found.await, all.map(Some));
    // Of a lane of its own, which is not made by a task that is refused.
    let second = Task { priority: Priority::URGENT, ..with_key(3, ada) };
    let again = with_key(1, ada);
    let refused = second.clone();
    subject.conflicts(move |tx| put(tx, &refused)).await;
    // It leaves nothing even when the transaction goes on.
    let before = subject.get(counted).await;
    let within = subject.put(move |tx| {
        assert!(matches!(put(tx, &second), Err(WriteError::Refused(_))));
        put(tx, &again)?;
        Ok((counted(tx)?, tx.lane(&second.lane())?, tx.task(id(3))?))
    });
    assert_eq!(within.await, (before.clone(), None, None));
    assert_eq!(subject.get(counted).await, before);
}

pub(crate) async fn tasks_are_paged_newest_first_and_filtered(subject: Subject) {
    let schedule = ScheduleId::mint(4, &[4; 10]);
    let bob = Owner { token: None, user: Some(user(2, "u").id) };
    let with_label = |task: Task, value: &str| {
        let more = if value == "b" { "7" } else { "6" };
        let labels = [("team.x".to_owned(), value.to_owned()), (more.to_owned(), "8".to_owned())].into();
        Task { spec: Arc::new(TaskSpec { labels, ..TaskSpec::clone(&task.spec) }), ..task }
    };
    let all = [
        task(1),
        Task { owner: bob, ..ended(2, 5) },
        with_label(Task { owner: bob, ..task(3) }, "a"),
        Task { schedule: Some(schedule), ..with_label(task(4), "a") },
        Task { schedule: Some(schedule), owner: bob, ..ended(5, 6) },
        with_label(task(6), "b"),
    ];
    subject.put(move |tx| all.iter().try_for_each(|task| put(tx, task))).await;
    let none = TaskFilter::default;
    let label = |value: &str| Some(("team.x".to_owned(), value.to_owned()));
    let states = vec![TaskState::Ready, TaskState::Leased];
    for (filter, limit, expected) in [
        (none(), 3, vec![6, 5, 4]),
        (TaskFilter { before: Some(id(4)), ..none() }, 9, vec![3, 2, 1]),
        (TaskFilter { states: vec![TaskState::Done], ..none() }, 9, vec![5, 2]),
        (TaskFilter { states: states.clone(), before: Some(id(6)), ..none() }, 2, vec![4, 3]),
        (TaskFilter { party: Some(bob), ..none() }, 9, vec![5, 3, 2]),
        (TaskFilter { party: Some(bob), states, before: Some(id(9)), ..none() }, 9, vec![3]),
        (TaskFilter { label: label("a"), ..none() }, 9, vec![4, 3]),
        (TaskFilter { label: label("a"), party: Some(bob), ..none() }, 9, vec![3]),
        (TaskFilter { label: label(""), ..none() }, 9, vec![]),
        (TaskFilter { label: Some(("$[\"".to_owned(), "a".to_owned())), ..none() }, 9, vec![]),
        (TaskFilter { label: Some(("7".to_owned(), "8".to_owned())), ..none() }, 9, vec![6]),
        (TaskFilter { schedule: Some(schedule), ..none() }, 9, vec![5, 4]),
        (TaskFilter { schedule: Some(schedule), party: Some(bob), ..none() }, 9, vec![5]),
        (TaskFilter { schedule: Some(schedule), label: label("b"), ..none() }, 9, vec![]),
        (none(), 0, vec![]),
    ] {
        let shown = format!("{filter:?}");
        let found = subject.get(move |view| view.tasks(&filter, limit)).await;
        assert_eq!(ids(&found), expected.into_iter().map(id).collect::<Vec<_>>(), "{shown}");
    }
}

pub(crate) async fn claims_find_heads_keys_and_waiters(subject: Subject) {
    let parked =
        |number, limit, at| Task { parked: true, ready_at: Some(WallTime(at)), ..keyed(number, limit) };
    let urgent = |task: Task| Task { priority: Priority::URGENT, ..task };
    let mut waiter = Task { state: TaskState::Scheduled, waits_for: 1, ..task(20) };
    waiter.spec = Arc::new(TaskSpec { after: vec![id(2), id(1), id(2)], ..TaskSpec::clone(&waiter.spec) });
    let not_scheduled =
        Task { state: TaskState::Ready, ready_at: Some(WallTime(50)), id: id(21), ..waiter.clone() };
    let lease = full_task(1, waiter.spec.work.clone()).lease;
    let leased = Task { state: TaskState::Leased, lease, ..keyed(11, 2) };
    let all = vec![
        task(2),
        task(1),
        Task { ready_at: Some(WallTime(9)), ..task(3) },
        parked(4, 1, 1),
        parked(5, 1, 0),
        parked(6, 2, 7),
        parked(7, 2, 7),
        urgent(parked(8, 1, 3)),
        urgent(Task { ready_at: Some(WallTime(99)), ..task(9) }),
        leased.clone(),
        ended(12, 1),
        waiter,
        not_scheduled,
    ];
    subject.put(move |tx| all.iter().try_for_each(|task| put(tx, task))).await;
    let found = subject.get(move |view| {
        let lanes = [view.lane(&task(1).lane())?, view.lane(&urgent(task(1)).lane())?];
        let lanes: Vec<LaneId> = lanes.into_iter().flatten().chain([LaneId(77)]).collect();
        let waiting = (view.waiting_for(id(2))?, view.waiting_for(id(20))?);
        Ok((view.heads(&lanes)?, view.parked("k")?, view.working("k")?, view.working("x")?, waiting, lanes))
    });
    let (heads, parked, working, none, waiting, lanes) = found.await;
    let head = |place: usize, at, task| Head { lane: lanes[place], ready_at: WallTime(at), task: id(task) };
    assert_eq!(heads, [head(0, 9, 3), head(1, 99, 9)]);
    assert_eq!(parked, [id(5), id(6), id(8)], "the oldest of each lane and limit");
    assert_eq!((working, none), (1, 0));
    assert_eq!(waiting, (vec![id(20)], vec![]));
    assert_eq!(subject.get(|view| view.leased_tasks()).await, [leased]);
}

pub(crate) async fn times_are_found_in_their_order(subject: Subject) {
    let due = |number, at, waits_for| Task {
        state: TaskState::Scheduled,
        due_at: Some(WallTime(at)),
        waits_for,
        ready_at: None,
        ..task(number)
    };
    let expiring = |number, at| Task { expires_at: Some(WallTime(at)), ..task(number) };
    let started = Task { state: TaskState::Done, ended_at: Some(WallTime(4)), ..expiring(9, 0) };
    let all = [
        due(1, 30, 0),
        due(2, 20, 0),
        due(3, 10, 1),
        due(4, 20, 0),
        expiring(5, 8),
        expiring(6, 7),
        started,
        ended(8, 3),
    ];
    subject.put(move |tx| all.iter().try_for_each(|task| put(tx, task))).await;
    let found = subject.get(|view| {
        let due = (view.tasks_due(WallTime(29), 9)?, view.tasks_due(WallTime(30), 1)?, view.next_due()?);
        let over = (view.tasks_expiring(WallTime(7), 9)?, view.tasks_expiring(WallTime(6), 9)?);
        Ok((due, over, view.next_expiry()?, view.ended_tasks(9)?))
    });
    let (due, over, next_expiry, ended) = found.await;
    assert_eq!(due, (vec![id(2), id(4)], vec![id(2)], Some(WallTime(20))));
    assert_eq!((over, next_expiry), ((vec![id(6)], vec![]), Some(WallTime(7))));
    assert_eq!(ended, [(id(8), WallTime(3)), (id(9), WallTime(4))]);
}

pub(crate) async fn a_lane_is_there_for_as_long_as_a_task_is_in_it(subject: Subject) {
    let of = |task: &Task| {
        let key = task.lane();
        subject.get(move |view| view.lane(&key))
    };
    let put_one = |task: Task| subject.put(move |tx| put(tx, &task));
    let urgent = Task { priority: Priority::URGENT, ..task(1) };
    put_one(task(1)).await;
    assert_eq!((of(&task(1)).await, of(&urgent).await), (Some(LaneId(1)), None));
    put_one(urgent.clone()).await;
    assert_eq!((of(&task(1)).await, of(&urgent).await), (None, Some(LaneId(2))), "it moved");
    put_one(task(2)).await;
    assert_eq!(of(&task(2)).await, Some(LaneId(3)), "no number is given twice");
    let key = urgent.lane();
    assert_eq!(subject.get(|view| view.lanes()).await, [(LaneId(2), key), (LaneId(3), task(2).lane())]);
    put_one(ended(2, 1)).await;
    assert_eq!(subject.get(counted).await.2, [LaneId(2)], "without open tasks it is not listed");
    assert_eq!(of(&task(2)).await, Some(LaneId(3)), "and is there still");
    let counts = [(TaskState::Ready, 1), (TaskState::Done, 1)].into();
    assert_eq!(subject.get(counted).await, (1, counts, vec![LaneId(2)]));
    let (ada, bob) = (task(1).owner, Owner { token: None, user: Some(user(2, "u").id) });
    let open = subject.get(move |view| Ok((view.open_tasks(Some(ada))?, view.open_tasks(Some(bob))?)));
    assert_eq!(open.await, (1, 0));
    assert_eq!(subject.put(|tx| Ok(tx.remove_tasks(&[id(2)])?)).await, 1);
    assert_eq!(of(&task(2)).await, None);
}

pub(crate) async fn a_refused_write_leaves_nothing_of_the_pool(subject: Subject) {
    let lane = task(1).lane();
    let head = move |view: &dyn Read| Ok((view.heads(&[LaneId(1), LaneId(2)])?, view.lane(&lane)?));
    subject.put(|tx| put(tx, &task(5)).and_then(|()| put(tx, &ended(6, 1)))).await;
    let before = (subject.get(counted).await, subject.get(head.clone()).await);
    let refused = subject.write(move |tx| {
        put(tx, &Task { ready_at: Some(WallTime(1)), ..task(4) })?;
        put(tx, &Task { priority: Priority::URGENT, ..task(5) })?;
        tx.put_task(&Decided { task: task(7), steps: vec![step(1)], events: vec![] })?;
        tx.put_task_evidence(id(5), &evidence(1))?;
        assert_eq!(tx.remove_tasks(&[id(6)])?, 1);
        assert_eq!(tx.heads(&[LaneId(1)])?.len(), 1);
        no::<()>()
    });
    refused.await.expect_err("the decision said no");
    assert_eq!((subject.get(counted).await, subject.get(head.clone()).await), before);
    // Nor does the writer remember any of it.
    let within = subject.put(move |tx| Ok((counted(tx)?, head(tx)?)));
    assert_eq!(within.await, before);
    assert_eq!(subject.get(|view| view.task(id(5))).await, Some(task(5)));
    assert_eq!(subject.get(|view| view.task_evidence(id(5))).await, []);
    let next = subject.put(|tx| {
        let urgent = Task { priority: Priority::URGENT, ..task(8) };
        put(tx, &urgent)?;
        Ok(tx.lane(&urgent.lane())?)
    });
    assert_eq!(next.await, Some(LaneId(2)), "the number was not given");
}

pub(crate) async fn only_ended_tasks_are_removed_with_all_that_is_theirs(subject: Subject) {
    let mut waiter = ended(2, 9);
    waiter.spec = Arc::new(TaskSpec { after: vec![id(1), id(3)], ..TaskSpec::clone(&waiter.spec) });
    waiter.idempotency_key = Some("key".to_owned());
    let key = |view: &dyn Read| view.task_by_key(task(1).owner, "key");
    let put_waiter = waiter.clone();
    subject
        .put(move |tx| {
            put(tx, &task(1))?;
            tx.put_task(&Decided { task: put_waiter, steps: vec![step(1)], events: vec![] })?;
            Ok(tx.put_task_evidence(id(2), &evidence(1))?)
        })
        .await;
    assert_eq!(subject.put(|tx| Ok(tx.remove_tasks(&[id(1), id(2), id(2), id(9)])?)).await, 1);
    let left = subject.get(move |view| {
        Ok((view.task(id(2))?, view.task_steps(id(2))?, view.task_evidence(id(2))?, key(view)?))
    });
    assert_eq!(left.await, (None, vec![], vec![], None));
    assert_eq!(ids(&subject.get(|view| view.tasks(&TaskFilter::default(), 9)).await), [id(1)]);
    // Another one with that key and id finds nothing of the old one.
    let again =
        Task { state: TaskState::Scheduled, ended_at: None, spec: Arc::clone(&task(1).spec), ..waiter };
    subject.put(move |tx| put(tx, &again)).await;
    assert_eq!(subject.get(|view| view.waiting_for(id(1))).await, []);
}

fn evidence(number: i64) -> Evidence {
    Evidence {
        at: WallTime(number),
        attempt: Attempt(2),
        holder: Holder::Worker { token: token(1, "t").id },
        result: TaskResult {
            code: None,
            signal: Some(1),
            output: vec![u8::try_from(number).unwrap_or(0)],
            message: Some("late".to_owned()),
        },
    }
}

pub(crate) async fn evidence_is_bounded_and_timelines_are_kept_whole(subject: Subject) {
    let count = 60;
    for number in 0..count {
        subject
            .put(move |tx| {
                let steps = vec![step(number), Step { actor: None, node: None, run: None, ..step(-number) }];
                tx.put_task(&Decided { task: task(1), steps, events: vec![] })?;
                Ok(tx.put_task_evidence(id(1), &evidence(number))?)
            })
            .await;
    }
    let of_node = Evidence {
        holder: Holder::Node { node: node_id(1), run: RunId::mint(1, &[1; 10]) },
        ..evidence(count)
    };
    let last = of_node.clone();
    subject.put(move |tx| Ok(tx.put_task_evidence(id(1), &last)?)).await;
    let mut expected: Vec<Evidence> = (0..count).map(evidence).collect();
    expected.push(of_node);
    let expected = expected.split_off(expected.len() - EVIDENCE_MAX);
    assert_eq!(subject.get(|view| view.task_evidence(id(1))).await, expected);
    let steps: Vec<WallTime> =
        subject.get(|view| view.task_steps(id(1))).await.iter().map(|step| step.at).collect();
    assert_eq!(
        steps,
        (0..count).flat_map(|number| [WallTime(number), WallTime(-number)]).collect::<Vec<_>>()
    );
}
