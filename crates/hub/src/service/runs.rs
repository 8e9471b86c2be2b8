//! Use cases of runs: start, look, cancel, feed, follow.
//!
//! A run is judged, written with its audit row and its event in one transaction for all nodes of
//! the request, and only then sent: what a node executes was on disk before.

mod accept;
mod asked;
pub(crate) mod attempts;
mod follow;
mod retention;
mod spool;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::consent::Consent;
use cortex_core::id::RunId;
use cortex_core::limits::{
    FRAME_BYTES_MAX, INPUT_BYTES_MAX, KILL_GRACE_MS_MAX, PAGE_ITEMS_MAX, STORE_MS_MAX,
};
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::run::{self, Run, RunSpec};
use cortex_core::token::TokenKind;
use cortex_core::{Code, Refusal};
use cortex_store::{RunFilter, StoreExt, Tx, WriteError};

use super::{Caller, Context, consents, store_refusal, targets};
use crate::mesh::{Live, Mesh, Progress};
use crate::runlog::{RunLogs, Space};
pub use asked::{Approval, Leave};
pub(crate) use asked::{give_up, put_consent};
pub use follow::{Follower, Update};
pub use retention::Looked;
use spool::Spool;

/// How long a cancel waits for the store; the node was asked before.
const CANCEL_DEADLINE: Duration = Duration::from_secs(3);
/// How long standard input waits to be taken over.
const INPUT_DEADLINE: Duration = Duration::from_secs(10);
/// Pages of runs that one answer looks through for a caller that sees few of them.
const FOREIGN_PAGES_MAX: usize = 10;
const STORE_DEADLINE: Duration = Duration::from_millis(STORE_MS_MAX);

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Runs {
    context: Context,
    mesh: Mesh,
    logs: RunLogs,
    spool: Arc<Spool>,
}

/// A command for nodes.
#[derive(Clone, Debug)]
pub struct StartRuns {
    /// Where.
    pub nodes: Vec<Arc<Node>>,
    /// What.
    pub spec: RunSpec,
    /// The caller's key: the same key on the same node is the same run.
    pub key: Option<String>,
    /// W3C traceparent.
    pub traceparent: Option<String>,
}

/// What became of a command on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is a run.
    Run(Box<Run>),
    /// A person is asked first; the run begins with the answer.
    Asked(Box<Consent>),
}

impl Runs {
    /// The use cases over `mesh`. Audit rows that a stalled store left in the spool below `data`
    /// are imported when a runtime is there.
    pub fn new(context: Context, mesh: Mesh, logs: RunLogs, data: &Path) -> Self {
        let spool = Arc::new(Spool::new(data));
        let runs = Self { context, mesh, logs, spool };
        if runs.spool.exists() && tokio::runtime::Handle::try_current().is_ok() {
            runs.import_soon();
        }
        runs
    }

    /// Room on the disk that output goes to; `None` when it does not say so in time.
    pub async fn space(&self) -> Option<Space> {
        self.logs.space().await
    }

    /// Starts a command on nodes, each judged by its own policy. One commit for all of them.
    /// Answers in the order of the request.
    /// Where a person is asked first, that is told as a refusal.
    pub async fn start(&self, caller: &Caller, request: StartRuns) -> Vec<(Arc<Node>, Result<Run, Refusal>)> {
        let begun = self.begin(caller, request, Leave::Policy).await;
        let told = |node: &Arc<Node>, begun| match begun {
            Begun::Run(run) => Ok(*run),
            Begun::Asked(consent) => Err(consents::required(&consent, node.name.as_str())),
        };
        begun
            .into_iter()
            .map(|(node, begun)| {
                let told = begun.and_then(|begun| told(&node, begun));
                (node, told)
            })
            .collect()
    }

    /// The same with what may allow it beside the policy.
    pub async fn begin(
        &self,
        caller: &Caller,
        request: StartRuns,
        leave: Leave,
    ) -> Vec<(Arc<Node>, Result<Begun, Refusal>)> {
        let (runs, caller, nodes) = (self.clone(), caller.clone(), request.nodes.clone());
        // A task of its own: a caller who goes away leaves no run that was accepted and not sent.
        match self.mesh.spawn(async move { runs.accept(&caller, request, &leave).await }).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::error!(%error, "starting runs failed");
                let refusal = Refusal::new(Code::Internal, "Starting the run failed.");
                nodes.into_iter().map(|node| (node, Err(refusal.clone()))).collect()
            }
        }
    }

    /// A run that the caller sees. Of one that has not ended, `output` says how far it has arrived.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn get(&self, caller: &Caller, id: RunId) -> Result<Run, Refusal> {
        let run = self.look(id).await?;
        self.may(caller, Right::RunsRead, &run)?;
        Ok(run)
    }

    async fn look(&self, id: RunId) -> Result<Run, Refusal> {
        if let Some(live) = self.mesh.live(id) {
            return Ok(snapshot(&live));
        }
        let found = self.context.store.read(STORE_DEADLINE, move |view| view.run(id)).await;
        found.map_err(store_refusal)?.ok_or_else(|| not_found(id))
    }

    /// Runs that the caller sees, newest first, and where the next page begins. Of a caller that sees
    /// some nodes only, a page may have fewer than `limit` and not be the last.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: RunFilter,
        limit: usize,
    ) -> Result<(Vec<Run>, Option<RunId>), Refusal> {
        let (mut runs, next) = self.page(caller, filter, limit).await?;
        for run in runs.iter_mut().filter(|run| !run.state.is_final()) {
            if let Some(live) = self.mesh.live(run.id) {
                run.output = live.log.end();
            }
        }
        Ok((runs, next))
    }

    async fn page(
        &self,
        caller: &Caller,
        mut filter: RunFilter,
        limit: usize,
    ) -> Result<(Vec<Run>, Option<RunId>), Refusal> {
        let sees_all = caller.everywhere(Right::RunsRead) && caller.token.kind != TokenKind::Client;
        let size = if sees_all { limit + 1 } else { PAGE_ITEMS_MAX };
        let mut seen = Vec::new();
        for _ in 0..FOREIGN_PAGES_MAX {
            let asked = filter.clone();
            let found = self.context.view(move |view| view.runs(&asked, size)).await?;
            let last = found.len() < size;
            filter.before = found.last().map(|run| run.id);
            seen.extend(found.into_iter().filter(|run| self.may(caller, Right::RunsRead, run).is_ok()));
            if seen.len() > limit {
                seen.truncate(limit);
                let next = seen.last().map(|run| run.id);
                return Ok((seen, next));
            }
            if last {
                return Ok((seen, None));
            }
        }
        Ok((seen, filter.before))
    }

    /// Whether the caller has this right on this run: on its node, and of an AI client on the runs that
    /// it began itself.
    fn may(&self, caller: &Caller, right: Right, run: &Run) -> Result<(), Refusal> {
        let foreign = caller.token.kind == TokenKind::Client && run.token != Some(caller.token.id);
        if foreign || !targets::has(&self.context.directory, caller, Right::RunsRead, run.node) {
            return Err(not_found(run.id));
        }
        if targets::has(&self.context.directory, caller, right, run.node) {
            return Ok(());
        }
        caller.anywhere(right)?;
        let message = format!("`{}` may look at run {} and not do this.", caller.actor(), run.id);
        Err(Refusal::new(Code::Forbidden, message).detail("right", right.as_str()))
    }

    /// Asks for the end of a run: TERM, the grace, KILL. The node is asked at once; when the store
    /// does not answer, the audit row is kept in a file until it does.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` when the run has ended, `invalid_argument`.
    pub async fn cancel(&self, caller: &Caller, id: RunId, grace_ms: u64) -> Result<Run, Refusal> {
        if grace_ms > KILL_GRACE_MS_MAX {
            let message = format!("The grace must be at most {KILL_GRACE_MS_MAX} ms.");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        self.may(caller, Right::RunsControl, &self.look(id).await?)?;
        let (runs, caller) = (self.clone(), caller.clone());
        // A task of its own: a caller who goes away leaves no effect that is not audited.
        let task = self.mesh.spawn(async move { runs.cancel_by(&caller, id, grace_ms).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "cancelling a run failed");
            Err(Refusal::new(Code::Internal, "Cancelling the run failed."))
        })
    }

    async fn cancel_by(&self, caller: &Caller, id: RunId, grace_ms: u64) -> Result<Run, Refusal> {
        let by = caller.actor();
        let live = self.mesh.live(id);
        if let Some(live) = &live {
            self.mesh.cancel(live, id, grace_ms);
        }
        let now = self.context.clock.wall();
        let mut row = AuditRow::new(now, by.clone(), "run.cancel", Outcome::Allowed);
        (row.run, row.token) = (Some(id), Some(caller.token.id));
        row.node = live.as_ref().map(|live| live.node);
        let (written_row, written_by) = (row.clone(), by.clone());
        let written = self
            .context
            .store
            .write(CANCEL_DEADLINE, move |tx| record_cancel(tx, id, written_by, &written_row, now))
            .await;
        match (written, live) {
            (Ok(run), Some(live)) => {
                live.progress.send_modify(|progress| {
                    if !progress.run.state.is_final() {
                        progress.run = Arc::new(run);
                    }
                });
                Ok(snapshot(&live))
            }
            (Ok(run), None) => Ok(run),
            (Err(WriteError::Refused(refusal)), _) => Err(refusal),
            (Err(WriteError::Store(error)), Some(live)) => {
                tracing::error!(%error, "store failed; the audit row of a cancel goes to the spool");
                self.spool.keep(row).await?;
                self.import_soon();
                let mut run = snapshot(&live);
                run.cancelled_by.get_or_insert(by);
                Ok(run)
            }
            (Err(WriteError::Store(error)), None) => Err(store_refusal(error)),
        }
    }

    /// Gives standard input to a run, beginning at `offset` of all of it. Returns how far the
    /// process has taken it over: all of it, or less when it did not read in time.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` when the run has ended, `invalid_argument` when it was
    /// started without standard input, `node_offline`, `quota`.
    pub async fn input(
        &self,
        caller: &Caller,
        id: RunId,
        offset: u64,
        data: Bytes,
        eof: bool,
    ) -> Result<u64, Refusal> {
        let Some(live) = self.mesh.live(id) else {
            let run = self.look(id).await?;
            self.may(caller, Right::RunsControl, &run)?;
            return Err(ended(&run));
        };
        self.may(caller, Right::RunsControl, &snapshot(&live))?;
        if !live.progress.borrow().run.spec.stdin {
            return Err(Refusal::new(Code::InvalidArgument, "This run was started without standard input.")
                .hint("Start it with `stdin` set."));
        }
        let feeding = self.feed(&live, id, offset, data, eof);
        match tokio::time::timeout(INPUT_DEADLINE, feeding).await {
            Ok(taken) => taken,
            Err(_) => Ok(live.progress.borrow().input_taken.max(offset)),
        }
    }

    /// Follows a run from its beginning, or from [`Follower::from`]: what is there, then what
    /// comes, then its end.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn follow(&self, caller: &Caller, id: RunId) -> Result<Follower, Refusal> {
        if let Some(live) = self.mesh.live(id) {
            self.may(caller, Right::RunsRead, &snapshot(&live))?;
            return Ok(Follower::live(&live, self.mesh.following()));
        }
        let run = self.get(caller, id).await?;
        if !run.state.is_final() {
            let message = format!("Run {id} was accepted while the store failed, and is being settled.");
            return Err(Refusal::new(Code::StoreUnavailable, message));
        }
        Ok(Follower::kept(self.logs.kept(id).await?, Arc::new(run), self.mesh.following()))
    }

    async fn feed(
        &self,
        live: &Live,
        id: RunId,
        offset: u64,
        data: Bytes,
        eof: bool,
    ) -> Result<u64, Refusal> {
        let mut progress = live.progress.subscribe();
        let Some(end) = offset.checked_add(data.len() as u64) else {
            let message = "The offset and the length of the input together are beyond any number.";
            return Err(Refusal::new(Code::InvalidArgument, message));
        };
        let mut sent = offset;
        loop {
            let room_from = sent.saturating_sub(INPUT_BYTES_MAX - FRAME_BYTES_MAX as u64).max(offset);
            self.wait_taken(&mut progress, offset, room_from).await?;
            let begin = usize::try_from(sent - offset).unwrap_or(usize::MAX).min(data.len());
            let piece = data.slice(begin..data.len().min(begin + FRAME_BYTES_MAX));
            let from = sent;
            sent += piece.len() as u64;
            self.mesh.input(live, id, from, piece, eof && sent == end)?;
            if sent == end {
                break;
            }
        }
        self.wait_taken(&mut progress, offset, end).await
    }

    /// Waits until the process has taken over all before `upto`; what is before `offset` was.
    async fn wait_taken(
        &self,
        progress: &mut tokio::sync::watch::Receiver<Progress>,
        offset: u64,
        upto: u64,
    ) -> Result<u64, Refusal> {
        let reached =
            |progress: &Progress| progress.input_taken.max(offset) >= upto || progress.run.state.is_final();
        let Ok(now) = progress.wait_for(reached).await else {
            return Err(Refusal::new(Code::Conflict, "The run has ended."));
        };
        if now.input_taken.max(offset) >= upto {
            Ok(now.input_taken.max(offset))
        } else {
            Err(ended(&now.run))
        }
    }

    fn import_soon(&self) {
        let (spool, store) = (Arc::clone(&self.spool), Arc::clone(&self.context.store));
        let stop = self.mesh.stopping();
        drop(self.mesh.spawn(async move { spool.import(store, stop).await }));
    }
}

fn record_cancel(
    tx: &mut dyn Tx,
    id: RunId,
    by: String,
    row: &AuditRow,
    now: cortex_core::time::WallTime,
) -> Result<Run, WriteError> {
    let before = tx.run(id)?.ok_or_else(|| not_found(id))?;
    let (after, events) = run::decide(&before, run::Command::Cancel { by }, now)?;
    tx.put_run(&after)?;
    for event in &events {
        tx.append_event(event)?;
    }
    let row = AuditRow { node: Some(after.node), ..row.clone() };
    tx.append_audit(&row)?;
    Ok(after)
}

/// An open run as it stands, with the output that has arrived.
fn snapshot(live: &Live) -> Run {
    let mut run = Run::clone(&live.progress.borrow().run);
    if !run.state.is_final() {
        run.output = live.log.end();
    }
    run
}

fn not_found(id: RunId) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no run {id}.")).hint("List the runs with `cortex run ls`.")
}

fn ended(run: &Run) -> Refusal {
    Refusal::new(Code::Conflict, format!("Run {} has ended: it is {}.", run.id, run.state.as_str()))
        .hint("Read its result with `cortex run get`.")
}
