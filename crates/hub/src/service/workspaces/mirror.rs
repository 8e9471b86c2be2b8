//! What the hub has of folders of members: the tree that a folder was last seen with, when that is here whole,
//! and else the one that both sides last agreed on. And the trees of revisions.

use cortex_core::files::answer::FileAnswer;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::op::Page;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::{NodeId, Revision};
use cortex_core::limits::TREE_DEPTH_MAX;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::workspace::{Member, Workspace};
use cortex_core::{Code, Refusal};

use super::{Inner, Workspaces, lock};
use crate::service::Caller;
use crate::transfer::chunks::Chunks;
use crate::transfer::mirror::Spot;

/// What the hub has of a path.
#[derive(Clone, Debug)]
pub(in crate::service) struct Copied {
    /// Where.
    pub(in crate::service) spot: Spot,
    /// How old it is.
    pub(in crate::service) fresh: Mirrored,
}

/// How old a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The revision of the workspace at which the folder was.
    pub revision: Revision,
    /// When its node last said that the folder is as the copy; of one that differs, when it was last known to.
    pub verified_at: WallTime,
    /// Whether the folder was seen to be another one since.
    pub differs: bool,
}

/// Entries of the tree of a revision.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Which revision.
    pub revision: Revision,
    /// Its tree.
    pub tree: TreeId,
    /// The listing.
    pub answer: FileAnswer,
}

impl Workspaces {
    /// What the hub has of a path of a node; `None` when it lies in no folder of a member, or nothing of that
    /// has come.
    pub(in crate::service) fn copied(&self, node: NodeId, path: &FilePath) -> Option<Copied> {
        let (member, rest) = self.0.context.directory.folders().above(node, path)?;
        let rest = if rest.is_empty() { RelPath::root() } else { RelPath::parse(&rest).ok()? };
        let (ws, member) = self.0.row(member)?;
        let seen_at = lock(&self.0.waves).seen_at(member.id);
        let (tree, fresh) = of(&ws, &member, seen_at)?;
        Some(Copied { spot: Spot { tree, rest, path: path.clone() }, fresh })
    }

    /// The chunk store.
    pub(in crate::service) fn chunks(&self) -> &Chunks {
        &self.0.chunks
    }

    /// Entries of the tree of a revision, the newest when none is named, below a folder of it. Needs
    /// `workspaces:read`, and `files:read` on a node of one of its members, as whoever reads them there does.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid_argument` for a cursor of another question, `unsupported_entry` for
    /// what is no folder.
    pub async fn manifest(
        &self,
        caller: &Caller,
        name: &str,
        n: Option<Revision>,
        (path, page): (RelPath, Page),
    ) -> Result<Manifest, Refusal> {
        caller.anywhere(Right::WorkspacesRead)?;
        let inner = &self.0;
        let id = inner.find(name)?;
        inner.may_read(caller, id)?;
        let ws = inner.roster().get(id).cloned();
        let ws = ws.ok_or_else(|| Refusal::new(Code::NotFound, "There is no such workspace."))?;
        let (revision, tree) = match n {
            None => (ws.head, ws.tree),
            Some(n) => {
                let row = inner.context.view(move |view| view.revision(id, n)).await?;
                let row = row.ok_or_else(|| {
                    Refusal::new(Code::NotFound, format!("Workspace {} has no revision {n}.", ws.name))
                        .hint("List the revisions with `cortex workspace history NAME`.")
                })?;
                (row.n, row.tree)
            }
        };
        let shown = FilePath::parse(&format!("/{}", path.as_str()))?;
        let question = question(tree, &path);
        let spot = Spot { tree, rest: path, path: shown };
        let list = move |chunks: &Chunks| {
            spot.list(chunks, (usize::from(TREE_DEPTH_MAX), true, None), &page, &question)
        };
        Ok(Manifest { revision, tree, answer: inner.chunks.run(list).await? })
    }
}

impl Inner {
    /// A tree tells names of files: whoever may read those of none of its folders does not see it.
    fn may_read(&self, caller: &Caller, id: cortex_core::id::WorkspaceId) -> Result<(), Refusal> {
        let members: Vec<Member> = self.roster().members_of(id).cloned().collect();
        let mut refused = None;
        for member in members {
            let Some(node) = self.context.directory.node(member.node).filter(|node| caller.sees(node)) else {
                continue;
            };
            match caller.on(Right::FilesRead, &node) {
                Ok(_) => return Ok(()),
                Err(refusal) => refused = Some(refusal),
            }
        }
        match refused {
            Some(refusal) => Err(refusal),
            // One without a member whose node the caller sees is for those who may read files everywhere.
            None if caller.everywhere(Right::FilesRead) => Ok(()),
            None => Err(Refusal::new(Code::Forbidden, "You may read files on none of its nodes.")
                .hint("Ask an administrator for `files:read` on the node of a member.")),
        }
    }
}

/// A cursor belongs to one tree and one folder of it.
fn question(tree: TreeId, path: &RelPath) -> ContentId {
    ContentId::of(&[tree.as_bytes().as_slice(), path.as_str().as_bytes()].concat())
}

/// The tree that stands for the folder. What rows name is here whole, and an observed tree only when it is one
/// of those.
fn of(ws: &Workspace, member: &Member, seen_at: Option<WallTime>) -> Option<(TreeId, Mirrored)> {
    let observed = member.observed.filter(|_| member.unavailable.is_none());
    if let Some(observed) = observed {
        let verified_at = seen_at.unwrap_or(observed.at);
        let of = |revision| Mirrored { revision, verified_at, differs: false };
        if observed.tree == ws.tree {
            return Some((ws.tree, of(ws.head)));
        }
        if [member.agreed, member.received].contains(&Some(observed.tree)) {
            return Some((observed.tree, of(member.reached)));
        }
    }
    let since = member.drift_since.or(observed.map(|observed| observed.at)).or(seen_at);
    let fresh = Mirrored { revision: member.reached, verified_at: since?, differs: true };
    Some((member.agreed?, fresh))
}
