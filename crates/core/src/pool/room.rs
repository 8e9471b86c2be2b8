//! Which node is asked first, and when the clock is looked at next. Facts of the moment are given.

use super::lane::LaneKey;
use crate::id::NodeId;
use crate::name::Labels;
use crate::time::{Timestamp, WallTime};

/// A node that may be given something.
#[derive(Clone, Copy, Debug)]
pub struct Room<'n> {
    /// Which.
    pub node: NodeId,
    /// Its labels.
    pub labels: &'n Labels,
    /// How many more tasks it takes.
    pub free: usize,
}

/// Those with room, the one with most of it first.
pub fn in_turn<'n>(rooms: impl IntoIterator<Item = Room<'n>>) -> Vec<Room<'n>> {
    let mut rooms: Vec<Room<'n>> = rooms.into_iter().filter(|room| room.free > 0).collect();
    rooms.sort_by_key(|room| (std::cmp::Reverse(room.free), room.node));
    rooms
}

/// Whether tasks of this lane are for `here` at this moment: it suits, and none of those that are to be
/// asked first has room. `others` are nodes that may have them for all that is known.
pub fn is_for<'n>(lane: &LaneKey, here: Room<'n>, others: impl IntoIterator<Item = Room<'n>>) -> bool {
    let is_preferred = |room: &Room<'_>| lane.prefer.matches(room.labels);
    let could = |room: &Room<'_>| room.free > 0 && lane.suits(room.node, room.labels);
    lane.suits(here.node, here.labels)
        && (lane.prefer.is_all()
            || is_preferred(&here)
            || !others.into_iter().any(|room| is_preferred(&room) && could(&room)))
}

/// Longest sleep: what nobody tells of is noticed then, be it a wall clock that is set or a lock that
/// runs out.
pub const LOOK_EVERY_MS: u64 = 30_000;
/// Shortest, should a row be due that a decision does not find so.
const MOMENT_MS: u64 = 5;

/// How long nothing is due by the clock, milliseconds: of these times on the wall, and of leases.
pub fn sleep_ms(
    by_wall: impl IntoIterator<Item = WallTime>,
    wall: WallTime,
    next_lease: Option<Timestamp>,
    now: Timestamp,
) -> u64 {
    let until = |at: WallTime| u64::try_from(at.0.saturating_sub(wall.0)).unwrap_or(0);
    let lease = next_lease.map(|at| at.ms_since(now));
    let next = by_wall.into_iter().map(until).chain(lease).min();
    next.map_or(LOOK_EVERY_MS, |ms| ms.clamp(MOMENT_MS, LOOK_EVERY_MS))
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Owner, Priority};
    use super::*;
    use crate::name::Selector;

    fn node(number: u8) -> NodeId {
        NodeId::mint(1, &[number; 10])
    }

    fn lane(selector: &str, prefer: &str) -> LaneKey {
        LaneKey {
            owner: Owner { token: None, user: None },
            kind: Kind::command(),
            priority: Priority::DEFAULT,
            selector: Selector::parse(selector).expect("a selector"),
            prefer: Selector::parse(prefer).expect("a selector"),
            excluded: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn the_node_with_most_room_is_asked_first_and_a_full_one_not_at_all() {
        let labels = Labels::new();
        let room = |number, free| Room { node: node(number), labels: &labels, free };
        let turn = in_turn([room(1, 1), room(2, 0), room(3, 4), room(4, 1)]);
        assert_eq!(turn.iter().map(|room| room.node).collect::<Vec<_>>(), [node(3), node(1), node(4)]);
    }

    #[test]
    fn a_node_that_is_not_preferred_has_a_task_only_when_no_preferred_one_has_room() {
        let (gpu, none) = (Labels::from([("gpu".to_owned(), "1".to_owned())]), Labels::new());
        let here = Room { node: node(1), labels: &none, free: 1 };
        let other = |free| Room { node: node(2), labels: &gpu, free };
        let wants = lane("", "gpu=1");
        assert!(!is_for(&wants, here, [here, other(1)]));
        assert!(is_for(&wants, here, [here, other(0)]), "it is full");
        assert!(is_for(&wants, other(1), [here, other(1)]));
        assert!(is_for(&lane("", ""), here, [other(1)]) && !is_for(&lane("gpu=1", ""), here, []));
        let excluded = LaneKey { excluded: [node(2)].into(), ..wants };
        assert!(is_for(&excluded, here, [other(1)]), "it must not have it");
    }

    #[test]
    fn the_next_look_is_at_what_is_due_first_and_never_far_away() {
        let sleep = |by_wall: &[i64], lease: Option<u64>| {
            let by_wall = by_wall.iter().map(|at| WallTime(*at));
            sleep_ms(by_wall, WallTime(1_000), lease.map(Timestamp), Timestamp(50))
        };
        assert_eq!(sleep(&[1_300, 1_200], Some(500)), 200);
        assert_eq!(sleep(&[1_300], Some(100)), 50);
        assert_eq!(sleep(&[i64::MIN], None), MOMENT_MS, "a clock that went ahead");
        assert_eq!((sleep(&[i64::MAX], None), sleep(&[], None)), (LOOK_EVERY_MS, LOOK_EVERY_MS));
    }
}
