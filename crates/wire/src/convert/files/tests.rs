//! What survives the wire, and what does not pass: operations on files and their answers.

use cortex_core::Code;
use cortex_core::files::answer::{Entry, FileAnswer, Match, Note};
use cortex_core::files::op::FileOp;
use cortex_core::files::samples::{any_answer, any_end, any_op, any_refusal, every, path};
use cortex_core::id::{Attempt, ConsentId, Epoch, TaskId};
use cortex_core::message::{Envelope, ToHub, ToNode};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::convert::{
    asked_op, to_hub_from_proto, to_hub_into_proto, to_node_from_proto, to_node_into_proto,
};
use crate::mesh::file_answer::Outcome;
use crate::mesh::file_ask::Op;

fn op_id(n: u8) -> OpId {
    OpId::mint(1, &[n; 10])
}

fn ask(op: FileOp) -> FileAsk {
    FileAsk {
        id: op_id(1),
        op,
        caller: "token:admin".to_owned(),
        policy_revision: Revision(3),
        traceparent: None,
        consent: None,
        attempt: None,
        deadline_ms: limits::FILE_OP_MS,
        lock: None,
        ticket: None,
    }
}

fn a_stat() -> FileOp {
    FileOp::Stat { path: path("/a"), hash: false }
}

/// What a node makes of it, over the wire.
fn at_the_node(message: ToNode) -> Result<Option<Envelope<ToNode>>, Refusal> {
    let bytes = to_node_into_proto(Envelope { epoch: Epoch(3), message }).encode_to_vec();
    to_node_from_proto(mesh::AttachResponse::decode(bytes.as_slice()).expect("our own bytes"))
}

/// What a hub makes of it, over the wire.
fn at_the_hub(message: ToHub) -> Result<Option<Envelope<ToHub>>, Refusal> {
    let bytes = to_hub_into_proto(Envelope { epoch: Epoch(3), message }).encode_to_vec();
    to_hub_from_proto(mesh::AttachRequest::decode(bytes.as_slice()).expect("our own bytes"))
}

fn any_ask() -> impl Strategy<Value = FileAsk> {
    let id = any::<[u8; 16]>;
    let ids = (id(), option::of(id()), option::of((id(), any::<u64>())), option::of((id(), any::<u64>())));
    let texts = ("[ -~ب-ي]{0,40}", option::of("[ -~]{0,40}"));
    (any_op(), ids, texts, 1..=limits::FILE_OP_MS_MAX, any::<u64>(), option::of(id())).prop_map(
        |(op, (id, consent, attempt, lock), (caller, traceparent), deadline_ms, revision, ticket)| FileAsk {
            id: OpId::from_slice(&id).expect("sixteen"),
            op,
            caller,
            policy_revision: Revision(revision),
            traceparent,
            consent: consent.and_then(|id| ConsentId::from_slice(&id)),
            attempt: attempt.and_then(|(id, n)| Some((TaskId::from_slice(&id)?, Attempt(n)))),
            deadline_ms,
            lock: lock.and_then(|(id, n)| Some((WorkspaceId::from_slice(&id)?, LockEpoch(n)))),
            ticket: ticket.map(Ticket::new),
        },
    )
}

proptest! {
    // What a sound hub sends arrives as it is; what does not pass the check is refused with its code.
    #[test]
    fn an_operation_survives_the_wire_when_it_is_one(ask in any_ask()) {
        let message = ToNode::FileAsk(Box::new(ask.clone()));
        let expected = ask.op.check().map(|()| message.clone()).map_err(|refusal| refusal.code);
        let got = at_the_node(message).map(|got| got.expect("known").message);
        prop_assert_eq!(got.map_err(|refusal| refusal.code), expected);
    }

    #[test]
    fn an_answer_survives_the_wire_with_the_details_of_a_refusal(
        answer in prop_oneof![any_answer().prop_map(Ok), any_refusal().prop_map(Err)],
    ) {
        let message = ToHub::FileAnswered { op: op_id(2), answer };
        prop_assert_eq!(at_the_hub(message.clone()).map(|got| got.expect("known").message), Ok(message));
    }

    #[test]
    fn a_report_survives_the_wire(end in option::of(any_end())) {
        let report = FileReport { op: op_id(3), end };
        let bytes = report_into(report.clone()).encode_to_vec();
        let read = mesh::FileReport::decode(bytes.as_slice()).expect("our own bytes");
        prop_assert_eq!(reports_from(vec![read]), Ok(vec![report]));
    }

    // Whoever fills an answer up to its bound counts with these.
    #[test]
    fn nothing_takes_more_of_an_answer_than_its_weight(answer in any_answer()) {
        let parts: usize = if let FileAnswer::Listing { entries, .. } = &answer {
            entries.iter().map(Entry::weight).sum()
        } else if let FileAnswer::Matches { matches, .. } = &answer {
            matches.iter().map(Match::weight).sum()
        } else {
            return Ok(());
        };
        let encoded = answer_into(op_id(1), Ok(answer)).encoded_len();
        // The rest: a cursor of a few bytes here, six counts, and what frames them.
        prop_assert!(encoded <= parts + 160, "{encoded} of {parts}");
    }
}

#[test]
fn every_sample_and_every_order_survives_the_wire() {
    let sound = every().into_iter().filter(|op| op.check().is_ok());
    let asks = sound.map(|op| ToNode::FileAsk(Box::new(ask(op))));
    let orders = [
        ToNode::FileCancel { op: op_id(1) },
        ToNode::FileSettled { op: op_id(2) },
        ToNode::AttemptFence { task: TaskId::mint(1, &[4; 10]), attempt: Attempt(7) },
    ];
    for message in asks.chain(orders) {
        let got = at_the_node(message.clone()).expect("it is sound").expect("it is known");
        assert_eq!(got.message, message);
    }
}

/// What a node says to a request that was changed on its way.
fn refused(change: impl FnOnce(&mut mesh::FileAsk)) -> Code {
    let mut ask = ask_into(ask(a_stat()));
    change(&mut ask);
    ask_from(ask).expect_err("it must be refused").code
}

fn refused_op(op: Op) -> Code {
    refused(|ask| ask.op = Some(op))
}

fn refused_write(change: impl FnOnce(&mut mesh::FileWrite)) -> Code {
    let mut write = mesh::FileWrite {
        path: "/a".to_owned(),
        content: Some(mesh::file_write::Content::Inline(Bytes::new())),
        how: mesh::WriteHow::Put.into(),
        ..mesh::FileWrite::default()
    };
    change(&mut write);
    refused_op(Op::Write(write))
}

#[test]
fn what_is_missing_or_unknown_is_refused() {
    let bytes = |len| Bytes::from(vec![1; len]);
    let expect = |is| Some(mesh::Expect { is });
    let etag = |len| Some(mesh::expect::Is::Etag(bytes(len)));
    let (path, page) = ("/".to_owned(), Some(mesh::FilePage { limit: 1, cursor: None }));
    let find = mesh::FileFind { path: path.clone(), kind: Some(5), page: page.clone(), ..Default::default() };
    let read = mesh::FileRead { path: path.clone(), bytes_max: 1, stream: true, ..Default::default() };
    let list = mesh::FileList { path: path.clone(), depth: 1, ..Default::default() };
    let deep = mesh::FileList { path: path.clone(), depth: 257, page, ..Default::default() };
    for (what, code) in [
        ("op_id", refused(|ask| ask.op_id = bytes(15))),
        ("op", refused(|ask| ask.op = None)),
        ("deadline", refused(|ask| ask.deadline_ms = 0)),
        ("deadline", refused(|ask| ask.deadline_ms = limits::FILE_OP_MS_MAX + 1)),
        ("task", refused(|ask| ask.task_id = bytes(3))),
        ("consent", refused(|ask| ask.consent_id = bytes(17))),
        ("workspace", refused(|ask| ask.workspace_id = bytes(17))),
        ("ticket", refused(|ask| ask.ticket = bytes(1))),
        ("content", refused_write(|write| write.content = None)),
        ("how", refused_write(|write| write.how = 0)),
        ("how", refused_write(|write| write.how = 5)),
        ("expect", refused_write(|write| write.expect = expect(None))),
        ("expect", refused_write(|write| write.expect = expect(Some(mesh::expect::Is::Absent(false))))),
        ("etag", refused_write(|write| write.expect = expect(etag(31)))),
        ("mode", refused_write(|write| write.mode = Some(0o1_000_777))),
        ("mode", refused_write(|write| write.mode = Some(0o4777))),
        ("kind", refused_op(Op::Find(find))),
        ("stream", refused_op(Op::Read(read))),
        ("page", refused_op(Op::List(list))),
        ("depth", refused_op(Op::List(deep))),
    ] {
        assert_eq!(code, Code::InvalidArgument, "{what}");
    }
    let out = mesh::FileStat { path: "/a/../b".to_owned(), hash: true };
    assert_eq!(refused_op(Op::Stat(out)), Code::BadPath);
}

#[test]
fn an_answer_that_cannot_be_read_or_is_beyond_its_bounds_is_refused() {
    let meta = || mesh::FileMeta { kind: 1, ..Default::default() };
    let content = |change: fn(&mut mesh::FileContent)| {
        let mut content = mesh::FileContent { encoding: 1, ..Default::default() };
        change(&mut content);
        Some(Outcome::Content(content))
    };
    let entries = |meta: Option<mesh::FileMeta>, count| {
        let entry = mesh::FileEntry { name: Bytes::from_static(b"a"), meta };
        Some(Outcome::Listing(mesh::FileListing { entries: vec![entry; count], ..Default::default() }))
    };
    let max = limits::LIST_ENTRIES_PAGE_MAX as usize;
    for (sound, outcome) in [
        (false, None),
        (true, Some(Outcome::Meta(meta()))),
        (false, Some(Outcome::Meta(mesh::FileMeta { kind: 0, ..meta() }))),
        (false, Some(Outcome::Meta(mesh::FileMeta { mode: 0x1_0000, ..meta() }))),
        (false, Some(Outcome::Meta(mesh::FileMeta { etag: Some(Bytes::from_static(b"x")), ..meta() }))),
        (true, content(|_| {})),
        (false, content(|it| it.encoding = 0)),
        (false, content(|it| it.encoding = 4)),
        (false, content(|it| it.lines = Some(mesh::LineFacts::default()))),
        (false, content(|it| it.data = vec![0; limits::FILE_INLINE_BYTES_MAX + 1].into())),
        (true, entries(Some(meta()), max)),
        (false, entries(Some(meta()), max + 1)),
        (false, entries(None, 1)),
        (false, Some(Outcome::Written(mesh::FileWritten::default()))),
    ] {
        let shown = format!("{outcome:?}");
        let read = answer_from(mesh::FileAnswer { op_id: op_into(op_id(1)), outcome });
        let code = read.err().map(|refusal| refusal.code);
        assert_eq!(code, (!sound).then_some(Code::InvalidArgument), "{shown:.200}");
    }
    let unnamed = mesh::FileAnswer { op_id: Bytes::new(), outcome: Some(Outcome::Meta(meta())) };
    assert!(answer_from(unnamed).is_err());
}

#[test]
fn a_report_without_a_state_is_refused_and_so_are_too_many() {
    let report = |state| mesh::FileReport { op_id: op_into(op_id(1)), state };
    assert!(reports_from(vec![report(None)]).is_err());
    assert!(reports_from(vec![report(Some(State::UnderWay(false)))]).is_err());
    let many = vec![report(Some(State::UnderWay(true))); limits::FILE_OPS_OPEN_PER_NODE_MAX + 1];
    assert!(reports_from(many[1..].to_vec()).is_ok() && reports_from(many).is_err());
}

#[test]
fn a_remark_of_a_later_node_is_left_out() {
    let notes = ["copied", "polished"].map(str::to_owned).to_vec();
    let outcome = Some(Outcome::Done(mesh::FileDone { notes, ..Default::default() }));
    let (_, answer) = answer_from(mesh::FileAnswer { op_id: op_into(op_id(1)), outcome }).expect("sound");
    let Ok(FileAnswer::Done { notes, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(notes, [Note::Copied]);
}

#[test]
fn details_that_nobody_knows_do_not_pass_and_nothing_hides_in_the_others() {
    let details = [("closest", "1: a\n2: \u{202e}b"), ("secret", "x")];
    let details = details.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let code = "edit_not_found".to_owned();
    let refusal = refused_from(mesh::Refusal { code, details, ..Default::default() });
    assert_eq!(refusal.details, [("closest", "1: a\n2: \\u{202e}b".to_owned())]);
}

#[test]
fn whoever_waits_for_an_operation_that_cannot_be_read_is_known() {
    let message = ToNode::FileAsk(Box::new(ask(a_stat())));
    let mut response = to_node_into_proto(Envelope { epoch: Epoch(1), message });
    if let Some(mesh::attach_response::Message::FileAsk(ask)) = &mut response.message {
        ask.op = None;
    }
    assert!(to_node_from_proto(response.clone()).is_err());
    assert_eq!(asked_op(&response), Some(op_id(1)));
    let message = ToNode::FileCancel { op: op_id(1) };
    assert_eq!(asked_op(&to_node_into_proto(Envelope { epoch: Epoch(1), message })), None);
}
