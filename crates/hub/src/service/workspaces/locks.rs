//! The lock of a workspace: taken, extended, given back, broken. When it ends by itself, the waves see.

use std::collections::BTreeMap;

use cortex_core::files::path::FilePath;
use cortex_core::id::{LockEpoch, NodeId, WorkspaceId};
use cortex_core::name::printable;
use cortex_core::rights::Right;
use cortex_core::workspace::{Command, Cover, Quoted, Workspace, Writer};
use cortex_core::{Code, Refusal};
use cortex_store::{Read, StoreError};

use super::{Inner, Shown, Workspaces};
use crate::service::Caller;

impl Workspaces {
    /// Makes the caller the only writer for `ttl_ms` from each extension. Needs `workspaces:write`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `locked`, `invalid_argument`.
    pub async fn lock(&self, caller: &Caller, name: &str, ttl_ms: u64) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        let command = Command::Lock { holder: caller.actor(), ttl_ms };
        self.0.decide_for(caller, id, command, "workspace.lock", &[ttl_ms.to_string()]).await?;
        self.0.shown(caller, id)
    }

    /// The holder is still at it.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `stale_epoch`.
    pub async fn extend(&self, caller: &Caller, name: &str, epoch: LockEpoch) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        self.0.must_hold(caller, id)?;
        // First in memory: a lock whose end was told is not extended by a row.
        let now = self.0.context.clock.now();
        self.0.context.directory.folders().leases().extend(id, epoch, now)?;
        self.0.decide(id, Command::Extend { epoch }).await?;
        self.0.shown(caller, id)
    }

    /// Gives the lock back; without an epoch somebody else's is broken.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `stale_epoch`, `conflict` when it is not locked.
    pub async fn unlock(
        &self,
        caller: &Caller,
        name: &str,
        epoch: Option<LockEpoch>,
    ) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        let (command, action) = match epoch {
            Some(epoch) => {
                self.0.must_hold(caller, id)?;
                (Command::Unlock { epoch }, "workspace.unlock")
            }
            None => (Command::BreakLock { by: caller.actor() }, "workspace.break_lock"),
        };
        self.0.decide_for(caller, id, command, action, &[]).await?;
        self.0.shown(caller, id)
    }
}

impl Inner {
    /// The lock is of this very caller.
    fn must_hold(&self, caller: &Caller, id: WorkspaceId) -> Result<(), Refusal> {
        let roster = self.roster();
        match roster.get(id).and_then(|ws| Some((ws, ws.lock.as_ref()?))) {
            Some((ws, holding)) if holding.holder != caller.actor() => Err(Refusal::new(
                Code::Locked,
                format!("Workspace {} is locked by {}.", ws.name, printable(&holding.holder, 120)),
            )
            .hint("Wait for the lock to end, or break it: `cortex workspace unlock NAME --break`.")),
            // Whether it holds at all, the decision says.
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether one may write these paths of a node, as the rows of this transaction say: a lock that is committed
/// before it holds on it.
///
/// # Errors
/// The inner one: `locked`, `stale_epoch`.
pub(in crate::service) fn check_write(
    rows: &dyn Read,
    node: NodeId,
    paths: &[&FilePath],
    writer: Writer<'_>,
) -> Result<Result<Option<Quoted>, Refusal>, StoreError> {
    let (mut cover, mut known) = (Cover::default(), BTreeMap::<WorkspaceId, Workspace>::new());
    for member in rows.members_on(node)? {
        cover.put(&member);
        if !known.contains_key(&member.workspace)
            && let Some(ws) = rows.workspace(member.workspace)?.filter(|ws| ws.removed_at.is_none())
        {
            known.insert(ws.id, ws);
        }
    }
    Ok(cover.check_write(node, paths, writer, |id| known.get(&id)))
}
