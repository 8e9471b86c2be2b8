//! Who goes first (POOL rule 5). In words: what has priority 9; then the higher level, which is the
//! priority and one more for each [`AGEING_MS`] of waiting, never above 8; then the party whose last
//! turn is longest ago; then the task that has waited longest.
//!
//! **Bound.** A task of priority `p` below 9 that has waited `(8 - p) × AGEING_MS` is at level 8. From
//! then on nothing of its own party goes before it but priority 9 and what has waited longer; and of
//! each other party at most one task for each of its own.

use std::collections::BTreeMap;

use super::lane::{Head, LaneKey};
use super::{Owner, Priority};
use crate::limits::AGEING_MS;
use crate::time::WallTime;

/// The level of a task now.
pub fn level(priority: Priority, ready_at: WallTime, now: WallTime) -> u8 {
    if priority == Priority::URGENT {
        return priority.get();
    }
    let waited = u64::try_from(now.0.saturating_sub(ready_at.0)).unwrap_or(0);
    let gained = waited / AGEING_MS;
    let most = Priority::ORDINARY_MAX.get();
    u64::from(priority.get()).saturating_add(gained).min(u64::from(most)) as u8
}

/// Longest time after which a task of this priority is at the highest level that waiting leads to.
pub const fn ripe_ms(priority: Priority) -> u64 {
    (Priority::ORDINARY_MAX.get().saturating_sub(priority.get())) as u64 * AGEING_MS
}

/// Whose turn it was, and when. Of the hub's memory: after a restart all are equal.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    last: BTreeMap<Owner, u64>,
    count: u64,
    /// Turns since [`Self::begin`], in their order.
    taken: Vec<Taken>,
}

/// A turn, and the one that its party had before; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    party: Owner,
    turn: u64,
    before: u64,
}

/// Parties that are remembered; those whose turn is longest ago make room, and have theirs at once.
const PARTIES_MAX: usize = 10_000;

impl Turns {
    /// A claim begins.
    pub fn begin(&mut self) {
        self.taken.clear();
    }

    /// The turns of the claim that began last, for [`Self::give_back`] when it is not kept.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.clone()
    }

    /// A claim was not kept: who had these turns has not had them. What later claims took stays.
    pub fn give_back(&mut self, taken: &[Taken]) {
        for Taken { party, turn, before } in taken.iter().rev() {
            if self.last.get(party) == Some(turn) {
                match before {
                    0 => drop(self.last.remove(party)),
                    _ => drop(self.last.insert(*party, *before)),
                }
            }
        }
    }

    /// A task of this owner was handed out.
    pub fn took(&mut self, owner: Owner) {
        self.count += 1;
        let (party, turn) = (owner.party(), self.count);
        let before = self.last.insert(party, turn).unwrap_or(0);
        self.taken.push(Taken { party, turn, before });
        if self.last.len() > PARTIES_MAX {
            let oldest = self.last.iter().min_by_key(|(_, turn)| **turn).map(|(party, _)| *party);
            oldest.map(|party| self.last.remove(&party));
        }
    }

    fn of(&self, owner: Owner) -> u64 {
        self.last.get(&owner.party()).copied().unwrap_or(0)
    }
}

/// The one of these heads that goes first, by its place among them.
pub fn first<'h>(
    heads: impl IntoIterator<Item = (&'h LaneKey, &'h Head)>,
    turns: &Turns,
    now: WallTime,
) -> Option<&'h Head> {
    let best = heads.into_iter().min_by_key(|(lane, head)| {
        let level = level(lane.priority, head.ready_at, now);
        (std::cmp::Reverse(level), turns.of(lane.owner), head.ready_at, head.task)
    });
    best.map(|(_, head)| head)
}

#[cfg(test)]
#[path = "order_bound.rs"]
mod bound;

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use crate::id::{LaneId, TaskId, UserId};
    use crate::name::Selector;

    fn owner(number: u8) -> Owner {
        Owner { token: None, user: Some(UserId::mint(1, &[number; 10])) }
    }

    fn lane(person: u8, priority: u8) -> LaneKey {
        LaneKey {
            owner: owner(person),
            kind: Kind::command(),
            priority: Priority::new(priority).expect("a priority"),
            selector: Selector::default(),
            prefer: Selector::default(),
            excluded: std::collections::BTreeSet::new(),
        }
    }

    fn head(number: u8, ready_at: i64) -> Head {
        let task = TaskId::mint(1, &[number; 10]);
        Head { lane: LaneId(u64::from(number)), ready_at: WallTime(ready_at), task }
    }

    fn of(lanes: &[(LaneKey, Head)], turns: &Turns, now: i64) -> u64 {
        let heads = lanes.iter().map(|(lane, head)| (lane, head));
        first(heads, turns, WallTime(now)).expect("one").lane.0
    }

    #[test]
    fn waiting_gives_levels_up_to_eight_and_never_nine() {
        let age = |periods: u64| WallTime((periods * AGEING_MS) as i64);
        for (priority, periods, expected) in
            [(1, 0, 1), (1, 6, 7), (1, 7, 8), (1, 1_000, 8), (8, 9, 8), (9, 0, 9)]
        {
            let priority = Priority::new(priority).expect("a priority");
            assert_eq!(level(priority, WallTime(0), age(periods)), expected, "{priority} after {periods}");
        }
        assert_eq!(level(Priority::DEFAULT, WallTime(1_000), WallTime(0)), 5, "a clock that went back");
        assert_eq!(level(Priority::DEFAULT, WallTime(i64::MIN), WallTime(i64::MAX)), 8);
        assert_eq!(ripe_ms(Priority::new(1).expect("a priority")), 7 * AGEING_MS);
        assert_eq!(ripe_ms(Priority::URGENT), 0);
    }

    #[test]
    fn nine_goes_before_all_then_the_level_then_the_age() {
        let ripe = (7 * AGEING_MS) as i64;
        let lanes = [(lane(1, 1), head(1, 0)), (lane(1, 8), head(2, 5)), (lane(1, 9), head(3, ripe))];
        assert_eq!(of(&lanes, &Turns::default(), ripe), 3);
        assert_eq!(of(&lanes[..2], &Turns::default(), ripe - 1), 2, "the higher level");
        assert_eq!(of(&lanes[..2], &Turns::default(), ripe), 1, "the same level, and older");
    }

    #[test]
    fn among_equals_parties_take_turns() {
        let lanes = [(lane(1, 5), head(1, 0)), (lane(2, 5), head(2, 50)), (lane(3, 5), head(3, 90))];
        let mut turns = Turns::default();
        let order: Vec<u64> = (0..7)
            .map(|_| {
                let next = of(&lanes, &turns, 100);
                turns.took(lanes[next as usize - 1].0.owner);
                next
            })
            .collect();
        assert_eq!(order, [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn turns_of_a_claim_that_is_not_kept_are_given_back_and_later_ones_stay() {
        let mut turns = Turns::default();
        let last = |turns: &Turns| [1, 2, 3].map(|person| turns.of(owner(person)));
        turns.took(owner(1));
        turns.begin();
        [1, 2, 1].map(owner).into_iter().for_each(|owner| turns.took(owner));
        let lost = turns.taken();
        turns.begin();
        [2, 3].map(owner).into_iter().for_each(|owner| turns.took(owner));
        turns.give_back(&lost);
        assert_eq!(last(&turns), [1, 5, 6], "the turn before, the later one, and a stranger's");
        let kept = turns.taken();
        turns.give_back(&kept);
        assert_eq!(last(&turns), [1, 3, 0], "of the lost one nothing but its number is left");
    }

    #[test]
    fn tokens_of_one_person_are_one_party_and_tokens_of_nobody_are_not() {
        use crate::id::TokenId;
        let token = |number| Some(TokenId::mint(1, &[number; 10]));
        let (a, b) = (Owner { token: token(1), ..owner(1) }, Owner { token: token(2), ..owner(1) });
        assert_eq!(a.party(), b.party());
        let alone = |number| Owner { token: token(number), user: None };
        assert_ne!(alone(1).party(), alone(2).party());
    }
}
