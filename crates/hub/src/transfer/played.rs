//! A node that a test plays: its folder is a tree in a chunk store of its own, and what it says and hears goes
//! through the very frames of the wire.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cortex_content::asking::Asking;
use cortex_content::chunk::Cutter;
use cortex_content::graph::{GraphCheck, TreeQuota};
use cortex_content::object::{FileNode, Node, Object};
use cortex_content::pack::{Added, ChunkRef, PackWriter};
use cortex_content::packs;
use cortex_content::tree::write_map;
use cortex_core::Refusal;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::id::{Epoch, LinkId, NodeId};
use cortex_core::limits::{CARRY_DATA_BYTES_MAX, TREE_DEPTH_MAX, WANTS_MAX};
use cortex_core::sync::RootState;
use cortex_core::time::Timestamp;
use cortex_core::transfer::{ApplyAsk, Carry, LeftOut, PathNote, TransferEnd, TreeTold};
use cortex_store::blobs::Pin;
use cortex_wire::convert::transfer::{Given, Sent, carry_from_bytes, carry_to_bytes, given_from, sent_into};
use cortex_wire::mesh::{TransferRequest, TransferResponse};
use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::chunks::{Chunks, LEVEL, Putting};
use super::io::Io;
use super::merge;
use super::{Redeemed, Tickets, TransferStream};

pub(crate) const QUOTA: TreeQuota = TreeQuota { entries: 100_000, bytes: 1 << 40, depth: TREE_DEPTH_MAX };

/// A folder.
pub(crate) struct Folder {
    pub(crate) chunks: Chunks,
    pub(crate) pin: Pin,
    pub(crate) tree: Mutex<TreeId>,
    /// Paths that the node cannot read.
    pub(crate) held: Mutex<Vec<PathNote>>,
    /// What it says that its trees have not.
    pub(crate) left_out: Mutex<LeftOut>,
    pub(crate) state: Mutex<RootState>,
    /// Chunks and objects that were sent, in order.
    pub(crate) sent: Mutex<Vec<ContentId>>,
    /// Content that was there when its tree was told, and is not there when it is asked for.
    pub(crate) gone: Mutex<HashSet<ContentId>>,
    /// How many packs are sent before the stream breaks.
    pub(crate) breaks: Mutex<Option<usize>>,
}

/// Its end of one stream.
pub(crate) struct Clerk {
    up: mpsc::Sender<Result<TransferRequest, Refusal>>,
    down: mpsc::Receiver<TransferResponse>,
}

/// A store of its own.
pub(crate) fn store() -> Chunks {
    Chunks::new(Chunks::memory(), Io::start(1).expect("a thread"))
}

/// Both ends of a stream.
pub(crate) fn pair() -> (TransferStream, Clerk) {
    let (tickets, node) = (Tickets::default(), NodeId::mint(1, &[1; 10]));
    let ticket = cortex_core::files::ask::Ticket::new([1; 16]);
    let of = (LinkId(1), Epoch(1));
    let _opening = tickets.issue(ticket, node, of, Timestamp(0)).expect("room");
    let (_give, stream, clerk) =
        open(tickets.redeem(ticket, node, Epoch(1), Timestamp(0)).expect("a ticket"));
    (stream, clerk)
}

/// The stream of a ticket, for whoever waits for it, and the node's end.
pub(crate) fn open(redeemed: Redeemed) -> (oneshot::Sender<TransferStream>, TransferStream, Clerk) {
    let (up, from_node) = mpsc::channel(4);
    let (out, down) = mpsc::channel(4);
    let inbound = ReceiverStream::new(from_node).boxed();
    let stream = TransferStream::new(inbound, out, redeemed.running, Box::new(()));
    (redeemed.give, stream, Clerk { up, down })
}

impl Clerk {
    pub(crate) async fn say(&self, carry: Carry) -> bool {
        self.up.send(Ok(sent_into(Sent::Frame(carry_to_bytes(carry))))).await.is_ok()
    }

    /// The next frame; `None` when the hub is gone.
    pub(crate) async fn hear(&mut self) -> Option<Result<Carry, Refusal>> {
        let response = self.down.recv().await?;
        match given_from(response).expect("readable").expect("known") {
            Given::Frame(frame) => Some(Ok(carry_from_bytes(frame).expect("readable").expect("known"))),
            Given::Refused(refusal) => Some(Err(refusal)),
        }
    }

    async fn pack(&self, bytes: Bytes) -> bool {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(CARRY_DATA_BYTES_MAX));
            if !self.say(Carry::Pack(piece)).await {
                return false;
            }
        }
        true
    }
}

impl Folder {
    pub(crate) fn new() -> Arc<Self> {
        let chunks = store();
        let pin = chunks.pin().expect("a pin");
        let tree = Mutex::new(merge::empty(&chunks, &pin).expect("written"));
        let state = Mutex::new(RootState::Dir);
        let (held, left_out) = (Mutex::default(), Mutex::default());
        let (sent, gone, breaks) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { chunks, pin, tree, held, left_out, state, sent, gone, breaks })
    }

    pub(crate) fn tree(&self) -> TreeId {
        *self.tree.lock().expect("no panic")
    }

    /// Somebody writes a file, or removes it.
    pub(crate) fn write(&self, path: &str, content: Option<&[u8]>) {
        let node = content.map(|content| file(&self.chunks, content, &self.pin));
        let mut tree = self.tree.lock().expect("no panic");
        let edits = vec![(RelPath::parse(path).expect("a path"), node)];
        *tree = merge::edited(&self.chunks, *tree, edits, &self.pin);
    }

    /// Somebody makes a link.
    pub(crate) fn link(&self, path: &str, target: &'static str) {
        let node = Node::Link { target: Bytes::from_static(target.as_bytes()), mtime_ns: 1 };
        let mut tree = self.tree.lock().expect("no panic");
        let edits = vec![(RelPath::parse(path).expect("a path"), Some(node))];
        *tree = merge::edited(&self.chunks, *tree, edits, &self.pin);
    }

    /// Somebody makes so many files, all empty.
    pub(crate) fn many(&self, count: u64) {
        let node = file(&self.chunks, b"", &self.pin);
        let edits = (0..count).map(|number| {
            let path = RelPath::parse(&format!("{}/{number}", number / 100)).expect("a path");
            (path, Some(node.clone()))
        });
        let mut tree = self.tree.lock().expect("no panic");
        *tree = merge::edited(&self.chunks, *tree, edits.collect(), &self.pin);
    }

    /// All files by path.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.chunks, self.tree())
    }

    /// Tells what there is, and sends what is asked for, until the hub has enough.
    pub(crate) async fn send(&self, mut clerk: Clerk) {
        let (root, state) = (self.tree(), *self.state.lock().expect("no panic"));
        let counts = self.chunks.counts(root).expect("whole");
        let left_out = *self.left_out.lock().expect("no panic");
        let told =
            TreeTold { root, state, counts, entries: counts.files, bytes: 0, identity: None, left_out };
        let held = self.held.lock().expect("no panic").clone();
        if !clerk.say(Carry::Tree(told)).await || (!held.is_empty() && !clerk.say(Carry::Held(held)).await) {
            return;
        }
        while let Some(Ok(Carry::Wants(wanted))) = clerk.hear().await {
            let gone = self.gone.lock().expect("no panic").clone();
            let (lost, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|id| gone.contains(id));
            if !lost.is_empty() && !clerk.say(Carry::Missing(lost)).await {
                return;
            }
            let mut ids = VecDeque::from(wanted);
            while !ids.is_empty() {
                let mut writer = PackWriter::new(LEVEL);
                while let Some(id) = ids.front() {
                    let bytes = self.chunks.chunk(id).expect("its own");
                    if writer.add(*id, &bytes) == Added::Full {
                        break;
                    }
                    self.sent.lock().expect("no panic").push(*id);
                    ids.pop_front();
                }
                let pack = writer.finish().expect("chunks");
                if !clerk.pack([&pack.head.to_bytes()[..], &pack.tail[..]].concat().into()).await {
                    return;
                }
                if let Some(left) = &mut *self.breaks.lock().expect("no panic") {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Becomes what is asked for, as the planner lets it.
    pub(crate) async fn apply(&self, mut clerk: Clerk, ask: &ApplyAsk) -> Option<TransferEnd> {
        for tree in std::iter::once(ask.target).chain(ask.base) {
            fetch(&self.chunks, &mut clerk, tree, &self.pin).await?;
        }
        let end = self.planned(ask);
        clerk.say(Carry::End(Box::new(end.clone()))).await;
        Some(end)
    }

    /// The same with all of it here.
    fn planned(&self, ask: &ApplyAsk) -> TransferEnd {
        let mut tree = self.tree.lock().expect("no panic");
        let (plan, after) = merge::applied(&self.chunks, ask, *tree, &self.pin).expect("a plan");
        if plan.halt.is_none() {
            *tree = after;
        }
        let root = plan.halt.is_none().then_some(*tree);
        TransferEnd { root, counts: plan.counts, halt: plan.halt, ..TransferEnd::default() }
    }
}

/// A file in a store.
pub(crate) fn file(chunks: &Chunks, content: &[u8], pin: &Pin) -> Node {
    let mut putting = Putting::new(chunks);
    let (id, size) = (ContentId::of(content), content.len() as u64);
    let map = if content.len() <= cortex_core::limits::CHUNK_WHOLE_BYTES_MAX {
        if size > 0 {
            putting.put(id, content, pin).expect("put");
        }
        None
    } else {
        let (mut cutter, mut refs, mut rest) = (Cutter::new(), Vec::new(), content);
        loop {
            while let Some(chunk) = cutter.next_chunk() {
                let id = ContentId::of(chunk);
                refs.push(ChunkRef { id, len: chunk.len() as u32 });
                putting.put(id, chunk, pin).expect("put");
            }
            if refs.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>() == size {
                break;
            }
            let space = cutter.space();
            let len = space.len().min(rest.len());
            space[..len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            cutter.filled(len);
            if rest.is_empty() {
                cutter.end();
            }
        }
        let mut objects = Vec::new();
        let (map, _) = write_map(refs, &mut |id, bytes| objects.push((id, bytes))).expect("a map");
        objects.iter().for_each(|(id, bytes)| putting.put(*id, bytes, pin).expect("put"));
        Some(map)
    };
    putting.flush(pin).expect("put");
    chunks.sync(pin).expect("durable");
    Node::File(FileNode { id, size, exec: false, mtime_ns: 1, map })
}

/// All files of a tree by path.
pub(crate) fn files(chunks: &Chunks, tree: TreeId) -> BTreeMap<String, Vec<u8>> {
    let (mut open, mut found) = (vec![(String::new(), tree)], BTreeMap::new());
    while let Some((at, dir)) = open.pop() {
        for entry in chunks.dir(dir).expect("whole") {
            let path = format!("{at}{}", String::from_utf8_lossy(&entry.name));
            match entry.node {
                Node::Dir { id, .. } => open.push((format!("{path}/"), id)),
                Node::File(file) => {
                    drop(found.insert(path, chunks.read(&file, 0, usize::MAX).expect("whole")))
                }
                Node::Link { .. } => {}
            }
        }
    }
    found
}

/// A whole tree comes from the hub; `None` when the stream broke.
pub(crate) async fn fetch(chunks: &Chunks, clerk: &mut Clerk, tree: TreeId, pin: &Pin) -> Option<usize> {
    let mut check = GraphCheck::new(tree, QUOTA);
    let (mut asking, mut stream, mut putting) = (Asking::new(), packs::Stream::new(), Putting::new(chunks));
    let mut objects = std::collections::HashSet::new();
    let mut came = 0;
    loop {
        for id in check.wanted(WANTS_MAX) {
            objects.insert(id);
            asking.push(id, 1);
        }
        let ids = asking.next(WANTS_MAX);
        if !ids.is_empty() && !clerk.say(Carry::Wants(ids)).await {
            return None;
        }
        if asking.is_idle() && check.is_whole() {
            putting.flush(pin).expect("put");
            chunks.sync(pin).expect("durable");
            return Some(came);
        }
        match clerk.hear().await? {
            Ok(Carry::Pack(bytes)) => {
                stream.push(bytes).expect("a piece");
                while let Some((id, chunk)) = stream.next_chunk().expect("verified") {
                    asking.came(id);
                    came += 1;
                    putting.put(id, chunk, pin).expect("put");
                    if !objects.remove(&id) {
                        continue;
                    }
                    match check.feed(id, &Bytes::copy_from_slice(chunk)).expect("an object") {
                        Object::Dir(entries) => entries.into_iter().for_each(|entry| {
                            if let Node::File(FileNode { id, size: 1.., map: None, .. }) = entry.node {
                                asking.push(id, 1);
                            }
                        }),
                        Object::Map(chunks) => chunks.iter().for_each(|chunk| {
                            asking.push(chunk.id, chunk.len);
                        }),
                        Object::DirIndex { .. } | Object::MapIndex { .. } => {}
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
