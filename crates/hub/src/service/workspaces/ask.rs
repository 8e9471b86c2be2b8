//! A member's node is asked for its folder, or to bring it to a revision.

use cortex_core::Refusal;
use cortex_core::files::path::FilePath;
use cortex_core::id::{NodeId, TransferId};
use cortex_core::node::Node;
use cortex_core::transfer::{Filters, TransferWork};
use cortex_core::workspace::{Rules, Workspace};

use super::Inner;
use crate::mesh::Asked;
use crate::service::asking::{self, Ask, Asking};

impl Inner {
    /// Whether a sync may read or write this folder of a node.
    pub(super) fn judge(&self, node: &Node, path: &FilePath, writes: bool) -> Result<(), Refusal> {
        asking::judge(&self.context, node, path, writes)
    }

    /// The place of a transfer of the hub's own.
    pub(super) fn asking(&self, node: NodeId) -> (TransferId, Asking) {
        Asking::new(&self.context, &self.mesh, node)
    }

    pub(super) async fn ask(
        &self,
        (id, asking): (TransferId, &Asking),
        node: &Node,
        ws: &Workspace,
        work: TransferWork,
    ) -> Result<Asked, Refusal> {
        let ask = Ask {
            work,
            caller: format!("workspace:{}", ws.name),
            lock: ws.lock.as_ref().map(|_| (ws.id, ws.epoch)),
            what: "workspaces",
        };
        asking.ask((&self.context, &self.mesh), id, node, ask).await
    }
}

/// What of the folder belongs to the tree.
pub(super) fn filters(rules: &Rules) -> Filters {
    Filters {
        exclude: rules.exclude.clone(),
        ignore_files: rules.ignore_files,
        vcs: rules.vcs,
        links_outside: rules.links_outside,
    }
}
