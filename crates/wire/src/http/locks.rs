//! Locks, and the recoveries of a node's identity.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /locks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    /// `user:NAME`, `token:NAME`, `node:NAME` or `label:KEY=VALUE`.
    pub target: String,
    /// For that time; until it is removed when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// What whoever meets it is told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockView {
    /// UUID.
    pub id: String,
    /// What it holds on, by name: `token:ci`.
    pub target: String,
    /// The UUID of that; missing for a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_id: Option<String>,
    /// `holds`, `expired` or `removed`.
    pub state: String,
    /// What whoever meets it is told.
    pub message: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: String,
    /// When it stops holding by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// How often a node may recover its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveriesView {
    /// The node's name.
    pub node: String,
    /// How often it did.
    pub used: u32,
    /// How often it may yet.
    pub left: u32,
}

/// `PUT /nodes/{node}/recoveries`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveriesSet {
    /// How often the node may recover its identity from here on.
    pub left: u32,
}
