//! A hub in memory that has trees, and the line of a clerk to it.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use cortex_content::asking::Answering;
use cortex_content::pack::PackWriter;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::FilePath;
use cortex_core::id::{Revision, TransferId};
use cortex_core::limits::{CARRY_DATA_BYTES_MAX, WANTS_MAX, WANTS_OPEN_BYTES_MAX};
use cortex_core::policy::Reach;
use cortex_core::sandbox::Access;
use cortex_core::sync::{DeleteLimits, Mode, Push};
use cortex_core::transfer::{
    ApplyAsk, Carry, Filters, PathNote, Progress, SendAsk, TransferEnd, TransferWork, TreeTold,
};
use cortex_core::{Code, Refusal};
use cortex_wire::convert::transfer::{carry_from_bytes, carry_to_bytes};

use super::super::super::support::{Scene, rel};
use super::super::{Line, TransferJob, serve};
use crate::local::{LocalAsk, LocalFolder, LocalHeard, LocalPeer, LocalSpec, LocalTree};

/// Frames on their way in one direction: more than the clerk says while nobody listens.
const FRAMES: usize = 4_096;

pub(super) const FIRST: Push = Push { first: true, force: false, delete: false };

pub(super) fn tree(path: &Path) -> LocalTree {
    LocalTree::open(path, &LocalSpec { vcs: true, ..LocalSpec::default() }, None, None).expect("a tree")
}

pub(super) fn root(path: &Path) -> TreeId {
    tree(path).root()
}

/// Into the folder `dest` below the root of a scene.
pub(super) fn ask(dest: &str, target: TreeId, push: Push) -> ApplyAsk {
    ApplyAsk {
        dest: FilePath::parse(&format!("/w/{dest}")).expect("a path"),
        target,
        base: None,
        only: None,
        mode: Mode::Push(push),
        limits: DeleteLimits::default(),
        accepted: None,
        filters: Filters { vcs: true, ignore_files: false, ..Filters::default() },
        checksum: false,
        dry_run: false,
        read_only: false,
        node_name: "n1".to_owned(),
        revision: Revision(1),
        identity: None,
    }
}

pub(super) fn send_ask(source: &str) -> SendAsk {
    SendAsk {
        source: FilePath::parse(&format!("/w/{source}")).expect("a path"),
        only: None,
        base: None,
        filters: Filters { vcs: true, ignore_files: false, ..Filters::default() },
        checksum: false,
        mark: false,
        identity: None,
    }
}

/// The clerk's end.
struct Wire<'a> {
    to: SyncSender<Carry>,
    from: Receiver<Carry>,
    opened: u32,
    gates: u32,
    at_gate: &'a mut dyn FnMut(u32) -> Result<(), Refusal>,
}

impl Line for Wire<'_> {
    fn open(&mut self) -> io::Result<Result<(), Refusal>> {
        self.opened += 1;
        Ok(Ok(()))
    }

    fn send(&mut self, carry: Carry) -> io::Result<()> {
        assert_eq!(self.opened, 1, "nothing is said before the stream is open, which is opened once");
        // As it goes over the wire, with its bounds.
        let again = carry_from_bytes(carry_to_bytes(carry)).expect("a frame").expect("a known one");
        let _heard = self.to.send(again);
        Ok(())
    }

    fn recv(&mut self) -> io::Result<Result<Option<Carry>, Refusal>> {
        match self.from.recv() {
            Ok(carry) => Ok(carry_from_bytes(carry_to_bytes(carry))),
            Err(_closed) => Ok(Ok(None)),
        }
    }

    fn gate(&mut self) -> io::Result<Result<(), Refusal>> {
        self.gates += 1;
        Ok((self.at_gate)(self.gates))
    }
}

/// What the hub has, and how it behaves.
pub(super) struct Hub<'a> {
    pub(super) trees: Vec<LocalTree>,
    /// It closes the stream after so many bytes of packs.
    pub(super) cut_after: Option<usize>,
    /// Done to each pack.
    pub(super) spoil: Option<fn(Vec<u8>) -> Vec<u8>>,
    /// What it claims not to have.
    pub(super) lost: Vec<ContentId>,
    pub(super) at_gate: Box<dyn FnMut(u32) -> Result<(), Refusal> + 'a>,
}

impl Hub<'_> {
    pub(super) fn of(trees: Vec<LocalTree>) -> Self {
        Self { trees, cut_after: None, spoil: None, lost: Vec::new(), at_gate: Box::new(|_| Ok(())) }
    }
}

/// What came of a transfer, and what was said for it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) end: Result<TransferEnd, Refusal>,
    pub(super) is_open: bool,
    pub(super) gates: u32,
    pub(super) asked: Vec<ContentId>,
    pub(super) packed: usize,
    /// Plain bytes that were asked for.
    pub(super) plain: u64,
    pub(super) told: Vec<Progress>,
}

impl Done {
    pub(super) fn end(&self) -> &TransferEnd {
        self.end.as_ref().expect("it ended well")
    }

    pub(super) fn code(&self) -> Code {
        self.end.as_ref().expect_err("refused").code
    }
}

/// Lets a node below the scene's root do an APPLY.
pub(super) fn apply(scene: &Scene, ask: ApplyAsk, hub: &mut Hub<'_>) -> Done {
    let dest = ask.dest.as_str().strip_prefix("/w/").expect("below").to_owned();
    let job = job(TransferWork::Apply(Box::new(ask)), &dest);
    let ((to_hub, for_hub), (to_clerk, for_clerk)) = (sync_channel(FRAMES), sync_channel(FRAMES));
    let Hub { trees, cut_after, spoil, lost, at_gate } = hub;
    let mut wire = Wire { to: to_hub, from: for_clerk, opened: 0, gates: 0, at_gate };
    std::thread::scope(|scope| {
        let answers = scope.spawn(move || answer(trees, lost, *cut_after, *spoil, for_hub, to_clerk));
        let end = serve(&mut wire, &scene.root, &job).expect("the node is there");
        let (is_open, gates) = (wire.opened > 0, wire.gates);
        drop(wire);
        let answered = answers.join().expect("the hub");
        let (asked, packed, plain, told) = answered;
        Done { end: end.map(|end| end.expect("an end")), is_open, gates, asked, packed, plain, told }
    })
}

fn job(work: TransferWork, at: &str) -> TransferJob {
    let reach = Reach { root: "/w".to_owned(), rest: rel(at), access: Access::Write };
    let job = TransferJob { id: TransferId::mint(1, &[7; 10]), work, reach };
    TransferJob::from_frame(&job.to_frame()).expect("as a clerk is given it")
}

type Answered = (Vec<ContentId>, usize, u64, Vec<Progress>);

fn answer(
    trees: &mut [LocalTree],
    lost: &[ContentId],
    cut_after: Option<usize>,
    spoil: Option<fn(Vec<u8>) -> Vec<u8>>,
    from: Receiver<Carry>,
    to: SyncSender<Carry>,
) -> Answered {
    let (mut asked, mut packed, mut plain, mut told) = (Vec::new(), 0, 0_u64, Vec::new());
    let (mut answering, mut writer) = (Answering::new(), PackWriter::new(1));
    let mut to = Some(to);
    let mut wanted: u64 = 0;
    while let Ok(carry) = from.recv() {
        match carry.clone() {
            Carry::Wants(ids) => {
                assert!((1..=WANTS_MAX).contains(&ids.len()));
                asked.extend(&ids);
                answering.want(&ids).expect("within the window");
                let len_of = |id: &ContentId| trees.iter().find_map(|tree| tree.len_of(id));
                wanted +=
                    ids.iter().filter(|id| !lost.contains(id)).filter_map(len_of).map(u64::from).sum::<u64>();
            }
            Carry::Progress(progress) => told.push(progress),
            Carry::Tree(_)
            | Carry::Held(_)
            | Carry::Pack(_)
            | Carry::Missing(_)
            | Carry::End(_)
            | Carry::Refused(_)
            | Carry::Data(_)
            | Carry::DataEnd(_) => panic!("{carry:?}"),
        }
        assert!(wanted - plain <= WANTS_OPEN_BYTES_MAX + 4 * 1024 * 1024, "{wanted} bytes, {plain} came");
        while !answering.is_idle() {
            let len_of =
                |id: &ContentId| trees.iter().filter(|_| !lost.contains(id)).find_map(|tree| tree.len_of(id));
            let batch = answering.next(len_of).expect("lengths");
            for id in &batch.give {
                let bytes = trees.iter_mut().find_map(|tree| tree.read(id).expect("readable"));
                let bytes = bytes.expect("it has it");
                plain += bytes.len() as u64;
                let _added = writer.add(*id, &bytes);
            }
            if let Some(pack) = writer.finish() {
                let mut bytes = [pack.head.to_bytes(), pack.tail].concat();
                if let Some(spoil) = spoil {
                    bytes = spoil(bytes);
                }
                for piece in bytes.chunks(CARRY_DATA_BYTES_MAX) {
                    packed += piece.len();
                    if cut_after.is_some_and(|after| packed > after) {
                        to = None;
                    }
                    if let Some(to) = &to {
                        let _heard = to.send(Carry::Pack(Bytes::copy_from_slice(piece)));
                    }
                }
            }
            if let (Some(to), false) = (&to, batch.missing.is_empty()) {
                let _heard = to.send(Carry::Missing(batch.missing));
            }
        }
    }
    (asked, packed, plain, told)
}

/// What a hub was told by a SEND.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) tree: Option<TreeTold>,
    pub(super) held: Vec<PathNote>,
    pub(super) received: Option<Result<TransferEnd, Refusal>>,
    pub(super) refused: Option<Refusal>,
}

/// Takes what a node sends into a folder of this machine; `before` is done when the tree is known.
pub(super) fn send(scene: &Scene, ask: SendAsk, into: &Path, before: impl FnOnce() + Send) -> Taken {
    let source = ask.source.as_str().strip_prefix("/w/").expect("below").to_owned();
    let job = job(TransferWork::Send(Box::new(ask)), &source);
    let ((to_hub, for_hub), (to_clerk, for_clerk)) = (sync_channel(FRAMES), sync_channel(FRAMES));
    let mut may = |_| Ok(());
    std::thread::scope(|scope| {
        let taking = scope.spawn(move || {
            let mut taken = Taken { tree: None, held: Vec::new(), received: None, refused: None };
            let told = loop {
                match for_hub.recv() {
                    Ok(Carry::Progress(_)) => {}
                    Ok(Carry::Tree(tree)) => break tree,
                    Ok(other) => panic!("{other:?}"),
                    Err(_closed) => return taken,
                }
            };
            taken.tree = Some(told);
            before();
            let local = LocalFolder::at(into).expect("a folder");
            let ask = LocalAsk {
                target: told.root,
                only: None,
                push: FIRST,
                limits: DeleteLimits::default(),
                accepted: None,
                spec: LocalSpec { vcs: true, ..LocalSpec::default() },
                dry_run: false,
            };
            let mut peer = FromNode { to: to_clerk, from: for_hub, held: Vec::new() };
            let received = local.receive(&ask, &mut peer);
            if let Ok(end) = &received {
                let _heard = peer.to.send(Carry::End(Box::new(end.clone())));
            }
            // What was said while nobody listened.
            drop(peer.to);
            while let Ok(carry) = peer.from.recv() {
                if let Carry::Held(notes) = carry {
                    peer.held.extend(notes);
                }
            }
            taken.held = peer.held;
            taken.received = Some(received);
            taken
        });
        let mut wire = Wire { to: to_hub, from: for_clerk, opened: 0, gates: 0, at_gate: &mut may };
        let end = serve(&mut wire, &scene.root, &job).expect("the node is there");
        drop(wire);
        let mut taken = taking.join().expect("the hub");
        match end {
            Ok(end) => assert!(end.is_none(), "the hub knows how it ended"),
            Err(refusal) => taken.refused = Some(refusal),
        }
        taken
    })
}

struct FromNode {
    to: SyncSender<Carry>,
    from: Receiver<Carry>,
    held: Vec<PathNote>,
}

impl LocalPeer for FromNode {
    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        let _heard = self.to.send(Carry::Wants(ids.to_vec()));
        Ok(())
    }

    fn next(&mut self) -> Result<LocalHeard, Refusal> {
        loop {
            match self.from.recv() {
                Ok(Carry::Pack(piece)) => return Ok(LocalHeard::Pack(piece)),
                Ok(Carry::Missing(ids)) => return Ok(LocalHeard::Missing(ids)),
                Ok(Carry::Held(notes)) => self.held.extend(notes),
                Ok(Carry::Progress(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(_closed) => return Err(Refusal::new(Code::NodeOffline, "It went away.")),
            }
        }
    }

    fn progress(&mut self, _progress: Progress) {}
}

/// A folder beside the scene's root, as the source of pushes.
pub(super) struct Source(tempfile::TempDir);

impl Source {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn write(&self, rel: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(rel);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, content).expect("written");
    }

    pub(super) fn remove(&self, rel: &str) {
        std::fs::remove_file(self.0.path().join(rel)).expect("removed");
    }
}

/// So many bytes in which nothing repeats.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
