//! A node is asked for a folder, or to bring one to a tree, as its policy allows it at that moment.

use cortex_core::files::path::FilePath;
use cortex_core::id::{LockEpoch, NodeId, TransferId, WorkspaceId};
use cortex_core::limits::{PROTOCOL_FILES, TRANSFER_MS_MAX};
use cortex_core::lock::Lock;
use cortex_core::node::Node;
use cortex_core::policy::{Answer, TransferQuestion, judge_transfer};
use cortex_core::transfer::{TransferAsk, TransferWork};
use cortex_core::{Code, Refusal};

use super::Context;
use super::files::accept::asks;
use crate::clock::new_transfer_id;
use crate::mesh::{Asked, Asker, Mesh, MovingPlace, Wish, Wishing, refuse_quarantined};

/// A node that was asked. While it lives, a lock on the node or on whoever asks reaches what it was asked for.
pub(super) struct Asking {
    place: MovingPlace,
    wishing: Wishing,
}

/// What it is asked for.
pub(super) struct Ask<'a> {
    /// What.
    pub(super) work: TransferWork,
    /// Who asks, for the node's own log.
    pub(super) caller: String,
    /// The lock under which it is done.
    pub(super) lock: Option<(WorkspaceId, LockEpoch)>,
    /// What needs it, for people: `workspaces`.
    pub(super) what: &'a str,
}

impl Asking {
    /// The place of a transfer of the hub's own.
    pub(super) fn new(context: &Context, mesh: &Mesh, node: NodeId) -> (TransferId, Self) {
        mesh.count_folder_ask();
        Self::of(context, mesh, Asker { token: None, user: None, node, attempt: None })
    }

    /// The place of a transfer for whoever asks.
    pub(super) fn of(context: &Context, mesh: &Mesh, asker: Asker) -> (TransferId, Self) {
        let id = new_transfer_id(&context.clock);
        let (place, wishing) = mesh.moving(id, asker);
        (id, Self { place, wishing })
    }

    /// Asks.
    ///
    /// # Errors
    /// `node_offline`, `version_unsupported`, and what the node refuses.
    pub(super) async fn ask(
        &self,
        (context, mesh): (&Context, &Mesh),
        id: TransferId,
        node: &Node,
        ask: Ask<'_>,
    ) -> Result<Asked, Refusal> {
        match mesh.protocol(node.id) {
            None => return Err(Refusal::new(Code::NodeOffline, format!("{} is offline.", node.name))),
            Some(protocol) if protocol < PROTOCOL_FILES => {
                let message = format!(
                    "{} speaks version {protocol} of the protocol; {} need {PROTOCOL_FILES}.",
                    node.name, ask.what
                );
                return Err(Refusal::new(Code::VersionUnsupported, message)
                    .hint(format!("Install the hub's version of `cortex` on {}.", node.name)));
            }
            Some(_) => {}
        }
        let opening = mesh.ticket(node.id)?;
        let ask = TransferAsk {
            id,
            ticket: opening.ticket(),
            work: ask.work,
            caller: ask.caller,
            policy_revision: context.directory.policy(node.id, node.joined_at).revision,
            attempt: None,
            lock: ask.lock,
            deadline_ms: TRANSFER_MS_MAX,
            traceparent: None,
        };
        self.place.ask(ask, opening).await
    }

    /// Does `work` while nobody wants its end: a lock holds, or the policy changed.
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

/// Whether the hub may read or write this folder of a node.
///
/// # Errors
/// `node_revoked`, `locked`, `policy_denied`, `path_outside_roots`, `consent_required`.
pub(super) fn judge(context: &Context, node: &Node, path: &FilePath, writes: bool) -> Result<(), Refusal> {
    let directory = &context.directory;
    refuse_quarantined(node)?;
    let locks = directory.locks();
    if let Some(lock) = locks.on_node(node.id, &node.labels, context.clock.wall()) {
        return Err(Lock::refusal(lock));
    }
    let (policy, site) = (directory.policy(node.id, node.joined_at), directory.site(node.id));
    let name = node.name.as_str();
    let question = TransferQuestion { path, writes, node: name, site: &site, reserved: &[], consent: false };
    match judge_transfer(&policy.document, &question)? {
        Answer::Allowed { .. } => Ok(()),
        Answer::Ask { rule } => Err(asks(&rule, name)),
    }
}
