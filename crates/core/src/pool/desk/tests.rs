//! The desk over a table of few tasks, which looks at each of them: what concerns concurrency keys.
//! Its orders and all else are tested with the stores.

use super::*;
use crate::id::UserId;
use crate::limits::STEPS_MAX;
use crate::name::Name;
use crate::pool::lane::Head;
use crate::pool::{Concurrency, Kind, StepKind, TaskResult, Work};

const NOW: WallTime = WallTime(1_000);

/// A table of few tasks, which looks at each of them.
#[derive(Default)]
struct Heap {
    tasks: BTreeMap<TaskId, Task>,
    lanes: Vec<LaneKey>,
    told: Vec<StepKind>,
}

impl Heap {
    fn ready(&self, parked: bool) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(move |task| task.state == TaskState::Ready && task.parked == parked)
    }

    fn is_parked(&self, number: u64) -> bool {
        self.tasks[&id(number)].parked
    }
}

impl Table for Heap {
    type Error = Refusal;

    fn task(&self, id: TaskId) -> Result<Option<Task>, Refusal> {
        Ok(self.tasks.get(&id).cloned())
    }

    fn task_by_key(&self, _: Owner, _: &str) -> Result<Option<Task>, Refusal> {
        Ok(None)
    }

    fn waiting_for(&self, _: TaskId) -> Result<Vec<TaskId>, Refusal> {
        Ok(Vec::new())
    }

    fn heads(&self, lanes: &[LaneId]) -> Result<Vec<Head>, Refusal> {
        let head = |lane: &LaneId| {
            let key = &self.lanes[lane.0 as usize];
            let first =
                self.ready(false).filter(|task| task.lane() == *key).min_by_key(|it| (it.ready_at, it.id));
            first.map(|task| Head { lane: *lane, ready_at: task.ready_at.unwrap_or(NOW), task: task.id })
        };
        Ok(lanes.iter().filter_map(head).collect())
    }

    fn working(&self, key: &str) -> Result<u32, Refusal> {
        let leased = self.tasks.values().filter(|task| task.state == TaskState::Leased);
        let with_key = |task: &&Task| task.spec.concurrency.as_ref().is_some_and(|it| it.key == key);
        Ok(leased.filter(with_key).count() as u32)
    }

    fn parked(&self, key: &str) -> Result<Vec<TaskId>, Refusal> {
        let mut oldest = BTreeMap::new();
        for task in self.ready(true) {
            let Some(concurrency) = task.spec.concurrency.as_ref().filter(|it| it.key == key) else {
                continue;
            };
            oldest.entry((task.lane(), concurrency.limit)).or_insert(task.id);
        }
        Ok(oldest.into_values().collect())
    }

    fn put(&mut self, decided: &Decided) -> Result<(), Refusal> {
        let task = decided.task.clone();
        if !self.lanes.contains(&task.lane()) {
            self.lanes.push(task.lane());
        }
        self.told.extend(decided.steps.iter().map(|step| step.kind));
        self.tasks.insert(task.id, task);
        Ok(())
    }

    fn put_evidence(&mut self, _: TaskId, _: &Evidence) -> Result<(), Refusal> {
        Ok(())
    }

    fn lane(&self, key: &LaneKey) -> Result<Option<LaneId>, Refusal> {
        Ok(self.lanes.iter().position(|lane| lane == key).map(|place| LaneId(place as u64)))
    }
}

fn id(number: u64) -> TaskId {
    TaskId::mint(number, &[1; 10])
}

fn node(number: u64) -> NodeId {
    NodeId::mint(number, &[2; 10])
}

fn worker() -> Holder {
    Holder::Node { node: node(1), run: crate::id::RunId::mint(1, &[3; 10]) }
}

/// A table with tasks of one key, numbered from 1, that may be worked on so many at once.
fn with_limits(limits: &[u32]) -> Heap {
    let mut heap = Heap::default();
    for (number, limit) in (1..).zip(limits) {
        let kind = Name::parse("resize").and_then(Kind::payload).expect("a kind");
        let mut spec = TaskSpec::new(Work::Payload { kind, bytes: Vec::new() });
        spec.concurrency = Some(Concurrency { key: "k".to_owned(), limit: *limit });
        let new = New {
            id: id(number),
            spec: Arc::new(spec),
            priority: Priority::DEFAULT,
            owner: Owner { token: None, user: Some(UserId::mint(1, &[1; 10])) },
            caller: "user:ada".to_owned(),
            key: None,
            traceparent: None,
            schedule: None,
            due_at: None,
        };
        submit(&mut heap, new, NOW).expect("submitted");
    }
    heap
}

fn claim_all(heap: &mut Heap) -> Vec<TaskId> {
    let lanes: Vec<_> = (0..).map(LaneId).zip(heap.lanes.iter().cloned().map(Arc::new)).collect();
    let claimed = claim(heap, &lanes, &mut Turns::default(), 99, NOW, &mut |_| Take::By(worker()));
    claimed.expect("claimed").into_iter().map(|task| task.id).collect()
}

fn done(heap: &mut Heap, number: u64) {
    let attempt = heap.tasks[&id(number)].attempt;
    let result = Report::Done(TaskResult::default());
    report(heap, id(number), attempt, worker(), result, NOW).expect("taken").expect("the present attempt");
}

#[test]
fn a_full_key_parks_and_the_next_stands_when_it_has_room() {
    let mut heap = with_limits(&[1, 1, 1]);
    assert_eq!(claim_all(&mut heap), [id(1)]);
    assert!(heap.is_parked(2) && heap.is_parked(3));
    done(&mut heap, 1);
    assert!(!heap.is_parked(2) && heap.is_parked(3));
    assert_eq!(claim_all(&mut heap), [id(2)]);
}

#[test]
fn a_task_that_leaves_its_lane_lets_the_next_of_its_key_stand_there() {
    let bumped = |heap: &mut Heap| bump(heap, id(2), "user:ada".to_owned(), Priority::URGENT, NOW).map(drop);
    let excluded = |heap: &mut Heap| {
        let task = heap.tasks[&id(2)].clone();
        change(heap, &task, Command::Exclude { node: node(9), why: String::new() }, NOW).map(drop)
    };
    for leave in [bumped as fn(&mut Heap) -> Result<(), Refusal>, excluded] {
        let mut heap = with_limits(&[1, 1, 1]);
        claim_all(&mut heap);
        done(&mut heap, 1);
        leave(&mut heap).expect("it leaves");
        assert!(!heap.is_parked(2) && !heap.is_parked(3), "both stand, each in its lane");
    }
}

#[test]
fn a_smaller_limit_keeps_no_larger_one_of_its_lane_waiting() {
    let mut heap = with_limits(&[3, 3, 3, 1, 3]);
    assert_eq!(claim_all(&mut heap), [id(1), id(2), id(3)]);
    assert!(heap.is_parked(4) && heap.is_parked(5));
    done(&mut heap, 1);
    assert_eq!(claim_all(&mut heap), [id(5)], "two are worked on: too many for 4, not for 5");
}

#[test]
fn a_report_whose_answer_was_lost_is_answered_again_and_another_one_is_not_taken() {
    let mut heap = with_limits(&[1]);
    claim_all(&mut heap);
    let result = |code| TaskResult { code: Some(code), ..TaskResult::default() };
    let mut say =
        |attempt, told| report(&mut heap, id(1), Attempt(attempt), worker(), told, NOW).expect("taken");
    say(1, Report::Done(result(0))).expect("held");
    say(1, Report::Done(result(0))).expect("the same again");
    for (attempt, told) in [
        (1, Report::Done(result(1))),
        (0, Report::Done(result(0))),
        (1, Report::Failed { result: result(0), is_final: false, chance: 0 }),
        (1, Report::GivenBack),
    ] {
        assert_eq!(say(attempt, told).expect_err("too late").code, Code::StaleAttempt);
    }
    assert_eq!(heap.tasks[&id(1)].result, Some(result(0)));
    assert_eq!(heap.told.iter().filter(|kind| **kind == StepKind::Done).count(), 1);
}

#[test]
fn reports_that_come_too_late_leave_no_more_steps_than_there_may_be() {
    let mut heap = with_limits(&[1]);
    claim_all(&mut heap);
    done(&mut heap, 1);
    heap.tasks.get_mut(&id(1)).expect("it is there").steps = STEPS_MAX - 1;
    for _ in 0..3 {
        let late = Report::Done(TaskResult { code: Some(1), ..TaskResult::default() });
        report(&mut heap, id(1), Attempt(1), worker(), late, NOW).expect("taken").expect_err("too late");
    }
    assert_eq!(heap.tasks[&id(1)].steps, STEPS_MAX);
    assert_eq!(heap.told.iter().filter(|kind| **kind == StepKind::StaleReport).count(), 1);
}
