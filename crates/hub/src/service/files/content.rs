//! Content that travels on a stream: of a write from its caller to the clerk, of a read the other way. At
//! no moment is more of it here than a few pieces: the slower end holds the other back.

use std::pin::pin;

use bytes::Bytes;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::{FileEnd, FileOutcome};
use cortex_core::files::op::{Content, FileOp};
use cortex_core::limits::{CARRY_DATA_BYTES_MAX, FILE_BODY_BYTES_MAX};
use cortex_core::transfer::{Carry, DataEnd};
use cortex_core::{Code, Refusal};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use super::tally::Counted;
use crate::mesh::Waiting;
use crate::transfer::{Opening, Sending, TransferStream};

/// Content as its caller sends it. A piece that is refused is its end, and the write's.
pub type Body = BoxStream<'static, Result<Bytes, Refusal>>;

/// Content of a read. Dropped, the read is over.
#[derive(Debug)]
pub struct Download {
    source: Source,
    _counted: Counted,
}

/// Whose it is.
#[derive(Debug)]
enum Source {
    /// The node's, with the bytes so far.
    Node(TransferStream, u64),
    /// The hub's own copy.
    Copy(mpsc::Receiver<Result<Bytes, Refusal>>),
}

impl Download {
    pub(super) const fn new(stream: TransferStream, counted: Counted) -> Self {
        Self { source: Source::Node(stream, 0), _counted: counted }
    }

    pub(super) const fn copied(pieces: mpsc::Receiver<Result<Bytes, Refusal>>, counted: Counted) -> Self {
        Self { source: Source::Copy(pieces), _counted: counted }
    }

    /// The next piece; `None` when all has come.
    ///
    /// # Errors
    /// `conflict` when the file changed while it was read; `node_offline`, `timeout`.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let (stream, len) = match &mut self.source {
            Source::Node(stream, len) => (stream, len),
            Source::Copy(pieces) => return pieces.recv().await.transpose(),
        };
        loop {
            match stream.receiving.recv().await? {
                Some(Carry::Data(bytes)) => {
                    *len += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Carry::DataEnd(end)) if end.len == *len => return Ok(None),
                Some(Carry::Refused(refusal)) => return Err(refusal),
                Some(Carry::Progress(_)) => {}
                Some(
                    Carry::DataEnd(_)
                    | Carry::Tree(_)
                    | Carry::Held(_)
                    | Carry::Wants(_)
                    | Carry::Pack(_)
                    | Carry::Missing(_)
                    | Carry::End(_),
                ) => return Err(Refusal::new(Code::Internal, "The node sent something else than the file.")),
                None => {
                    return Err(Refusal::new(Code::NodeOffline, "The content of the file broke off."));
                }
            }
        }
    }
}

/// Waits for the answer, while content goes where it belongs. With the stream of a read whose content is
/// still to come.
pub(super) async fn answered(
    waiting: Waiting,
    opening: Option<Opening>,
    body: Option<Body>,
) -> (Result<FileAnswer, Refusal>, Option<TransferStream>) {
    match (opening, body) {
        (Some(opening), Some(body)) => {
            let answer = tokio::select! {
                answer = waiting.answer() => answer,
                never = send(opening, body) => match never {},
            };
            (answer, None)
        }
        (Some(opening), None) => match waiting.answer().await {
            Ok(answer @ FileAnswer::Streaming { .. }) => match opening.stream().await {
                Ok(stream) => (Ok(answer), Some(stream)),
                Err(refusal) => (Err(refusal), None),
            },
            answer => (answer, None),
        },
        (None, _) => (waiting.answer().await, None),
    }
}

/// Sends a body. Goes on for ever: the stream is held until the answer is there, whichever way the content
/// ended.
async fn send(opening: Opening, body: Body) -> std::convert::Infallible {
    // A node that opens none says so in its answer.
    if let Ok(stream) = opening.stream().await {
        if let Err(refusal) = pump(&stream.sending, body).await {
            stream.sending.refuse(refusal).await;
        }
        std::future::pending::<()>().await;
    }
    std::future::pending().await
}

async fn pump(sending: &Sending, body: Body) -> Result<(), Refusal> {
    let mut body = pin!(body);
    let mut len = 0;
    while let Some(piece) = body.next().await {
        let mut piece = piece?;
        len += piece.len() as u64;
        if len > FILE_BODY_BYTES_MAX {
            return Err(too_long());
        }
        while !piece.is_empty() {
            let part = piece.split_to(piece.len().min(CARRY_DATA_BYTES_MAX));
            sending.send(Carry::Data(part)).await?;
        }
    }
    sending.send(Carry::DataEnd(DataEnd { len, id: None })).await
}

/// Content that is more than one file is written with.
pub(crate) fn too_long() -> Refusal {
    let message =
        format!("The content is longer than {FILE_BODY_BYTES_MAX} bytes, the most that one write takes.");
    Refusal::new(Code::TooLarge, message)
        .hint("Send it with `cortex push`, or write its parts one after the other: the first anew, the others appended.")
}

/// Whether a repeat with this body is the write that was done: its content was not named when it was asked
/// for, so its hash says it.
///
/// # Errors
/// `conflict` when it is other content, and what the body's end is.
pub(super) async fn check_repeat(op: &FileOp, end: &FileEnd, body: Option<Body>) -> Result<(), Refusal> {
    let unnamed = matches!(op, FileOp::Write { content: Content::Streamed { id: None, .. }, .. });
    let (Some(mut body), Ok(FileOutcome::Written { etag, bytes, .. })) = (body.filter(|_| unnamed), end)
    else {
        return Ok(());
    };
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = body.next().await {
        hasher.update(&piece?);
        if hasher.count() > FILE_BODY_BYTES_MAX {
            return Err(too_long());
        }
    }
    // Of what was appended nobody knows the hash of the part alone.
    let appended = matches!(op, FileOp::Write { how: cortex_core::files::op::WriteHow::Append, .. });
    if appended && hasher.count() <= *bytes || ContentId::new(hasher.finalize().into()) == *etag {
        return Ok(());
    }
    Err(Refusal::new(Code::Conflict, "The idempotency key was used for a write of other content.")
        .hint("Choose another key for another operation; a repeat must be the same in everything."))
}
