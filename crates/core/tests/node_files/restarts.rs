//! What a node finds in its journal that an earlier life of it left.

use cortex_core::files::entity::FileEnd;
use cortex_core::node_files::Found;

use super::*;

#[test]
fn what_a_node_process_left_open_is_looked_up_and_done_or_unknown() {
    let found = |etag| Some(Found { etag, bytes: 7 });
    let written = FileOutcome::Written { etag: etag(), bytes: 7, created: false };
    for (intended, found, is_done) in [
        (Some(etag()), found(etag()), true),
        (Some(etag()), found(ContentId::of(b"other")), false),
        (Some(etag()), None, false),
        (None, found(etag()), false),
    ] {
        let mut journal = vec![Record::FileAccepted(accepted(1))];
        journal.extend(intended.map(|etag| Record::FileIntended(op(1), etag)));
        let mut node = Node::after(journal);
        let content = intended.map_or("nothing", |_| "content");
        assert_eq!(node.says(), [format!("recover {} {content}", op(1))]);
        assert_eq!(node.begin(write(2, "/w/a")), [""; 0], "its path is not free so far");
        node.files.recovered(op(1), found);
        let end: Option<FileEnd> = node.files.reports().into_iter().find_map(|report| report.end);
        match is_done {
            true => assert_eq!(end, Some(Ok(written))),
            false => assert_eq!(end.expect("an end").expect_err("unknown").code, Code::UnknownOutcome),
        }
        assert!(node.says().contains(&format!("perform {}", op(2))));
    }
}

#[test]
fn a_restarted_node_knows_ends_settled_ids_and_fences() {
    let attempt = Record::Attempt(task(), Attempt(3));
    let ended = [Record::FileAccepted(accepted(1)), Record::FileEnded(op(1), Ok(DONE))];
    let settled = [Record::FileAccepted(accepted(2)), Record::FileSettled(op(2))];
    let mut node = Node::after([vec![attempt], ended.to_vec(), settled.to_vec()].concat());
    assert_eq!(node.says(), lines(&["answer $1 done"]));
    assert_eq!((node.files.held(), node.files.live()), (1, 0));
    assert_eq!(node.ask(write(1, "/w/a")), lines(&["answer $1 done"]));
    assert_eq!(node.ask(write(2, "/w/a")), lines(&["answer $2 unknown_outcome"]));
    assert_eq!(node.ask(of_attempt(2, write(3, "/w/a"))), lines(&["answer $3 stale_attempt"]));
}

#[test]
fn an_end_of_an_earlier_life_that_is_settled_takes_no_turn_from_another() {
    let mut node = Node::after(vec![Record::FileAccepted(accepted(1)), Record::FileEnded(op(1), Ok(DONE))]);
    node.ask(write(2, "/w/a"));
    node.hear(ToNode::FileSettled { op: op(1) });
    assert_eq!((node.files.held(), node.files.live()), (1, 1));
    node.files.journaled(op(2));
    assert_eq!(node.says(), lines(&["perform $2"]));
}
