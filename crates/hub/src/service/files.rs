//! Use cases of operations on files: do one on a node, and ask what became of one.
//!
//! An operation is judged, and written with its audit row in one transaction, reads too; only then is it
//! sent: what a node does was on disk before. What changes files is kept until some time after its end, so
//! that a repeat is answered and not done again. Reads are not kept.
//!
//! Never here: a question to a person.

pub(in crate::service) mod accept;
mod content;
mod mirror;
mod retention;
mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cortex_core::files::answer::FileAnswer;
use cortex_core::files::entity::{FileEnd, FileOutcome, FileTask, unknown_outcome};
use cortex_core::files::op::{Content, FileOp, ReadAs};
use cortex_core::id::{Attempt, LockEpoch, NodeId, OpId, TaskId};
use cortex_core::limits::{FILE_ANSWER_MS, FILE_OP_MS_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_core::{Code, Refusal};

use super::workspaces::{Mirrored, Workspaces};
use super::{Caller, Context, targets};
use crate::mesh::{Mesh, is_denied};
use crate::metrics::Metrics;
use accept::Accepted;
pub(crate) use content::too_long;
pub use content::{Body, Download};
pub use retention::KEPT;
use tally::Tally;

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    context: Context,
    mesh: Mesh,
    metrics: Metrics,
    tally: Tally,
    /// Who has copies of folders.
    workspaces: Option<Workspaces>,
}

/// One operation that is asked for.
#[derive(Clone, Debug)]
pub struct FileCall {
    /// Where.
    pub node: Arc<Node>,
    /// What.
    pub op: FileOp,
    /// The caller's key: the same key on the same node is the same operation. Of a read it means nothing.
    pub key: Option<String>,
    /// The attempt of a task for which it is done.
    pub attempt: Option<(TaskId, Attempt)>,
    /// The number of the lock of a workspace that the caller says to hold.
    pub lock: Option<LockEpoch>,
    /// Who is to answer it.
    pub from: ReadFrom,
    /// How long it may take, milliseconds; 1 to [`FILE_OP_MS_MAX`].
    pub deadline_ms: u64,
    /// W3C traceparent.
    pub traceparent: Option<String>,
}

/// Who answers a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The node; while it is away the hub's copy of the folder, if there is one.
    #[default]
    Any,
    /// The node.
    Node,
    /// The hub's copy of the folder.
    Mirror,
}

/// What came of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReply {
    /// Its id; `None` of a read, which has no later.
    pub op: Option<OpId>,
    /// The answer.
    pub answer: FileAnswer,
    /// When it came from the node, on the hub's clock; of a copy when that was last compared with the folder.
    pub at: WallTime,
    /// How old the hub's copy of the folder is, when that answers.
    pub mirror: Option<Mirrored>,
}

impl Files {
    /// The use cases over `mesh`, which count in `metrics`.
    pub fn new(context: Context, mesh: Mesh, metrics: Metrics) -> Self {
        Self { context, mesh, metrics, tally: Tally::default(), workspaces: None }
    }

    /// The same, with copies of folders.
    #[must_use]
    pub fn with_copies(self, workspaces: Workspaces) -> Self {
        Self { workspaces: Some(workspaces), ..self }
    }

    /// Does an operation and waits for what comes of it. Needs `files:read` on the node, or `files:write`
    /// for what changes files or says what a change would do. A caller that goes away ends a read; what
    /// changes files goes on.
    ///
    /// # Errors
    /// Of the caller's: `forbidden`, `node_not_found`, `locked`, `stale_epoch`, `unauthenticated`, `invalid_argument`,
    /// `too_large`, `conflict` for a key of another operation, `stale_attempt`, `not_found` for a task that
    /// the caller does not work on, `rate_limited`, `quota`. Of the policy's: `policy_denied`,
    /// `path_outside_roots`, `sandbox_unavailable`. Of the node's: `node_offline`, `version_unsupported`,
    /// `timeout`, and what it answers itself. `unknown_outcome` with the detail `op` when nobody knows
    /// whether a change was done: what becomes of it is told by [`Self::outcome`], and to a repeat.
    pub async fn perform(&self, caller: &Caller, call: FileCall) -> Result<FileReply, Refusal> {
        if is_streamed(&call.op) {
            let message = "The content of this operation needs a stream, which there is none for.";
            return Err(Refusal::new(Code::InvalidArgument, message).hint("Read or write a smaller part."));
        }
        self.exchange(caller, call, None).await.map(|(reply, _none)| reply)
    }

    /// As [`Self::perform`], with content on a stream: `body` is that of a [`Content::Streamed`], and what is
    /// returned beside the answer that of a read [`ReadAs::Stream`], unless its answer holds it. A write
    /// whose body breaks off, or whose caller goes away, changes nothing.
    ///
    /// # Errors
    /// As [`Self::perform`], and what the body's end is.
    pub async fn exchange(
        &self,
        caller: &Caller,
        call: FileCall,
        body: Option<Body>,
    ) -> Result<(FileReply, Option<Download>), Refusal> {
        let (verb, began) = (call.op.verb(), Instant::now());
        let done = self.carry_out(caller, call, body).await;
        let code = done.as_ref().err().map(|refusal| refusal.code);
        self.metrics.file_op(verb, code, began.elapsed().as_secs_f64());
        done
    }

    async fn carry_out(
        &self,
        caller: &Caller,
        call: FileCall,
        body: Option<Body>,
    ) -> Result<(FileReply, Option<Download>), Refusal> {
        check(&call, body.is_some())?;
        let counted = self.tally.one(caller.token.id)?;
        if let Some(copied) = self.copied(&call)? {
            return self.by_copy(caller, call, copied, counted).await;
        }
        let (node, right, deadline_ms) = (call.node.id, right(&call.op), call.deadline_ms);
        // Content that came with it is not kept.
        let asked = if body.is_some() { Some(call.op.clone()) } else { None };
        let (files, by) = (self.clone(), caller.clone());
        // A task of its own: a caller who goes away leaves no operation that was accepted and not sent.
        let accepting = self.mesh.spawn(async move { files.accept(&by, call).await });
        let accepted = accepting.await.unwrap_or_else(|error| {
            tracing::error!(%error, "accepting an operation on files failed");
            Err(Refusal::new(Code::Internal, "Accepting the operation failed."))
        })?;
        let mut content = None;
        let (op, answer) = match accepted {
            Accepted::Read(waiting, one, opening) => {
                let (answer, stream) = content::answered(waiting, opening, body).await;
                if is_denied(&answer) {
                    self.tell_denied(&one, &answer);
                }
                // What was read is not for one who may not read it any more.
                self.context.still(caller)?.on(right, &*self.node(node)?)?;
                content = stream;
                (None, answer)
            }
            Accepted::Change(op, waiting, opening) => {
                (Some(op), content::answered(waiting, opening, body).await.0)
            }
            Accepted::Open(op) => {
                let end = self.end_of(node, op, deadline_ms).await?;
                if let Some(asked) = &asked {
                    content::check_repeat(asked, &end, body).await?;
                }
                (Some(op), end.map(FileOutcome::answer))
            }
            Accepted::Ended(op, end) => {
                if let Some(asked) = &asked {
                    content::check_repeat(asked, &end, body).await?;
                }
                (Some(op), end.map(FileOutcome::answer))
            }
        };
        let reply = FileReply { op, answer: answer?, at: self.context.clock.wall(), mirror: None };
        Ok((reply, content.map(|stream| Download::new(stream, counted))))
    }

    /// What is kept of an operation that changes files, and that the caller may know of: it has
    /// `files:write` on its node, and an AI client asked for it itself.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn outcome(&self, caller: &Caller, op: OpId) -> Result<FileTask, Refusal> {
        let unknown = || {
            Refusal::new(Code::NotFound, format!("There is no operation {op}."))
                .hint("Look at the files themselves; what came of an operation is kept for a day.")
        };
        let found = self.context.view(move |view| view.file_op(op)).await?.ok_or_else(unknown)?;
        let foreign = caller.token.kind == TokenKind::Client && found.token != Some(caller.token.id);
        if foreign || !targets::has(&self.context.directory, caller, Right::FilesWrite, found.node) {
            return Err(unknown());
        }
        Ok(found)
    }

    /// How an operation ends that was asked for before, within this time.
    async fn end_of(&self, node: NodeId, op: OpId, deadline_ms: u64) -> Result<FileEnd, Refusal> {
        let patience = Duration::from_millis(deadline_ms + FILE_ANSWER_MS);
        if let Some(end) = self.mesh.file_end(node, op) {
            match tokio::time::timeout(patience, end).await {
                Ok(Ok(end)) => return Ok(end),
                Ok(Err(_)) => {}
                Err(_) => return Err(unknown_outcome(op, "the node has not said")),
            }
        }
        let stored = self.context.view(move |view| view.file_op(op)).await?;
        let end = stored.and_then(|task| task.end().cloned());
        end.ok_or_else(|| unknown_outcome(op, "its end is not stored so far"))
    }

    fn node(&self, id: NodeId) -> Result<Arc<Node>, Refusal> {
        let removed = || Refusal::new(Code::NodeNotFound, "The node was removed.");
        self.context.directory.node(id).ok_or_else(removed)
    }
}

/// The right that an operation needs. To hear what a change would do, one needs what the change needs.
const fn right(op: &FileOp) -> Right {
    match op {
        FileOp::List { .. }
        | FileOp::Stat { .. }
        | FileOp::Read { .. }
        | FileOp::Find { .. }
        | FileOp::Grep { .. } => Right::FilesRead,
        FileOp::Write { .. }
        | FileOp::Edit { .. }
        | FileOp::MakeDir { .. }
        | FileOp::Remove { .. }
        | FileOp::Move { .. }
        | FileOp::Copy { .. } => Right::FilesWrite,
    }
}

fn check(call: &FileCall, has_body: bool) -> Result<(), Refusal> {
    let invalid = |message: String| Err(Refusal::new(Code::InvalidArgument, message));
    call.op.check()?;
    if call.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
        return invalid(format!("The idempotency key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes."));
    }
    if !(1..=FILE_OP_MS_MAX).contains(&call.deadline_ms) {
        return invalid(format!("An operation may take 1 to {FILE_OP_MS_MAX} ms."));
    }
    if matches!(call.op, FileOp::Write { content: Content::Streamed { .. }, .. }) != has_body {
        return invalid("Content on a stream belongs to a write that is told of it.".to_owned());
    }
    Ok(())
}

/// Whether its content has a stream of its own.
const fn is_streamed(op: &FileOp) -> bool {
    matches!(
        op,
        FileOp::Write { content: Content::Streamed { .. }, .. } | FileOp::Read { want: ReadAs::Stream, .. }
    )
}
