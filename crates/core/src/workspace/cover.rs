//! Which folder of a member a path of a node lies in, and whether a lock of its workspace forbids a write
//! there. Kept in memory beside the rows: folders of members do not lie in one another, so one look-up
//! finds the only one that may be above a path.

use std::collections::BTreeMap;

use super::{Member, Workspace};
use crate::error::Refusal;
use crate::files::path::FilePath;
use crate::id::{LockEpoch, MemberId, NodeId, WorkspaceId};

/// Folders of members by node and path. Takes O(log n) for a look-up, and memory for each folder.
#[derive(Clone, Debug, Default)]
pub struct Cover {
    folders: BTreeMap<(NodeId, FilePath), Folder>,
    places: BTreeMap<MemberId, (NodeId, FilePath)>,
}

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The member.
    pub member: MemberId,
    /// Its workspace.
    pub workspace: WorkspaceId,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer<'w> {
    /// Who, as holders of locks are named.
    pub actor: &'w str,
    /// The number of the lock that it says to hold.
    pub epoch: Option<LockEpoch>,
}

/// The lock that a writer says to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Its number.
    pub epoch: LockEpoch,
}

impl Cover {
    /// A member is there, or has moved.
    pub fn put(&mut self, member: &Member) {
        self.remove(member.id);
        let place = (member.node, member.path.clone());
        self.places.insert(member.id, place.clone());
        self.folders.insert(place, Folder { member: member.id, workspace: member.workspace });
    }

    /// A member is none any more.
    pub fn remove(&mut self, member: MemberId) {
        if let Some(place) = self.places.remove(&member) {
            self.folders.remove(&place);
        }
    }

    /// The folder that this path is or lies in, with the path within it: empty for the folder itself.
    pub fn above<'c>(&'c self, node: NodeId, path: &'c FilePath) -> Option<(Folder, &'c str)> {
        // What lies in a folder comes right after it, so the nearest before is the only candidate.
        let ((on, at), folder) = self.folders.range(..=(node, path.clone())).next_back()?;
        let rest = path.below(at.as_str()).filter(|_| *on == node)?;
        Some((*folder, rest))
    }

    /// The folders that are this path or lie in it.
    pub fn within(&self, node: NodeId, path: &FilePath) -> impl Iterator<Item = Folder> {
        self.folders
            .range((node, path.clone())..)
            .take_while(move |((on, at), _)| *on == node && at.below(path.as_str()).is_some())
            .map(|(_, folder)| *folder)
    }

    /// Whether one may write all of these paths, and under which lock of those that are concerned. The number
    /// that the writer says is that of one lock: of the workspace that is locked by this very number, if one
    /// of them is.
    ///
    /// # Errors
    /// `locked` when another has a lock, or the writer does not say that it has it; `stale_epoch` when the
    /// one that it says to hold has ended.
    pub fn check_write<'w>(
        &self,
        node: NodeId,
        paths: &[&FilePath],
        writer: Writer<'_>,
        find: impl Fn(WorkspaceId) -> Option<&'w Workspace>,
    ) -> Result<Option<Quoted>, Refusal> {
        let touched = || {
            let folders = paths.iter().flat_map(|path| {
                let above = self.above(node, path).map(|(folder, _)| folder);
                above.into_iter().chain(self.within(node, path))
            });
            folders.filter_map(|folder| find(folder.workspace))
        };
        let quoted = writer.epoch.and_then(|epoch| {
            let held = touched().find(|ws| ws.lock.is_some() && ws.epoch == epoch);
            let of = held.or_else(|| touched().find(|ws| ws.lock.is_some())).or_else(|| touched().next())?;
            Some(Quoted { workspace: of.id, epoch })
        });
        for path in paths {
            self.check_lock(node, path, quoted, &find).map_err(|refusal| own(refusal, writer))?;
        }
        let ws = quoted.and_then(|quoted| find(quoted.workspace));
        ws.map_or(Ok(()), |ws| ws.check_holder(writer.actor))?;
        Ok(quoted)
    }

    /// Refuses a write to a path that the lock of a workspace forbids: of the one whose folder it lies in,
    /// and of those whose folders lie in it. `find` knows workspaces by their id.
    ///
    /// # Errors
    /// `locked` when another has the lock; `stale_epoch` when the writer's own of that workspace has ended.
    pub fn check_lock<'w>(
        &self,
        node: NodeId,
        path: &FilePath,
        quoted: Option<Quoted>,
        find: impl Fn(WorkspaceId) -> Option<&'w Workspace>,
    ) -> Result<(), Refusal> {
        let above = self.above(node, path).map(|(folder, _)| folder);
        for folder in above.into_iter().chain(self.within(node, path)) {
            let Some(ws) = find(folder.workspace) else { continue };
            let own = quoted.filter(|quoted| quoted.workspace == ws.id).map(|quoted| quoted.epoch);
            ws.check_lock(own)?;
        }
        Ok(())
    }
}

/// Whoever forgot to say that the lock is its own is told how.
fn own(refusal: Refusal, writer: Writer<'_>) -> Refusal {
    let holder = refusal.details.iter().find(|(key, _)| *key == "holder");
    if writer.epoch.is_none() && holder.is_some_and(|(_, holder)| holder == writer.actor) {
        let epoch = refusal.details.iter().find(|(key, _)| *key == "epoch").map(|(_, epoch)| epoch.clone());
        let epoch = epoch.unwrap_or_default();
        return refusal.hint(format!(
            "It is your own: say so with `--lock {epoch}`, or the header `Cortex-Lock: {epoch}`."
        ));
    }
    refusal
}
