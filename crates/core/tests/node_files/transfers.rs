//! Transfers of trees: judged as operations are, and ended by what ends those.

use cortex_core::files::ask::Ticket;
use cortex_core::files::content::TreeId;
use cortex_core::id::TransferId;
use cortex_core::sync::{DeleteLimits, Mode, Push};
use cortex_core::transfer::{ApplyAsk, Filters, SendAsk, TransferAsk, TransferWork};

use super::*;

fn transfer_id(n: u8) -> TransferId {
    TransferId::mint(1, &[n; 10])
}

fn apply(n: u8, dest: &str, attempt: Option<(TaskId, Attempt)>) -> ToNode {
    let work = ApplyAsk {
        dest: FilePath::parse(dest).expect("a path"),
        only: None,
        target: TreeId::of(b"t"),
        base: None,
        mode: Mode::Push(Push::default()),
        limits: DeleteLimits::default(),
        accepted: None,
        filters: Filters::default(),
        checksum: false,
        dry_run: false,
        read_only: false,
        node_name: "n1".to_owned(),
        revision: Revision(1),
        identity: None,
    };
    transfer(n, TransferWork::Apply(Box::new(work)), attempt)
}

fn send(n: u8, source: &str) -> ToNode {
    let source = FilePath::parse(source).expect("a path");
    let work = SendAsk {
        source,
        only: None,
        base: None,
        filters: Filters::default(),
        checksum: false,
        mark: false,
        identity: None,
    };
    transfer(n, TransferWork::Send(Box::new(work)), None)
}

fn transfer(n: u8, work: TransferWork, attempt: Option<(TaskId, Attempt)>) -> ToNode {
    ToNode::TransferAsk(Box::new(TransferAsk {
        id: transfer_id(n),
        ticket: Ticket::new([n; 16]),
        work,
        caller: "token:admin".to_owned(),
        policy_revision: Revision(1),
        attempt,
        lock: None,
        deadline_ms: 1_000,
        traceparent: None,
    }))
}

/// What is said of the transfer `n`.
fn of(n: u8, text: &str) -> Vec<String> {
    vec![text.replace("$", &transfer_id(n).to_string())]
}

#[test]
fn a_transfer_is_judged_like_an_operation_and_only_one_changes_a_folder() {
    let mut node = Node::new();
    assert_eq!(node.hear(apply(1, "/etc/x", None)), of(1, "news $ path_outside_roots"));
    assert_eq!(node.hear(apply(2, "/w/a", None)), of(2, "transfer $ at /w"));
    assert_eq!(node.hear(apply(2, "/w/a", None)), [""; 0], "a repeat changes nothing");
    assert_eq!(node.hear(send(3, "/w/a/b")), of(3, "news $ conflict"));
    assert_eq!(node.hear(apply(4, "/w", None)), of(4, "news $ conflict"));
    assert_eq!(node.hear(send(5, "/w/other")), of(5, "transfer $ at /w"));
    assert_eq!(node.hear(send(6, "/w/other")), of(6, "transfer $ at /w"), "reading is for all");
    assert_eq!(node.files.may_change(transfer_id(2)), Ok(()));
    node.files.transferred(transfer_id(2), None);
    assert!(node.files.may_change(transfer_id(2)).is_err(), "it is over");
    assert_eq!(node.hear(apply(7, "/w/a/b", None)), of(7, "transfer $ at /w"));
}

#[test]
fn what_ends_an_operation_ends_a_transfer_before_its_next_change() {
    let (mut node, task) = (Node::new(), TaskId::mint(1, &[8; 10]));
    let of_attempt = |n, dest, attempt| apply(n, dest, Some((task, Attempt(attempt))));
    assert_eq!(node.hear(of_attempt(1, "/w/a", 1)).last(), of(1, "transfer $ at /w").last());
    let fenced = node.hear(ToNode::AttemptFence { task, attempt: Attempt(2) });
    assert_eq!(fenced.last(), of(1, "end $").last());
    assert_eq!(
        node.files.may_change(transfer_id(1)).map_err(|refusal| refusal.code),
        Err(Code::StaleAttempt)
    );
    node.files.transferred(transfer_id(1), None);
    assert_eq!(node.says(), of(1, "news $ stale_attempt"));
    assert_eq!(node.hear(of_attempt(2, "/w/a", 1)), of(2, "news $ stale_attempt"));
    node.hear(apply(3, "/w/a", None));
    assert_eq!(node.hear(ToNode::TransferCancel { id: transfer_id(3) }), of(3, "end $"));
    assert!(node.files.may_change(transfer_id(3)).is_err());
    node.hear(apply(4, "/w/b", None));
    node.now = T0.plus_ms(1_000);
    assert!(node.files.poll_timeout().is_some_and(|(at, _)| at <= node.now));
    node.files.handle_timeout(node.now);
    assert_eq!(node.says(), of(4, "end $"));
    node.files.transferred(transfer_id(4), None);
    assert_eq!(node.says(), of(4, "news $ timeout"));
    node.hear(apply(5, "/w/c", None));
    node.files.disconnected();
    assert_eq!(node.says(), of(5, "end $"), "its link is gone");
    for n in [3, 5] {
        node.files.transferred(transfer_id(n), None);
    }
    assert_eq!((node.says().len(), node.files.transfers()), (0, 0), "nobody is told, and nothing is left");
}

#[test]
fn more_transfers_than_may_be_open_are_refused() {
    let mut node = Node::new();
    let id = |n: usize| TransferId::mint(u64::try_from(n).expect("small"), &[0; 10]);
    for n in 0..=limits::TRANSFERS_OPEN_PER_NODE_MAX {
        let ToNode::TransferAsk(ask) = send(1, "/w/a") else { unreachable!() };
        let said = node.hear(ToNode::TransferAsk(Box::new(TransferAsk { id: id(n), ..*ask })));
        let is_last = n == limits::TRANSFERS_OPEN_PER_NODE_MAX;
        assert_eq!(said == [format!("news {} quota", id(n))], is_last, "{said:?}");
    }
}
