//! A workspace of the hub that begins with a tree of a caller: made with its first revision in one transaction,
//! when the tree is whole.

use std::sync::Arc;

use cortex_core::files::content::TreeId;
use cortex_core::id::{Attempt, TaskId};
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::workspace::{Complete, Decided, Mode, NewWorkspace, table};
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use super::{Inner, Workspaces, audit};
use crate::clock::new_workspace_id;
use crate::service::files::accept::fence;
use crate::service::transfers::{Asking, ImportOrder, Shown, Taker};
use crate::service::{Caller, anew};

/// The workspace that is to be.
struct Making {
    inner: Arc<Inner>,
    caller: Caller,
    new: NewWorkspace,
    /// As its caller says: the tree, its entries and its bytes.
    tree: (TreeId, u64, u64),
    attempt: Option<(TaskId, Attempt)>,
}

impl Workspaces {
    /// Begins to take in a tree of the caller's, with which a workspace is made. Needs `workspaces:write`.
    ///
    /// # Errors
    /// `forbidden`, `conflict` when another has the name, `quota`, `too_large`, `invalid_argument`,
    /// `stale_attempt`, `rate_limited`.
    pub async fn import(
        &self,
        caller: &Caller,
        order: ImportOrder,
        asking: Asking,
    ) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        if asking.lock.is_some() {
            let message = "A workspace that is to be made has no lock.";
            return Err(Refusal::new(Code::InvalidArgument, message).hint("Leave `Cortex-Lock` out."));
        }
        let inner = Arc::clone(&self.0);
        let new = NewWorkspace {
            id: new_workspace_id(&inner.context.clock),
            name: order.workspace.clone(),
            mode: Mode::HubPrimary,
            rules: order.rules.clone(),
            bytes_max: order.bytes_max,
            owner: caller.actor(),
        };
        let (tree, attempt) = ((order.root, order.entries, order.bytes), asking.attempt);
        let making = Making { inner, caller: caller.clone(), new, tree, attempt };
        self.0.transfers.import(caller, order, asking, &self.0.chunks, making).await
    }
}

impl Taker for Making {
    async fn judge(&self) -> Result<(), Refusal> {
        let (now, by, attempt) = (self.inner.context.clock.wall(), self.caller.clone(), self.attempt);
        let (new, (root, entries, bytes)) = (self.new.clone(), self.tree);
        let mut row = audit(&self.caller, "workspace.import", &new.name, now);
        row.argv.extend([root.to_string(), entries.to_string(), bytes.to_string()]);
        let work = move |tx: &mut dyn Tx| {
            may(tx, &by, attempt, now)?;
            table::may_make(tx, &new, entries, bytes)?;
            tx.append_audit(&row)?;
            Ok(())
        };
        self.inner.context.commit(work, |()| ()).await
    }

    async fn make(self, complete: Complete) -> Result<(), Refusal> {
        let Self { inner, caller, new, attempt, .. } = self;
        let now = inner.context.clock.wall();
        let mut row = audit(&caller, "workspace.create", &new.name, now);
        row.argv.push(complete.tree().to_string());
        let work = move |tx: &mut dyn Tx| {
            may(tx, &caller, attempt, now)?;
            let decided = table::make(tx, new, complete, now)?;
            tx.append_audit(&row)?;
            Ok(decided)
        };
        let after = Arc::clone(&inner);
        inner.context.commit(work, move |decided: &Decided| after.follow(decided)).await.map(drop)
    }
}

/// Whether the caller may go on, as this transaction finds it.
fn may(
    tx: &dyn Tx,
    caller: &Caller,
    attempt: Option<(TaskId, Attempt)>,
    now: WallTime,
) -> Result<(), WriteError> {
    let caller = anew(tx, caller, now)?;
    caller.anywhere(Right::WorkspacesWrite)?;
    if let Some((task, attempt)) = attempt {
        fence(tx, &caller, task, attempt)??;
    }
    Ok(())
}
