//! What the tests of receiving share: folders that are trees, and an end that has them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;
use cortex_content::asking::Answering;
use cortex_content::chunk::Cutter;
use cortex_content::graph::TreeQuota;
use cortex_content::object::{DirEntry, FileNode, Node};
use cortex_content::pack::{Added, ChunkRef, PackWriter};
use cortex_content::packs::Stream;
use cortex_content::tree::{write_dir, write_map};
use cortex_core::error::{Code, Refusal};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::id::Revision;
use cortex_core::limits::CARRY_DATA_BYTES_MAX;
use cortex_core::sync::{DeleteLimits, Mode, NameRules, Problem, Push, RootState, Seen, SideCounts};

use cortex_core::transfer::Progress;

use super::super::*;
use crate::files::beneath::{Follow, Root};
use crate::files::seam::Plain;

pub(crate) const PUSH: Mode = Mode::Push(Push { first: true, force: false, delete: false });
pub(crate) const NEXT: Mode = Mode::Push(Push { first: false, force: false, delete: true });
pub(crate) const MIRROR: Mode = Mode::Push(Push { first: false, force: true, delete: true });

/// A folder as a tree, with its content.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) scanned: Scanned,
    pub(crate) chunks: HashMap<ContentId, Bytes>,
}

impl Made {
    pub(crate) fn root(&self) -> TreeId {
        self.scanned.root
    }
}

/// Reads a folder, but what is ours.
pub(crate) fn made(path: &Path) -> Made {
    let mut reader =
        Reader { objects: Objects::default(), chunks: HashMap::new(), left_out: BTreeMap::new(), files: 0 };
    let (root, totals, entries) = reader.folder(path, &RelPath::root());
    let counts = SideCounts { files: reader.files, root_entries: entries };
    let scanned = Scanned {
        root,
        totals,
        counts,
        objects: reader.objects,
        left_out: reader.left_out,
        unnamed: 0,
        hashed: 0,
        notes: Default::default(),
    };
    Made { scanned, chunks: reader.chunks }
}

struct Reader {
    objects: Objects,
    chunks: HashMap<ContentId, Bytes>,
    left_out: BTreeMap<RelPath, Seen>,
    files: u64,
}

impl Reader {
    fn folder(&mut self, path: &Path, rel: &RelPath) -> (TreeId, cortex_content::object::Totals, u64) {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).expect("a folder") {
            let entry = entry.expect("read");
            let name = entry.file_name();
            let Ok(rel) = rel.join_bytes(name.as_bytes()) else { continue };
            if rel.as_str() == ".cortex" {
                continue;
            }
            let meta = entry.path().symlink_metadata().expect("it is there");
            let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            let node = if meta.is_dir() {
                let (id, totals, _) = self.folder(&entry.path(), &rel);
                Node::Dir { id, totals }
            } else if meta.is_symlink() {
                self.files += 1;
                let target = fs::read_link(entry.path()).expect("a link");
                Node::Link { target: Bytes::copy_from_slice(target.as_os_str().as_bytes()), mtime_ns }
            } else if name.as_bytes().ends_with(b".ignored") {
                self.left_out.insert(rel, Seen::Ignored);
                continue;
            } else if !meta.is_file() {
                self.left_out.insert(rel, Seen::Blocked(Problem::Unsupported));
                continue;
            } else {
                self.files += 1;
                let bytes = fs::read(entry.path()).expect("a file");
                Node::File(self.file(&bytes, meta.mode() & 0o100 != 0, mtime_ns))
            };
            entries.push(DirEntry { name: Bytes::copy_from_slice(name.as_bytes()), node });
        }
        let count = entries.len() as u64;
        let objects = &mut self.objects;
        let (id, totals) = write_dir(entries, &mut |id, bytes| objects.put(id, bytes)).expect("a tree");
        (id, totals, count)
    }

    fn file(&mut self, bytes: &[u8], exec: bool, mtime_ns: i64) -> FileNode {
        let mut cutter = Cutter::new();
        let mut chunks = Vec::new();
        let mut take = |cutter: &mut Cutter| {
            while let Some(chunk) = cutter.next_chunk() {
                chunks.push(ChunkRef { id: ContentId::of(chunk), len: chunk.len() as u32 });
                self.chunks.insert(ContentId::of(chunk), Bytes::copy_from_slice(chunk));
            }
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = cutter.space();
            let len = space.len().min(rest.len());
            space[..len].copy_from_slice(&rest[..len]);
            cutter.filled(len);
            rest = &rest[len..];
            take(&mut cutter);
        }
        cutter.end();
        take(&mut cutter);
        let objects = &mut self.objects;
        let map = (bytes.len() > cortex_core::limits::CHUNK_WHOLE_BYTES_MAX)
            .then(|| write_map(chunks, &mut |id, bytes| objects.put(id, bytes)).expect("a map").0);
        FileNode { id: ContentId::of(bytes), size: bytes.len() as u64, exec, mtime_ns, map }
    }
}

type AtGate<'a> = Box<dyn FnMut(u32) -> Result<(), Refusal> + 'a>;
type Spoil<'a> = Box<dyn FnMut(Vec<u8>) -> Vec<u8> + 'a>;

/// An end that has trees, and sends what is asked for in packs.
pub(crate) struct Shop<'a> {
    content: HashMap<ContentId, Bytes>,
    answering: Answering,
    writer: PackWriter,
    stream: Stream,
    pieces: VecDeque<Bytes>,
    missing: VecDeque<ContentId>,
    /// Everything that was asked for.
    pub(crate) asked: Vec<ContentId>,
    /// Plain bytes of chunks that were sent, objects among them.
    pub(crate) sent: u64,
    pub(crate) gates: u32,
    pub(crate) told: Vec<Progress>,
    /// The connection breaks after so many events.
    pub(crate) breaks_after: Option<u64>,
    pub(crate) events: u64,
    /// Done at the gate of that number, from 1; an error closes it.
    pub(crate) at_gate: Option<AtGate<'a>>,
    /// Done to each piece of the stream of packs.
    pub(crate) spoil: Option<Spoil<'a>>,
    /// Sends each chunk twice, and some that nobody asked for.
    pub(crate) echoes: Option<VecDeque<(ContentId, Bytes)>>,
    /// Done before each event.
    pub(crate) before: Option<Box<dyn FnMut(u64) + 'a>>,
}

impl<'a> Shop<'a> {
    pub(crate) fn of(trees: &[&Made]) -> Self {
        let mut content = HashMap::new();
        for made in trees {
            content.extend(made.scanned.objects.iter().map(|(id, bytes)| (*id, bytes.clone())));
            content.extend(made.chunks.iter().map(|(id, bytes)| (*id, bytes.clone())));
        }
        Self {
            content,
            answering: Answering::new(),
            writer: PackWriter::new(1),
            stream: Stream::new(),
            pieces: VecDeque::new(),
            missing: VecDeque::new(),
            asked: Vec::new(),
            sent: 0,
            gates: 0,
            told: Vec::new(),
            breaks_after: None,
            events: 0,
            at_gate: None,
            spoil: None,
            echoes: None,
            before: None,
        }
    }

    pub(crate) fn lose(&mut self, id: &ContentId) {
        self.content.remove(id);
    }

    /// Puts a pack on its way, if something was asked for.
    fn pack(&mut self) -> Result<(), Refusal> {
        let len = |id: &ContentId| self.content.get(id).map(|bytes| bytes.len() as u32);
        let batch = self.answering.next(len)?;
        self.missing.extend(batch.missing);
        for id in &batch.give {
            assert_eq!(self.writer.add(*id, &self.content[id]), Added::Yes);
        }
        self.send();
        Ok(())
    }

    fn send(&mut self) {
        let Some(pack) = self.writer.finish() else { return };
        let mut bytes = [pack.head.to_bytes(), pack.tail].concat();
        if let Some(spoil) = &mut self.spoil {
            bytes = spoil(bytes);
        }
        self.pieces.extend(bytes.chunks(CARRY_DATA_BYTES_MAX).map(Bytes::copy_from_slice));
    }
}

pub(crate) fn cut_off() -> Refusal {
    Refusal::new(Code::Internal, "The connection broke.")
}

impl Peer for Shop<'_> {
    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        self.asked.extend(ids);
        self.answering.want(ids)
    }

    fn next(&mut self) -> Result<Event, Refusal> {
        self.events += 1;
        if self.breaks_after.is_some_and(|after| self.events > after) {
            return Err(cut_off());
        }
        if let Some(before) = &mut self.before {
            before(self.events);
        }
        if let Some(echo) = self.echoes.as_mut().and_then(VecDeque::pop_front) {
            return Ok(Event::Chunk(echo.0, echo.1));
        }
        loop {
            if let Some((id, bytes)) = self.stream.next_kept()? {
                self.sent += bytes.len() as u64;
                if let Some(echoes) = &mut self.echoes {
                    echoes.push_back((id, bytes.clone()));
                    echoes.push_back((ContentId::of(b"nobody"), Bytes::from_static(b"nobody")));
                }
                return Ok(Event::Chunk(id, bytes));
            }
            if let Some(piece) = self.pieces.pop_front() {
                self.stream.push(piece)?;
                continue;
            }
            if let Some(id) = self.missing.pop_front() {
                return Ok(Event::Missing(id));
            }
            assert!(!self.answering.is_idle(), "it waits for what it did not ask for");
            self.pack()?;
        }
    }

    fn gate(&mut self) -> Result<(), Refusal> {
        self.gates += 1;
        let gates = self.gates;
        self.at_gate.as_mut().map_or(Ok(()), |gate| gate(gates))
    }

    fn progress(&mut self, progress: Progress) {
        self.told.push(progress);
    }
}

/// A folder of its own.
pub(crate) struct Folder {
    pub(crate) dir: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    /// With these files.
    pub(crate) fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = Self::new();
        files.iter().for_each(|(path, content)| folder.write(path, content));
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn at(&self, rel: &str) -> std::path::PathBuf {
        self.path().join(rel)
    }

    pub(crate) fn write(&self, rel: &str, content: impl AsRef<[u8]>) {
        let path = self.at(rel);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub(crate) fn read(&self, rel: &str) -> Vec<u8> {
        fs::read(self.at(rel)).expect("it is there")
    }

    pub(crate) fn mode(&self, rel: &str) -> u32 {
        fs::symlink_metadata(self.at(rel)).expect("it is there").mode() & 0o7777
    }

    pub(crate) fn set_mode(&self, rel: &str, mode: u32) {
        fs::set_permissions(self.at(rel), Permissions::from_mode(mode)).expect("set");
    }

    pub(crate) fn tree(&self) -> Made {
        made(self.path())
    }

    /// Whether nothing is left of transfers.
    pub(crate) fn is_clean(&self) -> bool {
        match fs::read_dir(self.at(".cortex/staging")) {
            Ok(mut left) => left.next().is_none(),
            Err(_) => true,
        }
    }

    /// Paths of all that lies in it, but what is ours.
    pub(crate) fn paths(&self) -> Vec<String> {
        fn below(path: &Path, rel: &str, paths: &mut Vec<String>) {
            for entry in fs::read_dir(path).expect("a folder") {
                let entry = entry.expect("read");
                let name = format!("{rel}{}", entry.file_name().to_string_lossy());
                if name == ".cortex" {
                    continue;
                }
                if entry.file_type().expect("a kind").is_dir() {
                    below(&entry.path(), &format!("{name}/"), paths);
                }
                paths.push(name);
            }
        }
        let mut paths = Vec::new();
        below(self.path(), "", &mut paths);
        paths.sort();
        paths
    }
}

pub(crate) fn ask(target: &Made, mode: Mode) -> Ask {
    Ask {
        target: target.root(),
        base: None,
        only: None,
        mode,
        limits: DeleteLimits { files: 1_000_000, percent: 100, percent_from: 1_000_000 },
        names: NameRules::default(),
        node_name: "n1".to_owned(),
        revision: Revision(7),
        accepted: None,
        quota: TreeQuota { entries: 5_000_000, bytes: 1 << 40, depth: 512 },
        state: RootState::Dir,
        dry_run: false,
    }
}

/// Receives into a folder as it is scanned here.
pub(crate) fn run(
    folder: &Folder,
    local: &Made,
    ask: &Ask,
    shop: &mut Shop<'_>,
    seam: &dyn Seam,
) -> Result<Applied, Refusal> {
    run_in(folder.path(), local, ask, shop, seam)
}

/// The same into any folder.
pub(crate) fn run_in(
    folder: &Path,
    local: &Made,
    ask: &Ask,
    shop: &mut Shop<'_>,
    seam: &dyn Seam,
) -> Result<Applied, Refusal> {
    let root = Root::open(folder).expect("it is there");
    let root = root.dir(&RelPath::root(), Follow::Never).expect("a folder");
    let ground = Ground {
        root: &root,
        scanned: &local.scanned,
        known: &|_, _| false,
        excluded: &|_, _| false,
        kept: &Objects::default(),
        undone: &[],
    };
    apply(&ground, ask, shop, seam, &mut Objects::default())
}

/// Pushes one folder into another, without anybody else.
pub(crate) fn push(from: &Folder, to: &Folder, mode: Mode, base: Option<&Made>) -> Applied {
    let target = from.tree();
    let mut shop = Shop::of(&[&target]);
    if let Some(base) = base {
        shop = Shop::of(&[&target, base]);
    }
    let ask = Ask { base: base.map(Made::root), ..ask(&target, mode) };
    run(to, &to.tree(), &ask, &mut shop, &Plain).expect("received")
}

/// Does something at one moment, the n-th time that it comes, and counts moments.
pub(crate) struct At<'a> {
    pub(crate) at: Option<Moment>,
    pub(crate) nth: u32,
    pub(crate) seen: RefCell<u32>,
    pub(crate) act: RefCell<Box<dyn FnMut() + 'a>>,
    pub(crate) may_exchange: bool,
}

impl<'a> At<'a> {
    /// `None` is any moment.
    pub(crate) fn new(at: Option<Moment>, nth: u32, act: impl FnMut() + 'a) -> Self {
        Self { at, nth, seen: RefCell::new(0), act: RefCell::new(Box::new(act)), may_exchange: true }
    }
}

impl Seam for At<'_> {
    fn pass(&self, moment: Moment) {
        if self.at.is_some_and(|at| at != moment) {
            return;
        }
        let seen = {
            let mut seen = self.seen.borrow_mut();
            *seen += 1;
            *seen
        };
        if seen == self.nth {
            (self.act.borrow_mut())();
        }
    }

    fn may_exchange(&self) -> bool {
        self.may_exchange
    }
}

/// Ends a try at a moment as a kill does.
pub(crate) struct Killed {
    pub(crate) at: Moment,
}

impl Seam for Killed {
    fn pass(&self, moment: Moment) {
        if moment == self.at {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }
}

/// So many bytes in which nothing repeats.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
