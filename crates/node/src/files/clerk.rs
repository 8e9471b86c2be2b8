//! The life of a clerk: a process in the room of a policy that works on files for the node, and never
//! executes. It is a fork of the room's nursery, behind all that holds for a run there: the same user,
//! mounts, Landlock (without any right to execute) and filter. What it is asked was judged by the node;
//! what it can do is bounded by its walls all the same.
//!
//! It does one operation after the other, or watches folders, and ends when its pipe does. Never here: policies,
//! the hub, anything that lives longer than one operation.

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
use cortex_core::transfer::{Carry, DataEnd};
use cortex_core::{Code, Refusal};
use cortex_wire::convert::files::pipe;
use cortex_wire::convert::transfer::{carry_from_bytes, carry_to_bytes};

use super::beneath::Root;
use super::cat::Reading;
use super::frame::{BODY_BYTES_MAX, Frame, Kind};
use super::op::{self, Begun, Upload};
use super::place::{Place, Work};
use super::priority;
use super::seam::Plain;
use super::sweep::{Known, sweep};
use super::transfer::{self, TransferJob};
use super::watching;
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
    pub(super) fn open(&self, reach: &Reach) -> Result<Root, Refusal> {
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

    /// Whether something that the node said was read and not heard.
    pub(super) fn has_more(&self) -> bool {
        !self.jobs.buffer().is_empty()
    }

    /// What the node says comes on it.
    pub(super) fn jobs(&self) -> &R {
        self.jobs.get_ref()
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
        self.reach.iter().for_each(|reach| write_reach(&mut out, reach));
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
            Kind::Prepared
            | Kind::Commit
            | Kind::Abort
            | Kind::Transfer
            | Kind::Open
            | Kind::Stream
            | Kind::StreamEnd
            | Kind::Gate
            | Kind::Go
            | Kind::Watch
            | Kind::Unwatch => return None,
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

pub(super) fn write_reach(out: &mut Writer, reach: &Reach) {
    out.text(reach.root.as_bytes());
    out.text(reach.rest.as_str().as_bytes());
    out.flag(reach.access == Access::Write);
}

pub(super) fn read_reach(rest: &mut Reader<'_>) -> Option<Reach> {
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
        if job.kind == Kind::Watch {
            return if watching::live(&mut talk, desk, &job).is_ok() { 0 } else { LOST };
        }
        let worked = if let Some(job) = Job::from_frame(&job) {
            perform(&mut talk, desk, &job)
        } else if let Some(job) = TransferJob::from_frame(&job) {
            let root = desk.open(&job.reach);
            priority::giving_way(|| transfer::perform(&mut talk, root, &job))
                .unwrap_or(Err(io::ErrorKind::Other.into()))
        } else {
            return LOST;
        };
        if worked.is_err() {
            return LOST;
        }
    }
}

/// Does one operation and answers it. Fails only when the node is gone or makes no sense.
fn perform<R: Read, W: Write>(talk: &mut Talk<R, W>, desk: &Desk, job: &Job) -> io::Result<()> {
    let roots: Result<Vec<Root>, Refusal> = job.reach.iter().map(|reach| desk.open(reach)).collect();
    let answer = match roots {
        Ok(roots) => match begin(job, &roots)? {
            Err(refusal) => Err(refusal),
            Ok(Begun::Answer(answer)) => Ok(answer),
            Ok(Begun::Reading(answer, reading)) => return pour(talk, job, answer, reading),
            Ok(Begun::Upload(upload)) => match take(talk, *upload, job)? {
                Ok(Begun::Ready(change)) => commit(talk, job, change)?,
                Ok(Begun::Answer(answer)) => Ok(answer),
                // What is complete waits for nothing further.
                Ok(Begun::Reading(..) | Begun::Upload(_)) => return Err(io::ErrorKind::InvalidData.into()),
                Err(refusal) => Err(refusal),
            },
            Ok(Begun::Ready(change)) => commit(talk, job, change)?,
        },
        Err(refusal) => Err(refusal),
    };
    talk.tell(Kind::Operation, pipe::answer_to_bytes(job.id, answer))
}

fn begin<'a>(job: &'a Job, roots: &'a [Root]) -> io::Result<Result<Begun<'a>, Refusal>> {
    // Where it comes from is spoken first, see `FileOp::paths`.
    let mut places = job.op.paths().zip(&job.reach).zip(roots);
    let mut next = || places.next().map(|(((path, _), reach), root)| Place { root, rel: &reach.rest, path });
    let source = if job.op.source().is_some() { next() } else { None };
    let Some(at) = next() else { return Err(io::ErrorKind::InvalidData.into()) };
    let work = Work { id: job.id, seam: &Plain };
    if let Some(recovery) = job.recovery {
        // What cannot be looked at stays, and what is there says more than why.
        let _swept = clean_up(&work, &at, recovery);
    }
    Ok(op::begin(&work, &job.op, at, source))
}

/// Lets a change that is ready take effect when the node says so.
fn commit<R: Read, W: Write>(
    talk: &mut Talk<R, W>,
    job: &Job,
    change: op::Change<'_>,
) -> io::Result<Result<FileAnswer, Refusal>> {
    let work = Work { id: job.id, seam: &Plain };
    let etag = change.intended().map(|(etag, _)| etag.as_bytes().to_vec()).unwrap_or_default();
    talk.tell(Kind::Prepared, etag)?;
    loop {
        match talk.hear()?.map(|frame| frame.kind) {
            Some(Kind::Commit) => return Ok(change.commit(&work)),
            Some(Kind::Abort) => {
                drop(change);
                return Ok(Err(Refusal::new(Code::Conflict, "It was given up before it was done.")));
            }
            // The end of a stream whose content is here.
            Some(Kind::StreamEnd) => {}
            Some(
                Kind::Operation
                | Kind::Recovery
                | Kind::Prepared
                | Kind::Transfer
                | Kind::Open
                | Kind::Stream
                | Kind::Gate
                | Kind::Go
                | Kind::Watch
                | Kind::Unwatch,
            )
            | None => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Answers a read, and sends its content as fast as it is taken.
fn pour<R: Read, W: Write>(
    talk: &mut Talk<R, W>,
    job: &Job,
    answer: FileAnswer,
    mut reading: Reading,
) -> io::Result<()> {
    talk.tell(Kind::Operation, pipe::answer_to_bytes(job.id, Ok(answer)))?;
    let mut len = 0;
    loop {
        let (carry, is_last) = match reading.next() {
            Ok(Some(piece)) => {
                len += piece.len() as u64;
                (Carry::Data(piece), false)
            }
            Ok(None) => (Carry::DataEnd(DataEnd { len, id: None }), true),
            Err(refusal) => (Carry::Refused(refusal), true),
        };
        talk.tell(Kind::Stream, carry_to_bytes(carry))?;
        if is_last {
            return talk.tell(Kind::StreamEnd, Vec::new());
        }
    }
}

/// Takes in the content of a write.
fn take<'a, R: Read, W: Write>(
    talk: &mut Talk<R, W>,
    mut upload: Upload<'a>,
    job: &Job,
) -> io::Result<Result<Begun<'a>, Refusal>> {
    talk.tell(Kind::Open, Vec::new())?;
    loop {
        let Some(frame) = talk.hear()? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let carry = match frame.kind {
            Kind::Stream => carry_from_bytes(frame.body),
            Kind::StreamEnd | Kind::Abort => return Ok(Err(broken_off())),
            Kind::Open => continue,
            Kind::Operation
            | Kind::Recovery
            | Kind::Prepared
            | Kind::Commit
            | Kind::Transfer
            | Kind::Gate
            | Kind::Go
            | Kind::Watch
            | Kind::Unwatch => return Err(io::ErrorKind::InvalidData.into()),
        };
        match carry {
            Ok(Some(Carry::Data(bytes))) => {
                if let Err(refusal) = upload.write(&bytes) {
                    return Ok(Err(refusal));
                }
            }
            Ok(Some(Carry::DataEnd(DataEnd { len, id }))) => {
                upload.told(len, id);
                return Ok(upload.finish(&Work { id: job.id, seam: &Plain }));
            }
            Ok(Some(Carry::Refused(refusal))) | Err(refusal) => return Ok(Err(refusal)),
            // Of a hub of a later version.
            Ok(None) => {}
            Ok(Some(
                Carry::Tree(_)
                | Carry::Held(_)
                | Carry::Wants(_)
                | Carry::Pack(_)
                | Carry::Missing(_)
                | Carry::Progress(_)
                | Carry::End(_),
            )) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn broken_off() -> Refusal {
    Refusal::new(Code::InvalidArgument, "The content broke off before its end; nothing was changed.")
        .hint("Send it again, whole.")
}

fn clean_up(work: &Work<'_>, at: &Place<'_>, recovery: Recovery) -> Result<(), Refusal> {
    let (folder, name) = at.parent()?;
    let Recovery { intended, removes } = recovery;
    let known = Known { name, intended, expected: None, removes };
    sweep(work, &folder, &known).map(drop).map_err(|fault| at.refusal(fault))
}
