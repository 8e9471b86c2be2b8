//! What survives the wire, and what does not pass: transfers.

use std::collections::BTreeMap;

use cortex_core::files::path::RelPath;
use cortex_core::files::samples::{any_hash, any_refusal, path};
use cortex_core::id::{Attempt, TaskId};
use cortex_core::message::{Envelope, ToHub, ToNode};
use cortex_core::sync::{Cause, End, Halt, PlanCounts, RootState, Rule, SideCounts, Why};
use cortex_core::transfer::{
    Carry, DataEnd, LeftOut, Noted, PathNote, Phase, Progress, TransferEnd, TransferNews, TreeTold,
};
use cortex_core::workspace::RootIdentity;
use cortex_core::{Code, limits};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::convert::{
    asked_transfer, to_hub_from_proto, to_hub_into_proto, to_node_from_proto, to_node_into_proto,
};

/// What a node makes of it, over the wire.
fn at_the_node(message: ToNode) -> Result<ToNode, Refusal> {
    let bytes = to_node_into_proto(Envelope { epoch: Epoch(3), message }).encode_to_vec();
    let response = mesh::AttachResponse::decode(bytes.as_slice()).expect("our own bytes");
    to_node_from_proto(response).map(|envelope| envelope.expect("known").message)
}

/// What a hub makes of it, over the wire.
fn at_the_hub(message: ToHub) -> Result<ToHub, Refusal> {
    let bytes = to_hub_into_proto(Envelope { epoch: Epoch(3), message }).encode_to_vec();
    let request = mesh::AttachRequest::decode(bytes.as_slice()).expect("our own bytes");
    to_hub_from_proto(request).map(|envelope| envelope.expect("known").message)
}

fn again(carry: Carry) -> Result<Option<Carry>, Refusal> {
    carry_from_bytes(carry_to_bytes(carry))
}

fn refused<T>(result: Result<T, Refusal>) -> Option<Code> {
    result.err().map(|refusal| refusal.code)
}

fn rel(text: &str) -> RelPath {
    RelPath::parse(text).expect("a path")
}

fn any_tree() -> impl Strategy<Value = TreeId> {
    any_hash().prop_map(TreeId::from)
}

fn any_rel() -> impl Strategy<Value = RelPath> {
    "[a-zب-ي]{1,20}(/[a-zب-ي ]{0,10}[a-z]){0,3}".prop_map(|text| rel(&text))
}

fn any_filters() -> impl Strategy<Value = Filters> {
    let exclude = prop::collection::vec("[!-~ب-ي]{1,30}", 0..4);
    (exclude, any::<[bool; 3]>()).prop_map(|(exclude, [ignore_files, vcs, links_outside])| Filters {
        exclude,
        ignore_files,
        vcs,
        links_outside,
    })
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::FromNode),
        Just(Mode::TwoWay),
        any::<bool>().prop_map(|repair| Mode::FromHub { repair }),
        any::<[bool; 3]>().prop_map(|[first, force, delete]| Mode::Push(Push { first, force, delete })),
    ]
}

/// Names, and what is none.
fn any_only() -> impl Strategy<Value = Option<String>> {
    option::of("[a-zب-ي ./]{0,9}")
}

fn any_identity() -> impl Strategy<Value = Option<RootIdentity>> {
    let identity = (any::<[u8; 32]>(), any::<u64>(), any::<u64>());
    option::of(identity.prop_map(|(marker, dev, ino)| RootIdentity { marker, dev, ino }))
}

fn any_work() -> impl Strategy<Value = TransferWork> {
    let flags = any::<[bool; 3]>();
    let ids = (any_tree(), option::of(any_tree()), option::of(any_hash()));
    let limits = any::<[u64; 3]>().prop_map(|[files, percent, percent_from]| DeleteLimits {
        files,
        percent,
        percent_from,
    });
    let apply = (
        ids,
        any_mode(),
        limits,
        any_filters(),
        flags,
        "[a-z]{0,70}",
        any::<u64>(),
        any_only(),
        any_identity(),
    )
        .prop_map(
            |(
                (target, base, accepted),
                mode,
                limits,
                filters,
                [checksum, dry_run, read_only],
                node_name,
                revision,
                only,
                identity,
            )| {
                TransferWork::Apply(Box::new(ApplyAsk {
                    dest: path("/srv/مشروع"),
                    target,
                    base,
                    only,
                    mode,
                    limits,
                    accepted: accepted.map(HaltId::new),
                    filters,
                    checksum,
                    dry_run,
                    read_only,
                    node_name,
                    revision: Revision(revision),
                    identity,
                }))
            },
        );
    let flags = any::<[bool; 2]>();
    let send = (option::of(any_tree()), any_filters(), flags, any_only(), any_identity()).prop_map(
        |(base, filters, [checksum, mark], only, identity)| {
            let source = path("/srv/a");
            TransferWork::Send(Box::new(SendAsk { source, only, base, filters, checksum, mark, identity }))
        },
    );
    prop_oneof![apply, send]
}

fn any_ask() -> impl Strategy<Value = TransferAsk> {
    let id = any::<[u8; 16]>;
    let numbers = (1..=limits::TRANSFER_MS_MAX, any::<u64>());
    let fences = (option::of((id(), any::<u64>())), option::of((id(), any::<u64>())));
    (any_work(), id(), id(), fences, numbers, "[ -~]{0,20}", option::of("[ -~]{0,20}")).prop_map(
        |(work, transfer, ticket, (attempt, lock), (deadline_ms, revision), caller, traceparent)| {
            TransferAsk {
                id: TransferId::from_slice(&transfer).expect("sixteen"),
                ticket: Ticket::new(ticket),
                work,
                caller,
                policy_revision: Revision(revision),
                attempt: attempt.and_then(|(id, n)| Some((TaskId::from_slice(&id)?, Attempt(n)))),
                lock: lock.and_then(|(id, n)| Some((WorkspaceId::from_slice(&id)?, LockEpoch(n)))),
                deadline_ms,
                traceparent,
            }
        },
    )
}

fn any_note() -> impl Strategy<Value = PathNote> {
    let what = prop_oneof![
        prop::sample::select(vec![
            Noted::Put,
            Noted::MakeDir,
            Noted::RemoveFile,
            Noted::RemoveDir,
            Noted::Exec
        ]),
        any_rel().prop_map(Noted::Keep),
        any_rel().prop_map(Noted::Aside),
        prop::sample::select(Why::ALL.to_vec()).prop_map(Noted::Held),
        prop::sample::select(Code::ALL.to_vec()).prop_map(Noted::Failed),
    ];
    let at = prop_oneof![any_rel(), Just(RelPath::root())];
    (at, what).prop_map(|(path, what)| PathNote { path, what })
}

fn any_halt() -> impl Strategy<Value = Halt> {
    let rule = prop::sample::select(Rule::ALL.to_vec());
    let cause = (rule, any::<bool>(), any::<u64>(), any::<u64>()).prop_map(|(rule, on_node, deletes, of)| {
        Cause { rule, end: if on_node { End::Node } else { End::Hub }, deletes, of }
    });
    (any_hash(), prop::collection::vec(cause, 1..=8))
        .prop_map(|(id, causes)| Halt { id: HaltId::new(id), causes })
}

fn any_end() -> impl Strategy<Value = TransferEnd> {
    let held = prop::collection::btree_map(prop::sample::select(Why::ALL.to_vec()), 0..1_000_u64, 0..5);
    let counts = (prop::array::uniform6(0..1_u64 << 40), held).prop_map(
        |([same, to_node, to_hub, merged, kept_both, extra], held)| PlanCounts {
            same,
            to_node,
            to_hub,
            merged,
            kept_both,
            extra,
            held,
        },
    );
    let notes = prop::collection::vec(any_note(), 0..5);
    (option::of(any_tree()), any::<[u64; 3]>(), counts, notes, option::of(any_halt())).prop_map(
        |(root, [files, bytes, notes_more], counts, notes, halt)| TransferEnd {
            root,
            files,
            bytes,
            counts,
            notes,
            notes_more,
            halt,
        },
    )
}

fn any_progress() -> impl Strategy<Value = Progress> {
    let phases = prop::sample::select(vec![Phase::Scanning, Phase::Moving, Phase::Applying]);
    (phases, any::<[u64; 4]>()).prop_map(|(phase, [files, files_total, bytes, bytes_total])| Progress {
        phase,
        files,
        files_total,
        bytes,
        bytes_total,
    })
}

fn any_carry() -> impl Strategy<Value = Carry> {
    let states = vec![RootState::Dir, RootState::Missing, RootState::OtherKind, RootState::Unavailable];
    let left_out = any::<[u64; 5]>().prop_map(|[unnamed, too_large, rules_unread, unreadable, unfit]| {
        LeftOut { unnamed, too_large, rules_unread, unreadable, unfit }
    });
    let left_out = prop_oneof![Just(LeftOut::default()), left_out];
    let tree = (any_tree(), prop::sample::select(states), any::<[u64; 4]>(), any_identity(), left_out)
        .prop_map(|(root, state, [files, root_entries, entries, bytes], identity, left_out)| {
            let counts = SideCounts { files, root_entries };
            Carry::Tree(TreeTold { root, state, counts, entries, bytes, identity, left_out })
        });
    let ids = || prop::collection::vec(any_hash(), 1..20);
    let bytes = || prop::collection::vec(any::<u8>(), 1..300).prop_map(Bytes::from);
    prop_oneof![
        tree,
        prop::collection::vec(any_note(), 1..5).prop_map(Carry::Held),
        ids().prop_map(Carry::Wants),
        bytes().prop_map(Carry::Pack),
        ids().prop_map(Carry::Missing),
        any_progress().prop_map(Carry::Progress),
        any_end().prop_map(|end| Carry::End(Box::new(end))),
        any_refusal().prop_map(Carry::Refused),
        bytes().prop_map(Carry::Data),
        (any::<u64>(), option::of(any_hash())).prop_map(|(len, id)| Carry::DataEnd(DataEnd { len, id })),
    ]
}

proptest! {
    // What a sound hub asks for arrives as it is; what does not pass the check is refused.
    #[test]
    fn a_transfer_survives_the_wire_when_it_is_one(ask in any_ask()) {
        let message = ToNode::TransferAsk(Box::new(ask.clone()));
        let got = at_the_node(message.clone());
        match ask.work.check() {
            Ok(()) => prop_assert_eq!(got, Ok(message)),
            Err(_) => prop_assert!(got.is_err()),
        }
        if ask.work.check().is_ok() {
            prop_assert_eq!(work_from_bytes(&work_to_bytes(ask.work.clone())), Ok(ask.work));
        }
    }

    #[test]
    fn what_is_told_of_a_transfer_survives_the_wire(
        id in any::<[u8; 16]>(),
        end in prop_oneof![any_end().prop_map(|end| Ok(Box::new(end))), any_refusal().prop_map(Err)],
    ) {
        let id = TransferId::from_slice(&id).expect("sixteen");
        let message = ToHub::TransferNews(TransferNews { id, end });
        prop_assert_eq!(at_the_hub(message.clone()), Ok(message));
    }

    #[test]
    fn a_frame_survives_the_wire(carry in any_carry()) {
        prop_assert_eq!(again(carry.clone()), Ok(Some(carry)));
    }

    // Bytes of a clerk, which is foreign: they are a frame, are ignored, or are refused.
    #[test]
    fn any_bytes_are_a_frame_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some(carry)) = carry_from_bytes(bytes.into()) {
            prop_assert_eq!(again(carry.clone()), Ok(Some(carry)));
        }
    }
}

#[test]
fn both_ends_of_a_stream_say_what_they_say() {
    let refusal = Refusal::new(Code::NoSpace, "full");
    let open = Sent::Open { ticket: Ticket::new([7; 16]), epoch: Epoch(5) };
    for sent in [open, Sent::Frame(Bytes::from_static(b"x")), Sent::Refused(refusal.clone())] {
        assert_eq!(sent_from(sent_into(sent.clone())), Ok(Some(sent)));
    }
    for given in [Given::Frame(Bytes::from_static(b"x")), Given::Refused(refusal)] {
        assert_eq!(given_from(given_into(given.clone())), Ok(Some(given)));
    }
    assert_eq!(sent_from(mesh::TransferRequest { message: None }), Ok(None), "of a newer peer");
    assert_eq!(given_from(mesh::TransferResponse { message: None }), Ok(None), "of a newer peer");
    let cancel = ToNode::TransferCancel { id: TransferId::mint(1, &[3; 10]) };
    assert_eq!(at_the_node(cancel.clone()), Ok(cancel));
}

#[test]
fn no_length_of_a_frame_is_beyond_its_bound() {
    let bad = Some(Code::InvalidArgument);
    let ids = |count| vec![ContentId::of(b"a"); count];
    let bytes = |len| Bytes::from(vec![0; len]);
    for (fits, beyond) in [
        (
            Carry::Data(bytes(limits::CARRY_DATA_BYTES_MAX)),
            Carry::Data(bytes(limits::CARRY_DATA_BYTES_MAX + 1)),
        ),
        (Carry::Pack(bytes(1)), Carry::Pack(bytes(0))),
        (Carry::Wants(ids(limits::WANTS_MAX)), Carry::Wants(ids(limits::WANTS_MAX + 1))),
        (Carry::Missing(ids(1)), Carry::Missing(ids(0))),
    ] {
        assert_eq!(again(fits.clone()), Ok(Some(fits)));
        assert_eq!(refused(again(beyond)), bad);
    }
    assert_eq!(refused(carry_from_bytes(bytes(limits::CARRY_BYTES_MAX + 1))), bad);
    for len in [0, limits::CARRY_BYTES_MAX + 1] {
        assert_eq!(refused(sent_from(sent_into(Sent::Frame(bytes(len))))), bad, "{len}");
        assert_eq!(refused(given_from(given_into(Given::Frame(bytes(len))))), bad, "{len}");
    }
    let odd = mesh::Carry { is: Some(mesh::carry::Is::Wants(mesh::Ids { ids: bytes(33) })) };
    assert_eq!(refused(carry_from_bytes(odd.encode_to_vec().into())), bad, "half an id");
    let open = mesh::TransferOpen { ticket: bytes(15), epoch: 1 };
    let open = mesh::TransferRequest { message: Some(FromNode::Open(open)) };
    assert_eq!(refused(sent_from(open)), bad, "a short ticket");
}

#[test]
fn an_end_that_contradicts_itself_or_has_no_bound_is_refused() {
    let note = mesh::PathNote { path: "a".to_owned(), what: Some(mesh::path_note::What::Step(1)) };
    let held = |why: &str, count| mesh::HeldCount { why: why.to_owned(), count };
    let counts = |same, held| mesh::PlanCounts { same, held, ..mesh::PlanCounts::default() };
    let of_counts = |counts| mesh::TransferEnd { counts: Some(counts), ..mesh::TransferEnd::default() };
    let of_notes = |notes| mesh::TransferEnd { notes, ..mesh::TransferEnd::default() };
    let of_note = |path: &str, what| of_notes(vec![mesh::PathNote { path: path.to_owned(), what }]);
    let halt = |id, causes| mesh::TransferEnd {
        halt: Some(mesh::Halt { id: Bytes::from(vec![1; id]), causes }),
        ..mesh::TransferEnd::default()
    };
    let cause = |rule: &str| mesh::HaltCause { rule: rule.to_owned(), ..mesh::HaltCause::default() };
    let long = ["n".repeat(250).as_str(); 16].join("/");
    let heavy = vec![mesh::PathNote { path: long, ..note.clone() }; 13];
    for (end, what) in [
        (of_notes(vec![note; limits::TRANSFER_NOTES_MAX + 1]), "too many notes"),
        (of_notes(heavy), "too heavy ones"),
        (of_note("../x", Some(mesh::path_note::What::Step(1))), "a way out"),
        (of_note("a", Some(mesh::path_note::What::Step(99))), "an unknown step"),
        (of_note("a", Some(mesh::path_note::What::Held("x".to_owned()))), "an unknown reason"),
        (of_note("a", Some(mesh::path_note::What::Keep("/etc".to_owned()))), "an absolute copy"),
        (of_note("a", None), "nothing said"),
        (of_counts(counts(u64::MAX, vec![held("kept", 1)])), "a sum that is none"),
        (of_counts(counts(0, vec![held("kept", 1), held("kept", 2)])), "a reason twice"),
        (of_counts(counts(0, vec![held("kept", 1); 15])), "too many reasons"),
        (halt(32, vec![]), "a halt without a cause"),
        (halt(31, vec![cause("deletes")]), "a short id"),
        (halt(32, vec![cause("whim")]), "an unknown rule"),
        (halt(32, vec![cause("deletes"); 9]), "too many causes"),
    ] {
        let carry = mesh::Carry { is: Some(mesh::carry::Is::End(end)) };
        assert!(carry_from_bytes(carry.encode_to_vec().into()).is_err(), "{what}");
    }
    let counts = PlanCounts { held: BTreeMap::from([(Why::Kept, 1)]), ..PlanCounts::default() };
    let end = Carry::End(Box::new(TransferEnd { counts, ..TransferEnd::default() }));
    assert_eq!(again(end.clone()), Ok(Some(end)));
}

#[test]
fn a_transfer_that_cannot_be_read_is_told_by_its_id() {
    let id = TransferId::mint(1, &[3; 10]);
    let ask = mesh::TransferAsk { transfer_id: id_into(id), ..mesh::TransferAsk::default() };
    let response =
        mesh::AttachResponse { epoch: 1, message: Some(mesh::attach_response::Message::TransferAsk(ask)) };
    assert_eq!(asked_transfer(&response), Some(id));
    assert_eq!(refused(to_node_from_proto(response)), Some(Code::InvalidArgument));
}

#[test]
fn the_longest_frames_fit_in_one() {
    let mut end = TransferEnd::default();
    for n in 0..limits::TRANSFER_NOTES_MAX {
        let what = Noted::Aside(rel(&format!("{}{n}", "b".repeat(100))));
        end.note(PathNote { path: rel(&format!("{}{n}", "a".repeat(100))), what });
    }
    assert!(end.notes_more == 0 && end.notes.len() == limits::TRANSFER_NOTES_MAX);
    end.counts.held = Why::ALL.into_iter().map(|why| (why, 1 << 40)).collect();
    let frames = [
        Carry::End(Box::new(end)),
        Carry::Wants(vec![ContentId::of(b"a"); limits::WANTS_MAX]),
        Carry::Data(Bytes::from(vec![0; limits::CARRY_DATA_BYTES_MAX])),
    ];
    for carry in frames {
        assert!(carry_to_bytes(carry).len() <= limits::CARRY_BYTES_MAX);
    }
}
