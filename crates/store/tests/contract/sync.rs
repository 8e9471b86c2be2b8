//! Workspaces and skills: kept to the last field, heads moved by compare-and-swap, all bounded,
//! and every tree that is to stay is named.

use std::collections::BTreeSet;

use cortex_core::Code;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::{MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::limits;
use cortex_core::skill::{self, Mount, SkillRow};
use cortex_core::sync::{Cause, End, Entry, Halt, Rule};
use cortex_core::time::WallTime;
use cortex_core::workspace::{
    Begun, Command, Complete, Decided, Holding, Member, Mode, NewWorkspace, Observed, RevisionKind, Role,
    RootIdentity, Rules, Settled, Source, Workspace, table,
};
use cortex_store::{StoredConflict, SyncRead, Tx, WriteError};

use crate::entities::name;
use crate::subject::{Subject, no};
use crate::support::node_id;

const NOW: WallTime = WallTime(1_800_000_000_000);
const ADA: &str = "token:ada";

fn ws_id(number: u8) -> WorkspaceId {
    WorkspaceId::mint(number.into(), &[number; 10])
}

fn member_id(number: u8) -> MemberId {
    MemberId::mint(number.into(), &[number; 10])
}

fn tree(number: u64) -> TreeId {
    TreeId::of(&number.to_le_bytes())
}

fn whole(number: u64) -> Complete {
    Complete::walked_in_the_chunk_store(tree(number), 1, 10)
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

fn new(number: u8, called: &str) -> NewWorkspace {
    NewWorkspace {
        id: ws_id(number),
        name: name(called),
        mode: Mode::HubPrimary,
        rules: Rules::default(),
        bytes_max: u64::MAX,
        owner: ADA.to_owned(),
    }
}

fn make(tx: &mut dyn Tx, number: u8, called: &str) -> Result<Decided, WriteError> {
    table::make(tx, new(number, called), whole(0), NOW)
}

fn edit(tx: &mut dyn Tx, ws: u8, expect: u64, number: u64) -> Result<Decided, WriteError> {
    let command = Command::Commit {
        complete: whole(number),
        expect: Revision(expect),
        source: Source::Edit,
        by: ADA.to_owned(),
        note: "سبب".to_owned(),
        lock: None,
    };
    table::apply(tx, ws_id(ws), command, NOW.plus_ms(number))
}

fn attach(tx: &mut dyn Tx, ws: u8, member: u8, node: NodeId, at: &str) -> Result<Decided, WriteError> {
    let (id, by) = (member_id(member), ADA.to_owned());
    table::apply(tx, ws_id(ws), Command::Attach { id, node, path: path(at), role: Role::Peer, by }, NOW)
}

/// What a decision would give whoever keeps rows, with these.
fn as_decided(ws: Workspace, members: Vec<Member>) -> Decided {
    Decided { ws, members, gone: Vec::new(), revision: None, events: Vec::new() }
}

/// With every field set.
fn full_member(member: &Member) -> Member {
    let causes = vec![
        Cause { rule: Rule::RootEmptied, end: End::Hub, deletes: 3, of: u64::MAX },
        Cause { rule: Rule::Deletes, end: End::Node, deletes: u64::MAX, of: 4 },
    ];
    let halt = |number: u64| tree(number).to_string().parse().expect("a hash");
    Member {
        role: Role::Follower,
        root: Some(RootIdentity { marker: [7; 32], dev: u64::MAX, ino: 1 }),
        observed: Some(Observed { tree: tree(1), at: WallTime(-5) }),
        news: u64::MAX,
        received: Some(tree(2)),
        merged: Some(tree(3)),
        agreed: Some(tree(4)),
        begun: Some(Begun { revision: Revision(1), tree: tree(5) }),
        reached: Revision(1),
        settled: Some(Settled { revision: Revision(1), tree: tree(6) }),
        halt: Some(Halt { id: halt(7), causes }),
        accepted: Some(halt(8)),
        unavailable: Some(Rule::RootUnavailable),
        repair: true,
        conflicts: 9,
        drift_since: Some(WallTime(10)),
        ..member.clone()
    }
}

pub(crate) async fn workspaces_and_members_are_read_back_to_the_last_field(subject: Subject) {
    let (ws, bare, full) = subject
        .put(|tx| {
            let made = make(tx, 1, "docs")?;
            let bare = attach(tx, 1, 1, node_id(1), "/srv/مستندات")?.members[0].clone();
            let other = attach(tx, 1, 2, node_id(2), "/srv/b")?.members[0].clone();
            let full = full_member(&other);
            let ws = Workspace {
                mode: Mode::NodePrimary,
                rules: Rules {
                    exclude: vec!["target/".to_owned(), "*.\u{e4}".to_owned()],
                    ignore_files: false,
                    vcs: true,
                    links_outside: false,
                },
                lock: Some(Holding { holder: "token:b".to_owned(), ttl_ms: u64::MAX, until: WallTime(-1) }),
                ..made.ws
            };
            tx.put_workspace(&as_decided(ws.clone(), vec![full.clone()]))?;
            Ok((ws, bare, full))
        })
        .await;
    subject
        .get(move |view| {
            assert_eq!(view.workspace(ws.id)?, Some(ws.clone()));
            assert_eq!(view.workspace_named(&ws.name)?, Some(ws.clone()));
            assert_eq!((view.workspaces()?, view.workspace_count()?), (vec![ws.clone()], 1));
            assert_eq!(view.member(bare.id)?, Some(bare.clone()));
            assert_eq!(view.member(full.id)?, Some(full.clone()));
            assert_eq!(view.members_of(ws.id)?, [bare.clone(), full.clone()]);
            assert_eq!(view.members_on(node_id(2))?, [full]);
            assert_eq!((view.workspace(ws_id(9))?, view.member(member_id(9))?), (None, None));
            assert_eq!((view.members_of(ws_id(9))?, view.members_on(node_id(9))?), (vec![], vec![]));
            let revision = view.revision(ws.id, Revision(1))?.expect("the first");
            assert_eq!(
                (revision.kind, revision.parent, revision.tree),
                (RevisionKind::Import, None, tree(0))
            );
            Ok(())
        })
        .await;
}

pub(crate) async fn names_and_folders_are_of_one_live_row_each(subject: Subject) {
    subject
        .put(|tx| {
            make(tx, 1, "docs")?;
            attach(tx, 1, 1, node_id(1), "/srv/a")?;
            make(tx, 2, "other").map(drop)
        })
        .await;
    subject.conflicts(|tx| make(tx, 3, "docs").map(drop)).await;
    for at in ["/srv/a", "/srv/a/b", "/srv", "/"] {
        subject.conflicts(move |tx| attach(tx, 2, 2, node_id(1), at).map(drop)).await;
    }
    // The store itself says so too, whoever decided.
    subject
        .conflicts(|tx| {
            let ws = SyncRead::workspace(tx, ws_id(2))?.expect("it was made");
            let row = SyncRead::member(tx, member_id(1))?.expect("attached");
            let second = Member { id: member_id(2), workspace: ws.id, ..row };
            tx.put_workspace(&as_decided(ws, vec![second]))
        })
        .await;
    subject
        .conflicts(|tx| {
            let ws = SyncRead::workspace(tx, ws_id(2))?.expect("it was made");
            tx.put_workspace(&as_decided(Workspace { name: name("docs"), ..ws }, Vec::new()))
        })
        .await;
    subject
        .put(|tx| {
            attach(tx, 2, 2, node_id(1), "/srv/a2")?;
            table::apply(tx, ws_id(1), Command::Remove { by: ADA.to_owned(), lock: None }, NOW)?;
            // With the workspace its name and its folders are free.
            make(tx, 3, "docs")?;
            attach(tx, 3, 3, node_id(1), "/srv/a").map(drop)
        })
        .await;
    subject
        .get(|view| {
            let named = view.workspace_named(&name("docs"))?.map(|ws| ws.id);
            assert_eq!((named, view.workspace_count()?), (Some(ws_id(3)), 2));
            assert!(view.workspace(ws_id(1))?.is_some_and(|ws| ws.removed_at.is_some()));
            assert_eq!((view.members_of(ws_id(1))?, view.member(member_id(1))?), (vec![], None));
            assert_eq!(view.removed_workspaces(9)?, [(ws_id(1), NOW)]);
            Ok(())
        })
        .await;
}

pub(crate) async fn of_two_who_saw_one_head_one_moves_it_and_the_other_is_told(subject: Subject) {
    subject.put(|tx| make(tx, 1, "docs").map(drop)).await;
    // Decided on what was read in another transaction.
    let stale = subject.put(|tx| edit(tx, 1, 1, 1)).await;
    subject.conflicts(|tx| edit(tx, 1, 1, 2).map(drop)).await;
    subject.conflicts(move |tx| tx.put_workspace(&stale)).await;
    subject
        .conflicts(|tx| {
            let ws = SyncRead::workspace(tx, ws_id(1))?.expect("it was made");
            tx.put_workspace(&as_decided(Workspace { head: Revision(1), ..ws }, Vec::new()))
        })
        .await;
    let refused = subject
        .write(|tx| {
            edit(tx, 1, 2, 3)?;
            attach(tx, 1, 1, node_id(1), "/srv/a")?;
            no::<()>()
        })
        .await;
    assert!(refused.is_err());
    subject
        .get(|view| {
            let ws = view.workspace(ws_id(1))?.expect("it was made");
            assert_eq!((ws.head, ws.tree), (Revision(2), tree(1)));
            assert_eq!((view.revision(ws.id, Revision(3))?, view.members_of(ws.id)?), (None, vec![]));
            Ok(())
        })
        .await;
    // Racing for real: each head is made once, and every loser is told.
    let tasks = (0..16_u64).map(|who| {
        let store = std::sync::Arc::clone(&subject.store);
        tokio::spawn(async move {
            cortex_store::StoreExt::write(&*store, crate::support::SOON, move |tx| edit(tx, 1, 2, 100 + who))
                .await
        })
    });
    let mut won = 0;
    for task in tasks.collect::<Vec<_>>() {
        won += usize::from(task.await.expect("no panic").is_ok());
    }
    assert_eq!(won, 1);
    let revisions = subject.get(|view| view.revision_times(ws_id(1))).await;
    assert_eq!(revisions.len(), 3);
}

pub(crate) async fn history_is_paged_newest_first_and_thinned_and_never_loses_the_head(subject: Subject) {
    subject
        .put(|tx| {
            make(tx, 1, "docs")?;
            make(tx, 2, "other")?;
            (1..=4).try_for_each(|number| edit(tx, 1, number, number).map(drop))
        })
        .await;
    subject
        .get(|view| {
            let numbers = |before, limit| -> Result<Vec<u64>, cortex_store::StoreError> {
                Ok(view.revisions(ws_id(1), before, limit)?.iter().map(|row| row.n.0).collect())
            };
            assert_eq!(numbers(None, 2)?, [5, 4]);
            assert_eq!(numbers(Some(Revision(4)), 9)?, [3, 2, 1]);
            assert_eq!(numbers(Some(Revision(1)), 9)?, [0_u64; 0]);
            let row = view.revision(ws_id(1), Revision(3))?.expect("made");
            assert_eq!(
                (row.parent, row.kind, row.note.as_str()),
                (Some(Revision(2)), RevisionKind::Edit, "سبب")
            );
            assert_eq!((row.files, row.bytes, row.by.as_str(), row.member), (1, 10, ADA, None));
            let times = view.revision_times(ws_id(1))?;
            assert_eq!(times.first(), Some(&(Revision(1), NOW)));
            assert_eq!(times.last(), Some(&(Revision(5), NOW.plus_ms(4))));
            Ok(())
        })
        .await;
    let gone = [Revision(5), Revision(2), Revision(2), Revision(99)];
    assert_eq!(subject.put(move |tx| Ok(tx.remove_revisions(ws_id(1), &gone)?)).await, 1, "never the head");
    assert!(!subject.put(|tx| Ok(tx.remove_workspace(ws_id(1))?)).await, "it is in use");
    subject
        .put(|tx| {
            table::apply(tx, ws_id(1), Command::Remove { by: ADA.to_owned(), lock: None }, NOW)?;
            assert!(tx.remove_workspace(ws_id(1))? && !tx.remove_workspace(ws_id(1))?);
            Ok(())
        })
        .await;
    subject
        .get(|view| {
            assert_eq!((view.workspace(ws_id(1))?, view.revision_times(ws_id(1))?), (None, vec![]));
            assert_eq!(view.revision_times(ws_id(2))?.len(), 1, "of the other nothing");
            Ok(())
        })
        .await;
}

fn conflict(ws: u8, revision: u64, member: u8, at: &str) -> StoredConflict {
    StoredConflict {
        workspace: ws_id(ws),
        revision: Revision(revision),
        member: member_id(member),
        path: RelPath::parse(at).expect("a path"),
        copy: revision.is_multiple_of(2).then(|| RelPath::parse("نسخة").expect("a path")),
        hub: Some(ContentId::of(b"hub")),
        node: (!revision.is_multiple_of(2)).then(|| ContentId::of(b"node")),
        at: WallTime(7),
    }
}

pub(crate) async fn conflicts_are_bounded_and_go_with_their_member(subject: Subject) {
    let all =
        [conflict(1, 2, 1, "a"), conflict(1, 2, 1, "a.b"), conflict(1, 2, 1, "a/b"), conflict(1, 3, 2, "a")];
    let kept = all.clone();
    subject
        .put(move |tx| {
            make(tx, 1, "docs")?;
            attach(tx, 1, 1, node_id(1), "/srv/a")?;
            attach(tx, 1, 2, node_id(2), "/srv/a")?;
            tx.put_conflicts(ws_id(2), &[conflict(2, 9, 9, "other")])?;
            Ok(tx.put_conflicts(ws_id(1), &kept)?)
        })
        .await;
    let newest: Vec<StoredConflict> = all.iter().rev().cloned().collect();
    let read = subject.get(|view| view.conflicts(ws_id(1), 0, 9)).await;
    assert_eq!(read, [newest[0].clone(), newest[1].clone(), newest[2].clone(), newest[3].clone()]);
    assert_eq!(subject.get(|view| view.conflicts(ws_id(1), 1, 2)).await, newest[1..3]);
    let gone = subject.put(|tx| Ok(tx.remove_conflicts(member_id(2))?)).await;
    assert_eq!(gone, 1);
    subject
        .put(|tx| {
            let detach = Command::Detach { member: member_id(1), by: ADA.to_owned() };
            table::apply(tx, ws_id(1), detach, NOW).map(drop)
        })
        .await;
    assert_eq!(subject.get(|view| view.conflicts(ws_id(1), 0, 9)).await, []);
    let many = limits::WORKSPACE_CONFLICTS_MAX as u64 + 3;
    subject
        .put(move |tx| {
            let all: Vec<StoredConflict> = (1..=many).map(|n| conflict(1, n, 2, "a")).collect();
            Ok(tx.put_conflicts(ws_id(1), &all)?)
        })
        .await;
    let read = subject.get(|view| view.conflicts(ws_id(1), 0, usize::MAX)).await;
    assert_eq!(read.len(), limits::WORKSPACE_CONFLICTS_MAX);
    assert_eq!(read.last().map(|row| row.revision), Some(Revision(4)), "the oldest went");
    assert_eq!(subject.get(|view| view.conflicts(ws_id(2), 0, 9)).await.len(), 1);
}

fn skill_row(called: &str, n: u64) -> SkillRow {
    SkillRow {
        name: name(called),
        n: Revision(n),
        tree: tree(n),
        content: ContentId::of(b"the same"),
        by: "node:بناء".to_owned(),
        from: n.is_multiple_of(2).then(|| ws_id(1)),
        at: WallTime(-3),
        removed_at: None,
    }
}

pub(crate) async fn revisions_of_skills_follow_one_another_and_are_bounded(subject: Subject) {
    subject.conflicts(|tx| tx.put_skill(&skill_row("build", 2))).await;
    subject.conflicts(|tx| tx.put_skill(&skill_row("build", 0))).await;
    let gone = SkillRow { removed_at: Some(WallTime(5)), ..skill_row("old", 2) };
    let removed = gone.clone();
    subject
        .put(move |tx| {
            // A revision may have the content of an earlier one.
            (1..=3).try_for_each(|n| tx.put_skill(&skill_row("build", n)))?;
            tx.put_skill(&skill_row("audit", 1))?;
            tx.put_skill(&skill_row("old", 1))?;
            tx.put_skill(&skill_row("old", 2))?;
            tx.put_skill(&removed)
        })
        .await;
    for n in [1, 2, 5] {
        subject.conflicts(move |tx| tx.put_skill(&skill_row("build", n))).await;
    }
    subject
        .get(move |view| {
            assert_eq!(view.skill(&name("build"))?, Some(skill_row("build", 3)));
            assert_eq!((view.skill(&name("old"))?, view.skill(&name("none"))?), (Some(gone), None));
            assert_eq!(view.skills()?, [skill_row("audit", 1), skill_row("build", 3)]);
            assert_eq!(
                view.skill_revisions(&name("build"), None, 2)?,
                [skill_row("build", 3), skill_row("build", 2)]
            );
            assert_eq!(view.skill_revisions(&name("build"), Some(Revision(2)), 9)?, [skill_row("build", 1)]);
            Ok(())
        })
        .await;
    let many = limits::SKILL_REVISIONS_KEPT as u64 + 3;
    subject.put(move |tx| (4..=many).try_for_each(|n| tx.put_skill(&skill_row("build", n)))).await;
    let kept = subject.get(|view| view.skill_revisions(&name("build"), None, usize::MAX)).await;
    assert_eq!((kept.len(), kept.last().map(|row| row.n)), (limits::SKILL_REVISIONS_KEPT, Some(Revision(4))));
}

fn skill_mount(node: u8, path: &str, reached: Option<u64>) -> Mount {
    Mount {
        skill: name("build"),
        node: node_id(node),
        path: FilePath::parse(path).expect("a path"),
        pin: reached.map(Revision),
        reached: reached.map(|n| (Revision(n), tree(n))),
        by: "token:ada".to_owned(),
        at: WallTime(-5),
    }
}

pub(crate) async fn a_folder_follows_one_skill_until_its_mount_is_removed(subject: Subject) {
    let (first, other) = (skill_mount(1, "/srv/مهارات", None), skill_mount(2, "/srv/مهارات", Some(3)));
    let again = Mount { skill: name("other"), ..skill_mount(1, "/srv/مهارات", Some(4)) };
    let rows = [first, other.clone(), again.clone()];
    subject.put(move |tx| Ok(rows.iter().try_for_each(|row| tx.put_skill_mount(row))?)).await;
    let refused = subject
        .write(|tx| {
            tx.remove_skill_mount(node_id(2), &FilePath::parse("/srv/مهارات").expect("a path"))?;
            tx.put_skill_mount(&skill_mount(3, "/x", None))?;
            no::<()>()
        })
        .await;
    assert!(refused.is_err());
    let expected = [again.clone(), other];
    assert_eq!(subject.get(|view| view.skill_mounts()).await, expected);
    subject
        .put(|tx| {
            let path = FilePath::parse("/srv/مهارات").expect("a path");
            assert!(tx.remove_skill_mount(node_id(2), &path)?);
            assert!(!tx.remove_skill_mount(node_id(2), &path)?);
            Ok(())
        })
        .await;
    assert_eq!(subject.get(|view| view.skill_mounts()).await, [again]);
}

pub(crate) async fn every_tree_that_is_to_stay_is_named_and_no_other(subject: Subject) {
    subject
        .put(|tx| {
            make(tx, 1, "docs")?;
            edit(tx, 1, 1, 10)?;
            edit(tx, 1, 2, 11)?;
            tx.remove_revisions(ws_id(1), &[Revision(2)])?;
            let attached = attach(tx, 1, 1, node_id(1), "/srv/a")?;
            tx.put_workspace(&as_decided(attached.ws, vec![full_member(&attached.members[0])]))?;
            tx.put_skill(&SkillRow { tree: tree(20), ..skill_row("build", 1) })?;
            tx.put_skill(&SkillRow { tree: tree(21), ..skill_row("build", 2) })?;
            tx.put_skill(&SkillRow { tree: tree(22), ..skill_row("old", 1) })?;
            let gone = SkillRow { tree: tree(23), removed_at: Some(NOW), ..skill_row("old", 2) };
            tx.put_skill(&gone)?;
            // What was there before a removal may have been collected by the time the name is used again.
            tx.put_skill(&SkillRow { tree: tree(24), ..skill_row("again", 1) })?;
            let gone = SkillRow { tree: tree(25), removed_at: Some(NOW), ..skill_row("again", 2) };
            tx.put_skill(&gone)?;
            tx.put_skill(&SkillRow { tree: tree(26), ..skill_row("again", 3) })?;
            tx.put_skill_mount(&skill_mount(1, "/srv/a", Some(27)))?;
            tx.put_skill_mount(&skill_mount(1, "/srv/b", None))?;
            Ok(())
        })
        .await;
    let named = subject
        .get(|view| {
            let mut named = BTreeSet::new();
            view.each_root(&mut |root| {
                named.insert(root);
                Ok(())
            })?;
            Ok(named)
        })
        .await;
    // Two revisions; what a member sent, is agreed on with and is brought to; skills, and what a mount was
    // brought to.
    let expected: BTreeSet<TreeId> = [0, 11, 2, 4, 5, 20, 21, 26, 27].map(tree).into();
    assert_eq!(named, expected);
    // What the visitor says ends the walk.
    let mut seen = 0;
    let stopped = subject
        .store
        .read_boxed(
            Box::new(move |view| {
                view.each_root(&mut |_| {
                    seen += 1;
                    assert_eq!(seen, 1);
                    Err(cortex_store::StoreError::Closed)
                })
            }),
            crate::support::SOON,
        )
        .await;
    assert!(stopped.is_err());
}

pub(crate) async fn a_refused_write_leaves_nothing_of_workspaces_and_skills(subject: Subject) {
    subject
        .put(|tx| {
            make(tx, 1, "docs")?;
            attach(tx, 1, 1, node_id(1), "/srv/a")?;
            tx.put_conflicts(ws_id(1), &[conflict(1, 1, 1, "a")])?;
            tx.put_skill(&skill_row("build", 1))
        })
        .await;
    let refused = subject
        .write(|tx| {
            edit(tx, 1, 1, 1)?;
            table::apply(tx, ws_id(1), Command::Remove { by: ADA.to_owned(), lock: None }, NOW)?;
            tx.remove_workspace(ws_id(1))?;
            make(tx, 2, "docs")?;
            tx.put_skill(&skill_row("build", 2))?;
            no::<()>()
        })
        .await;
    assert!(refused.is_err());
    subject
        .get(|view| {
            let ws = view.workspace_named(&name("docs"))?.expect("it is there");
            assert_eq!((ws.id, ws.head, view.workspace_count()?), (ws_id(1), Revision(1), 1));
            assert_eq!(view.members_on(node_id(1))?.len(), 1);
            assert_eq!(view.conflicts(ws_id(1), 0, 9)?, [conflict(1, 1, 1, "a")]);
            assert_eq!(view.skill(&name("build"))?, Some(skill_row("build", 1)));
            Ok(())
        })
        .await;
}

fn package(number: u64) -> skill::Package {
    let file = |text: &[u8]| Entry::File {
        id: ContentId::of(text),
        map: None,
        size: text.len() as u64,
        exec: false,
    };
    let rel = |text: &str| RelPath::parse(text).expect("a path");
    let entries = [(rel(skill::SKILL_FILE), file(b"# build")), (rel("n"), file(&number.to_le_bytes()))];
    skill::Package::check(whole(number), &entries.into(), b"# build").expect("a skill")
}

/// One of many who all saw the same revision promotes; some crash before it is committed.
fn promote(tx: &mut dyn Tx, who: u64, round: u64, crashes: bool) -> Result<skill::Promoted, WriteError> {
    let package = package(round * 100 + who);
    let (build, by) = (name("build"), format!("node:{who}"));
    let promotion =
        skill::Promotion { name: &build, expect: Revision(round), package: &package, by: &by, from: None };
    let promoted = skill::promote_to(tx, &promotion, NOW)?;
    assert!(!crashes, "the power goes");
    Ok(promoted)
}

pub(crate) async fn r16_6_of_32_promoters_one_wins_and_31_are_told(subject: Subject) {
    const ROUNDS: u64 = 20;
    for round in 0..ROUNDS {
        let promoters = (0..32_u64).map(|who| {
            let store = std::sync::Arc::clone(&subject.store);
            // Whoever comes first is often one of them.
            let crashes = who % 5 == round % 5;
            tokio::spawn(async move {
                let work = move |tx: &mut dyn Tx| promote(tx, who, round, crashes);
                (who, crashes, cortex_store::StoreExt::write(&*store, crate::support::SOON, work).await)
            })
        });
        let (mut winner, mut told) = (None, Vec::new());
        for task in promoters.collect::<Vec<_>>() {
            match task.await.expect("no panic comes out of the store") {
                (who, false, Ok(skill::Promoted::New(row, _))) => {
                    assert_eq!((winner.replace(who), row.n), (None, Revision(round + 1)));
                }
                (_, _, Err(WriteError::Refused(refusal))) => told.push(refusal),
                (_, true, Err(WriteError::Store(_))) => {}
                (who, crashes, other) => panic!("{who} {crashes}: {other:?}"),
            }
        }
        let winner = winner.expect("one wins");
        assert!(told.len() >= 32 - 1 - 7, "all who did not crash are told: {}", told.len());
        let by = format!("node:{winner}");
        assert!(told.iter().all(|refusal| refusal.code == Code::Conflict && refusal.message.contains(&by)));
        subject
            .get(move |view| {
                let rows = view.skill_revisions(&name("build"), None, usize::MAX)?;
                assert_eq!(rows.len() as u64, round + 1, "each number once");
                let head = rows.first().expect("promoted");
                assert_eq!(
                    (head.tree, &head.by),
                    (tree(round * 100 + winner), &by),
                    "whole, of one promoter"
                );
                Ok(())
            })
            .await;
    }
    let told = subject.heard();
    assert_eq!(told.len() as u64, ROUNDS, "an event for each revision, and none for who lost or crashed");
    // Who promotes what is there already is told so, whatever he saw.
    let again = subject
        .put(|tx| {
            let head = tx.skill(&name("build"))?.expect("promoted");
            let number = (0..3_200).find(|number| tree(*number) == head.tree).expect("one of these");
            let package = package(number);
            let build = name("build");
            let promotion = skill::Promotion {
                name: &build,
                expect: Revision(0),
                package: &package,
                by: ADA,
                from: None,
            };
            skill::promote_to(tx, &promotion, NOW)
        })
        .await;
    assert_eq!(again, skill::Promoted::Already(Revision(ROUNDS)));
}

pub(crate) async fn the_library_and_the_workspaces_are_bounded(subject: Subject) {
    subject
        .put(|tx| {
            for number in 0..limits::SKILLS_MAX {
                tx.put_skill(&skill_row(&format!("s{number}"), 1))?;
            }
            Ok(())
        })
        .await;
    let beyond = subject.write(|tx| promote(tx, 1, 0, false)).await;
    assert!(matches!(beyond, Err(WriteError::Refused(refusal)) if refusal.code == Code::Quota));
    subject
        .put(|tx| {
            tx.put_skill(&SkillRow { removed_at: Some(NOW), ..skill_row("s1", 1) })?;
            promote(tx, 1, 0, false)
        })
        .await;
    let full = subject
        .write(|tx| {
            for number in 0..=limits::WORKSPACES_MAX {
                let id = WorkspaceId::mint(number as u64, &[9; 10]);
                let new = NewWorkspace { id, ..new(1, &format!("w{number}")) };
                table::make(tx, new, whole(0), NOW)?;
            }
            Ok(())
        })
        .await;
    assert!(matches!(full, Err(WriteError::Refused(refusal)) if refusal.code == Code::Quota));
    assert_eq!(subject.get(|view| view.workspace_count()).await, 0);
}
