//! Transfers over HTTP, with nodes that the test plays: what a node says and hears goes through the very
//! frames of the wire.

use bytes::Bytes;
use cortex_content::pack::{Added, PackWriter};
use cortex_content::packs;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::message::ToNode;
use cortex_core::sync::{Mode, Push as PushMode, RootState, SideCounts, Why};
use cortex_core::transfer::{
    ApplyAsk, Carry, Noted, PathNote, Progress, SendAsk, TransferAsk, TransferEnd, TransferNews,
    TransferWork, TreeTold,
};
use cortex_wire::convert::transfer::{Given, Sent, carry_from_bytes, carry_to_bytes, given_from, sent_into};
use cortex_wire::mesh::{TransferRequest, TransferResponse};
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::service::transfers::Patience;
use crate::transfer::TransferStream;

mod ended;
mod held;
mod imported;
mod pulled;
mod pushed;
mod refused;

const API: &str = "/api/v1/transfers";
const NOT_LONG: Duration = Duration::from_millis(300);

/// A node that the test plays.
struct Played {
    id: NodeId,
    link: Arc<Link>,
}

/// Its end of one stream.
struct Clerk {
    up: mpsc::Sender<Result<TransferRequest, Refusal>>,
    down: mpsc::Receiver<TransferResponse>,
    packs: packs::Stream,
}

impl World {
    /// A node that allows everything.
    async fn mover(&self, name: &str) -> Played {
        let id = self.node(name).await;
        let path = format!("/api/v1/policies/{name}");
        self.admin(Method::PUT, &path, json!({"profile": "permissive"})).await.ok(200);
        Played { id, link: self.attach(id).await }
    }

    async fn begin(&self, order: Value) -> Value {
        self.admin(Method::POST, API, order).await.ok(202)
    }

    async fn view(&self, id: &str) -> Value {
        self.get(&format!("{API}/{id}")).await.ok(200)
    }

    /// The view once the transfer is over.
    async fn over(&self, id: &str) -> Value {
        let mut seq = 0;
        let wait = async {
            loop {
                let view = self.get(&format!("{API}/{id}?after={seq}&wait_ms=5000")).await.ok(200);
                if view["state"] != "open" {
                    return view;
                }
                seq = view["seq"].as_u64().expect("a number");
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("it ends")
    }

    async fn octets(&self, token: &str, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("content-type", "application/octet-stream")];
        self.raw(method, path, &headers, body.into()).await
    }

    /// What the push asks of its caller within this time, and how it stands.
    async fn wants(&self, id: &str, query: &str) -> (Vec<ContentId>, String) {
        let reply = self.get(&format!("{API}/{id}/wants{query}")).await;
        let state = reply.headers["cortex-transfer"].to_str().expect("text").to_owned();
        assert_eq!(reply.status.as_u16(), if reply.body.is_empty() { 204 } else { 200 }, "{reply:?}");
        let ids = reply.body.chunks(32).map(|id| ContentId::from_slice(id).expect("32 bytes"));
        (ids.collect(), state)
    }

    async fn send(&self, id: &str, pack: Bytes) -> Reply {
        let token = self.admin.clone();
        self.octets(&token, Method::PUT, &format!("{API}/{id}/packs"), pack).await
    }

    /// Nothing is left of any transfer but its view.
    /// Events about a transfer, when the end at each node that began has been told. That is written behind the
    /// end itself.
    async fn told_to_its_end(&self, transfer: &str) -> Vec<(String, String)> {
        let told = async {
            loop {
                let told = self.told_of(transfer).await;
                let count = |kind: &str| told.iter().filter(|(of, _)| of == kind).count();
                if count("transfer.started") == count("transfer.ended") {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, told).await.expect("the end is told")
    }

    async fn is_idle(&self) {
        let (mesh, transfers) = (&self.hub.mesh, &self.hub.transfers);
        let left = || {
            let of_mesh = mesh.tickets() + mesh.streams() + mesh.transfers_moving();
            let folders = std::fs::read_dir(self.dir.path().join("transfers")).map_or(0, Iterator::count);
            let of_service = transfers.open_count() + transfers.memory_bytes() + transfers.busy();
            (of_mesh, of_service, folders)
        };
        let idle = async {
            while left() != (0, 0, 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let idle = tokio::time::timeout(SOON, idle).await;
        assert!(idle.is_ok(), "{:?} is left", left());
        let figures = self.get("/metrics").await;
        let text = String::from_utf8(figures.body.to_vec()).expect("text");
        for line in text.lines().filter(|line| line.starts_with("cortex_transfers{")) {
            assert!(line.ends_with(" 0"), "{line}");
        }
    }

    fn set_patience(&self, change: impl FnOnce(&mut Patience)) {
        let mut patience = Patience::default();
        change(&mut patience);
        self.hub.transfers.set_patience(patience);
    }
}

impl Played {
    async fn ask(&self) -> TransferAsk {
        let ask = |message| if let ToNode::TransferAsk(ask) = message { Some(*ask) } else { None };
        told(&self.link, ask).await
    }

    async fn cancelled(&self) -> cortex_core::id::TransferId {
        let cancel = |message| if let ToNode::TransferCancel { id } = message { Some(id) } else { None };
        told(&self.link, cancel).await
    }

    async fn is_left_alone(&self) {
        let ask = tokio::time::timeout(NOT_LONG, self.ask()).await;
        assert!(ask.is_err(), "it was asked {ask:?}");
    }

    /// Opens its stream with the ticket of the ask.
    fn open(&self, world: &World, ask: &TransferAsk) -> Clerk {
        let redeemed = world.hub.mesh.redeem(ask.ticket, self.id, self.link.epoch()).expect("a good ticket");
        let (up, from_node) = mpsc::channel(4);
        let (out, down) = mpsc::channel(4);
        let inbound = ReceiverStream::new(from_node).boxed();
        let stream = TransferStream::new(inbound, out, redeemed.running, Box::new(()));
        redeemed.give.send(stream).expect("somebody waits");
        Clerk { up, down, packs: packs::Stream::new() }
    }

    async fn opened(&self, world: &World) -> Clerk {
        let ask = self.ask().await;
        self.open(world, &ask)
    }

    fn tells(&self, world: &World, ask: &TransferAsk, end: Result<Box<TransferEnd>, Refusal>) {
        world.hub.mesh.transfer_news(&self.link, TransferNews { id: ask.id, end });
    }
}

impl Clerk {
    async fn say(&self, carry: Carry) {
        let said = self.up.send(Ok(sent_into(Sent::Frame(carry_to_bytes(carry))))).await;
        said.expect("the hub listens");
    }

    /// The next frame, or why there is none.
    async fn hear(&mut self) -> Result<Carry, Option<Refusal>> {
        let next = tokio::time::timeout(SOON, self.down.recv()).await.expect("in time");
        let response = next.ok_or(None)?;
        match given_from(response).expect("readable").expect("known") {
            Given::Frame(frame) => Ok(carry_from_bytes(frame).expect("readable").expect("known")),
            Given::Refused(refusal) => Err(Some(refusal)),
        }
    }

    /// The ids that come next, verified.
    async fn given(&mut self, count: usize) -> Vec<ContentId> {
        let mut ids = Vec::new();
        loop {
            while let Some((id, _)) = self.packs.next_chunk().expect("it is right") {
                ids.push(id);
            }
            if ids.len() >= count {
                return ids;
            }
            let carry = self.hear().await.expect("it goes on");
            let Carry::Pack(piece) = carry else { panic!("{carry:?}") };
            self.packs.push(piece).expect("a piece");
        }
    }

    async fn wants(&self, ids: &[ContentId]) {
        self.say(Carry::Wants(ids.to_vec())).await;
    }

    async fn end(&self) {
        self.say(Carry::End(Box::new(all_well()))).await;
    }

    /// The stream is over.
    async fn is_cut(&mut self) {
        loop {
            match self.hear().await {
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

fn apply(ask: &TransferAsk) -> &ApplyAsk {
    match &ask.work {
        TransferWork::Apply(apply) => apply,
        TransferWork::Send(_) => panic!("{ask:?}"),
    }
}

fn sends(ask: &TransferAsk) -> &SendAsk {
    match &ask.work {
        TransferWork::Send(send) => send,
        TransferWork::Apply(_) => panic!("{ask:?}"),
    }
}

fn all_well() -> TransferEnd {
    TransferEnd { root: Some(root(1)), files: 2, bytes: 2_048, ..TransferEnd::default() }
}

fn root(number: u8) -> TreeId {
    TreeId::of(&[number])
}

fn id_of(view: &Value) -> String {
    view["id"].as_str().unwrap_or_else(|| panic!("{view}")).to_owned()
}

fn push(nodes: &[&str], number: u8) -> Value {
    json!({"kind": "push", "nodes": nodes, "dest": "/srv/مشروع", "root": root(number).to_string(),
        "entries": 3, "bytes": 4096})
}

/// Chunks of 1 KiB that do not compress.
fn chunk(number: u32) -> (ContentId, Bytes) {
    let mut bytes = vec![0; 1024];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (ContentId::of(&bytes), bytes.into())
}

fn id(number: u32) -> ContentId {
    chunk(number).0
}

fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<ContentId> {
    numbers.into_iter().map(id).collect()
}

fn pack(numbers: impl IntoIterator<Item = u32>) -> Bytes {
    let mut writer = PackWriter::new(1);
    for number in numbers {
        let (id, bytes) = chunk(number);
        assert_eq!(writer.add(id, &bytes), Added::Yes);
    }
    let pack = writer.finish().expect("it has chunks");
    [&pack.head.to_bytes()[..], &pack.tail[..]].concat().into()
}
