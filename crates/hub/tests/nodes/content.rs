//! Streams for content, over real TLS: whose ticket is whose, and what ends a stream.

use bytes::Bytes;
use cortex_core::Code;
use cortex_core::files::ask::Ticket;
use cortex_core::files::content::ContentId;
use cortex_core::id::Epoch;
use cortex_core::limits::{CARRIES_WAITING_MAX, CARRY_BYTES_MAX, WANTS_OPEN_MAX};
use cortex_core::transfer::{Carry, DataEnd};
use cortex_wire::convert::transfer::{Given, Sent, carry_from_bytes, carry_to_bytes, given_from, sent_into};
use cortex_wire::error::refusal_from_status;
use cortex_wire::mesh::mesh_service_client::MeshServiceClient;
use cortex_wire::mesh::{TransferRequest, TransferResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::support::{FakeNode, Kept, SOON, TestHub, wait_until};

/// A node's end of a stream.
struct Opened {
    up: mpsc::Sender<TransferRequest>,
    down: Streaming<TransferResponse>,
}

/// Opens a stream whose first message is this.
async fn open(hub: &TestHub, node: &FakeNode, first: Sent) -> Result<Opened, Code> {
    let channel = hub.channel(Some(node.identity.clone())).await;
    let (up, requests) = mpsc::channel(CARRIES_WAITING_MAX);
    up.send(sent_into(first)).await.expect("room");
    let answer = MeshServiceClient::new(channel).transfer(ReceiverStream::new(requests)).await;
    let down = answer.map_err(|status| refusal_from_status(&status).code)?.into_inner();
    Ok(Opened { up, down })
}

fn shown(ticket: Ticket, epoch: Epoch) -> Sent {
    Sent::Open { ticket, epoch }
}

impl Opened {
    async fn say(&self, carry: Carry) {
        self.up.send(sent_into(Sent::Frame(carry_to_bytes(carry)))).await.expect("it listens");
    }

    /// The next frame; `None` when the stream is over, however that came.
    async fn hear(&mut self) -> Option<Carry> {
        let next = tokio::time::timeout(2 * SOON, self.down.message()).await.expect("in time");
        match given_from(next.ok()??).expect("readable").expect("known") {
            Given::Frame(frame) => carry_from_bytes(frame).expect("readable"),
            Given::Refused(_) => None,
        }
    }
}

#[tokio::test]
async fn a_ticket_opens_one_stream_for_its_node_and_both_ways_carry_what_is_said() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (node, other) = (hub.node("a").await, hub.node("b").await);
    let offline = hub.mesh.ticket(node.id).expect_err("it is away");
    assert_eq!(offline.code, Code::NodeOffline);
    let link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let other_link = other.attach(&hub, Vec::new()).await.expect("welcome");
    let opening = hub.mesh.ticket(node.id).expect("a ticket");
    let ticket = opening.ticket();
    for (who, first, code) in [
        (&other, shown(ticket, other_link.epoch), Code::Forbidden),
        (&node, shown(Ticket::new([7; 16]), link.epoch), Code::Forbidden),
        (&node, Sent::Frame(Bytes::from_static(b"x")), Code::InvalidArgument),
    ] {
        assert_eq!(open(&hub, who, first.clone()).await.err(), Some(code), "{first:?}");
    }
    let mut stream = open(&hub, &node, shown(ticket, link.epoch)).await.expect("its own");
    assert_eq!(open(&hub, &node, shown(ticket, link.epoch)).await.err(), Some(Code::Forbidden), "twice");
    let mut held = opening.stream().await.expect("it is there");
    assert_eq!((hub.mesh.tickets(), hub.mesh.streams()), (0, 1));
    let end = Carry::DataEnd(DataEnd { len: 3, id: Some(ContentId::of(b"abc")) });
    for carry in [Carry::Data(Bytes::from_static(b"abc")), end] {
        held.sending.send(carry.clone()).await.expect("taken");
        assert_eq!(stream.hear().await, Some(carry.clone()));
        stream.say(carry.clone()).await;
        assert_eq!(held.receiving.recv().await, Ok(Some(carry)));
    }
    drop(held);
    assert_eq!(stream.hear().await, None, "let go");
    wait_until("no stream", || hub.mesh.streams() == 0).await;
    hub.stop().await;
}

#[tokio::test]
async fn with_its_link_go_the_tickets_and_streams_that_came_by_it() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let epoch = link.epoch;
    let (used, unused) = (hub.mesh.ticket(node.id).expect("one"), hub.mesh.ticket(node.id).expect("one"));
    let mut stream = open(&hub, &node, shown(used.ticket(), epoch)).await.expect("opened");
    let mut held = used.stream().await.expect("it is there");
    let ticket = unused.ticket();
    drop(link);
    assert_eq!(held.receiving.recv().await.expect_err("it ended").code, Code::NodeOffline);
    assert_eq!(unused.stream().await.expect_err("it is gone").code, Code::NodeOffline);
    drop(held);
    assert_eq!(stream.hear().await, None);
    let link = node.attach(&hub, Vec::new()).await.expect("it is back");
    for epoch in [epoch, link.epoch] {
        assert_eq!(open(&hub, &node, shown(ticket, epoch)).await.err(), Some(Code::Forbidden), "{epoch}");
    }
    let fresh = hub.mesh.ticket(node.id).expect("one");
    assert_eq!(open(&hub, &node, shown(fresh.ticket(), epoch)).await.err(), Some(Code::StaleEpoch));
    drop(fresh);
    wait_until("nothing left", || hub.mesh.tickets() + hub.mesh.streams() == 0).await;
    hub.stop().await;
}

#[tokio::test]
async fn what_a_clerk_says_is_foreign_and_neither_direction_waits_for_the_other() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let link = node.attach(&hub, Vec::new()).await.expect("welcome");
    for frame in [Bytes::from_static(b"\xff\xff"), Bytes::from(vec![0; CARRY_BYTES_MAX + 1])] {
        let opening = hub.mesh.ticket(node.id).expect("one");
        let stream = open(&hub, &node, shown(opening.ticket(), link.epoch)).await.expect("opened");
        let mut held = opening.stream().await.expect("it is there");
        stream.up.send(sent_into(Sent::Frame(frame))).await.expect("sent");
        assert_eq!(held.receiving.recv().await.expect_err("no frame").code, Code::InvalidArgument);
    }
    // A node that takes nothing still can say all that it may want.
    let opening = hub.mesh.ticket(node.id).expect("one");
    let stream = open(&hub, &node, shown(opening.ticket(), link.epoch)).await.expect("opened");
    let mut held = opening.stream().await.expect("it is there");
    let sending = held.sending;
    let full = tokio::spawn(async move {
        let piece = Bytes::from(vec![0; 256 * 1024]);
        while sending.send(Carry::Pack(piece.clone())).await.is_ok() {}
    });
    let wants = Carry::Wants(vec![ContentId::of(b"a"); 4_096]);
    for _ in 0..WANTS_OPEN_MAX / 4_096 {
        stream.say(wants.clone()).await;
        assert_eq!(held.receiving.recv().await.as_ref(), Ok(&Some(wants.clone())));
    }
    assert!(!full.is_finished(), "it waits for the node, without end of what it holds");
    drop(stream);
    tokio::time::timeout(2 * SOON, full).await.expect("it ends with the stream").expect("no panic");
    drop(held.receiving);
    wait_until("nothing left", || hub.mesh.tickets() + hub.mesh.streams() == 0).await;
    hub.stop().await;
}
