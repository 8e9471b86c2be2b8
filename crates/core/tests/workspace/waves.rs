//! Waves over disks of nodes, with the planner itself: whoever carries steps out keeps nothing in mind
//! between two of them, and is cut off in the middle of any. What is left are rows, the trees that the hub
//! holds, and the disks. `CORTEX_ROUNDS=100000` plays more of them.

use cortex_core::workspace::{MemberState, Mode, Role};
use proptest::prelude::*;

use super::rounds;
use super::trees::{Edit, edits};
use super::world::{Act, Cut, NODES, World};

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        6 => Just(Cut::None),
        1 => Just(Cut::BeforeRow),
        2 => (0_usize..8).prop_map(Cut::InApply),
        1 => (0_usize..8, edits(false, 3)).prop_map(|(at, edits)| Cut::Meddled(at, edits)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let node = || 0..NODES;
    prop_oneof![
        12 => (node(), cut()).prop_map(|(node, cut)| Act::Work { node, cut }),
        5 => (node(), edits(false, 4), any::<bool>())
            .prop_map(|(node, edits, told)| Act::Write { node, edits, told }),
        2 => edits(false, 4).prop_map(Act::Edit),
        2 => (node(), any::<bool>()).prop_map(|(node, up)| Act::Net { node, up }),
        1 => Just(Act::Lock),
        1 => Just(Act::Unlock),
        1 => (node(), any::<bool>()).prop_map(|(node, repair)| Act::Resync { node, repair }),
        1 => node().prop_map(Act::Accept),
        1 => (0_u8..12).prop_map(Act::Detach),
        1 => any::<prop::sample::Index>().prop_map(Act::Restore),
    ]
}

fn mode(is_hub: bool) -> Mode {
    if is_hub { Mode::HubPrimary } else { Mode::NodePrimary }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(256), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r16_1_a_wave_that_is_cut_at_any_moment_resumes_from_rows_alone_ends_and_loses_nothing(
        is_hub in prop::bool::weighted(0.75),
        acts in prop::collection::vec(act(), 0..60),
    ) {
        let mut world = World::new(mode(is_hub), false);
        for act in &acts {
            world.play(act);
        }
        world.settle();
        world.check_settled();
    }

    /// What a sync wrote itself is never taken for what a node changed.
    #[test]
    fn r16_1_who_writes_in_a_folder_of_his_own_has_no_conflict_however_often_waves_are_cut(
        is_hub in prop::bool::weighted(0.75),
        acts in prop::collection::vec(act(), 0..60),
    ) {
        let mut world = World::new(mode(is_hub), true);
        for act in &acts {
            world.play(act);
        }
        world.settle();
        world.check_settled();
        world.check_no_conflict();
    }
}

proptest! {
    // Each case plays seventy-two waves.
    #![proptest_config(ProptestConfig { cases: rounds(16).div_ceil(16), failure_persistence: None, ..ProptestConfig::default() })]

    /// The same wave, cut after each number of steps in turn.
    #[test]
    fn r16_1_every_prefix_of_a_wave_may_be_the_last_before_a_crash(
        is_hub in any::<bool>(),
        before in edits(false, 8),
        first in edits(false, 6),
        second in edits(false, 6),
        at in 0_usize..8,
    ) {
        for steps in 0..24 {
            for cut in [Cut::BeforeRow, Cut::InApply(at), Cut::None] {
                let mut world = World::new(mode(is_hub), false);
                world.write(0, &before);
                world.settle();
                // Two peers, or the lead alone.
                world.write(0, &first);
                world.write(if is_hub { 1 } else { 0 }, &second);
                (0..NODES).for_each(|number| world.tell(number));
                for step in 0..steps {
                    world.work(step % NODES, &Cut::None);
                }
                world.work(steps % NODES, &cut);
                world.settle();
                world.check_settled();
                for row in &world.rows.members {
                    let state = row.state(&world.rows.ws);
                    prop_assert!([MemberState::InSync, MemberState::Conflict].contains(&state), "{:?}", row);
                }
            }
        }
    }
}

fn put(world: &mut World, node: Option<u8>, path: &str, content: u8) {
    world.put(node, path, Some(content));
}

#[test]
fn a_node_that_was_half_written_when_the_head_moved_on_is_not_taken_for_one_that_changed() {
    for number in [1, 3] {
        let mut world = World::new(Mode::HubPrimary, false);
        put(&mut world, None, "a", 1);
        put(&mut world, None, "b", 1);
        world.settle();
        put(&mut world, None, "a", 2);
        put(&mut world, None, "b", 2);
        world.work(number, &Cut::InApply(1));
        put(&mut world, None, "a", 3);
        world.put(None, "b", None);
        world.settle();
        world.check_settled();
        world.check_no_conflict();
        assert_eq!(world.rows.member(number).expect("a member").state(&world.rows.ws), MemberState::InSync);
    }
}

#[test]
fn what_peers_wrote_to_one_file_is_there_twice_everywhere_and_once_each() {
    let mut world = World::new(Mode::HubPrimary, false);
    put(&mut world, None, "تقرير.txt", 1);
    world.settle();
    put(&mut world, Some(0), "تقرير.txt", 2);
    put(&mut world, Some(1), "تقرير.txt", 3);
    world.settle();
    world.check_settled();
    let paths: Vec<String> = world.head().keys().map(ToString::to_string).collect();
    assert_eq!(paths, ["تقرير.conflict-n1-3.txt", "تقرير.txt"]);
    let made = world.rows.revisions.len();
    for _ in 0..5 {
        world.settle();
    }
    assert_eq!(world.rows.revisions.len(), made, "nobody changes anything, and nothing changes");
}

#[test]
fn a_node_that_never_rests_neither_starves_nor_is_starved() {
    let mut world = World::new(Mode::HubPrimary, false);
    world.settle();
    for round in 0..12_u8 {
        // It writes again before each step that is taken with it.
        put(&mut world, Some(0), "log", 100 + round);
        world.tell(0);
        if round == 3 {
            put(&mut world, None, "new", 1);
        }
        world.work(0, &Cut::None);
    }
    assert!(world.disk(0).contains_key(&super::disk::rel("new")), "what the hub has comes to it");
    assert!(world.head().contains_key(&super::disk::rel("log")), "what it has comes to the hub");
}

#[test]
fn a_follower_that_was_changed_drifts_and_the_others_do_not() {
    let mut world = World::new(Mode::HubPrimary, false);
    put(&mut world, None, "a", 1);
    world.settle();
    put(&mut world, Some(3), "a", 2);
    world.settle();
    world.check_settled();
    let states: Vec<MemberState> = world.rows.members.iter().map(|row| row.state(&world.rows.ws)).collect();
    assert_eq!(states, [MemberState::InSync, MemberState::InSync, MemberState::InSync, MemberState::Drifted]);
    assert_eq!(world.rows.member(3).expect("a member").role, Role::Follower);
}

#[test]
fn edits_of_these_tests_reach_every_kind() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut kinds = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let tree = edits(false, 8).new_tree(&mut runner).expect("a value");
        for edit in proptest::strategy::ValueTree::current(&tree) {
            kinds.insert(match edit {
                Edit::Put(..) => "put",
                Edit::Make(..) => "make",
                Edit::Remove(_) => "remove",
                Edit::Rename(..) => "rename",
                Edit::Retype(..) => "retype",
                Edit::Chmod(_) => "chmod",
                Edit::Hide(..) => "hide",
            });
        }
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

#[test]
fn a_file_that_was_to_take_the_place_of_a_folder_does_so_after_a_crash_between_the_two() {
    let mut world = World::new(Mode::HubPrimary, false);
    world.make("A");
    put(&mut world, None, "b", 1);
    world.settle();
    put(&mut world, None, "A", 2);
    world.work(3, &Cut::InApply(1));
    assert!(
        !world.disk(3).contains_key(&super::disk::rel("A")),
        "the folder is gone, and the file is not there"
    );
    world.settle();
    world.check_settled();
}

#[test]
fn a_folder_that_somebody_makes_first_is_agreed_on_with_what_was_put_in_it() {
    let mut world = World::new(Mode::HubPrimary, false);
    world.make("مجلد");
    put(&mut world, None, "مجلد/a", 1);
    world.play(&Act::Lock);
    world.work(2, &Cut::None);
    world.work(2, &Cut::Made("مجلد"));
    world.settle();
    world.check_settled();
}

#[test]
fn who_takes_back_what_a_sync_is_writing_has_changed_it() {
    let mut world = World::new(Mode::HubPrimary, false);
    put(&mut world, None, "a", 1);
    // It sends its empty folder, which is taken over, and is given the file.
    for _ in 0..3 {
        world.work(1, &Cut::None);
    }
    world.work(1, &Cut::Undone);
    world.settle();
    world.check_settled();
    assert!(world.head().is_empty(), "its removal is one");
}
