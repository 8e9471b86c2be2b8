//! Transfers over real links: the ask by the link of a node, the content by a stream of its own.

use std::time::Duration;

use bytes::Bytes;
use cortex_content::pack::{Added, PackWriter};
use cortex_content::packs;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::FilePath;
use cortex_core::message::ToNode;
use cortex_core::token::Role;
use cortex_core::transfer::{Carry, Filters, TransferAsk, TransferEnd};
use cortex_hub::metrics::Metrics;
use cortex_hub::service::policies::{Change, Policies, Terms};
use cortex_hub::service::transfers::{Asking, Order, PushOrder, Standing, Targets, Transfers};
use cortex_wire::convert::transfer::{Given, Sent, carry_from_bytes, carry_to_bytes, given_from, sent_into};
use cortex_wire::mesh::mesh_service_client::MeshServiceClient;
use cortex_wire::mesh::{TransferRequest, TransferResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::support::{FakeLink, FakeNode, Kept, SOON, TestHub, caller, wait_until};

/// The node's end of one stream.
struct Clerk {
    up: mpsc::Sender<TransferRequest>,
    down: Streaming<TransferResponse>,
}

impl Clerk {
    async fn open(hub: &TestHub, node: &FakeNode, link: &FakeLink, ask: &TransferAsk) -> Self {
        let channel = hub.channel(Some(node.identity.clone())).await;
        let (up, requests) = mpsc::channel(4);
        up.send(sent_into(Sent::Open { ticket: ask.ticket, epoch: link.epoch })).await.expect("room");
        let opened = MeshServiceClient::new(channel).transfer(ReceiverStream::new(requests)).await;
        Self { up, down: opened.expect("a good ticket").into_inner() }
    }

    async fn say(&self, carry: Carry) {
        self.up.send(sent_into(Sent::Frame(carry_to_bytes(carry)))).await.expect("the hub listens");
    }

    /// `None` once the stream is over.
    async fn hear(&mut self) -> Option<Carry> {
        let next = tokio::time::timeout(SOON, self.down.message()).await.expect("in time");
        match given_from(next.ok()??).expect("readable").expect("known") {
            Given::Frame(frame) => carry_from_bytes(frame).expect("readable"),
            Given::Refused(_) => None,
        }
    }
}

fn is_ask(message: &ToNode) -> Option<TransferAsk> {
    if let ToNode::TransferAsk(ask) = message { Some(TransferAsk::clone(ask)) } else { None }
}

#[tokio::test]
async fn a_push_goes_over_a_stream_of_its_own_and_goes_on_over_the_next_link() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let policies = Policies::new(hub.context.clone(), hub.mesh.clone(), hub.authority.clone());
    let (admin, terms) = (caller(Role::Admin), Terms { expected: None, kill: false });
    policies.change(&admin, "a", Change::Profile("permissive".to_owned()), terms).await.expect("changed");
    let of = (hub.context.clone(), hub.mesh.clone(), Metrics::default());
    let transfers = Transfers::open(of.0, of.1, of.2, kept.dir.path()).expect("opened");
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let order = Order::Push(Box::new(PushOrder {
        only: None,
        targets: Targets::Named(vec!["a".to_owned()]),
        dest: FilePath::parse("/srv/مشروع").expect("a path"),
        root: TreeId::of(b"tree"),
        entries: 2,
        bytes: 2 * 1024 * 1024,
        dry_run: false,
        delete: false,
        force: false,
        checksum: false,
        filters: Filters::default(),
        accept: None,
        rate_max: None,
    }));
    let by = caller(Role::Operator);
    let shown = transfers.begin(&by, order, Asking::default()).await.expect("begun");
    let ask = link.expect(is_ask).await;
    let mut clerk = Clerk::open(&hub, &node, &link, &ask).await;
    let chunks: Vec<Bytes> = (0..2_u8)
        .map(|number| {
            let mut bytes = vec![0; 1024 * 1024];
            blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
            bytes.into()
        })
        .collect();
    let ids: Vec<ContentId> = chunks.iter().map(|chunk| ContentId::of(chunk)).collect();
    let send = async |ids: &[ContentId]| {
        let wanted = transfers.wants(&by, shown.id, false, SOON).await.expect("its own");
        assert_eq!(wanted.ids, ids);
        let mut writer = PackWriter::new(1);
        for id in ids {
            let at = chunks.iter().find(|chunk| ContentId::of(chunk) == *id).expect("a chunk");
            assert_eq!(writer.add(*id, at), Added::Yes);
        }
        let pack = writer.finish().expect("it has chunks");
        let bytes = [&pack.head.to_bytes()[..], &pack.tail[..]].concat();
        transfers.upload(&by, shown.id).await.expect("leave").take(bytes.into()).await.expect("taken");
    };
    clerk.say(Carry::Wants(ids.clone())).await;
    send(&ids[..]).await;
    // Its link breaks in the middle of a pack.
    assert!(matches!(clerk.hear().await, Some(Carry::Pack(_))));
    drop(link);
    while clerk.hear().await.is_some() {}
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let again = link.expect(is_ask).await;
    assert_eq!((again.id, again.work == ask.work), (shown.id, true));
    let mut clerk = Clerk::open(&hub, &node, &link, &again).await;
    clerk.say(Carry::Wants(ids[1..].to_vec())).await;
    send(&ids[1..]).await;
    let mut packs = packs::Stream::new();
    let got = loop {
        if let Some((id, bytes)) = packs.next_chunk().expect("it is right") {
            break (id, bytes.len());
        }
        let heard = clerk.hear().await;
        let Some(Carry::Pack(piece)) = heard else { panic!("{heard:?}") };
        packs.push(piece).expect("a piece");
    };
    assert_eq!(got, (ids[1], 1024 * 1024));
    let end = TransferEnd { root: Some(TreeId::of(b"tree")), files: 1, ..TransferEnd::default() };
    clerk.say(Carry::End(Box::new(end))).await;
    let wait = Duration::from_secs(5);
    let shown = loop {
        let shown = transfers.get(&by, shown.id, Some(0), wait).await.expect("its own");
        if shown.standing != Standing::Open {
            break shown;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(shown.standing, Standing::Done, "{shown:?}");
    let mesh = &hub.mesh;
    wait_until("nothing is left", || {
        (mesh.tickets(), mesh.streams(), mesh.transfers_moving(), transfers.open_count()) == (0, 0, 0, 0)
    })
    .await;
    drop(link);
    hub.stop().await;
}
