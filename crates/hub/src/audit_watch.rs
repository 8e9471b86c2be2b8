//! What is known of the audit log without asking the store: its newest row, and what was seen
//! that does not fit it. Memory of one process; what nodes and the anchor keep outlives it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cortex_core::id::NodeId;
use cortex_core::node::AuditHead;
use tokio::sync::watch;

/// The newest row, and doubts.
#[derive(Debug)]
pub struct AuditWatch {
    head: watch::Sender<Option<AuditHead>>,
    doubts: Mutex<Doubts>,
}

#[derive(Debug, Default)]
struct Doubts {
    /// The first one, in a sentence.
    first: Option<String>,
    /// What nodes saw that is not in the log. At most one per node.
    seen: BTreeMap<NodeId, AuditHead>,
}

impl Default for AuditWatch {
    fn default() -> Self {
        Self { head: watch::Sender::new(None), doubts: Mutex::default() }
    }
}

impl AuditWatch {
    /// The newest row; `None` when there is none.
    pub fn head(&self) -> Option<AuditHead> {
        *self.head.borrow()
    }

    /// A committed row is the newest one. An older one changes nothing.
    pub fn advance(&self, head: AuditHead) {
        self.head.send_if_modified(|held| {
            let newer = held.is_none_or(|held| held.seq < head.seq);
            if newer {
                *held = Some(head);
            }
            newer
        });
    }

    /// Follows the newest row.
    pub fn follow(&self) -> watch::Receiver<Option<AuditHead>> {
        self.head.subscribe()
    }

    /// Something does not fit the log. Whether it is the first such thing since the hub began.
    pub fn doubt(&self, why: &str) -> bool {
        let mut doubts = self.doubts();
        let first = doubts.first.is_none();
        doubts.first.get_or_insert_with(|| why.to_owned());
        first
    }

    /// A node saw a row that is not in the log.
    pub fn contradict(&self, node: NodeId, head: AuditHead) {
        self.doubts().seen.insert(node, head);
    }

    /// The first doubt since the hub began.
    pub fn first_doubt(&self) -> Option<String> {
        self.doubts().first.clone()
    }

    /// What nodes saw that is not in the log.
    pub fn contradictions(&self) -> BTreeMap<NodeId, AuditHead> {
        self.doubts().seen.clone()
    }

    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
