//! A machine as the hub's record knows it.

use crate::id::{Epoch, NodeId, Seq, UserId};
use crate::name::{Labels, Name};
use crate::sandbox::{Layer, Place};
use crate::time::WallTime;

/// A node's certificate names it by this and its id.
pub const NODE_URN: &str = "urn:cortex:node:";

/// What a node says of itself at Hello. Shown, searched, never trusted for rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `linux`, `macos`, …
    pub os: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// The machine's own host name.
    pub hostname: String,
    /// Version of the node's program.
    pub version: String,
    /// The level of the sandbox that was reached there ([`crate::sandbox::Level`]).
    pub sandbox: String,
    /// Logical processors.
    pub cpus: u32,
    /// Physical memory, bytes.
    pub memory_bytes: u64,
    /// Known tools that were found on the path.
    pub tools: Vec<String>,
    /// The layers of the sandbox, each as it was found.
    pub layers: Vec<Layer>,
    /// Where it has what policies name by purpose.
    pub place: Place,
    /// Tasks of the pool that it works on at once: a claim that stands as long as its link. 0: none.
    pub slots: u32,
}

/// How a node proves itself once its certificate ran out: a second key, good for a counted number
/// of times. Hub and node both count, so a copy of an older disk is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// SubjectPublicKeyInfo (DER) of the recovery key, P-256.
    pub key: Vec<u8>,
    /// How often it was used.
    pub count: u32,
    /// How often it may be used yet.
    pub left: u32,
    /// Fingerprint (blake3) of the key that the newest recovery certified: the same request again
    /// is an answer that was lost.
    pub last: Option<[u8; 32]>,
}

/// The newest row of the audit log that a node was told of, kept on its own disk and shown at its
/// next attach: a witness against an audit log that lost its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// Its number.
    pub seq: Seq,
    /// Its hash.
    pub hash: [u8; 32],
}

/// One enrolled machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Its name, unique among the live nodes.
    pub name: Name,
    /// The hub's labels.
    pub labels: Labels,
    /// What it last said of itself.
    pub facts: Facts,
    /// Fingerprint (blake3) of the public key in its certificates.
    pub key_hash: [u8; 32],
    /// The highest link epoch handed out.
    pub epoch: Epoch,
    /// When it joined.
    pub joined_at: WallTime,
    /// When it was last heard, as far as written (DESIGN §4: at most 60 s behind).
    pub last_seen_at: Option<WallTime>,
    /// Set when two machines used this identity; only removal and a new join mend it.
    pub quarantined: bool,
    /// Set when the node was removed. The row stays so that its certificate is refused by name.
    pub removed_at: Option<WallTime>,
    /// Whose it is.
    pub owner: Option<UserId>,
    /// How it comes back without a certificate; `None` when it never said.
    pub recovery: Option<Recovery>,
    /// What it witnesses of the audit log.
    pub audit_seen: Option<AuditHead>,
    /// Its own ceiling on what the hub may ask, as the JSON text that it sent.
    pub ceiling: Option<String>,
}

impl Node {
    /// One that has just joined with this key: without labels or an owner, and nothing is known of it yet.
    pub fn joined(id: NodeId, name: Name, key_hash: [u8; 32], joined_at: WallTime) -> Self {
        Self {
            id,
            name,
            labels: Labels::new(),
            facts: Facts::default(),
            key_hash,
            epoch: Epoch(0),
            joined_at,
            last_seen_at: None,
            quarantined: false,
            removed_at: None,
            owner: None,
            recovery: None,
            audit_seen: None,
            ceiling: None,
        }
    }
}
