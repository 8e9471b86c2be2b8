//! The bound that [`super`] promises to a task that waits, over pools of many parties and lanes whose
//! tasks never stop coming.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::Kind;
use super::*;
use crate::id::{LaneId, TaskId, UserId};
use crate::name::Selector;

fn party(number: u16) -> Owner {
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    Owner { token: None, user: Some(UserId::mint(1, &bytes)) }
}

fn lane(person: u16, priority: u8) -> LaneKey {
    LaneKey {
        owner: party(person),
        kind: Kind::command(),
        priority: Priority::new(priority).expect("a priority"),
        selector: Selector::default(),
        prefer: Selector::default(),
        excluded: BTreeSet::new(),
    }
}

/// A pool: lanes with those that wait in them, by their age.
#[derive(Default)]
struct Pool {
    keys: Vec<LaneKey>,
    waiting: Vec<BTreeSet<(WallTime, TaskId)>>,
    numbers: BTreeMap<(u16, u8), usize>,
    turns: Turns,
    made: u64,
}

impl Pool {
    fn submit(&mut self, person: u16, priority: u8, ready_at: WallTime) -> TaskId {
        let lanes = self.keys.len();
        let number = *self.numbers.entry((person, priority)).or_insert(lanes);
        if number == lanes {
            self.keys.push(lane(person, priority));
            self.waiting.push(BTreeSet::new());
        }
        self.made += 1;
        let id = TaskId::mint(self.made, &[1; 10]);
        self.waiting[number].insert((ready_at, id));
        id
    }

    /// Hands out the next one: its lane and itself.
    fn claim(&mut self, now: WallTime) -> (LaneKey, Head) {
        let head = |(number, waiting): (usize, &BTreeSet<(WallTime, TaskId)>)| {
            let (ready_at, task) = *waiting.first()?;
            Some(Head { lane: LaneId(number as u64), ready_at, task })
        };
        let heads: Vec<Head> = self.waiting.iter().enumerate().filter_map(head).collect();
        let with_keys = heads.iter().map(|head| (&self.keys[head.lane.0 as usize], head));
        let next = *first(with_keys, &self.turns, now).expect("something waits");
        let number = next.lane.0 as usize;
        self.waiting[number].remove(&(next.ready_at, next.task));
        self.turns.took(self.keys[number].owner);
        (self.keys[number].clone(), next)
    }
}

/// What comes of a task of person 0 while the pool is claimed from, and each task that goes is
/// followed by another one, or two, of any sort but priority 9.
#[derive(Debug)]
struct Course {
    /// Claims that went before it, from the moment on at which it was at the highest level.
    before: usize,
    bound: usize,
}

fn play(pool: &mut Pool, (priority, step_ms): (u8, u64), coming: &[(u16, u8)]) -> Course {
    let begun = WallTime(1_000_000);
    let low = pool.submit(0, priority, begun);
    let ripe = begun.plus_ms(ripe_ms(Priority::new(priority).expect("a priority")));
    let own = party(0);
    let (mut now, mut coming) = (begun, coming.iter().cycle());
    let mut course = None;
    loop {
        if now >= ripe && course.is_none() {
            course = Some(Course { before: 0, bound: bound(pool, low, begun) });
        }
        let (_, head) = pool.claim(now);
        if head.task == low {
            return course.unwrap_or(Course { before: 0, bound: 0 });
        }
        if let Some(course) = &mut course {
            course.before += 1;
            assert!(course.before <= course.bound, "party {own:?} waits beyond its bound: {course:?}");
        }
        now = now.plus_ms(step_ms);
        let (person, priority) = *coming.next().expect("it is a cycle");
        pool.submit(person, priority, now);
    }
}

/// The bound as the module has it, in claims: what has priority 9; what of its own party has waited
/// longer; and before each of these and before itself at most one of each other party.
fn bound(pool: &Pool, low: TaskId, begun: WallTime) -> usize {
    let (mut urgent, mut own) = (0, 0);
    let mut others = BTreeSet::new();
    for (key, waiting) in pool.keys.iter().zip(&pool.waiting) {
        if key.priority == Priority::URGENT {
            urgent += waiting.len();
        } else if key.owner == party(0) {
            own += waiting.iter().filter(|(at, id)| (*at, *id) < (begun, low)).count();
        }
    }
    // Whoever comes later is another party, too.
    others.extend(pool.keys.iter().map(|key| key.owner).filter(|owner| *owner != party(0)));
    urgent + own + (own + 1) * others.len().max(PEOPLE as usize)
}

/// Other parties at most.
const PEOPLE: u16 = 40;

fn sort() -> impl Strategy<Value = (u16, u8)> {
    (0..PEOPLE, 0..9_u8)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn a_task_that_waits_starts_within_its_bound_whatever_comes(
        there in prop::collection::vec((sort(), 0..900_000_i64), 0..400),
        urgent in 0..20_usize,
        priority in 0..9_u8,
        step_ms in 1_000..20_000_u64,
        coming in prop::collection::vec(sort(), 1..60),
    ) {
        let mut pool = Pool::default();
        for ((person, priority), at) in there {
            pool.submit(person, priority, WallTime(at));
        }
        for _ in 0..urgent {
            pool.submit(1, 9, WallTime(0));
        }
        play(&mut pool, (priority, step_ms), &coming);
    }
}

#[test]
fn r14_5_a_flood_of_eights_holds_up_a_one_no_longer_than_its_bound() {
    // Of its own party: what was there before it goes first, and what comes after it never does.
    let mut own = Pool::default();
    for at in 0..3_000 {
        own.submit(0, 8, WallTime(at));
    }
    let course = play(&mut own, (1, 500), &[(0, 8)]);
    assert!(course.before <= 3_000 - 840, "they went while it was not ripe yet: {course:?}");
    // Of others: one of each.
    let mut others = Pool::default();
    for at in 0..3_000 {
        others.submit(1 + (at % 300) as u16, 8, WallTime(at));
    }
    let course = play(&mut others, (1, 500), &[(7, 8)]);
    assert!(course.before <= 300, "{course:?}");
}

#[test]
fn r14_5_nine_starts_first_whatever_waits_and_is_never_reached_by_waiting() {
    let mut pool = Pool::default();
    for person in 0..PEOPLE {
        for priority in 0..9 {
            pool.submit(person, priority, WallTime(i64::MIN));
        }
    }
    let urgent = pool.submit(0, 9, WallTime(i64::MAX));
    assert_eq!(pool.claim(WallTime(0)).1.task, urgent);
    // What goes first of the rest is at the level to which waiting leads.
    let (key, head) = pool.claim(WallTime(0));
    assert_eq!(level(key.priority, head.ready_at, WallTime(0)), 8);
}
