//! Operations on files: kept to the last field, once per key, unsettled ones per node, removed after their
//! end.

use cortex_core::files::content::ContentId;
use cortex_core::files::entity::{FileEnd, FileOutcome, FileState, FileTask};
use cortex_core::files::op::Verb;
use cortex_core::files::path::FilePath;
use cortex_core::id::{Attempt, NodeId, OpId, Revision, TaskId, TokenId};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};

use crate::subject::{Subject, no};
use crate::support::node_id;

fn op(number: u64) -> OpId {
    OpId::mint(number, &[6; 10])
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

/// A move with every field set, without an end.
fn task(number: u64, node: NodeId) -> FileTask {
    FileTask {
        id: op(number),
        node,
        verb: Verb::Move,
        path: path("/srv/نتائج/ب 1"),
        source: Some(path("/srv/a")),
        digest: ContentId::of(b"what"),
        caller: "token:ci".to_owned(),
        token: Some(TokenId::mint(1, &[5; 10])),
        key: Some(format!("key {number}")),
        attempt: Some((TaskId::mint(2, &[7; 10]), Attempt(u64::MAX))),
        policy_revision: Revision(3),
        state: FileState::Accepted,
        at: WallTime(100),
        ended_at: None,
    }
}

fn ended(number: u64, node: NodeId, end: FileEnd, at: i64) -> FileTask {
    FileTask { state: FileState::Ended(end), ended_at: Some(WallTime(at)), ..task(number, node) }
}

const DONE: FileOutcome = FileOutcome::Done { removed: 1, made: u64::MAX };

pub(crate) async fn an_operation_is_read_back_to_the_last_field(subject: Subject) {
    let bare = FileTask {
        verb: Verb::Write,
        source: None,
        token: None,
        key: None,
        attempt: None,
        ..task(2, node_id(1))
    };
    let etag = ContentId::of(b"");
    let refusal = Refusal::new(Code::EtagMismatch, "Anders \u{e4}.")
        .hint("Lies.")
        .detail("etag", "x\n")
        .detail("size", "1");
    let all = [
        task(1, node_id(1)),
        bare,
        ended(3, node_id(1), Ok(FileOutcome::Written { etag, bytes: u64::MAX, created: true }), 5),
        ended(4, node_id(1), Ok(FileOutcome::Written { etag, bytes: 0, created: false }), -5),
        ended(5, node_id(2), Ok(DONE), 0),
        ended(6, node_id(2), Err(refusal), 6),
        ended(7, node_id(2), Err(Refusal::new(Code::Internal, "")), 7),
    ];
    let kept = all.clone();
    subject.put(move |tx| kept.iter().try_for_each(|one| tx.put_file_op(one))).await;
    subject
        .get(move |view| {
            for task in all {
                assert_eq!(view.file_op(task.id)?, Some(task.clone()));
                if let Some(key) = &task.key {
                    assert_eq!(view.file_op_by_key("token:ci", task.node, key)?, Some(task.clone()));
                }
            }
            assert_eq!(view.file_op(op(99))?, None);
            Ok(())
        })
        .await;
}

pub(crate) async fn a_key_is_one_operation_per_caller_and_node(subject: Subject) {
    let with = |number, node, caller: &str, key: Option<&str>| FileTask {
        caller: caller.to_owned(),
        key: key.map(str::to_owned),
        ..task(number, node)
    };
    let first = with(1, node_id(1), "token:a", Some("k"));
    let again = first.clone();
    subject.put(move |tx| tx.put_file_op(&first)).await;
    subject.put(move |tx| tx.put_file_op(&again)).await;
    let taken = with(2, node_id(1), "token:a", Some("k"));
    subject.conflicts(move |tx| tx.put_file_op(&taken)).await;
    let free = [
        with(2, node_id(2), "token:a", Some("k")),
        with(3, node_id(1), "token:b", Some("k")),
        with(4, node_id(1), "token:a", Some("K")),
        with(5, node_id(1), "token:a", None),
        with(6, node_id(1), "token:a", None),
    ];
    subject.put(move |tx| free.iter().try_for_each(|one| tx.put_file_op(one))).await;
    // With the operation its key goes, and may be used again.
    let over = ended(1, node_id(1), Ok(DONE), 5);
    let over = FileTask { caller: "token:a".to_owned(), key: Some("k".to_owned()), ..over };
    let next = with(7, node_id(1), "token:a", Some("k"));
    subject
        .put(move |tx| {
            tx.put_file_op(&over)?;
            assert_eq!(tx.remove_file_ops(&[over.id])?, 1);
            tx.put_file_op(&next)
        })
        .await;
    let found = subject.get(|view| view.file_op_by_key("token:a", node_id(1), "k")).await;
    assert_eq!(found.map(|task| task.id), Some(op(7)));
}

pub(crate) async fn unsettled_operations_are_found_per_node_and_after_a_restart(subject: Subject) {
    subject
        .put(|tx| {
            for number in [3, 1, 5] {
                tx.put_file_op(&task(number, node_id(1)))?;
            }
            tx.put_file_op(&task(2, node_id(2)))?;
            tx.put_file_op(&ended(4, node_id(1), Ok(DONE), 9))
        })
        .await;
    let of = |tasks: Vec<FileTask>| tasks.into_iter().map(|task| task.id).collect::<Vec<_>>();
    subject
        .get(move |view| {
            assert_eq!(of(view.open_file_ops_of(node_id(1), 9)?), [op(1), op(3), op(5)]);
            assert_eq!(of(view.open_file_ops_of(node_id(1), 2)?), [op(1), op(3)]);
            assert_eq!(of(view.open_file_ops_of(node_id(3), 9)?), []);
            let mut expected =
                vec![(node_id(1), op(1)), (node_id(1), op(3)), (node_id(1), op(5)), (node_id(2), op(2))];
            expected.sort();
            let all = view.open_file_ops()?.into_iter().map(|task| (task.node, task.id)).collect::<Vec<_>>();
            assert_eq!(all, expected);
            Ok(())
        })
        .await;
    subject.put(|tx| tx.put_file_op(&ended(1, node_id(1), Ok(DONE), 10))).await;
    assert_eq!(subject.get(move |view| Ok(of(view.open_file_ops_of(node_id(1), 1)?))).await, [op(3)]);
}

pub(crate) async fn ended_operations_go_in_the_order_of_their_ends_and_no_open_one_does(subject: Subject) {
    subject
        .put(|tx| {
            for (number, at) in [(1, 300), (2, 100), (3, 200)] {
                tx.put_file_op(&ended(number, node_id(1), Ok(DONE), at))?;
            }
            tx.put_file_op(&task(4, node_id(1)))
        })
        .await;
    subject
        .get(|view| {
            assert_eq!(view.ended_file_ops(2)?, [(op(2), WallTime(100)), (op(3), WallTime(200))]);
            assert_eq!((view.ended_file_ops(9)?.len(), view.ended_file_op_count()?), (3, 3));
            Ok(())
        })
        .await;
    let gone = subject.put(|tx| Ok(tx.remove_file_ops(&[op(2), op(4), op(9), op(2)])?)).await;
    assert_eq!(gone, 1, "what is open or not there stays out");
    subject
        .get(|view| {
            assert_eq!((view.file_op(op(2))?, view.ended_file_op_count()?), (None, 2));
            assert!(view.file_op(op(4))?.is_some());
            Ok(())
        })
        .await;
}

pub(crate) async fn a_refused_write_leaves_nothing_of_an_operation(subject: Subject) {
    subject.put(|tx| tx.put_file_op(&ended(1, node_id(1), Ok(DONE), 100))).await;
    let refused = subject
        .write(|tx| {
            tx.put_file_op(&task(2, node_id(1)))?;
            tx.put_file_op(&task(1, node_id(1)))?;
            tx.remove_file_ops(&[op(1)])?;
            no::<()>()
        })
        .await;
    assert!(refused.is_err());
    subject
        .get(|view| {
            assert_eq!(view.file_op(op(1))?, Some(ended(1, node_id(1), Ok(DONE), 100)));
            assert_eq!((view.file_op(op(2))?, view.open_file_ops()?), (None, vec![]));
            assert_eq!(view.file_op_by_key("token:ci", node_id(1), "key 2")?, None);
            Ok(())
        })
        .await;
}
