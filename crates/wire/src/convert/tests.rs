//! Every message survives the wire; what contradicts itself does not pass.

use super::*;
use prost::Message as _;

fn run() -> RunId {
    RunId::mint(1, &[7; 10])
}

fn policy() -> SignedPolicy {
    SignedPolicy {
        policy: None,
        document: Bytes::from_static(b"{\"version\":9}"),
        signature: Bytes::from_static(b"\x30\0"),
    }
}

fn head() -> AuditHead {
    AuditHead { seq: Seq(12), hash: [7; 32] }
}

fn ended() -> Ended {
    Ended {
        cause: EndCause::TimedOut,
        code: None,
        signal: Some(15),
        duration_ms: 12,
        output: Positions { stdout: 3, stderr: 4 },
        diagnostic: Some("why".to_owned()),
    }
}

#[test]
fn every_message_of_a_node_survives_the_wire() {
    let layer = Layer { name: "landlock".to_owned(), state: LayerState::Part, note: "ABI 5".to_owned() };
    let facts = Facts {
        os: "linux".to_owned(),
        cpus: 2,
        tools: vec!["git".to_owned()],
        layers: vec![layer],
        place: Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned()] },
        ..Facts::default()
    };
    let report =
        RunReport { run: run(), started: Some(Level::Full), ended: Some(ended()), kept_from: 1, end: 7 };
    let hello = Hello {
        protocol: 1,
        instance: u64::MAX,
        dial: 5,
        generation: Generation(2),
        epoch: Epoch(3),
        facts,
        ceiling: Some("{}".to_owned()),
        audit_head: Some(head()),
        runs: vec![report],
        files: vec![],
    };
    let frame = Frame {
        run: run(),
        stream: Stream::Stderr,
        position: 9,
        offset: 4,
        data: Bytes::from_static(b"x\0\xff"),
    };
    let messages = [
        ToHub::Hello(Box::new(hello)),
        ToHub::Heartbeat { seq: 5 },
        ToHub::Started { run: run(), level: Level::Kernel },
        ToHub::Output(frame),
        ToHub::Ended { run: run(), ended: ended() },
        ToHub::OutputLost { run: run(), first_kept: Positions { stdout: 1, stderr: 0 } },
        ToHub::InputTaken { run: run(), upto: 8 },
        ToHub::Refused { run: None, refusal: Refusal::new(Code::StaleEpoch, "old") },
        ToHub::Renew { csr: Bytes::from_static(b"csr") },
    ];
    for message in messages {
        let envelope = Envelope { epoch: Epoch(3), message };
        let bytes = to_hub_into_proto(envelope.clone()).encode_to_vec();
        let back = mesh::AttachRequest::decode(bytes.as_slice()).expect("our own bytes");
        assert_eq!(to_hub_from_proto(back).expect("our own message"), Some(envelope));
    }
}

#[test]
fn every_message_of_the_hub_survives_the_wire() {
    let spec = RunSpec {
        argv: vec!["echo".to_owned(), "; id\n".to_owned()],
        cwd: Some("/".to_owned()),
        env: vec![("LANG".to_owned(), "C".to_owned())],
        timeout_ms: Some(1),
        stdin: true,
    };
    let start = Start {
        run: run(),
        spec,
        caller: "token:admin".to_owned(),
        policy_revision: Revision(4),
        traceparent: Some("00-1-2-01".to_owned()),
        consent: Some(ConsentId::mint(1, &[7; 10])),
        task: Some((TaskId::mint(1, &[8; 10]), Attempt(3))),
    };
    let welcome = Welcome {
        generation: Generation(1),
        name: "a".to_owned(),
        policy: policy(),
        audit_head: Some(head()),
    };
    let messages = [
        ToNode::Welcome(welcome),
        ToNode::HeartbeatAck { seq: 5 },
        ToNode::Start(start),
        ToNode::Input { run: run(), offset: 1, data: Bytes::from_static(b"in"), eof: true },
        ToNode::Cancel { run: run(), grace_ms: 3 },
        ToNode::Cut { run: run() },
        ToNode::Resume { run: run(), from: 1, granted: 2 },
        ToNode::Credit { run: run(), granted: 2, durable: 1 },
        ToNode::Settled { run: run() },
        ToNode::Forget { run: run() },
        ToNode::Policy(policy()),
        ToNode::Certificate { chain: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")] },
        ToNode::Goodbye { refusal: Refusal::new(Code::NodeRevoked, "gone"), retry_after_ms: None },
    ];
    for message in messages {
        let envelope = Envelope { epoch: Epoch(9), message };
        let bytes = to_node_into_proto(envelope.clone()).encode_to_vec();
        let back = mesh::AttachResponse::decode(bytes.as_slice()).expect("our own bytes");
        assert_eq!(to_node_from_proto(back).expect("our own message"), Some(envelope));
    }
}

#[test]
fn a_message_of_a_newer_peer_is_ignored() {
    // Field 200, length-delimited, two bytes: a future member of the oneof.
    let bytes = [0x08, 0x03, 0xc2, 0x0c, 0x02, 0x01, 0x02];
    let request = mesh::AttachRequest::decode(bytes.as_slice()).expect("unknown fields are skipped");
    assert_eq!(to_hub_from_proto(request), Ok(None));
}

#[test]
fn a_frame_without_bytes_or_with_too_many_is_refused() {
    for len in [0, limits::FRAME_BYTES_MAX + 1] {
        let output = mesh::RunOutput {
            run_id: run_into(run()),
            stream: 1,
            position: 0,
            offset: 0,
            data: Bytes::from(vec![0; len]),
        };
        assert_eq!(frame_from(output).map_err(|refusal| refusal.code), Err(Code::InvalidArgument));
    }
}

#[test]
fn positions_that_overflow_together_are_refused() {
    let positions = mesh::Positions { stdout: u64::MAX, stderr: 1 };
    assert_eq!(positions_from(positions).map_err(|refusal| refusal.code), Err(Code::InvalidArgument));
}
