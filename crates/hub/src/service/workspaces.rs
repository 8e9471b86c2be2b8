//! Use cases of workspaces: named trees of the hub, and the folders of nodes that follow or lead them.
//!
//! What may follow what is decided by `cortex_core::workspace`, in one transaction with the rows. Content is
//! in the chunk store before a row names it. What is to be done for a member follows from its rows alone, and
//! is done by [`waves`]: whatever ends in the middle goes on from there.

mod ask;
mod drift;
mod import;
pub(super) mod locks;
mod members;
mod mirror;
mod record;
mod retention;
mod roster;
mod steps;
pub mod waves;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::files::path::FilePath;
use cortex_core::id::{LockEpoch, MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::limits::WORKSPACE_BYTES_MAX;
use cortex_core::name::{Name, printable};
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::skill;
use cortex_core::time::WallTime;
use cortex_core::transfer::LeftOut;
use cortex_core::workspace::{
    Command, Decided, Member, MemberState, Mode, NewWorkspace, RevisionRow, Role, Rules, Workspace, table,
};
use cortex_core::{Code, Refusal};
use cortex_store::{StoredConflict, Tx, WriteError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::roster::Roster;
use self::waves::Waves;
use super::transfers::Transfers;
use super::watching::Watching;
use super::{Caller, Context, anew};
use crate::clock::{new_member_id, new_workspace_id};
use crate::mesh::{Mesh, Unwatched};
use crate::transfer::chunks::Chunks;
use crate::transfer::merge;

pub use self::drift::{Drift, DriftPath};
pub use self::members::{Resync, Resynced};
pub(in crate::service) use self::mirror::Copied;
pub use self::mirror::{Manifest, Mirrored};

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Workspaces(Arc<Inner>);

struct Inner {
    context: Context,
    mesh: Mesh,
    transfers: Transfers,
    chunks: Chunks,
    /// What the rows say, without the store.
    roster: Mutex<Roster>,
    waves: Mutex<Waves>,
    /// What is due may have changed.
    wake: Arc<Notify>,
    stop: CancellationToken,
}

/// A workspace that is asked for.
#[derive(Clone, Debug)]
pub struct New {
    /// Its name.
    pub name: Name,
    /// Whose changes make revisions.
    pub mode: Mode,
    /// What belongs to the tree.
    pub rules: Rules,
    /// Bytes that one tree may have; [`WORKSPACE_BYTES_MAX`] when missing.
    pub bytes_max: Option<u64>,
    /// Its lead, or the first peer, whose folder it begins with.
    pub first: Option<(String, FilePath)>,
}

/// How a workspace stands.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The workspace.
    pub ws: Workspace,
    /// Its members on nodes that the caller sees.
    pub members: Vec<ShownMember>,
}

/// How a member stands.
#[derive(Clone, Debug)]
pub struct ShownMember {
    /// The member.
    pub member: Member,
    /// The name of its node.
    pub node: String,
    /// How it is shown.
    pub state: MemberState,
    /// When its node last said what is there, on the hub's wall clock.
    pub seen_at: Option<WallTime>,
    /// Why the last step for it was not done; it is tried again.
    pub trouble: Option<Refusal>,
    /// Whether its node tells of changes.
    pub is_watched: bool,
    /// Why it does not, when it was asked to.
    pub unwatched: Option<Unwatched>,
    /// What the folder had, when its node was asked last, and no tree has.
    pub left_out: LeftOut,
}

/// What is written beside a decision of the hub itself.
#[derive(Default)]
struct Beside {
    /// Paths that two sides had changed.
    conflicts: Vec<StoredConflict>,
    /// What the audit log has of it.
    audit: Option<AuditRow>,
}

impl Workspaces {
    /// The use cases over `mesh` and the chunk store. Reads what there is.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(crate) async fn open(
        context: Context,
        mesh: Mesh,
        transfers: Transfers,
        chunks: Chunks,
    ) -> Result<Self, Refusal> {
        let rows = context
            .view(|view| {
                let mut rows = Vec::new();
                for ws in view.workspaces()? {
                    let members = view.members_of(ws.id)?;
                    rows.push((ws, members));
                }
                Ok(rows)
            })
            .await?;
        let (mut roster, folders) = (Roster::default(), context.directory.folders());
        for (ws, members) in rows {
            if let Some(holding) = &ws.lock {
                folders.leases().found(ws.id, ws.epoch, holding.ttl_ms, context.clock.now());
            }
            folders.put(&ws, &members);
            roster.put(ws, members);
        }
        Ok(Self(Arc::new(Inner {
            context,
            mesh,
            transfers,
            chunks,
            roster: Mutex::new(roster),
            waves: Mutex::default(),
            wake: Arc::default(),
            stop: CancellationToken::new(),
        })))
    }

    /// Makes a workspace, empty, and attaches the folder that it begins with. Needs `workspaces:write`.
    ///
    /// # Errors
    /// `forbidden`, `conflict`, `quota`, `too_large`, `invalid_argument`, `node_not_found`, `policy_denied`.
    pub async fn create(&self, caller: &Caller, new: New) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let role = match new.mode {
            Mode::NodePrimary => Role::Lead,
            Mode::HubPrimary => Role::Peer,
        };
        if new.mode == Mode::NodePrimary && new.first.is_none() {
            let message = "A workspace that a node leads needs the folder of its lead.";
            return Err(Refusal::new(Code::InvalidArgument, message).hint("Name it: `--lead NODE:PATH`."));
        }
        let inner = &self.0;
        let first = new.first.map(|(node, path)| inner.placed(caller, &node, path, role)).transpose()?;
        let (pin, complete) = inner
            .chunks
            .run(|chunks| {
                let pin = chunks.pin()?;
                let empty = merge::empty(chunks, &pin)?;
                let complete = chunks.whole(empty, &pin)?;
                Ok((pin, complete))
            })
            .await?;
        let (id, member) = (new_workspace_id(&inner.context.clock), new_member_id(&inner.context.clock));
        let made = NewWorkspace {
            id,
            name: new.name,
            mode: new.mode,
            rules: new.rules,
            bytes_max: new.bytes_max.unwrap_or(WORKSPACE_BYTES_MAX),
            owner: caller.actor(),
        };
        let (now, by) = (inner.context.clock.wall(), caller.clone());
        let mut row = audit(caller, "workspace.create", &made.name, now);
        let work = move |tx: &mut dyn Tx| {
            let by = anew(tx, &by, now)?;
            by.anywhere(Right::WorkspacesWrite)?;
            let mut decided = vec![table::make(tx, made, complete, now)?];
            if let Some((node, path)) = first {
                row.argv.push(path.as_str().to_owned());
                row.node = Some(node.id);
                skill::refuse_mounted(node.id, &path, &tx.skill_mounts()?)?;
                let attach = Command::Attach { id: member, node: node.id, path, role, by: by.actor() };
                decided.push(table::apply(tx, id, attach, now)?);
            }
            tx.append_audit(&row)?;
            Ok(decided)
        };
        let after = Arc::clone(inner);
        let follow = move |decided: &Vec<Decided>| decided.iter().for_each(|one| after.follow(one));
        inner.context.commit(work, follow).await?;
        drop(pin);
        inner.shown(caller, id)
    }

    /// All workspaces, by name. Needs `workspaces:read`.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn list(&self, caller: &Caller) -> Result<Vec<Shown>, Refusal> {
        caller.anywhere(Right::WorkspacesRead)?;
        let ids = self.0.roster().ids();
        Ok(ids.into_iter().filter_map(|id| self.0.shown(caller, id).ok()).collect())
    }

    /// How one stands, by name or id. Needs `workspaces:read`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn status(&self, caller: &Caller, name: &str) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesRead)?;
        let id = self.0.find(name)?;
        self.0.shown(caller, id)
    }

    /// Its revisions below `before`, the newest first. Needs `workspaces:read`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `store_unavailable`.
    pub async fn history(
        &self,
        caller: &Caller,
        name: &str,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<RevisionRow>, Refusal> {
        caller.anywhere(Right::WorkspacesRead)?;
        let id = self.0.find(name)?;
        self.0.context.view(move |view| view.revisions(id, before, limit)).await
    }

    /// The tree of an earlier revision becomes the newest one. Needs `workspaces:write`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `locked`, `stale_epoch`, `invalid_argument` when a node leads.
    pub async fn restore(
        &self,
        caller: &Caller,
        name: &str,
        n: Revision,
        lock: Option<LockEpoch>,
    ) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        let of = self.0.context.view(move |view| view.revision(id, n)).await?.ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("The workspace has no revision {n}."))
                .hint("List the revisions with `cortex workspace history NAME` and use one of those.")
        })?;
        let tree = of.tree;
        let (pin, complete) = self
            .0
            .chunks
            .run(move |chunks| {
                let pin = chunks.pin()?;
                let complete = chunks.whole(tree, &pin)?;
                Ok((pin, complete))
            })
            .await?;
        let command = Command::Restore { of, complete, by: caller.actor(), lock };
        let done = self.0.decide_for(caller, id, command, "workspace.restore", &[n.to_string()]).await;
        drop(pin);
        done?;
        self.0.shown(caller, id)
    }

    /// Changes its rules or its bound. Needs `workspaces:write`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `locked`, `stale_epoch`, `too_large`, `invalid_argument`.
    pub async fn change(
        &self,
        caller: &Caller,
        name: &str,
        (rules, bytes_max): (Option<Rules>, Option<u64>),
        lock: Option<LockEpoch>,
    ) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        let command = Command::Change { rules, bytes_max, by: caller.actor(), lock };
        self.0.decide_for(caller, id, command, "workspace.change", &[]).await?;
        self.0.shown(caller, id)
    }

    /// Ends it; folders of members stay as they are. Needs `workspaces:write`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `locked`, `stale_epoch`.
    pub async fn remove(&self, caller: &Caller, name: &str, lock: Option<LockEpoch>) -> Result<(), Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        let command = Command::Remove { by: caller.actor(), lock };
        self.0.decide_for(caller, id, command, "workspace.remove", &[]).await.map(drop)
    }

    /// What each state of members counts, for figures.
    pub fn member_counts(&self) -> BTreeMap<&'static str, i64> {
        let (roster, mut counts) = (self.0.roster(), BTreeMap::new());
        for (ws, member) in roster.all() {
            let online = self.0.mesh.presence(member.node).is_some();
            *counts.entry(member.shown(ws, online).as_str()).or_default() += 1;
        }
        counts
    }

    /// Somebody writes through the hub.
    #[cfg(test)]
    pub(crate) async fn edit(&self, name: &str, path: &str, content: Option<&[u8]>) {
        use cortex_core::files::path::RelPath;
        use cortex_core::workspace::Source;

        use crate::transfer::played;

        let id = self.0.find(name).expect("it is there");
        let (path, content) = (RelPath::parse(path).expect("a path"), content.map(<[u8]>::to_vec));
        loop {
            let ws = self.0.roster().get(id).cloned().expect("it is there");
            let (path, content, tree) = (path.clone(), content.clone(), ws.tree);
            let (pin, complete) = self
                .0
                .chunks
                .run(move |chunks| {
                    let pin = chunks.pin()?;
                    let node = content.map(|content| played::file(chunks, &content, &pin));
                    let tree = merge::edited(chunks, tree, vec![(path, node)], &pin);
                    let complete = chunks.whole(tree, &pin)?;
                    Ok((pin, complete))
                })
                .await
                .expect("written");
            let (source, by, note) = (Source::Edit, "token:ada".to_owned(), String::new());
            let commit = Command::Commit { complete, expect: ws.head, source, by, note, lock: None };
            let done = self.0.decide(id, commit).await;
            drop(pin);
            match done {
                Ok(_) => return,
                // A member was first.
                Err(refusal) => assert_eq!(refusal.code, Code::Conflict),
            }
        }
    }

    /// All files of the newest revision.
    #[cfg(test)]
    pub(crate) fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let id = self.0.find(name).expect("it is there");
        let tree = self.0.roster().get(id).expect("it is there").tree;
        crate::transfer::played::files(&self.0.chunks, tree)
    }

    /// Ends what is under way: rows say where to go on.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }
}

impl Inner {
    fn roster(&self) -> MutexGuard<'_, Roster> {
        lock(&self.roster)
    }

    fn find(&self, text: &str) -> Result<WorkspaceId, Refusal> {
        let found = self.roster().named(text);
        found.ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("There is no workspace `{}`.", printable(text, 120)))
                .hint("List the workspaces with `cortex workspace ls` and use one of those names.")
        })
    }

    fn shown(&self, caller: &Caller, id: WorkspaceId) -> Result<Shown, Refusal> {
        let roster = self.roster();
        let gone = || Refusal::new(Code::NotFound, "There is no such workspace.");
        let ws = roster.get(id).cloned().ok_or_else(gone)?;
        let members: Vec<Member> = roster.members_of(id).cloned().collect();
        drop(roster);
        let waves = lock(&self.waves);
        let members = members.into_iter().filter_map(|member| {
            let node = self.context.directory.node(member.node)?;
            caller.sees(&node).then(|| ShownMember {
                state: member.shown(&ws, self.mesh.presence(node.id).is_some()),
                node: node.name.to_string(),
                seen_at: waves.seen_at(member.id).or(member.observed.map(|observed| observed.at)),
                trouble: waves.trouble(member.id),
                is_watched: waves.folder(member.id).is_some_and(Watching::is_watched),
                unwatched: waves.folder(member.id).and_then(Watching::unwatched),
                left_out: waves.left_out(member.id),
                member,
            })
        });
        Ok(Shown { members: members.collect(), ws })
    }

    /// A decision of a person, with its row in the audit log.
    async fn decide_for(
        self: &Arc<Self>,
        caller: &Caller,
        id: WorkspaceId,
        command: Command,
        action: &str,
        said: &[String],
    ) -> Result<Decided, Refusal> {
        let now = self.context.clock.wall();
        let name = self.roster().get(id).map(|ws| ws.name.clone());
        let name = name.ok_or_else(|| Refusal::new(Code::NotFound, "There is no such workspace."))?;
        let mut row = audit(caller, action, &name, now);
        row.argv.extend(said.iter().cloned());
        let by = caller.clone();
        let work = move |tx: &mut dyn Tx| {
            anew(tx, &by, now)?.anywhere(Right::WorkspacesWrite)?;
            if let Command::Attach { node, path, .. } = &command {
                skill::refuse_mounted(*node, path, &tx.skill_mounts()?)?;
            }
            if let Command::Resync { member, .. } = &command {
                // Whoever asks for a resync has seen them.
                tx.remove_conflicts(*member)?;
            }
            let decided = table::apply(tx, id, command, now)?;
            tx.append_audit(&row)?;
            Ok(decided)
        };
        let after = Arc::clone(self);
        self.context.commit(work, move |decided: &Decided| after.follow(decided)).await
    }

    /// A decision of the hub itself.
    async fn decide(self: &Arc<Self>, id: WorkspaceId, command: Command) -> Result<Decided, Refusal> {
        self.decide_with(id, command, Beside::default()).await
    }

    /// The same, with rows beside it, of the same transaction.
    async fn decide_with(
        self: &Arc<Self>,
        id: WorkspaceId,
        command: Command,
        Beside { conflicts, audit }: Beside,
    ) -> Result<Decided, Refusal> {
        let now = self.context.clock.wall();
        let work = move |tx: &mut dyn Tx| -> Result<Decided, WriteError> {
            let decided = table::apply(tx, id, command, now)?;
            let head = decided.ws.head;
            let conflicts: Vec<StoredConflict> =
                conflicts.into_iter().map(|one| StoredConflict { revision: head, at: now, ..one }).collect();
            if !conflicts.is_empty() {
                tx.put_conflicts(id, &conflicts)?;
            }
            if let Some(row) = &audit {
                tx.append_audit(row)?;
            }
            Ok(decided)
        };
        let after = Arc::clone(self);
        self.context.commit(work, move |decided: &Decided| after.follow(decided)).await
    }

    /// What is known without the store follows a commit, in their order.
    fn follow(&self, decided: &Decided) {
        let before = {
            let mut roster = self.roster();
            let before = roster.get(decided.ws.id).map(|ws| (ws.epoch, ws.lock.is_some()));
            roster.follow(decided);
            before
        };
        let (ws, now) = (&decided.ws, self.context.clock.now());
        let folders = self.context.directory.folders();
        folders.follow(decided);
        match &ws.lock {
            Some(holding) if before.is_none_or(|(epoch, _)| epoch != ws.epoch) => {
                folders.leases().given(ws.id, ws.epoch, holding.ttl_ms, now);
            }
            Some(_) => {}
            None => folders.leases().ended(ws.id, ws.epoch),
        }
        if before.is_some_and(|before| before != (ws.epoch, ws.lock.is_some())) {
            // What is being pushed there may not be pushed on.
            let nodes: BTreeSet<NodeId> = self.roster().members_of(ws.id).map(|member| member.node).collect();
            nodes.into_iter().for_each(|node| self.mesh.look_at_transfers(node));
        }
        for event in &decided.events {
            tracing::info!(
                workspace = %ws.name, kind = event.kind.as_str(), node = event.node.map(tracing::field::display),
                actor = event.actor.as_deref(), detail = event.detail.as_deref().unwrap_or_default(),
                "a workspace changed"
            );
        }
        self.wake.notify_one();
    }

    /// The node of a member, while it is there.
    fn node(&self, member: &Member) -> Result<Arc<Node>, Refusal> {
        let gone = || {
            Refusal::new(Code::NodeNotFound, "The node of the member was removed.").hint("Detach the member.")
        };
        self.context.directory.node(member.node).ok_or_else(gone)
    }

    fn row(&self, id: MemberId) -> Option<(Workspace, Member)> {
        let roster = self.roster();
        let member = roster.member(id)?.clone();
        Some((roster.get(member.workspace)?.clone(), member))
    }
}

fn audit(caller: &Caller, action: &str, name: &Name, now: WallTime) -> AuditRow {
    AuditRow {
        argv: vec![name.to_string()],
        token: Some(caller.token.id),
        ..AuditRow::new(now, caller.actor(), action, Outcome::Allowed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
