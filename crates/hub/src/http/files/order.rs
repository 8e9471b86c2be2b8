//! Who asks where, and for which attempt of a task: what every request on files has beside the operation.

use std::sync::Arc;

use cortex_core::files::op::FileOp;
use cortex_core::id::{Attempt, LockEpoch, TaskId};
use cortex_core::limits::FILE_OP_MS;
use cortex_core::name::printable;
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal};
use http::HeaderMap;

use super::range;
use crate::http::Api;
use crate::http::breaking::broken_off_by;
use crate::http::problem::{Failure, invalid};
use crate::http::runs::{idempotency_key, traceparent};
use crate::http::shut_out::until_shut_out;
use crate::http::workspaces::quoted;
use crate::service::files::{Body, Download, FileCall, FileReply, ReadFrom};
use crate::service::standing::Place;
use crate::service::{Caller, targets};

/// Who asks where, beside what.
pub(super) struct Order {
    caller: Caller,
    pub(super) node: Arc<Node>,
    key: Option<String>,
    attempt: Option<(TaskId, Attempt)>,
    lock: Option<LockEpoch>,
    from: ReadFrom,
    deadline_ms: u64,
    traceparent: Option<String>,
}

impl Order {
    pub(super) fn new(
        api: &Api,
        caller: &Caller,
        node: &str,
        headers: &HeaderMap,
        timeout_ms: Option<u64>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            node: targets::find(&api.context.directory, caller, node)?,
            caller: caller.clone(),
            key: idempotency_key(headers)?,
            attempt: attempt(headers)?,
            lock: quoted(headers)?,
            from: ReadFrom::Any,
            deadline_ms: timeout_ms.unwrap_or(FILE_OP_MS),
            traceparent: traceparent(headers),
        })
    }

    /// The same, answered by whom the caller wants.
    pub(super) fn answered_by(self, from: ReadFrom) -> Self {
        Self { from, ..self }
    }

    pub(super) async fn perform(&self, api: &Api, op: FileOp) -> Result<FileReply, Refusal> {
        self.exchange(api, op, None).await.map(|(reply, _none)| reply)
    }

    pub(super) async fn exchange(
        &self,
        api: &Api,
        op: FileOp,
        body: Option<Body>,
    ) -> Result<(FileReply, Option<Download>), Refusal> {
        let call = FileCall {
            node: Arc::clone(&self.node),
            op,
            key: self.key.clone(),
            attempt: self.attempt,
            lock: self.lock,
            from: self.from,
            deadline_ms: self.deadline_ms,
            traceparent: self.traceparent.clone(),
        };
        api.files.exchange(&self.caller, call, body).await
    }

    /// The content of a read, for as long as its caller may have it.
    pub(super) fn body(&self, api: &Api, download: Download) -> axum::body::Body {
        let stands = api.standing(&self.caller, Right::FilesRead, Place::On(self.node.id));
        let shut = |refusal| vec![Err(std::io::Error::other(refusal))];
        let bytes = until_shut_out(stands, range::pieces(download), shut);
        axum::body::Body::from_stream(broken_off_by(api.shutdown.clone().cancelled_owned(), bytes))
    }
}

/// The attempt of a task that the request is for.
pub(in crate::http) fn attempt(headers: &HeaderMap) -> Result<Option<(TaskId, Attempt)>, Failure> {
    let Some(value) = headers.get("cortex-attempt") else { return Ok(None) };
    let bad = || {
        let refusal = Refusal::new(Code::InvalidArgument, "`Cortex-Attempt` is not of the form TASK/N.");
        Failure::from(refusal.hint(
            "Send the id of the task and the number of its attempt, as a claim or the task's process has them.",
        ))
    };
    let (task, number) = value.to_str().ok().and_then(|text| text.split_once('/')).ok_or_else(bad)?;
    let task = task.trim().parse().map_err(|_| bad())?;
    let number = number.trim().parse().map_err(|_| bad())?;
    Ok(Some((task, Attempt(number))))
}

/// Who is to answer.
pub(super) fn read_from(text: Option<&str>) -> Result<ReadFrom, Failure> {
    match text {
        None => Ok(ReadFrom::Any),
        Some("node") => Ok(ReadFrom::Node),
        Some("mirror") => Ok(ReadFrom::Mirror),
        Some(other) => {
            let shown = printable(other, 80);
            Err(invalid(format!("`from` is `{shown}`; it must be node or mirror.")))
        }
    }
}
