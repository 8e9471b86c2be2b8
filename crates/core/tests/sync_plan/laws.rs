//! What holds for any three trees. `CORTEX_ROUNDS=100000` plays more of them.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::files::content::ContentId;
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Act, End, Entry, Mode, NameRules, Plan, Push, Seen, Step, Why, plan};
use proptest::prelude::*;

use super::disk::Disk;
use super::trees::{World, edits, play, worlds};

#[expect(clippy::disallowed_methods, reason = "a test may be told how long to play")]
fn rounds() -> u32 {
    std::env::var("CORTEX_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(256)
}

fn modes() -> impl Strategy<Value = Mode> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    prop_oneof![
        4 => Just(Mode::TwoWay),
        2 => Just(Mode::Merge),
        2 => any::<bool>().prop_map(|repair| Mode::FromHub { repair }),
        1 => Just(Mode::FromNode),
        3 => flags.prop_map(|(first, force, delete)| Mode::Push(Push { first, force, delete })),
    ]
}

/// Whether the mode keeps what the target changed by itself.
fn keeps_changes(mode: Mode) -> bool {
    match mode {
        Mode::TwoWay | Mode::Merge | Mode::FromHub { .. } => true,
        Mode::FromNode => false,
        Mode::Push(push) => !push.force && !push.first,
    }
}

fn content(entry: Option<&Entry>) -> Option<ContentId> {
    match entry {
        Some(Entry::File { id, .. }) => Some(*id),
        Some(Entry::Link { target }) => Some(ContentId::of(target)),
        Some(Entry::Dir) | None => None,
    }
}

fn contents(disk: &Disk) -> BTreeSet<ContentId> {
    disk.entries.values().filter_map(|seen| content(seen.entry())).collect()
}

/// What somebody wrote on a side since it was agreed on, by path.
fn changes(world: &World, disk: &Disk) -> BTreeMap<RelPath, ContentId> {
    let changed = |path: &RelPath, seen: &Seen| {
        let id = content(seen.entry())?;
        (content(world.agreed.get(path)) != Some(id)).then(|| (path.clone(), id))
    };
    disk.entries.iter().filter_map(|(path, seen)| changed(path, seen)).collect()
}

fn steps(plan: &Plan) -> impl Iterator<Item = (End, &Step)> {
    let hub = plan.to_hub.iter().map(|step| (End::Hub, step));
    hub.chain(plan.to_node.iter().map(|step| (End::Node, step)))
}

fn is_or_is_below(path: &RelPath, all: &BTreeSet<&RelPath>) -> bool {
    all.iter().any(|above| path.below(above).is_some())
}

/// P3: what somebody wrote is on every side that is written, or where it was when it is held.
fn nothing_is_lost(before: &World, plan: &Plan, after: &World) -> Result<(), TestCaseError> {
    let held: BTreeSet<&RelPath> = plan.held.iter().map(|held| &held.path).collect();
    for (own, was, is, across) in
        [(End::Hub, &before.hub, &after.hub, &after.node), (End::Node, &before.node, &after.node, &after.hub)]
    {
        if own == End::Node && !keeps_changes(before.mode) || own == End::Hub && before.mode == Mode::FromNode
        {
            continue;
        }
        let (here, there) = (contents(is), contents(across));
        for (path, id) in changes(before, was) {
            prop_assert!(here.contains(&id), "{:?} lost {}", own, path);
            let is_held = is_or_is_below(&path, &held);
            let crosses = before.mode == Mode::TwoWay || before.mode == Mode::Merge && own == End::Node;
            let must_cross = crosses && !is_held;
            prop_assert!(!must_cross || there.contains(&id), "{:?} does not hand on {}", own, path);
            prop_assert!(!is_held || content(is.entry(&path)) == Some(id), "held and changed: {}", path);
        }
    }
    Ok(())
}

/// P4: only what is as it was agreed on is removed or replaced.
fn only_the_agreed_goes(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    if !keeps_changes(world.mode) {
        return Ok(());
    }
    for (end, step) in steps(plan) {
        let agreed = world.agreed.get(&step.path);
        match &step.act {
            Act::RemoveFile | Act::RemoveDir => {
                prop_assert_eq!(step.expect.entry(), agreed, "{:?} {:?}", end, step);
            }
            Act::Put(_) if step.expect != Seen::Absent => {
                prop_assert_eq!(content(step.expect.entry()), content(agreed), "{:?} {:?}", end, step);
            }
            Act::Put(_) | Act::MakeDir | Act::Exec(_) | Act::Keep { .. } => {}
        }
    }
    Ok(())
}

/// P8: nothing is done at what is held, nor anything to the folders that hold it.
fn the_held_is_untouched(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    for held in &plan.held {
        for (end, step) in steps(plan) {
            prop_assert!(step.path != held.path, "{:?} {:?} {:?}", end, step, held);
            let disk = if end == End::Hub { &world.hub } else { &world.node };
            let is_there = disk.entries.contains_key(&held.path);
            prop_assert!(
                !is_there || held.path.below(&step.path).is_none(),
                "{:?} {:?} is above {:?}",
                end,
                step,
                held
            );
            // A folder that only stays because of something in it loses the rest.
            let frozen = held.why != Why::Contains && step.path.below(&held.path).is_some();
            let lies_in_a_folder_that_drifted = matches!(held.why, Why::Drift | Why::Kept | Why::Conflict);
            prop_assert!(
                !frozen || lies_in_a_folder_that_drifted,
                "{:?} {:?} is below {:?}",
                end,
                step,
                held
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::with_cases(rounds())
    })]

    #[test]
    fn p1_p7_p9_a_plan_ends_is_short_never_writes_a_source_and_is_the_same_twice(world in worlds(modes())) {
        let plan = world.accepted();
        let paths: BTreeSet<&RelPath> =
            world.agreed.keys().chain(world.hub.entries.keys()).chain(world.node.entries.keys()).collect();
        for (end, steps) in [(End::Hub, &plan.to_hub), (End::Node, &plan.to_node)] {
            // A change of kind takes two steps, and so does a copy.
            prop_assert!(steps.len() <= 2 * paths.len());
            prop_assert!(steps.is_empty() || world.mode.writes(end));
        }
        prop_assert_eq!(plan.counts.total(), paths.len() as u64);
        prop_assert_eq!(&world.accepted(), &plan);
        let order = |plan: &Plan| plan.held.windows(2).all(|pair| pair[0].path < pair[1].path);
        prop_assert!(order(&plan), "held in order");
    }

    #[test]
    fn p2_p5_a_plan_can_be_carried_out_and_then_there_is_nothing_to_do(world in worlds(modes())) {
        let first = world.accepted();
        let mut after = world.clone();
        let mut disks = (world.hub.clone(), world.node.clone());
        for (end, step) in steps(&first) {
            let disk = if end == End::Hub { &mut disks.0 } else { &mut disks.1 };
            disk.apply(step).map_err(TestCaseError::fail)?;
            prop_assert_eq!(disk.entries.get(&step.path).unwrap_or(&Seen::Absent), &step.after());
        }
        after.carry_out(&first).map_err(TestCaseError::fail)?;
        if let Mode::Push(push) = &mut after.mode {
            push.first = false;
        }
        let second = after.accepted();
        prop_assert_eq!(steps(&second).collect::<Vec<_>>(), vec![], "after {:?}", first);
        prop_assert_eq!(&second.agreed, &vec![]);
        if matches!(world.mode, Mode::TwoWay | Mode::FromNode) {
            let held: BTreeSet<&RelPath> = second.held.iter().map(|held| &held.path).collect();
            for path in after.hub.entries.keys().chain(after.node.entries.keys()) {
                let (hub, node) = (after.hub.entry(path), after.node.entry(path));
                prop_assert!(hub == node || held.contains(path), "{}: {:?} {:?}", path, hub, node);
                prop_assert!(hub != node || held.contains(path) || after.agreed.get(path) == hub, "{}", path);
            }
        }
        for path in after.agreed.keys() {
            let folder = path.parent().expect("not the root");
            prop_assert!(folder.is_root() || after.agreed.get(&folder) == Some(&Entry::Dir), "{} agreed on", path);
        }
    }

    #[test]
    fn p3_p4_p8_what_somebody_wrote_is_kept_and_what_is_held_is_untouched(world in worlds(modes())) {
        let plan = world.accepted();
        only_the_agreed_goes(&world, &plan)?;
        the_held_is_untouched(&world, &plan)?;
        let mut after = world.clone();
        after.carry_out(&plan).map_err(TestCaseError::fail)?;
        nothing_is_lost(&world, &plan, &after)?;
    }

    #[test]
    fn p6_sides_may_be_swapped_but_for_the_version_that_keeps_its_name(world in worlds(Just(Mode::TwoWay))) {
        let world = World { names: NameRules::default(), ..world };
        let swapped = World { hub: world.node.clone(), node: world.hub.clone(), ..world.clone() };
        let (one, other) = (world.accepted(), swapped.accepted());
        let touched: BTreeSet<RelPath> = [&one, &other]
            .into_iter()
            .flat_map(|plan| &plan.conflicts)
            .flat_map(|conflict| [Some(conflict.path.clone()), conflict.copy.clone()])
            .flatten()
            .collect();
        let rest = |steps: &[Step]| -> Vec<Step> {
            steps.iter().filter(|step| !touched.contains(&step.path)).cloned().collect()
        };
        prop_assert_eq!(rest(&one.to_hub), rest(&other.to_node));
        prop_assert_eq!(rest(&one.to_node), rest(&other.to_hub));
        prop_assert_eq!(&one.held, &other.held);
        let paths = |plan: &Plan| plan.conflicts.iter().map(|conflict| conflict.path.clone()).collect::<Vec<_>>();
        prop_assert_eq!(paths(&one), paths(&other));
    }

    #[test]
    fn p10_a_plan_that_was_cut_short_and_edits_in_between_lose_nothing(
        world in worlds(modes()),
        cut_hub in any::<prop::sample::Index>(),
        cut_node in any::<prop::sample::Index>(),
        hub in edits(true, 4),
        node in edits(true, 4),
    ) {
        let first = world.accepted();
        let mut between = world.clone();
        let cut = |steps: &[Step], at: &prop::sample::Index| steps[..at.index(steps.len() + 1)].to_vec();
        between.hub.apply_all(&cut(&first.to_hub, &cut_hub)).map_err(TestCaseError::fail)?;
        between.node.apply_all(&cut(&first.to_node, &cut_node)).map_err(TestCaseError::fail)?;
        let somewhere: BTreeSet<ContentId> =
            contents(&between.hub).union(&contents(&between.node)).copied().collect();
        let written = |own: &Disk| changes(&world, own);
        if keeps_changes(world.mode) {
            for (path, id) in written(&world.hub).into_iter().chain(written(&world.node)) {
                prop_assert!(somewhere.contains(&id), "lost half way: {}", path);
            }
        }
        play(&mut between.hub, &hub);
        play(&mut between.node, &node);
        let second = between.accepted();
        only_the_agreed_goes(&between, &second)?;
        the_held_is_untouched(&between, &second)?;
        let mut after = between.clone();
        after.carry_out(&second).map_err(TestCaseError::fail)?;
        nothing_is_lost(&between, &second, &after)?;
    }

    #[test]
    fn a_merge_is_the_hubs_half_and_a_push_over_it_is_the_nodes(world in worlds(Just(Mode::Merge))) {
        let both = World { mode: Mode::TwoWay, ..world.clone() }.accepted();
        let first = world.accepted();
        prop_assert_eq!(&first.to_hub, &both.to_hub);
        prop_assert_eq!(&first.to_node, &vec![]);
        let mut whole = World { mode: Mode::TwoWay, ..world.clone() };
        whole.carry_out(&both).map_err(TestCaseError::fail)?;
        let mut halves = world.clone();
        halves.carry_out(&first).map_err(TestCaseError::fail)?;
        halves.mode = Mode::Push(Push { first: false, force: false, delete: true });
        let second = halves.accepted();
        halves.carry_out(&second).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&halves.hub, &whole.hub);
        // What is held in a folder that is a file on the node is not agreed on after a merge; a folder around
        // it that the node removed comes back then.
        let ends = |path: &RelPath| first.agreed.contains(&(path.clone(), None));
        let mut gone = first.held.iter().map(|held| &held.path).filter(|path| ends(path)).peekable();
        if gone.peek().is_some() {
            let is_on_node = |path: &RelPath| world.node.entries.keys().any(|leaf| path.below(leaf).is_some());
            prop_assert!(gone.all(is_on_node), "{:?}", first.agreed);
            prop_assert!(contents(&halves.node).is_superset(&contents(&whole.node)));
            return Ok(());
        }
        prop_assert_eq!(&halves.node, &whole.node);
        prop_assert_eq!(&halves.agreed, &whole.agreed);
    }

    #[test]
    fn folders_that_are_the_same_may_be_left_out(world in worlds(modes())) {
        let whole = world.accepted();
        let (agreed, hub, node) = world.pruned();
        let pruned = world.with(&agreed, &hub, &node, |inputs| {
            let first = plan(inputs);
            let accepted = first.halt.as_ref().map(|halt| halt.id);
            if accepted.is_some() { plan(&cortex_core::sync::Inputs { accepted, ..*inputs }) } else { first }
        });
        prop_assert_eq!(&pruned.to_hub, &whole.to_hub);
        prop_assert_eq!(&pruned.to_node, &whole.to_node);
        prop_assert_eq!(&pruned.agreed, &whole.agreed);
        prop_assert_eq!(&pruned.held, &whole.held);
    }
}
