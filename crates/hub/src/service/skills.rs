//! Use cases of the library of skills: folders with a `SKILL.md`, promoted from nodes and workspaces, read by
//! whoever may.
//!
//! Content is whole and durable in the chunk store before the row that names it, and the row is written in
//! one transaction with the question who won: no skill is ever half written, whatever ends in the middle.

mod bring;
pub mod mounts;
mod read;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::files::content::TreeId;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::{Revision, WorkspaceId};
use cortex_core::name::{Name, printable};
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::skill::{self, Mount, Promotion, SkillRow};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::mounts::Mounts;
use super::transfers::Transfers;
use super::workspaces::Workspaces;
use super::{Caller, Context, anew, asking, targets};
use crate::mesh::Mesh;
use crate::transfer::chunks::Chunks;
use crate::transfer::keep::Hold;

pub use self::read::{FileShown, Found, Listed, Part, READ_BYTES_MAX, Shown};

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Skills(Arc<Inner>);

struct Inner {
    context: Context,
    mesh: Mesh,
    transfers: Transfers,
    chunks: Chunks,
    workspaces: Workspaces,
    mounts: Mutex<Mounts>,
    /// What is due may have changed.
    wake: Arc<Notify>,
    stop: CancellationToken,
}

/// Where the folder of a promotion is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of a node.
    Node {
        /// Its name or id.
        node: String,
        /// The folder.
        path: FilePath,
    },
    /// A folder of the newest revision of a workspace.
    Workspace {
        /// Its name or id.
        name: String,
        /// The folder; the root is all of it.
        path: RelPath,
    },
}

/// A promotion that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The skill.
    pub name: Name,
    /// Where its folder is.
    pub source: Source,
    /// The revision that the promoter saw, 0 when he saw none. When missing, the newest one at this moment.
    pub expect: Option<Revision>,
}

/// What came of a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// The newest revision of the skill.
    pub row: SkillRow,
    /// Whether it was that already.
    pub already: bool,
    /// Files and links in it.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// A folder that the caller may promote.
enum Place {
    Node(Arc<Node>, FilePath),
    Workspace(WorkspaceId, Name, TreeId, RelPath),
}

/// A whole tree, and what holds it.
struct Brought {
    hold: Hold,
    tree: TreeId,
    from: Option<WorkspaceId>,
}

impl Skills {
    /// The use cases over these. Reads what there is.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(crate) async fn open(
        context: Context,
        mesh: Mesh,
        transfers: Transfers,
        chunks: Chunks,
        workspaces: Workspaces,
    ) -> Result<Self, Refusal> {
        let mounts = Mutex::new(Mounts::of(context.view(|view| view.skill_mounts()).await?));
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        Ok(Self(Arc::new(Inner { context, mesh, transfers, chunks, workspaces, mounts, wake, stop })))
    }

    /// Ends what is under way: rows say where to go on.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Promotes a folder to the library. Needs `skills:write`; `files:read` on the node, and its policy's leave
    /// to read the folder; `workspaces:read` and `files:read` for a folder of a workspace.
    ///
    /// # Errors
    /// `conflict` when another revision is the newest than the promoter saw, naming it and who promoted it, and
    /// when the folder changes meanwhile; `not_found`, `invalid_argument` without a `SKILL.md`, `too_large`,
    /// `unsupported_entry`, `quota`, `forbidden`, `node_not_found`, `node_offline`, `policy_denied`,
    /// `path_outside_roots`, `no_space`.
    pub async fn promote(&self, caller: &Caller, order: Order) -> Result<Promoted, Refusal> {
        caller.anywhere(Right::SkillsWrite)?;
        let inner = &self.0;
        let place = inner.place(caller, &order.source)?;
        let name = order.name.clone();
        let head = inner.context.view(move |view| view.skill(&name)).await?;
        let live = head.filter(|row| row.removed_at.is_none());
        let expect = order.expect.unwrap_or_else(|| live.as_ref().map(|row| row.n).unwrap_or_default());
        inner.admit(caller, &order, &place).await?;
        let brought = match place {
            Place::Node(node, path) => inner.bring(caller, &node, &path, live.map(|row| row.tree)).await?,
            Place::Workspace(id, name, tree, path) => inner.branch(id, &name, tree, path).await?,
        };
        let (brought, package, (files, bytes)) = inner.package(brought).await?;
        fail::fail_point!("skills::packed");
        let (now, by, name) = (inner.context.clock.wall(), caller.clone(), order.name);
        let from = brought.from;
        let work = move |tx: &mut dyn Tx| {
            anew(tx, &by, now)?.anywhere(Right::SkillsWrite)?;
            let actor = by.actor();
            let promotion = Promotion { name: &name, expect, package: &package, by: &actor, from };
            let done = match skill::promote_to(tx, &promotion, now)? {
                skill::Promoted::New(row, _) => Promoted { row: *row, already: false, files, bytes },
                skill::Promoted::Already(_) => {
                    let row = tx.skill(&name)?.ok_or_else(|| none(name.as_str()))?;
                    Promoted { row, already: true, files, bytes }
                }
            };
            fail::fail_point!("skills::row");
            Ok(done)
        };
        // Until the row is there nothing but the hold keeps what it names, whether the caller waits or not.
        let after = Arc::clone(inner);
        let follow = move |done: &Promoted| {
            if !done.already {
                let row = &done.row;
                lock(&after.mounts).moved(&row.name);
                after.wake.notify_one();
                tracing::info!(skill = %row.name, revision = row.n.0, by = %row.by, "a skill was promoted");
            }
            drop(brought);
        };
        let done = inner.context.commit(work, follow).await;
        fail::fail_point!("skills::committed");
        done
    }

    /// Removes a skill from the library. Its numbers are not given again. Needs `skills:write`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` while a folder follows it.
    pub async fn remove(&self, caller: &Caller, name: &str) -> Result<SkillRow, Refusal> {
        caller.anywhere(Right::SkillsWrite)?;
        let parsed = Name::parse(name).map_err(|_no_name| none(name))?;
        let (now, by) = (self.0.context.clock.wall(), caller.clone());
        let mut audit = audit(caller, "skill.remove", &parsed, now);
        let work = move |tx: &mut dyn Tx| {
            anew(tx, &by, now)?.anywhere(Right::SkillsWrite)?;
            let head = tx.skill(&parsed)?.ok_or_else(|| none(parsed.as_str()))?;
            let (row, event) = skill::remove(&head, &by.actor(), now)?;
            let gone = unmounted(tx, &parsed)?;
            tx.put_skill(&row)?;
            tx.append_event(&event)?;
            audit.argv.push(row.n.to_string());
            tx.append_audit(&audit)?;
            Ok((row, gone))
        };
        let after = Arc::clone(&self.0);
        let follow = move |(row, gone): &(SkillRow, Vec<Mount>)| {
            tracing::info!(skill = %row.name, revision = row.n.0, "a skill was removed");
            lock(&after.mounts).forget_all(gone);
        };
        Ok(self.0.context.commit(work, follow).await?.0)
    }
}

impl Inner {
    /// The folder, as the caller's rights are at this moment.
    fn place(&self, caller: &Caller, source: &Source) -> Result<Place, Refusal> {
        match source {
            Source::Node { node, path } => {
                let node = targets::find_for(&self.context.directory, caller, Right::FilesRead, node)?;
                Ok(Place::Node(node, path.clone()))
            }
            Source::Workspace { name, path } => {
                let shown = self.workspaces.status(caller, name)?;
                // What the library holds is seen by all who may read it.
                caller.anywhere(Right::FilesRead)?;
                Ok(Place::Workspace(shown.ws.id, shown.ws.name, shown.ws.tree, path.clone()))
            }
        }
    }

    /// Writes down who asks for what, and refuses what the policy of the node does not allow.
    async fn admit(&self, caller: &Caller, order: &Order, place: &Place) -> Result<(), Refusal> {
        let now = self.context.clock.wall();
        let mut row = audit(caller, "skill.promote", &order.name, now);
        let judged = match place {
            Place::Node(node, path) => {
                row.node = Some(node.id);
                row.argv.push(format!("{}:{}", node.name, path.as_str()));
                asking::judge(&self.context, node, path, false)
            }
            Place::Workspace(_, name, _, path) => {
                row.argv.push(format!("workspace:{name}/{}", path.as_str()));
                Ok(())
            }
        };
        if let Err(refusal) = &judged {
            row.outcome = Outcome::Denied;
            row.reason = Some(refusal.code.as_str().to_owned());
        }
        let by = caller.clone();
        let work = move |tx: &mut dyn Tx| {
            anew(tx, &by, now)?.anywhere(Right::SkillsWrite)?;
            Ok(tx.append_audit(&row)?)
        };
        self.context.commit(work, |_| ()).await?;
        judged
    }
}

/// Gives up mounts of the skill on nodes that are gone; refuses while there are others.
fn unmounted(tx: &mut dyn Tx, skill: &Name) -> Result<Vec<Mount>, WriteError> {
    let mut gone = Vec::new();
    for mount in tx.skill_mounts()?.into_iter().filter(|mount| mount.skill == *skill) {
        if let Some(node) = tx.node(mount.node)?.filter(|node| node.removed_at.is_none()) {
            let place = format!("{}:{}", node.name, printable(mount.path.as_str(), 200));
            return Err(Refusal::new(Code::Conflict, format!("{place} follows the skill {skill}."))
                .hint(format!("Unmount it first: `cortex skill unmount {skill} NODE:PATH`."))
                .into());
        }
        tx.remove_skill_mount(mount.node, &mount.path)?;
        gone.push(mount);
    }
    Ok(gone)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn audit(caller: &Caller, action: &str, name: &Name, now: WallTime) -> AuditRow {
    AuditRow {
        argv: vec![name.to_string()],
        token: Some(caller.token.id),
        ..AuditRow::new(now, caller.actor(), action, Outcome::Allowed)
    }
}

/// There is no such skill.
fn none(name: &str) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no skill `{}`.", printable(name, 120)))
        .hint("List the skills with `cortex skill ls` and use one of those names.")
}
