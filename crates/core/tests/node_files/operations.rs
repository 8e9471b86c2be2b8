//! What becomes of an operation, and in which order several of them are done.

use super::*;

#[test]
fn a_change_is_written_down_prepared_and_written_down_again_before_it_is_answered() {
    let mut node = Node::new();
    assert_eq!(node.ask(write(1, "/w/ملف")), lines(&["row accepted $1"]));
    node.files.journaled(op(1));
    assert_eq!(node.says(), lines(&["perform $1"]));
    node.files.prepared(op(1), Some(etag()), T0);
    assert_eq!(node.says(), lines(&["row intended $1", "commit $1"]));
    assert_eq!(node.performed(1), lines(&["row ended $1 done", "answer $1 done"]));
    assert_eq!((node.files.held(), node.files.live(), node.files.poll_timeout()), (1, 0, None));
    assert_eq!(node.hear(ToNode::FileSettled { op: op(1) }), lines(&["row settled $1"]));
    assert_eq!(node.files.held(), 0);
}

#[test]
fn a_read_is_done_at_once_and_leaves_nothing() {
    let mut node = Node::new();
    assert_eq!(node.ask(stat(1, "/w/a")), lines(&["perform $1"]));
    assert_eq!(node.files.reports(), []);
    assert_eq!(node.performed(1), lines(&["answer $1 done"]));
    assert_eq!(node.files.held(), 0);
}

#[test]
fn a_frame_of_another_epoch_passes_no_gate() {
    let mut node = Node::new();
    for epoch in [0, 2] {
        assert_eq!(node.runs.gate(Epoch(epoch)).expect_err("another link").code, Code::StaleEpoch);
    }
    node.runs.disconnected();
    assert_eq!(node.runs.gate(Epoch(1)).expect_err("no link").code, Code::StaleEpoch);
}

#[test]
fn one_that_comes_again_is_not_done_again() {
    let mut node = Node::new();
    node.ask(write(1, "/w/a"));
    assert_eq!(node.ask(write(1, "/w/a")), [""; 0]);
    node.files.journaled(op(1));
    node.says();
    assert_eq!(node.ask(write(1, "/w/a")), [""; 0]);
    node.prepared(1);
    node.performed(1);
    assert_eq!(node.ask(write(1, "/w/a")), lines(&["answer $1 done"]), "from what was kept");
    node.hear(ToNode::FileSettled { op: op(1) });
    assert_eq!(node.ask(write(1, "/w/a")), lines(&["answer $1 unknown_outcome"]));
    assert_eq!(node.files.reports().len(), 1, "told until it is settled");
}

#[test]
fn what_the_policy_refuses_is_not_begun_when_it_comes_again_either() {
    let mut node = Node::new();
    for _ in 0..2 {
        assert_eq!(node.ask(write(1, "/etc/a")), lines(&["answer $1 path_outside_roots"]));
    }
    assert_eq!(node.ask(stat(2, "/etc/a")), lines(&["answer $2 path_outside_roots"]));
    assert_eq!((node.files.held(), node.files.live()), (1, 0));
    node.hear(ToNode::FileSettled { op: op(1) });
    assert_eq!(node.ask(write(1, "/etc/a")), lines(&["answer $1 unknown_outcome"]));
    node.files.reserve(vec!["/w/own".to_owned()]);
    assert_eq!(node.ask(stat(3, "/w/own/key")), lines(&["answer $3 path_outside_roots"]));
}

#[test]
fn beyond_the_bound_nothing_is_taken_on() {
    let mut node = Node::new();
    for n in 0..limits::FILE_OPS_OPEN_PER_NODE_MAX {
        let id = OpId::mint(n as u64, &[77; 10]);
        node.ask(FileAsk { id, ..stat(1, "/w/a") });
    }
    assert_eq!(node.ask(write(1, "/w/b")), lines(&["answer $1 quota"]));
    node.files.disconnected();
    for n in 0..limits::FILE_OPS_OPEN_PER_NODE_MAX {
        node.files.lost(OpId::mint(n as u64, &[77; 10]), T0);
    }
    node.files.welcomed();
    assert_eq!(node.files.held(), 0);
    node.says();
    assert_eq!(node.ask(write(1, "/w/b")), lines(&["answer $1 unknown_outcome"]), "it was refused before");
}

#[test]
fn changes_whose_paths_touch_follow_one_another() {
    for (first, second, waits) in [
        ("/w/a", "/w/a", true),
        ("/w/a", "/w/a/b", true),
        ("/w/a/b", "/w/a", true),
        ("/w/a", "/w/ab", false),
        ("/w/a/b", "/w/a/c", false),
    ] {
        let mut node = Node::new();
        assert_eq!(node.begin(write(1, first)), lines(&["perform $1"]));
        let begun = node.begin(remove(2, second));
        assert_eq!(begun.is_empty(), waits, "{first} and {second}");
        assert_eq!(node.ask(stat(3, first)), lines(&["perform $3"]), "a read waits for none");
        node.prepared(1);
        let after = node.performed(1);
        assert_eq!(after.contains(&format!("perform {}", op(2))), waits);
    }
}

#[test]
fn changes_begin_in_the_order_in_which_they_came_and_not_in_that_of_their_rows() {
    let mut node = Node::new();
    node.ask(write(1, "/w/a"));
    assert_eq!(node.begin(write(2, "/w/a")), [""; 0]);
    let copied = |n| {
        let (from, to) = (path("/w/a"), path("/w/c"));
        ask(n, FileOp::Copy { from, to, recursive: false, replace: true, expect: Expect::Any })
    };
    assert_eq!(node.begin(copied(3)), [""; 0], "what it reads is being changed");
    node.files.journaled(op(1));
    assert_eq!(node.says(), lines(&["perform $1"]));
    node.files.performed(op(1), Err(Refusal::new(Code::NoSpace, "full")));
    assert_eq!(node.says(), lines(&["row ended $1 no_space", "answer $1 no_space", "perform $2"]));
    assert_eq!(node.performed(2), lines(&["row ended $2 done", "answer $2 done", "perform $3"]));
}
