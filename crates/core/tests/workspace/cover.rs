//! Paths of nodes and the folders of members.

use cortex_core::error::Code;
use cortex_core::files::path::FilePath;
use cortex_core::id::{LockEpoch, MemberId, NodeId, WorkspaceId};
use cortex_core::workspace::{Command, Cover, Member, Mode, Quoted, Role, Writer};
use proptest::prelude::*;

use super::rows::{ADA, Rows, member, tree};

fn node(number: u8) -> NodeId {
    NodeId::mint(1, &[number; 10])
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

/// A member of the workspace of that number with this folder.
fn at(number: u8, on: u8, folder: &str) -> Member {
    let mut rows = Rows::new(Mode::HubPrimary, tree(0));
    rows.attach(number, Role::Peer).expect("attached");
    let workspace = WorkspaceId::mint(number.into(), &[number; 10]);
    Member { workspace, node: node(on), path: path(folder), ..rows.members[0].clone() }
}

#[test]
fn a_path_is_covered_by_the_folder_that_it_is_or_lies_in() {
    let mut cover = Cover::default();
    for (number, on, folder) in [(1, 1, "/srv/a"), (2, 1, "/srv/a.b"), (3, 1, "/srv/مستندات"), (4, 2, "/srv")]
    {
        cover.put(&at(number, on, folder));
    }
    for (on, asked, covered) in [
        (1, "/srv/a", Some((1, ""))),
        (1, "/srv/a/b/c", Some((1, "b/c"))),
        (1, "/srv/a.b", Some((2, ""))),
        (1, "/srv/a.b/a", Some((2, "a"))),
        (1, "/srv/a-b", None),
        (1, "/srv/ab", None),
        (1, "/srv/مستندات/x", Some((3, "x"))),
        (1, "/srv/مستندات2", None),
        (1, "/srv", None),
        (2, "/srv/a", Some((4, "a"))),
        (3, "/srv/a", None),
    ] {
        let asked = path(asked);
        let found = cover.above(node(on), &asked).map(|(folder, rest)| (folder.member, rest));
        assert_eq!(found, covered.map(|(number, rest)| (member(number), rest)), "{asked:?}");
    }
    let within = |on, asked: &str| -> Vec<MemberId> {
        cover.within(node(on), &path(asked)).map(|folder| folder.member).collect()
    };
    assert_eq!(within(1, "/srv"), [member(1), member(2), member(3)]);
    assert_eq!(within(1, "/srv/a"), [member(1)]);
    assert_eq!(within(1, "/srv/a/b"), []);
    assert_eq!(within(3, "/"), []);
}

#[test]
fn a_member_that_moves_or_goes_covers_nothing_where_it_was() {
    let mut cover = Cover::default();
    cover.put(&at(1, 1, "/srv/a"));
    cover.put(&at(1, 1, "/srv/b"));
    assert!(cover.above(node(1), &path("/srv/a/x")).is_none());
    assert!(cover.above(node(1), &path("/srv/b/x")).is_some());
    cover.remove(member(1));
    cover.remove(member(1));
    assert!(cover.above(node(1), &path("/srv/b/x")).is_none());
}

#[test]
fn a_write_below_a_locked_workspace_needs_its_lock_and_not_an_older_one() {
    let mut rows = Rows::new(Mode::HubPrimary, tree(0));
    rows.attach(1, Role::Peer).expect("attached");
    let mut cover = Cover::default();
    cover.put(&rows.members[0]);
    let on = rows.members[0].node;
    let quoted = |epoch| Some(Quoted { workspace: rows.ws.id, epoch: LockEpoch(epoch) });
    let other = Some(Quoted { workspace: WorkspaceId::mint(9, &[9; 10]), epoch: LockEpoch(2) });
    let mut locked = rows.clone();
    for _ in 0..2 {
        let _free = locked.decide(Command::BreakLock { by: ADA.to_owned() }).is_err();
        locked.decide(Command::Lock { holder: "token:bob".to_owned(), ttl_ms: 60_000 }).expect("free");
    }
    let ask = |rows: &Rows, asked: &str, quoted| {
        let find = |id| (id == rows.ws.id).then_some(&rows.ws);
        cover.check_lock(on, &path(asked), quoted, find).err().map(|refusal| refusal.code)
    };
    for asked in ["/srv/مستندات", "/srv/مستندات/a", "/srv", "/"] {
        assert_eq!(ask(&rows, asked, None), None, "nobody holds it");
        assert_eq!(ask(&rows, asked, quoted(1)), Some(Code::StaleEpoch), "and it does not either");
        assert_eq!(ask(&locked, asked, None), Some(Code::Locked), "{asked}");
        assert_eq!(ask(&locked, asked, quoted(1)), Some(Code::StaleEpoch));
        assert_eq!(ask(&locked, asked, quoted(2)), None);
        assert_eq!(ask(&locked, asked, other), Some(Code::Locked), "the lock of another workspace");
    }
    for asked in ["/srv/other", "/srv/مستندات2/a"] {
        assert_eq!(ask(&locked, asked, None), None);
        assert_eq!(ask(&locked, asked, quoted(1)), None, "it is none of its workspace's");
    }
}

#[test]
fn a_number_of_a_lock_is_that_of_its_holder_and_of_one_of_the_workspaces_that_are_written() {
    const BOB: &str = "token:bob";
    let mut one = Rows::new(Mode::HubPrimary, tree(0));
    one.attach(1, Role::Peer).expect("attached");
    let first = one.members[0].clone();
    // Another workspace, beside it on the same node.
    let mut two = one.clone();
    two.ws.id = WorkspaceId::mint(9, &[9; 10]);
    let second = Member { id: member(2), workspace: two.ws.id, path: path("/srv/x"), ..first.clone() };
    two.members = vec![second.clone()];
    let mut cover = Cover::default();
    cover.put(&first);
    cover.put(&second);
    let lock = |rows: &mut Rows| {
        rows.decide(Command::Lock { holder: BOB.to_owned(), ttl_ms: 60_000 }).expect("free");
    };
    let ask = |one: &Rows, two: &Rows, asked: &[&str], actor: &str, epoch: Option<u64>| {
        let find = |id| [&one.ws, &two.ws].into_iter().find(|ws| ws.id == id);
        let paths: Vec<FilePath> = asked.iter().map(|asked| path(asked)).collect();
        let paths: Vec<&FilePath> = paths.iter().collect();
        let writer = Writer { actor, epoch: epoch.map(LockEpoch) };
        let done = cover.check_write(first.node, &paths, writer, find);
        done.map(|quoted| quoted.map(|quoted| quoted.workspace))
            .map_err(|refusal| (refusal.code, refusal.hint))
    };
    let code = |done: Result<Option<WorkspaceId>, (Code, String)>| done.map_err(|(code, _)| code);
    let (inside, other, both) = (["/srv/مستندات/a"], ["/tmp/a"], ["/srv/x/a", "/srv/مستندات/a"]);
    assert_eq!(code(ask(&one, &two, &inside, ADA, None)), Ok(None), "nobody holds it");
    lock(&mut one);
    assert_eq!(code(ask(&one, &two, &inside, BOB, Some(1))), Ok(Some(one.ws.id)));
    assert_eq!(code(ask(&one, &two, &inside, ADA, Some(1))), Err(Code::Locked), "it is not hers");
    assert_eq!(code(ask(&one, &two, &inside, BOB, Some(2))), Err(Code::StaleEpoch));
    let (code_of, hint) = ask(&one, &two, &inside, BOB, None).expect_err("it does not say so");
    assert_eq!(code_of, Code::Locked);
    assert!(hint.contains("--lock"), "{hint}");
    let (_, hint) = ask(&one, &two, &inside, ADA, None).expect_err("it is not hers");
    assert!(hint.contains("unlock"), "{hint}");
    assert_eq!(code(ask(&one, &two, &both, BOB, Some(1))), Ok(Some(one.ws.id)), "the other is free");
    assert_eq!(code(ask(&one, &two, &["/srv"], BOB, Some(1))), Ok(Some(one.ws.id)), "both lie below");
    assert_eq!(code(ask(&one, &two, &other, ADA, Some(7))), Ok(None), "it is no workspace's");
    lock(&mut two);
    two.decide(Command::Unlock { epoch: LockEpoch(1) }).expect("held");
    lock(&mut two);
    assert_eq!(code(ask(&one, &two, &both, BOB, Some(2))), Err(Code::Locked), "one number is one lock's");
    assert_eq!(code(ask(&one, &two, &both[..1], BOB, Some(2))), Ok(Some(two.ws.id)));
    assert_eq!(code(ask(&one, &two, &[], BOB, Some(2))), Ok(None));
}

fn any_path() -> impl Strategy<Value = FilePath> {
    let part = prop::sample::select(vec!["a", "a.b", "a-b", "b", "ا", "A"]);
    prop::collection::vec(part, 1..5).prop_map(|parts| path(&format!("/{}", parts.join("/"))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// One look-up finds what a look at each folder finds.
    #[test]
    fn a_look_up_finds_what_all_folders_say(folders in prop::collection::vec(any_path(), 0..8), asked in any_path()) {
        let mut cover = Cover::default();
        let mut members: Vec<Member> = Vec::new();
        for (number, folder) in (1..).zip(&folders) {
            if cortex_core::workspace::clash(node(1), folder, &members).is_none() {
                let member = at(number, 1, folder.as_str());
                cover.put(&member);
                members.push(member);
            }
        }
        let above = members.iter().find(|one| asked.below(one.path.as_str()).is_some());
        prop_assert_eq!(
            cover.above(node(1), &asked).map(|(folder, _)| folder.member),
            above.map(|one| one.id)
        );
        let mut inside: Vec<MemberId> =
            members.iter().filter(|one| one.path.below(asked.as_str()).is_some()).map(|one| one.id).collect();
        let mut found: Vec<MemberId> = cover.within(node(1), &asked).map(|folder| folder.member).collect();
        inside.sort();
        found.sort();
        prop_assert_eq!(found, inside);
    }
}
