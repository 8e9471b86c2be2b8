//! A node is asked for its folder, or to bring it to a revision, as its policy allows it at that moment.

use cortex_core::files::path::FilePath;
use cortex_core::id::{NodeId, TransferId};
use cortex_core::limits::{PROTOCOL_FILES, TRANSFER_MS_MAX};
use cortex_core::lock::Lock;
use cortex_core::node::Node;
use cortex_core::policy::{Answer, TransferQuestion, judge_transfer};
use cortex_core::transfer::{Filters, TransferAsk, TransferWork};
use cortex_core::workspace::{Rules, Workspace};
use cortex_core::{Code, Refusal};

use super::Inner;
use crate::clock::new_transfer_id;
use crate::mesh::{Asked, Asker, MovingPlace, Wish, Wishing, refuse_quarantined};
use crate::service::files::accept::asks;

/// A node that was asked. While it lives, a lock on the node reaches what it was asked for.
pub(super) struct Asking {
    pub(super) place: MovingPlace,
    wishing: Wishing,
}

impl Asking {
    /// Does `work` while nobody wants its end: the node is locked, or its policy changed.
    pub(super) async fn while_wanted<T>(
        &mut self,
        judge: impl Fn() -> Result<(), Refusal>,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let wished = async {
            loop {
                match self.wishing.wish().await {
                    Wish::End(refusal) => return refusal,
                    Wish::Look => {
                        if let Err(refusal) = judge() {
                            return refusal;
                        }
                    }
                }
            }
        };
        tokio::select! {
            done = work => done,
            refusal = wished => {
                self.place.cancel();
                Err(refusal)
            }
        }
    }
}

impl Inner {
    /// Whether a sync may read or write this folder of a node.
    pub(super) fn judge(&self, node: &Node, path: &FilePath, writes: bool) -> Result<(), Refusal> {
        let directory = &self.context.directory;
        refuse_quarantined(node)?;
        let locks = directory.locks();
        if let Some(lock) = locks.on_node(node.id, &node.labels, self.context.clock.wall()) {
            return Err(Lock::refusal(lock));
        }
        let (policy, site) = (directory.policy(node.id, node.joined_at), directory.site(node.id));
        let name = node.name.as_str();
        let question =
            TransferQuestion { path, writes, node: name, site: &site, reserved: &[], consent: false };
        match judge_transfer(&policy.document, &question)? {
            Answer::Allowed { .. } => Ok(()),
            Answer::Ask { rule } => Err(asks(&rule, name)),
        }
    }

    /// The place of a transfer of the hub's own.
    pub(super) fn asking(&self, node: NodeId) -> (TransferId, Asking) {
        let id = new_transfer_id(&self.context.clock);
        let (place, wishing) = self.mesh.moving(id, Asker { token: None, user: None, node, attempt: None });
        (id, Asking { place, wishing })
    }

    pub(super) async fn ask(
        &self,
        (id, asking): (TransferId, &Asking),
        node: &Node,
        ws: &Workspace,
        work: TransferWork,
    ) -> Result<Asked, Refusal> {
        match self.mesh.protocol(node.id) {
            None => return Err(Refusal::new(Code::NodeOffline, format!("{} is offline.", node.name))),
            Some(protocol) if protocol < PROTOCOL_FILES => {
                let message = format!(
                    "{} speaks version {protocol} of the protocol; workspaces need {PROTOCOL_FILES}.",
                    node.name
                );
                return Err(Refusal::new(Code::VersionUnsupported, message)
                    .hint(format!("Install the hub's version of `cortex` on {}.", node.name)));
            }
            Some(_) => {}
        }
        let opening = self.mesh.ticket(node.id)?;
        let ask = TransferAsk {
            id,
            ticket: opening.ticket(),
            work,
            caller: format!("workspace:{}", ws.name),
            policy_revision: self.context.directory.policy(node.id, node.joined_at).revision,
            attempt: None,
            lock: ws.lock.as_ref().map(|_| (ws.id, ws.epoch)),
            deadline_ms: TRANSFER_MS_MAX,
            traceparent: None,
        };
        asking.place.ask(ask, opening).await
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
