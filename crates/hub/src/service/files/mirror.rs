//! Reads that are answered from the hub's copy of a folder: under the same rights, policy and audit log as at
//! the node, and said to be what they are.

use std::sync::Arc;

use cortex_core::files::answer::FileAnswer;
use cortex_core::files::op::{FileOp, ReadAs, ReadRange};
use cortex_core::limits::FILE_INLINE_BYTES_MAX;
use cortex_core::{Code, Refusal};
use tokio::sync::mpsc;

use super::accept::{Judged, Written, offline};
use super::content::Download;
use super::tally::Counted;
use super::{FileCall, FileReply, Files, ReadFrom, right};
use crate::service::Caller;
use crate::service::workspaces::Copied;
use crate::transfer::chunks::Chunks;
use crate::transfer::mirror::Reading;

/// An answer, and what of its content is still to come.
type Answered = (FileAnswer, Option<Reading>);

impl Files {
    /// The copy from which this is to be answered; `None` when its node is to be asked.
    ///
    /// # Errors
    /// `not_found` when the copy was asked for and there is none, `invalid_argument` for what none answers.
    pub(super) fn copied(&self, call: &FileCall) -> Result<Option<Copied>, Refusal> {
        let forced = match call.from {
            ReadFrom::Node => return Ok(None),
            ReadFrom::Mirror => true,
            ReadFrom::Any if self.mesh.protocol(call.node.id).is_some() => return Ok(None),
            ReadFrom::Any => false,
        };
        let is_answered = match &call.op {
            FileOp::Read { .. }
            | FileOp::Stat { .. }
            | FileOp::List { .. }
            | FileOp::Find { .. }
            | FileOp::Grep { .. } => true,
            FileOp::Write { .. }
            | FileOp::Edit { .. }
            | FileOp::MakeDir { .. }
            | FileOp::Remove { .. }
            | FileOp::Move { .. }
            | FileOp::Copy { .. } => false,
        };
        if forced && !is_answered {
            let message = "The hub's copy of a folder is read and searched, and never changed.";
            return Err(Refusal::new(Code::InvalidArgument, message).hint("Ask the node itself."));
        }
        let copies = self.workspaces.as_ref().filter(|_| is_answered);
        let copied = copies.and_then(|copies| copies.copied(call.node.id, call.op.path()));
        if forced && copied.is_none() {
            let message = format!("The hub has no copy of `{}` on {}.", call.op.path(), call.node.name);
            return Err(Refusal::new(Code::NotFound, message)
                .hint("Only folders of workspaces have one, once they were in sync. Ask the node itself."));
        }
        Ok(copied)
    }

    pub(super) async fn by_copy(
        &self,
        caller: &Caller,
        call: FileCall,
        copied: Copied,
        counted: Counted,
    ) -> Result<(FileReply, Option<Download>), Refusal> {
        let copies = self.workspaces.as_ref().ok_or_else(|| offline(&call.node))?;
        let (from, node, right) = (call.from, Arc::clone(&call.node), right(&call.op));
        let (op, chunks, spot) = (call.op.clone(), copies.chunks().clone(), copied.spot);
        let one = Arc::new(Judged::of_copy(self, caller, call, copied.fresh));
        match self.write(&one).await? {
            Written::Accepted(_) => {}
            Written::Refused(refusal) => return Err(refusal),
            Written::Known(..) => {
                return Err(Refusal::new(Code::Internal, "A read was taken for a change."));
            }
        }
        let now = self.context.clock.wall();
        let answered = chunks
            .run(move |chunks| match op {
                FileOp::Stat { .. } => Ok((spot.stat(chunks)?, None)),
                FileOp::List { depth, hidden, ref glob, ref page, .. } => {
                    let shown = (depth.into(), hidden, glob.as_ref());
                    Ok((spot.list(chunks, shown, page, &op.question())?, None))
                }
                FileOp::Find { ref query, ref page, .. } => {
                    Ok((spot.find(chunks, query, page, &op.question(), now)?, None))
                }
                FileOp::Grep { ref query, ref page, .. } => {
                    Ok((spot.grep(chunks, query, page, &op.question())?, None))
                }
                FileOp::Read { range, want, .. } => read(chunks, spot.file(chunks)?, range, want),
                FileOp::Write { .. }
                | FileOp::Edit { .. }
                | FileOp::MakeDir { .. }
                | FileOp::Remove { .. }
                | FileOp::Move { .. }
                | FileOp::Copy { .. } => Err(Refusal::new(Code::Internal, "No copy answers to this.")),
            })
            .await;
        let (answer, reading) = match answered {
            // The node may have it all the same.
            Err(refusal) if from == ReadFrom::Any && refusal.code == Code::NotFound => {
                return Err(offline(&node));
            }
            answered => answered?,
        };
        // What was read is not for one who may not read it any more.
        self.context.still(caller)?.on(right, &*self.node(node.id)?)?;
        let at = copied.fresh.verified_at;
        let reply = FileReply { op: None, answer, at, mirror: Some(copied.fresh) };
        let download = reading.map(|reading| Download::copied(self.pieces(chunks, reading), counted));
        Ok((reply, download))
    }

    /// Content as its reader takes it.
    fn pieces(&self, chunks: Chunks, mut reading: Reading) -> mpsc::Receiver<Result<bytes::Bytes, Refusal>> {
        let (give, pieces) = mpsc::channel(1);
        drop(self.mesh.spawn(async move {
            loop {
                let next = chunks.run(move |chunks| {
                    let piece = reading.next(chunks)?;
                    Ok((reading, piece))
                });
                let piece = match next.await {
                    Ok((_, None)) => return,
                    Ok((rest, Some(piece))) => {
                        reading = rest;
                        Ok(piece)
                    }
                    Err(refusal) => {
                        let _gone = give.send(Err(refusal)).await;
                        return;
                    }
                };
                if give.send(piece).await.is_err() {
                    return;
                }
            }
        }));
        pieces
    }
}

fn read(chunks: &Chunks, reading: Reading, range: ReadRange, want: ReadAs) -> Result<Answered, Refusal> {
    let max = match want {
        ReadAs::Inline { bytes_max } => usize::try_from(bytes_max).unwrap_or(FILE_INLINE_BYTES_MAX),
        ReadAs::Stream => FILE_INLINE_BYTES_MAX,
    };
    let (from, end) = reading.span(range);
    let is_long = end - from > FILE_INLINE_BYTES_MAX as u64;
    if want == ReadAs::Stream && is_long && !matches!(range, ReadRange::Lines { .. }) {
        let answer = FileAnswer::Streaming { size: reading.size, etag: Some(reading.etag) };
        return Ok((answer, Some(reading.within((from, end)))));
    }
    Ok((reading.inline(chunks, range, max)?, None))
}
