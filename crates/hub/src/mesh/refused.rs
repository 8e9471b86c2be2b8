//! Refused nodes in the audit log. Only those that showed a certificate of this hub's authority,
//! and each reason once a minute: a node that dials in a loop must not fill the log.

use std::time::Duration;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::NodeId;
use cortex_core::limits::STORE_MS_MAX;
use cortex_core::{Code, Refusal};
use cortex_store::StoreExt;

use super::{Mesh, lock};

/// Time for which one row stands for all refusals of a node with the same code.
const SAME_MS: u64 = 60_000;
/// Refusals that are remembered. Beyond it rows are left out until the oldest are over.
const REMEMBERED_MAX: usize = 1_024;

impl Mesh {
    /// Keeps that this node was refused its link. The refusal waits for nothing.
    pub fn audit_refusal(&self, node: NodeId, refusal: &Refusal) {
        if !tells_of_abuse(refusal.code) || !self.is_new(node, refusal.code) {
            return;
        }
        let context = &self.inner.context;
        let name =
            context.directory.node(node).map_or_else(|| node.to_string(), |node| node.name.to_string());
        let mut row =
            AuditRow::new(context.clock.wall(), format!("node:{name}"), "node.attach", Outcome::Denied);
        row.reason = Some(refusal.code.as_str().to_owned());
        row.node = Some(node);
        let store = std::sync::Arc::clone(&context.store);
        self.inner.tasks.spawn(async move {
            let written = store.write(Duration::from_millis(STORE_MS_MAX), move |tx| {
                tx.append_audit(&row)?;
                Ok(())
            });
            if let Err(error) = written.await {
                tracing::error!(%error, "the refusal of a node is not in the audit log");
            }
        });
    }

    fn is_new(&self, node: NodeId, code: Code) -> bool {
        let now = self.inner.context.clock.now();
        let mut refused = lock(&self.inner.refused);
        refused.retain(|_, since| since.plus_ms(SAME_MS) > now);
        if refused.len() >= REMEMBERED_MAX || refused.contains_key(&(node, code)) {
            return false;
        }
        refused.insert((node, code), now);
        true
    }
}

/// Whether a link is refused with this for what its node did, and not by the way of the network.
const fn tells_of_abuse(code: Code) -> bool {
    matches!(
        code,
        Code::NodeRevoked
            | Code::ClonedIdentity
            | Code::WrongAudience
            | Code::InvalidArgument
            | Code::TooLarge
            | Code::VersionUnsupported
    )
}
