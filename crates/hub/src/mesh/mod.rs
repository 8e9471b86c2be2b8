//! Stand-in for the links of all nodes: nobody is ever here.

use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::id::{Epoch, NodeId};
use cortex_core::policy::Policy;
use cortex_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::runlog::RunLogs;
use crate::service::Context;

/// What is known of a connected node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceView {
    /// Epoch of its link.
    pub epoch: Epoch,
    /// Since when.
    pub since: Timestamp,
    /// When it was last heard.
    pub heard: Timestamp,
}

/// The links of all nodes.
#[derive(Clone)]
pub struct Mesh;

impl Mesh {
    /// Nobody is here.
    pub fn new(_context: Context, _logs: RunLogs) -> Self {
        Self
    }
    /// Takes up open runs.
    pub async fn restore(&self) -> Result<(), Refusal> {
        std::future::ready(Ok(())).await
    }
    /// Presence of a node.
    pub fn presence(&self, _node: NodeId) -> Option<PresenceView> {
        None
    }
    /// Nodes online.
    pub fn online(&self) -> usize {
        0
    }
    /// Open runs.
    pub fn runs_open(&self) -> usize {
        0
    }
    /// Open runs of a node.
    pub fn runs_open_on(&self, _node: NodeId) -> usize {
        0
    }
    /// Entries of all maps.
    pub fn entries(&self) -> usize {
        0
    }
    /// Sends a policy to its node.
    pub fn push_policy(&self, _policy: Arc<Policy>) {}
    /// Closes the link of a node.
    pub fn close_node(&self, _node: NodeId, _refusal: Refusal) {}
    /// Heartbeats so far.
    pub fn heartbeats(&self) -> u64 {
        0
    }
    /// Serves the machines' timers.
    pub async fn run_timers(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        shutdown.cancelled().await;
        Ok(())
    }
    /// Writes when nodes were last heard.
    pub async fn flush_last_seen(&self) -> Result<(), Refusal> {
        std::future::ready(Ok(())).await
    }
}
