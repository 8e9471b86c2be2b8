//! One operation from the node's side: a clerk is told what to do, asks before it shows others anything,
//! and answers. Never here: whether the operation is allowed, journals, links.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cortex_core::files::answer::FileAnswer;
use cortex_core::files::ask::Ticket;
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::unknown_outcome;
use cortex_core::id::{Epoch, OpId};
use cortex_core::transfer::Carry;
use cortex_core::{Code, Refusal};
use cortex_wire::convert::files::pipe;
use cortex_wire::convert::transfer::carry_to_bytes;
use tokio::net::unix::pipe::Sender;
use tokio_util::sync::CancellationToken;

use super::clerk::Job;
use super::clerks::Hired;
use super::frame::{Frame, Kind};
use crate::bulk::{Bulk, Inbound, Out, Stream};

/// How content goes between a clerk and the hub.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) bulk: Arc<Bulk>,
    /// Leave for the stream, and the link by which that came.
    pub(crate) ticket: Ticket,
    pub(crate) epoch: Epoch,
    /// That link is gone, and all that came by it.
    pub(crate) link_gone: CancellationToken,
}

impl Way {
    /// The stream.
    ///
    /// # Errors
    /// As [`Bulk::open`].
    pub(crate) async fn open(&self) -> Result<Stream, Refusal> {
        let opened = self.link_gone.run_until_cancelled(self.bulk.open(self.ticket, self.epoch)).await;
        opened.unwrap_or_else(|| Err(link_gone()))
    }
}

fn link_gone() -> Refusal {
    Refusal::new(Code::HubUnreachable, "The link to the hub ended before the content did.")
}

fn senseless() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it said what makes no sense")
}

/// What came of an errand.
#[derive(Debug)]
pub(crate) enum Done {
    /// The operation's answer.
    Answered(Result<FileAnswer, Refusal>),
    /// The clerk went away, or said what makes no sense, and is to be ended.
    Lost {
        /// Whether the operation may have been done.
        may_be_done: bool,
        /// How it was noticed.
        why: String,
    },
}

impl Done {
    /// For whoever asked, when nobody looks further.
    pub(crate) fn into_answer(self, id: OpId) -> Result<FileAnswer, Refusal> {
        match self {
            Self::Answered(answer) => answer,
            Self::Lost { may_be_done: true, why } => {
                Err(unknown_outcome(id, &format!("the process that did it ended ({why})")))
            }
            Self::Lost { may_be_done: false, why } => {
                let message = format!("The process that was to do operation {id} ended before that ({why}).");
                Err(Refusal::new(Code::Internal, message)
                    .hint("Try again; when it comes back, look into the node's log.")
                    .detail("op", id.to_string()))
            }
        }
    }
}

/// Lets the clerk do it. Before anything of a change is seen, `may_go_on` is asked, with the name of the
/// content that a file will hold when there is one: its refusal is the answer then, and nothing was done.
/// When this is dropped, or ends with [`Done::Lost`], the clerk is of no further use.
///
/// Content of a write comes by `way`. That of a read, when the answer says so, is still to be fetched with
/// [`pour`].
pub(crate) async fn perform<G>(clerk: &mut Hired, job: &Job, way: Option<&Way>, may_go_on: G) -> Done
where
    G: AsyncFnOnce(Option<ContentId>) -> Result<(), Refusal>,
{
    let mut may_be_done = false;
    match converse(clerk, job, way, may_go_on, &mut may_be_done).await {
        Ok(answer) => Done::Answered(answer),
        Err(error) => Done::Lost { may_be_done, why: error.to_string() },
    }
}

async fn converse<G>(
    clerk: &mut Hired,
    job: &Job,
    way: Option<&Way>,
    may_go_on: G,
    may_be_done: &mut bool,
) -> io::Result<Result<FileAnswer, Refusal>>
where
    G: AsyncFnOnce(Option<ContentId>) -> Result<(), Refusal>,
{
    clerk.tell(&Frame::new(job.kind(), job.to_body())).await?;
    let mut frame = clerk.hear().await?;
    // Held until the end: the hub takes its end for the content's.
    let mut stream = None;
    if frame.kind == Kind::Open {
        let opened = match way {
            Some(way) => way.open().await.map(|stream| (stream, way)),
            None => Err(Refusal::new(Code::InvalidArgument, "The content has no stream to come on.")),
        };
        match opened {
            Ok((opened, way)) => {
                let opened = stream.insert(opened);
                frame = feed(clerk, &mut opened.inbound, &way.link_gone).await?;
                // What was refused in the middle, or comes without a commit, leaves frames behind.
                if frame.kind != Kind::Prepared {
                    clerk.spoil();
                }
            }
            Err(refusal) => {
                clerk.tell(&Frame::new(Kind::Abort, Vec::new())).await?;
                answer(job, &clerk.hear().await?)?.ok();
                return Ok(Err(refusal));
            }
        }
    }
    if frame.kind == Kind::Prepared {
        if let Err(refusal) = may_go_on(ContentId::from_slice(&frame.body)).await {
            clerk.tell(&Frame::new(Kind::Abort, Vec::new())).await?;
            answer(job, &clerk.hear().await?)?.ok();
            return Ok(Err(refusal));
        }
        // Told or not, from here on it may be done.
        *may_be_done = true;
        clerk.tell(&Frame::new(Kind::Commit, Vec::new())).await?;
        frame = clerk.hear().await?;
    }
    answer(job, &frame)
}

fn answer(job: &Job, frame: &Frame) -> io::Result<Result<FileAnswer, Refusal>> {
    if frame.kind != Kind::Operation {
        return Err(senseless());
    }
    pipe::answer_from_bytes(job.id, &frame.body).map_err(|refusal| io::Error::other(refusal.message))
}

/// Gives the clerk a frame. One that reads no more may have said all that there is to say before that: what it
/// said is heard first, and that it is gone is heard there as well.
pub(super) async fn pass(jobs: &mut Sender, frame: &Frame) -> io::Result<()> {
    match frame.send_to(jobs).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::future::pending().await,
        written => written,
    }
}

/// Gives the clerk what comes from the hub, until it says something.
async fn feed(clerk: &mut Hired, inbound: &mut Inbound, gone: &CancellationToken) -> io::Result<Frame> {
    let is_writing = AtomicBool::new(false);
    let (jobs, replies) = clerk.pipes()?;
    let fed = async {
        loop {
            let next = gone.run_until_cancelled(inbound.next()).await.unwrap_or_else(|| Err(link_gone()));
            let is_over = !matches!(next, Ok(Some(_)));
            is_writing.store(true, Ordering::Relaxed);
            for frame in to_clerk(next) {
                pass(jobs, &frame).await?;
            }
            is_writing.store(false, Ordering::Relaxed);
            if is_over {
                return std::future::pending::<io::Result<Frame>>().await;
            }
        }
    };
    let said = tokio::select! {
        said = Frame::receive_from(replies) => said?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?,
        failed = fed => failed?,
    };
    // Half a frame lies in its pipe: it would take what comes next for the other half.
    if is_writing.load(Ordering::Relaxed) && said.kind == Kind::Prepared {
        return Err(senseless());
    }
    Ok(said)
}

/// What the hub said, for a clerk.
pub(super) fn to_clerk(next: Result<Option<bytes::Bytes>, Refusal>) -> Vec<Frame> {
    let end = || Frame::new(Kind::StreamEnd, Vec::new());
    match next {
        Ok(Some(frame)) => vec![Frame::new(Kind::Stream, frame)],
        Ok(None) => vec![end()],
        Err(refusal) => vec![Frame::new(Kind::Stream, carry_to_bytes(Carry::Refused(refusal))), end()],
    }
}

/// Sends what a clerk reads to the hub, as fast as that takes it. Whether all of it went; if not, the clerk
/// is to be ended.
pub(crate) async fn pour(
    clerk: &mut Hired,
    out: &Out,
    inbound: &mut Inbound,
    gone: &CancellationToken,
) -> bool {
    let Ok((_, replies)) = clerk.pipes() else { return false };
    let poured = async {
        loop {
            match Frame::receive_from(replies).await {
                Ok(Some(Frame { kind: Kind::Stream, body })) => {
                    if out.send(body).await.is_err() {
                        return false;
                    }
                }
                Ok(Some(Frame { kind: Kind::StreamEnd, .. })) => return true,
                Ok(_) | Err(_) => {
                    let refusal = Refusal::new(Code::Internal, "The process that read the file ended.");
                    let _told = out.refuse(refusal).await;
                    return false;
                }
            }
        }
    };
    tokio::select! {
        all = poured => all,
        // The hub says nothing on it but that it has ended.
        () = until_end(inbound) => false,
        () = gone.cancelled() => false,
    }
}

/// The hub has taken all, or gone away.
pub(crate) async fn until_end(inbound: &mut Inbound) {
    while let Ok(Some(_)) = inbound.next().await {}
}
