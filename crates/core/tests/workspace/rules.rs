//! Rules of workspaces, one by one: heads, revisions, members and their roles.

use cortex_core::error::Code;
use cortex_core::event::EventKind;
use cortex_core::files::path::FilePath;
use cortex_core::id::{NodeId, Revision};
use cortex_core::limits;
use cortex_core::sync;
use cortex_core::workspace::{Command, Mode, Role, Source, Step, clash, next};

use super::rows::{
    ADA, NOW, Rows, commit, hub, hub_with, kinds, lock, member, observed, planning, received, step, tree,
    whole,
};

#[test]
fn of_two_edits_of_one_head_the_second_is_told_where_the_head_is() {
    let mut rows = hub();
    let first = commit(1, 1, None);
    let decided = rows.decide(first).expect("the first");
    assert_eq!(kinds(&decided), [EventKind::WorkspaceRevision]);
    assert_eq!(decided.events[0].detail.as_deref(), Some("2 edit"));
    let refusal = rows.decide(commit(1, 2, None)).expect_err("the second");
    assert_eq!(refusal.code, Code::Conflict);
    assert!(refusal.details.contains(&("head", "2".to_owned())));
    assert_eq!(rows.ws.head, Revision(2));
}

#[test]
fn a_restore_is_a_new_revision_with_an_old_tree() {
    let mut rows = hub();
    rows.edit(tree(1)).expect("edited");
    let of = rows.revisions[0].clone();
    let (complete, by) = (whole(of.tree), ADA.to_owned());
    rows.decide(Command::Restore { of, complete, by, lock: None }).expect("restored");
    assert_eq!((rows.ws.head, rows.ws.tree), (Revision(3), tree(0)));
    assert_eq!(rows.revisions[2].note, "revision 1");
    let again = Command::Restore {
        of: rows.revisions[0].clone(),
        complete: whole(tree(0)),
        by: ADA.to_owned(),
        lock: None,
    };
    assert_eq!(rows.decide(again).expect("it is so already").revision, None);
}

#[test]
fn a_revision_of_another_workspace_or_without_its_tree_is_not_restored() {
    let mut rows = hub();
    rows.edit(tree(1)).expect("edited");
    let own = rows.revisions[0].clone();
    let other = cortex_core::id::WorkspaceId::mint(2, &[2; 10]);
    for (of, given) in [
        (cortex_core::workspace::RevisionRow { workspace: other, ..own.clone() }, tree(0)),
        (cortex_core::workspace::RevisionRow { n: Revision(9), ..own.clone() }, tree(0)),
        (own, tree(1)),
    ] {
        let restore = Command::Restore { of, complete: whole(given), by: ADA.to_owned(), lock: None };
        assert_eq!(rows.decide(restore).expect_err("no").code, Code::NotFound);
    }
}

#[test]
fn a_follower_commits_nothing_and_a_workspace_with_a_lead_takes_nothing_of_the_hub() {
    for (mode, role) in [(Mode::HubPrimary, Role::Follower), (Mode::NodePrimary, Role::Follower)] {
        let mut rows = Rows::new(mode, tree(0));
        rows.attach(1, role).expect("attached");
        observed(&mut rows, 1, 1);
        let plan = planning(&rows, 1);
        let source =
            Source::Member { id: member(1), planning: Box::new(plan), agreed: whole(tree(1)), conflicts: 0 };
        let command = match commit(1, 1, None) {
            Command::Commit { complete, expect, by, note, lock, .. } => {
                Command::Commit { complete, expect, source, by, note, lock }
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(rows.decide(command).expect_err("never").code, Code::InvalidArgument);
        assert!(!plan.mode.writes(sync::End::Hub));
    }
    let mut rows = Rows::new(Mode::NodePrimary, tree(0));
    assert_eq!(rows.edit(tree(1)).expect_err("its lead's alone").code, Code::InvalidArgument);
}

#[test]
fn a_lead_is_never_written() {
    let mut rows = Rows::new(Mode::NodePrimary, tree(0));
    rows.attach(1, Role::Lead).expect("attached");
    observed(&mut rows, 1, 1);
    assert_eq!(step(&rows, 1), Step::Send);
    rows.decide(received(1)).expect("sent");
    let plan = planning(&rows, 1);
    assert_eq!(plan.mode, sync::Mode::FromNode);
    let (agreed, tree) = (whole(tree(1)), tree(0));
    let begin = Command::Begin { member: member(1), planning: plan };
    assert_eq!(rows.decide(begin).expect_err("never").code, Code::Conflict);
    let applied = Command::Applied { member: member(1), planning: plan, tree, agreed, conflicts: 0 };
    assert_eq!(rows.decide(applied).expect_err("never").code, Code::Conflict);
}

#[test]
fn what_a_commit_took_over_is_agreed_on_before_the_node_was_written() {
    let mut rows = hub_with(Role::Peer);
    observed(&mut rows, 1, 1);
    rows.decide(received(1)).expect("sent");
    // The hub's side had changes of its own, so the new head is what neither had.
    let merged = Command::Commit {
        complete: whole(tree(3)),
        expect: planning(&rows, 1).to,
        source: Source::Member {
            id: member(1),
            planning: Box::new(planning(&rows, 1)),
            agreed: whole(tree(1)),
            conflicts: 0,
        },
        by: "node:build-2".to_owned(),
        note: String::new(),
        lock: None,
    };
    rows.decide(merged).expect("planned");
    let plan = planning(&rows, 1);
    assert_eq!((plan.hub, plan.node, plan.agreed), (tree(3), tree(1), Some(tree(1))), "a change of the hub");
}

#[test]
fn modes_have_their_roles_and_one_lead() {
    for (mode, role, fits) in [
        (Mode::HubPrimary, Role::Peer, true),
        (Mode::HubPrimary, Role::Follower, true),
        (Mode::HubPrimary, Role::Lead, false),
        (Mode::NodePrimary, Role::Lead, true),
        (Mode::NodePrimary, Role::Follower, true),
        (Mode::NodePrimary, Role::Peer, false),
    ] {
        assert_eq!(Rows::new(mode, tree(0)).attach(1, role).is_ok(), fits, "{mode:?} {role:?}");
    }
    let mut rows = Rows::new(Mode::NodePrimary, tree(0));
    rows.attach(1, Role::Lead).expect("the lead");
    assert_eq!(rows.attach(2, Role::Lead).expect_err("a second").code, Code::Conflict);
}

#[test]
fn folders_of_members_do_not_lie_in_one_another() {
    let rows = hub_with(Role::Peer);
    let node = NodeId::mint(1, &[1; 10]);
    for (path, is_clash) in [
        ("/srv/مستندات", true),
        ("/srv/مستندات/a", true),
        ("/srv", true),
        ("/", true),
        ("/srv/مستندات2", false),
        ("/srv/other", false),
    ] {
        let path = FilePath::parse(path).expect("a path");
        assert_eq!(clash(node, &path, &rows.members).is_some(), is_clash, "{path:?}");
        assert!(clash(NodeId::mint(1, &[2; 10]), &path, &rows.members).is_none(), "on another node");
        let by = ADA.to_owned();
        let command = Command::Attach { id: member(2), node, path, role: Role::Peer, by };
        let code = rows.clone().decide(command).err().map(|refusal| refusal.code);
        assert_eq!(code, is_clash.then_some(Code::Conflict));
    }
}

#[test]
fn a_tree_or_a_note_beyond_its_bound_is_no_revision() {
    let mut rows = hub();
    let with = |files, bytes, note: String| Command::Commit {
        complete: cortex_core::workspace::Complete::walked_in_the_chunk_store(tree(1), files, bytes),
        expect: Revision(1),
        source: Source::Import,
        by: ADA.to_owned(),
        note,
        lock: None,
    };
    for (command, code) in [
        (with(1, 1_001, String::new()), Code::Quota),
        (with(limits::TREE_ENTRIES_MAX + 1, 1, String::new()), Code::TooLarge),
        (with(1, 1, "a".repeat(limits::REVISION_NOTE_BYTES_MAX + 1)), Code::TooLarge),
    ] {
        assert_eq!(rows.decide(command).expect_err("beyond").code, code);
    }
    rows.decide(with(1, 1_000, "a".repeat(limits::REVISION_NOTE_BYTES_MAX))).expect("within");
}

#[test]
fn a_removed_workspace_has_no_members_no_lock_and_no_wave() {
    let mut rows = hub_with(Role::Follower);
    let row = rows.member(1).expect("a member").clone();
    let epoch = lock(&mut rows);
    let remove = |lock| Command::Remove { by: ADA.to_owned(), lock };
    assert_eq!(rows.decide(remove(None)).expect_err("locked").code, Code::Locked);
    let decided = rows.decide(remove(Some(epoch))).expect("removed");
    assert_eq!(kinds(&decided), [EventKind::WorkspaceUnlocked, EventKind::WorkspaceRemoved]);
    assert_eq!(decided.gone, [member(1)]);
    assert!(rows.members.is_empty() && rows.ws.lock.is_none() && rows.ws.removed_at == Some(NOW));
    assert_eq!(next(&rows.ws, &row, true), Step::Nothing);
    assert_eq!(rows.attach(2, Role::Follower).expect_err("it is gone").code, Code::NotFound);
}
