//! The hub's side of a push, small: it asks for the tree from the top down, keeps what comes, and says that
//! all is done once nothing is missing. It can lose what it hears and what it says.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_content::object::{Node, Object, read_object};
use cortex_content::packs::Stream;
use cortex_core::files::content::ContentId;
use cortex_core::limits::{CARRY_DATA_BYTES_MAX, PACK_BYTES_MAX};
use serde_json::{Value, json};

use super::fake::{Answer, Asked, Fake};

/// The id of its transfer.
pub(crate) const ID: &str = "0198a1c2-0000-7000-8000-0000000000aa";
/// Ids that it asks for at once; about what a real one has open of a long file.
const IDS_AT_ONCE: usize = 256;

/// How it misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Whims {
    /// So many packs are taken, and the connection breaks before the answer.
    pub(crate) packs_unanswered: usize,
    /// So many answers of wants get lost.
    pub(crate) wants_lost: usize,
    /// So many packs of a mebibyte or more are taken, and what is in them is forgotten and asked for again.
    pub(crate) packs_forgotten: usize,
    /// After so many packs it forgets the transfer, once.
    pub(crate) forgets_after: Option<usize>,
    /// It answers no long pack before two were on their way at once.
    pub(crate) is_slow: bool,
    /// It never wants anything.
    pub(crate) is_idle: bool,
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// The taker.
pub(crate) struct Taker {
    state: Mutex<State>,
    news: Condvar,
    whims: Whims,
    /// Called when a push begins.
    begun: Hook,
    sending: AtomicUsize,
    sending_most: AtomicUsize,
}

#[derive(Default)]
struct State {
    order: Value,
    objects: HashSet<ContentId>,
    wanted: VecDeque<ContentId>,
    asked: HashSet<ContentId>,
    known: HashSet<ContentId>,
    content: HashMap<ContentId, Bytes>,
    missing: HashSet<ContentId>,
    packs: usize,
    wire: usize,
    begins: usize,
    lost: usize,
    unanswered: usize,
    forgotten: usize,
    standing: &'static str,
}

/// What a path of the tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Dir,
    File(Bytes, bool),
    Link(String),
}

impl Taker {
    pub(crate) fn start(whims: Whims, begun: impl Fn() + Send + Sync + 'static) -> (Fake, Arc<Self>) {
        let taker = Arc::new(Self {
            state: Mutex::default(),
            news: Condvar::new(),
            whims,
            begun: Box::new(begun),
            sending: AtomicUsize::new(0),
            sending_most: AtomicUsize::new(0),
        });
        let answering = Arc::clone(&taker);
        (Fake::start(move |asked, _| answering.answer(asked)), taker)
    }

    /// The order as it came last.
    pub(crate) fn order(&self) -> Value {
        self.state.lock().expect("no panic").order.clone()
    }

    /// Packs that came, the most that were on their way at once, and how often the push was begun.
    pub(crate) fn figures(&self) -> (usize, usize, usize) {
        let state = self.state.lock().expect("no panic");
        (state.packs, self.sending_most.load(Ordering::SeqCst), state.begins)
    }

    /// The tree that came.
    pub(crate) fn tree(&self) -> BTreeMap<String, Entry> {
        let state = self.state.lock().expect("no panic");
        let mut found = BTreeMap::new();
        let root = state.order["root"].as_str().expect("a root").parse().expect("an id");
        state.folder(&root, "", &mut found);
        found
    }

    fn answer(&self, asked: &Asked) -> Answer {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let last =
            path.trim_start_matches("/api/v1/transfers").trim_start_matches('/').trim_start_matches(ID);
        match (asked.method.as_str(), last) {
            ("POST", "") => self.begin(asked),
            ("DELETE", "") => {
                self.end("cancelled");
                self.view()
            }
            ("GET", "") => self.follow(query),
            ("GET", "/wants") => self.wants(query),
            ("PUT", "/packs") => self.pack(&asked.bytes),
            ("POST", "/missing") => self.gone(&asked.bytes),
            other => panic!("nobody asks {other:?}"),
        }
    }

    fn begin(&self, asked: &Asked) -> Answer {
        (self.begun)();
        let order: Value = serde_json::from_str(&asked.body).expect("an order");
        let root: ContentId = order["root"].as_str().expect("a root").parse().expect("an id");
        let mut state = self.state.lock().expect("no panic");
        state.begins += 1;
        state.standing = "open";
        state.order = order;
        if !self.whims.is_idle {
            state.want(root, true);
            // What it has from before does not come again.
            let again: Vec<ContentId> = state.known.iter().copied().collect();
            let open: Vec<ContentId> =
                again.into_iter().filter(|id| !state.content.contains_key(id)).collect();
            state.asked.clear();
            state.wanted = open.into();
        }
        state.settle();
        drop(state);
        self.view()
    }

    fn end(&self, standing: &'static str) {
        self.state.lock().expect("no panic").standing = standing;
        self.news.notify_all();
    }

    fn follow(&self, query: &str) -> Answer {
        let state = self.state.lock().expect("no panic");
        let wait = Duration::from_millis(if query.contains("after") { 500 } else { 0 });
        let waited = self.news.wait_timeout_while(state, wait, |state| state.standing == "open");
        drop(waited.expect("no panic"));
        self.view()
    }

    fn view(&self) -> Answer {
        let state = self.state.lock().expect("no panic");
        if state.standing.is_empty() {
            return Answer::Json(404, super::push::problem("not_found"));
        }
        let files = state.content.len() as u64;
        let (node, over) = match state.standing {
            "open" => ("moving", None),
            other => (
                other,
                Some(json!({"written": files, "bytes": 5, "removed": 0, "same": 0, "extra": 0, "held": {}})),
            ),
        };
        let view = json!({
            "id": ID, "kind": "push", "state": state.standing, "seq": state.packs, "entries": 1, "bytes": 1,
            "by": "token:admin", "at": "2026-01-01T00:00:00Z",
            "nodes": [{"node": "a", "path": "/srv/x", "state": node, "bytes_total": 9, "bytes_moved": 9,
                "wire_bytes": state.wire, "steps_total": 0, "steps_done": 0, "duration_ms": 7, "end": over}],
        });
        Answer::Json(202, view.to_string())
    }

    fn wants(&self, query: &str) -> Answer {
        let mut state = self.state.lock().expect("no panic");
        if query.contains("again=true") {
            let lost: Vec<ContentId> = state.asked.drain().collect();
            let is_open = |id: &ContentId| !state.content.contains_key(id) && !state.missing.contains(id);
            let open: Vec<ContentId> = lost.into_iter().filter(is_open).collect();
            state.wanted.extend(open);
        }
        let nothing = |state: &mut State| state.wanted.is_empty() && state.standing == "open";
        let waited = self.news.wait_timeout_while(state, Duration::from_millis(500), nothing);
        let (mut state, _) = waited.expect("no panic");
        if state.standing.is_empty() {
            return Answer::Json(404, super::push::problem("not_found"));
        }
        let count = state.wanted.len().min(IDS_AT_ONCE);
        let ids: Vec<ContentId> = state.wanted.drain(..count).collect();
        state.asked.extend(&ids);
        if !ids.is_empty() && state.lost < self.whims.wants_lost {
            state.lost += 1;
            return Answer::Closed;
        }
        let head = format!("cortex-transfer: {}\r\n", state.standing);
        if ids.is_empty() {
            return Answer::Raw(format!("HTTP/1.1 204 X\r\n{head}\r\n").into_bytes());
        }
        let mut raw = format!(
            "HTTP/1.1 200 X\r\n{head}content-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
            ids.len() * 32
        )
        .into_bytes();
        ids.iter().for_each(|id| raw.extend_from_slice(id.as_bytes()));
        Answer::Raw(raw)
    }

    fn pack(&self, pack: &[u8]) -> Answer {
        let now = self.sending.fetch_add(1, Ordering::SeqCst) + 1;
        self.sending_most.fetch_max(now, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(20);
        while self.whims.is_slow && pack.len() > PACK_BYTES_MAX / 2 && Instant::now() < until {
            if self.sending_most.load(Ordering::SeqCst) > 1 {
                // A third one would come by then.
                std::thread::sleep(Duration::from_millis(50));
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(pack.len() <= PACK_BYTES_MAX, "{} bytes", pack.len());
        let mut state = self.state.lock().expect("no panic");
        self.sending.fetch_sub(1, Ordering::SeqCst);
        if state.standing.is_empty() {
            return Answer::Json(404, super::push::problem("not_found"));
        }
        if pack.len() >= 1 << 20 && state.forgotten < self.whims.packs_forgotten {
            state.forget(pack);
        } else {
            state.take(pack);
        }
        let unanswered = state.unanswered < self.whims.packs_unanswered;
        state.unanswered += usize::from(unanswered);
        if self.whims.forgets_after == Some(state.packs) && state.begins == 1 {
            state.standing = "";
        }
        state.settle();
        let standing = state.standing;
        drop(state);
        self.news.notify_all();
        if unanswered { Answer::Closed } else { done(standing) }
    }

    fn gone(&self, ids: &[u8]) -> Answer {
        let mut state = self.state.lock().expect("no panic");
        let (ids, rest) = ids.as_chunks::<32>();
        assert!(rest.is_empty() && !ids.is_empty());
        state.missing.extend(ids.iter().map(|id| ContentId::new(*id)));
        state.settle();
        let standing = state.standing;
        drop(state);
        self.news.notify_all();
        done(standing)
    }
}

fn done(standing: &str) -> Answer {
    Answer::Raw(format!("HTTP/1.1 204 X\r\ncortex-transfer: {standing}\r\n\r\n").into_bytes())
}

impl State {
    fn want(&mut self, id: ContentId, is_object: bool) {
        if is_object {
            self.objects.insert(id);
        }
        if self.known.insert(id) {
            self.wanted.push_back(id);
        }
    }

    /// What is in a pack. Verified by the reader of packs.
    fn read(&self, pack: &[u8]) -> Vec<(ContentId, Bytes)> {
        let mut stream = Stream::new();
        let mut came = Vec::new();
        for piece in pack.chunks(CARRY_DATA_BYTES_MAX) {
            stream.push(Bytes::copy_from_slice(piece)).expect("a piece of a pack");
            while let Some((id, bytes)) = stream.next_chunk().expect("what it says") {
                assert!(self.known.contains(&id), "nobody asked for {id}");
                came.push((id, Bytes::copy_from_slice(bytes)));
            }
        }
        assert_eq!(stream.finish().expect("whole"), 1, "one pack");
        came
    }

    fn forget(&mut self, pack: &[u8]) {
        self.forgotten += 1;
        let again: Vec<ContentId> = self.read(pack).into_iter().map(|(id, _)| id).collect();
        self.asked.retain(|id| !again.contains(id));
        self.wanted.extend(again);
    }

    fn take(&mut self, pack: &[u8]) {
        self.packs += 1;
        self.wire += pack.len();
        for (id, bytes) in self.read(pack) {
            if self.objects.contains(&id) && !self.content.contains_key(&id) {
                self.below(read_object(&bytes).expect("an object"));
            }
            self.content.insert(id, bytes);
        }
    }

    fn below(&mut self, object: Object) {
        match object {
            Object::DirIndex { parts, .. } => parts.iter().for_each(|part| self.want(part.id, true)),
            Object::MapIndex { parts, .. } => parts.iter().for_each(|part| self.want(part.id, true)),
            Object::Map(chunks) => chunks.iter().for_each(|chunk| self.want(chunk.id, false)),
            Object::Dir(entries) => {
                for entry in entries {
                    match entry.node {
                        Node::Dir { id, .. } => self.want(id.into(), true),
                        Node::File(file) if file.size == 0 => {}
                        Node::File(file) => self.want(file.map.unwrap_or(file.id), file.map.is_some()),
                        Node::Link { .. } => {}
                    }
                }
            }
        }
    }

    fn settle(&mut self) {
        let open = self.known.iter().any(|id| !self.content.contains_key(id) && !self.missing.contains(id));
        if self.standing == "open" && !self.known.is_empty() && !open {
            self.standing = "done";
        }
    }

    fn folder(&self, id: &ContentId, above: &str, found: &mut BTreeMap<String, Entry>) {
        match read_object(&self.content[id]).expect("an object") {
            Object::DirIndex { parts, .. } => {
                parts.iter().for_each(|part| self.folder(&part.id, above, found))
            }
            Object::Dir(entries) => {
                for entry in entries {
                    let path = format!("{above}{}", String::from_utf8_lossy(&entry.name));
                    let what = match entry.node {
                        Node::Dir { id, .. } => {
                            self.folder(&id.into(), &format!("{path}/"), found);
                            Entry::Dir
                        }
                        Node::Link { target, .. } => {
                            Entry::Link(String::from_utf8_lossy(&target).into_owned())
                        }
                        Node::File(file) => {
                            let mut bytes = Vec::new();
                            match file.map {
                                Some(map) => self.map(&map, &mut bytes),
                                None if file.size == 0 => {}
                                None => bytes.extend_from_slice(&self.content[&file.id]),
                            }
                            assert_eq!(ContentId::of(&bytes), file.id, "{path}");
                            Entry::File(bytes.into(), file.exec)
                        }
                    };
                    found.insert(path, what);
                }
            }
            Object::Map(_) | Object::MapIndex { .. } => panic!("a map is no folder"),
        }
    }

    fn map(&self, id: &ContentId, bytes: &mut Vec<u8>) {
        match read_object(&self.content[id]).expect("an object") {
            Object::Map(chunks) => {
                chunks.iter().for_each(|chunk| bytes.extend_from_slice(&self.content[&chunk.id]))
            }
            Object::MapIndex { parts, .. } => parts.iter().for_each(|part| self.map(&part.id, bytes)),
            Object::Dir(_) | Object::DirIndex { .. } => panic!("a folder is no map"),
        }
    }
}

/// The tree on a disk.
pub(crate) fn on_disk(folder: &Path) -> BTreeMap<String, Entry> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut found = BTreeMap::new();
    let mut next = vec![(folder.to_owned(), String::new())];
    while let Some((folder, above)) = next.pop() {
        for entry in std::fs::read_dir(folder).expect("read a folder") {
            let entry = entry.expect("an entry");
            let path = format!("{above}{}", entry.file_name().to_str().expect("text"));
            let about = entry.path().symlink_metadata().expect("about it");
            let what = if about.is_dir() {
                next.push((entry.path(), format!("{path}/")));
                Entry::Dir
            } else if about.is_symlink() {
                let target = std::fs::read_link(entry.path()).expect("a link");
                Entry::Link(target.to_str().expect("text").to_owned())
            } else {
                let bytes = std::fs::read(entry.path()).expect("read a file");
                Entry::File(bytes.into(), about.permissions().mode() & 0o100 != 0)
            };
            found.insert(path, what);
        }
    }
    found
}
