//! What ends an operation before its time: a newer attempt, another lock, a cancel, its time, its link.

use cortex_core::id::{LockEpoch, RunId, WorkspaceId};
use cortex_core::message::Start;
use cortex_core::node_files::Found;
use cortex_core::run::RunSpec;

use super::*;

#[test]
fn a_zombie_attempt_changes_nothing_once_a_newer_one_was_heard_of() {
    let fence = ToNode::AttemptFence { task: task(), attempt: Attempt(2) };
    let start = ToNode::Start(Start {
        run: RunId::mint(1, &[1; 10]),
        spec: RunSpec::default(),
        caller: "a".into(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: None,
        task: Some((task(), Attempt(2))),
    });
    for newer in [fence, start, ToNode::FileAsk(Box::new(of_attempt(2, stat(9, "/w/b"))))] {
        // One that waits for its row, one that waits for another, one that a clerk has, a read.
        let mut node = Node::new();
        node.begin(of_attempt(1, write(1, "/w/a")));
        node.begin(of_attempt(1, write(2, "/w/a")));
        node.ask(of_attempt(1, write(3, "/w/c")));
        node.ask(of_attempt(1, stat(4, "/w/c")));
        let after = node.hear(newer.clone());
        let expected = lines(&[
            "row attempt 2",
            "abort $4",
            "row ended $3 stale_attempt",
            "answer $3 stale_attempt",
            "row ended $2 stale_attempt",
            "answer $2 stale_attempt",
            "abort $1",
        ]);
        assert_eq!(after[..expected.len()], expected, "{newer:?}");
        assert_eq!(node.prepared(1), [""; 0], "it was too late");
        assert_eq!(node.lost(1), lines(&["recover $1 nothing"]));
        node.files.recovered(op(1), Some(Found { etag: etag(), bytes: 1 }));
        assert_eq!(node.says(), lines(&["row ended $1 stale_attempt", "answer $1 stale_attempt"]));
        assert_eq!(node.ask(of_attempt(1, write(5, "/w/a"))), lines(&["answer $5 stale_attempt"]));
    }
}

#[test]
fn a_newer_attempt_waits_for_what_an_older_one_cannot_take_back() {
    let mut node = Node::new();
    node.commit(of_attempt(1, write(1, "/w/a")));
    assert_eq!(node.ask(of_attempt(2, stat(2, "/w/b"))), lines(&["row attempt 2"]));
    assert_eq!(node.begin(of_attempt(2, write(3, "/w/b"))), [""; 0]);
    assert_eq!(
        node.performed(1),
        lines(&["row ended $1 done", "answer $1 done", "perform $2", "perform $3"])
    );
}

#[test]
fn a_lock_that_followed_ends_what_was_done_under_the_one_before() {
    let workspace = WorkspaceId::mint(1, &[1; 10]);
    let under = |lock, ask| FileAsk { lock: Some((workspace, LockEpoch(lock))), ..ask };
    let mut node = Node::new();
    node.begin(under(1, write(1, "/w/a")));
    node.files.lock(workspace, LockEpoch(2));
    assert_eq!(node.says(), lines(&["abort $1"]));
    assert_eq!(node.ask(under(1, write(2, "/w/b"))), lines(&["answer $2 stale_epoch"]));
    assert_eq!(node.begin(under(2, write(3, "/w/b"))), lines(&["perform $3"]));
}

#[test]
fn a_cancel_ends_it_unless_it_is_past_the_point_of_return() {
    let cancel = |node: &mut Node, n| node.hear(ToNode::FileCancel { op: op(n) });
    let mut node = Node::new();
    node.ask(write(1, "/w/a"));
    assert_eq!(cancel(&mut node, 1), lines(&["row ended $1 timeout", "answer $1 timeout"]));
    node.files.journaled(op(1));
    assert_eq!(node.says(), [""; 0], "its row came too late");

    node.begin(write(2, "/w/a"));
    assert_eq!(cancel(&mut node, 2), lines(&["abort $2"]));
    assert_eq!(cancel(&mut node, 2), [""; 0]);
    assert_eq!(node.performed(2), lines(&["row ended $2 timeout", "answer $2 timeout"]));

    node.commit(write(3, "/w/a"));
    assert_eq!(cancel(&mut node, 3), [""; 0]);
    assert_eq!(node.performed(3), lines(&["row ended $3 done", "answer $3 done"]));

    // A tree goes entry by entry: somebody who sees that it is the wrong one can stop it.
    node.begin(remove(4, "/w"));
    assert_eq!(node.prepared(4), lines(&["commit $4"]));
    assert_eq!(cancel(&mut node, 4), lines(&["abort $4"]));
    assert_eq!(node.lost(4), lines(&["recover $4 nothing"]));
    node.files.recovered(op(4), None);
    assert_eq!(node.says(), lines(&["row ended $4 unknown_outcome", "answer $4 unknown_outcome"]));

    node.ask(stat(5, "/w"));
    assert_eq!(cancel(&mut node, 5), lines(&["abort $5"]));
    assert_eq!(node.lost(5), [""; 0], "the hub has let it go");
}

#[test]
fn its_time_ends_it_wherever_it_is() {
    let mut node = Node::new();
    let late = Timestamp(1_000);
    node.ask(write(1, "/w/a"));
    node.begin(write(2, "/w/b"));
    node.begin(write(3, "/w/b"));
    assert_eq!(node.files.poll_timeout(), Some((late, "an operation's deadline")));
    node.files.handle_timeout(late);
    let expected = [
        "row ended $3 timeout",
        "answer $3 timeout",
        "abort $2",
        "row ended $1 timeout",
        "answer $1 timeout",
    ];
    assert_eq!(node.says(), lines(&expected));
    node.now = late;
    node.lost(2);
    node.files.handle_timeout(Timestamp(1_000 + limits::FILE_OP_MS));
    assert_eq!(node.says(), lines(&["row ended $2 timeout", "answer $2 timeout"]), "nobody could look");

    // What takes effect is given a while, and then looked up.
    let mut node = Node::new();
    node.now = Timestamp(999);
    node.commit(write(1, "/w/a"));
    node.files.handle_timeout(Timestamp(1_500));
    assert_eq!(node.says(), [""; 0]);
    node.files.handle_timeout(Timestamp(999 + limits::KILL_GRACE_MS));
    assert_eq!(node.says(), lines(&["abort $1"]));
    assert_eq!(node.lost(1), lines(&["recover $1 content"]));
    node.files.recovered(op(1), Some(Found { etag: etag(), bytes: 1 }));
    assert_eq!(node.says(), lines(&["row ended $1 done", "answer $1 done"]));

    // What is prepared too late does not take effect.
    let mut node = Node::new();
    node.begin(write(1, "/w/a"));
    node.now = late;
    assert_eq!(node.prepared(1), lines(&["abort $1"]));
}

#[test]
fn without_a_journal_nothing_begins() {
    let mut node = Node::new();
    node.ask(write(1, "/w/a"));
    node.files.unjournaled(op(1), "no space");
    assert_eq!(node.says(), lines(&["row ended $1 internal", "answer $1 internal"]));
    node.files.journaled(op(1));
    assert_eq!(node.says(), [""; 0]);
}

#[test]
fn a_link_that_ends_takes_reads_along_and_leaves_changes_to_be_told() {
    let mut node = Node::new();
    node.ask(stat(1, "/w/a"));
    node.begin(write(2, "/w/a"));
    node.prepared(2);
    node.files.disconnected();
    assert_eq!(node.says(), lines(&["abort $1"]));
    assert_eq!(node.lost(1), [""; 0]);
    let ends =
        |node: &mut Node| node.files.reports().into_iter().map(|report| report.end).collect::<Vec<_>>();
    assert_eq!(ends(&mut node), [None]);
    // It ends after Hello and before Welcome.
    assert_eq!(node.performed(2), lines(&["row ended $2 done"]));
    node.files.welcomed();
    assert_eq!(node.says(), lines(&["answer $2 done"]));
    node.files.disconnected();
    assert_eq!(ends(&mut node), [Some(Ok(DONE))]);
    node.files.welcomed();
    assert_eq!(node.says(), [""; 0], "Hello said it");
}

#[test]
fn what_the_hub_does_not_know_ends_in_silence() {
    let mut node = Node::new();
    node.begin(write(1, "/w/a"));
    assert_eq!(node.hear(ToNode::FileSettled { op: op(1) }), lines(&["abort $1"]));
    assert_eq!(node.files.reports(), []);
    node.lost(1);
    node.files.recovered(op(1), None);
    assert_eq!((node.says(), node.files.held()), (lines(&["row settled $1"]), 0));
}
