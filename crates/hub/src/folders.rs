//! Folders of nodes that are members of workspaces, and the locks of those, as whoever writes files must know
//! them without asking the store. Changed only behind a commit, in the order of the commits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cortex_core::Refusal;
use cortex_core::files::path::FilePath;
use cortex_core::id::{MemberId, NodeId, WorkspaceId};
use cortex_core::time::Timestamp;
use cortex_core::workspace::{Cover, Decided, LockLeases, Member, Quoted, Workspace, Writer};

/// The folders and the locks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    rows: Arc<RwLock<Rows>>,
    leases: Arc<Mutex<LockLeases>>,
}

#[derive(Debug, Default)]
struct Rows {
    cover: Cover,
    workspaces: BTreeMap<WorkspaceId, Workspace>,
}

impl Folders {
    /// A workspace that was not removed, with these of its members.
    pub fn put(&self, ws: &Workspace, members: &[Member]) {
        let mut rows = self.write();
        rows.workspaces.insert(ws.id, ws.clone());
        members.iter().for_each(|member| rows.cover.put(member));
    }

    /// Takes a decision in.
    pub fn follow(&self, decided: &Decided) {
        {
            let mut rows = self.write();
            decided.gone.iter().for_each(|gone| rows.cover.remove(*gone));
            if decided.ws.removed_at.is_some() {
                rows.workspaces.remove(&decided.ws.id);
                return;
            }
        }
        self.put(&decided.ws, &decided.members);
    }

    /// Whether one may write these paths of a node at this moment, and under which lock.
    ///
    /// # Errors
    /// `locked`, `stale_epoch`.
    pub fn check(
        &self,
        node: NodeId,
        paths: &[&FilePath],
        writer: Writer<'_>,
    ) -> Result<Option<Quoted>, Refusal> {
        let rows = self.read();
        rows.cover.check_write(node, paths, writer, |id| rows.workspaces.get(&id))
    }

    /// The member whose folder this path is or lies in, and the path within it.
    pub fn above(&self, node: NodeId, path: &FilePath) -> Option<(MemberId, String)> {
        let rows = self.read();
        rows.cover.above(node, path).map(|(folder, rest)| (folder.member, rest.to_owned()))
    }

    /// Somebody writes under its lock: it has its whole time again. One whose end was told has not.
    pub fn used(&self, lock: Quoted, now: Timestamp) {
        let _ended = self.leases().extend(lock.workspace, lock.epoch, now);
    }

    /// When locks end.
    pub fn leases(&self) -> MutexGuard<'_, LockLeases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Rows> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}
