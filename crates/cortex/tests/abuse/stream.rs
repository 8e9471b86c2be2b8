//! Rows 15 to 26: what may come on the nodes' port, and what becomes of those who behave.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_core::Code;
use cortex_core::limits::PROTOCOL;
use cortex_wire::mesh::attach_request::Message;
use cortex_wire::mesh::{self, attach_response};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code as Grpc;
use tonic::client::GrpcService as _;

use crate::proxy::Proxy;
use crate::support::{
    FakeNode, SOON, block_on, channel, descriptors, hello, is, link_audited, many_descriptors, memory_kib,
    others_are_not_slowed, others_go_on, processor_ms, slowest, tls,
};
use crate::world::{World, hub};

#[test]
fn a15_another_first_message_and_a_second_hello_close_the_link() {
    let world = hub().node("a").start();
    block_on(async {
        let node = FakeNode::join(&world, "b", "strict").await;
        let firsts = [
            Message::Heartbeat(mesh::Heartbeat { seq: 1 }),
            Message::RunEnded(mesh::RunEnded::default()),
            Message::Renew(mesh::Renew::default()),
        ];
        for first in firsts {
            let mut link = node.dial(&world).await.expect("dialled");
            link.say(first).await;
            is(link.ended().await, Grpc::InvalidArgument, Code::InvalidArgument);
        }
        let mut link = node.attach(&world).await;
        link.say(Message::Hello(hello(PROTOCOL))).await;
        is(link.ended().await, Grpc::InvalidArgument, Code::InvalidArgument);
    });
    world.node_reaches("b", "offline", SOON);
    link_audited(&world, "b", "invalid_argument");
    others_go_on(&world);
}

/// 5,000 of them: most say nothing at all, a hundred make the handshake and then fall silent (each
/// costs this test two signatures), one gives a byte a second. Fewer where the system lets a
/// process have fewer descriptors.
#[test]
fn a16_connections_that_say_nothing_are_closed_and_cost_little() {
    let bare = usize::try_from(many_descriptors() / 2).expect("a number").clamp(1_000, 5_000) - 100;
    let world = hub().node("a").start();
    block_on(async {
        let node = FakeNode::join(&world, "b", "strict").await;
        let before = slowest(&world);
        let (files, memory) = (descriptors(&world), memory_kib(&world));
        let began = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..bare {
            silent.push(tokio::net::TcpStream::connect(&world.hub().grpc).await.expect("connected"));
        }
        let mut shaken = Vec::new();
        for _ in 0..100 {
            shaken.push(tls(&world, Some(&node)).await);
        }
        let mut unsaid = node.dial(&world).await.expect("dialled");
        let slow = tokio::spawn(drip(tokio::net::TcpStream::connect(world.hub().grpc.clone())));
        let grown = memory_kib(&world).saturating_sub(memory);
        assert!(grown <= (bare as u64 + 100) * 64, "{bare} + 100 connections cost {grown} KiB");
        others_are_not_slowed(&world, before);
        is(unsaid.ended().await, Grpc::DeadlineExceeded, Code::Timeout);
        assert!(began.elapsed() < Duration::from_secs(15), "no Hello: {:?}", began.elapsed());
        for mut stream in silent {
            let mut byte = [0; 1];
            let read = tokio::time::timeout(Duration::from_secs(15), stream.read(&mut byte)).await;
            assert!(matches!(read.expect("closed by the deadline"), Ok(0) | Err(_)));
        }
        assert!(began.elapsed() < Duration::from_secs(16), "silent ones: {:?}", began.elapsed());
        slow.await.expect("one byte a second is cut off as well");
        for mut stream in shaken {
            let mut rest = Vec::new();
            // The hub's settings and pings come before the end.
            let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "a connection without a stream stays");
        }
        drop(unsaid);
        world.eventually("the descriptors", SOON, |world| (descriptors(world) <= files + 4).then_some(()));
    });
    others_go_on(&world);
}

/// A handshake of one byte a second, until the hub has had enough.
async fn drip(connecting: impl Future<Output = std::io::Result<tokio::net::TcpStream>>) {
    let mut stream = connecting.await.expect("connected");
    let record = [0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
    for byte in record.iter().cycle().take(30) {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        let mut answer = [0; 16];
        let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
        if matches!(read, Ok(Ok(0) | Err(_))) {
            return;
        }
    }
    panic!("it was never cut off");
}

/// Sends bytes as the body of Attach, and gives the gRPC and our code of its end.
async fn raw(world: &World, node: &FakeNode, body: Vec<u8>, encoding: Option<&str>) -> (i32, String) {
    let mut channel = channel(world, Some(node.identity())).await;
    let mut request =
        http::Request::post(format!("https://{}/cortex.mesh.v1.MeshService/Attach", world.hub().grpc))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let body = tonic::body::Body::new(Full::new(Bytes::from(body)));
    std::future::poll_fn(|context| {
        tonic::client::GrpcService::<tonic::body::Body>::poll_ready(&mut channel, context)
    })
    .await
    .expect("ready");
    let response = channel.call(request.body(body).expect("a request")).await.expect("an answer");
    let (head, body) = response.into_parts();
    let rest = tokio::time::timeout(SOON, body.collect()).await.expect("an end in time");
    let trailers = rest.ok().and_then(|collected| collected.trailers().cloned()).unwrap_or_default();
    let word = |name: &str| {
        let found = trailers.get(name).or_else(|| head.headers.get(name));
        found.and_then(|value| value.to_str().ok()).unwrap_or("").to_owned()
    };
    (word("grpc-status").parse().unwrap_or(-1), word("cortex-code"))
}

fn framed(compressed: u8, length: u32, data: &[u8]) -> Vec<u8> {
    [&[compressed][..], &length.to_be_bytes(), data].concat()
}

#[test]
fn a17_a_length_beyond_the_bound_is_refused_before_memory_is_taken() {
    let world = hub().node("a").start();
    block_on(async {
        let node = FakeNode::join(&world, "b", "strict").await;
        let memory = memory_kib(&world);
        let bound = u32::try_from(cortex_core::limits::MESSAGE_BYTES_MAX).expect("small");
        for length in [u32::MAX, 64 << 20, bound + 1] {
            let answer = raw(&world, &node, framed(0, length, b"x"), None).await;
            assert_eq!(answer, (Grpc::ResourceExhausted as i32, "too_large".to_owned()), "{length}");
        }
        let grown = memory_kib(&world).saturating_sub(memory);
        assert!(grown < 16 * 1024, "the hub grew by {grown} KiB");
    });
    link_audited(&world, "b", "too_large");
    others_go_on(&world);
}

/// Zstandard of 1 MiB that unpacks to 32 GiB: blocks of one byte that is repeated 128 Ki times.
fn zstd_bomb() -> Vec<u8> {
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    let block = |last: u32| (((1 << 17) << 3) | (1 << 1) | last).to_le_bytes();
    let blocks = (1 << 20) / 4;
    for n in 0..blocks {
        bomb.extend_from_slice(&block(u32::from(n + 1 == blocks))[..3]);
        bomb.push(0);
    }
    bomb
}

/// Deflate of 1 MiB that unpacks to 166 MB, the most that its fixed codes give: a zero, and then
/// copies of 258 bytes from the byte before.
fn deflate_bomb() -> Vec<u8> {
    let (mut bomb, mut bit) = (vec![0], 0);
    let mut put = |code: u32, count: u32| {
        for n in (0..count).rev() {
            if bit == 8 {
                bomb.push(0);
                bit = 0;
            }
            *bomb.last_mut().expect("never empty") |= u8::try_from((code >> n) & 1).expect("a bit") << bit;
            bit += 1;
        }
        bomb.len()
    };
    put(0b110, 3);
    put(0b0011_0000, 8);
    while put(0b1_1000_1010_0000, 13) < 1 << 20 {}
    put(0, 7);
    bomb
}

/// A gzip file of that. Its sum is wrong, which is known only after all of it was unpacked.
fn gzip_bomb() -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff][..], &deflate_bomb(), &[0; 8]].concat()
}

/// The hub speaks no compression: a bomb is refused by its first byte, and the decode limit has
/// nothing to cut.
#[test]
fn a18_a_compressed_message_is_never_unpacked() {
    let world = hub().node("a").start();
    block_on(async {
        let node = FakeNode::join(&world, "b", "strict").await;
        let memory = memory_kib(&world);
        let bombs = [
            ("zstd", zstd_bomb()),
            ("gzip", gzip_bomb()),
            ("deflate", deflate_bomb()),
            ("br", vec![0; 1 << 20]),
        ];
        for (encoding, bomb) in &bombs {
            let length = u32::try_from(bomb.len()).expect("small");
            let (status, _) = raw(&world, &node, framed(1, length, bomb), Some(encoding)).await;
            assert_eq!(status, Grpc::Unimplemented as i32, "{encoding}");
            let answer = raw(&world, &node, framed(1, length, bomb), None).await;
            assert_eq!(answer, (Grpc::InvalidArgument as i32, "invalid_argument".to_owned()), "{encoding}");
        }
        let grown = memory_kib(&world).saturating_sub(memory);
        assert!(grown < 32 * 1024, "the hub grew by {grown} KiB");
    });
    others_go_on(&world);
}

#[test]
fn a19_unknown_and_broken_messages_are_ignored_or_refused() {
    let world = hub().node("a").start();
    block_on(async {
        let node = FakeNode::join(&world, "b", "strict").await;
        let mut link = node.attach(&world).await;
        // A message of a later version is nothing at all to this one.
        link.up.send(mesh::AttachRequest { epoch: link.epoch, message: None }).await.expect("sent");
        link.say(Message::Heartbeat(mesh::Heartbeat { seq: 7 })).await;
        let seq = link.until(|m| {
            if let attach_response::Message::HeartbeatAck(ack) = m { Some(ack.seq) } else { None }
        });
        assert_eq!(seq.await, 7);
        drop(link);
        let mut state = 0x9e37_79b9_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        for round in 0..150 {
            let length = next() % 200;
            let mut data: Vec<u8> = (0..length).map(|_| (next() >> 24) as u8).collect();
            if round % 2 == 0 {
                // Begins as a message of ours would: a field of the oneof with its length.
                let field = u8::try_from(2 + next() % 15).expect("small");
                data.splice(0..0, [field << 3 | 2, u8::try_from(length % 128).expect("small")]);
            }
            let body = framed(0, u32::try_from(data.len()).expect("small"), &data);
            let (status, code) = raw(&world, &node, body, None).await;
            let allowed = [Grpc::Ok as i32, Grpc::InvalidArgument as i32, Grpc::FailedPrecondition as i32];
            assert!(allowed.contains(&status), "round {round}: {status} {code} for {data:?}");
        }
    });
    // A panic would be in the log, which is judged at the end.
    others_go_on(&world);
}

#[test]
fn a21_what_comes_after_the_end_changes_nothing() {
    let world = hub().node("a").start();
    block_on(async {
        let node = FakeNode::join(&world, "b", "permissive").await;
        let mut link = node.attach(&world).await;
        let accepted = world.cortex(&["exec", "b", "--detach", "--json", "--", "true"]).expect(0).value();
        let id = accepted["run_id"].as_str().expect("an id");
        let run_id = link.started().await;
        let output = |at: u64, data: &'static [u8]| {
            let data = Bytes::from_static(data);
            Message::RunOutput(mesh::RunOutput {
                run_id: run_id.clone(),
                stream: 1,
                position: at,
                offset: at,
                data,
            })
        };
        let end = |code: i32, stdout: u64| {
            let output = Some(mesh::Positions { stdout, stderr: 0 });
            let ended =
                mesh::Ended { cause: 1, code: Some(code), duration_ms: 5, output, ..mesh::Ended::default() };
            Message::RunEnded(mesh::RunEnded { run_id: run_id.clone(), ended: Some(ended) })
        };
        link.say(Message::RunStarted(mesh::RunStarted {
            run_id: run_id.clone(),
            sandbox: "none".to_owned(),
        }))
        .await;
        link.say(output(0, b"first\n")).await;
        link.say(end(0, 6)).await;
        link.say(output(6, b"late\n")).await;
        link.say(end(9, 11)).await;
        world.run_reaches(id, "exited", SOON);
        link.say(output(6, b"later\n")).await;
        link.say(end(9, 12)).await;
        link.say(Message::Heartbeat(mesh::Heartbeat { seq: 9 })).await;
        link.until(|m| {
            matches!(m, attach_response::Message::HeartbeatAck(ack) if ack.seq == 9).then_some(())
        })
        .await;
        let run = world.run_view(id);
        assert_eq!((run["state"].as_str(), run["code"].as_i64()), (Some("exited"), Some(0)), "{run}");
        assert_eq!(world.cortex(&["run", "logs", id]).expect(0).text(), "first\n");
    });
    others_go_on(&world);
}

#[test]
fn a23_a_node_that_takes_nothing_stalls_only_its_own_stream() {
    let world = hub().node("a").start();
    block_on(async {
        let node = FakeNode::join(&world, "b", "permissive").await;
        let mut link = node.attach(&world).await;
        let memory = memory_kib(&world);
        let mut command = world.command(&["exec", "b", "-i", "--", "cat"]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("start");
        let mut stdin = child.stdin.take().expect("its standard input");
        // More than every window on the way; it ends by an error when the client is ended below.
        let writer = std::thread::spawn(move || {
            let block = vec![b'x'; 1 << 20];
            (0..64).take_while(|_| stdin.write_all(&block).is_ok()).count()
        });
        link.started().await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            others_go_on(&world);
        }
        let grown = memory_kib(&world).saturating_sub(memory);
        assert!(grown < 16 * 1024, "the hub grew by {grown} KiB");
        child.kill().expect("end our own client");
        child.wait().expect("it ends");
        let taken = writer.join().expect("the writer ends");
        assert!(taken < 8, "{taken} MiB were taken from the client");
    });
    others_go_on(&world);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn h2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Method POST, scheme https, path and authority, in HPACK without its table.
const HEADERS: &[u8] = &[0x83, 0x87, 0x84, 0x01, 0x01, b'h'];

/// Sends frames until the hub closes; gives the code of its GOAWAY, when there was one.
async fn flood(world: &World, frames: impl Fn(u32) -> Vec<u8>, count: u32, reads: bool) -> Option<u32> {
    let (mut from, mut to) = tokio::io::split(tls(world, None).await);
    let reader = tokio::spawn(async move {
        let mut heard = Vec::new();
        if reads {
            let _cut = tokio::time::timeout(Duration::from_secs(20), from.read_to_end(&mut heard)).await;
        } else {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        heard
    });
    let sending = async {
        to.write_all(PREFACE).await?;
        for n in 0..count {
            to.write_all(&frames(n)).await?;
        }
        to.flush().await
    };
    let _closed = tokio::time::timeout(Duration::from_secs(5), sending).await;
    drop(to);
    goaway(&reader.await.expect("the reader ends"))
}

fn goaway(mut bytes: &[u8]) -> Option<u32> {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let payload = rest.get(..length)?;
        if *kind == 7 {
            return Some(u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?));
        }
        bytes = &rest[length..];
    }
    None
}

/// 100,000 resets, a head that never ends, and a million of each of the two tiny frames. Those two
/// are answered one by one, and the HTTP/2 library has no GOAWAY for them: one who reads the
/// answers pays as much as the hub, and one who does not is not read from any more. So what is
/// held here of them is the memory and the others' time.
#[test]
fn a25_floods_of_frames_end_their_connection_and_nothing_else() {
    const CALM: Option<u32> = Some(0xb);
    let world = hub().node("a").start();
    let before = slowest(&world);
    let memory = memory_kib(&world);
    let reset = |n: u32| [h2(1, 4, 2 * n + 1, HEADERS), h2(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat();
    let never_ending =
        |n: u32| if n == 0 { h2(1, 0, 1, HEADERS) } else { h2(9, 0, 1, &[0, 1, b'a', 1, b'b'].repeat(200)) };
    let empty = |n: u32| if n == 0 { h2(1, 0, 1, HEADERS) } else { h2(9, 0, 1, b"") };
    let ping = |n: u32| h2(6, 0, 0, &u64::from(n).to_be_bytes()).repeat(100);
    let settings = |_: u32| h2(4, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100);
    let ended = block_on(async {
        tokio::join!(
            flood(&world, reset, 100_000, true),
            flood(&world, never_ending, 2_000, true),
            flood(&world, empty, 50_000, true),
        )
    });
    assert_eq!(ended, (CALM, CALM, CALM), "rapid reset, CONTINUATION, empty ones");
    std::thread::scope(|scope| {
        let others = scope.spawn(|| others_are_not_slowed(&world, before));
        block_on(async {
            tokio::join!(
                flood(&world, ping, 10_000, false),
                flood(&world, settings, 10_000, false),
                flood(&world, ping, 10_000, true),
                flood(&world, settings, 10_000, true),
            )
        });
        others.join().expect("the others go on");
    });
    let grown = memory_kib(&world).saturating_sub(memory);
    assert!(grown < 32 * 1024, "the hub grew by {grown} KiB");
    others_go_on(&world);
}

#[test]
fn a26_an_unplugged_node_is_offline_within_10_seconds_and_its_run_goes_on() {
    let mut world = hub().node("a").start();
    let proxy = Proxy::to(&world.hub().grpc);
    world.join_at(&proxy.address(), "b", "permissive");
    let count = "i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo $i; sleep 0.1; done";
    let accepted =
        world.cortex(&["exec", "b", "--detach", "--json", "--", "sh", "-c", count]).expect(0).value();
    let id = accepted["run_id"].as_str().expect("an id").to_owned();
    world.run_reaches(&id, "running", SOON);
    let began = Instant::now();
    proxy.freeze();
    world.node_reaches("b", "offline", Duration::from_secs(11));
    assert!(began.elapsed() >= Duration::from_secs(5), "not before it is silent: {:?}", began.elapsed());
    world.run_reaches(&id, "disconnected", SOON);
    others_go_on(&world);
    proxy.thaw();
    let run = world.run_reaches(&id, "exited", Duration::from_secs(40));
    assert_eq!(run["code"], 0);
    let expected: String = (1..=150).map(|n| format!("{n}\n")).collect();
    assert_eq!(world.cortex(&["run", "logs", &id]).expect(0).text(), expected);
}

/// Nodes of ours with their jitter, and many made by hand that have none and dial in one moment.
/// A thousand are for the benchmark `reconnect`; that waits are jittered is shown in
/// `crates/core/src/link.rs`, and the bound of attaches at once is `ATTACHES_AT_ONCE_MAX`.
#[test]
fn a81_all_nodes_are_back_after_the_hub_was_killed() {
    const BY_HAND: usize = 60;
    let mut world = hub().node("a").node("b").node("c").node("d").node("e").start();
    block_on(async {
        let mut by_hand = Vec::new();
        for n in 0..BY_HAND {
            by_hand.push(FakeNode::join(&world, &format!("hand-{n}"), "strict").await);
        }
        let mut links = Vec::new();
        for node in &by_hand {
            links.push(node.attach(&world).await);
        }
        let ports = world.kill_hub();
        drop(links);
        let began = Instant::now();
        world.start_hub(&ports);
        let back = by_hand.iter().map(|node| async { (node.attach(&world).await, began.elapsed()) });
        let mut back: Vec<_> = futures_of(back).await;
        back.sort_by_key(|(_, after)| *after);
        let last = back.last().expect("many").1;
        assert!(last < Duration::from_secs(15), "the last of {BY_HAND} was back after {last:?}");
        let processor = processor_ms(&world);
        assert!(processor < 15_000, "the hub took {processor} ms of processor time");
        for name in ["a", "b", "c", "d", "e"] {
            world.node_reaches(name, "online", SOON);
            world.cortex(&["exec", name, "--", "true"]).expect(0);
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    });
}

/// All of them at once.
async fn futures_of<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, done) in all.iter_mut().filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = one.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        if all.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}
