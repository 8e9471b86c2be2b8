//! The hub's side of a pull, small: it has a folder of this machine for the node's, answers what is asked for
//! with packs, and can break the stream off.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use cortex_content::asking::Answering;
use cortex_content::pack::PackWriter;
use cortex_core::files::content::ContentId;
use cortex_core::limits::CARRY_DATA_BYTES_MAX;
use cortex_node::local::{LocalSpec, LocalTree};
use serde_json::{Value, json};

use super::fake::{Answer, Asked, Fake};
use super::taker::ID;

/// Pieces that wait to be read; more than any test sends.
const PIECES_WAITING: usize = 1024;

/// The giver.
pub(crate) struct Giver {
    state: Mutex<State>,
    /// So many packs are torn in the middle, with their stream.
    torn: usize,
    is_file: bool,
}

struct State {
    tree: LocalTree,
    stream: Option<SyncSender<Vec<u8>>>,
    order: Value,
    packs: usize,
    reads: usize,
    bytes: usize,
    standing: &'static str,
    left_out: Value,
}

impl Giver {
    pub(crate) fn start(source: &Path, torn: usize) -> (Fake, Arc<Self>) {
        let spec = LocalSpec { vcs: true, ..LocalSpec::default() };
        let tree = LocalTree::open(source, &spec, None, None).expect("a tree");
        let (order, left_out) = (Value::Null, Value::Null);
        let (stream, standing) = (None, "open");
        let state = State { tree, stream, order, packs: 0, reads: 0, bytes: 0, standing, left_out };
        let giver = Arc::new(Self { state: Mutex::new(state), torn, is_file: source.is_file() });
        let answering = Arc::clone(&giver);
        (Fake::start(move |asked, _| answering.answer(asked)), giver)
    }

    /// From here on the node says that its folder has these beside its tree.
    pub(crate) fn leaves_out(&self, counts: Value) {
        self.state.lock().expect("no panic").left_out = counts;
    }

    /// The order, how often the content was read, and bytes of packs that were given.
    pub(crate) fn figures(&self) -> (Value, usize, usize) {
        let state = self.state.lock().expect("no panic");
        (state.order.clone(), state.reads, state.bytes)
    }

    fn answer(&self, asked: &Asked) -> Answer {
        let path = asked.path.split('?').next().unwrap_or_default();
        let mut state = self.state.lock().expect("no panic");
        match (asked.method.as_str(), path.trim_start_matches("/api/v1/transfers").trim_start_matches('/')) {
            ("POST", "") => {
                state.order = serde_json::from_str(&asked.body).expect("an order");
                state.standing = "open";
                state.view()
            }
            ("GET", path) if path.ends_with("/content") => state.read(),
            ("POST", path) if path.ends_with("/wants") => {
                state.give(&asked.bytes, self.torn);
                Answer::Raw(b"HTTP/1.1 204 X\r\ncortex-transfer: open\r\n\r\n".to_vec())
            }
            ("POST", path) if path.ends_with("/end") => {
                state.standing = "done";
                state.stream = None;
                state.view()
            }
            ("DELETE", _) => {
                state.standing = "cancelled";
                state.view()
            }
            ("GET", _) if path.starts_with("/api/v1/nodes/") => {
                let kind = if self.is_file { "file" } else { "dir" };
                let entry = json!({"name": "x", "type": kind, "size": 3, "mode": "0644",
                    "mtime": "2026-01-01T00:00:00.000Z", "uid": 0, "gid": 0, "links": 1});
                Answer::Json(200, entry.to_string())
            }
            other => panic!("nobody asks {other:?}"),
        }
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("short").to_le_bytes();
    [&[kind][..], &len, body].concat()
}

impl State {
    fn view(&self) -> Answer {
        let view = json!({"id": ID, "kind": "pull", "state": self.standing, "seq": 1, "entries": 1, "bytes": 1,
            "by": "token:admin", "at": "2026-01-01T00:00:00Z",
            "nodes": [{"node": "a", "path": "/srv/x", "state": "moving", "bytes_total": 0, "bytes_moved": 0,
                "wire_bytes": 0, "steps_total": 0, "steps_done": 0, "duration_ms": 7}]});
        Answer::Json(202, view.to_string())
    }

    fn read(&mut self) -> Answer {
        self.reads += 1;
        let (sender, pieces) = sync_channel(PIECES_WAITING);
        let (totals, counts) = (self.tree.totals(), self.tree.counts());
        let told = json!({"root": self.tree.root().to_string(), "state": "dir", "files": counts.files,
            "root_entries": counts.root_entries, "entries": totals.entries, "bytes": totals.bytes,
            "left_out": self.left_out});
        sender.send(frame(b'T', told.to_string().as_bytes())).expect("it is read");
        let notes = json!([{"path": "سري", "what": "unreadable"}]);
        sender.send(frame(b'N', notes.to_string().as_bytes())).expect("it is read");
        self.stream = Some(sender);
        Answer::Pieces(Arc::new(Mutex::new(pieces)))
    }

    fn give(&mut self, ids: &[u8], torn: usize) {
        let ids: Vec<ContentId> = ids.as_chunks::<32>().0.iter().map(|id| ContentId::new(*id)).collect();
        let (mut asked, mut writer) = (Answering::new(), PackWriter::new(1));
        asked.want(&ids).expect("within the window");
        while !asked.is_idle() {
            let batch = asked.next(|id| self.tree.len_of(id)).expect("a batch");
            for id in batch.give {
                let bytes = self.tree.read(&id).expect("read").expect("nothing changes here");
                assert_eq!(writer.add(id, &bytes), cortex_content::pack::Added::Yes);
            }
            let Some(stream) = &self.stream else { return };
            if !batch.missing.is_empty() {
                let ids: Vec<u8> = batch.missing.iter().flat_map(|id| *id.as_bytes()).collect();
                drop(stream.send(frame(b'M', &ids)));
            }
            let Some(pack) = writer.finish() else { continue };
            let pack = [&pack.head.to_bytes()[..], &pack.tail[..]].concat();
            self.packs += 1;
            let is_torn = pack.len() > CARRY_DATA_BYTES_MAX && self.reads <= torn;
            let len = if is_torn { pack.len() / 2 } else { pack.len() };
            self.bytes += len;
            for piece in pack[..len].chunks(CARRY_DATA_BYTES_MAX) {
                // A reader that left is part of some tests.
                drop(stream.send(frame(b'P', piece)));
            }
            if is_torn {
                self.stream = None;
            }
        }
    }
}
