//! A transfer from the clerk's side: it works on one folder, and speaks with the hub over a stream that its
//! node holds for it. The node looks into nothing of that; it says whether the next changes may be seen.
//!
//! One thread speaks with the hub. It may write as long as the hub reads, and the hub reads always: what a
//! receiver asks for is bounded ([`limits::WANTS_OPEN_MAX`]), so no answer to it waits for another.

mod end;
mod ground;
mod memory;
mod receive;
mod seal;
mod send;
mod supply;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;

use cortex_core::id::TransferId;
use cortex_core::policy::Reach;
use cortex_core::transfer::{Carry, TransferEnd, TransferNews, TransferWork};
use cortex_core::{Code, Refusal, limits};
use cortex_wire::convert::transfer::{
    carry_from_bytes, carry_to_bytes, news_to_bytes, work_from_bytes, work_to_bytes,
};

use super::beneath::Root;
use super::clerk::{Talk, read_reach, write_reach};
use super::frame::{Frame, Kind};
use super::place::Place;
use super::seam::Plain;
use crate::run::bytes::{Reader, Writer};

pub(in crate::files) use ground::spec;
pub(crate) use receive::receive;
use supply::OnLine;
pub(crate) use supply::{Heard, Supply};

/// A transfer as a clerk is given it: judged, and with where its folder is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransferJob {
    pub(crate) id: TransferId,
    pub(crate) work: TransferWork,
    pub(crate) reach: Reach,
}

impl TransferJob {
    /// The frame that begins it.
    pub(crate) fn to_frame(&self) -> Frame {
        let mut out = Writer::new();
        out.text(self.id.as_bytes());
        out.text(&work_to_bytes(self.work.clone()));
        write_reach(&mut out, &self.reach);
        Frame::new(Kind::Transfer, out.finish().split_off(size_of::<u32>()))
    }

    /// Reads it back; `None` for what is none.
    pub(crate) fn from_frame(Frame { kind, body }: &Frame) -> Option<Self> {
        if *kind != Kind::Transfer {
            return None;
        }
        Reader::whole(body, |rest| {
            let id = TransferId::from_slice(rest.text()?.as_bytes())?;
            let work = work_from_bytes(rest.text()?.as_bytes()).ok()?;
            Some(Self { id, work, reach: read_reach(rest)? })
        })
        .ok()
    }
}

/// What a transfer says and hears. An error of the system means that the node is gone: there is nobody to
/// tell anything.
pub(crate) trait Line {
    /// Has the stream to the hub opened. What is over without it is told without it.
    ///
    /// # Errors
    /// The node's, when there is none.
    fn open(&mut self) -> io::Result<Result<(), Refusal>>;

    /// Says something to the hub; waits while the hub is behind.
    fn send(&mut self, carry: Carry) -> io::Result<()>;

    /// What the hub says next; `None` when it says nothing more. Frames that this build does not know are
    /// passed over.
    ///
    /// # Errors
    /// `invalid_argument` for what is no frame.
    fn recv(&mut self) -> io::Result<Result<Option<Carry>, Refusal>>;

    /// Asks whether the next changes may be seen by others: the transfer is still wanted, its attempt and
    /// its lock still hold. Before each batch of them.
    ///
    /// # Errors
    /// The node's, and then nothing more may be changed.
    fn gate(&mut self) -> io::Result<Result<(), Refusal>>;
}

/// The line of a clerk.
struct Piped<'t, R, W> {
    talk: &'t mut Talk<R, W>,
    is_open: bool,
    /// What came while something else was waited for.
    heard: VecDeque<bytes::Bytes>,
    heard_bytes: u64,
    is_over: bool,
}

impl<R: Read, W: Write> Piped<'_, R, W> {
    fn hear(&mut self) -> io::Result<Frame> {
        self.talk.hear()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Waits for the node's word, and keeps what the hub says meanwhile.
    fn word(&mut self, yes: Kind) -> io::Result<Result<(), Refusal>> {
        loop {
            let frame = self.hear()?;
            match frame.kind {
                kind if kind == yes => return Ok(Ok(())),
                Kind::Abort => return Ok(Err(said(&frame))),
                Kind::Stream => {
                    self.heard_bytes += frame.body.len() as u64;
                    // No more than was asked for comes, with all that frames it.
                    if self.heard_bytes > 2 * limits::WANTS_OPEN_BYTES_MAX {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    self.heard.push_back(frame.body);
                }
                Kind::StreamEnd => self.is_over = true,
                Kind::Operation
                | Kind::Recovery
                | Kind::Prepared
                | Kind::Commit
                | Kind::Transfer
                | Kind::Open
                | Kind::Gate
                | Kind::Go
                | Kind::Watch
                | Kind::Unwatch => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

impl<R: Read, W: Write> Line for Piped<'_, R, W> {
    fn open(&mut self) -> io::Result<Result<(), Refusal>> {
        self.talk.tell(Kind::Open, Vec::new())?;
        let opened = self.word(Kind::Open)?;
        self.is_open = opened.is_ok();
        Ok(opened)
    }

    fn send(&mut self, carry: Carry) -> io::Result<()> {
        self.talk.tell(Kind::Stream, carry_to_bytes(carry))
    }

    fn recv(&mut self) -> io::Result<Result<Option<Carry>, Refusal>> {
        loop {
            let body = match self.heard.pop_front() {
                Some(body) => {
                    self.heard_bytes -= body.len() as u64;
                    body
                }
                None if self.is_over => return Ok(Ok(None)),
                None => {
                    let frame = self.hear()?;
                    match frame.kind {
                        Kind::Stream => frame.body,
                        Kind::StreamEnd => {
                            self.is_over = true;
                            continue;
                        }
                        Kind::Operation
                        | Kind::Recovery
                        | Kind::Prepared
                        | Kind::Commit
                        | Kind::Abort
                        | Kind::Transfer
                        | Kind::Open
                        | Kind::Gate
                        | Kind::Go
                        | Kind::Watch
                        | Kind::Unwatch => return Err(io::ErrorKind::InvalidData.into()),
                    }
                }
            };
            match carry_from_bytes(body) {
                Ok(Some(carry)) => return Ok(Ok(Some(carry))),
                Ok(None) => {}
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
    }

    fn gate(&mut self) -> io::Result<Result<(), Refusal>> {
        self.talk.tell(Kind::Gate, Vec::new())?;
        self.word(Kind::Go)
    }
}

/// The refusal in a frame of the node.
fn said(frame: &Frame) -> Refusal {
    match carry_from_bytes(frame.body.clone()) {
        Ok(Some(Carry::Refused(refusal))) => refusal,
        _ => Refusal::new(Code::Conflict, "The transfer was given up before it was done."),
    }
}

/// A frame of the node that says no.
pub(crate) fn no(refusal: Refusal) -> Frame {
    Frame::new(Kind::Abort, carry_to_bytes(Carry::Refused(refusal)))
}

/// Does one transfer and tells how it ended: on its stream when that was opened, else to the node.
pub(super) fn perform<R: Read, W: Write>(
    talk: &mut Talk<R, W>,
    root: Result<Root, Refusal>,
    job: &TransferJob,
) -> io::Result<()> {
    let mut line = Piped { talk, is_open: false, heard: VecDeque::new(), heard_bytes: 0, is_over: false };
    let end = match root {
        Ok(root) => serve(&mut line, &root, job)?,
        Err(refusal) => Err(refusal),
    };
    let Piped { is_open, talk, .. } = line;
    let end = match end {
        Ok(Some(end)) => Ok(end),
        Ok(None) => return talk.tell(Kind::Transfer, Vec::new()),
        Err(refusal) => Err(refusal),
    };
    if is_open {
        let carry = end.map_or_else(Carry::Refused, |end| Carry::End(Box::new(end)));
        talk.tell(Kind::Stream, carry_to_bytes(carry))?;
        return talk.tell(Kind::Transfer, Vec::new());
    }
    let news = TransferNews { id: job.id, end: end.map(Box::new) };
    talk.tell(Kind::Transfer, news_to_bytes(news))
}

/// The work itself, below an open root. What is to be told of it; `None` when the hub knows already. An error of
/// the system only when the node is gone.
fn serve(
    line: &mut dyn Line,
    root: &Root,
    job: &TransferJob,
) -> io::Result<Result<Option<TransferEnd>, Refusal>> {
    let place = Place { root, rel: &job.reach.rest, path: job.work.path() };
    let mut hub = OnLine::new(line);
    let done = match &job.work {
        TransferWork::Apply(ask) => receive(&place, ask, &mut hub, &Plain).map(Some),
        TransferWork::Send(ask) => send::send(&mut hub, &place, ask).map(|()| None),
    };
    match hub.lost {
        Some(error) => Err(error),
        None => Ok(done),
    }
}
