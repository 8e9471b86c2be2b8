//! Nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A node, in lists and alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `online`, `offline` or `quarantined`.
    pub state: String,
    /// The hub's labels.
    pub labels: BTreeMap<String, String>,
    /// Operating system, as the node says.
    pub os: String,
    /// Processor architecture, as the node says.
    pub arch: String,
    /// Host name, as the node says.
    pub hostname: String,
    /// Version of its program.
    pub version: String,
    /// Logical processors.
    pub cpus: u32,
    /// Physical memory, bytes.
    pub memory_bytes: u64,
    /// Known tools on its path.
    pub tools: Vec<String>,
    /// `strict` or `permissive`.
    pub policy_mode: String,
    /// Profile of its policy.
    pub policy_profile: String,
    /// Revision of its policy.
    pub policy_revision: u64,
    /// Level of its sandbox.
    pub sandbox: String,
    /// The layers of its sandbox, as it found them at its start.
    #[serde(default)]
    pub layers: Vec<LayerView>,
    /// Folders that its owner gives for work.
    #[serde(default)]
    pub work: Vec<String>,
    /// Epoch of its last link.
    pub epoch: u64,
    /// Open runs.
    pub runs_open: usize,
    /// What stops everything on it from being started, when something does.
    #[serde(default)]
    pub lock: Option<NodeLock>,
    /// When it was last heard; the present moment while it is online.
    pub last_seen_at: Option<String>,
    /// When it joined.
    pub joined_at: String,
}

/// One layer of a node's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerView {
    /// `landlock`, `seccomp`, `pid`, `mount`, …
    pub name: String,
    /// `held`, `part` or `missing`.
    pub state: String,
    /// A sentence on it, such as what would mend it; may be empty.
    pub note: String,
}

/// A lock that holds on a node, by its name or by one of its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeLock {
    /// UUID of the lock.
    pub id: String,
    /// What whoever would start something is told.
    pub message: String,
    /// When it stops holding by itself.
    pub expires_at: Option<String>,
}

/// Changes to a node's record. What is missing stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePatch {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels to set; `null` removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}
