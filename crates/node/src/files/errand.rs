//! One operation from the node's side: a clerk is told what to do, asks before it shows others anything,
//! and answers. Never here: whether the operation is allowed, journals, links.

use std::io;

use cortex_core::files::answer::FileAnswer;
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::unknown_outcome;
use cortex_core::id::OpId;
use cortex_core::{Code, Refusal};
use cortex_wire::convert::files::pipe;

use super::clerk::Job;
use super::clerks::Hired;
use super::frame::{Frame, Kind};

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
pub(crate) async fn perform<G>(clerk: &mut Hired, job: &Job, may_go_on: G) -> Done
where
    G: AsyncFnOnce(Option<ContentId>) -> Result<(), Refusal>,
{
    let mut may_be_done = false;
    match converse(clerk, job, may_go_on, &mut may_be_done).await {
        Ok(answer) => Done::Answered(answer),
        Err(error) => Done::Lost { may_be_done, why: error.to_string() },
    }
}

async fn converse<G>(
    clerk: &mut Hired,
    job: &Job,
    may_go_on: G,
    may_be_done: &mut bool,
) -> io::Result<Result<FileAnswer, Refusal>>
where
    G: AsyncFnOnce(Option<ContentId>) -> Result<(), Refusal>,
{
    clerk.tell(&Frame::new(job.kind(), job.to_body())).await?;
    let mut frame = clerk.hear().await?;
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
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it said what makes no sense"));
    }
    pipe::answer_from_bytes(job.id, &frame.body).map_err(|refusal| io::Error::other(refusal.message))
}
