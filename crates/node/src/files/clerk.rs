//! The life of a clerk: a process in the room of a policy that works on files for the node, and never
//! executes. It is a fork of the room's nursery, behind all that holds for a run there: the same user,
//! mounts, Landlock (without any right to execute) and filter. What it is asked was judged by the node;
//! what it can do is bounded by its walls all the same.
//!
//! It does one operation after the other and ends when its pipe does. Never here: policies, the hub, a
//! thread, anything that lives longer than one operation.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::FromRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cortex_core::files::answer::FileAnswer;
use cortex_core::files::content::ContentId;
use cortex_core::files::op::FileOp;
use cortex_core::files::path::RelPath;
use cortex_core::id::OpId;
use cortex_core::name::printable;
use cortex_core::policy::Reach;
use cortex_core::sandbox::Access;
use cortex_core::{Code, Refusal, limits};
use cortex_wire::convert::files::pipe;

use super::beneath::Root;
use super::frame::{BODY_BYTES_MAX, Frame, Kind};
use super::op::{self, Begun};
use super::place::{Place, Work};
use super::seam::Plain;
use super::sweep::{Known, sweep};
use crate::run::bytes::{Reader, Writer};
use crate::sandbox::walls::{FileId, Room};

/// The status of a clerk that has a defect.
pub(crate) const PANICKED: i32 = 70;
/// The status of one whose node went away, or said what makes no sense.
const LOST: i32 = 1;

/// The roots that a clerk may be sent to, by the path that the node calls them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Desk {
    /// Each with the file that it has to be; none is known of the root of a machine without walls.
    roots: Vec<(PathBuf, Option<FileId>)>,
}

impl Desk {
    /// Of a room, or of the whole machine.
    pub(crate) fn of(room: Option<&Room>) -> Self {
        let roots = room.map_or_else(
            || vec![(PathBuf::from("/"), None)],
            |room| room.trees.iter().map(|tree| (tree.path.clone(), Some(tree.file))).collect(),
        );
        Self { roots }
    }

    /// Opens what a reach names, when it is the root that the node looked at.
    ///
    /// # Errors
    /// `sandbox_unavailable` for what is no root of this room, or was exchanged for another folder.
    fn open(&self, reach: &Reach) -> Result<Root, Refusal> {
        let gone = |what: &str| {
            let root = printable(&reach.root, 300);
            Refusal::new(Code::SandboxUnavailable, format!("The folder `{root}` of the policy {what}."))
                .hint("Try again: the walls are put up anew around what is there.")
        };
        let known = self.roots.iter().find(|(path, _)| *path == Path::new(&reach.root));
        let (path, id) = known.ok_or_else(|| gone("is not in this room"))?;
        let root = Root::open(path).map_err(|fault| fault.refusal(&reach.root))?;
        match id {
            Some(id) if *id != root.id() => Err(gone("was exchanged for another one")),
            Some(_) | None => Ok(root),
        }
    }
}

/// Both ways between a clerk and its node.
pub(crate) struct Talk<R, W> {
    jobs: BufReader<R>,
    replies: W,
}

impl<R: Read, W: Write> Talk<R, W> {
    pub(crate) fn new(jobs: R, replies: W) -> Self {
        Self { jobs: BufReader::with_capacity(BODY_BYTES_MAX / 4, jobs), replies }
    }

    /// What the node says next; `None` when it is gone.
    pub(crate) fn hear(&mut self) -> io::Result<Option<Frame>> {
        Frame::read_from(&mut self.jobs)
    }

    pub(crate) fn tell(&mut self, kind: Kind, body: impl Into<bytes::Bytes>) -> io::Result<()> {
        Frame::new(kind, body).write_to(&mut self.replies)
    }
}

/// An operation as a clerk is given it: judged, and with where its paths are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) id: OpId,
    pub(crate) op: FileOp,
    /// One for each of its paths, in their order ([`FileOp::paths`]).
    pub(crate) reach: Vec<Reach>,
    /// It is to look for what the operation of this id left, before it tells what is there.
    pub(crate) recovery: Option<Recovery>,
}

/// What is known of an operation that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// What its file was about to hold.
    pub(crate) intended: Option<ContentId>,
    /// Whether the entry was to go.
    pub(crate) removes: bool,
}

impl Job {
    /// The kind of its frame.
    pub(crate) const fn kind(&self) -> Kind {
        if self.recovery.is_some() { Kind::Recovery } else { Kind::Operation }
    }

    /// The body of its frame.
    pub(crate) fn to_body(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text(&pipe::op_to_bytes(self.id, self.op.clone()));
        out.number(self.reach.len());
        for reach in &self.reach {
            out.text(reach.root.as_bytes());
            out.text(reach.rest.as_str().as_bytes());
            out.flag(reach.access == Access::Write);
        }
        if let Some(recovery) = self.recovery {
            out.text(recovery.intended.as_ref().map_or(&[], |etag| etag.as_bytes()));
            out.flag(recovery.removes);
        }
        out.finish().split_off(size_of::<u32>())
    }

    /// Reads it back; `None` for what is none.
    pub(crate) fn from_frame(Frame { kind, body }: &Frame) -> Option<Self> {
        let recovers = match kind {
            Kind::Operation => false,
            Kind::Recovery => true,
            Kind::Prepared | Kind::Commit | Kind::Abort => return None,
        };
        Reader::whole(body, |rest| {
            let (id, op) = pipe::op_from_bytes(rest.text()?.as_bytes()).ok()?;
            let count = rest.number()?;
            (count as usize == op.paths().count()).then_some(())?;
            let reach = (0..count).map(|_| read_reach(rest)).collect::<Option<_>>()?;
            let recovery = if recovers { Some(read_recovery(rest)?) } else { None };
            Some(Self { id, op, reach, recovery })
        })
        .ok()
    }
}

fn read_reach(rest: &mut Reader<'_>) -> Option<Reach> {
    let root = rest.text()?.into_string().ok()?;
    let below = rest.text()?.into_string().ok()?;
    let below = if below.is_empty() { RelPath::root() } else { RelPath::parse(&below).ok()? };
    let access = if rest.flag()? { Access::Write } else { Access::Read };
    Some(Reach { root, rest: below, access })
}

fn read_recovery(rest: &mut Reader<'_>) -> Option<Recovery> {
    let intended = rest.text()?;
    let intended = match intended.as_bytes() {
        [] => None,
        bytes => Some(ContentId::from_slice(bytes)?),
    };
    Some(Recovery { intended, removes: rest.flag()? })
}

/// A clerk's whole life. The process's exit status.
pub(crate) fn live(desk: &Desk) -> i32 {
    #[expect(unsafe_code, reason = "the standard streams have no owner in a clerk but it")]
    // SAFETY: both are open, and nothing else in this process uses them or closes them.
    let (jobs, replies) = unsafe { (File::from_raw_fd(0), File::from_raw_fd(1)) };
    let mut talk = Talk::new(jobs, replies);
    loop {
        let job = match talk.hear() {
            Ok(Some(job)) => job,
            Ok(None) => return 0,
            Err(_) => return LOST,
        };
        let Some(job) = Job::from_frame(&job) else { return LOST };
        if perform(&mut talk, desk, &job).is_err() {
            return LOST;
        }
    }
}

/// Does one operation and answers it. Fails only when the node is gone or makes no sense.
fn perform<R: Read, W: Write>(talk: &mut Talk<R, W>, desk: &Desk, job: &Job) -> io::Result<()> {
    let answer = answer(talk, desk, job)?;
    talk.tell(Kind::Operation, pipe::answer_to_bytes(job.id, answer))
}

fn answer<R: Read, W: Write>(
    talk: &mut Talk<R, W>,
    desk: &Desk,
    job: &Job,
) -> io::Result<Result<FileAnswer, Refusal>> {
    let roots: Result<Vec<Root>, Refusal> = job.reach.iter().map(|reach| desk.open(reach)).collect();
    let roots = match roots {
        Ok(roots) => roots,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // Where it comes from is spoken first, see `FileOp::paths`.
    let mut places = job.op.paths().zip(&job.reach).zip(&roots);
    let mut next = || places.next().map(|(((path, _), reach), root)| Place { root, rel: &reach.rest, path });
    let source = if job.op.source().is_some() { next() } else { None };
    let Some(at) = next() else { return Err(io::ErrorKind::InvalidData.into()) };
    let work = Work { id: job.id, seam: &Plain };
    if let Some(recovery) = job.recovery {
        // What cannot be looked at stays, and what is there says more than why.
        let _swept = clean_up(&work, &at, recovery);
    }
    let change = match op::begin(&work, &job.op, at, source) {
        Err(refusal) => return Ok(Err(refusal)),
        Ok(Begun::Answer(answer)) => return Ok(Ok(answer)),
        Ok(Begun::Reading(..) | Begun::Upload(_)) => return Ok(Err(no_stream())),
        Ok(Begun::Ready(change)) => change,
    };
    let etag = change.intended().map(|(etag, _)| etag.as_bytes().to_vec()).unwrap_or_default();
    talk.tell(Kind::Prepared, etag)?;
    match talk.hear()?.map(|frame| frame.kind) {
        Some(Kind::Commit) => Ok(change.commit(&work)),
        Some(Kind::Abort) => {
            drop(change);
            Ok(Err(Refusal::new(Code::Conflict, "It was given up before it was done.")))
        }
        Some(Kind::Operation | Kind::Recovery | Kind::Prepared) | None => {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

fn clean_up(work: &Work<'_>, at: &Place<'_>, recovery: Recovery) -> Result<(), Refusal> {
    let (folder, name) = at.parent()?;
    let Recovery { intended, removes } = recovery;
    let known = Known { name, intended, expected: None, removes };
    sweep(work, &folder, &known).map(drop).map_err(|fault| at.refusal(fault))
}

fn no_stream() -> Refusal {
    let max = limits::FILE_INLINE_BYTES_MAX;
    Refusal::new(
        Code::TooLarge,
        format!("Content travels within one message here; the bound is {max} bytes."),
    )
    .hint("Read it in ranges, or append it in pieces.")
}
