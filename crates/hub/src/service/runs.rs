//! Stand-in for the use cases of runs: every node is offline, and runs are what the store says.

use std::sync::Arc;

use bytes::Bytes;
use cortex_core::id::RunId;
use cortex_core::node::Node;
use cortex_core::run::{Run, RunSpec, RunState};
use cortex_core::stream::{Positions, Stream};
use cortex_core::{Code, Refusal};
use cortex_store::RunFilter;

use crate::mesh::Mesh;
use crate::runlog::RunLogs;
use crate::service::{Caller, Context};

/// Runs.
#[derive(Clone)]
pub struct Runs {
    context: Context,
}

/// A command for nodes.
#[derive(Clone, Debug)]
pub struct StartRuns {
    /// Where.
    pub nodes: Vec<Arc<Node>>,
    /// What.
    pub spec: RunSpec,
    /// The caller's key.
    pub key: Option<String>,
    /// Trace context.
    pub traceparent: Option<String>,
}

impl Runs {
    /// The use cases.
    pub fn new(context: Context, _mesh: Mesh, _logs: RunLogs) -> Self {
        Self { context }
    }
    /// Starts.
    pub async fn start(
        &self,
        _caller: &Caller,
        request: StartRuns,
    ) -> Vec<(Arc<Node>, Result<Run, Refusal>)> {
        let offline =
            |node: &Arc<Node>| Refusal::new(Code::NodeOffline, format!("{} is offline.", node.name));
        let answers = request.nodes.into_iter().map(|node| {
            let refusal = offline(&node);
            (node, Err(refusal))
        });
        std::future::ready(answers.collect()).await
    }
    /// One run.
    pub async fn get(&self, id: RunId) -> Result<Run, Refusal> {
        let found = self.context.view(move |view| view.run(id)).await?;
        found.ok_or_else(|| Refusal::new(Code::NotFound, format!("There is no run {id}.")))
    }
    /// Runs.
    pub async fn list(&self, filter: RunFilter, limit: usize) -> Result<Vec<Run>, Refusal> {
        self.context.view(move |view| view.runs(&filter, limit)).await
    }
    /// Ends a run.
    pub async fn cancel(&self, _caller: &Caller, id: RunId, _grace_ms: u64) -> Result<Run, Refusal> {
        self.get(id).await
    }
    /// Standard input.
    pub async fn input(
        &self,
        _caller: &Caller,
        id: RunId,
        offset: u64,
        data: Bytes,
        _eof: bool,
    ) -> Result<u64, Refusal> {
        self.get(id).await?;
        Ok(offset + data.len() as u64)
    }
    /// Follows a run.
    pub async fn follow(&self, id: RunId) -> Result<Follower, Refusal> {
        Ok(Follower { run: Some(self.get(id).await?) })
    }
}

/// Follows one run.
#[derive(Debug)]
pub struct Follower {
    run: Option<Run>,
}

impl Follower {
    /// Begins there.
    #[must_use]
    pub fn from(self, _position: u64) -> Self {
        self
    }
    /// The next update.
    pub async fn next(&mut self) -> Option<Update> {
        std::future::ready(self.run.take().map(|run| Update::Ended(Box::new(run)))).await
    }
}

/// What a follower sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Bytes.
    Output {
        /// Stream.
        stream: Stream,
        /// Offset in it.
        offset: u64,
        /// Bytes.
        data: Bytes,
    },
    /// Lost up to there.
    Lost(Positions),
    /// State.
    State(RunState),
    /// End.
    Ended(Box<Run>),
}
