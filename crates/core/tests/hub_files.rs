//! The hub's machine of operations on files, case by case.

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::ask::{FileAsk, FileReport};
use cortex_core::files::entity::{FileEnd, FileOutcome};
use cortex_core::files::op::{Content, Expect, FileOp, WriteHow};
use cortex_core::files::path::FilePath;
use cortex_core::hub_files::{Action, HubFiles};
use cortex_core::id::{Attempt, LinkId, OpId, Revision, TaskId};
use cortex_core::limits;
use cortex_core::message::ToNode;
use cortex_core::time::Timestamp;

const T0: Timestamp = Timestamp(0);
const DONE: FileOutcome = FileOutcome::Done { removed: 0, made: 1 };

fn op(n: u8) -> OpId {
    OpId::mint(u64::from(n), &[n; 10])
}

fn task() -> TaskId {
    TaskId::mint(1, &[1; 10])
}

fn asked(n: u8, op_: FileOp) -> FileAsk {
    FileAsk {
        id: op(n),
        op: op_,
        caller: "token:a".to_owned(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: None,
        attempt: Some((task(), Attempt(1))),
        deadline_ms: 1_000,
        lock: None,
        ticket: None,
    }
}

fn path() -> FilePath {
    FilePath::parse("/w/ملف").expect("a path")
}

fn write(n: u8) -> FileAsk {
    let content = Content::Inline(Bytes::from_static(b"x"));
    let (how, expect) = (WriteHow::Put, Expect::Any);
    asked(n, FileOp::Write { path: path(), content, how, expect, mkdirs: false, mode: None, dry_run: false })
}

fn read(n: u8) -> FileAsk {
    asked(n, FileOp::Stat { path: path(), hash: false })
}

fn drain(files: &mut HubFiles) -> Vec<Action> {
    std::iter::from_fn(|| files.poll_action()).collect()
}

fn linked() -> HubFiles {
    let mut files = HubFiles::new();
    files.attached(LinkId(1), vec![], true, T0);
    files
}

/// With one that the node has been sent.
fn sent(ask: FileAsk) -> HubFiles {
    let mut files = linked();
    files.submit(ask.clone(), T0);
    assert_eq!(drain(&mut files), [Action::Send(ToNode::FileAsk(Box::new(ask)))]);
    files
}

fn done() -> Result<FileAnswer, Refusal> {
    Ok(DONE.answer())
}

fn refused(code: Code) -> Result<FileAnswer, Refusal> {
    Err(Refusal::new(code, "no"))
}

/// What the actions say, in short.
fn told(actions: &[Action]) -> Vec<String> {
    let code = |ok: bool, refusal: Option<&Refusal>| match (ok, refusal) {
        (true, _) => "done".to_owned(),
        (_, refusal) => refusal.map(|refusal| refusal.code.to_string()).unwrap_or_default(),
    };
    let of = |action: &Action| match action {
        Action::Send(ToNode::FileAsk(ask)) => format!("ask {}", ask.deadline_ms),
        Action::Send(ToNode::FileCancel { .. }) => "cancel".to_owned(),
        Action::Send(ToNode::FileSettled { .. }) => "settled".to_owned(),
        Action::Send(ToNode::AttemptFence { attempt, .. }) => format!("fence {attempt}"),
        Action::Send(other) => format!("{other:?}"),
        Action::Answer(_, answer) => format!("answer {}", code(answer.is_ok(), answer.as_ref().err())),
        Action::Decide(_, end) => format!("decide {}", code(end.is_ok(), end.as_ref().err())),
        Action::Closed(_) => "closed".to_owned(),
    };
    actions.iter().map(of).collect()
}

fn says(files: &mut HubFiles) -> Vec<String> {
    told(&drain(files))
}

fn report(end: Option<FileEnd>) -> Vec<FileReport> {
    vec![FileReport { op: op(1), end }]
}

#[test]
fn what_was_done_is_stored_before_its_caller_hears_of_it_and_then_let_go() {
    let mut files = sent(write(1));
    files.answered(LinkId(1), op(1), done());
    assert_eq!(says(&mut files), ["decide done"]);
    files.answered(LinkId(1), op(1), refused(Code::NoSpace));
    assert_eq!(says(&mut files), [""; 0], "the first end stands");
    files.settled(op(1));
    assert_eq!(says(&mut files), ["settled", "answer done", "closed"]);
    assert!(files.is_empty() && files.poll_timeout().is_none());
    files.settled(op(1));
    assert_eq!(says(&mut files), [""; 0]);
}

#[test]
fn a_read_is_answered_at_once_and_nothing_of_it_is_stored() {
    let mut files = sent(read(1));
    files.answered(LinkId(1), op(1), refused(Code::NotFound));
    assert_eq!(says(&mut files), ["answer not_found", "closed"]);
    assert!(files.is_empty());
}

#[test]
fn what_an_older_link_says_has_no_effect() {
    let mut files = sent(write(1));
    files.attached(LinkId(2), report(None), true, T0);
    files.answered(LinkId(1), op(1), done());
    files.detached(LinkId(1), T0);
    assert_eq!((says(&mut files), files.link()), (vec![], Some(LinkId(2))));
}

#[test]
fn an_answer_to_something_else_leaves_the_outcome_unknown() {
    let mut files = sent(write(1));
    files.answered(LinkId(1), op(1), Ok(FileAnswer::Streaming { size: 1, etag: None }));
    files.settled(op(1));
    assert_eq!(says(&mut files), ["decide unknown_outcome", "settled", "answer unknown_outcome", "closed"]);
}

#[test]
fn an_end_that_comes_after_it_was_let_go_is_acknowledged() {
    let mut files = linked();
    files.answered(LinkId(1), op(1), done());
    files.attached(LinkId(2), report(Some(Ok(DONE))), true, T0);
    assert_eq!(says(&mut files), ["settled", "settled"]);
}

#[test]
fn a_node_that_is_back_says_what_became_of_it() {
    for (reports, is_same_store, expected) in [
        (report(Some(Ok(DONE))), true, vec!["decide done"]),
        (report(None), true, vec![]),
        // It was never taken on, so it is certain that nothing was done.
        (vec![], true, vec!["decide node_offline"]),
        (vec![], false, vec!["decide unknown_outcome"]),
    ] {
        let mut files = sent(write(1));
        files.detached(LinkId(1), T0);
        files.attached(LinkId(2), reports, is_same_store, T0);
        assert_eq!(says(&mut files), expected);
    }
}

#[test]
fn what_was_never_sent_is_sent_with_the_time_that_is_left_or_refused_for_certain() {
    let mut files = HubFiles::new();
    files.submit(write(1), T0);
    assert_eq!(says(&mut files), [""; 0]);
    files.attached(LinkId(1), vec![], true, Timestamp(400));
    assert_eq!(says(&mut files), ["ask 600"]);

    let mut files = HubFiles::new();
    let slow = FileAsk { deadline_ms: limits::FILE_OP_MS_MAX, ..write(1) };
    files.submit(slow, T0);
    files.handle_timeout(Timestamp(limits::GRACE_MS));
    files.settled(op(1));
    assert_eq!(says(&mut files), ["decide node_offline", "answer node_offline", "closed"]);
}

#[test]
fn a_read_does_not_outlive_its_link_and_is_not_begun_without_one() {
    let mut files = sent(read(1));
    files.detached(LinkId(1), T0);
    files.submit(read(2), T0);
    assert_eq!(says(&mut files), ["answer node_offline", "closed", "answer node_offline", "closed"]);
    let mut files = sent(read(1));
    files.attached(LinkId(2), vec![], true, T0);
    assert_eq!(says(&mut files), ["answer node_offline", "closed"]);
}

#[test]
fn a_caller_is_told_within_its_time_and_the_operation_stays_until_its_node_says() {
    let mut files = sent(write(1));
    let (at, why) = files.poll_timeout().expect("a deadline");
    assert_eq!((at, why), (Timestamp(1_000 + limits::FILE_ANSWER_MS), "the deadline of a caller"));
    files.handle_timeout(at);
    assert_eq!(says(&mut files), ["answer unknown_outcome", "cancel"]);
    assert_eq!((files.len(), files.poll_timeout()), (1, None), "nobody waits");
    files.answered(LinkId(1), op(1), done());
    files.settled(op(1));
    assert_eq!(says(&mut files), ["decide done", "settled", "closed"], "answered once");
}

#[test]
fn the_time_of_a_read_ends_it() {
    let mut files = sent(read(1));
    files.handle_timeout(Timestamp(1_000 + limits::FILE_ANSWER_MS));
    assert_eq!(says(&mut files), ["cancel", "answer timeout", "closed"]);
}

#[test]
fn an_end_that_the_store_does_not_take_in_time_is_no_promise() {
    let mut files = sent(write(1));
    files.answered(LinkId(1), op(1), done());
    files.handle_timeout(Timestamp(1_000 + limits::FILE_ANSWER_MS));
    files.settled(op(1));
    assert_eq!(says(&mut files), ["decide done", "answer unknown_outcome", "settled", "closed"]);
}

#[test]
fn a_node_that_stays_away_keeps_no_caller_waiting_and_its_word_counts_when_it_comes() {
    let slow = FileAsk { deadline_ms: limits::FILE_OP_MS_MAX, ..write(1) };
    let mut files = sent(slow);
    files.detached(LinkId(1), T0);
    files.handle_timeout(Timestamp(limits::GRACE_MS));
    assert_eq!(says(&mut files), ["answer unknown_outcome"]);
    files.attached(LinkId(2), report(Some(Ok(DONE))), true, Timestamp(1_000_000));
    files.settled(op(1));
    assert_eq!(says(&mut files), ["decide done", "settled", "closed"]);
}

#[test]
fn a_wish_outlives_the_link_and_names_the_end() {
    let mut files = sent(write(1));
    files.cancel(op(1), Refusal::new(Code::Locked, "locked"));
    files.detached(LinkId(1), T0);
    files.attached(LinkId(2), report(None), true, T0);
    assert_eq!(says(&mut files), ["cancel", "cancel"]);
    files.answered(LinkId(2), op(1), refused(Code::Timeout));
    assert_eq!(says(&mut files), ["decide locked"]);
    // What was done in spite of it is told as what it is.
    let mut files = sent(write(1));
    files.cancel(op(1), Refusal::new(Code::Locked, "locked"));
    files.answered(LinkId(1), op(1), done());
    assert_eq!(says(&mut files), ["cancel", "decide done"]);
    // What was never sent ends at once.
    let mut files = HubFiles::new();
    files.submit(write(1), T0);
    files.cancel(op(1), Refusal::new(Code::Locked, "locked"));
    assert_eq!(says(&mut files), ["decide locked"]);
}

#[test]
fn a_fence_goes_where_an_older_attempt_has_something_open_and_as_often_as_it_takes() {
    let mut files = sent(write(1));
    files.fence(task(), Attempt(1));
    files.fence(TaskId::mint(2, &[2; 10]), Attempt(9));
    assert_eq!(says(&mut files), [""; 0]);
    files.fence(task(), Attempt(2));
    files.detached(LinkId(1), T0);
    files.fence(task(), Attempt(3));
    files.attached(LinkId(2), report(None), true, T0);
    assert_eq!(says(&mut files), ["fence 2", "fence 3"]);
    files.answered(LinkId(2), op(1), refused(Code::StaleAttempt));
    assert_eq!(says(&mut files), ["decide stale_attempt"]);

    let mut files = HubFiles::new();
    files.submit(write(1), T0);
    files.fence(task(), Attempt(2));
    assert_eq!(says(&mut files), ["decide stale_attempt"], "it was never sent");
}

#[test]
fn a_restarted_hub_waits_for_the_nodes_word_and_answers_nobody() {
    let mut files = HubFiles::new();
    files.restore(op(1), Some((task(), Attempt(1))));
    assert_eq!(files.poll_timeout(), None);
    files.attached(LinkId(1), report(Some(Ok(DONE))), true, T0);
    files.settled(op(1));
    assert_eq!(says(&mut files), ["decide done", "settled", "closed"]);
}

#[test]
fn of_a_node_that_is_removed_nothing_is_waited_for() {
    let mut files = sent(write(1));
    files.submit(read(2), T0);
    files.abandon("the node was removed");
    files.submit(write(3), T0);
    drain(&mut files);
    files.settled(op(1));
    assert_eq!(says(&mut files), ["answer unknown_outcome", "closed"]);
    files.abandon("again");
    assert_eq!(says(&mut files), ["decide node_offline"]);
}

#[test]
fn no_more_are_admitted_than_a_node_may_have() {
    let mut files = linked();
    for n in 0..limits::FILE_OPS_OPEN_PER_NODE_MAX {
        assert_eq!(files.admit(), Ok(()));
        let id = OpId::mint(n as u64, &[0; 10]);
        files.submit(FileAsk { id, ..write(1) }, T0);
    }
    assert_eq!(files.admit().expect_err("full").code, Code::Quota);
}
