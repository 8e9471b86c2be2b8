//! The safety rules of SYNC that the planner keeps, each by name, with the smallest trees that show it.

use std::collections::BTreeMap;

use cortex_core::files::path::RelPath;
use cortex_core::id::Revision;
use cortex_core::sync::{
    Act, Cause, DeleteLimits, End, Entry, Inputs, Mode, NameRules, Plan, Problem, Push, RootState, Rule,
    Seen, Side, SideCounts, Step, Why, plan,
};

use super::disk::{counts, rel};
use super::trees::{file, link};

type Tree = BTreeMap<RelPath, Seen>;

/// A tree of paths: `a/` is a folder, `a=3` a file of content 3, `a` one of content 0, `a*` one that may
/// be executed, `a?` is ignored and `a!` cannot be read. Folders above are there by themselves.
fn tree(text: &str) -> Tree {
    let mut all = Tree::new();
    for word in text.split_whitespace() {
        let (path, seen) = match word.split_once('=') {
            Some((path, content)) => (path, Seen::Entry(file(content.parse().expect("a number"), false))),
            None if word.ends_with('/') => (&word[..word.len() - 1], Seen::Entry(Entry::Dir)),
            None if word.ends_with('*') => (&word[..word.len() - 1], Seen::Entry(file(0, true))),
            None if word.ends_with('?') => (&word[..word.len() - 1], Seen::Ignored),
            None if word.ends_with('!') => (&word[..word.len() - 1], Seen::Blocked(Problem::Unreadable)),
            None => (word, Seen::Entry(file(0, false))),
        };
        let mut folder = rel(path).parent();
        while let Some(above) = folder.filter(|folder| !folder.is_root()) {
            all.entry(above.clone()).or_insert(Seen::Entry(Entry::Dir));
            folder = above.parent();
        }
        all.insert(rel(path), seen);
    }
    all
}

struct Case {
    agreed: BTreeMap<RelPath, Entry>,
    hub: Tree,
    node: Tree,
    roots: [RootState; 2],
    mode: Mode,
    names: NameRules,
    limits: DeleteLimits,
}

impl Case {
    fn new(agreed: &str, hub: &str, node: &str) -> Self {
        let agreed = tree(agreed).into_iter().filter_map(|(path, seen)| Some((path, seen.entry()?.clone())));
        Self {
            agreed: agreed.collect(),
            hub: tree(hub),
            node: tree(node),
            roots: [RootState::Dir; 2],
            mode: Mode::TwoWay,
            names: NameRules::default(),
            limits: DeleteLimits::default(),
        }
    }

    fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    fn ask<T>(&self, change: impl FnOnce(Inputs<'_>) -> T) -> T {
        let of = |tree: &Tree| counts(tree.iter().filter_map(|(path, seen)| Some((path, seen.entry()?))));
        let side = |entries, root| Side { entries, counts: of(entries), root };
        change(Inputs {
            agreed: &self.agreed,
            agreed_counts: counts(self.agreed.iter()),
            hub: side(&self.hub, self.roots[0]),
            node: side(&self.node, self.roots[1]),
            mode: self.mode,
            limits: self.limits,
            names: self.names,
            node_name: "n1",
            revision: Revision(7),
            accepted: None,
        })
    }

    fn plan(&self) -> Plan {
        self.ask(|inputs| plan(&inputs))
    }

    /// The causes of the halt, after making sure that nothing at all is planned.
    fn halt(&self) -> Vec<(Rule, End)> {
        let plan = self.plan();
        let Some(halt) = plan.halt else { return vec![] };
        assert_eq!((plan.to_hub, plan.to_node, plan.agreed), (vec![], vec![], vec![]));
        halt.causes.iter().map(|cause| (cause.rule, cause.end)).collect()
    }
}

/// The steps as words: `+a` put, `=a` replaced, `a/` made, `-a` removed, `-a/`, `x a`, `a>b` kept.
fn words(steps: &[Step]) -> String {
    let word = |step: &Step| match (&step.act, &step.expect) {
        (Act::Put(_), Seen::Absent) => format!("+{}", step.path),
        (Act::Put(_), _) => format!("={}", step.path),
        (Act::MakeDir, _) => format!("{}/", step.path),
        (Act::RemoveFile, _) => format!("-{}", step.path),
        (Act::RemoveDir, _) => format!("-{}/", step.path),
        (Act::Exec(to), _) => format!("{}x{}", if *to { '+' } else { '-' }, step.path),
        (Act::Keep { copy }, _) => format!("{}>{}", step.path, copy.name()),
    };
    steps.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn held(plan: &Plan) -> Vec<(&str, Why)> {
    plan.held.iter().map(|held| (held.path.as_str(), held.why)).collect()
}

#[test]
fn the_same_trees_need_nothing() {
    for trees in ["", "a", "d/a=1 d/b* e/"] {
        let plan = Case::new(trees, trees, trees).plan();
        assert_eq!(Plan { counts: Plan::default().counts, ..plan }, Plan::default(), "{trees}");
    }
}

#[test]
fn each_side_is_given_what_the_other_changed() {
    for (agreed, hub, node, to_hub, to_node) in [
        ("", "d/a", "", "", "d/ +d/a"),
        ("", "", "d/a", "d/ +d/a", ""),
        ("a=1", "a=2", "a=1", "", "=a"),
        ("a=1", "a=1", "a=2", "=a", ""),
        ("a b", "a", "a b", "", "-b"),
        ("d/a d/b/c", "", "d/a d/b/c", "", "-d/b/c -d/b/ -d/a -d/"),
        ("a=1", "a=2", "a=2", "", ""),
        ("a", "a*", "a", "", "+xa"),
        // Both made the same, one of them executable.
        ("", "a", "a*", "+xa", ""),
        // One has a new content, the other set the bit: both get both.
        ("a=0", "a=1", "a*", "+xa", "=a"),
        // A file becomes a folder, and a folder a file.
        ("a", "a/b", "a", "", "-a a/ +a/b"),
        ("a/b", "a", "a/b", "", "-a/b -a/ +a"),
        // A move: the new name comes before the old one goes, so that it can be copied from there.
        ("d/a=1", "e/a=1", "d/a=1", "", "e/ +e/a -d/a -d/"),
    ] {
        let plan = Case::new(agreed, hub, node).plan();
        let found = (words(&plan.to_hub), words(&plan.to_node));
        assert_eq!(found, (to_hub.into(), to_node.into()), "{agreed} | {hub} | {node}");
        assert_eq!(plan.halt, None);
    }
}

#[test]
fn what_both_did_alike_is_agreed_on() {
    let plan = Case::new("a=1 b", "a=2", "a=2").plan();
    assert_eq!(plan.agreed, [(rel("a"), Some(file(2, false))), (rel("b"), None)]);
}

#[test]
fn sync_01_an_emptied_deleted_or_retyped_root_halts_and_nothing_is_planned() {
    let emptied = Case::new("a b", "a b", "");
    assert_eq!(emptied.halt(), [(Rule::RootEmptied, End::Node)]);
    assert_eq!(Case::new("a b", "", "a b").halt(), [(Rule::RootEmptied, End::Hub)]);
    assert_eq!(
        Case::new("a b", "", "a=1 b").halt(),
        [(Rule::RootEmptied, End::Hub)],
        "also if a part is kept"
    );
    assert_eq!(Case::new("a", "a", "").halt(), [], "one entry is no root that was emptied");
    assert_eq!(Case::new("a b", "a b", "a").halt(), [], "one of two");
    assert_eq!(Case::new("a b", "", "").halt(), [], "both sides: nothing is left to lose");
    for state in [RootState::Missing, RootState::OtherKind] {
        for (index, end) in [End::Hub, End::Node].into_iter().enumerate() {
            let mut gone = Case::new("a", "a", "a=1");
            gone.roots[index] = state;
            assert_eq!(gone.halt(), [(Rule::RootGone, end)]);
        }
    }
    // The push of an emptied folder with `--delete --force`: what rsync does with it.
    let force = Mode::Push(Push { first: true, force: true, delete: true });
    assert_eq!(Case::new("", "", "x y").mode(force).halt(), [(Rule::RootEmptied, End::Hub)]);
}

#[test]
fn sync_02_a_root_whose_marker_or_inode_changed_is_unavailable_and_deletes_nothing() {
    for tree in ["", "other", "a b c"] {
        let mut case = Case::new("a b c", "a b c", tree);
        case.roots[1] = RootState::Unavailable;
        assert!(case.halt().contains(&(Rule::RootUnavailable, End::Node)), "{tree}");
        let id = case.plan().halt.expect("a halt").id;
        let again = case.ask(|inputs| plan(&Inputs { accepted: Some(id), ..inputs }));
        assert!(again.halt.is_some() && again.to_hub.is_empty(), "nobody can accept it");
    }
}

fn many(from: u32, to: u32) -> String {
    (from..to).map(|number| format!("f{number}={}", number % 200)).collect::<Vec<_>>().join(" ")
}

#[test]
fn sync_03_deleting_more_than_half_or_a_thousand_files_halts() {
    for (all, left, halts) in
        [(20, 10, false), (20, 9, true), (19, 1, false), (3_000, 2_000, false), (3_000, 1_999, true)]
    {
        let (agreed, rest) = (many(0, all), many(0, left));
        let on_hub = Case::new(&agreed, &agreed, &rest);
        assert_eq!(
            on_hub.halt(),
            if halts { vec![(Rule::Deletes, End::Hub)] } else { vec![] },
            "{all} {left}"
        );
        let on_node = Case::new(&agreed, &rest, &agreed);
        assert_eq!(
            on_node.halt(),
            if halts { vec![(Rule::Deletes, End::Node)] } else { vec![] },
            "{all} {left}"
        );
    }
    let counted = Case::new(&many(0, 20), &many(0, 20), &many(0, 9)).plan().halt.expect("a halt");
    assert_eq!(counted.causes, [Cause { rule: Rule::Deletes, end: End::Hub, deletes: 11, of: 20 }]);
}

#[test]
fn a_folder_that_only_moves_is_no_removal() {
    let (before, after) = (many(0, 2_000), many(0, 2_000).replace('f', "moved/f"));
    let case = Case::new(&before, &after, &before);
    assert_eq!(case.halt(), []);
    assert_eq!(case.plan().to_node.len(), 4_001);
    // A thousand empty files that are one new file now: all but one are gone.
    let same = (0..30).map(|number| format!("f{number}=1")).collect::<Vec<_>>().join(" ");
    assert_eq!(Case::new(&same, "new=1 x=2", &same).halt(), [(Rule::Deletes, End::Node)]);
}

#[test]
fn a_persons_word_lets_the_halted_plan_pass_and_no_other() {
    let case = Case::new(&many(0, 30), &many(0, 30), &many(0, 9));
    let id = case.plan().halt.expect("a halt").id;
    let accepted = case.ask(|inputs| plan(&Inputs { accepted: Some(id), ..inputs }));
    assert_eq!((accepted.halt, accepted.to_hub.len()), (None, 21));
    for other in [many(0, 8), many(1, 10), String::new()] {
        let other = Case::new(&many(0, 30), &many(0, 30), &other);
        let halt = other.ask(|inputs| plan(&Inputs { accepted: Some(id), ..inputs })).halt;
        assert!(halt.is_some_and(|halt| halt.id != id));
    }
}

#[test]
fn sync_07_a_two_sided_change_keeps_both_and_deletion_never_beats_a_change() {
    let plan = Case::new("d/a.txt=1", "d/a.txt=2", "d/a.txt=3").plan();
    assert_eq!(words(&plan.to_node), "d/a.txt>a.conflict-n1-7.txt +d/a.txt");
    assert_eq!(words(&plan.to_hub), "+d/a.conflict-n1-7.txt");
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(plan.conflicts[0].copy, Some(rel("d/a.conflict-n1-7.txt")));
    let copies =
        [(rel("d/a.conflict-n1-7.txt"), Some(file(3, false))), (rel("d/a.txt"), Some(file(2, false)))];
    assert_eq!(plan.agreed, copies);
    for (agreed, hub, node, to_hub, to_node) in [
        ("a=1", "", "a=2", "+a", ""),
        ("a=1", "a=2", "", "", "+a"),
        // A folder that was removed comes back for the one file that changed.
        ("d/a=1 d/b", "", "d/a=2 d/b", "d/ +d/a", "-d/b"),
        // A file against a folder: the folder keeps the name.
        ("", "a", "a/b", "a>a.conflict-n1-7 a/ +a/b", "+a.conflict-n1-7"),
        ("a", "a=1", "a/b", "a>a.conflict-n1-7 a/ +a/b", "+a.conflict-n1-7"),
        ("a/b", "a=1", "a/b=2", "a>a.conflict-n1-7 a/ +a/b", "+a.conflict-n1-7"),
        // The name of the copy is taken on one side, or differs from one by case only.
        ("", "a=1", "a=2 a.conflict-n1-7=3", "+a.conflict-n1-7.1 +a.conflict-n1-7", "a>a.conflict-n1-7.1 +a"),
        (
            "A.CONFLICT-n1-7",
            "a=1 A.CONFLICT-n1-7",
            "a=2 A.CONFLICT-n1-7",
            "+a.conflict-n1-7.1",
            "a>a.conflict-n1-7.1 +a",
        ),
    ] {
        let plan = Case::new(agreed, hub, node).plan();
        let found = (words(&plan.to_hub), words(&plan.to_node));
        assert_eq!(found, (to_hub.into(), to_node.into()), "{agreed} | {hub} | {node}");
    }
}

#[test]
fn a_copy_that_no_path_has_room_for_is_not_made_and_both_stay() {
    let deep = vec!["d".repeat(250); 16].join("/");
    let path = format!("{deep}/{}", "f".repeat(70));
    let plan = Case::new("", &format!("{path}=1"), &format!("{path}=2")).plan();
    assert_eq!(held(&plan), [(path.as_str(), Why::NoCopyName)]);
    assert_eq!((words(&plan.to_hub), words(&plan.to_node)), (String::new(), String::new()));
}

#[test]
fn links_are_text_and_conflict_like_files() {
    let mut case = Case::new("", "", "");
    case.hub.insert(rel("l"), Seen::Entry(link("a")));
    case.node.insert(rel("l"), Seen::Entry(link("../b")));
    let plan = case.plan();
    assert_eq!(words(&plan.to_node), "l>l.conflict-n1-7 +l");
    assert_eq!(words(&plan.to_hub), "+l.conflict-n1-7");
}

#[test]
fn sync_09_what_is_ignored_is_neither_sent_nor_deleted() {
    for (agreed, hub, node, to_hub, to_node) in [
        ("", "", "a?", "", ""),
        // Newly ignored on the node: that is no removal, and what the hub has is not sent anew.
        ("a=1", "a=1", "a?", "", ""),
        ("a=1", "a=2", "a?", "", ""),
        ("d/a d/b", "d/a=1 d/b", "d?", "", ""),
        // A folder that goes stays around what is ignored.
        ("d/a", "", "d/a d/x?", "", "-d/a"),
        ("d/e/a b", "b", "d/e/a d/e/x? b", "", "-d/e/a"),
        // It would become a file: not over what is ignored.
        ("d/a", "d", "d/a d/x?", "", "-d/a"),
    ] {
        let plan = Case::new(agreed, hub, node).plan();
        let found = (words(&plan.to_hub), words(&plan.to_node));
        assert_eq!(found, (to_hub.into(), to_node.into()), "{agreed} | {hub} | {node}");
    }
    let plan = Case::new("d/a", "", "d/a d/x?").plan();
    assert_eq!(held(&plan), [("d", Why::Contains), ("d/x", Why::Ignored)]);
    assert_eq!(plan.agreed, [(rel("d/a"), None)]);
}

#[test]
fn sync_10_names_that_collide_on_the_target_are_reported_and_none_is_written() {
    let folds = NameRules { fold_case: true, windows: false };
    let mut case = Case::new("readme", "readme=1 README=2 Other d/x D/y", "readme");
    case.names = folds;
    let plan = case.plan();
    assert_eq!(words(&plan.to_node), "+Other");
    let collision = Why::Collision;
    let told =
        [("D", collision), ("D/y", Why::Below), ("README", collision), ("d", collision), ("d/x", Why::Below)];
    assert_eq!(held(&plan), [&told[..], &[("readme", collision)]].concat());
    // The same on a disk that tells them apart.
    case.names = NameRules::default();
    assert_eq!(words(&case.plan().to_node), "D/ d/ +D/y +Other +README +d/x =readme");
    // A name that is spelled anew is no collision: the old spelling makes place first.
    let mut case = Case::new("Src/a=1 x", "src/a=1 x", "Src/a=1 x");
    case.names = folds;
    assert_eq!(words(&case.plan().to_node), "-Src/a -Src/ src/ +src/a");
}

#[test]
fn a51_names_that_windows_has_not_are_reported_and_not_sent_there() {
    let mut case = Case::new("aux=1", "CON/x a:b ok aux=1", "aux=2");
    case.names.windows = true;
    let plan = case.plan();
    assert_eq!(words(&plan.to_node), "+ok");
    assert_eq!(held(&plan), [("CON", Why::Name), ("CON/x", Why::Below), ("a:b", Why::Name)]);
}

#[test]
fn sync_11_what_cannot_be_read_freezes_itself_and_all_below() {
    for (agreed, hub, node, to_hub, to_node) in [
        ("d/a d/b", "d/a=1 d/b d/c", "d!", "", ""),
        ("d/a d/b", "d/b", "d!", "", ""),
        ("a=1", "", "a!", "", ""),
        ("a=1", "a!", "a=2", "", ""),
        // All around it goes on.
        ("d/a d/b e", "e", "d/a! d/b e", "", "-d/b"),
        ("d/a d/b e", "d/a d/b=1 e", "d/a! d/b e=1", "=e", "=d/b"),
    ] {
        let plan = Case::new(agreed, hub, node).plan();
        let found = (words(&plan.to_hub), words(&plan.to_node));
        assert_eq!(found, (to_hub.into(), to_node.into()), "{agreed} | {hub} | {node}");
    }
    let plan = Case::new("d/a", "d/a=1", "d!").plan();
    assert_eq!(held(&plan), [("d", Why::Blocked(Problem::Unreadable)), ("d/a", Why::Below)]);
}

#[test]
fn sync_19_every_decision_is_counted_and_can_be_listed() {
    let plan = Case::new(
        "same a=1 b=1 c=1 m=0 d/x k=1",
        "same a=2 b=1 c=2 m=1 k=2",
        "same a=1 b=2 c=3 m* d/x d/i? k!",
    )
    .plan();
    let counts = &plan.counts;
    assert_eq!((counts.same, counts.to_node, counts.to_hub), (1, 2, 1));
    assert_eq!((counts.merged, counts.kept_both, counts.extra), (1, 1, 0));
    let held = [(Why::Ignored, 1), (Why::Blocked(Problem::Unreadable), 1), (Why::Contains, 1)];
    assert_eq!(counts.held, held.into());
    assert_eq!(counts.total(), 9);
    assert_eq!((plan.held.len(), plan.conflicts.len()), (3, 1));
}

#[test]
fn a_follower_is_not_written_where_it_drifted_until_it_is_repaired() {
    for (agreed, hub, node, plain, repaired) in [
        ("a=1", "a=2", "a=1", "=a", "=a"),
        ("a=1", "a=1", "a=2", "", "a>a.conflict-n1-7 +a"),
        ("a=1", "a=2", "a=3", "", "a>a.conflict-n1-7 +a"),
        ("a=1", "a=1", "", "", "+a"),
        ("a", "a", "a*", "", "-xa"),
        // What the hub does not have stays: the copy of a repair is such a file.
        ("", "", "x", "", ""),
        ("a=1", "", "a=2", "", ""),
        ("d/a d/b", "", "d/a d/b d/x", "-d/b -d/a", "-d/b -d/a"),
        // Nothing is put below its own file.
        ("d/a", "d/a d/b", "d", "", "d>d.conflict-n1-7 d/ +d/a +d/b"),
        ("a", "a=1", "a/x", "", ""),
    ] {
        for (repair, steps) in [(false, plain), (true, repaired)] {
            let plan = Case::new(agreed, hub, node).mode(Mode::FromHub { repair }).plan();
            assert_eq!(words(&plan.to_node), steps, "{agreed} | {hub} | {node} {repair}");
            assert_eq!(plan.to_hub, []);
        }
    }
    let plan = Case::new("a=1", "a=1", "a=2 x").mode(Mode::FromHub { repair: false }).plan();
    assert_eq!(held(&plan), [("a", Why::Drift), ("x", Why::Drift)]);
}

#[test]
fn the_hub_mirrors_a_node_that_leads() {
    for (agreed, hub, node, to_hub) in [
        ("a=1 b", "a=1 b", "a=2 b", "=a"),
        ("a=1 b", "a=3 b x", "a=2 b", "=a -x"),
        ("d/a b", "d/a b", "d b", "-d/a -d/ +d"),
        ("a b", "a b", "a? b", ""),
    ] {
        let plan = Case::new(agreed, hub, node).mode(Mode::FromNode).plan();
        assert_eq!(
            (words(&plan.to_hub).as_str(), plan.to_node),
            (to_hub, vec![]),
            "{agreed} | {hub} | {node}"
        );
    }
    assert_eq!(Case::new("a b", "a b", "").mode(Mode::FromNode).halt(), [(Rule::RootEmptied, End::Node)]);
}

#[test]
fn a_folder_that_a_merge_finds_gone_is_agreed_on_as_long_as_something_in_it_that_is_held() {
    for (agreed, hub, node, expected) in [
        ("a/x b", "a/y a/x? b", "b", vec![]),
        ("a/b/x a/z c", "a/b/x? a/b/y a/z c", "c", vec![("a/z", None)]),
        // A folder and a file at once cannot be agreed on.
        ("a/x b", "a/y a/x? b", "a=1 b", vec![("a", Some(file(1, false))), ("a/x", None)]),
    ] {
        let case = Case::new(agreed, hub, node).mode(Mode::Merge);
        let plan = case.plan();
        let changed: Vec<_> =
            plan.agreed.iter().map(|(path, after)| (path.as_str(), after.clone())).collect();
        assert_eq!(changed, expected, "{agreed} | {hub} | {node}");
    }
}

#[test]
fn a_push_replaces_at_first_and_keeps_later_what_the_node_changed() {
    let push = |first, force, delete| Mode::Push(Push { first, force, delete });
    let (first, later) = (push(true, false, false), push(false, false, false));
    let (force, delete, mirror) =
        (push(false, true, false), push(false, false, true), push(false, true, true));
    for (mode, agreed, hub, node, steps) in [
        (first, "", "a=1 d/b", "a=2 x d/y", "=a +d/b"),
        (later, "a=1", "a=2", "a=1 x", "=a"),
        (later, "a=1", "a=1", "a=2", ""),
        (later, "a=1", "a=2", "a=3", ""),
        (later, "a=1", "a=1", "", ""),
        (later, "a=1", "a=2", "", "+a"),
        (later, "a=1 b", "b", "a=1 b", ""),
        (later, "d/a", "d/a d/b", "", "d/ +d/b"),
        (force, "a=1", "a=2", "a=3 x", "=a"),
        (delete, "a=1 b=1", "a=1", "a=1 b=1 x", "-b"),
        (delete, "a=1 b=1", "a=1", "a=1 b=2 x", ""),
        (mirror, "a=1 b=1", "a=1", "a=2 b=2 x d/e", "=a -x -d/e -d/ -b"),
        (mirror, "", "a", "a d/x?", ""),
        (first, "", "d", "d/x", ""),
        (mirror, "", "d a", "d/x a", "-d/x -d/ +d"),
    ] {
        let plan = Case::new(agreed, hub, node).mode(mode).plan();
        assert_eq!(
            (words(&plan.to_node).as_str(), plan.to_hub),
            (steps, vec![]),
            "{mode:?} {agreed} | {hub} | {node}"
        );
    }
    let plan = Case::new("a=1 b=1 c=1", "a=1 b=2 c=1", "a=2 b=3").mode(later).plan();
    assert_eq!(held(&plan), [("a", Why::Kept), ("b", Why::Conflict), ("c", Why::Kept)]);
    assert_eq!((plan.conflicts.len(), &plan.conflicts[0].copy), (1, &None));
}

#[test]
fn a_huge_difference_is_planned_like_a_small_one() {
    let files: Vec<String> =
        (0..20_000).map(|number| format!("d{}/f{number}={}", number % 70, number % 250)).collect();
    let case = Case::new("", &files.join(" "), "");
    let plan = case.plan();
    assert_eq!(plan.to_node.len(), 20_000 + 70);
    assert_eq!(plan.counts.to_node, 20_000 + 70);
    assert_eq!(counts(case.agreed.iter()), SideCounts::default());
}
