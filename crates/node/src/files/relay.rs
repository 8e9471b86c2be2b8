//! A transfer from the node's side: what a clerk and the hub say to each other goes from one to the other,
//! in both directions at once, and the clerk asks before it changes what others see. Never here: what they
//! say.

use std::io;

use cortex_core::transfer::TransferNews;
use cortex_core::{Code, Refusal};
use cortex_wire::convert::transfer::news_from_bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::clerks::Hired;
use super::errand::{Way, pass, to_clerk, until_end};
use super::frame::{Frame, Kind};
use super::transfer::{TransferJob, no};
use crate::bulk::Stream;

/// Asks whether the next changes of a transfer may be seen.
pub(crate) type MayChange = dyn Fn() -> BoxFuture<'static, Result<(), Refusal>> + Send + Sync;

/// Lets the clerk do a transfer. Before each batch of changes `may_change` is asked. What is to be told of
/// it; `None` when that was said on its stream. When this is dropped, or fails, the clerk is of no further
/// use.
///
/// # Errors
/// The clerk went away, or said what makes no sense; the hub went away.
pub(crate) async fn transfer(
    clerk: &mut Hired,
    job: &TransferJob,
    way: &Way,
    may_change: &MayChange,
) -> io::Result<Option<TransferNews>> {
    clerk.tell(&job.to_frame()).await?;
    loop {
        let frame = clerk.hear().await?;
        match frame.kind {
            Kind::Transfer => return news(job, &frame).map(Some),
            Kind::Gate => clerk.tell(&word(may_change().await)).await?,
            Kind::Open => match way.open().await {
                Ok(stream) => {
                    clerk.tell(&Frame::new(Kind::Open, Vec::new())).await?;
                    return relay(clerk, job, stream, way, may_change).await;
                }
                Err(refusal) => clerk.tell(&no(refusal)).await?,
            },
            Kind::Operation
            | Kind::Recovery
            | Kind::Prepared
            | Kind::Commit
            | Kind::Abort
            | Kind::Stream
            | Kind::StreamEnd
            | Kind::Go
            | Kind::Watch
            | Kind::Unwatch => return Err(senseless()),
        }
    }
}

async fn relay(
    clerk: &mut Hired,
    job: &TransferJob,
    stream: Stream,
    way: &Way,
    may_change: &MayChange,
) -> io::Result<Option<TransferNews>> {
    let Stream { out, mut inbound } = stream;
    let (jobs, replies) = clerk.pipes()?;
    // The node's own words go to the clerk between two frames of the hub, by the one who writes these.
    let (say, mut words) = mpsc::channel(1);
    let up = async {
        loop {
            let frame = Frame::receive_from(replies).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match frame.kind {
                Kind::Stream => out.send(frame.body).await.map_err(|_| io::ErrorKind::ConnectionAborted)?,
                Kind::Gate => {
                    let word = word(may_change().await);
                    say.send(word).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                }
                Kind::Transfer if frame.body.is_empty() => return Ok(None),
                Kind::Transfer => return news(job, &frame).map(Some),
                Kind::Operation
                | Kind::Recovery
                | Kind::Prepared
                | Kind::Commit
                | Kind::Abort
                | Kind::Open
                | Kind::StreamEnd
                | Kind::Go
                | Kind::Watch
                | Kind::Unwatch => return Err(senseless()),
            }
        }
    };
    let down = async {
        let mut is_over = false;
        loop {
            let frames = tokio::select! {
                biased;
                Some(word) = words.recv() => vec![word],
                next = inbound.next(), if !is_over => {
                    is_over = !matches!(next, Ok(Some(_)));
                    to_clerk(next)
                }
            };
            for frame in frames {
                pass(jobs, &frame).await?;
            }
        }
    };
    let gone = || io::Error::new(io::ErrorKind::ConnectionAborted, "the link is gone");
    let done: io::Result<Option<TransferNews>> = tokio::select! {
        done = up => done,
        failed = down => failed,
        () = way.link_gone.cancelled() => Err(gone()),
    };
    // What the hub sent meanwhile may lie in its pipe, as half a frame even.
    clerk.spoil();
    let news = done?;
    drop(out);
    way.link_gone.run_until_cancelled(until_end(&mut inbound)).await;
    Ok(news)
}

fn word(may: Result<(), Refusal>) -> Frame {
    may.map_or_else(no, |()| Frame::new(Kind::Go, Vec::new()))
}

fn news(job: &TransferJob, frame: &Frame) -> io::Result<TransferNews> {
    news_from_bytes(job.id, &frame.body).map_err(|refusal| io::Error::other(refusal.message))
}

fn senseless() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it said what makes no sense")
}

/// For a transfer whose clerk went away.
pub(crate) fn lost(error: &io::Error) -> Refusal {
    Refusal::new(Code::Internal, format!("The process that worked on the transfer ended ({error})."))
        .hint("Ask for it again: what is there is not moved again.")
}
