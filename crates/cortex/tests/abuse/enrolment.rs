//! Rows 1 to 14: enrolment and identity.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cortex_core::Code;
use cortex_core::limits::PROTOCOL;
use cortex_hub::access::{self, Needs};
use cortex_wire::mesh::attach_request::Message;
use cortex_wire::mesh::enrolment_service_client::EnrolmentServiceClient;
use cortex_wire::mesh::mesh_service_client::MeshServiceClient;
use serde_json::{Value, json};
use tonic::Code as Grpc;

use crate::support::{
    FakeNode, SOON, admin, audited, block_on, channel, hello, http, is, join_request, link_audited, nodes,
    others_go_on, parse, refused, tls_by,
};
use crate::world::{Ended, Process, World, hub, program};

/// Redeems an invite by hand.
async fn enrol(world: &World, request: cortex_wire::mesh::EnrolRequest) -> Option<(Grpc, Code)> {
    let mut client = EnrolmentServiceClient::new(channel(world, None).await);
    client.enrol(request).await.err().map(|status| refused(&status))
}

#[test]
fn a01_a_second_use_of_an_invite_is_refused() {
    let world = hub().node("a").start();
    let (created, file) = world.invite(&[]);
    world.join_only(&file, "first").expect(0);
    assert_eq!(world.join_only(&file, "second").expect(4).refusal(), "invite_used");
    let invite = parse(&created);
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = join_request(invite.id.as_bytes(), &invite.secret, "third", &key);
    let answer = block_on(enrol(&world, request)).expect("refused");
    is(answer, Grpc::PermissionDenied, Code::InviteUsed);
    assert_eq!(audited(&world, "invite_used").len(), 2);
    assert_eq!(nodes(&world), ["a", "first"], "no part of the second is there");
    assert!(!world.path("join-second").join("node.json").exists());
    others_go_on(&world);
}

#[test]
fn a03_the_hubs_clock_decides_that_an_invite_has_expired() {
    let world = hub().node("a").start();
    let (created, _) = world.invite(&["--ttl", "1ms"]);
    std::thread::sleep(Duration::from_millis(20));
    let invite = parse(&created);
    let key = rcgen::KeyPair::generate().expect("a key");
    // The request has no place for a time: what the node's clock says cannot matter.
    let request = join_request(invite.id.as_bytes(), &invite.secret, "late", &key);
    is(block_on(enrol(&world, request)).expect("refused"), Grpc::PermissionDenied, Code::InviteExpired);
    assert_eq!(audited(&world, "invite_expired").len(), 1);
    assert_eq!(nodes(&world), ["a"]);
}

#[test]
fn a04_guessing_invites_is_slowed_down_and_tells_nothing() {
    let world = hub().node("a").start();
    let good = parse(&world.invite(&[]).0);
    let expired = parse(&world.invite(&["--ttl", "1ms"]).0);
    std::thread::sleep(Duration::from_millis(20));
    let key = rcgen::KeyPair::generate().expect("a key");
    let answers = block_on(async {
        let mut client = EnrolmentServiceClient::new(channel(&world, None).await);
        let mut answers = Vec::new();
        let unknown = [9; 16];
        let ids: [&[u8]; 3] = [&unknown, good.id.as_bytes(), expired.id.as_bytes()];
        let request = join_request(&unknown, &[1; 32], "guess", &key);
        for try_ in 0..10_000_usize {
            let mut request = request.clone();
            request.invite_id = bytes::Bytes::copy_from_slice(ids[try_ % 3]);
            request.secret = bytes::Bytes::from(vec![u8::try_from(try_ % 251).expect("small"); 32]);
            let status = client.enrol(request).await.expect_err("a guess");
            answers.push((refused(&status), status.message().to_owned()));
        }
        answers
    });
    let bound = cortex_core::limits::JOIN_FAILURES_MAX;
    let unknown = &answers[0];
    is(unknown.0, Grpc::PermissionDenied, Code::InviteUnknown);
    assert!(answers[..bound].iter().all(|answer| answer == unknown), "no oracle: {:?}", &answers[..bound]);
    assert!(answers[bound..].iter().all(|(code, _)| *code == (Grpc::ResourceExhausted, Code::RateLimited)));
    assert_eq!(nodes(&world), ["a"]);
    assert_eq!(audited(&world, "invite_unknown").len(), bound);
    others_go_on(&world);
}

#[test]
fn a07_a_name_that_is_used_again_inherits_nothing() {
    let world = &mut hub().node("a").start();
    world.cortex(&["node", "label", "a", "role=ci"]).expect(0);
    world.cortex(&["policy", "allow", "a", "seq", "--yes"]).expect(0);
    world.cortex(&["exec", "a", "--", "seq", "1"]).expect(0);
    let old = world.cortex(&["node", "get", "a", "--json"]).expect(0).value();
    world.cortex(&["node", "rm", "a", "--yes"]).expect(0);
    world.kill_node("a");
    std::fs::remove_dir_all(world.path("node-a")).expect("another machine");
    world.join("a", "strict");
    let new = world.cortex(&["node", "get", "a", "--json"]).expect(0).value();
    assert_ne!(old["id"], new["id"]);
    assert_eq!(new["labels"], json!({}));
    assert_eq!(new["policy_revision"], 1);
    world.cortex(&["exec", "a", "--", "seq", "1"]).expect(5);
    let runs = world.cortex(&["run", "ls", "--json"]).expect(0).value();
    let of_new = runs.as_array().expect("a list").iter().filter(|run| run["node_id"] == new["id"]);
    assert_eq!(of_new.count(), 0, "the history stays with the old id: {runs}");
}

#[test]
fn a10_a_revoked_node_is_cut_off_and_its_runs_end() {
    let world = hub().node("a").start();
    block_on(async {
        let node = FakeNode::join(&world, "b", "permissive").await;
        let mut link = node.attach(&world).await;
        let accepted =
            world.cortex(&["exec", "b", "--detach", "--json", "--", "sleep", "9"]).expect(0).value();
        link.started().await;
        let began = Instant::now();
        world.cortex(&["node", "rm", "b", "--yes"]).expect(0);
        is(link.ended().await, Grpc::PermissionDenied, Code::NodeRevoked);
        assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
        let again = node.dial(&world).await.err().expect("refused");
        is(refused(&again), Grpc::PermissionDenied, Code::NodeRevoked);
        world.run_reaches(accepted["run_id"].as_str().expect("an id"), "lost", SOON);
        world.eventually("the audit row", SOON, |world| {
            (!audited(world, "node_revoked").is_empty()).then_some(())
        });
    });
    others_go_on(&world);
}

#[test]
fn a11_another_hub_gets_no_node_and_commands_nothing() {
    let (mut world, other) = (hub().node("a").start(), hub().start());
    world.kill_node("a");
    let data_dir = world.path("node-a").display().to_string();
    let mut command = program(&world.path(""));
    command.args(["node", "start", "--data-dir", &data_dir, "--json"]);
    command.env("CORTEX_LOG", "debug");
    // The same machine name and port, as whoever can redirect the network could arrange.
    let identity = world.path("node-a").join("node.json");
    let text = std::fs::read_to_string(&identity).expect("its identity");
    std::fs::write(&identity, text.replace(&world.hub().grpc, &other.hub().grpc)).expect("redirect it");
    let log = world.path("redirected.log");
    let process = Process::start(&mut command, &log);
    world.eventually("the refusal of the node", SOON, |_| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("wrong_authority").then_some(())
    });
    assert!(nodes(&other).is_empty(), "the other hub knows no node");
    drop(process);
}

/// What a node says first to whoever listens at its hub's address, in two dials. It is answered in
/// the clear, as by one who wants it to fall back.
fn heard_by_a_plaintext_hub(world: &World) -> [Vec<u8>; 2] {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    listener.set_nonblocking(true).expect("looked at until the deadline");
    let address = listener.local_addr().expect("an address").to_string();
    let identity = world.path("node-a").join("node.json");
    let text = std::fs::read_to_string(&identity).expect("its identity");
    std::fs::write(&identity, text.replace(&world.hub().grpc, &address)).expect("redirect it");
    let mut command = program(&world.path(""));
    let data_dir = world.path("node-a").display().to_string();
    command.args(["node", "start", "--data-dir", &data_dir, "--json"]);
    let process = Process::start(&mut command, &world.path("redirected.log"));
    let heard = [(), ()].map(|()| {
        let (mut stream, _) = world.eventually("the node's dial", SOON, |_| listener.accept().ok());
        stream.set_nonblocking(false).expect("it is waited for");
        stream.set_read_timeout(Some(SOON)).expect("a deadline");
        let mut heard = vec![0; 4_096];
        let read = stream.read(&mut heard).expect("it speaks first");
        heard.truncate(read);
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").expect("HTTP/2 settings in the clear");
        let mut rest = Vec::new();
        // It ends the connection; a reset is an end as well.
        let _reset = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest[0] == 0x15, "only a TLS alert follows: {rest:?}");
        heard
    });
    drop(process);
    std::fs::write(&identity, text).expect("direct it back");
    heard
}

/// Both directions: a client that comes to the hub with less than TLS 1.3 and protocol 1, and a
/// node whose hub answers with less. The row's code is that of the protocol; below it there is no
/// gRPC that could carry one, and the connection ends.
#[test]
fn a12_no_plaintext_no_old_tls_and_no_old_protocol() {
    let mut world = hub().node("a").start();
    let tls12 = block_on(tls_by(&world, None, &rustls::version::TLS12)).expect_err("TLS 1.2 is refused");
    assert!(tls12.to_string().contains("ProtocolVersion"), "{tls12}");
    world.kill_node("a");
    for hello in heard_by_a_plaintext_hub(&world) {
        assert_eq!(hello[0], 0x16, "a handshake of TLS: {hello:?}");
        // The extension of versions that are spoken holds 1.3 and nothing else.
        let only_13 = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04];
        assert!(hello.windows(only_13.len()).any(|window| window == only_13), "{hello:?}");
    }
    world.start_node("a");
    let mut plain = std::net::TcpStream::connect(&world.hub().grpc).expect("the port listens");
    plain.set_read_timeout(Some(SOON)).expect("a deadline");
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("send");
    let mut answer = Vec::new();
    // A reset is a refusal as well.
    let _reset = plain.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 0x15, "only a TLS alert comes: {answer:?}");

    let invite = parse(&world.invite(&[]).0);
    let key = rcgen::KeyPair::generate().expect("a key");
    block_on(async {
        for protocol in [0, 1, PROTOCOL + 1, u32::MAX] {
            let request = join_request(invite.id.as_bytes(), &invite.secret, "old", &key);
            let request = cortex_wire::mesh::EnrolRequest { protocol, ..request };
            let answer = enrol(&world, request).await.expect("refused");
            is(answer, Grpc::FailedPrecondition, Code::VersionUnsupported);
        }
        let node = FakeNode::join(&world, "b", "strict").await;
        for protocol in [0, 1, PROTOCOL + 1, u32::MAX] {
            let mut link = node.dial(&world).await.expect("dialled");
            link.say(Message::Hello(hello(protocol))).await;
            is(link.ended().await, Grpc::FailedPrecondition, Code::VersionUnsupported);
        }
    });
    link_audited(&world, "b", "version_unsupported");
    assert_eq!(audited(&world, "version_unsupported").len(), 4 + 1, "each join, and the node's links");
    others_go_on(&world);
}

#[test]
fn a13_two_copies_of_one_identity_are_both_shut_out() {
    let mut world = hub().node("a").node("b").start();
    std::fs::write(world.path("expected-warnings"), "two machines use one identity\n").expect("list it");
    world.kill_node("b");
    let (original, copy) = (world.path("node-b"), world.path("node-copy"));
    std::fs::create_dir(&copy).expect("another machine");
    for entry in std::fs::read_dir(&original).expect("its files").flatten() {
        if entry.path().is_file() && entry.file_name() != "lock" {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copy");
        }
    }
    let start = |folder: &std::path::Path| {
        let mut command = program(&world.path(""));
        command.args(["node", "start", "--data-dir", &folder.display().to_string(), "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("start a node")
    };
    let both = [start(&original), start(&copy)];
    for child in both {
        let ended = Ended::of(child).expect(4);
        assert_eq!(
            ended.lines().last().map(|line| line["error"]["code"].clone()),
            Some("cloned_identity".into())
        );
    }
    world.node_reaches("b", "quarantined", SOON);
    assert_eq!(Ended::of(start(&original)).expect(4).value()["error"]["code"], "cloned_identity");
    assert!(world.logs().contains("two machines use one identity"), "the operator is told");
    link_audited(&world, "b", "cloned_identity");
    let refused = world.cortex(&["exec", "b", "--json", "--", "true"]).expect(4);
    assert_eq!(refused.value()["error"]["code"], "cloned_identity", "and not only that it is away");
    others_go_on(&world);
}

#[test]
fn a14_credentials_of_one_door_open_no_other() {
    let world = hub().node("a").start();
    let (token, invite) = (admin(&world), world.invite(&[]).0);
    let node = block_on(async {
        let node = FakeNode::join(&world, "b", "strict").await;
        for identity in [None, Some(node.identity())] {
            let channel = channel(&world, identity).await;
            let bearer: tonic::metadata::MetadataValue<_> =
                format!("Bearer {token}").parse().expect("a value");
            let mut attach = tonic::Request::new(tokio_stream::empty());
            attach.metadata_mut().insert("authorization", bearer.clone());
            let answer = MeshServiceClient::new(channel.clone()).attach(attach).await.expect_err("a token");
            is(refused(&answer), Grpc::PermissionDenied, Code::WrongAudience);
            let mut enrol = tonic::Request::new(cortex_wire::mesh::EnrolRequest::default());
            enrol.metadata_mut().insert("authorization", bearer);
            let answer = EnrolmentServiceClient::new(channel).enrol(enrol).await.expect_err("a token");
            is(refused(&answer), Grpc::PermissionDenied, Code::WrongAudience);
        }
        node
    });
    let certificate =
        String::from_utf8_lossy(&std::fs::read(world.path("node-a").join("node.crt")).expect("it"))
            .replace('\n', "");
    let key = node.key_pem.replace('\n', "");
    let invite = invite["invite"].as_str().expect("an invite").to_owned();
    for (method, route, _) in access::routes().filter(|(.., entry)| entry.needs != Needs::Nothing) {
        let path =
            route.replace("{node}", "a").replace("{id}", "x").replace("{token}", "x").replace("{user}", "x");
        for bearer in [&certificate, &key, &invite] {
            let answer = http(&world, method, &path, &[&format!("authorization: Bearer {bearer}")], b"");
            assert_eq!((answer.status, answer.code().as_str()), (403, "wrong_audience"), "{method} {route}");
            assert!(!answer.text.contains(bearer.as_str()), "it is not repeated");
        }
    }
    link_audited(&world, "b", "wrong_audience");
    assert!(!world.cortex(&["audit", "export"]).expect(0).text().contains(&token));
    let known: Vec<Value> = world.cortex(&["node", "ls", "--json"]).expect(0).lines();
    assert_eq!(known[0].as_array().map(Vec::len), Some(2), "nobody joined by it");
}
